//! What a run tells about itself: the binary on real servers, watched through a file,
//! a Pushgateway and a collector that are servers of these tests.
//!
//! Nothing here says how fast something must be.

#[path = "../cases/databases.rs"]
#[expect(dead_code, reason = "the cases look at more of the databases")]
mod databases;
#[path = "../cases/project.rs"]
#[expect(dead_code, reason = "the cases do more with a project")]
mod project;
#[path = "../support/mod.rs"]
mod support;

mod receiver;

mod figures;
mod pushed;
mod traced;

use project::{Project, Ran, Running, until};
use std::process::Stdio;

/// Two migrations, the second with a backfill of ten batches.
const FILES: &[(&str, &str)] = &[
    ("001-t/up.sql", "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL)"),
    ("001-t/up.mongodb.js", "db.t.insertOne({ _id: 1 })"),
    ("001-t/down.sql", "DROP TABLE t"),
    ("001-t/down.mongodb.js", "db.t.deleteOne({ _id: 1 })"),
    ("002-more/prepare.sql", "INSERT INTO t SELECT g, 0 FROM generate_series(1, 95) AS g"),
    ("002-more/prepare.down.sql", "DELETE FROM t"),
    (
        "002-more/migration.toml",
        "[[backfill]]\nname = \"one more\"\nbatch = 10\n\
         postgres = { table = \"t\", set = \"n = n + 1\" }\n\
         [[invariant]]\nname = \"all are one\"\n\
         postgres = \"SELECT count(*) FROM t WHERE n <> 1\"\nexpect = 0\n",
    ),
];

/// Stands still until the test lets it go on.
const HELD: (&str, &str) = (
    "003-held/up.sql",
    "DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM go) LOOP PERFORM pg_sleep(0.02); END LOOP; END $$",
);

/// A project whose last migration stands still.
fn held(name: &str) -> Project {
    let project = Project::new(name, FILES);
    project.write(HELD.0, HELD.1);
    project.database.sql("CREATE TABLE go ()");
    project
}

/// Waits until it does.
#[track_caller]
fn until_held(project: &Project) {
    let at_work = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() \
                   AND state = 'active' AND query LIKE '%FROM go)%' AND pid <> pg_backend_pid()";
    until("the held step to begin", || !project.database.sql(at_work).is_empty());
}

/// Lets it go on.
fn let_go(project: &Project) {
    project.database.sql("INSERT INTO go DEFAULT VALUES");
}

/// Runs `migrate` in a richer environment.
fn run(project: &Project, variables: &[(&str, &str)], arguments: &[&str]) -> Ran {
    let mut command = project.command(arguments);
    command.envs(variables.iter().copied());
    Ran::of(arguments, command.output().expect("it runs"))
}

/// Starts it.
fn start(project: &Project, variables: &[(&str, &str)], arguments: &[&str]) -> Running {
    let mut command = project.command(arguments);
    command.envs(variables.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Running::of(arguments, command.spawn().expect("it runs"))
}
