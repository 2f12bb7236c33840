//! A statement that is refused, and edited before the next run, with crashes
//! before and after the edit.

use crate::crash::visit;
use crate::scenario::{Ends, Scenario, Stage, down_to, migration, set, stage, up};
use crate::store::Faults;
use lockstep::core::migration::Migration;

/// Up, until the statement is refused; an edit, also by somebody who saw the run
/// die and did not wait to be told; up, or the old text again where the edit
/// comes too early.
fn mended(name: &'static str, broken: &[(&str, &str)], mended: &[(&str, &str)]) -> Scenario {
    let before = set(&[migration("001-posts", broken)]);
    let after = set(&[migration("001-posts", mended), then()]);
    let fails = Stage { ends: Ends::Refused, after_crash: vec![0, 1], ..stage(up(), 0, Some(1)) };
    let succeeds = Stage { set: 1, before_edit: Some(0), ..stage(up(), 1, None) };
    Scenario::new(name, vec![before, after], vec![fails, succeeds])
}

/// What comes after it.
fn then() -> Migration {
    migration(
        "002-then",
        &[
            ("up.mongodb.js", "db.then.insertOne({ n: 1 });"),
            ("down.mongodb.js", "db.then.drop();"),
        ],
    )
}

const DOWN: [(&str, &str); 2] =
    [("down.sql", "DROP TABLE IF EXISTS posts;"), ("down.mongodb.js", "db.posts.drop();")];

#[test]
fn a_statement_in_a_transaction_is_mended() {
    let files = |sql, mongo| [("up.sql", sql), ("up.mongodb.js", mongo), DOWN[0], DOWN[1]];
    let sql = "CREATE TABLE posts (n int);";
    let scenario = mended(
        "an edit of a transaction in Postgres",
        &files("SELECT nonsense;", "db.posts.insertOne({ n: 1 });"),
        &files(sql, "db.posts.insertOne({ n: 1 });"),
    );
    visit(&scenario, 2, Faults::All);
    let scenario = mended(
        "an edit of a transaction in MongoDB",
        &files(sql, "db.posts.insertOne({ nonsense: 1 });"),
        &files(sql, "db.posts.insertOne({ n: 1 });"),
    );
    visit(&scenario, 2, Faults::All);
}

#[test]
fn a_statement_that_no_transaction_holds_is_mended() {
    let then = ("up.mongodb.js", "db.posts.insertOne({ n: 1 });");
    let files = |sql| [("up.sql", sql), then, DOWN[0], DOWN[1]];
    let scenario = mended(
        "an edit of an index in Postgres",
        &files(
            "CREATE TABLE posts (n int);\nINSERT INTO posts VALUES (1);\nINSERT INTO posts VALUES (1);\nCREATE UNIQUE INDEX CONCURRENTLY posts_n ON posts (n);",
        ),
        &files(
            "CREATE TABLE posts (n int);\nINSERT INTO posts VALUES (1);\nINSERT INTO posts VALUES (1);\nCREATE INDEX CONCURRENTLY posts_n ON posts (n);",
        ),
    );
    visit(&scenario, 2, Faults::All);
    let files = |script| [("up.mongodb.js", script), DOWN[1]];
    let scenario = mended(
        "an edit of an index in MongoDB",
        &files(
            "db.posts.insertOne({ n: 1 });\ndb.posts.insertOne({ n: 1 });\ndb.posts.createIndex({ n: 1 }, { name: \"posts_n\", unique: true });",
        ),
        &files(
            "db.posts.insertOne({ n: 1 });\ndb.posts.insertOne({ n: 1 });\ndb.posts.createIndex({ n: 1 }, { name: \"posts_n\" });",
        ),
    );
    visit(&scenario, 2, Faults::Deaths);
}

#[test]
fn whoever_gives_up_instead_of_mending_can_go_down() {
    let files = [
        (
            "up.sql",
            "CREATE TABLE posts (n int);\nINSERT INTO posts VALUES (1);\nINSERT INTO posts VALUES (1);\nCREATE UNIQUE INDEX CONCURRENTLY posts_n ON posts (n);",
        ),
        ("up.mongodb.js", "db.posts.insertOne({ n: 1 });"),
        DOWN[0],
        DOWN[1],
    ];
    let set = set(&[migration("001-posts", &files)]);
    let fails = Stage { ends: Ends::Refused, after_crash: vec![0, 1], ..stage(up(), 0, Some(1)) };
    let name = "a refused index, down to 0";
    let scenario = Scenario::new(name, vec![set], vec![fails, stage(down_to(0), 1, None)]);
    visit(&scenario, 2, Faults::All);
}
