//! What the two stores answer when they are asked for one value, and that a guard
//! lets nothing slip in between.

use crate::mongo;
use crate::subject::{record, take, until};
use crate::support::Database;
use bson::{Bson, Document, doc};
use lockstep::core::history::{Event, Timestamp};
use lockstep::core::id::Version;
use lockstep::core::parse::manifest::{
    self, Expect, Invariant, MongoAnswer, MongoSource, Relation,
};
use lockstep::core::parse::sql::{Transaction, cut, read};
use lockstep::core::step::{Guard, PgStep, QualifiedName, Timeouts};
use lockstep::engine::invariant::{Asking, Broken, Checked, Unanswered, check};
use lockstep::engine::{Clock, Stop, StopReason};
use lockstep::store::invariant::Invariants as _;
use lockstep::store::mongo::Mongo;
use lockstep::store::postgres::{Postgres, PostgresConfig};
use lockstep::store::{Fate, Store as _, StoreError, Stores};
use std::time::Duration;
use tokio_postgres::{Client, NoTls};

async fn sql(database: &Database) -> Client {
    let (client, connection) =
        tokio_postgres::connect(&database.postgres_url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn postgres(database: &Database) -> Postgres {
    let config = PostgresConfig::parse(&database.postgres_url).unwrap();
    Postgres::connect(config, "a").await.unwrap()
}

async fn ask(store: &mut Postgres, query: &str) -> Result<Bson, StoreError> {
    store.value(query, Timeouts::default()).await
}

fn decimal(text: &str) -> Bson {
    Bson::Decimal128(text.parse().unwrap())
}

#[tokio::test]
async fn postgres_gives_values_as_what_they_are() {
    let database = Database::new("invariants");
    let mut store = postgres(&database).await;
    sql(&database)
        .await
        .batch_execute(
            "CREATE TYPE mood AS ENUM ('fine'); CREATE TABLE q (q int); INSERT INTO q VALUES (9)",
        )
        .await
        .unwrap();
    let text = |text: &str| Bson::String(text.to_owned());
    let long = "ä\"\\".repeat(1_000_000);
    let cases = [
        ("SELECT NULL::int", Bson::Null),
        ("SELECT ''::text", text("")),
        ("SELECT 'NULL'", text("NULL")),
        ("SELECT count(*) FROM q", Bson::Int32(1)),
        ("SELECT q FROM q", Bson::Int32(9)),
        ("TABLE q", Bson::Int32(9)),
        ("SELECT 9007199254740993", Bson::Int64(9_007_199_254_740_993)),
        ("SELECT 1.10::numeric", decimal("1.10")),
        (
            "SELECT 12345678901234567890123456789012345::numeric",
            text("12345678901234567890123456789012345"),
        ),
        ("SELECT 0.1::float8", decimal("0.1")),
        ("SELECT 'NaN'::float8", text("NaN")),
        ("SELECT true", Bson::Boolean(true)),
        ("SELECT 'fine'::mood", text("fine")),
        ("SELECT date '2026-11-20'", text("2026-11-20")),
        ("SELECT timestamp '2026-11-20 10:00'", text("2026-11-20T10:00:00")),
        ("SELECT ARRAY[1, 2]", Bson::Array(vec![Bson::Int32(1), Bson::Int32(2)])),
        ("WITH w AS (SELECT 7 AS a) SELECT a FROM w -- so\n", Bson::Int32(7)),
        ("SELECT repeat('ä\"\\', 1000000)", text(&long)),
    ];
    for (query, expected) in cases {
        assert_eq!(ask(&mut store, query).await.unwrap(), expected, "{query}");
    }
}

#[tokio::test]
async fn postgres_refuses_what_is_not_one_value() {
    let database = Database::new("invariants");
    let mut store = postgres(&database).await;
    let stranger = sql(&database).await;
    stranger
        .batch_execute(
            "CREATE TABLE t (a int); CREATE FUNCTION mend() RETURNS int LANGUAGE sql \
             AS 'INSERT INTO t VALUES (1) RETURNING a'",
        )
        .await
        .unwrap();
    let cases = [
        ("SELECT 1, 2", "the query has 2 columns for an answer", None),
        ("SELECT 1 AS a, 2 AS a", "the query has 2 columns for an answer", None),
        ("SELECT a FROM t", "the query has no row for an answer", None),
        ("SELECT 1 UNION ALL SELECT 1", "the query has more than one row for an answer", None),
        ("SELECT FROM pg_class LIMIT 1", "the query has 0 columns for an answer", None),
        ("SELECT count(*) FROM nowhere", "relation \"nowhere\" does not exist", Some("42P01")),
        ("SELECT mend()", "cannot execute INSERT in a read-only transaction", Some("25006")),
        ("SELECT 1/0", "division by zero", Some("22012")),
    ];
    for (query, message, code) in cases {
        let error = ask(&mut store, query).await.unwrap_err();
        assert_eq!(error.fate, Fate::Refused, "{query}");
        assert_eq!(error.said.message, message, "{query}");
        let expected = code.map(|code| format!("SQLSTATE {code}"));
        assert_eq!(error.said.code, expected, "{query}");
        assert_eq!(error.said.hint.is_some(), code.is_none(), "{query}");
    }
    let wrong = ask(&mut store, "SELECT count(*) FROM nowhere").await.unwrap_err();
    assert_eq!(wrong.said.position, Some("SELECT count(*) FROM ".len()));
    let limit = Timeouts { statement: Some(Duration::from_millis(20)), ..Timeouts::default() };
    let late = store.value("SELECT pg_sleep(60)::text", limit).await.unwrap_err();
    assert_eq!(late.said.code.as_deref(), Some("SQLSTATE 57014"));
    // Nothing of it stays in the session.
    assert_eq!(ask(&mut store, "SELECT count(*) FROM t").await.unwrap(), Bson::Int32(0));
}

#[tokio::test]
async fn a_query_is_asked_with_the_search_path_of_the_scripts() {
    let database = Database::new("invariants");
    sql(&database)
        .await
        .batch_execute(
            "CREATE SCHEMA app; CREATE TABLE app.t (a int); INSERT INTO app.t VALUES (3)",
        )
        .await
        .unwrap();
    let mut config = PostgresConfig::parse(&database.postgres_url).unwrap();
    config.schema = Some("app".to_owned());
    let mut store = Postgres::connect(config, "a").await.unwrap();
    assert_eq!(ask(&mut store, "SELECT a FROM t").await.unwrap(), Bson::Int32(3));
}

#[tokio::test]
async fn ten_rows_that_offend_are_shown_each_on_a_line() {
    let database = Database::new("invariants");
    let mut store = postgres(&database).await;
    let query = "SELECT i AS id, NULL AS role, E'a\\nb' AS a, true AS b, repeat('x', 5000) AS c \
                 FROM generate_series(1, 1000000) AS i";
    let rows = store.rows(query, Timeouts::default()).await.unwrap();
    assert_eq!(rows.len(), 10);
    let start = r#"id = 1, role = NULL, a = "a\nb", b = true, c = "xxx"#;
    assert!(rows[0].starts_with(start), "{}", rows[0]);
    assert!(rows[0].chars().count() < 300, "{}", rows[0]);
    let nothing = store.rows("SELECT 1 WHERE false", Timeouts::default()).await.unwrap();
    assert!(nothing.is_empty());
}

fn pipeline(stages: Vec<Document>) -> MongoAnswer {
    MongoAnswer::Pipeline { collection: "c".to_owned(), pipeline: stages }
}

#[tokio::test]
async fn mongo_gives_values_as_what_they_are() {
    let database = Database::new("invariants");
    let mut store = mongo::connect(&database.mongo_uri, "a").await;
    let client = mongodb::Client::with_uri_str(&database.mongo_uri).await.unwrap();
    let c = client.database(&database.name).collection::<Document>("c");
    let long = "ä".repeat(1_000_000);
    let documents = vec![
        doc! { "_id": 1, "a": "", "n": 2_i64, "long": &long },
        doc! { "_id": 2, "a": null, "n": 3.5 },
    ];
    c.insert_many(documents).await.unwrap();
    let of = |id: i32, field: &str| {
        pipeline(vec![
            doc! { "$match": { "_id": id } },
            doc! { "$project": { field: 1, "_id": 0 } },
        ])
    };
    let group = |value: Document| doc! { "$group": { "_id": null, "x": value } };
    let nothing = doc! { "$match": { "_id": 99 } };
    let count = |filter: Document| MongoAnswer::Count { collection: "c".to_owned(), filter };
    let cases = [
        (count(doc! {}), Bson::Int32(2)),
        (count(doc! { "a": { "$ne": null } }), Bson::Int32(1)),
        (count(doc! { "_id": 99 }), Bson::Int32(0)),
        (of(1, "a"), Bson::String(String::new())),
        (of(1, "long"), Bson::String(long)),
        (of(2, "a"), Bson::Null),
        // A missing field reads as null.
        (of(2, "long"), Bson::Null),
        (pipeline(vec![group(doc! { "$sum": "$n" })]), Bson::Double(5.5)),
        (pipeline(vec![doc! { "$count": "n" }]), Bson::Int32(2)),
        (pipeline(vec![nothing.clone(), doc! { "$count": "n" }]), Bson::Int32(0)),
        (pipeline(vec![nothing.clone(), group(doc! { "$sum": 1 })]), Bson::Int32(0)),
        (pipeline(vec![nothing.clone(), group(doc! { "$max": "$n" })]), Bson::Null),
        (
            pipeline(vec![doc! { "$group": { "_id": { "$type": "$_id" } } }]),
            Bson::String("int".to_owned()),
        ),
    ];
    for (question, expected) in cases {
        let found = store.value(&question, Timeouts::default()).await.unwrap();
        assert_eq!(found, expected, "{question}");
    }
    let unheard_of = MongoAnswer::Count { collection: "nowhere".to_owned(), filter: doc! {} };
    assert_eq!(store.value(&unheard_of, Timeouts::default()).await.unwrap(), Bson::Int32(0));

    let refusals = [
        (pipeline(vec![doc! { "$match": {} }]), "the pipeline gives more than one document"),
        (
            pipeline(vec![doc! { "$match": { "_id": 2 } }]),
            "the pipeline gives a document of 2 values",
        ),
        (pipeline(vec![doc! { "$out": "d" }]), "the pipeline has a `$out`, which writes"),
        (pipeline(vec![doc! { "$nonsense": 1 }]), "Unrecognized pipeline stage name: '$nonsense'"),
    ];
    for (question, message) in refusals {
        let error = store.value(&question, Timeouts::default()).await.unwrap_err();
        assert_eq!((error.fate, error.said.message.as_str()), (Fate::Refused, message));
    }
    let names = client.database(&database.name).list_collection_names().await.unwrap();
    assert_eq!(names, ["c"]);

    let source = |find: Document| MongoSource {
        collection: "c".to_owned(),
        find,
        pipeline: vec![doc! { "$project": { "long": 0 } }],
    };
    let rows = store.rows(&source(doc! { "_id": 2 }), Timeouts::default()).await.unwrap();
    assert_eq!(rows, ["_id = 2, a = NULL, n = 3.5"]);
    let many: Vec<Document> = (100..150).map(|id| doc! { "_id": id }).collect();
    c.insert_many(many).await.unwrap();
    let rows = store.rows(&source(doc! {}), Timeouts::default()).await.unwrap();
    assert_eq!(rows.len(), 10);
}

/// A clock that tells nothing: no decision depends on it.
struct NoClock;

impl Clock for NoClock {
    fn now(&self) -> Timestamp {
        Timestamp(0)
    }
}

fn invariant(toml: &str) -> Invariant {
    manifest::read(&format!("[[invariant]]\nname = 'x'\n{toml}")).unwrap().invariants.remove(0)
}

async fn checked(stores: &mut Stores<Postgres, Mongo>, toml: &str) -> Result<Checked, StoreError> {
    let (_sender, stop) = Stop::new();
    let asking = asking(Duration::from_millis(1), &stop);
    match check(stores, &invariant(toml), &asking, &mut |_| {}).await {
        Ok(checked) => Ok(checked),
        Err(Unanswered::Store(error)) => Err(error),
        Err(Unanswered::Stopped(_)) => unreachable!("nobody asked for it"),
    }
}

fn asking(lag: Duration, stop: &Stop) -> Asking<'_> {
    Asking {
        clock: &NoClock,
        timeouts: Timeouts::default(),
        lag: Some(lag),
        stop,
        version: Version(1),
        record: None,
    }
}

#[tokio::test]
async fn an_invariant_of_either_store_or_of_both_is_checked() {
    let database = Database::new("invariants");
    let stranger = sql(&database).await;
    stranger
        .batch_execute(
            "CREATE TABLE t (id int, role text); INSERT INTO t VALUES (7, NULL), (8, 'x')",
        )
        .await
        .unwrap();
    let client = mongodb::Client::with_uri_str(&database.mongo_uri).await.unwrap();
    let c = client.database(&database.name).collection::<Document>("c");
    c.insert_one(doc! { "_id": 7 }).await.unwrap();
    let mut stores = Stores {
        postgres: Some(postgres(&database).await),
        mongo: Some(mongo::connect(&database.mongo_uri, "a").await),
    };
    let good = checked(&mut stores, "postgres = 'SELECT count(*) FROM t'\nexpect = '>= 2'").await;
    let good = good.unwrap();
    assert_eq!((good.holds, good.expected.as_str(), good.found.as_str()), (true, ">= 2", "2"));

    let toml = "postgres = 'SELECT count(*) FROM t WHERE role IS NULL'\n\
                sample = 'SELECT * FROM t WHERE role IS NULL'";
    let bad = checked(&mut stores, toml).await.unwrap();
    assert_eq!((bad.expected.as_str(), bad.found.as_str()), ("0", "1"));
    let broken = bad.broken(&invariant(toml)).expect("it does not hold");
    assert_eq!(broken.sample, ["id = 7, role = NULL"]);

    // A sample that cannot be had does not hide what is wrong.
    let toml = "mongo = { collection = 'c', count = '{}' }\nsample = 'SELECT * FROM nowhere'";
    let bad = checked(&mut stores, toml).await.unwrap();
    assert!(!bad.holds);
    let reason = "(no sample: relation \"nowhere\" does not exist (SQLSTATE 42P01))";
    assert_eq!(bad.sample, [reason]);

    let both = "postgres = 'SELECT count(*) FROM t'\nmongo = { collection = 'c', count = '{}' }";
    let differs = checked(&mut stores, both).await.unwrap();
    assert_eq!((differs.holds, differs.found.as_str()), (false, "2 in Postgres, 1 in MongoDB"));
    c.insert_one(doc! { "_id": 8 }).await.unwrap();
    assert!(checked(&mut stores, both).await.unwrap().holds);

    stores.mongo = None;
    let error = checked(&mut stores, both).await.unwrap_err();
    assert_eq!(error.said.message, "it is not configured");
}

/// The answer of MongoDB is one document behind at first.
#[tokio::test]
async fn what_differs_is_asked_again_before_it_counts() {
    let database = Database::new("invariants");
    sql(&database)
        .await
        // The first question finds 1, every later one 0.
        .batch_execute(
            "CREATE SEQUENCE s; CREATE FUNCTION behind() RETURNS bigint LANGUAGE sql \
             AS 'SELECT CASE WHEN pg_sequence_last_value(''s'') IS NULL THEN 1 ELSE 0 END'",
        )
        .await
        .unwrap();
    let mut stores = Stores {
        postgres: Some(postgres(&database).await),
        mongo: Some(mongo::connect(&database.mongo_uri, "a").await),
    };
    let stranger = sql(&database).await;
    let toml = "postgres = 'SELECT behind()'\nmongo = { collection = 'c', count = '{}' }";
    let (ask_to_stop, stop) = Stop::new();
    let patient = asking(Duration::from_secs(30), &stop);
    let invariant = invariant(toml);
    let mut deaf = |_| {};
    tokio::select! {
        biased;
        early = check(&mut stores, &invariant, &patient, &mut deaf) => {
            panic!("it did not wait for twice the lag: {early:?}");
        }
        () = async {
            // It has asked once when its session has been in a transaction.
            until("it has asked", async || {
                let asked = "SELECT EXISTS (SELECT 1 FROM pg_stat_activity \
                     WHERE datname = current_database() AND query = 'ROLLBACK')";
                stranger.query_one(asked, &[]).await.unwrap().get(0)
            })
            .await;
        } => {}
    }
    // Whoever asks to stop does not wait for that either.
    ask_to_stop.send(Some(StopReason::Interrupted)).unwrap();
    let stopped = check(&mut stores, &invariant, &patient, &mut |_| {}).await;
    assert_eq!(stopped, Err(Unanswered::Stopped(StopReason::Interrupted)));
    ask_to_stop.send(None).unwrap();
    stranger.batch_execute("SELECT nextval('s')").await.unwrap();
    let asking = asking(Duration::ZERO, &stop);
    assert!(check(&mut stores, &invariant, &asking, &mut |_| {}).await.unwrap().holds);
}

/// A cleanup that drops a column, behind a guard.
fn cleanup(script: &str) -> PgStep {
    let pieces = cut(read(script).unwrap(), Transaction::On);
    let [piece] = <[_; 1]>::try_from(pieces).expect("one step");
    let name = |schema: Option<&str>, name: &str| QualifiedName {
        schema: schema.map(str::to_owned),
        name: name.to_owned(),
    };
    PgStep {
        statements: piece.statements,
        guards: vec![Guard {
            name: "nobody without a role".to_owned(),
            query: "SELECT count(*) FROM users WHERE role IS NULL".to_owned(),
            expect: Expect { relation: Relation::Equal, value: Bson::Int32(0) },
            sample: Some("SELECT id, role FROM users WHERE role IS NULL ORDER BY id".to_owned()),
        }],
        // What the cleanup itself makes is not there yet, and an index is no table.
        locks: vec![name(Some("public"), "users"), name(None, "users_pkey"), name(None, "not_yet")],
        timeouts: Timeouts { lock: Some(Duration::from_secs(20)), ..Timeouts::default() },
    }
}

const CLEANUP: &str = "ALTER TABLE users DROP COLUMN old; CREATE TABLE not_yet (a int)";

async fn world() -> (Database, Client) {
    let database = Database::new("guards");
    let stranger = sql(&database).await;
    stranger
        .batch_execute(
            "CREATE TABLE users (id int PRIMARY KEY, role text, old text); \
             INSERT INTO users VALUES (1, 'a', 'b')",
        )
        .await
        .unwrap();
    (database, stranger)
}

async fn leased_in(database: &Database, run_id: &str) -> Postgres {
    let config = PostgresConfig::parse(&database.postgres_url).unwrap();
    let mut store = Postgres::connect(config, run_id).await.unwrap();
    store.found("pair").await.unwrap();
    take(&mut store, run_id).await;
    store
}

async fn columns(stranger: &Client) -> i64 {
    let sql = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'users'";
    stranger.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_row_that_slipped_in_before_the_cleanup_stops_it() {
    let (database, stranger) = world().await;
    let mut store = leased_in(&database, "a").await;
    let count = "SELECT count(*) FROM users WHERE role IS NULL";
    assert_eq!(ask(&mut store, count).await.unwrap(), Bson::Int32(0), "validate is content");
    stranger
        .batch_execute("INSERT INTO users VALUES (2, NULL, 'c'), (3, NULL, 'd')")
        .await
        .unwrap();

    let error = store.commit(&cleanup(CLEANUP), &[record(1, Event::Applied)]).await.unwrap_err();
    assert_eq!(error.fate, Fate::Refused);
    let broken = Broken {
        name: "nobody without a role".to_owned(),
        questions: vec![count.to_owned()],
        expected: "0".to_owned(),
        found: "2".to_owned(),
        sample: vec!["id = 2, role = NULL".to_owned(), "id = 3, role = NULL".to_owned()],
        next: None,
    };
    assert_eq!(error.said.broken.as_deref(), Some(&broken));
    // Neither effect nor record.
    assert_eq!(columns(&stranger).await, 3);
    assert!(store.read().await.unwrap().records.is_empty());

    stranger.batch_execute("DELETE FROM users WHERE role IS NULL").await.unwrap();
    store.commit(&cleanup(CLEANUP), &[record(1, Event::Applied)]).await.unwrap();
    assert_eq!(columns(&stranger).await, 2);
}

#[tokio::test]
async fn who_writes_while_the_guard_is_asked_waits_for_the_cleanup() {
    let (database, stranger) = world().await;
    let mut store = leased_in(&database, "a").await;
    // The guard is not done before the gate opens: what is written then would be
    // missed by it.
    stranger.batch_execute("SELECT pg_advisory_lock(7)").await.unwrap();
    let mut step = cleanup(CLEANUP);
    step.guards[0].query = "WITH bad AS MATERIALIZED (SELECT count(*) AS n FROM users \
         WHERE role IS NULL), gate AS MATERIALIZED (SELECT pg_advisory_xact_lock(7)::text AS g) \
         SELECT bad.n + length(gate.g) FROM bad, gate"
        .to_owned();
    let entries = [record(1, Event::Applied)];
    let run = store.commit(&step, &entries);
    let watcher = sql(&database).await;
    let waits = async |whose: &str, what: &str| {
        let sql = format!(
            "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = current_database() \
             AND application_name {whose} AND wait_event_type = 'Lock' AND wait_event = '{what}')"
        );
        until(what, async || watcher.query_one(&sql, &[]).await.unwrap().get(0)).await;
    };
    let application = sql(&database).await;
    let others = async {
        waits("= 'lockstep/a'", "advisory").await;
        let insert = tokio::spawn(async move {
            application.batch_execute("INSERT INTO users (id, role) VALUES (2, NULL)").await
        });
        waits("<> 'lockstep/a'", "relation").await;
        stranger.batch_execute("SELECT pg_advisory_unlock(7)").await.unwrap();
        vec![insert]
    };
    let (done, inserts) = tokio::join!(run, others);
    done.unwrap();
    // It came after the cleanup, and not in between.
    for insert in inserts {
        insert.await.unwrap().unwrap();
    }
    assert_eq!(columns(&stranger).await, 2);
}

#[tokio::test]
async fn a_guard_waits_for_who_is_writing_and_sees_what_was_written() {
    let (database, mut stranger) = world().await;
    let mut store = leased_in(&database, "a").await;
    let writing = stranger.transaction().await.unwrap();
    writing.batch_execute("INSERT INTO users VALUES (2, NULL, 'c')").await.unwrap();
    let (step, entries) = (cleanup(CLEANUP), [record(1, Event::Applied)]);
    let run = store.commit(&step, &entries);
    let watcher = sql(&database).await;
    let others = async {
        until("the cleanup waits for the lock", async || {
            let waiting = "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted \
                 AND relation = 'users'::regclass AND mode = 'AccessExclusiveLock')";
            watcher.query_one(waiting, &[]).await.unwrap().get(0)
        })
        .await;
        writing.commit().await.unwrap();
    };
    let (done, ()) = tokio::join!(run, others);
    let error = done.unwrap_err();
    let broken = error.said.broken.expect("the guard saw the row");
    assert_eq!(broken.sample, ["id = 2, role = NULL"]);
}
