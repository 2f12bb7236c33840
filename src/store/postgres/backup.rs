//! Backups in the audit log of Postgres.

use super::history::{OWN_TIMEOUTS, settle_transaction, unless_undefined};
use super::{Postgres, failed};
use crate::core::backup::{Backup, Backups, Label};
use crate::core::history::Timestamp;
use crate::core::id::{StoreName, Version};
use crate::store::{BACKUPS_MAX, Fate, Run, StoreError};
use tokio_postgres::types::{ToSql, Type};

const READ: &str = "read the recorded backups";
const RECORD: &str = "record a backup";

pub(super) async fn backups(store: &mut Postgres) -> Result<Backups, StoreError> {
    let control = format!(
        "SELECT pair, round(extract(epoch FROM pg_catalog.clock_timestamp()) * 1000)::bigint \
         FROM {} WHERE id = 1",
        store.table("migration_control")
    );
    let backups = format!(
        "SELECT run_id, round(extract(epoch FROM started_at) * 1000)::bigint, \
         round(extract(epoch FROM finished_at) * 1000)::bigint, started_by, to_version, \
         coalesce(reason, '') FROM {} WHERE command = 'backup' AND outcome = 'ok' \
         ORDER BY started_at DESC, run_id LIMIT {BACKUPS_MAX}",
        store.table("migration_runs")
    );
    let client = store.session().await?;
    let control = unless_undefined(client.query_typed(&control, &[]).await)?.unwrap_or_default();
    let Some(control) = control.first() else { return Ok(Backups::default()) };
    let rows = client.query_typed(&backups, &[]).await.map_err(|error| failed(READ, &error))?;
    let backup = |row: &tokio_postgres::Row| {
        let taken_at = Timestamp(row.get(1));
        let version: Option<i64> = row.get(4);
        Backup {
            run_id: row.get(0),
            taken_at,
            recorded_at: row.get::<_, Option<i64>>(2).map_or(taken_at, Timestamp),
            by: row.get(3),
            version: version.and_then(|version| u64::try_from(version).ok()).map(Version),
            label: Label::read(row.get(5)),
        }
    };
    Ok(Backups {
        clock: Timestamp(control.get(1)),
        pair: control.get(0),
        backups: rows.iter().map(backup).collect(),
    })
}

impl Postgres {
    /// Records a backup of this store, taken at a time, in its audit log. It needs no
    /// lease, and may happen while another run has it.
    ///
    /// # Errors
    /// A store that cannot be written, or in which nothing was ever migrated.
    pub async fn record_backup(
        &mut self,
        taken_at: Timestamp,
        label: &Label,
        by: &Run,
    ) -> Result<(), StoreError> {
        let sql = format!(
            "INSERT INTO {} (run_id, command, started_by, pid, started_at, finished_at, \
             from_version, to_version, fence, outcome, reason, tool_version) \
             SELECT $1, 'backup', $2, $3, pg_catalog.to_timestamp($4::bigint / 1000.0), \
             pg_catalog.clock_timestamp(), $5, $5, fence, 'ok', $6, $7 FROM {} WHERE id = 1",
            self.table("migration_runs"),
            self.table("migration_control")
        );
        let (who, pid) = (by.who(), i32::try_from(by.pid).unwrap_or(0));
        let version = by.from_version.and_then(|version| i64::try_from(version.0).ok());
        let reason = label.to_string();
        self.session().await?;
        self.open = true;
        let begin = format!("BEGIN; {OWN_TIMEOUTS}");
        self.client.batch_execute(&begin).await.map_err(|error| failed(RECORD, &error))?;
        let params: [(&(dyn ToSql + Sync), Type); 7] = [
            (&by.id, Type::TEXT),
            (&who, Type::TEXT),
            (&pid, Type::INT4),
            (&taken_at.0, Type::INT8),
            (&version, Type::INT8),
            (&reason, Type::TEXT),
            (&env!("CARGO_PKG_VERSION"), Type::TEXT),
        ];
        let recorded = match self.client.execute_typed(&sql, &params).await {
            Ok(0) => {
                let never = "no migration ever ran in this database";
                Err(StoreError::new(StoreName::Postgres, RECORD, Fate::Refused, never))
            }
            Ok(_) => Ok(()),
            Err(error) => Err(failed(RECORD, &error)),
        };
        settle_transaction(self, recorded, RECORD).await
    }
}
