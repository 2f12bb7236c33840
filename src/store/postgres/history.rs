//! The five tables in Postgres.

use super::lease::{end_stalled, is_locked_out};
use super::{Postgres, failed, failed_as, quote};
use crate::core::checksum::Checksum;
use crate::core::history::{
    Entry, LeaseSeen, Record, RecordSeen, Row, RunSeen, Snapshot, Table, Timestamp, Unreadable,
};
use crate::core::id::{StepId, StoreName, Version};
use crate::core::migration::Rollback;
use crate::failpoint::reach;
use crate::store::{Fate, StoreError, lease_term};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row as SqlRow};

/// Our own statements give up on a lock after this, and on themselves.
pub(super) const OWN_TIMEOUTS: &str =
    "SET LOCAL lock_timeout = '3s'; SET LOCAL statement_timeout = '10s'";

/// Creating our tables is serialised by this lock: `CREATE TABLE IF NOT EXISTS`
/// by two sessions at once fails in one of them. It lasts for a transaction, so
/// it works behind a pooler.
const FOUNDING_LOCK: i64 = 0x6c6f_636b_7374_6570;

/// Whoever stands still in the middle of that is ended after a lease's term; this is
/// for those that were waiting as well.
const FOUNDING_SLACK: Duration = Duration::from_secs(10);

/// The tables, with `{s}` for the schema. The same names and fields as in
/// MongoDB; see docs/history.md.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS {s}.migration_control (
    id integer PRIMARY KEY DEFAULT 1 CHECK (id = 1),
    pair text NOT NULL,
    fence bigint NOT NULL DEFAULT 0,
    holder jsonb,
    expires_at timestamptz,
    paused boolean NOT NULL DEFAULT false,
    reason text,
    speed double precision NOT NULL DEFAULT 1
);
CREATE TABLE IF NOT EXISTS {s}.migration_steps (
    version bigint NOT NULL,
    step text NOT NULL,
    attempt integer NOT NULL,
    event text NOT NULL CHECK (event IN ('started', 'progress', 'applied', 'reverting', 'reverted')),
    rank integer NOT NULL,
    checksum text NOT NULL,
    migration_checksum text NOT NULL,
    cursor jsonb,
    rows bigint,
    fence bigint NOT NULL,
    run_id text NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (version, step, attempt, event)
);
CREATE TABLE IF NOT EXISTS {s}.migration_history (
    version bigint PRIMARY KEY,
    rank integer NOT NULL,
    migration_name text NOT NULL,
    description text NOT NULL,
    checksum text NOT NULL,
    status text NOT NULL CHECK (status IN ('running', 'held', 'completed', 'baseline')),
    executed_at timestamptz NOT NULL,
    finished_at timestamptz,
    execution_time_ms bigint NOT NULL,
    rollback_script jsonb,
    applied_by text NOT NULL,
    release text,
    tool_version text NOT NULL,
    run_id text NOT NULL
);
CREATE TABLE IF NOT EXISTS {s}.migration_runs (
    run_id text PRIMARY KEY,
    command text NOT NULL,
    started_by text NOT NULL,
    pid integer NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    from_version bigint,
    to_version bigint,
    release text,
    fence bigint NOT NULL,
    writes bigint NOT NULL DEFAULT 0,
    outcome text NOT NULL,
    error text,
    reason text,
    tool_version text NOT NULL
);
CREATE TABLE IF NOT EXISTS {s}.migration_rejects (
    version bigint NOT NULL,
    step text NOT NULL,
    attempt integer NOT NULL,
    number bigint NOT NULL,
    shard integer NOT NULL,
    key text NOT NULL,
    row text NOT NULL,
    reason text NOT NULL,
    run_id text NOT NULL,
    rejected_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (version, step, attempt, number)
);
";

const READ: &str = "read the migration history";
const RECORD: &str = "record in the migration history";

pub(super) async fn read(store: &mut Postgres) -> Result<Snapshot, StoreError> {
    let (control, steps, rows) = (
        format!(
            "SELECT pair, \
             CASE WHEN expires_at > pg_catalog.clock_timestamp() THEN holder ->> 'run_id' END, \
             pg_catalog.concat(holder ->> 'user', '@', holder ->> 'host', ', pid ', holder ->> 'pid'), \
             round(extract(epoch FROM expires_at) * 1000)::bigint FROM {} WHERE id = 1",
            store.table("migration_control")
        ),
        format!(
            "SELECT version, step, attempt, event, rank, checksum, migration_checksum FROM {} \
             WHERE pg_catalog.strpos(step, '#') = 0",
            store.table("migration_steps")
        ),
        format!(
            "SELECT version, rank, migration_name, description, checksum, status, \
             round(extract(epoch FROM executed_at) * 1000)::bigint, \
             round(extract(epoch FROM finished_at) * 1000)::bigint, \
             execution_time_ms, applied_by, release, tool_version, run_id FROM {}",
            store.table("migration_history")
        ),
    );
    let client = store.session().await?;
    // One round trip for all three, answered in this order while another run may
    // be writing: a row that says `completed` is never seen without its steps, and
    // a table of ours never without the one that is read last.
    let (rows, steps, control) = futures_util::future::join3(
        client.query_typed(&rows, &[]),
        client.query_typed(&steps, &[]),
        client.query_typed(&control, &[]),
    )
    .await;
    let control = unless_undefined(control)?;
    if control.is_none() {
        // They are made together. One of them alone, of another shape, is
        // somebody else's.
        for (table, found) in [("migration_steps", &steps), ("migration_history", &rows)] {
            if found.is_err() && !is_undefined(found) {
                let gone = "it is there, but migration_control is not";
                return Err(corrupt(gone, format!("table {table}")));
            }
        }
    }
    let control = control.unwrap_or_default();
    let steps = unless_undefined(steps)?.unwrap_or_default();
    let rows = unless_undefined(rows)?.unwrap_or_default();
    let mut unreadable = Vec::new();
    let records = steps.iter().filter_map(|row| match record_of(row) {
        Ok(record) => Some(record),
        Err(error) => {
            let key = json!({
                "version": row.get::<_, i64>(0),
                "step": row.get::<_, &str>(1),
                "attempt": row.get::<_, i32>(2),
                "event": row.get::<_, &str>(3),
            });
            unreadable.push(unread(row, Table::Steps, &key, error));
            None
        }
    });
    let records = records.collect();
    let readable = rows.iter().filter_map(|row| match row_of(row) {
        Ok(read) => Some(read),
        Err(error) => {
            let key = json!({ "version": row.get::<_, i64>(0) });
            unreadable.push(unread(row, Table::History, &key, error));
            None
        }
    });
    let rows = readable.collect();
    Ok(Snapshot {
        pair: control.first().map(|row| row.get(0)),
        lease: control.first().and_then(|row| {
            let run_id: Option<String> = row.get(1);
            run_id.map(|run_id| LeaseSeen {
                run_id,
                holder: row.get(2),
                expires_at: Timestamp(row.get(3)),
            })
        }),
        records,
        rows,
        unreadable,
    })
}

fn unread(row: &SqlRow, table: Table, key: &Value, error: StoreError) -> Unreadable {
    Unreadable {
        table,
        version: version_of(row).ok(),
        key: key.to_string(),
        what: error.said.message,
    }
}

/// Deletes what cannot be read.
pub(super) async fn discard(store: &mut Postgres, what: &[Unreadable]) -> Result<(), StoreError> {
    let keys = [
        (Table::Steps, "'version', version, 'step', step, 'attempt', attempt, 'event', event"),
        (Table::History, "'version', version"),
    ];
    store.session().await?;
    let begin = format!("BEGIN; {OWN_TIMEOUTS}");
    store.open = true;
    store.client.batch_execute(&begin).await.map_err(|error| failed(RECORD, &error))?;
    let mut done = Ok(());
    for (table, key) in keys {
        let delete = format!(
            "DELETE FROM {} WHERE pg_catalog.jsonb_build_object({key}) = $1::text::jsonb",
            store.table(table.name())
        );
        for it in what.iter().filter(|it| it.table == table) {
            let deleted = store.client.execute_typed(&delete, &[(&it.key, Type::TEXT)]).await;
            done = done.and(deleted.map(drop).map_err(|error| failed(RECORD, &error)));
        }
    }
    let fenced = match done {
        Ok(()) => write(store, &[]).await,
        failed => failed,
    };
    settle_transaction(store, fenced, RECORD).await
}

/// `None` when the table is not there: this engine was never here.
pub(super) fn unless_undefined(
    rows: Result<Vec<SqlRow>, tokio_postgres::Error>,
) -> Result<Option<Vec<SqlRow>>, StoreError> {
    match rows {
        Ok(rows) => Ok(Some(rows)),
        rows if is_undefined(&rows) => Ok(None),
        Err(error) => Err(failed(READ, &error)),
    }
}

fn is_undefined(rows: &Result<Vec<SqlRow>, tokio_postgres::Error>) -> bool {
    let code = rows.as_ref().err().and_then(tokio_postgres::Error::code);
    code == Some(&SqlState::UNDEFINED_TABLE) || code == Some(&SqlState::INVALID_SCHEMA_NAME)
}

fn corrupt(error: impl std::fmt::Display, row: impl std::fmt::Display) -> StoreError {
    let message = format!("{row}: {error}");
    StoreError::new(StoreName::Postgres, READ, Fate::Corrupt, message)
}

fn version_of(row: &SqlRow) -> Result<Version, StoreError> {
    let version: i64 = row.get(0);
    u64::try_from(version)
        .map(Version)
        .map_err(|error| corrupt(error, format!("version {version}")))
}

fn record_of(row: &SqlRow) -> Result<Record, StoreError> {
    let version = version_of(row)?;
    let (step, attempt, event): (&str, i32, &str) = (row.get(1), row.get(2), row.get(3));
    let at = || format!("migration_steps ({version}, {step}, {attempt}, {event})");
    Ok(Record {
        step: StepId { version, name: step.parse().map_err(|error| corrupt(error, at()))? },
        attempt: u32::try_from(attempt).map_err(|error| corrupt(error, at()))?,
        event: event.parse().map_err(|error| corrupt(error, at()))?,
        rank: u32::try_from(row.get::<_, i32>(4)).map_err(|error| corrupt(error, at()))?,
        checksum: parse_checksum(row.get(5)).map_err(|error| corrupt(error, at()))?,
        migration_checksum: parse_checksum(row.get(6)).map_err(|error| corrupt(error, at()))?,
    })
}

fn parse_checksum(text: &str) -> Result<Checksum, crate::core::checksum::ParseChecksumError> {
    text.parse()
}

fn row_of(row: &SqlRow) -> Result<Row, StoreError> {
    let version = version_of(row)?;
    let at = || format!("migration_history ({version})");
    Ok(Row {
        version,
        rank: u32::try_from(row.get::<_, i32>(1)).map_err(|error| corrupt(error, at()))?,
        migration_name: row.get(2),
        description: row.get(3),
        checksum: parse_checksum(row.get(4)).map_err(|error| corrupt(error, at()))?,
        status: row.get::<_, &str>(5).parse().map_err(|error| corrupt(error, at()))?,
        executed_at: Timestamp(row.get(6)),
        finished_at: row.get::<_, Option<i64>>(7).map(Timestamp),
        execution_time_ms: u64::try_from(row.get::<_, i64>(8))
            .map_err(|error| corrupt(error, at()))?,
        applied_by: row.get(9),
        release: row.get(10),
        tool_version: row.get(11),
        run_id: row.get(12),
    })
}

pub(super) async fn rollbacks(
    store: &mut Postgres,
    versions: &[Version],
) -> Result<BTreeMap<Version, Rollback>, StoreError> {
    let sql = format!(
        "SELECT version, rollback_script::text FROM {} \
         WHERE version = ANY ($1) AND rollback_script IS NOT NULL",
        store.table("migration_history")
    );
    let versions: Vec<i64> = versions.iter().map(|version| number(*version)).collect();
    let client = store.session().await?;
    let rows = client.query_typed(&sql, &[(&versions, Type::INT8_ARRAY)]).await;
    let rows = unless_undefined(rows)?.unwrap_or_default();
    let parse = |row: &SqlRow| {
        let version = version_of(row)?;
        let rollback = serde_json::from_str(row.get(1))
            .map_err(|error| corrupt(error, format!("rollback_script of {version}")))?;
        Ok((version, rollback))
    };
    rows.iter().map(parse).collect()
}

pub(super) async fn found(store: &mut Postgres, pair: &str) -> Result<String, StoreError> {
    let began = tokio::time::Instant::now();
    let mut reached = false;
    loop {
        let error = match try_found(store, pair).await {
            Err(error) if is_locked_out(&error) || error.fate == Fate::Unreachable => error,
            result => return result,
        };
        match error.fate {
            // Somebody may have taken us for one that stands still, see `end_stalled`.
            Fate::Unreachable if reached || store.reconnect().await.is_err() => return Err(error),
            Fate::Unreachable => reached = true,
            // Many wait in line for those that create the tables; of one that stands
            // still in the middle, nobody else is ever in the way for so long.
            _ if began.elapsed() > lease_term() + FOUNDING_SLACK => return Err(error),
            _ => end_stalled(store).await?,
        }
    }
}

async fn try_found(store: &mut Postgres, pair: &str) -> Result<String, StoreError> {
    const DOING: &str = "create the history tables";
    let control = store.table("migration_control");
    let history_schema = store.config.history_schema.clone();
    let schema = quote(&history_schema);
    // Somebody may have dropped one of them, or they are older than the last.
    let tables = ["migration_steps", "migration_history", "migration_runs", "migration_rejects"];
    let tables: Vec<String> = tables.into_iter().map(|name| store.table(name)).collect();
    let existing = format!(
        "SELECT pair, (SELECT bool_and(pg_catalog.to_regclass(t) IS NOT NULL) \
         FROM pg_catalog.unnest($1) AS t) FROM {control} WHERE id = 1"
    );
    // A fence is never given twice, even if the row that counts them was deleted.
    let insert = format!(
        "INSERT INTO {control} (id, pair, fence) \
         SELECT 1, $1, GREATEST(0, (SELECT max(fence) FROM {}), (SELECT max(fence) FROM {})) \
         ON CONFLICT (id) DO NOTHING",
        tables[0], tables[2]
    );
    let tables = [(&tables as &(dyn tokio_postgres::types::ToSql + Sync), Type::TEXT_ARRAY)];
    let client = store.session().await?;
    if let Some(rows) = unless_undefined(client.query_typed(&existing, &tables).await)?
        && let Some(row) = rows.first()
        && row.get(1)
    {
        return Ok(row.get(0));
    }
    let create_schema = format!("CREATE SCHEMA IF NOT EXISTS {schema}");
    let has_schema = client
        .query_typed(
            "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1",
            &[(&history_schema, Type::TEXT)],
        )
        .await
        .map_err(|error| failed(DOING, &error))?;
    let script = [
        "BEGIN".to_owned(),
        OWN_TIMEOUTS.to_owned(),
        format!("SELECT pg_catalog.pg_advisory_xact_lock({FOUNDING_LOCK})"),
        // Asking for the right to create a schema that is there is asking too much.
        if has_schema.is_empty() { create_schema } else { String::new() },
        TABLES.replace("{s}", &schema),
    ];
    let created = client.batch_execute(&script.join(";\n")).await;
    let result = match created {
        Ok(()) => client.execute_typed(&insert, &[(&pair, Type::TEXT)]).await.map(drop),
        Err(error) => Err(error),
    };
    if let Err(error) = finish(client, result).await {
        return Err(failed(DOING, &error));
    }
    let rows = client.query_typed(&existing, &tables).await;
    match rows.map_err(|error| failed(DOING, &error))?.first() {
        Some(row) => Ok(row.get(0)),
        None => Err(corrupt("its row is gone", "migration_control".to_owned())),
    }
}

/// Commits, or rolls back and hands on the error.
async fn finish(
    client: &Client,
    result: Result<(), tokio_postgres::Error>,
) -> Result<(), tokio_postgres::Error> {
    match result {
        Ok(()) => {
            reach("COMMIT in Postgres");
            client.batch_execute("COMMIT").await
        }
        Err(error) => {
            // If the connection is gone, so is the transaction.
            let _ = client.batch_execute("ROLLBACK").await;
            Err(error)
        }
    }
}

pub(super) async fn append(store: &mut Postgres, entries: &[Entry]) -> Result<(), StoreError> {
    if entries.is_empty() {
        return Ok(());
    }
    store.session().await?;
    let begin = format!("BEGIN; {OWN_TIMEOUTS}");
    store.open = true;
    store.client.batch_execute(&begin).await.map_err(|error| failed(RECORD, &error))?;
    let written = write(store, entries).await;
    settle_transaction(store, written, RECORD).await
}

/// Ends a transaction: commits when all went well, else rolls back and hands on
/// the error.
pub(super) async fn settle_transaction(
    store: &mut Postgres,
    written: Result<(), StoreError>,
    doing: &'static str,
) -> Result<(), StoreError> {
    let ended = match written {
        // A deferred constraint speaks up here: the server's no is a no. Silence
        // is not.
        Ok(()) => {
            reach("COMMIT in Postgres");
            let committed = store.client.batch_execute("COMMIT").await;
            committed.map_err(|error| failed_as(doing, &error, Fate::Unknown))
        }
        Err(error) => {
            let _ = store.client.batch_execute("ROLLBACK").await;
            Err(error)
        }
    };
    store.open = false;
    ended
}

/// Writes entries in the transaction that is open, and checks the fence as its
/// last statement: a thief waits for our commit, or we see the thief.
pub(super) async fn write(store: &Postgres, entries: &[Entry]) -> Result<(), StoreError> {
    let mut records = Vec::new();
    // Only what becomes of a row in the end is written.
    let mut rows: BTreeMap<Version, Option<Value>> = BTreeMap::new();
    for entry in entries {
        match entry {
            Entry::Record(record) => records.push(record_json(record)),
            Entry::Row(row, rollback) => {
                rows.insert(row.version, Some(row_json(row, rollback)));
            }
            Entry::RowGone(version) => {
                rows.insert(*version, None);
            }
        }
    }
    let gone: Vec<i64> =
        rows.iter().filter(|(_, row)| row.is_none()).map(|(version, _)| number(*version)).collect();
    let rows: Vec<Value> = rows.into_values().flatten().collect();
    let (records, has_records) = (Value::from(records.clone()).to_string(), !records.is_empty());
    let (rows, has_rows) = (Value::from(rows.clone()).to_string(), !rows.is_empty());

    let insert_records = format!(
        "INSERT INTO {} (version, step, attempt, event, rank, checksum, migration_checksum, fence, run_id) \
         SELECT version, step, attempt, event, rank, checksum, migration_checksum, $2, $3 \
         FROM pg_catalog.json_to_recordset($1::text::json) AS r (version bigint, step text, attempt integer, \
         event text, rank integer, checksum text, migration_checksum text)",
        store.table("migration_steps")
    );
    let upsert_rows = format!(
        "INSERT INTO {} (version, rank, migration_name, description, checksum, status, executed_at, \
         finished_at, execution_time_ms, rollback_script, applied_by, release, tool_version, run_id) \
         SELECT version, rank, migration_name, description, checksum, status, \
         pg_catalog.to_timestamp(executed_at / 1000.0), pg_catalog.to_timestamp(finished_at / 1000.0), \
         execution_time_ms, rollback_script, applied_by, release, tool_version, run_id \
         FROM pg_catalog.json_to_recordset($1::text::json) AS r (version bigint, rank integer, \
         migration_name text, description text, checksum text, status text, executed_at numeric, \
         finished_at numeric, execution_time_ms bigint, rollback_script jsonb, applied_by text, \
         release text, tool_version text, run_id text) \
         ON CONFLICT (version) DO UPDATE SET rank = excluded.rank, \
         migration_name = excluded.migration_name, description = excluded.description, \
         checksum = excluded.checksum, status = excluded.status, executed_at = excluded.executed_at, \
         finished_at = excluded.finished_at, execution_time_ms = excluded.execution_time_ms, \
         rollback_script = excluded.rollback_script, applied_by = excluded.applied_by, \
         release = excluded.release, tool_version = excluded.tool_version, run_id = excluded.run_id",
        store.table("migration_history")
    );
    let delete_rows =
        format!("DELETE FROM {} WHERE version = ANY ($1)", store.table("migration_history"));
    // A run that lost its lease is no longer `running`: whoever took the lease
    // has said so in the run's own row, on which this waits.
    let check_fence = format!(
        "UPDATE {} SET writes = writes + 1 WHERE run_id = $1 AND fence = $2 AND outcome = 'running'",
        store.table("migration_runs")
    );
    let client = &store.client;
    let recorded = async {
        match has_records {
            true => client
                .execute_typed(
                    &insert_records,
                    &[
                        (&records, Type::TEXT),
                        (&store.fence, Type::INT8),
                        (&store.run_id, Type::TEXT),
                    ],
                )
                .await
                .map(drop),
            false => Ok(()),
        }
    };
    let replaced = async {
        match has_rows {
            true => client.execute_typed(&upsert_rows, &[(&rows, Type::TEXT)]).await.map(drop),
            false => Ok(()),
        }
    };
    let removed = async {
        match gone.is_empty() {
            true => Ok(()),
            false => {
                client.execute_typed(&delete_rows, &[(&gone, Type::INT8_ARRAY)]).await.map(drop)
            }
        }
    };
    let ours = [
        (&store.run_id as &(dyn tokio_postgres::types::ToSql + Sync), Type::TEXT),
        (&store.fence, Type::INT8),
    ];
    let fenced = client.execute_typed(&check_fence, &ours);
    // One round trip; the server answers in order.
    let (recorded, replaced, removed, fenced) =
        futures_util::future::join4(recorded, replaced, removed, fenced).await;
    recorded.map_err(|error| match error.code() {
        Some(&SqlState::UNIQUE_VIOLATION) => {
            let mut taken = failed(RECORD, &error);
            taken.fate = Fate::Fenced;
            taken.said.message = format!("another run recorded it first: {}", taken.said.message);
            taken
        }
        _ => failed(RECORD, &error),
    })?;
    replaced.map_err(|error| failed(RECORD, &error))?;
    removed.map_err(|error| failed(RECORD, &error))?;
    match fenced.map_err(|error| failed(RECORD, &error))? {
        1 => Ok(()),
        _ => Err(StoreError::new(
            StoreName::Postgres,
            RECORD,
            Fate::Fenced,
            "another run has taken the lease",
        )),
    }
}

pub(super) fn number(version: Version) -> i64 {
    i64::try_from(version.0).expect("a version has 18 digits at most")
}

fn record_json(record: &Record) -> Value {
    json!({
        "version": number(record.step.version),
        "step": record.step.name.to_string(),
        "attempt": record.attempt,
        "event": record.event.word(),
        "rank": record.rank,
        "checksum": record.checksum.to_string(),
        "migration_checksum": record.migration_checksum.to_string(),
    })
}

fn row_json(row: &Row, rollback: &Rollback) -> Value {
    json!({
        "version": number(row.version),
        "rank": row.rank,
        "migration_name": row.migration_name,
        "description": row.description,
        "checksum": row.checksum.to_string(),
        "status": row.status.word(),
        "executed_at": row.executed_at.0,
        "finished_at": row.finished_at.map(|at| at.0),
        "execution_time_ms": row.execution_time_ms,
        "rollback_script": rollback,
        "applied_by": row.applied_by,
        "release": row.release,
        "tool_version": row.tool_version,
        "run_id": row.run_id,
    })
}

impl Postgres {
    /// The audit log, newest first.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn runs(&mut self) -> Result<Vec<RunSeen>, StoreError> {
        let sql = format!(
            "SELECT run_id, command, started_by, round(extract(epoch FROM started_at) * 1000)::bigint, \
             round(extract(epoch FROM finished_at) * 1000)::bigint, from_version, to_version, release, \
             outcome, error, reason, tool_version FROM {} ORDER BY started_at DESC, run_id",
            self.table("migration_runs")
        );
        let client = self.session().await?;
        let rows = unless_undefined(client.query_typed(&sql, &[]).await)?.unwrap_or_default();
        let version = |row: &SqlRow, at: usize| {
            row.get::<_, Option<i64>>(at)
                .and_then(|version| u64::try_from(version).ok())
                .map(Version)
        };
        let seen = rows.iter().map(|row| RunSeen {
            run_id: row.get(0),
            command: row.get(1),
            started_by: row.get(2),
            started_at: Timestamp(row.get(3)),
            finished_at: row.get::<_, Option<i64>>(4).map(Timestamp),
            from_version: version(row, 5),
            to_version: version(row, 6),
            release: row.get(7),
            outcome: row.get(8),
            error: row.get(9),
            reason: row.get(10),
            tool_version: row.get(11),
        });
        Ok(seen.collect())
    }

    /// The records of one migration, oldest first.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn records_of(&mut self, version: Version) -> Result<Vec<RecordSeen>, StoreError> {
        let sql = format!(
            "SELECT version, step, attempt, event, rank, checksum, migration_checksum, run_id, \
             round(extract(epoch FROM recorded_at) * 1000)::bigint FROM {} \
             WHERE version = $1 AND pg_catalog.strpos(step, '#') = 0 ORDER BY recorded_at, attempt",
            self.table("migration_steps")
        );
        let version = number(version);
        let client = self.session().await?;
        let rows = client.query_typed(&sql, &[(&version, Type::INT8)]).await;
        let rows = unless_undefined(rows)?.unwrap_or_default();
        let seen = rows.iter().map(|row| {
            Ok(RecordSeen {
                record: record_of(row)?,
                run_id: row.get(7),
                recorded_at: Timestamp(row.get(8)),
            })
        });
        seen.collect()
    }
}
