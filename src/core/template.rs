//! Templates: `{{name}}` in the files of a migration that says `template = true`.
//!
//! A value takes the place of its name as it is, letter by letter: nothing is
//! quoted, because nobody can know what for. What it makes of the text is read like
//! any other text.

use crate::core::problem::{Problem, nearest};
use std::collections::BTreeSet;
use std::ops::Range;

/// The variables of a project.
pub trait Vars {
    /// What stands for `{{name}}`.
    fn value(&self, name: &str) -> Option<&str>;
    /// All that there are.
    fn names(&self) -> Vec<&str>;
    /// Whether its value is not for everybody. What a migration says is shown by
    /// `plan`, kept in the history and told to both servers' logs.
    fn is_secret(&self, name: &str) -> bool;
}

/// No variables.
impl Vars for () {
    fn value(&self, _: &str) -> Option<&str> {
        None
    }
    fn names(&self) -> Vec<&str> {
        Vec::new()
    }
    fn is_secret(&self, _: &str) -> bool {
        false
    }
}

const OPEN: &str = "{{";

const CLOSE: &str = "}}";

/// `\{{` is `{{`.
const ESCAPE: char = '\\';

/// The text with values in place of names.
///
/// # Errors
/// Every `{{` that stands for nothing, with its place; `file` left empty.
pub fn render(text: &str, vars: &dyn Vars) -> Result<String, Vec<Problem>> {
    let mut rendered = String::with_capacity(text.len());
    let mut problems = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].find(OPEN) {
        let open = at + found;
        let before = &text[at..open];
        if let Some(before) = before.strip_suffix(ESCAPE) {
            rendered.push_str(before);
            rendered.push_str(OPEN);
            at = open + OPEN.len();
            continue;
        }
        rendered.push_str(before);
        match variable(text, open) {
            Some((name, range)) => {
                match value(name, vars) {
                    Ok(value) => rendered.push_str(value),
                    Err((message, hint)) => {
                        problems.push(Problem::at(text, range.clone(), message).hint(hint));
                    }
                }
                at = range.end;
            }
            None => {
                let range = open..open + OPEN.len();
                at = range.end;
                problems.push(
                    Problem::at(text, range, "`{{` begins no variable").hint(
                        "write {{name}}, with letters, digits, _ and -; where two braces are meant, `\\{{`",
                    ),
                );
            }
        }
    }
    rendered.push_str(&text[at..]);
    if problems.is_empty() { Ok(rendered) } else { Err(problems) }
}

/// The names that a text has in braces.
pub fn names(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].find(OPEN) {
        let open = at + found;
        at = open + OPEN.len();
        if text[..open].ends_with(ESCAPE) {
            continue;
        }
        if let Some((name, range)) = variable(text, open) {
            names.push(name.to_owned());
            at = range.end;
        }
    }
    names
}

/// Variables, and names that stand for themselves where those have no value: enough to
/// look at a template, not to run it.
pub struct Assumed<'a> {
    vars: &'a dyn Vars,
    names: BTreeSet<String>,
}

impl<'a> Assumed<'a> {
    /// These names stand for themselves where `vars` has nothing for them.
    pub fn new(vars: &'a dyn Vars, names: BTreeSet<String>) -> Assumed<'a> {
        Assumed { vars, names }
    }
}

impl Vars for Assumed<'_> {
    fn value(&self, name: &str) -> Option<&str> {
        self.vars.value(name).or_else(|| self.names.get(name).map(String::as_str))
    }
    fn names(&self) -> Vec<&str> {
        self.vars.names()
    }
    fn is_secret(&self, name: &str) -> bool {
        self.vars.is_secret(name)
    }
}

/// The name between the braces that open at `open`, and all of it.
fn variable(text: &str, open: usize) -> Option<(&str, Range<usize>)> {
    let inside = open + OPEN.len();
    let line = text[inside..].lines().next()?;
    let close = line.find(CLOSE)?;
    let name = line[..close].trim();
    is_name(name).then_some((name, open..inside + close + CLOSE.len()))
}

/// Whether a variable can be called so.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

/// What stands for a name; else what is wrong, and what to do.
fn value<'a>(name: &str, vars: &'a dyn Vars) -> Result<&'a str, (String, String)> {
    let Some(value) = vars.value(name) else {
        let names = vars.names();
        let hint = match nearest(name, names) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!(
                "set it: `--var {name}=VALUE`, MIGRATE_VAR_{}, or `{name}` in [vars] of migrate.toml",
                name.to_uppercase().replace('-', "_")
            ),
        };
        return Err((format!("there is no variable `{name}`"), hint));
    };
    if vars.is_secret(name) {
        return Err((
            format!(
                "`{name}` is a secret by its name, and what a migration says is shown by `plan` and kept in the history"
            ),
            "let a program do what needs it (`[[run]]`), or give the variable another name if it is no secret".to_owned(),
        ));
    }
    if value.contains(['\n', '\r', '\0']) {
        return Err((
            format!("the value of `{name}` has more than one line"),
            "places in the file would no longer be true: write the lines into the file".to_owned(),
        ));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    struct Few;

    impl Vars for Few {
        fn value(&self, name: &str) -> Option<&str> {
            match name {
                "schema" => Some("shop"),
                "shard-count" => Some("4"),
                "db_password" => Some("hunter2"),
                "lines" => Some("a\nhunter2"),
                "braces" => Some("{{schema}}"),
                _ => None,
            }
        }
        fn names(&self) -> Vec<&str> {
            vec!["schema", "shard-count", "db_password", "lines", "braces"]
        }
        fn is_secret(&self, name: &str) -> bool {
            name.contains("password")
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "`expect![…]` reads better without `&`")]
    fn check(text: &str, expected: Expect) {
        let actual = match render(text, &Few) {
            Ok(text) => text,
            Err(problems) => {
                problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
            }
        };
        expected.assert_eq(&actual);
    }

    #[test]
    fn values_take_the_place_of_names() {
        check("CREATE TABLE {{schema}}.a ();", expect!["CREATE TABLE shop.a ();"]);
        check("{{ schema }}{{shard-count}}", expect!["shop4"]);
        check("{ a: { b: 1 }} }}", expect!["{ a: { b: 1 }} }}"]);
        // A value is not looked into again.
        check("{{braces}}", expect!["{{schema}}"]);
    }

    #[test]
    fn two_braces_can_be_meant() {
        check(r"'\{{schema}}' \{ \{{{schema}}", expect!["'{{schema}}' \\{ {{{schema}}"]);
    }

    #[test]
    fn what_stands_for_nothing_is_told_with_its_place() {
        check(
            "a\n  {{shema}} {{zebra}}\n'{{1,2},{3,4}}' {{\nschema}} {{}}",
            expect![[r"
                :2:3: there is no variable `shema`; did you mean `schema`?
                :2:13: there is no variable `zebra`; set it: `--var zebra=VALUE`, MIGRATE_VAR_ZEBRA, or `zebra` in [vars] of migrate.toml
                :3:2: `{{` begins no variable; write {{name}}, with letters, digits, _ and -; where two braces are meant, `\{{`
                :3:17: `{{` begins no variable; write {{name}}, with letters, digits, _ and -; where two braces are meant, `\{{`
                :4:10: `{{` begins no variable; write {{name}}, with letters, digits, _ and -; where two braces are meant, `\{{`"]],
        );
    }

    #[test]
    fn a_secret_is_not_put_into_a_migration() {
        check(
            "PASSWORD '{{db_password}}' {{lines}}",
            expect![[r"
                :1:11: `db_password` is a secret by its name, and what a migration says is shown by `plan` and kept in the history; let a program do what needs it (`[[run]]`), or give the variable another name if it is no secret
                :1:28: the value of `lines` has more than one line; places in the file would no longer be true: write the lines into the file"]],
        );
    }
}
