//! Rows as documents, and documents as rows: the type table between Postgres and
//! MongoDB.
//!
//! Raw bytes go in and raw bytes come out: what Postgres sends in binary, and what
//! COPY reads in binary; BSON, as it is sent to MongoDB. There is no tree in
//! between.
//!
//! Nothing is rounded, cut or guessed. A value that the other store cannot hold is
//! [`Bad`], and its row is not copied. The few things that are lost are marked *;
//! they are lost on Postgres' side before two rows are compared, because a row is
//! made a document first.
//!
//! | Postgres ([`Kind`]) | in the document | from the document |
//! |---|---|---|
//! | smallint, integer | int32 | any number that is whole and in range |
//! | bigint | int64 | the same |
//! | numeric | Decimal128 of at most 34 digits, with its zeros; NaN, ±Infinity | any number, if the column's precision and scale hold it |
//! | real, double precision | double | any number of which it is the value; a double counts as its shortest decimal |
//! | boolean | bool | bool |
//! | text, varchar(n), citext, name | string, if it is UTF-8 | string without U+0000 and not too long; ObjectId as 24 hex digits |
//! | enum | string | string that is a label |
//! | char(n) | string; trailing blanks are dropped * | string, ObjectId where n is 24 |
//! | timestamptz, timestamp | date; microseconds are floored to milliseconds *; a timestamp is taken as UTC | date |
//! | date | date, midnight in UTC | date that is midnight in UTC |
//! | time | string: `13:05:00.25` | the same; `13:05` too |
//! | interval | string: `P1Y2M-3DT4H5M-0.5S`, each part with its sign | ISO 8601 with whole parts and up to six digits of seconds |
//! | uuid | binary subtype 4 | binary subtype 4; a string that is one |
//! | bytea | binary subtype 0 | binary subtype 0 (or 2, its old form); ObjectId as 12 bytes |
//! | json, jsonb | document, array or scalar; see below | anything that JSON has something for |
//! | array | array, in arrays for more dimensions | array; those in it equally long |
//! | NULL | null | null, undefined and missing |
//!
//! Infinite dates, timestamps and intervals are bad, and arrays that do not begin
//! at 1. An empty array has no dimensions in Postgres, so an empty one within
//! another is bad too. In an array of json or jsonb an array is a value, not a
//! dimension, and such an array of two dimensions is bad.
//!
//! In JSON a number is an int32, an int64, a double if it has a point or an exponent
//! and the double's shortest decimal is the number, else a Decimal128, or bad. The
//! scale of a number is not kept *, nor is the text of a json: blanks, and of two
//! equal keys the first *. A JSON null that is the whole value is null, and comes
//! back as NULL *; one deeper down stays what it is. Into JSON goes:
//!
//! | BSON | JSON |
//! |---|---|
//! | document, array, string, bool, null | the same; undefined is null, a symbol a string |
//! | int32, int64 | a number |
//! | double | its shortest decimal; a whole one with a point: `5.0` |
//! | Decimal128 | all its digits |
//! | ObjectId | its 24 hex digits as a string * |
//! | date | a string: `2026-11-20T10:00:00.123Z` * |
//! | binary subtype 4 | the UUID as a string * |
//! | any other binary | Base64 as a string * |
//! | NaN, ±Infinity, regular expression, code, timestamp, MinKey, MaxKey, DBPointer | bad |
//!
//! U+0000 in a string is bad for jsonb; json has an escape for it.
//!
//! A copy from MongoDB loses what the columns do not keep: that an id was an ObjectId,
//! say. What its document is compared with is what the columns keep of it: [`kept`].

pub mod canonical;
pub mod decimal;
mod element;
mod iso;
mod json;
pub mod kind;
mod read;
mod row;
mod write;

pub use kind::{Element, Finest, Form, Kind, PgType, Precision, cast_hint};
pub use row::{Column, DOCUMENT_MAX, document, kept, key, row, show};
pub use write::Written;

use crate::core::expectation;
use bson::{Bson, RawBsonRef};
use std::fmt;

/// A value that the other store cannot hold as it is, and with it a row that is
/// not copied.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bad {
    /// What it is, what it does not fit, and what to do.
    pub reason: String,
}

impl Bad {
    fn new(reason: impl Into<String>) -> Bad {
        Bad { reason: reason.into() }
    }

    /// Bytes that are no BSON.
    fn malformed(error: &dyn fmt::Display) -> Bad {
        Bad::new(format!("the document is damaged: {error}; look at it in MongoDB, and mend it"))
    }

    /// The same, with the column that it is about.
    fn of(self, column: &str) -> Bad {
        Bad::new(format!("`{column}`: {}", self.reason))
    }
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Bad {}

/// A value with its type, for people: `the double 1.5`.
fn describe(value: RawBsonRef<'_>) -> String {
    let shown = || match Bson::try_from(value) {
        Ok(value) => expectation::show(&value),
        Err(error) => format!("({error})"),
    };
    let name = match value {
        RawBsonRef::Double(_) => "the double",
        RawBsonRef::String(_) => "the string",
        RawBsonRef::Array(_) => "the array",
        RawBsonRef::Document(_) => "the document",
        RawBsonRef::Boolean(value) => return format!("the bool {value}"),
        RawBsonRef::Null | RawBsonRef::Undefined => return "null".to_owned(),
        RawBsonRef::RegularExpression(_) => "the regular expression",
        RawBsonRef::JavaScriptCode(_) | RawBsonRef::JavaScriptCodeWithScope(_) => "the code",
        RawBsonRef::Int32(_) => "the int32",
        RawBsonRef::Int64(_) => "the int64",
        RawBsonRef::Timestamp(_) => "the timestamp",
        RawBsonRef::Binary(binary) => {
            let subtype = u8::from(binary.subtype);
            return format!("the binary of subtype {subtype} with {} bytes", binary.bytes.len());
        }
        RawBsonRef::ObjectId(_) => "the ObjectId",
        RawBsonRef::DateTime(date) => {
            let mut text = b"the date ".to_vec();
            iso::print_date(date.timestamp_millis(), &mut text);
            return String::from_utf8_lossy(&text).into_owned();
        }
        RawBsonRef::Symbol(_) => "the symbol",
        RawBsonRef::Decimal128(_) => "the Decimal128",
        RawBsonRef::MaxKey => return "the MaxKey".to_owned(),
        RawBsonRef::MinKey => return "the MinKey".to_owned(),
        RawBsonRef::DbPointer(_) => "the DBPointer",
    };
    format!("{name} {}", shown())
}

#[cfg(test)]
mod tests {
    use super::decimal::tests::wire;
    use super::*;
    use crate::core::parse::mongosh::literal;
    use bson::{Document, RawDocumentBuf, doc};
    use proptest::prelude::*;

    const TIMESTAMPTZ: Kind = Kind::Timestamptz(6);
    const INTERVAL: Kind = Kind::Interval(Finest::Micros(1));

    /// What a value of Postgres is in a document.
    fn read(kind: &Kind, raw: Option<&[u8]>) -> Result<Bson, String> {
        let column = Column { name: "v".to_owned(), kind: kind.clone() };
        let document = document(&[column], [raw]).map_err(|bad| bad.reason)?;
        let document = Document::try_from(document.as_ref()).expect("it is BSON");
        Ok(document.get("v").expect("it has the field").clone())
    }

    /// What a value of a document is for Postgres.
    fn written(kind: &Kind, value: &Bson) -> Result<Option<Vec<u8>>, String> {
        let document = RawDocumentBuf::try_from(&doc! { "v": value.clone() }).expect("it is BSON");
        let value = document.get("v").expect("it is BSON");
        let mut out = b"before".to_vec();
        let written = kind.encode(value, &mut out).map_err(|bad| bad.reason);
        if written != Ok(Written::Value) {
            assert_eq!(out, b"before");
        }
        Ok(match written? {
            Written::Null => None,
            Written::Value => Some(out["before".len()..].to_vec()),
        })
    }

    fn value(text: &str) -> Bson {
        literal(text).unwrap_or_else(|problem| panic!("{text}: {problem:?}"))
    }

    /// The value becomes the literal, and the literal the value.
    fn both(kind: &Kind, raw: &[u8], expected: &str) {
        one_way(kind, raw, expected);
        assert_eq!(written(kind, &value(expected)), Ok(Some(raw.to_vec())), "{kind} {expected}");
    }

    /// The value becomes the literal.
    fn one_way(kind: &Kind, raw: &[u8], expected: &str) {
        assert_eq!(read(kind, Some(raw)), Ok(value(expected)), "{kind} {raw:?}");
    }

    fn refused_by_mongo(kind: &Kind, raw: &[u8], expected: &str) {
        let bad = read(kind, Some(raw)).expect_err(expected);
        assert!(bad.contains(expected), "{kind} {raw:?}: {bad}");
    }

    fn refused_by_postgres(kind: &Kind, given: &str, expected: &str) {
        let bad = written(kind, &value(given)).expect_err(expected);
        assert!(bad.contains(expected), "{kind} {given}: {bad}");
        assert!(bad.contains(&format!(" does not fit {kind}: ")), "{kind} {given}: {bad}");
    }

    /// The literal becomes the value.
    fn accepted(kind: &Kind, given: &str, raw: &[u8]) {
        assert_eq!(written(kind, &value(given)), Ok(Some(raw.to_vec())), "{kind} {given}");
    }

    /// An array as Postgres sends it.
    fn array(oid: u32, lengths: &[i32], elements: &[Option<&[u8]>]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(i32::try_from(lengths.len()).unwrap().to_be_bytes());
        out.extend(i32::from(elements.contains(&None)).to_be_bytes());
        out.extend(oid.to_be_bytes());
        for length in lengths {
            out.extend(length.to_be_bytes());
            out.extend(1i32.to_be_bytes());
        }
        for element in elements {
            let length = element.map_or(-1, |element| i32::try_from(element.len()).unwrap());
            out.extend(length.to_be_bytes());
            out.extend(element.unwrap_or_default());
        }
        out
    }

    fn array_of(kind: Kind, oid: u32) -> Kind {
        Kind::Array(Box::new(Element { kind, oid }))
    }

    #[test]
    fn nothing_is_null_and_null_is_nothing() {
        let kinds =
            [Kind::Int4, Kind::Text(None), Kind::Json, Kind::Jsonb, array_of(Kind::Int4, 23)];
        for kind in kinds {
            assert_eq!(read(&kind, None), Ok(Bson::Null));
            assert_eq!(written(&kind, &Bson::Null), Ok(None));
            assert_eq!(written(&kind, &Bson::Undefined), Ok(None));
            assert_eq!(kind.encode(None, &mut Vec::new()), Ok(Written::Null));
        }
        // JSON's own null is the same null.
        one_way(&Kind::Json, b"null", "null");
        one_way(&Kind::Jsonb, b"\x01null", "null");
    }

    #[test]
    fn integers() {
        both(&Kind::Int2, &(-7i16).to_be_bytes(), "-7");
        both(&Kind::Int4, &i32::MIN.to_be_bytes(), "-2147483648");
        both(&Kind::Int8, &7i64.to_be_bytes(), "NumberLong('7')");
        both(&Kind::Int8, &i64::MAX.to_be_bytes(), "NumberLong('9223372036854775807')");
        for seven in
            ["7", "NumberLong('7')", "7.0", "NumberDecimal('7.00')", "NumberDecimal('0.7E+1')"]
        {
            accepted(&Kind::Int2, seven, &7i16.to_be_bytes());
            accepted(&Kind::Int8, seven, &7i64.to_be_bytes());
        }
        accepted(&Kind::Int8, "1152921504606846976.0", &(1i64 << 60).to_be_bytes());
        refused_by_postgres(&Kind::Int2, "32768", "out of range");
        refused_by_postgres(&Kind::Int4, "2147483648.0", "out of range");
        refused_by_postgres(&Kind::Int8, "NumberDecimal('1E+30')", "out of range");
        refused_by_postgres(
            &Kind::Int4,
            "1.5",
            "the double 1.5 does not fit integer: it is not a whole number",
        );
        refused_by_postgres(&Kind::Int4, "NumberDecimal('0.1')", "it is not a whole number");
        refused_by_postgres(&Kind::Int8, "'7'", "it is no number");
        refused_by_postgres(&Kind::Int8, "true", "it is no number");
        refused_by_mongo(&Kind::Int4, &[0; 3], "another type than when the copy began");
    }

    #[test]
    fn numerics() {
        let any = Kind::Numeric(None);
        for text in [
            "0",
            "0.00",
            "-12.50",
            "12345678901234567890.12345678901234",
            "NaN",
            "Infinity",
            "-Infinity",
        ] {
            both(&any, &wire(text), &format!("NumberDecimal('{text}')"));
        }
        refused_by_mongo(&any, &wire(&"9".repeat(35)), "more than the 34 digits");
        accepted(&any, "7", &wire("7"));
        accepted(&any, "NumberLong('-10000')", &wire("-10000"));
        accepted(&any, "0.1", &wire("0.1"));
        accepted(&any, "-1e-20", &wire("-0.00000000000000000001"));
        accepted(&any, "NumberDecimal('1E+3')", &wire("1000"));
        accepted(&any, "NumberDecimal('-0.00')", &wire("0.00"));
        let money = Kind::Numeric(Some(Precision { precision: 5, scale: 2 }));
        accepted(&money, "999.99", &wire("999.99"));
        accepted(&money, "NumberDecimal('1.500')", &wire("1.500"));
        accepted(&money, "0", &wire("0"));
        refused_by_postgres(&money, "1.005", "it would be rounded");
        refused_by_postgres(&money, "1000", "out of range");
        refused_by_postgres(&money, "NumberDecimal('Infinity')", "no infinity");
        let thousands = Kind::Numeric(Some(Precision { precision: 2, scale: -3 }));
        accepted(&thousands, "99000", &wire("99000"));
        refused_by_postgres(&thousands, "99500", "it would be rounded");
        refused_by_postgres(&thousands, "100000", "out of range");
    }

    #[test]
    fn floats() {
        both(&Kind::Float8, &0.1f64.to_be_bytes(), "0.1");
        both(&Kind::Float8, &(-1e300f64).to_be_bytes(), "-1e300");
        both(&Kind::Float4, &1.5f32.to_be_bytes(), "1.5");
        both(&Kind::Float4, &0.1f32.to_be_bytes(), "0.10000000149011612");
        for special in [f64::INFINITY, f64::NEG_INFINITY, -0.0] {
            let raw = special.to_be_bytes();
            assert_eq!(read(&Kind::Float8, Some(&raw)), Ok(Bson::Double(special)));
            assert_eq!(written(&Kind::Float8, &Bson::Double(special)), Ok(Some(raw.to_vec())));
        }
        let Ok(Some(raw)) = written(&Kind::Float4, &Bson::Double(f64::NAN)) else { panic!() };
        assert!(f32::from_be_bytes(raw.try_into().unwrap()).is_nan());
        accepted(
            &Kind::Float8,
            "NumberLong('9007199254740992')",
            &9_007_199_254_740_992f64.to_be_bytes(),
        );
        accepted(&Kind::Float8, "NumberDecimal('0.10')", &0.1f64.to_be_bytes());
        accepted(&Kind::Float4, "7", &7f32.to_be_bytes());
        refused_by_postgres(&Kind::Float8, "NumberLong('9007199254740993')", "it would be rounded");
        refused_by_postgres(
            &Kind::Float8,
            "NumberDecimal('0.10000000000000000001')",
            "it would be rounded",
        );
        refused_by_postgres(&Kind::Float4, "0.1", "it would be rounded");
        refused_by_postgres(&Kind::Float4, "1e300", "it would be rounded");
        refused_by_postgres(&Kind::Float4, "16777217", "it would be rounded");
        refused_by_postgres(&Kind::Float8, "'1'", "it is no number");
    }

    #[test]
    fn truths_and_texts() {
        both(&Kind::Bool, &[1], "true");
        both(&Kind::Bool, &[0], "false");
        refused_by_postgres(&Kind::Bool, "1", "convert it in the pipeline");
        let text = Kind::Text(None);
        both(&text, b"", "''");
        both(&text, "é😀\n\t ".as_bytes(), "'é😀\\n\\t '");
        refused_by_mongo(&text, b"ab\xff", "not UTF-8 from its byte 3 on");
        refused_by_postgres(&text, "'a\\x00b'", "U+0000");
        refused_by_postgres(&text, "7", "$toString");
        refused_by_postgres(&text, "['a']", "$toString");
        let short = Kind::Text(Some(3));
        both(&short, "äöü".as_bytes(), "'äöü'");
        refused_by_postgres(&short, "'abcd'", "it is too long");
        let mood = Kind::Enum(vec!["sad".to_owned(), "fine".to_owned()]);
        both(&mood, b"sad", "'sad'");
        refused_by_postgres(&mood, "'great'", "not one of the enum's labels");
        refused_by_postgres(&mood, "1", "$toString");
        accepted(&Kind::Enum(Vec::new()), "'great'", b"great");
        let fixed = Kind::Char(Some(5));
        one_way(&fixed, b"ab   ", "'ab'");
        one_way(&fixed, b"     ", "''");
        one_way(&fixed, b"a\t   ", "'a\\t'");
        accepted(&fixed, "'ab'", b"ab");
        accepted(&fixed, "'ab        '", b"ab");
        refused_by_postgres(&fixed, "'abcdef'", "it is too long");
    }

    #[test]
    fn an_object_id_goes_into_24_characters_or_12_bytes() {
        let id = "ObjectId('0123456789abcdef01234567')";
        let hex = b"0123456789abcdef01234567";
        accepted(&Kind::Char(Some(24)), id, hex);
        accepted(&Kind::Text(None), id, hex);
        accepted(&Kind::Text(Some(24)), id, hex);
        accepted(
            &Kind::Bytea,
            id,
            &[1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 1, 0x23, 0x45, 0x67],
        );
        refused_by_postgres(&Kind::Char(Some(23)), id, "char(24)");
        refused_by_postgres(&Kind::Text(Some(23)), id, "$toString");
        refused_by_postgres(&Kind::Uuid, id, "convert it in the pipeline");
    }

    fn micros(at: &str) -> [u8; 8] {
        let at = bson::DateTime::parse_rfc3339_str(at).unwrap().timestamp_millis();
        (at * 1_000 - 946_684_800_000_000).to_be_bytes()
    }

    #[test]
    fn times() {
        for kind in [TIMESTAMPTZ, Kind::Timestamp(6)] {
            both(&kind, &micros("2026-11-20T10:00:00.123Z"), "ISODate('2026-11-20T10:00:00.123Z')");
            both(&kind, &micros("1969-12-31T23:59:59.999Z"), "ISODate('1969-12-31T23:59:59.999Z')");
            // The microsecond before 2000, before 1970, and the first after: floored.
            one_way(&kind, &(-1i64).to_be_bytes(), "ISODate('1999-12-31T23:59:59.999Z')");
            one_way(&kind, &999i64.to_be_bytes(), "ISODate('2000-01-01T00:00:00Z')");
            one_way(
                &kind,
                &(-946_684_800_000_001i64).to_be_bytes(),
                "ISODate('1969-12-31T23:59:59.999Z')",
            );
            refused_by_mongo(&kind, &i64::MAX.to_be_bytes(), "is infinite");
            refused_by_mongo(&kind, &i64::MIN.to_be_bytes(), "is infinite");
            refused_by_postgres(&kind, "'2026-11-20'", "$toDate");
            refused_by_postgres(&kind, "1", "$toDate");
            for beyond in [i64::MAX, i64::MIN, -210_866_803_200_001] {
                let date = Bson::DateTime(bson::DateTime::from_millis(beyond));
                let bad = written(&kind, &date).expect_err("it is beyond");
                assert!(bad.contains("4713 BC"), "{bad}");
            }
        }
        accepted(
            &Kind::Timestamptz(0),
            "ISODate('2026-11-20T10:00:00Z')",
            &micros("2026-11-20T10:00:00Z"),
        );
        refused_by_postgres(
            &Kind::Timestamptz(2),
            "ISODate('2026-11-20T10:00:00.123Z')",
            "it would be rounded",
        );
        both(&Kind::Date, &0i32.to_be_bytes(), "ISODate('2000-01-01T00:00:00Z')");
        both(&Kind::Date, &(-10_958i32).to_be_bytes(), "ISODate('1969-12-31T00:00:00Z')");
        for days in [-2_451_545, -800_000, 3_000_000, 2_145_031_948] {
            let raw: [u8; 4] = i32::to_be_bytes(days);
            let date = read(&Kind::Date, Some(&raw)).unwrap();
            assert_eq!(written(&Kind::Date, &date), Ok(Some(raw.to_vec())), "{days}");
        }
        refused_by_mongo(&Kind::Date, &i32::MAX.to_be_bytes(), "is infinite");
        refused_by_mongo(&Kind::Date, &i32::MIN.to_be_bytes(), "is infinite");
        refused_by_postgres(
            &Kind::Date,
            "ISODate('2000-01-01T00:00:00.001Z')",
            "not midnight in UTC",
        );
        both(&Kind::Time(6), &86_400_000_000i64.to_be_bytes(), "'24:00:00'");
        both(&Kind::Time(6), &1i64.to_be_bytes(), "'00:00:00.000001'");
        accepted(&Kind::Time(6), "'13:05'", &47_100_000_000i64.to_be_bytes());
        refused_by_postgres(&Kind::Time(6), "'1 pm'", "a time is a string like");
        refused_by_postgres(&Kind::Time(0), "'13:05:00.5'", "it would be rounded");
        refused_by_mongo(&Kind::Time(6), &(-1i64).to_be_bytes(), "another type");
    }

    #[test]
    fn intervals() {
        let raw = |months: i32, days: i32, micros: i64| {
            [&micros.to_be_bytes()[..], &days.to_be_bytes(), &months.to_be_bytes()].concat()
        };
        both(&INTERVAL, &raw(-14, 3, -3_600_500_000), "'P-1Y-2M3DT-1H-0.5S'");
        both(&INTERVAL, &raw(0, 0, 0), "'PT0S'");
        refused_by_mongo(&INTERVAL, &raw(i32::MAX, i32::MAX, i64::MAX), "is infinite");
        refused_by_mongo(&INTERVAL, &raw(i32::MIN, i32::MIN, i64::MIN), "is infinite");
        refused_by_postgres(&INTERVAL, "'1 day'", "an interval is a string like");
        let check = |finest: Finest, kept: &str, cut: &str| {
            let kind = Kind::Interval(finest);
            assert!(written(&kind, &value(kept)).is_ok(), "{finest:?}");
            refused_by_postgres(&kind, cut, "it would be cut off");
        };
        check(Finest::Year, "'P2Y'", "'P2Y1M'");
        check(Finest::Month, "'P2Y1M'", "'P1D'");
        check(Finest::Day, "'P1M1D'", "'P1DT1S'");
        check(Finest::Micros(60_000_000), "'PT1M'", "'PT1S'");
    }

    #[test]
    fn uuids_and_bytes() {
        let bytes = [
            1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd,
            0xef,
        ];
        let text = "01234567-89ab-cdef-0123-456789abcdef";
        both(&Kind::Uuid, &bytes, &format!("UUID('{text}')"));
        accepted(&Kind::Uuid, &format!("'{text}'"), &bytes);
        refused_by_postgres(&Kind::Uuid, "'x'", "it is not a UUID");
        refused_by_postgres(
            &Kind::Uuid,
            "BinData(3, 'ASNFZ4mrze8BI0VniavN7w==')",
            "depends on the driver",
        );
        refused_by_postgres(&Kind::Uuid, "BinData(0, 'ASNFZ4mrze8BI0VniavN7w==')", "convert it");
        both(&Kind::Bytea, b"", "BinData(0, '')");
        both(&Kind::Bytea, &[0, 255], "BinData(0, 'AP8=')");
        refused_by_postgres(&Kind::Bytea, &format!("UUID('{text}')"), "only subtype 0");
        refused_by_postgres(&Kind::Bytea, "'a'", "convert it");
    }

    #[test]
    fn json_of_both_kinds() {
        for (text, expected) in [
            (r#"{"a":[1,{"b":null}]}"#, "({ a: [1, { b: null }] })"),
            ("[]", "[]"),
            ("7", "7"),
            ("\"x\"", "'x'"),
            ("true", "true"),
        ] {
            both(&Kind::Json, text.as_bytes(), expected);
            both(&Kind::Jsonb, format!("\x01{text}").as_bytes(), expected);
        }
        refused_by_mongo(&Kind::Jsonb, b"\x027", "another type");
        refused_by_mongo(&Kind::Jsonb, b"", "another type");
        refused_by_postgres(&Kind::Jsonb, "({ a: 'b\\x00' })", "U+0000");
        accepted(&Kind::Json, "'\\x00'", br#""\u0000""#);
        refused_by_postgres(
            &Kind::Json,
            "({ a: /b/ })",
            "JSON has nothing for the regular expression",
        );
    }

    #[test]
    fn arrays() {
        let ints = array_of(Kind::Int4, 23);
        let int = |int: i32| int.to_be_bytes();
        let (one, two) = (int(1), int(2));
        both(&ints, &array(23, &[], &[]), "[]");
        both(&ints, &array(23, &[3], &[Some(&one), None, Some(&two)]), "[1, null, 2]");
        both(&ints, &array(23, &[2, 1], &[Some(&one), Some(&two)]), "[[1], [2]]");
        both(&ints, &array(23, &[1, 1, 2], &[None, Some(&two)]), "[[[null, 2]]]");
        let eleven: Vec<[u8; 4]> = (0..11).map(int).collect();
        let eleven: Vec<Option<&[u8]>> = eleven.iter().map(|int| Some(&int[..])).collect();
        both(&ints, &array(23, &[11], &eleven), "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]");
        let texts = array_of(Kind::Text(None), 25);
        both(&texts, &array(25, &[2], &[Some(b""), Some(b"NULL")]), "['', 'NULL']");
        for ragged in ["[[1], [1, 2]]", "[[1], 2]", "[1, [2]]", "[[1], null]", "[[[1]], [2]]"] {
            refused_by_postgres(&ints, ragged, "not all equally long and deep");
        }
        for empty in ["[[]]", "[[], []]"] {
            refused_by_postgres(&ints, empty, "an array in it is empty");
        }
        refused_by_postgres(&ints, "[[[[[[[1]]]]]]]", "more than 6 deep");
        refused_by_postgres(&ints, "7", "it is no array");
        let bad = written(&ints, &value("[1, 'x']")).expect_err("a string is no integer");
        assert!(bad.contains("does not fit integer"), "{bad}");
        let mut from_zero = array(23, &[1], &[Some(&one)]);
        from_zero[19] = 0;
        refused_by_mongo(&ints, &from_zero, "begins at 0");
        let whole = array(23, &[2], &[Some(&one), Some(&two)]);
        for length in 0..whole.len() {
            refused_by_mongo(&ints, &whole[..length], "another type");
        }
        refused_by_mongo(&ints, &[&whole[..], &[0]].concat(), "another type");
    }

    #[test]
    fn an_array_in_an_array_of_json_is_a_value() {
        let values = array_of(Kind::Jsonb, 3802);
        both(&values, &array(3802, &[2], &[Some(b"\x01[1,2]"), Some(b"\x01[]")]), "[[1, 2], []]");
        both(&values, &array(3802, &[1], &[None]), "[null]");
        refused_by_mongo(&values, &array(3802, &[1, 1], &[Some(b"\x011")]), "has 2 dimensions");
    }

    fn columns() -> [Column; 3] {
        let column = |name: &str, kind| Column { name: name.to_owned(), kind };
        [column("_id", Kind::Int8), column("name", Kind::Char(Some(5))), column("at", TIMESTAMPTZ)]
    }

    fn raw(text: &str) -> RawDocumentBuf {
        let Bson::Document(document) = value(text) else { panic!("{text}") };
        RawDocumentBuf::try_from(&document).unwrap()
    }

    #[test]
    fn a_document_is_a_row_in_whatever_order_its_fields_are() {
        let mut expected = vec![0, 3];
        expected.extend(8i32.to_be_bytes());
        expected.extend(7i64.to_be_bytes());
        expected.extend(3i32.to_be_bytes());
        expected.extend(b"Ada");
        expected.extend((-1i32).to_be_bytes());
        for text in ["{ _id: 7, name: 'Ada', at: null }", "{ name: 'Ada  ', _id: 7 }"] {
            let mut out = b"before".to_vec();
            row(&columns(), &raw(text), &mut out).unwrap();
            assert_eq!(out[6..], expected, "{text}");
        }
    }

    #[test]
    fn what_does_not_fit_is_said_with_its_column() {
        let check = |text: &str, expected: &str| {
            let mut out = b"before".to_vec();
            let bad = row(&columns(), &raw(text), &mut out).expect_err(expected);
            assert!(bad.reason.contains(expected), "{bad}");
            assert_eq!(out, b"before");
        };
        check("{ _id: 'x' }", "`_id`: the string \"x\" does not fit bigint: it is no number");
        check("{ _id: 1, more: 2 }", "`more`: the table has no column of this name");
        let bad = document(&columns(), [None, Some(&b"\xff"[..]), None]).expect_err("no UTF-8");
        assert!(bad.reason.starts_with("`name`: a char(5) is not UTF-8"), "{bad}");
    }

    #[test]
    fn a_row_that_is_too_large_for_mongodb_is_refused() {
        let column = [Column { name: "v".to_owned(), kind: Kind::Bytea }];
        // The length, the head and the end of the document, and the element's own.
        let room = DOCUMENT_MAX - (4 + 1 + 2 + 4 + 1 + 1);
        let bytes = vec![7; room + 1];
        assert!(document(&column, [Some(&bytes[..room])]).is_ok());
        let bad = document(&column, [Some(&bytes[..])]).expect_err("it is too large");
        assert!(bad.reason.contains("16777217 bytes"), "{bad}");
    }

    #[test]
    fn what_a_row_keeps_of_a_document_is_what_it_is_compared_with() {
        let document = raw("{ at: ISODate('2026-11-20T10:00:00Z'), name: 'Ada  ', _id: 7.0 }");
        let kept = kept(&columns(), &document).unwrap();
        assert_eq!(
            kept,
            raw("{ _id: NumberLong('7'), name: 'Ada', at: ISODate('2026-11-20T10:00:00Z') }")
        );
    }

    #[test]
    fn a_row_is_shown_on_one_line() {
        let document = raw("{ _id: 7, name: 'Ada', at: null, tags: ['a'] }");
        assert_eq!(show(&document), r#"_id = 7, name = "Ada", at = NULL, tags = ["a"]"#);
        assert_eq!(key(&document, &["_id"]), "7");
        assert_eq!(key(&document, &["_id", "name", "x"]), r#"(7, "Ada", NULL)"#);
        let long = raw(&format!("{{ a: '{}', b: '{}' }}", "x".repeat(150), "y".repeat(150)));
        assert!(show(&long).ends_with(" characters)"));
    }

    fn any_value() -> impl Strategy<Value = (Kind, Vec<u8>)> {
        let plain = prop_oneof![
            any::<i16>().prop_map(|int| (Kind::Int2, 21, int.to_be_bytes().to_vec())),
            any::<i32>().prop_map(|int| (Kind::Int4, 23, int.to_be_bytes().to_vec())),
            any::<i64>().prop_map(|int| (Kind::Int8, 20, int.to_be_bytes().to_vec())),
            "-?[1-9][0-9]{0,18}(\\.[0-9]{1,15})?".prop_map(|text| (
                Kind::Numeric(None),
                1700,
                wire(&text)
            )),
            any::<f32>().prop_map(|float| (Kind::Float4, 700, float.to_be_bytes().to_vec())),
            any::<f64>().prop_map(|double| (Kind::Float8, 701, double.to_be_bytes().to_vec())),
            any::<bool>().prop_map(|value| (Kind::Bool, 16, vec![u8::from(value)])),
            "[^\\x00]{0,12}".prop_map(|text| (Kind::Text(None), 25, text.into_bytes())),
            // Whole milliseconds: of less, nothing comes back.
            (-200_000_000_000_000i64..200_000_000_000_000).prop_map(|millis| (
                TIMESTAMPTZ,
                1184,
                (millis * 1_000).to_be_bytes().to_vec()
            )),
            (-2_451_545i32..2_145_031_949).prop_map(|days| (
                Kind::Date,
                1082,
                days.to_be_bytes().to_vec()
            )),
            (0i64..=86_400_000_000).prop_map(|micros| (
                Kind::Time(6),
                1083,
                micros.to_be_bytes().to_vec()
            )),
            any::<[u8; 16]>().prop_map(|bytes| (INTERVAL, 1186, bytes.to_vec())),
            any::<[u8; 16]>().prop_map(|bytes| (Kind::Uuid, 2950, bytes.to_vec())),
            any::<Vec<u8>>().prop_map(|bytes| (Kind::Bytea, 17, bytes)),
        ];
        plain.prop_flat_map(|(kind, oid, value)| {
            let nested = {
                let value = value.clone();
                let lengths =
                    prop_oneof![Just(vec![]), Just(vec![2]), Just(vec![2, 3]), Just(vec![1, 2, 1])];
                let null = any::<[bool; 6]>();
                let kind = array_of(kind.clone(), oid);
                (lengths, null).prop_map(move |(lengths, null)| {
                    let count =
                        if lengths.is_empty() { 0 } else { lengths.iter().product::<i32>() };
                    let elements: Vec<Option<&[u8]>> = null[..usize::try_from(count).unwrap()]
                        .iter()
                        .map(|null| (!null).then_some(&value[..]))
                        .collect();
                    (kind.clone(), array(oid, &lengths, &elements))
                })
            };
            prop_oneof![2 => Just((kind, value)), 1 => nested]
        })
    }

    proptest! {
        #[test]
        fn a_value_comes_back_as_it_was((kind, raw) in any_value()) {
            let value = read(&kind, Some(&raw)).unwrap();
            prop_assert_eq!(written(&kind, &value), Ok(Some(raw)), "{:?}", value);
        }

        #[test]
        fn bytes_of_another_type_do_not_panic((kind, _) in any_value(), raw: Vec<u8>) {
            let _ = read(&kind, Some(&raw));
        }
    }
}
