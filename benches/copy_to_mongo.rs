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

use bson::{Document, RawDocumentBuf, doc};
use futures_util::{StreamExt, TryStreamExt, stream};
use mongodb::Collection;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

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
    let python = python();
    let mut figures: Vec<(&str, Vec<f64>)> = [
        "insert_many alone, ready-made",
        "insert_many alone, two in flight",
        "migrate up --unthrottled, empty collection",
        "the same with workers = 2",
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
        let (took, memory) = migrate(&database, 1);
        peak = peak.max(memory);
        add(2, took);
        assert_eq!(support::block_on(async || count(&database, "c").await), u64::from(rows));
        add(4, migrate(&database, 2).0);
        let differ = "UPDATE t SET note = 'changed' WHERE id % 10 = 0";
        support::block_on(async || execute(&database, differ).await);
        add(5, migrate(&database, 3).0);
        add(3, migrate(&database, 4).0);
        assert_eq!(support::block_on(async || count(&database, "d").await), u64::from(rows));
        let ready = support::block_on(async || ready_made(&database).await);
        add(0, support::block_on(async || insert(&database, "e", &ready, 1).await));
        add(1, support::block_on(async || insert(&database, "f", &ready, 2).await));
        if let Some(python) = &python {
            add(6, by_script(&database, python, "insert"));
            add(7, by_script(&database, python, "upsert"));
        }
    }
    let bare = median(&mut figures[0].1).unwrap_or(1.0);
    println!(
        "{rows} rows, documents/s, median of {ROUNDS}, and how much that is of insert_many alone:"
    );
    for (what, figures) in &mut figures {
        match median(figures) {
            Some(figure) => println!("{what:<44} {figure:>9.0}  {:.2}", figure / bare),
            None => println!("{what:<44} not measured: psycopg and pymongo are not to be had"),
        }
    }
    println!("at most {:.1} MB resident", f64::from(peak) / 1024.0);
}

fn median(figures: &mut [f64]) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}

async fn execute(database: &support::Database, sql: &str) {
    let connected = tokio_postgres::connect(&database.postgres_url, tokio_postgres::NoTls);
    let (client, connection) = connected.await.expect("Postgres answers");
    let connection = tokio::spawn(connection);
    client.batch_execute(sql).await.expect(sql);
    drop(client);
    let _ = connection.await;
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
/// fourth into another. Seconds, and the most memory that was resident, in KiB.
fn migrate(database: &support::Database, upto: usize) -> (f64, u32) {
    support::block_on(async || execute(database, "CHECKPOINT").await);
    let project = tempfile::tempdir().expect("a folder");
    for at in 1..=upto {
        let folder = project.path().join(format!("migrations/00{at}-copy"));
        fs::create_dir_all(&folder).expect("a folder");
        let (to, workers) = if at == 4 { ("d", 2) } else { ("c", 1) };
        let manifest = format!(
            "[[backfill]]\nname = \"rows\"\nworkers = {workers}\n\
             copy = {{ from = \"postgres\", query = \"{QUERY}\", key = \"_id\", to = \"{to}\" }}\n"
        );
        fs::write(folder.join("migration.toml"), manifest).expect("a file");
    }
    let began = Instant::now();
    let mut run = Command::new(env!("CARGO_BIN_EXE_migrate"))
        .args(["up", "--unthrottled", "--quiet"])
        .current_dir(project.path())
        .env("DATABASE_URL", &database.postgres_url)
        .env("MONGODB_URI", &database.mongo_uri)
        .stdin(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let status_file = format!("/proc/{}/status", run.id());
    let mut peak = 0;
    let status = loop {
        // The kernel keeps the maximum: the last time it is read is enough.
        peak = resident(&status_file).unwrap_or(peak);
        match run.try_wait().expect("a child") {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    assert!(status.success(), "migrate ended with {status}");
    (began.elapsed().as_secs_f64(), peak)
}

/// The high-water mark, in KiB; none once it has ended.
fn resident(status: &str) -> Option<u32> {
    let text = fs::read_to_string(status).ok()?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
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

/// A Python that has what the script needs.
fn python() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("copy-python");
    let python = folder.join("bin/python");
    let ran = |command: &mut Command| {
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
    };
    let has = |python: &Path| ran(Command::new(python).args(["-c", "import pymongo, psycopg"]));
    let install = ["-m", "pip", "install", "pymongo", "psycopg[binary]"];
    let made = has(&python)
        || ran(Command::new("python3").args(["-m", "venv"]).arg(&folder))
            && ran(Command::new(&python).args(install))
            && has(&python);
    made.then_some(python)
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

fn by_script(database: &support::Database, python: &Path, how: &str) -> f64 {
    support::block_on(async || execute(database, "CHECKPOINT").await);
    let began = Instant::now();
    let status = Command::new(python)
        .args(["-c", SCRIPT, how, &BATCH.to_string(), QUERY])
        .env("DATABASE_URL", &database.postgres_url)
        .env("MONGODB_URI", &database.mongo_uri)
        .status()
        .expect("Python starts");
    assert!(status.success(), "the script ended with {status}");
    began.elapsed().as_secs_f64()
}
