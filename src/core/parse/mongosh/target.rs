//! What a method is called on: `db`, `sh` or a collection, and whether it is a
//! method that is read.

use super::literal::{Reader, Value};
use super::{Fault, bare};
use crate::core::problem::nearest;
use bson::Bson;
use oxc_ast::ast::{CallExpression, Expression, StaticMemberExpression};
use oxc_span::{GetSpan, Span};

/// What a method is called on.
pub(super) enum Target {
    Db,
    Sh,
    Collection(String),
}

const DATABASE_METHODS: &[&str] =
    &["createCollection", "createView", "runCommand", "adminCommand", "dropDatabase"];

const SHARDING_METHODS: &[&str] = &["shardCollection"];

const COLLECTION_METHODS: &[&str] = &[
    "createIndex",
    "createIndexes",
    "dropIndex",
    "dropIndexes",
    "hideIndex",
    "unhideIndex",
    "insertOne",
    "insertMany",
    "updateOne",
    "updateMany",
    "replaceOne",
    "deleteOne",
    "deleteMany",
    "bulkWrite",
    "aggregate",
    "renameCollection",
    "drop",
    "convertToCapped",
];

/// Methods of mongosh that are not read, and what to write instead.
const INSTEAD: &[(&str, &str)] = &[
    ("insert", "write `insertOne` or `insertMany`"),
    ("update", "write `updateOne` or `updateMany`"),
    ("save", "write `insertOne`, or `replaceOne` with `upsert: true`"),
    ("remove", "write `deleteOne` or `deleteMany`"),
    ("ensureIndex", "write `createIndex`"),
    ("findAndModify", "write `updateOne`, `replaceOne` or `deleteOne`"),
    ("findOneAndUpdate", "write `updateOne`"),
    ("findOneAndReplace", "write `replaceOne`"),
    ("findOneAndDelete", "write `deleteOne`"),
    ("initializeOrderedBulkOp", "write `bulkWrite`"),
    ("initializeUnorderedBulkOp", "write `bulkWrite`"),
    ("mapReduce", "write `aggregate` with `$merge` or `$out`"),
    ("getCollection", "write the whole name: `db.getCollection(\"a.b\")`"),
    (
        "getSiblingDB",
        "a migration writes the database of the connection; use a pair of URLs for each database",
    ),
];

/// Methods of mongosh that only read.
const READS: &[&str] = &[
    "find",
    "findOne",
    "count",
    "countDocuments",
    "estimatedDocumentCount",
    "distinct",
    "explain",
    "getIndexes",
    "stats",
    "watch",
    "validate",
    "getCollectionNames",
    "getCollectionInfos",
    "serverStatus",
    "version",
    "hello",
    "currentOp",
    "getName",
    "isCapped",
    "dataSize",
    "totalSize",
];

/// What answers with documents,
const WALKED: &[&str] = &["find", "aggregate"];

/// and what goes through them one by one.
const WALKS: &[&str] = &["forEach", "map", "toArray", "next", "hasNext"];

impl Target {
    pub(super) fn methods(&self) -> &'static [&'static str] {
        match self {
            Target::Db => DATABASE_METHODS,
            Target::Sh => SHARDING_METHODS,
            Target::Collection(_) => COLLECTION_METHODS,
        }
    }

    pub(super) fn check(&self, method: &str, span: Span) -> Result<(), Fault> {
        if self.methods().contains(&method) {
            return Ok(());
        }
        let fault = Fault::new(span, format!("`{method}` is not a method that is read here"));
        let instead = INSTEAD.iter().find(|(name, _)| *name == method);
        Err(if let Some((_, instead)) = instead {
            fault.hint(*instead)
        } else if READS.contains(&method) {
            Fault::new(
                span,
                format!("`{method}` only reads, and a migration that only reads does nothing"),
            )
            .hint("remove it; to check the data write an `[[invariant]]` in migration.toml")
        } else if matches!(self, Target::Db) && COLLECTION_METHODS.contains(&method) {
            fault.hint(format!("it is one of a collection: `db.<name>.{method}(…)`"))
        } else if matches!(self, Target::Collection(_)) && DATABASE_METHODS.contains(&method) {
            fault.hint(format!("it is one of the database: `db.{method}(…)`"))
        } else if TAKEN_ON_DATABASE.contains(&method) || TAKEN_ON_COLLECTION.contains(&method) {
            // It is what was meant: mongosh has it.
            fault.hint(self.by_command())
        } else if let Some(known) = nearest(method, self.methods().iter().copied()) {
            fault.hint(format!("did you mean `{known}`?"))
        } else {
            fault.hint(self.by_command())
        })
    }

    fn by_command(&self) -> &'static str {
        match self {
            Target::Sh => "if MongoDB has a command for it, write `db.adminCommand({ … })`",
            Target::Db | Target::Collection(_) => {
                "if MongoDB has a command for it, write `db.runCommand({ … })`"
            }
        }
    }
}

/// What a call is on, as far as its shape tells.
pub(super) enum Shape<'a, 'b> {
    Db,
    Sh,
    Collection(Vec<Segment<'a, 'b>>),
}

/// One part of a collection's name.
pub(super) enum Segment<'a, 'b> {
    Property(&'b str, Span),
    Computed(&'b Expression<'a>),
    GetCollection(&'b CallExpression<'a>),
}

pub(super) type Shaped<'a, 'b> =
    (Shape<'a, 'b>, &'b StaticMemberExpression<'a>, &'b CallExpression<'a>);

const EXPECTED: &str = "write `db.<collection>.<method>(…)`";

/// Takes a statement apart.
pub(super) fn shape<'a, 'b>(expression: &'b Expression<'a>) -> Result<Shaped<'a, 'b>, Fault> {
    let span = expression.span();
    let call = match bare(expression) {
        Expression::CallExpression(call) => call,
        Expression::AwaitExpression(_) => {
            let start = span.start as usize;
            return Err(Fault::new(start..start + "await".len(), "`await` is not read")
                .hint("remove it: statements run one after the other anyway"));
        }
        _ => {
            return Err(Fault::new(span, "not a call: the file is never run").hint(EXPECTED));
        }
    };
    let member = match bare(&call.callee) {
        Expression::StaticMemberExpression(member) if !member.optional && !call.optional => member,
        Expression::Identifier(function) => {
            return Err(function_call(&function.name, function.span));
        }
        callee => {
            return Err(Fault::new(callee.span(), "not a method of `db`: the file is never run")
                .hint(EXPECTED));
        }
    };
    // Not recursive: a chain of members may be as long as the file.
    let mut segments = Vec::new();
    let mut object = bare(&member.object);
    loop {
        match object {
            Expression::Identifier(name) if name.name == "db" => break,
            Expression::Identifier(name) if name.name == "sh" && segments.is_empty() => {
                return Ok((Shape::Sh, member, call));
            }
            Expression::StaticMemberExpression(member) if !member.optional => {
                segments.push(Segment::Property(&member.property.name, member.property.span));
                object = bare(&member.object);
            }
            Expression::ComputedMemberExpression(member) if !member.optional => {
                segments.push(Segment::Computed(&member.expression));
                object = bare(&member.object);
            }
            Expression::CallExpression(inner) => match bare(&inner.callee) {
                Expression::StaticMemberExpression(method)
                    if method.property.name == "getCollection"
                        && matches!(bare(&method.object), Expression::Identifier(db) if db.name == "db") =>
                {
                    segments.push(Segment::GetCollection(inner));
                    break;
                }
                Expression::StaticMemberExpression(method)
                    if WALKED.contains(&method.property.name.as_str())
                        && WALKS.contains(&member.property.name.as_str()) =>
                {
                    return Err(Fault::new(
                        member.property.span,
                        format!(
                            "`{}` over what `{}` finds is a program, and the file is never run",
                            member.property.name, method.property.name
                        ),
                    )
                    .hint("write `updateMany` with a pipeline that says what each document becomes; for many documents a `[[backfill]]`, for anything else a `[[run]]` in migration.toml"));
                }
                Expression::StaticMemberExpression(method) => {
                    Target::Collection(String::new())
                        .check(&method.property.name, method.property.span)?;
                    return Err(Fault::new(
                        method.property.span,
                        format!(
                            "the result of `{}` is not read: the file is never run",
                            method.property.name
                        ),
                    )
                    .hint("make each call a statement of its own"));
                }
                callee => {
                    return Err(Fault::new(
                        callee.span(),
                        "not a method of `db`: the file is never run",
                    )
                    .hint(EXPECTED));
                }
            },
            other => {
                return Err(Fault::new(other.span(), "not a call on `db`: the file is never run")
                    .hint(EXPECTED));
            }
        }
    }
    segments.reverse();
    let shape = if segments.is_empty() { Shape::Db } else { Shape::Collection(segments) };
    Ok((shape, member, call))
}

fn function_call(name: &str, span: Span) -> Fault {
    match name {
        "use" => Fault::new(span, "`use` switches the database")
            .hint("remove it: the database is that of the connection"),
        "print" | "printjson" | "console" => {
            Fault::new(span, format!("`{name}` is not read: the file is never run"))
                .hint("remove it, or write a comment")
        }
        "load" | "require" => {
            Fault::new(span, format!("`{name}` is not read: the file is never run"))
                .hint("write the statements out in this file")
        }
        "sleep" => Fault::new(span, "`sleep` is not read: the file is never run")
            .hint("remove it; a `[[backfill]]` paces itself"),
        _ => Fault::new(span, format!("`{name}(…)` is not a call on `db`: the file is never run"))
            .hint(EXPECTED),
    }
}

/// Properties that mongosh finds on `db` before it looks for a collection.
const TAKEN_ON_DATABASE: &[&str] = &[
    "auth",
    "changeUserPassword",
    "checkMetadataConsistency",
    "cloneCollection",
    "cloneDatabase",
    "commandHelp",
    "copyDatabase",
    "createEncryptedCollection",
    "createRole",
    "createUser",
    "currentOp",
    "dropAllRoles",
    "dropAllUsers",
    "dropRole",
    "dropUser",
    "fsyncLock",
    "fsyncUnlock",
    "getCollection",
    "getCollectionInfos",
    "getCollectionNames",
    "getLastError",
    "getLastErrorObj",
    "getLogComponents",
    "getMongo",
    "getName",
    "getProfilingStatus",
    "getReplicationInfo",
    "getRole",
    "getRoles",
    "getSiblingDB",
    "getUser",
    "getUsers",
    "grantPrivilegesToRole",
    "grantRolesToRole",
    "grantRolesToUser",
    "hello",
    "help",
    "hostInfo",
    "isMaster",
    "killOp",
    "listCommands",
    "logout",
    "printCollectionStats",
    "printReplicationInfo",
    "printSecondaryReplicationInfo",
    "printShardingStatus",
    "printSlaveReplicationInfo",
    "revokePrivilegesFromRole",
    "revokeRolesFromRole",
    "revokeRolesFromUser",
    "rotateCertificates",
    "serverBits",
    "serverBuildInfo",
    "serverCmdLineOpts",
    "serverStatus",
    "setLogLevel",
    "setProfilingLevel",
    "setSecondaryOk",
    "shutdownServer",
    "sql",
    "stats",
    "updateRole",
    "updateUser",
    "version",
    "watch",
];

/// Properties that mongosh finds on a collection before it looks for `db.a.b`.
const TAKEN_ON_COLLECTION: &[&str] = &[
    "analyzeShardKey",
    "checkMetadataConsistency",
    "compactStructuredEncryptionData",
    "configureQueryAnalyzer",
    "count",
    "countDocuments",
    "createSearchIndex",
    "createSearchIndexes",
    "dataSize",
    "distinct",
    "dropSearchIndex",
    "ensureIndex",
    "estimatedDocumentCount",
    "exists",
    "explain",
    "find",
    "findAndModify",
    "findOne",
    "findOneAndDelete",
    "findOneAndReplace",
    "findOneAndUpdate",
    "getDB",
    "getFullName",
    "getIndexKeys",
    "getIndexSpecs",
    "getIndexes",
    "getIndices",
    "getMongo",
    "getName",
    "getPlanCache",
    "getSearchIndexes",
    "getShardDistribution",
    "getShardLocation",
    "getShardVersion",
    "help",
    "initializeOrderedBulkOp",
    "initializeUnorderedBulkOp",
    "insert",
    "isCapped",
    "latencyStats",
    "mapReduce",
    "reIndex",
    "remove",
    "runCommand",
    "stats",
    "storageSize",
    "totalIndexSize",
    "totalSize",
    "update",
    "updateSearchIndex",
    "validate",
    "watch",
];

/// What every object of JavaScript has.
const TAKEN_ON_OBJECTS: &[&str] = &[
    "constructor",
    "hasOwnProperty",
    "isPrototypeOf",
    "propertyIsEnumerable",
    "toLocaleString",
    "toString",
    "valueOf",
];

/// The name that the segments spell.
pub(super) fn collection(reader: &mut Reader, segments: &[Segment]) -> Result<String, Fault> {
    let mut name = String::new();
    for (index, segment) in segments.iter().enumerate() {
        let (part, span, by_property) = match segment {
            Segment::Property(part, span) => ((*part).to_owned(), *span, true),
            Segment::Computed(expression) => {
                (collection_text(reader, expression)?, expression.span(), true)
            }
            Segment::GetCollection(call) => match &call.arguments[..] {
                [argument] if argument.is_expression() => {
                    let expression = argument.to_expression();
                    (collection_text(reader, expression)?, expression.span(), false)
                }
                _ => return Err(Fault::new(call.span, "`getCollection` takes one name")),
            },
        };
        let (taken, methods) = if index == 0 {
            (TAKEN_ON_DATABASE, DATABASE_METHODS)
        } else {
            (TAKEN_ON_COLLECTION, COLLECTION_METHODS)
        };
        let hidden = part.starts_with('_')
            || [taken, methods, TAKEN_ON_OBJECTS]
                .iter()
                .any(|names| names.contains(&part.as_str()));
        if index > 0 {
            name.push('.');
        }
        name.push_str(&part);
        if by_property && hidden {
            let whole = name;
            return Err(Fault::new(span, format!("in mongosh `{part}` is not a collection here"))
                .hint(format!("write `db.getCollection(\"{whole}\")`")));
        }
        if part.is_empty() || part.contains(['$', '\0']) {
            return Err(Fault::new(span, "not a name that a collection can have"));
        }
    }
    Ok(name)
}

fn collection_text(reader: &mut Reader, expression: &Expression) -> Result<String, Fault> {
    let faults = reader.faults.len();
    match reader.value(expression).map(Value::into_bson) {
        Some(Bson::String(name)) => Ok(name),
        // What is wrong with it is known; that fault is given back as this one.
        None if reader.faults.len() > faults => Err(reader.faults.remove(faults)),
        _ => Err(Fault::new(expression.span(), "the name of a collection is a text")),
    }
}

#[cfg(test)]
#[expect(clippy::needless_raw_string_hashes, reason = "expect_test writes them so")]
mod tests {
    use crate::core::parse::mongosh::tests::check;
    use expect_test::expect;

    #[test]
    fn a_collection_is_named_in_each_way_of_mongosh() {
        for (text, expected) in [
            (
                "db.a.drop()",
                expect![[r#"
                1 Drop Database { "drop": "a" }
            "#]],
            ),
            (
                "db['a b'].drop()",
                expect![[r#"
                1 Drop Database { "drop": "a b" }
            "#]],
            ),
            (
                "db.getCollection('stats').drop()",
                expect![[r#"
                1 Drop Database { "drop": "stats" }
            "#]],
            ),
            (
                "db.a.b['c d'].drop()",
                expect![[r#"
                1 Drop Database { "drop": "a.b.c d" }
            "#]],
            ),
            (
                "db.getCollection('a').b.drop()",
                expect![[r#"
                1 Drop Database { "drop": "a.b" }
            "#]],
            ),
            (
                "const n = 'a';
db[n + '1'].drop()",
                expect![[r#"
                    2 Drop Database { "drop": "a1" }
                "#]],
            ),
            (
                "(db.a).drop()",
                expect![[r#"
                1 Drop Database { "drop": "a" }
            "#]],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn names_that_mongosh_takes_for_something_else_are_refused() {
        for (text, expected) in [
            (
                "db.stats.drop()",
                expect![[r#"
                1:4: in mongosh `stats` is not a collection here; write `db.getCollection("stats")`
            "#]],
            ),
            (
                "db._a.drop()",
                expect![[r#"
                1:4: in mongosh `_a` is not a collection here; write `db.getCollection("_a")`
            "#]],
            ),
            (
                "db['_a'].drop()",
                expect![[r#"
                1:4: in mongosh `_a` is not a collection here; write `db.getCollection("_a")`
            "#]],
            ),
            (
                "db.a.find.drop()",
                expect![[r#"
                1:6: in mongosh `find` is not a collection here; write `db.getCollection("a.find")`
            "#]],
            ),
            (
                "db.a._b.drop()",
                expect![[r#"
                1:6: in mongosh `_b` is not a collection here; write `db.getCollection("a._b")`
            "#]],
            ),
            (
                "db.toString.drop()",
                expect![[r#"
                1:4: in mongosh `toString` is not a collection here; write `db.getCollection("toString")`
            "#]],
            ),
            (
                "db.createView.drop()",
                expect![[r#"
                1:4: in mongosh `createView` is not a collection here; write `db.getCollection("createView")`
            "#]],
            ),
            (
                "db.a.b.stats.c.drop()",
                expect![[r#"
                1:8: in mongosh `stats` is not a collection here; write `db.getCollection("a.b.stats")`
            "#]],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn names_that_no_collection_has_are_refused() {
        for (text, expected) in [
            (
                "db.$a.drop()",
                expect![[r#"
                1:4: not a name that a collection can have
            "#]],
            ),
            (
                "db[''].drop()",
                expect![[r#"
                1:4: not a name that a collection can have
            "#]],
            ),
            (
                "db[1].drop()",
                expect![[r#"
                1:4: the name of a collection is a text
            "#]],
            ),
            (
                "db[x].drop()",
                expect![[r#"
                1:4: `x` has no value in this file; write `const x = <literal>;` before it
            "#]],
            ),
            (
                "db.getCollection().drop()",
                expect![[r#"
                1:1: `getCollection` takes one name
            "#]],
            ),
            (
                "db.getCollection('a', 'b').drop()",
                expect![[r#"
                1:1: `getCollection` takes one name
            "#]],
            ),
            (
                "db.getCollection('').drop()",
                expect![[r#"
                1:18: not a name that a collection can have
            "#]],
            ),
            (
                "db.createCollection('')",
                expect![[r#"
                1:21: not a name that a collection can have
            "#]],
            ),
            (
                "db.createCollection('a$b')",
                expect![[r#"
                1:21: not a name that a collection can have
            "#]],
            ),
            (
                "db.a.renameCollection('')",
                expect![[r#"
                1:23: not a name that a collection can have
            "#]],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn a_method_that_is_not_read_is_refused_with_what_was_meant() {
        for (text, expected) in [
            (
                "db.a.udpateMany({}, {})",
                expect![[r#"
                1:6: `udpateMany` is not a method that is read here; did you mean `updateMany`?
            "#]],
            ),
            (
                "db.a.insert({})",
                expect![[r#"
                1:6: `insert` is not a method that is read here; write `insertOne` or `insertMany`
            "#]],
            ),
            (
                "db.a.update({}, {})",
                expect![[r#"
                1:6: `update` is not a method that is read here; write `updateOne` or `updateMany`
            "#]],
            ),
            (
                "db.a.save({})",
                expect![[r#"
                1:6: `save` is not a method that is read here; write `insertOne`, or `replaceOne` with `upsert: true`
            "#]],
            ),
            (
                "db.a.remove({})",
                expect![[r#"
                1:6: `remove` is not a method that is read here; write `deleteOne` or `deleteMany`
            "#]],
            ),
            (
                "db.a.ensureIndex({})",
                expect![[r#"
                1:6: `ensureIndex` is not a method that is read here; write `createIndex`
            "#]],
            ),
            (
                "db.a.findAndModify({})",
                expect![[r#"
                1:6: `findAndModify` is not a method that is read here; write `updateOne`, `replaceOne` or `deleteOne`
            "#]],
            ),
            (
                "db.a.findOneAndUpdate({}, {})",
                expect![[r#"
                1:6: `findOneAndUpdate` is not a method that is read here; write `updateOne`
            "#]],
            ),
            (
                "db.a.findOneAndReplace({}, {})",
                expect![[r#"
                1:6: `findOneAndReplace` is not a method that is read here; write `replaceOne`
            "#]],
            ),
            (
                "db.a.findOneAndDelete({})",
                expect![[r#"
                1:6: `findOneAndDelete` is not a method that is read here; write `deleteOne`
            "#]],
            ),
            (
                "db.a.initializeOrderedBulkOp()",
                expect![[r#"
                1:6: `initializeOrderedBulkOp` is not a method that is read here; write `bulkWrite`
            "#]],
            ),
            (
                "db.a.initializeUnorderedBulkOp()",
                expect![[r#"
                1:6: `initializeUnorderedBulkOp` is not a method that is read here; write `bulkWrite`
            "#]],
            ),
            (
                "db.a.mapReduce()",
                expect![[r#"
                1:6: `mapReduce` is not a method that is read here; write `aggregate` with `$merge` or `$out`
            "#]],
            ),
            (
                "db.a.find({})",
                expect![[r#"
                1:6: `find` only reads, and a migration that only reads does nothing; remove it; to check the data write an `[[invariant]]` in migration.toml
            "#]],
            ),
            (
                "db.a.countDocuments()",
                expect![[r#"
                1:6: `countDocuments` only reads, and a migration that only reads does nothing; remove it; to check the data write an `[[invariant]]` in migration.toml
            "#]],
            ),
            (
                "db.insertOne({})",
                expect![[r#"
                1:4: `insertOne` is not a method that is read here; it is one of a collection: `db.<name>.insertOne(…)`
            "#]],
            ),
            (
                "db.a.createCollection('b')",
                expect![[r#"
                1:6: `createCollection` is not a method that is read here; it is one of the database: `db.createCollection(…)`
            "#]],
            ),
            (
                "db.createColection('a')",
                expect![[r#"
                1:4: `createColection` is not a method that is read here; did you mean `createCollection`?
            "#]],
            ),
            (
                "db.a.foo()",
                expect![[r#"
                1:6: `foo` is not a method that is read here; if MongoDB has a command for it, write `db.runCommand({ … })`
            "#]],
            ),
            (
                "db.createUser({})",
                expect![[r#"
                    1:4: `createUser` is not a method that is read here; if MongoDB has a command for it, write `db.runCommand({ … })`
                "#]],
            ),
            (
                "sh.shardColection('a.b', {})",
                expect![[r#"
                1:4: `shardColection` is not a method that is read here; did you mean `shardCollection`?
            "#]],
            ),
            (
                "sh.addShard('x')",
                expect![[r#"
                    1:4: `addShard` is not a method that is read here; if MongoDB has a command for it, write `db.adminCommand({ … })`
                "#]],
            ),
            (
                "db.version()",
                expect![[r#"
                1:4: `version` only reads, and a migration that only reads does nothing; remove it; to check the data write an `[[invariant]]` in migration.toml
            "#]],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn a_chain_of_calls_is_refused() {
        for (text, expected) in [
            (
                "db.a.find().forEach(x => x)",
                expect![[r#"
                1:13: `forEach` over what `find` finds is a program, and the file is never run; write `updateMany` with a pipeline that says what each document becomes; for many documents a `[[backfill]]`, for anything else a `[[run]]` in migration.toml
            "#]],
            ),
            (
                "db.getSiblingDB('x').a.drop()",
                expect![[r#"
                1:4: `getSiblingDB` is not a method that is read here; a migration writes the database of the connection; use a pair of URLs for each database
            "#]],
            ),
            (
                "db.a.drop().b()",
                expect![[r#"
                1:6: the result of `drop` is not read: the file is never run; make each call a statement of its own
            "#]],
            ),
            (
                "db.a.initializeOrderedBulkOp().insert({})",
                expect![[r#"
                1:6: `initializeOrderedBulkOp` is not a method that is read here; write `bulkWrite`
            "#]],
            ),
            (
                "db.a.getCollection('b').drop()",
                expect![[r#"
                    1:6: `getCollection` is not a method that is read here; write the whole name: `db.getCollection("a.b")`
                "#]],
            ),
            (
                "f()().drop()",
                expect![[r#"
                1:1: not a method of `db`: the file is never run; write `db.<collection>.<method>(…)`
            "#]],
            ),
            (
                "db.a.insertOne({}).b.c()",
                expect![[r#"
                1:6: the result of `insertOne` is not read: the file is never run; make each call a statement of its own
            "#]],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn what_is_no_call_on_db_is_refused() {
        for (text, expected) in [
            (
                "1",
                expect![[r#"
                1:1: not a call: the file is never run; write `db.<collection>.<method>(…)`
            "#]],
            ),
            (
                "db.a",
                expect![[r#"
                1:1: not a call: the file is never run; write `db.<collection>.<method>(…)`
            "#]],
            ),
            (
                "x.a.drop()",
                expect![[r#"
                1:1: not a call on `db`: the file is never run; write `db.<collection>.<method>(…)`
            "#]],
            ),
            (
                "a.drop",
                expect![[r#"
                1:1: not a call: the file is never run; write `db.<collection>.<method>(…)`
            "#]],
            ),
            (
                "await db.a.drop()",
                expect![[r#"
                1:1: `await` is not read; remove it: statements run one after the other anyway
            "#]],
            ),
            (
                "db?.a.drop()",
                expect![[r#"
                1:1: not a call: the file is never run; write `db.<collection>.<method>(…)`
            "#]],
            ),
            (
                "db.a?.drop()",
                expect![[r#"
                1:1: not a call: the file is never run; write `db.<collection>.<method>(…)`
            "#]],
            ),
            (
                "db.a.drop?.()",
                expect![[r#"
                1:1: not a call: the file is never run; write `db.<collection>.<method>(…)`
            "#]],
            ),
            (
                "db.a['drop']()",
                expect![[r#"
                1:1: not a method of `db`: the file is never run; write `db.<collection>.<method>(…)`
            "#]],
            ),
            (
                "use('x')",
                expect![[r#"
                1:1: `use` switches the database; remove it: the database is that of the connection
            "#]],
            ),
            (
                "print(1)",
                expect![[r#"
                1:1: `print` is not read: the file is never run; remove it, or write a comment
            "#]],
            ),
            (
                "console.log(1)",
                expect![[r#"
                1:1: not a call on `db`: the file is never run; write `db.<collection>.<method>(…)`
            "#]],
            ),
            (
                "load('x.js')",
                expect![[r#"
                1:1: `load` is not read: the file is never run; write the statements out in this file
            "#]],
            ),
            (
                "require('x')",
                expect![[r#"
                1:1: `require` is not read: the file is never run; write the statements out in this file
            "#]],
            ),
            (
                "sleep(5)",
                expect![[r#"
                1:1: `sleep` is not read: the file is never run; remove it; a `[[backfill]]` paces itself
            "#]],
            ),
            (
                "foo()",
                expect![[r#"
                1:1: `foo(…)` is not a call on `db`: the file is never run; write `db.<collection>.<method>(…)`
            "#]],
            ),
            (
                "(() => 1)()",
                expect![[r#"
                1:2: not a method of `db`: the file is never run; write `db.<collection>.<method>(…)`
            "#]],
            ),
            (
                "new db.a()",
                expect![[r#"
                1:1: not a call: the file is never run; write `db.<collection>.<method>(…)`
            "#]],
            ),
            (
                "x = db.a",
                expect![[r#"
                1:1: not a call: the file is never run; write `db.<collection>.<method>(…)`
            "#]],
            ),
            (
                "sh.a.drop()",
                expect![[r#"
                1:1: not a call on `db`: the file is never run; write `db.<collection>.<method>(…)`
            "#]],
            ),
            (
                "db.a.insertOne`x`",
                expect![[r#"
                1:1: not a call: the file is never run; write `db.<collection>.<method>(…)`
            "#]],
            ),
            (
                "this.db.a.drop()",
                expect![[r#"
                1:1: not a call on `db`: the file is never run; write `db.<collection>.<method>(…)`
            "#]],
            ),
        ] {
            check(text, &expected);
        }
    }
}
