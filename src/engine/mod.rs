//! Acts: carries out what `core` decides, through the [`Store`] trait.
//!
//! Reading order: [`run`], [`lock`], [`execute`], [`backfill`].
//!
//! [`Store`]: crate::store::Store

pub mod backfill;
pub mod baseline;
pub mod compare;
pub mod execute;
pub mod hook;
pub mod invariant;
mod join;
pub mod lock;
pub mod program;
pub mod repair;
pub mod run;
pub mod wait;

use crate::core::history::Timestamp;
use crate::core::pace;
use hook::Hooks;
use std::fmt;
use std::path::Path;
use std::time::Duration;
use tokio::sync::watch;

/// Tells the time. The engine writes it into rows for people to read; no
/// decision depends on it.
pub trait Clock {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The clock of this machine.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp(chrono::Utc::now().timestamp_millis())
    }
}

/// How what `migration.toml` names is carried out.
#[derive(Clone, Copy)]
pub struct Means<'a> {
    /// The project's pace of backfills.
    pub pace: &'a pace::Settings,
    /// The minute of the day, where the window of that pace is.
    pub minute: &'a dyn Fn() -> u16,
    /// Where the folders of the migrations are: programs run in them.
    pub migrations: &'a Path,
    /// For programs, with its password.
    pub postgres_url: Option<&'a str>,
    /// For programs, with its password.
    pub mongo_url: Option<&'a str>,
    /// What else runs before and after; repairs have none.
    pub hooks: Option<&'a Hooks>,
    /// A cleanup begins only with backups that are younger; repairs need none.
    pub require_backup: Option<Duration>,
}

/// Why a run should stop before it is done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StopReason {
    /// SIGINT.
    Interrupted,
    /// SIGTERM.
    Terminated,
    /// `--timeout` ran out.
    TimedOut,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StopReason::Interrupted => "interrupted",
            StopReason::Terminated => "told to terminate",
            StopReason::TimedOut => "out of time (--timeout)",
        })
    }
}

/// Asks a run to stop between two steps.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<Option<StopReason>>);

impl Stop {
    /// A stop, and the handle that asks for it.
    pub fn new() -> (watch::Sender<Option<StopReason>>, Stop) {
        let (sender, receiver) = watch::channel(None);
        (sender, Stop(receiver))
    }

    /// Whether somebody asked.
    pub fn requested(&self) -> Option<StopReason> {
        *self.0.borrow()
    }

    /// Waits until somebody asks. Never returns if nobody can any more.
    pub async fn wait(&mut self) -> StopReason {
        match self.0.wait_for(Option::is_some).await {
            Ok(reason) => reason.expect("waited for Some"),
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits until somebody asks by a signal: what follows a run is not cut off
    /// because the run's own time was over.
    pub async fn signal(&mut self) -> StopReason {
        let is_signal = |reason: &Option<StopReason>| {
            matches!(reason, Some(StopReason::Interrupted | StopReason::Terminated))
        };
        match self.0.wait_for(is_signal).await {
            Ok(reason) => reason.expect("waited for Some"),
            Err(_) => std::future::pending().await,
        }
    }
}
