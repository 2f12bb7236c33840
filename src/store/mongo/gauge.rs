//! How far an index build is, as `$currentOp` has it.

use super::Mongo;
use crate::core::notice::Doing;
use crate::store::Gauge;
use bson::{Bson, Document, doc};
use mongodb::Client;
use std::pin::Pin;

/// Looks at what is built in one database.
pub(super) struct MongoGauge {
    client: Client,
    database: String,
    /// Index builds belong to no user; who may not see all operations sees none.
    is_allowed: bool,
}

impl MongoGauge {
    pub fn new(store: &Mongo) -> MongoGauge {
        let database = store.database.name().to_owned();
        MongoGauge { client: store.client.clone(), database, is_allowed: true }
    }

    async fn doing(&mut self) -> Option<Doing> {
        if !self.is_allowed {
            return None;
        }
        let builds = doc! {
            "aggregate": 1,
            "pipeline": [
                { "$currentOp": { "allUsers": true } },
                { "$match": {
                    "command.createIndexes": { "$exists": true },
                    "command.$db": &self.database,
                    "progress.total": { "$gt": 0 },
                } },
                { "$limit": 1 },
                { "$project": { "msg": 1, "progress": 1 } },
            ],
            "cursor": {},
            "maxTimeMS": 1_000,
        };
        let Ok(page) = self.client.database("admin").run_command(builds).await else {
            self.is_allowed = false;
            return None;
        };
        let first = page.get_document("cursor").ok()?.get_array("firstBatch").ok()?.first()?;
        of(first.as_document()?)
    }
}

/// `Index Build: scanning collection Index Build: scanning collection: 12/100 12%`.
fn of(operation: &Document) -> Option<Doing> {
    let progress = operation.get_document("progress").ok()?;
    let number = |name: &str| match progress.get(name)? {
        Bson::Int32(number) => u64::try_from(*number).ok(),
        Bson::Int64(number) => u64::try_from(*number).ok(),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count, for people"
        )]
        Bson::Double(number) => Some(*number as u64),
        _ => None,
    };
    let said = operation.get_str("msg").unwrap_or("Index Build");
    // It says its name twice, and then the numbers.
    let said = said.split(": ").take(2).collect::<Vec<_>>().join(": ");
    let what = said.trim_end_matches("Index Build").trim_end().to_owned();
    Some(Doing { what, done: number("done")?, total: number("total")?, unit: "documents" })
}

impl Gauge for MongoGauge {
    fn look(&mut self) -> Pin<Box<dyn Future<Output = Option<Doing>> + Send + '_>> {
        Box::pin(self.doing())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_says_is_said_once() {
        let said = "Index Build: scanning collection Index Build: scanning collection: 12/100 12%";
        let operation = doc! { "msg": said, "progress": { "done": 12, "total": 100_i64 } };
        let doing = of(&operation).expect("it is one");
        let what = "Index Build: scanning collection".to_owned();
        assert_eq!(doing, Doing { what, done: 12, total: 100, unit: "documents" });
    }
}
