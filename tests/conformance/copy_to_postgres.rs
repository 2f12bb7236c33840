//! Copies from MongoDB to Postgres: each document is its rows once, whatever its `_id`
//! is, whatever was there, whatever dies.

use crate::mongo;
use crate::postgres;
use crate::subject::{Recorded, Subject, fate, leased, take};
use bson::oid::ObjectId;
use bson::{Bson, DateTime, Document, doc};
use lockstep::core::backfill::{Batch, Key, Shard};
use lockstep::core::parse::manifest::{MongoSource, Work};
use lockstep::core::step::QualifiedName;
use lockstep::store::backfill::{Backfills, is_passing};
use lockstep::store::copy::{Page, PageLimit, Source, Target};
use lockstep::store::mongo::Mongo;
use lockstep::store::postgres::Postgres;
use lockstep::store::{Fate, StoreError};
use serde_json::json;
use std::time::Duration;

/// More than any page here has.
const BYTES: usize = 8 << 20;

/// A collection `c` and a table `t`, and a copy of the one into the other.
struct World {
    mongo: mongo::Server,
    postgres: postgres::Server,
    source: Mongo,
    target: Postgres,
    copy: Recorded,
}

fn copy_of(find: Document, pipeline: Vec<Document>, key: &[&str]) -> Recorded {
    let from = MongoSource { collection: "c".to_owned(), find, pipeline };
    let to = QualifiedName { schema: None, name: "t".to_owned() };
    let key = key.iter().map(|&column| column.to_owned()).collect();
    Recorded::new(Work::CopyToPostgres { from, to, key })
}

fn rows(copy: &Recorded) -> &MongoSource {
    match &copy.work {
        Work::CopyToPostgres { from, .. } => from,
        other => panic!("{other:?}"),
    }
}

impl World {
    /// With the table that a statement makes, and these documents.
    async fn new(
        table: &str,
        documents: impl IntoIterator<Item = Document>,
        copy: Recorded,
    ) -> World {
        let mongo = mongo::Server::new().await;
        let postgres = postgres::Server::new().await;
        postgres.run(table).await;
        let source = mongo.open("reader").await;
        let target = leased(&postgres, "a").await;
        let world = World { mongo, postgres, source, target, copy };
        world.insert(documents).await;
        world
    }

    async fn insert(&self, documents: impl IntoIterator<Item = Document>) {
        let documents: Vec<Document> = documents.into_iter().collect();
        if !documents.is_empty() {
            let all = self.mongo.db.collection::<Document>("c");
            all.insert_many(documents).await.unwrap();
        }
    }

    async fn begin(&mut self, shards: usize) -> Vec<Shard> {
        let World { source, target, copy, .. } = self;
        target.ready(copy.job()).await.unwrap();
        let past = target.shards(copy.job()).await.unwrap();
        let survey = source.survey_rows(rows(copy), copy.timeouts, shards, &past).await.unwrap();
        target.begin(copy.job(), &survey.shards, &[]).await.unwrap();
        survey.shards
    }

    async fn page(&mut self, shard: &Shard, limit: PageLimit) -> Page {
        let World { source, copy, .. } = self;
        let (after, upto) = (shard.after.as_ref(), Some(&shard.upto));
        source.page(rows(copy), copy.timeouts, after, upto, limit).await.unwrap()
    }

    async fn put(&mut self, shard: &Shard, page: &Page) -> Result<Option<Batch>, StoreError> {
        assert_eq!(page.bad, [], "nothing is bad here");
        self.target.put(self.copy.job(), shard, page).await
    }

    async fn next(&mut self, shard: &Shard, limit: PageLimit) -> Batch {
        let page = self.page(shard, limit).await;
        self.put(shard, &page).await.unwrap().expect("the shard is ours")
    }

    async fn claimed(&mut self) -> Option<Shard> {
        self.target.claim(self.copy.job()).await.unwrap()
    }

    /// All shards that are to be had: keys passed, and rows written.
    async fn go_through(&mut self, rows: u64) -> (u64, u64) {
        let (mut passed, mut written) = (0, 0);
        while let Some(mut shard) = self.claimed().await {
            while !shard.done {
                let batch = self.next(&shard, PageLimit { rows, bytes: BYTES }).await;
                passed += batch.passed;
                written += batch.rows;
                shard = batch.shard;
            }
        }
        (passed, written)
    }

    /// Begins, and copies everything.
    async fn copied(&mut self, rows: u64) -> (u64, u64) {
        self.begin(1).await;
        self.go_through(rows).await
    }

    /// Begins the same copy once more.
    async fn again(&mut self, rows: u64) -> (u64, u64) {
        self.copy.record.attempt += 1;
        self.copied(rows).await
    }

    /// Begins, and what the first page that is refused is refused with.
    async fn refusal(&mut self, rows: u64) -> StoreError {
        self.begin(1).await;
        let mut shard = self.claimed().await.unwrap();
        loop {
            let page = self.page(&shard, PageLimit { rows, bytes: BYTES }).await;
            match self.put(&shard, &page).await {
                Ok(batch) => shard = batch.unwrap().shard,
                Err(error) => {
                    let recorded = self.target.shards(self.copy.job()).await.unwrap();
                    assert_eq!(recorded, [shard], "the cursor did not move");
                    assert!(error.fate == Fate::Refused && !is_passing(&error), "{error}");
                    return error;
                }
            }
            assert!(!shard.done, "everything was copied");
        }
    }

    async fn texts(&self, sql: &str) -> Vec<String> {
        self.postgres.texts(sql).await
    }
}

fn said(error: &StoreError) -> String {
    let detail = error.said.detail.clone().unwrap_or_default();
    let hint = error.said.hint.clone().expect("it says what to do");
    format!("{}\n{detail}\n→ {hint}", error.said.message)
}

/// One of each type that an `_id` can have, and several of some.
fn mixed() -> Vec<Bson> {
    let mut ids = crate::mongo_backfill::mixed();
    ids.push(Bson::String("a\0b".to_owned()));
    ids
}

/// Without its `_id`.
fn only_n() -> Vec<Document> {
    vec![doc! { "$project": { "_id": 0, "n": 1 } }]
}

/// `_id` and `n`, both numbers.
fn numbered(numbers: std::ops::Range<i32>) -> impl Iterator<Item = Document> {
    numbers.map(|n| doc! { "_id": n, "n": n })
}

const NUMBERED: &str = "CREATE TABLE t (_id int PRIMARY KEY, n int)";

fn plain() -> Recorded {
    copy_of(doc! {}, vec![], &["_id"])
}

#[tokio::test]
async fn documents_are_copied_once_whatever_the_types_of_their_ids() {
    for (rows, shards) in [(1, 1), (2, 1), (3, 4), (7, 2), (100, 1), (1, 50)] {
        let ids = mixed();
        let all = ids.len() as u64;
        let documents = ids.into_iter().zip(0..).map(|(id, n)| doc! { "_id": id, "n": n });
        let copy = copy_of(doc! {}, only_n(), &["n"]);
        let mut world = World::new("CREATE TABLE t (n int PRIMARY KEY)", documents, copy).await;
        world.begin(shards).await;
        assert_eq!(world.go_through(rows).await, (all, all), "{rows} rows, {shards} shards");
        let sum = world.texts("SELECT count(*) || ' ' || sum(n) FROM t").await;
        assert_eq!(sum, [format!("{all} {}", all * (all - 1) / 2)]);
        let shards = world.target.shards(world.copy.job()).await.unwrap();
        assert!(shards.iter().all(|shard| shard.done && !shard.claimed));
    }
}

#[tokio::test]
async fn documents_as_they_are_have_a_column_for_their_id() {
    for rows in [1, 7, 100] {
        let mut world = World::new(NUMBERED, numbered(0..50), plain()).await;
        world.begin(3).await;
        assert_eq!(world.go_through(rows).await, (50, 50));
        assert!(world.postgres.yes("SELECT count(*) = 50 AND bool_and(n = _id) FROM t").await);
    }
}

#[tokio::test]
async fn a_filter_chooses_and_every_key_is_passed() {
    for pipeline in [vec![], vec![doc! { "$set": { "n": "$n" } }]] {
        let copy = copy_of(doc! { "n": { "$gte": 90 } }, pipeline, &["_id"]);
        let mut world = World::new(NUMBERED, numbered(0..100), copy).await;
        assert_eq!(world.copied(9).await, (100, 10));
        assert_eq!(world.texts("SELECT min(n) || ' ' || count(*) FROM t").await, ["90 10"]);
    }
}

#[tokio::test]
async fn an_id_that_is_only_renamed_is_what_the_server_would_make_of_it() {
    let table = "CREATE TABLE t (id bigint PRIMARY KEY, n int, text text)";
    let documents = (0..40).map(|id| match id % 3 {
        0 => doc! { "_id": i64::from(id), "id": -1, "n": id },
        1 => doc! { "_id": i64::from(id), "n": id, "text": Bson::Null, "id": "no" },
        _ => doc! { "n": id, "_id": i64::from(id), "text": "x".repeat(100) },
    });
    let set = doc! { "$set": { "id": "$_id" } };
    let ours = vec![set.clone(), doc! { "$unset": "_id" }];
    // Nobody but the server knows what this is.
    let theirs = vec![set, doc! { "$project": { "_id": 0 } }];
    for find in [doc! {}, doc! { "n": { "$mod": [2, 0] } }] {
        let mut made = Vec::new();
        for pipeline in [&ours, &theirs] {
            let copy = copy_of(find.clone(), pipeline.clone(), &["id"]);
            let mut world = World::new(table, documents.clone(), copy).await;
            let shards = world.begin(1).await;
            let mut shard = shards[0].clone();
            let mut pages = Vec::new();
            loop {
                let page = world.page(&shard, PageLimit { rows: 7, bytes: 900 }).await;
                let is_last = page.is_last;
                shard.after.clone_from(&page.upto);
                pages.push(page.documents);
                if is_last {
                    break;
                }
            }
            let rows = if find.is_empty() { 40 } else { 20 };
            assert_eq!(world.go_through(9).await, (40, rows));
            assert!(world.postgres.yes("SELECT bool_and(n = id) FROM t").await);
            made.push(pages.concat());
        }
        assert_eq!(made[0], made[1]);
    }
}

#[tokio::test]
async fn one_document_becomes_several_rows_or_none() {
    let lines = |count: i32| (0..count).map(|line| doc! { "sku": format!("s{line}") });
    let documents =
        (0..40).map(|id| doc! { "_id": id, "lines": lines(id % 4).collect::<Vec<_>>() });
    let pipeline = vec![
        doc! { "$unwind": { "path": "$lines", "includeArrayIndex": "line" } },
        doc! { "$project": { "_id": 0, "order": "$_id", "line": 1, "sku": "$lines.sku" } },
    ];
    let table =
        "CREATE TABLE t (\"order\" int, line bigint, sku text, PRIMARY KEY (\"order\", line))";
    for rows in [1, 3, 100] {
        let copy = copy_of(doc! {}, pipeline.clone(), &["order", "line"]);
        let mut world = World::new(table, documents.clone(), copy).await;
        world.begin(2).await;
        assert_eq!(world.go_through(rows).await, (40, 60), "{rows}");
        let right =
            "SELECT count(*) = 60 AND bool_and(sku = 's' || line AND line < \"order\" % 4) FROM t";
        assert!(world.postgres.yes(right).await);
    }
}

#[tokio::test]
async fn a_page_ends_where_its_bytes_do_and_has_one_document_at_least() {
    let text = "x".repeat(1000);
    let unwound = vec![
        doc! { "$set": { "n": [1, 2] } },
        doc! { "$unwind": "$n" },
        doc! { "$set": { "_id": { "$add": [{ "$multiply": ["$_id", 2] }, "$n"] } } },
    ];
    for (find, pipeline, rows) in
        [(doc! {}, vec![], 20), (doc! { "_id": { "$ne": 3 } }, vec![], 19), (doc! {}, unwound, 40)]
    {
        let documents = (0..20).map(|id| doc! { "_id": id, "text": &text });
        let copy = copy_of(find, pipeline, &["_id"]);
        let table = "CREATE TABLE t (_id int PRIMARY KEY, text text, n int)";
        let mut world = World::new(table, documents, copy).await;
        world.begin(1).await;
        let mut shard = world.claimed().await.unwrap();
        let mut pages = Vec::new();
        while !shard.done {
            let limit = match pages.len() {
                0 => PageLimit { rows: 100, bytes: 1 },
                _ => PageLimit { rows: 100, bytes: 5000 },
            };
            let page = world.page(&shard, limit).await;
            let bytes: usize =
                page.documents.iter().map(|document| document.as_bytes().len()).sum();
            assert!(page.passed == 1 || bytes <= limit.bytes, "{bytes} of {limit:?}");
            pages.push(page.passed);
            shard = world.put(&shard, &page).await.unwrap().unwrap().shard;
        }
        assert_eq!((pages[0], pages.iter().sum::<u64>()), (1, 20), "{pages:?}");
        assert!(pages.len() >= 6, "{pages:?}");
        assert_eq!(world.texts("SELECT count(*)::text FROM t").await, [rows.to_string()]);
    }
}

#[tokio::test]
async fn what_is_equal_is_not_touched_and_what_differs_is_updated() {
    let mut world = World::new(NUMBERED, numbered(0..20), plain()).await;
    assert_eq!(world.copied(6).await, (20, 20));
    let marks = "SELECT _id || ' ' || xmin || ' ' || ctid FROM t ORDER BY _id";
    let before = world.texts(marks).await;
    assert_eq!(world.again(6).await, (20, 0));
    assert_eq!(world.texts(marks).await, before);

    world
        .postgres
        .run("UPDATE t SET n = -1 WHERE _id = 7; UPDATE t SET n = NULL WHERE _id = 8")
        .await;
    world.postgres.run("DELETE FROM t WHERE _id IN (3, 15)").await;
    let before = world.texts(marks).await;
    assert_eq!(world.again(6).await, (20, 4));
    assert!(world.postgres.yes("SELECT count(*) = 20 AND bool_and(n = _id) FROM t").await);
    let after = world.texts(marks).await;
    assert_eq!(before.iter().filter(|row| after.contains(row)).count(), 16);
}

#[tokio::test]
async fn values_are_told_apart_by_what_they_are_and_not_by_what_is_called_equal() {
    let table = "CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
                 CREATE TABLE t (_id int PRIMARY KEY, loose text COLLATE loose, doc json, place point, \
                 took interval, docs json[])";
    let document = doc! {
        "_id": 1, "loose": "Ab", "doc": { "b": 1, "a": [2] }, "took": "P1M", "docs": [{ "a": 1 }],
    };
    let mut world = World::new(table, [document], plain()).await;
    world.postgres.run("INSERT INTO t VALUES (1, 'aB', '{\"b\":1}', '(1,2)', '30 days')").await;
    assert_eq!(world.copied(5).await, (1, 1));
    assert!(world.postgres.yes("SELECT loose COLLATE \"C\" = 'Ab' AND place IS NULL FROM t").await);
    assert!(world.postgres.yes("SELECT doc::jsonb = '{\"b\":1,\"a\":[2]}' FROM t").await);
    assert!(
        world.postgres.yes("SELECT took::text = '1 mon' AND docs[1] ->> 'a' = '1' FROM t").await
    );
    assert_eq!(world.again(5).await, (1, 0));
}

#[tokio::test]
async fn a_field_that_is_missing_is_null_or_the_default_or_what_was_there() {
    let table = "CREATE DOMAIN word AS text DEFAULT 'domain';
                 CREATE TABLE t (_id int PRIMARY KEY, plain text, filled text DEFAULT 'default', \
                 word word, number int GENERATED BY DEFAULT AS IDENTITY (START 100), \
                 computed int GENERATED ALWAYS AS (_id * 2) STORED)";
    let documents = [
        doc! { "_id": 1, "plain": "a", "filled": "b", "word": "c", "number": 7 },
        doc! { "_id": 2 },
        doc! { "_id": 3, "filled": null, "number": 8 },
        doc! { "_id": 4, "plain": "a" },
        doc! { "_id": 5, "plain": "a", "filled": "b" },
    ];
    let mut world = World::new(table, documents, plain()).await;
    world
        .postgres
        .run("INSERT INTO t VALUES (4, 'old', 'kept', 'kept', 44), (5, 'old', 'old', 'kept', 55)")
        .await;
    assert_eq!(world.copied(10).await, (5, 5));
    let rows = "SELECT concat_ws(' ', _id, coalesce(plain, '-'), coalesce(filled, '-'), word, least(number, 100), computed) \
                FROM t ORDER BY _id";
    let expected = [
        "1 a b c 7 2",
        "2 - default domain 100 4",
        "3 - - domain 8 6",
        "4 a kept kept 44 8",
        "5 a b kept 55 10",
    ];
    // A number that was counted for a row that was not inserted is gone.
    assert_eq!(world.texts(rows).await, expected);
    assert_eq!(world.again(10).await, (5, 0));
}

#[tokio::test]
async fn an_object_id_is_what_the_column_has_for_it() {
    let id: ObjectId = "60000000000000000000002a".parse().unwrap();
    let pipeline = vec![doc! { "$project": {
        "_id": 0, "key": "$_id", "short": "$_id", "bytes": "$_id", "text": "$_id",
    } }];
    let copy = copy_of(doc! {}, pipeline, &["key"]);
    let table =
        "CREATE TABLE t (key char(24) PRIMARY KEY, short varchar(24), bytes bytea, text text)";
    let mut world = World::new(table, [doc! { "_id": id }], copy).await;
    assert_eq!(world.copied(5).await, (1, 1));
    let row =
        world.texts("SELECT concat_ws(' ', key, short, encode(bytes, 'hex'), text) FROM t").await;
    assert_eq!(row, [[id.to_hex(), id.to_hex(), id.to_hex(), id.to_hex()].join(" ")]);
    assert_eq!(world.again(5).await, (1, 0));
}

#[tokio::test]
async fn a_row_that_cannot_be_written_is_named_with_its_key_and_the_reason() {
    let bad = |more: Document| {
        let mut document = doc! { "_id": 57, "n": 57 };
        document.extend(more);
        document
    };
    let cases = [
        ("", bad(doc! { "extra": 1 }), "field `extra`", "$unset"),
        (
            "ALTER TABLE t ADD c int GENERATED ALWAYS AS (n) STORED",
            bad(doc! { "c": 1 }),
            "field `c`",
            "$unset",
        ),
        (
            "ALTER TABLE t ADD c int GENERATED ALWAYS AS IDENTITY",
            bad(doc! { "c": 1 }),
            "field `c`",
            "$unset",
        ),
        ("ALTER TABLE t ADD c point", bad(doc! { "c": [1, 2] }), "field `c`", "pipeline"),
        ("", bad(doc! { "n": "seven" }), "field `n`", "pipeline"),
        ("ALTER TABLE t ADD c varchar(3)", bad(doc! { "c": "four" }), "", "pipeline"),
        ("ALTER TABLE t ADD CHECK (n <> 57)", bad(doc! {}), "check constraint", "pipeline"),
        ("ALTER TABLE t ALTER n SET NOT NULL", bad(doc! { "n": null }), "null value", "pipeline"),
        ("ALTER TABLE t ADD UNIQUE (n)", bad(doc! { "n": 3 }), "duplicate key", "pipeline"),
        (
            "CREATE TABLE p (n int PRIMARY KEY); INSERT INTO p SELECT generate_series(0, 56); \
             INSERT INTO p SELECT generate_series(58, 99); \
             ALTER TABLE t ADD FOREIGN KEY (n) REFERENCES p DEFERRABLE INITIALLY DEFERRED",
            bad(doc! {}),
            "foreign key",
            "pipeline",
        ),
        (
            "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN RAISE EXCEPTION 'not on a Sunday'; END $$; \
             CREATE TRIGGER no BEFORE INSERT ON t FOR EACH ROW WHEN (new.n = 57) EXECUTE FUNCTION no()",
            bad(doc! {}),
            "not on a Sunday",
            "pipeline",
        ),
    ];
    for (more, document, why, hint) in cases {
        let others = numbered(0..57).chain(numbered(58..100));
        let mut world = World::new(NUMBERED, others.chain([document]), plain()).await;
        world.postgres.run(more).await;
        let error = world.refusal(40).await;
        let text = said(&error);
        assert!(text.contains("with the key 57 "), "{more}: {text}");
        assert!(text.contains("\"_id\":57"), "{more}: {text}");
        assert!(text.contains(why) && text.contains(hint), "{more}: {text}");
        assert_eq!(
            world.texts("SELECT count(*)::text FROM t").await,
            ["40"],
            "{more}: the pages before"
        );
    }
}

#[tokio::test]
async fn a_row_without_a_key_is_none() {
    for missing in [doc! { "_id": 1, "n": null }, doc! { "_id": 1 }] {
        let copy = copy_of(doc! {}, vec![doc! { "$unset": "_id" }], &["n"]);
        let mut world = World::new("CREATE TABLE t (n int UNIQUE)", [missing], copy).await;
        let text = said(&world.refusal(5).await);
        assert!(text.contains("its key `n` is missing or null"), "{text}");
    }
}

#[tokio::test]
async fn two_rows_of_one_page_with_one_key_are_an_error_and_of_two_pages_the_last_wins() {
    let pipeline = || vec![doc! { "$project": { "_id": 0, "key": 1, "n": 1, "c": 1 } }];
    let table = "CREATE TABLE t (key int PRIMARY KEY, n int, c int DEFAULT 5)";
    let twice = |c: Document| {
        let mut last = doc! { "_id": 5, "key": 2, "n": 5 };
        last.extend(c);
        (1..5).map(|id| doc! { "_id": id, "key": id, "n": id }).chain([last])
    };
    for c in [doc! {}, doc! { "c": 1 }] {
        let copy = copy_of(doc! {}, pipeline(), &["key"]);
        let mut world = World::new(table, twice(c.clone()), copy).await;
        let text = said(&world.refusal(5).await);
        assert!(text.contains("with the key 2 ") && text.contains("same page"), "{text}");
        let copy = copy_of(doc! {}, pipeline(), &["key"]);
        let mut world = World::new(table, twice(c), copy).await;
        assert_eq!(world.copied(3).await, (5, 5));
        assert_eq!(world.texts("SELECT n::text FROM t ORDER BY key").await, ["1", "5", "3", "4"]);
    }
}

#[tokio::test]
async fn a_table_that_cannot_be_copied_into_is_refused_with_what_to_do() {
    for (table, why, hint) in [
        ("SELECT 1", "there is no table t", "create it"),
        ("CREATE VIEW t AS SELECT 1 AS _id", "no table", "name the table"),
        ("CREATE TABLE t (id int PRIMARY KEY)", "no column `_id`", "its columns are id"),
        ("CREATE TABLE t (_id int)", "no unique index", "CREATE UNIQUE INDEX"),
        (
            "CREATE TABLE t (_id int, n int, UNIQUE (_id, n))",
            "no unique index",
            "CREATE UNIQUE INDEX",
        ),
        ("CREATE TABLE t (_id int UNIQUE DEFERRABLE)", "no unique index", "deferrable"),
        (
            "CREATE TABLE t (_id int); CREATE UNIQUE INDEX ON t (_id) WHERE _id > 0",
            "no unique index",
            "partial",
        ),
        (
            "CREATE TABLE t (_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY)",
            "the key",
            "GENERATED BY DEFAULT",
        ),
    ] {
        let mut world = World::new(table, [], plain()).await;
        let error = world.target.ready(world.copy.job()).await.unwrap_err();
        assert_eq!(error.fate, Fate::Refused);
        let text = said(&error);
        assert!(text.contains(why) && text.contains(hint), "{table}: {text}");
    }
}

#[tokio::test]
async fn a_partitioned_table_is_written_as_one() {
    let table = "CREATE TABLE t (_id int PRIMARY KEY, n int) PARTITION BY RANGE (_id);
                 CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (30);
                 CREATE TABLE high PARTITION OF t FOR VALUES FROM (30) TO (100)";
    let mut world = World::new(table, numbered(0..60), plain()).await;
    world.postgres.run("INSERT INTO t VALUES (3, 0), (59, 0)").await;
    assert_eq!(world.copied(7).await, (60, 60));
    assert_eq!(world.again(7).await, (60, 0));
    assert!(world.postgres.yes("SELECT count(*) = 30 AND bool_and(n = _id) FROM low").await);
    assert!(world.postgres.yes("SELECT count(*) = 30 AND bool_and(n = _id) FROM high").await);
    world.insert(numbered(200..201)).await;
    world.copy.record.attempt += 1;
    let text = said(&world.refusal(7).await);
    assert!(text.contains("with the key 200 ") && text.contains("no partition"), "{text}");
}

#[tokio::test]
async fn triggers_see_a_backfill_and_policies_and_rules_hold() {
    let table = "CREATE TABLE t (_id int PRIMARY KEY, n int, note text);
                 CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                 new.note := tg_op || ' ' || current_setting('lockstep.backfill', true); \
                 RETURN new; END $$;
                 CREATE TRIGGER note BEFORE INSERT OR UPDATE OF n ON t FOR EACH ROW EXECUTE FUNCTION note()";
    let pipeline = vec![doc! { "$set": { "note": null } }];
    let copy = copy_of(doc! {}, pipeline, &["_id"]);
    let mut world = World::new(table, numbered(0..4), copy).await;
    world.copied(2).await;
    assert_eq!(world.texts("SELECT DISTINCT note FROM t").await, ["INSERT on"]);
    world.postgres.run("UPDATE t SET n = -1").await;
    assert_eq!(world.again(2).await, (4, 4));
    assert_eq!(world.texts("SELECT DISTINCT note FROM t").await, ["UPDATE on"]);
}

#[tokio::test]
async fn a_sweep_copies_what_appeared_above() {
    let mut world = World::new(NUMBERED, numbered(0..10), plain()).await;
    world.begin(2).await;
    world.insert([doc! { "_id": 70, "n": 70 }, doc! { "_id": 71, "n": 71 }]).await;
    assert_eq!(world.go_through(3).await, (10, 10));
    let sweep = world.begin(2).await;
    assert!(sweep.iter().all(|shard| shard.round == 1), "{sweep:?}");
    assert_eq!(world.go_through(3).await, (2, 2));
    assert_eq!(world.begin(2).await, []);
    assert!(world.postgres.yes("SELECT count(*) = 12 AND bool_and(n = _id) FROM t").await);
}

#[tokio::test]
async fn a_page_that_was_written_already_is_not_written_again() {
    let mut world = World::new(NUMBERED, numbered(0..10), plain()).await;
    world.begin(1).await;
    let shard = world.claimed().await.unwrap();
    let page = world.page(&shard, PageLimit { rows: 4, bytes: BYTES }).await;
    let batch = world.put(&shard, &page).await.unwrap().unwrap();
    assert_eq!((batch.rows, batch.passed, batch.shard.after.clone()), (4, 4, Some(Key(json!(3)))));
    world.postgres.run("DELETE FROM t").await;
    assert_eq!(world.put(&shard, &page).await.unwrap(), None);
    assert_eq!(world.texts("SELECT count(*)::text FROM t").await, ["0"]);
    assert_eq!(world.target.shards(world.copy.job()).await.unwrap(), [batch.shard]);
}

#[tokio::test]
async fn a_shard_that_another_run_has_taken_is_left_alone() {
    let mut world = World::new(NUMBERED, numbered(0..10), plain()).await;
    world.begin(1).await;
    let shard = world.claimed().await.unwrap();
    world.postgres.run("UPDATE migration_steps SET run_id = 'b' WHERE event = 'progress'").await;
    let page = world.page(&shard, PageLimit { rows: 4, bytes: BYTES }).await;
    assert_eq!(world.put(&shard, &page).await.unwrap(), None);
    assert_eq!(world.texts("SELECT count(*)::text FROM t").await, ["0"]);
}

#[tokio::test]
async fn a_run_that_lost_its_lease_writes_no_page() {
    let mut world = World::new(NUMBERED, numbered(0..10), plain()).await;
    world.begin(1).await;
    let shard = world.claimed().await.unwrap();
    let page = world.page(&shard, PageLimit { rows: 4, bytes: BYTES }).await;
    world.postgres.run("UPDATE migration_runs SET outcome = 'died'").await;
    assert_eq!(fate(world.put(&shard, &page).await), Fate::Fenced);
    assert_eq!(world.texts("SELECT count(*)::text FROM t").await, ["0"]);
    world.postgres.expire().await;
    let mut next = world.postgres.open("b").await;
    take(&mut next, "b").await;
    assert!(next.claim(world.copy.job()).await.unwrap().is_some(), "its run is over");
}

#[tokio::test]
async fn a_row_that_the_application_has_locked_is_in_the_way_for_a_while_only() {
    let mut world = World::new(NUMBERED, numbered(0..10), plain()).await;
    world.copy.timeouts.lock = Some(Duration::from_millis(100));
    world.postgres.run("INSERT INTO t VALUES (2, 0)").await;
    world.begin(1).await;
    let shard = world.claimed().await.unwrap();
    let page = world.page(&shard, PageLimit { rows: 4, bytes: BYTES }).await;
    let holder = postgres::connect(&world.postgres.database.postgres_url).await;
    holder.batch_execute("BEGIN; SELECT FROM t WHERE _id = 2 FOR UPDATE").await.unwrap();
    let error = world.put(&shard, &page).await.unwrap_err();
    assert!(is_passing(&error), "{error}");
    holder.batch_execute("COMMIT").await.unwrap();
    assert_eq!(world.put(&shard, &page).await.unwrap().unwrap().rows, 4);
}

#[tokio::test]
async fn the_temporary_table_follows_the_table() {
    let mut world = World::new(NUMBERED, numbered(0..4), plain()).await;
    world.copied(2).await;
    assert_eq!(world.again(2).await, (4, 0));
    world.postgres.run("ALTER TABLE t ADD more text; ALTER TABLE t ALTER n TYPE text").await;
    let change = vec![doc! { "$set": { "n": "text", "more": "x" } }];
    let all = world.mongo.db.collection::<Document>("c");
    all.update_many(doc! {}, change).await.unwrap();
    assert_eq!(world.again(2).await, (4, 4));
    assert!(world.postgres.yes("SELECT bool_and(n = 'text' AND more = 'x') FROM t").await);
}

#[tokio::test]
async fn a_document_that_the_pipeline_cannot_read_is_named() {
    let documents = (0..30).map(|id| match id {
        17 => doc! { "_id": id, "n": "many" },
        _ => doc! { "_id": id, "n": id.to_string() },
    });
    let pipeline = vec![doc! { "$set": { "n": { "$toInt": "$n" } } }];
    let copy = copy_of(doc! {}, pipeline, &["_id"]);
    let mut world = World::new(NUMBERED, documents, copy).await;
    world.begin(1).await;
    let mut shard = world.claimed().await.unwrap();
    let page = loop {
        let page = world.page(&shard, PageLimit { rows: 30, bytes: BYTES }).await;
        if !page.bad.is_empty() {
            break page;
        }
        shard = world.put(&shard, &page).await.unwrap().unwrap().shard;
    };
    assert_eq!((page.documents.len(), page.passed, page.upto), (0, 1, Some(Key(json!(17)))));
    let bad = &page.bad[0];
    assert_eq!(bad.key, "17");
    assert!(bad.row.contains("many") && bad.reason.contains("many"), "{bad:?}");
    assert_eq!(world.texts("SELECT count(*)::text FROM t").await, ["17"]);
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_before_anything_is_copied() {
    let view = doc! { "create": "c", "viewOn": "other", "pipeline": [] };
    let series = doc! { "create": "c", "timeseries": { "timeField": "t" } };
    for (options, word) in [(view, "view"), (series, "time series")] {
        let mut world = World::new(NUMBERED, [], plain()).await;
        world.mongo.run(options).await;
        let World { source, copy, .. } = &mut world;
        let error = source.survey_rows(rows(copy), copy.timeouts, 1, &[]).await.unwrap_err();
        assert_eq!(error.fate, Fate::Refused);
        assert!(said(&error).contains(word), "{error}");
    }
    let wrong = copy_of(doc! {}, vec![doc! { "$set": { "n": { "$addd": 1 } } }], &["_id"]);
    let mut world = World::new(NUMBERED, numbered(0..3), wrong).await;
    let World { source, copy, .. } = &mut world;
    let error = source.survey_rows(rows(copy), copy.timeouts, 1, &[]).await.unwrap_err();
    assert!(error.fate == Fate::Refused && said(&error).contains("$addd"), "{error}");
    let wrong = copy_of(doc! { "n": { "$addd": 1 } }, vec![], &["_id"]);
    let error = source.survey_rows(rows(&wrong), copy.timeouts, 1, &[]).await.unwrap_err();
    assert!(error.fate == Fate::Refused && said(&error).contains("$addd"), "{error}");
}

#[tokio::test]
async fn where_there_is_nothing_there_are_no_shards() {
    let mut world = World::new(NUMBERED, [], plain()).await;
    assert_eq!(world.begin(4).await, []);
    world.mongo.run(doc! { "create": "c", "capped": true, "size": 100_000 }).await;
    assert_eq!(world.begin(4).await, []);
    world.insert([doc! { "_id": 1, "n": 1 }]).await;
    assert_eq!(world.copied(4).await, (1, 1), "a capped collection can be read");
    let World { source, copy, .. } = &mut world;
    let estimate = source.estimate_rows(rows(copy), copy.timeouts).await.unwrap();
    assert_eq!(estimate, Some(1));
}

#[tokio::test]
async fn workers_of_one_run_do_not_lose_a_document() {
    let mut world = World::new(NUMBERED, numbered(0..600), plain()).await;
    world.postgres.run("INSERT INTO t SELECT g, -g FROM generate_series(1, 600, 3) AS g").await;
    world.begin(4).await;
    let World { source, target, copy, postgres, .. } = &mut world;
    let mut workers = Vec::new();
    for _ in 0..4 {
        workers.push((source.another().await.unwrap(), target.another().await.unwrap()));
    }
    let work = workers.iter_mut().map(async |(source, target)| {
        let limit = PageLimit { rows: 25, bytes: BYTES };
        while let Some(mut shard) = target.claim(copy.job()).await.unwrap() {
            while !shard.done {
                let (after, upto) = (shard.after.as_ref(), Some(&shard.upto));
                let page = source.page(rows(copy), copy.timeouts, after, upto, limit);
                let page = page.await.unwrap();
                shard = target.put(copy.job(), &shard, &page).await.unwrap().unwrap().shard;
            }
        }
    });
    futures_util::future::join_all(work).await;
    assert!(
        postgres.yes("SELECT count(*) = 600 AND bool_and(n = _id) FROM t WHERE _id < 600").await
    );
}

#[tokio::test]
async fn dates_decimals_and_texts_arrive_as_they_were() {
    let table = "CREATE TABLE t (_id bigint PRIMARY KEY, at timestamptz, price numeric(12,2), \
                 name text, tags text[], more jsonb, flag boolean, ratio double precision)";
    let document = doc! {
        "_id": 1_i64 << 40, "at": DateTime::from_millis(-5), "price": Bson::Decimal128("10.50".parse().unwrap()),
        "name": "Ἑλένη \"x\"", "tags": ["a", "b,c"], "more": { "a": [1, null] }, "flag": true, "ratio": 0.25,
    };
    let mut world = World::new(table, [document], plain()).await;
    assert_eq!(world.copied(5).await, (1, 1));
    let right = "SELECT _id = 1099511627776 AND at = '1969-12-31 23:59:59.995Z' AND price::text = '10.50' \
                 AND name = 'Ἑλένη \"x\"' AND tags = ARRAY['a', 'b,c'] AND more = '{\"a\": [1, null]}' \
                 AND flag AND ratio = 0.25 FROM t";
    assert!(world.postgres.yes(right).await);
    assert_eq!(world.again(5).await, (1, 0));
}
