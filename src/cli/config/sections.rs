//! The sections of the file that are not about databases.

use super::layers::{Layers, Origin};
use super::secret::SecretUrl;
use super::settings::{
    HookSettings, LintLevel, PostgresSettings, TelemetrySettings, ThrottleSettings,
};
use super::value::Value;
use super::{ConfigError, Flags, file, secret};
use std::collections::BTreeMap;
use std::path::Path;

/// A setting that has a default.
pub(super) fn required<T>(
    layers: &mut Layers<'_>,
    name: &'static str,
    into: fn(Value) -> T,
) -> Result<T, ConfigError> {
    Ok(into(layers.take(name)?.expect("KEYS gives this key a default")))
}

pub(super) fn history_schema(
    layers: &mut Layers<'_>,
    postgres: Option<&PostgresSettings>,
) -> Result<String, ConfigError> {
    const NAME: &str = "history.schema";
    if let Some(schema) = layers.take(NAME)? {
        return Ok(schema.into_text());
    }
    let (schema, origin) = match postgres.and_then(|postgres| postgres.schema.clone()) {
        Some(schema) => (schema, Origin::Setting("postgres.schema")),
        None => ("public".to_owned(), Origin::Default),
    };
    layers.origins.add(NAME, schema.clone(), origin);
    Ok(schema)
}

pub(super) fn throttle(layers: &mut Layers<'_>) -> Result<ThrottleSettings, ConfigError> {
    let some = |number: u64| (number > 0).then_some(number);
    Ok(ThrottleSettings {
        enabled: required(layers, "throttle.enabled", Value::into_flag)?,
        batch_time: required(layers, "throttle.batch_time", Value::into_duration)?,
        pause: required(layers, "throttle.pause", Value::into_duration)?,
        nice: layers.take("throttle.nice")?.map(Value::into_ratio),
        rate: some(required(layers, "throttle.rate", Value::into_count)?),
        window: required(layers, "throttle.window", Value::into_window)?,
        timezone: required(layers, "throttle.timezone", Value::into_timezone)?,
        max_replication_lag: required(
            layers,
            "throttle.max_replication_lag",
            Value::into_duration,
        )?,
        max_commit_latency: required(layers, "throttle.max_commit_latency", Value::into_duration)?,
        max_active_backends: some(required(
            layers,
            "throttle.max_active_backends",
            Value::into_count,
        )?),
    })
}

pub(super) fn hooks(layers: &mut Layers<'_>) -> Result<HookSettings, ConfigError> {
    let mut commands = |name| {
        let commands = layers.take(name)?;
        Ok::<_, ConfigError>(commands.map(Value::into_hooks).unwrap_or_default())
    };
    Ok(HookSettings {
        before_up: commands("hooks.before_up")?,
        after_up: commands("hooks.after_up")?,
        before_down: commands("hooks.before_down")?,
        after_down: commands("hooks.after_down")?,
        before_cleanup: commands("hooks.before_cleanup")?,
        after_cleanup: commands("hooks.after_cleanup")?,
        on_failure: commands("hooks.on_failure")?,
        timeout: required(layers, "hooks.timeout", Value::into_duration)?,
    })
}

pub(super) fn telemetry(
    layers: &mut Layers<'_>,
    root: &Path,
) -> Result<TelemetrySettings, ConfigError> {
    const PUSH: &str = "telemetry.push";
    let file = layers.take("telemetry.metrics_file")?.map(Value::into_text);
    let mut push = None;
    if let Some((url, _, origin)) = layers.in_file(PUSH)? {
        let url = SecretUrl::new(url.into_text());
        layers.origins.add(PUSH, url.to_string(), origin);
        push = Some(url);
    }
    Ok(TelemetrySettings { metrics_file: file.map(|file| root.join(file)), push })
}

pub(super) fn lint_levels(
    layers: &mut Layers<'_>,
) -> Result<BTreeMap<String, LintLevel>, ConfigError> {
    const SECTION: &str = "lint.levels.";
    let mut levels = BTreeMap::new();
    for name in names_below(layers, SECTION) {
        if let Some(level) = layers.take(&name)? {
            levels.insert(name[SECTION.len()..].to_owned(), level.into_level());
        }
    }
    Ok(levels)
}

/// The names of the file's keys that begin so.
fn names_below(layers: &Layers<'_>, section: &str) -> Vec<String> {
    let entries = layers.file.map(|file| file.entries(layers.selected.as_deref()));
    let names = entries.unwrap_or_default().into_iter().map(|entry| entry.name.clone());
    names.filter(|name| name.starts_with(section)).collect()
}

/// The variable that holds a var: `MIGRATE_VAR_SHARD_COUNT` for `shard-count`.
pub(super) fn variable_of(name: &str) -> String {
    format!("{VAR_PREFIX}{}", name.to_uppercase().replace('-', "_"))
}

const VAR_PREFIX: &str = "MIGRATE_VAR_";

pub(super) fn vars(
    layers: &mut Layers<'_>,
    flags: &Flags,
    names: &[String],
) -> Result<BTreeMap<String, String>, ConfigError> {
    const SECTION: &str = "vars.";
    let of_flags: BTreeMap<&str, &str> =
        flags.vars.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    if let Some(name) = of_flags.keys().find(|name| !file::is_variable_name(name)) {
        return Err(ConfigError::VarName { name: secret::redacted(name) });
    }
    let of_file: Vec<String> = names_below(layers, SECTION)
        .into_iter()
        .map(|name| name[SECTION.len()..].to_owned())
        .collect();
    let mut known: Vec<String> = of_flags.keys().map(|name| (*name).to_owned()).collect();
    known.extend(of_file);
    // What only the environment has is called as it would be in a template.
    for variable in names.iter().map(String::as_str).chain(layers.environment.dotenv_names()) {
        let Some(name) = variable.strip_prefix(VAR_PREFIX) else { continue };
        let is_known = known.iter().any(|known| variable_of(known) == variable);
        if !is_known && file::is_variable_name(name) {
            known.push(name.to_lowercase());
        }
    }
    known.sort();
    known.dedup();
    let mut vars = BTreeMap::new();
    for name in known {
        let key = format!("{SECTION}{name}");
        let value = if let Some(value) = of_flags.get(name.as_str()) {
            Some(((*value).to_owned(), Origin::Flag("--var")))
        } else if let Some(found) = layers.environment.find(&variable_of(&name)) {
            Some(found)
        } else {
            let found = layers.in_file(&key)?;
            found.map(|(value, _, origin)| (value.into_text(), origin))
        };
        if let Some((value, origin)) = value {
            let shown = if secret::is_secret_name(&name) && !value.is_empty() {
                "***".to_owned()
            } else {
                secret::redacted(&value)
            };
            layers.origins.add(key, shown, origin);
            vars.insert(name, value);
        }
    }
    Ok(vars)
}
