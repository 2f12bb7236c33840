//! An index that is built anew while everybody waits.

use crate::core::lint::known::Known;
use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};

pub(super) static RULE: Rule = Rule {
    name: "reindex-without-concurrently",
    level: Level::Error,
    about: About::Postgres,
    what: "`REINDEX` without `CONCURRENTLY`.",
    why: "It locks the table against writes, and the index against reads: queries that would use it wait too, until it is built anew.",
    instead: "Write `REINDEX INDEX CONCURRENTLY`.",
    bad: &[("up.sql", "REINDEX TABLE orders;\n"), ("down.sql", "SELECT 1;\n")],
    good: &[("up.sql", "REINDEX TABLE CONCURRENTLY orders;\n"), ("down.sql", "SELECT 1;\n")],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let message = "while this is built anew, writes to the table wait, and so do queries that would use the index (SHARE lock, and ACCESS EXCLUSIVE on the index)";
    subject.hits(Known::ReindexWithoutConcurrently, |_| message.to_owned())
}
