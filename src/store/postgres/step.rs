//! Running steps in Postgres.

use super::function::call;
use super::history::{OWN_TIMEOUTS, settle_transaction, write};
use super::invariant::{guard, lockable};
use super::{Postgres, PostgresConfig, failed, failed_as, quote};
use crate::core::history::Entry;
use crate::core::step::{PgStep, QualifiedName, ReindexTarget, SqlKind, SqlStatement, Timeouts};
use crate::store::{Fate, Holds, Obstruction, StoreError};
use futures_util::future::join_all;
use std::cell::Cell;
use std::convert::Infallible;
use std::time::Duration;
use tokio_postgres::types::Type;

/// A statement that waits for a strong lock makes everybody behind it wait too.
/// It gives up after this, lets the others through, and tries again.
const LOCK_TIMEOUT: Duration = Duration::from_secs(3);

/// Whoever is in the way of a step is looked for this often while it runs.
const LOOK: Duration = Duration::from_secs(1);

/// Statements of a script that are on their way to the server at once. Their
/// answers come back in order, so a failure still names its statement.
const PIPELINE: usize = 16;

pub(super) const RUN: &str = "run the step";

pub(super) async fn commit(
    store: &mut Postgres,
    step: &PgStep,
    entries: &[Entry],
) -> Result<(), StoreError> {
    let seen = Cell::new(None);
    let lock = step.timeouts.lock.unwrap_or(LOCK_TIMEOUT);
    let look = if lock.is_zero() { LOOK } else { LOOK.min(lock / 3) };
    let watch = watch(store.config.clone(), store.run_id.clone(), look, &seen);
    let done = tokio::select! {
        done = try_commit(store, step, entries) => done,
        never = watch => match never {},
    };
    store.waited_for = seen.take();
    done
}

pub(super) fn obstruction(store: &mut Postgres, error: &StoreError) -> Option<Obstruction> {
    let passing = error.fate == Fate::Refused && is_passing(error);
    passing.then(|| store.waited_for.take().unwrap_or_default())
}

/// Looks for what the run's sessions wait for, from another one: afterwards nobody
/// can tell. It is worth knowing, and no more: where it cannot be asked, nobody is told.
async fn watch(
    config: PostgresConfig,
    run_id: String,
    every: Duration,
    seen: &Cell<Option<Obstruction>>,
) -> Infallible {
    const WAITS: &str = "SELECT pg_catalog.concat(l.mode, ' on ', \
         COALESCE(l.relation::pg_catalog.regclass::text, l.locktype)), \
         pg_catalog.concat('session ', b.pid, ' of ', b.usename, \
         ' (' || NULLIF(b.application_name, '') || ')', ', ', b.state, ' for ', \
         pg_catalog.date_trunc('second', pg_catalog.clock_timestamp() - b.state_change), ': ', \
         pg_catalog.left(pg_catalog.regexp_replace(b.query, '\\s+', ' ', 'g'), 80)), b.pid IS NULL \
         FROM pg_catalog.pg_stat_activity AS w \
         JOIN pg_catalog.pg_locks AS l ON l.pid = w.pid AND NOT l.granted \
         LEFT JOIN pg_catalog.pg_stat_activity AS b \
         ON b.pid = (pg_catalog.pg_blocking_pids(w.pid))[1] \
         WHERE w.application_name = $1 AND w.datname = pg_catalog.current_database() LIMIT 1";
    let name = format!("lockstep/{run_id}");
    let looking = async {
        tokio::time::sleep(every).await;
        let client = config.client(&run_id).await?;
        loop {
            let waits = client.query_typed(WAITS, &[(&name, Type::TEXT)]).await;
            if let Some(row) = waits.map_err(|error| failed(RUN, &error))?.first() {
                let holder = if row.get(2) { None } else { Some(row.get(1)) };
                seen.set(Some(Obstruction { lock: Some(row.get(0)), holder }));
            }
            tokio::time::sleep(every).await;
        }
    };
    let _: Result<Infallible, StoreError> = looking.await;
    std::future::pending().await
}

/// Another session was in the way; the transaction left nothing.
pub(super) fn is_passing(error: &StoreError) -> bool {
    // lock_not_available, deadlock_detected, serialization_failure
    ["SQLSTATE 55P03", "SQLSTATE 40P01", "SQLSTATE 40001"]
        .iter()
        .any(|code| error.said.code.as_deref() == Some(code))
}

async fn try_commit(
    store: &mut Postgres,
    step: &PgStep,
    entries: &[Entry],
) -> Result<(), StoreError> {
    let lock = Box::pin(lockable(store, step)).await?;
    clean(store).await?;
    let begin = format!("BEGIN; {}", settings(store, step.timeouts, "SET LOCAL"));
    store.open = true;
    store.client.batch_execute(&begin).await.map_err(|error| failed(RUN, &error))?;
    store.used = true;
    let done = async {
        // The locks come before the first look at any row: what a guard sees stays
        // true until the end of the transaction.
        if let Some(lock) = lock {
            store.client.batch_execute(&lock).await.map_err(|error| failed(RUN, &error))?;
        }
        Box::pin(guard(store, &step.guards)).await?;
        let mut at = 0;
        let are_sql = |one: &SqlStatement, next: &SqlStatement| {
            ![one, next].iter().any(|it| matches!(it.kind, SqlKind::Function { .. }))
        };
        for run in step.statements.chunk_by(are_sql) {
            if let [SqlStatement { kind: SqlKind::Function { name }, .. }] = run {
                Box::pin(call(store, name)).await.map_err(|error| error.at(at))?;
                at += 1;
                continue;
            }
            for chunk in run.chunks(PIPELINE) {
                let sent =
                    chunk.iter().map(|statement| store.client.batch_execute(&statement.text));
                for (within, result) in join_all(sent).await.into_iter().enumerate() {
                    result.map_err(|error| at_statement(&error, at + within))?;
                }
                at += chunk.len();
            }
        }
        // Whatever the script set must not reach our own statements.
        let reset = format!("RESET ALL; RESET ROLE; RESET SESSION AUTHORIZATION; {OWN_TIMEOUTS}");
        store.client.batch_execute(&reset).await.map_err(|error| failed(RUN, &error))?;
        write(store, entries).await
    }
    .await;
    settle_transaction(store, done, RUN).await
}

/// The timeouts and the search path of a step, set explicitly: nothing is
/// inherited from the role, the database or a pooler.
pub(super) fn settings(store: &Postgres, timeouts: Timeouts, set: &str) -> String {
    let lock = timeouts.lock.unwrap_or(LOCK_TIMEOUT).as_millis();
    let statement = timeouts.statement.unwrap_or(Duration::ZERO).as_millis();
    let mut text = format!("{set} lock_timeout = {lock}; {set} statement_timeout = {statement}");
    if let Some(schema) = &store.config.schema {
        text = format!("{text}; {set} search_path = {}", quote(schema));
    }
    text
}

/// Makes the session as if it were new, if a script was in it.
pub(super) async fn clean(store: &mut Postgres) -> Result<(), StoreError> {
    let used = store.used;
    let client = store.session().await?;
    if used {
        client.batch_execute("DISCARD ALL").await.map_err(|error| failed(RUN, &error))?;
        store.used = false;
    }
    Ok(())
}

fn at_statement(error: &tokio_postgres::Error, statement: usize) -> StoreError {
    let mut failure = failed(RUN, error);
    failure.said.statement = Some(statement);
    failure
}

/// The one statement of a journaled step.
fn only(step: &PgStep) -> &SqlStatement {
    let [statement] = step.statements.as_slice() else {
        unreachable!("cut() gives a journaled step exactly one statement");
    };
    statement
}

pub(super) async fn perform(store: &mut Postgres, step: &PgStep) -> Result<(), StoreError> {
    let statement = only(step);
    clean(store).await?;
    store.check_lease().await?;
    // It may have been done for another reason, and undone since.
    if store.finished.take().as_ref() == Some(&statement.text)
        && holds(store, step).await? == Holds::Yes
    {
        return Ok(());
    }
    // No limit by default: a limit on locks would also bound the wait for old
    // snapshots, and leave an invalid index behind.
    let lock = step.timeouts.lock.filter(|_| statement.kind.in_transaction());
    let timeouts = Timeouts { lock: Some(lock.unwrap_or_default()), ..step.timeouts };
    let set = settings(store, timeouts, "SET");
    store.client.batch_execute(&set).await.map_err(|error| failed(RUN, &error))?;
    store.used = true;
    let result = store.client.batch_execute(&statement.text).await;
    result.map_err(|error| {
        let mut failure = failed_as(RUN, &error, Fate::Unknown);
        failure.said.statement = Some(0);
        failure
    })
}

/// What has the name of an index.
struct Index {
    /// The table beside which it stands.
    table: String,
    /// Whether it is an index of that table at all.
    of_table: bool,
    /// Whether it is one and can be used.
    valid: bool,
}

/// What has the name of an index in the schema of `table`, if anything has.
async fn index(
    store: &mut Postgres,
    index: &str,
    table: &QualifiedName,
) -> Result<Option<Index>, StoreError> {
    // The schema of a table is found as the statement itself will find it.
    let sql = "SELECT t.oid::pg_catalog.regclass::text, i.indisvalid IS NOT NULL, i.indisvalid \
         FROM pg_catalog.pg_class AS t \
         JOIN pg_catalog.pg_class AS c ON c.relnamespace = t.relnamespace AND c.relname = $2 \
         LEFT JOIN pg_catalog.pg_index AS i ON i.indexrelid = c.oid AND i.indrelid = t.oid \
         WHERE t.oid = pg_catalog.to_regclass($1)";
    let name = quoted(table);
    let rows = ask(store, sql, &[(&name, Type::TEXT), (&index, Type::TEXT)]).await?;
    Ok(rows.first().map(|row| Index {
        table: row.get(0),
        of_table: row.get(1),
        valid: row.get::<_, Option<bool>>(2).unwrap_or(false),
    }))
}

pub(super) fn quoted(name: &QualifiedName) -> String {
    match &name.schema {
        Some(schema) => format!("{}.{}", quote(schema), quote(&name.name)),
        None => quote(&name.name),
    }
}

/// A question about the catalogs, with the search path of the scripts.
pub(super) async fn ask(
    store: &mut Postgres,
    sql: &str,
    params: &[(&(dyn tokio_postgres::types::ToSql + Sync), Type)],
) -> Result<Vec<tokio_postgres::Row>, StoreError> {
    const ASK: &str = "look at the schema";
    clean(store).await?;
    let begin = format!("BEGIN READ ONLY; {}", settings(store, Timeouts::default(), "SET LOCAL"));
    store.open = true;
    store.client.batch_execute(&begin).await.map_err(|error| failed(ASK, &error))?;
    let rows = store.client.query_typed(sql, params).await;
    let _ = store.client.batch_execute("ROLLBACK").await;
    store.open = false;
    rows.map_err(|error| failed(ASK, &error))
}

/// Whether a relation of that name can be seen.
async fn exists(store: &mut Postgres, name: &QualifiedName) -> Result<bool, StoreError> {
    let name = quoted(name);
    let sql = "SELECT 1 WHERE pg_catalog.to_regclass($1) IS NOT NULL";
    Ok(!ask(store, sql, &[(&name, Type::TEXT)]).await?.is_empty())
}

pub(super) async fn obstacle(
    store: &mut Postgres,
    step: &PgStep,
) -> Result<Option<String>, StoreError> {
    match &only(step).kind {
        SqlKind::CreateIndexConcurrently { index: name, table } => {
            let found = index(store, name, table).await?;
            Ok(found.map(|index| {
                let state = if index.valid { "" } else { ", and is not a valid index of it" };
                format!("`{name}` already exists beside table {}{state}", index.table)
            }))
        }
        SqlKind::Transactional
        | SqlKind::DropIndexConcurrently { .. }
        | SqlKind::ReindexConcurrently { .. }
        | SqlKind::DetachConcurrently { .. }
        | SqlKind::AloneRepeatable
        | SqlKind::AloneOnce
        | SqlKind::Function { .. } => Ok(None),
    }
}

pub(super) async fn holds(store: &mut Postgres, step: &PgStep) -> Result<Holds, StoreError> {
    let yes = |there: bool| if there { Holds::Yes } else { Holds::No };
    match &only(step).kind {
        SqlKind::CreateIndexConcurrently { index: name, table } => {
            Ok(yes(index(store, name, table).await?.is_some_and(|index| index.valid)))
        }
        SqlKind::DropIndexConcurrently { index } => Ok(yes(!exists(store, index).await?)),
        SqlKind::DetachConcurrently { parent, partition } => {
            let sql = "SELECT 1 FROM pg_catalog.pg_inherits \
                 WHERE inhrelid = pg_catalog.to_regclass($1) AND inhparent = pg_catalog.to_regclass($2)";
            let (partition, parent) = (quoted(partition), quoted(parent));
            let rows = ask(store, sql, &[(&partition, Type::TEXT), (&parent, Type::TEXT)]).await?;
            Ok(yes(rows.is_empty()))
        }
        SqlKind::ReindexConcurrently { .. } | SqlKind::AloneRepeatable => Ok(Holds::No),
        SqlKind::Transactional | SqlKind::AloneOnce | SqlKind::Function { .. } => Ok(Holds::Ask),
    }
}

pub(super) async fn clear(store: &mut Postgres, step: &PgStep) -> Result<(), StoreError> {
    const CLEAR: &str = "clear what the interrupted step left";
    let statement = only(step);
    let sql = match &statement.kind {
        SqlKind::CreateIndexConcurrently { index: name, table } => {
            match index(store, name, table).await? {
                Some(index) if index.of_table && !index.valid => {
                    let index = QualifiedName {
                        schema: schema_of(store, table).await?,
                        name: name.clone(),
                    };
                    format!("DROP INDEX CONCURRENTLY IF EXISTS {}", quoted(&index))
                }
                Some(_) | None => return Ok(()),
            }
        }
        SqlKind::DetachConcurrently { parent, partition } => {
            let sql = "SELECT 1 FROM pg_catalog.pg_inherits WHERE inhdetachpending \
                 AND inhrelid = pg_catalog.to_regclass($1) AND inhparent = pg_catalog.to_regclass($2)";
            let (child, table) = (quoted(partition), quoted(parent));
            if ask(store, sql, &[(&child, Type::TEXT), (&table, Type::TEXT)]).await?.is_empty() {
                return Ok(());
            }
            let finalize = format!("ALTER TABLE {table} DETACH PARTITION {child} FINALIZE");
            run_alone(store, &finalize, CLEAR).await?;
            store.finished = Some(statement.text.clone());
            return Ok(());
        }
        SqlKind::ReindexConcurrently { target } => {
            for leftover in leftovers(store, target).await? {
                let drop = format!("DROP INDEX CONCURRENTLY IF EXISTS {leftover}");
                run_alone(store, &drop, CLEAR).await?;
            }
            return Ok(());
        }
        // Half dropped, it is invalid for good: nothing but the rest of the drop is
        // left to do.
        SqlKind::DropIndexConcurrently { index } => {
            let sql = "SELECT 1 FROM pg_catalog.pg_index \
                 WHERE indexrelid = pg_catalog.to_regclass($1) AND NOT indisvalid";
            let name = quoted(index);
            if ask(store, sql, &[(&name, Type::TEXT)]).await?.is_empty() {
                return Ok(());
            }
            let drop = format!("DROP INDEX CONCURRENTLY IF EXISTS {name}");
            run_alone(store, &drop, CLEAR).await?;
            store.finished = Some(statement.text.clone());
            return Ok(());
        }
        SqlKind::Transactional
        | SqlKind::AloneRepeatable
        | SqlKind::AloneOnce
        | SqlKind::Function { .. } => return Ok(()),
    };
    run_alone(store, &sql, CLEAR).await
}

async fn run_alone(store: &mut Postgres, sql: &str, doing: &'static str) -> Result<(), StoreError> {
    clean(store).await?;
    store.check_lease().await?;
    let unlimited = Timeouts { lock: Some(Duration::ZERO), statement: Some(Duration::ZERO) };
    // The names were found with the search path of the scripts.
    let set = settings(store, unlimited, "SET");
    store.client.batch_execute(&set).await.map_err(|error| failed(doing, &error))?;
    store.used = true;
    store.client.batch_execute(sql).await.map_err(|error| failed_as(doing, &error, Fate::Unknown))
}

/// The schema in which a name is found.
async fn schema_of(
    store: &mut Postgres,
    table: &QualifiedName,
) -> Result<Option<String>, StoreError> {
    let sql = "SELECT n.nspname::text FROM pg_catalog.pg_class AS c \
         JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
         WHERE c.oid = pg_catalog.to_regclass($1)";
    let name = quoted(table);
    let rows = ask(store, sql, &[(&name, Type::TEXT)]).await?;
    Ok(rows.first().map(|row| row.get(0)))
}

/// Invalid indexes that an interrupted `REINDEX CONCURRENTLY` left, qualified:
/// `_ccnew` was not finished, `_ccold` was not dropped.
async fn leftovers(
    store: &mut Postgres,
    target: &ReindexTarget,
) -> Result<Vec<String>, StoreError> {
    const ALL: &str = "SELECT c.oid::pg_catalog.regclass::text FROM pg_catalog.pg_index AS i \
         JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid \
         JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
         WHERE NOT i.indisvalid AND c.relname ~ '_cc(new|old)[0-9]*$'";
    // A name that would be too long is cut before the suffix.
    const OF_INDEX: &str = "EXISTS (SELECT 1 FROM pg_catalog.pg_class AS o, \
         pg_catalog.regexp_replace(c.relname::text, '_cc(new|old)[0-9]*$', '') AS stem \
         WHERE o.oid = pg_catalog.to_regclass($1) AND (o.relname::text = stem \
         OR pg_catalog.octet_length(c.relname::text) >= 60 \
         AND pg_catalog.left(o.relname::text, pg_catalog.length(stem)) = stem))";
    let (sql, name) = match target {
        ReindexTarget::Index(index) => (
            format!(
                "{ALL} AND i.indrelid = (SELECT indrelid FROM pg_catalog.pg_index \
                 WHERE indexrelid = pg_catalog.to_regclass($1)) AND {OF_INDEX}"
            ),
            quoted(index),
        ),
        ReindexTarget::Table(table) => {
            (format!("{ALL} AND i.indrelid = pg_catalog.to_regclass($1)"), quoted(table))
        }
        ReindexTarget::Schema(schema) => (format!("{ALL} AND n.nspname = $1"), schema.clone()),
        ReindexTarget::Database => (format!("{ALL} AND $1 = ''"), String::new()),
    };
    let rows = ask(store, &sql, &[(&name, Type::TEXT)]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
