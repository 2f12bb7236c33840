//! How fast rows are compared with documents, and in how much memory: by ranges, where
//! both stores have the keys in one order, and by lists, where they have not. Where the
//! documents are just what a copy of the rows would be, and where they say the same with
//! numbers of another type. A row and its document count as one.
//! `cargo bench --bench compare [ROWS…]`

#[path = "../tests/support/mod.rs"]
mod support;
mod timed;

use bson::{Document, doc};
use lockstep::core::compare::Verdict;
use lockstep::core::id::Version;
use lockstep::core::parse::manifest::MongoSource;
use lockstep::core::step::Timeouts;
use lockstep::engine::Stop;
use lockstep::engine::compare::{KEPT_EVERY, Task, compare};
use lockstep::store::mongo::{Mongo, MongoConfig};
use lockstep::store::postgres::{Postgres, PostgresConfig};
use std::time::{Duration, Instant};
use tokio_postgres::NoTls;

const ROUNDS: usize = 3;

// As the binary does it.
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let sizes: Vec<i32> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let sizes = if sizes.is_empty() { vec![50_000, 1_000_000] } else { sizes };
    for rows in sizes {
        for (way, key) in [
            ("ranges", "integer"),
            ("ranges, numbers of another type", "bigint"),
            ("lists", "text COLLATE \"en-x-icu\""),
        ] {
            let database = support::Database::new("bench");
            fill(&database, rows, key).await;
            forget_peak();
            let mut took = Duration::MAX;
            for _ in 0..ROUNDS {
                took = took.min(once(&database, rows).await);
            }
            println!(
                "{rows:>9} rows by {way}: {}, at most {:.1} MB resident",
                speed(rows, took),
                timed::megabytes(timed::resident("self").unwrap_or(0))
            );
        }
    }
}

async fn fill(database: &support::Database, rows: i32, key: &str) {
    let (client, connection) =
        tokio_postgres::connect(&database.postgres_url, NoTls).await.expect("it answers");
    tokio::spawn(connection);
    let script = format!(
        "CREATE TABLE t (id {key} PRIMARY KEY, email text, score numeric(10, 2), seen timestamptz, \
         body jsonb); \
         INSERT INTO t SELECT g, 'user' || g || '@example.com', g + 0.25, \
         timestamptz '2026-01-01 00:00:00+00' + g * interval '1 second', \
         jsonb_build_object('plan', 'basic', 'filler', repeat('x', 60)) \
         FROM generate_series(1, {rows}) AS g"
    );
    client.batch_execute(&script).await.expect("a table");
    client.batch_execute("VACUUM ANALYZE t").await.expect("statistics");
    let mongo = mongodb::Client::with_uri_str(&database.mongo_uri).await.expect("it answers");
    let c = mongo.database(&database.name).collection::<Document>("t");
    let is_text = key.starts_with("text");
    let mut documents = Vec::new();
    for n in 1..=rows {
        let id = if is_text { bson::Bson::String(n.to_string()) } else { n.into() };
        let score: bson::Decimal128 = format!("{n}.25").parse().expect("a number");
        documents.push(doc! {
            "_id": id,
            "email": format!("user{n}@example.com"),
            "score": score,
            "seen": bson::DateTime::from_millis(1_767_225_600_000 + i64::from(n) * 1_000),
            "body": { "plan": "basic", "filler": "x".repeat(60) },
        });
        if documents.len() == 5_000 || n == rows {
            c.insert_many(std::mem::take(&mut documents)).await.expect("they are new");
        }
    }
}

async fn once(database: &support::Database, rows: i32) -> Duration {
    let config = PostgresConfig::parse(&database.postgres_url).expect("a URL");
    let mut postgres = Postgres::connect(config, "bench").await.expect("it answers");
    let config = MongoConfig::parse(&database.mongo_uri).await.expect("a URL");
    let mut mongo = Mongo::connect(config, "bench").await.expect("it answers");
    let source =
        MongoSource { collection: "t".to_owned(), find: Document::new(), pipeline: Vec::new() };
    let task = Task {
        version: Version(1),
        name: "bench",
        record: None,
        postgres: "SELECT id AS _id, email, score, seen, body FROM t",
        mongo: &source,
        key: &["_id".to_owned()],
        max_age: Duration::MAX,
        timeouts: Timeouts::default(),
        again: Duration::from_secs(5),
        keep: KEPT_EVERY,
    };
    let (_sender, stop) = Stop::new();
    let began = Instant::now();
    let compared = compare(&mut postgres, &mut mongo, task, &stop, &mut |_| {}).await;
    let took = began.elapsed();
    let compared = compared.expect("both can be read");
    assert_eq!((compared.verdict, compared.rows), (Verdict::Clean, u64::from(rows.unsigned_abs())));
    took
}

fn speed(rows: i32, took: Duration) -> String {
    format!("{:.0} rows/s", f64::from(rows) / took.as_secs_f64())
}

/// From here on counts what is resident now.
fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
