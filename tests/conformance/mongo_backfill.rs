//! Backfills in MongoDB: each document once, whatever its `_id` is, whatever dies.

use crate::mongo::{Server, connect};
use crate::proxy::{Cut, cutting_after};
use crate::standalone::Standalone;
use crate::subject::{Subject, fate, leased, outcome, record, record_of, run, take, until};
use bson::oid::ObjectId;
use bson::{Binary, Bson, DateTime, Document, Timestamp, doc};
use lockstep::core::backfill::Shard;
use lockstep::core::history::{Event, Record};
use lockstep::core::id::Version;
use lockstep::core::pace::{Level, Limits, Reading, Steer, Steering};
use lockstep::core::parse::manifest::{By, Change, Update, Work};
use lockstep::core::step::{Call, Timeouts};
use lockstep::store::backfill::{Backfills, Job, is_passing};
use lockstep::store::mongo::Mongo;
use lockstep::store::{Fate, Run, Store};
use std::collections::BTreeSet;
use std::time::Duration;

const STEP: &str = "execute/more";

fn progress() -> Record {
    record_of(1, STEP, 1, Event::Progress)
}

fn update(filter: Document, update: Document) -> Work {
    let change = Change::Update(Update::Operators(update));
    Work::Documents { collection: "c".to_owned(), filter, change }
}

/// Shows how often it was done.
fn count() -> Work {
    update(doc! {}, doc! { "$inc": { "n": 1 } })
}

fn job<'a>(work: &'a Work, record: &'a Record) -> Job<'a> {
    Job { work, record, timeouts: Timeouts::default(), max_bad: 0 }
}

async fn fill(world: &Server, ids: impl IntoIterator<Item = impl Into<Bson>>) {
    let documents = ids.into_iter().map(|id| doc! { "_id": id.into(), "n": 0 });
    world.db.collection::<Document>("c").insert_many(documents).await.unwrap();
}

/// What is done to each document, sorted.
async fn counts(world: &Server) -> Vec<i32> {
    let mut counts: Vec<i32> =
        world.at("c").await.iter().map(|document| document.get_i32("n").unwrap()).collect();
    counts.sort_unstable();
    counts
}

/// One of each type that an `_id` can have, and several of some.
pub fn mixed() -> Vec<Bson> {
    let binary = |subtype: u8, bytes: &[u8]| {
        Bson::Binary(Binary { subtype: subtype.into(), bytes: bytes.to_vec() })
    };
    let mut ids = vec![
        Bson::MinKey,
        Bson::MaxKey,
        Bson::Null,
        Bson::Double(f64::NAN),
        Bson::Double(f64::NEG_INFINITY),
        Bson::Double(-1.5),
        Bson::Decimal128("1.50".parse().unwrap()),
        Bson::Int64(1 << 60),
        Bson::Boolean(false),
        Bson::Boolean(true),
        binary(0, b"ab"),
        binary(4, &[7; 16]),
        Bson::Document(doc! {}),
        Bson::Document(doc! { "b": 1, "a": 2 }),
        Bson::Document(doc! { "b": 1, "a": 3 }),
        Bson::DateTime(DateTime::from_millis(-5)),
        Bson::DateTime(DateTime::from_millis(1_700_000_000_123)),
        Bson::Timestamp(Timestamp { time: 7, increment: 8 }),
        Bson::JavaScriptCode("a".to_owned()),
    ];
    ids.extend((0..7).map(Bson::Int32));
    ids.extend((10..14).map(|number| Bson::Double(f64::from(number))));
    ids.extend(["", "a", "B", "ü", "zz"].map(|text| Bson::String(text.to_owned())));
    ids.extend((0..3).map(|_| Bson::ObjectId(ObjectId::new())));
    ids
}

/// Begins a backfill with as many shards.
async fn begun(store: &mut Mongo, job: Job<'_>, shards: usize) -> Vec<Shard> {
    let survey = store.survey(job, shards, &[]).await.unwrap();
    store.begin(job, &survey.shards, &[]).await.unwrap();
    survey.shards
}

/// Takes what there is to take, and goes through it.
async fn go_through(store: &mut Mongo, job: Job<'_>, rows: u64) -> (u64, u64) {
    let (mut passed, mut written) = (0, 0);
    while let Some(mut shard) = store.claim(job).await.unwrap() {
        while !shard.done {
            let batch = store.batch(job, &shard, rows).await.unwrap().expect("it is ours");
            passed += batch.passed;
            written += batch.rows;
            shard = batch.shard;
        }
    }
    (passed, written)
}

#[tokio::test]
async fn documents_are_changed_once_whatever_the_types_of_their_ids() {
    for (rows, shards) in [(1, 1), (2, 1), (3, 4), (7, 2), (100, 1), (1, 50)] {
        let world = Server::new().await;
        let mut store = leased(&world, "a").await;
        let (work, record) = (count(), progress());
        let job = job(&work, &record);
        fill(&world, mixed()).await;
        begun(&mut store, job, shards).await;
        let all = mixed().len();
        let done = go_through(&mut store, job, rows).await;
        assert_eq!(done, (all as u64, all as u64), "{rows} rows, {shards} shards");
        assert_eq!(counts(&world).await, vec![1; all], "{rows} rows, {shards} shards");
        assert!(store.shards(job).await.unwrap().iter().all(|shard| shard.done && !shard.claimed));
    }
}

#[tokio::test]
async fn a_collation_orders_the_ids_as_it_orders_the_index() {
    let world = Server::new().await;
    world.run(doc! { "create": "c", "collation": { "locale": "de", "strength": 1 } }).await;
    let ids = ["a", "B", "c", "D", "ä1", "Z", "z1", "0", "10", "9"];
    fill(&world, ids.into_iter().map(Bson::from).chain((0..5).map(Bson::Int32))).await;
    let mut store = leased(&world, "a").await;
    let (work, record) = (count(), progress());
    let job = job(&work, &record);
    begun(&mut store, job, 3).await;
    go_through(&mut store, job, 2).await;
    assert_eq!(counts(&world).await, [1; 15]);
}

#[tokio::test]
async fn a_collection_that_is_its_own_index_is_gone_through_too() {
    let world = Server::new().await;
    let clustered = doc! { "key": { "_id": 1 }, "unique": true };
    world.run(doc! { "create": "c", "clusteredIndex": clustered }).await;
    fill(&world, (0..20).map(Bson::Int32).chain(["a", "b"].map(Bson::from))).await;
    let mut store = leased(&world, "a").await;
    let (work, record) = (count(), progress());
    let job = job(&work, &record);
    begun(&mut store, job, 2).await;
    go_through(&mut store, job, 3).await;
    assert_eq!(counts(&world).await, [1; 22]);
}

#[tokio::test]
async fn a_change_that_shrinks_its_own_filter_skips_nothing() {
    let world = Server::new().await;
    let mut store = leased(&world, "a").await;
    fill(&world, 0..100).await;
    let work = update(doc! { "n": 0, "_id": { "$gte": 10 } }, doc! { "$inc": { "n": 1 } });
    let record = progress();
    let job = job(&work, &record);
    begun(&mut store, job, 1).await;
    assert_eq!(go_through(&mut store, job, 7).await, (100, 90));
    assert_eq!(counts(&world).await, [vec![0; 10], vec![1; 90]].concat());
}

#[tokio::test]
async fn a_pipeline_looks_at_each_document() {
    let world = Server::new().await;
    let mut store = leased(&world, "a").await;
    fill(&world, 0..10).await;
    let stages = vec![doc! { "$set": { "n": { "$add": ["$n", "$_id", 1] } } }];
    let change = Change::Update(Update::Pipeline(stages));
    let work = Work::Documents { collection: "c".to_owned(), filter: doc! {}, change };
    let record = progress();
    let job = job(&work, &record);
    begun(&mut store, job, 2).await;
    go_through(&mut store, job, 3).await;
    assert_eq!(counts(&world).await, (1..11).collect::<Vec<_>>());
}

#[tokio::test]
async fn documents_are_deleted_by_their_filter() {
    let world = Server::new().await;
    let mut store = leased(&world, "a").await;
    fill(&world, 0..50).await;
    let filter = doc! { "$expr": { "$eq": [{ "$mod": ["$_id", 3] }, 0] } };
    let work = Work::Documents { collection: "c".to_owned(), filter, change: Change::Delete };
    let record = progress();
    let job = job(&work, &record);
    begun(&mut store, job, 1).await;
    assert_eq!(go_through(&mut store, job, 4).await, (50, 17));
    assert_eq!(counts(&world).await.len(), 33);
}

#[tokio::test]
async fn a_sweep_finds_only_what_is_above_the_rounds_before() {
    let world = Server::new().await;
    let mut store = leased(&world, "a").await;
    let (work, record) = (count(), progress());
    let job = job(&work, &record);
    fill(&world, 0..10).await;
    begun(&mut store, job, 2).await;
    // These belong to nobody's round yet.
    fill(&world, ["x", "y"]).await;
    go_through(&mut store, job, 3).await;
    assert_eq!(counts(&world).await, [vec![0; 2], vec![1; 10]].concat());
    let past = store.shards(job).await.unwrap();
    let sweep = store.survey(job, 2, &past).await.unwrap();
    let numbers: Vec<_> = sweep.shards.iter().map(|shard| (shard.index, shard.round)).collect();
    assert_eq!((numbers, sweep.estimate), (vec![(3, 1), (4, 1)], 2));
    store.begin(job, &sweep.shards, &[]).await.unwrap();
    go_through(&mut store, job, 3).await;
    assert_eq!(counts(&world).await, [1; 12]);
    let past = store.shards(job).await.unwrap();
    assert_eq!(past.len(), 4);
    assert_eq!(store.survey(job, 2, &past).await.unwrap().shards, []);
}

#[tokio::test]
async fn where_there_is_nothing_there_are_no_shards_and_nothing_is_created() {
    let world = Server::new().await;
    let mut store = world.open("a").await;
    let (work, record) = (count(), progress());
    let survey = store.survey(job(&work, &record), 4, &[]).await.unwrap();
    assert_eq!((survey.key.as_str(), survey.shards), ("_id", vec![]));
    assert_eq!(store.shards(job(&work, &record)).await.unwrap(), []);
    assert!(world.tables().await.is_empty());
    world.run(doc! { "create": "c" }).await;
    assert_eq!(store.survey(job(&work, &record), 4, &[]).await.unwrap().shards, []);
}

#[tokio::test]
async fn shards_are_of_one_size_and_leave_nothing_between() {
    let world = Server::new().await;
    let mut store = leased(&world, "a").await;
    fill(&world, 0..20_000).await;
    let (work, record) = (count(), progress());
    let job = job(&work, &record);
    let shards = begun(&mut store, job, 4).await;
    assert_eq!(shards.len(), 4);
    assert_eq!(store.shards(job).await.unwrap(), shards);
    for pair in shards.windows(2) {
        assert_eq!(Some(&pair[0].upto), pair[1].after.as_ref());
    }
    go_through(&mut store, job, 3000).await;
    assert_eq!(counts(&world).await, vec![1; 20_000]);
    for shard in store.shards(job).await.unwrap() {
        assert_eq!(shard.passed, 5000, "{shard:?}");
    }
}

#[tokio::test]
async fn what_is_no_plain_collection_is_refused() {
    for (options, word) in [
        (doc! { "create": "c", "viewOn": "other", "pipeline": [] }, "view"),
        (doc! { "create": "c", "timeseries": { "timeField": "t" } }, "time series"),
        (doc! { "create": "c", "capped": true, "size": 5000 }, "capped"),
    ] {
        let world = Server::new().await;
        world.run(options).await;
        let mut store = world.open("a").await;
        let (work, record) = (count(), progress());
        let error = store.survey(job(&work, &record), 1, &[]).await.unwrap_err();
        assert_eq!(error.fate, Fate::Refused);
        assert!(error.said.message.contains(word) && error.said.hint.is_some(), "{error:?}");
    }
    let world = Server::new().await;
    let mut store = world.open("a").await;
    let copy = Work::CopyToMongo {
        query: "TABLE a".to_owned(),
        to: "c".to_owned(),
        by: By::Id("id".to_owned()),
    };
    let record = progress();
    assert_eq!(fate(store.survey(job(&copy, &record), 1, &[]).await), Fate::Refused);
}

/// Each asks for its commit again for ten seconds, so both do at once.
#[tokio::test]
async fn a_reply_that_is_lost_at_the_commit_of_a_batch_is_told_by_the_cursor() {
    let cuts = [(Cut::Reply, "no-reply", 3), (Cut::Request, "no-request", 0)];
    let lost = cuts.map(|(cut, run_id, at)| async move {
        let world = Server::new().await;
        fill(&world, 0..5).await;
        let address =
            cutting_after(world.address(), "nModified_is_armed", "commitTransaction", cut).await;
        let mut store = world.open_at(&address, run_id).await;
        store.found("pair").await.unwrap();
        take(&mut store, run_id).await;
        let arms = doc! { "$inc": { "n": 1, "nModified_is_armed": 1 } };
        let (work, record) = (update(doc! {}, arms), progress());
        let job = job(&work, &record);
        begun(&mut store, job, 1).await;
        let shard = store.claim(job).await.unwrap().unwrap();
        assert_eq!(fate(store.batch(job, &shard, 3).await), Fate::Unknown, "{cut:?}");
        let mut next = world.open("b").await;
        let seen = next.shards(job).await.unwrap().remove(0);
        assert_eq!((seen.passed, seen.rows), (at, at), "{cut:?}");
        let changed = counts(&world).await.iter().filter(|count| **count == 1).count();
        assert_eq!(changed as u64, at, "{cut:?}");
        // Whoever comes next ends what was left open, and goes on from there.
        let died = doc! { "$set": { "outcome": "died" } };
        let runs = world.db.collection::<Document>("migration_runs");
        runs.update_one(doc! { "_id": run_id }, died).await.unwrap();
        next.evict().await.unwrap();
        world.expire().await;
        take(&mut next, "b").await;
        assert_eq!(go_through(&mut next, job, 3).await.0, 5 - at, "{cut:?}");
        assert_eq!(counts(&world).await, [1; 5], "{cut:?}");
    });
    futures_util::future::join_all(lost).await;
}

#[tokio::test]
async fn a_batch_that_was_done_already_is_not_done_again() {
    let world = Server::new().await;
    let mut store = leased(&world, "a").await;
    fill(&world, 0..10).await;
    let (work, record) = (count(), progress());
    let job = job(&work, &record);
    begun(&mut store, job, 1).await;
    let shard = store.claim(job).await.unwrap().unwrap();
    store.batch(job, &shard, 4).await.unwrap().unwrap();
    let error = store.batch(job, &shard, 4).await.unwrap_err();
    assert!(error.fate == Fate::Refused && !is_passing(&error), "{error}");
    assert_eq!(counts(&world).await, [vec![0; 6], vec![1; 4]].concat());
}

/// Makes all that was recorded look old.
async fn age(world: &Server) {
    let old = doc! { "$set": { "recorded_at": DateTime::from_millis(1) } };
    world.db.collection::<Document>("migration_steps").update_many(doc! {}, old).await.unwrap();
}

/// A run that is under way beside the one that has the lease.
async fn beside(world: &Server, run_id: &str) -> Mongo {
    let run = doc! { "_id": run_id, "run_id": run_id, "outcome": "running" };
    world.db.collection::<Document>("migration_runs").insert_one(run).await.unwrap();
    world.open(run_id).await
}

#[tokio::test]
async fn a_shard_is_given_to_one_and_taken_from_who_is_silent_or_over() {
    let world = Server::new().await;
    let mut store = leased(&world, "a").await;
    fill(&world, 0..10).await;
    let (work, record) = (count(), progress());
    let job = job(&work, &record);
    begun(&mut store, job, 1).await;
    let mut other = beside(&world, "b").await;
    let shard = store.claim(job).await.unwrap().unwrap();
    assert!(shard.claimed);
    assert_eq!(store.claim(job).await.unwrap(), None, "never twice to one run");
    assert_eq!(other.claim(job).await.unwrap(), None, "somebody works at it");
    age(&world).await;
    assert_eq!(store.claim(job).await.unwrap(), None, "never twice to one run");
    assert!(store.keep(job, &shard).await.unwrap());
    assert_eq!(other.claim(job).await.unwrap(), None, "it was kept");

    age(&world).await;
    let stolen = other.claim(job).await.unwrap().expect("its run says nothing");
    assert_eq!(store.batch(job, &shard, 3).await.unwrap(), None);
    assert!(!store.keep(job, &shard).await.unwrap());
    store.yield_shard(job, &shard).await.unwrap();
    assert_eq!(counts(&world).await, [0; 10]);
    assert_eq!(store.claim(job).await.unwrap(), None, "it is not given back by a stranger");

    other.yield_shard(job, &stolen).await.unwrap();
    assert!(store.claim(job).await.unwrap().is_some(), "it is free");
    store.release(&outcome("failed")).await.unwrap();
    assert!(other.claim(job).await.unwrap().is_some(), "its run is over");
}

#[tokio::test]
async fn of_many_at_once_each_shard_is_given_to_one() {
    let world = Server::new().await;
    let mut store = leased(&world, "a").await;
    fill(&world, 0..100).await;
    let (work, record) = (count(), progress());
    let job = job(&work, &record);
    let shards = begun(&mut store, job, 5).await.len();
    let mut takers = Vec::new();
    for _ in 0..8 {
        takers.push(store.another().await.unwrap());
    }
    let claims = takers.iter_mut().map(async |taker| taker.claim(job).await.unwrap());
    let given = futures_util::future::join_all(claims).await;
    let given: Vec<u32> = given.into_iter().flatten().map(|shard| shard.index).collect();
    assert_eq!((given.len(), given.iter().collect::<BTreeSet<_>>().len()), (shards, shards));
}

#[tokio::test]
async fn workers_of_one_run_do_not_lose_a_document() {
    let world = Server::new().await;
    let mut store = leased(&world, "a").await;
    fill(&world, 0..600).await;
    let (work, record) = (count(), progress());
    let job = job(&work, &record);
    begun(&mut store, job, 4).await;
    let mut workers = Vec::new();
    for _ in 0..4 {
        workers.push(store.another().await.unwrap());
    }
    let work = workers.iter_mut().map(|worker| go_through(worker, job, 25));
    futures_util::future::join_all(work).await;
    assert_eq!(counts(&world).await, [1; 600]);
}

#[tokio::test]
async fn a_run_that_lost_its_lease_writes_no_batch() {
    let world = Server::new().await;
    let mut store = leased(&world, "a").await;
    fill(&world, 0..10).await;
    let (work, record) = (count(), progress());
    let job = job(&work, &record);
    begun(&mut store, job, 1).await;
    let shard = store.claim(job).await.unwrap().unwrap();
    world.expire().await;
    let mut new = world.open("b").await;
    take(&mut new, "b").await;
    assert_eq!(fate(store.batch(job, &shard, 3).await), Fate::Fenced);
    assert_eq!(fate(store.begin(job, &[], &[record_of_start()]).await), Fate::Fenced);
    assert_eq!(counts(&world).await, [0; 10]);
    assert!(new.claim(job).await.unwrap().is_some(), "its run died");
}

#[tokio::test]
async fn whoever_takes_the_lease_waits_for_a_batch_that_is_about_to_commit() {
    let world = Server::new().await;
    let mut store = leased(&world, "a").await;
    fill(&world, 0..10).await;
    let (work, record) = (count(), progress());
    let job = job(&work, &record);
    begun(&mut store, job, 1).await;
    store.claim(job).await.unwrap().unwrap();
    // What a batch has done right before its commit.
    let mut batch = world.db.client().start_session().await.unwrap();
    batch.start_transaction().await.unwrap();
    let steps = world.db.collection::<Document>("migration_steps");
    let shard = doc! { "event": "progress" };
    let moved = doc! { "$set": { "cursor.passed": 5_i64 } };
    steps.update_one(shard.clone(), moved).session(&mut batch).await.unwrap();
    world.expire().await;
    let mut new = world.open("b").await;
    let runs = world.db.collection::<Document>("migration_runs");
    let ended = async {
        let died = doc! { "_id": "a", "outcome": "died" };
        until("the end of the old run", async || {
            runs.count_documents(died.clone()).await.unwrap() == 1
        })
        .await;
        assert_eq!(runs.count_documents(doc! { "_id": "b" }).await.unwrap(), 0, "it waits");
        batch.commit_transaction().await.unwrap();
    };
    tokio::join!(take(&mut new, "b"), ended);
    let shard = steps.find_one(shard).await.unwrap().unwrap();
    let cursor = shard.get_document("cursor").unwrap();
    assert_eq!(
        (cursor.get_i64("passed").unwrap(), cursor.get_bool("claimed").unwrap()),
        (5, false)
    );
}

fn record_of_start() -> lockstep::core::history::Entry {
    record(1, Event::Started)
}

#[tokio::test]
async fn another_writer_in_the_way_is_a_passing_error_and_leaves_nothing() {
    let world = Server::new().await;
    let mut store = leased(&world, "a").await;
    fill(&world, 0..10).await;
    let (work, record) = (count(), progress());
    let lock = Some(Duration::from_millis(50));
    let job = Job { timeouts: Timeouts { lock, statement: None }, ..job(&work, &record) };
    begun(&mut store, job, 1).await;
    let shard = store.claim(job).await.unwrap().unwrap();
    let mut foreign = world.db.client().start_session().await.unwrap();
    foreign.start_transaction().await.unwrap();
    let touch = doc! { "$set": { "m": 1 } };
    let documents = world.db.collection::<Document>("c");
    documents.update_one(doc! { "_id": 2 }, touch).session(&mut foreign).await.unwrap();
    let error = store.batch(job, &shard, 5).await.unwrap_err();
    assert_eq!(error.fate, Fate::Refused, "{error}");
    assert!(is_passing(&error), "{error}");
    foreign.abort_transaction().await.unwrap();
    assert_eq!(counts(&world).await, [0; 10]);
    assert_eq!(store.batch(job, &shard, 5).await.unwrap().unwrap().rows, 5);
}

#[tokio::test]
async fn shards_and_entries_are_written_together_and_shards_are_no_steps() {
    let world = Server::new().await;
    let mut store = leased(&world, "a").await;
    fill(&world, 0..10).await;
    let (work, record_) = (count(), progress());
    let job = job(&work, &record_);
    let survey = store.survey(job, 3, &[]).await.unwrap();
    assert_eq!(survey.shards.len(), 3);
    store.begin(job, &survey.shards, &[record(1, Event::Started)]).await.unwrap();
    assert_eq!(store.shards(job).await.unwrap(), survey.shards);
    let seen = store.read().await.unwrap().records;
    assert_eq!(seen.iter().filter(|seen| seen.event == Event::Progress).count(), 1);
    assert_eq!(seen.len(), 2);
    assert_eq!(store.records_of(Version(1)).await.unwrap().len(), 2);
    // Neither of them, where one is there already.
    let again = store.begin(job, &survey.shards, &[record(2, Event::Started)]).await;
    assert_eq!(fate(again), Fate::Fenced);
    assert_eq!(store.read().await.unwrap().records.len(), 2);
}

#[tokio::test]
async fn whoever_steers_is_heard_and_written_down() {
    let world = Server::new().await;
    let mut store = world.open("a").await;
    assert_eq!(store.steering().await.unwrap(), Steering::default());
    let by = |id: &str| Run { reason: None, ..run(id) };
    assert_eq!(fate(store.steer(&Steer::Resume, &by("x")).await), Fate::Refused);
    store.found("pair").await.unwrap();
    assert_eq!(store.steering().await.unwrap(), Steering::default());
    store.steer(&Steer::Pause("too hot".to_owned()), &by("p")).await.unwrap();
    store.steer(&Steer::Speed(0.5), &by("s")).await.unwrap();
    let asked = Steering { paused: Some("too hot".to_owned()), speed: 0.5 };
    assert_eq!(store.steering().await.unwrap(), asked);
    store.steer(&Steer::Resume, &by("r")).await.unwrap();
    assert_eq!(store.steering().await.unwrap(), Steering { paused: None, speed: 0.5 });
    let runs = world.runs().await;
    let of = |id: &str| {
        let run = runs.iter().find(|run| run.run_id == id).unwrap();
        (run.command.clone(), run.outcome.clone(), run.reason.clone())
    };
    let told = |command: &str, reason: Option<&str>| {
        (command.to_owned(), "ok".to_owned(), reason.map(str::to_owned))
    };
    assert_eq!(of("p"), told("backfill pause", Some("too hot")));
    assert_eq!(of("s"), told("backfill speed", Some("speed 0.5")));
    assert_eq!(of("r"), told("backfill resume", None));
}

const LIMITS: Limits = Limits {
    replication_lag: Duration::from_secs(5),
    commit_latency: Duration::from_millis(100),
    active_backends: None,
};

#[tokio::test]
async fn every_probe_of_a_replica_set_says_something() {
    let world = Server::new().await;
    let mut store = world.open("a").await;
    // Right after the first write for a while the majority seems to be far behind.
    until("a server that is well", async || {
        let readings = store.probe(&LIMITS).await;
        let names: Vec<&str> = readings.iter().map(|reading| reading.probe).collect();
        assert_eq!(names, ["flow control", "majority commit lag", "tickets in use", "dirty cache"]);
        readings.iter().all(|reading| match &reading.level {
            Level::Nothing(why) | Level::Off(why) => panic!("{}: {why}", reading.probe),
            Level::At { ratio, says } => !says.is_empty() && (0.0..1.0).contains(ratio),
        })
    })
    .await;
}

#[tokio::test]
async fn a_standalone_server_takes_only_what_may_be_done_twice() {
    let server = Standalone::start();
    let client = mongodb::Client::with_uri_str(&server.uri).await.unwrap();
    let collection = client.database("app").collection::<Document>("c");
    let documents = (0..20).map(|id| doc! { "_id": id, "n": 0 });
    collection.insert_many(documents).await.unwrap();
    let mut store = connect(&server.uri, "a").await;
    store.found("pair").await.unwrap();
    take(&mut store, "a").await;
    let record = progress();

    let stages = vec![doc! { "$set": { "n": { "$add": ["$n", 1] } } }];
    let change = Change::Update(Update::Pipeline(stages));
    let pipeline = Work::Documents { collection: "c".to_owned(), filter: doc! {}, change };
    let call = Call { name: "add".to_owned(), text: "lockstep.add('1')".to_owned() };
    let change = Change::Call(call);
    let function = Work::Documents { collection: "c".to_owned(), filter: doc! {}, change };
    for harmful in [count(), pipeline, function] {
        let error = store.survey(job(&harmful, &record), 1, &[]).await.unwrap_err();
        assert_eq!(error.fate, Fate::Refused);
        assert!(error.said.hint.as_deref().unwrap().contains("replica set"), "{error:?}");
    }

    let work = update(doc! { "n": 0 }, doc! { "$set": { "n": 1 } });
    let job = job(&work, &record);
    let shards = store.survey(job, 2, &[]).await.unwrap().shards;
    let started = crate::subject::record(1, Event::Started);
    store.begin(job, &shards, &[started]).await.unwrap();
    assert_eq!(store.shards(job).await.unwrap(), shards);
    assert_eq!(go_through(&mut store, job, 3).await, (20, 20));
    assert_eq!(collection.count_documents(doc! { "n": 1 }).await.unwrap(), 20);

    let readings = store.probe(&LIMITS).await;
    let none = |reading: &&Reading| matches!(reading.level, Level::Nothing(_));
    assert_eq!(readings.iter().filter(none).count(), 2, "no member to lag behind: {readings:?}");

    // Nothing of a run that lost its lease gets in.
    let next = vec![Shard { index: 3, done: false, after: None, ..shards[0].clone() }];
    store.begin(job, &next, &[]).await.unwrap();
    let shard = store.claim(job).await.unwrap().unwrap();
    collection.update_many(doc! {}, doc! { "$set": { "n": 0 } }).await.unwrap();
    let past = doc! { "$set": { "expires_at": DateTime::from_millis(1) } };
    let control = client.database("app").collection::<Document>("migration_control");
    control.update_one(doc! {}, past).await.unwrap();
    let mut new = connect(&server.uri, "b").await;
    take(&mut new, "b").await;
    assert_eq!(fate(store.batch(job, &shard, 3).await), Fate::Fenced);
    assert_eq!(collection.count_documents(doc! { "n": 1 }).await.unwrap(), 0);
}
