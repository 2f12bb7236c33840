//! A migration that takes as long as a test wants: it waits for a lock that the
//! test holds.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use crate::project::Project;
use crate::session::session;
use crate::support::sql::number;
use crate::support::wait::until;

/// Its first step takes long; everything after it is short.
const FILES: &[(&str, &str)] = &[
    ("001-long/migration.toml", "[timeouts]\nlock = \"100s\"\n"),
    (
        "001-long/up.sql",
        "UPDATE people SET n = n + 1;
SELECT pg_advisory_xact_lock(42);
",
    ),
    ("001-long/up.mongodb.js", "db.people.updateMany({}, { $inc: { n: 1 } });\n"),
    ("002-short/up.sql", "UPDATE people SET n = n * 2;\n"),
    ("002-short/up.mongodb.js", "db.people.updateMany({}, { $mul: { n: 2 } });\n"),
];

/// A project whose first step takes until the [`Blocker`] is dropped.
pub fn project() -> Project {
    Project::of(FILES)
}

/// The same, made long after everything in it was applied by an older release.
pub fn project_with_more() -> Project {
    let more = [("003-more/up.sql", "UPDATE people SET n = n + 5;\n")];
    Project::of(&[FILES, &more].concat())
}

/// Makes the first step take long, until it is dropped.
pub struct Blocker {
    release: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    url: String,
}

impl Blocker {
    /// From now on, in this database.
    pub fn new(url: &str) -> Blocker {
        let (release, released) = channel();
        let (ready, is_ready) = channel();
        let of_thread = url.to_owned();
        let thread = std::thread::spawn(move || hold(&of_thread, &ready, &released));
        is_ready.recv().expect("the lock is free");
        Blocker { release: Some(release), thread: Some(thread), url: url.to_owned() }
    }

    /// Waits until so many runs are in the first step.
    pub fn wait_for(&self, runs: i64) {
        until("a run to be in its long step", || self.waiting() == runs);
    }

    fn waiting(&self) -> i64 {
        let question = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 42 \
             AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        number(&self.url, question)
    }
}

impl Drop for Blocker {
    fn drop(&mut self) {
        drop(self.release.take());
        let ended = self.thread.take().expect("it is there until now").join();
        assert!(ended.is_ok() || std::thread::panicking(), "the lock was held");
    }
}

fn hold(url: &str, ready: &Sender<()>, released: &Receiver<()>) {
    let config = url.parse().expect("a URL");
    let (runtime, client) = session(&config, "SELECT pg_advisory_lock(42)");
    ready.send(()).expect("somebody waits for it");
    // An error means that the other end was dropped, and that is the sign.
    let _ = released.recv();
    let free = runtime.block_on(client.batch_execute("SELECT pg_advisory_unlock(42)"));
    free.expect("the lock is given back");
}
