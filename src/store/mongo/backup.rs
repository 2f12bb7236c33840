//! Backups in the audit log of MongoDB.

use super::{Mongo, failed, failed_as};
use crate::core::backup::{Backup, Backups, Label};
use crate::core::history::Timestamp;
use crate::core::id::{StoreName, Version};
use crate::store::{BACKUPS_MAX, Fate, Run, StoreError};
use bson::{DateTime, Document, doc};
use futures_util::TryStreamExt;
use mongodb::error::Error;

const READ: &str = "read the recorded backups";
const RECORD: &str = "record a backup";

pub(super) async fn backups(store: &Mongo) -> Result<Backups, StoreError> {
    let found = async {
        let control = store.database.collection::<Document>("migration_control");
        let Some(control) = control.find_one(doc! { "_id": 1 }).await? else {
            return Ok::<_, Error>(None);
        };
        let runs = store.database.collection::<Document>("migration_runs");
        let backups = runs
            .find(doc! { "command": "backup", "outcome": "ok" })
            .sort(doc! { "started_at": -1, "_id": 1 })
            .limit(BACKUPS_MAX)
            .await?
            .try_collect::<Vec<_>>()
            .await?;
        Ok(Some((control, clock(store).await?, backups)))
    };
    let found = found.await.map_err(|error| failed(READ, &error))?;
    let Some((control, clock, backups)) = found else { return Ok(Backups::default()) };
    let backup = |document: &Document| {
        let text = |field: &str| document.get_str(field).unwrap_or_default().to_owned();
        let time = |field: &str| {
            document.get_datetime(field).ok().map(|at| Timestamp(at.timestamp_millis()))
        };
        let taken_at = time("started_at")?;
        Some(Backup {
            run_id: text("run_id"),
            taken_at,
            recorded_at: time("finished_at").unwrap_or(taken_at),
            by: text("started_by"),
            version: document
                .get_i64("to_version")
                .ok()
                .and_then(|version| u64::try_from(version).ok())
                .map(Version),
            label: Label::read(&text("reason")),
        })
    };
    Ok(Backups {
        clock,
        pair: control.get_str("pair").ok().map(str::to_owned),
        backups: backups.iter().filter_map(backup).collect(),
    })
}

/// What the server's clock says.
async fn clock(store: &Mongo) -> Result<Timestamp, Error> {
    let hello = store.database.run_command(doc! { "hello": 1 }).await?;
    let clock = hello.get_datetime("localTime").map_err(Error::custom)?;
    Ok(Timestamp(clock.timestamp_millis()))
}

impl Mongo {
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
        let control = self.database.collection::<Document>("migration_control");
        let found = async { Ok((control.find_one(doc! { "_id": 1 }).await?, clock(self).await?)) };
        let (control, clock) = found.await.map_err(|error: Error| failed(RECORD, &error))?;
        let Some(control) = control else {
            let never = "no migration ever ran in this database";
            return Err(StoreError::new(StoreName::Mongo, RECORD, Fate::Refused, never));
        };
        let version = by.from_version.and_then(|version| i64::try_from(version.0).ok());
        let audit = doc! {
            "_id": &by.id, "run_id": &by.id, "command": "backup", "started_by": by.who(),
            "pid": i64::from(by.pid), "started_at": DateTime::from_millis(taken_at.0),
            "finished_at": DateTime::from_millis(clock.0), "from_version": version,
            "to_version": version, "release": null, "fence": control.get("fence"),
            "writes": 0_i64, "outcome": "ok", "error": null, "reason": label.to_string(),
            "tool_version": env!("CARGO_PKG_VERSION"),
        };
        let runs = self.database.collection::<Document>("migration_runs");
        let recorded = runs.insert_one(audit).await;
        recorded.map(drop).map_err(|error| failed_as(RECORD, &error, Fate::Unknown))
    }
}
