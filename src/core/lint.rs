//! Hazards in migrations, told from their files alone.
//!
//! A [`Rule`] looks at one migration and says what it found; each stands in a file
//! of its own, with what, why, what instead, and an example of both kinds that the
//! tests run. docs/lint is written from them. Suppressions and levels come after
//! the rules: what is switched off was looked for all the same, so that a
//! suppression is known to be of use.
//!
//! Reading order: [`Rule`], `view` (what the rules look at), `known` (hazards that
//! `squawk-linter` finds), `effects` (what statements do to the data), then any rule.

mod effects;
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
use crate::core::template::{Assumed, Vars};
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
    /// What a template has no value for: these names stand for themselves in it.
    pub lacking: Vec<Problem>,
}

impl Input {
    /// Reads a folder, with the variables of templates. Where a template has no value
    /// for a name, the name stands for itself.
    ///
    /// # Errors
    /// Everything that is wrong with it; of a template that is none with its names, what
    /// it lacks.
    pub fn read(folder: &Folder, vars: &dyn Vars) -> Result<Input, Vec<Problem>> {
        let lacking = folder::lacking(folder, vars);
        if lacking.is_empty() {
            return Input::filled(folder, vars);
        }
        let assumed = Assumed::new(vars, folder::variables(folder));
        match Input::filled(folder, &assumed) {
            Ok(input) => Ok(Input { lacking, ..input }),
            Err(_) => Err(lacking),
        }
    }

    fn filled(folder: &Folder, vars: &dyn Vars) -> Result<Input, Vec<Problem>> {
        let migration = folder::read_with(folder, vars)?;
        let texts = folder::texts_with(folder, vars).into_iter();
        let texts = texts.map(|(file, text)| (format!("{}/{file}", folder.name), text));
        Ok(Input { migration, texts: texts.collect(), lacking: Vec::new() })
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

    #[test]
    fn nothing_is_found_where_nobody_waits() {
        let down = "DROP TABLE IF EXISTS a, b, c; ALTER TABLE old DROP COLUMN IF EXISTS x;";
        for up in [
            "CREATE TABLE a (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0); CREATE INDEX a_n ON a (n); ALTER TABLE a ADD CHECK (n > 0); ALTER TABLE a ALTER n SET NOT NULL; UPDATE a SET n = 1; DELETE FROM a; TRUNCATE a; CREATE TRIGGER t BEFORE UPDATE ON a FOR EACH ROW EXECUTE FUNCTION f()",
            "CREATE TABLE public.a (id bigint PRIMARY KEY); CREATE INDEX ON a (id); ALTER TABLE a RENAME COLUMN id TO n",
            "CREATE TABLE IF NOT EXISTS \"a\" (id bigint); CREATE UNIQUE INDEX a_id ON a (id)",
            "CREATE TABLE a AS SELECT 1 AS id; ALTER TABLE a ADD PRIMARY KEY (id)",
            "CREATE TABLE a (id bigint REFERENCES old (id))",
            "CREATE TABLE a (id bigint) PARTITION BY RANGE (id); CREATE TABLE a_1 PARTITION OF a FOR VALUES FROM (1) TO (2)",
            "CREATE TEMP TABLE t (id bigint); INSERT INTO t SELECT 1; UPDATE t SET id = 2",
            "ALTER TABLE old ADD COLUMN x text",
            "ALTER TABLE old ADD COLUMN x bigint REFERENCES b (id)",
            "ALTER TABLE old ADD COLUMN x timestamptz NOT NULL DEFAULT now()",
            "ALTER TABLE old ADD COLUMN x text DEFAULT 'DROP TABLE b; VACUUM FULL'",
            "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS $$ DELETE FROM old; TRUNCATE old $$; DROP FUNCTION f()",
            "INSERT INTO old VALUES (1) ON CONFLICT (id) DO UPDATE SET n = 1",
            "SELECT * FROM old FOR UPDATE",
            "UPDATE old SET n = 1 WHERE id = 7",
            "DELETE FROM old USING b WHERE old.id = b.id",
            "COMMENT ON TABLE old IS 'DROP TABLE old'",
            "CREATE EXTENSION IF NOT EXISTS citext",
            "DO $$ BEGIN PERFORM 1; RAISE NOTICE 'DROP TABLE old'; END $$",
        ] {
            let found = lint(
                &[input("001-a", &[("up.sql", up), ("down.sql", down)])],
                &Settings::default(),
            );
            assert_eq!(told(&found), "", "{up}");
        }
    }

    #[test]
    fn what_goes_with_a_column_or_a_table_is_not_forgotten() {
        let up = "ALTER TABLE users ADD COLUMN email text, ADD CONSTRAINT email_said CHECK (email <> '') NOT VALID;\nCREATE INDEX CONCURRENTLY users_email ON users (email);\nCREATE INDEX CONCURRENTLY users_both ON users (id, lower(email));";
        check(
            &[("up.sql", up), ("down.sql", "ALTER TABLE users DROP COLUMN email")],
            expect_test::expect![""],
        );
        // Of another table, or not of that column.
        check(
            &[
                (
                    "up.sql",
                    "ALTER TABLE users ADD COLUMN email text;\nCREATE INDEX CONCURRENTLY users_id ON users (id);\nCREATE INDEX CONCURRENTLY others_email ON others (email);",
                ),
                ("down.sql", "ALTER TABLE users DROP COLUMN email"),
            ],
            expect_test::expect![[r#"
                up.sql:2: warn down-forgets: no down script names the index `users_id`: it stays behind, and the next `up` finds it in the way
                up.sql:3: warn down-forgets: no down script names the index `others_email`: it stays behind, and the next `up` finds it in the way
            "#]],
        );
    }

    #[test]
    fn what_cannot_be_read_is_told_and_may_be_suppressed() {
        let down = "ALTER TABLE a DROP COLUMN b;\nALTER TABLE a DROP COLUMN c;";
        check(
            &[
                (
                    "up.sql",
                    "ALTER TABLE a ADD COLUMN b int WITHOUT OVERLAP;\n-- lockstep:ignore unreadable-sql it adds a column, as the manual says\nALTER TABLE a ADD COLUMN c int WITHOUT OVERLAP;",
                ),
                ("down.sql", down),
            ],
            expect_test::expect![[r#"
                up.sql:1: warn unreadable-sql: nobody looked for hazards in this statement: it cannot be parsed; what it locks is not known
                1 suppressed
            "#]],
        );
        let up = "-- lockstep:ignore empty-script it comes with the next release\n-- ALTER TABLE a";
        check(
            &[
                ("up.sql", up),
                ("up.mongodb.js", "// nothing yet"),
                ("migration.toml", "irreversible = 'no'"),
            ],
            expect_test::expect![[r#"
                up.mongodb.js:1: warn empty-script: there is no statement in this migration, so `up` and `plan` refuse it
                1 suppressed
            "#]],
        );
    }

    #[test]
    fn hazards_in_a_block_are_found_at_their_place() {
        let up = "DO $$\nBEGIN\n  IF NOT EXISTS (SELECT 1) THEN\n    CREATE INDEX a_x ON a (x);\n  END IF;\n  EXECUTE 'VACUUM FULL a';\n  DELETE FROM a;\nEND $$;";
        check(
            &[("up.sql", up), ("down.sql", "DROP INDEX CONCURRENTLY a_x")],
            expect_test::expect![[r#"
                up.sql:4: error index-without-concurrently: while this index is built, every INSERT, UPDATE and DELETE on `a` waits (SHARE lock)
                up.sql:6: error rewrite-table: VACUUM FULL copies `a` behind an ACCESS EXCLUSIVE lock: all reads and writes wait until it is done
                up.sql:7: error delete-without-where: every row of `a` is deleted in one transaction: whoever writes one of them waits until all are
            "#]],
        );
    }

    #[test]
    fn what_only_mongosh_says_is_found() {
        let up = "db.a.bulkWrite([{ updateMany: { filter: {}, update: { $set: { x: 1 } } } }]);\ndb.a.deleteMany({ x: { $ne: 1 } });\ndb.runCommand({ collMod: 'a', index: { name: 'x', expireAfterSeconds: 5 } });\ndb.b.aggregate([{ $out: { db: 'shop', coll: 'a' } }]);\ndb.dropDatabase();\ndb.createCollection('c');\ndb.c.createIndex({ x: 1 }, { unique: true, expireAfterSeconds: 5 });\ndb.c.deleteMany({});\ndb.d.createIndex({ y: 1 }, { name: 'y' });";
        check(
            &[
                ("up.mongodb.js", up),
                ("down.mongodb.js", "db.c.drop();\ndb.d.dropIndex({ y: 1 });"),
            ],
            expect_test::expect![[r#"
                up.mongodb.js:1: error write-without-filter: every document of `a` is updated in one transaction, which the server ends after 60 s
                up.mongodb.js:2: warn unbounded-write: nothing bounds how many documents of `a` are deleted here, in one transaction, which the server ends after 60 s
                up.mongodb.js:3: warn ttl-index: within a minute the server deletes what is old enough in `a`, and no `down` brings it back
                up.mongodb.js:4: error out-overwrites: all documents of `a` are replaced, also those that others write meanwhile
                up.mongodb.js:5: error drop-database: everything in this database is gone, and no `down` brings it back
            "#]],
        );
    }
}
