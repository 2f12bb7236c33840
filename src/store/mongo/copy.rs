//! Copies into MongoDB.

use super::Mongo;
use crate::core::backfill::{Batch, Key, Shard, Survey};
use crate::core::id::StoreName;
use crate::core::parse::manifest::MongoSource;
use crate::core::step::Timeouts;
use crate::store::backfill::Job;
use crate::store::copy::{Page, PageLimit, Source, Target};
use crate::store::{Fate, StoreError};

impl Target for Mongo {
    const ROWS_MAX: u64 = 1000;

    async fn put(
        &mut self,
        _: Job<'_>,
        _: &Shard,
        _: &Page,
    ) -> Result<Option<Batch>, StoreError> {
        Err(StoreError::new(StoreName::Mongo, "copy", Fate::Refused, "not yet"))
    }
}

impl Source for Mongo {
    type Rows<'a> = &'a MongoSource;

    async fn estimate_rows(
        &mut self,
        _: Self::Rows<'_>,
        _: Timeouts,
    ) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }

    async fn survey_rows(
        &mut self,
        _: Self::Rows<'_>,
        _: Timeouts,
        _: usize,
        _: &[Shard],
    ) -> Result<Survey, StoreError> {
        Err(StoreError::new(StoreName::Mongo, "copy", Fate::Refused, "not yet"))
    }

    async fn page(
        &mut self,
        _: Self::Rows<'_>,
        _: Timeouts,
        _: Option<&Key>,
        _: Option<&Key>,
        _: PageLimit,
    ) -> Result<Page, StoreError> {
        Err(StoreError::new(StoreName::Mongo, "copy", Fate::Refused, "not yet"))
    }
}
