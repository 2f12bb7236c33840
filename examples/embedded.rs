//! A service that migrates when it starts, and then answers: to whoever connects it says
//! who the people are, and ends the connection.
//!
//! ```sh
//! cargo run --example embedded -- postgres://app@localhost/shop mongodb://localhost/shop
//! nc 127.0.0.1 PORT
//! ```

use lockstep::{Migrator, Notice, Transaction, Up, tokio_postgres};
use std::error::Error;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

/// Compiled in: the service is one file. The program `migrate` has the same folder.
static MIGRATIONS: lockstep::include_dir::Dir<'_> =
    lockstep::embed!("$CARGO_MANIFEST_DIR/examples/migrations");

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(postgres_url), Some(mongo_url)) = (arguments.next(), arguments.next()) else {
        return Err("usage: embedded POSTGRES_URL MONGO_URL".into());
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {}", listener.local_addr()?);
    serve(&postgres_url, &mongo_url, listener).await
}

/// Migrates, then answers for as long as it is let. It may be started any number of times
/// at once: one of them migrates, and the others wait for it.
pub async fn serve(
    postgres_url: &str,
    mongo_url: &str,
    listener: TcpListener,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let migrator = Migrator::builder()
        .embedded(&MIGRATIONS)
        .function("fill_names", fill_names)
        .postgres_url(postgres_url)
        .mongo_url(mongo_url)
        .applied_by("people-service")
        .on_notice(|notice| {
            if let Notice::MigrationFinished { folder, took, .. } = notice {
                println!("{folder} in {took:?}");
            }
        })
        .build()?;
    // When this fails, the old release goes on serving, and what was done is recorded.
    migrator.up(Up::all().release(env!("CARGO_PKG_VERSION"))).await?;

    let (client, connection) = tokio_postgres::connect(postgres_url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    loop {
        let (mut visitor, _) = listener.accept().await?;
        for row in client.query("SELECT name FROM people ORDER BY id", &[]).await? {
            visitor.write_all(format!("{}\n", row.get::<_, &str>(0)).as_bytes()).await?;
        }
    }
}

/// `ada.lovelace@…` is Ada Lovelace, which SQL could say too, if with less pleasure. It runs
/// in the transaction of its step: should it fail, the column is gone with it.
async fn fill_names(transaction: &Transaction<'_>) -> Result<(), Box<dyn Error + Send + Sync>> {
    for row in transaction.query("SELECT id, mail FROM people WHERE name IS NULL", &[]).await? {
        let (id, mail): (i64, &str) = (row.get(0), row.get(1));
        let account = mail.split('@').next().unwrap_or(mail);
        let name: Vec<String> = account.split('.').map(capitalized).collect();
        let update = "UPDATE people SET name = $1 WHERE id = $2";
        transaction.execute(update, &[&name.join(" "), &id]).await?;
    }
    Ok(())
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
