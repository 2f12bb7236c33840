//! What git knows of the migrations folder, asked of `git` itself.

use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::core::lint::merged::Base;
use crate::core::parse::folder::{Folder, is_hidden};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A repository that has the migrations folder in it.
pub struct Repository {
    /// The folder: git names files relative to it.
    dir: PathBuf,
}

impl Repository {
    /// That of the migrations folder.
    ///
    /// # Errors
    /// Exit code 2: there is no git, or no repository.
    pub fn open(dir: &Path) -> Result<Repository, Failure> {
        let repository = Repository { dir: dir.to_owned() };
        repository.git(&["rev-parse", "--git-dir"]).map_err(|error| match error {
            Refusal::Missing => Failure::new(
                Exit::Usage,
                "NO_GIT",
                "`--base` asks git, and there is no program `git`",
            )
            .next("install git, or leave out `--base`: all migrations are looked at then"),
            Refusal::Failed(said) => {
                failed("NO_REPOSITORY", format!("{} is in no git repository", dir.display()), said)
                    .next("leave out `--base`: all migrations are looked at then")
            }
        })?;
        Ok(repository)
    }

    /// What is merged at a ref, and what has changed since this branch left it.
    ///
    /// # Errors
    /// Exit code 2: no such ref, or no history in common with it.
    pub fn base(&self, name: &str) -> Result<Base, Failure> {
        let commit = format!("{name}^{{commit}}");
        let tip = self.git(&["rev-parse", "--verify", "--end-of-options", &commit]);
        let tip = tip.map_err(|error| {
            error.about("UNKNOWN_REF", format!("git knows no `{name}`")).next(
                "fetch it (`git fetch origin main`), or name another: a branch, a tag or a commit",
            )
        })?;
        let tip = tip.trim().to_owned();
        let left = self.git(&["merge-base", &tip, "HEAD"]).map_err(|error| {
            error
                .about("UNKNOWN_REF", format!("this branch and `{name}` have no commit in common"))
                .next("fetch more of the history: a shallow clone has too little (`git fetch --unshallow`; `fetch-depth: 0` in a GitHub workflow)")
        })?;
        let left = left.trim().to_owned();
        let mut changed = self.list(&[
            "diff",
            "--name-only",
            "--no-renames",
            "--relative",
            "-z",
            &left,
            "--",
            ".",
        ])?;
        changed.extend(self.list(&[
            "ls-files",
            "--others",
            "--exclude-standard",
            "-z",
            "--",
            ".",
        ])?);
        Ok(Base {
            name: name.to_owned(),
            merged: self.folders(&tip)?,
            left: self.folders(&left)?,
            changed,
            commit: left,
        })
    }

    /// A migration as it was where this branch left the base.
    ///
    /// # Errors
    /// Exit code 2.
    pub fn folder(&self, name: &str, base: &Base) -> Result<Folder, Failure> {
        let Base { commit, .. } = base;
        let mut folder = Folder { name: name.to_owned(), ..Folder::default() };
        let path = format!("{name}/");
        for file in self.list(&["ls-tree", "-r", "--name-only", "-z", commit, "--", &path])? {
            let at = format!("{commit}:./{file}");
            let bytes = self.run(&["show", &at]).map_err(Refusal::plain)?;
            if let Some(file) = file.strip_prefix(&path) {
                folder.files.insert(file.to_owned(), bytes);
            }
        }
        Ok(folder)
    }

    /// The migration folders of a commit.
    fn folders(&self, commit: &str) -> Result<BTreeSet<String>, Failure> {
        let names = self.list(&["ls-tree", "-d", "--name-only", "-z", commit])?;
        Ok(names.into_iter().filter(|name| !is_hidden(name)).collect())
    }

    /// An answer of several names.
    fn list(&self, arguments: &[&str]) -> Result<BTreeSet<String>, Failure> {
        let answer = self.git(arguments).map_err(Refusal::plain)?;
        Ok(answer.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect())
    }

    fn git(&self, arguments: &[&str]) -> Result<String, Refusal> {
        Ok(String::from_utf8_lossy(&self.run(arguments)?).into_owned())
    }

    fn run(&self, arguments: &[&str]) -> Result<Vec<u8>, Refusal> {
        let output = Command::new("git")
            .arg("--no-optional-locks")
            .arg("-C")
            .arg(&self.dir)
            .args(arguments)
            .output();
        match output {
            Ok(output) if output.status.success() => Ok(output.stdout),
            Ok(output) => {
                Err(Refusal::Failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Err(Refusal::Missing),
            Err(error) => Err(Refusal::Failed(error.to_string())),
        }
    }
}

/// Why git did not answer.
enum Refusal {
    /// There is none.
    Missing,
    /// It said this.
    Failed(String),
}

impl Refusal {
    fn about(self, code: &'static str, message: String) -> Failure {
        match self {
            Refusal::Missing => failed(code, message, "there is no program `git`".to_owned()),
            Refusal::Failed(said) => failed(code, message, said),
        }
    }

    fn plain(self) -> Failure {
        self.about("GIT_FAILED", "git did not tell what has changed".to_owned())
    }
}

fn failed(code: &'static str, message: String, said: String) -> Failure {
    let mut failure = Failure::new(Exit::Usage, code, message);
    if !said.is_empty() {
        failure.details.push(("git", said));
    }
    failure
}
