//! Repairs, carried out under the lock and kept in the audit log.

use crate::core::history::{Entry, Event, Histories, Status};
use crate::core::id::{Direction, StoreName, Version};
use crate::core::notice::Notices;
use crate::core::plan::{self, Action, Goal, Known, Plan, Up};
use crate::core::repair::{Remedy, Repair, RepairError, remedy};
use crate::engine::execute::{Context, execute};
use crate::engine::lock::{self, LockError, Locked, Pairing, Read, Waiting, with_lock};
use crate::engine::run::{self, RunError, Settings};
use crate::store::{MongoStore, Outcome, PostgresStore, StoreError, Stores};
use std::collections::BTreeMap;

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
    pairing(stores, repair, &read).map_err(RunError::from)?;
    decide(stores, repair, settings, &read.histories).await
}

/// Whether the two must be a pair already. A store that lost all of its history, or
/// was restored to before it had one, is of the other's pair from now on.
fn pairing<P, M>(
    stores: &Stores<P, M>,
    repair: &Repair,
    read: &Read,
) -> Result<Pairing, lock::PairError>
where
    P: PostgresStore,
    M: MongoStore,
{
    let about = match repair {
        Repair::Replay(store) | Repair::MarkAllApplied(Some(store)) => Some(*store),
        _ => None,
    };
    match lock::check_pair(stores, read) {
        Ok(()) => Ok(Pairing::Check),
        Err(lock::PairError::OneSided { paired, .. }) if about == Some(paired.other()) => {
            Ok(Pairing::Ignore)
        }
        Err(error) => Err(error),
    }
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
        Repair::AcceptChecksum(_)
        | Repair::Redo(_)
        | Repair::MarkAllApplied(_)
        | Repair::Forget(..) => Vec::new(),
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
    let read = lock::read(stores).await?;
    let pairing = pairing(stores, repair, &read).map_err(RunError::from)?;
    let work = async |locked: &mut Locked<'_, P, M>, notices: &mut dyn Notices| loop {
        let remedy = decide(locked.stores, repair, &settings, &locked.histories).await?;
        let plan = match remedy {
            Remedy::Write(entries) => {
                discard(locked, repair).await?;
                write(locked, entries).await?;
                return seal(locked, &settings, notices).await;
            }
            Remedy::Run(plan) if plan.work.is_empty() => {
                return seal(locked, &settings, notices).await;
            }
            Remedy::Run(plan) => plan,
        };
        carry_out(&plan, locked, &settings, notices).await?;
        // Only a replay has more to do, and it sees what is done.
        if !matches!(repair, Repair::Replay(_)) {
            return seal(locked, &settings, notices).await;
        }
        locked.histories = lock::read(locked.stores).await?.histories;
    };
    let waiting = Waiting { limit: settings.lock_wait, notices, stop: settings.stop, pairing };
    let still = async |_: &mut Stores<P, M>, _: &Read, _: &mut dyn Notices| Ok(true);
    with_lock(stores, &settings.run, waiting, still, work, outcome).await?;
    Ok(())
}

async fn carry_out<P, M>(
    plan: &Plan,
    locked: &mut Locked<'_, P, M>,
    settings: &Settings<'_>,
    notices: &mut dyn Notices,
) -> Result<(), FailedRepair>
where
    P: PostgresStore,
    M: MongoStore,
{
    let context = Context {
        run: &settings.run,
        direction: plan.work.last().map_or(Direction::Up, |work| work.direction),
        tool_version: settings.tool_version,
        clock: settings.clock,
        notices,
        stop: settings.stop,
        means: settings.means,
    };
    match execute(plan, locked, context).await {
        Ok(_) => Ok(()),
        Err(error) => Err(RunError::Execute(Box::new(error)).into()),
    }
}

/// Rows are derived: those that are not what the records say now are written again,
/// so that nothing is left to do but what is pending.
async fn seal<P, M>(
    locked: &mut Locked<'_, P, M>,
    settings: &Settings<'_>,
    notices: &mut dyn Notices,
) -> Result<(), FailedRepair>
where
    P: PostgresStore,
    M: MongoStore,
{
    locked.histories = lock::read(locked.stores).await?.histories;
    let (histories, rollbacks) = (&locked.histories, BTreeMap::new());
    let Settings { set, servers, .. } = *settings;
    let known = Known { set, histories, rollbacks: &rollbacks, servers };
    // What else is wrong is for another repair.
    let Ok(mut plan) = plan::plan(&known, &Goal::Up(Up::default())) else { return Ok(()) };
    plan.work.retain(|work| work.actions == [Action::Seal]);
    carry_out(&plan, locked, settings, notices).await
}

/// What cannot be read is in the way of what is written in its place.
async fn discard<P, M>(locked: &mut Locked<'_, P, M>, repair: &Repair) -> Result<(), FailedRepair>
where
    P: PostgresStore,
    M: MongoStore,
{
    let Repair::MarkAllApplied(only) = repair else { return Ok(()) };
    for store in locked.stores.configured() {
        let what = locked.histories.of(store).unreadable().to_vec();
        if !what.is_empty() && only.is_none_or(|only| only == store) {
            locked.stores.discard(store, &what).await?;
        }
    }
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
    let work = async |locked: &mut Locked<'_, P, M>, notices: &mut dyn Notices| {
        if let Some(postgres) = &mut locked.stores.postgres {
            postgres.pair(&name).await?;
        }
        if let Some(mongo) = &mut locked.stores.mongo {
            mongo.pair(&name).await?;
        }
        seal(locked, &settings, notices).await
    };
    let waiting = Waiting {
        limit: settings.lock_wait,
        notices,
        stop: settings.stop,
        pairing: Pairing::Ignore,
    };
    let still = async |_: &mut Stores<P, M>, _: &Read, _: &mut dyn Notices| Ok(true);
    with_lock(stores, &settings.run, waiting, still, work, outcome).await?;
    Ok(pair)
}

fn outcome(result: Result<&(), &FailedRepair>) -> Outcome {
    match result {
        Ok(()) => Outcome { word: "ok", error: None, to_version: None },
        Err(error) => Outcome { word: "failed", error: Some(error.to_string()), to_version: None },
    }
}
