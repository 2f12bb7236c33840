//! Connecting to MongoDB.

use super::failed;
use super::function::MongoFunctions;
use crate::core::server::{MongoServer, Topology};
use crate::store::{CONNECT, StoreError};
use bson::doc;
use mongodb::options::{
    Acknowledgment, ClientOptions, ReadConcern, ReadPreference, SelectionCriteria, ServerAddress,
    Tls, WriteConcern,
};
use mongodb::{Client, Database};
use std::fmt;
use std::time::Duration;

/// A server that is not found within this is not there. The driver's own 30 s
/// is too long for a person who mistyped a host name.
const SELECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Where and how to connect.
#[derive(Clone)]
pub struct MongoConfig {
    options: ClientOptions,
    database: String,
}

/// Without the password.
impl fmt::Debug for MongoConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MongoConfig").field("at", &self.place()).finish_non_exhaustive()
    }
}

/// A connection string that says something impossible.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MongoConfigError {
    /// The driver cannot read it.
    #[error("the MongoDB URL cannot be read: {0}")]
    Url(String),
    /// The database is the one in the URL.
    #[error("the MongoDB URL names no database (mongodb://host/NAME)")]
    NoDatabase,
}

impl MongoConfig {
    /// Reads a connection string. `mongodb+srv` asks the DNS.
    ///
    /// # Errors
    /// [`MongoConfigError`], never with a password in it.
    pub async fn parse(url: &str) -> Result<MongoConfig, MongoConfigError> {
        let options = ClientOptions::parse(url).await;
        let options = options.map_err(|error| {
            let text = error.kind.to_string();
            // The driver repeats what it could not read; a password may be in it.
            let text = if text.contains('@') { "it is malformed".to_owned() } else { text };
            MongoConfigError::Url(text)
        })?;
        let database = options.default_database.clone().ok_or(MongoConfigError::NoDatabase)?;
        Ok(MongoConfig::of_driver(options, &database))
    }

    /// As the driver's own options have it, with a database of that server.
    pub fn of_driver(mut options: ClientOptions, database: &str) -> MongoConfig {
        options.server_selection_timeout.get_or_insert(SELECTION_TIMEOUT);
        options.connect_timeout.get_or_insert(SELECTION_TIMEOUT);
        // A lost write concern or a stale read would be a history that changes
        // behind our back; what the URL says is meant for the application.
        options.write_concern =
            Some(WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build());
        options.read_concern = Some(ReadConcern::majority());
        options.selection_criteria =
            Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
        options.retry_writes = Some(true);
        MongoConfig { options, database: database.to_owned() }
    }

    /// With a password from elsewhere. Without a user in the URL there is nobody
    /// whose password it could be.
    pub fn set_password(&mut self, password: &str) {
        if let Some(credential) = &mut self.options.credential {
            credential.password = Some(password.to_owned());
        }
    }

    /// Whether the URL asks for TLS.
    fn tls(&self) -> bool {
        matches!(self.options.tls, Some(Tls::Enabled(_)))
    }

    /// Whether nothing that is sent leaves this machine.
    fn is_local(&self) -> bool {
        self.options.hosts.iter().all(|host| match host {
            ServerAddress::Tcp { host, .. } => {
                host == "localhost" || host == "::1" || host.starts_with("127.")
            }
            _ => true,
        })
    }

    /// `host:port/database`, for messages.
    pub fn place(&self) -> String {
        let hosts: Vec<String> = self.options.hosts.iter().map(ToString::to_string).collect();
        format!("{}/{}", hosts.join(","), self.database)
    }
}

/// A MongoDB database that was reached. A clone is of the same run, with the same
/// fence; the driver gives each of its requests a connection of its own.
#[derive(Clone)]
pub struct Mongo {
    pub(super) client: Client,
    pub(super) database: Database,
    pub(super) place: String,
    pub(super) run_id: String,
    /// Of our lease; 0 is nobody's.
    pub(super) fence: i64,
    pub(super) topology: Topology,
    /// TLS is asked for.
    pub(super) tls: bool,
    /// Every host is this machine.
    pub(super) local: bool,
    /// What the program around us brings along for its migrations.
    pub(super) functions: MongoFunctions,
    /// A copy found nothing in the place of its last page, or has not looked yet.
    pub(super) is_blank: bool,
    version: String,
}

impl fmt::Debug for Mongo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mongo").field("at", &self.place).finish_non_exhaustive()
    }
}

impl Mongo {
    /// Connects, and asks what the server is.
    ///
    /// # Errors
    /// [`Fate::Unreachable`](crate::store::Fate::Unreachable).
    pub async fn connect(config: MongoConfig, run_id: &str) -> Result<Mongo, StoreError> {
        let place = config.place();
        let error = |error: &mongodb::error::Error| {
            let mut failure = failed(CONNECT, error);
            failure.fate = crate::store::Fate::Unreachable;
            failure.said.message = format!("{place} ({})", failure.said.message);
            failure
        };
        let (tls, local) = (config.tls(), config.is_local());
        let MongoConfig { mut options, database } = config;
        options.app_name = Some(super::client_name(run_id, &database));
        let client = Client::with_options(options).map_err(|failure| error(&failure))?;
        let database = client.database(&database);
        // Both at once: each is a round trip.
        let (hello, build) = futures_util::future::join(
            async { database.run_command(doc! { "hello": 1 }).await },
            async { database.run_command(doc! { "buildInfo": 1 }).await },
        )
        .await;
        let (hello, build) = (hello.map_err(|e| error(&e))?, build.map_err(|e| error(&e))?);
        let topology = match (hello.get_str("setName"), hello.get_str("msg")) {
            (_, Ok("isdbgrid")) => Topology::Sharded,
            (Ok(_), _) => Topology::ReplicaSet,
            (Err(_), _) => Topology::Standalone,
        };
        let version = build.get_str("version").unwrap_or_default().to_owned();
        let run_id = run_id.to_owned();
        let (fence, is_blank) = (0, true);
        Ok(Mongo {
            client,
            database,
            place,
            run_id,
            fence,
            topology,
            tls,
            local,
            functions: MongoFunctions::default(),
            is_blank,
            version,
        })
    }

    /// With functions that its backfills may call.
    #[must_use]
    pub fn with_functions(mut self, functions: MongoFunctions) -> Mongo {
        self.functions = functions;
        self
    }

    /// What the server is.
    pub fn server(&self) -> MongoServer {
        MongoServer { version: self.version.clone(), topology: self.topology }
    }

    /// Asks the primary for nothing but an answer.
    ///
    /// # Errors
    /// None that can be reached.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let answer = self.database.run_command(doc! { "ping": 1 }).await;
        answer.map(drop).map_err(|error| failed("ask for a sign of life", &error))
    }

    /// Whether entries can be written in a transaction.
    pub(super) fn has_transactions(&self) -> bool {
        self.topology != Topology::Standalone
    }
}
