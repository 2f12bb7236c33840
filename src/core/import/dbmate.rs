//! dbmate: `20260101000000_create_users.sql` with `-- migrate:up` and `-- migrate:down`,
//! each perhaps with `transaction:false`.
//!
//! Its history is a table of versions.

use super::draft::{Draft, Script};
use super::{Found, digits};
use crate::core::problem::Problem;
use std::collections::BTreeMap;

pub(super) fn file(path: &str, content: &str, found: &mut Found) {
    let (version, rest) = digits(path);
    let name = rest.strip_suffix(".sql");
    let (Some(name), false) = (name, version.is_empty()) else {
        found.note(path, "is not called like a migration of dbmate, and was passed over");
        return;
    };
    let mut draft = Draft {
        key: version.to_owned(),
        version: version.to_owned(),
        name: name.trim_start_matches(['_', '-']).to_owned(),
        separator: '_',
        file: path.to_owned(),
        scripts: BTreeMap::new(),
        no_transaction: false,
    };
    // What stands before the first mark may be comments, and nothing else.
    let mut section: Option<&'static str> = None;
    let mut sections: BTreeMap<&'static str, Vec<(u32, String)>> = BTreeMap::new();
    for (number, line) in (1..).zip(content.split('\n')) {
        if let Some((which, options)) = mark(line) {
            if sections.contains_key(which) {
                found.problems.push(at(
                    path,
                    number,
                    line,
                    "the second mark of its kind",
                    "keep one `-- migrate:up` and one `-- migrate:down`",
                ));
            }
            draft.no_transaction |= options.iter().any(|option| option == "transaction:false");
            sections.entry(which).or_default();
            section = Some(which);
            continue;
        }
        match section {
            Some(which) => {
                if let Some(lines) = sections.get_mut(which) {
                    lines.push((number, line.to_owned()));
                }
            }
            None if line.trim().is_empty() || line.trim_start().starts_with("--") => {}
            None => {
                let hint = "dbmate refuses it too: put `-- migrate:up` above it";
                found.problems.push(at(
                    path,
                    number,
                    line,
                    "a statement before `-- migrate:up`",
                    hint,
                ));
                break;
            }
        }
    }
    let Some(up) = sections.remove("up.sql") else {
        if section.is_some() || found.problems.iter().all(|problem| problem.file != path) {
            found.problem(
                path,
                "the file has no `-- migrate:up`",
                "dbmate refuses it too: add it, or remove the file",
            );
        }
        return;
    };
    draft.scripts.insert("up.sql", Script::part(path, &up));
    if let Some(down) = sections.remove("down.sql")
        && down.iter().any(|(_, line)| !line.trim().is_empty())
    {
        draft.scripts.insert("down.sql", Script::part(path, &down));
    }
    found.drafts.push(draft);
}

/// `-- migrate:up transaction:false`: for which script it is, and its options.
fn mark(line: &str) -> Option<(&'static str, Vec<String>)> {
    let rest = line.strip_prefix("--")?.trim_start();
    let (script, rest) = match (rest.strip_prefix("migrate:up"), rest.strip_prefix("migrate:down"))
    {
        (Some(rest), _) => ("up.sql", rest),
        (_, Some(rest)) => ("down.sql", rest),
        _ => return None,
    };
    let is_whole = rest.is_empty() || rest.starts_with(char::is_whitespace);
    is_whole.then(|| (script, rest.split_whitespace().map(str::to_owned).collect()))
}

/// A problem with a line of a file.
pub(super) fn at(path: &str, line: u32, text: &str, message: &str, hint: &str) -> Problem {
    let mut problem = Problem::at(text, 0..text.len(), message).hint(hint).file(path);
    if let Some(place) = &mut problem.at {
        place.line = line;
    }
    problem
}
