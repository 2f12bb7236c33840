//! Where things are said: results on stdout, everything else on stderr.

use crate::cli::args::{Color, Global, Output as Form};
use crate::cli::failure::Failure;
use crate::core::notice::{Notice, Notices};
use crate::core::problem::Place;
use crate::engine::{Clock as _, SystemClock};
use crate::report::human::{Human, Look, Volume, say, tame, wrap_after};
use crate::report::json;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};

/// Narrower than this, nothing is readable.
const WIDTH_MIN: usize = 40;

/// What a pipe is taken to be as wide as.
const WIDTH_PLAIN: usize = 100;

/// How this process talks.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// For people or for machines.
    pub form: Form,
    /// How much is said.
    pub volume: Volume,
    /// How it looks on stderr.
    pub look: Look,
    /// How results look on stdout.
    pub result_look: Look,
}

impl Output {
    /// As the flags and the terminal have it.
    pub fn new(global: &Global) -> Output {
        let look = |terminal: bool, coloured: bool, columns: usize| Look {
            terminal,
            colour: match global.color {
                Color::Always => true,
                Color::Never => false,
                Color::Auto => coloured,
            },
            width: if terminal { columns.max(WIDTH_MIN) } else { WIDTH_PLAIN },
        };
        let columns = |term: console::Term| usize::from(term.size().1);
        Output {
            form: global.output,
            volume: match (global.quiet, global.verbose) {
                (true, _) => Volume::Quiet,
                (false, 0) => Volume::Normal,
                (false, _) => Volume::Verbose,
            },
            look: look(
                std::io::stderr().is_terminal(),
                console::colors_enabled_stderr(),
                columns(console::Term::stderr()),
            ),
            result_look: look(
                std::io::stdout().is_terminal(),
                console::colors_enabled(),
                columns(console::Term::stdout()),
            ),
        }
    }

    /// Whether stdout is for machines.
    pub fn is_json(&self) -> bool {
        self.form == Form::Json
    }

    /// A result for people.
    pub fn result(&self, text: &str) {
        if !self.is_json() {
            print(text);
        }
    }

    /// What another program reads, as it is: a script for a shell, a manual page.
    pub fn document(&self, text: &[u8]) {
        let _ = std::io::stdout().lock().write_all(text);
    }

    /// A line on stdout, whatever stdout is for.
    pub fn line(&self, text: &str) {
        print(text);
    }

    /// What was done, for people: on stderr, because it is no result.
    pub fn remark(&self, text: &str) {
        if self.volume > Volume::Quiet && !self.is_json() {
            say(text);
        }
    }

    /// What somebody should know who asked for it; nothing failed.
    pub fn warning(&self, text: &str) {
        self.remark(&self.look.warn(text));
        self.object("remark", &json!({ "message": text }));
    }

    /// An object for machines.
    pub fn object(&self, event: &str, fields: &Value) {
        if self.is_json() {
            print(&json::object(event, SystemClock.now(), fields));
        }
    }

    /// The last object of a run.
    pub fn run_finished(&self, command: &str, result: Result<u8, &Failure>) {
        let (outcome, code, error) = match result {
            Ok(code) => ("ok", code, Value::Null),
            Err(failure) => (failure.exit.word(), failure.exit.code(), failure_json(failure)),
        };
        self.object(
            "run_finished",
            &json!({ "command": command, "outcome": outcome, "exit_code": code, "error": error }),
        );
    }

    /// A failure, as the last thing that is said.
    pub fn failure(&self, failure: &Failure) {
        if self.is_json() {
            self.object("error", &failure_json(failure));
            return;
        }
        for failure in std::iter::once(failure).chain(&failure.more) {
            let mut text = show(failure, self.look);
            if self.volume == Volume::Verbose {
                let (code, label) = (failure.code, self.look.bold("code"));
                text.push_str(&format!("\n  {label}: {code} (docs/errors/{code}.md)"));
            }
            say(&text);
        }
    }

    /// Where the engine's notices go.
    pub fn notices(&self) -> Reporter {
        match self.form {
            Form::Human => Reporter::Human(Human::new(self.look, self.volume)),
            Form::Json => Reporter::Json(self.volume),
        }
    }
}

/// Writes a line to stdout. A reader that went away (`migrate status | head`)
/// is no failure.
fn print(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// A reader of notices.
pub enum Reporter {
    /// For people.
    Human(Human),
    /// For machines.
    Json(Volume),
}

impl Notices for Reporter {
    fn notice(&mut self, notice: Notice) {
        match self {
            Reporter::Human(human) => human.notice(&notice),
            Reporter::Json(volume) => {
                if let Notice::HookSaid { line, .. } = &notice
                    && *volume > Volume::Quiet
                {
                    say(&tame(line));
                }
                if let Some(line) = json::notice(&notice, SystemClock.now()) {
                    print(&line);
                }
            }
        }
    }
}

impl Reporter {
    /// Ends what moves.
    pub fn finish(&mut self) {
        if let Reporter::Human(human) = self {
            human.finish();
        }
    }
}

/// A failure for machines.
pub fn failure_json(failure: &Failure) -> Value {
    let place = failure.place.as_ref();
    let at = place.and_then(|(_, at)| at.as_ref());
    // Several of one name, such as rows, are the lines of one text.
    let mut details: BTreeMap<String, String> = BTreeMap::new();
    for (label, text) in &failure.details {
        details
            .entry(label.replace(' ', "_"))
            .and_modify(|lines| *lines = format!("{lines}\n{text}"))
            .or_insert_with(|| text.clone());
    }
    json!({
        "code": failure.code,
        "message": failure.message,
        "file": place.map(|(file, _)| file),
        "line": at.map(|at| at.line),
        "column": at.map(|at| at.column),
        "details": details,
        "next": failure.next,
        "more": failure.more.iter().map(failure_json).collect::<Vec<_>>(),
    })
}

/// A failure for people: the sentence, the line of the file, what the database
/// added, what to do next.
pub fn show(failure: &Failure, look: Look) -> String {
    // Between words, and below its first line; a pipe gets lines that can be searched.
    let fit = |before: &str, text: &str| {
        let fits = !look.terminal || text.contains('\n');
        let fits = fits || before.len() + text.chars().count() <= look.width;
        if fits { text.to_owned() } else { wrap_after(before.len(), text, look.width, 4) }
    };
    let message = fit("error: ", &failure.message);
    let mut text = format!("{} {message}", look.bad("error:"));
    match &failure.place {
        Some((file, Some(place))) => {
            text.push('\n');
            text.push_str(&snippet(file, place, look));
        }
        Some((file, None)) => text.push_str(&format!("\n  in {file}")),
        None => {}
    }
    for (label, detail) in &failure.details {
        let detail = fit(&format!("  {label}: "), detail);
        text.push_str(&format!("\n  {}: {detail}", look.bold(label)));
    }
    if let Some(next) = &failure.next {
        let next = fit("  next: ", next);
        text.push_str(&format!("\n  {}: {next}", look.bold("next")));
    }
    text
}

/// The line of the file, with what is meant underlined.
pub fn snippet(file: &str, place: &Place, look: Look) -> String {
    let byte = |column: u32| {
        let column = usize::try_from(column).unwrap_or(usize::MAX);
        place.text.char_indices().nth(column).map_or(place.text.len(), |(byte, _)| byte)
    };
    let start = byte(place.column.saturating_sub(1));
    let end = byte(place.column.saturating_sub(1).saturating_add(place.width)).max(start);
    let snippet = Snippet::source(place.text.as_str())
        .line_start(usize::try_from(place.line).unwrap_or(1))
        .path(file)
        .annotation(AnnotationKind::Primary.span(start..end));
    let report = [Level::ERROR.no_name().secondary_title("").element(snippet)];
    let renderer = if look.colour { Renderer::styled() } else { Renderer::plain() };
    let rendered = renderer.render(&report);
    // The title above it is ours.
    let lines: Vec<&str> = rendered.lines().skip_while(|line| !line.contains("-->")).collect();
    lines.join("\n")
}
