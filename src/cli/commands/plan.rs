//! `migrate plan`: the same value that would be carried out, printed.

use crate::cli::args::{self, Global, PlanOf};
use crate::cli::commands::{cleanup, down, up};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::project::{Files, Project};
use crate::core::destroys::destroys;
use crate::core::duration;
use crate::core::grouped::grouped;
use crate::core::history::{Event, Record};
use crate::core::id::{Direction, StepId, StoreName};
use crate::core::one_line::one_line;
use crate::core::parse::manifest::Work;
use crate::core::plan::{Action, Attempt, Plan, Waits};
use crate::core::status::without_number;
use crate::core::step::{Body, Commit, Step};
use crate::engine::run::plan_now;
use crate::report::human::{Look, clip, step_column};
use crate::report::json::way;
use crate::store::Stores;
use crate::store::backfill::{Backfills as _, Job};
use crate::store::copy::{Query, Source as _};
use crate::store::mongo::Mongo;
use crate::store::postgres::Postgres;
use serde_json::{Value, json};
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
    let Project { stores, set, servers, .. } = &mut project;
    let (plan, _) = plan_now(stores, set, servers, &goal).await?;
    let rows = estimates(stores, &plan).await;
    output.result(&tree(&plan, &rows, output.result_look));
    output.object("plan", &object(&plan, &rows, direction));
    Ok(Exit::Ok)
}

/// About how many rows the backfills of a plan would go through.
pub type Rows = BTreeMap<StepId, u64>;

/// Asks the databases for [`Rows`]. One that is not there has no table yet, or could
/// not be had: that is no reason to show no plan.
pub async fn estimates(stores: &mut Stores<Postgres, Mongo>, plan: &Plan) -> Rows {
    let mut rows = Rows::new();
    for work in &plan.work {
        for it in work.actions.iter().filter_map(attempt) {
            let Body::Backfill(backfill) = &it.step.body else { continue };
            let step = StepId { version: work.version, name: it.step.name.clone() };
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
                (Work::Update { .. } | Work::Sql { .. }, Some(postgres), _) => {
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

/// The plan as a tree: migration, step, statements; a bracket is a transaction.
pub fn tree(plan: &Plan, rows: &Rows, look: Look) -> String {
    let mut lines = Vec::new();
    for work in &plan.work {
        let verb = match work.direction {
            Direction::Up => "up  ",
            Direction::Down => "down",
        };
        lines.push(format!("{verb} {}", look.bold(&work.folder)));
        let begun = lines.len();
        let column = step_column(work.longest_name());
        for action in &work.actions {
            match action {
                Action::Run(it) | Action::Settle(it) | Action::Abandon(it) => {
                    let id = StepId { version: work.version, name: it.step.name.clone() };
                    let how = how(action, &it.step, rows.get(&id).copied());
                    lines.extend(step_lines(&it.step, &how, column, look));
                }
                Action::Check(steps) => {
                    let names: Vec<String> = steps.iter().map(|it| it.name.to_string()).collect();
                    lines.push(format!("  asks again: {}", names.join(", ")));
                }
                Action::Pause(time) => lines.push(format!("  waits {}", duration::show(*time))),
                Action::Hold => {
                    lines.push(format!("  {}", look.warn("and is held: its cleanup waits")));
                }
                _ => {}
            }
        }
        if lines.len() == begun {
            lines.push(format!("  {}", look.dim("only its row in the history")));
        }
    }
    if !plan.ahead.is_empty() {
        let versions: Vec<String> = plan.ahead.iter().map(ToString::to_string).collect();
        lines.push(look.dim(&format!("ahead of these files: {}", versions.join(", "))));
    }
    if plan.then_plan_again {
        lines.push(look.dim("what follows depends on what is found there"));
    }
    for Waits { folder, behind, why, .. } in &plan.waiting {
        lines.push(look.warn(&format!("{folder} waits behind {behind}: {why}")));
    }
    if plan.work.is_empty() {
        lines.push("nothing to do".to_owned());
    }
    lines.join("\n")
}

fn attempt(action: &Action) -> Option<&Attempt> {
    match action {
        Action::Run(attempt) | Action::Settle(attempt) | Action::Abandon(attempt) => Some(attempt),
        Action::Intend(..)
        | Action::Close(..)
        | Action::Accept(_)
        | Action::Check(_)
        | Action::Pause(_)
        | Action::Hold
        | Action::Seal
        | Action::Unseal => None,
    }
}

/// How a step is carried out.
fn how(action: &Action, step: &Step, rows: Option<u64>) -> String {
    match (action, &step.body, step.commit) {
        (Action::Settle(_), Body::Backfill(_), _) => {
            "goes on in batches: it was interrupted".to_owned()
        }
        (Action::Settle(_), Body::Program(_), _) => "begins anew: it was interrupted".to_owned(),
        (Action::Settle(_), ..) => "settles: it was interrupted".to_owned(),
        (Action::Abandon(_), ..) => "clears: it was interrupted".to_owned(),
        (_, Body::Backfill(backfill), _) => {
            let copies = if backfill.work.is_copy() { "copies in batches" } else { "in batches" };
            match (rows, backfill.work.source()) {
                (Some(rows), StoreName::Postgres) => {
                    format!("{copies}, about {} rows", grouped(rows))
                }
                (Some(rows), StoreName::Mongo) => {
                    format!("{copies}, about {} documents", grouped(rows))
                }
                (None, _) => copies.to_owned(),
            }
        }
        (_, Body::Check(_), _) => "asks".to_owned(),
        (_, Body::Program(_), _) => "runs a program".to_owned(),
        (_, _, Commit::Atomic) => "one transaction, with its record".to_owned(),
        (_, _, Commit::Journaled) => "on its own, announced and recorded".to_owned(),
    }
}

fn step_lines(step: &Step, how: &str, column: usize, look: Look) -> Vec<String> {
    let place = format!("{}:{}", step.file, step.line);
    let mut lines = vec![format!(
        "  {:<column$} {:<8} {}",
        step.name.to_string(),
        step.store().title(),
        look.dim(&format!("{how}  {place}"))
    )];
    let room = look.width.saturating_sub(6);
    let statements = statements(step);
    let count = statements.len();
    for (at, (text, _)) in statements.iter().enumerate() {
        let mark = match (step.commit, count, at) {
            (Commit::Journaled, _, _) | (_, 1, _) => "·",
            (Commit::Atomic, _, 0) => "┌",
            (Commit::Atomic, count, at) if at + 1 == count => "└",
            (Commit::Atomic, _, _) => "│",
        };
        lines.push(format!("    {mark} {}", clip(&one_line(text), room)));
    }
    for lost in destroys(step) {
        lines.push(format!(
            "    {} {}",
            look.warn("destroys data:"),
            clip(&lost, room.saturating_sub(15))
        ));
    }
    lines
}

/// Each statement with its line in the file.
fn statements(step: &Step) -> Vec<(String, u32)> {
    match &step.body {
        Body::Postgres(body) => body
            .statements
            .iter()
            .map(|statement| (statement.text.clone(), statement.line))
            .collect(),
        Body::Mongo(body) if body.commands.is_empty() => Vec::new(),
        Body::Mongo(body) => vec![(body.text.clone(), step.line)],
        Body::Backfill(backfill) => vec![(backfill.statement(), step.line)],
        Body::Check(invariant) => {
            invariant.check.questions().into_iter().map(|text| (text, step.line)).collect()
        }
        Body::Program(program) => vec![(program.command.join(" "), step.line)],
    }
}

fn object(plan: &Plan, rows: &Rows, direction: Direction) -> Value {
    let migrations: Vec<Value> = plan
        .work
        .iter()
        .map(|work| {
            let steps: Vec<Value> = work
                .actions
                .iter()
                .filter_map(|action| attempt(action).map(|attempt| (action, attempt)))
                .map(|(action, attempt)| {
                    let name = attempt.step.name.clone();
                    let id = StepId { version: work.version, name };
                    step_object(action, attempt, rows.get(&id).copied())
                })
                .collect();
            json!({
                "version": work.version.0,
                "name": without_number(&work.folder),
                "direction": way(work.direction),
                "steps": steps,
                "holds": work.actions.contains(&Action::Hold),
            })
        })
        .collect();
    json!({
        "direction": way(direction),
        "migrations": migrations,
        "ahead": plan.ahead.iter().map(|version| version.0).collect::<Vec<_>>(),
        "held": plan.held.iter().map(|version| version.0).collect::<Vec<_>>(),
        "open": plan.open.map(|version| version.0),
        "waiting": plan.waiting.iter().map(waits_object).collect::<Vec<_>>(),
        "then_plan_again": plan.then_plan_again,
    })
}

/// A migration that may not begin yet.
pub fn waits_object(waits: &Waits) -> Value {
    let Waits { version, folder, behind, why } = waits;
    let name = without_number(folder);
    json!({ "version": version.0, "name": name, "behind": behind.0, "why": why })
}

fn step_object(action: &Action, attempt: &Attempt, rows: Option<u64>) -> Value {
    let step = &attempt.step;
    let action = match action {
        Action::Settle(_) => "settle",
        Action::Abandon(_) => "abandon",
        _ => "run",
    };
    let commit = match step.commit {
        Commit::Atomic => "transaction",
        Commit::Journaled => "alone",
    };
    let statements: Vec<Value> = statements(step)
        .into_iter()
        .map(|(text, line)| json!({ "text": text, "line": line }))
        .collect();
    json!({
        "step": step.name.to_string(),
        "store": step.store().word(),
        "action": action,
        "commit": commit,
        "attempt": attempt.attempt,
        "file": step.file,
        "line": step.line,
        "statements": statements,
        "destroys": destroys(step),
        "rows": rows,
    })
}
