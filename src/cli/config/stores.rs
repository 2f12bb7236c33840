//! Where the two databases are.

use super::ConfigError;
use super::file::Entry;
use super::layers::{Layers, Origin};
use super::secret::{SecretUrl, redacted};
use super::settings::{MongoSettings, PasswordCommand, PostgresSettings};
use super::value::Value;
use crate::core::id::StoreName;
use crate::store::postgres::Fallbacks;
use std::path::Path;
use std::sync::Arc;

/// The variables of a store, the first that is set counts.
pub(super) fn variables(store: StoreName) -> &'static [&'static str] {
    match store {
        StoreName::Postgres => &["DATABASE_URL", "POSTGRESQL_URI", "POSTGRES_URL"],
        StoreName::Mongo => &["MONGODB_URI", "MONGODB_URL", "MONGO_URL"],
    }
}

/// The section of a store in the file.
pub(super) fn section(store: StoreName) -> &'static str {
    match store {
        StoreName::Postgres => "postgres",
        StoreName::Mongo => "mongo",
    }
}

/// The flag of a store.
pub(super) fn flag_name(store: StoreName) -> &'static str {
    match store {
        StoreName::Postgres => "--postgres",
        StoreName::Mongo => "--mongo",
    }
}

/// As it is called in messages.
pub(super) fn called(store: StoreName) -> &'static str {
    match store {
        StoreName::Postgres => "Postgres",
        StoreName::Mongo => "MongoDB",
    }
}

/// `[postgres]`; `None` if this project has no Postgres.
pub(super) fn postgres(
    layers: &mut Layers<'_>,
    root: &Path,
    flag: Option<&str>,
) -> Result<Option<PostgresSettings>, ConfigError> {
    const STORE: StoreName = StoreName::Postgres;
    let Some(url) = url(layers, root, STORE, flag)? else { return Ok(None) };
    let schema = layers.take("postgres.schema")?.map(Value::into_text);
    let mut fallbacks = Fallbacks::default();
    if let Some(mode) = layers.take("postgres.sslmode")? {
        fallbacks.push("sslmode", mode.into_ssl_mode().word());
    }
    for (key, name) in [
        ("postgres.sslrootcert", "sslrootcert"),
        ("postgres.sslcert", "sslcert"),
        ("postgres.sslkey", "sslkey"),
    ] {
        let Some(path) = layers.take(key)?.map(Value::into_text) else { continue };
        // The authorities of the operating system, as libpq has it.
        let is_system = name == "sslrootcert" && path == "system";
        let path = if is_system { path } else { root.join(path).to_string_lossy().into_owned() };
        fallbacks.push(name, path);
    }
    for (variable, name) in LIBPQ {
        let Some((value, origin)) = layers.environment.find(variable) else { continue };
        if !value.is_empty() {
            let shown = if *name == "password" { "***".to_owned() } else { redacted(&value) };
            layers.origins.add(*variable, shown, origin);
            fallbacks.push(name, value);
        }
    }
    if let Some(home) = layers.environment.get("HOME").filter(|home| !home.is_empty()) {
        fallbacks.push("passfile", format!("{home}/.pgpass"));
    }
    let has_password = fallbacks.get("password").is_some();
    let password_command = match has_password {
        true => None,
        false => password_command(layers, STORE, &url)?,
    };
    Ok(Some(PostgresSettings { url, schema, fallbacks, password_command }))
}

/// libpq's variables, each with the parameter that it stands for. They say what a URL
/// leaves open; that there is a database, they do not say.
const LIBPQ: &[(&str, &str)] = &[
    ("PGHOST", "host"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGPORT", "port"),
    ("PGDATABASE", "dbname"),
    ("PGUSER", "user"),
    ("PGPASSWORD", "password"),
    ("PGPASSFILE", "passfile"),
    ("PGOPTIONS", "options"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLNEGOTIATION", "sslnegotiation"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGSERVICE", "service"),
];

/// `[mongo]`; `None` if this project has no MongoDB.
pub(super) fn mongo(
    layers: &mut Layers<'_>,
    root: &Path,
    flag: Option<&str>,
) -> Result<Option<MongoSettings>, ConfigError> {
    const STORE: StoreName = StoreName::Mongo;
    let Some(url) = url(layers, root, STORE, flag)? else { return Ok(None) };
    let password_command = password_command(layers, STORE, &url)?;
    Ok(Some(MongoSettings { url, password_command }))
}

/// The URL of the highest layer that says something; an empty one says that there
/// is no such database.
fn url(
    layers: &mut Layers<'_>,
    root: &Path,
    store: StoreName,
    flag: Option<&str>,
) -> Result<Option<SecretUrl>, ConfigError> {
    let of_flag = flag.map(|url| (url.to_owned(), Origin::Flag(flag_name(store))));
    let given = of_flag.or_else(|| layers.environment.first(variables(store)));
    let found = match given {
        Some(found) => Some(found),
        None => url_in_file(layers, root, store)?,
    };
    let Some((text, origin)) = found else {
        return match settings_without_url(layers, store) {
            Some(problem) => Err(ConfigError::NoUrl { store, problem: Box::new(problem) }),
            None => Ok(None),
        };
    };
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let url = SecretUrl::new(text);
    if let Err(why) = check(store, &url) {
        return Err(ConfigError::Url { store, origin: Box::new(origin), why });
    }
    layers.origins.add(format!("{}.url", section(store)), url.to_string(), origin);
    Ok(Some(url))
}

fn url_in_file(
    layers: &mut Layers<'_>,
    root: &Path,
    store: StoreName,
) -> Result<Option<(String, Origin)>, ConfigError> {
    let Some(file) = layers.file else { return Ok(None) };
    let selected = layers.selected.clone();
    let section = section(store);
    let (url, url_file) = (format!("{section}.url"), format!("{section}.url_file"));
    for env in [selected.as_deref(), None] {
        if let Some(entry) = file.entry(env, &url) {
            let (value, _, origin) = layers.value(file, entry)?;
            return Ok(Some((value.into_text(), origin)));
        }
        if let Some(entry) = file.entry(env, &url_file) {
            let (value, shown, origin) = layers.value(file, entry)?;
            let name = value.into_text();
            let text = std::fs::read_to_string(root.join(&name)).map_err(|source| {
                let message = format!("`{url_file}` names {name}, which cannot be read");
                let hint = "mount the file, or let this user read it".to_owned();
                let problem = Box::new(file.problem(entry, message, hint));
                ConfigError::UrlFile { problem, source: Arc::new(source) }
            })?;
            if text.trim().is_empty() {
                let message = format!("`{url_file}` names {name}, which is empty");
                let hint = "write the URL into it".to_owned();
                return Err(ConfigError::Invalid {
                    problems: vec![file.problem(entry, message, hint)],
                });
            }
            layers.origins.add(url_file, shown, origin);
            return Ok(Some((text, Origin::Contents(name))));
        }
    }
    Ok(None)
}

/// The command that prints the password, if the URL lacks one.
fn password_command(
    layers: &mut Layers<'_>,
    store: StoreName,
    url: &SecretUrl,
) -> Result<Option<PasswordCommand>, ConfigError> {
    if url.has_password() {
        return Ok(None);
    }
    let command = layers.take(&format!("{}.password_command", section(store)))?;
    let mut words = command.map(Value::into_command).unwrap_or_default().into_iter();
    let Some(program) = words.next() else { return Ok(None) };
    Ok(Some(PasswordCommand { program, arguments: words.collect() }))
}

/// A section with settings for a database that nobody names.
fn settings_without_url(
    layers: &Layers<'_>,
    store: StoreName,
) -> Option<crate::core::problem::Problem> {
    let file = layers.file?;
    let section = section(store);
    let of_store = |entry: &&&Entry| {
        entry.name.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'))
    };
    let entries = file.entries(layers.selected.as_deref());
    let entry = entries.iter().find(of_store)?;
    let message = format!("`{}` is set, but no URL for {}", entry.name, called(store));
    let hint = format!(
        "set {section}.url, {} or {}; or {section}.url = \"\" to go without",
        variables(store)[0],
        flag_name(store)
    );
    Some(file.problem(entry, message, hint))
}

/// Whether it looks like a URL of this store. The drivers read it properly.
fn check(store: StoreName, url: &SecretUrl) -> Result<(), String> {
    let expected = match store {
        StoreName::Postgres => "postgres://USER@HOST/DATABASE",
        StoreName::Mongo => "mongodb://HOST/DATABASE",
    };
    match (store, url.scheme()) {
        (StoreName::Postgres, Some("postgres" | "postgresql"))
        | (StoreName::Mongo, Some("mongodb" | "mongodb+srv")) => Ok(()),
        (StoreName::Postgres, None) if url.expose().contains('=') => Ok(()),
        (_, Some(scheme)) => Err(format!("begins with {scheme}://; write {expected}")),
        (_, None) => Err(format!("is no URL; write {expected}")),
    }
}
