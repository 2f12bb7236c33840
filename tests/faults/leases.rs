//! Many runs at once, and runs that lose their lease.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::blocker::{self, Blocker};
use crate::dump::{Dump, dump};
use crate::killed::{check, undisturbed};
use crate::project::{Project, Running, seeded};
use crate::support::Database;
use crate::support::sql::number;
use crate::support::wait::until;

/// What both stores are like after the long migration.
fn after(project: &Project) -> Dump {
    let database = seeded("after");
    project.migrate(&database, &["up"]).succeeds();
    dump(&database)
}

fn runs(database: &Database) -> i64 {
    number(&database.postgres_url, "SELECT count(*) FROM public.migration_runs")
}

#[test]
fn twenty_at_once_apply_everything_once() {
    let project = Project::usual();
    let database = seeded("twenty");
    let start = |_| project.migrate(&database, &["up", "--lock-wait", "2m"]).start();
    let running: Vec<Running> = (0..20).map(start).collect();
    // One that looked before the others were done may still hold the lease for a
    // moment, so nothing is looked at before the last of them is over.
    let ended: Vec<_> = running.into_iter().map(Running::wait).collect();
    for run in &ended {
        assert_eq!(run.code, Some(0), "{}", run.text);
    }
    check(&database, &undisturbed().up, &ended[0]);
}

#[test]
fn the_lease_of_a_killed_run_is_free_when_its_term_is_over() {
    let project = blocker::project();
    let database = seeded("takeover");
    let blocker = Blocker::new(&database.postgres_url);
    let term = Duration::from_secs(3);
    let first = project.migrate(&database, &["up"]).with("LOCKSTEP_LEASE_MS", 3000).start();
    blocker.wait_for(1);
    drop(first);
    let killed = Instant::now();
    let second = project.migrate(&database, &["up"]).start();
    until("the second to take over", || second.text().contains("died while it held the lease"));
    // A waiter asks every 0.9 s at most; the rest is for a slow machine.
    assert!(killed.elapsed() < term + Duration::from_secs(3), "{:?}", killed.elapsed());
    blocker.wait_for(1);
    drop(blocker);
    let second = second.wait();
    assert_eq!(second.code, Some(0), "{}", second.text);
    check(&database, &after(&project), &second);
}

#[test]
fn with_nothing_to_do_no_lease_is_taken_and_none_waited_for() {
    let project = blocker::project();
    let database = seeded("nothing_to_do");
    let blocker = Blocker::new(&database.postgres_url);
    let holder = project.migrate(&database, &["up"]).start();
    blocker.wait_for(1);
    let none = Project::of(&[]);
    let idle = none.migrate(&database, &["up"]).succeeds();
    assert!(idle.text.contains("nothing to do"), "{}", idle.text);
    assert_eq!(runs(&database), 1, "only the holder has a run");
    drop(blocker);
    assert_eq!(holder.wait().code, Some(0));

    let blocked = project.migrate(&database, &["up"]).succeeds();
    assert!(blocked.text.contains("nothing to do"), "{}", blocked.text);
    assert_eq!(runs(&database), 1, "a run that does nothing leaves nothing");

    // An older release, while a newer one is at work.
    let newer = blocker::project_with_more();
    let at = newer.migrate(&database, &["up"]).with("LOCKSTEP_FAILPOINT", "12:stop").start();
    until("the newer release to hold the lease", || at.is_stopped());
    let older = project.migrate(&database, &["up"]).succeeds();
    assert!(older.text.contains("nothing to do"), "{}", older.text);
    assert_eq!(runs(&database), 2, "the newer release's own");
    at.signal(Signal::CONT);
    assert_eq!(at.wait().code, Some(0));
}

#[test]
fn ten_pods_that_start_during_a_long_migration_wait_for_it() {
    let project = blocker::project();
    let database = seeded("ten_pods");
    let blocker = Blocker::new(&database.postgres_url);
    let holder = project.migrate(&database, &["up"]).start();
    blocker.wait_for(1);
    let start = |_| project.migrate(&database, &["up"]).start();
    let pods: Vec<Running> = (0..10).map(start).collect();

    let hasty = project.migrate(&database, &["up", "--lock-wait", "100ms"]).run();
    assert_eq!(hasty.code, Some(4), "{}", hasty.text);
    assert!(hasty.text.contains(&format!("pid {}", holder.id())), "{}", hasty.text);

    let told = format!("pid {}", holder.id());
    until("every pod to say whom it waits for", || {
        pods.iter().all(|pod| pod.text().contains(&told))
    });
    drop(blocker);
    assert_eq!(holder.wait().code, Some(0));
    for pod in pods {
        let ended = pod.wait();
        assert_eq!(ended.code, Some(0), "{}", ended.text);
        check(&database, &after(&project), &ended);
    }
    assert_eq!(runs(&database), 1, "the pods left nothing");
}
