//! What a plan meets: which collections and indexes there are, how many documents
//! match. Each question is bounded by the server, several are asked at once, and an
//! answer that does not come is no failure.

use super::{Mongo, failed};
use crate::core::outlook::{Asks, CollectionFacts, Filter, Key, Matches, MongoFacts};
use bson::{Bson, Document, doc};
use futures_util::stream::{self, StreamExt};
use std::future::Future;
use std::time::Duration;

const ASK: &str = "ask what the plan meets";

/// The server gives up after this.
const LIMIT_MS: i32 = 2_000;

/// A server that does not even say that it took too long.
const SILENCE: Duration = Duration::from_secs(5);

/// So many questions are on their way at once.
const AT_ONCE: usize = 8;

/// `MaxTimeMSExpired`.
const TOO_LONG: i32 = 50;

impl Mongo {
    /// Finds out what a plan meets, as far as it can.
    pub async fn look_ahead(&self, asks: &Asks) -> MongoFacts {
        let mut facts = MongoFacts::default();
        if asks.collections.is_empty() {
            return facts;
        }
        let there = match self.collections(asks).await {
            Ok(there) => there,
            Err(why) => return MongoFacts { unknown: Some(why), ..facts },
        };
        let stats = stream::iter(there.into_iter().map(async |(name, is_view)| {
            let known = match is_view {
                true => CollectionFacts { is_view, ..CollectionFacts::default() },
                false => self.collection_facts(&name).await,
            };
            (name, known)
        }));
        facts.collections = stats.buffer_unordered(AT_ONCE).collect().await;
        let filters = asks.filters.iter().filter(|(_, filters)| {
            filters.iter().any(|filter| facts.collections.contains_key(&filter.collection))
        });
        let counts: Vec<(Key, Matches)> = stream::iter(
            filters.map(async |(key, filters)| (key.clone(), self.matches(filters).await)),
        )
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
        facts.matches = counts.into_iter().collect();
        let disk = self.question(doc! { "dbStats": 1, "scale": 1 }).await.ok();
        facts.free = disk.and_then(|disk| {
            let total = number(disk.get("fsTotalSize"))?;
            Some(total.saturating_sub(number(disk.get("fsUsedSize"))?))
        });
        facts
    }

    /// One command, bounded.
    async fn question(&self, mut command: Document) -> Result<Document, String> {
        command.insert("maxTimeMS", LIMIT_MS);
        answered(async { self.database.run_command(command).await }).await
    }

    /// Which of these are there, and whether they are views.
    async fn collections(&self, asks: &Asks) -> Result<Vec<(String, bool)>, String> {
        let names: Vec<&str> = asks.collections.iter().map(String::as_str).collect();
        let command = doc! {
            "listCollections": 1,
            "filter": { "name": { "$in": names } },
            "nameOnly": true,
            "authorizedCollections": true,
            "maxTimeMS": LIMIT_MS,
            // There are no more than were asked for: one page has them all.
            "cursor": { "batchSize": 10_000 },
        };
        let page = answered(async { self.database.run_command(command).await }).await?;
        let first = page.get_document("cursor").and_then(|it| it.get_array("firstBatch"));
        let first = first.map(Vec::as_slice).unwrap_or_default();
        let of = |it: &Document| {
            let is_view = it.get_str("type").is_ok_and(|kind| kind == "view");
            Some((it.get_str("name").ok()?.to_owned(), is_view))
        };
        Ok(first.iter().filter_map(Bson::as_document).filter_map(of).collect())
    }

    async fn collection_facts(&self, name: &str) -> CollectionFacts {
        let (stats, indexes) = futures_util::future::join(
            self.question(doc! { "collStats": name }),
            self.question(doc! { "listIndexes": name, "cursor": { "batchSize": 1_000 } }),
        )
        .await;
        let stats = stats.unwrap_or_default();
        let indexes = indexes.unwrap_or_default();
        let indexes = indexes.get_document("cursor").and_then(|it| it.get_array("firstBatch"));
        let indexes = indexes.map(Vec::as_slice).unwrap_or_default();
        let sizes = stats.get_document("indexSizes").ok();
        let documents = match number(stats.get("count")) {
            Some(documents) => Some(documents),
            // Without the privilege for statistics, its count may still be had.
            None => {
                let count = self.question(doc! { "count": name }).await.ok();
                count.and_then(|count| number(count.get("n")))
            }
        };
        CollectionFacts {
            is_view: false,
            documents,
            bytes: number(stats.get("size")),
            id_index: sizes.and_then(|sizes| number(sizes.get("_id_"))),
            indexes: indexes.iter().filter_map(Bson::as_document).cloned().collect(),
        }
    }

    /// How many documents some filters match together.
    async fn matches(&self, filters: &[Filter]) -> Matches {
        /// A command of many writes is not looked into as a whole.
        const FILTERS_MAX: usize = 8;
        if filters.len() > FILTERS_MAX {
            return Matches::Unknown(format!("it has {} filters", filters.len()));
        }
        let mut sum = 0_u64;
        for filter in filters {
            let mut command = doc! { "count": &filter.collection, "query": filter.query.clone() };
            if filter.one {
                command.insert("limit", 1);
            }
            if let Some(collation) = &filter.collation {
                command.insert("collation", collation.clone());
            }
            match self.question(command).await {
                Ok(count) => sum = sum.saturating_add(number(count.get("n")).unwrap_or(0)),
                Err(why) => return Matches::Unknown(why),
            }
        }
        Matches::Documents(sum)
    }
}

/// An answer, or why there is none.
async fn answered(
    question: impl Future<Output = Result<Document, mongodb::error::Error>>,
) -> Result<Document, String> {
    match tokio::time::timeout(SILENCE, question).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) if super::code_of(&error) == Some(TOO_LONG) => {
            Err(format!("counting takes longer than {} s", LIMIT_MS / 1_000))
        }
        Ok(Err(error)) => Err(failed(ASK, &error).said.to_string()),
        Err(_) => Err(format!("no answer within {} s", SILENCE.as_secs())),
    }
}

/// Servers answer in whatever kind of number they like.
fn number(value: Option<&Bson>) -> Option<u64> {
    match value? {
        Bson::Int32(number) => u64::try_from(*number).ok(),
        Bson::Int64(number) => u64::try_from(*number).ok(),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a size, for people"
        )]
        Bson::Double(number) if *number >= 0.0 => Some(*number as u64),
        _ => None,
    }
}
