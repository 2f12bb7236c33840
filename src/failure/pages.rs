//! docs/errors: an index, and a page for each error.

use super::codes::{ErrorCode, codes};
use std::fmt::Write as _;

/// The files of docs/errors by their names, each with its text.
pub fn pages() -> Vec<(String, String)> {
    let mut pages = vec![("README.md".to_owned(), index())];
    pages.extend(codes().map(|code| (format!("{}.md", code.name), page(code))));
    pages
}

fn index() -> String {
    let mut text = String::from(
        "# Errors\n\n\
         Each error has a name that stays; messages may change. `--output json` has it as `code`. \
         Each has a page: what happened, why, and what to do.\n\n\
         Whatever it is: nothing is dirty, and the same command may be run again. `migrate status` says where things stand.\n\n\
         | error | exit | what happened |\n|---|---|---|\n",
    );
    for code in codes() {
        let ErrorCode { name, what, .. } = code;
        let _ = writeln!(text, "| [{name}]({name}.md) | {} | {what} |", exits(code));
    }
    text
}

/// `130, 143`, as the tables of the documentation have it.
pub fn exits(code: &ErrorCode) -> String {
    let exits: Vec<String> = code.exits.iter().map(|exit| exit.code().to_string()).collect();
    exits.join(", ")
}

fn page(code: &ErrorCode) -> String {
    let ErrorCode { name, what, causes, remedies, example, .. } = code;
    let mut text = format!("# {name}\n\n{what}\n\n");
    if !example.is_empty() {
        let _ = write!(text, "```text\n{example}\n```\n\n");
    }
    let _ = writeln!(text, "Exit code {}. [All errors](README.md)", exits(code));
    list(&mut text, "Usual causes", causes);
    list(&mut text, "What to do", remedies);
    text
}

fn list(text: &mut String, title: &str, points: &[&str]) {
    let _ = write!(text, "\n## {title}\n");
    for point in points {
        let _ = writeln!(text, "- {point}");
    }
}
