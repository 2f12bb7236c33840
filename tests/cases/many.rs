//! Many migrations.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::project::Project;

/// So many that what is done for each of them shows.
const MANY: usize = 300;

/// Looking at all of them and finding nothing to do takes less, even where two
/// slow processors are shared by everything.
const QUICK: Duration = Duration::from_secs(5);

#[test]
fn three_hundred_migrations_are_applied_and_sealed_in_both_stores() {
    let project = Project::new("many", &[]);
    for at in 1..=MANY {
        let folder = format!("{at:03}-m{at}");
        if at % 2 == 0 {
            project.write(&format!("{folder}/up.sql"), &format!("CREATE TABLE t{at} ();"));
            project.write(&format!("{folder}/down.sql"), &format!("DROP TABLE t{at};"));
        } else {
            let (up, down) = (
                format!("db.docs.insertOne({{ _id: {at} }});"),
                format!("db.docs.deleteOne({{ _id: {at} }});"),
            );
            project.write(&format!("{folder}/up.mongodb.js"), &up);
            project.write(&format!("{folder}/down.mongodb.js"), &down);
        }
    }
    project.ok(&["up"]);
    let history = project.database.history();
    assert_eq!(history.len(), MANY);
    for (at, row) in (1..).zip(&history) {
        assert_eq!((&row["version"], &row["rank"]), (&Value::from(at), &Value::from(at)));
        assert_eq!(row["status"], "completed");
        assert_ne!(row["finished_at"], Value::Null);
        assert_eq!(row["run_id"], history[0]["run_id"]);
    }
    assert_eq!(project.database.documents("docs").len(), MANY / 2);
    let tables = "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname ~ '^t[0-9]+$'";
    assert_eq!(project.database.value(tables), (MANY / 2).to_string());

    let begun = Instant::now();
    let ran = project.ok(&["up"]);
    assert!(ran.stderr.contains("nothing to do"), "{ran}");
    assert!(begun.elapsed() < QUICK, "{:?}", begun.elapsed());
    let status = project.ok(&["status", "--exit-code"]);
    assert_eq!(status.stdout.lines().filter(|line| line.starts_with(" ok ")).count(), MANY);

    project.ok(&["down", "--to", "290", "--yes"]);
    assert_eq!(project.database.history().len(), 290);
    project.ok(&["up"]);
    assert_eq!(project.database.history().len(), MANY);
    assert_eq!(project.database.documents("docs").len(), MANY / 2);
}
