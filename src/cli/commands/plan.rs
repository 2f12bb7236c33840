//! `migrate plan`: the same value that would be carried out, printed.

use crate::cli::args::{self, Global, PlanOf};
use crate::cli::commands::{backup, cleanup, down, up};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::project::{Files, Project};
use crate::core::history::{Event, Record};
use crate::core::id::{Direction, StepId};
use crate::core::outlook;
use crate::core::parse::manifest::Work;
use crate::core::plan::Plan;
use crate::core::step::Body;
use crate::engine::run::plan_now;
use crate::report::plan::{Foreseen, object, tree};
use crate::store::Stores;
use crate::store::backfill::{Backfills as _, Job};
use crate::store::copy::{Query, Source as _};
use crate::store::mongo::Mongo;
use crate::store::postgres::Postgres;
use std::collections::BTreeMap;

/// Runs the command.
///
/// # Errors
/// See docs/cli.md for the exit codes.
pub async fn run(global: &Global, args: &args::Plan, output: &Output) -> Result<Exit, Failure> {
    let (mut goal, direction) = match &args.of {
        None => (up::goal(&args.up)?, Direction::Up),
        Some(PlanOf::Up(args)) => (up::goal(args)?, Direction::Up),
        Some(PlanOf::Cleanup(args)) => (cleanup::goal(args)?, Direction::Up),
        Some(PlanOf::Down(args)) => (down::goal(args)?, Direction::Down),
    };
    let files = match direction {
        Direction::Up => Files::Needed,
        Direction::Down => Files::IfThere,
    };
    let mut project = Project::open_with(global, "plan", files).await?;
    up::complete(&mut goal, &project);
    let Project { config, stores, set, servers, .. } = &mut project;
    let (plan, _) = plan_now(stores, set, servers, &goal).await?;
    let mut foreseen = foresee(stores, &plan).await;
    foreseen.backups = backup::needs(stores, &plan, config.cleanup.require_backup).await?;
    output.result(&tree(&plan, &foreseen, output.result_look));
    output.object("plan", &object(&plan, &foreseen, direction));
    Ok(Exit::Ok)
}

/// Asks both databases what the plan meets there. What could not be found out is no
/// reason to show no plan.
pub async fn foresee(stores: &mut Stores<Postgres, Mongo>, plan: &Plan) -> Foreseen {
    let rows = estimates(stores, plan).await;
    let (wanted, asks) = (outlook::wanted(plan), outlook::asks(plan));
    let (postgres, mongo) = futures_util::future::join(
        async {
            match &mut stores.postgres {
                Some(store) => store.look_ahead(&wanted).await,
                None => outlook::PostgresFacts::default(),
            }
        },
        async {
            match &stores.mongo {
                Some(store) => store.look_ahead(&asks).await,
                None => outlook::MongoFacts::default(),
            }
        },
    )
    .await;
    Foreseen { rows, outlooks: outlook::outlooks(plan, &postgres, &mongo), ..Foreseen::default() }
}

/// About how many rows the backfills of a plan would go through.
async fn estimates(stores: &mut Stores<Postgres, Mongo>, plan: &Plan) -> BTreeMap<StepId, u64> {
    let mut rows = BTreeMap::new();
    for work in &plan.work {
        for (step, it) in outlook::steps_of(work) {
            let Body::Backfill(backfill) = &it.step.body else { continue };
            let record = Record {
                step: step.clone(),
                attempt: it.attempt,
                event: Event::Progress,
                rank: work.rank,
                checksum: it.step.checksum,
                migration_checksum: work.checksum,
            };
            let (timeouts, max_bad) = (backfill.timeouts, backfill.max_bad);
            let job = Job { work: &backfill.work, record: &record, timeouts, max_bad };
            let estimate = match (&backfill.work, &mut stores.postgres, &mut stores.mongo) {
                (Work::Update { .. } | Work::Sql { .. } | Work::Call { .. }, Some(postgres), _) => {
                    postgres.estimate(job).await
                }
                (Work::Documents { .. }, _, Some(mongo)) => mongo.estimate(job).await,
                (Work::CopyToMongo { query, by, .. }, Some(postgres), _) => {
                    let rows = Query { sql: query, key: by.columns() };
                    postgres.estimate_rows(rows, job.timeouts).await
                }
                (Work::CopyToPostgres { from, .. }, _, Some(mongo)) => {
                    mongo.estimate_rows(from, job.timeouts).await
                }
                _ => Ok(None),
            };
            rows.extend(estimate.ok().flatten().map(|estimate| (step, estimate)));
        }
    }
    rows
}
