//! Two processes at one backfill, one of which is killed.

use crate::dump::left;
use crate::project::Project;
use crate::rows::{claimants, counted, each_was_rewritten_once, rewritten};
use crate::support::wait::until;
use crate::time::{leases_run_out, shards_fall_silent};

const ROWS: i64 = 20_000;

/// A backfill in one store, after a migration that makes our tables.
fn project(backfill: &str) -> Project {
    let manifest = format!(
        "[[backfill]]\nname = \"count\"\nbatch = 100\nworkers = 2\npause = \"10ms\"\n{backfill}\n"
    );
    Project::of(&[
        ("001-first/up.sql", "CREATE TABLE first (id integer PRIMARY KEY);\n"),
        ("001-first/up.mongodb.js", "db.createCollection(\"first\");\n"),
        ("002-count/migration.toml", &manifest),
    ])
}

const POSTGRES: &str = r#"postgres = { table = "counted", set = "n = n + 1" }"#;
const MONGO: &str = r#"mongo = { collection = "counted", update = "{ $inc: { n: 1 } }" }"#;

/// Who is killed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Killed {
    Nobody,
    Leader,
    Joiner,
}

fn two_at_once(backfill: &str, killed: Killed) {
    let project = project(backfill);
    let (rows, documents) = if backfill == POSTGRES { (ROWS, 0) } else { (0, ROWS) };
    let database = counted("joined", rows, documents);
    project.migrate(&database, &["up", "--to", "001"]).succeeds();
    // Both have taken their shards before the first batch.
    project
        .migrate(&database, &["backfill", "pause", "--reason", "both are to be there"])
        .succeeds();
    let leader = project.migrate(&database, &["up"]).start();
    until("the leader to take shards", || claimants(&database).len() == 1);
    let joiner = project.migrate(&database, &["up", "--join"]).start();
    until("the joiner to take shards", || claimants(&database).len() == 2);
    let before = rewritten(&database);
    project.migrate(&database, &["backfill", "resume"]).succeeds();
    until("rows to be rewritten", || rewritten(&database) > before);
    let ended = match killed {
        Killed::Nobody => {
            let ended = leader.wait();
            assert_eq!(ended.code, Some(0), "{}", ended.text);
            joiner.wait()
        }
        Killed::Leader => {
            drop(leader);
            leases_run_out(&database);
            joiner.wait()
        }
        Killed::Joiner => {
            let said = joiner.text();
            assert!(said.contains("helping with this backfill"), "{said}");
            drop(joiner);
            shards_fall_silent(&database);
            leader.wait()
        }
    };
    assert_eq!(ended.code, Some(0), "{killed:?}: {}", ended.text);
    if killed != Killed::Joiner {
        assert!(ended.text.contains("helping with this backfill"), "{}", ended.text);
    }
    if killed == Killed::Leader {
        assert!(ended.text.contains("applied 1 migration"), "{}", ended.text);
    }
    let mut left = left(&database);
    if killed == Killed::Joiner {
        // Its run is ended by whoever takes the lease next.
        left = left.lines().filter(|line| !line.contains("run")).collect();
    }
    assert_eq!(left, "", "{killed:?}: {}", ended.text);
    each_was_rewritten_once(&database, rows, documents, &ended.text);
}

#[test]
fn a_joined_backfill_in_postgres_ends_and_nothing_is_done_twice() {
    two_at_once(POSTGRES, Killed::Nobody);
}

#[test]
fn a_joiner_takes_over_a_backfill_in_postgres_whose_leader_was_killed() {
    two_at_once(POSTGRES, Killed::Leader);
}

#[test]
fn a_leader_finishes_a_backfill_in_postgres_whose_joiner_was_killed() {
    two_at_once(POSTGRES, Killed::Joiner);
}

#[test]
fn a_joined_backfill_in_mongodb_ends_and_nothing_is_done_twice() {
    two_at_once(MONGO, Killed::Nobody);
}

#[test]
fn a_joiner_takes_over_a_backfill_in_mongodb_whose_leader_was_killed() {
    two_at_once(MONGO, Killed::Leader);
}

#[test]
fn a_leader_finishes_a_backfill_in_mongodb_whose_joiner_was_killed() {
    two_at_once(MONGO, Killed::Joiner);
}
