//! Copies from MongoDB to Postgres, killed in the middle: each row is written once,
//! and what is recorded is what is there.
//!
//! A trigger of the table counts what is written, in the transaction that writes it.

use std::time::{Duration, Instant};

use bson::doc;

use crate::blocker::number;
use crate::dump::left;
use crate::project::{Project, sql};
use crate::support::{Database, block_on};
use crate::time::leases_run_out;
use crate::{backfills, count_up};

const DOCUMENTS: i64 = 60_000;

/// Two rows of each document, in batches of this many documents.
fn project(batch: u32, workers: u32) -> Project {
    let manifest = format!(
        r#"[[backfill]]
name = "copy documents"
batch = {batch}
workers = {workers}
[backfill.copy]
from = "mongo"
collection = "source"
pipeline = """[
  {{ $set: {{ line: [0, 1] }} }},
  {{ $unwind: "$line" }},
  {{ $set: {{ id: "$_id" }} }},
  {{ $unset: "_id" }},
]"""
to = "copied"
key = ["id", "line"]
"#
    );
    Project::of(&[("001-copy/migration.toml", &manifest)])
}

/// So many documents, of which a fifth has rows already: some as they should be,
/// some not.
fn source(name: &str, documents: i64) -> Database {
    let database = Database::new(name);
    block_on(async || {
        let table = format!(
            "CREATE TABLE copied (id bigint, line int, n bigint NOT NULL, PRIMARY KEY (id, line));
             CREATE TABLE written (id bigint, line int);
             INSERT INTO copied SELECT i, 1, i % 2 * i FROM generate_series(1, {documents}, 5) AS i;
             CREATE FUNCTION count_it() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO written VALUES (new.id, new.line); RETURN new; END $$;
             CREATE TRIGGER count_it AFTER INSERT OR UPDATE ON copied
             FOR EACH ROW EXECUTE FUNCTION count_it()"
        );
        sql(&database.postgres_url, &table).await;
        let client = mongodb::Client::with_uri_str(&database.mongo_uri).await.expect("a valid URI");
        let made = vec![
            doc! { "$documents": [{ "id": { "$range": [1, documents + 1] } }] },
            doc! { "$unwind": "$id" },
            doc! { "$project": { "_id": "$id", "n": "$id" } },
            doc! { "$out": "source" },
        ];
        let here = client.default_database().expect("a URI with a database");
        here.aggregate(made).await.expect("the documents are written");
        client.shutdown().immediate(true).await;
    });
    database
}

/// Rows that were written so far.
fn written(database: &Database) -> i64 {
    number(&database.postgres_url, "SELECT count(*) FROM written")
}

/// Fails unless what is recorded is what was written.
#[track_caller]
fn the_record_agrees(database: &Database, after: &str) {
    let url = &database.postgres_url;
    if number(url, "SELECT count(to_regclass('migration_steps'))") == 0 {
        assert_eq!(written(database), 0, "{after}");
        return;
    }
    let apart = "SELECT (SELECT count(*) FROM written) - (SELECT coalesce(sum(rows), 0)::bigint \
                 FROM migration_steps WHERE event = 'progress')";
    assert_eq!(number(url, apart), 0, "rows written and not recorded: {after}");
}

/// Fails unless each row is there, as it should be, and was written once if it was not.
#[track_caller]
fn each_is_there_and_was_written_once(database: &Database, documents: i64, after: &str) {
    let url = &database.postgres_url;
    let wrong = "SELECT count(*) FROM copied WHERE n <> id OR line NOT IN (0, 1)";
    assert_eq!(number(url, wrong), 0, "{after}");
    assert_eq!(number(url, "SELECT count(*) FROM copied"), 2 * documents, "{after}");
    let twice =
        "SELECT count(*) FROM (SELECT FROM written GROUP BY id, line HAVING count(*) > 1) AS t";
    assert_eq!(number(url, twice), 0, "rows that were written twice: {after}");
    let equal = "SELECT count(*) FROM generate_series(1, $$, 5) AS i WHERE i % 2 = 1";
    let equal = number(url, &equal.replace("$$", &documents.to_string()));
    assert_eq!(written(database), 2 * documents - equal, "{after}");
    the_record_agrees(database, after);
}

/// Kills runs at random moments until there were enough.
fn killed_at_random_moments(workers: u32, wanted: usize) {
    let project = project(1000, workers);
    let up = ["up", "--unthrottled"];
    let measured = source("measured", DOCUMENTS);
    let began = Instant::now();
    project.migrate(&measured, &up).succeeds();
    let whole = began.elapsed();
    each_is_there_and_was_written_once(&measured, DOCUMENTS, "undisturbed");
    drop(measured);
    let (mut kills, mut in_the_middle, mut databases) = (0, 0, 0);
    while kills < wanted {
        let database = source("random", DOCUMENTS);
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
            in_the_middle += usize::from(written(&database) > 0);
            leases_run_out(&database);
            the_record_agrees(&database, &said);
        }
        each_is_there_and_was_written_once(&database, DOCUMENTS, &said);
        let mut left = left(&database);
        if said.contains("nothing to do") {
            left.clear();
        }
        assert_eq!(left, "", "{said}");
    }
    eprintln!(
        "{workers} workers: killed {kills} times, {in_the_middle} of them with rows written, on {databases} databases"
    );
    assert!(in_the_middle > 0, "all kills came too early");
}

#[test]
fn a_copy_to_postgres_killed_at_random_moments_writes_each_row_once() {
    killed_at_random_moments(1, backfills::kills_wanted().div_ceil(2));
    killed_at_random_moments(3, backfills::kills_wanted() / 2);
}

#[test]
fn a_copy_to_postgres_killed_at_every_failpoint_writes_each_row_once() {
    const FEW: i64 = 30;
    let project = project(10, 1);
    let trials = count_up(|failpoint| {
        let database = source("copy_killed", FEW);
        let ended = project.migrate(&database, &["up"]).dying_at(failpoint).run();
        if !ended.was_killed() {
            assert_eq!(ended.code, Some(0), "at {failpoint}: {}", ended.text);
            return false;
        }
        the_record_agrees(&database, &ended.text);
        leases_run_out(&database);
        let again = project.migrate(&database, &["up"]).succeeds();
        each_is_there_and_was_written_once(
            &database,
            FEW,
            &format!("{}\nafter {}", again.text, ended.text),
        );
        true
    });
    eprintln!("a copy was killed at {trials} failpoints");
    assert!(trials > 30, "{trials} failpoints");
}
