//! Failures as people and pipelines see them: what was being done, where, what
//! the database said, what to do next, and a code that stays.

#[cfg(feature = "cli")]
pub mod codes;
pub mod exit;
#[cfg(feature = "cli")]
pub mod pages;

use crate::core::backup::Required;
use crate::core::causes::chain;
use crate::core::id::{Direction, StepName};
use crate::core::plan::{BaselineError, PlanError};
use crate::core::problem::{Place, Problem};
use crate::core::step::{Body, Caller, Step};
use crate::core::verify;
use crate::engine::StopReason;
use crate::engine::baseline::FailedBaseline;
use crate::engine::execute::{Cause, ExecuteError, FailedAt};
use crate::engine::hook::{HookError, Moment};
use crate::engine::invariant::Broken;
use crate::engine::lock::{LockError, PairError};
use crate::engine::program::ProgramError;
use crate::engine::run::{RolledBack, RunError};
use crate::source::SourceError;
use crate::store::{Fate, Said, StoreError};
use exit::Exit;

/// Why a command did not do what it was asked to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// The way it ends.
    pub exit: Exit,
    /// A stable name: `CHECKSUM_MISMATCH`.
    pub code: &'static str,
    /// What went wrong, in one line.
    pub message: String,
    /// The file it is about, and the place in it.
    pub place: Option<(String, Option<Place>)>,
    /// More of it: `detail`, `hint`, …, each with its text.
    pub details: Vec<(&'static str, String)>,
    /// What to do next.
    pub next: Option<String>,
    /// It was told already, in the last object of a run.
    pub said: bool,
    /// Further failures of the same kind, as when several files are wrong.
    pub more: Vec<Failure>,
}

impl Failure {
    /// A failure that is about no file.
    pub fn new(exit: Exit, code: &'static str, message: impl Into<String>) -> Failure {
        Failure {
            exit,
            code,
            message: message.into(),
            place: None,
            details: Vec::new(),
            next: None,
            said: false,
            more: Vec::new(),
        }
    }

    /// With what to do next.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Failure {
        self.next = Some(next.into());
        self
    }

    /// With its files named from where the person stands, not from the migrations
    /// folder.
    #[must_use]
    pub fn in_folder(mut self, folder: &str) -> Failure {
        if let Some((file, _)) = &mut self.place {
            *file = format!("{folder}/{file}");
        }
        self.more = self.more.into_iter().map(|failure| failure.in_folder(folder)).collect();
        self
    }

    /// Migrations that cannot be read. `folder` is where they are, as it is told to
    /// people.
    pub fn of_source(error: SourceError, folder: &str) -> Failure {
        match error {
            SourceError::Problems(problems) => Failure::of_problems(problems).in_folder(folder),
            SourceError::Missing { .. } => Failure::new(
                Exit::Usage,
                "NO_MIGRATIONS",
                format!("there is no migrations folder `{folder}`"),
            )
            .next("`migrate init` makes one, `--dir` names another"),
            error @ SourceError::Io { .. } => {
                Failure::new(Exit::Usage, "NO_MIGRATIONS", chain(&error))
            }
        }
    }

    /// Wrong files; nothing was touched.
    pub fn of_problems(problems: Vec<Problem>) -> Failure {
        let mut failures = problems.into_iter().map(|problem| Failure {
            place: Some((problem.file, problem.at)),
            next: problem.hint,
            ..Failure::new(Exit::Usage, "BAD_MIGRATION", problem.message)
        });
        let first = failures.next();
        let mut first = first.unwrap_or_else(|| {
            Failure::new(Exit::Usage, "BAD_MIGRATION", "the migrations cannot be read")
        });
        first.more = failures.collect();
        first
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        let (exit, code, next) = match error.fate {
            // Outside of a migration's step: it refuses us, not a statement.
            Fate::Refused => (Exit::Unreachable, "DATABASE_REFUSED", Some(refused_next(&error))),
            Fate::Unreachable => (Exit::Unreachable, "UNREACHABLE", Some(unreachable_next(&error))),
            Fate::Unknown => {
                let next =
                    "run the same command again: it reads the history and goes on from there";
                (Exit::Unreachable, "CONNECTION_LOST", Some(next))
            }
            Fate::Fenced => {
                let next = "another run is at work; `migrate status` names it. Run the same command again when it is done";
                (Exit::Locked, "LEASE_LOST", Some(next))
            }
            Fate::Corrupt => {
                let next = "was it changed by hand, written by a newer release of migrate, or made by another program?";
                (Exit::Conflict, "HISTORY_CORRUPT", Some(next))
            }
        };
        let mut failure = Failure::new(exit, code, error.to_string());
        failure.details.extend(error.said.detail.map(|detail| ("detail", detail)));
        failure.details.extend(error.said.hint.map(|hint| ("hint", hint)));
        failure.next = next.map(str::to_owned);
        failure
    }
}

/// A server that says no is up.
fn unreachable_next(error: &StoreError) -> &'static str {
    let code = error.said.code.as_deref().unwrap_or_default();
    let is_login = code.contains("28P01")
        || code.contains("28000")
        || error.said.message.to_lowercase().contains("authentication failed");
    if is_login {
        "the server is up, and does not let this user in: check the user and the password (`migrate -v status` shows where the URL is from); then run the same command again"
    } else if code.contains("3D000") {
        "the server is up, and has no such database: create it, or mend its name in the URL; then run the same command again"
    } else {
        "check that the database is up and the URL is right (`migrate -v status` shows it); then run the same command again"
    }
}

/// What to do when a database answers, and will not have us.
fn refused_next(error: &StoreError) -> &'static str {
    match error.said.code.as_deref() {
        Some("SQLSTATE 42501" | "Unauthorized, code 13") => {
            "the user of this URL lacks a right: grant it, and run the same command again"
        }
        Some("SQLSTATE 25006") => {
            "here nothing can be written: is this a replica? Use the URL of the primary, and run the same command again"
        }
        _ => "no migration failed: see to what it says, and run the same command again",
    }
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Failure {
        let message = broken.to_string();
        let asked = broken.questions.into_iter().map(|question| ("asked", question));
        let sample = broken.sample.into_iter().map(|row| ("row", row));
        let mut failure = Failure::new(Exit::Invariant, "INVARIANT_BROKEN", message);
        failure.details = asked.chain(sample).collect();
        failure.next(broken.next.unwrap_or(
            "cleanup was not run, and what was done before is recorded; mend the data, and run `migrate up` (or `migrate cleanup`) again: it goes on here",
        ))
    }
}

impl From<ProgramError> for Failure {
    fn from(error: ProgramError) -> Failure {
        let message = error.to_string();
        match error {
            ProgramError::NotStarted { hint, .. } => {
                Failure::new(Exit::Failed, "PROGRAM_NOT_STARTED", message).next(hint)
            }
            ProgramError::Failed { last, .. } => {
                let mut failure = Failure::new(Exit::Failed, "PROGRAM_FAILED", message);
                failure.details = last.into_iter().map(|line| ("stderr", line)).collect();
                failure.next(
                    "its last lines say why; see to it, and run the same command again: the program is begun anew",
                )
            }
            ProgramError::Stopped(reason) => stopped(reason, message),
        }
    }
}

impl From<HookError> for Failure {
    fn from(error: HookError) -> Failure {
        let message = error.to_string();
        match error {
            HookError::Stopped(reason) => stopped(reason, message),
            HookError::Failed { moment, last, .. } => {
                let mut failure = Failure::new(Exit::Failed, "HOOK_FAILED", message);
                failure.details = last.into_iter().map(|line| ("stderr", line)).collect();
                failure.next(match moment {
                    Moment::BeforeCleanup => {
                        "the cleanup was not begun, and what was done before is recorded; see to the hook, and run the same command again"
                    }
                    _ => "nothing was changed; see to the hook, and run the same command again",
                })
            }
        }
    }
}

impl From<PairError> for Failure {
    fn from(error: PairError) -> Failure {
        let code = match error {
            PairError::Mismatch { .. } | PairError::OneSided { .. } => "PAIR_MISMATCH",
            PairError::Lost(_) => "PAIR_LOST",
        };
        Failure::new(Exit::Conflict, code, error.to_string()).next(error.hint())
    }
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Failure {
        let exit = match &error {
            PlanError::Edited { .. }
            | PlanError::Filled { .. }
            | PlanError::Taken { .. }
            | PlanError::EditedInDoubt { .. }
            | PlanError::Variables { .. }
            | PlanError::Missing(_)
            | PlanError::OutOfOrder { .. }
            | PlanError::Gap { .. }
            | PlanError::Forged { .. }
            | PlanError::Unreadable { .. }
            | PlanError::Stray { .. }
            | PlanError::Torn(_)
            | PlanError::BaselineOpen(_)
            | PlanError::NoRollback(_)
            | PlanError::BadRollback { .. } => Exit::Conflict,
            PlanError::UnknownVersion(_)
            | PlanError::NotApplied(_)
            | PlanError::NotHeld { .. }
            | PlanError::UnknownRelease(_)
            | PlanError::Nothing { .. }
            | PlanError::Unready { .. }
            | PlanError::NoStore { .. }
            | PlanError::DropsHistory { .. } => Exit::Usage,
            PlanError::Irreversible { .. }
            | PlanError::Baseline(_)
            | PlanError::NoFunction { .. }
            | PlanError::Requires { .. } => Exit::Refused,
        };
        let code = verify::code(&error);
        // Each with its line.
        if let PlanError::Unready { problems, .. } = error {
            let mut failure = Failure::of_problems(problems);
            failure.code = code;
            failure.more.iter_mut().for_each(|it| it.code = code);
            return failure;
        }
        let next = error.hint();
        Failure::new(exit, code, error.to_string()).next(next)
    }
}

impl From<FailedBaseline> for Failure {
    fn from(error: FailedBaseline) -> Failure {
        let error = match error {
            FailedBaseline::Run(error) => return error.into(),
            FailedBaseline::Baseline(BaselineError::Plan(error)) => return error.into(),
            FailedBaseline::Baseline(error) => error,
        };
        let (exit, code) = match error {
            BaselineError::NoFile { .. } => (Exit::Usage, "UNKNOWN_VERSION"),
            BaselineError::Begun { .. } | BaselineError::Plan(_) => {
                (Exit::Conflict, "ALREADY_APPLIED")
            }
        };
        Failure::new(exit, code, error.to_string()).next(error.hint())
    }
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Failure {
        match error {
            LockError::Store(error) => error.into(),
            LockError::Pair(error) => error.into(),
            LockError::Held { .. } => Failure::new(Exit::Locked, "LOCKED", error.to_string())
                .next("wait for it (`--lock-wait 10m`); if that run is dead, its lease runs out by itself"),
            LockError::Lost { .. } => Failure::new(Exit::Locked, "LEASE_LOST", error.to_string())
                .next("what was done is recorded; run the same command again"),
            LockError::Stopped(reason) => stopped(reason, error.to_string()),
        }
    }
}

/// Somebody asked for it.
pub fn stopped(reason: StopReason, message: String) -> Failure {
    let (exit, code) = match reason {
        StopReason::Interrupted => (Exit::Interrupted, "INTERRUPTED"),
        StopReason::Terminated => (Exit::Terminated, "INTERRUPTED"),
        StopReason::TimedOut => (Exit::Timeout, "TIMEOUT"),
    };
    Failure::new(exit, code, message)
        .next("what was done is recorded, and the lease is given back; the same command goes on")
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Failure {
        match error {
            RunError::Store(error) => error.into(),
            RunError::Pair(error) => error.into(),
            RunError::Plan(error) => error.into(),
            RunError::Lock(error) => error.into(),
            RunError::Execute(error) => of_execution(*error),
            RunError::RolledBack(error) => rolled_back(*error),
            RunError::Hook(error) => error.into(),
            RunError::Changed => Failure::new(Exit::Conflict, "PLAN_CHANGED", error.to_string())
                .next("nothing was changed; look at `migrate status`, and decide again"),
        }
    }
}

fn of_execution(error: ExecuteError) -> Failure {
    let ExecuteError { finished, at, cause } = error;
    let stopped_by_request = matches!(cause, Cause::Stopped(_));
    let mut failure = match cause {
        // A guard of the step said no, not the server.
        Cause::Store(StoreError { said: Said { broken: Some(broken), .. }, .. }) => {
            Failure::from(*broken)
        }
        Cause::Store(error) => {
            let place = at.as_ref().and_then(|at| {
                place(at, error.said.statement?, error.said.position.unwrap_or(0))
            });
            let refused = error.fate == Fate::Refused && at.is_some();
            let failure = Failure { place, ..error.into() };
            match refused {
                true => Failure { exit: Exit::Failed, code: "STEP_FAILED", next: None, ..failure },
                false => failure,
            }
        }
        Cause::Obstacle(obstacle) => {
            let next = "nothing of it was touched; rename or drop what is in the way, or change the step";
            let place = at.as_ref().and_then(|at| place(at, 0, 0));
            Failure { place, ..Failure::new(Exit::Failed, "NAME_TAKEN", obstacle).next(next) }
        }
        Cause::Broken(broken) => Failure::from(*broken),
        Cause::Program(error) => Failure::from(error),
        Cause::Hook(error) => Failure::from(error),
        Cause::Backup { folder, required } => no_backup(&folder, &required),
        Cause::Ask => Failure {
            place: at.as_ref().and_then(|at| place(at, 0, 0)),
            ..Failure::new(
                Exit::Failed,
                "IN_DOUBT",
                "the step was interrupted, and no question to the server tells whether it happened",
            )
            .next(match &at {
                Some(at) => {
                    let mut step = format!("{}/{}", at.version, at.step.name);
                    // Its name alone does not tell where it is recorded.
                    if let StepName::Named { .. } = at.step.name {
                        step = format!("{step} --store {}", at.step.store().word());
                    }
                    format!("look at the database; if it has happened, `migrate repair --mark-applied {step}`; if nothing of it is there, `migrate repair --mark-reverted {step}`")
                }
                None => "look at the database, and say so with `migrate repair`".to_owned(),
            })
        },
        Cause::Stopped(reason) => stopped(reason, format!("stopped between two steps: {reason}")),
    };
    if let Some(at) = &at {
        if failure.place.is_none() && !stopped_by_request {
            failure.place = Some((at.step.file.clone(), None));
        }
        failure.details.insert(
            0,
            ("step", format!("{} of {}, in {}", at.step.name, at.folder, at.step.store().title())),
        );
        if failure.exit == Exit::Failed && failure.next.is_none() {
            failure.next = Some(match at.direction {
                _ if calls(&at.step).is_some() => format!(
                    "nothing of this batch was written; {} and run the same command again: it goes on with this batch",
                    mend(&at.step)
                ),
                Direction::Up => format!(
                    "{} and run the same command again: it goes on at this step",
                    mend(&at.step)
                ),
                Direction::Down => "this script is the one that the history keeps, and no edit of the file changes it: make the database such that it works, and run the same command again: it goes on at this step".to_owned(),
            });
        }
    }
    if !finished.is_empty() {
        let versions: Vec<String> = finished.iter().map(ToString::to_string).collect();
        failure.details.push(("done before", versions.join(", ")));
    }
    failure
}

/// The function that a backfill calls.
fn calls(step: &Step) -> Option<&str> {
    let mut functions = step.functions();
    functions.find(|(caller, _)| matches!(caller, Caller::Batches(_))).map(|(_, name)| name)
}

/// What there is to mend about a step that failed.
fn mend(step: &Step) -> String {
    match calls(step) {
        Some(name) => format!("mend the function `{name}`, or what it met,"),
        None => format!("correct the statement in {}", step.file),
    }
}

/// A cleanup that may not begin without a backup.
fn no_backup(folder: &str, required: &Required) -> Failure {
    let message = format!("the cleanup of {folder} needs {required}");
    let lacking: Vec<&str> = required.lacking().iter().map(|store| store.title()).collect();
    let record = match required.lacking().as_slice() {
        [store] => format!("migrate backup record --store {}", store.word()),
        _ => "migrate backup record".to_owned(),
    };
    Failure::new(Exit::Refused, "BACKUP_REQUIRED", message).next(format!(
        "nothing of the cleanup was run, and what was done before is recorded; back {} up, say so with `{record}`, and run the same command again: it goes on at the cleanup",
        lacking.join(" and ")
    ))
}

/// Why a migration failed, before everything else; then what became of the way
/// back.
fn rolled_back(error: RolledBack) -> Failure {
    let RolledBack { failed, back } = error;
    let at = failed.at.clone();
    let mut failure = of_execution(failed);
    let folder = at.as_ref().map_or("the migration", |at| at.folder.as_str());
    let (what, next) = match &back {
        Ok(()) => {
            (format!("all that {folder} had done was taken back"), "it begins anew".to_owned())
        }
        // It stands where it stopped, as without a way back.
        Err(RunError::Plan(error)) => {
            (format!("no: {error}"), "it goes on at this step".to_owned())
        }
        Err(_) => (
            "no: the way back failed too".to_owned(),
            "it finishes the way back first, and then begins anew".to_owned(),
        ),
    };
    failure.details.push(("rolled back", what));
    if failure.code == "STEP_FAILED" {
        let mend = at.as_ref().map_or("correct the statement".to_owned(), |at| mend(&at.step));
        failure.next = Some(format!("{mend} and run the same command again: {next}"));
    }
    failure.more = match back {
        Ok(()) | Err(RunError::Plan(_)) => Vec::new(),
        Err(error) => vec![error.into()],
    };
    failure
}

/// The line of the file in which a statement of the step stands, and a character
/// of it, from 0.
fn place(at: &FailedAt, index: usize, position: usize) -> Option<(String, Option<Place>)> {
    let (text, first_line) = statement(&at.step, index)?;
    let byte = text.char_indices().nth(position).map_or(0, |(byte, _)| byte);
    let word =
        text[byte..].find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len() - byte);
    let mut place = Place::of(&text, byte..byte + word.max(1));
    place.line = place.line.saturating_add(first_line).saturating_sub(1);
    Some((at.step.file.clone(), Some(place)))
}

fn statement(step: &Step, index: usize) -> Option<(String, u32)> {
    match &step.body {
        Body::Postgres(body) => {
            let statement = body.statements.get(index)?;
            Some((statement.text.clone(), statement.line))
        }
        Body::Mongo(body) => Some((body.text.clone(), step.line)),
        // What they ask is put together from several keys of `migration.toml`.
        Body::Backfill(_) | Body::Check(_) | Body::Program(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::id::StoreName;

    fn broken() -> Broken {
        Broken {
            name: "no user lost a role".to_owned(),
            questions: vec!["SELECT count(*) FROM users".to_owned()],
            expected: ">= 10".to_owned(),
            found: "7".to_owned(),
            sample: vec!["id = 7, role = NULL".to_owned()],
            next: None,
        }
    }

    #[test]
    fn a_broken_invariant_has_a_code_of_its_own() {
        let failure = Failure::from(broken());
        assert_eq!((failure.exit.code(), failure.code), (6, "INVARIANT_BROKEN"));
        let message = "the invariant `no user lost a role` does not hold: expected >= 10, found 7";
        assert_eq!(failure.message, message);
        let details = [("asked", "SELECT count(*) FROM users"), ("row", "id = 7, role = NULL")];
        assert_eq!(failure.details, details.map(|(word, text)| (word, text.to_owned())));
        let next = failure.next.expect("there is something to do");
        assert!(next.starts_with("cleanup was not run"), "{next}");
        assert!(next.contains("mend the data"), "{next}");
    }

    #[test]
    fn a_guard_that_refuses_a_step_is_a_broken_invariant() {
        let error = StoreError::broken(StoreName::Postgres, "check the invariant", broken());
        let error = ExecuteError { finished: Vec::new(), at: None, cause: error.into() };
        assert_eq!(of_execution(error), Failure::from(broken()));
    }

    #[test]
    fn a_program_that_fails_is_told_with_its_last_lines() {
        let failure = Failure::from(ProgramError::Failed {
            command: "node run.js".to_owned(),
            how: "exit code 3".to_owned(),
            last: vec!["boom".to_owned()],
        });
        assert_eq!((failure.exit, failure.code), (Exit::Failed, "PROGRAM_FAILED"));
        assert_eq!(failure.message, "the program `node run.js` failed with exit code 3");
        assert_eq!(failure.details, [("stderr", "boom".to_owned())]);
    }
}
