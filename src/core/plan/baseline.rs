//! What is recorded of migrations whose effect was there before this engine was?
//!
//! A record `baseline` in each store, and the row. Nothing is run. In each store the
//! highest version is announced before all others and recorded after them: where no
//! transaction holds them together, what is there of a baseline that died is known
//! to be a part, and no plan runs the rest of it.

use crate::core::history::{
    Entry, Event, Histories, Record, Row, RowStatus, Status, StepState, Timestamp,
};
use crate::core::id::{StepId, StepName, StoreName, Version};
use crate::core::migration::{Migration, MigrationSet};
use crate::core::plan::Known;
use crate::core::plan::files::check_stores;
use crate::core::plan::lacking::{check_gaps, check_readable, check_stray};
use crate::core::plan::lives::{attempt_max, forward, is_live, is_sealed, lives};
use crate::core::plan::refusal::PlanError;
use std::collections::{BTreeMap, BTreeSet};

/// Who records it, and when.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stamp {
    /// By the engine's clock.
    pub at: Timestamp,
    /// `user@host`.
    pub who: String,
    /// The run.
    pub run_id: String,
    /// The version of this program.
    pub tool_version: String,
}

/// What is left to write.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Baseline {
    /// The migrations of which neither store had a record, in order.
    pub versions: Vec<Version>,
    /// For each store, all of its records: written at once.
    pub records: Vec<(StoreName, Vec<Entry>)>,
    /// Rows, which are derived: written after all records, in any number of parts.
    pub rows: Vec<(StoreName, Entry)>,
}

impl Baseline {
    /// Whether all of it is recorded.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.rows.is_empty()
    }
}

/// Why nothing is recorded.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BaselineError {
    /// Exit code 2.
    #[error("there is no migration {version}{}", .nearest.as_ref().map_or(String::new(), |folder| format!("; the nearest is {folder}")))]
    NoFile {
        /// As it was asked for.
        version: Version,
        /// The folder whose number is nearest.
        nearest: Option<String>,
    },
    /// Exit code 5.
    #[error(
        "{folder} is {state}, so this history has begun already: nothing that it does not have was there before it"
    )]
    Begun {
        /// The migration.
        folder: String,
        /// Its version.
        version: Version,
        /// How far it is.
        state: Begun,
    },
    /// The files, the histories and the servers do not fit together.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// How far a migration is that stands in the way of a baseline.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Begun {
    /// It was run.
    Applied,
    /// It was begun.
    Partly,
    /// Its way down was begun.
    Reverting,
}

impl std::fmt::Display for Begun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Begun::Applied => "applied",
            Begun::Partly => "partly applied",
            Begun::Reverting => "being reverted",
        })
    }
}

impl BaselineError {
    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            BaselineError::NoFile { .. } => {
                "write the number of the last migration whose effect is there; `migrate status` lists them".to_owned()
            }
            BaselineError::Begun { version, state: Begun::Applied, .. } => format!(
                "nothing was changed; if somebody has done by hand what a later migration does, `migrate repair --mark-applied` records its steps; if nothing of {version} is there, `migrate repair --mark-reverted {version}` first"
            ),
            BaselineError::Begun { version, state: Begun::Partly, .. } => format!(
                "nothing was changed; `migrate up --to {version}` finishes it, `migrate down` takes it back"
            ),
            BaselineError::Begun { state: Begun::Reverting, .. } => {
                "nothing was changed; `migrate down` finishes that".to_owned()
            }
            BaselineError::Plan(error) => error.hint(),
        }
    }
}

/// Every file up to and including a version.
///
/// # Errors
/// There is no file of that version.
pub fn up_to(set: &MigrationSet, version: Version) -> Result<BTreeSet<Version>, BaselineError> {
    if set.get(version).is_none() {
        let near = set.iter().min_by_key(|migration| migration.version.0.abs_diff(version.0));
        let nearest = near.map(|migration| migration.folder.clone());
        return Err(BaselineError::NoFile { version, nearest });
    }
    Ok(set.iter().map(|migration| migration.version).filter(|it| *it <= version).collect())
}

/// Decides what is left to write so that these migrations are recorded as already
/// there. Versions without a file are passed over.
///
/// # Errors
/// [`BaselineError`]; nothing was changed.
pub fn baseline(
    known: &Known<'_>,
    versions: &BTreeSet<Version>,
    stamp: &Stamp,
) -> Result<Baseline, BaselineError> {
    let Known { set, histories, servers, .. } = *known;
    check_stores(known)?;
    let lives = lives(histories);
    check_readable(known, &lives)?;
    check_gaps(known, &lives)?;
    check_stray(known, &lives)?;
    let wanted: Vec<&Migration> = versions.iter().filter_map(|it| set.get(*it)).collect();
    let is_recorded = |version| lives.iter().any(|life| life.version == version && life.baseline);
    let fresh: Vec<Version> =
        wanted.iter().map(|it| it.version).filter(|it| !is_recorded(*it)).collect();
    // What came first cannot come after what was run; and nobody asks twice whether
    // something was there that is newer than this history.
    let mut in_the_way = lives.iter().filter(|life| !life.baseline);
    if let Some(life) =
        in_the_way.find(|life| !fresh.is_empty() || versions.contains(&life.version))
    {
        let version = life.version;
        let folder = histories.row(version).map(|row| row.migration_name.clone());
        let file = || set.get(version).map(|migration| migration.folder.clone());
        return Err(BaselineError::Begun {
            folder: folder.or_else(file).unwrap_or_else(|| version.to_string()),
            version,
            state: match life.reverting {
                true => Begun::Reverting,
                false if is_sealed(histories, version) => Begun::Applied,
                false => Begun::Partly,
            },
        });
    }

    let ranks = ranks(histories, &wanted, &fresh);
    let mut left = Baseline { versions: fresh, ..Baseline::default() };
    for store in servers.stores() {
        let mut records = Vec::new();
        for (at, migration) in wanted.iter().enumerate() {
            let is_last = at + 1 == wanted.len();
            let rank = ranks.get(&migration.version).copied().unwrap_or(1);
            let Some(record) = record(histories, store, migration, rank) else { continue };
            if is_last && status(histories, store, migration.version) != Some(Status::InDoubt) {
                let started = Record { event: Event::Started, ..record.clone() };
                records.insert(0, Entry::Record(started));
            }
            records.push(Entry::Record(record));
        }
        if !records.is_empty() {
            left.records.push((store, records));
        }
        for migration in &wanted {
            let rank = ranks.get(&migration.version).copied().unwrap_or(1);
            if let Some(row) = row(histories, store, migration, rank, stamp) {
                left.rows.push((store, Entry::Row(Box::new(row), migration.rollback.clone())));
            }
        }
    }
    Ok(left)
}

/// The position of each in the order of application: that which some store has
/// recorded; of the others, one after the other, such that a baseline that died gets
/// the same ones again.
fn ranks(
    histories: &Histories,
    wanted: &[&Migration],
    fresh: &[Version],
) -> BTreeMap<Version, u32> {
    let known = |version: Version| {
        let live = forward(histories, version).filter(|(_, _, state)| is_live(state));
        live.map(|(_, _, state)| state.rank).max()
    };
    let count = u32::try_from(fresh.len()).unwrap_or(u32::MAX);
    let newest = wanted.last().map(|migration| migration.version);
    let open = newest.filter(|version| is_open(histories, *version)).and_then(known);
    // It was announced with its own rank, above all of the rest.
    let end = match open {
        Some(rank) => rank.saturating_sub(1),
        None => histories.rank_max().saturating_add(count),
    };
    let fresh = fresh.iter().rev().zip(0..).map(|(version, below)| {
        let rank = end.saturating_sub(below).max(1);
        (*version, rank)
    });
    let recorded = wanted.iter().filter_map(|it| Some((it.version, known(it.version)?)));
    fresh.chain(recorded).collect()
}

fn status(histories: &Histories, store: StoreName, version: Version) -> Option<Status> {
    let id = StepId { version, name: StepName::Baseline };
    histories.of(store).step(&id).map(StepState::status)
}

/// Whether a baseline up to here was announced, and no store has all of it.
pub(in crate::core) fn is_open(histories: &Histories, version: Version) -> bool {
    let mut in_doubt = false;
    for store in StoreName::BOTH {
        match status(histories, store, version) {
            Some(Status::Applied | Status::Reverting) => return false,
            Some(Status::InDoubt) => in_doubt = true,
            Some(Status::Pending) | None => {}
        }
    }
    in_doubt
}

/// The record that a store lacks; the same as the other store's, if that has it.
fn record(
    histories: &Histories,
    store: StoreName,
    migration: &Migration,
    rank: u32,
) -> Option<Record> {
    let version = migration.version;
    let step = StepId { version, name: StepName::Baseline };
    let own = histories.of(store).step(&step);
    let live = |store: StoreName| histories.of(store).step(&step).filter(|state| is_live(state));
    match own.filter(|state| is_live(state)) {
        Some(state) if state.status() != Status::InDoubt => return None,
        Some(state) => return Some(state.record(step, Event::Applied)),
        None => {}
    }
    if let Some(other) = live(store.other())
        && own.is_none_or(|own| own.attempt < other.attempt)
    {
        return Some(other.record(step, Event::Applied));
    }
    Some(Record {
        attempt: attempt_max(histories, version) + 1,
        step,
        event: Event::Applied,
        rank,
        checksum: migration.checksum,
        migration_checksum: migration.checksum,
    })
}

/// The row that a store lacks.
fn row(
    histories: &Histories,
    store: StoreName,
    migration: &Migration,
    rank: u32,
    stamp: &Stamp,
) -> Option<Row> {
    let version = migration.version;
    let of_this_life = |store: StoreName| {
        let row = histories.of(store).row(version);
        row.filter(|row| row.status == RowStatus::Baseline && row.rank >= rank)
    };
    if of_this_life(store).is_some() {
        return None;
    }
    if let Some(row) = of_this_life(store.other()) {
        return Some(row.clone());
    }
    Some(Row {
        version,
        rank,
        migration_name: migration.folder.clone(),
        description: migration.description.clone(),
        checksum: migration.checksum,
        status: RowStatus::Baseline,
        executed_at: stamp.at,
        finished_at: Some(stamp.at),
        execution_time_ms: 0,
        applied_by: stamp.who.clone(),
        release: None,
        tool_version: stamp.tool_version.clone(),
        run_id: stamp.run_id.clone(),
    })
}

/// A baseline that was begun, and of which no store has all: what it had not
/// recorded yet is there all the same, and must not be run.
pub(super) fn check_baseline(histories: &Histories) -> Result<(), PlanError> {
    let open = histories.versions().into_iter().find(|version| is_open(histories, *version));
    open.map_or(Ok(()), |version| Err(PlanError::BaselineOpen(version)))
}
