//! A pair of servers of which one can be frozen, killed, and started again.

use super::block_on;
use super::wait::until;
use bson::doc;
use lockstep::core::id::StoreName;
use lockstep::sandbox::{Options, Sandbox};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A pair of servers that write to the disk.
pub struct Pair {
    /// The one that can be killed.
    pub store: StoreName,
    pub postgres: String,
    pub mongo: String,
    command: Vec<String>,
    owner: (u32, u32),
    pid: u32,
    child: Option<Child>,
    /// Ends what is left of them.
    _sandbox: Sandbox,
}

impl Pair {
    /// Of which this one can be killed.
    pub fn new(store: StoreName) -> Pair {
        let env = |name: &str| std::env::var(name).ok();
        let options = Options { durable: true, ..Options::new(&env) };
        let sandbox = block_on(|| Sandbox::start(&options, &|_| {})).expect("servers start");
        let pid = sandbox.pid(store).expect("it is a program of this machine");
        let words = fs::read(format!("/proc/{pid}/cmdline")).expect("it runs");
        let words = String::from_utf8(words).expect("words");
        let process = fs::metadata(format!("/proc/{pid}")).expect("it runs");
        Pair {
            store,
            postgres: sandbox.postgres_url.clone().expect("it was asked for"),
            mongo: sandbox.mongo_uri.clone().expect("it was asked for"),
            command: words.split_terminator('\0').map(str::to_owned).collect(),
            owner: (process.uid(), process.gid()),
            pid,
            child: None,
            _sandbox: sandbox,
        }
    }

    /// As a server that is so slow that nothing comes any more.
    pub fn freeze(&self) {
        // Who starts others first, so that none is started after it was looked.
        signal(self.pid, Signal::STOP);
        for child in children(self.pid) {
            signal(child, Signal::STOP);
        }
    }

    pub fn thaw(&self) {
        for child in children(self.pid) {
            signal(child, Signal::CONT);
        }
        signal(self.pid, Signal::CONT);
    }

    /// Kills it, and everything that it started.
    pub fn kill(&mut self) {
        let children = children(self.pid);
        signal(self.pid, Signal::KILL);
        for child in children {
            signal(child, Signal::KILL);
        }
        // Nobody has waited for it yet, so its lock files look like those of one that
        // runs.
        if let Some(data) = self.data() {
            let _ = fs::remove_file(data.join("postmaster.pid"));
            let beside = data.parent().and_then(|home| fs::read_dir(home).ok());
            for file in beside.into_iter().flatten().flatten() {
                if file.file_name().to_string_lossy().ends_with(".lock") {
                    let _ = fs::remove_file(file.path());
                }
            }
        }
        self.reap();
    }

    /// Ends a Postgres in good order: what it says last is that its data is as it should
    /// be.
    pub fn shut_down(&mut self) {
        signal(self.pid, Signal::INT);
        let file = self.data().expect("it is Postgres").join("postmaster.pid");
        until("a server to shut down", || !file.exists());
        self.reap();
    }

    fn reap(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.wait().expect("it has ended");
        }
    }

    /// Where a Postgres has its data.
    pub fn data(&self) -> Option<PathBuf> {
        let at = self.command.iter().position(|word| word == "-D")?;
        Some(PathBuf::from(&self.command[at + 1]))
    }

    /// Starts it as it was.
    pub fn restart(&mut self) {
        self.restart_with(|_| {});
    }

    /// Starts it, again if what the old one left is in its way, until it answers.
    pub fn restart_with(&mut self, change: impl Fn(&mut Command)) {
        until("a server to answer again", || {
            let over = |child: &mut Child| child.try_wait().expect("a child").is_some();
            if self.child.as_mut().is_none_or(over) {
                let mut command = Command::new(&self.command[0]);
                command.args(&self.command[1..]).uid(self.owner.0).gid(self.owner.1);
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                change(&mut command);
                let child = command.spawn().expect("the server starts");
                self.pid = child.id();
                self.child = Some(child);
            }
            self.answers()
        });
    }

    fn answers(&self) -> bool {
        match self.store {
            StoreName::Postgres => block_on(async || {
                tokio_postgres::connect(&self.postgres, tokio_postgres::NoTls).await.is_ok()
            }),
            StoreName::Mongo => block_on(async || {
                let client = mongodb::Client::with_uri_str(&self.mongo).await.expect("a valid URI");
                let hello = client.database("admin").run_command(doc! { "hello": 1 }).await;
                client.shutdown().immediate(true).await;
                hello.is_ok_and(|hello| hello.get_bool("isWritablePrimary").unwrap_or(false))
            }),
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.thaw();
        if self.child.is_some() {
            self.kill();
        }
    }
}

/// The processes that a process has started.
fn children(pid: u32) -> Vec<u32> {
    let started_by_it = |child: &u32| {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
        parent == Some(pid.to_string().as_str())
    };
    let processes = fs::read_dir("/proc").expect("processes");
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(started_by_it).collect()
}

fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    // It may be gone already, as its parent is.
    let _ = kill_process(pid, signal);
}
