//! Many who ask whether it is ready, while a database goes away and comes back.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lockstep::core::id::StoreName;

use crate::http;
use crate::served::{Project, Served};
use crate::support::pair::Pair;
use crate::support::wait::until;

/// So many ask at the same time, each up to twenty times a second: on a busy machine,
/// where an answer takes its time, it is still some hundreds.
const ASKING: usize = 20;

/// Between two questions of one of them.
const PAUSE: Duration = Duration::from_millis(50);

/// What one of them was told.
#[derive(Clone, Debug)]
struct Told {
    asked: Instant,
    took: Duration,
    status: u16,
    /// Whether each store can be reached.
    reachable: [bool; 2],
    reasons: usize,
}

/// Asks until it is told to stop.
fn keep_asking(address: &str, stop: &AtomicBool, told: &Mutex<Vec<Told>>) {
    while !stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let answer = http::ask(address, "GET", "/health/ready", "", "").expect("an answer");
        let took = asked.elapsed();
        let object = answer.json();
        let reachable = ["postgres", "mongo"]
            .map(|store| object["stores"][store]["reachable"].as_bool().expect("a pair"));
        let reasons = object["reasons"].as_array().expect("reasons").len();
        let status = answer.status;
        told.lock().unwrap().push(Told { asked, took, status, reachable, reasons });
        std::thread::park_timeout(PAUSE.saturating_sub(took));
    }
}

/// Waits until so many more were told something, and gives back what.
fn next(told: &Mutex<Vec<Told>>, number: usize) -> Vec<Told> {
    let now = Instant::now();
    let of_now = || -> Vec<Told> {
        told.lock().unwrap().iter().filter(|told| told.asked > now).cloned().collect()
    };
    until("many to be answered", || of_now().len() >= number);
    of_now()
}

fn ready(served: &Served) {
    served.until("it to be ready", "/health/ready", |answer| answer.status == 200);
}

/// Sees that everybody is told the same: that one store is away, and the other is not.
#[track_caller]
fn all_say_away(told: &[Told], store: StoreName) {
    let expected = [store != StoreName::Postgres, store != StoreName::Mongo];
    for one in told {
        assert_eq!((one.status, one.reachable), (503, expected), "{one:?}");
    }
}

fn goes_away_and_comes_back(store: StoreName) {
    let mut pair = Pair::new(store);
    let create = "CREATE TABLE t (id int PRIMARY KEY);";
    let down = "DROP TABLE t;";
    let files = [("001-t/up.sql", create), ("001-t/down.sql", down)];
    let project = Project::new(&pair.postgres, &pair.mongo, &files);
    let up = project.run(&["up"]);
    assert_eq!(up.code, Some(0), "{}", up.stderr);
    let served = project.serve(&[]);
    ready(&served);
    let away = |served: &Served| {
        served.until("it not to be ready", "/health/ready", |answer| answer.status == 503);
    };

    let (stop, told) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let began = Instant::now();
    std::thread::scope(|scope| {
        /// Else a test that fails would wait for those who ask.
        struct Stops<'a>(&'a AtomicBool);
        impl Drop for Stops<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _stops = Stops(&stop);
        for _ in 0..ASKING {
            scope.spawn(|| keep_asking(&served.address, &stop, &told));
        }
        next(&told, 100);

        pair.freeze();
        away(&served);
        // While nothing comes from it, everybody is answered: nobody waits for it.
        let slow = next(&told, 600);
        all_say_away(&slow, store);
        assert_eq!(served.get("/health/live").status, 200);
        pair.thaw();
        ready(&served);
        until("those who ask to be told that it is back", || {
            next(&told, 100).iter().any(|one| one.status == 200)
        });

        pair.kill();
        away(&served);
        all_say_away(&next(&told, 600), store);
        assert_eq!(served.get("/health/live").status, 200);
        assert_eq!(served.get("/api/status").status, 503);
        assert!(
            served
                .get("/metrics")
                .body
                .contains(&format!("lockstep_store_up{{store=\"{}\"}} 0\n", store.word()))
        );
        pair.restart();
        ready(&served);
        next(&told, 100);
    });

    let told = told.into_inner().unwrap();
    for one in &told {
        let is_well = one.reachable == [true, true] && one.reasons == 0;
        assert_eq!(one.status == 200, is_well, "{one:?}");
    }
    let longest = told.iter().map(|one| one.took).max().expect("many were told");
    let rate = u32::try_from(told.len()).expect("not that many") * 1000
        / u32::try_from(began.elapsed().as_millis()).expect("not that long");
    eprintln!(
        "{}: {} answers, {rate} a second; the longest took {longest:?}",
        store.title(),
        told.len()
    );

    // Of all the tries nothing is left but the sessions of the two who watch.
    if store == StoreName::Postgres {
        let sessions =
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'lockstep/%'";
        until("old sessions to end", || crate::number(&pair.postgres, sessions) <= 2);
    }
}

#[test]
fn ready_says_what_is_so_to_many_while_postgres_is_slow_down_and_back() {
    goes_away_and_comes_back(StoreName::Postgres);
}

#[test]
fn ready_says_what_is_so_to_many_while_mongodb_is_slow_down_and_back() {
    goes_away_and_comes_back(StoreName::Mongo);
}
