//! Which migrations are reverted, newest first?
//!
//! What a run that died has left of a migration counts as one.

use crate::core::history::{Histories, Row};
use crate::core::id::{Direction, StoreName, Version};
use crate::core::migration::Rollback;
use crate::core::plan::files::is_ahead;
use crate::core::plan::lacking::{check_readable, check_torn_revert, gone, lost};
use crate::core::plan::lives::{Life, is_sealed, lives};
use crate::core::plan::refusal::PlanError;
use crate::core::plan::revert::{check_reversible, revert};
use crate::core::plan::{Action, Down, Goal, Known, Plan, Work};
use std::collections::BTreeSet;

/// The versions whose stored down scripts [`plan`] will ask for.
///
/// # Errors
/// As [`plan`].
///
/// [`plan`]: crate::core::plan::plan
pub fn needs_rollbacks(histories: &Histories, goal: &Goal) -> Result<Vec<Version>, PlanError> {
    let lives = lives(histories);
    let mut versions: Vec<Version> =
        lives.iter().filter(|life| life.reverting).map(|life| life.version).collect();
    if let Goal::Down(down) = goal {
        let targets = down_targets(histories, &lives, down)?;
        versions.extend(targets.iter().filter_map(|target| match target {
            Target::Life(life) => Some(life.version),
            Target::Leftover(_) => None,
        }));
    }
    versions.sort_unstable();
    versions.dedup();
    Ok(versions)
}

pub(super) fn plan_down(known: &Known<'_>, down: &Down) -> Result<Plan, PlanError> {
    let Known { histories, set, .. } = *known;
    let lives = lives(histories);
    check_readable(known, &lives)?;
    let targets = down_targets(histories, &lives, down)?;
    check_not_lost(known, &targets)?;
    for target in &targets {
        if let Target::Life(life) = target {
            check_reversible(known, life)?;
            check_torn_revert(histories, life.version)?;
        }
    }
    let mut plan = Plan {
        ahead: lives.iter().map(|life| life.version).filter(|v| is_ahead(set, *v)).collect(),
        ..Plan::default()
    };
    let mut rest = leftovers(histories, &lives);
    for target in targets {
        match target {
            Target::Leftover(row) => {
                rest.retain(|other| other.version != row.version);
                plan.work.extend((!plan.then_plan_again).then(|| remove(row)));
            }
            Target::Life(life) => {
                // What comes after what is in doubt is planned again; but who cannot go
                // on then does not begin now.
                let (work, again) = revert(known, life.version)?;
                plan.work.extend((!plan.then_plan_again).then_some(work));
                plan.then_plan_again |= again;
            }
        }
    }
    if plan.then_plan_again {
        return Ok(plan);
    }
    plan.work.extend(rest.into_iter().map(remove));
    Ok(plan)
}

/// What `down` counts.
#[derive(Clone, Copy, Debug)]
enum Target<'a> {
    /// A migration that has a live step in some store.
    Life(&'a Life),
    /// A row that outlived its migration, because a run died between the last
    /// record and the row, or because nothing turned out to be there of the step
    /// that was in doubt. It counts: the same command again must not reach for
    /// the migration below.
    Leftover(&'a Row),
}

impl Target<'_> {
    fn rank(&self) -> (u32, Version) {
        match self {
            Target::Life(life) => (life.rank, life.version),
            Target::Leftover(row) => (row.rank, row.version),
        }
    }
}

/// What `down` would revert, newest applied first.
fn down_targets<'a>(
    histories: &'a Histories,
    lives: &'a [Life],
    down: &Down,
) -> Result<Vec<Target<'a>>, PlanError> {
    let mut all: Vec<Target<'a>> = lives.iter().map(Target::Life).collect();
    all.extend(leftovers(histories, lives).into_iter().map(Target::Leftover));
    all.sort_by_key(|target| std::cmp::Reverse(target.rank()));
    let row = |target: &Target<'a>| match target {
        Target::Life(life) => histories.row(life.version),
        Target::Leftover(row) => Some(*row),
    };
    let newest_first = all.iter().copied();
    Ok(match down {
        Down::Steps(steps) => newest_first.take(*steps).collect(),
        Down::To(to) => {
            let stays = lives.iter().find(|life| life.version == *to);
            // 0 is the beginning, unless a migration is called so.
            if *to != Version(0) && stays.is_none() {
                return Err(PlanError::NotApplied(*to));
            }
            let end = stays.map_or((0, Version(0)), |life| (life.rank, life.version));
            newest_first.take_while(|target| stays.is_none() || target.rank() > end).collect()
        }
        Down::LastRun => {
            let newest = all.first().and_then(row);
            let is_of_run = |of: &Row| newest.is_some_and(|newest| of.run_id == newest.run_id);
            newest_first.take_while(|target| row(target).is_some_and(is_of_run)).collect()
        }
        Down::Release(release) => {
            let is_of_release = |of: &Row| of.release.as_ref() == Some(release);
            let targets: Vec<Target<'a>> =
                newest_first.take_while(|target| row(target).is_some_and(is_of_release)).collect();
            if targets.is_empty() && !all.is_empty() {
                return Err(PlanError::UnknownRelease(release.clone()));
            }
            targets
        }
    })
}

/// The rows of migrations of which nothing is left, by version.
fn leftovers<'a>(histories: &'a Histories, lives: &[Life]) -> Vec<&'a Row> {
    let rows = StoreName::BOTH.into_iter().flat_map(|store| histories.of(store).rows());
    let versions: BTreeSet<Version> = rows.map(|row| row.version).collect();
    versions
        .into_iter()
        .filter(|version| lives.iter().all(|life| life.version != *version))
        .filter(|version| !is_sealed(histories, *version))
        .filter_map(|version| histories.row(version))
        .collect()
}

fn remove(row: &Row) -> Work {
    Work {
        version: row.version,
        folder: row.migration_name.clone(),
        description: row.description.clone(),
        direction: Direction::Down,
        checksum: row.checksum,
        rank: row.rank,
        rollback: Rollback::default(),
        row: Some(row.clone()),
        actions: vec![Action::Unseal],
    }
}

/// A migration that one store has lost would be passed over, and another one
/// reverted in its place.
fn check_not_lost(known: &Known<'_>, targets: &[Target<'_>]) -> Result<(), PlanError> {
    let Some(lowest) = targets.iter().map(Target::rank).min() else { return Ok(()) };
    let above = |row: &Row| (row.rank, row.version) > lowest;
    match lost(known).find(|(row, _)| above(row)) {
        Some((row, step)) => Err(gone(known, row, step)),
        None => Ok(()),
    }
}

/// What takes back a migration that failed on its way up; `None` when nothing of
/// it is there.
///
/// # Errors
/// [`PlanError`]: it has no way back. Nothing was changed.
pub fn plan_rollback(known: &Known<'_>, version: Version) -> Result<Option<Plan>, PlanError> {
    let lives = lives(known.histories);
    let (work, then_plan_again) = match lives.iter().find(|life| life.version == version) {
        Some(life) => {
            check_reversible(known, life)?;
            revert(known, version)?
        }
        None => {
            match leftovers(known.histories, &lives).iter().find(|row| row.version == version) {
                Some(row) => (remove(row), false),
                None => return Ok(None),
            }
        }
    };
    Ok(Some(Plan { work: vec![work], then_plan_again, ..Plan::default() }))
}
