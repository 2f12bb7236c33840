//! `--output json`: what scripts rely on.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::project::{Project, Ran};

/// Two migrations with a part for each store.
const FILES: [(&str, &str); 6] = [
    ("001-users/up.sql", "CREATE TABLE users (id integer);\nINSERT INTO users VALUES (1);"),
    ("001-users/down.sql", "DROP TABLE users;"),
    ("002-orders/up.mongodb.js", "db.createCollection(\"orders\");"),
    ("002-orders/down.mongodb.js", "db.orders.drop();"),
    ("002-orders/up.sql", "VACUUM users;"),
    ("002-orders/down.sql", "VACUUM users;"),
];

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[track_caller]
fn has_keys(value: &Value, expected: &[&str]) {
    assert_eq!(keys(value), expected.iter().copied().collect(), "{value}");
}

/// The events of a run, without `at`; every line begins as promised.
#[track_caller]
fn events(ran: &Ran) -> Vec<String> {
    for line in ran.stdout.lines() {
        let rest = line.strip_prefix(r#"{"v":1,"event":""#).unwrap_or_else(|| panic!("{line}"));
        let (_, rest) = rest.split_once('"').expect("the event ends");
        let at = rest.strip_prefix(r#","at":""#).unwrap_or_else(|| panic!("{line}"));
        let (at, _) = at.split_once('"').expect("the time ends");
        assert!(chrono::DateTime::parse_from_rfc3339(at).is_ok() && at.ends_with('Z'), "{line}");
    }
    let event = |object: &Value| {
        let text = |key: &str| match &object[key] {
            Value::Null => String::new(),
            Value::String(text) => format!(" {text}"),
            other => format!(" {other}"),
        };
        let named = ["event", "direction", "name", "step", "store", "outcome", "exit_code"];
        named.map(text).concat().trim_start().to_owned()
    };
    ran.objects().iter().map(event).collect()
}

#[test]
fn status_has_the_keys_and_types_of_the_contract() {
    let project = Project::new("status_json", &FILES);
    let top = ["v", "event", "at", "postgres", "mongo", "paired", "lease", "pending", "migrations"];

    let [status] = &project.json(0, &["status"])[..] else { panic!("one object") };
    has_keys(status, &top);
    assert_eq!(status["event"], "status");
    assert_eq!((&status["paired"], &status["pending"]), (&json!(false), &json!(2)));
    assert_eq!(status["lease"], Value::Null);
    has_keys(&status["postgres"], &["reachable", "version"]);
    has_keys(&status["mongo"], &["reachable", "version", "topology"]);
    assert_eq!(status["mongo"]["topology"], "replica-set");
    let version = status["postgres"]["version"].as_str().expect("a text");
    assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{version}");
    assert_eq!(project.database.ours(), Vec::<String>::new(), "a question creates nothing");
    project.json(3, &["status", "--exit-code"]);

    project.ok(&["up", "--to", "1", "--release", "2026.11"]);
    let [status] = &project.json(0, &["status"])[..] else { panic!("one object") };
    assert_eq!((&status["paired"], &status["pending"]), (&json!(true), &json!(1)));
    let migrations = status["migrations"].as_array().expect("an array");
    for migration in migrations {
        has_keys(
            migration,
            &[
                "version",
                "name",
                "state",
                "postgres",
                "mongo",
                "checksum",
                "phase",
                "executed_at",
                "execution_time_ms",
                "release",
            ],
        );
    }
    let [first, second] = &migrations[..] else { panic!("two migrations") };
    assert_eq!((&first["version"], &first["name"]), (&json!(1), &json!("users")));
    for (field, expected) in [
        ("state", "completed"),
        ("postgres", "completed"),
        ("mongo", "completed"),
        ("checksum", "ok"),
        ("release", "2026.11"),
    ] {
        assert_eq!(first[field], expected, "{first}");
    }
    let at = first["executed_at"].as_str().expect("a time");
    assert!(chrono::DateTime::parse_from_rfc3339(at).is_ok(), "{at}");
    assert!(first["execution_time_ms"].is_u64(), "{first}");
    assert_eq!((&second["state"], &second["checksum"]), (&json!("pending"), &json!("none")));
    for field in ["executed_at", "execution_time_ms", "release", "phase"] {
        assert_eq!(second[field], Value::Null, "{second}");
    }

    project.write("001-users/down.sql", "DROP TABLE IF EXISTS users;");
    let [status] = &project.json(0, &["status"])[..] else { panic!("one object") };
    assert_eq!(status["migrations"][0]["checksum"], "edited");
    project.json(3, &["status", "--exit-code"]);
}

#[test]
fn status_names_the_lease_while_a_run_is_at_work() {
    let project = Project::new(
        "status_lease",
        &[("001-slow/up.sql", "CREATE TABLE a ();\nSELECT pg_sleep(2);")],
    );
    let running = project.start(&["up"]);
    let mut seen = Value::Null;
    crate::project::until("the lease is seen", || {
        seen = project.json(0, &["status"])[0]["lease"].clone();
        seen != Value::Null
    });
    has_keys(&seen, &["holder", "run_id", "expires_at"]);
    let holder = seen["holder"].as_str().expect("a text");
    assert!(holder.starts_with("tester@") && holder.contains(", pid "), "{holder}");
    let ended = running.end();
    assert_eq!(ended.code, 0, "{ended}");
    assert_eq!(project.json(0, &["status"])[0]["lease"], Value::Null);
}

#[test]
fn plan_is_one_object_with_every_statement() {
    let project = Project::new("plan_json", &FILES);
    let [plan] = &project.json(0, &["plan"])[..] else { panic!("one object") };
    has_keys(
        plan,
        &[
            "v",
            "event",
            "at",
            "direction",
            "migrations",
            "ahead",
            "held",
            "open",
            "waiting",
            "then_plan_again",
            "warnings",
        ],
    );
    let migrations = plan["migrations"].as_array().expect("an array");
    assert_eq!(migrations.len(), 2);
    for migration in migrations {
        has_keys(migration, &["version", "name", "direction", "steps", "holds"]);
        for step in migration["steps"].as_array().expect("an array") {
            has_keys(
                step,
                &[
                    "rows",
                    "step",
                    "store",
                    "action",
                    "commit",
                    "attempt",
                    "file",
                    "line",
                    "statements",
                    "destroys",
                ],
            );
        }
    }
    let first = &migrations[0]["steps"][0];
    // The second writes what the first makes: nobody waits for it.
    let touch = json!({
        "name": "users", "lock": "ROW EXCLUSIVE", "does": "nothing", "why": null, "rows": null,
        "bytes": null, "index_bytes": null, "matches": null, "exists": true, "made_here": true,
    });
    let nothing: [&str; 0] = [];
    assert_eq!(
        first["statements"],
        json!([
            {
                "text": "CREATE TABLE users (id integer)", "line": 1,
                "touches": nothing, "notes": nothing, "warnings": nothing, "unknown": null,
            },
            {
                "text": "INSERT INTO users VALUES (1)", "line": 2,
                "touches": [touch], "notes": nothing, "warnings": nothing, "unknown": null,
            },
        ])
    );
    assert_eq!(
        (&first["commit"], &first["file"]),
        (&json!("transaction"), &json!("001-users/up.sql"))
    );
    let second = &migrations[1]["steps"];
    assert_eq!((&second[0]["commit"], &second[0]["store"]), (&json!("alone"), &json!("postgres")));
    assert_eq!((&second[1]["commit"], &second[1]["store"]), (&json!("alone"), &json!("mongo")));
    assert_eq!(project.database.ours(), Vec::<String>::new(), "a question creates nothing");
    assert_eq!(project.database.objects(), "");

    project.ok(&["up"]);
    let [plan] = &project.json(0, &["plan"])[..] else { panic!("one object") };
    assert_eq!(plan["migrations"], json!([]));
    let [plan] = &project.json(0, &["plan", "down", "--to", "0"])[..] else { panic!("one object") };
    assert_eq!(plan["direction"], "down");
    assert_eq!(plan["migrations"][0]["version"], 2);
    assert_eq!(plan["migrations"][1]["steps"][0]["destroys"], json!(["DROP TABLE users"]));
}

#[test]
fn up_and_down_tell_what_they_do_and_end_with_run_finished() {
    let project = Project::new("events", &FILES);
    let up = project.ok(&["up", "--output", "json"]);
    assert_eq!(
        events(&up),
        [
            "run_started",
            "migration_started up users",
            "step_started up/postgres/1 postgres",
            "step_finished up/postgres/1 postgres",
            "migration_finished up users",
            "migration_started up orders",
            "step_started up/postgres/1 postgres",
            "step_finished up/postgres/1 postgres",
            "step_started up/mongo/1 mongo",
            "step_finished up/mongo/1 mongo",
            "migration_finished up orders",
            "run_finished ok 0",
        ]
    );
    assert_eq!(up.stderr, "");
    let objects = up.objects();
    let history = project.database.history();
    assert_eq!(objects[0]["run_id"], history[0]["run_id"]);
    assert_eq!(objects[0]["migrations"], 2);
    has_keys(
        objects.last().expect("not empty"),
        &["v", "event", "at", "command", "outcome", "exit_code", "error"],
    );

    assert_eq!(events(&project.ok(&["up", "--output", "json"])), ["run_finished ok 0"]);
    let down = project.ok(&["down", "--yes", "--output", "json"]);
    assert_eq!(
        events(&down),
        [
            "run_started",
            "migration_started down orders",
            "step_started down/mongo/1 mongo",
            "step_finished down/mongo/1 mongo",
            "step_started down/postgres/1 postgres",
            "step_finished down/postgres/1 postgres",
            "migration_finished down orders",
            "run_finished ok 0",
        ]
    );
    assert_eq!(down.stderr, "");
    assert_eq!(
        events(&project.fails(9, &["down", "--output", "json"])),
        ["run_finished refused 9"]
    );
}

#[test]
fn a_failure_and_a_refusal_end_with_run_finished_too() {
    let project = Project::new("events_failed", &FILES);
    project.write("003-broken/up.sql", "SELECT 1;\n\nSELECT nothing FROM nowhere;");
    let failed = project.fails(1, &["up", "--output", "json"]);
    let events_then = events(&failed);
    assert_eq!(events_then.last().map(String::as_str), Some("run_finished failed 1"));
    assert_eq!(failed.stderr, "");
    let error = &failed.objects().pop().expect("not empty")["error"];
    has_keys(error, &["code", "message", "file", "line", "column", "details", "next", "more"]);
    assert_eq!(error["code"], "STEP_FAILED");
    assert_eq!((&error["line"], &error["column"]), (&json!(3), &json!(21)));
    assert_eq!(error["file"], "migrations/003-broken/up.sql");
    assert!(error["message"].as_str().is_some_and(|text| text.contains("42P01")), "{error}");

    for (code, word, arguments) in [
        (2, "usage", &["up", "--to", "99"][..]),
        (2, "usage", &["down", "--to", "soon", "--yes"]),
        (2, "usage", &["up", "--dir", "elsewhere"]),
        (2, "usage", &["up", "--postgres", "nonsense://"]),
        (7, "unreachable", &["up", "--postgres", "postgres://app:s3cret@127.0.0.1:1/shop"]),
        (9, "refused", &["down", "--steps", "2"]),
    ] {
        let ran = project.fails(code, &[arguments, &["--output", "json"]].concat());
        assert_eq!(events(&ran), [format!("run_finished {word} {code}")], "{ran}");
        let error = &ran.objects()[0]["error"];
        assert!(error["next"].as_str().is_some_and(|next| !next.is_empty()), "{ran}");
        assert_eq!(ran.stderr, "", "{ran}");
    }
}
