//! What a plan meets, and how far a step is, as real servers tell it.

use crate::connect;
use crate::support::Database;
use bson::doc;
use lockstep::core::id::{StepId, Version};
use lockstep::core::locks::Lock;
use lockstep::core::outlook::{Asks, Filter, Matches, Wanted, of_statement};
use lockstep::core::parse::sql::{Transaction, cut, read};
use lockstep::core::step::PgStep;
use lockstep::store::Store;
use lockstep::store::mongo::{Mongo, MongoConfig};
use lockstep::store::postgres::{Postgres, PostgresConfig};
use std::time::{Duration, Instant};

async fn postgres(database: &Database, run: &str) -> Postgres {
    Postgres::connect(PostgresConfig::parse(&database.postgres_url).unwrap(), run).await.unwrap()
}

async fn mongo(database: &Database) -> Mongo {
    Mongo::connect(MongoConfig::parse(&database.mongo_uri).await.unwrap(), "meets").await.unwrap()
}

#[tokio::test]
async fn postgres_tells_how_large_tables_are_and_what_is_locked_besides() {
    let database = Database::new("meets");
    let client = connect(&database.postgres_url).await;
    let made = "CREATE TABLE big (id int PRIMARY KEY, name text);
        INSERT INTO big SELECT i, repeat('x', 100) FROM generate_series(1, 20000) AS i;
        CREATE TABLE child (big_id int CONSTRAINT to_big REFERENCES big);
        CREATE TABLE parts (at int) PARTITION BY RANGE (at);
        CREATE TABLE part_1 PARTITION OF parts FOR VALUES FROM (0) TO (20000);
        INSERT INTO parts SELECT i FROM generate_series(1, 15000) AS i;
        CREATE INDEX big_name ON big (name);
        ANALYZE";
    client.batch_execute(made).await.unwrap();
    let mut store = postgres(&database, "meets").await;

    let statement = "ALTER TABLE big ADD CONSTRAINT u UNIQUE (id, name)";
    let facts = store.look_ahead(&Wanted::of([statement])).await;
    let outlook = of_statement(statement, &facts);
    let touch = &outlook.touches[0];
    assert_eq!(touch.rows, Some(20_000));
    // A row has more than 100 bytes, and so has an entry of the index.
    assert!(touch.bytes.unwrap() > 2_000_000 && touch.index_bytes.unwrap() > 2_000_000);
    assert!(
        outlook.warnings[0].starts_with("ACCESS EXCLUSIVE on big (≈20 k rows, "),
        "{outlook:?}"
    );

    // A partitioned table is as large as its parts.
    let statement = "ALTER TABLE parts ADD CHECK (at > 0)";
    let facts = store.look_ahead(&Wanted::of([statement])).await;
    assert_eq!(of_statement(statement, &facts).touches[0].rows, Some(15_000));

    let statement = "DROP INDEX big_name";
    let facts = store.look_ahead(&Wanted::of([statement])).await;
    let outlook = of_statement(statement, &facts);
    assert_eq!(outlook.touches[0].name, "big");
    assert_eq!(outlook.touches[0].lock, Some(Lock::AccessExclusive));

    let statement = "ALTER TABLE child DROP CONSTRAINT to_big";
    let facts = store.look_ahead(&Wanted::of([statement])).await;
    let notes = of_statement(statement, &facts).notes;
    assert_eq!(notes, ["ACCESS EXCLUSIVE on big too: foreign key to_big"]);

    // Somebody who locks a table against everybody holds up its size, and no plan.
    client.batch_execute("BEGIN; LOCK TABLE big").await.unwrap();
    let statement = "ALTER TABLE big ADD CHECK (id > 0)";
    let facts = store.look_ahead(&Wanted::of([statement])).await;
    assert_eq!(facts.unknown, None);
    assert_eq!(of_statement(statement, &facts).touches[0].rows, Some(20_000));
    client.batch_execute("ROLLBACK").await.unwrap();

    // And nothing was made by asking.
    let sql = "SELECT count(*) FROM pg_class WHERE relname LIKE 'migration%'";
    assert_eq!(client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test]
async fn mongo_tells_what_is_there_and_how_many_documents_match() {
    let database = Database::new("meets");
    let client = mongodb::Client::with_uri_str(&database.mongo_uri).await.unwrap();
    let db = client.default_database().unwrap();
    let people = db.collection::<bson::Document>("people");
    let documents = (0..500).map(|i| doc! { "_id": i, "old": i % 5 == 0 });
    people.insert_many(documents).await.unwrap();
    let index = doc! { "name": "old_1", "key": { "old": 1 } };
    db.run_command(doc! { "createIndexes": "people", "indexes": [index] }).await.unwrap();
    let id = |at| StepId { version: Version(1), name: format!("up/mongo/{at}").parse().unwrap() };
    let filter =
        |query, one| vec![Filter { collection: "people".to_owned(), query, one, collation: None }];
    let asks = Asks {
        collections: ["people".to_owned(), "nowhere".to_owned()].into(),
        filters: [
            ((id(1), 0), filter(doc! { "old": true }, false)),
            ((id(2), 0), filter(doc! { "old": true }, true)),
            ((id(3), 0), filter(doc! { "$where": "sleep(100) || true" }, false)),
        ]
        .into(),
    };
    let facts = mongo(&database).await.look_ahead(&asks).await;
    assert_eq!(facts.unknown, None);
    assert_eq!(facts.collections.keys().collect::<Vec<_>>(), ["people"]);
    let known = &facts.collections["people"];
    assert_eq!(known.documents, Some(500));
    assert!(known.bytes.unwrap() > 0 && facts.free.unwrap() > 0);
    let names = known.indexes.iter().map(|it| it.get_str("name").unwrap());
    assert_eq!(names.collect::<Vec<_>>(), ["_id_", "old_1"]);
    assert_eq!(facts.matches[&(id(1), 0)], Matches::Documents(100));
    assert_eq!(facts.matches[&(id(2), 0)], Matches::Documents(1));
    let slow = Matches::Unknown("counting takes longer than 2 s".to_owned());
    assert_eq!(facts.matches[&(id(3), 0)], slow);
}

#[tokio::test]
async fn an_index_build_tells_how_far_it_is() {
    let database = Database::new("gauge");
    let client = connect(&database.postgres_url).await;
    client.batch_execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)").await.unwrap();
    let mut store = postgres(&database, "gauge").await;
    let mut gauge = store.gauge().expect("Postgres counts");
    assert_eq!(gauge.look().await, None);
    // A writer that does not end is waited for.
    client.batch_execute("BEGIN; INSERT INTO t VALUES (2)").await.unwrap();
    let pieces = cut(read("CREATE INDEX CONCURRENTLY i ON t (a)").unwrap(), Transaction::On);
    let statements = pieces.into_iter().flat_map(|piece| piece.statements).collect();
    let step = PgStep { statements, ..PgStep::default() };
    let run = lockstep::store::Run {
        id: "gauge".to_owned(),
        command: "up".to_owned(),
        user: "tester".to_owned(),
        host: "here".to_owned(),
        pid: 1,
        release: None,
        from_version: None,
        reason: None,
    };
    store.found("0e0e0e0e-0000-4000-8000-000000000000").await.unwrap();
    store.acquire(&run).await.unwrap();
    let watching = async {
        let began = Instant::now();
        let doing = loop {
            match gauge.look().await {
                Some(doing) if doing.unit == "sessions" && doing.total > 0 => break doing,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
            assert!(began.elapsed() < Duration::from_mins(1), "nothing is told");
        };
        client.batch_execute("COMMIT").await.unwrap();
        doing
    };
    let (built, doing) = tokio::join!(store.perform(&step), watching);
    built.unwrap();
    assert_eq!((doing.done, doing.total), (0, 1));
    assert!(doing.what.starts_with("waiting for writers"), "{doing:?}");
}
