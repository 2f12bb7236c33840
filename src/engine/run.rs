//! Runs: `up` and `down` from beginning to end.
//!
//! Read both histories, plan; when nothing is left to do, that was all, and no
//! lease was taken. Else take the lock, read again, plan again, carry it out.

use crate::core::history::Histories;
use crate::core::id::{Direction, Version};
use crate::core::migration::{MigrationSet, OnFailure, Rollback};
use crate::core::notice::{Notice, Notices};
use crate::core::plan::{self, Goal, Known, Plan, PlanError, Waits};
use crate::core::server::Servers;
use crate::engine::execute::{self, Context, ExecuteError};
use crate::engine::hook::HookError;
use crate::engine::join::Helper;
use crate::engine::lock::{self, LockError, Locked, PairError, Pairing, Read, Waiting, with_lock};
use crate::engine::{Clock, Means, Stop};
use crate::store::{Fate, MongoStore, Outcome, PostgresStore, Run, StoreError, Stores};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a run needs besides the stores.
pub struct Settings<'a> {
    /// The files.
    pub set: &'a MigrationSet,
    /// What the servers are.
    pub servers: &'a Servers,
    /// Who does it.
    pub run: Run,
    /// The version of this program, for the history.
    pub tool_version: &'a str,
    /// For the times in the history.
    pub clock: &'a dyn Clock,
    /// Waits for the lease for this long at most.
    pub lock_wait: Duration,
    /// Asked between two steps.
    pub stop: &'a Stop,
    /// What it does while another run has the lease.
    pub meanwhile: Meanwhile,
    /// How what `migration.toml` names is carried out.
    pub means: Means<'a>,
}

/// What a run does while another one has the lease.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Meanwhile {
    /// It waits.
    #[default]
    Wait,
    /// It helps with that run's backfills.
    Join,
}

/// What a run did.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Report {
    /// The migrations that it finished, in order.
    pub finished: Vec<Version>,
    /// Applied versions newer than every file.
    pub ahead: Vec<Version>,
    /// The migrations that are held now.
    pub held: Vec<Version>,
    /// The migration that was told to go on only so far.
    pub open: Option<Version>,
    /// The migrations that may not begin yet.
    pub waiting: Vec<Waits>,
}

impl Report {
    fn of(plan: Plan, finished: Vec<Version>) -> Report {
        let Plan { ahead, held, open, waiting, .. } = plan;
        Report { finished, ahead, held, open, waiting }
    }
}

/// Why a run failed. Whatever it had done is recorded.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RunError {
    /// A store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The two databases do not belong together.
    #[error(transparent)]
    Pair(#[from] PairError),
    /// Files, histories and goal do not fit together.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The lock was not to be had, or was lost.
    #[error(transparent)]
    Lock(LockError),
    /// The plan was not carried out to its end.
    #[error("a migration failed")]
    Execute(Box<ExecuteError>),
    /// The same, and what the migration had done was taken back, or was to be.
    #[error("a migration failed, and was rolled back")]
    RolledBack(Box<RolledBack>),
    /// A command that was to run before it failed. Nothing was changed.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// What was confirmed is no longer what would be done.
    #[error("the plan changed while it was being confirmed: another run was here")]
    Changed,
}

/// A migration that failed, and the way back from it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RolledBack {
    /// Why it failed.
    pub failed: ExecuteError,
    /// Why it was not taken back as a whole, if it was not.
    pub back: Result<(), RunError>,
}

impl From<LockError> for RunError {
    fn from(error: LockError) -> RunError {
        match error {
            LockError::Store(error) => RunError::Store(error),
            LockError::Pair(error) => RunError::Pair(error),
            error => RunError::Lock(error),
        }
    }
}

impl RunError {
    /// What this run had finished before.
    pub fn finished(&self) -> &[Version] {
        match self {
            RunError::Execute(error) => &error.finished,
            RunError::RolledBack(error) => &error.failed.finished,
            _ => &[],
        }
    }

    fn outcome(&self) -> &'static str {
        match self {
            RunError::Execute(error) => match error.cause {
                execute::Cause::Stopped(_) => "stopped",
                execute::Cause::Backup { .. } => "refused",
                _ => "failed",
            },
            RunError::Hook(HookError::Stopped(_)) => "stopped",
            RunError::Lock(_) => "locked",
            RunError::Changed | RunError::Plan(_) | RunError::Pair(_) => "refused",
            RunError::RolledBack(_) | RunError::Store(_) | RunError::Hook(_) => "failed",
        }
    }
}

/// The plan for a goal as things stand. Changes nothing.
///
/// # Errors
/// [`RunError`]: a store that cannot be read, or no plan.
pub async fn plan_now<P, M>(
    stores: &mut Stores<P, M>,
    set: &MigrationSet,
    servers: &Servers,
    goal: &Goal,
) -> Result<(Plan, Read), RunError>
where
    P: PostgresStore,
    M: MongoStore,
{
    let mut tries = 1;
    loop {
        let read = lock::read(stores).await?;
        let planned = match lock::check_pair(stores, &read) {
            Ok(()) => plan_from(stores, set, servers, goal, &read.histories).await,
            Err(error) => Err(error.into()),
        };
        match planned {
            Ok(plan) => return Ok((plan, read)),
            Err(error) if is_unsettled(&error) && tries < LOOKS => {
                tokio::time::sleep(LOOK_AGAIN * tries).await;
                tries += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// The two stores are not read at one moment: while another run is writing, what
/// one says may be older than what the other says. So often is it looked again.
const LOOKS: u32 = 4;

/// The first pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Whether the error may come from two histories read at different moments.
fn is_unsettled(error: &RunError) -> bool {
    matches!(error, RunError::Pair(_) | RunError::Plan(PlanError::Gap { .. } | PlanError::Torn(_)))
}

async fn plan_from<P, M>(
    stores: &mut Stores<P, M>,
    set: &MigrationSet,
    servers: &Servers,
    goal: &Goal,
    histories: &Histories,
) -> Result<Plan, RunError>
where
    P: PostgresStore,
    M: MongoStore,
{
    let wanted = plan::needs_rollbacks(histories, goal)?;
    let rollbacks = rollbacks(stores, wanted).await?;
    Ok(plan::plan(&Known { set, histories, rollbacks: &rollbacks, servers }, goal)?)
}

/// The stored down scripts, from whichever store has them.
pub(super) async fn rollbacks<P, M>(
    stores: &mut Stores<P, M>,
    wanted: Vec<Version>,
) -> Result<BTreeMap<Version, Rollback>, StoreError>
where
    P: PostgresStore,
    M: MongoStore,
{
    let mut found = BTreeMap::new();
    if wanted.is_empty() {
        return Ok(found);
    }
    if let Some(postgres) = &mut stores.postgres {
        found = postgres.rollbacks(&wanted).await?;
    }
    let missing: Vec<Version> =
        wanted.into_iter().filter(|version| !found.contains_key(version)).collect();
    if let Some(mongo) = &mut stores.mongo
        && !missing.is_empty()
    {
        found.extend(mongo.rollbacks(&missing).await?);
    }
    Ok(found)
}

/// Reaches a goal. Safe to call again after any failure, at any point.
///
/// `confirmed` is a plan that somebody agreed to: if it is no longer what would
/// be done, nothing is.
///
/// # Errors
/// [`RunError`].
pub async fn run<P, M>(
    stores: &mut Stores<P, M>,
    goal: &Goal,
    confirmed: Option<&Plan>,
    settings: Settings<'_>,
    notices: &mut dyn Notices,
) -> Result<Report, RunError>
where
    P: PostgresStore,
    M: MongoStore,
{
    let Settings { set, servers, mut run, tool_version, clock, lock_wait, stop, meanwhile, means } =
        settings;
    let mut before = Plan::default();
    let read = match plan_now(stores, set, servers, goal).await {
        Ok((plan, _)) if plan.work.is_empty() => {
            return Ok(Report::of(plan, Vec::new()));
        }
        Ok((plan, read)) => {
            before = plan;
            read
        }
        // While somebody is at work, only a look under the lock tells.
        Err(error) if matches!(error, RunError::Plan(_)) && is_unsettled(&error) => {
            let read = lock::read(stores).await?;
            if read.lease.is_none() {
                // Whoever was at work is done: this is how they left it.
                plan_from(stores, set, servers, goal, &read.histories).await?;
            }
            read
        }
        Err(error) => return Err(error),
    };
    run.from_version = newest(&read.histories);
    let newest_after = Cell::new(run.from_version);
    // What failed before the way back from it began.
    let failed = RefCell::new(None);

    let work = async |locked: &mut Locked<'_, P, M>, notices: &mut dyn Notices| {
        let mut finished = Vec::new();
        let mut first = true;
        loop {
            let histories = &locked.histories;
            let plan = plan_from(locked.stores, set, servers, goal, histories).await?;
            if first && confirmed.is_some_and(|confirmed| *confirmed != plan) {
                return Err(RunError::Changed);
            }
            if first {
                notices.notice(Notice::RunStarted {
                    command: command_word(goal),
                    run_id: run.id.clone(),
                    migrations: plan.work.len(),
                });
            }
            // Somebody else may have done all of it in the meantime.
            if first
                && !plan.work.is_empty()
                && let Some(hooks) = means.hooks
            {
                hooks.begin(&run, &plan, stop, notices).await?;
            }
            first = false;
            let context = Context {
                run: &run,
                direction: goal.direction(),
                tool_version,
                clock,
                notices: &mut *notices,
                stop,
                means,
            };
            let done = execute::execute(&plan, locked, context).await;
            if let Ok(now) = lock::read(locked.stores).await {
                newest_after.set(newest(&now.histories));
                locked.histories = now.histories;
            }
            match done {
                Ok(versions) if plan.then_plan_again => drop(versions),
                Ok(versions) => {
                    finished.extend(versions);
                    return Ok(Report::of(plan, finished));
                }
                Err(error) => {
                    let Some(version) = to_roll_back(&error, goal, set) else {
                        return Err(RunError::Execute(Box::new(error)));
                    };
                    if let Some(lost) = locked.lost().await {
                        return Err(lost.into());
                    }
                    failed.replace(Some(error.clone()));
                    let context = Context {
                        run: &run,
                        direction: Direction::Down,
                        tool_version,
                        clock,
                        notices: &mut *notices,
                        stop,
                        means,
                    };
                    let back = Box::pin(roll_back(version, locked, set, servers, context)).await;
                    newest_after.set(newest(&locked.histories));
                    return Err(RunError::RolledBack(Box::new(RolledBack { failed: error, back })));
                }
            }
        }
    };
    let mut helper =
        Helper { set, run: &run, means, stop, told: BTreeSet::new(), is_refused: false };
    let still = async |stores: &mut Stores<P, M>, read: &Read, notices: &mut dyn Notices| {
        let mut histories = &read.histories;
        let now;
        if meanwhile == Meanwhile::Join
            && read.lease.is_some()
            && Box::pin(helper.help(stores, histories, notices)).await?
        {
            now = lock::read(stores).await?;
            histories = &now.histories;
        }
        match plan_from(stores, set, servers, goal, histories).await {
            Ok(plan) => Ok(!plan.work.is_empty()),
            Err(error) if is_unsettled(&error) => Ok(true),
            Err(error) => Err(error),
        }
    };
    let outcome = |result: Result<&Report, &RunError>| match result {
        Ok(_) => Outcome { word: "ok", error: None, to_version: newest_after.get() },
        Err(error) => Outcome {
            word: error.outcome(),
            error: Some(describe(error)),
            to_version: newest_after.get(),
        },
    };
    let waiting = Waiting { limit: lock_wait, notices, stop, pairing: Pairing::Check };
    match (with_lock(stores, &run, waiting, still, work, outcome).await, failed.take()) {
        (Ok(report), _) => {
            // Somebody else did it while we waited.
            Ok(report.unwrap_or_else(|| {
                before.work.clear();
                Report::of(before, Vec::new())
            }))
        }
        (Err(error @ RunError::RolledBack(_)), _) | (Err(error), None) => Err(error),
        // The lease was lost on the way back. That is not why it failed.
        (Err(error), Some(failed)) => {
            Err(RunError::RolledBack(Box::new(RolledBack { failed, back: Err(error) })))
        }
    }
}

/// The migration that is to be taken back because it failed: a store refused one
/// of its steps, or something was in its way. A run that was stopped, that lost a
/// connection or its lease has not failed; it goes on.
fn to_roll_back(error: &ExecuteError, goal: &Goal, set: &MigrationSet) -> Option<Version> {
    let Goal::Up(up) = goal else { return None };
    let at = error.at.as_ref().filter(|at| at.direction == Direction::Up)?;
    let has_failed = match &error.cause {
        execute::Cause::Store(error) => error.fate == Fate::Refused,
        execute::Cause::Obstacle(_) | execute::Cause::Broken(_) | execute::Cause::Program(_) => {
            true
        }
        // It comes before a step, and the step is still to come.
        execute::Cause::Hook(_)
        | execute::Cause::Backup { .. }
        | execute::Cause::Ask
        | execute::Cause::Stopped(_) => false,
    };
    let own = set.get(at.version).map(|migration| migration.options.on_failure);
    let is_wanted = up.on_failure == OnFailure::Rollback || own == Some(OnFailure::Rollback);
    (has_failed && is_wanted).then_some(at.version)
}

/// Takes a migration back that failed, under the lease under which it did.
async fn roll_back<P, M>(
    version: Version,
    locked: &mut Locked<'_, P, M>,
    set: &MigrationSet,
    servers: &Servers,
    context: Context<'_>,
) -> Result<(), RunError>
where
    P: PostgresStore,
    M: MongoStore,
{
    let Context { run, direction, tool_version, clock, notices, stop, means } = context;
    let mut is_told = false;
    loop {
        locked.histories = lock::read(locked.stores).await?.histories;
        let rollbacks = rollbacks(locked.stores, vec![version]).await?;
        let known = Known { set, histories: &locked.histories, rollbacks: &rollbacks, servers };
        let Some(plan) = plan::plan_rollback(&known, version)? else { return Ok(()) };
        if !std::mem::replace(&mut is_told, true) {
            let folders = plan.work.iter().map(|work| work.folder.as_str());
            let folders: Vec<&str> = folders.collect();
            let text = format!("{} failed: rolling it back", folders.join(", "));
            notices.notice(Notice::Remark(text));
        }
        let context =
            Context { run, direction, tool_version, clock, notices: &mut *notices, stop, means };
        let done = execute::execute(&plan, locked, context).await;
        done.map_err(|error| RunError::Execute(Box::new(error)))?;
    }
}

fn command_word(goal: &Goal) -> &'static str {
    match goal {
        Goal::Up(_) => "up",
        Goal::Down(_) => "down",
        Goal::Cleanup(_) => "cleanup",
    }
}

/// The migration that was applied last.
pub fn newest(histories: &Histories) -> Option<Version> {
    plan::lives(histories).last().map(|life| life.version)
}

/// An error in one line, for the audit log.
fn describe(error: &RunError) -> String {
    match error {
        RunError::Execute(error) => describe_execution(error),
        RunError::RolledBack(error) => {
            let failed = describe_execution(&error.failed);
            match &error.back {
                Ok(()) => format!("{failed}; rolled back"),
                Err(error) => format!("{failed}; not rolled back: {}", describe(error)),
            }
        }
        error => error.to_string(),
    }
}

fn describe_execution(error: &ExecuteError) -> String {
    let cause = match &error.cause {
        execute::Cause::Store(error) => error.to_string(),
        execute::Cause::Obstacle(obstacle) => obstacle.clone(),
        execute::Cause::Broken(broken) => broken.to_string(),
        execute::Cause::Program(error) => error.to_string(),
        execute::Cause::Hook(error) => error.to_string(),
        execute::Cause::Backup { folder, required } => {
            format!("the cleanup of {folder} needs {required}")
        }
        execute::Cause::Ask => "only a person can say whether it happened".to_owned(),
        execute::Cause::Stopped(reason) => reason.to_string(),
    };
    match &error.at {
        Some(at) => format!("{}/{}: {cause}", at.version, at.step.name),
        None => cause,
    }
}
