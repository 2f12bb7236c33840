//! `migrate up`.

use crate::cli::args::{self, Global};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::{Output, failure_json};
use crate::cli::project::{self, Project, Ways, stop_on_signals, unless_stopped};
use crate::cli::telemetry::Telemetry;
use crate::core::id::Phase;
use crate::core::migration::OnFailure;
use crate::core::parse::manifest::CleanupPolicy;
use crate::core::plan::{Goal, OutOfOrder, Plan, Up};
use crate::engine::hook::Moment;
use crate::engine::run::{self, Meanwhile, Report, Settings};
use crate::report::human::{Volume, duration, migrations};
use crate::report::plan::waits_line;
use serde_json::Value;
use std::time::Instant;

/// The goal that the flags describe.
///
/// # Errors
/// Exit code 2.
pub fn goal(args: &args::Up) -> Result<Goal, Failure> {
    Ok(Goal::Up(Up {
        to: args.to.as_deref().map(project::version).transpose()?,
        steps: args.steps,
        out_of_order: match args.allow_out_of_order {
            true => OutOfOrder::Allow,
            false => OutOfOrder::Refuse,
        },
        through: args.through.map(Phase::from),
        policy: CleanupPolicy::default(),
        release: args.release.clone(),
        on_failure: match args.rollback_on_failure {
            true => OnFailure::Rollback,
            false => OnFailure::Stop,
        },
    }))
}

/// Adds what the configuration says about it.
pub fn complete(goal: &mut Goal, project: &Project) {
    if let Goal::Up(up) = goal {
        up.policy = project.config.cleanup.policy;
    }
}

/// Runs the command.
///
/// # Errors
/// See docs/cli.md for the exit codes.
pub async fn run(global: &Global, args: &args::Up, output: &Output) -> Result<Exit, Failure> {
    let began = Instant::now();
    let telemetry = Telemetry::new("up", global, &args.telemetry);
    let done = finish(
        &telemetry,
        output,
        Box::pin(async {
            let mut goal = goal(args)?;
            let stop = stop_on_signals(project::time_limit(global, args.timeout)?)?;
            let opening = Box::pin(Project::open(global, "up"));
            let mut project = unless_stopped(&stop, opening).await?;
            complete(&mut goal, &project);
            project.run.release.clone_from(&args.release);
            telemetry.run_is(&project.run);
            let manner = Manner::of(args);
            let watched = (output, &telemetry);
            let report = carry_out(&mut project, &goal, None, &stop, manner, watched).await?;
            let exit = if report.waiting.is_empty() { Exit::Ok } else { Exit::Pending };
            Ok(((report, project.set.len()), exit))
        }),
    )
    .await?;
    let ((report, files), exit) = done;
    if !report.ahead.is_empty() {
        let versions: Vec<String> = report.ahead.iter().map(ToString::to_string).collect();
        output.remark(&format!(
            "the databases are ahead of these files: a newer release applied {}",
            versions.join(", ")
        ));
    }
    match report.finished.len() {
        0 if files == 0 => output.remark("nothing to do: the migrations folder is empty"),
        0 if report.open.is_some() || !report.waiting.is_empty() => {}
        0 if !report.held.is_empty() => output.remark("nothing to do"),
        0 => output.remark("nothing to do: every migration is applied"),
        _ if output.volume == Volume::Quiet => {}
        n => output.remark(&format!("applied {} in {}", migrations(n), duration(began.elapsed()))),
    }
    say_held(&report, output);
    Ok(exit)
}

/// What is held, and what waits behind it.
pub fn say_held(report: &Report, output: &Output) {
    if let Some(version) = report.open {
        output.remark(&format!("{version} stays open: `migrate up` goes on with it"));
    }
    for version in &report.held {
        output.remark(&format!("{version} is held: `migrate cleanup {version}` finishes it"));
    }
    for waits in &report.waiting {
        output.remark(&output.look.warn(&waits_line(waits)));
    }
}

/// Runs a command that others watch, and whose last JSON object is always
/// `run_finished`.
///
/// # Errors
/// The command's own.
pub async fn finish<T>(
    telemetry: &Telemetry,
    output: &Output,
    work: impl Future<Output = Result<(T, Exit), Failure>>,
) -> Result<(T, Exit), Failure> {
    let result = work.await;
    let command = telemetry.command;
    match &result {
        Ok((_, exit)) => {
            telemetry.end(Ok(*exit), output).await;
            output.run_finished(command, Ok(exit.code()));
        }
        Err(failure) => {
            telemetry.end(Err(failure), output).await;
            output.run_finished(command, Err(failure));
        }
    }
    // It has said what went wrong.
    result.map_err(|mut failure| {
        failure.said |= output.is_json();
        failure
    })
}

/// How a goal is reached.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Backfills go as fast as they can.
    unthrottled: bool,
    /// What is done while another run has the lease.
    meanwhile: Meanwhile,
}

impl Manner {
    fn of(args: &args::Up) -> Manner {
        let meanwhile = if args.join { Meanwhile::Join } else { Meanwhile::Wait };
        Manner { unthrottled: args.unthrottled, meanwhile }
    }
}

/// Reaches a goal with the databases of a project.
///
/// # Errors
/// See docs/cli.md for the exit codes.
pub async fn carry_out(
    project: &mut Project,
    goal: &Goal,
    confirmed: Option<&Plan>,
    stop: &crate::engine::Stop,
    manner: Manner,
    (output, telemetry): (&Output, &Telemetry),
) -> Result<Report, Failure> {
    let mut notices = telemetry.beside(output.notices());
    let ways = Ways::of(&project.config, manner.unthrottled).with_hooks(&project.config);
    let folder = project::folder(&project.config);
    let (stores, settings) = project.parts(&ways, stop);
    let settings = Settings { meanwhile: manner.meanwhile, ..settings };
    let done = Box::pin(run::run(stores, goal, confirmed, settings, &mut notices)).await;
    let finished: Vec<u64> = match &done {
        Ok(report) => report.finished.iter().map(|version| version.0).collect(),
        Err(error) => error.finished().iter().map(|version| version.0).collect(),
    };
    let report = done.map_err(|error| Failure::from(error).in_folder(&folder));
    if let (Some(hooks), Some((moment, end))) = (ways.hooks(), ending(goal, &report)) {
        hooks.end(moment, end, &finished, stop, &mut notices).await;
    }
    notices.finish();
    report
}

/// The hook at the end of a run, and what it is told: none, when somebody asked the
/// run to stop by a signal, and waits for that.
fn ending(
    goal: &Goal,
    result: &Result<Report, Failure>,
) -> Option<(Moment, (&'static str, u8, Value))> {
    match result {
        Ok(report) => {
            let moment = match goal {
                Goal::Up(_) => Moment::AfterUp,
                Goal::Down(_) => Moment::AfterDown,
                Goal::Cleanup(_) => return None,
            };
            let exit = if report.waiting.is_empty() { Exit::Ok } else { Exit::Pending };
            Some((moment, (exit.word(), exit.code(), Value::Null)))
        }
        Err(failure) if matches!(failure.exit, Exit::Interrupted | Exit::Terminated) => None,
        Err(failure) => {
            let end = (failure.exit.word(), failure.exit.code(), failure_json(failure));
            Some((Moment::OnFailure, end))
        }
    }
}
