//! What a copy from Postgres to MongoDB costs: documents per second of `migrate up
//! --unthrottled`, beside inserting the same documents, ready-made, and nothing else;
//! and beside the script that somebody would write, in Python with psycopg and pymongo.
//! Into an empty collection, onto what is there already, and where a tenth of that
//! differs. And how much memory the program takes.
//!
//! `cargo bench --bench copy_to_mongo [ROWS]`; the script needs `python3` with `venv`,
//! and PyPI.

#[path = "../tests/support/mod.rs"]
mod support;
mod timed;

use bson::{Document, RawDocumentBuf, doc};
use futures_util::{StreamExt, TryStreamExt, stream};
use mongodb::Collection;
use std::time::Instant;
use timed::{execute, median};

/// So often each is measured, in turns; the median counts.
const ROUNDS: usize = 3;

/// Ready-made documents are inserted so many at a time, and the script writes as many.
const BATCH: usize = 1_000;

const QUERY: &str =
    "SELECT id AS _id, email, name, score, amount, active, created_at, note, settings FROM t";

const FILL: &str = "CREATE TABLE t (id bigint PRIMARY KEY, email text NOT NULL, name text NOT NULL, \
    score double precision, amount numeric(12,2), active boolean NOT NULL, \
    created_at timestamptz NOT NULL, note text, settings jsonb); \
    INSERT INTO t SELECT i, 'user' || i || '@example.org', 'Ada Lovelace the ' || i || 'th', \
    i / 7.0, i % 5000 + (i % 100) / 100.0, i % 2 = 0, \
    '2017-07-14T02:40:00Z'::timestamptz + i * interval '61.007 s', \
    CASE i % 3 WHEN 0 THEN NULL ELSE 'note ' || i || ': ' || repeat('x', i % 120) END, \
    jsonb_build_object('theme', 'dark', 'digest', i % 7) FROM generate_series(1, $ROWS) AS i; \
    ANALYZE t";

fn main() {
    let asked = std::env::args().find_map(|word| word.parse().ok());
    let rows: u32 = asked.unwrap_or(1_000_000);
    let python = timed::python();
    let mut figures: Vec<(&str, Vec<f64>)> = [
        "insert_many alone, ready-made",
        "insert_many alone, two in flight",
        "migrate up --unthrottled, empty collection",
        "the same with workers = 1",
        "the same again: nothing differs",
        "the same again: a tenth differs",
        "a script in Python, empty collection",
        "a script in Python, upserts",
    ]
    .map(|what| (what, Vec::new()))
    .into();
    let mut peak = 0;
    for _ in 0..ROUNDS {
        let database = support::Database::new("bench");
        let fill = FILL.replace("$ROWS", &rows.to_string());
        support::block_on(async || execute(&database, &fill).await);
        let mut add = |at: usize, took: f64| figures[at].1.push(f64::from(rows) / took);
        let ran = migrate(&database, 1);
        peak = peak.max(ran.resident);
        add(2, ran.seconds);
        assert_eq!(support::block_on(async || count(&database, "c").await), u64::from(rows));
        add(4, migrate(&database, 2).seconds);
        let differ = "UPDATE t SET note = 'changed' WHERE id % 10 = 0";
        support::block_on(async || execute(&database, differ).await);
        add(5, migrate(&database, 3).seconds);
        add(3, migrate(&database, 4).seconds);
        assert_eq!(support::block_on(async || count(&database, "d").await), u64::from(rows));
        let ready = support::block_on(async || ready_made(&database).await);
        add(0, support::block_on(async || insert(&database, "e", &ready, 1).await));
        add(1, support::block_on(async || insert(&database, "f", &ready, 2).await));
        if let Some(python) = &python {
            let size = BATCH.to_string();
            for (at, how) in [(6, "insert"), (7, "upsert")] {
                add(at, timed::script(python, SCRIPT, &[how, &size, QUERY], &database));
            }
        }
    }
    let bare = median(figures[0].1.clone()).unwrap_or(1.0);
    println!(
        "{rows} rows, documents/s, median of {ROUNDS}, and how much that is of insert_many alone:"
    );
    for (what, figures) in figures {
        match median(figures) {
            Some(figure) => println!("{what:<44} {figure:>9.0}  {:.2}", figure / bare),
            None => println!("{what:<44} not measured: psycopg and pymongo are not to be had"),
        }
    }
    println!("at most {:.1} MB resident", timed::megabytes(peak));
}

async fn collection<T: Send + Sync>(database: &support::Database, name: &str) -> Collection<T> {
    let client = mongodb::Client::with_uri_str(&database.mongo_uri).await.expect("a URI");
    client.database(&database.name).collection(name)
}

async fn count(database: &support::Database, name: &str) -> u64 {
    let all = collection::<Document>(database, name).await;
    all.count_documents(doc! {}).await.expect("MongoDB answers")
}

/// Up to the migration of this number: the first three copy into one collection, the
/// fourth into another.
fn migrate(database: &support::Database, upto: usize) -> timed::Ran {
    let names = ["002-copy", "003-again", "004-changed", "005-alone"];
    let migrations = names.map(|name| {
        let (to, workers) = if name == "005-alone" { ("d", "workers = 1\n") } else { ("c", "") };
        let manifest = format!(
            "[[backfill]]\nname = \"rows\"\n{workers}\
             copy = {{ from = \"postgres\", query = \"{QUERY}\", key = \"_id\", to = \"{to}\" }}\n"
        );
        (name, manifest)
    });
    timed::up(database, &migrations[..upto])
}

/// The documents as they were copied.
async fn ready_made(database: &support::Database) -> Vec<RawDocumentBuf> {
    let all = collection::<RawDocumentBuf>(database, "c").await;
    let found = all.find(doc! {}).sort(doc! { "_id": 1 }).await.expect("MongoDB answers");
    found.try_collect().await.expect("to the end")
}

async fn insert(
    database: &support::Database,
    name: &str,
    ready: &[RawDocumentBuf],
    in_flight: usize,
) -> f64 {
    execute(database, "CHECKPOINT").await;
    let all = collection::<RawDocumentBuf>(database, name).await;
    let began = Instant::now();
    let batches = stream::iter(ready.chunks(BATCH));
    let batches = batches.map(|batch| all.insert_many(batch).into_future());
    batches
        .buffer_unordered(in_flight)
        .try_for_each(async |_| Ok(()))
        .await
        .expect("they are inserted");
    began.elapsed().as_secs_f64()
}

const SCRIPT: &str = r#"
import decimal, os, sys
import psycopg, pymongo
from bson.decimal128 import Decimal128
from psycopg.rows import dict_row

how, size, query = sys.argv[1], int(sys.argv[2]), sys.argv[3]
source = psycopg.connect(os.environ["DATABASE_URL"], row_factory=dict_row)
target = pymongo.MongoClient(os.environ["MONGODB_URI"]).get_default_database()["script"]

def document(row):
    for name, value in row.items():
        if isinstance(value, decimal.Decimal): row[name] = Decimal128(value)
    return row

with source.cursor(name="rows") as cursor:
    cursor.itersize = size
    cursor.execute(query + " ORDER BY id")
    while rows := cursor.fetchmany(size):
        documents = [document(row) for row in rows]
        if how == "insert":
            target.insert_many(documents)
        else:
            target.bulk_write([pymongo.ReplaceOne({"_id": d["_id"]}, d, upsert=True) for d in documents])
"#;
