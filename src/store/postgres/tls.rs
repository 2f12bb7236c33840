//! TLS as libpq means it: `sslmode` in all its shades, `sslrootcert`, client
//! certificates. The driver itself knows three modes and no files.

use super::connect::ConnectError;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::sync::Arc;
use tokio_postgres_rustls::MakeRustlsConnect;

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

    /// As libpq writes it.
    pub fn word(self) -> &'static str {
        match self {
            SslMode::Disable => "disable",
            SslMode::Allow => "allow",
            SslMode::Prefer => "prefer",
            SslMode::Require => "require",
            SslMode::VerifyCa => "verify-ca",
            SslMode::VerifyFull => "verify-full",
        }
    }
}

/// What a connection string says of TLS.
#[derive(Clone, Debug, Default)]
pub(super) struct Tls {
    /// `sslmode`.
    pub mode: Option<SslMode>,
    /// `sslrootcert`: a file, or `system`.
    pub root: Option<String>,
    /// `sslcert` and `sslkey`.
    pub own: Option<(String, String)>,
}

impl Tls {
    /// # Errors
    /// It contradicts itself.
    pub(super) fn new(ours: &[(String, String)]) -> Result<Tls, ConnectError> {
        // The last of two counts, as in libpq.
        let get = |wanted: &str| {
            let found = ours.iter().rev().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
        };
        let mode = match get("sslmode") {
            Some(word) => Some(SslMode::parse(&word).ok_or(ConnectError::Mode(word))?),
            None => None,
        };
        let own = match (get("sslcert"), get("sslkey")) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => {
                return Err(ConnectError::HalfCertificate { has: "sslcert", lacks: "sslkey" });
            }
            (None, Some(_)) => {
                return Err(ConnectError::HalfCertificate { has: "sslkey", lacks: "sslcert" });
            }
        };
        let mut tls = Tls { mode, root: get("sslrootcert"), own };
        if tls.root.as_deref() == Some("system") {
            match tls.mode {
                None => tls.mode = Some(SslMode::VerifyFull),
                Some(SslMode::VerifyFull) => {}
                Some(_) => return Err(ConnectError::WeakSystemRoots),
            }
        }
        Ok(tls)
    }

    /// What is asked of the server's certificate.
    pub(super) fn effective(&self) -> SslMode {
        match self.mode {
            // As libpq: whoever names an authority wants it asked.
            Some(SslMode::Require) if self.root.is_some() => SslMode::VerifyCa,
            mode => mode.unwrap_or(SslMode::Prefer),
        }
    }

    /// # Errors
    /// A file that cannot be used.
    pub(super) fn connector(&self) -> Result<MakeRustlsConnect, ConnectError> {
        let mode = self.effective();
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
        let mut config = match &self.own {
            Some((cert, key)) => {
                let certs = read_certs(cert)?;
                let key = read_key(key)?;
                builder.with_client_auth_cert(certs, key).map_err(tls)?
            }
            None => builder.with_no_client_auth(),
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

fn read_key(file: &str) -> Result<PrivateKeyDer<'static>, ConnectError> {
    let problem = |why: String| ConnectError::File { file: file.to_owned(), why };
    let text = std::fs::read(file).map_err(|why| problem(why.to_string()))?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|why| {
        let is_encrypted = String::from_utf8_lossy(&text).contains("ENCRYPTED");
        problem(match is_encrypted {
            true => "the key is encrypted; decrypt it into a file that only this user may read"
                .to_owned(),
            false => why.to_string(),
        })
    })
}

fn read_certs(file: &str) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let problem = |why: String| ConnectError::File { file: file.to_owned(), why };
    CertificateDer::pem_file_iter(file)
        .map_err(|why| problem(why.to_string()))?
        .collect::<Result<_, _>>()
        .map_err(|why| problem(why.to_string()))
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
