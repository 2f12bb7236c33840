//! What the settings are, once they are read and checked.

use super::secret::SecretUrl;
use crate::store::postgres::SslMode;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How Postgres is reached. What the URL says itself wins over the rest.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PostgresSettings {
    /// A URL, or libpq's `key=value` form.
    pub url: SecretUrl,
    /// `search_path` of the scripts; `None` is the server's.
    pub schema: Option<String>,
    /// How TLS is used.
    pub sslmode: Option<SslMode>,
    /// A file of certificates, or `system`.
    pub sslrootcert: Option<String>,
    /// The client's certificate.
    pub sslcert: Option<PathBuf>,
    /// The key of it.
    pub sslkey: Option<PathBuf>,
    /// A command that prints the password, to be run before connecting. `None`
    /// when the URL has a password.
    pub password_command: Option<PasswordCommand>,
}

/// How MongoDB is reached.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MongoSettings {
    /// A connection string. The database is the one in it.
    pub url: SecretUrl,
    /// As for Postgres.
    pub password_command: Option<PasswordCommand>,
}

/// A program that prints a password.
#[derive(Clone, Eq, PartialEq)]
pub struct PasswordCommand {
    /// Found along `PATH`, by no shell.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// Without the arguments: what opens a secret store may be among them.
impl fmt::Debug for PasswordCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordCommand").field("program", &self.program).finish_non_exhaustive()
    }
}

pub use crate::core::parse::manifest::CleanupPolicy;

/// `[cleanup]`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CleanupSettings {
    /// When it runs.
    pub policy: CleanupPolicy,
    /// It is refused unless a backup not older than this was recorded.
    pub require_backup: Option<Duration>,
}

/// `[throttle]`: the pace of backfills.
#[derive(Clone, Debug, PartialEq)]
pub struct ThrottleSettings {
    /// Without: no probes, no pauses.
    pub enabled: bool,
    /// A batch that locks rows of the application takes about this long.
    pub batch_time: Duration,
    /// Between batches.
    pub pause: Duration,
    /// Sleep that many times the batch's own time.
    pub nice: f64,
    /// Rows per second.
    pub rate: Option<u64>,
    /// The hours in which batches run.
    pub window: Option<Window>,
    /// Whose clock the window means.
    pub timezone: Timezone,
    /// Limit of the probe.
    pub max_replication_lag: Duration,
    /// Limit of the probe.
    pub max_commit_latency: Duration,
    /// Limit of the probe; `None`: not watched.
    pub max_active_backends: Option<u64>,
}

/// Hours of a day, `22:00-06:00`: the first minute is in it, the last is not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Window {
    /// In minutes since midnight.
    pub from: u16,
    /// In minutes since midnight; 1440 is midnight at the end.
    pub to: u16,
}

impl Window {
    /// Reads `22:00-06:00`. A window that is empty is none.
    pub fn parse(text: &str) -> Option<Window> {
        let (from, to) = text.split_once('-')?;
        let window = Window { from: minute(from)?, to: minute(to)? };
        (window.from != window.to && window.from < DAY).then_some(window)
    }

    /// Whether a minute of the day, counted from midnight, is in it.
    pub fn contains(&self, minute: u16) -> bool {
        if self.from < self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.from, self.to);
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

/// Minutes.
const DAY: u16 = 24 * 60;

fn minute(text: &str) -> Option<u16> {
    let two = |text: &str| {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (hour, minute) = text.trim().split_once(':')?;
    let (hour, minute) = (two(hour)?, two(minute)?);
    let at = hour * 60 + minute;
    (minute < 60 && at <= DAY).then_some(at)
}

/// Whose clock a window means.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Timezone {
    /// `UTC`.
    Utc,
    /// `local`: of the machine that runs the backfill.
    Local,
    /// `+02:00`, in minutes east of Greenwich.
    Offset(i16),
    /// `Europe/Berlin`. Only its form was checked.
    Named(String),
}

impl Timezone {
    /// Reads any of the four.
    pub fn parse(text: &str) -> Option<Timezone> {
        match text {
            "UTC" | "utc" | "Z" | "Etc/UTC" => return Some(Timezone::Utc),
            "local" => return Some(Timezone::Local),
            _ => {}
        }
        if let Some((sign, rest)) = text.split_at_checked(1) {
            let east = match sign {
                "+" => Some(1),
                "-" => Some(-1),
                _ => None,
            };
            if let Some(east) = east {
                /// Kiritimati is the easternmost.
                const EASTERNMOST: i16 = 14 * 60;
                let minutes = i16::try_from(minute(rest)?).ok()?;
                return (minutes <= EASTERNMOST).then_some(Timezone::Offset(east * minutes));
            }
        }
        let (area, city) = text.split_once('/')?;
        let word = |word: &str| {
            let valid = |c: char| c.is_ascii_alphanumeric() || "_-+/".contains(c);
            word.starts_with(|c: char| c.is_ascii_uppercase()) && word.chars().all(valid)
        };
        (word(area) && word(city)).then(|| Timezone::Named(text.to_owned()))
    }
}

impl fmt::Display for Timezone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Timezone::Utc => f.write_str("UTC"),
            Timezone::Local => f.write_str("local"),
            Timezone::Offset(minutes) => {
                let sign = if *minutes < 0 { '-' } else { '+' };
                let minutes = minutes.unsigned_abs();
                write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
            }
            Timezone::Named(name) => f.write_str(name),
        }
    }
}

/// A command to run when something happens.
#[derive(Clone, Eq, PartialEq)]
pub enum HookCommand {
    /// One string, for `sh -c`.
    Shell(String),
    /// A program and its arguments, for no shell.
    Program(Vec<String>),
}

/// Without what looks like a password: arguments come from the environment too.
impl fmt::Debug for HookCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HookCommand::Shell(line) => {
                f.debug_tuple("Shell").field(&super::secret::redacted(line)).finish()
            }
            HookCommand::Program(arguments) => f.debug_list().entries(arguments.first()).finish(),
        }
    }
}

/// `[hooks]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HookSettings {
    /// Before a run of `up` changes anything.
    pub before_up: Vec<HookCommand>,
    /// After a run of `up` that succeeded.
    pub after_up: Vec<HookCommand>,
    /// Before a run of `down` changes anything.
    pub before_down: Vec<HookCommand>,
    /// After a run of `down` that succeeded.
    pub after_down: Vec<HookCommand>,
    /// Before a cleanup.
    pub before_cleanup: Vec<HookCommand>,
    /// After a cleanup that succeeded.
    pub after_cleanup: Vec<HookCommand>,
    /// After a run that failed.
    pub on_failure: Vec<HookCommand>,
    /// Each command is stopped after this.
    pub timeout: Duration,
}

/// How much a lint rule matters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LintLevel {
    /// It fails the lint.
    Error,
    /// It is shown.
    Warn,
    /// It is not asked.
    Off,
}

/// `[lint]`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LintSettings {
    /// Rules whose level is not their own. Whether the rules exist, the linter knows.
    pub levels: BTreeMap<String, LintLevel>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_may_span_midnight() {
        let night = Window::parse("22:00-06:00").expect("is one");
        assert!(night.contains(22 * 60) && night.contains(0) && night.contains(359));
        assert!(!night.contains(360) && !night.contains(1319));
        let day = Window::parse("08:00 - 24:00").expect("is one");
        assert!(day.contains(480) && day.contains(1439) && !day.contains(479));
        assert_eq!(night.to_string(), "22:00-06:00");
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for text in [
            "",
            "22",
            "22:00",
            "22:00-22:00",
            "24:00-06:00",
            "22:60-06:00",
            "25:00-06:00",
            "2:00-6:00",
            "+2:00-06:00",
        ] {
            assert_eq!(Window::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_timezone_is_utc_local_an_offset_or_a_name() {
        assert_eq!(Timezone::parse("UTC"), Some(Timezone::Utc));
        assert_eq!(Timezone::parse("-03:30"), Some(Timezone::Offset(-210)));
        for text in ["local", "+02:00", "-03:30", "Europe/Berlin", "America/Argentina/Ushuaia"] {
            assert_eq!(Timezone::parse(text).map(|zone| zone.to_string()).as_deref(), Some(text));
        }
        for text in ["", "Berlin", "+2", "+15:00", "europe/berlin", "Europe/", "é"] {
            assert_eq!(Timezone::parse(text), None, "{text}");
        }
    }
}
