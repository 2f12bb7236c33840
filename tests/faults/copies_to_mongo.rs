//! Copies from Postgres to MongoDB, killed in the middle: each row is its document,
//! and what is recorded is what is there.

use std::time::{Duration, Instant};

use bson::{Document, doc};
use futures_util::TryStreamExt;

use crate::blocker::number;
use crate::dump::left;
use crate::project::{Project, sql};
use crate::rows::documents;
use crate::support::{Database, block_on};
use crate::time::leases_run_out;
use crate::{backfills, count_up, until};

const ROWS: i64 = 60_000;

/// In batches of so many rows.
fn project(batch: u32, workers: u32) -> Project {
    let manifest = format!(
        r#"[[backfill]]
name = "copy rows"
batch = {batch}
workers = {workers}
copy = {{ from = "postgres", query = "SELECT id AS _id, n, note FROM source", key = "_id", to = "copied" }}
"#
    );
    Project::of(&[("001-copy/migration.toml", &manifest)])
}

/// So many rows, of which a fifth has documents already: some as they should be, some
/// not.
fn source(name: &str, rows: i64) -> Database {
    let database = Database::new(name);
    block_on(async || {
        let table = format!(
            "CREATE TABLE source (id bigint PRIMARY KEY, n bigint NOT NULL, note text); \
             INSERT INTO source SELECT i, i, 'row ' || i FROM generate_series(1, {rows}) AS i"
        );
        sql(&database.postgres_url, &table).await;
        let client = mongodb::Client::with_uri_str(&database.mongo_uri).await.expect("a valid URI");
        let is_equal = doc! { "$eq": [{ "$mod": ["$id", 2] }, 1] };
        let made = vec![
            doc! { "$documents": [{ "id": { "$range": [1, rows + 1, 5] } }] },
            doc! { "$unwind": "$id" },
            doc! { "$project": {
                "_id": { "$toLong": "$id" },
                "n": { "$cond": [is_equal, { "$toLong": "$id" }, -1] },
                "note": { "$concat": ["row ", { "$toString": "$id" }] },
            } },
            doc! { "$out": "copied" },
        ];
        let here = client.default_database().expect("a URI with a database");
        here.aggregate(made).await.expect("the documents are written");
        client.shutdown().immediate(true).await;
    });
    database
}

/// How many documents were right from the beginning.
fn equal(rows: i64) -> i64 {
    (1..=rows).step_by(5).filter(|id| id % 2 == 1).count().try_into().expect("is small")
}

/// Documents that are as they should be.
fn right(database: &Database) -> i64 {
    let filter = doc! { "$expr": { "$and": [
        { "$eq": ["$_id", "$n"] },
        { "$eq": ["$note", { "$concat": ["row ", { "$toString": "$_id" }] }] },
    ] } };
    documents(database, "copied", filter).try_into().expect("is small")
}

/// Keys that were passed and documents that were written, as it is recorded.
fn recorded(database: &Database) -> (i64, i64) {
    block_on(async || {
        let client = mongodb::Client::with_uri_str(&database.mongo_uri).await.expect("a valid URI");
        let here = client.default_database().expect("a URI with a database");
        let steps = here.collection::<Document>("migration_steps");
        let found = steps.find(doc! { "event": "progress" }).await.expect("MongoDB answers");
        let found: Vec<Document> = found.try_collect().await.expect("MongoDB answers");
        client.shutdown().immediate(true).await;
        let passed = |it: &Document| {
            it.get_document("cursor").and_then(|it| it.get_i64("passed")).expect("it has one")
        };
        let rows = |it: &Document| it.get_i64("rows").expect("it has some");
        (found.iter().map(passed).sum(), found.iter().map(rows).sum())
    })
}

/// Waits until what is recorded is what is there: a commit may be under way.
#[track_caller]
fn the_record_agrees(database: &Database, rows: i64, after: &str) {
    let what = format!("the record to agree with the documents: {after}");
    until(&what, || right(database) - equal(rows) == recorded(database).1);
}

/// Fails unless each row has its document, and was passed and written once if it had not.
#[track_caller]
fn each_is_there_and_was_written_once(database: &Database, rows: i64, after: &str) {
    assert_eq!(right(database), rows, "{after}");
    assert_eq!(i64::try_from(documents(database, "copied", doc! {})), Ok(rows), "{after}");
    assert_eq!(recorded(database), (rows, rows - equal(rows)), "{after}");
    assert_eq!(number(&database.postgres_url, "SELECT count(*) FROM source"), rows);
}

/// Kills runs at random moments until there were enough.
fn killed_at_random_moments(workers: u32, wanted: usize) {
    let project = project(1000, workers);
    let up = ["up", "--unthrottled"];
    let measured = source("measured", ROWS);
    let began = Instant::now();
    project.migrate(&measured, &up).succeeds();
    let whole = began.elapsed();
    each_is_there_and_was_written_once(&measured, ROWS, "undisturbed");
    drop(measured);
    let (mut kills, mut in_the_middle, mut databases) = (0, 0, 0);
    while kills < wanted {
        let database = source("random", ROWS);
        databases += 1;
        let mut said = String::new();
        loop {
            let moment = whole.mul_f64(f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 400.0);
            let mut run = project.migrate(&database, &up).start();
            let began = Instant::now();
            while began.elapsed() < moment && !run.is_over() {
                std::thread::park_timeout(Duration::from_millis(1));
            }
            if run.is_over() || kills >= wanted {
                let ended = run.wait();
                assert_eq!(ended.code, Some(0), "{}\nafter {said}", ended.text);
                said = ended.text;
                break;
            }
            said = run.text();
            drop(run);
            kills += 1;
            in_the_middle += usize::from(recorded(&database).1 > 0);
            leases_run_out(&database);
            the_record_agrees(&database, ROWS, &said);
        }
        each_is_there_and_was_written_once(&database, ROWS, &said);
        let mut left = left(&database);
        if said.contains("nothing to do") {
            left.clear();
        }
        assert_eq!(left, "", "{said}");
    }
    eprintln!(
        "{workers} workers: killed {kills} times, {in_the_middle} of them with documents written, on {databases} databases"
    );
    assert!(in_the_middle > 0, "all kills came too early");
}

#[test]
fn a_copy_to_mongo_killed_at_random_moments_writes_each_document_once() {
    killed_at_random_moments(1, backfills::kills_wanted().div_ceil(2));
    killed_at_random_moments(3, backfills::kills_wanted() / 2);
}

#[test]
fn a_copy_to_mongo_killed_at_every_failpoint_writes_each_document_once() {
    const FEW: i64 = 30;
    let project = project(10, 1);
    let trials = count_up(|failpoint| {
        let database = source("copy_killed", FEW);
        let ended = project.migrate(&database, &["up"]).dying_at(failpoint).run();
        if !ended.was_killed() {
            assert_eq!(ended.code, Some(0), "at {failpoint}: {}", ended.text);
            return false;
        }
        the_record_agrees(&database, FEW, &ended.text);
        leases_run_out(&database);
        let again = project.migrate(&database, &["up"]).succeeds();
        let after = format!("{}\nafter {}", again.text, ended.text);
        each_is_there_and_was_written_once(&database, FEW, &after);
        true
    });
    eprintln!("a copy was killed at {trials} failpoints");
    assert!(trials > 30, "{trials} failpoints");
}
