//! Names of things: stores, versions, phases, steps.
//!
//! All of them are written into both databases and read back, so each has one
//! text form and a parser that refuses everything else.

use std::fmt;
use std::str::FromStr;

/// One of the two databases.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum StoreName {
    /// The Postgres database.
    Postgres,
    /// The MongoDB database.
    Mongo,
}

impl StoreName {
    /// Both, in the order in which locks are taken.
    pub const BOTH: [StoreName; 2] = [StoreName::Postgres, StoreName::Mongo];

    /// The word used in step names, files and flags.
    pub fn word(self) -> &'static str {
        match self {
            StoreName::Postgres => "postgres",
            StoreName::Mongo => "mongo",
        }
    }

    /// What people call it.
    pub fn title(self) -> &'static str {
        match self {
            StoreName::Postgres => "Postgres",
            StoreName::Mongo => "MongoDB",
        }
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> StoreName {
        match self {
            StoreName::Postgres => StoreName::Mongo,
            StoreName::Mongo => StoreName::Postgres,
        }
    }
}

impl fmt::Display for StoreName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for StoreName {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "postgres" => Ok(StoreName::Postgres),
            "mongo" => Ok(StoreName::Mongo),
            _ => Err(ParseIdError { what: "store", text: text.to_owned() }),
        }
    }
}

/// A text that is not the name it should be.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{text}` is not a {what}")]
pub struct ParseIdError {
    /// What it should have been.
    pub what: &'static str,
    /// What was there.
    pub text: String,
}

/// The number of a migration. `7-x` and `007-x` are one version.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Version(pub u64);

impl Version {
    /// A version has this many digits at most, so that it fits a bigint.
    pub const DIGITS_MAX: usize = 18;
}

impl From<u64> for Version {
    fn from(number: u64) -> Version {
        Version(number)
    }
}

/// At least three digits, as in the folders of most projects: `007`.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03}", self.0)
    }
}

impl FromStr for Version {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = !text.is_empty()
            && text.len() <= Version::DIGITS_MAX
            && text.bytes().all(|byte| byte.is_ascii_digit());
        match digits.then(|| text.parse().ok()).flatten() {
            Some(number) => Ok(Version(number)),
            None => Err(ParseIdError { what: "version (1 to 18 digits)", text: text.to_owned() }),
        }
    }
}

/// A part of a migration. A plain migration has only [`Phase::Up`].
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Phase {
    /// The whole of a plain migration.
    Up,
    /// Additive changes that the old application can live with.
    Prepare,
    /// Backfills.
    Execute,
    /// Invariants.
    Validate,
    /// What the old application could not have lived with.
    Cleanup,
}

impl Phase {
    /// The word used in step names, files and flags.
    pub fn word(self) -> &'static str {
        match self {
            Phase::Up => "up",
            Phase::Prepare => "prepare",
            Phase::Execute => "execute",
            Phase::Validate => "validate",
            Phase::Cleanup => "cleanup",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Which way a step goes.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Direction {
    /// Towards the newest version.
    Up,
    /// Back.
    Down,
}

/// The name of a step inside its migration. It is recorded, so it is stable:
/// a file's steps are numbered from 1 in the order in which they stand there.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum StepName {
    /// A piece of a script: `up/postgres/1`, `down/mongo/2`, `prepare.down/postgres/1`.
    Script {
        /// The phase whose script it is.
        phase: Phase,
        /// The script itself, or its `down`.
        direction: Direction,
        /// Where it runs.
        store: StoreName,
        /// Position in the script, from 1.
        index: u32,
    },
    /// A backfill, a run or a check: `execute/roles-as-an-array`, `execute.down/role-again`.
    Named {
        /// The phase it belongs to.
        phase: Phase,
        /// `Down` for what runs when the migration is reverted.
        direction: Direction,
        /// `[a-z0-9-]+`, unique in the migration, phase and direction.
        slug: String,
    },
    /// The migration was there before this engine was.
    Baseline,
    /// Somebody said that an edit of the applied migration was harmless.
    Accepted,
}

impl StepName {
    /// The phase it belongs to; a plain migration's is [`Phase::Up`].
    pub fn phase(&self) -> Phase {
        match self {
            StepName::Script { phase, .. } | StepName::Named { phase, .. } => *phase,
            StepName::Baseline | StepName::Accepted => Phase::Up,
        }
    }

    /// Which way the step goes.
    pub fn direction(&self) -> Direction {
        match self {
            StepName::Script { direction, .. } | StepName::Named { direction, .. } => *direction,
            StepName::Baseline | StepName::Accepted => Direction::Up,
        }
    }
}

impl fmt::Display for StepName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stem = |phase: &Phase, direction: &Direction| match (phase, direction) {
            (Phase::Up, Direction::Down) => "down".to_owned(),
            (phase, Direction::Up) => phase.word().to_owned(),
            (phase, Direction::Down) => format!("{phase}.down"),
        };
        match self {
            StepName::Script { phase, direction, store, index } => {
                write!(f, "{}/{store}/{index}", stem(phase, direction))
            }
            StepName::Named { phase, direction, slug } => {
                write!(f, "{}/{slug}", stem(phase, direction))
            }
            StepName::Baseline => f.write_str("baseline"),
            StepName::Accepted => f.write_str("accepted"),
        }
    }
}

impl FromStr for StepName {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseIdError { what: "step name", text: text.to_owned() };
        match text {
            "baseline" => return Ok(StepName::Baseline),
            "accepted" => return Ok(StepName::Accepted),
            _ => {}
        }
        let (stem, rest) = text.split_once('/').ok_or_else(bad)?;
        let (phase, direction) = match stem {
            "up" => (Phase::Up, Direction::Up),
            "down" => (Phase::Up, Direction::Down),
            "prepare" => (Phase::Prepare, Direction::Up),
            "prepare.down" => (Phase::Prepare, Direction::Down),
            "execute" => (Phase::Execute, Direction::Up),
            "execute.down" => (Phase::Execute, Direction::Down),
            "validate" => (Phase::Validate, Direction::Up),
            "validate.down" => (Phase::Validate, Direction::Down),
            "cleanup" => (Phase::Cleanup, Direction::Up),
            "cleanup.down" => (Phase::Cleanup, Direction::Down),
            _ => return Err(bad()),
        };
        if let Some((store, index)) = rest.split_once('/') {
            let store = store.parse().map_err(|_| bad())?;
            let index = index.parse().map_err(|_| bad())?;
            return Ok(StepName::Script { phase, direction, store, index });
        }
        let slug = !rest.is_empty()
            && rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !slug {
            return Err(bad());
        }
        Ok(StepName::Named { phase, direction, slug: rest.to_owned() })
    }
}

/// A step, among all of them.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct StepId {
    /// The migration.
    pub version: Version,
    /// The step in it.
    pub name: StepName,
}

/// As it is written on the command line: `007/up/postgres/1`.
impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.version, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_name_reads_back_as_it_was_written() {
        for text in [
            "up/postgres/1",
            "down/mongo/12",
            "prepare/mongo/3",
            "prepare.down/postgres/1",
            "execute/roles-as-an-array",
            "execute.down/role-again",
            "validate/no-user-lost-a-role",
            "cleanup.down/postgres/1",
            "baseline",
            "accepted",
        ] {
            let name: StepName = text.parse().expect(text);
            assert_eq!(name.to_string(), text);
        }
        for text in
            ["", "up", "up/", "up/oracle/1", "up/mongo/x", "sideways/mongo/1", "execute/A b"]
        {
            assert!(text.parse::<StepName>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_step_is_called_in_messages_as_on_the_command_line() {
        let name = StepName::Named {
            phase: Phase::Execute,
            direction: Direction::Up,
            slug: "roles".to_owned(),
        };
        assert_eq!(StepId { version: Version(7), name }.to_string(), "007/execute/roles");
    }

    #[test]
    fn versions_are_numbers() {
        assert_eq!("7".parse::<Version>(), "007".parse());
        assert_eq!(Version(7).to_string(), "007");
        assert_eq!(Version(20_261_120_093_000).to_string(), "20261120093000");
        for text in ["", "-1", "1.0", "1234567890123456789", "٣"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }
}
