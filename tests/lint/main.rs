//! `migrate lint` as somebody types it: no database is near.

mod base;
mod forms;
mod pages;
mod projects;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A folder of its own, gone at the end of the test.
struct Folder(tempfile::TempDir);

impl Folder {
    /// With files, by their paths.
    fn new(files: &[(&str, &str)]) -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        for (path, text) in files {
            folder.write(path, text);
        }
        folder
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// `migrate` here, where nothing of the environment leads to a database.
    fn command(&self, arguments: &[&str]) -> Command {
        migrate(self.0.path(), arguments)
    }

    #[track_caller]
    fn lint(&self, code: i32, arguments: &[&str]) -> String {
        let (stdout, stderr, status) = run(&mut self.command(&[&["lint"], arguments].concat()));
        assert_eq!(status, code, "{stdout}--- stderr\n{stderr}");
        stderr.lines().fold(stdout, |said, line| format!("{said}! {line}\n"))
    }

    /// The object of `--format json`.
    #[track_caller]
    fn json(&self, code: i32, arguments: &[&str]) -> Value {
        let said = self.lint(code, &[&["--format", "json"], arguments].concat());
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }

    /// `rule file:line`, a line for each finding.
    #[track_caller]
    fn findings(&self, code: i32, arguments: &[&str]) -> String {
        let object = self.json(code, arguments);
        let findings = object["findings"].as_array().unwrap();
        let line = |finding: &Value| {
            let text = |key: &str| finding[key].as_str().unwrap().to_owned();
            format!("{} {}:{}\n", text("rule"), text("file"), finding["line"])
        };
        findings.iter().map(line).collect()
    }
}

fn migrate(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_migrate"));
    command
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", folder)
        .stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> (String, String, i32) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(stdout), text(stderr), status.code().unwrap_or(-1))
}
