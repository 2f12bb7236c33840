//! Where every migration stands, in both stores: what `migrate status` shows.

use crate::core::history::{Histories, RowStatus, Status, Timestamp};
use crate::core::id::{Direction, Phase, StepId, StepName, StoreName, Version};
use crate::core::migration::{Migration, MigrationSet};
use crate::core::plan::{self, Life};
use crate::core::step::Step;
use std::collections::{BTreeMap, BTreeSet};

/// The state of a migration, or of its part in one store.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum State {
    /// Never applied, or reverted.
    Pending,
    /// Begun and not finished; `up` goes on with it.
    Partial,
    /// Everything but its cleanup is done.
    Held,
    /// Done.
    Completed,
    /// It was there before Lockstep was.
    Baseline,
    /// Applied, without a file, and not newer than all files.
    Missing,
    /// Applied, without a file, and newer than all files.
    Ahead,
}

impl State {
    /// The word in `status --output json`.
    pub fn word(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Partial => "partial",
            State::Held => "held",
            State::Completed => "completed",
            State::Baseline => "baseline",
            State::Missing => "missing",
            State::Ahead => "ahead",
        }
    }

    /// Whether `up` has something to do about it.
    pub fn is_pending(self) -> bool {
        matches!(self, State::Pending | State::Partial)
    }
}

/// Whether the file is what was applied.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FileState {
    /// It is.
    Same,
    /// It was edited since.
    Edited,
    /// Nothing to compare: not applied, or no file.
    None,
}

impl FileState {
    /// The word in `status --output json`.
    pub fn word(self) -> &'static str {
        match self {
            FileState::Same => "ok",
            FileState::Edited => "edited",
            FileState::None => "none",
        }
    }
}

/// One migration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Line {
    /// Its number.
    pub version: Version,
    /// Without the number: `add-user-preferences`.
    pub name: String,
    /// Of the whole.
    pub state: State,
    /// It was begun and is not finished, whether there is a file of it or not.
    pub is_open: bool,
    /// Of its part in Postgres.
    pub postgres: State,
    /// Of its part in MongoDB.
    pub mongo: State,
    /// Whether the file is what was applied.
    pub file: FileState,
    /// Of a migration with phases that is not done: the one that comes next.
    pub phase: Option<Phase>,
    /// When it was begun.
    pub executed_at: Option<Timestamp>,
    /// How long its steps took.
    pub execution_time_ms: Option<u64>,
    /// The release that applied it.
    pub release: Option<String>,
    /// Of one that is not done: why `up` would refuse it as it is.
    pub unready: Option<String>,
}

impl Line {
    fn part_mut(&mut self, store: StoreName) -> &mut State {
        match store {
            StoreName::Postgres => &mut self.postgres,
            StoreName::Mongo => &mut self.mongo,
        }
    }
}

/// Every migration that has a file or a history, by version. `stores` are those that
/// the project has: what one of them has no record of is pending there, whatever the
/// other says.
pub fn lines(set: &MigrationSet, histories: &Histories, stores: &[StoreName]) -> Vec<Line> {
    let lives: BTreeMap<Version, Life> =
        plan::lives(histories).into_iter().map(|life| (life.version, life)).collect();
    let files = set.iter().map(|migration| migration.version);
    let versions: BTreeSet<Version> = files.chain(lives.keys().copied()).collect();
    let line = |version| {
        let mut line = line(set, histories, version, lives.get(&version));
        for store in stores {
            let history = histories.of(*store);
            if history.row(version).is_none() && history.steps_of(version).next().is_none() {
                *line.part_mut(*store) = State::Pending;
            }
        }
        line
    };
    versions.into_iter().map(line).collect()
}

fn line(set: &MigrationSet, histories: &Histories, version: Version, life: Option<&Life>) -> Line {
    let migration = set.get(version);
    let row = histories.row(version).filter(|_| life.is_some());
    let applied = match life {
        None => State::Pending,
        Some(life) if life.baseline && !plan::is_open(histories, version) => State::Baseline,
        // One store may still have the seal.
        Some(life) if life.reverting => State::Partial,
        Some(_) => match row.map(|row| row.status) {
            Some(RowStatus::Held) => State::Held,
            Some(RowStatus::Completed | RowStatus::Baseline) => State::Completed,
            // Rows are written behind: the steps know first.
            Some(RowStatus::Running) | None => match migration {
                Some(migration)
                    if !migration.is_unfilled() && all_applied(histories, migration) =>
                {
                    State::Completed
                }
                _ => State::Partial,
            },
        },
    };
    let newest = set.newest();
    let state = match (migration, applied) {
        (None, _) if newest.is_none_or(|newest| version > newest) => State::Ahead,
        (None, _) => State::Missing,
        (Some(_), state) => state,
    };
    let reverting = life.is_some_and(|life| life.reverting);
    let file = match (migration, applied) {
        (Some(migration), State::Partial | State::Held | State::Completed | State::Baseline)
            if !reverting =>
        {
            match plan::edited(set, histories, migration) {
                None => FileState::Same,
                Some(_) => FileState::Edited,
            }
        }
        _ => FileState::None,
    };
    let accepted = histories.steps_of(version).any(|(_, name, _)| *name == StepName::Accepted);
    let unready = migration.filter(|it| !it.unready.is_empty());
    let unready =
        unready.filter(|_| matches!(applied, State::Pending | State::Partial | State::Held));
    let part = |store| match (applied, file) {
        (State::Partial, _) if migration.is_some_and(Migration::is_unfilled) => {
            unfilled_part(histories, version, store)
        }
        (State::Partial, _) => part(histories, migration, version, store, applied),
        // What a restored store lacks shows. Of a file that is another one now, it
        // would lack only what is new.
        (State::Completed, FileState::Same) if !accepted => {
            part(histories, migration, version, store, applied)
        }
        (whole, _) => whole,
    };
    let folder = row.map(|row| row.migration_name.as_str());
    let name = match migration {
        Some(migration) => migration.name.clone(),
        None => without_number(folder.unwrap_or_default()).to_owned(),
    };
    let phase = migration.filter(|_| matches!(applied, State::Partial | State::Held));
    let phase = phase.filter(|_| !reverting).and_then(|it| next_phase(histories, it));
    Line {
        version,
        name,
        state,
        is_open: applied == State::Partial,
        phase,
        postgres: part(StoreName::Postgres),
        mongo: part(StoreName::Mongo),
        file,
        executed_at: row.map(|row| row.executed_at),
        execution_time_ms: row.map(|row| row.execution_time_ms),
        release: row.and_then(|row| row.release.clone()),
        unready: unready.map(|it| format!("`up` refuses it: {}", plan::told(&it.unready))),
    }
}

/// The state of an open migration's part in one store, of which nobody knows what
/// belongs to it.
fn unfilled_part(histories: &Histories, version: Version, store: StoreName) -> State {
    let mut states = histories.of(store).steps_of(version);
    match states.any(|(_, state)| state.status() != Status::Pending) {
        true => State::Partial,
        false => State::Pending,
    }
}

/// The phase of the first step that is not done, if it has phases.
fn next_phase(histories: &Histories, migration: &Migration) -> Option<Phase> {
    let is_open = |step: &&Step| {
        let id = StepId { version: migration.version, name: step.name.clone() };
        let state = histories.of(step.store()).step(&id);
        state.is_none_or(|state| state.status() != Status::Applied)
    };
    let next = migration.steps.iter().find(is_open).map(Step::phase);
    next.filter(|phase| *phase != Phase::Up && plan::is_phased(migration))
}

fn all_applied(histories: &Histories, migration: &Migration) -> bool {
    migration.steps.iter().all(|step| {
        let id = StepId { version: migration.version, name: step.name.clone() };
        let state = histories.of(step.store()).step(&id);
        state.is_some_and(|state| state.status() == Status::Applied)
    })
}

/// The state of a migration's part in one store. A migration without a part
/// there is done there when it is done.
fn part(
    histories: &Histories,
    migration: Option<&Migration>,
    version: Version,
    store: StoreName,
    whole: State,
) -> State {
    let declared = migration
        .map_or(0, |migration| migration.steps.iter().filter(|step| step.store() == store).count());
    let states = histories.of(store).steps_of(version);
    let forward: Vec<Status> = states
        .filter(|(name, _)| name.direction() == Direction::Up && **name != StepName::Accepted)
        .map(|(_, state)| state.status())
        .filter(|status| *status != Status::Pending)
        .collect();
    let all_applied = forward.iter().all(|status| *status == Status::Applied);
    match (forward.len(), declared) {
        (0, 0) => whole,
        (0, _) => State::Pending,
        (live, declared) if all_applied && live >= declared => State::Completed,
        _ => State::Partial,
    }
}

/// `001-add-user-preferences` is `add-user-preferences`.
pub fn without_number(folder: &str) -> &str {
    folder.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start_matches(['-', '_'])
}
