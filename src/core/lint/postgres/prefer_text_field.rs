//! A length that will have to change.

use crate::core::lint::known::Known;
use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};

pub(super) static RULE: Rule = Rule {
    name: "prefer-text-field",
    level: Level::Off,
    about: About::Postgres,
    what: "A column of the type `varchar(n)`.",
    why: "A shorter limit reads every row behind a lock, and the limit is part of every copy of the schema. This is an opinion, so it is off unless `[lint.levels]` switches it on.",
    instead: "Write `text`, with a CHECK constraint if the length matters.",
    bad: &[
        ("up.sql", "CREATE TABLE things (name varchar(100));\n"),
        ("down.sql", "DROP TABLE things;\n"),
    ],
    good: &[
        ("up.sql", "CREATE TABLE things (name text CHECK (length(name) <= 100));\n"),
        ("down.sql", "DROP TABLE things;\n"),
    ],
    check,
};

/// A new table is where it is easily changed.
fn check(subject: &Subject<'_>) -> Vec<Hit> {
    subject.opinions(Known::VarcharInsteadOfText, "the length of a `varchar` is hard to change")
}
