//! A unique constraint that builds its index behind a lock.

use crate::core::lint::known::Known;
use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};

pub(super) static RULE: Rule = Rule {
    name: "unique-constraint-without-index",
    level: Level::Error,
    about: About::Postgres,
    what: "A unique constraint that is added to a table in use without an index that is there already.",
    why: "It takes an ACCESS EXCLUSIVE lock and keeps it while the index is built: all reads and writes wait.",
    instead: "`CREATE UNIQUE INDEX CONCURRENTLY` first, then `ADD CONSTRAINT … UNIQUE USING INDEX`, which takes a moment.",
    bad: &[
        ("up.sql", "ALTER TABLE users ADD CONSTRAINT users_email UNIQUE (email);\n"),
        ("down.sql", "ALTER TABLE users DROP CONSTRAINT users_email;\n"),
    ],
    good: &[
        (
            "up.sql",
            "CREATE UNIQUE INDEX CONCURRENTLY users_email ON users (email);\nALTER TABLE users ADD CONSTRAINT users_email UNIQUE USING INDEX users_email;\n",
        ),
        ("down.sql", "ALTER TABLE users DROP CONSTRAINT users_email;\n"),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    subject.hits(Known::UniqueConstraint, |table| {
        format!(
            "while its index is built, all reads and writes of {table} wait (ACCESS EXCLUSIVE lock)"
        )
    })
}
