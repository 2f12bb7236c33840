//! Methods that write documents, as commands.

use super::arguments::{Call, Options, Takes, check_option};
use super::command::{Draft, with};
use super::{At, Fault};
use crate::core::problem::nearest;
use bson::{Bson, Document, doc};

/// One insert command holds no more than this of documents, so that it stays
/// far below the 48 MB that a message may have.
const INSERT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// And no more documents than this; a server takes 100,000.
const INSERT_DOCUMENTS_MAX: usize = 50_000;

const INSERT: Options =
    &[("bypassDocumentValidation", Takes::Flag), ("writeConcern", Takes::Document)];

const INSERT_MANY: Options = &[
    ("ordered", Takes::Flag),
    ("bypassDocumentValidation", Takes::Flag),
    ("writeConcern", Takes::Document),
];

pub(super) fn insert_one(collection: &str, mut call: Call) -> Result<Draft, Fault> {
    call.takes(1, &["a document", "options"])?;
    let document = call.document(0, "a document")?;
    check_id(&document, || call.at_field(0, "_id"))?;
    let options = call.options(1, INSERT)?;
    Ok(Draft::new(call.span, with(doc! { "insert": collection, "documents": [document] }, options)))
}

pub(super) fn insert_many(collection: &str, mut call: Call) -> Result<Vec<Draft>, Fault> {
    call.takes(1, &["a list of documents", "options"])?;
    let list = call.list(0, "a list of documents")?;
    if list.is_empty() {
        return Err(
            Fault::new(call.at(0), "an empty list of documents").hint("remove the statement")
        );
    }
    let options = call.options(1, INSERT_MANY)?;
    for (element, document) in list.iter().enumerate() {
        match document {
            Bson::Document(document) => check_id(document, || call.at_element(0, element))?,
            _ => return Err(Fault::new(call.at_element(0, element), "not a document")),
        }
    }
    Ok(chunks(list)
        .into_iter()
        .map(|documents| {
            let body = doc! { "insert": collection, "documents": documents };
            Draft::new(call.span, with(body, options.clone()))
        })
        .collect())
}

/// mongosh puts a new ObjectId in the place of an `_id` of null; a command would store the null.
fn check_id(document: &Document, at: impl FnOnce() -> At) -> Result<(), Fault> {
    if document.get("_id") == Some(&Bson::Null) {
        return Err(Fault::new(at(), "mongosh does not store an `_id` of null")
            .hint("give it a value, or leave it out and let the server make one"));
    }
    Ok(())
}

/// The documents in order, cut so that each part fits one command.
fn chunks(list: Vec<Bson>) -> Vec<Vec<Bson>> {
    let mut chunks = Vec::new();
    let mut chunk = Vec::new();
    let mut bytes = 0;
    for document in list {
        let size = size(&document);
        let full = bytes + size > INSERT_BYTES_MAX || chunk.len() == INSERT_DOCUMENTS_MAX;
        if full && !chunk.is_empty() {
            chunks.push(std::mem::take(&mut chunk));
            bytes = 0;
        }
        bytes += size;
        chunk.push(document);
    }
    chunks.push(chunk);
    chunks
}

/// About the bytes that a value has as BSON.
fn size(value: &Bson) -> usize {
    match value {
        Bson::Document(document) => {
            5 + document.iter().map(|(key, value)| 2 + key.len() + size(value)).sum::<usize>()
        }
        // The keys of an array are its indexes in decimal.
        Bson::Array(list) => 5 + list.iter().map(|value| 8 + size(value)).sum::<usize>(),
        Bson::String(text) => 5 + text.len(),
        Bson::Binary(binary) => 5 + binary.bytes.len(),
        _ => 16,
    }
}

const UPDATE: Options = &[
    ("upsert", Takes::Flag),
    ("arrayFilters", Takes::List),
    ("collation", Takes::Document),
    ("hint", Takes::TextOrDocument),
    ("let", Takes::Document),
    ("bypassDocumentValidation", Takes::Flag),
    ("writeConcern", Takes::Document),
];

const REPLACE: Options = &[
    ("upsert", Takes::Flag),
    ("collation", Takes::Document),
    ("hint", Takes::TextOrDocument),
    ("let", Takes::Document),
    ("bypassDocumentValidation", Takes::Flag),
    ("writeConcern", Takes::Document),
];

const DELETE: Options = &[
    ("collation", Takes::Document),
    ("hint", Takes::TextOrDocument),
    ("let", Takes::Document),
    ("writeConcern", Takes::Document),
];

/// Options of one operation within a command; the others are the command's.
const PER_OPERATION: &[&str] = &["upsert", "arrayFilters", "collation", "hint"];

pub(super) fn update(collection: &str, mut call: Call) -> Result<Draft, Fault> {
    let replace = call.method == "replaceOne";
    let second = if replace { "a replacement" } else { "an update" };
    call.takes(2, &["a filter", second, "options"])?;
    let filter = call.document(0, "a filter, a document,")?;
    let change = call.take(1).unwrap_or(Bson::Null);
    if replace { check_replacement(&change) } else { check_update(&change) }.map_err(|change| {
        let Change { field, fault } = change;
        let at = field.map_or_else(|| call.at(1), |field| call.at_field(1, &field));
        Fault { at: at.0, ..fault }
    })?;
    let options = call.options(2, if replace { REPLACE } else { UPDATE })?;
    let mut operation = doc! { "q": filter, "u": change };
    if call.method == "updateMany" {
        operation.insert("multi", true);
    }
    let options = split(&mut operation, options);
    Ok(Draft::new(call.span, with(doc! { "update": collection, "updates": [operation] }, options)))
}

pub(super) fn delete(collection: &str, mut call: Call) -> Result<Draft, Fault> {
    call.takes(1, &["a filter", "options"])?;
    let filter = call.document(0, "a filter, a document,")?;
    let options = call.options(1, DELETE)?;
    let mut operation = doc! { "q": filter, "limit": i32::from(call.method == "deleteOne") };
    let options = split(&mut operation, options);
    Ok(Draft::new(call.span, with(doc! { "delete": collection, "deletes": [operation] }, options)))
}

/// Moves the options of the operation into it and gives back the command's.
fn split(operation: &mut Document, options: Document) -> Document {
    let mut rest = Document::new();
    for (name, value) in options {
        if PER_OPERATION.contains(&name.as_str()) {
            operation.insert(name, value);
        } else {
            rest.insert(name, value);
        }
    }
    rest
}

/// What is wrong with an update, and with which of its fields.
struct Change {
    field: Option<String>,
    fault: Fault,
}

impl Change {
    fn new(field: Option<&str>, fault: Fault) -> Change {
        Change { field: field.map(str::to_owned), fault }
    }
}

/// Operators, or a pipeline: at least one.
fn check_update(update: &Bson) -> Result<(), Change> {
    let hint = "write `{ $set: { … } }`, or `replaceOne` to replace the document";
    match update {
        Bson::Document(update) if update.is_empty() => {
            Err(Change::new(None, Fault::new(0..0, "an empty update").hint(hint)))
        }
        Bson::Document(update) => match update.keys().find(|key| !key.starts_with('$')) {
            Some(field) => Err(Change::new(
                Some(field),
                Fault::new(0..0, format!("`{field}` is not an operator of an update")).hint(hint),
            )),
            None => Ok(()),
        },
        Bson::Array(stages) if stages.is_empty() => {
            Err(Change::new(None, Fault::new(0..0, "an empty update").hint(hint)))
        }
        Bson::Array(stages) if stages.iter().all(|stage| matches!(stage, Bson::Document(_))) => {
            Ok(())
        }
        _ => Err(Change::new(
            None,
            Fault::new(0..0, "an update is a document of operators or a pipeline").hint(hint),
        )),
    }
}

fn check_replacement(replacement: &Bson) -> Result<(), Change> {
    match replacement {
        Bson::Document(document) => match document.keys().find(|key| key.starts_with('$')) {
            Some(field) => Err(Change::new(
                Some(field),
                Fault::new(0..0, format!("`{field}` is an operator, and a replacement has none"))
                    .hint("write `updateOne` to change fields"),
            )),
            None => Ok(()),
        },
        _ => Err(Change::new(None, Fault::new(0..0, "a replacement is a document"))),
    }
}

const BULK_WRITE: Options = &[
    ("ordered", Takes::Flag),
    ("bypassDocumentValidation", Takes::Flag),
    ("let", Takes::Document),
    ("writeConcern", Takes::Document),
];

const BULK_OPERATIONS: &[&str] =
    &["insertOne", "updateOne", "updateMany", "replaceOne", "deleteOne", "deleteMany"];

/// One command for each run of operations of the same kind.
pub(super) fn bulk_write(collection: &str, mut call: Call) -> Result<Vec<Draft>, Fault> {
    call.takes(1, &["a list of operations", "options"])?;
    let list = call.list(0, "a list of operations")?;
    if list.is_empty() {
        return Err(
            Fault::new(call.at(0), "an empty list of operations").hint("remove the statement")
        );
    }
    let options = call.options(1, BULK_WRITE)?;
    let mut runs: Vec<(&'static str, Vec<Bson>)> = Vec::new();
    for (element, operation) in list.into_iter().enumerate() {
        let (command, operation) = bulk_operation(operation)
            .map_err(|fault| Fault { at: call.at_element(0, element).0, ..fault })?;
        match runs.last_mut() {
            Some((last, run)) if *last == command => run.push(operation),
            _ => runs.push((command, vec![operation])),
        }
    }
    let mut drafts = Vec::new();
    for (command, run) in runs {
        let (field, parts) = match command {
            "insert" => ("documents", chunks(run)),
            "update" => ("updates", chunks(run)),
            _ => ("deletes", chunks(run)),
        };
        for part in parts {
            let mut body = doc! { command: collection, field: part };
            for (name, value) in &options {
                // As mongosh: each option goes where the command has it.
                let fits = match name.as_str() {
                    "let" => command != "insert",
                    "bypassDocumentValidation" => command != "delete",
                    _ => true,
                };
                if fits {
                    body.insert(name, value.clone());
                }
            }
            drafts.push(Draft::new(call.span, body));
        }
    }
    Ok(drafts)
}

/// The command it belongs to, and what stands in that command's list.
fn bulk_operation(operation: Bson) -> Result<(&'static str, Bson), Fault> {
    let fault = |message: String| Fault::new(0..0, message);
    let Bson::Document(operation) = operation else {
        return Err(fault("an operation is a document".to_owned())
            .hint("write `{ insertOne: { document: { … } } }`"));
    };
    let mut fields = operation.into_iter();
    let (Some((name, body)), None) = (fields.next(), fields.next()) else {
        return Err(fault("an operation has one field, which says what it does".to_owned())
            .hint("write `{ insertOne: { document: { … } } }`"));
    };
    if !BULK_OPERATIONS.contains(&name.as_str()) {
        let unknown = fault(format!("`{name}` is not an operation of `bulkWrite`"));
        return Err(match nearest(&name, BULK_OPERATIONS.iter().copied()) {
            Some(known) => unknown.hint(format!("did you mean `{known}`?")),
            None => unknown.hint(format!("write one of {}", BULK_OPERATIONS.join(", "))),
        });
    }
    let Bson::Document(mut body) = body else {
        return Err(fault(format!("`{name}` takes a document")));
    };
    let mut required = |field: &str| {
        body.remove(field).ok_or_else(|| {
            fault(format!("`{name}` needs `{field}`"))
                .hint(format!("write `{{ {name}: {{ {field}: … }} }}`"))
        })
    };
    let (command, mut statement, known): (_, _, Options) = match name.as_str() {
        "insertOne" => {
            let Bson::Document(document) = required("document")? else {
                return Err(fault("`document` takes a document".to_owned()));
            };
            check_id(&document, || (0..0).into())?;
            ("insert", document, &[])
        }
        "deleteOne" | "deleteMany" => {
            let filter = required("filter")?;
            let limit = i32::from(name == "deleteOne");
            ("delete", doc! { "q": filter, "limit": limit }, &DELETE[..2])
        }
        "replaceOne" => {
            let filter = required("filter")?;
            let replacement = required("replacement")?;
            check_replacement(&replacement).map_err(|change| change.fault)?;
            ("update", doc! { "q": filter, "u": replacement }, &REPLACE[..3])
        }
        _ => {
            let filter = required("filter")?;
            let update = required("update")?;
            check_update(&update).map_err(|change| change.fault)?;
            let mut statement = doc! { "q": filter, "u": update };
            if name == "updateMany" {
                statement.insert("multi", true);
            }
            ("update", statement, &UPDATE[..4])
        }
    };
    if !matches!(statement.get("q"), None | Some(Bson::Document(_))) && command != "insert" {
        return Err(fault("`filter` takes a document".to_owned()));
    }
    for (option, value) in &body {
        check_option(&name, option, value, known)?;
    }
    statement.extend(body);
    Ok((command, Bson::Document(statement)))
}

const AGGREGATE: Options = &[
    ("allowDiskUse", Takes::Flag),
    ("bypassDocumentValidation", Takes::Flag),
    ("hint", Takes::TextOrDocument),
    ("let", Takes::Document),
    ("collation", Takes::Document),
    ("readConcern", Takes::Document),
    ("writeConcern", Takes::Document),
    ("maxTimeMS", Takes::Number),
];

pub(super) fn aggregate(collection: &str, mut call: Call) -> Result<Draft, Fault> {
    call.takes(1, &["a pipeline", "options"])?;
    let pipeline = call.list(0, "a pipeline, a list,")?;
    let options = call.options(1, AGGREGATE)?;
    let body = doc! { "aggregate": collection, "pipeline": pipeline, "cursor": {} };
    Ok(Draft::new(call.span, with(body, options)))
}

#[cfg(test)]
#[expect(clippy::needless_raw_string_hashes, reason = "expect_test writes them so")]
mod tests {
    use crate::core::parse::mongosh::tests::check;
    use expect_test::expect;

    #[test]
    fn writes_become_commands() {
        for (text, expected) in [
            (
                "db.a.insertOne({ b: 1 })",
                expect![[r#"
                1 Write(Harmful) Database { "insert": "a", "documents": [{ "b": 1 }] }
            "#]],
            ),
            (
                "db.a.insertOne({ _id: 1 }, { bypassDocumentValidation: true, writeConcern: { w: 1 } })",
                expect![[r#"
                    1 Write(Harmless) Database { "insert": "a", "documents": [{ "_id": 1 }], "bypassDocumentValidation": true, "writeConcern": { "w": 1 } }
                "#]],
            ),
            (
                "db.a.insertMany([{ _id: 1 }, { _id: 2 }], { ordered: false })",
                expect![[r#"
                1 Write(Harmless) Database { "insert": "a", "documents": [{ "_id": 1 }, { "_id": 2 }], "ordered": false }
            "#]],
            ),
            (
                "db.a.updateOne({ _id: 1 }, { $set: { b: 1 } }, { upsert: true, hint: '_id_', let: { c: 1 }, collation: { locale: 'de' } })",
                expect![[r#"
                    1 Write(Harmless) Database { "update": "a", "updates": [{ "q": { "_id": 1 }, "u": { "$set": { "b": 1 } }, "upsert": true, "hint": "_id_", "collation": { "locale": "de" } }], "let": { "c": 1 } }
                "#]],
            ),
            (
                "db.a.updateMany({}, { $set: { 'b.$[c]': 1 } }, { arrayFilters: [{ c: 1 }] })",
                expect![[r#"
                    1 Write(Harmless) Database { "update": "a", "updates": [{ "q": {}, "u": { "$set": { "b.$[c]": 1 } }, "multi": true, "arrayFilters": [{ "c": 1 }] }] }
                "#]],
            ),
            (
                "db.a.updateMany({}, [{ $set: { b: '$c' } }])",
                expect![[r#"
                1 Write(Harmful) Database { "update": "a", "updates": [{ "q": {}, "u": [{ "$set": { "b": "$c" } }], "multi": true }] }
            "#]],
            ),
            (
                "db.a.replaceOne({ _id: 1 }, {})",
                expect![[r#"
                1 Write(Harmless) Database { "update": "a", "updates": [{ "q": { "_id": 1 }, "u": {} }] }
            "#]],
            ),
            (
                "db.a.deleteOne({ b: 1 }, { hint: { b: 1 } })",
                expect![[r#"
                1 Write(Harmful) Database { "delete": "a", "deletes": [{ "q": { "b": 1 }, "limit": 1, "hint": { "b": 1 } }] }
            "#]],
            ),
            (
                "db.a.deleteMany({})",
                expect![[r#"
                1 Write(Harmless) Database { "delete": "a", "deletes": [{ "q": {}, "limit": 0 }] }
            "#]],
            ),
            (
                "db.a.aggregate([{ $out: 'b' }], { allowDiskUse: true })",
                expect![[r#"
                1 Output(Harmless) Database { "aggregate": "a", "pipeline": [{ "$out": "b" }], "cursor": {}, "allowDiskUse": true }
            "#]],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn a_bulk_write_is_a_command_for_each_run_of_a_kind() {
        for (text, expected) in [
            (
                "db.a.bulkWrite([{ insertOne: { document: { _id: 1 } } }, { insertOne: { document: { _id: 2 } } }, { updateOne: { filter: { _id: 3 }, update: { $set: { b: 1 } }, upsert: true } }, { replaceOne: { filter: { _id: 4 }, replacement: {} } }, { deleteMany: { filter: {} } }, { insertOne: { document: {} } }], { ordered: false, let: { c: 1 }, bypassDocumentValidation: true })",
                expect![[r#"
                    1 Write(Harmful) Database { "insert": "a", "documents": [{ "_id": 1 }, { "_id": 2 }], "ordered": false, "bypassDocumentValidation": true } Database { "update": "a", "updates": [{ "q": { "_id": 3 }, "u": { "$set": { "b": 1 } }, "upsert": true }, { "q": { "_id": 4 }, "u": {} }], "ordered": false, "let": { "c": 1 }, "bypassDocumentValidation": true } Database { "delete": "a", "deletes": [{ "q": {}, "limit": 0 }], "ordered": false, "let": { "c": 1 } } Database { "insert": "a", "documents": [{}], "ordered": false, "bypassDocumentValidation": true }
                "#]],
            ),
            (
                "db.a.bulkWrite([{ updateMany: { filter: {}, update: [{ $set: { a: 1 } }], collation: { locale: 'de' } } }, { deleteOne: { filter: { _id: 1 }, hint: '_id_' } }])",
                expect![[r#"
                    1 Write(Harmful) Database { "update": "a", "updates": [{ "q": {}, "u": [{ "$set": { "a": 1 } }], "multi": true, "collation": { "locale": "de" } }] } Database { "delete": "a", "deletes": [{ "q": { "_id": 1 }, "limit": 1, "hint": "_id_" }] }
                "#]],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn an_update_has_operators_and_a_replacement_has_none() {
        for (text, expected) in [
            (
                "db.a.updateOne({}, {})",
                expect![[r#"
                1:20: an empty update; write `{ $set: { … } }`, or `replaceOne` to replace the document
            "#]],
            ),
            (
                "db.a.updateMany({}, [])",
                expect![[r#"
                1:21: an empty update; write `{ $set: { … } }`, or `replaceOne` to replace the document
            "#]],
            ),
            (
                "db.a.updateOne({}, { b: 1 })",
                expect![[r#"
                1:22: `b` is not an operator of an update; write `{ $set: { … } }`, or `replaceOne` to replace the document
            "#]],
            ),
            (
                "db.a.updateOne({}, { $set: { b: 1 }, c: 1 })",
                expect![[r#"
                1:38: `c` is not an operator of an update; write `{ $set: { … } }`, or `replaceOne` to replace the document
            "#]],
            ),
            (
                "db.a.updateOne({}, [1])",
                expect![[r#"
                1:20: an update is a document of operators or a pipeline; write `{ $set: { … } }`, or `replaceOne` to replace the document
            "#]],
            ),
            (
                "db.a.updateOne({}, 1)",
                expect![[r#"
                1:20: an update is a document of operators or a pipeline; write `{ $set: { … } }`, or `replaceOne` to replace the document
            "#]],
            ),
            (
                "db.a.replaceOne({}, { $set: { b: 1 } })",
                expect![[r#"
                1:23: `$set` is an operator, and a replacement has none; write `updateOne` to change fields
            "#]],
            ),
            (
                "db.a.replaceOne({}, [])",
                expect![[r#"
                1:21: a replacement is a document
            "#]],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn what_mongosh_would_store_otherwise_is_refused() {
        for (text, expected) in [
            (
                "db.a.insertOne({ a: 1, _id: null })",
                expect![[r#"
                1:24: mongosh does not store an `_id` of null; give it a value, or leave it out and let the server make one
            "#]],
            ),
            (
                "db.a.insertMany([{}, { _id: null }])",
                expect![[r#"
                1:22: mongosh does not store an `_id` of null; give it a value, or leave it out and let the server make one
            "#]],
            ),
            (
                "db.a.insertMany([])",
                expect![[r#"
                1:17: an empty list of documents; remove the statement
            "#]],
            ),
            (
                "db.a.insertMany([{}, 1])",
                expect![[r#"
                1:22: not a document
            "#]],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn what_is_no_operation_of_a_bulk_write_is_refused() {
        for (text, expected) in [
            (
                "db.a.bulkWrite([])",
                expect![[r#"
                1:16: an empty list of operations; remove the statement
            "#]],
            ),
            (
                "db.a.bulkWrite([1])",
                expect![[r#"
                1:17: an operation is a document; write `{ insertOne: { document: { … } } }`
            "#]],
            ),
            (
                "db.a.bulkWrite([{}])",
                expect![[r#"
                1:17: an operation has one field, which says what it does; write `{ insertOne: { document: { … } } }`
            "#]],
            ),
            (
                "db.a.bulkWrite([{ insertOne: {}, deleteOne: {} }])",
                expect![[r#"
                1:17: an operation has one field, which says what it does; write `{ insertOne: { document: { … } } }`
            "#]],
            ),
            (
                "db.a.bulkWrite([{ inserOne: {} }])",
                expect![[r#"
                1:17: `inserOne` is not an operation of `bulkWrite`; did you mean `insertOne`?
            "#]],
            ),
            (
                "db.a.bulkWrite([{ foo: {} }])",
                expect![[r#"
                1:17: `foo` is not an operation of `bulkWrite`; write one of insertOne, updateOne, updateMany, replaceOne, deleteOne, deleteMany
            "#]],
            ),
            (
                "db.a.bulkWrite([{ insertOne: 1 }])",
                expect![[r#"
                1:17: `insertOne` takes a document
            "#]],
            ),
            (
                "db.a.bulkWrite([{ insertOne: { a: 1 } }])",
                expect![[r#"
                1:17: `insertOne` needs `document`; write `{ insertOne: { document: … } }`
            "#]],
            ),
            (
                "db.a.bulkWrite([{ insertOne: { document: 1 } }])",
                expect![[r#"
                1:17: `document` takes a document
            "#]],
            ),
            (
                "db.a.bulkWrite([{ insertOne: { document: { _id: null } } }])",
                expect![[r#"
                1:17: mongosh does not store an `_id` of null; give it a value, or leave it out and let the server make one
            "#]],
            ),
            (
                "db.a.bulkWrite([{ updateOne: { filter: {} } }])",
                expect![[r#"
                1:17: `updateOne` needs `update`; write `{ updateOne: { update: … } }`
            "#]],
            ),
            (
                "db.a.bulkWrite([{ updateOne: { update: { $set: { a: 1 } } } }])",
                expect![[r#"
                1:17: `updateOne` needs `filter`; write `{ updateOne: { filter: … } }`
            "#]],
            ),
            (
                "db.a.bulkWrite([{ updateOne: { filter: 1, update: { $set: { a: 1 } } } }])",
                expect![[r#"
                    1:17: `filter` takes a document
                "#]],
            ),
            (
                "db.a.bulkWrite([{ updateOne: { filter: {}, update: { a: 1 } } }])",
                expect![[r#"
                    1:17: `a` is not an operator of an update; write `{ $set: { … } }`, or `replaceOne` to replace the document
                "#]],
            ),
            (
                "db.a.bulkWrite([{ replaceOne: { filter: {}, replacement: { $set: { a: 1 } } } }])",
                expect![[r#"
                    1:17: `$set` is an operator, and a replacement has none; write `updateOne` to change fields
                "#]],
            ),
            (
                "db.a.bulkWrite([
  { deleteOne: { filter: {} } },
  { deleteOne: { filter: {}, upsert: true } }])",
                expect![[r#"
                    3:3: `deleteOne` has no option `upsert`; remove it; if the server knows it, write `db.runCommand({ … })`
                "#]],
            ),
            (
                "db.a.bulkWrite([{ deleteMany: { filter: [] } }])",
                expect![[r#"
                1:17: `filter` takes a document
            "#]],
            ),
            (
                "db.a.bulkWrite([{ updateMany: { filter: {}, update: { $set: { a: 1 } }, upsrt: true } }])",
                expect![[r#"
                    1:17: `updateMany` has no option `upsrt`; did you mean `upsert`?
                "#]],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn a_large_insert_becomes_several_commands() {
        use crate::core::parse::mongosh::read;
        let count = |documents: String| {
            let statements = read(&format!("db.a.insertMany([{documents}])")).expect("is right");
            statements[0].step.commands.iter().map(|command| command.body.len()).collect::<Vec<_>>()
        };
        assert_eq!(count("{ _id: 1 },".repeat(50_000)).len(), 1);
        assert_eq!(count("{ _id: 1 },".repeat(50_001)).len(), 2);
        let document = format!("{{ a: \"{}\" }},", "x".repeat(1024 * 1024));
        let sizes = count(document.repeat(15));
        assert_eq!(sizes.len(), 3);
        assert!(sizes.iter().all(|size| *size < 9 * 1024 * 1024), "{sizes:?}");
    }
}
