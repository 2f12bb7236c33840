//! What people stumble over when they use the command line for the first time.

use std::fs;

use crate::project::Project;

#[test]
fn a_number_that_is_taken_is_told_as_that() {
    let project = Project::new("new_taken", &[("005-regions/up.sql", "CREATE TABLE a (id int);")]);
    project.ok(&["up"]);
    fs::rename(project.path("migrations/005-regions"), project.path("migrations/005-bad")).unwrap();
    project.write("005-bad/up.sql", "CREATE TABLE b (id int);");
    let ran = project.fails(5, &["up"]);
    assert!(ran.stderr.contains("005 was applied as `regions`"), "{ran}");
    assert!(ran.stderr.contains("the next number (006)"), "{ran}");
    assert!(!ran.stderr.contains("--accept-checksum"), "{ran}");
    assert_eq!(project.json(5, &["plan"])[0]["code"], "VERSION_TAKEN");
    let verify = project.json(5, &["verify"]).remove(0);
    assert_eq!(verify["findings"][0]["code"], "VERSION_TAKEN", "{verify}");
    assert_eq!(verify["findings"].as_array().map(Vec::len), Some(1), "{verify}");
}

#[test]
fn the_name_of_an_error_is_shown_to_those_who_ask_for_more() {
    let project = Project::new("new_code", &[]);
    let line = "code: UNKNOWN_VERSION (docs/errors/UNKNOWN_VERSION.md)";
    assert!(project.fails(2, &["-v", "up", "--to", "9"]).stderr.contains(line));
    assert!(!project.fails(2, &["up", "--to", "9"]).stderr.contains(line));
}

#[test]
fn status_says_where_a_migration_stopped_and_why() {
    let project = Project::new(
        "new_partial",
        &[
            ("001-a/up.sql", "CREATE TABLE a (id int);"),
            ("001-a/up.mongodb.js", "db.a.insertMany([{ _id: 1 }, { _id: 1 }]);"),
        ],
    );
    project.fails(1, &["up"]);
    let ran = project.ok(&["status"]);
    assert!(ran.stdout.contains("stopped at up/mongo/1: "), "{ran}");
    assert!(ran.stdout.contains("duplicate key"), "{ran}");
    project.write("001-a/up.mongodb.js", "db.a.insertMany([{ _id: 1 }, { _id: 2 }]);");
    project.ok(&["up"]);
    assert!(!project.ok(&["status"]).stdout.contains("stopped at"));
}

#[test]
fn nothing_is_completed_in_a_database_that_has_no_history() {
    let project = Project::new("new_wrong", &[("001-a/up.sql", "CREATE TABLE a (id int);")]);
    project.ok(&["up"]);
    let name = &project.database.name;
    let other = project.database.mongo_uri.replace(name, &format!("{name}_other"));
    for arguments in [&["status"][..], &["status", "--output", "json"]] {
        let ran = project.fails(5, &[arguments, &["--mongo", &other]].concat());
        if arguments.len() == 1 {
            assert!(!ran.stdout.contains("completed  completed"), "{ran}");
        } else {
            let status = &ran.objects()[0];
            assert_eq!(status["migrations"][0]["postgres"], "completed", "{status}");
            assert_eq!(status["migrations"][0]["mongo"], "pending", "{status}");
        }
    }
    let status = project.json(0, &["status"]).remove(0);
    assert_eq!(status["migrations"][0]["mongo"], "completed", "{status}");
}

#[test]
fn what_steers_no_backfill_says_so_and_a_forgotten_speed_is_told() {
    let up = "CREATE TABLE a (id int PRIMARY KEY, n int);\nINSERT INTO a VALUES (1, NULL);";
    let project = Project::new("new_steered", &[("001-a/up.sql", up)]);
    project.ok(&["up"]);
    let ran = project.ok(&["backfill", "speed", "0.5"]);
    assert!(ran.stderr.contains("none is at work now"), "{ran}");
    let ran = project.ok(&["backfill", "pause"]);
    assert!(ran.stderr.contains("none is at work now"), "{ran}");
    assert!(ran.stderr.contains("until `migrate backfill resume`"), "{ran}");
    let ran = project.ok(&["backfill", "resume"]);
    assert!(!ran.stderr.contains("none is at work now"), "{ran}");
    let backfill = |value: u32| {
        format!(
            "[[backfill]]\nname = 'n'\npostgres = {{ table = 'a', set = 'n = {value}', where = 'n IS DISTINCT FROM {value}' }}\n"
        )
    };
    project.write("002-b/migration.toml", &backfill(1));
    let slow = "it goes at 0.5 times its own pace";
    let ran = project.ok(&["up"]);
    assert!(ran.stderr.contains(slow), "{ran}");
    project.ok(&["backfill", "speed", "1"]);
    project.write("003-c/migration.toml", &backfill(2));
    let ran = project.ok(&["up"]);
    assert!(!ran.stderr.contains("its own pace"), "{ran}");
}

#[test]
fn a_statement_that_cannot_be_read_has_a_warning_in_the_plan() {
    let up = "CREATE TABLE a (id int);\nALTER TABLE a ADD COLUMN b int WITHOUT OVERLAP;";
    let project = Project::new("new_unread", &[("001-a/up.sql", up)]);
    let ran = project.ok(&["plan"]);
    assert!(ran.stdout.contains("warning: what it locks and rewrites is not known"), "{ran}");
    let plan = project.json(0, &["plan"]).remove(0);
    assert_eq!(plan["warnings"].as_array().map(Vec::len), Some(1), "{plan}");
}

#[test]
fn doctor_of_one_store_speaks_of_one() {
    let project = Project::new("new_alone", &[("001-a/up.sql", "CREATE TABLE a (id int);")]);
    let mut command = project.command(&["doctor"]);
    let output = command.env_remove("MONGODB_URI").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains(" Postgres history "), "{said}");
    assert!(!said.contains(" both "), "{said}");
    assert!(!said.contains("look at the disk"), "{said}");
}
