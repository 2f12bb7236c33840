//! A way back that leaves something behind.

use crate::core::id::{Direction, StoreName};
use crate::core::lint::effects::{Index, indexes};
use crate::core::lint::view::{Hit, Sql, Subject};
use crate::core::lint::{About, Level, Rule};
use crate::core::parse::sql::outline::{Act, Change, names};
use crate::core::step::{Body, QualifiedName, Step};
use bson::{Bson, Document};

pub(super) static RULE: Rule = Rule {
    name: "down-forgets",
    level: Level::Warn,
    about: About::Migration,
    what: "A down script that does not name something that its up script makes.",
    why: "After `migrate down` it is still there, and the next `migrate up` fails: it exists already.",
    instead: "Drop it in the down script, in reverse order. What belongs to a table or collection that is dropped goes with it.",
    bad: &[
        (
            "up.sql",
            "CREATE TABLE carts (id bigint PRIMARY KEY);\nCREATE TABLE cart_lines (id bigint PRIMARY KEY);\n",
        ),
        ("down.sql", "DROP TABLE carts;\n"),
    ],
    good: &[
        (
            "up.sql",
            "CREATE TABLE carts (id bigint PRIMARY KEY);\nCREATE TABLE cart_lines (id bigint PRIMARY KEY);\n",
        ),
        ("down.sql", "DROP TABLE cart_lines;\nDROP TABLE carts;\n"),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let migration = subject.view.migration;
    let runs_down = |step: &Step| matches!(step.body, Body::Program(_));
    if migration.options.irreversible.is_some() || subject.view.down.iter().any(runs_down) {
        return Vec::new();
    }
    let mut hits = sql_hits(subject);
    hits.extend(mongo_hits(subject));
    hits
}

fn sql_hits(subject: &Subject<'_>) -> Vec<Hit> {
    let statements = &subject.view.sql;
    let down = || statements.iter().filter(|statement| statement.direction == Direction::Down);
    // What is put together when it runs may name anything.
    if down().any(|statement| !statement.dynamic.is_empty()) {
        return Vec::new();
    }
    let mut hits = Vec::new();
    for (at, statement) in statements.iter().enumerate() {
        if statement.direction != Direction::Up
            || !subject.has_down(statement.phase, StoreName::Postgres)
        {
            continue;
        }
        for (what, name, owner) in made(subject, statement) {
            let drops = |other: &&Sql| match &other.act {
                Act::Drop { names: dropped, .. } => dropped.iter().any(|it| {
                    it.name == name
                        || owner.as_ref().is_some_and(|owner| {
                            it.name == owner.name || Some(&it.name) == owner.schema.as_ref()
                        })
                        // A partition goes with its table.
                        || names(&statement.text, "partition") && names(&statement.text, &it.name)
                }),
                Act::AlterTable { table, changes } => {
                    // With a column go the indexes and constraints that name it.
                    let takes_along = |change: &Change| match change {
                        Change::DropColumn(column) => names(&statement.text, column),
                        _ => false,
                    };
                    names(&other.text, "drop") && names(&other.text, &name)
                        || matches!(what.as_str(), "index" | "constraint")
                            && owner.as_ref().is_some_and(|owner| owner.name == table.name)
                            && changes.iter().any(takes_along)
                }
                _ => false,
            };
            let named = down().any(|other| names(&other.text, &name) || drops(&other));
            let later = statements[at + 1..].iter().filter(|it| it.direction == Direction::Up);
            if !named && !later.into_iter().any(|it| drops(&it)) {
                hits.push(statement.hit(format!(
                    "no down script names the {what} `{name}`: it stays behind, and the next `up` finds it in the way"
                )));
            }
        }
    }
    hits
}

/// What a statement makes that does not go with something else that is made: what
/// it is, its name, and what would take it along.
fn made(subject: &Subject<'_>, statement: &Sql) -> Vec<(String, String, Option<QualifiedName>)> {
    let of = |what: &str, name: &QualifiedName| {
        vec![(what.to_owned(), name.name.clone(), Some(name.clone()))]
    };
    let of_table = |what: &str, name: &str, table: &QualifiedName| match subject.is_new_table(table)
    {
        true => Vec::new(),
        false => vec![(what.to_owned(), name.to_owned(), Some(table.clone()))],
    };
    match &statement.act {
        Act::CreateTable { temporary: true, .. } => Vec::new(),
        Act::CreateTable { table, .. } => of("table", table),
        // What was there before stays.
        Act::Create { what, .. } if what == "extension" && names(&statement.text, "exists") => {
            Vec::new()
        }
        Act::Create { what, name } => of(what, name),
        Act::CreateIndex { index: Some(index), table } => of_table("index", index, table),
        Act::CreateTrigger { trigger, table } => of_table("trigger", trigger, table),
        Act::AlterTable { table, changes } => changes
            .iter()
            .flat_map(|change| match change {
                Change::AddColumn(column) => of_table("column", column, table),
                Change::AddConstraint { name: Some(name), .. } => {
                    of_table("constraint", name, table)
                }
                _ => Vec::new(),
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn mongo_hits(subject: &Subject<'_>) -> Vec<Hit> {
    let statements = &subject.view.mongo;
    let commands = |direction: Direction| {
        let these = statements.iter().filter(move |it| it.direction == direction);
        these.flat_map(|statement| &statement.commands)
    };
    let is_dropped = |collection: &str| {
        commands(Direction::Down).chain(commands(Direction::Up)).any(|command| {
            let gone = command.get_str("drop").ok() == Some(collection);
            gone || command.get_str("renameCollection").ok() == Some(collection)
        })
    };
    let drops_index = |command: &Document, index: &Index<'_>| {
        command.get_str("dropIndexes").ok() == Some(index.collection)
            && match command.get("index") {
                Some(Bson::String(name)) => name == "*" || Some(name.as_str()) == index.name,
                Some(Bson::Array(names)) => names.iter().any(|name| name.as_str() == index.name),
                Some(Bson::Document(key)) => index.document.get_document("key").ok() == Some(key),
                _ => false,
            }
    };
    let mut hits = Vec::new();
    for statement in subject.mongo_up() {
        if !subject.has_down(statement.phase, StoreName::Mongo) {
            continue;
        }
        for (collection, _) in statement.commands("create") {
            if !is_dropped(collection) {
                hits.push(statement.hit(format!("no down script drops `{collection}`: it stays behind, and the next `up` finds it in the way")));
            }
        }
        for index in indexes(statement) {
            let Some(name) = index.name else { continue };
            let mut all = commands(Direction::Down).chain(commands(Direction::Up));
            let is_gone = is_dropped(index.collection) || all.any(|it| drops_index(it, &index));
            if !is_gone && !subject.is_new_collection(index.collection) {
                let collection = index.collection;
                hits.push(statement.hit(format!(
                    "no down script drops the index `{name}` of `{collection}`: it stays behind"
                )));
            }
        }
    }
    hits
}
