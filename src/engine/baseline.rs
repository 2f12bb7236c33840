//! Records, under the lock, what was there before this engine was.

use crate::core::history::{Entry, Histories};
use crate::core::id::{StoreName, Version};
use crate::core::notice::Notices;
use crate::core::plan::{self, Baseline, BaselineError, Known, Stamp};
use crate::engine::lock::{self, LockError, Locked, Pairing, Read, Waiting, with_lock};
use crate::engine::run::{RunError, Settings, newest};
use crate::store::{MongoStore, Outcome, PostgresStore, StoreError, Stores};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

/// The rows of one write carry about so many bytes of down scripts at most: a command
/// of MongoDB is limited to 16 MiB.
const ROWS_BYTES: usize = 4 * 1024 * 1024;

/// Of a row without its scripts.
const ROW_BYTES: usize = 1024;

/// Why a baseline was not recorded, or not all of it. The same command again goes on.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FailedBaseline {
    /// There is nothing that could be recorded in this way.
    #[error(transparent)]
    Baseline(#[from] BaselineError),
    /// A store or the lock said no.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl From<LockError> for FailedBaseline {
    fn from(error: LockError) -> FailedBaseline {
        FailedBaseline::Run(error.into())
    }
}

impl From<StoreError> for FailedBaseline {
    fn from(error: StoreError) -> FailedBaseline {
        FailedBaseline::Run(error.into())
    }
}

/// Records migrations as already there. Returns those of which nothing was recorded
/// before, in order. Safe to call again after any failure, at any point.
///
/// # Errors
/// [`FailedBaseline`].
pub async fn baseline<P, M>(
    stores: &mut Stores<P, M>,
    versions: &BTreeSet<Version>,
    settings: Settings<'_>,
    notices: &mut dyn Notices,
) -> Result<Vec<Version>, FailedBaseline>
where
    P: PostgresStore,
    M: MongoStore,
{
    let read = baseline_now(stores, versions, &settings).await?;
    let mut run = settings.run.clone();
    run.from_version = newest(&read);
    let newest_after = Cell::new(run.from_version);
    let work = async |locked: &mut Locked<'_, P, M>, _: &mut dyn Notices| {
        let left = decide(versions, &settings, &locked.histories)?;
        let recorded = left.versions.clone();
        write(locked, left).await?;
        newest_after.set(newest(&lock::read(locked.stores).await?.histories));
        Ok(recorded)
    };
    let still = async |_: &mut Stores<P, M>, read: &Read, _: &mut dyn Notices| {
        Ok(!decide(versions, &settings, &read.histories)?.is_empty())
    };
    let outcome = |result: Result<&Vec<Version>, &FailedBaseline>| match result {
        Ok(_) => Outcome { word: "ok", error: None, to_version: newest_after.get() },
        Err(error) => Outcome {
            word: match error {
                FailedBaseline::Baseline(_) => "refused",
                FailedBaseline::Run(_) => "failed",
            },
            error: Some(error.to_string()),
            to_version: newest_after.get(),
        },
    };
    let waiting = Waiting {
        limit: settings.lock_wait,
        notices,
        stop: settings.stop,
        pairing: Pairing::Check,
    };
    Ok(with_lock(stores, &run, waiting, still, work, outcome).await?.unwrap_or_default())
}

/// Whether it can be recorded as things stand; the histories as they are. Changes
/// nothing.
///
/// # Errors
/// [`FailedBaseline`].
pub async fn baseline_now<P, M>(
    stores: &mut Stores<P, M>,
    versions: &BTreeSet<Version>,
    settings: &Settings<'_>,
) -> Result<Histories, FailedBaseline>
where
    P: PostgresStore,
    M: MongoStore,
{
    let read = lock::read(stores).await?;
    // While somebody is at work, only a look under the lock tells.
    if read.lease.is_none() {
        lock::check_pair(stores, &read).map_err(RunError::from)?;
        decide(versions, settings, &read.histories)?;
    }
    Ok(read.histories)
}

fn decide(
    versions: &BTreeSet<Version>,
    settings: &Settings<'_>,
    histories: &Histories,
) -> Result<Baseline, BaselineError> {
    let rollbacks = BTreeMap::new();
    let Settings { set, servers, run, tool_version, clock, .. } = settings;
    let stamp = Stamp {
        at: clock.now(),
        who: run.who(),
        run_id: run.id.clone(),
        tool_version: (*tool_version).to_owned(),
    };
    plan::baseline(&Known { set, histories, rollbacks: &rollbacks, servers }, versions, &stamp)
}

/// First what decides, in each store at once; then rows, which `up` writes as well if
/// this dies before.
async fn write<P, M>(locked: &mut Locked<'_, P, M>, left: Baseline) -> Result<(), StoreError>
where
    P: PostgresStore,
    M: MongoStore,
{
    for (store, records) in left.records {
        locked.stores.append(store, &records).await?;
    }
    for store in StoreName::BOTH {
        let mut part: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        for (_, entry) in left.rows.iter().filter(|(place, _)| *place == store) {
            let own = size(entry);
            if bytes + own > ROWS_BYTES && !part.is_empty() {
                locked.stores.append(store, &std::mem::take(&mut part)).await?;
                bytes = 0;
            }
            bytes += own;
            part.push(entry.clone());
        }
        if !part.is_empty() {
            locked.stores.append(store, &part).await?;
        }
    }
    Ok(())
}

fn size(entry: &Entry) -> usize {
    match entry {
        Entry::Row(_, rollback) => {
            let scripts: usize = rollback.scripts.values().map(String::len).sum();
            ROW_BYTES + scripts + rollback.manifest.as_ref().map_or(0, String::len)
        }
        Entry::Record(_) | Entry::RowGone(_) => ROW_BYTES,
    }
}
