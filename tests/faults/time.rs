//! Time that passes without anybody waiting for it: leases run out.
//!
//! All that thirty seconds without a heartbeat do is that `expires_at` lies in the
//! past, so the tests write that down. Every run under test keeps the term that it
//! really has, and none loses its lease because the machine is busy.

use std::time::Duration;

use bson::{Document, doc};

use crate::support::sql::sql;
use crate::support::{Database, block_on, chain};

/// The session of a run that was killed is gone within this; the lease of one that
/// was stopped in the middle of taking it is not there yet, and nothing is waited for.
const LOCK_LIMIT: Duration = Duration::from_secs(2);

/// Lets the leases in both stores run out, whoever holds them.
pub fn leases_run_out(database: &Database) {
    leases_run_out_at(&database.postgres_url, &database.mongo_uri);
}

/// The same, by URL.
pub fn leases_run_out_at(postgres_url: &str, mongo_uri: &str) {
    block_on(async || {
        postgres(postgres_url).await;
        mongo(mongo_uri).await;
    });
}

async fn postgres(url: &str) {
    let (client, connection) =
        tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("Postgres answers");
    let connection = tokio::spawn(connection);
    let past = format!(
        "SET lock_timeout = {}; UPDATE public.migration_control \
         SET expires_at = clock_timestamp() - interval '1 second' WHERE expires_at IS NOT NULL",
        LOCK_LIMIT.as_millis()
    );
    if let Err(error) = client.batch_execute(&past).await {
        // undefined_table: nobody was here. lock_not_available: see above.
        let code = error.code().map(tokio_postgres::error::SqlState::code);
        assert!(matches!(code, Some("42P01" | "55P03")), "{}", chain(&error));
    }
    drop(client);
    let _ = connection.await;
}

async fn mongo(uri: &str) {
    let client = mongodb::Client::with_uri_str(uri).await.expect("a valid URI");
    let database = client.default_database().expect("a URI with a database");
    let held = doc! { "expires_at": { "$ne": null } };
    let past = vec![doc! { "$set": { "expires_at": { "$subtract": ["$$NOW", 1000] } } }];
    let control = database.collection::<Document>("migration_control");
    control.update_many(held, past).await.expect("MongoDB takes writes");
    client.shutdown().immediate(true).await;
}

/// Lets 60 s pass for whoever has claimed a shard: those of the dead become anybody's,
/// and the living say with their next batch that they are there.
pub fn shards_fall_silent(database: &Database) {
    sql(
        &database.postgres_url,
        "UPDATE public.migration_steps SET recorded_at = recorded_at - interval '60 seconds' \
         WHERE event = 'progress'",
    );
    block_on(async || {
        let client = mongodb::Client::with_uri_str(&database.mongo_uri).await.expect("a valid URI");
        let here = client.default_database().expect("a URI with a database");
        let past =
            vec![doc! { "$set": { "recorded_at": { "$subtract": ["$recorded_at", 60_000] } } }];
        let steps = here.collection::<Document>("migration_steps");
        steps.update_many(doc! { "event": "progress" }, past).await.expect("MongoDB takes writes");
        client.shutdown().immediate(true).await;
    });
}
