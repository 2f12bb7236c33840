//! A constraint that looks at every row behind a lock.

use crate::core::lint::known::Known;
use crate::core::lint::view::{Anchor, Hit, Sql, Subject, named};
use crate::core::lint::{About, Level, Rule};

pub(super) static RULE: Rule = Rule {
    name: "constraint-without-not-valid",
    level: Level::Error,
    about: About::Postgres,
    what: "A CHECK or EXCLUDE constraint that is added to a table in use, with all its rows looked at there and then.",
    why: "`ADD CONSTRAINT` takes an ACCESS EXCLUSIVE lock and keeps it while it reads the whole table: all reads and writes wait.",
    instead: "Add it `NOT VALID`, which looks at no row, and `VALIDATE CONSTRAINT` in a later phase or migration: that one lets reads and writes go on.",
    bad: &[
        ("up.sql", "ALTER TABLE orders ADD CONSTRAINT total_known CHECK (total >= 0);\n"),
        ("down.sql", "ALTER TABLE orders DROP CONSTRAINT total_known;\n"),
    ],
    good: &[
        (
            "prepare.sql",
            "ALTER TABLE orders ADD CONSTRAINT total_known CHECK (total >= 0) NOT VALID;\n",
        ),
        ("prepare.down.sql", "ALTER TABLE orders DROP CONSTRAINT total_known;\n"),
        ("cleanup.sql", "ALTER TABLE orders VALIDATE CONSTRAINT total_known;\n"),
        ("cleanup.down.sql", "-- It goes with prepare.down.\n"),
    ],
    check,
};

/// Of keys and foreign keys other rules know more.
fn check(subject: &Subject<'_>) -> Vec<Hit> {
    const OTHERS: [Known; 3] =
        [Known::ForeignKeyWithoutNotValid, Known::UniqueConstraint, Known::PrimaryKey];
    let mut hits = Vec::new();
    for (statement, anchor) in subject.known(Known::ConstraintWithoutNotValid) {
        let is_within = |inner: &Anchor| {
            anchor.range.start <= inner.range.start && inner.range.end <= anchor.range.end
        };
        let is_other = |(known, its): &(Known, Anchor)| OTHERS.contains(known) && is_within(its);
        if !statement.known.iter().any(is_other) && adds(statement, anchor) {
            hits.push(Hit::new(
                anchor,
                format!(
                    "while all rows are looked at, all reads and writes of {} wait (ACCESS EXCLUSIVE lock)",
                    named(statement)
                ),
            ));
        }
    }
    hits
}

/// The same hazard is found in a `VALIDATE` that follows: `work-under-lock` knows
/// more of it.
fn adds(statement: &Sql, anchor: &Anchor) -> bool {
    let start = anchor.range.start - statement.anchor.range.start;
    let word = statement.text.get(start..start + "add".len());
    word.is_some_and(|word| word.eq_ignore_ascii_case("add"))
}
