//! A rule that refuses writes before anybody knows who breaks it.

use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};
use std::collections::BTreeSet;

pub(super) static RULE: Rule = Rule {
    name: "validator-without-warning",
    level: Level::Warn,
    about: About::Mongo,
    what: "A validator of a collection in use that refuses from the beginning, without a step in which it only warns.",
    why: "From that moment on, writes of documents that break it fail, those of the release that is running too. `collMod` does not look at what is there, so nobody knows how many that are.",
    instead: "In `prepare`, set it with `validationAction: \"warn\"`: the server's log says who breaks it. Count with an invariant what breaks it, and set `\"error\"` in the cleanup.",
    bad: &[
        (
            "up.mongodb.js",
            "db.runCommand({ collMod: \"users\", validator: { email: { $type: \"string\" } }, validationAction: \"error\" });\n",
        ),
        (
            "down.mongodb.js",
            "db.runCommand({ collMod: \"users\", validator: {}, validationLevel: \"off\" });\n",
        ),
    ],
    good: &[
        (
            "prepare.mongodb.js",
            "db.runCommand({ collMod: \"users\", validator: { email: { $type: \"string\" } }, validationAction: \"warn\" });\n",
        ),
        (
            "prepare.down.mongodb.js",
            "db.runCommand({ collMod: \"users\", validator: {}, validationLevel: \"off\" });\n",
        ),
        (
            "migration.toml",
            "[[invariant]]\nname = \"every user has an address\"\nmongo = { collection = \"users\", count = \"{ email: { $not: { $type: 'string' } } }\" }\n",
        ),
        (
            "cleanup.mongodb.js",
            "db.runCommand({ collMod: \"users\", validationAction: \"error\" });\n",
        ),
        (
            "cleanup.down.mongodb.js",
            "db.runCommand({ collMod: \"users\", validationAction: \"warn\" });\n",
        ),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    let mut warned = BTreeSet::new();
    for statement in subject.mongo_up() {
        for (collection, command) in statement.commands("collMod") {
            let action = command.get_str("validationAction").ok();
            let validator = command.get_document("validator").ok();
            // Told nothing, it leaves the action as it is, and that is `error` unless
            // somebody said otherwise.
            let refuses = match action {
                Some(action) => action == "error",
                None => validator.is_some_and(|validator| !validator.is_empty()),
            };
            let is_off = command.get_str("validationLevel").is_ok_and(|level| level == "off");
            if action == Some("warn") {
                warned.insert(collection);
            } else if refuses
                && !is_off
                && !warned.contains(collection)
                && !subject.is_new_collection(collection)
            {
                hits.push(statement.hit(format!("from this moment on, writes to `{collection}` that break the rule fail, and nothing has counted them")));
            }
        }
    }
    hits
}
