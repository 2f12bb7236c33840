//! `migrate status`.

use crate::cli::args::{self, Global};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::project::{self, Project};
use crate::core::plan::{Goal, PlanError, Up};
use crate::core::server::Servers;
use crate::core::status::{FileState, Line, State, lines};
use crate::engine::lock::{self, Read};
use crate::engine::run::{RunError, plan_now};
use crate::report::human::{Look, Volume, clip, duration};
use crate::report::{local, utc};
use comfy_table::{Cell, ContentArrangement, Table, presets};
use serde_json::{Value, json};
use std::time::Duration;

/// Runs the command.
///
/// # Errors
/// See docs/cli.md for the exit codes.
pub async fn run(global: &Global, args: args::Status, output: &Output) -> Result<Exit, Failure> {
    if output.volume == Volume::Verbose && !output.is_json() {
        let config = project::configure(global)?;
        for setting in config.origins.iter() {
            let origin = output.look.dim(&format!("({})", setting.origin));
            output.remark(&format!("{} = {}  {origin}", setting.key, setting.value));
        }
    }
    let mut project = Project::open(global, "status").await?;
    let read = lock::read(&mut project.stores).await?;
    let lines = lines(&project.set, &read.histories);
    let paired = lock::check_pair(&project.stores, &read);
    let pending = lines.iter().filter(|line| line.state.is_pending()).count();
    output.object("status", &object(&project.servers, &read, paired.is_ok(), pending, &lines));
    output.result(&table(&lines, output.result_look));
    if read.is_virgin() {
        output.result("these databases were never migrated by migrate; nothing was created");
    }
    output.result(&summary(&project, &read, &lines, output.result_look));
    paired?;
    refused(&mut project, &read).await?;
    match pending {
        0 => Ok(Exit::Ok),
        _ if args.exit_code => Ok(Exit::Pending),
        _ => Ok(Exit::Ok),
    }
}

/// A history that nobody but a person can have left: what `up` says against it. That
/// files do not fit it stands in the table.
async fn refused(project: &mut Project, read: &Read) -> Result<(), Failure> {
    let Project { stores, set, servers, .. } = project;
    let goal = Goal::Up(Up::default());
    match plan_now(stores, set, servers, &goal).await {
        // Only who has the lease knows what is so.
        Err(RunError::Plan(error)) if read.lease.is_none() => match error {
            PlanError::Gap { .. }
            | PlanError::Torn(_)
            | PlanError::Forged { .. }
            | PlanError::Unreadable { .. }
            | PlanError::Stray { .. } => Err(error.into()),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

fn summary(project: &Project, read: &Read, migrations: &[Line], look: Look) -> String {
    let mut lines = Vec::new();
    let count = |wanted: fn(&Line) -> bool| migrations.iter().filter(|line| wanted(line)).count();
    let mut servers = Vec::new();
    servers.extend(project.servers.postgres.as_ref().map(|it| format!("Postgres {}", it.version)));
    servers.extend(
        project
            .servers
            .mongo
            .as_ref()
            .map(|it| format!("MongoDB {} ({})", it.version, it.topology.word())),
    );
    if let Some(lease) = &read.lease {
        lines.push(look.warn(&format!(
            "a run is at work: {}, run {}, its lease lasts until {}",
            lease.holder,
            lease.run_id,
            local(lease.expires_at)
        )));
    }
    let edited = count(|line| line.file == FileState::Edited);
    let missing = count(|line| line.state == State::Missing);
    let mut what = match count(|line| line.state.is_pending()) {
        0 if edited + missing > 0 => "nothing pending".to_owned(),
        0 => look.good("nothing pending"),
        n => look.warn(&format!("{n} pending")),
    };
    // Or it would look as if `up` had nothing against it.
    for (count, word) in [(edited, "edited"), (missing, "missing")] {
        if count > 0 {
            what = format!("{what} · {}", look.bad(&format!("{count} {word}")));
        }
    }
    lines.push(format!("{what} · {}", servers.join(" · ")));
    lines.join("\n")
}

/// One line per migration, as wide as there is room.
fn table(lines: &[Line], look: Look) -> String {
    if lines.is_empty() {
        return "no migrations".to_owned();
    }
    /// What everything but the name takes.
    const OTHERS: usize = 50;
    /// From here on there is room for more.
    const WIDE: usize = 110;
    let wide = look.width >= WIDE;
    let room = look.width.saturating_sub(OTHERS + if wide { 34 } else { 0 }).max(16);
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    let mut header = vec!["", "migration", "postgres", "mongo", "applied at"];
    if wide {
        header.extend(["took", "release"]);
    }
    table.set_header(header.into_iter().map(|title| Cell::new(look.dim(title))));
    for line in lines {
        let name = clip(&format!("{} {}", line.version, line.name), room);
        let mut row = vec![
            mark(line, look),
            name,
            state(line.postgres, line.state, look),
            state(line.mongo, line.state, look),
            line.executed_at.map(local).unwrap_or_default(),
        ];
        if wide {
            let took = line.execution_time_ms.map(|ms| duration(Duration::from_millis(ms)));
            row.push(took.unwrap_or_default());
            row.push(line.release.clone().unwrap_or_default());
        }
        table.add_row(row);
        if let Some(phase) = line.phase {
            let text = match line.state {
                State::Held => format!("held: `migrate cleanup {}` finishes it", line.version),
                _ => format!("next phase: {phase}"),
            };
            table.add_row(vec![String::new(), look.dim(&text)]);
        }
        if line.file == FileState::Edited {
            table.add_row(vec![String::new(), look.bad("edited after it was applied")]);
        }
    }
    let text = table.to_string();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

fn mark(line: &Line, look: Look) -> String {
    let (symbol, word) = match line.state {
        _ if line.file == FileState::Edited => ("◐", "!"),
        State::Completed | State::Baseline => ("✓", "ok"),
        State::Pending => ("·", "-"),
        State::Partial | State::Held => ("◐", "!"),
        State::Missing | State::Ahead => ("?", "?"),
    };
    let text = if look.terminal { symbol } else { word };
    match line.state {
        _ if line.file == FileState::Edited => look.bad(text),
        State::Completed | State::Baseline => look.good(text),
        State::Pending => look.dim(text),
        _ => look.warn(text),
    }
}

/// The state of a part; that of the whole where it says more.
fn state(part: State, whole: State, look: Look) -> String {
    let shown = match whole {
        State::Missing | State::Ahead => whole,
        _ => part,
    };
    match shown {
        State::Completed | State::Baseline => look.good(shown.word()),
        State::Pending => look.dim(shown.word()),
        _ => look.warn(shown.word()),
    }
}

fn object(servers: &Servers, read: &Read, paired: bool, pending: usize, lines: &[Line]) -> Value {
    let migrations: Vec<Value> = lines
        .iter()
        .map(|line| {
            json!({
                "version": line.version.0,
                "name": line.name,
                "state": line.state.word(),
                "postgres": line.postgres.word(),
                "mongo": line.mongo.word(),
                "checksum": line.file.word(),
                "phase": line.phase.map(crate::core::id::Phase::word),
                "executed_at": line.executed_at.map(utc),
                "execution_time_ms": line.execution_time_ms,
                "release": line.release,
            })
        })
        .collect();
    json!({
        "postgres": servers.postgres.as_ref().map(|server| json!({
            "reachable": true, "version": server.version,
        })),
        "mongo": servers.mongo.as_ref().map(|server| json!({
            "reachable": true, "version": server.version, "topology": server.topology.word(),
        })),
        "paired": paired && !read.is_virgin(),
        "lease": read.lease.as_ref().map(|lease| json!({
            "holder": lease.holder, "run_id": lease.run_id, "expires_at": utc(lease.expires_at),
        })),
        "pending": pending,
        "migrations": migrations,
    })
}
