//! Why is there no plan, and what to do next?
//!
//! Nothing was changed when one of these is returned.

use crate::core::checksum::Checksum;
use crate::core::history::RowStatus;
use crate::core::id::{Direction, StepId, StepName, StoreName, Version};
use crate::core::problem::Problem;
use crate::core::step::Caller;
use std::fmt;

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
    /// Exit code 5. What is recorded is a script of nothing but comments: its text came
    /// later.
    #[error(
        "step {step} of {folder} was applied when its file had no statement; what stands there now was never run"
    )]
    Filled {
        /// The migration's folder.
        folder: String,
        /// Its version.
        version: Version,
        /// The step.
        step: StepName,
    },
    /// Exit code 5.
    #[error(
        "{version} was applied as `{applied}`, and the file here is another migration: {folder}"
    )]
    Taken {
        /// The folder that has the number now.
        folder: String,
        /// The number.
        version: Version,
        /// The name of the migration that was applied under it, without its number.
        applied: String,
        /// The number that a new migration would get.
        next: Version,
    },
    /// Exit code 5.
    #[error(
        "step {step} of {folder} was begun with other values of its template's variables, and the migration is not finished"
    )]
    Variables {
        /// The migration's folder.
        folder: String,
        /// Its version.
        version: Version,
        /// The step.
        step: StepName,
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
    #[error("`migrate baseline {0}` was begun and did not come to its end")]
    BaselineOpen(Version),
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
    #[error("{folder} has nothing to apply: there is no statement in its files, only comments")]
    Nothing {
        /// The migration's folder.
        folder: String,
        /// Its version.
        version: Version,
    },
    /// Exit code 2.
    #[error("{folder} cannot be applied: {}", told(.problems))]
    Unready {
        /// The migration's folder.
        folder: String,
        /// Its version.
        version: Version,
        /// What keeps it from being applied, each with its place.
        problems: Vec<Problem>,
        /// It is a template without all of its values.
        is_unfilled: bool,
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
    #[error(
        "{folder} calls `{function}`{when}, which is a function of a service and not of this program",
        when = match .caller {
            Caller::Script => String::new(),
            Caller::Batches(store) => format!(" for each batch of a backfill in {}", store.title()),
        }
    )]
    NoFunction {
        /// The migration's folder.
        folder: String,
        /// What the function is called.
        function: String,
        /// What calls it.
        caller: Caller,
        /// What it is called for.
        direction: Direction,
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

/// The first problem, and how many there are besides.
pub(in crate::core) fn told(problems: &[Problem]) -> String {
    let Some((first, others)) = problems.split_first() else { return String::new() };
    let first = Problem { hint: None, ..first.clone() };
    match others.len() {
        0 => first.to_string(),
        others => format!("{first} (and {others} more)"),
    }
}

impl PlanError {
    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            PlanError::Edited { version, .. } => format!(
                "restore the file as it was, and put the change into a new migration; if the edit does not matter, `migrate repair --accept-checksum {version}`"
            ),
            PlanError::Filled { version, .. } => format!(
                "restore the file as it was, and put the statements into a new migration; or, if nothing was applied after it, `migrate down` takes {version} back and `migrate up` applies what it says now"
            ),
            PlanError::Taken { applied, next, version, .. } => format!(
                "give the new migration the next number ({next}), and restore the folder of {version} `{applied}` from version control"
            ),
            PlanError::Nothing { .. } => "write into its files what it does, `SELECT 1;` if that is nothing; delete the folder if no database has applied it".to_owned(),
            PlanError::Unready { problems, .. } => {
                problems.iter().find_map(|it| it.hint.clone()).unwrap_or_default()
            }
            PlanError::Variables { .. } => "what is left of it belongs to what is applied: run it with the values of then (`--var`, MIGRATE_VAR_…, [vars] in migrate.toml), or take back with `migrate down` what is applied".to_owned(),
            PlanError::EditedInDoubt { step, store, .. } => format!(
                "only its old text tells what is left of it: restore the text and run `migrate up` again, which settles the step, and edit it then; or look at {title}, and when nothing of the step is there, `migrate repair --mark-reverted {step} --store {store}`",
                title = store.title()
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
                "somebody changed the history by hand; if its effect is there, `migrate repair --mark-applied {step}`; if it is not, `migrate repair --mark-reverted {step}`, and `migrate up` runs it"
            ),
            PlanError::UnknownVersion(_) | PlanError::NotApplied(_) | PlanError::NotHeld { .. } | PlanError::UnknownRelease(_) => "`migrate status` lists what there is".to_owned(),
            PlanError::Irreversible { .. } => "nothing was changed; write a new migration that leads away from it".to_owned(),
            PlanError::Baseline(version) => format!("nothing was changed; `--to {version}` stops above it; if nothing of it is there any more, `migrate repair --mark-reverted {version}` says so"),
            PlanError::BaselineOpen(version) => format!(
                "nothing was changed; `migrate baseline {version}` (or the `migrate import` that began it) records the rest, which would be run otherwise"
            ),
            PlanError::NoRollback(_) => "restore the migration's folder and run the command again".to_owned(),
            PlanError::BadRollback { .. } => "was it written by a newer release of migrate, or changed by hand? Restore the row from the other store or a backup".to_owned(),
            PlanError::NoStore { store: StoreName::Postgres, .. } => "set DATABASE_URL or `--postgres`, or take the .sql files out".to_owned(),
            PlanError::NoStore { store: StoreName::Mongo, .. } => "set MONGODB_URI or `--mongo`, or take the .mongodb.js files out".to_owned(),
            PlanError::DropsHistory { .. } => "drop the collections by name".to_owned(),
            PlanError::NoFunction { direction: Direction::Up, .. } => "nothing was changed; the service applies it when it starts, and all before it; `--to` stops below it".to_owned(),
            PlanError::NoFunction { direction: Direction::Down, .. } => "nothing was changed; it is reverted by the service (`Migrator::down`), in a release that has the function".to_owned(),
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
