//! All rows of a table, changed in one transaction.

use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};
use crate::core::parse::sql::outline::{RowChange, row_changes};

pub(super) static RULE: Rule = Rule {
    name: "update-without-where",
    level: Level::Error,
    about: About::Postgres,
    what: "`UPDATE` of a table in use, without WHERE.",
    why: "Every row is locked until the whole of it is committed: writers of those rows wait, replicas lag behind, and the table grows by all dead rows at once.",
    instead: "Use a `[[backfill]]`: it goes along the key in batches, pauses when the servers are busy, and goes on where it stopped.",
    bad: &[("up.sql", "UPDATE orders SET channel = 'web';\n"), ("down.sql", "SELECT 1;\n")],
    good: &[
        (
            "migration.toml",
            "[[backfill]]\nname = \"orders of the shop\"\npostgres = { table = \"orders\", set = \"channel = 'web'\", where = \"channel IS NULL\" }\n\n[[invariant]]\nname = \"every order has a channel\"\npostgres = \"SELECT count(*) FROM orders WHERE channel IS NULL\"\n",
        ),
        ("prepare.sql", "ALTER TABLE orders ADD COLUMN channel text;\n"),
        ("prepare.down.sql", "ALTER TABLE orders DROP COLUMN channel;\n"),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for statement in subject.sql() {
        let changes = row_changes(&statement.text);
        let all = changes.iter().find(|change| {
            change.word == "UPDATE" && !change.condition && !subject.is_new_table(&change.table)
        });
        if let Some(RowChange { table, .. }) = all {
            hits.push(statement.hit(format!("every row of `{table}` is changed in one transaction: whoever writes one of them waits until all are")));
        }
    }
    hits
}
