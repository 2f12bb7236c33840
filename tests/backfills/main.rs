//! The engine of backfills against a store in memory, in a time that stands still
//! unless everybody waits: every place where a run may break, and how it obeys.

mod copies;
mod model;
mod rejects;

use lockstep::core::backfill::Backfill;
use lockstep::core::checksum::Checksum;
use lockstep::core::history::{Entry, Event, Record};
use lockstep::core::id::{StepId, Version};
use lockstep::core::notice::{BackfillState, Notice};
use lockstep::core::pace::{self, AtLimit, Level, Reading, Steering};
use lockstep::core::parse::manifest::{Pace, Work};
use lockstep::core::step::{QualifiedName, Timeouts};
use lockstep::engine::backfill::{BackfillError, Done, Settings, Task, join, run};
use lockstep::engine::{Stop, StopReason};
use lockstep::store::Fate;
use lockstep::store::backfill::Job;
use model::{Fault, Model, World};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Nothing here takes longer, in the time that stands still.
const LIMIT: Duration = Duration::from_hours(1);

/// A backfill of `t`, with what it says about its pace.
fn backfill(pace: Pace) -> Backfill {
    let table = QualifiedName { schema: None, name: "t".to_owned() };
    Backfill {
        title: "one more".to_owned(),
        work: Work::Update { table, set: "n = n + 1".to_owned(), condition: None, key: Vec::new() },
        pace,
        max_bad: 0,
        timeouts: Timeouts::default(),
    }
}

fn record() -> Record {
    Record {
        step: StepId { version: Version(2), name: "execute/one-more".parse().expect("a name") },
        attempt: 1,
        event: Event::Progress,
        rank: 1,
        checksum: Checksum::of(b"step"),
        migration_checksum: Checksum::of(b"folder"),
    }
}

fn world(rows: i64) -> Rc<RefCell<World>> {
    let rows = (1..=rows).map(|key| (key, 0)).collect();
    Rc::new(RefCell::new(World { rows, ..World::default() }))
}

fn small(workers: u64) -> Pace {
    Pace { batch: Some(7), workers: Some(workers), ..Pace::default() }
}

/// One process: what it was told, and how it ended.
struct Process<'a> {
    world: &'a Rc<RefCell<World>>,
    other: Option<&'a Rc<RefCell<World>>>,
    run: String,
    pace: Pace,
    notices: RefCell<Vec<Notice>>,
    stop: Stop,
}

impl<'a> Process<'a> {
    fn new(world: &'a Rc<RefCell<World>>, run: &str, pace: Pace) -> Process<'a> {
        let (_, stop) = Stop::new();
        let notices = RefCell::default();
        Process { world, other: None, run: run.to_owned(), pace, notices, stop }
    }

    async fn leads(&self) -> Result<Done, BackfillError> {
        self.world.borrow_mut().leader = Some(self.run.clone());
        self.ends(true).await.expect("nothing kills it")
    }

    async fn joins(&self) -> Result<Done, BackfillError> {
        self.ends(false).await.expect("nothing kills it")
    }

    /// `None`: it died.
    async fn ends(&self, leads: bool) -> Option<Result<Done, BackfillError>> {
        let backfill = backfill(self.pace.clone());
        let record = record();
        let (timeouts, max_bad) = (Timeouts::default(), self.world.borrow().max_bad);
        let job = Job { work: &backfill.work, record: &record, timeouts, max_bad };
        let entries = [Entry::RowGone(Version(9))];
        let task = Task { job, backfill: &backfill, entries: &entries };
        let project = pace::Settings::default();
        let settings = Settings { pace: &project, minute: &|| 0, stop: &self.stop };
        let mut notices = |notice: Notice| self.notices.borrow_mut().push(notice);
        let mut store = Model::new(self.world, &self.run);
        let died = Rc::clone(&store.died);
        let mut other = self.other.map(|world| Model::new(world, &self.run));
        let other = other.as_mut();
        let work = async {
            match leads {
                true => run(&mut store, other, task, settings, &mut notices).await,
                false => join(&mut store, other, task, settings, &mut notices).await,
            }
        };
        tokio::select! {
            done = work => Some(done),
            () = died.notified() => None,
            () = sleep(LIMIT) => panic!("it comes to no end"),
        }
    }

    fn states(&self) -> Vec<BackfillState> {
        let notices = self.notices.borrow();
        let states = notices.iter().filter_map(|notice| match notice {
            Notice::BackfillProgress(progress) => Some(progress.state.clone()),
            _ => None,
        });
        states.collect()
    }

    fn remarks(&self) -> Vec<String> {
        let notices = self.notices.borrow();
        let remarks = notices.iter().filter_map(|notice| match notice {
            Notice::Remark(text) => Some(text.clone()),
            _ => None,
        });
        remarks.collect()
    }
}

/// Each row once, and all of it recorded.
#[track_caller]
fn check_once(world: &Rc<RefCell<World>>, what: &str) {
    let world = world.borrow();
    let times = |key: &i64| u32::from(!world.refused.contains(key));
    let wrong: BTreeMap<_, _> =
        world.rows.iter().filter(|(key, done)| **done != times(key)).collect();
    assert!(wrong.is_empty(), "{what}: rows that were not rewritten once: {wrong:?}");
    let open: Vec<_> = world.shards.values().filter(|it| !it.shard.done).collect();
    assert!(open.is_empty(), "{what}: {} shards are open", open.len());
    let passed: u64 = world.shards.values().map(|it| it.shard.passed).sum();
    let is_elsewhere = |key: &&String| !world.rows.contains_key(&key.parse().expect("a number"));
    let rows = world.rows.len() + world.rejects.iter().filter(is_elsewhere).count();
    assert_eq!(passed, u64::try_from(rows).expect("is small"), "{what}");
}

/// Fails unless these rows were put aside, each once.
#[track_caller]
fn check_aside(world: &Rc<RefCell<World>>, keys: &[i64], what: &str) {
    let mut aside = world.borrow().rejects.clone();
    aside.sort_by_key(|key| key.parse::<i64>().expect("a number"));
    let keys: Vec<String> = keys.iter().map(i64::to_string).collect();
    assert_eq!(aside, keys, "{what}");
}

/// Run after run until one succeeds. Returns how many it took, and the places.
async fn until_done(world: &Rc<RefCell<World>>, workers: u64, what: &str) -> usize {
    for attempt in 1..20 {
        let process = Process::new(world, &format!("run {attempt}"), small(workers));
        world.borrow_mut().leader = Some(process.run.clone());
        let ended = process.ends(true).await;
        world.borrow_mut().over.insert(process.run.clone());
        match ended {
            Some(Ok(_)) => return attempt,
            Some(Err(error)) => panic!("{what}: {error}"),
            None => {}
        }
    }
    panic!("{what}: it comes to no end");
}

fn broken(faults: &[(usize, Fault)]) -> Rc<RefCell<World>> {
    let world = world(60);
    world.borrow_mut().faults = faults.iter().copied().collect();
    world.borrow_mut().arrivals = BTreeMap::from([(20, vec![100, 101, 102]), (30, vec![200])]);
    world
}

#[tokio::test(start_paused = true)]
async fn whatever_breaks_wherever_each_row_is_rewritten_once() {
    let mut died = 0;
    for workers in [1, 3] {
        let clean = broken(&[]);
        until_done(&clean, workers, "nothing breaks").await;
        check_once(&clean, "nothing breaks");
        let places = clean.borrow().places;
        assert!(places > 40, "{places}");
        for place in 1..=places {
            for fault in Fault::ALL {
                let what = format!("{workers} workers, {fault:?} at {place} of {places}");
                let world = broken(&[(place, fault)]);
                died += until_done(&world, workers, &what).await - 1;
                check_once(&world, &what);
                assert!(!world.borrow().entries.is_empty(), "{what}: the entries are written");
            }
        }
    }
    assert!(died > 100, "{died} processes died");
}

#[tokio::test(start_paused = true)]
async fn two_things_break_one_after_the_other() {
    const TWICE: [Fault; 4] = [Fault::DiesAfter, Fault::LostAfter, Fault::LostLate, Fault::Stolen];
    for first in (1..60).step_by(3) {
        for distance in [1, 2, 3, 5, 8] {
            for one in TWICE {
                for two in TWICE {
                    let faults = [(first, one), (first + distance, two)];
                    let world = broken(&faults);
                    let what = format!("{faults:?}");
                    until_done(&world, 2, &what).await;
                    check_once(&world, &what);
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_the_store_refuses_ends_the_work_of_all() {
    let clean = broken(&[]);
    until_done(&clean, 3, "nothing breaks").await;
    let mut refused = 0;
    let places = clean.borrow().places;
    for place in 1..=places {
        let world = broken(&[(place, Fault::Refused)]);
        match Process::new(&world, "refused", small(3)).leads().await {
            Ok(_) => {}
            Err(BackfillError::Store(error)) => {
                assert_eq!(error.fate, Fate::Refused);
                refused += 1;
                let world = world.borrow();
                assert!(world.rows.values().all(|times| *times <= 1));
                let claimed = world.shards.values().filter(|it| it.shard.claimed).count();
                // Unless what was refused was to give it back.
                assert!(claimed <= 1, "at {place}: {claimed} shards are still claimed");
            }
            Err(BackfillError::Stopped(_)) => panic!("nobody stopped it"),
        }
        world.borrow_mut().faults.clear();
        world.borrow_mut().over.insert("refused".to_owned());
        until_done(&world, 3, "mended").await;
        check_once(&world, "mended");
    }
    assert!(refused > 20, "{refused}");
}

#[tokio::test(start_paused = true)]
async fn somebody_in_the_way_ten_times_is_an_error_and_the_batch_is_smaller_each_time() {
    let world = world(1_000);
    let steps = (1..1_000).map(|place| (place, Fault::InTheWay));
    world.borrow_mut().faults = steps.collect();
    let pace = Pace { batch: Some(512), ..Pace::default() };
    let error = Process::new(&world, "run", pace).leads().await.expect_err("it never works");
    let BackfillError::Store(error) = error else { panic!("{error}") };
    assert_eq!(error.said.code.as_deref(), Some("SQLSTATE 55P03"));
    assert_eq!(world.borrow().asked, [512, 256, 128, 64, 32, 16, 8, 4, 2, 1]);
}

#[tokio::test(start_paused = true)]
async fn paused_in_either_store_it_stands_still_within_a_batch_and_keeps_its_shards() {
    for paused_here in [true, false] {
        let (world, other) = (world(100_000), world(0));
        world.borrow_mut().key_takes = Duration::from_micros(100);
        let mut process = Process::new(&world, "run", Pace { workers: Some(2), ..Pace::default() });
        process.other = Some(&other);
        let place = if paused_here { &world } else { &other };
        let people = async {
            sleep(Duration::from_secs(1)).await;
            let paused = Some("lunch".to_owned());
            place.borrow_mut().steering = Steering { paused, speed: 1.0 };
            // What was under way; a batch takes a tenth of a second.
            sleep(Duration::from_millis(300)).await;
            let before = world.borrow().batches.len();
            for _ in 0..60 {
                sleep(Duration::from_secs(1)).await;
                for it in world.borrow().shards.values().filter(|it| it.shard.claimed) {
                    assert!(it.said.elapsed() < Duration::from_secs(10), "it keeps its shard");
                }
            }
            assert!(before > 2, "{before}");
            assert_eq!(world.borrow().batches.len(), before, "nothing happens");
            place.borrow_mut().steering = Steering::default();
        };
        let (done, ()) = tokio::join!(process.leads(), people);
        assert_eq!(done.expect("it goes on").rows, 100_000);
        check_once(&world, "paused");
        let stopped = BackfillState::Stopped("paused: lunch".to_owned());
        let told = process.states().iter().filter(|state| **state == stopped).count();
        assert!((58..=63).contains(&told), "{told} notices in a minute");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_behind_is_waited_for() {
    let world = world(20_000);
    world.borrow_mut().key_takes = Duration::from_micros(100);
    let reading = |ratio, says: &str| Reading {
        probe: "replication lag",
        at_limit: AtLimit::Stop,
        level: Level::At { ratio, says: says.to_owned() },
    };
    let process = Process::new(&world, "run", Pace::default());
    let server = async {
        sleep(Duration::from_millis(500)).await;
        world.borrow_mut().readings = vec![reading(1.4, "7 s behind")];
        sleep(Duration::from_millis(1_500)).await;
        let before = world.borrow().batches.len();
        sleep(Duration::from_secs(100)).await;
        assert_eq!(world.borrow().batches.len(), before);
        world.borrow_mut().readings = vec![reading(0.2, "1 s behind")];
    };
    let (done, ()) = tokio::join!(process.leads(), server);
    assert_eq!(done.expect("it goes on").rows, 20_000);
    let states = process.states();
    assert!(states.contains(&BackfillState::Stopped("Postgres: 7 s behind".to_owned())));
    assert!(states.contains(&BackfillState::Slow("7 s behind".to_owned())), "and then slowly");
}

#[tokio::test(start_paused = true)]
async fn commits_that_take_long_make_it_slower() {
    for (ms, slow) in [(30, false), (150, true)] {
        let world = world(20_000);
        world.borrow_mut().key_takes = Duration::from_micros(100);
        world.borrow_mut().commit_takes = Duration::from_millis(ms);
        let process = Process::new(&world, "run", Pace::default());
        process.leads().await.expect("it works");
        let why = BackfillState::Slow(format!("a commit takes {ms} ms (limit 100 ms)"));
        assert_eq!(process.states().contains(&why), slow, "{:?}", process.states());
    }
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_that_of_all_workers() {
    let world = world(10_000);
    let pace = Pace { workers: Some(4), rate: Some(1_000), ..Pace::default() };
    let done = Process::new(&world, "run", pace).leads().await.expect("it works");
    let seconds = done.took.as_secs_f64();
    // The last batches need not be waited for.
    assert!((5.0..11.0).contains(&seconds), "{seconds}");
}

#[tokio::test(start_paused = true)]
async fn stopped_it_gives_its_shards_back_and_the_next_run_goes_on() {
    let world = world(50_000);
    world.borrow_mut().key_takes = Duration::from_micros(100);
    let (sender, stop) = Stop::new();
    let mut process = Process::new(&world, "run 1", Pace { workers: Some(3), ..Pace::default() });
    process.stop = stop;
    let signal = async {
        sleep(Duration::from_secs(1)).await;
        sender.send(Some(StopReason::Interrupted)).expect("it listens");
    };
    let (done, ()) = tokio::join!(process.leads(), signal);
    assert_eq!(done, Err(BackfillError::Stopped(StopReason::Interrupted)));
    assert!(world.borrow().shards.values().all(|it| !it.shard.claimed));
    assert!(world.borrow().rows.values().any(|times| *times == 0), "it is not done");
    let began = Instant::now();
    Process::new(&world, "run 2", Pace::default()).leads().await.expect("it goes on");
    assert!(began.elapsed() < Duration::from_secs(20), "nobody is waited for");
    check_once(&world, "gone on with");
}

#[tokio::test(start_paused = true)]
async fn whoever_joins_takes_shards_and_what_it_leaves_is_taken_over() {
    let world = world(40_000);
    world.borrow_mut().key_takes = Duration::from_micros(100);
    let leader = Process::new(&world, "leader", Pace { workers: Some(2), ..Pace::default() });
    let helper = Process::new(&world, "helper", Pace { workers: Some(2), ..Pace::default() });
    let killed = Process::new(&world, "killed", Pace { workers: Some(1), ..Pace::default() });
    let helps = async {
        sleep(Duration::from_millis(300)).await;
        helper.joins().await
    };
    let dies = async {
        sleep(Duration::from_millis(300)).await;
        tokio::select! {
            _ = killed.joins() => panic!("it was to be killed"),
            () = sleep(Duration::from_millis(450)) => {}
        }
    };
    let (led, helped, ()) = tokio::join!(leader.leads(), helps, dies);
    assert_eq!(led.expect("it works").rows, 40_000);
    assert_eq!(helped.expect("it works").rows, 40_000);
    check_once(&world, "joined");
    for run in ["leader", "helper", "killed"] {
        assert!(world.borrow().batches.iter().any(|(_, by, _)| by == run), "{run} did nothing");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_joins_leaves_when_nobody_leads() {
    let world = world(100_000);
    world.borrow_mut().key_takes = Duration::from_micros(100);
    let leader = Process::new(&world, "leader", Pace { workers: Some(2), ..Pace::default() });
    let helper = Process::new(&world, "helper", Pace::default());
    let leads = async {
        tokio::select! {
            _ = leader.leads() => panic!("it was to be killed"),
            () = sleep(Duration::from_secs(1)) => world.borrow_mut().leader = None,
        }
    };
    let helps = async {
        sleep(Duration::from_millis(100)).await;
        helper.joins().await
    };
    let (helped, ()) = tokio::join!(helps, leads);
    let done = helped.expect("it is no failure");
    assert!(done.rows < 100_000);
    assert_eq!(helper.remarks(), ["whoever led this backfill is gone; so are we"]);
    let world = world.borrow();
    assert!(world.shards.values().all(|it| it.run != "helper" || !it.shard.claimed));
}

#[tokio::test(start_paused = true)]
async fn rows_that_never_stop_coming_are_left_to_the_invariants() {
    let world = world(10);
    let arrivals = (1..5_000).map(|place| (place, vec![i64::try_from(place + 100).expect("few")]));
    world.borrow_mut().arrivals = arrivals.collect();
    let process = Process::new(&world, "run", small(1));
    process.leads().await.expect("it ends");
    let remarks = process.remarks();
    assert_eq!(remarks.len(), 1, "{remarks:?}");
    assert!(remarks[0].contains("new rows keep coming"), "{remarks:?}");
    assert!(world.borrow().rows.values().all(|times| *times <= 1));
}

#[tokio::test(start_paused = true)]
async fn nothing_to_do_is_done_and_its_row_is_written() {
    let world = world(0);
    let done = Process::new(&world, "run", small(3)).leads().await.expect("nothing to do");
    assert_eq!((done.rows, done.passed), (0, 0));
    assert_eq!(world.borrow().entries, [Entry::RowGone(Version(9))]);
}
