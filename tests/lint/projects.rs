//! What comes with the program has nothing to be found in it.

use std::path::Path;

use crate::{Folder, migrate, run};

#[test]
fn the_sample_project_has_no_finding() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (stdout, stderr, code) = run(&mut migrate(root, &["lint"]));
    assert_eq!(
        (stdout.as_str(), code),
        ("nothing found in 9 migrations (11 suppressed)\n", 0),
        "{stderr}"
    );
}

#[test]
fn what_init_writes_has_no_finding_and_what_new_writes_is_to_be_filled_in() {
    let folder = Folder::new(&[]);
    assert!(folder.command(&["init"]).output().unwrap().status.success());
    assert_eq!(folder.lint(0, &[]), "nothing found in 1 migration\n");
    for arguments in [
        &["new", "both"][..],
        &["new", "phased", "--phased"],
        &["new", "one store", "--store", "postgres"],
        &["new", "the other", "--store", "mongo", "--phased"],
    ] {
        assert!(folder.command(arguments).output().unwrap().status.success());
    }
    let found = folder.lint(0, &[]);
    assert!(found.contains("18 warnings in 5 migrations\n"), "{found}");
    assert_eq!(found.matches("rule:    empty-script (").count(), 18, "{found}");
    assert!(found.contains("so `up` and `plan` refuse it"), "{found}");
}

#[test]
fn a_project_without_migrations_has_no_finding() {
    let folder = Folder::new(&[("migrations/README.md", "")]);
    assert_eq!(folder.lint(0, &[]), "nothing found in 0 migrations\n");
}

#[test]
fn a_template_is_linted_as_the_databases_get_it() {
    let folder = Folder::new(&[
        ("migrate.toml", "[vars]\ntable = 'users'\n"),
        ("migrations/001-a/migration.toml", "template = true\n"),
        ("migrations/001-a/up.sql", "LOCK TABLE {{table}};\nCREATE TABLE {{made}} (id bigint);\n"),
        ("migrations/001-a/down.sql", "DROP TABLE {{made}};\n"),
    ]);
    let found = folder.lint(0, &["--var", "made=things"]);
    assert!(found.contains("up.sql:1:1"), "{found}");
    assert!(found.contains("LOCK TABLE users"), "{found}");
}
