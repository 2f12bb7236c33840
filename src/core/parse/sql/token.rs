//! Cuts SQL into tokens by the rules of Postgres' own lexer, with
//! `standard_conforming_strings` on. It knows just enough to never mistake a
//! semicolon, a quote or a keyword for what it is not; it copies nothing, does
//! not recurse, and is linear in the length of the text.
//!
//! Bytes are enough: every byte that means something is ASCII, and no byte of a
//! longer UTF-8 character is. So a token always begins and ends at a character.

use std::ops::Range;

/// A token, in bytes of the text that was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Token {
    /// What it is.
    pub kind: TokenKind,
    /// Where it stands.
    pub range: Range<usize>,
}

/// What a token is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum TokenKind {
    /// A keyword or an identifier without quotes.
    Word,
    /// `"an identifier"`.
    Quoted,
    /// `U&"an identifier"`, whose escapes are not resolved yet.
    UnicodeQuoted,
    /// A string constant of any kind: `''`, `E''`, `U&''`, `B''`, `$$ $$`.
    Text,
    /// A number, or a parameter like `$1`.
    Number,
    /// Any other byte. Operators come byte by byte: nobody here needs them whole.
    Symbol(u8),
}

/// Something that is opened and never closed. Everything after it is inside it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Unterminated {
    /// What was opened.
    pub what: Opened,
    /// What opened it: `'`, `E'`, `/*`, `$body$`.
    pub range: Range<usize>,
}

/// What can be opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Opened {
    /// A string in which a backslash is a backslash.
    Text,
    /// A string in which a backslash escapes.
    EscapeText,
    /// A quoted identifier.
    Identifier,
    /// A block comment.
    Comment,
    /// A dollar-quoted string.
    Dollar,
}

/// The tokens of a text in order, without blanks and comments. After
/// [`Unterminated`] there is nothing more.
#[derive(Clone, Debug)]
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    /// From the beginning of `text`.
    pub fn new(text: &'a str) -> Lexer<'a> {
        Lexer { text, at: 0 }
    }

    /// How far it has read.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Goes on at `at`, which is at a character and not behind.
    pub fn skip_to(&mut self, at: usize) {
        debug_assert!(at >= self.at && self.text.is_char_boundary(at));
        self.at = at;
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.text.as_bytes().get(at).copied()
    }

    /// The first place from `at` on whose byte is not one of these.
    fn past(&self, mut at: usize, belongs: impl Fn(u8) -> bool) -> usize {
        while self.byte(at).is_some_and(&belongs) {
            at += 1;
        }
        at
    }

    /// Behind the blanks and comments that begin at the current place.
    fn skip_blanks(&mut self) -> Result<(), Unterminated> {
        loop {
            self.at = self.past(self.at, is_blank);
            match (self.byte(self.at), self.byte(self.at + 1)) {
                (Some(b'-'), Some(b'-')) => self.at = self.past(self.at, |byte| !is_newline(byte)),
                (Some(b'/'), Some(b'*')) => self.at = self.block_comment(self.at)?,
                _ => return Ok(()),
            }
        }
    }

    /// Behind the block comment that begins at `start`. They nest.
    fn block_comment(&self, start: usize) -> Result<usize, Unterminated> {
        let mut at = start + 2;
        let mut depth = 1;
        while depth > 0 {
            match (self.byte(at), self.byte(at + 1)) {
                (Some(b'/'), Some(b'*')) => (at, depth) = (at + 2, depth + 1),
                (Some(b'*'), Some(b'/')) => (at, depth) = (at + 2, depth - 1),
                (Some(_), _) => at += 1,
                (None, _) => {
                    let range = start..start + 2;
                    return Err(Unterminated { what: Opened::Comment, range });
                }
            }
        }
        Ok(at)
    }

    /// The token that begins at the current place, which is not a blank.
    fn token(&self, first: u8) -> Result<(TokenKind, usize), Unterminated> {
        let start = self.at;
        let (second, third) = (self.byte(start + 1), self.byte(start + 2));
        match (first, second, third) {
            (b'\'', ..) => Ok((TokenKind::Text, self.quoted(b'\'', 1, Opened::Text)?)),
            (b'"', ..) => Ok((TokenKind::Quoted, self.quoted(b'"', 1, Opened::Identifier)?)),
            (b'e' | b'E', Some(b'\''), _) => Ok((TokenKind::Text, self.escape_text()?)),
            (b'b' | b'B' | b'n' | b'N' | b'x' | b'X', Some(b'\''), _) => {
                Ok((TokenKind::Text, self.quoted(b'\'', 2, Opened::Text)?))
            }
            (b'u' | b'U', Some(b'&'), Some(b'\'')) => {
                Ok((TokenKind::Text, self.quoted(b'\'', 3, Opened::Text)?))
            }
            (b'u' | b'U', Some(b'&'), Some(b'"')) => {
                Ok((TokenKind::UnicodeQuoted, self.quoted(b'"', 3, Opened::Identifier)?))
            }
            (b'$', Some(b'0'..=b'9'), _) => {
                Ok((TokenKind::Number, self.past(start + 1, |byte| byte.is_ascii_digit())))
            }
            (b'$', ..) => self.dollar(),
            (b'0'..=b'9', ..) => Ok((TokenKind::Number, self.number())),
            _ if starts_word(first) => Ok((TokenKind::Word, self.past(start + 1, in_word))),
            _ => Ok((TokenKind::Symbol(first), start + 1)),
        }
    }

    /// Behind a quoted thing in which only the doubled quote is special.
    fn quoted(&self, quote: u8, opener: usize, what: Opened) -> Result<usize, Unterminated> {
        let mut at = self.at + opener;
        loop {
            at = self.past(at, |byte| byte != quote);
            match (self.byte(at), self.byte(at + 1)) {
                (None, _) => return Err(Unterminated { what, range: self.at..self.at + opener }),
                (Some(_), Some(next)) if next == quote => at += 2,
                (Some(_), _) => return Ok(at + 1),
            }
        }
    }

    /// Behind `E'…'` and its continuations on later lines: they escape too,
    /// although they begin with a bare quote.
    fn escape_text(&self) -> Result<usize, Unterminated> {
        let mut at = self.at + 2;
        loop {
            match (self.byte(at), self.byte(at + 1)) {
                (None, _) => {
                    let range = self.at..self.at + 2;
                    return Err(Unterminated { what: Opened::EscapeText, range });
                }
                (Some(b'\\'), _) | (Some(b'\''), Some(b'\'')) => at += 2,
                (Some(b'\''), _) => match self.continuation(at + 1) {
                    Some(inside) => at = inside,
                    None => return Ok(at + 1),
                },
                (Some(_), _) => at += 1,
            }
        }
    }

    /// Inside of the continuation of a string that was closed before `at`: only
    /// blanks and line comments lie between, and a line ends among them.
    fn continuation(&self, mut at: usize) -> Option<usize> {
        let mut line_ended = false;
        loop {
            match (self.byte(at)?, self.byte(at + 1)) {
                (b'\'', _) => return line_ended.then_some(at + 1),
                (b'-', Some(b'-')) => at = self.past(at, |byte| !is_newline(byte)),
                (byte, _) if is_blank(byte) => {
                    line_ended |= is_newline(byte);
                    at += 1;
                }
                _ => return None,
            }
        }
    }

    /// A dollar-quoted string, or a lone dollar sign.
    fn dollar(&self) -> Result<(TokenKind, usize), Unterminated> {
        let start = self.at;
        let mut tag_end = start + 1;
        if self.byte(tag_end).is_some_and(starts_word) {
            tag_end = self.past(tag_end, |byte| byte != b'$' && in_word(byte));
        }
        if self.byte(tag_end) != Some(b'$') {
            return Ok((TokenKind::Symbol(b'$'), start + 1));
        }
        let body = tag_end + 1;
        let tag = &self.text[start..body];
        match self.text[body..].find(tag) {
            Some(length) => Ok((TokenKind::Text, body + length + tag.len())),
            None => Err(Unterminated { what: Opened::Dollar, range: start..body }),
        }
    }

    /// Behind a number. An exponent without digits is none: in `1e'x'` the string
    /// begins at `e`.
    fn number(&self) -> usize {
        let digit = |byte: u8| byte.is_ascii_digit() || byte == b'_';
        let mut at = self.past(self.at, digit);
        if self.byte(at) == Some(b'.') {
            at = self.past(at + 1, digit);
        }
        if matches!(self.byte(at), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(self.byte(at + 1), Some(b'+' | b'-')));
            if self.byte(at + 1 + sign).is_some_and(|byte| byte.is_ascii_digit()) {
                at = self.past(at + 1 + sign, digit);
            }
        }
        at
    }
}

impl Iterator for Lexer<'_> {
    type Item = Result<Token, Unterminated>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = self.skip_blanks().and_then(|()| match self.byte(self.at) {
            None => Ok(None),
            Some(first) => self.token(first).map(Some),
        });
        match found {
            Ok(None) => None,
            Ok(Some((kind, end))) => {
                let range = self.at..end;
                self.at = end;
                Some(Ok(Token { kind, range }))
            }
            Err(unterminated) => {
                self.at = self.text.len();
                Some(Err(unterminated))
            }
        }
    }
}

fn is_newline(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn starts_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn in_word(byte: u8) -> bool {
    starts_word(byte) || byte.is_ascii_digit() || byte == b'$'
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    /// The tokens of a text, each in brackets; `!` and what was left open last.
    #[expect(clippy::needless_pass_by_value, reason = "`expect![…]` reads better without `&`")]
    fn check(text: &str, expected: Expect) {
        let seen: Vec<String> = Lexer::new(text)
            .map(|token| match token {
                Ok(token) => format!("[{}]", &text[token.range]),
                Err(open) => format!("!{:?} {}", open.what, &text[open.range]),
            })
            .collect();
        expected.assert_eq(&seen.concat());
    }

    #[test]
    fn strings_end_where_postgres_ends_them() {
        check("'it''s' x", expect!["['it''s'][x]"]);
        check(r"'\' x", expect![[r"['\'][x]"]]);
        check(r"E'\'' e'\\' x", expect![[r"[E'\''][e'\\'][x]"]]);
        check(r"E'a''\'b' x", expect![[r"[E'a''\'b'][x]"]]);
        check(r"U&'\' u&'d' B'0' x'f' N'n'", expect![[r"[U&'\'][u&'d'][B'0'][x'f'][N'n']"]]);
        check(r"type'\' x", expect![[r"[type]['\'][x]"]]);
        check("1e'\\'' 1e5 1.5e-3 1_000", expect![[r"[1][e'\''][1e5][1.5e-3][1_000]"]]);
    }

    #[test]
    fn an_escape_string_goes_on_after_a_line_break() {
        check(
            "E'a'\n'b\\'c' x",
            expect![[r"
            [E'a'
            'b\'c'][x]"]],
        );
        check(
            "E'a' -- why\n 'b\\'c' x",
            expect![[r"
            [E'a' -- why
             'b\'c'][x]"]],
        );
        check(r"E'a' 'b\' x", expect![[r"[E'a']['b\'][x]"]]);
        check("E'a'\n/* no */'b\\' x", expect![[r"[E'a']['b\'][x]"]]);
    }

    #[test]
    fn a_dollar_sign_quotes_only_where_no_identifier_goes_on() {
        check("$$;$$ x", expect!["[$$;$$][x]"]);
        check("$a$ $b$ ; $a$ x", expect!["[$a$ $b$ ; $a$][x]"]);
        check("$a$ $a $$ $aa$ $a$ x", expect!["[$a$ $a $$ $aa$ $a$][x]"]);
        check("$é$ ; $é$ x", expect!["[$é$ ; $é$][x]"]);
        check("a$b$c ; a$b$", expect!["[a$b$c][;][a$b$]"]);
        check("$1 $2$3", expect!["[$1][$2][$3]"]);
        check("$ $1a$ ;", expect!["[$][$1][a$][;]"]);
        check("$A$ $a$ ; $A$", expect!["[$A$ $a$ ; $A$]"]);
    }

    #[test]
    fn comments_nest_and_begin_inside_of_operators() {
        check("a /* b /* c */ ' */ d", expect!["[a][d]"]);
        check("a -- ' \" /*\nb", expect!["[a][b]"]);
        check("2 */* c */ 3", expect!["[2][*][3]"]);
        check("1 +-- c\n 2", expect!["[1][+][2]"]);
        check("a /*/ b */ c", expect!["[a][c]"]);
        check("a ->> '--' @> '/*' - - b", expect!["[a][-][>][>]['--'][@][>]['/*'][-][-][b]"]);
    }

    #[test]
    fn identifiers_are_words_or_quoted() {
        check(r#""a;""b" zwölf _x1 U&"\0061;""#, expect![[r#"["a;""b"][zwölf][_x1][U&"\0061;"]"#]]);
        check("u & 'x' ub'1'", expect!["[u][&]['x'][ub]['1']"]);
    }

    #[test]
    fn what_is_never_closed_is_told_by_its_beginning() {
        check("a 'b;", expect!["[a]!Text '"]);
        check(r"a E'b\'", expect!["[a]!EscapeText E'"]);
        check(r"E'b\", expect!["!EscapeText E'"]);
        check("E'a'\n'b", expect!["!EscapeText E'"]);
        check("a U&\"b", expect!["[a]!Identifier U&\""]);
        check("a /* /* */", expect!["[a]!Comment /*"]);
        check("a $x$ $y$", expect!["[a]!Dollar $x$"]);
    }
}
