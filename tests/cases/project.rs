//! A project of its own for each test: a folder, a database in each server, and
//! the program to run there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use serde_json::Value;

use crate::support::Database;
pub use crate::support::wait::until;

/// A folder and two databases, gone at the end of the test.
pub struct Project {
    pub database: Database,
    folder: tempfile::TempDir,
}

impl Project {
    /// With files, by their paths inside `migrations/`.
    pub fn new(name: &str, files: &[(&str, &str)]) -> Project {
        let project =
            Project { database: Database::new(name), folder: tempfile::tempdir().unwrap() };
        fs::create_dir(project.path("migrations")).unwrap();
        for (path, text) in files {
            project.write(path, text);
        }
        project
    }

    /// A path in the project's folder.
    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Writes a file of a migration: `001-a/up.sql`.
    pub fn write(&self, path: &str, text: &str) {
        write(&self.path("migrations").join(path), text);
    }

    /// `migrate` with these arguments, in the project's folder, in an environment
    /// in which nothing but its databases is set.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_migrate"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .env("USER", "tester")
            .env("TZ", "UTC")
            .env("DATABASE_URL", &self.database.postgres_url)
            .env("MONGODB_URI", &self.database.mongo_uri)
            .stdin(Stdio::null());
        command
    }

    /// Runs `migrate` to its end.
    pub fn migrate(&self, arguments: &[&str]) -> Ran {
        Ran::of(arguments, self.command(arguments).output().unwrap())
    }

    /// Starts `migrate`.
    pub fn start(&self, arguments: &[&str]) -> Running {
        let mut command = self.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Running::of(arguments, command.spawn().unwrap())
    }

    /// Runs `migrate`, which must succeed.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> Ran {
        let ran = self.migrate(arguments);
        assert_eq!(ran.code, 0, "{ran}");
        ran
    }

    /// Runs `migrate`, which must end with this code.
    #[track_caller]
    pub fn fails(&self, code: i32, arguments: &[&str]) -> Ran {
        let ran = self.migrate(arguments);
        assert_eq!(ran.code, code, "{ran}");
        assert!(!ran.said().trim().is_empty(), "it says why");
        ran
    }

    /// The objects of `migrate … --output json`.
    #[track_caller]
    pub fn json(&self, code: i32, arguments: &[&str]) -> Vec<Value> {
        let ran = self.migrate(&[arguments, &["--output", "json"]].concat());
        assert_eq!(ran.code, code, "{ran}");
        ran.objects()
    }
}

/// Writes a file, and the folders above it.
pub fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Deletes a file or a folder.
pub fn remove(path: &Path) {
    if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// How a run of `migrate` ended.
pub struct Ran {
    arguments: String,
    pub stdout: String,
    pub stderr: String,
    /// -1 when a signal ended it.
    pub code: i32,
}

impl Ran {
    /// Nothing here runs on a terminal: no escape codes, whatever happens.
    #[track_caller]
    pub fn of(arguments: &[&str], output: Output) -> Ran {
        let text = |bytes| String::from_utf8(bytes).expect("it writes UTF-8");
        let ran = Ran {
            arguments: arguments.join(" "),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
            code: output.status.code().unwrap_or(-1),
        };
        assert!(!ran.said().contains('\x1b'), "escape codes in a pipe:\n{ran}");
        assert!(!ran.said().contains("panicked"), "{ran}");
        ran
    }

    /// All that it said.
    pub fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// The lines of stdout, each a JSON object.
    #[track_caller]
    pub fn objects(&self) -> Vec<Value> {
        let parse = |line: &str| match serde_json::from_str(line) {
            Ok(value @ Value::Object(_)) => value,
            _ => panic!("stdout has a line that is no object: {line}\n{self}"),
        };
        self.stdout.lines().map(parse).collect()
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Ran { arguments, stdout, stderr, code } = self;
        write!(f, "migrate {arguments}\n{stdout}--- stderr\n{stderr}--- exit code {code}")
    }
}

/// A `migrate` that is at work; killed when it is dropped.
pub struct Running {
    arguments: String,
    child: Option<Child>,
}

impl Running {
    /// One that was started, with its output piped.
    pub fn of(arguments: &[&str], child: Child) -> Running {
        Running { arguments: arguments.join(" "), child: Some(child) }
    }

    /// Waits for its end.
    pub fn end(mut self) -> Ran {
        let child = self.child.take().expect("it has not ended");
        Ran::of(&[&self.arguments], child.wait_with_output().unwrap())
    }

    /// As `kill -9` would.
    pub fn kill(mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it has not ended");
        child.kill().unwrap();
        child.wait().unwrap()
    }

    /// Sends a signal: `INT`, `TERM`.
    pub fn signal(&self, signal: &str) {
        let id = self.child.as_ref().expect("it has not ended").id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
