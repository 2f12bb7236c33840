//! What the program exposes: scraped from a `migrate serve` before, while and after a run
//! is at work, and left behind by runs in their files.

use crate::{Project, until};
use regex::Regex;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Names of metrics, and their labels.
pub type Exposed = BTreeMap<String, BTreeSet<String>>;

/// What is not exposed by then will not be.
const LIMIT: Duration = Duration::from_secs(90);

/// A table that is compared with a collection, and a backfill that takes its time.
const FILES: &[(&str, &str)] = &[
    (
        "001-shop/prepare.sql",
        "CREATE TABLE users (id int PRIMARY KEY, n int NOT NULL);
         INSERT INTO users SELECT g, 0 FROM generate_series(1, 1000) AS g;",
    ),
    ("001-shop/prepare.mongodb.js", "db.createCollection(\"users\");"),
    (
        "001-shop/migration.toml",
        r#"
[[backfill]]
name = "as documents"
copy = { from = "postgres", query = "SELECT id AS _id, n FROM users", key = "_id", to = "users" }
[[invariant]]
name = "nobody is lost"
postgres = "SELECT count(*) FROM users"
mongo = { collection = "users", count = "{}" }
[[invariant]]
name = "they say the same"
compare = { postgres = "SELECT id AS _id, n FROM users", mongo = { collection = "users" }, key = "_id" }
"#,
    ),
    ("002-slow/prepare.sql", "ALTER TABLE users ADD COLUMN m int;"),
    (
        "002-slow/migration.toml",
        "[[backfill]]\nname = \"slowly\"\nbatch = 10\nrate = 5\n\
         postgres = { table = \"users\", set = \"m = n\", where = \"m IS NULL\" }\n",
    ),
];

/// The names and labels in a text of Prometheus' format.
pub fn parse(text: &str) -> Exposed {
    let sample = Regex::new(r#"^(\w+)(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})? \S+$"#).unwrap();
    let label = Regex::new(r#"(\w+)="(?:[^"\\]|\\.)*""#).unwrap();
    let mut exposed = Exposed::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let found = sample.captures(line).unwrap_or_else(|| panic!("no sample: {line}"));
        let labels = found.get(2).map_or("", |it| it.as_str());
        let labels = label.captures_iter(labels).map(|it| it[1].to_owned());
        exposed.entry(found[1].to_owned()).or_default().extend(labels);
    }
    exposed
}

/// The body of an answer with status 200.
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it serves");
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer in UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(!head.to_lowercase().contains("transfer-encoding"), "it is read as it is: {head}");
    body.to_owned()
}

/// All that was exposed, and the texts.
pub fn watched() -> (Exposed, Vec<(&'static str, String)>) {
    let project = Project::new("deploy", FILES);
    let (file, slow) = (project.path("up.prom"), project.path("slow.prom"));
    let up = |to: &str, file: &std::path::Path| {
        let file = file.to_str().unwrap().to_owned();
        project.command(&["up", "--to", to, "--release", "1.4", "--metrics-file", &file])
    };
    let ran = up("1", &file).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));

    let stderr = project.path("serve.err");
    let mut serving = Killed(
        project
            .command(&["serve", "--listen", "127.0.0.1:0", "--interval", "200ms"])
            .stdout(Stdio::null())
            .stderr(fs::File::create(&stderr).unwrap())
            .spawn()
            .unwrap(),
    );
    let listening = Regex::new(r"listening on http://(\S+)\n").unwrap();
    let said = || fs::read_to_string(&stderr).unwrap();
    until("it listens", || {
        assert!(serving.0.try_wait().unwrap().is_none(), "it ended: {}", said());
        listening.is_match(&said())
    });
    let address = listening.captures(&said()).unwrap()[1].to_owned();

    let mut running = Killed(up("2", &slow).stderr(Stdio::null()).spawn().unwrap());
    let (mut exposed, mut text) = (Exposed::new(), String::new());
    let at_work = ["lockstep_lease_info", "lockstep_backfill_rate", "lockstep_pace_level"];
    let (mut missing, begun) = (at_work.to_vec(), Instant::now());
    until("a run is watched at its work", || {
        let ended = running.0.try_wait().unwrap();
        assert!(ended.is_none(), "it has ended, and there was no {missing:?} in\n{text}");
        text = get(&address, "/metrics");
        for (name, labels) in parse(&text) {
            exposed.entry(name).or_default().extend(labels);
        }
        missing.retain(|name| !exposed.contains_key(*name));
        assert!(begun.elapsed() < LIMIT, "there is still no {missing:?} in\n{text}");
        missing.is_empty()
    });
    let file = fs::read_to_string(&file).unwrap();
    for (name, labels) in parse(&file) {
        exposed.entry(name).or_default().extend(labels);
    }
    // Only where a replica is attached, which is none here: as the documentation has it.
    let (lag, documented) = ("lockstep_replication_lag_seconds", crate::read("docs/serve.md"));
    assert!(documented.contains(&format!("`{lag}{{store}}`")), "docs/serve.md has no {lag}");
    exposed.entry(lag.to_owned()).or_default().insert("store".to_owned());
    (exposed, vec![("/metrics", text), ("--metrics-file", file)])
}

/// A process that does not outlive its test.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
