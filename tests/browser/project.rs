//! A folder of migrations, the binary that is run in it, and the server that it is.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Who has it may steer.
pub const TOKEN: &str = "a-token-of-the-browser-test";

/// A folder of migrations, and both databases.
pub struct Project {
    folder: TempDir,
    runs: AtomicUsize,
    postgres: String,
    mongo: String,
}

impl Project {
    /// With these files, each below `migrations`.
    pub fn new((postgres, mongo): (&str, &str), files: &[(&str, &str)]) -> Project {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = folder.path().join("migrations").join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        let (postgres, mongo) = (postgres.to_owned(), mongo.to_owned());
        Project { folder, runs: AtomicUsize::new(0), postgres, mongo }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_migrate"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("DATABASE_URL", &self.postgres)
            .env("MONGODB_URI", &self.mongo)
            .env("MIGRATE_CONTROL_TOKEN", TOKEN)
            .stdin(Stdio::null());
        command
    }

    /// Starts the binary.
    pub fn start(&self, arguments: &[&str]) -> Running {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let output = self.folder.path().join(format!("output-{number}"));
        let file = File::create(&output).expect("a file");
        let mut command = self.command(arguments);
        command.stdout(file.try_clone().expect("a file")).stderr(file);
        Running { child: command.spawn().expect("the binary starts"), output }
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        self.start(arguments).succeeds()
    }

    /// Serves at an address, by way of other URLs if there are any.
    pub fn serve(&self, listen: &str, postgres: Option<&str>, more: &[&str]) -> Served {
        let mut command = self.command(&["serve", "--listen", listen, "--interval", "200ms"]);
        command.args(more).stderr(Stdio::piped());
        if let Some(postgres) = postgres {
            command.env("DATABASE_URL", postgres);
        }
        let mut child = command.spawn().expect("the binary starts");
        let said = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut served = Served { child, address: String::new(), said };
        let mut all = String::new();
        while served.address.is_empty() {
            let before = all.len();
            let read = served.said.read_line(&mut all).expect("text");
            assert!(read > 0, "it ended: {all}");
            if let Some((_, address)) = all[before..].split_once("listening on http://") {
                address.trim().clone_into(&mut served.address);
            }
        }
        served
    }
}

/// A run under way. Dropping it kills it.
pub struct Running {
    child: Child,
    output: PathBuf,
}

impl Running {
    /// Waits for its good end.
    #[track_caller]
    pub fn succeeds(mut self) -> String {
        let status = self.child.wait().expect("a child");
        let text = fs::read_to_string(&self.output).unwrap_or_default();
        assert!(status.success(), "{text}");
        text
    }

    /// Waits for its bad end.
    #[track_caller]
    pub fn fails(mut self) {
        let status = self.child.wait().expect("a child");
        let text = fs::read_to_string(&self.output).unwrap_or_default();
        assert_eq!(status.code(), Some(1), "{text}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After `wait` there is nothing left to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `migrate serve`. Dropping it kills it.
pub struct Served {
    child: Child,
    /// Where it listens.
    pub address: String,
    /// Who wants to write there has to be let.
    said: BufReader<ChildStderr>,
}

impl Served {
    /// As whoever deploys a new one.
    pub fn terminate(mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), Signal::TERM).expect("it was not waited for yet");
        assert_eq!(self.child.wait().expect("a child").code(), Some(143));
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
