//! Rows on their way from one store to the other, as documents.
//!
//! A [`Source`] is read in ranges of its key, a page at a time; a [`Target`] writes
//! a page and moves the cursor of its shard in one transaction. Shards, claims and
//! cursors are the target's: what was copied is what it says.

use crate::core::backfill::{Batch, Key, Shard, Survey};
use crate::core::step::Timeouts;
use crate::store::StoreError;
use crate::store::backfill::{Backfills, Job};
use bson::RawDocumentBuf;

/// Sessions that copy at once: while one waits for its commit, the other has the store
/// to itself.
pub const WORKERS: u64 = 2;

/// Rows of one store, to be read in ranges of their key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The rows in the order of the key.
    pub documents: Vec<RawDocumentBuf>,
    /// Rows that have no document: they are not in `documents`.
    pub bad: Vec<BadRow>,
    /// The last key of the page: where the next one begins. `None`: there was
    /// nothing more.
    pub upto: Option<Key>,
    /// Keys (source rows or documents) that were passed.
    pub passed: u64,
    /// Nothing is left of the range after it.
    pub is_last: bool,
}

/// A row that has no document.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BadRow {
    /// Its key, for people.
    pub key: String,
    /// The row, as far as it can be shown.
    pub row: String,
    /// Why it has none, with the column's name.
    pub reason: String,
}

/// How much of a range one page may hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PageLimit {
    /// Keys.
    pub rows: u64,
    /// Bytes of documents; one row is in a page however large it is.
    pub bytes: usize,
}

/// Rows of Postgres.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// Any SELECT; its columns are the fields of the documents.
    pub sql: &'a str,
    /// The columns of the key.
    pub key: &'a [String],
}

/// A store whose rows can be read for the other one.
#[expect(async_fn_in_trait, reason = "the engine is the only caller, on one task")]
pub trait Source: Backfills {
    /// What is read. Postgres: [`Query`]. MongoDB: a
    /// [`MongoSource`](crate::core::parse::manifest::MongoSource), whose ranges go
    /// along the `_id` of its collection.
    type Rows<'a>: Copy;

    /// About how many rows there are to read; `None` where nobody can tell. Changes
    /// nothing, and needs no history.
    async fn estimate_rows(
        &mut self,
        rows: Self::Rows<'_>,
        timeouts: Timeouts,
    ) -> Result<Option<u64>, StoreError>;

    /// Looks at the rows before anything is copied: their kinds, and a key that can
    /// be gone along. Cuts them into shards as [`Backfills::survey`] does: the same
    /// arguments, the same meaning of `past`.
    ///
    /// Refused, with the column's name and a cast that would work, where the type
    /// table has no line; and where a page would read everything.
    async fn survey_rows(
        &mut self,
        rows: Self::Rows<'_>,
        timeouts: Timeouts,
        shards: usize,
        past: &[Shard],
    ) -> Result<Survey, StoreError>;

    /// The next rows of a range.
    async fn page(
        &mut self,
        rows: Self::Rows<'_>,
        timeouts: Timeouts,
        after: Option<&Key>,
        upto: Option<&Key>,
        limit: PageLimit,
    ) -> Result<Page, StoreError>;
}

/// A store that documents can be written into.
#[expect(async_fn_in_trait, reason = "the engine is the only caller, on one task")]
pub trait Target: Backfills {
    /// A page has no more rows than this: what one transaction may hold.
    const ROWS_MAX: u64 = u64::MAX;

    /// Looks whether rows can be written: what is needed for it is there. Changes
    /// nothing.
    ///
    /// Refused with a hint that says what to do.
    async fn ready(&mut self, job: Job<'_>) -> Result<(), StoreError> {
        let _ = job;
        Ok(())
    }

    /// So many sessions copy at once, where nobody says how many.
    async fn workers(&mut self, job: Job<'_>) -> Result<u64, StoreError> {
        let _ = job;
        Ok(WORKERS)
    }

    /// Writes a page and moves the shard's cursor to its end, in one transaction with
    /// the fence, as [`Backfills::batch`] does; the rows that are bad are put aside in
    /// that transaction, or refused when they are more than `max_bad`. `None`: another
    /// run has taken the shard, and nothing happened.
    ///
    /// An error that is about one of the documents says which, where it can.
    async fn put(
        &mut self,
        job: Job<'_>,
        shard: &Shard,
        page: &Page,
    ) -> Result<Option<Batch>, StoreError>;
}
