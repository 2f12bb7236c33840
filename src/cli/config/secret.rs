//! What is secret in a text, and how it is shown without it.
//!
//! Where a text is ambiguous, too much is hidden, never too little: a password
//! with an unescaped `/`, `?` or `@` in it is the rule, not the exception.

use std::fmt;
use std::ops::Range;

/// A connection string. Only [`expose`](SecretUrl::expose) gives the password.
#[derive(Clone, Eq, PartialEq)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// Takes a URL, or libpq's `key=value` form. Nothing is checked.
    pub fn new(text: impl Into<String>) -> SecretUrl {
        SecretUrl(text.into())
    }

    /// The whole text, for the driver and for nobody else.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it carries the password to log in with.
    pub fn has_password(&self) -> bool {
        in_connection_string(&self.0).iter().any(|range| {
            let before = self.0[..range.start].trim_end();
            let name = before.strip_suffix('=').map(str::trim_end);
            let name = name.and_then(|text| text.rsplit(['?', '&', ' ', '\t', '\n']).next());
            before.ends_with(':') || name.is_some_and(|name| percent_decoded(name) == "password")
        })
    }

    /// `postgres` of `postgres://…`; `None` for the `key=value` form.
    pub fn scheme(&self) -> Option<&str> {
        let at = scheme_end(&self.0)?;
        Some(&self.0[..at - SEPARATOR.len()])
    }
}

/// `postgres://app:***@db/shop`.
impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&replaced(&self.0, &in_connection_string(&self.0)))
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretUrl({self})")
    }
}

/// Any text, with what looks like a password in it replaced by `***`.
pub fn redacted(text: &str) -> String {
    replaced(text, &in_text(text))
}

/// Any text, with each character of what looks like a password replaced by
/// `*`: the columns of a line stay where they are.
pub fn masked(text: &str) -> String {
    let secrets = in_text(text);
    let hide = |(at, c): (usize, char)| {
        if secrets.iter().any(|range| range.contains(&at)) { '*' } else { c }
    };
    text.char_indices().map(hide).collect()
}

/// Whether what goes by this name is not for everybody: `password`,
/// `tlsCertificateKeyFilePassword`, `api-token`; but not `password_command`,
/// which only says where one is.
pub fn is_secret_name(name: &str) -> bool {
    /// Parts of names that hold secrets.
    const WORDS: [&str; 6] = ["password", "passwd", "secret", "token", "api_key", "apikey"];
    let name = percent_decoded(name).to_lowercase().replace('-', "_");
    let points_elsewhere = name.ends_with("_command") || name.ends_with("_file");
    !points_elsewhere && WORDS.iter().any(|word| name.contains(word))
}

const SEPARATOR: &str = "://";

/// Where the text after `postgres://` begins.
fn scheme_end(text: &str) -> Option<usize> {
    let end = text.find(SEPARATOR)?;
    let scheme = &text[..end];
    let valid = scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+.-".contains(c));
    (valid && !scheme.is_empty()).then_some(end + SEPARATOR.len())
}

/// The secrets of a connection string, in order.
fn in_connection_string(text: &str) -> Vec<Range<usize>> {
    if let Some(begin) = scheme_end(text) {
        in_url(text, begin)
    } else if text.contains('=') {
        in_pairs(text)
    } else if text.is_empty() {
        Vec::new()
    } else {
        // Not a connection string at all; perhaps the password, pasted alone.
        std::iter::once(0..text.len()).collect()
    }
}

/// The secrets of a URL whose part after `://` starts at `begin`.
fn in_url(text: &str, begin: usize) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    // Up to the last `@`, wherever it stands: a password may have one itself, and a
    // `/` or `?` before it. The price is a host that is not shown when an option
    // has an `@`.
    if let Some(at) = text[begin..].rfind('@') {
        let colon = text[begin..begin + at].find(':');
        found.extend(colon.map(|colon| begin + colon + 1..begin + at));
    } else {
        found.extend(in_hosts(text, begin));
    }
    // Of `?user=a&password=b`, what follows the name, up to the next `&`.
    for (start, _) in text[begin..].match_indices(['?', '&']) {
        let start = begin + start + 1;
        let end = text[start..].find('&').map_or(text.len(), |at| start + at);
        if let Some(equals) = text[start..end].find('=') {
            let (name, value) = (&text[start..start + equals], start + equals + 1..end);
            // AWS gives its token as one of several properties of one option.
            if is_secret_name(name) || text[value.clone()].to_lowercase().contains("token") {
                found.push(value);
            }
        }
    }
    found.retain(|range| !range.is_empty());
    found
}

/// `postgres://app:secret` that lost its host: a port that is no number.
fn in_hosts(text: &str, begin: usize) -> Vec<Range<usize>> {
    let end = text[begin..].find(['/', '?', '#']).map_or(text.len(), |at| begin + at);
    let mut found = Vec::new();
    let mut start = begin;
    for host in text[begin..end].split(',') {
        let address = host.rfind(']').map_or(0, |at| at + 1);
        if let Some(colon) = host[address..].find(':') {
            let port = start + address + colon + 1..start + host.len();
            if !text[port.clone()].bytes().all(|byte| byte.is_ascii_digit()) {
                found.push(port);
            }
        }
        start += host.len() + 1;
    }
    found
}

/// The secrets of `host=db password='it''s' user=app`.
fn in_pairs(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    let skip_blanks = |at: usize| at + text[at..].len() - text[at..].trim_start().len();
    loop {
        at = skip_blanks(at);
        if at >= text.len() {
            return found;
        }
        let word = at;
        at += text[at..].find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(text.len() - at);
        let name = word..at;
        at = skip_blanks(at);
        if !text[at..].starts_with('=') {
            // A word without `=` belongs to a value that should have been quoted.
            found.push(name);
            continue;
        }
        at = skip_blanks(at + 1);
        let value = at..pair_value_end(text, at);
        at = value.end;
        if is_secret_name(&text[name]) && !value.is_empty() {
            found.push(value);
        }
    }
}

/// The end of a value of the `key=value` form: quoted, or up to a blank; a
/// backslash takes the next character with it.
fn pair_value_end(text: &str, begin: usize) -> usize {
    let quoted = text[begin..].starts_with('\'');
    let mut escaped = false;
    for (at, c) in text[begin..].char_indices().skip(usize::from(quoted)) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\'' if quoted => return begin + at + 1,
            c if !quoted && c.is_whitespace() => return begin + at,
            _ => {}
        }
    }
    text.len()
}

/// What looks secret in any text, such as a line of a file that cannot be read.
fn in_text(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut line_start = 0;
    for line in text.split('\n') {
        // A URL goes on to the end of the line: where else a broken one ends, only its
        // writer knows.
        if let Some(separator) = line.find(SEPARATOR) {
            let begin = line_start + separator + SEPARATOR.len();
            let end = line_start + line.len();
            found.extend(in_url(&text[..end], begin));
        }
        found.extend(after_names(line, line_start));
        line_start += line.len() + 1;
    }
    found
}

/// Of `password = "x"`, `--token x` or `PGPASSWORD=x`, what follows the name.
fn after_names(line: &str, line_start: usize) -> Option<Range<usize>> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let mut at = 0;
    while at < line.len() {
        at += line[at..].find(is_name)?;
        let end = line[at..].find(|c| !is_name(c)).map_or(line.len(), |end| at + end);
        let rest = &line[end..];
        let value = rest.trim_start_matches(|c: char| "=:\"'".contains(c) || c.is_whitespace());
        if is_secret_name(&line[at..end]) && value.len() < rest.len() && !value.is_empty() {
            return Some(line_start + line.len() - value.len()..line_start + line.len());
        }
        at = end;
    }
    None
}

/// Text with each of the ranges as `***`; they may overlap.
fn replaced(text: &str, secrets: &[Range<usize>]) -> String {
    let mut ordered: Vec<&Range<usize>> = secrets.iter().collect();
    ordered.sort_by_key(|range| range.start);
    let (mut shown, mut done) = (String::new(), 0);
    for range in ordered {
        if range.start >= done {
            shown.push_str(&text[done..range.start]);
            shown.push_str("***");
        }
        done = done.max(range.end);
    }
    shown.push_str(&text[done..]);
    shown
}

/// A name as a URL means it; what cannot be decoded is left alone.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
#[expect(clippy::needless_raw_string_hashes, reason = "expect_test writes them so")]
#[expect(clippy::needless_pass_by_value, reason = "an expect![] is written where it is used")]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(url: &str, expected: Expect) {
        let secret = SecretUrl::new(url);
        expected.assert_eq(&secret.to_string());
        assert_eq!(format!("{secret:?}"), format!("SecretUrl({secret})"));
        assert_eq!(secret.expose(), url);
    }

    fn check_text(text: &str, expected: Expect) {
        expected.assert_eq(&format!("{}\n{}", redacted(text), masked(text)));
        assert_eq!(masked(text).chars().count(), text.chars().count());
    }

    #[test]
    fn the_password_before_the_host_is_hidden() {
        check("postgres://app:hunter2@db/shop", expect!["postgres://app:***@db/shop"]);
        check(
            "mongodb+srv://app:hunter2@db.example.com/shop?retryWrites=true",
            expect!["mongodb+srv://app:***@db.example.com/shop?retryWrites=true"],
        );
        check("postgres://:hunter2@db/shop", expect!["postgres://:***@db/shop"]);
    }

    #[test]
    fn what_has_no_password_is_shown_as_it_is() {
        check("postgres://db/shop", expect!["postgres://db/shop"]);
        check("postgres://app@db:5432/shop", expect!["postgres://app@db:5432/shop"]);
        check("postgres://app:@db/shop", expect!["postgres://app:@db/shop"]);
        check(
            "postgres:///shop?host=/run/postgresql&user=app",
            expect!["postgres:///shop?host=/run/postgresql&user=app"],
        );
        check("host=db user=app dbname=shop", expect!["host=db user=app dbname=shop"]);
        check("", expect![""]);
    }

    #[test]
    fn a_password_in_the_query_is_hidden() {
        check(
            "postgres://db/shop?user=app&password=hunter2&sslmode=require",
            expect!["postgres://db/shop?user=app&password=***&sslmode=require"],
        );
        check(
            "postgres://db/shop?sslpassword=hunter2",
            expect!["postgres://db/shop?sslpassword=***"],
        );
        check(
            "postgres://db/shop?pass%77ord=hunter2",
            expect!["postgres://db/shop?pass%77ord=***"],
        );
        check(
            "mongodb://a:b@db/shop?tlsCertificateKeyFilePassword=hunter2&proxyPassword=x",
            expect!["mongodb://a:***@db/shop?tlsCertificateKeyFilePassword=***&proxyPassword=***"],
        );
        check(
            "mongodb://db/shop?authMechanismProperties=AWS_SESSION_TOKEN:hunter2",
            expect!["mongodb://db/shop?authMechanismProperties=***"],
        );
    }

    #[test]
    fn addresses_with_colons_are_no_passwords() {
        check("postgres://[::1]:5432/shop", expect!["postgres://[::1]:5432/shop"]);
        check(
            "postgres://app:hunter2@[2001:db8::1]:5432/shop",
            expect!["postgres://app:***@[2001:db8::1]:5432/shop"],
        );
    }

    #[test]
    fn percent_encoding_changes_nothing() {
        check(
            "postgres://app%3Aone:p%40ss%2Fword@db/shop",
            expect!["postgres://app%3Aone:***@db/shop"],
        );
        check("postgres://app%3Aone@db/shop", expect!["postgres://app%3Aone@db/shop"]);
    }

    #[test]
    fn several_hosts_stay_readable() {
        check(
            "mongodb://app:hunter2@a:27017,b:27018,c/shop?replicaSet=rs0",
            expect!["mongodb://app:***@a:27017,b:27018,c/shop?replicaSet=rs0"],
        );
        check("mongodb://a:27017,b:27018/shop", expect!["mongodb://a:27017,b:27018/shop"]);
    }

    #[test]
    fn a_password_that_should_have_been_encoded_is_hidden_whole() {
        check("postgres://app:p@ss@db/shop", expect!["postgres://app:***@db/shop"]);
        check("postgres://app:p/a:ss@db/shop", expect!["postgres://app:***@db/shop"]);
        check(
            "postgres://app:p?a#ss@db/shop?password=x",
            expect!["postgres://app:***@db/shop?password=***"],
        );
        check("postgres://app:p@s?s@db/shop", expect!["postgres://app:***@db/shop"]);
        check("postgres://app:hunter2", expect!["postgres://app:***"]);
        check(
            "postgres://db/shop?password=hun:ter@2&user=a@b",
            expect!["postgres://db/shop?password=***@b"],
        );
    }

    #[test]
    fn the_key_value_form_is_read_as_libpq_does() {
        check("host=db password=hunter2 user=app", expect!["host=db password=*** user=app"]);
        check(r"password = 'it\'s mine' host=db", expect!["password = *** host=db"]);
        check(r"password=a\ b host=db", expect!["password=*** host=db"]);
        check("host=db password=two words", expect!["host=db password=*** ***"]);
        check("host=db password='never closed", expect!["host=db password=***"]);
        check("host=db sslpassword=hunter2", expect!["host=db sslpassword=***"]);
    }

    #[test]
    fn a_text_that_is_no_connection_string_may_be_the_password_itself() {
        check("hunter2", expect!["***"]);
    }

    #[test]
    fn only_the_password_to_log_in_with_is_one() {
        for (url, expected) in [
            ("postgres://app:x@db/shop", true),
            ("postgres://db/shop?user=app&password=x", true),
            ("host=db password = x", true),
            ("postgres://app@db/shop", false),
            ("postgres://app@db/shop?sslpassword=x", false),
            ("mongodb://app@db/shop?tlsCertificateKeyFilePassword=x", false),
            ("host=db sslpassword=x", false),
        ] {
            assert_eq!(SecretUrl::new(url).has_password(), expected, "{url}");
        }
    }

    #[test]
    fn a_line_keeps_its_columns_and_loses_its_passwords() {
        check_text(
            r#"url = "postgres://app:hunter2@db/shop""#,
            expect![[r#"
            url = "postgres://app:***@db/shop"
            url = "postgres://app:*******@db/shop""#]],
        );
        check_text(
            r#"url = "postgres://app:hun"ter2@db/shop""#,
            expect![[r#"
            url = "postgres://app:***@db/shop"
            url = "postgres://app:********@db/shop""#]],
        );
        check_text(
            r#"password = "hunter2""#,
            expect![[r#"
            password = "***
            password = "********"#]],
        );
        check_text(
            "curl --token hunter2 https://hooks.example.com",
            expect![[r#"
            curl --token ***
            curl --token *********************************"#]],
        );
        check_text(
            r#"password_command = ["vault", "read"]"#,
            expect![[r#"
            password_command = ["vault", "read"]
            password_command = ["vault", "read"]"#]],
        );
        check_text(
            "schema = \"shop\"",
            expect![[r#"
            schema = "shop"
            schema = "shop""#]],
        );
    }

    proptest::proptest! {
        #[test]
        fn no_password_of_a_url_is_ever_shown(password in "\\PC{1,12}") {
            let url = SecretUrl::new(format!("postgres://app:{password}@db/shop"));
            assert_eq!(url.to_string(), "postgres://app:***@db/shop");
            assert!(url.has_password());
        }

        #[test]
        fn no_password_of_a_query_is_ever_shown(password in "[^&]{1,12}") {
            let url = SecretUrl::new(format!("postgres://db/shop?password={password}&a=b"));
            assert_eq!(url.to_string(), "postgres://db/shop?password=***&a=b");
        }

        #[test]
        fn no_password_of_a_pair_is_ever_shown(password in "\\PC{1,12}") {
            let quoted = password.replace('\\', "\\\\").replace('\'', "\\'");
            let text = format!("host=db password='{quoted}' user=app");
            assert_eq!(SecretUrl::new(text).to_string(), "host=db password=*** user=app");
        }

        #[test]
        fn any_text_can_be_shown(text in ".{0,40}") {
            let _ = SecretUrl::new(text.as_str()).to_string();
            let _ = redacted(&text);
            assert_eq!(masked(&text).chars().count(), text.chars().count());
        }
    }
}
