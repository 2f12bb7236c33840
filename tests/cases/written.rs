//! What `init` and `new` write is what a person would begin with: it runs.

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
fn what_init_and_new_write_runs_up_and_down_as_it_is() {
    let project = Project::new("written", &[]);
    let ran = project.ok(&["init"]);
    assert!(ran.stderr.contains("next: "), "{ran}");
    project.ok(&["new", "say", "\"hello\"\nto", "you"]);
    let ran = project.ok(&["new", "--phased", "it's \"phased\"\n-- now"]);
    assert!(ran.stderr.contains("wrote migrations/003-it-s-phased-now/migration.toml"), "{ran}");
    project.ok(&["up"]);
    project.ok(&["cleanup"]);
    let status = project.json(0, &["status"]).remove(0);
    let states: Vec<&str> = status["migrations"]
        .as_array()
        .expect("an array")
        .iter()
        .map(|migration| migration["state"].as_str().expect("a word"))
        .collect();
    assert_eq!(states, ["completed"; 3], "{status}");
    project.ok(&["down", "--to", "0", "--yes"]);
    assert_eq!(project.database.objects(), "");
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
