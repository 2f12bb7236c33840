//! Rows that cannot be written, under every break: the others are written once, and
//! each of these is put aside once.

use crate::copies::Pair;
use crate::model::{Fault, World};
use crate::{Process, check_aside, check_once, small, until_done, world};
use lockstep::core::notice::Notice;
use lockstep::core::parse::manifest::Pace;
use lockstep::engine::backfill::BackfillError;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

/// The first and the last of a range, two beside each other, and one in a sweep.
const REFUSED: [i64; 5] = [1, 17, 18, 60, 101];

/// Rows that are rewritten in place, five of which are refused.
fn broken(faults: &[(usize, Fault)]) -> Rc<RefCell<World>> {
    let world = world(60);
    {
        let mut world = world.borrow_mut();
        world.faults = faults.iter().copied().collect();
        world.arrivals = [(5, vec![100, 101, 102]), (9, vec![200])].into();
        world.refused = REFUSED.into();
        world.max_bad = 5;
    }
    world
}

/// A copy with the same rows, three of which have no document.
fn broken_copy(tells: bool, source: &[(usize, Fault)], target: &[(usize, Fault)]) -> Pair {
    let pair = Pair::broken(source, target);
    pair.source.borrow_mut().bad = BTreeSet::from([17, 40, 101]);
    {
        let mut target = pair.target.borrow_mut();
        target.refused = BTreeSet::from([1, 18, 60, 102]);
        target.tells = tells;
        target.max_bad = 7;
    }
    pair
}

#[tokio::test(start_paused = true)]
async fn whatever_breaks_wherever_each_refused_row_is_put_aside_once() {
    for workers in [1, 3] {
        let clean = broken(&[]);
        until_done(&clean, workers, "nothing breaks").await;
        check_once(&clean, "nothing breaks");
        check_aside(&clean, &REFUSED, "nothing breaks");
        let places = clean.borrow().places;
        assert!(places > 60, "{places}");
        for place in 1..=places {
            for fault in Fault::ALL {
                let what = format!("{workers} workers, {fault:?} at {place} of {places}");
                let world = broken(&[(place, fault)]);
                until_done(&world, workers, &what).await;
                check_once(&world, &what);
                check_aside(&world, &REFUSED, &what);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_breaks_in_either_store_of_a_copy_each_bad_row_is_put_aside_once() {
    const BAD: [i64; 7] = [1, 17, 18, 40, 60, 101, 102];
    for tells in [true, false] {
        let clean = broken_copy(tells, &[], &[]);
        clean.until_done(2, "nothing breaks").await;
        check_once(&clean.target, "nothing breaks");
        check_aside(&clean.target, &BAD, "nothing breaks");
        let places = [clean.source.borrow().places, clean.target.borrow().places];
        assert!(places[0] > 20 && places[1] > 30, "{places:?}");
        for (side, places) in places.into_iter().enumerate() {
            for place in 1..=places {
                for fault in Fault::ALL {
                    let what = format!("it tells: {tells}, {fault:?} at {place} in {side}");
                    let faults = [(place, fault)];
                    let pair = match side {
                        0 => broken_copy(tells, &faults, &[]),
                        _ => broken_copy(tells, &[], &faults),
                    };
                    pair.until_done(2, &what).await;
                    check_once(&pair.target, &what);
                    check_aside(&pair.target, &BAD, &what);
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_more_than_may_be_stops_it_and_what_was_put_aside_stays() {
    let world = broken(&[]);
    world.borrow_mut().max_bad = 2;
    let ended = Process::new(&world, "run 1", small(1)).leads().await;
    let Err(BackfillError::Store(error)) = ended else { panic!("{ended:?}") };
    assert!(error.to_string().contains("one too many: 18"), "{error}");
    check_aside(&world, &[1, 17], "at the third");
    world.borrow_mut().over.insert("run 1".to_owned());
    world.borrow_mut().max_bad = 5;
    let process = Process::new(&world, "run 2", small(1));
    let done = process.leads().await.expect("it goes on");
    assert_eq!(done.rejected, 5);
    check_once(&world, "raised");
    check_aside(&world, &REFUSED, "raised");
    let notices = process.notices.borrow();
    let aside = "5 rows were put aside and not written: SELECT key, reason FROM migration_rejects \
                 WHERE version = 2";
    assert!(notices.contains(&Notice::Remark(aside.to_owned())), "{notices:?}");
}

#[tokio::test(start_paused = true)]
async fn a_row_that_stops_it_stops_it_with_all_before_it_written() {
    let world = world(100);
    world.borrow_mut().refused.insert(50);
    let ended = Process::new(&world, "run 1", small(1)).leads().await;
    let Err(BackfillError::Store(error)) = ended else { panic!("{ended:?}") };
    assert!(error.to_string().contains("one too many: 50"), "{error}");
    let written = |world: &World| world.rows.values().filter(|times| **times == 1).count();
    assert_eq!(written(&world.borrow()), 49);
    world.borrow_mut().over.insert("run 1".to_owned());
    world.borrow_mut().refused.clear();
    Process::new(&world, "run 2", small(1)).leads().await.expect("mended, it goes on");
    check_once(&world, "mended");
    check_aside(&world, &[], "mended");
}

#[tokio::test(start_paused = true)]
async fn a_refused_row_is_found_by_halving_and_batches_are_as_large_as_before_it() {
    let world = world(100_000);
    world.borrow_mut().refused.insert(30_777);
    world.borrow_mut().max_bad = 1;
    let pace = Pace { batch: Some(5_000), ..Pace::default() };
    Process::new(&world, "run", pace).leads().await.expect("it works");
    check_once(&world, "one of many");
    check_aside(&world, &[30_777], "one of many");
    let world = world.borrow();
    let small = world.asked.iter().filter(|asked| **asked < 5_000).count();
    assert!((6..=26).contains(&small), "{small} of {:?}", world.asked);
    assert_eq!(world.asked.last(), Some(&5_000));
}
