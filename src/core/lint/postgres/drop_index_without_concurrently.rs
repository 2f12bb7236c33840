//! An index that is dropped while everybody waits.

use crate::core::lint::known::Known;
use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};
use crate::core::parse::sql::outline::Act;
use crate::core::step::QualifiedName;

pub(super) static RULE: Rule = Rule {
    name: "drop-index-without-concurrently",
    level: Level::Warn,
    about: About::Postgres,
    what: "An index that is dropped without `CONCURRENTLY`.",
    why: "`DROP INDEX` takes an ACCESS EXCLUSIVE lock on the table. It waits for every query that is running there, and all reads and writes that come after it wait behind it.",
    instead: "Write `DROP INDEX CONCURRENTLY`, one index a statement.",
    bad: &[
        ("up.sql", "DROP INDEX orders_user;\n"),
        ("down.sql", "CREATE INDEX CONCURRENTLY orders_user ON orders (user_id);\n"),
    ],
    good: &[
        ("up.sql", "DROP INDEX CONCURRENTLY orders_user;\n"),
        ("down.sql", "CREATE INDEX CONCURRENTLY orders_user ON orders (user_id);\n"),
    ],
    check,
};

/// The table of an index is known where the migration makes it.
fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let is_of_new_table = |dropped: &QualifiedName| {
        subject
            .indexes()
            .any(|(index, table)| *index == dropped.name && subject.is_new_table(table))
    };
    let mut hits = Vec::new();
    for (statement, anchor) in subject.known(Known::DropIndexWithoutConcurrently) {
        let Act::Drop { names, .. } = &statement.act else { continue };
        let Some(index) = names.iter().find(|index| !is_of_new_table(index)) else { continue };
        hits.push(Hit::new(
            anchor,
            format!("dropping `{index}` takes an ACCESS EXCLUSIVE lock on its table: it waits for every query there, and all reads and writes wait behind it"),
        ));
    }
    hits
}
