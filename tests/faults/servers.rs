//! Servers that are killed, and started again, in the middle of a run.

use std::fs;

use bson::doc;
use futures_util::TryStreamExt;
use lockstep::core::id::StoreName;
use rustix::process::Signal;

use crate::blocker;
use crate::dump::{Dump, dump_at};
use crate::foreign::Foreign;
use crate::killed::undisturbed;
use crate::project::{Ended, Project, seed};
use crate::support::block_on;
use crate::support::pair::Pair;
use crate::support::sql::{number, sql};
use crate::support::wait::until;
use crate::time::leases_run_out_at;

/// A database in each, with what was there before the first migration.
fn seeded_at(pair: &Pair, name: &str) -> [String; 2] {
    sql(&pair.postgres, &format!("CREATE DATABASE {name}"));
    let [postgres, mongo] =
        [&pair.postgres, &pair.mongo].map(|url| url.replace("/app", &format!("/{name}")));
    seed(&postgres, &mongo);
    [postgres, mongo]
}

/// Whether everything is as it should be after the next run.
fn mended(project: &Project, [postgres, mongo]: &[String; 2], expected: &Dump, died: &Ended) {
    // 4: the server took longer to come back than a lease lasts.
    assert!(matches!(died.code, Some(0 | 4 | 7)), "{:?} {}", died.code, died.text);
    leases_run_out_at(postgres, mongo);
    let again = project.migrate_at(postgres, mongo, &["up"]).succeeds();
    let mut found = dump_at(postgres, mongo);
    if again.text.contains("nothing to do") {
        found.left.clear();
    }
    found.is(expected, &format!("{}\nafter {}", again.text, died.text));
}

/// Kills a server at every so many places where a run writes.
fn killed_and_restarted(store: StoreName) {
    let mut pair = Pair::new(store);
    let project = Project::usual();
    let mut trials = 0;
    for failpoint in (10..80).step_by(9) {
        let urls = seeded_at(&pair, &format!("server_{failpoint}"));
        let run = project.migrate_at(&urls[0], &urls[1], &["up"]).stopping_at(failpoint).start();
        until("the run to stop", || run.is_stopped());
        pair.kill();
        run.signal(Signal::CONT);
        pair.restart();
        let died = run.wait();
        mended(&project, &urls, &undisturbed().up, &died);
        trials += 1;
    }
    eprintln!("{} was killed and restarted at {trials} failpoints", store.title());
}

#[test]
#[ignore = "minutes: scripts/test --faults"]
fn mongodb_killed_and_restarted_between_any_two_writes() {
    killed_and_restarted(StoreName::Mongo);
}

#[test]
#[ignore = "minutes: scripts/test --faults"]
fn postgres_killed_and_restarted_between_any_two_writes() {
    killed_and_restarted(StoreName::Postgres);
}

#[test]
fn postgres_killed_in_the_middle_of_a_statement() {
    let mut pair = Pair::new(StoreName::Postgres);
    let waits = |what: &str| {
        format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
             AND application_name LIKE 'lockstep/%' AND query LIKE '{what}%' AND wait_event_type = 'Lock'"
        )
    };
    let usual = Project::usual();
    let long = blocker::project();
    let trials = [
        ("atomic", &long, "SELECT pg_advisory_lock(42)", "SELECT pg_advisory_xact_lock"),
        (
            "journaled",
            &usual,
            "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM people",
            "CREATE INDEX CONCURRENTLY",
        ),
    ];
    for (kind, project, blocks, waiting) in trials {
        let whole = seeded_at(&pair, &format!("whole_{kind}"));
        project.migrate_at(&whole[0], &whole[1], &["up"]).succeeds();
        let whole = dump_at(&whole[0], &whole[1]);

        let urls = seeded_at(&pair, kind);
        let foreign = Foreign::new(&urls[0], blocks);
        let run = project.migrate_at(&urls[0], &urls[1], &["up"]).start();
        until("the statement to wait", || number(&urls[0], &waits(waiting)) == 1);
        pair.kill();
        drop(foreign);
        let died = run.wait();
        assert_eq!(died.code, Some(7), "{}", died.text);
        pair.restart();
        mended(project, &urls, &whole, &died);
    }
    eprintln!("Postgres was killed in the middle of an atomic and of a journaled step");
}

/// Operations of a run that the server holds back.
async fn is_held_back(mongo: &str) -> bool {
    let client = mongodb::Client::with_uri_str(mongo).await.expect("a valid URI");
    let database = client.default_database().expect("a URI with a database");
    let held_back = vec![
        doc! { "$currentOp": {} },
        doc! { "$match": {
            "waitingForLock": true,
            "ns": { "$regex": format!("^{}\\.", database.name()) },
        } },
    ];
    let found = client.database("admin").aggregate(held_back).await;
    let found: Vec<_> = found.expect("MongoDB answers").try_collect().await.expect("and goes on");
    client.shutdown().immediate(true).await;
    !found.is_empty()
}

/// Whether a transaction is open: then nobody gets the lock that holds writes back.
async fn has_transaction(mongo: &str) -> bool {
    let client = mongodb::Client::with_uri_str(mongo).await.expect("a valid URI");
    let open = vec![
        doc! { "$currentOp": { "allUsers": true, "idleSessions": true } },
        doc! { "$match": {
            "appName": { "$regex": "^lockstep/" }, "transaction": { "$exists": true },
        } },
    ];
    let found = client.database("admin").aggregate(open).await;
    let found: Vec<_> = found.expect("MongoDB answers").try_collect().await.expect("and goes on");
    client.shutdown().immediate(true).await;
    !found.is_empty()
}

#[test]
#[ignore = "minutes: scripts/test --faults"]
fn mongodb_killed_in_the_middle_of_a_statement() {
    let mut pair = Pair::new(StoreName::Mongo);
    let project = Project::usual();
    let mut trials = 0;
    for failpoint in (30..70).step_by(4) {
        let urls = seeded_at(&pair, &format!("held_back_{failpoint}"));
        let run = project.migrate_at(&urls[0], &urls[1], &["up"]).stopping_at(failpoint).start();
        until("the run to stop", || run.is_stopped());
        if block_on(async || has_transaction(&pair.mongo).await) {
            // It ends here; else it would be in the way of those that come next.
            run.signal(Signal::CONT);
            assert_eq!(run.wait().code, Some(0));
            continue;
        }
        // From now on nothing is written: the next write stands in the middle.
        block_on(async || {
            let client = mongodb::Client::with_uri_str(&pair.mongo).await.expect("a valid URI");
            let admin = client.database("admin");
            admin.run_command(doc! { "fsync": 1, "lock": true }).await.expect("it locks");
            client.shutdown().immediate(true).await;
        });
        run.signal(Signal::CONT);
        until("a write to be held back", || block_on(async || is_held_back(&urls[1]).await));
        pair.kill();
        pair.restart();
        let died = run.wait();
        mended(&project, &urls, &undisturbed().up, &died);
        trials += 1;
    }
    eprintln!("MongoDB was killed in the middle of {trials} writes");
    assert!(trials > 4, "{trials} trials");
}

#[test]
fn a_hot_standby_is_refused_and_nothing_is_left() {
    let mut pair = Pair::new(StoreName::Postgres);
    let project = Project::usual();
    let urls = seeded_at(&pair, "standby");
    // As a server that follows another one would be started.
    let standby = pair.data().expect("it is Postgres").join("standby.signal");
    pair.shut_down();
    fs::write(&standby, "").expect("a file");
    pair.restart();
    let refused = project.migrate_at(&urls[0], &urls[1], &["up"]).run();
    assert_eq!(refused.code, Some(7), "{}", refused.text);
    assert!(refused.text.contains("is this a replica?"), "{}", refused.text);
    dump_at(&urls[0], &urls[1]).is(&undisturbed().begin, &refused.text);

    pair.kill();
    fs::remove_file(&standby).expect("it is there");
    pair.restart();
    mended(&project, &urls, &undisturbed().up, &refused);
}
