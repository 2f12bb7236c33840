//! What `migrate doctor` asks a Postgres. Each question is in a read-only
//! transaction of its own: nothing can be changed, not even by mistake.

use super::history::OWN_TIMEOUTS;
use super::{Postgres, failed, quote};
use crate::core::doctor::{
    HISTORY, HistoryFacts, Needs, PostgresFacts, RelationFacts, SchemaFacts, StandbyFacts,
};
use crate::core::parse::sql::needs::SqlNeed;
use crate::core::step::QualifiedName;
use crate::engine::Clock;
use crate::store::StoreError;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

const ASK: &str = "examine the server";

/// A pooler that has no second session to give keeps us waiting no longer.
const SECOND_LIMIT: Duration = Duration::from_secs(2);

const SERVER: &str = "
SELECT current_setting('server_version'),
    pg_is_in_recovery(),
    current_setting('default_transaction_read_only') = 'on',
    current_user::text,
    current_database()::text,
    current_setting('application_name'),
    (SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl),
    inet_client_addr() IS NULL OR inet_client_addr() <<= '127.0.0.0/8' OR inet_client_addr() = '::1',
    has_database_privilege(current_database(), 'CREATE'),
    pg_has_role('pg_read_all_stats', 'USAGE'),
    pg_has_role('pg_signal_backend', 'USAGE'),
    pg_database_size(current_database()),
    current_schema()::text";

const SCHEMAS: &str = "
SELECT nspname::text, has_schema_privilege(oid, 'CREATE'), has_schema_privilege(oid, 'USAGE')
FROM pg_namespace WHERE nspname = ANY ($1)";

const RELATIONS: &str = "
SELECT q.at, format('%I.%I', c.nspname, c.relname), pg_get_userbyid(c.relowner)::text,
    pg_has_role(c.relowner, 'USAGE'),
    ARRAY(SELECT p FROM unnest($3::text[]) AS p
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND has_table_privilege(c.oid, p)),
    CASE WHEN c.relkind IN ('r', 'p', 'm') THEN coalesce(pg_table_size(c.oid), 0) ELSE 0 END
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS q (schema, name, at)
CROSS JOIN LATERAL (
    SELECT r.*, n.nspname FROM pg_class AS r JOIN pg_namespace AS n ON n.oid = r.relnamespace
    WHERE r.relname = q.name
        AND (n.nspname = q.schema OR q.schema IS NULL AND n.nspname = ANY (current_schemas(true)))
    ORDER BY array_position(current_schemas(true), n.nspname) LIMIT 1
) AS c";

/// Those that are being built right now are not valid yet.
const INVALID: &str = "
SELECT format('%I.%I on %s', n.nspname, i.relname, x.indrelid::regclass)
FROM pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid JOIN pg_namespace AS n ON n.oid = i.relnamespace
WHERE NOT x.indisvalid AND i.relkind = 'i'
    AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index AS p WHERE p.index_relid = i.oid)
ORDER BY 1 LIMIT 100";

const OLD: &str = "
SELECT format('session %s of %s (%s), %s for %s min', pid, usename, application_name, state,
    (extract(epoch FROM clock_timestamp() - xact_start) / 60)::int)
FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
    AND xact_start < clock_timestamp() - interval '5 minutes'
UNION ALL
SELECT format('prepared transaction %L of %s for %s min', gid, owner,
    (extract(epoch FROM clock_timestamp() - prepared) / 60)::int)
FROM pg_prepared_xacts
WHERE database = current_database() AND prepared < clock_timestamp() - interval '5 minutes'
LIMIT 100";

const HIDDEN: &str = "
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND query = '<insufficient privilege>'";

const STANDBYS: &str = "
SELECT application_name, (extract(epoch FROM replay_lag) * 1000)::bigint FROM pg_stat_replication";

impl Postgres {
    /// Finds out what matters before a deployment. Changes nothing.
    ///
    /// # Errors
    /// A lost connection, or a server that does not answer what every role may
    /// ask.
    pub async fn examine(
        &mut self,
        needs: &Needs,
        clock: &dyn Clock,
    ) -> Result<PostgresFacts, StoreError> {
        let pooled = self.is_pooled().await?;
        let asked = Asked { client: &self.client, path: self.config.schema.as_deref() };

        let before = clock.now().0;
        let began = Instant::now();
        let now = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
        let now = self.client.query_typed(now, &[]).await.map_err(|error| failed(ASK, &error))?;
        let took = began.elapsed();
        let middle = before.midpoint(clock.now().0);
        let server_now: i64 = now.first().map_or(middle, |row| row.get(0));

        let rows = asked.ask(SERVER, &[]).await?;
        let Some(server) = rows.first() else {
            let nothing = "the server answered nothing";
            let store = crate::core::id::StoreName::Postgres;
            return Err(StoreError::new(store, ASK, crate::store::Fate::Corrupt, nothing));
        };
        let sees_others: bool = server.get(9);
        let own_schema: Option<String> = server.get(12);
        let standbys = match sees_others {
            true => Some(asked.ask(STANDBYS, &[]).await?.iter().map(standby).collect()),
            false => None,
        };
        let hidden = asked.ask(HIDDEN, &[]).await?;
        Ok(PostgresFacts {
            place: self.config.place(),
            version: server.get::<_, &str>(0).split(' ').next().unwrap_or_default().to_owned(),
            latency_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            tls: server.get(6),
            local: server.get(7),
            skew_ms: server_now.saturating_sub(middle),
            in_recovery: server.get(1),
            read_only: server.get(2),
            role: server.get(3),
            database: server.get(4),
            named: server.get::<_, &str>(5) == format!("lockstep/{}", self.run_id),
            pooled,
            create_in_database: server.get(8),
            sees_others,
            ends_others: server.get(10),
            database_bytes: server.get(11),
            history: self.history(&asked).await?,
            schemas: schemas(&asked, needs, own_schema.as_deref()).await?,
            relations: relations(&asked, needs).await?,
            standbys,
            invalid_indexes: texts(&asked.ask(INVALID, &[]).await?),
            old_transactions: texts(&asked.ask(OLD, &[]).await?),
            hidden_sessions: hidden.first().map_or(0, |row| row.get(0)),
        })
    }

    /// Behind a pooler in transaction mode, a second connection is given the
    /// session that the first one just had, or the first one gets another when
    /// the second holds it.
    async fn is_pooled(&self) -> Result<bool, StoreError> {
        const PID: &str = "SELECT pg_backend_pid()";
        let failed = |error: tokio_postgres::Error| failed(ASK, &error);
        let first = self.client.query_typed(PID, &[]).await.map_err(failed)?;
        // No room for a second connection is nothing that this check is about.
        let Ok(second) = self.another_client().await else { return Ok(false) };
        let holds = async {
            second.batch_execute("BEGIN READ ONLY").await?;
            second.query_typed(PID, &[]).await
        };
        let held = match tokio::time::timeout(SECOND_LIMIT, holds).await {
            Ok(held) => held.map_err(failed)?,
            Err(_) => return Ok(false),
        };
        let again = tokio::time::timeout(SECOND_LIMIT, self.client.query_typed(PID, &[])).await;
        second.batch_execute("ROLLBACK").await.map_err(failed)?;
        let pid = |rows: &[Row]| rows.first().map(|row| row.get::<_, i32>(0));
        // Whoever has to wait for the other's session shares it.
        let Ok(again) = again else { return Ok(true) };
        let again = again.map_err(failed)?;
        Ok(pid(&first) == pid(&held) || pid(&first) != pid(&again))
    }

    async fn history(&self, asked: &Asked<'_>) -> Result<HistoryFacts, StoreError> {
        let schema = &self.config.history_schema;
        let tables: Vec<Option<String>> = vec![Some(schema.clone()); HISTORY.len()];
        let names: Vec<String> = HISTORY.map(str::to_owned).to_vec();
        let wanted: Vec<String> =
            ["SELECT", "INSERT", "UPDATE", "DELETE"].map(str::to_owned).into();
        let found = asked
            .ask(
                RELATIONS,
                &[
                    (&tables, Type::TEXT_ARRAY),
                    (&names, Type::TEXT_ARRAY),
                    (&wanted, Type::TEXT_ARRAY),
                ],
            )
            .await?;
        let schemas = asked.ask(SCHEMAS, &[(&vec![schema.clone()], Type::TEXT_ARRAY)]).await?;
        let mut facts = HistoryFacts {
            schema: SchemaFacts {
                name: schema.clone(),
                create: schemas.first().map(|row| row.get(1)),
            },
            ..HistoryFacts::default()
        };
        if schemas.first().is_some_and(|row| !row.get::<_, bool>(2)) {
            facts.lacking.push(format!("USAGE on schema {schema}"));
        }
        for row in &found {
            let name: String = row.get(1);
            let has: Vec<String> = row.get(4);
            // Only a migration's row is ever taken away again.
            let deletes = name.ends_with(".migration_history");
            let lacking = wanted
                .iter()
                .filter(|wanted| !has.contains(wanted) && (deletes || *wanted != "DELETE"));
            facts.lacking.extend(lacking.map(|privilege| format!("{privilege} on {name}")));
            facts.present.push(name);
        }
        Ok(facts)
    }
}

/// A session, and the search path of the scripts.
struct Asked<'a> {
    client: &'a Client,
    path: Option<&'a str>,
}

impl Asked<'_> {
    async fn ask(
        &self,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, StoreError> {
        let path = self.path.map(|path| format!("; SET LOCAL search_path = {}", quote(path)));
        let begin = format!("BEGIN READ ONLY; {OWN_TIMEOUTS}{}", path.unwrap_or_default());
        let rows = async {
            self.client.batch_execute(&begin).await?;
            self.client.query_typed(sql, parameters).await
        }
        .await;
        // Its error is the first one's consequence.
        let _ = self.client.batch_execute("ROLLBACK").await;
        rows.map_err(|error| failed(ASK, &error))
    }
}

fn texts(rows: &[Row]) -> Vec<String> {
    rows.iter().map(|row| row.get(0)).collect()
}

fn standby(row: &Row) -> StandbyFacts {
    let name: Option<String> = row.get(0);
    StandbyFacts { name: name.unwrap_or_default(), lag_ms: row.get(1) }
}

async fn schemas(
    asked: &Asked<'_>,
    needs: &Needs,
    own: Option<&str>,
) -> Result<Vec<SchemaFacts>, StoreError> {
    let named: BTreeSet<String> = needs
        .postgres
        .iter()
        .filter_map(|need| match need {
            SqlNeed::CreateIn(Some(schema)) => Some(schema.clone()),
            SqlNeed::CreateIn(None) => own.map(str::to_owned),
            _ => None,
        })
        .collect();
    let named: Vec<String> = named.into_iter().collect();
    let rows = asked.ask(SCHEMAS, &[(&named, Type::TEXT_ARRAY)]).await?;
    let facts = |row: &Row| SchemaFacts { name: row.get(0), create: row.get(1) };
    Ok(rows.iter().map(facts).collect())
}

async fn relations(asked: &Asked<'_>, needs: &Needs) -> Result<Vec<RelationFacts>, StoreError> {
    let named: BTreeSet<&QualifiedName> = needs
        .postgres
        .iter()
        .filter_map(|need| match need {
            SqlNeed::Own(name) | SqlNeed::Index(name) | SqlNeed::Table(name, _) => Some(name),
            SqlNeed::CreateIn(_) | SqlNeed::CreateInDatabase => None,
        })
        .collect();
    let named: Vec<&QualifiedName> = named.into_iter().collect();
    let schemas: Vec<Option<&str>> = named.iter().map(|name| name.schema.as_deref()).collect();
    let names: Vec<&str> = named.iter().map(|name| name.name.as_str()).collect();
    let wanted = ["INSERT", "UPDATE", "DELETE", "TRUNCATE", "TRIGGER"].to_vec();
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&schemas, Type::TEXT_ARRAY), (&names, Type::TEXT_ARRAY), (&wanted, Type::TEXT_ARRAY)];
    let rows = asked.ask(RELATIONS, &parameters).await?;
    let facts = |row: &Row| {
        let at = usize::try_from(row.get::<_, i64>(0)).ok()?.checked_sub(1)?;
        Some(RelationFacts {
            named: (*named.get(at)?).clone(),
            name: row.get(1),
            owner: row.get(2),
            ours: row.get(3),
            privileges: row.get(4),
            bytes: row.get(5),
        })
    };
    Ok(rows.iter().filter_map(facts).collect())
}
