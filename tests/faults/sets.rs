//! MongoDB as it is found elsewhere: three members whose primary changes in the
//! middle of a run, a set without a majority, a server alone.

use rustix::process::Signal;

use crate::count_up;
use crate::dump::{Dump, dump_at};
use crate::killed::undisturbed;
use crate::members::Members;
use crate::project::{Ended, Project, seed};
use crate::support::Database;
use crate::support::wait::until;
use crate::time::leases_run_out_at;

/// Whether both stores are as expected; the lease of a run that could not give it
/// back stays where nobody needed it.
#[track_caller]
fn check(postgres: &str, mongo: &str, expected: &Dump, last: &Ended, first: &Ended) {
    let mut found = dump_at(postgres, mongo);
    if last.text.contains("nothing to do") {
        found.left.clear();
    }
    found.is(expected, &format!("{}\nafter {}", last.text, first.text));
}

#[test]
#[ignore = "minutes: scripts/test --faults"]
fn the_primary_of_three_steps_down_in_the_middle_of_a_run() {
    let set = Members::three();
    let project = Project::usual();
    let mut trials = 0;
    let mut finished = 0;
    for failpoint in (8..86).step_by(7) {
        let database = Database::new("step_down");
        let (postgres, mongo) = (&database.postgres_url, set.uri(&database.name));
        seed(postgres, &mongo);
        let run = project.migrate_at(postgres, &mongo, &["up"]).stopping_at(failpoint).start();
        until("the run to stop", || run.is_stopped());
        set.step_down();
        run.signal(Signal::CONT);
        let first = run.wait();
        assert!(
            matches!(first.code, Some(0 | 7)),
            "at {failpoint}: {:?} {}",
            first.code,
            first.text
        );
        finished += usize::from(first.code == Some(0));
        leases_run_out_at(postgres, &mongo);
        let again = project.migrate_at(postgres, &mongo, &["up"]).succeeds();
        check(postgres, &mongo, &undisturbed().up, &again, &first);
        trials += 1;
    }
    eprintln!("the primary stepped down at {trials} failpoints; {finished} runs came to their end");
}

/// Kills both members that are not the primary, and waits until it gives up.
fn lose_majority(set: &mut Members) -> [usize; 2] {
    let primary = set.wait_for_primary();
    let others = [(primary + 1) % 3, (primary + 2) % 3];
    for at in others {
        set.kill_member(at);
    }
    until("the primary to give up", || set.primary().is_none());
    others
}

fn mend(set: &mut Members, lost: [usize; 2]) {
    for at in lost {
        set.start_member(at);
    }
    set.wait_for_primary();
}

#[test]
#[ignore = "minutes: scripts/test --faults"]
fn without_a_majority_nothing_is_done_and_with_it_again_everything() {
    let mut set = Members::three();
    let project = Project::usual();

    let database = Database::new("no_majority");
    let (postgres, mongo) = (&database.postgres_url, set.uri(&database.name));
    seed(postgres, &mongo);
    let lost = lose_majority(&mut set);
    let first = project.migrate_at(postgres, &mongo, &["up"]).run();
    assert_eq!(first.code, Some(7), "{}", first.text);
    mend(&mut set, lost);
    dump_at(postgres, &mongo).is(&undisturbed().begin, &first.text);
    let again = project.migrate_at(postgres, &mongo, &["up"]).succeeds();
    check(postgres, &mongo, &undisturbed().up, &again, &first);

    let failpoints = [14, 30, 45, 60, 75];
    for failpoint in failpoints {
        let database = Database::new("majority_lost");
        let (postgres, mongo) = (&database.postgres_url, set.uri(&database.name));
        seed(postgres, &mongo);
        let run = project.migrate_at(postgres, &mongo, &["up"]).stopping_at(failpoint).start();
        until("the run to stop", || run.is_stopped());
        let lost = lose_majority(&mut set);
        run.signal(Signal::CONT);
        let first = run.wait();
        // 4: its lease ran out before it gave up.
        assert!(matches!(first.code, Some(4 | 7)), "at {failpoint}: {}", first.text);
        mend(&mut set, lost);
        leases_run_out_at(postgres, &mongo);
        let again = project.migrate_at(postgres, &mongo, &["up"]).succeeds();
        check(postgres, &mongo, &undisturbed().up, &again, &first);
    }
    eprintln!("the majority was lost before a run, and at {} failpoints", failpoints.len());
}

/// What a server without transactions can go on with after any crash.
const FOR_STANDALONE: &[(&str, &str)] = &[
    (
        "001-counters/up.sql",
        "CREATE TABLE counters (id integer PRIMARY KEY, n bigint NOT NULL);
UPDATE people SET n = n + 1;
",
    ),
    (
        "001-counters/up.mongodb.js",
        r#"db.createCollection("counters");
db.counters.insertMany([{ _id: 1, n: 1 }, { _id: 2, n: 2 }]);
db.counters.updateMany({}, { $set: { kind: "tally" } });
db.counters.createIndex({ n: 1 }, { name: "by_n" });
"#,
    ),
    ("002-renamed/up.sql", "UPDATE people SET n = n * 2;\n"),
    (
        "002-renamed/up.mongodb.js",
        r#"db.counters.renameCollection("tallies");
db.tallies.deleteMany({ n: 2 });
"#,
    ),
];

#[test]
fn up_killed_at_every_failpoint_of_a_standalone_mongodb_goes_on() {
    let server = Members::standalone();
    let project = Project::of(FOR_STANDALONE);
    let place = || {
        let database = Database::new("standalone");
        let mongo = server.uri(&database.name);
        seed(&database.postgres_url, &mongo);
        (database, mongo)
    };
    let (database, mongo) = place();
    project.migrate_at(&database.postgres_url, &mongo, &["up"]).succeeds();
    let whole = dump_at(&database.postgres_url, &mongo);
    let trials = count_up(|failpoint| {
        let (database, mongo) = place();
        let postgres = &database.postgres_url;
        let first = project.migrate_at(postgres, &mongo, &["up"]).dying_at(failpoint).run();
        if !first.was_killed() {
            assert_eq!(first.code, Some(0), "at {failpoint}: {}", first.text);
            return false;
        }
        leases_run_out_at(postgres, &mongo);
        let again = project.migrate_at(postgres, &mongo, &["up"]).succeeds();
        check(postgres, &mongo, &whole, &again, &first);
        true
    });
    eprintln!("up was killed at {trials} failpoints of a standalone MongoDB");
    assert!(trials > 30, "{trials} failpoints");
}
