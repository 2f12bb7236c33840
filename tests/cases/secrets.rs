//! No password is ever shown: whatever is done, and however it goes wrong.

use std::fs;

use clap::CommandFactory as _;
use lockstep::cli::args::Cli;

use crate::databases::OURS;
use crate::project::{Project, Ran, write};

/// Anywhere but in what it is for, it is a leak.
const PASSWORD: &str = "hunter2-s3cret";

const FILES: [(&str, &str); 6] = [
    ("001-a/up.sql", "CREATE TABLE a (id int);"),
    ("001-a/down.sql", "DROP TABLE a;"),
    ("001-a/up.mongodb.js", "db.a.insertOne({ _id: 1 });"),
    ("001-a/down.mongodb.js", "db.a.drop();"),
    ("002-b/up.sql", "CREATE TABLE b (id int);"),
    ("002-b/down.sql", "DROP TABLE b;"),
];

/// Each command, with what it takes to do something. One that is new is run as it is.
fn commands() -> Vec<Vec<String>> {
    let more = |name: &str| match name {
        "new" => "more things",
        "down" | "repair" => "--yes",
        "wait" => "--for 2 --timeout 300ms",
        "backfill" => "status",
        "unlock" => "--run x --reason y",
        "completions" => "bash",
        "sandbox" => "--with programs -- true",
        _ => "",
    };
    let command = Cli::command();
    let names = command.get_subcommands().map(|command| command.get_name().to_owned());
    // `serve` goes on until it is told to end: tests/serve looks at what it says.
    names
        .filter(|name| name != "serve")
        .map(|name| {
            let more = more(&name).split_whitespace().map(str::to_owned);
            std::iter::once(name.clone()).chain(more).collect()
        })
        .collect()
}

fn with_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let (user, rest) = rest.split_once('@').unwrap_or(("postgres", rest));
    let user = user.split(':').next().expect("a name");
    format!("{scheme}://{user}:{PASSWORD}@{rest}")
}

fn run(project: &Project, urls: [&str; 2], arguments: &[&str]) -> Ran {
    let mut command = project.command(arguments);
    command.env("DATABASE_URL", urls[0]).env("MONGODB_URI", urls[1]);
    command.env("MIGRATE_VAR_API_TOKEN", PASSWORD);
    let ran = Ran::of(arguments, command.output().unwrap());
    assert!(!ran.said().contains(PASSWORD), "the password is in it:\n{ran}");
    ran
}

/// For people, saying as much as it can, and for programs.
const FORMS: [&[&str]; 2] = [&["-v", "-v"], &["--output", "json"]];

/// Each command in both forms.
fn run_all(project: &Project, urls: [&str; 2]) {
    for form in FORMS {
        run_each(project, urls, form);
    }
}

fn run_each(project: &Project, urls: [&str; 2], form: &[&str]) {
    for command in commands() {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let (first, rest) = words.split_first().expect("its name");
        run(project, urls, &[form, &[first], rest].concat());
        if *first == "new" {
            fill_in(project);
        }
    }
}

/// What `new` wrote gets a statement, without which it would not be applied.
fn fill_in(project: &Project) {
    for entry in fs::read_dir(project.path("migrations")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with("-more-things") {
            project.write(&format!("{name}/up.sql"), "SELECT 1;");
        }
    }
}

/// What both histories say, whole.
fn histories(project: &Project) -> String {
    let mut text = String::new();
    for table in OURS {
        text.push_str(&project.database.sql(&format!("SELECT t::text FROM {table} t")).join("\n"));
        for document in project.database.documents(table) {
            text.push_str(&document.to_string());
        }
    }
    text
}

#[test]
fn no_password_is_shown_when_all_is_well() {
    let project = Project::new("secrets_well", &FILES);
    // The server for tests lets everybody in: the password is sent for nothing.
    let postgres = with_password(&project.database.postgres_url);
    let urls = [postgres.as_str(), project.database.mongo_uri.as_str()];
    let toml = format!(
        "[vars]\nmy_password = '{PASSWORD}'\n[hooks]\n\
         before_up = ['tr \"\\0\" \" \" < /proc/$PPID/cmdline >> lines; tr \"\\0\" \" \" < /proc/self/cmdline >> lines']\n\
         after_up = ['true --token {PASSWORD}']\n"
    );
    write(&project.path("migrate.toml"), &toml);
    run_all(&project, urls);
    let ran = run(&project, urls, &["-v", "status"]);
    assert!(ran.stderr.contains("my_password = ***"), "{ran}");
    assert!(ran.stderr.contains(":***@"), "{ran}");
    let histories = histories(&project);
    assert!(histories.contains("002-b"), "there is something to look at: {histories}");
    assert!(!histories.contains(PASSWORD), "{histories}");
    let lines = fs::read_to_string(project.path("lines")).unwrap();
    assert!(lines.contains("migrate") && !lines.contains(PASSWORD), "{lines}");
}

#[test]
fn no_password_is_shown_when_a_migration_fails() {
    let project = Project::new("secrets_failed", &FILES);
    project.write("002-b/up.sql", "CREATE TABLE b (id int);\nSELECT nothing FROM nowhere;");
    let postgres = with_password(&project.database.postgres_url);
    let urls = [postgres.as_str(), project.database.mongo_uri.as_str()];
    write(
        &project.path("migrate.toml"),
        &format!("[hooks]\non_failure = ['no-such --token {PASSWORD}']\n"),
    );
    run_all(&project, urls);
    let ran = run(&project, urls, &["up"]);
    assert!(ran.code == 1 && ran.stderr.contains("nowhere"), "{ran}");
    assert!(!histories(&project).contains(PASSWORD));
    project.write("003-c/up.sql", "BEGIN;");
    run_all(&project, urls);
}

#[test]
fn no_password_is_shown_when_a_database_does_not_let_us_in() {
    let project = Project::new("secrets_outside", &FILES);
    let good = [project.database.postgres_url.as_str(), project.database.mongo_uri.as_str()];
    let wrong = with_password(good[1]).replacen("postgres:", "app:", 1);
    let nobody = format!("postgres://no_such_user:{PASSWORD}@127.0.0.1:1/shop");
    let no_mongo =
        format!("mongodb://app:{PASSWORD}@127.0.0.1:1/shop?serverSelectionTimeoutMS=200");
    let outside =
        [[good[0], wrong.as_str()], [nobody.as_str(), good[1]], [good[0], no_mongo.as_str()]];
    // Each of them takes its time before it gives up.
    std::thread::scope(|scope| {
        for urls in outside {
            for form in FORMS {
                let project = &project;
                scope.spawn(move || run_each(project, urls, form));
            }
        }
    });
    for urls in outside {
        assert_eq!(run(&project, urls, &["status"]).code, 7);
    }
}

#[test]
fn no_password_is_shown_of_what_cannot_be_read() {
    let project = Project::new("secrets_unread", &FILES);
    let good = [project.database.postgres_url.as_str(), project.database.mongo_uri.as_str()];
    for url in [
        format!("postgres://app:{PASSWORD}@db:port/shop"),
        format!("postgres://app:{PASSWORD}@[::1/shop"),
        format!("mysql://app:{PASSWORD}@db/shop"),
        format!("host=db user=app password={PASSWORD} nonsense"),
        PASSWORD.to_owned(),
    ] {
        let ran = run(&project, [url.as_str(), good[1]], &["up"]);
        assert_eq!(ran.code, 2, "{ran}");
        let ran = run(&project, [good[0], url.as_str()], &["-v", "up", "--output", "json"]);
        assert_eq!(ran.code, 2, "{ran}");
    }
    // A URL where none belongs.
    let url = format!("postgres://app:{PASSWORD}@db/shop");
    for arguments in
        [&["up", &url][..], &["status", "--exit-code", &url], &[&url], &["up", "--to", &url]]
    {
        let ran = run(&project, good, arguments);
        assert_eq!(ran.code, 2, "{ran}");
    }
    write(
        &project.path("migrate.toml"),
        &format!("[postgres]\nurl = \"postgres://app:{PASSWORD}@db/shop\nschema = 1\n"),
    );
    run_all(&project, good);
    write(&project.path("migrate.toml"), "");
    write(&project.path(".env"), &format!("DATABASE_URL='postgres://app:{PASSWORD}@db/shop\n"));
    run_all(&project, good);
}
