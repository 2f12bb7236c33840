//! Copies from Postgres to MongoDB, killed in the middle: each row is its document,
//! and what is recorded is what is there.

use bson::{Document, doc};
use futures_util::TryStreamExt;

use crate::exact::{Work, killed_at_every_failpoint, killed_at_random_moments};
use crate::project::Project;
use crate::rows::documents;
use crate::support::sql::{number, sql};
use crate::support::wait::until;
use crate::support::{Database, block_on};

/// All rows of a table, some of which have documents already.
struct Copy;

impl Work for Copy {
    const NAME: &str = "a copy to MongoDB";
    const ROWS: i64 = 60_000;

    fn project(batch: u32, workers: u32) -> Project {
        project(batch, workers)
    }

    fn database(name: &str, rows: i64) -> Database {
        source(name, rows)
    }

    fn written(database: &Database) -> i64 {
        recorded(database).1
    }

    #[track_caller]
    fn check_record(database: &Database, rows: i64, after: &str) {
        the_record_agrees(database, rows, after);
    }

    #[track_caller]
    fn check(database: &Database, rows: i64, after: &str) {
        each_is_there_and_was_written_once(database, rows, after);
    }
}

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
        sql(&database.postgres_url, &table);
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

#[test]
fn a_copy_to_mongo_killed_at_random_moments_writes_each_document_once() {
    killed_at_random_moments::<Copy>();
}

#[test]
fn a_copy_to_mongo_killed_at_every_failpoint_writes_each_document_once() {
    killed_at_every_failpoint::<Copy>();
}
