//! The pace of the real binary, on real servers: what stops a backfill, that it
//! says why, and that it goes on.
//!
//! Nothing here says how fast something must be: that a backfill stands still is
//! seen by its keys, over its own reports, and that it waits by the times that the
//! database wrote down, which a busy machine only makes longer.

#[path = "../support/members.rs"]
mod members;
#[path = "../support/session.rs"]
mod session;
#[path = "../support/mod.rs"]
mod support;

mod project;
mod standby;

use bson::{Document, doc};
use members::Members;
use project::{Project, Report};
use standby::Pair;
use std::time::{Duration, Instant};
use support::sql::{number, sql};
use support::wait::until;
use support::{Database, block_on};

/// A table of so many rows that notes when each batch came to its end.
fn table(url: &str, rows: u32) {
    sql(
        url,
        &format!(
            "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL);
             INSERT INTO t SELECT g, 0 FROM generate_series(1, {rows}) AS g;
             CREATE TABLE ended (batch int GENERATED ALWAYS AS IDENTITY, at timestamptz NOT NULL);
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO ended (at) VALUES (clock_timestamp()); RETURN NULL;
             END $$;
             CREATE TRIGGER note AFTER UPDATE ON t FOR EACH STATEMENT EXECUTE FUNCTION note();"
        ),
    );
}

/// One more in each row of `t`, and how fast.
fn one_more(pace: &str) -> Vec<(String, String)> {
    let text = format!(
        "[[backfill]]\nname = \"one more\"\n{pace}\npostgres = {{ table = \"t\", set = \"n = n + 1\" }}\n"
    );
    vec![("001-one-more/migration.toml".to_owned(), text)]
}

#[track_caller]
fn check_once(url: &str, rows: i64) {
    assert_eq!(number(url, "SELECT count(*) FROM t WHERE n = 1"), rows);
    assert_eq!(number(url, "SELECT count(*) FROM t"), rows);
}

/// Between the ends of two batches in a row, the least that passed, in milliseconds.
fn shortest_gap_ms(url: &str) -> i64 {
    number(
        url,
        "SELECT floor(min(gap))::int8 FROM (SELECT 1000 * extract(epoch FROM \
         at - lag(at) OVER (ORDER BY batch)) AS gap FROM ended) AS g",
    )
}

fn batches(url: &str) -> i64 {
    number(url, "SELECT count(*) FROM ended")
}

/// The first number with a point in a text: `a standby is 1.4 s behind`.
fn seconds(text: &str) -> f64 {
    let mut words = text.split_whitespace().filter(|word| word.contains('.'));
    words.find_map(|word| word.parse().ok()).expect("it says how many seconds")
}

#[test]
fn a_standby_that_stops_stops_the_backfill_until_it_goes_on_or_is_gone() {
    let mut pair = Pair::start();
    let other = Database::new("standby_mongo");
    let url = pair.url.clone();
    table(&url, 10_000);
    let project = Project::new(&one_more("batch = 50\npause = \"20ms\""));
    project.configure("[throttle]\nmax_replication_lag = \"1s\"\n");
    let mut run = project.start(&url, &other.mongo_uri, &["up", "--output", "json"]);
    run.until("it to begin", |report| report.passed > 0);

    pair.pause();
    let behind = |report: &Report| {
        report.state == "stopped" && report.reason.contains("behind (limit 1.0 s)")
    };
    let stopped = run.until("it to stop", behind);
    // A batch may have been under way when it was decided.
    let first = run.until("the next report", |report| report.number > stopped.number);
    let second = run.until("one more", |report| report.number > first.number + 1);
    for report in [&first, &second] {
        assert!(behind(report), "{report:?}");
        assert!(report.passed <= stopped.passed + 50, "{report:?} after {stopped:?}");
    }
    assert_eq!(first.passed, second.passed, "it stands still");
    assert!(seconds(&second.reason) > seconds(&first.reason), "nothing is written meanwhile");

    pair.resume();
    let on = run.until("it to go on", |report| report.passed > second.passed);
    assert_ne!(on.state, "stopped", "{on:?}");

    pair.pause();
    let stopped =
        run.until("it to stop again", |report| report.number > on.number && behind(report));
    pair.end_standby();
    run.until("it to go on without a standby", |report| report.passed > stopped.passed + 50);
    project.start(&url, &other.mongo_uri, &["backfill", "speed", "100"]).succeeds();
    let ended = run.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.text);
    assert!(!ended.text.contains("has not told"), "{}", ended.text);
    check_once(&url, 10_000);
}

#[test]
fn a_secondary_that_stops_stops_the_backfill_until_it_goes_on() {
    let set = Members::two();
    let database = Database::new("secondary");
    let mongo = set.uri(&database.name);
    let fill = |mongo: &str| {
        block_on(async || {
            let client = mongodb::Client::with_uri_str(mongo).await.expect("a valid URI");
            let all = client.default_database().expect("it is named").collection::<Document>("c");
            let documents = (0..2_000).map(|id| doc! { "_id": id, "n": 0 });
            all.insert_many(documents).await.expect("MongoDB answers");
            client.shutdown().immediate(true).await;
        });
    };
    fill(&mongo);
    let text = "[[backfill]]\nname = \"one more\"\nbatch = 10\npause = \"50ms\"\n\
                mongo = { collection = \"c\", update = \"{ $inc: { n: 1 } }\" }\n";
    let project = Project::new(&[("001-one-more/migration.toml".to_owned(), text.to_owned())]);
    project.configure("[throttle]\nmax_replication_lag = \"1s\"\n");
    let mut run = project.start(&database.postgres_url, &mongo, &["up", "--output", "json"]);
    run.until("it to begin", |report| report.passed > 0);

    // It goes on voting, and takes nothing any more.
    set.ask(1, doc! { "fsync": 1, "lock": true }).expect("it locks");
    let behind = |report: &Report| {
        report.state == "stopped" && report.reason.contains("MongoDB: the majority is")
    };
    let stopped = run.until("it to stop", behind);
    let first = run.until("the next report", |report| report.number > stopped.number);
    let second = run.until("one more", |report| report.number > first.number + 1);
    assert!(behind(&first) && behind(&second), "{first:?} {second:?}");
    assert!(second.passed <= stopped.passed + 10, "{second:?} after {stopped:?}");
    assert!(seconds(&second.reason) > seconds(&first.reason), "{first:?} {second:?}");

    set.ask(1, doc! { "fsyncUnlock": 1 }).expect("it unlocks");
    run.until("it to go on", |report| report.passed > second.passed + 10);
    project.start(&database.postgres_url, &mongo, &["backfill", "speed", "100"]).succeeds();
    let ended = run.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.text);
    let once = block_on(async || {
        let client = mongodb::Client::with_uri_str(&mongo).await.expect("a valid URI");
        let all = client.default_database().expect("it is named").collection::<Document>("c");
        let once = all.count_documents(doc! { "n": 1 }).await.expect("MongoDB answers");
        client.shutdown().immediate(true).await;
        once
    });
    assert_eq!(once, 2_000);
}

#[test]
fn whoever_waits_for_a_batch_is_seen_and_let_through() {
    let database = Database::new("waits");
    let url = &database.postgres_url;
    table(url, 400);
    // The second batch takes until the test lets it go.
    sql(
        url,
        "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             PERFORM pg_advisory_xact_lock(42); RETURN NEW;
         END $$;
         CREATE TRIGGER hold BEFORE UPDATE ON t FOR EACH ROW
             WHEN (NEW.id = 150 AND current_setting('lockstep.backfill', true) = 'on')
             EXECUTE FUNCTION hold();",
    );
    let holder = project::Foreign::new(url, "SELECT pg_advisory_lock(42)");
    let mut files = one_more("batch = 100");
    files[0].1.insert_str(0, "[timeouts]\nlock = \"100s\"\n");
    let project = Project::new(&files);
    let mut run = project.start(url, &database.mongo_uri, &["up", "--output", "json"]);
    let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    until("the batch to be held", || number(url, waiting) == 1);
    let application = project::Foreign::starting(url, "UPDATE t SET n = n WHERE id = 101");
    let stopped = run.until("it to be seen", |report| {
        report.state == "stopped" && report.reason.contains("a session has waited for us for")
    });
    assert_eq!(stopped.passed, 100, "{stopped:?}");
    drop(holder);
    application.wait();
    let ended = run.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.text);
    check_once(url, 400);
}

#[test]
fn people_pause_it_slow_it_down_and_let_it_go_on_from_another_process() {
    let database = Database::new("people");
    let (url, mongo) = (&database.postgres_url, &database.mongo_uri);
    table(url, 4_000);
    let project = Project::new(&one_more("batch = 20\npause = \"30ms\""));
    let mut run = project.start(url, mongo, &["up", "--output", "json"]);
    run.until("it to begin", |report| report.passed > 0);

    project.start(url, mongo, &["backfill", "pause", "--reason", "lunch"]).succeeds();
    let before = batches(url);
    let paused = |report: &Report| report.state == "stopped" && report.reason == "paused: lunch";
    let first = run.until("it to say so", paused);
    let second = run.until("it to stand still", |report| report.number > first.number + 2);
    assert!(paused(&second), "{second:?}");
    assert!(batches(url) <= before + 1, "{} batches after {before}", batches(url));
    let status = project.start(url, mongo, &["backfill", "status", "--output", "json"]).succeeds();
    let status = status.objects().pop().expect("one object");
    assert_eq!((&status["paused"], &status["reason"]), (&true.into(), &"lunch".into()));
    assert_eq!(status["backfills"][0]["passed"], second.passed);
    assert_eq!(status["backfills"][0]["estimate"], 4_000);

    project.start(url, mongo, &["backfill", "speed", "0.5"]).succeeds();
    project.start(url, mongo, &["backfill", "resume"]).succeeds();
    let slow = run.until("it to go on", |report| report.passed > second.passed + 100);
    assert_eq!(slow.state, "slow", "{slow:?}");
    // A busy machine may be a reason of its own.
    assert!(slow.reason.starts_with("speed 0.5 was asked for"), "{slow:?}");
    // Half as fast is twice the pause; the first batch after it had none.
    let all = number(url, "SELECT max(batch) FROM ended");
    sql(url, &format!("DELETE FROM ended WHERE batch < {all}"));
    run.until("more of it", |report| report.passed > slow.passed + 100);
    let gap = shortest_gap_ms(url);
    assert!(gap >= 60, "{gap} ms between two batches");

    project.start(url, mongo, &["backfill", "speed", "100"]).succeeds();
    let ended = run.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.text);
    check_once(url, 4_000);
}

#[test]
fn a_pause_and_a_rate_are_kept() {
    let database = Database::new("kept");
    let (url, mongo) = (&database.postgres_url, &database.mongo_uri);
    table(url, 200);
    let project = Project::new(&one_more("batch = 20\npause = \"100ms\""));
    project.start(url, mongo, &["up"]).succeeds();
    check_once(url, 200);
    assert!(batches(url) >= 10);
    let gap = shortest_gap_ms(url);
    assert!(gap >= 100, "{gap} ms between two batches");

    let rated = Database::new("rated");
    table(&rated.postgres_url, 400);
    let project = Project::new(&one_more("batch = 20\nrate = 100"));
    let began = Instant::now();
    project.start(&rated.postgres_url, &rated.mongo_uri, &["up"]).succeeds();
    // The last batch need not be waited for.
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(3_800), "400 rows at 100 per second took {took:?}");
    check_once(&rated.postgres_url, 400);
}

#[test]
fn outside_of_its_window_it_stands_still_unless_unthrottled() {
    let database = Database::new("window");
    let (url, mongo) = (&database.postgres_url, &database.mongo_uri);
    table(url, 500);
    let project = Project::new(&one_more(""));
    let hours = |hours: i64| {
        (chrono::Utc::now() + chrono::Duration::hours(hours)).format("%H:00").to_string()
    };
    let window = format!("{}-{}", hours(3), hours(4));
    project.configure(&format!("[throttle]\nwindow = \"{window}\"\n"));
    let mut run = project.start(url, mongo, &["up", "--output", "json"]);
    let why = format!("outside of its window {window}");
    let first = run.until("it to say so", |report| report.reason == why);
    let second = run.until("and again", |report| report.number > first.number + 1);
    assert_eq!((second.state.as_str(), second.passed), ("stopped", 0));
    run.interrupt();
    let ended = run.wait();
    assert_ne!(ended.code, Some(0), "{}", ended.text);
    assert_eq!(batches(url), 0);
    project.start(url, mongo, &["up", "--unthrottled"]).succeeds();
    check_once(url, 500);
}

#[test]
fn what_is_not_there_to_be_watched_is_told_to_programs_and_to_who_wants_to_know() {
    let told = |arguments: &[&str]| {
        let database = Database::new("told");
        table(&database.postgres_url, 10);
        let project = Project::new(&one_more(""));
        project.start(&database.postgres_url, &database.mongo_uri, arguments).succeeds().text
    };
    assert!(!told(&["up"]).contains("not watched"));
    let verbose = told(&["up", "-v"]);
    assert!(
        verbose.contains("not watched: Postgres replication lag: there is no standby"),
        "{verbose}"
    );
    let json = told(&["up", "--output", "json"]);
    assert!(json.contains("Postgres replication lag: there is no standby"), "{json}");
}
