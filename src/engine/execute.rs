//! Execution: carries out a plan, one effect at a time.
//!
//! As little as possible lives here. What to do was decided by [`plan`]; this
//! module only knows in which order the effects of one step must happen.
//!
//! [`plan`]: crate::core::plan::plan

mod named;
mod telling;

use crate::core::backup::{self, Required};
use crate::core::duration::show;
use crate::core::expectation::Broken;
use crate::core::history::{Entry, Event, Record, Row, RowStatus, Status, StepState, Timestamp};
use crate::core::id::{Direction, Phase, StepId, StepName, StoreName, Version};
use crate::core::notice::{Notice, Notices};
use crate::core::plan::{Action, Attempt, Plan, Work};
use crate::core::step::{Body, Commit, MongoKind, SqlKind, Step};
use crate::engine::hook::{HookError, Moment};
use crate::engine::lock::{Locked, jitter};
use crate::engine::program::ProgramError;
use crate::engine::{Clock, Means, Stop, StopReason};
use crate::store::{Fate, Holds, MongoStore, PostgresStore, Run, StepRef, StoreError};
use std::time::Duration;
use telling::telling;
use tokio::time::{Instant, sleep};

/// Entries that wait for the next write to their store are written on their own
/// when there are this many, so that a crash repeats little.
const BEHIND_MAX: usize = 200;

/// So often is a step tried that other sessions are in the way of.
const STEP_TRIES: u32 = 10;

/// Between two tries: twice as long each time, up to 32 times as long, so that a
/// busy table gets its turn; of that a random part, so that runs against several
/// databases of one server do not come back together.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// What a plan is carried out with.
pub struct Context<'a> {
    /// Who does it.
    pub run: &'a Run,
    /// Which way it is meant to go. What was begun the other way comes first, and is
    /// not what it was asked for: it does not count as finished.
    pub direction: Direction,
    /// The version of this program, for the history.
    pub tool_version: &'a str,
    /// For the times in the history.
    pub clock: &'a dyn Clock,
    /// Told what happens.
    pub notices: &'a mut dyn Notices,
    /// Asked between two steps.
    pub stop: &'a Stop,
    /// How what `migration.toml` names is carried out.
    pub means: Means<'a>,
}

/// Why a run stopped before its plan was carried out. What it had done is
/// recorded; the same command continues there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExecuteError {
    /// The migrations that it finished, of those that went the way of the run.
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
    /// An invariant does not hold.
    Broken(Box<Broken>),
    /// A program failed.
    Program(ProgramError),
    /// A command that was to run before a cleanup failed.
    Hook(HookError),
    /// There is no backup, or none that is young enough, of what a cleanup takes away.
    Backup {
        /// The migration's folder.
        folder: String,
        /// What it needs, and what there is.
        required: Required,
    },
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
    P: PostgresStore,
    M: MongoStore,
{
    let mut executor = Executor {
        locked,
        context,
        behind: Behind::default(),
        in_doubt: false,
        finished: Vec::new(),
    };
    let mut before = Direction::Up;
    for work in &plan.work {
        let done = match (std::mem::replace(&mut before, work.direction), work.direction) {
            // That it is reverted is known in both stores before it is applied again
            // in either: attempts of the two are counted together.
            (Direction::Down, Direction::Up) => executor.flush().await,
            _ => Ok(()),
        };
        let done = match done {
            Ok(()) => Box::pin(executor.work(work)).await,
            Err(error) => Err((error.into(), None)),
        };
        if let Err((cause, step)) = done {
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

/// Whether it is a step of a cleanup.
fn cleans(action: &Action) -> bool {
    let (Action::Run(attempt) | Action::Settle(attempt)) = action else { return false };
    attempt.step.direction() == Direction::Up && attempt.step.phase() == Phase::Cleanup
}

/// Whether it is one, or what is asked right before it.
fn is_of_cleanup(action: &Action) -> bool {
    matches!(action, Action::Check(_)) || cleans(action)
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
    /// A step is recorded as started, and not what became of it.
    in_doubt: bool,
    finished: Vec<Version>,
}

impl<P, M> Executor<'_, '_, '_, P, M>
where
    P: PostgresStore,
    M: MongoStore,
{
    async fn work(&mut self, work: &Work) -> Result<(), (Cause, Option<Step>)> {
        let begun = self.context.clock.now();
        let ends = |action: &Action| matches!(action, Action::Seal | Action::Hold | Action::Unseal);
        let quiet = work.actions.iter().all(ends);
        if !quiet {
            let folder = work.folder.clone();
            let (version, direction) = (work.version, work.direction);
            let longest = work.longest_name();
            self.say(Notice::MigrationStarted { version, folder, direction, longest });
            let row = self.row(work, begun, None);
            for store in self.locked.stores.configured() {
                self.behind.push_row(store, &row, work);
            }
            if work.direction == Direction::Down {
                self.break_seals(work).await.map_err(|error| (error.into(), None))?;
            }
        }
        let mut progress = work.row.is_some();
        let cleans = work.actions.iter().any(cleans);
        let mut hooked = false;
        for action in &work.actions {
            if cleans && !hooked && is_of_cleanup(action) {
                hooked = true;
                let ready = match self.before_cleanup(work).await {
                    Ok(()) => self.check_backups(work).await,
                    failed => failed,
                };
                if let Err(cause) = ready {
                    self.note_time(work, begun);
                    return Err((cause, None));
                }
            }
            let step = match action {
                Action::Run(attempt) | Action::Settle(attempt) | Action::Abandon(attempt) => {
                    Some(attempt.step.clone())
                }
                _ => None,
            };
            match self.act(work, action, begun).await {
                Ok(()) => progress = true,
                Err(cause) => {
                    // What may have left a trace has begun.
                    if progress || self.in_doubt {
                        self.note_time(work, begun);
                    } else {
                        self.forget_row(work, &cause, step.as_ref());
                    }
                    return Err((cause, step));
                }
            }
        }
        // What was told to go on only so far is not finished.
        if !quiet && work.actions.iter().any(ends) {
            if work.direction == self.context.direction {
                self.finished.push(work.version);
            }
            let took = between(begun, self.context.clock.now());
            let folder = work.folder.clone();
            let (version, direction) = (work.version, work.direction);
            self.say(Notice::MigrationFinished { version, folder, direction, took });
        }
        if hooked {
            self.after_cleanup(work).await.map_err(|error| (error.into(), None))?;
        }
        Ok(())
    }

    /// What the project wants to run before anything is taken away for good.
    async fn before_cleanup(&mut self, work: &Work) -> Result<(), Cause> {
        let Some(hooks) = self.context.means.hooks else { return Ok(()) };
        if !hooks.has(Moment::BeforeCleanup) {
            return Ok(());
        }
        self.check_stop()?;
        // A backup that it makes has in its histories what is done, in both stores.
        self.flush().await?;
        let (stop, notices) = (self.context.stop, &mut *self.context.notices);
        hooks.before_cleanup(work, stop, notices).await.map_err(|error| match error {
            HookError::Stopped(reason) => Cause::Stopped(reason),
            error @ HookError::Failed { .. } => Cause::Hook(error),
        })
    }

    /// Refuses a cleanup of stores of which there is no backup that is young enough,
    /// where the project asks for one. A hook before may have made it.
    async fn check_backups(&mut self, work: &Work) -> Result<(), Cause> {
        let Some(limit) = self.context.means.require_backup else { return Ok(()) };
        let mut stores = Vec::new();
        for store in backup::touched(work, &self.locked.stores.configured()) {
            let seen = self.locked.stores.backups(store).await?;
            stores.push((store, backup::standing(&seen, limit)));
        }
        let required = Required { limit, stores };
        match required.is_met() {
            true => Ok(()),
            false => Err(Cause::Backup { folder: work.folder.clone(), required }),
        }
    }

    /// What the project wants to run after it. Whoever looks at the histories then
    /// finds them written.
    async fn after_cleanup(&mut self, work: &Work) -> Result<(), StoreError> {
        let Some(hooks) = self.context.means.hooks else { return Ok(()) };
        if !hooks.has(Moment::AfterCleanup) {
            return Ok(());
        }
        self.flush().await?;
        let (stop, notices) = (self.context.stop, &mut *self.context.notices);
        hooks.after_cleanup(work, stop, notices).await;
        Ok(())
    }

    /// The row of a migration that goes on in another run keeps what this one
    /// spent on it.
    fn note_time(&mut self, work: &Work, begun: Timestamp) {
        let now = self.context.clock.now();
        let spent = u64::try_from(now.0 - begun.0).unwrap_or(0);
        let row = self.row(work, begun, None);
        let row = Row { execution_time_ms: row.execution_time_ms + spent, ..row };
        for store in self.locked.stores.configured() {
            self.behind.push_row(store, &row, work);
        }
    }

    /// Before anything of a migration is reverted, no store says that all of it is
    /// done: where nothing announces it, because nothing is to be reverted there,
    /// the row is written for itself.
    async fn break_seals(&mut self, work: &Work) -> Result<(), StoreError> {
        for store in self.locked.stores.configured() {
            let row = self.locked.histories.of(store).row(work.version);
            let sealed = row.is_some_and(|row| row.status != RowStatus::Running);
            let announced =
                |action: &Action| matches!(action, Action::Intend(at, _) if *at == store);
            if sealed && !work.actions.iter().any(announced) {
                self.append(store, Vec::new()).await?;
            }
        }
        Ok(())
    }

    /// A migration that failed at its first step, without a trace, has no row.
    fn forget_row(&mut self, work: &Work, cause: &Cause, step: Option<&Step>) {
        for store in self.locked.stores.configured() {
            self.behind.of(store).retain(
                |entry| !matches!(entry, Entry::Row(row, _) if row.version == work.version),
            );
        }
        let undone = match cause {
            Cause::Store(error) => error.fate == Fate::Refused,
            Cause::Obstacle(_)
            | Cause::Broken(_)
            | Cause::Program(_)
            | Cause::Hook(_)
            | Cause::Backup { .. }
            | Cause::Stopped(_) => true,
            Cause::Ask => false,
        };
        // It was written with the announcement of a journaled step.
        if let Some(step) = step
            && step.commit == Commit::Journaled
            && undone
        {
            self.behind.of(step.store()).push(Entry::RowGone(work.version));
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
            Action::Pause(time) => {
                self.remark(format!("waiting {} before the next phase", show(*time)));
                self.rest(*time).await?;
            }
            Action::Check(steps) => Box::pin(self.check_all(work, steps)).await?,
            Action::Seal | Action::Hold => {
                let status = match action {
                    Action::Hold => RowStatus::Held,
                    _ if self.is_baseline(work.version) => RowStatus::Baseline,
                    _ => RowStatus::Completed,
                };
                let row = self.row(work, begun, Some((status, self.context.clock.now())));
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

    /// Whether the migration was recorded, not run.
    fn is_baseline(&self, version: Version) -> bool {
        let id = StepId { version, name: StepName::Baseline };
        let histories = &self.locked.histories;
        let states = StoreName::BOTH.into_iter().filter_map(|store| histories.of(store).step(&id));
        states.into_iter().any(|state| state.status() != Status::Pending)
    }

    /// A step that never ran.
    async fn run(&mut self, work: &Work, attempt: &Attempt) -> Result<(), Cause> {
        let store = attempt.step.store();
        match &attempt.step.body {
            Body::Postgres(_) | Body::Mongo(_) => {}
            Body::Backfill(backfill) => return self.backfill(work, attempt, backfill).await,
            Body::Check(invariant) => {
                Box::pin(self.check(work, invariant, Some(attempt))).await?;
                return Ok(self.append(store, vec![entry(work, attempt, Event::Applied)]).await?);
            }
            Body::Program(program) => {
                self.append(store, vec![entry(work, attempt, Event::Started)]).await?;
                self.in_doubt = true;
                return self.program(work, attempt, program).await;
            }
        }
        match attempt.step.commit {
            Commit::Atomic => {
                let mut entries = std::mem::take(self.behind.of(store));
                entries.push(entry(work, attempt, Event::Applied));
                let done = self.commit(work, attempt, &entries).await;
                if done.is_err() {
                    // Seals of earlier migrations were among them.
                    entries.pop();
                    *self.behind.of(store) = entries;
                }
                done
            }
            // A partly applied migration may lack what its down script removes.
            Commit::Journaled
                if work.direction == Direction::Down
                    && self.locked.stores.holds(step_ref(&attempt.step)).await? == Holds::Yes =>
            {
                Ok(self.append(store, vec![entry(work, attempt, Event::Applied)]).await?)
            }
            Commit::Journaled => {
                if let Some(obstacle) = self.locked.stores.obstacle(step_ref(&attempt.step)).await?
                {
                    return Err(Cause::Obstacle(obstacle));
                }
                self.append(store, vec![entry(work, attempt, Event::Started)]).await?;
                self.in_doubt = true;
                self.perform(work, attempt, Sent::Never).await
            }
        }
    }

    /// An atomic step; again, while other sessions are in its way.
    async fn commit(
        &mut self,
        work: &Work,
        attempt: &Attempt,
        entries: &[Entry],
    ) -> Result<(), Cause> {
        let began = Instant::now();
        let mut tried = 0;
        loop {
            let gauge = self.locked.stores.gauge(attempt.step.store());
            let doing = self.locked.stores.commit(step_ref(&attempt.step), entries);
            let done = telling(doing, gauge, self.context.notices, work.version, attempt).await;
            let Err(mut error) = done else { return Ok(()) };
            let Some(obstruction) = self.locked.stores.obstruction(&error) else {
                return Err(error.into());
            };
            tried += 1;
            if tried >= STEP_TRIES {
                let holder = obstruction.holder.map(|holder| format!("; in the way: {holder}"));
                let tries = format!("tried {tried} times{}", holder.unwrap_or_default());
                error.said.detail.get_or_insert(tries);
                return Err(error.into());
            }
            let most = FIRST_PAUSE * 2_u32.pow(tried.min(5));
            let again = most.mul_f64(jitter(&self.context.run.id, began.elapsed()));
            self.say(Notice::StepDelayed {
                version: work.version,
                step: attempt.step.name.clone(),
                store: attempt.step.store(),
                said: error.said.message,
                lock: obstruction.lock,
                holder: obstruction.holder,
                tried,
                tries: STEP_TRIES,
                again,
            });
            self.rest(again).await?;
        }
    }

    /// Waits, unless somebody asks to stop.
    async fn rest(&self, time: Duration) -> Result<(), Cause> {
        let mut stop = self.context.stop.clone();
        tokio::select! {
            reason = stop.wait() => Err(Cause::Stopped(reason)),
            () = sleep(time) => Ok(()),
        }
    }

    /// A step in doubt, on the way up or in the middle of a down script.
    async fn settle(&mut self, work: &Work, attempt: &Attempt) -> Result<(), Cause> {
        match &attempt.step.body {
            Body::Postgres(_) | Body::Mongo(_) => {}
            Body::Backfill(backfill) => return self.backfill(work, attempt, backfill).await,
            Body::Check(_) => return self.run(work, attempt).await,
            Body::Program(program) => {
                self.in_doubt = true;
                return self.program(work, attempt, program).await;
            }
        }
        self.in_doubt = true;
        let step = step_ref(&attempt.step);
        match self.locked.stores.holds(step).await? {
            Holds::Ask => Err(Cause::Ask),
            Holds::Yes => Ok(self.resolve(work, attempt, Event::Applied).await?),
            Holds::No | Holds::Listed => {
                self.locked.stores.clear(step).await?;
                self.perform(work, attempt, Sent::Perhaps).await
            }
        }
    }

    /// A step in doubt whose migration is about to be reverted.
    async fn abandon(&mut self, work: &Work, attempt: &Attempt) -> Result<(), Cause> {
        let step = step_ref(&attempt.step);
        let event = match self.locked.stores.holds(step).await? {
            Holds::Ask => return Err(Cause::Ask),
            Holds::Yes => Event::Applied,
            Holds::No | Holds::Listed => match self.clear(step).await? {
                Left::All => Event::Applied,
                Left::Nothing => Event::Reverted,
                // Its down script shall find out: from here on there is only the way
                // back.
                Left::NobodyKnows => Event::Reverting,
            },
        };
        Ok(self.append(attempt.step.store(), vec![entry(work, attempt, event)]).await?)
    }

    /// The effect of a journaled step that is announced, and its record. When
    /// the server refuses it and nothing of it is left, it is no longer in doubt.
    async fn perform(&mut self, work: &Work, attempt: &Attempt, sent: Sent) -> Result<(), Cause> {
        let step = step_ref(&attempt.step);
        let gauge = self.locked.stores.gauge(attempt.step.store());
        let doing = self.locked.stores.perform(step);
        let done = telling(doing, gauge, self.context.notices, work.version, attempt).await;
        if let Err(error) = done {
            if error.fate != Fate::Refused {
                return Err(error.into());
            }
            match (self.clear(step).await, sent) {
                // It was refused because it is there: a statement that a killed run
                // had sent came first, or the rest of it was all that was missing.
                (Ok(Left::All), _) => {}
                (Ok(Left::Nothing), _) | (Ok(Left::NobodyKnows), Sent::Never) => {
                    // If this is not recorded, the step stays in doubt and is
                    // settled by the next run; the first error is the one to show.
                    let _ = self.resolve(work, attempt, Event::Reverted).await;
                    return Err(error.into());
                }
                (Ok(Left::NobodyKnows), Sent::Perhaps) | (Err(_), _) => return Err(error.into()),
            }
        }
        Ok(self.resolve(work, attempt, Event::Applied).await?)
    }

    /// Records what became of a step in doubt.
    async fn resolve(
        &mut self,
        work: &Work,
        attempt: &Attempt,
        event: Event,
    ) -> Result<(), StoreError> {
        self.append(attempt.step.store(), vec![entry(work, attempt, event)]).await?;
        self.in_doubt = false;
        Ok(())
    }

    /// Removes what is left of a step that did not come to its end, or, where it
    /// cannot be taken back, brings it there.
    async fn clear(&mut self, step: StepRef<'_>) -> Result<Left, StoreError> {
        self.locked.stores.clear(step).await?;
        Ok(match self.locked.stores.holds(step).await? {
            Holds::Yes => Left::All,
            Holds::No if is_seen(step) => Left::Nothing,
            Holds::No | Holds::Listed | Holds::Ask => Left::NobodyKnows,
        })
    }

    /// Writes entries now, after those that wait.
    async fn append(&mut self, store: StoreName, entries: Vec<Entry>) -> Result<(), StoreError> {
        let mut all = std::mem::take(self.behind.of(store));
        let waiting = all.len();
        all.extend(entries);
        let done = self.locked.stores.append(store, &all).await;
        if done.is_err() {
            all.truncate(waiting);
            *self.behind.of(store) = all;
        }
        done
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

    /// The migration's row: running, or what it is when it is `finished`.
    fn row(&self, work: &Work, begun: Timestamp, finished: Option<(RowStatus, Timestamp)>) -> Row {
        let run = self.context.run;
        let (status, finished) = match finished {
            Some((status, at)) => (status, Some(at)),
            None => (RowStatus::Running, None),
        };
        let spent = u64::try_from(finished.unwrap_or(begun).0 - begun.0).unwrap_or(0);
        let row = Row {
            version: work.version,
            rank: work.rank,
            migration_name: work.folder.clone(),
            description: work.description.clone(),
            checksum: work.checksum,
            status,
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
            // It is held until its cleanup is done, and whoever applied it did so.
            Some(before)
                if before.status == RowStatus::Held
                    && status != RowStatus::Held
                    && work.direction == Direction::Up =>
            {
                let status = if finished.is_some() { status } else { RowStatus::Held };
                let spent = before.execution_time_ms + spent;
                let finished_at = finished.or(before.finished_at);
                Row { status, finished_at, execution_time_ms: spent, ..before.clone() }
            }
            // A seal that was lost is written again as it was.
            Some(before)
                if before.status != RowStatus::Running && work.direction == Direction::Up =>
            {
                before.clone()
            }
            // On the way down it still tells who applied it, and as what: by that
            // the same command finds it again if it has to be repeated.
            Some(before) if work.direction == Direction::Down => {
                Row { status: RowStatus::Running, finished_at: None, ..before.clone() }
            }
            Some(before) => Row {
                executed_at: before.executed_at,
                execution_time_ms: before.execution_time_ms + spent,
                ..row
            },
        }
    }
}

/// Whether the statement of a journaled step was sent before, by a run that did
/// not learn what became of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Sent {
    Never,
    Perhaps,
}

/// What is left of a step after it was cleared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Left {
    /// All of it: it has happened.
    All,
    /// Nothing: it has not.
    Nothing,
    NobodyKnows,
}

/// Whether a store that says no means that nothing of the step is there, once it
/// is cleared. Where doing it again is harmless, no also means "do it again".
fn is_seen(step: StepRef<'_>) -> bool {
    match step {
        StepRef::Postgres(step) => step.statements.iter().all(|statement| match statement.kind {
            SqlKind::CreateIndexConcurrently { .. }
            | SqlKind::DropIndexConcurrently { .. }
            | SqlKind::ReindexConcurrently { .. }
            | SqlKind::DetachConcurrently { .. } => true,
            SqlKind::Transactional
            | SqlKind::AloneRepeatable
            | SqlKind::AloneOnce
            | SqlKind::Function { .. } => false,
        }),
        StepRef::Mongo(step) => match step.kind {
            MongoKind::CreateCollection
            | MongoKind::CreateView
            | MongoKind::CreateIndexes
            | MongoKind::DropIndexes
            | MongoKind::Drop
            | MongoKind::Rename
            | MongoKind::Nothing => true,
            MongoKind::Write(_)
            | MongoKind::CollMod
            | MongoKind::Output(_)
            | MongoKind::DropDatabase
            | MongoKind::Other => false,
        },
    }
}

fn step_ref(step: &Step) -> StepRef<'_> {
    match &step.body {
        Body::Postgres(body) => StepRef::Postgres(body),
        Body::Mongo(body) => StepRef::Mongo(body),
        Body::Backfill(_) | Body::Check(_) | Body::Program(_) => {
            unreachable!("run() and settle() have their own ways with them")
        }
    }
}

fn entry(work: &Work, attempt: &Attempt, event: Event) -> Entry {
    Entry::Record(record(work, attempt, event))
}

fn record(work: &Work, attempt: &Attempt, event: Event) -> Record {
    Record {
        step: StepId { version: work.version, name: attempt.step.name.clone() },
        attempt: attempt.attempt,
        event,
        rank: work.rank,
        checksum: attempt.step.checksum,
        migration_checksum: work.checksum,
    }
}

/// The same event for steps that were recorded before.
fn entries<'a>(
    work: &'a Work,
    steps: &'a [(StepName, StepState)],
    event: Event,
) -> impl Iterator<Item = Entry> + 'a {
    steps.iter().map(move |(name, state)| {
        Entry::Record(state.record(StepId { version: work.version, name: name.clone() }, event))
    })
}

fn between(start: Timestamp, end: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(end.0 - start.0).unwrap_or(0))
}
