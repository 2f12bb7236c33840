//! What is in `deploy/` speaks of metrics, labels and settings: of each, the program on
//! real servers has to have it. What other programs think of these files is asked by
//! `scripts/check-deploy`.

#[path = "../cases/project.rs"]
#[expect(dead_code, reason = "the cases do more with a project")]
mod project;
#[path = "../support/mod.rs"]
mod support;

mod exposed;
mod queries;

use exposed::{Exposed, watched};
use project::{Project, until};
use queries::{Query, dashboard, rules};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file of the repository.
fn path(of: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(of)
}

fn read(of: &str) -> String {
    fs::read_to_string(path(of)).unwrap_or_else(|error| panic!("{of}: {error}"))
}

/// What is wrong with a query: metrics and labels that nobody exposes.
fn wrong(query: &Query, exposed: &Exposed) -> Vec<String> {
    let mut wrong = Vec::new();
    for used in &query.metrics {
        match exposed.get(&used.name) {
            None => wrong.push(format!("{}: there is no {}", query.place, used.name)),
            Some(labels) => {
                for label in used.labels.iter().filter(|label| !labels.contains(*label)) {
                    wrong.push(format!("{}: {} has no label {label}", query.place, used.name));
                }
            }
        }
    }
    // What is shown comes from the left side of an operator.
    let first = query.metrics.first().and_then(|used| exposed.get(&used.name));
    for label in &query.shown {
        if first.is_some_and(|labels| !labels.contains(label)) {
            wrong.push(format!("{}: it shows {label}, which is no label there", query.place));
        }
    }
    wrong
}

#[test]
fn every_metric_and_label_of_rules_and_dashboard_is_one_of_the_program() {
    let (exposed, texts) = watched();
    let queries = [
        rules(&read("deploy/prometheus/lockstep.rules.yml")),
        dashboard(&read("deploy/grafana/lockstep.json")),
    ]
    .concat();
    assert!(queries.len() > 50, "they are found: {}", queries.len());
    let wrong: Vec<String> = queries.iter().flat_map(|query| wrong(query, &exposed)).collect();
    assert_eq!(wrong, Vec::<String>::new(), "exposed is {exposed:#?}");

    // The other way round: what is exposed is watched by somebody.
    let used = |name: &&String| queries.iter().any(|q| q.metrics.iter().any(|m| m.name == **name));
    let unused: Vec<&String> = exposed.keys().filter(|name| !used(name)).collect();
    assert_eq!(unused, Vec::<&String>::new(), "neither an alert nor a panel looks at them");

    // Prometheus itself finds nothing to say about it.
    for (name, text) in texts {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), &text).unwrap();
        let said = Command::new(path("scripts/check-deploy"))
            .arg("--metrics")
            .arg(file.path())
            .output()
            .unwrap();
        let both = [said.stdout, said.stderr].concat();
        let both = String::from_utf8_lossy(&both);
        assert!(said.status.success(), "promtool about {name}: {both}\n{text}");
    }
}

#[test]
fn a_query_of_what_is_not_there_is_found() {
    let exposed = exposed::parse("lockstep_a{store=\"x\"} 1\nlockstep_b 2\n");
    let found = |expr: &str, shown: &str| wrong(&Query::of("here", expr, shown), &exposed);
    assert_eq!(found("lockstep_a{store=\"y\"} > on (job) lockstep_b", "{{store}}"), [""; 0]);
    assert_eq!(found("lockstep_c > 1", ""), ["here: there is no lockstep_c"]);
    assert_eq!(found("lockstep_b{store=~\"y\"}", ""), ["here: lockstep_b has no label store"]);
    assert_eq!(found("sum by (command) (lockstep_a)", "").len(), 1);
    assert_eq!(found("lockstep_a", "{{ $labels.command }}").len(), 1);
    assert_eq!(found("lockstep_b", "{{store}}").len(), 1);
}

#[test]
fn the_settings_for_systemd_find_its_credentials() {
    let project = Project::new("systemd", &[("001-a/up.sql", "CREATE TABLE a (id int);")]);
    let credentials = project.path("credentials");
    fs::create_dir(&credentials).unwrap();
    fs::write(credentials.join("postgres-url"), &project.database.postgres_url).unwrap();
    fs::write(credentials.join("mongodb-uri"), &project.database.mongo_uri).unwrap();
    fs::copy(path("deploy/systemd/migrate.toml"), project.path("migrate.toml")).unwrap();
    // As the unit sets it.
    assert!(read("deploy/systemd/lockstep-migrate.service").contains("MIGRATE_ENV=systemd"));
    let run = |arguments: &[&str], with: bool| {
        let mut command = project.command(arguments);
        command.env_remove("DATABASE_URL").env_remove("MONGODB_URI").env("MIGRATE_ENV", "systemd");
        if with {
            command.env("CREDENTIALS_DIRECTORY", &credentials);
        }
        project::Ran::of(arguments, command.output().unwrap())
    };
    let ran = run(&["up"], true);
    assert_eq!(ran.code, 0, "{ran}");
    let ran = run(&["status", "--exit-code"], true);
    assert_eq!(ran.code, 0, "{ran}");
    let ran = run(&["status"], false);
    assert_eq!(ran.code, 2, "{ran}");
    assert!(ran.said().contains("CREDENTIALS_DIRECTORY"), "{ran}");
}
