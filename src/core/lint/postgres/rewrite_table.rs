//! A table that is written anew behind a lock.

use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};
use crate::core::parse::sql::outline::{Act, Change};

pub(super) static RULE: Rule = Rule {
    name: "rewrite-table",
    level: Level::Error,
    about: About::Postgres,
    what: "`VACUUM FULL`, `CLUSTER`, `REPACK`, `SET LOGGED`, `SET TABLESPACE` or `SET ACCESS METHOD` on a table in use.",
    why: "Every row is copied behind an ACCESS EXCLUSIVE lock: all reads and writes wait until the copy and all indexes are there. Meanwhile it needs the space of both.",
    instead: "A plain `VACUUM` gives space back to the table and stops nobody. To give it back to the disk, use `pg_repack` or `pg_squeeze` outside of migrations.",
    bad: &[("up.sql", "VACUUM FULL orders;\n"), ("down.sql", "SELECT 1;\n")],
    good: &[("up.sql", "VACUUM orders;\n"), ("down.sql", "SELECT 1;\n")],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for statement in subject.sql() {
        let word = match &statement.act {
            Act::Rewrite { word, .. } => Some(*word),
            Act::AlterTable { changes, .. } => changes.iter().find_map(|change| match change {
                Change::Rewrite(word) => Some(*word),
                _ => None,
            }),
            _ => None,
        };
        if let Some(word) = word {
            let table = match statement.table() {
                Some(table) => format!("`{table}`"),
                None => "every table, one after the other,".to_owned(),
            };
            hits.push(statement.hit(format!(
                "{word} copies {table} behind an ACCESS EXCLUSIVE lock: all reads and writes wait until it is done"
            )));
        }
    }
    hits
}
