//! `migrate serve` on real servers: what it says, to whom, and that it stays.

#[path = "../support/session.rs"]
mod session;
#[path = "../support/mod.rs"]
mod support;

mod http;
mod load;
mod served;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Events;
use regex::Regex;
use rustix::process::Signal;
use serde_json::{Value, json};
use served::{Project, SECRET};
use support::sql::{number, sql};
use support::wait::until;
use support::{Database, block_on};

fn collections(uri: &str) -> Vec<String> {
    block_on(async || {
        let client = mongodb::Client::with_uri_str(uri).await.expect("a valid URI");
        let database = client.default_database().expect("it is named");
        let names = database.list_collection_names().await.expect("MongoDB answers");
        client.shutdown().immediate(true).await;
        names
    })
}

/// A table, and documents.
const USERS: [(&str, &str); 4] = [
    ("001-users/up.sql", "CREATE TABLE users (id int PRIMARY KEY);"),
    ("001-users/down.sql", "DROP TABLE users;"),
    ("001-users/up.mongodb.js", "db.users.createIndex({ name: 1 });"),
    ("001-users/down.mongodb.js", "db.users.dropIndex('name_1');"),
];

/// An object without when it was made.
fn timeless(mut object: Value) -> Value {
    object.as_object_mut().expect("an object").remove("at");
    object
}

#[test]
fn it_says_what_the_commands_say_and_leaves_no_trace() {
    let database = Database::new("serve_says");
    let project = Project::new(&database.postgres_url, &database.mongo_uri, &USERS);
    let served = project.serve(&[]);
    served.until("it to be ready", "/health/ready", |answer| answer.status == 200);
    let same = |path: &str, arguments: &[&str]| {
        let expected = timeless(project.run(arguments).json());
        let mut last = Value::Null;
        until(path, || {
            last = timeless(served.get(path).json());
            let backfills = last.get_mut("backfills").and_then(Value::as_array_mut);
            for backfill in backfills.into_iter().flatten() {
                backfill.as_object_mut().expect("an object").remove("rate");
            }
            // What probes measure is another thing each time.
            let probes = last.get_mut("probes").map(Value::take);
            let mut expected = expected.clone();
            assert_eq!(probes.is_some(), expected.get("probes").is_some());
            if let Some(probes) = expected.get_mut("probes") {
                probes.take();
            }
            last == expected
        });
    };
    let json = ["--output", "json"];
    same("/api/status", &[&["status"][..], &json].concat());
    same("/api/plan", &[&["plan"][..], &json].concat());
    same("/api/history", &[&["history"][..], &json].concat());
    for path in ["/", "/health", "/metrics", "/api/backfills", "/api/invariants", "/health/live"] {
        assert_eq!(served.get(path).status, 200, "{path}");
    }
    assert_eq!(served.get("/api/plan").json()["migrations"][0]["version"], 1);

    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(number(&database.postgres_url, tables), 0);
    assert_eq!(collections(&database.mongo_uri), Vec::<String>::new());

    assert_eq!(served.get("/health/ready?version=1").status, 503);
    assert_eq!(project.run(&["up"]).code, Some(0));
    let there = served.until("001", "/health/ready?version=1", |answer| answer.status == 200);
    assert_eq!(there.json()["version"], json!({ "wanted": 1, "completed": true }));
    let newer = served.get("/health/ready?version=002-roles");
    assert_eq!((newer.status, newer.json()["version"]["wanted"].as_u64()), (503, Some(2)));
    assert_eq!(served.get("/health/ready?version=x").code(), "BAD_QUERY");
    assert_eq!(served.get("/health/ready?wanted=1").code(), "BAD_QUERY");

    same("/api/status", &[&["status"][..], &json].concat());
    same("/api/plan", &[&["plan"][..], &json].concat());
    same("/api/history", &[&["history"][..], &json].concat());
    same("/api/history?version=1", &[&["history", "1"][..], &json].concat());
    same("/api/backfills", &[&["backfill", "status"][..], &json].concat());
    let health = served.get("/health").json();
    assert_eq!(health["paired"], true);
    assert_eq!(health["counts"]["completed"], 1);
    assert_eq!(health["last_run"]["command"], "up");
    assert_eq!(served.get("/nothing").code(), "NOT_FOUND");
    assert_eq!(served.ask("POST", "/health", "", "").code(), "METHOD_NOT_ALLOWED");
    assert_eq!(served.end(Signal::INT), Some(130));
}

/// What would be run needs values; what is shown does not.
#[test]
fn a_pending_template_without_values_is_shown() {
    let database = Database::new("serve_template");
    let files = [
        ("001-a/up.sql", "CREATE TABLE a (id bigint PRIMARY KEY);\n"),
        ("002-b/migration.toml", "template = true\n"),
        ("002-b/up.sql", "CREATE TABLE {{table}} (id bigint PRIMARY KEY);\n"),
    ];
    let project = Project::new(&database.postgres_url, &database.mongo_uri, &files);
    assert_eq!(project.run(&["up", "--to", "1", "--var", "table=b"]).code, Some(0));
    let served = project.serve(&[]);
    served.until("it to be ready", "/health/ready", |answer| answer.status == 200);
    let status = served.get("/api/status").json();
    let states = |status: &Value| -> Vec<Value> {
        let migrations = status["migrations"].as_array().expect("an array");
        migrations.iter().map(|it| json!([it["state"], it.get("reason")])).collect()
    };
    let reason = "`up` refuses it: 002-b/up.sql:1:14: there is no variable `table`";
    assert_eq!(states(&status), [json!(["completed", null]), json!(["pending", reason])]);
    assert_eq!(states(&project.run(&["status", "--output", "json"]).json()), states(&status));
    assert_eq!(served.get("/api/plan").code(), "BAD_MIGRATION");
    assert_eq!(project.run(&["up", "--var", "table=b"]).code, Some(0));
    served.until("002", "/health/ready?version=2", |answer| answer.status == 200);
}

/// What a text for Prometheus may look like: a line for each value, behind the lines
/// that say what it is.
fn metrics(text: &str) -> BTreeSet<String> {
    let comment = Regex::new(r"^# (?:HELP|TYPE) (lockstep_[a-z_]+) .+$").unwrap();
    let value = Regex::new(
        r#"^(lockstep_[a-z_]+)(?:\{[a-z_]+="(?:[^"\\]|\\.)*"(?:,[a-z_]+="(?:[^"\\]|\\.)*")*\})? -?[0-9.]+$"#,
    )
    .unwrap();
    let mut described = BTreeSet::new();
    let mut names = BTreeSet::new();
    let mut lines = BTreeSet::new();
    for line in text.lines() {
        if let Some(found) = comment.captures(line) {
            described.insert(found[1].to_owned());
        } else {
            let found = value.captures(line).unwrap_or_else(|| panic!("no value: {line}"));
            assert!(described.contains(&found[1]), "{line}");
            let series = line.rsplit_once(' ').expect("a value").0;
            assert!(lines.insert(series.to_owned()), "twice: {line}");
            names.insert(found[1].to_owned());
        }
    }
    names
}

/// The names in the table of the documentation.
fn documented() -> BTreeSet<String> {
    let text = include_str!("../../docs/serve.md");
    let row = Regex::new(r"(?m)^\| `(lockstep_[a-z_]+)").unwrap();
    row.captures_iter(text).map(|found| found[1].to_owned()).collect()
}

#[test]
fn metrics_are_what_the_documentation_says() {
    let database = Database::new("serve_metrics");
    sql(
        &database.postgres_url,
        "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL);
         INSERT INTO t SELECT g, 0 FROM generate_series(1, 20000) AS g;",
    );
    let backfill = "[[backfill]]\nname = \"one more\"\nbatch = 10\npause = \"50ms\"\n\
                    postgres = { table = \"t\", set = \"n = n + 1\" }\n\
                    [[invariant]]\nname = \"all of them\"\npostgres = \"SELECT count(*) FROM t WHERE n = 0\"\nexpect = 0\n";
    let mut files = USERS.to_vec();
    files.push(("002-more/migration.toml", backfill));
    let project = Project::new(&database.postgres_url, &database.mongo_uri, &files);
    let served = project.serve(&["--allow-control"]);
    assert_eq!(project.run(&["up", "--to", "1"]).code, Some(0));
    let mut up = project.command(&["up"]).spawn().expect("it starts");
    let rate = |answer: &http::Answer| answer.body.contains("\nlockstep_backfill_rate{");
    let metrics_now = served.until("a rate", "/metrics", rate);
    let kind = metrics_now.headers["content-type"].as_str();
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    let mut names = metrics(&metrics_now.body);
    let labels = "{version=\"002\",step=\"execute/one-more\",store=\"postgres\"}";
    assert!(metrics_now.body.contains(&format!("lockstep_backfill_rate{labels}")));
    assert!(metrics_now.body.contains("lockstep_backfills_running 1\n"));
    assert!(metrics_now.body.contains("lockstep_lease_held{store=\"postgres\"} 1\n"));
    let backfills = served.get("/api/backfills").json();
    assert!(backfills["backfills"][0]["rate"].is_number(), "{backfills}");

    // Who listens hears that it stands still, and that it goes on.
    let mut events = Events::new(&served.address);
    let first = events.next().expect("the first comes at once");
    assert_eq!(first["backfills"]["backfills"][0]["title"], "one more");
    assert_eq!(first["status"]["event"], "status");
    let paused = served.post("/api/backfills/pause", "{\"reason\":\"lunch\"}");
    assert_eq!((paused.status, paused.json()["paused"].as_bool()), (200, Some(true)));
    let event = events.until("a pause", |event| event["backfills"]["paused"] == true);
    assert_eq!(event["backfills"]["reason"], "lunch");
    let twice = served.post("/api/backfills/speed", "{\"factor\":100}");
    assert_eq!(twice.json()["speed"], 100.0);
    assert_eq!(served.post("/api/backfills/resume", "{}").json()["paused"], false);
    events.until("an end", |event| {
        event["health"]["counts"]["completed"] == 2 && event["health"]["lease"].is_null()
    });
    assert_eq!(up.wait().expect("a child").code(), Some(0));
    let log = served.get("/api/history").json();
    let commands: Vec<&str> =
        log["runs"].as_array().unwrap().iter().filter_map(|run| run["command"].as_str()).collect();
    for steered in ["backfill pause", "backfill speed", "backfill resume"] {
        assert!(commands.contains(&steered), "{commands:?}");
    }

    let last = served.until("an invariant", "/metrics", |answer| {
        answer.body.contains("lockstep_invariant_holds{version=\"002\",name=\"all of them\"} 1\n")
            && answer.body.contains(
                "lockstep_step_duration_seconds{version=\"002\",step=\"execute/one-more\"",
            )
    });
    names.extend(metrics(&last.body));
    let mut documented = documented();
    // There is no standby here.
    assert!(documented.remove("lockstep_replication_lag_seconds") || !names.is_empty());
    names.remove("lockstep_replication_lag_seconds");
    assert_eq!(names, documented);
    assert_eq!(served.end(Signal::TERM), Some(143));
    assert!(events.next().is_none() || events.next().is_none(), "it ends with the server");
}

#[test]
fn what_stands_in_the_middle_is_not_ready_and_says_why() {
    let database = Database::new("serve_partial");
    sql(&database.postgres_url, "CREATE TABLE t (id int); INSERT INTO t VALUES (1);");
    let text = "[[invariant]]\nname = \"nobody is left\"\n\
                postgres = \"SELECT count(*) FROM t\"\nexpect = 0\n";
    let files = [
        ("001-none/migration.toml", text),
        ("001-none/prepare.sql", "ALTER TABLE t ADD COLUMN n int;"),
        ("001-none/prepare.down.sql", "ALTER TABLE t DROP COLUMN n;"),
    ];
    let project = Project::new(&database.postgres_url, &database.mongo_uri, &files);
    let served = project.serve(&[]);
    let invariant = |wanted: Value| {
        served.until("an invariant", "/api/invariants", |answer| {
            answer.status == 200 && answer.json()["invariants"][0]["holds"] == wanted
        })
    };
    invariant(Value::Null);
    assert_eq!(project.run(&["up"]).code, Some(6));
    let not = served.until("partial", "/health/ready", |it| it.json()["partial"] == json!([1]));
    assert_eq!(not.status, 503);
    let reasons = not.json()["reasons"].to_string();
    assert!(reasons.contains("001 is partial"), "{reasons}");
    let broken = invariant(false.into()).json();
    assert_eq!(broken["invariants"][0]["found"], "1");

    sql(&database.postgres_url, "DELETE FROM t");
    assert_eq!(project.run(&["up"]).code, Some(0));
    let holds = invariant(true.into()).json();
    assert!(holds["invariants"][0]["checked_at"].is_string(), "{holds}");
    served.until("it to be ready", "/health/ready", |answer| answer.status == 200);
}

#[test]
fn it_starts_and_stays_while_both_databases_are_away() {
    // Nobody listens on the first port.
    let project = Project::new(
        "postgres://postgres@127.0.0.1:1/app",
        &format!("mongodb://app:{SECRET}@127.0.0.1:1/app?authSource=admin"),
        &USERS,
    );
    let served = project.serve(&["--allow-control"]);
    let away = |store: &'static str| {
        move |answer: &http::Answer| answer.json()["stores"][store]["error"].is_string()
    };
    let ready = served.until("Postgres to be away", "/health/ready", away("postgres"));
    assert_eq!(ready.status, 503);
    served.until("MongoDB to be away", "/health/ready", away("mongo"));
    assert_eq!(served.get("/health/live").json()["status"], "ok");
    assert_eq!(served.get("/health").status, 503);
    for path in ["/api/status", "/api/plan", "/api/history", "/api/backfills", "/api/invariants"] {
        let answer = served.get(path);
        assert_eq!((answer.status, answer.code().as_str()), (503, "UNREACHABLE"), "{path}");
    }
    assert_eq!(served.post("/api/backfills/resume", "{}").code(), "UNREACHABLE");
    let text = served.get("/metrics").body;
    for store in ["postgres", "mongo"] {
        assert!(text.contains(&format!("lockstep_store_up{{store=\"{store}\"}} 0\n")), "{text}");
    }
    metrics(&text);
    // Who listens is no reason to stay.
    let mut events = Events::new(&served.address);
    assert_eq!(events.next().expect("the first comes at once")["status"], Value::Null);
    assert_eq!(served.end(Signal::TERM), Some(143));
}

/// A plan waits for a lock, and behind it so many ask for histories that there is no room
/// for more.
#[test]
fn who_steers_does_not_wait_behind_who_asks() {
    let database = Database::new("serve_asked");
    let backfill = "[[backfill]]\nname = \"one more\"\n\
                    postgres = { table = \"t\", set = \"n = n + 1\" }\n";
    let mut files = USERS.to_vec();
    files.push(("002-more/migration.toml", backfill));
    let project = Project::new(&database.postgres_url, &database.mongo_uri, &files);
    assert_eq!(project.run(&["up", "--to", "1"]).code, Some(0));
    sql(&database.postgres_url, "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL);");
    let served = project.serve(&["--allow-control"]);
    served.until("it to be ready", "/health/ready", |answer| answer.status == 200);
    let config = database.postgres_url.parse().expect("a URL");
    let lock = session::session(&config, "BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE");
    let busy = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| served.get("/api/plan"));
        let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted \
                     AND relation = 't'::regclass";
        until("the plan to wait", || number(&database.postgres_url, waits) == 1);
        for version in 1..=40 {
            let (served, busy) = (&served, &busy);
            scope.spawn(move || {
                let answer = served.get(&format!("/api/history?version={version}"));
                let is_busy = answer.status != 200 && answer.code() == "BUSY";
                busy.fetch_add(usize::from(is_busy), Ordering::SeqCst);
            });
        }
        until("the desk to be full", || busy.load(Ordering::SeqCst) > 0);
        let paused = served.post("/api/backfills/pause", "{\"reason\":\"lunch\"}");
        assert_eq!((paused.status, &paused.json()["paused"]), (200, &json!(true)));
        drop(lock);
    });
    assert_eq!(served.post("/api/backfills/resume", "{}").json()["paused"], false);
}

#[test]
fn only_who_has_the_token_steers_and_only_where_that_is_allowed() {
    let database = Database::new("serve_token");
    let project = Project::new(&database.postgres_url, &database.mongo_uri, &USERS);
    let closed = project.serve(&[]);
    for what in ["pause", "resume", "speed"] {
        assert_eq!(closed.post(&format!("/api/backfills/{what}"), "{}").status, 404);
    }
    drop(closed);

    let served = project.serve(&["--allow-control"]);
    let path = "/api/backfills/pause";
    let json = "Content-Type: application/json\r\n";
    let nearly = &SECRET[..SECRET.len() - 1];
    for head in [
        String::new(),
        format!("Authorization: Bearer {nearly}\r\n"),
        format!("Authorization: Bearer {SECRET}x\r\n"),
        format!("Authorization: Basic {SECRET}\r\n"),
        "Authorization: Bearer \r\n".to_owned(),
    ] {
        let answer = served.ask("POST", path, &format!("{head}{json}"), "{}");
        assert_eq!((answer.status, answer.code().as_str()), (401, "UNAUTHORIZED"));
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
    let token = format!("Authorization: Bearer {SECRET}\r\n");
    let form = format!("{token}Content-Type: text/plain\r\n");
    assert_eq!(served.ask("POST", path, &form, "{}").status, 415);
    assert_eq!(served.post(path, "{").code(), "BAD_BODY");
    assert_eq!(served.post("/api/backfills/speed", "{\"factor\":1000}").code(), "BAD_BODY");
    assert_eq!(served.post("/api/backfills/stop", "{}").code(), "NOT_FOUND");
    assert_eq!(served.post(path, &format!("{{\"reason\":\"{}\"}}", "x".repeat(5000))).status, 413);
    served.until("it to be ready", "/health/ready", |answer| answer.status == 200);
    assert_eq!(served.post(path, "{}").code(), "NEVER_MIGRATED");
    let foreign = http::ask(&served.address, "GET", "/api/status", "", "").expect("an answer");
    assert_eq!(foreign.status, 200);
    // As a browser would for a page that gave its name our address.
    let text = "GET /api/status HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    let foreign = http::read(http::open(&served.address, text).expect("it listens")).unwrap();
    assert_eq!((foreign.status, foreign.code().as_str()), (403, "FORBIDDEN"));
}

#[test]
fn there_is_room_for_so_many_and_no_more() {
    let database = Database::new("serve_room");
    let project = Project::new(&database.postgres_url, &database.mongo_uri, &USERS);
    let served = project.serve(&[]);
    let listening: Vec<Events> = (0..64).map(|_| Events::new(&served.address)).collect();
    assert!(listening.iter().all(|events| events.status == 200));
    assert_eq!(Events::new(&served.address).status, 503);
    assert_eq!(served.get("/health/live").status, 200);
    drop(listening);
    until("room for another", || Events::new(&served.address).status == 200);

    let head = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(40_000));
    // Some of it may not even be taken.
    let answer = http::open(&served.address, &head).and_then(http::read);
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 431));

    // Who says nothing takes a place, and no more than one.
    let silent: Vec<_> = (0..256).map(|_| http::open(&served.address, "").unwrap()).collect();
    let turned_away = || {
        let answer = http::ask(&served.address, "GET", "/health/live", "", "");
        answer.is_err() || answer.is_ok_and(|answer| answer.status == 503)
    };
    until("it to be full", turned_away);
    drop(silent);
    until("room again", || !turned_away());
}

#[test]
fn what_it_cannot_serve_with_is_told() {
    let database = Database::new("serve_refused");
    let project = Project::new(&database.postgres_url, &database.mongo_uri, &USERS);
    let code = |arguments: &[&str], expected: &str| {
        let ended = project.run(&[&["serve", "--output", "json"], arguments].concat());
        assert_eq!(ended.code, Some(2), "{}", ended.stdout);
        assert_eq!(ended.json()["code"], expected);
        assert!(!ended.stdout.contains(SECRET), "{}", ended.stdout);
    };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    code(&["--listen", &address], "SERVE_ADDRESS");
    code(&["--listen", "nowhere"], "SERVE_ADDRESS");
    code(&["--allow-control"], "SERVE_TOKEN");
    code(&["--control-token-file", "token"], "SERVE_TOKEN");
    code(&["--allow-control", "--control-token-file", "not-there"], "SERVE_TOKEN");
    let short = project.write("short", "0123456789abcde\n");
    code(&["--allow-control", "--control-token-file", &short], "SERVE_TOKEN");
}
