//! Connecting, as libpq would.

use super::backfill::Routes;
use super::conninfo::{Conninfo, Fallbacks};
use super::copy::Destinations;
use super::function::Functions;
use super::pace::LogMarks;
use super::passfile::{self, Found, Login};
use super::source::Queries;
use super::tls::{SslMode, Tls};
use crate::core::causes;
use crate::core::id::StoreName;
use crate::core::server::PostgresServer;
use crate::store::{CONNECT, Fate, Obstruction, StoreError};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use tokio_postgres::config::Host;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config};

/// A server that does not answer within this is not there. `connect_timeout` in
/// the URL beats it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

const DEFAULT_PORT: u16 = 5432;

/// Where and how to connect.
#[derive(Clone)]
pub struct PostgresConfig {
    config: Config,
    tls: Tls,
    /// Asked for the password that nobody gave.
    passfile: Option<PathBuf>,
    /// The schema of the five history tables.
    pub history_schema: String,
    /// `search_path` of the scripts; `None` is the server's.
    pub schema: Option<String>,
}

/// Without the password.
impl fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConfig").field("at", &self.place()).finish_non_exhaustive()
    }
}

/// A connection URL that says something impossible.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ConnectError {
    /// The driver cannot read it. The URL itself is not repeated: it has a password in it.
    #[error("the Postgres URL cannot be read: {0}")]
    Url(String),
    /// libpq would not take it either.
    #[error(
        "sslmode `{0}` does not exist (disable, allow, prefer, require, verify-ca or verify-full)"
    )]
    Mode(String),
    /// As libpq says it.
    #[error("sslrootcert=system needs sslmode=verify-full")]
    WeakSystemRoots,
    /// One half of a client certificate.
    #[error("{has} is given and {lacks} is not: a client certificate is both")]
    HalfCertificate {
        /// What there is.
        has: &'static str,
        /// What there is not.
        lacks: &'static str,
    },
    /// What libpq has and we do not.
    #[error("`{name}` {why}")]
    Parameter {
        /// As libpq calls it.
        name: String,
        /// What it cannot be, and what to do.
        why: &'static str,
    },
    /// A certificate or key file.
    #[error("cannot use {file} for TLS: {why}")]
    File {
        /// Which.
        file: String,
        /// Why not.
        why: String,
    },
}

impl PostgresConfig {
    /// Reads a URL, or libpq's `key=value` form.
    ///
    /// # Errors
    /// [`ConnectError`], never with a password in it.
    pub fn parse(url: &str) -> Result<PostgresConfig, ConnectError> {
        PostgresConfig::with(url, &Fallbacks::default())
    }

    /// The same; what the URL says nothing of comes from elsewhere.
    ///
    /// # Errors
    /// [`ConnectError`], never with a password in it.
    pub fn with(url: &str, fallbacks: &Fallbacks) -> Result<PostgresConfig, ConnectError> {
        let mut info = Conninfo::parse(url)?;
        let said = driver(&info)?;
        let has_host = !said.get_hosts().is_empty() || !said.get_hostaddrs().is_empty();
        for (name, value) in fallbacks.iter() {
            let is_said = info.names(name)
                || match name {
                    // A URL with a host has a port, if only the usual one.
                    "host" | "hostaddr" | "port" | "service" => {
                        has_host || !said.get_ports().is_empty()
                    }
                    "user" => said.get_user().is_some(),
                    "password" => said.get_password().is_some(),
                    "dbname" => said.get_dbname().is_some(),
                    _ => false,
                };
            if !is_said {
                info.add(name, value)?;
            }
        }
        let mut config = driver(&info)?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            config.host("localhost");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        let passfile = info.ours.iter().rev().find(|(name, _)| name == "passfile");
        Ok(PostgresConfig {
            config,
            tls: Tls::new(&info.ours)?,
            passfile: passfile.map(|(_, file)| PathBuf::from(file)),
            history_schema: "public".to_owned(),
            schema: None,
        })
    }

    /// As the driver's own configuration has it. What that cannot say about TLS is as
    /// in a URL that does not say it.
    ///
    /// # Errors
    /// [`ConnectError`], never with a password in it.
    pub fn of_driver(mut config: Config) -> Result<PostgresConfig, ConnectError> {
        use tokio_postgres::config::SslMode as Driver;
        let mode = match config.get_ssl_mode() {
            Driver::Disable => "disable",
            Driver::Require => "require",
            _ => "prefer",
        };
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            config.host("localhost");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        Ok(PostgresConfig {
            config,
            tls: Tls::new(&[("sslmode".to_owned(), mode.to_owned())])?,
            passfile: None,
            history_schema: "public".to_owned(),
            schema: None,
        })
    }

    /// With a password from elsewhere.
    pub fn set_password(&mut self, password: &str) {
        self.config.password(password);
    }

    /// `host:port/database`, for messages.
    pub fn place(&self) -> String {
        let places: Vec<String> =
            self.hosts().map(|(host, port)| format!("{host}:{port}")).collect();
        format!("{}/{}", places.join(","), self.config.get_dbname().unwrap_or_default())
    }

    fn hosts(&self) -> impl Iterator<Item = (String, u16)> {
        let ports = self.config.get_ports();
        let names = self.config.get_hosts().iter().map(|host| match host {
            Host::Tcp(host) => host.clone(),
            Host::Unix(path) => path.display().to_string(),
        });
        let addresses = self.config.get_hostaddrs().iter().map(ToString::to_string);
        let is_named = !self.config.get_hosts().is_empty();
        let hosts = names.chain(addresses.filter(move |_| !is_named));
        hosts.enumerate().map(|(at, host)| {
            let port = ports.get(at).or(ports.first()).copied().unwrap_or(DEFAULT_PORT);
            (host, port)
        })
    }

    /// The password of the first of the hosts for which the file has one.
    fn password_of_file(&self) -> Found {
        let (Some(file), Some(user)) = (&self.passfile, self.config.get_user()) else {
            return Found::Nothing;
        };
        let database = self.config.get_dbname().unwrap_or(user);
        let looked_up = self.hosts().map(|(host, port)| {
            // As libpq: a socket is at `localhost`.
            let host = if host.starts_with('/') { "localhost" } else { &host };
            passfile::look_up(file, Login { host, port, database, user })
        });
        let mut looked_up = looked_up.filter(|found| *found != Found::Nothing);
        looked_up.next().unwrap_or(Found::Nothing)
    }

    pub(super) async fn client(&self, run_id: &str) -> Result<Client, StoreError> {
        let error = |message: String| {
            let message = format!("{} ({message})", self.place());
            StoreError::new(StoreName::Postgres, CONNECT, Fate::Unreachable, message)
        };
        let tls = self.tls.connector().map_err(|problem| error(problem.to_string()))?;
        let mut config = self.config.clone();
        config.application_name(format!("lockstep/{run_id}"));
        let mut of_password = String::new();
        if config.get_password().is_none() {
            match self.password_of_file() {
                Found::Password(password) => {
                    config.password(password);
                }
                Found::Open => {
                    let file = self.passfile.as_deref().unwrap_or_else(|| "".as_ref()).display();
                    of_password = format!("; {file} is not read, because others may: chmod 600 it");
                }
                Found::Nothing => {}
            }
        }
        use tokio_postgres::config::SslMode as Driver;
        // As libpq: `allow` tries without first, `prefer` with.
        let tries: &[Driver] = match self.tls.effective() {
            SslMode::Disable => &[Driver::Disable],
            SslMode::Allow => &[Driver::Disable, Driver::Require],
            SslMode::Prefer => &[Driver::Prefer, Driver::Disable],
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[Driver::Require],
        };
        let mut last = None;
        for mode in tries {
            config.ssl_mode(*mode);
            match config.connect(tls.clone()).await {
                Ok((client, connection)) => {
                    // It ends with the client; what it has to say, the next
                    // request says too.
                    tokio::spawn(connection);
                    return Ok(client);
                }
                Err(failure) => {
                    let refused_as_such = failure.as_db_error().is_some()
                        && failure.code().is_none_or(|code| code.code() != "28000");
                    let chain = causes::chain(&failure);
                    // With or without TLS makes no difference to these.
                    let is_other = ["error connecting to server", "invalid configuration"]
                        .iter()
                        .any(|it| chain.contains(it));
                    last = Some(failure);
                    if refused_as_such || is_other {
                        break;
                    }
                }
            }
        }
        let last = last.expect("every mode makes at least one try");
        let mut failure = super::failed(CONNECT, &last);
        failure.fate = Fate::Unreachable;
        failure.said.message = format!("{} ({}{of_password})", self.place(), failure.said.message);
        Err(failure)
    }

    /// Asks the server to cancel what a session is doing.
    pub(super) async fn cancel(&self, client: &Client) -> Result<(), tokio_postgres::Error> {
        match self.tls.connector() {
            Ok(tls) => client.cancel_token().cancel_query(tls).await,
            // It connected with the same settings.
            Err(_) => Ok(()),
        }
    }
}

fn driver(info: &Conninfo) -> Result<Config, ConnectError> {
    info.driver.parse().map_err(|error| ConnectError::Url(causes::chain(&error)))
}

/// A Postgres database that was reached.
pub struct Postgres {
    pub(super) config: PostgresConfig,
    pub(super) client: Client,
    pub(super) run_id: String,
    /// Of our lease; 0 is nobody's.
    pub(super) fence: i64,
    /// A script ran in this session since it was last cleaned.
    pub(super) used: bool,
    /// A transaction of a step or of entries was begun and not yet ended: whoever
    /// waited for it may have gone away in the middle.
    pub(super) open: bool,
    /// What the program around us brings along for its migrations.
    pub(super) functions: Functions,
    /// A function of it ran in this session: nobody knows what the driver remembers.
    pub(super) stale: bool,
    /// The process of the server in which it ran: there it may run again, and what the
    /// driver remembers is remembered. Behind a pooler the next transaction may be in
    /// another one.
    pub(super) backend: Option<String>,
    /// The statement whose first half `clear` has just finished.
    pub(super) finished: Option<String>,
    /// What the step that failed last was seen to wait for.
    pub(super) waited_for: Option<Obstruction>,
    /// How this session's backfills go through their tables.
    pub(super) routes: Routes,
    /// The queries that this session's copies go through.
    pub(super) queries: Queries,
    /// How large a document of the last page was, on average; 0 is not known.
    pub(super) row_bytes: usize,
    /// And into which tables its copies go.
    pub(super) destinations: Destinations,
    /// How far the server's log was, and when: by it the lag of standbys is told.
    pub(super) log_marks: LogMarks,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("at", &self.config.place()).finish_non_exhaustive()
    }
}

impl Postgres {
    /// Connects. The session is called `lockstep/<run>`.
    ///
    /// # Errors
    /// [`Fate::Unreachable`].
    pub async fn connect(config: PostgresConfig, run_id: &str) -> Result<Postgres, StoreError> {
        let client = config.client(run_id).await?;
        Ok(Postgres {
            config,
            client,
            run_id: run_id.to_owned(),
            fence: 0,
            used: false,
            open: false,
            functions: Functions::default(),
            stale: false,
            backend: None,
            finished: None,
            waited_for: None,
            routes: Routes::default(),
            queries: Queries::default(),
            row_bytes: 0,
            destinations: Destinations::default(),
            log_marks: LogMarks::default(),
        })
    }

    /// With functions that its migrations may call.
    #[must_use]
    pub fn with_functions(mut self, functions: Functions) -> Postgres {
        self.functions = functions;
        self
    }

    /// A further session of the same run.
    pub(super) async fn another_client(&self) -> Result<Client, StoreError> {
        self.config.client(&self.run_id).await
    }

    /// The session, made anew if it was lost. Nothing that was under way in the
    /// old one can go on: the server rolls it back.
    pub(super) async fn session(&mut self) -> Result<&Client, StoreError> {
        if self.client.is_closed() || (self.stale && !self.open) {
            self.reconnect().await?;
        }
        if self.open {
            // Half a step must not be committed with what comes next.
            let ended = self.client.batch_execute("ROLLBACK").await;
            ended.map_err(|error| super::failed("end what was cancelled", &error))?;
            self.open = false;
        }
        Ok(&self.client)
    }

    /// A session in place of one that was lost.
    pub(super) async fn reconnect(&mut self) -> Result<(), StoreError> {
        self.client = self.another_client().await?;
        self.used = false;
        self.open = false;
        self.stale = false;
        self.backend = None;
        self.check_lease().await
    }

    /// Whether our lease, if we have one, is still ours: asked before what no
    /// transaction can hold, and after a session was lost, because somebody who
    /// took the lease ends our sessions.
    pub(super) async fn check_lease(&self) -> Result<(), StoreError> {
        const DOING: &str = "check the lease";
        if self.fence == 0 {
            return Ok(());
        }
        let sql = format!(
            "SELECT 1 FROM {} WHERE run_id = $1 AND fence = $2 AND outcome = 'running'",
            self.table("migration_runs")
        );
        let ours = [
            (&self.run_id as &(dyn tokio_postgres::types::ToSql + Sync), Type::TEXT),
            (&self.fence, Type::INT8),
        ];
        let rows = self.client.query_typed(&sql, &ours).await;
        match rows.map_err(|error| super::failed(DOING, &error))?.is_empty() {
            false => Ok(()),
            true => Err(StoreError::new(
                StoreName::Postgres,
                DOING,
                Fate::Fenced,
                "another run has taken it",
            )),
        }
    }

    /// What the server is.
    ///
    /// # Errors
    /// A lost connection.
    pub async fn server(&mut self) -> Result<PostgresServer, StoreError> {
        let rows = self.client.query_typed("SELECT current_setting('server_version')", &[]).await;
        let rows = rows.map_err(|error| super::failed("ask for the version", &error))?;
        let version: &str = rows.first().map_or("", |row| row.get(0));
        let version = version.split(' ').next().unwrap_or_default().to_owned();
        Ok(PostgresServer { version })
    }

    /// Asks the server for nothing but an answer.
    ///
    /// # Errors
    /// A lost connection. It is not made anew.
    pub async fn ping(&mut self) -> Result<(), StoreError> {
        let answer = self.client.query_typed("SELECT 1", &[]).await;
        answer.map(drop).map_err(|error| super::failed("ask for a sign of life", &error))
    }

    /// One of the five history tables, qualified and quoted.
    pub(super) fn table(&self, name: &str) -> String {
        format!("{}.{}", super::quote(&self.config.history_schema), super::quote(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_keeps_what_the_driver_knows_and_gives_up_the_rest() {
        let config = PostgresConfig::parse(
            "postgres://app:s3cret@db:5433/shop?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem&connect_timeout=3",
        )
        .expect("a good URL");
        assert_eq!(config.tls.mode, Some(SslMode::VerifyFull));
        assert_eq!(config.tls.root.as_deref(), Some("/etc/ca.pem"));
        assert_eq!(config.place(), "db:5433/shop");
        assert!(!format!("{config:?}").contains("s3cret"));
    }

    #[test]
    fn what_a_url_leaves_open_is_taken_from_elsewhere_and_nothing_else() {
        let mut fallbacks = Fallbacks::default();
        for (name, value) in [
            ("host", "elsewhere"),
            ("port", "6432"),
            ("user", "somebody"),
            ("dbname", "other"),
            ("sslmode", "require"),
            ("sslmode", "disable"),
        ] {
            fallbacks.push(name, value);
        }
        let check = |url: &str, place: &str, user: &str, mode: SslMode| {
            let config = PostgresConfig::with(url, &fallbacks).expect(url);
            assert_eq!(config.place(), place, "{url}");
            assert_eq!(config.config.get_user(), Some(user), "{url}");
            assert_eq!(config.tls.effective(), mode, "{url}");
        };
        check("postgres://", "elsewhere:6432/other", "somebody", SslMode::Require);
        check("postgres://app@db/shop?sslmode=prefer", "db:5432/shop", "app", SslMode::Prefer);
        check("postgres:///shop", "elsewhere:6432/shop", "somebody", SslMode::Require);
        check("host=db user=app", "db:5432/other", "app", SslMode::Require);
        check("postgres://a,b:7000/shop", "a:5432,b:7000/shop", "somebody", SslMode::Require);
        check("postgres://?host=/run/pg", "/run/pg:5432/other", "somebody", SslMode::Require);
    }

    #[test]
    fn impossible_urls_say_why_and_never_repeat_the_password() {
        let error = |url: &str| PostgresConfig::parse(url).expect_err(url).to_string();
        assert_eq!(
            error("postgres://db/x?sslmode=yes"),
            "sslmode `yes` does not exist (disable, allow, prefer, require, verify-ca or verify-full)"
        );
        assert_eq!(
            error("postgres://db/x?sslrootcert=system&sslmode=require"),
            "sslrootcert=system needs sslmode=verify-full"
        );
        assert_eq!(
            error("postgres://db/x?sslcert=a.crt"),
            "sslcert is given and sslkey is not: a client certificate is both"
        );
        assert!(!error("postgres://app:s3cret@db:port/x").contains("s3cret"));
    }
}
