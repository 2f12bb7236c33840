//! Connection strings, of which the driver knows a part: URLs, and libpq's
//! `key=value` form. What it does not know is taken out of them here; what they leave
//! open is filled in from elsewhere, as libpq does it.

use std::fmt;

use super::connect::ConnectError;

/// A parameter of a connection and its value, both as libpq calls them.
pub(super) type Parameter = (String, String);

/// A connection string, divided.
pub(super) struct Conninfo {
    /// What the driver reads.
    pub driver: String,
    /// What is read here: `sslmode` and the files of TLS and passwords.
    pub ours: Vec<Parameter>,
    /// Every parameter that is named in it, but for those that a URL has in front of
    /// its `?`.
    named: Vec<String>,
    is_url: bool,
}

/// What is meant for whom.
enum Whose {
    Driver,
    Ours,
    /// libpq's business, of which nothing is asked.
    Nobody,
}

/// What a connection string leaves open is taken from here, as if it said so itself:
/// of two values under one name, the first.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Fallbacks(Vec<Parameter>);

impl Fallbacks {
    /// By a name of libpq's: `host`, `sslmode`, `passfile`.
    pub fn push(&mut self, name: &str, value: impl Into<String>) {
        if self.get(name).is_none() {
            self.0.push((name.to_owned(), value.into()));
        }
    }

    /// The value under a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Without the values: a password may be one.
impl fmt::Debug for Fallbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Conninfo {
    /// # Errors
    /// A parameter that cannot be honoured.
    pub(super) fn parse(text: &str) -> Result<Conninfo, ConnectError> {
        if text.contains("://") { Conninfo::url(text) } else { Conninfo::words(text) }
    }

    fn url(text: &str) -> Result<Conninfo, ConnectError> {
        let (base, query) = text.split_once('?').unwrap_or((text, ""));
        if is_unescaped(base, query) {
            let why = "its user or its password has one of `@ ? / #` in it; write them as %40, %3F, %2F, %23";
            return Err(ConnectError::Url(why.to_owned()));
        }
        let mut info =
            Conninfo { driver: base.to_owned(), ours: vec![], named: vec![], is_url: true };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let Some((name, value)) = pair.split_once('=') else {
                info.append(pair);
                continue;
            };
            match info.note(&percent_decoded(name), percent_decoded(value))? {
                Whose::Driver => info.append(pair),
                Whose::Ours | Whose::Nobody => {}
            }
        }
        Ok(info)
    }

    fn words(text: &str) -> Result<Conninfo, ConnectError> {
        let mut info =
            Conninfo { driver: String::new(), ours: vec![], named: vec![], is_url: false };
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let Some((name, value)) = rest.split_once('=') else {
                return Err(ConnectError::Url("a parameter without `=`".to_owned()));
            };
            let name = name.trim_end();
            let value = value.trim_start();
            let length = word_length(value)?;
            let (word, after) = value.split_at(length);
            match info.note(name, unquoted(word))? {
                Whose::Driver => info.append(&format!("{name}={word}")),
                Whose::Ours | Whose::Nobody => {}
            }
            rest = after.trim_start();
        }
        Ok(info)
    }

    fn note(&mut self, name: &str, value: String) -> Result<Whose, ConnectError> {
        let whose = whose(name, &value)?;
        self.named.push(name.to_owned());
        if let Whose::Ours = whose {
            self.ours.push((name.to_owned(), value));
        }
        Ok(whose)
    }

    /// Whether it says this by name.
    pub(super) fn names(&self, name: &str) -> bool {
        self.named.iter().any(|named| named == name)
    }

    /// One more parameter.
    ///
    /// # Errors
    /// It cannot be honoured.
    pub(super) fn add(&mut self, name: &str, value: &str) -> Result<(), ConnectError> {
        match self.note(name, value.to_owned())? {
            Whose::Driver if self.is_url => {
                self.append(&format!("{name}={}", percent_encoded(value)));
            }
            Whose::Driver => {
                let value = value.replace('\\', r"\\").replace('\'', r"\'");
                self.append(&format!("{name}='{value}'"));
            }
            Whose::Ours | Whose::Nobody => {}
        }
        Ok(())
    }

    fn append(&mut self, parameter: &str) {
        self.driver.push(match (self.is_url, self.driver.contains('?')) {
            (false, _) => ' ',
            (true, false) => '?',
            (true, true) => '&',
        });
        self.driver.push_str(parameter);
    }
}

/// Whether the end of a password would be taken for a host or an option, and be shown
/// as one.
fn is_unescaped(base: &str, query: &str) -> bool {
    let (_, authority) = base.split_once("://").unwrap_or(("", base));
    let port = |authority: &str| {
        let last = authority.rsplit(',').next().unwrap_or_default();
        let (_, port) = last.rsplit_once(':').unwrap_or(("", ""));
        port.trim_end_matches(']').chars().all(|c| c.is_ascii_hexdigit())
    };
    match authority.matches('@').count() {
        // `app:pass?word@host`: what looks like a port is none.
        0 => query.contains('@') && !port(authority.split('/').next().unwrap_or_default()),
        1 => false,
        _ => true,
    }
}

fn whose(name: &str, value: &str) -> Result<Whose, ConnectError> {
    let refuse = |why: &'static str| Err(ConnectError::Parameter { name: name.to_owned(), why });
    match (name, value) {
        ("sslmode" | "sslrootcert" | "sslcert" | "sslkey" | "passfile", _) => Ok(Whose::Ours),
        ("service" | "servicefile", _) => refuse(
            "is not supported: no pg_service.conf is read; write host, port, user and dbname instead",
        ),
        ("gssencmode", "require") => refuse("is not supported: there is no GSSAPI here; use TLS"),
        ("sslpassword", _) => refuse(
            "is not supported: decrypt the key into a file that only this user may read, and name that in sslkey",
        ),
        ("sslcrl" | "sslcrldir", _) => {
            refuse("is not supported: revocation lists are not read; leave it out to do without")
        }
        ("requirepeer" | "require_auth" | "ssl_max_protocol_version" | "sslcertmode", _) => {
            refuse("is not supported; leave it out to do without")
        }
        ("ssl_min_protocol_version", "TLSv1.3") => {
            refuse("can be TLSv1.2 at most: the server decides about 1.3")
        }
        ("target_session_attrs", "primary") => {
            refuse("can be any, read-write or read-only; write read-write")
        }
        ("target_session_attrs", "standby" | "prefer-standby") => {
            refuse("can be any, read-write or read-only; a standby cannot be migrated")
        }
        (
            "gssencmode"
            | "gsslib"
            | "krbsrvname"
            | "gssdelegation"
            | "sslcompression"
            | "sslsni"
            | "ssl_min_protocol_version"
            | "client_encoding"
            | "fallback_application_name",
            _,
        ) => Ok(Whose::Nobody),
        _ => Ok(Whose::Driver),
    }
}

/// How long the value is that a text begins with, with its quotes.
fn word_length(text: &str) -> Result<usize, ConnectError> {
    let is_quoted = text.starts_with('\'');
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(usize::from(is_quoted)) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '\'' if is_quoted => return Ok(at + 1),
            c if c.is_whitespace() && !is_quoted => return Ok(at),
            _ => {}
        }
    }
    match is_quoted {
        true => Err(ConnectError::Url("a quote that is not closed".to_owned())),
        false => Ok(text.len()),
    }
}

fn unquoted(word: &str) -> String {
    let inner = word.strip_prefix('\'').and_then(|word| word.strip_suffix('\'')).unwrap_or(word);
    let mut text = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        text.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    text
}

/// `%2F` is `/`. What is no such escape stays.
fn percent_decoded(text: &str) -> String {
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

fn percent_encoded(text: &str) -> String {
    use fmt::Write;
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, more: &[(&str, &str)], driver: &str, ours: &str) {
        let mut info = Conninfo::parse(text).unwrap();
        for (name, value) in more {
            info.add(name, value).unwrap();
        }
        let said: Vec<_> =
            info.ours.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!((info.driver.trim_start(), said.join(" ").as_str()), (driver, ours), "{text}");
    }

    #[test]
    fn what_the_driver_does_not_know_is_taken_out_of_both_forms() {
        check(
            "postgres://app:s3cret@db/shop?sslmode=verify-full&connect_timeout=3&sslrootcert=%2Fca.pem",
            &[],
            "postgres://app:s3cret@db/shop?connect_timeout=3",
            "sslmode=verify-full sslrootcert=/ca.pem",
        );
        check(
            r"host=db sslmode = require dbname='my \'shop' sslrootcert='/a b/ca.pem' user=app",
            &[],
            r"host=db dbname='my \'shop' user=app",
            "sslmode=require sslrootcert=/a b/ca.pem",
        );
    }

    #[test]
    fn what_is_added_is_escaped_as_its_form_wants_it() {
        let more = [("dbname", "it's"), ("sslkey", "k")];
        check("postgres://db", &more, "postgres://db?dbname=it%27s", "sslkey=k");
        check("host=db", &more, r"host=db dbname='it\'s'", "sslkey=k");
        check("postgres://db?user=a", &more, "postgres://db?user=a&dbname=it%27s", "sslkey=k");
    }

    #[test]
    fn a_password_that_is_not_escaped_is_told_of_and_not_shown() {
        for text in [
            "postgres://app:s3c@ret@db/shop",
            "postgres://app:s3c@ret#x@db:5432/shop?sslmode=require",
            "postgres://app:s3c?ret@db/shop",
            "postgres://app:s3c?ret=x@db/shop",
        ] {
            let said = Conninfo::parse(text).err().expect(text).to_string();
            assert!(said.contains("%40") && !said.contains("ret"), "{said}");
        }
        for text in [
            "postgres://app:s3c%40ret@db:5432/shop?options=-c%20a@b",
            "postgres://db:5432/shop?user=app@server",
            "postgres://db/shop?user=app@server",
            "postgres://[::1]/shop?user=app@server",
        ] {
            assert!(Conninfo::parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_means_nothing_here_is_left_out_and_what_cannot_be_kept_is_refused_by_name() {
        check("postgres://db?gssencmode=prefer&client_encoding=UTF8", &[], "postgres://db", "");
        let refused = |text: &str| Conninfo::parse(text).err().map(|error| error.to_string());
        assert_eq!(
            refused("service=shop").as_deref(),
            Some(
                "`service` is not supported: no pg_service.conf is read; write host, port, user and dbname instead"
            )
        );
        for text in [
            "postgres://db?sslcrl=x",
            "gssencmode=require",
            "host='db",
            "host",
            "postgres://db?target_session_attrs=standby",
        ] {
            assert!(refused(text).is_some(), "{text}");
        }
    }
}
