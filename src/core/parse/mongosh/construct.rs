//! `ObjectId("…")`, `ISODate("…")` and the others: calls that are literals.
//!
//! Invariant: what one of them stores is the same at each run. `ObjectId()` or
//! `new Date()` would not be, and are refused.

use super::date::{self, Form, NotADate};
use super::literal::{Reader, Value, bson_regex, regex};
use super::number::{exact_integer, js_number_text};
use super::{Fault, bare};
use crate::core::problem::nearest;
use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Decimal128, Timestamp, doc};
use oxc_ast::ast::{Argument, Expression};
use oxc_span::{GetSpan, Span};

/// What can be called for a value.
pub(super) const NAMES: &[&str] = &[
    "ObjectId",
    "ISODate",
    "Date",
    "UUID",
    "BinData",
    "HexData",
    "MD5",
    "NumberInt",
    "NumberLong",
    "NumberDecimal",
    "Int32",
    "Long",
    "Double",
    "Decimal128",
    "Timestamp",
    "MinKey",
    "MaxKey",
    "RegExp",
    "BSONRegExp",
    "DBRef",
];

/// The moment furthest from 1970 that a JavaScript date can hold.
const DATE_MILLIS_MAX: i64 = 8_640_000_000_000_000;

/// The value of `Name(…)` or `new Name(…)`.
pub(super) fn call(
    reader: &mut Reader,
    callee: &Expression,
    arguments: &[Argument],
    span: Span,
    new: bool,
) -> Option<Value> {
    let name = match bare(callee) {
        Expression::Identifier(identifier) => identifier.name.to_string(),
        Expression::StaticMemberExpression(member) => match &member.object {
            Expression::Identifier(object) => format!("{}.{}", object.name, member.property.name),
            _ => "…".to_owned(),
        },
        _ => "…".to_owned(),
    };
    let base = match name.as_str() {
        "Decimal128.fromString" | "Long.fromString" => name.as_str(),
        _ if NAMES.contains(&name.as_str()) => name.as_str(),
        _ => {
            reader.refuse(unknown(&name, callee.span()));
            return None;
        }
    };
    let mut values = Vec::with_capacity(arguments.len());
    for argument in arguments {
        match argument {
            Argument::SpreadElement(spread) => {
                reader.refuse(
                    Fault::new(spread.span, "a spread is not read").hint("write the values out"),
                );
                return None;
            }
            argument => values.push(reader.value(argument.to_expression())?),
        }
    }
    let construct = Construct { name: base, span };
    match construct.value(&values, new) {
        Ok(bson) => Some(Value::Bson(bson)),
        Err(fault) => {
            reader.refuse(fault);
            None
        }
    }
}

fn unknown(name: &str, span: Span) -> Fault {
    let fault = Fault::new(span, format!("`{name}(…)` is not a value: the file is never run"));
    match name {
        "Date.now" | "Date.parse" | "Date.UTC" => {
            fault.hint("write the date out: `ISODate(\"2024-01-31T12:00:00Z\")`")
        }
        "ObjectID" => fault.hint("did you mean `ObjectId`?"),
        _ => match nearest(name, NAMES.iter().copied()) {
            Some(known) => fault.hint(format!("did you mean `{known}`?")),
            None => fault.hint("write the value out"),
        },
    }
}

/// One call, for its messages.
struct Construct<'a> {
    name: &'a str,
    span: Span,
}

impl Construct<'_> {
    fn value(&self, values: &[Value], new: bool) -> Result<Bson, Fault> {
        Ok(match self.name {
            "ObjectId" => match values {
                [] => return Err(self.differs("`ObjectId(\"65a1…\")`, 24 hex digits, or leave `_id` out and let the server make one")),
                [Value::Bson(Bson::String(hex))] => Bson::ObjectId(
                    ObjectId::parse_str(hex).map_err(|_| self.wants("24 hex digits"))?,
                ),
                _ => return Err(self.wants("24 hex digits")),
            },
            "Date" if !new => {
                return Err(Fault::new(self.span, "`Date(…)` without `new` is a text in JavaScript, and always that of now")
                    .hint("write `new Date(\"2024-01-31T12:00:00Z\")` or `ISODate(\"…\")`"));
            }
            "Date" | "ISODate" => Bson::DateTime(self.date(values)?),
            "UUID" => match values {
                [] => return Err(self.differs("`UUID(\"…\")`, 32 hex digits")),
                [Value::Bson(Bson::String(text))] => {
                    let bytes = hex(&text.replace('-', "")).filter(|bytes| bytes.len() == 16);
                    let bytes = bytes.ok_or_else(|| self.wants("32 hex digits"))?;
                    Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes })
                }
                _ => return Err(self.wants("32 hex digits")),
            },
            "BinData" => {
                let [Value::Number(subtype), Value::Bson(Bson::String(base64))] = values else {
                    return Err(self.wants("a subtype and a text in base64"));
                };
                let subtype = self.subtype(*subtype)?;
                Bson::Binary(
                    Binary::from_base64(base64, subtype)
                        .map_err(|_| self.wants("a subtype and a text in base64"))?,
                )
            }
            "HexData" => {
                let [Value::Number(subtype), Value::Bson(Bson::String(text))] = values else {
                    return Err(self.wants("a subtype and a text of hex digits"));
                };
                let subtype = self.subtype(*subtype)?;
                let bytes =
                    hex(text).ok_or_else(|| self.wants("a subtype and a text of hex digits"))?;
                Bson::Binary(Binary { subtype, bytes })
            }
            "MD5" => match values {
                [Value::Bson(Bson::String(text))] => {
                    let bytes = hex(text).filter(|bytes| bytes.len() == 16);
                    let bytes = bytes.ok_or_else(|| self.wants("32 hex digits"))?;
                    Bson::Binary(Binary { subtype: BinarySubtype::Md5, bytes })
                }
                _ => return Err(self.wants("32 hex digits")),
            },
            "NumberInt" | "Int32" => Bson::Int32(
                self.integer(values)
                    .and_then(|number| i32::try_from(number).ok())
                    .ok_or_else(|| self.wants("a whole number of 32 bits"))?,
            ),
            "NumberLong" | "Long" | "Long.fromString" => Bson::Int64(self.long(values)?),
            "Double" => Bson::Double(match values {
                [Value::Number(number)] => *number,
                [Value::Bson(Bson::String(text))] => {
                    js_number(text).ok_or_else(|| self.wants("a number"))?
                }
                _ => return Err(self.wants("a number")),
            }),
            "NumberDecimal" | "Decimal128" | "Decimal128.fromString" => {
                let text = match values {
                    [Value::Bson(Bson::String(text))] => text.clone(),
                    [Value::Number(number)] if self.name == "NumberDecimal" => {
                        js_number_text(*number)
                    }
                    _ => return Err(self.wants("a number in quotes")),
                };
                let decimal = text.parse::<Decimal128>();
                Bson::Decimal128(
                    decimal.map_err(|_| self.wants("a number in quotes of at most 34 digits"))?,
                )
            }
            "Timestamp" => {
                let seconds_and_count = match values {
                    [Value::Number(time)] => [*time, 0.0],
                    [Value::Number(time), Value::Number(increment)] => [*time, *increment],
                    [Value::Bson(Bson::Document(parts))] if parts.len() == 2 => {
                        let part = |name| match parts.get(name) {
                            Some(Bson::Int32(number)) => Ok(f64::from(*number)),
                            Some(Bson::Double(number)) => Ok(*number),
                            _ => Err(self.wants("seconds and a count")),
                        };
                        [part("t")?, part("i")?]
                    }
                    _ => return Err(self.wants("seconds and a count")),
                };
                let part = |number| {
                    exact_integer(number)
                        .and_then(|number| u32::try_from(number).ok())
                        .ok_or_else(|| self.wants("seconds and a count"))
                };
                let [time, increment] = seconds_and_count;
                Bson::Timestamp(Timestamp { time: part(time)?, increment: part(increment)? })
            }
            "MinKey" | "MaxKey" => {
                if !values.is_empty() {
                    return Err(self.wants("nothing in its parentheses"));
                }
                if self.name == "MinKey" { Bson::MinKey } else { Bson::MaxKey }
            }
            "RegExp" | "BSONRegExp" => {
                let (pattern, flags) = match values {
                    [Value::Bson(Bson::String(pattern))] => (pattern, ""),
                    [Value::Bson(Bson::String(pattern)), Value::Bson(Bson::String(flags))] => {
                        (pattern, flags.as_str())
                    }
                    _ => return Err(self.wants("a pattern and flags, both in quotes")),
                };
                if self.name == "BSONRegExp" {
                    if let Some(flag) = flags.chars().find(|flag| !"imxlsu".contains(*flag)) {
                        return Err(Fault::new(self.span, format!("MongoDB has no flag `{flag}`"))
                            .hint("it knows i, m, s, x and u"));
                    }
                    bson_regex(pattern, flags, self.span)?
                } else {
                    regex(&self.source(pattern)?, flags, self.span)?
                }
            }
            "DBRef" => {
                let (collection, id, database) = match values {
                    [Value::Bson(Bson::String(collection)), id] => (collection, id, None),
                    [Value::Bson(Bson::String(collection)), id, Value::Bson(Bson::String(database))] => {
                        (collection, id, Some(database))
                    }
                    _ => return Err(self.wants("a collection, an _id and maybe a database")),
                };
                if collection.contains('.') {
                    // mongosh takes what stands before a single dot for a database.
                    return Err(self.wants("a collection without a dot in its name"));
                }
                let mut reference = doc! { "$ref": collection, "$id": id.clone().into_bson() };
                if let Some(database) = database {
                    reference.insert("$db", database);
                }
                Bson::Document(reference)
            }
            name => unreachable!("`{name}` is not in NAMES"),
        })
    }

    fn wants(&self, what: &str) -> Fault {
        Fault::new(self.span, format!("`{}` takes {what}", self.name))
    }

    /// For what is another value at each run.
    fn differs(&self, instead: &str) -> Fault {
        Fault::new(
            self.span,
            format!(
                "`{}()` is another value at each run, and a file must say the same each time",
                self.name
            ),
        )
        .hint(format!("write {instead}"))
    }

    fn date(&self, values: &[Value]) -> Result<DateTime, Fault> {
        let example = "write it as \"2024-01-31T12:00:00Z\"";
        match values {
            [] => Err(self.differs(
                "the date out, or let the server tell the time: `$currentDate`, or `\"$$NOW\"` in an update by pipeline",
            )),
            [Value::Bson(Bson::String(text))] => {
                let form = if self.name == "Date" { Form::Date } else { Form::IsoDate };
                date::parse(text, form).map_err(|why| match why {
                    NotADate::Local => Fault::new(self.span, "the local time of whoever runs it")
                        .hint("write `Z` or an offset such as `+02:00` behind the time"),
                    NotADate::Value => {
                        Fault::new(self.span, "there is no such day or time").hint(example)
                    }
                    NotADate::Form => {
                        Fault::new(self.span, format!("not a date that `{}` reads everywhere", self.name))
                            .hint(example)
                    }
                })
            }
            [Value::Number(millis)] => exact_integer(*millis)
                .filter(|millis| millis.abs() <= DATE_MILLIS_MAX)
                .map(DateTime::from_millis)
                .ok_or_else(|| self.wants("whole milliseconds since 1970")),
            [_] => Err(self.wants("a text or milliseconds").hint(example)),
            _ => Err(Fault::new(self.span, "a date of its parts is the local time of whoever runs it")
                .hint(example)),
        }
    }

    /// A whole number, given as a number or as a text.
    fn integer(&self, values: &[Value]) -> Option<i64> {
        match values {
            [Value::Number(number)] => exact_integer(*number),
            [Value::Bson(Bson::String(text))] if !text.starts_with('+') => text.parse().ok(),
            [Value::Bson(Bson::Int32(number))] => Some(i64::from(*number)),
            [Value::Bson(Bson::Int64(number))] if self.name != "Long" => Some(*number),
            _ => None,
        }
    }

    fn long(&self, values: &[Value]) -> Result<i64, Fault> {
        let number = self
            .integer(values)
            .ok_or_else(|| self.wants("a whole number of 64 bits").hint("write it in quotes"))?;
        let plain = matches!(values, [Value::Number(_)]);
        if plain && self.name == "Long" && i32::try_from(number).is_err() {
            // mongosh keeps the lower 32 bits only.
            return Err(Fault::new(
                self.span,
                "`Long` of a plain number keeps only 32 bits in mongosh",
            )
            .hint(format!("write `NumberLong(\"{number}\")`")));
        }
        if plain && self.name == "Long.fromString" {
            return Err(self.wants("a whole number in quotes"));
        }
        Ok(number)
    }

    fn subtype(&self, number: f64) -> Result<BinarySubtype, Fault> {
        exact_integer(number)
            .and_then(|number| u8::try_from(number).ok())
            .map(BinarySubtype::from)
            .ok_or_else(|| self.wants("a subtype from 0 to 255"))
    }

    /// What mongosh stores is the `source` of the expression: slashes get a
    /// backslash, except in a class.
    fn source(&self, pattern: &str) -> Result<String, Fault> {
        if pattern.is_empty() {
            return Ok("(?:)".to_owned());
        }
        if pattern.contains(['\n', '\r', '\u{2028}', '\u{2029}']) {
            return Err(
                Fault::new(self.span, "a line break in a regular expression").hint("write `\\\\n`")
            );
        }
        let mut source = String::with_capacity(pattern.len());
        let mut class = false;
        let mut escaped = false;
        for character in pattern.chars() {
            match character {
                '/' if !class && !escaped => source.push('\\'),
                '[' if !escaped => class = true,
                ']' if !escaped => class = false,
                _ => {}
            }
            escaped = character == '\\' && !escaped;
            source.push(character);
        }
        Ok(source)
    }
}

/// `Number(text)`, without hex, spaces and the empty text.
fn js_number(text: &str) -> Option<f64> {
    match text {
        "NaN" => return Some(f64::NAN),
        "Infinity" => return Some(f64::INFINITY),
        "-Infinity" => return Some(f64::NEG_INFINITY),
        _ => {}
    }
    let plain =
        text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    if plain { text.parse().ok() } else { None }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
#[expect(clippy::needless_raw_string_hashes, reason = "expect_test writes them so")]
mod tests {
    use crate::core::parse::mongosh::literal;
    use expect_test::{Expect, expect};

    /// Reads a literal and shows it with its types, or what is wrong with it.
    fn check(text: &str, expected: &Expect) {
        let shown = match literal(text) {
            Ok(bson) => format!("{bson:?}"),
            Err(problem) => problem.to_string().trim_start_matches(':').to_owned(),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn values_are_made_by_calls() {
        for (text, expected) in [
            (
                "ObjectId('65a1b2c3d4e5f60718293a4b')",
                expect![[r#"ObjectId("65a1b2c3d4e5f60718293a4b")"#]],
            ),
            ("new ISODate('2024-01-31')", expect!["DateTime(2024-01-31 0:00:00.0 +00:00:00)"]),
            ("new Date(0)", expect!["DateTime(1970-01-01 0:00:00.0 +00:00:00)"]),
            (
                "UUID('0188a5c4-7e2f-7000-8000-0123456789ab')",
                expect![
                    "Binary { subtype: Uuid, bytes: [1, 136, 165, 196, 126, 47, 112, 0, 128, 0, 1, 35, 69, 103, 137, 171] }"
                ],
            ),
            (
                "BinData(128, 'aGk=')",
                expect!["Binary { subtype: UserDefined(128), bytes: [104, 105] }"],
            ),
            ("HexData(0, '0aFF')", expect!["Binary { subtype: Generic, bytes: [10, 255] }"]),
            (
                "MD5('d41d8cd98f00b204e9800998ecf8427e')",
                expect![
                    "Binary { subtype: Md5, bytes: [212, 29, 140, 217, 143, 0, 178, 4, 233, 128, 9, 152, 236, 248, 66, 126] }"
                ],
            ),
            ("NumberInt('7')", expect!["Int32(7)"]),
            ("NumberLong('9223372036854775807')", expect!["Int64(9223372036854775807)"]),
            ("Long(5)", expect!["Int64(5)"]),
            ("Double(1)", expect!["Double(1.0)"]),
            ("NumberDecimal('1.50')", expect!["Decimal128(96000000000000000000000000003c30)"]),
            (
                "Decimal128.fromString('0.1')",
                expect!["Decimal128(01000000000000000000000000003e30)"],
            ),
            ("Timestamp(1, 2)", expect!["Timestamp { time: 1, increment: 2 }"]),
            (
                "Timestamp({ t: 1, i: 4294967295 })",
                expect!["Timestamp { time: 1, increment: 4294967295 }"],
            ),
            ("MinKey()", expect!["MinKey"]),
            ("new MaxKey", expect!["MaxKey"]),
            ("RegExp('a/b', 'i')", expect![[r#"Regex { pattern: "a\\/b", options: "i" }"#]]),
            ("BSONRegExp('a', 'si')", expect![[r#"Regex { pattern: "a", options: "is" }"#]]),
            (
                "DBRef('a', 1, 'b')",
                expect![[
                    r#"Document({"$ref": String("a"), "$id": Int32(1), "$db": String("b")})"#
                ]],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn what_differs_at_each_run_is_refused() {
        for (text, expected) in [
            (
                "ObjectId()",
                expect![[
                    r#"1:1: `ObjectId()` is another value at each run, and a file must say the same each time; write `ObjectId("65a1…")`, 24 hex digits, or leave `_id` out and let the server make one"#
                ]],
            ),
            (
                "new ObjectId()",
                expect![[
                    r#"1:1: `ObjectId()` is another value at each run, and a file must say the same each time; write `ObjectId("65a1…")`, 24 hex digits, or leave `_id` out and let the server make one"#
                ]],
            ),
            (
                "ISODate()",
                expect![[
                    r#"1:1: `ISODate()` is another value at each run, and a file must say the same each time; write the date out, or let the server tell the time: `$currentDate`, or `"$$NOW"` in an update by pipeline"#
                ]],
            ),
            (
                "new Date()",
                expect![[
                    r#"1:1: `Date()` is another value at each run, and a file must say the same each time; write the date out, or let the server tell the time: `$currentDate`, or `"$$NOW"` in an update by pipeline"#
                ]],
            ),
            (
                "UUID()",
                expect![[
                    r#"1:1: `UUID()` is another value at each run, and a file must say the same each time; write `UUID("…")`, 32 hex digits"#
                ]],
            ),
            (
                "Date()",
                expect![[
                    r#"1:1: `Date(…)` without `new` is a text in JavaScript, and always that of now; write `new Date("2024-01-31T12:00:00Z")` or `ISODate("…")`"#
                ]],
            ),
            (
                "Date('2024-01-01')",
                expect![[
                    r#"1:1: `Date(…)` without `new` is a text in JavaScript, and always that of now; write `new Date("2024-01-31T12:00:00Z")` or `ISODate("…")`"#
                ]],
            ),
            (
                "Date.now()",
                expect![[
                    r#"1:1: `Date.now(…)` is not a value: the file is never run; write the date out: `ISODate("2024-01-31T12:00:00Z")`"#
                ]],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn dates_that_depend_on_the_machine_are_refused() {
        for (text, expected) in [
            (
                "new Date('2024-01-01T00:00:00')",
                expect![
                    "1:1: the local time of whoever runs it; write `Z` or an offset such as `+02:00` behind the time"
                ],
            ),
            (
                "new Date(2024, 0, 1)",
                expect![[
                    r#"1:1: a date of its parts is the local time of whoever runs it; write it as "2024-01-31T12:00:00Z""#
                ]],
            ),
            (
                "new Date('Jan 1, 2024')",
                expect![[
                    r#"1:1: not a date that `Date` reads everywhere; write it as "2024-01-31T12:00:00Z""#
                ]],
            ),
            (
                "ISODate('yesterday')",
                expect![[
                    r#"1:1: not a date that `ISODate` reads everywhere; write it as "2024-01-31T12:00:00Z""#
                ]],
            ),
            (
                "ISODate('2024-02-30')",
                expect![[
                    r#"1:1: there is no such day or time; write it as "2024-01-31T12:00:00Z""#
                ]],
            ),
            ("ISODate(1.5)", expect!["1:1: `ISODate` takes whole milliseconds since 1970"]),
            ("new Date(9e15)", expect!["1:1: `Date` takes whole milliseconds since 1970"]),
            (
                "new Date(null)",
                expect![[
                    r#"1:1: `Date` takes a text or milliseconds; write it as "2024-01-31T12:00:00Z""#
                ]],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn arguments_that_mongosh_would_bend_are_refused() {
        for (text, expected) in [
            ("ObjectId('abc')", expect!["1:1: `ObjectId` takes 24 hex digits"]),
            ("ObjectId(5)", expect!["1:1: `ObjectId` takes 24 hex digits"]),
            ("UUID('abc')", expect!["1:1: `UUID` takes 32 hex digits"]),
            ("UUID(1)", expect!["1:1: `UUID` takes 32 hex digits"]),
            ("BinData(0, '?')", expect!["1:1: `BinData` takes a subtype and a text in base64"]),
            ("BinData('a')", expect!["1:1: `BinData` takes a subtype and a text in base64"]),
            ("BinData(256, '')", expect!["1:1: `BinData` takes a subtype from 0 to 255"]),
            (
                "HexData(0, 'abc')",
                expect!["1:1: `HexData` takes a subtype and a text of hex digits"],
            ),
            ("HexData(0)", expect!["1:1: `HexData` takes a subtype and a text of hex digits"]),
            ("HexData(-1, '')", expect!["1:1: `HexData` takes a subtype from 0 to 255"]),
            ("MD5('ab')", expect!["1:1: `MD5` takes 32 hex digits"]),
            ("MD5(1)", expect!["1:1: `MD5` takes 32 hex digits"]),
            ("NumberInt(1.5)", expect!["1:1: `NumberInt` takes a whole number of 32 bits"]),
            ("NumberInt('1e3')", expect!["1:1: `NumberInt` takes a whole number of 32 bits"]),
            ("NumberInt(2147483648)", expect!["1:1: `NumberInt` takes a whole number of 32 bits"]),
            (
                "NumberLong(1.5)",
                expect!["1:1: `NumberLong` takes a whole number of 64 bits; write it in quotes"],
            ),
            (
                "NumberLong(9007199254740993)",
                expect!["1:1: `NumberLong` takes a whole number of 64 bits; write it in quotes"],
            ),
            (
                "NumberLong('9223372036854775808')",
                expect!["1:1: `NumberLong` takes a whole number of 64 bits; write it in quotes"],
            ),
            (
                "NumberLong()",
                expect!["1:1: `NumberLong` takes a whole number of 64 bits; write it in quotes"],
            ),
            (
                "Long(5000000000)",
                expect![[
                    r#"1:1: `Long` of a plain number keeps only 32 bits in mongosh; write `NumberLong("5000000000")`"#
                ]],
            ),
            (
                "Long.fromString(5)",
                expect!["1:1: `Long.fromString` takes a whole number in quotes"],
            ),
            ("Double('abc')", expect!["1:1: `Double` takes a number"]),
            ("Double('')", expect!["1:1: `Double` takes a number"]),
            ("Double()", expect!["1:1: `Double` takes a number"]),
            (
                "NumberDecimal('abc')",
                expect!["1:1: `NumberDecimal` takes a number in quotes of at most 34 digits"],
            ),
            (
                "NumberDecimal('12345678901234567890123456789012345')",
                expect!["1:1: `NumberDecimal` takes a number in quotes of at most 34 digits"],
            ),
            ("Decimal128(1)", expect!["1:1: `Decimal128` takes a number in quotes"]),
            ("NumberDecimal()", expect!["1:1: `NumberDecimal` takes a number in quotes"]),
            ("Timestamp()", expect!["1:1: `Timestamp` takes seconds and a count"]),
            ("Timestamp(-1, 0)", expect!["1:1: `Timestamp` takes seconds and a count"]),
            ("Timestamp({ t: 1 })", expect!["1:1: `Timestamp` takes seconds and a count"]),
            ("Timestamp('1')", expect!["1:1: `Timestamp` takes seconds and a count"]),
            ("Timestamp({ t: 'a', i: 1 })", expect!["1:1: `Timestamp` takes seconds and a count"]),
            ("MinKey(1)", expect!["1:1: `MinKey` takes nothing in its parentheses"]),
            ("RegExp(1)", expect!["1:1: `RegExp` takes a pattern and flags, both in quotes"]),
            (
                "RegExp('a', 'g')",
                expect![[
                    r#"1:1: mongosh does not store the flag `g` of a regular expression; write `BSONRegExp("pattern", "flags")`; MongoDB knows i, m, s, x and u"#
                ]],
            ),
            (
                r"RegExp('a\n')",
                expect![[r#"1:1: a line break in a regular expression; write `\\n`"#]],
            ),
            (r"RegExp('a\0')", expect!["1:1: a regular expression cannot hold a NUL"]),
            (
                "BSONRegExp('a', 'g')",
                expect!["1:1: MongoDB has no flag `g`; it knows i, m, s, x and u"],
            ),
            (
                "DBRef('a.b', 1)",
                expect!["1:1: `DBRef` takes a collection without a dot in its name"],
            ),
            ("DBRef('a')", expect!["1:1: `DBRef` takes a collection, an _id and maybe a database"]),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn other_calls_are_no_values() {
        for (text, expected) in [
            (
                "ObjectID('65a1b2c3d4e5f60718293a4b')",
                expect![
                    "1:1: `ObjectID(…)` is not a value: the file is never run; did you mean `ObjectId`?"
                ],
            ),
            (
                "Isodate('2024-01-01')",
                expect![
                    "1:1: `Isodate(…)` is not a value: the file is never run; did you mean `ISODate`?"
                ],
            ),
            (
                "foo()",
                expect!["1:1: `foo(…)` is not a value: the file is never run; write the value out"],
            ),
            (
                "a.b.c()",
                expect!["1:1: `…(…)` is not a value: the file is never run; write the value out"],
            ),
            (
                "(() => 1)()",
                expect!["1:1: `…(…)` is not a value: the file is never run; write the value out"],
            ),
            ("ObjectId(...a)", expect!["1:10: a spread is not read; write the values out"]),
            (
                "ObjectId(undefined)",
                expect![
                    "1:10: `undefined` is not a value of MongoDB; leave the field out, or write `null`"
                ],
            ),
        ] {
            check(text, &expected);
        }
    }
}
