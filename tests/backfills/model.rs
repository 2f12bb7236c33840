//! A store in memory that keeps the promises of `Backfills`, and breaks in every
//! place where a real one may. Doing a row twice shows: each rewrite adds one.

use lockstep::core::backfill::{Batch, Key, Shard, Survey};
use lockstep::core::history::{Entry, LeaseSeen, Snapshot, Timestamp, Unreadable};
use lockstep::core::id::{StoreName, Version};
use lockstep::core::migration::Rollback;
use lockstep::core::pace::{Limits, Reading, Steer, Steering};
use lockstep::core::step::{PgStep, Timeouts};
use lockstep::store::backfill::{Backfills, Job};
use lockstep::store::copy::{BadRow, Page, PageLimit, Source, Target};
use lockstep::store::rejects::RefusedRow;
use lockstep::store::{Fate, Heart, Holds, LEASE_TERM, Lease, Outcome, Run, Store, StoreError};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

/// What an answer takes.
const TRIP: Duration = Duration::from_millis(1);

/// What may happen where something is asked of a store.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// The process dies; nothing happened.
    DiesBefore,
    /// The process dies; it happened.
    DiesAfter,
    /// The connection is lost; nothing happened.
    LostBefore,
    /// The connection is lost; it happened.
    LostAfter,
    /// The connection is lost; it happens when the server gets to it.
    LostLate,
    /// Somebody is in the way.
    Passing,
    /// The server says no.
    Refused,
    /// Somebody is in the way of a batch, and of nothing else.
    InTheWay,
    /// Another run takes every shard that is claimed, and dies.
    Stolen,
}

impl Fault {
    /// Those after which the work goes on.
    pub const ALL: [Fault; 7] = [
        Fault::DiesBefore,
        Fault::DiesAfter,
        Fault::LostBefore,
        Fault::LostAfter,
        Fault::LostLate,
        Fault::Passing,
        Fault::Stolen,
    ];
}

/// The database.
#[derive(Default)]
pub struct World {
    /// Keys, and how often each row was rewritten.
    pub rows: BTreeMap<i64, u32>,
    pub shards: BTreeMap<u32, Recorded>,
    pub entries: Vec<Entry>,
    pub over: BTreeSet<String>,
    pub leader: Option<String>,
    pub steering: Steering,
    pub readings: Vec<Reading>,
    /// Rows that somebody inserts when so many places were passed.
    pub arrivals: BTreeMap<usize, Vec<i64>>,
    pub faults: BTreeMap<usize, Fault>,
    /// Rows that have no document.
    pub bad: BTreeSet<i64>,
    /// Rows that the database refuses to write.
    pub refused: BTreeSet<i64>,
    /// So many of them may be put aside.
    pub max_bad: u64,
    /// It says which of several it refuses.
    pub tells: bool,
    /// Rows that were put aside, as often as they were.
    pub rejects: Vec<String>,
    /// Places that were passed.
    pub places: usize,
    /// Batches: when, by whom, how many keys.
    pub batches: Vec<(Instant, String, u64)>,
    /// The rows that each batch was asked for.
    pub asked: Vec<u64>,
    /// Pages that were read: after which key, and how many keys.
    pub pages: Vec<(Option<i64>, u64)>,
    /// What a key takes.
    pub key_takes: Duration,
    /// What a commit takes, as part of a batch.
    pub commit_takes: Duration,
    pub late: Vec<(Instant, Act)>,
}

pub type Act = Box<dyn FnOnce(&mut World)>;

pub struct Recorded {
    pub shard: Shard,
    pub run: String,
    pub said: Instant,
}

/// What is asked for.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Kind {
    Batch,
    Other,
}

/// A session.
pub struct Model {
    pub world: Rc<RefCell<World>>,
    pub run: String,
    pub died: Rc<Notify>,
    is_lost: bool,
}

impl Model {
    pub fn new(world: &Rc<RefCell<World>>, run: &str) -> Model {
        Model {
            world: Rc::clone(world),
            run: run.to_owned(),
            died: Rc::new(Notify::new()),
            is_lost: false,
        }
    }

    /// One effect, and all that may become of it.
    async fn effect<T: 'static>(
        &mut self,
        kind: Kind,
        act: impl FnOnce(&mut World, &str) -> Result<T, StoreError> + 'static,
    ) -> Result<T, StoreError> {
        sleep(TRIP).await;
        if self.is_lost {
            return Err(error(Fate::Unreachable, "the connection is gone"));
        }
        let fault = self.world.borrow_mut().place();
        let run = self.run.clone();
        let Some(fault) = fault else { return act(&mut self.world.borrow_mut(), &run) };
        match fault {
            Fault::DiesBefore | Fault::DiesAfter => {
                if fault == Fault::DiesAfter {
                    let _ = act(&mut self.world.borrow_mut(), &run);
                }
                self.died.notify_one();
                std::future::pending().await
            }
            Fault::LostBefore | Fault::LostAfter | Fault::LostLate => {
                self.is_lost = true;
                match fault {
                    Fault::LostAfter => drop(act(&mut self.world.borrow_mut(), &run)),
                    Fault::LostLate => {
                        let late = Instant::now() + Duration::from_millis(150);
                        let act: Act = Box::new(move |world| drop(act(world, &run)));
                        self.world.borrow_mut().late.push((late, act));
                    }
                    _ => {}
                }
                Err(error(Fate::Unknown, "the connection was lost"))
            }
            Fault::Refused => Err(error(Fate::Refused, "violates a constraint")),
            Fault::InTheWay | Fault::Passing if fault == Fault::Passing || kind == Kind::Batch => {
                let mut error = error(Fate::Refused, "canceling statement due to lock timeout");
                error.said.code = Some("SQLSTATE 55P03".to_owned());
                Err(error)
            }
            Fault::InTheWay | Fault::Passing => act(&mut self.world.borrow_mut(), &run),
            Fault::Stolen => {
                let mut world = self.world.borrow_mut();
                for recorded in world.shards.values_mut() {
                    if recorded.shard.claimed && !recorded.shard.done {
                        "thief".clone_into(&mut recorded.run);
                        recorded.said = Instant::now();
                    }
                }
                act(&mut world, &run)
            }
        }
    }
}

pub fn error(fate: Fate, message: &str) -> StoreError {
    StoreError::new(StoreName::Postgres, "rewrite rows", fate, message)
}

impl World {
    /// One more place: what is due happens first.
    fn place(&mut self) -> Option<Fault> {
        let now = Instant::now();
        let (due, later) =
            std::mem::take(&mut self.late).into_iter().partition(|(at, _)| *at <= now);
        self.late = later;
        let due: Vec<(Instant, Act)> = due;
        for (_, act) in due {
            act(self);
        }
        self.places += 1;
        for key in self.arrivals.remove(&self.places).unwrap_or_default() {
            self.rows.insert(key, 0);
        }
        self.faults.get(&self.places).copied()
    }

    fn fenced(&self, run: &str) -> Result<(), StoreError> {
        match self.over.contains(run) {
            true => Err(error(Fate::Fenced, "another run has the lease")),
            false => Ok(()),
        }
    }

    /// That run says for a shard that it works at it.
    fn is_held(&self, index: u32, run: &str) -> bool {
        self.shards.get(&index).is_some_and(|it| it.run == run && it.shard.claimed)
    }

    fn claim(&mut self, run: &str) -> Result<Option<Shard>, StoreError> {
        self.fenced(run)?;
        let over = &self.over;
        let free = self.shards.values_mut().find(|it| {
            let left = over.contains(&it.run) || it.said.elapsed() > LEASE_TERM;
            !it.shard.done && (!it.shard.claimed || (it.run != run && left))
        });
        Ok(free.map(|recorded| {
            recorded.shard.claimed = true;
            run.clone_into(&mut recorded.run);
            recorded.said = Instant::now();
            recorded.shard.clone()
        }))
    }

    fn batch(&mut self, run: &str, shard: &Shard, rows: u64) -> Result<Option<Batch>, StoreError> {
        self.fenced(run)?;
        let recorded = &self.shards[&shard.index];
        if !self.is_held(shard.index, run) || recorded.shard.after != shard.after {
            return Ok(None);
        }
        let first = shard.after.as_ref().map_or(i64::MIN, |after| number(after) + 1);
        let last = number(&shard.upto);
        let asked = usize::try_from(rows).expect("is small");
        let range = self.rows.range_mut(first..=last).take(asked);
        let mut keys = Vec::new();
        let bad = |key: &&i64| self.refused.contains(key);
        let mut range: Vec<(&i64, &mut u32)> = range.collect();
        if range.iter().any(|(key, _)| bad(key)) {
            return Err(refusal());
        }
        for (key, rewritten) in &mut range {
            **rewritten += 1;
            keys.push(**key);
        }
        let passed = u64::try_from(keys.len()).expect("is small");
        let mut shard = shard.clone();
        shard.after = keys.last().map(|last| key(*last)).or(shard.after);
        shard.passed += passed;
        shard.rows += passed;
        shard.done = keys.len() < asked || keys.last() == Some(&last);
        shard.claimed = !shard.done;
        let said = Instant::now();
        let recorded = Recorded { shard: shard.clone(), run: run.to_owned(), said };
        self.shards.insert(shard.index, recorded);
        self.batches.push((said, run.to_owned(), passed));
        Ok(Some(Batch {
            shard,
            passed,
            rows: passed,
            trips: Duration::ZERO,
            commit: self.commit_takes,
        }))
    }

    /// The next row, which is put aside if it is refused.
    fn single(
        &mut self,
        run: &str,
        shard: &Shard,
        max_bad: u64,
    ) -> Result<Option<Batch>, StoreError> {
        let first = shard.after.as_ref().map_or(i64::MIN, |after| number(after) + 1);
        let this = self.rows.range(first..=number(&shard.upto)).next().map(|(key, _)| *key);
        let Some(this) = this.filter(|key| self.refused.contains(key)) else {
            return self.batch(run, shard, 1);
        };
        self.fenced(run)?;
        let recorded = &self.shards[&shard.index];
        if !self.is_held(shard.index, run) || recorded.shard.after != shard.after {
            return Ok(None);
        }
        self.put_aside(&[bad(this)], max_bad)?;
        let mut shard = shard.clone();
        shard.done = this == number(&shard.upto);
        shard.claimed = !shard.done;
        shard.after = Some(key(this));
        shard.passed += 1;
        let recorded = Recorded { shard: shard.clone(), run: run.to_owned(), said: Instant::now() };
        self.shards.insert(shard.index, recorded);
        Ok(Some(Batch {
            shard,
            passed: 1,
            rows: 0,
            trips: Duration::ZERO,
            commit: self.commit_takes,
        }))
    }

    fn put_aside(&mut self, bad: &[BadRow], max_bad: u64) -> Result<(), StoreError> {
        let there = self.rejects.len() + bad.len();
        if !bad.is_empty() && u64::try_from(there).expect("is small") > max_bad {
            return Err(error(Fate::Refused, &format!("one too many: {}", bad[0].key)));
        }
        self.rejects.extend(bad.iter().map(|bad| bad.key.clone()));
        Ok(())
    }

    /// What a page of a copy is of these rows.
    fn page(&mut self, after: Option<&Key>, upto: Option<&Key>, limit: PageLimit) -> Page {
        let after = after.map(number);
        let first = after.map_or(i64::MIN, |after| after + 1);
        let last = upto.map_or(i64::MAX, number);
        let rows = usize::try_from(limit.rows).expect("is small");
        let mut keys: Vec<i64> =
            self.rows.range(first..=last).take(rows + 1).map(|(key, _)| *key).collect();
        let is_last = keys.len() <= rows;
        keys.truncate(rows);
        let passed = u64::try_from(keys.len()).expect("is small");
        self.pages.push((after, passed));
        let bad = keys.iter().filter(|key| self.bad.contains(key)).map(|key| bad(*key));
        let good = keys.iter().filter(|key| !self.bad.contains(key));
        Page {
            bad: bad.collect(),
            documents: good.map(|key| bson::rawdoc! { "_id": *key }).collect(),
            upto: keys.last().map(|last| key(*last)),
            passed,
            is_last,
        }
    }

    /// Writes a page: each document that is written counts as a row that is rewritten.
    fn put(
        &mut self,
        run: &str,
        shard: &Shard,
        page: &Page,
        max_bad: u64,
    ) -> Result<Option<Batch>, StoreError> {
        self.fenced(run)?;
        let recorded = &self.shards[&shard.index];
        if !self.is_held(shard.index, run) || recorded.shard.after != shard.after {
            return Ok(None);
        }
        let ids = page.documents.iter().map(|it| it.get_i64("_id").expect("it has one"));
        if let Some((at, id)) = ids.enumerate().find(|(_, id)| self.refused.contains(id)) {
            let mut refused = refusal();
            refused.said.row = self.tells.then(|| Box::new(RefusedRow { at, row: bad(id) }));
            return Err(refused);
        }
        self.put_aside(&page.bad, max_bad)?;
        let mut last = shard.after.as_ref().map_or(i64::MIN, number);
        for document in &page.documents {
            let id = document.get_i64("_id").expect("it has one");
            assert!(last < id && id <= number(&shard.upto), "{id} is not of this shard's rest");
            last = id;
            *self.rows.entry(id).or_default() += 1;
        }
        let rows = u64::try_from(page.documents.len()).expect("is small");
        let mut shard = shard.clone();
        shard.after = page.upto.clone().or(shard.after);
        shard.passed += page.passed;
        shard.rows += rows;
        shard.done = page.is_last || page.upto.as_ref() == Some(&shard.upto);
        shard.claimed = !shard.done;
        let said = Instant::now();
        let recorded = Recorded { shard: shard.clone(), run: run.to_owned(), said };
        self.shards.insert(shard.index, recorded);
        self.batches.push((said, run.to_owned(), page.passed));
        Ok(Some(Batch {
            shard,
            passed: page.passed,
            rows,
            trips: Duration::ZERO,
            commit: self.commit_takes,
        }))
    }

    fn survey(&self, shards: usize, past: &[Shard]) -> Survey {
        let above = past.iter().map(|shard| number(&shard.upto)).max().unwrap_or(i64::MIN);
        let keys: Vec<i64> = self.rows.keys().copied().filter(|key| *key > above).collect();
        let number = past.iter().map(|shard| shard.index).max().unwrap_or(0);
        let round = past.iter().map(|shard| shard.round + 1).max().unwrap_or(0);
        let each = keys.len().div_ceil(shards).max(1);
        let mut after = past.iter().map(|shard| shard.upto.clone()).next_back();
        let mut found = Vec::new();
        for (index, part) in (number + 1..).zip(keys.chunks(each)) {
            let upto = key(*part.last().expect("chunks are not empty"));
            found.push(Shard {
                index,
                round,
                table: "t".to_owned(),
                after: after.replace(upto.clone()),
                upto,
                estimate: u64::try_from(part.len()).expect("is small"),
                passed: 0,
                rows: 0,
                done: false,
                claimed: false,
            });
        }
        let estimate = u64::try_from(keys.len()).expect("is small");
        Survey { key: "id int8".to_owned(), estimate, shards: found }
    }
}

/// A row that cannot be written.
fn bad(key: i64) -> BadRow {
    BadRow {
        key: key.to_string(),
        row: format!("{{ _id: {key} }}"),
        reason: "`n`: it has too many digits".to_owned(),
    }
}

/// What a database says about one row of many.
fn refusal() -> StoreError {
    let mut error = error(Fate::Refused, "violates a constraint");
    error.said.code = Some("SQLSTATE 23514".to_owned());
    error
}

fn key(number: i64) -> Key {
    Key(serde_json::json!([number.to_string()]))
}

fn number(key: &Key) -> i64 {
    key.to_string().parse().expect("is a number")
}

impl Backfills for Model {
    async fn another(&mut self) -> Result<Model, StoreError> {
        let (world, died) = (Rc::clone(&self.world), Rc::clone(&self.died));
        Ok(Model { world, died, run: self.run.clone(), is_lost: false })
    }

    async fn enlist(&mut self, _: &Run) -> Result<bool, StoreError> {
        unreachable!("whoever joins here has a fence already")
    }

    async fn discharge(&mut self, _: &Outcome) -> Result<(), StoreError> {
        unreachable!("whoever joins here keeps its fence")
    }

    async fn estimate(&mut self, _: Job<'_>) -> Result<Option<u64>, StoreError> {
        unreachable!("only `migrate plan` asks for it")
    }

    async fn survey(
        &mut self,
        _: Job<'_>,
        shards: usize,
        past: &[Shard],
    ) -> Result<Survey, StoreError> {
        let past = past.to_vec();
        self.effect(Kind::Other, move |world, _| Ok(world.survey(shards, &past))).await
    }

    async fn begin(
        &mut self,
        _: Job<'_>,
        shards: &[Shard],
        entries: &[Entry],
    ) -> Result<(), StoreError> {
        let (shards, entries) = (shards.to_vec(), entries.to_vec());
        self.effect(Kind::Other, move |world, run| {
            world.fenced(run)?;
            if shards.iter().any(|shard| world.shards.contains_key(&shard.index)) {
                return Err(error(Fate::Refused, "duplicate key"));
            }
            for shard in shards {
                let recorded = Recorded { run: run.to_owned(), said: Instant::now(), shard };
                world.shards.insert(recorded.shard.index, recorded);
            }
            world.entries.extend(entries);
            Ok(())
        })
        .await
    }

    async fn shards(&mut self, _: Job<'_>) -> Result<Vec<Shard>, StoreError> {
        self.effect(Kind::Other, |world, _| {
            Ok(world.shards.values().map(|it| it.shard.clone()).collect())
        })
        .await
    }

    async fn claim(&mut self, _: Job<'_>) -> Result<Option<Shard>, StoreError> {
        self.effect(Kind::Other, World::claim).await
    }

    async fn keep(&mut self, _: Job<'_>, shard: &Shard) -> Result<bool, StoreError> {
        let index = shard.index;
        self.effect(Kind::Other, move |world, run| {
            world.fenced(run)?;
            let held = world.is_held(index, run);
            if held {
                world.shards.get_mut(&index).expect("is held").said = Instant::now();
            }
            Ok(held)
        })
        .await
    }

    async fn yield_shard(&mut self, _: Job<'_>, shard: &Shard) -> Result<(), StoreError> {
        let index = shard.index;
        self.effect(Kind::Other, move |world, run| {
            if world.is_held(index, run) {
                world.shards.get_mut(&index).expect("is held").shard.claimed = false;
            }
            Ok(())
        })
        .await
    }

    async fn batch(
        &mut self,
        _: Job<'_>,
        shard: &Shard,
        rows: u64,
    ) -> Result<Option<Batch>, StoreError> {
        let each = self.world.borrow().key_takes;
        sleep(each * u32::try_from(rows).expect("is small")).await;
        let shard = shard.clone();
        self.world.borrow_mut().asked.push(rows);
        self.effect(Kind::Batch, move |world, run| world.batch(run, &shard, rows)).await
    }

    async fn single(&mut self, job: Job<'_>, shard: &Shard) -> Result<Option<Batch>, StoreError> {
        let (shard, max_bad) = (shard.clone(), job.max_bad);
        self.effect(Kind::Batch, move |world, run| world.single(run, &shard, max_bad)).await
    }

    async fn rejects(&mut self, _: Job<'_>) -> Result<u64, StoreError> {
        self.effect(Kind::Other, |world, _| {
            Ok(u64::try_from(world.rejects.len()).expect("is small"))
        })
        .await
    }

    async fn steering(&mut self) -> Result<Steering, StoreError> {
        self.effect(Kind::Other, |world, _| Ok(world.steering.clone())).await
    }

    async fn steer(&mut self, _: &Steer, _: &Run) -> Result<(), StoreError> {
        unreachable!("nobody here steers")
    }

    async fn probe(&mut self, _: &Limits) -> Vec<Reading> {
        self.world.borrow().readings.clone()
    }
}

/// The rows of a copy are the rows.
impl Source for Model {
    type Rows<'a> = ();

    async fn estimate_rows(
        &mut self,
        (): Self::Rows<'_>,
        _: Timeouts,
    ) -> Result<Option<u64>, StoreError> {
        unreachable!("only `migrate plan` asks for it")
    }

    async fn survey_rows(
        &mut self,
        (): Self::Rows<'_>,
        _: Timeouts,
        shards: usize,
        past: &[Shard],
    ) -> Result<Survey, StoreError> {
        let past = past.to_vec();
        self.effect(Kind::Other, move |world, _| Ok(world.survey(shards, &past))).await
    }

    async fn page(
        &mut self,
        (): Self::Rows<'_>,
        _: Timeouts,
        after: Option<&Key>,
        upto: Option<&Key>,
        limit: PageLimit,
    ) -> Result<Page, StoreError> {
        let each = self.world.borrow().key_takes;
        sleep(each * u32::try_from(limit.rows).expect("is small")).await;
        let (after, upto) = (after.cloned(), upto.cloned());
        self.effect(Kind::Batch, move |world, _| {
            Ok(world.page(after.as_ref(), upto.as_ref(), limit))
        })
        .await
    }
}

impl Target for Model {
    const ROWS_MAX: u64 = 1_000;

    async fn put(
        &mut self,
        job: Job<'_>,
        shard: &Shard,
        page: &Page,
    ) -> Result<Option<Batch>, StoreError> {
        let each = self.world.borrow().key_takes;
        sleep(each * u32::try_from(page.passed).expect("is small")).await;
        let (shard, page, max_bad) = (shard.clone(), page.clone(), job.max_bad);
        self.effect(Kind::Batch, move |world, run| world.put(run, &shard, &page, max_bad)).await
    }
}

pub struct NoHeart;

impl Heart for NoHeart {
    async fn beat(&mut self) -> Result<(), StoreError> {
        unreachable!("the lease is the caller's")
    }
}

/// A backfill asks for none of this but the lease.
impl Store for Model {
    type Step = PgStep;
    type Heart = NoHeart;

    async fn read(&mut self) -> Result<Snapshot, StoreError> {
        let lease = |run_id| LeaseSeen {
            holder: "somebody".to_owned(),
            run_id,
            expires_at: Timestamp::default(),
        };
        let lease = self.world.borrow().leader.clone().map(lease);
        Ok(Snapshot { lease, ..Snapshot::default() })
    }

    async fn rollbacks(
        &mut self,
        _: &[Version],
    ) -> Result<BTreeMap<Version, Rollback>, StoreError> {
        unreachable!()
    }

    async fn found(&mut self, _: &str) -> Result<String, StoreError> {
        unreachable!()
    }

    async fn pair(&mut self, _: &str) -> Result<(), StoreError> {
        unreachable!()
    }

    async fn acquire(&mut self, _: &Run) -> Result<Lease, StoreError> {
        unreachable!()
    }

    async fn evict(&mut self) -> Result<Vec<String>, StoreError> {
        unreachable!()
    }

    async fn cancel(&mut self) {}

    async fn heart(&mut self) -> Result<NoHeart, StoreError> {
        unreachable!()
    }

    async fn check_lease(&mut self) -> Result<(), StoreError> {
        unreachable!("a backfill does not ask for it")
    }

    async fn discard(&mut self, _: &[Unreadable]) -> Result<(), StoreError> {
        unreachable!("a backfill does not ask for it")
    }

    async fn release(&mut self, _: &Outcome) -> Result<(), StoreError> {
        unreachable!()
    }

    async fn append(&mut self, _: &[Entry]) -> Result<(), StoreError> {
        unreachable!()
    }

    async fn commit(&mut self, _: &PgStep, _: &[Entry]) -> Result<(), StoreError> {
        unreachable!()
    }

    async fn obstacle(&mut self, _: &PgStep) -> Result<Option<String>, StoreError> {
        unreachable!()
    }

    async fn perform(&mut self, _: &PgStep) -> Result<(), StoreError> {
        unreachable!()
    }

    async fn holds(&mut self, _: &PgStep) -> Result<Holds, StoreError> {
        unreachable!()
    }

    async fn clear(&mut self, _: &PgStep) -> Result<(), StoreError> {
        unreachable!()
    }
}
