//! Backfills: the effects that the engine needs of the store whose rows are
//! rewritten.

use crate::core::backfill::{Batch, Shard, Survey};
use crate::core::history::{Entry, Record};
use crate::core::pace::{Limits, Reading, Steer, Steering};
use crate::core::parse::manifest::Work;
use crate::core::step::Timeouts;
use crate::store::{Outcome, Run, Store, StoreError};

/// One backfill, as its store is asked about it.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// What it does. A store is asked only for what it writes.
    pub work: &'a Work,
    /// Its record of [`Event::Progress`](crate::core::history::Event::Progress):
    /// the key, beside a shard's number, of the rows in which its cursors are kept.
    pub record: &'a Record,
    /// From `[timeouts]`; `None` is the engine's own for a batch: 3 s for a lock,
    /// 30 s for a statement.
    pub timeouts: Timeouts,
    /// So many rows that cannot be written are put aside in `migration_rejects`; one
    /// more stops it.
    pub max_bad: u64,
}

/// A store whose rows can be rewritten in batches.
///
/// A shard's cursor is a row of `migration_steps` of event `progress`: that of
/// shard 1 has the step's own name, that of shard n is called `<step>#n`. Its
/// `cursor` is the [`Shard`] as JSON, its `rows` the rows rewritten, its `run_id`
/// the run that works at it, its `recorded_at` when that run last said so.
#[expect(async_fn_in_trait, reason = "the engine is the only caller, on one task")]
pub trait Backfills: Store + Sized {
    /// Another session of the same run, with the same fence: workers and probes
    /// do not wait for each other.
    async fn another(&mut self) -> Result<Self, StoreError>;

    /// Begins a row in `migration_runs` for a run that helps whoever has the lease: it
    /// has the same fence, never the lease, and its writes end when the lease goes to
    /// another run. `false`: nobody has it, or it has just changed hands.
    async fn enlist(&mut self, run: &Run) -> Result<bool, StoreError>;

    /// Ends that row; from now on there is no fence to write with.
    async fn discharge(&mut self, outcome: &Outcome) -> Result<(), StoreError>;

    /// About how many rows there are to go through; `None` while there is no such
    /// table, or nobody can tell. Changes nothing, and needs no history.
    async fn estimate(&mut self, job: Job<'_>) -> Result<Option<u64>, StoreError>;

    /// Finds the key, and cuts what is there now into ranges: about `shards` of
    /// equal size for the whole (one or more for each partition). With `past`, the
    /// shards of all rounds before, only what lies above their upper ends; the new
    /// ones are of the next round, and are numbered on. Changes nothing.
    ///
    /// Refused when there is no key to go along, or when a batch would read the
    /// whole table: the error's hint says what to do.
    async fn survey(
        &mut self,
        job: Job<'_>,
        shards: usize,
        past: &[Shard],
    ) -> Result<Survey, StoreError>;

    /// Writes the rows of new shards and other entries, together, with the fence.
    async fn begin(
        &mut self,
        job: Job<'_>,
        shards: &[Shard],
        entries: &[Entry],
    ) -> Result<(), StoreError>;

    /// All shards of a backfill as they are recorded, in order of their numbers;
    /// none if it was not begun.
    async fn shards(&mut self, job: Job<'_>) -> Result<Vec<Shard>, StoreError>;

    /// Takes the first shard that is not done and that nobody works at: it is not
    /// claimed, or whoever claimed it said nothing for longer than a lease lasts, or
    /// its run is over. One that this very run has claimed is never given out twice.
    async fn claim(&mut self, job: Job<'_>) -> Result<Option<Shard>, StoreError>;

    /// Says that this run still works at a shard, though no batch comes. `false`:
    /// it was taken by another run.
    async fn keep(&mut self, job: Job<'_>, shard: &Shard) -> Result<bool, StoreError>;

    /// Gives a shard back, for anybody to take.
    async fn yield_shard(&mut self, job: Job<'_>, shard: &Shard) -> Result<(), StoreError>;

    /// One batch: rewrites the next `rows` keys of the shard at most, and moves its
    /// cursor, in one transaction that carries the fence. `None`: another run has
    /// taken the shard, and nothing happened.
    ///
    /// A lock that is not to be had within its time limit, a deadlock and the like
    /// are [`Fate::Refused`](crate::store::Fate::Refused) with
    /// [`is_passing`] true: nothing happened, and the engine tries again with a
    /// smaller batch.
    async fn batch(
        &mut self,
        job: Job<'_>,
        shard: &Shard,
        rows: u64,
    ) -> Result<Option<Batch>, StoreError>;

    /// The next row of a shard alone: a batch that has one row. Where the store
    /// refuses it for what it is (see
    /// [`is_about_a_row`](crate::store::rejects::is_about_a_row)), it is put aside
    /// instead, and the cursor moved past it, in one transaction.
    ///
    /// [`Fate::Refused`](crate::store::Fate::Refused), with the key, the row and the
    /// reason, when `max_bad` are put aside already. `None`: as for a batch; and also
    /// when the row is another than it was a moment ago.
    async fn single(&mut self, job: Job<'_>, shard: &Shard) -> Result<Option<Batch>, StoreError>;

    /// How many rows of this backfill are put aside, by all runs.
    async fn rejects(&mut self, job: Job<'_>) -> Result<u64, StoreError>;

    /// What people asked of running backfills, from `migration_control`. A store
    /// whose backfills are not steered by anybody says the default.
    async fn steering(&mut self) -> Result<Steering, StoreError>;

    /// Asks all running backfills for something, and leaves a row in
    /// `migration_runs`. Needs no lease: it acts while somebody else has it.
    async fn steer(&mut self, steer: &Steer, by: &Run) -> Result<(), StoreError>;

    /// Looks how the server is. Never fails: a probe that cannot be read is off,
    /// and says why.
    async fn probe(&mut self, limits: &Limits) -> Vec<Reading>;
}

/// Whether another session was in the way and the same batch may work when it is
/// tried again.
pub fn is_passing(error: &StoreError) -> bool {
    // lock_not_available, deadlock_detected, serialization_failure, query_canceled;
    // LockTimeout, WriteConflict, MaxTimeMSExpired
    const CODES: [&str; 7] = [
        "SQLSTATE 55P03",
        "SQLSTATE 40P01",
        "SQLSTATE 40001",
        "SQLSTATE 57014",
        "code 24",
        "code 112",
        "code 50",
    ];
    let code = error.said.code.as_deref().unwrap_or_default();
    CODES.iter().any(|passing| code.ends_with(passing))
}
