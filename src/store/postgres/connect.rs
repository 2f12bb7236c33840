//! Connecting, as libpq would: `sslmode` in all its shades, `sslrootcert`,
//! client certificates. The driver itself knows three modes and no files.

use super::backfill::Routes;
use super::copy::Destinations;
use super::pace::LogMarks;
use super::source::Queries;
use crate::core::id::StoreName;
use crate::core::server::PostgresServer;
use crate::store::{CONNECT, Fate, Obstruction, StoreError};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

/// A server that does not answer within this is not there. `connect_timeout` in
/// the URL beats it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// `sslmode`, as libpq means it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Only if the server insists.
    Allow,
    /// If the server can.
    Prefer,
    /// Always, with any certificate.
    Require,
    /// Always, with a certificate of a known authority.
    VerifyCa,
    /// Always, with a certificate of a known authority for this host.
    VerifyFull,
}

impl SslMode {
    /// The mode of that name.
    pub fn parse(text: &str) -> Option<SslMode> {
        Some(match text {
            "disable" => SslMode::Disable,
            "allow" => SslMode::Allow,
            "prefer" => SslMode::Prefer,
            "require" => SslMode::Require,
            "verify-ca" => SslMode::VerifyCa,
            "verify-full" => SslMode::VerifyFull,
            _ => return None,
        })
    }
}

/// TLS settings that hold where a URL says nothing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TlsDefaults {
    /// `sslmode`.
    pub mode: Option<SslMode>,
    /// `sslrootcert`: a file, or `system`.
    pub root: Option<String>,
    /// `sslcert`.
    pub cert: Option<PathBuf>,
    /// `sslkey`.
    pub key: Option<PathBuf>,
}

/// Where and how to connect.
#[derive(Clone)]
pub struct PostgresConfig {
    config: Config,
    mode: Option<SslMode>,
    root: Option<String>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
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
        let mut kept = Vec::new();
        let mut ours = Vec::new();
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some((key @ ("sslmode" | "sslrootcert" | "sslcert" | "sslkey"), value)) => {
                    ours.push((key, percent_decode(value)));
                }
                _ => kept.push(pair),
            }
        }
        let rest =
            if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
        let mut config: Config =
            rest.parse().map_err(|error| ConnectError::Url(super::chain(&error)))?;
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        let mut parsed = PostgresConfig {
            config,
            mode: None,
            root: None,
            cert: None,
            key: None,
            history_schema: "public".to_owned(),
            schema: None,
        };
        for (key, value) in ours {
            match key {
                "sslmode" => {
                    parsed.mode = Some(SslMode::parse(&value).ok_or(ConnectError::Mode(value))?);
                }
                "sslrootcert" => parsed.root = Some(value),
                "sslcert" => parsed.cert = Some(value.into()),
                _ => parsed.key = Some(value.into()),
            }
        }
        if parsed.root.as_deref() == Some("system") {
            match parsed.mode {
                None => parsed.mode = Some(SslMode::VerifyFull),
                Some(SslMode::VerifyFull) => {}
                Some(_) => return Err(ConnectError::WeakSystemRoots),
            }
        }
        Ok(parsed)
    }

    /// With TLS settings from elsewhere; what the URL says itself wins.
    pub fn tls_defaults(&mut self, defaults: TlsDefaults) {
        self.mode = self.mode.or(defaults.mode);
        self.root = self.root.take().or(defaults.root);
        self.cert = self.cert.take().or(defaults.cert);
        self.key = self.key.take().or(defaults.key);
    }

    /// With a password from elsewhere.
    pub fn set_password(&mut self, password: &str) {
        self.config.password(password);
    }

    /// `host:port/database`, for messages.
    pub fn place(&self) -> String {
        let host = match self.config.get_hosts().first() {
            Some(tokio_postgres::config::Host::Tcp(host)) => host.clone(),
            Some(tokio_postgres::config::Host::Unix(path)) => path.display().to_string(),
            None => "localhost".to_owned(),
        };
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        format!("{host}:{port}/{}", self.config.get_dbname().unwrap_or_default())
    }

    pub(super) async fn client(&self, run_id: &str) -> Result<Client, StoreError> {
        let error = |message: String| {
            let message = format!("{} ({message})", self.place());
            StoreError::new(StoreName::Postgres, CONNECT, Fate::Unreachable, message)
        };
        let mode = match self.mode {
            Some(SslMode::Require) if self.root.is_some() => SslMode::VerifyCa,
            mode => mode.unwrap_or(SslMode::Prefer),
        };
        let tls = self.tls(mode).map_err(|problem| error(problem.to_string()))?;
        let mut config = self.config.clone();
        config.application_name(format!("lockstep/{run_id}"));
        use tokio_postgres::config::SslMode as Driver;
        // As libpq: `allow` tries without first, `prefer` with.
        let tries: &[Driver] = match mode {
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
                    let unreachable = super::chain(&failure).contains("error connecting to server");
                    last = Some(failure);
                    if refused_as_such || unreachable {
                        break;
                    }
                }
            }
        }
        let last = last.expect("every mode makes at least one try");
        let mut failure = super::failed(CONNECT, &last);
        failure.fate = Fate::Unreachable;
        failure.said.message = format!("{} ({})", self.place(), failure.said.message);
        Err(failure)
    }

    /// Asks the server to cancel what a session is doing.
    pub(super) async fn cancel(&self, client: &Client) -> Result<(), tokio_postgres::Error> {
        match self.tls(self.mode.unwrap_or(SslMode::Prefer)) {
            Ok(tls) => client.cancel_token().cancel_query(tls).await,
            // It connected with the same settings.
            Err(_) => Ok(()),
        }
    }

    fn tls(&self, mode: SslMode) -> Result<MakeRustlsConnect, ConnectError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = match mode {
            SslMode::VerifyCa | SslMode::VerifyFull => Some(self.verifier(&provider)?),
            SslMode::Disable | SslMode::Allow | SslMode::Prefer | SslMode::Require => None,
        };
        let verifier =
            Verifier { chain, host: mode == SslMode::VerifyFull, provider: provider.clone() };
        let tls = |why: rustls::Error| ConnectError::File {
            file: "the TLS settings".to_owned(),
            why: why.to_string(),
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(tls)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let certs = read_certs(&cert.display().to_string())?;
                let key = PrivateKeyDer::from_pem_file(key).map_err(|why| ConnectError::File {
                    file: key.display().to_string(),
                    why: why.to_string(),
                })?;
                builder.with_client_auth_cert(certs, key).map_err(tls)?
            }
            _ => builder.with_no_client_auth(),
        };
        // Asked for by sslnegotiation=direct, ignored by older servers.
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(MakeRustlsConnect::new(config))
    }

    fn verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<WebPkiServerVerifier>, ConnectError> {
        let mut roots = RootCertStore::empty();
        match self.root.as_deref() {
            None | Some("system") => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if roots.is_empty() {
                    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
                }
            }
            Some(file) => {
                roots.add_parsable_certificates(read_certs(file)?);
                if roots.is_empty() {
                    return Err(ConnectError::File {
                        file: file.to_owned(),
                        why: "there is no certificate in it".to_owned(),
                    });
                }
            }
        }
        WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone()).build().map_err(
            |why| ConnectError::File {
                file: self.root.clone().unwrap_or_else(|| "the system's roots".to_owned()),
                why: why.to_string(),
            },
        )
    }
}

fn read_certs(file: &str) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let problem = |why: String| ConnectError::File { file: file.to_owned(), why };
    CertificateDer::pem_file_iter(file)
        .map_err(|why| problem(why.to_string()))?
        .collect::<Result<_, _>>()
        .map_err(|why| problem(why.to_string()))
}

/// `%2F` is `/`. What is no such escape stays.
fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Checks a server's certificate as far as `sslmode` asks for it.
#[derive(Debug)]
struct Verifier {
    /// `None` takes any certificate.
    chain: Option<Arc<WebPkiServerVerifier>>,
    /// Whether the name in it must be the host's.
    host: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.host => Ok(ServerCertVerified::assertion()),
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
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
            finished: None,
            waited_for: None,
            routes: Routes::default(),
            queries: Queries::default(),
            row_bytes: 0,
            destinations: Destinations::default(),
            log_marks: LogMarks::default(),
        })
    }

    /// A further session of the same run.
    pub(super) async fn another_client(&self) -> Result<Client, StoreError> {
        self.config.client(&self.run_id).await
    }

    /// The session, made anew if it was lost. Nothing that was under way in the
    /// old one can go on: the server rolls it back.
    pub(super) async fn session(&mut self) -> Result<&Client, StoreError> {
        if self.client.is_closed() {
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
        assert_eq!(config.mode, Some(SslMode::VerifyFull));
        assert_eq!(config.root.as_deref(), Some("/etc/ca.pem"));
        assert_eq!(config.place(), "db:5433/shop");
        assert!(!format!("{config:?}").contains("s3cret"));
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
        assert!(!error("postgres://app:s3cret@db:port/x").contains("s3cret"));
    }
}
