//! A Postgres with a standby that streams from it.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use lockstep::core::id::StoreName;
use lockstep::sandbox::{Options, Sandbox};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::block_on;
use crate::support::sql::{number, sql};
use crate::support::wait::until;

/// Both; dropping it ends both.
pub struct Pair {
    /// The primary.
    pub url: String,
    standby_url: String,
    standby: Option<Child>,
    _folder: TempDir,
    _sandbox: Sandbox,
}

impl Pair {
    /// Starts both, and waits until the standby streams.
    pub fn start() -> Pair {
        let env = |name: &str| std::env::var(name).ok();
        let options = Options { stores: vec![StoreName::Postgres], ..Options::new(&env) };
        let bin = options.programs.postgres.clone().expect("run scripts/setup: no Postgres");
        // Its other programs are beside the program itself, not beside links to it.
        let bin = fs::canonicalize(bin.join("postgres")).expect("it is there");
        let bin = bin.parent().expect("it is in a folder");
        let sandbox = block_on(|| Sandbox::start(&options, &|_| {})).expect("Postgres starts");
        let url = sandbox.postgres_url.clone().expect("it was asked for");
        let pid = sandbox.pid(StoreName::Postgres).expect("it is a program of this machine");
        // As whom the primary runs: Postgres refuses to be root.
        let owner = fs::metadata(format!("/proc/{pid}")).expect("it runs");
        let (uid, gid) = (owner.uid(), owner.gid());
        let folder = tempfile::tempdir().expect("a folder");
        chown(folder.path(), Some(uid), Some(gid)).expect("ours to give away");
        let data = folder.path().join("data");
        let program = |name: &str| {
            let mut command = Command::new(bin.join(name));
            command.current_dir(folder.path()).stdin(Stdio::null()).uid(uid).gid(gid);
            command
        };
        let copied = program("pg_basebackup")
            .args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--dbname", &url])
            .arg("--pgdata")
            .arg(&data)
            .status()
            .expect("pg_basebackup is beside postgres");
        assert!(copied.success(), "pg_basebackup copies the primary");

        let port = std::net::TcpListener::bind(("127.0.0.1", 0))
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let standby = program("postgres")
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string(), "-c", "unix_socket_directories="])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the standby starts");
        let (_, rest) = url.split_once("@127.0.0.1:").expect("it listens there");
        let (_, database) = rest.split_once('/').expect("a database");
        let standby_url = format!("postgres://postgres@127.0.0.1:{port}/{database}");
        let pair =
            Pair { url, standby_url, standby: Some(standby), _folder: folder, _sandbox: sandbox };
        let streams = "SELECT count(*) FROM pg_stat_replication \
                       WHERE state = 'streaming' AND replay_lsn IS NOT NULL";
        until("the standby to stream", || number(&pair.url, streams) == 1);
        pair
    }

    /// It goes on taking what the primary writes, and shows nothing of it.
    pub fn pause(&self) {
        sql(&self.standby_url, "SELECT pg_wal_replay_pause()");
        let paused = "SELECT (pg_get_wal_replay_pause_state() = 'paused')::int";
        until("the standby to pause", || number(&self.standby_url, paused) == 1);
    }

    /// It catches up.
    pub fn resume(&self) {
        sql(&self.standby_url, "SELECT pg_wal_replay_resume()");
    }

    /// There is no standby any more.
    pub fn end_standby(&mut self) {
        if let Some(mut standby) = self.standby.take() {
            let pid = i32::try_from(standby.id()).ok().and_then(Pid::from_raw);
            // At once, its children included.
            let _ = kill_process(pid.expect("a process id"), Signal::QUIT);
            let _ = standby.wait();
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.end_standby();
    }
}
