//! A script in which nothing is left to run.

use crate::core::id::Direction;
use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};
use crate::core::step::Step;

pub(super) static RULE: Rule = Rule {
    name: "empty-script",
    level: Level::Warn,
    about: About::Migration,
    what: "A script of nothing but comments.",
    why: "It is recorded as applied like any other. Who fills it in later is told that the file was edited, and what stands there then is never run; a down script of comments reverts nothing, and says that it did.",
    instead: "Write what it is to do, or delete the file.",
    bad: &[
        ("up.sql", "-- CREATE TABLE carts (id bigint PRIMARY KEY);\n"),
        ("up.mongodb.js", "db.createCollection(\"carts\");\n"),
        ("down.mongodb.js", "db.carts.drop();\n"),
    ],
    good: &[
        ("up.mongodb.js", "db.createCollection(\"carts\");\n"),
        ("down.mongodb.js", "db.carts.drop();\n"),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let up = &subject.view.migration.steps;
    let is_all = up.iter().all(Step::is_nothing);
    let hit = |step: &Step| {
        let message = match step.name.direction() {
            Direction::Up if is_all => {
                "there is no statement in this migration, so `up` and `plan` refuse it"
            }
            Direction::Up => {
                "there is no statement in this file: once it is applied, what is added to it is never run"
            }
            Direction::Down => "there is no statement in this file: it reverts nothing",
        };
        Hit::new(&subject.opening(&step.file), message)
    };
    up.iter().chain(&subject.view.down).filter(|step| step.is_nothing()).map(hit).collect()
}
