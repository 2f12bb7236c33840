//! `migrate plan`: the same value that would be carried out, printed.

use crate::cli::args::{self, Global, PlanOf};
use crate::cli::commands::{cleanup, down, up};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::project::{Files, Project};
use crate::core::destroys::destroys;
use crate::core::duration;
use crate::core::id::Direction;
use crate::core::one_line::one_line;
use crate::core::plan::{Action, Attempt, Plan, Waits};
use crate::core::status::without_number;
use crate::core::step::{Body, Commit, Step};
use crate::engine::run::plan_now;
use crate::report::human::{Look, clip};
use crate::report::json::way;
use serde_json::{Value, json};

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
    output.result(&tree(&plan, output.result_look));
    output.object("plan", &object(&plan, direction));
    Ok(Exit::Ok)
}

/// The plan as a tree: migration, step, statements; a bracket is a transaction.
pub fn tree(plan: &Plan, look: Look) -> String {
    let mut lines = Vec::new();
    for work in &plan.work {
        let verb = match work.direction {
            Direction::Up => "up  ",
            Direction::Down => "down",
        };
        lines.push(format!("{verb} {}", look.bold(&work.folder)));
        let begun = lines.len();
        for action in &work.actions {
            match action {
                Action::Run(it) | Action::Settle(it) | Action::Abandon(it) => {
                    lines.extend(step_lines(action, &it.step, look));
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

fn step_lines(action: &Action, step: &Step, look: Look) -> Vec<String> {
    let how = match (action, step.commit) {
        (Action::Settle(_), _) => "settles: it was interrupted",
        (Action::Abandon(_), _) => "clears: it was interrupted",
        (_, Commit::Atomic) => "one transaction, with its record",
        (_, Commit::Journaled) => "on its own, announced and recorded",
    };
    let place = format!("{}:{}", step.file, step.line);
    let mut lines = vec![format!(
        "  {:<17} {:<8} {}",
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

fn object(plan: &Plan, direction: Direction) -> Value {
    let migrations: Vec<Value> = plan
        .work
        .iter()
        .map(|work| {
            let steps: Vec<Value> = work
                .actions
                .iter()
                .filter_map(|action| attempt(action).map(|attempt| (action, attempt)))
                .map(|(action, attempt)| step_object(action, attempt))
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

fn step_object(action: &Action, attempt: &Attempt) -> Value {
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
    })
}
