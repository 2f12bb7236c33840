//! One store is restored from an older backup, and the other is not. What it lacks
//! is named, and run again there, and only there.

use crate::damaged::{Backup, applied, end, goes_on, mended_by, refused, undisturbed};
use crate::damaged::{End, FILES};
use crate::project::Project;

fn backup(project: &Project, store: &str) -> Backup {
    match store {
        "postgres" => Backup::of_postgres(project),
        _ => Backup::of_mongo(project),
    }
}

const STORES: [(&str, &str); 2] = [("postgres", "Postgres"), ("mongo", "MongoDB")];

/// Backups of either store after each migration, and before the first.
#[test]
fn a_store_that_is_some_migrations_behind() {
    let expected = undisturbed();
    for (store, title) in STORES {
        let project = Project::new(&format!("behind_{store}"), &FILES);
        let none = backup(&project, store);
        project.ok(&["up", "--to", "1"]);
        let one = backup_again(&project, store);
        project.ok(&["up"]);

        one.restore(&project);
        let lacks =
            format!("{title} lacks step 002/up/{store}/1, although its migration is sealed");
        let next = refused(&project, "GAP", &[&lacks, "a restored backup does"]);
        mended_by(&project, &next, &format!("repair --replay {store}"), &expected);

        none.restore(&project);
        let never = format!("but this {title} was never used with it");
        let next = refused(&project, "PAIR_MISMATCH", &["has a migration history", &never]);
        mended_by(&project, &next, &format!("repair --replay {store}"), &expected);
    }
}

/// A second backup beside the first.
fn backup_again(project: &Project, store: &str) -> Backup {
    match store {
        "postgres" => Backup::of_postgres_as(project, "again"),
        _ => Backup::of_mongo(project),
    }
}

/// A store with no part in the newest migration lacks nothing but its row, which is
/// derived.
#[test]
fn a_store_that_lacks_only_rows_is_written_again() {
    let project = applied("rows_behind", &["--to", "2"]);
    let mongo = backup(&project, "mongo");
    project.ok(&["up"]);
    mongo.restore(&project);
    crate::damaged::healed_by_up(
        &project,
        "ROW_MISSING",
        &["MongoDB lacks the row of 003"],
        &undisturbed(),
    );
}

/// In the middle of a migration of which some steps are applied.
#[test]
fn a_store_is_restored_in_the_middle_of_a_migration() {
    let expected = undisturbed();
    for (store, _) in STORES {
        let project = applied(&format!("middle_{store}"), &["--to", "1"]);
        let before = backup(&project, store);
        let (path, text) = FILES[6];
        project.write(path, &text.replace("{ $inc: { n: 1 } }", "{ $inc: { _id: 1 } }"));
        project.fails(1, &["up"]);
        project.write(path, text);
        before.restore(&project);
        if store == "postgres" {
            let lacks =
                "Postgres lacks step 002/up/postgres/1, although the later step 002/up/mongo/";
            let next = refused(&project, "GAP", &[lacks]);
            let next = mended_only(&project, &next, "repair --replay postgres");
            assert!(next.stderr.contains("up/postgres/1"), "{next}");
            // It was open, and it still is.
            let status = &project.json(3, &["status", "--exit-code"])[0];
            assert_eq!(status["migrations"][1]["state"], "partial", "{status:#}");
        }
        // What MongoDB lost came last: that is a run that died before it.
        goes_on(&project, &expected);
    }
}

fn mended_only(project: &Project, next: &str, command: &str) -> crate::project::Ran {
    assert!(next.contains(&format!("`migrate {command}`")), "{next}");
    let ran = crate::damaged::ran(project, &format!("{command} --yes"));
    assert_eq!(ran.code, 0, "{ran}");
    project.ok(&["verify"]);
    ran
}

/// The backup knows a migration that was reverted since.
#[test]
fn a_store_is_restored_to_before_a_down() {
    let reverted = {
        let project = applied("after_down", &[]);
        project.ok(&["down", "--to", "1", "--yes"]);
        end(&project)
    };
    let expected = again();
    for (store, title) in STORES {
        let project = applied(&format!("before_down_{store}"), &["--to", "2"]);
        let before = backup(&project, store);
        project.ok(&["down", "--yes"]);
        before.restore(&project);
        let lacks = format!("{title} lacks step 002/down/{store}/1, although");
        let next = refused(&project, "GAP", &[&lacks, "was reverted", "a restored backup does"]);
        mended_only(&project, &next, &format!("repair --replay {store}"));
        assert_eq!(end(&project), reverted, "{store}");
        goes_on(&project, &expected);
    }
}

/// The backup was made between a down and the up after it.
#[test]
fn a_store_is_restored_to_after_a_down() {
    let expected = again();
    for (store, title) in STORES {
        let project = applied(&format!("after_down_{store}"), &["--to", "2"]);
        project.ok(&["down", "--yes"]);
        let between = backup(&project, store);
        project.ok(&["up"]);
        between.restore(&project);
        let lacks = format!("{title} lacks step 002/up/{store}/1, although");
        let next = refused(&project, "GAP", &[&lacks, "a restored backup does"]);
        mended_by(&project, &next, &format!("repair --replay {store}"), &expected);
    }
}

/// The end of a history in which 002 was applied twice.
fn again() -> End {
    let project = applied("again", &["--to", "2"]);
    project.ok(&["down", "--yes"]);
    project.ok(&["up"]);
    end(&project)
}

/// An accepted edit does not hide that the store has lost the migration.
#[test]
fn a_store_is_restored_to_before_a_migration_whose_edit_was_accepted() {
    for (store, title) in STORES {
        let project = applied(&format!("accepted_{store}"), &["--to", "1"]);
        let before = backup(&project, store);
        project.ok(&["up"]);
        let (path, text) = FILES[5];
        project.write(path, &format!("-- gone\n{text}"));
        project.ok(&["repair", "--accept-checksum", "2", "--yes"]);
        let expected = end(&project);
        before.restore(&project);
        let lacks = format!("{title} lacks step 002/up/{store}/1, although");
        let next = refused(&project, "GAP", &[&lacks]);
        mended_by(&project, &next, &format!("repair --replay {store}"), &expected);
    }
}

/// The Postgres of one environment with the MongoDB of another: refused, whichever
/// way round, and neither is touched.
#[test]
fn pairs_that_are_crossed_are_refused() {
    let production = applied("production", &[]);
    let staging = applied("staging", &["--to", "2"]);
    let fresh = Project::new("fresh", &FILES);
    let crossed = |mine: &Project, other: &Project, code: &str, says: &str| {
        for way in ["--postgres", "--mongo"] {
            let url = match way {
                "--postgres" => &other.database.postgres_url,
                _ => &other.database.mongo_uri,
            };
            for command in ["up", "status", "verify"] {
                let ran = mine.fails(5, &[command, way, url]);
                assert!(ran.said().contains(says), "{ran}");
                assert!(ran.said().contains("check both URLs"), "{ran}");
            }
            let error = mine.json(5, &["up", way, url]).pop().unwrap();
            assert_eq!(error["error"]["code"], code);
        }
    };
    let before = (end(&production), end(&staging));
    crossed(&production, &staging, "PAIR_MISMATCH", "do not belong together");
    crossed(&staging, &production, "PAIR_MISMATCH", "do not belong together");
    crossed(&production, &fresh, "PAIR_MISMATCH", "was never used with it");
    crossed(&fresh, &production, "PAIR_MISMATCH", "was never used with it");
    assert_eq!((end(&production), end(&staging)), before);
    assert_eq!(fresh.database.ours(), Vec::<String>::new(), "nothing was created");
    goes_on(&production, &before.0);
}

/// A copy of one store is to be the other half from now on.
#[test]
fn a_pair_can_be_made_on_purpose() {
    let expected = undisturbed();
    let one = applied("one", &[]);
    let other = applied("other", &[]);
    Backup::of_postgres(&other).restore(&one);
    let next = refused(&one, "PAIR_MISMATCH", &["do not belong together"]);
    assert!(next.contains("`migrate repair --pair`"), "{next}");
    one.fails(9, &["repair", "--pair"]);
    one.ok(&["repair", "--pair", "--yes", "--reason", "merged"]);
    // Who ran it, and when, was another story in each.
    one.ok(&["verify"]);
    goes_on(&one, &expected);
}
