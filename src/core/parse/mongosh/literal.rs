//! Values: what a literal of mongosh stores.

use super::number::{bson_number, js_number_text};
use super::{At, Fault, bare, construct};
use bson::{Bson, Document, Regex};
use oxc_ast::ast::{
    ArrayExpressionElement, BigIntLiteral, BinaryExpression, BinaryOperator, Expression,
    NumericLiteral, ObjectExpression, ObjectPropertyKind, PropertyKey, PropertyKind, UnaryOperator,
};
use oxc_span::{GetSpan, Span};
use std::collections::HashMap;

/// A value as JavaScript has it, where that matters: arithmetic takes its
/// numbers, but not the objects that `NumberLong` and its like make.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// A number of JavaScript.
    Number(f64),
    /// Anything else.
    Bson(Bson),
}

impl Value {
    /// As mongosh stores it.
    pub(super) fn into_bson(self) -> Bson {
        match self {
            Value::Number(number) => bson_number(number),
            Value::Bson(bson) => bson,
        }
    }
}

/// Reads values, remembers the constants of the file and collects what is
/// wrong with it.
#[derive(Default)]
pub(super) struct Reader {
    /// `None`: its value was refused, so its uses are not refused once more.
    constants: HashMap<String, Option<Value>>,
    pub(super) faults: Vec<Fault>,
}

impl Reader {
    pub(super) fn refuse(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    pub(super) fn fault(&mut self, at: impl Into<At>, message: impl Into<String>) {
        self.faults.push(Fault::new(at, message));
    }

    /// Gives a value a name for the rest of the file.
    pub(super) fn name(&mut self, name: &str, span: Span, value: Option<Value>) {
        if RESERVED.contains(&name) || construct::NAMES.contains(&name) {
            self.refuse(
                Fault::new(span, format!("`{name}` is a name of mongosh itself"))
                    .hint("choose another name"),
            );
        } else if self.constants.contains_key(name) {
            self.refuse(
                Fault::new(span, format!("`{name}` already has a value in this file"))
                    .hint("choose another name"),
            );
            return;
        }
        self.constants.insert(name.to_owned(), value);
    }

    /// A name whose value was refused.
    pub(super) fn poison(&mut self, name: &str) {
        self.constants.entry(name.to_owned()).or_insert(None);
    }

    /// The value of an expression; `None` if something in it was refused.
    pub(super) fn value(&mut self, expression: &Expression) -> Option<Value> {
        let span = expression.span();
        let bson = match bare(expression) {
            Expression::NullLiteral(_) => Bson::Null,
            Expression::BooleanLiteral(literal) => Bson::Boolean(literal.value),
            Expression::NumericLiteral(literal) => return Some(Value::Number(numeric(literal))),
            Expression::StringLiteral(literal) => {
                Bson::String(self.text(&literal.value, literal.lone_surrogates, span)?)
            }
            Expression::BigIntLiteral(literal) => self.big_int(literal, false)?,
            Expression::TemplateLiteral(template) => {
                let [element] = &template.quasis[..] else {
                    self.refuse(
                        Fault::new(span, "a substitution in a template is not read")
                            .hint("write the text out, or put it together with `+`"),
                    );
                    return None;
                };
                let cooked = element.value.cooked.as_deref().unwrap_or_default();
                Bson::String(self.text(cooked, element.lone_surrogates, span)?)
            }
            Expression::RegExpLiteral(literal) => {
                let flags = literal.regex.flags.to_string();
                match regex(&literal.regex.pattern.text, &flags, span) {
                    Ok(regex) => regex,
                    Err(fault) => {
                        self.refuse(fault);
                        return None;
                    }
                }
            }
            Expression::ArrayExpression(array) => {
                let mut all = Some(Vec::with_capacity(array.elements.len()));
                for element in &array.elements {
                    let value = match element {
                        ArrayExpressionElement::SpreadElement(spread) => {
                            self.spread(spread.span);
                            None
                        }
                        ArrayExpressionElement::Elision(hole) => {
                            self.refuse(
                                Fault::new(hole.span, "a hole in an array")
                                    .hint("write `null`, or remove the comma"),
                            );
                            None
                        }
                        element => self.value(element.to_expression()),
                    };
                    match (value, &mut all) {
                        (Some(value), Some(all)) => all.push(value.into_bson()),
                        _ => all = None,
                    }
                }
                Bson::Array(all?)
            }
            Expression::ObjectExpression(object) => Bson::Document(self.object(object)?),
            Expression::Identifier(identifier) => return self.identifier(&identifier.name, span),
            Expression::UnaryExpression(unary) => return self.unary(unary, span),
            Expression::BinaryExpression(binary) => return self.binary(binary),
            Expression::CallExpression(call) => {
                return construct::call(self, &call.callee, &call.arguments, call.span, false);
            }
            Expression::NewExpression(new) => {
                return construct::call(self, &new.callee, &new.arguments, new.span, true);
            }
            other => {
                self.refuse(not_a_literal(other));
                return None;
            }
        };
        Some(Value::Bson(bson))
    }

    fn text(&mut self, text: &str, lone_surrogates: bool, span: Span) -> Option<String> {
        if lone_surrogates {
            self.refuse(
                Fault::new(span, "half of a surrogate pair, which UTF-8 cannot hold")
                    .hint("write both halves, or the character itself"),
            );
            return None;
        }
        Some(text.to_owned())
    }

    fn spread(&mut self, span: Span) {
        self.refuse(
            Fault::new(span, "a spread is not read")
                .hint("write the elements out, or give the whole value a name with `const`"),
        );
    }

    /// The fields in the order in which JavaScript keeps them, because that is
    /// the order in which mongosh stores them: keys that are array indexes
    /// first, ascending; a key given twice keeps its first place and its last
    /// value.
    fn object(&mut self, object: &ObjectExpression) -> Option<Document> {
        let mut indexes: Vec<(u32, Bson)> = Vec::new();
        let mut fields = Document::new();
        let mut complete = true;
        for property in &object.properties {
            let field = match property {
                ObjectPropertyKind::SpreadProperty(spread) => {
                    self.spread(spread.span);
                    None
                }
                ObjectPropertyKind::ObjectProperty(property) => {
                    if property.method || property.kind != PropertyKind::Init {
                        self.refuse(function(property.span));
                        None
                    } else if property.shorthand {
                        self.refuse(
                            Fault::new(property.span, "a name alone is no field")
                                .hint("write `name: value`"),
                        );
                        None
                    } else {
                        let key = self.key(&property.key, property.computed);
                        let value = self.value(&property.value);
                        key.zip(value)
                    }
                }
            };
            let Some((key, value)) = field else {
                complete = false;
                continue;
            };
            let value = value.into_bson();
            match array_index(&key) {
                Some(index) => match indexes.iter_mut().find(|(other, _)| *other == index) {
                    Some((_, old)) => *old = value,
                    None => indexes.push((index, value)),
                },
                None => {
                    fields.insert(key, value);
                }
            }
        }
        if !complete {
            return None;
        }
        if indexes.is_empty() {
            return Some(fields);
        }
        indexes.sort_by_key(|(index, _)| *index);
        let indexes = indexes.into_iter().map(|(index, value)| (index.to_string(), value));
        Some(indexes.chain(fields).collect())
    }

    fn key(&mut self, key: &PropertyKey, computed: bool) -> Option<String> {
        let span = key.span();
        if computed {
            self.refuse(
                Fault::new(span, "a computed key is not read").hint("write the key itself"),
            );
            return None;
        }
        let name = match key {
            PropertyKey::StaticIdentifier(identifier) => identifier.name.to_string(),
            PropertyKey::StringLiteral(literal) => {
                self.text(&literal.value, literal.lone_surrogates, span)?
            }
            PropertyKey::NumericLiteral(literal) => js_number_text(numeric(literal)),
            _ => {
                self.refuse(
                    Fault::new(span, "a key that is neither a name nor a text")
                        .hint("write the key in quotes"),
                );
                return None;
            }
        };
        if name.contains('\0') {
            self.fault(span, "a key of BSON cannot hold a NUL");
            return None;
        }
        if name == "__proto__" {
            // In mongosh this sets the object's prototype and stores nothing.
            self.refuse(
                Fault::new(span, "`__proto__` is no field in JavaScript")
                    .hint("put the statement into a `.mongodb.json` file"),
            );
            return None;
        }
        Some(name)
    }

    fn identifier(&mut self, name: &str, span: Span) -> Option<Value> {
        if let Some(value) = self.constants.get(name) {
            return value.clone();
        }
        let fault = match name {
            "NaN" => return Some(Value::Number(f64::NAN)),
            "Infinity" => return Some(Value::Number(f64::INFINITY)),
            "MinKey" => return Some(Value::Bson(Bson::MinKey)),
            "MaxKey" => return Some(Value::Bson(Bson::MaxKey)),
            "undefined" => Fault::new(span, "`undefined` is not a value of MongoDB")
                .hint("leave the field out, or write `null`"),
            "db" | "sh" => Fault::new(span, format!("`{name}` is no value: the file is never run"))
                .hint("write the value out"),
            _ if construct::NAMES.contains(&name) => {
                Fault::new(span, format!("`{name}` alone is a function"))
                    .hint(format!("call it: `{name}(…)`"))
            }
            _ => {
                let fault = Fault::new(span, format!("`{name}` has no value in this file"));
                let known = self.constants.keys().map(String::as_str);
                match crate::core::problem::nearest(name, known) {
                    Some(known) => fault.hint(format!("did you mean `{known}`?")),
                    None => fault.hint(format!("write `const {name} = <literal>;` before it")),
                }
            }
        };
        self.refuse(fault);
        None
    }

    fn unary(&mut self, unary: &oxc_ast::ast::UnaryExpression, span: Span) -> Option<Value> {
        match (unary.operator, bare(&unary.argument)) {
            (UnaryOperator::UnaryNegation, Expression::BigIntLiteral(literal)) => {
                return Some(Value::Bson(self.big_int(literal, true)?));
            }
            (UnaryOperator::UnaryNegation | UnaryOperator::UnaryPlus, _) => {}
            _ => {
                self.refuse(
                    Fault::new(span, format!("`{}` is not read", unary.operator.as_str()))
                        .hint("write the value out"),
                );
                return None;
            }
        }
        match (self.value(&unary.argument)?, unary.operator) {
            // Of a NaN the sign bit would turn, in mongosh too, but not on every machine.
            (Value::Number(number), UnaryOperator::UnaryNegation) if number.is_nan() => {
                self.refuse(Fault::new(span, "a NaN has no sign").hint("write `NaN`"));
                None
            }
            (Value::Number(number), UnaryOperator::UnaryNegation) => Some(Value::Number(-number)),
            (Value::Number(number), _) => Some(Value::Number(number)),
            (Value::Bson(_), _) => {
                self.refuse(
                    Fault::new(span, "a sign before something that is not a plain number")
                        .hint("write the sign inside: `NumberLong(\"-1\")`"),
                );
                None
            }
        }
    }

    fn binary(&mut self, binary: &BinaryExpression) -> Option<Value> {
        let left = self.value(&binary.left);
        let right = self.value(&binary.right);
        let result = match (left?, binary.operator, right?) {
            (Value::Number(a), BinaryOperator::Addition, Value::Number(b)) => Value::Number(a + b),
            (Value::Number(a), BinaryOperator::Subtraction, Value::Number(b)) => {
                Value::Number(a - b)
            }
            (Value::Number(a), BinaryOperator::Multiplication, Value::Number(b)) => {
                Value::Number(a * b)
            }
            (Value::Number(a), BinaryOperator::Division, Value::Number(b)) => Value::Number(a / b),
            // JavaScript's `%` has the sign of the dividend, as Rust's.
            (Value::Number(a), BinaryOperator::Remainder, Value::Number(b)) => Value::Number(a % b),
            (
                Value::Bson(Bson::String(a)),
                BinaryOperator::Addition,
                Value::Bson(Bson::String(b)),
            ) => Value::Bson(Bson::String(a + &b)),
            (_, operator, _) => {
                let operator = operator.as_str();
                self.refuse(
                    Fault::new(binary.span, format!("`{operator}` is not read between these"))
                        .hint("only `+ - * / %` of plain numbers and `+` of texts are; write the value out"),
                );
                return None;
            }
        };
        if let Value::Number(number) = result
            && number.is_nan()
        {
            self.refuse(Fault::new(binary.span, "the result is not a number").hint("write `NaN`"));
            return None;
        }
        Some(result)
    }

    fn big_int(&mut self, literal: &BigIntLiteral, negative: bool) -> Option<Bson> {
        // The parser gives the digits in base 10.
        let digits = format!("{}{}", if negative { "-" } else { "" }, literal.value);
        if let Ok(number) = digits.parse() {
            return Some(Bson::Int64(number));
        }
        self.refuse(
            Fault::new(literal.span, "does not fit 64 bits").hint("write `NumberDecimal(\"…\")`"),
        );
        None
    }
}

/// A regular expression of JavaScript. Of its flags mongosh stores `i` and
/// `m`; it drops `s u v y d` and makes an `s` of `g`, all without a word.
pub(super) fn regex(pattern: &str, flags: &str, span: Span) -> Result<Bson, Fault> {
    if let Some(flag) = flags.chars().find(|flag| !matches!(flag, 'i' | 'm')) {
        return Err(Fault::new(
            span,
            format!("mongosh does not store the flag `{flag}` of a regular expression"),
        )
        .hint("write `BSONRegExp(\"pattern\", \"flags\")`; MongoDB knows i, m, s, x and u"));
    }
    bson_regex(pattern, flags, span)
}

/// A regular expression of MongoDB, its flags in order.
pub(super) fn bson_regex(pattern: &str, flags: &str, span: Span) -> Result<Bson, Fault> {
    let mut flags: Vec<char> = flags.chars().collect();
    flags.sort_unstable();
    let part = |text: String| {
        bson::raw::CString::try_from(text)
            .map_err(|_| Fault::new(span, "a regular expression cannot hold a NUL"))
    };
    Ok(Bson::RegularExpression(Regex {
        pattern: part(pattern.to_owned())?,
        options: part(flags.into_iter().collect())?,
    }))
}

/// Names that a constant may not take: the file would not mean the same in mongosh.
const RESERVED: &[&str] = &[
    "db",
    "sh",
    "rs",
    "sp",
    "NaN",
    "Infinity",
    "undefined",
    "MinKey",
    "MaxKey",
    "Math",
    "EJSON",
    "print",
    "printjson",
    "use",
    "show",
    "help",
    "load",
    "config",
    "process",
    "require",
];

fn numeric(literal: &NumericLiteral) -> f64 {
    literal.value
}

/// The key as an array index of JavaScript: canonical, and below 2³² - 1.
fn array_index(key: &str) -> Option<u32> {
    let digits = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || (key.len() > 1 && key.starts_with('0')) {
        return None;
    }
    key.parse().ok().filter(|index| *index < u32::MAX)
}

fn function(span: Span) -> Fault {
    let start = span.start as usize;
    Fault::new(start..start + 1, "a function is not read: the file is never run")
        .hint("write the value out, or use an operator of MongoDB such as `$expr`")
}

fn not_a_literal(expression: &Expression) -> Fault {
    let span = expression.span();
    match expression {
        Expression::ArrowFunctionExpression(_)
        | Expression::FunctionExpression(_)
        | Expression::ClassExpression(_) => function(span),
        Expression::AwaitExpression(_) => Fault::new(span, "`await` is not read")
            .hint("remove it: statements run one after the other anyway"),
        Expression::StaticMemberExpression(_) | Expression::ComputedMemberExpression(_) => {
            Fault::new(span, "a field of a value is not read: the file is never run")
                .hint("write the value out")
        }
        _ => Fault::new(span, "not a literal: the file is never run").hint("write the value out"),
    }
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
    fn a_number_is_an_int32_if_it_is_integral_and_fits() {
        for (text, expected) in [
            ("7", expect!["Int32(7)"]),
            ("5000000000", expect!["Double(5000000000.0)"]),
            ("-0", expect!["Double(-0.0)"]),
            ("1e3", expect!["Int32(1000)"]),
            ("1.5", expect!["Double(1.5)"]),
            ("0xff", expect!["Int32(255)"]),
            ("-(1)", expect!["Int32(-1)"]),
            ("+1", expect!["Int32(1)"]),
            ("1_000", expect!["Int32(1000)"]),
            ("2147483648", expect!["Double(2147483648.0)"]),
            ("NaN", expect!["Double(NaN)"]),
            ("-Infinity", expect!["Double(-inf)"]),
            ("60 * 60 * 24", expect!["Int32(86400)"]),
            ("7 / 2", expect!["Double(3.5)"]),
            ("-7 % 3", expect!["Int32(-1)"]),
            ("1 - 2 - 3", expect!["Int32(-4)"]),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn a_bigint_is_an_int64() {
        for (text, expected) in [
            ("5n", expect!["Int64(5)"]),
            ("-9223372036854775808n", expect!["Int64(-9223372036854775808)"]),
            ("0xffn", expect!["Int64(255)"]),
            (
                "9223372036854775808n",
                expect![[r#"1:1: does not fit 64 bits; write `NumberDecimal("…")`"#]],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn texts_are_those_of_javascript() {
        for (text, expected) in [
            (r"'a\tb'", expect![[r#"String("a\tb")"#]]),
            (
                "`a
'b'`",
                expect![[r#"String("a\n'b'")"#]],
            ),
            (r#""a" + `b` + 'c'"#, expect![[r#"String("abc")"#]]),
            (r"'\ud83d\ude00'", expect![[r#"String("😀")"#]]),
            (
                r"'\ud800'",
                expect![
                    "1:1: half of a surrogate pair, which UTF-8 cannot hold; write both halves, or the character itself"
                ],
            ),
            (
                "`a${1}`",
                expect![
                    "1:1: a substitution in a template is not read; write the text out, or put it together with `+`"
                ],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn fields_have_the_order_of_javascript() {
        for (text, expected) in [
            (
                "{ b: 1, 10: 2, a: 3, 2: 4 }",
                expect![[
                    r#"Document({"2": Int32(4), "10": Int32(2), "b": Int32(1), "a": Int32(3)})"#
                ]],
            ),
            ("{ a: 1, b: 2, a: 3 }", expect![[r#"Document({"a": Int32(3), "b": Int32(2)})"#]]),
            (
                "{ 1.5: 1, '01': 2, 1e21: 3 }",
                expect![[r#"Document({"1.5": Int32(1), "01": Int32(2), "1e+21": Int32(3)})"#]],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn what_is_no_field_is_refused() {
        for (text, expected) in [
            ("{ a }", expect!["1:3: a name alone is no field; write `name: value`"]),
            (
                "{ ...a }",
                expect![
                    "1:3: a spread is not read; write the elements out, or give the whole value a name with `const`"
                ],
            ),
            (
                "{ a() {} }",
                expect![
                    "1:3: a function is not read: the file is never run; write the value out, or use an operator of MongoDB such as `$expr`"
                ],
            ),
            (
                "{ get a() { return 1 } }",
                expect![
                    "1:3: a function is not read: the file is never run; write the value out, or use an operator of MongoDB such as `$expr`"
                ],
            ),
            ("{ [a]: 1 }", expect!["1:4: a computed key is not read; write the key itself"]),
            (
                "{ 1n: 1 }",
                expect!["1:3: a key that is neither a name nor a text; write the key in quotes"],
            ),
            (
                "{ __proto__: 1 }",
                expect![
                    "1:3: `__proto__` is no field in JavaScript; put the statement into a `.mongodb.json` file"
                ],
            ),
            (
                "{ '__proto__': 1 }",
                expect![
                    "1:3: `__proto__` is no field in JavaScript; put the statement into a `.mongodb.json` file"
                ],
            ),
            (r"{ 'a\0': 1 }", expect!["1:3: a key of BSON cannot hold a NUL"]),
            (
                r"{ '\ud800': 1 }",
                expect![
                    "1:3: half of a surrogate pair, which UTF-8 cannot hold; write both halves, or the character itself"
                ],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn what_is_no_element_is_refused() {
        for (text, expected) in [
            ("[1, , 2]", expect!["1:5: a hole in an array; write `null`, or remove the comma"]),
            (
                "[...a]",
                expect![
                    "1:2: a spread is not read; write the elements out, or give the whole value a name with `const`"
                ],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn what_is_no_literal_is_refused() {
        for (text, expected) in [
            (
                "() => 1",
                expect![
                    "1:1: a function is not read: the file is never run; write the value out, or use an operator of MongoDB such as `$expr`"
                ],
            ),
            (
                "function () {}",
                expect![
                    "1:1: a function is not read: the file is never run; write the value out, or use an operator of MongoDB such as `$expr`"
                ],
            ),
            (
                "class {}",
                expect![
                    "1:1: a function is not read: the file is never run; write the value out, or use an operator of MongoDB such as `$expr`"
                ],
            ),
            (
                "await x",
                expect![
                    "1:1: `await` is not read; remove it: statements run one after the other anyway"
                ],
            ),
            (
                "a.b",
                expect![
                    "1:1: a field of a value is not read: the file is never run; write the value out"
                ],
            ),
            (
                "a[0]",
                expect![
                    "1:1: a field of a value is not read: the file is never run; write the value out"
                ],
            ),
            (
                "a ? 1 : 2",
                expect!["1:1: not a literal: the file is never run; write the value out"],
            ),
            ("x = 1", expect!["1:1: not a literal: the file is never run; write the value out"]),
            (
                "undefined",
                expect![
                    "1:1: `undefined` is not a value of MongoDB; leave the field out, or write `null`"
                ],
            ),
            ("db", expect!["1:1: `db` is no value: the file is never run; write the value out"]),
            ("sh", expect!["1:1: `sh` is no value: the file is never run; write the value out"]),
            ("ISODate", expect!["1:1: `ISODate` alone is a function; call it: `ISODate(…)`"]),
            (
                "foo",
                expect![
                    "1:1: `foo` has no value in this file; write `const foo = <literal>;` before it"
                ],
            ),
            ("1, 2", expect!["1:1: not a literal: the file is never run; write the value out"]),
            (
                "new.target",
                expect![
                    "1:1: not JavaScript: Unexpected new.target expression; new.target is only allowed in constructors, functions, and class field initializers"
                ],
            ),
            ("`a` `b`", expect!["1:1: not a literal: the file is never run; write the value out"]),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn arithmetic_takes_plain_numbers_and_texts() {
        for (text, expected) in [
            (
                "'a' + 1",
                expect![
                    "1:1: `+` is not read between these; only `+ - * / %` of plain numbers and `+` of texts are; write the value out"
                ],
            ),
            (
                "1 + NumberLong(1)",
                expect![
                    "1:1: `+` is not read between these; only `+ - * / %` of plain numbers and `+` of texts are; write the value out"
                ],
            ),
            (
                "1 < 2",
                expect![
                    "1:1: `<` is not read between these; only `+ - * / %` of plain numbers and `+` of texts are; write the value out"
                ],
            ),
            (
                "2 ** 3",
                expect![
                    "1:1: `**` is not read between these; only `+ - * / %` of plain numbers and `+` of texts are; write the value out"
                ],
            ),
            (
                "-'a'",
                expect![[
                    r#"1:1: a sign before something that is not a plain number; write the sign inside: `NumberLong("-1")`"#
                ]],
            ),
            (
                "-NumberLong(1)",
                expect![[
                    r#"1:1: a sign before something that is not a plain number; write the sign inside: `NumberLong("-1")`"#
                ]],
            ),
            ("!true", expect!["1:1: `!` is not read; write the value out"]),
            ("typeof 1", expect!["1:1: `typeof` is not read; write the value out"]),
            ("-NaN", expect!["1:1: a NaN has no sign; write `NaN`"]),
            ("0 / 0", expect!["1:1: the result is not a number; write `NaN`"]),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn regular_expressions_keep_the_flags_that_mongosh_keeps() {
        for (text, expected) in [
            ("/^a/", expect![[r#"Regex { pattern: "^a", options: "" }"#]]),
            ("/a/mi", expect![[r#"Regex { pattern: "a", options: "im" }"#]]),
            (
                "/a/g",
                expect![[
                    r#"1:1: mongosh does not store the flag `g` of a regular expression; write `BSONRegExp("pattern", "flags")`; MongoDB knows i, m, s, x and u"#
                ]],
            ),
            (
                "/a/s",
                expect![[
                    r#"1:1: mongosh does not store the flag `s` of a regular expression; write `BSONRegExp("pattern", "flags")`; MongoDB knows i, m, s, x and u"#
                ]],
            ),
            (
                "/a/u",
                expect![[
                    r#"1:1: mongosh does not store the flag `u` of a regular expression; write `BSONRegExp("pattern", "flags")`; MongoDB knows i, m, s, x and u"#
                ]],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn a_name_that_was_refused_is_not_refused_again() {
        use crate::core::parse::mongosh::tests::check;
        check(
            "const a = undefined;\nconst b = a;\ndb.c.insertOne({ a: a, b: b, c: bb });\n",
            &expect![[r#"
                1:11: `undefined` is not a value of MongoDB; leave the field out, or write `null`
                3:33: `bb` has no value in this file; did you mean `b`?
            "#]],
        );
    }
}
