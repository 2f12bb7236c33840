//! What the engine may ask of a store and no scenario here needs.

use crate::store::{Payload, SimStore};
use bson::Bson;
use lockstep::core::backfill::{Batch, Key, Shard, Survey};
use lockstep::core::compare::{RowKey, Rows};
use lockstep::core::history::{Entry, Record};
use lockstep::core::mapping::Column;
use lockstep::core::pace::{Limits, Reading, Steer, Steering};
use lockstep::core::parse::manifest::MongoSource;
use lockstep::core::step::Timeouts;
use lockstep::store::backfill::{Backfills, Job};
use lockstep::store::compare::{ComparedDocuments, ComparedRows, Found, Kept, Order, Range};
use lockstep::store::copy::{Page, PageLimit, Source, Target};
use lockstep::store::invariant::Invariants;
use lockstep::store::{Outcome, Run, StoreError};

/// No scenario has a backfill: those are exhausted in tests/backfills, against a
/// model of their own.
impl<T: Payload> Backfills for SimStore<T> {
    async fn another(&mut self) -> Result<Self, StoreError> {
        unreachable!("no scenario has a backfill")
    }

    async fn enlist(&mut self, _: &Run) -> Result<bool, StoreError> {
        unreachable!("no scenario has a backfill")
    }

    async fn discharge(&mut self, _: &Outcome) -> Result<(), StoreError> {
        unreachable!("no scenario has a backfill")
    }

    async fn estimate(&mut self, _: Job<'_>) -> Result<Option<u64>, StoreError> {
        unreachable!("no scenario has a backfill")
    }

    async fn survey(&mut self, _: Job<'_>, _: usize, _: &[Shard]) -> Result<Survey, StoreError> {
        unreachable!("no scenario has a backfill")
    }

    async fn begin(&mut self, _: Job<'_>, _: &[Shard], _: &[Entry]) -> Result<(), StoreError> {
        unreachable!("no scenario has a backfill")
    }

    async fn shards(&mut self, _: Job<'_>) -> Result<Vec<Shard>, StoreError> {
        unreachable!("no scenario has a backfill")
    }

    async fn claim(&mut self, _: Job<'_>) -> Result<Option<Shard>, StoreError> {
        unreachable!("no scenario has a backfill")
    }

    async fn keep(&mut self, _: Job<'_>, _: &Shard) -> Result<bool, StoreError> {
        unreachable!("no scenario has a backfill")
    }

    async fn yield_shard(&mut self, _: Job<'_>, _: &Shard) -> Result<(), StoreError> {
        unreachable!("no scenario has a backfill")
    }

    async fn batch(&mut self, _: Job<'_>, _: &Shard, _: u64) -> Result<Option<Batch>, StoreError> {
        unreachable!("no scenario has a backfill")
    }

    async fn single(&mut self, _: Job<'_>, _: &Shard) -> Result<Option<Batch>, StoreError> {
        unreachable!("no scenario has a backfill")
    }

    async fn rejects(&mut self, _: Job<'_>) -> Result<u64, StoreError> {
        unreachable!("no scenario has a backfill")
    }

    async fn steering(&mut self) -> Result<Steering, StoreError> {
        unreachable!("no scenario has a backfill")
    }

    async fn steer(&mut self, _: &Steer, _: &Run) -> Result<(), StoreError> {
        unreachable!("no scenario has a backfill")
    }

    async fn probe(&mut self, _: &Limits) -> Vec<Reading> {
        unreachable!("no scenario has a backfill")
    }
}

/// Nor has one a copy.
impl<T: Payload> Source for SimStore<T> {
    type Rows<'a> = T::Copied<'a>;

    async fn estimate_rows(
        &mut self,
        _: Self::Rows<'_>,
        _: Timeouts,
    ) -> Result<Option<u64>, StoreError> {
        unreachable!("no scenario has a copy")
    }

    async fn survey_rows(
        &mut self,
        _: Self::Rows<'_>,
        _: Timeouts,
        _: usize,
        _: &[Shard],
    ) -> Result<Survey, StoreError> {
        unreachable!("no scenario has a copy")
    }

    async fn page(
        &mut self,
        _: Self::Rows<'_>,
        _: Timeouts,
        _: Option<&Key>,
        _: Option<&Key>,
        _: PageLimit,
    ) -> Result<Page, StoreError> {
        unreachable!("no scenario has a copy")
    }
}

impl<T: Payload> Target for SimStore<T> {
    async fn put(&mut self, _: Job<'_>, _: &Shard, _: &Page) -> Result<Option<Batch>, StoreError> {
        unreachable!("no scenario has a copy")
    }
}

/// Nor has one an invariant: asking changes nothing.
impl<T: Payload> Invariants for SimStore<T> {
    type Question = T::Question;
    type Rows = T::Rows;

    async fn value(&mut self, _: &Self::Question, _: Timeouts) -> Result<Bson, StoreError> {
        unreachable!("no scenario has an invariant")
    }

    async fn rows(&mut self, _: &Self::Rows, _: Timeouts) -> Result<Vec<String>, StoreError> {
        unreachable!("no scenario has an invariant")
    }
}

impl<T: Payload> ComparedRows for SimStore<T> {
    type Ground = ();

    async fn ground(&mut self, _: &str, _: &[String], _: Timeouts) -> Result<(), StoreError> {
        unreachable!("no scenario has an invariant")
    }

    fn estimate((): &()) -> u64 {
        0
    }

    fn columns((): &()) -> &[Column] {
        &[]
    }

    fn order((): &()) -> Option<Order> {
        None
    }

    async fn range(&mut self, (): &(), _: Option<&RowKey>, _: u64) -> Result<Range, StoreError> {
        unreachable!("no scenario has an invariant")
    }

    async fn at(&mut self, (): &(), _: &[RowKey]) -> Result<Found, StoreError> {
        unreachable!("no scenario has an invariant")
    }

    async fn have(&mut self, (): &(), _: &[RowKey]) -> Result<Vec<RowKey>, StoreError> {
        unreachable!("no scenario has an invariant")
    }

    async fn kept(&mut self, _: &Record) -> Result<Option<Kept>, StoreError> {
        unreachable!("no scenario has an invariant")
    }

    async fn keep(&mut self, _: &Record, _: Option<&Kept>) -> Result<(), StoreError> {
        unreachable!("no scenario has an invariant")
    }
}

impl<T: Payload> ComparedDocuments for SimStore<T> {
    type Ground = ();
    type Keys = ();

    async fn ground(
        &mut self,
        _: &MongoSource,
        _: &[String],
        _: &[Column],
        _: Timeouts,
    ) -> Result<(), StoreError> {
        unreachable!("no scenario has an invariant")
    }

    fn has_order((): &(), _: Order) -> bool {
        false
    }

    async fn range(
        &mut self,
        (): &(),
        _: Option<&RowKey>,
        _: Option<&RowKey>,
        _: usize,
    ) -> Result<Range, StoreError> {
        unreachable!("no scenario has an invariant")
    }

    async fn rows_at(&mut self, (): &(), _: &[RowKey]) -> Result<Rows, StoreError> {
        unreachable!("no scenario has an invariant")
    }

    async fn at(&mut self, (): &(), _: &[RowKey]) -> Result<Found, StoreError> {
        unreachable!("no scenario has an invariant")
    }

    async fn keys(&mut self, (): &()) -> Result<(), StoreError> {
        unreachable!("no scenario has an invariant")
    }

    async fn next(&mut self, (): &(), (): &mut (), _: usize) -> Result<Vec<RowKey>, StoreError> {
        unreachable!("no scenario has an invariant")
    }
}
