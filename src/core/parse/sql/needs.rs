//! What a role must be allowed to do for a statement to run, as far as its text
//! tells. Functions, `DO` blocks and subqueries hide things; whoever asks does so
//! to warn early, not to decide.

use super::cursor::{Cursor, NotSql};
use crate::core::step::QualifiedName;

/// Something that a role must be allowed to do.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum SqlNeed {
    /// `CREATE` on a schema; `None` is the first of the search path.
    CreateIn(Option<String>),
    /// `CREATE` on the database: for schemas, trusted extensions, publications.
    CreateInDatabase,
    /// To own a table, view, sequence or index.
    Own(QualifiedName),
    /// To own a table, because an index is built on it: its size matters too.
    Index(QualifiedName),
    /// A privilege on a table: `INSERT`, `UPDATE`, `DELETE`, `TRUNCATE`, `TRIGGER`.
    Table(QualifiedName, &'static str),
}

/// What a statement needs. Nothing, when its text does not tell.
pub fn needs(statement: &str) -> Vec<SqlNeed> {
    read(Cursor::new(statement)).unwrap_or_default()
}

fn read(mut cursor: Cursor) -> Result<Vec<SqlNeed>, NotSql> {
    Ok(match cursor.keyword().unwrap_or_default().as_str() {
        "create" => create(cursor)?,
        "alter" => alter(cursor)?,
        "drop" => drop(cursor)?,
        "comment" if cursor.word("on") => match relation_kind(&mut cursor) {
            Some(()) => vec![SqlNeed::Own(cursor.qualified_name()?)],
            None => Vec::new(),
        },
        "insert" if cursor.word("into") => vec![table(&mut cursor, "INSERT")?],
        "update" => vec![table(&mut cursor, "UPDATE")?],
        "delete" if cursor.word("from") => vec![table(&mut cursor, "DELETE")?],
        "truncate" => {
            cursor.word("table");
            vec![table(&mut cursor, "TRUNCATE")?]
        }
        "reindex" => {
            cursor.options()?;
            let of_one = cursor.word("table") || cursor.word("index");
            cursor.word("concurrently");
            if of_one { vec![SqlNeed::Own(cursor.qualified_name()?)] } else { Vec::new() }
        }
        _ => Vec::new(),
    })
}

fn table(cursor: &mut Cursor, privilege: &'static str) -> Result<SqlNeed, NotSql> {
    Ok(SqlNeed::Table(cursor.relation()?, privilege))
}

fn create(mut cursor: Cursor) -> Result<Vec<SqlNeed>, NotSql> {
    cursor.words(&["or", "replace"]);
    if cursor.word("schema") || cursor.word("extension") || cursor.word("publication") {
        return Ok(vec![SqlNeed::CreateInDatabase]);
    }
    for word in ["global", "local"] {
        cursor.word(word);
    }
    if cursor.word("temporary") || cursor.word("temp") {
        return Ok(Vec::new());
    }
    for word in ["unlogged", "unique", "constraint", "recursive", "materialized"] {
        cursor.word(word);
    }
    match cursor.keyword().unwrap_or_default().as_str() {
        "index" => {
            cursor.word("concurrently");
            cursor.words(&["if", "not", "exists"]);
            if !cursor.word("on") {
                cursor.name()?;
                if !cursor.word("on") {
                    return Err(NotSql);
                }
            }
            Ok(vec![SqlNeed::Index(cursor.relation()?)])
        }
        "trigger" => {
            // Up to the table stand events, `UPDATE OF a, b` among them.
            while cursor.peek().is_some() && !cursor.word("on") {
                cursor.take();
            }
            Ok(vec![table(&mut cursor, "TRIGGER")?])
        }
        word @ ("policy" | "rule") => {
            // `CREATE RULE r AS ON INSERT TO t`
            let before = if word == "rule" { "to" } else { "on" };
            while cursor.peek().is_some() && !cursor.word(before) {
                cursor.take();
            }
            Ok(vec![SqlNeed::Own(cursor.relation()?)])
        }
        "table" | "view" | "sequence" | "type" | "domain" | "function" | "procedure"
        | "aggregate" => {
            cursor.words(&["if", "not", "exists"]);
            Ok(vec![SqlNeed::CreateIn(cursor.qualified_name()?.schema)])
        }
        _ => Ok(Vec::new()),
    }
}

fn alter(mut cursor: Cursor) -> Result<Vec<SqlNeed>, NotSql> {
    if relation_kind(&mut cursor).is_none() {
        return Ok(Vec::new());
    }
    cursor.words(&["if", "exists"]);
    Ok(vec![SqlNeed::Own(cursor.relation()?)])
}

fn drop(mut cursor: Cursor) -> Result<Vec<SqlNeed>, NotSql> {
    if cursor.word("trigger") || cursor.word("policy") || cursor.word("rule") {
        while cursor.peek().is_some() && !cursor.word("on") {
            cursor.take();
        }
        return Ok(vec![SqlNeed::Own(cursor.relation()?)]);
    }
    if relation_kind(&mut cursor).is_none() {
        return Ok(Vec::new());
    }
    cursor.word("concurrently");
    cursor.words(&["if", "exists"]);
    let mut owned = vec![SqlNeed::Own(cursor.qualified_name()?)];
    while cursor.symbol(b',') {
        owned.push(SqlNeed::Own(cursor.qualified_name()?));
    }
    Ok(owned)
}

/// Takes what kind of relation a name follows, if it is one.
fn relation_kind(cursor: &mut Cursor) -> Option<()> {
    let materialized = cursor.words(&["materialized", "view"]);
    let kinds = ["table", "view", "sequence", "index"];
    (materialized || kinds.iter().any(|kind| cursor.word(kind))).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(statement: &str, expected: &str) {
        let needs: Vec<String> = needs(statement)
            .iter()
            .map(|need| match need {
                SqlNeed::CreateIn(schema) => {
                    format!("create in {}", schema.as_deref().unwrap_or("the path"))
                }
                SqlNeed::CreateInDatabase => "create in the database".to_owned(),
                SqlNeed::Own(name) => format!("own {name}"),
                SqlNeed::Index(name) => format!("index {name}"),
                SqlNeed::Table(name, privilege) => format!("{privilege} on {name}"),
            })
            .collect();
        assert_eq!(needs.join(", "), expected, "{statement}");
    }

    #[test]
    fn what_is_created_needs_a_place() {
        check("create table if not exists shop.t (a int)", "create in shop");
        check("create unlogged table t (a int)", "create in the path");
        check("create or replace function f() returns int", "create in the path");
        check("create materialized view shop.v as select 1", "create in shop");
        check("create temp table t (a int)", "");
        check("create schema shop", "create in the database");
        check("create extension if not exists pgcrypto", "create in the database");
    }

    #[test]
    fn what_is_changed_must_be_ours() {
        check("alter table if exists only Shop.T add b int", "own shop.t");
        check("drop table if exists a, shop.b cascade", "own a, own shop.b");
        check("drop index concurrently if exists i", "own i");
        check("drop trigger if exists x on t", "own t");
        check("comment on table t is 'on'", "own t");
        check("comment on column t.a is 'x'", "");
        check("create policy p on t using (true)", "own t");
        check("create or replace rule r as on insert to t do nothing", "own t");
        check("reindex (verbose) table concurrently t", "own t");
        check("alter role r nologin", "");
    }

    #[test]
    fn an_index_needs_the_table() {
        check("create unique index concurrently if not exists i on shop.t (a)", "index shop.t");
        check("create index on only t (a)", "index t");
    }

    #[test]
    fn rows_need_privileges() {
        check("insert into t values (1)", "INSERT on t");
        check("update only shop.t set a = 1", "UPDATE on shop.t");
        check("delete from t", "DELETE on t");
        check("truncate table t", "TRUNCATE on t");
        check("create trigger x before update of a, b on shop.t execute f()", "TRIGGER on shop.t");
    }

    #[test]
    fn what_cannot_be_read_needs_nothing() {
        check("do $$ begin create table t (a int); end $$", "");
        check("with x as (select 1) insert into t select * from x", "");
        check("create index", "");
        check("", "");
    }
}
