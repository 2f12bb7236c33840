//! `migrate down`.

use crate::cli::args::{self, Global};
use crate::cli::commands::plan;
use crate::cli::commands::up::{Manner, carry_out, finish};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::project::{self, Files, Project, stop_on_signals, unless_stopped};
use crate::cli::telemetry::Telemetry;
use crate::core::destroys::destroys;
use crate::core::plan::{Down, Goal, Plan, Work};
use crate::engine::run::{newest, plan_now};
use crate::report::human::{duration, migrations};
use crate::report::plan::{Foreseen, tree};
use std::io::IsTerminal;
use std::time::Instant;

/// The goal that the flags describe.
///
/// # Errors
/// Exit code 2.
pub fn goal(args: &args::Down) -> Result<Goal, Failure> {
    Ok(Goal::Down(match args {
        args::Down { to: Some(to), .. } => Down::To(project::version(to)?),
        args::Down { steps: Some(steps), .. } => Down::Steps(*steps),
        args::Down { last_run: true, .. } => Down::LastRun,
        args::Down { release: Some(release), .. } => Down::Release(release.clone()),
        _ => Down::Steps(1),
    }))
}

/// Runs the command.
///
/// # Errors
/// See docs/cli.md for the exit codes.
pub async fn run(global: &Global, args: &args::Down, output: &Output) -> Result<Exit, Failure> {
    let began = Instant::now();
    let telemetry = Telemetry::new("down", global, &args.telemetry);
    let ((report, stays), exit) = finish(
        &telemetry,
        output,
        Box::pin(async {
            let goal = goal(args)?;
            let stop = stop_on_signals(project::time_limit(global, None)?)?;
            let opening = Box::pin(Project::open_with(global, "down", Files::IfThere));
            let mut project = unless_stopped(&stop, opening).await?;
            telemetry.run_is(&project.run);
            let Project { stores, set, servers, .. } = &mut project;
            let (plan, read) = plan_now(stores, set, servers, &goal).await?;
            if plan.work.is_empty() {
                return Ok(((None, newest(&read.histories)), Exit::Ok));
            }
            warn(&project, &plan, output);
            let foreseen = match global.yes {
                true => Foreseen::default(),
                false => plan::foresee(&mut project.stores, &plan).await,
            };
            confirm(global, &plan, &foreseen, output)?;
            let (manner, watched) = (Manner::default(), (output, &telemetry));
            let report =
                carry_out(&mut project, &goal, Some(&plan), &stop, manner, watched).await?;
            Ok(((Some(report), None), Exit::Ok))
        }),
    )
    .await?;
    match (report.map_or(0, |report| report.finished.len()), stays) {
        (0, None) => output.remark("nothing to do: no migration is applied"),
        (0, Some(version)) => {
            output.remark(&format!("nothing to do: {version} was applied last, and it stays"));
        }
        (n, _) => {
            output.remark(&format!("reverted {} in {}", migrations(n), duration(began.elapsed())));
        }
    }
    Ok(exit)
}

/// Says what somebody should know before it happens: files that differ from what
/// the history keeps, and data that will be gone.
fn warn(project: &Project, plan: &Plan, output: &Output) {
    let look = output.look;
    for work in &plan.work {
        if let Some(file) = project.set.get(work.version)
            && file.rollback != work.rollback
        {
            output.remark(&look.warn(&format!(
                "the down scripts of {} on disk differ from those it was applied with; the history's are used",
                work.folder
            )));
        }
    }
    let lost: Vec<String> = plan.work.iter().flat_map(Work::steps).flat_map(destroys).collect();
    if !lost.is_empty() {
        output.remark(&look.warn("this destroys data:"));
        for statement in lost {
            output.remark(&format!("  {statement}"));
        }
    }
}

fn confirm(
    global: &Global,
    shown: &Plan,
    foreseen: &Foreseen,
    output: &Output,
) -> Result<(), Failure> {
    ask(global, output, "down", || tree(shown, foreseen, output.look))
}

/// Shows what will be done, and asks whether to go on, where somebody can answer.
///
/// # Errors
/// Exit code 9: nobody said yes.
pub fn ask(
    global: &Global,
    output: &Output,
    command: &str,
    shown: impl FnOnce() -> String,
) -> Result<(), Failure> {
    if global.yes {
        return Ok(());
    }
    let refused = |message: String| Failure::new(Exit::Refused, "UNCONFIRMED", message);
    let people = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if !people || output.is_json() {
        let look = match command {
            "down" => "look at `migrate plan down`, then ",
            _ => "",
        };
        let message = format!("{command} was not confirmed, and there is no terminal to ask on");
        return Err(refused(message).next(format!("nothing was changed; {look}run it with --yes")));
    }
    output.remark(&shown());
    let agreed = dialoguer::Confirm::new()
        .with_prompt("do this?")
        .default(false)
        .interact_opt()
        .unwrap_or(None);
    match agreed {
        Some(true) => Ok(()),
        Some(false) | None => {
            Err(refused(format!("{command} was not confirmed")).next("nothing was changed"))
        }
    }
}
