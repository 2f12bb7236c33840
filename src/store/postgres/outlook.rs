//! What a plan meets: how large tables are, what columns are, which foreign keys
//! there are. A handful of questions for the whole plan, in a transaction that can
//! change nothing, none of them for long. An answer that does not come is no failure.

use super::{Postgres, failed, quote};
use crate::core::outlook::{ColumnFacts, ForeignKey, PostgresFacts, TableFacts, Wanted};
use crate::core::step::QualifiedName;
use crate::store::StoreError;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

const ASK: &str = "ask what the plan meets";

/// No question takes longer.
const STATEMENT: Duration = Duration::from_secs(2);

/// Nor waits longer for a lock: sizes cannot be had of a table that is locked
/// against everybody.
const LOCK: Duration = Duration::from_millis(500);

/// A server that does not even say that it took too long.
const SILENCE: Duration = Duration::from_secs(5);

/// So many foreign keys are told.
const FOREIGN_MAX: i64 = 200;

impl Postgres {
    /// Finds out what a plan meets, as far as it can.
    pub async fn look_ahead(&mut self, wanted: &Wanted) -> PostgresFacts {
        let mut facts = PostgresFacts::default();
        if wanted.is_empty() {
            return facts;
        }
        if let Err(error) = self.look(wanted, &mut facts).await {
            facts.unknown = Some(error.said.to_string());
        }
        // A question that is still on its way must not hold up what comes next.
        if self.session().await.is_ok() {
            let _ = self.client.batch_execute("ROLLBACK").await;
        }
        facts
    }

    async fn look(&mut self, wanted: &Wanted, facts: &mut PostgresFacts) -> Result<(), StoreError> {
        let schema = self.config.schema.as_ref();
        let path = schema.map(|it| format!("; SET LOCAL search_path = {}", quote(it)));
        let begin = format!(
            "BEGIN READ ONLY; SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = {}{}",
            STATEMENT.as_millis(),
            LOCK.as_millis(),
            path.unwrap_or_default()
        );
        let client = self.session().await?;
        client.batch_execute(&begin).await.map_err(|error| failed(ASK, &error))?;
        let mut tables = wanted.tables.clone();
        for (index, table) in self.tables_of_indexes(wanted).await? {
            tables.insert(table.clone());
            facts.indexes.insert(index, table);
        }
        let names: BTreeMap<String, QualifiedName> =
            tables.into_iter().map(|name| (super::step::quoted(&name), name)).collect();
        facts.tables = self.sizes(&names).await?;
        facts.foreign = self.foreign_keys(&names).await?;
        if !wanted.columns.is_empty() {
            self.columns_of(wanted, facts).await?;
        }
        if !wanted.types.is_empty() {
            self.types_of(wanted, facts).await?;
        }
        if !wanted.functions.is_empty() {
            self.steady(wanted, facts).await?;
        }
        Ok(())
    }

    async fn question(
        &mut self,
        sql: &str,
        params: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, StoreError> {
        let asked = tokio::time::timeout(SILENCE, self.client.query_typed(sql, params)).await;
        match asked {
            Ok(rows) => rows.map_err(|error| failed(ASK, &error)),
            Err(_) => Err(StoreError::new(
                crate::core::id::StoreName::Postgres,
                ASK,
                crate::store::Fate::Unreachable,
                format!("no answer within {} s", SILENCE.as_secs()),
            )),
        }
    }

    async fn tables_of_indexes(
        &mut self,
        wanted: &Wanted,
    ) -> Result<Vec<(QualifiedName, QualifiedName)>, StoreError> {
        if wanted.indexes.is_empty() {
            return Ok(Vec::new());
        }
        let indexes: Vec<&QualifiedName> = wanted.indexes.iter().collect();
        let names: Vec<String> = indexes.iter().map(|it| super::step::quoted(it)).collect();
        let sql = "SELECT w.at, CASE WHEN pg_catalog.pg_table_is_visible(c.oid) THEN NULL \
                ELSE n.nspname::text END, c.relname::text \
            FROM pg_catalog.unnest($1::text[]) WITH ORDINALITY AS w(name, at) \
            JOIN pg_catalog.pg_index AS i ON i.indexrelid = pg_catalog.to_regclass(w.name) \
            JOIN pg_catalog.pg_class AS c ON c.oid = i.indrelid \
            JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace";
        let rows = self.question(sql, &[(&names, Type::TEXT_ARRAY)]).await?;
        let found = rows.iter().filter_map(|row| {
            let at = usize::try_from(row.get::<_, i64>(0)).ok()?.checked_sub(1)?;
            let table = QualifiedName { schema: row.get(1), name: row.get(2) };
            Some(((*indexes.get(at)?).clone(), table))
        });
        Ok(found.collect())
    }

    /// Of partitioned tables with all that is below them.
    async fn sizes(
        &mut self,
        names: &BTreeMap<String, QualifiedName>,
    ) -> Result<BTreeMap<QualifiedName, TableFacts>, StoreError> {
        const PARTS: &str = "WITH RECURSIVE w AS (\
                SELECT name, pg_catalog.to_regclass(name)::oid AS root \
                FROM pg_catalog.unnest($1::text[]) AS u(name)), \
            part AS (\
                SELECT name, root, root AS oid FROM w WHERE root IS NOT NULL \
                UNION SELECT p.name, p.root, i.inhrelid FROM part AS p \
                JOIN pg_catalog.pg_inherits AS i ON i.inhparent = p.oid)";
        let asked: Vec<&str> = names.keys().map(String::as_str).collect();
        // Neither needs a lock, and both are as old as the last ANALYZE.
        let sql = format!(
            "{PARTS} SELECT p.name, \
                COALESCE(pg_catalog.bool_or(c.reltuples < 0 AND c.relkind IN ('r', 'm')), false), \
                COALESCE(pg_catalog.sum(c.reltuples) FILTER (WHERE c.reltuples > 0 \
                    AND c.relkind IN ('r', 'm')), 0)::float8, \
                COALESCE(pg_catalog.sum(c.relpages::int8 * \
                    pg_catalog.current_setting('block_size')::int8), 0)::int8, \
                pg_catalog.bool_or(c.relkind IN ('r', 'm', 'p')) \
            FROM part AS p JOIN pg_catalog.pg_class AS c ON c.oid = p.oid GROUP BY p.name"
        );
        let rows = self.question(&sql, &[(&asked, Type::TEXT_ARRAY)]).await?;
        let mut found = BTreeMap::new();
        for row in &rows {
            let Some(name) = names.get(row.get::<_, &str>(0)) else { continue };
            let (never, rows, bytes): (bool, f64, i64) = (row.get(1), row.get(2), row.get(3));
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "an estimate, and never negative"
            )]
            let rows = (!never).then_some(rows as u64);
            let bytes = u64::try_from(bytes).unwrap_or(0);
            found.insert(name.clone(), TableFacts { rows, bytes, has_rows: row.get(4) });
        }
        let sql = format!(
            "{PARTS} SELECT p.name, \
                COALESCE(pg_catalog.sum(pg_catalog.pg_table_size(c.oid)), 0)::int8 \
            FROM part AS p JOIN pg_catalog.pg_class AS c ON c.oid = p.oid \
            WHERE c.relkind IN ('r', 'm') GROUP BY p.name"
        );
        self.client.batch_execute("SAVEPOINT a").await.map_err(|error| failed(ASK, &error))?;
        match self.question(&sql, &[(&asked, Type::TEXT_ARRAY)]).await {
            Ok(rows) => {
                for row in &rows {
                    let bytes = u64::try_from(row.get::<_, i64>(1)).unwrap_or(0);
                    let name = names.get(row.get::<_, &str>(0));
                    if let Some(table) = name.and_then(|name| found.get_mut(name)) {
                        table.bytes = bytes;
                        // What has no page has no row, analyzed or not.
                        table.rows = table.rows.or((bytes == 0).then_some(0));
                    }
                }
            }
            Err(_) => {
                let back = self.client.batch_execute("ROLLBACK TO SAVEPOINT a").await;
                back.map_err(|error| failed(ASK, &error))?;
            }
        }
        Ok(found)
    }

    async fn foreign_keys(
        &mut self,
        names: &BTreeMap<String, QualifiedName>,
    ) -> Result<Vec<ForeignKey>, StoreError> {
        let asked: Vec<&str> = names.keys().map(String::as_str).collect();
        let sql = "WITH w AS (SELECT pg_catalog.to_regclass(name)::oid AS oid \
                FROM pg_catalog.unnest($1::text[]) AS u(name)) \
            SELECT conname::text, conrelid::pg_catalog.regclass::text, \
                confrelid::pg_catalog.regclass::text \
            FROM pg_catalog.pg_constraint WHERE contype = 'f' \
                AND (conrelid IN (SELECT oid FROM w) OR confrelid IN (SELECT oid FROM w)) \
            ORDER BY 1, 2 LIMIT $2";
        let params: [(&(dyn ToSql + Sync), Type); 2] =
            [(&asked, Type::TEXT_ARRAY), (&FOREIGN_MAX, Type::INT8)];
        let rows = self.question(sql, &params).await?;
        let key = |row: &Row| ForeignKey { name: row.get(0), from: row.get(1), to: row.get(2) };
        Ok(rows.iter().map(key).collect())
    }

    async fn columns_of(
        &mut self,
        wanted: &Wanted,
        facts: &mut PostgresFacts,
    ) -> Result<(), StoreError> {
        let pairs: Vec<_> = wanted.columns.iter().collect();
        let tables: Vec<String> =
            pairs.iter().map(|(table, _)| super::step::quoted(table)).collect();
        let columns: Vec<&str> = pairs.iter().map(|(_, column)| column.as_str()).collect();
        let sql = "SELECT w.at, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull, \
                ARRAY(SELECT pg_catalog.pg_get_constraintdef(k.oid) \
                    FROM pg_catalog.pg_constraint AS k WHERE k.conrelid = a.attrelid \
                    AND k.contype = 'c' AND k.convalidated AND a.attnum = ANY (k.conkey)), \
                COALESCE(s.avg_width, NULLIF(a.attlen, -1))::int8 \
            FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) WITH ORDINALITY AS w(name, col, at) \
            JOIN pg_catalog.pg_class AS c ON c.oid = pg_catalog.to_regclass(w.name) \
            JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
            JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attname = w.col \
                AND NOT a.attisdropped \
            LEFT JOIN LATERAL (SELECT pg_catalog.max(s.avg_width) AS avg_width \
                FROM pg_catalog.pg_stats AS s WHERE s.schemaname = n.nspname \
                AND s.tablename = c.relname AND s.attname = a.attname) AS s ON true";
        let params: [(&(dyn ToSql + Sync), Type); 2] =
            [(&tables, Type::TEXT_ARRAY), (&columns, Type::TEXT_ARRAY)];
        for row in &self.question(sql, &params).await? {
            let at = usize::try_from(row.get::<_, i64>(0)).unwrap_or(0);
            let Some(pair) = at.checked_sub(1).and_then(|at| pairs.get(at)) else { continue };
            let width: Option<i64> = row.get(4);
            let column = ColumnFacts {
                is: row.get(1),
                not_null: row.get(2),
                checks: row.get(3),
                width: width.and_then(|width| u64::try_from(width).ok()),
            };
            facts.columns.insert((*pair).clone(), column);
        }
        Ok(())
    }

    async fn types_of(
        &mut self,
        wanted: &Wanted,
        facts: &mut PostgresFacts,
    ) -> Result<(), StoreError> {
        let names: Vec<&str> = wanted.types.iter().map(String::as_str).collect();
        let sql = "SELECT w.name, pg_catalog.format_type(pg_catalog.to_regtype(w.name)::oid, NULL) \
            FROM pg_catalog.unnest($1::text[]) AS w(name) \
            WHERE pg_catalog.to_regtype(w.name) IS NOT NULL";
        let rows = self.question(sql, &[(&names, Type::TEXT_ARRAY)]).await?;
        facts.types = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        // A cast from or to a domain, or of a time zone, has no row there.
        let sql = "SELECT pg_catalog.format_type(castsource, NULL), \
                pg_catalog.format_type(casttarget, NULL) FROM pg_catalog.pg_cast \
            WHERE castmethod = 'b' AND casttarget IN (\
                SELECT pg_catalog.to_regtype(w.name)::oid \
                FROM pg_catalog.unnest($1::text[]) AS w(name))";
        let rows = self.question(sql, &[(&names, Type::TEXT_ARRAY)]).await?;
        facts.binary = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        // Postgres looks for a zone that never has another offset than 0. London had,
        // in each of these.
        let sql = "SELECT pg_catalog.bool_and(EXTRACT(timezone FROM at) = 0) \
            FROM (VALUES (timestamptz '1970-01-01 12:00Z'), ('1995-07-01 12:00Z'), \
                ('2020-07-01 12:00Z')) AS v(at)";
        let rows = self.question(sql, &[]).await?;
        facts.is_utc = rows.first().is_some_and(|row| row.get::<_, Option<bool>>(0) == Some(true));
        Ok(())
    }

    async fn steady(
        &mut self,
        wanted: &Wanted,
        facts: &mut PostgresFacts,
    ) -> Result<(), StoreError> {
        let functions: Vec<&QualifiedName> = wanted.functions.iter().collect();
        let schemas: Vec<Option<&str>> = functions.iter().map(|it| it.schema.as_deref()).collect();
        let names: Vec<&str> = functions.iter().map(|it| it.name.as_str()).collect();
        // Several have one name: all of them must be.
        let sql = "SELECT w.at FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) \
                WITH ORDINALITY AS w(schema, name, at) \
            JOIN pg_catalog.pg_proc AS p ON p.proname = w.name \
            JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace \
                AND (n.nspname = w.schema \
                    OR w.schema IS NULL AND pg_catalog.pg_function_is_visible(p.oid)) \
            GROUP BY w.at HAVING pg_catalog.bool_and(p.provolatile <> 'v')";
        let params: [(&(dyn ToSql + Sync), Type); 2] =
            [(&schemas, Type::TEXT_ARRAY), (&names, Type::TEXT_ARRAY)];
        let rows = self.question(sql, &params).await?;
        let at = rows.iter().filter_map(|row| usize::try_from(row.get::<_, i64>(0) - 1).ok());
        facts.steady = at.filter_map(|at| functions.get(at)).map(|it| (*it).clone()).collect();
        Ok(())
    }
}
