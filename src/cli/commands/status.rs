//! `migrate status`.

use crate::cli::args::{self, Global};
use crate::cli::commands::up::complete;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::project::{self, Files, Project};
use crate::core::history::RunSeen;
use crate::core::id::Version;
use crate::core::plan::{Goal, PlanError, Up, Waits};
use crate::core::server::Servers;
use crate::core::status::{FileState, Line, State, lines};
use crate::engine::lock::{self, Read};
use crate::engine::run::{RunError, plan_now};
use crate::report::human::{Look, Volume, clip, duration, wrap};
use crate::report::{local, utc};
use serde_json::{Value, json};
use std::collections::BTreeMap;
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
    let mut project = Project::open_with(global, "status", Files::Compared).await?;
    let read = lock::read(&mut project.stores).await?;
    project.check_templates(&read.histories)?;
    let lines = lines(&project.set, &read.histories, &project.stores.configured());
    let paired = lock::check_pair(&project.stores, &read);
    let pending = lines.iter().filter(|line| line.state.is_pending()).count();
    output.object("status", &object(&project.servers, &read, paired.is_ok(), pending, &lines));
    let planned = planned(&mut project, &read).await;
    let mut notes = Notes::default();
    if let Ok(waiting) = &planned {
        let line = |it: &Waits| (it.version, format!("waits behind {}: {}", it.behind, it.why));
        notes.waits = waiting.iter().map(line).collect();
    }
    // While a run is at work, nobody knows how it ends.
    if read.lease.is_none() {
        notes.failed = failures(&mut project, &lines).await;
    }
    output.result(&table(&lines, &notes, output.result_look));
    if read.is_virgin() {
        output.result("these databases were never migrated by migrate; nothing was created");
    }
    output.result(&summary(&project, &read, &lines, output.result_look));
    paired?;
    planned?;
    match pending {
        0 => Ok(Exit::Ok),
        _ if args.exit_code => Ok(Exit::Pending),
        _ => Ok(Exit::Ok),
    }
}

/// What `up` makes of it: the migrations that may not begin yet.
///
/// # Errors
/// A history that nobody but a person can have left: what `up` says against it. That
/// files do not fit it stands in the table.
async fn planned(project: &mut Project, read: &Read) -> Result<Vec<Waits>, Failure> {
    let mut goal = Goal::Up(Up::default());
    complete(&mut goal, project);
    let Project { stores, set, servers, .. } = project;
    match plan_now(stores, set, servers, &goal).await {
        Ok((plan, _)) => Ok(plan.waiting),
        // Only who has the lease knows what is so.
        Err(RunError::Plan(error)) if read.lease.is_none() => match error {
            PlanError::Gap { .. }
            | PlanError::Torn(_)
            | PlanError::Forged { .. }
            | PlanError::Unreadable { .. }
            | PlanError::Stray { .. } => Err(error.into()),
            _ => Ok(Vec::new()),
        },
        _ => Ok(Vec::new()),
    }
}

/// What there is to say below a migration besides its own states.
#[derive(Clone, Debug, Default)]
struct Notes {
    /// Of those that wait.
    waits: BTreeMap<Version, String>,
    /// Of those that stopped in the middle: what the last run said.
    failed: BTreeMap<Version, String>,
}

/// Why migrations stopped in the middle, as the audit log has it. If that cannot be
/// read, it is no reason to show less of the rest.
async fn failures(project: &mut Project, lines: &[Line]) -> BTreeMap<Version, String> {
    let mut failures = BTreeMap::new();
    let partial: Vec<&Line> = lines.iter().filter(|it| it.state == State::Partial).collect();
    if partial.is_empty() {
        return failures;
    }
    let mut runs: Vec<RunSeen> = Vec::new();
    if let Some(postgres) = &mut project.stores.postgres {
        runs.extend(postgres.runs().await.unwrap_or_default());
    }
    if let Some(mongo) = &mut project.stores.mongo {
        runs.extend(mongo.runs().await.unwrap_or_default());
    }
    runs.sort_by_key(|run| std::cmp::Reverse(run.started_at));
    for line in partial {
        // It begins with the step: `002/up/postgres/1: …`.
        let mark = format!("{}/", line.version);
        let is_since =
            |run: &&RunSeen| line.executed_at.is_none_or(|at| run.finished_at >= Some(at));
        let mut errors = runs.iter().filter(is_since).filter_map(|run| run.error.as_deref());
        if let Some(error) = errors.find_map(|error| error.strip_prefix(&mark)) {
            let words: Vec<&str> = error.split_whitespace().collect();
            failures.insert(line.version, format!("stopped at {}", words.join(" ")));
        }
    }
    failures
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
        let text = format!(
            "a run is at work: {}, run {}, its lease lasts until {}",
            lease.holder,
            lease.run_id,
            local(lease.expires_at)
        );
        // Where it is read by lines, it is one.
        let width = if look.terminal { look.width } else { usize::MAX };
        lines.extend(wrap(&text, width).iter().map(|part| look.warn(part)));
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
fn table(lines: &[Line], notes: &Notes, look: Look) -> String {
    if lines.is_empty() {
        return "no migrations".to_owned();
    }
    /// What everything but the name takes.
    const OTHERS: usize = 50;
    /// What the columns of a wide table take besides: a duration, a release, a note.
    const MORE: usize = 13 + 20 + NOTE;
    /// A note.
    const NOTE: usize = 47;
    /// From here on there is room for them.
    const WIDE: usize = 150;
    /// From here on there is room for the first two of them.
    const WIDER: usize = 110;
    /// A release that is longer is cut.
    const RELEASE: usize = 18;
    let wider = look.width >= WIDER;
    let wide = look.width >= WIDE;
    let others = match (wide, wider) {
        (true, _) => OTHERS + MORE,
        (false, true) => OTHERS + 13 + 20,
        (false, false) => OTHERS,
    };
    let room = look.width.saturating_sub(others).max(16);
    let mut header = vec!["", "migration", "postgres", "mongo", "applied at"];
    if wider {
        header.extend(["took", "release"]);
    }
    if wide {
        header.push("note");
    }
    let dim: fn(Look, &str) -> String = |look, text| look.dim(text);
    let header = header.into_iter().map(|title| (title.to_owned(), dim)).collect();
    let plain: fn(Look, &str) -> String = |_, text| text.to_owned();
    let mut rows: Vec<Row> = vec![header];
    for line in lines {
        let name = clip(&format!("{} {}", line.version, line.name), room);
        let mut row: Row = vec![
            mark(line, look),
            (name, plain),
            state(line.postgres, line.state),
            state(line.mongo, line.state),
            (line.executed_at.map(local).unwrap_or_default(), plain),
        ];
        if wider {
            let took = line.execution_time_ms.map(|ms| duration(Duration::from_millis(ms)));
            row.push((took.unwrap_or_default(), plain));
            row.push((clip(line.release.as_deref().unwrap_or_default(), RELEASE), plain));
        }
        let notes = notes_of(line, notes);
        // What is too long for its column stands below.
        let length: usize = notes.iter().map(|(text, _)| text.chars().count() + 2).sum();
        if wide && length <= NOTE + 2 {
            let style = notes.last().map_or(plain, |(_, style)| *style);
            let notes: Vec<String> = notes.into_iter().map(|(text, _)| text).collect();
            row.push((notes.join(", "), style));
            rows.push(row);
        } else {
            rows.push(row);
            /// In front of a note, and behind it.
            const MARGIN: usize = 6;
            let width = if look.terminal { look.width - MARGIN } else { usize::MAX };
            for (text, style) in notes {
                let parts = wrap(&text, width).into_iter();
                rows.extend(parts.map(|part| vec![(String::new(), plain), (part, style)]));
            }
        }
    }
    columns(&rows, look)
}

/// Cells of a line: each a text, and how it is painted, which takes no room.
type Row = Vec<(String, fn(Look, &str) -> String)>;

/// Rows below each other. The last cell of a row may be as long as it likes.
fn columns(rows: &[Row], look: Look) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter(|row| column + 1 < row.len() || column < 2 && row.len() > 2);
        let cells = cells.filter_map(|row| row.get(column));
        cells.map(|(text, _)| text.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let line = |row: &Row| {
        let mut line = String::new();
        for ((text, paint), width) in row.iter().zip(&widths) {
            let pad = width.saturating_sub(text.chars().count());
            line.push_str(&format!(" {}{:pad$} ", paint(look, text), ""));
        }
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// What there is to say about a migration besides its states.
fn notes_of(line: &Line, besides: &Notes) -> Row {
    let mut notes: Row = Vec::new();
    for said in [besides.failed.get(&line.version), besides.waits.get(&line.version)] {
        notes.extend(said.map(|text| -> (String, fn(Look, &str) -> String) {
            (text.clone(), |look, text| look.warn(text))
        }));
    }
    if let Some(phase) = line.phase {
        let text = match line.state {
            State::Held => format!("held: `migrate cleanup {}` finishes it", line.version),
            _ => format!("next phase: {phase}"),
        };
        notes.push((text, |look, text| look.dim(text)));
    }
    if let Some(text) = &line.unready {
        notes.push((text.clone(), |look, text| look.warn(text)));
    }
    if line.file == FileState::Edited {
        notes.push(("edited after it was applied".to_owned(), |look, text| look.bad(text)));
    }
    notes
}

fn mark(line: &Line, look: Look) -> (String, fn(Look, &str) -> String) {
    let (symbol, word) = match line.state {
        _ if line.file == FileState::Edited => ("◐", "!"),
        State::Completed | State::Baseline => ("✓", "ok"),
        State::Pending => ("·", "-"),
        State::Partial | State::Held => ("◐", "!"),
        State::Missing | State::Ahead => ("?", "?"),
    };
    let paint: fn(Look, &str) -> String = match line.state {
        _ if line.file == FileState::Edited => |look, text| look.bad(text),
        State::Completed | State::Baseline => |look, text| look.good(text),
        State::Pending => |look, text| look.dim(text),
        _ => |look, text| look.warn(text),
    };
    (look.symbol(symbol, word).to_owned(), paint)
}

/// The state of a part; that of the whole where it says more.
fn state(part: State, whole: State) -> (String, fn(Look, &str) -> String) {
    let shown = match whole {
        State::Missing | State::Ahead => whole,
        _ => part,
    };
    let paint: fn(Look, &str) -> String = match shown {
        State::Completed | State::Baseline => |look, text| look.good(text),
        State::Pending => |look, text| look.dim(text),
        _ => |look, text| look.warn(text),
    };
    (shown.word().to_owned(), paint)
}

/// What `--output json` says, but for what every object begins with.
pub(crate) fn object(
    servers: &Servers,
    read: &Read,
    paired: bool,
    pending: usize,
    lines: &[Line],
) -> Value {
    let migrations: Vec<Value> = lines
        .iter()
        .map(|line| {
            let mut migration = json!({
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
            });
            if let Some(text) = &line.unready {
                migration["reason"] = text.as_str().into();
            }
            migration
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::history::Timestamp;
    use crate::core::id::Phase;
    use expect_test::expect;

    fn line(version: u64, name: &str, state: State) -> Line {
        let at = state != State::Pending;
        Line {
            version: Version(version),
            name: name.to_owned(),
            state,
            is_open: state == State::Partial,
            postgres: state,
            mongo: if state == State::Partial { State::Pending } else { state },
            file: FileState::Same,
            phase: None,
            executed_at: at.then_some(Timestamp(1_790_000_000_000)),
            execution_time_ms: at.then_some(72_500),
            release: at.then(|| "2026-11-20-a-release-with-a-long-name".to_owned()),
            unready: None,
        }
    }

    #[test]
    fn the_table_fits_and_uses_what_there_is() {
        let held = Line { phase: Some(Phase::Cleanup), ..line(2, "roles", State::Held) };
        let partial = Line { phase: Some(Phase::Execute), ..line(3, "orders", State::Partial) };
        let edited = Line {
            file: FileState::Edited,
            ..line(4, "a-name-that-is-longer-than-all-the-others-that-there-are", State::Completed)
        };
        let lines = [
            line(1, "users", State::Completed),
            held,
            partial,
            edited,
            line(5, "later", State::Pending),
        ];
        let notes = Notes {
            waits: [(Version(5), "waits behind 002: both touch users in Postgres".to_owned())].into(),
            failed: [(
                Version(3),
                "stopped at execute/b: failed to run the step in Postgres: no relation of this name is there, and nobody knows why".to_owned(),
            )]
            .into(),
        };
        let at = |width| {
            let look = Look { colour: false, terminal: true, width };
            let text = table(&lines, &notes, look);
            assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
            let text = text.replace(&local(Timestamp(1_790_000_000_000)), "2026-09-21 14:13:20");
            let coloured = table(&lines, &notes, Look { colour: true, ..look });
            assert_eq!(coloured.lines().count(), text.lines().count());
            text.lines().map(|line| format!("|{line}")).collect::<Vec<_>>().join("\n")
        };
        expect![[r#"
            |     migration                       postgres   mongo      applied at
            | ok  001 users                       completed  completed  2026-09-21 14:13:20
            | !   002 roles                       held       held       2026-09-21 14:13:20
            |     held: `migrate cleanup 002` finishes it
            | !   003 orders                      partial    pending    2026-09-21 14:13:20
            |     stopped at execute/b: failed to run the step in Postgres: no relation of
            |     this name is there, and nobody knows why
            |     next phase: execute
            | !   004 a-name-that-is-longer-tha…  completed  completed  2026-09-21 14:13:20
            |     edited after it was applied
            | -   005 later                       pending    pending
            |     waits behind 002: both touch users in Postgres"#]]
        .assert_eq(&at(80));
        expect![[r#"
            |     migration                              postgres   mongo      applied at           took        release
            | ok  001 users                              completed  completed  2026-09-21 14:13:20  1 min 12 s  2026-11-20-a-rele…
            | !   002 roles                              held       held       2026-09-21 14:13:20  1 min 12 s  2026-11-20-a-rele…
            |     held: `migrate cleanup 002` finishes it
            | !   003 orders                             partial    pending    2026-09-21 14:13:20  1 min 12 s  2026-11-20-a-rele…
            |     stopped at execute/b: failed to run the step in Postgres: no relation of this name is there, and nobody knows why
            |     next phase: execute
            | !   004 a-name-that-is-longer-than-all-t…  completed  completed  2026-09-21 14:13:20  1 min 12 s  2026-11-20-a-rele…
            |     edited after it was applied
            | -   005 later                              pending    pending
            |     waits behind 002: both touch users in Postgres"#]].assert_eq(&at(120));
        expect![[r#"
            |     migration                                                     postgres   mongo      applied at           took        release             note
            | ok  001 users                                                     completed  completed  2026-09-21 14:13:20  1 min 12 s  2026-11-20-a-rele…
            | !   002 roles                                                     held       held       2026-09-21 14:13:20  1 min 12 s  2026-11-20-a-rele…  held: `migrate cleanup 002` finishes it
            | !   003 orders                                                    partial    pending    2026-09-21 14:13:20  1 min 12 s  2026-11-20-a-rele…
            |     stopped at execute/b: failed to run the step in Postgres: no relation of this name is there, and nobody knows why
            |     next phase: execute
            | !   004 a-name-that-is-longer-than-all-the-others-that-there-are  completed  completed  2026-09-21 14:13:20  1 min 12 s  2026-11-20-a-rele…  edited after it was applied
            | -   005 later                                                     pending    pending                                                         waits behind 002: both touch users in Postgres"#]].assert_eq(&at(200));
    }
}
