//! A new column that nobody fills.

use crate::core::lint::known::Known;
use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};

pub(super) static RULE: Rule = Rule {
    name: "required-column",
    level: Level::Error,
    about: About::Postgres,
    what: "A column that is added as NOT NULL without a default.",
    why: "It fails if the table has a row. If it has none, the inserts of the release that is running fail from then on: it does not know the column.",
    instead: "Give it a constant default, or add it as it may be NULL, fill it with a `[[backfill]]`, and make it NOT NULL in the cleanup.",
    bad: &[
        ("up.sql", "ALTER TABLE orders ADD COLUMN channel text NOT NULL;\n"),
        ("down.sql", "ALTER TABLE orders DROP COLUMN channel;\n"),
    ],
    good: &[
        ("up.sql", "ALTER TABLE orders ADD COLUMN channel text NOT NULL DEFAULT 'web';\n"),
        ("down.sql", "ALTER TABLE orders DROP COLUMN channel;\n"),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    subject.hits(Known::RequiredColumn, |table| {
        format!("this fails if {table} has rows, and inserts of the release that is running do not fill the column")
    })
}
