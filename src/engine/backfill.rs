//! Backfills: cuts rows into shards, works through them in batches at the pace
//! that the [`Throttle`] allows, and sweeps up what appeared meanwhile.
//!
//! What is done is what the shards' rows in the store say, and nothing else: a
//! batch moves its cursor in its own transaction. Whatever is lost here, a
//! session, an answer, the process, is found again by reading them. So any number
//! of processes may work at one backfill; one of them leads it, which is to cut
//! shards and to sweep.
//!
//! Reading order: this file; `hands`, which do a batch, in one store or from one to
//! the other; `worker`, which goes through one shard; `watch`, which asks people and
//! servers; `board`, what they share.
//!
//! [`Throttle`]: crate::core::pace::Throttle

mod board;
mod hands;
mod session;
mod watch;
mod worker;

use crate::core::backfill::{Backfill, Shard};
use crate::core::history::Entry;
use crate::core::notice::{Notice, Notices};
use crate::core::pace;
use crate::engine::{Stop, StopReason};
use crate::store::backfill::{Backfills, Job};
use crate::store::{Store, StoreError, rejects};
use board::Board;
use futures_util::future::join_all;
pub use hands::{Copying, Hands};
use session::{Session, is_lost};
use std::time::Duration;
use watch::Watch;

/// Each worker of several gets so many shards on average: one that has a slow one
/// is helped by the others.
const SHARDS_EACH: usize = 4;

/// Fewer rows than this are one shard, where nobody asked for several workers: they
/// are done before a second one has begun.
const SEVERAL_FROM: u64 = 20_000;

/// Sweeps after the first round. What still comes in then is the business of the
/// invariants.
const SWEEPS_MAX: u32 = 10;

/// Others are asked how far they are after this long at most.
const POLL_MAX: Duration = Duration::from_millis(900);

/// A joining process looks this often whether somebody still leads.
const LEADER_EVERY: Duration = Duration::from_secs(5);

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// As its store is asked about it.
    pub job: Job<'a>,
    /// The backfill.
    pub backfill: &'a Backfill,
    /// Written together with its first shards, or before anything else: the row of
    /// its migration.
    pub entries: &'a [Entry],
}

/// How it is done.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    /// The project's pace; what the backfill says for itself goes before it.
    pub pace: &'a pace::Settings,
    /// The minute of the day, where the window is.
    pub minute: &'a dyn Fn() -> u16,
    /// Asked between two batches.
    pub stop: &'a Stop,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Done {
    /// Rows that were rewritten, in all runs and by all processes.
    pub rows: u64,
    /// Keys that were passed.
    pub passed: u64,
    /// Rows that are put aside, in all runs and by all processes.
    pub rejected: u64,
    /// How long this call took.
    pub took: Duration,
}

/// Why a backfill ended before it was done. What was done is recorded, and it
/// goes on from there.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BackfillError {
    /// A store said no, or nothing for too long.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody asked for it.
    #[error("stopped between two batches: {0}")]
    Stopped(StopReason),
}

/// Does a backfill to its end, or goes on with one. When it returns `Ok`, each row
/// that was there when it began was rewritten once, and so was what sweeps found.
///
/// # Errors
/// [`BackfillError`].
pub async fn run<H: Hands, O: Backfills>(
    hands: &mut H,
    other: Option<&mut O>,
    task: Task<'_>,
    settings: Settings<'_>,
    notices: &mut dyn Notices,
) -> Result<Done, BackfillError> {
    let board = Board::new(task, settings, notices);
    let mut crew = Crew::new(hands, task).await?;
    let watch = Watch::new(hands.store(), other).await?;
    let work = async {
        let lead = Lead { task, board: &board, watch: &watch };
        let result = lead.rounds(&mut crew).await;
        let result = board.stop_requested().map_or(result, Err);
        lead.count_rejects(&mut crew.main).await;
        result
    };
    let result = tokio::select! {
        result = work => result,
        never = watch.go_on(&board) => match never {},
    };
    board.report();
    result?;
    let done = board.done();
    if done.rejected > 0 {
        board.say(Notice::Remark(aside(task.job, done.rejected)));
    }
    Ok(done)
}

/// What became of rows that could not be written.
fn aside(job: Job<'_>, rejected: u64) -> String {
    let rows = match rejected {
        1 => "1 row was".to_owned(),
        rows => format!("{rows} rows were"),
    };
    let look = rejects::look(job);
    format!("{rows} put aside and not written: {look}")
}

/// Helps with a backfill that another process leads, until nothing of it is left
/// to take and all of it is done, or nobody leads any more. The store has a run
/// and a fence of its own.
///
/// # Errors
/// [`BackfillError`].
pub async fn join<H: Hands, O: Backfills>(
    hands: &mut H,
    other: Option<&mut O>,
    task: Task<'_>,
    settings: Settings<'_>,
    notices: &mut dyn Notices,
) -> Result<Done, BackfillError> {
    let board = Board::new(task, settings, notices);
    let mut crew = Crew::new(hands, task).await?;
    let Some(leader) = leader(&mut crew.main).await? else {
        return Ok(Done::default());
    };
    let watch = Watch::new(hands.store(), other).await?;
    let mut lookout = Session::new(hands.store()).await?;
    let led = async {
        loop {
            tokio::time::sleep(LEADER_EVERY).await;
            match self::leader(&mut lookout).await {
                Ok(Some(now)) if now == leader => {}
                Ok(_) => {
                    let remark = "whoever led this backfill is gone; so are we";
                    board.say(Notice::Remark(remark.to_owned()));
                    board.halt();
                    return std::future::pending().await;
                }
                // The workers will see it.
                Err(_) => {}
            }
        }
    };
    let work = async {
        let lead = Lead { task, board: &board, watch: &watch };
        let result = lead.round(&mut crew).await.map(|_| ());
        board.stop_requested().map_or(result, Err)
    };
    let result = tokio::select! {
        result = work => result,
        never = watch.go_on(&board) => match never {},
        never = led => match never {},
    };
    board.report();
    result.map(|()| board.done())
}

/// The run that has the lease.
async fn leader<H: Hands>(session: &mut Session<H>) -> Result<Option<String>, StoreError> {
    let snapshot = session.ask(async |store| store.read().await).await?;
    Ok(snapshot.lease.map(|lease| lease.run_id))
}

/// The sessions that work.
struct Crew<H> {
    main: Session<H>,
    workers: Vec<Session<H>>,
    workers_max: usize,
}

impl<H: Hands> Crew<H> {
    async fn new(hands: &mut H, task: Task<'_>) -> Result<Crew<H>, StoreError> {
        let mut main = Session::new(hands).await?;
        let wanted = match task.backfill.pace.workers {
            Some(wanted) => wanted.max(1),
            None => main.with(async |hands| hands.workers(task.job).await).await?,
        };
        Ok(Crew {
            main,
            workers: Vec::new(),
            workers_max: usize::try_from(wanted).unwrap_or(usize::MAX),
        })
    }

    /// As many as there is work for.
    async fn at_least(&mut self, shards: usize) -> Result<(), StoreError> {
        while self.workers.len() < self.workers_max.min(shards).max(1) {
            let worker = self.main.with(async |hands| hands.renewed().await).await?;
            self.workers.push(Session::of(worker));
        }
        Ok(())
    }
}

/// What leading takes.
struct Lead<'a, 'b, S, O> {
    task: Task<'a>,
    board: &'b Board<'a>,
    watch: &'b Watch<S, O>,
}

impl<S: Backfills, O: Backfills> Lead<'_, '_, S, O> {
    /// Counts what is put aside, for whoever is told of it.
    async fn count_rejects<H: Hands<Store = S>>(&self, session: &mut Session<H>) {
        let job = self.task.job;
        if job.max_bad > 0
            && let Ok(rejected) = session.ask(async |store| store.rejects(job).await).await
        {
            self.board.rejected(rejected);
        }
    }

    /// The first round, and sweeps until one finds nothing.
    async fn rounds<H: Hands<Store = S>>(&self, crew: &mut Crew<H>) -> Result<(), BackfillError> {
        let job = self.task.job;
        let shards = crew.main.ask(async |store| store.shards(job).await).await?;
        if shards.is_empty() {
            let shards = self.cut(crew, &[]).await?;
            self.begin(&mut crew.main, &shards, self.task.entries).await?;
        } else if !self.task.entries.is_empty() {
            self.begin(&mut crew.main, &[], self.task.entries).await?;
        }
        loop {
            let Some(shards) = self.round(crew).await? else { return Ok(()) };
            if shards.is_empty() {
                return Ok(());
            }
            if let Some(remark) = endless(&shards) {
                self.board.say(Notice::Remark(remark));
                return Ok(());
            }
            let shards = self.cut(crew, &shards).await?;
            if shards.is_empty() {
                return Ok(());
            }
            self.begin(&mut crew.main, &shards, &[]).await?;
        }
    }

    /// Shards of the next round.
    async fn cut<H: Hands<Store = S>>(
        &self,
        crew: &mut Crew<H>,
        past: &[Shard],
    ) -> Result<Vec<Shard>, StoreError> {
        let wanted = match crew.workers_max {
            1 => 1,
            several => several.saturating_mul(SHARDS_EACH),
        };
        let job = self.task.job;
        let survey = crew.main.with(async |hands| hands.look(job, wanted, past).await).await?;
        let is_asked = self.task.backfill.pace.workers.is_some();
        Ok(match is_asked || survey.estimate >= SEVERAL_FROM {
            true => survey.shards,
            false => whole(survey.shards),
        })
    }

    /// Works until all shards are done, by us or by others; `None` if it was
    /// stopped before.
    async fn round<H: Hands<Store = S>>(
        &self,
        crew: &mut Crew<H>,
    ) -> Result<Option<Vec<Shard>>, BackfillError> {
        let job = self.task.job;
        loop {
            let shards = crew.main.ask(async |store| store.shards(job).await).await?;
            self.board.saw(&shards);
            let open = shards.iter().filter(|shard| !shard.done).count();
            if open == 0 {
                return Ok(Some(shards));
            }
            if self.board.is_over() {
                return Ok(None);
            }
            crew.at_least(open).await?;
            let workers = crew.workers.iter_mut();
            let ended =
                join_all(workers.map(|session| worker::work(session, self.board, self.watch)));
            for result in ended.await {
                result?;
            }
            let shards = crew.main.ask(async |store| store.shards(job).await).await?;
            if shards.iter().all(|shard| shard.done) {
                self.board.saw(&shards);
                return Ok(Some(shards));
            }
            // The rest is others'. What they leave becomes ours when they have said
            // nothing for long enough.
            self.board.rest(POLL_MAX.mul_f64(board::jitter())).await;
        }
    }

    /// Writes new shards. After a lost answer, what is there now tells whether they
    /// were written.
    async fn begin<H: Hands<Store = S>>(
        &self,
        session: &mut Session<H>,
        shards: &[Shard],
        entries: &[Entry],
    ) -> Result<(), StoreError> {
        if shards.is_empty() && entries.is_empty() {
            return Ok(());
        }
        let job = self.task.job;
        let mut lost = false;
        loop {
            let error = match session.store().begin(job, shards, entries).await {
                Ok(()) => return Ok(()),
                // What was lost may have come through after we looked: then the same
                // rows are in the way.
                Err(error) if lost => error,
                Err(error) if is_lost(&error) => error,
                Err(error) => {
                    session.renew(error).await?;
                    continue;
                }
            };
            if is_lost(&error) {
                lost = true;
                session.renew(error.clone()).await?;
            }
            let there = session.ask(async |store| store.shards(job).await).await?;
            let written =
                shards.iter().all(|shard| there.iter().any(|written| written.index == shard.index));
            match shards.is_empty() {
                false if written => return Ok(()),
                _ if !is_lost(&error) => return Err(error),
                _ => {}
            }
        }
    }
}

/// Neighbours as one.
fn whole(shards: Vec<Shard>) -> Vec<Shard> {
    let mut whole: Vec<Shard> = Vec::new();
    for shard in shards {
        match whole.last_mut() {
            Some(last) if last.table == shard.table && shard.after.as_ref() == Some(&last.upto) => {
                last.upto = shard.upto;
                last.estimate += shard.estimate;
            }
            _ => whole.push(shard),
        }
    }
    whole
}

/// Why no further sweep is worth it, if none is.
fn endless(shards: &[Shard]) -> Option<String> {
    let passed = |round: u32| -> u64 {
        shards.iter().filter(|shard| shard.round == round).map(|shard| shard.passed).sum()
    };
    let round = shards.iter().map(|shard| shard.round).max().unwrap_or(0);
    let why = match round {
        0 | 1 => return None,
        SWEEPS_MAX.. => format!("{round} sweeps each found new rows"),
        _ if passed(round) < passed(round - 1) => return None,
        _ => format!(
            "the last sweep found {} new keys, the one before it {}",
            passed(round),
            passed(round - 1)
        ),
    };
    Some(format!(
        "new rows keep coming, and no more sweeps are made: {why}; whoever writes them has to write them right, and the invariants will tell"
    ))
}
