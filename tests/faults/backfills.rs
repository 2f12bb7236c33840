//! Backfills that must not be done twice, killed and stopped in the middle, while
//! an application writes or not.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bson::doc;
use rustix::process::Signal;

use crate::dump::left;
use crate::exact::{Work, killed_at_every_failpoint, killed_at_random_moments};
use crate::project::Project;
use crate::rows::{counted, documents, each_was_rewritten_once, recorded, rewritten};
use crate::support::sql::{number, sql};
use crate::support::wait::until;
use crate::support::{Database, block_on};

/// Both backfills, in batches of this size, each with this besides.
fn project(batch: u32, more: &str) -> Project {
    let manifest = format!(
        r#"[[backfill]]
name = "count rows"
batch = {batch}
{more}
postgres = {{ table = "counted", set = "n = n + 1" }}

[[backfill]]
name = "count documents"
batch = {batch}
{more}
mongo = {{ collection = "counted", update = "{{ $inc: {{ n: 1 }} }}" }}
"#
    );
    Project::of(&[("001-count/migration.toml", &manifest)])
}

/// Rows of Postgres, and half as many documents of MongoDB after them.
struct Counted;

impl Work for Counted {
    const NAME: &str = "a backfill";
    const ROWS: i64 = 200_000;

    fn project(batch: u32, workers: u32) -> Project {
        project(batch, &format!("workers = {workers}"))
    }

    fn database(name: &str, rows: i64) -> Database {
        counted(name, rows, rows / 2)
    }

    fn written(database: &Database) -> i64 {
        rewritten(database).try_into().expect("is small")
    }

    #[track_caller]
    fn check_record(database: &Database, _rows: i64, after: &str) {
        until(&format!("the record to agree with the rows: {after}"), || {
            rewritten(database) == recorded(database)
        });
    }

    #[track_caller]
    fn check(database: &Database, rows: i64, after: &str) {
        each_was_rewritten_once(database, rows, rows / 2, after);
    }
}

#[test]
fn a_backfill_killed_at_random_moments_rewrites_each_row_once() {
    killed_at_random_moments::<Counted>();
}

#[test]
fn a_backfill_killed_at_every_failpoint_rewrites_each_row_once() {
    killed_at_every_failpoint::<Counted>();
}

/// In the middle of the first backfill, with batches that leave time.
fn slow() -> (Project, Database) {
    (project(50, "pause = \"20ms\""), counted("slow", 20_000, 2_000))
}

#[test]
fn sigterm_ends_a_backfill_between_two_batches_and_up_goes_on() {
    let (slowly, database) = slow();
    let run = slowly.migrate(&database, &["up"]).start();
    until("the backfill to rewrite rows", || rewritten(&database) > 0);
    run.signal(Signal::TERM);
    let ended = run.wait();
    assert_eq!(ended.code, Some(143), "{}", ended.text);
    let done = rewritten(&database);
    assert!(done > 0 && done < 20_000, "{done}: {}", ended.text);
    assert_eq!(left(&database), "", "{}", ended.text);
    let ended = slowly.migrate(&database, &["up", "--unthrottled"]).succeeds();
    each_was_rewritten_once(&database, 20_000, 2_000, &ended.text);
}

#[test]
fn a_backfill_that_runs_out_of_time_exits_with_8_and_up_goes_on() {
    let (slowly, database) = slow();
    // Twenty thousand rows in batches of fifty with these pauses take eight seconds.
    let ended = slowly.migrate(&database, &["up", "--timeout", "1s"]).run();
    assert_eq!(ended.code, Some(8), "{}", ended.text);
    assert!(rewritten(&database) < 20_000, "{}", ended.text);
    assert_eq!(left(&database), "", "{}", ended.text);
    let ended = slowly.migrate(&database, &["up", "--unthrottled"]).succeeds();
    each_was_rewritten_once(&database, 20_000, 2_000, &ended.text);
}

/// A column that the application of today does not know; a trigger fills it in what it
/// writes from now on.
const DOUBLED: &[(&str, &str)] = &[
    (
        "001-doubled/migration.toml",
        r#"[[backfill]]
name = "doubled"
batch = 100
postgres = { table = "written", set = "doubled = v * 2", where = "doubled IS NULL" }

[[backfill]]
name = "doubled there"
batch = 100
mongo = { collection = "written", filter = "{ doubled: { $exists: false } }", update = "[{ $set: { doubled: { $multiply: ['$v', 2] } } }]" }

[[invariant]]
name = "all doubled"
postgres = "SELECT count(*) FROM written WHERE doubled IS DISTINCT FROM v * 2"
locked = true

[[invariant]]
name = "all doubled there"
mongo = { collection = "written", count = "{ $expr: { $ne: ['$doubled', { $multiply: ['$v', 2] }] } }" }
"#,
    ),
    (
        "001-doubled/prepare.sql",
        "ALTER TABLE written ADD COLUMN doubled bigint;
CREATE FUNCTION written_doubled() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.doubled := NEW.v * 2;
    RETURN NEW;
END;
$$;
CREATE TRIGGER written_doubled BEFORE INSERT OR UPDATE OF v ON written
    FOR EACH ROW EXECUTE FUNCTION written_doubled();
",
    ),
    ("001-doubled/prepare.mongodb.js", "db.written.createIndex({ v: 1 }, { name: \"by_v\" });\n"),
    ("001-doubled/prepare.down.mongodb.js", "db.written.dropIndex(\"by_v\");\n"),
    (
        "001-doubled/prepare.down.sql",
        "DROP TRIGGER written_doubled ON written;
DROP FUNCTION written_doubled();
ALTER TABLE written DROP COLUMN doubled;
",
    ),
    (
        "001-doubled/cleanup.sql",
        "DROP TRIGGER written_doubled ON written;
DROP FUNCTION written_doubled();
ALTER TABLE written ALTER COLUMN doubled SET DEFAULT 0;
",
    ),
    (
        "001-doubled/cleanup.down.sql",
        "ALTER TABLE written ALTER COLUMN doubled DROP DEFAULT;
CREATE FUNCTION written_doubled() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.doubled := NEW.v * 2;
    RETURN NEW;
END;
$$;
CREATE TRIGGER written_doubled BEFORE INSERT OR UPDATE OF v ON written
    FOR EACH ROW EXECUTE FUNCTION written_doubled();
",
    ),
];

const WRITTEN: i64 = 3_000;

/// For each key that the backfill has passed, three rows are inserted: it never catches
/// up. Others change and go. In MongoDB the application of today knows the new field.
fn write_all_the_time(database: &Database, over: &AtomicBool, written: &AtomicUsize) {
    let insert = format!(
        "WITH passed AS (SELECT coalesce(sum((cursor ->> 'passed')::bigint), 0) AS n \
         FROM public.migration_steps WHERE event = 'progress') \
         INSERT INTO written (v) SELECT i FROM passed, \
         generate_series((SELECT max(id) FROM written) + 1, {WRITTEN} + 3 * passed.n) AS i"
    );
    let others = "UPDATE written SET v = v + 1 WHERE id IN \
                  (SELECT (random() * m)::bigint FROM (SELECT max(id) AS m FROM written) AS x, generate_series(1, 20)); \
                  DELETE FROM written WHERE id IN \
                  (SELECT (random() * m)::bigint FROM (SELECT max(id) AS m FROM written) AS x, generate_series(1, 5))";
    block_on(async || {
        let (postgres, connection) =
            tokio_postgres::connect(&database.postgres_url, tokio_postgres::NoTls)
                .await
                .expect("Postgres answers");
        let connection = tokio::spawn(connection);
        let client = mongodb::Client::with_uri_str(&database.mongo_uri).await.expect("a valid URI");
        let here = client.default_database().expect("a URI with a database");
        let collection = here.collection::<bson::Document>("written");
        let mut next = WRITTEN;
        while !over.load(Ordering::Relaxed) {
            let founded = postgres
                .query_one("SELECT to_regclass('public.migration_steps') IS NOT NULL", &[])
                .await;
            if founded.expect("Postgres answers").get(0) {
                postgres.execute(&insert, &[]).await.expect("rows are inserted");
            }
            postgres.batch_execute(others).await.expect("rows are written");
            let more = (0..50).map(|_| {
                next += 1;
                doc! { "_id": next, "v": next, "doubled": next * 2 }
            });
            collection.insert_many(more).await.expect("documents are inserted");
            let changed = vec![doc! { "$set": {
                "v": { "$add": ["$v", 1] }, "doubled": { "$multiply": [{ "$add": ["$v", 1] }, 2] },
            } }];
            collection.update_one(doc! { "_id": next % 97 }, changed).await.expect("it is changed");
            collection.delete_one(doc! { "_id": next % 89 }).await.expect("it is deleted");
            written.fetch_add(1, Ordering::Relaxed);
        }
        drop(postgres);
        let _ = connection.await;
        client.shutdown().immediate(true).await;
    });
}

#[test]
fn a_backfill_ends_though_inserts_are_faster_and_the_invariants_hold() {
    let project = Project::of(DOUBLED);
    let database = Database::new("written");
    sql(
        &database.postgres_url,
        &format!(
            "CREATE TABLE written (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v bigint NOT NULL); \
             INSERT INTO written (v) SELECT i FROM generate_series(1, {WRITTEN}) AS i"
        ),
    );
    block_on(async || {
        let client = mongodb::Client::with_uri_str(&database.mongo_uri).await.expect("a valid URI");
        let here = client.default_database().expect("a URI with a database");
        let old = (1..=WRITTEN).map(|id| doc! { "_id": id, "v": id });
        here.collection("written").insert_many(old).await.expect("the documents are written");
        client.shutdown().immediate(true).await;
    });
    let (over, written) = (AtomicBool::new(false), AtomicUsize::new(0));
    let ended = std::thread::scope(|scope| {
        scope.spawn(|| write_all_the_time(&database, &over, &written));
        let ended = project.migrate(&database, &["up"]).run();
        over.store(true, Ordering::Relaxed);
        ended
    });
    assert_eq!(ended.code, Some(0), "{}", ended.text);
    assert!(ended.text.contains("new rows keep coming"), "{}", ended.text);
    let inserted = number(&database.postgres_url, "SELECT max(id) FROM written") - WRITTEN;
    assert!(inserted > WRITTEN, "{inserted} rows came meanwhile");
    // What the invariants asked behind the cleanup's locks; from then on a default is written.
    let wrong = "SELECT count(*) FROM written WHERE doubled IS NULL";
    assert_eq!(number(&database.postgres_url, wrong), 0);
    let wrong = doc! { "$expr": { "$ne": ["$doubled", { "$multiply": ["$v", 2] }] } };
    assert_eq!(documents(&database, "written", wrong), 0);
    let applied = "SELECT count(*) FROM public.migration_history WHERE status = 'completed'";
    assert_eq!(number(&database.postgres_url, applied), 1);
    eprintln!("{inserted} rows were inserted meanwhile, in {} rounds", written.into_inner());
}
