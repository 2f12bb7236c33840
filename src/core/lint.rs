//! Hazards in migrations, told from their files alone.
//!
//! A [`Rule`] looks at one migration and says what it found; each stands in a file
//! of its own, with what, why, what instead, and an example of both kinds that the
//! tests run. docs/lint is written from them. Suppressions and levels come after
//! the rules: what is switched off was looked for all the same, so that a
//! suppression is known to be of use.
//!
//! Reading order: [`Rule`], `view` (what the rules look at), `known` (hazards that
//! `squawk-linter` finds), then any rule.

mod ignore;
mod known;
pub mod merged;
pub mod pages;
mod view;

mod migration;
mod mongo;
mod postgres;

use crate::core::id::Version;
use crate::core::migration::Migration;
use crate::core::parse::folder::{self, Folder};
use crate::core::problem::{Place, Problem};
use crate::core::template::Vars;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use view::{Anchor, Hit, Subject};

/// How much a rule matters.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Level {
    /// It fails the lint.
    Error,
    /// It is shown.
    Warn,
    /// It is not shown.
    Off,
}

impl Level {
    /// As `[lint.levels]` has it.
    pub fn word(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Off => "off",
        }
    }
}

/// What a rule is about.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum About {
    /// SQL.
    Postgres,
    /// MongoDB scripts.
    Mongo,
    /// A migration as a whole: its phases, its way back.
    Migration,
    /// Its place among the migrations that were merged before.
    Merge,
    /// Comments that suppress findings.
    Comment,
}

/// The files of a migration by their names: `up.sql`.
pub type Example = &'static [(&'static str, &'static str)];

/// One hazard.
pub struct Rule {
    /// Its name, which stays: `index-without-concurrently`.
    pub name: &'static str,
    /// How much it matters unless `[lint.levels]` says otherwise.
    pub level: Level,
    /// What it is about.
    pub about: About,
    /// What it finds, in a sentence.
    pub what: &'static str,
    /// What happens then: which lock, who waits, what is lost.
    pub why: &'static str,
    /// What to do instead.
    pub instead: &'static str,
    /// A migration in which it finds something.
    pub bad: Example,
    /// The same done well.
    pub good: Example,
    check: fn(&Subject<'_>) -> Vec<Hit>,
}

impl Rule {
    /// Its page of the documentation, from the root of the repository.
    pub fn page(&self) -> String {
        format!("docs/lint/{}.md", self.name)
    }
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Rule {
    fn eq(&self, other: &Rule) -> bool {
        self.name == other.name
    }
}

impl Eq for Rule {}

/// All rules, in the order of their documentation.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    let lists = [postgres::RULES, mongo::RULES, migration::RULES, merged::RULES, ignore::RULES];
    lists.into_iter().flatten().copied()
}

/// A migration and the texts of its files, by their paths inside the migrations
/// folder: `001-a/up.sql`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Input {
    /// What was read.
    pub migration: Migration,
    /// What it was read from, normalized.
    pub texts: BTreeMap<String, String>,
}

impl Input {
    /// Reads a folder, with the variables of templates.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(folder: &Folder, vars: &dyn Vars) -> Result<Input, Vec<Problem>> {
        let migration = folder::read_with(folder, vars)?;
        let texts = folder::texts_with(folder, vars).into_iter();
        let texts = texts.map(|(file, text)| (format!("{}/{file}", folder.name), text));
        Ok(Input { migration, texts: texts.collect() })
    }
}

/// Something that a rule found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// The rule.
    pub rule: &'static Rule,
    /// How much it matters.
    pub level: Level,
    /// The migration.
    pub version: Version,
    /// The file, from the migrations folder; of what is about no file, the folder.
    pub file: String,
    /// Where it begins.
    pub place: Option<Place>,
    /// The line and the column behind its end, from 1.
    pub end: (u32, u32),
    /// What is wrong, in one line.
    pub message: String,
    /// What to do instead.
    pub help: String,
}

/// What a lint found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Found {
    /// In the order of versions, files and places.
    pub findings: Vec<Finding>,
    /// So many were suppressed by a comment that says why.
    pub suppressed: usize,
}

/// How the rules are to be asked.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Settings {
    /// Levels that are not the rules' own.
    pub levels: BTreeMap<String, Level>,
    /// Migrations that are new together: what one makes, no other finds in use.
    pub new: BTreeSet<Version>,
}

impl Settings {
    /// The level of a rule.
    pub fn level(&self, rule: &Rule) -> Level {
        self.levels.get(rule.name).copied().unwrap_or(rule.level)
    }
}

/// Asks all rules of all migrations, which are in the order of their versions.
pub fn lint(inputs: &[Input], settings: &Settings) -> Found {
    let views: Vec<view::View> = inputs.iter().map(view::View::of).collect();
    let mut found = Found::default();
    for (at, input) in inputs.iter().enumerate() {
        let subject = Subject::new(&views, at, settings);
        let hits = rules().flat_map(|rule| {
            let hits = (rule.check)(&subject).into_iter();
            hits.map(move |hit| (rule, hit))
        });
        let mut ignores = ignore::read(&input.texts, &views[at].statements());
        for (rule, hit) in hits {
            if ignores.iter_mut().any(|ignore| ignore.takes(rule, &hit.anchor)) {
                found.suppressed += usize::from(settings.level(rule) != Level::Off);
            } else {
                found.findings.push(finding(input, settings, rule, hit));
            }
        }
        let about = ignores.into_iter().filter_map(ignore::Ignore::complaint);
        found.findings.extend(about.map(|(rule, hit)| finding(input, settings, rule, hit)));
    }
    found.findings.retain(|finding| finding.level != Level::Off);
    found.findings.sort_by(|a, b| {
        let key = |finding: &Finding| finding.place.as_ref().map(|at| (at.line, at.column));
        (a.version, &a.file, key(a), a.level, a.rule.name).cmp(&(
            b.version,
            &b.file,
            key(b),
            b.level,
            b.rule.name,
        ))
    });
    found.findings.dedup();
    found
}

fn finding(input: &Input, settings: &Settings, rule: &'static Rule, hit: Hit) -> Finding {
    let Hit { anchor: Anchor { file, range, .. }, message, help } = hit;
    let text = input.texts.get(&file).map_or("", String::as_str);
    let place = (!text.is_empty()).then(|| Place::of(text, range.clone()));
    let end = end_of(text, &range);
    Finding {
        rule,
        level: settings.level(rule),
        version: input.migration.version,
        file,
        place,
        end,
        message,
        help: help.unwrap_or_else(|| rule.instead.to_owned()),
    }
}

/// The line and the column behind the last character.
fn end_of(text: &str, range: &Range<usize>) -> (u32, u32) {
    let end = text.floor_char_boundary(range.end.min(text.len()));
    let place = Place::of(text, end..end);
    (place.line, place.column)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::problem::nearest;

    /// A migration of these files.
    pub(super) fn input(name: &str, files: &[(&str, &str)]) -> Input {
        let bytes = files.iter().map(|(file, text)| ((*file).to_owned(), text.as_bytes().to_vec()));
        let folder = Folder { name: name.to_owned(), files: bytes.collect() };
        Input::read(&folder, &()).unwrap_or_else(|problems| {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            panic!("{}", lines.join("\n"))
        })
    }

    fn of_example(rule: &Rule, example: Example) -> Found {
        let levels = BTreeMap::from([(rule.name.to_owned(), Level::Error)]);
        lint(&[input("001-example", example)], &Settings { levels, new: BTreeSet::new() })
    }

    fn told(found: &Found) -> String {
        let lines = found.findings.iter().map(|finding| {
            let line = finding.place.as_ref().map_or(0, |place| place.line);
            let Finding { file, level, rule, message, .. } = finding;
            format!("{file}:{line}: {} {}: {message}\n", level.word(), rule.name)
        });
        lines.collect()
    }

    #[test]
    fn every_rule_finds_its_bad_example_and_not_its_good_one() {
        for rule in rules().filter(|rule| rule.about != About::Merge) {
            let bad = of_example(rule, rule.bad);
            assert!(
                bad.findings.iter().any(|finding| finding.rule == rule),
                "{} does not find its bad example:\n{}",
                rule.name,
                told(&bad)
            );
            let good = of_example(rule, rule.good);
            let left =
                good.findings.iter().filter(|it| it.rule == rule || it.level == Level::Error);
            assert_eq!(left.count(), 0, "{} finds its good example:\n{}", rule.name, told(&good));
        }
    }

    #[test]
    fn names_are_kebab_case_and_unlike_each_other() {
        let mut seen = BTreeSet::new();
        for rule in rules() {
            assert!(seen.insert(rule.name), "{} is there twice", rule.name);
            assert!(rule.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'));
            for text in [rule.what, rule.why, rule.instead] {
                assert!(text.ends_with('.') && text.trim() == text, "{}: {text}", rule.name);
            }
        }
        assert_eq!(nearest("index-without-concurently", seen), Some("index-without-concurrently"));
    }

    /// What the rules say of these files.
    #[expect(clippy::needless_pass_by_value, reason = "`expect![…]` reads better without `&`")]
    pub(super) fn check(files: &[(&str, &str)], expected: expect_test::Expect) {
        let found = lint(&[input("001-a", files)], &Settings::default());
        let mut text = told(&found).replace("001-a/", "");
        if found.suppressed > 0 {
            text.push_str(&format!("{} suppressed\n", found.suppressed));
        }
        expected.assert_eq(&text);
    }

    #[test]
    fn a_table_that_is_new_is_nobodys_problem() {
        let make = ("001-a", "CREATE TABLE a (id bigint PRIMARY KEY);");
        let index = ("002-b", "CREATE INDEX a_x ON a (x);");
        let inputs: Vec<Input> = [(make, "DROP TABLE a"), (index, "DROP INDEX a_x")]
            .iter()
            .map(|((folder, up), down)| input(folder, &[("up.sql", up), ("down.sql", down)]))
            .collect();
        let rules = |new: &[u64]| {
            let new = new.iter().copied().map(Version).collect();
            let found = lint(&inputs, &Settings { new, ..Settings::default() });
            found.findings.iter().map(|finding| finding.rule.name).collect::<Vec<_>>()
        };
        assert_eq!(rules(&[]), ["drop-index-without-concurrently", "index-without-concurrently"]);
        assert_eq!(rules(&[2]), ["drop-index-without-concurrently", "index-without-concurrently"]);
        assert_eq!(rules(&[1, 2]), Vec::<&str>::new());
    }

    #[test]
    fn a_rule_that_is_off_is_not_told_and_its_suppression_is_of_use() {
        let up = "-- lockstep:ignore drop-table nobody reads it since 2.1\nDROP TABLE a;";
        let input = [input("001-a", &[("up.sql", up), ("down.sql", "CREATE TABLE a ()")])];
        let found = lint(&input, &Settings::default());
        assert_eq!((told(&found), found.suppressed), (String::new(), 1));
        let levels = BTreeMap::from([("drop-table".to_owned(), Level::Off)]);
        let found = lint(&input, &Settings { levels, ..Settings::default() });
        assert_eq!((told(&found), found.suppressed), (String::new(), 0));
    }
}
