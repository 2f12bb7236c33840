//! docs/zero-downtime.md on the sample project: every command that it shows is run.

use std::fs;
use std::path::Path;

use crate::project::{Project, write};

/// The sample project's files up to this version, and its data.
fn sample(name: &str, upto: &str) -> Project {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let project = Project::new(name, &[]);
    for folder in root.join("migrations").read_dir().unwrap().map(Result::unwrap) {
        let folder_name = folder.file_name().into_string().unwrap();
        if *folder_name > *upto {
            continue;
        }
        for file in folder.path().read_dir().unwrap().map(Result::unwrap) {
            let text = fs::read_to_string(file.path()).unwrap();
            let file_name = file.file_name().into_string().unwrap();
            write(&project.path("migrations").join(&folder_name).join(file_name), &text);
        }
    }
    project.database.sql(&fs::read_to_string(root.join("fixtures/000-base.sql")).unwrap());
    project
}

/// The lines of the blocks of `sh` of a document.
fn commands(document: &str) -> Vec<String> {
    let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(document);
    let text = fs::read_to_string(text).unwrap();
    let mut inside = false;
    let mut commands = Vec::new();
    for line in text.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside && !line.is_empty() => commands.push(line.to_owned()),
            _ => {}
        }
    }
    commands
}

/// The words of a command, as a shell would cut them.
fn words(command: &str) -> Vec<String> {
    let parts = command.split('"').enumerate();
    parts
        .flat_map(|(at, part)| match at % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        })
        .collect()
}

/// `role roles roles_array`: those that `users` has.
fn columns(project: &Project) -> String {
    let sql = "SELECT string_agg(attname, ' ' ORDER BY attname) FROM pg_attribute \
               WHERE attrelid = 'users'::regclass AND attname LIKE 'role%'";
    project.database.value(sql)
}

#[test]
fn every_command_of_the_document_does_what_it_says() {
    let project = sample("zero_downtime", "002-z");
    let run = |command: &str| {
        let words = words(command);
        assert_eq!(words.first().map(String::as_str), Some("migrate"), "{command}");
        let words: Vec<&str> = words[1..].iter().map(String::as_str).collect();
        project.ok(&words)
    };
    let commands = commands("zero-downtime.md");
    let first = commands.first().expect("it shows commands");
    assert!(first.contains("--through validate"), "{first}");
    let mut seen = Vec::new();
    for command in &commands {
        // The way back was shown before; the last release comes after the first.
        if command == "migrate cleanup" {
            assert_eq!(columns(&project), "role", "gone back");
            run(first);
        }
        let ran = run(command);
        match command.as_str() {
            "migrate status" => assert!(ran.stdout.contains("held"), "{ran}"),
            "migrate plan cleanup" => assert!(ran.stdout.contains("DROP COLUMN role"), "{ran}"),
            "migrate plan down" => assert!(ran.stdout.contains("002-refactor"), "{ran}"),
            "migrate backfill status" => assert!(ran.stdout.contains("no backfill"), "{ran}"),
            "migrate cleanup" => assert_eq!(columns(&project), "roles"),
            command if command == first => assert_eq!(columns(&project), "role roles_array"),
            _ => {}
        }
        seen.push(command.as_str());
    }
    let shown = ["migrate backfill resume", "migrate backfill speed 0.5", "migrate down --yes"];
    for command in shown.iter().chain(&["migrate cleanup", "migrate status"]) {
        assert!(seen.contains(command), "the document no longer shows `{command}`");
    }
}

/// The cleanup of 002 drops a function, and nobody can tell what that touches in
/// Postgres; migrations that stay in MongoDB need not know.
#[test]
fn what_stays_in_the_other_store_does_not_wait() {
    let project = sample("zero_downtime_passes", "002-z");
    project.write("003-a/up.mongodb.js", "db.createCollection(\"a\");");
    project.write("004-b/up.sql", "CREATE TABLE b ();");
    let ran = project.fails(3, &["up", "--through", "validate"]);
    assert!(ran.stderr.contains("004-b waits behind 002: cleanup/postgres/1"), "{ran}");
    assert!(!ran.stderr.contains("003-a waits"), "{ran}");
    project.ok(&["cleanup"]);
    project.ok(&["up"]);
}
