//! Repairs: each does one narrow thing to a history that no run of the engine
//! would leave, and nothing else. Deciding is pure; carrying it out needs the
//! lock, and leaves a row in `migration_runs`.

use crate::core::history::{Entry, Event, Histories, Record, Row, RowStatus, Status, StepState};
use crate::core::id::{Direction, StepId, StepName, StoreName, Version};
use crate::core::migration::Migration;
use crate::core::plan::{self, Action, Attempt, Known, Plan, PlanError, Work};
use crate::core::step::Step;
use std::fmt;

/// What somebody asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Repair {
    /// The edit of an applied migration was harmless: the file is what was
    /// applied.
    AcceptChecksum(Version),
    /// This store was restored from an older backup: run the steps it lacks, and
    /// revert what it still has, only there.
    Replay(StoreName),
    /// The effect of this step is there.
    MarkApplied(StepId, StoreName),
    /// All that is not recorded in this store, or in any, is there; what cannot be
    /// read is nothing.
    MarkAllApplied(Option<StoreName>),
    /// Nothing of this step is there.
    MarkReverted(StepId, StoreName),
    /// Nothing of this migration is there, in this store or in any.
    Forget(Version, Option<StoreName>),
    /// Run this step again.
    Redo(StepId),
}

/// What a repair does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Remedy {
    /// Writes these entries, and touches nothing else.
    Write(Vec<(StoreName, Entry)>),
    /// Runs steps.
    Run(Plan),
}

/// Why there is nothing to repair in this way. Nothing was changed. Exit code 2.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RepairError {
    /// `--accept-checksum` needs both.
    #[error("{0} is not applied, so there is no checksum to accept")]
    NotApplied(Version),
    /// The file is what would be accepted.
    #[error("there is no file of {0}")]
    NoFile(Version),
    /// The migration does not have such a step.
    #[error("{id} is not a step that {store} knows, by its file or its history", store = .store.title())]
    NoStep {
        /// As it was named.
        id: StepId,
        /// Where it was looked for.
        store: StoreName,
    },
    /// It is so already.
    #[error("{id} is {status} already")]
    Already {
        /// The step.
        id: StepId,
        /// What it is.
        status: &'static str,
    },
    /// Half of the migration is on its way down.
    #[error("{0} is being reverted; finish that first")]
    Reverting(Version),
    /// Everything is recorded.
    #[error("no record is lacking, and none cannot be read")]
    NothingLacks,
    /// The plan says no.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

impl RepairError {
    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            RepairError::NotApplied(_) | RepairError::NoFile(_) => {
                "`migrate status` lists what there is".to_owned()
            }
            RepairError::NoStep { id, .. } => format!(
                "`migrate history {}` lists its steps; write one as 007/up/postgres/1",
                id.version
            ),
            RepairError::Already { .. } | RepairError::NothingLacks => {
                "nothing was changed; `migrate verify` says what is wrong, if anything is"
                    .to_owned()
            }
            RepairError::Reverting(_) => "run `migrate down` again".to_owned(),
            RepairError::Plan(error) => error.hint(),
        }
    }
}

/// Decides what a repair does.
///
/// # Errors
/// [`RepairError`].
pub fn remedy(known: &Known<'_>, repair: &Repair) -> Result<Remedy, RepairError> {
    match repair {
        Repair::AcceptChecksum(version) => accept(known, *version).map(Remedy::Write),
        Repair::MarkApplied(id, store) => mark_applied(known, id, *store).map(Remedy::Write),
        Repair::MarkReverted(id, store) => mark_reverted(known, id, *store).map(Remedy::Write),
        Repair::MarkAllApplied(store) => mark_all(known, *store).map(Remedy::Write),
        Repair::Forget(version, store) => forget(known, *version, *store).map(Remedy::Write),
        Repair::Redo(id) => redo(known, id).map(Remedy::Run),
        Repair::Replay(store) => replay(known, *store).map(Remedy::Run),
    }
}

fn accept(known: &Known<'_>, version: Version) -> Result<Vec<(StoreName, Entry)>, RepairError> {
    let Known { set, histories, servers, .. } = *known;
    let life = plan::lives(histories).into_iter().find(|life| life.version == version);
    let life = life.ok_or(RepairError::NotApplied(version))?;
    let migration = set.get(version).ok_or(RepairError::NoFile(version))?;
    let id = StepId { version, name: StepName::Accepted };
    let before = StoreName::BOTH.into_iter().filter_map(|store| histories.of(store).step(&id));
    let attempt = before.map(|state| state.attempt).max().unwrap_or(0) + 1;
    let record = Record {
        step: id,
        attempt,
        event: Event::Applied,
        rank: life.rank,
        checksum: migration.checksum,
        migration_checksum: migration.checksum,
    };
    let mut entries = Vec::new();
    for store in servers.stores() {
        entries.push((store, Entry::Record(record.clone())));
        if let Some(row) = histories.row(version) {
            let row = Row { checksum: migration.checksum, ..row.clone() };
            entries.push((store, Entry::Row(Box::new(row), migration.rollback.clone())));
        }
    }
    Ok(entries)
}

/// A step with its migration, if a file has it.
type Declared<'a> = Option<(&'a Migration, &'a Step)>;

/// The state that a step has in a store, and the step as its file has it.
fn find<'a>(
    known: &Known<'a>,
    id: &StepId,
    store: StoreName,
) -> Result<(Option<&'a StepState>, Declared<'a>), RepairError> {
    let state = known.histories.of(store).step(id);
    let migration = known.set.get(id.version);
    let step = migration.and_then(|migration| {
        let step =
            migration.steps.iter().find(|step| step.name == id.name && step.store() == store);
        Some((migration, step?))
    });
    match (state, step) {
        (None, None) => Err(RepairError::NoStep { id: id.clone(), store }),
        found => Ok(found),
    }
}

fn mark_applied(
    known: &Known<'_>,
    id: &StepId,
    store: StoreName,
) -> Result<Vec<(StoreName, Entry)>, RepairError> {
    let (state, step) = find(known, id, store)?;
    let status = state.map(StepState::status).unwrap_or_default();
    let newest = attempt_max(known.histories, id.version).max(1);
    let attempt = match (status, state) {
        (Status::Applied | Status::Reverting, _) => {
            return Err(RepairError::Already { id: id.clone(), status: "applied" });
        }
        (Status::InDoubt, Some(state)) => state.attempt,
        (Status::Pending, Some(state)) => newest.max(state.attempt + 1),
        (_, None) => newest,
    };
    // The text that was started is what took effect, if anything was started.
    let texts = state
        .filter(|_| status == Status::InDoubt)
        .map(|state| (state.checksum, state.migration_checksum))
        .or_else(|| step.map(|(migration, step)| (step.checksum, migration.checksum)))
        .or_else(|| state.map(|state| (state.checksum, state.migration_checksum)));
    let (checksum, migration_checksum) = texts.expect("find() found a state or a step");
    let record = Record {
        step: id.clone(),
        attempt,
        event: Event::Applied,
        rank: rank_of(known.histories, id.version),
        checksum,
        migration_checksum,
    };
    Ok(vec![(store, Entry::Record(record))])
}

fn mark_reverted(
    known: &Known<'_>,
    id: &StepId,
    store: StoreName,
) -> Result<Vec<(StoreName, Entry)>, RepairError> {
    let (state, _) = find(known, id, store)?;
    let already = || RepairError::Already { id: id.clone(), status: "not applied" };
    let state = state.filter(|state| state.status() != Status::Pending).ok_or_else(already)?;
    let record = state.record(id.clone(), Event::Reverted);
    let mut entries = vec![(store, Entry::Record(record))];
    entries.extend(unsealed(known, id.version));
    Ok(entries)
}

/// The migration's row as that of one that is not done.
fn unsealed(known: &Known<'_>, version: Version) -> Vec<(StoreName, Entry)> {
    let Known { histories, set, rollbacks, servers, .. } = *known;
    let Some(row) = histories.row(version).filter(|row| row.status != RowStatus::Running) else {
        return Vec::new();
    };
    let stored = rollbacks.get(&version).cloned();
    let rollback = stored.or_else(|| set.get(version).map(|migration| migration.rollback.clone()));
    let row = Row { status: RowStatus::Running, finished_at: None, ..row.clone() };
    servers
        .stores()
        .into_iter()
        .map(|store| {
            let rollback = rollback.clone().unwrap_or_default();
            (store, Entry::Row(Box::new(row.clone()), rollback))
        })
        .collect()
}

fn redo(known: &Known<'_>, id: &StepId) -> Result<Plan, RepairError> {
    let Known { histories, set, .. } = *known;
    let migration = set.get(id.version).ok_or(RepairError::NoFile(id.version))?;
    let step = migration.steps.iter().find(|step| step.name == id.name);
    let no_step = || RepairError::NoStep { id: id.clone(), store: store_of(&id.name) };
    let step = step.ok_or_else(no_step)?;
    let life = plan::lives(histories).into_iter().find(|life| life.version == id.version);
    let life = life.ok_or(RepairError::NotApplied(id.version))?;
    if life.reverting {
        return Err(RepairError::Reverting(id.version));
    }
    let attempt = attempt_max(histories, id.version) + 1;
    let step = Attempt { step: plan::with_commit(step, known.servers), attempt };
    let mut actions = vec![Action::Run(step)];
    // What is open stays open: the rest of it is for `up`.
    let others_are_there =
        migration.steps.iter().filter(|other| other.name != id.name).all(|other| {
            let id = StepId { version: id.version, name: other.name.clone() };
            let state = histories.of(other.store()).step(&id);
            state.is_some_and(|state| state.status() == Status::Applied)
        });
    if others_are_there {
        actions.push(Action::Seal);
    }
    plan::check_functions(known, &migration.folder, &actions)?;
    let work = work(known, migration, life.rank, actions);
    Ok(Plan { work: vec![work], ..Plan::default() })
}

fn store_of(name: &StepName) -> StoreName {
    match name {
        StepName::Script { store, .. } => *store,
        StepName::Named { .. } | StepName::Baseline | StepName::Accepted => StoreName::Postgres,
    }
}

/// Everything that this store lacks, in the order in which it was applied; and
/// everything that it still has and the other has reverted.
fn replay(known: &Known<'_>, store: StoreName) -> Result<Plan, RepairError> {
    let Known { histories, .. } = *known;
    let mut plan = Plan::default();
    for life in plan::lives(histories).iter().rev() {
        let version = life.version;
        let reverted_there = forward(histories, version, store.other()).any(|state| {
            state.events.contains(&Event::Reverting) && state.status() == Status::Pending
        });
        let live_there = forward(histories, version, store.other())
            .any(|state| state.status() != Status::Pending);
        if reverted_there && !live_there {
            let (work, again) = plan::revert(known, version)?;
            plan.work.push(work);
            plan.then_plan_again |= again;
        }
    }
    if plan.then_plan_again || !plan.work.is_empty() {
        // What is left to run is found by the next repair, from what is there then; but
        // who cannot run it then does not begin now.
        return match replay_lacking(known, store) {
            Err(error @ RepairError::Plan(PlanError::NoFunction { .. })) => Err(error),
            Err(_) | Ok(_) => Ok(plan),
        };
    }
    replay_lacking(known, store)
}

/// Everything that this store lacks.
fn replay_lacking(known: &Known<'_>, store: StoreName) -> Result<Plan, RepairError> {
    let Known { histories, set, .. } = *known;
    let mut plan = Plan::default();
    if let Some((_, version)) =
        plan::ever_applied(histories).iter().find(|(_, version)| set.get(*version).is_none())
    {
        return Err(RepairError::NoFile(*version));
    }
    for lacking in plan::lacking(known) {
        let migration = lacking.migration;
        let version = migration.version;
        if let Some(error) = plan::edited(set, histories, migration) {
            return Err(error.into());
        }
        let attempt = attempt_max(histories, version).max(1);
        let mut actions = Vec::new();
        for step in lacking.steps.iter().filter(|step| step.store() == store) {
            let id = StepId { version, name: step.name.clone() };
            let state = histories.of(store).step(&id);
            let step = plan::with_commit(step, known.servers);
            match state.map(|state| (state.status(), state.attempt)) {
                None => actions.push(Action::Run(Attempt { step, attempt })),
                Some((Status::Pending, own)) => {
                    actions.push(Action::Run(Attempt { step, attempt: attempt.max(own + 1) }));
                }
                Some((Status::InDoubt, own)) => {
                    actions.push(Action::Settle(Attempt { step, attempt: own }));
                }
                Some((Status::Applied | Status::Reverting, _)) => {}
            }
        }
        plan::check_functions(known, &migration.folder, &actions)?;
        // What is open stays open: the rest of it is for `up`.
        let rest = lacking.steps.iter().all(|step| step.store() == store);
        let seal = plan::seal(histories, migration, lacking.rank);
        let is_sealed = seal.is_some() && histories.of(store).row(version) == seal.as_ref();
        if lacking.closed && rest && !(actions.is_empty() && is_sealed) {
            actions.push(Action::Seal);
        }
        if !actions.is_empty() {
            let work = work(known, migration, lacking.rank, actions);
            let row = seal.or_else(|| {
                let row = work.row.clone()?;
                Some(Row { status: RowStatus::Running, finished_at: None, ..row })
            });
            plan.work.push(Work { row, ..work });
        }
    }
    Ok(plan)
}

/// Records of everything that the stores lack: it is there, and what said so was
/// deleted or cannot be read. Nothing is run.
fn mark_all(
    known: &Known<'_>,
    only: Option<StoreName>,
) -> Result<Vec<(StoreName, Entry)>, RepairError> {
    let Known { histories, servers, .. } = *known;
    let is_meant = |store: StoreName| only.is_none_or(|only| only == store);
    let mut entries = Vec::new();
    for lacking in plan::lacking(known) {
        let migration = lacking.migration;
        let version = migration.version;
        let newest = attempt_max(histories, version).max(1);
        for step in lacking.steps.iter().filter(|step| is_meant(step.store())) {
            let id = StepId { version, name: step.name.clone() };
            let state = histories.of(step.store()).step(&id);
            let attempt = match state.map(|state| (state.status(), state.attempt)) {
                Some((Status::Pending, own)) => newest.max(own + 1),
                Some((_, own)) => own,
                None => newest,
            };
            let record = Record {
                step: id,
                attempt,
                event: Event::Applied,
                rank: lacking.rank,
                checksum: step.checksum,
                migration_checksum: migration.checksum,
            };
            entries.push((step.store(), Entry::Record(record)));
        }
        let Some(seal) = plan::seal(histories, migration, lacking.rank) else { continue };
        for store in servers.stores().into_iter().filter(|store| is_meant(*store)) {
            if histories.of(store).row(version) != Some(&seal) {
                let row = Entry::Row(Box::new(seal.clone()), migration.rollback.clone());
                entries.push((store, row));
            }
        }
    }
    let is_readable = |store: &StoreName| histories.of(*store).unreadable().is_empty();
    match entries.is_empty() && StoreName::BOTH.iter().all(is_readable) {
        true => Err(RepairError::NothingLacks),
        false => Ok(entries),
    }
}

/// What is said of a migration is taken back: nothing of it is there.
fn forget(
    known: &Known<'_>,
    version: Version,
    only: Option<StoreName>,
) -> Result<Vec<(StoreName, Entry)>, RepairError> {
    let Known { histories, servers, .. } = *known;
    let mut entries = Vec::new();
    for store in servers.stores() {
        if only.is_some_and(|only| only != store) {
            continue;
        }
        let live = histories.of(store).steps_of(version);
        let live = live.filter(|(_, state)| state.status() != Status::Pending);
        for (name, state) in live {
            let record = state.record(StepId { version, name: name.clone() }, Event::Reverted);
            entries.push((store, Entry::Record(record)));
        }
        if histories.of(store).row(version).is_some() {
            entries.push((store, Entry::RowGone(version)));
        }
    }
    match entries.is_empty() {
        true => Err(RepairError::NotApplied(version)),
        false => Ok(entries),
    }
}

fn forward(
    histories: &Histories,
    version: Version,
    store: StoreName,
) -> impl Iterator<Item = &StepState> {
    histories
        .of(store)
        .steps_of(version)
        .filter(|(name, _)| name.direction() == Direction::Up && **name != StepName::Accepted)
        .map(|(_, state)| state)
}

fn attempt_max(histories: &Histories, version: Version) -> u32 {
    histories.steps_of(version).map(|(_, _, state)| state.attempt).max().unwrap_or(0)
}

fn rank_of(histories: &Histories, version: Version) -> u32 {
    let steps = histories.steps_of(version).map(|(_, _, state)| state.rank);
    let row = histories.row(version).map(|row| row.rank);
    steps.chain(row).max().unwrap_or_else(|| histories.rank_max() + 1)
}

fn work(known: &Known<'_>, migration: &Migration, rank: u32, actions: Vec<Action>) -> Work {
    let row = known.histories.row(migration.version).cloned();
    Work {
        version: migration.version,
        folder: migration.folder.clone(),
        description: migration.description.clone(),
        direction: Direction::Up,
        checksum: migration.checksum,
        rank,
        rollback: migration.rollback.clone(),
        row,
        actions,
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Remedy::Run(plan) => plan.fmt(f),
            Remedy::Write(entries) => {
                for (at, (store, entry)) in entries.iter().enumerate() {
                    let line = if at == 0 { "" } else { "\n" };
                    match entry {
                        Entry::Record(record) => {
                            let Record { step, attempt, event, .. } = record;
                            write!(f, "{line}{store}: record {step} {event} #{attempt}")?;
                        }
                        Entry::Row(row, _) => {
                            write!(f, "{line}{store}: row {} {}", row.version, row.status)?;
                        }
                        Entry::RowGone(version) => write!(f, "{line}{store}: no row {version}")?,
                    }
                }
                Ok(())
            }
        }
    }
}
