//! A view that nobody can read while it is filled.

use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};
use crate::core::parse::sql::outline::Act;

pub(super) static RULE: Rule = Rule {
    name: "refresh-without-concurrently",
    level: Level::Warn,
    about: About::Postgres,
    what: "`REFRESH MATERIALIZED VIEW` without `CONCURRENTLY`.",
    why: "It takes an ACCESS EXCLUSIVE lock on the view while its query runs: all readers wait.",
    instead: "Write `REFRESH MATERIALIZED VIEW CONCURRENTLY`; the view needs a unique index on plain columns for it.",
    bad: &[("up.sql", "REFRESH MATERIALIZED VIEW sales;\n"), ("down.sql", "SELECT 1;\n")],
    good: &[
        ("up.sql", "REFRESH MATERIALIZED VIEW CONCURRENTLY sales;\n"),
        ("down.sql", "SELECT 1;\n"),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for statement in subject.sql() {
        if let Act::Refresh { view, concurrently: false } = &statement.act {
            hits.push(statement.hit(format!(
                "whoever reads `{view}` waits until its query is done (ACCESS EXCLUSIVE lock)"
            )));
        }
    }
    hits
}
