//! Runs that meet each other, runs that die, runs that are told to stop.

use serde_json::Value;

use crate::project::{Project, Running, until};
use crate::session::session;

/// Two migrations with every kind of step.
const FILES: [(&str, &str); 8] = [
    ("001-users/up.sql", "CREATE TABLE users (id integer);\nINSERT INTO users VALUES (1);"),
    ("001-users/down.sql", "DROP TABLE users;"),
    ("001-users/up.mongodb.js", "db.createCollection(\"users\");\ndb.users.insertOne({ n: 1 });"),
    ("001-users/down.mongodb.js", "db.users.drop();"),
    ("002-index/up.sql", "CREATE INDEX CONCURRENTLY users_id ON users (id);"),
    ("002-index/down.sql", "DROP INDEX CONCURRENTLY users_id;"),
    ("002-index/up.mongodb.js", "db.users.createIndex({ n: 1 }, { name: \"n\" });"),
    ("002-index/down.mongodb.js", "db.users.dropIndex(\"n\");"),
];

/// What is recorded of the steps, in both stores.
fn recorded(project: &Project, event: &str) -> Vec<String> {
    let mut steps = project.database.sql(&format!(
        "SELECT version || ' ' || step FROM migration_steps WHERE event = '{event}' ORDER BY 1"
    ));
    let mut of_mongo: Vec<String> = project
        .database
        .documents("migration_steps")
        .iter()
        .filter(|record| record.get_str("event").is_ok_and(|it| it == event))
        .map(|record| {
            let version = record.get_i64("version").expect("a number");
            format!("{version} {}", record.get_str("step").expect("a name"))
        })
        .collect();
    of_mongo.sort();
    steps.extend(of_mongo);
    steps
}

const ALL: [&str; 5] =
    ["1 up/postgres/1", "2 up/postgres/1", "1 up/mongo/1", "1 up/mongo/2", "2 up/mongo/1"];

#[test]
fn of_ten_at_once_one_does_it_and_the_others_find_it_done() {
    let project = Project::new("ten", &FILES);
    let runs: Vec<Running> = (0..10).map(|_| project.start(&["up"])).collect();
    let ended: Vec<_> = runs.into_iter().map(Running::end).collect();
    let did = ended.iter().filter(|ran| ran.stderr.contains("applied 2 migrations in")).count();
    for ran in &ended {
        assert_eq!(ran.code, 0, "{ran}");
    }
    assert_eq!(did, 1);
    let found = ended.iter().filter(|ran| ran.stderr.contains("nothing to do")).count();
    assert_eq!(found, 9);

    assert_eq!(recorded(&project, "applied"), ALL);
    assert_eq!(project.database.sql("SELECT * FROM users"), ["1"]);
    assert_eq!(project.database.documents("users").len(), 1);
    let history = project.database.history();
    assert_eq!(history.len(), 2);
    assert_eq!(history[0]["run_id"], history[1]["run_id"]);
    assert_eq!(project.database.holders(), Vec::<String>::new());
    let [history] = &project.json(0, &["history"])[..] else { panic!("one object") };
    let runs = history["runs"].as_array().expect("an array");
    let ok: Vec<&Value> = runs.iter().filter(|run| run["outcome"] == "ok").collect();
    assert_eq!(ok.len(), 1, "{history}");
}

#[test]
fn of_five_that_go_down_at_once_one_does_it() {
    let project = Project::new("five", &FILES);
    project.ok(&["up"]);
    let runs: Vec<Running> =
        (0..5).map(|_| project.start(&["down", "--to", "0", "--yes"])).collect();
    let ended: Vec<_> = runs.into_iter().map(Running::end).collect();
    let did = ended.iter().filter(|ran| ran.stderr.contains("reverted 2 migrations in")).count();
    assert_eq!(did, 1);
    for ran in &ended {
        // What was confirmed is not what is left to do, or nothing is.
        assert!([0, 5].contains(&ran.code), "{ran}");
    }
    assert_eq!(project.database.history().len(), 0);
    assert_eq!(project.database.objects(), "");
}

/// Kills a run in the middle of a statement of Postgres.
fn killed_at(project: &Project, statement: &str) -> String {
    let running = project.start(&["up"]);
    let name = format!(
        "SELECT application_name FROM pg_stat_activity WHERE datname = current_database() \
         AND state = 'active' AND pid <> pg_backend_pid() AND query LIKE '{statement}%'"
    );
    until("the statement runs", || !project.database.sql(&name).is_empty());
    let name = project.database.value(&name);
    let ended = running.kill();
    assert_eq!(ended.code(), None, "it was killed");
    name.trim_start_matches("lockstep/").to_owned()
}

/// Waits until the server has noticed that a killed client is gone.
fn until_gone(project: &Project, run: &str) {
    let sql = format!(
        "SELECT 1 FROM pg_stat_activity WHERE application_name = 'lockstep/{run}' \
         AND datname = current_database()"
    );
    until("the sessions of the dead run are gone", || project.database.sql(&sql).is_empty());
}

/// Lets the lease of a dead run run out now, in both stores.
fn let_run_out(project: &Project) {
    runs_out_in(project, -1);
}

/// Lets the lease of a dead run run out in so many seconds, in both stores.
fn runs_out_in(project: &Project, seconds: i64) {
    project.database.sql(&format!(
        "UPDATE migration_control SET expires_at = clock_timestamp() + interval '{seconds} seconds'"
    ));
    project.database.run(bson::doc! {
        "update": "migration_control",
        "updates": [{ "q": { "_id": 1 }, "u": [{ "$set": { "expires_at": {
            "$add": ["$$NOW", seconds * 1000]
        } } }] }],
    });
}

#[test]
fn a_run_that_was_killed_in_a_transaction_is_waited_out_and_done_again() {
    let project = Project::new("killed", &FILES);
    project.write(
        "002-index/up.sql",
        "INSERT INTO users VALUES (2);\nSELECT pg_sleep(2);\nINSERT INTO users VALUES (3);",
    );
    let run = killed_at(&project, "SELECT pg_sleep");
    let waited = project.fails(4, &["up", "--lock-wait", "0s"]);
    assert!(waited.stderr.contains(&run), "it names who holds the lease: {waited}");
    assert!(waited.stderr.contains("next: "), "{waited}");

    // Its lease runs out by itself, and so much earlier than after 30 s.
    runs_out_in(&project, 6);
    let ran = project.ok(&["up"]);
    assert!(ran.stderr.contains("waiting for the lease"), "{ran}");
    assert!(ran.stderr.contains(&format!("run {run} died")), "{ran}");
    assert_eq!(project.database.sql("SELECT id FROM users ORDER BY id"), ["1", "2", "3"]);
    assert_eq!(recorded(&project, "applied"), ALL);
    assert_eq!(project.database.history().len(), 2);
    let outcome = format!("SELECT outcome FROM migration_runs WHERE run_id = '{run}'");
    assert_eq!(project.database.sql(&outcome), ["died"]);
}

#[test]
fn an_index_whose_run_was_killed_is_settled() {
    let project = Project::new("killed_index", &FILES);
    project.ok(&["up", "--to", "1"]);
    // A snapshot from before makes the build wait.
    let holding = hold_snapshot(&project);
    let run = killed_at(&project, "CREATE INDEX CONCURRENTLY");
    let [status] = &project.json(0, &["status"])[..] else { panic!("one object") };
    assert_eq!(status["migrations"][1]["state"], "partial", "{status}");
    assert_eq!(status["lease"]["run_id"], *run);

    // Its client is dead, but the server goes on until it is done.
    drop(holding);
    until_gone(&project, &run);
    let_run_out(&project);
    let plan = project.ok(&["plan"]);
    assert!(plan.stdout.contains("settles: it was interrupted"), "{plan}");
    let ran = project.ok(&["up"]);
    assert!(
        ran.stderr.contains("up/postgres/1 was interrupted; asking Postgres about it"),
        "{ran}"
    );
    assert_eq!(recorded(&project, "applied"), ALL);
    assert!(!project.database.objects().contains("INVALID"));
    assert!(project.database.objects().contains("index CREATE INDEX users_id ON"));
    assert_eq!(project.database.history().len(), 2);
}

#[test]
fn an_index_that_was_left_invalid_is_built_again() {
    let project = Project::new("killed_invalid", &FILES);
    project.ok(&["up", "--to", "1"]);
    let holding = hold_snapshot(&project);
    let run = killed_at(&project, "CREATE INDEX CONCURRENTLY");
    project.database.sql(&format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE application_name = 'lockstep/{run}'"
    ));
    until_gone(&project, &run);
    drop(holding);
    assert!(project.database.objects().contains("INVALID"), "half an index is left");
    let_run_out(&project);

    // Either way: up builds it anew, down removes what is left of it.
    project.ok(&["down", "--yes"]);
    assert!(!project.database.objects().contains("users_id"));
    project.ok(&["up"]);
    assert!(!project.database.objects().contains("INVALID"));
    assert!(project.database.objects().contains("index CREATE INDEX users_id ON"));
    assert_eq!(project.database.history().len(), 2);
}

/// A transaction that is open until the answer is dropped.
fn hold_snapshot(project: &Project) -> impl Drop {
    struct Holding(Option<(tokio::runtime::Runtime, tokio_postgres::Client)>);
    impl Drop for Holding {
        fn drop(&mut self) {
            let (runtime, client) = self.0.take().expect("dropped once");
            runtime.block_on(client.batch_execute("COMMIT")).expect("it can be ended");
        }
    }
    let config = project.database.postgres_url.parse().expect("a URL");
    let open = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM users";
    let (runtime, client) = session(&config, open);
    Holding(Some((runtime, client)))
}

#[test]
fn a_signal_stops_between_two_steps_and_up_goes_on() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let project = Project::new("signal", &FILES);
        project.write("001-users/up.sql", "CREATE TABLE users (id integer);\nSELECT pg_sleep(1);");
        let running = project.start(&["up", "--output", "json"]);
        let asleep = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() \
             AND query LIKE 'SELECT pg_sleep%' AND state = 'active'";
        until("the statement runs", || !project.database.sql(asleep).is_empty());
        running.signal(signal);
        let ran = running.end();
        assert_eq!(ran.code, code, "{ran}");
        let last = ran.objects().pop().expect("not empty");
        assert_eq!(last["event"], "run_finished", "{ran}");
        assert_eq!(last["outcome"], "interrupted", "{ran}");
        assert_eq!(last["exit_code"], code, "{ran}");

        assert_eq!(recorded(&project, "applied"), ["1 up/postgres/1"], "the step was finished");
        assert_eq!(project.database.holders(), Vec::<String>::new());
        project.ok(&["up"]);
        assert_eq!(recorded(&project, "applied"), ALL);
        assert_eq!(project.database.history().len(), 2);
    }
}

#[test]
fn a_run_that_is_out_of_time_stops_between_two_steps() {
    let project = Project::new("timeout", &FILES);
    // Whoever is busy needs a while to get to the first step.
    project.write("001-users/up.sql", "CREATE TABLE users (id integer);\nSELECT pg_sleep(6);");
    let ran = project.fails(8, &["up", "--timeout", "5s"]);
    assert!(ran.stderr.contains("--timeout") && ran.stderr.contains("next: "), "{ran}");
    assert_eq!(recorded(&project, "applied"), ["1 up/postgres/1"]);
    project.ok(&["up", "--timeout", "10m"]);
    assert_eq!(recorded(&project, "applied"), ALL);
    assert_eq!(project.database.history().len(), 2);
}
