//! The guides of docs/: every command that one of them shows is run on real servers, in
//! the situation that it is shown for, and prints what the guide says it prints.
//!
//! A guide is a list of blocks. ```` ```console ```` has commands after `$ ` and what they
//! print; ```` ```sh ```` has commands only, which must succeed. What is between them
//! makes the situation: `<!-- given: NAME -->`, of which [`scene`] has the list. Times,
//! names of runs and the like may differ; a line `…` stands for any lines.
//! `UPDATE_EXPECT=1 cargo test --test guides` writes down what was printed.
//!
//! pg_dump, pg_restore and psql are those of this machine. mongodump is, where there is
//! one; else what stands in `mongo-tools` makes and reads the dumps, with the same flags.

#[allow(dead_code, reason = "it is shared with the cases, which need more of it")]
#[path = "../cases/databases.rs"]
mod databases;
#[allow(dead_code, reason = "it is shared with the cases, which need more of it")]
#[path = "../cases/project.rs"]
mod project;
#[path = "../support/mod.rs"]
mod support;

mod guide;
mod scene;

use guide::check;

#[test]
fn deploying() {
    check("deploying.md");
}

#[test]
fn the_runbook() {
    check("runbook.md");
}

#[test]
fn going_back() {
    check("rollback.md");
}

#[test]
fn the_checklist() {
    check("checklist.md");
}

#[test]
fn backups() {
    check("backups.md");
}

#[test]
fn upgrading() {
    check("upgrading.md");
}

/// Every exit code of docs/cli.md that is not 0 has its section in the runbook, and is
/// produced there.
#[test]
fn the_runbook_has_every_exit_code() {
    let read = |name: &str| {
        let path = format!("{}/docs/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    };
    let cli = read("cli.md");
    let (_, table) = cli.split_once("\n## Exit codes\n").expect("the table");
    let (table, _) = table.split_once("\n## ").expect("its end");
    let runbook = read("runbook.md");
    let codes = regex::Regex::new(r"(?m)^\| ([\d, ]+) \|").unwrap();
    let mut found = 0;
    for row in codes.captures_iter(table) {
        for code in row[1].split(", ").filter(|code| *code != "0") {
            found += 1;
            let printed = format!("$ echo $?\n{code}\n");
            assert!(runbook.contains(&printed), "no command of the runbook ends with {code}");
        }
    }
    assert_eq!(found, 11);
}
