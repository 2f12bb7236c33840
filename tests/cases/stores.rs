//! One store alone, two that do not belong together, and how much is said.

use crate::project::{Project, Ran};

fn without(project: &Project, variable: &str, arguments: &[&str]) -> Ran {
    let output = project.command(arguments).env_remove(variable).output().unwrap();
    Ran::of(arguments, output)
}

#[test]
fn postgres_alone_is_a_project() {
    let project = Project::new(
        "postgres_alone",
        &[
            ("001-a/up.sql", "CREATE TABLE a ();"),
            ("001-a/down.sql", "DROP TABLE a;"),
            ("002-b/up.sql", "CREATE INDEX CONCURRENTLY a_x ON a ((1));"),
        ],
    );
    let run = |code: i32, arguments: &[&str]| {
        let ran = without(&project, "MONGODB_URI", arguments);
        assert_eq!(ran.code, code, "{ran}");
        ran
    };
    run(0, &["up", "--to", "1"]);
    let status = run(0, &["status", "--output", "json"]).objects().remove(0);
    assert!(status["mongo"].is_null() && status["postgres"]["reachable"] == true, "{status}");
    run(0, &["down", "--yes"]);
    project.write("003-c/up.mongodb.js", "db.createCollection(\"c\");");
    let ran = run(2, &["up"]);
    assert!(ran.stderr.contains("no MongoDB is configured"), "{ran}");
    assert!(ran.stderr.contains("MONGODB_URI"), "{ran}");
    let nothing = "SELECT count(*) FROM migration_history";
    assert_eq!(project.database.value(nothing), "0", "nothing was changed");
}

#[test]
fn mongodb_alone_is_a_project() {
    let project = Project::new(
        "mongo_alone",
        &[
            ("001-a/up.mongodb.js", "db.createCollection(\"a\");\ndb.a.insertOne({});"),
            ("001-a/down.mongodb.js", "db.a.drop();"),
        ],
    );
    let run = |code: i32, arguments: &[&str]| {
        let ran = without(&project, "DATABASE_URL", arguments);
        assert_eq!(ran.code, code, "{ran}");
        ran
    };
    run(0, &["up"]);
    assert_eq!(project.database.documents("a").len(), 1);
    let status = run(0, &["status", "--output", "json"]).objects().remove(0);
    assert!(status["postgres"].is_null() && status["mongo"]["reachable"] == true, "{status}");
    run(0, &["down", "--yes"]);
    assert_eq!(project.database.objects(), "");
}

/// A program belongs to no store; it is remembered where there is one.
#[test]
fn a_program_is_remembered_by_the_store_that_there_is() {
    let both = "[[run]]\ncommand = [\"sh\", \"-c\", \"echo up $MONGODB_URI$DATABASE_URL\"]\n\
                [[run]]\ndirection = \"down\"\ncommand = [\"sh\", \"-c\", \"echo back\"]\n";
    for (name, absent) in [("run_mongo", "DATABASE_URL"), ("run_postgres", "MONGODB_URI")] {
        let project = Project::new(name, &[("001-a/migration.toml", both)]);
        let ran = without(&project, absent, &["up"]);
        assert_eq!(ran.code, 0, "{ran}");
        assert!(ran.stderr.contains("    up "), "{ran}");
        let ran = without(&project, absent, &["up"]);
        assert!(ran.code == 0 && ran.stderr.contains("nothing to do"), "{ran}");
        for command in ["verify", "status"] {
            let ran = without(&project, absent, &[command]);
            assert_eq!(ran.code, 0, "{ran}");
        }
        let ran = without(&project, absent, &["down", "--yes"]);
        assert_eq!(ran.code, 0, "{ran}");
        assert!(ran.stderr.contains("    back"), "{ran}");
    }
}

#[test]
fn two_that_do_not_belong_together_are_refused() {
    let files = [("001-a/up.sql", "CREATE TABLE a ();"), ("001-a/down.sql", "DROP TABLE a;")];
    let (ours, theirs) = (Project::new("ours", &files), Project::new("theirs", &files));
    ours.ok(&["up"]);
    let mixed = ["--mongo", &theirs.database.mongo_uri];
    let check = |arguments: &[&str]| {
        let ran = ours.fails(5, &[arguments, &mixed].concat());
        assert!(ran.stderr.contains("next: ") && ran.stderr.contains("pair"), "{ran}");
    };
    // The other one was never used, then it was, with another.
    for _ in 0..2 {
        for arguments in [&["up"][..], &["down", "--yes"], &["plan"], &["status"]] {
            check(arguments);
        }
        theirs.ok(&["up"]);
    }
    ours.ok(&["up"]);
    theirs.ok(&["up"]);
    assert_eq!(ours.database.history().len(), 1);
}

#[test]
fn quiet_says_failures_only_and_verbose_says_whole_statements() {
    let long = format!(
        "CREATE TABLE a ({});",
        (0..40).map(|at| format!("column_{at} text")).collect::<Vec<_>>().join(", ")
    );
    let project =
        Project::new("volume", &[("001-a/up.sql", &long), ("001-a/down.sql", "DROP TABLE a;")]);
    let ran = project.ok(&["-q", "up"]);
    assert_eq!(ran.said(), "");
    assert_eq!(project.ok(&["-q", "up"]).said(), "");
    assert_eq!(project.ok(&["-q", "down", "--yes"]).said(), "");
    let ran = project.ok(&["-v", "up"]);
    assert!(ran.stderr.contains("column_39 text"), "{ran}");
    assert_eq!(ran.stdout, "");
    project.write("002-b/up.sql", "SELECT nothing;");
    assert!(project.fails(1, &["-q", "up"]).stderr.contains("error: "));
}
