//! Histories that somebody changed by hand, in the ways in which people do. Each is
//! named for what it is, and mended by the one command that the message names; or
//! it is derived, and written again.

use bson::doc;

use crate::damaged::{FILES, applied, goes_on, healed_by_up, mended_by, refused, undisturbed};
use crate::databases::OURS;
use crate::project::Project;

const HAND: &str = "somebody changed the history by hand";

/// Deletes records of steps: `2/up/mongo/1`, in the store that its name says.
fn delete_records(project: &Project, steps: &[&str]) {
    for step in steps {
        let (version, name) = step.split_once('/').expect("a version and a name");
        match name.contains("/mongo/") {
            false => {
                let deleted = project.database.sql(&format!(
                    "DELETE FROM migration_steps WHERE version = {version} AND step = '{name}' RETURNING 1"
                ));
                assert!(!deleted.is_empty(), "{step}");
            }
            true => {
                let version: i64 = version.parse().unwrap();
                let deleted = project.database.run(doc! {
                    "delete": "migration_steps",
                    "deletes": [{ "q": { "version": version, "step": name }, "limit": 0 }],
                });
                assert!(deleted.get_i32("n").unwrap() > 0, "{step}");
            }
        }
    }
}

fn delete_rows(project: &Project, stores: &[&str], version: i64) {
    if stores.contains(&"postgres") {
        project.database.sql(&format!("DELETE FROM migration_history WHERE version = {version}"));
    }
    if stores.contains(&"mongo") {
        project.database.run(doc! {
            "delete": "migration_history", "deletes": [{ "q": { "_id": version }, "limit": 0 }],
        });
    }
}

/// Sets fields of documents.
fn set(project: &Project, collection: &str, query: bson::Document, set: bson::Document) {
    let updated = project.database.run(doc! {
        "update": collection, "updates": [{ "q": query, "u": { "$set": set }, "multi": true }],
    });
    assert!(updated.get_i32("nModified").unwrap() > 0, "{updated}");
}

#[test]
fn a_row_is_deleted() {
    let expected = undisturbed();
    for (stores, lacks) in [
        (&["postgres"][..], &["Postgres lacks the row of 002"][..]),
        (&["mongo"], &["MongoDB lacks the row of 002"]),
        (
            &["postgres", "mongo"],
            &["Postgres lacks the row of 002", "MongoDB lacks the row of 002"],
        ),
    ] {
        let project = applied("row_deleted", &[]);
        delete_rows(&project, stores, 2);
        healed_by_up(&project, "ROW_MISSING", lacks, &expected);
    }
}

#[test]
fn all_rows_are_deleted() {
    let project = applied("rows_deleted", &[]);
    for version in 1..=3 {
        delete_rows(&project, &["postgres", "mongo"], version);
    }
    healed_by_up(&project, "ROW_MISSING", &["lacks the row of 003"], &undisturbed());
}

/// The first, one in the middle, the last; in one store, in both.
#[test]
fn records_of_steps_are_deleted() {
    let expected = undisturbed();
    for (steps, lacks, command) in [
        (
            &["1/up/postgres/1"][..],
            "Postgres lacks step 001/up/postgres/1",
            "--mark-applied 001/up/postgres/1 --store postgres",
        ),
        (
            &["2/up/postgres/2"],
            "Postgres lacks step 002/up/postgres/2",
            "--mark-applied 002/up/postgres/2 --store postgres",
        ),
        (
            &["3/up/postgres/1"],
            "Postgres lacks step 003/up/postgres/1",
            "--mark-applied 003/up/postgres/1 --store postgres",
        ),
        (
            &["1/up/mongo/1"],
            "MongoDB lacks step 001/up/mongo/1",
            "--mark-applied 001/up/mongo/1 --store mongo",
        ),
        (
            &["2/up/mongo/2"],
            "MongoDB lacks step 002/up/mongo/2",
            "--mark-applied 002/up/mongo/2 --store mongo",
        ),
        (
            &["2/up/mongo/3"],
            "MongoDB lacks step 002/up/mongo/3",
            "--mark-applied 002/up/mongo/3 --store mongo",
        ),
        (
            &["2/up/postgres/1", "2/up/postgres/2", "2/up/postgres/3"],
            "Postgres lacks step 002/up/postgres/1",
            "--mark-applied all --store postgres",
        ),
        (
            &["1/up/mongo/2", "2/up/mongo/3"],
            "MongoDB lacks step 001/up/mongo/2",
            "--mark-applied all --store mongo",
        ),
        (
            &["1/up/postgres/1", "1/up/mongo/1"],
            "Postgres lacks step 001/up/postgres/1",
            "--mark-applied all",
        ),
        (
            &["2/up/postgres/2", "2/up/mongo/2"],
            "Postgres lacks step 002/up/postgres/2",
            "--mark-applied all",
        ),
        (
            &["2/up/postgres/3", "2/up/mongo/3"],
            "Postgres lacks step 002/up/postgres/3",
            "--mark-applied all",
        ),
        (
            &[
                "2/up/postgres/1",
                "2/up/postgres/2",
                "2/up/postgres/3",
                "2/up/mongo/1",
                "2/up/mongo/2",
                "2/up/mongo/3",
            ],
            "Postgres lacks step 002/up/postgres/1",
            "--mark-applied all",
        ),
    ] {
        let project = applied("records_deleted", &[]);
        delete_records(&project, steps);
        let next = refused(&project, "GAP", &[lacks, HAND]);
        mended_by(&project, &next, &format!("repair {command}"), &expected);
    }
}

/// Its effect went with it: what is lacking is run there.
#[test]
fn a_migration_is_undone_by_hand_with_its_records() {
    let project = applied("undone", &[]);
    delete_records(&project, &["2/up/postgres/1", "2/up/postgres/2", "2/up/postgres/3"]);
    project.database.sql("DROP TABLE orders");
    let next = refused(&project, "GAP", &["Postgres lacks step 002/up/postgres/1", HAND]);
    mended_by(&project, &next, "repair --replay postgres", &undisturbed());
}

/// Records and row of the newest migration: that looks like a restored backup, and
/// the message says what to do if it is not.
#[test]
fn a_migration_is_deleted_from_one_store_and_its_effect_is_there() {
    for (store, title) in [("postgres", "Postgres"), ("mongo", "MongoDB")] {
        let project = applied(&format!("erased_{store}"), &["--to", "2"]);
        let steps: Vec<String> = (1..=3).map(|at| format!("2/up/{store}/{at}")).collect();
        delete_records(&project, &steps.iter().map(String::as_str).collect::<Vec<_>>());
        delete_rows(&project, &[store], 2);
        let lacks = format!("{title} lacks step 002/up/{store}/1");
        let next = refused(&project, "GAP", &[&lacks, "only its records are gone"]);
        let command = format!("repair --mark-applied all --store {store}");
        mended_by(&project, &next, &command, &undisturbed());
    }
}

/// Of the step, or of its migration; in either table.
#[test]
fn a_checksum_is_changed() {
    let expected = undisturbed();
    let other = format!("sha256:{}", "0".repeat(64));
    for (store, field) in [
        ("Postgres", "checksum"),
        ("MongoDB", "checksum"),
        ("Postgres", "migration_checksum"),
        ("MongoDB", "migration_checksum"),
    ] {
        let project = applied("checksum", &[]);
        // That of the folder is read from its last step.
        let (version, step) = match store {
            "Postgres" => (3_i64, "up/postgres/1"),
            _ => (2, "up/mongo/3"),
        };
        match store {
            "Postgres" => drop(project.database.sql(&format!(
                "UPDATE migration_steps SET {field} = '{other}' WHERE version = {version} AND step = '{step}'"
            ))),
            _ => set(
                &project,
                "migration_steps",
                doc! { "version": version, "step": step },
                doc! { field: &other },
            ),
        }
        let says = format!(
            "the record of step 00{version}/{step} in {store} was changed by hand: its {field}"
        );
        let next = refused(&project, "RECORD_CHANGED", &[&says]);
        let command = format!("repair --accept-checksum 00{version}");
        mended_by(&project, &next, &command, &expected);
    }
    for stores in [&["postgres"][..], &["mongo"], &["postgres", "mongo"]] {
        let project = applied("row_checksum", &[]);
        if stores.contains(&"postgres") {
            project.database.sql(&format!(
                "UPDATE migration_history SET checksum = '{other}' WHERE version = 2"
            ));
        }
        if stores.contains(&"mongo") {
            let checksum = doc! { "checksum": &other };
            set(&project, "migration_history", doc! { "_id": 2_i64 }, checksum);
        }
        let says = "checksum in the row of 002 in migration_history in";
        healed_by_up(&project, "ROWS_DIFFER", &[says], &expected);
    }
}

/// Who applied it, when, as the how manieth: rows are for people, and both stores
/// say the same.
#[test]
fn a_field_of_a_row_is_changed() {
    let expected = undisturbed();
    for (field, value) in [("rank", "77"), ("description", "'nonsense'")] {
        let project = applied("row_changed", &[]);
        project
            .database
            .sql(&format!("UPDATE migration_history SET {field} = {value} WHERE version = 2"));
        let says = format!("{field} in the row of 002 in migration_history in ");
        if field == "rank" {
            healed_by_up(&project, "ROWS_DIFFER", &[&says], &expected);
        } else {
            let verify = project.fails(5, &["verify"]);
            assert!(verify.stdout.contains(&says), "{verify}");
            project.ok(&["up"]);
            project.ok(&["verify"]);
        }
    }
}

/// `completed` set to `running`: the records know better.
#[test]
fn a_status_is_set_back() {
    let expected = undisturbed();
    for stores in [&["postgres"][..], &["mongo"], &["postgres", "mongo"]] {
        let project = applied("set_back", &[]);
        if stores.contains(&"postgres") {
            project
                .database
                .sql("UPDATE migration_history SET status = 'running' WHERE version = 2");
        }
        if stores.contains(&"mongo") {
            let running = doc! { "status": "running" };
            set(&project, "migration_history", doc! { "_id": 2_i64 }, running);
        }
        let says = "says `running`, although all of its steps are applied";
        healed_by_up(&project, "ROWS_DIFFER", &[says], &expected);
    }
}

/// `running` set to `completed`, to get rid of a migration that failed: what it
/// lacks was done by hand, or it was not.
#[test]
fn a_status_is_set_to_completed() {
    let expected = undisturbed();
    for (stores, done) in [
        (&["postgres"][..], false),
        (&["mongo"], false),
        (&["postgres", "mongo"], false),
        (&["postgres"], true),
        (&["mongo"], true),
        (&["postgres", "mongo"], true),
    ] {
        let project = applied("completed", &["--to", "1"]);
        let (path, text) = FILES[6];
        project.write(path, &text.replace("{ $inc: { n: 1 } }", "{ $inc: { _id: 1 } }"));
        project.fails(1, &["up"]);
        project.write(path, text);
        if stores.contains(&"postgres") {
            project
                .database
                .sql("UPDATE migration_history SET status = 'completed' WHERE version = 2");
        }
        if stores.contains(&"mongo") {
            let completed = doc! { "status": "completed" };
            set(&project, "migration_history", doc! { "_id": 2_i64 }, completed);
        }
        let lacks = "MongoDB lacks step 002/up/mongo/3, although its migration is sealed as done";
        let next = refused(&project, "GAP", &[lacks]);
        if done {
            set(&project, "orders", doc! {}, doc! { "n": 6 });
            let command = "repair --mark-applied 002/up/mongo/3 --store mongo";
            mended_by(&project, &next, command, &expected);
        } else {
            mended_by(&project, &next, "repair --replay mongo", &expected);
        }
    }
}

/// The tables of one store are gone, and everything else in it is there.
#[test]
fn the_history_of_one_store_is_dropped() {
    let expected = undisturbed();
    for (store, title) in [("postgres", "Postgres"), ("mongo", "MongoDB")] {
        let project = applied(&format!("dropped_{store}"), &[]);
        for table in OURS {
            match store {
                "postgres" => drop(project.database.sql(&format!("DROP TABLE {table}"))),
                _ => drop(project.database.run(doc! { "drop": table })),
            }
        }
        let never = format!("this {title} was never used with it");
        let next = refused(&project, "PAIR_MISMATCH", &["has a migration history (pair ", &never]);
        let command = format!("repair --mark-applied all --store {store}");
        mended_by(&project, &next, &command, &expected);
    }
}

/// One of the five is gone.
#[test]
fn one_table_is_dropped() {
    let expected = undisturbed();
    for store in ["postgres", "mongo"] {
        let drop_table = |project: &Project, table: &str| match store {
            "postgres" => drop(project.database.sql(&format!("DROP TABLE {table}"))),
            _ => drop(project.database.run(doc! { "drop": table })),
        };
        let project = applied(&format!("no_steps_{store}"), &[]);
        drop_table(&project, "migration_steps");
        let next = refused(&project, "GAP", &["lacks step 001", HAND]);
        let command = format!("repair --mark-applied all --store {store}");
        mended_by(&project, &next, &command, &expected);

        drop_table(&project, "migration_history");
        healed_by_up(&project, "ROW_MISSING", &["lacks the row of 001"], &expected);

        drop_table(&project, "migration_control");
        let next = refused(&project, "PAIR_LOST", &["its row in migration_control is gone"]);
        mended_by(&project, &next, "repair --pair", &expected);

        // The audit log is nobody's evidence; it begins anew.
        drop_table(&project, "migration_runs");
        goes_on(&project, &expected);
        // Nor are rows that were put aside.
        drop_table(&project, "migration_rejects");
        goes_on(&project, &expected);
        project.ok(&["down", "--yes"]);
        project.ok(&["up"]);
    }
}

#[test]
fn a_row_of_migration_control_is_deleted() {
    let expected = undisturbed();
    for stores in [&["postgres"][..], &["mongo"], &["postgres", "mongo"]] {
        let project = applied("no_control", &[]);
        let fences = |project: &Project| {
            let control = project.database.documents("migration_control");
            let mongo = control.first().map(|it| it.get_i64("fence").unwrap());
            (project.database.sql("SELECT fence FROM migration_control"), mongo)
        };
        let before = fences(&project);
        if stores.contains(&"postgres") {
            project.database.sql("DELETE FROM migration_control");
        }
        if stores.contains(&"mongo") {
            project.database.run(doc! {
                "delete": "migration_control", "deletes": [{ "q": {}, "limit": 0 }],
            });
        }
        let next = refused(&project, "PAIR_LOST", &["its row in migration_control is gone"]);
        mended_by(&project, &next, "repair --pair", &expected);
        let after = fences(&project);
        assert!(after.0 > before.0 && after.1 > before.1, "no fence is given twice: {after:?}");
    }
}

/// A version that nobody has a file of, newer than all.
#[test]
fn a_row_of_an_unknown_version_is_inserted() {
    let expected = undisturbed();
    let insert = "INSERT INTO migration_history SELECT 99, 99, '099-x', '', checksum, 'completed', \
        executed_at, finished_at, 1, NULL, applied_by, NULL, tool_version, run_id \
        FROM migration_history WHERE version = 1";
    let project = applied("stray_row", &[]);
    project.database.sql(insert);
    let says = "migration_history in Postgres says that 099 is `completed`, of which no step";
    let next = refused(&project, "STRAY_ROW", &[says]);
    mended_by(&project, &next, "repair --mark-reverted 099", &expected);

    let mut row = project.database.documents("migration_history").remove(0);
    row.insert("_id", 99_i64);
    row.insert("version", 99_i64);
    project.database.run(doc! { "insert": "migration_history", "documents": [row] });
    let says = "migration_history in MongoDB says that 099 is `completed`, of which no step";
    let next = refused(&project, "STRAY_ROW", &[says]);
    mended_by(&project, &next, "repair --mark-reverted 099", &expected);
}

/// To skip a migration, people write its row.
#[test]
fn a_row_of_a_pending_migration_is_inserted() {
    let expected = undisturbed();
    for done in [false, true] {
        let project = applied("skipped", &["--to", "2"]);
        project.database.sql(
            "INSERT INTO migration_history SELECT 3, 3, '003-more', 'more', checksum, 'completed', \
             executed_at, finished_at, 1, NULL, applied_by, NULL, tool_version, run_id \
             FROM migration_history WHERE version = 1",
        );
        let lacks =
            "Postgres lacks step 003/up/postgres/1, although its row in migration_history says";
        let next = refused(&project, "GAP", &[lacks, HAND]);
        if done {
            project.database.sql("UPDATE users SET n = n + 100");
            let command = "repair --mark-applied 003/up/postgres/1 --store postgres";
            assert!(next.contains(&format!("`migrate {command}`")), "{next}");
            project.ok(&["repair", "--mark-applied", "003/up/postgres/1", "--yes"]);
            project.ok(&["up"]);
            project.ok(&["verify"]);
            assert_eq!(project.database.sql("SELECT n FROM users ORDER BY id"), ["102", "104"]);
        } else {
            let command = "repair --mark-reverted 003";
            mended_by(&project, &next, command, &expected);
        }
    }
}

/// A record of a version below the newest: it looks applied, and has no file.
#[test]
fn a_record_of_an_unknown_version_is_inserted() {
    let expected = undisturbed();
    let record = |version: i64| {
        format!(
            "INSERT INTO migration_steps SELECT {version}, step, attempt, event, 99, checksum, \
             migration_checksum, NULL, NULL, fence, run_id, now() \
             FROM migration_steps WHERE version = 3"
        )
    };
    let project = applied("stray_record", &[]);
    project.database.sql(&record(0));
    for command in ["up", "verify"] {
        let ran = project.fails(5, &[command]);
        assert!(
            ran.said().contains("000 is applied, but no longer in the migrations folder"),
            "{ran}"
        );
        assert!(ran.said().contains("`migrate repair --mark-reverted 000`"), "{ran}");
    }
    let status = project.ok(&["status"]);
    assert!(status.stdout.contains("1 missing"), "{status}");
    project.ok(&["repair", "--mark-reverted", "000", "--yes"]);
    project.ok(&["verify"]);
    goes_on(&project, &expected);

    // Above all files it is as if a newer release had been here, but for its row.
    let project = applied("stray_newer", &[]);
    project.database.sql(&record(99));
    let up = project.ok(&["up"]);
    assert!(up.stderr.contains("a newer release applied 099"), "{up}");
    let verify = project.fails(5, &["verify"]);
    assert!(verify.stdout.contains("lacks the row of 099"), "{verify}");
    assert!(verify.stdout.contains("`migrate repair --mark-reverted 099`"), "{verify}");
    project.ok(&["repair", "--mark-reverted", "099", "--yes"]);
    goes_on(&project, &expected);
}

#[test]
fn a_record_cannot_be_read() {
    let expected = undisturbed();
    for (sql, says) in [
        ("checksum = 'nonsense'", "nonsense"),
        ("step = 'up/oracle/1'", "`up/oracle/1` is not a step name"),
        ("attempt = -1", "(002, up/postgres/1, -1, applied)"),
        ("rank = -1", "(002, up/postgres/1, 1, applied)"),
        ("version = -2", "version -2"),
    ] {
        let project = applied("garbage", &[]);
        project.database.sql(&format!(
            "UPDATE migration_steps SET {sql} WHERE version = 2 AND step = 'up/postgres/1'"
        ));
        let reads = "the history in Postgres cannot be read: ";
        let next = refused(&project, "HISTORY_CORRUPT", &[reads, says]);
        mended_by(&project, &next, "repair --mark-applied all --store postgres", &expected);
    }
    for (field, value) in [
        ("event", bson::Bson::from("perhaps")),
        ("step", bson::Bson::Null),
        ("rank", bson::Bson::from("two")),
        ("version", bson::Bson::from("two")),
        ("checksum", bson::Bson::from("sha256:")),
    ] {
        let project = applied("garbage_mongo", &[]);
        let first = doc! { "version": 2_i64, "step": "up/mongo/1" };
        set(&project, "migration_steps", first, doc! { field: value });
        let reads = "the history in MongoDB cannot be read: migration_steps";
        let next = refused(&project, "HISTORY_CORRUPT", &[reads, field]);
        mended_by(&project, &next, "repair --mark-applied all --store mongo", &expected);
    }
}

/// A row is derived: one that cannot be read is written again.
#[test]
fn a_row_cannot_be_read() {
    let expected = undisturbed();
    let project = applied("garbage_row", &[]);
    project.database.sql("UPDATE migration_history SET checksum = 'nonsense' WHERE version = 2");
    let reads = "the history in Postgres cannot be read: migration_history (002)";
    healed_by_up(&project, "HISTORY_CORRUPT", &[reads], &expected);

    set(&project, "migration_history", doc! { "_id": 1_i64 }, doc! { "status": "dirty" });
    let reads = "the history in MongoDB cannot be read: migration_history 1: status";
    healed_by_up(&project, "HISTORY_CORRUPT", &[reads], &expected);

    // Of no migration that there is.
    let stray = doc! { "_id": "nonsense" };
    project.database.run(doc! { "insert": "migration_history", "documents": [stray] });
    let next = refused(&project, "HISTORY_CORRUPT", &["migration_history \"nonsense\""]);
    mended_by(&project, &next, "repair --mark-applied all --store mongo", &expected);
}

/// A step that can only be recorded with its effect is recorded as begun.
#[test]
fn a_record_is_set_back_to_started() {
    let objects = applied("torn_other", &[]).database.objects();
    for is_there in [true, false] {
        let project = applied("torn", &["--to", "2"]);
        project.ok(&["up"]);
        project.database.sql("UPDATE migration_steps SET event = 'started' WHERE version = 3");
        delete_rows(&project, &["postgres", "mongo"], 3);
        if !is_there {
            project.database.sql("UPDATE users SET n = n - 100");
        }
        let next = refused(&project, "TORN", &["step 003/up/postgres/1 is recorded as started"]);
        let command = match is_there {
            true => "repair --mark-applied 003/up/postgres/1",
            false => "repair --mark-reverted 003/up/postgres/1",
        };
        assert!(next.contains(&format!("`migrate {command}`")), "{next}");
        let arguments: Vec<&str> = command.split_whitespace().collect();
        project.ok(&[&arguments[..], &["--yes"]].concat());
        project.ok(&["up"]);
        project.ok(&["verify"]);
        assert_eq!(project.database.sql("SELECT n FROM users ORDER BY id"), ["102", "104"]);
        assert_eq!(project.database.objects(), objects);
    }
}
