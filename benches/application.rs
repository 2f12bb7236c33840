//! What an application notices of a backfill: how long its reads and updates of
//! single rows take while nothing else happens, before and after, during a backfill at
//! the default pace, and during one without any. Two more lines tell what is the machine's and
//! the server's part in it: beside a query that computes and touches no row, which
//! costs the application a processor and nothing else, and beside the barest loop of
//! batches of a thousand. And how much memory the program takes for a million rows
//! and a million documents.
//!
//! `cargo bench --bench application [ROWS [ROWS FOR MEMORY]]`; no rows: not
//! measured.

#[path = "../tests/support/mod.rs"]
mod support;
mod timed;

use bson::{Document, doc};
use lockstep::core::id::StoreName;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio_postgres::types::Type;

/// Operations begin this often, whether those before came back or not.
const EVERY: Duration = Duration::from_millis(5);

/// Connections that take turns.
const CONNECTIONS: u64 = 8;

/// How long nothing else happens.
const IDLE: Duration = Duration::from_secs(10);

/// Until a server that was just filled is at rest, and the application warm.
const WARM: Duration = Duration::from_secs(3);

fn main() {
    let sizes: Vec<u32> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let rows = sizes.first().copied().unwrap_or(300_000);
    let for_memory = sizes.get(1).copied().unwrap_or(1_000_000);
    if rows > 0 {
        println!(
            "an application that reads or updates a row of {rows} each {} ms, in ms:",
            EVERY.as_millis()
        );
        for store in StoreName::BOTH {
            application(store, rows);
        }
    }
    if for_memory > 0 {
        memory(for_memory);
    }
}

fn application(store: StoreName, rows: u32) {
    println!(
        "{:<9} {:<22} {:>6} {:>7} {:>7} {:>8} {:>7}  ratio of p99",
        store.title(),
        "",
        "count",
        "p50",
        "p99",
        "maximum",
        "seconds"
    );
    let beside = [
        ("beside a busy query", Beside::Query),
        ("beside a bare loop", Beside::Loop),
        ("default pace", Beside::Up(&["up"])),
        ("pace off", Beside::Up(&["up", "--unthrottled"])),
    ];
    for (name, beside) in beside {
        let database = support::Database::new("bench");
        fill(&database, store, rows);
        let nothing = || {
            let mut took = measure(&database, store, rows, || std::thread::sleep(WARM + IDLE));
            // The first ones are warming up.
            let warm = took.len() * usize::try_from(WARM.as_secs()).expect("is small")
                / usize::try_from((WARM + IDLE).as_secs()).expect("is small");
            took.split_off(warm)
        };
        let mut idle = nothing();
        let began = Instant::now();
        let during = measure(&database, store, rows, || match beside {
            Beside::Query => support::block_on(async || query(&database, store).await),
            Beside::Loop => support::block_on(async || bare_loop(&database, store, rows).await),
            Beside::Up(arguments) => {
                let project = project(&[store]);
                let mut run = timed::migrate(project.path(), &database, arguments);
                let status = run.wait().expect("a child");
                assert!(status.success(), "migrate ended with {status}");
            }
        });
        let took = began.elapsed();
        // A machine that others share is not the same from one minute to the next.
        idle.extend(nothing());
        let of_idle = line(&format!("idle around {name}"), idle, IDLE * 2, None);
        line(name, during, took, Some(of_idle));
    }
}

/// What goes on beside the application.
#[derive(Clone, Copy)]
enum Beside {
    Query,
    Loop,
    Up(&'static [&'static str]),
}

/// Computes in the server for a while, one statement after the other, and touches no
/// row.
async fn query(database: &support::Database, store: StoreName) {
    let over = Instant::now() + IDLE;
    match store {
        StoreName::Postgres => {
            let client = postgres(database).await;
            while Instant::now() < over {
                let count = "SELECT count(*) FROM generate_series(1, 1000) AS a, \
                             generate_series(1, 1000) AS b";
                client.query_one(count, &[]).await.expect("Postgres answers");
            }
        }
        StoreName::Mongo => {
            let client = mongodb::Client::with_uri_str(&database.mongo_uri).await;
            let own = client.expect("a URI").database(&database.name);
            let sum = doc! { "$reduce": {
                "input": { "$range": [0, 300_000] }, "initialValue": 0_i64,
                "in": { "$add": ["$$value", "$$this"] },
            } };
            let pipeline = [doc! { "$documents": [{}] }, doc! { "$project": { "sum": sum } }];
            while Instant::now() < over {
                let mut found = own.aggregate(pipeline.clone()).await.expect("MongoDB answers");
                assert!(found.advance().await.expect("MongoDB answers"));
            }
        }
    }
}

/// Batches of a thousand along the key, one after the other.
async fn bare_loop(database: &support::Database, store: StoreName, rows: u32) {
    const BATCH: u32 = 1_000;
    let ranges = (0..rows).step_by(BATCH as usize).map(|after| (after, after + BATCH));
    match store {
        StoreName::Postgres => {
            let client = postgres(database).await;
            let update = "UPDATE t SET n = n + 1 WHERE id > $1 AND id <= $2";
            let update = client.prepare_typed(update, &[Type::INT8; 2]).await.expect("a table");
            for (after, upto) in ranges {
                let range = [i64::from(after), i64::from(upto)];
                let done = client.execute(&update, &[&range[0], &range[1]]).await;
                done.expect("Postgres answers");
            }
        }
        StoreName::Mongo => {
            let client = mongodb::Client::with_uri_str(&database.mongo_uri).await;
            let all = client.expect("a URI").database(&database.name).collection::<Document>("c");
            for (after, upto) in ranges {
                let range = doc! { "_id": { "$gt": i64::from(after), "$lte": i64::from(upto) } };
                let done = all.update_many(range, doc! { "$inc": { "n": 1 } }).await;
                done.expect("MongoDB answers");
            }
        }
    }
}

/// Prints how long operations took; returns the 99th percentile.
fn line(name: &str, mut took: Vec<Duration>, whole: Duration, idle: Option<f64>) -> f64 {
    took.sort_unstable();
    let ms = |duration: Duration| duration.as_secs_f64() * 1_000.0;
    let at = |percent: usize| ms(took[(took.len() * percent / 100).min(took.len() - 1)]);
    let (p50, p99, most) = (at(50), at(99), at(100));
    let ratio = idle.map_or(String::new(), |idle| format!("{:.2}", p99 / idle));
    println!(
        "{:<9} {name:<22} {:>6} {p50:>7.2} {p99:>7.2} {most:>8.2} {:>7.1}  {ratio}",
        "",
        took.len(),
        whole.as_secs_f64()
    );
    p99
}

/// Works as an application while something else goes on. Returns how long operations
/// took, from when they should have begun, in the order of their beginning.
fn measure(
    database: &support::Database,
    store: StoreName,
    rows: u32,
    meanwhile: impl FnOnce(),
) -> Vec<Duration> {
    let over = AtomicBool::new(false);
    let next = AtomicU64::new(0);
    let began = Instant::now();
    let mut all = std::thread::scope(|scope| {
        let connections: Vec<_> = (0..CONNECTIONS)
            .map(|_| scope.spawn(|| connection(database, store, rows, began, &next, &over)))
            .collect();
        meanwhile();
        over.store(true, Ordering::Relaxed);
        let ends = connections.into_iter().map(|it| it.join().expect("the application works"));
        ends.flatten().collect::<Vec<_>>()
    });
    all.sort_unstable_by_key(|(number, _)| *number);
    all.into_iter().map(|(_, took)| took).collect()
}

/// One connection: takes the next operation that is due, waits for its time, runs it.
fn connection(
    database: &support::Database,
    store: StoreName,
    rows: u32,
    began: Instant,
    next: &AtomicU64,
    over: &AtomicBool,
) -> Vec<(u64, Duration)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime starts");
    let session = runtime.block_on(Session::open(database, store));
    // It is open when it begins to count; what is due by then is for nobody.
    let opened = u64::try_from(began.elapsed().as_nanos() / EVERY.as_nanos()).expect("is small");
    next.fetch_max(opened, Ordering::Relaxed);
    let mut took = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let due = began + EVERY * u32::try_from(number).expect("is small");
        // Not a timer of the runtime: those are a millisecond late.
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // Anywhere, but everywhere in the end.
        let row = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % u64::from(rows) + 1;
        let row = i64::try_from(row).expect("is small");
        runtime.block_on(session.once(row, number.is_multiple_of(2)));
        took.push((number, due.elapsed()));
    }
    took
}

enum Session {
    Postgres(tokio_postgres::Client, [tokio_postgres::Statement; 2]),
    Mongo(mongodb::Collection<Document>),
}

impl Session {
    async fn open(database: &support::Database, store: StoreName) -> Session {
        match store {
            StoreName::Postgres => {
                let client = postgres(database).await;
                let read = "SELECT n FROM t WHERE id = $1";
                let read = client.prepare_typed(read, &[Type::INT8]).await.expect("a table");
                let update = "UPDATE t SET seen = seen + 1 WHERE id = $1";
                let update = client.prepare_typed(update, &[Type::INT8]).await.expect("a table");
                Session::Postgres(client, [read, update])
            }
            StoreName::Mongo => {
                let client = mongodb::Client::with_uri_str(&database.mongo_uri).await;
                let client = client.expect("MongoDB answers");
                let all = client.database(&database.name).collection("c");
                let session = Session::Mongo(all);
                session.once(1, true).await;
                session
            }
        }
    }

    async fn once(&self, row: i64, reads: bool) {
        match self {
            Session::Postgres(client, [read, update]) => {
                let statement = if reads { read } else { update };
                client.query(statement, &[&row]).await.expect("Postgres answers");
            }
            Session::Mongo(all) if reads => {
                all.find_one(doc! { "_id": row }).await.expect("MongoDB answers");
            }
            Session::Mongo(all) => {
                let seen = doc! { "$inc": { "seen": 1 } };
                all.update_one(doc! { "_id": row }, seen).await.expect("MongoDB answers");
            }
        }
    }
}

async fn postgres(database: &support::Database) -> tokio_postgres::Client {
    let (client, connection) =
        tokio_postgres::connect(&database.postgres_url, tokio_postgres::NoTls)
            .await
            .expect("Postgres answers");
    tokio::spawn(connection);
    client
}

fn fill(database: &support::Database, store: StoreName, rows: u32) {
    support::block_on(async || match store {
        StoreName::Postgres => {
            let client = postgres(database).await;
            let script = format!(
                "CREATE TABLE t (id bigint PRIMARY KEY, n int NOT NULL, seen int NOT NULL, \
                 filler text NOT NULL); \
                 INSERT INTO t SELECT g, 0, 0, repeat('x', 200) FROM generate_series(1, {rows}) AS g"
            );
            client.batch_execute(&script).await.expect("a table");
            client.batch_execute("VACUUM ANALYZE t").await.expect("statistics");
            client.batch_execute("CHECKPOINT").await.expect("a superuser");
        }
        StoreName::Mongo => {
            let client = mongodb::Client::with_uri_str(&database.mongo_uri).await;
            let all = client.expect("a URI").database(&database.name).collection("c");
            let mut next = 1;
            while next <= rows {
                let upto = rows.min(next + 9_999);
                let part = (next..=upto).map(|id| {
                    doc! { "_id": i64::from(id), "n": 0, "seen": 0, "filler": "x".repeat(200) }
                });
                all.insert_many(part).await.expect("MongoDB answers");
                next = upto + 1;
            }
        }
    });
}

fn project(stores: &[StoreName]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let backfills = stores.iter().map(|store| match store {
        StoreName::Postgres => {
            "[[backfill]]\nname = \"rows\"\npostgres = { table = \"t\", set = \"n = n + 1\" }\n"
        }
        StoreName::Mongo => {
            "[[backfill]]\nname = \"documents\"\n\
             mongo = { collection = \"c\", update = \"{ $inc: { n: 1 } }\" }\n"
        }
    });
    let migration = folder.path().join("migrations/001-one-more");
    fs::create_dir_all(&migration).expect("a folder");
    let text: String = backfills.collect();
    fs::write(migration.join("migration.toml"), text).expect("a file");
    folder
}

/// The most memory that the program has had, at any time, of what is resident.
fn memory(rows: u32) {
    for (name, arguments) in [("default pace", &["up"][..]), ("pace off", &["up", "--unthrottled"])]
    {
        for store in StoreName::BOTH {
            let database = support::Database::new("bench");
            fill(&database, store, rows);
            let project = project(&[store]);
            let ran = timed::finish(timed::migrate(project.path(), &database, arguments));
            println!(
                "`migrate up` of {rows} in {}, {name}: at most {:.1} MB resident, \
                 {:.1} s, {:.0}/s",
                store.title(),
                ran.megabytes(),
                ran.seconds,
                f64::from(rows) / ran.seconds
            );
        }
    }
}
