//! Work that must not be done twice, killed in the middle: what is recorded is what is
//! there, and in the end each row was written once.

use std::time::{Duration, Instant};

use crate::count_up;
use crate::dump::left;
use crate::project::Project;
use crate::support::Database;
use crate::time::leases_run_out;

/// Rows that a migration writes, each once.
pub trait Work {
    /// For people, and in the names of databases.
    const NAME: &str;

    /// So many rows take so long that a kill finds it in the middle.
    const ROWS: i64;

    /// The migration, in batches of so many rows.
    fn project(batch: u32, workers: u32) -> Project;

    /// A database in each store with so many rows to be written.
    fn database(name: &str, rows: i64) -> Database;

    /// Rows that were written so far.
    fn written(database: &Database) -> i64;

    /// Fails unless what is recorded is what was written.
    fn check_record(database: &Database, rows: i64, after: &str);

    /// Fails unless each row is as it should be, and was written once.
    fn check(database: &Database, rows: i64, after: &str);
}

/// Of the time that an undisturbed run takes, a kill comes after a part at random, up to
/// two thirds: what comes after that is done too often before it.
const MOMENTS: f64 = 255.0 * 3.0 / 2.0;

/// So often by default; `LOCKSTEP_FAULTS=100` for more.
fn kills_wanted() -> usize {
    std::env::var("LOCKSTEP_FAULTS").map_or(20, |kills| kills.parse().expect("a number"))
}

/// So many rows; `LOCKSTEP_FAULTS_ROWS=300000` for more.
fn rows<W: Work>() -> i64 {
    std::env::var("LOCKSTEP_FAULTS_ROWS").map_or(W::ROWS, |rows| rows.parse().expect("a number"))
}

/// Kills runs at random moments, half of them with one worker, half with several.
pub fn killed_at_random_moments<W: Work>() {
    kill_at_random_moments::<W>(1, kills_wanted().div_ceil(2));
    kill_at_random_moments::<W>(3, kills_wanted() / 2);
}

/// Kills runs until there were enough, on as many databases as that takes.
fn kill_at_random_moments<W: Work>(workers: u32, wanted: usize) {
    let project = W::project(1000, workers);
    let rows = rows::<W>();
    let up = ["up", "--unthrottled"];
    let measured = W::database("measured", rows);
    let began = Instant::now();
    project.migrate(&measured, &up).succeeds();
    let whole = began.elapsed();
    W::check(&measured, rows, "undisturbed");
    drop(measured);
    let (mut kills, mut in_the_middle, mut databases) = (0, 0, 0);
    while kills < wanted {
        let database = W::database("random", rows);
        databases += 1;
        let mut said = String::new();
        loop {
            let moment = whole.mul_f64(f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / MOMENTS);
            let mut run = project.migrate(&database, &up).start();
            let began = Instant::now();
            while began.elapsed() < moment && !run.is_over() {
                std::thread::park_timeout(Duration::from_millis(1));
            }
            if run.is_over() || kills >= wanted {
                let ended = run.wait();
                assert_eq!(ended.code, Some(0), "{}\nafter {said}", ended.text);
                said = ended.text;
                break;
            }
            said = run.text();
            drop(run);
            kills += 1;
            in_the_middle += usize::from(W::written(&database) > 0);
            leases_run_out(&database);
            W::check_record(&database, rows, &said);
        }
        W::check(&database, rows, &said);
        let mut left = left(&database);
        if said.contains("nothing to do") {
            left.clear();
        }
        assert_eq!(left, "", "{said}");
    }
    eprintln!(
        "{} of {rows}, {workers} workers: killed {kills} times, {in_the_middle} of them with rows \
         written, on {databases} databases",
        W::NAME
    );
    assert!(in_the_middle > 0, "all kills came too early");
}

/// Kills a run of a few batches at each failpoint.
pub fn killed_at_every_failpoint<W: Work>() {
    const FEW: i64 = 30;
    let project = W::project(10, 1);
    let trials = count_up(|failpoint| {
        let database = W::database("killed", FEW);
        let ended = project.migrate(&database, &["up"]).dying_at(failpoint).run();
        if !ended.was_killed() {
            assert_eq!(ended.code, Some(0), "at {failpoint}: {}", ended.text);
            return false;
        }
        W::check_record(&database, FEW, &ended.text);
        leases_run_out(&database);
        let again = project.migrate(&database, &["up"]).succeeds();
        W::check(&database, FEW, &format!("{}\nafter {}", again.text, ended.text));
        true
    });
    eprintln!("{} was killed at {trials} failpoints", W::NAME);
    assert!(trials > 30, "{trials} failpoints");
}
