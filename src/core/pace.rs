//! Pace: how fast a backfill may go, decided from what batches took, what the
//! servers show, and what people asked for.
//!
//! [`Throttle`] decides. It knows no clock: now is the time since it began, and
//! goes in.

mod throttle;
mod window;

pub use throttle::{After, Pace, Ran, SPEED, Settings, Throttle, Unwatched};
pub use window::{Window, minute};

use std::time::Duration;

/// What people asked of backfills that run, from `migration_control`.
#[derive(Clone, Debug, PartialEq)]
pub struct Steering {
    /// Stand still, and why.
    pub paused: Option<String>,
    /// That many times the pace that it would have: 0.5 is half.
    pub speed: f64,
}

impl Default for Steering {
    fn default() -> Steering {
        Steering { paused: None, speed: 1.0 }
    }
}

impl Steering {
    /// Of what both stores keep, the more cautious.
    #[must_use]
    pub fn and(self, other: Steering) -> Steering {
        Steering { paused: self.paused.or(other.paused), speed: self.speed.min(other.speed) }
    }
}

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Steer {
    /// Stand still after the batch that is under way; why.
    Pause(String),
    /// Go on.
    Resume,
    /// See [`Steering::speed`].
    Speed(f64),
}

/// Limits of the probes, from `[throttle]`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Of any standby of Postgres, and of MongoDB's majority.
    pub replication_lag: Duration,
    /// Of our own transactions.
    pub commit_latency: Duration,
    /// Backends of Postgres that are active and not ours; `None`: not watched.
    pub active_backends: Option<u64>,
}

/// What one probe of one store says.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Its name: `replication lag`.
    pub probe: &'static str,
    /// What it does at its limit.
    pub at_limit: AtLimit,
    /// What it says.
    pub level: Level,
}

/// What a probe does at its limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AtLimit {
    /// The backfill stands still until the value is at 80 % of it.
    Stop,
    /// It goes slower.
    Slower,
}

/// How near a value is to its limit.
#[derive(Clone, Debug, PartialEq)]
pub enum Level {
    /// There is nothing here that it could be about, or nobody wants to know: why.
    /// That is as good as can be.
    Nothing(String),
    /// It may not be read, or there was no answer: why.
    Off(String),
    /// The value over its limit, and the sentence for people: `a standby is 7.2 s
    /// behind (limit 5 s)`.
    At {
        /// 1 is the limit.
        ratio: f64,
        /// For people.
        says: String,
    },
}
