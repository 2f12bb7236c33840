//! A first phase that breaks the release that is running.

use crate::core::id::Phase;
use crate::core::lint::effects::destroyed_documents;
use crate::core::lint::view::{Hit, Sql, Subject};
use crate::core::lint::{About, Level, Rule};
use crate::core::parse::sql::outline::{Act, Change};

pub(super) static RULE: Rule = Rule {
    name: "prepare-not-additive",
    level: Level::Error,
    about: About::Migration,
    what: "A `prepare` that takes something away, renames it, or makes a rule stricter.",
    why: "`prepare` is for what the release of today can live with: until the cleanup, both releases are at work. What is gone or called otherwise breaks the old one at once.",
    instead: "In `prepare`, only add: columns that may be empty or have a default, tables, indexes, triggers, validators that warn. What takes away belongs into `cleanup`.",
    bad: &[
        ("prepare.sql", "ALTER TABLE users RENAME COLUMN mail TO email;\n"),
        ("prepare.down.sql", "ALTER TABLE users RENAME COLUMN email TO mail;\n"),
    ],
    good: &[
        ("prepare.sql", "ALTER TABLE users ADD COLUMN email text;\n"),
        ("prepare.down.sql", "ALTER TABLE users DROP COLUMN email;\n"),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for statement in subject.sql_up().filter(|statement| statement.phase == Phase::Prepare) {
        if let Some(what) = takes(subject, statement) {
            hits.push(statement.hit(format!("{what}, which the release that is running does not know; this belongs into the cleanup")));
        }
    }
    for statement in subject.mongo_up().filter(|statement| statement.phase == Phase::Prepare) {
        let renames =
            statement.commands("renameCollection").map(|(name, _)| ("is renamed", name.to_owned()));
        let destroys = destroyed_documents(statement).into_iter();
        let goes = destroys.map(|(what, name)| match what {
            "the whole" => ("goes", name),
            _ => ("loses data", name),
        });
        for (what, collection) in renames.chain(goes) {
            if !subject.is_new_collection(&collection) {
                hits.push(statement.hit(format!("`{collection}` {what}, which the release that is running does not know; this belongs into the cleanup")));
                break;
            }
        }
    }
    hits
}

/// What a statement takes away, or makes stricter.
fn takes(subject: &Subject<'_>, statement: &Sql) -> Option<String> {
    match &statement.act {
        Act::Drop { what, names } => {
            let held =
                ["table", "view", "materialized view", "schema", "type", "domain", "sequence"];
            let old = names.iter().find(|name| !subject.is_new_table(name))?;
            held.contains(&what.as_str()).then(|| format!("the {what} `{old}` goes"))
        }
        Act::Truncate { tables } => {
            let old = tables.iter().find(|table| !subject.is_new_table(table))?;
            Some(format!("all rows of `{old}` go"))
        }
        Act::AlterTable { table, changes } => changes.iter().find_map(|change| match change {
            Change::DropColumn(column) => Some(format!("the column `{column}` of `{table}` goes")),
            Change::Rename => Some(format!("`{table}` or a part of it is renamed")),
            Change::SetNotNull => Some(format!("a column of `{table}` may no longer be NULL")),
            Change::SetType => Some(format!("a column of `{table}` gets another type")),
            _ => None,
        }),
        _ => None,
    }
}
