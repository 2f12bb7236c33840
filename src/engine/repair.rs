//! Repairs, carried out under the lock and kept in the audit log.

use crate::core::history::{Entry, Event, Histories, Status};
use crate::core::id::{StoreName, Version};
use crate::core::notice::Notices;
use crate::core::plan::Known;
use crate::core::repair::{Remedy, Repair, RepairError, remedy};
use crate::engine::execute::{Context, execute};
use crate::engine::lock::{self, LockError, Locked, Pairing, Read, Waiting, with_lock};
use crate::engine::run::{self, RunError, Settings};
use crate::store::{MongoStore, Outcome, PostgresStore, StoreError, Stores};

/// Why a repair was not done.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FailedRepair {
    /// There is nothing to repair in this way.
    #[error(transparent)]
    Repair(#[from] RepairError),
    /// A store, the lock or a step said no.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl From<LockError> for FailedRepair {
    fn from(error: LockError) -> FailedRepair {
        FailedRepair::Run(error.into())
    }
}

impl From<StoreError> for FailedRepair {
    fn from(error: StoreError) -> FailedRepair {
        FailedRepair::Run(error.into())
    }
}

/// What a repair would do as things stand. Changes nothing.
///
/// # Errors
/// [`FailedRepair`].
pub async fn remedy_now<P, M>(
    stores: &mut Stores<P, M>,
    repair: &Repair,
    settings: &Settings<'_>,
) -> Result<Remedy, FailedRepair>
where
    P: PostgresStore,
    M: MongoStore,
{
    let read = lock::read(stores).await?;
    lock::check_pair(stores, &read).map_err(RunError::from)?;
    decide(stores, repair, settings, &read.histories).await
}

async fn decide<P, M>(
    stores: &mut Stores<P, M>,
    repair: &Repair,
    settings: &Settings<'_>,
    histories: &Histories,
) -> Result<Remedy, FailedRepair>
where
    P: PostgresStore,
    M: MongoStore,
{
    let rollbacks = run::rollbacks(stores, wanted(histories, repair)).await?;
    let Settings { set, servers, .. } = *settings;
    Ok(remedy(&Known { set, histories, rollbacks: &rollbacks, servers }, repair)?)
}

/// The versions whose down scripts the repair may need.
fn wanted(histories: &Histories, repair: &Repair) -> Vec<Version> {
    match repair {
        Repair::AcceptChecksum(_) | Repair::Redo(_) => Vec::new(),
        Repair::MarkApplied(id, _) | Repair::MarkReverted(id, _) => vec![id.version],
        Repair::Replay(store) => {
            let gone = |version: &Version| {
                histories.of(store.other()).steps_of(*version).any(|(_, state)| {
                    state.status() == Status::Pending && state.events.contains(&Event::Reverting)
                })
            };
            histories.versions().into_iter().filter(gone).collect()
        }
    }
}

/// Does a repair.
///
/// # Errors
/// [`FailedRepair`]. What was done until then is recorded.
pub async fn repair<P, M>(
    stores: &mut Stores<P, M>,
    repair: &Repair,
    settings: Settings<'_>,
    notices: &mut dyn Notices,
) -> Result<(), FailedRepair>
where
    P: PostgresStore,
    M: MongoStore,
{
    let run = settings.run.clone();
    let work = async |locked: &mut Locked<'_, P, M>, notices: &mut dyn Notices| loop {
        let remedy = decide(locked.stores, repair, &settings, &locked.histories).await?;
        let plan = match remedy {
            Remedy::Write(entries) => return write(locked, entries).await,
            Remedy::Run(plan) if plan.work.is_empty() => return Ok(()),
            Remedy::Run(plan) => plan,
        };
        let context = Context {
            run: &run,
            tool_version: settings.tool_version,
            clock: settings.clock,
            notices: &mut *notices,
            stop: settings.stop,
            means: settings.means,
        };
        let done = execute(&plan, locked, context).await;
        done.map_err(|error| RunError::Execute(Box::new(error)))?;
        // Only a replay has more to do, and it sees what is done.
        if !matches!(repair, Repair::Replay(_)) {
            return Ok(());
        }
        locked.histories = lock::read(locked.stores).await?.histories;
    };
    let waiting = Waiting {
        limit: settings.lock_wait,
        notices,
        stop: settings.stop,
        pairing: Pairing::Check,
    };
    let still = async |_: &mut Stores<P, M>, _: &Read| Ok(true);
    with_lock(stores, &settings.run, waiting, still, work, outcome).await?;
    Ok(())
}

async fn write<P, M>(
    locked: &mut Locked<'_, P, M>,
    entries: Vec<(StoreName, Entry)>,
) -> Result<(), FailedRepair>
where
    P: PostgresStore,
    M: MongoStore,
{
    for store in StoreName::BOTH {
        let here = entries.iter().filter(|(place, _)| *place == store);
        let here: Vec<Entry> = here.map(|(_, entry)| entry.clone()).collect();
        if !here.is_empty() {
            locked.stores.append(store, &here).await?;
        }
    }
    Ok(())
}

/// Makes the two databases a pair, whatever they were before. Returns the UUID.
///
/// # Errors
/// [`FailedRepair`].
pub async fn pair<P, M>(
    stores: &mut Stores<P, M>,
    settings: Settings<'_>,
    notices: &mut dyn Notices,
) -> Result<String, FailedRepair>
where
    P: PostgresStore,
    M: MongoStore,
{
    let read = lock::read(stores).await?;
    let pair = read.postgres_pair.or(read.mongo_pair).unwrap_or_else(|| settings.run.id.clone());
    let name = pair.clone();
    let work = async move |locked: &mut Locked<'_, P, M>, _: &mut dyn Notices| {
        if let Some(postgres) = &mut locked.stores.postgres {
            postgres.pair(&name).await?;
        }
        if let Some(mongo) = &mut locked.stores.mongo {
            mongo.pair(&name).await?;
        }
        Ok::<(), FailedRepair>(())
    };
    let waiting = Waiting {
        limit: settings.lock_wait,
        notices,
        stop: settings.stop,
        pairing: Pairing::Ignore,
    };
    let still = async |_: &mut Stores<P, M>, _: &Read| Ok(true);
    with_lock(stores, &settings.run, waiting, still, work, outcome).await?;
    Ok(pair)
}

fn outcome(result: Result<&(), &FailedRepair>) -> Outcome {
    match result {
        Ok(()) => Outcome { word: "ok", error: None, to_version: None },
        Err(error) => Outcome { word: "failed", error: Some(error.to_string()), to_version: None },
    }
}
