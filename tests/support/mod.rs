//! Real servers for tests: one pair for each test process, a database of its
//! own for each test.
//!
//! ```ignore
//! #[path = "../support/mod.rs"]
//! mod support;
//!
//! #[test]
//! fn something_holds() {
//!     let database = support::Database::new("something");
//!     // database.postgres_url, database.mongo_uri; gone at the end of the test
//! }
//! ```
//!
//! Works in a plain test and in one with a runtime. A pair that exists already
//! is used when `LOCKSTEP_TEST_POSTGRES` and `LOCKSTEP_TEST_MONGO` name it.

#![allow(dead_code, reason = "each test binary uses what it needs")]

pub mod pair;
pub mod sql;
pub mod wait;

use std::sync::OnceLock;

use bson::{Document, doc};
use futures_util::TryStreamExt;
pub use lockstep::core::causes::chain;
use lockstep::sandbox::{Notice, Options, Sandbox, SandboxError};

/// The pair of this process.
pub struct Servers {
    /// A superuser's URL.
    pub postgres_url: String,
    /// The primary of a replica set.
    pub mongo_uri: String,
    /// Never dropped, as nothing in a static is: its reaper ends the servers
    /// when this process ends.
    sandbox: Option<Sandbox>,
}

/// The pair of this process, started by whoever asks first.
///
/// # Panics
/// Without servers nothing was tested, so the test fails and says how to get them.
pub fn servers() -> &'static Servers {
    static SERVERS: OnceLock<Servers> = OnceLock::new();
    SERVERS.get_or_init(|| {
        let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        match (env("LOCKSTEP_TEST_POSTGRES"), env("LOCKSTEP_TEST_MONGO")) {
            (Some(postgres_url), Some(mongo_uri)) => {
                return Servers { postgres_url, mongo_uri, sandbox: None };
            }
            (None, None) => {}
            _ => panic!("set both LOCKSTEP_TEST_POSTGRES and LOCKSTEP_TEST_MONGO, or neither"),
        }
        let options = Options::new(&env);
        let sandbox = match block_on(|| Sandbox::start(&options, &|_: Notice| {})) {
            Ok(sandbox) => sandbox,
            Err(error @ SandboxError::NoPrograms { .. }) => {
                panic!("run scripts/setup: the tests need real servers\n{error}")
            }
            Err(error) => panic!("the servers for the tests did not start: {}", chain(&error)),
        };
        Servers {
            postgres_url: sandbox.postgres_url.clone().expect("it was asked for"),
            mongo_uri: sandbox.mongo_uri.clone().expect("it was asked for"),
            sandbox: Some(sandbox),
        }
    })
}

/// An empty database in each server, for one test. Dropping it drops both.
pub struct Database {
    /// Its name, in both.
    pub name: String,
    /// For Postgres.
    pub postgres_url: String,
    /// For MongoDB.
    pub mongo_uri: String,
}

impl Database {
    /// Makes a database in Postgres; MongoDB makes its own with the first write.
    pub fn new(name: &str) -> Database {
        let servers = servers();
        let id = uuid::Uuid::new_v4().simple().to_string();
        let name = format!("{}_{}", name.replace('-', "_"), &id[..8]);
        block_on(|| postgres(&servers.postgres_url, format!("CREATE DATABASE \"{name}\"")));
        Database {
            postgres_url: with_database(&servers.postgres_url, &name),
            mongo_uri: with_database(&servers.mongo_uri, &name),
            name,
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let servers = servers();
        let drop_postgres = format!("DROP DATABASE IF EXISTS \"{}\" WITH (FORCE)", self.name);
        let name = self.name.clone();
        block_on(async || {
            postgres(&servers.postgres_url, drop_postgres).await;
            let client =
                mongodb::Client::with_uri_str(&servers.mongo_uri).await.expect("a valid URI");
            end_transactions(&client, &name).await;
            client.database(&name).drop().await.expect("the test database can be dropped");
            client.shutdown().immediate(true).await;
        });
    }
}

/// Ends transactions that a run left open when it was killed or cut off: until the
/// server does, after a minute, its database cannot be dropped. A run names the
/// database at the end of the name that it connects with.
async fn end_transactions(client: &mongodb::Client, database: &str) {
    let admin = client.database("admin");
    let open = [
        doc! { "$currentOp": { "allUsers": true, "idleSessions": true } },
        doc! { "$match": {
            "appName": { "$regex": format!("^lockstep/.* {database}$") },
            "transaction": { "$exists": true },
        } },
    ];
    let open = admin.aggregate(open).await.expect("the server says what is open");
    let open: Vec<Document> = open.try_collect().await.expect("to the end");
    let ids = open.iter().filter_map(|session| session.get_document("lsid").ok()?.get("id"));
    let ids: Vec<Document> = ids.map(|id| doc! { "id": id.clone() }).collect();
    if !ids.is_empty() {
        admin.run_command(doc! { "killSessions": ids }).await.expect("they can be ended");
    }
}

async fn postgres(url: &str, sql: String) {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls)
        .await
        .expect("the Postgres for the tests answers");
    let connection = tokio::spawn(connection);
    client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {}", chain(&error)));
    drop(client);
    let _ = connection.await;
}

/// Waits for a future on a runtime of its own, on a thread of its own: a
/// runtime cannot be waited for within another.
pub fn block_on<F: Future<Output: Send>>(future: impl FnOnce() -> F + Send) -> F::Output {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime starts")
                    .block_on(future())
            })
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Makes a program believe in another time. It is where Debian puts it, and others.
pub fn libfaketime() -> std::path::PathBuf {
    let places = "ls /usr/lib/*/faketime/libfaketimeMT.so.1 /usr/lib*/faketime/libfaketimeMT.so.1";
    let found = std::process::Command::new("sh").args(["-c", places]).output().expect("a shell");
    let text = String::from_utf8(found.stdout).expect("paths");
    let first = text.lines().next().expect("scripts/setup --tests installs faketime");
    first.into()
}

/// The same server, another database.
fn with_database(url: &str, name: &str) -> String {
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let (base, query) = rest.split_once('?').map_or((rest, None), |(base, q)| (base, Some(q)));
    let authority = base.split_once('/').map_or(base, |(authority, _)| authority);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{scheme}://{authority}/{name}{query}")
}
