//! Hooks: what runs when, what it is told, and what becomes of a run when it fails.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;

use crate::project::{Project, Ran, until, write};

const FILES: [(&str, &str); 6] = [
    ("001-a/up.sql", "CREATE TABLE a (id int);"),
    ("001-a/down.sql", "DROP TABLE a;"),
    ("002-b/prepare.sql", "CREATE TABLE b (id int);"),
    ("002-b/prepare.down.sql", "DROP TABLE b;"),
    ("002-b/cleanup.sql", "DROP TABLE a;"),
    ("002-b/cleanup.down.sql", "CREATE TABLE a (id int);"),
];

/// A project whose hooks write their events into `events`, one after the other.
fn project(name: &str, files: &[(&str, &str)]) -> Project {
    let project = Project::new(name, files);
    let mut toml = "[hooks]\n".to_owned();
    for hook in [
        "before_up",
        "after_up",
        "before_down",
        "after_down",
        "before_cleanup",
        "after_cleanup",
        "on_failure",
    ] {
        toml.push_str(&format!("{hook} = ['./note.sh']\n"));
    }
    script(&project.path("note.sh"), "cat >> events");
    write(&project.path("migrate.toml"), &toml);
    project
}

fn script(path: &Path, body: &str) {
    write(path, &format!("#!/bin/sh\n{body}\n"));
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The events so far, which are then forgotten.
fn events(project: &Project) -> Vec<Value> {
    let path = project.path("events");
    let text = fs::read_to_string(&path).unwrap_or_default();
    let _ = fs::remove_file(path);
    text.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
}

/// Their names.
fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().expect("it has a name")).collect()
}

#[test]
fn hooks_run_around_a_run_and_around_each_cleanup_in_it() {
    let project = project("hooks_order", &FILES);
    project.ok(&["up", "--release", "r1"]);
    let seen = events(&project);
    assert_eq!(names(&seen), ["before_up", "before_cleanup", "after_cleanup", "after_up"]);
    let run_id = project.database.value("SELECT run_id FROM migration_runs");
    for event in &seen {
        assert_eq!(event["v"], 1);
        assert_eq!(event["command"], "up");
        assert_eq!(event["run_id"], *run_id);
        assert_eq!(event["release"], "r1");
        assert_eq!(event["env"], Value::Null);
        assert!(event["user"].as_str().is_some_and(|user| user.starts_with("tester@")), "{event}");
        assert!(event["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{event}");
    }
    let migration = |version: u64, name: &str| serde_json::json!({ "version": version, "name": name, "direction": "up" });
    let [before, before_cleanup, after_cleanup, after] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!(before["migrations"], Value::Array(vec![migration(1, "a"), migration(2, "b")]));
    assert_eq!(before["outcome"], Value::Null);
    assert_eq!(before_cleanup["migrations"], Value::Array(vec![migration(2, "b")]));
    assert_eq!(after_cleanup["outcome"], "ok");
    assert_eq!(after["outcome"], "ok");
    assert_eq!(after["exit_code"], 0);
    assert_eq!(after["finished"], serde_json::json!([1, 2]));

    // Nothing to do is no run.
    project.ok(&["up"]);
    assert_eq!(events(&project), Vec::<Value>::new());

    project.ok(&["down", "--yes"]);
    let seen = events(&project);
    assert_eq!(names(&seen), ["before_down", "after_down"]);
    assert_eq!(seen[1]["finished"], serde_json::json!([2]));
    project.ok(&["down", "--yes", "--to", "1"]);
    assert_eq!(events(&project), Vec::<Value>::new());

    project.ok(&["up", "--through", "validate"]);
    assert_eq!(names(&events(&project)), ["before_up", "after_up"]);
    project.ok(&["cleanup"]);
    assert_eq!(names(&events(&project)), ["before_cleanup", "after_cleanup"]);
    project.ok(&["cleanup"]);
    assert_eq!(events(&project), Vec::<Value>::new());
}

#[test]
fn what_other_commands_do_runs_no_hook() {
    let project = project("hooks_none", &FILES);
    project.ok(&["plan"]);
    project.ok(&["up"]);
    events(&project);
    for arguments in [
        &["status"][..],
        &["history"],
        &["verify"],
        &["plan", "down"],
        &["repair", "--redo", "001/up/postgres/1", "--yes"],
    ] {
        project.migrate(arguments);
    }
    assert_eq!(events(&project), Vec::<Value>::new());
}

#[test]
fn a_hook_before_up_that_fails_stops_it_before_anything_is_changed() {
    let project = project("hooks_before", &FILES);
    let toml = "[hooks]\nbefore_up = ['./no.sh', './note.sh']\non_failure = ['./note.sh']\n";
    write(&project.path("migrate.toml"), toml);
    script(&project.path("no.sh"), "echo looking; echo 'no room left' >&2; exit 3");
    let ran = project.fails(1, &["up"]);
    for part in [
        "before_up hook `./no.sh` failed with exit code 3",
        "stderr: no room left",
        "nothing was changed",
        "looking",
    ] {
        assert!(ran.stderr.contains(part), "`{part}` is not in it:\n{ran}");
    }
    assert_eq!(project.database.objects(), "");
    let seen = events(&project);
    assert_eq!(names(&seen), ["on_failure"], "the one behind it did not run");
    assert_eq!(seen[0]["error"]["code"], "HOOK_FAILED");
    assert_eq!((&seen[0]["exit_code"], &seen[0]["outcome"]), (&1.into(), &"failed".into()));
    let objects = project.json(0, &["status"]);
    assert_eq!(objects[0]["pending"], 2, "nothing is begun: {objects:?}");

    let objects = project.json(1, &["up"]);
    let last = objects.last().expect("the last object");
    assert_eq!(last["event"], "run_finished");
    assert_eq!(last["error"]["code"], "HOOK_FAILED");
    let finished: Vec<&Value> =
        objects.iter().filter(|object| object["event"] == "hook_finished").collect();
    assert_eq!(finished.len(), 2, "{objects:?}");
    assert_eq!(finished[0]["hook"], "before_up");
    assert!(finished[0]["error"].is_string() && finished[1]["error"].is_null(), "{objects:?}");

    script(&project.path("no.sh"), "true");
    project.ok(&["up"]);
}

#[test]
fn a_hook_before_a_cleanup_that_fails_leaves_it_to_be_done() {
    let project = project("hooks_cleanup", &FILES);
    write(&project.path("migrate.toml"), "[hooks]\nbefore_cleanup = [['./no.sh', 'x']]\n");
    script(&project.path("no.sh"), "exit 1");
    let ran = project.fails(1, &["up"]);
    assert!(ran.stderr.contains("the cleanup was not begun"), "{ran}");
    assert_eq!(project.database.value("SELECT count(*) FROM a"), "0", "a is still there");
    let status = project.json(0, &["status"]).remove(0);
    assert_eq!(status["migrations"][0]["state"], "completed", "{status}");
    assert_eq!(status["migrations"][1]["phase"], "cleanup", "{status}");
    script(&project.path("no.sh"), "true");
    project.ok(&["up"]);
    assert!(project.database.try_sql("SELECT count(*) FROM a").is_err(), "a is gone");
}

#[test]
fn a_hook_after_a_run_that_fails_changes_nothing_about_it() {
    let project = project("hooks_after", &FILES);
    let toml = "[hooks]\nafter_up = ['exit 7', './note.sh']\nafter_cleanup = ['no-such-program']\n";
    write(&project.path("migrate.toml"), toml);
    let ran = project.ok(&["up"]);
    assert!(ran.stderr.contains("after_up hook `exit 7` failed with exit code 7"), "{ran}");
    assert!(ran.stderr.contains("after_cleanup hook `no-such-program` failed"), "{ran}");
    assert_eq!(names(&events(&project)), ["after_up"], "the one behind it ran");
}

#[test]
fn a_run_that_fails_is_told_and_a_file_that_is_wrong_is_not() {
    let project = project("hooks_failure", &[("001-a/up.sql", "CREATE TABLE a (id int);")]);
    project.write("002-b/up.sql", "SELECT * FROM nowhere;");
    project.fails(1, &["up"]);
    let seen = events(&project);
    assert_eq!(names(&seen), ["before_up", "on_failure"]);
    assert_eq!(seen[1]["error"]["code"], "STEP_FAILED");
    assert!(seen[1]["error"]["message"].as_str().is_some_and(|it| it.contains("nowhere")));
    assert_eq!(seen[1]["finished"], serde_json::json!([1]));
    project.write("002-b/up.sql", "BEGIN;");
    project.fails(2, &["up"]);
    assert_eq!(events(&project), Vec::<Value>::new(), "no run began");
}

#[test]
fn hooks_have_both_urls_and_run_in_the_folder_of_the_file() {
    let project = project("hooks_surroundings", &FILES);
    let toml = "[hooks]\nbefore_up = ['echo \"$DATABASE_URL $MONGODB_URI $LOCKSTEP_EVENT $(pwd)\" > seen']\n";
    write(&project.path("etc/migrate.toml"), &format!("dir = '../migrations'\n{toml}"));
    project.ok(&["-C", "etc/migrate.toml", "up"]);
    let seen = fs::read_to_string(project.path("etc/seen")).unwrap();
    let database = &project.database;
    let expected = format!("{} {} before_up ", database.postgres_url, database.mongo_uri);
    assert!(seen.starts_with(&expected), "{seen}");
    assert!(seen.trim_end().ends_with("/etc"), "{seen}");
}

#[test]
fn one_of_many_that_wait_runs_the_hooks() {
    let project = project("hooks_crowd", &FILES);
    let running: Vec<_> = (0..4).map(|_| project.start(&["up", "--lock-wait", "2m"])).collect();
    for ran in running.into_iter().map(crate::project::Running::end) {
        assert_eq!(ran.code, 0, "{ran}");
    }
    let seen = events(&project);
    assert_eq!(names(&seen), ["before_up", "before_cleanup", "after_cleanup", "after_up"]);
}

/// Whether a process is there and not only waits to be buried.
fn is_alive(id: &str) -> bool {
    let state = fs::read_to_string(format!("/proc/{}/stat", id.trim())).unwrap_or_default();
    let state = state.rsplit_once(')').map(|(_, rest)| rest.trim_start().to_owned());
    state.is_some_and(|state| !state.starts_with(['Z', 'X']))
}

/// A hook that starts a process and goes on for ever; the process' number.
fn endless(project: &Project, toml: &str) {
    write(&project.path("migrate.toml"), toml);
    script(
        &project.path("endless.sh"),
        "sleep 1000 & echo $! > child.new\nmv child.new child\nwait",
    );
}

#[test]
fn a_hook_that_takes_too_long_is_ended_with_all_that_it_started() {
    let project = project("hooks_late", &FILES);
    endless(&project, "[hooks]\nbefore_up = ['./endless.sh']\ntimeout = '1s'\n");
    let ran = project.fails(1, &["up"]);
    assert!(ran.stderr.contains("was ended after 1s (hooks.timeout)"), "{ran}");
    // On a machine that is busy it may not even have begun.
    if let Ok(child) = fs::read_to_string(project.path("child")) {
        until("what it started is gone", || !is_alive(&child));
    }
    assert_eq!(project.database.objects(), "");
}

#[test]
fn a_signal_ends_a_hook_with_all_that_it_started() {
    let project = project("hooks_signal", &FILES);
    for hook in ["before_up", "after_up"] {
        endless(&project, &format!("[hooks]\n{hook} = ['./endless.sh']\n"));
        let _ = fs::remove_file(project.path("child"));
        let running = project.start(&["up"]);
        until("the hook is at work", || project.path("child").exists());
        running.signal("TERM");
        let ran: Ran = running.end();
        // What came before the hook is done.
        let expected = if hook == "before_up" { 143 } else { 0 };
        assert_eq!(ran.code, expected, "{ran}");
        let child = fs::read_to_string(project.path("child")).unwrap();
        until("what it started is gone", || !is_alive(&child));
    }
}
