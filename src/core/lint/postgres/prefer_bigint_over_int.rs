//! An integer that may run out.

use crate::core::lint::known::Known;
use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};

pub(super) static RULE: Rule = Rule {
    name: "prefer-bigint-over-int",
    level: Level::Off,
    about: About::Postgres,
    what: "A column of the type `integer`.",
    why: "A key of 32 bits runs out at 2,147,483,647 rows, and a wider one is a rewrite of the table. This is an opinion, so it is off unless `[lint.levels]` switches it on.",
    instead: "Write `bigint`.",
    bad: &[
        ("up.sql", "CREATE TABLE things (id integer PRIMARY KEY);\n"),
        ("down.sql", "DROP TABLE things;\n"),
    ],
    good: &[
        ("up.sql", "CREATE TABLE things (id bigint PRIMARY KEY);\n"),
        ("down.sql", "DROP TABLE things;\n"),
    ],
    check,
};

/// A new table is where it is easily changed.
fn check(subject: &Subject<'_>) -> Vec<Hit> {
    subject.opinions(Known::IntInsteadOfBigint, "an `integer` ends at 2,147,483,647")
}
