//! `migrate wait`, and waiting as such: what is not there yet, what never comes, and
//! who asks to stop meanwhile.

use std::fs::{self, File};
use std::net::TcpListener;
use std::process::Stdio;

use serde_json::Value;

use crate::project::{Project, until};

/// Nobody listens there, and nobody who is no administrator could.
const NOBODY: &str = "127.0.0.1:1";

const FILES: [(&str, &str); 4] = [
    ("001-a/up.sql", "CREATE TABLE a (id int);"),
    ("001-a/up.mongodb.js", "db.a.insertOne({ _id: 1 });"),
    ("002-b/up.sql", "CREATE TABLE b (id int);"),
    ("002-b/up.mongodb.js", "db.b.insertOne({ _id: 1 });"),
];

#[test]
fn a_version_that_no_file_has_is_waited_for_and_told_of() {
    let project = Project::new("wait_unknown", &FILES);
    let remark = "there is no file of 099 here";
    let ran = project.fails(8, &["wait", "--for", "99", "--timeout", "200ms"]);
    assert!(ran.stderr.contains(remark), "{ran}");
    let ran = project.fails(8, &["wait", "--for", "2", "--timeout", "200ms"]);
    assert!(!ran.stderr.contains("there is no file"), "{ran}");
    // An application has no files at hand.
    fs::remove_dir_all(project.path("migrations")).unwrap();
    let ran = project.fails(8, &["wait", "--for", "99", "--timeout", "200ms"]);
    assert!(!ran.stderr.contains("there is no file"), "{ran}");
}

#[test]
fn databases_that_answer_are_waited_for_no_longer() {
    let project = Project::new("wait_ready", &FILES);
    let ran = project.ok(&["wait"]);
    assert!(ran.stderr.contains("Postgres and MongoDB"), "{ran}");
    let objects = project.json(0, &["wait", "--timeout", "60s"]);
    let [object] = &objects[..] else { panic!("{objects:?}") };
    assert_eq!(object["event"], "wait");
    assert_eq!(object["postgres"], "reachable");
    assert_eq!(object["mongo"], "reachable");
    assert_eq!(object["version"], Value::Null);
    assert!(object["waited_ms"].is_u64(), "{object}");
    assert_eq!(project.database.ours(), Vec::<String>::new(), "nothing was made");
}

#[test]
fn a_version_is_waited_for_until_both_stores_have_completed_it() {
    let project = Project::new("wait_for", &FILES);
    let waiting = project.start(&["wait", "--for", "002-b", "--output", "json"]);
    project.ok(&["up", "--to", "1"]);
    project.ok(&["up"]);
    let ran = waiting.end();
    assert_eq!(ran.code, 0, "{ran}");
    let objects = ran.objects();
    let [object] = &objects[..] else { panic!("{ran}") };
    assert_eq!(object["version"], 2);
    assert_eq!(object["postgres"], "completed");
    assert_eq!(object["mongo"], "completed");
    let finished = project.database.value(
        "SELECT to_char(finished_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') \
         FROM migration_history WHERE version = 2",
    );
    let at = object["at"].as_str().expect("a time");
    assert!(at >= finished.as_str(), "it went on at {at}, and 002 was finished at {finished}");
}

#[test]
fn what_does_not_come_in_time_is_named() {
    let project = Project::new("wait_late", &FILES);
    let ran = project.fails(8, &["wait", "--for", "1", "--timeout", "300ms"]);
    for part in [
        "waited 300ms in vain for 001",
        "in Postgres it is pending",
        "in MongoDB it is pending",
        "next: ",
    ] {
        assert!(ran.stderr.contains(part), "`{part}` is not in it:\n{ran}");
    }
    assert_eq!(ran.stdout, "");
    let objects = project.json(8, &["wait", "--for", "1", "--timeout", "300ms"]);
    let [object] = &objects[..] else { panic!("{objects:?}") };
    assert_eq!(object["code"], "WAIT_TIMEOUT");
    assert_eq!(object["details"]["mongo"], "in MongoDB it is pending");
    assert_eq!(project.database.ours(), Vec::<String>::new(), "nothing was made");

    project.ok(&["up", "--to", "1"]);
    project.ok(&["wait", "--for", "1", "--timeout", "300ms"]);
    project.fails(8, &["wait", "--for", "2", "--timeout", "300ms"]);
    // A store that was restored, or is behind, is not completed.
    project.database.sql("UPDATE migration_history SET status = 'running' WHERE version = 1");
    let ran = project.fails(8, &["wait", "--for", "1", "--timeout", "300ms"]);
    assert!(ran.stderr.contains("in Postgres it is begun and not done"), "{ran}");
    assert!(!ran.stderr.contains("in MongoDB it is"), "{ran}");
}

#[test]
fn a_migration_that_is_held_is_not_completed() {
    let project = Project::new(
        "wait_held",
        &[
            ("001-a/prepare.sql", "CREATE TABLE a (id int);"),
            ("001-a/cleanup.sql", "DROP TABLE a;"),
        ],
    );
    project.ok(&["up", "--through", "validate"]);
    let ran = project.fails(8, &["wait", "--for", "1", "--timeout", "300ms"]);
    assert!(ran.stderr.contains("held"), "{ran}");
    project.ok(&["cleanup"]);
    project.ok(&["wait", "--for", "1", "--timeout", "300ms"]);
}

/// The pods of the release in between wait for everything but the cleanup.
#[test]
fn all_but_the_cleanup_can_be_waited_for() {
    let project = Project::new(
        "wait_through",
        &[
            ("001-a/prepare.sql", "CREATE TABLE a (id int PRIMARY KEY, n int);"),
            ("001-a/prepare.mongodb.js", "db.a.insertOne({ _id: 1 });"),
            (
                "001-a/migration.toml",
                "[[backfill]]\nname = 'n'\npostgres = { table = 'a', set = 'n = 1', where = 'n IS NULL' }\n\
                 [[invariant]]\nname = 'every n'\npostgres = 'SELECT count(*) FROM a WHERE n IS NULL'\n",
            ),
            ("001-a/cleanup.sql", "DROP TABLE a;"),
            ("002-b/up.sql", "CREATE TABLE b (id int);"),
            ("002-b/down.sql", "DROP TABLE b;"),
        ],
    );
    let through = |version: &'static str, phase: &'static str| {
        ["wait", "--for", version, "--through", phase, "--timeout", "300ms"]
    };
    let phases = ["prepare", "execute", "validate", "cleanup"];
    for (reached, phase) in (0..).zip([None, Some("prepare"), Some("execute"), Some("validate")]) {
        if let Some(phase) = phase {
            project.ok(&["up", "--to", "1", "--through", phase]);
        }
        for (at, wanted) in (0..).zip(phases) {
            match at < reached {
                true => drop(project.ok(&through("1", wanted))),
                false => {
                    let ran = project.fails(8, &through("1", wanted));
                    let asked = match wanted {
                        "cleanup" => "for 001\n".to_owned(),
                        wanted => format!("for 001 through {wanted}\n"),
                    };
                    assert!(ran.stderr.contains(&asked), "{ran}");
                }
            }
        }
    }
    // No file is needed for what is held.
    fs::rename(project.path("migrations"), project.path("gone")).unwrap();
    let object = project.json(0, &through("1", "validate")).remove(0);
    for (key, expected) in [("through", "validate"), ("postgres", "reached"), ("mongo", "reached")]
    {
        assert_eq!(object[key], expected, "{object}");
    }
    project.ok(&through("1", "execute"));
    fs::rename(project.path("gone"), project.path("migrations")).unwrap();
    // What has no phases is to be completed.
    project.fails(8, &through("2", "validate"));
    let waiting = project.start(&["wait", "--for", "2", "--through", "validate"]);
    project.ok(&["up"]);
    project.ok(&["cleanup"]);
    let ran = waiting.end();
    assert_eq!(ran.code, 0, "{ran}");
    for phase in phases {
        project.ok(&through("1", phase));
    }
    // And what is taken back is no longer there.
    project.ok(&["down", "--to", "1", "--yes"]);
    project.fails(8, &through("2", "prepare"));
    project.fails(2, &["wait", "--through", "validate"]);
}

#[test]
fn a_duration_without_a_unit_is_told_which_there_are() {
    let project = Project::new("wait_unit", &FILES);
    for arguments in
        [&["up", "--wait", "5"][..], &["wait", "--timeout", "5"], &["up", "--timeout", "1d"]]
    {
        let ran = project.fails(2, arguments);
        assert!(ran.stderr.contains("`250ms`, `30s`, `10m` or `1h`"), "{ran}");
    }
}

#[test]
fn databases_that_do_not_answer_are_both_named() {
    let project = Project::new("wait_nobody", &[]);
    let postgres = format!("postgres://app:s3cret@{NOBODY}/shop");
    let mongo = format!("mongodb://app:s3cret@{NOBODY}/shop");
    let urls = ["--postgres", &postgres, "--mongo", &mongo];
    for limit in ["--timeout", "--wait"] {
        let ran = project.fails(8, &[&["wait", limit, "300ms"], &urls[..]].concat());
        assert!(ran.stderr.contains("postgres: "), "{ran}");
        assert!(ran.stderr.contains("mongo: "), "{ran}");
        assert!(ran.stderr.matches(NOBODY).count() >= 2, "{ran}");
        assert!(!ran.said().contains("s3cret"), "{ran}");
    }
    // One that answers is not named.
    let ran = project.fails(8, &["wait", "--timeout", "300ms", "--mongo", &mongo]);
    assert!(!ran.stderr.contains("postgres: "), "{ran}");
}

#[test]
fn a_wrong_password_is_not_waited_for() {
    let project = Project::new("wait_password", &[]);
    let mongo = project.database.mongo_uri.replace("mongodb://", "mongodb://app:s3cret@");
    let ran = project.fails(7, &["wait", "--timeout", "1h", "--mongo", &mongo]);
    assert!(ran.stderr.contains("uthentication failed"), "{ran}");
    project.fails(7, &["status", "--wait", "1h", "--mongo", &mongo]);
}

#[test]
fn who_may_only_read_may_wait() {
    let project = Project::new("wait_reader", &FILES);
    project.ok(&["up"]);
    let database = &project.database;
    let reader = format!("{}_reader", database.name);
    database
        .sql(&format!("CREATE ROLE {reader} LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC"));
    database.sql(&format!("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader}"));
    let (scheme, rest) = database.postgres_url.split_once("://").expect("a URL");
    let rest = rest.split_once('@').map_or(rest, |(_, rest)| rest);
    let url = format!("{scheme}://{reader}@{rest}");
    let ran = project.migrate(&["wait", "--for", "2", "--timeout", "30s", "--postgres", &url]);
    database.sql(&format!("DROP OWNED BY {reader}; DROP ROLE {reader}"));
    assert_eq!(ran.code, 0, "{ran}");
}

#[test]
fn whoever_waits_stops_when_told_to() {
    let project = Project::new("wait_stopped", &[]);
    let stderr = project.path("stderr");
    let mut child = project
        .command(&["wait", "--for", "7"])
        .stdout(Stdio::null())
        .stderr(File::create(&stderr).unwrap())
        .spawn()
        .unwrap();
    until("it waits", || fs::read_to_string(&stderr).unwrap().contains("waiting for 007"));
    signal(child.id(), "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn up_that_waits_for_a_database_stops_when_told_to_and_in_time() {
    let project = Project::new("wait_up", &FILES);
    // Whoever connects is let in, and is told nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://app@{}/shop?sslmode=disable", silent.local_addr().unwrap());
    let running = project.start(&["up", "--wait", "1h", "--postgres", &url]);
    let _connection = silent.accept().unwrap();
    running.signal("TERM");
    let ran = running.end();
    assert_eq!(ran.code, 143, "{ran}");
    assert!(ran.stderr.contains("nothing was changed"), "{ran}");

    let objects =
        project.json(8, &["up", "--wait", "1h", "--timeout", "300ms", "--postgres", &url]);
    let last = objects.last().expect("the last object");
    assert_eq!((&last["event"], &last["outcome"]), (&"run_finished".into(), &"timeout".into()));
    assert_eq!(last["error"]["code"], "TIMEOUT");
    let ran = project.fails(8, &["up", "--wait", "300ms", "--postgres", &url]);
    assert!(ran.stderr.contains("does not answer"), "{ran}");
    assert_eq!(project.database.ours(), Vec::<String>::new());
}

#[test]
fn a_time_limit_stops_a_run_and_the_next_one_goes_on() {
    let files = [
        ("001-a/up.sql", "CREATE TABLE a (id int); SELECT pg_sleep(3);"),
        ("001-a/down.sql", "DROP TABLE a;"),
        ("002-b/up.sql", "CREATE TABLE b (id int);"),
        ("002-b/down.sql", "DROP TABLE b;"),
    ];
    let project = Project::new("time_limit", &files);
    project.fails(8, &["up", "--timeout", "2s"]);
    project.ok(&["up"]);
    project.ok(&["down", "--to", "0", "--yes"]);
    let toml = "timeout = \"2s\"\n";
    fs::write(project.path("migrate.toml"), toml).unwrap();
    let ran = project.fails(8, &["up"]);
    assert!(ran.stderr.contains("out of time"), "{ran}");
    // A flag beats the file.
    project.ok(&["up", "--timeout", "1h"]);
    assert_eq!(project.database.value("SELECT count(*) FROM b"), "0");
}

/// Sends a signal to a process.
pub fn signal(id: u32, signal: &str) {
    let status =
        std::process::Command::new("kill").args(["-s", signal, &id.to_string()]).status().unwrap();
    assert!(status.success());
}
