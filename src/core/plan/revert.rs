//! How is one migration reverted, and can it be?
//!
//! By the down scripts that were stored when it was applied, else by those of its
//! folder. Each store is told before the first of them runs, so that one that was
//! reverted is never mistaken for one that was lost.

use crate::core::checksum::Checksum;
use crate::core::history::{Event, Histories, Status, StepState};
use crate::core::id::{Direction, Phase, StepId, StepName, StoreName, Version};
use crate::core::migration::Rollback;
use crate::core::parse::folder;
use crate::core::plan::apply::{has_functions, in_doubt, with_commit};
use crate::core::plan::lives::{Life, forward, is_live};
use crate::core::plan::refusal::PlanError;
use crate::core::plan::{Action, Attempt, Known, Work};
use crate::core::problem::Problem;
use crate::core::step::{Body, Step};

/// Refuses before anything is changed.
pub(super) fn check_reversible(known: &Known<'_>, life: &Life) -> Result<(), PlanError> {
    let version = life.version;
    if life.baseline {
        return Err(PlanError::Baseline(version));
    }
    let rollback = rollback_of(known, version)?;
    let folder = folder_of(known, version);
    if let Some(reason) = rollback.irreversible {
        return Err(PlanError::Irreversible { folder, reason });
    }
    let steps = down_steps(known, version, &rollback)?;
    for store in StoreName::BOTH {
        // The history of a store that is not configured was not read.
        let file = known.set.get(version).map_or(&[][..], |migration| &migration.steps);
        let has_part = steps.iter().chain(file).any(|step| step.store() == store);
        if has_part && !known.servers.has(store) {
            return Err(PlanError::NoStore { folder, store });
        }
        for phase in [Phase::Up, Phase::Prepare, Phase::Cleanup] {
            let is_script =
                |name: &StepName| matches!(name, StepName::Script { .. }) && name.phase() == phase;
            let live = forward(known.histories, version)
                .any(|(place, name, state)| place == store && is_script(name) && is_live(state));
            if live && !steps.iter().any(|step| step.store() == store && is_script(&step.name)) {
                let stem = match phase {
                    Phase::Up => "down".to_owned(),
                    phase => format!("{phase}.down"),
                };
                let file = match store {
                    StoreName::Postgres => format!("{stem}.sql"),
                    StoreName::Mongo => format!("{stem}.mongodb.js"),
                };
                let reason = format!("it has no {file}");
                return Err(PlanError::Irreversible { folder, reason });
            }
        }
    }
    // What a backfill has rewritten goes with the column that `prepare` added. Where
    // nothing was added, nothing takes it back.
    let live_in = |phase: Phase| {
        forward(known.histories, version)
            .any(|(_, name, state)| name.phase() == phase && is_live(state))
    };
    let reverted = |phase: Phase| steps.iter().any(|step| step.phase() == phase);
    if live_in(Phase::Execute) && !live_in(Phase::Prepare) && !reverted(Phase::Execute) {
        let reason = "what it did in its phase `execute` has no way back: it has no `[[backfill]]` or `[[run]]` with `direction = \"down\"`".to_owned();
        return Err(PlanError::Irreversible { folder, reason });
    }
    Ok(())
}

/// What reverts a migration, and whether to plan again after it.
pub(in crate::core) fn revert(
    known: &Known<'_>,
    version: Version,
) -> Result<(Work, bool), PlanError> {
    let Known { histories, set, servers, .. } = *known;
    let rollback = rollback_of(known, version)?;
    let checksum = forward(histories, version)
        .filter(|(_, _, state)| is_live(state))
        .map(|(_, _, state)| state.migration_checksum)
        .last();
    let row = histories.row(version);
    let mut work = Work {
        version,
        folder: folder_of(known, version),
        description: row.map(|row| row.description.clone()).unwrap_or_default(),
        direction: Direction::Down,
        checksum: checksum.unwrap_or_else(|| Checksum::of(b"")),
        rank: forward(histories, version).map(|(_, _, state)| state.rank).max().unwrap_or(0),
        rollback: rollback.clone(),
        row: row.cloned(),
        actions: Vec::new(),
    };

    // What is in doubt is cleared first: whether its store has anything to
    // revert depends on what is found there.
    for (_, name, state) in forward(histories, version) {
        let step = set.get(version).and_then(|migration| {
            migration
                .steps
                .iter()
                .find(|step| step.name == *name && step.checksum == state.checksum)
        });
        // A backfill that is not done, or a program, is reverted like one that is.
        let step = step.filter(|step| matches!(step.body, Body::Postgres(_) | Body::Mongo(_)));
        if let (Status::InDoubt, Some(step)) = (state.status(), step) {
            let id = StepId { version, name: step.name.clone() };
            let step = in_doubt(with_commit(step, servers)).ok_or(PlanError::Torn(id))?;
            work.actions.push(Action::Abandon(Attempt { step, attempt: state.attempt }));
        }
    }
    let down = down_steps(known, version, &rollback)?;
    let down = down.into_iter().filter(|step| is_called_for(histories, version, &rollback, step));
    let down: Vec<Step> = down.collect();
    // All of this life are above all of the life before, whatever way they go.
    let attempt = forward(histories, version).map(|(_, _, state)| state.attempt).max().unwrap_or(1);
    // An older life has been reverted before, by steps of these names.
    let state_of = |step: &Step| {
        let id = StepId { version, name: step.name.clone() };
        histories.of(step.store()).step(&id).filter(|state| state.attempt >= attempt)
    };
    // Who cannot go on does not begin: what is in doubt stays so.
    for step in &down {
        let status = state_of(step).map(StepState::status).unwrap_or_default();
        if !matches!(status, Status::Applied | Status::Reverting) {
            has_functions(known, &work.folder, step)?;
        }
    }
    if !work.actions.is_empty() {
        return Ok((work, true));
    }

    let order = rollback.stores();
    let live_in = |store: StoreName| -> Vec<(StepName, StepState)> {
        forward(histories, version)
            .filter(|(place, _, state)| *place == store && is_live(state))
            .map(|(_, name, state)| (name.clone(), state.clone()))
            .collect()
    };
    for store in order.into_iter().rev() {
        let unaware: Vec<_> = live_in(store)
            .into_iter()
            .filter(|(_, state)| !state.events.contains(&Event::Reverting))
            .collect();
        if !unaware.is_empty() {
            work.actions.push(Action::Intend(store, unaware));
        }
    }
    let mut open: Vec<StoreName> =
        order.into_iter().rev().filter(|store| !live_in(*store).is_empty()).collect();
    for (at, step) in down.iter().enumerate() {
        let store = step.store();
        let id = StepId { version, name: step.name.clone() };
        let state = state_of(step);
        let step = with_commit(step, servers);
        match state.map(|state| (state.status(), state.attempt)) {
            None => work.actions.push(Action::Run(Attempt { step, attempt })),
            Some((Status::Pending, own)) => {
                work.actions.push(Action::Run(Attempt { step, attempt: own + 1 }));
            }
            Some((Status::InDoubt, own)) => {
                let step = in_doubt(step).ok_or(PlanError::Torn(id))?;
                work.actions.push(Action::Settle(Attempt { step, attempt: own }));
            }
            Some((Status::Applied | Status::Reverting, _)) => {}
        }
        if open.contains(&store) && down[at + 1..].iter().all(|step| step.store() != store) {
            work.actions.push(Action::Close(store, live_in(store)));
            open.retain(|other| *other != store);
        }
    }
    for store in open {
        work.actions.push(Action::Close(store, live_in(store)));
    }
    work.actions.push(Action::Unseal);
    Ok((work, false))
}

/// Whether a step of the way down has something to revert: its phase was begun. A
/// store's script only where that store has a part of the phase.
fn is_called_for(
    histories: &Histories,
    version: Version,
    rollback: &Rollback,
    step: &Step,
) -> bool {
    let phase = step.phase();
    let live_in = |phase: Phase, store: Option<StoreName>| {
        forward(histories, version).any(|(place, name, state)| {
            let is_there =
                store.is_none_or(|store| store == place && matches!(name, StepName::Script { .. }));
            name.phase() == phase && is_there && is_live(state)
        })
    };
    match (&step.name, phase) {
        (StepName::Script { store, .. }, phase) => live_in(phase, Some(*store)),
        // It brings back, from the new shape, what the cleanup destroys.
        (_, Phase::Execute) if rollback.has_cleanup => live_in(Phase::Cleanup, None),
        (_, phase) => live_in(phase, None),
    }
}

/// The down scripts: those that the history keeps, else those of the file.
fn rollback_of(known: &Known<'_>, version: Version) -> Result<Rollback, PlanError> {
    if let Some(rollback) = known.rollbacks.get(&version) {
        return Ok(rollback.clone());
    }
    match known.set.get(version) {
        Some(migration) => Ok(migration.rollback.clone()),
        None => Err(PlanError::NoRollback(version)),
    }
}

fn folder_of(known: &Known<'_>, version: Version) -> String {
    let row = known.histories.row(version).map(|row| row.migration_name.clone());
    row.or_else(|| known.set.get(version).map(|migration| migration.folder.clone()))
        .unwrap_or_else(|| version.to_string())
}

fn down_steps(
    known: &Known<'_>,
    version: Version,
    rollback: &Rollback,
) -> Result<Vec<Step>, PlanError> {
    let steps = folder::down_steps(version, &folder_of(known, version), rollback);
    let mut steps = steps.map_err(|problems| PlanError::BadRollback {
        version,
        problem: Box::new(problems.into_iter().next().unwrap_or_else(|| Problem::whole("", ""))),
    })?;
    if !known.servers.has(StoreName::Postgres) {
        steps.iter_mut().for_each(Step::remember_in_mongo);
    }
    Ok(steps)
}
