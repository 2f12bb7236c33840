//! The key along which a backfill goes through a table, and ranges of it.
//!
//! Keys travel as texts, a column each, and are cast to the column's own type
//! where they are compared: so every type that has an order can be a key.

use super::{Postgres, failed, quote};
use crate::core::backfill::Key;
use crate::core::id::StoreName;
use crate::store::{Fate, StoreError};
use serde_json::Value;
use tokio_postgres::types::{ToSql, Type};

const FIND: &str = "find the key of the backfill";

/// A table, as the catalogs have it.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) oid: u32,
    pub(super) schema: String,
    pub(super) name: String,
    /// `relkind`.
    pub(super) kind: char,
    /// Its size on disk.
    pub(super) pages: i64,
    /// How many rows the statistics say; less than 0 is unknown.
    pub(super) rows: f64,
    /// Other tables inherit from it (partitions do, too).
    pub(super) has_children: bool,
}

impl Table {
    /// As a statement names it, wherever it looks for names.
    pub(super) fn quoted(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.name))
    }

    /// As people know it.
    pub(super) fn shown(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

/// Finds a table by the name that stands in a statement.
pub(super) async fn find_table(store: &Postgres, name: &str) -> Result<Option<Table>, StoreError> {
    let filter = "c.oid = pg_catalog.to_regclass($1)";
    Ok(tables(store, "", filter, (&name, Type::TEXT)).await?.pop())
}

/// The partitions of a partitioned table that have rows themselves, at any depth.
pub(super) async fn leaves(store: &Postgres, root: &Table) -> Result<Vec<Table>, StoreError> {
    let join = "JOIN pg_catalog.pg_partition_tree($1::oid::pg_catalog.regclass) AS p \
                ON p.relid = c.oid";
    tables(store, join, "p.isleaf AND c.relkind <> 'p'", (&root.oid, Type::OID)).await
}

async fn tables(
    store: &Postgres,
    join: &str,
    filter: &str,
    which: (&(dyn ToSql + Sync), Type),
) -> Result<Vec<Table>, StoreError> {
    let sql = format!(
        "SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.reltuples::float8, \
         CASE WHEN c.relkind = 'r' THEN pg_catalog.pg_relation_size(c.oid) \
         / pg_catalog.current_setting('block_size')::bigint ELSE 0 END, \
         EXISTS (SELECT 1 FROM pg_catalog.pg_inherits AS h WHERE h.inhparent = c.oid) \
         FROM pg_catalog.pg_class AS c \
         JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace {join} \
         WHERE {filter} ORDER BY n.nspname, c.relname"
    );
    let rows = store.client.query_typed(&sql, &[which]).await;
    let rows = rows.map_err(|error| failed(FIND, &error))?;
    let table = |row: &tokio_postgres::Row| Table {
        oid: row.get(0),
        schema: row.get(1),
        name: row.get(2),
        kind: row.get::<_, &str>(3).chars().next().unwrap_or('r'),
        rows: row.get(4),
        pages: row.get::<_, Option<i64>>(5).unwrap_or(0),
        has_children: row.get(6),
    };
    Ok(rows.iter().map(table).collect())
}

/// One column of a key.
#[derive(Clone, Debug)]
pub(super) struct KeyColumn {
    name: String,
    /// Its type as a cast names it: without its length, and qualified.
    cast: String,
    /// Its type for people.
    shown: String,
    /// The order of the index, where it is not that of the column.
    collation: Option<String>,
}

/// A key: columns that are never null, unique together, and in the order of an
/// index.
#[derive(Clone, Debug)]
pub(super) struct TableKey {
    columns: Vec<KeyColumn>,
}

/// An index that can be gone along.
struct Index {
    columns: Vec<(KeyColumn, bool)>,
    unique: bool,
    /// Its order is that of `<`, forwards or backwards.
    ordered: bool,
}

/// The key of a table: the columns that are wanted, else its primary key, else
/// the smallest unique index on columns that are never null.
pub(super) async fn key_of(
    store: &Postgres,
    table: &Table,
    wanted: &[String],
) -> Result<TableKey, StoreError> {
    let indexes = indexes(store, table).await?;
    match wanted {
        [] => indexes
            .into_iter()
            .find(|index| {
                index.unique && index.ordered && index.columns.iter().all(|(_, filled)| *filled)
            })
            .map(|index| TableKey { columns: index.columns.into_iter().map(|(c, _)| c).collect() })
            .ok_or_else(|| {
                refused(
                    format!(
                        "{} has no primary key, nor a unique index on columns that are NOT NULL: \
                         there is no order in which to go through it",
                        table.shown()
                    ),
                    "add a primary key in `prepare`, or a unique index on columns that are NOT \
                     NULL, and name them with `key = \"…\"`",
                )
            }),
        wanted => chosen(store, table, wanted, &indexes).await,
    }
}

/// The key that somebody chose.
async fn chosen(
    store: &Postgres,
    table: &Table,
    wanted: &[String],
    indexes: &[Index],
) -> Result<TableKey, StoreError> {
    let sql = "SELECT attname::text, attnotnull FROM pg_catalog.pg_attribute \
               WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
    let rows = store.client.query_typed(sql, &[(&table.oid, Type::OID)]).await;
    let rows = rows.map_err(|error| failed(FIND, &error))?;
    let columns: Vec<(String, bool)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let shown = table.shown();
    for name in wanted {
        let Some((_, filled)) = columns.iter().find(|(column, _)| column == name) else {
            let all: Vec<&str> = columns.iter().map(|(column, _)| column.as_str()).collect();
            return Err(refused(
                format!("{shown} has no column `{name}`, which `key` names"),
                &format!("its columns are {}", all.join(", ")),
            ));
        };
        if !filled {
            return Err(refused(
                format!("column `{name}` of {shown} may be NULL: `key` cannot go along it"),
                "make it NOT NULL in `prepare`, or choose other columns",
            ));
        }
    }
    let unique = indexes.iter().any(|index| {
        index.unique && index.columns.iter().all(|(column, _)| wanted.contains(&column.name))
    });
    let leads = |index: &&Index| {
        index.ordered
            && index.columns.len() >= wanted.len()
            && index.columns.iter().zip(wanted).all(|((column, _), name)| column.name == *name)
    };
    let list = wanted.join(", ");
    match indexes.iter().find(leads) {
        Some(index) if unique => Ok(TableKey {
            columns: index.columns.iter().take(wanted.len()).map(|(c, _)| c.clone()).collect(),
        }),
        Some(_) => Err(refused(
            format!("no unique index says that ({list}) is a key of {shown}"),
            "name all columns of a primary key or of a unique index; a partial index does not count",
        )),
        None => Err(refused(
            format!("no index of {shown} begins with ({list}): each batch would read all of it"),
            &format!("create one in `prepare`: CREATE UNIQUE INDEX CONCURRENTLY … ({list})"),
        )),
    }
}

/// The indexes of a table that are whole, primary key first, then the unique
/// ones, the smallest first.
async fn indexes(store: &Postgres, table: &Table) -> Result<Vec<Index>, StoreError> {
    let sql = "SELECT i.indexrelid, i.indisunique, o.opcdefault, (i.indoption[k.n - 1] & 1)::integer, \
         a.attname::text, a.attnotnull, \
         pg_catalog.quote_ident(tn.nspname) || '.' || pg_catalog.quote_ident(t.typname), \
         pg_catalog.format_type(a.atttypid, a.atttypmod), \
         CASE WHEN l.oid <> a.attcollation \
         THEN pg_catalog.quote_ident(ln.nspname) || '.' || pg_catalog.quote_ident(l.collname) END \
         FROM pg_catalog.pg_index AS i \
         JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid \
         JOIN pg_catalog.pg_am AS m ON m.oid = c.relam AND m.amname = 'btree' \
         CROSS JOIN LATERAL pg_catalog.generate_series(1, i.indnkeyatts::integer) AS k (n) \
         JOIN pg_catalog.pg_attribute AS a \
         ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k.n - 1] \
         JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid \
         JOIN pg_catalog.pg_namespace AS tn ON tn.oid = t.typnamespace \
         JOIN pg_catalog.pg_opclass AS o ON o.oid = i.indclass[k.n - 1] \
         LEFT JOIN pg_catalog.pg_collation AS l ON l.oid = i.indcollation[k.n - 1] \
         LEFT JOIN pg_catalog.pg_namespace AS ln ON ln.oid = l.collnamespace \
         WHERE i.indrelid = $1 AND i.indisvalid AND i.indisready \
         AND i.indpred IS NULL AND i.indexprs IS NULL \
         ORDER BY i.indisprimary DESC, i.indisunique DESC, i.indnkeyatts, c.relname, k.n";
    let rows = store.client.query_typed(sql, &[(&table.oid, Type::OID)]).await;
    let rows = rows.map_err(|error| failed(FIND, &error))?;
    let mut indexes: Vec<Index> = Vec::new();
    let mut last: Option<(u32, i32)> = None;
    for row in &rows {
        let (oid, backwards): (u32, i32) = (row.get(0), row.get(3));
        let column = KeyColumn {
            name: row.get(4),
            cast: row.get(6),
            shown: row.get(7),
            collation: row.get(8),
        };
        let (default, filled): (bool, bool) = (row.get(2), row.get(5));
        match (last, indexes.last_mut()) {
            (Some((same, direction)), Some(index)) if same == oid => {
                index.ordered &= default && direction == backwards;
                index.columns.push((column, filled));
            }
            _ => indexes.push(Index {
                columns: vec![(column, filled)],
                unique: row.get(1),
                ordered: default,
            }),
        }
        last = Some((oid, backwards));
    }
    Ok(indexes)
}

pub(super) fn refused(message: String, hint: &str) -> StoreError {
    let mut error = StoreError::new(StoreName::Postgres, FIND, Fate::Refused, message);
    error.said.hint = Some(hint.to_owned());
    error
}

/// A condition with the texts of its parameters.
pub(super) struct Range {
    pub(super) sql: String,
    pub(super) params: Vec<String>,
    /// So many parameters of the statement come before them.
    before: usize,
}

impl Range {
    pub(super) fn typed(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        self.params.iter().map(|param| (param as &(dyn ToSql + Sync), Type::TEXT)).collect()
    }

    fn param(&mut self, column: &KeyColumn, value: &str) -> String {
        self.params.push(value.to_owned());
        format!("${}::text::{}", self.before + self.params.len(), column.cast)
    }

    fn compare(&mut self, of: &str, columns: &[KeyColumn], operator: &str, values: &[String]) {
        let values: Vec<String> =
            columns.iter().zip(values).map(|(column, value)| self.param(column, value)).collect();
        let columns: Vec<String> = columns.iter().map(|column| column.expression(of)).collect();
        let and = if self.sql.is_empty() { "" } else { " AND " };
        let term = match (columns.as_slice(), values.as_slice()) {
            ([column], [value]) => format!("{column} {operator} {value}"),
            _ => format!("({}) {operator} ({})", columns.join(", "), values.join(", ")),
        };
        self.sql.push_str(and);
        self.sql.push_str(&term);
    }
}

impl KeyColumn {
    /// A column of a query, in the order of its type; `cast` is that type as a cast
    /// names it.
    pub(super) fn of(name: &str, cast: &str, shown: &str) -> KeyColumn {
        let (name, cast, shown) = (name.to_owned(), cast.to_owned(), shown.to_owned());
        KeyColumn { name, cast, shown, collation: None }
    }

    fn expression(&self, of: &str) -> String {
        match &self.collation {
            Some(collation) => format!("{of}{} COLLATE {collation}", quote(&self.name)),
            None => format!("{of}{}", quote(&self.name)),
        }
    }
}

impl TableKey {
    /// The key of a query.
    pub(super) fn of(columns: Vec<KeyColumn>) -> TableKey {
        TableKey { columns }
    }

    /// For people: `tenant integer, id bigint`.
    pub(super) fn shown(&self) -> String {
        let columns: Vec<String> =
            self.columns.iter().map(|column| format!("{} {}", column.name, column.shown)).collect();
        columns.join(", ")
    }

    /// Whether its texts are the same whatever a session is set to.
    pub(super) fn is_plain(&self) -> bool {
        const PLAIN: [&str; 8] =
            ["int2", "int4", "int8", "numeric", "text", "varchar", "bpchar", "uuid"];
        self.columns.iter().all(|column| {
            column.cast.strip_prefix("pg_catalog.").is_some_and(|name| PLAIN.contains(&name))
        })
    }

    /// The names of its columns.
    pub(super) fn names(&self) -> Vec<String> {
        self.columns.iter().map(|column| column.name.clone()).collect()
    }

    /// Its columns as texts, to select; `of` is a qualifier with its dot, or nothing.
    pub(super) fn texts(&self, of: &str) -> String {
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|column| format!("{of}{}::text", quote(&column.name)))
            .collect();
        columns.join(", ")
    }

    /// Its columns as they are, to select.
    pub(super) fn columns(&self, of: &str) -> String {
        let columns: Vec<String> =
            self.columns.iter().map(|column| format!("{of}{}", quote(&column.name))).collect();
        columns.join(", ")
    }

    /// Its columns, to order by. The qualifier is needed: without one, Postgres
    /// would order by the texts that are selected.
    pub(super) fn order(&self, of: &str, direction: &str) -> String {
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|column| format!("{} {direction}", column.expression(of)))
            .collect();
        columns.join(", ")
    }

    /// The key that a row of [`texts`](TableKey::texts) begins with.
    pub(super) fn read(&self, row: &tokio_postgres::Row) -> Vec<String> {
        (0..self.columns.len()).map(|at| row.get(at)).collect()
    }

    /// A recorded key.
    pub(super) fn parse(&self, key: &Key) -> Result<Vec<String>, StoreError> {
        let texts: Option<Vec<String>> = match &key.0 {
            Value::Array(columns) => {
                columns.iter().map(|column| column.as_str().map(str::to_owned)).collect()
            }
            _ => None,
        };
        match texts {
            Some(texts) if texts.len() == self.columns.len() => Ok(texts),
            _ => Err(StoreError::new(
                StoreName::Postgres,
                FIND,
                Fate::Corrupt,
                format!("the recorded key {key} is none of ({})", self.shown()),
            )),
        }
    }

    /// The rows of one key.
    pub(super) fn only(&self, of: &str, key: &[String]) -> Range {
        let mut range = Range { sql: String::new(), params: Vec::new(), before: 0 };
        range.compare(of, &self.columns, "=", key);
        range
    }

    /// The rows after one key, up to another.
    pub(super) fn range(
        &self,
        of: &str,
        after: Option<&[String]>,
        upto: Option<&[String]>,
    ) -> Range {
        self.range_behind(0, of, after, upto)
    }

    /// The same in a statement that has so many parameters of its own.
    pub(super) fn range_behind(
        &self,
        before: usize,
        of: &str,
        after: Option<&[String]>,
        upto: Option<&[String]>,
    ) -> Range {
        let mut range = Range { sql: String::new(), params: Vec::new(), before };
        // Where both ends agree in their first columns, saying so gives the planner
        // a far better guess than two comparisons of rows.
        let same = match (after, upto) {
            (Some(after), Some(upto)) => after
                .iter()
                .zip(upto)
                .take_while(|(after, upto)| after == upto)
                .count()
                .min(self.columns.len() - 1),
            _ => 0,
        };
        for at in 0..same {
            let value = upto.or(after).map_or(&[][..], |key| &key[at..=at]);
            range.compare(of, &self.columns[at..=at], "=", value);
        }
        let rest = &self.columns[same..];
        for (operator, loose, end) in [(">", ">=", after), ("<=", "<=", upto)] {
            let Some(end) = end else { continue };
            range.compare(of, rest, operator, &end[same..]);
            if rest.len() > 1 {
                range.compare(of, &rest[..1], loose, &end[same..=same]);
            }
        }
        if range.sql.is_empty() {
            range.sql.push_str("true");
        }
        range
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str) -> KeyColumn {
        let (cast, shown) = ("pg_catalog.int8".to_owned(), "bigint".to_owned());
        KeyColumn { name: name.to_owned(), cast, shown, collation: None }
    }

    fn texts(values: &[&str]) -> Vec<String> {
        values.iter().map(|&value| value.to_owned()).collect()
    }

    fn range(columns: &[&str], after: Option<&[&str]>, upto: &[&str]) -> String {
        let key = TableKey { columns: columns.iter().map(|name| column(name)).collect() };
        let after = after.map(texts);
        let range = key.range("t.", after.as_deref(), Some(&texts(upto)));
        let mut sql = range.sql.replace("::text::pg_catalog.int8", "").replace('"', "");
        for (at, param) in range.params.iter().enumerate().rev() {
            sql = sql.replace(&format!("${}", at + 1), param);
        }
        sql
    }

    #[test]
    fn a_range_compares_rows_and_tells_the_planner_what_its_ends_share() {
        assert_eq!(range(&["a"], None, &["9"]), "t.a <= 9");
        assert_eq!(range(&["a"], Some(&["3"]), &["9"]), "t.a > 3 AND t.a <= 9");
        assert_eq!(range(&["a"], Some(&["9"]), &["9"]), "t.a > 9 AND t.a <= 9");
        assert_eq!(
            range(&["a", "b"], Some(&["1", "3"]), &["1", "9"]),
            "t.a = 1 AND t.b > 3 AND t.b <= 9"
        );
        assert_eq!(
            range(&["a", "b"], Some(&["1", "3"]), &["2", "3"]),
            "(t.a, t.b) > (1, 3) AND t.a >= 1 AND (t.a, t.b) <= (2, 3) AND t.a <= 2"
        );
        assert_eq!(
            range(&["a", "b", "c"], Some(&["1", "3", "5"]), &["1", "4", "0"]),
            "t.a = 1 AND (t.b, t.c) > (3, 5) AND t.b >= 3 AND (t.b, t.c) <= (4, 0) AND t.b <= 4"
        );
        assert_eq!(range(&["a", "b"], None, &["2", "3"]), "(t.a, t.b) <= (2, 3) AND t.a <= 2");
    }
}
