//! JSON to BSON and back, as bytes, without a tree in between.
//!
//! A number keeps its value: an int32, an int64, a double if the double's shortest
//! decimal is the number, else a Decimal128; one that is none of these is refused.
//! No parser of ours gives numbers as the text that they are, which is what this
//! needs, so the text is gone through here. Postgres has already seen that it is
//! JSON.

use super::decimal::{Beyond, Decimal, Number, whole};
use super::{Bad, element, iso};
use bson::RawBsonRef;
use bson::spec::{BinarySubtype, ElementType};
use std::io::Write;

/// MongoDB stores no document that is nested deeper; the one that a value is a
/// field of is the first.
const DEPTH_MAX: usize = 99;

/// Whether a document may have one key several times, as `json` may and `jsonb` not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Keys {
    /// The last one counts, as it does in `jsonb`.
    MayRepeat,
    /// There is nothing to look for.
    AreUnique,
}

/// Appends what a text is, without the head of an element.
pub fn read(text: &str, keys: Keys, out: &mut Vec<u8>) -> Result<ElementType, Bad> {
    let mut reader = Reader { text, at: 0, keys, depth: 0 };
    let tag = reader.value(out)?;
    reader.blanks();
    if reader.at == text.len() { Ok(tag) } else { Err(reader.unexpected()) }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    keys: Keys,
    depth: usize,
}

impl Reader<'_> {
    fn value(&mut self, out: &mut Vec<u8>) -> Result<ElementType, Bad> {
        self.blanks();
        match self.peek() {
            Some(b'"') => {
                let string = element::sized(out);
                self.string(out)?;
                string.end_string(out);
                Ok(ElementType::String)
            }
            Some(b'{') => self.object(out),
            Some(b'[') => self.array(out),
            Some(b't') => self.word("true").map(|()| element::boolean(true, out)),
            Some(b'f') => self.word("false").map(|()| element::boolean(false, out)),
            Some(b'n') => self.word("null").map(|()| ElementType::Null),
            _ => self.number(out),
        }
    }

    fn object(&mut self, out: &mut Vec<u8>) -> Result<ElementType, Bad> {
        self.deeper()?;
        let document = element::sized(out);
        let mut fields = Vec::new();
        let mut more = !self.closes(b'}');
        while more {
            if self.keys == Keys::MayRepeat {
                fields.push(out.len());
            }
            let open = element::Open::here(out);
            let key = out.len();
            self.blanks();
            self.string(out)?;
            if out[key..].contains(&0) {
                return Err(Bad::new(
                    "a key in the JSON has U+0000, which no field of MongoDB can have; \
                     leave it out in the query",
                ));
            }
            out.push(0);
            self.expect(b':')?;
            let tag = self.value(out)?;
            open.close(tag, out);
            more = self.goes_on(b'}')?;
        }
        last_of_each(&fields, out);
        document.end_document(out);
        self.depth -= 1;
        Ok(ElementType::EmbeddedDocument)
    }

    fn array(&mut self, out: &mut Vec<u8>) -> Result<ElementType, Bad> {
        self.deeper()?;
        let array = element::sized(out);
        let mut more = !self.closes(b']');
        let mut index = 0;
        while more {
            let open = element::open_index(index, out);
            let tag = self.value(out)?;
            open.close(tag, out);
            index += 1;
            more = self.goes_on(b']')?;
        }
        array.end_document(out);
        self.depth -= 1;
        Ok(ElementType::Array)
    }

    /// Goes behind the bracket that opens something.
    fn deeper(&mut self) -> Result<(), Bad> {
        self.at += 1;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Bad::new(format!(
                "the JSON is nested more than {DEPTH_MAX} deep, which is more than MongoDB stores; \
                 copy it as text"
            )));
        }
        Ok(())
    }

    /// Goes behind the bracket that closes something, if it is next.
    fn closes(&mut self, bracket: u8) -> bool {
        self.blanks();
        let closes = self.peek() == Some(bracket);
        self.at += usize::from(closes);
        closes
    }

    /// Whether there is another one behind a comma.
    fn goes_on(&mut self, bracket: u8) -> Result<bool, Bad> {
        self.blanks();
        let found = self.peek();
        self.at += 1;
        match found {
            Some(b',') => Ok(true),
            Some(found) if found == bracket => Ok(false),
            _ => {
                self.at -= 1;
                Err(self.unexpected())
            }
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Bad> {
        self.blanks();
        if self.peek() != Some(byte) {
            return Err(self.unexpected());
        }
        self.at += 1;
        Ok(())
    }

    fn word(&mut self, word: &str) -> Result<(), Bad> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.unexpected());
        }
        self.at += word.len();
        Ok(())
    }

    /// What a string says, without the quotes.
    fn string(&mut self, out: &mut Vec<u8>) -> Result<(), Bad> {
        if self.peek() != Some(b'"') {
            return Err(self.unexpected());
        }
        self.at += 1;
        let bytes = self.text.as_bytes();
        loop {
            let rest = &bytes[self.at.min(bytes.len())..];
            let Some(length) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) else {
                return Err(self.unexpected());
            };
            out.extend_from_slice(&rest[..length]);
            self.at += length + 1;
            if rest[length] == b'"' {
                return Ok(());
            }
            let escaped = bytes.get(self.at).copied();
            self.at += 1;
            out.push(match escaped {
                Some(same @ (b'"' | b'\\' | b'/')) => same,
                Some(b'b') => 0x08,
                Some(b'f') => 0x0c,
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                Some(b'u') => {
                    let character = self.character()?;
                    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                    continue;
                }
                _ => return Err(self.unexpected()),
            });
        }
    }

    /// What is behind a `\u`.
    fn character(&mut self) -> Result<char, Bad> {
        let alone = || {
            Bad::new(
                "a string in the JSON has half of a surrogate pair, which is no character; \
                 no string of MongoDB can hold it: replace it in the query",
            )
        };
        let first = self.four_digits()?;
        if !(0xd800..0xe000).contains(&first) {
            return char::from_u32(first).ok_or_else(alone);
        }
        if first >= 0xdc00 || !self.text.as_bytes()[self.at..].starts_with(b"\\u") {
            return Err(alone());
        }
        self.at += 2;
        let second = self.four_digits()?;
        if !(0xdc00..0xe000).contains(&second) {
            return Err(alone());
        }
        char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)).ok_or_else(alone)
    }

    fn four_digits(&mut self) -> Result<u32, Bad> {
        let digits = self
            .text
            .get(self.at..self.at + 4)
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let number = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let number = number.ok_or_else(|| self.unexpected())?;
        self.at += 4;
        Ok(number)
    }

    fn number(&mut self, out: &mut Vec<u8>) -> Result<ElementType, Bad> {
        let text = &self.text.as_bytes()[self.at.min(self.text.len())..];
        let (decimal, length) = Decimal::read(text).ok_or_else(|| self.unexpected())?;
        self.at += length;
        let is_int = !text[..length].iter().any(|byte| matches!(byte, b'.' | b'e' | b'E'));
        let refused =
            |beyond: Beyond| Bad::new(format!("a number in the JSON is not for MongoDB: {beyond}"));
        let decimal = decimal.map_err(refused)?;
        if is_int && let Some(int) = decimal.int() {
            return Ok(match i32::try_from(int) {
                Ok(int) => element::int32(int, out),
                Err(_) => element::int64(int, out),
            });
        }
        if let Some(double) = decimal.double() {
            // A zero below zero is a number of the json type and of a double.
            let double = if decimal.negative && double == 0.0 { -0.0 } else { double };
            return Ok(element::double(double, out));
        }
        out.extend(Number::Finite(decimal).decimal128().map_err(refused)?);
        Ok(ElementType::Decimal128)
    }

    fn blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn unexpected(&self) -> Bad {
        Bad::new(format!(
            "the JSON is not JSON at its byte {}; mend it in Postgres",
            self.at.min(self.text.len()) + 1
        ))
    }
}

/// Of fields with one name leaves the last. `fields` says where each begins.
fn last_of_each(fields: &[usize], out: &mut Vec<u8>) {
    if fields.len() < 2 {
        return;
    }
    let key = |field: &usize| {
        let key = &out[field + 1..];
        &key[..key.iter().position(|byte| *byte == 0).unwrap_or(key.len())]
    };
    let mut order: Vec<usize> = (0..fields.len()).collect();
    order.sort_by(|a, b| key(&fields[*a]).cmp(key(&fields[*b])));
    let pairs = order.windows(2).filter(|pair| key(&fields[pair[0]]) == key(&fields[pair[1]]));
    let mut repeated: Vec<usize> = pairs.map(|pair| pair[0]).collect();
    repeated.sort_unstable();
    for field in repeated.into_iter().rev() {
        let end = fields.get(field + 1).copied().unwrap_or(out.len());
        out.drain(fields[field]..end);
    }
}

/// Whether a text may say U+0000, as `json` may, with an escape, and `jsonb` not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Zero {
    /// It is escaped.
    Escaped,
    /// It is refused.
    Refused,
}

/// Appends the JSON of a value. What is refused is said without the column.
pub fn print(value: RawBsonRef<'_>, zero: Zero, out: &mut Vec<u8>) -> Result<(), Bad> {
    Printer { zero, depth: 0 }.value(value, out)
}

/// Documents come from a server, which stores none that is nested deeper.
const PRINT_DEPTH_MAX: usize = 200;

struct Printer {
    zero: Zero,
    depth: usize,
}

impl Printer {
    fn value(&mut self, value: RawBsonRef<'_>, out: &mut Vec<u8>) -> Result<(), Bad> {
        match value {
            RawBsonRef::Null | RawBsonRef::Undefined => out.extend(b"null"),
            RawBsonRef::Boolean(true) => out.extend(b"true"),
            RawBsonRef::Boolean(false) => out.extend(b"false"),
            RawBsonRef::Int32(int) => write(out, format_args!("{int}")),
            RawBsonRef::Int64(int) => write(out, format_args!("{int}")),
            RawBsonRef::Double(double) => match Number::of_double(double) {
                // With a point, so that it comes back as a double.
                Number::Finite(_) if whole(double).is_some() => {
                    write(out, format_args!("{double:.1}"));
                }
                Number::Finite(_) => write(out, format_args!("{double:?}")),
                Number::Infinite { .. } | Number::NotANumber => return Err(no_json(value)),
            },
            RawBsonRef::Decimal128(decimal) => match Number::of_decimal128(decimal) {
                Number::Finite(decimal) => write(out, format_args!("{decimal}")),
                Number::Infinite { .. } | Number::NotANumber => return Err(no_json(value)),
            },
            RawBsonRef::String(text) | RawBsonRef::Symbol(text) => self.string(text, out)?,
            RawBsonRef::ObjectId(id) => write(out, format_args!("\"{}\"", id.to_hex())),
            RawBsonRef::DateTime(date) => {
                out.push(b'"');
                iso::print_date(date.timestamp_millis(), out);
                out.push(b'"');
            }
            RawBsonRef::Binary(binary) => {
                out.push(b'"');
                match (binary.subtype, <[u8; 16]>::try_from(binary.bytes)) {
                    (BinarySubtype::Uuid, Ok(bytes)) => {
                        write(out, format_args!("{}", uuid::Uuid::from_bytes(bytes)));
                    }
                    _ => base64(binary.bytes, out),
                }
                out.push(b'"');
            }
            RawBsonRef::Document(document) => {
                self.deeper(value)?;
                out.push(b'{');
                for (index, field) in document.iter_elements().enumerate() {
                    let field = field.map_err(|error| Bad::malformed(&error))?;
                    if index > 0 {
                        out.push(b',');
                    }
                    self.string(field.key().as_str(), out)?;
                    out.push(b':');
                    self.value(field.value().map_err(|error| Bad::malformed(&error))?, out)?;
                }
                out.push(b'}');
                self.depth -= 1;
            }
            RawBsonRef::Array(array) => {
                self.deeper(value)?;
                out.push(b'[');
                for (index, element) in array.into_iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    self.value(element.map_err(|error| Bad::malformed(&error))?, out)?;
                }
                out.push(b']');
                self.depth -= 1;
            }
            RawBsonRef::RegularExpression(_)
            | RawBsonRef::JavaScriptCode(_)
            | RawBsonRef::JavaScriptCodeWithScope(_)
            | RawBsonRef::Timestamp(_)
            | RawBsonRef::MinKey
            | RawBsonRef::MaxKey
            | RawBsonRef::DbPointer(_) => return Err(no_json(value)),
        }
        Ok(())
    }

    fn deeper(&mut self, value: RawBsonRef<'_>) -> Result<(), Bad> {
        self.depth += 1;
        if self.depth > PRINT_DEPTH_MAX { Err(no_json(value)) } else { Ok(()) }
    }

    fn string(&self, text: &str, out: &mut Vec<u8>) -> Result<(), Bad> {
        out.push(b'"');
        let mut rest = text.as_bytes();
        while let Some(at) =
            rest.iter().position(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\'))
        {
            out.extend_from_slice(&rest[..at]);
            match rest[at] {
                b'"' => out.extend(b"\\\""),
                b'\\' => out.extend(b"\\\\"),
                b'\n' => out.extend(b"\\n"),
                b'\r' => out.extend(b"\\r"),
                b'\t' => out.extend(b"\\t"),
                0 if self.zero == Zero::Refused => {
                    return Err(Bad::new(
                        "a string in it has U+0000, which Postgres cannot store; \
                         take it out with $replaceAll in the pipeline",
                    ));
                }
                control => write(out, format_args!("\\u{control:04x}")),
            }
            rest = &rest[at + 1..];
        }
        out.extend_from_slice(rest);
        out.push(b'"');
        Ok(())
    }
}

fn no_json(value: RawBsonRef<'_>) -> Bad {
    Bad::new(format!(
        "JSON has nothing for {} in it; leave it out or make a string of it in the pipeline",
        super::describe(value)
    ))
}

fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for three in bytes.chunks(3) {
        let [a, b, c] = [0, 1, 2].map(|at| three.get(at).copied().unwrap_or(0));
        let sixes = [a >> 2, (a & 3) << 4 | b >> 4, (b & 15) << 2 | c >> 6, c & 63];
        for (at, six) in sixes.into_iter().enumerate() {
            out.push(if at <= three.len() { DIGITS[usize::from(six)] } else { b'=' });
        }
    }
}

fn write(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    let written = out.write_fmt(text);
    debug_assert!(written.is_ok(), "memory takes all that is written");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::parse::mongosh::literal;
    use bson::{Bson, RawDocumentBuf};
    use proptest::prelude::*;

    fn read_as(text: &str, keys: Keys) -> Result<Bson, String> {
        let mut out = Vec::new();
        let document = element::sized(&mut out);
        let open = element::open(b"v", &mut out);
        let tag = read(text, keys, &mut out).map_err(|bad| bad.reason)?;
        open.close(tag, &mut out);
        document.end_document(&mut out);
        let raw = RawDocumentBuf::from_bytes(out).unwrap();
        let document = bson::Document::try_from(raw.as_ref())
            .unwrap_or_else(|error| panic!("{text}: {error}"));
        // A document has each key once, which the bytes might not.
        assert_eq!(RawDocumentBuf::try_from(&document).unwrap(), raw, "{text}");
        Ok(document.get("v").unwrap().clone())
    }

    fn printed(value: Bson, zero: Zero) -> Result<String, String> {
        let raw = RawDocumentBuf::try_from(&bson::doc! { "v": value }).unwrap();
        let mut out = Vec::new();
        print(raw.get("v").unwrap().unwrap(), zero, &mut out).map_err(|bad| bad.reason)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn json_is_read() {
        let check = |text: &str, expected: &str| {
            assert_eq!(read_as(text, Keys::MayRepeat), Ok(literal(expected).unwrap()), "{text}");
        };
        check("{}", "({})");
        check(" [ ] ", "[]");
        check("null", "null");
        check("true", "true");
        check("false", "false");
        check("\"\"", "''");
        check(r#""a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00ä""#, r#""a\"\\/\b\f\n\r\té😀ä""#);
        check(
            r#"{"a": {"b": [1, {"c": null}, []]}, "": 2}"#,
            "({ a: { b: [1, { c: null }, []] }, '': 2 })",
        );
        check("0", "0");
        check("-1", "-1");
        check("2147483647", "2147483647");
        check("2147483648", "NumberLong('2147483648')");
        check("-9223372036854775808", "NumberLong('-9223372036854775808')");
        check("9223372036854775807", "NumberLong('9223372036854775807')");
        check("9223372036854775808", "NumberDecimal('9223372036854775808')");
        check("1.5", "1.5");
        check("1.50", "1.5");
        check("1e300", "1e300");
        check("0.1", "0.1");
        check("0.10000000000000000001", "NumberDecimal('0.10000000000000000001')");
        check("9007199254740993.5", "NumberDecimal('9007199254740993.5')");
        check("1e400", "NumberDecimal('1E+400')");
        check(
            &format!("1{}", "0".repeat(400)),
            "NumberDecimal('1.000000000000000000000000000000000E+400')",
        );
        assert_eq!(read_as("5.0", Keys::AreUnique), Ok(Bson::Double(5.0)));
        assert!(
            matches!(read_as("-0.0", Keys::AreUnique), Ok(Bson::Double(zero)) if zero.is_sign_negative())
        );
    }

    #[test]
    fn of_a_key_that_is_there_twice_the_last_counts() {
        let check = |text: &str, expected: &str| {
            assert_eq!(read_as(text, Keys::MayRepeat), Ok(literal(expected).unwrap()), "{text}");
        };
        check(r#"{"a": 1, "a": 2}"#, "({ a: 2 })");
        check(
            r#"{"b": 0, "a": [1], "c": 3, "a": {"a": 1, "a": 9}, "b": 2, "a": "x"}"#,
            "({ c: 3, b: 2, a: 'x' })",
        );
        check(r#"{"a": 1, "\u0061": 2, "ab": 3}"#, "({ a: 2, ab: 3 })");
    }

    #[test]
    fn what_mongodb_cannot_hold_is_refused() {
        let check = |text: &str, expected: &str| {
            let bad = read_as(text, Keys::MayRepeat).expect_err(text);
            assert!(bad.contains(expected), "{text}: {bad}");
        };
        check(&format!("[1{}]", "1".repeat(34)), "more than the 34 digits");
        check("1e7000", "exponent is beyond");
        check("1e-7000", "exponent is beyond");
        check(r#"{"a\u0000b": 1}"#, "U+0000");
        check(r#""\ud83d""#, "half of a surrogate pair");
        check(r#""\ud83dx""#, "half of a surrogate pair");
        check(r#""\ude00""#, "half of a surrogate pair");
        check(r#""\ud83d\u0041""#, "half of a surrogate pair");
        check(&"[".repeat(100), "nested more than 99 deep");
        let deep = format!("{}{}", "[".repeat(99), "]".repeat(99));
        assert!(read_as(&deep, Keys::AreUnique).is_ok());
        for text in [
            "",
            " ",
            "[",
            "[1",
            "[1,",
            "[1,]",
            "{",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":1",
            "{\"a\":1,",
            "{a:1}",
            "\"",
            "\"a",
            "\"\\",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\uzzzz\"",
            "tru",
            "nul",
            "1 2",
            "[1 2]",
            "[1}",
            "-",
            "1.",
            "+1",
            "\"\\u+123\"",
        ] {
            check(text, "is not JSON at its byte");
        }
    }

    #[test]
    fn json_is_printed() {
        let check = |value: &str, expected: &str| {
            assert_eq!(
                printed(literal(value).unwrap(), Zero::Refused).as_deref(),
                Ok(expected),
                "{value}"
            );
        };
        check("null", "null");
        check(
            "({ a: [1, NumberLong('2'), 1.5, true, null], b: {} })",
            r#"{"a":[1,2,1.5,true,null],"b":{}}"#,
        );
        check("'a\"\\\\\\n\\t\\x01é😀'", r#""a\"\\\n\t\u0001é😀""#);
        check("NumberDecimal('1.50')", "1.50");
        check("NumberDecimal('1E+400')", "1E+400");
        check("NumberDecimal('-0.00')", "0.00");
        check("1e300", "1e300");
        check("ObjectId('0123456789abcdef01234567')", "\"0123456789abcdef01234567\"");
        check("ISODate('2026-11-20T10:00:00.5Z')", "\"2026-11-20T10:00:00.5Z\"");
        check(
            "UUID('01234567-89ab-cdef-0123-456789abcdef')",
            "\"01234567-89ab-cdef-0123-456789abcdef\"",
        );
        for (bytes, expected) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            let binary =
                bson::Binary { subtype: BinarySubtype::Generic, bytes: bytes.as_bytes().to_vec() };
            assert_eq!(printed(Bson::Binary(binary), Zero::Refused), Ok(format!("\"{expected}\"")));
        }
        assert_eq!(printed(Bson::Double(5.0), Zero::Refused).as_deref(), Ok("5.0"));
        assert_eq!(printed(Bson::Double(-0.0), Zero::Refused).as_deref(), Ok("-0.0"));
        assert_eq!(printed(Bson::String("\0".into()), Zero::Escaped).as_deref(), Ok(r#""\u0000""#));
    }

    #[test]
    fn what_json_has_nothing_for_is_refused() {
        for value in [
            "/a/i",
            "Timestamp(1, 2)",
            "MinKey",
            "[MaxKey]",
            "({ a: NumberDecimal('NaN') })",
            "NumberDecimal('Infinity')",
        ] {
            let bad = printed(literal(value).unwrap(), Zero::Escaped).expect_err(value);
            assert!(bad.starts_with("JSON has nothing for "), "{bad}");
        }
        for double in [f64::NAN, f64::INFINITY] {
            assert!(printed(Bson::Double(double), Zero::Escaped).is_err());
        }
        let bad = printed(Bson::String("\0".into()), Zero::Refused).expect_err("U+0000");
        assert!(bad.contains("U+0000"), "{bad}");
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        use serde_json::Value;
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i32>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            // serde_json does not read every double as the one that it wrote.
            any::<i16>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
            "\\PC{0,6}|[\u{1}-\u{20}\"\\\\]{0,4}".prop_map(Value::String),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
                proptest::collection::vec(("\\PC{0,4}", inner), 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn json_comes_back_as_it_was(value in any_json()) {
            let text = serde_json::to_string(&value).unwrap();
            let read = read_as(&text, Keys::MayRepeat).unwrap();
            prop_assert_eq!(&read, &read_as(&text, Keys::AreUnique).unwrap());
            let back = printed(read.clone(), Zero::Refused).unwrap();
            let back_value: serde_json::Value = serde_json::from_str(&back).unwrap();
            prop_assert_eq!(&back_value, &value, "{}", back);
            prop_assert_eq!(read_as(&back, Keys::AreUnique).unwrap(), read);
        }

        #[test]
        fn a_double_comes_back_as_it_was(double: f64) {
            let value = Bson::Double(double);
            let back = printed(value.clone(), Zero::Refused).unwrap();
            prop_assert_eq!(read_as(&back, Keys::AreUnique), Ok(value), "{}", back);
        }

        #[test]
        fn what_is_no_json_does_not_panic(text in "[\\[\\]{}\",:\\\\0-9a-ftnrul.eE+ -]{0,24}|\\PC{0,8}") {
            let ours = read_as(&text, Keys::MayRepeat);
            if serde_json::from_str::<serde_json::Value>(&text).is_ok_and(|value| !value.is_number()) {
                prop_assert!(ours.is_ok(), "{text}: {ours:?}");
            }
        }
    }
}
