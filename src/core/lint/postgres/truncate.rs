//! A table that is emptied.

use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};
use crate::core::parse::sql::outline::{Act, names};

pub(super) static RULE: Rule = Rule {
    name: "truncate",
    level: Level::Error,
    about: About::Postgres,
    what: "`TRUNCATE` of a table in use.",
    why: "It takes an ACCESS EXCLUSIVE lock: all reads and writes wait. All rows are gone, and with CASCADE those of every table that refers to it, whatever they are.",
    instead: "Delete what has to go with a `[[backfill]]`, in batches; or write the new rows into a table of their own, and exchange the two in the cleanup.",
    bad: &[("up.sql", "TRUNCATE carts CASCADE;\n"), ("down.sql", "SELECT 1;\n")],
    good: &[(
        "migration.toml",
        "irreversible = \"carts without an owner are of no use to anybody\"\n\n[[backfill]]\nname = \"carts without an owner\"\npostgres = { table = \"carts\", sql = \"DELETE FROM carts WHERE user_id IS NULL AND {batch}\" }\n\n[[invariant]]\nname = \"every cart has an owner\"\npostgres = \"SELECT count(*) FROM carts WHERE user_id IS NULL\"\n",
    )],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for statement in subject.sql_up() {
        let Act::Truncate { tables } = &statement.act else { continue };
        if let Some(table) = tables.iter().find(|table| !subject.is_new_table(table)) {
            let more = match names(&statement.text, "cascade") {
                true => ", and those of every table that refers to it",
                false => "",
            };
            hits.push(statement.hit(format!(
                "all rows of `{table}` are gone{more}; reads and writes wait for it (ACCESS EXCLUSIVE lock)"
            )));
        }
    }
    hits
}
