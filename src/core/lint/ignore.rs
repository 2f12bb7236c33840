//! Comments that suppress findings: `-- lockstep:ignore RULE reason`.
//!
//! One is for the statement on whose lines it stands, else for the next statement
//! of its file. Its reason is what the next reader has of it, so there must be one.

use super::view::{Anchor, Hit};
use super::{About, Level, Rule, rules};
use crate::core::problem::nearest;
use std::collections::BTreeMap;
use std::ops::Range;

/// What a comment begins with.
const MARK: &str = "lockstep:ignore";

pub(super) const RULES: &[&Rule] = &[&WITHOUT_REASON, &UNKNOWN_RULE, &OF_NOTHING];

/// A suppression of a migration's file.
#[derive(Debug)]
pub(super) struct Ignore {
    /// The comment from its mark on.
    anchor: Anchor,
    rule: String,
    has_reason: bool,
    /// The statements that it is for.
    statements: Vec<Range<usize>>,
    used: bool,
}

/// The suppressions of all files; `statements` are the places of the statements of
/// each.
pub(super) fn read(
    texts: &BTreeMap<String, String>,
    statements: &BTreeMap<&str, Vec<Range<usize>>>,
) -> Vec<Ignore> {
    let of_file = |(file, text): (&String, &String)| {
        let openings: &[&str] = match file.rsplit_once('.').map(|(_, kind)| kind) {
            Some("sql") => &["--", "/*"],
            Some("js") => &["//", "/*"],
            Some("toml") => &["#"],
            _ => &[],
        };
        let statements = statements.get(file.as_str()).map(Vec::as_slice).unwrap_or_default();
        let marks = text.match_indices(MARK).filter(|(at, _)| {
            let before = text[..*at].trim_end_matches([' ', '\t']);
            openings.iter().any(|opening| before.ends_with(opening))
        });
        marks.map(|(at, _)| one(file, text, at, statements)).collect::<Vec<_>>()
    };
    texts.iter().flat_map(of_file).collect()
}

fn one(file: &str, text: &str, at: usize, statements: &[Range<usize>]) -> Ignore {
    let line_end = text[at..].find('\n').map_or(text.len(), |end| at + end);
    let said = text[at..line_end].trim_end().trim_end_matches("*/").trim_end();
    let mut words = said[MARK.len()..].split_whitespace();
    let rule = words.next().unwrap_or_default().to_owned();
    let line_start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let on_line =
        statements.iter().filter(|range| range.start < line_end && range.end > line_start);
    let mut for_these: Vec<Range<usize>> = on_line.cloned().collect();
    if for_these.is_empty() {
        for_these.extend(statements.iter().find(|range| range.start >= at).cloned());
    }
    let range = at..at + said.len();
    Ignore {
        anchor: Anchor { file: file.to_owned(), statement: range.clone(), range },
        rule,
        has_reason: words.next().is_some(),
        statements: for_these,
        used: false,
    }
}

impl Ignore {
    /// Whether it suppresses this.
    pub fn takes(&mut self, rule: &Rule, anchor: &Anchor) -> bool {
        let takes = self.has_reason
            && self.rule == rule.name
            && self.anchor.file == anchor.file
            && self.statements.contains(&anchor.statement);
        self.used |= takes;
        takes
    }

    /// What is wrong with it.
    pub fn complaint(self) -> Option<(&'static Rule, Hit)> {
        let Ignore { anchor, rule, has_reason, used, .. } = self;
        let is_rule = rules().any(|known| known.name == rule);
        if !is_rule {
            let message = match rule.as_str() {
                "" => "this suppression names no rule".to_owned(),
                rule => format!("there is no rule `{rule}`"),
            };
            let near = nearest(&rule, rules().map(|rule| rule.name));
            let help = near.map(|near| format!("Did you mean `{near}`?"));
            return Some((&UNKNOWN_RULE, Hit { anchor, message, help }));
        }
        if !has_reason {
            let message = format!("this suppression of `{rule}` does not say why, so it is none");
            return Some((&WITHOUT_REASON, Hit { anchor, message, help: None }));
        }
        let message = format!("`{rule}` finds nothing here");
        (!used).then_some((&OF_NOTHING, Hit { anchor, message, help: None }))
    }
}

static WITHOUT_REASON: Rule = Rule {
    name: "ignore-without-reason",
    level: Level::Error,
    about: About::Comment,
    what: "A suppression that does not say why.",
    why: "Who reads it in a year cannot tell whether it was thought about, or whether it is still true. It suppresses nothing.",
    instead: "Write the reason behind the rule's name: `-- lockstep:ignore drop-table nobody has read it since 2.1`.",
    bad: &[
        ("up.sql", "-- lockstep:ignore drop-table\nDROP TABLE carts;\n"),
        ("down.sql", "CREATE TABLE carts (id bigint PRIMARY KEY);\n"),
    ],
    good: &[
        (
            "up.sql",
            "-- lockstep:ignore drop-table nobody has read it since 2.1\nDROP TABLE carts;\n",
        ),
        ("down.sql", "CREATE TABLE carts (id bigint PRIMARY KEY);\n"),
    ],
    check: |_| Vec::new(),
};

static UNKNOWN_RULE: Rule = Rule {
    name: "ignore-of-unknown-rule",
    level: Level::Error,
    about: About::Comment,
    what: "A suppression of a rule that does not exist.",
    why: "It suppresses nothing, and looks as if it did.",
    instead: "Write the name of a rule, as the finding has it.",
    bad: &[
        (
            "up.sql",
            "-- lockstep:ignore drop-tabel nobody has read it since 2.1\nDROP TABLE carts;\n",
        ),
        ("down.sql", "CREATE TABLE carts (id bigint PRIMARY KEY);\n"),
    ],
    good: &[
        (
            "up.sql",
            "-- lockstep:ignore drop-table nobody has read it since 2.1\nDROP TABLE carts;\n",
        ),
        ("down.sql", "CREATE TABLE carts (id bigint PRIMARY KEY);\n"),
    ],
    check: |_| Vec::new(),
};

static OF_NOTHING: Rule = Rule {
    name: "ignore-of-nothing",
    level: Level::Warn,
    about: About::Comment,
    what: "A suppression that suppresses nothing.",
    why: "The statement that it was for has changed or moved, and the next one that lands here would be let through.",
    instead: "Delete the comment, or move it in front of the statement that it is for.",
    bad: &[
        ("up.sql", "-- lockstep:ignore drop-table nobody has read it since 2.1\nSELECT 1;\n"),
        ("down.sql", "SELECT 1;\n"),
    ],
    good: &[
        (
            "up.sql",
            "-- lockstep:ignore drop-table nobody has read it since 2.1\nDROP TABLE carts;\n",
        ),
        ("down.sql", "CREATE TABLE carts (id bigint PRIMARY KEY);\n"),
    ],
    check: |_| Vec::new(),
};

#[cfg(test)]
mod tests {
    use crate::core::lint::tests::check;
    use expect_test::expect;

    const DOWN: (&str, &str) = ("down.sql", "CREATE TABLE a (); CREATE TABLE b ();");

    #[test]
    fn a_comment_is_for_the_statement_on_its_line_or_else_for_the_next() {
        let up = "-- lockstep:ignore drop-table gone since 2.1\n\nDROP TABLE a;\nDROP TABLE b;";
        check(
            &[("up.sql", up), DOWN],
            expect![[r#"
            up.sql:4: warn drop-table: dropping `b` breaks the release that is running, and its rows are gone
            1 suppressed
        "#]],
        );
        let up = "DROP TABLE a;\nDROP TABLE b; /* lockstep:ignore drop-table gone since 2.1 */";
        check(
            &[("up.sql", up), DOWN],
            expect![[r#"
            up.sql:1: warn drop-table: dropping `a` breaks the release that is running, and its rows are gone
            1 suppressed
        "#]],
        );
        let up = "DROP TABLE\n -- lockstep:ignore drop-table gone since 2.1\n a;";
        check(
            &[("up.sql", up), DOWN],
            expect![[r#"
            1 suppressed
        "#]],
        );
    }

    #[test]
    fn a_suppression_is_looked_at_too() {
        let up = "-- lockstep:ignore drop-table\n-- lockstep:ignore drop-tabel gone\n-- lockstep:ignore\n-- lockstep:ignore truncate gone\nDROP TABLE a;";
        check(
            &[("up.sql", up), DOWN],
            expect![[r#"
            up.sql:1: error ignore-without-reason: this suppression of `drop-table` does not say why, so it is none
            up.sql:2: error ignore-of-unknown-rule: there is no rule `drop-tabel`
            up.sql:3: error ignore-of-unknown-rule: this suppression names no rule
            up.sql:4: warn ignore-of-nothing: `truncate` finds nothing here
            up.sql:5: warn drop-table: dropping `a` breaks the release that is running, and its rows are gone
        "#]],
        );
    }

    #[test]
    fn mongosh_files_and_manifests_have_their_own_comments() {
        check(
            &[
                (
                    "up.mongodb.js",
                    "// lockstep:ignore drop-collection gone since 2.1\ndb.a.drop();",
                ),
                ("down.mongodb.js", "db.createCollection('a');"),
            ],
            expect![[r#"
                1 suppressed
            "#]],
        );
        let manifest = "irreversible = 'rewritten'\n\n# lockstep:ignore backfill-without-invariant nothing can be asked\n[[backfill]]\nname = 'x'\npostgres = { table = 'a', set = 'b = 1', where = 'b IS NULL' }\n";
        check(
            &[("migration.toml", manifest)],
            expect![[r#"
            1 suppressed
        "#]],
        );
    }

    #[test]
    fn what_only_looks_like_a_suppression_is_none() {
        check(&[("up.sql", "SELECT 'lockstep:ignore x';"), ("down.sql", "SELECT 1;")], expect![""]);
    }
}
