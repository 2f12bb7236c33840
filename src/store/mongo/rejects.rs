//! Rows that are put aside, in MongoDB.

use super::history::{Tried, number};
use super::{Mongo, failed};
use crate::failpoint::reach;
use crate::store::StoreError;
use crate::store::backfill::Job;
use crate::store::copy::BadRow;
use crate::store::rejects::{check, shown};
use bson::{Bson, DateTime, Document, doc};
use futures_util::TryStreamExt;
use mongodb::ClientSession;

const REJECT: &str = "put rows aside";

/// Without transactions, somebody else may put rows aside at the same time, so often.
const TRIES_MAX: u32 = 20;

/// Records rows that are not written. They are numbered, and so counted: two
/// transactions that count the same rows are in each other's way.
pub(super) async fn put_aside(
    store: &Mongo,
    mut session: Option<&mut ClientSession>,
    job: Job<'_>,
    shard: u32,
    bad: &[BadRow],
) -> Result<(), Tried> {
    if bad.is_empty() {
        return Ok(());
    }
    let mut tries = 1;
    loop {
        match try_put_aside(store, session.as_deref_mut(), job, shard, bad).await {
            Err(Tried::Again(_)) if session.is_none() && tries < TRIES_MAX => tries += 1,
            done => return done,
        }
    }
}

async fn try_put_aside(
    store: &Mongo,
    mut session: Option<&mut ClientSession>,
    job: Job<'_>,
    shard: u32,
    bad: &[BadRow],
) -> Result<(), Tried> {
    let lost = |error: mongodb::error::Error| Tried::of(REJECT, &error);
    let rejects = store.database.collection::<Document>("migration_rejects");
    let numbers =
        rejects.find(of(job)).projection(doc! { "number": 1, "shard": 1, "key": 1, "reason": 1 });
    let there: Vec<Document> = match session.as_deref_mut() {
        Some(session) => {
            let mut cursor = numbers.session(&mut *session).await.map_err(lost)?;
            cursor.stream(session).try_collect().await.map_err(lost)?
        }
        None => numbers.await.map_err(lost)?.try_collect().await.map_err(lost)?,
    };
    // Without transactions, they may be there and the cursor not yet past them.
    let is_new = |bad: &&BadRow| {
        session.is_some()
            || !there.iter().any(|it| {
                it.get("shard").and_then(Bson::as_i64) == Some(i64::from(shard))
                    && it.get_str("key").is_ok_and(|key| key == bad.key)
                    && it.get_str("reason").is_ok_and(|reason| reason == bad.reason)
            })
    };
    let new: Vec<BadRow> = bad.iter().filter(is_new).cloned().collect();
    let aside = u64::try_from(there.len()).unwrap_or(u64::MAX);
    check(job, REJECT, aside, &new).map_err(Tried::Failed)?;
    let of_number = |it: &Document| it.get("number").and_then(Bson::as_i64);
    let last = there.iter().filter_map(of_number).max().unwrap_or(0);
    let documents = new.iter().zip(last + 1..).map(|(BadRow { key, row, reason }, number)| {
        let mut id = of(job);
        id.insert("number", number);
        let mut document = doc! { "_id": id.clone() };
        document.extend(id);
        document.extend(doc! {
            "shard": i64::from(shard), "key": key, "row": shown(row), "reason": reason,
            "run_id": &store.run_id, "rejected_at": DateTime::now(),
        });
        document
    });
    for document in documents {
        let insert = rejects.insert_one(document);
        let inserted = match session.as_deref_mut() {
            Some(session) => insert.session(session).await,
            None => insert.await,
        };
        // Somebody else has put a row aside since they were counted.
        inserted.map_err(|error| match super::code_of(&error) {
            Some(11000) => Tried::Again(failed(REJECT, &error)),
            _ => lost(error),
        })?;
    }
    reach("rows that are put aside in MongoDB");
    Ok(())
}

/// How many were put aside.
pub(super) async fn count(store: &Mongo, job: Job<'_>) -> Result<u64, StoreError> {
    let rejects = store.database.collection::<Document>("migration_rejects");
    rejects.count_documents(of(job)).await.map_err(|error| failed(REJECT, &error))
}

/// The fields that the rows of a job have in common.
fn of(job: Job<'_>) -> Document {
    let record = job.record;
    doc! {
        "version": number(record.step.version), "step": record.step.name.to_string(),
        "attempt": record.attempt,
    }
}
