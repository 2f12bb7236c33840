//! Databases that are not there, or do not let us in.

use crate::project::{Project, Ran, until};
use crate::support::{Database, block_on};

/// Nobody listens there, and nobody who is no administrator could.
const NOBODY: &str = "127.0.0.1:1";

/// Anywhere in what is said, it is a leak.
const PASSWORD: &str = "s3cret-p4ss";

fn project(name: &str) -> Project {
    Project::new(name, &[("001-a/up.sql", "CREATE TABLE a ();")])
}

/// What is said of a database: never the password, always where.
#[track_caller]
fn check(ran: &Ran, parts: &[&str]) {
    assert!(!ran.said().contains(PASSWORD), "the password is in it:\n{ran}");
    for part in parts {
        assert!(ran.said().contains(part), "`{part}` is not in it:\n{ran}");
    }
}

#[test]
fn a_database_that_is_not_there_is_named() {
    let project = project("not_there");
    let postgres = format!("postgres://app:{PASSWORD}@{NOBODY}/shop");
    let mongo = format!("mongodb://app:{PASSWORD}@{NOBODY}/store");
    for command in [&["up"][..], &["status"], &["plan"], &["down", "--yes"], &["history"]] {
        let ran = project.fails(7, &[command, &["--postgres", &postgres]].concat());
        check(&ran, &["Postgres", "127.0.0.1:1/shop", "refused", "next: "]);
    }
    let ran = project.fails(7, &["up", "--mongo", &mongo]);
    check(&ran, &["MongoDB", "127.0.0.1:1/store", "refused", "next: "]);
    let ran = project.fails(7, &["-v", "up", "--mongo", &mongo, "--postgres", &postgres]);
    check(&ran, &["127.0.0.1:1/"]);
    assert_eq!(project.database.ours(), Vec::<String>::new());
}

#[test]
fn a_name_that_nobody_has_is_said_to_be_one() {
    let project = project("no_name");
    let url = format!("postgres://app:{PASSWORD}@no-such-host.invalid/shop");
    let ran = project.fails(7, &["up", "--postgres", &url]);
    check(&ran, &["no-such-host.invalid:5432/shop"]);
}

#[test]
fn waiting_for_a_database_ends() {
    let project = project("waited");
    let url = format!("postgres://app:{PASSWORD}@{NOBODY}/shop");
    let ran = project.fails(8, &["up", "--postgres", &url, "--wait", "300ms"]);
    check(&ran, &["127.0.0.1:1/shop", "--wait"]);
}

#[test]
fn whom_mongodb_does_not_know_is_told_so() {
    let project = project("mongo_password");
    // MongoDB asks whoever gives a name for its password, even where it asks
    // nobody for a name.
    let uri = &project.database.mongo_uri;
    let uri = uri.replace("mongodb://", &format!("mongodb://app:{PASSWORD}@"));
    let ran = project.fails(7, &["up", "--mongo", &uri]);
    check(&ran, &["MongoDB", "uthentication failed", "next: "]);
    let host = project.database.mongo_uri.trim_start_matches("mongodb://").split('/').next();
    check(&ran, &[host.expect("it has one")]);
    assert_eq!(project.database.ours(), Vec::<String>::new());
}

#[test]
fn whom_postgres_does_not_know_is_told_so() {
    let project = project("postgres_password");
    let url = |user: &str| with_user(&project.database, user);
    let ran = project.fails(7, &["up", "--postgres", &url("nobody_of_this_name")]);
    check(&ran, &["Postgres", "nobody_of_this_name", &project.database.name, "next: "]);

    let gone = project.database.postgres_url.replace(&project.database.name, "gone");
    check(&project.fails(7, &["up", "--postgres", &gone]), &["/gone", "does not exist", "3D000"]);

    // Only servers of our own are told to ask for passwords.
    if std::env::var_os("LOCKSTEP_TEST_POSTGRES").is_some() {
        return;
    }
    let role = format!("app_{}", project.database.name);
    ask_for_password(&project.database, &role);
    let ran = project.fails(7, &["up", "--postgres", &url(&role)]);
    check(&ran, &["Postgres", "password authentication failed", "28P01", "next: "]);
    // It does not become right by waiting.
    project.fails(7, &["up", "--postgres", &url(&role), "--wait", "10m"]);
    project.database.sql(&format!("DROP ROLE {role}"));
}

/// The database's URL, with another user.
fn with_user(database: &Database, user: &str) -> String {
    let url = &database.postgres_url;
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let host = rest.split_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{user}:{PASSWORD}@{host}")
}

/// Makes a role whose password is another, and has the server ask for it.
fn ask_for_password(database: &Database, role: &str) {
    database.sql(&format!("CREATE ROLE {role} LOGIN PASSWORD 'another'"));
    let file = database.value("SHOW hba_file");
    database.sql(&format!(
        "CREATE TABLE hba AS SELECT * FROM unnest(ARRAY['host all {role} all scram-sha-256'] \
         || string_to_array(rtrim(pg_read_file('{file}'), E'\\n'), E'\\n')); \
         COPY hba TO '{file}'; DROP TABLE hba; SELECT pg_reload_conf()"
    ));
    let url = with_user(database, role);
    until("the server asks for passwords", || {
        block_on(async || tokio_postgres::connect(&url, tokio_postgres::NoTls).await.is_err())
    });
}

#[test]
fn urls_that_cannot_be_read_are_wrong_settings() {
    let project = project("bad_urls");
    for url in [
        format!("postgres://app:{PASSWORD}@localhost:port/shop"),
        format!("postgres://app:{PASSWORD}@localhost/shop?sslmode=maybe"),
        format!("mysql://app:{PASSWORD}@localhost/shop"),
        format!("app:{PASSWORD}@localhost/shop"),
    ] {
        check(&project.fails(2, &["up", "--postgres", &url]), &["write postgres://"]);
    }
    for uri in [
        format!("mongodb://app:{PASSWORD}@localhost:port/shop"),
        format!("mongodb://app:{PASSWORD}@localhost:27017"),
        format!("mongodb://app:{PASSWORD}@@localhost:27017/shop"),
        format!("mongodb://app:{PASSWORD}/x@localhost:27017/shop"),
        format!("http://app:{PASSWORD}@localhost:27017/shop"),
    ] {
        check(&project.fails(2, &["up", "--mongo", &uri]), &["write mongodb://"]);
    }
}
