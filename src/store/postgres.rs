//! The Postgres store.
//!
//! One session for the work and one for the heartbeat. Everything that the
//! engine itself sends is qualified, bounded in time and independent of what a
//! script set; nothing is prepared under a name, so a pooler in transaction mode
//! may stand in between.

mod connect;
mod history;
mod lease;
mod step;

pub use connect::{ConnectError, Postgres, PostgresConfig, SslMode};
pub use lease::PostgresHeart;

use crate::core::history::{Entry, Snapshot};
use crate::core::id::{StoreName, Version};
use crate::core::migration::Rollback;
use crate::core::step::PgStep;
use crate::store::{Fate, Holds, Lease, Outcome, Run, Said, Store, StoreError};
use std::collections::BTreeMap;
use std::error::Error as _;
use tokio_postgres::error::{DbError, ErrorPosition, Severity, SqlState};

impl Store for Postgres {
    type Step = PgStep;
    type Heart = PostgresHeart;

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
        history::found(self, pair).await
    }

    async fn acquire(&mut self, run: &Run) -> Result<Lease, StoreError> {
        lease::acquire(self, run).await
    }

    async fn heart(&mut self) -> Result<PostgresHeart, StoreError> {
        lease::heart(self).await
    }

    async fn release(&mut self, outcome: &Outcome) -> Result<(), StoreError> {
        lease::release(self, outcome).await
    }

    async fn append(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        history::append(self, entries).await
    }

    async fn commit(&mut self, step: &PgStep, entries: &[Entry]) -> Result<(), StoreError> {
        step::commit(self, step, entries).await
    }

    async fn obstacle(&mut self, step: &PgStep) -> Result<Option<String>, StoreError> {
        step::obstacle(self, step).await
    }

    async fn perform(&mut self, step: &PgStep) -> Result<(), StoreError> {
        step::perform(self, step).await
    }

    async fn holds(&mut self, step: &PgStep) -> Result<Holds, StoreError> {
        step::holds(self, step).await
    }

    async fn clear(&mut self, step: &PgStep) -> Result<(), StoreError> {
        step::clear(self, step).await
    }
}

/// A failure of a request that changes nothing that matters if it is lost.
fn failed(doing: &'static str, error: &tokio_postgres::Error) -> StoreError {
    failed_as(doing, error, Fate::Unreachable)
}

/// A failure of a request; `lost` is its fate when the connection went with it.
fn failed_as(doing: &'static str, error: &tokio_postgres::Error, lost: Fate) -> StoreError {
    let (fate, said) = match error.as_db_error() {
        Some(error) if is_connection_end(error) => (lost, said(error)),
        Some(error) => (Fate::Refused, said(error)),
        None => (lost, Said { message: chain(error), ..Said::default() }),
    };
    StoreError { store: StoreName::Postgres, doing, fate, said }
}

/// The server says goodbye: what it was doing may or may not have been done.
fn is_connection_end(error: &DbError) -> bool {
    let fatal = matches!(error.parsed_severity(), Some(Severity::Fatal | Severity::Panic));
    fatal || error.code().code().starts_with("08") || *error.code() == SqlState::ADMIN_SHUTDOWN
}

fn said(error: &DbError) -> Said {
    let position = match error.position() {
        Some(ErrorPosition::Original(at)) => {
            usize::try_from(*at).ok().and_then(|at| at.checked_sub(1))
        }
        Some(ErrorPosition::Internal { .. }) | None => None,
    };
    Said {
        message: error.message().to_owned(),
        code: Some(format!("SQLSTATE {}", error.code().code())),
        detail: error.detail().map(str::to_owned),
        hint: error.hint().map(str::to_owned),
        statement: None,
        position,
    }
}

/// An error and its causes, which tokio-postgres leaves out of its own text.
fn chain(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A name as SQL has it.
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
