//! One request to somebody else's server: what a run tells when it ends, and while it
//! is at work. Nobody waits for long, and no password is ever in an error.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::percent_decode_str;
use std::fmt;
use std::time::Duration;
use ureq::Agent;
use ureq::http::{Method, Request};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// So much of an answer is read: the beginning of it says what is wrong.
const ANSWER_MAX: u64 = 16 * 1024;

/// So many characters of an answer are told to people.
const TOLD_MAX: usize = 200;

/// Where something is sent. Neither its text nor an error about it has what opens it:
/// the user and the password are taken out of the URL when it is read.
#[derive(Clone, Eq, PartialEq)]
pub struct Address {
    /// `http` or `https`, the host, the path; an option behind a `?` may be a token.
    url: String,
    /// The user and the password, as a server wants them.
    authorization: Option<String>,
}

impl Address {
    /// Reads a URL; without a scheme it is `http`.
    ///
    /// # Errors
    /// What is wrong with it, without repeating it.
    pub fn parse(text: &str) -> Result<Address, &'static str> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let scheme = scheme.to_ascii_lowercase();
        if scheme != "http" && scheme != "https" {
            return Err("it begins neither with http:// nor with https://");
        }
        let rest = rest.split('#').next().unwrap_or_default();
        // Up to the last `@` in front of the path: a password may have one itself.
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authorization, host) = match rest[..end].rfind('@') {
            Some(at) => (Some(basic(&rest[..at])), &rest[at + 1..]),
            None => (None, rest),
        };
        // A password with a `/` in it: what follows is neither a host nor a path. A path
        // of a gateway has `@base64` where a value is written so.
        if rest[end..].replace("@base64/", "").contains('@') {
            return Err("a `/`, `?` or `@` in its password must be written %2F, %3F or %40");
        }
        let url = format!("{scheme}://{host}");
        let uri = url.parse::<ureq::http::Uri>().map_err(|_| "it is no URL")?;
        match uri.host() {
            Some(host) if !host.is_empty() => Ok(Address { url, authorization }),
            _ => Err("it has no host"),
        }
    }

    /// The same server, another path behind the one that it has.
    #[must_use]
    pub fn below(&self, path: &str) -> Address {
        let (base, options) = match self.url.split_once('?') {
            Some((base, options)) => (base, format!("?{options}")),
            None => (self.url.as_str(), String::new()),
        };
        let url = format!("{}{path}{options}", base.trim_end_matches('/'));
        Address { url, authorization: self.authorization.clone() }
    }

    /// Its path, without options.
    pub fn path(&self) -> &str {
        let behind = self.url.find("://").map_or(0, |at| at + 3);
        let path = self.url[behind..].find('/').map_or("", |at| &self.url[behind + at..]);
        path.split('?').next().unwrap_or_default()
    }

    fn is_tls(&self) -> bool {
        self.url.starts_with("https:")
    }
}

/// Without the user, the password and the options.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url.split('?').next().unwrap_or_default())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

/// `user:password` of a URL, as the header has it.
fn basic(userinfo: &str) -> String {
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    let mut pair: Vec<u8> = percent_decode_str(user).collect();
    pair.push(b':');
    pair.extend(percent_decode_str(password));
    format!("Basic {}", BASE64_STANDARD.encode(pair))
}

/// Why something was not taken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SendError {
    /// Nobody answered.
    Unsent(String),
    /// The answer is no.
    Refused {
        /// 404.
        status: u16,
        /// The first line of what it says.
        says: String,
    },
}

impl SendError {
    /// Whether the same may be taken a little later.
    pub fn is_passing(&self) -> bool {
        match self {
            SendError::Unsent(_) => true,
            SendError::Refused { status, .. } => matches!(status, 408 | 429 | 502 | 503 | 504),
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::Unsent(why) => f.write_str(why),
            SendError::Refused { status, says } if says.is_empty() => {
                write!(f, "it answered {status}")
            }
            SendError::Refused { status, says } => write!(f, "it answered {status}: {says}"),
        }
    }
}

/// What sends: it keeps its connection for the next time.
pub struct Sender {
    agent: Agent,
    to: Address,
    headers: Vec<(String, String)>,
    limit: Duration,
}

impl Sender {
    /// Each request takes no longer than `limit`, from the look for the host to the
    /// end of the answer.
    pub fn new(to: Address, headers: Vec<(String, String)>, limit: Duration) -> Sender {
        let mut config = Agent::config_builder()
            .timeout_global(Some(limit))
            .http_status_as_error(false)
            // A password is for whom it was written down for.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("lockstep/", env!("CARGO_PKG_VERSION")));
        if to.is_tls() {
            config = config.tls_config(TlsConfig::builder().root_certs(roots()).build());
        } else {
            // What is near is reached without one; of https, the environment says.
            config = config.proxy(None);
        }
        Sender { agent: Agent::new_with_config(config.build()), to, headers, limit }
    }

    /// Sends, waits for the answer, and returns its text. It blocks.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn send(&self, method: Method, kind: &str, body: &[u8]) -> Result<String, SendError> {
        let mut request = Request::builder().method(method).uri(&self.to.url);
        request = request.header("content-type", kind);
        if let Some(authorization) = &self.to.authorization {
            request = request.header("authorization", authorization);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        // Of what cannot be a header, the error shows nothing.
        let request = request
            .body(body)
            .map_err(|_| SendError::Unsent("a header of it cannot be sent".to_owned()))?;
        let mut answer = self.agent.run(request).map_err(|error| self.unsent(error))?;
        let status = answer.status();
        let text = answer.body_mut().with_config().limit(ANSWER_MAX).read_to_string();
        if status.is_success() {
            return Ok(text.unwrap_or_default());
        }
        let says = text.unwrap_or_default();
        let says = says.lines().next().unwrap_or_default().trim();
        let says = says.chars().filter(|c| !c.is_control()).take(TOLD_MAX).collect();
        Err(SendError::Refused { status: status.as_u16(), says })
    }

    fn unsent(&self, error: ureq::Error) -> SendError {
        use ureq::Error;
        SendError::Unsent(match error {
            Error::Timeout(_) => {
                format!("it did not answer within {}", crate::core::duration::show(self.limit))
            }
            Error::Io(error) => error.to_string(),
            Error::HostNotFound => "its host is not known".to_owned(),
            // These may repeat the URL.
            Error::BadUri(_) | Error::Http(_) => "its URL cannot be used".to_owned(),
            other => other.to_string(),
        })
    }
}

/// The authorities of this machine, or else Mozilla's.
fn roots() -> RootCerts {
    let native = rustls_native_certs::load_native_certs().certs;
    if native.is_empty() {
        return RootCerts::WebPki;
    }
    native.iter().map(|der| Certificate::from_der(der).to_owned()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"))
    }

    /// What a server decodes.
    fn login(text: &str) -> Option<String> {
        let authorization = address(text).authorization?;
        let encoded = authorization.strip_prefix("Basic ").expect("basic");
        let decoded = BASE64_STANDARD.decode(encoded).expect("base64");
        Some(String::from_utf8(decoded).expect("text"))
    }

    #[test]
    fn the_user_and_the_password_are_taken_out_and_decoded() {
        assert_eq!(login("http://gateway:9091/x"), None);
        assert_eq!(login("http://app:s3cret@gateway/x").as_deref(), Some("app:s3cret"));
        assert_eq!(login("https://app:p%40ss%2Fw@gateway").as_deref(), Some("app:p@ss/w"));
        assert_eq!(login("http://app:p@ss@gateway").as_deref(), Some("app:p@ss"));
        assert_eq!(login("http://app:a:b@gateway").as_deref(), Some("app:a:b"));
        assert_eq!(login("http://token@gateway").as_deref(), Some("token:"));
    }

    #[test]
    fn nothing_that_opens_it_is_shown() {
        for text in [
            "http://app:s3cret@gateway:9091/push",
            "http://gateway:9091/push?token=s3cret",
            "http://app:s3cret@gateway:9091/push?token=s3cret#s3cret",
        ] {
            let address = address(text);
            assert_eq!(address.to_string(), "http://gateway:9091/push");
            assert_eq!(format!("{address:?}"), "Address(http://gateway:9091/push)");
        }
    }

    #[test]
    fn what_cannot_be_sent_to_says_why_and_not_what() {
        for text in ["ftp://s3cret/", "http://", "http:///push", "http://a b/", "://gateway"] {
            let why = Address::parse(text).expect_err(text);
            assert!(!why.contains("s3cret"), "{why}");
        }
        for text in ["http://app:s3/cret@gateway/", "http://app:12/3@gateway", "http://a@b:s3/c@d"]
        {
            let why = Address::parse(text).expect_err("ambiguous");
            assert!(why.contains("%2F"), "{why}");
        }
    }

    #[test]
    fn without_a_scheme_it_is_http() {
        assert_eq!(address("gateway:9091").to_string(), "http://gateway:9091");
        assert_eq!(login("app:s3cret@gateway:9091").as_deref(), Some("app:s3cret"));
    }

    #[test]
    fn a_path_goes_behind_the_one_that_is_there_and_before_the_options() {
        assert_eq!(address("http://a").below("/v1/traces").url, "http://a/v1/traces");
        assert_eq!(address("http://a/").below("/v1/traces").url, "http://a/v1/traces");
        assert_eq!(address("https://a/b/?c=d").below("/e").url, "https://a/b/e?c=d");
        assert_eq!(address("https://a/b/?c=/d").path(), "/b/");
        assert_eq!(address("http://a").path(), "");
    }
}
