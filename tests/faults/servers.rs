//! Servers that are killed, and started again, in the middle of a run.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use bson::doc;
use futures_util::TryStreamExt;
use lockstep::core::id::StoreName;
use lockstep::sandbox::{Options, Sandbox};
use rustix::process::{Pid, Signal, kill_process};

use crate::blocker::{self, number};
use crate::dump::{Dump, dump_at};
use crate::foreign::Foreign;
use crate::killed::undisturbed;
use crate::project::{Ended, Project, seed, sql};
use crate::support::block_on;
use crate::time::leases_run_out_at;
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
        if let Some(mut child) = self.child.take() {
            child.wait().expect("it was killed");
        }
    }

    /// Ends it in good order: what it says last is that its data is as it should be.
    fn shut_down(&mut self) {
        signal(self.pid, Signal::INT);
        let file = self.data().expect("it is Postgres").join("postmaster.pid");
        until("a server to shut down", || !file.exists());
    }

    /// Where a Postgres has its data.
    fn data(&self) -> Option<PathBuf> {
        let at = self.command.iter().position(|word| word == "-D")?;
        Some(PathBuf::from(&self.command[at + 1]))
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

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

/// A pair of servers that write to the disk, one of which can be killed.
struct Pair {
    server: Server,
    store: StoreName,
    postgres: String,
    mongo: String,
    /// Ends what is left of them.
    _sandbox: Sandbox,
}

impl Pair {
    fn new(store: StoreName) -> Pair {
        let env = |name: &str| std::env::var(name).ok();
        let options = Options { durable: true, ..Options::new(&env) };
        let sandbox = block_on(|| Sandbox::start(&options, &|_| {})).expect("servers start");
        Pair {
            server: Server::new(&sandbox, store),
            store,
            postgres: sandbox.postgres_url.clone().expect("it was asked for"),
            mongo: sandbox.mongo_uri.clone().expect("it was asked for"),
            _sandbox: sandbox,
        }
    }

    /// A database in each, with what was there before the first migration.
    fn seeded(&self, name: &str) -> [String; 2] {
        block_on(async || sql(&self.postgres, &format!("CREATE DATABASE {name}")).await);
        let [postgres, mongo] =
            [&self.postgres, &self.mongo].map(|url| url.replace("/app", &format!("/{name}")));
        seed(&postgres, &mongo);
        [postgres, mongo]
    }

    fn restart(&mut self) {
        let (store, postgres, mongo) = (self.store, &self.postgres, &self.mongo);
        self.server.restart(|| match store {
            StoreName::Postgres => block_on(async || {
                tokio_postgres::connect(postgres, tokio_postgres::NoTls).await.is_ok()
            }),
            StoreName::Mongo => block_on(async || is_primary(mongo).await),
        });
    }
}

/// Whether everything is as it should be after the next run.
fn mended(project: &Project, [postgres, mongo]: &[String; 2], expected: &Dump, died: &Ended) {
    // 4: the server took longer to come back than a lease lasts.
    assert!(matches!(died.code, Some(0 | 4 | 7)), "{:?} {}", died.code, died.text);
    leases_run_out_at(postgres, mongo);
    let again = project.migrate_at(postgres, mongo, &["up"]).succeeds();
    let mut found = dump_at(postgres, mongo);
    if again.text.contains("nothing to do") {
        found.left.clear();
    }
    found.is(expected, &format!("{}\nafter {}", again.text, died.text));
}

/// Kills a server at every so many places where a run writes.
fn killed_and_restarted(store: StoreName) {
    let mut pair = Pair::new(store);
    let project = Project::usual();
    let mut trials = 0;
    for failpoint in (10..80).step_by(9) {
        let urls = pair.seeded(&format!("server_{failpoint}"));
        let run = project.migrate_at(&urls[0], &urls[1], &["up"]).stopping_at(failpoint).start();
        until("the run to stop", || run.is_stopped());
        pair.server.kill();
        run.signal(Signal::CONT);
        pair.restart();
        let died = run.wait();
        mended(&project, &urls, &undisturbed().up, &died);
        trials += 1;
    }
    eprintln!("{} was killed and restarted at {trials} failpoints", store.title());
}

async fn is_primary(uri: &str) -> bool {
    let client = mongodb::Client::with_uri_str(uri).await.expect("a valid URI");
    let hello = client.database("admin").run_command(doc! { "hello": 1 }).await;
    client.shutdown().immediate(true).await;
    hello.is_ok_and(|hello| hello.get_bool("isWritablePrimary").unwrap_or(false))
}

#[test]
#[ignore = "minutes: scripts/test --faults"]
fn mongodb_killed_and_restarted_between_any_two_writes() {
    killed_and_restarted(StoreName::Mongo);
}

#[test]
#[ignore = "minutes: scripts/test --faults"]
fn postgres_killed_and_restarted_between_any_two_writes() {
    killed_and_restarted(StoreName::Postgres);
}

#[test]
fn postgres_killed_in_the_middle_of_a_statement() {
    let mut pair = Pair::new(StoreName::Postgres);
    let waits = |what: &str| {
        format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
             AND application_name LIKE 'lockstep/%' AND query LIKE '{what}%' AND wait_event_type = 'Lock'"
        )
    };
    let usual = Project::usual();
    let long = blocker::project();
    let trials = [
        ("atomic", &long, "SELECT pg_advisory_lock(42)", "SELECT pg_advisory_xact_lock"),
        (
            "journaled",
            &usual,
            "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM people",
            "CREATE INDEX CONCURRENTLY",
        ),
    ];
    for (kind, project, blocks, waiting) in trials {
        let whole = pair.seeded(&format!("whole_{kind}"));
        project.migrate_at(&whole[0], &whole[1], &["up"]).succeeds();
        let whole = dump_at(&whole[0], &whole[1]);

        let urls = pair.seeded(kind);
        let foreign = Foreign::new(&urls[0], blocks);
        let run = project.migrate_at(&urls[0], &urls[1], &["up"]).start();
        until("the statement to wait", || number(&urls[0], &waits(waiting)) == 1);
        pair.server.kill();
        drop(foreign);
        let died = run.wait();
        assert_eq!(died.code, Some(7), "{}", died.text);
        pair.restart();
        mended(project, &urls, &whole, &died);
    }
    eprintln!("Postgres was killed in the middle of an atomic and of a journaled step");
}

/// Operations of a run that the server holds back.
async fn is_held_back(mongo: &str) -> bool {
    let client = mongodb::Client::with_uri_str(mongo).await.expect("a valid URI");
    let database = client.default_database().expect("a URI with a database");
    let held_back = vec![
        doc! { "$currentOp": {} },
        doc! { "$match": {
            "waitingForLock": true,
            "ns": { "$regex": format!("^{}\\.", database.name()) },
        } },
    ];
    let found = client.database("admin").aggregate(held_back).await;
    let found: Vec<_> = found.expect("MongoDB answers").try_collect().await.expect("and goes on");
    client.shutdown().immediate(true).await;
    !found.is_empty()
}

/// Whether a transaction is open: then nobody gets the lock that holds writes back.
async fn has_transaction(mongo: &str) -> bool {
    let client = mongodb::Client::with_uri_str(mongo).await.expect("a valid URI");
    let open = vec![
        doc! { "$currentOp": { "allUsers": true, "idleSessions": true } },
        doc! { "$match": {
            "appName": { "$regex": "^lockstep/" }, "transaction": { "$exists": true },
        } },
    ];
    let found = client.database("admin").aggregate(open).await;
    let found: Vec<_> = found.expect("MongoDB answers").try_collect().await.expect("and goes on");
    client.shutdown().immediate(true).await;
    !found.is_empty()
}

#[test]
#[ignore = "minutes: scripts/test --faults"]
fn mongodb_killed_in_the_middle_of_a_statement() {
    let mut pair = Pair::new(StoreName::Mongo);
    let project = Project::usual();
    let mut trials = 0;
    for failpoint in (30..70).step_by(4) {
        let urls = pair.seeded(&format!("held_back_{failpoint}"));
        let run = project.migrate_at(&urls[0], &urls[1], &["up"]).stopping_at(failpoint).start();
        until("the run to stop", || run.is_stopped());
        if block_on(async || has_transaction(&pair.mongo).await) {
            // It ends here; else it would be in the way of those that come next.
            run.signal(Signal::CONT);
            assert_eq!(run.wait().code, Some(0));
            continue;
        }
        // From now on nothing is written: the next write stands in the middle.
        block_on(async || {
            let client = mongodb::Client::with_uri_str(&pair.mongo).await.expect("a valid URI");
            let admin = client.database("admin");
            admin.run_command(doc! { "fsync": 1, "lock": true }).await.expect("it locks");
            client.shutdown().immediate(true).await;
        });
        run.signal(Signal::CONT);
        until("a write to be held back", || block_on(async || is_held_back(&urls[1]).await));
        pair.server.kill();
        pair.restart();
        let died = run.wait();
        mended(&project, &urls, &undisturbed().up, &died);
        trials += 1;
    }
    eprintln!("MongoDB was killed in the middle of {trials} writes");
    assert!(trials > 4, "{trials} trials");
}

#[test]
fn a_hot_standby_is_refused_and_nothing_is_left() {
    let mut pair = Pair::new(StoreName::Postgres);
    let project = Project::usual();
    let urls = pair.seeded("standby");
    // As a server that follows another one would be started.
    let standby = pair.server.data().expect("it is Postgres").join("standby.signal");
    pair.server.shut_down();
    fs::write(&standby, "").expect("a file");
    pair.restart();
    let refused = project.migrate_at(&urls[0], &urls[1], &["up"]).run();
    assert_eq!(refused.code, Some(7), "{}", refused.text);
    assert!(refused.text.contains("is this a replica?"), "{}", refused.text);
    dump_at(&urls[0], &urls[1]).is(&undisturbed().begin, &refused.text);

    pair.server.kill();
    fs::remove_file(&standby).expect("it is there");
    pair.restart();
    mended(&project, &urls, &undisturbed().up, &refused);
}
