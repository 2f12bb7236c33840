//! Reads Postgres scripts: cuts them into statements, refuses what cannot be in
//! a migration, and says of each statement how it can be run.
//!
//! Postgres has the last word about SQL. Nothing in here refuses a statement
//! because of its syntax, and none of it depends on the version of the server.

use crate::core::problem::Problem;
use crate::core::step::{Commit, SqlKind, SqlStatement};
use std::ops::Range;

// In reading order: text to tokens, tokens to statements, statements to kinds.
mod token;

mod split;

mod cursor;

mod refuse;

mod classify;

/// One statement as a tree.
pub(in crate::core) mod tree;

/// Which columns an `UPDATE` assigns.
pub mod assigned;
/// What a statement does, in outline.
pub mod outline;
/// Which tables a statement names.
pub mod relations;

/// What a role must be allowed to do for a statement to run.
pub mod needs;

/// So many problems of one script are told. Each holds the line it stands in,
/// and nobody reads more before the first are mended.
const PROBLEMS_MAX: usize = 50;

/// Whether the statements of a script share a transaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transaction {
    /// As many as can be: the default.
    On,
    /// `transaction = false` in `migration.toml`: each is run alone.
    Off,
}

/// A piece of a script that becomes one step.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Piece {
    /// How it reaches the store.
    pub commit: Commit,
    /// In order. A journaled piece has exactly one.
    pub statements: Vec<SqlStatement>,
}

/// Reads a script whose text is normalized (no BOM, LF). Empty statements are
/// dropped. A statement's text goes from its first token to its last: it has no
/// semicolon and no comments around it, but those inside.
///
/// It takes time and memory in proportion to the text, and cannot overflow the
/// stack.
///
/// # Errors
/// All problems in the order in which they stand in the file (the first 50 if
/// there are more), with `file` left empty. What follows something that is
/// never closed is inside it, so it is not looked at.
pub fn read(text: &str) -> Result<Vec<SqlStatement>, Vec<Problem>> {
    let mut problems = Problems { text, found: Vec::new() };
    if let Some(at) = text.find('\0') {
        problems.add(
            at..at + 1,
            "the character U+0000 is in this file",
            "remove it, or save the file as UTF-8: Postgres has no text with that character",
        );
    }
    let mut statements = Vec::new();
    let mut splitter = split::Splitter::new(text);
    while let Some(cut) = splitter.next(&mut problems) {
        if cut.broken {
            continue;
        }
        match refuse::refuse(cut.text).and_then(|()| classify::classify(cut.text)) {
            Ok(kind) => {
                statements.push(SqlStatement { text: cut.text.to_owned(), line: cut.line, kind });
            }
            Err(refusal) => {
                let range = cut.start + refusal.range.start..cut.start + refusal.range.end;
                problems.add(range, refusal.message, refusal.hint);
                if refusal.rows_follow {
                    splitter.skip_rows();
                }
            }
        }
    }
    problems.or(statements)
}

/// Cuts a script into pieces: a run of statements that can be in a transaction
/// is one atomic piece, a statement that cannot is a journaled piece of its own.
/// With [`Transaction::Off`] every statement is a piece of its own, and still
/// atomic where Postgres allows it. A script without statements is one atomic
/// piece without statements: it is applied and recorded like any other.
pub fn cut(statements: Vec<SqlStatement>, transaction: Transaction) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for statement in statements {
        let commit = commit(&statement.kind);
        match (transaction, commit, pieces.last_mut()) {
            (Transaction::On, Commit::Atomic, Some(last)) if last.commit == Commit::Atomic => {
                last.statements.push(statement);
            }
            _ => pieces.push(Piece { commit, statements: vec![statement] }),
        }
    }
    if pieces.is_empty() {
        pieces.push(Piece { commit: Commit::Atomic, statements: Vec::new() });
    }
    pieces
}

fn commit(kind: &SqlKind) -> Commit {
    if kind.in_transaction() { Commit::Atomic } else { Commit::Journaled }
}

/// The problems of one script so far, with their places.
#[derive(Debug)]
struct Problems<'a> {
    text: &'a str,
    found: Vec<(usize, Problem)>,
}

impl Problems<'_> {
    fn add(&mut self, range: Range<usize>, message: impl Into<String>, hint: impl Into<String>) {
        if self.found.len() < PROBLEMS_MAX {
            let start = range.start;
            self.found.push((start, Problem::at(self.text, range, message).hint(hint)));
        }
    }

    /// `good` if there are none, else all of them in order.
    fn or<T>(mut self, good: T) -> Result<T, Vec<Problem>> {
        if self.found.is_empty() {
            return Ok(good);
        }
        // A statement is judged after the text in it was read.
        self.found.sort_by_key(|(start, _)| *start);
        Err(self.found.into_iter().map(|(_, problem)| problem).collect())
    }
}

/// Each piece runs in a session of its own, so a `SET` before a cut would be gone
/// after it: a table would silently be made in another schema than in psql.
///
/// # Errors
/// Each such `SET`.
pub fn check_settings(text: &str, pieces: &[Piece]) -> Result<(), Vec<Problem>> {
    let before_a_cut = pieces.split_last().map_or(&[][..], |(_, before)| before);
    let problems: Vec<Problem> = before_a_cut
        .iter()
        .flat_map(|piece| &piece.statements)
        .filter(|statement| sets_session(&statement.text))
        .take(PROBLEMS_MAX)
        .map(|statement| {
            let line = usize::try_from(statement.line).unwrap_or(1).saturating_sub(1);
            let start: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
            let start = text[start..].find(&statement.text).map_or(start, |at| start + at);
            Problem::at(
                text,
                start..start + statement.text.len(),
                "this setting would not reach the statements after the cut: the script is cut around \
                 what cannot be in a transaction, and each step has a session of its own",
            )
            .hint("qualify the names instead, or put the parts into migrations of their own, each with its SET")
        })
        .collect();
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// `SET` for the session: not `LOCAL`, and nothing that ends with the transaction.
fn sets_session(statement: &str) -> bool {
    let mut cursor = cursor::Cursor::new(statement);
    let only_transaction = ["local", "transaction", "constraints"];
    cursor.word("set") && !only_transaction.into_iter().any(|word| cursor.word(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    /// The pieces of a script: how they are committed, and their lines.
    #[expect(clippy::needless_pass_by_value, reason = "`expect![…]` reads better without `&`")]
    fn check(text: &str, transaction: Transaction, expected: Expect) {
        let statements = read(text).expect("nothing in it is refused");
        let mut seen = Vec::new();
        for piece in cut(statements, transaction) {
            let lines: Vec<u32> = piece.statements.iter().map(|statement| statement.line).collect();
            seen.push(format!("{:?} {lines:?}\n", piece.commit));
        }
        expected.assert_eq(&seen.concat());
    }

    #[expect(clippy::needless_pass_by_value, reason = "`expect![…]` reads better without `&`")]
    fn check_problems(text: &str, expected: Expect) {
        let problems = read(text).expect_err("something in it is refused");
        let lines: Vec<String> = problems.iter().map(|problem| format!("{problem}\n")).collect();
        expected.assert_eq(&lines.concat());
    }

    const MIXED: &str = "create table a (id int);
insert into a values (1);
create index concurrently a_id on a (id);
vacuum a;
select 1;
drop index concurrently a_id;
select 2";

    #[test]
    fn a_script_is_cut_around_what_no_transaction_can_hold() {
        check(
            MIXED,
            Transaction::On,
            expect![[r"
            Atomic [1, 2]
            Journaled [3]
            Journaled [4]
            Atomic [5]
            Journaled [6]
            Atomic [7]
        "]],
        );
    }

    #[test]
    fn a_setting_that_would_not_reach_the_rest_of_the_script_is_refused() {
        let check = |text: &str| {
            let pieces = cut(read(text).expect("well-formed"), Transaction::On);
            check_settings(text, &pieces).map_err(|problems| problems[0].to_string())
        };
        assert_eq!(check("SET search_path TO shop;\nCREATE TABLE t ();"), Ok(()));
        assert_eq!(check("SET LOCAL search_path TO shop;\nVACUUM t;"), Ok(()));
        assert_eq!(check("VACUUM t;\nSET search_path TO shop; SELECT 1;"), Ok(()));
        let refused = check("SELECT 1;\n  SET search_path TO shop;\nVACUUM t;");
        assert!(refused.is_err_and(|text| text.starts_with(":2:3: this setting would not reach")));
    }

    #[test]
    fn without_a_transaction_every_statement_is_a_piece() {
        check(
            MIXED,
            Transaction::Off,
            expect![[r"
            Atomic [1]
            Atomic [2]
            Journaled [3]
            Journaled [4]
            Atomic [5]
            Journaled [6]
            Atomic [7]
        "]],
        );
    }

    #[test]
    fn a_script_without_statements_is_a_piece_too() {
        check(
            "-- nothing to do here\n",
            Transaction::On,
            expect![[r"
            Atomic []
        "]],
        );
        check(
            ";;",
            Transaction::Off,
            expect![[r"
            Atomic []
        "]],
        );
    }

    #[test]
    fn a_statement_is_its_text_its_line_and_its_kind() {
        let statements = read("-- first\nSELECT /* in it */ 1 /* after */;\n").expect("it is fine");
        expect![[r#"
            [
                SqlStatement {
                    text: "SELECT /* in it */ 1",
                    line: 2,
                    kind: Transactional,
                },
            ]
        "#]]
        .assert_debug_eq(&statements);
    }

    #[test]
    fn all_problems_are_told_in_order() {
        check_problems(
            "begin;\n\\set x 1\nselect \\y\n, 2; create index concurrently on t (a);\ncommit;\nselect 'a",
            expect![[r"
                :1:1: `BEGIN` is transaction control; remove it: the engine runs the script in one transaction together with its record; `transaction = false` in migration.toml runs each statement alone
                :2:1: `\set` is a command of psql, not SQL; remove it: only SQL runs here; `[[run]]` in migration.toml runs a program
                :3:8: `\y` is a command of psql, not SQL; remove it: only SQL runs here; `[[run]]` in migration.toml runs a program
                :4:6: an index that is built concurrently needs a name; write `CREATE INDEX CONCURRENTLY <name> ON …`: without a name nobody can say after a crash whether it is there
                :5:1: `COMMIT` is transaction control; remove it: the engine runs the script in one transaction together with its record; `transaction = false` in migration.toml runs each statement alone
                :6:8: this string is never closed; close it with `'`; inside of a string a quote is written twice: `''`
            "]],
        );
        assert_eq!(read(&"commit;".repeat(1000)).map_err(|problems| problems.len()), Err(50));
    }

    #[test]
    fn the_character_nul_is_refused() {
        check_problems(
            "select 1;\nselect 'a\0b';\nbegin",
            expect![[r"
            :2:10: the character U+0000 is in this file; remove it, or save the file as UTF-8: Postgres has no text with that character
            :3:1: `BEGIN` is transaction control; remove it: the engine runs the script in one transaction together with its record; `transaction = false` in migration.toml runs each statement alone
        "]],
        );
    }

    #[test]
    fn a_long_script_is_read_to_its_end() {
        const BYTES: usize = 5 << 20;
        let row = "(1, 'it''s; a row', E'\\'', $$ ; $$, (2)),\n";
        let insert = format!("insert into t values\n{}(0);\n", row.repeat(BYTES / row.len()));
        let rows = u32::try_from(BYTES / row.len()).expect("it is small");
        let statements = read(&format!("{insert}vacuum t;")).expect("it is fine");
        let lines: Vec<u32> = statements.iter().map(|statement| statement.line).collect();
        assert_eq!(lines, [1, rows + 3]);
        assert_eq!(statements[1].kind, SqlKind::AloneRepeatable);

        let count = BYTES / 10;
        let statements = read(&"select 1;\n".repeat(count)).expect("it is fine");
        assert_eq!(statements.len(), count);
        assert_eq!(statements.last().map(|last| last.line as usize), Some(count));
    }

    /// What holds of every text, SQL or not.
    fn check_any(text: &str) {
        match read(text) {
            Ok(statements) => {
                let mut from = 0;
                for statement in &statements {
                    let at = text[from..].find(&statement.text).expect("its text is in the script");
                    from += at + statement.text.len();
                    let line_start = match statement.line {
                        1 => 0,
                        line => {
                            let before = text.match_indices('\n').nth(line as usize - 2);
                            before.expect("the script has this line").0 + 1
                        }
                    };
                    let on_line = text[line_start..].find(&statement.text);
                    let between = &text[line_start..][..on_line.expect("it begins there")];
                    assert!(!between.contains('\n'), "not on line {}", statement.line);
                }
                // What was cut apart is cut apart again, and means the same.
                // No semicolon after the last, which may have opened what it never closed.
                let texts: Vec<&str> =
                    statements.iter().map(|statement| statement.text.as_str()).collect();
                let joined = texts.join(";\n");
                let again = read(&joined).expect("its statements are fine one by one");
                let meaning = |statements: Vec<SqlStatement>| -> Vec<(String, SqlKind)> {
                    let parts = statements.into_iter();
                    parts.map(|statement| (statement.text, statement.kind)).collect()
                };
                assert_eq!(meaning(again), meaning(statements));
            }
            Err(problems) => {
                let places: Vec<(u32, u32)> = problems
                    .iter()
                    .map(|problem| problem.at.as_ref().expect("it has a place"))
                    .map(|place| (place.line, place.column))
                    .collect();
                assert!(!places.is_empty() && places.is_sorted(), "{places:?}");
                assert!(problems.iter().all(|problem| problem.hint.is_some()));
            }
        }
    }

    /// What has broken splitters before, and what this one looks at.
    const NASTY: &[&str] = &[
        ";",
        "'",
        "''",
        "E'",
        "e'",
        "\\'",
        "\\",
        "\\\\",
        "U&'",
        "U&\"",
        "\"",
        "\"\"",
        "N'",
        "$",
        "$$",
        "$a$",
        "$b$",
        "$1",
        "a$b$c",
        "é",
        "$é$",
        "/*",
        "*/",
        "*/*",
        "--",
        "\n",
        "\r",
        " ",
        "\t",
        "(",
        ")",
        "[",
        "]",
        ",",
        ".",
        "=",
        "*",
        "->>",
        "?",
        "::",
        "1e",
        "1.5",
        "\u{b}",
        "\u{feff}",
        "😀",
        " BEGIN ",
        " ATOMIC ",
        " END ",
        " CASE ",
        " CREATE ",
        " OR REPLACE ",
        " FUNCTION ",
        "create function f() begin atomic ",
        " COPY ",
        " FROM ",
        " STDIN ",
        "\\.",
        " to stdout ",
        "create index concurrently ",
        " if not exists ",
        " ON ",
        " only ",
        "drop index concurrently ",
        "reindex ",
        "(concurrently)",
        " table ",
        " x ",
        "alter table ",
        " detach partition ",
        " concurrently ",
        "create subscription ",
        " with ",
        "connect = false",
        "commit",
        "rollback ",
        " UESCAPE '!'",
        "\\0041",
        "\\D83D",
        "vacuum ",
        "cluster ",
        "repack ",
        "alter subscription ",
    ];

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in any::<String>()) {
            check_any(&text);
        }

        #[test]
        fn any_nasty_text_is_read_without_a_panic(
            parts in prop::collection::vec(prop::sample::select(NASTY), 0..40),
        ) {
            check_any(&parts.concat());
        }

        #[test]
        fn any_bytes_of_sql_are_read_without_a_panic(
            text in "[-'\"$aEeUu&;/*()\\\\ \n.,0-9é]{0,60}",
        ) {
            check_any(&text);
        }
    }
}
