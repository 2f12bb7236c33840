//! Where settings come from, and what `migrate -v status` says about it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::project::{Project, Ran, write};

/// `migrate` without the URLs, and with other variables.
fn run(project: &Project, variables: &[(&str, &str)], arguments: &[&str]) -> Ran {
    let mut command = project.command(arguments);
    command.env_remove("DATABASE_URL").env_remove("MONGODB_URI");
    command.envs(variables.iter().copied());
    Ran::of(arguments, command.output().unwrap())
}

#[track_caller]
fn ok(project: &Project, variables: &[(&str, &str)], arguments: &[&str]) -> Ran {
    let ran = run(project, variables, arguments);
    assert_eq!(ran.code, 0, "{ran}");
    ran
}

/// The origin of a setting, as it is shown.
#[track_caller]
fn origin(ran: &Ran, key: &str) -> String {
    let begins = format!("{key} = ");
    let line = ran.stderr.lines().find(|line| line.starts_with(&begins));
    let line = line.unwrap_or_else(|| panic!("no {key}:\n{ran}"));
    let (_, origin) = line.rsplit_once("  (").expect("it has an origin");
    origin.strip_suffix(')').expect("it is in brackets").to_owned()
}

#[test]
fn each_setting_is_shown_with_where_it_comes_from() {
    let project = Project::new("settings_origins", &[("001-a/up.sql", "CREATE TABLE a ();")]);
    let postgres = project.database.postgres_url.as_str();
    let mongo = project.database.mongo_uri.as_str();
    let toml = "lock_wait = '${LOCK_WAIT:-7s}'\n[postgres]\nurl = '${PG}'\n\
        [mongo]\nurl_file = 'secrets/mongo'\n[cleanup]\npolicy = 'hold'\n\
        [env.production]\ncleanup.policy = 'next-release'\n[vars]\nregion = 'eu'\n";
    write(&project.path("migrate.toml"), toml);
    write(&project.path("secrets/mongo"), mongo);
    let variables = [("PG", postgres)];

    let ran = ok(&project, &variables, &["-v", "status"]);
    assert_eq!(origin(&ran, "postgres.url"), "migrate.toml:3");
    assert_eq!(origin(&ran, "mongo.url"), "secrets/mongo");
    assert_eq!(origin(&ran, "lock_wait"), "migrate.toml:1");
    assert!(ran.stderr.contains("lock_wait = 7s"), "{ran}");
    assert_eq!(origin(&ran, "cleanup.policy"), "migrate.toml:7");
    assert_eq!(origin(&ran, "throttle.rate"), "default");
    assert_eq!(origin(&ran, "history.schema"), "default");

    let ran = ok(&project, &variables, &["-v", "--env", "production", "status"]);
    assert_eq!(origin(&ran, "cleanup.policy"), "migrate.toml:9 [env.production]");
    let variables = [("PG", postgres), ("MIGRATE_ENV", "production"), ("LOCK_WAIT", "9s")];
    let ran = ok(&project, &variables, &["-v", "status", "--var", "region=us"]);
    assert_eq!(origin(&ran, "cleanup.policy"), "migrate.toml:9 [env.production]");
    assert_eq!(origin(&ran, "vars.region"), "--var");
    assert!(ran.stderr.contains("lock_wait = 9s"), "{ran}");

    // The environment beats the file, `.env` stands behind the environment, and a
    // flag beats all of them.
    write(&project.path(".env"), &format!("DATABASE_URL='{postgres}'\nMIGRATE_VAR_REGION=asia\n"));
    let ran = ok(&project, &[], &["-v", "status"]);
    assert_eq!(origin(&ran, "postgres.url"), ".env (DATABASE_URL)");
    assert_eq!(origin(&ran, "vars.region"), ".env (MIGRATE_VAR_REGION)");
    let variables = [("DATABASE_URL", postgres), ("MIGRATE_VAR_REGION", "africa")];
    let ran = ok(&project, &variables, &["-v", "status", "--mongo", mongo]);
    assert_eq!(origin(&ran, "postgres.url"), "DATABASE_URL");
    assert_eq!(origin(&ran, "mongo.url"), "--mongo");
    assert_eq!(origin(&ran, "vars.region"), "MIGRATE_VAR_REGION");
    ok(&project, &[], &["up"]);
}

#[test]
fn a_variable_that_is_not_set_is_named_with_its_place() {
    let project = Project::new("settings_unset", &[]);
    write(&project.path("migrate.toml"), "[postgres]\nurl = '${NO_SUCH}'\n");
    let ran = run(&project, &[], &["status"]);
    assert_eq!(ran.code, 2, "{ran}");
    assert!(ran.stderr.contains("NO_SUCH") && ran.stderr.contains("migrate.toml:2"), "{ran}");
}

#[test]
fn a_command_may_print_the_password() {
    let project = Project::new("settings_command", &[("001-a/up.sql", "CREATE TABLE a ();")]);
    let script = project.path("password.sh");
    write(&script, "#!/bin/sh\necho asked >> asked\necho hunter2\n");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let toml = "[postgres]\npassword_command = ['./password.sh', '--token', 'hunter2']\n";
    write(&project.path("migrate.toml"), toml);
    let ran = project.ok(&["up"]);
    assert!(!ran.said().contains("hunter2"), "{ran}");
    assert_eq!(fs::read_to_string(project.path("asked")).unwrap().lines().count(), 1);

    write(&script, "#!/bin/sh\necho hunter2 >&2\necho hunter2\nexit 3\n");
    let ran = project.fails(2, &["up"]);
    assert!(ran.stderr.contains("`./password.sh` failed"), "{ran}");
    assert!(!ran.said().contains("hunter2"), "{ran}");
    let objects = project.json(2, &["status"]);
    assert_eq!(objects[0]["code"], "PASSWORD_COMMAND");
}
