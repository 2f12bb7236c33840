//! Steps that `migration.toml` names: backfills, checks and programs.

use super::{Cause, Executor, record};
use crate::core::backfill::Backfill;
use crate::core::history::{Event, Record};
use crate::core::id::{StepId, StoreName};
use crate::core::notice::{Notice, Notices};
use crate::core::parse::manifest::{self, Invariant};
use crate::core::plan::{Attempt, Work};
use crate::core::step::{Program, Timeouts};
use crate::engine::backfill::{self, BackfillError, Copying, Hands, Settings, Task};
use crate::engine::invariant::{Asking, check};
use crate::engine::program::{self, ProgramError, Surroundings};
use crate::store::backfill::{Backfills, Job};
use crate::store::copy::Query;
use crate::store::{Fate, MongoStore, PostgresStore, StoreError, not_configured};

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
        let progress = Record {
            step: StepId { version: work.version, name: attempt.step.name.clone() },
            attempt: attempt.attempt,
            event: Event::Progress,
            rank: work.rank,
            checksum: attempt.step.checksum,
            migration_checksum: work.checksum,
        };
        let timeouts = backfill.timeouts;
        let job = Job { work: &backfill.work, record: &progress, timeouts };
        let task = Task { job, backfill, entries: &[] };
        let means = self.context.means;
        let settings = Settings { pace: means.pace, minute: means.minute, stop: self.context.stop };
        let notices = &mut *self.context.notices;
        let stores = &mut *self.locked.stores;
        let done = match &backfill.work {
            manifest::Work::Update { .. } | manifest::Work::Sql { .. } => {
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
        Ok(self.append(store, vec![record(work, attempt, Event::Applied)]).await?)
    }

    /// Asks an invariant.
    pub(super) async fn check(&mut self, work: &Work, invariant: &Invariant) -> Result<(), Cause> {
        let asking = Asking { clock: self.context.clock, timeouts: Timeouts::default(), lag: None };
        let checked = check(self.locked.stores, invariant, &asking).await?;
        self.say(checked.notice(work.version, invariant));
        match checked.broken(invariant) {
            None => Ok(()),
            Some(broken) => Err(Cause::Broken(Box::new(broken))),
        }
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
