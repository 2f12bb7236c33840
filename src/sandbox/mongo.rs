//! A throwaway MongoDB: a replica set of one, because only a replica set has
//! transactions.

use std::path::Path;
use std::time::Duration;

use bson::{Document, doc};
use mongodb::Client;
use mongodb::error::ErrorKind;
use mongodb::options::ClientOptions;
use tokio::net::TcpStream;

use super::reaper::{Process, Reaper};
use super::{
    Attempt, DATABASE, START_LIMIT, SandboxError, Started, arguments, on_a_free_port,
    still_starting, timed_out, until,
};
use crate::core::id::StoreName;

/// The set's name.
pub(super) const REPLICA_SET: &str = "rs0";

/// Ample for tests; the default is half of the machine's memory.
const CACHE_GB: &str = "0.25";

/// A server that accepts connections answers within this time or is asked again.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// `AlreadyInitialized`, the code of an error of `replSetInitiate`.
const ALREADY_INITIALIZED: i32 = 23;

pub(super) async fn start(
    reaper: &Reaper,
    program: &Path,
    durable: bool,
) -> Result<Started, SandboxError> {
    let data = reaper.folder("mongo", None)?;
    let (port, pid) = on_a_free_port(StoreName::Mongo, async |port| {
        let pid = reaper.spawn(&Process {
            name: StoreName::Mongo.word(),
            program,
            args: arguments([
                &"--dbpath",
                &data,
                &"--port",
                &port.to_string(),
                &"--bind_ip",
                &"127.0.0.1",
                &"--nounixsocket",
                &"--replSet",
                &REPLICA_SET,
                &"--wiredTigerCacheSizeGB",
                &CACHE_GB,
                &"--setParameter",
                &"diagnosticDataCollectionEnabled=false",
            ]),
            user: None,
        })?;
        let ready = until(START_LIMIT, async || {
            if let Some(attempt) = still_starting(reaper, StoreName::Mongo, pid)? {
                return Ok(Some(attempt));
            }
            // The driver waits half a second after a refused connection: it
            // is asked when the port is open.
            if TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                return Ok(None);
            }
            let client = connect(port).await?;
            let ours = is_ours(&client, &data).await;
            client.shutdown().immediate(true).await;
            Ok(ours.then_some(Attempt::Ready(pid)))
        })
        .await?
        .ok_or_else(|| timed_out(reaper, StoreName::Mongo))?;
        if let Attempt::Ready(_) = ready {
            initiate(reaper, port, &format!("127.0.0.1:{port}"), durable).await?;
        }
        Ok(ready)
    })
    .await?;
    Ok(Started { url: uri(port), pid: Some(pid) })
}

pub(super) fn uri(port: u16) -> String {
    // Not by the name of the set: the member knows itself by another address
    // when it runs in a container.
    format!("mongodb://127.0.0.1:{port}/{DATABASE}?directConnection=true")
}

/// Makes a server a replica set of one and returns when it takes writes.
/// `host` is the address by which it knows itself.
pub(super) async fn initiate(
    reaper: &Reaper,
    port: u16,
    host: &str,
    durable: bool,
) -> Result<(), SandboxError> {
    let client = connect(port).await?;
    let admin = client.database("admin");
    match admin.run_command(doc! { "replSetInitiate": config(host, durable) }).await {
        Ok(_) => {}
        Err(error) if code(&error) == Some(ALREADY_INITIALIZED) => {}
        Err(source) => {
            return Err(SandboxError::Mongo { doing: "initiate the replica set", source });
        }
    }
    let primary = until(START_LIMIT, async || {
        let hello = admin.run_command(doc! { "hello": 1 }).await;
        let writable =
            hello.is_ok_and(|hello| hello.get_bool("isWritablePrimary").unwrap_or(false));
        Ok(writable.then_some(()))
    })
    .await?;
    client.shutdown().immediate(true).await;
    primary.ok_or_else(|| timed_out(reaper, StoreName::Mongo))
}

fn config(host: &str, durable: bool) -> Document {
    doc! {
        "_id": REPLICA_SET,
        "members": [{ "_id": 0, "host": host }],
        // A majority of one need not wait for the disk.
        "writeConcernMajorityJournalDefault": durable,
        "settings": { "electionTimeoutMillis": 500, "heartbeatIntervalMillis": 100 },
    }
}

/// Whether a server answers there at all.
pub(super) async fn answers(port: u16) -> Result<bool, SandboxError> {
    let client = connect(port).await?;
    let answer = client.database("admin").run_command(doc! { "ping": 1 }).await;
    client.shutdown().immediate(true).await;
    Ok(answer.is_ok())
}

async fn connect(port: u16) -> Result<Client, SandboxError> {
    let failed = |source| SandboxError::Mongo { doing: "connect", source };
    let mut options = ClientOptions::parse(uri(port)).await.map_err(failed)?;
    options.server_selection_timeout = Some(ANSWER_LIMIT);
    options.connect_timeout = Some(ANSWER_LIMIT);
    Client::with_options(options).map_err(failed)
}

/// The port may have gone to somebody else's server a moment ago.
async fn is_ours(client: &Client, data: &Path) -> bool {
    let options = client.database("admin").run_command(doc! { "getCmdLineOpts": 1 }).await;
    let path = |options: &Document| {
        Some(options.get_document("parsed").ok()?.get_document("storage").ok()?.clone())
    };
    options
        .ok()
        .as_ref()
        .and_then(path)
        .is_some_and(|storage| storage.get_str("dbPath").ok().map(Path::new) == Some(data))
}

fn code(error: &mongodb::error::Error) -> Option<i32> {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => Some(command.code),
        _ => None,
    }
}
