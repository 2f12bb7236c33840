//! Planning: a pure function of the files, both histories and a goal.
//!
//! Recovery is planning. A run that stopped anywhere is continued by reading
//! both histories and planning again; nothing else survives a run, and nothing
//! else could disagree with the two databases.
//!
//! Reading order: this file, what a plan is; `lives`, what the histories say of
//! each migration; `files`, whether they say it of these files; `lacking`, whether
//! they say everything; `up` and `apply`, the way up, of all migrations and of one;
//! `down` and `revert`, the way down; `baseline`, what is recorded and not run;
//! `refusal`, why there is no plan.

mod apply;
mod baseline;
mod down;
mod files;
mod lacking;
mod lives;
mod refusal;
mod revert;
mod up;

pub use crate::core::plan::apply::is_phased;
pub(in crate::core) use crate::core::plan::apply::{check_functions, with_commit};
pub(in crate::core) use crate::core::plan::baseline::is_open;
pub use crate::core::plan::baseline::{Baseline, BaselineError, Begun, Stamp, baseline, up_to};
pub use crate::core::plan::down::{needs_rollbacks, plan_rollback};
pub use crate::core::plan::files::edited;
pub(in crate::core) use crate::core::plan::lacking::lacking;
pub use crate::core::plan::lives::{Life, lives};
pub(in crate::core) use crate::core::plan::lives::{ever_applied, seal};
pub(in crate::core) use crate::core::plan::refusal::told;
pub use crate::core::plan::refusal::{Loss, PlanError};
pub(in crate::core) use crate::core::plan::revert::revert;

use crate::core::checksum::Checksum;
use crate::core::duration::show;
use crate::core::history::{Histories, Row, StepState};
use crate::core::id::{Direction, Phase, StepName, StoreName, Version};
use crate::core::migration::{MigrationSet, OnFailure, Rollback};
use crate::core::parse::manifest::CleanupPolicy;
use crate::core::plan::down::plan_down;
use crate::core::plan::up::{plan_cleanup, plan_up};
use crate::core::server::Servers;
use crate::core::step::Step;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What somebody wants.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Goal {
    /// Apply what is pending.
    Up(Up),
    /// Revert, newest applied first.
    Down(Down),
    /// Finish what is held: this version, or all of them.
    Cleanup(Option<Version>),
}

impl Goal {
    /// Which way it is.
    pub fn direction(&self) -> Direction {
        match self {
            Goal::Up(_) | Goal::Cleanup(_) => Direction::Up,
            Goal::Down(_) => Direction::Down,
        }
    }
}

/// How far up.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Up {
    /// Up to and including this version.
    pub to: Option<Version>,
    /// This many migrations at most.
    pub steps: Option<usize>,
    /// What to do about files that sort below what is applied already.
    pub out_of_order: OutOfOrder,
    /// Up to and including this phase, of migrations that have phases.
    pub through: Option<Phase>,
    /// When cleanups run, where a migration does not say.
    pub policy: CleanupPolicy,
    /// The release that goes up.
    pub release: Option<String>,
    /// What to do when a migration fails that does not say it itself.
    pub on_failure: OnFailure,
}

/// What to do about versions that do not come in their order.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OutOfOrder {
    /// Refuse: somebody merged late, or a file is missing.
    #[default]
    Refuse,
    /// Apply them now, and remember the order in which it happened.
    Allow,
}

/// How far down.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Down {
    /// To this version, which stays; [`Version`] 0 is the beginning.
    To(Version),
    /// This many migrations.
    Steps(usize),
    /// What the newest run applied.
    LastRun,
    /// What runs with this `--release` applied.
    Release(String),
}

/// All that a plan is made of.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The files.
    pub set: &'a MigrationSet,
    /// What both stores remember.
    pub histories: &'a Histories,
    /// The stored down scripts of the versions that [`needs_rollbacks`] named.
    pub rollbacks: &'a BTreeMap<Version, Rollback>,
    /// What the servers are and can do.
    pub servers: &'a Servers,
}

/// The work that remains, in order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// Migrations, in the order in which they are worked on.
    pub work: Vec<Work>,
    /// Applied versions newer than every file: a newer release was here.
    pub ahead: Vec<Version>,
    /// The migrations that are held when it is carried out.
    pub held: Vec<Version>,
    /// The migration that stays open then: it was told to go on only so far.
    pub open: Option<Version>,
    /// Migrations that may not begin yet.
    pub waiting: Vec<Waits>,
    /// The outcome of the last action decides what comes next: carry this out,
    /// read the histories again, and plan again.
    pub then_plan_again: bool,
}

/// A migration that may not begin yet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Waits {
    /// Its version.
    pub version: Version,
    /// Its folder's name.
    pub folder: String,
    /// The migration that it waits for.
    pub behind: Version,
    /// Why, as the rest of `it waits behind 002: …`.
    pub why: String,
}

/// What is done about one migration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Work {
    /// The migration.
    pub version: Version,
    /// Its folder's name.
    pub folder: String,
    /// For people.
    pub description: String,
    /// Applied or reverted.
    pub direction: Direction,
    /// Recorded with each of its steps.
    pub checksum: Checksum,
    /// Its position in the order of application.
    pub rank: u32,
    /// Its down scripts, for its row.
    pub rollback: Rollback,
    /// Its row as it is, when it was begun before.
    pub row: Option<Row>,
    /// What to do, in order.
    pub actions: Vec<Action>,
}

impl Work {
    /// How long the longest name of its steps is.
    pub fn longest_name(&self) -> usize {
        let names = self.actions.iter().filter_map(Action::attempt).map(|it| &it.step.name);
        names.map(|name| name.to_string().chars().count()).max().unwrap_or(0)
    }

    /// Whether it does more than write down what is done.
    pub fn has_steps(&self) -> bool {
        self.steps().next().is_some()
    }

    /// The steps that it brings to their end.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.actions.iter().filter_map(Action::step)
    }

    /// The highest attempt among its actions.
    fn attempt_max(&self) -> u32 {
        let attempts = self.actions.iter().filter_map(Action::attempt);
        attempts.map(|it| it.attempt).max().unwrap_or(0)
    }
}

/// One thing to do. At most the first `Run` or `Settle` of a plan is a `Settle`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// Run a step that never ran, or was reverted.
    Run(Attempt),
    /// Finish a step that was started: ask whether it holds, else run it again.
    Settle(Attempt),
    /// Finish a step that was started, the other way: whatever is left of it is
    /// removed, unless all of it is there.
    Abandon(Attempt),
    /// Announce in this store that these steps are about to be reverted.
    Intend(StoreName, Vec<(StepName, StepState)>),
    /// Record in this store that these steps are reverted.
    Close(StoreName, Vec<(StepName, StepState)>),
    /// Record that the edited file is what was applied: the rest of what had
    /// been planned for it was taken out before it ran. As which attempt.
    Accept(u32),
    /// Ask these once more, right before what cannot be taken back.
    Check(Vec<Step>),
    /// Between two phases: let the application get used to it.
    Pause(Duration),
    /// Write the migration's row in both stores: all but its cleanup is done.
    Hold,
    /// Write the migration's row in both stores: it is done.
    Seal,
    /// Remove the migration's row from both stores: it is gone.
    Unseal,
}

impl Action {
    /// What it does something about in a store, to the end or back.
    pub fn attempt(&self) -> Option<&Attempt> {
        match self {
            Action::Run(it) | Action::Settle(it) | Action::Abandon(it) => Some(it),
            Action::Intend(..)
            | Action::Close(..)
            | Action::Accept(_)
            | Action::Check(_)
            | Action::Pause(_)
            | Action::Hold
            | Action::Seal
            | Action::Unseal => None,
        }
    }

    /// The step that it brings to its end: nothing of one that is abandoned stays.
    pub fn step(&self) -> Option<&Step> {
        match self {
            Action::Abandon(_) => None,
            _ => self.attempt().map(|it| &it.step),
        }
    }
}

/// A step, and how often it was tried.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Attempt {
    /// The step.
    pub step: Step,
    /// Recorded with it.
    pub attempt: u32,
}

/// Decides what remains to be done.
///
/// # Errors
/// [`PlanError`]: the files, the histories, the servers and the goal do not fit
/// together. Nothing was changed, and each error says what to do.
pub fn plan(known: &Known<'_>, goal: &Goal) -> Result<Plan, PlanError> {
    match goal {
        Goal::Up(up) => plan_up(known, up),
        Goal::Down(down) => plan_down(known, down),
        Goal::Cleanup(version) => plan_cleanup(known, *version),
    }
}

/// One line per migration: `001 up: run up/postgres/1, seal`.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, work) in self.work.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            let way = match work.direction {
                Direction::Up => "up",
                Direction::Down => "down",
            };
            let actions: Vec<String> = work.actions.iter().map(Action::to_string).collect();
            write!(f, "{} {way}: {}", work.version, actions.join(", "))?;
        }
        if self.then_plan_again {
            f.write_str(", plan again")?;
        }
        for (at, Waits { version, behind, why, .. }) in self.waiting.iter().enumerate() {
            if at > 0 || !self.work.is_empty() {
                f.write_str("\n")?;
            }
            write!(f, "{version} waits behind {behind}: {why}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attempt = |f: &mut fmt::Formatter<'_>, verb: &str, step: &Attempt| {
            write!(f, "{verb} {}", step.step.name)?;
            match step.attempt {
                1 => Ok(()),
                attempt => write!(f, "#{attempt}"),
            }
        };
        match self {
            Action::Run(step) => attempt(f, "run", step),
            Action::Settle(step) => attempt(f, "settle", step),
            Action::Abandon(step) => attempt(f, "abandon", step),
            Action::Intend(store, _) => write!(f, "intend {store}"),
            Action::Close(store, _) => write!(f, "close {store}"),
            Action::Accept(_) => f.write_str("accept"),
            Action::Check(steps) => {
                let names: Vec<String> = steps.iter().map(|step| step.name.to_string()).collect();
                write!(f, "check {}", names.join(" "))
            }
            Action::Pause(time) => write!(f, "pause {}", show(*time)),
            Action::Hold => f.write_str("hold"),
            Action::Seal => f.write_str("seal"),
            Action::Unseal => f.write_str("unseal"),
        }
    }
}
