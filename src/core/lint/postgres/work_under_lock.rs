//! Long work behind a lock that only a short statement needed.

use crate::core::lint::view::{Hit, Sql, Subject};
use crate::core::lint::{About, Level, Rule};
use crate::core::parse::sql::outline::{Act, Change, RowChange, row_changes, works_long};
use crate::core::step::{Commit, QualifiedName};

pub(super) static RULE: Rule = Rule {
    name: "work-under-lock",
    level: Level::Warn,
    about: About::Postgres,
    what: "A transaction that changes a table in use and then does something that takes as long as a table is large.",
    why: "A lock is kept to the end of its transaction. `ALTER TABLE`, `CREATE TRIGGER`, `DROP` and `TRUNCATE` take one that stops writers or everybody, and all of them wait for the UPDATE, the index or the validation that follows.",
    instead: "Put the long statement in a later phase or migration, or into a `[[backfill]]`; or write `transaction = false` in migration.toml, and each statement is committed alone.",
    bad: &[
        (
            "up.sql",
            "ALTER TABLE orders ADD COLUMN channel text;\nUPDATE orders SET channel = 'web' WHERE shop IS NULL;\n",
        ),
        ("down.sql", "ALTER TABLE orders DROP COLUMN channel;\n"),
    ],
    good: &[
        (
            "migration.toml",
            "[[backfill]]\nname = \"orders of the shop\"\npostgres = { table = \"orders\", set = \"channel = 'web'\", where = \"channel IS NULL AND shop IS NULL\" }\n\n[[invariant]]\nname = \"every order of the shop has a channel\"\npostgres = \"SELECT count(*) FROM orders WHERE channel IS NULL AND shop IS NULL\"\n",
        ),
        ("prepare.sql", "ALTER TABLE orders ADD COLUMN channel text;\n"),
        ("prepare.down.sql", "ALTER TABLE orders DROP COLUMN channel;\n"),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    // The step, and what it has locked.
    let mut locked: Option<(usize, String, u32)> = None;
    for statement in &subject.view.sql {
        if locked.as_ref().is_some_and(|(step, ..)| *step != statement.step) {
            locked = None;
        }
        let alone = statement.commit == Commit::Journaled;
        if let Some((_, table, line)) = &locked
            && works_long(&statement.text)
            && !is_told_elsewhere(subject, statement)
        {
            hits.push(statement.hit(format!(
                "`{table}` has been locked since line {line} of this transaction, and whoever needs it waits until this is done"
            )));
        }
        if !alone
            && locked.is_none()
            && let Some(table) = locks(subject, statement)
        {
            let line = subject.line(&statement.anchor);
            locked = Some((statement.step, table, line));
        }
    }
    hits
}

/// The table in use that a statement locks against writers or everybody.
fn locks(subject: &Subject<'_>, statement: &Sql) -> Option<String> {
    let tables: Vec<&QualifiedName> = match &statement.act {
        Act::AlterTable { table, changes } => {
            // It looks at rows, and lets everybody go on.
            let only_validates = changes.iter().all(|change| matches!(change, Change::Validate(_)));
            if only_validates { Vec::new() } else { vec![table] }
        }
        Act::CreateTrigger { table, .. } => vec![table],
        Act::Drop { what, names } if what == "table" => names.iter().collect(),
        Act::Truncate { tables } | Act::Lock { tables, .. } => tables.iter().collect(),
        _ => Vec::new(),
    };
    let old = tables.into_iter().find(|table| !subject.is_new_table(table));
    old.map(ToString::to_string)
}

/// Rows of a table that was just made are few, or nobody's; of all rows of a table
/// other rules say more.
fn is_told_elsewhere(subject: &Subject<'_>, statement: &Sql) -> bool {
    let changes = row_changes(&statement.text);
    let harmless = |change: &RowChange| !change.condition || subject.is_new_table(&change.table);
    let rows = !changes.is_empty() && changes.iter().all(harmless);
    rows || statement.table().is_some_and(|table| subject.is_new_table(table))
}
