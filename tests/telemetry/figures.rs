//! The metrics of a run that has ended, in a file.

use crate::project::{Project, Ran, write};
use crate::receiver::{Receiver, nobody};
use crate::{FILES, held, let_go, run, until_held};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// The text of a monitoring system, by its series.
pub fn series(text: &str) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').expect("a series and its value");
        let value = value.parse().unwrap_or_else(|_| panic!("{line}: no number"));
        assert_eq!(found.insert(series.to_owned(), value), None, "twice: {line}");
    }
    assert!(text.ends_with('\n'), "the last line is whole");
    found
}

fn read(path: &Path) -> BTreeMap<String, f64> {
    series(&fs::read_to_string(path).expect("it is there"))
}

/// The value of a series, to three digits, which is enough for whole numbers.
#[track_caller]
fn value(all: &BTreeMap<String, f64>, series: &str) -> i64 {
    let value = all.get(series).unwrap_or_else(|| panic!("no {series} in {all:#?}"));
    assert!(value.fract() == 0.0, "{series} {value}");
    format!("{value:.0}").parse().expect("a whole number")
}

/// The names of the files in a folder.
fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a file"));
    let mut names: Vec<String> =
        names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The warning of a run that did well.
#[track_caller]
fn warning(ran: &Ran, begins: &str) -> String {
    assert_eq!(ran.code, 0, "{ran}");
    let found = ran.stderr.lines().find(|line| line.contains(begins));
    found.unwrap_or_else(|| panic!("no `{begins}`: {ran}")).to_owned()
}

#[test]
fn a_run_leaves_its_figures_in_a_file() {
    let project = Project::new("figures", FILES);
    fs::create_dir(project.path("prom")).unwrap();
    let objects = project.json(0, &["up", "--metrics-file", "prom/up.prom", "--release", "2.0"]);
    let path = project.path("prom/up.prom");
    let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode, names(&project.path("prom"))), (0o644, vec!["up.prom".to_owned()]));

    let all = read(&path);
    let run_id = objects[0]["run_id"].as_str().expect("run_started comes first");
    let version = env!("CARGO_PKG_VERSION");
    let info = format!(
        r#"lockstep_run_info{{command="up",run_id="{run_id}",version="{version}",release="2.0"}}"#
    );
    assert_eq!(value(&all, &info), 1);
    for (series, expected) in [
        (r#"lockstep_run_success{command="up"}"#, 1),
        (r#"lockstep_run_exit_code{command="up"}"#, 0),
        (r#"lockstep_run_migrations{command="up"}"#, 2),
        (r#"lockstep_run_steps{command="up"}"#, 5),
        (
            r#"lockstep_run_backfill_rows{command="up",version="002",step="execute/one-more",store="postgres"}"#,
            95,
        ),
        (r#"lockstep_run_invariant_holds{command="up",version="002",name="all are one"}"#, 1),
    ] {
        assert_eq!(value(&all, series), expected, "{series}");
    }
    let finished = all[r#"lockstep_run_finished_timestamp_seconds{command="up"}"#];
    let now = chrono::Utc::now().timestamp();
    #[expect(clippy::cast_precision_loss, reason = "seconds of our time are exact")]
    let age = now as f64 - finished;
    assert!((0.0..3600.0).contains(&(age + 1.0)), "{finished}");
    let took = all[r#"lockstep_run_duration_seconds{command="up"}"#];
    let of_steps = all.iter().filter(|(name, _)| name.contains("run_step_duration_seconds"));
    let of_steps: Vec<f64> = of_steps.map(|(_, took)| *took).collect();
    assert_eq!(of_steps.len(), 5);
    assert!(of_steps.iter().sum::<f64>() <= took, "{of_steps:?} in {took}");
    let migration =
        r#"lockstep_run_migration_duration_seconds{command="up",version="001",name="t"}"#;
    assert!(all.contains_key(migration), "{all:#?}");

    // Nothing left to do is a success of its own; and whoever runs it may keep its files
    // for itself.
    let ours = project.command(&["up", "--metrics-file", "prom/up.prom"]);
    let mut command = Command::new("sh");
    command.args(["-c", "umask 077; exec \"$0\" \"$@\""]).arg(ours.get_program());
    command.args(ours.get_args()).current_dir(ours.get_current_dir().expect("a folder"));
    command.env_clear().envs(ours.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ran = Ran::of(&["up"], command.output().expect("a shell"));
    assert_eq!(ran.code, 0, "{ran}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    let all = read(&path);
    assert_eq!(value(&all, r#"lockstep_run_success{command="up"}"#), 1);
    assert_eq!(value(&all, r#"lockstep_run_steps{command="up"}"#), 0);
    assert!(!all.keys().any(|name| name.contains(run_id)), "{all:#?}");
}

#[test]
fn a_run_that_failed_says_so_and_what_it_had_done() {
    let project = Project::new("figures_failed", FILES);
    project.write("003-wrong/up.sql", "SELECT 1/0");
    let path = project.path("up.prom");
    fs::write(&path, "what was there\n").unwrap();
    project.fails(1, &["up", "--metrics-file", "up.prom"]);
    let all = read(&path);
    assert_eq!(value(&all, r#"lockstep_run_success{command="up"}"#), 0);
    assert_eq!(value(&all, r#"lockstep_run_exit_code{command="up"}"#), 1);
    assert_eq!(value(&all, r#"lockstep_run_migrations{command="up"}"#), 2);
}

#[test]
fn a_run_that_never_began_says_so_too() {
    let project = Project::new("figures_never", &[]);
    let path = project.path("up.prom");
    let nowhere = nobody().replace("http://", "postgres://");
    let arguments = ["up", "--postgres", &nowhere, "--metrics-file", "up.prom"];
    project.fails(7, &arguments);
    let all = read(&path);
    assert_eq!(value(&all, r#"lockstep_run_exit_code{command="up"}"#), 7);

    // A wrong file of settings is told as it always is.
    write(&project.path("migrate.toml"), "no = 'such key'\n");
    let ran = project.fails(2, &["up", "--metrics-file", "up.prom"]);
    assert!(ran.said().contains("no"), "{ran}");
    assert_eq!(value(&read(&path), r#"lockstep_run_exit_code{command="up"}"#), 2);
}

#[test]
fn a_run_that_was_interrupted_says_so() {
    let project = held("figures_interrupted");
    project.write("004-never/up.sql", "CREATE TABLE never ()");
    let running = project.start(&["up", "--metrics-file", "up.prom"]);
    until_held(&project);
    running.signal("INT");
    let_go(&project);
    let ran = running.end();
    assert_eq!(ran.code, 130, "{ran}");
    let all = read(&project.path("up.prom"));
    assert_eq!(value(&all, r#"lockstep_run_exit_code{command="up"}"#), 130);
    assert_eq!(value(&all, r#"lockstep_run_success{command="up"}"#), 0);
    assert_eq!(value(&all, r#"lockstep_run_migrations{command="up"}"#), 3);
}

#[test]
fn down_and_cleanup_leave_theirs() {
    let project = Project::new("figures_down", FILES);
    project.write("003-held/migration.toml", "cleanup = 'hold'\n");
    project.write("003-held/prepare.sql", "CREATE TABLE later ()");
    project.write("003-held/cleanup.sql", "DROP TABLE later");
    project.write("003-held/cleanup.down.sql", "CREATE TABLE later ()");
    project.write("003-held/prepare.down.sql", "DROP TABLE later");
    project.ok(&["up"]);
    project.ok(&["cleanup", "--metrics-file", "cleanup.prom"]);
    let all = read(&project.path("cleanup.prom"));
    assert_eq!(value(&all, r#"lockstep_run_success{command="cleanup"}"#), 1);
    assert_eq!(value(&all, r#"lockstep_run_migrations{command="cleanup"}"#), 1);
    project.ok(&["down", "--to", "1", "--yes", "--metrics-file", "down.prom"]);
    let all = read(&project.path("down.prom"));
    assert_eq!(value(&all, r#"lockstep_run_migrations{command="down"}"#), 2);
    // With nothing to do there is a run all the same.
    project.ok(&["down", "--to", "1", "--yes", "--metrics-file", "down.prom"]);
    let all = read(&project.path("down.prom"));
    assert_eq!(value(&all, r#"lockstep_run_migrations{command="down"}"#), 0);
    assert!(all.keys().any(|name| name.contains("run_id=\"") && !name.contains("run_id=\"\"")));
}

#[test]
fn differences_of_a_comparison_are_counted() {
    let manifest = "[[invariant]]\nname = 'the same'\ncompare = { \
        postgres = 'SELECT id AS _id FROM t', mongo = { collection = 't' }, key = '_id' }\n";
    let insert = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 30)";
    let project = Project::new(
        "figures_compared",
        &[("001-t/prepare.sql", insert), ("001-t/migration.toml", manifest)],
    );
    project.fails(6, &["up", "--metrics-file", "up.prom"]);
    let all = read(&project.path("up.prom"));
    let labels = r#"{command="up",version="001",name="the same"}"#;
    assert_eq!(value(&all, &format!("lockstep_run_comparison_differences{labels}")), 30);
    assert_eq!(value(&all, &format!("lockstep_run_invariant_holds{labels}")), 0);
}

#[test]
fn a_file_that_cannot_be_written_is_a_warning() {
    let project = Project::new("figures_unwritable", FILES);
    let ran = project.migrate(&["up", "--metrics-file", "no/such/up.prom"]);
    let said = warning(&ran, "the metrics of this run were not written to no/such/up.prom");
    assert!(said.contains("No such file"), "{said}");
    assert!(!project.path("no").exists());

    let objects = project.json(0, &["up", "--metrics-file", "migrations"]);
    let [.., remark, finished] = objects.as_slice() else { panic!("{objects:?}") };
    assert_eq!((&remark["event"], &finished["event"]), (&"remark".into(), &"run_finished".into()));
    let message = remark["message"].as_str().expect("a sentence");
    assert!(message.contains("not written to migrations"), "{message}");
    assert!(project.path("migrations").is_dir());
}

#[test]
fn the_settings_name_both_and_the_flags_beat_them() {
    let project = Project::new("figures_settings", FILES);
    let (gateway, other) = (Receiver::new(), Receiver::new());
    fs::create_dir(project.path("ops")).unwrap();
    let toml = "[telemetry]\nmetrics_file = 'up.prom'\npush = '${GATEWAY}'\n[env.eu]\n";
    write(&project.path("ops/migrate.toml"), toml);
    let url = format!("http://app:s3cret@{}", gateway.address());
    let variables = [("GATEWAY", url.as_str())];
    let always = ["-C", "ops/migrate.toml", "--dir", "migrations", "--env", "eu"];
    let ran = run(&project, &variables, &[&always[..], &["-v", "up"]].concat());
    assert_eq!(ran.code, 0, "{ran}");
    // A path in the file is relative to the file.
    read(&project.path("ops/up.prom"));
    assert_eq!(gateway.request().what, "PUT /metrics/job/lockstep/instance/eu");
    let ran = run(&project, &variables, &[&always[..], &["-v", "status"]].concat());
    assert!(ran.said().contains("telemetry.push = http://app:***@127.0.0.1"), "{ran}");
    assert!(!ran.said().contains("s3cret"), "{ran}");

    fs::remove_file(project.path("ops/up.prom")).unwrap();
    let flags = ["up", "--metrics-file", "mine.prom", "--push", &other.url()];
    let ran = run(&project, &variables, &[&always[..], &flags].concat());
    assert_eq!(ran.code, 0, "{ran}");
    read(&project.path("mine.prom"));
    assert!(!project.path("ops/up.prom").exists());
    assert_eq!((gateway.requests().len(), other.requests().len()), (1, 1));
}
