//! `migrate history`: who did what, when.

use crate::cli::args::{self, Global};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::project::{self, Files, Project};
use crate::core::history::{RecordSeen, RunSeen};
use crate::core::id::{StoreName, Version};
use crate::report::human::{Look, clip, duration};
use crate::report::{local, utc};
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

/// Each run once: both stores keep it, and one of them may have been restored.
async fn runs(project: &mut Project, output: &Output) -> Result<(), Failure> {
    let mut runs: BTreeMap<String, (RunSeen, Vec<StoreName>)> = BTreeMap::new();
    let mut add = |store: StoreName, seen: Vec<RunSeen>| {
        for run in seen {
            let entry = runs.entry(run.run_id.clone()).or_insert((run, Vec::new()));
            entry.1.push(store);
        }
    };
    if let Some(postgres) = &mut project.stores.postgres {
        add(StoreName::Postgres, postgres.runs().await?);
    }
    if let Some(mongo) = &mut project.stores.mongo {
        add(StoreName::Mongo, mongo.runs().await?);
    }
    let mut runs: Vec<(RunSeen, Vec<StoreName>)> = runs.into_values().collect();
    runs.sort_by_key(|(run, _)| std::cmp::Reverse(run.started_at));
    output.object("history", &json!({ "runs": runs.iter().map(run_object).collect::<Vec<_>>() }));
    if runs.is_empty() {
        output.result("no run has changed anything yet");
    }
    for (run, _) in &runs {
        output.result(&run_lines(run, output.result_look));
    }
    Ok(())
}

fn run_lines(run: &RunSeen, look: Look) -> String {
    let from = run.from_version.map_or("nothing".to_owned(), |version| version.to_string());
    // Nobody knows how far a run came that died; what it did is recorded.
    let unknown = if run.finished_at.is_some() && run.outcome != "died" { "nothing" } else { "?" };
    let to = run.to_version.map_or(unknown.to_owned(), |version| version.to_string());
    let outcome = match run.outcome.as_str() {
        "ok" => look.good("ok"),
        other => look.warn(other),
    };
    let took = run.finished_at.map(|at| {
        let ms = u64::try_from(at.0 - run.started_at.0).unwrap_or(0);
        format!(", {}", duration(Duration::from_millis(ms)))
    });
    let release = run.release.as_ref().map(|release| format!(", release {release}"));
    let mut text = format!(
        "{}  {:<5} {outcome}  {from} → {to}  {}{}{}",
        local(run.started_at),
        run.command,
        run.started_by,
        took.unwrap_or_default(),
        release.unwrap_or_default()
    );
    for (label, detail) in [("error", &run.error), ("reason", &run.reason)] {
        if let Some(detail) = detail {
            let room = look.width.saturating_sub(label.len() + 4).max(20);
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

async fn records(project: &mut Project, version: Version, output: &Output) -> Result<(), Failure> {
    let mut records: Vec<(StoreName, RecordSeen)> = Vec::new();
    if let Some(postgres) = &mut project.stores.postgres {
        let seen = postgres.records_of(version).await?;
        records.extend(seen.into_iter().map(|record| (StoreName::Postgres, record)));
    }
    if let Some(mongo) = &mut project.stores.mongo {
        let seen = mongo.records_of(version).await?;
        records.extend(seen.into_iter().map(|record| (StoreName::Mongo, record)));
    }
    records.sort_by_key(|(_, seen)| seen.recorded_at);
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
    output.object("history", &json!({ "version": version.0, "records": objects }));
    if records.is_empty() {
        output.result(&format!("nothing is recorded about {version}"));
    }
    for (store, seen) in &records {
        output.result(&format!(
            "{}  {:<8} {:<20} {:<9} #{}  run {}",
            local(seen.recorded_at),
            store.title(),
            seen.record.step.name.to_string(),
            seen.record.event.word(),
            seen.record.attempt,
            seen.run_id
        ));
    }
    Ok(())
}
