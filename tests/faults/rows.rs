//! Many rows and documents, each of which counts how often it was rewritten.

use bson::{Document, doc};
use futures_util::TryStreamExt;

use crate::support::sql::{number, sql};
use crate::support::{Database, block_on};

/// Makes `counted` in both stores, with so many rows and documents.
pub fn counted(name: &str, rows: i64, documents: i64) -> Database {
    let database = Database::new(name);
    sql(
        &database.postgres_url,
        &format!(
            "CREATE TABLE counted (id bigint PRIMARY KEY, n bigint NOT NULL, old text NOT NULL); \
             INSERT INTO counted SELECT i, 0, 'row ' || i FROM generate_series(1, {rows}) AS i"
        ),
    );
    block_on(async || {
        let client = mongodb::Client::with_uri_str(&database.mongo_uri).await.expect("a valid URI");
        // Made by the server: a hundred thousand that come from here take seconds.
        let made = vec![
            doc! { "$documents": [{ "id": { "$range": [1, documents + 1] } }] },
            doc! { "$unwind": "$id" },
            doc! { "$project": {
                "_id": "$id", "n": { "$literal": 0 }, "old": { "$literal": "document" },
            } },
            doc! { "$out": "counted" },
        ];
        let here = client.default_database().expect("a URI with a database");
        here.aggregate(made).await.expect("the documents are written");
        client.shutdown().immediate(true).await;
    });
    database
}

/// How many documents of `counted` a filter finds.
pub fn documents(database: &Database, collection: &str, filter: Document) -> u64 {
    block_on(async || {
        let client = mongodb::Client::with_uri_str(&database.mongo_uri).await.expect("a valid URI");
        let here = client.default_database().expect("a URI with a database");
        let found = here.collection::<Document>(collection).count_documents(filter).await;
        client.shutdown().immediate(true).await;
        found.expect("MongoDB answers")
    })
}

/// Fails unless each row and document was rewritten exactly once.
#[track_caller]
pub fn each_was_rewritten_once(database: &Database, rows: i64, counted: i64, after: &str) {
    let url = &database.postgres_url;
    let wrong = number(url, "SELECT count(*) FROM counted WHERE n <> 1");
    let most = number(url, "SELECT coalesce(max(n), 0) FROM counted");
    assert_eq!(wrong, 0, "rows that were not rewritten once, at most {most} times: {after}");
    assert_eq!(number(url, "SELECT count(*) FROM counted"), rows, "{after}");
    let wrong = documents(database, "counted", doc! { "n": { "$ne": 1 } });
    assert_eq!(wrong, 0, "documents that were not rewritten once: {after}");
    let all = documents(database, "counted", doc! {});
    assert_eq!(i64::try_from(all), Ok(counted), "{after}");
}

/// Rows and documents that backfills under way have rewritten.
pub fn rewritten(database: &Database) -> u64 {
    let rows = number(&database.postgres_url, "SELECT count(*) FROM counted WHERE n <> 0");
    u64::try_from(rows).expect("a count")
        + documents(database, "counted", doc! { "n": { "$ne": 0 } })
}

/// The same, as it is recorded in both stores.
pub fn recorded(database: &Database) -> u64 {
    let url = &database.postgres_url;
    let rows = match number(url, "SELECT count(to_regclass('public.migration_steps'))") {
        0 => 0,
        _ => number(
            url,
            "SELECT coalesce(sum(rows), 0)::bigint FROM public.migration_steps \
             WHERE event = 'progress'",
        ),
    };
    let documents = block_on(async || {
        let client = mongodb::Client::with_uri_str(&database.mongo_uri).await.expect("a valid URI");
        let here = client.default_database().expect("a URI with a database");
        let steps = here.collection::<Document>("migration_steps");
        let found = steps.find(doc! { "event": "progress" }).await.expect("MongoDB answers");
        let found: Vec<Document> = found.try_collect().await.expect("MongoDB answers");
        client.shutdown().immediate(true).await;
        found.iter().map(|it| it.get_i64("rows").unwrap_or(0)).sum::<i64>()
    });
    u64::try_from(rows + documents).expect("a count")
}

/// Runs that have claimed a shard which is not done, in both stores.
pub fn claimants(database: &Database) -> Vec<String> {
    let mut runs = block_on(async || {
        let (client, connection) =
            tokio_postgres::connect(&database.postgres_url, tokio_postgres::NoTls)
                .await
                .expect("Postgres answers");
        let connection = tokio::spawn(connection);
        let claimed = "SELECT run_id FROM public.migration_steps WHERE event = 'progress' \
                       AND (cursor ->> 'claimed')::boolean AND NOT (cursor ->> 'done')::boolean";
        let rows = client.query(claimed, &[]).await.expect("the table is there");
        let mut runs: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        drop(client);
        let _ = connection.await;
        let client = mongodb::Client::with_uri_str(&database.mongo_uri).await.expect("a valid URI");
        let here = client.default_database().expect("a URI with a database");
        let steps = here.collection::<Document>("migration_steps");
        let claimed = doc! { "event": "progress", "cursor.claimed": true, "cursor.done": false };
        let found = steps.distinct("run_id", claimed).await.expect("MongoDB answers");
        runs.extend(found.iter().filter_map(|run| run.as_str().map(str::to_owned)));
        client.shutdown().immediate(true).await;
        runs
    });
    runs.sort();
    runs.dedup();
    runs
}
