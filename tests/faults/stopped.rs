//! A holder that is stopped for longer than its lease lasts, and then goes on.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bson::{Document, doc};
use rustix::process::Signal;

use crate::count_up;
use crate::dump::dump;
use crate::killed::undisturbed;
use crate::project::{Project, seeded};
use crate::support::wait::until;
use crate::support::{Database, block_on};
use crate::time::leases_run_out;

/// A term after which a transaction that stands still is taken for one that nobody
/// will end: shorter than the real one, because here it is really waited for.
const STANDS_STILL_MS: u32 = 4_000;

/// Whether somebody has both leases.
fn is_locked(database: &Database) -> bool {
    block_on(async || {
        let url = &database.postgres_url;
        let (client, connection) =
            tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("Postgres answers");
        let connection = tokio::spawn(connection);
        let held = "SELECT 1 FROM public.migration_control WHERE holder IS NOT NULL";
        // Without the table, nobody was here.
        let postgres = client.query(held, &[]).await.is_ok_and(|rows| !rows.is_empty());
        drop(client);
        let _ = connection.await;

        let client = mongodb::Client::with_uri_str(&database.mongo_uri).await.expect("a valid URI");
        let control = client.database(&database.name).collection::<Document>("migration_control");
        let held = control.find_one(doc! { "holder": { "$ne": null } }).await;
        client.shutdown().immediate(true).await;
        postgres && held.expect("MongoDB answers").is_some()
    })
}

/// Stops a holder at every so many failpoints, lets another run take over, and
/// lets the first go on.
fn stopped_past_its_lease(every: usize) {
    let project = Project::usual();
    let up = &undisturbed().up;
    let ends = Mutex::new(BTreeMap::<Option<i32>, usize>::new());
    let trials = count_up(|number| {
        let failpoint = number * every;
        let database = seeded("stopped");
        let mut first = project.migrate(&database, &["up"]).stopping_at(failpoint).start();
        until("a run to stop or to end", || first.is_stopped() || first.is_over());
        if !first.is_stopped() {
            let first = first.wait();
            assert_eq!(first.code, Some(0), "at {failpoint}: {}", first.text);
            return false;
        }
        let locked = is_locked(&database);
        leases_run_out(&database);
        let second = project.migrate(&database, &["up"]);
        let second = match first.text().contains("COMMIT in Postgres") {
            // Its transaction is open, and its locks are held, for as long as we let it.
            true => second.with("LOCKSTEP_LEASE_MS", STANDS_STILL_MS),
            false => second,
        };
        let second = second.succeeds();
        let before = dump(&database);
        let after = format!("{}\nafter {}", second.text, first.text());
        assert_eq!((&before.data, &before.history), (&up.data, &up.history), "{after}");

        first.signal(Signal::CONT);
        let first = first.wait();
        let after = format!("{}\nafter at {failpoint} {}", second.text, first.text);
        dump(&database).is(up, &after);
        // One that had not begun, because it had no lease yet or had not looked
        // whether both were still its own, finds nothing to do; one that had done
        // everything says so. Any other was too late.
        let is_done = |text: &str| text.contains("nothing to do");
        let began = locked && !is_done(&first.text);
        let expected: &[i32] = if began && !is_done(&second.text) { &[4] } else { &[0, 4] };
        assert!(
            first.code.is_some_and(|code| expected.contains(&code)),
            "{:?} {after}",
            first.code
        );
        *ends.lock().unwrap().entry(first.code).or_default() += 1;
        true
    });
    eprintln!(
        "a holder was stopped at {trials} failpoints; exit codes: {:?}",
        ends.lock().unwrap()
    );
    assert!(trials * every > 50, "{trials} failpoints");
}

#[test]
fn a_holder_that_was_stopped_past_its_lease_changes_nothing_more() {
    stopped_past_its_lease(7);
}

#[test]
#[ignore = "minutes: scripts/test --faults"]
fn a_holder_that_was_stopped_past_its_lease_anywhere_changes_nothing_more() {
    stopped_past_its_lease(1);
}
