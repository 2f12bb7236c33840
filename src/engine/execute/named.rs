//! Steps that `migration.toml` names: backfills, checks and programs.

use super::{Cause, Executor, entry, record};
use crate::core::backfill::Backfill;
use crate::core::compare::MAX_AGE;
use crate::core::duration::show;
use crate::core::history::Event;
use crate::core::id::StoreName;
use crate::core::notice::{Notice, Notices};
use crate::core::parse::manifest::{self, Check, Invariant};
use crate::core::plan::{Attempt, Work};
use crate::core::step::{Body, Program, Step, Timeouts};
use crate::engine::backfill::{self, BackfillError, Copying, Hands, Settings, Task};
use crate::engine::invariant::{Asking, Broken, Checked, Unanswered, check, lag};
use crate::engine::program::{self, ProgramError, Surroundings};
use crate::store::backfill::{Backfills, Job};
use crate::store::copy::Query;
use crate::store::{Fate, MongoStore, PostgresStore, StoreError, not_configured};
use tokio::time::Instant;

/// What to do about a comparison that took too long.
const TOO_OLD: &str = "cleanup was not run, and what was done before is recorded; run \
     `migrate cleanup` when there is less to do, or raise the invariant's `max_age`";

impl<P: PostgresStore, M: MongoStore> Executor<'_, '_, '_, P, M> {
    /// Begins a backfill, or goes on with one. How far it is is kept by its store,
    /// batch by batch; what is recorded here is that it came to its end.
    pub(super) async fn backfill(
        &mut self,
        work: &Work,
        attempt: &Attempt,
        backfill: &Backfill,
    ) -> Result<(), Cause> {
        let store = attempt.step.store();
        // What waits to be written comes before the first batch.
        self.append(store, Vec::new()).await?;
        let progress = record(work, attempt, Event::Progress);
        let (timeouts, max_bad) = (backfill.timeouts, backfill.max_bad);
        let job = Job { work: &backfill.work, record: &progress, timeouts, max_bad };
        let task = Task { job, backfill, entries: &[] };
        let means = self.context.means;
        let settings = Settings { pace: means.pace, minute: means.minute, stop: self.context.stop };
        let notices = &mut *self.context.notices;
        let stores = &mut *self.locked.stores;
        let done = match &backfill.work {
            manifest::Work::Update { .. }
            | manifest::Work::Sql { .. }
            | manifest::Work::Call { .. } => {
                let other = stores.mongo.as_mut();
                let postgres = stores.postgres.as_mut();
                let postgres = postgres.ok_or_else(|| not_configured(StoreName::Postgres))?;
                lead(postgres, other, task, settings, notices).await
            }
            manifest::Work::Documents { .. } => {
                let other = stores.postgres.as_mut();
                let mongo = stores.mongo.as_mut();
                let mongo = mongo.ok_or_else(|| not_configured(StoreName::Mongo))?;
                lead(mongo, other, task, settings, notices).await
            }
            manifest::Work::CopyToMongo { query, by, .. } => {
                let (postgres, mongo) = stores.both().map_err(needs_both)?;
                let rows = Query { sql: query, key: by.columns() };
                let mut hands = Copying::new(postgres, mongo, rows).await?;
                lead(&mut hands, Some(postgres), task, settings, notices).await
            }
            manifest::Work::CopyToPostgres { from, .. } => {
                let (postgres, mongo) = stores.both().map_err(needs_both)?;
                let mut hands = Copying::new(mongo, postgres, from).await?;
                lead(&mut hands, Some(mongo), task, settings, notices).await
            }
        };
        if let Err((error, is_begun)) = done {
            self.in_doubt = is_begun;
            return Err(match error {
                BackfillError::Store(error) => error.into(),
                BackfillError::Stopped(reason) => Cause::Stopped(reason),
            });
        }
        Ok(self.append(store, vec![entry(work, attempt, Event::Applied)]).await?)
    }

    /// Asks an invariant. `attempt` is the step that it is: how far a comparison comes
    /// is recorded with it.
    pub(super) async fn check(
        &mut self,
        work: &Work,
        invariant: &Invariant,
        attempt: Option<&Attempt>,
    ) -> Result<Checked, Cause> {
        let compares = matches!(invariant.check, Check::Compare { .. });
        let record =
            attempt.filter(|_| compares).map(|attempt| record(work, attempt, Event::Progress));
        if let Some(attempt) = attempt.filter(|_| compares) {
            // What waits to be written comes before the first progress.
            self.append(attempt.step.store(), Vec::new()).await?;
        }
        let limits = &self.context.means.pace.limits;
        let lag = lag(self.locked.stores, &invariant.check, limits).await;
        let asking = Asking {
            clock: self.context.clock,
            timeouts: Timeouts::default(),
            lag,
            stop: self.context.stop,
            version: work.version,
            record: record.as_ref(),
        };
        let notices = &mut *self.context.notices;
        let checked = check(self.locked.stores, invariant, &asking, notices).await;
        let checked = checked.map_err(|error| match error {
            Unanswered::Store(error) => Cause::Store(error),
            Unanswered::Stopped(reason) => Cause::Stopped(reason),
        })?;
        self.say(checked.notice(work.version, invariant));
        match checked.clone().broken(invariant) {
            None => Ok(checked),
            Some(broken) => Err(Cause::Broken(Box::new(broken))),
        }
    }

    /// Asks all invariants, immediately before a cleanup. A comparison that takes long
    /// may be too old when it, and all others, are done.
    pub(super) async fn check_all(&mut self, work: &Work, steps: &[Step]) -> Result<(), Cause> {
        let mut ages = Vec::new();
        for step in steps {
            self.check_stop()?;
            let Body::Check(invariant) = &step.body else { continue };
            let checked = self.check(work, invariant, None).await?;
            ages.push((invariant, checked.age, Instant::now()));
        }
        for (invariant, age, then) in ages {
            let Check::Compare { max_age, .. } = &invariant.check else { continue };
            let max_age = max_age.unwrap_or(MAX_AGE);
            let age = age.unwrap_or_default() + then.elapsed();
            if age > max_age {
                return Err(Cause::Broken(Box::new(Broken {
                    name: invariant.name.text.clone(),
                    questions: invariant.check.questions(),
                    expected: format!("a comparison that began {} ago at most", show(max_age)),
                    found: format!("one that began {} ago", show(age)),
                    sample: Vec::new(),
                    next: Some(TOO_OLD),
                })));
            }
        }
        Ok(())
    }

    /// Runs a program; again, if it was interrupted.
    pub(super) async fn program(
        &mut self,
        work: &Work,
        attempt: &Attempt,
        program: &Program,
    ) -> Result<(), Cause> {
        let means = self.context.means;
        let surroundings = Surroundings {
            migrations: means.migrations,
            postgres_url: means.postgres_url,
            mongo_url: means.mongo_url,
            run_id: &self.context.run.id,
            version: work.version,
            step: &attempt.step.name,
            phase: attempt.step.phase(),
            direction: work.direction,
        };
        let notices = &mut *self.context.notices;
        let done = program::run(program, &surroundings, self.context.stop, notices).await;
        match done {
            Ok(()) => Ok(self.resolve(work, attempt, Event::Applied).await?),
            // It goes on where it was cut off, as far as it can.
            Err(ProgramError::Stopped(reason)) => Err(Cause::Stopped(reason)),
            Err(error) => {
                // If this is not recorded, the next run begins it anew all the same.
                let _ = self.resolve(work, attempt, Event::Reverted).await;
                Err(Cause::Program(error))
            }
        }
    }

    /// A remark for people.
    pub(super) fn remark(&mut self, text: String) {
        self.say(Notice::Remark(text));
    }
}

/// A copy reads one store and writes the other.
fn needs_both(mut error: StoreError) -> StoreError {
    "it is not configured, and a copy needs both stores".clone_into(&mut error.said.message);
    error.said.hint = Some("configure both in migrate.toml, or give both URLs".to_owned());
    error
}

/// Does a backfill to its end. An error comes with whether anything of it may be
/// recorded: a store that was lost did not say.
async fn lead<H: Hands, O: Backfills>(
    hands: &mut H,
    other: Option<&mut O>,
    task: Task<'_>,
    settings: Settings<'_>,
    notices: &mut dyn Notices,
) -> Result<(), (BackfillError, bool)> {
    let Err(error) = backfill::run(hands, other, task, settings, notices).await else {
        return Ok(());
    };
    let is_lost = matches!(&error, BackfillError::Store(error) if error.fate != Fate::Refused);
    let is_begun =
        is_lost || hands.store().shards(task.job).await.map_or(true, |it| !it.is_empty());
    Err((error, is_begun))
}
