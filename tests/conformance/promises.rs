//! What holds of every store.

use crate::subject::{
    Subject, fate, leased, outcome, record, record_of, rollback, row, row_of, run, settle, take,
};
use futures_util::future::join_all;
use lockstep::core::history::{Entry, Event, RowStatus, Snapshot, Table, Timestamp};
use lockstep::core::id::Version;
use lockstep::core::migration::Rollback;
use lockstep::store::LEASE_TERM;
use lockstep::store::{Fate, Heart, Holds, Lease, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub async fn reading_a_virgin_database_answers_empty_and_creates_nothing<S: Subject>() {
    let world = S::new().await;
    let mut store = world.open("a").await;
    assert_eq!(store.read().await.unwrap(), Snapshot::default());
    assert_eq!(store.rollbacks(&[Version(1)]).await.unwrap(), BTreeMap::new());
    assert_eq!(world.tables().await, BTreeMap::new());
}

pub async fn founding_creates_the_documented_tables_and_nothing_else<S: Subject>() {
    let world = S::new().await;
    let mut store = leased(&world, "a").await;
    store.append(&[record(1, Event::Started), row(1)]).await.unwrap();
    let documented = [
        ("migration_control", "pair fence holder expires_at paused reason speed"),
        (
            "migration_history",
            "version rank migration_name description checksum status executed_at finished_at \
             execution_time_ms rollback_script applied_by release tool_version run_id",
        ),
        (
            "migration_runs",
            "run_id command started_by pid started_at finished_at from_version to_version release \
             fence writes outcome error reason tool_version",
        ),
        (
            "migration_steps",
            "version step attempt event rank checksum migration_checksum cursor rows fence run_id \
             recorded_at",
        ),
    ];
    let documented: BTreeMap<String, BTreeSet<String>> = documented
        .into_iter()
        .map(|(table, fields)| {
            (table.to_owned(), fields.split_whitespace().map(str::to_owned).collect())
        })
        .collect();
    let mut tables = world.tables().await;
    // What it has is looked at where rows are put aside.
    assert!(tables.remove("migration_rejects").is_some());
    assert_eq!(tables, documented);
}

pub async fn founding_again_changes_nothing_and_keeps_the_first_pair<S: Subject>() {
    let world = S::new().await;
    let mut store = world.open("a").await;
    assert_eq!(store.found("first").await.unwrap(), "first");
    let mut other = world.open("b").await;
    assert_eq!(other.found("second").await.unwrap(), "first");
    assert_eq!(store.found("third").await.unwrap(), "first");
    assert_eq!(store.read().await.unwrap().pair.as_deref(), Some("first"));
}

pub async fn twenty_founders_at_once_agree_on_one_pair<S: Subject>() {
    let world = S::new().await;
    let mut stores = Vec::new();
    for at in 0..20 {
        stores.push(world.open(&format!("run-{at}")).await);
    }
    let pairs = join_all(
        stores
            .iter_mut()
            .enumerate()
            .map(async |(at, store)| store.found(&format!("pair-{at}")).await.unwrap()),
    )
    .await;
    let kept = stores[0].read().await.unwrap().pair.unwrap();
    assert!(pairs.iter().all(|pair| *pair == kept), "{kept}: {pairs:?}");
}

pub async fn a_free_lease_is_ours_and_its_fence_grows<S: Subject>() {
    let world = S::new().await;
    let mut last = 0;
    for id in ["a", "b", "c"] {
        let mut store = world.open(id).await;
        store.found("pair").await.unwrap();
        let Lease::Ours { fence, died } = store.acquire(&run(id)).await.unwrap() else {
            panic!("it is free");
        };
        assert!(fence > last, "{fence} after {last}");
        assert_eq!(died, None);
        let lease = store.read().await.unwrap().lease.unwrap();
        assert_eq!((lease.run_id.as_str(), lease.holder.as_str()), (id, "ada@bücher-1, pid 4711"));
        store.release(&outcome("ok")).await.unwrap();
        assert_eq!(store.read().await.unwrap().lease, None);
        last = fence;
    }
}

pub async fn a_lease_that_is_held_names_its_holder_and_how_long_it_lasts<S: Subject>() {
    let world = S::new().await;
    let _first = leased(&world, "a").await;
    let mut second = world.open("b").await;
    let Lease::Held { holder, left } = second.acquire(&run("b")).await.unwrap() else {
        panic!("it is not to be had");
    };
    assert_eq!(
        (holder.host.as_str(), holder.pid, holder.user.as_str(), holder.run_id.as_str()),
        ("bücher-1", 4711, "ada", "a")
    );
    let since = chrono::DateTime::parse_from_rfc3339(&holder.since).unwrap();
    let ago = chrono::Utc::now().signed_duration_since(since);
    assert!(ago.num_seconds().abs() < 30, "{ago}");
    assert!(left <= LEASE_TERM && left > LEASE_TERM / 2, "{left:?}");
    assert_eq!(world.runs().await.len(), 1, "who did not get it has no row");
}

pub async fn a_lease_that_ran_out_is_ours_and_names_who_died<S: Subject>() {
    let world = S::new().await;
    let mut first = leased(&world, "a").await;
    world.expire().await;
    assert_eq!(first.read().await.unwrap().lease, None, "nobody holds it");
    let mut second = world.open("b").await;
    let Lease::Ours { died, .. } = second.acquire(&run("b")).await.unwrap() else {
        panic!("it ran out");
    };
    assert_eq!(died.as_deref(), Some("a"));
    let dead = world.runs().await.into_iter().find(|run| run.run_id == "a").unwrap();
    assert_eq!(dead.outcome, "died");
    assert!(dead.finished_at.is_some());
}

pub async fn of_twenty_at_once_exactly_one_gets_the_lease<S: Subject>() {
    let world = S::new().await;
    let mut stores = Vec::new();
    for at in 0..20 {
        stores.push(world.open(&format!("run-{at}")).await);
    }
    stores[0].found("pair").await.unwrap();
    for round in ["free", "run out"] {
        let leases = join_all(
            stores
                .iter_mut()
                .enumerate()
                .map(async |(at, store)| store.acquire(&run(&format!("run-{at}"))).await.unwrap()),
        )
        .await;
        let ours = leases.iter().filter(|lease| matches!(lease, Lease::Ours { .. })).count();
        assert_eq!(ours, 1, "{round}: {leases:?}");
        world.expire().await;
    }
}

pub async fn a_run_begins_and_ends_its_row<S: Subject>() {
    let world = S::new().await;
    let mut store = leased(&world, "a").await;
    let runs = world.runs().await;
    let [begun] = runs.as_slice() else { panic!("{runs:?}") };
    assert_eq!((begun.run_id.as_str(), begun.command.as_str()), ("a", "up"));
    assert_eq!(begun.started_by, "ada@bücher-1");
    assert_eq!(begun.release.as_deref(), Some("v1.2 \"beta\""));
    assert_eq!((begun.from_version, begun.to_version), (Some(Version(7)), None));
    assert_eq!((begun.outcome.as_str(), begun.finished_at), ("running", None));

    let mut end = outcome("failed");
    end.error = Some("it is 🔥".to_owned());
    store.release(&end).await.unwrap();
    let runs = world.runs().await;
    let [ended] = runs.as_slice() else { panic!("{runs:?}") };
    assert_eq!(ended.outcome, "failed");
    assert_eq!(ended.error.as_deref(), Some("it is 🔥"));
    assert_eq!(ended.to_version, Some(Version(8)));
    assert!(ended.finished_at.unwrap() >= ended.started_at);
}

pub async fn a_run_that_comes_back_begins_its_row_anew<S: Subject>() {
    let world = S::new().await;
    let mut store = leased(&world, "a").await;
    let mut end = outcome("locked");
    end.error = Some("the other store is held".to_owned());
    store.release(&end).await.unwrap();
    take(&mut store, "a").await;
    let runs = world.runs().await;
    let [again] = runs.as_slice() else { panic!("{runs:?}") };
    assert_eq!(again.outcome, "running");
    assert_eq!((again.finished_at, &again.error, again.to_version), (None, &None, None));
    store.append(&[record(1, Event::Started)]).await.unwrap();
}

pub async fn a_run_that_lost_its_lease_can_write_nothing<S: Subject>() {
    let world = S::new().await;
    let mut old = leased(&world, "a").await;
    world.expire().await;
    let mut new = world.open("b").await;
    take(&mut new, "b").await;

    assert_eq!(fate(Store::check_lease(&mut old).await), Fate::Fenced);
    Store::check_lease(&mut new).await.unwrap();
    let entries = [record(1, Event::Started), row(1)];
    assert_eq!(fate(old.append(&entries).await), Fate::Fenced);
    assert_eq!(fate(old.append(&[Entry::RowGone(Version(1))]).await), Fate::Fenced);
    assert_eq!(fate(old.commit(&world.mark("old"), &entries).await), Fate::Fenced);
    let step = world.journaled("thing");
    assert_eq!(fate(old.perform(&step).await), Fate::Fenced);
    assert_eq!(new.holds(&step).await.unwrap(), Holds::No);

    assert_eq!(world.marks().await, [""; 0]);
    let seen = new.read().await.unwrap();
    assert_eq!((seen.records, seen.rows), (vec![], vec![]));
    new.commit(&world.mark("new"), &entries).await.unwrap();
    assert_eq!(world.marks().await, ["new"]);
}

pub async fn giving_back_a_lost_lease_is_harmless<S: Subject>() {
    let world = S::new().await;
    let mut never = world.open("never").await;
    never.release(&outcome("ok")).await.unwrap();
    assert_eq!(world.tables().await, BTreeMap::new());

    let mut old = leased(&world, "a").await;
    world.expire().await;
    let mut new = world.open("b").await;
    take(&mut new, "b").await;
    old.release(&outcome("ok")).await.unwrap();
    assert_eq!(new.read().await.unwrap().lease.unwrap().run_id, "b");
    let outcomes: BTreeMap<_, _> =
        world.runs().await.into_iter().map(|run| (run.run_id, run.outcome)).collect();
    assert_eq!((outcomes["a"].as_str(), outcomes["b"].as_str()), ("died", "running"));
    new.append(&[row(1)]).await.unwrap();
}

pub async fn a_heartbeat_makes_the_lease_last_and_says_when_it_is_lost<S: Subject>() {
    let world = S::new().await;
    let mut old = leased(&world, "a").await;
    let mut heart = old.heart().await.unwrap();
    world.expire().await;
    assert_eq!(world.left().await, Duration::ZERO);
    heart.beat().await.unwrap();
    assert!(world.left().await > LEASE_TERM / 2, "nobody took it: it is ours again");

    world.expire().await;
    let mut new = world.open("b").await;
    take(&mut new, "b").await;
    assert_eq!(fate(heart.beat().await), Fate::Fenced);
    let mut second = new.heart().await.unwrap();
    second.beat().await.unwrap();
    new.release(&outcome("ok")).await.unwrap();
    assert_eq!(fate(second.beat().await), Fate::Fenced, "what was given back is not kept alive");
    assert_eq!(new.read().await.unwrap().lease, None);
}

pub async fn what_is_written_reads_back_equal<S: Subject>() {
    let world = S::new().await;
    let mut store = leased(&world, "a").await;
    let long = "ein langer Text mit \"Zeichen\" \\ 'aller' Art\n\t☃🦀 ".repeat(2000);
    let mut rows = vec![row_of(1)];
    for (version, at) in [
        (2, 0),
        (3, -1),
        (4, -62_135_596_799_999),
        (5, 999),
        (6, 1_700_000_000_001),
        (7, 253_402_300_799_999),
    ] {
        let mut row = row_of(version);
        row.executed_at = Timestamp(at);
        row.finished_at = Some(Timestamp(at));
        rows.push(row);
    }
    for (at, status) in RowStatus::ALL.into_iter().enumerate() {
        let mut row = row_of(999_999_999_999_999_990 + at as u64);
        row.rank = i32::MAX.unsigned_abs();
        row.status = status;
        row.migration_name.clone_from(&long);
        row.description.clone_from(&long);
        row.applied_by = String::from("名前@host");
        row.release = Some(String::new());
        row.tool_version = String::from("$1 {} %s");
        row.run_id = String::from("$set");
        row.execution_time_ms = i64::MAX.unsigned_abs();
        rows.push(row);
    }
    let full = Rollback {
        format: 1,
        scripts: BTreeMap::from([
            ("down.sql".to_owned(), long.clone()),
            ("prepare.down.mongodb.js".to_owned(), "db.a.drop() // $oid".to_owned()),
        ]),
        order: vec!["mongo".to_owned(), "postgres".to_owned()],
        transaction: false,
        has_cleanup: true,
        manifest: Some("[[run]]\ncommand = ['a']".to_owned()),
        irreversible: Some("gone is gone ☠".to_owned()),
        lock_timeout_ms: Some(0),
        statement_timeout_ms: Some(1 << 53),
    };
    let entries: Vec<Entry> =
        rows.iter().map(|row| Entry::Row(Box::new(row.clone()), full.clone())).collect();
    store.append(&entries).await.unwrap();
    let mut seen = store.read().await.unwrap().rows;
    seen.sort_by_key(|row| row.version);
    assert_eq!(seen, rows);
    let versions: Vec<Version> = rows.iter().map(|row| row.version).collect();
    let rollbacks = store.rollbacks(&versions).await.unwrap();
    assert_eq!(rollbacks.len(), rows.len());
    assert!(rollbacks.values().all(|rollback| *rollback == full));
    let one = store.rollbacks(&[Version(1), Version(12345)]).await.unwrap();
    assert_eq!(one.keys().collect::<Vec<_>>(), [&Version(1)]);
}

pub async fn every_event_and_attempt_reads_back<S: Subject>() {
    let world = S::new().await;
    let mut store = leased(&world, "a").await;
    let mut records = Vec::new();
    for version in [0, 1, 999_999_999_999_999_999] {
        for step in ["up/postgres/1", "cleanup.down/mongo/12", "execute/roles-as-an-array"] {
            for attempt in [1, 2, i32::MAX.unsigned_abs()] {
                for event in Event::ALL {
                    records.push(record_of(version, step, attempt, event));
                }
            }
        }
    }
    let entries: Vec<Entry> = records.iter().cloned().map(Entry::Record).collect();
    store.append(&entries).await.unwrap();
    let key = |record: &lockstep::core::history::Record| {
        (record.step.clone(), record.attempt, record.event)
    };
    let mut seen = store.read().await.unwrap().records;
    seen.sort_by_key(key);
    records.sort_by_key(key);
    assert_eq!(seen, records);
}

pub async fn entries_of_one_call_are_written_together_or_not_at_all<S: Subject>() {
    let world = S::new().await;
    let mut store = leased(&world, "a").await;
    store.append(&[record(1, Event::Started)]).await.unwrap();
    let before = store.read().await.unwrap();
    let twice = [row(2), record(2, Event::Started), record(1, Event::Started), row(3)];
    let error = store.append(&twice).await.unwrap_err();
    assert_eq!(error.fate, Fate::Fenced, "{error}");
    let within = [record(3, Event::Started), record(3, Event::Started)];
    assert_eq!(fate(store.append(&within).await), Fate::Fenced);
    let after = store.read().await.unwrap();
    assert_eq!((after.records, after.rows), (before.records, before.rows));
    // The session is as good as before.
    store.append(&[row(2), record(2, Event::Started)]).await.unwrap();
}

pub async fn of_a_row_only_what_becomes_of_it_in_the_end_is_there<S: Subject>() {
    let world = S::new().await;
    let mut store = leased(&world, "a").await;
    let described = |text: &str| {
        let mut row = row_of(1);
        text.clone_into(&mut row.description);
        Entry::Row(Box::new(row), rollback())
    };
    let gone = || Entry::RowGone(Version(1));
    for (entries, expected) in [
        (vec![gone()], None),
        (vec![gone(), described("a")], Some("a")),
        (vec![gone(), described("b")], Some("b")),
        (vec![described("c"), described("d")], Some("d")),
        (vec![described("e"), gone()], None),
        (vec![described("f"), gone(), described("g")], Some("g")),
        (vec![gone(), described("h"), gone()], None),
    ] {
        store.append(&entries).await.unwrap();
        let rows = store.read().await.unwrap().rows;
        assert_eq!(rows.first().map(|row| row.description.as_str()), expected, "{entries:?}");
    }
}

pub async fn a_row_is_replaced_whole<S: Subject>() {
    let world = S::new().await;
    let mut store = leased(&world, "a").await;
    let mut first = row_of(1);
    first.release = Some("r".to_owned());
    first.finished_at = Some(Timestamp(1));
    let with_reason = Rollback { irreversible: Some("because".to_owned()), ..rollback() };
    store.append(&[Entry::Row(Box::new(first), with_reason)]).await.unwrap();
    let mut second = row_of(1);
    second.status = RowStatus::Completed;
    second.rank = 9;
    store.append(&[Entry::Row(Box::new(second.clone()), rollback())]).await.unwrap();
    assert_eq!(store.read().await.unwrap().rows, [second]);
    assert_eq!(store.rollbacks(&[Version(1)]).await.unwrap()[&Version(1)], rollback());
}

pub async fn nothing_to_write_is_written_without_a_lease<S: Subject>() {
    let world = S::new().await;
    let mut store = world.open("a").await;
    store.append(&[]).await.unwrap();
    assert_eq!(world.tables().await, BTreeMap::new());
}

pub async fn a_rollback_script_of_five_megabytes_reads_back<S: Subject>() {
    let world = S::new().await;
    let mut store = leased(&world, "a").await;
    let text = "UPDATE t SET a = 'ä';\n".repeat((5 << 20) / 23);
    let scripts = BTreeMap::from([("down.sql".to_owned(), text)]);
    let large = Rollback { scripts, ..rollback() };
    store.append(&[Entry::Row(Box::new(row_of(1)), large.clone())]).await.unwrap();
    assert!(store.rollbacks(&[Version(1)]).await.unwrap()[&Version(1)] == large);
}

pub async fn what_nobody_of_us_wrote_is_named<S: Subject>() {
    let world = S::new().await;
    let mut store = leased(&world, "a").await;
    store.append(&[record(42, Event::Started)]).await.unwrap();
    world.spoil().await;
    let seen = store.read().await.unwrap();
    assert_eq!(seen.records, []);
    let [unread] = &seen.unreadable[..] else { panic!("{:?}", seen.unreadable) };
    assert_eq!(unread.table, Table::Steps);
    assert!(unread.what.contains("migration_steps") && unread.what.contains("42"), "{unread:?}");
    store.discard(&seen.unreadable).await.unwrap();
    assert_eq!(store.read().await.unwrap().unreadable, []);
}

pub async fn what_cannot_be_read_is_not_discarded_without_a_lease<S: Subject>() {
    let world = S::new().await;
    let mut store = leased(&world, "a").await;
    store.append(&[record(42, Event::Started)]).await.unwrap();
    world.spoil().await;
    let unreadable = store.read().await.unwrap().unreadable;
    world.expire().await;
    leased(&world, "b").await;
    let error = store.discard(&unreadable).await.unwrap_err();
    assert_eq!(error.fate, Fate::Fenced, "{error}");
    assert_eq!(store.read().await.unwrap().unreadable, unreadable);
}

pub async fn effect_and_entries_are_there_together<S: Subject>() {
    let world = S::new().await;
    let mut store = leased(&world, "a").await;
    store.commit(&world.mark("one"), &[record(1, Event::Applied), row(1)]).await.unwrap();
    assert_eq!(world.marks().await, ["one"]);
    let seen = store.read().await.unwrap();
    assert_eq!((seen.records.len(), seen.rows), (1, vec![row_of(1)]));
}

pub async fn a_failing_step_leaves_neither_effect_nor_entries<S: Subject>() {
    let world = S::new().await;
    let mut store = leased(&world, "a").await;
    let error =
        store.commit(&world.mark_and_fail("one"), &[record(1, Event::Applied)]).await.unwrap_err();
    assert_eq!((error.store, error.fate), (S::NAME, Fate::Refused), "{error}");
    assert!(error.said.statement.is_some() && error.said.code.is_some(), "{error:?}");
    assert_eq!(world.marks().await, [""; 0]);
    assert_eq!(store.read().await.unwrap().records, []);
    store.commit(&world.mark("two"), &[record(1, Event::Applied)]).await.unwrap();
    assert_eq!(world.marks().await, ["two"]);
}

pub async fn entries_that_are_refused_take_the_effect_with_them<S: Subject>() {
    let world = S::new().await;
    let mut store = leased(&world, "a").await;
    store.append(&[record(1, Event::Applied)]).await.unwrap();
    let entries = [record(2, Event::Applied), record(1, Event::Applied)];
    assert_eq!(fate(store.commit(&world.mark("one"), &entries).await), Fate::Fenced);
    assert_eq!(world.marks().await, [""; 0]);
    assert_eq!(store.read().await.unwrap().records.len(), 1);
}

pub async fn a_journaled_step_is_performed_and_held<S: Subject>() {
    let world = S::new().await;
    let mut store = leased(&world, "a").await;
    let step = world.journaled("thing");
    assert_eq!(store.obstacle(&step).await.unwrap(), None);
    assert_eq!(store.holds(&step).await.unwrap(), Holds::No);
    settle(&mut store, &step).await.unwrap();
    assert_eq!(store.holds(&step).await.unwrap(), Holds::Yes);
    store.clear(&step).await.unwrap();
    assert_eq!(store.holds(&step).await.unwrap(), Holds::Yes, "what is whole stays");
    settle(&mut store, &step).await.unwrap();
}
