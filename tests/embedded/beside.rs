//! The program `migrate` beside a service: one history for both.

use crate::support::Database;
use lockstep::{Down, Migrator, PostgresBatch, Transaction, Up};
use std::path::Path;
use std::process::{Command, Output};

fn migrate(database: &Database, folder: &Path, arguments: &[&str]) -> (i32, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_migrate"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("HOME", folder)
        .env("USER", "tester")
        .env("DATABASE_URL", &database.postgres_url)
        .env("MONGODB_URI", &database.mongo_uri)
        .output()
        .expect("it runs");
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    (status.code().expect("it ends by itself"), said)
}

fn write(folder: &Path, files: &[(&str, &str)]) {
    for (path, text) in files {
        let path = folder.join("migrations").join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("it can be made");
        std::fs::write(path, text).expect("it can be written");
    }
}

/// The folder that both have, with a call in the second of three migrations.
fn project() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let files = [
        ("001-t/up.sql", "CREATE TABLE t (id bigint);"),
        ("001-t/down.sql", "DROP TABLE t;"),
        ("002-fill/up.sql", "CALL lockstep.fill('1');"),
        ("002-fill/down.sql", "CALL lockstep.empty('1');"),
        ("003-u/up.sql", "CREATE TABLE u (id bigint);"),
        ("003-u/down.sql", "DROP TABLE u;"),
    ];
    write(folder.path(), &files);
    folder
}

fn service(database: &Database, folder: &Path) -> Migrator {
    Migrator::builder()
        .folder(folder.join("migrations"))
        .function("fill", async |transaction: &Transaction<'_>| {
            transaction.execute("INSERT INTO t VALUES (1)", &[]).await?;
            Ok(())
        })
        .function("empty", async |transaction: &Transaction<'_>| {
            transaction.execute("DELETE FROM t", &[]).await?;
            Ok(())
        })
        .postgres_url(&database.postgres_url)
        .mongo_url(&database.mongo_uri)
        .build()
        .expect("they can be read")
}

#[tokio::test]
async fn what_calls_a_function_is_left_to_the_service_and_known_to_both() {
    let (database, folder) = (Database::new("beside"), project());
    let migrate = |arguments: &[&str]| migrate(&database, folder.path(), arguments);

    // Nothing of it is applied by the program, and nothing before it either.
    for arguments in [&["up"][..], &["plan"]] {
        let (code, said) = migrate(arguments);
        assert_eq!(code, 9, "{said}");
        assert!(said.contains("002-fill calls `fill`, which is a function of a service"), "{said}");
    }
    let (_, said) = migrate(&["up", "--output", "json"]);
    assert!(said.contains("\"NO_FUNCTION\""), "{said}");
    let (code, said) = migrate(&["status", "--output", "json"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("\"pending\":3"), "{said}");
    // As far as it can.
    let (code, said) = migrate(&["up", "--to", "001"]);
    assert_eq!(code, 0, "{said}");

    let service = service(&database, folder.path());
    let done = service.up(Up::all()).await.expect("it goes on there");
    assert_eq!(done.finished, [2.into(), 3.into()]);

    // To the program it is a migration like any other.
    for arguments in [&["up"][..], &["plan"], &["verify"], &["lint"], &["status", "--exit-code"]] {
        let (code, said) = migrate(arguments);
        assert_eq!(code, 0, "{arguments:?}: {said}");
        assert!(!said.contains("missing"), "{arguments:?}: {said}");
    }
    let (code, said) = migrate(&["down", "--steps", "1", "--yes"]);
    assert_eq!(code, 0, "{said}");
    // But for its way back, with its files or without.
    for arguments in [&["down", "--yes"][..], &["down", "--yes", "--dir", "nowhere"]] {
        if arguments.contains(&"nowhere") {
            std::fs::create_dir_all(folder.path().join("nowhere")).expect("it can be made");
        }
        let (code, said) = migrate(arguments);
        assert_eq!(code, 9, "{said}");
        assert!(said.contains("002-fill calls `empty`"), "{said}");
        assert!(said.contains("it is reverted by the service"), "{said}");
    }
    let done = service.down(Down::to(0)).await.expect("the service can");
    assert_eq!(done.finished, [2.into(), 1.into()]);
}

/// A store that was restored from an older backup is brought back by who can.
#[tokio::test]
async fn what_calls_a_function_is_not_replayed_by_the_program() {
    let (database, folder) = (Database::new("replay"), project());
    let migrate = |arguments: &[&str]| migrate(&database, folder.path(), arguments);
    let service = service(&database, folder.path());
    service.up(Up::all()).await.expect("it works");
    let refused = |arguments: &[&str]| {
        let (code, said) = migrate(arguments);
        assert_eq!(code, 9, "{said}");
        assert!(said.contains("002-fill calls `fill`, which is a function of a service"), "{said}");
        assert!(said.contains("nothing was changed"), "{said}");
    };
    refused(&["repair", "--redo", "002/up/postgres/1", "--yes"]);
    let client = crate::client(&database).await;
    let lost = "DROP TABLE t, u; DELETE FROM migration_steps; DELETE FROM migration_history";
    client.batch_execute(lost).await.expect("Postgres is as it was before");
    refused(&["repair", "--replay", "postgres", "--yes"]);
    // Nor is anything before it.
    let gone = "SELECT (to_regclass('t') IS NULL)::int::bigint";
    assert_eq!(crate::number(&database, gone).await, 1);
}

/// So are backfills that call one: what may be known without it is known.
#[tokio::test]
async fn a_backfill_that_calls_a_function_is_left_to_the_service_and_known_to_both() {
    let (database, folder) =
        (Database::new("beside_batches"), tempfile::tempdir().expect("a folder"));
    let toml = "irreversible = 'x'\n[[backfill]]\nname = 'names'\n\
                postgres = { table = 't', call = \"lockstep.fill('1')\" }\n";
    write(
        folder.path(),
        &[
            ("001-t/up.sql", "CREATE TABLE t (id bigint PRIMARY KEY, name text);"),
            ("001-t/down.sql", "DROP TABLE t;"),
            ("002-names/migration.toml", toml),
        ],
    );
    let migrate = |arguments: &[&str]| migrate(&database, folder.path(), arguments);
    for arguments in [&["up"][..], &["plan"], &["up", "--join"]] {
        let (code, said) = migrate(arguments);
        assert_eq!(code, 9, "{said}");
        let calls = "002-names calls `fill` for each batch of a backfill in Postgres";
        assert!(said.contains(calls), "{said}");
    }
    let (code, said) = migrate(&["lint"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("no invariant asks about `t`"), "{said}");

    let service = Migrator::builder()
        .folder(folder.path().join("migrations"))
        .postgres_batch("fill", async |batch: &PostgresBatch<'_>| {
            batch.execute("UPDATE t SET name = 'n' || id WHERE {batch}", &[]).await
        })
        .postgres_url(&database.postgres_url)
        .mongo_url(&database.mongo_uri)
        .build()
        .expect("they can be read");
    service.up(Up::all()).await.expect("it works");
    for arguments in [&["up"][..], &["plan"], &["verify"], &["status", "--exit-code"]] {
        let (code, said) = migrate(arguments);
        assert_eq!(code, 0, "{arguments:?}: {said}");
    }
    let (code, said) = migrate(&["backfill", "status"]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = migrate(&["history", "2"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("execute/names"), "{said}");
}

/// Whoever comes while it runs and does not have the function is told, and is in nobody's
/// way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_that_calls_a_function_is_joined_by_nobody_who_does_not_have_it() {
    let (database, folder) =
        (Database::new("join_batches"), tempfile::tempdir().expect("a folder"));
    let toml = "irreversible = 'x'\n[[backfill]]\nname = 'names'\nbatch = 10\nworkers = 2\n\
                postgres = { table = 't', call = \"lockstep.fill('1')\" }\n";
    write(folder.path(), &[("001-names/migration.toml", toml)]);
    let client = crate::client(&database).await;
    let table = "CREATE TABLE t (id bigint PRIMARY KEY, name text); \
                 INSERT INTO t SELECT generate_series(1, 100)";
    client.batch_execute(table).await.expect("a table");
    let (go_on, wait) = tokio::sync::watch::channel(false);
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let service = Migrator::builder()
        .folder(folder.path().join("migrations"))
        .postgres_batch("fill", async move |batch: &PostgresBatch<'_>| {
            tell.send(())?;
            wait.clone().wait_for(|go_on| *go_on).await?;
            batch.execute("UPDATE t SET name = 'n' || id WHERE {batch}", &[]).await
        })
        .postgres_url(&database.postgres_url)
        .mongo_url(&database.mongo_uri)
        .build()
        .expect("they can be read");
    let run = tokio::spawn(async move { service.up(Up::all()).await });
    told.recv().await.expect("it is at work");
    let (code, said) = migrate(&database, folder.path(), &["up", "--join"]);
    assert_eq!(code, 9, "{said}");
    assert!(said.contains("001-names calls `fill` for each batch of a backfill"), "{said}");
    go_on.send_replace(true);
    run.await.expect("it does not panic").expect("it works");
    let filled = "SELECT count(*) FROM t WHERE name = 'n' || id";
    assert_eq!(crate::number(&database, filled).await, 100);
}
