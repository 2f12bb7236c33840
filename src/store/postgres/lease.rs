//! The lease in Postgres: one row, one conditional update, the server's clock.
//!
//! Not an advisory lock: those break behind a pooler in transaction mode, and
//! a session that waits for one holds a snapshot that `CREATE INDEX
//! CONCURRENTLY` of the holder waits for.

use super::history::{OWN_TIMEOUTS, settle_transaction};
use super::{Postgres, failed};
use crate::core::causes;
use crate::core::id::StoreName;
use crate::failpoint::reach;
use crate::store::{Fate, Heart, Holder, Lease, Outcome, Run, StoreError, lease_term};
use serde_json::json;
use std::time::Duration;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

const ACQUIRE: &str = "take the lease";

fn term_ms() -> i64 {
    i64::try_from(lease_term().as_millis()).expect("a term of seconds")
}

pub(super) async fn acquire(store: &mut Postgres, run: &Run) -> Result<Lease, StoreError> {
    let error = match try_acquire(store, run).await {
        Err(error) if is_locked_out(&error) || error.fate == Fate::Unreachable => error,
        result => return result,
    };
    if error.fate == Fate::Unreachable {
        // Somebody may have taken us for one that stands still, see `end_stalled`. If
        // the lease was ours already, it still is, and is taken once more.
        return match store.reconnect().await {
            Ok(()) => try_acquire(store, run).await,
            Err(_) => Err(error),
        };
    }
    end_stalled(store).await?;
    match try_acquire(store, run).await {
        // It does not stand still for long enough yet to be given up.
        Err(error) if is_locked_out(&error) => in_the_way(store).await,
        result => result,
    }
}

/// Whether somebody's open transaction kept us from a row of ours.
pub(super) fn is_locked_out(error: &StoreError) -> bool {
    error.said.code.as_deref() == Some("SQLSTATE 55P03")
}

/// Ends sessions of ours that stand still in the middle of a transaction: the
/// process was stopped, or its machine is gone without a word. No run leaves a
/// transaction alone for as long as a lease lasts.
pub(super) async fn end_stalled(store: &mut Postgres) -> Result<(), StoreError> {
    let stalled = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
         WHERE datname = pg_catalog.current_database() AND application_name LIKE 'lockstep/%' \
         AND state LIKE 'idle in transaction%' AND pid <> pg_catalog.pg_backend_pid() \
         AND state_change < pg_catalog.clock_timestamp() - $1 * interval '1 millisecond'";
    let client = store.session().await?;
    let ended = client.query_typed(stalled, &[(&term_ms(), Type::INT8)]).await;
    ended.map(drop).map_err(|error| failed("end what stands still in a transaction", &error))
}

async fn try_acquire(store: &mut Postgres, run: &Run) -> Result<Lease, StoreError> {
    let control = store.table("migration_control");
    let runs = store.table("migration_runs");
    let holder = json!({
        "host": run.host, "pid": run.pid, "user": run.user, "run_id": run.id,
    })
    .to_string();
    let term = term_ms();
    // The row as it was comes back with the update, to name the run that died.
    let take = format!(
        "UPDATE {control} AS c SET fence = c.fence + 1, \
         holder = $1::text::jsonb || pg_catalog.jsonb_build_object('since', pg_catalog.to_char(\
         pg_catalog.clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')), \
         expires_at = pg_catalog.clock_timestamp() + $2 * interval '1 millisecond' \
         FROM (SELECT id, holder FROM {control} WHERE id = 1 FOR UPDATE) AS old \
         WHERE c.id = old.id AND (c.holder IS NULL OR c.expires_at < pg_catalog.clock_timestamp() \
         OR c.holder ->> 'run_id' = $3) \
         RETURNING c.fence, NULLIF(old.holder ->> 'run_id', $3)"
    );
    // Every write of a run looks at its row here. This waits for one that is
    // being committed, and from then on the dead run can write nothing more.
    let end_dead = format!(
        "UPDATE {runs} SET outcome = 'died', finished_at = pg_catalog.clock_timestamp() \
         WHERE fence < $1 AND outcome = 'running'"
    );
    let client = store.session().await?;
    let lease = async {
        client.batch_execute(&format!("BEGIN; {OWN_TIMEOUTS}")).await?;
        let taken = client
            .query_typed(
                &take,
                &[(&holder, Type::TEXT), (&term, Type::INT8), (&run.id, Type::TEXT)],
            )
            .await?;
        let Some(row) = taken.first() else {
            client.batch_execute("ROLLBACK").await?;
            return Ok(None);
        };
        let (fence, died): (i64, Option<String>) = (row.get(0), row.get(1));
        client.execute_typed(&end_dead, &[(&fence, Type::INT8)]).await?;
        begin_run(client, &runs, run, fence).await?;
        reach("COMMIT in Postgres");
        client.batch_execute("COMMIT").await?;
        Ok::<_, tokio_postgres::Error>(Some((fence, died)))
    }
    .await;
    match lease {
        Ok(Some((fence, died))) => {
            store.fence = fence;
            Ok(Lease::Ours { fence, died })
        }
        Ok(None) => held(store).await,
        Err(error) => {
            let _ = client.batch_execute("ROLLBACK").await;
            Err(failed(ACQUIRE, &error))
        }
    }
}

/// Begins the row of a run, or begins it again.
async fn begin_run(
    client: &Client,
    runs: &str,
    run: &Run,
    fence: i64,
) -> Result<(), tokio_postgres::Error> {
    let begin = format!(
        "INSERT INTO {runs} (run_id, command, started_by, pid, from_version, release, outcome, tool_version, fence, reason) \
         VALUES ($1, $2, $3, $4, $5, $6, 'running', $7, $8, $9) \
         ON CONFLICT (run_id) DO UPDATE SET outcome = 'running', fence = excluded.fence, \
         started_at = pg_catalog.clock_timestamp(), finished_at = NULL, error = NULL, \
         from_version = excluded.from_version, to_version = NULL"
    );
    let from = run.from_version.map(|version| i64::try_from(version.0).unwrap_or(i64::MAX));
    let pid = i32::try_from(run.pid).unwrap_or(0);
    let params: [(&(dyn ToSql + Sync), Type); 9] = [
        (&run.id, Type::TEXT),
        (&run.command, Type::TEXT),
        (&run.who(), Type::TEXT),
        (&pid, Type::INT4),
        (&from, Type::INT8),
        (&run.release, Type::TEXT),
        (&env!("CARGO_PKG_VERSION"), Type::TEXT),
        (&fence, Type::INT8),
        (&run.reason, Type::TEXT),
    ];
    client.execute_typed(&begin, &params).await.map(drop)
}

/// Begins the row of a run that helps whoever has the lease, with the same fence.
pub(super) async fn enlist(store: &mut Postgres, run: &Run) -> Result<bool, StoreError> {
    const ENLIST: &str = "join the run that has the lease";
    // Whoever takes the lease writes to this row first, and then ends the runs before
    // it. It waits for our commit and finds our run, or we see what it wrote.
    let look = format!(
        "SELECT fence FROM {} WHERE id = 1 AND holder IS NOT NULL \
         AND expires_at > pg_catalog.clock_timestamp() FOR SHARE",
        store.table("migration_control")
    );
    let runs = store.table("migration_runs");
    store.session().await?;
    store.open = true;
    let begin = format!("BEGIN ISOLATION LEVEL READ COMMITTED; {OWN_TIMEOUTS}");
    let begun = async {
        store.client.batch_execute(&begin).await?;
        let held = store.client.query_typed(&look, &[]).await?;
        let Some(fence) = held.first().map(|row| row.get(0)) else { return Ok(None) };
        begin_run(&store.client, &runs, run, fence).await?;
        Ok::<_, tokio_postgres::Error>(Some(fence))
    }
    .await
    .map_err(|error| failed(ENLIST, &error));
    let (fence, end) = match begun {
        Ok(fence) => (fence, Ok(())),
        Err(error) => (None, Err(error)),
    };
    settle_transaction(store, end, ENLIST).await?;
    store.fence = fence.unwrap_or(0);
    Ok(fence.is_some())
}

/// Ends the row of a run that helped, even if whoever took the lease did so already:
/// nothing of it is at work any more.
pub(super) async fn discharge(store: &mut Postgres, outcome: &Outcome) -> Result<(), StoreError> {
    store.fence = 0;
    let end = format!(
        "UPDATE {} SET outcome = $2, error = $3, finished_at = pg_catalog.clock_timestamp() \
         WHERE run_id = $1 AND outcome IN ('running', 'died')",
        store.table("migration_runs")
    );
    let run_id = store.run_id.clone();
    let client = store.session().await?;
    let params: [(&(dyn ToSql + Sync), Type); 3] =
        [(&run_id, Type::TEXT), (&outcome.word, Type::TEXT), (&outcome.error, Type::TEXT)];
    let ended = client.execute_typed(&end, &params).await;
    ended.map(drop).map_err(|error| failed("leave the run that has the lease", &error))
}

/// Who has it.
async fn held(store: &mut Postgres) -> Result<Lease, StoreError> {
    let look = format!(
        "SELECT holder ->> 'host', (holder ->> 'pid')::bigint, holder ->> 'user', holder ->> 'run_id', \
         holder ->> 'since', \
         GREATEST(0, extract(epoch FROM expires_at - pg_catalog.clock_timestamp()))::float8 \
         FROM {} WHERE id = 1",
        store.table("migration_control")
    );
    let client = store.session().await?;
    let rows = client.query_typed(&look, &[]).await.map_err(|error| failed(ACQUIRE, &error))?;
    match rows.first() {
        Some(row) => Ok(held_by(row)),
        None => {
            let gone = "the row of migration_control is gone";
            Err(StoreError::new(StoreName::Postgres, ACQUIRE, Fate::Corrupt, gone))
        }
    }
}

fn held_by(row: &Row) -> Lease {
    let text = |at: usize| row.get::<_, Option<String>>(at).unwrap_or_default();
    let pid = row.get::<_, Option<i64>>(1).and_then(|pid| u32::try_from(pid).ok());
    let holder = Holder {
        host: text(0),
        pid: pid.unwrap_or(0),
        user: text(2),
        run_id: text(3),
        since: text(4),
    };
    let left = row.get::<_, Option<f64>>(5).unwrap_or(0.0);
    Lease::Held { holder, left: Duration::from_secs_f64(left) }
}

/// Who has our row in a transaction that is open, and so can still come to have the
/// lease: as much of it as its session tells.
async fn in_the_way(store: &mut Postgres) -> Result<Lease, StoreError> {
    let who = "SELECT COALESCE(pg_catalog.host(client_addr), 'the same machine'), pid::bigint, \
         usename::text, pg_catalog.replace(application_name, 'lockstep/', ''), \
         pg_catalog.to_char(xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), 0::float8 \
         FROM pg_catalog.pg_stat_activity WHERE datname = pg_catalog.current_database() \
         AND application_name LIKE 'lockstep/%' AND state LIKE 'idle in transaction%' \
         AND pid <> pg_catalog.pg_backend_pid() ORDER BY xact_start LIMIT 1";
    let client = store.session().await?;
    let rows = client.query_typed(who, &[]).await.map_err(|error| failed(ACQUIRE, &error))?;
    match rows.first() {
        Some(row) => Ok(held_by(row)),
        None => held(store).await,
    }
}

/// A session that was told to end is gone within this, or something is badly
/// wrong with the server.
const EVICTION_LIMIT: Duration = Duration::from_secs(30);

pub(super) async fn evict(store: &mut Postgres) -> Result<Vec<String>, StoreError> {
    const EVICT: &str = "end what a dead run left running";
    // A killed client does not stop its statement. Sessions are known by their
    // name; those that only read are of runs that have no row. Those of another
    // database are not ours, even if this one is a copy of it with its runs.
    let orphans = format!(
        "SELECT a.pid, pg_catalog.left(pg_catalog.regexp_replace(a.query, '\\s+', ' ', 'g'), 80), \
         a.state IS DISTINCT FROM 'idle' \
         FROM pg_catalog.pg_stat_activity AS a JOIN {} AS r \
         ON a.application_name = 'lockstep/' || r.run_id \
         WHERE r.outcome = 'died' AND a.datname = pg_catalog.current_database() \
         AND a.pid <> pg_catalog.pg_backend_pid()",
        store.table("migration_runs")
    );
    let client = store.session().await?;
    let mut ended = Vec::new();
    let began = tokio::time::Instant::now();
    loop {
        let rows = client.query_typed(&orphans, &[]).await;
        let rows = rows.map_err(|error| failed(EVICT, &error))?;
        if rows.is_empty() || began.elapsed() > EVICTION_LIMIT {
            return Ok(ended);
        }
        for row in &rows {
            let (pid, query, active): (i32, Option<String>, bool) =
                (row.get(0), row.get(1), row.get(2));
            let terminate = "SELECT pg_catalog.pg_terminate_backend($1)";
            let told = client.query_typed(terminate, &[(&pid, Type::INT4)]).await;
            let query = query.unwrap_or_default();
            if let Err(error) = told {
                ended.push(format!(
                    "session {pid} of a dead run cannot be ended ({}): {query}",
                    causes::chain(&error)
                ));
                return Ok(ended);
            }
            let line = format!("ended session {pid} of a dead run: {query}");
            if active && !ended.contains(&line) {
                ended.push(line);
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(super) async fn cancel(store: &mut Postgres) {
    // The server may be gone; then there is nothing to cancel.
    let _ = store.config.cancel(&store.client).await;
}

pub(super) async fn release(store: &mut Postgres, outcome: &Outcome) -> Result<(), StoreError> {
    if store.fence == 0 {
        return Ok(());
    }
    let end_run = format!(
        "UPDATE {} SET outcome = $2, error = $3, to_version = $4, \
         finished_at = pg_catalog.clock_timestamp() WHERE run_id = $1 AND outcome = 'running'",
        store.table("migration_runs")
    );
    let give_back = format!(
        "UPDATE {} SET holder = NULL, expires_at = NULL WHERE id = 1 AND fence = $1",
        store.table("migration_control")
    );
    let to = outcome.to_version.map(|version| i64::try_from(version.0).unwrap_or(i64::MAX));
    let (fence, run_id) = (store.fence, store.run_id.clone());
    let client = store.session().await?;
    let result = async {
        client.batch_execute(&format!("BEGIN; {OWN_TIMEOUTS}")).await?;
        // The lease's row first, as whoever takes it over does: the other way
        // round the two would wait for each other.
        client.execute_typed(&give_back, &[(&fence, Type::INT8)]).await?;
        client
            .execute_typed(
                &end_run,
                &[
                    (&run_id, Type::TEXT),
                    (&outcome.word, Type::TEXT),
                    (&outcome.error, Type::TEXT),
                    (&to, Type::INT8),
                ],
            )
            .await?;
        reach("COMMIT in Postgres");
        client.batch_execute("COMMIT").await
    }
    .await;
    if let Err(error) = result {
        let _ = client.batch_execute("ROLLBACK").await;
        return Err(failed("give the lease back", &error));
    }
    store.fence = 0;
    Ok(())
}

pub(super) async fn pair(store: &mut Postgres, pair: &str) -> Result<(), StoreError> {
    let sql = format!(
        "UPDATE {} SET pair = $1 WHERE id = 1 AND fence = $2",
        store.table("migration_control")
    );
    let fence = store.fence;
    let client = store.session().await?;
    let params = [(&pair as &(dyn ToSql + Sync), Type::TEXT), (&fence, Type::INT8)];
    let done = client.execute_typed(&sql, &params).await;
    done.map(drop).map_err(|error| failed("pair the databases", &error))
}

impl Postgres {
    /// Takes the lease away from a run, whether it is alive or not: from now on it
    /// can write nothing. Says whether the run had it.
    ///
    /// # Errors
    /// A store that cannot be written.
    pub async fn unlock(&mut self, run_id: &str, by: &Run) -> Result<bool, StoreError> {
        match self.try_unlock(run_id, by).await {
            // It stands still in a transaction, which would be refused anyway.
            Err(error) if is_locked_out(&error) => {
                let stalled = "SELECT pg_catalog.pg_terminate_backend(pid) \
                     FROM pg_catalog.pg_stat_activity \
                     WHERE datname = pg_catalog.current_database() \
                     AND application_name = 'lockstep/' || $1 \
                     AND state LIKE 'idle in transaction%'";
                let client = self.session().await?;
                let ended = client.query_typed(stalled, &[(&run_id, Type::TEXT)]).await;
                ended.map_err(|error| failed("end what stands still in a transaction", &error))?;
                self.try_unlock(run_id, by).await
            }
            result => result,
        }
    }

    async fn try_unlock(&mut self, run_id: &str, by: &Run) -> Result<bool, StoreError> {
        let control = self.table("migration_control");
        let runs = self.table("migration_runs");
        let script = [
            format!(
                "UPDATE {control} SET holder = NULL, expires_at = NULL, fence = fence + 1 \
                 WHERE id = 1 AND holder ->> 'run_id' = $1 RETURNING fence"
            ),
            format!(
                "UPDATE {runs} SET outcome = 'died', finished_at = pg_catalog.clock_timestamp(), \
                 reason = $2 WHERE run_id = $1 AND outcome = 'running'"
            ),
            format!(
                "INSERT INTO {runs} (run_id, command, started_by, pid, finished_at, fence, outcome, \
                 reason, tool_version) VALUES ($1, 'unlock', $2, $3, pg_catalog.clock_timestamp(), \
                 $4, 'ok', $5, $6)"
            ),
        ];
        let reason = by.reason.clone();
        let (who, pid) = (by.who(), i32::try_from(by.pid).unwrap_or(0));
        let client = self.session().await?;
        let done = async {
            client.batch_execute(&format!("BEGIN; {OWN_TIMEOUTS}")).await?;
            let taken = client.query_typed(&script[0], &[(&run_id, Type::TEXT)]).await?;
            let Some(row) = taken.first() else {
                client.batch_execute("ROLLBACK").await?;
                return Ok(false);
            };
            let fence: i64 = row.get(0);
            let params = [(&run_id as &(dyn ToSql + Sync), Type::TEXT), (&reason, Type::TEXT)];
            client.execute_typed(&script[1], &params).await?;
            client
                .execute_typed(
                    &script[2],
                    &[
                        (&by.id, Type::TEXT),
                        (&who, Type::TEXT),
                        (&pid, Type::INT4),
                        (&fence, Type::INT8),
                        (&reason, Type::TEXT),
                        (&env!("CARGO_PKG_VERSION"), Type::TEXT),
                    ],
                )
                .await?;
            client.batch_execute("COMMIT").await?;
            Ok::<bool, tokio_postgres::Error>(true)
        }
        .await;
        if done.is_err() {
            let _ = client.batch_execute("ROLLBACK").await;
        }
        match done {
            // Nobody was ever here.
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(false),
            done => done.map_err(|error| failed("take the lease away", &error)),
        }
    }
}

/// Renews the lease on a session of its own.
#[derive(Debug)]
pub struct PostgresHeart {
    config: super::PostgresConfig,
    client: Client,
    run_id: String,
    fence: i64,
    renew: String,
}

pub(super) async fn heart(store: &mut Postgres) -> Result<PostgresHeart, StoreError> {
    Ok(PostgresHeart {
        config: store.config.clone(),
        client: store.another_client().await?,
        run_id: store.run_id.clone(),
        fence: store.fence,
        renew: format!(
            "UPDATE {} SET expires_at = pg_catalog.clock_timestamp() + $2 * interval '1 millisecond' \
             WHERE id = 1 AND fence = $1 AND holder IS NOT NULL",
            store.table("migration_control")
        ),
    })
}

impl Heart for PostgresHeart {
    async fn beat(&mut self) -> Result<(), StoreError> {
        const DOING: &str = "renew the lease";
        if self.client.is_closed() {
            self.client = self.config.client(&self.run_id).await?;
        }
        let term = term_ms();
        let renewed = self
            .client
            .execute_typed(&self.renew, &[(&self.fence, Type::INT8), (&term, Type::INT8)])
            .await
            .map_err(|error| failed(DOING, &error))?;
        match renewed {
            0 => Err(StoreError::new(
                StoreName::Postgres,
                DOING,
                Fate::Fenced,
                "another run has taken it",
            )),
            _ => Ok(()),
        }
    }
}
