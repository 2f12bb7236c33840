//! Blanks that nobody wrote.

use crate::core::lint::known::Known;
use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};

pub(super) static RULE: Rule = Rule {
    name: "prefer-text-over-char",
    level: Level::Off,
    about: About::Postgres,
    what: "A column of the type `char(n)`.",
    why: "Postgres fills it up with blanks, and compares it without them. This is an opinion, so it is off unless `[lint.levels]` switches it on.",
    instead: "Write `text`, with a CHECK constraint if the length matters.",
    bad: &[
        ("up.sql", "CREATE TABLE things (code char(8));\n"),
        ("down.sql", "DROP TABLE things;\n"),
    ],
    good: &[
        ("up.sql", "CREATE TABLE things (code text CHECK (length(code) = 8));\n"),
        ("down.sql", "DROP TABLE things;\n"),
    ],
    check,
};

/// A new table is where it is easily changed.
fn check(subject: &Subject<'_>) -> Vec<Hit> {
    subject.opinions(Known::CharInsteadOfText, "a `char` is filled up with blanks")
}
