//! A filter that reads every document.

use crate::core::lint::effects::{Index, Write, bounds, filter_fields, indexes, writes};
use crate::core::lint::view::{Hit, Mongo, Subject};
use crate::core::lint::{About, Level, Rule};

pub(super) static RULE: Rule = Rule {
    name: "filter-without-index",
    level: Level::Warn,
    about: About::Mongo,
    what: "`updateMany` or `deleteMany` of a collection in use by fields that no index begins with: one that is made later in the same migration, or none in a collection that these migrations made.",
    why: "The server reads the whole collection to find the few that are meant, in a transaction, and what it writes stays locked for that long.",
    instead: "Make the index before the write; or use a `[[backfill]]`, which goes along `_id` and needs no other index.",
    bad: &[
        (
            "up.mongodb.js",
            "db.orders.updateMany({ channel: \"phone\" }, { $set: { source: \"shop\" } });\ndb.orders.createIndex({ channel: 1 }, { name: \"channel\" });\n",
        ),
        ("down.mongodb.js", "db.orders.dropIndex(\"channel\");\n"),
    ],
    good: &[
        (
            "up.mongodb.js",
            "db.orders.createIndex({ channel: 1 }, { name: \"channel\" });\ndb.orders.updateMany({ channel: \"phone\" }, { $set: { source: \"shop\" } });\n",
        ),
        ("down.mongodb.js", "db.orders.dropIndex(\"channel\");\n"),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    let all: Vec<&Mongo> = subject.mongo_up().collect();
    for (at, statement) in all.iter().enumerate() {
        for Write { collection, filter, .. } in writes(statement) {
            let fields = filter_fields(filter);
            let leads = |index: &Index<'_>| {
                let first = index.fields().first().copied();
                index.collection == collection && first.is_some_and(|first| fields.contains(&first))
            };
            // One that nothing bounds reads all documents in any case.
            if fields.is_empty() || !bounds(filter) || fields.contains(&"_id") {
                continue;
            }
            let earlier = subject.earlier_indexes();
            let before = earlier.into_iter().chain(all[..at].iter().flat_map(|it| indexes(it)));
            let has_index = before.into_iter().any(|index| leads(&index));
            let later = all[at + 1..].iter().flat_map(|it| indexes(it)).any(|index| leads(&index));
            let ours = subject.is_made_before(collection);
            if !has_index && (later || ours) && !subject.is_new_collection(collection) {
                let message = match later {
                    true => format!(
                        "the index that this filter of `{collection}` needs is made only after it"
                    ),
                    false => format!(
                        "no index of `{collection}` begins with a field of this filter: every document is read"
                    ),
                };
                hits.push(statement.hit(message));
            }
        }
    }
    hits
}
