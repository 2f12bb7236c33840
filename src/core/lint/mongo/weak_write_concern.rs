//! A write that a failover takes back.

use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};
use bson::{Bson, Document};

pub(super) static RULE: Rule = Rule {
    name: "weak-write-concern",
    level: Level::Error,
    about: About::Mongo,
    what: "A `writeConcern` below `majority`.",
    why: "If the primary is lost before the others have it, the write is rolled back, and the history says that it happened: the two databases no longer fit.",
    instead: "Leave `writeConcern` out: migrations are written with `majority`.",
    bad: &[
        (
            "up.mongodb.js",
            "db.settings.updateOne({ _id: \"shop\" }, { $set: { open: true } }, { writeConcern: { w: 1 } });\n",
        ),
        (
            "down.mongodb.js",
            "db.settings.updateOne({ _id: \"shop\" }, { $unset: { open: \"\" } });\n",
        ),
    ],
    good: &[
        ("up.mongodb.js", "db.settings.updateOne({ _id: \"shop\" }, { $set: { open: true } });\n"),
        (
            "down.mongodb.js",
            "db.settings.updateOne({ _id: \"shop\" }, { $unset: { open: \"\" } });\n",
        ),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let is_weak = |concern: &Document| {
        let w = match concern.get("w") {
            Some(Bson::Int32(w)) => i64::from(*w) < 2,
            Some(Bson::Int64(w)) => *w < 2,
            Some(Bson::Double(w)) => *w < 2.0,
            _ => false,
        };
        w || concern.get_bool("j").is_ok_and(|j| !j)
    };
    let mut hits = Vec::new();
    for statement in &subject.view.mongo {
        let mut concerns =
            statement.commands.iter().filter_map(|it| it.get_document("writeConcern").ok());
        if let Some(concern) = concerns.find(|concern| is_weak(concern)) {
            hits.push(statement.hit(format!("a write with `writeConcern: {concern}` can be rolled back by a failover, and the history would still have it")));
        }
    }
    hits
}
