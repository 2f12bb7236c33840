//! How fast rows of Postgres are rewritten: by one bare UPDATE, by the barest loop
//! of batches, and by a backfill. `cargo bench --bench backfill_postgres [ROWS…]`

#[path = "../tests/support/mod.rs"]
mod support;

use lockstep::core::backfill::Shard;
use lockstep::core::checksum::Checksum;
use lockstep::core::history::{Event, Record};
use lockstep::core::id::{StepId, Version};
use lockstep::core::parse::manifest::Work;
use lockstep::core::step::{QualifiedName, Timeouts};
use lockstep::store::backfill::{Backfills, Job};
use lockstep::store::postgres::{Postgres, PostgresConfig};
use lockstep::store::{Run, Store};
use std::time::{Duration, Instant};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls};

const BATCHES: [i64; 2] = [1_000, 5_000];
const ROUNDS: usize = 5;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let sizes: Vec<i64> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let sizes = if sizes.is_empty() { vec![10_000, 100_000, 1_000_000] } else { sizes };
    let database = support::Database::new("bench");
    let (client, connection) =
        tokio_postgres::connect(&database.postgres_url, NoTls).await.expect("it answers");
    tokio::spawn(connection);
    let mut store = open(&database.postgres_url).await;
    let mut attempt = 0;
    for rows in sizes {
        let one = best(&client, rows, async || at_once(&client).await).await;
        println!("{rows:>9} rows: one UPDATE {}", speed(rows, one));
        for batch in BATCHES {
            // In turns, so that what else the machine does hits both.
            let (mut bare, mut ours) = (Duration::MAX, Duration::MAX);
            for _ in 0..ROUNDS {
                bare =
                    bare.min(once(&client, rows, async || two_steps(&client, batch).await).await);
                attempt += 1;
                fresh(&client, rows).await;
                ours = ours.min(backfill(&mut store, attempt, batch.unsigned_abs()).await);
            }
            let ratio = bare.as_secs_f64() / ours.as_secs_f64();
            println!(
                "{rows:>9} rows, batches of {batch}: bare loop {}, backfill {}, ratio {ratio:.2}",
                speed(rows, bare),
                speed(rows, ours)
            );
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn speed(rows: i64, took: Duration) -> String {
    format!("{:.0} rows/s", rows as f64 / took.as_secs_f64())
}

async fn open(url: &str) -> Postgres {
    let config = PostgresConfig::parse(url).expect("a URL");
    let mut store = Postgres::connect(config, "bench").await.expect("it answers");
    store.found("pair").await.expect("an empty database");
    let run = Run {
        id: "bench".to_owned(),
        command: "up".to_owned(),
        user: "bench".to_owned(),
        host: "bench".to_owned(),
        pid: 1,
        release: None,
        from_version: None,
        reason: None,
    };
    store.acquire(&run).await.expect("nobody else has the lease");
    store
}

async fn fresh(client: &Client, rows: i64) {
    let script = format!(
        "DROP TABLE IF EXISTS t; \
         CREATE TABLE t (id bigint PRIMARY KEY, n int NOT NULL, filler text NOT NULL); \
         INSERT INTO t SELECT g, 0, repeat('x', 100) FROM generate_series(1, {rows}) AS g"
    );
    client.batch_execute(&script).await.expect("a table");
    client.batch_execute("VACUUM ANALYZE t").await.expect("statistics");
    client.batch_execute("CHECKPOINT").await.expect("a superuser");
}

async fn once(client: &Client, rows: i64, way: impl AsyncFn()) -> Duration {
    fresh(client, rows).await;
    let began = Instant::now();
    way().await;
    let took = began.elapsed();
    let done: i64 =
        client.query_one("SELECT count(*) FROM t WHERE n = 1", &[]).await.expect("a count").get(0);
    assert_eq!(done, rows);
    took
}

async fn best(client: &Client, rows: i64, way: impl AsyncFn()) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        best = best.min(once(client, rows, &way).await);
    }
    best
}

async fn at_once(client: &Client) {
    client.batch_execute("UPDATE t SET n = n + 1").await.expect("an update");
}

/// What somebody would write in an afternoon: no cursor, no fence, no limits.
async fn two_steps(client: &Client, batch: i64) {
    let bound = "SELECT max(id) FROM (SELECT id FROM t WHERE id > $1 ORDER BY id LIMIT $2) AS s";
    let update = "UPDATE t SET n = n + 1 WHERE id > $1 AND id <= $2";
    let mut after = i64::MIN;
    loop {
        let params: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
            [(&after, Type::INT8), (&batch, Type::INT8)];
        let rows = client.query_typed(bound, &params).await.expect("a bound");
        let Some(upto) = rows.first().and_then(|row| row.get::<_, Option<i64>>(0)) else { return };
        client.batch_execute("BEGIN").await.expect("a transaction");
        client
            .execute_typed(update, &[(&after, Type::INT8), (&upto, Type::INT8)])
            .await
            .expect("an update");
        client.batch_execute("COMMIT").await.expect("a commit");
        after = upto;
    }
}

async fn backfill(store: &mut Postgres, attempt: u32, rows: u64) -> Duration {
    let work = Work::Update {
        table: QualifiedName { schema: None, name: "t".to_owned() },
        set: "n = n + 1".to_owned(),
        condition: None,
        key: Vec::new(),
    };
    let name = format!("execute/bench-{attempt}").parse().expect("a name");
    let record = Record {
        step: StepId { version: Version(1), name },
        attempt: 1,
        event: Event::Progress,
        rank: 1,
        checksum: Checksum::of(b"step"),
        migration_checksum: Checksum::of(b"folder"),
    };
    let job = Job { work: &work, record: &record, timeouts: Timeouts::default(), max_bad: 0 };
    let began = Instant::now();
    let survey = store.survey(job, 1, &[]).await.expect("a survey");
    store.begin(job, &survey.shards, &[]).await.expect("a beginning");
    let mut shard: Shard = store.claim(job).await.expect("a claim").expect("a shard");
    while !shard.done {
        shard = store.batch(job, &shard, rows).await.expect("a batch").expect("it is ours").shard;
    }
    let took = began.elapsed();
    assert_eq!(shard.rows, survey.estimate);
    took
}
