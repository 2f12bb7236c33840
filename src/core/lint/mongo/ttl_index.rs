//! An index that deletes.

use crate::core::lint::effects::indexes;
use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};

pub(super) static RULE: Rule = Rule {
    name: "ttl-index",
    level: Level::Warn,
    about: About::Mongo,
    what: "A TTL index on a collection in use.",
    why: "Within a minute the server begins to delete every document whose time has passed already, as fast as it can. No `down` brings them back, and nobody reviews which they are.",
    instead: "Count first what is old enough, and delete it with a `[[backfill]]`, in batches; then make the index. If the field is new and no document has it, suppress this and say so.",
    bad: &[
        (
            "up.mongodb.js",
            "db.sessions.createIndex({ seen_at: 1 }, { name: \"sessions_expire\", expireAfterSeconds: 86400 });\n",
        ),
        ("down.mongodb.js", "db.sessions.dropIndex(\"sessions_expire\");\n"),
    ],
    good: &[
        (
            "up.mongodb.js",
            "db.createCollection(\"sessions\");\ndb.sessions.createIndex({ seen_at: 1 }, { name: \"sessions_expire\", expireAfterSeconds: 86400 });\n",
        ),
        ("down.mongodb.js", "db.sessions.drop();\n"),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for statement in subject.mongo_up() {
        let made = indexes(statement).into_iter();
        let made = made.filter(|index| index.document.contains_key("expireAfterSeconds"));
        let made = made.map(|index| index.collection);
        let changed = statement.commands("collMod").filter(|(_, command)| {
            let index = command.get_document("index");
            index.is_ok_and(|index| index.contains_key("expireAfterSeconds"))
        });
        for collection in made.chain(changed.map(|(collection, _)| collection)) {
            if !subject.is_new_collection(collection) {
                hits.push(statement.hit(format!("within a minute the server deletes what is old enough in `{collection}`, and no `down` brings it back")));
            }
        }
    }
    hits
}
