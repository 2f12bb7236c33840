//! Walks over the tokens of one statement: keywords, names, options.

use super::token::{Lexer, Token, TokenKind};
use crate::core::step::QualifiedName;
use std::ops::Range;

/// Postgres cuts longer identifiers, and so must whoever looks for them later.
const IDENTIFIER_BYTES_MAX: usize = 63;

/// The statement does not go on as its grammar says. That is for Postgres to
/// tell: it has the better message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct NotSql;

/// A place among the tokens of a statement. Cheap to clone, which is how one
/// looks ahead.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    lexer: Lexer<'a>,
    next: Option<Token>,
    end: usize,
}

impl<'a> Cursor<'a> {
    /// Before the first token.
    pub fn new(text: &'a str) -> Cursor<'a> {
        let mut cursor = Cursor { text, lexer: Lexer::new(text), next: None, end: 0 };
        cursor.advance();
        cursor
    }

    /// Where the last token that was taken ends.
    pub fn end(&self) -> usize {
        self.end
    }

    /// What the next token is, if there is one.
    pub fn peek(&self) -> Option<TokenKind> {
        self.next.as_ref().map(|token| token.kind)
    }

    /// Where the next token stands; at the end, where the last one does.
    pub fn place(&self) -> Range<usize> {
        self.next.as_ref().map_or(self.end..self.end, |token| token.range.clone())
    }

    /// Takes the next token, whatever it is.
    pub fn take(&mut self) -> Option<(TokenKind, &'a str)> {
        let token = self.next.take()?;
        self.end = token.range.end;
        self.advance();
        Some((token.kind, &self.text[token.range]))
    }

    /// Takes the next token if it is a keyword, in lower case.
    pub fn keyword(&mut self) -> Option<String> {
        match self.peek() {
            Some(TokenKind::Word) => self.take().map(|(_, word)| word.to_ascii_lowercase()),
            _ => None,
        }
    }

    /// Takes these keywords if they all come next; otherwise nothing.
    pub fn words(&mut self, keywords: &[&str]) -> bool {
        let mut ahead = self.clone();
        for keyword in keywords {
            match ahead.take() {
                Some((TokenKind::Word, word)) if word.eq_ignore_ascii_case(keyword) => {}
                _ => return false,
            }
        }
        *self = ahead;
        true
    }

    /// Takes this keyword if it comes next.
    pub fn word(&mut self, keyword: &str) -> bool {
        self.words(&[keyword])
    }

    /// Takes this symbol if it comes next.
    pub fn symbol(&mut self, symbol: u8) -> bool {
        let here = self.peek() == Some(TokenKind::Symbol(symbol));
        if here {
            self.take();
        }
        here
    }

    /// Takes a name: folded to lower case unless it is quoted, resolved if it is.
    pub fn name(&mut self) -> Result<String, NotSql> {
        let name = match self.take().ok_or(NotSql)? {
            (TokenKind::Word, word) => word.to_ascii_lowercase(),
            (TokenKind::Quoted, quoted) => quoted[1..quoted.len() - 1].replace("\"\"", "\""),
            (TokenKind::UnicodeQuoted, quoted) => {
                let inside = quoted[3..quoted.len() - 1].replace("\"\"", "\"");
                resolve_unicode(&inside, self.unicode_escape()?).ok_or(NotSql)?
            }
            (TokenKind::Text | TokenKind::Number | TokenKind::Symbol(_), _) => return Err(NotSql),
        };
        Ok(truncate(name))
    }

    /// Takes a name that may be qualified. Of `database.schema.name` the database
    /// is dropped: Postgres accepts only the one it is connected to.
    pub fn qualified_name(&mut self) -> Result<QualifiedName, NotSql> {
        let mut schema = None;
        let mut name = self.name()?;
        while self.symbol(b'.') {
            schema = Some(std::mem::replace(&mut name, self.name()?));
        }
        Ok(QualifiedName { schema, name })
    }

    /// Takes a table as DDL names it: `ONLY (a.b)`, `a.b *`.
    pub fn relation(&mut self) -> Result<QualifiedName, NotSql> {
        let parenthesis = self.word("only") && self.symbol(b'(');
        let name = self.qualified_name()?;
        if parenthesis && !self.symbol(b')') {
            return Err(NotSql);
        }
        self.symbol(b'*');
        Ok(name)
    }

    /// Takes a list of options in parentheses if one comes next:
    /// `(verbose, concurrently false)`, `(connect = off)`.
    pub fn options(&mut self) -> Result<Options, NotSql> {
        let mut options = Options::default();
        if !self.symbol(b'(') {
            return Ok(options);
        }
        loop {
            let name = self.name()?;
            self.symbol(b'=');
            let mut on = true;
            let mut depth = 0_u32;
            loop {
                match self.take().ok_or(NotSql)? {
                    (TokenKind::Symbol(b','), _) if depth == 0 => break,
                    (TokenKind::Symbol(b')'), _) if depth == 0 => {
                        options.0.push((name, on));
                        return Ok(options);
                    }
                    (TokenKind::Symbol(b'('), _) => depth += 1,
                    (TokenKind::Symbol(b')'), _) => depth -= 1,
                    (_, value) => {
                        let value = value.trim_matches(['\'', '"']);
                        on = !["false", "off", "0"].iter().any(|no| value.eq_ignore_ascii_case(no));
                    }
                }
            }
            options.0.push((name, on));
        }
    }

    /// `UESCAPE '!'` after a Unicode identifier; the backslash if it is not there.
    fn unicode_escape(&mut self) -> Result<char, NotSql> {
        if !self.word("uescape") {
            return Ok('\\');
        }
        let Some((TokenKind::Text, quoted)) = self.take() else { return Err(NotSql) };
        let mut characters = quoted.trim_matches('\'').chars();
        match (characters.next(), characters.next()) {
            (Some(escape), None) => Ok(escape),
            _ => Err(NotSql),
        }
    }

    fn advance(&mut self) {
        // The splitter read the same bytes before: nothing is unterminated.
        self.next = self.lexer.next().and_then(Result::ok);
    }
}

/// Options by name, in order: the last one counts.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Options(Vec<(String, bool)>);

impl Options {
    /// Whether an option is switched on; `None` if it is not mentioned.
    pub fn get(&self, name: &str) -> Option<bool> {
        self.0.iter().rev().find(|(option, _)| option == name).map(|(_, on)| *on)
    }
}

/// Resolves `\0061` and `\+000061` (with the escape character in the place of
/// the backslash); `None` if Postgres would refuse it.
fn resolve_unicode(text: &str, escape: char) -> Option<String> {
    let mut units = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        if first != escape {
            units.extend_from_slice(first.encode_utf16(&mut [0; 2]));
        } else if let Some(after) = rest.strip_prefix(escape) {
            units.extend_from_slice(escape.encode_utf16(&mut [0; 2]));
            rest = after;
        } else {
            let (digits, after) = match rest.strip_prefix('+') {
                Some(long) => (long.get(..6)?, long.get(6..)?),
                None => (rest.get(..4)?, rest.get(4..)?),
            };
            if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return None;
            }
            let code = u32::from_str_radix(digits, 16).ok()?;
            // Half of a surrogate pair is a unit of its own; the pair is joined below.
            match (u16::try_from(code), char::from_u32(code)) {
                (Ok(unit), _) => units.push(unit),
                (Err(_), Some(character)) => {
                    units.extend_from_slice(character.encode_utf16(&mut [0; 2]));
                }
                (Err(_), None) => return None,
            }
            rest = after;
        }
    }
    String::from_utf16(&units).ok()
}

fn truncate(mut name: String) -> String {
    if name.len() > IDENTIFIER_BYTES_MAX {
        name.truncate(name.floor_char_boundary(IDENTIFIER_BYTES_MAX));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let seen = Cursor::new(text).qualified_name();
        assert_eq!(seen.map_or("not SQL".to_owned(), |name| name.to_string()), expected, "{text}");
    }

    #[test]
    fn names_are_what_postgres_makes_of_them() {
        check("Users", "users");
        check("ÄRGER", "Ärger");
        check("\"Users\"", "Users");
        check("\"a\"\"b\"", "a\"b");
        check("Shop . \"Users\" (id)", "shop.Users");
        check("db.shop.users", "shop.users");
        check("'users'", "not SQL");
        check("shop.", "not SQL");
        check("", "not SQL");
    }

    #[test]
    fn unicode_names_are_resolved() {
        check(r#"U&"d\0061t\+000061""#, "data");
        check(r#"u&"d!0061t!!" UESCAPE '!'"#, "dat!");
        check(r#"U&"\D83D\DE00 \\""#, r"😀 \");
        check(r#"U&"\00e""#, "not SQL");
        check(r#"U&"\D83D""#, "not SQL");
        check(r#"U&"a" UESCAPE '!!'"#, "not SQL");
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        check(&"A".repeat(80), &"a".repeat(63));
        check(&format!("\"{}\"", "ö".repeat(40)), &"ö".repeat(31));
    }

    #[test]
    fn options_are_on_unless_they_are_off() {
        let check = |text: &str, expected: Option<bool>| {
            let options = Cursor::new(text).options();
            assert_eq!(options.map(|options| options.get("x")), Ok(expected), "{text}");
        };
        check("(x)", Some(true));
        check("(y, X 1, z)", Some(true));
        check("(x = true)", Some(true));
        check("(x = 'Off')", Some(false));
        check("(x 0)", Some(false));
        check("(x false, x)", Some(true));
        check("(y = (x))", None);
        check("x", None);
        assert_eq!(Cursor::new("(x").options(), Err(NotSql));
        assert_eq!(Cursor::new("()").options(), Err(NotSql));
    }
}
