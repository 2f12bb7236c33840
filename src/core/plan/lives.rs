//! Which migrations are there, and how far has each come?
//!
//! A migration lives as long as a step of it is live in some store; what is applied
//! after a revert is another life. Whether a life is over with is what the rows
//! say. They are derived, so a row counts only as far as the records agree.

use crate::core::history::{Histories, Row, RowStatus, Status, StepState};
use crate::core::id::{Direction, StepId, StepName, StoreName, Version};
use crate::core::migration::Migration;
use crate::core::step::Step;
use std::collections::BTreeSet;

/// A migration that has a live step in some store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Life {
    /// The migration.
    pub version: Version,
    /// Its position in the order of application.
    pub rank: u32,
    /// It was recorded, not run.
    pub baseline: bool,
    /// A `down` of it was begun and not finished.
    pub reverting: bool,
}

/// The migrations that have a live step, in the order of application.
pub fn lives(histories: &Histories) -> Vec<Life> {
    let mut lives: Vec<Life> = Vec::new();
    for version in histories.versions() {
        let mut live =
            forward(histories, version).filter(|(_, _, state)| is_live(state)).peekable();
        if live.peek().is_none() {
            continue;
        }
        let mut life = Life { version, rank: 0, baseline: false, reverting: false };
        for (_, name, state) in live {
            life.rank = life.rank.max(state.rank);
            life.baseline |= *name == StepName::Baseline;
            life.reverting |= state.status() == Status::Reverting;
        }
        lives.push(life);
    }
    lives.sort_by_key(|life| (life.rank, life.version));
    lives
}

/// The states of the steps that go up, in both stores.
pub(super) fn forward(
    histories: &Histories,
    version: Version,
) -> impl Iterator<Item = (StoreName, &StepName, &StepState)> {
    histories
        .steps_of(version)
        .filter(|(_, name, _)| name.direction() == Direction::Up && **name != StepName::Accepted)
}

pub(super) fn is_live(state: &StepState) -> bool {
    state.status() != Status::Pending
}

/// The highest attempt of any step of the migration.
pub(super) fn attempt_max(histories: &Histories, version: Version) -> u32 {
    histories.steps_of(version).map(|(_, _, state)| state.attempt).max().unwrap_or(0)
}

/// Whether the migration's row says, in either store, that all of it is done.
/// The row of a life that was reverted since says nothing.
pub(super) fn is_sealed(histories: &Histories, version: Version) -> bool {
    let Some(row) = histories.row(version) else { return false };
    let rank = forward(histories, version).map(|(_, _, state)| state.rank).max().unwrap_or(0);
    let is_live = forward(histories, version).any(|(_, _, state)| is_live(state));
    let is_of_this_life = if is_live { row.rank >= rank } else { row.rank > rank };
    is_of_this_life && row.status != RowStatus::Running
}

/// The same, with its cleanup.
pub(super) fn is_completed(histories: &Histories, version: Version) -> bool {
    is_sealed(histories, version)
        && histories.row(version).is_some_and(|row| row.status != RowStatus::Held)
}

/// No run writes `completed` without the time: that is what somebody sets who wants
/// to be rid of a migration that failed.
pub(super) fn is_finished(row: &Row) -> bool {
    match row.status {
        RowStatus::Running => false,
        RowStatus::Completed => row.finished_at.is_some(),
        RowStatus::Held | RowStatus::Baseline => true,
    }
}

/// The seal of this life, as it should be in both stores. It is derived: what the
/// records do not say is taken from the row that agrees with them best.
pub(in crate::core) fn seal(
    histories: &Histories,
    migration: &Migration,
    rank: u32,
) -> Option<Row> {
    let version = migration.version;
    let is_baseline = |store: StoreName| {
        let id = StepId { version, name: StepName::Baseline };
        histories.of(store).step(&id).is_some_and(is_live)
    };
    let is_baseline = StoreName::BOTH.into_iter().any(is_baseline);
    let rows = StoreName::BOTH.into_iter().filter_map(|store| histories.of(store).row(version));
    let rows =
        rows.filter(|row| is_finished(row) && row.status != RowStatus::Held && row.rank >= rank);
    let agrees = |row: &&Row| (row.rank == rank, row.checksum == migration.checksum);
    let best = rows.rev().max_by_key(agrees)?;
    let checksum = if is_baseline { best.checksum } else { migration.checksum };
    Some(Row { rank, checksum, ..best.clone() })
}

/// Every migration that some store says was done, in the order of application: by
/// a live step, or by a row whose steps are lost.
pub(in crate::core) fn ever_applied(histories: &Histories) -> Vec<(u32, Version)> {
    let mut applied: Vec<(u32, Version)> =
        lives(histories).into_iter().map(|life| (life.rank, life.version)).collect();
    for store in StoreName::BOTH {
        let rows = histories.of(store).rows().filter(|row| is_sealed(histories, row.version));
        applied.extend(rows.map(|row| (row.rank, row.version)));
    }
    applied.sort_unstable();
    let mut seen = BTreeSet::new();
    applied.retain(|(_, version)| seen.insert(*version));
    applied
}

pub(super) fn step_id(version: Version, step: &Step) -> StepId {
    StepId { version, name: step.name.clone() }
}
