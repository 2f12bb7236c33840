//! Notices for people, on stderr: on a terminal a spinner for the step at work, and a
//! bar for each thing that says how far it is; a plain line per step elsewhere, and
//! one now and then for what takes long.

use crate::core::grouped::grouped;
use crate::core::id::{Direction, StepName, StoreName};
use crate::core::notice::{BackfillProgress, BackfillState, Notice, StepProgress};
use crate::core::pace::Unwatched;
use crate::report::progress::Meter;
use console::Style;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::{Duration, Instant};

/// Off a terminal, long work says how far it is once in so long a time.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// What most times take: `59.9 s`, `999 ms`.
const TIME_WIDTH: usize = 6;

/// Most names of steps take so much.
const STEP_WIDTH: usize = 17;

/// Longer ones are cut: the statement beside them tells more. `migrate history` and
/// `-v` have them whole.
const STEP_WIDTH_MAX: usize = 28;

/// The room for names of which the longest has so many characters.
pub fn step_column(longest: usize) -> usize {
    longest.clamp(STEP_WIDTH, STEP_WIDTH_MAX)
}

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

    /// A symbol where people see it, and a word for who listens, or has no colours.
    pub fn symbol<'a>(self, symbol: &'a str, word: &'a str) -> &'a str {
        if self.terminal && self.colour { symbol } else { word }
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
    multi: MultiProgress,
    /// Of what says nothing about how far it is.
    spinner: Option<ProgressBar>,
    /// Of what does, by name.
    bars: BTreeMap<String, ProgressBar>,
    /// The statement of the step that is running.
    summary: String,
    /// What was last said about what is running, by name.
    told: BTreeMap<String, Told>,
    /// Somebody was told that we wait for the lease.
    waiting: bool,
    /// Room for the names of the migration's steps.
    column: usize,
    /// The step that is running is an invariant, whose answer was said.
    answered: bool,
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
        Human {
            look,
            volume,
            multi: MultiProgress::with_draw_target(target),
            spinner: None,
            bars: BTreeMap::new(),
            summary: String::new(),
            told: BTreeMap::new(),
            waiting: false,
            column: STEP_WIDTH,
            answered: false,
        }
    }

    /// Takes a notice.
    pub fn notice(&mut self, notice: &Notice) {
        match notice {
            Notice::RunStarted { .. } => {
                self.waiting = false;
                self.end_spinner();
            }
            Notice::Waiting { store, holder } => {
                // On a terminal something moves instead of a line again and again.
                if !(std::mem::replace(&mut self.waiting, true) && self.moves()) {
                    let text = format!("waiting for the lease in {}: {holder}", store.title());
                    self.line(Volume::Normal, &self.look.warn(&text));
                    self.begin_spinner(format!("waiting for the lease in {}", store.title()));
                }
            }
            Notice::MigrationStarted { folder, direction, longest, .. } => {
                self.column = step_column(*longest);
                let what = match direction {
                    Direction::Up => self.look.bold(folder),
                    Direction::Down => format!("{} (down)", self.look.bold(folder)),
                };
                self.line(Volume::Normal, &what);
            }
            Notice::StepStarted { step, store, summary, settling, .. } => {
                self.summary.clone_from(summary);
                self.answered = false;
                let verb = if *settling { "settling " } else { "" };
                self.begin_spinner(format!("{verb}{step}  {}  {summary}", store.title()));
                if *settling {
                    let next = match step {
                        StepName::Named { .. } => "it is taken up again".to_owned(),
                        _ => format!("asking {} about it", store.title()),
                    };
                    let text = format!("  {step} was interrupted; {next}");
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
            Notice::BatchFinished { .. } => {}
            Notice::ComparisonProgress(progress) => {
                let meter = Meter::of_comparison(progress);
                let line = meter.line();
                self.meter(&meter, &BackfillState::Running, &line);
            }
            Notice::StepProgress(progress) => self.step_progress(progress),
            Notice::StepFinished { step, store, took, .. } => {
                self.end_step();
                // An invariant's answer is its line.
                if std::mem::take(&mut self.answered) {
                    return;
                }
                let line = self.step_line(&step.to_string(), *store, *took);
                self.line(Volume::Normal, &line);
            }
            Notice::MigrationFinished { .. } => self.end_step(),
            Notice::InvariantChecked { name, holds, expected, found, took, .. } => {
                self.answered = true;
                self.end_step();
                let line = self.invariant_line(name, *holds, [expected, found], *took);
                self.line(Volume::Normal, &line);
            }
            Notice::ProgramSaid { line, .. } | Notice::HookSaid { line, .. } => {
                self.line(Volume::Normal, &format!("    {}", self.look.dim(&tame(line))));
            }
            Notice::HookStarted { hook, command } => {
                self.begin_spinner(format!("{hook}  {command}"));
            }
            Notice::HookFinished { hook, command, took, error: None } => {
                self.end_spinner();
                let line = self.timed("", &format!("{hook}: {command}"), *took);
                self.line(Volume::Normal, &line);
            }
            // That one in front of something failed is the run's own error.
            Notice::HookFinished { hook, error: Some(error), .. } => {
                self.end_spinner();
                if !hook.starts_with("before_") {
                    self.line(Volume::Quiet, &self.look.warn(error));
                }
            }
            Notice::Remark(text) => self.line(Volume::Normal, &self.look.warn(text)),
        }
    }

    fn backfill(&mut self, progress: &BackfillProgress) {
        for Unwatched { says, is_lack } in &progress.unwatched {
            // That there is no standby is no news to most.
            let least = if *is_lack { Volume::Normal } else { Volume::Verbose };
            self.line(least, &self.look.dim(&format!("  not watched: {says}")));
        }
        let line = backfill_line(progress);
        self.meter(&Meter::of_backfill(progress), &progress.state, &line);
    }

    fn step_progress(&mut self, progress: &StepProgress) {
        match Meter::of_step(progress) {
            Some(meter) => {
                let line = meter.line();
                self.meter(&meter, &BackfillState::Running, &line);
            }
            // The spinner says it, unless the server stopped counting.
            None if self.look.terminal => {
                if self.bars.contains_key(&progress.step.to_string()) {
                    self.end_step();
                    let (step, store) = (&progress.step, progress.store.title());
                    self.begin_spinner(format!("{step}  {store}  {}", self.summary));
                }
            }
            None => {
                if self.is_due(&progress.step.to_string(), &BackfillState::Running) {
                    let column = self.column;
                    let took = duration(progress.took);
                    let step = progress.step.to_string();
                    let left = format!("  {step:<column$} at work for {took}: ");
                    let room = self.look.width.saturating_sub(left.chars().count());
                    let line = format!("{left}{}", clip(&self.summary, room.max(12)));
                    self.line(Volume::Normal, &line);
                }
            }
        }
    }

    /// A bar where something may move, else a line now and then.
    fn meter(&mut self, meter: &Meter, state: &BackfillState, line: &str) {
        if self.moves() {
            // What the spinner says, the bar says better.
            self.end_spinner();
            let multi = &self.multi;
            let bar = self.bars.entry(meter.name.clone()).or_insert_with(|| {
                let bar = multi.add(ProgressBar::new_spinner());
                set_style(&bar, "{msg}");
                bar
            });
            bar.set_message(meter.bar(self.look));
        } else if self.is_due(&meter.name, state) {
            self.line(Volume::Normal, &format!("  {}  {line}", meter.name));
        }
    }

    /// Whether it is time for another line about something: now and then, and when it
    /// begins to stand still or no longer does.
    fn is_due(&mut self, name: &str, state: &BackfillState) -> bool {
        let due = match self.told.get(name) {
            Some(told) => told.state != *state || told.at.elapsed() >= PROGRESS_EVERY,
            // The first says nothing yet, unless it stands still. What is told of a
            // statement comes after a second.
            None => matches!(state, BackfillState::Stopped(_)),
        };
        if due || !self.told.contains_key(name) {
            let told = Told { at: Instant::now(), state: state.clone() };
            self.told.insert(name.to_owned(), told);
        }
        due
    }

    /// Whether anything may move.
    fn moves(&self) -> bool {
        self.look.terminal && self.volume > Volume::Quiet
    }

    fn begin_spinner(&mut self, text: String) {
        self.end_spinner();
        if self.moves() {
            let spinner = self.multi.add(ProgressBar::new_spinner());
            set_style(&spinner, SPINNER);
            spinner.set_message(text);
            spinner.enable_steady_tick(Duration::from_millis(120));
            self.spinner = Some(spinner);
        }
    }

    fn end_spinner(&mut self) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
            self.multi.remove(&spinner);
        }
    }

    /// What is done no longer moves.
    fn end_step(&mut self) {
        self.told.clear();
        self.end_spinner();
        for (_, bar) in std::mem::take(&mut self.bars) {
            bar.finish_and_clear();
            self.multi.remove(&bar);
        }
    }

    /// `  ✓ up/postgres/1   CREATE TABLE … 12 ms`, not wider than the terminal.
    fn step_line(&self, step: &str, store: StoreName, took: Duration) -> String {
        let step = match self.volume {
            Volume::Verbose => step.to_owned(),
            Volume::Quiet | Volume::Normal => clip(step, self.column),
        };
        let left = format!("{step:<column$} {:<8} ", store.title(), column = self.column);
        self.timed(&left, &self.summary, took)
    }

    /// What was done, a time at the end of the line, and between them what there is
    /// room for.
    fn timed(&self, left: &str, text: &str, took: Duration) -> String {
        let mark = self.look.symbol("✓", "ok");
        let time = duration(took);
        // The same room for every time: statements are cut in one column, not in
        // another one each time.
        let time_width = time.len().max(TIME_WIDTH);
        // Two blanks, the mark, and a blank.
        let before = 3 + mark.chars().count() + left.chars().count();
        let room = self.look.width.saturating_sub(before + time_width + 2);
        let text = match self.volume {
            Volume::Verbose => text.to_owned(),
            Volume::Quiet | Volume::Normal => clip(text, room.max(12)),
        };
        let pad = room.saturating_sub(text.chars().count()) + time_width - time.len();
        format!("  {} {left}{text}{:pad$}  {}", self.look.good(mark), "", self.look.dim(&time))
    }

    /// `  ✓ no user lost a role: 0   12 ms`. What offends stands below the error.
    fn invariant_line(
        &self,
        name: &str,
        holds: bool,
        [expected, found]: [&str; 2],
        took: Duration,
    ) -> String {
        if holds {
            return self.timed("", &format!("{name}: {found}"), took);
        }
        let mark = self.look.symbol("✗", "broken");
        let text = format!("{name}: expected {expected}, found {found}");
        let time = self.look.dim(&duration(took));
        format!("  {} {}  {time}", self.look.bad(mark), self.look.bad(&text))
    }

    fn line(&self, least: Volume, text: &str) {
        if self.volume >= least {
            self.multi.suspend(|| say(text));
        }
    }

    /// Ends what moves.
    pub fn finish(&mut self) {
        self.end_step();
    }
}

/// What a step looks like that says nothing about how far it is.
const SPINNER: &str = "  {spinner} {wide_msg} {elapsed}";

fn set_style(spinner: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        spinner.set_style(style);
    }
}

/// `41 %  412,000 of about 1,000,000 keys, 400,112 rows  5,300/s now, 5,100/s  1 min 51 s left  batch 2,400`,
/// and why it is slow or stands still.
fn backfill_line(progress: &BackfillProgress) -> String {
    let BackfillProgress { rows, passed, estimate, rate_now, rate, left, batch, .. } = progress;
    let [rows, passed, estimate, rate_now, rate, batch] =
        [rows, passed, estimate, rate_now, rate, batch].map(|number| grouped(*number));
    let mut parts = vec![format!("{} %", progress.percent())];
    let mut counts = format!("{passed} of about {estimate} keys, {rows} rows");
    if progress.rejected > 0 {
        counts.push_str(&format!(", {} put aside", grouped(progress.rejected)));
    }
    parts.push(counts);
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

/// A line that somebody else wrote: it cannot move the cursor or change colours here.
pub fn tame(line: &str) -> String {
    line.chars().filter(|c| !c.is_control() || *c == '\t').collect()
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

/// `1 migration`, `3 migrations`.
pub fn migrations(n: usize) -> String {
    match n {
        1 => "1 migration".to_owned(),
        n => format!("{n} migrations"),
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

/// A text in lines of a width, cut between words.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    lines(text, width, width)
}

/// A text behind `before` columns of something else, the lines below its first one behind
/// a margin. A first word that does not fit there begins below.
pub fn wrap_after(before: usize, text: &str, width: usize, margin: usize) -> String {
    let lines = lines(text, width.saturating_sub(before), width.saturating_sub(margin));
    lines.join(&format!("\n{:margin$}", ""))
}

/// A text in lines, the first of another width than the others.
fn lines(text: &str, first: usize, width: usize) -> Vec<String> {
    // A number stays with what it counts.
    let glued = [" k ", " M ", " bytes", " kB", " MB", " GB", " rows", " documents"]
        .iter()
        .fold(text.to_owned(), |text, unit| text.replace(unit, &unit.replacen(' ', "\u{a0}", 1)));
    let mut lines: Vec<String> = Vec::new();
    for word in glued.split(' ') {
        let word = &word.replace('\u{a0}', " ");
        let length = word.chars().count();
        let fits = |line: &str, width: usize| line.chars().count() + 1 + length <= width;
        match lines.as_mut_slice() {
            [] if first < length && first < width => lines.extend([String::new(), word.clone()]),
            [line] if fits(line, first) => line.extend([" ", word]),
            [_, .., line] if fits(line, width) => line.extend([" ", word]),
            _ => lines.push(word.clone()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::id::Version;
    use expect_test::expect;

    #[test]
    fn a_backfill_says_how_far_it_is_and_why_it_is_no_faster() {
        let mut progress = BackfillProgress {
            rejected: 0,
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
    fn lines_end_with_their_time_however_long_the_names_are() {
        let look = Look { colour: false, terminal: false, width: 80 };
        let mut human = Human::new(look, Volume::Normal);
        let took = Duration::from_millis(12);
        human.column = step_column("execute/a-backfill-with-a-very-long-name".len());
        human.summary =
            "ALTER TABLE users ADD COLUMN roles text[] NOT NULL DEFAULT '{}'".to_owned();
        let mut lines = vec![
            human.step_line("prepare/postgres/1", StoreName::Postgres, took),
            human.step_line("execute/a-backfill-with-a-very-long-name", StoreName::Mongo, took),
            human.invariant_line("every user has a role", true, ["0", "0"], took),
        ];
        assert!(lines.iter().all(|line| line.chars().count() == 80), "{lines:#?}");
        lines.push(human.invariant_line("every user has a role", false, ["0", "2"], took));
        // A common indent would be taken off the expected text.
        expect![[r#"
            |  ok prepare/postgres/1           Postgres ALTER TABLE users ADD COLUMN…   12 ms
            |  ok execute/a-backfill-with-a-v… MongoDB  ALTER TABLE users ADD COLUMN…   12 ms
            |  ok every user has a role: 0                                              12 ms
            |  broken every user has a role: expected 0, found 2  12 ms"#]]
        .assert_eq(&lines.iter().map(|line| format!("|{line}")).collect::<Vec<_>>().join("\n"));
    }
}
