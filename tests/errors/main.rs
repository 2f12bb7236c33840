//! Every error has a name, a page in docs/errors, a row in the tables of the
//! documentation, and a test in which the program ends with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use lockstep::cli::failure::codes::{ErrorCode, codes};
use lockstep::cli::failure::pages::{exits, pages};
use regex::Regex;

/// In the sources of the command line and in capitals, and no error.
const NO_ERRORS: [&str; 11] = [
    "CARGO_PKG_VERSION",
    "DATABASE_URL",
    "HEAD",
    "LOCKSTEP_FAILPOINT",
    "LOCKSTEP_LEASE_MS",
    "LOGNAME",
    "MIGRATE_CONTROL_TOKEN",
    "MIGRATE_ENV",
    "MONGODB_URI",
    "SHELL",
    "USER",
];

/// Which of the sources name environment variables and placeholders, not errors.
const NAME_OTHERS: [&str; 3] = ["src/cli/args.rs", "src/cli/commands/man.rs", "src/cli/config/"];

/// Errors in which no test ends, each with why.
const UNPROVOKED: [(&str, &str); 1] =
    [("SIGNALS", "a system that lets a process run, and not listen for SIGINT, cannot be had")];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The files below a folder, as paths from the root.
fn below(folder: &str) -> Vec<String> {
    let mut folders = vec![root().join(folder)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        let entries: Vec<PathBuf> =
            folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
        for path in entries {
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    files.push(path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
    }
    files.sort();
    files
}

fn names() -> BTreeSet<String> {
    codes().map(|code| code.name.to_owned()).collect()
}

/// The texts in capitals of a source, but for those of its own tests.
fn shouted(text: &str) -> BTreeSet<String> {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    let shouted = Regex::new(r#""([A-Z][A-Z_]{2,})""#).unwrap();
    shouted.captures_iter(text).map(|found| found[1].to_owned()).collect()
}

#[test]
fn every_error_of_the_sources_is_listed_and_no_other() {
    let mut found = BTreeSet::new();
    let others = ["src/core/verify.rs", "src/failure.rs", "src/migrator.rs"].map(str::to_owned);
    let files = below("src/cli").into_iter().chain(below("src/migrator")).chain(others);
    for file in files.filter(|file| !NAME_OTHERS.iter().any(|other| file.starts_with(other))) {
        found.extend(shouted(&read(&file)));
    }
    found.retain(|name| !NO_ERRORS.contains(&name.as_str()));
    assert_eq!(found, names(), "they stand in src/failure/codes.rs");
    assert_eq!(codes().count(), names().len(), "none stands there twice");
}

#[test]
fn the_pages_are_those_of_the_errors() {
    let folder = root().join("docs/errors");
    let pages = pages();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in &pages {
            fs::write(folder.join(name), text).unwrap();
        }
    }
    let there: BTreeSet<String> = below("docs/errors").into_iter().collect();
    let names: BTreeSet<String> =
        pages.iter().map(|(name, _)| format!("docs/errors/{name}")).collect();
    assert_eq!(there, names, "UPDATE_EXPECT=1 writes them");
    for (name, text) in pages {
        let path = format!("docs/errors/{name}");
        assert!(read(&path) == text, "{path} is not what codes.rs says; UPDATE_EXPECT=1 writes it");
    }
}

#[test]
fn every_page_says_why_and_what_to_do() {
    for code in codes() {
        let texts = [code.causes, code.remedies].concat();
        assert!(!code.causes.is_empty() && !code.remedies.is_empty(), "{}", code.name);
        for text in texts.iter().chain([&code.what]) {
            assert!(text.ends_with('.'), "{}: {text}", code.name);
        }
    }
}

/// The rows of a document's table of errors, as `name | exit`.
fn table(document: &str, heading: &str) -> Vec<(String, String)> {
    let text = read(document);
    let (_, text) = text.split_once(heading).unwrap_or_else(|| panic!("{document}: {heading}"));
    let text = text.split("\n## ").next().unwrap_or_default();
    let row = Regex::new(r"(?m)^\| `([A-Z_]+)` \| ([^|]*) \|").unwrap();
    row.captures_iter(text).map(|row| (row[1].to_owned(), row[2].to_owned())).collect()
}

#[test]
fn the_documentation_has_each_once_with_its_exit_code() {
    let (config, others): (Vec<&ErrorCode>, Vec<&ErrorCode>) =
        codes().partition(|code| code.name.starts_with("CONFIG_"));

    let rows = table("docs/cli.md", "\n## Error codes\n");
    let listed: BTreeMap<_, _> = rows.iter().cloned().collect();
    let expected: BTreeMap<_, _> =
        others.iter().map(|code| (code.name.to_owned(), exits(code))).collect();
    assert_eq!(listed, expected);
    assert_eq!(rows.len(), listed.len(), "one stands there twice: {rows:#?}");

    let rows: Vec<String> =
        table("docs/config.md", "\n## Errors\n").into_iter().map(|row| row.0).collect();
    let listed: BTreeSet<_> = rows.iter().cloned().collect();
    let expected = config.iter().map(|code| code.name.to_owned()).collect();
    assert_eq!(listed, expected);
    assert_eq!(rows.len(), listed.len(), "one stands there twice: {rows:#?}");
    assert!(config.iter().all(|code| exits(code) == "2"), "config.md says so of all of them");
}

/// Tests that run the program; `"NAME"` in one of them, or in the JSON of a
/// transcript, is what it must end with.
const RUN_IT: [&str; 6] =
    ["tests/cases", "tests/embedded", "tests/faults", "tests/lint", "tests/sandbox", "tests/serve"];

#[test]
fn every_error_is_provoked_by_a_test() {
    let mut provoked = BTreeSet::new();
    for file in RUN_IT.iter().flat_map(|folder| below(folder)) {
        let is_test = Path::new(&file).extension().is_some_and(|it| it == "rs" || it == "txt");
        if is_test {
            provoked.extend(shouted(&read(&file)));
        }
    }
    let not: BTreeSet<String> = names().difference(&provoked).cloned().collect();
    let expected = UNPROVOKED.iter().map(|(name, why)| {
        assert!(!why.is_empty());
        (*name).to_owned()
    });
    assert_eq!(not, expected.collect(), "tests/cases/errors.rs is the place for such a test");
}
