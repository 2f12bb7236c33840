//! migrate-mongo: `20260101000000-create-users.js`, a module whose `up` and `down` are
//! programs. Of these, what is a call with literal arguments is written as our mongosh
//! scripts are; the rest is kept as a comment in its place, and left to a person.
//!
//! Its history is a collection of file names.

use super::draft::{Draft, Script};
use super::{Found, Note, digits};
use crate::core::parse::mongosh::{Part, module};
use std::collections::BTreeMap;

pub(super) fn file(path: &str, content: &str, found: &mut Found) {
    let (version, rest) = digits(path);
    let name = [".js", ".mjs", ".cjs"].into_iter().find_map(|ending| rest.strip_suffix(ending));
    let (Some(name), false) = (name, version.is_empty()) else {
        if path.strip_suffix(".ts").is_some() {
            let hint = "compile it to JavaScript, and import that folder";
            found.problem(path, "TypeScript is not read", hint);
        } else if path == "sample-migration.js" || path.strip_suffix(".js").is_none() {
            found
                .note(path, "is not called like a migration of migrate-mongo, and was passed over");
        } else {
            let hint = "its history knows it by its name: number a copy of the folder in the order of its names, or move the file elsewhere";
            found.problem(path, "the file's name does not begin with a number", hint);
        }
        return;
    };
    let read = match module(content) {
        Ok(read) => read,
        Err(problems) => {
            found.problems.extend(problems.into_iter().map(|problem| problem.file(path)));
            return;
        }
    };
    let mut draft = Draft {
        key: path.to_owned(),
        version: version.to_owned(),
        name: name.trim_start_matches(['-', '_']).to_owned(),
        separator: '-',
        file: path.to_owned(),
        scripts: BTreeMap::new(),
        no_transaction: false,
    };
    for (script, parts) in [("up.mongodb.js", &read.up), ("down.mongodb.js", &read.down)] {
        // A way back that does nothing is none.
        if script != "up.mongodb.js" && parts.is_empty() {
            continue;
        }
        let mut lines = Vec::new();
        for part in parts {
            match part {
                Part::Script { line, text } => {
                    lines.extend((*line..).zip(text.split('\n').map(str::to_owned)));
                }
                Part::ForPerson { line, text, why } => {
                    lines.push((*line, format!("// For a person, {path}:{line}: {why}")));
                    let kept =
                        text.split('\n').map(|text| format!("//   {text}").trim_end().to_owned());
                    lines.extend((*line..).zip(kept));
                    let version = version.parse().ok();
                    found.notes.push(Note {
                        file: path.to_owned(),
                        line: Some(*line),
                        version,
                        what: why.clone(),
                    });
                }
            }
        }
        draft.scripts.insert(script, Script::part(path, &lines));
    }
    found.drafts.push(draft);
}
