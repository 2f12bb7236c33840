//! Joining: helps with the backfills of a run that is at work, instead of only
//! waiting until it is done.
//!
//! Whoever joins never has the lease. It has a row of its own in `migration_runs`
//! with the fence of whoever leads, and writes nothing but batches of shards that
//! it took: when the lease goes to another run, both end together.

use crate::core::history::{Event, Histories};
use crate::core::id::{Direction, StepId, StepName};
use crate::core::migration::MigrationSet;
use crate::core::notice::{Notice, Notices};
use crate::core::parse::manifest::Work;
use crate::core::step::Body;
use crate::engine::backfill::{self, BackfillError, Copying, Settings, Task};
use crate::engine::lock::LockError;
use crate::engine::run::RunError;
use crate::engine::{Means, Stop};
use crate::store::backfill::{Backfills, Job};
use crate::store::copy::{Query, Source, Target};
use crate::store::{Fate, MongoStore, Outcome, PostgresStore, Run, StoreError, Stores};
use std::collections::BTreeSet;

/// A run that helps while another one has the lease.
pub(super) struct Helper<'a> {
    /// The files: what is done is what they say.
    pub set: &'a MigrationSet,
    /// Who helps.
    pub run: &'a Run,
    /// How it is done.
    pub means: Means<'a>,
    /// Asked between two batches.
    pub stop: &'a Stop,
    /// What it has said that it helps with.
    pub told: BTreeSet<StepId>,
    /// A store said no to it: whoever leads will hear the same, and say so.
    pub is_refused: bool,
}

impl Helper<'_> {
    /// Helps with each backfill that is in progress, until nothing of it is left to
    /// take. `false`: there was none.
    ///
    /// # Errors
    /// A store that cannot be read, or somebody asked us to stop.
    pub async fn help<P, M>(
        &mut self,
        stores: &mut Stores<P, M>,
        histories: &Histories,
        notices: &mut dyn Notices,
    ) -> Result<bool, RunError>
    where
        P: PostgresStore,
        M: MongoStore,
    {
        let mut helped = false;
        let set = self.set;
        for version in histories.versions() {
            let Some(migration) = set.get(version) else { continue };
            for (store, name, state) in histories.steps_of(version) {
                if self.is_refused || !is_up(name) || state.events.last() != Some(&Event::Progress)
                {
                    continue;
                }
                // Another release may know the same name for something else.
                let step = migration.steps.iter().find(|step| {
                    step.name == *name && step.store() == store && step.checksum == state.checksum
                });
                let Some(step) = step else { continue };
                let Body::Backfill(backfill) = &step.body else { continue };
                // Whoever does not have the function that it calls cannot help.
                let mut functions = step.functions();
                if !functions.all(|(caller, function)| set.has_function(caller, function)) {
                    continue;
                }
                let record = state.record(StepId { version, name: name.clone() }, Event::Progress);
                let timeouts = backfill.timeouts;
                let job = Job {
                    work: &backfill.work,
                    record: &record,
                    timeouts,
                    max_bad: backfill.max_bad,
                };
                let task = Task { job, backfill, entries: &[] };
                let (postgres, mongo) = (stores.postgres.as_mut(), stores.mongo.as_mut());
                helped |= match (&backfill.work, postgres, mongo) {
                    (
                        Work::Update { .. } | Work::Sql { .. } | Work::Call { .. },
                        Some(postgres),
                        mongo,
                    ) => self.join(postgres, mongo, task, notices).await?,
                    (Work::Documents { .. }, postgres, Some(mongo)) => {
                        self.join(mongo, postgres, task, notices).await?
                    }
                    (Work::CopyToMongo { query, by, .. }, Some(postgres), Some(mongo)) => {
                        let rows = Query { sql: query, key: by.columns() };
                        self.copy(postgres, mongo, rows, task, notices).await?
                    }
                    (Work::CopyToPostgres { from, .. }, Some(postgres), Some(mongo)) => {
                        self.copy(mongo, postgres, from, task, notices).await?
                    }
                    // A store that it needs is not configured here.
                    _ => false,
                };
            }
        }
        Ok(helped)
    }

    async fn join<S: Backfills, O: Backfills>(
        &mut self,
        store: &mut S,
        other: Option<&mut O>,
        task: Task<'_>,
        notices: &mut dyn Notices,
    ) -> Result<bool, RunError> {
        if let Some(helped) = self.enlist(store, task, notices).await? {
            return Ok(helped);
        }
        let Means { pace, minute, .. } = self.means;
        let settings = Settings { pace, minute, stop: self.stop };
        let done = backfill::join(store, other, task, settings, notices).await.map(drop);
        self.discharge(store, done, notices).await
    }

    /// The same for a copy from one store into the other.
    async fn copy<S: Source, T: Target>(
        &mut self,
        source: &mut S,
        target: &mut T,
        rows: S::Rows<'_>,
        task: Task<'_>,
        notices: &mut dyn Notices,
    ) -> Result<bool, RunError> {
        if let Some(helped) = self.enlist(target, task, notices).await? {
            return Ok(helped);
        }
        let Means { pace, minute, .. } = self.means;
        let settings = Settings { pace, minute, stop: self.stop };
        let done = match Copying::new(source, target, rows).await {
            Ok(mut hands) => {
                backfill::join(&mut hands, Some(source), task, settings, notices).await.map(drop)
            }
            Err(error) => Err(error.into()),
        };
        self.discharge(target, done, notices).await
    }

    /// Begins our row. Otherwise it is over: whether we have helped.
    async fn enlist<S: Backfills>(
        &mut self,
        store: &mut S,
        task: Task<'_>,
        notices: &mut dyn Notices,
    ) -> Result<Option<bool>, RunError> {
        // When the last shard is done, it is for whoever leads to sweep.
        if store.shards(task.job).await?.iter().all(|shard| shard.done) {
            return Ok(Some(false));
        }
        match store.enlist(self.run).await {
            Ok(true) => {}
            Ok(false) => return Ok(Some(false)),
            Err(error) => {
                return self.discharge(store, Err(error.into()), notices).await.map(Some);
            }
        }
        let step = &task.job.record.step;
        if self.told.insert(step.clone()) {
            let name = &step.name;
            notices.notice(Notice::Remark(format!(
                "{} {name}: helping with this backfill, which another run leads",
                step.version
            )));
        }
        Ok(None)
    }

    /// Ends our row, and says what became of our help.
    async fn discharge<S: Backfills>(
        &mut self,
        store: &mut S,
        done: Result<(), BackfillError>,
        notices: &mut dyn Notices,
    ) -> Result<bool, RunError> {
        discharge(store, &done).await;
        match done {
            Ok(()) => Ok(true),
            Err(BackfillError::Stopped(reason)) => Err(LockError::Stopped(reason).into()),
            Err(BackfillError::Store(error)) => {
                self.is_refused = matches!(error.fate, Fate::Refused | Fate::Corrupt);
                let text = format!("cannot help with this backfill any more: {error}");
                notices.notice(Notice::Remark(text));
                Ok(true)
            }
        }
    }
}

fn is_up(name: &StepName) -> bool {
    matches!(name, StepName::Named { direction: Direction::Up, .. })
}

/// Ends our row. Whoever took the lease meanwhile may have ended our session, so it is
/// tried twice; if it cannot be done, whoever takes the lease next does it.
async fn discharge<S: Backfills>(store: &mut S, done: &Result<(), BackfillError>) {
    let outcome = match done {
        Ok(()) => Outcome { word: "ok", error: None, to_version: None },
        Err(error @ BackfillError::Stopped(_)) => {
            Outcome { word: "stopped", error: Some(error.to_string()), to_version: None }
        }
        Err(error) => Outcome { word: "failed", error: Some(error.to_string()), to_version: None },
    };
    let is_done: Result<(), StoreError> = store.discharge(&outcome).await;
    if is_done.is_err() {
        let _ = store.discharge(&outcome).await;
    }
}
