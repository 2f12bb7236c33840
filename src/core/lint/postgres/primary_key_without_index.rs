//! A primary key that builds its index behind a lock.

use crate::core::lint::known::Known;
use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};

pub(super) static RULE: Rule = Rule {
    name: "primary-key-without-index",
    level: Level::Error,
    about: About::Postgres,
    what: "A primary key that is added to a table in use without an index that is there already.",
    why: "It takes an ACCESS EXCLUSIVE lock and keeps it while every row is looked at for NULLs and the index is built: all reads and writes wait.",
    instead: "`CREATE UNIQUE INDEX CONCURRENTLY` first, see that the columns are NOT NULL, then `ADD PRIMARY KEY USING INDEX`.",
    bad: &[
        ("up.sql", "ALTER TABLE orders ADD PRIMARY KEY (id);\n"),
        ("down.sql", "ALTER TABLE orders DROP CONSTRAINT orders_pkey;\n"),
    ],
    good: &[
        (
            "up.sql",
            "CREATE UNIQUE INDEX CONCURRENTLY orders_pkey ON orders (id);\nALTER TABLE orders ADD CONSTRAINT orders_pkey PRIMARY KEY USING INDEX orders_pkey;\n",
        ),
        ("down.sql", "ALTER TABLE orders DROP CONSTRAINT orders_pkey;\n"),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    subject.hits(Known::PrimaryKey, |table| {
        format!(
            "while its index is built, all reads and writes of {table} wait (ACCESS EXCLUSIVE lock)"
        )
    })
}
