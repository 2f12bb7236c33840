//! What a statement does, in outline: which things it makes, changes and takes
//! away, read off its tokens. What is not understood is `Act::Other`.

use super::cursor::{Cursor, NotSql};
use super::token::{Lexer, Token, TokenKind};
use crate::core::step::QualifiedName;
use std::ops::Range;

/// What a statement does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Act {
    /// `CREATE TABLE`, `CREATE MATERIALIZED VIEW`.
    CreateTable {
        /// The table.
        table: QualifiedName,
        /// It ends with the session.
        temporary: bool,
    },
    /// `CREATE INDEX`.
    CreateIndex {
        /// Its name, if it was given one.
        index: Option<String>,
        /// Of this table.
        table: QualifiedName,
    },
    /// `CREATE TRIGGER`.
    CreateTrigger {
        /// Its name.
        trigger: String,
        /// On this table.
        table: QualifiedName,
    },
    /// Another `CREATE`: `FUNCTION`, `VIEW`, `TYPE`, …
    Create {
        /// In lower case: `function`.
        what: String,
        /// Its name.
        name: QualifiedName,
    },
    /// `ALTER TABLE`.
    AlterTable {
        /// The table.
        table: QualifiedName,
        /// What happens to it, in order.
        changes: Vec<Change>,
    },
    /// `ALTER TYPE … ADD VALUE`.
    AddValue {
        /// The type.
        of: QualifiedName,
        /// The value.
        value: String,
    },
    /// `DROP`.
    Drop {
        /// In lower case: `table`, `index`, `materialized view`.
        what: String,
        /// What goes.
        names: Vec<QualifiedName>,
    },
    /// `TRUNCATE`.
    Truncate {
        /// The tables that it names.
        tables: Vec<QualifiedName>,
    },
    /// `LOCK TABLE`.
    Lock {
        /// The tables.
        tables: Vec<QualifiedName>,
        /// In upper case: `ACCESS EXCLUSIVE`.
        mode: String,
    },
    /// `VACUUM FULL`, `CLUSTER`, `REPACK`: a table is written anew.
    Rewrite {
        /// The word that says so.
        word: &'static str,
        /// Which table; `None`: all of them.
        table: Option<QualifiedName>,
    },
    /// `REFRESH MATERIALIZED VIEW`.
    Refresh {
        /// The view.
        view: QualifiedName,
        /// Readers go on.
        concurrently: bool,
    },
    /// Anything else.
    Other,
}

/// What `ALTER TABLE` does to its table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// `ADD COLUMN`.
    AddColumn(String),
    /// `DROP COLUMN`.
    DropColumn(String),
    /// `ADD CONSTRAINT`; without a name it is `None`.
    AddConstraint {
        /// Its name.
        name: Option<String>,
        /// Old rows are not looked at.
        not_valid: bool,
    },
    /// `VALIDATE CONSTRAINT`.
    Validate(String),
    /// `SET LOGGED`, `SET TABLESPACE`, `SET ACCESS METHOD`: every row is copied.
    Rewrite(&'static str),
    /// `RENAME`.
    Rename,
    /// `ALTER COLUMN … SET NOT NULL`.
    SetNotNull,
    /// `ALTER COLUMN … TYPE`.
    SetType,
    /// Anything else.
    Other,
}

/// A change of rows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RowChange {
    /// `UPDATE` or `DELETE`.
    pub word: &'static str,
    /// Of this table.
    pub table: QualifiedName,
    /// Only some rows.
    pub condition: bool,
}

/// What one statement does.
pub fn act(statement: &str) -> Act {
    read(Cursor::new(statement)).unwrap_or(Act::Other)
}

fn read(mut cursor: Cursor) -> Result<Act, NotSql> {
    match cursor.keyword().unwrap_or_default().as_str() {
        "create" => create(cursor),
        "alter" => alter(cursor),
        "drop" => drop_of(cursor),
        "truncate" => {
            cursor.word("table");
            Ok(Act::Truncate { tables: relations(&mut cursor)? })
        }
        "lock" => {
            cursor.word("table");
            let tables = relations(&mut cursor)?;
            let mut mode = Vec::new();
            if cursor.word("in") {
                while let Some(word) = cursor.keyword().filter(|word| word != "mode") {
                    mode.push(word.to_ascii_uppercase());
                }
            }
            let mode = if mode.is_empty() { "ACCESS EXCLUSIVE".to_owned() } else { mode.join(" ") };
            Ok(Act::Lock { tables, mode })
        }
        "vacuum" => {
            let option = cursor.options()?.get("full").unwrap_or(false);
            let full = cursor.word("full") || option;
            while ["freeze", "verbose", "analyze"].iter().any(|word| cursor.word(word)) {}
            let table = cursor.relation().ok();
            Ok(if full { Act::Rewrite { word: "VACUUM FULL", table } } else { Act::Other })
        }
        "cluster" => {
            cursor.options()?;
            cursor.word("verbose");
            Ok(Act::Rewrite { word: "CLUSTER", table: cursor.relation().ok() })
        }
        "repack" => {
            let concurrently = cursor.options()?.get("concurrently").unwrap_or(false);
            let table = cursor.relation().ok();
            Ok(if concurrently { Act::Other } else { Act::Rewrite { word: "REPACK", table } })
        }
        "refresh" if cursor.words(&["materialized", "view"]) => {
            let concurrently = cursor.word("concurrently");
            Ok(Act::Refresh { view: cursor.qualified_name()?, concurrently })
        }
        _ => Ok(Act::Other),
    }
}

fn create(mut cursor: Cursor) -> Result<Act, NotSql> {
    cursor.words(&["or", "replace"]);
    let of_session = ["temporary", "temp"];
    let kinds = ["global", "local", "unlogged", "constraint", "event", "recursive"];
    let mut temporary = false;
    loop {
        if of_session.iter().any(|word| cursor.word(word)) {
            temporary = true;
        } else if !kinds.iter().any(|word| cursor.word(word)) {
            break;
        }
    }
    if cursor.words(&["materialized", "view"]) || cursor.word("table") {
        cursor.words(&["if", "not", "exists"]);
        let table = cursor.qualified_name()?;
        return Ok(Act::CreateTable { table, temporary });
    }
    let unique = cursor.word("unique");
    if cursor.word("index") {
        cursor.word("concurrently");
        cursor.words(&["if", "not", "exists"]);
        let index = if cursor.word("on") {
            None
        } else {
            let index = cursor.name()?;
            if !cursor.word("on") {
                return Err(NotSql);
            }
            Some(index)
        };
        return Ok(Act::CreateIndex { index, table: cursor.relation()? });
    }
    if cursor.word("trigger") {
        let trigger = cursor.name()?;
        while cursor.peek().is_some() && !cursor.word("on") {
            cursor.take();
        }
        return Ok(Act::CreateTrigger { trigger, table: cursor.qualified_name()? });
    }
    let named = [
        "function",
        "procedure",
        "aggregate",
        "view",
        "type",
        "domain",
        "sequence",
        "schema",
        "extension",
    ];
    let what = cursor.keyword().unwrap_or_default();
    if temporary || unique || !named.contains(&what.as_str()) {
        return Ok(Act::Other);
    }
    cursor.words(&["if", "not", "exists"]);
    Ok(Act::Create { what, name: cursor.qualified_name()? })
}

fn alter(mut cursor: Cursor) -> Result<Act, NotSql> {
    if cursor.word("type") {
        let of = cursor.qualified_name()?;
        if !cursor.words(&["add", "value"]) {
            return Ok(Act::Other);
        }
        cursor.words(&["if", "not", "exists"]);
        return match cursor.take() {
            Some((TokenKind::Text, text)) => {
                Ok(Act::AddValue { of, value: text.trim_matches('\'').replace("''", "'") })
            }
            _ => Err(NotSql),
        };
    }
    cursor.word("foreign");
    if !cursor.word("table") {
        return Ok(Act::Other);
    }
    cursor.words(&["if", "exists"]);
    let table = cursor.relation()?;
    let mut changes = Vec::new();
    while cursor.peek().is_some() {
        let words = part(&mut cursor);
        changes.push(change(&words));
    }
    Ok(Act::AlterTable { table, changes })
}

/// The tokens up to the next comma that is in no parentheses.
fn part<'a>(cursor: &mut Cursor<'a>) -> Vec<(TokenKind, &'a str)> {
    let mut depth = 0_u32;
    let mut taken = Vec::new();
    while let Some((kind, text)) = cursor.take() {
        match kind {
            TokenKind::Symbol(b'(' | b'[') => depth += 1,
            TokenKind::Symbol(b')' | b']') => depth = depth.saturating_sub(1),
            TokenKind::Symbol(b',') if depth == 0 => break,
            _ => {}
        }
        taken.push((kind, text));
    }
    taken
}

fn change(tokens: &[(TokenKind, &str)]) -> Change {
    let is = |at: usize, word: &str| {
        tokens
            .get(at)
            .is_some_and(|(kind, text)| *kind == TokenKind::Word && text.eq_ignore_ascii_case(word))
    };
    let starts = |at: usize, words: &[&str]| {
        words.iter().enumerate().all(|(offset, word)| is(at + offset, word))
    };
    let any = |words: &[&str]| (0..tokens.len()).any(|at| starts(at, words));
    let name = |at: usize| tokens.get(at).and_then(|(_, text)| Cursor::new(text).name().ok());
    let of_constraint = ["constraint", "primary", "unique", "foreign", "check", "exclude", "not"];
    if is(0, "add") && of_constraint.iter().any(|word| is(1, word)) {
        let name = if is(1, "constraint") { name(2) } else { None };
        return Change::AddConstraint { name, not_valid: any(&["not", "valid"]) };
    }
    let column = |at: usize, guard: &[&str]| {
        let at = if is(at, "column") { at + 1 } else { at };
        let at = if starts(at, guard) { at + guard.len() } else { at };
        name(at)
    };
    if is(0, "add") {
        return column(1, &["if", "not", "exists"]).map_or(Change::Other, Change::AddColumn);
    }
    if starts(0, &["drop", "constraint"]) {
        return Change::Other;
    }
    if is(0, "drop") {
        return column(1, &["if", "exists"]).map_or(Change::Other, Change::DropColumn);
    }
    if starts(0, &["validate", "constraint"]) {
        return name(2).map_or(Change::Other, Change::Validate);
    }
    if is(0, "rename") {
        return Change::Rename;
    }
    let rewrites = [
        (&["set", "logged"][..], "SET LOGGED"),
        (&["set", "unlogged"], "SET UNLOGGED"),
        (&["set", "tablespace"], "SET TABLESPACE"),
        (&["set", "access", "method"], "SET ACCESS METHOD"),
    ];
    if let Some((_, words)) = rewrites.iter().find(|(words, _)| starts(0, words)) {
        return Change::Rewrite(words);
    }
    if is(0, "alter") && any(&["set", "not", "null"]) {
        return Change::SetNotNull;
    }
    let after = if is(1, "column") { 3 } else { 2 };
    if is(0, "alter") && (is(after, "type") || starts(after, &["set", "data", "type"])) {
        return Change::SetType;
    }
    Change::Other
}

fn drop_of(mut cursor: Cursor) -> Result<Act, NotSql> {
    cursor.word("foreign");
    let mut what = cursor.keyword().ok_or(NotSql)?;
    if what == "materialized" && cursor.word("view") {
        "materialized view".clone_into(&mut what);
    }
    cursor.word("concurrently");
    cursor.words(&["if", "exists"]);
    let mut names = vec![cursor.qualified_name()?];
    while cursor.symbol(b',') {
        names.push(cursor.qualified_name()?);
    }
    Ok(Act::Drop { what, names })
}

fn relations(cursor: &mut Cursor) -> Result<Vec<QualifiedName>, NotSql> {
    let mut found = vec![cursor.relation()?];
    while cursor.symbol(b',') {
        found.push(cursor.relation()?);
    }
    Ok(found)
}

/// The `UPDATE`s and `DELETE`s of a statement: itself, and those in its `WITH`.
pub fn row_changes(statement: &str) -> Vec<RowChange> {
    let tokens: Vec<Token> = Lexer::new(statement).map_while(Result::ok).collect();
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let word = |at: usize, word: &str| {
            tokens.get(at).is_some_and(|token| {
                token.kind == TokenKind::Word
                    && statement[token.range.clone()].eq_ignore_ascii_case(word)
            })
        };
        let is_first = at == 0 || matches!(tokens[at - 1].kind, TokenKind::Symbol(b'(' | b')'));
        if token.kind != TokenKind::Word || !is_first {
            continue;
        }
        let (name, table) = match () {
            () if word(at, "update") => ("UPDATE", at + 1),
            () if word(at, "delete") && word(at + 1, "from") => ("DELETE", at + 2),
            () => continue,
        };
        let Some(first) = tokens.get(table) else { continue };
        let Ok(table) = Cursor::new(&statement[first.range.start..]).relation() else { continue };
        let mut depth = 0_i32;
        let mut condition = false;
        for (at, token) in tokens.iter().enumerate().skip(at) {
            match token.kind {
                TokenKind::Symbol(b'(') => depth += 1,
                TokenKind::Symbol(b')') => depth -= 1,
                _ if depth == 0 && word(at, "where") => condition = true,
                _ => {}
            }
            if depth < 0 || condition {
                break;
            }
        }
        found.push(RowChange { word: name, table, condition });
    }
    found
}

/// A statement inside of a `DO` block.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Inner {
    /// Its place in the text of the block's statement.
    Statement(Range<usize>),
    /// `EXECUTE` of a text that is put together when it runs: its place.
    Dynamic(Range<usize>),
}

/// The statements that a `DO` block runs, as far as its text tells; `None` if the
/// statement is none.
pub fn inside_do(statement: &str) -> Option<Vec<Inner>> {
    let mut cursor = Cursor::new(statement);
    if !cursor.word("do") {
        return None;
    }
    if cursor.word("language") {
        cursor.take();
    }
    let place = cursor.place();
    let (TokenKind::Text, text) = cursor.take()? else { return None };
    let opening = match text.strip_prefix('$') {
        Some(rest) => rest.find('$')? + 2,
        None => 1,
    };
    let closing = if text.starts_with('$') { opening } else { 1 };
    let body = text.get(opening..text.len() - closing)?;
    let base = place.start + opening;
    Some(body_statements(body, base))
}

fn body_statements(body: &str, base: usize) -> Vec<Inner> {
    const VERBS: [&str; 18] = [
        "create", "alter", "drop", "truncate", "lock", "vacuum", "cluster", "reindex", "refresh",
        "update", "delete", "insert", "with", "merge", "comment", "grant", "revoke", "analyze",
    ];
    const OPENERS: [&str; 4] = ["begin", "then", "else", "loop"];
    let tokens: Vec<Token> = Lexer::new(body).map_while(Result::ok).collect();
    let mut found = Vec::new();
    let mut fresh = true;
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let text = body[token.range.clone()].to_ascii_lowercase();
        let is_word = token.kind == TokenKind::Word;
        let end = tokens[at..]
            .iter()
            .position(|token| token.kind == TokenKind::Symbol(b';'))
            .map_or(tokens.len(), |offset| at + offset);
        if fresh && is_word && text == "execute" {
            let argument = &tokens[(at + 1).min(end)..end];
            let literal = argument.first().filter(|token| token.kind == TokenKind::Text);
            let using = |token: &Token| body[token.range.clone()].eq_ignore_ascii_case("using");
            match literal.filter(|_| argument.get(1).is_none_or(using)) {
                Some(text) if inside(&body[text.range.clone()]).is_some() => {
                    let inner = inside(&body[text.range.clone()]).unwrap_or_default();
                    let start = base + text.range.start;
                    found.push(Inner::Statement(start + inner.start..start + inner.end));
                }
                _ => {
                    let last = argument.last().map_or(token.range.end, |last| last.range.end);
                    found.push(Inner::Dynamic(base + token.range.start..base + last));
                }
            }
            at = end;
        } else if fresh && is_word && VERBS.contains(&text.as_str()) {
            let last = &tokens[end.saturating_sub(1).max(at)];
            found.push(Inner::Statement(base + token.range.start..base + last.range.end));
            at = end;
        } else {
            fresh = token.kind == TokenKind::Symbol(b';')
                || is_word && OPENERS.contains(&text.as_str());
            at += 1;
        }
    }
    found
}

/// What is inside the quotes, if it stands there as it is meant.
fn inside(quoted: &str) -> Option<Range<usize>> {
    if let Some(rest) = quoted.strip_prefix('$') {
        let tag = rest.find('$')? + 2;
        return Some(tag..quoted.len() - tag);
    }
    let inner = quoted.strip_prefix('\'')?.strip_suffix('\'')?;
    (!inner.contains('\'')).then(|| 1..quoted.len() - 1)
}

/// Whether these words stand in the statement as constants: `'new'`.
pub fn has_constant(statement: &str, value: &str) -> bool {
    let quoted = format!("'{}'", value.replace('\'', "''"));
    Lexer::new(statement)
        .map_while(Result::ok)
        .any(|token| token.kind == TokenKind::Text && statement[token.range] == quoted)
}

/// Whether a statement names something: as a word, or in quotes.
pub fn names(statement: &str, name: &str) -> bool {
    Lexer::new(statement).map_while(Result::ok).any(|token| {
        let text = &statement[token.range.clone()];
        match token.kind {
            TokenKind::Word | TokenKind::Quoted | TokenKind::UnicodeQuoted => {
                Cursor::new(text).name().is_ok_and(|its| its == name)
            }
            // The body of a block or of a function.
            TokenKind::Text if text.starts_with('$') => {
                inside(text).is_some_and(|inner| names(&text[inner], name))
            }
            _ => false,
        }
    })
}

/// A statement that reads or writes many rows, or builds something from them, and
/// keeps all locks of its transaction while it does.
pub fn works_long(statement: &str) -> bool {
    let mut cursor = Cursor::new(statement);
    match cursor.keyword().unwrap_or_default().as_str() {
        "update" | "delete" | "merge" | "with" | "refresh" | "reindex" => true,
        "insert" => {
            let mut words = std::iter::from_fn(|| cursor.take());
            words.any(|(kind, text)| kind == TokenKind::Word && text.eq_ignore_ascii_case("select"))
        }
        "alter" => match act(statement) {
            Act::AlterTable { changes, .. } => {
                changes.iter().any(|change| matches!(change, Change::Validate(_)))
            }
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[expect(clippy::needless_pass_by_value, reason = "`expect![…]` reads better without `&`")]
    fn check(statements: &str, expected: Expect) {
        let lines = statements.lines().map(|line| format!("{:?}\n", act(line.trim())));
        let text = lines.collect::<String>().replace("schema: None, ", "");
        expected.assert_eq(&text);
    }

    #[test]
    fn what_is_made_is_named() {
        check(
            "create unlogged table if not exists a.b (id int)
             create materialized view m as select 1
             create unique index concurrently if not exists i on only a (x)
             create index on a (x)
             create or replace trigger t before update of a, b on \"C\" for each row execute function f()
             create or replace function a.f() returns int
             create temp view v as select 1
             create policy p on a",
            expect![[r#"
                CreateTable { table: QualifiedName { schema: Some("a"), name: "b" }, temporary: false }
                CreateTable { table: QualifiedName { name: "m" }, temporary: false }
                CreateIndex { index: Some("i"), table: QualifiedName { name: "a" } }
                CreateIndex { index: None, table: QualifiedName { name: "a" } }
                CreateTrigger { trigger: "t", table: QualifiedName { name: "C" } }
                Create { what: "function", name: QualifiedName { schema: Some("a"), name: "f" } }
                Other
                Other
            "#]],
        );
    }

    #[test]
    fn changes_of_a_table_are_told_apart() {
        check(
            "alter table only a add b int default f(1, 2), add column if not exists c text, drop d, drop column if exists e, drop constraint f
             alter table a add constraint c check (x > 0) not valid, add unique (b), validate constraint c
             alter table if exists a rename to b
             alter table a alter column b set not null, alter c type bigint, alter d set data type text, alter e drop default
             alter table a set logged, set tablespace fast, set (fillfactor = 70), owner to me
             alter type mood add value if not exists 'it''s' after 'ok'",
            expect![[r#"
                AlterTable { table: QualifiedName { name: "a" }, changes: [AddColumn("b"), AddColumn("c"), DropColumn("d"), DropColumn("e"), Other] }
                AlterTable { table: QualifiedName { name: "a" }, changes: [AddConstraint { name: Some("c"), not_valid: true }, AddConstraint { name: None, not_valid: false }, Validate("c")] }
                AlterTable { table: QualifiedName { name: "a" }, changes: [Rename] }
                AlterTable { table: QualifiedName { name: "a" }, changes: [SetNotNull, SetType, SetType, Other] }
                AlterTable { table: QualifiedName { name: "a" }, changes: [Rewrite("SET LOGGED"), Rewrite("SET TABLESPACE"), Other, Other] }
                AddValue { of: QualifiedName { name: "mood" }, value: "it's" }
            "#]],
        );
    }

    #[test]
    fn what_locks_rewrites_and_takes_away_is_told() {
        check(
            "drop materialized view if exists a, b.c cascade
             drop index concurrently i
             truncate a, only b restart identity cascade
             lock a in share row exclusive mode nowait
             lock table a
             vacuum (full, verbose) a
             vacuum full
             vacuum (full off) a
             vacuum verbose analyze a
             cluster verbose a using i
             repack (concurrently) a
             refresh materialized view concurrently a.b
             select 1",
            expect![[r#"
                Drop { what: "materialized view", names: [QualifiedName { name: "a" }, QualifiedName { schema: Some("b"), name: "c" }] }
                Drop { what: "index", names: [QualifiedName { name: "i" }] }
                Truncate { tables: [QualifiedName { name: "a" }, QualifiedName { name: "b" }] }
                Lock { tables: [QualifiedName { name: "a" }], mode: "SHARE ROW EXCLUSIVE" }
                Lock { tables: [QualifiedName { name: "a" }], mode: "ACCESS EXCLUSIVE" }
                Rewrite { word: "VACUUM FULL", table: Some(QualifiedName { name: "a" }) }
                Rewrite { word: "VACUUM FULL", table: None }
                Other
                Other
                Rewrite { word: "CLUSTER", table: Some(QualifiedName { name: "a" }) }
                Other
                Refresh { view: QualifiedName { schema: Some("a"), name: "b" }, concurrently: true }
                Other
            "#]],
        );
    }

    #[test]
    fn a_change_of_rows_is_found_where_it_stands() {
        let check = |statement: &str, expected: &str| {
            let found = row_changes(statement).into_iter().map(|change| {
                let all = if change.condition { "" } else { " all" };
                format!("{}{all} {}", change.word, change.table)
            });
            assert_eq!(found.collect::<Vec<_>>().join(", "), expected, "{statement}");
        };
        check("UPDATE a SET b = 1", "UPDATE all a");
        check("UPDATE ONLY a.b SET c = (SELECT 1 WHERE true)", "UPDATE all a.b");
        check("UPDATE a SET b = 1 WHERE c", "UPDATE a");
        check("DELETE FROM a USING b WHERE a.id = b.id", "DELETE a");
        check(
            "WITH x AS (DELETE FROM a RETURNING *) UPDATE b SET c = 1 FROM x WHERE b.id = x.id",
            "DELETE all a, UPDATE b",
        );
        check("SELECT * FROM a FOR UPDATE", "");
        check("INSERT INTO a VALUES (1) ON CONFLICT (id) DO UPDATE SET b = 1", "");
        check("CREATE TABLE a (b int REFERENCES c (d) ON DELETE CASCADE ON UPDATE CASCADE)", "");
    }

    #[test]
    fn a_block_tells_the_statements_in_it() {
        let check = |statement: &str, expected: &[&str]| {
            let inner = inside_do(statement).expect("it is a block");
            let texts = inner.into_iter().map(|inner| match inner {
                Inner::Statement(range) => statement[range].to_owned(),
                Inner::Dynamic(range) => format!("? {}", &statement[range]),
            });
            assert_eq!(texts.collect::<Vec<_>>(), expected, "{statement}");
        };
        check(
            "DO $$ DECLARE n int; BEGIN IF NOT EXISTS (SELECT 1) THEN CREATE INDEX i ON a (b); \
             ELSE UPDATE a SET b = CASE WHEN c THEN 1 ELSE 2 END; END IF; n := 1; END $$",
            &["CREATE INDEX i ON a (b)", "UPDATE a SET b = CASE WHEN c THEN 1 ELSE 2 END"],
        );
        check(
            "DO LANGUAGE plpgsql $x$BEGIN EXECUTE 'DROP TABLE a'; EXECUTE format('DROP %I', n); END$x$",
            &["DROP TABLE a", "? EXECUTE format('DROP %I', n)"],
        );
        check("DO 'BEGIN LOCK TABLE a; END'", &["LOCK TABLE a"]);
        assert_eq!(inside_do("DROP TABLE a"), None);
    }
}
