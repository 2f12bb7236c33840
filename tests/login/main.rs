//! How `migrate` reaches servers that want TLS and know who is who: certificates made
//! here, passwords from where libpq has them, several hosts, and roles with no more
//! rights than the documentation gives them.

#[path = "../support/mod.rs"]
mod support;

mod certificates;
mod mongo;
mod postgres;
mod privileges;

use std::path::Path;
use std::process::{Command, Stdio};

/// What a command said, and how it ended.
#[derive(Debug)]
struct Ended {
    code: i32,
    text: String,
}

impl Ended {
    #[track_caller]
    fn is(self, code: i32, says: &str) -> String {
        assert_eq!(self.code, code, "{}", self.text);
        assert!(self.text.contains(says), "no {says:?} in:\n{}", self.text);
        self.text
    }
}

/// Runs `migrate` in a folder with these variables and no others.
fn migrate(folder: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Ended {
    let output = Command::new(env!("CARGO_BIN_EXE_migrate"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", folder)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts");
    let mut text = String::from_utf8(output.stdout).expect("text");
    text.push_str(std::str::from_utf8(&output.stderr).expect("text"));
    Ended { code: output.status.code().expect("it was not killed"), text }
}

/// A project of one migration, for one store.
fn project(script: &str, text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let migration = folder.path().join("migrations/001-things");
    std::fs::create_dir_all(&migration).expect("a folder");
    std::fs::write(migration.join(script), text).expect("a file");
    folder
}
