//! Runs of a service: beside each other, stopped, given up.

use crate::support::Database;
use crate::{number, service};
use lockstep::{Kind, Migration, Migrator, State, Transaction, Up};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Two migrations; the first one calls a function that waits.
const TWO: [(&str, &str); 2] = [
    ("001-t", "CREATE TABLE t (id bigint); CALL lockstep.wait('1');"),
    ("002-u", "CREATE TABLE u (id bigint);"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_instances_that_start_at_once_one_migrates() {
    let database = Database::new("at_once");
    let folders = [("001-t", "CREATE TABLE t (id bigint);"), ("002-u", "CREATE TABLE u (id int);")];
    let instances: Vec<_> = (0..3)
        .map(|_| {
            let migrator = service(&database, &folders).build().expect("they can be read");
            // A service spawns it: its future can be sent.
            tokio::spawn(async move { migrator.up(Up::all()).await })
        })
        .collect();
    let mut finished = Vec::new();
    for instance in instances {
        let done = instance.await.expect("it does not panic").expect("it works");
        finished.extend(done.finished);
    }
    assert_eq!(finished, [1.into(), 2.into()]);
}

#[tokio::test]
async fn a_cleanup_needs_the_backup_that_the_service_wants() {
    let database = Database::new("gated");
    let migrator = |wants: bool| {
        let phased = Migration::new("001-t")
            .file("prepare.sql", "CREATE TABLE t (id bigint);")
            .file("cleanup.sql", "DROP TABLE t;");
        let builder = Migrator::builder()
            .migrations([phased])
            .postgres_url(&database.postgres_url)
            .mongo_url(&database.mongo_uri);
        let day = Duration::from_hours(24);
        let builder = if wants { builder.require_backup(day) } else { builder };
        builder.build().expect("they can be read")
    };
    let there = "SELECT count(*) FROM pg_class WHERE relname = 't'";
    let error = migrator(true).up(Up::all()).await.expect_err("there is no backup");
    assert_eq!((error.kind(), error.code()), (Kind::Refused, "BACKUP_REQUIRED"));
    assert_eq!(number(&database, there).await, 1);
    migrator(false).up(Up::all()).await.expect("nobody asks for one");
    assert_eq!(number(&database, there).await, 0);
}

/// Starts a run, waits until it is in its first step, ends it in one way or another, and
/// lets the step go on.
async fn ended(name: &str, end: impl AsyncFn(&lockstep::Migrator, &Notify)) {
    let database = Database::new(name);
    let (begun, may_end) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (says, waits) = (begun.clone(), may_end.clone());
    let wait = async move |_: &Transaction<'_>| {
        says.notify_one();
        waits.notified().await;
        Ok(())
    };
    let migrator = service(&database, &TWO).function("wait", wait).build();
    let migrator = migrator.expect("they can be read");
    {
        let run = migrator.up(Up::all());
        tokio::pin!(run);
        tokio::select! {
            done = &mut run => panic!("it waits: {done:?}"),
            () = begun.notified() => {}
        }
        if name == "stopped" {
            end(&migrator, &may_end).await;
            let error = run.await.expect_err("it was stopped");
            assert_eq!((error.kind(), error.code()), (Kind::Stopped, "INTERRUPTED"));
            assert_eq!(error.finished(), [1.into()]);
        }
    }
    if name != "stopped" {
        end(&migrator, &may_end).await;
    }
    // It came to the end of its step, recorded it, and gave the lease back.
    let status = loop {
        let status = migrator.status().await.expect("it can be read");
        if status.run.is_none() {
            break status;
        }
        tokio::task::yield_now().await;
    };
    let states: Vec<State> = status.migrations.iter().map(|it| it.state).collect();
    assert_eq!(states, [State::Completed, State::Pending]);
    assert!(!status.is_up_to_date());

    let done = migrator.up(Up::all()).await.expect("it goes on there");
    assert_eq!(done.finished, [2.into()]);
    let ours = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND application_name LIKE 'lockstep/%'";
    assert_eq!(number(&database, ours).await, 0);
}

#[tokio::test]
async fn a_run_that_is_told_to_stop_ends_between_two_steps() {
    ended("stopped", async |migrator, may_end| {
        migrator.stop();
        may_end.notify_one();
    })
    .await;
}

#[tokio::test]
async fn a_run_that_nobody_waits_for_any_more_ends_between_two_steps() {
    ended("dropped", async |_, may_end| may_end.notify_one()).await;
}

#[tokio::test]
async fn what_is_wrong_with_migrations_is_told_before_a_database_is_asked() {
    let database = Database::new("wrong");
    let wrong = [("001-t", "COMMIT;"), ("1-u", "SELECT 1;")];
    let error = service(&database, &wrong).build().expect_err("they cannot be read");
    assert_eq!((error.kind(), error.code()), (Kind::Usage, "BAD_MIGRATION"));
    let text = error.to_string();
    assert!(text.starts_with("001-t/up.sql:1: `COMMIT` is transaction control; "), "{text}");
}
