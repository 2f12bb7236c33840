//! The five collections in MongoDB: the same names and fields as in Postgres.

use super::{Mongo, check_reply, failed, failed_as, is_transient};
use crate::core::history::{
    Entry, LeaseSeen, Record, RecordSeen, Row, RunSeen, Snapshot, Table, Timestamp, Unreadable,
};
use crate::core::id::{StepId, StoreName, Version};
use crate::core::migration::Rollback;
use crate::failpoint::reach;
use crate::store::{Fate, StoreError};
use bson::{Bson, DateTime, Document, doc};
use futures_util::TryStreamExt;
use mongodb::ClientSession;
use mongodb::error::UNKNOWN_TRANSACTION_COMMIT_RESULT;
use std::collections::BTreeMap;
use std::time::Duration;

/// A transaction that another one was in the way of is tried again, for so long:
/// that of a run that was killed stands open until the server ends it, after 60 s.
const TRANSACTION_LIMIT: Duration = Duration::from_secs(75);

/// A server that went away is waited for by the driver at each try, for as long as
/// an election takes. So often is enough.
const UNREACHABLE_TRIES: u32 = 3;

/// A commit whose answer was lost is asked for again, for so long; MongoDB answers
/// the same each time.
const COMMIT_LIMIT: Duration = Duration::from_secs(10);

const READ: &str = "read the migration history";
const RECORD: &str = "record in the migration history";

pub(super) async fn read(store: &mut Mongo) -> Result<Snapshot, StoreError> {
    let control = async {
        let collection = store.database.collection::<Document>("migration_control");
        let fields = doc! {
            "pair": 1, "holder": 1, "expires_at": 1,
            "held": { "$gt": ["$expires_at", "$$NOW"] },
        };
        collection.find_one(doc! { "_id": 1 }).projection(fields).await
    };
    let steps = async {
        let collection = store.database.collection::<Document>("migration_steps");
        let fields = doc! { "cursor": 0, "recorded_at": 0, "run_id": 0 };
        collection
            .find(steps_only())
            .projection(fields)
            .batch_size(5000)
            .await?
            .try_collect::<Vec<_>>()
            .await
    };
    let rows = async {
        let collection = store.database.collection::<Document>("migration_history");
        let fields = doc! { "rollback_script": 0 };
        collection
            .find(doc! {})
            .projection(fields)
            .batch_size(5000)
            .await?
            .try_collect::<Vec<_>>()
            .await
    };
    // Rows first, while another run may be writing: one that says `completed` is
    // then never seen without its steps.
    let (rows, (steps, control)) =
        async { Ok((rows.await?, futures_util::future::try_join(steps, control).await?)) }
            .await
            .map_err(|error: mongodb::error::Error| failed(READ, &error))?;
    let mut unreadable = Vec::new();
    let mut unread = |document: &Document, table: Table, error: StoreError| match &control {
        // Without the document of ours, they are somebody else's.
        None => Err(error),
        Some(_) => {
            unreadable.push(unread(document, table, error));
            Ok(())
        }
    };
    let mut snapshot = Snapshot::default();
    for document in &steps {
        match record_of(document) {
            Ok(record) => snapshot.records.push(record),
            Err(error) => unread(document, Table::Steps, error)?,
        }
    }
    for document in &rows {
        match row_of(document) {
            Ok(row) => snapshot.rows.push(row),
            Err(error) => unread(document, Table::History, error)?,
        }
    }
    Ok(Snapshot {
        lease: control.as_ref().and_then(lease_of),
        pair: control.and_then(|control| control.get_str("pair").ok().map(str::to_owned)),
        unreadable,
        ..snapshot
    })
}

/// Without the cursors of a backfill's further shards, which are no steps.
fn steps_only() -> Document {
    doc! { "step": { "$not": { "$regex": "#" } } }
}

fn unread(document: &Document, table: Table, error: StoreError) -> Unreadable {
    let id = document.get("_id").cloned().unwrap_or(Bson::Null);
    let field = match table {
        Table::Steps => "version",
        // This is what a row is replaced by.
        Table::History => "_id",
    };
    let fields = Fields { document, collection: table.name() };
    Unreadable {
        table,
        version: fields.number(field).ok().map(Version),
        key: serde_json::to_string(&id).unwrap_or_default(),
        what: error.said.message,
    }
}

/// Deletes what cannot be read.
pub(super) async fn discard(store: &mut Mongo, what: &[Unreadable]) -> Result<(), StoreError> {
    store.check_lease().await?;
    for it in what {
        let collection = store.database.collection::<Document>(it.table.name());
        // Not by way of a map: the order of fields is a part of the key.
        let id: Bson = serde_json::from_str(&it.key).map_err(|error| {
            let message = format!("{}: {error}", it.what);
            StoreError::new(StoreName::Mongo, RECORD, Fate::Corrupt, message)
        })?;
        collection.delete_one(doc! { "_id": id }).await.map_err(|error| failed(RECORD, &error))?;
    }
    Ok(())
}

fn lease_of(control: &Document) -> Option<LeaseSeen> {
    if !control.get_bool("held").unwrap_or(false) {
        return None;
    }
    let holder = control.get_document("holder").ok()?;
    let text = |field: &str| holder.get_str(field).unwrap_or_default().to_owned();
    let pid = holder.get("pid").cloned().unwrap_or(Bson::Null).into_relaxed_extjson();
    Some(LeaseSeen {
        holder: format!("{}@{}, pid {pid}", text("user"), text("host")),
        run_id: text("run_id"),
        expires_at: Timestamp(control.get_datetime("expires_at").ok()?.timestamp_millis()),
    })
}

/// One document of ours, field by field.
struct Fields<'a> {
    document: &'a Document,
    collection: &'static str,
}

impl Fields<'_> {
    fn corrupt(&self, field: &str, why: impl std::fmt::Display) -> StoreError {
        let id = self.document.get("_id").map(|id| id.clone().into_relaxed_extjson().to_string());
        let message = format!("{} {}: {field}: {why}", self.collection, id.unwrap_or_default());
        StoreError::new(StoreName::Mongo, READ, Fate::Corrupt, message)
    }

    fn text(&self, field: &str) -> Result<&str, StoreError> {
        self.document.get_str(field).map_err(|error| self.corrupt(field, error))
    }

    fn parse<T>(&self, field: &str) -> Result<T, StoreError>
    where
        T: std::str::FromStr,
        T::Err: std::fmt::Display,
    {
        self.text(field)?.parse().map_err(|error| self.corrupt(field, error))
    }

    /// Whatever a person's shell made of the number.
    fn number<T: TryFrom<i64>>(&self, field: &str) -> Result<T, StoreError> {
        let number = match self.document.get(field) {
            Some(Bson::Int32(number)) => Some(i64::from(*number)),
            Some(Bson::Int64(number)) => Some(*number),
            #[expect(clippy::cast_possible_truncation, reason = "checked to be integral and small")]
            Some(Bson::Double(number)) if number.fract() == 0.0 && number.abs() < 9e15 => {
                Some(*number as i64)
            }
            _ => None,
        };
        number
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| self.corrupt(field, "not a number that it can be"))
    }

    fn time(&self, field: &str) -> Result<Timestamp, StoreError> {
        let time = self.document.get_datetime(field).map_err(|error| self.corrupt(field, error))?;
        Ok(Timestamp(time.timestamp_millis()))
    }
}

fn record_of(document: &Document) -> Result<Record, StoreError> {
    let fields = Fields { document, collection: "migration_steps" };
    Ok(Record {
        step: StepId { version: Version(fields.number("version")?), name: fields.parse("step")? },
        attempt: fields.number("attempt")?,
        event: fields.parse("event")?,
        rank: fields.number("rank")?,
        checksum: fields.parse("checksum")?,
        migration_checksum: fields.parse("migration_checksum")?,
    })
}

fn row_of(document: &Document) -> Result<Row, StoreError> {
    let fields = Fields { document, collection: "migration_history" };
    let finished = matches!(document.get("finished_at"), Some(Bson::DateTime(_)));
    Ok(Row {
        version: Version(fields.number("version")?),
        rank: fields.number("rank")?,
        migration_name: fields.text("migration_name")?.to_owned(),
        description: fields.text("description")?.to_owned(),
        checksum: fields.parse("checksum")?,
        status: fields.parse("status")?,
        executed_at: fields.time("executed_at")?,
        finished_at: finished.then(|| fields.time("finished_at")).transpose()?,
        execution_time_ms: fields.number("execution_time_ms")?,
        applied_by: fields.text("applied_by")?.to_owned(),
        release: document.get_str("release").ok().map(str::to_owned),
        tool_version: fields.text("tool_version")?.to_owned(),
        run_id: fields.text("run_id")?.to_owned(),
    })
}

pub(super) async fn rollbacks(
    store: &mut Mongo,
    versions: &[Version],
) -> Result<BTreeMap<Version, Rollback>, StoreError> {
    let versions: Vec<i64> = versions.iter().map(|version| number(*version)).collect();
    let collection = store.database.collection::<Document>("migration_history");
    let filter = doc! { "_id": { "$in": versions }, "rollback_script": { "$type": "object" } };
    let fields = doc! { "version": 1, "rollback_script": 1 };
    let found: Result<Vec<Document>, _> =
        async { collection.find(filter).projection(fields).await?.try_collect().await }.await;
    let parse = |document: &Document| {
        let fields = Fields { document, collection: "migration_history" };
        let script = document.get("rollback_script").cloned().unwrap_or(Bson::Null);
        let rollback = serde_json::from_value(script.into_relaxed_extjson())
            .map_err(|error| fields.corrupt("rollback_script", error))?;
        Ok((Version(fields.number("version")?), rollback))
    };
    found.map_err(|error| failed(READ, &error))?.iter().map(parse).collect()
}

pub(super) async fn found(store: &mut Mongo, pair: &str) -> Result<String, StoreError> {
    const DOING: &str = "create the history collections";
    let control = store.database.collection::<Document>("migration_control");
    // A history may be older than the collection of rejects.
    let rejects =
        store.database.list_collection_names().filter(doc! { "name": "migration_rejects" });
    let control_row = async { control.find_one(doc! { "_id": 1 }).await };
    let looked = futures_util::future::try_join(control_row, async { rejects.await }).await;
    let (row, rejects) = looked.map_err(|error| failed(DOING, &error))?;
    if let Some(pair) = row.as_ref().and_then(|row| row.get_str("pair").ok())
        && !rejects.is_empty()
    {
        return Ok(pair.to_owned());
    }
    // Created before they are used: inside a transaction a collection that two
    // engines create at once aborts both.
    const NAMES: [&str; 5] = [
        "migration_steps",
        "migration_history",
        "migration_runs",
        "migration_rejects",
        "migration_control",
    ];
    for name in NAMES {
        reach("a collection of ours in MongoDB");
        match store.database.create_collection(name).await {
            Ok(()) => {}
            Err(error) if super::code_of(&error) == Some(48) => {} // NamespaceExists
            Err(error) => return Err(failed(DOING, &error)),
        }
    }
    reach("the pair in MongoDB");
    // A fence is never given twice, even if the document that counts them was
    // deleted.
    let mut fence = 0;
    for name in ["migration_runs", "migration_steps"] {
        let written = store.database.collection::<Document>(name);
        let highest = written.find_one(doc! {}).sort(doc! { "fence": -1 }).await;
        let highest = highest.map_err(|error| failed(DOING, &error))?;
        let of = highest.as_ref().and_then(|it| it.get("fence")).and_then(Bson::as_i64);
        fence = fence.max(of.unwrap_or(0));
    }
    let first = doc! { "$setOnInsert": {
        "pair": pair, "fence": fence, "holder": null, "expires_at": null, "paused": false, "reason": null,
        "speed": 1.0,
    } };
    match control.update_one(doc! { "_id": 1 }, first).upsert(true).await {
        Ok(_) => {}
        Err(error) if super::code_of(&error) == Some(11000) => {} // somebody was faster
        Err(error) => return Err(failed(DOING, &error)),
    }
    let row = control.find_one(doc! { "_id": 1 }).await.map_err(|error| failed(DOING, &error))?;
    let pair = row.as_ref().and_then(|row| row.get_str("pair").ok());
    pair.map(str::to_owned).ok_or_else(|| {
        let gone = "migration_control: its document is gone";
        StoreError::new(StoreName::Mongo, DOING, Fate::Corrupt, gone)
    })
}

pub(super) async fn append(store: &mut Mongo, entries: &[Entry]) -> Result<(), StoreError> {
    if entries.is_empty() {
        return Ok(());
    }
    if !store.has_transactions() {
        return append_alone(store, entries).await;
    }
    in_transaction(store, RECORD, async |store, session| write(store, Some(session), entries).await)
        .await
}

/// What a try inside a transaction came to.
pub(super) enum Tried {
    /// Another transaction was in the way; this one left nothing.
    Again(StoreError),
    /// It will not work.
    Failed(StoreError),
}

impl Tried {
    pub(super) fn of(doing: &'static str, error: &mongodb::error::Error) -> Tried {
        let failure = failed(doing, error);
        if is_transient(error) { Tried::Again(failure) } else { Tried::Failed(failure) }
    }
}

/// Runs `work` in a transaction and commits it; again, if another transaction
/// was in the way.
pub(super) async fn in_transaction(
    store: &Mongo,
    doing: &'static str,
    work: impl AsyncFnMut(&Mongo, &mut ClientSession) -> Result<(), Tried>,
) -> Result<(), StoreError> {
    in_transaction_for(store, doing, TRANSACTION_LIMIT, work).await.map(drop)
}

/// The same, tried again for no longer than `limit`: how long the commit took.
pub(super) async fn in_transaction_for(
    store: &Mongo,
    doing: &'static str,
    limit: Duration,
    mut work: impl AsyncFnMut(&Mongo, &mut ClientSession) -> Result<(), Tried>,
) -> Result<Duration, StoreError> {
    let session = store.client.start_session().await;
    let mut session = session.map_err(|error| failed(doing, &error))?;
    let began = tokio::time::Instant::now();
    let mut tries = 1;
    loop {
        session.start_transaction().await.map_err(|error| failed(doing, &error))?;
        let again = match work(store, &mut session).await {
            Ok(()) => {
                let asked = tokio::time::Instant::now();
                match commit(&mut session, doing).await {
                    Ok(()) => return Ok(asked.elapsed()),
                    Err(Tried::Again(error)) => error,
                    Err(Tried::Failed(error)) => return Err(error),
                }
            }
            Err(tried) => {
                // If the server is gone, so is the transaction.
                let _ = session.abort_transaction().await;
                match tried {
                    Tried::Again(error) => error,
                    Tried::Failed(error) => return Err(error),
                }
            }
        };
        let is_gone = again.fate == Fate::Unreachable && tries >= UNREACHABLE_TRIES;
        if is_gone || began.elapsed() >= limit {
            return Err(again);
        }
        tokio::time::sleep(Duration::from_millis(20) * 2_u32.pow(tries.min(6))).await;
        tries += 1;
    }
}

async fn commit(session: &mut ClientSession, doing: &'static str) -> Result<(), Tried> {
    let began = tokio::time::Instant::now();
    loop {
        reach("commitTransaction in MongoDB");
        match session.commit_transaction().await {
            Ok(()) => return Ok(()),
            Err(error) if error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT) => {
                if began.elapsed() >= COMMIT_LIMIT {
                    let mut failure = failed_as(doing, &error, Fate::Unknown);
                    failure.fate = Fate::Unknown;
                    return Err(Tried::Failed(failure));
                }
            }
            Err(error) if is_transient(&error) => return Err(Tried::of(doing, &error)),
            Err(error) => return Err(Tried::Failed(failed_as(doing, &error, Fate::Unknown))),
        }
    }
}

/// Writes entries, in the transaction of `session`, and checks the fence: a run
/// that lost its lease is no longer `running`, and the write to its document
/// conflicts with the one that said so.
pub(super) async fn write(
    store: &Mongo,
    mut session: Option<&mut ClientSession>,
    entries: &[Entry],
) -> Result<(), Tried> {
    let (records, rows, gone) = sort(store, entries);
    let fence = doc! {
        "update": "migration_runs",
        "updates": [{
            "q": { "_id": &store.run_id, "fence": store.fence, "outcome": "running" },
            "u": { "$inc": { "writes": 1_i64 } },
        }],
    };
    let reply = run(store, session.as_deref_mut(), fence).await?;
    if reply.get("n").and_then(Bson::as_i32) != Some(1) {
        return Err(fenced());
    }
    if !records.is_empty() {
        insert_steps(store, session.as_deref_mut(), records).await?;
    }
    if !rows.is_empty() {
        let updates: Vec<Document> = rows
            .into_iter()
            .map(|row| doc! { "q": { "_id": row.get("_id").cloned() }, "u": row, "upsert": true })
            .collect();
        run(
            store,
            session.as_deref_mut(),
            doc! { "update": "migration_history", "updates": updates },
        )
        .await?;
    }
    if !gone.is_empty() {
        let delete = doc! {
            "delete": "migration_history",
            "deletes": [{ "q": { "_id": { "$in": gone } }, "limit": 0 }],
        };
        run(store, session, delete).await?;
    }
    Ok(())
}

fn fenced() -> Tried {
    let taken = "another run has taken the lease";
    Tried::Failed(StoreError::new(StoreName::Mongo, RECORD, Fate::Fenced, taken))
}

/// Checks the fence in the transaction of `session`, and writes nothing. Enough
/// only where the transaction writes to something that whoever takes the lease
/// writes to after it has ended our run: a shard of ours.
pub(super) async fn check_fence(store: &Mongo, session: &mut ClientSession) -> Result<(), Tried> {
    let ours = doc! { "_id": &store.run_id, "fence": store.fence, "outcome": "running" };
    let runs = store.database.collection::<Document>("migration_runs");
    let found = runs.find_one(ours).session(session).await;
    match found.map_err(|error| Tried::of(RECORD, &error))? {
        Some(_) => Ok(()),
        None => Err(fenced()),
    }
}

/// Inserts documents into `migration_steps`, in order.
pub(super) async fn insert_steps(
    store: &Mongo,
    session: Option<&mut ClientSession>,
    documents: Vec<Document>,
) -> Result<(), Tried> {
    let insert = doc! { "insert": "migration_steps", "documents": documents };
    run(store, session, insert).await.map(drop).map_err(|tried| {
        let Tried::Failed(mut error) = tried else { return tried };
        if error.said.code.as_deref().is_some_and(|code| code.contains("11000")) {
            error.fate = Fate::Fenced;
            error.said.message = format!("another run recorded it first: {}", error.said.message);
        }
        Tried::Failed(error)
    })
}

/// Without transactions: the fence first, then one write after the other. What a
/// crash leaves out is a record less, which reads as "not done yet", or a row
/// less, which is written again.
async fn append_alone(store: &Mongo, entries: &[Entry]) -> Result<(), StoreError> {
    write(store, None, entries).await.map_err(alone)
}

/// What becomes of a write outside a transaction when no answer comes is unknown.
pub(super) fn alone(tried: Tried) -> StoreError {
    let (Tried::Again(mut error) | Tried::Failed(mut error)) = tried;
    if error.fate == Fate::Unreachable {
        error.fate = Fate::Unknown;
    }
    error
}

pub(super) async fn run(
    store: &Mongo,
    session: Option<&mut ClientSession>,
    mut command: Document,
) -> Result<Document, Tried> {
    let reply = match session {
        Some(session) => store.database.run_command(command).session(session).await,
        None => {
            command.insert("writeConcern", doc! { "w": "majority", "j": true });
            store.database.run_command(command).await
        }
    };
    let reply = reply.map_err(|error| Tried::of(RECORD, &error))?;
    check_reply(RECORD, &reply).map_err(Tried::Failed)?;
    Ok(reply)
}

/// Records to insert, rows to replace and rows to delete; of a row only what
/// becomes of it in the end.
fn sort(store: &Mongo, entries: &[Entry]) -> (Vec<Document>, Vec<Document>, Vec<i64>) {
    let mut records = Vec::new();
    let mut rows: BTreeMap<Version, Option<Document>> = BTreeMap::new();
    for entry in entries {
        match entry {
            Entry::Record(record) => records.push(record_document(store, record)),
            Entry::Row(row, rollback) => {
                rows.insert(row.version, Some(row_document(row, rollback)));
            }
            Entry::RowGone(version) => {
                rows.insert(*version, None);
            }
        }
    }
    let gone = rows.iter().filter(|(_, row)| row.is_none()).map(|(version, _)| number(*version));
    let gone = gone.collect();
    (records, rows.into_values().flatten().collect(), gone)
}

pub(super) fn number(version: Version) -> i64 {
    i64::try_from(version.0).expect("a version has 18 digits at most")
}

pub(super) fn record_document(store: &Mongo, record: &Record) -> Document {
    let version = number(record.step.version);
    let step = record.step.name.to_string();
    let key = doc! {
        "version": version, "step": &step, "attempt": record.attempt, "event": record.event.word(),
    };
    let mut document = doc! { "_id": key.clone() };
    document.extend(key);
    document.extend(doc! {
        "rank": record.rank,
        "checksum": record.checksum.to_string(),
        "migration_checksum": record.migration_checksum.to_string(),
        "cursor": null,
        "rows": null,
        "fence": store.fence,
        "run_id": &store.run_id,
        "recorded_at": DateTime::now(),
    });
    document
}

fn row_document(row: &Row, rollback: &Rollback) -> Document {
    let version = number(row.version);
    // Not by way of JSON: there a name like `$date` would be taken for a type.
    let script = bson::serialize_to_bson(rollback).expect("texts and numbers are BSON");
    let time = |at: Timestamp| Bson::DateTime(DateTime::from_millis(at.0));
    doc! {
        "_id": version,
        "version": version,
        "rank": row.rank,
        "migration_name": &row.migration_name,
        "description": &row.description,
        "checksum": row.checksum.to_string(),
        "status": row.status.word(),
        "executed_at": time(row.executed_at),
        "finished_at": row.finished_at.map_or(Bson::Null, time),
        "execution_time_ms": i64::try_from(row.execution_time_ms).unwrap_or(i64::MAX),
        "rollback_script": script,
        "applied_by": &row.applied_by,
        "release": &row.release,
        "tool_version": &row.tool_version,
        "run_id": &row.run_id,
    }
}

impl Mongo {
    /// The audit log, newest first.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn runs(&mut self) -> Result<Vec<RunSeen>, StoreError> {
        let collection = self.database.collection::<Document>("migration_runs");
        let found: Result<Vec<Document>, _> = async {
            collection
                .find(doc! {})
                .sort(doc! { "started_at": -1, "_id": 1 })
                .await?
                .try_collect()
                .await
        }
        .await;
        let seen = |document: &Document| {
            let fields = Fields { document, collection: "migration_runs" };
            let optional = |field: &str| document.get_str(field).ok().map(str::to_owned);
            let version = |field: &str| fields.number(field).ok().map(Version);
            Ok(RunSeen {
                run_id: fields.text("run_id")?.to_owned(),
                command: fields.text("command")?.to_owned(),
                started_by: fields.text("started_by")?.to_owned(),
                started_at: fields.time("started_at")?,
                finished_at: fields.time("finished_at").ok(),
                from_version: version("from_version"),
                to_version: version("to_version"),
                release: optional("release"),
                outcome: fields.text("outcome")?.to_owned(),
                error: optional("error"),
                reason: optional("reason"),
                tool_version: fields.text("tool_version")?.to_owned(),
            })
        };
        found.map_err(|error| failed(READ, &error))?.iter().map(seen).collect()
    }

    /// The records of one migration, oldest first.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn records_of(&mut self, version: Version) -> Result<Vec<RecordSeen>, StoreError> {
        let collection = self.database.collection::<Document>("migration_steps");
        let mut filter = steps_only();
        filter.insert("version", number(version));
        let found: Result<Vec<Document>, _> = async {
            collection
                .find(filter)
                .sort(doc! { "recorded_at": 1, "attempt": 1 })
                .await?
                .try_collect()
                .await
        }
        .await;
        let seen = |document: &Document| {
            let fields = Fields { document, collection: "migration_steps" };
            Ok(RecordSeen {
                record: record_of(document)?,
                run_id: fields.text("run_id")?.to_owned(),
                recorded_at: fields.time("recorded_at")?,
            })
        };
        found.map_err(|error| failed(READ, &error))?.iter().map(seen).collect()
    }
}
