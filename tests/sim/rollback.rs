//! A migration that fails and is rolled back, with crashes on the way up, on the
//! way back, and in the run that finishes it.

use crate::crash::visit;
use crate::scenario::{Ends, Scenario, Stage, migration, set, stage, up};
use crate::store::Faults;

/// Up, until the last statement of a migration is refused, and back; an edit, also
/// by somebody who saw the run die and did not wait to be told; and up.
fn rolled_back(name: &'static str, broken: &[(&str, &str)], mended: &[(&str, &str)]) -> Scenario {
    let before = set(&[migration("001-posts", broken)]);
    let after = set(&[migration("001-posts", mended)]);
    let fails =
        Stage { ends: Ends::RolledBack, after_crash: vec![0, 1], ..stage(up(), 0, Some(1)) };
    let succeeds = Stage { set: 1, before_edit: Some(0), ..stage(up(), 1, None) };
    Scenario::new(name, vec![before, after], vec![fails, succeeds])
}

const MONGO: &str = "db.createCollection(\"posts\");\ndb.posts.insertOne({ a: 2 });";

#[test]
fn a_refused_transaction_takes_back_what_both_stores_have() {
    let files = |sql| {
        [
            ("migration.toml", "order = [\"mongo\", \"postgres\"]\non_failure = \"rollback\"\n"),
            ("up.mongodb.js", MONGO),
            ("up.sql", sql),
            ("down.mongodb.js", "db.posts.drop();"),
            ("down.sql", "DROP TABLE IF EXISTS posts;"),
        ]
    };
    // The index is what no transaction holds, and comes before what is refused.
    let scenario = rolled_back(
        "a rollback after a transaction",
        &files(
            "CREATE TABLE posts (n int);\nCREATE INDEX CONCURRENTLY posts_n ON posts (n);\nSELECT nonsense;",
        ),
        &files(
            "CREATE TABLE posts (n int);\nCREATE INDEX CONCURRENTLY posts_n ON posts (n);\nINSERT INTO posts VALUES (2);",
        ),
    );
    visit(&scenario, 1, Faults::All);
    visit(&scenario, 2, Faults::Deaths);
}

#[test]
fn a_refused_index_takes_back_what_both_stores_have() {
    let files = |index| {
        [
            ("migration.toml", "on_failure = \"rollback\"\n"),
            ("up.sql", "CREATE TABLE posts (n int);"),
            ("up.mongodb.js", index),
            ("down.sql", "DROP TABLE IF EXISTS posts;"),
            ("down.mongodb.js", "db.posts.drop();"),
        ]
    };
    let scenario = rolled_back(
        "a rollback after an index",
        &files(
            "db.posts.insertOne({ n: 1 });\ndb.posts.insertOne({ n: 1 });\ndb.posts.createIndex({ n: 1 }, { name: \"posts_n\", unique: true });",
        ),
        &files(
            "db.posts.insertOne({ n: 1 });\ndb.posts.insertOne({ n: 1 });\ndb.posts.createIndex({ n: 1 }, { name: \"posts_n\" });",
        ),
    );
    visit(&scenario, 1, Faults::All);
    visit(&scenario, 2, Faults::Deaths);
}
