//! Poolers, other sessions, roles and servers that do not let us.

use std::time::{Duration, Instant};

use crate::dump::dump;
use crate::foreign::Foreign;
use crate::killed::{check, undisturbed};
use crate::pooler::Pooler;
use crate::project::{Project, Running, seeded};
use crate::support::servers;
use crate::support::sql::{number, sql};
use crate::support::wait::until;

#[test]
fn behind_a_pooler_in_transaction_mode_everything_works() {
    let project = Project::usual();
    let database = seeded("pooler");
    let pooler = Pooler::new(&database.postgres_url);
    let url = pooler.url(&database);
    let ended = project.migrate_at(&url, &database.mongo_uri, &["up"]).succeeds();
    check(&database, &undisturbed().up, &ended);
    let down = ["down", "--to", "0", "--yes"];
    let ended = project.migrate_at(&url, &database.mongo_uri, &down).succeeds();
    check(&database, &undisturbed().down, &ended);
    // Five at once share three sessions.
    let start = |_| project.migrate_at(&url, &database.mongo_uri, &["up"]).start();
    let running: Vec<Running> = (0..5).map(start).collect();
    // One that looked too early may hold the lease for a moment: all end first.
    let ended: Vec<_> = running.into_iter().map(Running::wait).collect();
    for run in &ended {
        assert_eq!(run.code, Some(0), "{}", run.text);
    }
    check(&database, &undisturbed().again, &ended[0]);
}

#[test]
fn a_foreign_snapshot_delays_an_index_built_by_five_runners_and_nothing_more() {
    let project = Project::usual();
    let database = seeded("snapshot");
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM people";
    let foreign = Foreign::new(&database.postgres_url, begin);
    let start = |_| project.migrate(&database, &["up"]).start();
    let running: Vec<Running> = (0..5).map(start).collect();
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
         AND query LIKE 'CREATE INDEX CONCURRENTLY%' AND wait_event_type = 'Lock'";
    until("the build to wait", || number(&database.postgres_url, waits) == 1);
    foreign.end();
    // One that looked too early may hold the lease for a moment: all end first.
    let ended: Vec<_> = running.into_iter().map(Running::wait).collect();
    for run in &ended {
        assert_eq!(run.code, Some(0), "{}", run.text);
    }
    check(&database, &undisturbed().up, &ended[0]);
}

#[test]
fn while_an_alter_table_waits_for_a_table_reads_get_through() {
    let project = Project::of(&[("001-note/up.sql", "ALTER TABLE people ADD COLUMN note text;\n")]);
    let database = seeded("held_table");
    let foreign = Foreign::new(&database.postgres_url, "BEGIN; SELECT * FROM people LIMIT 1");
    let run = project.migrate(&database, &["up"]).start();
    let waits = "SELECT count(*) FROM pg_locks WHERE relation = 'people'::regclass AND NOT granted \
         AND mode = 'AccessExclusiveLock'";
    until("the ALTER TABLE to wait", || number(&database.postgres_url, waits) == 1);
    let began = Instant::now();
    assert_eq!(number(&database.postgres_url, "SELECT count(*) FROM people"), 50);
    // The try that was under way ends after 3 s, and lets the read through.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    until("another try", || number(&database.postgres_url, waits) == 1);
    foreign.end();
    let ended = run.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.text);
    let told = ["try 1 of 10", "AccessExclusiveLock on people", "idle in transaction", "next in"];
    for told in told {
        assert!(ended.text.contains(told), "{told}: {}", ended.text);
    }
    let columns = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'people'::regclass AND attname = 'note'";
    assert_eq!(number(&database.postgres_url, columns), 1);
}

#[test]
fn a_role_without_privileges_is_refused_and_nothing_is_left() {
    let project = Project::usual();
    let database = seeded("no_privileges");
    let before = dump(&database);
    let role = format!("role_{}", database.name);
    let create = format!("CREATE ROLE {role} LOGIN");
    sql(&servers().postgres_url, &create);
    let url = database.postgres_url.replacen("postgres@", &format!("{role}@"), 1);
    let ended = project.migrate_at(&url, &database.mongo_uri, &["up"]).run();
    assert_eq!(ended.code, Some(7), "{}", ended.text);
    assert!(ended.text.contains("permission denied"), "{}", ended.text);
    dump(&database).is(&before, &ended.text);
    let ended = project.migrate(&database, &["up"]).succeeds();
    check(&database, &undisturbed().up, &ended);
    sql(&servers().postgres_url, &format!("DROP ROLE {role}"));
}

#[test]
fn a_read_only_postgres_is_refused_and_nothing_is_left() {
    let project = Project::usual();
    let database = seeded("read_only");
    let before = dump(&database);
    let set = |value: &str| {
        let name = &database.name;
        let alter = format!("ALTER DATABASE {name} SET default_transaction_read_only = {value}");
        sql(&servers().postgres_url, &alter);
    };
    set("on");
    let ended = project.migrate(&database, &["up"]).run();
    assert_eq!(ended.code, Some(7), "{}", ended.text);
    assert!(ended.text.contains("read-only transaction"), "{}", ended.text);
    set("off");
    dump(&database).is(&before, &ended.text);
    let ended = project.migrate(&database, &["up"]).succeeds();
    check(&database, &undisturbed().up, &ended);
}
