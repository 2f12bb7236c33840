//! The effects that the engine needs from a store, and no others.

pub mod backfill;
pub mod compare;
pub mod copy;
mod function;
pub mod invariant;
pub mod mongo;
pub mod postgres;
pub mod rejects;

use crate::core::backup::Backups;
use crate::core::expectation::Broken;
use crate::core::history::{Entry, Snapshot, Unreadable};
use crate::core::id::{StoreName, Version};
use crate::core::migration::Rollback;
use crate::core::notice::Doing;
use crate::core::parse::manifest::{MongoAnswer, MongoSource};
use crate::core::step::{MongoStep, PgStep};
use crate::store::backfill::Backfills;
use crate::store::compare::{ComparedDocuments, ComparedRows};
use crate::store::copy::{Query, Source, Target};
use crate::store::invariant::Invariants;
use crate::store::rejects::RefusedRow;
use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::time::Duration;

/// A lease lasts this long unless it is renewed.
pub const LEASE_TERM: Duration = Duration::from_secs(30);

/// So many of the recorded backups of a store are looked at, the newest first.
pub const BACKUPS_MAX: i64 = 1_000;

/// How long a lease lasts, in this process.
pub fn lease_term() -> Duration {
    crate::failpoint::lease_term().unwrap_or(LEASE_TERM)
}

/// A store.
///
/// Every method that changes something is one effect: it happens or it does
/// not, and when it fails with [`Fate::Unknown`] the caller does not know which.
/// Every write of the history carries the fence of the lease and is refused with
/// [`Fate::Fenced`] when a newer lease was given out; what no transaction can
/// hold looks at the lease right before.
#[expect(async_fn_in_trait, reason = "the engine is the only caller, on one task")]
pub trait Store {
    /// The steps that this store can run: sending it another store's step does
    /// not type-check.
    type Step;

    /// What keeps the lease alive, on a connection of its own.
    type Heart: Heart;

    /// Reads the whole history. Creates nothing.
    async fn read(&mut self) -> Result<Snapshot, StoreError>;

    /// Reads the stored down scripts of some versions.
    async fn rollbacks(
        &mut self,
        versions: &[Version],
    ) -> Result<BTreeMap<Version, Rollback>, StoreError>;

    /// Creates the five tables if they are not there, and the pair's UUID if
    /// there is none. Returns the UUID that is there then. Safe for any number
    /// of engines at once.
    async fn found(&mut self, pair: &str) -> Result<String, StoreError>;

    /// Makes the store belong to a pair, whatever it belonged to before.
    async fn pair(&mut self, pair: &str) -> Result<(), StoreError>;

    /// Takes the lease if it is free or has run out, and begins the run's row in
    /// `migration_runs`.
    async fn acquire(&mut self, run: &Run) -> Result<Lease, StoreError>;

    /// Ends what runs that lost their lease have left running in the server, and
    /// returns when it is gone: what was ended, one line each. A server that does
    /// not let us look is no failure; the line says so.
    async fn evict(&mut self) -> Result<Vec<String>, StoreError>;

    /// Cancels what this run has under way in the server, as far as the server
    /// lets us.
    async fn cancel(&mut self);

    /// What keeps the lease alive from now on.
    async fn heart(&mut self) -> Result<Self::Heart, StoreError>;

    /// Gives the lease back, and ends the run's row in `migration_runs`. Giving
    /// back what is no longer ours is not an error.
    async fn release(&mut self, outcome: &Outcome) -> Result<(), StoreError>;

    /// The backups of this store that are recorded in it, newest first. A store that
    /// keeps none has none.
    async fn backups(&mut self) -> Result<Backups, StoreError> {
        Ok(Backups::default())
    }

    /// Whether the lease is still ours; [`Fate::Fenced`] when it is not. Changes
    /// nothing.
    async fn check_lease(&mut self) -> Result<(), StoreError>;

    /// Writes entries into the history, together.
    async fn append(&mut self, entries: &[Entry]) -> Result<(), StoreError>;

    /// Deletes what cannot be read from the history.
    async fn discard(&mut self, what: &[Unreadable]) -> Result<(), StoreError>;

    /// Runs a step and writes entries, in one transaction.
    async fn commit(&mut self, step: &Self::Step, entries: &[Entry]) -> Result<(), StoreError>;

    /// What was in the way when [`commit`](Store::commit) failed like this, if it was
    /// another session: then it may work when it is tried again.
    fn obstruction(&mut self, error: &StoreError) -> Option<Obstruction> {
        let _ = error;
        None
    }

    /// Something in the way of a journaled step that never ran: the name it
    /// would give is taken by something that is not what it would make.
    async fn obstacle(&mut self, step: &Self::Step) -> Result<Option<String>, StoreError>;

    /// What looks, from a connection of its own, at what this store is doing. `None`:
    /// nothing can be seen.
    fn gauge(&self) -> Option<Box<dyn Gauge>> {
        None
    }

    /// Runs a step outside any transaction.
    async fn perform(&mut self, step: &Self::Step) -> Result<(), StoreError>;

    /// Whether the effect of a step is there, completely.
    async fn holds(&mut self, step: &Self::Step) -> Result<Holds, StoreError>;

    /// Removes what an interrupted [`perform`](Store::perform) of this very step
    /// left behind, and nothing else.
    async fn clear(&mut self, step: &Self::Step) -> Result<(), StoreError>;
}

/// Postgres, as the engine needs it.
pub trait PostgresStore:
    Store<Step = PgStep>
    + Backfills
    + for<'a> Source<Rows<'a> = Query<'a>>
    + Target
    + Invariants<Question = str, Rows = str>
    + ComparedRows
{
}

impl<S> PostgresStore for S where
    S: Store<Step = PgStep>
        + Backfills
        + for<'a> Source<Rows<'a> = Query<'a>>
        + Target
        + Invariants<Question = str, Rows = str>
        + ComparedRows
{
}

/// MongoDB, as the engine needs it.
pub trait MongoStore:
    Store<Step = MongoStep>
    + Backfills
    + for<'a> Source<Rows<'a> = &'a MongoSource>
    + Target
    + Invariants<Question = MongoAnswer, Rows = MongoSource>
    + ComparedDocuments
{
}

impl<S> MongoStore for S where
    S: Store<Step = MongoStep>
        + Backfills
        + for<'a> Source<Rows<'a> = &'a MongoSource>
        + Target
        + Invariants<Question = MongoAnswer, Rows = MongoSource>
        + ComparedDocuments
{
}

/// Looks at what a store is doing.
pub trait Gauge: Send {
    /// What the server says now. Nothing is an answer too: that it does something that
    /// it does not tell about, that it does not let us look, that it cannot be reached.
    fn look(&mut self) -> Pin<Box<dyn Future<Output = Option<Doing>> + Send + '_>>;
}

/// Keeps a lease alive.
pub trait Heart: Send + 'static {
    /// Makes the lease last for its whole term again. [`Fate::Fenced`]: it is
    /// somebody else's now.
    fn beat(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// The two stores of a project; one alone is a project too.
#[derive(Debug)]
pub struct Stores<P, M> {
    /// Postgres.
    pub postgres: Option<P>,
    /// MongoDB.
    pub mongo: Option<M>,
}

/// Another session was in the way of a step, as far as the server tells.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Obstruction {
    /// What was waited for: `AccessExclusiveLock on people`.
    pub lock: Option<String>,
    /// Who has it.
    pub holder: Option<String>,
}

/// The answer of [`Store::holds`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Holds {
    /// It is there.
    Yes,
    /// It is not, or only half of it: clear, and perform again.
    No,
    /// It is listed, and may still be in the making: performing it again waits for
    /// it, and does nothing when it is there.
    Listed,
    /// No question to the server tells. Only a person can.
    Ask,
}

/// One run of a command that changes something.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Run {
    /// A UUID.
    pub id: String,
    /// `up`, `down`, …
    pub command: String,
    /// The operating system's user.
    pub user: String,
    /// The machine.
    pub host: String,
    /// The process.
    pub pid: u32,
    /// `--release`.
    pub release: Option<String>,
    /// The newest applied version when it began.
    pub from_version: Option<Version>,
    /// Why somebody does it, where a command asks for a reason.
    pub reason: Option<String>,
}

impl Run {
    /// One that begins now, on this machine, in this process.
    pub fn new(command: &str, user: String) -> Run {
        Run {
            id: uuid::Uuid::new_v4().to_string(),
            command: command.to_owned(),
            user,
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            pid: std::process::id(),
            release: None,
            from_version: None,
            reason: None,
        }
    }

    /// `user@host`, as `applied_by` has it.
    pub fn who(&self) -> String {
        format!("{}@{}", self.user, self.host)
    }
}

/// The answer of [`Store::acquire`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Lease {
    /// It is ours.
    Ours {
        /// Carried by every write from now on.
        fence: i64,
        /// The run that held it until its lease ran out, if it did not give it
        /// back: its statements may still be running.
        died: Option<String>,
    },
    /// Somebody else has it.
    Held {
        /// Who.
        holder: Holder,
        /// How long it still lasts unless it is renewed.
        left: Duration,
    },
}

/// Who holds a lease.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Holder {
    /// The machine.
    pub host: String,
    /// The process.
    pub pid: u32,
    /// The operating system's user.
    pub user: String,
    /// The run.
    pub run_id: String,
    /// Since when, in RFC 3339, by the server's clock.
    pub since: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Holder { host, pid, user, run_id, since } = self;
        write!(f, "{user}@{host}, pid {pid}, run {run_id}, since {since}")
    }
}

/// How a run ended, for `migration_runs`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// `ok`, `failed`, …
    pub word: &'static str,
    /// What went wrong.
    pub error: Option<String>,
    /// The newest applied version when it ended.
    pub to_version: Option<Version>,
}

/// A failure of a store: what was tried, what became of it, what the database
/// said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoreError {
    /// Which store.
    pub store: StoreName,
    /// What was tried, as in `failed to …`.
    pub doing: &'static str,
    /// What became of it.
    pub fate: Fate,
    /// What the database said.
    pub said: Said,
}

/// What is tried first.
pub const CONNECT: &str = "connect";

/// What became of an effect that failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// The server said no: nothing of it happened (a journaled step may have
    /// left something, which [`Store::clear`] removes).
    Refused,
    /// The server could not be reached, or refused us as a whole: nothing of it
    /// happened.
    Unreachable,
    /// The connection was lost before the answer came. Read the history.
    Unknown,
    /// The lease is no longer ours: nothing of it happened.
    Fenced,
    /// What is stored is nothing that this engine writes.
    Corrupt,
}

/// What a database said.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Said {
    /// Its message.
    pub message: String,
    /// SQLSTATE, or MongoDB's code and its name.
    pub code: Option<String>,
    /// More of it.
    pub detail: Option<String>,
    /// Its own advice.
    pub hint: Option<String>,
    /// The statement of the step that failed, from 0.
    pub statement: Option<usize>,
    /// Where in the statement, in characters from 0.
    pub position: Option<usize>,
    /// The database did not say this, but what it answered is not what a guard of
    /// the step expects.
    pub broken: Option<Box<Broken>>,
    /// Of several rows that are written together, the one that is refused, where that
    /// is known.
    pub row: Option<Box<RefusedRow>>,
}

impl StoreError {
    /// With nothing but a message.
    pub fn new(
        store: StoreName,
        doing: &'static str,
        fate: Fate,
        message: impl Into<String>,
    ) -> StoreError {
        let said = Said { message: message.into(), ..Said::default() };
        StoreError { store, doing, fate, said }
    }

    /// With the statement of the step that it is about, from 0.
    #[must_use]
    pub fn at(mut self, statement: usize) -> StoreError {
        self.said.statement = Some(statement);
        self
    }

    /// A guard does not hold: nothing of the step happened.
    pub fn broken(store: StoreName, doing: &'static str, broken: Broken) -> StoreError {
        let message = broken.to_string();
        let said = Said { message, broken: Some(Box::new(broken)), ..Said::default() };
        StoreError { store, doing, fate: Fate::Refused, said }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = if self.doing == CONNECT { "to" } else { "in" };
        write!(f, "failed to {} {to} {}", self.doing, self.store.title())?;
        match self.fate {
            Fate::Unknown => f.write_str(" (connection lost: nobody knows whether it happened)"),
            Fate::Refused | Fate::Unreachable | Fate::Fenced | Fate::Corrupt => Ok(()),
        }?;
        write!(f, ": {}", self.said)
    }
}

impl std::error::Error for StoreError {}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.code {
            Some(code) => write!(f, " ({code})"),
            None => Ok(()),
        }
    }
}

/// A step for one of the two, as [`Stores`] hands it on.
#[derive(Clone, Copy, Debug)]
pub enum StepRef<'a> {
    /// For Postgres.
    Postgres(&'a PgStep),
    /// For MongoDB.
    Mongo(&'a MongoStep),
}

impl<P, M> Stores<P, M>
where
    P: Store<Step = PgStep>,
    M: Store<Step = MongoStep>,
{
    /// The stores that are there, Postgres first.
    pub fn configured(&self) -> Vec<StoreName> {
        let postgres = self.postgres.as_ref().map(|_| StoreName::Postgres);
        postgres.into_iter().chain(self.mongo.as_ref().map(|_| StoreName::Mongo)).collect()
    }

    /// Both at once.
    ///
    /// # Errors
    /// One of them is not configured.
    pub fn both(&mut self) -> Result<(&mut P, &mut M), StoreError> {
        Ok((postgres(self.postgres.as_mut())?, mongo(self.mongo.as_mut())?))
    }

    /// Postgres.
    ///
    /// # Errors
    /// It is not configured.
    pub fn postgres(&mut self) -> Result<&mut P, StoreError> {
        postgres(self.postgres.as_mut())
    }

    /// MongoDB.
    ///
    /// # Errors
    /// It is not configured.
    pub fn mongo(&mut self) -> Result<&mut M, StoreError> {
        mongo(self.mongo.as_mut())
    }

    /// See [`Store::backups`].
    pub async fn backups(&mut self, store: StoreName) -> Result<Backups, StoreError> {
        match store {
            StoreName::Postgres => postgres(self.postgres.as_mut())?.backups().await,
            StoreName::Mongo => mongo(self.mongo.as_mut())?.backups().await,
        }
    }

    /// See [`Store::check_lease`].
    pub async fn check_lease(&mut self, store: StoreName) -> Result<(), StoreError> {
        match store {
            StoreName::Postgres => postgres(self.postgres.as_mut())?.check_lease().await,
            StoreName::Mongo => mongo(self.mongo.as_mut())?.check_lease().await,
        }
    }

    /// Writes entries into one store's history.
    pub async fn append(&mut self, store: StoreName, entries: &[Entry]) -> Result<(), StoreError> {
        match store {
            StoreName::Postgres => postgres(self.postgres.as_mut())?.append(entries).await,
            StoreName::Mongo => mongo(self.mongo.as_mut())?.append(entries).await,
        }
    }

    /// See [`Store::discard`].
    pub async fn discard(
        &mut self,
        store: StoreName,
        what: &[Unreadable],
    ) -> Result<(), StoreError> {
        match store {
            StoreName::Postgres => postgres(self.postgres.as_mut())?.discard(what).await,
            StoreName::Mongo => mongo(self.mongo.as_mut())?.discard(what).await,
        }
    }

    /// See [`Store::commit`].
    pub async fn commit(&mut self, step: StepRef<'_>, entries: &[Entry]) -> Result<(), StoreError> {
        match step {
            StepRef::Postgres(step) => {
                postgres(self.postgres.as_mut())?.commit(step, entries).await
            }
            StepRef::Mongo(step) => mongo(self.mongo.as_mut())?.commit(step, entries).await,
        }
    }

    /// See [`Store::obstruction`].
    pub fn obstruction(&mut self, error: &StoreError) -> Option<Obstruction> {
        match error.store {
            StoreName::Postgres => self.postgres.as_mut()?.obstruction(error),
            StoreName::Mongo => self.mongo.as_mut()?.obstruction(error),
        }
    }

    /// See [`Store::obstacle`].
    pub async fn obstacle(&mut self, step: StepRef<'_>) -> Result<Option<String>, StoreError> {
        match step {
            StepRef::Postgres(step) => postgres(self.postgres.as_mut())?.obstacle(step).await,
            StepRef::Mongo(step) => mongo(self.mongo.as_mut())?.obstacle(step).await,
        }
    }

    /// See [`Store::gauge`].
    pub fn gauge(&self, store: StoreName) -> Option<Box<dyn Gauge>> {
        match store {
            StoreName::Postgres => self.postgres.as_ref().and_then(Store::gauge),
            StoreName::Mongo => self.mongo.as_ref().and_then(Store::gauge),
        }
    }

    /// See [`Store::perform`].
    pub async fn perform(&mut self, step: StepRef<'_>) -> Result<(), StoreError> {
        match step {
            StepRef::Postgres(step) => postgres(self.postgres.as_mut())?.perform(step).await,
            StepRef::Mongo(step) => mongo(self.mongo.as_mut())?.perform(step).await,
        }
    }

    /// See [`Store::holds`].
    pub async fn holds(&mut self, step: StepRef<'_>) -> Result<Holds, StoreError> {
        match step {
            StepRef::Postgres(step) => postgres(self.postgres.as_mut())?.holds(step).await,
            StepRef::Mongo(step) => mongo(self.mongo.as_mut())?.holds(step).await,
        }
    }

    /// See [`Store::clear`].
    pub async fn clear(&mut self, step: StepRef<'_>) -> Result<(), StoreError> {
        match step {
            StepRef::Postgres(step) => postgres(self.postgres.as_mut())?.clear(step).await,
            StepRef::Mongo(step) => mongo(self.mongo.as_mut())?.clear(step).await,
        }
    }
}

fn postgres<P>(store: Option<&mut P>) -> Result<&mut P, StoreError> {
    store.ok_or_else(|| not_configured(StoreName::Postgres))
}

fn mongo<M>(store: Option<&mut M>) -> Result<&mut M, StoreError> {
    store.ok_or_else(|| not_configured(StoreName::Mongo))
}

pub(crate) fn not_configured(store: StoreName) -> StoreError {
    StoreError::new(store, "find the store", Fate::Unreachable, "it is not configured")
}
