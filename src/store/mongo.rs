//! The MongoDB store.
//!
//! Everything is written with majority write concern and read with majority read
//! concern: what a failover could take back was never recorded. On a replica set
//! or behind mongos, entries are written in transactions; a standalone server
//! has none, and there each entry is written on its own, in an order that a crash
//! anywhere leaves readable.

mod backfill;
mod backup;
mod compare;
mod connect;
mod copy;
mod doctor;
mod foreign;
mod function;
mod gauge;
mod history;
mod ids;
mod invariant;
mod lease;
mod outlook;
mod pace;
mod rejects;
mod source;
mod step;

pub use connect::{Mongo, MongoConfig, MongoConfigError};
pub use function::{MongoBatch, MongoFunctions};
pub use lease::MongoHeart;

use crate::core::backup::Backups;
use crate::core::history::{Entry, Snapshot, Unreadable};
use crate::core::id::{StoreName, Version};
use crate::core::migration::Rollback;
use crate::core::step::MongoStep;
use crate::failpoint::around;
use crate::store::{Fate, Gauge, Holds, Lease, Outcome, Run, Said, Store, StoreError};
use bson::{Bson, Document};
use mongodb::error::{Error, ErrorKind, TRANSIENT_TRANSACTION_ERROR, WriteFailure};
use std::collections::BTreeMap;

impl Store for Mongo {
    type Step = MongoStep;
    type Heart = MongoHeart;

    async fn read(&mut self) -> Result<Snapshot, StoreError> {
        history::read(self).await
    }

    async fn rollbacks(
        &mut self,
        versions: &[Version],
    ) -> Result<BTreeMap<Version, Rollback>, StoreError> {
        history::rollbacks(self, versions).await
    }

    async fn found(&mut self, pair: &str) -> Result<String, StoreError> {
        around(history::found(self, pair), "found in MongoDB").await
    }

    async fn pair(&mut self, pair: &str) -> Result<(), StoreError> {
        lease::pair(self, pair).await
    }

    async fn acquire(&mut self, run: &Run) -> Result<Lease, StoreError> {
        around(lease::acquire(self, run), "acquire in MongoDB").await
    }

    async fn evict(&mut self) -> Result<Vec<String>, StoreError> {
        lease::evict(self).await
    }

    async fn cancel(&mut self) {
        lease::cancel(self).await;
    }

    async fn heart(&mut self) -> Result<MongoHeart, StoreError> {
        Ok(lease::heart(self))
    }

    async fn release(&mut self, outcome: &Outcome) -> Result<(), StoreError> {
        around(lease::release(self, outcome), "release in MongoDB").await
    }

    async fn backups(&mut self) -> Result<Backups, StoreError> {
        backup::backups(self).await
    }

    async fn check_lease(&mut self) -> Result<(), StoreError> {
        Mongo::check_lease(self).await
    }

    async fn append(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        let done = around(history::append(self, entries), "append in MongoDB").await;
        unless_taken(self, done).await
    }

    async fn discard(&mut self, what: &[Unreadable]) -> Result<(), StoreError> {
        history::discard(self, what).await
    }

    async fn commit(&mut self, step: &MongoStep, entries: &[Entry]) -> Result<(), StoreError> {
        let done = around(step::commit(self, step, entries), "commit in MongoDB").await;
        unless_taken(self, done).await
    }

    async fn obstacle(&mut self, step: &MongoStep) -> Result<Option<String>, StoreError> {
        let found = step::obstacle(self, step).await?;
        if found.is_some() {
            // Whoever has taken our lease has made it: then it is in nobody's way.
            self.check_lease().await?;
        }
        Ok(found)
    }

    fn gauge(&self) -> Option<Box<dyn Gauge>> {
        Some(Box::new(gauge::MongoGauge::new(self)))
    }

    async fn perform(&mut self, step: &MongoStep) -> Result<(), StoreError> {
        let done = around(step::perform(self, step), "perform in MongoDB").await;
        unless_taken(self, done).await
    }

    async fn holds(&mut self, step: &MongoStep) -> Result<Holds, StoreError> {
        step::holds(self, step).await
    }

    async fn clear(&mut self, step: &MongoStep) -> Result<(), StoreError> {
        let done = step::clear(self, step).await;
        unless_taken(self, done).await
    }
}

/// Server errors that say that the server is going away or is no longer the
/// primary: what it was doing may or may not have been done.
const GOING_AWAY: [i32; 9] = [
    91,    // ShutdownInProgress
    189,   // PrimarySteppedDown
    262,   // ExceededTimeLimit
    9001,  // SocketException
    10107, // NotWritablePrimary
    11600, // InterruptedAtShutdown
    11602, // InterruptedDueToReplStateChange
    13435, // NotPrimaryNoSecondaryOk
    13436, // NotPrimaryOrSecondary
];

/// Whoever takes our lease ends our operations and goes on with our steps: if that
/// is why one failed, it is what there is to say.
async fn unless_taken<T>(store: &mut Mongo, done: Result<T, StoreError>) -> Result<T, StoreError> {
    let Err(error) = &done else { return done };
    if !matches!(error.fate, Fate::Refused | Fate::Unknown) {
        return done;
    }
    match store.check_lease().await {
        Err(taken) if taken.fate == Fate::Fenced => Err(taken),
        Ok(()) | Err(_) => done,
    }
}

/// What the connections of a run are called. With the database: a copy of it knows
/// the same runs, and an open transaction tells nothing else about where it is.
fn client_name(run_id: &str, database: &str) -> String {
    format!("lockstep/{run_id} {database}")
}

/// A failure of a request that changes nothing that matters if it is lost.
fn failed(doing: &'static str, error: &Error) -> StoreError {
    failed_as(doing, error, Fate::Unreachable)
}

/// A failure of a request; `lost` is its fate when no answer came.
fn failed_as(doing: &'static str, error: &Error, lost: Fate) -> StoreError {
    let (fate, said) = match &*error.kind {
        ErrorKind::Command(command) => {
            let fate = if GOING_AWAY.contains(&command.code) { lost } else { Fate::Refused };
            (fate, coded(&command.message, command.code, &command.code_name))
        }
        ErrorKind::Write(WriteFailure::WriteError(write)) => {
            let name = write.code_name.clone().unwrap_or_default();
            (Fate::Refused, coded(&write.message, write.code, &name))
        }
        // The primary did it, the majority does not have it yet.
        ErrorKind::Write(WriteFailure::WriteConcernError(write)) => {
            (lost, coded(&write.message, write.code, &write.code_name))
        }
        ErrorKind::ServerSelection { message, .. } => {
            (Fate::Unreachable, Said { message: unwrap_selection(message), ..Said::default() })
        }
        ErrorKind::Authentication { message, .. } => (
            Fate::Unreachable,
            // As the server calls it; the driver keeps its code to itself.
            Said {
                message: format!("authentication failed: {message}"),
                code: Some("AuthenticationFailed".to_owned()),
                ..Said::default()
            },
        ),
        kind => (lost, Said { message: kind.to_string(), ..Said::default() }),
    };
    StoreError { store: StoreName::Mongo, doing, fate, said }
}

/// The driver wraps what went wrong into the state of its topology.
fn unwrap_selection(message: &str) -> String {
    let Some((_, inner)) = message.split_once("Error: ") else { return message.to_owned() };
    let inner = inner.strip_prefix("Kind: ").unwrap_or(inner);
    let end = inner.find(", labels: {").unwrap_or(inner.len());
    inner[..end].trim_end_matches([' ', '}', ']', ',']).to_owned()
}

fn coded(message: &str, code: i32, name: &str) -> Said {
    let code =
        if name.is_empty() { format!("code {code}") } else { format!("{name}, code {code}") };
    Said { message: message.to_owned(), code: Some(code), ..Said::default() }
}

/// The code of a server's error.
fn code_of(error: &Error) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Command(command) => Some(command.code),
        ErrorKind::Write(WriteFailure::WriteError(write)) => Some(write.code),
        _ => None,
    }
}

fn is_transient(error: &Error) -> bool {
    error.contains_label(TRANSIENT_TRANSACTION_ERROR)
}

/// `ok: 1` is not success: a reply also carries the writes that failed.
fn check_reply(doing: &'static str, reply: &Document) -> Result<(), StoreError> {
    let refuse = |at: &Document, fate: Fate| {
        let code = at.get("code").and_then(Bson::as_i32).unwrap_or(0);
        let said = Said {
            detail: at.get("errInfo").map(|info| info.clone().into_relaxed_extjson().to_string()),
            ..coded(
                at.get_str("errmsg").unwrap_or("no message"),
                code,
                at.get_str("codeName").unwrap_or(""),
            )
        };
        StoreError { store: StoreName::Mongo, doing, fate, said }
    };
    if let Ok(errors) = reply.get_array("writeErrors")
        && let Some(first) = errors.first().and_then(Bson::as_document)
    {
        return Err(refuse(first, Fate::Refused));
    }
    match reply.get_document("writeConcernError") {
        Ok(error) => Err(refuse(error, Fate::Unknown)),
        Err(_) => Ok(()),
    }
}
