//! What benches have in common: medians, a timed run of the binary with the most
//! memory it had, and a Python for the scripts that somebody would write.

#![allow(dead_code, reason = "each bench uses what it needs")]

use crate::support;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}

pub async fn postgres(database: &support::Database) -> tokio_postgres::Client {
    let connected = tokio_postgres::connect(&database.postgres_url, tokio_postgres::NoTls);
    let (client, connection) = connected.await.expect("Postgres answers");
    // Ends with the client.
    tokio::spawn(connection);
    client
}

pub async fn execute(database: &support::Database, sql: &str) {
    postgres(database).await.batch_execute(sql).await.expect(sql);
}

/// How long a process took, in seconds, and the most memory that it had, in KiB.
#[derive(Clone, Copy, Debug)]
pub struct Ran {
    pub seconds: f64,
    pub resident: u64,
}

impl Ran {
    pub fn megabytes(self) -> f64 {
        megabytes(self.resident)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub fn megabytes(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// The binary in a folder, with both databases.
pub fn migrate(project: &Path, database: &support::Database, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_migrate"))
        .args(arguments)
        .arg("--quiet")
        .current_dir(project)
        .env("DATABASE_URL", &database.postgres_url)
        .env("MONGODB_URI", &database.mongo_uri)
        .stdin(Stdio::null())
        .spawn()
        .expect("the binary starts")
}

/// Waits for the end of a process that was just started.
pub fn finish(mut run: Child) -> Ran {
    let began = Instant::now();
    let mut most = 0;
    let status = loop {
        // The kernel keeps the maximum: the last time it is read is enough.
        most = resident(&run.id().to_string()).unwrap_or(most);
        match run.try_wait().expect("a child") {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    assert!(status.success(), "migrate ended with {status}");
    Ran { seconds: began.elapsed().as_secs_f64(), resident: most }
}

/// `migrate up --unthrottled` in a folder with these migrations, of which each has a
/// name and a `migration.toml`. Both databases have their history already, and what was
/// written before is out of the way.
pub fn up(database: &support::Database, migrations: &[(&str, String)]) -> Ran {
    let project = tempfile::tempdir().expect("a folder");
    let write = |name: &str, file: &str, text: &str| {
        let folder = project.path().join("migrations").join(name);
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(file), text).expect("a file");
    };
    write("001-begin", "prepare.sql", "SELECT 1");
    finish(migrate(project.path(), database, &["up"]));
    for (name, manifest) in migrations {
        write(name, "migration.toml", manifest);
    }
    support::block_on(async || execute(database, "CHECKPOINT").await);
    finish(migrate(project.path(), database, &["up", "--unthrottled"]))
}

/// The most memory that a process (`self`: this one) has had, of what is resident, in
/// KiB; none once it has ended.
pub fn resident(process: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// A Python that has psycopg and pymongo, if there can be one.
pub fn python() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-python");
    let python = folder.join("bin/python");
    let ran = |command: &mut Command| {
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
    };
    let has = |python: &Path| ran(Command::new(python).args(["-c", "import pymongo, psycopg"]));
    let install = ["-m", "pip", "install", "pymongo", "psycopg[binary]"];
    let made = has(&python)
        || ran(Command::new("python3").args(["-m", "venv"]).arg(&folder))
            && ran(Command::new(&python).args(install))
            && has(&python);
    made.then_some(python)
}

/// How many seconds a script takes, with both databases.
pub fn script(
    python: &Path,
    script: &str,
    arguments: &[&str],
    database: &support::Database,
) -> f64 {
    support::block_on(async || execute(database, "CHECKPOINT").await);
    let began = Instant::now();
    let status = Command::new(python)
        .args(["-c", script])
        .args(arguments)
        .env("DATABASE_URL", &database.postgres_url)
        .env("MONGODB_URI", &database.mongo_uri)
        .status()
        .expect("Python starts");
    assert!(status.success(), "the script ended with {status}");
    began.elapsed().as_secs_f64()
}
