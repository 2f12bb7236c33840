//! Data that goes without a question.

use crate::core::id::{Direction, Phase, StoreName};
use crate::core::lint::effects::{destroyed_documents, destroyed_rows};
use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};

pub(super) static RULE: Rule = Rule {
    name: "cleanup-without-invariant",
    level: Level::Error,
    about: About::Migration,
    what: "A cleanup that destroys data of a table or collection that no invariant asks about.",
    why: "The cleanup runs when all invariants hold. With none that looks at what goes, it runs whatever has become of it: rows that the backfill missed are gone.",
    instead: "Write an `[[invariant]]` that counts what would be lost: rows of the old shape that are not in the new one.",
    bad: &[
        ("migration.toml", "cleanup = \"next-release\"\n"),
        ("cleanup.sql", "ALTER TABLE users DROP COLUMN role;\n"),
        ("cleanup.down.sql", "ALTER TABLE users ADD COLUMN role text;\n"),
    ],
    good: &[
        (
            "migration.toml",
            "cleanup = \"next-release\"\n\n[[invariant]]\nname = \"no user lost a role\"\npostgres = \"SELECT count(*) FROM users WHERE role IS NOT NULL AND NOT (role = ANY (roles))\"\n",
        ),
        ("cleanup.sql", "ALTER TABLE users DROP COLUMN role;\n"),
        ("cleanup.down.sql", "ALTER TABLE users ADD COLUMN role text;\n"),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    let sql = subject.view.sql.iter().filter(|statement| {
        (statement.direction, statement.phase) == (Direction::Up, Phase::Cleanup)
    });
    for statement in sql {
        for (what, table) in destroyed_rows(statement) {
            if !subject.is_new_table(&table)
                && !subject.is_asked(StoreName::Postgres, &table.to_string())
            {
                hits.push(statement.hit(format!(
                    "{what} of `{table}` goes, and no invariant asks about `{table}` before it does"
                )));
            }
        }
    }
    for statement in subject.mongo_up().filter(|statement| statement.phase == Phase::Cleanup) {
        for (what, collection) in destroyed_documents(statement) {
            if !subject.is_new_collection(&collection)
                && !subject.is_asked(StoreName::Mongo, &collection)
            {
                hits.push(statement.hit(format!(
                    "{what} of `{collection}` goes, and no invariant asks about `{collection}` before it does"
                )));
            }
        }
    }
    hits
}
