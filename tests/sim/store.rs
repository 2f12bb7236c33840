//! A store whose database is in memory, and whose every effect may go wrong.
//!
//! What an effect means is what it means in `src/store/postgres` and
//! `src/store/mongo`: which writes are one transaction, what is fenced and what
//! cannot be, what a server refuses.

use crate::choices::Choices;
use crate::deed::{Deed, Extent, There, is_harmless};
use crate::mutants::Mutant;
use crate::world::{self, Book, Lease, RunRow, Side, World};
use lockstep::core::history::{Entry, Event, Record, RowStatus, Snapshot, Unreadable};
use lockstep::core::id::{StepId, StoreName, Version};
use lockstep::core::migration::Rollback;
use lockstep::core::parse::manifest::{MongoAnswer, MongoSource};
use lockstep::core::step::{MongoStep, PgStep};
use lockstep::store::copy::Query;
use lockstep::store::{self, Fate, Holder, Holds, Outcome, Run, Store, StoreError, Stores};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::{pending, poll_fn};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

/// A world, and who decides what becomes of each effect in it.
pub struct Sim {
    pub world: RefCell<World>,
    pub book: Rc<Book>,
    pub mutant: Option<Mutant>,
    pub choices: RefCell<Choices>,
    /// So many effects may still go wrong.
    pub faults_left: Cell<usize>,
    pub faults: Faults,
    /// The engine that may do its next effect; `None`: all may do all of theirs.
    pub turn: Cell<Turn>,
    pub engines: RefCell<Vec<EngineSeen>>,
    pub trace: RefCell<Vec<Line>>,
    pub effects: Cell<u64>,
    /// How many of them were no question.
    pub written: Cell<u64>,
    /// The first thing that must not have happened.
    pub violation: RefCell<Option<String>>,
    hearts: RefCell<Vec<(StoreName, i64, Arc<AtomicBool>)>>,
}

/// What can go wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Faults {
    /// Engines die, connections are lost, statements are refused for no reason
    /// of their own.
    All,
    /// Engines die.
    Deaths,
}

/// Whose effect is next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Turn {
    /// There is one engine.
    Alone,
    /// That of one of several engines.
    Of(usize),
    /// Somebody is yet to decide.
    Nobody,
}

/// One engine, from outside.
#[derive(Default)]
pub struct EngineSeen {
    pub died: bool,
    /// A number for all answers that it ever got: an engine of the same answers
    /// does the same next.
    pub answers: DefaultHasher,
    /// Effects on leases that went wrong: they may leave one behind.
    pub lease_faults: usize,
    pub faults: usize,
}

/// What became of one effect.
#[derive(Clone, Debug)]
pub struct Line {
    pub run: String,
    pub store: Option<StoreName>,
    pub what: &'static str,
    pub about: Option<(StepId, Event)>,
    pub luck: Luck,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let store = self.store.map_or("", StoreName::word);
        write!(f, "{:<6} {store:<8} {}", self.run, self.what)?;
        if let Some((step, event)) = &self.about {
            write!(f, " {step} {event}")?;
        }
        match self.luck {
            Luck::Succeeds => Ok(()),
            luck => write!(f, "  <-- {luck:?}"),
        }
    }
}

/// What becomes of an effect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Luck {
    Succeeds,
    /// The engine is dead before it begins.
    Dies,
    /// The engine is dead, and half of it is done.
    DiesHalfway,
    /// It never reaches the server.
    Lost,
    /// It is done, and the engine is not told.
    ReplyLost,
    /// Half of it is done, and the engine is not told.
    HalfLost,
    /// The server says no.
    Refused,
    /// The server says no, and half of it is done.
    RefusedHalfway,
}

/// What can become of an effect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Manner {
    /// Changes nothing.
    Question,
    /// A write of ours whose loss is told as such.
    Write,
    /// A write that is tried again when nobody knows, or is worth nothing then.
    LeaseWrite,
    /// A transaction with statements of a script.
    Commit,
    /// Statements that no transaction holds.
    Perform,
    /// The same, where a no leaves nothing.
    PerformOrNot,
}

impl Manner {
    fn lucks(self, faults: Faults) -> &'static [Luck] {
        use Luck::{
            Dies, DiesHalfway, HalfLost, Lost, Refused, RefusedHalfway, ReplyLost, Succeeds,
        };
        match (faults, self) {
            (Faults::Deaths, Manner::Perform | Manner::PerformOrNot) => {
                &[Succeeds, Dies, DiesHalfway]
            }
            (Faults::Deaths, _) => &[Succeeds, Dies],
            (Faults::All, Manner::Question) => &[Succeeds, Dies, Lost],
            (Faults::All, Manner::LeaseWrite) => &[Succeeds, Dies, Lost, ReplyLost],
            (Faults::All, Manner::Write | Manner::Commit) => {
                &[Succeeds, Dies, Lost, ReplyLost, Refused]
            }
            (Faults::All, Manner::PerformOrNot) => {
                &[Succeeds, Dies, DiesHalfway, Lost, ReplyLost, HalfLost, Refused]
            }
            (Faults::All, Manner::Perform) => {
                &[Succeeds, Dies, DiesHalfway, Lost, ReplyLost, HalfLost, Refused, RefusedHalfway]
            }
        }
    }
}

impl Sim {
    pub fn new(world: World, book: Rc<Book>, choices: Choices) -> Sim {
        Sim {
            world: RefCell::new(world),
            book,
            mutant: None,
            choices: RefCell::new(choices),
            faults_left: Cell::new(0),
            faults: Faults::All,
            turn: Cell::new(Turn::Alone),
            engines: RefCell::default(),
            trace: RefCell::default(),
            effects: Cell::new(0),
            written: Cell::new(0),
            violation: RefCell::default(),
            hearts: RefCell::default(),
        }
    }

    fn luck(&self, at: &At, what: &'static str, manner: Manner, about: About) -> Luck {
        self.effects.set(self.effects.get() + 1);
        self.written.set(self.written.get() + u64::from(manner != Manner::Question));
        let left = self.faults_left.get();
        let lucks = manner.lucks(self.faults);
        let luck = match left {
            0 => Luck::Succeeds,
            _ => lucks[self.choices.borrow_mut().pick(lucks.len())],
        };
        if luck != Luck::Succeeds {
            self.faults_left.set(left - 1);
            let engine = &mut self.engines.borrow_mut()[at.engine];
            engine.faults += 1;
            engine.lease_faults += usize::from(manner == Manner::LeaseWrite);
        }
        let (run, store) = (at.run.clone(), Some(at.store));
        self.trace.borrow_mut().push(Line { run, store, what, about, luck });
        luck
    }

    /// Remembers the first thing that must not have happened.
    pub fn violated(&self, why: String) {
        self.violation.borrow_mut().get_or_insert(why);
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }
}

/// What an effect is about, for the trace.
type About = Option<(StepId, Event)>;

fn about(entries: &[Entry]) -> About {
    entries.iter().rev().find_map(|entry| match entry {
        Entry::Record(record) => Some((record.step.clone(), record.event)),
        Entry::Row(..) | Entry::RowGone(_) => None,
    })
}

/// Whose connection it is, and to which database.
#[derive(Clone, Debug)]
struct At {
    engine: usize,
    run: String,
    store: StoreName,
}

/// What a simulated store can run.
pub trait Payload {
    const STORE: StoreName;
    type Question: ?Sized;
    type Rows: ?Sized;
    type Copied<'a>: Copy;
    fn deeds(&self) -> Vec<Deed>;
    /// What the store says when the schema does not tell.
    fn unknown(&self) -> Holds;
}

impl Payload for PgStep {
    type Question = str;
    type Rows = str;
    type Copied<'a> = Query<'a>;
    const STORE: StoreName = StoreName::Postgres;
    fn deeds(&self) -> Vec<Deed> {
        Deed::of_postgres(self)
    }
    fn unknown(&self) -> Holds {
        Holds::Ask
    }
}

impl Payload for MongoStep {
    type Question = MongoAnswer;
    type Rows = MongoSource;
    type Copied<'a> = &'a MongoSource;
    const STORE: StoreName = StoreName::Mongo;
    fn deeds(&self) -> Vec<Deed> {
        vec![Deed::of_mongo(self)]
    }
    fn unknown(&self) -> Holds {
        if is_harmless(self.kind) { Holds::No } else { Holds::Ask }
    }
}

/// One engine's connection to one database.
pub struct SimStore<T> {
    sim: Rc<Sim>,
    at: At,
    fence: i64,
    step: PhantomData<T>,
}

/// The connections of one engine.
pub type SimStores = Stores<SimStore<PgStep>, SimStore<MongoStep>>;

/// Connections of a new engine to the stores that a project has.
pub fn connect(sim: &Rc<Sim>, stores: &[StoreName], run: &str) -> SimStores {
    let engine = sim.engines.borrow().len();
    sim.engines.borrow_mut().push(EngineSeen::default());
    Stores {
        postgres: stores
            .contains(&StoreName::Postgres)
            .then(|| SimStore::new(sim, engine, run, StoreName::Postgres)),
        mongo: stores
            .contains(&StoreName::Mongo)
            .then(|| SimStore::new(sim, engine, run, StoreName::Mongo)),
    }
}

impl<T> SimStore<T> {
    fn new(sim: &Rc<Sim>, engine: usize, run: &str, store: StoreName) -> SimStore<T> {
        let at = At { engine, run: run.to_owned(), store };
        SimStore { sim: sim.clone(), at, fence: 0, step: PhantomData }
    }
}

fn refuse(store: StoreName, what: &'static str, why: impl Into<String>) -> StoreError {
    StoreError::new(store, what, Fate::Refused, why)
}

impl<T: Payload> SimStore<T> {
    /// One effect: whatever of it happens, happens at once.
    async fn effect<R: Hash>(
        &self,
        what: &'static str,
        manner: Manner,
        about: About,
        act: impl FnOnce(&mut Side, Extent) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let Sim { world, turn, .. } = &*self.sim;
        poll_fn(|_| match turn.get() {
            Turn::Alone => Poll::Ready(()),
            Turn::Of(engine) if engine == self.at.engine => {
                turn.set(Turn::Nobody);
                Poll::Ready(())
            }
            Turn::Of(_) | Turn::Nobody => Poll::Pending,
        })
        .await;
        let luck = self.sim.luck(&self.at, what, manner, about);
        let lost = |fate| StoreError::new(T::STORE, what, fate, format!("{luck:?}"));
        let unknown = match manner {
            Manner::Question | Manner::LeaseWrite => Fate::Unreachable,
            Manner::Write | Manner::Commit | Manner::Perform | Manner::PerformOrNot => {
                Fate::Unknown
            }
        };
        let result = {
            let mut world = world.borrow_mut();
            let side = world.side_mut(T::STORE);
            match luck {
                Luck::Succeeds => Some(act(side, Extent::Whole)),
                Luck::Dies => None,
                Luck::DiesHalfway => {
                    let _ = act(side, Extent::Half);
                    None
                }
                Luck::Lost => Some(Err(lost(Fate::Unreachable))),
                Luck::ReplyLost => Some(act(side, Extent::Whole).and(Err(lost(unknown)))),
                Luck::HalfLost => Some(act(side, Extent::Half).and(Err(lost(unknown)))),
                Luck::Refused => Some(Err(lost(Fate::Refused))),
                Luck::RefusedHalfway => Some(act(side, Extent::Half).and(Err(lost(Fate::Refused)))),
            }
        };
        // Leases are looked at elsewhere. What led here before was looked at before.
        if !matches!(manner, Manner::Question | Manner::LeaseWrite)
            && self.sim.choices.borrow().is_new()
            && self.sim.violation.borrow().is_none()
            && let Err(why) = world::check(&world.borrow(), &self.sim.book)
        {
            self.sim.violated(why);
        }
        let Some(result) = result else {
            self.sim.engines.borrow_mut()[self.at.engine].died = true;
            return pending().await;
        };
        if turn.get() != Turn::Alone {
            let answers = &mut self.sim.engines.borrow_mut()[self.at.engine].answers;
            what.hash(answers);
            match &result {
                Ok(answer) => answer.hash(answers),
                Err(error) => (error.fate as u8, &error.said.message).hash(answers),
            }
        }
        result
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.sim.is(mutant)
    }

    /// Whether entries may be written by this run now.
    fn check_write(&self, side: &Side, entries: &[Entry]) -> Result<(), StoreError> {
        let fenced = |why| Err(StoreError::new(T::STORE, "record", Fate::Fenced, why));
        let taken = entries.iter().any(|entry| match entry {
            Entry::Record(record) => side.records.contains_key(&key(record)),
            Entry::Row(..) | Entry::RowGone(_) => false,
        });
        if taken {
            return fenced("another run recorded it first");
        }
        match side.runs.get(&self.at.run) {
            Some(run) if run.is_running && run.fence == self.fence => Ok(()),
            _ if self.is(Mutant::NoFence) => Ok(()),
            _ => fenced("another run has taken the lease"),
        }
    }

    /// Whether this run may still do what carries no fence.
    fn is_not_too_late(&self, side: &Side) -> Result<(), StoreError> {
        match self.fence {
            0 => Ok(()),
            _ => self.check_write(side, &[]),
        }
    }

    fn write(&self, side: &mut Side, entries: &[Entry]) -> Result<(), StoreError> {
        self.check_write(side, entries)?;
        self.record(side, entries);
        Ok(())
    }

    fn record(&self, side: &mut Side, entries: &[Entry]) {
        side.writes.push((self.fence, self.at.run.clone()));
        if side.runs.get(&self.at.run).is_none_or(|run| !run.is_running) {
            side.writes_of_the_dead.push(self.at.run.clone());
        }
        for entry in entries {
            match entry {
                Entry::Record(record) => {
                    side.records.insert(key(record), record.clone());
                }
                Entry::Row(row, rollback) => {
                    let row = (**row).clone();
                    side.rows.insert(row.version, (row, Rc::new(rollback.clone())));
                }
                Entry::RowGone(version) => {
                    side.rows.remove(version);
                }
            }
        }
    }

    /// What a mutant makes of entries.
    fn mutate(&self, entries: &[Entry]) -> Vec<Entry> {
        let event = |entry: &Entry| match entry {
            Entry::Record(record) => Some(record.event),
            Entry::Row(..) | Entry::RowGone(_) => None,
        };
        let mut entries = entries.to_vec();
        match self.sim.mutant {
            Some(Mutant::StartedNotRecorded) => {
                entries.retain(|entry| event(entry) != Some(Event::Started));
            }
            Some(Mutant::RevertingNotAnnounced) => {
                entries.retain(|entry| event(entry) != Some(Event::Reverting));
            }
            Some(Mutant::AppliedBeforePerform) => {
                // The real one comes again, and must not be in its own way.
                entries.retain(|entry| match entry {
                    Entry::Record(record) => {
                        let world = self.sim.world.borrow();
                        !world.side(T::STORE).records.contains_key(&key(record))
                    }
                    Entry::Row(..) | Entry::RowGone(_) => true,
                });
                let early = entries.iter().filter_map(|entry| match entry {
                    Entry::Record(record) if record.event == Event::Started => {
                        Some(Entry::Record(Record { event: Event::Applied, ..record.clone() }))
                    }
                    _ => None,
                });
                let early: Vec<Entry> = early.collect();
                entries.extend(early);
            }
            Some(Mutant::AppendDropsTheSecondHalf) => {
                entries.truncate(entries.len().div_ceil(2));
            }
            _ => {}
        }
        entries
    }
}

fn key(record: &Record) -> (StepId, u32, Event) {
    (record.step.clone(), record.attempt, record.event)
}

impl<T: Payload> Store for SimStore<T> {
    type Step = T;
    type Heart = SimHeart;

    async fn read(&mut self) -> Result<Snapshot, StoreError> {
        let seen = self
            .effect("read", Manner::Question, None, |side, _| {
                let lease = side.control.lease.as_ref().filter(|lease| !lease.has_run_out);
                let lease = lease.map(|lease| lockstep::core::history::LeaseSeen {
                    holder: String::new(),
                    run_id: lease.run.clone(),
                    expires_at: lockstep::core::history::Timestamp(0),
                });
                Ok(Seen(Snapshot { lease, ..side.snapshot() }))
            })
            .await;
        let mut snapshot = seen?.0;
        if self.is(Mutant::ReadsOnlyPostgres) && T::STORE == StoreName::Mongo {
            snapshot.records.clear();
            snapshot.rows.clear();
        }
        if self.is(Mutant::RowTakenForTruth) {
            let rows = snapshot.rows.clone();
            for row in rows {
                snapshot.records.extend(self.sim.book.all_applied(&row, T::STORE));
            }
            for row in &mut snapshot.rows {
                row.status = RowStatus::Completed;
            }
        }
        Ok(snapshot)
    }

    async fn rollbacks(
        &mut self,
        versions: &[Version],
    ) -> Result<BTreeMap<Version, Rollback>, StoreError> {
        let found = self
            .effect("read the down scripts", Manner::Question, None, |side, _| {
                let found = versions.iter().filter_map(|version| {
                    let (_, rollback) = side.rows.get(version)?;
                    Some((*version, Shown((**rollback).clone())))
                });
                Ok(found.collect::<BTreeMap<_, _>>())
            })
            .await?;
        Ok(found.into_iter().map(|(version, Shown(rollback))| (version, rollback)).collect())
    }

    async fn found(&mut self, pair: &str) -> Result<String, StoreError> {
        self.effect("create the history", Manner::LeaseWrite, None, |side, _| {
            Ok(side.control.pair.get_or_insert_with(|| pair.to_owned()).clone())
        })
        .await
    }

    async fn pair(&mut self, pair: &str) -> Result<(), StoreError> {
        self.effect("pair the databases", Manner::LeaseWrite, None, |side, _| {
            side.control.pair = Some(pair.to_owned());
            Ok(())
        })
        .await
    }

    /// The statements of a dead engine die with it here.
    async fn evict(&mut self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    async fn cancel(&mut self) {}

    async fn acquire(&mut self, run: &Run) -> Result<store::Lease, StoreError> {
        let end_the_dead = |side: &mut Side, fence| {
            let dead = side.runs.values_mut().filter(|run| run.fence < fence);
            dead.for_each(|run| run.is_running = false);
        };
        let begin = |side: &mut Side, fence| {
            side.runs.insert(run.id.clone(), RunRow { fence, is_running: true });
        };
        let held = |run_id| {
            let (host, user, since) = (String::new(), String::new(), String::new());
            let holder = Holder { host, pid: 0, user, run_id, since };
            store::Lease::Held { holder, left: Duration::from_secs(30) }
        };
        let one_transaction = T::STORE == StoreName::Postgres;
        let taken = self
            .effect("take the lease", Manner::LeaseWrite, None, |side, _| {
                match &side.control.lease {
                    Some(lease) if !lease.has_run_out => return Ok(Err(lease.run.clone())),
                    _ => {}
                }
                side.control.fence += 1;
                let fence = side.control.fence;
                let ours = Lease { run: run.id.clone(), has_run_out: false };
                let died = side.control.lease.replace(ours).map(|lease| lease.run);
                if one_transaction {
                    end_the_dead(side, fence);
                    begin(side, fence);
                }
                Ok(Ok((fence, died)))
            })
            .await?;
        let (fence, died) = match taken {
            Ok(ours) => ours,
            Err(run_id) => return Ok(held(run_id)),
        };
        if !one_transaction {
            self.effect("end the dead", Manner::LeaseWrite, None, |side, _| {
                end_the_dead(side, fence);
                Ok(())
            })
            .await?;
            self.effect("begin the run", Manner::LeaseWrite, None, |side, _| {
                begin(side, fence);
                Ok(())
            })
            .await?;
            if !self.is(Mutant::LeaseNotLookedAtAgain) {
                let other = self
                    .effect("look at the lease again", Manner::LeaseWrite, None, |side, _| {
                        if side.control.fence == fence {
                            return Ok(None);
                        }
                        side.runs.insert(run.id.clone(), RunRow { fence, is_running: false });
                        let lease = side.control.lease.as_ref();
                        Ok(Some(lease.map_or_else(String::new, |lease| lease.run.clone())))
                    })
                    .await?;
                if let Some(run_id) = other {
                    return Ok(held(run_id));
                }
            }
        }
        self.fence = fence;
        for (store, older, lost) in &*self.sim.hearts.borrow() {
            if *store == T::STORE && *older < fence {
                lost.store(true, Ordering::Relaxed);
            }
        }
        Ok(store::Lease::Ours { fence, died })
    }

    async fn discard(&mut self, _: &[Unreadable]) -> Result<(), StoreError> {
        unreachable!("nobody writes by hand here")
    }

    async fn heart(&mut self) -> Result<SimHeart, StoreError> {
        self.effect("start the heart", Manner::Question, None, |_, _| Ok(())).await?;
        let heart = SimHeart { store: T::STORE, lost: Arc::default() };
        let kept = (T::STORE, self.fence, heart.lost.clone());
        self.sim.hearts.borrow_mut().push(kept);
        Ok(heart)
    }

    async fn release(&mut self, _outcome: &Outcome) -> Result<(), StoreError> {
        if self.fence == 0 {
            return Ok(());
        }
        let (run, fence) = (self.at.run.clone(), self.fence);
        let end = |side: &mut Side| {
            if let Some(run) = side.runs.get_mut(&run) {
                run.is_running = false;
            }
        };
        let one_transaction = T::STORE == StoreName::Postgres;
        if !one_transaction {
            self.effect("end the run", Manner::LeaseWrite, None, |side, _| {
                end(side);
                Ok(())
            })
            .await?;
        }
        self.effect("give the lease back", Manner::LeaseWrite, None, |side, _| {
            if one_transaction {
                end(side);
            }
            if side.control.fence == fence {
                side.control.lease = None;
            }
            Ok(())
        })
        .await?;
        self.fence = 0;
        Ok(())
    }

    async fn append(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        let entries = self.mutate(entries);
        if entries.is_empty() {
            return Ok(());
        }
        self.effect("append", Manner::Write, about(&entries), |side, _| self.write(side, &entries))
            .await?;
        if self.is(Mutant::LeaseReleasedEarly) {
            self.sim.world.borrow_mut().side_mut(T::STORE).control.lease = None;
        }
        Ok(())
    }

    async fn commit(&mut self, step: &T, entries: &[Entry]) -> Result<(), StoreError> {
        const COMMIT: &str = "commit";
        let entries = self.mutate(entries);
        // A transaction: all of it, or nothing.
        let run = |side: &Side| {
            let mut schema = side.schema.clone();
            for deed in step.deeds() {
                let done = schema.perform(&deed, Extent::Whole);
                done.map_err(|why| refuse(T::STORE, COMMIT, why))?;
            }
            Ok(schema)
        };
        let take_effect = |side: &mut Side, schema| {
            side.schema = schema;
            for entry in &entries {
                if let Entry::Record(Record { step, checksum, event: Event::Applied, .. }) = entry {
                    *side.took_effect.entry((step.clone(), *checksum)).or_default() += 1;
                }
            }
        };
        let about = about(&entries);
        if self.is(Mutant::RecordOutsideTheTransaction) {
            self.effect(COMMIT, Manner::Commit, about.clone(), |side, _| {
                let schema = run(side)?;
                take_effect(side, schema);
                Ok(())
            })
            .await?;
            return self
                .effect("append", Manner::Write, about, |side, _| self.write(side, &entries))
                .await;
        }
        let fence_first = self.is(Mutant::FenceCheckedBeforeTheTransaction);
        if fence_first {
            self.effect("look at the fence", Manner::Question, None, |side, _| {
                self.check_write(side, &entries)
            })
            .await?;
        }
        let committed = self
            .effect(COMMIT, Manner::Commit, about, |side, _| {
                let schema = run(side)?;
                if !fence_first {
                    self.check_write(side, &entries)?;
                }
                take_effect(side, schema);
                self.record(side, &entries);
                Ok(())
            })
            .await;
        match committed {
            Err(error)
                if self.is(Mutant::LossTakenForSuccess) && error.fate == Fate::Unreachable =>
            {
                Ok(())
            }
            committed => committed,
        }
    }

    async fn check_lease(&mut self) -> Result<(), StoreError> {
        self.effect("look at the lease", Manner::Question, None, |side, _| {
            if self.is(Mutant::LeaseNeverLost) {
                return Ok(());
            }
            self.is_not_too_late(side)
        })
        .await
    }

    async fn obstacle(&mut self, step: &T) -> Result<Option<String>, StoreError> {
        self.effect("look for obstacles", Manner::Question, None, |side, _| {
            Ok(step.deeds().iter().find_map(|deed| side.schema.obstacle(deed)))
        })
        .await
    }

    async fn perform(&mut self, step: &T) -> Result<(), StoreError> {
        const PERFORM: &str = "perform";
        let manner = match T::STORE {
            StoreName::Postgres => Manner::Perform,
            StoreName::Mongo => Manner::PerformOrNot,
        };
        let performed = self
            .effect(PERFORM, manner, None, |side, extent| {
                self.is_not_too_late(side)?;
                let mut deeds = step.deeds().into_iter();
                deeds
                    .try_for_each(|deed| side.schema.perform(&deed, extent))
                    .map_err(|why| refuse(T::STORE, PERFORM, why))
            })
            .await;
        performed.map_err(|error| {
            let lost = matches!(error.fate, Fate::Unknown);
            if self.is(Mutant::ReplyLostTakenForFailure) && lost {
                return refuse(T::STORE, PERFORM, "lost");
            }
            error
        })
    }

    async fn holds(&mut self, step: &T) -> Result<Holds, StoreError> {
        let holds = self
            .effect("ask whether it holds", Manner::Question, None, |side, _| {
                let there = step.deeds().iter().map(|deed| side.schema.there(deed)).next();
                Ok(match there {
                    None | Some(There::Yes) => Told(Holds::Yes),
                    Some(There::No) => Told(Holds::No),
                    Some(There::Listed) => Told(Holds::Listed),
                    Some(There::NobodyKnows) => Told(step.unknown()),
                })
            })
            .await?;
        Ok(match self.sim.mutant {
            Some(Mutant::NoHolds) => Holds::No,
            Some(Mutant::AlwaysHolds) => Holds::Yes,
            _ => holds.0,
        })
    }

    async fn clear(&mut self, step: &T) -> Result<(), StoreError> {
        self.effect("clear", Manner::Write, None, |side, _| {
            self.is_not_too_late(side)?;
            if !self.is(Mutant::NoClear) {
                step.deeds().iter().for_each(|deed| side.schema.clear(deed));
            }
            Ok(())
        })
        .await
    }
}

/// A snapshot, by what a plan can see of it.
struct Seen(Snapshot);

impl Hash for Seen {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for record in &self.0.records {
            (&record.step, record.attempt, record.event, record.checksum).hash(state);
            (record.rank, record.migration_checksum).hash(state);
        }
        for row in &self.0.rows {
            (row.version, row.rank, row.checksum, row.status as u8, &row.run_id).hash(state);
        }
        self.0.pair.hash(state);
        self.0.lease.as_ref().map(|lease| &lease.run_id).hash(state);
    }
}

/// Down scripts, by their texts.
struct Shown(Rollback);

impl Hash for Shown {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.scripts.hash(state);
    }
}

struct Told(Holds);

impl Hash for Told {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0 as u8).hash(state);
    }
}

/// Beats for as long as nobody took the lease.
pub struct SimHeart {
    store: StoreName,
    lost: Arc<AtomicBool>,
}

impl store::Heart for SimHeart {
    async fn beat(&mut self) -> Result<(), StoreError> {
        match self.lost.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(StoreError::new(
                self.store,
                "renew the lease",
                Fate::Fenced,
                "another run has taken it",
            )),
        }
    }
}
