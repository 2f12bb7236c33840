//! Killed with `kill -9`, and run again.

use std::sync::OnceLock;

use crate::dump::{Dump, dump};
use crate::project::{Ended, Project, seeded};
use crate::support::Database;
use crate::time::leases_run_out;
use crate::{count_up, repeat};

/// What both stores are like when nobody disturbs.
pub struct Undisturbed {
    pub begin: Dump,
    pub up: Dump,
    pub down: Dump,
    pub again: Dump,
}

/// Once for all tests.
pub fn undisturbed() -> &'static Undisturbed {
    static UNDISTURBED: OnceLock<Undisturbed> = OnceLock::new();
    UNDISTURBED.get_or_init(|| {
        let project = Project::usual();
        let database = seeded("undisturbed");
        let begin = dump(&database);
        project.migrate(&database, &["up"]).succeeds();
        let up = dump(&database);
        project.migrate(&database, &["down", "--to", "0", "--yes"]).succeeds();
        let down = dump(&database);
        project.migrate(&database, &["up"]).succeeds();
        let again = dump(&database);
        assert_eq!(again.data, up.data);
        assert_eq!(down.left, "");
        assert_eq!(up.left, "");
        assert_ne!(begin.data, up.data);
        Undisturbed { begin, up, down, again }
    })
}

/// Whether both stores are as expected, and nobody holds a lease.
#[track_caller]
pub fn check(database: &Database, expected: &Dump, after: &Ended) {
    dump(database).is(expected, &after.text);
}

/// The same after a run that may have found nothing left to do: then the lease of
/// the dead is nobody's obstacle, and stays until somebody needs it.
#[track_caller]
fn check_after_death(database: &Database, expected: &Dump, last: &Ended, died: &Ended) {
    let mut found = dump(database);
    if last.text.contains("nothing to do") {
        found.left.clear();
    }
    found.is(expected, &format!("{}\nafter {}", last.text, died.text));
}

#[test]
fn down_ends_where_up_began() {
    let undisturbed = undisturbed();
    assert_eq!(undisturbed.down.data, undisturbed.begin.data);
    assert!(!undisturbed.down.history.contains("up/"), "{}", undisturbed.down.history);
}

#[test]
fn up_killed_at_every_failpoint_goes_on() {
    let project = Project::usual();
    let up = &undisturbed().up;
    let trials = count_up(|failpoint| {
        let database = seeded("up_killed");
        let ended = project.migrate(&database, &["up"]).dying_at(failpoint).run();
        if !ended.was_killed() {
            assert_eq!(ended.code, Some(0), "at {failpoint}: {}", ended.text);
            return false;
        }
        leases_run_out(&database);
        let again = project.migrate(&database, &["up"]).succeeds();
        check_after_death(&database, up, &again, &ended);
        true
    });
    eprintln!("up was killed at {trials} failpoints");
    assert!(trials > 50, "{trials} failpoints");
}

/// Kills `down` at every so many failpoints.
fn down_killed(every: usize) {
    let project = Project::usual();
    let undisturbed = undisturbed();
    let down = ["down", "--to", "0", "--yes"];
    let trials = count_up(|number| {
        let failpoint = number * every;
        let database = seeded("down_killed");
        project.migrate(&database, &["up"]).succeeds();
        let ended = project.migrate(&database, &down).dying_at(failpoint).run();
        if !ended.was_killed() {
            assert_eq!(ended.code, Some(0), "at {failpoint}: {}", ended.text);
            return false;
        }
        leases_run_out(&database);
        let again = project.migrate(&database, &down).run();
        assert_eq!(again.code, Some(0), "{}\nafter\n{}", again.text, ended.text);
        check_after_death(&database, &undisturbed.down, &again, &ended);
        project.migrate(&database, &["up"]).succeeds();
        check(&database, &undisturbed.again, &ended);
        true
    });
    eprintln!("down was killed at {trials} failpoints");
    assert!(trials * every > 50, "{trials} failpoints");
}

#[test]
fn down_killed_at_some_failpoints_goes_on_and_up_again() {
    down_killed(4);
}

#[test]
#[ignore = "minutes: scripts/test --faults"]
fn down_killed_at_every_failpoint_goes_on_and_up_again() {
    down_killed(1);
}

/// So often by default; `LOCKSTEP_FAULTS=300` for more.
pub fn random_trials() -> usize {
    std::env::var("LOCKSTEP_FAULTS").map_or(40, |trials| trials.parse().expect("a number"))
}

#[test]
fn up_killed_again_and_again_at_any_moment_goes_on() {
    let project = Project::usual();
    let up = &undisturbed().up;
    let began = std::time::Instant::now();
    project.migrate(&seeded("measured"), &["up"]).succeeds();
    let whole = began.elapsed();
    repeat(random_trials(), |_| {
        let database = seeded("any_moment");
        for _ in 0..2 {
            let moment = whole.mul_f64(f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 200.0);
            let mut run = project.migrate(&database, &["up"]).start();
            let began = std::time::Instant::now();
            while began.elapsed() < moment && !run.is_over() {
                std::thread::park_timeout(std::time::Duration::from_millis(1));
            }
            drop(run);
            leases_run_out(&database);
        }
        let again = project.migrate(&database, &["up"]).succeeds();
        check_after_death(&database, up, &again, &again);
    });
    eprintln!("up was killed at {} random moments, {} runs", 2 * random_trials(), random_trials());
}
