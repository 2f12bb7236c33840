//! Everything that is in both stores, as text.

use std::fmt::Write as _;

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use tokio_postgres::Client;

use crate::support::{Database, block_on};

/// What there is in both stores.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Dump {
    /// Schemas and data, without our own tables.
    pub data: String,
    /// What our own tables say, without times and names of runs.
    pub history: String,
    /// Leases and runs that nobody gave back or ended.
    pub left: String,
}

impl Dump {
    /// Fails unless this is what was expected, and nobody holds a lease.
    #[track_caller]
    pub fn is(&self, expected: &Dump, after: &str) {
        let pairs = [
            ("data", &self.data, &expected.data),
            ("history", &self.history, &expected.history),
            ("left over", &self.left, &String::new()),
        ];
        for (part, found, expected) in pairs {
            let only = |of: &str, sign: char, other: &str| {
                let more = of.lines().filter(|line| !other.lines().any(|it| it == *line));
                let lines: Vec<String> = more.map(|line| format!("{sign} {line}\n")).collect();
                lines.concat()
            };
            let difference = only(expected, '-', found) + &only(found, '+', expected);
            assert!(found == expected, "{part}:\n{difference}after: {after}");
        }
    }
}

const SCHEMA: &[&str] = &[
    "SELECT pg_catalog.format('%s %s %s %s', c.oid::regclass, c.relkind, c.relpersistence, c.reloptions) \
     FROM pg_class AS c WHERE {ours} AND c.relkind <> 'i' ORDER BY 1",
    "SELECT pg_catalog.format('%s.%s %s %s default %s', c.oid::regclass, a.attname, \
     format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid)) \
     FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
     LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum \
     WHERE {ours} AND c.relkind <> 'i' ORDER BY c.oid::regclass::text, a.attnum",
    "SELECT pg_catalog.format('%s %s %s %s', c.oid::regclass, k.conname, pg_get_constraintdef(k.oid), k.convalidated) \
     FROM pg_class AS c JOIN pg_constraint AS k ON k.conrelid = c.oid WHERE {ours} ORDER BY 1",
    "SELECT pg_catalog.format('%s valid %s ready %s', pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisready) \
     FROM pg_class AS c JOIN pg_index AS i ON i.indrelid = c.oid WHERE {ours} ORDER BY 1",
    "SELECT pg_catalog.format('%s %s', c.oid::regclass, pg_get_viewdef(c.oid)) FROM pg_class AS c \
     WHERE {ours} AND c.relkind IN ('v', 'm') ORDER BY 1",
    "SELECT pg_get_functiondef(p.oid) FROM pg_proc AS p WHERE p.pronamespace = 'public'::regnamespace ORDER BY 1",
];

const OURS: &str = "c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace, \
     'pg_toast'::regnamespace) AND c.relname NOT LIKE 'migration\\_%'";

const HISTORY: &[&str] = &[
    "SELECT pg_catalog.concat_ws(' | ', version, rank, migration_name, description, checksum, status, \
     finished_at IS NOT NULL, rollback_script, applied_by, release, tool_version) \
     FROM public.migration_history ORDER BY version",
    // Of each step that was not reverted, how far it came.
    "SELECT pg_catalog.concat_ws(' | ', version, step, rank, checksum, migration_checksum, \
     bool_or(event = 'applied'), bool_or(event = 'reverting')) \
     FROM public.migration_steps AS s \
     WHERE attempt = (SELECT max(attempt) FROM public.migration_steps AS t \
     WHERE (t.version, t.step) = (s.version, s.step)) \
     GROUP BY version, step, rank, checksum, migration_checksum \
     HAVING NOT bool_or(event = 'reverted') ORDER BY version, step",
    "SELECT 'aside ' || key FROM public.migration_rejects ORDER BY number",
];

const LEFT: &[&str] = &[
    "SELECT 'lease ' || holder::text FROM public.migration_control WHERE holder IS NOT NULL OR expires_at IS NOT NULL",
    "SELECT 'run ' || run_id || ' ' || command FROM public.migration_runs WHERE outcome = 'running'",
];

/// Everything that is in both stores.
pub fn dump(database: &Database) -> Dump {
    dump_at(&database.postgres_url, &database.mongo_uri)
}

/// Everything that is in both stores.
pub fn dump_at(postgres_url: &str, mongo_uri: &str) -> Dump {
    block_on(async || {
        let mut dump = Dump { data: String::new(), history: String::new(), left: String::new() };
        postgres(&mut dump, postgres_url).await;
        mongo(&mut dump, mongo_uri).await;
        dump
    })
}

/// Leases and runs that nobody gave back or ended, where the data is too much to dump.
pub fn left(database: &Database) -> String {
    block_on(async || {
        let mut left = String::new();
        let (client, connection) =
            tokio_postgres::connect(&database.postgres_url, tokio_postgres::NoTls)
                .await
                .expect("Postgres answers");
        let connection = tokio::spawn(connection);
        for question in LEFT {
            lines(&client, question, &mut left).await;
        }
        drop(client);
        let _ = connection.await;
        let client = mongodb::Client::with_uri_str(&database.mongo_uri).await.expect("a valid URI");
        let here = client.default_database().expect("a URI with a database");
        for (collection, filter) in [
            ("migration_control", doc! { "holder": { "$ne": null } }),
            ("migration_runs", doc! { "outcome": "running" }),
        ] {
            let found = here.collection::<Document>(collection).find(filter).await;
            let found: Vec<Document> = found.unwrap().try_collect().await.unwrap();
            for document in found {
                writeln!(left, "{document}").unwrap();
            }
        }
        client.shutdown().immediate(true).await;
        left
    })
}

async fn postgres(dump: &mut Dump, url: &str) {
    let (client, connection) =
        tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("Postgres answers");
    let connection = tokio::spawn(connection);
    for question in SCHEMA {
        lines(&client, &question.replace("{ours}", OURS), &mut dump.data).await;
    }
    let tables = format!(
        "SELECT c.oid::regclass::text FROM pg_class AS c WHERE {OURS} AND c.relkind = 'r' ORDER BY 1"
    );
    let mut names = String::new();
    lines(&client, &tables, &mut names).await;
    for table in names.lines() {
        let rows = format!("SELECT '{table} ' || t::text FROM {table} AS t ORDER BY t::text");
        lines(&client, &rows, &mut dump.data).await;
    }
    let exists = "SELECT 'yes' WHERE to_regclass('public.migration_control') IS NOT NULL";
    let mut founded = String::new();
    lines(&client, exists, &mut founded).await;
    if !founded.is_empty() {
        for question in HISTORY {
            lines(&client, question, &mut dump.history).await;
        }
        for question in LEFT {
            lines(&client, question, &mut dump.left).await;
        }
    }
    drop(client);
    let _ = connection.await;
}

async fn lines(client: &Client, question: &str, into: &mut String) {
    let rows = client.query(question, &[]).await;
    for row in rows.unwrap_or_else(|error| panic!("{question}: {error:?}")) {
        into.push_str(row.get(0));
        into.push('\n');
    }
}

async fn mongo(dump: &mut Dump, uri: &str) {
    let client = mongodb::Client::with_uri_str(uri).await.expect("a valid URI");
    let database = client.default_database().expect("a URI with a database");
    let list = doc! { "listCollections": 1 };
    let mut collections: Vec<Document> =
        database.run_cursor_command(list).await.unwrap().try_collect().await.unwrap();
    collections.sort_by_key(|collection| collection.get_str("name").unwrap().to_owned());
    for collection in &collections {
        let name = collection.get_str("name").unwrap();
        let mut documents: Vec<Document> = database
            .collection::<Document>(name)
            .find(doc! {})
            .sort(doc! { "_id": 1 })
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        match name {
            "migration_history" => {
                for document in &mut documents {
                    for field in ["executed_at", "execution_time_ms", "run_id"] {
                        document.remove(field).expect("the field is there");
                    }
                    let finished = document.get("finished_at") != Some(&Bson::Null);
                    document.insert("finished_at", finished);
                    writeln!(dump.history, "{document}").unwrap();
                }
            }
            "migration_steps" => steps(&documents, &mut dump.history),
            "migration_rejects" => {
                for document in &documents {
                    writeln!(dump.history, "aside {}", document.get_str("key").unwrap()).unwrap();
                }
            }
            "migration_control" => {
                let held = |document: &&Document| {
                    ["holder", "expires_at"]
                        .iter()
                        .any(|field| document.get(field) != Some(&Bson::Null))
                };
                for document in documents.iter().filter(held) {
                    writeln!(dump.left, "{document}").unwrap();
                }
            }
            "migration_runs" => {
                for document in &documents {
                    if document.get_str("outcome").ok() == Some("running") {
                        writeln!(dump.left, "{document}").unwrap();
                    }
                }
            }
            _ => {
                let (kind, options) = (collection.get("type"), collection.get("options"));
                writeln!(dump.data, "{name} {kind:?} {options:?}").unwrap();
                let mut indexes: Vec<Document> = database
                    .run_cursor_command(doc! { "listIndexes": name })
                    .await
                    .unwrap()
                    .try_collect()
                    .await
                    .unwrap();
                indexes.sort_by_key(|index| index.get_str("name").unwrap().to_owned());
                for line in indexes.iter().chain(&documents) {
                    writeln!(dump.data, "{name} {line}").unwrap();
                }
            }
        }
    }
    client.shutdown().immediate(true).await;
}

/// Of each step that was not reverted, how far it came.
fn steps(documents: &[Document], into: &mut String) {
    let key = |document: &Document| {
        format!("{} {}", document.get("version").unwrap(), document.get_str("step").unwrap())
    };
    let attempt =
        |document: &Document| document.get("attempt").unwrap().to_string().parse::<i64>().unwrap();
    let mut keys: Vec<String> = documents.iter().map(key).collect();
    keys.sort();
    keys.dedup();
    for step in keys {
        let of_step: Vec<&Document> = documents.iter().filter(|it| key(it) == step).collect();
        let last = of_step.iter().map(|it| attempt(it)).max();
        let last: Vec<&Document> =
            of_step.into_iter().filter(|it| Some(attempt(it)) == last).collect();
        let has = |event: &str| last.iter().any(|it| it.get_str("event").ok() == Some(event));
        if !has("reverted") {
            let text = |field: &str| last[0].get(field).unwrap().to_string();
            let (rank, own, whole) = (text("rank"), text("checksum"), text("migration_checksum"));
            let (applied, reverting) = (has("applied"), has("reverting"));
            writeln!(into, "{step} {rank} {own} {whole} {applied} {reverting}").unwrap();
        }
    }
}
