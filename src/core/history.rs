//! History: what a store remembers.
//!
//! The truth is `migration_steps`, an append-only table of [`Record`]s, each
//! kept by the store that its step writes. What they add up to is a [`Status`].
//! Order does not matter: an attempt's events are a ladder, and the highest
//! rung that was recorded counts. So two histories can be read at different
//! moments, in any order, and no clock is asked.

use crate::core::checksum::Checksum;
use crate::core::id::{Direction, ParseIdError, StepId, StepName, StoreName, Version};
use crate::core::migration::Rollback;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// What a record says about a step. Later variants are higher rungs.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Event {
    /// A journaled step is about to run.
    Started,
    /// A backfill has come this far.
    Progress,
    /// The step has taken effect.
    Applied,
    /// Its migration is being reverted: announced in every store that has a step
    /// of it, before the first down step of any store runs. A store that says
    /// `applied` beside one that says `reverted` was therefore restored from an
    /// older backup; no crash leaves that.
    Reverting,
    /// Its effect is gone. The step may run again, as the next attempt.
    Reverted,
}

impl Event {
    /// All of them, lowest rung first.
    pub const ALL: [Event; 5] =
        [Event::Started, Event::Progress, Event::Applied, Event::Reverting, Event::Reverted];

    /// The word in the history.
    pub fn word(self) -> &'static str {
        match self {
            Event::Started => "started",
            Event::Progress => "progress",
            Event::Applied => "applied",
            Event::Reverting => "reverting",
            Event::Reverted => "reverted",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Event {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Event::ALL
            .into_iter()
            .find(|event| event.word() == text)
            .ok_or_else(|| ParseIdError { what: "event", text: text.to_owned() })
    }
}

/// One record: (`step`, `attempt`, `event`) is its key, so two engines that race
/// cannot both write it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// The step.
    pub step: StepId,
    /// From 1; grows when a reverted step runs again.
    pub attempt: u32,
    /// What happened.
    pub event: Event,
    /// The migration's position in the order of application, from 1. It is
    /// kept here, not only in `migration_history`, because decisions read it.
    pub rank: u32,
    /// Of the step's own text.
    pub checksum: Checksum,
    /// Of the migration's folder at the time.
    pub migration_checksum: Checksum,
}

/// What the records of a step add up to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Status {
    /// It never ran, or was reverted.
    #[default]
    Pending,
    /// It was announced and never finished: absent, half there or complete.
    InDoubt,
    /// Done.
    Applied,
    /// Done, and its migration is on the way back.
    Reverting,
}

/// The state of one step.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StepState {
    /// The newest attempt.
    pub attempt: u32,
    /// The events of that attempt.
    pub events: BTreeSet<Event>,
    /// See [`Record::rank`].
    pub rank: u32,
    /// See [`Record::checksum`]; of the newest record.
    pub checksum: Checksum,
    /// See [`Record::migration_checksum`]; of the newest record.
    pub migration_checksum: Checksum,
}

impl StepState {
    /// A record of another event of the same step and attempt.
    pub fn record(&self, step: StepId, event: Event) -> Record {
        Record {
            step,
            attempt: self.attempt,
            event,
            rank: self.rank,
            checksum: self.checksum,
            migration_checksum: self.migration_checksum,
        }
    }

    /// What the events add up to.
    pub fn status(&self) -> Status {
        match self.events.last() {
            None | Some(Event::Reverted) => Status::Pending,
            Some(Event::Started | Event::Progress) => Status::InDoubt,
            Some(Event::Applied) => Status::Applied,
            Some(Event::Reverting) => Status::Reverting,
        }
    }
}

/// The status of a migration's row in `migration_history`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum RowStatus {
    /// Begun and not finished, whether or not somebody is at it.
    Running,
    /// Everything but its cleanup is done.
    Held,
    /// Done.
    Completed,
    /// It was there before this engine was.
    Baseline,
}

impl RowStatus {
    /// All of them.
    pub const ALL: [RowStatus; 4] =
        [RowStatus::Running, RowStatus::Held, RowStatus::Completed, RowStatus::Baseline];

    /// The word in the history.
    pub fn word(self) -> &'static str {
        match self {
            RowStatus::Running => "running",
            RowStatus::Held => "held",
            RowStatus::Completed => "completed",
            RowStatus::Baseline => "baseline",
        }
    }

    /// Whether nothing of the migration is left to do.
    pub fn is_done(self) -> bool {
        matches!(self, RowStatus::Completed | RowStatus::Baseline)
    }
}

impl fmt::Display for RowStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for RowStatus {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        RowStatus::ALL
            .into_iter()
            .find(|status| status.word() == text)
            .ok_or_else(|| ParseIdError { what: "migration status", text: text.to_owned() })
    }
}

/// Milliseconds since 1970, UTC: what both databases can hold exactly.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Timestamp(pub i64);

/// A migration's row in `migration_history`, the same in both stores. It is
/// derived from the records: when it is lost it is written again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Row {
    /// Its key.
    pub version: Version,
    /// See [`Record::rank`].
    pub rank: u32,
    /// The folder's name: `002-refactor-user-roles`.
    pub migration_name: String,
    /// For people.
    pub description: String,
    /// Of the folder.
    pub checksum: Checksum,
    /// Where it stands.
    pub status: RowStatus,
    /// When its first step began, by the engine's clock.
    pub executed_at: Timestamp,
    /// When its last step was done; `None` while it runs.
    pub finished_at: Option<Timestamp>,
    /// How long its steps took, summed over the runs that it needed.
    pub execution_time_ms: u64,
    /// `user@host`.
    pub applied_by: String,
    /// `--release`.
    pub release: Option<String>,
    /// The version of this program.
    pub tool_version: String,
    /// The run that began it, or finished it last.
    pub run_id: String,
}

/// One write into a store's history. Entries of one call are written together,
/// in order, or not at all.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Entry {
    /// A step's record.
    Record(Record),
    /// A migration's row, inserted or replaced.
    Row(Box<Row>, Rollback),
    /// A reverted migration's row goes.
    RowGone(Version),
}

/// What one store says, as it was read.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Snapshot {
    /// `migration_steps`, in any order.
    pub records: Vec<Record>,
    /// `migration_history`, in any order.
    pub rows: Vec<Row>,
    /// The pair's UUID from `migration_control`; `None` on a database that this
    /// engine never wrote.
    pub pair: Option<String>,
    /// The lease, while somebody has it.
    pub lease: Option<LeaseSeen>,
    /// What is in the two, and is nothing that this engine writes.
    pub unreadable: Vec<Unreadable>,
}

/// A record or a row that is nothing that this engine writes: somebody changed it
/// by hand.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unreadable {
    /// Where it stands.
    pub table: Table,
    /// The migration it is about, as far as that can be read.
    pub version: Option<Version>,
    /// Its key, as its store finds it again.
    pub key: String,
    /// Which one it is and what is wrong with it, for people.
    pub what: String,
}

/// The two of our tables that a plan is made of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Table {
    /// `migration_steps`: the truth.
    Steps,
    /// `migration_history`: derived from it.
    History,
}

impl Table {
    /// Its name, in both stores.
    pub fn name(self) -> &'static str {
        match self {
            Table::Steps => "migration_steps",
            Table::History => "migration_history",
        }
    }
}

/// A lease that has not run out, by the clock of the store that keeps it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LeaseSeen {
    /// `user@host, pid 12`.
    pub holder: String,
    /// The run.
    pub run_id: String,
    /// When it runs out unless it is renewed.
    pub expires_at: Timestamp,
}

/// A row of `migration_runs`: one command that changed something, or tried to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RunSeen {
    /// Its key.
    pub run_id: String,
    /// `up`, `down`, …
    pub command: String,
    /// `user@host`.
    pub started_by: String,
    /// When it took the lease.
    pub started_at: Timestamp,
    /// When it gave it back; `None` while it runs, or when it died.
    pub finished_at: Option<Timestamp>,
    /// The newest applied version before.
    pub from_version: Option<Version>,
    /// The newest applied version after.
    pub to_version: Option<Version>,
    /// `--release`.
    pub release: Option<String>,
    /// `running`, `ok`, `failed`, `stopped`, `locked`, `refused` or `died`.
    pub outcome: String,
    /// What went wrong.
    pub error: Option<String>,
    /// Why somebody did it, where a command asks for a reason.
    pub reason: Option<String>,
    /// The version of this program.
    pub tool_version: String,
}

/// A record with what is kept beside it for people.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RecordSeen {
    /// The record.
    pub record: Record,
    /// The run that wrote it.
    pub run_id: String,
    /// When, by the store's clock.
    pub recorded_at: Timestamp,
}

/// The history of one store.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct History {
    steps: BTreeMap<StepId, StepState>,
    rows: BTreeMap<Version, Row>,
    unreadable: Vec<Unreadable>,
}

impl History {
    /// Adds up what was read.
    pub fn replay(snapshot: Snapshot) -> History {
        let mut history = History::default();
        for record in snapshot.records {
            history.add(record);
        }
        history.rows = snapshot.rows.into_iter().map(|row| (row.version, row)).collect();
        history.unreadable = snapshot.unreadable;
        history
    }

    /// What nobody but a person can have written.
    pub fn unreadable(&self) -> &[Unreadable] {
        &self.unreadable
    }

    fn add(&mut self, record: Record) {
        let state = self.steps.entry(record.step).or_insert_with(|| StepState {
            attempt: 0,
            events: BTreeSet::new(),
            rank: record.rank,
            checksum: record.checksum,
            migration_checksum: record.migration_checksum,
        });
        if record.attempt < state.attempt {
            return;
        }
        if record.attempt > state.attempt {
            state.attempt = record.attempt;
            state.events.clear();
        }
        // The highest rung speaks for the step: a step that was mended between
        // `started` and `applied` has the checksum of what was applied.
        if state.events.last().is_none_or(|highest| *highest <= record.event) {
            state.rank = record.rank;
            state.checksum = record.checksum;
            state.migration_checksum = record.migration_checksum;
        }
        state.events.insert(record.event);
    }

    /// The state of a step, if it has any record.
    pub fn step(&self, step: &StepId) -> Option<&StepState> {
        self.steps.get(step)
    }

    /// Every step of a migration that has records, by name.
    pub fn steps_of(&self, version: Version) -> impl Iterator<Item = (&StepName, &StepState)> {
        let lowest = StepId { version, name: lowest_name() };
        self.steps
            .range(lowest..)
            .take_while(move |(step, _)| step.version == version)
            .map(|(step, state)| (&step.name, state))
    }

    /// The versions that have records.
    pub fn versions(&self) -> BTreeSet<Version> {
        self.steps.keys().map(|step| step.version).collect()
    }

    /// A migration's row.
    pub fn row(&self, version: Version) -> Option<&Row> {
        self.rows.get(&version)
    }

    /// All rows, by version.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.values()
    }

    /// The highest rank that was ever given.
    pub fn rank_max(&self) -> u32 {
        let steps = self.steps.values().map(|state| state.rank);
        steps.chain(self.rows.values().map(|row| row.rank)).max().unwrap_or(0)
    }
}

/// The name that sorts before all others, to find a migration's first step.
fn lowest_name() -> StepName {
    StepName::Script {
        phase: crate::core::id::Phase::Up,
        direction: Direction::Up,
        store: StoreName::Postgres,
        index: 0,
    }
}

/// Both histories.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Histories {
    /// What Postgres remembers.
    pub postgres: History,
    /// What MongoDB remembers.
    pub mongo: History,
}

impl Histories {
    /// That of one store.
    pub fn of(&self, store: StoreName) -> &History {
        match store {
            StoreName::Postgres => &self.postgres,
            StoreName::Mongo => &self.mongo,
        }
    }

    /// Versions that have records in either store.
    pub fn versions(&self) -> BTreeSet<Version> {
        self.postgres.versions().into_iter().chain(self.mongo.versions()).collect()
    }

    /// Every step of a migration that has records, with the store that keeps them.
    pub fn steps_of(
        &self,
        version: Version,
    ) -> impl Iterator<Item = (StoreName, &StepName, &StepState)> {
        StoreName::BOTH.into_iter().flat_map(move |store| {
            self.of(store).steps_of(version).map(move |(name, state)| (store, name, state))
        })
    }

    /// A migration's row, from whichever store has it. If they differ, that of
    /// the newest rank, because a reverted migration's row may have outlived it
    /// in one store; then the more finished one, because seals are written behind.
    pub fn row(&self, version: Version) -> Option<&Row> {
        let rows = StoreName::BOTH.into_iter().filter_map(|store| self.of(store).row(version));
        rows.max_by_key(|row| (row.rank, row.status))
    }

    /// The highest rank that was ever given.
    pub fn rank_max(&self) -> u32 {
        self.postgres.rank_max().max(self.mongo.rank_max())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(attempt: u32, event: Event, text: &str) -> Record {
        Record {
            step: StepId { version: Version(1), name: "up/mongo/1".parse().expect("a name") },
            attempt,
            event,
            rank: 1,
            checksum: Checksum::of(text.as_bytes()),
            migration_checksum: Checksum::of(b"folder"),
        }
    }

    fn status(records: &[Record]) -> Status {
        let history =
            History::replay(Snapshot { records: records.to_vec(), ..Snapshot::default() });
        history.step(&records[0].step).expect("has records").status()
    }

    #[test]
    fn the_highest_event_of_the_newest_attempt_counts() {
        use Event::{Applied, Reverted, Reverting, Started};
        let records = [
            (1, Started, Status::InDoubt),
            (1, Applied, Status::Applied),
            (1, Reverting, Status::Reverting),
            (1, Reverted, Status::Pending),
            (2, Started, Status::InDoubt),
            (2, Applied, Status::Applied),
        ];
        for end in 1..=records.len() {
            let mut so_far: Vec<Record> = records[..end]
                .iter()
                .map(|(attempt, event, _)| record(*attempt, *event, "a"))
                .collect();
            let expected = records[end - 1].2;
            assert_eq!(status(&so_far), expected);
            so_far.reverse();
            assert_eq!(status(&so_far), expected, "whatever the order");
        }
    }

    #[test]
    fn a_mended_step_has_the_checksum_of_what_was_applied() {
        let records = vec![record(1, Event::Started, "before"), record(1, Event::Applied, "after")];
        let history = History::replay(Snapshot { records, ..Snapshot::default() });
        let (_, state) = history.steps_of(Version(1)).next().expect("has records");
        assert_eq!(state.checksum, Checksum::of(b"after"));
    }

    #[test]
    fn words_read_back() {
        for event in Event::ALL {
            assert_eq!(event.word().parse(), Ok(event));
        }
        for status in RowStatus::ALL {
            assert_eq!(status.word().parse(), Ok(status));
        }
        assert!("dirty".parse::<Event>().is_err());
    }
}
