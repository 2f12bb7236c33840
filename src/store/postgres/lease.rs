//! The lease in Postgres: one row, one conditional update, the server's clock.
//!
//! Not an advisory lock: those break behind a pooler in transaction mode, and
//! a session that waits for one holds a snapshot that `CREATE INDEX
//! CONCURRENTLY` of the holder waits for.

use super::history::OWN_TIMEOUTS;
use super::{Postgres, failed};
use crate::core::id::StoreName;
use crate::engine::lock::LEASE_TERM;
use crate::store::{Fate, Heart, Holder, Lease, Outcome, Run, StoreError};
use serde_json::json;
use std::time::Duration;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

const ACQUIRE: &str = "take the lease";

pub(super) async fn acquire(store: &mut Postgres, run: &Run) -> Result<Lease, StoreError> {
    let control = store.table("migration_control");
    let runs = store.table("migration_runs");
    let holder = json!({
        "host": run.host, "pid": run.pid, "user": run.user, "run_id": run.id,
    })
    .to_string();
    let seconds = i64::try_from(LEASE_TERM.as_secs()).expect("a term of seconds");
    // The row as it was comes back with the update, to name the run that died.
    let take = format!(
        "UPDATE {control} AS c SET fence = c.fence + 1, \
         holder = $1::text::jsonb || pg_catalog.jsonb_build_object('since', pg_catalog.to_char(\
         pg_catalog.clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')), \
         expires_at = pg_catalog.clock_timestamp() + $2 * interval '1 second' \
         FROM (SELECT id, holder FROM {control} WHERE id = 1 FOR UPDATE) AS old \
         WHERE c.id = old.id AND (c.holder IS NULL OR c.expires_at < pg_catalog.clock_timestamp()) \
         RETURNING c.fence, old.holder ->> 'run_id'"
    );
    let look = format!(
        "SELECT holder ->> 'host', (holder ->> 'pid')::bigint, holder ->> 'user', holder ->> 'run_id', \
         holder ->> 'since', \
         GREATEST(0, extract(epoch FROM expires_at - pg_catalog.clock_timestamp()))::float8 \
         FROM {control} WHERE id = 1"
    );
    // Every write of a run looks at its row here. This waits for one that is
    // being committed, and from then on the dead run can write nothing more.
    let end_dead = format!(
        "UPDATE {runs} SET outcome = 'died', finished_at = pg_catalog.clock_timestamp() \
         WHERE fence < $1 AND outcome = 'running'"
    );
    let begin_run = format!(
        "INSERT INTO {runs} (run_id, command, started_by, pid, from_version, release, outcome, tool_version, fence) \
         VALUES ($1, $2, $3, $4, $5, $6, 'running', $7, $8) \
         ON CONFLICT (run_id) DO UPDATE SET outcome = 'running', fence = excluded.fence"
    );
    let from = run.from_version.map(|version| i64::try_from(version.0).unwrap_or(i64::MAX));
    let pid = i32::try_from(run.pid).unwrap_or(0);

    let client = store.session().await?;
    let lease = async {
        client.batch_execute(&format!("BEGIN; {OWN_TIMEOUTS}")).await?;
        let taken =
            client.query_typed(&take, &[(&holder, Type::TEXT), (&seconds, Type::INT8)]).await?;
        let Some(row) = taken.first() else {
            let rows = client.query_typed(&look, &[]).await?;
            client.batch_execute("ROLLBACK").await?;
            return Ok(Err(rows));
        };
        let (fence, died): (i64, Option<String>) = (row.get(0), row.get(1));
        client.execute_typed(&end_dead, &[(&fence, Type::INT8)]).await?;
        client
            .execute_typed(
                &begin_run,
                &[
                    (&run.id, Type::TEXT),
                    (&run.command, Type::TEXT),
                    (&run.who(), Type::TEXT),
                    (&pid, Type::INT4),
                    (&from, Type::INT8),
                    (&run.release, Type::TEXT),
                    (&env!("CARGO_PKG_VERSION"), Type::TEXT),
                    (&fence, Type::INT8),
                ],
            )
            .await?;
        client.batch_execute("COMMIT").await?;
        Ok::<_, tokio_postgres::Error>(Ok((fence, died)))
    }
    .await;
    match lease {
        Ok(Ok((fence, died))) => {
            store.fence = fence;
            Ok(Lease::Ours { fence, died })
        }
        Ok(Err(rows)) => {
            let Some(row) = rows.first() else {
                let gone = "the row of migration_control is gone";
                return Err(StoreError::new(StoreName::Postgres, ACQUIRE, Fate::Corrupt, gone));
            };
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
            Ok(Lease::Held { holder, left: Duration::from_secs_f64(left) })
        }
        Err(error) => {
            let _ = client.batch_execute("ROLLBACK").await;
            Err(failed(ACQUIRE, &error))
        }
    }
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
        client.execute_typed(&give_back, &[(&fence, Type::INT8)]).await?;
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
            "UPDATE {} SET expires_at = pg_catalog.clock_timestamp() + $2 * interval '1 second' \
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
        let seconds = i64::try_from(LEASE_TERM.as_secs()).expect("a term of seconds");
        let renewed = self
            .client
            .execute_typed(&self.renew, &[(&self.fence, Type::INT8), (&seconds, Type::INT8)])
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
