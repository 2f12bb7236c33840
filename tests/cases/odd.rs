//! Surroundings that are not what they should be.

use std::process::Stdio;

use bson::doc;

use crate::project::Project;

const FILES: [(&str, &str); 4] = [
    ("001-a/up.sql", "CREATE TABLE a (id integer);\nINSERT INTO a VALUES (1);"),
    ("001-a/down.sql", "DROP TABLE a;"),
    ("002-b/up.mongodb.js", "db.createCollection(\"b\");"),
    ("002-b/down.mongodb.js", "db.b.drop();"),
];

/// `migrate up 2>&1 | head -1` ends the reader, not the migration.
#[test]
fn a_reader_that_goes_away_stops_nothing() {
    for arguments in [&["up"][..], &["up", "--output", "json"], &["status"], &["up", "--to", "9"]] {
        let project = Project::new("closed", &FILES);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = project.command(arguments);
        command.stdout(writer.try_clone().unwrap()).stderr(writer).stdin(Stdio::null());
        let code = command.status().unwrap().code();
        assert_eq!(code, Some(if arguments.contains(&"9") { 2 } else { 0 }), "{arguments:?}");
        let applied = if arguments == ["up"] || arguments.contains(&"json") { 2 } else { 0 };
        assert_eq!(project.database.history().len(), applied, "{arguments:?}");
        assert_eq!(project.database.holders(), Vec::<String>::new());
    }
}

/// Settings of the database or the role are for applications.
#[test]
fn settings_of_the_database_do_not_reach_the_engine() {
    let project = Project::new("settings", &FILES);
    let name = &project.database.name;
    for setting in [
        "search_path = pg_catalog",
        "statement_timeout = '400ms'",
        "lock_timeout = '1ms'",
        "default_transaction_isolation = 'serializable'",
        "DateStyle = 'German'",
        "TimeZone = 'Asia/Tokyo'",
        "IntervalStyle = 'iso_8601'",
        "standard_conforming_strings = off",
        "bytea_output = 'escape'",
        "extra_float_digits = 0",
        "row_security = off",
        "client_min_messages = error",
    ] {
        project.database.sql(&format!("ALTER DATABASE \"{name}\" SET {setting}"));
    }
    project.write("001-a/up.sql", "CREATE TABLE public.a (id integer);\nSELECT pg_sleep(0.6);");
    project.write("001-a/down.sql", "DROP TABLE public.a;");
    project.ok(&["up"]);
    project.ok(&["status", "--exit-code"]);
    project.ok(&["history"]);
    assert_eq!(project.database.history().len(), 2);
    project.ok(&["down", "--to", "0", "--yes"]);
    assert_eq!(project.database.objects(), "");
}

/// What to do next is said here too.
#[test]
fn a_user_without_rights_is_told_what_is_missing() {
    let project = Project::new("rights", &FILES);
    let database = &project.database;
    let role = format!("poor_{}", database.name);
    database.sql(&format!(
        "CREATE ROLE {role} LOGIN; REVOKE ALL ON SCHEMA public FROM public; \
         GRANT USAGE ON SCHEMA public TO {role}"
    ));
    let (scheme, rest) = database.postgres_url.split_once("://").expect("a URL");
    let host = rest.split_once('@').map_or(rest, |(_, host)| host);
    let url = format!("{scheme}://{role}@{host}");

    project.ok(&["status", "--postgres", &url]);
    project.ok(&["plan", "--postgres", &url]);
    let ran = project.fails(7, &["up", "--postgres", &url]);
    assert!(ran.stderr.contains("permission denied for schema public"), "{ran}");
    assert!(ran.stderr.contains("42501") && ran.stderr.contains("next: "), "{ran}");
    assert_eq!(database.ours(), Vec::<String>::new());

    project.ok(&["up"]);
    let ran = project.fails(7, &["status", "--postgres", &url]);
    assert!(ran.stderr.contains("permission denied for table migration_"), "{ran}");
    assert!(ran.stderr.contains("next: "), "{ran}");
    database.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

/// A database that only answers questions.
#[test]
fn a_read_only_database_is_said_to_be_one() {
    let project = Project::new("read_only", &FILES);
    let name = &project.database.name;
    project
        .database
        .sql(&format!("ALTER DATABASE \"{name}\" SET default_transaction_read_only = on"));
    project.ok(&["status"]);
    let ran = project.fails(7, &["up"]);
    assert!(ran.stderr.contains("read-only") && ran.stderr.contains("next: "), "{ran}");
}

/// Somebody's table of that name is not ours to write.
#[test]
fn tables_of_that_name_that_are_not_ours_are_not_touched() {
    for sql in [
        "CREATE TABLE migration_history (id integer); INSERT INTO migration_history VALUES (7)",
        "CREATE TABLE migration_steps (version bigint)",
    ] {
        let project = Project::new("not_ours", &FILES);
        project.database.sql(sql);
        let before = project.database.ours();
        for arguments in [&["up"][..], &["status"], &["plan"], &["down", "--yes"]] {
            let ran = project.fails(5, arguments);
            assert!(ran.stderr.contains("table migration_"), "{ran}");
            assert!(ran.stderr.contains("another program"), "{ran}");
        }
        assert_eq!(project.database.ours(), before);
    }
    let project = Project::new("not_ours_mongo", &FILES);
    project.database.run(doc! { "insert": "migration_history", "documents": [{ "_id": 7 }] });
    let before = project.database.ours();
    for arguments in [&["up"][..], &["status"], &["plan"], &["down", "--yes"]] {
        let ran = project.fails(5, arguments);
        assert!(ran.stderr.contains("migration_history 7"), "{ran}");
        assert!(ran.stderr.contains("another program"), "{ran}");
    }
    assert_eq!(project.database.ours(), before);
}
