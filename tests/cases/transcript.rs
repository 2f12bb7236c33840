//! Transcripts: what is typed, and what is read.
//!
//! `tests/cases/<name>/case.txt`, with `migrations/` and, where there is
//! something before the first migration, `before.sql` and `before.mongodb.json`
//! (an array of database commands) beside it; `theirs/` is another tool's folder:
//!
//! ```text
//! # A comment: what this shows.
//! $ migrate up
//! results, on stdout
//! ! progress and errors, on stderr
//! ? 1
//! ```
//!
//! `? N` is the exit code when it is not 0. Besides `migrate` there are:
//!
//! - `$ psql SELECT …`: a line for each row.
//! - `$ mongo <collection>`: a line for each document.
//! - `$ objects`: every object of both databases that is not ours.
//! - `$ ours`: the tables and collections of the history that are there.
//! - `$ history`: a line for each row of `migration_history`, once both stores
//!   were found to have the same, field by field.
//! - `$ edit migrations/001-a/up.sql <<EOF`, and lines until `EOF`; `$ rm PATH`;
//!   `$ mv PATH PATH`.
//!
//! A line that ends with `\` goes on in the next. What is different each time is
//! written as `[TIME]`, `[RUN]` and so on, see [`redact`].

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use bson::Document;
use regex::Regex;
use serde_json::Value;

use crate::databases::line;
use crate::project::{Project, remove, write};

/// Runs a case, and compares.
#[track_caller]
pub fn check(name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(name);
    let file = folder.join("case.txt");
    let expected = fs::read_to_string(&file).unwrap();
    let project = Project::new(name, &[]);
    copy(&folder.join("migrations"), &project.path("migrations"));
    if folder.join("theirs").exists() {
        copy(&folder.join("theirs"), &project.path("theirs"));
    }
    before(&folder, &project);

    let mut actual = String::new();
    for part in parts(&expected) {
        actual.push_str(part.lead);
        if let Some(typed) = part.typed {
            let _ = writeln!(actual, "$ {typed}");
            actual.push_str(&redact(&project, &answer(&project, typed)));
            actual.push_str(part.gap);
        }
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&file, actual).unwrap();
    } else {
        assert_eq!(expected, actual, "{}\n{}", file.display(), difference(&expected, &actual));
    }
}

/// The first lines that differ.
fn difference(expected: &str, actual: &str) -> String {
    let (mut expected, mut actual) = (expected.lines(), actual.lines());
    let mut at = 0;
    loop {
        at += 1;
        match (expected.next(), actual.next()) {
            (None, None) => return "only the ends of lines differ".to_owned(),
            (a, b) if a == b => {}
            (a, b) => {
                let (a, b) = (a.unwrap_or("(the end)"), b.unwrap_or("(the end)"));
                return format!("line {at}\n- {a}\n+ {b}\n(UPDATE_EXPECT=1 writes what happened)");
            }
        }
    }
}

/// A command of a transcript, with what stands around it.
struct Part<'a> {
    /// Comments and empty lines before it.
    lead: &'a str,
    /// What follows `$ `, further lines of it included.
    typed: Option<&'a str>,
    /// The empty lines after its output.
    gap: &'a str,
}

fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let lead = take(&mut rest, |line| !line.starts_with("$ "));
        if rest.is_empty() {
            parts.push(Part { lead, typed: None, gap: "" });
            break;
        }
        rest = &rest[2..];
        let mut more = true;
        let mut end = None;
        let typed = take(&mut rest, |line| {
            let inside = more;
            if let Some(end) = end {
                more = line != end;
            } else {
                end = line.split_once("<<").map(|(_, end)| end);
                more = end.is_some() || line.ends_with('\\');
            }
            inside
        });
        let output = take(&mut rest, |line| !line.starts_with("$ ") && !line.starts_with("# "));
        let gap = &output[output.trim_end_matches('\n').len()..];
        // The first of them ends the last line of the output, if there was any.
        let gap =
            if output.trim_end_matches('\n').is_empty() { gap } else { gap.get(1..).unwrap_or("") };
        parts.push(Part { lead, typed: Some(typed.trim_end_matches('\n')), gap });
    }
    parts
}

/// Takes whole lines from the front.
fn take<'a>(rest: &mut &'a str, mut wanted: impl FnMut(&'a str) -> bool) -> &'a str {
    let mut length = 0;
    for line in rest.split_inclusive('\n') {
        if !wanted(line.strip_suffix('\n').unwrap_or(line)) {
            break;
        }
        length += line.len();
    }
    let (taken, left) = rest.split_at(length);
    *rest = left;
    taken
}

/// Does what was typed, and returns what is read then.
fn answer(project: &Project, typed: &str) -> String {
    let (first, lines) = typed.split_once('\n').unwrap_or((typed, ""));
    let (command, rest) = first.split_once(' ').unwrap_or((first, ""));
    match command {
        "migrate" => {
            let arguments: Vec<&str> = rest.split_whitespace().collect();
            migrate(project, &arguments)
        }
        "psql" => {
            let sql = format!("{rest}\n{lines}").replace("\\\n", "\n");
            match project.database.try_sql(&sql) {
                Ok(rows) => rows.iter().fold(String::new(), |text, row| text + row + "\n"),
                Err(error) => format!("! {error}\n"),
            }
        }
        "mongo" => {
            let documents = project.database.documents(rest).into_iter();
            documents.fold(String::new(), |text, document| text + &line(&document) + "\n")
        }
        "objects" => project.database.objects(),
        "ours" => {
            project.database.ours().iter().fold(String::new(), |text, name| text + name + "\n")
        }
        "history" => history(project),
        "edit" => {
            let (path, end) = rest.split_once(" <<").expect("edit PATH <<EOF");
            let text = lines.strip_suffix(end).expect("the lines end with what `<<` names");
            write(&project.path(path), text);
            String::new()
        }
        "rm" => {
            remove(&project.path(rest));
            String::new()
        }
        "mv" => {
            let (from, to) = rest.split_once(' ').expect("mv PATH PATH");
            fs::rename(project.path(from), project.path(to)).unwrap();
            String::new()
        }
        other => panic!("a transcript has no command `{other}`"),
    }
}

fn migrate(project: &Project, arguments: &[&str]) -> String {
    let ran = project.migrate(arguments);
    let mut text = ran.stdout;
    for line in ran.stderr.lines() {
        let _ = writeln!(text, "{}", format!("! {line}").trim_end());
    }
    if ran.code != 0 {
        let _ = writeln!(text, "? {}", ran.code);
    }
    assert_eq!(project.database.holders(), Vec::<String>::new(), "the lease was given back");
    text
}

fn history(project: &Project) -> String {
    let rows = project.database.history();
    let field = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    rows.iter().fold(String::new(), |mut text, row| {
        let named = ["rank", "migration_name", "status", "release"];
        let fields = named.map(|name| field(&row[name]));
        let _ = writeln!(text, "{}", fields.join(" | "));
        text
    })
}

/// What is different each time, so that the rest can be compared.
fn redact(project: &Project, text: &str) -> String {
    static REDACTIONS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        let regex = |pattern: &str| Regex::new(pattern).expect("a valid pattern");
        let number = r"\d+(\.\d+)?";
        vec![
            (regex(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "[RUN]"),
            (regex(r"\brun [0-9a-f]{8}\b"), "run [RUN]"),
            (regex(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?"), "[AT]"),
            (regex(&format!(r" *  {number} (ms|s)(\n|$)")), "  [TIME]$3"),
            (regex(&format!(r"\b{number} (ms|s)\b")), "[TIME]"),
            (regex(r#""(ms|execution_time_ms)":\d+"#), r#""$1":[MS]"#),
            (regex(r"about [\d,]+ (rows|documents)"), "about [ROWS] $1"),
            // How large a table is depends on whether it was analyzed meanwhile.
            (
                regex(
                    r", (≈[\d,.]+( [kM])? rows?(, \d+(\.\d)? (bytes|kB|MB))?|\d+(\.\d)? (bytes|kB|MB))",
                ),
                ", [SIZE]",
            ),
            (regex(r"≈[\d,]+ documents, \d+ (bytes|kB)"), "[SIZE]"),
            // On a busy machine anything may take so long that it says so.
            (regex(r"(?m)^!  +\S+ +at work for .*\n"), ""),
            (regex(r"(?m)^!   [\w/ -]+  \d+ %  .*\n"), ""),
            (regex(r"tester@[\w.-]+"), "[WHO]"),
            (regex(r"Postgres \d+\.\d+"), "Postgres [VERSION]"),
            (regex(r"MongoDB \d+\.\d+\.\d+"), "MongoDB [VERSION]"),
            (regex(r#""version":"[^"]+""#), r#""version":"[VERSION]""#),
            (regex(r"(127\.0\.0\.1|localhost):\d+"), "[HOST]"),
        ]
    });
    let text = text
        .replace(&project.path("").display().to_string(), "[DIR]/")
        .replace(&project.database.name, "[DATABASE]");
    REDACTIONS.iter().fold(text, |text, (regex, with)| regex.replace_all(&text, *with).into_owned())
}

fn copy(from: &Path, to: &Path) {
    let Ok(entries) = fs::read_dir(from) else { return };
    fs::create_dir_all(to).unwrap();
    for entry in entries.map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn before(folder: &Path, project: &Project) {
    if let Ok(sql) = fs::read_to_string(folder.join("before.sql")) {
        project.database.sql(&sql);
    }
    if let Ok(text) = fs::read_to_string(folder.join("before.mongodb.json")) {
        // Into documents at once: the order of a command's keys matters.
        let commands: Vec<Document> = serde_json::from_str(&text).expect("extended JSON");
        for command in commands {
            project.database.run(command);
        }
    }
}
