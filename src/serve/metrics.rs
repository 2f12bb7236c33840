//! `/metrics`: the same for a monitoring system.

use super::health::STATES;
use super::view::View;
use super::{Shared, watch::Look};
use crate::core::history::{Event, RunSeen, Timestamp};
use crate::core::id::{StoreName, Version};
use crate::core::pace::{AtLimit, Level, Limits, Reading};
use crate::core::status::{State, without_number};
use crate::report::metrics::text::{Family, count, render, truth};
use std::collections::{BTreeMap, BTreeSet};

/// Of this many migrations the durations are told, the newest ones: each is a series
/// that a monitoring system keeps for ever.
const DURATIONS_MAX: usize = 50;

/// From here on a probe slows backfills down: `pace::Throttle` does the same.
const SLOWER_FROM: f64 = 0.8;

type Labels = Vec<(&'static str, String)>;

/// The whole text.
pub fn text(shared: &Shared) -> String {
    let mut families = about_stores(shared);
    // What is out of date is left out: that a store is away is told above.
    let view = shared.view.borrow().clone();
    if let Some(view) = &view {
        let fresh: Vec<StoreName> = shared
            .stores()
            .filter(|store| shared.reachable(*store).is_ok())
            .filter(|store| shared.looks[store].borrow().failure.is_none())
            .collect();
        if fresh.len() == view.looks.len() {
            families.extend(about_pair(view));
        }
        for store in fresh {
            if let Some(look) = view.look(store) {
                merge(&mut families, about_store(view, store, look, &shared.limits));
            }
        }
    }
    render(&families)
}

/// Families of the same name are one.
fn merge(families: &mut Vec<Family>, more: Vec<Family>) {
    for family in more {
        match families.iter_mut().find(|it| it.name == family.name) {
            Some(it) => it.samples.extend(family.samples),
            None => families.push(family),
        }
    }
}

fn of(store: StoreName) -> (&'static str, String) {
    ("store", store.word().to_owned())
}

fn seconds(at: Timestamp) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "exact for the next 280,000 years")]
    let millis = at.0 as f64;
    millis / 1000.0
}

/// What passed between two times, none if the clocks do not agree.
fn between(from: Timestamp, to: Timestamp) -> f64 {
    count(u64::try_from(to.0 - from.0).unwrap_or(0)) / 1000.0
}

fn about_stores(shared: &Shared) -> Vec<Family> {
    let mut up = Family::gauge("lockstep_store_up", "1 while the store answers in time.");
    let mut latency = Family::gauge(
        "lockstep_store_latency_seconds",
        "How long the store took to answer the last sign of life that was asked for.",
    );
    let mut errors = Family::gauge(
        "lockstep_scrape_errors",
        "1 while the history of the store cannot be read, so that what it says is missing here.",
    );
    for store in shared.stores() {
        let answer = shared.reachable(store);
        up.add(vec![of(store)], truth(answer.is_ok()));
        if let Ok(took) = answer {
            latency.add(vec![of(store)], took.as_secs_f64());
        }
        errors.add(vec![of(store)], truth(shared.looks[&store].borrow().failure.is_some()));
    }
    let info = Family::gauge("lockstep_build_info", "The version of migrate; always 1.")
        .with(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], 1.0);
    vec![info, up, latency, errors]
}

/// What takes both stores to know.
fn about_pair(view: &View) -> Vec<Family> {
    let mut families = vec![
        Family::gauge(
            "lockstep_pair_ok",
            "1 if the two databases belong together, or none of them was migrated yet.",
        )
        .with(Vec::new(), truth(view.paired.is_ok())),
        Family::gauge(
            "lockstep_migrations_pending",
            "Migrations that up has something to do about.",
        )
        .with(Vec::new(), count(wide(view.pending()))),
        Family::gauge(
            "lockstep_migrations_partial",
            "Migrations that were begun and are not finished, whatever each store says of its part.",
        )
        .with(Vec::new(), count(wide(view.partial().len()))),
        Family::gauge("lockstep_migrations_held", "Migrations whose cleanup is held.")
            .with(Vec::new(), count(wide(view.count(State::Held)))),
    ];
    if let Some(refused) = &view.refused {
        families.push(
            Family::gauge(
                "lockstep_history_ok",
                "0 when up would refuse these files or this history.",
            )
            .with(Vec::new(), truth(refused.is_ok())),
        );
    }
    families.extend(about_runs(&view.runs.iter().map(|(run, _)| run).collect::<Vec<_>>()));
    let mut holds = Family::gauge(
        "lockstep_invariant_holds",
        "1 if the invariant held when a run last asked; missing if none has.",
    );
    for held in &view.invariants {
        if let Some(it_holds) = held.holds {
            let version = ("version", held.version.to_string());
            holds.add(vec![version, ("name", held.name.clone())], truth(it_holds));
        }
    }
    families.push(holds);
    let steering = &view.seen.steering;
    families.push(
        Family::gauge("lockstep_backfills_running", "Backfills that were begun and are not done.")
            .with(Vec::new(), count(wide(view.seen.running.len()))),
    );
    families.push(
        Family::gauge("lockstep_backfills_paused", "1 while somebody has backfills stand still.")
            .with(Vec::new(), truth(steering.paused.is_some())),
    );
    families.push(
        Family::gauge("lockstep_backfill_speed", "The part of their own pace that was asked for.")
            .with(Vec::new(), steering.speed),
    );
    families
}

/// What the audit log says. `runs`: the newest first.
fn about_runs(runs: &[&RunSeen]) -> Vec<Family> {
    let mut total = Family::counter("lockstep_runs_total", "Runs in the audit log.");
    let mut counted: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    // One that is at work is counted when it is over: a counter never falls.
    for run in runs.iter().filter(|run| run.outcome != "running") {
        *counted.entry((&run.command, &run.outcome)).or_default() += 1;
    }
    for ((command, outcome), number) in counted {
        let labels = vec![("command", command.to_owned()), ("outcome", outcome.to_owned())];
        total.add(labels, count(number));
    }
    let mut at = Family::gauge(
        "lockstep_last_run_timestamp_seconds",
        "When the last run of the command that is over ended.",
    );
    let mut took =
        Family::gauge("lockstep_last_run_duration_seconds", "How long it took, hooks left out.");
    let mut success = Family::gauge("lockstep_last_run_success", "1 if it ended well.");
    let mut told = BTreeSet::new();
    let mut over: Vec<(&RunSeen, Timestamp)> =
        runs.iter().filter_map(|run| Some((*run, run.finished_at?))).collect();
    over.sort_by_key(|(_, finished_at)| std::cmp::Reverse(*finished_at));
    for (run, finished_at) in over {
        if !told.insert(run.command.as_str()) {
            continue;
        }
        let labels = vec![("command", run.command.clone())];
        at.add(labels.clone(), seconds(finished_at));
        // A backup begins when it was taken, and ends when that was recorded.
        if run.command != "backup" {
            took.add(labels.clone(), between(run.started_at, finished_at));
        }
        success.add(labels, truth(run.outcome == "ok"));
    }
    vec![total, at, took, success]
}

/// What one store says.
fn about_store(view: &View, store: StoreName, look: &Look, limits: &Limits) -> Vec<Family> {
    let mut families = Vec::new();
    let mut migrations = Family::gauge("lockstep_migrations", "Migrations by what the store says.");
    for state in STATES {
        let part = |line: &&crate::core::status::Line| match store {
            StoreName::Postgres => line.postgres == state,
            StoreName::Mongo => line.mongo == state,
        };
        let number = view.lines.iter().filter(part).count();
        migrations.add(vec![of(store), ("state", state.word().to_owned())], count(wide(number)));
    }
    families.push(migrations);
    families.extend(about_lease(view, store, look));
    families.extend(about_durations(store, look));
    families.extend(about_backfills(view, store, look));
    families.extend(about_pace(store, look, limits));
    families
}

fn about_lease(view: &View, store: StoreName, look: &Look) -> Vec<Family> {
    let lease = look.snapshot.lease.as_ref();
    let run = lease.and_then(|lease| {
        let mut runs = view.runs.iter().map(|(run, _)| run);
        runs.find(|run| run.run_id == lease.run_id)
    });
    let age = match (lease, run) {
        (Some(_), Some(run)) => Some(between(run.started_at, super::now())),
        (Some(_), None) => None,
        (None, _) => Some(0.0),
    };
    let mut age_of = Family::gauge(
        "lockstep_lease_age_seconds",
        "Since when the run has it that holds the lease; 0 while it is free.",
    );
    if let Some(age) = age {
        age_of.add(vec![of(store)], age);
    }
    let mut info = Family::gauge("lockstep_lease_info", "Who holds the lease; always 1.");
    if let Some(lease) = lease {
        let (holder, run_id) = (lease.holder.clone(), lease.run_id.clone());
        info.add(vec![of(store), ("holder", holder), ("run_id", run_id)], 1.0);
    }
    vec![
        Family::gauge("lockstep_lease_held", "1 while a run holds the lease of the store.")
            .with(vec![of(store)], truth(lease.is_some())),
        age_of,
        info,
    ]
}

fn about_durations(store: StoreName, look: &Look) -> Vec<Family> {
    let mut migrations = Family::gauge(
        "lockstep_migration_duration_seconds",
        "How long the steps of the migration took, over all runs that it needed.",
    );
    let mut steps = Family::gauge(
        "lockstep_step_duration_seconds",
        "From the announcement of the step to its record. Only of steps that are announced: backfills, and what no transaction can hold.",
    );
    let version = |version: Version| ("version", version.to_string());
    let mut rows: Vec<_> = look.snapshot.rows.iter().collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.executed_at));
    for row in rows.into_iter().take(DURATIONS_MAX) {
        let name = ("name", without_number(&row.migration_name).to_owned());
        let labels = vec![version(row.version), name, of(store)];
        migrations.add(labels, count(row.execution_time_ms) / 1000.0);
        for (step, took) in step_durations(look, row.version) {
            steps.add(vec![version(row.version), ("step", step), of(store)], took);
        }
    }
    vec![migrations, steps]
}

/// The steps of the newest attempt that were announced and are done, in seconds.
fn step_durations(look: &Look, version: Version) -> Vec<(String, f64)> {
    let records = look.records.get(&version).map(Vec::as_slice).unwrap_or_default();
    let mut times: BTreeMap<(String, u32), [Option<Timestamp>; 2]> = BTreeMap::new();
    for seen in records {
        let record = &seen.record;
        let [began, done] =
            times.entry((record.step.name.to_string(), record.attempt)).or_default();
        let at = Some(seen.recorded_at);
        match record.event {
            Event::Started | Event::Progress => *began = began.or(at).min(at),
            Event::Applied => *done = at,
            Event::Reverting | Event::Reverted => {}
        }
    }
    let took = times
        .into_iter()
        .filter_map(|((step, _), [began, done])| Some((step, between(began?, done?))));
    // Of several attempts the newest comes last.
    took.collect::<BTreeMap<_, _>>().into_iter().collect()
}

fn about_backfills(view: &View, store: StoreName, look: &Look) -> Vec<Family> {
    let mut rows = Family::gauge("lockstep_backfill_rows", "Rows that were rewritten so far.");
    let mut passed = Family::gauge("lockstep_backfill_passed", "Keys that were passed so far.");
    let mut estimated =
        Family::gauge("lockstep_backfill_estimated", "About how many keys there are.");
    let mut rate = Family::gauge("lockstep_backfill_rate", "Keys per second, of the last 30 s.");
    let mut progress = Family::gauge(
        "lockstep_backfill_progress_timestamp_seconds",
        "When it was last seen to have come further.",
    );
    for running in &look.seen.running {
        let Some((done, keys, estimate)) = running.sums() else { continue };
        let step = &running.record.step;
        let labels = || -> Labels {
            let version = ("version", step.version.to_string());
            vec![version, ("step", step.name.to_string()), of(store)]
        };
        rows.add(labels(), count(done));
        passed.add(labels(), count(keys));
        estimated.add(labels(), count(estimate));
        if let Some(known) = view.rate(store, step) {
            if let Some(keys) = known.keys {
                rate.add(labels(), keys);
            }
            progress.add(labels(), seconds(known.progress_at));
        }
    }
    vec![rows, passed, estimated, rate, progress]
}

fn about_pace(store: StoreName, look: &Look, limits: &Limits) -> Vec<Family> {
    let mut level = Family::gauge(
        "lockstep_pace_level",
        "What the probe has backfills do: 0 go, 1 go slower, 2 stop.",
    );
    let mut lag =
        Family::gauge("lockstep_replication_lag_seconds", "How far the slowest standby is behind.");
    for (_, reading) in &look.seen.probes {
        if let Some(number) = pace(reading) {
            level.add(vec![of(store), ("probe", reading.probe.to_owned())], number);
        }
        if let (REPLICATION_LAG, Level::At { ratio, .. }) = (reading.probe, &reading.level) {
            lag.add(vec![of(store)], ratio * limits.replication_lag.as_secs_f64());
        }
    }
    vec![level, lag]
}

/// The probe whose value is a time.
const REPLICATION_LAG: &str = "replication lag";

/// What a probe has backfills do; `None` if it may not be read.
fn pace(reading: &Reading) -> Option<f64> {
    match (&reading.level, reading.at_limit) {
        (Level::Off(_), _) => None,
        (Level::Nothing(_), _) => Some(0.0),
        (Level::At { ratio, .. }, AtLimit::Stop) if *ratio >= 1.0 => Some(2.0),
        (Level::At { ratio, .. }, _) if *ratio >= SLOWER_FROM => Some(1.0),
        (Level::At { .. }, _) => Some(0.0),
    }
}

fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
