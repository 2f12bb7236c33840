//! Migrations with backfills that are functions in Rust, one in each store: for what is
//! clumsy in SQL and in update operators, and for too many rows to be done at once.
//!
//! ```sh
//! cargo run --example batches -- postgres://app@localhost/shop mongodb://localhost/shop
//! ```

use lockstep::mongodb::bson::doc;
use lockstep::{Migration, Migrator, MongoBatch, PostgresBatch, Up};
use std::error::Error;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(postgres_url), Some(mongo_url)) = (arguments.next(), arguments.next()) else {
        return Err("usage: batches POSTGRES_URL MONGO_URL".into());
    };
    migrate(&postgres_url, &mongo_url).await
}

/// What is called with a revision: a new one belongs into a new migration.
const NAMES: &str = r#"
[[backfill]]
name = "names out of mails"
postgres = { table = "people", where = "name IS NULL", call = "lockstep.fill_names('1')" }

[[backfill]]
name = "one name out of two"
mongo = { collection = "people", filter = "{ first: { $exists: true } }", call = "lockstep.join_names('1')" }

[[invariant]]
name = "everybody has a name"
postgres = "SELECT count(*) FROM people WHERE name IS NULL"

[[invariant]]
name = "nobody has two"
mongo = { collection = "people", count = "{ name: { $exists: false } }" }
"#;

/// Migrates. Each row is in one batch that is committed, whatever dies.
pub async fn migrate(
    postgres_url: &str,
    mongo_url: &str,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let people = "CREATE TABLE people (id bigint PRIMARY KEY, mail text NOT NULL);
                  INSERT INTO people SELECT n, 'ada' || n || '@example.org' FROM generate_series(1, 1000) AS n;";
    let migrator = Migrator::builder()
        .migrations([
            Migration::new("001-people")
                .file("up.sql", people)
                .file("down.sql", "DROP TABLE people;")
                .file(
                    "up.mongodb.js",
                    "db.people.insertOne({ _id: 1, first: 'Ada', last: 'Lovelace' });",
                )
                .file("down.mongodb.js", "db.people.drop();"),
            Migration::new("002-names")
                .file("prepare.sql", "ALTER TABLE people ADD COLUMN name text;")
                .file("prepare.down.sql", "ALTER TABLE people DROP COLUMN name;")
                .file("migration.toml", NAMES),
        ])
        .postgres_batch("fill_names", fill_names)
        .mongo_batch("join_names", join_names)
        .postgres_url(postgres_url)
        .mongo_url(mongo_url)
        .build()?;
    migrator.up(Up::all()).await?;
    Ok(())
}

/// `ada1@example.org` is Ada1.
async fn fill_names(batch: &PostgresBatch<'_>) -> Result<u64, Box<dyn Error + Send + Sync>> {
    let (mut ids, mut names) = (Vec::new(), Vec::new());
    // Locked, or what somebody writes between the two statements would be overwritten.
    let mails = "SELECT id, mail FROM people WHERE {batch} FOR UPDATE";
    for row in batch.query(mails, &[]).await? {
        let (id, mail): (i64, String) = (row.get(0), row.get(1));
        let name = mail.split('@').next().unwrap_or_default();
        let (first, rest) = name.split_at(name.chars().next().map_or(0, char::len_utf8));
        ids.push(id);
        names.push(first.to_uppercase() + rest);
    }
    // All of them at once: a request for each would take its time.
    let update = "UPDATE people SET name = new.name
                  FROM (SELECT * FROM unnest($1::bigint[], $2::text[]) AS n (id, name)) AS new
                  WHERE people.id = new.id";
    batch.execute(update, &[&ids, &names]).await
}

/// Ada and Lovelace are Ada Lovelace.
async fn join_names(batch: &mut MongoBatch<'_>) -> Result<u64, Box<dyn Error + Send + Sync>> {
    let mut updates = Vec::new();
    for person in batch.documents().await? {
        let name = format!("{} {}", person.get_str("first")?, person.get_str("last")?);
        let update = doc! { "$set": { "name": name }, "$unset": { "first": "", "last": "" } };
        updates.push((doc! { "_id": person.get("_id") }, update));
    }
    batch.update_each("people", updates).await
}
