//! A disk that is full.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::dump::dump;
use crate::project::{Project, seeded};
use crate::support::sql::{number, sql};
use crate::support::{Database, block_on, servers};

/// A small disk, in memory.
struct Disk {
    folder: TempDir,
}

impl Disk {
    /// Of so many megabytes, that belongs to whoever owns `like`.
    fn new(megabytes: u32, like: &Path) -> Disk {
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("our own");
        let owner = fs::metadata(like).expect("a folder");
        let (uid, gid) = (owner.uid(), owner.gid());
        let disk = Disk { folder };
        disk.mount(&format!("size={megabytes}m,mode=0700,uid={uid},gid={gid}"));
        disk
    }

    fn mount(&self, options: &str) {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(self.folder.path());
        assert!(mount.status().expect("mount is here").success(), "only root can mount");
    }

    fn grow(&self, megabytes: u32) {
        self.mount(&format!("remount,size={megabytes}m"));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.folder.path()).status();
    }
}

/// Where the server keeps its data.
fn data_directory() -> PathBuf {
    block_on(async || {
        let (client, connection) =
            tokio_postgres::connect(&servers().postgres_url, tokio_postgres::NoTls)
                .await
                .expect("Postgres answers");
        let connection = tokio::spawn(connection);
        let row = client.query_one("SHOW data_directory", &[]).await.expect("an answer");
        let data: String = row.get(0);
        drop(client);
        let _ = connection.await;
        PathBuf::from(data)
    })
}

/// What needs more room than there is: some 9 MB, in one transaction, and an index
/// of the same size, outside.
const ROWS: &str = "INSERT INTO wide SELECT i, (SELECT string_agg(md5(i::text || j), '') \
     FROM generate_series(1, 30) AS j) FROM generate_series(1, 8000) AS i;\n";
const INDEX: &str = "CREATE INDEX CONCURRENTLY wide_filler ON wide (filler);\n";
const TABLE: &str = "CREATE TABLE wide (id integer PRIMARY KEY, filler text NOT NULL);\n";

/// Runs out of room in the middle of a statement, and goes on when there is more.
fn full(name: &str, up: &str, megabytes: u32) {
    let project = Project::of(&[
        ("001-wide/up.sql", up),
        ("001-wide/up.mongodb.js", "db.people.updateMany({}, { $inc: { n: 1 } });\n"),
    ]);
    let whole = seeded(name);
    project.migrate(&whole, &["up"]).succeeds();
    let whole = dump(&whole);

    let disk = Disk::new(megabytes, &data_directory());
    let database = seeded(name);
    let run = |text: String| sql(&servers().postgres_url, &text);
    let space = format!("space_{}", database.name);
    run(format!("CREATE TABLESPACE {space} LOCATION '{}'", disk.folder.path().display()));
    run(format!("ALTER DATABASE {} SET TABLESPACE {space}", database.name));

    let failed = project.migrate(&database, &["up"]).run();
    assert_eq!(failed.code, Some(1), "{}", failed.text);
    assert!(failed.text.contains("No space left on device"), "{}", failed.text);
    for (question, what) in [
        ("SELECT count(*) FROM pg_index WHERE NOT indisvalid", "an invalid index is left"),
        ("SELECT count(*) FROM migration_control WHERE holder IS NOT NULL", "a lease is left"),
    ] {
        assert_eq!(number(&database.postgres_url, question), 0, "{what}: {}", failed.text);
    }

    disk.grow(200);
    let again = project.migrate(&database, &["up"]).succeeds();
    dump(&database).is(&whole, &format!("{}\nafter {}", again.text, failed.text));
    drop::<Database>(database);
    run(format!("DROP TABLESPACE {space}"));
}

/// Whether a disk can be made here: root can.
fn can_mount() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("not root: no disk can be made, and nothing was tried");
    }
    root
}

#[test]
#[ignore = "needs root: scripts/test --faults"]
fn a_full_disk_fails_a_transaction_and_up_goes_on_when_there_is_room() {
    if can_mount() {
        full("full_atomic", &[TABLE, ROWS].concat(), 14);
    }
}

#[test]
#[ignore = "needs root: scripts/test --faults"]
fn a_full_disk_fails_an_index_and_leaves_none_that_is_invalid() {
    if can_mount() {
        full("full_journaled", &[TABLE, ROWS, INDEX].concat(), 23);
    }
}
