//! A folder of migrations, commands that are run in it, and the server.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::http::{self, Answer};
use crate::support::wait::until;

/// In every URL and every token: no answer has it.
pub const SECRET: &str = "hunter2-hunter2-hunter2";

/// A folder of migrations.
pub struct Project {
    folder: TempDir,
    postgres: String,
    mongo: String,
}

/// A command that is over.
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Its only object.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.stdout, self.stderr))
    }
}

impl Project {
    /// With these files, each below `migrations`.
    pub fn new(postgres: &str, mongo: &str, files: &[(&str, &str)]) -> Project {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(folder.path().join("migrations")).expect("a folder");
        for (path, text) in files {
            let path = folder.path().join("migrations").join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        // Nobody asks for it, and nobody may tell it.
        let postgres = postgres.replacen("postgres@", &format!("postgres:{SECRET}@"), 1);
        assert!(postgres.contains(SECRET), "{postgres}");
        Project { folder, postgres, mongo: mongo.to_owned() }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_migrate"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("DATABASE_URL", &self.postgres)
            .env("MONGODB_URI", &self.mongo)
            .env_remove("MIGRATE_CONTROL_TOKEN")
            .stdin(Stdio::null());
        command
    }

    /// Writes a file into the folder, and says where it is.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, text).expect("a file");
        path.to_str().expect("a path").to_owned()
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        let output = self.command(arguments).output().expect("the binary starts");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Ended {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Serves, on a port that is free.
    pub fn serve(&self, arguments: &[&str]) -> Served {
        let log = self.folder.path().join(format!("log-{}", uuid::Uuid::new_v4()));
        let mut command =
            self.command(&["serve", "--listen", "127.0.0.1:0", "--interval", "100ms"]);
        command.args(arguments).env("MIGRATE_CONTROL_TOKEN", SECRET);
        let output = File::create(&log).expect("a file");
        let child = command.stdout(output.try_clone().expect("a file")).stderr(output).spawn();
        let mut served = Served { child: child.expect("it starts"), log, address: String::new() };
        until("it to listen", || {
            assert!(served.child.try_wait().expect("a child").is_none(), "{}", served.log());
            let log = served.log();
            let said = log.lines().find_map(|line| line.strip_prefix("listening on http://"));
            said.unwrap_or_default().clone_into(&mut served.address);
            !served.address.is_empty()
        });
        served
    }
}

/// The server. Dropping it kills it.
pub struct Served {
    child: Child,
    log: PathBuf,
    pub address: String,
}

impl Served {
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Asks, and looks at what every answer must have and must not have.
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, more: &str, body: &str) -> Answer {
        let answer = http::ask(&self.address, method, path, more, body);
        let answer = answer.unwrap_or_else(|error| panic!("{path}: {error}; {}", self.log()));
        check(&answer);
        answer
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", "")
    }

    /// With the token.
    #[track_caller]
    pub fn post(&self, path: &str, body: &str) -> Answer {
        let head = format!("Authorization: Bearer {SECRET}\r\nContent-Type: application/json\r\n");
        self.ask("POST", path, &head, body)
    }

    #[track_caller]
    pub fn until(&self, what: &str, path: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
        let mut last = self.get(path);
        until(what, || {
            last = self.get(path);
            wanted(&last)
        });
        last
    }

    /// Asks it to end, and waits.
    pub fn end(mut self, signal: Signal) -> Option<i32> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), signal).expect("it was not waited for yet");
        self.child.wait().expect("a child").code()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // After `end` there is nothing left to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is so of every answer.
#[track_caller]
fn check(answer: &Answer) {
    let of = |name: &str| answer.headers.get(name).map_or("", String::as_str);
    assert_eq!(of("x-content-type-options"), "nosniff");
    assert_eq!(of("referrer-policy"), "no-referrer");
    assert_eq!(of("cache-control"), "no-store");
    let policy = of("content-security-policy");
    assert!(policy.contains("default-src 'none'"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert!(!answer.body.contains(SECRET), "{}", answer.body);
    assert!(!format!("{:?}", answer.headers).contains(SECRET));
    if answer.status >= 400 && !answer.body.contains("\"status\"") {
        let error = &answer.json()["error"];
        assert!(error["message"].is_string() && error["next"].is_string(), "{}", answer.body);
    }
}
