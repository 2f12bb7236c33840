//! Notices for people, on stderr: a spinner on a terminal, a plain line per step
//! elsewhere.

use crate::core::id::{Direction, StoreName};
use crate::core::notice::{BackfillProgress, BackfillState, Notice};
use crate::core::pace::Unwatched;
use console::Style;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::Write as _;
use std::time::{Duration, Instant};

/// Off a terminal, long work says how far it is once in so long a time.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

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
    /// The step that is running is an invariant, and its answer was shown.
    answered: bool,
    /// What was last said about the backfill that is running.
    told: Option<Told>,
}

/// A line about a backfill, where nothing moves.
struct Told {
    at: Instant,
    state: BackfillState,
}

impl Human {
    /// A reporter.
    pub fn new(look: Look, volume: Volume) -> Human {
        let hidden = !look.terminal || volume == Volume::Quiet;
        let target =
            if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let spinner = ProgressBar::with_draw_target(None, target);
        set_style(&spinner, SPINNER);
        Human { look, volume, spinner, summary: String::new(), told: None, answered: false }
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
                self.answered = false;
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
            Notice::BackfillProgress(progress) => self.backfill(progress),
            Notice::StepFinished { step, store, took, .. } => {
                self.end_backfill();
                // The answer of an invariant says all that its step could.
                if !std::mem::take(&mut self.answered) {
                    let line = self.step_line(&step.to_string(), *store, *took);
                    self.line(Volume::Normal, &line);
                }
            }
            Notice::MigrationFinished { .. } => self.spinner.set_message(""),
            Notice::InvariantChecked { name, holds, expected, found, sample, took, .. } => {
                self.answered = true;
                for line in self.invariant_lines(name, *holds, [expected, found], sample, *took) {
                    self.line(Volume::Normal, &line);
                }
            }
            Notice::ProgramSaid { line, .. } => {
                // It cannot move the cursor or change colours here.
                let line: String = line.chars().filter(|c| !c.is_control() || *c == '\t').collect();
                self.line(Volume::Normal, &format!("    {}", self.look.dim(&line)));
            }
            Notice::Remark(text) => self.line(Volume::Normal, &self.look.warn(text)),
        }
    }

    /// A bar where something may move, else a line now and then.
    fn backfill(&mut self, progress: &BackfillProgress) {
        for Unwatched { says, is_lack } in &progress.unwatched {
            // That there is no standby is no news to most.
            let least = if *is_lack { Volume::Normal } else { Volume::Verbose };
            self.line(least, &self.look.dim(&format!("  not watched: {says}")));
        }
        if !self.spinner.is_hidden() {
            if self.told.is_none() {
                set_style(&self.spinner, BAR);
            }
            self.spinner.set_length(progress.estimate.max(progress.passed));
            self.spinner.set_position(progress.passed);
            self.spinner.set_message(backfill_line(progress));
        }
        let new = match &self.told {
            Some(told) => told.state != progress.state || told.at.elapsed() >= PROGRESS_EVERY,
            // The first says nothing yet, unless it stands still.
            None => matches!(progress.state, BackfillState::Stopped(_)),
        };
        if self.told.is_none() || new {
            self.told = Some(Told { at: Instant::now(), state: progress.state.clone() });
        }
        if new && !self.look.terminal {
            let line = format!("  {}  {}", progress.step, backfill_line(progress));
            self.line(Volume::Normal, &line);
        }
    }

    fn end_backfill(&mut self) {
        if self.told.take().is_some() {
            self.spinner.unset_length();
            set_style(&self.spinner, SPINNER);
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

    /// `  ✓ no user lost a role  0, as expected  12 ms`; one that does not hold with
    /// the rows that offend below it.
    fn invariant_lines(
        &self,
        name: &str,
        holds: bool,
        [expected, found]: [&str; 2],
        sample: &[String],
        took: Duration,
    ) -> Vec<String> {
        let time = self.look.dim(&duration(took));
        if holds {
            let mark = if self.look.terminal { "✓" } else { "ok" };
            return vec![format!("  {} {name}: {found}  {time}", self.look.good(mark))];
        }
        let mark = if self.look.terminal { "✗" } else { "broken" };
        let first = format!("{name}: expected {expected}, found {found}");
        let first = format!("  {} {}  {time}", self.look.bad(mark), self.look.bad(&first));
        let sample = sample.iter().map(|row| format!("      {row}"));
        std::iter::once(first).chain(sample).collect()
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

/// What a step looks like that says nothing about how far it is.
const SPINNER: &str = "  {spinner} {wide_msg} {elapsed}";

/// What a backfill looks like.
const BAR: &str = "  {spinner} [{bar:20}] {wide_msg} {elapsed}";

fn set_style(spinner: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        spinner.set_style(style.progress_chars("=> "));
    }
}

/// `41 %  412,000 of about 1,000,000 keys, 400,112 rows  5,300/s now, 5,100/s  1 min 51 s left  batch 2,400`,
/// and why it is slow or stands still.
fn backfill_line(progress: &BackfillProgress) -> String {
    let BackfillProgress { rows, passed, estimate, rate_now, rate, left, batch, .. } = progress;
    let [rows, passed, estimate, rate_now, rate, batch] =
        [rows, passed, estimate, rate_now, rate, batch].map(|number| grouped(*number));
    let mut parts = vec![format!("{} %", progress.percent())];
    parts.push(format!("{passed} of about {estimate} keys, {rows} rows"));
    match &progress.state {
        BackfillState::Stopped(why) => parts.push(format!("stands still: {why}")),
        BackfillState::Running | BackfillState::Slow(_) => {
            parts.push(format!("{rate_now}/s now, {rate}/s"));
            parts.extend(left.map(|left| format!("{} left", duration(left))));
            parts.push(format!("batch {batch}"));
        }
    }
    if let BackfillState::Slow(why) = &progress.state {
        parts.push(format!("slow: {why}"));
    }
    parts.join("  ")
}

/// `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::id::Version;
    use expect_test::expect;

    #[test]
    fn a_backfill_says_how_far_it_is_and_why_it_is_no_faster() {
        let mut progress = BackfillProgress {
            version: Version(2),
            step: "execute/roles".parse().expect("a name"),
            store: StoreName::Postgres,
            rows: 400_112,
            passed: 412_000,
            estimate: 1_000_000,
            rate_now: 5_300,
            rate: 999,
            left: Some(Duration::from_secs(111)),
            batch: 2_400,
            state: BackfillState::Running,
            unwatched: Vec::new(),
        };
        let mut text = backfill_line(&progress);
        progress.state = BackfillState::Slow("a standby is 4.1 s behind (limit 5 s)".to_owned());
        progress.left = None;
        text = format!("{text}\n{}", backfill_line(&progress));
        progress.state = BackfillState::Stopped("paused: lunch".to_owned());
        progress.passed = 1_000_001;
        text = format!("{text}\n{}\n", backfill_line(&progress));
        expect![[r#"
            41 %  412,000 of about 1,000,000 keys, 400,112 rows  5,300/s now, 999/s  1 min 51 s left  batch 2,400
            41 %  412,000 of about 1,000,000 keys, 400,112 rows  5,300/s now, 999/s  batch 2,400  slow: a standby is 4.1 s behind (limit 5 s)
            100 %  1,000,001 of about 1,000,000 keys, 400,112 rows  stands still: paused: lunch
        "#]].assert_eq(&text);
    }

    #[test]
    fn an_invariant_is_one_line_and_what_offends_stands_below() {
        let look = Look { colour: false, terminal: false, width: 80 };
        let human = Human::new(look, Volume::Normal);
        let took = Duration::from_millis(12);
        let rows = ["id = 7, role = NULL".to_owned(), "id = 8, role = NULL".to_owned()];
        let good = human.invariant_lines("every user has a role", true, ["0", "0"], &[], took);
        assert_eq!(good, ["  ok every user has a role: 0  12 ms"]);
        let bad = human.invariant_lines("every user has a role", false, ["0", "2"], &rows, took);
        let expected = [
            "  broken every user has a role: expected 0, found 2  12 ms",
            "      id = 7, role = NULL",
            "      id = 8, role = NULL",
        ];
        assert_eq!(bad, expected);
    }
}
