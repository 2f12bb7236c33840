//! A migration in phases with backfills in both stores, killed at every failpoint of
//! its way there and back.

use std::sync::OnceLock;

use crate::count_up;
use crate::dump::{Dump, dump};
use crate::project::{Ended, Project};
use crate::rows::counted;
use crate::support::Database;
use crate::time::leases_run_out;

const ROWS: i64 = 3_000;

/// Nothing in it stands being done twice.
fn project(workers: u32) -> Project {
    let backfills = [
        ("up", "rows", r#"postgres = { table = "counted", set = "n = n + 1, total = total + 2" }"#),
        (
            "up",
            "documents",
            r#"mongo = { collection = "counted", update = "{ $inc: { n: 1, total: 2 } }" }"#,
        ),
        (
            "down",
            "documents again",
            r#"mongo = { collection = "counted", update = "{ $inc: { n: -1 } }" }"#,
        ),
        (
            "down",
            "rows again",
            r#"postgres = { table = "counted", set = "n = n - 1, old = 'row ' || id" }"#,
        ),
    ];
    let mut manifest = String::new();
    for (direction, name, work) in backfills {
        manifest.push_str(&format!(
            "[[backfill]]\ndirection = \"{direction}\"\nname = \"{name}\"\nbatch = 500\nworkers = {workers}\n{work}\n\n"
        ));
    }
    manifest.push_str(
        r#"[[invariant]]
name = "rows counted"
postgres = "SELECT count(*) FROM counted WHERE (n, total) <> (1, 2)"
locked = true

[[invariant]]
name = "documents counted"
mongo = { collection = "counted", count = "{ total: { $ne: 2 } }" }
"#,
    );
    Project::of(&[
        ("001-phased/migration.toml", &manifest),
        (
            "001-phased/prepare.sql",
            "ALTER TABLE counted ADD COLUMN total bigint NOT NULL DEFAULT 0;
CREATE INDEX CONCURRENTLY counted_n ON counted (n);
",
        ),
        (
            "001-phased/prepare.down.sql",
            "DROP INDEX CONCURRENTLY counted_n;
ALTER TABLE counted DROP COLUMN total;
",
        ),
        (
            "001-phased/prepare.mongodb.js",
            "db.createCollection(\"totals\");\ndb.counted.createIndex({ n: 1 }, { name: \"by_n\" });\n",
        ),
        (
            "001-phased/prepare.down.mongodb.js",
            "db.counted.dropIndex(\"by_n\");\ndb.totals.drop();\ndb.counted.updateMany({}, { $unset: { total: \"\" } });\n",
        ),
        ("001-phased/cleanup.sql", "ALTER TABLE counted DROP COLUMN old;\n"),
        ("001-phased/cleanup.down.sql", "ALTER TABLE counted ADD COLUMN old text;\n"),
        (
            "001-phased/cleanup.mongodb.js",
            "db.counted.updateMany({}, { $unset: { old: \"\" } });\n",
        ),
        (
            "001-phased/cleanup.down.mongodb.js",
            "db.counted.updateMany({}, { $set: { old: \"document\" } });\n",
        ),
    ])
}

const UP: [&str; 2] = ["up", "--unthrottled"];
const DOWN: [&str; 4] = ["down", "--to", "0", "--yes"];

/// Both stores, and what our tables say of everything but the shards: how rows are cut
/// is for each run to say.
fn seen(database: &Database) -> Dump {
    let mut dump = dump(database);
    let lines = dump.history.split_inclusive('\n');
    dump.history = lines.filter(|line| !line.contains('#')).collect();
    dump
}

struct Undisturbed {
    up: Dump,
    down: Dump,
}

/// Once for each number of workers.
fn undisturbed(workers: u32) -> Undisturbed {
    let project = project(workers);
    let database = counted("undisturbed", ROWS, ROWS);
    project.migrate(&database, &UP).succeeds();
    let up = seen(&database);
    project.migrate(&database, &DOWN).succeeds();
    let down = seen(&database);
    assert_eq!(up.left, "");
    assert_eq!(down.left, "");
    Undisturbed { up, down }
}

fn with_one() -> &'static Undisturbed {
    static ONE: OnceLock<Undisturbed> = OnceLock::new();
    ONE.get_or_init(|| undisturbed(1))
}

#[track_caller]
fn check_after_death(database: &Database, expected: &Dump, last: &Ended, died: &Ended) {
    let mut found = seen(database);
    if last.text.contains("nothing to do") {
        found.left.clear();
    }
    found.is(expected, &format!("{}\nafter {}", last.text, died.text));
}

/// Of so many failpoints one is tried; others begin elsewhere.
fn up_killed(workers: u32, each: usize) -> usize {
    let project = project(workers);
    let undisturbed = undisturbed(workers);
    count_up(|trial| {
        let failpoint = trial * each;
        let database = counted("phased_up", ROWS, ROWS);
        let ended = project.migrate(&database, &UP).dying_at(failpoint).run();
        if !ended.was_killed() {
            assert_eq!(ended.code, Some(0), "at {failpoint}: {}", ended.text);
            return false;
        }
        leases_run_out(&database);
        let again = project.migrate(&database, &UP).run();
        assert_eq!(again.code, Some(0), "at {failpoint}: {}\nafter\n{}", again.text, ended.text);
        check_after_death(&database, &undisturbed.up, &again, &ended);
        true
    })
}

fn down_killed(workers: u32, each: usize) -> usize {
    let project = project(workers);
    let undisturbed = undisturbed(workers);
    count_up(|trial| {
        let failpoint = trial * each;
        let database = counted("phased_down", ROWS, ROWS);
        project.migrate(&database, &UP).succeeds();
        let ended = project.migrate(&database, &DOWN).dying_at(failpoint).run();
        if !ended.was_killed() {
            assert_eq!(ended.code, Some(0), "at {failpoint}: {}", ended.text);
            return false;
        }
        leases_run_out(&database);
        let again = project.migrate(&database, &DOWN).run();
        assert_eq!(again.code, Some(0), "at {failpoint}: {}\nafter\n{}", again.text, ended.text);
        check_after_death(&database, &undisturbed.down, &again, &ended);
        true
    })
}

#[test]
fn a_way_there_and_back_leaves_the_data_as_it_was() {
    let one = with_one();
    let several = undisturbed(3);
    assert_eq!(one.up.data, several.up.data, "the number of workers does not show");
    assert_eq!(one.down.data, several.down.data, "the number of workers does not show");
    assert!(!one.down.history.contains("execute/"), "{}", one.down.history);
    assert_ne!(one.up.data, one.down.data);
}

#[test]
fn a_migration_in_phases_killed_at_some_failpoints_goes_on() {
    let (one, three) = (up_killed(1, 10), up_killed(3, 13));
    eprintln!("up in phases was killed at {one} failpoints with one worker, {three} with three");
    assert!(one > 5 && three > 5, "{one} and {three} failpoints");
}

#[test]
#[ignore = "minutes: scripts/test --faults"]
fn a_migration_in_phases_killed_at_some_failpoints_of_its_way_back_goes_on() {
    let (one, three) = (down_killed(1, 13), down_killed(3, 17));
    eprintln!("down in phases was killed at {one} failpoints with one worker, {three} with three");
    assert!(one > 5 && three > 5, "{one} and {three} failpoints");
}

#[test]
#[ignore = "minutes: scripts/test --faults"]
fn a_migration_in_phases_killed_at_every_failpoint_goes_on() {
    let (one, three) = (up_killed(1, 1), up_killed(3, 1));
    eprintln!("up in phases was killed at {one} failpoints with one worker, {three} with three");
    assert!(one > 50 && three > 50, "{one} and {three} failpoints");
}

#[test]
#[ignore = "minutes: scripts/test --faults"]
fn a_migration_in_phases_killed_at_every_failpoint_of_its_way_back_goes_on() {
    let (one, three) = (down_killed(1, 1), down_killed(3, 1));
    eprintln!("down in phases was killed at {one} failpoints with one worker, {three} with three");
    assert!(one > 50 && three > 50, "{one} and {three} failpoints");
}
