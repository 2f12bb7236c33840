//! The arguments of a method: how many, of what type, where each stands.

use super::{At, Fault, bare};
use crate::core::problem::nearest;
use bson::{Bson, Document};
use oxc_ast::ast::{Expression, ObjectPropertyKind, PropertyKey};
use oxc_span::{GetSpan, Span};

/// A method and what it was given.
pub(super) struct Call<'a, 'b> {
    pub(super) method: &'b str,
    pub(super) span: Span,
    pub(super) given: Vec<Given<'a, 'b>>,
}

/// One argument: where it stands and what it is.
pub(super) struct Given<'a, 'b> {
    pub(super) expression: &'b Expression<'a>,
    pub(super) value: Bson,
}

/// The kinds of value that an option takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Takes {
    Flag,
    Number,
    Text,
    Document,
    List,
    TextOrDocument,
    TextOrNumber,
}

impl Takes {
    fn fits(self, value: &Bson) -> bool {
        use Bson::{Array, Boolean, Double, Int32, Int64, String};
        match self {
            Takes::Flag => matches!(value, Boolean(_)),
            Takes::Number => matches!(value, Int32(_) | Int64(_) | Double(_)),
            Takes::Text => matches!(value, String(_)),
            Takes::Document => matches!(value, Bson::Document(_)),
            Takes::List => matches!(value, Array(_)),
            Takes::TextOrDocument => matches!(value, String(_) | Bson::Document(_)),
            Takes::TextOrNumber => matches!(value, String(_) | Int32(_) | Int64(_) | Double(_)),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Takes::Flag => "true or false",
            Takes::Number => "a number",
            Takes::Text => "a text",
            Takes::Document => "a document",
            Takes::List => "a list",
            Takes::TextOrDocument => "a text or a document",
            Takes::TextOrNumber => "a text or a number",
        }
    }
}

/// The options of a method.
pub(super) type Options = &'static [(&'static str, Takes)];

impl Call<'_, '_> {
    /// Refuses missing and surplus arguments; `what` names them all.
    pub(super) fn takes(&self, least: usize, what: &[&str]) -> Result<(), Fault> {
        let method = self.method;
        if let Some(surplus) = self.given.get(what.len()) {
            let message = match what {
                [] => format!("`{method}` takes no arguments"),
                _ => format!("`{method}` takes only {}", what.join(", ")),
            };
            return Err(Fault::new(surplus.expression.span(), message));
        }
        match what.get(self.given.len()) {
            Some(missing) if self.given.len() < least => {
                let end = self.span.end as usize;
                Err(Fault::new(end - 1..end, format!("`{method}` needs {missing}")))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn get(&self, index: usize) -> Option<&Bson> {
        self.given.get(index).map(|given| &given.value)
    }

    pub(super) fn at(&self, index: usize) -> At {
        self.given.get(index).map_or(self.span, |given| given.expression.span()).into()
    }

    /// The place of a field of an argument, or of the argument itself.
    pub(super) fn at_field(&self, index: usize, field: &str) -> At {
        let given = self.given.get(index);
        let span = given.and_then(|given| field_span(given.expression, field));
        span.map_or_else(|| self.at(index), At::from)
    }

    /// The place of an element of a list.
    pub(super) fn at_element(&self, index: usize, element: usize) -> At {
        let given = self.given.get(index).map(|given| bare(given.expression));
        match given {
            Some(Expression::ArrayExpression(list)) => list
                .elements
                .get(element)
                .map_or_else(|| self.at(index), |element| element.span().into()),
            _ => self.at(index),
        }
    }

    pub(super) fn take(&mut self, index: usize) -> Option<Bson> {
        self.given.get_mut(index).map(|given| std::mem::replace(&mut given.value, Bson::Null))
    }

    pub(super) fn text(&mut self, index: usize, what: &str) -> Result<String, Fault> {
        match self.take(index) {
            Some(Bson::String(text)) => Ok(text),
            _ => Err(Fault::new(self.at(index), format!("`{}` takes {what} here", self.method))),
        }
    }

    pub(super) fn document(&mut self, index: usize, what: &str) -> Result<Document, Fault> {
        match self.take(index) {
            Some(Bson::Document(document)) => Ok(document),
            _ => Err(Fault::new(self.at(index), format!("`{}` takes {what} here", self.method))),
        }
    }

    pub(super) fn list(&mut self, index: usize, what: &str) -> Result<Vec<Bson>, Fault> {
        match self.take(index) {
            Some(Bson::Array(list)) => Ok(list),
            _ => Err(Fault::new(self.at(index), format!("`{}` takes {what} here", self.method))),
        }
    }

    /// The options, which may be missing. mongosh drops an option that it does
    /// not know or whose value it does not like, without a word: `unqiue: true`
    /// makes an index that is not unique. So they are checked.
    pub(super) fn options(&mut self, index: usize, known: Options) -> Result<Document, Fault> {
        if self.given.len() <= index {
            return Ok(Document::new());
        }
        let options = self.document(index, "options, a document,")?;
        for (name, value) in &options {
            check_option(self.method, name, value, known)
                .map_err(|fault| Fault { at: self.at_field(index, name).0, ..fault })?;
        }
        Ok(options)
    }
}

/// Whether `method` has such an option. The place is the caller's to tell.
pub(super) fn check_option(
    method: &str,
    name: &str,
    value: &Bson,
    known: Options,
) -> Result<(), Fault> {
    let fault = |message: String| Fault::new(0..0, message);
    if let Some((_, takes)) = known.iter().find(|(option, _)| *option == name) {
        if takes.fits(value) {
            return Ok(());
        }
        return Err(fault(format!("`{name}` takes {}", takes.words())));
    }
    if name == "comment" {
        return Err(fault(
            "`comment` is set by the engine, which finds its own statements by it".to_owned(),
        )
        .hint("remove it"));
    }
    let unknown = fault(format!("`{method}` has no option `{name}`"));
    let names = known.iter().map(|(option, _)| *option);
    Err(match nearest(name, names) {
        Some(option) => unknown.hint(format!("did you mean `{option}`?")),
        None => unknown.hint("remove it; if the server knows it, write `db.runCommand({ … })`"),
    })
}

fn field_span(expression: &Expression, field: &str) -> Option<Span> {
    let Expression::ObjectExpression(object) = bare(expression) else { return None };
    object.properties.iter().find_map(|property| match property {
        ObjectPropertyKind::ObjectProperty(property) => match &property.key {
            PropertyKey::StaticIdentifier(key) if key.name == field => Some(property.key.span()),
            PropertyKey::StringLiteral(key) if key.value == field => Some(property.key.span()),
            _ => None,
        },
        ObjectPropertyKind::SpreadProperty(_) => None,
    })
}

#[cfg(test)]
#[expect(clippy::needless_raw_string_hashes, reason = "expect_test writes them so")]
mod tests {
    use crate::core::parse::mongosh::tests::check;
    use expect_test::expect;

    #[test]
    fn missing_and_surplus_arguments_are_refused() {
        for (text, expected) in [
            (
                "db.a.insertOne()",
                expect![[r#"
                1:16: `insertOne` needs a document
            "#]],
            ),
            (
                "db.a.updateOne({})",
                expect![[r#"
                1:18: `updateOne` needs an update
            "#]],
            ),
            (
                "db.a.updateOne(
  {}
)",
                expect![[r#"
                    3:1: `updateOne` needs an update
                "#]],
            ),
            (
                "db.a.insertOne({}, {}, 1)",
                expect![[r#"
                1:24: `insertOne` takes only a document, options
            "#]],
            ),
            (
                "db.createView('a', 'b')",
                expect![[r#"
                1:23: `createView` needs a pipeline
            "#]],
            ),
            (
                "db.a.deleteMany()",
                expect![[r#"
                1:17: `deleteMany` needs a filter
            "#]],
            ),
            (
                "db.a.createIndex()",
                expect![[r#"
                1:18: `createIndex` needs the keys
            "#]],
            ),
            (
                "db.runCommand()",
                expect![[r#"
                1:15: `runCommand` needs a command
            "#]],
            ),
            (
                "db.runCommand({ a: 1 }, {})",
                expect![[r#"
                1:25: `runCommand` takes only a command
            "#]],
            ),
            (
                "db.dropDatabase(1, 2)",
                expect![[r#"
                1:20: `dropDatabase` takes only options
            "#]],
            ),
            (
                "sh.shardCollection('a.b')",
                expect![[r#"
                1:25: `shardCollection` needs a key
            "#]],
            ),
            (
                "db.a.replaceOne({})",
                expect![[r#"
                1:19: `replaceOne` needs a replacement
            "#]],
            ),
            (
                "db.a.convertToCapped()",
                expect![[r#"
                1:22: `convertToCapped` needs a size in bytes
            "#]],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn arguments_of_another_type_are_refused() {
        for (text, expected) in [
            (
                "db.a.insertOne([])",
                expect![[r#"
                    1:16: `insertOne` takes a document here
                "#]],
            ),
            (
                "db.a.insertMany({})",
                expect![[r#"
                    1:17: `insertMany` takes a list of documents here
                "#]],
            ),
            (
                "db.a.updateOne(1, {})",
                expect![[r#"
                    1:16: `updateOne` takes a filter, a document, here
                "#]],
            ),
            (
                "db.createCollection({})",
                expect![[r#"
                    1:21: `createCollection` takes the collection's name, a text, here
                "#]],
            ),
            (
                "db.createView('a', 1, [])",
                expect![[r#"
                    1:20: `createView` takes the source, a text, here
                "#]],
            ),
            (
                "db.createView('a', 'b', {})",
                expect![[r#"
                    1:25: `createView` takes the pipeline, a list, here
                "#]],
            ),
            (
                "db.a.aggregate({ $out: 'b' })",
                expect![[r#"
                    1:16: `aggregate` takes a pipeline, a list, here
                "#]],
            ),
            (
                "db.a.insertOne({}, 1)",
                expect![[r#"
                    1:20: `insertOne` takes options, a document, here
                "#]],
            ),
            (
                "db.a.insertOne(...a)",
                expect![[r#"
                1:16: a spread is not read; write the values out
            "#]],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn options_that_mongosh_would_drop_are_refused() {
        for (text, expected) in [
            (
                "db.a.createIndex({ a: 1 }, { unqiue: true })",
                expect![[r#"
                1:30: `createIndex` has no option `unqiue`; did you mean `unique`?
            "#]],
            ),
            (
                "db.a.updateOne({}, { $set: { a: 1 } }, { upsert: 1 })",
                expect![[r#"
                1:42: `upsert` takes true or false
            "#]],
            ),
            (
                "db.a.updateOne({}, { $set: { a: 1 } }, { 'multi': true })",
                expect![[r#"
                1:42: `updateOne` has no option `multi`; remove it; if the server knows it, write `db.runCommand({ … })`
            "#]],
            ),
            (
                "db.a.insertOne({}, { comment: 'x' })",
                expect![[r#"
                1:22: `comment` is set by the engine, which finds its own statements by it; remove it
            "#]],
            ),
            (
                "const o = { upsrt: true };
db.a.updateOne({}, { $set: { a: 1 } }, o)",
                expect![[r#"
                    2:40: `updateOne` has no option `upsrt`; did you mean `upsert`?
                "#]],
            ),
            (
                "db.createCollection('a', { encryptedFields: {} })",
                expect![[r#"
                1:28: `createCollection` has no option `encryptedFields`; remove it; if the server knows it, write `db.runCommand({ … })`
            "#]],
            ),
            (
                "db.createCollection('a', { capped: 1, size: 1 })",
                expect![[r#"
                1:28: `capped` takes true or false
            "#]],
            ),
            (
                "db.createCollection('a', { size: 'x' })",
                expect![[r#"
                1:28: `size` takes a number
            "#]],
            ),
            (
                "db.createCollection('a', { validationLevel: 1 })",
                expect![[r#"
                1:28: `validationLevel` takes a text
            "#]],
            ),
            (
                "db.createCollection('a', { validator: [] })",
                expect![[r#"
                1:28: `validator` takes a document
            "#]],
            ),
            (
                "db.createCollection('a', { pipeline: {} })",
                expect![[r#"
                1:28: `pipeline` takes a list
            "#]],
            ),
            (
                "db.createCollection('a', { expireAfterSeconds: {} })",
                expect![[r#"
                1:28: `expireAfterSeconds` takes a text or a number
            "#]],
            ),
            (
                "db.a.deleteOne({}, { hint: 1 })",
                expect![[r#"
                1:22: `hint` takes a text or a document
            "#]],
            ),
            (
                "db.a.deleteOne({}, { arrayFilters: [] })",
                expect![[r#"
                1:22: `deleteOne` has no option `arrayFilters`; remove it; if the server knows it, write `db.runCommand({ … })`
            "#]],
            ),
            (
                "db.a.aggregate([], { explain: true })",
                expect![[r#"
                1:22: `aggregate` has no option `explain`; remove it; if the server knows it, write `db.runCommand({ … })`
            "#]],
            ),
            (
                "db.a.replaceOne({}, {}, { arrayFilters: [] })",
                expect![[r#"
                1:27: `replaceOne` has no option `arrayFilters`; remove it; if the server knows it, write `db.runCommand({ … })`
            "#]],
            ),
        ] {
            check(text, &expected);
        }
    }
}
