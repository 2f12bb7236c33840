//! Told to stop.

use rustix::process::Signal;

use crate::blocker::{self, Blocker};
use crate::dump::dump;
use crate::killed::check;
use crate::project::seeded;
use crate::support::wait::until;
use crate::time::leases_run_out;

/// Told to stop in the middle of a long step, it ends that step and no other.
fn stops_between_two_steps(signal: Signal, code: i32) {
    let project = blocker::project();
    let database = seeded("told_to_stop");
    project.migrate(&database, &["up"]).succeeds();
    let whole = dump(&database);

    let database = seeded("told_to_stop");
    let blocker = Blocker::new(&database.postgres_url);
    let run = project.migrate(&database, &["up"]).start();
    blocker.wait_for(1);
    run.signal(signal);
    drop(blocker);
    let ended = run.wait();
    assert_eq!(ended.code, Some(code), "{}", ended.text);
    let stopped = dump(&database);
    assert_eq!(stopped.left, "", "the lease is given back");
    assert_eq!(stopped.history.matches("up/postgres/1").count(), 1, "{}", stopped.history);
    assert_eq!(stopped.history.matches("up/mongo/1").count(), 0, "{}", stopped.history);

    let ended = project.migrate(&database, &["up"]).succeeds();
    check(&database, &whole, &ended);
}

#[test]
fn sigint_ends_the_step_and_exits_with_130() {
    stops_between_two_steps(Signal::INT, 130);
}

#[test]
fn sigterm_ends_the_step_and_exits_with_143() {
    stops_between_two_steps(Signal::TERM, 143);
}

#[test]
fn a_second_sigint_ends_at_once_and_up_goes_on() {
    let project = blocker::project();
    let database = seeded("twice");
    project.migrate(&database, &["up"]).succeeds();
    let whole = dump(&database);

    let database = seeded("twice");
    let blocker = Blocker::new(&database.postgres_url);
    let mut run = project.migrate(&database, &["up"]).start();
    blocker.wait_for(1);
    until("the run to end", || {
        run.signal(Signal::INT);
        run.is_over()
    });
    let ended = run.wait();
    assert_eq!(ended.code, Some(130), "{}", ended.text);
    drop(blocker);
    leases_run_out(&database);
    let ended = project.migrate(&database, &["up"]).succeeds();
    check(&database, &whole, &ended);
}

#[test]
fn told_to_stop_while_it_waits_for_the_lease_it_does() {
    let project = blocker::project();
    let database = seeded("waiting");
    let blocker = Blocker::new(&database.postgres_url);
    let holder = project.migrate(&database, &["up"]).start();
    blocker.wait_for(1);
    let waiter = project.migrate(&database, &["up"]).start();
    until("the waiter to say so", || waiter.text().contains("pid"));
    waiter.signal(Signal::TERM);
    let waiter = waiter.wait();
    assert_eq!(waiter.code, Some(143), "{}", waiter.text);
    drop(blocker);
    assert_eq!(holder.wait().code, Some(0));
}
