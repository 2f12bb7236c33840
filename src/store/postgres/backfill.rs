//! Backfills in Postgres.
//!
//! A batch is one transaction: the bound is found, the rows up to it are
//! rewritten, and the cursor is moved if the fence still stands. The row of
//! the cursor is locked all the while, so nobody takes a shard in the middle of
//! a batch of it.

use super::function::{PostgresBatch, call_batch, enter};
use super::history::{OWN_TIMEOUTS, number, settle_transaction, unless_undefined, write};
use super::key::{Range, TableKey, find_table, key_of};
use super::rejects::{self, put_aside};
use super::step::{clean, settings};
use super::{Postgres, failed, lease, pace, quote, survey};
use crate::core::backfill::{Batch, Key, Shard, Survey};
use crate::core::history::Entry;
use crate::core::id::{StepId, StoreName};
use crate::core::pace::{Limits, Reading, Steer, Steering};
use crate::core::parse::manifest::Work;
use crate::core::step::Timeouts;
use crate::failpoint::around;
use crate::store::backfill::{Backfills, Job};
use crate::store::copy::BadRow;
use crate::store::rejects::{check, is_about_a_row, reason};
use crate::store::{Fate, Outcome, Run, StoreError, lease_term};
use futures_util::future::{join, join3};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

/// An application's row that is locked is waited for no longer than this.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_secs(3);

/// Nor may a statement of a batch take longer.
pub(super) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);

/// Keys leave the server as texts that it reads back as the same values, whatever
/// the session is set to.
pub(super) const EXACT_TEXTS: [(&str, &str); 5] = [
    ("datestyle", "'ISO'"),
    ("timezone", "'UTC'"),
    ("extra_float_digits", "1"),
    ("bytea_output", "'hex'"),
    ("intervalstyle", "'postgres'"),
];

/// The bound is found along the index, whatever the statistics say.
const ALONG_THE_INDEX: [(&str, &str); 2] =
    [("enable_seqscan", "off"), ("enable_bitmapscan", "off")];

/// Where the key range stands in a statement.
const RANGE: &str = "{batch}";

const BATCH: &str = "rewrite a batch";
const BEGIN: &str = "begin the backfill";
const CURSORS: &str = "read how far the backfill is";
const CLAIM: &str = "take a shard of the backfill";
const KEEP: &str = "keep a shard of the backfill";
const YIELD: &str = "give a shard of the backfill back";
const STEER: &str = "steer the backfills";

/// How backfills go through their tables, by step and table: asked once.
pub(super) type Routes = BTreeMap<(StepId, String), Arc<Route>>;

/// How a backfill goes through one table.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) key: TableKey,
    /// The name of the table itself, which a partition's is not.
    name: String,
}

impl Backfills for Postgres {
    async fn another(&mut self) -> Result<Postgres, StoreError> {
        let another = Postgres::connect(self.config.clone(), &self.run_id).await?;
        let mut another = another.with_functions(self.functions.clone());
        another.fence = self.fence;
        Ok(another)
    }

    async fn enlist(&mut self, run: &Run) -> Result<bool, StoreError> {
        around(lease::enlist(self, run), "enlist in Postgres").await
    }

    async fn discharge(&mut self, outcome: &Outcome) -> Result<(), StoreError> {
        around(lease::discharge(self, outcome), "discharge in Postgres").await
    }

    async fn estimate(&mut self, job: Job<'_>) -> Result<Option<u64>, StoreError> {
        survey::estimate(self, job).await
    }

    async fn survey(
        &mut self,
        job: Job<'_>,
        shards: usize,
        past: &[Shard],
    ) -> Result<Survey, StoreError> {
        survey::survey(self, job, shards, past).await
    }

    async fn begin(
        &mut self,
        job: Job<'_>,
        shards: &[Shard],
        entries: &[Entry],
    ) -> Result<(), StoreError> {
        around(begin(self, job, shards, entries), "begin in Postgres").await
    }

    async fn shards(&mut self, job: Job<'_>) -> Result<Vec<Shard>, StoreError> {
        shards(self, job).await
    }

    async fn claim(&mut self, job: Job<'_>) -> Result<Option<Shard>, StoreError> {
        around(claim(self, job), "claim in Postgres").await
    }

    async fn keep(&mut self, job: Job<'_>, shard: &Shard) -> Result<bool, StoreError> {
        let set = "recorded_at = pg_catalog.clock_timestamp()";
        touch(self, job, shard, set, KEEP).await
    }

    async fn yield_shard(&mut self, job: Job<'_>, shard: &Shard) -> Result<(), StoreError> {
        let set = "cursor = cursor || '{\"claimed\": false}'::jsonb, \
                   recorded_at = pg_catalog.clock_timestamp()";
        around(touch(self, job, shard, set, YIELD), "yield in Postgres").await.map(drop)
    }

    async fn batch(
        &mut self,
        job: Job<'_>,
        shard: &Shard,
        rows: u64,
    ) -> Result<Option<Batch>, StoreError> {
        around(batch(self, job, shard, Rows::Upto(rows)), "batch in Postgres").await
    }

    async fn single(&mut self, job: Job<'_>, shard: &Shard) -> Result<Option<Batch>, StoreError> {
        around(batch(self, job, shard, Rows::Single), "single row in Postgres").await
    }

    async fn rejects(&mut self, job: Job<'_>) -> Result<u64, StoreError> {
        rejects::count(self, job).await
    }

    async fn steering(&mut self) -> Result<Steering, StoreError> {
        steering(self).await
    }

    async fn steer(&mut self, steer: &Steer, by: &Run) -> Result<(), StoreError> {
        around(steer_all(self, steer, by), "steer in Postgres").await
    }

    async fn probe(&mut self, limits: &Limits) -> Vec<Reading> {
        pace::probe(self, limits).await
    }
}

/// What is set while keys are read, each with its value. Keys that read the same
/// whatever is set (`None` are any) need less.
fn reading(key: Option<&TableKey>) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    let exact = match key {
        Some(key) if key.is_plain() => &[][..],
        Some(_) | None => &EXACT_TEXTS,
    };
    exact.iter().chain(&ALONG_THE_INDEX)
}

/// Begins a transaction of a backfill, in which keys are read.
pub(super) fn begin_reading(store: &Postgres, job: Job<'_>, key: Option<&TableKey>) -> String {
    let timeouts = Timeouts {
        lock: Some(job.timeouts.lock.unwrap_or(LOCK_TIMEOUT)),
        statement: Some(job.timeouts.statement.unwrap_or(STATEMENT_TIMEOUT)),
    };
    let mut begin = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {}",
        settings(store, timeouts, "SET LOCAL")
    );
    for (name, value) in reading(key) {
        begin.push_str(&format!("; SET LOCAL {name} = {value}"));
    }
    begin
}

/// From here on it is as it would be in a script, but for the mark by which
/// triggers know a backfill.
pub(super) fn begin_writing(key: Option<&TableKey>) -> String {
    let mut begin = "SET LOCAL lockstep.backfill = 'on'".to_owned();
    for (name, _) in reading(key) {
        begin.push_str(&format!("; SET LOCAL {name} TO DEFAULT"));
    }
    begin
}

/// The statement of a batch. `name` is that of the table in `table`: conditions
/// that somebody wrote for the whole table hold for a partition too.
pub(super) fn statement(
    work: &Work,
    table: &str,
    name: &str,
    key: &TableKey,
    after: Option<&[String]>,
    upto: &[String],
) -> Result<(String, Range), StoreError> {
    match work {
        Work::Update { table: whole, set, condition, .. } => {
            let alias = quote(&whole.name);
            let range = key.range(&format!("{alias}."), after, Some(upto));
            let called = if whole.name == name { String::new() } else { format!(" AS {alias}") };
            let condition = match condition {
                Some(condition) => format!(" AND (\n{condition}\n)"),
                None => String::new(),
            };
            // Either may end with a comment.
            let sql =
                format!("UPDATE ONLY {table}{called} SET\n{set}\nWHERE ({}){condition}", range.sql);
            Ok((sql, range))
        }
        Work::Sql { sql, .. } => {
            let range = key.range("", after, Some(upto));
            Ok((sql.replace(RANGE, &format!("({})", range.sql)), range))
        }
        // What its function says, nobody knows before; these are the rows that it gets.
        Work::Call { condition, .. } => {
            let range = key.range("", after, Some(upto));
            let condition = match condition {
                Some(condition) => format!(" AND (\n{condition}\n)"),
                None => String::new(),
            };
            Ok((format!("SELECT FROM {table} WHERE ({}){condition}", range.sql), range))
        }
        Work::Documents { .. } | Work::CopyToMongo { .. } | Work::CopyToPostgres { .. } => {
            Err(not_here(BATCH))
        }
    }
}

/// What is not done here.
pub(super) fn not_here(doing: &'static str) -> StoreError {
    let message = "Postgres does not go along rows of its own for this backfill; this is a defect of Lockstep";
    StoreError::new(StoreName::Postgres, doing, Fate::Refused, message)
}

/// The columns that somebody chose as the key.
fn wanted(work: &Work) -> &[String] {
    match work {
        Work::Update { key, .. }
        | Work::Sql { key, .. }
        | Work::Call { key, .. }
        | Work::CopyToPostgres { key, .. } => key,
        Work::Documents { .. } | Work::CopyToMongo { .. } => &[],
    }
}

/// The row in which a shard's cursor is kept: version, step, attempt.
fn place(job: Job<'_>, shard: &Shard) -> (i64, String, i32) {
    let name = &job.record.step.name;
    let step = match shard.index {
        1 => name.to_string(),
        index => format!("{name}#{index}"),
    };
    (number(job.record.step.version), step, attempt(job))
}

fn attempt(job: Job<'_>) -> i32 {
    i32::try_from(job.record.attempt).unwrap_or(i32::MAX)
}

/// How a shard's table is gone through: along the key that is recorded with the
/// shard, whatever indexes were made since; what is not recorded yet goes along the
/// key that the job wants.
pub(super) async fn route(
    store: &mut Postgres,
    job: Job<'_>,
    table: &str,
    recorded: Option<&Shard>,
) -> Result<Arc<Route>, StoreError> {
    let id = (job.record.step.clone(), table.to_owned());
    if let Some(route) = store.routes.get(&id) {
        return Ok(route.clone());
    }
    let mut columns = wanted(job.work).to_vec();
    if let Some(shard) = recorded {
        let sql = format!(
            "SELECT (cursor -> 'key')::text FROM {} \
             WHERE version = $1 AND step = $2 AND attempt = $3 AND event = 'progress'",
            store.table("migration_steps")
        );
        let (version, step, attempt) = place(job, shard);
        let params: [(&(dyn ToSql + Sync), Type); 3] =
            [(&version, Type::INT8), (&step, Type::TEXT), (&attempt, Type::INT4)];
        let rows = store.client.query_typed(&sql, &params).await;
        let rows = rows.map_err(|error| failed(BATCH, &error))?;
        let key = rows.first().and_then(|row| row.get::<_, Option<&str>>(0));
        columns = key.and_then(|key| serde_json::from_str(key).ok()).unwrap_or(columns);
    }
    let Some(found) = find_table(store, table).await? else {
        let gone = format!("{table} is gone, and with it the rows that were still to be rewritten");
        return Err(StoreError::new(StoreName::Postgres, BATCH, Fate::Refused, gone));
    };
    let key = key_of(store, &found, &columns).await?;
    let route = Arc::new(Route { key, name: found.name });
    store.routes.insert(id, route.clone());
    Ok(route)
}

/// What is recorded of a shard, beside its rows. Where they come from the other
/// store, so do the keys, and no column is gone along.
async fn cursor(store: &mut Postgres, job: Job<'_>, shard: &Shard) -> Result<Value, StoreError> {
    let mut cursor = json!(shard);
    if !matches!(job.work, Work::CopyToPostgres { .. }) {
        cursor["key"] = json!(route(store, job, &shard.table, None).await?.key.names());
    }
    Ok(cursor)
}

async fn begin(
    store: &mut Postgres,
    job: Job<'_>,
    shards: &[Shard],
    entries: &[Entry],
) -> Result<(), StoreError> {
    clean(store).await?;
    let mut rows = Vec::new();
    for shard in shards {
        let (_, step, _) = place(job, shard);
        rows.push(json!({ "step": step, "cursor": cursor(store, job, shard).await? }));
    }
    let rows = Value::from(rows).to_string();
    let insert = format!(
        "INSERT INTO {} (version, step, attempt, event, rank, checksum, migration_checksum, \
         cursor, rows, fence, run_id) \
         SELECT $2, step, $3, 'progress', $4, $5, $6, cursor, 0, $7, $8 \
         FROM pg_catalog.json_to_recordset($1::text::json) AS r (step text, cursor jsonb) \
         ON CONFLICT (version, step, attempt, event) DO NOTHING",
        store.table("migration_steps")
    );
    let record = job.record;
    let (version, attempt) = (number(record.step.version), attempt(job));
    let rank = i32::try_from(record.rank).unwrap_or(i32::MAX);
    let (checksum, folder) = (record.checksum.to_string(), record.migration_checksum.to_string());
    let begin = format!("BEGIN; {OWN_TIMEOUTS}");
    store.open = true;
    store.client.batch_execute(&begin).await.map_err(|error| failed(BEGIN, &error))?;
    let written = async {
        let params: [(&(dyn ToSql + Sync), Type); 8] = [
            (&rows, Type::TEXT),
            (&version, Type::INT8),
            (&attempt, Type::INT4),
            (&rank, Type::INT4),
            (&checksum, Type::TEXT),
            (&folder, Type::TEXT),
            (&store.fence, Type::INT8),
            (&store.run_id, Type::TEXT),
        ];
        let inserted = store.client.execute_typed(&insert, &params).await;
        inserted.map_err(|error| failed(BEGIN, &error))?;
        write(store, entries).await
    }
    .await;
    settle_transaction(store, written, BEGIN).await
}

/// The rows of all shards of a job: `$1` is the version, `$2` the attempt, `$3` the
/// step.
const OF_JOB: &str = "version = $1 AND attempt = $2 AND event = 'progress' \
                      AND pg_catalog.split_part(step, '#', 1) = $3";

async fn shards(store: &mut Postgres, job: Job<'_>) -> Result<Vec<Shard>, StoreError> {
    let sql = format!(
        "SELECT step, cursor::text, rows FROM {} WHERE {OF_JOB}",
        store.table("migration_steps")
    );
    let name = job.record.step.name.to_string();
    let (version, attempt) = (number(job.record.step.version), attempt(job));
    let client = store.session().await?;
    let params: [(&(dyn ToSql + Sync), Type); 3] =
        [(&version, Type::INT8), (&attempt, Type::INT4), (&name, Type::TEXT)];
    let rows = unless_undefined(client.query_typed(&sql, &params).await)?.unwrap_or_default();
    let mut shards = rows.iter().map(shard_of).collect::<Result<Vec<_>, _>>()?;
    shards.sort_by_key(|shard| shard.index);
    Ok(shards)
}

/// Reads step, cursor and rows.
fn shard_of(row: &Row) -> Result<Shard, StoreError> {
    let (step, rows): (&str, Option<i64>) = (row.get(0), row.get(2));
    let cursor = row.get::<_, Option<&str>>(1).unwrap_or("null");
    let corrupt = |why: String| {
        let message = format!("the cursor in migration_steps ({step}, progress): {why}");
        StoreError::new(StoreName::Postgres, CURSORS, Fate::Corrupt, message)
    };
    let mut shard: Shard =
        serde_json::from_str(cursor).map_err(|error| corrupt(error.to_string()))?;
    shard.index = match step.split_once('#') {
        None => 1,
        Some((_, index)) => index.parse().map_err(|_| corrupt(format!("`{index}`")))?,
    };
    shard.rows = rows.and_then(|rows| u64::try_from(rows).ok()).unwrap_or(0);
    Ok(shard)
}

/// A shard whose run says nothing for so many terms of a lease is anybody's: the
/// run itself would have lost its lease by then.
const STALE_AFTER_TERMS: f64 = 1.5;

async fn claim(store: &mut Postgres, job: Job<'_>) -> Result<Option<Shard>, StoreError> {
    let (steps, runs) = (store.table("migration_steps"), store.table("migration_runs"));
    // The row that is locked is the row as it is now: what another run took a
    // moment ago is passed over.
    let take = format!(
        "WITH free AS MATERIALIZED (SELECT step FROM {steps} AS p WHERE {OF_JOB} \
         AND NOT (cursor ->> 'done')::boolean \
         AND (NOT (cursor ->> 'claimed')::boolean OR run_id <> $4 \
         AND (recorded_at < pg_catalog.clock_timestamp() - $5 * interval '1 millisecond' \
         OR NOT EXISTS (SELECT 1 FROM {runs} AS r \
         WHERE r.run_id = p.run_id AND r.outcome = 'running'))) \
         ORDER BY pg_catalog.length(step), step \
         LIMIT 1 FOR UPDATE SKIP LOCKED) \
         UPDATE {steps} AS s SET cursor = s.cursor || '{{\"claimed\": true}}'::jsonb, \
         run_id = $4, fence = $6, recorded_at = pg_catalog.clock_timestamp() FROM free \
         WHERE s.version = $1 AND s.attempt = $2 AND s.event = 'progress' AND s.step = free.step \
         RETURNING s.step, s.cursor::text, s.rows"
    );
    let stale = lease_term().mul_f64(STALE_AFTER_TERMS).as_secs_f64() * 1000.0;
    let name = job.record.step.name.to_string();
    let (version, attempt) = (number(job.record.step.version), attempt(job));
    store.session().await?;
    store.open = true;
    let begin = format!("BEGIN ISOLATION LEVEL READ COMMITTED; {OWN_TIMEOUTS}");
    let params: [(&(dyn ToSql + Sync), Type); 6] = [
        (&version, Type::INT8),
        (&attempt, Type::INT4),
        (&name, Type::TEXT),
        (&store.run_id, Type::TEXT),
        (&stale, Type::FLOAT8),
        (&store.fence, Type::INT8),
    ];
    let (begun, taken, fenced) = join3(
        store.client.batch_execute(&begin),
        store.client.query_typed(&take, &params),
        check_fence(store, CLAIM),
    )
    .await;
    let taken = match (begun, taken) {
        (Ok(()), Ok(rows)) => fenced.and_then(|()| rows.first().map(shard_of).transpose()),
        (Err(error), _) | (_, Err(error)) => Err(failed(CLAIM, &error)),
    };
    let (shard, end) = match taken {
        Ok(shard) => (shard, Ok(())),
        Err(error) => (None, Err(error)),
    };
    settle_transaction(store, end, CLAIM).await?;
    Ok(shard)
}

/// Whether the lease is still ours, as the last statement of a transaction. The
/// run's row is locked, so that whoever takes the lease waits for our commit, but
/// it is shared: the workers of a run do not wait for each other's commits.
pub(super) async fn check_fence(store: &Postgres, doing: &'static str) -> Result<(), StoreError> {
    let sql = format!(
        "SELECT 1 FROM {} WHERE run_id = $1 AND fence = $2 AND outcome = 'running' FOR SHARE",
        store.table("migration_runs")
    );
    let ours: [(&(dyn ToSql + Sync), Type); 2] =
        [(&store.run_id, Type::TEXT), (&store.fence, Type::INT8)];
    let rows = store.client.query_typed(&sql, &ours).await;
    match rows.map_err(|error| failed(doing, &error))?.is_empty() {
        false => Ok(()),
        true => Err(StoreError::new(
            StoreName::Postgres,
            doing,
            Fate::Fenced,
            "another run has taken the lease",
        )),
    }
}

/// Changes the row of a shard that is ours. `false`: it is not.
async fn touch(
    store: &mut Postgres,
    job: Job<'_>,
    shard: &Shard,
    set: &str,
    doing: &'static str,
) -> Result<bool, StoreError> {
    let sql = format!(
        "UPDATE {} SET {set} WHERE version = $1 AND step = $2 AND attempt = $3 \
         AND event = 'progress' AND run_id = $4 AND (cursor ->> 'claimed')::boolean \
         AND EXISTS (SELECT 1 FROM {} AS r \
         WHERE r.run_id = $4 AND r.fence = $5 AND r.outcome = 'running' FOR SHARE)",
        store.table("migration_steps"),
        store.table("migration_runs")
    );
    let (version, step, attempt) = place(job, shard);
    store.session().await?;
    store.open = true;
    let begin = format!("BEGIN; {OWN_TIMEOUTS}");
    store.client.batch_execute(&begin).await.map_err(|error| failed(doing, &error))?;
    let params: [(&(dyn ToSql + Sync), Type); 5] = [
        (&version, Type::INT8),
        (&step, Type::TEXT),
        (&attempt, Type::INT4),
        (&store.run_id, Type::TEXT),
        (&store.fence, Type::INT8),
    ];
    let touched = store.client.execute_typed(&sql, &params).await;
    let touched = touched.map_err(|error| failed(doing, &error));
    let ours = matches!(touched, Ok(1));
    settle_transaction(store, touched.map(drop), doing).await?;
    Ok(ours)
}

/// Round trips of a batch before its commit: it begins and looks for its end, writes, and
/// moves its cursor.
const TRIPS: u32 = 3;

/// With those of a function that asks once and writes once, and is looked after.
const CALL_TRIPS: u32 = 9;

/// What a batch is made of.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Rows {
    Upto(u64),
    /// One, which is put aside if it is refused.
    Single,
}

async fn batch(
    store: &mut Postgres,
    job: Job<'_>,
    shard: &Shard,
    rows: Rows,
) -> Result<Option<Batch>, StoreError> {
    // In a session in which only its own function ran, it may run again.
    let stays = job.work.call().is_some()
        && store.stale
        && !(store.open || store.used || store.client.is_closed());
    if !stays {
        clean(store).await?;
    }
    let route = route(store, job, &shard.table, Some(shard)).await?;
    store.open = true;
    let mut done = rewrite(store, job, shard, rows, &route).await;
    if let Ok(Tried::Elsewhere) = done {
        store.reconnect().await?;
        store.open = true;
        done = rewrite(store, job, shard, rows, &route).await;
    }
    let done = done.map(|tried| match tried {
        Tried::Done(batch) => Some(batch),
        Tried::Elsewhere | Tried::NotOurs => None,
    });
    let Ok(Some(mut batch)) = done else {
        let none = done.map(|_| None);
        // If the connection is gone, so is the transaction.
        let _ = store.client.batch_execute("ROLLBACK").await;
        store.open = false;
        return none;
    };
    let began = Instant::now();
    settle_transaction(store, Ok(()), BATCH).await?;
    batch.commit = began.elapsed();
    Ok(Some(batch))
}

/// What a batch came to before its end.
enum Tried {
    Done(Batch),
    /// The shard is another run's, or its next row is another one.
    NotOurs,
    /// What this session remembers of a function is not where the transaction is.
    Elsewhere,
}

/// All of a batch but its end.
async fn rewrite(
    store: &mut Postgres,
    job: Job<'_>,
    shard: &Shard,
    rows: Rows,
    route: &Route,
) -> Result<Tried, StoreError> {
    let Route { key, name } = route;
    let (is_single, rows) = match rows {
        Rows::Single => (true, 1),
        Rows::Upto(rows) => (false, rows.max(1)),
    };
    let after = shard.after.as_ref().map(|after| key.parse(after)).transpose()?;
    let end = key.parse(&shard.upto)?;
    // As a whole, a partitioned table is read with its partitions.
    let only = match job.work {
        Work::Sql { .. } | Work::Call { .. } => "",
        _ => "ONLY ",
    };
    let ahead = key.range("k.", after.as_deref(), Some(&end));
    let from = format!("FROM {only}{} AS k WHERE {}", shard.table, ahead.sql);
    let bound = format!(
        "SELECT {} {from} ORDER BY {} OFFSET {} LIMIT 1",
        key.texts("k."),
        key.order("k.", ""),
        rows - 1
    );
    let (begun, locked, bound) = join3(
        store.client.batch_execute(&begin_reading(store, job, Some(key))),
        hold_cursor(store, job, shard),
        store.client.query_typed(&bound, &ahead.typed()),
    )
    .await;
    begun.map_err(|error| failed(BATCH, &error))?;
    if !locked? {
        return Ok(Tried::NotOurs);
    }
    let mut place = None;
    if job.work.call().is_some() {
        place = enter(store, BATCH).await?;
        if place.is_none() {
            return Ok(Tried::Elsewhere);
        }
    }
    let store = &*store;
    let placed = |mut failure: StoreError, upto: &[String]| {
        let range = match &shard.after {
            Some(after) => format!("keys after {after} up to {}", shown(upto)),
            None => format!("keys up to {}", shown(upto)),
        };
        let range = format!("{range} of {}", shard.table);
        // It counts in a statement that nobody has seen.
        failure.said.position = None;
        failure.said.detail = Some(match failure.said.detail {
            Some(detail) => format!("{detail} ({range})"),
            None => range,
        });
        failure
    };
    let within = |error: &tokio_postgres::Error, upto: &[String]| match is_single {
        true => failed(BATCH, error),
        false => placed(failed(BATCH, error), upto),
    };
    let bound = bound.map_err(|error| within(&error, &end))?.first().map(|row| key.read(row));
    let (upto, passed) = match bound {
        Some(bound) => (bound, rows),
        None => {
            let rest = format!("SELECT pg_catalog.count(*) {from}");
            let counted = store.client.query_typed(&rest, &ahead.typed()).await;
            let counted = counted.map_err(|error| within(&error, &end))?;
            let counted: i64 = counted.first().map_or(0, |row| row.get(0));
            (end.clone(), u64::try_from(counted).unwrap_or(0))
        }
    };
    let mut writing = begin_writing(Some(key));
    if is_single {
        writing.push_str("; SAVEPOINT lockstep_single");
    }
    let mut rewritten = if let (Work::Call { call, condition, .. }, Some(place)) =
        (job.work, &place)
    {
        let set = store.client.batch_execute(&writing).await;
        set.map_err(|error| failed(BATCH, &error))?;
        let batch =
            PostgresBatch::new(&store.client, key, condition.as_deref(), after.as_deref(), &upto);
        let called = Box::pin(call_batch(&store.functions, call, batch, place, BATCH)).await;
        called.map_err(|error| match is_single && is_about_a_row(&error) {
            true => error,
            false => placed(error, &upto),
        })
    } else {
        let (sql, range) = statement(job.work, &shard.table, name, key, after.as_deref(), &upto)?;
        let range = range.typed();
        let (set, rewritten) =
            join(store.client.batch_execute(&writing), store.client.execute_typed(&sql, &range))
                .await;
        set.map_err(|error| failed(BATCH, &error))?;
        rewritten.map_err(|error| within(&error, &upto))
    };
    if is_single && rewritten.is_ok() {
        // What is put off until the end would be refused there, and all of it with it.
        let checked = store.client.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await;
        if let Err(error) = checked {
            rewritten = Err(within(&error, &upto));
        }
    }
    let (rewritten, bad) = match rewritten {
        Ok(rewritten) => (rewritten, None),
        Err(error) if is_single && is_about_a_row(&error) => {
            let back = store.client.batch_execute("ROLLBACK TO SAVEPOINT lockstep_single").await;
            back.map_err(|error| failed(BATCH, &error))?;
            let within = key.range("k.", after.as_deref(), Some(&upto));
            let row = format!(
                "SELECT pg_catalog.row_to_json(k.*)::text FROM {only}{} AS k WHERE {} LIMIT 1",
                shard.table, within.sql
            );
            let row = store.client.query_typed(&row, &within.typed()).await;
            let row = row.map_err(|error| failed(BATCH, &error))?;
            // It is gone, and with it what was against it.
            let Some(row) = row.first() else { return Ok(Tried::NotOurs) };
            let (key, reason) = (shown(&upto).to_string(), reason(&error));
            let row = row.get::<_, Option<String>>(0).unwrap_or_default();
            let bad = BadRow { key, row, reason };
            check(job, BATCH, 0, std::slice::from_ref(&bad)).map_err(|mut stop| {
                stop.said.code = error.said.code;
                stop
            })?;
            (0, Some(bad))
        }
        Err(error) => return Err(error),
    };

    let mut moved = shard.clone();
    moved.done = upto == end;
    moved.claimed = !moved.done;
    moved.after = Some(Key(json!(upto)));
    moved.passed += passed;
    moved.rows += rewritten;
    let began = Instant::now();
    let moved = move_cursor(store, job, moved, rewritten).await?;
    let trips = began.elapsed() * if let Work::Call { .. } = job.work { CALL_TRIPS } else { TRIPS };
    if moved.is_some() {
        put_aside(store, job, shard.index, bad.as_slice()).await?;
    }
    let batch = |shard| Batch { shard, passed, rows: rewritten, trips, commit: Duration::ZERO };
    Ok(moved.map_or(Tried::NotOurs, |shard| Tried::Done(batch(shard))))
}

/// Locks the row of a shard's cursor, in the transaction that is open. `false`: it is
/// not ours, or not where we think.
pub(super) async fn hold_cursor(
    store: &Postgres,
    job: Job<'_>,
    shard: &Shard,
) -> Result<bool, StoreError> {
    let (version, step, attempt) = place(job, shard);
    let ours = format!(
        "SELECT 1 FROM {} WHERE version = $1 AND step = $2 AND attempt = $3 \
         AND event = 'progress' AND run_id = $4 AND (cursor ->> 'claimed')::boolean \
         AND cursor -> 'after' = $5::text::jsonb FOR UPDATE",
        store.table("migration_steps")
    );
    let recorded = json!(shard.after).to_string();
    let params: [(&(dyn ToSql + Sync), Type); 5] = [
        (&version, Type::INT8),
        (&step, Type::TEXT),
        (&attempt, Type::INT4),
        (&store.run_id, Type::TEXT),
        (&recorded, Type::TEXT),
    ];
    let locked = store.client.query_typed(&ours, &params).await;
    Ok(!locked.map_err(|error| failed(BATCH, &error))?.is_empty())
}

/// Records how far a shard is now, as the last of the transaction that is open.
pub(super) async fn move_cursor(
    store: &Postgres,
    job: Job<'_>,
    moved: Shard,
    rewritten: u64,
) -> Result<Option<Shard>, StoreError> {
    let (version, step, attempt) = place(job, &moved);
    let mut cursor = json!(moved);
    // What the range was is not changed by going through it.
    if let Some(cursor) = cursor.as_object_mut() {
        cursor.retain(|name, _| ["after", "passed", "done", "claimed"].contains(&name.as_str()));
    }
    let cursor = cursor.to_string();
    let more = i64::try_from(rewritten).unwrap_or(i64::MAX);
    let advance = format!(
        "UPDATE {} SET cursor = cursor || $5::text::jsonb, rows = coalesce(rows, 0) + $6, fence = $7, \
         recorded_at = pg_catalog.clock_timestamp() \
         WHERE version = $1 AND step = $2 AND attempt = $3 AND event = 'progress' AND run_id = $4 \
         AND EXISTS (SELECT 1 FROM {} AS r \
         WHERE r.run_id = $4 AND r.fence = $7 AND r.outcome = 'running' FOR SHARE)",
        store.table("migration_steps"),
        store.table("migration_runs")
    );
    let advance_params: [(&(dyn ToSql + Sync), Type); 7] = [
        (&version, Type::INT8),
        (&step, Type::TEXT),
        (&attempt, Type::INT4),
        (&store.run_id, Type::TEXT),
        (&cursor, Type::TEXT),
        (&more, Type::INT8),
        (&store.fence, Type::INT8),
    ];
    // Whatever a function in the statement or a trigger set must not reach our own.
    // The run's row is locked from here to the commit, and no longer: its heartbeat
    // waits for it.
    let reset = format!("RESET ALL; RESET ROLE; RESET SESSION AUTHORIZATION; {OWN_TIMEOUTS}");
    let (set, advanced) = join(
        store.client.batch_execute(&reset),
        store.client.execute_typed(&advance, &advance_params),
    )
    .await;
    set.map_err(|error| failed(BATCH, &error))?;
    match advanced.map_err(|error| failed(BATCH, &error))? {
        1 => Ok(Some(moved)),
        // Nobody can have taken the shard, as its row is locked, unless the lease went.
        _ => check_fence(store, BATCH).await.map(|()| None),
    }
}

/// A key for people.
fn shown(key: &[String]) -> Key {
    Key(json!(key))
}

async fn steering(store: &mut Postgres) -> Result<Steering, StoreError> {
    let sql = format!(
        "SELECT paused, reason, speed FROM {} WHERE id = 1",
        store.table("migration_control")
    );
    let client = store.session().await?;
    let rows = unless_undefined(client.query_typed(&sql, &[]).await)?.unwrap_or_default();
    Ok(rows.first().map_or_else(Steering::default, |row| {
        let reason: Option<String> = row.get(1);
        Steering {
            paused: row.get::<_, bool>(0).then(|| reason.unwrap_or_default()),
            speed: row.get(2),
        }
    }))
}

async fn steer_all(store: &mut Postgres, steer: &Steer, by: &Run) -> Result<(), StoreError> {
    let (command, paused, reason, speed) = match steer {
        Steer::Pause(why) => ("backfill pause", Some(true), Some(why.clone()), None),
        Steer::Resume => ("backfill resume", Some(false), by.reason.clone(), None),
        Steer::Speed(speed) => {
            let reason = by.reason.clone().unwrap_or_else(|| format!("speed {speed}"));
            ("backfill speed", None, Some(reason), Some(*speed))
        }
    };
    let change = format!(
        "UPDATE {} SET paused = coalesce($1, paused), speed = coalesce($3, speed), \
         reason = CASE WHEN $1 THEN $2 WHEN $1 IS NULL THEN reason END \
         WHERE id = 1 RETURNING fence",
        store.table("migration_control")
    );
    let audit = format!(
        "INSERT INTO {} (run_id, command, started_by, pid, finished_at, fence, outcome, reason, \
         tool_version) VALUES ($1, $2, $3, $4, pg_catalog.clock_timestamp(), $5, 'ok', $6, $7)",
        store.table("migration_runs")
    );
    let (who, pid) = (by.who(), i32::try_from(by.pid).unwrap_or(0));
    store.session().await?;
    store.open = true;
    let begin = format!("BEGIN; {OWN_TIMEOUTS}");
    store.client.batch_execute(&begin).await.map_err(|error| failed(STEER, &error))?;
    let steered = async {
        let params: [(&(dyn ToSql + Sync), Type); 3] =
            [(&paused, Type::BOOL), (&reason, Type::TEXT), (&speed, Type::FLOAT8)];
        let changed = store.client.query_typed(&change, &params).await;
        let Some(fence) = unless_undefined(changed)?.and_then(|rows| Some(rows.first()?.get(0)))
        else {
            let never = "no migration ever ran in this database";
            return Err(StoreError::new(StoreName::Postgres, STEER, Fate::Refused, never));
        };
        let fence: i64 = fence;
        let params: [(&(dyn ToSql + Sync), Type); 7] = [
            (&by.id, Type::TEXT),
            (&command, Type::TEXT),
            (&who, Type::TEXT),
            (&pid, Type::INT4),
            (&fence, Type::INT8),
            (&reason, Type::TEXT),
            (&env!("CARGO_PKG_VERSION"), Type::TEXT),
        ];
        let written = store.client.execute_typed(&audit, &params).await;
        written.map(drop).map_err(|error| failed(STEER, &error))
    }
    .await;
    settle_transaction(store, steered, STEER).await
}
