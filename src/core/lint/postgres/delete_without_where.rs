//! All rows of a table, deleted in one transaction.

use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};
use crate::core::parse::sql::outline::{RowChange, row_changes};

pub(super) static RULE: Rule = Rule {
    name: "delete-without-where",
    level: Level::Error,
    about: About::Postgres,
    what: "`DELETE` of a table in use, without WHERE.",
    why: "Every row is locked until the whole of it is committed: writers of those rows wait, replicas lag behind, and the table grows by all dead rows at once. And everything is gone.",
    instead: "Use a `[[backfill]]`: it goes along the key in batches, pauses when the servers are busy, and goes on where it stopped.",
    bad: &[("up.sql", "DELETE FROM carts;\n"), ("down.sql", "SELECT 1;\n")],
    good: &[(
        "migration.toml",
        "irreversible = \"carts without an owner are of no use to anybody\"\n\n[[backfill]]\nname = \"carts without an owner\"\npostgres = { table = \"carts\", sql = \"DELETE FROM carts WHERE user_id IS NULL AND {batch}\" }\n\n[[invariant]]\nname = \"every cart has an owner\"\npostgres = \"SELECT count(*) FROM carts WHERE user_id IS NULL\"\n",
    )],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for statement in subject.sql() {
        let changes = row_changes(&statement.text);
        let all = changes.iter().find(|change| {
            change.word == "DELETE" && !change.condition && !subject.is_new_table(&change.table)
        });
        if let Some(RowChange { table, .. }) = all {
            hits.push(statement.hit(format!("every row of `{table}` is deleted in one transaction: whoever writes one of them waits until all are")));
        }
    }
    hits
}
