//! The Postgres store.
//!
//! One session for the work and one for the heartbeat. Everything that the
//! engine itself sends is qualified, bounded in time and independent of what a
//! script set; nothing is prepared under a name, so a pooler in transaction mode
//! may stand in between.

mod backfill;
mod backup;
mod columns;
mod compare;
mod connect;
mod conninfo;
mod copy;
mod doctor;
mod explain;
mod foreign;
mod function;
mod gauge;
mod history;
mod invariant;
mod key;
mod lease;
mod outlook;
mod pace;
mod passfile;
mod rejects;
mod source;
mod step;
mod survey;
mod tls;

pub use connect::{ConnectError, Postgres, PostgresConfig};
pub use conninfo::Fallbacks;
pub use function::{Functions, PostgresBatch, Transaction};
pub use lease::PostgresHeart;
pub use tls::SslMode;

use crate::core::backup::Backups;
use crate::core::causes::chain;
use crate::core::history::{Entry, Snapshot, Unreadable};
use crate::core::id::{StoreName, Version};
use crate::core::migration::Rollback;
use crate::core::step::PgStep;
use crate::failpoint::around;
use crate::store::{Fate, Gauge, Holds, Lease, Obstruction, Outcome, Run, Said, Store, StoreError};
use std::collections::BTreeMap;
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
        around(history::found(self, pair), "found in Postgres").await
    }

    async fn pair(&mut self, pair: &str) -> Result<(), StoreError> {
        lease::pair(self, pair).await
    }

    async fn acquire(&mut self, run: &Run) -> Result<Lease, StoreError> {
        around(lease::acquire(self, run), "acquire in Postgres").await
    }

    async fn evict(&mut self) -> Result<Vec<String>, StoreError> {
        lease::evict(self).await
    }

    async fn cancel(&mut self) {
        lease::cancel(self).await;
    }

    async fn heart(&mut self) -> Result<PostgresHeart, StoreError> {
        lease::heart(self).await
    }

    async fn release(&mut self, outcome: &Outcome) -> Result<(), StoreError> {
        around(lease::release(self, outcome), "release in Postgres").await
    }

    async fn backups(&mut self) -> Result<Backups, StoreError> {
        backup::backups(self).await
    }

    async fn check_lease(&mut self) -> Result<(), StoreError> {
        match Postgres::check_lease(self).await {
            // Whoever takes a lease over ends our sessions: that one is gone does not
            // tell whether the lease is. Making another asks again.
            Err(error) if error.fate == Fate::Unreachable => match self.reconnect().await {
                Err(again) if again.fate == Fate::Unreachable => Err(error),
                checked => checked,
            },
            checked => checked,
        }
    }

    async fn append(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        let done = around(history::append(self, entries), "append in Postgres").await;
        unless_taken(self, done).await
    }

    async fn discard(&mut self, what: &[Unreadable]) -> Result<(), StoreError> {
        history::discard(self, what).await
    }

    async fn commit(&mut self, step: &PgStep, entries: &[Entry]) -> Result<(), StoreError> {
        // On the heap: it holds the session that looks who is in the way.
        let commit = Box::pin(step::commit(self, step, entries));
        let done = around(commit, "commit in Postgres").await;
        unless_taken(self, done).await
    }

    fn obstruction(&mut self, error: &StoreError) -> Option<Obstruction> {
        step::obstruction(self, error)
    }

    async fn obstacle(&mut self, step: &PgStep) -> Result<Option<String>, StoreError> {
        let found = step::obstacle(self, step).await?;
        if found.is_some() {
            // Whoever has taken our lease has made it: then it is in nobody's way.
            self.check_lease().await?;
        }
        Ok(found)
    }

    fn gauge(&self) -> Option<Box<dyn Gauge>> {
        Some(Box::new(gauge::PostgresGauge::new(self)))
    }

    async fn perform(&mut self, step: &PgStep) -> Result<(), StoreError> {
        let done = around(step::perform(self, step), "perform in Postgres").await;
        unless_taken(self, done).await
    }

    async fn holds(&mut self, step: &PgStep) -> Result<Holds, StoreError> {
        step::holds(self, step).await
    }

    async fn clear(&mut self, step: &PgStep) -> Result<(), StoreError> {
        let done = around(step::clear(self, step), "clear in Postgres").await;
        unless_taken(self, done).await
    }
}

/// Whoever takes our lease ends our sessions and goes on with our steps: if that is
/// why one failed, it is what there is to say.
async fn unless_taken<T>(
    store: &mut Postgres,
    done: Result<T, StoreError>,
) -> Result<T, StoreError> {
    let Err(error) = &done else { return done };
    let ours = match error.fate {
        Fate::Refused => store.check_lease().await,
        Fate::Unknown | Fate::Unreachable => store.reconnect().await,
        Fate::Fenced | Fate::Corrupt => return done,
    };
    match ours {
        Err(taken) if taken.fate == Fate::Fenced => Err(taken),
        Ok(()) | Err(_) => done,
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
        detail: detail(error),
        hint: error.hint().map(str::to_owned),
        position,
        ..Said::default()
    }
}

/// Its detail, and where in a function or a block of PL/pgSQL it came from.
fn detail(error: &DbError) -> Option<String> {
    let context = error.where_().map(|context| context.replace('\n', "; "));
    match (error.detail(), context) {
        (Some(detail), Some(context)) => Some(format!("{detail} ({context})")),
        (detail, context) => detail.map(str::to_owned).or(context),
    }
}

/// A name as SQL has it.
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
