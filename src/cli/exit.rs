//! Exit codes: what a script can rely on.

/// Each way to end, see docs/cli.md.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exit {
    /// Done, or nothing to do.
    Ok,
    /// A migration failed; what was done is recorded, and `up` goes on there.
    Failed,
    /// A wrong flag, setting or migration file. Nothing was touched.
    Usage,
    /// Something is pending.
    Pending,
    /// Somebody else holds the lease, or ours was lost.
    Locked,
    /// Edited, missing, out of order, a gap, or two databases that are no pair.
    Conflict,
    /// An invariant does not hold; `cleanup` was not run.
    Invariant,
    /// A database cannot be reached, or refuses us.
    Unreachable,
    /// A time limit ran out.
    Timeout,
    /// Irreversible, unconfirmed, or the server lacks what is required.
    Refused,
    /// SIGINT.
    Interrupted,
    /// SIGTERM.
    Terminated,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Pending => 3,
            Exit::Locked => 4,
            Exit::Conflict => 5,
            Exit::Invariant => 6,
            Exit::Unreachable => 7,
            Exit::Timeout => 8,
            Exit::Refused => 9,
            Exit::Interrupted => 130,
            Exit::Terminated => 143,
        }
    }

    /// The word, as `run_finished` has it for its `outcome`.
    pub fn word(self) -> &'static str {
        match self {
            Exit::Ok => "ok",
            Exit::Failed => "failed",
            Exit::Usage => "usage",
            Exit::Pending => "pending",
            Exit::Locked => "locked",
            Exit::Conflict => "conflict",
            Exit::Invariant => "invariant",
            Exit::Unreachable => "unreachable",
            Exit::Timeout => "timeout",
            Exit::Refused => "refused",
            Exit::Interrupted | Exit::Terminated => "interrupted",
        }
    }
}
