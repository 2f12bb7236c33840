//! A worker: claims a shard, goes through it batch by batch, claims the next.

use super::board::{Board, jitter};
use super::hands::Hands;
use super::session::Session;
use super::watch::Watch;
use crate::core::backfill::Shard;
use crate::core::pace::{After, Ran};
use crate::store::backfill::{Backfills, is_passing};
use crate::store::rejects::is_about_a_row;
use crate::store::{Fate, StoreError};
use std::time::Duration;
use tokio::time::Instant;

/// So often in a row somebody may be in the way of one batch.
const PASSING_MAX: u32 = 10;

/// After the first time that somebody was in the way; each further time as much
/// more.
const PASSING_WAIT: Duration = Duration::from_millis(50);

/// A worker that does nothing says after this long that it is still there. Nobody
/// may take its shard before 30 s have passed.
const KEEP_EVERY: Duration = Duration::from_secs(5);

/// A worker that stands still looks this often whether it may go on.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A worker without a shard asks this often for one that was left by others.
const IDLE_EVERY: Duration = Duration::from_secs(3);

/// Works until nothing is left to take and nobody here has anything, or until it
/// is over. An error ends the work of the others between their batches.
pub(super) async fn work<H: Hands, O: Backfills>(
    session: &mut Session<H>,
    board: &Board<'_>,
    watch: &Watch<H::Store, O>,
) -> Result<(), StoreError> {
    let now = Instant::now();
    let mut worker = Worker { session, board, watch, kept: now, not_before: now };
    let done = worker.shards().await;
    if done.is_err() {
        board.halt();
    }
    done
}

struct Worker<'a, 'b, H: Hands, O> {
    session: &'a mut Session<H>,
    board: &'a Board<'b>,
    watch: &'a Watch<H::Store, O>,
    /// When it last said that it works at its shard.
    kept: Instant,
    /// Its next batch, of whatever shard, is not begun before.
    not_before: Instant,
}

/// Whether a shard is still this worker's.
enum Held {
    Yes,
    No,
}

impl<H: Hands, O: Backfills> Worker<'_, '_, H, O> {
    async fn shards(&mut self) -> Result<(), StoreError> {
        while let Some(mut shard) = self.take().await? {
            let index = shard.index;
            self.kept = Instant::now();
            let done = self.batches(&mut shard).await;
            match &done {
                Ok(Held::No) => {}
                Ok(Held::Yes) if shard.done => {}
                // Nobody has to wait until it is known that we are gone. If it fails,
                // they wait.
                Ok(Held::Yes) => {
                    drop(self.session.store().yield_shard(self.board.job, &shard).await);
                }
                Err(error) if error.fate == Fate::Refused => {
                    drop(self.session.store().yield_shard(self.board.job, &shard).await);
                }
                Err(_) => {}
            }
            self.board.let_go(index);
            done?;
        }
        Ok(())
    }

    /// The next shard. While others of this process are at work, one of theirs may
    /// become free.
    async fn take(&mut self) -> Result<Option<Shard>, StoreError> {
        while !self.board.is_over() {
            if let Some(shard) = self.claim().await? {
                return Ok(Some(shard));
            }
            if !self.board.holds_any() {
                return Ok(None);
            }
            self.board.rest_until_freed(IDLE_EVERY.mul_f64(jitter())).await;
        }
        Ok(None)
    }

    async fn claim(&mut self) -> Result<Option<Shard>, StoreError> {
        let job = self.board.job;
        let _alone = self.board.claiming.lock().await;
        match self.session.store().claim(job).await {
            Ok(Some(shard)) => {
                self.session.is_fine();
                self.board.hold(&shard);
                return Ok(Some(shard));
            }
            Ok(None) => self.session.is_fine(),
            Err(error) => self.session.renew(error).await?,
        }
        // What is ours and held by nobody was claimed, and the answer was lost.
        let shards = self.session.ask(async |store| store.shards(job).await).await?;
        self.board.saw(&shards);
        let lost = |shard: &&Shard| shard.claimed && !shard.done && !self.board.holds(shard.index);
        for shard in shards.iter().filter(lost) {
            if self.session.ask(async |store| store.keep(job, shard).await).await? {
                self.board.hold(shard);
                return Ok(Some(shard.clone()));
            }
        }
        Ok(None)
    }

    /// Batches until the shard is done, taken from us, or it is over.
    async fn batches(&mut self, shard: &mut Shard) -> Result<Held, StoreError> {
        let job = self.board.job;
        let mut in_the_way = 0;
        // So many of the next rows are to be written, and one of them is refused: it is
        // searched by halving them.
        let mut suspects: Option<u64> = None;
        while !shard.done && !self.board.is_over() {
            if Instant::now() < self.not_before {
                if let Held::No = self.rest(shard, self.not_before).await? {
                    return Ok(Held::No);
                }
                continue;
            }
            self.watch.steer(self.board).await?;
            let pace = self.board.pace(After::Nothing);
            if pace.stopped.is_some() {
                if let Held::No = self.rest(shard, Instant::now() + LOOK_EVERY).await? {
                    return Ok(Held::No);
                }
                continue;
            }
            let usual = pace.batch.min(H::ROWS_MAX);
            let asked = suspects.map_or(usual, |rows| (rows / 2).clamp(1, usual));
            let began = Instant::now();
            let hands = &mut self.session.hands;
            let done = match suspects {
                Some(1) => hands.single(job, shard).await,
                Some(_) | None => hands.work(job, shard, asked).await,
            };
            match done {
                Ok(Some(batch)) => {
                    self.session.is_fine();
                    in_the_way = 0;
                    self.kept = Instant::now();
                    let (passed, rows, took) = (batch.passed, batch.rows, began.elapsed());
                    self.board.wrote(&batch, took);
                    *shard = batch.shard;
                    self.board.saw(std::slice::from_ref(shard));
                    self.board.committed(batch.commit);
                    // Small batches that search for a row say nothing about the pace.
                    let after = match suspects {
                        None => {
                            let (trips, commit) = (batch.trips, batch.commit);
                            After::Batch(Ran { asked, passed, rows, took, trips, commit })
                        }
                        Some(_) => After::Nothing,
                    };
                    suspects = suspects
                        .map(|rows| rows.saturating_sub(passed.max(1)))
                        .filter(|rows| *rows > 0);
                    let pace = self.board.pace(after);
                    self.not_before = Instant::now() + pace.wait;
                }
                Ok(None) => {
                    suspects = None;
                    if let Held::No = self.look_again(shard).await? {
                        return Ok(Held::No);
                    }
                }
                Err(error) if is_passing(&error) => {
                    in_the_way += 1;
                    if in_the_way >= PASSING_MAX {
                        return Err(error);
                    }
                    self.board.pace(After::Passing { asked });
                    self.board.rest(PASSING_WAIT * in_the_way).await;
                }
                // One that is refused alone is put aside; if it may not be, that is what
                // the error says.
                Err(error)
                    if is_about_a_row(&error)
                        && error.said.row.is_none()
                        && suspects != Some(1) =>
                {
                    suspects = Some(asked);
                }
                Err(error) => {
                    suspects = None;
                    self.session.renew(error).await?;
                    if let Held::No = self.look_again(shard).await? {
                        return Ok(Held::No);
                    }
                }
            }
        }
        Ok(Held::Yes)
    }

    /// The shard as it is recorded: an answer was lost, or it is not where we
    /// thought.
    async fn look_again(&mut self, shard: &mut Shard) -> Result<Held, StoreError> {
        let job = self.board.job;
        if let Held::No = self.keep(shard).await? {
            return Ok(Held::No);
        }
        let shards = self.session.ask(async |store| store.shards(job).await).await?;
        self.board.saw(&shards);
        match shards.into_iter().find(|recorded| recorded.index == shard.index) {
            Some(recorded) => *shard = recorded,
            None => return Ok(Held::No),
        }
        Ok(Held::Yes)
    }

    async fn keep(&mut self, shard: &Shard) -> Result<Held, StoreError> {
        let job = self.board.job;
        self.kept = Instant::now();
        match self.session.ask(async |store| store.keep(job, shard).await).await? {
            true => Ok(Held::Yes),
            false => Ok(Held::No),
        }
    }

    /// Waits, and says now and then that the shard is still ours.
    async fn rest(&mut self, shard: &Shard, until: Instant) -> Result<Held, StoreError> {
        loop {
            if self.kept.elapsed() >= KEEP_EVERY
                && let Held::No = self.keep(shard).await?
            {
                return Ok(Held::No);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.board.is_over() {
                return Ok(Held::Yes);
            }
            self.board.rest(left.min(LOOK_EVERY)).await;
        }
    }
}
