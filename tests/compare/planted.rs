//! Faults that were planted are found, each of them, and nothing else.

use crate::pair::{Pair, of_kind, set, told};
use bson::{Bson, Document, doc};
use lockstep::core::compare::{Kind, Verdict};
use std::collections::BTreeSet;

const COMPARE: &str = "{ postgres = 'SELECT id AS _id, name, amount, at, tags, body, owner FROM t', \
                       mongo = { collection = 't' }, key = '_id' }";

/// So many rows that are the same in both stores.
async fn filled(rows: i64) -> Pair {
    let pair = Pair::new().await;
    pair.run(&format!(
        "CREATE TABLE t (id bigint PRIMARY KEY, name text, amount numeric(20,4), at timestamptz, \
         tags text[], body jsonb, owner uuid); \
         INSERT INTO t SELECT n, 'Name ' || n, n + 0.25, \
         timestamptz '2026-01-01 00:00:00.123456+00' + n * interval '1 second', \
         ARRAY['a' || n, 'b'], jsonb_build_object('n', n, 'deep', jsonb_build_object('x', ARRAY[1, n])), \
         ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid \
         FROM generate_series(1, {rows}) AS n; ANALYZE t"
    ))
    .await;
    let mut documents = Vec::new();
    for n in 1..=rows {
        documents.push(document(n));
        if documents.len() == 10_000 || n == rows {
            pair.collection("t").insert_many(std::mem::take(&mut documents)).await.unwrap();
        }
    }
    pair
}

/// What the row is in MongoDB: its numbers are of other types, and its fields in
/// another order.
fn document(n: i64) -> Document {
    let body: Document = doc! { "deep": { "x": [1.0, i32::try_from(n).unwrap()] }, "n": n };
    let amount: bson::Decimal128 = format!("{n}.25").parse().unwrap();
    doc! {
        "_id": i32::try_from(n).unwrap(),
        "tags": [format!("a{n}"), "b"],
        "at": bson::DateTime::from_millis(1_767_225_600_123 + n * 1000),
        "amount": amount,
        "name": format!("Name {n}"),
        "owner": bson::Uuid::parse_str(format!("00000000-0000-0000-0000-{n:012}")).unwrap(),
        "body": body,
    }
}

/// Plants 50 faults, of each kind, and says where.
async fn plant(pair: &Pair, rows: i64) -> BTreeSet<i64> {
    let place = |at: i64| 1 + at * (rows - 1) / 49;
    let c = pair.collection("t");
    for at in 0..50 {
        let id = place(at);
        let which = doc! { "_id": id };
        let change = match at % 7 {
            0 => {
                c.delete_one(which).await.unwrap();
                continue;
            }
            1 => {
                pair.run(&format!("DELETE FROM t WHERE id = {id}")).await;
                continue;
            }
            2 => set(doc! { "name": format!("name {id}") }),
            3 => {
                let amount: bson::Decimal128 = format!("{id}.2501").parse().unwrap();
                set(doc! { "amount": amount })
            }
            4 => set(doc! { "at": bson::DateTime::from_millis(1_767_225_600_124 + id * 1000) }),
            5 => set(doc! { "tags.1": "c" }),
            _ => set(doc! { "body.deep.x.0": 2, "owner": Bson::Null }),
        };
        c.update_one(which, change).await.unwrap();
    }
    (0..50).map(place).collect()
}

async fn all_are_found(rows: i64) {
    let pair = filled(rows).await;
    let clean = pair.compare(COMPARE).await;
    Pair::expect_clean(&clean, u64::try_from(rows).unwrap());
    let planted = plant(&pair, rows).await;
    let found = pair.compare(COMPARE).await;
    let differences = told(&found);
    let keys: BTreeSet<i64> =
        differences.iter().map(|it| it.key.as_i64().expect("a number")).collect();
    assert_eq!(keys, planted);
    assert_eq!(differences.len(), 50);
    assert_eq!(of_kind(&differences, Kind::MissingInMongo), 8);
    assert_eq!(of_kind(&differences, Kind::MissingInPostgres), 7);
    for difference in differences.iter().filter(|it| it.kind == Kind::Different) {
        let known = ["name", "amount", "at", "tags"];
        let is_one = matches!(difference.fields.as_slice(), [one] if known.contains(&one.as_str()));
        assert!(is_one || difference.fields == ["body", "owner"], "{difference}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_of_fifty_and_nothing_else() {
    all_are_found(20_000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute"]
async fn fifty_of_fifty_in_a_million_and_nothing_else() {
    all_are_found(1_000_000).await;
}

#[tokio::test]
async fn a_report_names_the_key_and_the_fields() {
    let pair = filled(20).await;
    let c = pair.collection("t");
    c.update_one(doc! { "_id": 3 }, set(doc! { "name": "x", "amount": 1 })).await.unwrap();
    c.update_one(doc! { "_id": 4 }, set(doc! { "more": 1 })).await.unwrap();
    c.delete_one(doc! { "_id": 5 }).await.unwrap();
    c.insert_one(doc! { "_id": "x" }).await.unwrap();
    pair.run("DELETE FROM t WHERE id = 7").await;
    assert_eq!(
        pair.differences(COMPARE).await,
        [
            "_id = \"x\" is missing in Postgres",
            "_id = 3 differs in amount, name",
            "_id = 4 differs in more",
            "_id = 5 is missing in MongoDB",
            "_id = 7 is missing in Postgres",
        ]
    );
}

/// An empty side is no reason to read all of the other.
#[tokio::test]
async fn where_everything_differs_the_first_thousand_are_enough() {
    let pair = filled(3_000).await;
    pair.run("TRUNCATE t").await;
    let found = pair.compare(COMPARE).await;
    assert!(found.is_partial);
    assert_eq!(of_kind(&told(&found), Kind::MissingInPostgres), 1_000);
    let pair = filled(3_000).await;
    pair.collection("t").drop().await.unwrap();
    let found = pair.compare(COMPARE).await;
    assert!(found.is_partial);
    assert_eq!(of_kind(&told(&found), Kind::MissingInMongo), 1_000);
}

#[tokio::test]
async fn nothing_is_the_same_as_nothing() {
    let pair = Pair::new().await;
    pair.run("CREATE TABLE t (id int PRIMARY KEY)").await;
    let compare =
        "{ postgres = 'SELECT id AS _id FROM t', mongo = { collection = 't' }, key = '_id' }";
    Pair::expect_clean(&pair.compare(compare).await, 0);
    pair.collection("t").insert_one(doc! { "_id": 1 }).await.unwrap();
    assert_eq!(pair.differences(compare).await, ["_id = 1 is missing in Postgres"]);
}

/// A row that has no document is named, with the reason.
#[tokio::test]
async fn what_cannot_be_compared_is_named() {
    let pair = Pair::new().await;
    pair.run(
        "CREATE TABLE t (id int PRIMARY KEY, n numeric); INSERT INTO t VALUES (1, 1), \
         (2, 12345678901234567890123456789012345678901234567890), (3, 3)",
    )
    .await;
    let documents = (1..=3).map(|n| doc! { "_id": n, "n": n });
    pair.collection("t").insert_many(documents).await.unwrap();
    let compare =
        "{ postgres = 'SELECT id AS _id, n FROM t', mongo = { collection = 't' }, key = '_id' }";
    let found = pair.differences(compare).await;
    let [only] = found.as_slice() else { panic!("{found:?}") };
    assert!(only.starts_with("_id = 2 cannot be compared: `n`: "), "{only}");
    assert!(only.contains("34 digits"), "{only}");
}

/// It is asked for again by its key, in the key's order whatever that of the columns is.
#[tokio::test]
async fn what_cannot_be_compared_is_named_whatever_its_key_is() {
    let pair = Pair::new().await;
    pair.run(
        "CREATE TABLE t (id int, tenant int, until timestamptz, PRIMARY KEY (tenant, id)); \
         INSERT INTO t VALUES (1, 2, 'infinity'); \
         CREATE TABLE u (until timestamptz PRIMARY KEY); INSERT INTO u VALUES ('infinity')",
    )
    .await;
    pair.collection("t").insert_one(doc! { "tenant": 2, "id": 1 }).await.unwrap();
    let several = "{ postgres = 'SELECT id, tenant, until FROM t', \
                   mongo = { collection = 't', pipeline = '[{ $unset: \"_id\" }]' }, \
                   key = ['tenant', 'id'] }";
    let found = pair.differences(several).await;
    let [only] = found.as_slice() else { panic!("{found:?}") };
    assert!(only.starts_with("tenant = 2, id = 1 cannot be compared: `until`: "), "{only}");
    let infinite =
        "{ postgres = 'SELECT until AS _id FROM u', mongo = { collection = 'u' }, key = '_id' }";
    let found = pair.differences(infinite).await;
    let [only] = found.as_slice() else { panic!("{found:?}") };
    assert!(only.contains("cannot be compared: `_id`: "), "{only}");
}

/// Rows that cannot be compared end a range as any other, so memory does not depend on how
/// many there are.
#[tokio::test]
async fn rows_that_all_cannot_be_compared_are_not_read_at_once() {
    let pair = Pair::new().await;
    pair.run(
        "CREATE TABLE t (id int PRIMARY KEY, until timestamptz); \
         INSERT INTO t SELECT g, 'infinity' FROM generate_series(1, 60000) AS g; ANALYZE t",
    )
    .await;
    let compare = "{ postgres = 'SELECT id AS _id, until FROM t', mongo = { collection = 't' }, key = '_id' }";
    let compared = pair.compare(compare).await;
    assert!(compared.is_partial && compared.rows < 60_000, "{compared:?}");
}

/// Two rows with one key are a difference, though one of them is the document.
#[tokio::test]
async fn a_key_that_two_rows_have_is_named() {
    let pair = Pair::new().await;
    pair.run(
        "CREATE TABLE t (id int, n int); CREATE INDEX ON t (id); \
         INSERT INTO t VALUES (1, 1), (2, 1), (2, 2), (3, 1)",
    )
    .await;
    let documents = (1..=3).map(|id| doc! { "_id": id, "n": 1 });
    pair.collection("t").insert_many(documents).await.unwrap();
    let compare =
        "{ postgres = 'SELECT id AS _id, n FROM t', mongo = { collection = 't' }, key = '_id' }";
    assert_eq!(pair.differences(compare).await, ["_id = 2: 2 rows in Postgres have this key"]);

    let c = pair.collection("u");
    pair.run("CREATE TABLE u (k int PRIMARY KEY, n int); INSERT INTO u VALUES (1, 1), (2, 1)")
        .await;
    let documents = [(1, 1), (2, 1), (2, 1)].map(|(k, n)| doc! { "k": k, "n": n });
    c.insert_many(documents).await.unwrap();
    let compare = "{ postgres = 'SELECT k, n FROM u', mongo = { collection = 'u', \
                   pipeline = \"[{ $unset: '_id' }]\" }, key = 'k' }";
    let found = pair.compare(compare).await;
    assert!(matches!(found.verdict, Verdict::Diverged { count: 1, .. }), "{found:?}");
    assert_eq!(told(&found)[0].to_string(), "k = 2: 2 documents in MongoDB have this key");
}
