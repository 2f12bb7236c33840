//! Copies from Postgres to MongoDB: each row is its document, whatever its key is,
//! whatever was there, whatever dies.

use crate::mongo;
use crate::postgres;
use crate::proxy::{Cut, cutting_after};
use crate::standalone::Standalone;
use crate::subject::{Recorded, Subject, fate, leased, take};
use bson::{Bson, Document, doc};
use lockstep::core::backfill::{Batch, Key, Shard};
use lockstep::core::parse::manifest::{By, Work};
use lockstep::store::backfill::{Backfills, is_passing};
use lockstep::store::copy::{Page, PageLimit, Query, Source, Target};
use lockstep::store::mongo::Mongo;
use lockstep::store::postgres::Postgres;
use lockstep::store::{Fate, Store, StoreError};
use serde_json::json;
use std::time::Duration;

/// More than any page here has.
const BYTES: usize = 8 << 20;

fn copy_of(query: &str, by: By) -> Recorded {
    Recorded::new(Work::CopyToMongo { query: query.to_owned(), to: "c".to_owned(), by })
}

fn rows(copy: &Recorded) -> Query<'_> {
    match &copy.work {
        Work::CopyToMongo { query, by, .. } => Query { sql: query, key: by.columns() },
        other => panic!("{other:?}"),
    }
}

fn id(column: &str) -> By {
    By::Id(column.to_owned())
}

fn on(fields: &[&str]) -> By {
    By::Fields(fields.iter().map(|&field| field.to_owned()).collect())
}

/// All of `t`, by its `id`.
fn plain() -> Recorded {
    copy_of("SELECT id AS _id, n FROM t", id("_id"))
}

const NUMBERED: &str = "CREATE TABLE t (id int PRIMARY KEY, n int); \
                        INSERT INTO t SELECT i, i FROM generate_series(1, 50) AS i";

/// A database in each store, and a copy of the one into the other.
struct World {
    postgres: postgres::Server,
    mongo: mongo::Server,
    source: Postgres,
    target: Mongo,
    copy: Recorded,
}

impl World {
    /// With what a script makes in Postgres.
    async fn new(script: &str, copy: Recorded) -> World {
        let postgres = postgres::Server::new().await;
        let mongo = mongo::Server::new().await;
        postgres.run(script).await;
        let source = postgres.open("reader").await;
        let target = leased(&mongo, "a").await;
        World { postgres, mongo, source, target, copy }
    }

    async fn insert(&self, documents: impl IntoIterator<Item = Document>) {
        let all = self.mongo.db.collection::<Document>("c");
        all.insert_many(documents).await.unwrap();
    }

    async fn survey(&mut self, shards: usize) -> Result<Vec<Shard>, StoreError> {
        let World { source, target, copy, .. } = self;
        target.ready(copy.job()).await?;
        let past = target.shards(copy.job()).await.unwrap();
        let survey = source.survey_rows(rows(copy), copy.timeouts, shards, &past).await?;
        Ok(survey.shards)
    }

    async fn begin(&mut self, shards: usize) -> Vec<Shard> {
        let shards = self.survey(shards).await.unwrap();
        self.target.begin(self.copy.job(), &shards, &[]).await.unwrap();
        shards
    }

    async fn page(&mut self, shard: &Shard, limit: PageLimit) -> Result<Page, StoreError> {
        let World { source, copy, .. } = self;
        let (after, upto) = (shard.after.as_ref(), Some(&shard.upto));
        source.page(rows(copy), copy.timeouts, after, upto, limit).await
    }

    async fn put(&mut self, shard: &Shard, page: &Page) -> Result<Option<Batch>, StoreError> {
        assert_eq!(page.bad, [], "nothing is bad here");
        self.target.put(self.copy.job(), shard, page).await
    }

    async fn claimed(&mut self) -> Option<Shard> {
        self.target.claim(self.copy.job()).await.unwrap()
    }

    /// All shards that are to be had: keys passed, and documents written.
    async fn go_through(&mut self, rows: u64) -> Result<(u64, u64), StoreError> {
        let (mut passed, mut written) = (0, 0);
        while let Some(mut shard) = self.claimed().await {
            while !shard.done {
                let page = self.page(&shard, PageLimit { rows, bytes: BYTES }).await?;
                let batch = self.put(&shard, &page).await?.expect("the shard is ours");
                passed += batch.passed;
                written += batch.rows;
                shard = batch.shard;
            }
        }
        Ok((passed, written))
    }

    /// Begins, and copies everything.
    async fn copied(&mut self, rows: u64) -> (u64, u64) {
        self.begin(1).await;
        self.go_through(rows).await.unwrap()
    }

    /// Begins the same copy once more.
    async fn again(&mut self, rows: u64) -> (u64, u64) {
        self.copy.record.attempt += 1;
        self.copied(rows).await
    }

    /// Why it cannot be begun.
    async fn refusal(&mut self) -> String {
        let error = self.survey(1).await.unwrap_err();
        assert_eq!(error.fate, Fate::Refused, "{error}");
        said(&error)
    }

    /// The documents, in the order of `field`.
    async fn documents(&self, field: &str) -> Vec<Document> {
        let mut all = self.mongo.at("c").await;
        all.sort_by_key(|document| document.get(field).map(ToString::to_string));
        all
    }

    /// Fails unless there is a document for each row, and its `n` is what the row says.
    async fn all_there(&self, rows: usize) {
        let all = self.mongo.at("c").await;
        let wrong = |document: &&Document| {
            document.get("_id").and_then(Bson::as_i32) != document.get("n").and_then(Bson::as_i32)
        };
        assert_eq!((all.len(), all.iter().find(wrong)), (rows, None));
    }
}

fn said(error: &StoreError) -> String {
    let detail = error.said.detail.clone().unwrap_or_default();
    let hint = error.said.hint.clone().expect("it says what to do");
    format!("{}\n{detail}\n→ {hint}", error.said.message)
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
}

#[tokio::test]
async fn rows_are_copied_once_along_keys_of_every_type() {
    let keys = [
        ("bigint", "i * 1000000000000 - 7"),
        ("int", "100 - i"),
        ("smallint", "i"),
        ("numeric", "i / 3.0"),
        ("text", "chr(64 + i % 60) || i"),
        ("varchar(20)", "'Ä' || i"),
        ("char(12)", "'c' || i"),
        ("uuid", "md5(i::text)::uuid"),
        ("timestamptz", "'1999-12-31T23:59:59.999Z'::timestamptz + i * interval '1 millisecond'"),
        ("timestamp", "'1969-12-31T23:59:59.999'::timestamp + i * interval '1 second'"),
        ("date", "'1999-12-31'::date + i"),
        ("time", "'10:00'::time + i * interval '1 second'"),
        ("bytea", "decode(md5(i::text), 'hex')"),
        ("word", "'w' || i"),
        ("number", "i"),
        ("\"Mood\"", "('m' || i)::\"Mood\""),
    ];
    let labels: Vec<String> = (1..=60).map(|n| format!("'m{n}'")).collect();
    let types = format!(
        "CREATE DOMAIN word AS text; CREATE DOMAIN number AS bigint CHECK (VALUE > 0); \
         CREATE TYPE \"Mood\" AS ENUM ({})",
        labels.join(", ")
    );
    for (at, (kind, value)) in keys.into_iter().enumerate() {
        let script = format!(
            "{types}; CREATE TABLE t (k {kind} PRIMARY KEY, n int); \
             INSERT INTO t SELECT {value}, i FROM generate_series(1, 60) AS i"
        );
        let copy = copy_of("SELECT n, k FROM t", id("k"));
        let mut world = World::new(&script, copy).await;
        let (rows, shards) = [(7, 1), (1, 4), (60, 1), (59, 3)][at % 4];
        let begun = world.begin(shards).await;
        assert_eq!(begun.len(), shards, "{kind}");
        assert_eq!(world.go_through(rows).await.unwrap(), (60, 60), "{kind}");
        let documents = world.mongo.at("c").await;
        let mut numbers: Vec<i32> =
            documents.iter().map(|document| document.get_i32("n").unwrap()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=60).collect::<Vec<_>>(), "{kind}");
        assert!(documents.iter().all(|document| document.keys().eq(["_id", "n"])), "{kind}");
        // What is there is found by these keys.
        world.mongo.db.collection::<Document>("c").delete_one(doc! { "n": 7 }).await.unwrap();
        assert_eq!(world.again(rows).await, (60, 1), "{kind}");
        let recorded = world.target.shards(world.copy.job()).await.unwrap();
        assert!(recorded.iter().all(|shard| shard.done && !shard.claimed));
    }
}

#[tokio::test]
async fn values_arrive_as_the_type_table_says() {
    let script = "CREATE TYPE mood AS ENUM ('ok', 'bad'); CREATE DOMAIN money2 AS numeric(10, 2); \
        CREATE TABLE t (id bigint PRIMARY KEY, mood mood, moods mood[], amount money2, amounts money2[], \
        at timestamptz, doc jsonb, raw bytea, ids uuid[], \"odd name\" boolean); \
        INSERT INTO t VALUES (1, 'ok', '{ok,bad,NULL}', 1.5, '{1.25}', '2000-01-01T00:00:00.123999Z', \
        '{\"a\": [1, 2.5]}', '\\x0102', ARRAY['00000000-0000-0000-0000-000000000001'::uuid], true), \
        (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)";
    let mut world = World::new(script, copy_of("SELECT * FROM t -- all of it", id("id"))).await;
    assert_eq!(world.copied(10).await, (2, 2));
    let uuid = bson::Binary {
        subtype: bson::spec::BinarySubtype::Uuid,
        bytes: [[0; 15].as_slice(), &[1]].concat(),
    };
    let decimal = |text: &str| Bson::Decimal128(text.parse().unwrap());
    let raw = bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![1, 2] };
    let one = doc! {
        "_id": 1_i64, "mood": "ok", "moods": ["ok", "bad", null], "amount": decimal("1.50"),
        "amounts": [decimal("1.25")], "at": bson::DateTime::from_millis(946_684_800_123),
        "doc": { "a": [1, 2.5] }, "raw": raw, "ids": [uuid], "odd name": true,
    };
    let all = world.documents("_id").await;
    assert_eq!(all[0], one);
    let names: Vec<&String> = one.keys().collect();
    assert_eq!(all[1].keys().collect::<Vec<_>>(), names);
    assert!(all[1].iter().skip(1).all(|(_, value)| *value == Bson::Null), "{}", all[1]);
}

#[tokio::test]
async fn what_is_equal_is_left_what_differs_updated_and_what_is_missing_inserted() {
    for rows in [1, 7, 1000] {
        let mut world = World::new(NUMBERED, plain()).await;
        world
            .insert([
                doc! { "_id": 1, "n": 1, },
                // As the application would write it: the same by every measure.
                doc! { "n": 2.0, "_id": 2_i64 },
                doc! { "_id": 3, "n": 4, "more": "of the application" },
                doc! { "_id": 4, "n": 4, "more": "of the application" },
                doc! { "_id": 5 },
                doc! { "_id": 1000, "n": 1000 },
            ])
            .await;
        assert_eq!(world.copied(rows).await, (50, 47), "{rows}");
        let one = |id: i32| doc! { "_id": id };
        let at = async |id: i32| {
            let all = world.mongo.db.collection::<Document>("c");
            all.find_one(one(id)).await.unwrap().unwrap()
        };
        assert_eq!(at(2).await, doc! { "_id": 2_i64, "n": 2.0 }, "it was left");
        let more = "of the application";
        assert_eq!(at(3).await, doc! { "_id": 3, "n": 3, "more": more }, "what is not ours stays");
        assert_eq!(at(4).await, doc! { "_id": 4, "n": 4, "more": more });
        assert_eq!(world.mongo.at("c").await.len(), 51, "what has no row stays");
        assert_eq!(world.again(rows).await, (50, 0), "{rows}");
    }
}

#[tokio::test]
async fn fields_find_a_document_that_keeps_its_id() {
    let script = "CREATE TABLE t (a int, b text, n int, PRIMARY KEY (a, b)); \
                  INSERT INTO t SELECT i % 5, 'b' || i, i FROM generate_series(1, 40) AS i";
    for rows in [1, 3, 100] {
        let copy = copy_of("SELECT a, b, n FROM t", on(&["a", "b"]));
        let mut world = World::new(script, copy).await;
        let refusal = world.refusal().await;
        has(&refusal, &["no index of c begins with (a, b)", "createIndex({ \"a\": 1, \"b\": 1 }"]);
        world.insert([doc! { "_id": "kept", "b": "b7", "a": 2, "n": 0 }]).await;
        world.insert([doc! { "_id": "equal", "n": 8, "b": "b8", "a": 3 }]).await;
        let index = |keys: Document, more: Document| {
            let mut index = doc! { "key": keys, "name": "by" };
            index.extend(more);
            doc! { "createIndexes": "c", "indexes": [index] }
        };
        let part = doc! { "partialFilterExpression": { "n": 1 } };
        for (keys, more) in [(doc! { "a": 1 }, doc! {}), (doc! { "a": 1, "b": 1 }, part)] {
            world.mongo.run(index(keys, more)).await;
            has(&world.refusal().await, &["no index of c begins with (a, b)"]);
            world.mongo.run(doc! { "dropIndexes": "c", "index": "by" }).await;
        }
        world.mongo.run(index(doc! { "b": 1, "a": -1 }, doc! {})).await;
        world.begin(2).await;
        assert_eq!(world.go_through(rows).await.unwrap(), (40, 39), "{rows}");
        let all = world.mongo.at("c").await;
        assert_eq!(all.len(), 40);
        let kept =
            all.iter().find(|document| document.get("_id") == Some(&Bson::from("kept"))).unwrap();
        assert_eq!((kept.get_i32("n").unwrap(), kept.get_str("b").unwrap()), (7, "b7"));
        let made = |document: &&Document| document.get_object_id("_id").is_ok();
        assert_eq!(all.iter().filter(made).count(), 38);
        assert_eq!(world.again(rows).await, (40, 0));

        world.insert([doc! { "a": 2, "b": "b7" }]).await;
        world.copy.record.attempt += 1;
        world.begin(1).await;
        let error = world.go_through(rows).await.unwrap_err();
        has(&said(&error), &["several documents whose (a, b) is (2, \"b7\")", "unique: true"]);
    }
}

#[tokio::test]
async fn what_has_no_key_to_go_along_is_refused() {
    let script = "CREATE TABLE t (id int, k int, f float8, n int); \
                  INSERT INTO t SELECT i, NULLIF(i, 7), i, i FROM generate_series(1, 20) AS i";
    for (query, by, parts) in [
        ("SELECT id, n FROM t", id("_id"), ["no column `_id`", "its columns are id, n"]),
        ("SELECT k, n FROM t", id("k"), ["`k` is NULL", "IS NOT NULL"]),
        ("SELECT id, k FROM t", on(&["id", "k"]), ["`k` is NULL", "IS NOT NULL"]),
        ("SELECT f, n FROM t", id("f"), ["`f` is of type double precision", "cast it"]),
        ("SELECT id, n, k AS n FROM t", id("id"), ["two columns called `n`", "another name"]),
        (
            "SELECT id, point(1, 2) AS p FROM t",
            id("id"),
            ["column `p` is of type point", "`\"p\"::text`"],
        ),
        (
            "SELECT id, n::money AS m FROM t",
            id("id"),
            ["column `m` is of type money", "`\"m\"::numeric`"],
        ),
        ("SELECT id, t AS whole FROM t", id("id"), ["column `whole` is of type t", "cast it"]),
    ] {
        let mut world = World::new(script, copy_of(query, by)).await;
        world
            .mongo
            .run(doc! { "createIndexes": "c", "indexes": [
                { "key": { "id": 1, "k": 1 }, "name": "by" },
            ] })
            .await;
        has(&world.refusal().await, &parts);
    }
    // Two of its values are equal and are two documents.
    let script = "CREATE EXTENSION citext; CREATE TABLE t (id citext NOT NULL); \
                  CREATE INDEX ON t (id); INSERT INTO t VALUES ('A'), ('a')";
    let mut world = World::new(script, copy_of("SELECT id FROM t", id("id"))).await;
    has(&world.refusal().await, &["`id` is of type citext", "cast it"]);
    let script = "CREATE TABLE t (id int)";
    let mut world = World::new(script, copy_of("SELECT nothing FROM t", id("nothing"))).await;
    let error = world.survey(1).await.unwrap_err();
    assert_eq!(error.said.code.as_deref(), Some("SQLSTATE 42703"), "{error}");
}

#[tokio::test]
async fn two_rows_of_one_key_are_refused_wherever_a_page_ends() {
    let micros =
        "'2000-01-01T00:00:00Z'::timestamptz + i / 2 * interval '2 ms' + i * interval '1 us'";
    for (kind, value) in [
        ("int", "i / 2"),
        ("numeric", "CASE i % 2 WHEN 0 THEN i / 2 ELSE (i / 2)::numeric(9, 2) END"),
        ("text", "'t' || 10 + i / 2"),
        ("timestamptz", micros),
    ] {
        let script = format!(
            "CREATE TABLE t (k {kind} NOT NULL, n int); CREATE INDEX ON t (k); \
             INSERT INTO t SELECT {value}, i FROM generate_series(20, 29) AS i"
        );
        for rows in [1, 2, 3, 100] {
            let mut world = World::new(&script, copy_of("SELECT k, n FROM t", id("k"))).await;
            world.begin(1).await;
            let error = world.go_through(rows).await.unwrap_err();
            has(&said(&error), &["two rows with the key", "DISTINCT ON"]);
            assert_eq!(world.mongo.at("c").await.len(), 0, "{kind}, {rows}");
        }
    }
}

#[tokio::test]
async fn what_would_read_or_sort_everything_for_each_page_is_refused() {
    let script = "CREATE TABLE t (id int PRIMARY KEY, k int NOT NULL, grp int NOT NULL, n text); \
        CREATE TABLE other (id int PRIMARY KEY, t int NOT NULL, n int); \
        INSERT INTO t SELECT i, 30000 - i, i % 9, repeat('x', 200) FROM generate_series(1, 30000) AS i; \
        INSERT INTO other SELECT i, i, i FROM generate_series(1, 100000) AS i; \
        CREATE TABLE small (id int, name text); INSERT INTO small SELECT i, 'g' || i FROM generate_series(0, 8) AS i; \
        ANALYZE";
    let by_id = |query: &str| copy_of(query, id("id"));
    for (copy, part) in [
        (copy_of("SELECT k, n FROM t", id("k")), "read all of t"),
        (by_id("SELECT id::text AS id, n FROM t"), "read all of t"),
        (by_id("SELECT id + 0 AS id, n FROM t"), "read all of t"),
        (by_id("SELECT t.id, o.n FROM t JOIN other AS o ON o.t = t.id"), "read all of other"),
        (by_id("SELECT g AS id FROM generate_series(1, 1000000) AS g"), "sort"),
        // What stands in a WITH does not know in which order it is wanted.
        (by_id("WITH few AS (SELECT * FROM t WHERE id % 2 = 0) SELECT id, n FROM few"), "sort"),
    ] {
        let mut world = World::new(script, copy).await;
        let refusal = world.refusal().await;
        has(&refusal, &["each page of the copy would", part, "create the indexes in `prepare`"]);
    }
    for query in [
        "SELECT id, n FROM t WHERE grp = 3",
        "SELECT t.id, s.name FROM t JOIN small AS s ON s.id = t.grp",
        "SELECT t.id, o.n FROM t LEFT JOIN other AS o ON o.id = t.id",
        "SELECT id, (SELECT n FROM other AS o WHERE o.id = t.id) AS n FROM t",
        "SELECT id, count(*) AS n FROM t GROUP BY id",
        "SELECT o.id, t.n FROM other AS o, LATERAL (SELECT n FROM t WHERE t.id = o.n) AS t",
        "SELECT g AS id FROM generate_series(1, 100) AS g",
        "VALUES (1, 2), (3, 4)",
    ] {
        let copy = match query.starts_with("VALUES") {
            true => copy_of("SELECT * FROM (VALUES (1, 2), (3, 4)) AS v (id, n)", id("id")),
            false => by_id(query),
        };
        let mut world = World::new(script, copy).await;
        let shards = world.begin(1).await;
        assert_eq!(shards.len(), 1, "{query}");
        let page = world.page(&shards[0], PageLimit { rows: 50, bytes: BYTES }).await.unwrap();
        assert!(page.passed > 0, "{query}");
    }
}

#[tokio::test]
async fn a_row_that_cannot_be_copied_is_named_and_its_page_goes_on() {
    let script = "CREATE TABLE t (id int PRIMARY KEY, n numeric); \
                  INSERT INTO t SELECT i, i FROM generate_series(1, 9) AS i; \
                  UPDATE t SET n = 1e40 + 1 WHERE id = 4; UPDATE t SET n = 1e40 + 2 WHERE id = 9";
    let mut world = World::new(script, copy_of("SELECT id, n FROM t", id("id"))).await;
    let shards = world.begin(1).await;
    for (rows, bad) in [(3, vec![]), (4, vec!["4"]), (100, vec!["4", "9"])] {
        let page = world.page(&shards[0], PageLimit { rows, bytes: BYTES }).await.unwrap();
        let keys: Vec<&str> = page.bad.iter().map(|bad| bad.key.as_str()).collect();
        assert_eq!((keys, page.passed), (bad, rows.min(9)));
        assert_eq!(page.documents.len() + page.bad.len(), usize::try_from(page.passed).unwrap());
        assert_eq!(page.upto, Some(Key(json!([rows.min(9).to_string()]))));
        for bad in &page.bad {
            has(&bad.row, &["\"id\":", "\"n\":1000000000000000"]);
            has(&bad.reason, &["`n`", "34 digits"]);
        }
    }
}

#[tokio::test]
async fn a_page_ends_where_its_bytes_do_and_has_one_row_at_least() {
    let script = "CREATE TABLE t (id int PRIMARY KEY, n text); \
                  INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 500) AS i; \
                  INSERT INTO t SELECT i, repeat('x', 100000) FROM generate_series(501, 510) AS i";
    let mut world = World::new(script, copy_of("SELECT id, n FROM t", id("id"))).await;
    world.begin(1).await;
    let mut shard = world.claimed().await.unwrap();
    let mut pages = Vec::new();
    while !shard.done {
        let bytes = if pages.is_empty() { 1 } else { 50_000 };
        let page = world.page(&shard, PageLimit { rows: 1000, bytes }).await.unwrap();
        let size: usize = page.documents.iter().map(|document| document.as_bytes().len()).sum();
        assert!(size <= bytes || page.passed == 1, "{size} of {bytes}");
        pages.push(page.passed);
        shard = world.put(&shard, &page).await.unwrap().unwrap().shard;
    }
    assert_eq!((pages[0], pages.iter().sum::<u64>()), (1, 510), "{pages:?}");
    assert!(pages.len() < 40, "the last pages are small, the others are not: {pages:?}");
    assert_eq!(world.mongo.at("c").await.len(), 510);
}

#[tokio::test]
async fn what_appears_later_is_swept_up() {
    let mut world = World::new(NUMBERED, plain()).await;
    assert_eq!(world.copied(20).await, (50, 50));
    world.postgres.run("INSERT INTO t SELECT i, i FROM generate_series(51, 60) AS i").await;
    world.postgres.run("INSERT INTO t VALUES (-1, -1)").await;
    let sweep = world.begin(4).await;
    assert_eq!(sweep.len(), 1);
    let first = &sweep[0];
    let after = first.after.as_ref().map(ToString::to_string);
    assert_eq!(
        (first.index, first.round, first.estimate, after),
        (2, 1, 10, Some("50".to_owned()))
    );
    assert_eq!(world.go_through(3).await.unwrap(), (10, 10));
    assert_eq!(world.begin(4).await, []);
    world.all_there(60).await;
}

#[tokio::test]
async fn a_moment_that_mongodb_has_is_not_two_at_the_edge_of_a_sweep() {
    for (last, next, is_one) in [
        ("10:00:00.123456", "10:00:00.1239", true),
        ("10:00:00", "10:00:00.000001", true),
        ("1900-01-01 10:00:00.9991", "1900-01-01 10:00:00.9999", true),
        ("10:00:00.1239", "10:00:00.124", false),
        ("10:00:00", "10:00:01", false),
    ] {
        let at = |time: &str| match time.contains(' ') {
            true => format!("{time}+00"),
            false => format!("2000-01-01 {time}+00"),
        };
        let script = format!(
            "CREATE TABLE t (k timestamptz PRIMARY KEY, n int); INSERT INTO t VALUES ('{}', 1)",
            at(last)
        );
        let mut world = World::new(&script, copy_of("SELECT k, n FROM t", id("k"))).await;
        assert_eq!(world.copied(20).await, (1, 1));
        world.postgres.run(&format!("INSERT INTO t VALUES ('{}', 2)", at(next))).await;
        world.begin(1).await;
        match (world.go_through(20).await, is_one) {
            (Err(error), true) => has(&said(&error), &["two rows with the key", "milliseconds"]),
            (Ok(done), false) => assert_eq!(done, (1, 1)),
            (result, _) => panic!("{last}, {next}: {result:?}"),
        }
    }
}

#[tokio::test]
async fn an_empty_query_has_nothing_to_go_through() {
    let script = "CREATE TABLE t (id int PRIMARY KEY, n int)";
    let mut world = World::new(script, plain()).await;
    assert_eq!(world.begin(3).await, []);
    // A shard whose rows were deleted meanwhile is gone through all the same.
    world.postgres.run("INSERT INTO t VALUES (1, 1), (2, 2)").await;
    world.begin(1).await;
    world.postgres.run("DELETE FROM t").await;
    assert_eq!(world.go_through(10).await.unwrap(), (0, 0));
    let shards = world.target.shards(world.copy.job()).await.unwrap();
    assert!(shards[0].done);
}

#[tokio::test]
async fn a_document_that_the_collection_refuses_is_named_with_its_row() {
    let script = "CREATE TABLE t (id int PRIMARY KEY, email text); \
                  INSERT INTO t SELECT i, 'e' || i FROM generate_series(1, 9) AS i; \
                  UPDATE t SET email = 'e3' WHERE id = 7";
    let unique = doc! { "createIndexes": "c", "indexes": [
        { "key": { "email": 1 }, "name": "by_email", "unique": true },
    ] };
    let validator = doc! { "create": "c", "validator": { "email": { "$ne": "e7" } } };
    for (fresh, command, parts) in [
        (true, &unique, ["the key 7", "email = \"e3\"", "by_email", "unique index"]),
        (false, &unique, ["the key 7", "email = \"e3\"", "by_email", "unique index"]),
        (true, &validator, ["the key 6", "email = \"e7\"", "validation", "validator"]),
        (false, &validator, ["the key 6", "email = \"e7\"", "validation", "validator"]),
    ] {
        let mut world = World::new(script, copy_of("SELECT id, email FROM t", id("id"))).await;
        world.postgres.run("UPDATE t SET email = 'e7' WHERE id = 6").await;
        if command.contains_key("validator") {
            world.mongo.run(command.clone()).await;
        }
        if !fresh {
            world.insert((1..=9).map(|id| doc! { "_id": id, "email": format!("old{id}") })).await;
        }
        if !command.contains_key("validator") {
            world.mongo.run(command.clone()).await;
        }
        world.begin(1).await;
        let before = world.documents("_id").await;
        let error = world.go_through(100).await.unwrap_err();
        assert!(error.fate == Fate::Refused && !is_passing(&error), "{error}");
        has(&said(&error), &parts);
        assert_eq!(world.documents("_id").await, before, "nothing of the page is there");
        let recorded = world.target.shards(world.copy.job()).await.unwrap();
        assert_eq!((recorded[0].passed, recorded[0].rows), (0, 0));
    }
    let view = doc! { "create": "c", "viewOn": "d", "pipeline": [] };
    let mut world = World::new(script, copy_of("SELECT id, email FROM t", id("id"))).await;
    world.mongo.run(view).await;
    has(&world.refusal().await, &["c is a view"]);
    // Two columns would be the `_id`.
    let copy = copy_of("SELECT id, id AS _id FROM t", id("id"));
    let mut world = World::new(script, copy).await;
    world.begin(1).await;
    let error = world.go_through(100).await.unwrap_err();
    has(&said(&error), &["a column `_id`", "name `_id` as the key"]);
}

#[tokio::test]
async fn a_shard_that_another_run_has_taken_is_not_written() {
    let mut world = World::new(NUMBERED, plain()).await;
    world.begin(1).await;
    let shard = world.claimed().await.unwrap();
    let page = world.page(&shard, PageLimit { rows: 9, bytes: BYTES }).await.unwrap();
    world.target.yield_shard(world.copy.job(), &shard).await.unwrap();
    assert_eq!(world.put(&shard, &page).await.unwrap(), None);
    assert_eq!(world.mongo.at("c").await, [], "nothing of it is there");

    // Nor is what was copied already, or by a run whose lease went to another.
    let shard = world.claimed().await.unwrap();
    world.put(&shard, &page).await.unwrap().unwrap();
    let error = world.put(&shard, &page).await.unwrap_err();
    has(&error.to_string(), &["further than this batch began"]);
    let shard = world.target.shards(world.copy.job()).await.unwrap().remove(0);
    let next = world.page(&shard, PageLimit { rows: 9, bytes: BYTES }).await.unwrap();
    let past = doc! { "$set": { "expires_at": bson::DateTime::from_millis(1) } };
    let control = world.mongo.db.collection::<Document>("migration_control");
    control.update_one(doc! {}, past).await.unwrap();
    let mut new = world.mongo.open("b").await;
    take(&mut new, "b").await;
    assert_eq!(fate(world.put(&shard, &next).await), Fate::Fenced);
    assert_eq!(world.mongo.at("c").await.len(), 9);
}

#[tokio::test]
async fn an_application_that_is_in_the_way_is_waited_for() {
    let mut world = World::new(NUMBERED, plain()).await;
    world.insert((1..=50).map(|id| doc! { "_id": id, "n": 0 })).await;
    world.copy.timeouts.lock = Some(Duration::from_millis(300));
    world.begin(1).await;
    let shard = world.claimed().await.unwrap();
    let page = world.page(&shard, PageLimit { rows: 9, bytes: BYTES }).await.unwrap();
    let mut session = world.mongo.db.client().start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    let all = world.mongo.db.collection::<Document>("c");
    let change = doc! { "$set": { "n": -1 } };
    all.update_one(doc! { "_id": 3 }, change).session(&mut session).await.unwrap();
    let error = world.put(&shard, &page).await.unwrap_err();
    assert!(is_passing(&error), "{error}");
    session.commit_transaction().await.unwrap();
    let batch = world.put(&shard, &page).await.unwrap().unwrap();
    assert_eq!((batch.passed, batch.rows), (9, 9));
    let third = all.find_one(doc! { "_id": 3 }).await.unwrap().unwrap();
    assert_eq!(third, doc! { "_id": 3, "n": 3 });
}

#[tokio::test]
async fn after_a_lost_connection_the_cursor_says_whether_a_page_was_written() {
    for (run_id, cut, at) in [("cut-1", Cut::Request, 0), ("cut-2", Cut::Reply, 9)] {
        let script = "CREATE TABLE t (id int PRIMARY KEY, n int, is_armed int); \
                      INSERT INTO t SELECT i, i FROM generate_series(1, 50) AS i";
        let copy = copy_of("SELECT id AS _id, n, is_armed AS copy_is_armed FROM t", id("_id"));
        let mut world = World::new(script, copy).await;
        let address =
            cutting_after(world.mongo.address(), "copy_is_armed", "commitTransaction", cut).await;
        world.target = world.mongo.open_at(&address, run_id).await;
        world.target.found("pair").await.unwrap_or_default();
        world.mongo.expire().await;
        take(&mut world.target, run_id).await;
        world.begin(1).await;
        let shard = world.claimed().await.unwrap();
        let page = world.page(&shard, PageLimit { rows: 9, bytes: BYTES }).await.unwrap();
        assert_eq!(fate(world.put(&shard, &page).await), Fate::Unknown, "{cut:?}");
        world.target = world.mongo.open("b").await;
        let seen = world.target.shards(world.copy.job()).await.unwrap().remove(0);
        assert_eq!((seen.passed, seen.rows), (at, at), "{cut:?}");
        assert_eq!(world.mongo.at("c").await.len() as u64, at, "{cut:?}");
        // Whoever comes next ends what was left open, and goes on from there.
        let died = doc! { "$set": { "outcome": "died" } };
        let runs = world.mongo.db.collection::<Document>("migration_runs");
        runs.update_one(doc! { "_id": run_id }, died).await.unwrap();
        world.target.evict().await.unwrap();
        world.mongo.expire().await;
        take(&mut world.target, "b").await;
        assert_eq!(world.go_through(7).await.unwrap(), (50 - at, 50 - at), "{cut:?}");
        world.all_there(50).await;
    }
}

#[tokio::test]
async fn a_standalone_server_is_written_before_its_cursor_and_twice_is_once() {
    let server = Standalone::start();
    let client = mongodb::Client::with_uri_str(&server.uri).await.unwrap();
    let all = client.database("app").collection::<Document>("c");
    let mut target = crate::mongo::connect(&server.uri, "a").await;
    target.found("pair").await.unwrap();
    take(&mut target, "a").await;
    let postgres = postgres::Server::new().await;
    postgres.run(NUMBERED).await;
    let mut source = postgres.open("reader").await;
    all.insert_many([doc! { "_id": 2, "n": 2 }, doc! { "_id": 3, "n": 0 }]).await.unwrap();
    let copy = plain();
    let job = copy.job();
    target.ready(job).await.unwrap();
    let survey = source.survey_rows(rows(&copy), copy.timeouts, 1, &[]).await.unwrap();
    target.begin(job, &survey.shards, &[]).await.unwrap();
    let shard = target.claim(job).await.unwrap().unwrap();
    let limit = PageLimit { rows: 20, bytes: BYTES };
    let page =
        source.page(rows(&copy), copy.timeouts, None, Some(&shard.upto), limit).await.unwrap();
    let first = target.put(job, &shard, &page).await.unwrap().unwrap();
    assert_eq!((first.passed, first.rows), (20, 19));
    // As if it had died before its cursor.
    let steps = client.database("app").collection::<Document>("migration_steps");
    let back = doc! { "$set": { "cursor.passed": 0_i64 }, "$unset": { "cursor.after": 1 } };
    steps.update_one(doc! { "event": "progress" }, back).await.unwrap();
    let again = target.put(job, &shard, &page).await.unwrap().unwrap();
    assert_eq!((again.passed, again.rows), (20, 0));
    assert_eq!(all.count_documents(doc! { "$expr": { "$eq": ["$_id", "$n"] } }).await.unwrap(), 20);
    assert_eq!(all.count_documents(doc! {}).await.unwrap(), 20);
}
