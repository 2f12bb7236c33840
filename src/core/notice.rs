//! Notices: what the engine says while it works. Reporters turn them into
//! lines, progress bars, JSON or metrics; the engine itself never prints.

use crate::core::compare::Difference;
use crate::core::id::{Direction, StepName, StoreName, Version};
use crate::core::pace::Unwatched;
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
        /// So many characters has the longest name of its steps, for columns.
        longest: usize,
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
    /// A step is still at work: about once a second.
    StepProgress(StepProgress),
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
    /// How far a backfill is: about once a second, and when it ends.
    BackfillProgress(Box<BackfillProgress>),
    /// A batch of a backfill is written. There may be many a second: only whoever
    /// [wants](Notices::wants_batches) them is told.
    BatchFinished {
        /// Its migration.
        version: Version,
        /// Which backfill.
        step: StepName,
        /// The store that it writes.
        store: StoreName,
        /// The range of keys that it is of, counted from 1.
        shard: u32,
        /// Rows that were rewritten.
        rows: u64,
        /// Keys that were passed, rewritten or not.
        passed: u64,
        /// How long it took, its commit included.
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
    /// An invariant was checked, and holds or does not.
    InvariantChecked {
        /// Its migration.
        version: Version,
        /// What it is called.
        name: String,
        /// It does.
        holds: bool,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
        /// Rows that offend, each on one line.
        sample: Vec<String>,
        /// What a comparison found that is not the same, as far as it is told one by
        /// one.
        differences: Vec<Difference>,
        /// How many they are in all; `None` if it is no comparison.
        count: Option<u64>,
        /// How long it took.
        took: Duration,
    },
    /// How far a comparison is: about once a second, and when it ends.
    ComparisonProgress(ComparisonProgress),
    /// A program of a migration wrote a line.
    ProgramSaid {
        /// Its migration.
        version: Version,
        /// Which program.
        step: StepName,
        /// To its standard error.
        is_error: bool,
        /// What it wrote.
        line: String,
    },
    /// A command of a hook is begun.
    HookStarted {
        /// `before_up`, …
        hook: &'static str,
        /// The command.
        command: String,
    },
    /// A command of a hook wrote a line.
    HookSaid {
        /// Which hook.
        hook: &'static str,
        /// To its standard error.
        is_error: bool,
        /// What it wrote.
        line: String,
    },
    /// A command of a hook has ended.
    HookFinished {
        /// Which hook.
        hook: &'static str,
        /// The command.
        command: String,
        /// How long it took.
        took: Duration,
        /// Why it did not do what it was to do.
        error: Option<String>,
    },
    /// Something worth knowing.
    Remark(String),
}

/// A step is still at work.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StepProgress {
    /// Its migration.
    pub version: Version,
    /// Which.
    pub step: StepName,
    /// Where.
    pub store: StoreName,
    /// For how long.
    pub took: Duration,
    /// What the server says that it does, if it says anything.
    pub doing: Option<Doing>,
    /// So many of its units a second, since it began with this part.
    pub rate: u64,
    /// About how long this part still takes.
    pub left: Option<Duration>,
}

/// What a server says that it does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Doing {
    /// `building index: scanning table`.
    pub what: String,
    /// How much of it is done.
    pub done: u64,
    /// Of how much; 0 where nobody knows.
    pub total: u64,
    /// Of what: `blocks`, `rows`.
    pub unit: &'static str,
}

impl Doing {
    /// How much of it is done, in percent; `None` where nobody knows.
    pub fn percent(&self) -> Option<u64> {
        let percent = self.done.saturating_mul(100).checked_div(self.total)?;
        Some(percent.min(100))
    }
}

/// How far a backfill is.
#[derive(Clone, Debug, PartialEq)]
pub struct BackfillProgress {
    /// Its migration.
    pub version: Version,
    /// Which.
    pub step: StepName,
    /// The store that it writes.
    pub store: StoreName,
    /// Rows that were rewritten, in all runs and by all processes.
    pub rows: u64,
    /// Keys that were passed, rewritten or not.
    pub passed: u64,
    /// Rows that are put aside, in all runs and by all processes.
    pub rejected: u64,
    /// About how many keys there are to pass.
    pub estimate: u64,
    /// Keys per second in the last seconds.
    pub rate_now: u64,
    /// Keys per second since this run began with it.
    pub rate: u64,
    /// About how long it still takes, while anything can be said about it.
    pub left: Option<Duration>,
    /// Rows in a batch.
    pub batch: u64,
    /// Whether it goes, and how.
    pub state: BackfillState,
    /// Probes that tell nothing: in the first one after they were asked, and in no
    /// other.
    pub unwatched: Vec<Unwatched>,
}

impl BackfillProgress {
    /// How much of it is done, in percent; never more than 100, though more may
    /// have come than was estimated.
    pub fn percent(&self) -> u64 {
        match self.estimate {
            0 => 0,
            estimate => (self.passed.saturating_mul(100) / estimate).min(100),
        }
    }
}

/// How far a comparison is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ComparisonProgress {
    /// Its migration.
    pub version: Version,
    /// What the invariant is called.
    pub name: String,
    /// Rows that were compared.
    pub rows: u64,
    /// About how many there are.
    pub estimate: u64,
    /// Rows per second since this run began with it.
    pub rate: u64,
    /// Differences that are looked at again before they count.
    pub undecided: usize,
    /// All rows were read: nothing is left but to look again.
    pub is_read: bool,
}

impl ComparisonProgress {
    /// How much of it is done, in percent.
    pub fn percent(&self) -> u64 {
        match self.estimate {
            _ if self.is_read => 100,
            0 => 0,
            estimate => (self.rows.saturating_mul(100) / estimate).min(100),
        }
    }
}

/// Whether a backfill goes, and how.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum BackfillState {
    /// As fast as it may.
    Running,
    /// Slower than it could, and why.
    Slow(String),
    /// It stands still, and why.
    Stopped(String),
}

/// Where notices go.
pub trait Notices {
    /// Takes one. Never fails, and never waits for long.
    fn notice(&mut self, notice: Notice);

    /// Whether each batch of a backfill is of interest, too.
    fn wants_batches(&self) -> bool {
        false
    }
}

impl<F: FnMut(Notice)> Notices for F {
    fn notice(&mut self, notice: Notice) {
        self(notice);
    }
}
