//! Hooks: commands of the project that run around a run, and around each cleanup
//! in it. They get the event as one JSON object on their standard input.
//!
//! What runs before something runs under the lease, once the plan is made: in the
//! one process that has something to do, and not in those that wait for it.

use crate::core::duration::show;
use crate::core::id::Direction;
use crate::core::notice::{Notice, Notices};
use crate::core::plan::{Plan, Work};
use crate::core::status::without_number;
use crate::engine::program::{Ended, Launch, url_variables};
use crate::engine::{Stop, StopReason};
use crate::store::Run;
use serde_json::{Map, Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// When a hook runs.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Moment {
    /// Before a run of `up` changes anything.
    BeforeUp,
    /// After a run of `up` that succeeded.
    AfterUp,
    /// Before a run of `down` changes anything.
    BeforeDown,
    /// After a run of `down` that succeeded.
    AfterDown,
    /// Before the cleanup of a migration.
    BeforeCleanup,
    /// After the cleanup of a migration.
    AfterCleanup,
    /// After a run that failed.
    OnFailure,
}

impl Moment {
    /// As `[hooks]` and the event call it.
    pub fn word(self) -> &'static str {
        match self {
            Moment::BeforeUp => "before_up",
            Moment::AfterUp => "after_up",
            Moment::BeforeDown => "before_down",
            Moment::AfterDown => "after_down",
            Moment::BeforeCleanup => "before_cleanup",
            Moment::AfterCleanup => "after_cleanup",
            Moment::OnFailure => "on_failure",
        }
    }
}

/// A command of a hook.
#[derive(Clone, Eq, PartialEq)]
pub struct HookCommand {
    /// The program and its arguments.
    pub words: Vec<String>,
    /// As people see it, without what looks like a password.
    pub shown: String,
}

/// The hooks of a project, for one run.
pub struct Hooks {
    /// What runs when.
    pub commands: BTreeMap<Moment, Vec<HookCommand>>,
    /// Each of them is ended after this long.
    pub limit: Duration,
    /// Where they run.
    pub folder: PathBuf,
    /// For them, with its password.
    pub postgres_url: Option<String>,
    /// For them, with its password.
    pub mongo_url: Option<String>,
    /// What every event has.
    pub event: Map<String, Value>,
    /// The time, as events have it.
    pub now: fn() -> String,
    /// What the events of the run that began have; nothing, as long as none did.
    pub begun: RefCell<Option<Map<String, Value>>>,
}

/// Why a command of a hook did not do what it was to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HookError {
    /// It could not be started, said that it failed, or took too long.
    Failed {
        /// Which hook.
        moment: Moment,
        /// The command, as people see it.
        command: String,
        /// `failed with exit code 1`.
        how: String,
        /// The last lines of its standard error.
        last: Vec<String>,
    },
    /// It was ended because the run was to stop.
    Stopped(StopReason),
}

impl std::fmt::Display for HookError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HookError::Failed { moment, command, how, .. } => {
                write!(f, "the {} hook `{command}` {how}", moment.word())
            }
            HookError::Stopped(reason) => write!(f, "the hook was ended: {reason}"),
        }
    }
}

impl std::error::Error for HookError {}

impl Hooks {
    /// A run begins, with this plan and the lease: what runs before it.
    ///
    /// # Errors
    /// The first that fails; those behind it do not run, and neither may the run.
    pub(super) async fn begin(
        &self,
        run: &Run,
        plan: &Plan,
        stop: &Stop,
        notices: &mut dyn Notices,
    ) -> Result<(), HookError> {
        let mut event = self.event.clone();
        event.insert("command".to_owned(), run.command.clone().into());
        event.insert("run_id".to_owned(), run.id.clone().into());
        event.insert("release".to_owned(), run.release.clone().into());
        event.insert("user".to_owned(), format!("{}@{}", run.user, run.host).into());
        event.insert("migrations".to_owned(), plan.work.iter().map(migration).collect());
        self.begun.replace(Some(event.clone()));
        match run.command.as_str() {
            "up" => self.before(Moment::BeforeUp, event, stop, notices).await,
            "down" => self.before(Moment::BeforeDown, event, stop, notices).await,
            _ => Ok(()),
        }
    }

    /// The cleanup of a migration begins.
    ///
    /// # Errors
    /// The first that fails; the cleanup may not begin.
    pub(super) async fn before_cleanup(
        &self,
        work: &Work,
        stop: &Stop,
        notices: &mut dyn Notices,
    ) -> Result<(), HookError> {
        self.before(Moment::BeforeCleanup, self.of(work), stop, notices).await
    }

    /// The cleanup of a migration is done.
    pub(super) async fn after_cleanup(&self, work: &Work, stop: &Stop, notices: &mut dyn Notices) {
        let mut event = self.of(work);
        event.extend(ended("ok", 0, Value::Null));
        self.after(Moment::AfterCleanup, event, stop, notices).await;
    }

    /// Whether there is anything to run then.
    pub(super) fn has(&self, moment: Moment) -> bool {
        self.commands.get(&moment).is_some_and(|commands| !commands.is_empty())
    }

    /// A run has ended, one way or another, and its lease is given back. A run that
    /// did not begin has no end either. `outcome` is what `run_finished` says.
    pub async fn end(
        &self,
        moment: Moment,
        (outcome, exit_code, error): (&str, u8, Value),
        finished: &[u64],
        stop: &Stop,
        notices: &mut dyn Notices,
    ) {
        let Some(mut event) = self.begun.take() else { return };
        event.insert("finished".to_owned(), finished.into());
        event.extend(ended(outcome, exit_code, error));
        self.after(moment, event, stop, notices).await;
    }

    /// The event of one migration of the run.
    fn of(&self, work: &Work) -> Map<String, Value> {
        let mut event = self.begun.borrow().clone().unwrap_or_else(|| self.event.clone());
        event.insert("migrations".to_owned(), vec![migration(work)].into());
        event
    }

    /// The event as a command reads it.
    fn dated(&self, moment: Moment, mut event: Map<String, Value>) -> String {
        event.insert("v".to_owned(), 1.into());
        event.insert("event".to_owned(), moment.word().into());
        event.insert("at".to_owned(), (self.now)().into());
        for key in ["outcome", "exit_code", "error"] {
            event.entry(key).or_insert(Value::Null);
        }
        event.entry("finished").or_insert_with(|| json!([]));
        format!("{}\n", Value::Object(event))
    }

    async fn before(
        &self,
        moment: Moment,
        event: Map<String, Value>,
        stop: &Stop,
        notices: &mut dyn Notices,
    ) -> Result<(), HookError> {
        let event = self.dated(moment, event);
        for command in self.commands.get(&moment).into_iter().flatten() {
            let mut stop = stop.clone();
            self.run(moment, command, &event, stop.wait(), notices).await?;
        }
        Ok(())
    }

    /// One that fails is told, and keeps no other from running.
    async fn after(
        &self,
        moment: Moment,
        event: Map<String, Value>,
        stop: &Stop,
        notices: &mut dyn Notices,
    ) {
        let event = self.dated(moment, event);
        for command in self.commands.get(&moment).into_iter().flatten() {
            let mut stop = stop.clone();
            let done = self.run(moment, command, &event, stop.signal(), notices).await;
            if matches!(done, Err(HookError::Stopped(_))) {
                return;
            }
        }
    }

    async fn run(
        &self,
        moment: Moment,
        command: &HookCommand,
        event: &str,
        stop: impl Future<Output = StopReason>,
        notices: &mut dyn Notices,
    ) -> Result<(), HookError> {
        let began = Instant::now();
        let hook = moment.word();
        let urls = url_variables(self.postgres_url.as_deref(), self.mongo_url.as_deref());
        let run_id = self.begun.borrow().as_ref().and_then(|event| event.get("run_id").cloned());
        let run_id = run_id.as_ref().and_then(Value::as_str).map(str::to_owned);
        let ours = [("LOCKSTEP_EVENT", Some(hook.to_owned())), ("LOCKSTEP_RUN_ID", run_id)];
        let launch = Launch {
            command: &command.words,
            folder: &self.folder,
            variables: urls.chain(ours).collect(),
            input: Some(event.as_bytes()),
            limit: Some(self.limit),
        };
        notices.notice(Notice::HookStarted { hook, command: command.shown.clone() });
        let mut tell = |line: String, is_error: bool| {
            notices.notice(Notice::HookSaid { hook, is_error, line });
        };
        let failed = |how: String, last: Vec<String>| {
            let command = command.shown.clone();
            Err(HookError::Failed { moment, command, how, last })
        };
        let done = match launch.run(stop, &mut tell).await {
            Ok(Ended::Well) => Ok(()),
            Ok(Ended::Badly { how, last }) => failed(format!("failed with {how}"), last),
            Ok(Ended::Stopped(reason)) => Err(HookError::Stopped(reason)),
            Ok(Ended::TooLong { last }) => {
                failed(format!("was ended after {} (hooks.timeout)", show(self.limit)), last)
            }
            Err(error) => failed(
                format!("could not be started in {}: {error}", self.folder.display()),
                Vec::new(),
            ),
        };
        notices.notice(Notice::HookFinished {
            hook,
            command: command.shown.clone(),
            took: began.elapsed(),
            error: done.as_ref().err().map(ToString::to_string),
        });
        done
    }
}

/// A migration of a plan.
fn migration(work: &Work) -> Value {
    let direction = match work.direction {
        Direction::Up => "up",
        Direction::Down => "down",
    };
    json!({
        "version": work.version.0,
        "name": without_number(&work.folder),
        "direction": direction,
    })
}

/// What an event at the end of something has.
fn ended(outcome: &str, exit_code: u8, error: Value) -> [(String, Value); 3] {
    [
        ("outcome".to_owned(), outcome.into()),
        ("exit_code".to_owned(), exit_code.into()),
        ("error".to_owned(), error),
    ]
}
