//! Command documents: what may be sent, whoever wrote them, a method or
//! `runCommand`.

use super::arguments::Call;
use super::{At, Fault, kind};
use crate::core::problem::nearest;
use crate::core::step::{Command, CommandTarget, MongoKind};
use bson::{Bson, Document, doc};

/// A command before it is checked and becomes bytes.
pub(super) struct Draft {
    pub(super) on: CommandTarget,
    pub(super) body: Document,
    /// Where to point when the command as a whole is wrong.
    pub(super) at: At,
}

impl Draft {
    pub(super) fn new(at: impl Into<At>, body: Document) -> Draft {
        Draft { on: CommandTarget::Database, body, at: at.into() }
    }
}

/// `db.runCommand(command)` and `db.adminCommand(command)`.
pub(super) fn run(mut call: Call) -> Result<Draft, Fault> {
    call.takes(1, &["a command"])?;
    let at = call.at(0);
    let body = match call.take(0) {
        Some(Bson::Document(body)) => body,
        Some(Bson::String(name)) if !name.contains('\0') => doc! { name: 1 },
        _ => {
            let message = format!("`{}` takes a command here, a document or a name", call.method);
            return Err(Fault::new(at, message));
        }
    };
    let on =
        if call.method == "adminCommand" { CommandTarget::Admin } else { CommandTarget::Database };
    let body = written(body).map_err(|fault| Fault { at: at.0.clone(), ..fault })?;
    Ok(Draft { on, body, at })
}

/// A command as somebody wrote it, made whole, or why it is refused. The place
/// is the caller's to tell.
pub(super) fn written(mut body: Document) -> Result<Document, Fault> {
    let Some(name) = body.keys().next().cloned() else {
        return Err(Fault::new(0..0, "an empty command"));
    };
    if let Some((_, why, hint)) = REFUSED.iter().find(|(refused, ..)| *refused == name) {
        return Err(Fault::new(0..0, format!("`{name}` {why}")).hint(*hint));
    }
    if READS.contains(&name.as_str()) {
        let message = format!("`{name}` only reads, and a migration that only reads does nothing");
        return Err(Fault::new(0..0, message)
            .hint("remove it; to check the data write an `[[invariant]]` in migration.toml"));
    }
    if let Some(field) = body.keys().find(|field| SESSION_FIELDS.contains(&field.as_str())) {
        return Err(Fault::new(0..0, format!("`{field}` is set by the engine")).hint("remove it"));
    }
    if name == "aggregate" && !body.contains_key("cursor") {
        body.insert("cursor", Document::new());
    }
    if let Some(known) = misspelled(&name) {
        return Err(Fault::new(0..0, format!("there is no command `{name}`"))
            .hint(format!("did you mean `{known}`?")));
    }
    Ok(body)
}

/// Commands that would break what the engine does, and what to write instead.
const REFUSED: &[(&str, &str, &str)] = &[
    (
        "renameCollection",
        "needs the name of the database, which a file does not know",
        "write `db.<name>.renameCollection(\"<to>\")` in a `.mongodb.js` file",
    ),
    ("commitTransaction", "would end the engine's own transaction", "remove it"),
    ("abortTransaction", "would end the engine's own transaction", "remove it"),
    ("endSessions", "would end the engine's own session", "remove it"),
    ("killAllSessions", "would end the engine's own session", "remove it"),
    ("logout", "would end the engine's own session", "remove it"),
    ("shutdown", "would stop the server in the middle of a migration", "remove it"),
    ("eval", "is not known to any server since 4.2", "write the statements out"),
];

const READS: &[&str] = &[
    "find",
    "count",
    "distinct",
    "ping",
    "hello",
    "isMaster",
    "ismaster",
    "buildInfo",
    "buildinfo",
    "listCollections",
    "listIndexes",
    "listDatabases",
    "listCommands",
    "dbStats",
    "collStats",
    "serverStatus",
    "explain",
    "getMore",
    "dbHash",
    "dataSize",
    "connectionStatus",
    "getParameter",
    "currentOp",
    "whatsmyuri",
    "top",
    "hostInfo",
    "getLog",
    "replSetGetStatus",
    "usersInfo",
    "rolesInfo",
];

/// Fields of a command that belong to the session or that the engine sets.
const SESSION_FIELDS: &[&str] = &[
    "comment",
    "lsid",
    "txnNumber",
    "stmtId",
    "stmtIds",
    "startTransaction",
    "autocommit",
    "$db",
    "$clusterTime",
    "$readPreference",
    "apiVersion",
    "apiStrict",
    "apiDeprecationErrors",
];

/// Commands that are often written; only to say what was meant. Any other
/// command is sent as it is.
const OFTEN: &[&str] = &[
    "create",
    "collMod",
    "createIndexes",
    "dropIndexes",
    "drop",
    "insert",
    "update",
    "delete",
    "aggregate",
    "findAndModify",
    "convertToCapped",
    "setFeatureCompatibilityVersion",
    "shardCollection",
    "enableSharding",
    "createUser",
    "updateUser",
    "dropUser",
    "createRole",
    "dropDatabase",
];

/// Only what differs by case or by one swapped or missing letter, because there are
/// more commands than this file knows.
fn misspelled(name: &str) -> Option<&'static str> {
    if OFTEN.contains(&name) {
        return None;
    }
    let known = nearest(name, OFTEN.iter().copied())?;
    let letters = |text: &str| {
        let mut letters: Vec<char> = text.to_lowercase().chars().collect();
        letters.sort_unstable();
        letters
    };
    (letters(name) == letters(known)).then_some(known)
}

/// What no command may be, by whatever way it was written.
fn check(draft: &Draft) -> Result<(), Fault> {
    let fault = |message: &str| Fault::new(draft.at.0.clone(), message);
    let body = &draft.body;
    match body.keys().next().map(String::as_str) {
        Some("aggregate") => {
            let Ok(pipeline) = body.get_array("pipeline") else {
                return Err(fault("`aggregate` needs a pipeline, a list"));
            };
            if body.contains_key("explain") {
                return Err(fault("`explain` only reads").hint("remove it"));
            }
            let writes = pipeline.last().and_then(Bson::as_document).is_some_and(|stage| {
                stage.keys().next().is_some_and(|name| name == "$merge" || name == "$out")
            });
            if !writes {
                return Err(fault("a pipeline that ends without `$merge` or `$out` only reads")
                    .hint("end it with `$merge` or `$out`, or remove the statement"));
            }
        }
        Some("createIndexes") => {
            let Ok(indexes) = body.get_array("indexes") else {
                return Err(fault("`createIndexes` needs `indexes`, a list"));
            };
            let named = |index: &Bson| {
                let name = index.as_document().and_then(|index| index.get_str("name").ok());
                name.is_some_and(|name| !name.is_empty())
            };
            if indexes.is_empty() || !indexes.iter().all(named) {
                return Err(fault("an index without a name could not be settled after a crash")
                    .hint("give each index a `name`"));
            }
        }
        _ => {}
    }
    Ok(())
}

/// The commands of one statement as bytes, and what matters about them.
pub(super) fn finish(drafts: Vec<Draft>) -> Result<(Vec<Command>, MongoKind), Fault> {
    for draft in &drafts {
        check(draft)?;
    }
    let kind = kind::of(&drafts);
    let mut commands = Vec::with_capacity(drafts.len());
    for draft in drafts {
        match draft.body.to_vec() {
            Ok(body) => commands.push(Command { on: draft.on, body }),
            Err(error) => {
                let message = format!("cannot be written as BSON: {error}");
                return Err(Fault::new(draft.at, message));
            }
        }
    }
    Ok((commands, kind))
}

/// The fields of both; those of `more` behind.
pub(super) fn with(mut body: Document, more: Document) -> Document {
    body.extend(more);
    body
}

#[cfg(test)]
#[expect(clippy::needless_raw_string_hashes, reason = "expect_test writes them so")]
mod tests {
    use crate::core::parse::mongosh::tests::check;
    use expect_test::expect;

    #[test]
    fn commands_are_sent_as_they_are() {
        for (text, expected) in [
            (
                "db.runCommand({ collMod: 'a', validationLevel: 'off' })",
                expect![[r#"
                1 CollMod Database { "collMod": "a", "validationLevel": "off" }
            "#]],
            ),
            (
                "db.runCommand({ insert: 'a', documents: [{ _id: 1 }], writeConcern: { w: 1 } })",
                expect![[r#"
                    1 Write(Harmless) Database { "insert": "a", "documents": [{ "_id": 1 }], "writeConcern": { "w": 1 } }
                "#]],
            ),
            (
                "db.runCommand({ findAndModify: 'a', query: {}, remove: true })",
                expect![[r#"
                1 Other Database { "findAndModify": "a", "query": {}, "remove": true }
            "#]],
            ),
            (
                "db.runCommand('dropAllRolesFromDatabase')",
                expect![[r#"
                1 Other Database { "dropAllRolesFromDatabase": 1 }
            "#]],
            ),
            (
                "db.adminCommand({ setFeatureCompatibilityVersion: '6.0' })",
                expect![[r#"
                1 Other Admin { "setFeatureCompatibilityVersion": "6.0" }
            "#]],
            ),
            (
                "db.runCommand({ create: 'a' })",
                expect![[r#"
                1 CreateCollection Database { "create": "a" }
            "#]],
            ),
            (
                "db.runCommand({ create: 'v', viewOn: 'a' })",
                expect![[r#"
                1 CreateView Database { "create": "v", "viewOn": "a" }
            "#]],
            ),
            (
                "db.runCommand({ drop: 'a' })",
                expect![[r#"
                1 Drop Database { "drop": "a" }
            "#]],
            ),
            (
                "db.runCommand({ dropIndexes: 'a', index: 'b' })",
                expect![[r#"
                1 DropIndexes Database { "dropIndexes": "a", "index": "b" }
            "#]],
            ),
            (
                "db.runCommand({ dropDatabase: 1 })",
                expect![[r#"
                1 DropDatabase Database { "dropDatabase": 1 }
            "#]],
            ),
            (
                "db.runCommand({ enableSharding: 'a' })",
                expect![[r#"
                1 Other Database { "enableSharding": "a" }
            "#]],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn a_pipeline_of_a_command_gets_its_cursor() {
        for (text, expected) in [
            (
                "db.runCommand({ aggregate: 'a', pipeline: [{ $out: 'b' }] })",
                expect![[r#"
                1 Output(Harmless) Database { "aggregate": "a", "pipeline": [{ "$out": "b" }], "cursor": {} }
            "#]],
            ),
            (
                "db.runCommand({ aggregate: 'a', pipeline: [{ $merge: 'b' }], cursor: { batchSize: 5 } })",
                expect![[r#"
                    1 Output(Harmless) Database { "aggregate": "a", "pipeline": [{ "$merge": "b" }], "cursor": { "batchSize": 5 } }
                "#]],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn a_migration_that_only_reads_does_nothing() {
        for (text, expected) in [
            (
                "db.runCommand({ find: 'a' })",
                expect![[r#"
                1:15: `find` only reads, and a migration that only reads does nothing; remove it; to check the data write an `[[invariant]]` in migration.toml
            "#]],
            ),
            (
                "db.runCommand('ping')",
                expect![[r#"
                1:15: `ping` only reads, and a migration that only reads does nothing; remove it; to check the data write an `[[invariant]]` in migration.toml
            "#]],
            ),
            (
                "db.adminCommand({ serverStatus: 1 })",
                expect![[r#"
                1:17: `serverStatus` only reads, and a migration that only reads does nothing; remove it; to check the data write an `[[invariant]]` in migration.toml
            "#]],
            ),
            (
                "db.a.aggregate([])",
                expect![[r#"
                1:1: a pipeline that ends without `$merge` or `$out` only reads; end it with `$merge` or `$out`, or remove the statement
            "#]],
            ),
            (
                "db.a.aggregate([{ $match: {} }])",
                expect![[r#"
                1:1: a pipeline that ends without `$merge` or `$out` only reads; end it with `$merge` or `$out`, or remove the statement
            "#]],
            ),
            (
                "db.a.aggregate([{ $out: 'b' }, { $match: {} }])",
                expect![[r#"
                1:1: a pipeline that ends without `$merge` or `$out` only reads; end it with `$merge` or `$out`, or remove the statement
            "#]],
            ),
            (
                "db.runCommand({ aggregate: 'a' })",
                expect![[r#"
                1:15: `aggregate` needs a pipeline, a list
            "#]],
            ),
            (
                "db.runCommand({ aggregate: 'a', pipeline: [] })",
                expect![[r#"
                1:15: a pipeline that ends without `$merge` or `$out` only reads; end it with `$merge` or `$out`, or remove the statement
            "#]],
            ),
            (
                "db.runCommand({ aggregate: 'a', pipeline: [{ $out: 'b' }], explain: true })",
                expect![[r#"
                    1:15: `explain` only reads; remove it
                "#]],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn an_index_without_a_name_could_not_be_settled() {
        for (text, expected) in [
            (
                "db.runCommand({ createIndexes: 'a', indexes: [{ key: { b: 1 } }] })",
                expect![[r#"
                    1:15: an index without a name could not be settled after a crash; give each index a `name`
                "#]],
            ),
            (
                "db.runCommand({ createIndexes: 'a', indexes: [{ key: { b: 1 }, name: '' }] })",
                expect![[r#"
                    1:15: an index without a name could not be settled after a crash; give each index a `name`
                "#]],
            ),
            (
                "db.runCommand({ createIndexes: 'a', indexes: [] })",
                expect![[r#"
                1:15: an index without a name could not be settled after a crash; give each index a `name`
            "#]],
            ),
            (
                "db.runCommand({ createIndexes: 'a' })",
                expect![[r#"
                1:15: `createIndexes` needs `indexes`, a list
            "#]],
            ),
            (
                "db.runCommand({ createIndexes: 'a', indexes: [{ key: { b: 1 }, name: 'b' }] })",
                expect![[r#"
                    1 CreateIndexes Database { "createIndexes": "a", "indexes": [{ "key": { "b": 1 }, "name": "b" }] }
                "#]],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn commands_that_would_break_a_run_are_refused() {
        for (text, expected) in [
            (
                "db.adminCommand({ renameCollection: 'x.a', to: 'x.b' })",
                expect![[r#"
                1:17: `renameCollection` needs the name of the database, which a file does not know; write `db.<name>.renameCollection("<to>")` in a `.mongodb.js` file
            "#]],
            ),
            (
                "db.adminCommand({ commitTransaction: 1 })",
                expect![[r#"
                1:17: `commitTransaction` would end the engine's own transaction; remove it
            "#]],
            ),
            (
                "db.adminCommand({ abortTransaction: 1 })",
                expect![[r#"
                1:17: `abortTransaction` would end the engine's own transaction; remove it
            "#]],
            ),
            (
                "db.runCommand({ endSessions: [] })",
                expect![[r#"
                1:15: `endSessions` would end the engine's own session; remove it
            "#]],
            ),
            (
                "db.runCommand({ killAllSessions: [] })",
                expect![[r#"
                1:15: `killAllSessions` would end the engine's own session; remove it
            "#]],
            ),
            (
                "db.runCommand('logout')",
                expect![[r#"
                1:15: `logout` would end the engine's own session; remove it
            "#]],
            ),
            (
                "db.adminCommand('shutdown')",
                expect![[r#"
                1:17: `shutdown` would stop the server in the middle of a migration; remove it
            "#]],
            ),
            (
                "db.runCommand({ eval: 'x' })",
                expect![[r#"
                1:15: `eval` is not known to any server since 4.2; write the statements out
            "#]],
            ),
            (
                "db.runCommand({ insert: 'a', documents: [], comment: 'x' })",
                expect![[r#"
                1:15: `comment` is set by the engine; remove it
            "#]],
            ),
            (
                "db.runCommand({ insert: 'a', documents: [], txnNumber: 1n })",
                expect![[r#"
                1:15: `txnNumber` is set by the engine; remove it
            "#]],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn what_is_no_command_is_refused() {
        for (text, expected) in [
            (
                "db.runCommand({})",
                expect![[r#"
                1:15: an empty command
            "#]],
            ),
            (
                "db.runCommand([])",
                expect![[r#"
                1:15: `runCommand` takes a command here, a document or a name
            "#]],
            ),
            (
                "db.runCommand(1)",
                expect![[r#"
                1:15: `runCommand` takes a command here, a document or a name
            "#]],
            ),
            (
                "db.runCommand({ createindexes: 'a' })",
                expect![[r#"
                1:15: there is no command `createindexes`; did you mean `createIndexes`?
            "#]],
            ),
            (
                "db.runCommand({ isnert: 'a' })",
                expect![[r#"
                1:15: there is no command `isnert`; did you mean `insert`?
            "#]],
            ),
            (
                r"db.runCommand('a\0')",
                expect![[r#"
                1:15: `runCommand` takes a command here, a document or a name
            "#]],
            ),
        ] {
            check(text, &expected);
        }
    }
}
