//! Servers that are killed, and started again, in the middle of a run.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use bson::doc;
use lockstep::core::id::StoreName;
use lockstep::sandbox::{Options, Sandbox};
use rustix::process::{Pid, Signal, kill_process};

use crate::dump::dump_at;
use crate::killed::undisturbed;
use crate::project::{Project, seed, sql};
use crate::support::block_on;
use crate::until;

/// A server that can be killed and started again as it was.
struct Server {
    command: Vec<String>,
    owner: (u32, u32),
    pid: u32,
    child: Option<Child>,
}

impl Server {
    fn new(sandbox: &Sandbox, store: StoreName) -> Server {
        let pid = sandbox.pid(store).expect("it is a program of this machine");
        let words = fs::read(format!("/proc/{pid}/cmdline")).expect("it runs");
        let words = String::from_utf8(words).expect("words");
        let command = words.split_terminator('\0').map(str::to_owned).collect();
        let process = fs::metadata(format!("/proc/{pid}")).expect("it runs");
        Server { command, owner: (process.uid(), process.gid()), pid, child: None }
    }

    /// Kills it, and everything that it started.
    fn kill(&mut self) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, Signal::KILL).expect("it runs");
        if let Some(mut child) = self.child.take() {
            child.wait().expect("it was killed");
        }
    }

    /// Starts it, again if what the old one left is in its way, until it answers.
    fn restart(&mut self, answers: impl Fn() -> bool) {
        until("a server to answer again", || {
            let over = |child: &mut Child| child.try_wait().expect("a child").is_some();
            if self.child.as_mut().is_none_or(over) {
                let mut command = Command::new(&self.command[0]);
                command.args(&self.command[1..]).uid(self.owner.0).gid(self.owner.1);
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                let child = command.spawn().expect("the server starts");
                self.pid = child.id();
                self.child = Some(child);
            }
            answers()
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

/// Kills a server at every so many places where a run writes.
fn killed_and_restarted(store: StoreName) {
    let env = |name: &str| std::env::var(name).ok();
    let options = Options { durable: true, ..Options::new(&env) };
    let sandbox = block_on(|| Sandbox::start(&options, &|_| {})).expect("servers start");
    let mut server = Server::new(&sandbox, store);
    let url = sandbox.postgres_url.clone().expect("it was asked for");
    let uri = sandbox.mongo_uri.clone().expect("it was asked for");
    let project = Project::usual();
    for failpoint in (10..80).step_by(9) {
        let name = format!("server_{failpoint}");
        block_on(async || sql(&url, &format!("CREATE DATABASE {name}")).await);
        let (postgres, mongo) =
            (url.replace("/app", &format!("/{name}")), uri.replace("/app", &format!("/{name}")));
        seed(&postgres, &mongo);
        let run = project.migrate_at(&postgres, &mongo, &["up"]).stopping_at(failpoint).start();
        until("the run to stop", || run.is_stopped());
        server.kill();
        run.signal(Signal::CONT);
        server.restart(|| match store {
            StoreName::Postgres => block_on(async || {
                tokio_postgres::connect(&postgres, tokio_postgres::NoTls).await.is_ok()
            }),
            StoreName::Mongo => block_on(async || is_primary(&mongo).await),
        });
        let died = run.wait();
        let again = project.migrate_at(&postgres, &mongo, &["up"]).succeeds();
        let mut found = dump_at(&postgres, &mongo);
        if again.text.contains("nothing to do") {
            found.left.clear();
        }
        found.is(&undisturbed().up, &format!("{}\nafter {}", again.text, died.text));
    }
}

async fn is_primary(uri: &str) -> bool {
    let client = mongodb::Client::with_uri_str(uri).await.expect("a valid URI");
    let hello = client.database("admin").run_command(doc! { "hello": 1 }).await;
    client.shutdown().immediate(true).await;
    hello.is_ok_and(|hello| hello.get_bool("isWritablePrimary").unwrap_or(false))
}

#[test]
fn mongodb_killed_and_restarted_in_the_middle_of_a_run() {
    killed_and_restarted(StoreName::Mongo);
}
