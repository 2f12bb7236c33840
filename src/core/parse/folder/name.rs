//! What a migration folder and the files in it may be called.

use crate::core::id::{Direction, Phase, StoreName, Version};
use crate::core::problem::{Problem, nearest};

/// The file that says what scripts cannot.
pub const MANIFEST: &str = "migration.toml";

/// The steps that scripts are for, and their part of a file's name.
const STEMS: [(&str, Phase, Direction); 6] = [
    ("up", Phase::Up, Direction::Up),
    ("down", Phase::Up, Direction::Down),
    ("prepare", Phase::Prepare, Direction::Up),
    ("prepare.down", Phase::Prepare, Direction::Down),
    ("cleanup", Phase::Cleanup, Direction::Up),
    ("cleanup.down", Phase::Cleanup, Direction::Down),
];

/// How a script is written.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Form {
    /// `.sql`.
    Sql,
    /// `.mongodb.js`.
    Mongosh,
    /// `.mongodb.json`.
    Json,
}

impl Form {
    const ALL: [Form; 3] = [Form::Sql, Form::Mongosh, Form::Json];

    fn suffix(self) -> &'static str {
        match self {
            Form::Sql => ".sql",
            Form::Mongosh => ".mongodb.js",
            Form::Json => ".mongodb.json",
        }
    }

    /// The store it is for.
    pub fn store(self) -> StoreName {
        match self {
            Form::Sql => StoreName::Postgres,
            Form::Mongosh | Form::Json => StoreName::Mongo,
        }
    }
}

/// What the name of a script says.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Script {
    /// The phase it belongs to.
    pub phase: Phase,
    /// The script itself, or its down.
    pub direction: Direction,
    /// How it is written.
    pub form: Form,
}

impl Script {
    /// Reads a file's name.
    pub fn of(file: &str) -> Option<Script> {
        Form::ALL.into_iter().find_map(|form| {
            let stem = file.strip_suffix(form.suffix())?;
            let (_, phase, direction) = STEMS.iter().find(|(word, _, _)| *word == stem)?;
            Some(Script { phase: *phase, direction: *direction, form })
        })
    }

    /// The file it is in.
    pub fn file(self) -> String {
        format!("{}{}", self.stem(), self.form.suffix())
    }

    fn stem(self) -> &'static str {
        STEMS
            .iter()
            .find(|(_, phase, direction)| (*phase, *direction) == (self.phase, self.direction))
            .map(|(stem, _, _)| *stem)
            .expect("STEMS has every phase that has scripts, and only `of` makes a Script")
    }
}

/// Whether a file or folder is none of ours: its name begins with a dot.
pub fn is_hidden(name: &str) -> bool {
    name.starts_with('.')
}

/// Whether a file of a migration folder is left alone: not checked, and not part
/// of the checksum. `file` is relative to the folder.
pub fn is_ignored(file: &str) -> bool {
    file == "README.md" || file.split('/').any(is_hidden)
}

/// Cuts a folder's name into version and name.
///
/// # Errors
/// What is wrong with it, and the rule.
pub fn folder(name: &str) -> Result<(Version, &str), Problem> {
    let rule = "a migration folder is called `<version>-<name>`, for example";
    let digits = name.len() - name.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (version, rest) = name.split_at(digits);
    let refuse = |message: String, example: String| {
        Err(Problem::whole(name, message).hint(format!("{rule} `{example}`")))
    };
    if version.is_empty() {
        let example = format!("001-{}", plain(name));
        return refuse("the folder's name does not begin with a version".to_owned(), example);
    }
    let Ok(number) = version.parse::<Version>() else {
        let (has, most) = (version.len(), Version::DIGITS_MAX);
        let message = format!("the folder's version has {has} digits; {most} is the most");
        return refuse(message, format!("20261120093000-{}", plain(rest)));
    };
    let example = format!("{version}-{}", plain(rest));
    let Some(rest) = rest.strip_prefix(['-', '_']) else {
        let message = if rest.is_empty() {
            "the folder's name has a version and nothing else".to_owned()
        } else {
            format!("neither `-` nor `_` is between the folder's version and its name `{rest}`")
        };
        return refuse(message, example);
    };
    if rest.is_empty() {
        return refuse("the folder's name ends after its version".to_owned(), example);
    }
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    match rest.chars().find(|c| !allowed(*c)) {
        None => Ok((number, rest)),
        Some(c) => {
            let c = if c == ' ' { "a blank".to_owned() } else { format!("`{}`", c.escape_debug()) };
            let message = format!(
                "the folder's name has {c} in it; only lower-case letters a to z, digits, `-` and `_` may be"
            );
            refuse(message, example)
        }
    }
}

/// A text as it could stand in a folder's name.
fn plain(text: &str) -> String {
    let words = text
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect::<Vec<_>>();
    if words.is_empty() { "add-user-preferences".to_owned() } else { words.join("-") }
}

/// What is wrong with a file that no migration has. `path` is what it is called
/// in messages.
pub fn stray(path: &str, file: &str) -> Problem {
    let problem = Problem::whole(path, "no file of a migration has this name");
    match meant(file) {
        Some(name) => problem.hint(format!("did you mean `{name}`?")),
        None => problem.hint(
            "a migration has `up.sql`, `down.sql`, `up.mongodb.js`, `down.mongodb.js`, \
             `migration.toml` and `README.md`; a program's files are named in `files` of its `[[run]]`",
        ),
    }
}

/// The name that was probably meant.
fn meant(file: &str) -> Option<String> {
    let mut valid = vec![MANIFEST.to_owned(), "README.md".to_owned()];
    for form in Form::ALL {
        valid.extend(STEMS.iter().map(|(stem, _, _)| format!("{stem}{}", form.suffix())));
    }
    // Other tools put the version and a name in front: `0001_users.up.sql`.
    let behind =
        |name: &&String| file.strip_suffix(name.as_str()).is_some_and(|s| s.ends_with('.'));
    if let Some(name) = valid.iter().filter(behind).max_by_key(|name| name.len()) {
        return Some(name.clone());
    }
    // The stem is right, and the ending is that of the plain language.
    for (ending, form) in [(".js", Form::Mongosh), (".json", Form::Json)] {
        let stem = file.strip_suffix(ending);
        if let Some((stem, _, _)) = STEMS.iter().find(|(word, _, _)| Some(*word) == stem) {
            return Some(format!("{stem}{}", form.suffix()));
        }
    }
    nearest(file, valid.iter().map(String::as_str)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check_folder(name: &str, expected: &Expect) {
        let actual = match folder(name) {
            Ok((version, name)) => format!("{version} {name}"),
            Err(problem) => problem.to_string(),
        };
        expected.assert_eq(&actual);
    }

    #[test]
    fn sequence_numbers_and_timestamps_with_a_dash_or_an_underscore_are_folder_names() {
        check_folder("001-add-user-preferences", &expect!["001 add-user-preferences"]);
        check_folder("7_x", &expect!["007 x"]);
        check_folder("20261120093000-add_2-users", &expect!["20261120093000 add_2-users"]);
        check_folder("999999999999999999-x", &expect!["999999999999999999 x"]);
    }

    #[test]
    fn a_folder_without_a_version_is_refused() {
        check_folder(
            "Add users",
            &expect![
                "Add users: the folder's name does not begin with a version; a migration folder is called `<version>-<name>`, for example `001-add-users`"
            ],
        );
        check_folder(
            "-x",
            &expect![
                "-x: the folder's name does not begin with a version; a migration folder is called `<version>-<name>`, for example `001-x`"
            ],
        );
        check_folder(
            "v1-x",
            &expect![
                "v1-x: the folder's name does not begin with a version; a migration folder is called `<version>-<name>`, for example `001-v1-x`"
            ],
        );
        check_folder(
            "٣-x",
            &expect![
                "٣-x: the folder's name does not begin with a version; a migration folder is called `<version>-<name>`, for example `001-x`"
            ],
        );
    }

    #[test]
    fn a_version_of_more_than_18_digits_is_refused() {
        check_folder(
            "1234567890123456789-x",
            &expect![
                "1234567890123456789-x: the folder's version has 19 digits; 18 is the most; a migration folder is called `<version>-<name>`, for example `20261120093000-x`"
            ],
        );
    }

    #[test]
    fn a_folder_without_a_name_is_refused() {
        check_folder(
            "007",
            &expect![
                "007: the folder's name has a version and nothing else; a migration folder is called `<version>-<name>`, for example `007-add-user-preferences`"
            ],
        );
        check_folder(
            "007-",
            &expect![
                "007-: the folder's name ends after its version; a migration folder is called `<version>-<name>`, for example `007-add-user-preferences`"
            ],
        );
    }

    #[test]
    fn something_else_between_version_and_name_is_refused() {
        check_folder(
            "007users",
            &expect![
                "007users: neither `-` nor `_` is between the folder's version and its name `users`; a migration folder is called `<version>-<name>`, for example `007-users`"
            ],
        );
        check_folder(
            "1.2-users",
            &expect![
                "1.2-users: neither `-` nor `_` is between the folder's version and its name `.2-users`; a migration folder is called `<version>-<name>`, for example `1-2-users`"
            ],
        );
    }

    #[test]
    fn other_characters_in_a_folder_name_are_refused() {
        check_folder(
            "007-Users",
            &expect![
                "007-Users: the folder's name has `U` in it; only lower-case letters a to z, digits, `-` and `_` may be; a migration folder is called `<version>-<name>`, for example `007-users`"
            ],
        );
        check_folder(
            "007-add users",
            &expect![
                "007-add users: the folder's name has a blank in it; only lower-case letters a to z, digits, `-` and `_` may be; a migration folder is called `<version>-<name>`, for example `007-add-users`"
            ],
        );
        check_folder(
            "007-größe",
            &expect![
                "007-größe: the folder's name has `ö` in it; only lower-case letters a to z, digits, `-` and `_` may be; a migration folder is called `<version>-<name>`, for example `007-gr-e`"
            ],
        );
    }

    #[test]
    fn a_script_is_named_by_its_step_and_its_store() {
        let mut names = Vec::new();
        for form in Form::ALL {
            for (stem, _, _) in STEMS {
                let name = format!("{stem}{}", form.suffix());
                let script = Script::of(&name).expect("it is a script");
                assert_eq!(script.file(), name);
                names.push(name);
            }
        }
        assert_eq!(names.len(), 18);
        for name in ["up.js", "up.json", "Up.sql", "execute.sql", "x.up.sql", ".sql", "up.SQL"] {
            assert_eq!(Script::of(name), None, "{name}");
        }
    }

    #[test]
    fn a_stray_file_is_told_what_it_was_meant_to_be() {
        let check = |file: &str, expected: Expect| {
            expected.assert_eq(&stray(&format!("007-x/{file}"), file).to_string());
        };
        check(
            "donw.sql",
            expect![
                "007-x/donw.sql: no file of a migration has this name; did you mean `down.sql`?"
            ],
        );
        check(
            "Up.sql",
            expect!["007-x/Up.sql: no file of a migration has this name; did you mean `up.sql`?"],
        );
        check(
            "up.js",
            expect![
                "007-x/up.js: no file of a migration has this name; did you mean `up.mongodb.js`?"
            ],
        );
        check(
            "prepare.down.json",
            expect![
                "007-x/prepare.down.json: no file of a migration has this name; did you mean `prepare.down.mongodb.json`?"
            ],
        );
        check(
            "0001_users.down.sql",
            expect![
                "007-x/0001_users.down.sql: no file of a migration has this name; did you mean `down.sql`?"
            ],
        );
        check(
            "1.prepare.down.sql",
            expect![
                "007-x/1.prepare.down.sql: no file of a migration has this name; did you mean `prepare.down.sql`?"
            ],
        );
        check(
            "migrations.toml",
            expect![
                "007-x/migrations.toml: no file of a migration has this name; did you mean `migration.toml`?"
            ],
        );
        check(
            "readme.md",
            expect![
                "007-x/readme.md: no file of a migration has this name; did you mean `README.md`?"
            ],
        );
        check(
            "cleanup_down.sql",
            expect![
                "007-x/cleanup_down.sql: no file of a migration has this name; did you mean `cleanup.down.sql`?"
            ],
        );
    }

    #[test]
    fn a_stray_file_like_none_is_told_which_there_are() {
        let problem = stray("007-x/users.csv", "users.csv");
        expect!["007-x/users.csv: no file of a migration has this name; a migration has `up.sql`, `down.sql`, `up.mongodb.js`, `down.mongodb.js`, `migration.toml` and `README.md`; a program's files are named in `files` of its `[[run]]`"].assert_eq(&problem.to_string());
    }
}
