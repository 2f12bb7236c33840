//! A new column whose default rewrites the table.

use crate::core::lint::known::Known;
use crate::core::lint::view::{Hit, Subject, named};
use crate::core::lint::{About, Level, Rule};
use crate::core::parse::sql::outline::{Act, Change, names};

pub(super) static RULE: Rule = Rule {
    name: "volatile-default",
    level: Level::Error,
    about: About::Postgres,
    what: "A column that is added with a default that differs from row to row, or that is generated, identity or serial.",
    why: "A constant is kept in the catalog. Anything else is written into every row at once, behind an ACCESS EXCLUSIVE lock: all reads and writes wait while the table is written anew.",
    instead: "Add the column without a default, set the default for new rows with `ALTER COLUMN … SET DEFAULT`, and fill the old rows with a `[[backfill]]`.",
    bad: &[
        ("up.sql", "ALTER TABLE orders ADD COLUMN token uuid DEFAULT gen_random_uuid();\n"),
        ("down.sql", "ALTER TABLE orders DROP COLUMN token;\n"),
    ],
    good: &[
        (
            "up.sql",
            "ALTER TABLE orders ADD COLUMN token uuid;\nALTER TABLE orders ALTER COLUMN token SET DEFAULT gen_random_uuid();\n",
        ),
        ("down.sql", "ALTER TABLE orders DROP COLUMN token;\n"),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let say = |table: &str| {
        format!(
            "this default is written into every row: all reads and writes of {table} wait while the table is written anew (ACCESS EXCLUSIVE lock)"
        )
    };
    let mut hits = subject.hits(Known::VolatileDefault, say);
    for statement in subject.sql() {
        let Act::AlterTable { changes, .. } = &statement.act else { continue };
        let adds = changes.iter().any(|change| matches!(change, Change::AddColumn(_)));
        let serial = ["serial", "bigserial", "smallserial"];
        if adds && serial.iter().any(|word| names(&statement.text, word)) {
            hits.push(statement.hit(say(&named(statement))));
        }
    }
    hits
}
