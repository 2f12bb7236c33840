//! A small integer that may run out.

use crate::core::lint::known::Known;
use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};

pub(super) static RULE: Rule = Rule {
    name: "prefer-bigint-over-smallint",
    level: Level::Off,
    about: About::Postgres,
    what: "A column of the type `smallint`.",
    why: "It ends at 32,767, and a wider one is a rewrite of the table. This is an opinion, so it is off unless `[lint.levels]` switches it on.",
    instead: "Write `bigint`, or `integer`.",
    bad: &[
        ("up.sql", "CREATE TABLE things (id smallint PRIMARY KEY);\n"),
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
    subject.opinions(Known::SmallintInsteadOfBigint, "a `smallint` ends at 32,767")
}
