//! A value as Postgres sends it in binary becomes an element of a document.

use super::decimal::Number;
use super::iso::{self, Interval};
use super::json;
use super::kind::{Element, Kind};
use super::{Bad, element};
use bson::spec::ElementType;

/// Microseconds and days since 2000-01-01, counted from 1970-01-01.
pub const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// The same in days.
pub const EPOCH_DAYS: i64 = 10_957;

/// Milliseconds of a day.
pub const DAY_MS: i64 = 86_400_000;

const UUID: u8 = 0x04;
const GENERIC: u8 = 0x00;

impl Kind {
    /// Appends a value as the element `name` to a document that is being made; NULL
    /// as null. What was written before stays, whatever happens. A name has no
    /// U+0000, as those of columns have none.
    pub fn append(&self, raw: Option<&[u8]>, name: &str, out: &mut Vec<u8>) -> Result<(), Bad> {
        let open = element::open(name.as_bytes(), out);
        let value = match raw {
            Some(raw) => self.value(raw, out),
            None => Ok(ElementType::Null),
        };
        match value {
            Ok(tag) => {
                open.close(tag, out);
                Ok(())
            }
            Err(bad) => {
                open.undo(out);
                Err(bad)
            }
        }
    }

    fn value(&self, raw: &[u8], out: &mut Vec<u8>) -> Result<ElementType, Bad> {
        Ok(match self {
            Kind::Int2 => element::int32(i32::from(i16::from_be_bytes(self.exactly(raw)?)), out),
            Kind::Int4 => element::int32(i32::from_be_bytes(self.exactly(raw)?), out),
            Kind::Int8 => element::int64(i64::from_be_bytes(self.exactly(raw)?), out),
            Kind::Numeric(_) => {
                let number = Number::of_numeric(raw).ok_or_else(|| self.garbled(raw))?;
                let decimal = number.and_then(Number::decimal128);
                let bytes = decimal.map_err(|beyond| {
                    Bad::new(format!("a numeric is not for MongoDB: {beyond}"))
                })?;
                out.extend(bytes);
                ElementType::Decimal128
            }
            Kind::Float4 => element::double(f64::from(f32::from_be_bytes(self.exactly(raw)?)), out),
            Kind::Float8 => element::double(f64::from_be_bytes(self.exactly(raw)?), out),
            Kind::Bool => element::boolean(self.exactly::<1>(raw)? != [0], out),
            Kind::Text(_) | Kind::Enum(_) => element::string(self.text(raw)?, out),
            Kind::Char(_) => element::string(self.text(raw)?.trim_end_matches(' '), out),
            Kind::Timestamptz(_) | Kind::Timestamp(_) => {
                let micros = i64::from_be_bytes(self.exactly(raw)?);
                if micros == i64::MAX || micros == i64::MIN {
                    return Err(self.infinite());
                }
                // The epoch is a whole number of milliseconds: floored is floored.
                element::date(micros.div_euclid(1_000) + EPOCH_MICROS / 1_000, out)
            }
            Kind::Date => {
                let days = i32::from_be_bytes(self.exactly(raw)?);
                if days == i32::MAX || days == i32::MIN {
                    return Err(self.infinite());
                }
                element::date((i64::from(days) + EPOCH_DAYS) * DAY_MS, out)
            }
            Kind::Time(_) => {
                let micros = i64::from_be_bytes(self.exactly(raw)?);
                if !(0..=iso::DAY).contains(&micros) {
                    return Err(self.garbled(raw));
                }
                let string = element::sized(out);
                iso::print_time(micros, out);
                string.end_string(out);
                ElementType::String
            }
            Kind::Interval(_) => {
                let raw: [u8; 16] = self.exactly(raw)?;
                let interval = interval(raw);
                let least = Interval { months: i32::MIN, days: i32::MIN, micros: i64::MIN };
                let greatest = Interval { months: i32::MAX, days: i32::MAX, micros: i64::MAX };
                if interval == least || interval == greatest {
                    return Err(self.infinite());
                }
                let string = element::sized(out);
                iso::print_interval(interval, out);
                string.end_string(out);
                ElementType::String
            }
            Kind::Uuid => element::binary(UUID, &self.exactly::<16>(raw)?, out),
            Kind::Bytea => element::binary(GENERIC, raw, out),
            Kind::Json => json::read(self.text(raw)?, json::Keys::MayRepeat, out)?,
            Kind::Jsonb => match raw.split_first() {
                Some((1, text)) => json::read(self.text(text)?, json::Keys::AreUnique, out)?,
                _ => return Err(self.garbled(raw)),
            },
            Kind::Array(element) => self.nested(element, raw, out)?,
        })
    }

    /// An array of arrays for each dimension but the last.
    fn nested(&self, element: &Element, raw: &[u8], out: &mut Vec<u8>) -> Result<ElementType, Bad> {
        let mut rest = raw;
        let mut int = || -> Result<i32, Bad> {
            let (int, after) = rest.split_first_chunk::<4>().ok_or_else(|| self.garbled(raw))?;
            rest = after;
            Ok(i32::from_be_bytes(*int))
        };
        let [count, _has_nulls, _oid] = [int()?, int()?, int()?];
        let mut lengths = [0usize; DIMENSIONS_MAX];
        let count = usize::try_from(count).ok().filter(|count| *count <= DIMENSIONS_MAX);
        let lengths = &mut lengths[..count.ok_or_else(|| self.garbled(raw))?];
        for length in lengths.iter_mut() {
            *length = usize::try_from(int()?).map_err(|_| self.garbled(raw))?;
            let first = int()?;
            if first != 1 {
                return Err(Bad::new(format!(
                    "an array of {self} begins at {first}; in MongoDB every array begins at its \
                     first element: make it one that begins at 1 in the query"
                )));
            }
        }
        if lengths.len() > 1 && matches!(element.kind, Kind::Json | Kind::Jsonb) {
            return Err(Bad::new(format!(
                "an array of {self} has {} dimensions, and would come back as {self} of arrays; \
                 make it one {} with to_jsonb() in the query",
                lengths.len(),
                element.kind,
            )));
        }
        let whole = element::sized(out);
        let mut elements = Elements { array: self, element, raw, rest };
        if let Some((first, deeper)) = lengths.split_first() {
            elements.dimension(*first, deeper, out)?;
        }
        if !elements.rest.is_empty() {
            return Err(self.garbled(raw));
        }
        whole.end_document(out);
        Ok(ElementType::Array)
    }

    fn exactly<const N: usize>(&self, raw: &[u8]) -> Result<[u8; N], Bad> {
        raw.try_into().map_err(|_| self.garbled(raw))
    }

    fn text<'a>(&self, raw: &'a [u8]) -> Result<&'a str, Bad> {
        std::str::from_utf8(raw).map_err(|error| {
            Bad::new(format!(
                "a {self} is not UTF-8 from its byte {} on, and no string of MongoDB can hold it; \
                 copy it as bytea",
                error.valid_up_to() + 1
            ))
        })
    }

    fn infinite(&self) -> Bad {
        Bad::new(format!(
            "a {self} is infinite, which MongoDB has no date for; say in the query what it becomes: \
             CASE WHEN isfinite(…) THEN … END"
        ))
    }

    /// Not what the server sends for this kind: another type was read than the one
    /// that was asked for.
    fn garbled(&self, raw: &[u8]) -> Bad {
        Bad::new(format!(
            "{} bytes are not a {self} as Postgres sends it; the column has another type than when \
             the copy began: begin it again",
            raw.len()
        ))
    }
}

/// Postgres has no arrays of more dimensions.
pub const DIMENSIONS_MAX: usize = 6;

/// The elements of an array, in a row.
struct Elements<'a> {
    array: &'a Kind,
    element: &'a Element,
    raw: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Elements<'a> {
    fn dimension(&mut self, length: usize, deeper: &[usize], out: &mut Vec<u8>) -> Result<(), Bad> {
        for index in 0..length {
            let open = element::open_index(index, out);
            let tag = match deeper.split_first() {
                Some((next, deeper)) => {
                    let inner = element::sized(out);
                    self.dimension(*next, deeper, out)?;
                    inner.end_document(out);
                    ElementType::Array
                }
                None => match self.next()? {
                    Some(raw) => self.element.kind.value(raw, out)?,
                    None => ElementType::Null,
                },
            };
            open.close(tag, out);
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<&'a [u8]>, Bad> {
        let (array, raw) = (self.array, self.raw);
        let garbled = || array.garbled(raw);
        let (length, rest) = self.rest.split_first_chunk::<4>().ok_or_else(garbled)?;
        let length = i32::from_be_bytes(*length);
        self.rest = rest;
        if length == -1 {
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(|_| garbled())?;
        let (raw, rest) = rest.split_at_checked(length).ok_or_else(garbled)?;
        self.rest = rest;
        Ok(Some(raw))
    }
}

fn interval(raw: [u8; 16]) -> Interval {
    let [micros @ .., _, _, _, _, _, _, _, _] = raw;
    let [_, _, _, _, _, _, _, _, days @ .., _, _, _, _] = raw;
    let [_, _, _, _, _, _, _, _, _, _, _, _, months @ ..] = raw;
    Interval {
        months: i32::from_be_bytes(months),
        days: i32::from_be_bytes(days),
        micros: i64::from_be_bytes(micros),
    }
}
