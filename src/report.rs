//! Reporters: readers of the engine's notices.

pub mod http;
pub mod human;
pub mod json;
pub mod metrics;
pub mod plan;
pub mod progress;
pub mod trace;

use crate::core::history::Timestamp;
use chrono::{DateTime, Local, SecondsFormat, Utc};

/// RFC 3339 in UTC, with milliseconds: for machines.
pub fn utc(at: Timestamp) -> String {
    match DateTime::<Utc>::from_timestamp_millis(at.0) {
        Some(time) => time.to_rfc3339_opts(SecondsFormat::Millis, true),
        None => at.0.to_string(),
    }
}

/// In the person's own time zone.
pub fn local(at: Timestamp) -> String {
    match DateTime::<Utc>::from_timestamp_millis(at.0) {
        Some(time) => time.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S").to_string(),
        None => at.0.to_string(),
    }
}
