//! A collection that forgets.

use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};

pub(super) static RULE: Rule = Rule {
    name: "convert-to-capped",
    level: Level::Error,
    about: About::Mongo,
    what: "`convertToCapped` of a collection in use.",
    why: "The database is locked against reads and writes while the documents are copied. Those that do not fit are gone, and so are all indexes but that of `_id`.",
    instead: "Make a new capped collection and let the application write into it; or use a TTL index.",
    bad: &[
        ("up.mongodb.js", "db.events.convertToCapped(1048576);\n"),
        ("down.mongodb.js", "db.createCollection(\"x\");\n"),
    ],
    good: &[
        (
            "up.mongodb.js",
            "db.createCollection(\"recent_events\", { capped: true, size: 1048576 });\n",
        ),
        ("down.mongodb.js", "db.recent_events.drop();\n"),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for statement in &subject.view.mongo {
        for (collection, _) in statement.commands("convertToCapped") {
            if !subject.is_new_collection(collection) {
                hits.push(statement.hit(format!("everybody waits while `{collection}` is copied; its indexes and what does not fit are gone")));
            }
        }
    }
    hits
}
