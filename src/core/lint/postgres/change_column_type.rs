//! A column that changes its type behind a lock.

use crate::core::lint::known::Known;
use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};

pub(super) static RULE: Rule = Rule {
    name: "change-column-type",
    level: Level::Error,
    about: About::Postgres,
    what: "A column of a table in use that changes its type.",
    why: "For most pairs of types the table and its indexes are written anew behind an ACCESS EXCLUSIVE lock: all reads and writes wait. And the release that is running reads a type that it does not expect.",
    instead: "Add a column of the new type in `prepare`, keep both alike with a trigger, fill it with a `[[backfill]]`, and drop the old one in the cleanup. Where Postgres needs no rewrite (`varchar` to `text`), suppress this with that reason.",
    bad: &[
        ("up.sql", "ALTER TABLE orders ALTER COLUMN total TYPE numeric(12, 2);\n"),
        ("down.sql", "ALTER TABLE orders ALTER COLUMN total TYPE integer;\n"),
    ],
    good: &[
        ("prepare.sql", "ALTER TABLE orders ADD COLUMN amount numeric(12, 2);\n"),
        ("prepare.down.sql", "ALTER TABLE orders DROP COLUMN amount;\n"),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    subject.hits(Known::ChangeColumnType, |table| {
        format!("if the table must be written anew for this, all reads and writes of {table} wait until it is (ACCESS EXCLUSIVE lock)")
    })
}
