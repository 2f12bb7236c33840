//! How far what we run is, from a connection of its own: index builds, `VACUUM`,
//! `CLUSTER` and `VACUUM FULL` are counted by the server.

use super::{Postgres, PostgresConfig};
use crate::core::notice::Doing;
use crate::store::Gauge;
use std::pin::Pin;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

/// Each part counts something else: blocks that are read, rows that are sorted into
/// an index, sessions that are waited for.
const DOING: &str = "SELECT 0::int4, p.phase, \
        CASE WHEN p.phase LIKE 'waiting%' THEN p.lockers_done \
            WHEN p.phase LIKE '%tuples%' THEN p.tuples_done ELSE p.blocks_done END, \
        CASE WHEN p.phase LIKE 'waiting%' THEN p.lockers_total \
            WHEN p.phase LIKE '%tuples%' THEN p.tuples_total ELSE p.blocks_total END, \
        CASE WHEN p.phase LIKE 'waiting%' THEN 2 WHEN p.phase LIKE '%tuples%' THEN 1 \
            ELSE 0 END \
    FROM pg_catalog.pg_stat_progress_create_index AS p \
    JOIN pg_catalog.pg_stat_activity AS a USING (pid) \
    WHERE a.application_name = $1 AND p.datname = pg_catalog.current_database() \
    UNION ALL SELECT 1, p.command || ': ' || p.phase, p.heap_blks_scanned, p.heap_blks_total, 0 \
    FROM pg_catalog.pg_stat_progress_cluster AS p \
    JOIN pg_catalog.pg_stat_activity AS a USING (pid) \
    WHERE a.application_name = $1 AND p.datname = pg_catalog.current_database() \
    UNION ALL SELECT 2, 'VACUUM: ' || p.phase, p.heap_blks_scanned, p.heap_blks_total, 0 \
    FROM pg_catalog.pg_stat_progress_vacuum AS p \
    JOIN pg_catalog.pg_stat_activity AS a USING (pid) \
    WHERE a.application_name = $1 AND p.datname = pg_catalog.current_database() \
    ORDER BY 1 LIMIT 1";

/// Looks at the sessions of one run.
pub(super) struct PostgresGauge {
    config: PostgresConfig,
    run_id: String,
    client: Option<Client>,
}

impl PostgresGauge {
    pub fn new(store: &Postgres) -> PostgresGauge {
        PostgresGauge { config: store.config.clone(), run_id: store.run_id.clone(), client: None }
    }

    async fn doing(&mut self) -> Option<Doing> {
        if self.client.as_ref().is_none_or(Client::is_closed) {
            self.client = self.config.client(&self.run_id).await.ok();
        }
        let client = self.client.as_ref()?;
        let name = format!("lockstep/{}", self.run_id);
        let rows = client.query_typed(DOING, &[(&name, Type::TEXT)]).await.ok()?;
        let row = rows.first()?;
        let number = |at: usize| u64::try_from(row.get::<_, Option<i64>>(at).unwrap_or(0)).ok();
        let unit = match row.get::<_, i32>(4) {
            0 => "blocks",
            1 => "rows",
            _ => "sessions",
        };
        Some(Doing { what: row.get(1), done: number(2)?, total: number(3)?, unit })
    }
}

impl Gauge for PostgresGauge {
    fn look(&mut self) -> Pin<Box<dyn Future<Output = Option<Doing>> + Send + '_>> {
        Box::pin(self.doing())
    }
}
