//! `migrate history`: who did what, when.

use crate::cli::args::{self, Global};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::project::{self, Files, Project};
use crate::core::history::{RecordSeen, RunSeen};
use crate::core::id::{StoreName, Version};
use crate::report::human::{Look, Volume, clip, duration};
use crate::report::{local, utc};
use crate::store::mongo::Mongo;
use crate::store::postgres::Postgres;
use crate::store::{StoreError, Stores};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Runs the command.
///
/// # Errors
/// See docs/cli.md for the exit codes.
pub async fn run(global: &Global, args: &args::History, output: &Output) -> Result<Exit, Failure> {
    let version = args.version.as_deref().map(project::version).transpose()?;
    let mut project = Project::open_with(global, "history", Files::Unread).await?;
    match version {
        None => runs(&mut project, output).await?,
        Some(version) => records(&mut project, version, output).await?,
    }
    Ok(Exit::Ok)
}

/// The audit log of both stores, the newest first.
pub(crate) async fn read_runs(
    stores: &mut Stores<Postgres, Mongo>,
) -> Result<Vec<(RunSeen, Vec<StoreName>)>, StoreError> {
    let mut seen = Vec::new();
    if let Some(postgres) = &mut stores.postgres {
        seen.push((StoreName::Postgres, postgres.runs().await?));
    }
    if let Some(mongo) = &mut stores.mongo {
        seen.push((StoreName::Mongo, mongo.runs().await?));
    }
    Ok(merged(seen))
}

/// Each run once: both stores keep it, and one of them may have been restored.
pub(crate) fn merged(
    seen: impl IntoIterator<Item = (StoreName, Vec<RunSeen>)>,
) -> Vec<(RunSeen, Vec<StoreName>)> {
    let mut runs: BTreeMap<String, (RunSeen, Vec<StoreName>)> = BTreeMap::new();
    for (store, seen) in seen {
        for run in seen {
            let entry = runs.entry(run.run_id.clone()).or_insert((run, Vec::new()));
            entry.1.push(store);
        }
    }
    let mut runs: Vec<(RunSeen, Vec<StoreName>)> = runs.into_values().collect();
    runs.sort_by_key(|(run, _)| std::cmp::Reverse(run.started_at));
    runs
}

/// What `--output json` says of them.
pub(crate) fn runs_object(runs: &[(RunSeen, Vec<StoreName>)]) -> Value {
    json!({ "runs": runs.iter().map(run_object).collect::<Vec<_>>() })
}

async fn runs(project: &mut Project, output: &Output) -> Result<(), Failure> {
    let runs = read_runs(&mut project.stores).await?;
    output.object("history", &runs_object(&runs));
    if runs.is_empty() {
        output.result("no run has changed anything yet");
    }
    let widest = runs.iter().map(|(run, _)| run.command.chars().count()).max();
    let command_width = widest.unwrap_or(0).max(COMMAND_WIDTH);
    for (run, _) in &runs {
        output.result(&run_lines(run, command_width, output.result_look, output.volume));
    }
    Ok(())
}

/// As wide as `baseline`, so that most logs look alike.
const COMMAND_WIDTH: usize = 8;

fn run_lines(run: &RunSeen, command_width: usize, look: Look, volume: Volume) -> String {
    let from = run.from_version.map_or("nothing".to_owned(), |version| version.to_string());
    // Nobody knows how far a run came that died; what it did is recorded.
    let unknown = if run.finished_at.is_some() && run.outcome != "died" { "nothing" } else { "?" };
    let to = run.to_version.map_or(unknown.to_owned(), |version| version.to_string());
    // What is painted is as wide as what is not.
    let outcome = format!("{:<7}", run.outcome);
    let outcome = if run.outcome == "ok" { look.good(&outcome) } else { look.warn(&outcome) };
    let took = run.finished_at.map(|at| {
        let ms = u64::try_from(at.0 - run.started_at.0).unwrap_or(0);
        duration(Duration::from_millis(ms))
    });
    let release = run.release.as_ref().map(|release| format!("release {release}"));
    let id = format!("run {}", short(&run.run_id, volume));
    let who = [Some(run.started_by.clone()), took, Some(id), release];
    let who = who.into_iter().flatten().collect::<Vec<_>>().join(", ");
    let (at, command) = (local(run.started_at), &run.command);
    let what = format!("{at}  {command:<command_width$} {outcome}  {from} → {to}");
    // The letters, without what colours them.
    let width = console::measure_text_width(&what) + 2 + who.chars().count();
    // A line of a pipe is one line, as long as it is.
    let mut text = match width <= look.width || !look.terminal {
        true => format!("{what}  {who}"),
        false if volume == Volume::Verbose => format!("{what}\n  {who}"),
        false => format!("{what}\n  {}", clip(&who, look.width.saturating_sub(2))),
    };
    for (label, detail) in [("error", &run.error), ("reason", &run.reason)] {
        if let Some(detail) = detail {
            let room = match volume {
                Volume::Verbose => usize::MAX,
                _ => look.width.saturating_sub(label.len() + 4).max(20),
            };
            text.push_str(&format!("\n  {label}: {}", clip(detail, room)));
        }
    }
    text
}

fn run_object((run, stores): &(RunSeen, Vec<StoreName>)) -> Value {
    json!({
        "run_id": run.run_id,
        "command": run.command,
        "started_by": run.started_by,
        "started_at": utc(run.started_at),
        "finished_at": run.finished_at.map(utc),
        "from_version": run.from_version.map(|version| version.0),
        "to_version": run.to_version.map(|version| version.0),
        "release": run.release,
        "outcome": run.outcome,
        "error": run.error,
        "reason": run.reason,
        "tool_version": run.tool_version,
        "stores": stores.iter().map(|store| store.word()).collect::<Vec<_>>(),
    })
}

/// The records of one migration in both stores, the oldest first.
pub(crate) async fn read_records(
    stores: &mut Stores<Postgres, Mongo>,
    version: Version,
) -> Result<Vec<(StoreName, RecordSeen)>, StoreError> {
    let mut records: Vec<(StoreName, RecordSeen)> = Vec::new();
    if let Some(postgres) = &mut stores.postgres {
        let seen = postgres.records_of(version).await?;
        records.extend(seen.into_iter().map(|record| (StoreName::Postgres, record)));
    }
    if let Some(mongo) = &mut stores.mongo {
        let seen = mongo.records_of(version).await?;
        records.extend(seen.into_iter().map(|record| (StoreName::Mongo, record)));
    }
    records.sort_by_key(|(_, seen)| seen.recorded_at);
    Ok(records)
}

/// What `--output json` says of them.
pub(crate) fn records_object(version: Version, records: &[(StoreName, RecordSeen)]) -> Value {
    let objects: Vec<Value> = records
        .iter()
        .map(|(store, seen)| {
            json!({
                "store": store.word(),
                "step": seen.record.step.name.to_string(),
                "attempt": seen.record.attempt,
                "recorded": seen.record.event.word(),
                "checksum": seen.record.checksum.to_string(),
                "migration_checksum": seen.record.migration_checksum.to_string(),
                "run_id": seen.run_id,
                "recorded_at": utc(seen.recorded_at),
            })
        })
        .collect();
    json!({ "version": version.0, "records": objects })
}

async fn records(project: &mut Project, version: Version, output: &Output) -> Result<(), Failure> {
    let records = read_records(&mut project.stores, version).await?;
    output.object("history", &records_object(version, &records));
    if records.is_empty() {
        output.result(&format!("nothing is recorded about {version}"));
    }
    let look = output.result_look;
    let room = match output.volume {
        Volume::Quiet | Volume::Normal if look.terminal => {
            look.width.saturating_sub(OTHERS).max(20)
        }
        _ => usize::MAX,
    };
    for (store, seen) in &records {
        output.result(&format!(
            "{}  {:<8} {:<20} {:<9} #{}  run {}",
            local(seen.recorded_at),
            store.title(),
            clip(&seen.record.step.name.to_string(), room),
            seen.record.event.word(),
            seen.record.attempt,
            short(&seen.run_id, output.volume)
        ));
    }
    Ok(())
}

/// What everything but the step's name takes in a line about a record.
const OTHERS: usize = 58;

/// A run's id as far as it takes to tell it from others; `-v` shows all of it.
fn short(run_id: &str, volume: Volume) -> &str {
    match volume {
        Volume::Verbose => run_id,
        Volume::Quiet | Volume::Normal => run_id.split('-').next().unwrap_or(run_id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::history::Timestamp;
    use expect_test::expect;

    #[test]
    fn a_run_fits_the_terminal() {
        let run = RunSeen {
            run_id: "a27efb8a-0c90-4129-81bf-dd57ffa48f61".to_owned(),
            command: "up".to_owned(),
            started_by: "deploy@shop-migrations-7f8d9c6b5-xk2lp".to_owned(),
            started_at: Timestamp(1_795_290_423_000),
            finished_at: Some(Timestamp(1_795_290_423_209)),
            from_version: None,
            to_version: Some(Version(2)),
            release: Some("2026.11.21-rc1-with-a-name-that-is-long".to_owned()),
            outcome: "failed".to_owned(),
            error: Some(
                "002/up/postgres/1: failed to run the step in Postgres: no relation".repeat(2),
            ),
            reason: None,
            tool_version: "1".to_owned(),
        };
        let mut look = Look { terminal: true, colour: false, width: 80 };
        let text = run_lines(&run, COMMAND_WIDTH, look, Volume::Normal);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        // Without the time, which is local.
        let lines: Vec<&str> = text
            .char_indices()
            .nth(19)
            .map_or("", |(at, _)| &text[at..])
            .lines()
            .map(str::trim_start)
            .collect();
        expect![[r"
            up       failed   nothing → 002
            deploy@shop-migrations-7f8d9c6b5-xk2lp, 209 ms, run a27efb8a, release 2026.11…
            error: 002/up/postgres/1: failed to run the step in Postgres: no relation002/…"]]
        .assert_eq(&lines.join("\n"));
        look.terminal = false;
        assert_eq!(run_lines(&run, COMMAND_WIDTH, look, Volume::Normal).lines().count(), 2);
        let whole = run_lines(&run, COMMAND_WIDTH, look, Volume::Verbose);
        assert!(whole.contains(&run.run_id) && !whole.contains('…'), "{whole}");
    }
}
