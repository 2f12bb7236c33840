//! Migrations beside those that were merged before: `migrate lint --base REF`.

use super::{About, Finding, Found, Input, Level, Rule, Settings};
use crate::core::id::Version;
use crate::core::parse::folder::parse_name;
use std::collections::{BTreeMap, BTreeSet};

/// What git knows of the migrations folder. Folders by their names.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Base {
    /// What people call it: `origin/main`.
    pub name: String,
    /// Folders that are there at the ref now.
    pub merged: BTreeSet<String>,
    /// Folders that were there where this branch left the ref.
    pub left: BTreeSet<String>,
    /// Files that are not as they were then, from the migrations folder.
    pub changed: BTreeSet<String>,
    /// Where this branch left the ref.
    pub commit: String,
}

impl Base {
    /// The migrations that are new: at neither place.
    pub fn new_versions(&self, inputs: &[Input]) -> BTreeSet<Version> {
        let migrations = inputs.iter().map(|input| &input.migration);
        let new = migrations.filter(|migration| !self.has(&migration.folder));
        new.map(|migration| migration.version).collect()
    }

    fn has(&self, folder: &str) -> bool {
        self.merged.contains(folder) || self.left.contains(folder)
    }

    /// Merged folders with files that are not what they were, and those files.
    pub fn edited(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut edited: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for path in &self.changed {
            let Some((folder, file)) = path.split_once('/') else { continue };
            // It is no part of a checksum.
            if self.left.contains(folder) && file != "README.md" {
                edited.entry(folder).or_default().push(file);
            }
        }
        edited
    }
}

/// What is wrong with the migrations beside those of the base.
pub fn compare(inputs: &[Input], base: &Base, settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |rule: &'static Rule, version: Version, file: &str, message: String| {
        let finding = Finding {
            rule,
            level: settings.level(rule),
            version,
            file: file.to_owned(),
            place: None,
            end: (1, 1),
            message,
            help: rule.instead.to_owned(),
        };
        findings.extend((finding.level != Level::Off).then_some(finding));
    };
    let version_of = |folder: &str| parse_name(folder).ok().map(|(version, _)| version);
    let merged: BTreeMap<Version, &str> = base
        .merged
        .iter()
        .filter_map(|folder| Some((version_of(folder)?, folder.as_str())))
        .collect();
    for input in inputs {
        let (version, folder) = (input.migration.version, &input.migration.folder);
        if base.has(folder) {
            continue;
        }
        let name = &base.name;
        if let Some(other) = merged.get(&version) {
            add(&BELOW, version, folder, format!("version {version} is that of {other} in {name}"));
        } else if let Some((_, newest)) =
            merged.last_key_value().filter(|(last, _)| **last > version)
        {
            let message = format!("{folder} sorts below {newest}, which is merged in {name}");
            add(&BELOW, version, folder, message);
        }
    }
    for (folder, files) in base.edited() {
        let here = inputs.iter().any(|input| input.migration.folder == folder);
        let message = match here {
            true => format!("{folder} was merged, and is edited here: {}", files.join(", ")),
            false => format!("{folder} was merged, and is gone here"),
        };
        add(&EDITED, version_of(folder).unwrap_or(Version(0)), folder, message);
    }
    findings
}

/// What was not found before: of a migration that was merged, only what its edit
/// brought along.
pub fn since(now: Found, before: &Found) -> Found {
    let mut old: Vec<(&str, &str, &str)> = before
        .findings
        .iter()
        .map(|finding| (finding.rule.name, finding.file.as_str(), finding.message.as_str()))
        .collect();
    let findings = now.findings.into_iter().filter(|finding| {
        let key = (finding.rule.name, finding.file.as_str(), finding.message.as_str());
        let at = old.iter().position(|old| *old == key);
        at.map(|at| old.swap_remove(at)).is_none()
    });
    Found { findings: findings.collect(), ..now }
}

pub(super) const RULES: &[&Rule] = &[&BELOW, &EDITED];

static BELOW: Rule = Rule {
    name: "sorts-below-merged",
    level: Level::Error,
    about: About::Merge,
    what: "A new migration whose version is not above all that are merged already.",
    why: "Databases that have applied the others refuse it as out of order; databases that are made anew apply it first. The order that was tested is not the order that runs.",
    instead: "Give the folder a number above all that are merged.",
    bad: &[],
    good: &[],
    check: |_| Vec::new(),
};

static EDITED: Rule = Rule {
    name: "edited-after-merge",
    level: Level::Error,
    about: About::Merge,
    what: "A migration that was merged and is edited or deleted.",
    why: "Where it is applied, its checksum no longer fits: `migrate up` refuses with CHECKSUM_MISMATCH or MISSING. Where it is not, something else is applied than everywhere else.",
    instead: "Restore the files, and write a new migration that leads from what they made to what you want.",
    bad: &[],
    good: &[],
    check: |_| Vec::new(),
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::lint::tests::input;
    use expect_test::{Expect, expect};

    #[expect(clippy::needless_pass_by_value, reason = "`expect![…]` reads better without `&`")]
    fn check(here: &[&str], merged: &[&str], left: &[&str], changed: &[&str], expected: Expect) {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let base = Base {
            name: "main".to_owned(),
            merged: set(merged),
            left: set(left),
            changed: set(changed),
            commit: String::new(),
        };
        let inputs: Vec<Input> = here.iter().map(|name| input(name, &[("up.sql", "")])).collect();
        let found = compare(&inputs, &base, &Settings::default());
        let new: Vec<String> = base.new_versions(&inputs).iter().map(ToString::to_string).collect();
        let mut text = format!("new: {}\n", new.join(" "));
        for finding in found {
            text.push_str(&format!("{}: {}\n", finding.rule.name, finding.message));
        }
        expected.assert_eq(&text);
    }

    #[test]
    fn a_new_migration_goes_above_all_that_are_merged() {
        check(
            &["001-a", "003-c", "005-e"],
            &["001-a", "004-d"],
            &["001-a"],
            &["003-c/up.sql", "005-e/up.sql"],
            expect![[r#"
                new: 003 005
                sorts-below-merged: 003-c sorts below 004-d, which is merged in main
            "#]],
        );
        check(
            &["001-a", "002-c"],
            &["001-a", "002-b"],
            &["001-a"],
            &[],
            expect![[r#"
                new: 002
                sorts-below-merged: version 002 is that of 002-b in main
            "#]],
        );
    }

    #[test]
    fn a_merged_migration_stays_what_it_is() {
        check(
            &["001-a", "003-c"],
            &["001-a", "002-b", "003-c"],
            &["001-a", "002-b", "003-c"],
            &["001-a/up.sql", "001-a/README.md", "002-b/up.sql", "003-c/README.md"],
            expect![[r#"
                new: 
                edited-after-merge: 001-a was merged, and is edited here: up.sql
                edited-after-merge: 002-b was merged, and is gone here
            "#]],
        );
    }
}
