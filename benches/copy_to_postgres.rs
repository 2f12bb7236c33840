//! What a copy from MongoDB to Postgres costs: rows per second of `migrate up
//! --unthrottled`, beside `COPY` alone, of the same rows, ready-made in binary, into
//! the same kind of table; and beside the script that somebody would write, in Python
//! with pymongo and psycopg. And how much memory the program takes.
//!
//! `cargo bench --bench copy_to_postgres [ROWS]`; the script needs `python3` with
//! `venv`, and PyPI.

#[path = "../tests/support/mod.rs"]
mod support;
mod timed;

use bson::{Bson, DateTime, Document, doc};
use futures_util::{SinkExt, TryStreamExt, pin_mut};
use std::io::Cursor;
use std::path::Path;
use std::time::Instant;
use timed::{execute, postgres};

/// So often each is measured, in turns; the median counts.
const ROUNDS: usize = 3;

/// Documents are inserted so many at a time, and the script writes as many rows.
const BATCH: usize = 1_000;

const TABLE: &str = "(id bigint PRIMARY KEY, email text NOT NULL, name text NOT NULL, \
    score double precision, amount numeric(12,2), active boolean NOT NULL, \
    created_at timestamptz NOT NULL, note text, settings jsonb)";

const COLUMNS: [&str; 9] =
    ["id", "email", "name", "score", "amount", "active", "created_at", "note", "settings"];

const MIGRATION: &str = r#"[[backfill]]
name = "documents"
[backfill.copy]
from = "mongo"
collection = "c"
pipeline = "[{ $set: { id: '$_id' } }, { $unset: '_id' }]"
to = "t"
key = "id"
"#;

fn main() {
    let asked = std::env::args().find_map(|word| word.parse().ok());
    let rows: u32 = asked.unwrap_or(1_000_000);
    let python = timed::python();
    let (mut ours, mut bare, mut script, mut again) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut peak = 0;
    for _ in 0..ROUNDS {
        let database = support::Database::new("bench");
        fill(&database, rows);
        support::block_on(async || execute(&database, &format!("CREATE TABLE t {TABLE}")).await);
        let ran = migrate(&database, 1);
        ours.push(f64::from(rows) / ran.seconds);
        peak = peak.max(ran.resident);
        again.push(f64::from(rows) / migrate(&database, 2).seconds);
        let ready = support::block_on(async || ready_made(&database).await);
        bare.push(f64::from(rows) / support::block_on(async || copy(&database, ready).await));
        if let Some(python) = &python {
            script.push(f64::from(rows) / by_script(&database, python));
        }
        let same = "SELECT count(*) FROM t";
        let found = support::block_on(async || one(&database, same).await);
        assert_eq!(found, i64::from(rows));
    }
    let (ours, bare) = (median(ours), median(bare));
    println!("{rows} documents, rows/s, median of {ROUNDS}:");
    println!("{:<44} {bare:>9.0}", "COPY alone, ready-made in binary");
    println!("{:<44} {ours:>9.0}  {:.2} of COPY alone", "migrate up --unthrottled", ours / bare);
    println!("{:<44} {:>9.0}", "the same again: nothing differs", median(again));
    match script.is_empty() {
        true => println!("a script in Python: not measured, pymongo and psycopg are not to be had"),
        false => {
            let script = median(script);
            println!(
                "{:<44} {script:>9.0}  {:.2} times slower",
                "a script in Python",
                ours / script
            );
        }
    }
    println!("at most {:.1} MB resident", timed::megabytes(peak));
}

fn median(figures: Vec<f64>) -> f64 {
    timed::median(figures).expect("it was measured")
}

fn document(id: u32) -> Document {
    let cents: Bson =
        Bson::Decimal128(format!("{}.{:02}", id % 5000, id % 100).parse().expect("a decimal"));
    let note = match id % 3 {
        0 => Bson::Null,
        _ => Bson::from(format!("note {id}: {}", "x".repeat((id % 120) as usize))),
    };
    doc! {
        "_id": i64::from(id),
        "email": format!("user{id}@example.org"),
        "name": format!("Ada Lovelace the {id}th"),
        "score": f64::from(id) / 7.0,
        "amount": cents,
        "active": id.is_multiple_of(2),
        "created_at": DateTime::from_millis(1_500_000_000_000 + i64::from(id) * 61_007),
        "note": note,
        "settings": { "theme": "dark", "digest": id % 7 },
    }
}

fn fill(database: &support::Database, rows: u32) {
    support::block_on(async || {
        let client = mongodb::Client::with_uri_str(&database.mongo_uri).await.expect("a URI");
        let all = client.database(&database.name).collection::<Document>("c");
        let mut next = 1;
        while next <= rows {
            let upto = rows.min(next + 9_999);
            all.insert_many((next..=upto).map(document)).await.expect("MongoDB answers");
            next = upto + 1;
        }
    });
}

async fn one(database: &support::Database, sql: &str) -> i64 {
    postgres(database).await.query_one(sql, &[]).await.expect(sql).get(0)
}

/// So many of the copies.
fn migrate(database: &support::Database, upto: usize) -> timed::Ran {
    let names = ["002-copy", "003-again"];
    timed::up(database, &names.map(|name| (name, MIGRATION.to_owned()))[..upto])
}

/// The rows as COPY in binary sends them.
async fn ready_made(database: &support::Database) -> Vec<Vec<u8>> {
    let client = postgres(database).await;
    let rows = client.copy_out("COPY t TO STDOUT (FORMAT binary)").await.expect("they are there");
    pin_mut!(rows);
    let mut pieces = vec![Vec::new()];
    while let Some(row) = rows.try_next().await.expect("to the end") {
        if pieces.last().is_some_and(|piece| piece.len() > 256 << 10) {
            pieces.push(Vec::new());
        }
        pieces.last_mut().expect("there is one").extend(row);
    }
    pieces
}

async fn copy(database: &support::Database, ready: Vec<Vec<u8>>) -> f64 {
    execute(database, &format!("CREATE TABLE bare {TABLE}; CHECKPOINT")).await;
    let client = postgres(database).await;
    let began = Instant::now();
    let sink = client.copy_in("COPY bare FROM STDIN (FORMAT binary)").await.expect("a table");
    pin_mut!(sink);
    for piece in ready {
        sink.send(Cursor::new(piece)).await.expect("it is taken");
    }
    sink.finish().await.expect("they are rows");
    began.elapsed().as_secs_f64()
}

const SCRIPT: &str = r#"
import os, sys
import psycopg, pymongo
from bson.decimal128 import Decimal128
from psycopg.types.json import Jsonb

columns = sys.argv[2].split(",")
source = pymongo.MongoClient(os.environ["MONGODB_URI"], tz_aware=True).get_default_database()
target = psycopg.connect(os.environ["DATABASE_URL"])
insert = "INSERT INTO script ({}) VALUES ({}) ON CONFLICT (id) DO UPDATE SET {}".format(
    ", ".join(columns), ", ".join(["%s"] * len(columns)),
    ", ".join(f"{c} = excluded.{c}" for c in columns[1:]))

def value(v):
    if isinstance(v, Decimal128): return v.to_decimal()
    if isinstance(v, dict): return Jsonb(v)
    return v

def write(rows):
    with target.cursor() as cursor:
        cursor.executemany(insert, rows)
    target.commit()

rows = []
for document in source["c"].find().sort("_id", 1):
    document["id"] = document.pop("_id")
    rows.append([value(document.get(c)) for c in columns])
    if len(rows) == int(sys.argv[1]):
        write(rows)
        rows = []
write(rows)
"#;

fn by_script(database: &support::Database, python: &Path) -> f64 {
    let table = format!("CREATE TABLE script {TABLE}");
    support::block_on(async || execute(database, &table).await);
    timed::script(python, SCRIPT, &[&BATCH.to_string(), &COLUMNS.join(",")], database)
}
