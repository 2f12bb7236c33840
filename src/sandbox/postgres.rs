//! A throwaway Postgres from the programs of this machine.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::ExitStatus;

use tokio::process::Command;
use tokio_postgres::{Client, NoTls};

use super::reaper::{Process, Reaper, User};
use super::{
    Attempt, DATABASE, START_LIMIT, SandboxError, Started, arguments, closed_to_others,
    on_a_free_port, still_starting, timed_out, until,
};
use crate::core::id::StoreName;

/// Paths of Unix sockets longer than this are refused by some systems.
const SOCKET_PATH_MAX: usize = 80;

/// The account to start Postgres under: our own, unless that is root, which
/// Postgres refuses.
pub(super) async fn server_user(bin: &Path) -> Result<Option<User>, SandboxError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    for name in ["postgres", "nobody"] {
        if let (Some(uid), Some(gid)) = (id("-u", name).await, id("-g", name).await) {
            let user = User { name: name.to_owned(), uid, gid };
            return match closed_to_others(bin) {
                None => Ok(Some(user)),
                Some(closed) => {
                    Err(SandboxError::Unreachable { user: user.name, bin: bin.to_owned(), closed })
                }
            };
        }
    }
    Err(SandboxError::NoUser)
}

/// `/etc/passwd` is not the only place where accounts are; `id` knows them all.
async fn id(which: &str, name: &str) -> Option<u32> {
    let output = Command::new("id").args([which, name]).kill_on_drop(true).output().await.ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

pub(super) async fn start(
    reaper: &Reaper,
    bin: &Path,
    user: Option<&User>,
    durable: bool,
) -> Result<Started, SandboxError> {
    let home = reaper.folder("postgres", user)?;
    let data = home.join("data");
    init(reaper, bin, user, &data).await?;
    configure(&home, &data, durable)
        .map_err(|source| SandboxError::Folder { dir: data.clone(), source })?;

    let program = bin.join("postgres");
    let (port, pid) = on_a_free_port(StoreName::Postgres, async |port| {
        let pid = reaper.spawn(&Process {
            name: StoreName::Postgres.word(),
            program: &program,
            args: arguments([&"-D", &data, &"-p", &port.to_string()]),
            user,
        })?;
        until(START_LIMIT, async || {
            if let Some(attempt) = still_starting(reaper, StoreName::Postgres, pid)? {
                return Ok(Some(attempt));
            }
            let Ok(client) = connect(port).await else { return Ok(None) };
            if !is_ours(&client, &data).await {
                return Ok(None);
            }
            client
                .batch_execute(&format!("CREATE DATABASE {DATABASE}"))
                .await
                .map_err(|source| SandboxError::Postgres { doing: "create a database", source })?;
            Ok(Some(Attempt::Ready(pid)))
        })
        .await?
        .ok_or_else(|| timed_out(reaper, StoreName::Postgres))
    })
    .await?;
    Ok(Started { url: url(port), pid: Some(pid) })
}

pub(super) fn url(port: u16) -> String {
    format!("postgres://postgres@127.0.0.1:{port}/{DATABASE}")
}

async fn init(
    reaper: &Reaper,
    bin: &Path,
    user: Option<&User>,
    data: &Path,
) -> Result<(), SandboxError> {
    // Where the machine has no C.UTF-8, text is compared by bytes all the same.
    let mut ended = initdb(reaper, bin, user, data, "C.UTF-8").await?;
    if !ended.success() && reaper.log_tail("initdb").contains("locale") {
        ended = initdb(reaper, bin, user, data, "C").await?;
    }
    if ended.success() {
        return Ok(());
    }
    Err(SandboxError::Ended {
        program: "initdb".to_owned(),
        status: ended,
        log: reaper.log_tail("initdb"),
    })
}

async fn initdb(
    reaper: &Reaper,
    bin: &Path,
    user: Option<&User>,
    data: &Path,
    locale: &str,
) -> Result<ExitStatus, SandboxError> {
    let locale = format!("--locale={locale}");
    let pid = reaper.spawn(&Process {
        name: "initdb",
        program: &bin.join("initdb"),
        args: arguments([
            &"-D",
            &data,
            &"--username=postgres",
            &"--auth=trust",
            &"--encoding=UTF8",
            &locale,
            // Whoever wants what they write to last asks for it with `durable`.
            &"--no-sync",
        ]),
        user,
    })?;
    until(START_LIMIT, async || reaper.ended(pid))
        .await?
        .ok_or_else(|| timed_out(reaper, StoreName::Postgres))
}

fn configure(home: &Path, data: &Path, durable: bool) -> std::io::Result<()> {
    let socket = home.to_str().filter(|dir| dir.len() <= SOCKET_PATH_MAX).unwrap_or("");
    let file = data.join("postgresql.conf");
    let mut text = fs::read_to_string(&file)?;
    write!(
        text,
        "\nlisten_addresses = '127.0.0.1'\n\
         unix_socket_directories = '{}'\n\
         max_connections = 200\n",
        socket.replace('\'', "''")
    )
    .expect("a String takes all text");
    if !durable {
        // Memory shared by parallel queries is in the folder too, and not in
        // /dev/shm, which is small in containers.
        text.push_str(
            "fsync = off\n\
             synchronous_commit = off\n\
             full_page_writes = off\n\
             dynamic_shared_memory_type = mmap\n",
        );
    }
    fs::write(&file, text)?;
    fs::write(
        data.join("pg_hba.conf"),
        "local all all trust\nhost all all 127.0.0.1/32 trust\n\
         local replication all trust\nhost replication all 127.0.0.1/32 trust\n",
    )
}

async fn connect(port: u16) -> Result<Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(port).user("postgres").dbname("postgres");
    config.connect_timeout(START_LIMIT);
    let (client, connection) = config.connect(NoTls).await?;
    // Ends with the client.
    tokio::spawn(connection);
    Ok(client)
}

/// The port may have gone to somebody else's server a moment ago.
async fn is_ours(client: &Client, data: &Path) -> bool {
    match client.query_one("SELECT current_setting('data_directory')", &[]).await {
        Ok(row) => row.try_get::<_, &str>(0).is_ok_and(|dir| Path::new(dir) == data),
        Err(_) => false,
    }
}
