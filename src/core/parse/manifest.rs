//! `migration.toml`: what a migration needs beyond scripts.

mod backfill;
mod embedded;
mod invariant;
mod options;
mod run;
mod table;

pub use backfill::{Backfill, By, Change, MongoSource, Pace, Work};
pub use embedded::{BATCH, Update};
pub use invariant::{Check, Expect, Invariant, MongoAnswer, Relation, Sample};
pub use options::{At, CleanupPolicy};
pub use run::Run;

use crate::core::id::{Direction, Phase, StoreName};
use crate::core::migration::{OnFailure, Requires};
use crate::core::parse::sql::Transaction;
use crate::core::problem::{Place, Problem};
use crate::core::step::Timeouts;
use std::collections::BTreeMap;
use std::time::Duration;
use table::{Sink, Table, Text, Value};
use toml::de::DeTable;

/// A name becomes part of a step's name, which is part of a key in both histories.
const NAME_MAX: usize = 100;

/// The whole of a `migration.toml`, checked. Every key is optional, so that of a
/// folder without the file is the default.
///
/// It has floats in it, so it cannot be `Eq`.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// What the migration is for, in a few words.
    pub description: Option<String>,
    /// The order of the stores within a phase; down runs it in reverse.
    pub order: [StoreName; 2],
    /// Why it cannot be reverted.
    pub irreversible: Option<String>,
    /// `Off`: each SQL statement alone.
    pub transaction: Transaction,
    /// Whether `{{name}}` in its scripts is filled in.
    pub template: Option<At<bool>>,
    /// What to do when it fails.
    pub on_failure: Option<At<OnFailure>>,
    /// When its cleanup runs; if it does not say, the project does.
    pub cleanup: Option<At<CleanupPolicy>>,
    /// May start behind a held migration although both touch a table.
    pub independent: Option<At<bool>>,
    /// Between two phases.
    pub phase_pause: Option<At<Duration>>,
    /// Checked before anything is changed.
    pub requires: Requires,
    /// Limits for its SQL.
    pub timeouts: Timeouts,
    /// Phase `execute`, in order.
    pub backfills: Vec<Backfill>,
    /// Phase `validate`, in order.
    pub invariants: Vec<Invariant>,
    /// In order.
    pub runs: Vec<Run>,
}

impl Default for Manifest {
    fn default() -> Manifest {
        Manifest {
            description: None,
            order: StoreName::BOTH,
            irreversible: None,
            transaction: Transaction::On,
            template: None,
            on_failure: None,
            cleanup: None,
            independent: None,
            phase_pause: None,
            requires: Requires::default(),
            timeouts: Timeouts::default(),
            backfills: Vec::new(),
            invariants: Vec::new(),
            runs: Vec::new(),
        }
    }
}

impl Manifest {
    /// Whether there is anything in it that goes up.
    pub fn applies(&self) -> bool {
        self.backfills.iter().any(|backfill| backfill.direction == Direction::Up)
            || self.runs.iter().any(|run| run.direction == Direction::Up)
            || !self.invariants.is_empty()
    }

    /// Whether there is anything in it that goes down.
    pub fn reverts(&self) -> bool {
        self.backfills.iter().any(|backfill| backfill.direction == Direction::Down)
            || self.runs.iter().any(|run| run.direction == Direction::Down)
    }

    /// The first thing in it that only a phased migration has, and its place.
    pub fn phased(&self) -> Option<(&'static str, &Place)> {
        let backfill =
            self.backfills.first().map(|backfill| ("[[backfill]]", &backfill.name.place));
        let run = self.runs.first().map(|run| ("[[run]]", &run.name.place));
        backfill.or(run)
    }
}

/// What a backfill, an invariant or a run is called.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Name {
    /// As people read it: `roles as an array`.
    pub text: String,
    /// As steps are named: `roles-as-an-array`.
    pub slug: String,
    /// Its `[[…]]`.
    pub place: Place,
}

impl Name {
    /// Reads `name`, which must be there.
    fn need(table: &mut Table<'_>) -> Option<Name> {
        let hint = "give it one: its progress is recorded under it";
        let value = table.need("name", hint)?;
        let text = value.string("\"roles as an array\"")?;
        Name::of(text.value, &text, table)
    }

    /// A name that `at` gives.
    fn of(name: &str, at: &Text<'_>, table: &Table<'_>) -> Option<Name> {
        let name = name.trim();
        let words =
            name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        let slug = words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-");
        if slug.is_empty() {
            let message = format!("the name `{name}` has no letter a to z and no digit");
            at.complain(message, "use some in `name`: they name its step in the history");
            return None;
        }
        if slug.len() > NAME_MAX {
            let message = format!("the name has more than {NAME_MAX} characters");
            at.complain(message, "write a shorter `name`; a comment can say the rest");
            return None;
        }
        Some(Name { text: name.to_owned(), slug, place: table.place() })
    }
}

/// Reads the text of a `migration.toml`.
///
/// # Errors
/// Everything that is wrong with it, in the order of the text; a syntax error
/// hides what follows. The file's name is left to the caller.
pub fn read(text: &str) -> Result<Manifest, Vec<Problem>> {
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => {
            let range = error.span().unwrap_or(0..0);
            return Err(vec![
                Problem::at(text, range, format!("this is not TOML: {}", error.message()))
                    .hint("see https://toml.io for how values are written"),
            ]);
        }
    };
    let sink = Sink::new(text);
    let manifest = manifest(Table::root(&sink, document.get_ref()));
    unique(&sink, &manifest);
    let problems = sink.into_problems();
    if problems.is_empty() { Ok(manifest) } else { Err(problems) }
}

/// Whether the migration is a template. Nothing else is looked at: before names are
/// filled in, the rest may be anything.
pub fn is_template(text: &str) -> bool {
    let document = DeTable::parse(text).ok();
    let value = document.as_ref().and_then(|document| document.get_ref().get("template"));
    value.is_some_and(|value| value.get_ref().as_bool() == Some(true))
}

fn manifest(mut root: Table<'_>) -> Manifest {
    let mut manifest = Manifest::default();
    options::read(&mut root, &mut manifest);
    manifest.backfills = each(root.get("backfill"), backfill::read);
    manifest.invariants = each(root.get("invariant"), invariant::read);
    manifest.runs = each(root.get("run"), run::read);
    root.finish();
    manifest
}

fn each<'a, T>(value: Option<Value<'a>>, read: impl Fn(Table<'a>) -> Option<T>) -> Vec<T> {
    let Some(value) = value else { return Vec::new() };
    let tables = value.tables();
    let count = tables.len();
    let items = tables.into_iter().filter_map(read).collect::<Vec<_>>();
    // To leave out a backfill in silence would be to lose data in silence.
    assert!(items.len() == count || value.sink.has_problems(), "what is left out has been told");
    items
}

/// `direction`, which is up if it is not there.
fn direction(table: &mut Table<'_>) -> Direction {
    let words = [("up", Direction::Up), ("down", Direction::Down)];
    table.get("direction").and_then(|value| value.word(&words)).unwrap_or(Direction::Up)
}

/// Two steps of one name could not be told apart in the history.
fn unique(sink: &Sink<'_>, manifest: &Manifest) {
    let backfills = manifest.backfills.iter();
    let backfills = backfills.map(|it| (Phase::Execute, it.direction, &it.name));
    let invariants = manifest.invariants.iter();
    let invariants = invariants.map(|it| (Phase::Validate, Direction::Up, &it.name));
    let runs = manifest.runs.iter().map(|it| (it.phase, it.direction, &it.name));
    let mut seen: BTreeMap<(Phase, Direction, &str), &Name> = BTreeMap::new();
    for (phase, direction, name) in backfills.chain(invariants).chain(runs) {
        if let Some(first) = seen.insert((phase, direction, &name.slug), name) {
            let message = format!(
                "`{}` is also the name of what stands in line {}{}",
                name.text,
                first.place.line,
                if first.text == name.text { "" } else { ": only letters a to z and digits count" }
            );
            let problem = Problem {
                file: String::new(),
                at: Some(name.place.clone()),
                message,
                hint: Some("give one of the two another name".to_owned()),
            };
            sink.push(problem);
        }
    }
}

/// Problems as they are printed, without the file; of a manifest without any, nothing.
#[cfg(test)]
fn check(text: &str, expected: &expect_test::Expect) {
    let actual = match read(text) {
        Ok(_) => String::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    };
    expected.assert_eq(&actual);
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    /// The example of the format's documentation.
    const EXAMPLE: &str = r##"
description = "Refactor user roles from a string to an array"
order = ["postgres", "mongo"]        # order of the stores within a phase; down runs it in reverse
irreversible = "the old column's data is gone"
transaction = false                  # run each SQL statement alone
on_failure = "stop"                  # or "rollback": run this migration's downs when it fails
cleanup = "auto"                     # or "hold": wait for `migrate cleanup`, or "next-release" (see cli.md)
independent = true                   # may start behind a held migration although both touch a table (cli.md)
requires = { postgres = ">=14", mongo = ">=5.0, replica-set" }   # checked before anything is changed

[timeouts]
lock = "3s"
statement = "10m"

[[backfill]]                         # phase execute; see backfill.md
name = "roles as an array"
postgres = { table = "users", set = "roles_array = ARRAY[role]", where = "role IS NOT NULL AND roles_array = '{}'" }

[[backfill]]
name = "default stock"
mongo = { collection = "products", filter = "{ stock: { $exists: false } }", update = "[{ $set: { stock: 0 } }]" }

[[backfill]]
name = "profiles for every user"
copy = { from = "postgres", query = "SELECT id AS _id, email, created_at FROM users", key = "_id", to = "profiles" }

[[backfill]]
direction = "down"                   # runs when a finished migration is reverted, after cleanup.down, before prepare.down
name = "role as a string again"
postgres = { table = "users", set = "role = roles_array[1]", where = "role IS NULL AND roles_array <> '{}'" }

[[invariant]]                        # phase validate, and again before cleanup
name = "no user lost a role"
postgres = "SELECT count(*) FROM users WHERE role IS NOT NULL AND NOT (role = ANY (roles_array))"
expect = 0                           # default; also "= 0", ">= 1000", "true", or any literal

[[invariant]]
name = "one profile per user"        # both stores named: the two answers must be equal
postgres = "SELECT count(*) FROM users"
mongo = { collection = "profiles", count = "{}" }

[[invariant]]
name = "profiles say what users say" # row by row, see backfill.md
compare = { postgres = "SELECT id AS _id, email, created_at FROM users", mongo = { collection = "profiles" }, key = "_id" }

[[run]]                              # the escape hatch: your own program, with both URLs in its environment
phase = "execute"
command = ["node", "backfill-avatars.js"]
"##;

    #[test]
    fn the_example_of_the_documentation_is_read_whole() {
        let manifest = read(EXAMPLE).expect("it is in the documentation");
        let text = manifest.description.as_deref();
        assert_eq!(text, Some("Refactor user roles from a string to an array"));
        assert_eq!(manifest.backfills.len(), 4);
        assert_eq!(manifest.backfills[0].name.slug, "roles-as-an-array");
        assert_eq!(manifest.backfills[3].direction, Direction::Down);
        assert_eq!(manifest.invariants.len(), 3);
        assert_eq!(manifest.runs[0].name.slug, "node-backfill-avatars-js");
        assert!(manifest.runs[0].has_file("backfill-avatars.js"));
        assert_eq!(manifest.backfills[1].name.place.line, 19);
        assert_eq!(
            manifest.phased().map(|(key, place)| (key, place.line)),
            Some(("[[backfill]]", 15))
        );
        assert!(manifest.applies());
    }

    #[test]
    fn an_empty_file_is_a_manifest_of_defaults() {
        assert_eq!(read(""), Ok(Manifest::default()));
        assert_eq!(read("# nothing\n"), Ok(Manifest::default()));
        assert!(!Manifest::default().applies());
        assert_eq!(Manifest::default().phased(), None);
    }

    #[test]
    fn what_is_not_toml_is_told_with_its_place() {
        check(
            "description = \"x\norder = 1",
            &expect![[
                r#":1:17: this is not TOML: invalid basic string, expected `"`; see https://toml.io for how values are written"#
            ]],
        );
        check(
            "[timeouts\nlock = '3s'",
            &expect![
                ":1:10: this is not TOML: unclosed table, expected `]`; see https://toml.io for how values are written"
            ],
        );
        check(
            "order = 1\norder = 2",
            &expect![
                ":2:1: this is not TOML: duplicate key; see https://toml.io for how values are written"
            ],
        );
        check(
            "description = Refactor",
            &expect![
                ":1:15: this is not TOML: string values must be quoted, expected literal string; see https://toml.io for how values are written"
            ],
        );
    }

    #[test]
    fn an_unknown_key_is_told_what_it_was_meant_to_be() {
        check(
            "descripton = 'x'",
            &expect![":1:1: unknown key `descripton`; did you mean `description`?"],
        );
        check(
            "[[backfil]]\nname = 'x'",
            &expect![":1:3: unknown key `backfil`; did you mean `backfill`?"],
        );
        check(
            "[timeout]\nlock = '3s'",
            &expect![":1:2: unknown key `timeout`; did you mean `timeouts`?"],
        );
        check(
            "zebra = 1",
            &expect![
                ":1:1: unknown key `zebra`; the keys here are `description`, `order`, `irreversible`, `transaction`, `template`, `on_failure`, `cleanup`, `independent`, `phase_pause`, `requires`, `timeouts`, `backfill`, `invariant` and `run`"
            ],
        );
        check(
            "[timeouts]\nlock = '3s'\nstatment = '1s'\nzebra = 1",
            &expect![[r#"
            :3:1: unknown key `statment` in `timeouts`; did you mean `statement`?
            :4:1: unknown key `zebra` in `timeouts`; the keys here are `lock` and `statement`"#]],
        );
        check(
            "requires = { postgresql = '>=14' }",
            &expect![":1:14: unknown key `postgresql` in `requires`; did you mean `postgres`?"],
        );
        check(
            "[[run]]\ncommand = ['x']\ncomand = ['y']",
            &expect![":3:1: unknown key `comand` in `[[run]]`; did you mean `command`?"],
        );
    }

    #[test]
    fn every_problem_is_told_in_the_order_of_the_text() {
        check(
            "zebra = 1\norder = 2\n[[run]]\nphase = 3\n\n[timeouts]\nlock = 4",
            &expect![[r#"
            :1:1: unknown key `zebra`; the keys here are `description`, `order`, `irreversible`, `transaction`, `template`, `on_failure`, `cleanup`, `independent`, `phase_pause`, `requires`, `timeouts`, `backfill`, `invariant` and `run`
            :2:9: `order` must be a list of strings, not a whole number; for example `order = ["postgres", "mongo"]`
            :3:1: this `[[run]]` has no `command`; for example `command = ["node", "backfill-avatars.js"]`
            :4:9: `phase` must be a string, not a whole number; for example `phase = "prepare"`
            :7:8: `lock` must be a duration, not a whole number; for example `lock = "3s"`"#]],
        );
    }

    #[test]
    fn lists_of_tables_are_lists_of_tables() {
        check(
            "backfill = 1",
            &expect![":1:1: `backfill` must be a list of tables; write `[[backfill]]`"],
        );
        check(
            "[backfill]\nname = 'x'",
            &expect![":1:2: `backfill` must be a list of tables; write `[[backfill]]`"],
        );
        check(
            "run = [1]",
            &expect![
                ":1:8: `run` must be a list of tables, not of a whole number; write `[[run]]`"
            ],
        );
    }

    #[test]
    fn a_step_that_is_recorded_has_a_name_of_its_own() {
        let sql = "postgres = { table = 'a', set = 'b = 1' }";
        check(
            &format!("[[backfill]]\n{sql}"),
            &expect![
                ":1:1: this `[[backfill]]` has no `name`; give it one: its progress is recorded under it"
            ],
        );
        check(
            &format!("[[backfill]]\nname = ''\n{sql}"),
            &expect![[
                r#":2:8: `name` is empty; write something, for example `name = "roles as an array"`"#
            ]],
        );
        check(
            &format!("[[backfill]]\nname = 7\n{sql}"),
            &expect![[
                r#":2:8: `name` must be a string, not a whole number; for example `name = "roles as an array"`"#
            ]],
        );
        check(
            &format!("[[backfill]]\nname = 'ü!'\n{sql}"),
            &expect![
                ":2:8: the name `ü!` has no letter a to z and no digit; use some in `name`: they name its step in the history"
            ],
        );
        check(
            &format!("[[backfill]]\nname = '{}'\n{sql}", "x".repeat(101)),
            &expect![
                ":2:8: the name has more than 100 characters; write a shorter `name`; a comment can say the rest"
            ],
        );
        check(
            "[[run]]\ncommand = ['…']",
            &expect![
                ":2:12: the name `…` has no letter a to z and no digit; use some in `name`: they name its step in the history"
            ],
        );
    }

    #[test]
    fn two_steps_of_one_name_are_refused() {
        let sql = "postgres = { table = 'a', set = 'b = 1' }";
        let one = format!("[[backfill]]\nname = 'A b'\n{sql}\n");
        check(
            &format!("{one}{one}"),
            &expect![
                ":4:1: `A b` is also the name of what stands in line 1; give one of the two another name"
            ],
        );
        check(
            &format!("{one}[[backfill]]\nname = 'a-b!'\n{sql}\n"),
            &expect![
                ":4:1: `a-b!` is also the name of what stands in line 1: only letters a to z and digits count; give one of the two another name"
            ],
        );
        check(
            &format!("{one}[[run]]\ncommand = ['a', 'b']\n"),
            &expect![
                ":4:1: `a b` is also the name of what stands in line 1: only letters a to z and digits count; give one of the two another name"
            ],
        );
        check(&format!("{one}[[run]]\nphase = 'cleanup'\ncommand = ['a', 'b']"), &expect![""]);
        check(&format!("{one}[[backfill]]\ndirection = 'down'\nname = 'a b'\n{sql}"), &expect![""]);
        check(&format!("{one}[[invariant]]\nname = 'a b'\npostgres = 'SELECT 1'"), &expect![""]);
    }

    #[test]
    fn a_direction_is_up_or_down() {
        let sql = "name = 'x'\npostgres = { table = 'a', set = 'b = 1' }";
        check(
            &format!("[[backfill]]\ndirection = 'dwon'\n{sql}"),
            &expect![":2:13: `dwon` is not a value of `direction`; did you mean `down`?"],
        );
        check(
            &format!("[[backfill]]\ndirection = 'sideways'\n{sql}"),
            &expect![
                ":2:13: `sideways` is not a value of `direction`; write one of `up` and `down`"
            ],
        );
        check(
            &format!("[[backfill]]\ndirection = true\n{sql}"),
            &expect![[
                r#":2:13: `direction` must be a string, not true or false; for example `direction = "up"`"#
            ]],
        );
    }
}
