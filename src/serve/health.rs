//! `/health/live`, `/health/ready` and `/health`: whether this process, and what it
//! watches, is well.

use super::{Shared, now};
use crate::core::history::RunSeen;
use crate::core::id::{StoreName, Version};
use crate::core::status::State;
use crate::report::utc;
use serde_json::{Map, Value, json};

/// This process answers: that is all it takes to be alive. A database that is down
/// is no reason to start it anew.
pub fn live(shared: &Shared) -> Value {
    json!({
        "status": "ok",
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": shared.began.elapsed().as_secs(),
    })
}

/// Whether every store answers, nothing stands in the middle, and the version that
/// somebody waits for is completed; and why not.
pub fn ready(shared: &Shared, wanted: Option<Version>) -> (bool, Value) {
    let mut reasons = Vec::new();
    let mut stores = Map::new();
    for store in StoreName::BOTH {
        let there = shared.pulses.contains_key(&store);
        stores.insert(
            store.word().to_owned(),
            if there { store_object(shared, store, &mut reasons) } else { Value::Null },
        );
    }
    for store in shared.stores() {
        let looked = shared.looks[&store].borrow();
        if let Some(failure) = &looked.failure
            && shared.reachable(store).is_ok()
        {
            let title = store.title();
            reasons.push(format!("the history in {title} cannot be read: {}", failure.message));
        }
    }
    let view = shared.view.borrow().clone();
    let (mut partial, mut version) = (Vec::new(), Value::Null);
    if let Some(view) = &view {
        partial = view.partial();
        for store in shared.stores() {
            if let Some(record) = view.read.histories.of(store).unreadable().first() {
                let title = store.title();
                reasons.push(format!("the history in {title} cannot be read: {}", record.what));
            }
        }
        reasons.extend(
            partial.iter().map(|version| format!("{version} is partial: begun and not finished")),
        );
        reasons.extend(view.paired.as_ref().err().map(ToString::to_string));
    } else if reasons.is_empty() {
        reasons.push("the histories have not been read yet".to_owned());
    }
    if let Some(wanted) = wanted {
        let is_completed = view.as_ref().is_some_and(|view| {
            shared.stores().all(|store| {
                let row = view.read.histories.of(store).row(wanted);
                row.is_some_and(|row| row.status.is_done())
            })
        });
        if !is_completed {
            reasons.push(format!("{wanted} is not completed in every store"));
        }
        version = json!({ "wanted": wanted.0, "completed": is_completed });
    }
    let is_ready = reasons.is_empty();
    let object = json!({
        "status": if is_ready { "ready" } else { "not ready" },
        "reasons": reasons,
        "stores": stores,
        "partial": partial.iter().map(|version| version.0).collect::<Vec<_>>(),
        "version": version,
    });
    (is_ready, object)
}

fn store_object(shared: &Shared, store: StoreName, reasons: &mut Vec<String>) -> Value {
    let answer = shared.reachable(store);
    let pulse = shared.pulses[&store].borrow();
    let checked_at = pulse.as_ref().map(|pulse| utc(pulse.checked_at));
    if let Err(failure) = &answer {
        reasons.push(format!("{} cannot be reached: {}", store.title(), failure.message));
    }
    let (latency, error) = match answer {
        Ok(took) => (Some((took.as_secs_f64() * 1e6).round() / 1e3), None),
        Err(failure) => (None, Some(failure.message)),
    };
    json!({
        "reachable": error.is_none(), "latency_ms": latency, "error": error,
        "checked_at": checked_at,
    })
}

/// All of that, and what there is to know besides.
pub fn whole(shared: &Shared) -> (bool, Value) {
    let (is_ready, mut object) = ready(shared, None);
    object["v"] = crate::report::json::VERSION.into();
    object["at"] = utc(now()).into();
    let view = shared.view.borrow().clone();
    let Some(view) = view else {
        for key in ["paired", "lease", "pending", "held", "counts", "last_run", "backfills"] {
            object[key] = Value::Null;
        }
        return (is_ready, object);
    };
    let status = view.status();
    object["paired"] = status["paired"].clone();
    object["lease"] = status["lease"].clone();
    object["pending"] = view.pending().into();
    object["held"] = view.count(State::Held).into();
    let counts = STATES.map(|state| (state.word().to_owned(), view.count(state).into()));
    object["counts"] = Value::Object(counts.into_iter().collect());
    // Recording a backup and steering are no runs that could have failed.
    let is_run = |run: &&RunSeen| run.command != "backup" && !run.command.starts_with("backfill");
    let last = view.runs.iter().map(|(run, _)| run).find(is_run);
    object["last_run"] = last.map_or(Value::Null, |run| {
        json!({
            "run_id": run.run_id, "command": run.command, "started_by": run.started_by,
            "started_at": utc(run.started_at), "finished_at": run.finished_at.map(utc),
            "outcome": run.outcome, "error": run.error,
        })
    });
    object["backfills"] = json!({
        "running": view.seen.running.len(),
        "paused": view.seen.steering.paused.is_some(),
        "reason": view.seen.steering.paused,
        "speed": view.seen.steering.speed,
    });
    (is_ready, object)
}

/// Every state that a migration can have.
pub const STATES: [State; 7] = [
    State::Pending,
    State::Partial,
    State::Held,
    State::Completed,
    State::Baseline,
    State::Missing,
    State::Ahead,
];
