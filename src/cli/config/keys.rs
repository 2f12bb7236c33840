//! Every key of `migrate.toml`: its type, limits, default and an example.
//! docs/config.md is held against this table by a test.

use super::secret;
use super::value::{Kind, Raw, Value, Written};
use crate::core::problem::nearest;

/// One key.
pub(super) struct Key {
    /// With its sections: `throttle.batch_time`. `*` stands for any last name.
    pub name: &'static str,
    pub kind: Kind,
    /// As somebody would write it.
    pub default: Option<&'static str>,
    /// As it stands in the file, behind the `=`.
    pub example: &'static str,
}

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// As `humantime` counts it: 365.25 days.
const YEAR: u64 = 8766 * HOUR;

const fn key(
    name: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    example: &'static str,
) -> Key {
    Key { name, kind, default, example }
}

/// All of them, in the order in which they are shown.
pub(super) const KEYS: &[Key] = &[
    key("dir", Kind::Path, Some("migrations"), r#""db/migrations""#),
    key("lock_wait", Kind::Duration(0, DAY), Some("60s"), r#""5m""#),
    key("timeout", Kind::OptionalDuration(1, 30 * DAY), Some(""), r#""10m""#),
    key("postgres.url", Kind::Text, None, r#""${DATABASE_URL}""#),
    key("postgres.url_file", Kind::Path, None, r#""/run/secrets/postgres-url""#),
    key(
        "postgres.password_command",
        Kind::Command,
        None,
        r#"["vault", "read", "-field=password", "db/app"]"#,
    ),
    key("postgres.schema", Kind::Schema, None, r#""shop""#),
    key("postgres.sslmode", Kind::SslMode, None, r#""verify-full""#),
    key("postgres.sslrootcert", Kind::Path, None, r#""rds-ca.pem""#),
    key("postgres.sslcert", Kind::Path, None, r#""client.crt""#),
    key("postgres.sslkey", Kind::Path, None, r#""client.key""#),
    key("mongo.url", Kind::Text, None, r#""${MONGODB_URI}""#),
    key("mongo.url_file", Kind::Path, None, r#""/run/secrets/mongodb-uri""#),
    key(
        "mongo.password_command",
        Kind::Command,
        None,
        r#"["vault", "read", "-field=password", "mongo/app"]"#,
    ),
    key("history.schema", Kind::Schema, None, r#""lockstep""#),
    key("cleanup.policy", Kind::Policy, Some("auto"), r#""next-release""#),
    key("cleanup.require_backup", Kind::OptionalDuration(MINUTE, YEAR), Some(""), r#""24h""#),
    key("throttle.enabled", Kind::Flag, Some("true"), "false"),
    key("throttle.batch_time", Kind::Duration(1, MINUTE), Some("100ms"), r#""250ms""#),
    key("throttle.pause", Kind::Duration(0, HOUR), Some("0ms"), r#""50ms""#),
    key("throttle.nice", Kind::Ratio(100.0), None, "0.0"),
    key("throttle.rate", Kind::Count(1_000_000_000), Some("0"), "5000"),
    key("throttle.window", Kind::Window, Some(""), r#""22:00-06:00""#),
    key("throttle.timezone", Kind::Timezone, Some("UTC"), r#""Europe/Berlin""#),
    key("throttle.max_replication_lag", Kind::Duration(1, DAY), Some("5s"), r#""10s""#),
    key("throttle.max_commit_latency", Kind::Duration(1, MINUTE), Some("100ms"), r#""200ms""#),
    key("throttle.max_active_backends", Kind::Count(100_000), Some("0"), "40"),
    key("hooks.before_up", Kind::Hooks, None, r#"["./backup.sh"]"#),
    key("hooks.after_up", Kind::Hooks, None, r#"["./warm-cache.sh"]"#),
    key("hooks.before_down", Kind::Hooks, None, r#"["./backup.sh"]"#),
    key("hooks.after_down", Kind::Hooks, None, r#"[["./notify.sh", "reverted"]]"#),
    key("hooks.before_cleanup", Kind::Hooks, None, r#"["./backup.sh"]"#),
    key("hooks.after_cleanup", Kind::Hooks, None, r#"[["./notify.sh", "cleaned up"]]"#),
    key("hooks.on_failure", Kind::Hooks, None, r#"["./notify.sh"]"#),
    key("hooks.timeout", Kind::Duration(SECOND, DAY), Some("10m"), r#""1h""#),
    key("telemetry.metrics_file", Kind::Path, None, r#""/var/lib/node_exporter/lockstep.prom""#),
    key("telemetry.push", Kind::Text, None, r#""${PUSHGATEWAY_URL}""#),
    key("lint.levels.*", Kind::Level, None, r#""warn""#),
    key("vars.*", Kind::Variable, None, r#""eu-1""#),
];

/// The sections whose keys are names that somebody chose.
const MAPS: [&str; 2] = ["lint.levels", "vars"];

/// The key of that name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name).or_else(|| {
        let map = MAPS.iter().find(|map| {
            name.strip_prefix(**map).is_some_and(|rest| rest.starts_with('.') && rest.len() > 1)
        })?;
        KEYS.iter().find(|key| key.name.strip_suffix(".*") == Some(map))
    })
}

/// Whether keys begin with this name and a dot.
pub(super) fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| key.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

/// What to write instead of a key that does not exist. `[env.NAME]` are valid at
/// the root of the file only.
pub(super) fn hint(section: &str, word: &str, has_envs: bool) -> String {
    let prefix = if section.is_empty() { String::new() } else { format!("{section}.") };
    let here = |key: &Key| {
        let rest = key.name.strip_prefix(&prefix)?;
        Some(rest.split_once('.').map_or(rest, |(section, _)| section).to_owned())
    };
    let mut valid: Vec<String> = KEYS.iter().filter_map(here).collect();
    if has_envs {
        valid.push("env".to_owned());
    }
    valid.dedup();
    if let Some(meant) = nearest(word, valid.iter().map(String::as_str)) {
        return format!("did you mean `{prefix}{meant}`?");
    }
    if word.contains("password") {
        return "put it into the url, into url_file, or have password_command print it".to_owned();
    }
    let last = |key: &'static Key| key.name.rsplit_once('.').map_or(key.name, |(_, last)| last);
    if let Some(key) = KEYS.iter().find(|key| last(key) == word) {
        return format!("did you mean `{}`?", key.name);
    }
    format!("valid here: {}", valid.join(", "))
}

impl Key {
    /// Reads and checks a value.
    ///
    /// # Errors
    /// What was wanted, and what there is instead: `wants an integer from 0 to 10, not "x"`.
    pub(super) fn read(&self, raw: &Raw, written: Written) -> Result<Value, String> {
        self.kind.read(raw, written).ok_or_else(|| {
            let is = match raw {
                Raw::Text(text)
                    if self.kind.is_read_from_text() || written == Written::WithVariables =>
                {
                    format!("\"{}\"", secret::redacted(text))
                }
                Raw::Integer(number) if matches!(self.kind, Kind::Count(_) | Kind::Ratio(_)) => {
                    number.to_string()
                }
                Raw::Float(number) if matches!(self.kind, Kind::Ratio(_)) => number.to_string(),
                other => other.called().to_owned(),
            };
            format!("wants {}, not {is}", self.kind.wants())
        })
    }

    /// The value when nobody says anything.
    pub(super) fn default_value(&self) -> Option<Value> {
        let default = Raw::Text(self.default?.to_owned());
        Some(self.read(&default, Written::WithVariables).expect("a default is valid"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_valid() {
        for key in KEYS {
            assert_eq!(key.default_value().is_some(), key.default.is_some(), "{}", key.name);
        }
    }

    #[test]
    fn names_are_unique_and_found() {
        for key in KEYS {
            let found = find(&key.name.replace('*', "any.thing")).expect("is there");
            assert_eq!(found.name, key.name);
        }
        assert!(find("vars").is_none() && find("vars.").is_none() && find("postgres").is_none());
        assert!(is_section("lint") && is_section("lint.levels") && !is_section("lin"));
    }

    const DOCUMENT: &str = include_str!("../../../docs/config.md");

    #[test]
    fn the_document_has_a_row_for_every_key() {
        for key in KEYS {
            let row = format!("| `{}` | {} | ", key.name, key.kind.wants());
            let row = DOCUMENT.lines().find_map(|line| line.strip_prefix(row.as_str()));
            let row =
                row.unwrap_or_else(|| panic!("no row for {}: {}", key.name, key.kind.wants()));
            let (default, rest) = row.split_once(" | ").expect("a row has five cells");
            let bare = matches!(key.kind, Kind::Flag | Kind::Count(_) | Kind::Ratio(_));
            match key.default {
                Some(value) if bare => assert_eq!(default, format!("`{value}`"), "{}", key.name),
                Some(value) => assert_eq!(default, format!("`\"{value}\"`"), "{}", key.name),
                // Its default is another setting.
                None if key.name == "history.schema" => assert!(default.contains("public")),
                None => assert_eq!(default, "none", "{}", key.name),
            }
            assert!(rest.starts_with(&format!("`{}` | ", key.example)), "{}: {rest}", key.name);
        }
    }

    #[test]
    fn the_document_has_no_key_that_is_not_there() {
        for line in DOCUMENT
            .lines()
            .filter(|line| line.contains(" holds | default |") || line.starts_with("| `"))
        {
            let name = line.split('`').nth(1).unwrap_or_default();
            let has_example = line.matches(" | ").count() >= 4;
            assert!(
                !has_example
                    || line.starts_with("| key")
                    || KEYS.iter().any(|key| key.name == name),
                "{line}"
            );
        }
    }
}
