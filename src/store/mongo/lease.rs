//! The lease in MongoDB: one document, one conditional update, the server's
//! clock.

use super::{Mongo, check_reply, failed};
use crate::core::id::StoreName;
use crate::engine::lock::LEASE_TERM;
use crate::store::{Fate, Heart, Holder, Lease, Outcome, Run, StoreError};
use bson::{Bson, DateTime, Document, doc};
use mongodb::Database;
use std::time::Duration;

const ACQUIRE: &str = "take the lease";

/// The end of a lease that begins now.
fn term_end() -> Document {
    let term = i64::try_from(LEASE_TERM.as_millis()).expect("a term of seconds");
    doc! { "$add": ["$$NOW", term] }
}

pub(super) async fn acquire(store: &mut Mongo, run: &Run) -> Result<Lease, StoreError> {
    let free = doc! { "$or": [
        { "$eq": [{ "$type": "$holder" }, "null"] },
        { "$eq": [{ "$type": "$holder" }, "missing"] },
        { "$lt": ["$expires_at", "$$NOW"] },
    ] };
    let holder = doc! {
        "host": { "$literal": &run.host },
        "pid": { "$literal": i64::from(run.pid) },
        "user": { "$literal": &run.user },
        "run_id": { "$literal": &run.id },
        "since": { "$dateToString": { "date": "$$NOW", "format": "%Y-%m-%dT%H:%M:%SZ" } },
    };
    let take = doc! {
        "findAndModify": "migration_control",
        "query": { "_id": 1, "$expr": free },
        // $replaceWith keeps the fields of an older holder out of the new one.
        "update": [{ "$set": {
            "fence": { "$add": ["$fence", 1_i64] },
            "holder": { "$literal": null },
            "expires_at": term_end(),
        } }, { "$set": { "holder": holder } }],
        "new": false,
        "writeConcern": { "w": "majority", "j": true },
    };
    let database = &store.database;
    let reply = database.run_command(take).await.map_err(|error| failed(ACQUIRE, &error))?;
    check_reply(ACQUIRE, &reply)?;
    let Ok(before) = reply.get_document("value") else { return held(store).await };
    let fence = integer(before.get("fence")) + 1;
    let died = before.get_document("holder").ok().and_then(|holder| holder.get_str("run_id").ok());
    let died = died.map(str::to_owned);

    // Every write of a run looks at its document here: from now on no dead run
    // can write anything more. Not only the one that was named: whoever took the
    // lease from it may have died before it came to this line.
    let runs = database.collection::<Document>("migration_runs");
    let dead = doc! { "fence": { "$lt": fence }, "outcome": "running" };
    let end = doc! { "$set": { "outcome": "died", "finished_at": DateTime::now() } };
    runs.update_many(dead, end).await.map_err(|error| failed(ACQUIRE, &error))?;
    let begun = doc! {
        "run_id": &run.id,
        "command": &run.command,
        "started_by": run.who(),
        "pid": i64::from(run.pid),
        "started_at": DateTime::now(),
        "finished_at": null,
        "from_version": run.from_version.map(|version| i64::try_from(version.0).unwrap_or(i64::MAX)),
        "to_version": null,
        "release": &run.release,
        "fence": fence,
        "writes": 0_i64,
        "outcome": "running",
        "error": null,
        "reason": null,
        "tool_version": env!("CARGO_PKG_VERSION"),
    };
    runs.update_one(doc! { "_id": &run.id }, doc! { "$set": begun })
        .upsert(true)
        .await
        .map_err(|error| failed(ACQUIRE, &error))?;
    store.fence = fence;
    Ok(Lease::Ours { fence, died })
}

fn integer(value: Option<&Bson>) -> i64 {
    match value {
        Some(Bson::Int32(number)) => i64::from(*number),
        Some(Bson::Int64(number)) => *number,
        _ => 0,
    }
}

/// Who has it.
async fn held(store: &Mongo) -> Result<Lease, StoreError> {
    let look = vec![
        doc! { "$match": { "_id": 1 } },
        doc! { "$project": { "holder": 1, "left": { "$subtract": ["$expires_at", "$$NOW"] } } },
    ];
    let mut rows = store
        .database
        .collection::<Document>("migration_control")
        .aggregate(look)
        .await
        .map_err(|error| failed(ACQUIRE, &error))?;
    let row = match rows.advance().await.map_err(|error| failed(ACQUIRE, &error))? {
        true => rows.deserialize_current().map_err(|error| failed(ACQUIRE, &error))?,
        false => {
            let gone = "the document of migration_control is gone";
            return Err(StoreError::new(StoreName::Mongo, ACQUIRE, Fate::Corrupt, gone));
        }
    };
    let empty = Document::new();
    let holder = row.get_document("holder").unwrap_or(&empty);
    let text = |field: &str| holder.get_str(field).unwrap_or_default().to_owned();
    Ok(Lease::Held {
        holder: Holder {
            host: text("host"),
            pid: u32::try_from(integer(holder.get("pid"))).unwrap_or(0),
            user: text("user"),
            run_id: text("run_id"),
            since: text("since"),
        },
        left: Duration::from_millis(u64::try_from(integer(row.get("left"))).unwrap_or(0)),
    })
}

pub(super) async fn release(store: &mut Mongo, outcome: &Outcome) -> Result<(), StoreError> {
    const RELEASE: &str = "give the lease back";
    if store.fence == 0 {
        return Ok(());
    }
    let end = doc! { "$set": {
        "outcome": outcome.word,
        "error": &outcome.error,
        "to_version": outcome.to_version.map(|version| i64::try_from(version.0).unwrap_or(i64::MAX)),
        "finished_at": DateTime::now(),
    } };
    store
        .database
        .collection::<Document>("migration_runs")
        .update_one(doc! { "_id": &store.run_id, "outcome": "running" }, end)
        .await
        .map_err(|error| failed(RELEASE, &error))?;
    let free = doc! { "$set": { "holder": null, "expires_at": null } };
    store
        .database
        .collection::<Document>("migration_control")
        .update_one(doc! { "_id": 1, "fence": store.fence }, free)
        .await
        .map_err(|error| failed(RELEASE, &error))?;
    store.fence = 0;
    Ok(())
}

/// Renews the lease, on a connection of the driver's pool that the work does not
/// use.
#[derive(Debug)]
pub struct MongoHeart {
    database: Database,
    fence: i64,
}

pub(super) fn heart(store: &Mongo) -> MongoHeart {
    MongoHeart { database: store.database.clone(), fence: store.fence }
}

impl Heart for MongoHeart {
    async fn beat(&mut self) -> Result<(), StoreError> {
        const RENEW: &str = "renew the lease";
        let ours = doc! { "_id": 1, "fence": self.fence, "holder": { "$ne": null } };
        let renewed = self
            .database
            .collection::<Document>("migration_control")
            .update_one(ours, vec![doc! { "$set": { "expires_at": term_end() } }])
            .await
            .map_err(|error| failed(RENEW, &error))?;
        match renewed.matched_count {
            0 => Err(StoreError::new(
                StoreName::Mongo,
                RENEW,
                Fate::Fenced,
                "another run has taken it",
            )),
            _ => Ok(()),
        }
    }
}
