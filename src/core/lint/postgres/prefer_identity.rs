//! A sequence that belongs to nobody.

use crate::core::lint::known::Known;
use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};

pub(super) static RULE: Rule = Rule {
    name: "prefer-identity",
    level: Level::Off,
    about: About::Postgres,
    what: "A column of a `serial` type.",
    why: "Its sequence has rights and an owner of its own, and an INSERT with a value of its own leaves it behind. This is an opinion, so it is off unless `[lint.levels]` switches it on.",
    instead: "Write `bigint GENERATED ALWAYS AS IDENTITY`.",
    bad: &[
        ("up.sql", "CREATE TABLE things (id bigserial PRIMARY KEY);\n"),
        ("down.sql", "DROP TABLE things;\n"),
    ],
    good: &[
        ("up.sql", "CREATE TABLE things (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY);\n"),
        ("down.sql", "DROP TABLE things;\n"),
    ],
    check,
};

/// A new table is where it is easily changed.
fn check(subject: &Subject<'_>) -> Vec<Hit> {
    subject.opinions(
        Known::SerialInsteadOfIdentity,
        "the sequence of a `serial` has rights and an owner of its own",
    )
}
