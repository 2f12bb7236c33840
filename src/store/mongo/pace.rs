//! How a MongoDB is, for the pace of backfills.

use super::{Mongo, code_of};
use crate::core::pace::{AtLimit, Level, Limits, Reading};
use crate::core::server::Topology;
use bson::{Bson, Document, doc};
use mongodb::error::Error;
use std::time::Duration;

/// So much of the tickets may be in use.
const TICKETS_LIMIT: f64 = 0.8;

/// So much of the cache may be dirty: at 20 % the server makes the application's own
/// threads write it out.
const DIRTY_LIMIT: f64 = 0.15;

/// The first write after a long silence looks as if the majority were that far
/// behind, until it has it. So a lag is looked at twice.
const SECOND_LOOK: Duration = Duration::from_millis(100);

pub(super) async fn probe(store: &Mongo, limits: &Limits) -> Vec<Reading> {
    let admin = store.client.database("admin");
    // Sections that nobody reads here are not sent.
    let status = async {
        admin
            .run_command(doc! {
                "serverStatus": 1, "repl": 0, "metrics": 0, "locks": 0, "tcmalloc": 0,
            })
            .await
            .map_err(|error| off("serverStatus", &error))
    };
    let (status, lag) = futures_util::future::join(status, lag(store, limits)).await;
    let of = |read: fn(&Document) -> Option<Level>, nothing: &str| match &status {
        Ok(status) => read(status).unwrap_or_else(|| Level::Nothing(nothing.to_owned())),
        Err(why) => Level::Off(why.clone()),
    };
    let alone = "a standalone server has no other members".to_owned();
    let replicated = store.topology == Topology::ReplicaSet;
    let flow = match store.topology {
        Topology::Standalone => Level::Nothing(alone),
        Topology::ReplicaSet | Topology::Sharded => {
            of(flow_control, "the server does not tell: behind mongos its shards know")
        }
    };
    let engine = if replicated || store.topology == Topology::Standalone {
        "the server's storage engine does not tell"
    } else {
        "mongos stores nothing: its shards know"
    };
    let reading = |probe, at_limit, level| Reading { probe, at_limit, level };
    vec![
        reading("flow control", AtLimit::Stop, flow),
        reading("majority commit lag", AtLimit::Stop, lag),
        reading("tickets in use", AtLimit::Slower, of(tickets, engine)),
        reading("dirty cache", AtLimit::Slower, of(dirty, engine)),
    ]
}

/// Why something may not be read, and what helps.
fn off(what: &str, error: &Error) -> String {
    match code_of(error) {
        // Unauthorized
        Some(13) => format!("{what} may not be read; grant the role clusterMonitor"),
        _ => format!("{what} cannot be read ({})", error.kind),
    }
}

fn flow_control(status: &Document) -> Option<Level> {
    let lagged = status.get_document("flowControl").ok()?.get_bool("isLagged").ok()?;
    Some(Level::At {
        ratio: if lagged { 1.0 } else { 0.0 },
        says: if lagged {
            "the server throttles writes, because its majority lags behind".to_owned()
        } else {
            "the server does not throttle writes".to_owned()
        },
    })
}

/// Everybody may ask this, without any role.
async fn lag(store: &Mongo, limits: &Limits) -> Level {
    match store.topology {
        Topology::Standalone => {
            return Level::Nothing("a standalone server has no other members".to_owned());
        }
        Topology::Sharded => {
            return Level::Nothing("mongos does not tell: its shards know".to_owned());
        }
        Topology::ReplicaSet => {}
    }
    let limit = limits.replication_lag;
    let mut behind = match behind(store).await {
        Ok(behind) => behind,
        Err(why) => return Level::Off(why),
    };
    if behind > limit.mul_f64(0.4) {
        tokio::time::sleep(SECOND_LOOK).await;
        behind = match self::behind(store).await {
            Ok(again) => again.min(behind),
            Err(why) => return Level::Off(why),
        };
    }
    Level::At {
        ratio: behind.as_secs_f64() / limit.as_secs_f64().max(0.001),
        says: format!(
            "the majority is {:.1} s behind (limit {} s)",
            behind.as_secs_f64(),
            limit.as_secs_f64()
        ),
    }
}

/// How far what the majority has is behind what the primary has, by the primary's
/// clock: between two writes that nobody else gets, both stand still.
async fn behind(store: &Mongo) -> Result<Duration, String> {
    let hello = store.database.run_command(doc! { "hello": 1 }).await;
    let hello = hello.map_err(|error| off("hello", &error))?;
    let behind = || {
        let last = hello.get_document("lastWrite").ok()?;
        let optime = |field| last.get_document(field).ok()?.get_timestamp("ts").ok();
        if optime("majorityOpTime")? >= optime("opTime")? {
            return Some(0);
        }
        let now = hello.get_datetime("localTime").ok()?.timestamp_millis();
        Some(now - last.get_datetime("majorityWriteDate").ok()?.timestamp_millis())
    };
    let behind = behind().ok_or("hello does not tell what the majority has")?;
    Ok(Duration::from_millis(u64::try_from(behind).unwrap_or(0)))
}

fn tickets(status: &Document) -> Option<Level> {
    // Since 8.0 they are the queue's, before they were the storage engine's.
    let queue = status.get_document("queues").and_then(|queues| queues.get_document("execution"));
    let all = match queue {
        Ok(queue) => queue,
        Err(_) => {
            let engine = status.get_document("wiredTiger").ok()?;
            engine.get_document("concurrentTransactions").ok()?
        }
    };
    let write = all.get_document("write").ok()?;
    let (out, total) = (float(write.get("out"))?, float(write.get("totalTickets"))?);
    Some(Level::At {
        ratio: out / total.max(1.0) / TICKETS_LIMIT,
        says: format!("{out} of {total} tickets for writes are in use (limit 80 %)"),
    })
}

fn dirty(status: &Document) -> Option<Level> {
    let cache = status.get_document("wiredTiger").ok()?.get_document("cache").ok()?;
    let dirty = float(cache.get("tracked dirty bytes in the cache"))?;
    let share = dirty / float(cache.get("maximum bytes configured"))?.max(1.0);
    Some(Level::At {
        ratio: share / DIRTY_LIMIT,
        says: format!("{:.1} % of the cache are dirty (limit 15 %)", share * 100.0),
    })
}

/// Whatever kind of number it is.
#[expect(clippy::cast_precision_loss, reason = "sizes and counts, of which a share is wanted")]
pub(super) fn float(value: Option<&Bson>) -> Option<f64> {
    match value? {
        Bson::Int32(number) => Some(f64::from(*number)),
        Bson::Int64(number) => Some(*number as f64),
        Bson::Double(number) => Some(*number),
        _ => None,
    }
}
