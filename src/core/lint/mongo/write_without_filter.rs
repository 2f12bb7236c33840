//! All documents of a collection, written in one transaction.

use crate::core::lint::effects::{Write, writes};
use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};

pub(super) static RULE: Rule = Rule {
    name: "write-without-filter",
    level: Level::Error,
    about: About::Mongo,
    what: "`updateMany` or `deleteMany` of a collection in use, with an empty filter.",
    why: "It runs as one transaction: every document stays locked until all are written, and the server ends it after 60 s (`transactionLifetimeLimitSeconds`), so that a large collection is never done.",
    instead: "Use a `[[backfill]]`: it goes along `_id` in batches, pauses when the servers are busy, and goes on where it stopped. To get rid of a whole collection, drop it in the cleanup.",
    bad: &[
        ("up.mongodb.js", "db.products.updateMany({}, { $set: { stock: 0 } });\n"),
        ("down.mongodb.js", "db.products.updateMany({ stock: 0 }, { $unset: { stock: \"\" } });\n"),
    ],
    good: &[(
        "migration.toml",
        "irreversible = \"a stock that was assumed cannot be told from one that was counted\"\n\n[[backfill]]\nname = \"default stock\"\nmongo = { collection = \"products\", filter = \"{ stock: { $exists: false } }\", update = \"{ $set: { stock: 0 } }\" }\n\n[[invariant]]\nname = \"every product has a stock\"\nmongo = { collection = \"products\", count = \"{ stock: { $exists: false } }\" }\n",
    )],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for statement in &subject.view.mongo {
        for Write { collection, filter, word } in writes(statement) {
            if filter.is_empty() && !subject.is_new_collection(collection) {
                hits.push(statement.hit(format!("every document of `{collection}` is {word} in one transaction, which the server ends after 60 s")));
            }
        }
    }
    hits
}
