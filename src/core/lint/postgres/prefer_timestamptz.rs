//! A time without a place.

use crate::core::lint::known::Known;
use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};

pub(super) static RULE: Rule = Rule {
    name: "prefer-timestamptz",
    level: Level::Off,
    about: About::Postgres,
    what: "A column of the type `timestamp` without a time zone.",
    why: "It keeps what the clock on the wall said, and not where: the same row is another moment for another session. This is an opinion, so it is off unless `[lint.levels]` switches it on.",
    instead: "Write `timestamptz`.",
    bad: &[
        ("up.sql", "CREATE TABLE things (at timestamp);\n"),
        ("down.sql", "DROP TABLE things;\n"),
    ],
    good: &[
        ("up.sql", "CREATE TABLE things (at timestamptz);\n"),
        ("down.sql", "DROP TABLE things;\n"),
    ],
    check,
};

/// A new table is where it is easily changed.
fn check(subject: &Subject<'_>) -> Vec<Hit> {
    subject.opinions(
        Known::TimestampWithoutZone,
        "a `timestamp` does not say in which time zone it is",
    )
}
