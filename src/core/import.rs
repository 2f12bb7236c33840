//! Another tool's folder as migrations of ours, and its history as a set of them.
//!
//! Pure: files in, folders out; rows in, versions out. Each tool has a file of its own
//! that knows how it names its files, how it marks them, and what its history says.
//! What they make of it goes through the reader of our own folders, so that what is
//! written is what `up` can read, and what cannot be is told with the file and the line
//! in which it stands there.

mod dbmate;
mod draft;
mod flyway;
mod golang_migrate;
mod goose;
mod migrate_mongo;
mod refinery;
mod sqlx;

use crate::core::hex;
use crate::core::id::{StoreName, Version};
use crate::core::migration::{Migration, MigrationSet};
use crate::core::parse::folder::{self, Folder};
use crate::core::problem::Problem;
use draft::Draft;
use serde_json::Value;
use sha2::{Digest as _, Sha256, Sha384};
use std::collections::{BTreeMap, BTreeSet};

/// A tool whose folder and history can be adopted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tool {
    /// `000001_x.up.sql`, or `.up.json` for MongoDB.
    GolangMigrate,
    /// `V1_2__x.sql`.
    Flyway,
    /// `20260101000000_x.sql` with `-- migrate:up`.
    Dbmate,
    /// `20260101000000_x.up.sql`, or `.sql`.
    Sqlx,
    /// `V1__x.sql`.
    Refinery,
    /// `00001_x.sql` with `-- +goose Up`.
    Goose,
    /// `20260101000000-x.js`.
    MigrateMongo,
}

impl Tool {
    /// Its name on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Tool::GolangMigrate => "golang-migrate",
            Tool::Flyway => "flyway",
            Tool::Dbmate => "dbmate",
            Tool::Sqlx => "sqlx",
            Tool::Refinery => "refinery",
            Tool::Goose => "goose",
            Tool::MigrateMongo => "migrate-mongo",
        }
    }

    /// Its history, unless somebody gave it another name.
    pub fn table(self) -> &'static str {
        match self {
            Tool::GolangMigrate | Tool::Dbmate => "schema_migrations",
            Tool::Flyway => "flyway_schema_history",
            Tool::Sqlx => "_sqlx_migrations",
            Tool::Refinery => "refinery_schema_history",
            Tool::Goose => "goose_db_version",
            Tool::MigrateMongo => "changelog",
        }
    }

    /// Whether it reads the folders below its folder.
    pub fn is_recursive(self) -> bool {
        self == Tool::Flyway
    }
}

/// A file of the other tool.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Foreign {
    /// Relative to its folder, with `/` between the parts.
    pub path: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// How it is read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Wishes {
    /// A `BEGIN` that begins a script and the `COMMIT` that ends it are taken out.
    pub strip_transactions: bool,
}

/// One migration, as it is written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Adopted {
    /// Our folder.
    pub folder: Folder,
    /// Its version.
    pub version: Version,
    /// What the tool's history calls it.
    pub key: String,
    /// The stores that it has a part for.
    pub stores: BTreeSet<StoreName>,
}

/// Something that a person has to look at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Note {
    /// The tool's file.
    pub file: String,
    /// The line, if it is about one.
    pub line: Option<u32>,
    /// The migration that lacks it, if one does.
    pub version: Option<Version>,
    /// What it is.
    pub what: String,
}

/// `x.js:12: what`
impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.what),
            None => write!(f, "{}: {}", self.file, self.what),
        }
    }
}

/// All of a folder.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Import {
    /// By version.
    pub migrations: Vec<Adopted>,
    /// What is left for a person, in the order of the files.
    pub notes: Vec<Note>,
    /// Versions that could not be kept, as the tool has them and as they are now.
    pub renumbered: Vec<(String, Version)>,
}

impl Import {
    /// Gives the migrations numbers behind the newest of those that are there, in their
    /// order. One that is there already, by its name and all that it says, has its number.
    pub fn renumber(&mut self, there: &MigrationSet) {
        let newest = there.iter().last();
        let digits =
            newest.map_or(3, |it| it.folder.bytes().take_while(u8::is_ascii_digit).count());
        let mut next = newest.map_or(0, |it| it.version.0);
        let mut moved: BTreeMap<Version, Version> = BTreeMap::new();
        for adopted in &mut self.migrations {
            let Ok(read) = folder::read(&adopted.folder) else { continue };
            let same = |it: &&Migration| it.name == read.name && it.checksum == read.checksum;
            let (version, name) = match there.iter().find(same) {
                Some(there) => (there.version, there.folder.clone()),
                None => {
                    next += 1;
                    let rest = adopted.folder.name.trim_start_matches(|c: char| c.is_ascii_digit());
                    (Version(next), format!("{next:0>digits$}{rest}"))
                }
            };
            moved.insert(adopted.version, version);
            if adopted.version != version {
                self.renumbered.retain(|(key, _)| *key != adopted.key);
                self.renumbered.push((adopted.key.clone(), version));
            }
            adopted.version = version;
            adopted.folder.name = name;
        }
        for note in &mut self.notes {
            note.version =
                note.version.map(|version| moved.get(&version).copied().unwrap_or(version));
        }
    }

    /// Whether any migration has a part for this store.
    pub fn has(&self, store: StoreName) -> bool {
        self.migrations.iter().any(|migration| migration.stores.contains(&store))
    }
}

/// Reads a folder.
///
/// # Errors
/// Everything in it that cannot be a migration of ours, by the tool's own files and
/// lines.
pub fn read(tool: Tool, files: &[Foreign], wishes: Wishes) -> Result<Import, Vec<Problem>> {
    let mut files: Vec<&Foreign> = files.iter().collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let mut problems = Vec::new();
    let mut texts: Vec<(&str, String)> = Vec::new();
    for file in files {
        match std::str::from_utf8(&file.bytes) {
            Ok(text) => texts.push((&file.path, crate::core::checksum::normalize(text))),
            Err(_) => problems
                .push(Problem::whole(&file.path, "the file is not UTF-8").hint("save it as UTF-8")),
        }
    }
    let mut found = Found::default();
    for (path, text) in &texts {
        match tool {
            Tool::GolangMigrate => golang_migrate::file(path, text, &mut found),
            Tool::Flyway => flyway::file(path, text, &mut found),
            Tool::Dbmate => dbmate::file(path, text, &mut found),
            Tool::Sqlx => sqlx::file(path, text, &mut found),
            Tool::Refinery => refinery::file(path, text, &mut found),
            Tool::Goose => goose::file(path, text, &mut found),
            Tool::MigrateMongo => migrate_mongo::file(path, text, &mut found),
        }
    }
    if tool == Tool::Flyway {
        flyway::number(&mut found);
    }
    problems.append(&mut found.problems);
    draft::finish(found, wishes, problems)
}

/// What was found in the files.
#[derive(Debug, Default)]
struct Found {
    drafts: Vec<Draft>,
    notes: Vec<Note>,
    problems: Vec<Problem>,
}

impl Found {
    fn note(&mut self, file: &str, what: impl Into<String>) {
        let what = what.into();
        self.notes.push(Note { file: file.to_owned(), line: None, version: None, what });
    }

    fn problem(&mut self, file: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(Problem::whole(file, message).hint(hint));
    }

    /// The draft of a migration, which another file may have begun.
    fn draft(&mut self, key: &str, new: impl FnOnce() -> Draft) -> &mut Draft {
        let at = self.drafts.iter().position(|draft| draft.key == key);
        let at = at.unwrap_or_else(|| {
            self.drafts.push(new());
            self.drafts.len() - 1
        });
        &mut self.drafts[at]
    }
}

/// What a tool's history says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Applied {
    /// The migrations that it has applied.
    pub versions: BTreeSet<Version>,
    /// What it has applied, and there is no file of.
    pub unknown: Vec<String>,
}

/// Why a history is not adopted.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// What is wrong with it.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

/// Which migrations a tool has applied, by the rows of its history.
///
/// # Errors
/// The history says that something is half done.
pub fn applied(tool: Tool, rows: &[Value], import: &Import) -> Result<Applied, Refused> {
    match tool {
        Tool::GolangMigrate => golang_migrate::applied(rows, import),
        Tool::Flyway => flyway::applied(rows, import),
        Tool::Dbmate => Ok(by_key(rows.iter().filter_map(|row| text(row, "version")), import)),
        Tool::Sqlx => sqlx::applied(rows, import),
        Tool::Refinery => Ok(by_key(rows.iter().filter_map(|row| text(row, "version")), import)),
        Tool::Goose => Ok(goose::applied(rows, import)),
        Tool::MigrateMongo => {
            Ok(by_key(rows.iter().filter_map(|row| text(row, "fileName")), import))
        }
    }
}

/// The files that are not what the tool has applied, as far as its history has a sum of
/// them: sqlx always, migrate-mongo where it is told to.
pub fn edited(tool: Tool, rows: &[Value], files: &[Foreign]) -> Vec<Note> {
    let sums = |of: &dyn Fn(&Value) -> bool, field: &str| -> Vec<String> {
        rows.iter().filter(|row| of(row)).filter_map(|row| text(row, field)).collect()
    };
    let is_edited = |file: &&Foreign| {
        let path = file.path.as_str();
        let (applied, now) = match tool {
            Tool::Sqlx if !path.ends_with(".down.sql") => {
                let version = Some(plain(digits(path).0));
                let sums = sums(&|row| text(row, "version") == version, "checksum");
                (sums, format!("\\x{}", hex::write(&Sha384::digest(&file.bytes))))
            }
            Tool::MigrateMongo => {
                let sums = sums(&|row| text(row, "fileName").as_deref() == Some(path), "fileHash");
                (sums, hex::write(&Sha256::digest(&file.bytes)))
            }
            _ => return false,
        };
        !applied.is_empty() && !applied.contains(&now)
    };
    let note = |file: &Foreign| Note {
        file: file.path.clone(),
        line: None,
        version: None,
        what: format!(
            "was edited since {} applied it: what is there is what it said then",
            tool.word()
        ),
    };
    files.iter().filter(is_edited).map(note).collect()
}

/// Those of which the history has the key.
fn by_key(keys: impl Iterator<Item = String>, import: &Import) -> Applied {
    let mut applied = Applied::default();
    for key in keys {
        match import.migrations.iter().find(|migration| migration.key == key) {
            Some(migration) => {
                applied.versions.insert(migration.version);
            }
            None => applied.unknown.push(key),
        }
    }
    applied
}

/// A field, whatever type the tool gave it.
fn text(row: &Value, field: &str) -> Option<String> {
    match row.get(field)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn is_true(row: &Value, field: &str) -> bool {
    row.get(field).is_some_and(|value| *value == Value::Bool(true) || *value == 1)
}

/// The digits with which a name begins, and the rest.
fn digits(name: &str) -> (&str, &str) {
    name.split_at(name.len() - name.trim_start_matches(|c: char| c.is_ascii_digit()).len())
}

/// A number as a key: without the zeros in front.
fn plain(digits: &str) -> String {
    match digits.trim_start_matches('0') {
        "" => "0".to_owned(),
        digits => digits.to_owned(),
    }
}

#[cfg(test)]
mod shown {
    use super::*;
    use std::fmt::Write as _;

    /// Files in, folders out: each file after its name, what is left for a person at
    /// the end; or everything that is wrong.
    pub(super) fn show(tool: Tool, files: &[(&str, &str)]) -> String {
        show_with(tool, files, Wishes::default())
    }

    pub(super) fn show_with(tool: Tool, files: &[(&str, &str)], wishes: Wishes) -> String {
        let import = match import(tool, files, wishes) {
            Ok(import) => import,
            Err(problems) => {
                let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
                return lines.join("\n") + "\n";
            }
        };
        let mut all = String::new();
        for migration in &import.migrations {
            for (file, bytes) in &migration.folder.files {
                let text = std::str::from_utf8(bytes).expect("it is text");
                let _ = writeln!(all, "== {}/{file}\n{}", migration.folder.name, text.trim_end());
            }
        }
        for (key, version) in &import.renumbered {
            let _ = writeln!(all, "{key} is {version}");
        }
        for note in &import.notes {
            let _ = writeln!(all, "note {note}");
        }
        all
    }

    /// What a history says of the files.
    pub(super) fn show_history(tool: Tool, files: &[(&str, &str)], rows: &[Value]) -> String {
        let import = import(tool, files, Wishes::default()).expect("the files are right");
        match applied(tool, rows, &import) {
            Ok(Applied { versions, unknown }) => {
                let versions: Vec<String> = versions.iter().map(ToString::to_string).collect();
                let unknown = if unknown.is_empty() {
                    ""
                } else {
                    &format!("; unknown {}", unknown.join(" "))
                };
                format!("applied {}{unknown}", versions.join(" "))
            }
            Err(Refused { message, hint }) => format!("refused: {message}; {hint}"),
        }
    }

    fn import(tool: Tool, files: &[(&str, &str)], wishes: Wishes) -> Result<Import, Vec<Problem>> {
        let foreign = |(path, text): &(&str, &str)| Foreign {
            path: (*path).to_owned(),
            bytes: text.as_bytes().to_vec(),
        };
        let files: Vec<Foreign> = files.iter().map(foreign).collect();
        read(tool, &files, wishes)
    }
}
