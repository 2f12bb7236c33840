//! What the suite needs to know of a kind of store besides the store itself.

use lockstep::core::checksum::Checksum;
use lockstep::core::history::{Entry, Event, Record, Row, RowStatus, RunSeen, Timestamp};
use lockstep::core::id::{StepId, StoreName, Version};
use lockstep::core::migration::Rollback;
use lockstep::core::parse::manifest::Work;
use lockstep::core::step::Timeouts;
use lockstep::store::backfill::Job;
use lockstep::store::{Fate, Holds, Lease, Outcome, Run, Store, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Nothing waited for here takes longer.
const LIMIT: Duration = Duration::from_secs(30);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(5);

/// A world of its own with one store in it, and ways to look at it from outside.
pub trait Subject: Sized {
    /// The store.
    type Store: Store<Step = Self::Step>;

    /// Its steps.
    type Step;

    /// Its name in errors.
    const NAME: StoreName;

    /// An empty world.
    async fn new() -> Self;

    /// The store as a run sees it, on connections of its own.
    async fn open(&self, run_id: &str) -> Self::Store;

    /// An atomic step that leaves a mark.
    fn mark(&self, mark: &str) -> Self::Step;

    /// An atomic step that leaves a mark, and then fails.
    fn mark_and_fail(&self, mark: &str) -> Self::Step;

    /// A journaled step that makes a thing of that name.
    fn journaled(&self, name: &str) -> Self::Step;

    /// The marks that are there, sorted.
    async fn marks(&self) -> Vec<String>;

    /// The lease has run out.
    async fn expire(&self);

    /// How long the lease lasts.
    async fn left(&self) -> Duration;

    /// Everything the engine made, with its fields.
    async fn tables(&self) -> BTreeMap<String, BTreeSet<String>>;

    /// Spoils the checksum of every record by hand.
    async fn spoil(&self);

    /// The audit log.
    async fn runs(&self) -> Vec<RunSeen>;
}

pub fn run(id: &str) -> Run {
    Run {
        id: id.to_owned(),
        command: "up".to_owned(),
        user: "ada".to_owned(),
        host: "bücher-1".to_owned(),
        pid: 4711,
        release: Some("v1.2 \"beta\"".to_owned()),
        from_version: Some(Version(7)),
        reason: None,
    }
}

/// A store of its own for a run, with the lease.
pub async fn leased<S: Subject>(world: &S, run_id: &str) -> S::Store {
    let mut store = world.open(run_id).await;
    store.found("pair").await.unwrap();
    assert!(take(&mut store, run_id).await > 0);
    store
}

/// Takes the lease, which is to be had, and returns its fence.
pub async fn take(store: &mut impl Store, run_id: &str) -> i64 {
    match store.acquire(&run(run_id)).await.unwrap() {
        Lease::Ours { fence, .. } => fence,
        held @ Lease::Held { .. } => panic!("{held:?}"),
    }
}

pub fn outcome(word: &'static str) -> Outcome {
    Outcome { word, error: None, to_version: Some(Version(8)) }
}

#[track_caller]
pub fn fate<T: std::fmt::Debug>(result: Result<T, StoreError>) -> Fate {
    result.expect_err("it is refused").fate
}

/// What the engine does with a step in doubt.
pub async fn settle<S: Store>(store: &mut S, step: &S::Step) -> Result<(), StoreError> {
    match store.holds(step).await? {
        Holds::Yes => Ok(()),
        Holds::No | Holds::Listed => {
            store.clear(step).await?;
            store.perform(step).await
        }
        Holds::Ask => panic!("no question tells"),
    }
}

pub fn record_of(version: u64, step: &str, attempt: u32, event: Event) -> Record {
    Record {
        step: StepId { version: Version(version), name: step.parse().unwrap() },
        attempt,
        event,
        rank: 3,
        checksum: Checksum::of(step.as_bytes()),
        migration_checksum: Checksum::of(b"folder"),
    }
}

/// A backfill with what it is recorded under.
pub struct Recorded {
    pub work: Work,
    pub record: Record,
    pub timeouts: Timeouts,
    pub max_bad: u64,
}

impl Recorded {
    pub fn new(work: Work) -> Recorded {
        let record = record_of(1, "execute/rows", 1, Event::Progress);
        Recorded { work, record, timeouts: Timeouts::default(), max_bad: 0 }
    }

    pub fn job(&self) -> Job<'_> {
        let Recorded { work, record, timeouts, max_bad } = self;
        Job { work, record, timeouts: *timeouts, max_bad: *max_bad }
    }
}

pub fn record(version: u64, event: Event) -> Entry {
    Entry::Record(record_of(version, "up/postgres/1", 1, event))
}

pub fn row_of(version: u64) -> Row {
    Row {
        version: Version(version),
        rank: 1,
        migration_name: "007-x".to_owned(),
        description: "x".to_owned(),
        checksum: Checksum::of(b"x"),
        status: RowStatus::Running,
        executed_at: Timestamp(1_700_000_000_123),
        finished_at: None,
        execution_time_ms: 12,
        applied_by: "ada@host".to_owned(),
        release: None,
        tool_version: "0.1.0".to_owned(),
        run_id: "a".to_owned(),
    }
}

pub fn rollback() -> Rollback {
    Rollback { format: 1, transaction: true, ..Rollback::default() }
}

pub fn row(version: u64) -> Entry {
    Entry::Row(Box::new(row_of(version)), rollback())
}

/// Waits for a condition.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < LIMIT, "still waiting for: {what}");
        tokio::time::sleep(POLL).await;
    }
}
