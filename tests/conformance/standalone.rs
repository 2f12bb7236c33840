//! A standalone MongoDB: it has no transactions, so each write is announced.

use crate::mongo::{connect, step};
use crate::subject::{fate, outcome, record, record_of, row, settle, take};
use bson::{Document, doc};
use lockstep::core::history::{Entry, Event};
use lockstep::core::server::Topology;
use lockstep::store::{Fate, Holds, Store};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// A server of its own, on a port that it chose itself.
pub struct Standalone {
    process: Child,
    pub uri: String,
    _data: tempfile::TempDir,
}

impl Standalone {
    pub fn start() -> Standalone {
        let env = |name: &str| std::env::var(name).ok();
        let mongod = lockstep::sandbox::find(&env).mongod.expect("run scripts/setup: no mongod");
        let data = tempfile::tempdir().unwrap();
        let mut process = Command::new(mongod)
            .args(["--port", "0", "--bind_ip", "127.0.0.1", "--nounixsocket"])
            .args(["--wiredTigerCacheSizeGB", "0.25", "--dbpath"])
            .arg(data.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let line: serde_json::Value = serde_json::from_str(&line).ok()?;
            (line["msg"] == "Waiting for connections").then(|| line["attr"]["port"].as_i64())?
        });
        // What it says must be read on, or it stops to wait for a reader.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let uri = format!("mongodb://127.0.0.1:{}/app", port.expect("it starts"));
        Standalone { process, uri, _data: data }
    }
}

impl Drop for Standalone {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn on_a_standalone_server_every_write_is_journaled_and_none_is_guessed_about() {
    let server = Standalone::start();
    let client = mongodb::Client::with_uri_str(&server.uri).await.unwrap();
    let db = client.database("app");
    let mut store = connect(&server.uri, "a").await;
    assert_eq!(store.server().topology, Topology::Standalone);
    assert_eq!(store.found("pair").await.unwrap(), "pair");
    take(&mut store, "a").await;

    // Records come one by one, in order; the first that is taken ends it.
    store.append(&[record(1, Event::Started), row(1)]).await.unwrap();
    let second = Entry::Record(record_of(2, "up/mongo/1", 1, Event::Started));
    assert_eq!(fate(store.append(&[second, record(1, Event::Started)]).await), Fate::Fenced);
    assert_eq!(store.read().await.unwrap().rows.len(), 1);

    let harmless = step("db.c.updateMany({}, { $set: { a: 1 } })");
    let harmful = step("db.c.updateMany({}, { $inc: { a: 1 } })");
    db.collection::<Document>("c").insert_one(doc! { "_id": 1 }).await.unwrap();
    assert_eq!(store.holds(&harmless).await.unwrap(), Holds::No);
    settle(&mut store, &harmless).await.unwrap();
    settle(&mut store, &harmless).await.unwrap();
    assert_eq!(store.holds(&harmful).await.unwrap(), Holds::Ask);
    store.perform(&harmful).await.unwrap();
    let found = db.collection::<Document>("c").find_one(doc! {}).await.unwrap();
    assert_eq!(found, Some(doc! { "_id": 1, "a": 2 }));

    let error = store.perform(&step("db.c.insertOne({ _id: 1 })")).await.unwrap_err();
    assert_eq!((error.fate, error.said.statement), (Fate::Refused, Some(0)), "{error}");

    // Nothing of a run that lost its lease gets in.
    let past = doc! { "$set": { "expires_at": bson::DateTime::from_millis(1) } };
    db.collection::<Document>("migration_control").update_one(doc! {}, past).await.unwrap();
    let mut new = connect(&server.uri, "b").await;
    take(&mut new, "b").await;
    let before = new.read().await.unwrap();
    assert_eq!(fate(store.append(&[record(9, Event::Started), row(9)]).await), Fate::Fenced);
    assert_eq!(fate(store.perform(&harmful).await), Fate::Fenced);
    assert_eq!(new.read().await.unwrap(), before);
    store.release(&outcome("ok")).await.unwrap();
    new.release(&outcome("ok")).await.unwrap();
    assert_eq!(new.read().await.unwrap().lease, None);
}
