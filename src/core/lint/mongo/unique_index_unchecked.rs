//! A unique index over values that nobody has looked at.

use crate::core::id::Phase;
use crate::core::lint::effects::indexes;
use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};
use crate::core::parse::manifest::{Check, MongoAnswer};
use crate::core::step::Body;

pub(super) static RULE: Rule = Rule {
    name: "unique-index-unchecked",
    level: Level::Warn,
    about: About::Mongo,
    what: "A unique index on a collection in use, without an invariant that looks for duplicates before it.",
    why: "The build stops at the first value that is there twice (E11000), in the middle of a deployment. And from the moment it begins, inserts of the release that is running fail where they did not before.",
    instead: "Build it in the `cleanup` of a migration with an invariant that counts duplicates (`$group` by the field, `$match` more than one, `$count`).",
    bad: &[
        (
            "up.mongodb.js",
            "db.users.createIndex({ email: 1 }, { name: \"email_unique\", unique: true });\n",
        ),
        ("down.mongodb.js", "db.users.dropIndex(\"email_unique\");\n"),
    ],
    good: &[
        (
            "migration.toml",
            "[[invariant]]\nname = \"no address is there twice\"\nmongo = { collection = \"users\", pipeline = \"[{ $group: { _id: '$email', n: { $sum: 1 } } }, { $match: { n: { $gt: 1 } } }, { $count: 'n' }]\" }\n",
        ),
        (
            "cleanup.mongodb.js",
            "db.users.createIndex({ email: 1 }, { name: \"email_unique\", unique: true });\n",
        ),
        ("cleanup.down.mongodb.js", "db.users.dropIndex(\"email_unique\");\n"),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for statement in subject.mongo_up() {
        for index in indexes(statement) {
            let is_unique = index.document.get_bool("unique").unwrap_or(false);
            let is_checked =
                statement.phase == Phase::Cleanup && is_grouped(subject, index.collection);
            if is_unique && !is_checked && !subject.is_new_collection(index.collection) {
                let fields = index.fields();
                let group = match fields.as_slice() {
                    [field] => format!("'${field}'"),
                    fields => {
                        let parts = fields.iter().map(|field| format!("'{field}': '${field}'"));
                        format!("{{ {} }}", parts.collect::<Vec<_>>().join(", "))
                    }
                };
                let collection = index.collection;
                let message = format!(
                    "the build stops at the first value in `{collection}` that is there twice, and nothing has looked for one"
                );
                let partial = index.document.get_document("partialFilterExpression").ok();
                let only = match (partial, fields.first()) {
                    (Some(partial), _) => format!("{{ $match: {partial} }}, "),
                    (None, Some(field)) if index.document.get_bool("sparse").unwrap_or(false) => {
                        format!("{{ $match: {{ '{field}': {{ $exists: true }} }} }}, ")
                    }
                    _ => String::new(),
                };
                let help = format!(
                    "Look first: db.getCollection('{collection}').aggregate([{only}{{ $group: {{ _id: {group}, n: {{ $sum: 1 }} }} }}, {{ $match: {{ n: {{ $gt: 1 }} }} }}]). As an invariant, with this index in the cleanup, it is looked at each time."
                );
                hits.push(statement.hit(message).help(help));
            }
        }
    }
    hits
}

/// Whether an invariant groups the documents of a collection.
fn is_grouped(subject: &Subject<'_>, collection: &str) -> bool {
    subject.view.named.iter().any(|(step, _)| {
        let Body::Check(invariant) = &step.body else { return false };
        let (Check::Mongo { answer, .. } | Check::Equal { mongo: answer, .. }) = &invariant.check
        else {
            return false;
        };
        match answer {
            MongoAnswer::Pipeline { collection: its, pipeline } => {
                its == collection && pipeline.iter().any(|stage| stage.contains_key("$group"))
            }
            MongoAnswer::Count { .. } => false,
        }
    })
}
