//! As many documents as there are, written in one transaction.

use crate::core::lint::effects::{Write, bounds, writes};
use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};

pub(super) static RULE: Rule = Rule {
    name: "unbounded-write",
    level: Level::Warn,
    about: About::Mongo,
    what: "`updateMany` or `deleteMany` of a collection in use, whose filter only says what a document lacks or is not, or a range: nothing bounds how many there are.",
    why: "It runs as one transaction: every document that it writes stays locked until all are written, and the server ends it after 60 s (`transactionLifetimeLimitSeconds`), so that a large collection is never done.",
    instead: "Use a `[[backfill]]`: it goes along `_id` in batches, pauses when the servers are busy, and goes on where it stopped. If they are few, suppress this and say how many.",
    bad: &[
        (
            "up.mongodb.js",
            "db.products.updateMany({ stock: { $exists: false } }, { $set: { stock: 0 } });\n",
        ),
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
    for statement in subject.mongo_up() {
        for Write { collection, filter, word } in writes(statement) {
            if !filter.is_empty() && !bounds(filter) && !subject.is_new_collection(collection) {
                hits.push(statement.hit(format!("nothing bounds how many documents of `{collection}` are {word} here, in one transaction, which the server ends after 60 s")));
            }
        }
    }
    hits
}
