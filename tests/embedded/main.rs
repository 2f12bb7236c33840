//! The library as a service embeds it, on real servers.

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/pooler.rs"]
mod pooler;

#[path = "../../examples/embedded.rs"]
#[expect(dead_code, reason = "its `main` is for whoever runs it")]
mod embedded;
#[path = "../../examples/batches.rs"]
#[expect(dead_code, reason = "its `main` is for whoever runs it")]
mod in_batches;
#[path = "../../examples/waiting.rs"]
#[expect(dead_code, reason = "its `main` is for whoever runs it")]
mod waiting;

mod batches;
mod beside;
mod examples;
mod functions;
mod runs;
mod surface;

use lockstep::{Builder, Migration, Migrator};
use support::Database;

/// A service with these migrations, each a folder and the text of its `up.sql`.
fn service(database: &Database, migrations: &[(&str, &str)]) -> Builder {
    let migrations = migrations.iter().map(|(name, up)| Migration::new(*name).file("up.sql", *up));
    Migrator::builder()
        .migrations(migrations.collect::<Vec<_>>())
        .postgres_url(&database.postgres_url)
        .mongo_url(&database.mongo_uri)
}

/// A session of the application.
async fn client(database: &Database) -> tokio_postgres::Client {
    let url = &database.postgres_url;
    let (client, connection) =
        tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("it answers");
    tokio::spawn(connection);
    client
}

/// What a query of one number says.
async fn number(database: &Database, query: &str) -> i64 {
    client(database).await.query_one(query, &[]).await.expect(query).get(0)
}
