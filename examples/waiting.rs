//! A service that must not migrate, and waits for one that does: it is ready when version 3
//! is completed in both databases. It needs no more than the right to read.
//!
//! ```sh
//! cargo run --example waiting -- postgres://reader@localhost/shop mongodb://localhost/shop
//! ```

use lockstep::{Error, Kind, Migrator};
use std::time::Duration;

/// What the code of this release needs.
const NEEDED: u64 = 3;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(postgres_url), Some(mongo_url)) = (arguments.next(), arguments.next()) else {
        return Err("usage: waiting POSTGRES_URL MONGO_URL".into());
    };
    match ready(&postgres_url, &mongo_url, Duration::from_mins(1)).await {
        Ok(()) => println!("ready"),
        Err(error) if error.kind() == Kind::Timeout => println!("not yet: {error}"),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Returns when the databases are what this release needs.
pub async fn ready(postgres_url: &str, mongo_url: &str, limit: Duration) -> Result<(), Error> {
    let migrator = Migrator::builder().postgres_url(postgres_url).mongo_url(mongo_url).build()?;
    migrator.wait(NEEDED, limit).await
}
