//! `migrate unlock`: takes the lease away from a run. What that run still tries to
//! write is refused from then on, whether it is dead or not.

use crate::cli::args::{self, Global};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::project::Project;
use serde_json::json;

/// Runs the command.
///
/// # Errors
/// Exit code 2 when that run does not have the lease.
pub async fn run(global: &Global, args: &args::Unlock, output: &Output) -> Result<Exit, Failure> {
    let mut project = Project::open(global, "unlock").await?;
    project.run.reason = Some(args.reason.clone());
    let mut taken = Vec::new();
    if let Some(postgres) = &mut project.stores.postgres
        && postgres.unlock(&args.run, &project.run).await?
    {
        taken.push("postgres");
    }
    if let Some(mongo) = &mut project.stores.mongo
        && mongo.unlock(&args.run, &project.run).await?
    {
        taken.push("mongo");
    }
    if taken.is_empty() {
        let message = format!("run {} does not have the lease", args.run);
        return Err(Failure::new(Exit::Usage, "NOT_THE_HOLDER", message).next(
            "nothing was changed; `migrate status` names the run that has it, if there is one",
        ));
    }
    output.object("unlock", &json!({ "run_id": args.run, "stores": taken }));
    output.remark(&format!(
        "took the lease in {} away from run {}; `migrate up` goes on from what it recorded",
        taken.join(" and "),
        args.run
    ));
    Ok(Exit::Ok)
}
