//! An index that is built while writers wait.

use crate::core::lint::known::Known;
use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};

pub(super) static RULE: Rule = Rule {
    name: "index-without-concurrently",
    level: Level::Error,
    about: About::Postgres,
    what: "An index that is built without `CONCURRENTLY` on a table that is in use.",
    why: "`CREATE INDEX` takes a SHARE lock. Reads go on; every INSERT, UPDATE and DELETE waits until the index is built: minutes, on a large table.",
    instead: "Write `CREATE INDEX CONCURRENTLY`. It runs as a step of its own, outside of a transaction, and writers go on.",
    bad: &[
        ("up.sql", "CREATE INDEX orders_user ON orders (user_id);\n"),
        ("down.sql", "DROP INDEX CONCURRENTLY orders_user;\n"),
    ],
    good: &[
        ("up.sql", "CREATE INDEX CONCURRENTLY orders_user ON orders (user_id);\n"),
        ("down.sql", "DROP INDEX CONCURRENTLY orders_user;\n"),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    subject.hits(Known::IndexWithoutConcurrently, |table| {
        format!("while this index is built, every INSERT, UPDATE and DELETE on {table} waits (SHARE lock)")
    })
}
