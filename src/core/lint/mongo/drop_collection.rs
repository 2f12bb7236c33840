//! A collection that goes while it is in use.

use crate::core::id::Phase;
use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};

pub(super) static RULE: Rule = Rule {
    name: "drop-collection",
    level: Level::Warn,
    about: About::Mongo,
    what: "A collection that is dropped by a migration without phases.",
    why: "The release that is running finds nothing, and its first write makes a new, empty collection without indexes. The documents are gone.",
    instead: "Drop it in the `cleanup` of a migration with phases: that runs when the releases that need it are gone and the invariants hold.",
    bad: &[
        ("up.mongodb.js", "db.carts.drop();\n"),
        ("down.mongodb.js", "db.createCollection(\"carts\");\n"),
    ],
    good: &[
        (
            "migration.toml",
            "cleanup = \"next-release\"\n\n[[invariant]]\nname = \"every cart was copied\"\npostgres = \"SELECT count(*) FROM carts\"\nmongo = { collection = \"carts\", count = \"{}\" }\n",
        ),
        ("cleanup.mongodb.js", "db.carts.drop();\n"),
        ("cleanup.down.mongodb.js", "db.createCollection(\"carts\");\n"),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for statement in subject.mongo_up().filter(|statement| statement.phase == Phase::Up) {
        for (collection, _) in statement.commands("drop") {
            if !subject.is_new_collection(collection) {
                hits.push(statement.hit(format!("dropping `{collection}` breaks the release that is running, and its documents are gone")));
            }
        }
    }
    hits
}
