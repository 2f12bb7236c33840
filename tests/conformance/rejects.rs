//! Rows that cannot be written, in each of the four ways of a backfill: what is
//! recorded of them, what is written beside them, and what is said when there is one
//! too many.

use crate::mongo;
use crate::postgres;
use crate::standalone::Standalone;
use crate::subject::{Subject, leased, record_of, take};
use bson::{Document, doc};
use lockstep::core::backfill::Backfill;
use lockstep::core::history::Event;
use lockstep::core::notice::Notice;
use lockstep::core::pace;
use lockstep::core::parse::manifest::{By, Change, MongoSource, Pace, Update, Work};
use lockstep::core::step::{QualifiedName, Timeouts};
use lockstep::engine::Stop;
use lockstep::engine::backfill::{BackfillError, Copying, Done, Hands, Settings, Task, run};
use lockstep::store::backfill::Job;
use lockstep::store::copy::Query;
use lockstep::store::mongo::Mongo;
use lockstep::store::{Fate, Store, StoreError};
use std::collections::BTreeSet;

/// Does a backfill, as far as it goes.
async fn ends<H: Hands>(hands: &mut H, work: &Work, max_bad: u64) -> Result<Done, StoreError> {
    let pace = Pace { batch: Some(16), ..Pace::default() };
    let timeouts = Timeouts::default();
    let title = "rows".to_owned();
    let backfill = Backfill { title, work: work.clone(), pace, max_bad, timeouts };
    let record = record_of(1, "execute/rows", 1, Event::Progress);
    let job = Job { work, record: &record, timeouts, max_bad };
    let task = Task { job, backfill: &backfill, entries: &[] };
    let (_, stop) = Stop::new();
    let pace = pace::Settings { throttled: false, ..pace::Settings::default() };
    let settings = Settings { pace: &pace, minute: &|| 0, stop: &stop };
    let mut notices = |_: Notice| {};
    match Box::pin(run(hands, None::<&mut Mongo>, task, settings, &mut notices)).await {
        Ok(done) => Ok(done),
        Err(BackfillError::Store(error)) => Err(error),
        Err(error) => panic!("{error}"),
    }
}

/// All that an error says.
fn all(error: &StoreError) -> String {
    assert_eq!(error.fate, Fate::Refused, "{error}");
    let said = &error.said;
    let (detail, hint) = (said.detail.as_deref(), said.hint.as_deref());
    format!("{error} | {} | {}", detail.unwrap_or_default(), hint.unwrap_or_default())
}

#[track_caller]
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
}

/// Of each row that is put aside in Postgres: number, key, row, reason.
async fn aside_in_postgres(world: &postgres::Server) -> Vec<String> {
    let sql = "SELECT number || ': ' || key || ' | ' || row || ' | ' || reason \
               FROM migration_rejects WHERE version = 1 AND step = 'execute/rows' AND attempt = 1 \
               AND shard = 1 AND run_id = 'a' AND rejected_at <= now() ORDER BY number";
    world.texts(sql).await
}

/// The same in MongoDB.
async fn aside_in_mongo(world: &mongo::Server) -> Vec<String> {
    let mut found = Vec::new();
    for it in world.at("migration_rejects").await {
        let fields: BTreeSet<&str> = it.keys().map(String::as_str).collect();
        let documented = "_id version step attempt number shard key row reason run_id rejected_at";
        assert_eq!(fields, documented.split(' ').collect());
        let ours = doc! { "version": 1_i64, "step": "execute/rows", "shard": 1_i64, "run_id": "a" };
        assert!(ours.iter().all(|(field, value)| it.get(field) == Some(value)), "{it}");
        let text = |field: &str| it.get_str(field).unwrap();
        let number = it.get_i64("number").unwrap();
        found.push(format!("{number}: {} | {} | {}", text("key"), text("row"), text("reason")));
    }
    found.sort();
    found
}

fn table(name: &str) -> QualifiedName {
    QualifiedName { schema: None, name: name.to_owned() }
}

#[tokio::test]
async fn rows_of_postgres_that_are_refused_in_place() {
    let world = postgres::Server::new().await;
    world
        .run(
            "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL, low int CHECK (low < 1000)); \
             INSERT INTO t SELECT g, g FROM generate_series(1, 100) AS g; \
             UPDATE t SET n = 2000 + id WHERE id IN (1, 50, 51, 100)",
        )
        .await;
    let mut store = leased(&world, "a").await;
    let set = "low = n".to_owned();
    let work = Work::Update { table: table("t"), set, condition: None, key: Vec::new() };

    let said = all(&ends(&mut store, &work, 0).await.unwrap_err());
    says(&said, &["the row with the key 1 cannot be rewritten", "t_low_check", "SQLSTATE 23514"]);
    says(&said, &[r#"the row is {"id":1,"n":2001,"low":null}"#, "max_bad = N", "goes on where"]);
    assert_eq!(aside_in_postgres(&world).await, [""; 0]);

    let said = all(&ends(&mut store, &work, 3).await.unwrap_err());
    says(&said, &["more rows than `max_bad` (3)", "the key 100", "SELECT key, reason FROM"]);
    assert_eq!(aside_in_postgres(&world).await.len(), 3);

    let done = ends(&mut store, &work, 4).await.unwrap();
    assert_eq!((done.rejected, done.rows, done.passed), (4, 96, 100));
    let reason = "new row for relation \"t\" violates check constraint \"t_low_check\"";
    let aside = [(1, 1), (2, 50), (3, 51), (4, 100)].map(|(number, id)| {
        let row = format!(r#"{{"id":{id},"n":{},"low":null}}"#, 2000 + id);
        format!("{number}: {id} | {row} | {reason}")
    });
    assert_eq!(aside_in_postgres(&world).await, aside);
    let missed = "SELECT id::text FROM t WHERE low IS DISTINCT FROM n ORDER BY t.id";
    assert_eq!(world.texts(missed).await, ["1", "50", "51", "100"]);
}

#[tokio::test]
async fn what_is_put_off_to_the_commit_is_about_a_row_too() {
    let world = postgres::Server::new().await;
    world
        .run(
            "CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent VALUES (1); \
             CREATE TABLE t (id int PRIMARY KEY, p int REFERENCES parent DEFERRABLE INITIALLY \
             DEFERRED); INSERT INTO t SELECT g FROM generate_series(1, 40) AS g",
        )
        .await;
    let mut store = leased(&world, "a").await;
    let sql = "UPDATE t SET p = CASE WHEN id = 33 THEN 7 ELSE 1 END WHERE {batch}".to_owned();
    let work = Work::Sql { sql, table: table("t"), key: Vec::new() };
    assert_eq!(ends(&mut store, &work, 1).await.unwrap().rejected, 1);
    let aside = aside_in_postgres(&world).await.join("; ");
    says(&aside, &["1: 33 | ", "foreign key", "Key (p)=(7) is not present"]);
    assert_eq!(world.texts("SELECT id::text FROM t WHERE p IS NULL").await, ["33"]);
}

#[tokio::test]
async fn a_column_that_is_missing_and_a_lock_are_about_no_row() {
    let world = postgres::Server::new().await;
    world.run("CREATE TABLE t (id int PRIMARY KEY, n int)").await;
    world.run("INSERT INTO t SELECT g FROM generate_series(1, 40) AS g").await;
    let mut store = leased(&world, "a").await;
    let set = "n = gone".to_owned();
    let work = Work::Update { table: table("t"), set, condition: None, key: Vec::new() };
    let error = ends(&mut store, &work, 100).await.unwrap_err();
    says(&all(&error), &["gone"]);
    assert_eq!(aside_in_postgres(&world).await, [""; 0]);
    assert_eq!(world.texts("SELECT id::text FROM t WHERE n IS NOT NULL").await, [""; 0]);
}

fn refusing() -> Document {
    doc! { "create": "c", "validator": { "low": { "$not": { "$gt": 1000 } } } }
}

fn lowered() -> Work {
    let stages = vec![doc! { "$set": { "low": "$n" } }];
    let change = Change::Update(Update::Pipeline(stages));
    Work::Documents { collection: "c".to_owned(), filter: doc! {}, change }
}

fn numbered(ids: impl IntoIterator<Item = i32>) -> Vec<Document> {
    let high = [1, 50, 51, 100];
    let n = |id: i32| if high.contains(&id) { 2000 + id } else { id };
    ids.into_iter().map(|id| doc! { "_id": id, "n": n(id) }).collect()
}

#[tokio::test]
async fn documents_that_are_refused_in_place() {
    let world = mongo::Server::new().await;
    world.run(refusing()).await;
    let all_of_them = world.db.collection::<Document>("c");
    all_of_them.insert_many(numbered(1..=100)).await.unwrap();
    let mut store = leased(&world, "a").await;
    let work = lowered();

    let said = all(&ends(&mut store, &work, 0).await.unwrap_err());
    says(&said, &["the row with the key 1 cannot be rewritten", "Document failed validation"]);
    says(&said, &["n = 2001", "code 121", "max_bad = N", "goes on where it stopped"]);
    assert_eq!(aside_in_mongo(&world).await, [""; 0]);

    let said = all(&ends(&mut store, &work, 3).await.unwrap_err());
    says(&said, &["more rows than `max_bad` (3)", "the key 100", "db.migration_rejects.find("]);
    let done = ends(&mut store, &work, 4).await.unwrap();
    assert_eq!((done.rejected, done.rows, done.passed), (4, 96, 100));
    let aside = aside_in_mongo(&world).await;
    for (number, (aside, id)) in (1..).zip(aside.iter().zip([1, 50, 51, 100])) {
        let begins = format!("{number}: {id} | _id = {id}, n = {} | Document failed", 2000 + id);
        assert!(aside.starts_with(&begins), "{aside}");
    }
    assert_eq!(aside.len(), 4);
    let missed = all_of_them.count_documents(doc! { "low": null }).await.unwrap();
    assert_eq!(missed, 4);
}

#[tokio::test]
async fn rows_that_cannot_become_documents() {
    let postgres = postgres::Server::new().await;
    let world = mongo::Server::new().await;
    world.run(refusing()).await;
    postgres
        .run(
            "CREATE TABLE t (id int PRIMARY KEY, low numeric); \
             INSERT INTO t SELECT g, g FROM generate_series(1, 100) AS g; \
             UPDATE t SET low = 5000 WHERE id IN (1, 50, 100); \
             UPDATE t SET low = 0.12345678901234567890123456789012345 WHERE id IN (49, 80)",
        )
        .await;
    let mut source = postgres.open("reader").await;
    let mut target = leased(&world, "a").await;
    let key = ["_id".to_owned()];
    let query = "SELECT id AS _id, low FROM t".to_owned();
    let by = By::Id("_id".to_owned());
    let work = Work::CopyToMongo { query: query.clone(), to: "c".to_owned(), by };
    let rows = Query { sql: &query, key: &key };
    let mut hands = Copying::new(&mut source, &mut target, rows).await.unwrap();

    let said = all(&ends(&mut hands, &work, 0).await.unwrap_err());
    says(&said, &["row with the key 1", "Document failed validation", "5000", "goes on where"]);
    let said = all(&ends(&mut hands, &work, 4).await.unwrap_err());
    says(&said, &["more rows than `max_bad` (4)", "the key 100"]);
    let done = ends(&mut hands, &work, 5).await.unwrap();
    assert_eq!((done.rejected, done.rows, done.passed), (5, 95, 100));
    let mut keys: Vec<String> = aside_in_mongo(&world).await;
    keys.sort_by_key(|it| it.split([':', '|']).nth(1).unwrap().trim().parse::<i32>().unwrap());
    for (aside, (id, why)) in keys.iter().zip([
        (1, "validation"),
        (49, "digits"),
        (50, "validation"),
        (80, "digits"),
        (100, "validation"),
    ]) {
        says(aside, &[&format!(": {id} | "), why]);
    }
    assert_eq!(keys.len(), 5);
    assert_eq!(world.at("c").await.len(), 95);
}

#[tokio::test]
async fn documents_that_cannot_become_rows() {
    let world = postgres::Server::new().await;
    let mongo = mongo::Server::new().await;
    world.run("CREATE TABLE t (_id int PRIMARY KEY, low int CHECK (low < 1000))").await;
    let mut documents: Vec<Document> = (1..=100).map(|id| doc! { "_id": id, "low": id }).collect();
    for id in [1, 50, 100] {
        documents[id - 1].insert("low", 5000);
    }
    documents[48].insert("low", "a\0b");
    documents[79].insert("odd", true);
    mongo.db.collection::<Document>("c").insert_many(documents).await.unwrap();
    let mut source = mongo.open("reader").await;
    let mut target = leased(&world, "a").await;
    let from = MongoSource { collection: "c".to_owned(), find: doc! {}, pipeline: Vec::new() };
    let key = vec!["_id".to_owned()];
    let work = Work::CopyToPostgres { from: from.clone(), to: table("t"), key };
    let mut hands = Copying::new(&mut source, &mut target, &from).await.unwrap();

    let said = all(&ends(&mut hands, &work, 0).await.unwrap_err());
    says(&said, &["row with the key 1", "t_low_check", "5000", "goes on where it stopped"]);
    let said = all(&ends(&mut hands, &work, 4).await.unwrap_err());
    says(&said, &["more rows than `max_bad` (4)", "the key 100"]);
    let done = ends(&mut hands, &work, 5).await.unwrap();
    assert_eq!((done.rejected, done.rows, done.passed), (5, 95, 100));
    let mut keys = aside_in_postgres(&world).await;
    keys.sort_by_key(|it| it.split([':', '|']).nth(1).unwrap().trim().parse::<i32>().unwrap());
    for (aside, (id, why)) in keys.iter().zip([
        (1, "t_low_check"),
        (49, "`low`"),
        (50, "t_low_check"),
        (80, "no such column"),
        (100, "t_low_check"),
    ]) {
        says(aside, &[&format!(": {id} | "), why]);
    }
    assert_eq!(keys.len(), 5);
    assert_eq!(world.texts("SELECT count(*)::text FROM t").await, ["95"]);
}

#[tokio::test]
async fn a_history_from_before_gets_the_table() {
    let world = postgres::Server::new().await;
    let mut store = leased(&world, "a").await;
    world.run("DROP TABLE migration_rejects").await;
    store.found("again").await.unwrap();
    assert_eq!(world.texts("SELECT count(*)::text FROM migration_rejects").await, ["0"]);
    let world = mongo::Server::new().await;
    let mut store = leased(&world, "a").await;
    world.db.collection::<Document>("migration_rejects").drop().await.unwrap();
    store.found("again").await.unwrap();
    let names = world.db.list_collection_names().await.unwrap();
    assert!(names.contains(&"migration_rejects".to_owned()), "{names:?}");
}

#[tokio::test]
async fn documents_whose_change_cannot_be_computed_are_refused_one_by_one() {
    let world = mongo::Server::new().await;
    let ids = 1..=40;
    let documents = ids.map(|id| match id {
        7 => doc! { "_id": id, "text": "seven", "n": 1 },
        23 => doc! { "_id": id, "text": "23", "n": 0 },
        id => doc! { "_id": id, "text": id.to_string(), "n": 1 },
    });
    world.db.collection::<Document>("c").insert_many(documents).await.unwrap();
    let mut store = leased(&world, "a").await;
    let change = |set: Document| {
        let change = Change::Update(Update::Pipeline(vec![doc! { "$set": set }]));
        Work::Documents { collection: "c".to_owned(), filter: doc! {}, change }
    };
    let wrong = change(doc! { "i": { "$toInteger": "$text" } });
    let error = ends(&mut store, &wrong, 100).await.unwrap_err();
    says(&all(&error), &["$toInteger"]);
    assert_eq!(aside_in_mongo(&world).await, [""; 0]);
    let work = change(doc! { "i": { "$toInt": "$text" }, "q": { "$divide": [1, "$n"] } });
    assert_eq!(ends(&mut store, &work, 2).await.unwrap().rejected, 2);
    let aside = aside_in_mongo(&world).await.join("; ");
    says(&aside, &["1: 7 | ", "seven", "2: 23 | ", "zero"]);
    let written = world.db.collection::<Document>("c").count_documents(doc! { "q": 1.0 }).await;
    assert_eq!(written.unwrap(), 38);
}

#[tokio::test]
async fn without_transactions_each_is_put_aside_once_too() {
    let server = Standalone::start();
    let client = mongodb::Client::with_uri_str(&server.uri).await.unwrap();
    let database = client.database("app");
    database.run_command(refusing()).await.unwrap();
    let all_of_them = database.collection::<Document>("c");
    all_of_them.insert_many(numbered(1..=100)).await.unwrap();
    let mut store = mongo::connect(&server.uri, "a").await;
    store.found("pair").await.unwrap();
    take(&mut store, "a").await;
    let operators = doc! { "$set": { "low": 1 } };
    let change = Change::Update(Update::Operators(operators));
    let work = Work::Documents { collection: "c".to_owned(), filter: doc! {}, change };
    let strict = doc! { "n": { "$not": { "$gt": 1000 } } };
    let modify = doc! { "collMod": "c", "validator": strict, "validationLevel": "strict" };
    database.run_command(modify).await.unwrap();

    ends(&mut store, &work, 2).await.unwrap_err();
    // A crash after a row was put aside leaves the cursor before it.
    let steps = database.collection::<Document>("migration_steps");
    let back = doc! { "$set": { "cursor.after": 40, "cursor.passed": 40_i64 } };
    steps.update_one(doc! { "event": "progress" }, back).await.unwrap();
    let done = ends(&mut store, &work, 4).await.unwrap();
    assert_eq!((done.rejected, done.passed), (4, 100));
    let rejects = database.collection::<Document>("migration_rejects");
    for id in ["1", "50", "51", "100"] {
        assert_eq!(rejects.count_documents(doc! { "key": id }).await.unwrap(), 1, "{id}");
    }
    assert_eq!(all_of_them.count_documents(doc! { "low": 1 }).await.unwrap(), 96);
}
