//! Copies from MongoDB to Postgres, killed in the middle: each row is written once,
//! and what is recorded is what is there.
//!
//! A trigger of the table counts what is written, in the transaction that writes it.

use bson::doc;

use crate::exact::{Work, killed_at_every_failpoint, killed_at_random_moments};
use crate::project::Project;
use crate::support::sql::{number, sql};
use crate::support::{Database, block_on};

/// Two rows of each document, some of which are there already.
struct Copy;

impl Work for Copy {
    const NAME: &str = "a copy to Postgres";
    const ROWS: i64 = 60_000;

    fn project(batch: u32, workers: u32) -> Project {
        project(batch, workers)
    }

    fn database(name: &str, documents: i64) -> Database {
        source(name, documents)
    }

    fn written(database: &Database) -> i64 {
        written(database)
    }

    #[track_caller]
    fn check_record(database: &Database, _documents: i64, after: &str) {
        the_record_agrees(database, after);
    }

    #[track_caller]
    fn check(database: &Database, documents: i64, after: &str) {
        each_is_there_and_was_written_once(database, documents, after);
    }
}

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
        sql(&database.postgres_url, &table);
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

#[test]
fn a_copy_to_postgres_killed_at_random_moments_writes_each_row_once() {
    killed_at_random_moments::<Copy>();
}

#[test]
fn a_copy_to_postgres_killed_at_every_failpoint_writes_each_row_once() {
    killed_at_every_failpoint::<Copy>();
}
