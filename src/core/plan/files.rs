//! Do the files still say what was applied?
//!
//! An edited file is refused, and so are a missing one and one that comes late,
//! unless somebody has said that it is meant: by accepting the edit, which is
//! recorded, or by allowing the order.

use crate::core::checksum::Checksum;
use crate::core::history::{Histories, Status};
use crate::core::id::{StepId, StepName, StoreName, Version};
use crate::core::migration::{Migration, MigrationSet};
use crate::core::parse::folder::of_nothing;
use crate::core::plan::lives::{
    Life, forward, is_completed, is_finished, is_live, is_sealed, step_id,
};
use crate::core::plan::refusal::PlanError;
use crate::core::plan::{Known, OutOfOrder};
use crate::core::status::without_number;
use crate::core::step::Step;
use std::collections::BTreeSet;

/// A part for a store that is not configured. This comes before everything that
/// looks into the histories: that of such a store was not read, and every step in
/// it would seem to be lost.
pub(super) fn check_stores(known: &Known<'_>) -> Result<(), PlanError> {
    for migration in known.set {
        let mut stores = migration.steps.iter().map(Step::store);
        if let Some(store) = stores.find(|store| !known.servers.has(*store)) {
            return Err(PlanError::NoStore { folder: migration.folder.clone(), store });
        }
    }
    Ok(())
}

/// `edited`: what is applied is no longer what the files say. Nothing of a baseline was
/// run from its files, so an edit of those changes nothing that is still to come;
/// `verify` and `status` tell it.
pub(super) fn check_files(known: &Known<'_>, lives: &[Life]) -> Result<(), PlanError> {
    for life in lives.iter().filter(|life| !life.baseline && !life.reverting) {
        if let Some(migration) = known.set.get(life.version)
            && let Some(error) = edited(known.set, known.histories, migration)
        {
            return Err(error);
        }
    }
    Ok(())
}

/// How a migration's file differs from what was applied of it, if it does.
pub fn edited(
    set: &MigrationSet,
    histories: &Histories,
    migration: &Migration,
) -> Option<PlanError> {
    let error = differs(histories, migration)?;
    match error {
        PlanError::Edited { .. } | PlanError::Filled { .. } => {
            Some(taken(set, histories, migration).unwrap_or(error))
        }
        error => Some(error),
    }
}

/// Another migration has got the number of one that is applied: its folder is called
/// otherwise, and none of its steps is one of those that were applied.
fn taken(set: &MigrationSet, histories: &Histories, migration: &Migration) -> Option<PlanError> {
    let version = migration.version;
    let applied = without_number(&histories.row(version)?.migration_name);
    if applied.is_empty() || applied == migration.name {
        return None;
    }
    let mut live = forward(histories, version).filter(|(.., state)| is_live(state));
    // Nothing of a baseline was run from its files, so none of its steps is known.
    let is_of_it = live.any(|(store, name, state)| {
        let step = migration.steps.iter().find(|step| step.name == *name);
        let is_same = step.is_some_and(|step| step.checksum == state.checksum);
        *name == StepName::Baseline || is_same && state.checksum != of_nothing(store)
    });
    if is_of_it {
        return None;
    }
    let newest = set.newest().into_iter().chain(histories.versions()).max().unwrap_or(version);
    Some(PlanError::Taken {
        folder: migration.folder.clone(),
        version,
        applied: applied.to_owned(),
        next: Version(newest.0 + 1),
    })
}

/// A migration without a statement, which would be recorded as done: nothing of what is
/// written into its files later would be run.
pub(super) fn check_something(migration: &Migration) -> Result<(), PlanError> {
    check_ready(migration)?;
    match migration.steps.iter().all(Step::is_nothing) {
        true => {
            let folder = migration.folder.clone();
            Err(PlanError::Nothing { folder, version: migration.version })
        }
        false => Ok(()),
    }
}

/// A template whose values are not known here, and one that a person has to complete:
/// half of it would be run.
pub(super) fn check_ready(migration: &Migration) -> Result<(), PlanError> {
    match migration.unready.is_empty() {
        true => Ok(()),
        false => Err(PlanError::Unready {
            folder: migration.folder.clone(),
            version: migration.version,
            problems: migration.unready.clone(),
            is_unfilled: migration.is_unfilled(),
        }),
    }
}

fn differs(histories: &Histories, migration: &Migration) -> Option<PlanError> {
    let version = migration.version;
    if accepted(histories, version) == Some(migration.checksum) {
        return None;
    }
    // Of one that is open only its steps could tell.
    if migration.is_unfilled() && !is_completed(histories, version) {
        return None;
    }
    if let Some(step) = other_values(histories, migration) {
        let folder = migration.folder.clone();
        // What is done is done, with the values of then.
        let is_open = !is_completed(histories, version);
        return is_open.then_some(PlanError::Variables { folder, version, step });
    }
    let error = |step: Option<StepName>, recorded, file| PlanError::Edited {
        folder: migration.folder.clone(),
        version,
        step,
        recorded,
        file,
    };
    if let Some(recorded) = baseline_checksum(histories, version) {
        return (recorded != migration.checksum)
            .then(|| error(None, recorded, Some(migration.checksum)));
    }
    for (store, name, state) in forward(histories, version).filter(|(.., state)| is_live(state)) {
        let step = migration.steps.iter().find(|step| step.name == *name);
        let (recorded, file) = (state.checksum, step.map(|step| step.checksum));
        if file == Some(recorded) {
            continue;
        }
        // The whole folder is what it was when this was recorded.
        if let Some(file) = file
            && state.status() != Status::InDoubt
            && state.migration_checksum == migration.checksum
        {
            return Some(PlanError::Forged {
                step: StepId { version, name: name.clone() },
                store,
                field: "checksum",
                recorded,
                file,
            });
        }
        return Some(match state.status() {
            Status::InDoubt => {
                let folder = migration.folder.clone();
                let step = StepId { version, name: name.clone() };
                PlanError::EditedInDoubt { folder, step, store, recorded, file }
            }
            _ if file.is_some() && recorded == of_nothing(store) => {
                PlanError::Filled { folder: migration.folder.clone(), version, step: name.clone() }
            }
            _ => error(Some(name.clone()), recorded, file),
        });
    }
    // While it is open, what follows the applied steps may be mended.
    let recorded = recorded_checksum(histories, migration)?;
    if !is_completed(histories, version) || recorded == migration.checksum {
        return None;
    }
    // Each seal was written from the files. If they are still the same, it is the
    // record that is not. If there is none but what somebody set by hand, the files
    // were free to be mended.
    let rows = StoreName::BOTH.into_iter().filter_map(|store| histories.of(store).row(version));
    if !rows.clone().any(is_finished) {
        return None;
    }
    let last = migration.steps.iter().rev().find_map(|step| {
        let state = histories.of(step.store()).step(&step_id(version, step))?;
        is_live(state).then_some(step)
    });
    match last {
        Some(last)
            if accepted(histories, version).is_none()
                && rows.clone().count() > 0
                && rows.clone().all(|row| row.checksum == migration.checksum) =>
        {
            Some(PlanError::Forged {
                step: step_id(version, last),
                store: last.store(),
                field: "migration_checksum",
                recorded,
                file: migration.checksum,
            })
        }
        _ => Some(error(None, recorded, Some(migration.checksum))),
    }
}

/// The checksum of the folder that was accepted as what had been applied, in this
/// life: with what was reverted goes what was said about it.
pub(super) fn accepted(histories: &Histories, version: Version) -> Option<Checksum> {
    let live = forward(histories, version).filter(|(.., state)| is_live(state));
    let rank = live.map(|(.., state)| state.rank).max()?;
    let id = StepId { version, name: StepName::Accepted };
    StoreName::BOTH
        .into_iter()
        .filter_map(|store| histories.of(store).step(&id))
        .filter(|state| is_live(state) && state.rank >= rank)
        .max_by_key(|state| state.attempt)
        .map(|state| state.migration_checksum)
}

/// How often an edit of the migration was accepted.
pub(super) fn accepted_attempt(histories: &Histories, version: Version) -> u32 {
    let id = StepId { version, name: StepName::Accepted };
    let states = StoreName::BOTH.into_iter().filter_map(|store| histories.of(store).step(&id));
    states.map(|state| state.attempt).max().unwrap_or(0)
}

/// The checksum of the folder with which the migration was finished: that of
/// its last step, because the steps before it may be older than a mended file.
pub(super) fn recorded_checksum(histories: &Histories, migration: &Migration) -> Option<Checksum> {
    if let Some(checksum) = accepted(histories, migration.version) {
        return Some(checksum);
    }
    let version = migration.version;
    migration.steps.iter().rev().find_map(|step| {
        let id = StepId { version, name: step.name.clone() };
        histories
            .of(step.store())
            .step(&id)
            .filter(|state| is_live(state))
            .map(|state| state.migration_checksum)
    })
}

/// The checksum of the folder with which the migration was recorded, and not run.
fn baseline_checksum(histories: &Histories, version: Version) -> Option<Checksum> {
    let id = StepId { version, name: StepName::Baseline };
    let states = StoreName::BOTH.into_iter().filter_map(|store| histories.of(store).step(&id));
    states.into_iter().find(|state| is_live(state)).map(|state| state.migration_checksum)
}

/// A step of a template that was applied with other values than those of now: the
/// template is the same, and the step is not.
fn other_values(histories: &Histories, migration: &Migration) -> Option<StepName> {
    if !migration.is_template {
        return None;
    }
    let mut live = forward(histories, migration.version).filter(|(.., state)| is_live(state));
    let differs = live.find(|(_, name, state)| {
        let step = migration.steps.iter().find(|step| step.name == **name);
        state.migration_checksum == migration.checksum
            && step.map(|step| step.checksum) != Some(state.checksum)
    });
    differs.map(|(_, name, _)| name.clone())
}

/// Whether everything the migration asks for has been applied, or recorded as
/// if it had.
pub(super) fn is_done(histories: &Histories, migration: &Migration) -> bool {
    // As other values made them, its steps are all there; what they would be now
    // says nothing about that.
    if is_completed(histories, migration.version) && other_values(histories, migration).is_some() {
        return true;
    }
    if accepted(histories, migration.version) == Some(migration.checksum)
        && is_completed(histories, migration.version)
    {
        return true;
    }
    baseline_checksum(histories, migration.version).is_some()
}

/// `missing` and `out of order`.
pub(super) fn check_order(
    known: &Known<'_>,
    lives: &[Life],
    out_of_order: OutOfOrder,
) -> Result<(), PlanError> {
    let Known { set, .. } = *known;
    if out_of_order == OutOfOrder::Allow {
        return Ok(());
    }
    let missing: Vec<Version> = lives
        .iter()
        .map(|life| life.version)
        .filter(|version| set.get(*version).is_none() && !is_ahead(set, *version))
        .collect();
    if !missing.is_empty() {
        return Err(PlanError::Missing(missing));
    }
    // What is on its way back is as good as gone: it is reverted before anything
    // is applied.
    let there = lives.iter().filter(|life| !life.reverting);
    let Some(newest) = there.map(|life| life.version).max() else { return Ok(()) };
    let live: BTreeSet<Version> = lives.iter().map(|life| life.version).collect();
    let late: Vec<Version> = set
        .iter()
        .map(|migration| migration.version)
        .filter(|version| *version < newest && !live.contains(version))
        .filter(|version| !is_sealed(known.histories, *version))
        .collect();
    match late.is_empty() {
        true => Ok(()),
        false => Err(PlanError::OutOfOrder { versions: late, newest }),
    }
}

pub(super) fn is_ahead(set: &MigrationSet, version: Version) -> bool {
    set.get(version).is_none() && set.newest().is_none_or(|newest| version > newest)
}
