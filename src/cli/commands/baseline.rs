//! `migrate baseline`: what is there already is recorded, and not run.

use crate::cli::args::{self, Global};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::project::{self, Project, Ways, stop_on_signals};
use crate::core::id::Version;
use crate::core::migration::MigrationSet;
use crate::core::plan;
use crate::engine::baseline::{self as engine, FailedBaseline};
use serde_json::json;
use std::collections::BTreeSet;

/// Runs the command.
///
/// # Errors
/// See docs/cli.md for the exit codes.
pub async fn run(global: &Global, args: &args::Baseline, output: &Output) -> Result<Exit, Failure> {
    let version = project::version(&args.version)?;
    let mut project = Project::open(global, "baseline").await?;
    let versions = plan::up_to(&project.set, version).map_err(FailedBaseline::from)?;
    project.run.reason.clone_from(&args.reason);
    let recorded = record(&mut project, &versions, output).await?;
    output.object("baseline", &json!({ "version": version.0, "recorded": numbers(&recorded) }));
    output.remark(&match recorded.as_slice() {
        [] => format!("nothing to do: everything up to {version} is recorded already"),
        recorded => said(&project.set, recorded),
    });
    Ok(Exit::Ok)
}

/// Records these as already there; returns those that were not recorded before.
///
/// # Errors
/// As [`run`].
pub async fn record(
    project: &mut Project,
    versions: &BTreeSet<Version>,
    output: &Output,
) -> Result<Vec<Version>, Failure> {
    let stop = stop_on_signals(None)?;
    let mut notices = output.notices();
    let ways = Ways::of(&project.config, false);
    let folder = project::folder(&project.config);
    let (stores, settings) = project.parts(&ways, &stop);
    let done = Box::pin(engine::baseline(stores, versions, settings, &mut notices)).await;
    notices.finish();
    done.map_err(|error| Failure::from(error).in_folder(&folder))
}

/// What was recorded, and what comes next.
pub fn said(set: &MigrationSet, recorded: &[Version]) -> String {
    let folder = |version: Version| set.get(version).map_or("", |it| it.folder.as_str());
    let lines = recorded.iter().map(|version| format!("  {}", folder(*version)));
    let lines: Vec<String> = lines.collect();
    let next = set.iter().find(|migration| recorded.iter().all(|it| migration.version > *it));
    let next = match next {
        Some(migration) => format!("`migrate up` begins with {}", migration.folder),
        None => "nothing is pending".to_owned(),
    };
    format!("recorded as already there, without running anything:\n{}\n{next}", lines.join("\n"))
}

/// Versions for JSON.
pub fn numbers(versions: &[Version]) -> Vec<u64> {
    versions.iter().map(|version| version.0).collect()
}
