//! An application writes while its stores are compared: what is late is no difference,
//! and what is wrong is found.

use crate::pair::{Pair, told};
use bson::{Document, doc};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

const COMPARE: &str =
    "{ postgres = 'SELECT id AS _id, n FROM t', mongo = { collection = 't' }, key = '_id' }";

/// Writes both stores, one of them up to so much later, until it is told to stop.
struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// Keys are left alone by writers if they are multiples of this.
const ALONE: u64 = 100;

impl Writer {
    async fn start(pair: &Pair, rows: u64, per_second: u64, late: Duration) -> Writer {
        let stop = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicU64::new(0));
        let mut tasks = Vec::new();
        for lane in 0..4 {
            let (sql, connection) =
                tokio_postgres::connect(&pair.database.postgres_url, tokio_postgres::NoTls)
                    .await
                    .unwrap();
            tasks.push(tokio::spawn(async move { drop(connection.await) }));
            let (stop, written) = (stop.clone(), written.clone());
            let c = pair.collection("t");
            let every = Duration::from_secs(4) / u32::try_from(per_second).unwrap();
            tasks.push(tokio::spawn(async move {
                // Each lane has keys of its own, so that what is written last is last in
                // both stores.
                let mut seed = lane * 7_919 + 1;
                let mut late_writes = std::collections::VecDeque::new();
                let mut next = Instant::now();
                while !stop.load(Ordering::Relaxed) || !late_writes.is_empty() {
                    if !stop.load(Ordering::Relaxed) {
                        seed = seed * 48_271 % 2_147_483_647;
                        let id = seed % (rows / 4) * 4 + lane + 1;
                        if !id.is_multiple_of(ALONE) && id <= rows {
                            let n = written.fetch_add(1, Ordering::Relaxed) + 1_000_000;
                            let what = seed % 10;
                            let (key, value) =
                                (i64::try_from(id).unwrap(), i64::try_from(n).unwrap());
                            let statement = match what {
                                0 => "DELETE FROM t WHERE id = $1 AND $2::bigint > 0",
                                _ => {
                                    "INSERT INTO t VALUES ($1, $2) \
                                     ON CONFLICT (id) DO UPDATE SET n = excluded.n"
                                }
                            };
                            sql.execute(statement, &[&key, &value]).await.unwrap();
                            let delay =
                                late.mul_f64(f64::from(u32::try_from(seed % 100).unwrap()) / 100.0);
                            late_writes.push_back((Instant::now() + delay, key, value, what));
                        }
                    }
                    // In their order, so that the last is the last.
                    while let Some((at, key, value, what)) = late_writes.front().copied()
                        && (at <= Instant::now() || stop.load(Ordering::Relaxed))
                    {
                        late_writes.pop_front();
                        let one = doc! { "_id": key };
                        if what == 0 {
                            c.delete_one(one).await.unwrap();
                        } else {
                            let set = doc! { "$set": { "n": value } };
                            c.update_one(one, set).upsert(true).await.unwrap();
                        }
                    }
                    next += every;
                    sleep_until(next).await;
                }
            }));
        }
        Writer { stop, written, tasks }
    }

    async fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        // Those that wait for a connection end with it.
        for task in self.tasks.into_iter().skip(1).step_by(2) {
            task.await.unwrap();
        }
        self.written.load(Ordering::Relaxed)
    }
}

async fn filled(rows: u64) -> Pair {
    let pair = Pair::new().await;
    pair.run(&format!(
        "CREATE TABLE t (id bigint PRIMARY KEY, n bigint); \
         INSERT INTO t SELECT g, g FROM generate_series(1, {rows}) AS g; ANALYZE t"
    ))
    .await;
    let rows = i64::try_from(rows).unwrap();
    let documents: Vec<Document> = (1..=rows).map(|n| doc! { "_id": n, "n": n }).collect();
    for some in documents.chunks(20_000) {
        pair.collection("t").insert_many(some).await.unwrap();
    }
    pair
}

/// The application's second store is late by so much; differences are looked at again
/// after five times that, as they are with a second and five seconds.
async fn no_false_alarm(rows: u64, late: Duration, runs: u64) {
    let pair = filled(rows).await.looking_again_after(late * 5);
    let writer = Writer::start(&pair, rows, 300, late).await;
    sleep(late).await;
    for run in 0..runs {
        let clean = pair.compare(COMPARE).await;
        assert_eq!(told(&clean), [], "run {run}");
    }
    let mut planted = BTreeSet::new();
    for at in 1..=10 {
        let id = i64::try_from(at * ALONE * (rows / ALONE / 11)).unwrap();
        planted.insert(id);
        let wrong = doc! { "$set": { "n": -1 } };
        pair.collection("t").update_one(doc! { "_id": id }, wrong).await.unwrap();
    }
    let found = pair.compare(COMPARE).await;
    let written = writer.end().await;
    let keys: BTreeSet<i64> = told(&found).iter().map(|it| it.key.as_i64().unwrap()).collect();
    assert_eq!(keys, planted);
    assert!(written > 50, "somebody has to write: {written}");
    // And when everybody is done, nothing else is different.
    let found = pair.compare(COMPARE).await;
    let keys: BTreeSet<i64> = told(&found).iter().map(|it| it.key.as_i64().unwrap()).collect();
    assert_eq!(keys, planted);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_late_is_no_difference() {
    no_false_alarm(20_000, Duration::from_millis(800), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes"]
async fn what_is_late_is_no_difference_in_ten_runs() {
    no_false_alarm(100_000, Duration::from_secs(1), 10).await;
}

/// A row that changes at each look, in one store only, is neither the same nor proven
/// to be different.
#[tokio::test(flavor = "multi_thread")]
async fn what_never_stands_still_is_unresolved() {
    let pair = filled(1_000).await;
    let stop = Arc::new(AtomicBool::new(false));
    let ended = stop.clone();
    let (sql, connection) =
        tokio_postgres::connect(&pair.database.postgres_url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    sql.batch_execute("UPDATE t SET n = -1 WHERE id = 7").await.unwrap();
    let writer = tokio::spawn(async move {
        while !ended.load(Ordering::Relaxed) {
            sql.batch_execute("UPDATE t SET n = n - 1 WHERE id = 7").await.unwrap();
        }
    });
    let found = pair.compare(COMPARE).await;
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    let found: Vec<String> = told(&found).iter().map(ToString::to_string).collect();
    assert_eq!(found, ["_id = 7 changes all the time, and was never the same"]);
}
