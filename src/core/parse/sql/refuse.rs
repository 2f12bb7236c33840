//! Statements that cannot be in a migration, whatever Postgres thinks of them.

use super::cursor::Cursor;
use super::token::TokenKind;
use std::ops::Range;

/// For whoever wants to load rows.
pub(super) const USE_INSERT: &str =
    "use INSERT, or a fixture for test data, or a program with `[[run]]` in migration.toml";

const NO_CONTROL: &str = "remove it: the engine runs the script in one transaction together with its \
     record; `transaction = false` in migration.toml runs each statement alone";
const NO_SAVEPOINTS: &str = "remove it: a script happens as a whole or not at all; a `DO` block can \
     catch an error with EXCEPTION";
const NO_PREPARED: &str =
    "run it by hand: a prepared transaction belongs to whoever prepared it, not to a migration";

/// Why a statement cannot be in a migration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Refusal {
    /// The words it is about, in bytes of the statement.
    pub range: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do instead.
    pub hint: String,
    /// Rows follow the statement in the file, which are not SQL.
    pub rows_follow: bool,
}

impl Refusal {
    pub fn new(range: Range<usize>, message: &str, hint: &str) -> Refusal {
        Refusal { range, message: message.to_owned(), hint: hint.to_owned(), rows_follow: false }
    }
}

/// Refuses what would take the transaction out of the engine's hands, and what
/// needs psql at the other end.
pub(super) fn refuse(statement: &str) -> Result<(), Refusal> {
    let mut cursor = Cursor::new(statement);
    let Some(first) = cursor.keyword() else { return Ok(()) };
    let (words, hint) = match first.as_str() {
        "begin" => ("BEGIN", NO_CONTROL),
        "end" => ("END", NO_CONTROL),
        "abort" => ("ABORT", NO_CONTROL),
        "start" if cursor.word("transaction") => ("START TRANSACTION", NO_CONTROL),
        // Without the string it is a statement that is prepared under this name.
        "prepare" if cursor.word("transaction") && cursor.peek() == Some(TokenKind::Text) => {
            ("PREPARE TRANSACTION", NO_CONTROL)
        }
        "commit" if cursor.word("prepared") => ("COMMIT PREPARED", NO_PREPARED),
        "commit" => ("COMMIT", NO_CONTROL),
        "rollback" if cursor.word("prepared") => ("ROLLBACK PREPARED", NO_PREPARED),
        "rollback" => {
            let mut ahead = cursor.clone();
            let _ = ahead.word("work") || ahead.word("transaction");
            if ahead.word("to") {
                cursor = ahead;
                ("ROLLBACK TO", NO_SAVEPOINTS)
            } else {
                ("ROLLBACK", NO_CONTROL)
            }
        }
        "savepoint" => ("SAVEPOINT", NO_SAVEPOINTS),
        "release" => ("RELEASE", NO_SAVEPOINTS),
        "copy" => return refuse_copy(cursor),
        _ => return Ok(()),
    };
    Err(Refusal::new(0..cursor.end(), &format!("`{words}` is transaction control"), hint))
}

/// `COPY` between a table and a file or program of the server is fine.
fn refuse_copy(mut cursor: Cursor) -> Result<(), Refusal> {
    let mut depth = 0_u32;
    while let Some(kind) = cursor.peek() {
        let start = cursor.place().start;
        let (from, to) = match kind {
            TokenKind::Word if depth == 0 => (cursor.word("from"), cursor.word("to")),
            _ => (false, false),
        };
        if from || to {
            // Postgres takes either word for either direction.
            if !cursor.word("stdin") && !cursor.word("stdout") {
                return Ok(());
            }
            let range = start..cursor.end();
            return Err(if from {
                let message = "`COPY … FROM STDIN` needs a client that sends rows";
                Refusal { rows_follow: true, ..Refusal::new(range, message, USE_INSERT) }
            } else {
                let message = "`COPY … TO STDOUT` needs a client that takes rows";
                let hint = "remove it, or run a program with `[[run]]` in migration.toml";
                Refusal::new(range, message, hint)
            });
        }
        match kind {
            TokenKind::Symbol(b'(') => depth += 1,
            TokenKind::Symbol(b')') => depth = depth.saturating_sub(1),
            _ => {}
        }
        cursor.take();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::core::parse::sql::read;
    use expect_test::{Expect, expect};

    /// Every problem of a script on a line.
    #[expect(clippy::needless_pass_by_value, reason = "`expect![…]` reads better without `&`")]
    fn check(text: &str, expected: Expect) {
        let problems = read(text).expect_err("something in it is refused");
        let lines: Vec<String> = problems.iter().map(|problem| format!("{problem}\n")).collect();
        expected.assert_eq(&lines.concat());
    }

    fn is_fine(text: &str) {
        assert_eq!(read(text).map(|statements| statements.len()), Ok(1), "{text}");
    }

    #[test]
    fn a_script_does_not_begin_or_end_transactions() {
        check(
            "BEGIN;\nselect 1;\n  commit work;",
            expect![[r"
            :1:1: `BEGIN` is transaction control; remove it: the engine runs the script in one transaction together with its record; `transaction = false` in migration.toml runs each statement alone
            :3:3: `COMMIT` is transaction control; remove it: the engine runs the script in one transaction together with its record; `transaction = false` in migration.toml runs each statement alone
        "]],
        );
        check(
            "begin isolation level serializable; END; abort;",
            expect![[r"
            :1:1: `BEGIN` is transaction control; remove it: the engine runs the script in one transaction together with its record; `transaction = false` in migration.toml runs each statement alone
            :1:37: `END` is transaction control; remove it: the engine runs the script in one transaction together with its record; `transaction = false` in migration.toml runs each statement alone
            :1:42: `ABORT` is transaction control; remove it: the engine runs the script in one transaction together with its record; `transaction = false` in migration.toml runs each statement alone
        "]],
        );
        check(
            "start /* now */ transaction read only; rollback and chain",
            expect![[r"
            :1:1: `START TRANSACTION` is transaction control; remove it: the engine runs the script in one transaction together with its record; `transaction = false` in migration.toml runs each statement alone
            :1:40: `ROLLBACK` is transaction control; remove it: the engine runs the script in one transaction together with its record; `transaction = false` in migration.toml runs each statement alone
        "]],
        );
        check(
            "prepare transaction 'x'",
            expect![[r"
            :1:1: `PREPARE TRANSACTION` is transaction control; remove it: the engine runs the script in one transaction together with its record; `transaction = false` in migration.toml runs each statement alone
        "]],
        );
    }

    #[test]
    fn a_script_has_no_savepoints() {
        check(
            "savepoint a; release savepoint a; release a; rollback to a;",
            expect![[r"
            :1:1: `SAVEPOINT` is transaction control; remove it: a script happens as a whole or not at all; a `DO` block can catch an error with EXCEPTION
            :1:14: `RELEASE` is transaction control; remove it: a script happens as a whole or not at all; a `DO` block can catch an error with EXCEPTION
            :1:35: `RELEASE` is transaction control; remove it: a script happens as a whole or not at all; a `DO` block can catch an error with EXCEPTION
            :1:46: `ROLLBACK TO` is transaction control; remove it: a script happens as a whole or not at all; a `DO` block can catch an error with EXCEPTION
        "]],
        );
        check(
            "rollback work to savepoint a",
            expect![[r"
            :1:1: `ROLLBACK TO` is transaction control; remove it: a script happens as a whole or not at all; a `DO` block can catch an error with EXCEPTION
        "]],
        );
    }

    #[test]
    fn a_prepared_transaction_is_settled_by_hand() {
        check(
            "commit prepared 'x'; ROLLBACK PREPARED 'x';",
            expect![[r"
            :1:1: `COMMIT PREPARED` is transaction control; run it by hand: a prepared transaction belongs to whoever prepared it, not to a migration
            :1:22: `ROLLBACK PREPARED` is transaction control; run it by hand: a prepared transaction belongs to whoever prepared it, not to a migration
        "]],
        );
    }

    #[test]
    fn rows_do_not_come_from_or_go_to_a_client() {
        check(
            "copy users (id, \"from\") from stdin",
            expect![[r"
            :1:25: `COPY … FROM STDIN` needs a client that sends rows; use INSERT, or a fixture for test data, or a program with `[[run]]` in migration.toml
        "]],
        );
        check(
            "select 1; COPY public.users FROM STDIN WITH (format csv);\n1,it's\n\\.\ncommit;",
            expect![[r"
                :1:29: `COPY … FROM STDIN` needs a client that sends rows; use INSERT, or a fixture for test data, or a program with `[[run]]` in migration.toml
                :4:1: `COMMIT` is transaction control; remove it: the engine runs the script in one transaction together with its record; `transaction = false` in migration.toml runs each statement alone
            "]],
        );
        check(
            "copy users from stdin;\n1\tit's",
            expect![[r"
            :1:12: `COPY … FROM STDIN` needs a client that sends rows; use INSERT, or a fixture for test data, or a program with `[[run]]` in migration.toml
        "]],
        );
        check(
            "copy (select 1 from t) to stdout",
            expect![[r"
            :1:24: `COPY … TO STDOUT` needs a client that takes rows; remove it, or run a program with `[[run]]` in migration.toml
        "]],
        );
        check(
            "copy users from stdout",
            expect![[r"
            :1:12: `COPY … FROM STDIN` needs a client that sends rows; use INSERT, or a fixture for test data, or a program with `[[run]]` in migration.toml
        "]],
        );
    }

    #[test]
    fn what_only_looks_like_it_is_fine() {
        for text in [
            "set transaction isolation level serializable",
            "set local lock_timeout = '1s'",
            "lock table users in share mode",
            "do $$ begin commit; end $$",
            "prepare transaction as select 1",
            "prepare commit as select 1",
            "copy users from '/data/users.csv' with (format csv)",
            "copy users from program 'cat stdin'",
            "copy (select 1 from stdin) to '/data/x'",
            "copy users to program 'gzip'",
            "\"begin\"",
            "select 1 as commit",
            "create function f() returns void begin atomic end",
        ] {
            is_fine(text);
        }
    }
}
