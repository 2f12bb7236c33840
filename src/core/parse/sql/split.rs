//! Cuts a script into statements, as psql would, and finds what is wrong with a
//! script whatever its statements mean: text that is never closed, commands of
//! psql, nesting that no parser survives.

use super::Problems;
use super::token::{Lexer, Opened, Token, TokenKind, Unterminated};
use std::ops::Range;

/// Parentheses and brackets may nest this deep: more than anybody writes, and
/// less than what exhausts the stack of a recursive parser.
const NESTING_MAX: u32 = 1000;

/// The name of a command of psql is shown up to this many characters.
const COMMAND_NAME_MAX: usize = 20;

/// One statement where it stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Cut<'a> {
    /// From its first token to its last: without the semicolon, without the
    /// comments around it, with those inside.
    pub text: &'a str,
    /// Its first byte in the script.
    pub start: usize,
    /// Its first line, from 1.
    pub line: u32,
    /// A problem was found in it: what it means does not matter any more.
    pub broken: bool,
}

/// The statements of a script, one after the other.
#[derive(Debug)]
pub(super) struct Splitter<'a> {
    text: &'a str,
    lexer: Lexer<'a>,
    /// The line of `counted`; each part of the text is counted once.
    line: u32,
    counted: usize,
}

impl<'a> Splitter<'a> {
    pub fn new(text: &'a str) -> Splitter<'a> {
        Splitter { text, lexer: Lexer::new(text), line: 1, counted: 0 }
    }

    /// The next statement that is not empty. Problems are added as they are met.
    pub fn next(&mut self, problems: &mut Problems) -> Option<Cut<'a>> {
        let mut statement: Option<Range<usize>> = None;
        let mut shape = Shape::default();
        let mut broken = false;
        while let Some(token) = self.lexer.next() {
            let token = match token {
                Ok(token) => token,
                Err(unterminated) => {
                    report_unterminated(self.text, unterminated, problems);
                    return None;
                }
            };
            if token.kind == TokenKind::Symbol(b'\\') {
                self.report_command(token.range.start, problems);
                broken |= statement.is_some();
                continue;
            }
            if token.kind == TokenKind::Symbol(b';') && shape.may_end() {
                if statement.is_some() {
                    break;
                }
                continue;
            }
            if shape.add(self.text, &token) == Nesting::TooDeep && !broken {
                broken = true;
                problems.add(
                    token.range.clone(),
                    format!("nested more than {NESTING_MAX} levels deep"),
                    "write the expression flatter: nothing reads SQL nested so deeply",
                );
            }
            let start = statement.map_or(token.range.start, |range| range.start);
            statement = Some(start..token.range.end);
        }
        statement.map(|range| Cut {
            line: self.line_of(range.start),
            start: range.start,
            text: &self.text[range],
            broken,
        })
    }

    /// Skips the rows that follow the line of a `COPY … FROM STDIN;` up to the line
    /// `\.`, or to the end if there is none, as psql does: they are not SQL.
    pub fn skip_rows(&mut self) {
        let mut at = self.lexer.position();
        for (number, line) in self.text[at..].split_inclusive('\n').enumerate() {
            at += line.len();
            if number > 0 && line.trim_end() == "\\." {
                break;
            }
        }
        self.lexer.skip_to(at);
    }

    /// Reports the psql command that begins at `start`, and skips the rest of its
    /// line, which belongs to it.
    fn report_command(&mut self, start: usize, problems: &mut Problems) {
        let rest = &self.text[start..];
        let line = &rest[..rest.find('\n').unwrap_or(rest.len())];
        let mut characters = line.char_indices().skip(1);
        let name = match characters.next() {
            None => "",
            Some((_, first)) if first.is_ascii_alphanumeric() => {
                let end = line[1..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                let end = end.map_or(line.len(), |length| 1 + length);
                &line[1..end.min(1 + COMMAND_NAME_MAX)]
            }
            Some((at, first)) => &line[at..at + first.len_utf8()],
        };
        let range = start..start + 1 + name.len();
        problems.add(
            range,
            format!("`\\{name}` is a command of psql, not SQL"),
            command_hint(name),
        );
        self.lexer.skip_to(start + line.len());
        let mut words = line.split_whitespace().map(|word| word.trim_end_matches(';'));
        if name == "copy" && words.any(|word| word.eq_ignore_ascii_case("stdin")) {
            self.skip_rows();
        }
    }

    fn line_of(&mut self, at: usize) -> u32 {
        let lines = self.text[self.counted..at].matches('\n').count();
        self.counted = at;
        self.line = self.line.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
        self.line
    }
}

/// What has been opened since the statement began.
#[derive(Debug, Default)]
struct Shape {
    head: Head,
    parentheses: u32,
    brackets: u32,
    /// How many `BEGIN ATOMIC` are open.
    atomic: u32,
    previous: Previous,
}

/// What the statement turns out to be; only a routine has `BEGIN ATOMIC`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Head {
    #[default]
    Nothing,
    Create,
    Routine,
    Other,
}

/// What matters about the token before.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Previous {
    Begin,
    Atomic,
    Semicolon,
    #[default]
    Other,
}

/// Whether anything can read it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Nesting {
    Fine,
    TooDeep,
}

impl Shape {
    /// Whether a semicolon ends the statement here.
    fn may_end(&self) -> bool {
        self.parentheses == 0 && self.atomic == 0
    }

    fn add(&mut self, text: &str, token: &Token) -> Nesting {
        let mut now = Previous::Other;
        match token.kind {
            TokenKind::Word => now = self.add_word(&text[token.range.clone()]),
            TokenKind::Symbol(b'(') => self.parentheses += 1,
            TokenKind::Symbol(b')') => self.parentheses = self.parentheses.saturating_sub(1),
            TokenKind::Symbol(b'[') => self.brackets += 1,
            TokenKind::Symbol(b']') => self.brackets = self.brackets.saturating_sub(1),
            TokenKind::Symbol(b';') => now = Previous::Semicolon,
            TokenKind::Symbol(_)
            | TokenKind::Quoted
            | TokenKind::UnicodeQuoted
            | TokenKind::Text
            | TokenKind::Number => {}
        }
        if token.kind != TokenKind::Word && self.head != Head::Routine {
            self.head = Head::Other;
        }
        self.previous = now;
        if self.parentheses.saturating_add(self.brackets) > NESTING_MAX {
            Nesting::TooDeep
        } else {
            Nesting::Fine
        }
    }

    fn add_word(&mut self, word: &str) -> Previous {
        let is = |keyword: &str| word.eq_ignore_ascii_case(keyword);
        self.head = match self.head {
            Head::Nothing if is("create") => Head::Create,
            Head::Create if is("or") || is("replace") => Head::Create,
            Head::Create if is("function") || is("procedure") => Head::Routine,
            Head::Routine => Head::Routine,
            Head::Nothing | Head::Create | Head::Other => Head::Other,
        };
        if self.head != Head::Routine || self.parentheses > 0 {
            return Previous::Other;
        }
        if is("begin") {
            return Previous::Begin;
        }
        if is("atomic") && self.previous == Previous::Begin {
            self.atomic += 1;
            return Previous::Atomic;
        }
        // Each statement of the body ends with a semicolon, and no expression has
        // one. So the END of the body follows a semicolon, that of a CASE never
        // does, and there is no need to count CASEs, which may be labels too.
        let statement_ended = matches!(self.previous, Previous::Atomic | Previous::Semicolon);
        if is("end") && statement_ended {
            self.atomic = self.atomic.saturating_sub(1);
        }
        Previous::Other
    }
}

fn report_unterminated(text: &str, unterminated: Unterminated, problems: &mut Problems) {
    let opener = &text[unterminated.range.clone()];
    let (message, hint) = match unterminated.what {
        Opened::Text => (
            "this string is never closed",
            "close it with `'`; inside of a string a quote is written twice: `''`".to_owned(),
        ),
        Opened::EscapeText => (
            "this string is never closed",
            "close it with `'`; after `E` a backslash escapes the quote that follows it".to_owned(),
        ),
        Opened::Identifier => (
            "this quoted identifier is never closed",
            "close it with `\"`; text is quoted with `'`".to_owned(),
        ),
        Opened::Comment => (
            "this comment is never closed",
            "close it with `*/`; comments nest, so each `/*` inside needs a `*/` of its own"
                .to_owned(),
        ),
        Opened::Dollar => (
            "this dollar-quoted string is never closed",
            format!("close it with `{opener}`, in the same upper and lower case"),
        ),
    };
    problems.add(unterminated.range, message, hint);
}

fn command_hint(name: &str) -> &'static str {
    match name {
        "i" | "ir" | "include" | "include_relative" => {
            "put the statements of that file here, or into a migration of their own"
        }
        "copy" | "." => super::refuse::USE_INSERT,
        "c" | "connect" => "remove it: a migration runs in the one database it was given",
        "gexec" => "write the statements out, or EXECUTE them in a `DO` block",
        "restrict" | "unrestrict" => "remove it: pg_dump wrote it for psql",
        _ => "remove it: only SQL runs here; `[[run]]` in migration.toml runs a program",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    /// The statements of a script, each with its line; then the problems.
    #[expect(clippy::needless_pass_by_value, reason = "`expect![…]` reads better without `&`")]
    fn check(text: &str, expected: Expect) {
        let mut problems = Problems { text, found: Vec::new() };
        let mut splitter = Splitter::new(text);
        let mut seen = Vec::new();
        while let Some(cut) = splitter.next(&mut problems) {
            assert_eq!(&text[cut.start..cut.start + cut.text.len()], cut.text);
            seen.push(format!("{}| {}\n", cut.line, cut.text));
        }
        seen.extend(problems.found.iter().map(|(_, problem)| format!("{problem}\n")));
        expected.assert_eq(&seen.concat());
    }

    #[test]
    fn a_semicolon_ends_a_statement_only_outside_of_everything() {
        check(
            "select ';', \";\", $$;$$, $a$ $b$;$a$, E'\\';', U&';', U&\"\\003b;\" /* ; /* ; */ ; */ -- ;\n;select 2",
            expect![[r#"
                1| select ';', ";", $$;$$, $a$ $b$;$a$, E'\';', U&';', U&"\003b;"
                2| select 2
            "#]],
        );
    }

    #[test]
    fn a_statement_has_the_line_of_its_first_token() {
        check(
            "-- a table\n\n/* of\n   users */ create table users (\n  id int -- its key\n);\n\n\n  select 1 -- last\n",
            expect![[r"
                4| create table users (
                  id int -- its key
                )
                9| select 1
            "]],
        );
    }

    #[test]
    fn empty_statements_are_none() {
        check("", expect![""]);
        check(";; ; -- nothing\n;/* at all */", expect![""]);
        check(
            ";;select 1;;;select 2;;",
            expect![["
            1| select 1
            1| select 2
        "]],
        );
    }

    #[test]
    fn operators_casts_and_parameters_are_just_bytes() {
        check(
            "select a->>'b;', c ?| array['d'], e @> '{}'::jsonb, f - -1, g#>>'{h}', a$b$c; select $1::int[]; select 1",
            expect![[r"
                1| select a->>'b;', c ?| array['d'], e @> '{}'::jsonb, f - -1, g#>>'{h}', a$b$c
                1| select $1::int[]
                1| select 1
            "]],
        );
    }

    #[test]
    fn a_rule_may_hold_statements_in_parentheses() {
        check(
            "create rule r as on insert to t do also (insert into a values (1); delete from b); select 1",
            expect![[r"
                1| create rule r as on insert to t do also (insert into a values (1); delete from b)
                1| select 1
            "]],
        );
        check(
            "select 1); select 2",
            expect![["
            1| select 1)
            1| select 2
        "]],
        );
    }

    #[test]
    fn a_sql_body_ends_with_its_own_end() {
        check(
            "create or replace function f(a int) returns int begin atomic\n select case when a > 1 then 1 else case a when 0 then 2 end end;\n select 2; end; select 1",
            expect![[r"
                1| create or replace function f(a int) returns int begin atomic
                 select case when a > 1 then 1 else case a when 0 then 2 end end;
                 select 2; end
                3| select 1
            "]],
        );
        check(
            "CREATE PROCEDURE p() BEGIN /* c */ ATOMIC END; select 1",
            expect![[r"
                1| CREATE PROCEDURE p() BEGIN /* c */ ATOMIC END
                1| select 1
            "]],
        );
        check(
            "create function f() returns int begin atomic select 1 as end; select 2 case; select t.end from t; end; select 1",
            expect![[r"
                1| create function f() returns int begin atomic select 1 as end; select 2 case; select t.end from t; end
                1| select 1
            "]],
        );
        check(
            "create function f() returns void begin atomic create function g() returns int begin atomic select 1; end; end; select 1",
            expect![[r"
                1| create function f() returns void begin atomic create function g() returns int begin atomic select 1; end; end
                1| select 1
            "]],
        );
    }

    #[test]
    fn begin_and_end_mean_nothing_elsewhere() {
        check(
            "create function begin() returns int return 1; select 1; create function f() returns int language sql as 'begin atomic'; select 2",
            expect![[r"
                1| create function begin() returns int return 1
                1| select 1
                1| create function f() returns int language sql as 'begin atomic'
                1| select 2
            "]],
        );
        check(
            "create table begin (atomic int); select begin atomic; select 1",
            expect![[r"
                1| create table begin (atomic int)
                1| select begin atomic
                1| select 1
            "]],
        );
    }

    #[test]
    fn a_plpgsql_body_is_one_string() {
        check(
            "create function touch() returns trigger language plpgsql as $body$\nbegin\n  -- it's now; $$ too\n  new.at := now();\n  execute $q$ select ';' $q$;\n  return new;\nend;\n$body$;\ncreate trigger t before update on a for each row execute function touch();\ndo $$ begin perform 1; end $$",
            expect![[r"
                1| create function touch() returns trigger language plpgsql as $body$
                begin
                  -- it's now; $$ too
                  new.at := now();
                  execute $q$ select ';' $q$;
                  return new;
                end;
                $body$
                9| create trigger t before update on a for each row execute function touch()
                10| do $$ begin perform 1; end $$
            "]],
        );
    }

    #[test]
    fn text_in_strings_is_not_sql() {
        check(
            "insert into keys values ('-----BEGIN KEY-----\nMIIB;--/*+\n-----END KEY-----\n');\ninsert into mail values (E'it\\'s -- not\\\\');\nselect 1",
            expect![[r"
                1| insert into keys values ('-----BEGIN KEY-----
                MIIB;--/*+
                -----END KEY-----
                ')
                5| insert into mail values (E'it\'s -- not\\')
                6| select 1
            "]],
        );
    }

    #[test]
    fn what_is_never_closed_is_found_where_it_begins() {
        check(
            "select 1;\nselect 'a;\nselect 2;",
            expect![[r"
            1| select 1
            :2:8: this string is never closed; close it with `'`; inside of a string a quote is written twice: `''`
        "]],
        );
        check(
            "select E'a\\';",
            expect![[r"
            :1:8: this string is never closed; close it with `'`; after `E` a backslash escapes the quote that follows it
        "]],
        );
        check(
            "select \"a;",
            expect![[r#"
            :1:8: this quoted identifier is never closed; close it with `"`; text is quoted with `'`
        "#]],
        );
        check(
            "select 1 /* a /* b */ ;",
            expect![[r"
            :1:10: this comment is never closed; close it with `*/`; comments nest, so each `/*` inside needs a `*/` of its own
        "]],
        );
        check(
            "do $Body$ begin end $body$;",
            expect![[r"
            :1:4: this dollar-quoted string is never closed; close it with `$Body$`, in the same upper and lower case
        "]],
        );
    }

    #[test]
    fn a_command_of_psql_is_named_with_what_to_do_instead() {
        check(
            "\\i other.sql\nselect 1;",
            expect![[r"
            2| select 1
            :1:1: `\i` is a command of psql, not SQL; put the statements of that file here, or into a migration of their own
        "]],
        );
        check(
            "select 1;\n  \\copy t from 'a.csv' -- 'x\nselect 2;",
            expect![[r"
            1| select 1
            3| select 2
            :2:3: `\copy` is a command of psql, not SQL; use INSERT, or a fixture for test data, or a program with `[[run]]` in migration.toml
        "]],
        );
        check(
            "\\copy t from stdin\nit's\n\\.\nselect 2;",
            expect![[r"
            4| select 2
            :1:1: `\copy` is a command of psql, not SQL; use INSERT, or a fixture for test data, or a program with `[[run]]` in migration.toml
        "]],
        );
        check(
            "\\connect shop",
            expect![[r"
            :1:1: `\connect` is a command of psql, not SQL; remove it: a migration runs in the one database it was given
        "]],
        );
        check(
            "select 'drop table ' || name from t\n\\gexec\n",
            expect![[r"
            1| select 'drop table ' || name from t
            :2:1: `\gexec` is a command of psql, not SQL; write the statements out, or EXECUTE them in a `DO` block
        "]],
        );
        check(
            "\\restrict abc\n\\!rm\n\\",
            expect![[r"
            :1:1: `\restrict` is a command of psql, not SQL; remove it: pg_dump wrote it for psql
            :2:1: `\!` is a command of psql, not SQL; remove it: only SQL runs here; `[[run]]` in migration.toml runs a program
            :3:1: `\` is a command of psql, not SQL; remove it: only SQL runs here; `[[run]]` in migration.toml runs a program
        "]],
        );
        check(
            "\\abcdefghijklmnopqrstuvwxyz\n\\é",
            expect![[r"
            :1:1: `\abcdefghijklmnopqrst` is a command of psql, not SQL; remove it: only SQL runs here; `[[run]]` in migration.toml runs a program
            :2:1: `\é` is a command of psql, not SQL; remove it: only SQL runs here; `[[run]]` in migration.toml runs a program
        "]],
        );
    }

    #[test]
    fn nesting_has_a_limit() {
        let nested = |levels: usize| {
            format!("select 1;\nselect {}1{};\nselect 2", "(".repeat(levels), ")".repeat(levels))
        };
        let found = |text: &str| {
            let mut problems = Problems { text, found: Vec::new() };
            let mut splitter = Splitter::new(text);
            let broken: Vec<bool> =
                std::iter::from_fn(|| splitter.next(&mut problems)).map(|cut| cut.broken).collect();
            let places: Vec<_> = problems
                .found
                .into_iter()
                .map(|(_, problem)| {
                    (problem.at.map(|at| (at.line, at.column)), problem.message, problem.hint)
                })
                .collect();
            format!("{broken:?} {places:?}")
        };
        expect!["[false, false, false] []"].assert_eq(&found(&nested(1000)));
        expect![[r#"[false, true, false] [(Some((2, 1008)), "nested more than 1000 levels deep", Some("write the expression flatter: nothing reads SQL nested so deeply"))]"#]].assert_eq(&found(&nested(1001)));
        expect![[r#"[true] [(Some((1, 1001)), "nested more than 1000 levels deep", Some("write the expression flatter: nothing reads SQL nested so deeply"))]"#]].assert_eq(&found(&"[(".repeat(5000)));
    }
}
