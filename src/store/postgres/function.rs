//! Functions of the program around us, which scripts call: `CALL lockstep.name(…)`.
//!
//! They run in the transaction of their step, in the place of the statement, so what
//! they write and that the step is applied are committed together.

use super::step::RUN;
use super::{Postgres, failed};
use crate::core::causes::chain;
use crate::core::id::StoreName;
use crate::core::parse::sql;
use crate::store::{Fate, StoreError};
use futures_util::FutureExt as _;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

/// Why a function did not do what it was to do. Whatever it says, the step leaves
/// nothing.
type Because = Box<dyn Error + Send + Sync>;

/// A function, as it is kept.
trait Function: Send + Sync {
    fn call<'a>(
        &'a self,
        transaction: &'a Transaction<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<(), Because>> + 'a>>;
}

impl<F> Function for F
where
    F: AsyncFn(&Transaction<'_>) -> Result<(), Because> + Send + Sync,
{
    fn call<'a>(
        &'a self,
        transaction: &'a Transaction<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<(), Because>> + 'a>> {
        Box::pin(self(transaction))
    }
}

/// Functions by their names.
#[derive(Clone, Default)]
pub struct Functions(BTreeMap<String, Arc<dyn Function>>);

impl Functions {
    /// Adds one, in the place of one that is called the same.
    pub fn add<F>(&mut self, name: &str, function: F)
    where
        F: AsyncFn(&Transaction<'_>) -> Result<(), Because> + Send + Sync + 'static,
    {
        self.0.insert(name.to_owned(), Arc::new(function));
    }

    /// What they are called.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl fmt::Debug for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// The transaction of a step, for a function that is called in it.
///
/// It begins and ends outside of the function: with its record when the function
/// returns, and with nothing when that fails, panics, or is cut off by anything. The
/// function may be called again then, so what it does elsewhere should be harmless to
/// repeat.
///
/// Statements that would end the transaction are refused, as in scripts, and so is a
/// function in whose transaction another one was begun in spite of that.
pub struct Transaction<'a> {
    client: &'a Client,
}

impl fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").finish_non_exhaustive()
    }
}

impl Transaction<'_> {
    /// Runs one statement; the number of rows that it changed.
    ///
    /// # Errors
    /// The server's, or that the statement would end the transaction.
    pub async fn execute(
        &self,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, Because> {
        check(statement)?;
        Ok(self.client.execute(statement, parameters).await?)
    }

    /// Asks for rows.
    ///
    /// # Errors
    /// As [`execute`](Transaction::execute).
    pub async fn query(
        &self,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Because> {
        check(statement)?;
        Ok(self.client.query(statement, parameters).await?)
    }

    /// Asks for one row.
    ///
    /// # Errors
    /// As [`execute`](Transaction::execute), and that there is none, or more than one.
    pub async fn query_one(
        &self,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, Because> {
        check(statement)?;
        Ok(self.client.query_one(statement, parameters).await?)
    }

    /// Asks for one row, if there is one.
    ///
    /// # Errors
    /// As [`execute`](Transaction::execute), and that there is more than one.
    pub async fn query_opt(
        &self,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, Because> {
        check(statement)?;
        Ok(self.client.query_opt(statement, parameters).await?)
    }

    /// Runs several statements, without parameters.
    ///
    /// # Errors
    /// As [`execute`](Transaction::execute).
    pub async fn batch_execute(&self, statements: &str) -> Result<(), Because> {
        check(statements)?;
        Ok(self.client.batch_execute(statements).await?)
    }
}

/// Nothing that a script may not say.
fn check(statements: &str) -> Result<(), Because> {
    let refused = |problem: &crate::core::problem::Problem| {
        let hint = problem.hint.as_deref().map_or(String::new(), |hint| format!("; {hint}"));
        format!("{}{hint}", problem.message)
    };
    match sql::read(statements) {
        Ok(_) => Ok(()),
        Err(problems) => Err(problems.first().map(refused).unwrap_or_default().into()),
    }
}

/// Calls a function in the transaction that is open.
pub(super) async fn call(store: &mut Postgres, name: &str) -> Result<(), StoreError> {
    /// What sessions of others may have left behind a pooler has names that the driver
    /// is about to give.
    const FIRST: &str = "DEALLOCATE ALL; SELECT pg_catalog.txid_current()";
    const WHICH: &str = "SELECT pg_catalog.txid_current()";
    let refused = |message: String| {
        StoreError::new(StoreName::Postgres, RUN, Fate::Refused, format!("`{name}` {message}"))
    };
    let Some(function) = store.functions.0.get(name).cloned() else {
        return Err(refused("is a function of another program".to_owned()));
    };
    // A second one in the same step may use what the driver keeps of the first.
    let is_first = !std::mem::replace(&mut store.stale, true);
    let before = store.client.simple_query(if is_first { FIRST } else { WHICH }).await;
    let before = which(&before.map_err(|error| failed(RUN, &error))?);
    let transaction = Transaction { client: &store.client };
    let called = AssertUnwindSafe(function.call(&transaction)).catch_unwind().await;
    let because = match called {
        Ok(Ok(())) => None,
        Ok(Err(because)) => Some(because),
        Err(panic) => {
            let said = panic.downcast_ref::<&str>().map(|said| (*said).to_owned());
            let said = said.or_else(|| panic.downcast_ref::<String>().cloned());
            return Err(refused(format!("panicked: {}", said.unwrap_or_default())));
        }
    };
    if let Some(because) = because {
        return Err(match of_driver(&*because) {
            Some(error) if error.as_db_error().is_some() || error.is_closed() => {
                let mut failure = failed(RUN, error);
                failure.said.message = format!("`{name}`: {}", failure.said.message);
                // It is about a statement of the function, not of the script.
                failure.said.position = None;
                failure
            }
            _ => refused(format!("failed: {}", chain(&*because))),
        });
    }
    // One that passed over an error of the server is told here that nothing of it can
    // be committed.
    let after = store.client.simple_query(WHICH).await.map_err(|error| failed(RUN, &error))?;
    if which(&after) == before {
        return Ok(());
    }
    Err(refused("ended the transaction that it was called in".to_owned()))
}

/// What the driver said, however the function has wrapped it.
fn of_driver<'a>(
    mut because: &'a (dyn std::error::Error + 'static),
) -> Option<&'a tokio_postgres::Error> {
    loop {
        match because.downcast_ref() {
            Some(error) => return Some(error),
            None => because = because.source()?,
        }
    }
}

/// The number of the transaction.
fn which(answer: &[tokio_postgres::SimpleQueryMessage]) -> Option<String> {
    answer.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("no names were filled in")]
    struct Wrapped(#[source] Because);

    #[test]
    fn what_the_driver_said_is_found_however_it_is_wrapped() {
        let said = "port=x".parse::<tokio_postgres::Config>().expect_err("no settings");
        let text = said.to_string();
        let wrapped = Wrapped(Box::new(Wrapped(Box::new(said))));
        assert_eq!(of_driver(&wrapped).map(ToString::to_string), Some(text));
        assert!(of_driver(&Wrapped("nothing of the driver".into())).is_none());
    }
}
