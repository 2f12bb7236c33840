//! `baseline`, killed: the same command again finishes it, and `up` runs nothing of
//! what it was about to record.

use crate::count_up;
use crate::dump::{Dump, dump, dump_at};
use crate::members::Members;
use crate::project::{Project, seed, seeded};
use crate::support::Database;
use crate::time::leases_run_out_at;

const FILES: &[(&str, &str)] = &[
    ("001-a/up.mongodb.js", "db.people.updateMany({}, { $inc: { n: 1000 } });\n"),
    ("002-b/up.mongodb.js", "db.people.updateMany({}, { $inc: { n: 1000 } });\n"),
    ("003-c/up.mongodb.js", "db.people.updateMany({}, { $inc: { n: 1000 } });\n"),
    ("004-d/up.mongodb.js", "db.people.updateMany({}, { $inc: { n: 1 } });\n"),
];

/// As it is after an undisturbed baseline, and after `up` behind it.
struct Undisturbed {
    baseline: Dump,
    up: Dump,
}

#[test]
fn baseline_killed_at_every_failpoint_goes_on_and_up_runs_nothing_of_it() {
    let project = Project::usual();
    let undisturbed = {
        let database = seeded("baseline");
        project.migrate(&database, &["baseline", "2"]).succeeds();
        let baseline = dump(&database);
        project.migrate(&database, &["up"]).succeeds();
        Undisturbed { baseline, up: dump(&database) }
    };
    assert!(undisturbed.up.data.contains("people"), "there is something to compare");
    let trials = count_up(|failpoint| {
        let mut was_killed = true;
        // Finished by itself; and not finished, but gone on with.
        for again in [true, false] {
            let database = seeded("baseline_killed");
            let died = project.migrate(&database, &["baseline", "2"]).dying_at(failpoint).run();
            was_killed = died.was_killed();
            if !was_killed {
                assert_eq!(died.code, Some(0), "at {failpoint}: {}", died.text);
                break;
            }
            leases_run_out_at(&database.postgres_url, &database.mongo_uri);
            let recorded = {
                let status = project.migrate(&database, &["status"]).succeeds();
                status.text.contains("baseline")
            };
            if again {
                let last = project.migrate(&database, &["baseline", "2"]).succeeds();
                let mut found = dump(&database);
                if last.text.contains("nothing to do") {
                    found.left.clear();
                }
                found.is(&undisturbed.baseline, &died.text);
            }
            if again || recorded {
                let last = project.migrate(&database, &["up"]).succeeds();
                let found = dump(&database);
                let after = format!("{}\n{}", died.text, last.text);
                match again {
                    true => found.is(&undisturbed.up, &after),
                    // One store knows it, and that is enough for both.
                    false => assert_eq!(found.data, undisturbed.up.data, "{after}"),
                }
            }
        }
        was_killed
    });
    eprintln!("baseline was killed at {trials} failpoints");
    assert!(trials > 20, "{trials} failpoints");
}

/// Without transactions, a baseline may die between two of its records.
#[test]
fn baseline_killed_at_every_failpoint_of_a_standalone_mongodb_goes_on() {
    let server = Members::standalone();
    let project = Project::of(FILES);
    let both = |database: &Database| {
        let uri = server.uri(&database.name);
        (database.postgres_url.clone(), uri)
    };
    let undisturbed = {
        let database = Database::new("baseline_alone");
        let (postgres, mongo) = both(&database);
        seed(&postgres, &mongo);
        project.migrate_at(&postgres, &mongo, &["baseline", "3"]).succeeds();
        dump_at(&postgres, &mongo)
    };
    let trials = count_up(|failpoint| {
        let database = Database::new("baseline_alone");
        let (postgres, mongo) = both(&database);
        seed(&postgres, &mongo);
        let run = project.migrate_at(&postgres, &mongo, &["baseline", "3"]);
        let died = run.dying_at(failpoint).run();
        if !died.was_killed() {
            assert_eq!(died.code, Some(0), "at {failpoint}: {}", died.text);
            return false;
        }
        leases_run_out_at(&postgres, &mongo);
        let last = project.migrate_at(&postgres, &mongo, &["baseline", "3"]).succeeds();
        let mut found = dump_at(&postgres, &mongo);
        if last.text.contains("nothing to do") {
            found.left.clear();
        }
        found.is(&undisturbed, &died.text);
        true
    });
    eprintln!("baseline was killed at {trials} failpoints of a standalone MongoDB");
    assert!(trials > 20, "{trials} failpoints");
}
