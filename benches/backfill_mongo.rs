//! What backfills cost in MongoDB: documents per second of one bare `updateMany`,
//! and of the same change in batches through the store, with its cursor.
//!
//! `cargo bench --bench backfill_mongo [documents …]`

#[path = "../tests/support/mod.rs"]
mod support;

use bson::{Document, doc};
use lockstep::core::checksum::Checksum;
use lockstep::core::history::{Event, Record};
use lockstep::core::id::{StepId, Version};
use lockstep::core::parse::manifest::{Change, Update, Work};
use lockstep::core::step::Timeouts;
use lockstep::store::backfill::{Backfills, Job, is_passing};
use lockstep::store::mongo::{Mongo, MongoConfig};
use lockstep::store::{Run, Store};
use std::time::Instant;

#[tokio::main]
async fn main() {
    let asked: Vec<u32> = std::env::args().filter_map(|size| size.parse().ok()).collect();
    let sizes = if asked.is_empty() { vec![10_000, 100_000, 1_000_000] } else { asked };
    println!("{:>9} {:>9} {:>10} {:>10} {:>6}", "documents", "batch", "bare/s", "ours/s", "ratio");
    for documents in sizes {
        let database = support::Database::new("bench");
        let client = mongodb::Client::with_uri_str(&database.mongo_uri).await.unwrap();
        let collection = client.database(&database.name).collection::<Document>("c");
        fill(&collection, documents).await;
        let mut store = leased(&database).await;
        let mut value = 0;
        for (batch, workers) in [(1000, 1), (5000, 1), (20_000, 1), (5000, 4)] {
            let (mut bare, mut ours) = (Vec::new(), Vec::new());
            // In turns: what else the machine does then hits both alike.
            for _ in 0..ROUNDS {
                value += 1;
                let began = Instant::now();
                let set = doc! { "$set": { "value": value } };
                collection.update_many(doc! {}, set).await.unwrap();
                bare.push(f64::from(documents) / began.elapsed().as_secs_f64());
                value += 1;
                let set = doc! { "$set": { "value": value } };
                let took = in_batches(&mut store, set, value, batch, workers).await;
                ours.push(f64::from(documents) / took);
            }
            let (bare, ours) = (median(bare), median(ours));
            let ratio = ours / bare;
            let size = format!("{batch}×{workers}");
            println!("{documents:>9} {size:>9} {bare:>10.0} {ours:>10.0} {ratio:>6.2}");
        }
    }
}

/// So often each is measured; the median counts.
const ROUNDS: usize = 5;

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

async fn fill(collection: &mongodb::Collection<Document>, documents: u32) {
    let mut next = 0;
    while next < documents {
        let upto = documents.min(next + 10_000);
        let part = (next..upto).map(|id| doc! { "_id": id, "value": 0, "text": "x".repeat(200) });
        collection.insert_many(part).await.unwrap();
        next = upto;
    }
}

async fn leased(database: &support::Database) -> Mongo {
    let config = MongoConfig::parse(&database.mongo_uri).await.unwrap();
    let mut store = Mongo::connect(config, "bench").await.unwrap();
    store.found("pair").await.unwrap();
    let run = Run {
        id: "bench".to_owned(),
        command: "up".to_owned(),
        user: "ada".to_owned(),
        host: "here".to_owned(),
        pid: 1,
        release: None,
        from_version: None,
        reason: None,
    };
    store.acquire(&run).await.unwrap();
    store
}

/// How many seconds it takes.
async fn in_batches(
    store: &mut Mongo,
    change: Document,
    attempt: i32,
    batch: u64,
    workers: usize,
) -> f64 {
    let change = Change::Update(Update::Operators(change));
    let work = Work::Documents { collection: "c".to_owned(), filter: doc! {}, change };
    let record = Record {
        step: StepId { version: Version(1), name: "execute/bench".parse().unwrap() },
        attempt: u32::try_from(attempt).unwrap(),
        event: Event::Progress,
        rank: 1,
        checksum: Checksum::of(b""),
        migration_checksum: Checksum::of(b""),
    };
    let job = Job { work: &work, record: &record, timeouts: Timeouts::default(), max_bad: 0 };
    let began = Instant::now();
    let survey = store.survey(job, workers, &[]).await.unwrap();
    store.begin(job, &survey.shards, &[]).await.unwrap();
    let mut stores = Vec::new();
    for _ in 0..workers {
        stores.push(store.another().await.unwrap());
    }
    let work = stores.iter_mut().map(async |store| {
        while let Some(mut shard) = store.claim(job).await.unwrap() {
            while !shard.done {
                match store.batch(job, &shard, batch).await {
                    Ok(done) => shard = done.expect("it is ours").shard,
                    Err(error) if is_passing(&error) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    });
    futures_util::future::join_all(work).await;
    began.elapsed().as_secs_f64()
}
