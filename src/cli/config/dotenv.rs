//! `.env`: what a shell would set if it sourced the file, without its substitutions.

use crate::core::problem::Problem;
use std::collections::BTreeMap;
use std::ops::Range;

/// Reads the text of a `.env`. Of a name that is there twice, the last counts.
///
/// # Errors
/// The first line that cannot be read. The line itself is not repeated, since
/// what is not understood may well be a password.
pub(super) fn parse(file: &str, text: &str) -> Result<BTreeMap<String, String>, Problem> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader { text, at: 0 };
    let mut values = BTreeMap::new();
    while reader.skip_to_entry() {
        match reader.entry() {
            Ok((name, value)) => values.insert(name, value),
            Err((at, message)) => {
                let mut problem = Problem::at(text, at, message).file(file);
                if let Some(place) = &mut problem.at {
                    place.text = String::new();
                    (place.column, place.width) = (1, 1);
                }
                return Err(problem);
            }
        };
    }
    Ok(values)
}

/// What is wrong, and with which bytes.
type Wrong = (Range<usize>, &'static str);

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    /// Skips blank lines and comments.
    fn skip_to_entry(&mut self) -> bool {
        loop {
            let rest = &self.text[self.at..];
            self.at += rest.len() - rest.trim_start().len();
            match self.text[self.at..].chars().next() {
                None => return false,
                Some('#') => self.at = self.line_end(),
                Some(_) => return true,
            }
        }
    }

    fn entry(&mut self) -> Result<(String, String), Wrong> {
        let start = self.at;
        let line_end = self.line_end();
        let line = &self.text[start..line_end];
        let Some(equals) = line.find('=') else {
            return Err((
                start..line_end,
                "this is not KEY=VALUE; add the `=`, or begin the line with #",
            ));
        };
        let name = line[..equals].trim_end();
        let name = match name.strip_prefix("export") {
            Some(exported) if exported.starts_with([' ', '\t']) => exported.trim_start(),
            _ => name,
        };
        let valid = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if name.is_empty()
            || name.starts_with(|c: char| c.is_ascii_digit())
            || !name.chars().all(valid)
        {
            return Err((
                start..start + equals,
                "the name before `=` is not one; use letters, digits and _",
            ));
        }
        self.at = start + equals + 1;
        let rest = &self.text[self.at..line_end];
        self.at += rest.len() - rest.trim_start().len();
        let value = match self.text[self.at..line_end].chars().next() {
            Some(quote @ ('"' | '\'')) => self.quoted(quote)?,
            Some(_) | None => self.plain(line_end),
        };
        Ok((name.to_owned(), value))
    }

    /// Up to the end of the line or a comment, which needs a blank before it.
    fn plain(&mut self, line_end: usize) -> String {
        let rest = &self.text[self.at..line_end];
        self.at = line_end;
        let comment = rest.char_indices().find(|(at, c)| {
            *c == '#' && (*at == 0 || rest[..*at].ends_with(|c: char| c.is_whitespace()))
        });
        rest[..comment.map_or(rest.len(), |(at, _)| at)].trim_end().to_owned()
    }

    /// Up to the closing quote, which may be some lines away. Between double
    /// quotes, a backslash escapes.
    fn quoted(&mut self, quote: char) -> Result<String, Wrong> {
        let open = self.at;
        let mut value = String::new();
        let mut chars = self.text[open + 1..].char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.at = open + 1 + at + 1;
                    return self.nothing_else().map(|()| value);
                }
                '\\' if quote == '"' => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, 'r')) => value.push('\r'),
                    Some((_, 't')) => value.push('\t'),
                    Some((_, c @ ('"' | '\\' | '$' | '\''))) => value.push(c),
                    Some((_, c)) => value.extend(['\\', c]),
                    None => break,
                },
                '\r' if self.text[open + 1 + at..].starts_with("\r\n") => {}
                c => value.push(c),
            }
        }
        Err((open..open + 1, "the quote is not closed; close it, or escape it with \\"))
    }

    /// Behind a closing quote there is nothing but a comment.
    fn nothing_else(&mut self) -> Result<(), Wrong> {
        let line_end = self.line_end();
        let rest = self.text[self.at..line_end].trim();
        if !rest.is_empty() && !rest.starts_with('#') {
            return Err((
                self.at..line_end,
                "there is text behind the closing quote; escape inner quotes with \\",
            ));
        }
        self.at = line_end;
        Ok(())
    }

    fn line_end(&self) -> usize {
        self.text[self.at..].find('\n').map_or(self.text.len(), |end| self.at + end)
    }
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "an expect![] is written where it is used")]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(text: &str, expected: Expect) {
        let shown = match parse(".env", text) {
            Ok(values) => {
                let lines = values.iter().map(|(name, value)| format!("{name} = {value:?}"));
                lines.collect::<Vec<_>>().join("\n")
            }
            Err(problem) => problem.to_string(),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn names_values_and_comments_are_read() {
        check(
            "\u{feff}# stores\n\nA=1\nexport B = two words  # not this\r\nC=a#b\nD=\nE= # nothing\n  F=x=y\nexporter=1",
            expect![[r#"
                A = "1"
                B = "two words"
                C = "a#b"
                D = ""
                E = ""
                F = "x=y"
                exporter = "1""#]],
        );
    }

    #[test]
    fn quotes_keep_what_is_between_them() {
        check(
            "A='a # \\n $X'\nB=\"a \\\"b\\\" \\n\\$\\q\" # why\nC=\"two\r\nlines\"\nD=''",
            expect![[r#"
                A = "a # \\n $X"
                B = "a \"b\" \n$\\q"
                C = "two\nlines"
                D = """#]],
        );
    }

    #[test]
    fn nothing_is_substituted() {
        check(
            "A=1\nB=${A}-$A",
            expect![[r#"
            A = "1"
            B = "${A}-$A""#]],
        );
    }

    #[test]
    fn the_last_of_two_counts() {
        check("A=1\nA=2", expect![[r#"A = "2""#]]);
    }

    #[test]
    fn what_is_not_understood_is_refused_without_repeating_it() {
        check(
            "A=1\nhunter2\n",
            expect![".env:2:1: this is not KEY=VALUE; add the `=`, or begin the line with #"],
        );
        check(
            "A=1\n\nmy key=hunter2",
            expect![".env:3:1: the name before `=` is not one; use letters, digits and _"],
        );
        check(
            "=hunter2",
            expect![".env:1:1: the name before `=` is not one; use letters, digits and _"],
        );
        check(
            "A=\"hunter2\n\nB=1",
            expect![".env:1:1: the quote is not closed; close it, or escape it with \\"],
        );
        check(
            "A='hunter2'x",
            expect![
                ".env:1:1: there is text behind the closing quote; escape inner quotes with \\"
            ],
        );
        let problem = parse(".env", "A='hunter2'x").expect_err("is refused");
        assert!(!format!("{problem:?}").contains("hunter2"));
    }
}
