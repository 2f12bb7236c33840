//! `migrate verify`.

use crate::cli::args::Global;
use crate::cli::exit::Exit;
use crate::cli::failure::{Failure, stopped};
use crate::cli::output::Output;
use crate::cli::project::{Files, Project, stop_on_signals};
use crate::core::id::Version;
use crate::core::migration::Migration;
use crate::core::status::{self, State};
use crate::core::step::{Body, Timeouts};
use crate::core::verify::{Finding, verify};
use crate::engine::SystemClock;
use crate::engine::invariant::{Asking, Unanswered, check, lag};
use crate::engine::lock;
use crate::report::human::Look;
use serde_json::{Value, json};

/// Runs the command.
///
/// # Errors
/// See docs/cli.md for the exit codes.
pub async fn run(global: &Global, output: &Output) -> Result<Exit, Failure> {
    let mut project = Project::open_with(global, "verify", Files::Compared).await?;
    let read = lock::read(&mut project.stores).await?;
    project.check_templates(&read.histories)?;
    let known = status::lines(&project.set, &read.histories, &project.stores.configured());
    for line in &known {
        if !project.set.get(line.version).is_some_and(Migration::is_unfilled) {
            continue;
        }
        let what = match line.state {
            State::Pending => "`up` needs them",
            State::Partial | State::Held => {
                "what is applied of it cannot be compared, and `up` needs them"
            }
            _ => "its checksum is compared, and its invariants are not asked",
        };
        let version = line.version;
        output.remark(&format!("{version} is a template whose values are not known here: {what}"));
    }
    let mut findings = findings(&mut project).await?;
    // Of histories that disagree nobody knows what is finished.
    if findings.is_empty() {
        findings.extend(lasting(&mut project).await?);
    }
    let objects: Vec<Value> = findings.iter().map(object).collect();
    output.object("verify", &json!({ "ok": findings.is_empty(), "findings": objects }));
    if findings.is_empty() {
        let look = output.result_look;
        output.result(&look.good("files and histories agree"));
        return Ok(Exit::Ok);
    }
    for finding in &findings {
        output.result(&lines(finding, output.result_look));
    }
    match findings.iter().all(|finding| finding.code == BROKEN) {
        true => Ok(Exit::Invariant),
        false => Ok(Exit::Conflict),
    }
}

/// An invariant that does not hold.
const BROKEN: &str = "INVARIANT_BROKEN";

/// The invariants of finished migrations that are to hold for good and do not.
async fn lasting(project: &mut Project) -> Result<Vec<Finding>, Failure> {
    let histories = lock::read(&mut project.stores).await?.histories;
    let lines = status::lines(&project.set, &histories, &project.stores.configured());
    let is_finished = |version: Version| {
        lines.iter().any(|line| line.version == version && line.state == State::Completed)
    };
    let stop = stop_on_signals(None)?;
    let limits = project.config.throttle.pace().limits;
    let mut findings = Vec::new();
    for migration in project.set.iter().filter(|migration| is_finished(migration.version)) {
        for step in &migration.steps {
            let Body::Check(invariant) = &step.body else { continue };
            if !invariant.lasting {
                continue;
            }
            let asking = Asking {
                clock: &SystemClock,
                timeouts: Timeouts::default(),
                lag: lag(&mut project.stores, &invariant.check, &limits).await,
                stop: &stop,
                version: migration.version,
                record: None,
            };
            let checked = check(&mut project.stores, invariant, &asking, &mut |_| {}).await;
            let checked = checked.map_err(|error| match error {
                Unanswered::Store(error) => Failure::from(error),
                Unanswered::Stopped(reason) => stopped(reason, format!("stopped: {reason}")),
            })?;
            let Some(broken) = checked.broken(invariant) else { continue };
            let mut message = format!("{}: {broken}", migration.folder);
            for row in &broken.sample {
                message.push_str(&format!("\n    {row}"));
            }
            findings.push(Finding {
                code: BROKEN,
                version: Some(migration.version),
                message,
                next: "mend the data; the invariant is marked `lasting`, so it is to hold for good"
                    .to_owned(),
            });
        }
    }
    Ok(findings)
}

/// Everything that is not as it should be, the pair included.
///
/// # Errors
/// A store that cannot be read.
pub async fn findings(project: &mut Project) -> Result<Vec<Finding>, Failure> {
    let read = lock::read(&mut project.stores).await?;
    let mut findings = Vec::new();
    if let Err(error) = lock::check_pair(&project.stores, &read) {
        let failure = Failure::from(error);
        findings.push(Finding {
            code: failure.code,
            version: None,
            message: failure.message,
            next: failure.next.unwrap_or_default(),
        });
    }
    findings.extend(verify(&project.set, &read.histories, &project.servers));
    Ok(findings)
}

/// One finding for people.
pub fn lines(finding: &Finding, look: Look) -> String {
    format!("{} {}\n  {}: {}", look.bad("✗"), finding.message, look.bold("next"), finding.next)
}

/// One finding for machines.
pub fn object(finding: &Finding) -> Value {
    json!({
        "code": finding.code,
        "version": finding.version.map(|version| version.0),
        "message": finding.message,
        "next": finding.next,
    })
}
