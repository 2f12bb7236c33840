//! What is in the databases, asked through the drivers: rows, documents, every
//! object that a migration can make, and the two histories.

use std::fmt::Write as _;

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use serde_json::{Map, Value, json};
use tokio_postgres::SimpleQueryMessage;

use crate::support::{Database, block_on, chain};

/// The five names that are ours, in both stores.
pub const OURS: [&str; 5] = [
    "migration_control",
    "migration_history",
    "migration_rejects",
    "migration_runs",
    "migration_steps",
];

impl Database {
    /// Runs SQL; the rows, a line for each, or what the server says against it.
    pub fn try_sql(&self, sql: &str) -> Result<Vec<String>, String> {
        let url = &self.postgres_url;
        let messages = block_on(async || {
            let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls)
                .await
                .expect("the Postgres for the tests answers");
            let connection = tokio::spawn(connection);
            let messages = client.simple_query(sql).await;
            drop(client);
            let _ = connection.await;
            messages.map_err(|error| chain(&error))
        })?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                let cells: Vec<&str> =
                    (0..row.len()).map(|at| row.get(at).unwrap_or("NULL")).collect();
                Some(cells.join(" | "))
            }
            _ => None,
        });
        Ok(rows.collect())
    }

    /// Runs SQL that must succeed.
    #[track_caller]
    pub fn sql(&self, sql: &str) -> Vec<String> {
        self.try_sql(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The one value of a query.
    #[track_caller]
    pub fn value(&self, sql: &str) -> String {
        self.sql(sql).pop().unwrap_or_else(|| panic!("{sql}: no row"))
    }

    /// Asks MongoDB.
    pub fn mongo<T: Send>(&self, ask: impl AsyncFnOnce(mongodb::Database) -> T + Send) -> T {
        let uri = &self.mongo_uri;
        std::thread::scope(|scope| {
            let asking = scope.spawn(move || {
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime starts")
                    .block_on(async {
                        let client = mongodb::Client::with_uri_str(uri).await.expect("a valid URI");
                        let database = client.default_database().expect("the URI names one");
                        let answer = ask(database).await;
                        client.shutdown().immediate(true).await;
                        answer
                    })
            });
            asking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a command, which must succeed.
    pub fn run(&self, command: Document) -> Document {
        let text = command.to_string();
        self.mongo(async |database| {
            database.run_command(command).await.unwrap_or_else(|error| panic!("{text}: {error}"))
        })
    }

    /// The documents of a collection, in the order of their ids.
    pub fn documents(&self, collection: &str) -> Vec<Document> {
        self.mongo(async |database| {
            let collection = database.collection::<Document>(collection);
            let found = collection.find(doc! {}).sort(doc! { "_id": 1 }).await;
            found.expect("it can be read").try_collect().await.expect("it can be read")
        })
    }

    /// Every object of both databases that is not ours, a line for each.
    pub fn objects(&self) -> String {
        let mut text = String::new();
        for line in self.sql(POSTGRES_OBJECTS) {
            let _ = writeln!(text, "postgres {line}");
        }
        for line in self.mongo(mongo_objects) {
            let _ = writeln!(text, "mongo {line}");
        }
        text
    }

    /// The names of everything that is ours, in both stores.
    pub fn ours(&self) -> Vec<String> {
        let sql = "SELECT 'postgres ' || relname FROM pg_class \
             WHERE relname LIKE 'migration\\_%' AND relkind = 'r' ORDER BY 1";
        let mut names = self.sql(sql);
        let collections = self.mongo(async |database| {
            let mut names = database.list_collection_names().await.expect("it can be asked");
            names.sort();
            names
        });
        let ours = collections.into_iter().filter(|name| OURS.contains(&name.as_str()));
        names.extend(ours.map(|name| format!("mongo {name}")));
        names
    }

    /// `migration_history` of both stores, which must be equal by value: every
    /// field of every row, times to the last microsecond that they have.
    #[track_caller]
    pub fn history(&self) -> Vec<Map<String, Value>> {
        let postgres = self.postgres_history();
        let mongo = self.mongo_history();
        assert_eq!(
            serde_json::to_string_pretty(&postgres).unwrap(),
            serde_json::to_string_pretty(&mongo).unwrap(),
            "the histories of Postgres (left) and MongoDB (right) differ"
        );
        postgres
    }

    fn postgres_history(&self) -> Vec<Map<String, Value>> {
        if self.value("SELECT to_regclass('public.migration_history') IS NULL") == "t" {
            return Vec::new();
        }
        // Microseconds, so that a fraction of a millisecond would be seen.
        let sql = "SELECT to_jsonb(h) || jsonb_build_object(\
             'executed_at', (extract(epoch FROM executed_at) * 1000000)::bigint, \
             'finished_at', (extract(epoch FROM finished_at) * 1000000)::bigint) \
             FROM public.migration_history AS h ORDER BY rank";
        let rows = self.sql(sql);
        rows.iter().map(|row| serde_json::from_str(row).expect("jsonb is JSON")).collect()
    }

    fn mongo_history(&self) -> Vec<Map<String, Value>> {
        let mut documents = self.documents("migration_history");
        documents.sort_by_key(|document| number(document.get("rank")));
        documents
            .into_iter()
            .map(|mut document| {
                assert_eq!(document.remove("_id"), document.get("version").cloned());
                for field in ["version", "execution_time_ms"] {
                    let value = document.get(field);
                    assert!(matches!(value, Some(Bson::Int64(_))), "{field} is {value:?}");
                }
                let fields = document.into_iter().map(|(key, value)| {
                    let value = match value {
                        Bson::DateTime(at) => json!(at.timestamp_millis() * 1000),
                        value => value.into_relaxed_extjson(),
                    };
                    (key, value)
                });
                fields.collect()
            })
            .collect()
    }

    /// Who holds the lease, by store: nobody, after every end of a run.
    pub fn holders(&self) -> Vec<String> {
        let mut holders = Vec::new();
        if self.value("SELECT to_regclass('public.migration_control') IS NOT NULL") == "t" {
            let sql = "SELECT 'postgres ' || holder::text FROM public.migration_control \
                 WHERE holder IS NOT NULL";
            holders = self.sql(sql);
        }
        let held = self.documents("migration_control").into_iter().filter_map(|control| {
            let holder = control.get("holder").filter(|holder| **holder != Bson::Null)?;
            Some(format!("mongo {holder}"))
        });
        holders.extend(held);
        holders
    }
}

/// A document on one line, its keys in their order.
pub fn line(document: &Document) -> String {
    serde_json::to_string(document).expect("a document is JSON")
}

fn number(value: Option<&Bson>) -> i64 {
    match value {
        Some(Bson::Int32(number)) => i64::from(*number),
        Some(Bson::Int64(number)) => *number,
        other => panic!("{other:?} is no number"),
    }
}

/// Every schema, relation, column, index, constraint, sequence, view, function,
/// type and trigger outside the system's schemas, ours excepted.
const POSTGRES_OBJECTS: &str = "
WITH schemas AS (
    SELECT oid, nspname FROM pg_namespace
    WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'
), relations AS (
    SELECT c.*, s.nspname || '.' || c.relname AS name
    FROM pg_class AS c JOIN schemas AS s ON s.oid = c.relnamespace
    WHERE c.relname NOT LIKE 'migration\\_%'
), lines AS (
    SELECT 'schema ' || nspname FROM schemas WHERE nspname <> 'public'
    UNION ALL
    SELECT CASE relkind WHEN 'r' THEN 'table ' WHEN 'v' THEN 'view ' WHEN 'S' THEN 'sequence '
        WHEN 'm' THEN 'materialized view ' WHEN 'p' THEN 'partitioned table ' ELSE relkind::text || ' ' END
        || name FROM relations WHERE relkind NOT IN ('i', 'I', 'c')
    UNION ALL
    SELECT 'column ' || name || '.' || attname || ' ' || format_type(atttypid, atttypmod)
        || CASE WHEN attnotnull THEN ' not null' ELSE '' END
        || COALESCE(' default ' || pg_get_expr(d.adbin, d.adrelid), '')
    FROM relations JOIN pg_attribute AS a ON a.attrelid = relations.oid
    LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE relkind IN ('r', 'p', 'm') AND attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT 'index ' || pg_get_indexdef(indexrelid)
        || CASE WHEN indisvalid THEN '' ELSE ' INVALID' END
    FROM pg_index JOIN relations ON relations.oid = indexrelid
    UNION ALL
    SELECT 'constraint ' || name || ' ' || conname || ' ' || pg_get_constraintdef(k.oid)
    FROM pg_constraint AS k JOIN relations ON relations.oid = conrelid
    UNION ALL
    SELECT 'function ' || p.oid::regprocedure::text FROM pg_proc AS p JOIN schemas AS s ON s.oid = pronamespace
    UNION ALL
    SELECT 'type ' || s.nspname || '.' || typname FROM pg_type AS t
    JOIN schemas AS s ON s.oid = typnamespace WHERE typtype IN ('e', 'd')
    UNION ALL
    SELECT 'trigger ' || name || ' ' || tgname FROM pg_trigger JOIN relations ON relations.oid = tgrelid
    WHERE NOT tgisinternal
)
SELECT * FROM lines ORDER BY 1";

/// Every collection with its options, every view, every index, ours excepted.
async fn mongo_objects(database: mongodb::Database) -> Vec<String> {
    let mut lines = Vec::new();
    let list = database.run_cursor_command(doc! { "listCollections": 1 }).await;
    let list: Vec<Document> =
        list.expect("it can be asked").try_collect().await.expect("it can be asked");
    for collection in list {
        let name = collection.get_str("name").expect("it has one");
        let kind = collection.get_str("type").expect("it has one");
        if OURS.contains(&name) || name.starts_with("system.") {
            continue;
        }
        let options = collection.get_document("options").cloned().unwrap_or_default();
        lines.push(format!("{kind} {name} {}", line(&options)));
        if kind == "view" {
            continue;
        }
        let indexes = database.run_cursor_command(doc! { "listIndexes": name }).await;
        let indexes: Vec<Document> =
            indexes.expect("it can be asked").try_collect().await.expect("it can be asked");
        for mut index in indexes {
            index.remove("v");
            lines.push(format!("index {name} {}", line(&index)));
        }
    }
    lines.sort();
    lines
}
