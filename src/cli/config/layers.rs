//! Which layer a setting comes from: a flag, the environment, `.env`,
//! `[env.NAME]`, the file, or nobody.

use super::file::{File, Invalid};
use super::keys;
use super::value::{Kind, Value};
use super::{ConfigError, dotenv};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// Where a setting comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Origin {
    /// `--postgres`.
    Flag(&'static str),
    /// `DATABASE_URL`.
    Environment(String),
    /// `.env (DATABASE_URL)`.
    DotEnv(String),
    /// `migrate.toml:31 [env.production]`.
    File {
        /// As the user names it.
        file: String,
        /// From 1.
        line: u32,
        /// The `NAME` of `[env.NAME]`.
        env: Option<String>,
    },
    /// The file that `url_file` names.
    Contents(String),
    /// Another setting, which is the default of this one.
    Setting(&'static str),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(name) | Origin::Setting(name) => f.write_str(name),
            Origin::Environment(name) | Origin::Contents(name) => f.write_str(name),
            Origin::DotEnv(name) => write!(f, ".env ({name})"),
            Origin::File { file, line, env: None } => write!(f, "{file}:{line}"),
            Origin::File { file, line, env: Some(env) } => write!(f, "{file}:{line} [env.{env}]"),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// A setting as it is shown.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Setting {
    /// `throttle.batch_time`.
    pub key: String,
    /// Without passwords.
    pub value: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// Every setting that has a value, and where it comes from.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Origins(Vec<Setting>);

impl Origins {
    /// In the order of docs/config.md.
    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.0.iter()
    }

    /// Where a setting comes from; `None` if it has no value.
    pub fn of(&self, key: &str) -> Option<&Origin> {
        self.0.iter().find(|setting| setting.key == key).map(|setting| &setting.origin)
    }

    pub(super) fn add(&mut self, key: impl Into<String>, value: String, origin: Origin) {
        self.0.push(Setting { key: key.into(), value, origin });
    }

    pub(super) fn sort(&mut self) {
        let place = |setting: &Setting| {
            let key = keys::find(&setting.key).map(|key| key.name);
            // What has no key, a variable of libpq's, comes last.
            keys::KEYS.iter().position(|other| Some(other.name) == key).unwrap_or(usize::MAX)
        };
        self.0.sort_by_cached_key(|setting| (place(setting), setting.key.clone()));
    }
}

/// The environment, and `.env` behind it.
pub(super) struct Environment<'a> {
    process: &'a dyn Fn(&str) -> Option<String>,
    dotenv: BTreeMap<String, String>,
}

impl<'a> Environment<'a> {
    /// With the `.env` of a folder, if it has one.
    pub(super) fn read(
        cwd: &Path,
        process: &'a dyn Fn(&str) -> Option<String>,
    ) -> Result<Environment<'a>, ConfigError> {
        const NAME: &str = ".env";
        let dotenv = match std::fs::read_to_string(cwd.join(NAME)) {
            Ok(text) => dotenv::parse(NAME, &text)
                .map_err(|problem| ConfigError::Invalid { problems: vec![problem] })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(source) => return Err(ConfigError::read(NAME, source)),
        };
        Ok(Environment { process, dotenv })
    }

    /// A variable; what is set to nothing hides the one in `.env`.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        self.find(name).map(|(value, _)| value)
    }

    /// A variable, and where it is from.
    pub(super) fn find(&self, name: &str) -> Option<(String, Origin)> {
        match (self.process)(name) {
            Some(value) => Some((value, Origin::Environment(name.to_owned()))),
            None => Some((self.dotenv.get(name)?.clone(), Origin::DotEnv(name.to_owned()))),
        }
    }

    /// The first of some variables that is not empty, and where it is from.
    pub(super) fn first(&self, names: &[&str]) -> Option<(String, Origin)> {
        let not_empty = |(value, _): &(String, Origin)| !value.trim().is_empty();
        names.iter().find_map(|name| self.find(name).filter(not_empty))
    }

    /// The names in `.env`.
    pub(super) fn dotenv_names(&self) -> impl Iterator<Item = &str> {
        self.dotenv.keys().map(String::as_str)
    }
}

/// The layers below the flags.
pub(super) struct Layers<'a> {
    pub file: Option<&'a File>,
    /// The `NAME` of the `[env.NAME]` that counts.
    pub selected: Option<String>,
    pub environment: &'a Environment<'a>,
    pub origins: Origins,
}

impl Layers<'_> {
    /// A setting that only the file has, or its default.
    pub(super) fn take(&mut self, name: &str) -> Result<Option<Value>, ConfigError> {
        if let Some((value, shown, origin)) = self.in_file(name)? {
            self.origins.add(name, shown, origin);
            return Ok(Some(value));
        }
        let value = keys::find(name).and_then(keys::Key::default_value);
        if let Some(value) = &value {
            self.origins.add(name, value.to_string(), Origin::Default);
        }
        Ok(value)
    }

    /// A setting as the file has it, as it is shown, and where it stands.
    pub(super) fn in_file(
        &self,
        name: &str,
    ) -> Result<Option<(Value, String, Origin)>, ConfigError> {
        let Some(file) = self.file else { return Ok(None) };
        let of_env = self.selected.as_deref().and_then(|env| file.entry(Some(env), name));
        match of_env.or_else(|| file.entry(None, name)) {
            Some(entry) => self.value(file, entry).map(Some),
            None => Ok(None),
        }
    }

    /// The value of an entry, as it is shown, and where it stands.
    pub(super) fn value(
        &self,
        file: &File,
        entry: &super::file::Entry,
    ) -> Result<(Value, String, Origin), ConfigError> {
        let value =
            entry.value(&|name| self.environment.get(name)).map_err(|error| match error {
                Invalid::Wrong { message, hint } => {
                    ConfigError::Invalid { problems: vec![file.problem(entry, message, hint)] }
                }
                Invalid::Unset(variable) => {
                    let message =
                        format!("`{}` needs the variable {variable}, which is not set", entry.name);
                    let instead = match (entry.name.as_str(), variable.as_str()) {
                        ("postgres.url", "DATABASE_URL") => ", or --postgres",
                        ("postgres.url", _) => ", or DATABASE_URL, or --postgres",
                        ("mongo.url", "MONGODB_URI") => ", or --mongo",
                        ("mongo.url", _) => ", or MONGODB_URI, or --mongo",
                        _ => "",
                    };
                    let without = match entry.name.as_str() {
                        "postgres.url" => "; a project without Postgres has no [postgres] here",
                        "mongo.url" => "; a project without MongoDB has no [mongo] here",
                        _ => "",
                    };
                    let hint = format!(
                        "set {variable}{instead}, or write a default as ${{{variable}:-…}}{without}"
                    );
                    let problem = Box::new(file.problem(entry, message, hint));
                    ConfigError::Unset { variable, problem }
                }
            })?;
        let shown = match entry.key.kind {
            Kind::Hooks => entry.raw.to_string(),
            // The program only: its arguments open a secret store.
            Kind::Command => entry.raw.first(),
            _ => value.to_string(),
        };
        let origin = Origin::File {
            file: file.name.clone(),
            line: file.line(entry),
            env: entry.env.clone(),
        };
        Ok((value, shown, origin))
    }
}
