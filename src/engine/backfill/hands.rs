//! Hands: what a worker works with. For rows that are rewritten in place that is
//! the store alone; for a copy it is the store that is read and the store that is
//! written, with a page read ahead of the one that is written.

use crate::core::backfill::{Batch, Key, Shard, Survey};
use crate::core::mapping;
use crate::store::StoreError;
use crate::store::backfill::{Backfills, Job};
use crate::store::copy::{BadRow, Page, PageLimit, Source, Target};
use crate::store::rejects::{self, is_about_a_row, reason};
use futures_util::future::{join, try_join};
use std::time::Duration;
use tokio::time::Instant;

/// A page has so many bytes of documents at most; two of them are in memory for
/// each worker.
const PAGE_BYTES: usize = 8 << 20;

/// What was read ahead longer ago is read again: it stood still meanwhile, and the
/// application did not.
const AHEAD_MAX: Duration = Duration::from_secs(5);

/// A page that has more than so many times the rows that are asked for now is read
/// again: somebody is in the way of larger ones.
const TOO_LARGE: u64 = 2;

const MAP: &str = "copy a row";

/// The sessions of one worker, and how they do a batch.
#[expect(async_fn_in_trait, reason = "the engine is the only caller, on one task")]
pub trait Hands: Sized {
    /// The store that is written: it has the shards, the claims and the fence.
    type Store: Backfills;

    /// A batch has no more rows than this.
    const ROWS_MAX: u64;

    /// The session with the store that is written.
    fn store(&mut self) -> &mut Self::Store;

    /// The same with new sessions.
    async fn renewed(&mut self) -> Result<Self, StoreError>;

    /// So many are to work at it at once, where the backfill does not say how many.
    async fn workers(&mut self, job: Job<'_>) -> Result<u64, StoreError> {
        let _ = job;
        Ok(1)
    }

    /// See [`Backfills::survey`].
    async fn look(
        &mut self,
        job: Job<'_>,
        shards: usize,
        past: &[Shard],
    ) -> Result<Survey, StoreError>;

    /// See [`Backfills::batch`].
    async fn work(
        &mut self,
        job: Job<'_>,
        shard: &Shard,
        rows: u64,
    ) -> Result<Option<Batch>, StoreError>;

    /// See [`Backfills::single`].
    async fn single(&mut self, job: Job<'_>, shard: &Shard) -> Result<Option<Batch>, StoreError>;
}

/// In place, the store itself does it all.
impl<S: Backfills> Hands for S {
    type Store = S;

    const ROWS_MAX: u64 = u64::MAX;

    fn store(&mut self) -> &mut S {
        self
    }

    async fn renewed(&mut self) -> Result<S, StoreError> {
        self.another().await
    }

    async fn look(
        &mut self,
        job: Job<'_>,
        shards: usize,
        past: &[Shard],
    ) -> Result<Survey, StoreError> {
        self.survey(job, shards, past).await
    }

    async fn work(
        &mut self,
        job: Job<'_>,
        shard: &Shard,
        rows: u64,
    ) -> Result<Option<Batch>, StoreError> {
        self.batch(job, shard, rows).await
    }

    async fn single(&mut self, job: Job<'_>, shard: &Shard) -> Result<Option<Batch>, StoreError> {
        Backfills::single(self, job, shard).await
    }
}

/// Copies rows of one store into the other.
#[derive(Debug)]
pub struct Copying<'a, S: Source, T> {
    source: S,
    target: T,
    rows: S::Rows<'a>,
    ahead: Option<Ahead>,
}

/// A page that was read before it was needed.
#[derive(Debug)]
struct Ahead {
    shard: u32,
    after: Option<Key>,
    page: Page,
    read: Instant,
}

impl Ahead {
    /// Whether it is what comes next.
    fn is_next(&self, shard: &Shard, rows: u64) -> bool {
        self.shard == shard.index
            && self.after == shard.after
            && self.page.passed <= rows.saturating_mul(TOO_LARGE)
            && self.read.elapsed() < AHEAD_MAX
    }
}

impl<'a, S: Source, T: Target> Copying<'a, S, T> {
    /// With sessions of its own.
    ///
    /// # Errors
    /// A store that cannot be reached.
    pub async fn new(
        source: &mut S,
        target: &mut T,
        rows: S::Rows<'a>,
    ) -> Result<Copying<'a, S, T>, StoreError> {
        let (source, target) = try_join(source.another(), target.another()).await?;
        Ok(Copying { source, target, rows, ahead: None })
    }
}

impl<S: Source, T: Target> Hands for Copying<'_, S, T> {
    type Store = T;

    const ROWS_MAX: u64 = T::ROWS_MAX;

    fn store(&mut self) -> &mut T {
        &mut self.target
    }

    async fn renewed(&mut self) -> Result<Self, StoreError> {
        Copying::new(&mut self.source, &mut self.target, self.rows).await
    }

    async fn workers(&mut self, job: Job<'_>) -> Result<u64, StoreError> {
        self.target.workers(job).await
    }

    async fn look(
        &mut self,
        job: Job<'_>,
        shards: usize,
        past: &[Shard],
    ) -> Result<Survey, StoreError> {
        self.target.ready(job).await?;
        self.source.survey_rows(self.rows, job.timeouts, shards, past).await
    }

    async fn work(
        &mut self,
        job: Job<'_>,
        shard: &Shard,
        rows: u64,
    ) -> Result<Option<Batch>, StoreError> {
        let limit = PageLimit { rows, bytes: PAGE_BYTES };
        let upto = Some(&shard.upto);
        let mut page = match self.ahead.take() {
            Some(ahead) if ahead.is_next(shard, rows) => ahead.page,
            Some(_) | None => {
                let after = shard.after.as_ref();
                self.source.page(self.rows, job.timeouts, after, upto, limit).await?
            }
        };
        refuse_bad(job, &page.bad)?;
        let (source, rows) = (&mut self.source, self.rows);
        let ahead = async {
            let after = page.upto.as_ref().filter(|_| !page.is_last)?;
            let next = source.page(rows, job.timeouts, Some(after), upto, limit).await;
            // What went wrong goes wrong again when the page is needed.
            let page = next.ok()?;
            let read = Instant::now();
            Some(Ahead { shard: shard.index, after: Some(after.clone()), page, read })
        };
        let (written, ahead) = join(self.target.put(job, shard, &page), ahead).await;
        let batch = match written {
            Err(error) => self.without(job, shard, &mut page, error).await?,
            Ok(batch) => batch,
        };
        // Where the cursor turns out to be elsewhere, so is what comes next.
        self.ahead = ahead.filter(|_| batch.is_some());
        Ok(batch)
    }

    async fn single(&mut self, job: Job<'_>, shard: &Shard) -> Result<Option<Batch>, StoreError> {
        self.ahead = None;
        let limit = PageLimit { rows: 1, bytes: PAGE_BYTES };
        let (after, upto) = (shard.after.as_ref(), Some(&shard.upto));
        let mut page = self.source.page(self.rows, job.timeouts, after, upto, limit).await?;
        refuse_bad(job, &page.bad)?;
        let error = match self.target.put(job, shard, &page).await {
            Err(error) if is_about_a_row(&error) && !page.documents.is_empty() => error,
            done => return done,
        };
        let key = page.upto.as_ref().map_or_else(|| shard.upto.to_string(), Key::to_string);
        let bad = page.documents.drain(..).map(|document| BadRow {
            key: key.clone(),
            row: mapping::show(&document),
            reason: reason(&error),
        });
        page.bad.extend(bad);
        if job.max_bad == 0 {
            return Err(error);
        }
        self.target.put(job, shard, &page).await
    }
}

impl<S: Source, T: Target> Copying<'_, S, T> {
    /// Writes a page without the rows that the store refuses, as long as it says which
    /// they are and they may be put aside.
    async fn without(
        &mut self,
        job: Job<'_>,
        shard: &Shard,
        page: &mut Page,
        mut error: StoreError,
    ) -> Result<Option<Batch>, StoreError> {
        while job.max_bad > 0
            && let Some(refused) = error.said.row.take()
            && refused.at < page.documents.len()
        {
            page.documents.remove(refused.at);
            page.bad.push(refused.row);
            match self.target.put(job, shard, page).await {
                Ok(batch) => return Ok(batch),
                Err(again) => error = again,
            }
        }
        Err(error)
    }
}

/// Rows that have no document stop the copy before anything of their page is written,
/// if they alone are too many.
fn refuse_bad(job: Job<'_>, bad: &[BadRow]) -> Result<(), StoreError> {
    rejects::check(job, MAP, 0, bad).map_err(|error| {
        // It was read there, and the other store was not asked.
        StoreError { store: job.work.source(), ..error }
    })
}
