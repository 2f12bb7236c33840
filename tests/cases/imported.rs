//! Other tools' folders and histories, made by the tools themselves where a registry has
//! them (npm: dbmate and migrate-mongo; crates.io: sqlx and refinery), else as their
//! sources make them.

use std::path::{Path, PathBuf};
use std::process::Command;

use bson::doc;
use serde_json::{Value, json};

use crate::project::{Project, write};

/// A program that `scripts/setup --tests` has fetched.
fn tool(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools").join(name);
    assert!(path.exists(), "{} is missing: run scripts/setup --tests", path.display());
    path
}

/// A project, and the other tool's files in `theirs`.
fn project(name: &str, theirs: &[(&str, &str)]) -> Project {
    let project = Project::new(name, &[]);
    for (path, text) in theirs {
        write(&project.path("theirs").join(path), text);
    }
    project
}

/// The state of each migration.
fn states(project: &Project) -> Vec<Value> {
    let status = project.json(0, &["status"]).remove(0);
    let migrations = status["migrations"].as_array().expect("a list");
    let state = |it: &Value| json!([it["version"], it["state"], it["checksum"]]);
    migrations.iter().map(state).collect()
}

/// The folders in `migrations`.
fn folders(project: &Project) -> Vec<String> {
    let entries = project.path("migrations").read_dir().expect("it is there");
    let mut names: Vec<String> =
        entries.map(|it| it.expect("readable").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

/// Paths and texts.
type Files = &'static [(&'static str, &'static str)];

fn import<'a>(tool: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["import", tool, "--from", "theirs"], more].concat()
}

const DBMATE: &[(&str, &str)] = &[
    (
        "20260101000000_create_users.sql",
        "-- migrate:up\nCREATE TABLE users (id int);\n\n-- migrate:down\nDROP TABLE users;\n",
    ),
    (
        "20260102000000_index.sql",
        "-- migrate:up transaction:false\nCREATE INDEX CONCURRENTLY users_id ON users (id);\n\n-- migrate:down transaction:false\nDROP INDEX CONCURRENTLY users_id;\n",
    ),
];

#[test]
fn what_dbmate_had_applied_is_a_baseline_and_the_rest_is_pending() {
    let project = project("dbmate", DBMATE);
    let database = &project.database;
    let output = Command::new(tool("peers/node_modules/@dbmate/linux-x64/bin/dbmate"))
        .args([
            "--url",
            &database.postgres_url,
            "--migrations-dir",
            "theirs",
            "--no-dump-schema",
            "up",
        ])
        .env("PGSSLMODE", "disable")
        .current_dir(project.path("."))
        .output()
        .expect("dbmate starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    write(
        &project.path("theirs/20260103000000_names.sql"),
        "-- migrate:up\nALTER TABLE users ADD name text;\n-- migrate:down\nALTER TABLE users DROP name;\n",
    );
    let theirs = database.sql("SELECT * FROM schema_migrations ORDER BY 1");
    assert_eq!(theirs, ["20260101000000", "20260102000000"], "dbmate was here");

    let done = project.json(0, &import("dbmate", &[])).remove(0);
    assert_eq!(done["recorded"], json!([20_260_101_000_000_u64, 20_260_102_000_000_u64]));
    assert_eq!(done["pending"], json!([20_260_103_000_000_u64]));
    assert_eq!(done["written"].as_array().map(Vec::len), Some(3));
    assert_eq!(
        states(&project),
        [
            json!([20_260_101_000_000_u64, "baseline", "ok"]),
            json!([20_260_102_000_000_u64, "baseline", "ok"]),
            json!([20_260_103_000_000_u64, "pending", "none"]),
        ]
    );
    let again = project.json(0, &import("dbmate", &[])).remove(0);
    assert_eq!((&again["written"], &again["recorded"]), (&json!([]), &json!([])));
    project.ok(&["up"]);
    project.ok(&["verify"]);
    assert_eq!(
        database
            .value("SELECT count(*) FROM information_schema.columns WHERE table_name = 'users'"),
        "2"
    );
    assert_eq!(database.sql("SELECT * FROM schema_migrations ORDER BY 1"), theirs);
    project.ok(&["down", "--yes"]);
    project.fails(9, &["down", "--yes"]);
}

#[test]
fn what_migrate_mongo_had_applied_is_a_baseline_and_the_rest_is_pending() {
    let project = project(
        "migrate_mongo",
        &[
            (
                "20260101000000-create-users.js",
                "module.exports = {\n  async up(db) {\n    await db.createCollection('users');\n    await db.collection('users').createIndex({ email: 1 }, { unique: true });\n  },\n  async down(db) { await db.collection('users').drop(); },\n};\n",
            ),
            (
                "20260102000000-loop.js",
                "module.exports = {\n  async up(db) {\n    for (const n of [1, 2]) await db.collection('users').insertOne({ _id: n, email: `${n}` });\n  },\n  async down() {},\n};\n",
            ),
        ],
    );
    let database = &project.database;
    write(
        &project.path("config.js"),
        "module.exports = { mongodb: { url: process.env.URL, databaseName: process.env.NAME, options: {} }, migrationsDir: __dirname + '/theirs', changelogCollectionName: 'changelog', lockCollectionName: 'changelog_lock', lockTtl: 0, migrationFileExtension: '.js', useFileHash: false, moduleSystem: 'commonjs' };\n",
    );
    let output = Command::new(tool("peers/node_modules/.bin/migrate-mongo"))
        .args(["up", "-f", "config.js"])
        .env("URL", &database.mongo_uri)
        .env("NAME", &database.name)
        .current_dir(project.path("."))
        .output()
        .expect("migrate-mongo starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stdout));
    let theirs = database.documents("changelog");
    assert_eq!(theirs.len(), 2, "migrate-mongo was here");
    write(
        &project.path("theirs/20260103000000-role.js"),
        "module.exports = {\n  async up(db) {\n    await db.collection('users').updateMany({}, { $set: { role: 'none' } });\n    await db.collection('users').dropIndex('email_1');\n  },\n  async down(db) {\n    await db.collection('users').createIndex({ email: 1 }, { unique: true });\n  },\n};\n",
    );

    let done = project.json(0, &import("migrate-mongo", &[])).remove(0);
    assert_eq!(done["recorded"], json!([20_260_101_000_000_u64, 20_260_102_000_000_u64]));
    assert_eq!(done["by_hand"][0]["file"], "theirs/20260102000000-loop.js");
    assert_eq!(done["by_hand"][0]["line"], 3);
    project.ok(&["up"]);
    project.ok(&["verify"]);
    assert_eq!(database.documents("users")[0].get_str("role").ok(), Some("none"));
    assert_eq!(database.documents("changelog"), theirs);
    // The index that comes back has the name that theirs had.
    project.ok(&["down", "--yes"]);
    assert!(database.objects().contains("email_1"), "{}", database.objects());
}

/// Runs a tool in the project's folder.
#[track_caller]
fn run(project: &Project, name: &str, arguments: &[&str]) {
    let mut command = Command::new(tool(name));
    let command = command.args(arguments).current_dir(project.path("."));
    // sqlx reads it, and refinery what it is told to.
    command.env("DATABASE_URL", &project.database.postgres_url);
    let output = command.output().expect("the tool starts");
    let (said, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} {arguments:?}\n{said}\n{errors}");
}

/// Of a folder in which sqlx wrote each file itself: what is applied, what was applied
/// and is taken back, and what never was.
#[test]
fn what_sqlx_had_applied_is_a_baseline_and_the_rest_is_pending() {
    let project = project("sqlx_tool", &[]);
    let database = &project.database;
    let add = |name: &str, up: &str, down: &str| {
        run(
            &project,
            "crates/bin/sqlx",
            &["migrate", "add", "-r", "--sequential", "--source", "theirs", name],
        );
        let entries = project.path("theirs").read_dir().expect("it is there");
        for path in entries.map(|entry| entry.expect("readable").path()) {
            let file = path.file_name().expect("a name").to_string_lossy().into_owned();
            if file.contains(&format!("_{}", name.replace(' ', "_"))) {
                write(&path, if file.ends_with(".up.sql") { up } else { down });
            }
        }
    };
    std::fs::create_dir_all(project.path("theirs")).expect("a folder");
    add("create users", "CREATE TABLE users (id int);\n", "DROP TABLE users;\n");
    add(
        "an index",
        "-- no-transaction\nCREATE INDEX CONCURRENTLY users_id ON users (id);\n",
        "-- no-transaction\nDROP INDEX CONCURRENTLY users_id;\n",
    );
    add("names", "ALTER TABLE users ADD name text;\n", "ALTER TABLE users DROP name;\n");
    let migrate = ["migrate", "run", "--source", "theirs"];
    run(&project, "crates/bin/sqlx", &migrate);
    run(&project, "crates/bin/sqlx", &["migrate", "revert", "--source", "theirs"]);
    add("later", "ALTER TABLE users ADD later int;\n", "ALTER TABLE users DROP later;\n");
    let question = "SELECT version || ' ' || success FROM _sqlx_migrations ORDER BY 1";
    let theirs = database.sql(question);
    assert_eq!(theirs, ["1 true", "2 true"], "sqlx was here");

    // A way back that was edited changes nothing about what is there.
    write(&project.path("theirs/0001_create_users.down.sql"), "DROP TABLE users CASCADE;\n");
    write(&project.path("theirs/0001_create_users.up.sql"), "CREATE TABLE users (id bigint);\n");
    let done = project.json(0, &import("sqlx", &[])).remove(0);
    assert_eq!(done["by_hand"][0]["file"], "theirs/0001_create_users.up.sql", "{done}");
    let message = done["by_hand"][0]["message"].as_str().expect("a text");
    assert!(message.contains("edited since sqlx applied it"), "{done}");
    assert_eq!(done["by_hand"].as_array().map(Vec::len), Some(1), "{done}");
    assert_eq!(done["recorded"], json!([1, 2]), "{done}");
    assert_eq!(done["pending"], json!([3, 4]), "{done}");
    let names = ["0001_create_users", "0002_an_index", "0003_names", "0004_later"];
    assert_eq!(folders(&project), names);
    assert_eq!(
        states(&project),
        [
            json!([1, "baseline", "ok"]),
            json!([2, "baseline", "ok"]),
            json!([3, "pending", "none"]),
            json!([4, "pending", "none"]),
        ]
    );
    let columns = "SELECT column_name FROM information_schema.columns \
                   WHERE table_name = 'users' ORDER BY ordinal_position";
    assert_eq!(database.sql(columns), ["id"]);
    project.ok(&["up"]);
    project.ok(&["verify"]);
    assert_eq!(database.sql(columns), ["id", "name", "later"]);
    assert_eq!(database.sql(question), theirs, "what is theirs is left alone");
    project.ok(&["down", "--to", "2", "--yes"]);
    assert_eq!(database.sql(columns), ["id"]);
    project.fails(9, &["down", "--yes"]);
    project.write("0002_an_index/up.sql", "SELECT 1;\n");
    assert_eq!(states(&project)[1], json!([2, "baseline", "edited"]));
    let ran = project.fails(5, &["verify"]);
    assert!(ran.stdout.contains("0002_an_index"), "{ran}");
}

/// Files without a way back; and one that failed in the middle, of which sqlx keeps no
/// record in Postgres.
#[test]
fn what_sqlx_could_not_finish_is_pending_or_refused() {
    let project = project(
        "sqlx_simple",
        &[
            ("20260101000000_users.sql", "CREATE TABLE users (id int);\n"),
            (
                "20260102000000_index.sql",
                "-- no-transaction\nCREATE UNIQUE INDEX CONCURRENTLY users_id ON users (id);\n",
            ),
        ],
    );
    let database = &project.database;
    run(
        &project,
        "crates/bin/sqlx",
        &["migrate", "run", "--source", "theirs", "--target-version", "20260101000000"],
    );
    let done = project.json(0, &import("sqlx", &["--dir", "early"])).remove(0);
    assert_eq!(done["recorded"], json!([20_260_101_000_000_u64]), "{done}");
    assert_eq!(done["pending"], json!([20_260_102_000_000_u64]), "{done}");
    assert_eq!(done["by_hand"], json!([]), "nothing was edited: {done}");
    database.sql("INSERT INTO users VALUES (1), (1)");
    let output = Command::new(tool("crates/bin/sqlx"))
        .args(["migrate", "run", "--source", "theirs"])
        .env("DATABASE_URL", &database.postgres_url)
        .current_dir(project.path("."))
        .output()
        .expect("sqlx starts");
    assert!(!output.status.success(), "the index cannot be unique");
    let rows = "SELECT version || ' ' || success FROM _sqlx_migrations ORDER BY 1";
    assert_eq!(database.sql(rows), ["20260101000000 true"], "sqlx says nothing of it");
    // What it left is in the way, and is told of.
    let ran = project.fails(1, &["up", "--dir", "early"]);
    assert!(ran.stderr.contains("users_id"), "{ran}");
    database.sql("DROP INDEX users_id");
    database.sql("DELETE FROM users");
    project.ok(&["up", "--dir", "early"]);
    project.ok(&["verify", "--dir", "early"]);
    // A row that somebody set, or another database's: there it is how sqlx begins.
    database.sql("UPDATE _sqlx_migrations SET success = false");
    let ran = project.fails(5, &import("sqlx", &[]));
    assert!(ran.stderr.contains("version 20260101000000 did not succeed"), "{ran}");
    assert_eq!(folders(&project), Vec::<String>::new());
}

/// V in their order, U where they were found.
#[test]
fn what_refinery_had_applied_is_a_baseline_and_the_rest_is_pending() {
    let project = project(
        "refinery_tool",
        &[
            ("V1__create_users.sql", "CREATE TABLE users (id int);\n"),
            ("V3__names.sql", "ALTER TABLE users ADD name text;\n"),
        ],
    );
    let database = &project.database;
    let up = |more: &[&str]| {
        let flags = ["migrate", "-e", "DATABASE_URL", "-p", "theirs"];
        run(&project, "crates/bin/refinery", &[&flags[..], more].concat());
    };
    up(&[]);
    // It comes later, and is below what is applied.
    write(&project.path("theirs/U2__emails.sql"), "ALTER TABLE users ADD email text;\n");
    up(&[]);
    write(&project.path("theirs/V4__later.sql"), "ALTER TABLE users ADD later int;\n");
    write(&project.path("theirs/U5__last.sql"), "ALTER TABLE users ADD last int;\n");
    let question = "SELECT version || ' ' || name FROM refinery_schema_history ORDER BY version";
    let theirs = database.sql(question);
    assert_eq!(theirs, ["1 create_users", "2 emails", "3 names"], "refinery was here");

    let done = project.json(0, &import("refinery", &[])).remove(0);
    assert_eq!(done["recorded"], json!([1, 2, 3]), "{done}");
    assert_eq!(done["pending"], json!([4, 5]), "{done}");
    assert_eq!(
        states(&project),
        [
            json!([1, "baseline", "ok"]),
            json!([2, "baseline", "ok"]),
            json!([3, "baseline", "ok"]),
            json!([4, "pending", "none"]),
            json!([5, "pending", "none"]),
        ]
    );
    project.ok(&["up"]);
    project.ok(&["verify"]);
    let columns = "SELECT column_name FROM information_schema.columns \
                   WHERE table_name = 'users' ORDER BY ordinal_position";
    assert_eq!(database.sql(columns), ["id", "name", "email", "later", "last"]);
    assert_eq!(database.sql(question), theirs, "what is theirs is left alone");
    project.fails(9, &["down", "--steps", "3", "--yes"]);
}

/// Where half of a program could be read, not even that half is run.
#[test]
fn what_is_left_for_a_person_is_refused_until_somebody_has_seen_to_it() {
    let program = "module.exports = {\n  async up(db) {\n    await db.collection('a').insertOne({ _id: 1 });\n    for (const n of [2, 3]) await db.collection('a').insertOne({ _id: n });\n    await db.collection('a').insertOne({ _id: 4 });\n  },\n  async down(db) {\n    await db.collection('a').drop();\n    if (process.env.ALL) await db.collection('b').drop();\n  },\n};\n";
    let project = project("import_half", &[("1-half.js", program)]);
    let ran = project.ok(&import("migrate-mongo", &[]));
    for part in ["theirs/1-half.js:4: a loop", "theirs/1-half.js:9: a condition", "refuses those"] {
        assert!(ran.said().contains(part), "`{part}` is not in it:\n{ran}");
    }
    project.write("002-b/up.sql", "CREATE TABLE b (id int);");
    for command in ["plan", "up"] {
        let ran = project.fails(2, &[command]);
        for part in ["1-half/up.mongodb.js:2", "1-half/down.mongodb.js:2", "1-half.js:4: a loop"] {
            assert!(ran.stderr.contains(part), "`{part}` is not in it:\n{ran}");
        }
        let error = project.json(2, &[command]).pop().expect("an object");
        let error = if command == "up" { &error["error"] } else { &error };
        assert_eq!(error["code"], "UNFINISHED_MIGRATION", "{error}");
        assert_eq!(project.database.objects(), "", "nothing was run");
        assert_eq!(project.database.ours(), Vec::<String>::new());
    }
    let status = project.json(0, &["status"]).remove(0);
    let reason = status["migrations"][0]["reason"].as_str().expect("there is one");
    assert!(reason.contains("1-half/down.mongodb.js:2:1") && reason.contains("1 more"), "{reason}");
    project.ok(&["verify"]);
    // One way is seen to, the other is not.
    let script = project.path("migrations/1-half/up.mongodb.js");
    let text = std::fs::read_to_string(&script).expect("it was written");
    let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with("//")).collect();
    write(
        &script,
        &format!("{}\ndb.a.insertMany([{{ _id: 2 }}, {{ _id: 3 }}]);\n", kept.join("\n")),
    );
    let ran = project.fails(2, &["up"]);
    assert!(!ran.stderr.contains("up.mongodb.js"), "{ran}");
    write(&project.path("migrations/1-half/down.mongodb.js"), "db.a.drop();\n");
    project.ok(&["up"]);
    assert_eq!(project.database.documents("a").len(), 4);

    // What is there already is recorded all the same, and nobody asks about it again.
    project.write("003-c/up.sql", "-- lockstep:unfinished the rest\nCREATE TABLE c (id int);");
    let ran = project.fails(2, &["up"]);
    assert!(ran.stderr.contains("003-c/up.sql:1:1"), "{ran}");
    let other = Project::new("import_half_there", &[]);
    other.write("003-c/up.sql", "-- lockstep:unfinished the rest\nCREATE TABLE c (id int);");
    other.ok(&["baseline", "3"]);
    other.ok(&["up"]);
    other.ok(&["verify"]);
    let status = other.json(0, &["status"]).remove(0);
    assert_eq!(status["migrations"][0].get("reason"), None);
}

const GOLANG: &[(&str, &str)] = &[
    ("000001_users.up.sql", "CREATE TABLE users (id int);"),
    ("000001_users.down.sql", "DROP TABLE users;"),
    ("000001_users.up.json", r#"[{ "create": "users" }]"#),
    ("000001_users.down.json", r#"[{ "drop": "users" }]"#),
    ("000002_names.up.sql", "ALTER TABLE users ADD name text;"),
    ("000003_notes.up.json", r#"[{ "create": "notes" }]"#),
];

/// As golang-migrate leaves it.
fn golang(project: &Project, postgres: (i32, bool), mongo: (i32, bool)) {
    let (version, dirty) = postgres;
    project.database.sql(&format!(
        "CREATE TABLE users (id int); \
         CREATE TABLE IF NOT EXISTS schema_migrations (version bigint not null primary key, dirty boolean not null); \
         TRUNCATE schema_migrations; INSERT INTO schema_migrations VALUES ({version}, {dirty})"
    ));
    project.database.run(doc! { "create": "users" });
    let row = doc! { "version": mongo.0, "dirty": mongo.1 };
    project.database.run(doc! { "insert": "schema_migrations", "documents": [row] });
}

#[test]
fn golang_migrate_of_both_stores_is_one_history() {
    let project = project("golang_migrate", GOLANG);
    golang(&project, (1, false), (1, false));
    let ran = project.ok(&import("golang-migrate", &[]));
    assert!(ran.stderr.contains("pending, because golang-migrate has not applied them"), "{ran}");
    assert_eq!(folders(&project), ["000001_users", "000002_names", "000003_notes"]);
    assert_eq!(
        states(&project),
        [
            json!([1, "baseline", "ok"]),
            json!([2, "pending", "none"]),
            json!([3, "pending", "none"])
        ]
    );
    project.ok(&["up"]);
    let row = "SELECT version || ' ' || dirty FROM schema_migrations";
    assert_eq!(project.database.value(row), "1 false", "what is theirs is left alone");
    let history = project.json(0, &["history"]).remove(0);
    let run = &history["runs"][1];
    assert_eq!((&run["command"], &run["outcome"]), (&json!("import"), &json!("ok")), "{history}");
}

/// Two folders, one for each store, with the same numbers.
#[test]
fn a_second_folder_comes_behind_the_first() {
    let sql: Vec<_> = GOLANG.iter().copied().filter(|file| file.0.ends_with("sql")).collect();
    let json: Vec<_> = GOLANG.iter().copied().filter(|file| file.0.ends_with("json")).collect();
    let project = project("golang_twice", &sql);
    for (path, text) in json {
        write(&project.path("notes").join(path), text);
    }
    golang(&project, (2, false), (1, false));
    project.database.sql("ALTER TABLE users ADD name text");
    project.ok(&import("golang-migrate", &[]));
    let second = ["import", "golang-migrate", "--from", "notes"];
    let ran = project.fails(2, &second);
    assert!(ran.stderr.contains("--renumber"), "{ran}");
    let second = [&second[..], &["--renumber"]].concat();
    let done = project.json(0, &second).remove(0);
    assert_eq!((&done["recorded"], &done["pending"]), (&json!([3]), &json!([4])), "{done}");
    let folders_now = ["000001_users", "000002_names", "000003_users", "000004_notes"];
    assert_eq!(folders(&project), folders_now);
    let again = project.json(0, &second).remove(0);
    assert_eq!((&again["written"], &again["recorded"]), (&json!([]), &json!([])));
    assert_eq!(folders(&project), folders_now);
    project.ok(&["up"]);
    project.ok(&["verify"]);
}

#[test]
fn a_dirty_history_is_refused_before_anything_is_written() {
    let project = project("golang_dirty", GOLANG);
    golang(&project, (2, true), (1, false));
    let ran = project.fails(5, &import("golang-migrate", &[]));
    assert!(ran.stderr.contains("dirty at version 2"), "{ran}");
    assert_eq!(folders(&project), Vec::<String>::new());
    assert_eq!(project.database.ours(), Vec::<String>::new());
    // The same of MongoDB.
    project.database.sql("UPDATE schema_migrations SET dirty = false");
    project.database.run(doc! {
        "update": "schema_migrations", "updates": [{ "q": {}, "u": { "$set": { "dirty": true } } }],
    });
    project.fails(5, &import("golang-migrate", &[]));
    assert_eq!(folders(&project), Vec::<String>::new());
}

#[test]
fn half_of_a_migration_is_refused() {
    let project = project("golang_half", GOLANG);
    golang(&project, (1, false), (-1, false));
    let ran = project.fails(5, &import("golang-migrate", &[]));
    assert!(ran.stderr.contains("in one store and not in the other"), "{ran}");
    assert_eq!(folders(&project), Vec::<String>::new());
}

#[test]
fn everything_that_is_wrong_is_told_at_once_and_nothing_is_written() {
    let project = project(
        "import_wrong",
        &[
            ("000001_a.up.sql", "SELECT 1;\nBEGIN;\nSELECT 2;\nCOMMIT;\n"),
            ("000002_b.up.sql", "SELECT 1;"),
            ("000003_c.up.sql", "SELECT 1;\nCOPY t FROM STDIN;\n"),
        ],
    );
    let ran = project.fails(2, &import("golang-migrate", &[]));
    for place in
        ["theirs/000001_a.up.sql:2:1", "theirs/000001_a.up.sql:4:1", "theirs/000003_c.up.sql:2:8"]
    {
        assert!(ran.stderr.contains(place), "{place}: {ran}");
    }
    assert_eq!(folders(&project), Vec::<String>::new());
    project.fails(2, &["import", "golang-migrate", "--from", "nowhere"]);
    project.fails(2, &["import", "dbmate", "--from", "migrations"]);
}

#[test]
fn what_is_there_already_is_never_overwritten() {
    let project = project("import_there", DBMATE);
    project.write("20260101000000_create_users/up.sql", "SELECT 'mine';\n");
    project.write("20260102000000-other/up.sql", "SELECT 'mine';\n");
    let ran = project.fails(2, &import("dbmate", &[]));
    assert!(ran.stderr.contains("20260101000000_create_users"), "{ran}");
    assert!(ran.stderr.contains("20260102000000-other"), "{ran}");
    assert_eq!(folders(&project), ["20260101000000_create_users", "20260102000000-other"]);
    // Elsewhere there is room.
    project.ok(&import("dbmate", &["--dir", "elsewhere"]));
    assert!(project.path("elsewhere/20260102000000_index/up.sql").exists());
}

#[test]
fn files_alone_and_the_history_later() {
    let project = project("import_files", DBMATE);
    let output = project
        .command(&import("dbmate", &[]))
        .env_remove("DATABASE_URL")
        .env_remove("MONGODB_URI")
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("no Postgres is configured"), "{said}");
    assert_eq!(folders(&project).len(), 2);
    project.ok(&import("dbmate", &["--files-only"]));
    assert_eq!(project.database.ours(), Vec::<String>::new());

    project.database.sql(
        "CREATE SCHEMA old; CREATE TABLE old.versions (version varchar(255) primary key); \
         INSERT INTO old.versions VALUES ('20260101000000'), ('20250101000000')",
    );
    let history = ["--history-only", "--table", "old.versions"];
    let done = project.json(0, &import("dbmate", &history)).remove(0);
    assert_eq!(done["recorded"], json!([20_260_101_000_000_u64]));
    assert_eq!(done["unknown"], json!(["20250101000000"]));
    assert_eq!(done["written"], json!([]));
    assert_eq!(states(&project)[0][1], "baseline");
    assert_eq!(states(&project)[1][1], "pending");
}

/// Each by the statements with which its tool makes its table.
#[test]
fn the_other_tools_by_their_tables() {
    let cases: [(&str, Files, &str); 4] = [
        (
            "flyway",
            &[("V1__a.sql", "SELECT 1;"), ("V1.1__b.sql", "SELECT 1;"), ("V2__c.sql", "SELECT 1;")],
            "CREATE TABLE flyway_schema_history (installed_rank int not null primary key, version varchar(50), \
             description varchar(200) not null, type varchar(20) not null, script varchar(1000) not null, checksum int, \
             installed_by varchar(100) not null, installed_on timestamp not null default now(), \
             execution_time int not null, success boolean not null); \
             INSERT INTO flyway_schema_history VALUES (1, '1', 'a', 'SQL', 'V1__a.sql', 1, 'me', now(), 1, true), \
             (2, '1.1', 'b', 'SQL', 'V1.1__b.sql', 1, 'me', now(), 1, true)",
        ),
        (
            "sqlx",
            &[
                ("1_a.up.sql", "SELECT 1;"),
                ("1_a.down.sql", "SELECT 1;"),
                ("2_b.sql", "SELECT 1;"),
                ("3_c.sql", "SELECT 1;"),
            ],
            "CREATE TABLE _sqlx_migrations (version bigint primary key, description text not null, \
             installed_on timestamptz not null default now(), success boolean not null, checksum bytea not null, \
             execution_time bigint not null); \
             INSERT INTO _sqlx_migrations VALUES (1, 'a', now(), true, '\\x00', 1), (2, 'b', now(), true, '\\x00', 1)",
        ),
        (
            "refinery",
            &[("V1__a.sql", "SELECT 1;"), ("V2__b.sql", "SELECT 1;"), ("U3__c.sql", "SELECT 1;")],
            "CREATE TABLE refinery_schema_history (version int4 primary key, name varchar(255), \
             applied_on varchar(255), checksum varchar(255)); \
             INSERT INTO refinery_schema_history VALUES (1, 'a', '2026-01-01', '1'), (2, 'b', '2026-01-01', '1')",
        ),
        (
            "goose",
            &[
                ("00001_a.sql", "-- +goose Up\nSELECT 1;\n-- +goose Down\nSELECT 1;\n"),
                ("00002_b.sql", "-- +goose Up\nSELECT 1;\n"),
                ("00003_c.sql", "-- +goose Up\nSELECT 1;\n"),
            ],
            "CREATE TABLE goose_db_version (id integer primary key generated by default as identity, \
             version_id bigint not null, is_applied boolean not null, tstamp timestamp not null default now()); \
             INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, true), (1, true), (2, true), (3, true), (3, false)",
        ),
    ];
    for (tool, files, history) in cases {
        let project = project(tool, files);
        project.database.sql(history);
        let done = project.json(0, &import(tool, &[])).remove(0);
        assert_eq!(done["recorded"].as_array().map(Vec::len), Some(2), "{tool}: {done}");
        assert_eq!(done["pending"].as_array().map(Vec::len), Some(1), "{tool}: {done}");
        let states: Vec<Value> = states(&project).iter().map(|state| state[1].clone()).collect();
        assert_eq!(states, ["baseline", "baseline", "pending"], "{tool}");
        project.ok(&["up"]);
        project.ok(&["verify"]);
    }
}
