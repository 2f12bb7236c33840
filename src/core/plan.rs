//! Planning: a pure function of the files, both histories and a goal.
//!
//! Recovery is planning. A run that stopped anywhere is continued by reading
//! both histories and planning again; nothing else survives a run, and nothing
//! else could disagree with the two databases.

use crate::core::checksum::Checksum;
use crate::core::duration::show;
use crate::core::history::{Event, Histories, Row, RowStatus, Status, StepState, Table};
use crate::core::id::{Direction, Phase, StepId, StepName, StoreName, Version};
use crate::core::migration::{Migration, MigrationSet, OnFailure, Rollback};
use crate::core::parse::folder;
use crate::core::parse::manifest::{Check, CleanupPolicy, Sample};
use crate::core::problem::Problem;
use crate::core::server::Servers;
use crate::core::step::{Body, Commit, Guard, MongoKind, QualifiedName, Step};
use crate::core::touches::{Overlap, overlap, touches};
use std::collections::{BTreeMap, BTreeSet};
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
        let names = self.actions.iter().filter_map(|action| match action {
            Action::Run(it) | Action::Settle(it) | Action::Abandon(it) => Some(&it.step.name),
            _ => None,
        });
        names.map(|name| name.to_string().chars().count()).max().unwrap_or(0)
    }

    /// Whether it does more than write down what is done.
    pub fn has_steps(&self) -> bool {
        self.actions.iter().any(|action| matches!(action, Action::Run(_) | Action::Settle(_)))
    }

    /// The highest attempt among its actions.
    fn attempt_max(&self) -> u32 {
        let attempt = |action: &Action| match action {
            Action::Run(it) | Action::Settle(it) | Action::Abandon(it) => it.attempt,
            Action::Intend(..)
            | Action::Close(..)
            | Action::Accept(_)
            | Action::Check(_)
            | Action::Pause(_)
            | Action::Hold
            | Action::Seal
            | Action::Unseal => 0,
        };
        self.actions.iter().map(attempt).max().unwrap_or(0)
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

/// A step, and how often it was tried.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Attempt {
    /// The step.
    pub step: Step,
    /// Recorded with it.
    pub attempt: u32,
}

/// Why there is no plan. Nothing was changed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// Exit code 5.
    #[error(
        "{what} of {folder} was edited after it was applied (recorded {recorded}, file {file})",
        what = match .step { Some(step) => format!("step {step}"), None => "a file".to_owned() },
        recorded = .recorded.short(), file = .file.as_ref().map_or("none".to_owned(), Checksum::short)
    )]
    Edited {
        /// The migration's folder.
        folder: String,
        /// Its version.
        version: Version,
        /// The step whose text differs; `None` when only other text of the folder
        /// does (a comment, a down script, an option).
        step: Option<StepName>,
        /// What the history says.
        recorded: Checksum,
        /// What the file says; `None` when the step is no longer in it.
        file: Option<Checksum>,
    },
    /// Exit code 5.
    #[error(
        "step {name} of {folder} was edited while it is in doubt (started {recorded}, file {file})",
        name = .step.name, recorded = .recorded.short(),
        file = .file.as_ref().map_or("none".to_owned(), Checksum::short)
    )]
    EditedInDoubt {
        /// The migration's folder.
        folder: String,
        /// The step that was started, and not what became of it.
        step: StepId,
        /// The store that knows.
        store: StoreName,
        /// Of the text that was started.
        recorded: Checksum,
        /// What the file says; `None` when the step is no longer in it.
        file: Option<Checksum>,
    },
    /// Exit code 5.
    #[error("{} applied, but no longer in the migrations folder", list(.0, "is", "are"))]
    Missing(Vec<Version>),
    /// Exit code 5.
    #[error(
        "{} not applied, but newer {newest} is",
        list(.versions, "is", "are")
    )]
    OutOfOrder {
        /// Files below `newest` that were never applied.
        versions: Vec<Version>,
        /// The newest applied version.
        newest: Version,
    },
    /// Exit code 5.
    #[error("{store} lacks step {open}, although {evidence}: {loss}", store = .store.title())]
    Gap {
        /// The first missing step.
        open: StepId,
        /// The store that lacks it.
        store: StoreName,
        /// What shows that it was there once.
        evidence: String,
        /// What can have happened.
        loss: Loss,
        /// What `migrate repair --mark-applied` has to be told if all of it is there.
        records: String,
    },
    /// Exit code 5.
    #[error(
        "the record of step {step} in {store} was changed by hand: its {field} is {recorded}, and everything else says that the file ({file}) is what was applied",
        store = .store.title(), recorded = .recorded.short(), file = .file.short()
    )]
    Forged {
        /// The step.
        step: StepId,
        /// Whose record it is.
        store: StoreName,
        /// Which of its checksums.
        field: &'static str,
        /// What the record says.
        recorded: Checksum,
        /// What the file says.
        file: Checksum,
    },
    /// Exit code 5.
    #[error("the history in {store} cannot be read: {what}", store = .store.title())]
    Unreadable {
        /// Whose history it is.
        store: StoreName,
        /// Which record or row, and what is wrong with it.
        what: String,
    },
    /// Exit code 5.
    #[error(
        "migration_history in {store} says that {version} is `{status}`, of which no step is recorded in either store, and there is no file of that version",
        store = .store.title()
    )]
    Stray {
        /// The migration that nobody knows.
        version: Version,
        /// Whose row it is.
        store: StoreName,
        /// What the row says.
        status: RowStatus,
    },
    /// Exit code 5.
    #[error(
        "step {0} is recorded as started, although it can only be recorded together with its effect"
    )]
    Torn(StepId),
    /// Exit code 2.
    #[error("there is no migration {0}")]
    UnknownVersion(Version),
    /// Exit code 2.
    #[error("{0} is not applied, so there is no way down to it")]
    NotApplied(Version),
    /// Exit code 2.
    #[error("{folder} is not held: {state}")]
    NotHeld {
        /// The migration's folder.
        folder: String,
        /// What it is.
        state: &'static str,
    },
    /// Exit code 2.
    #[error("what was applied last does not belong to release `{0}`")]
    UnknownRelease(String),
    /// Exit code 9.
    #[error("{folder} cannot be reverted: {reason}")]
    Irreversible {
        /// The migration's folder.
        folder: String,
        /// What it says, or what it lacks.
        reason: String,
    },
    /// Exit code 9.
    #[error(
        "{0} was there before migrate was (baseline), so nothing is known about how to revert it"
    )]
    Baseline(Version),
    /// Exit code 5.
    #[error("the history has no down scripts for {0}, and there is no file of that version either")]
    NoRollback(Version),
    /// Exit code 5.
    #[error("the down scripts that the history keeps for {version} cannot be read: {problem}")]
    BadRollback {
        /// The migration.
        version: Version,
        /// The first thing that is wrong with them.
        problem: Box<Problem>,
    },
    /// Exit code 2.
    #[error("{folder} has a part for {store}, but no {store} is configured", store = .store.title())]
    NoStore {
        /// The migration's folder.
        folder: String,
        /// The store that is not configured.
        store: StoreName,
    },
    /// Exit code 2.
    #[error("{file}:{line}: dropDatabase would drop the migration history with everything else")]
    DropsHistory {
        /// The file.
        file: String,
        /// From 1.
        line: u32,
    },
    /// Exit code 9.
    #[error("{folder} requires {required}, but this is {found}")]
    Requires {
        /// The migration's folder.
        folder: String,
        /// As in `migration.toml`.
        required: String,
        /// What the server is.
        found: String,
    },
}

impl PlanError {
    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            PlanError::Edited { version, .. } => format!(
                "restore the file as it was, and put the change into a new migration; if the edit does not matter, `migrate repair --accept-checksum {version}`"
            ),
            PlanError::EditedInDoubt { step, store, .. } => format!(
                "only its old text tells what is left of it: restore the text and run `migrate up` again, which settles the step, and edit it then; or look at {title}, and when nothing of the step is there, `migrate repair --mark-reverted {version}/{name} --store {store}`",
                title = store.title(), version = step.version, name = step.name
            ),
            PlanError::Missing(versions) => format!(
                "restore the folder from version control; if it is meant to be gone, `--allow-out-of-order`; if nothing of it was ever there, `migrate repair --mark-reverted {}`",
                versions.first().copied().unwrap_or(Version(0))
            ),
            PlanError::OutOfOrder { .. } => "give it a number above the newest applied one, or apply it now with `--allow-out-of-order`".to_owned(),
            PlanError::Gap { store, loss: Loss::Backup, records, .. } => format!(
                "if {title} was restored from an older backup, `migrate repair --replay {store}` runs there what it lacks; if all of it is there and only its records are gone, `migrate repair --mark-applied {records}`",
                title = store.title()
            ),
            PlanError::Gap { store, loss: Loss::Revert, .. } => format!(
                "if {title} was restored from an older backup, `migrate repair --replay {store}` reverts there what the other store has reverted",
                title = store.title()
            ),
            PlanError::Gap { store, loss: Loss::Hand, records, .. } => format!(
                "if its effect is there, `migrate repair --mark-applied {records}` records it; if it is not, `migrate repair --replay {store}` runs there what is lacking"
            ),
            PlanError::Gap { open, loss: Loss::Invented, records, .. } => format!(
                "if somebody has done by hand what it does, `migrate repair --mark-applied {records}` records it; if nobody has, `migrate repair --mark-reverted {}`, and `migrate up` applies it",
                open.version
            ),
            PlanError::Forged { step, .. } => format!(
                "if the files are what was applied, `migrate repair --accept-checksum {}` records that",
                step.version
            ),
            PlanError::Unreadable { store, .. } => format!(
                "`migrate repair --mark-applied all --store {store}` takes out what cannot be read, and records the steps that are there"
            ),
            PlanError::Stray { version, .. } => format!(
                "if somebody wrote it by hand, `migrate repair --mark-reverted {version}` takes it out; if a store was restored from an older backup, run the release that has the file"
            ),
            PlanError::Torn(step) => format!(
                "somebody changed the history by hand; if its effect is there, `migrate repair --mark-applied {step}`; if it is not, `migrate repair --mark-reverted {step}`, and `migrate up` runs it",
                step = step.path()
            ),
            PlanError::UnknownVersion(_) | PlanError::NotApplied(_) | PlanError::NotHeld { .. } | PlanError::UnknownRelease(_) => "`migrate status` lists what there is".to_owned(),
            PlanError::Irreversible { .. } => "nothing was changed; write a new migration that leads away from it".to_owned(),
            PlanError::Baseline(version) => format!("nothing was changed; `--to {version}` stops above it"),
            PlanError::NoRollback(_) => "restore the migration's folder and run the command again".to_owned(),
            PlanError::BadRollback { .. } => "was it written by a newer release of migrate, or changed by hand? Restore the row from the other store or a backup".to_owned(),
            PlanError::NoStore { store: StoreName::Postgres, .. } => "set DATABASE_URL or `--postgres`, or take the .sql files out".to_owned(),
            PlanError::NoStore { store: StoreName::Mongo, .. } => "set MONGODB_URI or `--mongo`, or take the .mongodb.js files out".to_owned(),
            PlanError::DropsHistory { .. } => "drop the collections by name".to_owned(),
            PlanError::Requires { .. } => "nothing was changed; upgrade the server first".to_owned(),
        }
    }
}

/// What can have happened to a step that is not recorded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Loss {
    /// Its store knows nothing that came after it: an older backup does not.
    Backup,
    /// The other store has reverted it, and its own does not know.
    Revert,
    /// Its store knows what came after it. A backup has the beginning of a history,
    /// never a part without what was before: somebody deleted records.
    Hand,
    /// Only a row says that the migration is done.
    Invented,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Loss::Backup | Loss::Revert => {
                "no run of migrate leaves that behind, a restored backup does"
            }
            Loss::Hand | Loss::Invented => {
                "neither a run of migrate nor a backup leaves that behind, somebody changed the history by hand"
            }
        })
    }
}

/// `001, 003 and 2 more were`
fn list(versions: &[Version], one: &str, many: &str) -> String {
    /// More would hide what comes after the list.
    const SHOWN: usize = 10;
    let mut text: Vec<String> = versions.iter().take(SHOWN).map(Version::to_string).collect();
    if versions.len() > SHOWN {
        text.push(format!("{} more", versions.len() - SHOWN));
    }
    let verb = if versions.len() == 1 { one } else { many };
    match text.split_last() {
        Some((last, [])) => format!("{last} {verb}"),
        Some((last, before)) => format!("{} and {last} {verb}", before.join(", ")),
        None => format!("nothing {verb}"),
    }
}

/// The versions whose stored down scripts [`plan`] will ask for.
///
/// # Errors
/// As [`plan`].
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

/// A migration that has a live step in some store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Life {
    /// The migration.
    pub version: Version,
    /// Its position in the order of application.
    pub rank: u32,
    /// It was recorded, not run.
    pub baseline: bool,
    /// A `down` of it was begun and not finished.
    pub reverting: bool,
}

/// The migrations that have a live step, in the order of application.
pub fn lives(histories: &Histories) -> Vec<Life> {
    let mut lives: Vec<Life> = Vec::new();
    for version in histories.versions() {
        let mut live =
            forward(histories, version).filter(|(_, _, state)| is_live(state)).peekable();
        if live.peek().is_none() {
            continue;
        }
        let mut life = Life { version, rank: 0, baseline: false, reverting: false };
        for (_, name, state) in live {
            life.rank = life.rank.max(state.rank);
            life.baseline |= *name == StepName::Baseline;
            life.reverting |= state.status() == Status::Reverting;
        }
        lives.push(life);
    }
    lives.sort_by_key(|life| (life.rank, life.version));
    lives
}

/// The states of the steps that go up, in both stores.
fn forward(
    histories: &Histories,
    version: Version,
) -> impl Iterator<Item = (StoreName, &StepName, &StepState)> {
    histories
        .steps_of(version)
        .filter(|(_, name, _)| name.direction() == Direction::Up && **name != StepName::Accepted)
}

fn is_live(state: &StepState) -> bool {
    state.status() != Status::Pending
}

/// The highest attempt of any step of the migration.
fn attempt_max(histories: &Histories, version: Version) -> u32 {
    histories.steps_of(version).map(|(_, _, state)| state.attempt).max().unwrap_or(0)
}

/// Whether the migration's row says, in either store, that all of it is done.
/// The row of a life that was reverted since says nothing.
fn is_sealed(histories: &Histories, version: Version) -> bool {
    let Some(row) = histories.row(version) else { return false };
    let rank = forward(histories, version).map(|(_, _, state)| state.rank).max().unwrap_or(0);
    let is_live = forward(histories, version).any(|(_, _, state)| is_live(state));
    let is_of_this_life = if is_live { row.rank >= rank } else { row.rank > rank };
    is_of_this_life && row.status != RowStatus::Running
}

/// The same, with its cleanup.
fn is_completed(histories: &Histories, version: Version) -> bool {
    is_sealed(histories, version)
        && histories.row(version).is_some_and(|row| row.status != RowStatus::Held)
}

fn plan_up(known: &Known<'_>, up: &Up) -> Result<Plan, PlanError> {
    let Known { set, histories, .. } = *known;
    if let Some(to) = up.to
        && set.get(to).is_none()
    {
        return Err(PlanError::UnknownVersion(to));
    }
    check_stores(known)?;
    let lives = lives(histories);
    check_readable(known, &lives)?;
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
        plan.work.push(work);
        if again {
            plan.then_plan_again = true;
            return Ok(plan);
        }
    }
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
    plan.held = held.iter().map(|migration| migration.version).collect();
    plan.open = stays_open.map(|migration| migration.version);
    Ok(plan)
}

/// Finishes what is held.
fn plan_cleanup(known: &Known<'_>, version: Option<Version>) -> Result<Plan, PlanError> {
    let Known { set, histories, .. } = *known;
    check_stores(known)?;
    let lives = lives(histories);
    let mut plan = Plan {
        ahead: lives.iter().map(|life| life.version).filter(|v| is_ahead(set, *v)).collect(),
        ..Plan::default()
    };
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

/// What is left to do to apply a migration.
struct Applied {
    /// `None` when nothing is.
    work: Option<Work>,
    /// What will be left of it then.
    left: Left,
}

/// What is left of a migration when a plan is carried out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Left {
    /// It is completed.
    Nothing,
    /// It is held.
    Cleanup,
    /// It is open: it was told to go on only so far.
    More,
}

/// What is left to do to apply a migration, through its phase `last`. `reverted`
/// is the highest attempt of what is reverted before.
fn apply(
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

/// No run writes `completed` without the time: that is what somebody sets who wants
/// to be rid of a migration that failed.
fn is_finished(row: &Row) -> bool {
    match row.status {
        RowStatus::Running => false,
        RowStatus::Completed => row.finished_at.is_some(),
        RowStatus::Held | RowStatus::Baseline => true,
    }
}

/// The seal of this life, as it should be in both stores. It is derived: what the
/// records do not say is taken from the row that agrees with them best.
pub(in crate::core) fn seal(
    histories: &Histories,
    migration: &Migration,
    rank: u32,
) -> Option<Row> {
    let version = migration.version;
    let is_baseline = |store: StoreName| {
        let id = StepId { version, name: StepName::Baseline };
        histories.of(store).step(&id).is_some_and(is_live)
    };
    let is_baseline = StoreName::BOTH.into_iter().any(is_baseline);
    let rows = StoreName::BOTH.into_iter().filter_map(|store| histories.of(store).row(version));
    let rows =
        rows.filter(|row| is_finished(row) && row.status != RowStatus::Held && row.rank >= rank);
    let agrees = |row: &&Row| (row.rank == rank, row.checksum == migration.checksum);
    let best = rows.rev().max_by_key(agrees)?;
    let checksum = if is_baseline { best.checksum } else { migration.checksum };
    Some(Row { rank, checksum, ..best.clone() })
}

/// Whether everything the migration asks for has been applied, or recorded as
/// if it had.
fn is_done(histories: &Histories, migration: &Migration) -> bool {
    if accepted(histories, migration.version) == Some(migration.checksum)
        && is_completed(histories, migration.version)
    {
        return true;
    }
    let baseline = StepId { version: migration.version, name: StepName::Baseline };
    StoreName::BOTH
        .into_iter()
        .any(|store| histories.of(store).step(&baseline).is_some_and(is_live))
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
fn in_doubt(mut step: Step) -> Option<Step> {
    match (step.commit, step.store()) {
        (Commit::Atomic, StoreName::Postgres) => return None,
        (Commit::Atomic, StoreName::Mongo) => step.commit = Commit::Journaled,
        (Commit::Journaled, StoreName::Postgres | StoreName::Mongo) => {}
    }
    Some(step)
}

/// A part for a store that is not configured. This comes before everything that
/// looks into the histories: that of such a store was not read, and every step in
/// it would seem to be lost.
fn check_stores(known: &Known<'_>) -> Result<(), PlanError> {
    for migration in known.set {
        let mut stores = migration.steps.iter().map(Step::store);
        if let Some(store) = stores.find(|store| !known.servers.has(*store)) {
            return Err(PlanError::NoStore { folder: migration.folder.clone(), store });
        }
    }
    Ok(())
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

fn check_requires(migration: &Migration, servers: &Servers) -> Result<(), PlanError> {
    match servers.unmet(&migration.options.requires) {
        None => Ok(()),
        Some((required, found)) => {
            Err(PlanError::Requires { folder: migration.folder.clone(), required, found })
        }
    }
}

fn is_ahead(set: &MigrationSet, version: Version) -> bool {
    set.get(version).is_none() && set.newest().is_none_or(|newest| version > newest)
}

/// The checksum of the folder that was accepted as what had been applied, in this
/// life: with what was reverted goes what was said about it.
fn accepted(histories: &Histories, version: Version) -> Option<Checksum> {
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
fn accepted_attempt(histories: &Histories, version: Version) -> u32 {
    let id = StepId { version, name: StepName::Accepted };
    let states = StoreName::BOTH.into_iter().filter_map(|store| histories.of(store).step(&id));
    states.map(|state| state.attempt).max().unwrap_or(0)
}

/// The checksum of the folder with which the migration was finished: that of
/// its last step, because the steps before it may be older than a mended file.
fn recorded_checksum(histories: &Histories, migration: &Migration) -> Option<Checksum> {
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

/// `edited`: what is applied is no longer what the files say.
fn check_files(known: &Known<'_>, lives: &[Life]) -> Result<(), PlanError> {
    for life in lives.iter().filter(|life| !life.baseline && !life.reverting) {
        if let Some(migration) = known.set.get(life.version)
            && let Some(error) = edited(known.histories, migration)
        {
            return Err(error);
        }
    }
    Ok(())
}

/// How a migration's file differs from what was applied of it, if it does.
pub fn edited(histories: &Histories, migration: &Migration) -> Option<PlanError> {
    let version = migration.version;
    if accepted(histories, version) == Some(migration.checksum) {
        return None;
    }
    let error = |step: Option<StepName>, recorded, file| PlanError::Edited {
        folder: migration.folder.clone(),
        version,
        step,
        recorded,
        file,
    };
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

fn step_id(version: Version, step: &Step) -> StepId {
    StepId { version, name: step.name.clone() }
}

/// `missing` and `out of order`.
fn check_order(
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

/// Applied steps are a prefix, in the order of application, plus at most one
/// in doubt. Anything else was not made by this engine.
fn check_gaps(known: &Known<'_>, lives: &[Life]) -> Result<(), PlanError> {
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
fn check_torn_revert(histories: &Histories, version: Version) -> Result<(), PlanError> {
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

fn plan_down(known: &Known<'_>, down: &Down) -> Result<Plan, PlanError> {
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
                plan.work.push(remove(row));
            }
            Target::Life(life) => {
                let (work, again) = revert(known, life.version)?;
                plan.work.push(work);
                if again {
                    plan.then_plan_again = true;
                    return Ok(plan);
                }
            }
        }
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

/// The sealed migrations of which no step is left, with their first step.
fn lost<'a>(known: &Known<'a>) -> impl Iterator<Item = (&'a Row, &'a Step)> {
    let Known { set, histories, .. } = *known;
    set.iter()
        .filter(|migration| is_sealed(histories, migration.version))
        .filter(|migration| !forward(histories, migration.version).any(|(.., it)| is_live(it)))
        .filter_map(|migration| Some((histories.row(migration.version)?, migration.steps.first()?)))
}

fn gone(known: &Known<'_>, row: &Row, step: &Step) -> PlanError {
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
        (0 | 1, _) => format!("{} --store {store}", open.path()),
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

/// Every migration that some store says was done, in the order of application: by
/// a live step, or by a row whose steps are lost.
pub(in crate::core) fn ever_applied(histories: &Histories) -> Vec<(u32, Version)> {
    let mut applied: Vec<(u32, Version)> =
        lives(histories).into_iter().map(|life| (life.rank, life.version)).collect();
    for store in StoreName::BOTH {
        let rows = histories.of(store).rows().filter(|row| is_sealed(histories, row.version));
        applied.extend(rows.map(|row| (row.rank, row.version)));
    }
    applied.sort_unstable();
    let mut seen = BTreeSet::new();
    applied.retain(|(_, version)| seen.insert(*version));
    applied
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
fn check_readable(known: &Known<'_>, lives: &[Life]) -> Result<(), PlanError> {
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
fn check_stray(known: &Known<'_>, lives: &[Life]) -> Result<(), PlanError> {
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

/// Refuses before anything is changed.
fn check_reversible(known: &Known<'_>, life: &Life) -> Result<(), PlanError> {
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
    if !work.actions.is_empty() {
        return Ok((work, true));
    }

    let down = down_steps(known, version, &rollback)?;
    // All of this life are above all of the life before, whatever way they go.
    let attempt = forward(histories, version).map(|(_, _, state)| state.attempt).max().unwrap_or(1);
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
    let down: Vec<Step> = down
        .into_iter()
        .filter(|step| is_called_for(histories, version, &rollback, step))
        .collect();
    let mut open: Vec<StoreName> =
        order.into_iter().rev().filter(|store| !live_in(*store).is_empty()).collect();
    for (at, step) in down.iter().enumerate() {
        let store = step.store();
        let id = StepId { version, name: step.name.clone() };
        let step = with_commit(step, servers);
        // An older life has been reverted before, by steps of these names.
        let state = histories.of(store).step(&id).filter(|state| state.attempt >= attempt);
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
