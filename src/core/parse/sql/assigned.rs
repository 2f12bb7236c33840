//! Which columns an `UPDATE` assigns.

use super::cursor::{Cursor, NotSql};
use super::token::TokenKind;
use crate::core::step::QualifiedName;

/// The columns that the `set` of a backfill assigns, as Postgres names them.
pub fn of_set(set: &str) -> Vec<String> {
    assigned(&mut Cursor::new(set))
}

/// The columns of `table` that every `UPDATE` in a statement assigns, however deep
/// it stands.
pub fn of_statement(statement: &str, table: &QualifiedName) -> Vec<String> {
    let mut cursor = Cursor::new(statement);
    let mut columns = Vec::new();
    while cursor.peek().is_some() {
        if !cursor.word("update") {
            cursor.take();
            continue;
        }
        let mut ahead = cursor.clone();
        if updates(&mut ahead, table) == Ok(true) {
            columns.extend(assigned(&mut ahead));
        }
    }
    columns
}

/// `[ONLY] table [[AS] alias] SET`; whether it is this table. One of them may lack
/// its schema.
fn updates(cursor: &mut Cursor<'_>, table: &QualifiedName) -> Result<bool, NotSql> {
    let mut only = cursor.clone();
    let name = match only.word("only").then(|| only.relation()) {
        Some(Ok(name)) => {
            *cursor = only;
            name
        }
        _ => cursor.relation()?,
    };
    if !cursor.word("set") {
        cursor.word("as");
        cursor.name()?;
        if !cursor.word("set") {
            return Err(NotSql);
        }
    }
    let same_schema =
        name.schema.is_none() || table.schema.is_none() || name.schema == table.schema;
    Ok(name.name == table.name && same_schema)
}

/// A list of assignments, to its end.
fn assigned(cursor: &mut Cursor<'_>) -> Vec<String> {
    let mut columns = Vec::new();
    loop {
        if cursor.symbol(b'(') {
            while let Ok(name) = cursor.name() {
                columns.push(name);
                if !cursor.symbol(b',') {
                    break;
                }
            }
            cursor.symbol(b')');
        } else if let Ok(name) = cursor.name() {
            columns.push(name);
        } else {
            return columns;
        }
        if !next_assignment(cursor) {
            return columns;
        }
    }
}

/// Past the value that is assigned; whether another assignment follows.
fn next_assignment(cursor: &mut Cursor<'_>) -> bool {
    let mut depth = 0_u32;
    let mut before = String::new();
    while let Some((kind, text)) = cursor.take() {
        match kind {
            TokenKind::Symbol(b'(' | b'[') => depth += 1,
            TokenKind::Symbol(b')' | b']') if depth == 0 => return false,
            TokenKind::Symbol(b')' | b']') => depth -= 1,
            TokenKind::Symbol(b',') if depth == 0 => return true,
            TokenKind::Word if depth == 0 => {
                let word = text.to_ascii_lowercase();
                let ends = match word.as_str() {
                    "where" | "returning" => true,
                    // `a IS DISTINCT FROM b` goes on.
                    "from" => before != "distinct",
                    _ => false,
                };
                if ends {
                    return false;
                }
                before = word;
                continue;
            }
            _ => {}
        }
        before.clear();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> String {
        of_set(text).join(" ")
    }

    fn statement(text: &str) -> String {
        of_statement(text, &QualifiedName { schema: None, name: "users".to_owned() }).join(" ")
    }

    #[test]
    fn each_assignment_names_its_columns() {
        assert_eq!(set("roles = ARRAY[role, 'a'], N = n + f(1, 2)"), "roles n");
        assert_eq!(set("(a, \"B\") = (1, 2), c = DEFAULT"), "a B c");
        assert_eq!(set("a[1] = 'x', b.c = 2, d = (SELECT x, y FROM t WHERE z)"), "a b d");
        assert_eq!(set("a = b IS DISTINCT FROM c, d = 1"), "a d");
        assert_eq!(set("a = 'id = 1, id = 2' /* , id = 3 */"), "a");
        assert_eq!(set(""), "");
    }

    #[test]
    fn a_statement_may_update_other_tables_too() {
        assert_eq!(statement("UPDATE users SET a = 1, id = 2 WHERE {batch}"), "a id");
        assert_eq!(statement("update only public.users as u set a = o.b from o where c = 1"), "a");
        assert_eq!(statement("UPDATE other SET id = 1 WHERE {batch}"), "");
        assert_eq!(
            statement(
                "WITH x AS (UPDATE users SET id = id + 1 WHERE {batch} RETURNING b) SELECT 1"
            ),
            "id"
        );
        assert_eq!(statement("DELETE FROM users WHERE {batch}"), "");
        assert_eq!(statement("SELECT 1 FROM users FOR UPDATE"), "");
    }
}
