//! MongoDB: TLS, its authorities and names, SCRAM and certificates as logins.

use crate::certificates::{Authority, Valid};
use crate::support::wait::until;
use crate::support::{block_on, libfaketime};
use crate::{Ended, migrate, project};
use bson::doc;
use mongodb::Client;
use std::process::{Child, Command, Stdio};

/// A server alone, with TLS and access control.
struct Server {
    port: u16,
    files: tempfile::TempDir,
    process: Child,
}

const PASSWORD: &str = "s3cret/+";

impl Server {
    /// With a certificate for localhost.
    fn start() -> Server {
        let files = tempfile::tempdir().expect("a folder");
        let path = files.path();
        let (known, other) = (Authority::new("Known"), Authority::new("Other"));
        known.write(path.join("known.pem"));
        other.write(path.join("other.pem"));
        known.signs("localhost", "servers", Valid::Now).write(path, "server");
        known.signs("card", "people", Valid::Now).write(path, "card");
        other.signs("card", "people", Valid::Now).write(path, "forged");
        std::fs::create_dir(path.join("data")).expect("a folder");
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let env = |name: &str| std::env::var(name).ok();
        let mongod = lockstep::sandbox::find(&env).mongod.expect("run scripts/setup: no mongod");
        let process = Command::new(mongod)
            .args(["--bind_ip", "127.0.0.1", "--nounixsocket", "--wiredTigerCacheSizeGB", "0.25"])
            .args(["--setParameter", "diagnosticDataCollectionEnabled=false", "--auth"])
            .args(["--setParameter", "authenticationMechanisms=SCRAM-SHA-256,MONGODB-X509"])
            .args(["--tlsMode", "requireTLS", "--tlsAllowConnectionsWithoutCertificates"])
            .args(["--port", &port.to_string(), "--dbpath"])
            .arg(path.join("data"))
            .arg("--tlsCertificateKeyFile")
            .arg(path.join("server.pem"))
            .arg("--tlsCAFile")
            .arg(path.join("known.pem"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("mongod starts");
        Server { port, files, process }
    }

    /// Makes the users, as nobody: the first one may, from this machine.
    fn users(&self) {
        let uri = self.uri("", "tls=true&tlsAllowInvalidCertificates=true");
        let all = ["root"];
        until("mongod to answer", || {
            block_on(async || {
                let client = Client::with_uri_str(&uri).await.expect("a valid URI");
                let admin = client.database("admin");
                let made = admin
                    .run_command(doc! { "createUser": "app", "pwd": PASSWORD, "roles": all })
                    .await;
                client.shutdown().immediate(true).await;
                made.is_ok()
            })
        });
        let uri = self.uri(
            &format!("app:{}@", PASSWORD.replace('/', "%2F").replace('+', "%2B")),
            "tls=true&tlsAllowInvalidCertificates=true&authSource=admin",
        );
        block_on(async || {
            let client = Client::with_uri_str(&uri).await.expect("a valid URI");
            let outside = client.database("$external");
            let made = outside.run_command(doc! {
                "createUser": "CN=card,O=people",
                "roles": [{ "role": "root", "db": "admin" }],
            });
            made.await.expect("an administrator");
            client.shutdown().immediate(true).await;
        });
    }

    fn uri(&self, user: &str, settings: &str) -> String {
        self.at("localhost", user, settings)
    }

    fn at(&self, host: &str, user: &str, settings: &str) -> String {
        let settings = settings.replace('%', &format!("{}/", self.files.path().display()));
        format!(
            "mongodb://{user}{host}:{}/shop?serverSelectionTimeoutMS=5000&{settings}",
            self.port
        )
    }
}

fn up(uri: &str) -> Ended {
    let folder = project("up.mongodb.js", "db.createCollection(\"things\");\n");
    let ended = migrate(folder.path(), &[], &["up", "--mongo", uri]);
    assert!(!ended.text.contains("s3cret"), "a password is shown: {}", ended.text);
    ended
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn authorities_names_and_logins_are_as_its_uri_says() {
    let server = Server::start();
    server.users();
    let app = "app:s3cret%2F%2B@";
    let login = |host: &str, tls: &str| {
        // The password's escapes are none of the folder's.
        server.at(host, "", tls).replace("mongodb://", &format!("mongodb://{app}"))
            + "&authSource=admin"
    };
    let ca = "tls=true&tlsCAFile=%known.pem";
    up(&login("localhost", ca)).is(0, "");
    up(&login("localhost", "tls=true&tlsCAFile=%other.pem")).is(7, "UnknownIssuer");
    up(&login("localhost", "tls=true")).is(7, "UnknownIssuer");
    up(&login("127.0.0.1", ca)).is(7, "not valid for name");
    up(&login("localhost", "tls=true&tlsCAFile=%nothing.pem")).is(7, "nothing.pem");
    up(&login("localhost", "tls=false")).is(7, "");
    let wrong = login("localhost", ca).replace("s3cret", "wrong");
    up(&wrong).is(7, "uthentication failed");
    // In thirty years, the certificate has expired. The server does not start with one
    // that has, so it is the client that believes in that time.
    let folder = project("up.mongodb.js", "db.createCollection(\"things\");\n");
    let library = libfaketime();
    let later = [("LD_PRELOAD", library.to_str().expect("a path")), ("FAKETIME", "+30y")];
    migrate(folder.path(), &later, &["up", "--mongo", &login("localhost", ca)]).is(7, "expired");
    // Nobody in particular may connect and do nothing.
    up(&server.uri("", ca)).is(7, "");

    let card = |name: &str| {
        format!(
            "{ca}&tlsCertificateKeyFile=%{name}.pem&authMechanism=MONGODB-X509&authSource=$external"
        )
    };
    up(&server.uri("", &card("card"))).is(0, "");
    up(&server.uri("", &card("forged"))).is(7, "");
}
