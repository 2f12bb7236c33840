//! Backfills in MongoDB: ranges along the index of `_id`.

use super::function::{Ids, call_batch};
use super::history::{
    Tried, alone, check_fence, in_transaction_for, insert_steps, number, record_document, run,
    write,
};
use super::ids::{
    self, Is, SURVEY, between, cut, id, is_same, key_of, nothing, range, refused, what_is,
};
use super::rejects::{self, put_aside};
use super::{Mongo, check_reply, failed, failed_as, lease, pace};
use crate::core::backfill::{Batch, Shard, Survey};
use crate::core::history::{Entry, Record};
use crate::core::id::StoreName;
use crate::core::mapping;
use crate::core::pace::{Limits, Reading, Steer, Steering};
use crate::core::parse::manifest::{Change, Update, Work};
use crate::core::step::{Call, Repeat};
use crate::failpoint::{around, reach};
use crate::store::backfill::{Backfills, Job};
use crate::store::copy::BadRow;
use crate::store::rejects::{check, is_about_a_row, reason};
use crate::store::{Fate, Outcome, Run, StoreError, lease_term};
use bson::{Bson, Document, RawDocumentBuf, doc};
use futures_util::TryStreamExt;
use mongodb::ClientSession;
use mongodb::options::ReturnDocument;
use std::time::{Duration, Instant};

/// A batch that other writers are in the way of is tried again for so long, unless
/// `[timeouts]` says otherwise; then a smaller one is the better try.
const LOCK_LIMIT: Duration = Duration::from_secs(3);

const BEGIN: &str = "begin the backfill";
const SHARDS: &str = "read how far the backfill is";
const CLAIM: &str = "take a shard of the backfill";
const BATCH: &str = "run a batch of the backfill";
const STEER: &str = "steer the backfills";

impl Backfills for Mongo {
    async fn another(&mut self) -> Result<Mongo, StoreError> {
        Ok(self.clone())
    }

    async fn enlist(&mut self, run: &Run) -> Result<bool, StoreError> {
        around(lease::enlist(self, run), "enlist in MongoDB").await
    }

    async fn discharge(&mut self, outcome: &Outcome) -> Result<(), StoreError> {
        around(lease::discharge(self, outcome), "discharge in MongoDB").await
    }

    async fn estimate(&mut self, job: Job<'_>) -> Result<Option<u64>, StoreError> {
        let Documents { collection, .. } = documents(job.work, SURVEY)?;
        if !is_there(self, collection).await? {
            return Ok(None);
        }
        let all = self.database.collection::<Document>(collection);
        let count = all.estimated_document_count().await;
        count.map(Some).map_err(|error| failed(SURVEY, &error))
    }

    async fn survey(
        &mut self,
        job: Job<'_>,
        shards: usize,
        past: &[Shard],
    ) -> Result<Survey, StoreError> {
        survey(self, job, shards, past).await
    }

    async fn begin(
        &mut self,
        job: Job<'_>,
        shards: &[Shard],
        entries: &[Entry],
    ) -> Result<(), StoreError> {
        around(begin(self, job, shards, entries), "begin a backfill in MongoDB").await
    }

    async fn shards(&mut self, job: Job<'_>) -> Result<Vec<Shard>, StoreError> {
        let kept = cursors(self, job.record, Document::new(), SHARDS).await?;
        Ok(kept.into_iter().map(|kept| kept.shard).collect())
    }

    async fn claim(&mut self, job: Job<'_>) -> Result<Option<Shard>, StoreError> {
        around(claim(self, job), "claim a shard in MongoDB").await
    }

    async fn keep(&mut self, job: Job<'_>, shard: &Shard) -> Result<bool, StoreError> {
        let now = doc! { "$currentDate": { "recorded_at": true } };
        around(touch(self, job, shard, now), "keep a shard in MongoDB").await
    }

    async fn yield_shard(&mut self, job: Job<'_>, shard: &Shard) -> Result<(), StoreError> {
        let free = doc! { "$set": { "cursor.claimed": false } };
        around(touch(self, job, shard, free), "yield a shard in MongoDB").await.map(drop)
    }

    async fn batch(
        &mut self,
        job: Job<'_>,
        shard: &Shard,
        rows: u64,
    ) -> Result<Option<Batch>, StoreError> {
        around(batch(self, job, shard, rows), "batch in MongoDB").await
    }

    async fn single(&mut self, job: Job<'_>, shard: &Shard) -> Result<Option<Batch>, StoreError> {
        around(single(self, job, shard), "single document in MongoDB").await
    }

    async fn rejects(&mut self, job: Job<'_>) -> Result<u64, StoreError> {
        rejects::count(self, job).await
    }

    async fn steering(&mut self) -> Result<Steering, StoreError> {
        let control = self.database.collection::<Document>("migration_control");
        let control = control.find_one(doc! { "_id": 1 }).await;
        let control = control.map_err(|error| failed(STEER, &error))?.unwrap_or_default();
        let reason = || control.get_str("reason").unwrap_or("no reason was given").to_owned();
        Ok(Steering {
            paused: control.get_bool("paused").unwrap_or(false).then(reason),
            speed: pace::float(control.get("speed")).unwrap_or(1.0),
        })
    }

    async fn steer(&mut self, steer: &Steer, by: &Run) -> Result<(), StoreError> {
        around(steer_all(self, steer, by), "steer in MongoDB").await
    }

    async fn probe(&mut self, limits: &Limits) -> Vec<Reading> {
        pace::probe(self, limits).await
    }
}

/// Which documents of which collection change how.
struct Documents<'a> {
    collection: &'a str,
    filter: &'a Document,
    change: &'a Change,
}

fn documents<'a>(work: &'a Work, doing: &'static str) -> Result<Documents<'a>, StoreError> {
    match work {
        Work::Documents { collection, filter, change } => {
            Ok(Documents { collection, filter, change })
        }
        Work::Update { .. }
        | Work::Sql { .. }
        | Work::Call { .. }
        | Work::CopyToMongo { .. }
        | Work::CopyToPostgres { .. } => Err(refused(
            doing,
            "this version cannot copy rows into MongoDB",
            "write the documents with a script of the migration",
        )),
    }
}

pub(super) fn statement_limit(job: Job<'_>) -> Duration {
    ids::statement_limit(job.timeouts)
}

async fn survey(
    store: &Mongo,
    job: Job<'_>,
    shards: usize,
    past: &[Shard],
) -> Result<Survey, StoreError> {
    let Documents { collection, change, .. } = documents(job.work, SURVEY)?;
    if let (false, Change::Call(call)) = (store.has_transactions(), change) {
        return Err(no_transactions(collection, call));
    }
    if !store.has_transactions() && change.repeat() == Repeat::Harmful {
        return Err(refused(
            SURVEY,
            format!(
                "this change of {collection} must not be done twice, and a standalone server \
                 has no transaction that could tell whether a batch was done"
            ),
            "make the server a replica set, of one member if need be; or write the change so \
             that a second time changes nothing: `$set`, `$unset` and the like, not `$inc`, and \
             not a pipeline",
        ));
    }
    match is_there(store, collection).await? {
        true => cut(store, collection, statement_limit(job), shards, past).await,
        false => Ok(nothing()),
    }
}

/// What a function does must not be done twice, as far as anybody can see.
fn no_transactions(collection: &str, call: &Call) -> StoreError {
    refused(
        SURVEY,
        format!(
            "`{}` is called for batches of {collection}, and a standalone server has no \
             transaction in which that and how far it is could be written together",
            call.name
        ),
        "make the server a replica set, of one member if need be",
    )
}

/// Whether there is such a collection. What is no plain one is refused.
pub(super) async fn is_there(store: &Mongo, name: &str) -> Result<bool, StoreError> {
    match what_is(store, name).await? {
        Is::Nothing => Ok(false),
        Is::Plain => Ok(true),
        Is::View => Err(refused(
            SURVEY,
            format!("{name} is a view: it has no documents of its own"),
            "name the collection that the view reads",
        )),
        Is::TimeSeries => Err(refused(
            SURVEY,
            format!("{name} is a time series: its documents cannot be changed one by one"),
            "write what it should hold into a new collection, with a script",
        )),
        Is::Capped => Err(refused(
            SURVEY,
            format!("{name} is capped: its documents keep their size, and go by themselves"),
            "write what it should hold into a new collection, with a script",
        )),
    }
}

/// The name under which a shard is kept among the steps.
fn name(record: &Record, index: u32) -> String {
    match index {
        1 => record.step.name.to_string(),
        index => format!("{}#{index}", record.step.name),
    }
}

/// The `_id` of its document.
fn place(record: &Record, index: u32) -> Document {
    doc! {
        "version": number(record.step.version), "step": name(record, index),
        "attempt": record.attempt, "event": record.event.word(),
    }
}

fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The keys stand in it as what they are, so that people can read them, and nothing
/// is lost; `null` is a key, so where there is none, no field is.
fn cursor(shard: &Shard, doing: &'static str) -> Result<Document, StoreError> {
    let mut cursor = doc! { "round": i64::from(shard.round), "table": &shard.table };
    if let Some(after) = &shard.after {
        cursor.insert("after", id(after, doing)?);
    }
    cursor.extend(doc! {
        "upto": id(&shard.upto, doing)?,
        "estimate": integer(shard.estimate),
        "passed": integer(shard.passed),
        "done": shard.done,
        "claimed": shard.claimed,
    });
    Ok(cursor)
}

/// A shard as it is kept, and by which run.
struct Kept {
    shard: Shard,
    run_id: String,
}

fn kept(record: &Record, document: &Document, doing: &'static str) -> Result<Kept, StoreError> {
    let step = document.get_str("step").unwrap_or_default();
    let read = || {
        let index = match step.rsplit_once('#') {
            Some((_, index)) => index.parse().ok()?,
            None => 1,
        };
        let cursor = document.get_document("cursor").ok()?;
        let whole = |value: Option<&Bson>| match value? {
            Bson::Int32(number) => u64::try_from(*number).ok(),
            Bson::Int64(number) => u64::try_from(*number).ok(),
            _ => None,
        };
        let shard = Shard {
            index,
            round: u32::try_from(whole(cursor.get("round"))?).ok()?,
            table: cursor.get_str("table").ok()?.to_owned(),
            after: cursor.get("after").map(key_of),
            upto: key_of(cursor.get("upto")?),
            estimate: whole(cursor.get("estimate"))?,
            passed: whole(cursor.get("passed"))?,
            rows: whole(document.get("rows"))?,
            done: cursor.get_bool("done").ok()?,
            claimed: cursor.get_bool("claimed").ok()?,
        };
        Some(Kept { shard, run_id: document.get_str("run_id").ok()?.to_owned() })
    };
    read().ok_or_else(|| {
        let message = format!(
            "migration_steps: the progress of {}/{step} is not what this program writes",
            record.step.version
        );
        StoreError::new(StoreName::Mongo, doing, Fate::Corrupt, message)
    })
}

/// Shards of a backfill of which something holds, in order.
async fn cursors(
    store: &Mongo,
    record: &Record,
    holds: Document,
    doing: &'static str,
) -> Result<Vec<Kept>, StoreError> {
    let mut filter = doc! {
        "version": number(record.step.version),
        "attempt": record.attempt,
        "event": record.event.word(),
    };
    filter.extend(holds);
    let found: Result<Vec<Document>, _> = async {
        let steps = store.database.collection::<Document>("migration_steps");
        steps.find(filter).await?.try_collect().await
    }
    .await;
    let found = found.map_err(|error: mongodb::error::Error| failed(doing, &error))?;
    let own = record.step.name.to_string();
    let is_ours = |document: &&Document| {
        let step = document.get_str("step").unwrap_or_default();
        step.strip_prefix(&own).is_some_and(|rest| rest.is_empty() || rest.starts_with('#'))
    };
    let ours = found.iter().filter(is_ours).map(|document| kept(record, document, doing));
    let mut ours: Vec<Kept> = ours.collect::<Result<_, _>>()?;
    ours.sort_by_key(|kept| kept.shard.index);
    Ok(ours)
}

async fn begin(
    store: &Mongo,
    job: Job<'_>,
    shards: &[Shard],
    entries: &[Entry],
) -> Result<(), StoreError> {
    let mut documents = Vec::with_capacity(shards.len());
    for shard in shards {
        let mut document = record_document(store, job.record);
        document.insert("_id", place(job.record, shard.index));
        document.insert("step", name(job.record, shard.index));
        document.insert("cursor", cursor(shard, BEGIN)?);
        document.insert("rows", integer(shard.rows));
        documents.push(document);
    }
    if !store.has_transactions() {
        // In order, from the lowest: what a crash leaves out lies above what is there,
        // and the next sweep finds it.
        write(store, None, &[]).await.map_err(alone)?;
        if !documents.is_empty() {
            reach("the shards in MongoDB");
            insert_steps(store, None, documents).await.map_err(alone)?;
        }
        reach("the entries beside the shards in MongoDB");
        return write(store, None, entries).await.map_err(alone);
    }
    in_transaction_for(store, BEGIN, LOCK_LIMIT, async |store, session| {
        write(store, Some(&mut *session), entries).await?;
        match documents.is_empty() {
            true => Ok(()),
            false => insert_steps(store, Some(session), documents.clone()).await,
        }
    })
    .await
    .map(drop)
}

async fn claim(store: &Mongo, job: Job<'_>) -> Result<Option<Shard>, StoreError> {
    let open = cursors(store, job.record, doc! { "cursor.done": false }, CLAIM).await?;
    let mut claimants: Vec<&str> = open
        .iter()
        .filter(|kept| kept.shard.claimed && kept.run_id != store.run_id)
        .map(|kept| kept.run_id.as_str())
        .collect();
    claimants.sort_unstable();
    claimants.dedup();
    let over = over(store, &claimants).await?;
    let term = i64::try_from((lease_term() * 3 / 2).as_millis()).unwrap_or(i64::MAX);
    let silent = doc! { "$lt": ["$recorded_at", { "$subtract": ["$$NOW", term] }] };
    let free = doc! { "$or": [
        { "cursor.claimed": false },
        { "run_id": { "$in": over } },
        { "run_id": { "$ne": &store.run_id }, "$expr": silent },
    ] };
    let ours = doc! {
        "$set": { "cursor.claimed": true, "run_id": &store.run_id, "fence": store.fence },
        "$currentDate": { "recorded_at": true },
    };
    let steps = store.database.collection::<Document>("migration_steps");
    for kept_before in open {
        if kept_before.shard.claimed && kept_before.run_id == store.run_id {
            continue;
        }
        let mut this = doc! {
            "_id": place(job.record, kept_before.shard.index), "cursor.done": false,
        };
        this.extend(free.clone());
        // It is one update, so of any number of takers one gets it.
        let taken = steps
            .find_one_and_update(this, ours.clone())
            .return_document(ReturnDocument::After)
            .await
            .map_err(|error| failed_as(CLAIM, &error, Fate::Unknown))?;
        if let Some(document) = taken {
            return Ok(Some(kept(job.record, &document, CLAIM)?.shard));
        }
    }
    Ok(None)
}

/// Those of some runs that are over.
async fn over(store: &Mongo, runs: &[&str]) -> Result<Vec<String>, StoreError> {
    if runs.is_empty() {
        return Ok(Vec::new());
    }
    let filter = doc! { "_id": { "$in": runs }, "outcome": "running" };
    let running: Result<Vec<Document>, _> = async {
        let collection = store.database.collection::<Document>("migration_runs");
        collection.find(filter).projection(doc! { "_id": 1 }).await?.try_collect().await
    }
    .await;
    let running = running.map_err(|error: mongodb::error::Error| failed(CLAIM, &error))?;
    let runs_on = |run: &str| {
        running.iter().any(|document| document.get_str("_id").is_ok_and(|id| id == run))
    };
    Ok(runs.iter().filter(|run| !runs_on(run)).map(|&run| run.to_owned()).collect())
}

/// Changes the document of a shard, if it is still ours.
async fn touch(
    store: &Mongo,
    job: Job<'_>,
    shard: &Shard,
    change: Document,
) -> Result<bool, StoreError> {
    let steps = store.database.collection::<Document>("migration_steps");
    let touched = steps.update_one(ours(store, job, shard), change).await;
    let touched = touched.map_err(|error| failed_as(CLAIM, &error, Fate::Unknown))?;
    Ok(touched.matched_count > 0)
}

pub(super) fn ours(store: &Mongo, job: Job<'_>, shard: &Shard) -> Document {
    doc! {
        "_id": place(job.record, shard.index),
        "run_id": &store.run_id,
        "cursor.claimed": true,
    }
}

/// The change of the documents from a shard's cursor to `bound`, as one command.
fn change(store: &Mongo, job: Job<'_>, within: Document) -> Result<Document, StoreError> {
    let Documents { collection, filter, change } = documents(job.work, BATCH)?;
    let q = match filter.is_empty() {
        true => within,
        false => doc! { "$and": [within, filter] },
    };
    let mut command = match change {
        Change::Update(update) => {
            let u = match update {
                Update::Operators(operators) => Bson::Document(operators.clone()),
                Update::Pipeline(stages) => {
                    Bson::Array(stages.iter().cloned().map(Bson::Document).collect())
                }
            };
            let update = doc! { "q": q, "u": u, "multi": true, "hint": { "_id": 1 } };
            doc! { "update": collection, "updates": [update] }
        }
        Change::Delete => {
            let delete = doc! { "q": q, "limit": 0, "hint": { "_id": 1 } };
            doc! { "delete": collection, "deletes": [delete] }
        }
        Change::Call(call) => {
            let message = format!(
                "`{}` is a function and no command; this is a defect of Lockstep",
                call.name
            );
            return Err(StoreError::new(StoreName::Mongo, BATCH, Fate::Refused, message));
        }
    };
    command.insert("comment", store.comment());
    command.insert("maxTimeMS", integer(whole_millis(statement_limit(job))));
    Ok(command)
}

fn whole_millis(limit: Duration) -> u64 {
    u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)
}

/// How many documents a reply says were changed.
fn changed(reply: &Document) -> u64 {
    let field = reply.get("nModified").or_else(|| reply.get("n"));
    field.and_then(Bson::as_i32).and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
}

async fn batch(
    store: &Mongo,
    job: Job<'_>,
    shard: &Shard,
    rows: u64,
) -> Result<Option<Batch>, StoreError> {
    let collection = documents(job.work, BATCH)?.collection;
    let after = shard.after.as_ref().map(|after| id(after, BATCH)).transpose()?;
    let upto = id(&shard.upto, BATCH)?;
    let limit = statement_limit(job);
    // From the very first `_id` on, where there is no end below: one that can be
    // compared plainly is compared faster.
    let mut from = after.as_ref().map(|after| ("$gt", after));
    let first = match from {
        Some(_) => None,
        None => store.id_at(collection, range(None, None), (1, 0), limit, BATCH).await?,
    };
    from = from.or(first.as_ref().map(|first| ("$gte", first)));
    let rest = between(from, Some(&upto));
    let rows = rows.max(1);
    let bound = store.id_at(collection, rest.clone(), (1, rows - 1), limit, BATCH).await?;
    let (bound, passed) = match bound {
        Some(bound) => (bound, rows),
        None => (upto.clone(), store.count(collection, rest, limit, BATCH).await?),
    };
    let done = is_same(&bound, &upto);
    let moved = Shard {
        after: Some(if done { shard.upto.clone() } else { key_of(&bound) }),
        passed: shard.passed + passed,
        done,
        claimed: !done,
        ..shard.clone()
    };
    let within = between(from, Some(&bound));
    let next = Next::new(job, shard, &moved, BATCH)?;
    let written = match (documents(job.work, BATCH)?, store.has_transactions()) {
        (Documents { change: Change::Call(call), filter, .. }, true) => {
            let (after, upto) = (after.as_ref(), &bound);
            let range = Ids { collection, within: &within, filter, after, upto, limit };
            together(store, &next, async |store, session| {
                call_batch(store, session, call, range, BATCH).await
            })
            .await
        }
        (Documents { change: Change::Call(call), .. }, false) => {
            return Err(no_transactions(collection, call));
        }
        (_, true) => {
            let command = change(store, job, within)?;
            together(store, &next, async |store, session| {
                let reply = store.database.run_command(command.clone()).session(session).await;
                let reply = reply.map_err(|error| Tried::of(BATCH, &error))?;
                check_reply(BATCH, &reply).map_err(Tried::Failed)?;
                Ok(changed(&reply))
            })
            .await
        }
        (_, false) => one_by_one(store, &next, change(store, job, within)?).await,
    };
    let Some(Written { rows, trips, commit }) = written.map_err(advise)? else {
        return Ok(None);
    };
    let shard = Shard { rows: shard.rows + rows, ..moved };
    Ok(Some(Batch { shard, passed, rows, trips, commit }))
}

/// The next document alone; or it is put aside, if it is the one that is refused.
async fn single(store: &Mongo, job: Job<'_>, shard: &Shard) -> Result<Option<Batch>, StoreError> {
    let collection = documents(job.work, BATCH)?.collection;
    let after = shard.after.as_ref().map(|after| id(after, BATCH)).transpose()?;
    let upto = id(&shard.upto, BATCH)?;
    let limit = statement_limit(job);
    let rest = range(after.as_ref(), Some(&upto));
    let Some(this) = store.id_at(collection, rest, (1, 0), limit, BATCH).await? else {
        return batch(store, job, shard, 1).await;
    };
    let error = match batch(store, job, shard, 1).await {
        Err(error) if is_about_a_row(&error) => error,
        done => return done,
    };
    if job.work.call().is_none() {
        // What is refused without any document is no document's doing.
        let nothing = change(store, job, doc! { "_id": { "$in": [] } })?;
        let reply = store.database.run_command(nothing).await;
        check_reply(BATCH, &reply.map_err(|error| failed(BATCH, &error))?)?;
    }
    let done = is_same(&this, &upto);
    let moved = Shard {
        after: Some(if done { shard.upto.clone() } else { key_of(&this) }),
        passed: shard.passed + 1,
        done,
        claimed: !done,
        ..shard.clone()
    };
    let next = Next::new(job, shard, &moved, BATCH)?;
    let within = range(after.as_ref(), Some(&this));
    let refused = Refused { collection, within, id: &this, error: &error };
    let commit = match store.has_transactions() {
        true => pass_over(store, &next, &refused).await?,
        false => pass_over_alone(store, &next, &refused).await?,
    };
    let trips = Duration::ZERO;
    let batch = |commit| Batch { shard: moved.clone(), passed: 1, rows: 0, trips, commit };
    Ok(commit.map(batch))
}

/// A document that the server refuses.
struct Refused<'a> {
    collection: &'a str,
    /// The ids from the cursor to it.
    within: Document,
    id: &'a Bson,
    error: &'a StoreError,
}

impl Refused<'_> {
    /// For people; `None` if another one is in its place.
    async fn row(
        &self,
        store: &Mongo,
        session: Option<&mut ClientSession>,
        job: Job<'_>,
    ) -> Result<Option<BadRow>, Tried> {
        let lost = |error: mongodb::error::Error| Tried::of(BATCH, &error);
        let all = store.database.collection::<RawDocumentBuf>(self.collection);
        let find = all.find(self.within.clone()).hint(ids::along_id()).limit(2);
        let found: Vec<RawDocumentBuf> = match session {
            Some(session) => {
                let mut cursor = find.session(&mut *session).await.map_err(lost)?;
                cursor.stream(session).try_collect().await.map_err(lost)?
            }
            None => find.await.map_err(lost)?.try_collect().await.map_err(lost)?,
        };
        let [document] = found.as_slice() else { return Ok(None) };
        let id = document.get("_id").ok().flatten().and_then(|id| Bson::try_from(id).ok());
        if !id.is_some_and(|id| is_same(&id, self.id)) {
            return Ok(None);
        }
        let (key, row) = (mapping::key(document, &["_id"]), mapping::show(document));
        let bad = BadRow { key, row, reason: reason(self.error) };
        check(job, BATCH, 0, std::slice::from_ref(&bad)).map_err(|mut stop| {
            stop.said.code.clone_from(&self.error.said.code);
            Tried::Failed(stop)
        })?;
        Ok(Some(bad))
    }
}

/// Puts a document aside, with its cursor. `None`: the shard is not ours, or another
/// document is in its place.
async fn pass_over(
    store: &Mongo,
    next: &Next<'_>,
    refused: &Refused<'_>,
) -> Result<Option<Duration>, StoreError> {
    let mut is_other = false;
    let limit = next.job.timeouts.lock.unwrap_or(LOCK_LIMIT);
    let committed = in_transaction_for(store, BATCH, limit, async |store, session| {
        let bad = refused.row(store, Some(&mut *session), next.job).await?;
        let moved = next.step(store, Some(&mut *session), 0).await?;
        check_fence(store, &mut *session).await?;
        match bad.filter(|_| moved) {
            Some(bad) => put_aside(store, Some(session), next.job, next.shard.index, &[bad]).await,
            None => {
                is_other = true;
                let message = "another document is in its place";
                let error = StoreError::new(StoreName::Mongo, BATCH, Fate::Refused, message);
                Err(Tried::Failed(error))
            }
        }
    })
    .await;
    match committed {
        Err(_) if is_other => Ok(None),
        done => done.map(Some),
    }
}

/// The same without transactions: the document first, the cursor second.
async fn pass_over_alone(
    store: &Mongo,
    next: &Next<'_>,
    refused: &Refused<'_>,
) -> Result<Option<Duration>, StoreError> {
    store.check_lease().await?;
    let Some(bad) = refused.row(store, None, next.job).await.map_err(alone)? else {
        return Ok(None);
    };
    let began = Instant::now();
    put_aside(store, None, next.job, next.shard.index, &[bad]).await.map_err(alone)?;
    reach("a document that is put aside without its cursor in MongoDB");
    let moved = next.step(store, None, 0).await.map_err(alone)?;
    Ok(moved.then(|| began.elapsed()))
}

/// A transaction that outgrew what the server allows: say what to do.
pub(super) fn advise(mut error: StoreError) -> StoreError {
    // TransactionExceededLifetimeLimitSeconds, TransactionTooLargeForCache, and
    // NoSuchTransaction, which is what the first one looks like between two commands.
    let outgrown = ["code 290", "code 388", "code 251"];
    if error.said.code.as_ref().is_some_and(|code| outgrown.iter().any(|end| code.ends_with(end))) {
        error.said.hint = Some("give the backfill a smaller `batch`".to_owned());
    }
    error
}

/// Where a shard's cursor goes from where it is.
pub(super) struct Next<'a> {
    pub(super) job: Job<'a>,
    pub(super) shard: &'a Shard,
    cursor: Document,
}

impl<'a> Next<'a> {
    /// From a shard as it is recorded to what it becomes.
    pub(super) fn new(
        job: Job<'a>,
        shard: &'a Shard,
        moved: &Shard,
        doing: &'static str,
    ) -> Result<Next<'a>, StoreError> {
        Ok(Next { job, shard, cursor: cursor(moved, doing)? })
    }

    /// Moves the cursor, if the shard is still ours. Its documents are counted as
    /// passed once: where it stands elsewhere than the caller thinks, the batch
    /// was done already.
    pub(super) async fn step(
        &self,
        store: &Mongo,
        mut session: Option<&mut ClientSession>,
        rows: u64,
    ) -> Result<bool, Tried> {
        let mut q = ours(store, self.job, self.shard);
        q.insert("cursor.passed", integer(self.shard.passed));
        q.insert("cursor.done", false);
        let u = doc! {
            "$set": { "cursor": &self.cursor, "fence": store.fence },
            "$inc": { "rows": integer(rows) },
            "$currentDate": { "recorded_at": true },
        };
        let update = doc! { "update": "migration_steps", "updates": [{ "q": q, "u": u }] };
        let reply = run(store, session.as_deref_mut(), update).await?;
        if reply.get("n").and_then(Bson::as_i32) == Some(1) {
            return Ok(true);
        }
        let look = doc! {
            "find": "migration_steps", "filter": ours(store, self.job, self.shard), "limit": 1,
        };
        let steps = match session {
            Some(session) => store.database.run_command(look).session(session).await,
            None => store.database.run_command(look).await,
        };
        let steps = steps.map_err(|error| Tried::of(BATCH, &error))?;
        let first = steps.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
        if first.is_ok_and(|found| !found.is_empty()) {
            let message = format!(
                "shard {} of {} is further than this batch began; read how far it is, and go on \
                 from there",
                self.shard.index, self.job.record.step
            );
            let error = StoreError::new(StoreName::Mongo, BATCH, Fate::Refused, message);
            return Err(Tried::Failed(error));
        }
        Ok(false)
    }
}

/// Round trips of a batch before its commit: it looks for its end, writes, moves its cursor
/// and reads the fence.
const TRIPS: u32 = 4;

/// What a batch wrote, and how long its round trips and the commit take.
struct Written {
    rows: u64,
    trips: Duration,
    commit: Duration,
}

/// The batch and its cursor in one transaction. The fence is read and not written, as
/// workers of one run would be in each other's way there; whoever takes the lease
/// writes to the shard's document too.
async fn together(
    store: &Mongo,
    next: &Next<'_>,
    mut effect: impl AsyncFnMut(&Mongo, &mut ClientSession) -> Result<u64, Tried>,
) -> Result<Option<Written>, StoreError> {
    let (mut rows, mut trips) = (0, Duration::ZERO);
    let mut taken = false;
    let limit = next.job.timeouts.lock.unwrap_or(LOCK_LIMIT);
    let committed = in_transaction_for(store, BATCH, limit, async |store, session| {
        rows = effect(store, &mut *session).await?;
        let moved = next.step(store, Some(&mut *session), rows).await?;
        // It only reads, so that it is a round trip and little else.
        let began = Instant::now();
        check_fence(store, &mut *session).await?;
        trips = began.elapsed() * TRIPS;
        taken = !moved;
        if taken {
            let message = "another run has taken the shard";
            let error = StoreError::new(StoreName::Mongo, BATCH, Fate::Fenced, message);
            return Err(Tried::Failed(error));
        }
        Ok(())
    })
    .await;
    match committed {
        Ok(commit) => Ok(Some(Written { rows, trips, commit })),
        Err(_) if taken => Ok(None),
        Err(error) => Err(error),
    }
}

/// Without transactions: the batch, which may be done twice, and then the cursor.
async fn one_by_one(
    store: &Mongo,
    next: &Next<'_>,
    mut command: Document,
) -> Result<Option<Written>, StoreError> {
    let steps = store.database.collection::<Document>("migration_steps");
    store.check_lease().await?;
    let still = steps.find_one(ours(store, next.job, next.shard)).await;
    if still.map_err(|error| failed(BATCH, &error))?.is_none() {
        return Ok(None);
    }
    command.insert("writeConcern", doc! { "w": "majority", "j": true });
    let began = Instant::now();
    let reply = store.database.run_command(command).await;
    let reply = reply.map_err(|error| failed_as(BATCH, &error, Fate::Unknown))?;
    check_reply(BATCH, &reply)?;
    let (rows, commit) = (changed(&reply), began.elapsed());
    reach("a batch without its cursor in MongoDB");
    let began = Instant::now();
    let moved = next.step(store, None, rows).await.map_err(alone)?;
    let trips = began.elapsed() * TRIPS;
    Ok(moved.then_some(Written { rows, trips, commit }))
}

async fn steer_all(store: &Mongo, steer: &Steer, by: &Run) -> Result<(), StoreError> {
    let (command, set, reason) = match steer {
        Steer::Pause(why) => {
            ("backfill pause", doc! { "paused": true, "reason": why }, Some(why.clone()))
        }
        Steer::Resume => {
            ("backfill resume", doc! { "paused": false, "reason": null }, by.reason.clone())
        }
        Steer::Speed(speed) => {
            let reason = by.reason.clone().unwrap_or_else(|| format!("speed {speed}"));
            ("backfill speed", doc! { "speed": *speed }, Some(reason))
        }
    };
    let control = store.database.collection::<Document>("migration_control");
    let control = control.find_one_and_update(doc! { "_id": 1 }, doc! { "$set": set }).await;
    let Some(control) = control.map_err(|error| failed_as(STEER, &error, Fate::Unknown))? else {
        let never = "no migration ever ran in this database";
        return Err(StoreError::new(StoreName::Mongo, STEER, Fate::Refused, never));
    };
    reach("what was steered and is not in the audit log of MongoDB");
    let audit = doc! {
        "_id": &by.id, "run_id": &by.id, "command": command, "started_by": by.who(),
        "pid": i64::from(by.pid), "started_at": bson::DateTime::now(),
        "finished_at": bson::DateTime::now(), "from_version": null, "to_version": null,
        "release": null, "fence": control.get("fence"), "writes": 0_i64, "outcome": "ok",
        "error": null, "reason": reason, "tool_version": env!("CARGO_PKG_VERSION"),
    };
    let runs = store.database.collection::<Document>("migration_runs");
    runs.insert_one(audit).await.map(drop).map_err(|error| failed_as(STEER, &error, Fate::Unknown))
}
