//! Why a call did not do what it was asked to.

use crate::core::id::Version;
use crate::engine::run::RunError;
use crate::failure::Failure;
use crate::failure::exit::Exit;
use std::fmt;

/// Why a call did not do what it was asked to, what it did before, and what to do next.
///
/// Whatever it says, nothing is dirty: what was done is recorded, and the same call goes
/// on from there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Error {
    failure: Box<Failure>,
    finished: Vec<Version>,
}

/// What a caller decides by. Each is an exit code of the program `migrate`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Kind {
    /// A migration failed; what came before it is recorded.
    Failed,
    /// A wrong setting or migration. Nothing was touched.
    Usage,
    /// Somebody else holds the lease, or ours was lost. Worth another try.
    Locked,
    /// Files and histories do not fit together: edited, missing, out of order, a gap, or
    /// two databases that are no pair. A person has to look at it.
    Conflict,
    /// An invariant does not hold; its cleanup was not run.
    Invariant,
    /// A database cannot be reached, or the connection was lost. Worth another try.
    Unreachable,
    /// A time limit ran out.
    Timeout,
    /// Irreversible, or something is required that is not there.
    Refused,
    /// Somebody asked for it.
    Stopped,
}

impl Error {
    pub(super) fn of_run(error: RunError) -> Error {
        let finished = error.finished().to_vec();
        Error { failure: Box::new(error.into()), finished }
    }

    /// What to decide by.
    pub fn kind(&self) -> Kind {
        match self.failure.exit {
            Exit::Ok | Exit::Pending | Exit::Failed => Kind::Failed,
            Exit::Usage => Kind::Usage,
            Exit::Locked => Kind::Locked,
            Exit::Conflict => Kind::Conflict,
            Exit::Invariant => Kind::Invariant,
            Exit::Unreachable => Kind::Unreachable,
            Exit::Timeout => Kind::Timeout,
            Exit::Refused => Kind::Refused,
            Exit::Interrupted | Exit::Terminated => Kind::Stopped,
        }
    }

    /// A name that stays, which docs/errors has a page for: `CHECKSUM_MISMATCH`.
    pub fn code(&self) -> &'static str {
        self.failure.code
    }

    /// What `migrate` would exit with.
    pub fn exit_code(&self) -> u8 {
        self.failure.exit.code()
    }

    /// What to do next, if there is something.
    pub fn next(&self) -> Option<&str> {
        self.failure.next.as_deref()
    }

    /// More of it: the step, what the database said, each with its text.
    pub fn details(&self) -> impl Iterator<Item = (&str, &str)> {
        self.failure.details.iter().map(|(name, text)| (*name, text.as_str()))
    }

    /// The migrations that were finished before.
    pub fn finished(&self) -> &[Version] {
        &self.finished
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        Error { failure: Box::new(failure), finished: Vec::new() }
    }
}

/// What went wrong, where, and what to do: a line for each of several problems.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, &self.failure)
    }
}

fn write(f: &mut fmt::Formatter<'_>, failure: &Failure) -> fmt::Result {
    match &failure.place {
        Some((file, Some(place))) => write!(f, "{file}:{}: ", place.line)?,
        Some((file, None)) => write!(f, "{file}: ")?,
        None => {}
    }
    f.write_str(&failure.message)?;
    if let Some(next) = &failure.next {
        write!(f, "; {next}")?;
    }
    failure.more.iter().try_for_each(|more| {
        f.write_str("\n")?;
        write(f, more)
    })
}

impl std::error::Error for Error {}
