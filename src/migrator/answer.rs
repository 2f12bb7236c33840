//! What calls answer.

use crate::core::id::{Direction, Version};
use crate::core::plan::{Action, Waits, Work};
use crate::core::status::{FileState, Line, State};
use crate::engine::run::Report;

/// What a run did.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Applied {
    /// The migrations that it finished, in order.
    pub finished: Vec<Version>,
    /// Applied versions newer than all that this service knows: a newer release was here.
    pub ahead: Vec<Version>,
    /// The migrations whose cleanup is still to come.
    pub held: Vec<Version>,
    /// The migrations that may not begin yet.
    pub waiting: Vec<Waiting>,
}

/// A migration that may not begin yet.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Waiting {
    /// Its version.
    pub version: Version,
    /// The migration that it waits for.
    pub behind: Version,
    /// Why.
    pub why: String,
}

impl Applied {
    pub(super) fn of(report: Report) -> Applied {
        let Report { finished, ahead, held, waiting, .. } = report;
        let waiting = waiting.into_iter().map(|Waits { version, behind, why, .. }| Waiting {
            version,
            behind,
            why,
        });
        Applied { finished, ahead, held, waiting: waiting.collect() }
    }
}

/// What would be done about one migration.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Planned {
    /// Its version.
    pub version: Version,
    /// Its folder's name.
    pub folder: String,
    /// It would be reverted, not applied.
    pub is_reverted: bool,
    /// Its steps, in order; none when only its row is written.
    pub steps: Vec<PlannedStep>,
}

/// A step that would be run.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct PlannedStep {
    /// As in the history: `up/postgres/1`.
    pub name: String,
    /// `postgres` or `mongo`.
    pub store: &'static str,
    /// What it does, on one line.
    pub summary: String,
}

impl Planned {
    pub(super) fn of(work: Work) -> Planned {
        let attempts = work.actions.iter().filter_map(Action::attempt);
        let steps = attempts.map(|attempt| PlannedStep {
            name: attempt.step.name.to_string(),
            store: attempt.step.store().word(),
            summary: attempt.step.summary(),
        });
        Planned {
            version: work.version,
            is_reverted: work.direction == Direction::Down,
            steps: steps.collect(),
            folder: work.folder,
        }
    }
}

/// Where migrations stand.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Status {
    /// Each that this service or a history knows, by version.
    pub migrations: Vec<MigrationStatus>,
    /// Who is at work now, if somebody is.
    pub run: Option<String>,
}

impl Status {
    /// Whether nothing is left for [`Migrator::up`](super::Migrator::up) to do but cleanups
    /// that are held.
    pub fn is_up_to_date(&self) -> bool {
        self.migrations.iter().all(|it| !it.state.is_pending())
    }
}

/// Where one migration stands.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct MigrationStatus {
    /// Its number.
    pub version: Version,
    /// Without the number: `add-user-preferences`.
    pub name: String,
    /// Of the whole.
    pub state: State,
    /// It was edited since it was applied.
    pub is_edited: bool,
    /// The release that applied it.
    pub release: Option<String>,
}

impl MigrationStatus {
    pub(super) fn of(line: Line) -> MigrationStatus {
        MigrationStatus {
            version: line.version,
            name: line.name,
            state: line.state,
            is_edited: line.file == FileState::Edited,
            release: line.release,
        }
    }
}
