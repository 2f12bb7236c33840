//! Functions of the service that backfills call for their batches, in both stores.

use crate::pooler::Pooler;
use crate::support::Database;
use crate::{client, number};
use lockstep::mongodb::bson::{Bson, Document, doc};
use lockstep::mongodb::{Client, Collection};
use lockstep::{
    Builder, Down, Error, Kind, Migration, Migrator, MongoBatch, PostgresBatch, State, Transaction,
    Up,
};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

type Written = Result<u64, Box<dyn std::error::Error + Send + Sync>>;

const ROWS: i64 = 10_000;

/// In which store the batches are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum In {
    Postgres,
    Mongo,
}

const BOTH: [In; 2] = [In::Postgres, In::Mongo];

impl In {
    /// A migration of a table or collection `t`, whose backfill calls `add`.
    fn migration(self, revision: u32, pace: &str) -> Migration {
        let (store, place) = match self {
            In::Postgres => ("postgres", "table"),
            In::Mongo => ("mongo", "collection"),
        };
        Migration::new("002-add").file(
            "migration.toml",
            format!(
                "irreversible = 'nobody knows which were added'\n[[backfill]]\nname = 'one more'\n\
                 {pace}\n{store} = {{ {place} = 't', call = \"lockstep.add('{revision}')\" }}\n"
            ),
        )
    }

    /// Called with the number of the call, before anything is written and after it.
    fn with<F>(self, builder: Builder, name: &str, between: F) -> Builder
    where
        F: AsyncFn(u32, When) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
            + Send
            + Sync
            + 'static,
    {
        let calls = AtomicU32::new(0);
        let count = move || calls.fetch_add(1, Ordering::SeqCst) + 1;
        match self {
            In::Postgres => builder.postgres_batch(name, async move |batch: &PostgresBatch<'_>| {
                let call = count();
                between(call, When::Before).await?;
                let written = add_rows(batch).await?;
                between(call, When::After).await?;
                Ok(written)
            }),
            In::Mongo => builder.mongo_batch(name, async move |batch: &mut MongoBatch<'_>| {
                let call = count();
                between(call, When::Before).await?;
                let written = add_documents(batch).await?;
                between(call, When::After).await?;
                Ok(written)
            }),
        }
    }

    /// How many of the rows were changed so often.
    async fn changed(self, database: &Database, times: i64) -> i64 {
        match self {
            In::Postgres => {
                number(database, &format!("SELECT count(*) FROM t WHERE n = {times}")).await
            }
            In::Mongo => {
                let all = documents(database).await;
                let count = all.count_documents(doc! { "n": times }).await.expect("it answers");
                i64::try_from(count).expect("not that many")
            }
        }
    }
}

/// When a call is interrupted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum When {
    Before,
    After,
}

/// What must not be done twice.
async fn add_rows(batch: &PostgresBatch<'_>) -> Written {
    let mut written = 0;
    let mut last = None;
    for row in batch.query("SELECT id FROM t WHERE {batch} ORDER BY id", &[]).await? {
        let id: i64 = row.get(0);
        last = Some(id);
        written += batch.execute("UPDATE t SET n = n + 1 WHERE id = $1", &[&id]).await?;
    }
    assert_eq!(last.map(|last| last.to_string()), batch.upto().first().cloned());
    Ok(written)
}

async fn add_documents(batch: &mut MongoBatch<'_>) -> Written {
    let documents = batch.documents().await?;
    assert_eq!(documents.last().and_then(|last| last.get("_id")), Some(batch.upto()));
    let add =
        |document: Document| (doc! { "_id": document.get("_id") }, doc! { "$inc": { "n": 1 } });
    let collection = batch.collection().to_owned();
    batch.update_each(&collection, documents.into_iter().map(add)).await
}

/// The documents of the application. Each test has a runtime of its own, and so a client.
async fn documents(database: &Database) -> Collection<Document> {
    let client = Client::with_uri_str(&database.mongo_uri).await.expect("a URL");
    client.database(&database.name).collection("t")
}

/// A database whose table and collection `t` have so many rows, none of them touched.
async fn filled(name: &str, rows: i64) -> Database {
    let database = Database::new(name);
    let table = "CREATE TABLE t (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0, \
                 name text UNIQUE, mail text)";
    let fill = format!("{table}; INSERT INTO t (id) SELECT generate_series(1, {rows})");
    client(&database).await.batch_execute(&fill).await.expect("a table");
    let all = documents(&database).await;
    all.insert_many((1..=rows).map(|id| doc! { "_id": id, "n": 0 })).await.expect("documents");
    database
}

fn service(database: &Database, migration: Migration) -> Builder {
    Migrator::builder()
        .migrations([migration])
        .postgres_url(&database.postgres_url)
        .mongo_url(&database.mongo_uri)
}

fn nothing(
    _: u32,
    _: When,
) -> std::future::Ready<Result<(), Box<dyn std::error::Error + Send + Sync>>> {
    std::future::ready(Ok(()))
}

/// Does what is left with a function that works: each row was changed once.
async fn goes_on(database: &Database, at: In, migration: Migration, rows: i64) {
    let good = at.with(service(database, migration), "add", nothing);
    let good = good.build().expect("it can be read");
    let done = good.up(Up::all()).await.expect("it goes on there");
    assert_eq!(done.finished, [2.into()]);
    assert_eq!(at.changed(database, 1).await, rows, "{at:?}");
    let again = good.up(Up::all()).await.expect("there is nothing to do");
    assert_eq!(again.finished, []);
    assert_eq!(at.changed(database, 1).await, rows, "{at:?}");
}

/// Runs it with a function that is interrupted at its sixth batch of ten, then with one
/// that works.
async fn failing<F>(name: &str, at: In, when: When, then: F, check: impl Fn(&Error))
where
    F: AsyncFn() -> Result<(), Box<dyn std::error::Error + Send + Sync>> + Send + Sync + 'static,
{
    let database = filled(name, ROWS).await;
    let migration = at.migration(1, "batch = 1000");
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let between = async move |call, now| {
        counted.store(call, Ordering::SeqCst);
        if call == 6 && now == when { then().await } else { Ok(()) }
    };
    let bad = at.with(service(&database, migration.clone()), "add", between);
    let error = bad.build().expect("it can be read").up(Up::all()).await;
    let error = error.expect_err("the function fails");
    assert_eq!(calls.load(Ordering::SeqCst), 6);
    assert_eq!(at.changed(&database, 1).await, 5_000, "{at:?}");
    assert_eq!(at.changed(&database, 0).await, 5_000, "{at:?}");
    check(&error);
    goes_on(&database, at, migration, ROWS).await;
}

#[tokio::test]
async fn each_row_is_given_to_one_batch_that_is_committed() {
    for at in BOTH {
        let database = filled("batches", ROWS).await;
        goes_on(&database, at, at.migration(1, ""), ROWS).await;
    }
}

#[tokio::test]
async fn several_workers_call_it_for_several_batches_at_once() {
    for at in BOTH {
        let database = filled("batch_workers", ROWS).await;
        goes_on(&database, at, at.migration(1, "workers = 4\nbatch = 300"), ROWS).await;
    }
}

#[tokio::test]
async fn one_that_fails_leaves_nothing_of_its_batch_and_says_which_it_was() {
    for (at, range) in [
        (In::Postgres, "keys after 5000 up to 6000 of \"public\".\"t\""),
        (In::Mongo, "ids after 5000 up to 6000 of t"),
    ] {
        failing(
            "batch_fails",
            at,
            When::After,
            async || Err("no more names".into()),
            |error| {
                assert_eq!((error.kind(), error.code()), (Kind::Failed, "STEP_FAILED"));
                let text = error.to_string();
                assert!(text.starts_with("002-add/migration.toml: "), "{text}");
                assert!(text.contains("`add` failed: no more names"), "{text}");
                let details: Vec<String> =
                    error.details().map(|(label, text)| format!("{label}: {text}")).collect();
                let all = format!("{text}\n{}\n{:?}", details.join("\n"), error.next());
                assert!(all.contains("step: execute/one-more of 002-add, in "), "{all}");
                assert!(all.contains(range), "{all}");
                let next =
                    "nothing of this batch was written; mend the function `add`, or what it met";
                assert!(all.contains(next), "{all}");
            },
        )
        .await;
    }
}

#[tokio::test]
async fn one_that_panics_leaves_nothing_of_its_batch_and_says_what_it_said() {
    for at in BOTH {
        let panics = async || panic!("seven is not a name");
        failing("batch_panics", at, When::After, panics, |error| {
            let text = error.to_string();
            assert!(text.contains("`add` panicked: seven is not a name"), "{text}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_run_that_nobody_waits_for_any_more_ends_between_two_batches() {
    for at in BOTH {
        let database = filled("batch_dropped", ROWS).await;
        let migration = at.migration(1, "batch = 1000");
        let (tell, mut told) = mpsc::unbounded_channel();
        let (go_on, wait) = tokio::sync::watch::channel(false);
        let between = async move |call: u32, now| {
            if call == 4 && now == When::After {
                tell.send(())?;
                wait.clone().wait_for(|go_on| *go_on).await?;
            }
            Ok(())
        };
        let stopped = at.with(service(&database, migration.clone()), "add", between);
        let stopped = stopped.build().expect("it can be read");
        {
            let mut run = Box::pin(stopped.up(Up::all()));
            tokio::select! {
                done = &mut run => panic!("it is in the middle: {done:?}"),
                told = told.recv() => told.expect("the function says so"),
            }
        }
        go_on.send_replace(true);
        // The next one waits for the lease, which the first gives back in order.
        goes_on(&database, at, migration, ROWS).await;
    }
}

/// Names a database to a process that dies in the middle of its function.
const DIES_AT: &str = "LOCKSTEP_TEST_BATCH_DIES_AT";

/// Run by itself, it is a service whose functions work. Run by the test below, it dies in
/// the middle of one.
#[tokio::test]
async fn a_service_whose_batch_may_be_its_end() {
    let Ok(urls) = std::env::var(DIES_AT) else {
        let database = filled("batch_lives", 10).await;
        return goes_on(&database, In::Postgres, In::Postgres.migration(1, ""), 10).await;
    };
    let [at, postgres, mongo] = urls.split(' ').collect::<Vec<_>>()[..] else { panic!("{urls}") };
    let at = if at == "postgres" { In::Postgres } else { In::Mongo };
    let builder = Migrator::builder()
        .migrations([at.migration(1, "batch = 1000")])
        .postgres_url(postgres)
        .mongo_url(mongo);
    let dies = async |call, now| {
        if call == 6 && now == When::After {
            std::process::abort();
        }
        Ok(())
    };
    let migrator = at.with(builder, "add", dies).build().expect("it can be read");
    let done = migrator.up(Up::all()).await;
    panic!("it should have died: {done:?}");
}

#[tokio::test]
async fn a_service_that_dies_in_a_batch_leaves_nothing_of_it_and_the_next_one_goes_on() {
    for at in BOTH {
        let database = filled("batch_dies", ROWS).await;
        let name = if at == In::Postgres { "postgres" } else { "mongo" };
        let ended = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "batches::a_service_whose_batch_may_be_its_end"])
            .env(DIES_AT, format!("{name} {} {}", database.postgres_url, database.mongo_uri))
            .output()
            .expect("it runs");
        let aborted = std::os::unix::process::ExitStatusExt::signal(&ended.status);
        assert_eq!(aborted, Some(6), "{}", String::from_utf8_lossy(&ended.stdout));
        assert_eq!(at.changed(&database, 1).await, 5_000);
        // It waits until the lease of the dead one has run out.
        goes_on(&database, at, at.migration(1, "batch = 1000"), ROWS).await;
    }
}

#[tokio::test]
async fn one_whose_session_is_cut_off_is_called_again_for_the_same_batch() {
    let database = filled("batch_cut_off", ROWS).await;
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let migration = In::Postgres.migration(1, "batch = 1000");
    let cut_off = async move |batch: &PostgresBatch<'_>| {
        let written = add_rows(batch).await?;
        if counted.fetch_add(1, Ordering::SeqCst) == 3 {
            batch.execute("SELECT pg_terminate_backend(pg_backend_pid())", &[]).await?;
        }
        Ok(written)
    };
    let migrator = service(&database, migration).postgres_batch("add", cut_off).build();
    migrator.expect("it can be read").up(Up::all()).await.expect("it goes on by itself");
    assert_eq!(In::Postgres.changed(&database, 1).await, ROWS);
    assert_eq!(calls.load(Ordering::SeqCst), 11);
}

#[tokio::test]
async fn one_that_another_session_is_in_the_way_of_is_called_again() {
    let database = filled("batch_passing", 100).await;
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let passing = async move |batch: &PostgresBatch<'_>| {
        let written = add_rows(batch).await?;
        if counted.fetch_add(1, Ordering::SeqCst) == 0 {
            let conflict = "DO $$ BEGIN RAISE 'in the way' USING ERRCODE = '40001'; END $$";
            batch.execute(conflict, &[]).await?;
        }
        Ok(written)
    };
    let migrator = service(&database, In::Postgres.migration(1, ""));
    let migrator = migrator.postgres_batch("add", passing).build().expect("it can be read");
    migrator.up(Up::all()).await.expect("it goes on by itself");
    assert_eq!(In::Postgres.changed(&database, 1).await, 100);
    assert!(calls.load(Ordering::SeqCst) > 1);
}

/// What the driver remembers of types is remembered by one process of the server, and the
/// next transaction is in another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_pooler_in_transaction_mode_it_may_be_called_anywhere() {
    let database = filled("batch_pooler", ROWS).await;
    let types = (1..=20).map(|at| format!("CREATE TYPE mood_{at} AS ENUM ('fine');"));
    let types: String = types.collect();
    client(&database).await.batch_execute(&types).await.expect("types");
    let pooler = Pooler::new(&database.postgres_url);
    // Three at once make three sessions.
    let url = pooler.url(&database);
    let sleep = async || {
        let (client, connection) =
            tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("it answers");
        tokio::spawn(connection);
        client.batch_execute("SELECT pg_sleep(0.5)").await.expect("it sleeps");
    };
    tokio::join!(sleep(), sleep(), sleep());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sees = seen.clone();
    let migrator = Migrator::builder()
        .migrations([In::Postgres.migration(1, "batch = 1000")])
        .postgres_url(&url)
        .mongo_url(&database.mongo_uri)
        .postgres_batch("add", async move |batch: &PostgresBatch<'_>| {
            let pid: i32 = batch.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
            let call = {
                let mut seen = sees.lock().expect("nobody panicked");
                seen.push(pid);
                seen.len()
            };
            // A type that the driver has not met, and asks about as it did before.
            batch.query_one(&format!("SELECT 'fine'::mood_{call}"), &[]).await?;
            add_rows(batch).await
        })
        .build()
        .expect("it can be read");
    migrator.up(Up::all()).await.expect("it works");
    assert_eq!(In::Postgres.changed(&database, 1).await, ROWS);
    let seen = seen.lock().expect("nobody panicked").clone();
    assert_eq!(seen.len(), 10, "one of them had to be called again: {seen:?}");
    assert!(seen.iter().any(|pid| *pid != seen[0]), "all were in one and the same session");
}

/// In MongoDB that is told as soon as it writes what another has written since it read.
#[tokio::test]
async fn one_whose_documents_change_under_it_is_called_again() {
    let database = filled("batch_conflict", 100).await;
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let others = documents(&database).await;
    let conflicting = async move |batch: &mut MongoBatch<'_>| {
        let found = batch.documents().await?;
        if counted.fetch_add(1, Ordering::SeqCst) == 0 {
            let change = doc! { "$set": { "by": "the application" } };
            others.update_one(doc! { "_id": 7 }, change).await?;
        }
        let add =
            |document: Document| (doc! { "_id": document.get("_id") }, doc! { "$inc": { "n": 1 } });
        batch.update_each("t", found.into_iter().map(add)).await
    };
    let migrator = service(&database, In::Mongo.migration(1, ""));
    let migrator = migrator.mongo_batch("add", conflicting).build().expect("it can be read");
    migrator.up(Up::all()).await.expect("it goes on by itself");
    assert_eq!(In::Mongo.changed(&database, 1).await, 100);
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    let all = documents(&database).await;
    let kept = all.count_documents(doc! { "by": "the application" }).await;
    assert_eq!(kept.expect("it answers"), 1);
}

/// What the server refuses is searched, as in any backfill: it is put aside, or named.
#[tokio::test]
async fn a_row_that_the_server_refuses_is_named_or_put_aside() {
    let migration = |max_bad: u32| In::Postgres.migration(1, &format!("max_bad = {max_bad}"));
    let database = filled("batch_rejects", 100).await;
    let client = client(&database).await;
    client.batch_execute("ALTER TABLE t ADD CHECK (id <> 42 OR n = 0)").await.expect("a check");
    let run = async |max_bad| {
        let migrator = In::Postgres.with(service(&database, migration(max_bad)), "add", nothing);
        migrator.build().expect("it can be read").up(Up::all()).await
    };
    let error = run(0).await.expect_err("a row is refused");
    let text = error.to_string();
    assert!(text.contains("the row with the key 42 cannot be rewritten"), "{text}");
    run(1).await.expect("it is put aside");
    assert_eq!(In::Postgres.changed(&database, 1).await, 99);

    let database = filled("batch_rejected", 100).await;
    let unique = doc! { "createIndexes": "t", "indexes": [
        { "key": { "only": 1 }, "name": "only", "unique": true, "sparse": true },
    ] };
    let all = documents(&database).await;
    all.update_one(doc! { "_id": 1 }, doc! { "$set": { "only": 42 } }).await.expect("a change");
    let raw = Client::with_uri_str(&database.mongo_uri).await.expect("a URL");
    raw.database(&database.name).run_command(unique).await.expect("an index");
    let run = async |max_bad: u32| {
        let migration = In::Mongo.migration(1, &format!("max_bad = {max_bad}"));
        let add = async |batch: &mut MongoBatch<'_>| {
            let add = |document: Document| {
                let only = document.get_i64("_id").ok().filter(|id| *id == 42);
                let set = only.map_or(doc! {}, |id| doc! { "only": id });
                let id = document.get("_id").cloned();
                (doc! { "_id": id }, doc! { "$inc": { "n": 1 }, "$set": set })
            };
            let found = batch.documents().await?;
            batch.update_each("t", found.into_iter().map(add)).await
        };
        let migrator = service(&database, migration).mongo_batch("add", add);
        migrator.build().expect("it can be read").up(Up::all()).await
    };
    let error = run(0).await.expect_err("a document is refused");
    let text = error.to_string();
    assert!(text.contains("the row with the key 42 cannot be rewritten"), "{text}");
    run(1).await.expect("it is put aside");
    assert_eq!(In::Mongo.changed(&database, 1).await, 99);
}

/// What another session says is no row's fault, and nothing is put aside for it.
#[tokio::test]
async fn an_error_of_a_session_of_its_own_is_not_that_of_its_batch() {
    let database = filled("batch_elsewhere", 100).await;
    let url = database.postgres_url.clone();
    let elsewhere = move || {
        let url = url.clone();
        async move {
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
            tokio::spawn(connection);
            client.batch_execute("CREATE TEMPORARY TABLE own (id int CHECK (id > 1))").await?;
            client.batch_execute("INSERT INTO own VALUES (1)").await
        }
    };
    let migration = In::Postgres.migration(1, "max_bad = 100");
    let migrator = service(&database, migration).postgres_batch(
        "add",
        async move |batch: &PostgresBatch<'_>| {
            elsewhere().await?;
            add_rows(batch).await
        },
    );
    let error = migrator.build().expect("it can be read").up(Up::all()).await;
    let text = error.expect_err("it says why").to_string();
    assert!(text.contains("`add` failed:"), "{text}");
    assert!(text.contains("check constraint"), "{text}");
    assert_eq!(In::Postgres.changed(&database, 1).await, 0);
}

/// No command is larger than the server takes, whatever is in it.
#[tokio::test]
async fn large_documents_are_written_in_commands_of_their_own() {
    let database = filled("batch_large", 10).await;
    let migrator = service(&database, In::Mongo.migration(1, ""));
    let migrator = migrator.mongo_batch("add", async |batch: &mut MongoBatch<'_>| {
        let large = |id: i64, megabytes: usize| {
            doc! { "_id": 1_000 + id, "filler": "x".repeat(megabytes << 20) }
        };
        batch.insert("large", [large(1, 7), large(2, 10), large(3, 15)]).await?;
        add_documents(batch).await
    });
    migrator.build().expect("it can be read").up(Up::all()).await.expect("they are written");
    assert_eq!(In::Mongo.changed(&database, 1).await, 10);
}

#[tokio::test]
async fn one_that_passes_over_an_error_of_the_server_cannot_be_committed() {
    let database = filled("batch_passed", 10).await;
    let postgres = service(&database, In::Postgres.migration(1, ""));
    let postgres = postgres.postgres_batch("add", async |batch: &PostgresBatch<'_>| {
        let _ = batch.execute("SELECT 1 / 0", &[]).await;
        Ok(0)
    });
    let error = postgres.build().expect("it can be read").up(Up::all()).await;
    let text = error.expect_err("it cannot be committed").to_string();
    assert!(text.contains("current transaction is aborted"), "{text}");

    let database = filled("batch_passed", 10).await;
    let mongo = service(&database, In::Mongo.migration(1, ""));
    let mongo = mongo.mongo_batch("add", async |batch: &mut MongoBatch<'_>| {
        let again = batch.insert("t", [doc! { "_id": 3_i64 }]).await;
        assert!(again.is_err());
        let after = batch.documents().await.expect_err("the transaction is over");
        assert!(after.to_string().contains("E11000"), "{after}");
        Ok(0)
    });
    let error = mongo.build().expect("it can be read").up(Up::all()).await;
    let text = error.expect_err("it cannot be committed").to_string();
    assert!(text.contains("E11000"), "{text}");
}

#[tokio::test]
async fn one_that_would_end_its_transaction_is_refused() {
    let database = filled("batch_ends", 10).await;
    let postgres = service(&database, In::Postgres.migration(1, ""));
    let postgres = postgres.postgres_batch("add", async |batch: &PostgresBatch<'_>| {
        batch.execute("COMMIT", &[]).await
    });
    let error = postgres.build().expect("it can be read").up(Up::all()).await;
    let text = error.expect_err("it is refused").to_string();
    assert!(text.contains("`COMMIT` is transaction control"), "{text}");

    let database = filled("batch_ends", 10).await;
    let mongo = service(&database, In::Mongo.migration(1, ""));
    let mongo = mongo.mongo_batch("add", async |batch: &mut MongoBatch<'_>| {
        batch.run_command(doc! { "commitTransaction": 1 }).await?;
        Ok(0)
    });
    let error = mongo.build().expect("it can be read").up(Up::all()).await;
    let text = error.expect_err("it is refused").to_string();
    assert!(text.contains("`commitTransaction` is for the transaction"), "{text}");
}

/// Rows that `where` or `filter` leaves out are passed, and are not the function's.
#[tokio::test]
async fn a_batch_has_the_rows_that_the_backfill_is_about() {
    let database = filled("batch_where", 1_000).await;
    let toml = "irreversible = 'x'\n[[backfill]]\nname = 'even ones'\nbatch = 100\n\
                postgres = { table = 't', where = \"id % 2 = 0 -- even\", call = \"lockstep.add('1')\" }\n\
                [[backfill]]\nname = 'odd ones'\nbatch = 100\n\
                mongo = { collection = 't', filter = '{ _id: { $mod: [2, 1] } }', call = \"lockstep.add('1')\" }\n";
    let migrator = service(&database, Migration::new("002-add").file("migration.toml", toml))
        .postgres_batch("add", async |batch: &PostgresBatch<'_>| {
            // Parameters of its own come before those of the range.
            let all: i64 = batch
                .query_one("SELECT count(*) FROM t WHERE {batch} AND n = $1", &[&0])
                .await?
                .get(0);
            assert_eq!(all, 50);
            let none = batch.query_opt("SELECT 1 FROM t WHERE {batch} AND id % 2 = 1", &[]).await?;
            assert!(none.is_none());
            let first = batch.after().map_or(0, |after| after[0].parse().expect("a number"));
            let last: i64 = batch.upto()[0].parse()?;
            assert_eq!(last - first, 100);
            batch.execute("UPDATE t SET n = $1 WHERE {batch} AND n = $2", &[&1, &0]).await
        })
        .mongo_batch("add", async |batch: &mut MongoBatch<'_>| {
            let found = batch.documents().await?;
            assert_eq!(found.len(), 50);
            let same = batch.find("t", batch.filter()).await?;
            assert_eq!(same.len(), 50);
            let first = batch.after().and_then(Bson::as_i64).unwrap_or(0);
            assert_eq!(batch.upto().as_i64(), Some(first + 100));
            let updates =
                [doc! { "q": batch.filter(), "u": { "$inc": { "n": 1 } }, "multi": true }];
            let update = doc! { "update": batch.collection(), "updates": updates };
            let reply = batch.run_command(update).await?;
            let log = found.iter().map(|document| doc! { "of": document.get("_id") });
            assert_eq!(batch.insert("log", log).await?, 50);
            Ok(u64::try_from(reply.get_i32("nModified")?)?)
        })
        .build()
        .expect("it can be read");
    migrator.up(Up::all()).await.expect("it works");
    assert_eq!(In::Postgres.changed(&database, 1).await, 500);
    assert_eq!(In::Mongo.changed(&database, 1).await, 500);
    let rows = "SELECT sum(rows)::bigint FROM migration_steps WHERE step LIKE '%even%'";
    assert_eq!(number(&database, rows).await, 500);
    let client = Client::with_uri_str(&database.mongo_uri).await.expect("a URL");
    let log = client.database(&database.name).collection::<Document>("log");
    assert_eq!(log.count_documents(doc! {}).await.expect("it answers"), 500);
}

#[tokio::test]
async fn who_does_not_have_the_function_changes_nothing() {
    for at in BOTH {
        let database = filled("batch_missing", 10).await;
        // One for scripts is none for batches, and neither is one of the other store.
        let other = match at {
            In::Postgres => In::Mongo,
            In::Mongo => In::Postgres,
        };
        let without = service(&database, at.migration(1, ""))
            .function("add", async |_: &Transaction<'_>| Ok(()));
        let without = other.with(without, "add", nothing).build().expect("it can be read");
        let store = if at == In::Postgres { "Postgres" } else { "MongoDB" };
        for error in [
            without.up(Up::all()).await.map(drop).expect_err("it has no such function"),
            without.plan(Up::all()).await.map(drop).expect_err("it has no such function"),
        ] {
            assert_eq!((error.kind(), error.code()), (Kind::Refused, "NO_FUNCTION"));
            let expected = format!("`add` for each batch of a backfill in {store}");
            assert!(error.to_string().contains(&expected), "{error}");
        }
        assert_eq!(at.changed(&database, 0).await, 10);
        let status = without.status().await.expect("it can be read");
        assert_eq!(status.migrations[0].state, State::Pending);

        let with = at.with(service(&database, at.migration(1, "")), "add", nothing);
        let plan = with.build().expect("it can be read").plan(Up::all()).await;
        let plan = plan.expect("there is a plan");
        assert_eq!(plan[0].steps[0].summary, "one more");
    }
}

#[tokio::test]
async fn another_revision_of_an_applied_call_is_an_edit() {
    for at in BOTH {
        let database = filled("batch_revision", 10).await;
        goes_on(&database, at, at.migration(1, ""), 10).await;
        let edited = at.with(service(&database, at.migration(2, "")), "add", nothing);
        let error = edited.build().expect("it can be read").up(Up::all()).await;
        let error = error.expect_err("it was edited");
        assert_eq!((error.kind(), error.code()), (Kind::Conflict, "CHECKSUM_MISMATCH"));
    }
}

#[tokio::test]
async fn a_way_back_calls_a_function_for_its_batches() {
    for at in BOTH {
        let database = filled("batch_down", 1_000).await;
        let (store, place) = match at {
            In::Postgres => ("postgres", "table"),
            In::Mongo => ("mongo", "collection"),
        };
        let toml = ["up", "down"].map(|way| {
            format!(
                "[[backfill]]\nname = 'one more {way}'\ndirection = '{way}'\nbatch = 100\n\
                 {store} = {{ {place} = 't', call = \"lockstep.{way}('1')\" }}\n"
            )
        });
        let builder = || {
            let migration = Migration::new("002-add").file("migration.toml", toml.join("\n"));
            at.with(service(&database, migration), "up", nothing)
        };
        let without = builder().build().expect("it can be read");
        let error = without.up(Up::all()).await;
        error.expect("up needs no function for the way back");
        assert_eq!(at.changed(&database, 1).await, 1_000);
        let error = without.down(Down::steps(1)).await.expect_err("it has no such function");
        assert_eq!((error.kind(), error.code()), (Kind::Refused, "NO_FUNCTION"));
        assert_eq!(at.changed(&database, 1).await, 1_000);

        let fails = async |call, now| match (call, now) {
            (4, When::After) => Err("not that one".into()),
            _ => Ok(()),
        };
        let bad = at.with(builder(), "down", fails).build().expect("it can be read");
        bad.down(Down::steps(1)).await.expect_err("it fails");
        assert_eq!(at.changed(&database, 2).await, 300);
        let good = at.with(builder(), "down", nothing).build().expect("it can be read");
        let done = good.down(Down::steps(1)).await.expect("it goes on there");
        assert_eq!(done.finished, [2.into()]);
        assert_eq!(at.changed(&database, 2).await, 1_000);
    }
}

#[tokio::test]
async fn its_run_may_be_a_task_of_its_own() {
    let database = filled("batch_beside", 100).await;
    let migrator = In::Mongo.with(service(&database, In::Mongo.migration(1, "")), "add", nothing);
    let migrator = migrator.build().expect("it can be read");
    let run = tokio::spawn(async move { migrator.up(Up::all()).await });
    run.await.expect("it does not panic").expect("it works");
    assert_eq!(In::Mongo.changed(&database, 1).await, 100);
}
