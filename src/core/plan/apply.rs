//! What is left to do to apply one migration?
//!
//! Its steps in their order, without those that are done; before what cannot be
//! taken back, the invariants once more; at the end its row.

use crate::core::history::{Row, RowStatus, Status};
use crate::core::id::{Direction, Phase, StepId, StoreName};
use crate::core::migration::Migration;
use crate::core::parse::manifest::{Check, Sample};
use crate::core::plan::files::{accepted_attempt, check_ready, is_done, recorded_checksum};
use crate::core::plan::lives::{attempt_max, forward, is_live, seal};
use crate::core::plan::refusal::PlanError;
use crate::core::plan::{Action, Attempt, Known, Work};
use crate::core::server::Servers;
use crate::core::step::{Body, Commit, Guard, MongoKind, QualifiedName, Step};
use crate::core::touches::touches;

/// What is left to do to apply a migration.
pub(super) struct Applied {
    /// `None` when nothing is.
    pub(super) work: Option<Work>,
    /// What will be left of it then.
    pub(super) left: Left,
}

/// What is left of a migration when a plan is carried out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Left {
    /// It is completed.
    Nothing,
    /// It is held.
    Cleanup,
    /// It is open: it was told to go on only so far.
    More,
}

/// What is left to do to apply a migration, through its phase `last`. `reverted`
/// is the highest attempt of what is reverted before.
pub(super) fn apply(
    known: &Known<'_>,
    migration: &Migration,
    rank: u32,
    last: Phase,
    reverted: Option<u32>,
) -> Result<Applied, PlanError> {
    let Known { histories, servers, .. } = *known;
    let version = migration.version;
    let mut actions = Vec::new();
    let mut left = Left::Nothing;
    if !is_done(histories, migration) || reverted.is_some() {
        check_ready(migration)?;
        let is_alive = forward(histories, version).any(|(_, _, state)| is_live(state));
        let dead = reverted.is_some() || !is_alive;
        let newest = reverted.unwrap_or_else(|| attempt_max(histories, version));
        // A cleanup that was begun is finished, and one that is done leaves nothing
        // to hold.
        let is_cleaning = !dead
            && forward(histories, version)
                .any(|(_, name, state)| name.phase() == Phase::Cleanup && is_live(state));
        let last = if is_cleaning || !is_phased(migration) { Phase::Cleanup } else { last };
        let mut before: Option<Phase> = None;
        let mut is_guarded = false;
        // What is half cleaned up can no longer be asked.
        let mut is_checked = is_cleaning;
        for step in &migration.steps {
            check_step(step)?;
            let phase = step.phase();
            let id = StepId { version, name: step.name.clone() };
            let state = histories.of(step.store()).step(&id);
            let recorded = state.map(|state| (state.status(), state.attempt));
            let is_applied =
                !dead && matches!(recorded, Some((Status::Applied | Status::Reverting, _)));
            if is_applied {
                continue;
            }
            if phase > last {
                left = if last >= Phase::Validate { Left::Cleanup } else { Left::More };
                break;
            }
            let pause = migration.options.phase_pause;
            if before.is_some_and(|before| before != phase) && !pause.is_zero() {
                actions.push(Action::Pause(pause));
            }
            before = Some(phase);
            if phase == Phase::Cleanup && !std::mem::replace(&mut is_checked, true) {
                let checks: Vec<Step> = migration
                    .steps
                    .iter()
                    .filter(|step| matches!(step.body, Body::Check(_)))
                    .cloned()
                    .collect();
                if !checks.is_empty() {
                    actions.push(Action::Check(checks));
                }
            }
            let mut step = Attempt { step: with_commit(step, servers), attempt: 0 };
            if phase == Phase::Cleanup && !is_cleaning {
                guard(&mut step.step, migration, &mut is_guarded);
            }
            match recorded {
                _ if dead => actions.push(Action::Run(Attempt { attempt: newest + 1, ..step })),
                None => actions.push(Action::Run(Attempt { attempt: newest.max(1), ..step })),
                Some((Status::Pending, own)) => {
                    actions.push(Action::Run(Attempt { attempt: newest.max(own + 1), ..step }));
                }
                Some((Status::InDoubt, own)) => {
                    let store = step.step.store();
                    let recorded = state.map_or(step.step.checksum, |state| state.checksum);
                    let file = Some(step.step.checksum);
                    // Only its old text could tell what is left of it.
                    if file != Some(recorded) {
                        let folder = migration.folder.clone();
                        let step = id;
                        return Err(PlanError::EditedInDoubt {
                            folder,
                            step,
                            store,
                            recorded,
                            file,
                        });
                    }
                    let step = in_doubt(step.step).ok_or(PlanError::Torn(id))?;
                    actions.push(Action::Settle(Attempt { step, attempt: own }));
                }
                Some((Status::Applied | Status::Reverting, _)) => {}
            }
        }
        if !actions.is_empty() {
            check_requires(migration, servers)?;
            check_functions(known, &migration.folder, &actions)?;
        }
        if actions.is_empty()
            && left == Left::Nothing
            && recorded_checksum(histories, migration) != Some(migration.checksum)
        {
            actions.push(Action::Accept(accepted_attempt(histories, version) + 1));
        }
    }
    let seal = seal(histories, migration, rank).filter(|_| left == Left::Nothing);
    let sealed = |store| {
        let row = histories.of(store).row(version);
        if left == Left::Nothing {
            return seal.is_some() && row == seal.as_ref();
        }
        row.is_some_and(|row| {
            row.rank >= rank
                && match left {
                    Left::Cleanup => row.status == RowStatus::Held,
                    Left::Nothing | Left::More => true,
                }
        })
    };
    if actions.is_empty() && (left == Left::More || servers.stores().into_iter().all(sealed)) {
        return Ok(Applied { work: None, left });
    }
    match left {
        Left::Nothing => actions.push(Action::Seal),
        Left::Cleanup => actions.push(Action::Hold),
        Left::More => {}
    }
    let work = Work {
        version,
        folder: migration.folder.clone(),
        description: migration.description.clone(),
        direction: Direction::Up,
        checksum: migration.checksum,
        rank,
        rollback: migration.rollback.clone(),
        // That of an older life is not where this one begins.
        row: seal.or_else(|| {
            let row = histories.row(version).filter(|row| row.rank == rank)?;
            Some(match row.status {
                RowStatus::Completed => {
                    Row { status: RowStatus::Running, finished_at: None, ..row.clone() }
                }
                _ => row.clone(),
            })
        }),
        actions,
    };
    Ok(Applied { work: Some(work), left })
}

/// Lets the first transaction of a cleanup ask the invariants that want it, behind
/// locks on the tables that it touches.
fn guard(step: &mut Step, migration: &Migration, is_guarded: &mut bool) {
    let is_first = step.commit == Commit::Atomic
        && matches!(step.body, Body::Postgres(_))
        && !std::mem::replace(is_guarded, true);
    if !is_first {
        return;
    }
    let guards = migration.steps.iter().filter_map(|step| match &step.body {
        Body::Check(invariant) if invariant.locked => {
            let Check::Postgres { query, expect } = &invariant.check else { return None };
            let sample = match &invariant.sample {
                Some(Sample::Postgres(query)) => Some(query.clone()),
                Some(Sample::Mongo(_)) | None => None,
            };
            let name = invariant.name.text.clone();
            Some(Guard { name, query: query.clone(), expect: expect.clone(), sample })
        }
        _ => None,
    });
    let guards: Vec<Guard> = guards.collect();
    if guards.is_empty() {
        return;
    }
    let known = touches(step).known;
    let Body::Postgres(body) = &mut step.body else { return };
    body.guards = guards;
    let tables = known.into_iter().filter(|(store, _)| *store == StoreName::Postgres);
    body.locks = tables
        .map(|(_, name)| match name.split_once('.') {
            Some((schema, name)) => {
                QualifiedName { schema: Some(schema.to_owned()), name: name.to_owned() }
            }
            None => QualifiedName { schema: None, name },
        })
        .collect();
}

/// Whether it has phases, and so may be left between two of them. The invariants
/// of a plain migration are part of it.
pub fn is_phased(migration: &Migration) -> bool {
    migration
        .steps
        .iter()
        .any(|step| matches!(step.phase(), Phase::Prepare | Phase::Execute | Phase::Cleanup))
}

/// A document write is atomic only where the server has transactions.
pub(in crate::core) fn with_commit(step: &Step, servers: &Servers) -> Step {
    let mut step = step.clone();
    if step.store() == StoreName::Mongo && !servers.mongo_transactions() {
        step.commit = Commit::Journaled;
    }
    step
}

/// A step in doubt, as what settles it; `None` when it cannot be in doubt. A
/// document write that is was started when the server had no transactions yet.
pub(super) fn in_doubt(mut step: Step) -> Option<Step> {
    match (step.commit, step.store()) {
        (Commit::Atomic, StoreName::Postgres) => return None,
        (Commit::Atomic, StoreName::Mongo) => step.commit = Commit::Journaled,
        (Commit::Journaled, StoreName::Postgres | StoreName::Mongo) => {}
    }
    Some(step)
}

fn check_step(step: &Step) -> Result<(), PlanError> {
    match &step.body {
        Body::Mongo(body) if body.kind == MongoKind::DropDatabase => {
            Err(PlanError::DropsHistory { file: step.file.clone(), line: step.line })
        }
        Body::Mongo(_)
        | Body::Postgres(_)
        | Body::Backfill(_)
        | Body::Check(_)
        | Body::Program(_) => Ok(()),
    }
}

/// Whether this program has the functions that a migration calls.
pub(in crate::core) fn check_functions(
    known: &Known<'_>,
    folder: &str,
    actions: &[Action],
) -> Result<(), PlanError> {
    let mut steps = actions.iter().filter_map(Action::step);
    steps.try_for_each(|step| has_functions(known, folder, step))
}

/// Whether this program has the functions that a step calls.
pub(super) fn has_functions(known: &Known<'_>, folder: &str, step: &Step) -> Result<(), PlanError> {
    match step.functions().find(|(caller, name)| !known.set.has_function(*caller, name)) {
        None => Ok(()),
        Some((caller, function)) => Err(PlanError::NoFunction {
            folder: folder.to_owned(),
            function: function.to_owned(),
            caller,
            direction: step.direction(),
        }),
    }
}

fn check_requires(migration: &Migration, servers: &Servers) -> Result<(), PlanError> {
    match servers.unmet(&migration.options.requires) {
        None => Ok(()),
        Some((required, found)) => {
            Err(PlanError::Requires { folder: migration.folder.clone(), required, found })
        }
    }
}
