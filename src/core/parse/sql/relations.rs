//! Which tables a statement names, and whether its text tells all that it
//! touches.
//!
//! The tree says of each name what it is: a table, a view, an index, an alias.
//! Whoever asks wants to know what is certain, so whatever is not understood is
//! said to hide something.
//! What is behind a name (the tables of a view, what a trigger does) no text tells.

use super::cursor::Cursor;
use super::tree::{name, tree};
use crate::core::step::QualifiedName;
use squawk_syntax::{SyntaxKind, SyntaxNode};
use std::collections::BTreeSet;

/// What a statement names.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Relations {
    /// Tables, views, sequences.
    pub named: BTreeSet<QualifiedName>,
    /// Indexes that it names without their table.
    pub indexes: BTreeSet<QualifiedName>,
    /// Indexes whose table it tells: the index, the table.
    pub made: Vec<(QualifiedName, QualifiedName)>,
    /// Why its text does not tell all.
    pub hides: Option<String>,
}

/// What one statement names.
pub fn relations(statement: &str) -> Relations {
    let read = tree(statement, |root| read(root, statement));
    read.unwrap_or_else(|why| Relations { hides: Some(why), ..Relations::default() })
}

fn read(root: &SyntaxNode, statement: &str) -> Relations {
    let words = first_words(statement);
    let mut seen = Relations::default();
    let sets_other = root.kind() == SyntaxKind::SET && !moves_names(statement);
    if !is_open(root.kind()) && !sets_other {
        seen.hides = Some(format!("{words} does not tell what it touches"));
    }
    let mut index = None;
    for node in root.descendants() {
        match node.kind() {
            SyntaxKind::TABLE_NAME
            | SyntaxKind::TABLE_NAME_REF
            | SyntaxKind::RELATION_NAME_REF
            | SyntaxKind::VIEW
            | SyntaxKind::VIEW_REF
            | SyntaxKind::SEQUENCE
            | SyntaxKind::SEQUENCE_REF => {
                if let Some(name) = name(&node)
                    && !is_of_catalog(&name)
                    && !is_of_with(&node, &name)
                {
                    seen.named.insert(name);
                }
            }
            SyntaxKind::QUALIFIED_COLUMN_NAME_REF => match table_of_column(&node) {
                Some(table) => drop(seen.named.insert(table)),
                None => seen.hides = Some(format!("{words} names a column without its table")),
            },
            SyntaxKind::INDEX => index = name(&node),
            SyntaxKind::INDEX_REF if !tells_table(root.kind()) => {
                seen.indexes.extend(name(&node));
            }
            SyntaxKind::CALL_EXPR if root.kind() != SyntaxKind::CREATE_TRIGGER => {
                if let Some(function) = unknown_function(&node) {
                    seen.hides = Some(format!("it calls {function}()"));
                }
            }
            SyntaxKind::CASCADE if !is_referential(&node) => {
                seen.hides = Some("CASCADE reaches whatever depends on it".to_owned());
            }
            kind if hides(kind) => {
                seen.hides = Some(format!("{words} does not tell what it touches"));
            }
            _ => {}
        }
    }
    if let (SyntaxKind::CREATE_INDEX, Some(index)) = (root.kind(), index)
        && let Some(table) = seen.named.first().cloned()
    {
        // An index stands in the schema of its table.
        let index = QualifiedName { schema: table.schema.clone(), ..index };
        seen.made.push((index, table));
    }
    if seen.named.is_empty() && seen.indexes.is_empty() && means_everything(root.kind()) {
        seen.hides = Some(format!("{words} of nothing in particular is of every table"));
    }
    seen
}

/// `ALTER DOMAIN`, `DO`: the words that say what kind of statement it is.
fn first_words(statement: &str) -> String {
    let mut cursor = Cursor::new(statement);
    let mut words = cursor.keyword().unwrap_or_default().to_ascii_uppercase();
    if ["CREATE", "ALTER", "DROP"].contains(&words.as_str())
        && let Some(second) = cursor.keyword()
    {
        words = format!("{words} {}", second.to_ascii_uppercase());
    }
    words
}

/// `shop.users` of `shop.users.email`.
fn table_of_column(node: &SyntaxNode) -> Option<QualifiedName> {
    let text = node.text().to_string();
    let mut cursor = Cursor::new(&text);
    let mut names = vec![cursor.name().ok()?];
    while cursor.symbol(b'.') {
        names.push(cursor.name().ok()?);
    }
    names.pop();
    let name = names.pop()?;
    Some(QualifiedName { schema: names.pop(), name })
}

/// What belongs to the server, and no migration changes.
fn is_of_catalog(name: &QualifiedName) -> bool {
    match name.schema.as_deref() {
        Some(schema) => schema == "pg_catalog" || schema == "information_schema",
        None => name.name.starts_with("pg_"),
    }
}

/// Whether a name in a FROM is that of a query in front of the statement, and not
/// a table. In its own query the same name is the table, unless it is recursive.
fn is_of_with(node: &SyntaxNode, name: &QualifiedName) -> bool {
    let in_from = node.parent().is_some_and(|node| node.kind() == SyntaxKind::RELATION_FROM_ITEM);
    if !in_from || name.schema.is_some() {
        return false;
    }
    let at = node.text_range().start();
    let clauses = node.ancestors().flat_map(|around| {
        around.children().filter(|child| child.kind() == SyntaxKind::WITH_CLAUSE)
    });
    clauses.into_iter().any(|clause| {
        let recursive =
            clause.children_with_tokens().any(|child| child.kind() == SyntaxKind::RECURSIVE_KW);
        clause.children().filter(|child| child.kind() == SyntaxKind::WITH_TABLE).any(|query| {
            let its = query.children().find(|child| child.kind() == SyntaxKind::CTE_NAME);
            let same = its.and_then(|its| self::name(&its)).is_some_and(|its| its == *name);
            same && (recursive || query.text_range().end() <= at)
        })
    })
}

/// Whether a statement that names an index also names its table.
fn tells_table(kind: SyntaxKind) -> bool {
    matches!(kind, SyntaxKind::ALTER_TABLE | SyntaxKind::CREATE_TABLE | SyntaxKind::CLUSTER)
}

/// `ON DELETE CASCADE`, which says what rows do.
fn is_referential(cascade: &SyntaxNode) -> bool {
    cascade.ancestors().any(|around| {
        matches!(
            around.kind(),
            SyntaxKind::FOREIGN_KEY_CONSTRAINT | SyntaxKind::REFERENCES_CONSTRAINT
        )
    })
}

/// Without a name it is about all tables that there are.
fn means_everything(kind: SyntaxKind) -> bool {
    matches!(
        kind,
        SyntaxKind::VACUUM | SyntaxKind::ANALYZE | SyntaxKind::CLUSTER | SyntaxKind::REINDEX
    )
}

/// `SET search_path`, `SET SCHEMA`: from here on a name is another table's.
fn moves_names(set: &str) -> bool {
    let set = set.to_ascii_lowercase();
    set.contains("search_path") || set.contains("schema")
}

/// Parts of statements that reach further than their names.
fn hides(kind: SyntaxKind) -> bool {
    matches!(
        kind,
        SyntaxKind::PRIVILEGE_ALL_TABLES_IN_SCHEMA
            | SyntaxKind::PRIVILEGE_ALL_SEQUENCES_IN_SCHEMA
            | SyntaxKind::ALL_IN_TABLESPACE
    )
}

/// Statements whose text tells all that they touch.
fn is_open(kind: SyntaxKind) -> bool {
    matches!(
        kind,
        SyntaxKind::SELECT
            | SyntaxKind::COMPOUND_SELECT
            | SyntaxKind::PAREN_SELECT
            | SyntaxKind::SELECT_INTO
            | SyntaxKind::VALUES
            | SyntaxKind::TABLE
            | SyntaxKind::INSERT
            | SyntaxKind::UPDATE
            | SyntaxKind::DELETE
            | SyntaxKind::MERGE
            | SyntaxKind::TRUNCATE
            | SyntaxKind::LOCK
            | SyntaxKind::COPY
            | SyntaxKind::CREATE_TABLE
            | SyntaxKind::CREATE_TABLE_AS
            | SyntaxKind::ALTER_TABLE
            | SyntaxKind::DROP_TABLE
            | SyntaxKind::CREATE_INDEX
            | SyntaxKind::ALTER_INDEX
            | SyntaxKind::DROP_INDEX
            | SyntaxKind::REINDEX
            | SyntaxKind::CLUSTER
            | SyntaxKind::VACUUM
            | SyntaxKind::ANALYZE
            | SyntaxKind::CREATE_VIEW
            | SyntaxKind::ALTER_VIEW
            | SyntaxKind::DROP_VIEW
            | SyntaxKind::CREATE_MATERIALIZED_VIEW
            | SyntaxKind::ALTER_MATERIALIZED_VIEW
            | SyntaxKind::DROP_MATERIALIZED_VIEW
            | SyntaxKind::REFRESH
            | SyntaxKind::CREATE_SEQUENCE
            | SyntaxKind::ALTER_SEQUENCE
            | SyntaxKind::DROP_SEQUENCE
            | SyntaxKind::CREATE_TRIGGER
            | SyntaxKind::ALTER_TRIGGER
            | SyntaxKind::DROP_TRIGGER
            | SyntaxKind::CREATE_POLICY
            | SyntaxKind::ALTER_POLICY
            | SyntaxKind::DROP_POLICY
            | SyntaxKind::CREATE_RULE
            | SyntaxKind::ALTER_RULE
            | SyntaxKind::DROP_RULE
            | SyntaxKind::CREATE_STATISTICS
            | SyntaxKind::CREATE_SCHEMA
            | SyntaxKind::CREATE_EXTENSION
            | SyntaxKind::CREATE_TYPE
            | SyntaxKind::CREATE_DOMAIN
            | SyntaxKind::COMMENT_ON
            | SyntaxKind::GRANT
            | SyntaxKind::REVOKE
    )
}

/// The function of a call if it is none of those that only look at their
/// arguments.
fn unknown_function(call: &SyntaxNode) -> Option<String> {
    let function = call
        .children()
        .find(|child| matches!(child.kind(), SyntaxKind::NAME_REF | SyntaxKind::FIELD_EXPR))?;
    let name = name(&function)?;
    let ours = match name.schema.as_deref() {
        None | Some("pg_catalog") => HARMLESS.contains(&name.name.as_str()),
        Some(_) => false,
    };
    (!ours).then(|| name.to_string())
}

/// Functions of Postgres that touch nothing but their arguments. One that is not
/// here is only asked about by people.
const HARMLESS: &[&str] = &[
    "abs",
    "age",
    "any_value",
    "array_agg",
    "array_append",
    "array_cat",
    "array_length",
    "array_position",
    "array_positions",
    "array_prepend",
    "array_remove",
    "array_replace",
    "array_to_json",
    "array_to_string",
    "array_upper",
    "avg",
    "bit_and",
    "bit_length",
    "bit_or",
    "bool_and",
    "bool_or",
    "btrim",
    "cardinality",
    "ceil",
    "ceiling",
    "char_length",
    "chr",
    "clock_timestamp",
    "coalesce",
    "concat",
    "concat_ws",
    "corr",
    "count",
    "cume_dist",
    "date",
    "date_bin",
    "date_part",
    "date_trunc",
    "decode",
    "dense_rank",
    "digest",
    "div",
    "encode",
    "every",
    "exp",
    "first_value",
    "float8",
    "floor",
    "format",
    "gen_random_bytes",
    "gen_random_uuid",
    "generate_series",
    "generate_subscripts",
    "greatest",
    "hashtext",
    "initcap",
    "int4",
    "int8",
    "isfinite",
    "json_agg",
    "json_array_elements",
    "json_array_elements_text",
    "json_array_length",
    "json_build_array",
    "json_build_object",
    "json_each",
    "json_each_text",
    "json_extract_path",
    "json_extract_path_text",
    "json_object",
    "json_object_agg",
    "json_object_keys",
    "json_typeof",
    "jsonb_agg",
    "jsonb_array_elements",
    "jsonb_array_elements_text",
    "jsonb_array_length",
    "jsonb_build_array",
    "jsonb_build_object",
    "jsonb_each",
    "jsonb_each_text",
    "jsonb_extract_path",
    "jsonb_extract_path_text",
    "jsonb_insert",
    "jsonb_object",
    "jsonb_object_agg",
    "jsonb_object_keys",
    "jsonb_path_exists",
    "jsonb_path_query",
    "jsonb_set",
    "jsonb_strip_nulls",
    "jsonb_typeof",
    "justify_days",
    "justify_hours",
    "justify_interval",
    "lag",
    "last_value",
    "lead",
    "least",
    "left",
    "length",
    "ln",
    "localtimestamp",
    "log",
    "lower",
    "lpad",
    "ltrim",
    "make_date",
    "make_interval",
    "make_time",
    "make_timestamp",
    "make_timestamptz",
    "max",
    "md5",
    "min",
    "mod",
    "mode",
    "now",
    "nth_value",
    "ntile",
    "nullif",
    "num_nonnulls",
    "num_nulls",
    "numeric",
    "octet_length",
    "overlay",
    "parse_ident",
    "percent_rank",
    "percentile_cont",
    "percentile_disc",
    "pi",
    "position",
    "power",
    "quote_ident",
    "quote_literal",
    "quote_nullable",
    "random",
    "rank",
    "regexp_count",
    "regexp_instr",
    "regexp_like",
    "regexp_match",
    "regexp_matches",
    "regexp_replace",
    "regexp_split_to_array",
    "regexp_split_to_table",
    "regexp_substr",
    "repeat",
    "replace",
    "reverse",
    "right",
    "round",
    "row",
    "row_number",
    "row_to_json",
    "rpad",
    "rtrim",
    "sha224",
    "sha256",
    "sha384",
    "sha512",
    "sign",
    "split_part",
    "sqrt",
    "starts_with",
    "statement_timestamp",
    "stddev",
    "string_agg",
    "string_to_array",
    "string_to_table",
    "strpos",
    "substr",
    "substring",
    "sum",
    "text",
    "timezone",
    "to_char",
    "to_date",
    "to_json",
    "to_jsonb",
    "to_number",
    "to_timestamp",
    "to_tsquery",
    "to_tsvector",
    "transaction_timestamp",
    "translate",
    "trim",
    "trim_array",
    "trunc",
    "tsvector_to_array",
    "unistr",
    "unnest",
    "upper",
    "uuid_generate_v4",
    "uuidv4",
    "uuidv7",
    "variance",
    "width_bucket",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::parse::sql::tree::{BYTES_MAX, CHAIN_MAX, DEPTH_MAX};

    fn list<'a>(names: impl IntoIterator<Item = &'a QualifiedName>) -> String {
        let mut names: Vec<String> = names.into_iter().map(ToString::to_string).collect();
        names.sort();
        names.join(", ")
    }

    fn check(statement: &str, expected: &str) {
        let seen = relations(statement);
        let mut text = list(&seen.named);
        if !seen.indexes.is_empty() {
            text = format!("{text}; index {}", list(&seen.indexes));
        }
        if let Some(why) = seen.hides {
            text = format!("{text}; {why}");
        }
        assert_eq!(text.trim_start_matches("; "), expected, "{statement}");
    }

    #[test]
    fn rows_are_read_and_written() {
        check("SELECT 1", "");
        check(
            "select u.id from users u, only shop.orders o where u.id = o.user_id",
            "shop.orders, users",
        );
        check(
            "select * from a join b using (id) left join lateral (select 1 from c) x on true",
            "a, b, c",
        );
        check("select 1 where exists (select 1 from t) and 3 in (select id from u)", "t, u");
        check(
            "insert into \"Users\" (id, name) select id, 'from x' from old on conflict do nothing",
            "Users, old",
        );
        check(
            "update t set a = (select max(b) from u) from v where t.id = v.id returning *",
            "t, u, v",
        );
        check("delete from t using u where t.id = u.id", "t, u");
        check("merge into t using u on t.id = u.id when matched then delete", "t, u");
        check("truncate a, only b", "a, b");
        check("lock table a, b in share mode", "a, b");
        check("table t", "t");
        check("(select 1 from a) union all select 2 from b order by 1", "a, b");
        check("select extract(year from born), substring(name from 1) from people", "people");
        check("select * into copy from t", "copy, t");
        check("select * from pg_catalog.pg_class, pg_index", "");
    }

    #[test]
    fn a_query_in_front_is_no_table_except_in_itself() {
        check("with w as (select 1 from t) select * from w", "t");
        check("with t as (select 1 from t) select * from t", "t");
        check(
            "with recursive w as (select 1 from t union all select 1 from w) select * from w",
            "t",
        );
        check("with w as (delete from t returning *) insert into w select * from w", "t, w");
        check("with w as (select 1), v as (select 1 from w) update t set a = 1 from v", "t");
    }

    #[test]
    fn tables_are_made_changed_and_dropped() {
        check(
            "create table if not exists shop.t (a int references u (id), like v, b varchar(20), foreign key (b) references w on delete cascade)",
            "shop.t, u, v, w",
        );
        check("create table p partition of t for values in (1)", "p, t");
        check("create table c (a int) inherits (t)", "c, t");
        check("create table c as select a from t", "c, t");
        check(
            "alter table only t add constraint f foreign key (a) references u on delete cascade",
            "t, u",
        );
        check("alter table t rename to u", "t, u");
        check("alter table t attach partition p for values in (1)", "p, t");
        check("alter table t add column a timestamptz not null default now()", "t");
        check("alter table t add constraint p primary key using index i", "t");
        check("drop table if exists a, shop.b", "a, shop.b");
        check("drop table a cascade", "a; CASCADE reaches whatever depends on it");
        check("alter table a drop column b cascade", "a; CASCADE reaches whatever depends on it");
        check("comment on table t is 'on u'", "t");
        check("comment on column shop.t.a is 'x'", "shop.t");
        check("create sequence s owned by t.a", "s, t");
        check("create statistics x on a, b from t", "t");
        check("grant select on t, u to ada", "t, u");
        check("vacuum (analyze) t", "t");
        check("set lock_timeout = '5s'", "");
    }

    #[test]
    fn what_stands_on_a_table_names_it() {
        check("create unique index concurrently i on only shop.t (lower(a)) where b > 0", "shop.t");
        check(
            "create trigger x after insert or update of a on t for each row execute function f()",
            "t",
        );
        check("drop trigger if exists x on t", "t");
        check("create policy p on t using (exists (select 1 from u))", "t, u");
        check("create rule r as on insert to t do also insert into log values (1)", "log, t");
        check("create or replace view v as select * from t", "t, v");
        check("create materialized view v as select * from t", "t, v");
        check("refresh materialized view concurrently v", "v");
        check("drop view v", "v");
    }

    #[test]
    fn an_index_alone_does_not_tell_its_table() {
        check("drop index concurrently if exists shop.i", "index shop.i");
        check("drop index a, b", "index a, b");
        check("alter index i rename to j", "index i");
        check("reindex index i", "index i");
        check("reindex table t", "t");
        let made = relations("create index i on shop.t (a)").made;
        let name =
            |name: &str| QualifiedName { schema: Some("shop".to_owned()), name: name.to_owned() };
        assert_eq!(made, [(name("i"), name("t"))]);
    }

    #[test]
    fn what_hides_something_says_so() {
        check("do $$ begin delete from t; end $$", "DO does not tell what it touches");
        check(
            "create or replace function f() returns int language sql as 'select 1 from t'",
            "CREATE OR does not tell what it touches",
        );
        check("drop function f()", "DROP FUNCTION does not tell what it touches");
        check("call tidy()", "CALL does not tell what it touches");
        check("execute p", "EXECUTE does not tell what it touches");
        check("alter type mood add value 'fine'", "ALTER TYPE does not tell what it touches");
        check("drop schema shop", "DROP SCHEMA does not tell what it touches");
        check("select tidy(a) from t", "t; it calls tidy()");
        check("select shop.count(a) from t", "t; it calls shop.count()");
        check("select * from tidy() as x", "it calls tidy()");
        check("set search_path = shop", "SET does not tell what it touches");
        check("vacuum", "VACUUM of nothing in particular is of every table");
        check(
            "grant select on all tables in schema public to ada",
            "GRANT does not tell what it touches",
        );
        check("selec 1", "it cannot be parsed");
    }

    #[test]
    fn nothing_overflows_the_stack() {
        let deep = |open: &str, close: &str, times: usize| {
            relations(&format!("select {}1{} from t", open.repeat(times), close.repeat(times)))
                .hides
        };
        let too_deep = Some("it is nested too deeply".to_owned());
        assert_eq!(deep("(", ")", DEPTH_MAX), None);
        assert_eq!(deep("(", ")", 20_000), too_deep);
        assert_eq!(deep("array[", "]", 20_000), too_deep);
        assert_eq!(deep("case when true then ", " end", 20_000), too_deep);
        for chain in ["not ", "- ", "1 + ", "1 = 1 and ", "1 union select "] {
            assert_eq!(deep(chain, "", 40_000), too_deep, "{chain}");
            assert_ne!(deep(chain, "", CHAIN_MAX / 5), too_deep, "{chain}");
        }
        let rows = vec!["(1, 2)"; 10_000].join(", ");
        check(&format!("insert into t values {rows}"), "t");
        let long = format!("select '{}' from t", "x".repeat(BYTES_MAX));
        check(&long, "it is longer than 1 MiB");
    }
}
