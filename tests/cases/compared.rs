//! How old a comparison may be when a cleanup begins.

use crate::project::Project;

const MANIFEST: &str = "cleanup = 'hold'\n\
    [[invariant]]\n\
    name = 'the same'\n\
    compare = { postgres = 'SELECT id AS _id FROM t', mongo = { collection = 't' }, key = '_id' }\n";

#[test]
fn a_cleanup_refuses_a_comparison_that_is_too_old_when_it_begins() {
    let manifest = format!("{MANIFEST}max_age = '1ms'\n");
    let project = Project::new(
        "too-old",
        &[
            ("001-t/prepare.sql", "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)"),
            ("001-t/prepare.mongodb.js", "db.t.insertOne({ _id: 1 })"),
            ("001-t/migration.toml", &manifest),
            ("001-t/cleanup.sql", "DROP TABLE t"),
        ],
    );
    // What is asked in `validate` may be as old as it is: cleanup asks again.
    project.ok(&["up"]);
    let refused = project.fails(6, &["cleanup"]);
    let said = refused.said();
    assert!(said.contains("ok the same: 1 row the same"), "{said}");
    let expected = "the invariant `the same` does not hold: expected a comparison that began 1ms \
                    ago at most, found one that began ";
    assert!(said.contains(expected), "{said}");
    assert!(said.contains("raise the invariant's `max_age`"), "{said}");
    assert_eq!(project.database.sql("SELECT count(*) FROM t"), ["1"]);
}

/// The differences, for machines.
#[test]
fn the_event_has_every_difference() {
    let insert = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 30)";
    let project = Project::new(
        "differences",
        &[
            ("001-t/prepare.sql", insert),
            ("001-t/prepare.mongodb.js", "db.t.insertOne({ _id: 1, more: true })"),
            ("001-t/migration.toml", MANIFEST),
            ("001-t/cleanup.sql", "DROP TABLE t"),
        ],
    );
    let objects = project.json(6, &["up"]);
    let checked = objects.iter().find(|it| it["event"] == "invariant_checked").unwrap();
    assert_eq!(checked["found"], "30 differences in 30 rows");
    assert_eq!(checked["sample"].as_array().unwrap().len(), 20);
    let differences = checked["differences"].as_array().unwrap();
    assert_eq!(differences.len(), 30);
    let first = serde_json::json!({ "key": 1, "kind": "different", "fields": ["more"] });
    let second = serde_json::json!({ "key": 2, "kind": "missing_in_mongo", "fields": [] });
    assert_eq!(differences[..2], [first, second]);
    assert!(objects.iter().any(|it| it["event"] == "comparison_progress" && it["percent"] == 100));
}
