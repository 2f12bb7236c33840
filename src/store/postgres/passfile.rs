//! Passwords from `~/.pgpass`, as libpq reads it: `host:port:database:user:password`,
//! the first line that fits.

use std::path::Path;

/// Whom a password is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Login<'a> {
    pub host: &'a str,
    pub port: u16,
    pub database: &'a str,
    pub user: &'a str,
}

/// What a file of passwords says.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Found {
    Password(String),
    Nothing,
    /// It is not read: others may read it too. libpq does the same.
    Open,
}

/// Looks a password up. A file that is not there, or cannot be read, says nothing.
pub(super) fn look_up(file: &Path, login: Login<'_>) -> Found {
    use std::os::unix::fs::PermissionsExt;
    let Ok(known) = std::fs::metadata(file) else { return Found::Nothing };
    if !known.is_file() {
        return Found::Nothing;
    }
    if known.permissions().mode() & 0o077 != 0 {
        return Found::Open;
    }
    let Ok(text) = std::fs::read_to_string(file) else { return Found::Nothing };
    text.lines().find_map(|line| of_line(line, login)).map_or(Found::Nothing, Found::Password)
}

fn of_line(line: &str, login: Login<'_>) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let port = login.port.to_string();
    let mut rest = line;
    for is in [login.host, &port, login.database, login.user] {
        let (field, after) = field(rest)?;
        if field.raw != "*" && field.text != is {
            return None;
        }
        rest = after;
    }
    let password = field(rest).map_or_else(|| unescaped(rest), |(password, _)| password.text);
    (!password.is_empty()).then_some(password)
}

struct Field<'a> {
    raw: &'a str,
    text: String,
}

/// What stands in front of the next colon, and what behind it; `\:` and `\\` are one
/// character each.
fn field(text: &str) -> Option<(Field<'_>, &str)> {
    let mut is_escaped = false;
    let colon = text.char_indices().find(|(_, c)| {
        let is_end = *c == ':' && !is_escaped;
        is_escaped = *c == '\\' && !is_escaped;
        is_end
    });
    let (at, _) = colon?;
    let raw = &text[..at];
    Some((Field { raw, text: unescaped(raw) }, &text[at + 1..]))
}

fn unescaped(text: &str) -> String {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        plain.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const LOGIN: Login<'_> = Login { host: "db", port: 5432, database: "shop", user: "app" };

    fn check(text: &str, mode: u32, expected: &Found) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        std::fs::set_permissions(file.path(), PermissionsExt::from_mode(mode)).unwrap();
        assert_eq!(look_up(file.path(), LOGIN), *expected, "{text}");
    }

    #[test]
    fn the_first_line_that_fits_counts() {
        let found = |password: &str| Found::Password(password.to_owned());
        check(
            "other:*:*:*:no\n# db:*:*:*:no\ndb:5432:shop:app:yes\n*:*:*:*:late",
            0o600,
            &found("yes"),
        );
        check(r"db:5432:shop:app:a\:b\\c", 0o600, &found(r"a:b\c"));
        check(r"d\b:5432:shop:app:yes", 0o400, &found("yes"));
        check(r"\*:*:*:*:no", 0o600, &Found::Nothing);
        check("db:5432:shop", 0o600, &Found::Nothing);
        check("*:*:*:*:yes", 0o640, &Found::Open);
        assert_eq!(look_up(Path::new("/nowhere/at/all"), LOGIN), Found::Nothing);
    }
}
