//! `migrate.toml`: found, read, and checked as far as it can be without the
//! environment. Sections that this run does not use are checked as well: a slip in
//! `[env.production]` is better found on a laptop than in production.

use super::expand::{ExpandError, expand, has_variable};
use super::keys::{self, Key};
use super::secret;
use super::value::{Raw, Value, Written};
use crate::core::problem::Problem;
use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// A file whose keys and types are right.
#[derive(Debug)]
pub(super) struct File {
    /// As it is called in messages.
    pub name: String,
    text: String,
    entries: Vec<Entry>,
    /// The names of the `[env.NAME]`, in order.
    pub envs: Vec<String>,
}

/// One value of the file.
pub(super) struct Entry {
    /// The full name of the key, without `env.NAME`.
    pub name: String,
    pub key: &'static Key,
    /// With its variables as they are written.
    pub raw: Raw,
    /// The `NAME` of its `[env.NAME]`.
    pub env: Option<String>,
    span: Range<usize>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("name", &self.name).finish_non_exhaustive()
    }
}

impl File {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the file.
    pub(super) fn parse(name: &str, text: String) -> Result<File, Vec<Problem>> {
        let mut walker = Walker { text: &text, file: name, ..Walker::default() };
        match DeTable::parse(&text) {
            Ok(table) => walker.root(table.get_ref()),
            Err(error) => {
                let span = error.span().unwrap_or(0..0);
                match error.message() {
                    "duplicate key" => {
                        let key = text.get(span.clone()).unwrap_or_default();
                        let message = format!("{} is there twice", quoted(key));
                        walker.problem(span, message, "keep one of the two");
                    }
                    message => {
                        let message = format!("this is no TOML: {}", message.replace('\n', ", "));
                        let hint = "mend it; strings stand in quotes, sections in [brackets]";
                        walker.problem(span, message, hint);
                    }
                }
            }
        }
        walker.no_two_urls();
        let Walker { entries, mut envs, mut problems, .. } = walker;
        if problems.is_empty() {
            envs.sort();
            return Ok(File { name: name.to_owned(), text, entries, envs });
        }
        problems.sort_by_key(|problem| problem.at.as_ref().map(|at| (at.line, at.column)));
        Err(problems)
    }

    /// The values that count in an environment: of each key, `[env.NAME]`'s own or
    /// else the file's.
    pub(super) fn entries(&self, env: Option<&str>) -> Vec<&Entry> {
        let counts = |entry: &&Entry| match entry.env.as_deref() {
            None => env.is_none_or(|env| self.entry(Some(env), &entry.name).is_none()),
            own => own == env,
        };
        self.entries.iter().filter(counts).collect()
    }

    /// A value as it stands in the file itself or in one of its `[env.NAME]`.
    pub(super) fn entry(&self, env: Option<&str>, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.env.as_deref() == env && entry.name == name)
    }

    /// The line of an entry, from 1.
    pub(super) fn line(&self, entry: &Entry) -> u32 {
        self.problem(entry, String::new(), String::new()).at.map_or(0, |place| place.line)
    }

    /// What is wrong with the value of an entry.
    pub(super) fn problem(&self, entry: &Entry, message: String, hint: String) -> Problem {
        problem(&self.name, &self.text, entry.span.clone(), message, hint)
    }
}

fn problem(
    file: &str,
    text: &str,
    span: Range<usize>,
    message: impl Into<String>,
    hint: impl Into<String>,
) -> Problem {
    let mut problem = Problem::at(text, span, message).hint(hint).file(file);
    if let Some(place) = &mut problem.at {
        place.text = secret::masked(&place.text);
    }
    problem
}

#[derive(Default)]
struct Walker<'a> {
    file: &'a str,
    text: &'a str,
    entries: Vec<Entry>,
    envs: Vec<String>,
    problems: Vec<Problem>,
}

impl Walker<'_> {
    fn problem(&mut self, span: Range<usize>, message: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(problem(self.file, self.text, span, message, hint));
    }

    fn root(&mut self, table: &DeTable<'_>) {
        for (key, value) in table {
            if key.get_ref() != "env" {
                continue;
            }
            let hint = "write it as [env.production], and the keys of the file below";
            let DeValue::Table(envs) = value.get_ref() else {
                self.problem(value.span(), "`env` holds one section for each environment", hint);
                continue;
            };
            for (name, value) in envs {
                match value.get_ref() {
                    DeValue::Table(table) => {
                        self.envs.push(name.get_ref().to_string());
                        self.section(table, "", Some(name.get_ref()));
                    }
                    _ => self.problem(
                        name.span(),
                        format!("`env.{}` is not a section", name.get_ref()),
                        hint,
                    ),
                }
            }
        }
        self.section(table, "", None);
    }

    /// One place says where a database is.
    fn no_two_urls(&mut self) {
        let mut problems = Vec::new();
        for entry in &self.entries {
            let Some(section) = entry.name.strip_suffix(".url_file") else { continue };
            let url = format!("{section}.url");
            let same = |other: &&Entry| other.name == url && other.env == entry.env;
            if self.entries.iter().any(|other| same(&other)) {
                let message = format!("`{url}` and `{}` are both set", entry.name);
                let hint = "keep one of them";
                problems.push(problem(self.file, self.text, entry.span.clone(), message, hint));
            }
        }
        self.problems.extend(problems);
    }

    fn section(&mut self, table: &DeTable<'_>, section: &str, env: Option<&str>) {
        for (key, value) in table {
            let word: &str = key.get_ref();
            let name =
                if section.is_empty() { word.to_owned() } else { format!("{section}.{word}") };
            if section.is_empty() && env.is_none() && word == "env" {
                continue;
            }
            if let Some(key_of_name) = keys::find(&name) {
                if section == "vars" && !is_variable_name(word) {
                    let hint = "use letters, digits, _ and -, and begin with a letter or _";
                    let message = format!("{} is no name for a variable", quoted(word));
                    self.problem(key.span(), message, hint);
                    continue;
                }
                self.value(key_of_name, name, value.get_ref(), value.span(), env);
            } else if keys::is_section(&name) {
                match value.get_ref() {
                    DeValue::Table(table) => self.section(table, &name, env),
                    other => {
                        let message = format!("`{name}` is a section, not {}", raw(other).called());
                        let prefix = env.map(|env| format!("env.{env}.")).unwrap_or_default();
                        self.problem(
                            key.span(),
                            message,
                            format!("write [{prefix}{name}] and its keys below"),
                        );
                    }
                }
            } else {
                let place = match (section, env) {
                    ("", None) => String::new(),
                    ("", Some(env)) => format!(" in [env.{env}]"),
                    (section, None) => format!(" in [{section}]"),
                    (section, Some(env)) => format!(" in [env.{env}.{section}]"),
                };
                let message = format!("there is no key {}{place}", quoted(word));
                self.problem(
                    key.span(),
                    message,
                    keys::hint(section, word, section.is_empty() && env.is_none()),
                );
            }
        }
    }

    fn value(
        &mut self,
        key: &'static Key,
        name: String,
        value: &DeValue<'_>,
        span: Range<usize>,
        env: Option<&str>,
    ) {
        let raw = raw(value);
        let entry = Entry { name, key, raw, env: env.map(str::to_owned), span };
        // Without an environment: defaults are checked now, variables when they are needed.
        match entry.value(&|_| None) {
            Ok(_) | Err(Invalid::Unset(_)) => self.entries.push(entry),
            Err(Invalid::Wrong { message, hint }) => {
                self.problem(entry.span.clone(), message, hint);
            }
        }
    }
}

/// Why an entry has no value.
pub(super) enum Invalid {
    /// It needs this variable.
    Unset(String),
    /// It is not what its key wants.
    Wrong { message: String, hint: String },
}

impl Entry {
    /// Its value in an environment.
    pub(super) fn value(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<Value, Invalid> {
        let expanded =
            self.raw.try_map(&|text| expand(text, env)).map_err(|error| match error {
                ExpandError::Unset(name) => Invalid::Unset(name),
                ExpandError::Syntax(message) => {
                    let (message, hint) = message.split_once("; ").expect("says what to do");
                    Invalid::Wrong {
                        message: format!("in `{}`, {message}", self.name),
                        hint: hint.to_owned(),
                    }
                }
            })?;
        let written = if self.depends() { Written::WithVariables } else { Written::Literally };
        self.key.read(&expanded, written).map_err(|message| Invalid::Wrong {
            message: format!("`{}` {message}", self.name),
            hint: format!("write {} = {}, for example", self.last_name(), self.key.example),
        })
    }

    /// As it is written below its section.
    fn last_name(&self) -> &str {
        let section = self.key.name.rfind('.').map_or(0, |dot| dot + 1);
        &self.name[section..]
    }

    /// Whether its value depends on the environment.
    pub(super) fn depends(&self) -> bool {
        fn any(raw: &Raw) -> bool {
            match raw {
                Raw::Text(text) => has_variable(text),
                Raw::List(list) => list.iter().any(any),
                Raw::Integer(_) | Raw::Float(_) | Raw::Boolean(_) | Raw::Other(_) => false,
            }
        }
        any(&self.raw)
    }
}

/// A name as templates have it, `{{name}}`.
pub(super) fn is_variable_name(name: &str) -> bool {
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.chars().all(valid)
}

fn quoted(word: &str) -> String {
    format!("`{}`", secret::redacted(word))
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Raw::Other("an integer of more than 64 bits"), Raw::Integer),
        DeValue::Float(number) => {
            number.as_str().parse().map_or(Raw::Other("a float out of range"), Raw::Float)
        }
        DeValue::Boolean(flag) => Raw::Boolean(*flag),
        DeValue::Array(list) => Raw::List(list.iter().map(|item| raw(item.get_ref())).collect()),
        DeValue::Datetime(_) => Raw::Other("a date or time"),
        DeValue::Table(_) => Raw::Other("a table"),
    }
}
