//! Postgres: every `sslmode`, certificates of both sides, passwords, several hosts.

use crate::certificates::{Authority, Valid};
use crate::support::block_on;
use crate::support::sql::sql;
use crate::support::wait::until;
use crate::{Ended, migrate, project};
use lockstep::core::id::StoreName;
use lockstep::sandbox::{Options, Sandbox};
use rustix::fs::{Gid, Uid, chown};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// A server with TLS that knows three people: `postgres`, whom it trusts, `app`, who
/// has a password and `card`, who has a certificate.
struct Server {
    /// Without TLS, as its owner.
    url: String,
    port: String,
    data: PathBuf,
    /// Authorities and certificates for the client.
    files: tempfile::TempDir,
    known: Authority,
    _sandbox: Sandbox,
}

const PASSWORD: &str = "s3 cret:\\'@/";

/// As it stands in a URL.
const ESCAPED_PASSWORD: &str = "s3%20cret%3A%5C%27%40%2F";

/// One for all tests, whose certificate they change: one at a time.
fn server() -> MutexGuard<'static, Server> {
    static SERVER: OnceLock<Mutex<Server>> = OnceLock::new();
    let server = SERVER.get_or_init(|| Mutex::new(Server::start()));
    let server = server.lock().unwrap_or_else(PoisonError::into_inner);
    server.shows("localhost", &server.known, Valid::Now);
    server
}

impl Server {
    fn start() -> Server {
        let env = |name: &str| std::env::var(name).ok();
        let options = Options { stores: vec![StoreName::Postgres], ..Options::new(&env) };
        let sandbox = block_on(|| Sandbox::start(&options, &|_| {})).expect("run scripts/setup");
        let url = sandbox.postgres_url.clone().expect("it was asked for");
        let data = PathBuf::from(&sql(&url, "SHOW data_directory")[0]);
        let port = sql(&url, "SHOW port").remove(0);
        let files = tempfile::tempdir().expect("a folder");
        let (known, other) = (Authority::new("Known"), Authority::new("Other"));
        known.write(files.path().join("known.pem"));
        other.write(files.path().join("other.pem"));
        known.signs("card", "people", Valid::Now).write(files.path(), "card");
        other.signs("card", "people", Valid::Now).write(files.path(), "forged");
        let server = Server { url, port, data, files, known, _sandbox: sandbox };
        let password = PASSWORD.replace('\'', "''");
        sql(
            &server.url,
            &format!(
                "CREATE ROLE app LOGIN SUPERUSER PASSWORD E'{}'",
                password.replace('\\', r"\\")
            ),
        );
        sql(&server.url, "CREATE ROLE card LOGIN SUPERUSER");
        let rules = "host all postgres all trust\n\
                     hostssl all app all scram-sha-256\n\
                     hostssl all card all cert\n";
        std::fs::write(server.data.join("pg_hba.conf"), rules).expect("ours to change");
        server.own(&server.data.join("pg_hba.conf"));
        server.own(&server.known.write(server.data.join("clients.pem")));
        for setting in [
            "ssl_cert_file = 'server.crt'",
            "ssl_key_file = 'server.key'",
            "ssl_ca_file = 'clients.pem'",
            "ssl = on",
        ] {
            if setting == "ssl = on" {
                server.shows("localhost", &server.known, Valid::Now);
            }
            sql(&server.url, &format!("ALTER SYSTEM SET {setting}"));
        }
        sql(&server.url, "SELECT pg_reload_conf()");
        until("TLS", || sql(&server.url, "SHOW ssl") == ["on"]);
        server
    }

    /// Has a certificate for a name from now on.
    fn shows(&self, name: &str, authority: &Authority, valid: Valid) {
        authority.signs(name, "servers", valid).write(&self.data, "server");
        for ending in ["crt", "key", "pem"] {
            self.own(&self.data.join(format!("server.{ending}")));
        }
        let loaded = "SELECT pg_conf_load_time()";
        let before = sql(&self.url, loaded);
        sql(&self.url, "SELECT pg_reload_conf()");
        until("the server to read it", || sql(&self.url, loaded) != before);
    }

    /// Gives a file to the server's account, closed to others as it wants keys to be.
    fn own(&self, file: &Path) {
        let data = std::fs::metadata(&self.data).expect("a folder");
        let (user, group) = (Uid::from_raw(data.uid()), Gid::from_raw(data.gid()));
        chown(file, Some(user), Some(group)).expect("ours to give away");
        std::fs::set_permissions(file, PermissionsExt::from_mode(0o600)).expect("ours to close");
    }

    /// `migrate up` as somebody, by a name of this machine, with TLS settings in which
    /// `%` is the folder of the certificates.
    fn up(&self, user: &str, host: &str, settings: &str) -> Ended {
        let folder = project("up.sql", "SELECT 1;\n");
        let settings = settings.replace('%', &format!("{}/", self.files.path().display()));
        let url = format!("postgres://{user}@{host}:{}/app?{settings}", self.port);
        let ended = migrate(folder.path(), &[], &["up", "--postgres", &url]);
        assert!(!ended.text.contains("s3"), "a password is shown: {}", ended.text);
        ended
    }
}

#[test]
fn each_sslmode_asks_of_a_certificate_what_libpq_asks() {
    let server = server();
    let root = "sslrootcert=%known.pem";
    // The certificate is for localhost, of a known authority.
    for (host, settings, code, says) in [
        ("localhost", "sslmode=disable", 0, ""),
        ("localhost", "sslmode=prefer", 0, ""),
        ("localhost", "sslmode=require", 0, ""),
        ("localhost", "sslmode=verify-ca&sslrootcert=%known.pem", 0, ""),
        ("localhost", "sslmode=verify-full&sslrootcert=%known.pem", 0, ""),
        // Another name of the same machine.
        ("127.0.0.1", "sslmode=verify-ca&sslrootcert=%known.pem", 0, ""),
        ("127.0.0.1", "sslmode=verify-full&sslrootcert=%known.pem", 7, "not valid for name"),
        // Not of this authority; whoever names one wants it asked, but not by `prefer`.
        ("localhost", "sslmode=verify-ca&sslrootcert=%other.pem", 7, "UnknownIssuer"),
        ("localhost", "sslmode=require&sslrootcert=%other.pem", 7, "UnknownIssuer"),
        ("localhost", "sslmode=prefer&sslrootcert=%other.pem", 0, ""),
        // Nor of one that the system knows.
        ("localhost", "sslmode=verify-full", 7, "UnknownIssuer"),
        ("localhost", "sslrootcert=system", 7, "UnknownIssuer"),
        ("localhost", "sslmode=verify-full&sslrootcert=%nothing.pem", 7, "nothing.pem"),
        ("localhost", "sslmode=verify-full&sslrootcert=%card.key", 7, "no certificate"),
    ] {
        eprintln!("{host} {settings}");
        server.up("postgres", host, settings).is(code, says);
    }
    server.shows("localhost", &server.known, Valid::NotAnyMore);
    server.up("postgres", "localhost", &format!("sslmode=verify-ca&{root}")).is(7, "expired");
    server.up("postgres", "localhost", "sslmode=require").is(0, "");
    server.shows("elsewhere", &server.known, Valid::Now);
    let wrong = server.up("postgres", "localhost", &format!("sslmode=verify-full&{root}"));
    wrong.is(7, "not valid for name");
}

#[test]
fn a_server_that_insists_on_tls_is_reached_by_allow_and_refuses_disable() {
    let server = server();
    let app = format!("app:{ESCAPED_PASSWORD}");
    server.up(&app, "localhost", "sslmode=allow").is(0, "");
    server.up(&app, "localhost", "sslmode=disable").is(7, "no pg_hba.conf entry");
    server.up("app:wrong", "localhost", "sslmode=require").is(7, "password authentication failed");
    server.up(&app, "localhost", "sslmode=require&channel_binding=require").is(0, "");
}

#[test]
fn a_client_shows_its_certificate_and_the_server_knows_whose_it_is() {
    let server = server();
    let with = |name: &str| format!("sslmode=require&sslcert=%{name}.crt&sslkey=%{name}.key");
    server.up("card", "localhost", &with("card")).is(0, "");
    server
        .up("card", "localhost", "sslmode=require")
        .is(7, "connection requires a valid client certificate");
    server.up("card", "localhost", &with("forged")).is(7, "");
    server.up("app", "localhost", "sslmode=require&sslcert=%card.crt").is(2, "sslkey is not");
    let half = server.up("card", "localhost", "sslmode=require&sslcert=%card.crt&sslkey=%card.crt");
    half.is(7, "card.crt");
}

/// A project whose file has a URL without what the test gives otherwise.
fn told(server: &Server, toml: &str, variables: &[(&str, &str)]) -> Ended {
    let folder = project("up.sql", "SELECT 1;\n");
    std::fs::write(folder.path().join("migrate.toml"), toml).expect("a file");
    let mut all = vec![("PGPORT", server.port.as_str()), ("PGHOST", "localhost")];
    all.extend(variables);
    let ended = migrate(folder.path(), &all, &["-v", "up"]);
    assert!(!ended.text.contains("s3 cret"), "a password is shown: {}", ended.text);
    ended
}

#[test]
fn what_the_url_leaves_open_is_taken_from_libpqs_variables() {
    let server = server();
    let bare = "[postgres]\nurl = \"postgres://\"\n";
    let app = [("PGUSER", "app"), ("PGDATABASE", "app"), ("PGPASSWORD", PASSWORD)];
    told(&server, bare, &app).is(0, "");
    told(&server, bare, &[("PGUSER", "app"), ("PGDATABASE", "app"), ("PGPASSWORD", "wrong")])
        .is(7, "password authentication failed");
    // What the URL says counts.
    let url = "[postgres]\nurl = \"postgres://postgres@/app\"\n";
    told(&server, url, &app).is(0, "");
    let root = server.files.path().join("other.pem");
    let root = root.to_str().expect("a path");
    told(&server, url, &[("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", root)])
        .is(7, "UnknownIssuer");
    // And so does what the file says.
    let strict = format!("{url}sslmode = \"disable\"\n");
    told(&server, &strict, &[("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", root)]).is(0, "");
    told(&server, bare, &[("PGUSER", "app"), ("PGCONNECT_TIMEOUT", "soon")])
        .is(2, "connect_timeout");
    // A service file is none of ours.
    let folder = project("up.sql", "SELECT 1;\n");
    migrate(folder.path(), &[], &["up", "--postgres", "service=shop"]).is(2, "pg_service.conf");
    migrate(folder.path(), &[("PGSERVICE", "shop")], &["up", "--postgres", "postgres://"])
        .is(2, "pg_service.conf");
    // A variable alone is no database.
    migrate(folder.path(), &[("PGHOST", "localhost")], &["up"]).is(2, "");
}

#[test]
fn a_password_is_found_in_pgpass_unless_others_may_read_that() {
    let server = server();
    let folder = project("up.sql", "SELECT 1;\n");
    let url = format!("postgres://app@localhost:{}/app", server.port);
    let up = |variables: &[(&str, &str)]| {
        let ended = migrate(folder.path(), variables, &["up", "--postgres", &url]);
        assert!(!ended.text.contains("s3 cret"), "a password is shown: {}", ended.text);
        ended
    };
    let escaped = PASSWORD.replace('\\', r"\\").replace(':', r"\:");
    let lines = format!(
        "elsewhere:*:*:*:wrong\nlocalhost:{}:app:app:{escaped}\n*:*:*:*:late\n",
        server.port
    );
    up(&[]).is(7, "password missing");
    let home = folder.path().join(".pgpass");
    std::fs::write(&home, &lines).expect("a file");
    std::fs::set_permissions(&home, PermissionsExt::from_mode(0o644)).expect("ours");
    up(&[]).is(7, "chmod 600");
    std::fs::set_permissions(&home, PermissionsExt::from_mode(0o600)).expect("ours");
    up(&[]).is(0, "");
    // PGPASSFILE instead of it, PGPASSWORD before both.
    let named = folder.path().join("passwords");
    std::fs::write(&named, "*:*:*:*:wrong\n").expect("a file");
    std::fs::set_permissions(&named, PermissionsExt::from_mode(0o600)).expect("ours");
    let named = named.to_str().expect("a path");
    up(&[("PGPASSFILE", named)]).is(7, "password authentication failed");
    up(&[("PGPASSFILE", named), ("PGPASSWORD", PASSWORD)]).is(0, "");
}

#[test]
fn of_several_hosts_the_one_that_takes_writes_is_found() {
    let server = server();
    let env = |name: &str| std::env::var(name).ok();
    let options = Options { stores: vec![StoreName::Postgres], ..Options::new(&env) };
    let reader = block_on(|| Sandbox::start(&options, &|_| {})).expect("run scripts/setup");
    let reader_url = reader.postgres_url.clone().expect("it was asked for");
    for url in [&server.url, &reader_url] {
        sql(url, "CREATE DATABASE several");
    }
    sql(&reader_url, "ALTER SYSTEM SET default_transaction_read_only = on");
    sql(&reader_url, "SELECT pg_reload_conf()");
    until("it to be read-only", || {
        sql(&reader_url, "SHOW default_transaction_read_only") == ["on"]
    });
    let (_, reader_port) = reader_url.split_once("127.0.0.1:").expect("it listens there");
    let reader_port = reader_port.split('/').next().expect("a port");
    let nobody = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let closed = nobody.local_addr().expect("a port").port();
    drop(nobody);
    let folder = project("up.sql", "CREATE TABLE found (n int);\n");
    let hosts = format!("localhost:{closed},localhost:{reader_port},localhost:{}", server.port);
    let url = format!("postgres://postgres@{hosts}/several?target_session_attrs=read-write");
    migrate(folder.path(), &[], &["up", "--postgres", &url]).is(0, "");
    let several = server.url.replace("/app", "/several");
    assert_eq!(sql(&several, "SELECT to_regclass('found') IS NOT NULL"), ["t"]);
    let only = format!(
        "postgres://postgres@localhost:{reader_port}/several?target_session_attrs=read-write"
    );
    migrate(folder.path(), &[], &["up", "--postgres", &only]).is(7, "writes");
}
