//! `[[run]]`.

use super::table::{Table, Text};
use super::{At, Name};
use crate::core::id::{Direction, Phase};

/// A program of the migration's own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Run {
    /// What it is called; if it has no name, its command.
    pub name: Name,
    /// When it runs.
    pub phase: Phase,
    /// `Down` runs when the migration is reverted.
    pub direction: Direction,
    /// The program and its arguments, no shell in between.
    pub command: Vec<String>,
    /// Files of the folder that belong to it, besides those in its command.
    pub files: Vec<At<String>>,
}

/// Reads one. `None` is a problem that was told.
pub(super) fn read(mut table: Table<'_>) -> Option<Run> {
    let name = table.get("name");
    let phases = [Phase::Prepare, Phase::Execute, Phase::Validate, Phase::Cleanup];
    let phases = phases.map(|phase| (phase.word(), phase));
    let phase = table.get("phase").map(|value| value.word(&phases));
    let direction = super::direction(&mut table);
    let example = "[\"node\", \"backfill-avatars.js\"]";
    let command = table.need("command", &format!("for example `command = {example}`"));
    let command = command.and_then(|value| value.strings(example));
    let files = table.get("files").and_then(|value| value.strings("[\"lib/avatars.js\"]"));
    let files = files.unwrap_or_default().iter().filter_map(file).collect();
    let words = |texts: &Vec<Text<'_>>| texts.iter().map(|text| text.value.to_owned()).collect();
    let words: Option<Vec<String>> = command.as_ref().map(words);
    let name = match (name, &command, &words) {
        (Some(value), _, _) => {
            value.string("\"avatars\"").and_then(|text| Name::of(text.value, &text, &table))
        }
        (None, Some(texts), Some(words)) => Name::of(&words.join(" "), &texts[0], &table),
        _ => None,
    };
    table.finish();
    let phase = phase.unwrap_or(Some(Phase::Execute));
    Some(Run { name: name?, phase: phase?, direction, command: words?, files })
}

/// A path inside the folder.
fn file(text: &Text<'_>) -> Option<At<String>> {
    let path = plain(text.value);
    if path.starts_with('/') || path.split('/').any(|part| part.is_empty() || part.starts_with('.'))
    {
        text.complain(
            format!("`{}` is not the name of a file in the migration's folder", text.value),
            "write it relative to the folder, with `/` between its parts and no `..` or hidden part",
        );
        return None;
    }
    Some(At { value: path.to_owned(), place: text.place() })
}

/// `./run.js` is `run.js`.
fn plain(path: &str) -> &str {
    path.strip_prefix("./").unwrap_or(path)
}

impl Run {
    /// Whether a file of the folder is one of the program's.
    pub fn has_file(&self, file: &str) -> bool {
        self.command.iter().any(|word| plain(word) == file)
            || self.files.iter().any(|at| at.value == file)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{check, read as read_manifest};
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_program_runs_in_a_phase_and_has_files() {
        let text = "[[run]]\nname = 'Avatars'\nphase = 'prepare'\ndirection = 'down'\ncommand = ['node', './run.js']\nfiles = ['./lib/a.js']";
        let run = read_manifest(text).expect("it is right").runs.remove(0);
        assert_eq!((run.phase, run.direction), (Phase::Prepare, Direction::Down));
        assert_eq!((run.name.text.as_str(), run.name.slug.as_str()), ("Avatars", "avatars"));
        assert_eq!(run.command, ["node", "./run.js"]);
        assert!(run.has_file("run.js") && run.has_file("lib/a.js") && !run.has_file("a.js"));
        let run = read_manifest("[[run]]\ncommand = ['true']").expect("it is right").runs.remove(0);
        assert_eq!((run.phase, run.direction), (Phase::Execute, Direction::Up));
        assert_eq!(run.name.text, "true");
    }

    #[test]
    fn a_program_is_a_list_of_words() {
        check(
            "[[run]]",
            &expect![[
                r#":1:1: this `[[run]]` has no `command`; for example `command = ["node", "backfill-avatars.js"]`"#
            ]],
        );
        check(
            "[[run]]\ncommand = 'node run.js'",
            &expect![[
                r#":2:11: `command` must be a list of strings, not a string; for example `command = ["node", "backfill-avatars.js"]`"#
            ]],
        );
        check(
            "[[run]]\ncommand = []",
            &expect![[
                r#":2:11: `command` is empty; for example `command = ["node", "backfill-avatars.js"]`"#
            ]],
        );
        check(
            "[[run]]\ncommand = ['node', 7]",
            &expect![[
                r#":2:20: `command` must be a list of strings, not of a whole number; for example `command = ["node", "backfill-avatars.js"]`"#
            ]],
        );
        check(
            "[[run]]\ncommand = ['node', '']",
            &expect![":2:20: `command` has an empty string in it; leave it out"],
        );
        check(
            "[[run]]\ncommand = ['node']\nphase = 'exekute'",
            &expect![":3:9: `exekute` is not a value of `phase`; did you mean `execute`?"],
        );
        check(
            "[[run]]\ncommand = ['node']\nphase = 'up'",
            &expect![
                ":3:9: `up` is not a value of `phase`; write one of `prepare`, `execute`, `validate` and `cleanup`"
            ],
        );
    }

    #[test]
    fn a_file_of_a_program_is_inside_the_folder() {
        check(
            "[[run]]\ncommand = ['x']\nfiles = ['../a', '/b', 'c//d', '.e', 'f/../g']",
            &expect![[r#"
                :3:10: `../a` is not the name of a file in the migration's folder; write it relative to the folder, with `/` between its parts and no `..` or hidden part
                :3:18: `/b` is not the name of a file in the migration's folder; write it relative to the folder, with `/` between its parts and no `..` or hidden part
                :3:24: `c//d` is not the name of a file in the migration's folder; write it relative to the folder, with `/` between its parts and no `..` or hidden part
                :3:32: `.e` is not the name of a file in the migration's folder; write it relative to the folder, with `/` between its parts and no `..` or hidden part
                :3:38: `f/../g` is not the name of a file in the migration's folder; write it relative to the folder, with `/` between its parts and no `..` or hidden part"#]],
        );
        check(
            "[[run]]\ncommand = ['x']\nfiles = 'a'",
            &expect![[
                r#":3:9: `files` must be a list of strings, not a string; for example `files = ["lib/avatars.js"]`"#
            ]],
        );
    }
}
