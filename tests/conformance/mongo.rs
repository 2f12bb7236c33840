//! MongoDB, and what only MongoDB can do wrong.

use crate::proxy::{Cut, cutting_after};
use crate::subject::{Subject, fate, leased, outcome, record, settle, take, until};
use crate::support::Database;
use bson::{Bson, DateTime, Document, doc};
use futures_util::TryStreamExt;
use futures_util::future::join_all;
use lockstep::core::history::{Event, RunSeen};
use lockstep::core::id::StoreName;
use lockstep::core::parse::mongosh::read;
use lockstep::core::step::MongoStep;
use lockstep::store::mongo::{Mongo, MongoConfig};
use lockstep::store::{Fate, Holds, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A database in the replica set of this process.
pub struct Server {
    pub database: Database,
    /// A stranger's connection.
    client: mongodb::Client,
    pub db: mongodb::Database,
}

/// The one step of a script.
pub fn step(script: &str) -> MongoStep {
    let statements = read(script).unwrap();
    let [statement] = <[_; 1]>::try_from(statements).expect("one step");
    statement.step
}

/// On a busy machine a server may take longer to answer than these tests let
/// anybody wait for one that is gone.
pub async fn connect(uri: &str, run_id: &str) -> Mongo {
    const TRIES: u32 = 20;
    for _ in 1..TRIES {
        match Mongo::connect(MongoConfig::parse(uri).await.unwrap(), run_id).await {
            Err(error) if error.fate == Fate::Unreachable => {}
            connected => return connected.unwrap(),
        }
    }
    Mongo::connect(MongoConfig::parse(uri).await.unwrap(), run_id).await.unwrap()
}

impl Server {
    pub async fn run(&self, command: Document) -> Document {
        let text = command.to_string();
        self.db.run_command(command).await.unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    pub async fn at(&self, collection: &str) -> Vec<Document> {
        let found = self.db.collection::<Document>(collection).find(doc! {}).await.unwrap();
        found.try_collect().await.unwrap()
    }

    /// Operations that carry the name of a run and are under way in this test's
    /// databases: other tests have runs of the same name.
    async fn operations(&self, run_id: &str) -> usize {
        let pipeline = vec![
            doc! { "$currentOp": { "allUsers": true } },
            doc! { "$match": {
                "command.comment": format!("lockstep/{run_id}"),
                "command.$db": { "$regex": format!("^{}", self.db.name()) },
            } },
        ];
        let found = self.client.database("admin").aggregate(pipeline).await.unwrap();
        found.try_collect::<Vec<Document>>().await.unwrap().len()
    }

    async fn indexes(&self, collection: &str) -> Vec<String> {
        let mut names =
            self.db.collection::<Document>(collection).list_index_names().await.unwrap();
        names.sort();
        names
    }

    pub async fn open_at(&self, address: &str, run_id: &str) -> Mongo {
        let name = &self.database.name;
        let uri = format!(
            "mongodb://{address}/{name}?directConnection=true&serverSelectionTimeoutMS=1000"
        );
        connect(&uri, run_id).await
    }

    pub fn address(&self) -> &str {
        let (_, rest) = self.database.mongo_uri.split_once("://").unwrap();
        rest.split('/').next().unwrap()
    }
}

impl Subject for Server {
    type Store = Mongo;
    type Step = MongoStep;
    const NAME: StoreName = StoreName::Mongo;

    async fn new() -> Server {
        let database = Database::new("conformance");
        let client = mongodb::Client::with_uri_str(&database.mongo_uri).await.unwrap();
        let db = client.database(&database.name);
        Server { database, client, db }
    }

    async fn open(&self, run_id: &str) -> Mongo {
        connect(&self.database.mongo_uri, run_id).await
    }

    fn mark(&self, mark: &str) -> MongoStep {
        step(&format!("db.marks.insertOne({{ _id: {mark:?} }})"))
    }

    fn mark_and_fail(&self, mark: &str) -> MongoStep {
        step(&format!("db.marks.insertMany([{{ _id: {mark:?} }}, {{ _id: {mark:?} }}])"))
    }

    fn journaled(&self, name: &str) -> MongoStep {
        step(&format!("db.createCollection({name:?}, {{ validator: {{ a: 1 }} }})"))
    }

    async fn marks(&self) -> Vec<String> {
        let mut marks: Vec<String> = self
            .at("marks")
            .await
            .iter()
            .map(|mark| mark.get_str("_id").unwrap().to_owned())
            .collect();
        marks.sort();
        marks
    }

    async fn expire(&self) {
        let past = doc! { "$set": { "expires_at": DateTime::from_millis(1) } };
        self.db
            .collection::<Document>("migration_control")
            .update_one(doc! {}, past)
            .await
            .unwrap();
    }

    async fn left(&self) -> Duration {
        let control = self.at("migration_control").await.remove(0);
        let end = control.get_datetime("expires_at").unwrap().timestamp_millis();
        let left = end - DateTime::now().timestamp_millis();
        Duration::from_millis(u64::try_from(left).unwrap_or(0))
    }

    async fn tables(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut tables = BTreeMap::new();
        for name in self.db.list_collection_names().await.unwrap() {
            let documents = self.at(&name).await;
            let fields = documents.iter().flat_map(Document::keys).filter(|key| *key != "_id");
            tables.insert(name, fields.cloned().collect());
        }
        tables
    }

    async fn spoil(&self) {
        let spoilt = doc! { "$set": { "checksum": "sha256:x" } };
        self.db
            .collection::<Document>("migration_steps")
            .update_many(doc! {}, spoilt)
            .await
            .unwrap();
    }

    async fn runs(&self) -> Vec<RunSeen> {
        self.open("looks").await.runs().await.unwrap()
    }
}

#[tokio::test]
async fn a_write_error_in_a_later_command_takes_the_earlier_ones_with_it() {
    let world = Server::new().await;
    let mut store = leased(&world, "a").await;
    let bulk = step(
        "db.marks.bulkWrite([{ insertOne: { document: { _id: 'one' } } }, \
         { deleteOne: { filter: { _id: 'other' } } }, { insertOne: { document: { _id: 'one' } } }])",
    );
    assert!(bulk.commands.len() > 1, "{bulk:?}");
    let error = store.commit(&bulk, &[record(1, Event::Applied)]).await.unwrap_err();
    assert_eq!((error.fate, error.said.statement), (Fate::Refused, Some(0)), "{error}");
    assert!(error.said.code.as_ref().unwrap().ends_with("code 11000"), "{error}");
    assert_eq!(world.marks().await, [""; 0]);
    assert_eq!(store.read().await.unwrap().records, []);
}

#[tokio::test]
async fn a_document_that_the_validator_refuses_leaves_nothing_and_says_why() {
    let world = Server::new().await;
    let mut store = leased(&world, "a").await;
    world.run(doc! { "create": "marks", "validator": { "n": { "$gt": 0 } } }).await;
    let write = step("db.marks.insertMany([{ _id: 'one', n: 1 }, { _id: 'two', n: 0 }])");
    let error = store.commit(&write, &[record(1, Event::Applied)]).await.unwrap_err();
    assert_eq!(error.fate, Fate::Refused);
    assert!(error.said.code.as_ref().unwrap().ends_with("code 121"), "{error}");
    assert!(error.said.detail.is_some(), "{error:?}");
    assert_eq!(world.marks().await, [""; 0]);
    assert_eq!(store.read().await.unwrap().records, []);
}

/// Each asks for its commit again for ten seconds, so both do at once.
#[tokio::test]
async fn a_reply_that_is_lost_at_the_commit_leaves_the_fate_unknown() {
    let lost = [(Cut::Reply, 1), (Cut::Request, 0)].map(|(cut, expected)| async move {
        let world = Server::new().await;
        let address = cutting_after(world.address(), "armed", "commitTransaction", cut).await;
        let mut store = world.open_at(&address, "a").await;
        store.found("pair").await.unwrap();
        take(&mut store, "a").await;
        let committed = store.commit(&world.mark("armed"), &[record(1, Event::Applied)]).await;
        assert_eq!(fate(committed), Fate::Unknown, "{cut:?}");
        assert_eq!(world.marks().await.len(), expected, "{cut:?}");
        let seen = world.open("b").await.read().await.unwrap();
        assert_eq!(seen.records.len(), expected, "both or neither: {cut:?}");
    });
    join_all(lost).await;
}

#[tokio::test]
async fn a_connection_that_is_lost_before_the_commit_leaves_nothing() {
    let world = Server::new().await;
    let address = cutting_after(world.address(), "", "cut here", Cut::Reply).await;
    let mut store = world.open_at(&address, "a").await;
    store.found("pair").await.unwrap();
    take(&mut store, "a").await;
    let committed = store.commit(&world.mark("cut here"), &[record(1, Event::Applied)]).await;
    assert_eq!(fate(committed), Fate::Unreachable);
    assert_eq!(world.marks().await, [""; 0]);
}

#[tokio::test]
async fn a_commit_that_meets_another_transaction_is_tried_again() {
    let world = Server::new().await;
    let mut store = leased(&world, "a").await;
    let marks = world.db.collection::<Document>("marks");
    marks.insert_one(doc! { "_id": "one", "n": 0 }).await.unwrap();
    let mut foreign = world.client.start_session().await.unwrap();
    foreign.start_transaction().await.unwrap();
    let touch = doc! { "$set": { "n": 1 } };
    marks.update_one(doc! { "_id": "one" }, touch).session(&mut foreign).await.unwrap();
    let step = step("db.marks.updateOne({ _id: 'one' }, { $set: { m: 1 } })");
    let aborted = async || {
        let status = world.run(doc! { "serverStatus": 1 }).await;
        let aborted = status.get_document("transactions").unwrap().get("totalAborted").cloned();
        aborted.and_then(|bson| bson.as_i64()).unwrap()
    };
    let before = aborted().await;
    let end = async {
        until("a try that failed", async || aborted().await > before).await;
        foreign.commit_transaction().await.unwrap();
    };
    let entries = [record(1, Event::Applied)];
    let (committed, ()) = tokio::join!(store.commit(&step, &entries), end);
    committed.unwrap();
    assert_eq!(world.at("marks").await, [doc! { "_id": "one", "n": 1, "m": 1 }]);
}

/// What `holds` and `obstacle` say of a step in a database where `before` was run.
async fn check(before: &[Document], script: &str, holds: Holds, is_in_the_way: bool) {
    let world = Server::new().await;
    let mut store = leased(&world, "a").await;
    for command in before {
        world.run(command.clone()).await;
    }
    let step = step(script);
    assert_eq!(store.holds(&step).await.unwrap(), holds, "{before:?} {script}");
    let obstacle = store.obstacle(&step).await.unwrap();
    assert_eq!(obstacle.is_some(), is_in_the_way, "{before:?} {script}: {obstacle:?}");
    if !is_in_the_way && holds != Holds::Ask {
        settle(&mut store, &step).await.unwrap();
    }
    let repeated = step.kind == lockstep::core::step::MongoKind::CreateIndexes
        || matches!(step.kind, lockstep::core::step::MongoKind::Output(_));
    if !is_in_the_way && holds != Holds::Ask && !repeated {
        assert_eq!(store.holds(&step).await.unwrap(), Holds::Yes, "settled: {script}");
    }
}

#[tokio::test]
async fn a_collection_is_held_when_it_has_these_options_and_no_others() {
    let plain = doc! { "create": "c" };
    let valid = doc! { "create": "c", "validator": { "a": 1 } };
    let narrow = doc! { "create": "c", "validator": { "a": 1, "b": 2 } };
    let capped = doc! { "create": "c", "capped": true, "size": 5000 };
    let view = doc! { "create": "c", "viewOn": "other", "pipeline": [] };
    let create = "db.createCollection('c')";
    let with = "db.createCollection('c', { validator: { a: 1 } })";
    check(&[], create, Holds::No, false).await;
    check(std::slice::from_ref(&plain), create, Holds::Yes, false).await;
    check(std::slice::from_ref(&valid), create, Holds::No, true).await;
    check(std::slice::from_ref(&capped), create, Holds::No, true).await;
    check(std::slice::from_ref(&view), create, Holds::No, true).await;
    check(std::slice::from_ref(&valid), with, Holds::Yes, false).await;
    check(&[plain], with, Holds::No, true).await;
    check(&[narrow], with, Holds::No, true).await;
    check(&[capped], "db.createCollection('c', { capped: true, size: 5000 })", Holds::Yes, false)
        .await;
}

#[tokio::test]
async fn server_defaults_do_not_make_a_collection_another() {
    for script in [
        "db.createCollection('c', { timeseries: { timeField: 't' }, expireAfterSeconds: 60 })",
        "db.createCollection('c', { collation: { locale: 'de' } })",
        "db.createCollection('c', { capped: true, size: 5001, max: 7 })",
        "db.createCollection('c', { clusteredIndex: { key: { _id: 1 }, unique: true } })",
        "db.createCollection('c', { changeStreamPreAndPostImages: { enabled: true } })",
        "db.createCollection('c', { validator: { a: 1 }, validationLevel: 'moderate' })",
        "db.createCollection('c', { validator: { a: 1 }, validationAction: 'error' })",
        "db.createView('c', 'other', [{ $match: { a: 1 } }], { collation: { locale: 'de' } })",
    ] {
        check(&[], script, Holds::No, false).await;
    }
}

#[tokio::test]
async fn a_view_is_held_when_it_is_this_view() {
    let view =
        |pipeline: Vec<Document>| doc! { "create": "v", "viewOn": "c", "pipeline": pipeline };
    let script = "db.createView('v', 'c', [{ $match: { a: 1 } }])";
    check(&[], script, Holds::No, false).await;
    check(&[view(vec![doc! { "$match": { "a": 1 } }])], script, Holds::Yes, false).await;
    check(&[view(vec![doc! { "$match": { "a": 2 } }])], script, Holds::No, true).await;
    check(&[doc! { "create": "v" }], script, Holds::No, true).await;
}

#[tokio::test]
async fn a_collmod_is_held_when_these_very_options_are_there() {
    let create = |validator: Document| doc! { "create": "c", "validator": validator };
    let script = "db.runCommand({ collMod: 'c', validator: { a: 1 } })";
    check(&[create(doc! { "a": 1 })], script, Holds::Yes, false).await;
    check(&[create(doc! { "a": 2 })], script, Holds::No, false).await;
    check(&[create(doc! { "a": 1, "b": 1 })], script, Holds::No, false).await;
    let remove = "db.runCommand({ collMod: 'c', validator: {} })";
    check(&[create(doc! { "a": 1 })], remove, Holds::No, false).await;
    check(&[doc! { "create": "c" }], remove, Holds::Yes, false).await;
}

#[tokio::test]
async fn indexes_are_created_again_without_harm_and_others_are_obstacles() {
    let index = |key: Document, more: Document| {
        let mut index = doc! { "name": "i", "key": key };
        index.extend(more);
        doc! { "createIndexes": "c", "indexes": [index] }
    };
    let script = "db.c.createIndex({ a: 1 }, { name: 'i' })";
    check(&[], script, Holds::No, false).await;
    check(&[index(doc! { "a": 1 }, doc! {})], script, Holds::Listed, false).await;
    check(&[index(doc! { "a": -1 }, doc! {})], script, Holds::Listed, true).await;
    check(&[index(doc! { "a": 1 }, doc! { "unique": true })], script, Holds::Listed, true).await;
    let text = "db.c.createIndex({ a: 'text' }, { name: 'i' })";
    check(&[index(doc! { "a": "text" }, doc! {})], text, Holds::Listed, false).await;
    check(&[index(doc! { "b": "text" }, doc! {})], text, Holds::Listed, true).await;
}

#[tokio::test]
async fn dropped_indexes_are_gone_by_name_by_key_by_list_and_all() {
    let two = doc! { "createIndexes": "c", "indexes": [
        { "name": "i", "key": { "a": 1 } }, { "name": "j", "key": { "b": 1, "c": -1 } },
    ] };
    for script in [
        "db.c.dropIndex('i')",
        "db.c.dropIndex({ b: 1, c: -1 })",
        "db.c.dropIndexes(['i', 'j'])",
        "db.c.dropIndexes('*')",
        "db.c.dropIndexes()",
    ] {
        check(std::slice::from_ref(&two), script, Holds::No, false).await;
    }
    check(&[two], "db.c.dropIndex({ b: 1, c: 1 })", Holds::Yes, false).await;
}

#[tokio::test]
async fn drops_and_renames_are_held_by_their_names() {
    let (source, target) = (doc! { "create": "c" }, doc! { "create": "d" });
    check(std::slice::from_ref(&source), "db.c.drop()", Holds::No, false).await;
    check(&[], "db.c.drop()", Holds::Yes, false).await;
    let rename = "db.c.renameCollection('d')";
    check(std::slice::from_ref(&source), rename, Holds::No, false).await;
    check(std::slice::from_ref(&target), rename, Holds::Yes, true).await;
    check(&[source.clone(), target.clone()], rename, Holds::No, true).await;
    check(&[source, target], "db.c.renameCollection('d', true)", Holds::No, false).await;
}

#[tokio::test]
async fn what_is_written_elsewhere_is_repeated_if_harmless_and_unknown_commands_ask() {
    let create = doc! { "create": "c" };
    let once = std::slice::from_ref(&create);
    check(once, "db.c.aggregate([{ $match: {} }, { $out: 'd' }])", Holds::No, false).await;
    check(once, "db.runCommand({ compact: 'c' })", Holds::Ask, false).await;
    let itself = "db.c.aggregate([{ $set: { n: { $add: ['$n', 1] } } }, { $merge: 'c' }])";
    check(once, itself, Holds::Ask, false).await;
}

#[tokio::test]
async fn what_a_dead_run_left_running_is_ended_and_nothing_else() {
    let world = Server::new().await;
    let mut dead = leased(&world, "a").await;
    world.run(doc! { "create": "c" }).await;
    world.run(doc! { "create": "strangers" }).await;
    let copy = world.client.database(&format!("{}_copy", world.db.name()));
    copy.run_command(doc! { "create": "c" }).await.unwrap();
    // A transaction of a stranger holds all of them.
    let mut holder = world.client.start_session().await.unwrap();
    holder.start_transaction().await.unwrap();
    for name in ["c", "strangers"] {
        let held = world.db.collection::<Document>(name);
        held.insert_one(doc! { "n": 1 }).session(&mut holder).await.unwrap();
    }
    let stranger = tokio::spawn({
        let db = world.db.clone();
        async move { db.run_command(doc! { "drop": "strangers", "comment": "lockstep/s" }).await }
    });
    until("the stranger waits", async || world.operations("s").await > 0).await;
    // The same run, in the copy: there it is not dead.
    let held = copy.collection::<Document>("c");
    held.insert_one(doc! { "n": 1 }).session(&mut holder).await.unwrap();
    let in_copy = tokio::spawn({
        let copy = copy.clone();
        async move { copy.run_command(doc! { "drop": "c", "comment": "lockstep/a" }).await }
    });
    until("the copy waits", async || world.operations("a").await > 0).await;
    let drop = step("db.c.drop()");
    let evict = async {
        until("the dead run waits", async || world.operations("a").await > 1).await;
        world.expire().await;
        let mut new = world.open("b").await;
        take(&mut new, "b").await;
        let ended = new.evict().await.unwrap();
        assert_eq!(world.operations("a").await, 1, "it returns when they are gone");
        assert_eq!(ended.len(), 1, "{ended:?}");
        assert_eq!(new.evict().await.unwrap(), [""; 0]);
        assert_eq!(world.operations("s").await, 1);
    };
    let (ended, ()) = tokio::join!(dead.perform(&drop), evict);
    assert_eq!(fate(ended), Fate::Fenced);
    holder.commit_transaction().await.unwrap();
    stranger.await.unwrap().unwrap();
    in_copy.await.unwrap().unwrap();
    copy.drop().await.unwrap();
    assert_eq!(world.at("c").await.len(), 1, "the dead run's drop never happened");
}

#[tokio::test]
async fn what_was_cancelled_ends_and_the_lease_is_given_back() {
    let world = Server::new().await;
    let mut store = leased(&world, "cancelled").await;
    world.run(doc! { "create": "c" }).await;
    let mut holder = world.client.start_session().await.unwrap();
    holder.start_transaction().await.unwrap();
    let held = world.db.collection::<Document>("c");
    held.insert_one(doc! { "n": 1 }).session(&mut holder).await.unwrap();
    let drop = step("db.c.drop()");
    tokio::select! {
        result = store.perform(&drop) => panic!("{result:?}"),
        () = until("it waits", async || world.operations("cancelled").await > 0) => {}
    }
    store.cancel().await;
    until("nothing of it is left", async || world.operations("cancelled").await == 0).await;
    store.release(&outcome("failed")).await.unwrap();
    assert_eq!(store.read().await.unwrap().lease, None);
    holder.commit_transaction().await.unwrap();
    assert_eq!(world.at("c").await.len(), 1);
    assert_eq!(world.indexes("c").await, ["_id_"]);
    assert!(world.at("migration_control").await[0].get("holder") == Some(&Bson::Null));
}
