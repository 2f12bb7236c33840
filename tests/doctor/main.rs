//! `migrate doctor` on real servers: what it finds, how it ends, and that it
//! leaves nothing behind.

#[path = "../support/mod.rs"]
mod support;

use lockstep::core::id::StoreName;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;
use support::pair::Pair;
use support::sql::sql;
use support::wait::{LIMIT, POLL};
use support::{Database, block_on};

/// A project with one migration for both stores.
fn project(toml: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("migrations/001-users");
    std::fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write("up.sql", "CREATE TABLE users (id bigint PRIMARY KEY);\n");
    write("down.sql", "DROP TABLE users;\n");
    write("up.mongodb.js", "db.createCollection('users');\n");
    write("down.mongodb.js", "db.users.drop();\n");
    if !toml.is_empty() {
        write("migration.toml", toml);
    }
    dir
}

/// What the command said, and how it ended.
struct Seen {
    code: i32,
    report: Value,
}

impl Seen {
    /// `level check: message` of what is about a store and a check.
    fn finding(&self, store: &str, check: &str) -> String {
        let all = self.report["findings"].as_array().expect("there are findings");
        let wanted = |it: &&Value| it["check"] == check && it["store"] == store;
        let show = |it: &Value| {
            let text = |field: &str| it[field].as_str().unwrap_or("-").to_owned();
            format!("{}: {}; next: {}", text("level"), text("message"), text("next"))
        };
        all.iter().filter(wanted).map(show).collect::<Vec<_>>().join("\n")
    }
}

fn doctor(project: &Path, postgres: &str, mongo: &str) -> Seen {
    let output = Command::new(env!("CARGO_BIN_EXE_migrate"))
        .args(["doctor", "--output", "json", "--postgres", postgres, "--mongo", mongo])
        .current_dir(project)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let report: Value = serde_json::from_str(text.trim()).unwrap_or_else(|error| {
        panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr))
    });
    assert_eq!(report["v"], 1);
    assert_eq!(report["event"], "doctor");
    let code = output.status.code().unwrap();
    assert_eq!(report["ok"], code == 0, "{report:#}");
    for finding in report["findings"].as_array().unwrap() {
        assert_eq!(finding["level"] == "ok", finding["next"].is_null(), "{finding:#}");
    }
    Seen { code, report }
}

/// The same server as another role.
fn as_role(url: &str, role: &str) -> String {
    url.replacen("postgres://postgres@", &format!("postgres://{role}@"), 1)
}

/// A role that is gone at the end of the test. Its rights in the test's database
/// go with the database, which is dropped before.
struct Role(String);

impl Role {
    /// Made before the database, so that it outlives it.
    fn new() -> Role {
        let name = format!("r_{}", uuid::Uuid::new_v4().simple());
        sql(&support::servers().postgres_url, &format!("CREATE ROLE {name} LOGIN"));
        Role(name)
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        sql(&support::servers().postgres_url, &format!("DROP ROLE {}", self.0));
    }
}

fn assert_nothing_was_created(database: &Database) {
    let objects = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace \
         OR relnamespace::regnamespace::text LIKE 'pg_temp%'";
    assert_eq!(sql(&database.postgres_url, objects), Vec::<String>::new());
    let (uri, name) = (database.mongo_uri.clone(), database.name.clone());
    let databases = block_on(async || {
        let client = mongodb::Client::with_uri_str(&uri).await.unwrap();
        client.list_database_names().await.unwrap()
    });
    assert!(!databases.contains(&name), "{databases:?}");
}

#[test]
fn a_healthy_pair_has_no_problem_and_is_left_as_it_was() {
    let database = Database::new("healthy");
    let project = project("");
    let seen = doctor(project.path(), &database.postgres_url, &database.mongo_uri);
    assert_eq!(seen.code, 0, "{:#}", seen.report);
    for (store, check) in [
        ("postgres", "reachable"),
        ("postgres", "writable"),
        ("postgres", "privileges"),
        ("postgres", "orphans"),
        ("postgres", "pooler"),
        ("postgres", "replication"),
        ("postgres", "pace"),
        ("postgres", "clock"),
        ("postgres", "invalid-indexes"),
        ("postgres", "old-transactions"),
        ("mongo", "reachable"),
        ("mongo", "writable"),
        ("mongo", "topology"),
        ("mongo", "replication"),
        ("mongo", "orphans"),
        ("mongo", "pace"),
        ("mongo", "clock"),
    ] {
        let found = seen.finding(store, check);
        assert!(found.starts_with("ok: "), "{store} {check}: {found}");
    }
    assert_nothing_was_created(&database);
}

#[test]
fn people_get_a_line_for_each_check() {
    let database = Database::new("people");
    let output = Command::new(env!("CARGO_BIN_EXE_migrate"))
        .args(["doctor", "--postgres", &database.postgres_url, "--mongo", &database.mongo_uri])
        .current_dir(project("").path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("ok      Postgres writable         the server takes writes"), "{text}");
    assert!(text.contains("\n    next: "), "{text}");
    assert!(text.contains("0 problems, "), "{text}");
}

#[test]
fn a_role_that_may_not_create_is_told_what_to_grant() {
    let role = Role::new();
    let database = Database::new("lacks_create");
    // Before version 15 everybody could.
    sql(&database.postgres_url, "REVOKE CREATE ON SCHEMA public FROM public");
    let url = as_role(&database.postgres_url, &role.0);
    let seen = doctor(project("").path(), &url, &database.mongo_uri);
    assert_eq!(seen.code, 1, "{:#}", seen.report);
    let found = seen.finding("postgres", "privileges");
    assert!(found.contains("may not create the history tables in schema public"), "{found}");
    assert!(found.contains("pending migrations create things in schema public"), "{found}");
    assert!(found.contains(&format!("GRANT CREATE ON SCHEMA public TO {}", role.0)), "{found}");
    assert!(seen.finding("postgres", "orphans").starts_with("note: "), "{:#}", seen.report);
    assert_nothing_was_created(&database);
}

#[test]
fn a_history_of_another_role_needs_rights_on_its_tables_and_no_more() {
    let role = Role::new();
    let database = Database::new("history_rights");
    let project = project("");
    let up = Command::new(env!("CARGO_BIN_EXE_migrate"))
        .args(["up", "--postgres", &database.postgres_url, "--mongo", &database.mongo_uri])
        .current_dir(project.path())
        .output()
        .unwrap();
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    let url = as_role(&database.postgres_url, &role.0);
    let seen = doctor(project.path(), &url, &database.mongo_uri);
    assert_eq!(seen.code, 1, "{:#}", seen.report);
    let found = seen.finding("postgres", "privileges");
    assert!(found.contains("lacks SELECT on public.migration_control"), "{found}");

    let grant = format!(
        "GRANT SELECT, INSERT, UPDATE ON migration_control, migration_steps, migration_history, \
         migration_runs, migration_rejects TO {0}; GRANT DELETE ON migration_history TO {0}; \
         REVOKE CREATE ON SCHEMA public FROM public",
        role.0
    );
    sql(&database.postgres_url, &grant);
    let seen = doctor(project.path(), &url, &database.mongo_uri);
    assert_eq!(seen.code, 0, "{:#}", seen.report);
}

#[test]
fn a_table_of_somebody_else_is_found_before_it_is_altered() {
    let role = Role::new();
    let database = Database::new("not_ours");
    sql(
        &database.postgres_url,
        &format!("CREATE TABLE users (id int); GRANT CREATE ON SCHEMA public TO {}", role.0),
    );
    let project = project("");
    let folder = project.path().join("migrations/002-email");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("up.sql"), "ALTER TABLE users ADD email text;\n").unwrap();
    std::fs::write(folder.join("down.sql"), "ALTER TABLE users DROP email;\n").unwrap();
    let url = as_role(&database.postgres_url, &role.0);
    let seen = doctor(project.path(), &url, &database.mongo_uri);
    assert_eq!(seen.code, 1, "{:#}", seen.report);
    let found = seen.finding("postgres", "privileges");
    assert!(found.contains("change public.users, which belongs to postgres"), "{found}");
}

#[test]
fn a_read_only_database_is_a_problem() {
    let database = Database::new("read_only");
    let name = &database.name;
    sql(
        &support::servers().postgres_url,
        &format!("ALTER DATABASE {name} SET default_transaction_read_only = on"),
    );
    let seen = doctor(project("").path(), &database.postgres_url, &database.mongo_uri);
    assert_eq!(seen.code, 1, "{:#}", seen.report);
    let found = seen.finding("postgres", "writable");
    assert!(found.starts_with("problem: default_transaction_read_only is on"), "{found}");
}

#[test]
fn an_unreachable_database_does_not_hide_the_other() {
    let database = Database::new("unreachable");
    // Nobody listens on port 1.
    let seen = doctor(project("").path(), "postgres://postgres@127.0.0.1:1/x", &database.mongo_uri);
    assert_eq!(seen.code, 7, "{:#}", seen.report);
    assert!(seen.finding("postgres", "reachable").starts_with("problem: "), "{:#}", seen.report);
    assert!(seen.finding("mongo", "writable").starts_with("ok: "), "{:#}", seen.report);

    let nobody = "mongodb://127.0.0.1:1/x?serverSelectionTimeoutMS=200";
    let seen = doctor(project("").path(), &database.postgres_url, nobody);
    assert_eq!(seen.code, 7, "{:#}", seen.report);
    assert!(seen.finding("mongo", "reachable").starts_with("problem: "), "{:#}", seen.report);
    assert!(seen.finding("postgres", "writable").starts_with("ok: "), "{:#}", seen.report);
    assert_nothing_was_created(&database);
}

#[test]
fn a_requirement_that_is_not_met_has_its_own_exit_code() {
    let database = Database::new("requires");
    let project = project("requires = { postgres = \">=99\" }\n");
    let seen = doctor(project.path(), &database.postgres_url, &database.mongo_uri);
    assert_eq!(seen.code, 9, "{:#}", seen.report);
    let findings = seen.report["findings"].as_array().unwrap();
    let found = findings.iter().find(|it| it["check"] == "requires").unwrap();
    let message = found["message"].as_str().unwrap();
    assert!(message.starts_with("001-users requires Postgres >= 99"), "{message}");
}

#[test]
fn an_invalid_index_is_named() {
    let database = Database::new("invalid_index");
    let seen = sql(
        &database.postgres_url,
        "CREATE TABLE t (a int); INSERT INTO t VALUES (1), (1); SELECT 'made'",
    );
    assert_eq!(seen, ["made"]);
    let url = database.postgres_url.clone();
    let error = block_on(async || {
        let (client, connection) =
            tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute("CREATE UNIQUE INDEX CONCURRENTLY broken ON t (a)").await
    });
    error.expect_err("two rows are equal");
    let seen = doctor(project("").path(), &database.postgres_url, &database.mongo_uri);
    assert_eq!(seen.code, 0, "{:#}", seen.report);
    let found = seen.finding("postgres", "invalid-indexes");
    assert!(found.starts_with("warning: ") && found.contains("public.broken on t"), "{found}");
}

// --- servers of their own ----------------------------------------------------

/// A program that ends with the test.
struct Server {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts a program and returns when its port is open.
fn serve(dir: tempfile::TempDir, port: u16, command: &mut Command) -> Server {
    let log = std::fs::File::create(dir.path().join("output")).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let mut server = Server { child: command.spawn().unwrap(), port, dir };
    let begun = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        let ended = server.child.try_wait().unwrap();
        let log = std::fs::read_to_string(server.dir.path().join("output")).unwrap();
        assert!(ended.is_none() && begun.elapsed() < LIMIT, "it does not start: {log}");
        std::thread::park_timeout(POLL);
    }
    server
}

/// A MongoDB without a replica set.
fn standalone(more: &[&str]) -> Server {
    let env = |name: &str| std::env::var(name).ok();
    let mongod = lockstep::sandbox::find(&env).mongod.expect("scripts/setup puts a mongod there");
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut command = Command::new(mongod);
    command
        .args(["--bind_ip", "127.0.0.1", "--nounixsocket", "--wiredTigerCacheSizeGB", "0.25"])
        .arg("--dbpath")
        .arg(dir.path())
        .args(["--port", &port.to_string()])
        .args(more);
    serve(dir, port, &mut command)
}

#[test]
fn a_mongodb_user_that_may_only_read_is_told_what_to_grant() {
    let server = standalone(&["--auth"]);
    let port = server.port;
    let run = |uri: String, database: &str, command: bson::Document| {
        block_on(async || {
            let client = mongodb::Client::with_uri_str(&uri).await.unwrap();
            client.database(database).run_command(command).await.unwrap();
        });
    };
    // The first user may be made by whoever is on the machine.
    let root = bson::doc! { "createUser": "root", "pwd": "root", "roles": ["root"] };
    run(format!("mongodb://127.0.0.1:{port}/"), "admin", root);
    let reader = bson::doc! { "createUser": "reader", "pwd": "s3cret", "roles": ["read"] };
    let writer = bson::doc! { "createUser": "writer", "pwd": "s3cret", "roles": ["readWrite"] };
    for user in [reader, writer] {
        run(format!("mongodb://root:root@127.0.0.1:{port}/admin"), "shop", user);
    }
    let database = Database::new("mongo_reader");
    let uri = |user: &str| format!("mongodb://{user}:s3cret@127.0.0.1:{port}/shop");
    let seen = doctor(project("").path(), &database.postgres_url, &uri("reader"));
    assert_eq!(seen.code, 1, "{:#}", seen.report);
    let found = seen.finding("mongo", "privileges");
    assert!(found.contains("this user lacks createCollection on migration_control"), "{found}");
    assert!(found.contains("grant it the roles readWrite and dbAdmin on shop"), "{found}");
    let found = seen.finding("mongo", "pace");
    assert!(found.starts_with("note: serverStatus may not be read"), "{found}");

    let seen = doctor(project("").path(), &database.postgres_url, &uri("writer"));
    assert_eq!(seen.code, 0, "{:#}", seen.report);
    assert!(seen.finding("mongo", "privileges").starts_with("ok: "), "{:#}", seen.report);
    assert!(seen.finding("mongo", "orphans").starts_with("note: "), "{:#}", seen.report);

    let wrong = format!("mongodb://writer:wrong@127.0.0.1:{port}/shop");
    let seen = doctor(project("").path(), &database.postgres_url, &wrong);
    assert_eq!(seen.code, 7, "{:#}", seen.report);
    let nobody = format!("mongodb://127.0.0.1:{port}/shop");
    let seen = doctor(project("").path(), &database.postgres_url, &nobody);
    assert_eq!(seen.code, 1, "{:#}", seen.report);
    let found = seen.finding("mongo", "privileges");
    assert!(found.contains("put a user and its password into the URL"), "{found}");
}

#[test]
fn a_standalone_mongodb_is_told_what_it_lacks() {
    let server = standalone(&[]);
    let database = Database::new("standalone");
    let mongo = format!("mongodb://127.0.0.1:{}/shop", server.port);
    let seen = doctor(project("").path(), &database.postgres_url, &mongo);
    assert_eq!(seen.code, 0, "{:#}", seen.report);
    let found = seen.finding("mongo", "topology");
    assert!(found.starts_with("warning: a standalone server"), "{found}");

    let seen = doctor(
        project("requires = { mongo = \"replica-set\" }\n").path(),
        &database.postgres_url,
        &mongo,
    );
    assert_eq!(seen.code, 9, "{:#}", seen.report);
}

#[test]
fn a_pooler_in_transaction_mode_is_seen() {
    use std::os::unix::fs::PermissionsExt;
    let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/opt/homebrew/bin/pgbouncer"];
    let program = program.map(PathBuf::from).into_iter().find(|path| path.exists());
    let program = program.expect("scripts/setup --tests installs pgbouncer");
    let database = Database::new("pooler");
    let server = database.postgres_url.split('@').nth(1).unwrap();
    let server = server.split('/').next().unwrap().rsplit_once(':').unwrap().1.to_owned();
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let port = free_port();
    let users = dir.path().join("users.txt");
    std::fs::write(&users, "\"postgres\" \"\"\n").unwrap();
    let config = dir.path().join("pgbouncer.ini");
    std::fs::write(
        &config,
        format!(
            "[databases]\n* = host=127.0.0.1 port={server} user=postgres\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = trust\nauth_file = {}\npool_mode = transaction\n",
            users.display()
        ),
    )
    .unwrap();
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let mut command = Command::new(&program);
    if is_root {
        // It refuses to run as root.
        command.args(["-u", "postgres"]);
    }
    command.arg(&config);
    let pooler = serve(dir, port, &mut command);

    let url = format!("postgres://postgres@127.0.0.1:{}/{}", pooler.port, database.name);
    let seen = doctor(project("").path(), &url, &database.mongo_uri);
    assert_eq!(seen.code, 0, "{:#}", seen.report);
    let found = seen.finding("postgres", "pooler");
    assert!(found.starts_with("warning: a pooler in transaction mode"), "{found}");
    drop(pooler);
    assert_nothing_was_created(&database);
}

#[test]
fn a_postgres_whose_clock_lags_is_told_of() {
    let mut pair = Pair::new(StoreName::Postgres);
    let (url, mongo) = (pair.postgres.clone(), pair.mongo.clone());
    let seen = doctor(project("").path(), &url, &mongo);
    assert!(seen.finding("postgres", "clock").starts_with("ok"), "{:#}", seen.report);

    // The same server again, in a world that is two minutes behind.
    pair.shut_down();
    pair.restart_with(|command| {
        command
            .env("LD_PRELOAD", support::libfaketime())
            .env("FAKETIME", "-120s")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    });
    let seen = doctor(project("").path(), &url, &mongo);
    let all = seen.report["findings"].as_array().unwrap();
    let clocks: Vec<String> = all
        .iter()
        .filter(|it| it["check"] == "clock" && it["level"] == "warning")
        .map(|it| format!("{} next: {}", it["message"], it["next"]))
        .collect();
    let says = |what: &str| {
        let found = clocks.iter().find(|it| it.contains(what));
        let found = found.unwrap_or_else(|| panic!("{what}: {:#}", seen.report));
        assert!(found.contains("differ by 120.") || found.contains("differ by 119."), "{found}");
        assert!(found.contains("let NTP set both"), "{found}");
    };
    says("the clocks of this machine and Postgres");
    says("the clocks of Postgres and MongoDB");
    assert_eq!(clocks.len(), 2, "{clocks:#?}");
    assert_eq!(seen.code, 0, "it is a warning: leases go by each server's own clock");

    // And they do.
    let project = project("");
    for command in [&["up"][..], &["status", "--exit-code"], &["verify"]] {
        let ran = Command::new(env!("CARGO_BIN_EXE_migrate"))
            .args(command)
            .args(["--postgres", &url, "--mongo", &mongo])
            .current_dir(project.path())
            .output()
            .unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }
}
