//! `.mongodb.json`: an array of database commands in Extended JSON.
//!
//! `serde_json` says whether it is JSON. The values are then taken from the
//! JavaScript parser's tree, of which JSON is a part: it keeps the order of
//! fields, which decides what a command is, and knows where each value stands.

use super::command::{Draft, written};
use super::{Fault, Lines, Statement, bare, command};
use crate::core::step::MongoStep;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Document, Regex, Timestamp, oid::ObjectId};
use oxc_allocator::Allocator;
use oxc_ast::ast::{Expression, ObjectExpression, ObjectPropertyKind, PropertyKey, UnaryOperator};
use oxc_parser::Parser;
use oxc_span::{GetSpan, SourceType, Span};

const SHAPE: &str = "write `[ { \"createIndexes\": \"products\", … }, … ]`";

pub(super) fn read(text: &str) -> Result<Vec<Statement>, Vec<Fault>> {
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
        return Err(vec![not_json(text, &error)]);
    }
    let allocator = Allocator::default();
    let parsed = Parser::new(&allocator, text, SourceType::mjs()).parse_expression();
    let Ok(expression) = parsed else {
        // Two keys `__proto__` are JSON, and the only JSON that is not JavaScript.
        return Err(vec![Fault::new(0..0, "cannot be read").hint("is there a key `__proto__`?")]);
    };
    let Expression::ArrayExpression(list) = &expression else {
        return Err(vec![Fault::new(expression.span(), "not a list of commands").hint(SHAPE)]);
    };
    let mut lines = Lines::new(text);
    let mut statements = Vec::new();
    let mut faults = Vec::new();
    for element in &list.elements {
        let span = element.span();
        let body = match element.as_expression().map(value) {
            Some(Ok(Bson::Document(body))) => Ok(body),
            Some(Err(fault)) => Err(fault),
            _ => Err(Fault::new(span, "a command is a document").hint(SHAPE)),
        };
        let finished = body.and_then(|body| {
            let body =
                written(body).map_err(|fault| Fault { at: super::At::from(span).0, ..fault })?;
            command::finish(vec![Draft::new(span, body)])
        });
        match finished {
            Ok((commands, kind)) => {
                let text = text[span.start as usize..span.end as usize].to_owned();
                let line = lines.of(span.start as usize);
                statements.push(Statement { step: MongoStep { text, commands, kind }, line });
            }
            Err(fault) => faults.push(fault),
        }
    }
    if faults.is_empty() { Ok(statements) } else { Err(faults) }
}

fn not_json(text: &str, error: &serde_json::Error) -> Fault {
    let mut at = 0;
    for _ in 1..error.line() {
        at += text[at..].find('\n').map_or(0, |newline| newline + 1);
    }
    at = text.floor_char_boundary((at + error.column().saturating_sub(1)).min(text.len()));
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    Fault::new(at..at + 1, format!("not JSON: {message}")).hint(SHAPE)
}

fn value(expression: &Expression) -> Result<Bson, Fault> {
    let span = expression.span();
    Ok(match bare(expression) {
        Expression::NullLiteral(_) => Bson::Null,
        Expression::BooleanLiteral(literal) => Bson::Boolean(literal.value),
        Expression::StringLiteral(literal) => {
            if literal.lone_surrogates {
                return Err(Fault::new(span, "half of a surrogate pair, which UTF-8 cannot hold"));
            }
            Bson::String(literal.value.to_string())
        }
        Expression::NumericLiteral(literal) => {
            number(literal.raw.as_deref().unwrap_or_default(), literal.value, span)?
        }
        Expression::UnaryExpression(unary) if unary.operator == UnaryOperator::UnaryNegation => {
            match bare(&unary.argument) {
                Expression::NumericLiteral(literal) => {
                    let raw = format!("-{}", literal.raw.as_deref().unwrap_or_default());
                    number(&raw, -literal.value, span)?
                }
                _ => return Err(Fault::new(span, "not JSON")),
            }
        }
        Expression::ArrayExpression(list) => {
            let values = list.elements.iter().map(|element| match element.as_expression() {
                Some(expression) => value(expression),
                None => Err(Fault::new(element.span(), "not JSON")),
            });
            Bson::Array(values.collect::<Result<_, _>>()?)
        }
        Expression::ObjectExpression(object) => {
            let document = document(object)?;
            let wrapper =
                document.keys().next().is_some_and(|key| WRAPPERS.contains(&key.as_str()));
            if wrapper { unwrapped(&document, span)? } else { Bson::Document(document) }
        }
        _ => return Err(Fault::new(span, "not JSON")),
    })
}

/// Relaxed: an integer takes the smallest type that holds it, anything with a
/// point or an exponent is a double.
fn number(raw: &str, double: f64, span: Span) -> Result<Bson, Fault> {
    if raw.contains(['.', 'e', 'E']) || raw == "-0" {
        return Ok(Bson::Double(double));
    }
    match raw.parse::<i64>() {
        Ok(number) => Ok(i32::try_from(number).map_or(Bson::Int64(number), Bson::Int32)),
        Err(_) => {
            Err(Fault::new(span, "does not fit 64 bits")
                .hint("write `{ \"$numberDecimal\": \"…\" }`"))
        }
    }
}

fn document(object: &ObjectExpression) -> Result<Document, Fault> {
    let mut document = Document::new();
    for property in &object.properties {
        let ObjectPropertyKind::ObjectProperty(property) = property else {
            return Err(Fault::new(property.span(), "not JSON"));
        };
        let PropertyKey::StringLiteral(key) = &property.key else {
            return Err(Fault::new(property.key.span(), "not JSON"));
        };
        if key.value.contains('\0') || key.lone_surrogates {
            return Err(Fault::new(key.span, "not a key that BSON can hold"));
        }
        let value = value(&property.value)?;
        if document.insert(key.value.to_string(), value).is_some() {
            return Err(Fault::new(key.span, format!("`{}` stands here twice", key.value))
                .hint("remove one of them"));
        }
    }
    Ok(document)
}

/// The first keys of the types of Extended JSON. `$regex` is no such type: it
/// is an operator.
const WRAPPERS: &[&str] = &[
    "$oid",
    "$numberInt",
    "$numberLong",
    "$numberDouble",
    "$numberDecimal",
    "$date",
    "$binary",
    "$uuid",
    "$timestamp",
    "$regularExpression",
    "$minKey",
    "$maxKey",
    "$symbol",
    "$code",
    "$scope",
    "$undefined",
    "$dbPointer",
];

/// The value that a document such as `{ "$oid": "…" }` stands for.
fn unwrapped(document: &Document, span: Span) -> Result<Bson, Fault> {
    let name = document.keys().next().cloned().unwrap_or_default();
    let wrong = || Fault::new(span, format!("not a `{name}` of Extended JSON"));
    if document.len() != 1 {
        return Err(wrong());
    }
    let inner = document.get(&name).unwrap_or(&Bson::Null);
    let text = || inner.as_str().ok_or_else(wrong);
    let fields =
        |count: usize| inner.as_document().filter(|fields| fields.len() == count).ok_or_else(wrong);
    let one = || match inner {
        Bson::Int32(1) => Ok(()),
        _ => Err(wrong()),
    };
    Ok(match name.as_str() {
        "$oid" => Bson::ObjectId(ObjectId::parse_str(text()?).map_err(|_| wrong())?),
        "$numberInt" => Bson::Int32(text()?.parse().map_err(|_| wrong())?),
        "$numberLong" => Bson::Int64(text()?.parse().map_err(|_| wrong())?),
        "$numberDouble" => Bson::Double(match text()? {
            "NaN" => f64::NAN,
            "Infinity" => f64::INFINITY,
            "-Infinity" => f64::NEG_INFINITY,
            digits if digits.contains(|digit: char| digit.is_ascii_digit()) => {
                digits.parse().map_err(|_| wrong())?
            }
            _ => return Err(wrong()),
        }),
        "$numberDecimal" => Bson::Decimal128(text()?.parse().map_err(|_| wrong())?),
        "$date" => Bson::DateTime(match inner {
            Bson::String(text) => {
                super::date::parse(text, super::date::Form::Date).map_err(|_| wrong())?
            }
            // Canonical: `{ "$date": { "$numberLong": "…" } }`, unwrapped already.
            Bson::Int64(millis) => DateTime::from_millis(*millis),
            Bson::Int32(millis) => DateTime::from_millis(i64::from(*millis)),
            _ => return Err(wrong()),
        }),
        "$binary" => {
            let fields = fields(2)?;
            let base64 = fields.get_str("base64").map_err(|_| wrong())?;
            let subtype = fields.get_str("subType").map_err(|_| wrong())?;
            let subtype = u8::from_str_radix(subtype, 16).map_err(|_| wrong())?;
            Bson::Binary(
                Binary::from_base64(base64, BinarySubtype::from(subtype)).map_err(|_| wrong())?,
            )
        }
        "$uuid" => Bson::Binary(bson::Uuid::parse_str(text()?).map_err(|_| wrong())?.into()),
        "$timestamp" => {
            let fields = fields(2)?;
            let part = |name: &str| match fields.get(name) {
                Some(Bson::Int32(part)) => u32::try_from(*part).map_err(|_| wrong()),
                Some(Bson::Int64(part)) => u32::try_from(*part).map_err(|_| wrong()),
                _ => Err(wrong()),
            };
            Bson::Timestamp(Timestamp { time: part("t")?, increment: part("i")? })
        }
        "$regularExpression" => {
            let fields = fields(2)?;
            let part = |name: &str| fields.get_str(name).map_err(|_| wrong()).map(str::to_owned);
            let mut options: Vec<char> = part("options")?.chars().collect();
            options.sort_unstable();
            let options: String = options.into_iter().collect();
            Bson::RegularExpression(Regex {
                pattern: part("pattern")?.try_into().map_err(|_| wrong())?,
                options: options.try_into().map_err(|_| wrong())?,
            })
        }
        "$minKey" => one().map(|()| Bson::MinKey)?,
        "$maxKey" => one().map(|()| Bson::MaxKey)?,
        "$symbol" => Bson::Symbol(text()?.to_owned()),
        "$code" => Bson::JavaScriptCode(text()?.to_owned()),
        // Deprecated in BSON, and nothing that a migration should still write.
        _ => {
            return Err(
                Fault::new(span, format!("`{name}` is not read here")).hint("write another type")
            );
        }
    })
}

#[cfg(test)]
#[expect(clippy::needless_raw_string_hashes, reason = "expect_test writes them so")]
mod tests {
    use crate::core::parse::mongosh::read_json;
    use crate::core::parse::mongosh::tests::shown;
    use bson::Document;
    use expect_test::{Expect, expect};

    fn check(text: &str, expected: &Expect) {
        expected.assert_eq(&shown(read_json(text)));
    }

    /// A value as the first field of a document that is inserted.
    fn check_value(value: &str, expected: &Expect) {
        let text = format!("[{{ \"insert\": \"a\", \"documents\": [{{ \"_id\": {value} }}] }}]");
        let shown = match read_json(&text) {
            Ok(statements) => {
                let body = &statements[0].step.commands[0].body;
                let body = Document::from_reader(&body[..]).expect("BSON");
                let documents = body.get_array("documents").expect("documents");
                let document = documents[0].as_document().expect("a document");
                format!("{:?}", document.get("_id").expect("a value"))
            }
            Err(problems) => problems[0].to_string().trim_start_matches(':').to_owned(),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn each_command_is_a_statement() {
        for (text, expected) in [
            ("[]", expect![[""]]),
            (
                r#"[{ "insert": "a", "documents": [{ "_id": 1 }] }, { "createIndexes": "a", "indexes": [{ "key": { "b": 1 }, "name": "b" }] }]"#,
                expect![[r#"
                    1 Write(Harmless) Database { "insert": "a", "documents": [{ "_id": 1 }] }
                    1 CreateIndexes Database { "createIndexes": "a", "indexes": [{ "key": { "b": 1 }, "name": "b" }] }
                "#]],
            ),
            (
                r#"[{ "aggregate": "a", "pipeline": [{ "$out": "b" }] }]"#,
                expect![[r#"
                1 Output(Harmless) Database { "aggregate": "a", "pipeline": [{ "$out": "b" }], "cursor": {} }
            "#]],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn what_is_no_list_of_commands_is_refused() {
        for (text, expected) in [
            (
                "",
                expect![[r#"
                1:1: not JSON: EOF while parsing a value; write `[ { "createIndexes": "products", … }, … ]`
            "#]],
            ),
            (
                "{}",
                expect![[r#"
                1:1: not a list of commands; write `[ { "createIndexes": "products", … }, … ]`
            "#]],
            ),
            (
                "[1]",
                expect![[r#"
                1:2: a command is a document; write `[ { "createIndexes": "products", … }, … ]`
            "#]],
            ),
            (
                "[{}]",
                expect![[r#"
                1:2: an empty command
            "#]],
            ),
            (
                r#"[{ "insert": "a", }]"#,
                expect![[r#"
                1:19: not JSON: key must be a string; write `[ { "createIndexes": "products", … }, … ]`
            "#]],
            ),
            (
                "[{ 'a': 1 }]",
                expect![[r#"
                1:4: not JSON: key must be a string; write `[ { "createIndexes": "products", … }, … ]`
            "#]],
            ),
            (
                "[// a
]",
                expect![[r#"
                    1:2: not JSON: expected value; write `[ { "createIndexes": "products", … }, … ]`
                "#]],
            ),
            (
                r#"[{ "a": 1 }] x"#,
                expect![[r#"
                1:14: not JSON: trailing characters; write `[ { "createIndexes": "products", … }, … ]`
            "#]],
            ),
            (
                r#"[{
 "a": 1,
 "a": 2 }]"#,
                expect![[r#"
                    3:2: `a` stands here twice; remove one of them
                "#]],
            ),
            (
                r#"[{ "a": "\ud800" }]"#,
                expect![[r#"
                1:9: half of a surrogate pair, which UTF-8 cannot hold
            "#]],
            ),
            (
                r#"[{ "__proto__": 1, "__proto__": 2 }]"#,
                expect![[r#"
                1:20: `__proto__` stands here twice; remove one of them
            "#]],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn commands_are_those_of_a_script() {
        for (text, expected) in [
            (
                r#"[{ "find": "a" }]"#,
                expect![[r#"
                1:2: `find` only reads, and a migration that only reads does nothing; remove it; to check the data write an `[[invariant]]` in migration.toml
            "#]],
            ),
            (
                r#"[{ "renameCollection": "a", "to": "b" }]"#,
                expect![[r#"
                1:2: `renameCollection` needs the name of the database, which a file does not know; write `db.<name>.renameCollection("<to>")` in a `.mongodb.js` file
            "#]],
            ),
            (
                r#"[{ "aggregate": "a", "pipeline": [] }]"#,
                expect![[r#"
                1:2: a pipeline that ends without `$merge` or `$out` only reads; end it with `$merge` or `$out`, or remove the statement
            "#]],
            ),
            (
                r#"[{ "createIndexes": "a", "indexes": [{ "key": { "a": 1 } }] }]"#,
                expect![[r#"
                1:2: an index without a name could not be settled after a crash; give each index a `name`
            "#]],
            ),
            (
                r#"[{ "insert": "a",
 "comment": 1 },
 { "ping": 1 }]"#,
                expect![[r#"
                    1:2: `comment` is set by the engine; remove it
                    3:2: `ping` only reads, and a migration that only reads does nothing; remove it; to check the data write an `[[invariant]]` in migration.toml
                "#]],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn values_are_those_of_extended_json() {
        for (text, expected) in [
            ("1", expect!["Int32(1)"]),
            ("-1", expect!["Int32(-1)"]),
            ("2147483648", expect!["Int64(2147483648)"]),
            ("1.0", expect!["Double(1.0)"]),
            ("-0", expect!["Double(-0.0)"]),
            ("1e3", expect!["Double(1000.0)"]),
            (r#""a""#, expect![[r#"String("a")"#]]),
            ("null", expect!["Null"]),
            ("[true, {}]", expect!["Array([Boolean(true), Document({})])"]),
            (
                r#"{ "$oid": "65a1b2c3d4e5f60718293a4b" }"#,
                expect![[r#"ObjectId("65a1b2c3d4e5f60718293a4b")"#]],
            ),
            (r#"{ "$numberInt": "7" }"#, expect!["Int32(7)"]),
            (r#"{ "$numberLong": "7" }"#, expect!["Int64(7)"]),
            (r#"{ "$numberDouble": "7" }"#, expect!["Double(7.0)"]),
            (r#"{ "$numberDouble": "NaN" }"#, expect!["Double(NaN)"]),
            (r#"{ "$numberDouble": "-Infinity" }"#, expect!["Double(-inf)"]),
            (
                r#"{ "$numberDecimal": "1.50" }"#,
                expect!["Decimal128(96000000000000000000000000003c30)"],
            ),
            (
                r#"{ "$date": "2024-01-31T00:00:00Z" }"#,
                expect!["DateTime(2024-01-31 0:00:00.0 +00:00:00)"],
            ),
            (
                r#"{ "$date": { "$numberLong": "-1" } }"#,
                expect!["DateTime(1969-12-31 23:59:59.999 +00:00:00)"],
            ),
            (
                r#"{ "$binary": { "base64": "aGk=", "subType": "80" } }"#,
                expect!["Binary { subtype: UserDefined(128), bytes: [104, 105] }"],
            ),
            (
                r#"{ "$uuid": "0188a5c4-7e2f-7000-8000-0123456789ab" }"#,
                expect![
                    "Binary { subtype: Uuid, bytes: [1, 136, 165, 196, 126, 47, 112, 0, 128, 0, 1, 35, 69, 103, 137, 171] }"
                ],
            ),
            (
                r#"{ "$timestamp": { "t": 4294967295, "i": 1 } }"#,
                expect!["Timestamp { time: 4294967295, increment: 1 }"],
            ),
            (
                r#"{ "$regularExpression": { "pattern": "^a", "options": "si" } }"#,
                expect![[r#"Regex { pattern: "^a", options: "is" }"#]],
            ),
            (r#"{ "$minKey": 1 }"#, expect!["MinKey"]),
            (r#"{ "$maxKey": 1 }"#, expect!["MaxKey"]),
            (r#"{ "$symbol": "a" }"#, expect![[r#"Symbol("a")"#]]),
            (r#"{ "$code": "x" }"#, expect![[r#"JavaScriptCode("x")"#]]),
            (
                r#"{ "$regex": "a", "$options": "i" }"#,
                expect![[r#"Document({"$regex": String("a"), "$options": String("i")})"#]],
            ),
            (r#"{ "b": 1, "1": 2 }"#, expect![[r#"Document({"b": Int32(1), "1": Int32(2)})"#]]),
        ] {
            check_value(text, &expected);
        }
    }

    #[test]
    fn values_that_extended_json_has_not_are_refused() {
        for (text, expected) in [
            (
                "9223372036854775808",
                expect![[r#"1:42: does not fit 64 bits; write `{ "$numberDecimal": "…" }`"#]],
            ),
            (r#"{ "$oid": "abc" }"#, expect!["1:42: not a `$oid` of Extended JSON"]),
            (r#"{ "$oid": 1 }"#, expect!["1:42: not a `$oid` of Extended JSON"]),
            (
                r#"{ "$oid": "65a1b2c3d4e5f60718293a4b", "x": 1 }"#,
                expect!["1:42: not a `$oid` of Extended JSON"],
            ),
            (r#"{ "$numberInt": "x" }"#, expect!["1:42: not a `$numberInt` of Extended JSON"]),
            (r#"{ "$numberInt": 1 }"#, expect!["1:42: not a `$numberInt` of Extended JSON"]),
            (r#"{ "$numberLong": "1.5" }"#, expect!["1:42: not a `$numberLong` of Extended JSON"]),
            (
                r#"{ "$numberDouble": "inf" }"#,
                expect!["1:42: not a `$numberDouble` of Extended JSON"],
            ),
            (
                r#"{ "$numberDouble": "1x" }"#,
                expect!["1:42: not a `$numberDouble` of Extended JSON"],
            ),
            (
                r#"{ "$numberDecimal": "x" }"#,
                expect!["1:42: not a `$numberDecimal` of Extended JSON"],
            ),
            (r#"{ "$date": "yesterday" }"#, expect!["1:42: not a `$date` of Extended JSON"]),
            (r#"{ "$date": null }"#, expect!["1:42: not a `$date` of Extended JSON"]),
            (
                r#"{ "$binary": { "base64": "?", "subType": "00" } }"#,
                expect!["1:42: not a `$binary` of Extended JSON"],
            ),
            (
                r#"{ "$binary": { "base64": "", "subType": "xyz" } }"#,
                expect!["1:42: not a `$binary` of Extended JSON"],
            ),
            (r#"{ "$binary": "x" }"#, expect!["1:42: not a `$binary` of Extended JSON"]),
            (r#"{ "$uuid": "x" }"#, expect!["1:42: not a `$uuid` of Extended JSON"]),
            (
                r#"{ "$timestamp": { "t": -1, "i": 1 } }"#,
                expect!["1:42: not a `$timestamp` of Extended JSON"],
            ),
            (r#"{ "$timestamp": 1 }"#, expect!["1:42: not a `$timestamp` of Extended JSON"]),
            (
                r#"{ "$regularExpression": { "pattern": "a" } }"#,
                expect!["1:42: not a `$regularExpression` of Extended JSON"],
            ),
            (r#"{ "$minKey": 2 }"#, expect!["1:42: not a `$minKey` of Extended JSON"]),
            (
                r#"{ "$undefined": true }"#,
                expect!["1:42: `$undefined` is not read here; write another type"],
            ),
            (r#"{ "$code": "x", "$scope": {} }"#, expect!["1:42: not a `$code` of Extended JSON"]),
            (
                r#"{ "$dbPointer": {} }"#,
                expect!["1:42: `$dbPointer` is not read here; write another type"],
            ),
        ] {
            check_value(text, &expected);
        }
    }
}
