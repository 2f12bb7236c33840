//! What the settings are, once they are read and checked.

use super::secret::SecretUrl;
pub use crate::core::pace::Window;
use crate::core::pace::{self, Limits, minute};
use crate::store::postgres::Fallbacks;
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
    /// What counts where the URL says nothing: the file's TLS settings, then libpq's
    /// variables.
    pub fallbacks: Fallbacks,
    /// A command that prints the password, to be run before connecting. `None`
    /// when the URL or `PGPASSWORD` has it.
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

/// `[telemetry]`: what runs that end tell about themselves.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TelemetrySettings {
    /// A file for the node exporter.
    pub metrics_file: Option<PathBuf>,
    /// A Pushgateway.
    pub push: Option<SecretUrl>,
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
    /// Sleep that many times the batch's own time; `None`: 1 where rows are locked, 0
    /// beside a copy.
    pub nice: Option<f64>,
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

impl ThrottleSettings {
    /// As the throttle takes them.
    pub fn pace(&self) -> pace::Settings {
        pace::Settings {
            throttled: self.enabled,
            batch: None,
            batch_time: self.batch_time,
            locks: true,
            pause: self.pause,
            nice: self.nice,
            rate: self.rate,
            window: self.window,
            limits: Limits {
                replication_lag: self.max_replication_lag,
                commit_latency: self.max_commit_latency,
                active_backends: self.max_active_backends,
            },
        }
    }
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
    /// `Europe/Berlin`.
    Named(chrono_tz::Tz),
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
        text.parse().ok().map(Timezone::Named)
    }

    /// The minute of the day, there.
    pub fn minute(&self, now: chrono::DateTime<chrono::Utc>) -> u16 {
        use chrono::Timelike;
        let (hour, minute) = match self {
            Timezone::Utc => (now.hour(), now.minute()),
            Timezone::Local => {
                let now = now.with_timezone(&chrono::Local);
                (now.hour(), now.minute())
            }
            Timezone::Offset(east) => {
                let now = now + chrono::TimeDelta::minutes(i64::from(*east));
                (now.hour(), now.minute())
            }
            Timezone::Named(zone) => {
                let now = now.with_timezone(zone);
                (now.hour(), now.minute())
            }
        };
        u16::try_from(hour * 60 + minute).expect("a day has 1440 minutes")
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
            Timezone::Named(zone) => f.write_str(zone.name()),
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
