//! The lease in MongoDB: one document, one conditional update, the server's
//! clock.

use super::{Mongo, check_reply, failed};
use crate::core::id::StoreName;
use crate::failpoint::reach;
use crate::store::{Fate, Heart, Holder, Lease, Outcome, Run, StoreError, lease_term};
use bson::{Bson, DateTime, Document, doc};
use futures_util::TryStreamExt;
use mongodb::options::ReadConcern;
use mongodb::{Collection, Database};
use std::time::Duration;

const ACQUIRE: &str = "take the lease";

/// An operation that was told to end is gone within this, or something is badly
/// wrong with the server.
const EVICTION_LIMIT: Duration = Duration::from_secs(30);

/// The end of a lease that begins now.
fn term_end() -> Document {
    let term = i64::try_from(lease_term().as_millis()).expect("a term of seconds");
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

    reach("the lease that has no run yet in MongoDB");
    // Every write of a run looks at its document here: from now on no dead run
    // can write anything more. Not only the one that was named: whoever took the
    // lease from it may have died before it came to this line.
    let runs = database.collection::<Document>("migration_runs");
    let dead = doc! { "fence": { "$lt": fence }, "outcome": "running" };
    // A transaction that one of them left open has such a document: as long as it
    // stands, nobody else can write it.
    let names: Vec<String> = named(&runs, dead.clone())
        .await
        .map_err(|error| failed(ACQUIRE, &error))?
        .into_iter()
        .filter(|name| *name != run.id)
        .collect();
    end_transactions(store, &names).await;
    let end = doc! { "$set": { "outcome": "died", "finished_at": DateTime::now() } };
    runs.update_many(dead, end).await.map_err(|error| failed(ACQUIRE, &error))?;
    reach("the lease whose dead still have their shards in MongoDB");
    // Batches of one run do not all write to its document: they would be in each
    // other's way. Each writes to its own shard's, so this waits for those that are
    // about to commit, and whatever comes later finds its run ended.
    let steps = database.collection::<Document>("migration_steps");
    let theirs = doc! { "event": "progress", "cursor.claimed": true, "fence": { "$lt": fence } };
    let free = doc! { "$set": { "cursor.claimed": false } };
    steps.update_many(theirs, free).await.map_err(|error| failed(ACQUIRE, &error))?;
    reach("the lease whose dead are buried in MongoDB");
    runs.update_one(doc! { "_id": &run.id }, doc! { "$set": begun(run, fence) })
        .upsert(true)
        .await
        .map_err(|error| failed(ACQUIRE, &error))?;
    // Whoever takes the lease from now on ends this run in its document. Whoever
    // took it before there was one did not find it.
    let ours = doc! { "_id": 1, "fence": fence };
    let renew = vec![doc! { "$set": { "expires_at": term_end() } }];
    let control = database.collection::<Document>("migration_control");
    let renewed = control.update_one(ours, renew).await.map_err(|error| failed(ACQUIRE, &error))?;
    if renewed.matched_count == 0 {
        let late = doc! { "$set": { "outcome": "locked", "finished_at": DateTime::now() } };
        runs.update_one(doc! { "_id": &run.id, "fence": fence }, late)
            .await
            .map_err(|error| failed(ACQUIRE, &error))?;
        return held(store).await;
    }
    store.fence = fence;
    Ok(Lease::Ours { fence, died })
}

/// The document of a run that begins.
fn begun(run: &Run, fence: i64) -> Document {
    doc! {
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
        "reason": &run.reason,
        "tool_version": env!("CARGO_PKG_VERSION"),
    }
}

/// Begins the document of a run that helps whoever has the lease, with the same fence.
pub(super) async fn enlist(store: &mut Mongo, run: &Run) -> Result<bool, StoreError> {
    const ENLIST: &str = "join the run that has the lease";
    let Some(fence) = fence_of_holder(store, ENLIST).await? else { return Ok(false) };
    let runs = store.database.collection::<Document>("migration_runs");
    runs.update_one(doc! { "_id": &run.id }, doc! { "$set": begun(run, fence) })
        .upsert(true)
        .await
        .map_err(|error| failed(ENLIST, &error))?;
    reach("the helper that has not looked at the lease again in MongoDB");
    // Whoever takes the lease from now on ends this run in its document. Whoever took
    // it before there was one did not find it.
    if fence_of_holder(store, ENLIST).await? == Some(fence) {
        store.fence = fence;
        return Ok(true);
    }
    let late = doc! { "$set": { "outcome": "locked", "finished_at": DateTime::now() } };
    let ours = doc! { "_id": &run.id, "fence": fence };
    runs.update_one(ours, late).await.map_err(|error| failed(ENLIST, &error))?;
    Ok(false)
}

/// The fence of whoever has the lease now.
async fn fence_of_holder(store: &Mongo, doing: &'static str) -> Result<Option<i64>, StoreError> {
    let held =
        doc! { "_id": 1, "holder": { "$ne": null }, "$expr": { "$gt": ["$expires_at", "$$NOW"] } };
    let control = store.database.collection::<Document>("migration_control");
    let control = control.find_one(held).await.map_err(|error| failed(doing, &error))?;
    Ok(control.map(|control| integer(control.get("fence"))))
}

/// Ends the document of a run that helped, even if whoever took the lease did so
/// already: nothing of it is at work any more.
pub(super) async fn discharge(store: &mut Mongo, outcome: &Outcome) -> Result<(), StoreError> {
    store.fence = 0;
    let ours = doc! { "_id": &store.run_id, "outcome": { "$in": ["running", "died"] } };
    let end = doc! { "$set": {
        "outcome": outcome.word, "error": &outcome.error, "finished_at": DateTime::now(),
    } };
    let runs = store.database.collection::<Document>("migration_runs");
    let ended = runs.update_one(ours, end).await;
    ended.map(drop).map_err(|error| failed("leave the run that has the lease", &error))
}

/// The names of some runs.
async fn named(
    runs: &Collection<Document>,
    which: Document,
) -> Result<Vec<String>, mongodb::error::Error> {
    let names = runs.find(which).projection(doc! { "run_id": 1 }).await?;
    let names: Vec<Document> = names.try_collect().await?;
    Ok(names.iter().filter_map(|run| run.get_str("run_id").ok().map(str::to_owned)).collect())
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

/// Operations of some runs that are under way, by the comment they carry.
async fn operations(store: &Mongo, runs: &[String]) -> Result<Vec<Document>, StoreError> {
    let comments: Vec<String> = runs.iter().map(|run| format!("lockstep/{run}")).collect();
    let admin = store.client.database("admin");
    // Those of another database are not ours, even if this one is a copy of it with
    // its runs. `renameCollection` runs elsewhere, and names where it belongs.
    let prefix = format!("{}.", store.database.name());
    let begins = |field: &str| {
        doc! { "$eq": [{ "$indexOfBytes": [field, { "$literal": &prefix }] }, 0] }
    };
    let here = doc! { "$or": [begins("$ns"), begins("$command.renameCollection")] };
    let mut last = None;
    // The server refuses the majority's view, which is the client's: what runs now
    // is known to itself alone.
    let local = ReadConcern::local();
    // All users' first; without the privilege for that, our own are visible.
    for all in [true, false] {
        let current = vec![
            doc! { "$currentOp": { "allUsers": all } },
            doc! { "$match": { "command.comment": { "$in": &comments }, "$expr": here.clone() } },
        ];
        let found: Result<Vec<Document>, _> = async {
            admin.aggregate(current).read_concern(local.clone()).await?.try_collect().await
        }
        .await;
        match found {
            Ok(found) => return Ok(found),
            Err(error) => last = Some(failed("look for what a run left running", &error)),
        }
    }
    Err(last.expect("two tries were made"))
}

async fn kill(store: &Mongo, operation: &Document) -> bool {
    let Some(id) = operation.get("opid") else { return false };
    let kill = doc! { "killOp": 1, "op": id.clone() };
    store.client.database("admin").run_command(kill).await.is_ok()
}

pub(super) async fn evict(store: &mut Mongo) -> Result<Vec<String>, StoreError> {
    const EVICT: &str = "end what a dead run left running";
    let runs = store.database.collection::<Document>("migration_runs");
    let dead = named(&runs, doc! { "outcome": "died" }).await;
    let dead = dead.map_err(|error| failed(EVICT, &error))?;
    let mut ended = Vec::new();
    if dead.is_empty() {
        return Ok(ended);
    }
    ended.extend(end_transactions(store, &dead).await);
    let mut known = Vec::new();
    let began = tokio::time::Instant::now();
    loop {
        let running = operations(store, &dead).await?;
        if running.is_empty() || began.elapsed() > EVICTION_LIMIT {
            return Ok(ended);
        }
        for operation in &running {
            let opid = operation.get("opid").cloned();
            if known.contains(&opid) {
                continue;
            }
            known.push(opid);
            match end(store, operation).await {
                Ok(line) => ended.push(line),
                Err(line) => {
                    ended.push(line);
                    return Ok(ended);
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Ends transactions that dead runs left open: nobody is at work in them, and until
/// the server ends them after 60 s, whatever they wrote is closed to others. Where
/// the server does not let us, that is what a write of ours waits for.
async fn end_transactions(store: &Mongo, dead: &[String]) -> Vec<String> {
    let database = store.database.name();
    let names: Vec<String> = dead.iter().map(|run| super::client_name(run, database)).collect();
    let admin = store.client.database("admin");
    let open = vec![
        doc! { "$currentOp": { "allUsers": true, "idleSessions": true } },
        doc! { "$match": {
            "type": "idleSession", "appName": { "$in": names }, "transaction": { "$exists": true },
        } },
    ];
    let found: Result<Vec<Document>, _> = async {
        admin.aggregate(open).read_concern(ReadConcern::local()).await?.try_collect().await
    }
    .await;
    let mut ended = Vec::new();
    for session in found.unwrap_or_else(|_: mongodb::error::Error| Vec::new()) {
        let id = session.get_document("lsid").ok().and_then(|lsid| lsid.get("id")).cloned();
        let Some(id) = id else { continue };
        let kill = doc! { "killSessions": [{ "id": id }] };
        if store.database.run_command(kill).await.is_ok() {
            ended.push("ended a transaction that a dead run had left open".to_owned());
        }
    }
    ended
}

/// Ends an operation and says so, or why not.
async fn end(store: &Mongo, operation: &Document) -> Result<String, String> {
    let what = operation.get_str("ns").unwrap_or_default();
    let command = operation.get_document("command").ok().and_then(|it| it.keys().next());
    let what = format!("{} on {what}", command.map_or("an operation", String::as_str));
    match kill(store, operation).await {
        true => Ok(format!("ended {what}, which a dead run had left")),
        false => Err(format!("{what}, which a dead run left, cannot be ended")),
    }
}

pub(super) async fn cancel(store: &mut Mongo) {
    // The server may be gone; then there is nothing to cancel.
    if let Ok(ours) = operations(store, std::slice::from_ref(&store.run_id)).await {
        for operation in &ours {
            kill(store, operation).await;
        }
    }
}

impl Mongo {
    /// Whether our lease, if we have one, is still ours: asked before what no
    /// transaction can hold.
    pub(super) async fn check_lease(&self) -> Result<(), StoreError> {
        const DOING: &str = "check the lease";
        if self.fence == 0 {
            return Ok(());
        }
        let runs = self.database.collection::<Document>("migration_runs");
        let ours = doc! { "_id": &self.run_id, "fence": self.fence, "outcome": "running" };
        let found = runs.find_one(ours).await.map_err(|error| failed(DOING, &error))?;
        found.map(drop).ok_or_else(|| {
            StoreError::new(StoreName::Mongo, DOING, Fate::Fenced, "another run has taken it")
        })
    }
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
    reach("the lease whose run has ended in MongoDB");
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

pub(super) async fn pair(store: &mut Mongo, pair: &str) -> Result<(), StoreError> {
    store
        .database
        .collection::<Document>("migration_control")
        .update_one(doc! { "_id": 1, "fence": store.fence }, doc! { "$set": { "pair": pair } })
        .await
        .map(drop)
        .map_err(|error| failed("pair the databases", &error))
}

impl Mongo {
    /// Takes the lease away from a run, whether it is alive or not: from now on it
    /// can write nothing. Says whether the run had it.
    ///
    /// # Errors
    /// A store that cannot be written.
    pub async fn unlock(&mut self, run_id: &str, by: &Run) -> Result<bool, StoreError> {
        const DOING: &str = "take the lease away";
        let runs = self.database.collection::<Document>("migration_runs");
        let control = self.database.collection::<Document>("migration_control");
        let held = doc! { "_id": 1, "holder.run_id": run_id };
        let free = doc! {
            "$set": { "holder": null, "expires_at": null }, "$inc": { "fence": 1_i64 },
        };
        let before = control.find_one_and_update(held, free).await;
        let Some(before) = before.map_err(|error| failed(DOING, &error))? else {
            return Ok(false);
        };
        let end = doc! { "$set": {
            "outcome": "died", "finished_at": DateTime::now(), "reason": &by.reason,
        } };
        runs.update_one(doc! { "_id": run_id, "outcome": "running" }, end)
            .await
            .map_err(|error| failed(DOING, &error))?;
        let audit = doc! {
            "_id": &by.id, "run_id": &by.id, "command": "unlock", "started_by": by.who(),
            "pid": i64::from(by.pid), "started_at": DateTime::now(), "finished_at": DateTime::now(),
            "from_version": null, "to_version": null, "release": null,
            "fence": integer(before.get("fence")) + 1, "writes": 0_i64, "outcome": "ok",
            "error": null, "reason": &by.reason, "tool_version": env!("CARGO_PKG_VERSION"),
        };
        runs.insert_one(audit).await.map_err(|error| failed(DOING, &error))?;
        Ok(true)
    }
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
