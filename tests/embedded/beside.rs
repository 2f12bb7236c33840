//! The program `migrate` beside a service: one history for both.

use crate::support::Database;
use lockstep::{Down, Migrator, Transaction, Up};
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
