//! What matters about a command for running it safely, from the command alone:
//! `db.runCommand({ createIndexes: … })` is what `createIndex` is.

use super::command::Draft;
use crate::core::step::{CommandTarget, MongoKind, Repeat};
use bson::{Bson, Document};
use std::collections::HashSet;

/// The kind of a statement.
pub(super) fn of(drafts: &[Draft]) -> MongoKind {
    let name = |draft: &Draft| draft.body.keys().next().cloned().unwrap_or_default();
    let write = |name: &str| matches!(name, "insert" | "update" | "delete");
    match drafts {
        [] => MongoKind::Nothing,
        drafts if drafts.iter().all(|draft| write(&name(draft))) => {
            let operations: Vec<Operation> =
                drafts.iter().flat_map(|draft| operations(&draft.body)).collect();
            MongoKind::Write(repeat(&operations))
        }
        [draft] => single(draft, &name(draft)),
        _ => MongoKind::Other,
    }
}

fn single(draft: &Draft, name: &str) -> MongoKind {
    match (name, draft.on) {
        ("create", _) if draft.body.contains_key("viewOn") => MongoKind::CreateView,
        ("create", _) => MongoKind::CreateCollection,
        ("collMod", _) => MongoKind::CollMod,
        ("createIndexes", _) => MongoKind::CreateIndexes,
        ("dropIndexes", _) => MongoKind::DropIndexes,
        ("drop", _) => MongoKind::Drop,
        ("renameCollection", CommandTarget::Admin) => MongoKind::Rename,
        ("dropDatabase", _) => MongoKind::DropDatabase,
        ("aggregate", _) => MongoKind::Output(output(&draft.body)),
        _ => MongoKind::Other,
    }
}

/// One operation of a write, as far as doing it twice is concerned.
#[derive(Debug)]
struct Operation<'a> {
    /// The one document it is about, if the operation names its `_id`.
    id: Option<&'a Bson>,
    /// Whether doing this one twice in a row is doing it once.
    harmless: bool,
    is: Is,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Is {
    Insert,
    Update,
    Delete,
}

/// Operations that are each harmless are not so together: `a: 1 → 2` and then
/// `a: 0 → 1` moves a document further each time. They are if all insert, if
/// all delete, or if no two are about the same document.
fn repeat(operations: &[Operation]) -> Repeat {
    let all = |is: Is| operations.iter().all(|operation| operation.is == is);
    let mut ids = HashSet::new();
    let mut apart =
        || operations.iter().all(|operation| operation.id.is_some_and(|id| ids.insert(key(id))));
    let harmless = operations.iter().all(|operation| operation.harmless)
        && match operations {
            [] => false,
            [_] => true,
            _ => all(Is::Insert) || all(Is::Delete) || apart(),
        };
    if harmless { Repeat::Harmless } else { Repeat::Harmful }
}

/// An `_id` as the server compares it: numbers by value, whatever their type.
#[expect(
    clippy::cast_precision_loss,
    reason = "two that look equal are taken for one: the safe side"
)]
fn key(id: &Bson) -> String {
    match id {
        Bson::Int32(number) => format!("{:?}", Bson::Double(f64::from(*number))),
        Bson::Int64(number) => format!("{:?}", Bson::Double(*number as f64)),
        other => format!("{other:?}"),
    }
}

fn operations(body: &Document) -> Vec<Operation<'_>> {
    let Some((name, _)) = body.iter().next() else { return Vec::new() };
    let (list, read): (_, fn(&Document) -> Operation<'_>) = match name.as_str() {
        "insert" => ("documents", insert),
        "update" => ("updates", update),
        _ => ("deletes", delete),
    };
    let Ok(list) = body.get_array(list) else { return Vec::new() };
    list.iter().filter_map(Bson::as_document).map(read).collect()
}

/// Harmless with an `_id`: what is already there makes it fail as a duplicate,
/// which the store takes for done if the documents are equal.
fn insert(document: &Document) -> Operation<'_> {
    let id = document.get("_id");
    Operation { id, harmless: id.is_some(), is: Is::Insert }
}

/// Harmless for all documents of a filter: what is gone cannot go again. Of one document
/// only if the filter says which: else the second time takes another.
fn delete(statement: &Document) -> Operation<'_> {
    let id = statement.get_document("q").ok().and_then(filter_id);
    let many =
        matches!(statement.get("limit"), Some(Bson::Int32(0) | Bson::Int64(0) | Bson::Double(0.0)));
    Operation { id, harmless: many || id.is_some(), is: Is::Delete }
}

/// Harmless if the change leaves a changed document as it is, it is clear which documents
/// it changes (all of the filter, or the one of its `_id`), and an upsert can insert
/// only once: the filter is on nothing but `_id`.
fn update(statement: &Document) -> Operation<'_> {
    let flag = |name| statement.get_bool(name).unwrap_or(false);
    let filter = statement.get_document("q").ok();
    let id = filter.and_then(filter_id);
    let only_id = id.is_some() && filter.is_some_and(|filter| filter.len() == 1);
    let harmless = statement.get_document("u").is_ok_and(settles)
        && (flag("multi") || id.is_some())
        && (!flag("upsert") || only_id);
    Operation { id, harmless, is: Is::Update }
}

/// The `_id` of a filter that is on one `_id`.
fn filter_id(filter: &Document) -> Option<&Bson> {
    match filter.get("_id")? {
        Bson::RegularExpression(_) => None,
        Bson::Document(document) => match document.iter().next() {
            Some((operator, id)) if operator == "$eq" && document.len() == 1 => Some(id),
            Some((operator, _)) if operator.starts_with('$') => None,
            _ => filter.get("_id"),
        },
        id => Some(id),
    }
}

/// Whether an update leaves what it has changed as it is. A replacement does.
///
/// - `$set`, `$unset`, `$setOnInsert`: the same value, the same field.
/// - `$min`, `$max`: the value is at its bound.
/// - `$addToSet`, `$pull`, `$pullAll`: there already, gone already.
/// - `$rename`: the old name is gone, and a missing field is left alone.
/// - Not `$inc`, `$mul`, `$push`, `$pop`, `$bit`: they add up.
/// - Not `$currentDate`: another value each time.
/// - Not the position `$`: it is the first match, and what was changed may
///   match no longer, so the second time changes the next.
/// - Not a pipeline: it computes from what it finds.
pub(in crate::core::parse) fn settles(update: &Document) -> bool {
    let settling = |operator: &str| {
        matches!(
            operator,
            "$set"
                | "$unset"
                | "$setOnInsert"
                | "$min"
                | "$max"
                | "$addToSet"
                | "$pull"
                | "$pullAll"
                | "$rename"
        )
    };
    update.iter().all(|(name, change)| {
        if !name.starts_with('$') {
            return true;
        }
        let positional = || {
            change.as_document().is_none_or(|fields| {
                fields.keys().any(|path| path.split('.').any(|part| part == "$"))
            })
        };
        settling(name) && !positional()
    })
}

/// `$out` and `$merge` write again what they wrote, unless the pipeline reads what it
/// writes, is not the same twice, or says what to do with what is there already.
fn output(body: &Document) -> Repeat {
    let Ok(pipeline) = body.get_array("pipeline") else { return Repeat::Harmful };
    let Some((last, stages)) = pipeline.split_last() else { return Repeat::Harmful };
    let Some((stage, target)) = last.as_document().and_then(|stage| stage.iter().next()) else {
        return Repeat::Harmful;
    };
    let name = match target {
        Bson::String(name) => Some(name.as_str()),
        Bson::Document(target) if stage == "$out" => target.get_str("coll").ok(),
        Bson::Document(target) => match target.get("into") {
            Some(Bson::String(name)) => Some(name.as_str()),
            Some(Bson::Document(into)) => into.get_str("coll").ok(),
            _ => None,
        },
        _ => None,
    };
    let Some(name) = name else { return Repeat::Harmful };
    let source = body.iter().next().and_then(|(_, source)| source.as_str());
    let reads = source == Some(name) || stages.iter().any(|stage| mentions(stage, name));
    let settles = match target {
        Bson::Document(merge) if stage == "$merge" => {
            let matched = match merge.get("whenMatched") {
                None => true,
                Some(Bson::String(how)) => {
                    matches!(how.as_str(), "replace" | "keepExisting" | "merge")
                }
                Some(_) => false,
            };
            matched && (merge.contains_key("on") || !stages.iter().any(loses_id))
        }
        _ => stage == "$out" || !stages.iter().any(loses_id),
    };
    if settles && !reads && !stages.iter().any(varies) { Repeat::Harmless } else { Repeat::Harmful }
}

/// Whether a text that is exactly `name` stands anywhere in it: the `from` of a
/// `$lookup`, or a value that only looks so, which is the safe side.
fn mentions(value: &Bson, name: &str) -> bool {
    anywhere(value, &|_, value| value.as_str() == Some(name))
}

/// Whether it gives another result at each run.
fn varies(value: &Bson) -> bool {
    anywhere(value, &|key, value| {
        matches!(
            key,
            "$rand"
                | "$sample"
                | "$function"
                | "$accumulator"
                | "$currentOp"
                | "$indexStats"
                | "$collStats"
        ) || value.as_str().is_some_and(|text| {
            ["$$NOW", "$$CLUSTER_TIME"].iter().any(|variable| text.starts_with(variable))
        })
    })
}

/// Whether the stage may take the `_id` away, so that the server makes new
/// ones, which match nothing.
fn loses_id(stage: &Bson) -> bool {
    let Some((name, body)) = stage.as_document().and_then(|stage| stage.iter().next()) else {
        return true;
    };
    match name.as_str() {
        "$replaceRoot" | "$replaceWith" => true,
        "$project" => body.as_document().and_then(|fields| fields.get("_id")).is_some_and(|id| {
            matches!(id, Bson::Int32(0) | Bson::Int64(0) | Bson::Double(0.0) | Bson::Boolean(false))
                || id.as_str() == Some("$$REMOVE")
        }),
        "$unset" => body.as_str() == Some("_id") || mentions(body, "_id"),
        _ => anywhere(body, &|key, value| key == "_id" && value.as_str() == Some("$$REMOVE")),
    }
}

fn anywhere(value: &Bson, found: &impl Fn(&str, &Bson) -> bool) -> bool {
    match value {
        Bson::Document(fields) => {
            fields.iter().any(|(key, value)| found(key, value) || anywhere(value, found))
        }
        Bson::Array(list) => list.iter().any(|value| found("", value) || anywhere(value, found)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use crate::core::parse::mongosh::read;

    #[test]
    fn a_command_is_what_its_method_is() {
        for (kind, text) in [
            ("CreateIndexes", "db.a.createIndex({ b: 1 })"),
            (
                "CreateIndexes",
                "db.runCommand({ createIndexes: 'a', indexes: [{ key: { b: 1 }, name: 'b' }] })",
            ),
            ("CreateCollection", "db.createCollection('a')"),
            ("CreateCollection", "db.runCommand({ create: 'a' })"),
            ("CreateView", "db.createView('a', 'b', [])"),
            ("CreateView", "db.createCollection('a', { viewOn: 'b' })"),
            ("CreateView", "db.runCommand({ create: 'a', viewOn: 'b' })"),
            ("CollMod", "db.a.hideIndex('b')"),
            ("CollMod", "db.runCommand({ collMod: 'a' })"),
            ("DropIndexes", "db.a.dropIndex('b')"),
            ("DropIndexes", "db.runCommand({ dropIndexes: 'a', index: 'b' })"),
            ("Drop", "db.a.drop()"),
            ("Drop", "db.runCommand({ drop: 'a' })"),
            ("Rename", "db.a.renameCollection('b')"),
            ("DropDatabase", "db.dropDatabase()"),
            ("DropDatabase", "db.runCommand('dropDatabase')"),
            ("Other", "db.a.convertToCapped(1)"),
            ("Other", "sh.shardCollection('a.b', { c: 1 })"),
            ("Other", "db.adminCommand({ setParameter: 1 })"),
            ("Other", "db.runCommand({ findAndModify: 'a' })"),
            ("Write(Harmful)", "db.runCommand({ insert: 'a', documents: [{}] })"),
            ("Write(Harmless)", "db.runCommand({ insert: 'a', documents: [{ _id: 1 }] })"),
            ("Write(Harmful)", "db.runCommand({ insert: 'a' })"),
            ("Write(Harmless)", "db.runCommand({ delete: 'a', deletes: [{ q: {}, limit: 0 }] })"),
            ("Write(Harmful)", "db.runCommand({ delete: 'a', deletes: [{ q: {}, limit: 1 }] })"),
            (
                "Write(Harmless)",
                "db.runCommand({ update: 'a', updates: [{ q: { _id: 1 }, u: { $set: { b: 1 } } }] })",
            ),
        ] {
            let statements = read(text).unwrap_or_else(|problems| panic!("{problems:?}"));
            assert_eq!(format!("{:?}", statements[0].step.kind), kind, "{text}");
        }
    }

    #[test]
    fn an_insert_is_harmless_if_each_document_has_its_id() {
        for (kind, text) in [
            ("Write(Harmless)", "db.a.insertOne({ _id: 1 })"),
            ("Write(Harmful)", "db.a.insertOne({ b: 1 })"),
            ("Write(Harmless)", "db.a.insertMany([{ _id: 1 }, { _id: 2 }])"),
            ("Write(Harmful)", "db.a.insertMany([{ _id: 1 }, {}])"),
        ] {
            let statements = read(text).unwrap_or_else(|problems| panic!("{problems:?}"));
            assert_eq!(format!("{:?}", statements[0].step.kind), kind, "{text}");
        }
    }

    #[test]
    fn a_delete_is_harmless_of_all_or_of_one_id() {
        for (kind, text) in [
            ("Write(Harmless)", "db.a.deleteMany({ b: 1 })"),
            ("Write(Harmful)", "db.a.deleteOne({ b: 1 })"),
            ("Write(Harmless)", "db.a.deleteOne({ _id: 1 })"),
            ("Write(Harmless)", "db.a.deleteOne({ _id: { $eq: 1 }, b: 1 })"),
            ("Write(Harmful)", "db.a.deleteOne({ _id: { $gt: 1 } })"),
            ("Write(Harmful)", "db.a.deleteOne({ _id: { $in: [1] } })"),
            ("Write(Harmful)", "db.a.deleteOne({ _id: /a/ })"),
            ("Write(Harmless)", "db.a.deleteOne({ _id: { b: 1 } })"),
            ("Write(Harmful)", "db.a.deleteOne({ $and: [{ _id: 1 }] })"),
        ] {
            let statements = read(text).unwrap_or_else(|problems| panic!("{problems:?}"));
            assert_eq!(format!("{:?}", statements[0].step.kind), kind, "{text}");
        }
    }

    #[test]
    fn an_update_is_harmless_if_it_leaves_what_it_has_changed() {
        for (kind, text) in [
            ("Write(Harmless)", "db.a.updateMany({ b: 1 }, { $set: { b: 2 } })"),
            ("Write(Harmless)", "db.a.updateMany({ b: 1 }, { $unset: { b: 1 }, $set: { c: 1 } })"),
            ("Write(Harmless)", "db.a.updateMany({ b: 1 }, { $min: { b: 1 }, $max: { c: 1 } })"),
            ("Write(Harmless)", "db.a.updateMany({ b: 1 }, { $addToSet: { b: { $each: [1] } } })"),
            ("Write(Harmless)", "db.a.updateMany({ b: 1 }, { $pull: { b: 1 } })"),
            ("Write(Harmless)", "db.a.updateMany({ b: 1 }, { $pullAll: { b: [1] } })"),
            ("Write(Harmless)", "db.a.updateMany({ b: 1 }, { $rename: { b: 'c' } })"),
            ("Write(Harmless)", "db.a.updateMany({ b: 1 }, { $setOnInsert: { b: 1 } })"),
            (
                "Write(Harmless)",
                "db.a.updateMany({ b: 1 }, { $set: { 'b.$[].c': 1, 'd.$[e]': 2 } })",
            ),
            ("Write(Harmful)", "db.a.updateMany({ b: 1 }, { $set: { 'b.$.c': 1 } })"),
            ("Write(Harmful)", "db.a.updateMany({ b: 1 }, { $inc: { b: 1 } })"),
            ("Write(Harmful)", "db.a.updateMany({ b: 1 }, { $mul: { b: 1 } })"),
            ("Write(Harmful)", "db.a.updateMany({ b: 1 }, { $push: { b: 1 } })"),
            ("Write(Harmful)", "db.a.updateMany({ b: 1 }, { $pop: { b: 1 } })"),
            ("Write(Harmful)", "db.a.updateMany({ b: 1 }, { $bit: { b: { or: 1 } } })"),
            ("Write(Harmful)", "db.a.updateMany({ b: 1 }, { $currentDate: { b: true } })"),
            ("Write(Harmful)", "db.a.updateMany({ b: 1 }, { $set: { b: 1 }, $inc: { c: 1 } })"),
            ("Write(Harmful)", "db.a.updateMany({ b: 1 }, [{ $set: { b: 1 } }])"),
            ("Write(Harmful)", "db.a.updateMany({ b: 1 }, { $new: { b: 1 } })"),
        ] {
            let statements = read(text).unwrap_or_else(|problems| panic!("{problems:?}"));
            assert_eq!(format!("{:?}", statements[0].step.kind), kind, "{text}");
        }
    }

    #[test]
    fn an_update_of_one_document_is_harmless_if_the_filter_says_which() {
        for (kind, text) in [
            ("Write(Harmful)", "db.a.updateOne({ b: 1 }, { $set: { b: 2 } })"),
            ("Write(Harmless)", "db.a.updateOne({ _id: 1, b: 1 }, { $set: { b: 2 } })"),
            ("Write(Harmless)", "db.a.replaceOne({ _id: 1 }, { b: 1 })"),
            ("Write(Harmful)", "db.a.replaceOne({ b: 1 }, { b: 1 })"),
        ] {
            let statements = read(text).unwrap_or_else(|problems| panic!("{problems:?}"));
            assert_eq!(format!("{:?}", statements[0].step.kind), kind, "{text}");
        }
    }

    #[test]
    fn an_upsert_is_harmless_if_the_filter_is_an_id_and_nothing_else() {
        for (kind, text) in [
            ("Write(Harmless)", "db.a.updateOne({ _id: 1 }, { $set: { b: 2 } }, { upsert: true })"),
            (
                "Write(Harmful)",
                "db.a.updateOne({ _id: 1, b: 1 }, { $set: { b: 2 } }, { upsert: true })",
            ),
            ("Write(Harmful)", "db.a.updateMany({ b: 1 }, { $set: { b: 2 } }, { upsert: true })"),
            ("Write(Harmless)", "db.a.updateMany({ b: 1 }, { $set: { b: 2 } }, { upsert: false })"),
            ("Write(Harmless)", "db.a.replaceOne({ _id: 1 }, {}, { upsert: true })"),
            ("Write(Harmful)", "db.a.replaceOne({ _id: { $gt: 1 } }, {}, { upsert: true })"),
        ] {
            let statements = read(text).unwrap_or_else(|problems| panic!("{problems:?}"));
            assert_eq!(format!("{:?}", statements[0].step.kind), kind, "{text}");
        }
    }

    #[test]
    fn several_operations_are_harmless_if_none_works_on_what_another_wrote() {
        for (kind, text) in [
            (
                "Write(Harmless)",
                "db.a.bulkWrite([{ insertOne: { document: { _id: 1 } } }, { insertOne: { document: { _id: 2 } } }])",
            ),
            (
                "Write(Harmless)",
                "db.a.bulkWrite([{ deleteMany: { filter: { b: 1 } } }, { deleteOne: { filter: { _id: 1 } } }])",
            ),
            (
                "Write(Harmless)",
                "db.a.bulkWrite([{ insertOne: { document: { _id: 1 } } }, { deleteOne: { filter: { _id: 2 } } }, { updateOne: { filter: { _id: 3 }, update: { $set: { b: 1 } } } }])",
            ),
            (
                "Write(Harmful)",
                "db.a.bulkWrite([{ updateMany: { filter: { b: 1 }, update: { $set: { b: 2 } } } }, { updateMany: { filter: { b: 0 }, update: { $set: { b: 1 } } } }])",
            ),
            (
                "Write(Harmful)",
                "db.a.bulkWrite([{ updateOne: { filter: { _id: 1 }, update: { $rename: { b: 'c' } } } }, { updateOne: { filter: { _id: 1 }, update: { $set: { b: 1 } } } }])",
            ),
            (
                "Write(Harmful)",
                "db.a.bulkWrite([{ insertOne: { document: { _id: 1 } } }, { deleteOne: { filter: { _id: NumberLong(1) } } }])",
            ),
            (
                "Write(Harmful)",
                "db.a.bulkWrite([{ insertOne: { document: { _id: 1 } } }, { insertOne: { document: {} } }])",
            ),
        ] {
            let statements = read(text).unwrap_or_else(|problems| panic!("{problems:?}"));
            assert_eq!(format!("{:?}", statements[0].step.kind), kind, "{text}");
        }
    }

    #[test]
    fn an_output_is_harmless_if_it_writes_again_what_it_wrote() {
        for (kind, text) in [
            ("Output(Harmless)", "db.a.aggregate([{ $match: { b: 1 } }, { $out: 'c' }])"),
            ("Output(Harmless)", "db.a.aggregate([{ $out: { db: 'x', coll: 'c' } }])"),
            ("Output(Harmful)", "db.a.aggregate([{ $set: { b: '$c' } }, { $out: 'a' }])"),
            (
                "Output(Harmful)",
                "db.a.aggregate([{ $lookup: { from: 'c', as: 'd', pipeline: [] } }, { $out: 'c' }])",
            ),
            ("Output(Harmful)", "db.a.aggregate([{ $sample: { size: 1 } }, { $out: 'c' }])"),
            ("Output(Harmful)", "db.a.aggregate([{ $set: { b: '$$NOW' } }, { $out: 'c' }])"),
            ("Output(Harmful)", "db.a.aggregate([{ $set: { b: { $rand: {} } } }, { $out: 'c' }])"),
            ("Output(Harmless)", "db.a.aggregate([{ $merge: 'c' }])"),
            (
                "Output(Harmless)",
                "db.a.aggregate([{ $merge: { into: 'c', whenMatched: 'keepExisting' } }])",
            ),
            (
                "Output(Harmless)",
                "db.a.aggregate([{ $merge: { into: { db: 'x', coll: 'c' }, whenMatched: 'replace' } }])",
            ),
            ("Output(Harmful)", "db.a.aggregate([{ $merge: 'a' }])"),
            ("Output(Harmful)", "db.a.aggregate([{ $merge: { into: 'c', whenMatched: 'fail' } }])"),
            (
                "Output(Harmful)",
                "db.a.aggregate([{ $merge: { into: 'c', whenMatched: [{ $set: { n: { $add: ['$n', 1] } } }] } }])",
            ),
            (
                "Output(Harmful)",
                "db.a.aggregate([{ $project: { _id: 0, b: 1 } }, { $merge: 'c' }])",
            ),
            (
                "Output(Harmless)",
                "db.a.aggregate([{ $project: { _id: 0, b: 1 } }, { $merge: { into: 'c', on: 'b' } }])",
            ),
            ("Output(Harmless)", "db.a.aggregate([{ $project: { _id: 0, b: 1 } }, { $out: 'c' }])"),
            ("Output(Harmful)", "db.a.aggregate([{ $unset: ['_id'] }, { $merge: 'c' }])"),
            ("Output(Harmful)", "db.a.aggregate([{ $unset: '_id' }, { $merge: 'c' }])"),
            ("Output(Harmful)", "db.a.aggregate([{ $replaceWith: '$b' }, { $merge: 'c' }])"),
        ] {
            let statements = read(text).unwrap_or_else(|problems| panic!("{problems:?}"));
            assert_eq!(format!("{:?}", statements[0].step.kind), kind, "{text}");
        }
    }
}
