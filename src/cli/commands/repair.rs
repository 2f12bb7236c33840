//! `migrate repair`: without a flag it only says what is wrong; each flag does
//! one thing.

use crate::cli::args::{self, Global};
use crate::cli::commands::down::ask;
use crate::cli::commands::verify;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::project::{self, Project, Ways, stop_on_signals};
use crate::core::id::{StepId, StepName, StoreName};
use crate::core::repair::{Repair, RepairError};
use crate::engine::repair::{self as engine, FailedRepair};
use serde_json::{Value, json};

/// Runs the command.
///
/// # Errors
/// See docs/cli.md for the exit codes.
pub async fn run(global: &Global, args: &args::Repair, output: &Output) -> Result<Exit, Failure> {
    let repair = wanted(args)?;
    let mut project = Project::open(global, "repair").await?;
    if repair.is_none() && !args.pair {
        return diagnose(&mut project, output).await;
    }
    project.run.reason.clone_from(&args.reason);
    let stop = stop_on_signals(None)?;
    let mut notices = output.notices();
    let ways = Ways::of(&project.config, false);
    let folder = project::folder(&project.config);
    let (stores, settings) = project.parts(&ways, &stop);
    let failed = |error: FailedRepair| Failure::from(error).in_folder(&folder);
    let Some(repair) = repair else {
        let shown = || "both databases will belong to one pair from now on".to_owned();
        ask(global, output, "repair --pair", shown)?;
        let pair = Box::pin(engine::pair(stores, settings, &mut notices)).await.map_err(failed)?;
        output.object("repair", &json!({ "pair": pair }));
        output.remark(&format!("Postgres and MongoDB are pair {pair} from now on"));
        return Ok(Exit::Ok);
    };
    let remedy = engine::remedy_now(stores, &repair, &settings).await.map_err(failed)?;
    output.remark(&remedy.to_string());
    ask(global, output, "repair", || "nothing else is touched".to_owned())?;
    let done = Box::pin(engine::repair(stores, &repair, settings, &mut notices)).await;
    notices.finish();
    done.map_err(failed)?;
    let lines: Vec<String> = remedy.to_string().lines().map(str::to_owned).collect();
    output.object("repair", &json!({ "done": lines }));
    output.remark("done; `migrate verify` looks again");
    Ok(Exit::Ok)
}

/// Says what is wrong, and which flag mends it.
async fn diagnose(project: &mut Project, output: &Output) -> Result<Exit, Failure> {
    let findings = verify::findings(project).await?;
    let objects: Vec<Value> = findings.iter().map(verify::object).collect();
    output.object("repair", &json!({ "findings": objects }));
    if findings.is_empty() {
        output.result("nothing to repair: files and histories agree");
        return Ok(Exit::Ok);
    }
    for finding in &findings {
        output.result(&verify::lines(finding, output.result_look));
    }
    Ok(Exit::Conflict)
}

/// The repair that the flags ask for.
fn wanted(args: &args::Repair) -> Result<Option<Repair>, Failure> {
    let only = args.store.map(StoreName::from);
    let place = |id: &StepId| match (&id.name, only) {
        (_, Some(store)) => Ok(store),
        (StepName::Script { store, .. }, None) => Ok(*store),
        (_, None) => Err(Failure::new(Exit::Usage, "USAGE", format!("in which store is {id}?"))
            .next("say so with --store")),
    };
    Ok(Some(match args {
        args::Repair { accept_checksum: Some(version), .. } => {
            Repair::AcceptChecksum(project::version(version)?)
        }
        args::Repair { replay: Some(store), .. } => Repair::Replay((*store).into()),
        args::Repair { mark_applied: Some(all), .. } if all == "all" => {
            Repair::MarkAllApplied(only)
        }
        args::Repair { mark_applied: Some(id), .. } => {
            let id = step(id)?;
            let store = place(&id)?;
            Repair::MarkApplied(id, store)
        }
        args::Repair { mark_reverted: Some(id), .. } => match id.parse() {
            Ok(version) => Repair::Forget(version, only),
            Err(_) => {
                let id = step(id)?;
                let store = place(&id)?;
                Repair::MarkReverted(id, store)
            }
        },
        args::Repair { redo: Some(id), .. } => Repair::Redo(step(id)?),
        _ => return Ok(None),
    }))
}

/// `007/up/postgres/1`, as messages have it; a blank after the version will do.
fn step(text: &str) -> Result<StepId, Failure> {
    let usage = || {
        Failure::new(Exit::Usage, "USAGE", format!("`{text}` is not a step")).next(
            "write its migration and its name: 007/up/postgres/1; `migrate history 7` lists them",
        )
    };
    let (version, name) = text.split_once(['/', ' ']).ok_or_else(usage)?;
    Ok(StepId {
        version: version.parse().map_err(|_| usage())?,
        name: name.parse().map_err(|_| usage())?,
    })
}

impl From<FailedRepair> for Failure {
    fn from(error: FailedRepair) -> Failure {
        match error {
            FailedRepair::Run(error) => error.into(),
            FailedRepair::Repair(RepairError::Plan(error)) => error.into(),
            FailedRepair::Repair(error) => {
                let next = error.hint();
                Failure::new(Exit::Usage, "NO_REPAIR", error.to_string()).next(next)
            }
        }
    }
}
