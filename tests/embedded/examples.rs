//! The examples do what they say.

use crate::support::Database;
use crate::{embedded, in_batches, number, waiting};
use lockstep::mongodb::bson::{Document, doc};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};

/// Nothing that is waited for here takes longer.
const LIMIT: Duration = Duration::from_mins(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_service_migrates_and_answers_and_another_one_waits_for_it() {
    let database = Database::new("examples");
    let (postgres, mongo) = (database.postgres_url.clone(), database.mongo_uri.clone());
    let waits = tokio::spawn(async move { waiting::ready(&postgres, &mongo, LIMIT).await });

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it has one");
    let (postgres, mongo) = (database.postgres_url.clone(), database.mongo_uri.clone());
    let serves = tokio::spawn(async move { embedded::serve(&postgres, &mongo, listener).await });

    let mut said = String::new();
    let mut visitor = TcpStream::connect(address).await.expect("it listens");
    visitor.read_to_string(&mut said).await.expect("it answers");
    assert_eq!(said, "Ada\nGrace Hopper\n");
    waits.await.expect("it does not panic").expect("the version is completed");
    assert!(!serves.is_finished());
    serves.abort();
}

#[tokio::test]
async fn one_fills_in_names_in_batches_in_both_stores() {
    let database = Database::new("in_batches");
    let (postgres, mongo) = (&database.postgres_url, &database.mongo_uri);
    in_batches::migrate(postgres, mongo).await.expect("it works");
    let names = "SELECT count(*) FROM people WHERE name = initcap(split_part(mail, '@', 1))";
    assert_eq!(number(&database, names).await, 1_000);
    let client = lockstep::mongodb::Client::with_uri_str(mongo).await.expect("a URL");
    let people = client.database(&database.name).collection::<Document>("people");
    let ada = people.find_one(doc! { "name": "Ada Lovelace" }).await.expect("it answers");
    assert!(ada.is_some());
    in_batches::migrate(postgres, mongo).await.expect("there is nothing to do");
}

#[tokio::test]
async fn who_waits_in_vain_is_told_what_is_lacking() {
    let database = Database::new("in_vain");
    let limit = Duration::from_millis(300);
    let error = waiting::ready(&database.postgres_url, &database.mongo_uri, limit).await;
    let error = error.expect_err("nobody migrates");
    assert_eq!((error.kind(), error.code()), (lockstep::Kind::Timeout, "WAIT_TIMEOUT"));
    let details: Vec<_> = error.details().collect();
    let lacking =
        [("postgres", "in Postgres it is pending"), ("mongo", "in MongoDB it is pending")];
    assert_eq!(details, lacking);
}
