//! A statement that cannot be run twice.

use crate::core::lint::known::Known;
use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};

pub(super) static RULE: Rule = Rule {
    name: "prefer-robust-stmts",
    level: Level::Off,
    about: About::Postgres,
    what: "A statement without `IF EXISTS` or `IF NOT EXISTS`.",
    why: "Other tools run a script again that stopped in the middle. Here a script and its record are one transaction, and nothing is run twice. This is an opinion, so it is off unless `[lint.levels]` switches it on.",
    instead: "Write `IF NOT EXISTS`, if scripts are also run by something else.",
    bad: &[
        (
            "up.sql",
            "CREATE TABLE things (id bigint PRIMARY KEY);\nCREATE INDEX CONCURRENTLY things_id ON things (id);\n",
        ),
        ("down.sql", "DROP TABLE things;\n"),
    ],
    good: &[
        (
            "up.sql",
            "CREATE TABLE IF NOT EXISTS things (id bigint PRIMARY KEY);\nCREATE INDEX CONCURRENTLY IF NOT EXISTS things_id ON things (id);\n",
        ),
        ("down.sql", "DROP TABLE things;\n"),
    ],
    check,
};

/// A new table is where it is easily changed.
fn check(subject: &Subject<'_>) -> Vec<Hit> {
    subject.opinions(Known::NotRobust, "this cannot be run twice")
}
