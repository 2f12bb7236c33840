//! Execution: carries out a plan, one effect at a time.
//!
//! As little as possible lives here. What to do was decided by [`plan`]; this
//! module only knows in which order the effects of one step must happen.
//!
//! [`plan`]: crate::core::plan::plan

use crate::core::history::{Entry, Event, Record, Row, RowStatus, StepState, Timestamp};
use crate::core::id::{Direction, StepId, StepName, StoreName, Version};
use crate::core::notice::{Notice, Notices};
use crate::core::plan::{Action, Attempt, Plan, Work};
use crate::core::step::{Body, Commit, Step};
use crate::engine::lock::Locked;
use crate::engine::{Clock, Stop, StopReason};
use crate::store::{Fate, Holds, Run, StepRef, Store, StoreError};
use std::time::Duration;

/// Entries that wait for the next write to their store are written on their own
/// when there are this many, so that a crash repeats little.
const BEHIND_MAX: usize = 200;

/// What a plan is carried out with.
pub struct Context<'a> {
    /// Who does it.
    pub run: &'a Run,
    /// The version of this program, for the history.
    pub tool_version: &'a str,
    /// For the times in the history.
    pub clock: &'a dyn Clock,
    /// Told what happens.
    pub notices: &'a mut dyn Notices,
    /// Asked between two steps.
    pub stop: &'a Stop,
}

/// Why a run stopped before its plan was carried out. What it had done is
/// recorded; the same command continues there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExecuteError {
    /// The migrations that it finished.
    pub finished: Vec<Version>,
    /// Where it stopped.
    pub at: Option<FailedAt>,
    /// Why.
    pub cause: Cause,
}

/// The step at which a run stopped.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FailedAt {
    /// The migration's folder.
    pub folder: String,
    /// Its version.
    pub version: Version,
    /// Applied or reverted.
    pub direction: Direction,
    /// The step.
    pub step: Step,
}

/// Why a run stopped.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Cause {
    /// A store said no, or said nothing.
    Store(StoreError),
    /// A name that the step would give is taken.
    Obstacle(String),
    /// Only a person can say whether a step in doubt has happened.
    Ask,
    /// Somebody asked for it.
    Stopped(StopReason),
}

impl From<StoreError> for Cause {
    fn from(error: StoreError) -> Cause {
        Cause::Store(error)
    }
}

/// Carries out a plan. When it returns, whatever it did is durable in both
/// stores, seals included.
///
/// # Errors
/// [`ExecuteError`]; what was done until then is recorded, and a new plan goes
/// on from there.
pub async fn execute<P, M>(
    plan: &Plan,
    locked: &mut Locked<'_, P, M>,
    context: Context<'_>,
) -> Result<Vec<Version>, ExecuteError>
where
    P: Store<Step = crate::core::step::PgStep>,
    M: Store<Step = crate::core::step::MongoStep>,
{
    let mut executor =
        Executor { locked, context, behind: Behind::default(), finished: Vec::new() };
    for work in &plan.work {
        if let Err((cause, step)) = executor.work(work).await {
            // Seals of what is finished are worth a try; the next plan writes
            // them if it fails.
            let _ = executor.flush().await;
            let at = step.map(|step| FailedAt {
                folder: work.folder.clone(),
                version: work.version,
                direction: work.direction,
                step,
            });
            return Err(ExecuteError { finished: executor.finished, at, cause });
        }
    }
    match executor.flush().await {
        Ok(()) => Ok(executor.finished),
        Err(error) => {
            Err(ExecuteError { finished: executor.finished, at: None, cause: error.into() })
        }
    }
}

/// Entries that are written with the next write to their store, or at the end.
#[derive(Default)]
struct Behind {
    postgres: Vec<Entry>,
    mongo: Vec<Entry>,
}

impl Behind {
    fn of(&mut self, store: StoreName) -> &mut Vec<Entry> {
        match store {
            StoreName::Postgres => &mut self.postgres,
            StoreName::Mongo => &mut self.mongo,
        }
    }

    /// The row, in place of an older row of the same migration that was not
    /// written yet.
    fn push_row(&mut self, store: StoreName, row: &Row, work: &Work) {
        let entries = self.of(store);
        entries
            .retain(|entry| !matches!(entry, Entry::Row(older, _) if older.version == row.version));
        entries.push(Entry::Row(Box::new(row.clone()), work.rollback.clone()));
    }
}

struct Executor<'a, 'b, 'c, P, M> {
    locked: &'a mut Locked<'b, P, M>,
    context: Context<'c>,
    behind: Behind,
    finished: Vec<Version>,
}

impl<P, M> Executor<'_, '_, '_, P, M>
where
    P: Store<Step = crate::core::step::PgStep>,
    M: Store<Step = crate::core::step::MongoStep>,
{
    async fn work(&mut self, work: &Work) -> Result<(), (Cause, Option<Step>)> {
        let begun = self.context.clock.now();
        let quiet =
            work.actions.iter().all(|action| matches!(action, Action::Seal | Action::Unseal));
        if !quiet {
            let folder = work.folder.clone();
            let (version, direction) = (work.version, work.direction);
            self.say(Notice::MigrationStarted { version, folder, direction });
            let row = self.row(work, begun, None);
            for store in self.locked.stores.configured() {
                self.behind.push_row(store, &row, work);
            }
        }
        let mut progress = work.row.is_some();
        for action in &work.actions {
            let step = match action {
                Action::Run(attempt) | Action::Settle(attempt) | Action::Abandon(attempt) => {
                    Some(attempt.step.clone())
                }
                _ => None,
            };
            match self.act(work, action, begun).await {
                Ok(()) => progress |= step.is_some(),
                Err(cause) => {
                    if !progress {
                        self.forget_row(work, &cause, step.as_ref());
                    }
                    return Err((cause, step));
                }
            }
        }
        if !quiet {
            self.finished.push(work.version);
            let took = between(begun, self.context.clock.now());
            let folder = work.folder.clone();
            let (version, direction) = (work.version, work.direction);
            self.say(Notice::MigrationFinished { version, folder, direction, took });
        }
        Ok(())
    }

    /// A migration that failed at its first step, without a trace, has no row.
    fn forget_row(&mut self, work: &Work, cause: &Cause, step: Option<&Step>) {
        let undone = match cause {
            Cause::Store(error) => error.fate == Fate::Refused,
            Cause::Obstacle(_) | Cause::Stopped(_) => true,
            Cause::Ask => false,
        };
        if !undone {
            return;
        }
        for store in self.locked.stores.configured() {
            let entries = self.behind.of(store);
            entries.retain(
                |entry| !matches!(entry, Entry::Row(row, _) if row.version == work.version),
            );
            // It was written with the announcement of a journaled step.
            if step.is_some_and(|step| step.store() == store && step.commit == Commit::Journaled) {
                entries.push(Entry::RowGone(work.version));
            }
        }
    }

    async fn act(&mut self, work: &Work, action: &Action, begun: Timestamp) -> Result<(), Cause> {
        match action {
            Action::Run(attempt) => {
                self.check_stop()?;
                let started = self.step_started(work, attempt, false);
                self.run(work, attempt).await?;
                self.step_finished(work, attempt, started);
            }
            Action::Settle(attempt) => {
                self.check_stop()?;
                let started = self.step_started(work, attempt, true);
                self.settle(work, attempt).await?;
                self.step_finished(work, attempt, started);
            }
            Action::Abandon(attempt) => {
                let started = self.step_started(work, attempt, true);
                self.abandon(work, attempt).await?;
                self.step_finished(work, attempt, started);
            }
            Action::Intend(store, steps) => {
                let entries: Vec<Entry> = entries(work, steps, Event::Reverting).collect();
                self.append(*store, entries).await?;
            }
            Action::Close(store, steps) => {
                self.behind.of(*store).extend(entries(work, steps, Event::Reverted));
            }
            Action::Accept(attempt) => {
                let accepted = Record {
                    step: StepId { version: work.version, name: StepName::Accepted },
                    attempt: *attempt,
                    event: Event::Applied,
                    rank: work.rank,
                    checksum: work.checksum,
                    migration_checksum: work.checksum,
                };
                for store in self.locked.stores.configured() {
                    self.behind.of(store).push(Entry::Record(accepted.clone()));
                }
            }
            Action::Seal => {
                let row = self.row(work, begun, Some(self.context.clock.now()));
                for store in self.locked.stores.configured() {
                    self.behind.push_row(store, &row, work);
                    self.flush_if_long(store).await?;
                }
            }
            Action::Unseal => {
                for store in self.locked.stores.configured() {
                    self.behind.of(store).push(Entry::RowGone(work.version));
                    self.flush_if_long(store).await?;
                }
            }
        }
        Ok(())
    }

    /// A step that never ran.
    async fn run(&mut self, work: &Work, attempt: &Attempt) -> Result<(), Cause> {
        let store = attempt.step.store();
        match attempt.step.commit {
            Commit::Atomic => {
                let mut entries = std::mem::take(self.behind.of(store));
                entries.push(record(work, attempt, Event::Applied));
                let done = self.locked.stores.commit(step_ref(&attempt.step), &entries).await;
                if let Err(error) = done {
                    // Seals of earlier migrations were among them.
                    entries.pop();
                    *self.behind.of(store) = entries;
                    return Err(error.into());
                }
                Ok(())
            }
            // A partly applied migration may lack what its down script removes.
            Commit::Journaled
                if work.direction == Direction::Down
                    && self.locked.stores.holds(step_ref(&attempt.step)).await? == Holds::Yes =>
            {
                Ok(self.append(store, vec![record(work, attempt, Event::Applied)]).await?)
            }
            Commit::Journaled => {
                if let Some(obstacle) = self.locked.stores.obstacle(step_ref(&attempt.step)).await?
                {
                    return Err(Cause::Obstacle(obstacle));
                }
                self.append(store, vec![record(work, attempt, Event::Started)]).await?;
                self.perform(work, attempt).await
            }
        }
    }

    /// A step in doubt, on the way up or in the middle of a down script.
    async fn settle(&mut self, work: &Work, attempt: &Attempt) -> Result<(), Cause> {
        let step = step_ref(&attempt.step);
        match self.locked.stores.holds(step).await? {
            Holds::Ask => Err(Cause::Ask),
            Holds::Yes => {
                let applied = record(work, attempt, Event::Applied);
                Ok(self.append(attempt.step.store(), vec![applied]).await?)
            }
            Holds::No => {
                self.locked.stores.clear(step).await?;
                self.perform(work, attempt).await
            }
        }
    }

    /// A step in doubt whose migration is about to be reverted.
    async fn abandon(&mut self, work: &Work, attempt: &Attempt) -> Result<(), Cause> {
        let step = step_ref(&attempt.step);
        let event = match self.locked.stores.holds(step).await? {
            Holds::Ask => return Err(Cause::Ask),
            Holds::Yes => Event::Applied,
            Holds::No => {
                self.locked.stores.clear(step).await?;
                Event::Reverted
            }
        };
        Ok(self.append(attempt.step.store(), vec![record(work, attempt, event)]).await?)
    }

    /// The effect of a journaled step that is announced, and its record. When
    /// the server refuses it, nothing of it is left and it is no longer in doubt.
    async fn perform(&mut self, work: &Work, attempt: &Attempt) -> Result<(), Cause> {
        let store = attempt.step.store();
        let step = step_ref(&attempt.step);
        if let Err(error) = self.locked.stores.perform(step).await {
            if error.fate == Fate::Refused && self.locked.stores.clear(step).await.is_ok() {
                // If this is not recorded, the step stays in doubt and is
                // settled by the next run; the first error is the one to show.
                let _ = self.append(store, vec![record(work, attempt, Event::Reverted)]).await;
            }
            return Err(error.into());
        }
        Ok(self.append(store, vec![record(work, attempt, Event::Applied)]).await?)
    }

    /// Writes entries now, after those that wait.
    async fn append(&mut self, store: StoreName, entries: Vec<Entry>) -> Result<(), StoreError> {
        let mut all = std::mem::take(self.behind.of(store));
        all.extend(entries);
        self.locked.stores.append(store, &all).await
    }

    async fn flush_if_long(&mut self, store: StoreName) -> Result<(), StoreError> {
        if self.behind.of(store).len() < BEHIND_MAX {
            return Ok(());
        }
        self.append(store, Vec::new()).await
    }

    async fn flush(&mut self) -> Result<(), StoreError> {
        for store in StoreName::BOTH {
            if !self.behind.of(store).is_empty() {
                self.append(store, Vec::new()).await?;
            }
        }
        Ok(())
    }

    fn check_stop(&self) -> Result<(), Cause> {
        match self.context.stop.requested() {
            Some(reason) => Err(Cause::Stopped(reason)),
            None => Ok(()),
        }
    }

    fn step_started(&mut self, work: &Work, attempt: &Attempt, settling: bool) -> Timestamp {
        self.say(Notice::StepStarted {
            version: work.version,
            step: attempt.step.name.clone(),
            store: attempt.step.store(),
            summary: attempt.step.summary(),
            settling,
        });
        self.context.clock.now()
    }

    fn step_finished(&mut self, work: &Work, attempt: &Attempt, started: Timestamp) {
        let took = between(started, self.context.clock.now());
        let (version, step) = (work.version, attempt.step.name.clone());
        self.say(Notice::StepFinished { version, step, store: attempt.step.store(), took });
    }

    fn say(&mut self, notice: Notice) {
        self.context.notices.notice(notice);
    }

    /// The migration's row: running, or done when `finished`.
    fn row(&self, work: &Work, begun: Timestamp, finished: Option<Timestamp>) -> Row {
        let run = self.context.run;
        let spent = u64::try_from(finished.unwrap_or(begun).0 - begun.0).unwrap_or(0);
        let row = Row {
            version: work.version,
            rank: work.rank,
            migration_name: work.folder.clone(),
            description: work.description.clone(),
            checksum: work.checksum,
            status: if finished.is_some() { RowStatus::Completed } else { RowStatus::Running },
            executed_at: begun,
            finished_at: finished,
            execution_time_ms: spent,
            applied_by: run.who(),
            release: run.release.clone(),
            tool_version: self.context.tool_version.to_owned(),
            run_id: run.id.clone(),
        };
        match &work.row {
            None => row,
            // A seal that was lost is written again as it was.
            Some(before)
                if before.status != RowStatus::Running && work.direction == Direction::Up =>
            {
                before.clone()
            }
            Some(before) => Row {
                executed_at: before.executed_at,
                execution_time_ms: before.execution_time_ms + spent,
                ..row
            },
        }
    }
}

fn step_ref(step: &Step) -> StepRef<'_> {
    match &step.body {
        Body::Postgres(body) => StepRef::Postgres(body),
        Body::Mongo(body) => StepRef::Mongo(body),
    }
}

fn record(work: &Work, attempt: &Attempt, event: Event) -> Entry {
    Entry::Record(Record {
        step: StepId { version: work.version, name: attempt.step.name.clone() },
        attempt: attempt.attempt,
        event,
        rank: work.rank,
        checksum: attempt.step.checksum,
        migration_checksum: work.checksum,
    })
}

/// The same event for steps that were recorded before.
fn entries<'a>(
    work: &'a Work,
    steps: &'a [(StepName, StepState)],
    event: Event,
) -> impl Iterator<Item = Entry> + 'a {
    steps.iter().map(move |(name, state)| {
        Entry::Record(Record {
            step: StepId { version: work.version, name: name.clone() },
            attempt: state.attempt,
            event,
            rank: state.rank,
            checksum: state.checksum,
            migration_checksum: state.migration_checksum,
        })
    })
}

fn between(start: Timestamp, end: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(end.0 - start.0).unwrap_or(0))
}
