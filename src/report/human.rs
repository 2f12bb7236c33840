//! Notices for people, on stderr: a spinner on a terminal, a plain line per step
//! elsewhere.

use crate::core::id::{Direction, StoreName};
use crate::core::notice::Notice;
use console::Style;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::Write as _;
use std::time::Duration;

/// What most times take: `59.9 s`, `999 ms`.
const TIME_WIDTH: usize = 6;

/// How much is said.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Volume {
    /// Failures only.
    Quiet,
    /// What is done.
    Normal,
    /// And whole statements.
    Verbose,
}

/// The look of things: colours and symbols only where a terminal shows them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Look {
    /// Colours.
    pub colour: bool,
    /// Symbols and moving parts.
    pub terminal: bool,
    /// Columns.
    pub width: usize,
}

impl Look {
    /// A text in a style, where there are colours.
    pub fn paint(self, style: Style, text: &str) -> String {
        style.force_styling(self.colour).apply_to(text).to_string()
    }

    /// What is done.
    pub fn good(self, text: &str) -> String {
        self.paint(Style::new().green(), text)
    }

    /// What is wrong.
    pub fn bad(self, text: &str) -> String {
        self.paint(Style::new().red().bold(), text)
    }

    /// What somebody should look at.
    pub fn warn(self, text: &str) -> String {
        self.paint(Style::new().yellow(), text)
    }

    /// What matters less.
    pub fn dim(self, text: &str) -> String {
        self.paint(Style::new().dim(), text)
    }

    /// A heading.
    pub fn bold(self, text: &str) -> String {
        self.paint(Style::new().bold(), text)
    }
}

/// Shows what a run does.
pub struct Human {
    look: Look,
    volume: Volume,
    spinner: ProgressBar,
    /// The statement of the step that is running.
    summary: String,
}

impl Human {
    /// A reporter.
    pub fn new(look: Look, volume: Volume) -> Human {
        let hidden = !look.terminal || volume == Volume::Quiet;
        let target =
            if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let spinner = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("  {spinner} {wide_msg} {elapsed}") {
            spinner.set_style(style);
        }
        Human { look, volume, spinner, summary: String::new() }
    }

    /// Takes a notice.
    pub fn notice(&mut self, notice: &Notice) {
        match notice {
            Notice::RunStarted { .. } => {}
            Notice::Waiting { store, holder } => {
                let text = format!("waiting for the lease in {}: {holder}", store.title());
                self.line(Volume::Normal, &self.look.warn(&text));
            }
            Notice::MigrationStarted { folder, direction, .. } => {
                let what = match direction {
                    Direction::Up => self.look.bold(folder),
                    Direction::Down => format!("{} (down)", self.look.bold(folder)),
                };
                self.line(Volume::Normal, &what);
            }
            Notice::StepStarted { step, store, summary, settling, .. } => {
                self.summary.clone_from(summary);
                let verb = if *settling { "settling " } else { "" };
                self.spinner.set_message(format!("{verb}{step}  {}  {summary}", store.title()));
                self.spinner.reset_elapsed();
                self.spinner.enable_steady_tick(Duration::from_millis(120));
                if *settling {
                    let text =
                        format!("  {step} was interrupted; asking {} about it", store.title());
                    self.line(Volume::Normal, &self.look.warn(&text));
                }
            }
            Notice::StepDelayed { step, said, lock, holder, tried, tries, again, .. } => {
                let lock = lock.as_ref().map(|lock| format!(", {lock}")).unwrap_or_default();
                let holder = holder.as_ref().map(|it| format!("; in the way: {it}"));
                let text = format!(
                    "  {step} waited in vain ({said}{lock}), try {tried} of {tries}; the next in {}{}",
                    duration(*again),
                    holder.unwrap_or_default()
                );
                self.line(Volume::Normal, &self.look.warn(&text));
            }
            Notice::StepFinished { step, store, took, .. } => {
                let line = self.step_line(&step.to_string(), *store, *took);
                self.line(Volume::Normal, &line);
            }
            Notice::MigrationFinished { .. } => self.spinner.set_message(""),
            Notice::Remark(text) => self.line(Volume::Normal, &self.look.warn(text)),
        }
    }

    /// `  ✓ up/postgres/1   CREATE TABLE … 12 ms`, not wider than the terminal.
    fn step_line(&self, step: &str, store: StoreName, took: Duration) -> String {
        let mark = if self.look.terminal { "✓" } else { "ok" };
        let time = duration(took);
        let left = format!("  {mark} {step:<17} {:<8} ", store.title());
        // The same room for every time: statements are cut in one column, not in
        // another one each time.
        let time_width = time.len().max(TIME_WIDTH);
        let room = self.look.width.saturating_sub(left.chars().count() + time_width + 2);
        let statement = match self.volume {
            Volume::Verbose => self.summary.clone(),
            Volume::Quiet | Volume::Normal => clip(&self.summary, room.max(12)),
        };
        let pad = room.saturating_sub(statement.chars().count());
        let left = format!("  {} {step:<17} {:<8} ", self.look.good(mark), store.title());
        let pad = pad + time_width - time.len();
        format!("{left}{statement}{:pad$}  {}", "", self.look.dim(&time))
    }

    fn line(&self, least: Volume, text: &str) {
        if self.volume >= least {
            self.spinner.suspend(|| say(text));
        }
    }

    /// Ends what moves.
    pub fn finish(&self) {
        self.spinner.finish_and_clear();
    }
}

/// Writes a line to stderr. A reader that went away (`migrate up 2>&1 | head`)
/// must not end a run in the middle.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// `12 ms`, `3.4 s`, `2 min 5 s`.
pub fn duration(took: Duration) -> String {
    match took.as_millis() {
        ms @ 0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{:.1} s", took.as_secs_f64()),
        _ => format!("{} min {} s", took.as_secs() / 60, took.as_secs() % 60),
    }
}

/// A text cut to a number of characters.
pub fn clip(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}
