//! An aggregation that replaces a collection.

use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};
use bson::Bson;

pub(super) static RULE: Rule = Rule {
    name: "out-overwrites",
    level: Level::Error,
    about: About::Mongo,
    what: "`$out` into a collection in use, or into the one that it reads.",
    why: "The whole collection is replaced when the aggregation is done: what others have written to it in the meantime is gone, and so is every document that the pipeline did not deliver.",
    instead: "Write `$merge`, which changes documents one by one, or `$out` into a collection that the same migration makes.",
    bad: &[
        (
            "up.mongodb.js",
            "db.orders.aggregate([{ $match: { status: \"paid\" } }, { $out: \"orders\" }]);\n",
        ),
        ("down.mongodb.js", "db.createCollection(\"x\");\n"),
    ],
    good: &[
        (
            "up.mongodb.js",
            "db.createCollection(\"paid_orders\");\ndb.orders.aggregate([{ $match: { status: \"paid\" } }, { $merge: { into: \"paid_orders\" } }]);\n",
        ),
        ("down.mongodb.js", "db.paid_orders.drop();\n"),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for statement in &subject.view.mongo {
        for (source, command) in statement.commands("aggregate") {
            let last = command.get_array("pipeline").ok().and_then(|stages| stages.last());
            let out = last.and_then(Bson::as_document).and_then(|stage| stage.get("$out"));
            let target = match out {
                Some(Bson::String(target)) => target.as_str(),
                Some(Bson::Document(out)) => out.get_str("coll").unwrap_or_default(),
                _ => continue,
            };
            if target == source {
                hits.push(statement.hit(format!("`{target}` is replaced by what is read from it: what others write meanwhile is gone")));
            } else if !subject.is_new_collection(target) {
                hits.push(statement.hit(format!("all documents of `{target}` are replaced, also those that others write meanwhile")));
            }
        }
    }
    hits
}
