//! A value of a document becomes what Postgres reads in binary for a column.
//!
//! Nothing is rounded, cut or guessed: what a column would not give back is
//! refused, and with it the row.

use super::decimal::{Decimal, Number, double_of};
use super::iso;
use super::json::{self, Zero};
use super::kind::{Element, Kind, Precision};
use super::read::{DAY_MS, DIMENSIONS_MAX, EPOCH_DAYS, EPOCH_MICROS};
use super::{Bad, describe};
use bson::RawBsonRef;
use bson::spec::BinarySubtype;

/// What was made of a value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Written {
    /// NULL: nothing was written.
    Null,
    /// Its bytes were.
    Value,
}

/// The first and the one behind the last microsecond of a timestamp, since 2000.
const TIMESTAMP: std::ops::Range<i64> = -211_813_488_000_000_000..9_223_371_331_200_000_000;
/// The same of days.
const DATE: std::ops::Range<i64> = -2_451_545..2_145_031_949;

/// Postgres keeps no string or array that is longer.
const VALUE_MAX: usize = 1 << 30;

/// Why a value does not go into a column, and what to do.
type Why = &'static str;

const PROJECT: Why = "convert it in the pipeline";

impl Kind {
    /// Writes a value as a column of this kind reads it. Missing and null are NULL.
    /// What was written before stays, whatever happens.
    pub fn encode(&self, value: Option<RawBsonRef<'_>>, out: &mut Vec<u8>) -> Result<Written, Bad> {
        let value = match value {
            None | Some(RawBsonRef::Null | RawBsonRef::Undefined) => return Ok(Written::Null),
            Some(value) => value,
        };
        let begin = out.len();
        let written = self.put(value, out);
        if written.is_err() {
            out.truncate(begin);
        }
        written.map(|()| Written::Value)
    }

    /// Writes a value as a field of COPY BINARY: with its length, which is -1 for NULL.
    pub fn field(&self, value: Option<RawBsonRef<'_>>, out: &mut Vec<u8>) -> Result<(), Bad> {
        let begin = out.len();
        out.extend((-1i32).to_be_bytes());
        match self.encode(value, out) {
            Ok(Written::Null) => Ok(()),
            Ok(Written::Value) => {
                let length = out.len() - begin - 4;
                let fits = i32::try_from(length).ok().filter(|_| length < VALUE_MAX);
                let Some(length) = fits else {
                    out.truncate(begin);
                    return Err(Bad::new(format!(
                        "{length} bytes are more than a {self} of Postgres holds; leave it out"
                    )));
                };
                out[begin..begin + 4].copy_from_slice(&length.to_be_bytes());
                Ok(())
            }
            Err(bad) => {
                out.truncate(begin);
                Err(bad)
            }
        }
    }

    fn put(&self, value: RawBsonRef<'_>, out: &mut Vec<u8>) -> Result<(), Bad> {
        match self {
            Kind::Int2 => out.extend(self.int::<i16>(value)?.to_be_bytes()),
            Kind::Int4 => out.extend(self.int::<i32>(value)?.to_be_bytes()),
            Kind::Int8 => out.extend(self.int::<i64>(value)?.to_be_bytes()),
            Kind::Numeric(precision) => self.numeric(value, *precision)?.numeric(out),
            Kind::Float4 => out.extend(self.float4(value)?.to_be_bytes()),
            Kind::Float8 => out.extend(self.float8(value)?.to_be_bytes()),
            Kind::Bool => match value {
                RawBsonRef::Boolean(value) => out.push(u8::from(value)),
                _ => return Err(self.misfit(value, PROJECT)),
            },
            Kind::Text(limit) => match value {
                RawBsonRef::ObjectId(id) if limit.is_none_or(|limit| limit >= 24) => {
                    out.extend_from_slice(id.to_hex().as_bytes());
                }
                _ => self.characters(value, *limit, out)?,
            },
            Kind::Char(limit) => match value {
                RawBsonRef::ObjectId(id) if limit.is_none_or(|limit| limit == 24) => {
                    out.extend_from_slice(id.to_hex().as_bytes());
                }
                RawBsonRef::ObjectId(_) => {
                    return Err(self.misfit(value, "make the column char(24)"));
                }
                RawBsonRef::String(text) => {
                    let text = RawBsonRef::String(text.trim_end_matches(' '));
                    self.characters(text, *limit, out)?;
                }
                _ => return Err(self.misfit(value, PROJECT)),
            },
            Kind::Enum(labels) => {
                match value {
                    RawBsonRef::String(text)
                        if !labels.is_empty() && !labels.iter().any(|label| label == text) =>
                    {
                        return Err(self.misfit(value, "it is not one of the enum's labels; add it, or replace it in the pipeline"));
                    }
                    _ => self.characters(value, None, out)?,
                }
            }
            Kind::Timestamptz(digits) | Kind::Timestamp(digits) => {
                let RawBsonRef::DateTime(date) = value else {
                    return Err(
                        self.misfit(value, "make a date of it with $toDate in the pipeline")
                    );
                };
                let since_2000 = date.timestamp_millis().checked_sub(EPOCH_MICROS / 1_000);
                let micros = since_2000.and_then(|millis| millis.checked_mul(1_000));
                let micros = micros.filter(|micros| TIMESTAMP.contains(micros));
                let micros = micros.ok_or_else(|| {
                    self.misfit(value, "it is beyond the years 4713 BC to 294276 of Postgres")
                })?;
                if micros % step(*digits) != 0 {
                    return Err(self.misfit(
                        value,
                        "it would be rounded; widen the column, or use $dateTrunc in the pipeline",
                    ));
                }
                out.extend(micros.to_be_bytes());
            }
            Kind::Date => {
                let RawBsonRef::DateTime(date) = value else {
                    return Err(
                        self.misfit(value, "make a date of it with $toDate in the pipeline")
                    );
                };
                let millis = date.timestamp_millis();
                if millis % DAY_MS != 0 {
                    return Err(self.misfit(value, "it is not midnight in UTC; make the column timestamptz, or use $dateTrunc in the pipeline"));
                }
                let days = millis / DAY_MS - EPOCH_DAYS;
                let days = i32::try_from(days).ok().filter(|_| DATE.contains(&days));
                let days =
                    days.ok_or_else(|| self.misfit(value, "it is beyond the dates of Postgres"))?;
                out.extend(days.to_be_bytes());
            }
            Kind::Time(digits) => {
                let RawBsonRef::String(text) = value else {
                    return Err(self.misfit(value, "a time is a string like \"13:05:00.25\""));
                };
                let micros = iso::read_time(text);
                let micros = micros
                    .ok_or_else(|| self.misfit(value, "a time is a string like \"13:05:00.25\""))?;
                if micros % step(*digits) != 0 {
                    return Err(self.misfit(value, "it would be rounded; widen the column"));
                }
                out.extend(micros.to_be_bytes());
            }
            Kind::Interval(finest) => {
                let RawBsonRef::String(text) = value else {
                    return Err(
                        self.misfit(value, "an interval is a string like \"P1Y2M3DT4H5M6.5S\"")
                    );
                };
                let interval = iso::read_interval(text);
                let interval = interval.ok_or_else(|| {
                    self.misfit(value, "an interval is a string like \"P1Y2M3DT4H5M6.5S\"")
                })?;
                if !finest.keeps(interval) {
                    return Err(self.misfit(value, "it would be cut off; make the column interval"));
                }
                out.extend(interval.micros.to_be_bytes());
                out.extend(interval.days.to_be_bytes());
                out.extend(interval.months.to_be_bytes());
            }
            Kind::Uuid => out.extend_from_slice(&self.uuid(value)?),
            Kind::Bytea => match value {
                RawBsonRef::Binary(binary)
                    if matches!(
                        binary.subtype,
                        BinarySubtype::Generic | BinarySubtype::BinaryOld
                    ) =>
                {
                    out.extend_from_slice(binary.bytes);
                }
                RawBsonRef::Binary(_) => {
                    return Err(self.misfit(
                        value,
                        "only subtype 0 comes back from bytea; a UUID goes into a uuid column",
                    ));
                }
                RawBsonRef::ObjectId(id) => out.extend_from_slice(&id.bytes()),
                _ => return Err(self.misfit(value, PROJECT)),
            },
            Kind::Json => self.json(value, Zero::Escaped, out)?,
            Kind::Jsonb => {
                out.push(1);
                self.json(value, Zero::Refused, out)?;
            }
            Kind::Array(element) => self.array(element, value, out)?,
        }
        Ok(())
    }

    /// A whole number in the range of the column.
    fn int<T: TryFrom<i64>>(&self, value: RawBsonRef<'_>) -> Result<T, Bad> {
        let int = match value {
            RawBsonRef::Int32(int) => i64::from(int),
            RawBsonRef::Int64(int) => int,
            _ => {
                let number = self.number(value)?;
                let whole =
                    matches!(number, Number::Finite(decimal) if decimal.stripped().exponent >= 0);
                let why = if whole {
                    "it is out of range; make the column bigint or numeric"
                } else {
                    "it is not a whole number; make the column numeric or double precision, or round it in the pipeline"
                };
                number.int().ok_or_else(|| self.misfit(value, why))?
            }
        };
        T::try_from(int).map_err(|_| {
            self.misfit(value, "it is out of range; make the column bigint or numeric")
        })
    }

    fn numeric(&self, value: RawBsonRef<'_>, precision: Option<Precision>) -> Result<Number, Bad> {
        let number = self.number(value)?;
        let Some(Precision { precision, scale }) = precision else { return Ok(number) };
        match number {
            Number::NotANumber => Ok(number),
            Number::Infinite { .. } => Err(self.misfit(
                value,
                "a numeric with a precision has no infinity; make the column numeric",
            )),
            Number::Finite(decimal) => {
                let Decimal { coefficient, exponent, .. } = decimal.stripped();
                if coefficient == 0 {
                    return Ok(number);
                }
                if -exponent > scale {
                    return Err(self.misfit(
                        value,
                        "it would be rounded; widen the column, or round it in the pipeline",
                    ));
                }
                let whole = i32::try_from(decimal.stripped().digits()).unwrap_or(0) + exponent;
                if whole > precision - scale {
                    return Err(self.misfit(value, "it is out of range; widen the column"));
                }
                Ok(number)
            }
        }
    }

    fn float8(&self, value: RawBsonRef<'_>) -> Result<f64, Bad> {
        let inexact = || self.misfit(value, "it would be rounded; make the column numeric");
        match value {
            RawBsonRef::Double(double) => Ok(double),
            RawBsonRef::Int32(int) => Ok(f64::from(int)),
            RawBsonRef::Int64(int) => double_of(int).ok_or_else(inexact),
            _ => self.number(value)?.double().ok_or_else(inexact),
        }
    }

    fn float4(&self, value: RawBsonRef<'_>) -> Result<f32, Bad> {
        let double = self.float8(value)?;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "it is looked at whether there was a loss"
        )]
        let float = double as f32;
        let same = f64::from(float).to_bits() == double.to_bits() || double.is_nan();
        if same {
            Ok(float)
        } else {
            Err(self.misfit(value, "it would be rounded; make the column double precision"))
        }
    }

    fn number(&self, value: RawBsonRef<'_>) -> Result<Number, Bad> {
        match value {
            RawBsonRef::Int32(int) => Ok(Number::Finite(Decimal::of_int(i64::from(int)))),
            RawBsonRef::Int64(int) => Ok(Number::Finite(Decimal::of_int(int))),
            RawBsonRef::Double(double) => Ok(Number::of_double(double)),
            RawBsonRef::Decimal128(decimal) => Ok(Number::of_decimal128(decimal)),
            _ => Err(self.misfit(value, "it is no number; convert it in the pipeline")),
        }
    }

    fn characters(
        &self,
        value: RawBsonRef<'_>,
        limit: Option<u32>,
        out: &mut Vec<u8>,
    ) -> Result<(), Bad> {
        let (RawBsonRef::String(text) | RawBsonRef::Symbol(text)) = value else {
            return Err(self.misfit(
                value,
                "make a string of it with $toString in the pipeline, or change the column's type",
            ));
        };
        if text.as_bytes().contains(&0) {
            return Err(self.misfit(value, "it has U+0000, which Postgres cannot store; take it out with $replaceAll in the pipeline"));
        }
        let limit = limit.and_then(|limit| usize::try_from(limit).ok());
        if limit.is_some_and(|limit| text.len() > limit && text.chars().count() > limit) {
            return Err(self.misfit(value, "it is too long; widen the column"));
        }
        out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn uuid(&self, value: RawBsonRef<'_>) -> Result<[u8; 16], Bad> {
        let why = match value {
            RawBsonRef::Binary(binary) if binary.subtype == BinarySubtype::Uuid => {
                match binary.bytes.try_into() {
                    Ok(bytes) => return Ok(bytes),
                    Err(_) => "it has not 16 bytes",
                }
            }
            RawBsonRef::Binary(binary) if binary.subtype == BinarySubtype::UuidOld => {
                "the order of its bytes depends on the driver that wrote it; rewrite it as subtype 4"
            }
            RawBsonRef::String(text) => match uuid::Uuid::try_parse(text) {
                Ok(uuid) => return Ok(uuid.into_bytes()),
                Err(_) => "it is not a UUID; make the column text",
            },
            _ => PROJECT,
        };
        Err(self.misfit(value, why))
    }

    fn json(&self, value: RawBsonRef<'_>, zero: Zero, out: &mut Vec<u8>) -> Result<(), Bad> {
        json::print(value, zero, out).map_err(|bad| {
            Bad::new(format!("{} does not fit {self}: {}", describe(value), bad.reason))
        })
    }

    fn array(
        &self,
        element: &Element,
        value: RawBsonRef<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Bad> {
        let RawBsonRef::Array(whole) = value else {
            return Err(self.misfit(value, "it is no array; put it into one in the pipeline"));
        };
        let mut lengths = Vec::new();
        // An array of JSON is a value of its own, and no dimension.
        let flat = matches!(element.kind, Kind::Json | Kind::Jsonb);
        let mut next = Some(whole);
        while let Some(array) = next {
            let mut elements = array.into_iter();
            let first = elements.next().transpose().map_err(|error| Bad::malformed(&error))?;
            lengths.push(usize::from(first.is_some()) + elements.count());
            next = match first {
                Some(RawBsonRef::Array(inner)) if !flat => Some(inner),
                _ => None,
            };
        }
        if lengths == [0] {
            lengths.clear();
        }
        if lengths.contains(&0) {
            return Err(self.misfit(value, "an array in it is empty, and Postgres has no dimension without elements; make the column jsonb"));
        }
        if lengths.len() > DIMENSIONS_MAX {
            return Err(self.misfit(value, "it is nested more than 6 deep; make the column jsonb"));
        }
        let int = |count: usize| i32::try_from(count).unwrap_or(i32::MAX).to_be_bytes();
        out.extend(int(lengths.len()));
        let has_nulls = out.len();
        out.extend([0; 4]);
        out.extend(element.oid.to_be_bytes());
        for length in &lengths {
            out.extend(int(*length));
            out.extend(1i32.to_be_bytes());
        }
        let Some((first, deeper)) = lengths.split_first() else { return Ok(()) };
        let nulls = self.dimension(element, (value, whole), *first, deeper, out)?;
        out[has_nulls + 3] = u8::from(nulls);
        Ok(())
    }

    /// Writes the elements of one array, or of the arrays in it. Whether there was a NULL.
    fn dimension(
        &self,
        element: &Element,
        (value, array): (RawBsonRef<'_>, &bson::RawArray),
        length: usize,
        deeper: &[usize],
        out: &mut Vec<u8>,
    ) -> Result<bool, Bad> {
        let ragged = || {
            self.misfit(value, "the arrays in it are not all equally long and deep, as those of Postgres are; make the column jsonb")
        };
        let mut nulls = false;
        let mut count = 0;
        for inner in array {
            let inner = inner.map_err(|error| Bad::malformed(&error))?;
            count += 1;
            match (deeper.split_first(), inner) {
                (Some((next, deeper)), RawBsonRef::Array(inner)) => {
                    nulls |= self.dimension(element, (value, inner), *next, deeper, out)?;
                }
                (Some(_), _) => return Err(ragged()),
                (None, RawBsonRef::Array(_))
                    if !matches!(element.kind, Kind::Json | Kind::Jsonb) =>
                {
                    return Err(ragged());
                }
                (None, inner) => {
                    nulls |= matches!(inner, RawBsonRef::Null | RawBsonRef::Undefined);
                    element.kind.field(Some(inner), out)?;
                }
            }
        }
        if count == length { Ok(nulls) } else { Err(ragged()) }
    }

    /// A value that a column cannot hold.
    fn misfit(&self, value: RawBsonRef<'_>, why: Why) -> Bad {
        Bad::new(format!("{} does not fit {self}: {why}", describe(value)))
    }
}

/// What a column with so many digits of seconds has multiples of, in microseconds.
fn step(digits: u8) -> i64 {
    10i64.pow(6 - u32::from(digits.min(6)))
}
