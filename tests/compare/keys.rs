//! Keys of all kinds, and stores that do not put them in one order.

use crate::pair::Pair;
use bson::{Bson, Document, doc, oid::ObjectId};
use lockstep::engine::Stop;
use lockstep::engine::compare::Unanswered;

const COMPARE: &str =
    "{ postgres = 'SELECT id AS _id, n FROM t', mongo = { collection = 't' }, key = '_id' }";

/// Rows and documents of these keys are the same; without one on either side, that
/// one is missing.
async fn each_is_found(pair: &Pair, keys: &[(String, Bson)]) {
    for (at, (text, _)) in keys.iter().enumerate() {
        let insert = "INSERT INTO t (id, n) SELECT p.id, $2 FROM \
             pg_catalog.json_populate_record(null::t, pg_catalog.json_build_object('id', $1::text)) AS p";
        pair.sql.execute(insert, &[text, &i32::try_from(at).unwrap()]).await.unwrap();
    }
    let c = pair.collection("t");
    let documents = keys.iter().enumerate().map(|(at, (_, id))| {
        doc! { "_id": id, "n": i32::try_from(at).unwrap() }
    });
    c.insert_many(documents).await.unwrap();
    pair.run("ANALYZE t").await;
    Pair::expect_clean(&pair.compare(COMPARE).await, keys.len() as u64);
    for at in [0, keys.len() / 2, keys.len() - 1] {
        let n = i32::try_from(at).unwrap();
        pair.run(&format!("UPDATE t SET n = n + 1000 WHERE n = {n}")).await;
        let found = pair.differences(COMPARE).await;
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].ends_with(" differs in n"), "{found:?}");
        let kept = c.find_one_and_delete(doc! { "_id": &keys[at].1 }).await.unwrap().unwrap();
        let found = pair.differences(COMPARE).await;
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].ends_with(" is missing in MongoDB"), "{found:?}");
        let mut other = kept.clone();
        other.insert("n", n);
        c.insert_one(other).await.unwrap();
        let delete = "DELETE FROM t WHERE id = (SELECT p.id FROM \
             pg_catalog.json_populate_record(null::t, pg_catalog.json_build_object('id', $1::text)) AS p)";
        assert_eq!(pair.sql.execute(delete, &[&keys[at].0]).await.unwrap(), 1);
        let found = pair.differences(COMPARE).await;
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].ends_with(" is missing in Postgres"), "{found:?}");
        c.delete_one(doc! { "_id": &keys[at].1 }).await.unwrap();
    }
    Pair::expect_clean(&pair.compare(COMPARE).await, keys.len() as u64 - 3);
}

fn texts(values: &[&str]) -> Vec<(String, Bson)> {
    values.iter().map(|&value| (value.to_owned(), Bson::from(value))).collect()
}

/// Texts that no two collations agree about.
const TEXTS: [&str; 14] = ["a", "A", "b", "B", "ä", "Z", "z", "_", "-", " ", "10", "9", "éa", "e"];

#[tokio::test]
async fn texts_are_compared_in_the_order_of_bytes_or_by_lists() {
    for collation in ["\"C\"", "\"en-x-icu\"", "\"de-x-icu\"", "\"default\""] {
        let pair = Pair::new().await;
        pair.run(&format!("CREATE TABLE t (id text COLLATE {collation} PRIMARY KEY, n int)")).await;
        each_is_found(&pair, &texts(&TEXTS)).await;
    }
    let pair = Pair::new().await;
    pair.run(
        "CREATE TABLE t (id text COLLATE \"en-x-icu\" PRIMARY KEY, n int); \
         CREATE INDEX ON t (id COLLATE \"C\")",
    )
    .await;
    each_is_found(&pair, &texts(&TEXTS)).await;
}

/// A collection whose own order takes `a` for `A`.
#[tokio::test]
async fn a_collection_with_a_collation_is_compared_byte_by_byte() {
    let pair = Pair::new().await;
    pair.run("CREATE TABLE t (id text COLLATE \"C\" PRIMARY KEY, n int)").await;
    let collation = doc! { "locale": "en", "strength": 2 };
    pair.mongo.run_command(doc! { "create": "t", "collation": collation }).await.unwrap();
    each_is_found(&pair, &texts(&["a", "b", "C", "d"])).await;
    pair.run("DELETE FROM t; INSERT INTO t VALUES ('x', 1)").await;
    pair.collection("t").delete_many(doc! {}).await.unwrap();
    pair.collection("t").insert_one(doc! { "_id": "X", "n": 1 }).await.unwrap();
    let found = pair.differences(COMPARE).await;
    assert_eq!(found, ["_id = \"X\" is missing in Postgres", "_id = \"x\" is missing in MongoDB"]);
}

#[tokio::test]
async fn keys_of_every_kind_belong_together() {
    let keys = |texts: &[&str], of: fn(&str) -> Bson| -> Vec<(String, Bson)> {
        texts.iter().map(|text| ((*text).to_owned(), of(text))).collect()
    };
    let int = |text: &str| Bson::Int64(text.parse().unwrap());
    let decimal = |text: &str| Bson::Decimal128(text.parse().unwrap());
    let uuid = |text: &str| Bson::from(bson::Uuid::parse_str(text).unwrap());
    let date =
        |text: &str| Bson::DateTime(bson::DateTime::parse_rfc3339_str(format!("{text}Z")).unwrap());
    let day = |text: &str| {
        Bson::DateTime(bson::DateTime::parse_rfc3339_str(format!("{text}T00:00:00Z")).unwrap())
    };
    let id = |text: &str| Bson::ObjectId(ObjectId::parse_str(text).unwrap());
    let ids = ["507f1f77bcf86cd799439011", "507f1f77bcf86cd799439012", "ffff1f77bcf86cd799439011"];
    let uuids = [
        "00000000-0000-0000-0000-000000000001",
        "7fffffff-ffff-ffff-ffff-ffffffffffff",
        "80000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
    ];
    let dates = ["1999-12-31T23:59:59.999", "2026-01-01T00:00:00", "2026-01-01T00:00:00.001"];
    for (kind, keys) in [
        ("smallint", keys(&["-5", "0", "7", "32767"], int)),
        ("int", keys(&["-5", "0", "7", "2147483647"], int)),
        ("bigint", keys(&["-9223372036854775808", "-1", "9", "10", "9223372036854775807"], int)),
        ("numeric", keys(&["-1.5", "0.1", "2", "10", "123456789012345678901234567890.5"], decimal)),
        ("uuid", keys(&uuids, uuid)),
        ("timestamp", keys(&dates, date)),
        ("date", keys(&["1969-12-31", "2000-02-29", "2026-11-21"], day)),
        ("char(24)", keys(&ids, id)),
        ("text", keys(&ids, id)),
        ("varchar(30)", keys(&["a", "B", "c"], |text| Bson::from(text))),
        ("char(5)", keys(&["a", "B", "c"], |text| Bson::from(text))),
        ("boolean", keys(&["false", "true", "false"][..2], |text| Bson::from(text == "true"))),
    ] {
        let pair = Pair::new().await;
        pair.run(&format!("CREATE TABLE t (id {kind} PRIMARY KEY, n int)")).await;
        if keys.len() > 2 {
            each_is_found(&pair, &keys).await;
        }
    }
}

/// Rows whose keys are one in milliseconds are in one range.
#[tokio::test]
async fn microseconds_are_floored_and_belong_together() {
    let pair = Pair::new().await;
    pair.run(
        "CREATE TABLE t (id timestamptz PRIMARY KEY, n int); \
         INSERT INTO t SELECT timestamptz '2026-01-01 00:00:00.000789+00' \
         + g * interval '1 millisecond', g FROM generate_series(0, 20000) AS g; ANALYZE t",
    )
    .await;
    let documents: Vec<Document> = (0..=20_000)
        .map(|n| doc! { "_id": bson::DateTime::from_millis(1_767_225_600_000 + i64::from(n)), "n": n })
        .collect();
    let c = pair.collection("t");
    c.insert_many(documents).await.unwrap();
    Pair::expect_clean(&pair.compare(COMPARE).await, 20_001);
    c.delete_one(doc! { "n": 9_999 }).await.unwrap();
    assert_eq!(pair.differences(COMPARE).await.len(), 1);
    pair.run("DELETE FROM t WHERE n = 9999").await;
    Pair::expect_clean(&pair.compare(COMPARE).await, 20_000);
    pair.run("INSERT INTO t VALUES ('2026-01-01 00:00:05.000999+00', 5000)").await;
    let found = pair.differences(COMPARE).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].ends_with(": 2 rows in Postgres have this key"), "{found:?}");
}

/// Several ranges, by lists and by ranges, with keys that only MongoDB has.
#[tokio::test]
async fn what_only_mongodb_has_is_found_in_either_way() {
    for (kind, id) in [("bigint", false), ("text COLLATE \"en-x-icu\"", true)] {
        let pair = Pair::new().await;
        pair.run(&format!(
            "CREATE TABLE t (id {kind} PRIMARY KEY, n int); \
             INSERT INTO t SELECT g, g FROM generate_series(1, 20000) AS g; ANALYZE t"
        ))
        .await;
        let of = |n: i32| if id { Bson::String(n.to_string()) } else { Bson::Int32(n) };
        let documents: Vec<Document> =
            (1..=20_000).map(|n| doc! { "_id": of(n), "n": n }).collect();
        let c = pair.collection("t");
        c.insert_many(documents).await.unwrap();
        Pair::expect_clean(&pair.compare(COMPARE).await, 20_000);
        let more = [of(-7), of(20_001), Bson::Boolean(true), Bson::from(1.5), Bson::Null];
        for id in &more {
            c.insert_one(doc! { "_id": id }).await.unwrap();
        }
        let found = pair.differences(COMPARE).await;
        assert_eq!(found.len(), more.len(), "{found:?}");
        assert!(found.iter().all(|it| it.ends_with("is missing in Postgres")), "{found:?}");
    }
}

#[tokio::test]
async fn keys_of_two_fields_belong_together() {
    let pair = Pair::new().await;
    pair.run(
        "CREATE TABLE t (tenant int, id text, n int, PRIMARY KEY (tenant, id)); \
         INSERT INTO t SELECT g % 7, 'k' || g, g FROM generate_series(1, 20000) AS g; ANALYZE t",
    )
    .await;
    let c = pair.collection("t");
    c.create_index(mongodb::IndexModel::builder().keys(doc! { "tenant": 1, "id": 1 }).build())
        .await
        .unwrap();
    let documents: Vec<Document> =
        (1..=20_000).map(|n| doc! { "tenant": n % 7, "id": format!("k{n}"), "n": n }).collect();
    c.insert_many(documents).await.unwrap();
    let compare = "{ postgres = 'SELECT tenant, id, n FROM t', mongo = { collection = 't', \
                   pipeline = \"[{ $unset: '_id' }]\" }, key = ['tenant', 'id'] }";
    Pair::expect_clean(&pair.compare(compare).await, 20_000);
    c.delete_one(doc! { "n": 9_000 }).await.unwrap();
    c.update_one(doc! { "n": 12_345 }, doc! { "$set": { "n": 0 } }).await.unwrap();
    c.insert_one(doc! { "tenant": 3, "id": "x", "n": 1 }).await.unwrap();
    assert_eq!(
        pair.differences(compare).await,
        [
            "tenant = 3, id = \"x\" is missing in Postgres",
            "tenant = 4, id = \"k12345\" differs in n",
            "tenant = 5, id = \"k9000\" is missing in MongoDB",
        ]
    );
}

/// The pipeline makes the key: right, if not fast.
#[tokio::test]
async fn a_key_that_a_pipeline_makes_belongs_together() {
    let pair = Pair::new().await;
    pair.run(
        "CREATE TABLE t (id int PRIMARY KEY, n int); \
         INSERT INTO t SELECT g, g FROM generate_series(1, 100) AS g",
    )
    .await;
    let c = pair.collection("t");
    let documents: Vec<Document> =
        (1..=100).map(|n| doc! { "_id": format!("u-{n}"), "n": n, "old": true }).collect();
    c.insert_many(documents).await.unwrap();
    let compare = "{ postgres = 'SELECT id, n FROM t', mongo = { collection = 't', find = '{ old: true }', \
                   pipeline = '[{ $project: { _id: 0, n: 1, id: { $toInt: { $substrCP: [\"$_id\", 2, 9] } } } }]' }, \
                   key = 'id' }";
    Pair::expect_clean(&pair.compare(compare).await, 100);
    c.insert_one(doc! { "_id": "u-200", "n": 1, "old": true }).await.unwrap();
    c.insert_one(doc! { "_id": "u-300", "n": 1 }).await.unwrap();
    c.delete_one(doc! { "_id": "u-50" }).await.unwrap();
    let found = pair.differences(compare).await;
    assert_eq!(found, ["id = 50 is missing in MongoDB", "id = 200 is missing in Postgres"]);
}

#[tokio::test]
async fn what_cannot_be_a_comparison_is_refused_with_what_to_do() {
    let pair = Pair::new().await;
    pair.run(
        "CREATE TABLE t (id int PRIMARY KEY, j jsonb, p point, k int); \
         INSERT INTO t SELECT g, '{}', NULL, NULLIF(g, 5) FROM generate_series(1, 60000) AS g; ANALYZE t",
    )
    .await;
    let (_sender, stop) = Stop::new();
    for (query, key, message, hint) in [
        ("SELECT id FROM t", "_id", "the query has no column `_id`", "call one of its columns so"),
        (
            "SELECT id AS _id, p FROM t",
            "_id",
            "column `p` is of type point",
            "cast it in the query",
        ),
        ("SELECT j AS _id FROM t", "_id", "cannot be a key", "cast it in the query"),
        ("SELECT k AS _id FROM t", "_id", "have no key", "leave these rows out"),
        (
            "SELECT id + 1 AS _id FROM t",
            "_id",
            "no index gives the rows in the order",
            "create an index",
        ),
    ] {
        let compare =
            format!("{{ postgres = '{query}', mongo = {{ collection = 't' }}, key = '{key}' }}");
        let refused = pair.try_compare(&compare, &stop).await;
        let Err(Unanswered::Store(error)) = refused else { panic!("{query}: {refused:?}") };
        assert!(error.said.message.contains(message), "{query}: {error:?}");
        assert!(
            error.said.hint.as_deref().unwrap_or_default().contains(hint),
            "{query}: {error:?}"
        );
    }
}
