//! The keys at the top of the file, `requires` and `[timeouts]`.

use super::Manifest;
use super::table::{Table, Value};
use crate::core::id::StoreName;
use crate::core::migration::{OnFailure, Requires};
use crate::core::parse::sql::Transaction;
use crate::core::problem::{Place, Problem};
use crate::core::step::Timeouts;
use std::ops::Range;
use std::time::Duration;

/// A value, and where it or its key stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where.
    pub place: Place,
}

/// When a cleanup runs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum CleanupPolicy {
    /// With the rest of its migration, if its invariants hold.
    #[default]
    Auto,
    /// When `migrate cleanup` says so.
    Hold,
    /// When the next release goes up.
    NextRelease,
}

/// What Postgres takes for a timeout: milliseconds in 31 bits, some 24 days.
const TIMEOUT_MAX: Duration = Duration::from_millis(i32::MAX as u64);

/// Reads them.
pub(super) fn read(root: &mut Table<'_>, manifest: &mut Manifest) {
    if let Some(value) = root.get("description") {
        manifest.description =
            value.string("\"Add user preferences\"").map(|text| text.value.trim().to_owned());
    }
    if let Some(order) = root.get("order").and_then(|value| order(&value)) {
        manifest.order = order;
    }
    if let Some(value) = root.get("irreversible") {
        manifest.irreversible =
            value.string("\"the old column's data is gone\"").map(|text| text.value.to_owned());
    }
    if root.get("transaction").and_then(|value| value.boolean()) == Some(false) {
        manifest.transaction = Transaction::Off;
    }
    manifest.template = at(root, "template", Value::boolean);
    manifest.on_failure = at(root, "on_failure", |value| {
        value.word(&[("stop", OnFailure::Stop), ("rollback", OnFailure::Rollback)])
    });
    manifest.cleanup = at(root, "cleanup", |value| {
        value.word(&[
            ("auto", CleanupPolicy::Auto),
            ("hold", CleanupPolicy::Hold),
            ("next-release", CleanupPolicy::NextRelease),
        ])
    });
    manifest.independent = at(root, "independent", Value::boolean);
    manifest.phase_pause = at(root, "phase_pause", |value| value.duration("\"30s\""));
    if let Some(value) = root.get("requires") {
        let example = "{ postgres = \">=14\", mongo = \">=5.0, replica-set\" }";
        manifest.requires = value.table(example).map(requires).unwrap_or_default();
    }
    if let Some(value) = root.get("timeouts") {
        manifest.timeouts = value.table("{ lock = \"3s\" }").map(timeouts).unwrap_or_default();
    }
}

fn at<'a, T>(
    root: &mut Table<'a>,
    key: &'static str,
    read: impl FnOnce(&Value<'a>) -> Option<T>,
) -> Option<At<T>> {
    let key = root.get(key)?;
    read(&key).map(|value| At { value, place: key.place() })
}

fn order(value: &Value<'_>) -> Option<[StoreName; 2]> {
    let example = "[\"postgres\", \"mongo\"]";
    let words = value.strings(example)?;
    let stores: Vec<Result<StoreName, _>> =
        words.iter().map(|word| word.value.parse::<StoreName>()).collect();
    match stores.as_slice() {
        [Ok(first), Ok(second)] if first != second => Some([*first, *second]),
        _ => {
            value.complain(
                "`order` must name both stores, each once",
                format!("write `order = {example}` or `order = [\"mongo\", \"postgres\"]`"),
            );
            None
        }
    }
}

fn requires(mut table: Table<'_>) -> Requires {
    let mut requires = Requires::default();
    if let Some(text) = table.get("postgres").and_then(|value| value.string("\">=14\"")) {
        for (range, part) in parts(text.value) {
            if let Some(version) = least(part) {
                requires.postgres = Some(version);
                continue;
            }
            let message = format!("`{part}` is not something that Postgres can be required to be");
            let hint = "write the least version, for example `postgres = \">=14\"`";
            text.lift(Problem::at(text.value, range, message).hint(hint), 0);
        }
    }
    if let Some(text) = table.get("mongo").and_then(|value| value.string("\">=5.0\"")) {
        for (range, part) in parts(text.value) {
            match (part, least(part)) {
                ("replica-set", _) => requires.replica_set = true,
                (_, Some(version)) => requires.mongo = Some(version),
                (_, None) => {
                    let message =
                        format!("`{part}` is not something that MongoDB can be required to be");
                    let hint = "write the least version, `replica-set`, or both: `mongo = \">=5.0, replica-set\"`";
                    text.lift(Problem::at(text.value, range, message).hint(hint), 0);
                }
            }
        }
    }
    table.finish();
    requires
}

/// What stands between commas, and where.
fn parts(text: &str) -> Vec<(Range<usize>, &str)> {
    let mut parts = Vec::new();
    let mut offset = 0;
    for part in text.split(',') {
        let start = offset + part.len() - part.trim_start().len();
        offset += part.len() + 1;
        let part = part.trim();
        parts.push((start..start + part.len(), part));
    }
    parts
}

/// `>=14` is `(14, 0)`.
fn least(text: &str) -> Option<(u32, u32)> {
    let version = text.strip_prefix(">=")?.trim_start();
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten()
    };
    match version.split_once('.') {
        Some((major, minor)) => Some((number(major)?, number(minor)?)),
        None => Some((number(version)?, 0)),
    }
}

fn timeouts(mut table: Table<'_>) -> Timeouts {
    let mut timeout = |key, example| {
        let value = table.get(key)?;
        let duration = value.duration(example)?;
        if duration.is_zero() {
            value.complain(
                format!("a `{key}` timeout of 0 is no limit at all in Postgres"),
                "leave the key out for the default, or write a long time",
            );
            return None;
        }
        if duration > TIMEOUT_MAX {
            value.complain(
                format!("a `{key}` timeout has 24 days at most"),
                "write a shorter time, or leave the key out",
            );
            return None;
        }
        Some(duration)
    };
    let timeouts =
        Timeouts { lock: timeout("lock", "\"3s\""), statement: timeout("statement", "\"10m\"") };
    table.finish();
    timeouts
}

#[cfg(test)]
mod tests {
    use super::super::{check, read};
    use super::*;
    use expect_test::expect;

    #[test]
    fn options_are_read() {
        let text = "description = ' Stock '\norder = ['mongo', 'postgres']\nirreversible = 'gone'\n\
            transaction = false\ntemplate = true\non_failure = 'rollback'\ncleanup = 'next-release'\n\
            independent = true\nphase_pause = '30s'\n\
            requires = { postgres = '>=14', mongo = '>= 5.0 , replica-set' }\n\
            timeouts = { lock = '250ms', statement = '1h' }";
        let manifest = read(text).expect("every key is right");
        assert_eq!(manifest.description.as_deref(), Some("Stock"));
        assert_eq!(manifest.order, [StoreName::Mongo, StoreName::Postgres]);
        assert_eq!(manifest.irreversible.as_deref(), Some("gone"));
        assert_eq!(manifest.transaction, Transaction::Off);
        let at = manifest.on_failure.expect("it is there");
        assert_eq!((at.value, at.place.line, at.place.column), (OnFailure::Rollback, 6, 1));
        assert_eq!(manifest.template.map(|at| at.value), Some(true));
        assert_eq!(manifest.cleanup.map(|at| at.value), Some(CleanupPolicy::NextRelease));
        assert_eq!(manifest.independent.map(|at| at.value), Some(true));
        assert_eq!(manifest.phase_pause.map(|at| at.value), Some(Duration::from_secs(30)));
        let requires = Requires { postgres: Some((14, 0)), mongo: Some((5, 0)), replica_set: true };
        assert_eq!(manifest.requires, requires);
        let lock = Some(Duration::from_millis(250));
        assert_eq!(manifest.timeouts, Timeouts { lock, statement: Some(Duration::from_hours(1)) });
    }

    #[test]
    fn a_string_must_be_a_string_that_says_something() {
        check(
            "description = 7",
            &expect![[
                r#":1:15: `description` must be a string, not a whole number; for example `description = "Add user preferences"`"#
            ]],
        );
        check(
            "description = ' '",
            &expect![[
                r#":1:15: `description` is empty; write something, for example `description = "Add user preferences"`"#
            ]],
        );
        check(
            "\n  irreversible = true",
            &expect![[
                r#":2:18: `irreversible` must be a string, not true or false; for example `irreversible = "the old column's data is gone"`"#
            ]],
        );
        check(
            "irreversible = ''",
            &expect![[
                r#":1:16: `irreversible` is empty; write something, for example `irreversible = "the old column's data is gone"`"#
            ]],
        );
    }

    #[test]
    fn an_order_names_both_stores_once() {
        check(
            "order = 'mongo'",
            &expect![[
                r#":1:9: `order` must be a list of strings, not a string; for example `order = ["postgres", "mongo"]`"#
            ]],
        );
        check(
            "order = []",
            &expect![[r#":1:9: `order` is empty; for example `order = ["postgres", "mongo"]`"#]],
        );
        check(
            "order = [1]",
            &expect![[
                r#":1:10: `order` must be a list of strings, not of a whole number; for example `order = ["postgres", "mongo"]`"#
            ]],
        );
        check("order = ['']", &expect![":1:10: `order` has an empty string in it; leave it out"]);
        check(
            "order = ['mongo']",
            &expect![[
                r#":1:9: `order` must name both stores, each once; write `order = ["postgres", "mongo"]` or `order = ["mongo", "postgres"]`"#
            ]],
        );
        check(
            "order = ['mongo', 'mongo']",
            &expect![[
                r#":1:9: `order` must name both stores, each once; write `order = ["postgres", "mongo"]` or `order = ["mongo", "postgres"]`"#
            ]],
        );
        check(
            "order = ['postgres', 'mongodb']",
            &expect![[
                r#":1:9: `order` must name both stores, each once; write `order = ["postgres", "mongo"]` or `order = ["mongo", "postgres"]`"#
            ]],
        );
        check(
            "order = ['postgres', 'mongo', 'postgres']",
            &expect![[
                r#":1:9: `order` must name both stores, each once; write `order = ["postgres", "mongo"]` or `order = ["mongo", "postgres"]`"#
            ]],
        );
    }

    #[test]
    fn a_flag_is_true_or_false() {
        check(
            "transaction = 'off'",
            &expect![
                ":1:15: `transaction` must be true or false, not a string; for example `transaction = true`"
            ],
        );
        check(
            "independent = 1",
            &expect![
                ":1:15: `independent` must be true or false, not a whole number; for example `independent = true`"
            ],
        );
        check(
            "template = 1979-05-27",
            &expect![
                ":1:12: `template` must be true or false, not a date; for example `template = true`"
            ],
        );
    }

    #[test]
    fn a_word_is_one_of_its_words() {
        check(
            "on_failure = 'rolback'",
            &expect![":1:14: `rolback` is not a value of `on_failure`; did you mean `rollback`?"],
        );
        check(
            "on_failure = 'explode'",
            &expect![
                ":1:14: `explode` is not a value of `on_failure`; write one of `stop` and `rollback`"
            ],
        );
        check(
            "on_failure = false",
            &expect![[
                r#":1:14: `on_failure` must be a string, not true or false; for example `on_failure = "stop"`"#
            ]],
        );
        check(
            "cleanup = 'next_release'",
            &expect![
                ":1:11: `next_release` is not a value of `cleanup`; did you mean `next-release`?"
            ],
        );
        check(
            "cleanup = 'never'",
            &expect![
                ":1:11: `never` is not a value of `cleanup`; write one of `auto`, `hold` and `next-release`"
            ],
        );
    }

    #[test]
    fn a_duration_has_a_unit() {
        check(
            "phase_pause = 30",
            &expect![[
                r#":1:15: `phase_pause` must be a duration, not a whole number; for example `phase_pause = "30s"`"#
            ]],
        );
        check(
            "phase_pause = '30'",
            &expect![
                ":1:15: `30` is not a duration; write a whole number and a unit: `250ms`, `30s`, `10m` or `1h`"
            ],
        );
        check(
            "[timeouts]\nlock = '1.5s'",
            &expect![
                ":2:8: `1.5s` is not a duration; write a whole number and a unit: `250ms`, `30s`, `10m` or `1h`"
            ],
        );
        check(
            "timeouts = '3s'",
            &expect![[
                r#":1:12: `timeouts` must be a table, not a string; for example `timeouts = { lock = "3s" }`"#
            ]],
        );
    }

    #[test]
    fn a_timeout_is_one_that_postgres_takes() {
        check(
            "[timeouts]\nlock = '0s'\nstatement = '600h'",
            &expect![[r#"
            :2:8: a `lock` timeout of 0 is no limit at all in Postgres; leave the key out for the default, or write a long time
            :3:13: a `statement` timeout has 24 days at most; write a shorter time, or leave the key out"#]],
        );
    }

    #[test]
    fn requirements_are_versions_and_a_replica_set() {
        check(
            "requires = 14",
            &expect![[
                r#":1:12: `requires` must be a table, not a whole number; for example `requires = { postgres = ">=14", mongo = ">=5.0, replica-set" }`"#
            ]],
        );
        check(
            "requires = { postgres = 14 }",
            &expect![[
                r#":1:25: `postgres` must be a string, not a whole number; for example `postgres = ">=14"`"#
            ]],
        );
        check(
            "requires = { postgres = '14' }",
            &expect![[
                r#":1:26: `14` is not something that Postgres can be required to be; write the least version, for example `postgres = ">=14"`"#
            ]],
        );
        check(
            "requires = { postgres = '>=14, replica-set' }",
            &expect![[
                r#":1:32: `replica-set` is not something that Postgres can be required to be; write the least version, for example `postgres = ">=14"`"#
            ]],
        );
        check(
            "requires = { mongo = '>=5.0, replicaset' }",
            &expect![[
                r#":1:30: `replicaset` is not something that MongoDB can be required to be; write the least version, `replica-set`, or both: `mongo = ">=5.0, replica-set"`"#
            ]],
        );
        check(
            "requires = { mongo = '>=5.0.1' }",
            &expect![[
                r#":1:23: `>=5.0.1` is not something that MongoDB can be required to be; write the least version, `replica-set`, or both: `mongo = ">=5.0, replica-set"`"#
            ]],
        );
        check(
            "requires = { mongo = '' }",
            &expect![[
                r#":1:22: `mongo` is empty; write something, for example `mongo = ">=5.0"`"#
            ]],
        );
    }
}
