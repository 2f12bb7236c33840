//! Notices: what the engine says while it works. Reporters turn them into
//! lines, progress bars, JSON or metrics; the engine itself never prints.

use crate::core::id::{Direction, StepName, StoreName, Version};
use std::time::Duration;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// The plan is made, and will be carried out.
    RunStarted {
        /// `up`, `down`, …
        command: &'static str,
        /// The run.
        run_id: String,
        /// How many migrations it is about.
        migrations: usize,
    },
    /// Somebody else holds the lease, and this run waits for it.
    Waiting {
        /// The store whose lease is held.
        store: StoreName,
        /// Who, where, since when, how long still.
        holder: String,
    },
    /// A migration is begun, or continued.
    MigrationStarted {
        /// Which.
        version: Version,
        /// Its folder.
        folder: String,
        /// Applied or reverted.
        direction: Direction,
    },
    /// A step is begun.
    StepStarted {
        /// Its migration.
        version: Version,
        /// Which.
        step: StepName,
        /// Where.
        store: StoreName,
        /// What it does, on one line.
        summary: String,
        /// It was in doubt, and is settled.
        settling: bool,
    },
    /// Another session was in a step's way: it left nothing, and is tried again.
    StepDelayed {
        /// Its migration.
        version: Version,
        /// Which.
        step: StepName,
        /// Where.
        store: StoreName,
        /// What the server said.
        said: String,
        /// What it waited for, if the server told: `AccessExclusiveLock on people`.
        lock: Option<String>,
        /// Who has that, if the server told.
        holder: Option<String>,
        /// How often it was tried.
        tried: u32,
        /// How often it will be, at most.
        tries: u32,
        /// When it is tried again.
        again: Duration,
    },
    /// A step is done and recorded.
    StepFinished {
        /// Its migration.
        version: Version,
        /// Which.
        step: StepName,
        /// Where.
        store: StoreName,
        /// How long it took.
        took: Duration,
    },
    /// A migration is done, and nothing of it is left to do.
    MigrationFinished {
        /// Which.
        version: Version,
        /// Its folder.
        folder: String,
        /// Applied or reverted.
        direction: Direction,
        /// How long it took in this run.
        took: Duration,
    },
    /// Something worth knowing.
    Remark(String),
}

/// Where notices go.
pub trait Notices {
    /// Takes one. Never fails, and never waits for long.
    fn notice(&mut self, notice: Notice);
}

impl<F: FnMut(Notice)> Notices for F {
    fn notice(&mut self, notice: Notice) {
        self(notice);
    }
}
