//! `--base`: only what is new since a ref, and what is wrong beside it.

use std::process::Command;

use expect_test::expect;

use crate::Folder;

const INDEX: &str = "CREATE INDEX a_b ON a (b);\n";

fn git(folder: &Folder, arguments: &[&str]) {
    let status = Command::new("git")
        .args(["-c", "user.name=Tester", "-c", "user.email=tester@example.invalid"])
        .args(["-c", "init.defaultBranch=main", "-c", "commit.gpgsign=false"])
        .args(arguments)
        .current_dir(folder.path("."))
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&status.stderr).into_owned();
    assert!(status.status.success(), "git {arguments:?}: {said}");
}

fn commit(folder: &Folder) {
    git(folder, &["add", "-A"]);
    git(folder, &["commit", "-qm", "more"]);
}

/// Two migrations on `main`, with a finding each, and a branch that has just left.
fn repository() -> Folder {
    let down = "DROP INDEX CONCURRENTLY a_b;\n";
    let folder = Folder::new(&[
        ("db/migrations/001-a/up.sql", INDEX),
        ("db/migrations/001-a/down.sql", down),
        ("db/migrations/002-b/up.sql", INDEX),
        ("db/migrations/002-b/down.sql", down),
        ("migrate.toml", "dir = 'db/migrations'"),
    ]);
    git(&folder, &["init", "-q"]);
    commit(&folder);
    git(&folder, &["switch", "-qc", "branch"]);
    folder
}

#[test]
fn what_was_merged_is_not_told_again() {
    let folder = repository();
    assert_eq!(folder.findings(0, &["--base", "main"]), "");
    // Committed or not, tracked or not: it is new.
    folder.write("db/migrations/003-c/up.sql", "CREATE TABLE c ();");
    folder.write("db/migrations/003-c/down.sql", "DROP TABLE c;");
    commit(&folder);
    folder.write(
        "db/migrations/004-d/up.sql",
        "CREATE INDEX c_d ON c (d);\nCREATE INDEX a_d ON a (d);",
    );
    folder.write("db/migrations/004-d/down.sql", "DROP INDEX CONCURRENTLY a_d;\nDROP INDEX c_d;\n");
    // The table of the first is new since main too.
    expect![[r#"
        index-without-concurrently db/migrations/004-d/up.sql:2
    "#]]
    .assert_eq(&folder.findings(1, &["--base", "main"]));
    let all = folder.findings(1, &[]);
    assert!(all.contains("001-a/up.sql:1") && all.contains("004-d/up.sql:1"), "{all}");
}

#[test]
fn a_migration_that_is_new_goes_above_what_is_merged() {
    let folder = repository();
    folder.write("db/migrations/003-c/up.sql", "CREATE TABLE c ();");
    folder.write("db/migrations/003-c/down.sql", "DROP TABLE c;");
    commit(&folder);
    git(&folder, &["switch", "-q", "main"]);
    folder.write("db/migrations/004-d/up.sql", "SELECT 1;");
    commit(&folder);
    git(&folder, &["switch", "-q", "branch"]);
    let object = folder.json(1, &["--base", "main"]);
    let finding = &object["findings"][0];
    assert_eq!(finding["rule"], "sorts-below-merged");
    assert_eq!(finding["file"], "db/migrations/003-c");
    assert_eq!(finding["message"], "003-c sorts below 004-d, which is merged in main");
    assert_eq!(finding["line"], serde_json::Value::Null);
    git(&folder, &["mv", "db/migrations/003-c", "db/migrations/005-c"]);
    assert_eq!(folder.findings(0, &["--base", "main"]), "");
}

#[test]
fn a_migration_that_was_merged_is_not_edited() {
    let folder = repository();
    folder.write("db/migrations/001-a/README.md", "It is no part of the checksum.");
    assert_eq!(folder.findings(0, &["--base", "main"]), "");
    folder.write("db/migrations/001-a/up.sql", &format!("{INDEX}DROP TABLE c;\n"));
    // Of the index that was there before, nothing.
    expect![[r#"
        edited-after-merge db/migrations/001-a:null
        drop-table db/migrations/001-a/up.sql:2
    "#]]
    .assert_eq(&folder.findings(1, &["--base", "main"]));
    std::fs::remove_dir_all(folder.path("db/migrations/001-a")).unwrap();
    expect![[r#"
        error: 001-a was merged, and is gone here
          in db/migrations/001-a
          instead: Restore the files, and write a new migration that leads from what they made to what you
                   want.
          rule:    edited-after-merge (docs/lint/edited-after-merge.md)

        1 error in 0 migrations
    "#]]
    .assert_eq(&folder.lint(1, &["--base", "main"]));
}

#[test]
fn without_git_it_says_what_is_missing() {
    let folder = repository();
    expect![[r#"
        ! error: git knows no `mian`
        !   git: fatal: Needed a single revision
        !   next: fetch it (`git fetch origin main`), or name another: a branch, a tag or a commit
    "#]]
    .assert_eq(&folder.lint(2, &["--base", "mian"]));
    git(&folder, &["switch", "-q", "--orphan", "alone"]);
    folder.write("db/migrations/001-a/up.sql", INDEX);
    folder.write("migrate.toml", "dir = 'db/migrations'");
    commit(&folder);
    let said = folder.lint(2, &["--base", "main"]);
    assert!(said.contains("this branch and `main` have no commit in common"), "{said}");
    assert!(said.contains("fetch-depth: 0"), "{said}");

    let outside = Folder::new(&[("migrations/001-a/up.sql", INDEX)]);
    let said = outside.lint(2, &["--base", "main"]);
    assert!(said.contains("is in no git repository"), "{said}");
    let mut command = outside.command(&["lint", "--base", "main"]);
    let (_, stderr, code) = crate::run(command.env("PATH", ""));
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("there is no program `git`"), "{stderr}");
}

/// A ref is never taken for an option of git.
#[test]
fn a_ref_that_looks_like_an_option_is_none() {
    let folder = repository();
    let said = folder.lint(2, &["--base=--upload-pack=x"]);
    assert!(said.contains("git knows no `--upload-pack=x`"), "{said}");
}
