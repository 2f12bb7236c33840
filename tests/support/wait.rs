//! Waiting for what a test waits for, and for nothing else.

use std::time::{Duration, Instant};

/// Nothing waited for takes longer, on a machine that is busy with much else.
pub const LIMIT: Duration = Duration::from_mins(2);

/// How often a condition is looked at.
pub const POLL: Duration = Duration::from_millis(10);

/// Waits for a condition.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < LIMIT, "still waiting for: {what}");
        std::thread::park_timeout(POLL);
    }
}
