//! `migrate cleanup`.

use crate::cli::args::{self, Global};
use crate::cli::commands::up::{Manner, carry_out, finish};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::project::{self, Project, stop_on_signals, unless_stopped};
use crate::cli::telemetry::Telemetry;
use crate::core::plan::Goal;
use crate::report::human::{Volume, duration, migrations};
use std::time::Instant;

/// The goal that the arguments describe.
///
/// # Errors
/// Exit code 2.
pub fn goal(args: &args::Cleanup) -> Result<Goal, Failure> {
    Ok(Goal::Cleanup(args.version.as_deref().map(project::version).transpose()?))
}

/// Runs the command.
///
/// # Errors
/// See docs/cli.md for the exit codes.
pub async fn run(global: &Global, args: &args::Cleanup, output: &Output) -> Result<Exit, Failure> {
    let began = Instant::now();
    let telemetry = Telemetry::new("cleanup", global, &args.telemetry);
    let (report, exit) = finish(
        &telemetry,
        output,
        Box::pin(async {
            let goal = goal(args)?;
            let stop = stop_on_signals(project::time_limit(global, None)?)?;
            let opening = Box::pin(Project::open(global, "cleanup"));
            let mut project = unless_stopped(&stop, opening).await?;
            telemetry.run_is(&project.run);
            let watched = (output, &telemetry);
            let manner = Manner::default();
            let report = carry_out(&mut project, &goal, None, &stop, manner, watched).await?;
            Ok((report, Exit::Ok))
        }),
    )
    .await?;
    match report.finished.len() {
        0 => output.remark("nothing to do: no migration is held"),
        _ if output.volume == Volume::Quiet => {}
        n => output.remark(&format!("finished {} in {}", migrations(n), duration(began.elapsed()))),
    }
    Ok(exit)
}
