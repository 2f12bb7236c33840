//! Comparison: the reads that the engine needs of the two stores whose rows are to
//! be the same. Nothing here changes anything, but for how far a comparison is.

use crate::core::compare::{RowKey, Rows};
use crate::core::history::Record;
use crate::core::mapping::Column;
use crate::core::parse::manifest::MongoSource;
use crate::core::step::Timeouts;
use crate::store::StoreError;
use bson::RawDocumentBuf;
use std::time::Duration;

/// In which order a store has its keys, where the other has the same.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Order {
    /// Numbers.
    Number,
    /// Dates, to the millisecond.
    Date,
    /// UUIDs, byte by byte.
    Uuid,
    /// Texts, byte by byte.
    Text,
}

/// A range that was read.
#[derive(Debug, Default)]
pub struct Range {
    /// Its rows.
    pub rows: Rows,
    /// The last key of it, where there were more rows than were asked for: the
    /// range ends with it. Keys that are equal are in one range.
    pub upto: Option<RowKey>,
}

/// Rows that were read by their keys, as documents.
#[derive(Debug, Default)]
pub struct Found {
    /// Those that have a document, in any order.
    pub documents: Vec<RawDocumentBuf>,
    /// Those that have none, and why.
    pub unreadable: Vec<(RowKey, String)>,
}

/// How far a comparison was when it was last recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// What the engine wrote.
    pub cursor: serde_json::Value,
    /// How long ago that comparison began, by the store's clock.
    pub age: Duration,
}

/// A store whose rows are compared: Postgres.
#[expect(async_fn_in_trait, reason = "the engine is the only caller, on one task")]
pub trait ComparedRows {
    /// What is known of a query.
    type Ground;

    /// Looks at a query before its rows are read.
    ///
    /// Refused where a column has no counterpart in a document, where rows have no
    /// key, and where a range would read all rows.
    async fn ground(
        &mut self,
        query: &str,
        key: &[String],
        timeouts: Timeouts,
    ) -> Result<Self::Ground, StoreError>;

    /// About how many rows there are.
    fn estimate(ground: &Self::Ground) -> u64;

    /// Its columns.
    fn columns(ground: &Self::Ground) -> &[Column];

    /// The order of [`range`](ComparedRows::range), if another store can have the same.
    fn order(ground: &Self::Ground) -> Option<Order>;

    /// The rows after a key, about so many.
    async fn range(
        &mut self,
        ground: &Self::Ground,
        after: Option<&RowKey>,
        rows: u64,
    ) -> Result<Range, StoreError>;

    /// The rows that have these keys. There may be others among them.
    async fn at(&mut self, ground: &Self::Ground, keys: &[RowKey]) -> Result<Found, StoreError>;

    /// Which of these keys there are. There may be others among them.
    async fn have(
        &mut self,
        ground: &Self::Ground,
        keys: &[RowKey],
    ) -> Result<Vec<RowKey>, StoreError>;

    /// How far the comparison of a check is, if that was recorded.
    async fn kept(&mut self, record: &Record) -> Result<Option<Kept>, StoreError>;

    /// Records how far it is, with the fence; `None` is that there is nothing to go
    /// on with.
    async fn keep(&mut self, record: &Record, kept: Option<&Kept>) -> Result<(), StoreError>;
}

/// A store whose documents they are compared with: MongoDB.
#[expect(async_fn_in_trait, reason = "the engine is the only caller, on one task")]
pub trait ComparedDocuments {
    /// What is known of a source.
    type Ground;

    /// All keys of a source, one after the other.
    type Keys;

    /// Looks at a source before its documents are read, as rows of these columns.
    async fn ground(
        &mut self,
        source: &MongoSource,
        key: &[String],
        columns: &[Column],
        timeouts: Timeouts,
    ) -> Result<Self::Ground, StoreError>;

    /// Whether ranges can be read in this order.
    fn has_order(ground: &Self::Ground, order: Order) -> bool;

    /// The documents above a key and up to another, that one included; no more than
    /// so many, and then its `upto` is the last of them.
    async fn range(
        &mut self,
        ground: &Self::Ground,
        after: Option<&RowKey>,
        upto: Option<&RowKey>,
        most: usize,
    ) -> Result<Range, StoreError>;

    /// The documents that have these keys. There may be others among them.
    async fn rows_at(&mut self, ground: &Self::Ground, keys: &[RowKey])
    -> Result<Rows, StoreError>;

    /// The same, with all that they have.
    async fn at(&mut self, ground: &Self::Ground, keys: &[RowKey]) -> Result<Found, StoreError>;

    /// Begins to read all keys.
    async fn keys(&mut self, ground: &Self::Ground) -> Result<Self::Keys, StoreError>;

    /// The next keys, about so many; none at the end.
    async fn next(
        &mut self,
        ground: &Self::Ground,
        keys: &mut Self::Keys,
        most: usize,
    ) -> Result<Vec<RowKey>, StoreError>;
}
