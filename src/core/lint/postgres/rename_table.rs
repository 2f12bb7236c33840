//! A table that is called otherwise from one moment to the next.

use crate::core::id::{Direction, Phase};
use crate::core::lint::known::Known;
use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};
use crate::core::parse::sql::outline::Act;

pub(super) static RULE: Rule = Rule {
    name: "rename-table",
    level: Level::Warn,
    about: About::Postgres,
    what: "A table in use that is renamed.",
    why: "The release that is running asks for the old name, and each of its queries fails from that moment on.",
    instead: "Rename it, and in the same transaction make a view of the old name (`CREATE VIEW orders AS SELECT * FROM purchases`): simple views can be written to. Drop the view when nobody asks for it.",
    bad: &[
        ("up.sql", "ALTER TABLE orders RENAME TO purchases;\n"),
        ("down.sql", "ALTER TABLE purchases RENAME TO orders;\n"),
    ],
    good: &[
        (
            "up.sql",
            "ALTER TABLE orders RENAME TO purchases;\nCREATE VIEW orders AS SELECT * FROM purchases;\n",
        ),
        ("down.sql", "DROP VIEW orders;\nALTER TABLE purchases RENAME TO orders;\n"),
    ],
    check,
};

/// Where a view takes the old name, nobody notices.
fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let found = subject.known(Known::RenameTable);
    let mut hits = Vec::new();
    for (statement, anchor) in found {
        let Some(table) = statement.table() else { continue };
        let has_view = subject.sql_up().any(|other| {
            let is_view = matches!(&other.act, Act::Create { what, name } if what == "view" && name.name == table.name);
            is_view && other.step == statement.step
        });
        let counts = statement.direction == Direction::Up && statement.phase != Phase::Prepare;
        if counts && !has_view {
            hits.push(Hit::new(
                anchor,
                format!("a release that asks for `{table}` fails from this moment on"),
            ));
        }
    }
    hits
}
