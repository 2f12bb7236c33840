//! Do the two histories say everything that was done?
//!
//! Applied steps are a prefix in the order of application. A hole in it was left by
//! a restored backup or by somebody's hand, and is refused: what is built on it
//! would be built on nothing. `repair` fills it, by the same list.

use crate::core::history::{Event, Histories, Row, RowStatus, Status, StepState, Table};
use crate::core::id::{Direction, Phase, StepId, StepName, StoreName, Version};
use crate::core::migration::Migration;
use crate::core::plan::Known;
use crate::core::plan::apply::is_phased;
use crate::core::plan::files::{accepted, is_done};
use crate::core::plan::lives::{
    Life, ever_applied, forward, is_completed, is_live, is_sealed, lives, step_id,
};
use crate::core::plan::refusal::{Loss, PlanError};
use crate::core::step::Step;
use std::collections::BTreeMap;

/// Applied steps are a prefix, in the order of application, plus at most one
/// in doubt. Anything else was not made by this engine.
pub(super) fn check_gaps(known: &Known<'_>, lives: &[Life]) -> Result<(), PlanError> {
    let Known { set, histories, .. } = *known;
    // The first step that is not done, and where.
    let mut open: Option<(StepId, StoreName)> = None;
    // The first migration of which nothing is left.
    let lost = lost(known).min_by_key(|(row, _)| (row.rank, row.version));
    let not_later = |open: Option<(StepId, StoreName)>, rank| match (open, lost) {
        (None, Some((row, step))) if (row.rank, row.version) < rank => Err(gone(known, row, step)),
        (Some((first, place)), Some((row, _))) if (row.rank, row.version) < rank => {
            let evidence =
                format!("the row of {} in migration_history says `{}`", row.version, row.status);
            Err(gap(known, first, place, evidence))
        }
        (open, _) => Ok(open),
    };
    let later = |(first, place): (StepId, StoreName), id: &StepId, store: StoreName| {
        let evidence = format!("the later step {id} is recorded in {}", store.title());
        gap(known, first, place, evidence)
    };
    for life in lives {
        open = not_later(open, (life.rank, life.version))?;
        check_torn_revert(histories, life.version)?;
        let Some(migration) = set.get(life.version) else {
            let step = forward(histories, life.version).find(|(.., state)| is_live(state));
            match (open, step) {
                (Some(first), Some((store, name, _))) => {
                    let id = StepId { version: life.version, name: name.clone() };
                    return Err(later(first, &id, store));
                }
                (open_before, _) => open = open_before,
            }
            continue;
        };
        if life.reverting {
            open = open.or_else(|| first_step(migration));
            continue;
        }
        if is_done(histories, migration) {
            let mut steps = migration.steps.iter();
            if let Some(step) =
                steps.find(|it| lost_what_was_accepted(known, life.version, it.store()))
            {
                let evidence = format!(
                    "{} knows that an edit of it was accepted",
                    step.store().other().title()
                );
                return Err(gap(known, step_id(life.version, step), step.store(), evidence));
            }
            continue;
        }
        // The cleanup of a held migration is deferred, not missing: what comes later
        // may have begun without it.
        let mut deferred: Option<(StepId, StoreName)> = None;
        let is_completed = is_completed(histories, life.version);
        for step in &migration.steps {
            let id = StepId { version: life.version, name: step.name.clone() };
            let status =
                histories.of(step.store()).step(&id).map(StepState::status).unwrap_or_default();
            match (status, open.take().or_else(|| deferred.take())) {
                (Status::Applied | Status::InDoubt | Status::Reverting, Some(first)) => {
                    return Err(later(first, &id, step.store()));
                }
                (Status::Applied | Status::Reverting, None) => {}
                (Status::InDoubt | Status::Pending, None) if is_completed => {
                    let evidence = "its migration is sealed as done".to_owned();
                    return Err(gap(known, id, step.store(), evidence));
                }
                (Status::InDoubt | Status::Pending, None) if step.phase() == Phase::Cleanup => {
                    deferred = Some((id, step.store()));
                }
                (Status::InDoubt | Status::Pending, None) => open = Some((id, step.store())),
                (Status::Pending, Some(first)) if first.0.name.phase() == Phase::Cleanup => {
                    deferred = Some(first);
                }
                (Status::Pending, Some(first)) => open = Some(first),
            }
        }
    }
    not_later(open, (u32::MAX, Version(u64::MAX))).map(drop)
}

/// Both stores are told which edit was accepted. One that has neither that nor any
/// step of the migration has lost them.
fn lost_what_was_accepted(known: &Known<'_>, version: Version, store: StoreName) -> bool {
    let histories = known.histories;
    let id = StepId { version, name: StepName::Accepted };
    accepted(histories, version).is_some()
        && histories.of(store).step(&id).is_none()
        && !forward(histories, version).any(|(place, _, state)| place == store && is_live(state))
}

fn first_step(migration: &Migration) -> Option<(StepId, StoreName)> {
    let step = migration.steps.first()?;
    Some((StepId { version: migration.version, name: step.name.clone() }, step.store()))
}

/// One store has reverted its part, and the other does not even know that it
/// was going to: see [`Event::Reverting`].
pub(super) fn check_torn_revert(histories: &Histories, version: Version) -> Result<(), PlanError> {
    let reverted = forward(histories, version)
        .filter(|(_, _, state)| state.events.contains(&Event::Reverting) && !is_live(state))
        .max_by_key(|(_, _, state)| state.rank);
    let unaware = forward(histories, version)
        .filter(|(_, _, state)| is_live(state) && !state.events.contains(&Event::Reverting))
        .min_by_key(|(_, _, state)| state.rank);
    match (reverted, unaware) {
        // What is applied after a revert has a rank above it.
        (Some((_, gone, before)), Some((store, name, after))) if before.rank >= after.rank => {
            let undo =
                StepName::Script { phase: Phase::Up, direction: Direction::Down, store, index: 1 };
            let name = if matches!(name, StepName::Script { .. }) { &undo } else { name };
            Err(PlanError::Gap {
                open: StepId { version, name: name.clone() },
                store,
                evidence: format!("{gone} of the same migration was reverted"),
                loss: Loss::Revert,
                records: String::new(),
            })
        }
        _ => Ok(()),
    }
}

/// The sealed migrations of which no step is left, with their first step.
pub(super) fn lost<'a>(known: &Known<'a>) -> impl Iterator<Item = (&'a Row, &'a Step)> {
    let Known { set, histories, .. } = *known;
    set.iter()
        .filter(|migration| is_sealed(histories, migration.version))
        .filter(|migration| !forward(histories, migration.version).any(|(.., it)| is_live(it)))
        .filter_map(|migration| Some((histories.row(migration.version)?, migration.steps.first()?)))
}

pub(super) fn gone(known: &Known<'_>, row: &Row, step: &Step) -> PlanError {
    let evidence = format!("its row in migration_history says `{}`", row.status);
    let gap = gap(known, step_id(row.version, step), step.store(), evidence);
    match gap {
        PlanError::Gap { open, store, evidence, loss: Loss::Hand, records } => {
            PlanError::Gap { open, store, evidence, loss: Loss::Invented, records }
        }
        gap => gap,
    }
}

/// A step that was there once, with what can have happened to it.
fn gap(known: &Known<'_>, open: StepId, store: StoreName, evidence: String) -> PlanError {
    let lacking = lacking(known);
    let is_here = |it: &&Lacking<'_>| it.version() == open.version;
    let step = lacking.iter().find(is_here);
    let rank = step.map_or(0, |step| step.rank);
    let loss = match knows_later(known, &open, store, rank) {
        true => Loss::Hand,
        false => Loss::Backup,
    };
    // Which stores lost records in the same way.
    let is_lost = |place: StoreName| {
        lacking.iter().flat_map(|it| it.steps.iter().map(move |step| (it, *step))).any(
            |(it, step)| {
                step.store() == place
                    && knows_later(known, &step_id(it.version(), step), place, it.rank)
            },
        )
    };
    let both = loss == Loss::Hand && StoreName::BOTH.into_iter().all(is_lost);
    let steps = lacking.iter().flat_map(|it| &it.steps).filter(|it| both || it.store() == store);
    let records = match (steps.count(), both) {
        (0 | 1, _) => format!("{open} --store {store}"),
        (_, false) => format!("all --store {store}"),
        (_, true) => "all".to_owned(),
    };
    PlanError::Gap { open, store, evidence, loss, records }
}

/// Whether a store knows something that came after a step of its own.
fn knows_later(known: &Known<'_>, open: &StepId, store: StoreName, rank: u32) -> bool {
    let own = known.histories.of(store);
    let is_after = |row: &Row| match row.version == open.version {
        true => row.rank >= rank && row.status != RowStatus::Running,
        false => row.rank > rank,
    };
    if own.rows().any(is_after) {
        return true;
    }
    let is_up = |name: &StepName| name.direction() == Direction::Up && *name != StepName::Accepted;
    let mut steps = own
        .versions()
        .into_iter()
        .flat_map(|version| own.steps_of(version).map(move |(name, state)| (version, name, state)));
    steps.any(|(version, name, state)| match version == open.version {
        true => is_live(state) && is_later(known, version, &open.name, name),
        false => is_up(name) && state.rank > rank,
    })
}

/// Whether a step stands below another one in the file.
fn is_later(known: &Known<'_>, version: Version, first: &StepName, then: &StepName) -> bool {
    let Some(migration) = known.set.get(version) else { return false };
    let at = |name: &StepName| migration.steps.iter().position(|step| step.name == *name);
    matches!((at(first), at(then)), (Some(first), Some(then)) if then > first)
}

/// A migration with the steps of it that are not recorded, although they must have
/// been there once.
#[derive(Debug)]
pub(in crate::core) struct Lacking<'a> {
    /// The migration.
    pub migration: &'a Migration,
    /// Its position in the order of application.
    pub rank: u32,
    /// What it lacks, in order.
    pub steps: Vec<&'a Step>,
    /// All of it was there: it is sealed, or something came after it.
    pub closed: bool,
}

impl Lacking<'_> {
    fn version(&self) -> Version {
        self.migration.version
    }
}

/// What the stores lack, by what the two of them say together.
pub(in crate::core) fn lacking<'a>(known: &Known<'a>) -> Vec<Lacking<'a>> {
    let Known { set, histories, .. } = *known;
    let ever = ever_applied(histories);
    let last = ever.last().copied();
    let lives: BTreeMap<Version, Life> =
        lives(histories).into_iter().map(|life| (life.version, life)).collect();
    let mut all = Vec::new();
    for (rank, version) in ever {
        let Some(migration) = set.get(version) else { continue };
        let life = lives.get(&version);
        if life.is_some_and(|life| life.reverting || life.baseline) {
            continue;
        }
        let closed = is_sealed(histories, version) || Some((rank, version)) != last;
        let status = |step: &Step| {
            let state = histories.of(step.store()).step(&step_id(version, step));
            state.map(StepState::status).unwrap_or_default()
        };
        let is_there = |step: &Step| status(step) == Status::Applied;
        let end = match closed {
            true => migration.steps.len(),
            false => migration
                .steps
                .iter()
                .rposition(|step| status(step) != Status::Pending)
                .unwrap_or(0),
        };
        let is_accepted = accepted(histories, version) == Some(migration.checksum);
        let counts =
            |step: &Step| !is_accepted || lost_what_was_accepted(known, version, step.store());
        // The cleanup of a held migration is deferred, not lacking.
        let is_completed = is_completed(histories, version);
        let steps = migration
            .steps
            .iter()
            .take(end)
            .filter(|step| is_completed || step.phase() != Phase::Cleanup);
        let closed = closed && (is_completed || !is_phased(migration));
        let steps: Vec<&Step> = steps.filter(|step| !is_there(step) && counts(step)).collect();
        all.push(Lacking { migration, rank, steps, closed });
    }
    all
}

/// What cannot be read is refused; but for a row that is derived, and written
/// again from the records of its migration.
pub(super) fn check_readable(known: &Known<'_>, lives: &[Life]) -> Result<(), PlanError> {
    for store in StoreName::BOTH {
        for it in known.histories.of(store).unreadable() {
            let is_derived = it.table == Table::History
                && lives.iter().any(|life| Some(life.version) == it.version && !life.reverting)
                && it.version.is_some_and(|version| known.set.get(version).is_some());
            if !is_derived {
                return Err(PlanError::Unreadable { store, what: it.what.clone() });
            }
        }
    }
    Ok(())
}

/// A row that says that a migration is done of which nothing is known.
pub(super) fn check_stray(known: &Known<'_>, lives: &[Life]) -> Result<(), PlanError> {
    let Known { set, histories, .. } = *known;
    for store in StoreName::BOTH {
        for row in histories.of(store).rows().filter(|row| row.status != RowStatus::Running) {
            let is_known = set.get(row.version).is_some()
                || lives.iter().any(|life| life.version == row.version);
            if !is_known && is_sealed(histories, row.version) {
                return Err(PlanError::Stray { version: row.version, store, status: row.status });
            }
        }
    }
    Ok(())
}
