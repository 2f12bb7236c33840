//! Reads the migrations folder: bytes only. What they mean is decided by [`core::parse`](crate::core::parse).

use crate::core::id::Version;
#[cfg(feature = "cli")]
use crate::core::lint::Input;
use crate::core::migration::MigrationSet;
use crate::core::parse::folder::{self, Folder, is_hidden, is_ignored};
use crate::core::problem::Problem;
use crate::core::template::{Assumed, Vars};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// A file of a migration has 32 MiB at most: more is data, which is not the
/// business of a script that is kept in memory and in both histories.
pub const FILE_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Most scripts are smaller.
const FILE_BYTES_USUAL: usize = 8 * 1024;

/// A migration folder has this many files at most, those of its programs
/// included: more is a mistake, such as a `node_modules`.
pub const FOLDER_FILES_MAX: usize = 1000;

/// A migration folder has folders in it this deep at most, so that a symlink to a
/// folder above it ends.
const FOLDER_DEPTH_MAX: usize = 8;

/// Why the migrations could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is no such folder.
    #[error("there is no migrations folder `{}`; `migrate init` makes one, `--dir` names another", .dir.display())]
    Missing {
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// Everything that is wrong with the files.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Problems(Vec<Problem>),
    /// A file or folder cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Reads every migration of a folder.
///
/// Hidden files, and files that stand in `dir` itself, are ignored. Symlinks are
/// followed.
///
/// # Errors
/// [`SourceError::Problems`] has the problems of all migrations, in their order.
pub fn read(dir: &Path) -> Result<MigrationSet, SourceError> {
    read_with(dir, &())
}

/// The same, with variables for templates.
///
/// # Errors
/// As [`read`].
pub fn read_with(dir: &Path, vars: &dyn Vars) -> Result<MigrationSet, SourceError> {
    read_those(dir, vars, |_| true)
}

/// The same, without templates whose variables are not all there: for whoever only
/// compares the files with what is applied.
///
/// # Errors
/// As [`read`].
pub fn read_known(dir: &Path, vars: &dyn Vars) -> Result<MigrationSet, SourceError> {
    read_those(dir, vars, |folder| !folder::lacks_variables(folder, vars))
}

/// The same, with those templates as far as they are known without values, and what no
/// value would mend about them: for whoever finds out whether they are done.
///
/// # Errors
/// As [`read`].
pub fn read_unfilled(
    dir: &Path,
    vars: &dyn Vars,
) -> Result<(MigrationSet, Unfillable), SourceError> {
    let (migrations, mut problems) = each(dir, |folder| {
        let lacking = folder::lacking(folder, vars);
        if lacking.is_empty() {
            return folder::read_with(folder, vars).map(|it| (it, Vec::new()));
        }
        let wrong = folder::lacking(folder, &Assumed::new(vars, folder::variables(folder)));
        folder::unfilled(folder, lacking).map(|it| (it, wrong)).map_err(|it| vec![it])
    })?;
    let wrong = migrations.iter().filter(|(_, wrong)| !wrong.is_empty());
    let wrong = wrong.map(|(migration, wrong)| (migration.version, wrong.clone())).collect();
    match MigrationSet::new(migrations.into_iter().map(|(migration, _)| migration).collect()) {
        Ok(set) if problems.is_empty() => return Ok((set, wrong)),
        Ok(_) => {}
        Err(problem) => problems.push(problem),
    }
    Err(SourceError::Problems(problems))
}

/// The templates that no value makes right, with what is wrong with them.
pub type Unfillable = BTreeMap<Version, Vec<Problem>>;

fn read_those(
    dir: &Path,
    vars: &dyn Vars,
    is_wanted: impl Fn(&Folder) -> bool,
) -> Result<MigrationSet, SourceError> {
    let read = |folder: &Folder| match is_wanted(folder) {
        true => folder::read_with(folder, vars).map(Some),
        false => Ok(None),
    };
    let (migrations, mut problems) = each(dir, read)?;
    let migrations = migrations.into_iter().flatten().collect();
    match MigrationSet::new(migrations) {
        Ok(set) if problems.is_empty() => return Ok(set),
        Ok(_) => {}
        Err(problem) => problems.push(problem),
    }
    Err(SourceError::Problems(problems))
}

/// The migration folders in `dir` as they are on disk, in the order of their versions.
///
/// # Errors
/// As [`read`].
pub fn folders(dir: &Path) -> Result<Vec<Folder>, SourceError> {
    let (folders, problems) = each(dir, |folder| Ok(folder.clone()))?;
    if problems.is_empty() { Ok(folders) } else { Err(SourceError::Problems(problems)) }
}

/// Reads every migration of a folder, and keeps the texts it was read from.
///
/// # Errors
/// As [`read`].
#[cfg(feature = "cli")]
pub fn inputs(dir: &Path, vars: &dyn Vars) -> Result<Vec<Input>, SourceError> {
    let (inputs, mut problems) = each(dir, |folder| Input::read(folder, vars))?;
    let migrations = inputs.iter().map(|input| input.migration.clone()).collect();
    problems.extend(MigrationSet::new(migrations).err());
    if problems.is_empty() { Ok(inputs) } else { Err(SourceError::Problems(problems)) }
}

/// What is made of each folder, in the order of their versions, and the problems of
/// all.
fn each<T>(
    dir: &Path,
    make: impl Fn(&Folder) -> Result<T, Vec<Problem>>,
) -> Result<(Vec<T>, Vec<Problem>), SourceError> {
    let mut names = names(dir)?;
    names.sort_by_cached_key(|name| {
        (folder::parse_name(name).ok().map(|(version, _)| version), name.clone())
    });
    let mut made = Vec::new();
    let mut problems = Vec::new();
    for name in names {
        match load(dir, name)?.and_then(|folder| make(&folder)) {
            Ok(one) => made.push(one),
            Err(found) => problems.extend(found),
        }
    }
    Ok((made, problems))
}

/// The names of the folders in `dir`.
fn names(dir: &Path) -> Result<Vec<String>, SourceError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(SourceError::Missing { dir: dir.to_owned() });
        }
        Err(error) => return Err(io_error(dir, error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| io_error(dir, error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !is_hidden(&name) && kind(&entry)? == Kind::Folder {
            names.push(name);
        }
    }
    Ok(names)
}

/// Reads one folder. One that no migration can be called by is not looked into:
/// it may be anything, and its name is what has to be said about it.
fn load(dir: &Path, name: String) -> Result<Result<Folder, Vec<Problem>>, SourceError> {
    let mut load = Load { folder: Folder { name, ..Folder::default() }, problems: Vec::new() };
    if folder::parse_name(&load.folder.name).is_ok() {
        let path = dir.join(&load.folder.name);
        load.entries(&path, "", 0)?;
    }
    Ok(if load.problems.is_empty() { Ok(load.folder) } else { Err(load.problems) })
}

/// A folder while it is read.
struct Load {
    folder: Folder,
    problems: Vec<Problem>,
}

impl Load {
    /// Reads what is in `path`, which is `prefix` inside the migration folder.
    fn entries(&mut self, path: &Path, prefix: &str, depth: usize) -> Result<(), SourceError> {
        for entry in fs::read_dir(path).map_err(|error| io_error(path, error))? {
            let entry = entry.map_err(|error| io_error(path, error))?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if is_ignored(&name) {
                continue;
            }
            match kind(&entry)? {
                Kind::File if self.folder.files.len() >= FOLDER_FILES_MAX => {
                    let message = format!("the folder has more than {FOLDER_FILES_MAX} files");
                    let problem = Problem::whole(&self.folder.name, message);
                    self.problems =
                        vec![problem.hint("move what is no part of the migration elsewhere")];
                    return Ok(());
                }
                Kind::File => self.file(&entry.path(), name)?,
                Kind::Folder if depth >= FOLDER_DEPTH_MAX => {
                    let message =
                        "the folders in this folder are too deep, or go round in a circle";
                    let hint = "move what is no part of the migration elsewhere";
                    self.problem(&name, message, hint);
                }
                Kind::Folder => self.entries(&entry.path(), &format!("{name}/"), depth + 1)?,
                Kind::Other => self.problem(&name, "this is no regular file", "delete it"),
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, name: String) -> Result<(), SourceError> {
        // Room at the start, or `read_to_end` asks the system for a few bytes at a
        // time: of a thousand small files that is most of the time.
        let mut bytes = Vec::with_capacity(FILE_BYTES_USUAL);
        fs::File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
            .map_err(|error| io_error(path, error))?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            let message = format!("the file has more than {} MiB", FILE_BYTES_MAX / 1024 / 1024);
            self.problem(
                &name,
                &message,
                "load data with a program of a `[[run]]`, or make several migrations of it",
            );
        } else {
            bytes.shrink_to_fit();
            self.folder.files.insert(name, bytes);
        }
        Ok(())
    }

    fn problem(&mut self, file: &str, message: &str, hint: &str) {
        let path = format!("{}/{file}", self.folder.name);
        self.problems.push(Problem::whole(path, message).hint(hint));
    }
}

/// What something in a folder is, behind its symlinks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    File,
    Folder,
    /// A pipe, a socket, a device: reading it could wait for ever.
    Other,
}

fn kind(entry: &fs::DirEntry) -> Result<Kind, SourceError> {
    let error = |error| io_error(&entry.path(), error);
    let mut kind = entry.file_type().map_err(error)?;
    if kind.is_symlink() {
        // A link to nothing is an error, not a file that is not there: what it
        // stood for may be half of a migration.
        kind = fs::metadata(entry.path()).map_err(error)?.file_type();
    }
    Ok(match (kind.is_dir(), kind.is_file()) {
        (true, _) => Kind::Folder,
        (_, true) => Kind::File,
        _ => Kind::Other,
    })
}

fn io_error(path: &Path, source: io::Error) -> SourceError {
    SourceError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use std::os::unix::fs::symlink;

    /// A folder of files; those whose names end with `/` are folders.
    fn project(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in files {
            let path = dir.path().join(name);
            if name.ends_with('/') {
                fs::create_dir_all(path).expect("a folder");
            } else {
                fs::create_dir_all(path.parent().expect("it is in a folder")).expect("its folder");
                fs::write(path, text).expect("a file");
            }
        }
        dir
    }

    fn check(dir: &Path, expected: &Expect) {
        let actual = match read(dir) {
            Ok(set) => {
                set.iter().map(|migration| migration.folder.as_str()).collect::<Vec<_>>().join(" ")
            }
            Err(SourceError::Io { path, source }) => {
                let error = SourceError::Io { path, source };
                format!("{error}: {}", std::error::Error::source(&error).expect("it has one"))
            }
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&actual.replace(&dir.display().to_string(), "DIR"));
    }

    #[test]
    fn migrations_are_read_in_the_order_of_their_versions() {
        let dir = project(&[
            ("10-b/up.sql", ""),
            ("9-a/up.sql", ""),
            ("9-a/README.md", ""),
            ("README.md", ""),
            (".git/up.sql", ""),
        ]);
        check(dir.path(), &expect!["9-a 10-b"]);
    }

    #[test]
    fn a_project_without_migrations_is_an_empty_set() {
        check(project(&[]).path(), &expect![""]);
    }

    #[test]
    fn a_missing_folder_says_what_to_do() {
        let dir = project(&[("file", "")]);
        check(
            &dir.path().join("migrations"),
            &expect![
                "there is no migrations folder `DIR`; `migrate init` makes one, `--dir` names another"
            ],
        );
        check(
            &dir.path().join("file"),
            &expect!["cannot read `DIR`: Not a directory (os error 20)"],
        );
    }

    #[test]
    fn problems_of_all_folders_are_told_in_order() {
        let dir = project(&[
            ("x/up.sql", ""),
            ("10-b/donw.sql", ""),
            ("9-a/", ""),
            ("9-a/.gitkeep", ""),
            ("2-c/up.sql", ""),
            ("002-d/up.sql", ""),
        ]);
        check(
            dir.path(),
            &expect![[r#"
                x: the folder's name does not begin with a version; a migration folder is called `<version>-<name>`, for example `001-x`
                9-a: the migration folder is empty; add an `up.sql` or `up.mongodb.js`, or delete the folder
                10-b/donw.sql: no file of a migration has this name; did you mean `down.sql`?
                2-c: version 002 is also the version of 002-d; give one of the two folders another number"#]],
        );
    }

    #[test]
    fn symlinks_are_followed() {
        let dir = project(&[("migrations/", ""), ("shared/up.sql", ""), ("down.sql", "")]);
        let migrations = dir.path().join("migrations");
        symlink(dir.path().join("shared"), migrations.join("1-a")).expect("a link");
        symlink(dir.path().join("down.sql"), dir.path().join("shared/down.sql")).expect("a link");
        check(&migrations, &expect!["1-a"]);
        let set = read(&migrations).expect("it is right");
        assert_eq!(set.iter().next().map(|first| first.rollback.scripts.len()), Some(1));
    }

    #[test]
    fn a_symlink_that_leads_nowhere_is_an_error_that_names_it() {
        let dir = project(&[("1-a/", "")]);
        symlink("nowhere", dir.path().join("1-a/up.sql")).expect("a link");
        check(
            dir.path(),
            &expect!["cannot read `DIR/1-a/up.sql`: No such file or directory (os error 2)"],
        );
    }

    #[test]
    fn a_symlink_that_goes_in_a_circle_ends() {
        let dir = project(&[("1-a/up.sql", "")]);
        symlink(dir.path().join("1-a"), dir.path().join("1-a/again")).expect("a link");
        check(
            dir.path(),
            &expect![
                "1-a/again/again/again/again/again/again/again/again/again: the folders in this folder are too deep, or go round in a circle; move what is no part of the migration elsewhere"
            ],
        );
    }

    #[test]
    fn a_file_that_is_too_large_is_named() {
        let dir = project(&[("1-a/up.sql", "")]);
        let file = fs::File::create(dir.path().join("1-a/up.sql")).expect("a file");
        file.set_len(FILE_BYTES_MAX + 1).expect("it is sparse");
        check(
            dir.path(),
            &expect![
                "1-a/up.sql: the file has more than 32 MiB; load data with a program of a `[[run]]`, or make several migrations of it"
            ],
        );
    }

    #[test]
    fn what_is_no_regular_file_is_never_opened() {
        let dir = project(&[("1-a/", "")]);
        symlink("/dev/zero", dir.path().join("1-a/up.sql")).expect("a link");
        check(dir.path(), &expect!["1-a/up.sql: this is no regular file; delete it"]);
    }

    #[test]
    fn a_folder_of_too_many_files_is_refused() {
        let dir = project(&[("1-a/up.sql", ""), ("1-a/node_modules/", "")]);
        for index in 0..FOLDER_FILES_MAX {
            let path = dir.path().join(format!("1-a/node_modules/{index}.js"));
            fs::write(path, "").expect("a file");
        }
        check(
            dir.path(),
            &expect![
                "1-a: the folder has more than 1000 files; move what is no part of the migration elsewhere"
            ],
        );
    }

    #[test]
    fn a_folder_that_no_migration_can_be_is_not_looked_into() {
        let dir = project(&[("node_modules/", "")]);
        symlink("/dev/zero", dir.path().join("node_modules/up.sql")).expect("a link");
        check(
            dir.path(),
            &expect![
                "node_modules: the folder's name does not begin with a version; a migration folder is called `<version>-<name>`, for example `001-node-modules`"
            ],
        );
    }
}
