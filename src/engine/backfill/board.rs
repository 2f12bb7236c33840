//! The board: what the workers of one process, its probes and its reporter know
//! of each other. All of them are on one task; nothing is borrowed over a wait.

use super::{BackfillError, Done, Settings, Task};
use crate::core::backfill::{Batch, Shard};
use crate::core::id::StoreName;
use crate::core::notice::{BackfillProgress, BackfillState, Notice, Notices};
use crate::core::pace::{After, AtLimit, Level, Limits, Pace, Reading, Steering, Throttle};
use crate::engine::Stop;
use crate::store::backfill::Job;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, sleep};

/// The rate of now is that of so many seconds.
const NOW: Duration = Duration::from_secs(10);

/// What is shared.
pub(super) struct Board<'a> {
    pub job: Job<'a>,
    /// Claims are made one at a time: what is claimed and held by nobody here was
    /// lost with its answer.
    pub claiming: Mutex<()>,
    /// Somebody let go of a shard.
    pub freed: Notify,
    minute: &'a dyn Fn() -> u16,
    stop: &'a Stop,
    began: Instant,
    throttle: RefCell<Throttle>,
    shards: RefCell<BTreeMap<u32, Shard>>,
    rejected: Cell<u64>,
    held: RefCell<BTreeSet<u32>>,
    halted: Cell<bool>,
    /// What people ask for was read.
    steered: Cell<bool>,
    unwatched: Cell<Unwatched>,
    rate: RefCell<Rate>,
    /// What a commit takes; older ones weigh three quarters of newer ones.
    commit: Cell<Option<Duration>>,
    /// Somebody wants to hear of every batch.
    tells_batches: bool,
    notices: RefCell<&'a mut dyn Notices>,
}

/// Whether it was told which probes tell nothing.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Unwatched {
    Unknown,
    Known,
    Told,
}

impl<'a> Board<'a> {
    pub fn new(task: Task<'a>, settings: Settings<'a>, notices: &'a mut dyn Notices) -> Board<'a> {
        let pace = settings.pace.clone().of(&task.backfill.pace, &task.backfill.work);
        Board {
            job: task.job,
            claiming: Mutex::new(()),
            freed: Notify::new(),
            minute: settings.minute,
            stop: settings.stop,
            began: Instant::now(),
            throttle: RefCell::new(Throttle::new(pace)),
            shards: RefCell::default(),
            rejected: Cell::new(0),
            held: RefCell::default(),
            halted: Cell::new(false),
            steered: Cell::new(false),
            unwatched: Cell::new(Unwatched::Unknown),
            rate: RefCell::default(),
            commit: Cell::new(None),
            tells_batches: notices.wants_batches(),
            notices: RefCell::new(notices),
        }
    }

    /// The pace, after what a worker has just done.
    pub fn pace(&self, after: After) -> Pace {
        self.throttle.borrow_mut().pace(self.now(), (self.minute)(), after)
    }

    /// What the probes are asked against; `None`: they are not asked.
    pub fn limits(&self) -> Option<Limits> {
        self.throttle.borrow().limits()
    }

    pub fn steer(&self, steering: Steering) {
        // Somebody may have forgotten that they asked.
        let speed = steering.speed;
        let is_odd = (speed - 1.0).abs() > f64::EPSILON;
        if !self.steered.replace(true) && is_odd {
            self.say(Notice::Remark(format!(
                "it goes at {speed} times its own pace, as `migrate backfill speed` asked for; `migrate backfill speed 1` ends that"
            )));
        }
        self.throttle.borrow_mut().steer(steering);
    }

    pub fn read(&self, store: StoreName, readings: &[Reading]) {
        self.throttle.borrow_mut().read(self.now(), store, readings);
        if self.unwatched.get() == Unwatched::Unknown {
            self.unwatched.set(Unwatched::Known);
        }
    }

    /// A commit took so long. It is a probe that nobody has to ask. In MongoDB it
    /// is the majority that takes long, and that has a probe of its own.
    pub fn committed(&self, took: Duration) {
        let store = self.job.work.store();
        let Some(limits) = self.limits().filter(|_| store == StoreName::Postgres) else { return };
        let average = self.commit.get().map_or(took, |before| (before * 3 + took) / 4);
        self.commit.set(Some(average));
        let limit = limits.commit_latency;
        let level = Level::At {
            ratio: average.as_secs_f64() / limit.as_secs_f64().max(0.001),
            says: format!(
                "a commit takes {} ms (limit {} ms)",
                average.as_millis(),
                limit.as_millis()
            ),
        };
        let reading = Reading { probe: "commit latency", at_limit: AtLimit::Slower, level };
        self.throttle.borrow_mut().read(self.now(), store, &[reading]);
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Ends the work of this process between batches.
    pub fn halt(&self) {
        self.halted.set(true);
        self.freed.notify_waiters();
    }

    /// Whether no further batch is to be begun.
    pub fn is_over(&self) -> bool {
        self.halted.get() || self.stop.requested().is_some()
    }

    pub fn stop_requested(&self) -> Option<BackfillError> {
        self.stop.requested().map(BackfillError::Stopped)
    }

    /// Waits, but not when there is no reason to any more.
    pub async fn rest(&self, time: Duration) {
        if self.is_over() {
            return;
        }
        let mut stop = self.stop.clone();
        tokio::select! {
            () = sleep(time) => {}
            _ = stop.wait() => {}
        }
    }

    /// Waits until somebody here lets go of a shard, for some time at most.
    pub async fn rest_until_freed(&self, time: Duration) {
        tokio::select! {
            () = self.rest(time) => {}
            () = self.freed.notified() => {}
        }
    }

    pub fn hold(&self, shard: &Shard) {
        self.held.borrow_mut().insert(shard.index);
        self.saw(std::slice::from_ref(shard));
    }

    pub fn let_go(&self, index: u32) {
        self.held.borrow_mut().remove(&index);
        self.freed.notify_waiters();
    }

    pub fn holds(&self, index: u32) -> bool {
        self.held.borrow().contains(&index)
    }

    pub fn holds_any(&self) -> bool {
        !self.held.borrow().is_empty()
    }

    /// Shards as they were read, or as a batch left them. What was read may be
    /// older than what is known.
    pub fn saw(&self, shards: &[Shard]) {
        let mut known = self.shards.borrow_mut();
        for shard in shards {
            let newest = known.get(&shard.index).is_none_or(|known| known.passed <= shard.passed);
            if newest {
                known.insert(shard.index, shard.clone());
            }
        }
        let passed = known.values().map(|shard| shard.passed).sum();
        self.rate.borrow_mut().is_at(self.now(), passed);
    }

    /// So many rows are put aside.
    pub fn rejected(&self, rows: u64) {
        self.rejected.set(rows);
    }

    pub fn done(&self) -> Done {
        let shards = self.shards.borrow();
        Done {
            rows: shards.values().map(|shard| shard.rows).sum(),
            passed: shards.values().map(|shard| shard.passed).sum(),
            rejected: self.rejected.get(),
            took: self.now(),
        }
    }

    pub fn say(&self, notice: Notice) {
        self.notices.borrow_mut().notice(notice);
    }

    /// A batch of a shard is written.
    pub fn wrote(&self, batch: &Batch, took: Duration) {
        if !self.tells_batches {
            return;
        }
        self.say(Notice::BatchFinished {
            version: self.job.record.step.version,
            step: self.job.record.step.name.clone(),
            store: self.job.work.store(),
            shard: batch.shard.index,
            rows: batch.rows,
            passed: batch.passed,
            took,
        });
    }

    /// Says how far it is.
    pub fn report(&self) {
        let Done { rows, passed, rejected, took } = self.done();
        let shards = self.shards.borrow();
        let estimate: u64 = shards
            .values()
            .map(|shard| if shard.done { shard.passed } else { shard.estimate.max(shard.passed) })
            .sum();
        let pace = self.pace(After::Nothing);
        let (rate_now, rate) = self.rate.borrow_mut().per_second(took, passed);
        let state = match (pace.stopped, pace.slowed) {
            (Some(why), _) => BackfillState::Stopped(why),
            (None, Some(why)) => BackfillState::Slow(why),
            (None, None) => BackfillState::Running,
        };
        let left = match (&state, if rate_now > 0 { rate_now } else { rate }) {
            (BackfillState::Stopped(_), _) | (_, 0) => None,
            (_, rate) => Some(Duration::from_secs(estimate.saturating_sub(passed) / rate)),
        };
        let unwatched = match self.unwatched.get() {
            Unwatched::Known => {
                self.unwatched.set(Unwatched::Told);
                self.throttle.borrow().unwatched()
            }
            Unwatched::Unknown | Unwatched::Told => Vec::new(),
        };
        self.say(Notice::BackfillProgress(Box::new(BackfillProgress {
            version: self.job.record.step.version,
            step: self.job.record.step.name.clone(),
            store: self.job.work.store(),
            rows,
            passed,
            rejected,
            estimate,
            rate_now,
            rate,
            left,
            batch: pace.batch,
            state,
            unwatched,
        })));
    }
}

/// How fast keys are passed.
#[derive(Default)]
struct Rate {
    /// When this process began to look, and what was passed then.
    first: Option<(Duration, u64)>,
    /// The same for moments not older than [`NOW`].
    samples: VecDeque<(Duration, u64)>,
}

impl Rate {
    fn is_at(&mut self, now: Duration, passed: u64) {
        self.first.get_or_insert((now, passed));
        // One for each tenth of a second is enough.
        let near = |(at, _): &(Duration, u64)| now.saturating_sub(*at) < NOW / 100;
        if !self.samples.back().is_some_and(near) {
            self.samples.push_back((now, passed));
        }
        self.forget(now);
    }

    fn forget(&mut self, now: Duration) {
        while self.samples.len() > 1 && self.samples[1].0 + NOW <= now {
            self.samples.pop_front();
        }
    }

    /// Now, and since the beginning.
    fn per_second(&mut self, now: Duration, passed: u64) -> (u64, u64) {
        self.forget(now);
        let since = |sample: Option<&(Duration, u64)>| {
            let Some((at, before)) = sample else { return 0 };
            let ms = now.saturating_sub(*at).as_millis().max(1);
            let rate = u128::from(passed.saturating_sub(*before)) * 1_000 / ms;
            u64::try_from(rate).unwrap_or(u64::MAX)
        };
        (since(self.samples.front()), since(self.first.as_ref()))
    }
}

/// A part of one, another each time: many processes that wait do not ask at once.
pub(super) fn jitter() -> f64 {
    0.3 + 0.7 * f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 255.0
}
