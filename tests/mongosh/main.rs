//! What the reader makes of a script, against mongosh itself: both put the
//! same file into one server, into a database each, and the databases must be
//! equal, byte for byte.

use lockstep::core::parse::mongosh::{self, Statement};
use lockstep::core::step::{CommandTarget, MongoKind};
use mongodb::Client;
use mongodb::bson::{Document, RawDocumentBuf, doc};
use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const SCRIPT: &str = include_str!("everything.mongodb.js");

/// A server that has not answered by then never will.
const START_MAX: Duration = Duration::from_mins(1);

#[tokio::test]
async fn the_reader_and_mongosh_store_the_same_bytes() {
    let server = Server::start().await;
    let before =
        u32::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs())
            .expect("before 2106");
    server.run_mongosh("through_mongosh");
    server.run_reader("through_reader").await;
    let expected = server.contents("through_mongosh", before).await;
    let got = server.contents("through_reader", before).await;
    let different: Vec<_> = expected.lines().zip(got.lines()).filter(|(a, b)| a != b).collect();
    assert!(
        different.is_empty() && expected.lines().count() == got.lines().count(),
        "mongosh and the reader differ:\n{}",
        different.iter().fold(String::new(), |all, (a, b)| format!("{all}- {a}\n+ {b}\n"))
    );
    // A script that failed in both would be equal too.
    assert!(expected.lines().count() > 100, "{expected}");
}

/// One mongod with a replica set of one, gone when this is dropped.
struct Server {
    process: Child,
    directory: tempfile::TempDir,
    port: u16,
    client: Client,
}

impl Server {
    async fn start() -> Server {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let url = format!("mongodb://127.0.0.1:{port}/?directConnection=true");
        let client = Client::with_uri_str(&url).await.expect("a client");
        let log = std::fs::File::create(directory.path().join("log")).expect("a log");
        let process = Command::new(tool("LOCKSTEP_MONGOD", "mongod/bin/mongod"))
            .args([
                "--replSet",
                "rs",
                "--nounixsocket",
                "--bind_ip",
                "127.0.0.1",
                "--port",
                &port.to_string(),
            ])
            .args(["--wiredTigerCacheSizeGB", "0.25", "--dbpath"])
            .arg(directory.path())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .expect("mongod starts");
        let server = Server { process, directory, port, client };
        let admin = server.client.database("admin");
        let members =
            doc! { "_id": "rs", "members": [{ "_id": 0, "host": format!("127.0.0.1:{port}") }] };
        admin.run_command(doc! { "replSetInitiate": members }).await.expect("a replica set");
        // The server answers when something has changed, or after the given time.
        let started = Instant::now();
        let mut question = doc! { "hello": 1 };
        loop {
            let hello = admin.run_command(question).await.expect("an answer");
            if hello.get_bool("isWritablePrimary").expect("a flag") {
                return server;
            }
            assert!(started.elapsed() < START_MAX, "no primary: {hello}");
            let seen = hello.get_document("topologyVersion").expect("a version").clone();
            question = doc! { "hello": 1, "topologyVersion": seen, "maxAwaitTimeMS": 1_000 };
        }
    }

    fn run_mongosh(&self, database: &str) {
        let script = self.directory.path().join("everything.mongodb.js");
        std::fs::write(&script, SCRIPT).expect("the script is written");
        let url = format!("mongodb://127.0.0.1:{}/{database}?directConnection=true", self.port);
        let output = Command::new(tool("LOCKSTEP_MONGOSH", "mongosh/node_modules/.bin/mongosh"))
            .args([&url, "--quiet", "--norc"])
            .arg(&script)
            // mongosh keeps logs and settings there.
            .env("HOME", self.directory.path())
            .env("TZ", "America/New_York")
            .output()
            .expect("mongosh starts");
        assert!(
            output.status.success(),
            "mongosh failed:\n{}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    async fn run_reader(&self, database: &str) {
        let statements = mongosh::read(SCRIPT).unwrap_or_else(|problems| {
            panic!("{}", problems.iter().fold(String::new(), |all, one| format!("{all}{one}\n")))
        });
        for Statement { step, line } in statements {
            for command in step.commands {
                let mut body = RawDocumentBuf::from_bytes(command.body).expect("BSON");
                if step.kind == MongoKind::Rename {
                    let mut rename = Document::try_from(body.as_ref()).expect("BSON");
                    for field in ["renameCollection", "to"] {
                        let full = format!("{database}.{}", rename.get_str(field).expect("a name"));
                        rename.insert(field, full);
                    }
                    body = RawDocumentBuf::try_from(&rename).expect("BSON");
                }
                let on = match command.on {
                    CommandTarget::Database => database,
                    CommandTarget::Admin => "admin",
                };
                let reply = self.client.database(on).run_raw_command(body).await;
                let reply =
                    reply.unwrap_or_else(|error| panic!("line {line}: {}: {error}", step.text));
                for failure in ["writeErrors", "writeConcernError"] {
                    assert!(!reply.contains_key(failure), "line {line}: {}: {reply}", step.text);
                }
            }
        }
    }

    /// All that a database holds, a line for each collection, index and
    /// document, in hex where it is BSON.
    async fn contents(&self, database: &str, before: u32) -> String {
        let database = self.client.database(database);
        let mut all = String::new();
        let collections = self
            .cursor(&database, doc! { "listCollections": 1, "cursor": { "batchSize": 10_000 } })
            .await;
        let mut collections: Vec<Document> =
            collections.iter().map(|raw| Document::try_from(raw.as_ref()).expect("BSON")).collect();
        collections
            .sort_by_key(|collection| collection.get_str("name").expect("a name").to_owned());
        for collection in collections {
            let name = collection.get_str("name").expect("a name");
            let kind = collection.get_str("type").expect("a type");
            let options = collection.get_document("options").expect("options");
            writeln!(all, "{name}: {kind} {}", hex(&options.to_vec().expect("BSON")))
                .expect("a text");
            if name == "system.views" {
                // Its documents have the name of the database; what they say is in the options above.
                continue;
            }
            if kind == "collection" {
                for index in self.cursor(&database, doc! { "listIndexes": name }).await {
                    writeln!(all, "{name}: index {}", hex(index.as_bytes())).expect("a text");
                }
            }
            let find = doc! { "find": name, "sort": { "$natural": 1 }, "batchSize": 10_000 };
            let find = if kind == "view" {
                doc! { "find": name, "batchSize": 10_000 }
            } else {
                find
            };
            for document in self.cursor(&database, find).await {
                let mut bytes = document.as_bytes().to_vec();
                forget_generated_id(&mut bytes, before);
                // For whoever reads the difference; the bytes are what counts.
                let shown = Document::from_reader(&bytes[..]).expect("BSON").to_string();
                writeln!(all, "{name}: {} {shown:?}", hex(&bytes)).expect("a text");
            }
        }
        all
    }

    async fn cursor(&self, database: &mongodb::Database, command: Document) -> Vec<RawDocumentBuf> {
        let cursor = database.run_cursor_command(command).await.expect("a cursor");
        let mut cursor = cursor.with_type::<RawDocumentBuf>();
        let mut all = Vec::new();
        while cursor.advance().await.expect("the next") {
            all.push(cursor.current().to_owned());
        }
        all
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing is lost if it is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Puts zeros for an `_id` that was made during the test, by mongosh or by the
/// server. Those in the script are older.
fn forget_generated_id(bytes: &mut [u8], before: u32) {
    let Some(id) = bytes.get_mut(4..21) else { return };
    if id.starts_with(b"\x07_id\0") && u32::from_be_bytes([id[5], id[6], id[7], id[8]]) >= before {
        id[5..].fill(0);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |all, byte| all + &format!("{byte:02x}"))
}

/// Where a program is; `scripts/setup` puts it under `.tools`.
fn tool(variable: &str, path: &str) -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools").join(path);
    let path = std::env::var_os(variable).map_or_else(default, PathBuf::from);
    assert!(path.exists(), "{} is missing: run scripts/setup", path.display());
    path
}
