//! The gate in front of cleanups: `cleanup.require_backup`, and `migrate backup`.

use serde_json::Value;

use crate::project::{Project, Ran, write};

/// Its cleanup takes something away in both stores.
const FILES: [(&str, &str); 6] = [
    ("001-a/up.sql", "CREATE TABLE a (id int);"),
    ("001-a/up.mongodb.js", "db.createCollection(\"a\");"),
    ("002-b/prepare.sql", "CREATE TABLE b (id int);"),
    ("002-b/prepare.mongodb.js", "db.createCollection(\"b\");"),
    ("002-b/cleanup.sql", "DROP TABLE a;"),
    ("002-b/cleanup.mongodb.js", "db.a.drop();"),
];

/// A project whose cleanups need a backup that is younger than a day.
fn project(name: &str, files: &[(&str, &str)], more: &str) -> Project {
    let project = Project::new(name, files);
    configure(&project, more);
    project
}

fn configure(project: &Project, more: &str) {
    let toml = format!("cleanup.require_backup = \"24h\"\n{more}\n");
    write(&project.path("migrate.toml"), &toml);
}

/// So long ago, as `--taken-at` wants it.
fn ago(seconds: i64) -> String {
    let at = chrono::Utc::now() - chrono::Duration::seconds(seconds);
    at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// What a refusal says, without the beginning.
#[track_caller]
fn refused(project: &Project, arguments: &[&str]) -> String {
    let objects = project.json(9, arguments);
    let last = objects.last().expect("it says how it ended");
    assert_eq!(last["error"]["code"], "BACKUP_REQUIRED", "{last}");
    let message = last["error"]["message"].as_str().expect("a text");
    let (_, needs) = message.split_once(" needs ").expect("what it needs");
    needs.to_owned()
}

fn state(project: &Project, version: u64) -> String {
    let status = &project.json(0, &["status"])[0];
    let all = status["migrations"].as_array().expect("a list");
    let one = all.iter().find(|it| it["version"] == version).expect("it is there");
    one["state"].as_str().expect("a word").to_owned()
}

fn tables(project: &Project) -> String {
    project.database.value(
        "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class \
         WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname < 'migration'",
    )
}

#[test]
fn a_cleanup_waits_for_backups_of_each_store_that_it_touches() {
    let project = project("backups_both", &FILES, "");
    let none = "backups younger than 24h; Postgres: none is recorded, MongoDB: none is recorded";
    assert_eq!(refused(&project, &["up"]), none);
    assert_eq!(tables(&project), "a b", "nothing of the cleanup ran");
    assert_eq!(state(&project, 1), "completed");
    assert_eq!(state(&project, 2), "partial");
    assert_eq!(refused(&project, &["up"]), none);

    // One store is not enough, and the refusal names the other.
    project.ok(&["backup", "record", "--store", "postgres", "--location", "/backups/a.dump"]);
    let ran = project.fails(9, &["up"]);
    assert!(ran.stderr.contains("MongoDB: none is recorded"), "{ran}");
    assert!(ran.stderr.contains("`migrate backup record --store mongo`"), "{ran}");
    assert!(!ran.stderr.contains("back Postgres"), "{ran}");

    // Nor is one that is too old.
    let old = ago(25 * 3_600);
    project.ok(&["backup", "record", "--store", "mongo", "--taken-at", &old]);
    let ran = project.fails(9, &["up"]);
    assert!(ran.stderr.contains("MongoDB: last one 25 h ago"), "{ran}");

    project.ok(&["backup", "record", "--store", "mongo", "--taken-at", &ago(3 * 3_600)]);
    project.ok(&["up"]);
    assert_eq!(tables(&project), "b");
    assert_eq!(state(&project, 2), "completed");
}

#[test]
fn what_is_held_stays_held_until_there_is_a_backup() {
    let project = project("backups_held", &FILES, "");
    project.ok(&["up", "--through", "validate"]);
    let plan = project.ok(&["plan", "cleanup"]);
    let needs = "needs backups younger than 24h; Postgres: none is recorded, MongoDB: none is";
    assert!(plan.stdout.contains(needs), "{plan}");
    refused(&project, &["cleanup"]);
    assert_eq!(state(&project, 2), "held");

    project.ok(&["backup", "record", "--taken-at", &ago(3 * 3_600 + 60)]);
    let plan = &project.json(0, &["plan", "cleanup"])[0];
    let backup = &plan["migrations"][0]["backup"];
    assert_eq!(backup["enough"], true, "{backup}");
    assert_eq!(backup["younger_than"], "24h");
    assert_eq!(backup["stores"][1]["found"], "last one 3 h ago");
    project.ok(&["cleanup"]);
    assert_eq!(state(&project, 2), "completed");
}

#[test]
fn a_store_that_the_cleanup_leaves_alone_needs_no_backup() {
    let files: Vec<(&str, &str)> =
        FILES.into_iter().filter(|(path, _)| *path != "002-b/cleanup.mongodb.js").collect();
    let project = project("backups_one", &files, "");
    assert_eq!(
        refused(&project, &["up"]),
        "a backup of Postgres younger than 24h; none is recorded"
    );
    project.ok(&["backup", "record", "--store", "mongo"]);
    refused(&project, &["up"]);
    project.ok(&["backup", "record", "--store", "postgres"]);
    project.ok(&["up"]);
}

/// The hook runs while the run that calls it has the lease.
#[test]
fn a_hook_that_records_a_backup_opens_the_gate() {
    let exe = env!("CARGO_BIN_EXE_migrate");
    let hooks = format!("[hooks]\nbefore_cleanup = [[\"{exe}\", \"backup\", \"record\"]]");
    let project = project("backups_hook", &FILES, &hooks);
    let ran = project.ok(&["up"]);
    assert!(ran.stderr.contains("recorded a backup of Postgres and MongoDB"), "{ran}");
    assert_eq!(tables(&project), "b");

    // A hook that makes one and does not say so does not.
    let other = self::project("backups_hook_mute", &FILES, "[hooks]\nbefore_cleanup = [\"true\"]");
    refused(&other, &["up"]);
    assert_eq!(tables(&other), "a b");
}

#[test]
fn a_time_that_is_still_to_come_is_no_backup() {
    let project = project("backups_ahead", &FILES, "");
    project.fails(9, &["up"]);
    let ran = project.fails(2, &["backup", "record", "--taken-at", &ago(-7_200)]);
    assert!(ran.stderr.contains("ahead of the clock of Postgres"), "{ran}");
    assert_eq!(project.json(0, &["backup", "list"])[0]["backups"], serde_json::json!([]));

    // Whoever writes it in by hand has not opened the gate either.
    project.ok(&["backup", "record"]);
    project.database.sql(
        "UPDATE migration_runs SET started_at = now() + interval '9 days' WHERE command = 'backup'",
    );
    let ran = project.fails(9, &["up"]);
    assert!(ran.stderr.contains("Postgres: the last one is dated"), "{ran}");
}

/// A backup of a store that was given to another pair is not one of this pair.
#[test]
fn a_backup_of_another_pair_does_not_count() {
    let project = project("backups_pair", &FILES, "");
    project.ok(&["up", "--through", "validate"]);
    project.ok(&["backup", "record"]);
    project.database.sql("UPDATE migration_control SET pair = 'another'");
    project.ok(&["repair", "--pair", "--yes"]);
    let needs = refused(&project, &["cleanup"]);
    assert!(needs.contains("recorded only for another pair"), "{needs}");
}

#[test]
fn backups_are_listed_and_are_in_the_audit_log() {
    let project = project("backups_list", &FILES, "");
    let ran = project.fails(2, &["backup", "record"]);
    assert!(ran.stderr.contains("never migrated"), "{ran}");
    let ran = project.ok(&["backup", "list"]);
    assert!(ran.stdout.contains("no backup is recorded"), "{ran}");

    project.ok(&["up", "--through", "validate"]);
    let record =
        |arguments: &[&str]| -> Ran { project.ok(&[&["backup", "record"], arguments].concat()) };
    let (old, new) = (ago(100_000), ago(60));
    record(&["--store", "mongo", "--taken-at", &old]);
    record(&["--location", "s3://shop/a b.dump", "--size", "2097152", "--taken-at", &new]);
    let object = &project.json(0, &["backup", "list"])[0];
    assert_eq!(object["event"], "backups");
    let backups = object["backups"].as_array().expect("a list");
    let stores: Vec<&Value> = backups.iter().map(|it| &it["store"]).collect();
    assert_eq!(stores, ["postgres", "mongo", "mongo"]);
    for backup in &backups[..2] {
        assert_eq!(backup["location"], "s3://shop/a b.dump");
        assert_eq!(backup["size"], 2_097_152);
        assert_eq!(backup["version"], 2);
        assert_eq!(backup["taken_at"].as_str().map(|at| &at[..19]), Some(&new[..19]));
        let age = backup["age_seconds"].as_u64().expect("a number");
        assert!((60..600).contains(&age), "{backup}");
    }
    assert_eq!(backups[2]["location"], Value::Null);
    assert_eq!(object["required"]["enough"], true);
    let listed = project.ok(&["backup", "list"]).stdout;
    assert!(listed.contains("Postgres  s3://shop/a b.dump"), "{listed}");
    assert!(listed.contains("at 002, 2 MB, tester@"), "{listed}");

    let history = &project.json(0, &["history"])[0];
    let runs = history["runs"].as_array().expect("a list");
    let in_both = |run: &&Value| {
        run["command"] == "backup" && run["stores"].as_array().map(Vec::len) == Some(2)
    };
    let both = runs.iter().find(in_both).expect("one that is in both stores");
    let reason = both["reason"].as_str().expect("a text");
    assert!(reason.starts_with("s3://shop/a b.dump (2097152 bytes, pair "), "{reason}");
    // The lease was nobody's, and still is.
    assert_eq!(project.json(0, &["status"])[0]["lease"], Value::Null);
}

#[test]
fn one_store_alone_needs_one_backup() {
    let project = project("backups_alone", &FILES[..1], "");
    project.write("002-b/prepare.sql", "CREATE TABLE b (id int);");
    project.write("002-b/cleanup.sql", "DROP TABLE a;");
    let run = |arguments: &[&str]| {
        let output = project.command(arguments).env_remove("MONGODB_URI").output().unwrap();
        Ran::of(arguments, output)
    };
    let ran = run(&["up"]);
    assert_eq!(ran.code, 9, "{ran}");
    let needs = "needs a backup of Postgres younger than 24h; none is recorded";
    assert!(ran.stderr.contains(needs), "{ran}");
    let ran = run(&["backup", "record", "--store", "mongo"]);
    assert_eq!(ran.code, 2, "{ran}");
    assert!(ran.stderr.contains("this project has no MongoDB"), "{ran}");
    assert_eq!(run(&["backup", "record"]).code, 0);
    assert_eq!(run(&["up"]).code, 0);
}

/// Without the setting nobody asks.
#[test]
fn a_project_that_asks_for_none_needs_none() {
    let project = project("backups_unasked", &FILES, "");
    write(&project.path("migrate.toml"), "");
    let plan = project.ok(&["plan"]);
    assert!(!plan.stdout.contains("backup"), "{plan}");
    project.ok(&["up"]);
}
