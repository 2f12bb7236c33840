//! MongoDB servers of our own: a set of three or two, or a server alone.

#![allow(dead_code, reason = "each test binary uses what it needs")]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use bson::{Document, doc};
use tempfile::TempDir;

use crate::support::block_on;
use crate::support::wait::until;

/// One server, at its port for good.
struct Member {
    port: u16,
    data: PathBuf,
    process: Option<Child>,
}

/// Servers that belong together. Dropping them kills them.
pub struct Members {
    all: Vec<Member>,
    set: bool,
    _folder: TempDir,
}

impl Members {
    /// A server without a replica set: it has no transactions.
    pub fn standalone() -> Members {
        Members::start(1, false)
    }

    /// A replica set of three that has a primary.
    pub fn three() -> Members {
        Members::set_of(3, |_| 1)
    }

    /// A replica set of two, of which the first is the primary for good. Only both
    /// together are a majority.
    pub fn two() -> Members {
        Members::set_of(2, |at| i32::from(at == 0))
    }

    fn set_of(count: usize, priority: fn(usize) -> i32) -> Members {
        let set = Members::start(count, true);
        let members = set.all.iter().zip(0_i32..).enumerate();
        let members: Vec<Document> = members
            .map(|(at, (member, id))| {
                let host = format!("127.0.0.1:{}", member.port);
                doc! { "_id": id, "host": host, "priority": priority(at) }
            })
            .collect();
        let config = doc! {
            "_id": "members", "members": members,
            "settings": { "electionTimeoutMillis": 1000, "heartbeatIntervalMillis": 200 },
        };
        ask(set.all[0].port, doc! { "replSetInitiate": config }).expect("a set is made");
        set.wait_for_primary();
        set
    }

    fn start(count: usize, set: bool) -> Members {
        let folder = tempfile::tempdir().expect("a folder");
        let members = (0..count).map(|at| {
            let data = folder.path().join(at.to_string());
            std::fs::create_dir(&data).expect("a folder");
            let port = std::net::TcpListener::bind(("127.0.0.1", 0))
                .and_then(|listener| listener.local_addr())
                .expect("a free port")
                .port();
            Member { port, data, process: None }
        });
        let mut members = Members { all: members.collect(), set, _folder: folder };
        for at in 0..count {
            members.start_member(at);
        }
        members
    }

    /// Starts a member, again if it was killed, until it answers.
    pub fn start_member(&mut self, at: usize) {
        let env = |name: &str| std::env::var(name).ok();
        let mongod = lockstep::sandbox::find(&env).mongod.expect("run scripts/setup: no mongod");
        let member = &mut self.all[at];
        let mut command = Command::new(mongod);
        command
            .args(["--bind_ip", "127.0.0.1", "--nounixsocket", "--wiredTigerCacheSizeGB", "0.25"])
            .args(["--setParameter", "diagnosticDataCollectionEnabled=false"])
            .args(["--port", &member.port.to_string(), "--dbpath"])
            .arg(&member.data)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if self.set {
            command.args(["--replSet", "members"]);
        }
        member.process = Some(command.spawn().expect("mongod starts"));
        until("a mongod to answer", || ask(member.port, doc! { "ping": 1 }).is_some());
    }

    /// Kills a member with `kill -9`.
    pub fn kill_member(&mut self, at: usize) {
        if let Some(mut process) = self.all[at].process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// The member that takes writes, if one does.
    pub fn primary(&self) -> Option<usize> {
        let is_primary = |member: &Member| {
            let hello = ask(member.port, doc! { "hello": 1 });
            hello.is_some_and(|hello| hello.get_bool("isWritablePrimary").unwrap_or(false))
        };
        self.all.iter().position(|member| member.process.is_some() && is_primary(member))
    }

    /// Waits until one takes writes.
    pub fn wait_for_primary(&self) -> usize {
        until("a primary to be elected", || self.primary().is_some());
        self.primary().expect("it was there a moment ago")
    }

    /// Makes the primary step down, and returns when another member is it.
    pub fn step_down(&self) {
        let old = self.wait_for_primary();
        // The others are given a head start, or it is elected again.
        ask(self.all[old].port, doc! { "replSetStepDown": 10, "force": true });
        until("another primary", || self.primary().is_some_and(|new| new != old));
    }

    /// What a member answers to a command of its administrator.
    pub fn ask(&self, at: usize, command: Document) -> Option<Document> {
        ask(self.all[at].port, command)
    }

    /// Where a database is.
    pub fn uri(&self, database: &str) -> String {
        let hosts: Vec<String> =
            self.all.iter().map(|member| format!("127.0.0.1:{}", member.port)).collect();
        let set = if self.set { "?replicaSet=members" } else { "" };
        format!("mongodb://{}/{database}{set}", hosts.join(","))
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for at in 0..self.all.len() {
            self.kill_member(at);
        }
    }
}

/// What a server answers, if it does.
fn ask(port: u16, command: Document) -> Option<Document> {
    let uri =
        format!("mongodb://127.0.0.1:{port}/?directConnection=true&serverSelectionTimeoutMS=2000");
    block_on(async || {
        let client = mongodb::Client::with_uri_str(uri).await.expect("a valid URI");
        let answer = client.database("admin").run_command(command).await;
        client.shutdown().immediate(true).await;
        answer.ok()
    })
}
