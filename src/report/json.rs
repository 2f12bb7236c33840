//! Notices as JSON: one object per line on stdout, each with `v`, `event` and
//! `at`, and nothing else there. The keys are a promise; see docs/cli.md.

use crate::core::history::Timestamp;
use crate::core::id::Direction;
use crate::core::notice::{BackfillProgress, BackfillState, Notice, StepProgress};
use crate::core::status::without_number;
use crate::report::utc;
use serde_json::{Value, json};
use std::time::Duration;

/// The version of every object.
pub const VERSION: u32 = 1;

/// Of statements that take no longer nobody wants to read that they are at work.
const LONG: Duration = Duration::from_secs(5);

/// One object: `fields` with what every object has in front of them.
pub fn object(event: &str, at: Timestamp, fields: &Value) -> String {
    let fields = fields.to_string();
    let rest = fields.strip_prefix('{').filter(|rest| *rest != "}").unwrap_or("}");
    let comma = if rest == "}" { "" } else { "," };
    let at = utc(at);
    format!(r#"{{"v":{VERSION},"event":"{event}","at":"{at}"{comma}{rest}"#)
}

/// The same as a value, for what is part of another object.
pub fn value(event: &str, at: Timestamp, mut fields: Value) -> Value {
    fields["v"] = VERSION.into();
    fields["event"] = event.into();
    fields["at"] = utc(at).into();
    fields
}

/// The object of a notice; `None` for what is only meant for people.
pub fn notice(notice: &Notice, at: Timestamp) -> Option<String> {
    let (event, fields) = match notice {
        Notice::RunStarted { command, run_id, migrations } => (
            "run_started",
            json!({ "command": command, "run_id": run_id, "migrations": migrations }),
        ),
        Notice::MigrationStarted { version, folder, direction, longest: _ } => (
            "migration_started",
            json!({ "version": version.0, "name": without_number(folder), "direction": way(*direction) }),
        ),
        Notice::StepStarted { version, step, store, summary, settling } => (
            "step_started",
            json!({
                "version": version.0, "step": step.to_string(), "store": store.word(),
                "statement": summary, "settling": settling,
            }),
        ),
        Notice::StepDelayed { version, step, store, said, lock, holder, tried, tries, again } => (
            "step_delayed",
            json!({
                "version": version.0, "step": step.to_string(), "store": store.word(),
                "message": said, "lock": lock, "holder": holder, "tried": tried, "tries": tries,
                "again_ms": millis(*again),
            }),
        ),
        Notice::StepProgress(progress) if progress.took < LONG => return None,
        Notice::StepProgress(progress) => ("step_progress", step(progress)),
        Notice::StepFinished { version, step, store, took } => (
            "step_finished",
            json!({
                "version": version.0, "step": step.to_string(), "store": store.word(),
                "ms": millis(*took),
            }),
        ),
        Notice::MigrationFinished { version, folder, direction, took } => (
            "migration_finished",
            json!({
                "version": version.0, "name": without_number(folder), "direction": way(*direction),
                "ms": millis(*took),
            }),
        ),
        Notice::BackfillProgress(progress) => ("backfill_progress", backfill(progress)),
        // Its progress is told about once a second.
        Notice::BatchFinished { .. } => return None,
        Notice::Waiting { store, holder } => {
            ("waiting", json!({ "store": store.word(), "holder": holder }))
        }
        Notice::InvariantChecked {
            version,
            name,
            holds,
            expected,
            found,
            sample,
            differences,
            count: _,
            took,
        } => (
            "invariant_checked",
            json!({
                "version": version.0, "name": name, "holds": holds, "expected": expected,
                "found": found, "sample": sample, "differences": differences,
                "ms": millis(*took),
            }),
        ),
        Notice::ComparisonProgress(progress) => (
            "comparison_progress",
            json!({
                "version": progress.version.0, "name": progress.name, "rows": progress.rows,
                "estimate": progress.estimate, "percent": progress.percent(),
                "rate": progress.rate, "undecided": progress.undecided,
            }),
        ),
        Notice::ProgramSaid { version, step, is_error, line } => (
            "program_said",
            json!({
                "version": version.0, "step": step.to_string(),
                "stream": if *is_error { "stderr" } else { "stdout" }, "line": line,
            }),
        ),
        Notice::HookStarted { hook, command } => {
            ("hook_started", json!({ "hook": hook, "command": command }))
        }
        Notice::HookFinished { hook, command, took, error } => (
            "hook_finished",
            json!({ "hook": hook, "command": command, "ms": millis(*took), "error": error }),
        ),
        // What hooks say goes to stderr, whatever stdout is for.
        Notice::HookSaid { .. } => return None,
        Notice::Remark(text) => ("remark", json!({ "message": text })),
    };
    Some(object(event, at, &fields))
}

fn step(progress: &StepProgress) -> Value {
    let doing = progress.doing.as_ref();
    json!({
        "version": progress.version.0, "step": progress.step.to_string(),
        "store": progress.store.word(), "ms": millis(progress.took),
        "doing": doing.map(|doing| &doing.what), "done": doing.map(|doing| doing.done),
        "total": doing.map(|doing| doing.total).filter(|total| *total > 0),
        "unit": doing.map(|doing| doing.unit),
        "percent": doing.and_then(crate::core::notice::Doing::percent),
        "rate": doing.map(|_| progress.rate), "left_ms": progress.left.map(millis),
    })
}

fn backfill(progress: &BackfillProgress) -> Value {
    let (state, reason) = match &progress.state {
        BackfillState::Running => ("running", None),
        BackfillState::Slow(why) => ("slow", Some(why)),
        BackfillState::Stopped(why) => ("stopped", Some(why)),
    };
    let mut fields = json!({
        "version": progress.version.0,
        "step": progress.step.to_string(),
        "store": progress.store.word(),
        "rows": progress.rows,
        "passed": progress.passed,
        "rejected": progress.rejected,
        "estimate": progress.estimate,
        "percent": progress.percent(),
        "rate_now": progress.rate_now,
        "rate": progress.rate,
        "left_ms": progress.left.map(millis),
        "batch": progress.batch,
        "state": state,
        "reason": reason,
    });
    if !progress.unwatched.is_empty() {
        let says = progress.unwatched.iter().map(|probe| &probe.says);
        fields["probes_off"] = says.cloned().collect();
    }
    fields
}

/// `up` or `down`.
pub fn way(direction: Direction) -> &'static str {
    match direction {
        Direction::Up => "up",
        Direction::Down => "down",
    }
}

fn millis(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::compare::{Difference, Kind};
    use crate::core::id::Version;

    #[test]
    fn an_invariant_that_was_checked_says_what_was_found() {
        let checked = Notice::InvariantChecked {
            version: Version(7),
            name: "no user lost a role".to_owned(),
            holds: false,
            expected: "0".to_owned(),
            found: "2".to_owned(),
            sample: vec!["id = 7, role = NULL".to_owned()],
            differences: vec![Difference {
                key: json!(7),
                kind: Kind::Different,
                fields: vec!["role".to_owned()],
                reason: None,
                shown: "id = 7".to_owned(),
            }],
            count: Some(1),
            took: Duration::from_millis(12),
        };
        let text = notice(&checked, Timestamp(0)).expect("it has an object");
        let seen: Value = serde_json::from_str(&text).expect("it is JSON");
        let expected = json!({
            "v": 1, "event": "invariant_checked", "at": "1970-01-01T00:00:00.000Z", "version": 7,
            "name": "no user lost a role", "holds": false, "expected": "0", "found": "2",
            "sample": ["id = 7, role = NULL"],
            "differences": [{ "key": 7, "kind": "different", "fields": ["role"] }], "ms": 12,
        });
        assert_eq!(seen, expected);
    }
}
