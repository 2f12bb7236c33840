//! Copies: the same engine with a store that is read and a store that is written, under
//! every break of either.

use crate::model::{Fault, Model, World};
use crate::{LIMIT, check_once, record, small};
use lockstep::core::backfill::Backfill;
use lockstep::core::notice::Notice;
use lockstep::core::pace::{self, Steering};
use lockstep::core::parse::manifest::{By, Pace, Work};
use lockstep::core::step::Timeouts;
use lockstep::engine::Stop;
use lockstep::engine::backfill::{BackfillError, Copying, Done, Settings, Task, join, run};
use lockstep::store::Fate;
use lockstep::store::backfill::Job;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::sleep;

/// Two databases: rows in one, nothing in the other.
pub struct Pair {
    pub source: Rc<RefCell<World>>,
    pub target: Rc<RefCell<World>>,
}

impl Pair {
    pub fn of(rows: i64) -> Pair {
        Pair { source: crate::world(rows), target: crate::world(0) }
    }

    /// With rows that appear while they are copied.
    pub fn broken(source: &[(usize, Fault)], target: &[(usize, Fault)]) -> Pair {
        let pair = Pair::of(60);
        pair.source.borrow_mut().faults = source.iter().copied().collect();
        pair.source.borrow_mut().arrivals =
            BTreeMap::from([(5, vec![100, 101, 102]), (9, vec![200])]);
        pair.target.borrow_mut().faults = target.iter().copied().collect();
        pair
    }

    /// One process. `None`: it died.
    async fn ends(
        &self,
        name: &str,
        pace: Pace,
        leads: bool,
    ) -> Option<Result<Done, BackfillError>> {
        let backfill = Backfill {
            title: "a copy".to_owned(),
            work: Work::CopyToMongo {
                query: "SELECT id FROM t".to_owned(),
                to: "t".to_owned(),
                by: By::Id("id".to_owned()),
            },
            pace,
            max_bad: 0,
            timeouts: Timeouts::default(),
        };
        let record = record();
        let (timeouts, max_bad) = (Timeouts::default(), self.target.borrow().max_bad);
        let job = Job { work: &backfill.work, record: &record, timeouts, max_bad };
        let task = Task { job, backfill: &backfill, entries: &[] };
        let project = pace::Settings::default();
        let (_, stop) = Stop::new();
        let settings = Settings { pace: &project, minute: &|| 0, stop: &stop };
        let mut notices = |_: Notice| {};
        let mut source = Model::new(&self.source, name);
        let mut target = Model::new(&self.target, name);
        let died = [Rc::clone(&source.died), Rc::clone(&target.died)];
        let work = async {
            let mut hands = Copying::new(&mut source, &mut target, ()).await?;
            match leads {
                true => run(&mut hands, Some(&mut source), task, settings, &mut notices).await,
                false => join(&mut hands, Some(&mut source), task, settings, &mut notices).await,
            }
        };
        tokio::select! {
            done = work => Some(done),
            () = died[0].notified() => None,
            () = died[1].notified() => None,
            () = sleep(LIMIT) => panic!("it comes to no end"),
        }
    }

    pub async fn leads(&self, name: &str, pace: Pace) -> Option<Result<Done, BackfillError>> {
        self.target.borrow_mut().leader = Some(name.to_owned());
        let ended = self.ends(name, pace, true).await;
        self.target.borrow_mut().over.insert(name.to_owned());
        ended
    }

    /// Run after run until one succeeds: how many it took.
    pub async fn until_done(&self, workers: u64, what: &str) -> usize {
        for attempt in 1..20 {
            match self.leads(&format!("run {attempt}"), small(workers)).await {
                Some(Ok(_)) => return attempt,
                Some(Err(error)) => panic!("{what}: {error}"),
                None => {}
            }
        }
        panic!("{what}: it comes to no end");
    }

    /// Fails unless each row was written once, and all of it recorded.
    #[track_caller]
    fn check(&self, what: &str) {
        check_once(&self.target, what);
        let (source, target) = (self.source.borrow(), self.target.borrow());
        assert!(source.rows.keys().eq(target.rows.keys()), "{what}: {:?}", target.rows);
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_breaks_wherever_in_either_store_each_row_is_written_once() {
    let mut died = 0;
    for workers in [1, 3] {
        let clean = Pair::broken(&[], &[]);
        clean.until_done(workers, "nothing breaks").await;
        clean.check("nothing breaks");
        let places = [clean.source.borrow().places, clean.target.borrow().places];
        assert!(places[0] > 15 && places[1] > 25, "{places:?}");
        for (side, places) in places.into_iter().enumerate() {
            for place in 1..=places {
                for fault in Fault::ALL {
                    let what =
                        format!("{workers} workers, {fault:?} at {place} of {places} in {side}");
                    let faults = [(place, fault)];
                    let pair = match side {
                        0 => Pair::broken(&faults, &[]),
                        _ => Pair::broken(&[], &faults),
                    };
                    died += pair.until_done(workers, &what).await - 1;
                    pair.check(&what);
                }
            }
        }
    }
    assert!(died > 100, "{died} processes died");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_read_breaks_and_the_one_that_is_written_does_after_it() {
    const BREAKS: [Fault; 4] = [Fault::DiesAfter, Fault::LostAfter, Fault::LostLate, Fault::Stolen];
    for first in (1..20).step_by(2) {
        for second in (first..40).step_by(3) {
            for one in BREAKS {
                for two in BREAKS {
                    let pair = Pair::broken(&[(first, one)], &[(second, two)]);
                    let what = format!("{one:?} at {first}, {two:?} at {second}");
                    pair.until_done(2, &what).await;
                    pair.check(&what);
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn while_a_page_is_written_the_next_one_is_read() {
    let pair = Pair::of(10_000);
    for world in [&pair.source, &pair.target] {
        world.borrow_mut().key_takes = Duration::from_millis(1);
    }
    let pace = Pace { batch: Some(500), ..Pace::default() };
    let done = pair.leads("run", pace).await.expect("nothing kills it").expect("it works");
    // One after the other would take 20 s.
    assert!(done.took < Duration::from_millis(10_900), "{:?}", done.took);
    pair.check("read ahead");
    let source = pair.source.borrow();
    let read: u64 = source.pages.iter().map(|(_, rows)| rows).sum();
    assert_eq!(read, 10_000, "each page is read once");
}

#[tokio::test(start_paused = true)]
async fn what_was_read_ahead_is_read_again_after_a_pause() {
    let pair = Pair::of(5_000);
    for world in [&pair.source, &pair.target] {
        world.borrow_mut().key_takes = Duration::from_millis(1);
    }
    let people = async {
        sleep(Duration::from_secs(2)).await;
        let paused = Some("lunch".to_owned());
        pair.source.borrow_mut().steering = Steering { paused, speed: 1.0 };
        sleep(Duration::from_mins(1)).await;
        pair.source.borrow_mut().steering = Steering::default();
    };
    let pace = Pace { batch: Some(500), ..Pace::default() };
    let (done, ()) = tokio::join!(pair.leads("run", pace), people);
    done.expect("nothing kills it").expect("it goes on");
    pair.check("paused");
    let source = pair.source.borrow();
    let read: u64 = source.pages.iter().map(|(_, rows)| rows).sum();
    assert_eq!(read, 5_500, "one page is as old as the pause, and no other");
}

#[tokio::test(start_paused = true)]
async fn a_page_is_no_larger_than_a_transaction_may_be() {
    let pair = Pair::of(5_000);
    let pace = Pace { batch: Some(4_000), ..Pace::default() };
    pair.leads("run", pace).await.expect("nothing kills it").expect("it works");
    pair.check("large");
    assert!(pair.target.borrow().batches.iter().all(|(_, _, rows)| *rows <= 1_000));
}

#[tokio::test(start_paused = true)]
async fn somebody_in_the_way_makes_pages_smaller_though_a_larger_one_was_read_ahead() {
    let pair = Pair::of(3_000);
    let faults = (12..40).filter(|place| place % 7 != 0).map(|place| (place, Fault::InTheWay));
    pair.target.borrow_mut().faults = faults.collect();
    let pace = Pace { batch: Some(512), ..Pace::default() };
    pair.leads("run", pace).await.expect("nothing kills it").expect("it works");
    pair.check("in the way");
    let smallest = pair.target.borrow().batches.iter().map(|(_, _, rows)| *rows).min();
    assert!(smallest < Some(300), "{smallest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_row_without_a_document_stops_it_and_mended_it_goes_on() {
    let pair = Pair::of(100);
    pair.source.borrow_mut().bad.insert(50);
    let ended = pair.leads("run 1", small(1)).await.expect("nothing kills it");
    let Err(BackfillError::Store(error)) = ended else { panic!("{ended:?}") };
    assert_eq!(error.fate, Fate::Refused);
    let said = format!("{error}; {:?}; {:?}", error.said.detail, error.said.hint);
    for part in ["key 50", "too many digits", "{ _id: 50 }", "goes on where it stopped"] {
        assert!(said.contains(part), "no `{part}` in {said}");
    }
    assert_eq!(pair.target.borrow().rows.keys().max(), Some(&49), "what came before is there");
    pair.source.borrow_mut().bad.clear();
    pair.leads("run 2", small(1)).await.expect("nothing kills it").expect("it goes on");
    pair.check("mended");
}

#[tokio::test(start_paused = true)]
async fn whoever_joins_a_copy_takes_shards() {
    let pair = Pair::of(20_000);
    for world in [&pair.source, &pair.target] {
        world.borrow_mut().key_takes = Duration::from_micros(200);
    }
    let several = || Pace { workers: Some(2), ..Pace::default() };
    let helps = async {
        sleep(Duration::from_millis(500)).await;
        pair.ends("helper", several(), false).await
    };
    let (led, helped) = tokio::join!(pair.leads("leader", several()), helps);
    led.expect("nothing kills it").expect("it works");
    helped.expect("nothing kills it").expect("it works");
    pair.check("joined");
    for run in ["leader", "helper"] {
        let target = pair.target.borrow();
        assert!(target.batches.iter().any(|(_, by, _)| by == run), "{run} did nothing");
    }
}
