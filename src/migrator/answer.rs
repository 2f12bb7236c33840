//! What calls answer.

use crate::core::id::{Direction, Version};
use crate::core::plan::{Action, Waits, Work};
use crate::core::status::{FileState, Line};
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
        let steps = work.actions.iter().filter_map(|action| match action {
            Action::Run(attempt) | Action::Settle(attempt) | Action::Abandon(attempt) => {
                Some(PlannedStep {
                    name: attempt.step.name.to_string(),
                    store: attempt.step.store().word(),
                    summary: attempt.step.summary(),
                })
            }
            _ => None,
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
        self.migrations.iter().all(|it| !matches!(it.state, State::Pending | State::Partial))
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

/// The state of a migration.
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
    /// Applied, not known to this service, and not newer than all that it knows.
    Missing,
    /// Applied, not known to this service, and newer than all that it knows.
    Ahead,
}

impl MigrationStatus {
    pub(super) fn of(line: Line) -> MigrationStatus {
        use crate::core::status::State as Known;
        MigrationStatus {
            version: line.version,
            name: line.name,
            state: match line.state {
                Known::Pending => State::Pending,
                Known::Partial => State::Partial,
                Known::Held => State::Held,
                Known::Completed => State::Completed,
                Known::Baseline => State::Baseline,
                Known::Missing => State::Missing,
                Known::Ahead => State::Ahead,
            },
            is_edited: line.file == FileState::Edited,
            release: line.release,
        }
    }
}
