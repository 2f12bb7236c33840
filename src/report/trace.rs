//! Traces: a run as a tree of spans, for whoever collects OpenTelemetry. Reader of the
//! engine's notices.
//!
//! The run is the root, or a child of what `TRACEPARENT` names; below it are
//! migrations, below them steps, below those the batches of backfills. Hooks are spans
//! too. What is asked and what is waited for are events.
//!
//! A span leaves when it has ended, so of a run that was killed everything is there
//! that had ended before. Attributes say which step did what for how long, never a
//! statement or a value of a row.
//!
//! Reading order: this file makes spans; `otlp` writes them down; `export` sends them;
//! `settings` is what the environment says about all that.

pub mod export;
pub mod otlp;
pub mod settings;

use crate::core::id::{Direction, StepName, StoreName, Version};
use crate::core::notice::{BackfillState, Notice};
use settings::Parent;
use std::time::Duration;

/// Of one step, so many batches are spans of their own.
const BATCHES_MAX: u64 = 1_000;

/// Of those behind them, one in this time: of a backfill that takes days, the last
/// hours are there too.
const BATCH_EVERY: Duration = Duration::from_mins(1);

/// One span has no more events than this.
const EVENTS_MAX: usize = 128;

/// Nanoseconds since 1970.
pub type Nanos = u64;

/// The id of a trace; never zero.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TraceId(pub u128);

/// The id of a span; never zero.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SpanId(pub u64);

/// A value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A number of things.
    Count(u64),
    /// Yes or no.
    Truth(bool),
}

/// What is known about a span, or about one of its events.
pub type Attributes = Vec<(&'static str, Value)>;

/// Something that took time.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Which.
    pub id: SpanId,
    /// What it is a part of.
    pub parent: Option<SpanId>,
    /// What it is called.
    pub name: String,
    /// When it began.
    pub start: Nanos,
    /// When it ended; not before it began.
    pub end: Nanos,
    /// What is known about it.
    pub attributes: Attributes,
    /// What happened meanwhile.
    pub events: Vec<Event>,
    /// So many more happened.
    pub events_dropped: u64,
    /// Why it did not come to its end.
    pub error: Option<String>,
}

/// Something that happened at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When.
    pub at: Nanos,
    /// What.
    pub name: &'static str,
    /// What is known about it.
    pub attributes: Attributes,
}

impl Span {
    fn begun(id: SpanId, parent: Option<SpanId>, name: String, start: Nanos) -> Span {
        Span {
            id,
            parent,
            name,
            start,
            end: start,
            attributes: Vec::new(),
            events: Vec::new(),
            events_dropped: 0,
            error: None,
        }
    }

    fn know(&mut self, name: &'static str, value: Value) {
        match self.attributes.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.attributes.push((name, value)),
        }
    }

    fn event(&mut self, at: Nanos, name: &'static str, attributes: Attributes) {
        if self.events.len() < EVENTS_MAX {
            self.events.push(Event { at, name, attributes });
        } else {
            self.events_dropped += 1;
        }
    }
}

/// How a run ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct End<'a> {
    /// `ok`, `failed`, …
    pub outcome: &'a str,
    /// The exit code.
    pub code: u8,
    /// The stable code and the sentence of what went wrong.
    pub error: Option<(&'a str, &'a str)>,
    /// Spans that were not sent, because nobody took them.
    pub dropped: u64,
}

/// Makes spans of what happens. It gives away each that has ended.
pub struct Tracer {
    /// The trace that all of them are of.
    pub trace: TraceId,
    make_id: fn() -> SpanId,
    run: Span,
    migration: Option<Span>,
    step: Option<Step>,
    hook: Option<Span>,
    batches: Batches,
}

/// The step that is at work.
struct Step {
    place: (Version, StepName),
    span: Span,
    /// How its backfill went when it was last told.
    state: BackfillState,
}

/// The batches of a step.
#[derive(Default)]
struct Batches {
    all: u64,
    dropped: u64,
    last: Nanos,
}

impl Batches {
    /// Whether one that has just ended is a span.
    fn take(&mut self, now: Nanos) -> bool {
        self.all += 1;
        let every = u64::try_from(BATCH_EVERY.as_nanos()).unwrap_or(u64::MAX);
        if self.all > BATCHES_MAX && now.saturating_sub(self.last) < every {
            self.dropped += 1;
            return false;
        }
        self.last = now;
        true
    }

    /// Tells a span how many there were.
    fn tell(&mut self, span: &mut Span) {
        let Batches { all, dropped, .. } = std::mem::take(self);
        if all > 0 {
            span.know("lockstep.batches", Value::Count(all));
        }
        if dropped > 0 {
            span.know("lockstep.batches_dropped", Value::Count(dropped));
        }
    }
}

impl Tracer {
    /// A run of a command begins, as a part of somebody's trace or as one of its own.
    pub fn new(command: &str, parent: Option<Parent>, now: Nanos) -> Tracer {
        Tracer::with_ids(command, parent, now, new_trace(), new_span)
    }

    fn with_ids(
        command: &str,
        parent: Option<Parent>,
        now: Nanos,
        trace: TraceId,
        make_id: fn() -> SpanId,
    ) -> Tracer {
        let name = format!("migrate {command}");
        let mut run = Span::begun(make_id(), parent.map(|parent| parent.span), name, now);
        run.know("lockstep.command", Value::Text(command.to_owned()));
        Tracer {
            trace: parent.map_or(trace, |parent| parent.trace),
            make_id,
            run,
            migration: None,
            step: None,
            hook: None,
            batches: Batches::default(),
        }
    }

    /// Who runs it is known now.
    pub fn run_is(&mut self, run_id: &str, release: Option<&str>) {
        self.run.know("lockstep.run_id", Value::Text(run_id.to_owned()));
        if let Some(release) = release {
            self.run.know("lockstep.release", Value::Text(release.to_owned()));
        }
    }

    /// Takes a notice; `gone` takes spans that have ended.
    pub fn notice(&mut self, notice: &Notice, now: Nanos, gone: &mut dyn FnMut(Span)) {
        match notice {
            Notice::RunStarted { migrations, .. } => {
                let migrations = u64::try_from(*migrations).unwrap_or(u64::MAX);
                self.run.know("lockstep.migrations", Value::Count(migrations));
            }
            Notice::Waiting { store, holder } => {
                let holder = ("lockstep.holder", Value::Text(holder.clone()));
                self.run.event(now, "waiting for the lease", vec![of_store(*store), holder]);
            }
            Notice::MigrationStarted { version, folder, direction, .. } => {
                self.break_off(now, gone);
                let mut span = self.begin(self.run.id, folder.clone(), now);
                span.attributes = vec![
                    of_version(*version),
                    ("lockstep.migration", Value::Text(folder.clone())),
                    ("lockstep.direction", Value::Text(way(*direction).to_owned())),
                ];
                self.migration = Some(span);
            }
            Notice::StepStarted { version, step, store, settling, .. } => {
                self.break_off_step(now, gone);
                let mut span = self.begin(self.place_of_steps(), step.to_string(), now);
                span.attributes = vec![
                    of_version(*version),
                    ("lockstep.step", Value::Text(step.to_string())),
                    of_store(*store),
                    ("db.system.name", Value::Text(system(*store).to_owned())),
                ];
                if *settling {
                    span.know("lockstep.settling", Value::Truth(true));
                }
                let place = (*version, step.clone());
                self.step = Some(Step { place, span, state: BackfillState::Running });
            }
            Notice::StepDelayed { lock, tried, again, .. } => {
                let again = u64::try_from(again.as_millis()).unwrap_or(u64::MAX);
                let mut about = vec![
                    ("lockstep.tried", Value::Count(u64::from(*tried))),
                    ("lockstep.again_ms", Value::Count(again)),
                ];
                let lock = lock.clone().map(|lock| ("lockstep.lock", Value::Text(lock)));
                about.extend(lock);
                self.innermost().event(now, "delayed", about);
            }
            Notice::StepFinished { .. } => {
                if let Some(mut step) = self.step.take() {
                    self.batches.tell(&mut step.span);
                    end(step.span, now, gone);
                }
            }
            Notice::BackfillProgress(progress) => {
                let Some(step) = self.step.as_mut() else { return };
                if step.place != (progress.version, progress.step.clone()) {
                    return;
                }
                for (name, value) in [
                    ("lockstep.rows", progress.rows),
                    ("lockstep.passed", progress.passed),
                    ("lockstep.rejected", progress.rejected),
                ] {
                    step.span.know(name, Value::Count(value));
                }
                // It is told about once a second; it changes seldom.
                let is_as_before =
                    std::mem::discriminant(&step.state) == std::mem::discriminant(&progress.state);
                step.state = progress.state.clone();
                if !is_as_before {
                    let (name, why) = match &progress.state {
                        BackfillState::Running => ("goes on", None),
                        BackfillState::Slow(why) => ("slows down", Some(why)),
                        BackfillState::Stopped(why) => ("stands still", Some(why)),
                    };
                    let why = why.map(|why| ("lockstep.reason", Value::Text(why.clone())));
                    step.span.event(now, name, why.into_iter().collect());
                }
            }
            Notice::BatchFinished { version, step, store, shard, rows, passed, took } => {
                if !self.batches.take(now) {
                    return;
                }
                // Of a backfill that another run leads, nobody said that it began.
                let own = self.step.as_ref().filter(|own| own.place == (*version, step.clone()));
                let (parent, begun) = match own {
                    Some(own) => (own.span.id, own.span.start),
                    None => (self.run.id, self.run.start),
                };
                let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
                let start = now.saturating_sub(took).max(begun);
                let mut span = self.begin(parent, "batch".to_owned(), start);
                span.attributes = vec![
                    of_version(*version),
                    ("lockstep.step", Value::Text(step.to_string())),
                    of_store(*store),
                    ("lockstep.shard", Value::Count(u64::from(*shard))),
                    ("lockstep.rows", Value::Count(*rows)),
                    ("lockstep.passed", Value::Count(*passed)),
                ];
                end(span, now, gone);
            }
            Notice::MigrationFinished { .. } => {
                self.break_off_step(now, gone);
                if let Some(span) = self.migration.take() {
                    end(span, now, gone);
                }
            }
            Notice::InvariantChecked { name, holds, count, .. } => {
                let mut about = vec![
                    ("lockstep.invariant", Value::Text(name.clone())),
                    ("lockstep.holds", Value::Truth(*holds)),
                ];
                about.extend(count.map(|count| ("lockstep.differences", Value::Count(count))));
                self.innermost().event(now, "invariant", about);
            }
            Notice::HookStarted { hook, .. } => {
                let mut span = self.begin(self.place_of_steps(), (*hook).to_owned(), now);
                span.know("lockstep.hook", Value::Text((*hook).to_owned()));
                self.hook = Some(span);
            }
            Notice::HookFinished { error, .. } => {
                if let Some(mut span) = self.hook.take() {
                    // The command is in the sentence, and may be anything.
                    span.error = error.as_ref().map(|_| "the hook failed".to_owned());
                    end(span, now, gone);
                }
            }
            Notice::StepProgress(_)
            | Notice::ComparisonProgress(_)
            | Notice::ProgramSaid { .. }
            | Notice::HookSaid { .. }
            | Notice::Remark(_) => {}
        }
    }

    /// The run is over: whatever is at work still has failed with it.
    pub fn end(mut self, how: &End<'_>, now: Nanos, gone: &mut dyn FnMut(Span)) {
        let error = how.error.map(|(_, message)| message.to_owned());
        let open = [self.hook.take(), self.step.take().map(|step| step.span)];
        for mut span in open.into_iter().chain([self.migration.take()]).flatten() {
            self.batches.tell(&mut span);
            span.error = Some(error.clone().unwrap_or_else(|| UNFINISHED.to_owned()));
            if let Some((code, _)) = how.error {
                span.know("error.type", Value::Text(code.to_owned()));
            }
            end(span, now, gone);
        }
        self.batches.tell(&mut self.run);
        self.run.know("lockstep.outcome", Value::Text(how.outcome.to_owned()));
        self.run.know("lockstep.exit_code", Value::Count(u64::from(how.code)));
        if let Some((code, _)) = how.error {
            self.run.know("error.type", Value::Text(code.to_owned()));
        }
        if how.dropped > 0 {
            self.run.know("lockstep.spans_dropped", Value::Count(how.dropped));
        }
        self.run.error = error;
        end(self.run, now, gone);
    }

    fn begin(&self, parent: SpanId, name: String, start: Nanos) -> Span {
        Span::begun((self.make_id)(), Some(parent), name, start)
    }

    fn place_of_steps(&self) -> SpanId {
        self.migration.as_ref().map_or(self.run.id, |migration| migration.id)
    }

    fn innermost(&mut self) -> &mut Span {
        match (&mut self.step, &mut self.migration) {
            (Some(step), _) => &mut step.span,
            (None, Some(migration)) => migration,
            (None, None) => &mut self.run,
        }
    }

    /// Something else begins: what was at work failed, and the run went on, as when
    /// what failed is rolled back.
    fn break_off(&mut self, now: Nanos, gone: &mut dyn FnMut(Span)) {
        self.break_off_step(now, gone);
        if let Some(mut span) = self.migration.take() {
            span.error = Some(UNFINISHED.to_owned());
            end(span, now, gone);
        }
    }

    fn break_off_step(&mut self, now: Nanos, gone: &mut dyn FnMut(Span)) {
        if let Some(mut step) = self.step.take() {
            self.batches.tell(&mut step.span);
            step.span.error = Some(UNFINISHED.to_owned());
            end(step.span, now, gone);
        }
    }
}

/// What failed, where the run does not end with it.
const UNFINISHED: &str = "it did not come to its end";

fn end(mut span: Span, now: Nanos, gone: &mut dyn FnMut(Span)) {
    span.end = now.max(span.start);
    gone(span);
}

fn of_version(version: Version) -> (&'static str, Value) {
    ("lockstep.version", Value::Count(version.0))
}

fn of_store(store: StoreName) -> (&'static str, Value) {
    ("lockstep.store", Value::Text(store.word().to_owned()))
}

/// As OpenTelemetry calls it.
fn system(store: StoreName) -> &'static str {
    match store {
        StoreName::Postgres => "postgresql",
        StoreName::Mongo => "mongodb",
    }
}

fn way(direction: Direction) -> &'static str {
    match direction {
        Direction::Up => "up",
        Direction::Down => "down",
    }
}

fn new_trace() -> TraceId {
    TraceId(uuid::Uuid::new_v4().as_u128())
}

/// The first half of a random UUID, of which four bits are fixed.
fn new_span() -> SpanId {
    SpanId(uuid::Uuid::new_v4().as_u64_pair().0)
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "an expect![] is written where it is used")]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Ids that stand in the order of the spans' beginnings; each test's own range is
    /// not needed, since only their order is shown.
    fn counted() -> SpanId {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        SpanId(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    fn tracer() -> Tracer {
        Tracer::with_ids("up", None, 0, TraceId(1), counted)
    }

    fn step(text: &str) -> StepName {
        text.parse().expect("a step")
    }

    fn migration(version: u64, direction: Direction) -> Notice {
        Notice::MigrationStarted {
            version: Version(version),
            folder: format!("{version:03}-x"),
            direction,
            longest: 0,
        }
    }

    fn migrated(version: u64) -> Notice {
        Notice::MigrationFinished {
            version: Version(version),
            folder: format!("{version:03}-x"),
            direction: Direction::Up,
            took: Duration::ZERO,
        }
    }

    fn started(version: u64, name: &str) -> Notice {
        Notice::StepStarted {
            version: Version(version),
            step: step(name),
            store: StoreName::Postgres,
            summary: "CREATE ROLE app PASSWORD 's3cret'".to_owned(),
            settling: false,
        }
    }

    fn finished(version: u64, name: &str) -> Notice {
        Notice::StepFinished {
            version: Version(version),
            step: step(name),
            store: StoreName::Postgres,
            took: Duration::ZERO,
        }
    }

    fn batch(version: u64, name: &str, took: u64) -> Notice {
        Notice::BatchFinished {
            version: Version(version),
            step: step(name),
            store: StoreName::Postgres,
            shard: 1,
            rows: 5,
            passed: 10,
            took: Duration::from_nanos(took),
        }
    }

    /// The spans of a run: each notice is at ten times its number.
    fn spans(mut tracer: Tracer, notices: &[Notice], how: &End<'_>) -> Vec<Span> {
        let mut spans = Vec::new();
        let mut now = 0;
        for notice in notices {
            now += 10;
            tracer.notice(notice, now, &mut |span| spans.push(span));
        }
        tracer.end(how, now + 10, &mut |span| spans.push(span));
        spans
    }

    /// As a tree, in the order of their beginnings.
    fn check(notices: &[Notice], how: &End<'_>, expected: Expect) {
        let spans = spans(tracer(), notices, how);
        for span in &spans {
            assert!(!format!("{span:?}").contains("s3cret"), "{span:?}");
        }
        expected.assert_eq(&tree(&spans, None, 0));
    }

    fn tree(spans: &[Span], parent: Option<SpanId>, depth: usize) -> String {
        let mut children: Vec<&Span> = spans.iter().filter(|it| it.parent == parent).collect();
        children.sort_by_key(|span| (span.start, span.id.0));
        let mut text = String::new();
        for span in children {
            let Span { name, start, end, error, .. } = span;
            let error = error.as_ref().map(|error| format!(" error: {error}")).unwrap_or_default();
            text.push_str(&format!("{}{name} {start}-{end}{error}\n", "  ".repeat(depth)));
            text.push_str(&tree(spans, Some(span.id), depth + 1));
        }
        text
    }

    const OK: End<'static> = End { outcome: "ok", code: 0, error: None, dropped: 0 };
    const FAILED: End<'static> =
        End { outcome: "failed", code: 1, error: Some(("STEP_FAILED", "it said no")), dropped: 0 };

    #[test]
    fn a_run_is_a_tree_of_migrations_steps_and_batches() {
        check(
            &[
                migration(1, Direction::Up),
                started(1, "up/postgres/1"),
                finished(1, "up/postgres/1"),
                migrated(1),
                migration(2, Direction::Up),
                started(2, "up/postgres/1"),
                batch(2, "up/postgres/1", 3),
                batch(2, "up/postgres/1", 500),
                finished(2, "up/postgres/1"),
                migrated(2),
            ],
            &OK,
            expect![[r#"
                migrate up 0-110
                  001-x 10-40
                    up/postgres/1 20-30
                  002-x 50-100
                    up/postgres/1 60-90
                      batch 60-80
                      batch 67-70
            "#]],
        );
    }

    #[test]
    fn what_is_at_work_when_a_run_fails_has_failed() {
        check(
            &[
                migration(1, Direction::Up),
                started(1, "up/postgres/1"),
                finished(1, "up/postgres/1"),
                started(1, "up/postgres/2"),
            ],
            &FAILED,
            expect![[r#"
                migrate up 0-50 error: it said no
                  001-x 10-50 error: it said no
                    up/postgres/1 20-30
                    up/postgres/2 40-50 error: it said no
            "#]],
        );
    }

    #[test]
    fn what_is_rolled_back_failed_before() {
        check(
            &[
                migration(1, Direction::Up),
                started(1, "up/postgres/1"),
                migration(1, Direction::Down),
                started(1, "down/postgres/1"),
                finished(1, "down/postgres/1"),
                migrated(1),
            ],
            &FAILED,
            expect![[r#"
                migrate up 0-70 error: it said no
                  001-x 10-30 error: it did not come to its end
                    up/postgres/1 20-30 error: it did not come to its end
                  001-x 30-60
                    down/postgres/1 40-50
            "#]],
        );
    }

    #[test]
    fn batches_of_somebody_elses_backfill_are_of_the_run() {
        check(
            &[batch(1, "up/postgres/1", 3)],
            &OK,
            expect![[r#"
            migrate up 0-20
              batch 7-10
        "#]],
        );
    }

    #[test]
    fn hooks_are_where_they_run() {
        let hook = |error: Option<&str>| {
            let command = "curl -u app:s3cret".to_owned();
            [
                Notice::HookStarted { hook: "before_up", command: command.clone() },
                Notice::HookFinished {
                    hook: "before_up",
                    command,
                    took: Duration::ZERO,
                    error: error.map(str::to_owned),
                },
            ]
        };
        let mut notices = hook(None).to_vec();
        notices.push(migration(1, Direction::Up));
        notices.extend(hook(Some("`curl -u app:s3cret` failed with exit code 1")));
        check(
            &notices,
            &FAILED,
            expect![[r#"
            migrate up 0-60 error: it said no
              before_up 10-20
              001-x 30-60 error: it said no
                before_up 40-50 error: the hook failed
        "#]],
        );
    }

    #[test]
    fn a_parent_of_the_environment_is_the_parent_of_the_run() {
        let parent = Parent { trace: TraceId(0xabc), span: SpanId(0xdef) };
        let tracer = Tracer::with_ids("up", Some(parent), 0, TraceId(1), counted);
        assert_eq!(tracer.trace, TraceId(0xabc));
        let spans = spans(tracer, &[], &OK);
        assert_eq!(spans[0].parent, Some(SpanId(0xdef)));
    }

    #[test]
    fn of_many_batches_the_first_are_spans_and_then_one_a_minute() {
        let mut tracer = tracer();
        let mut spans = Vec::new();
        let mut gone = |span: Span| spans.push(span);
        tracer.notice(&started(1, "up/postgres/1"), 0, &mut gone);
        // A day of ten batches a second.
        let many = 24 * 60 * 60 * 10;
        for number in 1..=many {
            let now = number * 100_000_000;
            tracer.notice(&batch(1, "up/postgres/1", 1), now, &mut gone);
        }
        tracer.notice(&finished(1, "up/postgres/1"), many * 100_000_000, &mut gone);
        let step = spans.pop().expect("the step");
        let told = u64::try_from(spans.len()).expect("few");
        assert!((BATCHES_MAX + 1_400..=BATCHES_MAX + 1_440).contains(&told), "{told}");
        assert!(step.attributes.contains(&("lockstep.batches", Value::Count(many))));
        let dropped = ("lockstep.batches_dropped", Value::Count(many - told));
        assert!(step.attributes.contains(&dropped), "{step:?}");
    }

    #[test]
    fn a_span_has_so_many_events_and_no_more() {
        let waiting = Notice::Waiting { store: StoreName::Postgres, holder: "somebody".to_owned() };
        let notices = vec![waiting; EVENTS_MAX + 3];
        let spans = spans(tracer(), &notices, &OK);
        assert_eq!((spans[0].events.len(), spans[0].events_dropped), (EVENTS_MAX, 3));
    }
}
