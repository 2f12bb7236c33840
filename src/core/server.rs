//! What the two servers are and can do, as far as plans depend on it.

use crate::core::id::StoreName;
use crate::core::migration::Requires;

/// What was found out about both servers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Servers {
    /// `None` when no Postgres is configured.
    pub postgres: Option<PostgresServer>,
    /// `None` when no MongoDB is configured.
    pub mongo: Option<MongoServer>,
}

/// A Postgres server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PostgresServer {
    /// As it calls itself: `15.18`.
    pub version: String,
}

/// A MongoDB server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MongoServer {
    /// As it calls itself: `6.0.5`.
    pub version: String,
    /// How it is set up.
    pub topology: Topology,
}

/// How a MongoDB is set up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Topology {
    /// A single server without transactions.
    Standalone,
    /// A replica set, of one member or more.
    ReplicaSet,
    /// Behind mongos.
    Sharded,
}

impl Topology {
    /// The word in `status --output json`.
    pub fn word(self) -> &'static str {
        match self {
            Topology::Standalone => "standalone",
            Topology::ReplicaSet => "replica-set",
            Topology::Sharded => "sharded",
        }
    }
}

impl Servers {
    /// Whether a store is configured.
    pub fn has(&self, store: StoreName) -> bool {
        match store {
            StoreName::Postgres => self.postgres.is_some(),
            StoreName::Mongo => self.mongo.is_some(),
        }
    }

    /// The configured stores.
    pub fn stores(&self) -> Vec<StoreName> {
        StoreName::BOTH.into_iter().filter(|store| self.has(*store)).collect()
    }

    /// Whether documents can be written together with their record.
    pub fn mongo_transactions(&self) -> bool {
        self.mongo.as_ref().is_some_and(|server| server.topology != Topology::Standalone)
    }

    /// The first requirement that is not met: what is required, what was found.
    pub fn unmet(&self, requires: &Requires) -> Option<(String, String)> {
        if let (Some(least), Some(server)) = (requires.postgres, &self.postgres)
            && major_minor(&server.version) < least
        {
            let required = format!("Postgres >= {}", least_text(least));
            return Some((required, format!("Postgres {}", server.version)));
        }
        let server = self.mongo.as_ref()?;
        if let Some(least) = requires.mongo
            && major_minor(&server.version) < least
        {
            let required = format!("MongoDB >= {}", least_text(least));
            return Some((required, format!("MongoDB {}", server.version)));
        }
        if requires.replica_set && server.topology == Topology::Standalone {
            let required = "a MongoDB replica set".to_owned();
            return Some((required, "a standalone server, which has no transactions".to_owned()));
        }
        None
    }
}

/// `(14, 0)` is `14`, as people write it.
fn least_text((major, minor): (u32, u32)) -> String {
    match minor {
        0 => major.to_string(),
        minor => format!("{major}.{minor}"),
    }
}

/// `15.18 (Debian …)` is `(15, 18)`. What is not a number is 0.
fn major_minor(version: &str) -> (u32, u32) {
    let mut numbers = version
        .split(|c: char| !c.is_ascii_digit())
        .map(|digits| digits.parse::<u32>().unwrap_or_default());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(major_minor("9.6.1") < major_minor("15.2 (Debian 15.2-1)"));
        assert_eq!(major_minor("16beta1"), (16, 0));
        assert_eq!(major_minor("6.0.5"), (6, 0));
    }
}
