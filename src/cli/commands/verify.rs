//! `migrate verify`.

use crate::cli::args::Global;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::project::Project;
use crate::core::verify::{Finding, verify};
use crate::engine::lock;
use crate::report::human::Look;
use serde_json::{Value, json};

/// Runs the command.
///
/// # Errors
/// See docs/cli.md for the exit codes.
pub async fn run(global: &Global, output: &Output) -> Result<Exit, Failure> {
    let mut project = Project::open(global, "verify").await?;
    let findings = findings(&mut project).await?;
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
    Ok(Exit::Conflict)
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
