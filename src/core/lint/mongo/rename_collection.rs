//! A collection that is called otherwise from one moment to the next.

use crate::core::id::Phase;
use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};

pub(super) static RULE: Rule = Rule {
    name: "rename-collection",
    level: Level::Warn,
    about: About::Mongo,
    what: "A collection in use that is renamed.",
    why: "The release that is running asks for the old name. It finds nothing, and its first write makes a new, empty collection of that name.",
    instead: "Copy it with a `[[backfill]]` (an aggregation with `$merge`), let both releases write both, and drop the old one in the cleanup; or make a view of the old name for those that only read.",
    bad: &[
        ("up.mongodb.js", "db.carts.renameCollection(\"baskets\");\n"),
        ("down.mongodb.js", "db.baskets.renameCollection(\"carts\");\n"),
    ],
    good: &[
        ("prepare.mongodb.js", "db.createCollection(\"baskets\");\n"),
        ("prepare.down.mongodb.js", "db.baskets.drop();\n"),
    ],
    check,
};

/// Of a `prepare` another rule says more.
fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for statement in subject.mongo_up().filter(|statement| statement.phase != Phase::Prepare) {
        for (collection, _) in statement.commands("renameCollection") {
            if !subject.is_new_collection(collection) {
                hits.push(statement.hit(format!("a release that reads `{collection}` finds nothing from this moment on, and one that writes it makes a new one")));
            }
        }
    }
    hits
}
