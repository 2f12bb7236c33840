//! A column that becomes NOT NULL behind a lock.

use crate::core::lint::known::Known;
use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};

pub(super) static RULE: Rule = Rule {
    name: "set-not-null",
    level: Level::Error,
    about: About::Postgres,
    what: "`SET NOT NULL` on a table in use, without a valid constraint that says so already.",
    why: "It takes an ACCESS EXCLUSIVE lock and keeps it while it reads the whole table: all reads and writes wait.",
    instead: "`ADD CONSTRAINT … CHECK (column IS NOT NULL) NOT VALID`, then `VALIDATE CONSTRAINT` in a step of its own, then `SET NOT NULL`, which believes the constraint; then drop it.",
    bad: &[
        ("up.sql", "ALTER TABLE orders ALTER COLUMN channel SET NOT NULL;\n"),
        ("down.sql", "ALTER TABLE orders ALTER COLUMN channel DROP NOT NULL;\n"),
    ],
    good: &[
        (
            "migration.toml",
            "transaction = false   # each statement alone, so that no lock is kept\n",
        ),
        (
            "up.sql",
            "ALTER TABLE orders ADD CONSTRAINT channel_known CHECK (channel IS NOT NULL) NOT VALID;\nALTER TABLE orders VALIDATE CONSTRAINT channel_known;\nALTER TABLE orders ALTER COLUMN channel SET NOT NULL;\nALTER TABLE orders DROP CONSTRAINT channel_known;\n",
        ),
        (
            "down.sql",
            "ALTER TABLE orders ALTER COLUMN channel DROP NOT NULL;\n-- channel_known is gone already.\n",
        ),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    subject.hits(Known::SetNotNull, |table| {
        format!("while all rows are looked at for NULLs, all reads and writes of {table} wait (ACCESS EXCLUSIVE lock)")
    })
}
