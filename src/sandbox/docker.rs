//! Throwaway servers in containers, where the machine has no programs.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use tokio::process::Command;
use tokio_postgres::NoTls;

use super::mongo::{self, REPLICA_SET};
use super::reaper::{Process, Reaper};
use super::{DATABASE, START_LIMIT, SandboxError, Started, arguments, postgres, until};
use crate::core::id::StoreName;

/// The first time, an image has to be downloaded.
const RUN_LIMIT: Duration = Duration::from_mins(10);

/// What every container of ours is labelled with; the value is its sandbox.
const LABEL: &str = "lockstep.sandbox";

pub(super) fn image(store: StoreName) -> &'static str {
    match store {
        StoreName::Postgres => "postgres:16",
        StoreName::Mongo => "mongo:7",
    }
}

/// The port inside the container.
fn inner_port(store: StoreName) -> u16 {
    match store {
        StoreName::Postgres => 5432,
        StoreName::Mongo => 27017,
    }
}

/// Whether the program has a daemon to talk to; if not, what it said.
pub(super) async fn answers(docker: &Path) -> Result<(), String> {
    let output = Command::new(docker)
        .args(["version", "--format", "{{.Server.Version}}"])
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = match tokio::time::timeout(START_LIMIT, output).await {
        Ok(output) => output.map_err(|error| error.to_string())?,
        Err(_) => return Err(format!("no answer within {} seconds", START_LIMIT.as_secs())),
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no reason given").to_owned())
}

pub(super) async fn start(
    reaper: &Reaper,
    docker: &Path,
    store: StoreName,
    durable: bool,
) -> Result<Started, SandboxError> {
    let sandbox = reaper.dir().file_name().unwrap_or_default().to_string_lossy().into_owned();
    let container = format!("{sandbox}-{store}");
    // On record before it can exist.
    record(reaper, docker, &container)
        .map_err(|source| SandboxError::Folder { dir: reaper.dir().to_owned(), source })?;

    // Under the reaper too: a client that goes on after us would make a
    // container that nobody removes. The file it writes is not read; by its
    // path the reaper knows the process again.
    let name = format!("docker-{store}");
    let mut args = arguments([&"run", &"--cidfile", &reaper.dir().join(format!("{store}.cid"))]);
    args.extend(run_args(store, &container, &sandbox, durable).into_iter().map(OsString::from));
    let pid = reaper.spawn(&Process { name: &name, program: docker, args, user: None })?;
    let log = || reaper.log_tail(&name);
    let status = until(RUN_LIMIT, async || reaper.ended(pid))
        .await?
        .ok_or_else(|| SandboxError::Silent { store, limit: RUN_LIMIT, log: log() })?;
    if !status.success() {
        let program = format!("`docker run {}`", image(store));
        return Err(SandboxError::Ended { program, status, log: log() });
    }
    let port = published_port(docker, store, &container).await?;
    let answers = until(START_LIMIT, async || {
        let answers = match store {
            StoreName::Postgres => answers_at(&postgres::url(port)).await,
            StoreName::Mongo => mongo::answers(port).await?,
        };
        Ok(answers.then_some(()))
    })
    .await?;
    if answers.is_none() {
        let log = container_log(docker, &container).await;
        return Err(SandboxError::Silent { store, limit: START_LIMIT, log });
    }
    let url = match store {
        StoreName::Postgres => postgres::url(port),
        StoreName::Mongo => {
            let address = format!("127.0.0.1:{}", inner_port(store));
            mongo::initiate(reaper, port, &address, durable).await?;
            mongo::uri(port)
        }
    };
    Ok(Started { url, pid: None })
}

/// Tells the reaper of a container.
fn record(reaper: &Reaper, docker: &Path, container: &str) -> std::io::Result<()> {
    std::fs::write(reaper.dir().join("docker"), format!("{}\n", docker.display()))?;
    let mut file =
        OpenOptions::new().create(true).append(true).open(reaper.dir().join("containers"))?;
    file.write_all(format!("{container}\n").as_bytes())
}

/// The arguments of `docker run` that start a server. The port on this machine is
/// left to Docker: nobody else can have taken it in between.
fn run_args(store: StoreName, container: &str, sandbox: &str, durable: bool) -> Vec<String> {
    let mut args: Vec<String> =
        ["--detach", "--rm", "--name", container, "--label"].map(str::to_owned).into();
    args.push(format!("{LABEL}={sandbox}"));
    args.push("--publish".to_owned());
    args.push(format!("127.0.0.1::{}", inner_port(store)));
    let database = format!("POSTGRES_DB={DATABASE}");
    let rest: Vec<&str> = match store {
        StoreName::Postgres => {
            let mut rest = vec![
                "--env",
                "POSTGRES_HOST_AUTH_METHOD=trust",
                "--env",
                &database,
                "--shm-size",
                "256m",
                image(store),
                "-c",
                "max_connections=200",
            ];
            if !durable {
                rest.extend(["-c", "fsync=off", "-c", "synchronous_commit=off"]);
                rest.extend(["-c", "full_page_writes=off"]);
            }
            rest
        }
        StoreName::Mongo => {
            vec![
                image(store),
                "--replSet",
                REPLICA_SET,
                "--bind_ip_all",
                "--wiredTigerCacheSizeGB",
                "0.25",
            ]
        }
    };
    args.extend(rest.into_iter().map(str::to_owned));
    args
}

/// The last lines that a server in a container has written.
async fn container_log(docker: &Path, container: &str) -> String {
    let output = Command::new(docker)
        .args(["logs", "--tail", "15", container])
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output()
        .await;
    match output {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            String::from_utf8_lossy(&text).trim_end().to_owned()
        }
        Err(error) => format!("(its log cannot be read: {error})"),
    }
}

async fn published_port(
    docker: &Path,
    store: StoreName,
    container: &str,
) -> Result<u16, SandboxError> {
    let output = Command::new(docker)
        .args(["port", container, &format!("{}/tcp", inner_port(store))])
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|source| SandboxError::Spawn { program: docker.to_owned(), source })?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    parse_port(&said).ok_or(SandboxError::DockerPort { said })
}

/// Reads `127.0.0.1:49153`, the first line of what `docker port` says.
fn parse_port(said: &str) -> Option<u16> {
    said.lines().next()?.rsplit_once(':')?.1.trim().parse().ok()
}

async fn answers_at(url: &str) -> bool {
    // Until it has made its database, the image's server is not on the network.
    match tokio_postgres::connect(url, NoTls).await {
        Ok((client, connection)) => {
            let connection = tokio::spawn(connection);
            let answer = client.simple_query("SELECT 1").await.is_ok();
            connection.abort();
            answer
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(store: StoreName, durable: bool) -> String {
        run_args(store, "lockstep-1-x", "lockstep-1", durable).join(" ")
    }

    #[test]
    fn postgres_trusts_only_this_machine_and_does_not_flush() {
        assert_eq!(
            line(StoreName::Postgres, false),
            "--detach --rm --name lockstep-1-x --label lockstep.sandbox=lockstep-1 \
             --publish 127.0.0.1::5432 --env POSTGRES_HOST_AUTH_METHOD=trust \
             --env POSTGRES_DB=app --shm-size 256m postgres:16 -c max_connections=200 \
             -c fsync=off -c synchronous_commit=off -c full_page_writes=off"
        );
        assert!(!line(StoreName::Postgres, true).contains("off"));
    }

    #[test]
    fn mongo_is_a_replica_set() {
        assert_eq!(
            line(StoreName::Mongo, false),
            "--detach --rm --name lockstep-1-x --label lockstep.sandbox=lockstep-1 \
             --publish 127.0.0.1::27017 mongo:7 --replSet rs0 --bind_ip_all \
             --wiredTigerCacheSizeGB 0.25"
        );
    }

    #[test]
    fn a_port_is_read_from_what_docker_says() {
        assert_eq!(parse_port("127.0.0.1:49153"), Some(49153));
        assert_eq!(parse_port("0.0.0.0:49153\n[::]:49154"), Some(49153));
        assert_eq!(parse_port("Error: No such container"), None);
        assert_eq!(parse_port(""), None);
    }
}
