//! Which migrations are applied now, how far, and which have to wait?
//!
//! One migration is open at a time, except for cleanups: what is held is finished
//! by a later release, or by asking for it.

use crate::core::history::{Row, RowStatus};
use crate::core::id::{Phase, Version};
use crate::core::migration::Migration;
use crate::core::parse::manifest::CleanupPolicy;
use crate::core::plan::apply::{Left, apply};
use crate::core::plan::baseline::check_baseline;
use crate::core::plan::files::{check_files, check_order, check_something, check_stores, is_ahead};
use crate::core::plan::lacking::{check_gaps, check_readable, check_stray};
use crate::core::plan::lives::{Life, attempt_max, is_completed, lives};
use crate::core::plan::refusal::PlanError;
use crate::core::plan::revert::revert;
use crate::core::plan::{Known, OutOfOrder, Plan, Up, Waits};
use crate::core::step::Step;
use crate::core::touches::{Overlap, overlap};
use std::collections::BTreeMap;

pub(super) fn plan_up(known: &Known<'_>, up: &Up) -> Result<Plan, PlanError> {
    let Known { set, histories, .. } = *known;
    if let Some(to) = up.to
        && set.get(to).is_none()
    {
        return Err(PlanError::UnknownVersion(to));
    }
    check_stores(known)?;
    let lives = lives(histories);
    check_readable(known, &lives)?;
    check_baseline(histories)?;
    let mut plan = Plan {
        ahead: lives.iter().map(|life| life.version).filter(|v| is_ahead(set, *v)).collect(),
        ..Plan::default()
    };
    check_files(known, &lives)?;
    check_order(known, &lives, up.out_of_order)?;
    check_gaps(known, &lives)?;
    check_stray(known, &lives)?;

    let is_below = |version: Version| up.to.is_none_or(|to| version <= to);
    let mut left = up.steps.unwrap_or(usize::MAX);
    let begun: BTreeMap<Version, &Life> =
        lives.iter().filter(|life| !life.reverting).map(|life| (life.version, life)).collect();
    let is_begun = |migration: &&Migration| begun.contains_key(&migration.version);
    // One migration is open at a time: what was begun, either way, is finished,
    // whatever its number, before another begins.
    let begins = left > 0
        && set.iter().any(|migration| !is_begun(&migration) && is_below(migration.version));

    let mut reverted = BTreeMap::new();
    for life in lives.iter().rev().filter(|life| begins && life.reverting) {
        let (work, again) = revert(known, life.version)?;
        let attempt = attempt_max(histories, life.version).max(work.attempt_max());
        reverted.insert(life.version, attempt);
        // What comes after that depends on what is found, and is planned again; but who
        // cannot go on then does not begin now.
        plan.work.extend((!plan.then_plan_again).then_some(work));
        plan.then_plan_again |= again;
    }
    let now = plan.then_plan_again.then(|| plan.work.clone());
    let open = lives.iter().filter_map(|life| set.get(life.version)).filter(is_begun);
    let fresh = set.iter().filter(|migration| !is_begun(migration));
    let mut rank = histories.rank_max();
    // What stays held, and what it keeps from beginning.
    let mut held: Vec<&Migration> = Vec::new();
    let mut stays_open: Option<&Migration> = None;
    for migration in open.chain(fresh) {
        let version = migration.version;
        let life = begun.get(&version);
        let is_wanted = left > 0 && (is_below(version) || life.is_some() && begins);
        let last = up.last_phase(migration, histories.row(version));
        match (life, is_wanted) {
            (Some(life), true) => {
                let applied = apply(known, migration, life.rank, last, None)?;
                note_left(applied.left, migration, &mut held, &mut stays_open);
                let Some(work) = applied.work else { continue };
                left -= usize::from(work.has_steps());
                plan.work.push(work);
            }
            // A lost seal is written again, whatever was asked for.
            (Some(life), false) => {
                let Ok(applied) = apply(known, migration, life.rank, last, None) else { continue };
                note_left(applied.left, migration, &mut held, &mut stays_open);
                plan.work.extend(applied.work.filter(|work| !work.has_steps()));
            }
            // What is applied after a revert is another life.
            (None, true) => {
                let wait = plan.waiting.last().map(|before| (before.behind, before.why.clone()));
                let wait = wait.or_else(|| must_wait(migration, &held, stays_open));
                if let Some((behind, why)) = wait {
                    let folder = migration.folder.clone();
                    plan.waiting.push(Waits { version, folder, behind, why });
                    continue;
                }
                check_something(migration)?;
                rank += 1;
                let attempt = reverted.get(&version).copied();
                let applied = apply(known, migration, rank, last, attempt)?;
                note_left(applied.left, migration, &mut held, &mut stays_open);
                let Some(work) = applied.work else { continue };
                left -= usize::from(work.has_steps());
                plan.work.push(work);
            }
            (None, false) => {}
        }
    }
    if let Some(work) = now {
        return Ok(Plan { work, ahead: plan.ahead, then_plan_again: true, ..Plan::default() });
    }
    plan.held = held.iter().map(|migration| migration.version).collect();
    plan.open = stays_open.map(|migration| migration.version);
    Ok(plan)
}

impl Up {
    /// The last phase of a phased migration that runs now. `row` is that of a
    /// migration that was begun before.
    fn last_phase(&self, migration: &Migration, row: Option<&Row>) -> Phase {
        if let Some(through) = self.through {
            return through;
        }
        match migration.options.cleanup.unwrap_or(self.policy) {
            CleanupPolicy::Auto => Phase::Cleanup,
            CleanupPolicy::Hold => Phase::Validate,
            // The pods that needed the old shape are of the release that held it.
            CleanupPolicy::NextRelease => match (&self.release, row) {
                (Some(release), Some(row))
                    if row.status == RowStatus::Held && row.release.as_ref() != Some(release) =>
                {
                    Phase::Cleanup
                }
                _ => Phase::Validate,
            },
        }
    }
}

/// Keeps what a migration leaves behind, for those that come after it.
fn note_left<'a>(
    left: Left,
    migration: &'a Migration,
    held: &mut Vec<&'a Migration>,
    stays_open: &mut Option<&'a Migration>,
) {
    match left {
        Left::Nothing => {}
        Left::Cleanup => held.push(migration),
        Left::More => *stays_open = Some(migration),
    }
}

/// Why a migration may not begin yet, and behind which one it waits.
fn must_wait(
    migration: &Migration,
    held: &[&Migration],
    stays_open: Option<&Migration>,
) -> Option<(Version, String)> {
    if let Some(open) = stays_open {
        return Some((open.version, "it is left open by --through".to_owned()));
    }
    if migration.options.independent {
        return None;
    }
    let later: Vec<&Step> = migration.steps.iter().collect();
    held.iter().find_map(|held| {
        let cleanup: Vec<&Step> =
            held.steps.iter().filter(|step| step.phase() == Phase::Cleanup).collect();
        let why = match overlap(&cleanup, &later) {
            Overlap::Disjoint => return None,
            Overlap::Shared(names) => format!("both touch {}", names.join(", ")),
            Overlap::Unknown(why) => why,
        };
        Some((held.version, why))
    })
}

/// Finishes what is held.
pub(super) fn plan_cleanup(known: &Known<'_>, version: Option<Version>) -> Result<Plan, PlanError> {
    let Known { set, histories, .. } = *known;
    check_stores(known)?;
    let lives = lives(histories);
    let mut plan = Plan {
        ahead: lives.iter().map(|life| life.version).filter(|v| is_ahead(set, *v)).collect(),
        ..Plan::default()
    };
    check_baseline(histories)?;
    check_files(known, &lives)?;
    check_order(known, &lives, OutOfOrder::Allow)?;
    check_gaps(known, &lives)?;
    let is_held = |life: &&Life| {
        let row = histories.row(life.version);
        !life.reverting && row.is_some_and(|row| row.status == RowStatus::Held)
    };
    if let Some(version) = version {
        let Some(migration) = set.get(version) else {
            return Err(PlanError::UnknownVersion(version));
        };
        let life = lives.iter().find(|life| life.version == version);
        let state = match life {
            None => Some("it is pending"),
            Some(life) if life.reverting => Some("it is being reverted"),
            Some(_) if is_completed(histories, version) => Some("it is completed"),
            Some(life) if is_held(&life) => None,
            Some(_) => Some("it is not applied as far as its cleanup; `migrate up` goes on"),
        };
        if let Some(state) = state {
            return Err(PlanError::NotHeld { folder: migration.folder.clone(), state });
        }
    }
    for life in lives.iter().filter(is_held) {
        let wanted = version.is_none_or(|version| version == life.version);
        let Some(migration) = set.get(life.version).filter(|_| wanted) else { continue };
        plan.work.extend(apply(known, migration, life.rank, Phase::Cleanup, None)?.work);
    }
    Ok(plan)
}
