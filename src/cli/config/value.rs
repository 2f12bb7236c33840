//! What the keys hold: from what stands in the file to what the program uses.

use super::secret;
use super::settings::{CleanupPolicy, HookCommand, LintLevel, Timezone, Window};
use crate::store::postgres::SslMode;
use std::fmt;
use std::time::Duration;

/// What a key holds.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Text,
    Schema,
    Path,
    SslMode,
    Policy,
    Level,
    /// From the first to the second, in ms.
    Duration(u64, u64),
    /// As well, or `""` for none.
    OptionalDuration(u64, u64),
    /// From 0 to this.
    Count(u64),
    /// From 0 to this.
    Ratio(f64),
    Flag,
    Window,
    Timezone,
    Command,
    Hooks,
    Variable,
}

/// What a key may hold, read and checked.
#[derive(Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    SslMode(SslMode),
    Policy(CleanupPolicy),
    Level(LintLevel),
    Duration(Duration),
    OptionalDuration(Option<Duration>),
    Count(u64),
    Ratio(f64),
    Flag(bool),
    Window(Option<Window>),
    Timezone(Timezone),
    Command(Vec<String>),
    Hooks(Vec<HookCommand>),
}

/// What stands in the file, after its variables were replaced.
#[derive(Clone, PartialEq)]
pub(super) enum Raw {
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    List(Vec<Raw>),
    /// What no key holds, as one calls it.
    Other(&'static str),
}

/// How a value came to be: `"${RATE}"` is a string, and may be a number all the same.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Written {
    Literally,
    WithVariables,
}

impl Raw {
    /// As one calls it.
    pub(super) fn called(&self) -> &'static str {
        match self {
            Raw::Text(_) => "a string",
            Raw::Integer(_) => "an integer",
            Raw::Float(_) => "a float",
            Raw::Boolean(_) => "a boolean",
            Raw::List(_) => "a list",
            Raw::Other(name) => name,
        }
    }

    /// Of a list, only its first item.
    pub(super) fn first(&self) -> String {
        match self {
            Raw::List(list) if list.len() > 1 => format!("[{}, …]", list[0]),
            other => other.to_string(),
        }
    }

    /// The same with each string replaced.
    pub(super) fn try_map<E>(&self, replace: &dyn Fn(&str) -> Result<String, E>) -> Result<Raw, E> {
        Ok(match self {
            Raw::Text(text) => Raw::Text(replace(text)?),
            Raw::List(list) => {
                Raw::List(list.iter().map(|raw| raw.try_map(replace)).collect::<Result<_, E>>()?)
            }
            other => other.clone(),
        })
    }
}

impl Kind {
    /// A value of this kind, if it is one.
    pub(super) fn read(self, raw: &Raw, written: Written) -> Option<Value> {
        match (self, raw) {
            // A number or a boolean out of the environment is a string in the file.
            (Kind::Count(_), Raw::Text(text)) if written == Written::WithVariables => {
                self.read(&Raw::Integer(text.trim().parse().ok()?), Written::Literally)
            }
            (Kind::Ratio(_), Raw::Text(text)) if written == Written::WithVariables => {
                self.read(&Raw::Float(text.trim().parse().ok()?), Written::Literally)
            }
            (Kind::Flag, Raw::Text(text)) if written == Written::WithVariables => {
                Some(Value::Flag(text.trim().parse().ok()?))
            }
            (Kind::Count(max), Raw::Integer(number)) => {
                u64::try_from(*number).ok().filter(|number| *number <= max).map(Value::Count)
            }
            (Kind::Ratio(max), Raw::Float(number)) => {
                (0.0..=max).contains(number).then_some(Value::Ratio(*number))
            }
            (Kind::Ratio(_), Raw::Integer(number)) => {
                let number = f64::from(i32::try_from(*number).ok()?);
                self.read(&Raw::Float(number), Written::Literally)
            }
            (Kind::Flag, Raw::Boolean(flag)) => Some(Value::Flag(*flag)),
            (Kind::Variable, Raw::Integer(number)) => Some(Value::Text(number.to_string())),
            (Kind::Variable, Raw::Float(number)) => Some(Value::Text(number.to_string())),
            (Kind::Variable, Raw::Boolean(flag)) => Some(Value::Text(flag.to_string())),
            (Kind::Command, Raw::List(list)) => Some(Value::Command(arguments(list)?)),
            (Kind::Hooks, Raw::List(list)) => {
                Some(Value::Hooks(list.iter().map(hook).collect::<Option<_>>()?))
            }
            (kind, Raw::Text(text)) => kind.read_text(text),
            _ => None,
        }
    }

    fn read_text(self, text: &str) -> Option<Value> {
        match self {
            Kind::Text | Kind::Variable => Some(Value::Text(text.to_owned())),
            Kind::Path => (!text.is_empty()).then(|| Value::Text(text.to_owned())),
            Kind::Schema => {
                let fits = (1..=SCHEMA_BYTES_MAX).contains(&text.len()) && !text.contains('\0');
                fits.then(|| Value::Text(text.to_owned()))
            }
            Kind::SslMode => SslMode::parse(text).map(Value::SslMode),
            Kind::Policy => Some(Value::Policy(match text {
                "auto" => CleanupPolicy::Auto,
                "hold" => CleanupPolicy::Hold,
                "next-release" => CleanupPolicy::NextRelease,
                _ => return None,
            })),
            Kind::Level => Some(Value::Level(match text {
                "error" => LintLevel::Error,
                "warn" => LintLevel::Warn,
                "off" => LintLevel::Off,
                _ => return None,
            })),
            Kind::Duration(min, max) => duration(text, min, max).map(Value::Duration),
            Kind::OptionalDuration(..) if text.is_empty() => Some(Value::OptionalDuration(None)),
            Kind::OptionalDuration(min, max) => {
                duration(text, min, max).map(|duration| Value::OptionalDuration(Some(duration)))
            }
            Kind::Window if text.is_empty() => Some(Value::Window(None)),
            Kind::Window => Window::parse(text).map(|window| Value::Window(Some(window))),
            Kind::Timezone => Timezone::parse(text).map(Value::Timezone),
            Kind::Count(_) | Kind::Ratio(_) | Kind::Flag | Kind::Command | Kind::Hooks => None,
        }
    }

    /// Whether a string is right as such, so that what it says is to blame.
    pub(super) fn is_read_from_text(self) -> bool {
        match self {
            Kind::Count(_) | Kind::Ratio(_) | Kind::Flag | Kind::Command | Kind::Hooks => false,
            Kind::Text
            | Kind::Schema
            | Kind::Path
            | Kind::SslMode
            | Kind::Policy
            | Kind::Level
            | Kind::Duration(..)
            | Kind::OptionalDuration(..)
            | Kind::Window
            | Kind::Timezone
            | Kind::Variable => true,
        }
    }

    /// What it holds, for people.
    pub(super) fn wants(self) -> String {
        let ms = |ms| humantime::format_duration(Duration::from_millis(ms)).to_string();
        match self {
            Kind::Text | Kind::Variable => "a string".to_owned(),
            Kind::Schema => format!("a name of 1 to {SCHEMA_BYTES_MAX} bytes"),
            Kind::Path => "a path".to_owned(),
            Kind::SslMode => "disable, allow, prefer, require, verify-ca or verify-full".to_owned(),
            Kind::Policy => "auto, hold or next-release".to_owned(),
            Kind::Level => "error, warn or off".to_owned(),
            Kind::Duration(min, max) => format!("a duration from {} to {}", ms(min), ms(max)),
            Kind::OptionalDuration(min, max) => {
                format!("a duration from {} to {}, or \"\" for none", ms(min), ms(max))
            }
            Kind::Count(max) => format!("an integer from 0 to {max}"),
            Kind::Ratio(max) => format!("a number from 0 to {max}"),
            Kind::Flag => "true or false".to_owned(),
            Kind::Window => "hours as \"22:00-06:00\", or \"\" for all".to_owned(),
            Kind::Timezone => {
                "UTC, local, an offset as \"+02:00\" or a name as \"Europe/Berlin\"".to_owned()
            }
            Kind::Command => "a list of strings, a program and its arguments".to_owned(),
            Kind::Hooks => "a list of commands, each a string or a list of strings".to_owned(),
        }
    }
}

/// What a key of this kind holds. Which kind a key is, [`KEYS`] says.
macro_rules! into {
    ($($name:ident: $variant:ident -> $type:ty,)*) => {
        impl Value {
            $(pub(super) fn $name(self) -> $type {
                match self {
                    Value::$variant(value) => value,
                    _ => unreachable!(concat!("KEYS gives this key another kind than ", stringify!($variant))),
                }
            })*
        }
    };
}
into! {
    into_text: Text -> String,
    into_ssl_mode: SslMode -> SslMode,
    into_policy: Policy -> CleanupPolicy,
    into_level: Level -> LintLevel,
    into_duration: Duration -> Duration,
    into_optional_duration: OptionalDuration -> Option<Duration>,
    into_count: Count -> u64,
    into_ratio: Ratio -> f64,
    into_flag: Flag -> bool,
    into_window: Window -> Option<Window>,
    into_timezone: Timezone -> Timezone,
    into_command: Command -> Vec<String>,
    into_hooks: Hooks -> Vec<HookCommand>,
}

/// As it would be written, without what looks like a password.
impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Raw::Text(text) => write!(f, "\"{}\"", secret::redacted(text)),
            Raw::Integer(number) => write!(f, "{number}"),
            Raw::Float(number) => write!(f, "{number}"),
            Raw::Boolean(flag) => write!(f, "{flag}"),
            Raw::List(list) => {
                f.write_str("[")?;
                // Of `["--token", "x"]`, the second.
                let mut secret_follows = false;
                for (index, item) in list.iter().enumerate() {
                    f.write_str(if index == 0 { "" } else { ", " })?;
                    match item {
                        Raw::Text(_) if secret_follows => f.write_str("\"***\"")?,
                        item => write!(f, "{item}")?,
                    }
                    secret_follows = matches!(item, Raw::Text(text)
                        if !text.contains('=') && secret::is_secret_name(text));
                }
                f.write_str("]")
            }
            Raw::Other(name) => f.write_str(name),
        }
    }
}

/// As one would write it, without quotes, and without what looks like a password.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |duration: &Duration| humantime::format_duration(*duration).to_string();
        match self {
            Value::Text(text) => f.write_str(&secret::redacted(text)),
            Value::SslMode(mode) => f.write_str(match mode {
                SslMode::Disable => "disable",
                SslMode::Allow => "allow",
                SslMode::Prefer => "prefer",
                SslMode::Require => "require",
                SslMode::VerifyCa => "verify-ca",
                SslMode::VerifyFull => "verify-full",
            }),
            Value::Policy(policy) => f.write_str(match policy {
                CleanupPolicy::Auto => "auto",
                CleanupPolicy::Hold => "hold",
                CleanupPolicy::NextRelease => "next-release",
            }),
            Value::Level(level) => f.write_str(match level {
                LintLevel::Error => "error",
                LintLevel::Warn => "warn",
                LintLevel::Off => "off",
            }),
            Value::Duration(duration) | Value::OptionalDuration(Some(duration)) => {
                f.write_str(&time(duration))
            }
            Value::OptionalDuration(None) | Value::Window(None) => f.write_str("none"),
            Value::Count(number) => write!(f, "{number}"),
            Value::Ratio(number) => write!(f, "{number}"),
            Value::Flag(flag) => write!(f, "{flag}"),
            Value::Window(Some(window)) => write!(f, "{window}"),
            Value::Timezone(zone) => write!(f, "{zone}"),
            // These are shown as they are written, with their variables.
            Value::Command(_) | Value::Hooks(_) => f.write_str("set"),
        }
    }
}

/// Longer names Postgres cuts silently.
const SCHEMA_BYTES_MAX: usize = 63;

fn duration(text: &str, min: u64, max: u64) -> Option<Duration> {
    let duration = humantime::parse_duration(text).ok()?;
    (Duration::from_millis(min)..=Duration::from_millis(max))
        .contains(&duration)
        .then_some(duration)
}

/// Strings; an empty list is a command that is switched off.
fn arguments(list: &[Raw]) -> Option<Vec<String>> {
    let text = |raw: &Raw| match raw {
        Raw::Text(text) => Some(text.clone()),
        _ => None,
    };
    list.iter().map(text).collect()
}

fn hook(raw: &Raw) -> Option<HookCommand> {
    match raw {
        Raw::Text(line) if !line.trim().is_empty() => Some(HookCommand::Shell(line.clone())),
        Raw::List(list) if !list.is_empty() => Some(HookCommand::Program(arguments(list)?)),
        _ => None,
    }
}
