//! A folder of migrations, and the binary that is run in it.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::sql::sql;
use crate::support::wait::until;
use crate::support::{Database, block_on};

/// What is in both stores before the first migration.
const SEED_SQL: &str = "CREATE TABLE people (id integer PRIMARY KEY, name text NOT NULL, n bigint NOT NULL); \
     INSERT INTO people SELECT i, 'person ' || i, i * 100 FROM generate_series(1, 50) AS i";

/// The migrations of most tests: everything whose loss or repetition would show,
/// in transactions and outside.
const FILES: &[(&str, &str)] = &[
    (
        "001-counters/up.sql",
        "CREATE TABLE counters (id integer PRIMARY KEY, n bigint NOT NULL);
INSERT INTO counters SELECT i, i FROM generate_series(1, 20) AS i;
UPDATE people SET n = n + 1;
CREATE INDEX CONCURRENTLY people_n ON people (n);
UPDATE people SET n = n * 2;
UPDATE counters SET n = n + 1;
",
    ),
    (
        "001-counters/down.sql",
        "UPDATE people SET n = n / 2;
DROP INDEX CONCURRENTLY people_n;
UPDATE people SET n = n - 1;
DROP TABLE counters;
",
    ),
    (
        "001-counters/up.mongodb.js",
        r#"db.createCollection("counters", { validator: { n: { $type: "number" } } });
db.counters.insertMany([{ _id: 1, n: 1 }, { _id: 2, n: 2 }, { _id: 3, n: 3 }]);
db.counters.updateMany({}, { $inc: { n: 1 } });
db.counters.createIndex({ n: 1 }, { name: "by_n" });
db.people.updateMany({}, { $inc: { n: 1 } });
"#,
    ),
    (
        "001-counters/down.mongodb.js",
        r#"db.people.updateMany({}, { $inc: { n: -1 } });
db.counters.dropIndex("by_n");
db.counters.drop();
"#,
    ),
    (
        "002-tallies/up.sql",
        "ALTER TABLE counters RENAME TO tallies;
ALTER TABLE tallies ADD COLUMN note text NOT NULL DEFAULT 'new';
UPDATE tallies SET n = n * 3;
",
    ),
    (
        "002-tallies/down.sql",
        "UPDATE tallies SET n = n / 3;
ALTER TABLE tallies DROP COLUMN note;
ALTER TABLE tallies RENAME TO counters;
",
    ),
    (
        "002-tallies/up.mongodb.js",
        r#"db.counters.renameCollection("tallies");
db.tallies.updateMany({}, { $mul: { n: 3 } });
db.tallies.insertOne({ _id: 4, n: 100 });
"#,
    ),
    (
        "002-tallies/down.mongodb.js",
        r#"db.tallies.deleteOne({ _id: 4 });
db.tallies.updateMany({}, { $inc: { n: -3 } });
db.tallies.renameCollection("counters");
"#,
    ),
    (
        "003-one-store/up.sql",
        "UPDATE people SET n = n + 7 WHERE id % 2 = 0;
",
    ),
    (
        "003-one-store/down.sql",
        "UPDATE people SET n = n - 7 WHERE id % 2 = 0;
",
    ),
];

/// The program as it was when the first test began: whoever builds meanwhile puts
/// another one in its place, perhaps without failpoints.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (built, kept) = (env!("CARGO_BIN_EXE_migrate"), folder.join("migrate-with-failpoints"));
        let link = folder.join(format!("migrate-{}", std::process::id()));
        let linked = fs::hard_link(built, &link).or_else(|_| fs::copy(built, &link).map(drop));
        linked.and_then(|()| fs::rename(&link, &kept)).expect("it was built");
        // Between two names of one file, renaming does nothing.
        let _ = fs::remove_file(&link);
        kept
    })
}

/// A folder of migrations.
pub struct Project {
    folder: TempDir,
    runs: AtomicUsize,
}

impl Project {
    /// The migrations of most tests.
    pub fn usual() -> Project {
        Project::of(FILES)
    }

    /// With these files, each below `migrations`.
    pub fn of(files: &[(&str, &str)]) -> Project {
        let folder = tempfile::tempdir().expect("a folder");
        let project = Project { folder, runs: AtomicUsize::new(0) };
        fs::create_dir(project.folder.path().join("migrations")).expect("a folder");
        for (path, text) in files {
            let path = project.folder.path().join("migrations").join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        project
    }

    /// A place in its folder.
    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Writes a file into its folder.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    /// The binary, not yet started.
    pub fn migrate(&self, database: &Database, arguments: &[&str]) -> Migrate {
        self.migrate_at(&database.postgres_url, &database.mongo_uri, arguments)
    }

    /// The same, with URLs of its own.
    pub fn migrate_at(&self, postgres: &str, mongo: &str, arguments: &[&str]) -> Migrate {
        let mut command = Command::new(program());
        for name in ["LOCKSTEP_FAILPOINT", "LOCKSTEP_LEASE_MS"] {
            command.env_remove(name);
        }
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("DATABASE_URL", postgres)
            .env("MONGODB_URI", mongo)
            .stdin(Stdio::null());
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        Migrate { command, output: self.folder.path().join(format!("output-{number}")) }
    }
}

/// The binary, not yet started.
pub struct Migrate {
    command: Command,
    output: PathBuf,
}

impl Migrate {
    /// With a variable of the environment.
    pub fn with(mut self, name: &str, value: impl std::fmt::Display) -> Migrate {
        self.command.env(name, value.to_string());
        self
    }

    /// Dies at a failpoint.
    pub fn dying_at(self, failpoint: usize) -> Migrate {
        self.with("LOCKSTEP_FAILPOINT", failpoint)
    }

    /// Stops at a failpoint, as by SIGSTOP, until it gets SIGCONT.
    pub fn stopping_at(self, failpoint: usize) -> Migrate {
        self.with("LOCKSTEP_FAILPOINT", format!("{failpoint}:stop"))
    }

    /// Starts it.
    pub fn start(mut self) -> Running {
        let output = File::create(&self.output).expect("a file");
        self.command.stdout(output.try_clone().expect("a file")).stderr(output);
        Running { child: self.command.spawn().expect("the binary starts"), output: self.output }
    }

    /// Runs it to its end.
    pub fn run(self) -> Ended {
        self.start().wait()
    }

    /// Runs it to its good end.
    #[track_caller]
    pub fn succeeds(self) -> Ended {
        let ended = self.run();
        assert_eq!(ended.code, Some(0), "{}", ended.text);
        ended
    }
}

/// A run under way. Dropping it kills it.
pub struct Running {
    child: Child,
    output: PathBuf,
}

impl Running {
    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        let pid = Pid::from_raw(pid).expect("a process id");
        kill_process(pid, signal).expect("it was not waited for yet");
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far.
    pub fn text(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// Whether it ended.
    pub fn is_over(&mut self) -> bool {
        self.child.try_wait().expect("it can be waited for").is_some()
    }

    /// Whether it is stopped by SIGSTOP.
    pub fn is_stopped(&self) -> bool {
        let stat =
            fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['T', 't']))
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(mut self) -> Ended {
        until("a run to end", || self.is_over());
        let status = self.child.wait().expect("it can be waited for");
        Ended { code: status.code(), signal: status.signal(), text: self.text() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code.
    pub code: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// Everything that it said.
    pub text: String,
}

impl Ended {
    /// Whether it died of SIGKILL.
    pub fn was_killed(&self) -> bool {
        self.signal == Some(Signal::KILL.as_raw())
    }
}

/// A database with what was there before the first migration.
pub fn seeded(name: &str) -> Database {
    let database = Database::new(name);
    seed(&database.postgres_url, &database.mongo_uri);
    database
}

/// Writes what was there before the first migration.
pub fn seed(postgres_url: &str, mongo_uri: &str) {
    sql(postgres_url, SEED_SQL);
    block_on(async || {
        let client = mongodb::Client::with_uri_str(mongo_uri).await.expect("a valid URI");
        let people = (1..=50).map(|id| bson::doc! { "_id": id, "n": id * 100 });
        let database = client.default_database().expect("a URI with a database");
        database.collection("people").insert_many(people).await.expect("the seed is written");
        client.shutdown().immediate(true).await;
    });
}
