//! Levels, exit codes, and the forms in which findings are told.

use expect_test::expect;
use serde_json::Value;

use crate::Folder;

const UP: &str = "-- A comment.\nCREATE INDEX a_b\n    ON a (b);\nDROP TABLE c;\n";
const DOWN: &str = "DROP INDEX CONCURRENTLY a_b;\nCREATE TABLE c ();\n";

fn project() -> Folder {
    Folder::new(&[("migrations/001-x/up.sql", UP), ("migrations/001-x/down.sql", DOWN)])
}

#[test]
fn an_error_fails_and_a_warning_does_not() {
    let folder = project();
    assert_eq!(folder.json(1, &[])["exit_code"], 1);
    folder.write("migrate.toml", "[lint.levels]\nindex-without-concurrently = 'warn'");
    assert_eq!(folder.json(0, &[])["exit_code"], 0);
    folder.write(
        "migrate.toml",
        "[lint.levels]\nindex-without-concurrently = 'off'\ndrop-table = 'error'",
    );
    expect![[r#"
        drop-table migrations/001-x/up.sql:4
    "#]]
    .assert_eq(&folder.findings(1, &[]));
}

#[test]
fn a_level_of_a_rule_that_does_not_exist_is_an_error() {
    let folder = project();
    folder.write("migrate.toml", "[lint.levels]\ndrop-tables = 'off'");
    expect![[r#"
        ! error: migrate.toml:2: there is no lint rule `drop-tables`
        !   next: did you mean `drop-table`?
    "#]]
    .assert_eq(&folder.lint(2, &[]));
}

#[test]
fn an_object_has_every_finding_with_its_place() {
    let folder = project();
    let object = folder.json(1, &[]);
    assert_eq!((&object["v"], &object["event"]), (&Value::from(1), &Value::from("lint")));
    assert_eq!(object["counts"], serde_json::json!({ "error": 1, "warn": 1, "suppressed": 0 }));
    let first = &object["findings"][0];
    expect![[r#"
        {
          "column": 1,
          "docs": "docs/lint/index-without-concurrently.md",
          "end_column": 13,
          "end_line": 3,
          "file": "migrations/001-x/up.sql",
          "help": "Write `CREATE INDEX CONCURRENTLY`. It runs as a step of its own, outside of a transaction, and writers go on.",
          "level": "error",
          "line": 2,
          "message": "while this index is built, every INSERT, UPDATE and DELETE on `a` waits (SHARE lock)",
          "rule": "index-without-concurrently",
          "version": 1
        }"#]]
    .assert_eq(&format!("{first:#}"));
    // The flag of every command says the same.
    let said = folder.lint(1, &["--output", "json"]);
    let same: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(same["findings"], object["findings"]);
    folder.lint(2, &["--output", "json", "--format", "sarif"]);
}

#[test]
fn a_workflow_gets_annotations() {
    let folder = project();
    folder
        .write("migrations/001-x/up.sql", &UP.replace("CREATE INDEX", "CREATE INDEX CONCURRENTLY"));
    expect![[r#"
        ::warning file=migrations/001-x/up.sql,line=4,col=1,endLine=4,endColumn=13,title=drop-table::dropping `c` breaks the release that is running, and its rows are gone%0ADrop it in the `cleanup` of a migration with phases: that runs when the releases that need it are gone and the invariants hold.
        ! 1 warning in 1 migration
    "#]]
    .assert_eq(&folder.lint(0, &["--format", "github"]));
    folder.write("migrations/001-x/up.sql", "COMMIT;");
    let said = folder.lint(2, &["--format", "github"]);
    let annotation = "::error file=migrations/001-x/up.sql,line=1,col=1,title=BAD_MIGRATION::";
    assert!(said.starts_with(annotation), "{said}");
}

/// The properties of the schema that code hosts refuse a log without.
#[test]
fn sarif_is_what_its_schema_asks_for() {
    let folder = project();
    let said = folder.lint(1, &["--format", "sarif", "--quiet"]);
    let log: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(log["version"], "2.1.0");
    let run = &log["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    assert!(run["tool"]["driver"]["name"].is_string());
    for rule in rules {
        assert!(rule["id"].is_string() && rule["shortDescription"]["text"].is_string());
        let level = rule["defaultConfiguration"]["level"].as_str().unwrap();
        assert!(["none", "note", "warning", "error"].contains(&level));
    }
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    for result in results {
        let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(rules[index]["id"], result["ruleId"]);
        assert!(result["message"]["text"].is_string());
        let location = &result["locations"][0]["physicalLocation"];
        assert_eq!(location["artifactLocation"]["uri"], "migrations/001-x/up.sql");
        for key in ["startLine", "startColumn", "endLine", "endColumn"] {
            assert!(location["region"][key].as_u64().unwrap() >= 1);
        }
    }
}

#[test]
fn files_that_cannot_be_read_are_told_as_everywhere() {
    let folder = Folder::new(&[("migrations/001-x/donw.sql", "")]);
    let said = folder.lint(2, &["--format", "json"]);
    let error: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (&error["event"], &error["code"]),
        (&Value::from("error"), &Value::from("BAD_MIGRATION"))
    );
}
