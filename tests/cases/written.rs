//! What `init` and `new` write is what a person would begin with.

use std::fs;

use crate::project::{Project, Ran};

fn run(project: &Project, without: &[&str], arguments: &[&str]) -> Ran {
    let mut command = project.command(arguments);
    for variable in without {
        command.env_remove(variable);
    }
    let ran = Ran::of(arguments, command.output().unwrap());
    assert_eq!(ran.code, 0, "{ran}");
    ran
}

#[test]
fn what_init_writes_runs_up_and_down_as_it_is() {
    let project = Project::new("written", &[]);
    let ran = project.ok(&["init"]);
    assert!(ran.stderr.contains("next: "), "{ran}");
    project.ok(&["up"]);
    project.ok(&["down", "--yes"]);
    assert_eq!(project.database.objects(), "");
}

#[test]
fn init_writes_a_project_of_one_store() {
    for (store, variable, other) in
        [("postgres", "DATABASE_URL", "MONGODB_URI"), ("mongo", "MONGODB_URI", "DATABASE_URL")]
    {
        let project = Project::new("written_store", &[]);
        let ran = run(&project, &[other], &["init", "--store", store]);
        assert!(ran.stderr.contains(variable) && !ran.stderr.contains(other), "{ran}");
        run(&project, &[other], &["up"]);
        run(&project, &[other], &["down", "--yes"]);
        assert_eq!(project.database.objects(), "");
    }
    // With both sections, the error says how to do with one.
    let project = Project::new("written_both", &[]);
    project.ok(&["init"]);
    let mut command = project.command(&["plan"]);
    let ran = Ran::of(&["plan"], command.env_remove("MONGODB_URI").output().unwrap());
    assert_eq!(ran.code, 2, "{ran}");
    assert!(ran.stderr.contains("a project without MongoDB has no [mongo] here"), "{ran}");
}

#[test]
fn what_new_writes_is_filled_in_before_it_runs() {
    let project = Project::new("written_new", &[]);
    project.ok(&["new", "say", "\"hello\"\nto", "you"]);
    let ran = project.ok(&["new", "--phased", "it's \"phased\"\n-- now"]);
    assert!(ran.stderr.contains("wrote migrations/002-it-s-phased-now/migration.toml"), "{ran}");
    let ran = project.ok(&["new", "Größe 数 ändern"]);
    assert!(ran.stderr.contains("wrote migrations/003-groesse-aendern/up.sql"), "{ran}");
    assert!(ran.stderr.contains("`数` is left out"), "{ran}");
    let status = project.json(0, &["status"]).remove(0);
    assert_eq!(status["pending"], 3, "{status}");
    project.ok(&["verify"]);
    for command in ["plan", "up"] {
        let ran = project.fails(2, &[command]);
        assert!(ran.stderr.contains("001-say-hello-to-you has nothing to apply"), "{ran}");
        assert_eq!(
            project.json(2, &[command]).pop().map(|it| match it["event"].as_str() {
                Some("run_finished") => it["error"]["code"].clone(),
                _ => it["code"].clone(),
            }),
            Some("EMPTY_MIGRATION".into())
        );
    }
    assert_eq!(project.database.ours(), Vec::<String>::new(), "nothing was begun");
    let up = project.path("migrations/001-say-hello-to-you/up.sql");
    let text = fs::read_to_string(&up).unwrap();
    fs::write(&up, format!("{text}CREATE TABLE things (id bigint);\n")).unwrap();
    project.ok(&["up", "--to", "1"]);
    // Its other half had nothing but comments, and those are what is recorded.
    let other = project.path("migrations/001-say-hello-to-you/up.mongodb.js");
    let text = fs::read_to_string(&other).unwrap();
    fs::write(&other, format!("{text}db.createCollection(\"things\");\n")).unwrap();
    let ran = project.fails(5, &["up", "--to", "1"]);
    assert!(ran.stderr.contains("was applied when its file had no statement"), "{ran}");
    assert!(!ran.stderr.contains("--accept-checksum"), "{ran}");
}

#[test]
fn new_writes_no_part_for_a_store_that_the_project_does_not_have() {
    let project = Project::new("written_alone", &[]);
    let files = |folder: &str| {
        let entries = fs::read_dir(project.path("migrations").join(folder)).unwrap();
        let mut files: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        files.sort();
        files
    };
    run(&project, &["MONGODB_URI"], &["new", "a"]);
    assert_eq!(files("001-a"), ["down.sql", "up.sql"]);
    run(&project, &["DATABASE_URL"], &["new", "b"]);
    assert_eq!(files("002-b"), ["down.mongodb.js", "up.mongodb.js"]);
    run(&project, &["MONGODB_URI"], &["new", "c", "--store", "mongo"]);
    assert_eq!(files("003-c"), ["down.mongodb.js", "up.mongodb.js"]);
    run(&project, &["MONGODB_URI", "DATABASE_URL"], &["new", "d"]);
    assert_eq!(files("004-d").len(), 4);
}

#[test]
fn the_history_says_who_did_what_when() {
    let project = Project::new(
        "written_history",
        &[("001-a/up.sql", "CREATE TABLE a (id int);"), ("001-a/down.sql", "DROP TABLE a;")],
    );
    project.ok(&[
        "up",
        "--release",
        "2026.11.21-a-release-with-a-name-that-somebody-made-very-long",
    ]);
    project.ok(&["down", "--yes"]);
    project.write(
        "001-a/up.sql",
        "SELECT 1 FROM a_table_with_quite_a_name_that_is_nowhere_at_all_and_never_was;",
    );
    project.fails(1, &["up"]);
    let id = project.database.value("SELECT run_id FROM migration_runs WHERE command = 'down'");
    let ran = project.ok(&["history"]);
    for part in ["up ", "down", "ok", "failed", "tester@", "release 2026", "error: ", &id[..8]] {
        assert!(ran.stdout.contains(part), "`{part}` is not in it:\n{ran}");
    }
    assert!(!ran.stdout.contains(&id), "{ran}");
    assert!(project.ok(&["-v", "history"]).stdout.contains(&id));
    let ran = project.ok(&["history", "1"]);
    for part in ["up/postgres/1", "down/postgres/1", "applied", "reverting", "reverted", &id[..8]] {
        assert!(ran.stdout.contains(part), "`{part}` is not in it:\n{ran}");
    }
}
