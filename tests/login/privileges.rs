//! docs/privileges.md as it stands: its roles are made, and each may do what the
//! document says, and no more.

use crate::support::block_on;
use crate::support::sql::sql;
use crate::support::wait::until;
use crate::{Ended, migrate};
use bson::doc;
use lockstep::core::id::StoreName;
use lockstep::sandbox::{Options, Sandbox};
use mongodb::Client;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const DOCUMENT: &str = include_str!("../../docs/privileges.md");

/// The blocks of a language, in order.
fn blocks(language: &str) -> Vec<&'static str> {
    let begins = format!("```{language}\n");
    let parts = DOCUMENT.split(begins.as_str()).skip(1);
    parts.map(|part| part.split_once("```").expect("a block ends").0).collect()
}

/// A pair in which who is who matters.
struct Pair {
    postgres: String,
    mongo_port: u16,
    mongod: Child,
    folder: tempfile::TempDir,
    _sandbox: Sandbox,
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = self.mongod.kill();
        let _ = self.mongod.wait();
    }
}

impl Pair {
    fn start() -> Pair {
        let env = |name: &str| std::env::var(name).ok();
        let options = Options { stores: vec![StoreName::Postgres], ..Options::new(&env) };
        let mongod = options.programs.mongod.clone().expect("run scripts/setup: no mongod");
        let sandbox = block_on(|| Sandbox::start(&options, &|_| {})).expect("run scripts/setup");
        let postgres = sandbox.postgres_url.clone().expect("it was asked for");
        sql(&postgres, "CREATE DATABASE shop");
        let folder = tempfile::tempdir().expect("a folder");
        let key = folder.path().join("key");
        std::fs::write(&key, "c2hvcCBoYXMgb25lIG1lbWJlcg==").expect("a file");
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).expect("ours");
        std::fs::create_dir(folder.path().join("data")).expect("a folder");
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let mongod = Command::new(mongod)
            .args(["--bind_ip", "127.0.0.1", "--nounixsocket", "--wiredTigerCacheSizeGB", "0.25"])
            .args(["--setParameter", "diagnosticDataCollectionEnabled=false"])
            .args(["--auth", "--replSet", "rs0", "--port", &port.to_string(), "--keyFile"])
            .arg(&key)
            .arg("--dbpath")
            .arg(folder.path().join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("mongod starts");
        let pair = Pair {
            postgres: postgres.replace("/app", "/shop"),
            mongo_port: port,
            mongod,
            folder,
            _sandbox: sandbox,
        };
        pair.first_user();
        pair
    }

    /// Nobody in particular may make a set and the first user, from this machine.
    fn first_user(&self) {
        let uri = format!("mongodb://127.0.0.1:{}/?directConnection=true", self.mongo_port);
        until("a primary", || {
            block_on(async || {
                let client = Client::with_uri_str(&uri).await.expect("a valid URI");
                let admin = client.database("admin");
                let host = format!("127.0.0.1:{}", self.mongo_port);
                let set = doc! { "_id": "rs0", "members": [{ "_id": 0, "host": host }] };
                // It says so when it is one already.
                let _ = admin.run_command(doc! { "replSetInitiate": set }).await;
                let hello = admin.run_command(doc! { "hello": 1 }).await;
                let is_primary =
                    hello.is_ok_and(|it| it.get_bool("isWritablePrimary").unwrap_or(false));
                if is_primary {
                    let root =
                        doc! { "createUser": "root", "pwd": "everything", "roles": ["root"] };
                    admin.run_command(root).await.expect("there is no user yet");
                }
                client.shutdown().immediate(true).await;
                is_primary
            })
        });
    }

    fn mongo(&self, login: &str) -> String {
        format!(
            "mongodb://{login}@127.0.0.1:{}/shop?authSource=admin&directConnection=true",
            self.mongo_port
        )
    }

    /// As an administrator, with the password that the document leaves open.
    fn mongosh(&self, script: &str) {
        let file = self.folder.path().join("script.js");
        let script = script.replace("passwordPrompt()", "'secret'");
        std::fs::write(&file, script).expect("a file");
        let program =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/mongosh/node_modules/.bin/mongosh");
        let program = std::env::var_os("LOCKSTEP_MONGOSH").map_or(program, Into::into);
        let output = Command::new(program)
            .args([&self.mongo("root:everything"), "--quiet", "--norc"])
            .arg(&file)
            .env("HOME", self.folder.path())
            .output()
            .expect("scripts/setup --tests installs mongosh");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }

    fn migrate(&self, role: &str, project: &Path, arguments: &[&str]) -> Ended {
        let postgres = self.postgres.replacen("postgres@", &format!("{role}@"), 1);
        let mongo = self.mongo(&format!("{role}:secret"));
        let variables = [("DATABASE_URL", postgres.as_str()), ("MONGODB_URI", mongo.as_str())];
        eprintln!("{role}: migrate {}", arguments.join(" "));
        migrate(project, &variables, arguments)
    }
}

/// Everything that the engine does to a database: tables, an index on its own,
/// backfills in both stores, copies both ways, comparisons, a lasting invariant, and
/// the way back.
fn project() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        std::fs::write(file, text).expect("a file");
    };
    write("migrate.toml", "[history]\nschema = \"lockstep\"\n");
    write(
        "migrations/001-users/up.sql",
        "CREATE TABLE users (id bigint PRIMARY KEY, name text NOT NULL, seen int);\n\
         CREATE TABLE orders (id bigint PRIMARY KEY, total int NOT NULL);\n\
         INSERT INTO users SELECT g, 'user ' || g FROM generate_series(1, 100) AS g;\n\
         CREATE INDEX CONCURRENTLY users_name ON users (name);\n",
    );
    write("migrations/001-users/down.sql", "DROP TABLE users;\nDROP TABLE orders;\n");
    write(
        "migrations/001-users/up.mongodb.js",
        "db.createCollection('orders');\n\
         db.orders.insertMany([{ _id: 1, total: 5 }, { _id: 2, total: 6 }]);\n\
         db.orders.createIndex({ total: 1 }, { name: 'by_total' });\n\
         db.runCommand({ collMod: 'orders', validationLevel: 'strict' });\n",
    );
    write("migrations/001-users/down.mongodb.js", "db.orders.drop();\n");
    write(
        "migrations/002-everything/migration.toml",
        r#"
[[backfill]]
name = "seen"
postgres = { table = "users", set = "seen = 0", where = "seen IS NULL" }

[[backfill]]
name = "currency"
mongo = { collection = "orders", filter = "{ currency: null }", update = "{ $set: { currency: 'EUR' } }" }

[[backfill]]
name = "profiles"
copy = { from = "postgres", query = "SELECT id AS _id, name FROM users", key = "_id", to = "profiles" }

[[backfill]]
name = "orders"
copy = { from = "mongo", collection = "orders", pipeline = "[{ $project: { _id: 0, id: '$_id', total: 1 } }]", key = "id", to = "orders" }

[[invariant]]
name = "everybody was seen"
postgres = "SELECT count(*) FROM users WHERE seen IS NULL"
lasting = true

[[invariant]]
name = "as many profiles"
postgres = "SELECT count(*) FROM users"
mongo = { collection = "profiles", count = "{}" }
lasting = true

[[invariant]]
name = "profiles say the same"
compare = { postgres = "SELECT id AS _id, name FROM users", mongo = { collection = "profiles" }, key = "_id" }
"#,
    );
    write("migrations/002-everything/prepare.mongodb.js", "db.createCollection('profiles');\n");
    write("migrations/002-everything/prepare.down.mongodb.js", "db.profiles.drop();\n");
    write("migrations/002-everything/cleanup.sql", "ALTER TABLE users ALTER seen SET NOT NULL;\n");
    write(
        "migrations/002-everything/cleanup.down.sql",
        "ALTER TABLE users ALTER seen DROP NOT NULL;\n",
    );
    folder
}

#[test]
fn the_documented_roles_suffice_and_may_do_no_more() {
    let pair = Pair::start();
    let [first, on_call] = blocks("sql")[..] else { panic!("two blocks of SQL") };
    sql(&pair.postgres, first);
    for script in blocks("js") {
        pair.mongosh(script);
    }
    let project = project();
    let up_to_one = ["up", "--to", "1"];
    pair.migrate("shop_migrate", project.path(), &["doctor"]).is(0, "");
    pair.migrate("shop_migrate", project.path(), &up_to_one).is(0, "");
    sql(&pair.postgres, on_call);

    // Whoever looks may look, and do nothing.
    let looks: [&[&str]; 7] = [
        &["status"],
        &["plan"],
        &["plan", "down"],
        &["history"],
        &["history", "1"],
        &["backfill", "status"],
        &["backup", "list"],
    ];
    for role in ["shop_look", "shop_steer", "shop_migrate"] {
        for look in looks {
            pair.migrate(role, project.path(), look).is(0, "");
        }
    }
    for role in ["shop_look", "shop_steer"] {
        pair.migrate(role, project.path(), &["up"]).is(7, "permission denied");
        pair.migrate(role, project.path(), &["down", "--yes"]).is(7, "permission denied");
    }
    // Who is on call steers, and may record backups.
    pair.migrate("shop_look", project.path(), &["backfill", "pause"]).is(7, "permission denied");
    pair.migrate("shop_look", project.path(), &["backup", "record"]).is(7, "permission denied");
    for steering in [
        &["backfill", "pause"][..],
        &["backfill", "resume"],
        &["backfill", "speed", "0.5"],
        &["backup", "record"],
    ] {
        pair.migrate("shop_steer", project.path(), steering).is(0, "");
    }

    // All that a migration does, and back.
    pair.migrate("shop_migrate", project.path(), &["up"]).is(0, "");
    pair.migrate("shop_look", project.path(), &["verify"]).is(0, "");
    pair.migrate("shop_migrate", project.path(), &["doctor"]).is(0, "");
    pair.migrate("shop_migrate", project.path(), &["down", "--to", "0", "--yes"]).is(0, "");
    pair.migrate("shop_migrate", project.path(), &["repair"]).is(0, "");
}
