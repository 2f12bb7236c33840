//! A migration while it is put together, and where each of its lines comes from.

use super::{Adopted, Found, Import, Wishes};
use crate::core::id::{StoreName, Version};
use crate::core::parse::folder::{self, Folder};
use crate::core::parse::sql;
use crate::core::problem::{Place, Problem};
use std::collections::{BTreeMap, BTreeSet};

/// A migration of the other tool.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    /// What the tool's history calls it.
    pub key: String,
    /// The digits of its version.
    pub version: String,
    /// What it is about, as the tool has it.
    pub name: String,
    /// Between the version and the name, as the tool does it.
    pub separator: char,
    /// The file that it was first met in.
    pub file: String,
    /// Its scripts, by our names.
    pub scripts: BTreeMap<&'static str, Script>,
    /// Each statement runs alone.
    pub no_transaction: bool,
}

/// The lines of a script.
#[derive(Clone, Debug, Default)]
pub(super) struct Script {
    /// The tool's file.
    pub file: String,
    /// Each with its number there.
    pub lines: Vec<(u32, String)>,
}

impl Script {
    /// All of a file.
    pub fn whole(file: &str, text: &str) -> Script {
        let lines = (1..).zip(text.split('\n').map(str::to_owned)).collect();
        Script { file: file.to_owned(), lines }
    }

    /// Some of its lines, without the empty ones around them.
    pub fn part(file: &str, lines: &[(u32, String)]) -> Script {
        let is_blank = |line: &(u32, String)| line.1.trim().is_empty();
        let start = lines.iter().position(|line| !is_blank(line)).unwrap_or(lines.len());
        let end = lines.iter().rposition(|line| !is_blank(line)).map_or(start, |at| at + 1);
        let mut lines: Vec<(u32, String)> = lines[start..end].to_vec();
        // It ends with the end of a line.
        let last = lines.last().map_or(1, |line| line.0);
        lines.push((last, String::new()));
        Script { file: file.to_owned(), lines }
    }

    /// With a statement that does nothing, if it has none: a migration of ours has one,
    /// and this one was meant to do nothing.
    fn or_nothing(mut self) -> Script {
        if sql::read(&self.text()).is_ok_and(|statements| statements.is_empty()) {
            let last = self.lines.last().map_or(1, |line| line.0);
            self.lines.push((last, "SELECT 1;".to_owned()));
            self.lines.push((last, String::new()));
        }
        self
    }

    fn text(&self) -> String {
        let lines: Vec<&str> = self.lines.iter().map(|(_, line)| line.as_str()).collect();
        lines.join("\n")
    }

    /// Takes out the `BEGIN` with which it begins and the `COMMIT` with which it ends,
    /// where each has a line of its own.
    fn strip_transaction(&mut self) {
        let says = |line: &str, words: &[&str]| {
            let line = line.trim().to_ascii_lowercase();
            words.iter().any(|word| line.strip_suffix(';').unwrap_or(&line).trim_end() == *word)
        };
        let is_code = |line: &(u32, String)| {
            let line = line.1.trim();
            !line.is_empty() && !line.starts_with("--")
        };
        let first = self.lines.iter().position(is_code);
        let last = self.lines.iter().rposition(is_code);
        if let (Some(first), Some(last)) = (first, last)
            && first < last
            && says(
                &self.lines[first].1,
                &["begin", "begin transaction", "begin work", "start transaction"],
            )
            && says(&self.lines[last].1, &["commit", "commit transaction", "commit work", "end"])
        {
            self.lines.remove(last);
            self.lines.remove(first);
        }
    }
}

impl Draft {
    /// Adds a script. Two files for one are a problem.
    pub fn script(&mut self, name: &'static str, script: Script) -> Result<(), Problem> {
        if let Some(other) = self.scripts.get(name) {
            let message = format!("{} is of the same version and direction", other.file);
            return Err(Problem::whole(script.file, message).hint("remove one of the two"));
        }
        let script = if name == "up.sql" { script.or_nothing() } else { script };
        self.scripts.insert(name, script);
        Ok(())
    }

    /// Adds both ways of one file that has them in sections; a down of blanks is none.
    /// Without an up, nothing is added, and the answer is no.
    pub fn sections(&mut self, file: &str, sections: &BTreeMap<&str, Vec<(u32, String)>>) -> bool {
        let Some(up) = sections.get("up.sql") else { return false };
        self.scripts.insert("up.sql", Script::part(file, up).or_nothing());
        if let Some(down) = sections.get("down.sql")
            && down.iter().any(|(_, line)| !line.trim().is_empty())
        {
            self.scripts.insert("down.sql", Script::part(file, down));
        }
        true
    }

    fn folder(&self) -> String {
        format!("{}{}{}", self.version, self.separator, slug(&self.name, self.separator))
    }
}

/// What can stand in a folder's name.
fn slug(name: &str, separator: char) -> String {
    let kept: String = name
        .to_lowercase()
        .chars()
        .map(|c| {
            if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-' {
                c
            } else {
                separator
            }
        })
        .collect();
    let words: Vec<&str> = kept.split(separator).filter(|word| !word.is_empty()).collect();
    match words.is_empty() {
        true => "migration".to_owned(),
        false => words.join(&separator.to_string()),
    }
}

/// Drafts as folders, each read as `up` will read it.
pub(super) fn finish(
    found: Found,
    wishes: Wishes,
    mut problems: Vec<Problem>,
) -> Result<Import, Vec<Problem>> {
    let mut migrations: Vec<Adopted> = Vec::new();
    let mut of_version: BTreeMap<Version, String> = BTreeMap::new();
    for mut draft in found.drafts {
        let name = draft.folder();
        if wishes.strip_transactions {
            for (_, script) in
                draft.scripts.iter_mut().filter(|(file, _)| file.strip_suffix(".sql").is_some())
            {
                script.strip_transaction();
            }
        }
        let script = |(file, script): (&&'static str, &Script)| {
            ((*file).to_owned(), script.text().into_bytes())
        };
        let mut files: BTreeMap<String, Vec<u8>> = draft.scripts.iter().map(script).collect();
        if draft.no_transaction {
            files.insert("migration.toml".to_owned(), b"transaction = false\n".to_vec());
        }
        let folder = Folder { name, files };
        let read = match folder::read(&folder) {
            Ok(read) => read,
            Err(found) => {
                problems.extend(found.into_iter().map(|problem| in_origin(problem, &draft)));
                continue;
            }
        };
        if let Some(other) = of_version.insert(read.version, draft.file.clone()) {
            let message = format!("version {} is also the version of {other}", read.version);
            problems.push(
                Problem::whole(&draft.file, message).hint("give one of the two another number"),
            );
            continue;
        }
        let store = |file: &&'static str| match file.strip_suffix(".sql").is_some() {
            true => StoreName::Postgres,
            false => StoreName::Mongo,
        };
        let stores: BTreeSet<StoreName> = draft.scripts.keys().map(store).collect();
        migrations.push(Adopted { folder, version: read.version, key: draft.key, stores });
    }
    migrations.sort_by_key(|migration| migration.version);
    match problems.is_empty() {
        true => {
            // A key that is no number is a file's name.
            let is_version = |key: &str| key.bytes().all(|it| it.is_ascii_digit() || it == b'.');
            let other = migrations
                .iter()
                .filter(|it| is_version(&it.key) && it.key.parse() != Ok(it.version));
            let renumbered = other.map(|it| (it.key.clone(), it.version)).collect();
            Ok(Import { migrations, notes: found.notes, renumbered })
        }
        false => Err(problems),
    }
}

/// The same problem, where it stands in the tool's own file.
fn in_origin(problem: Problem, draft: &Draft) -> Problem {
    let file = problem.file.rsplit('/').next().unwrap_or_default();
    let hint = problem.hint.map(|hint| match problem.message.ends_with("is transaction control") {
        true => format!("{hint}; `--strip-transactions` takes out a BEGIN that begins and a COMMIT that ends a file"),
        false => hint,
    });
    match (draft.scripts.get(file), problem.at) {
        (Some(script), Some(at)) => {
            let line = usize::try_from(at.line).unwrap_or(1).saturating_sub(1);
            let line = script.lines.get(line).map_or(at.line, |(line, _)| *line);
            let at = Some(Place { line, ..at });
            Problem { file: script.file.clone(), at, hint, message: problem.message }
        }
        (Some(script), None) => {
            Problem { file: script.file.clone(), at: None, hint, message: problem.message }
        }
        (None, at) => Problem { file: draft.file.clone(), at, hint, message: problem.message },
    }
}
