//! What a terminal shows: `script` gives the program one of 80 columns.

use std::process::Command;

use crate::project::Project;

/// What a terminal got while a command ran in it, and how that ended.
fn on_a_terminal(project: &Project, typed: &str, environment: &[(&str, &str)]) -> (String, bool) {
    let program = env!("CARGO_BIN_EXE_migrate");
    let typed = format!("stty cols 80 rows 24; '{program}' {typed}");
    let like = project.command(&[]);
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &typed, "/dev/null"]);
    command.current_dir(project.path("")).env_clear().env("TERM", "xterm-256color");
    for (name, value) in like.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    let ran = command.envs(environment.iter().copied()).output();
    let ran = ran.expect("`script` of util-linux, which gives a command a terminal");
    (String::from_utf8_lossy(&ran.stdout).into_owned(), ran.status.success())
}

/// Without what moves the cursor and colours.
fn plain(text: &str) -> String {
    let escapes = regex::Regex::new("\x1b\\[[0-9;?]*[A-Za-z]").unwrap();
    escapes.replace_all(text, "").replace('\r', "\n")
}

const MIGRATION: &[(&str, &str)] = &[
    ("001-people/up.sql", "CREATE TABLE people AS SELECT i AS id FROM generate_series(1, 9) AS i;"),
    ("001-people/down.sql", "DROP TABLE people;"),
    ("002-slow/up.sql", "SELECT pg_sleep(2.5);"),
    ("002-slow/down.sql", "SELECT 1;"),
    ("003-filled/migration.toml", FILL),
    ("003-filled/prepare.sql", "ALTER TABLE people ADD PRIMARY KEY (id), ADD name text;"),
    ("003-filled/prepare.down.sql", "ALTER TABLE people DROP name;"),
];

const FILL: &str = r#"
[[backfill]]
name = "names"
postgres = { table = "people", set = "name = 'somebody'", where = "name IS NULL" }
"#;

#[test]
fn a_terminal_of_80_columns_shows_what_moves_and_no_line_is_longer() {
    let project = Project::new("screens", MIGRATION);
    let (text, ok) = on_a_terminal(&project, "up", &[]);
    assert!(ok, "{text}");
    assert!(text.contains("\x1b["), "{text:?}");
    let text = plain(&text);
    assert!(text.contains("✓ up/postgres/1"), "{text}");
    // What takes long moves while it does.
    assert!(text.contains("SELECT pg_sleep(2.5)"), "{text}");
    assert!(text.contains("execute/names  ["), "{text}");
    assert!(text.contains("100 %"), "{text}");
    // A bar of two lines is one here: its first is filled up to the edge.
    for line in text.lines().filter(|line| line.contains('✓')) {
        assert!(line.trim_end().chars().count() <= 80, "{line:?}");
    }
    let (text, ok) = on_a_terminal(&project, "status", &[]);
    assert!(ok && plain(&text).contains("✓  001 people"), "{text}");
}

#[test]
fn without_colours_words_say_the_same() {
    let project = Project::new("screens", MIGRATION);
    let colour = regex::Regex::new("\x1b\\[[0-9;]*m").unwrap();
    let (text, ok) = on_a_terminal(&project, "up --to 1", &[("NO_COLOR", "1")]);
    assert!(ok && !colour.is_match(&text), "{text:?}");
    assert!(plain(&text).contains("ok up/postgres/1"), "{text}");
    let (text, ok) = on_a_terminal(&project, "--color never status", &[]);
    assert!(ok && !colour.is_match(&text), "{text:?}");
    assert!(plain(&text).contains("ok  001 people"), "{text}");
    // And a pipe has colours only if somebody asks for them.
    let ran = project.ok(&["status"]);
    assert!(!colour.is_match(&ran.stdout), "{:?}", ran.stdout);
    let ran = project.command(&["--color", "always", "status"]).output().unwrap();
    let stdout = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(colour.is_match(&stdout), "{stdout:?}");
}
