//! Errors by their names, each from a program that ends with it: what no other
//! test has an expectation for. `tests/errors` sees to it that none is left out.

use std::fs::{self, File};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use bson::doc;
use lockstep::cli::failure::codes::codes;
use serde_json::Value;

use crate::project::{Project, Ran, until, write};
use crate::session::session;

/// A migration of each store.
const FILES: [(&str, &str); 4] = [
    ("001-a/up.sql", "CREATE TABLE a (id integer);"),
    ("001-a/down.sql", "DROP TABLE a;"),
    ("001-a/up.mongodb.js", "db.createCollection(\"a\");"),
    ("001-a/down.mongodb.js", "db.a.drop();"),
];

/// Runs as long as there is a row in `gate`.
const SLOW: &str =
    "DO $$ BEGIN WHILE EXISTS (SELECT FROM gate) LOOP PERFORM pg_sleep(0.02); END LOOP; END $$;";

fn usual(name: &str) -> Project {
    Project::new(name, &FILES)
}

/// What it said last has this name, and the exit code that goes with it.
#[track_caller]
fn has_name(ran: &Ran, name: &str) {
    let last = ran.objects().pop().unwrap_or_else(|| panic!("it says nothing:\n{ran}"));
    let error = if last["event"] == "error" { &last } else { &last["error"] };
    assert_eq!(error["code"], name, "{ran}");
    let listed = codes().find(|code| code.name == name).expect("it is listed");
    let exits: Vec<i32> = listed.exits.iter().map(|exit| exit.code().into()).collect();
    assert!(exits.contains(&ran.code), "{exits:?}: {ran}");
}

/// Runs a command, which must end with the error of this name.
#[track_caller]
fn ends(mut command: Command, name: &str) {
    command.args(["--output", "json"]);
    has_name(&Ran::of(&[name], command.output().unwrap()), name);
}

#[track_caller]
fn provokes(project: &Project, name: &str, arguments: &[&str]) {
    ends(project.command(arguments), name);
}

#[test]
fn wrong_arguments() {
    let project = usual("errors_usage");
    provokes(&project, "USAGE", &["up", "--to", "soon"]);
    provokes(&project, "UNKNOWN_VERSION", &["up", "--to", "9"]);
    provokes(&project, "NEVER_MIGRATED", &["backfill", "status"]);
    project.ok(&["up"]);
    provokes(&project, "NOT_APPLIED", &["down", "--to", "9", "--yes"]);
    provokes(&project, "NOT_HELD", &["cleanup", "1"]);
    provokes(&project, "NO_REPAIR", &["repair", "--accept-checksum", "7", "--yes"]);
    provokes(&project, "UNKNOWN_RELEASE", &["down", "--release", "none", "--yes"]);
    provokes(&project, "ALREADY_APPLIED", &["baseline", "1", "--yes"]);
    provokes(&project, "NO_MIGRATIONS", &["status", "--dir", "nowhere"]);
}

#[test]
fn files_that_cannot_be_written_or_named() {
    let project = usual("errors_files");
    provokes(&project, "ALREADY_THERE", &["init"]);
    provokes(&project, "BAD_NAME", &["new", "!!!"]);
    write(&project.path("file"), "");
    provokes(&project, "CANNOT_WRITE", &["init", "--dir", "file/migrations"]);
    fs::create_dir(project.path("theirs")).unwrap();
    provokes(&project, "NOTHING_TO_IMPORT", &["import", "dbmate", "--from", "theirs"]);
}

#[test]
fn what_git_does_not_tell() {
    let project = usual("errors_git");
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.current_dir(project.path("")).args(arguments);
        command.env("GIT_CONFIG_GLOBAL", "/dev/null");
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_NAME"), "Tester");
            command.env(format!("GIT_{role}_EMAIL"), "tester@example.invalid");
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let lint = ["lint", "--base", "main"];
    let mut without = project.command(&lint);
    without.env("PATH", project.path("migrations"));
    ends(without, "NO_GIT");
    provokes(&project, "NO_REPOSITORY", &lint);
    git(&["init", "-q", "-b", "main"]);
    provokes(&project, "UNKNOWN_REF", &lint);
    git(&["add", "-A"]);
    git(&["commit", "-qm", "first"]);
    // The commit is there, and what it consists of is not.
    let tree = git(&["rev-parse", "HEAD^{tree}"]);
    let (folder, file) = tree.split_at(2);
    fs::remove_file(project.path(&format!(".git/objects/{folder}/{file}"))).unwrap();
    provokes(&project, "GIT_FAILED", &lint);
}

#[test]
fn wrong_settings() {
    let project = usual("errors_config");
    let toml = |text: &str| write(&project.path("migrate.toml"), text);
    provokes(&project, "BAD_URL", &["status", "--postgres", "postgres://host:port/shop"]);
    provokes(&project, "CONFIG_URL", &["status", "--postgres", "mongodb://host/shop"]);
    provokes(&project, "CONFIG_NOT_FOUND", &["status", "-C", "nowhere.toml"]);
    provokes(&project, "CONFIG_UNREADABLE", &["status", "-C", "migrations"]);
    provokes(&project, "CONFIG_VAR_NAME", &["status", "--var", "1 2=3"]);
    let mut bare = project.command(&["status"]);
    bare.env_remove("DATABASE_URL").env_remove("MONGODB_URI");
    ends(bare, "CONFIG_NO_STORE");
    toml("nonsense = 1\n");
    provokes(&project, "CONFIG_INVALID", &["status"]);
    toml("");
    provokes(&project, "CONFIG_ENV_UNKNOWN", &["status", "--env", "moon"]);
    toml("[postgres]\nurl = '${NO_SUCH}'\n");
    let without_url = |name: &str| {
        let mut command = project.command(&["status"]);
        command.env_remove("DATABASE_URL");
        ends(command, name);
    };
    without_url("CONFIG_VARIABLE_UNSET");
    toml("[postgres]\nurl_file = 'nowhere'\n");
    without_url("CONFIG_URL_FILE");
    toml("[postgres]\nschema = 'shop'\n");
    without_url("CONFIG_NO_URL");
    // A shell that stands in a folder which somebody deletes.
    let mut gone = Command::new("sh");
    let program = env!("CARGO_BIN_EXE_migrate");
    let script = format!("mkdir gone && cd gone && rmdir ../gone && exec '{program}' \"$@\"");
    gone.current_dir(project.path("")).args(["-c", &script, "sh", "status"]);
    ends(gone, "CONFIG_WORKING_DIRECTORY");
}

#[test]
fn databases_that_are_missing_or_refuse() {
    let project = usual("errors_databases");
    provokes(&project, "UNREACHABLE", &["status", "--postgres", "postgres://127.0.0.1:1/shop"]);
    let mut one = project.command(&["up"]);
    one.env_remove("MONGODB_URI");
    ends(one, "NO_STORE");
    let mut sandbox = project.command(&["sandbox"]);
    sandbox.env("LOCKSTEP_POSTGRES_BIN", project.path("migrations"));
    ends(sandbox, "NO_SANDBOX");
    let name = &project.database.name;
    let read_only = "SET default_transaction_read_only = on";
    project.database.sql(&format!("ALTER DATABASE \"{name}\" {read_only}"));
    provokes(&project, "DATABASE_REFUSED", &["up"]);
}

#[test]
fn steps_that_fail() {
    let project = usual("errors_steps");
    project.ok(&["up"]);
    let file = "002-b/migration.toml";
    project.write(file, "[[run]]\ncommand = [\"sh\", \"-c\", \"exit 3\"]\n");
    provokes(&project, "PROGRAM_FAILED", &["up"]);
    project.write(file, "[[run]]\ncommand = [\"no-such-program\"]\n");
    provokes(&project, "PROGRAM_NOT_STARTED", &["up"]);
    let invariant =
        "[[invariant]]\nname = \"some\"\npostgres = \"SELECT count(*) FROM a\"\nexpect = 1\n";
    project.write(file, invariant);
    project.write("002-b/up.sql", "CREATE TABLE b (id integer);");
    provokes(&project, "INVARIANT_BROKEN", &["up"]);

    let project = usual("errors_names");
    project.database.sql("CREATE TABLE b (id integer, n integer); CREATE INDEX b_id ON b (n)");
    project.write("002-b/up.sql", "CREATE INDEX CONCURRENTLY b_id ON b (id);");
    provokes(&project, "NAME_TAKEN", &["up"]);
    project.write("002-b/up.sql", "SELECT 1;");
    project.write("002-b/up.mongodb.js", "db.dropDatabase();");
    provokes(&project, "DROPS_HISTORY", &["up"]);
}

/// A record that says `started`, as a run leaves it that dies in the statement.
#[test]
fn steps_that_only_a_person_can_settle() {
    let project = usual("errors_doubt");
    let capped = "db.runCommand({ convertToCapped: \"a\", size: 4096 });";
    project.write("002-b/up.mongodb.js", capped);
    project.ok(&["up"]);
    let delete = |collection: &str, query: bson::Document| {
        let deletes = [doc! { "q": query, "limit": 0 }];
        let deleted = project.database.run(doc! { "delete": collection, "deletes": deletes });
        assert!(deleted.get_i32("n").unwrap() > 0, "{deleted}");
    };
    delete("migration_steps", doc! { "version": 2_i64, "event": "applied" });
    delete("migration_history", doc! { "_id": 2_i64 });
    project.database.sql("DELETE FROM migration_history WHERE version = 2");
    provokes(&project, "IN_DOUBT", &["up"]);
    project.write("002-b/up.mongodb.js", &capped.replace("4096", "8192"));
    provokes(&project, "EDITED_IN_DOUBT", &["up"]);
}

#[test]
fn files_and_histories_that_contradict_each_other() {
    let project = usual("errors_order");
    project.ok(&["up"]);
    fs::rename(project.path("migrations/001-a"), project.path("migrations/002-a")).unwrap();
    project.ok(&["repair", "--mark-reverted", "1", "--yes"]);
    project.database.sql("DROP TABLE a");
    project.database.run(doc! { "drop": "a" });
    project.ok(&["up"]);
    project.write("001-b/up.sql", "CREATE TABLE b ();");
    provokes(&project, "OUT_OF_ORDER", &["up"]);

    let project = usual("errors_rollback");
    project.ok(&["up"]);
    let scripts = "replace(rollback_script::text, 'DROP TABLE a;', 'BEGIN;')::jsonb";
    project.database.sql(&format!("UPDATE migration_history SET rollback_script = {scripts}"));
    provokes(&project, "BAD_DOWN_SCRIPT", &["down", "--yes"]);
    project.database.sql("DELETE FROM migration_history WHERE version = 1");
    let all = [doc! { "q": {}, "limit": 0 }];
    project.database.run(doc! { "delete": "migration_history", "deletes": all });
    crate::project::remove(&project.path("migrations/001-a"));
    provokes(&project, "NO_DOWN_SCRIPT", &["down", "--yes"]);
}

#[test]
fn what_was_adopted() {
    let project = usual("errors_baseline");
    project.write("002-b/up.sql", "CREATE TABLE b ();");
    project.ok(&["baseline", "2", "--yes"]);
    provokes(&project, "BASELINE", &["down", "--yes"]);
    // As if it had died between the two.
    project.database.sql("DELETE FROM migration_steps WHERE version = 2");
    let applied = [doc! { "q": { "version": 2_i64, "event": "applied" }, "limit": 0 }];
    project.database.run(doc! { "delete": "migration_steps", "deletes": applied });
    project.database.sql("DELETE FROM migration_history WHERE version = 2");
    let second = [doc! { "q": { "_id": 2_i64 }, "limit": 0 }];
    project.database.run(doc! { "delete": "migration_history", "deletes": second });
    provokes(&project, "BASELINE_OPEN", &["up"]);

    let project = Project::new("errors_foreign", &[]);
    write(&project.path("theirs/1_a.up.sql"), "CREATE TABLE a ();");
    write(&project.path("theirs/1_a.down.sql"), "DROP TABLE a;");
    project.database.sql(
        "CREATE TABLE schema_migrations (version bigint PRIMARY KEY, dirty boolean NOT NULL); \
         INSERT INTO schema_migrations VALUES (1, true)",
    );
    provokes(&project, "FOREIGN_HISTORY", &["import", "golang-migrate", "--from", "theirs"]);
}

/// With a run that is in a statement which ends when the gate is empty.
fn at_work(name: &str) -> (Project, crate::project::Running) {
    let project = usual(name);
    project.database.sql("CREATE TABLE gate AS SELECT 1 AS id");
    project.write("002-slow/up.sql", SLOW);
    project.write("002-slow/down.sql", "SELECT 1;");
    project.write("003-more/up.sql", "CREATE TABLE more ();");
    project.write("003-more/down.sql", "DROP TABLE more;");
    project.ok(&["up", "--to", "1"]);
    let running = project.start(&["up", "--output", "json"]);
    let busy = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() \
         AND query LIKE 'DO %' AND state = 'active'";
    until("a run to be in its long step", || !project.database.sql(busy).is_empty());
    (project, running)
}

#[test]
fn two_runs_at_once() {
    let (project, running) = at_work("errors_lease");
    provokes(&project, "LOCKED", &["up", "--lock-wait", "1ms"]);
    let lease = project.json(0, &["status"]).remove(0)["lease"].clone();
    let run = lease["run_id"].as_str().unwrap();
    project.ok(&["unlock", "--run", run, "--reason", "a test"]);
    project.database.sql("DELETE FROM gate");
    has_name(&running.end(), "LEASE_LOST");
}

#[test]
fn a_plan_that_changes_while_it_waits() {
    let (project, running) = at_work("errors_changed");
    let said = project.path("said");
    let mut command = project.command(&["down", "--yes", "--lock-wait", "2m"]);
    command.args(["--output", "json"]).stdout(File::create(&said).unwrap());
    let mut waiting = command.spawn().unwrap();
    let waits = || fs::read_to_string(&said).unwrap().contains("\"waiting\"");
    until("the second run to wait for the first", waits);
    project.database.sql("DELETE FROM gate");
    assert_eq!(running.end().code, 0);
    let code = waiting.wait().unwrap().code();
    let said = fs::read_to_string(&said).unwrap();
    let last: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!((code, &last["error"]["code"]), (Some(5), &"PLAN_CHANGED".into()), "{said}");
}

#[test]
fn a_run_that_is_stopped() {
    let (project, running) = at_work("errors_stopped");
    running.signal("TERM");
    project.database.sql("DELETE FROM gate");
    has_name(&running.end(), "INTERRUPTED");
}

/// What stands between a program and its server, until it is cut.
struct Wire {
    address: std::net::SocketAddr,
    ends: Arc<Mutex<Vec<TcpStream>>>,
}

impl Wire {
    fn to(server: String) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ends = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&ends);
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let (near, far) = (near.unwrap(), TcpStream::connect(&server).unwrap());
                for (mut from, mut to) in [(&near, &far), (&far, &near)]
                    .map(|(from, to)| (from.try_clone().unwrap(), to.try_clone().unwrap()))
                {
                    std::thread::spawn(move || {
                        // However it ends, it has ended.
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                shared.lock().unwrap().extend([near, far]);
            }
        });
        Wire { address, ends }
    }

    fn cut(&self) {
        for end in &*self.ends.lock().unwrap() {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

#[test]
fn a_run_that_is_cut_off() {
    let project = usual("errors_cut");
    project.database.sql("CREATE TABLE gate AS SELECT 1 AS id");
    // Of what a transaction holds it would be known that nothing has happened.
    project.write("002-slow/up.sql", "CREATE INDEX CONCURRENTLY gate_id ON gate (id);");
    let in_the_way =
        session(&project.database.postgres_url.parse().unwrap(), "BEGIN; DELETE FROM gate");
    let url = project.database.postgres_url.clone();
    let (front, name) = url.rsplit_once('/').expect("a URL ends with the database");
    let server = front.rsplit(['/', '@']).next().expect("it has a host");
    let wire = Wire::to(server.to_owned());
    let url = format!("{}{}/{name}", front.strip_suffix(server).unwrap(), wire.address);
    let running = project.start(&["up", "--output", "json", "--postgres", &url]);
    let busy = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() \
         AND query LIKE 'CREATE INDEX%' AND wait_event_type = 'Lock'";
    until("a run to wait for the table", || !project.database.sql(busy).is_empty());
    wire.cut();
    has_name(&running.end(), "CONNECTION_LOST");
    drop(in_the_way);
}
