//! A foreign key that looks at every row behind a lock.

use crate::core::lint::known::Known;
use crate::core::lint::view::{Hit, Subject, named};
use crate::core::lint::{About, Level, Rule};
use crate::core::parse::sql::outline::{Act, Change, names};

pub(super) static RULE: Rule = Rule {
    name: "foreign-key-without-not-valid",
    level: Level::Error,
    about: About::Postgres,
    what: "A foreign key that is added to a table in use, with all its rows looked at there and then.",
    why: "It takes a SHARE ROW EXCLUSIVE lock on both tables and keeps it while it looks up every row: all writes to both wait.",
    instead: "Add it `NOT VALID`, and `VALIDATE CONSTRAINT` in a later phase or migration: that one lets writes go on.",
    bad: &[
        (
            "up.sql",
            "ALTER TABLE orders ADD CONSTRAINT orders_user FOREIGN KEY (user_id) REFERENCES users (id);\n",
        ),
        ("down.sql", "ALTER TABLE orders DROP CONSTRAINT orders_user;\n"),
    ],
    good: &[
        (
            "prepare.sql",
            "ALTER TABLE orders ADD CONSTRAINT orders_user FOREIGN KEY (user_id) REFERENCES users (id) NOT VALID;\n",
        ),
        ("prepare.down.sql", "ALTER TABLE orders DROP CONSTRAINT orders_user;\n"),
        ("cleanup.sql", "ALTER TABLE orders VALIDATE CONSTRAINT orders_user;\n"),
        ("cleanup.down.sql", "-- It goes with prepare.down.\n"),
    ],
    check,
};

/// A column that is added without a default is NULL in every row, so that there is
/// nothing to look up.
fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for (statement, anchor) in subject.known(Known::ForeignKeyWithoutNotValid) {
        let Act::AlterTable { changes, .. } = &statement.act else { continue };
        let adds = changes.iter().any(|change| matches!(change, Change::AddConstraint { .. }));
        if adds || names(&statement.text, "default") {
            hits.push(Hit::new(
                anchor,
                format!("while all rows are looked up, writes to {} and to the table that it refers to wait (SHARE ROW EXCLUSIVE lock)", named(statement)),
            ));
        }
    }
    hits
}
