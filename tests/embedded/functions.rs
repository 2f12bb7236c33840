//! Functions of the service that scripts call.

use crate::support::Database;
use crate::{client, number, service};
use lockstep::{Builder, Down, Error, Kind, Migration, Migrator, Transaction, Up};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

type Done = Result<(), Box<dyn std::error::Error + Send + Sync>>;

const ADD: &str = "INSERT INTO t (id) VALUES (1), (2)";

/// A table, and a function that is called between two statements of the second migration.
fn calling(database: &Database) -> Builder {
    service(
        database,
        &[
            ("001-t", "CREATE TABLE t (id bigint PRIMARY KEY);"),
            (
                "002-fill",
                "ALTER TABLE t ADD COLUMN name text; CALL lockstep.fill('1'); \
                 UPDATE t SET name = name || '!';",
            ),
        ],
    )
}

async fn fill(transaction: &Transaction<'_>) -> Done {
    transaction.execute(ADD, &[]).await?;
    for row in transaction.query("SELECT id FROM t", &[]).await? {
        let id: i64 = row.get(0);
        let update = "UPDATE t SET name = $1 WHERE id = $2";
        transaction.execute(update, &[&format!("n{id}"), &id]).await?;
    }
    let two: i64 = transaction.query_one("SELECT count(*) FROM t", &[]).await?.get(0);
    assert_eq!(two, 2);
    assert!(transaction.query_opt("SELECT 1 FROM t WHERE id = 3", &[]).await?.is_none());
    transaction.batch_execute("SELECT 1; SELECT 2").await
}

/// Nothing of the second migration is there.
async fn is_untouched(database: &Database) {
    assert_eq!(number(database, "SELECT count(*) FROM t").await, 0);
    let columns = "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0";
    assert_eq!(number(database, columns).await, 1);
    let records = "SELECT count(*) FROM migration_steps WHERE version = 2";
    assert_eq!(number(database, records).await, 0);
}

#[tokio::test]
async fn a_function_runs_between_the_statements_around_its_call() {
    let database = Database::new("function");
    let migrator = calling(&database).function("fill", fill).build().expect("they can be read");
    let done = migrator.up(Up::all()).await.expect("it works");
    assert_eq!(done.finished, [1.into(), 2.into()]);
    let names = "SELECT count(*) FROM t WHERE name = 'n' || id || '!'";
    assert_eq!(number(&database, names).await, 2);
    let again = migrator.up(Up::all()).await.expect("there is nothing to do");
    assert_eq!(again.finished, []);
}

/// The driver asks about a type that it does not know, and keeps how it asked.
#[tokio::test]
async fn functions_of_one_script_may_each_meet_types_of_their_own() {
    async fn look(transaction: &Transaction<'_>, column: &str) -> Done {
        transaction.query(&format!("SELECT {column} FROM t"), &[]).await?;
        Ok(())
    }
    let database = Database::new("types");
    let script = "CREATE TYPE mood AS ENUM ('fine'); CREATE TYPE size AS ENUM ('small'); \
                  CREATE TABLE t (mood mood, size size); \
                  CALL lockstep.moods('1'); CALL lockstep.sizes('1');";
    let migrator = service(&database, &[("001-t", script)])
        .function("moods", async |transaction: &Transaction<'_>| look(transaction, "mood").await)
        .function("sizes", async |transaction: &Transaction<'_>| look(transaction, "size").await)
        .build()
        .expect("they can be read");
    let done = migrator.up(Up::all()).await.expect("it works");
    assert_eq!(done.finished, [1.into()]);
}

/// Runs it with a function that does its work and then this; then with one that works.
async fn failing<F>(name: &str, then: F, check: impl Fn(&Error))
where
    F: AsyncFn(&Transaction<'_>) -> Done + Send + Sync + 'static,
{
    let database = Database::new(name);
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let bad = calling(&database).function("fill", async move |transaction: &Transaction<'_>| {
        counted.fetch_add(1, Ordering::SeqCst);
        transaction.execute(ADD, &[]).await?;
        then(transaction).await
    });
    let bad = bad.build().expect("they can be read");
    let error = bad.up(Up::all()).await.expect_err("the function fails");
    assert_eq!(error.finished(), [1.into()], "{error}");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    check(&error);
    is_untouched(&database).await;

    let good = calling(&database).function("fill", fill).build().expect("they can be read");
    let done = good.up(Up::all()).await.expect("it goes on there");
    assert_eq!(done.finished, [2.into()]);
    assert_eq!(number(&database, "SELECT count(*) FROM t").await, 2);
}

#[tokio::test]
async fn one_that_fails_after_its_writes_leaves_nothing_and_runs_again() {
    failing(
        "fails",
        async |_: &Transaction<'_>| Err("no more names".into()),
        |error| {
            assert_eq!((error.kind(), error.code()), (Kind::Failed, "STEP_FAILED"));
            let text = error.to_string();
            assert!(text.starts_with("002-fill/up.sql:1: "), "{text}");
            assert!(text.contains("`fill` failed: no more names"), "{text}");
        },
    )
    .await;
}

#[tokio::test]
async fn one_that_panics_leaves_nothing_and_says_what_it_said() {
    failing(
        "panics",
        async |_: &Transaction<'_>| panic!("seven is not a name"),
        |error| assert!(error.to_string().contains("`fill` panicked: seven is not a name")),
    )
    .await;
}

#[tokio::test]
async fn one_that_the_server_refuses_says_what_the_server_said() {
    failing(
        "refused",
        async |transaction: &Transaction<'_>| {
            transaction.execute(ADD, &[]).await?;
            Ok(())
        },
        |error| {
            let text = error.to_string();
            assert!(text.contains("`fill`: duplicate key value"), "{text}");
            assert!(text.contains("SQLSTATE 23505"), "{text}");
        },
    )
    .await;
}

#[tokio::test]
async fn one_that_passes_over_an_error_of_the_server_cannot_be_committed() {
    failing(
        "passed_over",
        async |transaction: &Transaction<'_>| {
            let _ = transaction.execute(ADD, &[]).await;
            Ok(())
        },
        |error| {
            let text = error.to_string();
            assert!(text.contains("current transaction is aborted"), "{text}");
        },
    )
    .await;
}

#[tokio::test]
async fn one_that_would_end_its_transaction_is_refused() {
    failing(
        "ends",
        async |transaction: &Transaction<'_>| transaction.batch_execute("SELECT 1; COMMIT").await,
        |error| {
            let text = error.to_string();
            assert!(text.contains("`COMMIT` is transaction control"), "{text}");
        },
    )
    .await;
}

#[tokio::test]
async fn one_that_is_cut_off_by_the_server_leaves_nothing() {
    failing(
        "cut_off",
        async |transaction: &Transaction<'_>| {
            transaction.execute("SELECT pg_terminate_backend(pg_backend_pid())", &[]).await?;
            Ok(())
        },
        |error| assert_eq!(error.kind(), Kind::Unreachable, "{error}"),
    )
    .await;
}

/// Names a database to a process that dies in the middle of its function.
const DIES_AT: &str = "LOCKSTEP_TEST_DIES_AT";

/// Run by itself, it is a service whose function works. Run by the test below, it dies in
/// the middle of it.
#[tokio::test]
async fn a_service_whose_function_may_be_its_end() {
    let mut own = None;
    let dies_at = std::env::var(DIES_AT).ok();
    let (postgres, mongo) = match &dies_at {
        Some(urls) => urls.split_once(' ').expect("two URLs"),
        None => {
            let database = own.insert(Database::new("lives"));
            (database.postgres_url.as_str(), database.mongo_uri.as_str())
        }
    };
    let dies = dies_at.is_some();
    let migrator = Migrator::builder()
        .migrations([
            Migration::new("001-t").file("up.sql", "CREATE TABLE t (id bigint PRIMARY KEY);"),
            Migration::new("002-fill").file(
                "up.sql",
                "ALTER TABLE t ADD COLUMN name text; CALL lockstep.fill('1'); \
                 UPDATE t SET name = name || '!';",
            ),
        ])
        .function("fill", async move |transaction: &Transaction<'_>| {
            fill(transaction).await?;
            if dies {
                std::process::abort();
            }
            Ok(())
        })
        .postgres_url(postgres)
        .mongo_url(mongo)
        .build()
        .expect("they can be read");
    migrator.up(Up::all()).await.expect("it works");
    assert!(!dies);
}

#[tokio::test]
async fn a_service_that_dies_in_its_function_leaves_nothing_and_the_next_one_goes_on() {
    let database = Database::new("dies");
    let urls = format!("{} {}", database.postgres_url, database.mongo_uri);
    let ended = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "functions::a_service_whose_function_may_be_its_end"])
        .env(DIES_AT, urls)
        .output()
        .expect("it runs");
    let aborted = std::os::unix::process::ExitStatusExt::signal(&ended.status);
    assert_eq!(aborted, Some(6), "{}", String::from_utf8_lossy(&ended.stdout));
    is_untouched(&database).await;

    // It waits until the lease of the dead one has run out.
    let migrator = calling(&database).function("fill", fill).build().expect("they can be read");
    let done = migrator.up(Up::all()).await.expect("it goes on there");
    assert_eq!(done.finished, [2.into()]);
    let names = "SELECT count(*) FROM t WHERE name = 'n' || id || '!'";
    assert_eq!(number(&database, names).await, 2);
}

#[tokio::test]
async fn a_down_script_calls_a_function_in_its_transaction() {
    let database = Database::new("down_function");
    let migrations = || {
        Migrator::builder()
            .migrations([Migration::new("001-t")
                .file("up.sql", "CREATE TABLE t (id bigint);")
                .file("down.sql", "CALL lockstep.keep('1'); DROP TABLE t;")])
            .postgres_url(&database.postgres_url)
            .mongo_url(&database.mongo_uri)
    };
    let keep = |then: fn() -> Done| {
        async move |transaction: &Transaction<'_>| {
            transaction.execute("CREATE TABLE kept AS SELECT * FROM t", &[]).await?;
            then()
        }
    };
    let without = migrations().build().expect("they can be read");
    without.up(Up::all()).await.expect("up needs no function");

    // Whoever does not have the function changes nothing.
    let error = without.down(Down::steps(1)).await.expect_err("it has no such function");
    assert_eq!((error.kind(), error.code()), (Kind::Refused, "NO_FUNCTION"));

    let bad = migrations().function("keep", keep(|| Err("no room".into()))).build();
    let error = bad.expect("they can be read").down(Down::steps(1)).await;
    assert!(error.expect_err("it fails").to_string().contains("no room"));
    assert_eq!(number(&database, "SELECT count(*) FROM t").await, 0);
    let kept = client(&database).await.query_one("SELECT to_regclass('kept')::text", &[]).await;
    assert_eq!(kept.expect("a row").get::<_, Option<&str>>(0), None);

    let good = migrations().function("keep", keep(|| Ok(()))).build();
    let done = good.expect("they can be read").down(Down::steps(1)).await.expect("it works");
    assert_eq!(done.finished, [1.into()]);
    assert_eq!(number(&database, "SELECT count(*) FROM kept").await, 0);
}

#[tokio::test]
async fn another_revision_of_an_applied_call_is_an_edit() {
    let database = Database::new("revision");
    let calls = |revision: u32| {
        let up = format!("CREATE TABLE t (id bigint); CALL lockstep.nothing('{revision}');");
        let nothing = async |_: &Transaction<'_>| Ok(());
        service(&database, &[("001-t", &up)]).function("nothing", nothing).build()
    };
    calls(1).expect("it can be read").up(Up::all()).await.expect("it works");
    let error = calls(2).expect("it can be read").up(Up::all()).await;
    let error = error.expect_err("it was edited");
    assert_eq!((error.kind(), error.code()), (Kind::Conflict, "CHECKSUM_MISMATCH"));
}
