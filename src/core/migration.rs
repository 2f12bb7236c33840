//! Migrations: folders that were read, checked and cut into steps.

use crate::core::checksum::Checksum;
use crate::core::id::{StoreName, Version};
use crate::core::parse::manifest::CleanupPolicy;
use crate::core::problem::Problem;
use crate::core::step::{Caller, Step};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// One folder.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Migration {
    /// Its number.
    pub version: Version,
    /// What follows the number: `add-user-preferences`.
    pub name: String,
    /// The folder's name as it is on disk: `001-add-user-preferences`.
    pub folder: String,
    /// From `migration.toml`, else the name with blanks.
    pub description: String,
    /// Over every file of the folder, see format.md.
    pub checksum: Checksum,
    /// What `up` does, in order.
    pub steps: Vec<Step>,
    /// What `down` needs, in the form in which the history keeps it.
    pub rollback: Rollback,
    /// Limits and wishes from `migration.toml`.
    pub options: Options,
    /// Its steps were filled in: their checksums are those of values too, while its
    /// own is that of the template.
    pub is_template: bool,
    /// What keeps it from being applied: names of a template that have no value here,
    /// and what its scripts leave to a person.
    pub unready: Vec<Problem>,
}

impl Migration {
    /// Whether it is a template without all of its values: nobody knows its steps.
    pub fn is_unfilled(&self) -> bool {
        self.is_template && self.steps.is_empty()
    }
}

/// Everything that reverts a migration, as the history keeps it: texts, not
/// steps, so that a later release of this program reads them with its own reader.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Rollback {
    /// The form of this document; 1.
    pub format: u32,
    /// The down scripts by name (`down.sql`, `prepare.down.mongodb.js`, …), their
    /// texts normalized.
    pub scripts: BTreeMap<String, String>,
    /// The order of the stores, as up has it; down runs it in reverse.
    pub order: Vec<String>,
    /// `transaction = false` was said.
    #[serde(default = "yes")]
    pub transaction: bool,
    /// The reason given in `irreversible`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub irreversible: Option<String>,
    /// `[timeouts]`, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_timeout_ms: Option<u64>,
    /// `[timeouts]`, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement_timeout_ms: Option<u64>,
    /// It has a phase `cleanup`: what of its down runs depends on whether that was
    /// begun.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_cleanup: bool,
    /// The text of `migration.toml`, if something in it reverts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
}

fn yes() -> bool {
    true
}

/// What a migration asks of the engine besides its steps.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Options {
    /// What to do when it fails.
    pub on_failure: OnFailure,
    /// Why it cannot be reverted.
    pub irreversible: Option<String>,
    /// Checked before anything is changed.
    pub requires: Requires,
    /// When its cleanup runs; if it does not say, the project does.
    pub cleanup: Option<CleanupPolicy>,
    /// May start behind a held migration although both touch a table.
    pub independent: bool,
    /// Between two phases.
    pub phase_pause: Duration,
}

/// What to do when a migration fails.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnFailure {
    /// Keep what is done; `up` continues there.
    #[default]
    Stop,
    /// Run its downs.
    Rollback,
}

/// What a migration needs of the servers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Requires {
    /// The least major and minor version of Postgres: `>=14` is `(14, 0)`.
    pub postgres: Option<(u32, u32)>,
    /// The least major and minor version of MongoDB.
    pub mongo: Option<(u32, u32)>,
    /// MongoDB must be a replica set or sharded: it must have transactions.
    pub replica_set: bool,
}

/// All migrations of a project, sorted by version, each version once: true by
/// construction, because [`MigrationSet::new`] is the only way in.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MigrationSet {
    migrations: Vec<Migration>,
    /// The functions that this program has for them.
    functions: BTreeSet<(Caller, String)>,
}

impl MigrationSet {
    /// Sorts. Two folders of one version are a problem.
    ///
    /// # Errors
    /// Names both folders.
    pub fn new(mut migrations: Vec<Migration>) -> Result<MigrationSet, Problem> {
        migrations.sort_by(|a, b| (a.version, &a.folder).cmp(&(b.version, &b.folder)));
        for pair in migrations.windows(2) {
            if pair[0].version == pair[1].version {
                let message = format!(
                    "version {} is also the version of {}",
                    pair[1].version, pair[0].folder
                );
                return Err(Problem::whole(&pair[1].folder, message)
                    .hint("give one of the two folders another number"));
            }
        }
        Ok(MigrationSet { migrations, functions: BTreeSet::new() })
    }

    /// The same, in a project that has no Postgres: its programs are remembered in
    /// MongoDB.
    #[must_use]
    pub fn remembered_in_mongo(mut self) -> MigrationSet {
        for step in self.migrations.iter_mut().flat_map(|migration| &mut migration.steps) {
            step.remember_in_mongo();
        }
        self
    }

    /// In a program that has functions of these names, which its migrations may call.
    #[must_use]
    pub fn with_functions<'a>(
        mut self,
        functions: impl IntoIterator<Item = (Caller, &'a str)>,
    ) -> MigrationSet {
        self.functions.extend(functions.into_iter().map(|(by, name)| (by, name.to_owned())));
        self
    }

    /// Whether this program has a function of that name for that caller.
    pub fn has_function(&self, caller: Caller, name: &str) -> bool {
        self.functions.iter().any(|(by, function)| *by == caller && function == name)
    }

    /// In order.
    pub fn iter(&self) -> std::slice::Iter<'_, Migration> {
        self.migrations.iter()
    }

    /// The migration of a version.
    pub fn get(&self, version: Version) -> Option<&Migration> {
        let at =
            self.migrations.binary_search_by_key(&version, |migration| migration.version).ok()?;
        Some(&self.migrations[at])
    }

    /// The newest version.
    pub fn newest(&self) -> Option<Version> {
        self.migrations.last().map(|migration| migration.version)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.migrations.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.migrations.is_empty()
    }
}

impl<'a> IntoIterator for &'a MigrationSet {
    type Item = &'a Migration;
    type IntoIter = std::slice::Iter<'a, Migration>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Rollback {
    /// The order in which the stores went up.
    pub fn stores(&self) -> [StoreName; 2] {
        match self.order.first().map(String::as_str) {
            Some("mongo") => [StoreName::Mongo, StoreName::Postgres],
            _ => [StoreName::Postgres, StoreName::Mongo],
        }
    }
}
