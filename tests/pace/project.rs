//! A folder of migrations, the binary that is run in it, and what it reports.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::session::session;
use crate::support::wait::{LIMIT, POLL};

/// A folder of migrations.
pub struct Project {
    folder: TempDir,
    runs: AtomicUsize,
}

impl Project {
    /// With these files, each below `migrations`.
    pub fn new(files: &[(String, String)]) -> Project {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = folder.path().join("migrations").join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        Project { folder, runs: AtomicUsize::new(0) }
    }

    /// Writes `migrate.toml`.
    pub fn configure(&self, text: &str) {
        fs::write(self.folder.path().join("migrate.toml"), text).expect("a file");
    }

    /// Starts the binary.
    pub fn start(&self, postgres: &str, mongo: &str, arguments: &[&str]) -> Running {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.path().join(format!("output-{number}"));
        let output = File::create(&path).expect("a file");
        let child = Command::new(env!("CARGO_BIN_EXE_migrate"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env("DATABASE_URL", postgres)
            .env("MONGODB_URI", mongo)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a file"))
            .stderr(output)
            .spawn()
            .expect("the binary starts");
        Running { child, output: path }
    }
}

/// What a run says of a backfill, once in a second.
#[derive(Clone, Debug)]
pub struct Report {
    /// Counted from 1.
    pub number: usize,
    pub state: String,
    /// Empty where none is given.
    pub reason: String,
    pub passed: u64,
}

/// A run under way. Dropping it kills it.
pub struct Running {
    child: Child,
    output: PathBuf,
}

impl Running {
    fn text(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// The newest report.
    fn report(&self) -> Option<Report> {
        let text = self.text();
        // The last line may be half of one.
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let reports = lines.filter(|line| line["event"] == "backfill_progress");
        let (at, last) = reports.enumerate().last()?;
        Some(Report {
            number: at + 1,
            state: last["state"].as_str()?.to_owned(),
            reason: last["reason"].as_str().unwrap_or_default().to_owned(),
            passed: last["passed"].as_u64()?,
        })
    }

    /// Waits for a report.
    #[track_caller]
    pub fn until(&mut self, what: &str, wanted: impl Fn(&Report) -> bool) -> Report {
        let begun = Instant::now();
        loop {
            if let Some(report) = self.report().filter(|report| wanted(report)) {
                return report;
            }
            let over = self.child.try_wait().expect("a child").is_some();
            assert!(!over, "it ended before: {what}\n{}", self.text());
            assert!(begun.elapsed() < LIMIT, "still waiting for: {what}\n{}", self.text());
            std::thread::park_timeout(POLL);
        }
    }

    /// As somebody with Ctrl-C.
    pub fn interrupt(&self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), Signal::INT).expect("it was not waited for yet");
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Ended {
        let code = self.child.wait().expect("a child").code();
        Ended { code, text: self.text() }
    }

    /// Waits for its good end.
    #[track_caller]
    pub fn succeeds(self) -> Ended {
        let ended = self.wait();
        assert_eq!(ended.code, Some(0), "{}", ended.text);
        ended
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After `wait` there is nothing left to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A run that is over.
pub struct Ended {
    pub code: Option<i32>,
    pub text: String,
}

impl Ended {
    /// Its lines of JSON.
    pub fn objects(&self) -> Vec<Value> {
        let lines = self.text.lines();
        lines.map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }
}

/// A session of somebody else. Dropping it ends it.
pub struct Foreign {
    runtime: tokio::runtime::Runtime,
    client: tokio_postgres::Client,
}

impl Foreign {
    /// Has run a script.
    pub fn new(url: &str, script: &str) -> Foreign {
        let session = Foreign::open(url);
        session.runtime.block_on(session.client.batch_execute(script)).expect("it runs");
        session
    }

    /// Runs a script, which somebody waits for.
    pub fn starting(url: &str, script: &str) -> Statement {
        let session = Foreign::open(url);
        let script = script.to_owned();
        Statement(std::thread::spawn(move || {
            session.runtime.block_on(session.client.batch_execute(&script)).expect("it runs");
        }))
    }

    fn open(url: &str) -> Foreign {
        let (runtime, client) = session(&url.parse().expect("a URL"), "");
        Foreign { runtime, client }
    }
}

/// A script under way.
pub struct Statement(std::thread::JoinHandle<()>);

impl Statement {
    /// Waits for its end.
    pub fn wait(self) {
        self.0.join().expect("it succeeds");
    }
}
