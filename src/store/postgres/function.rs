//! Functions of the program around us: those that scripts call, `CALL lockstep.name(…)`,
//! and those that backfills call for their batches.
//!
//! They run in the transaction of their step, in the place of the statement, or in that
//! of their batch: what they write and that it is done are committed together.

use super::key::TableKey;
use super::step::RUN;
use super::{Postgres, failed};
use crate::core::causes::chain;
use crate::core::id::StoreName;
use crate::core::parse::manifest::BATCH as RANGE;
use crate::core::parse::sql;
use crate::core::step::{Call, Caller};
use crate::store::function::{Because, find, said_in};
use crate::store::{Fate, StoreError};
use futures_util::FutureExt as _;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

/// What a function comes to, as it is kept.
type Coming<'a, T> = Pin<Box<dyn Future<Output = Result<T, Because>> + 'a>>;

/// A function that scripts call, as it is kept.
trait Function: Send + Sync {
    fn call<'a>(&'a self, transaction: &'a Transaction<'a>) -> Coming<'a, ()>;
}

impl<F> Function for F
where
    F: AsyncFn(&Transaction<'_>) -> Result<(), Because> + Send + Sync,
{
    fn call<'a>(&'a self, transaction: &'a Transaction<'a>) -> Coming<'a, ()> {
        Box::pin(self(transaction))
    }
}

/// A function that backfills call, as it is kept.
trait BatchFunction: Send + Sync {
    fn call<'a>(&'a self, batch: &'a PostgresBatch<'a>) -> Coming<'a, u64>;
}

impl<F> BatchFunction for F
where
    F: AsyncFn(&PostgresBatch<'_>) -> Result<u64, Because> + Send + Sync,
{
    fn call<'a>(&'a self, batch: &'a PostgresBatch<'a>) -> Coming<'a, u64> {
        Box::pin(self(batch))
    }
}

/// Functions by their names.
#[derive(Clone, Default)]
pub struct Functions {
    scripts: BTreeMap<String, Arc<dyn Function>>,
    batches: BTreeMap<String, Arc<dyn BatchFunction>>,
}

impl Functions {
    /// Adds one for scripts, in the place of one that is called the same.
    pub fn add<F>(&mut self, name: &str, function: F)
    where
        F: AsyncFn(&Transaction<'_>) -> Result<(), Because> + Send + Sync + 'static,
    {
        self.scripts.insert(name.to_owned(), Arc::new(function));
    }

    /// The same for backfills.
    pub fn add_batch<F>(&mut self, name: &str, function: F)
    where
        F: AsyncFn(&PostgresBatch<'_>) -> Result<u64, Because> + Send + Sync + 'static,
    {
        self.batches.insert(name.to_owned(), Arc::new(function));
    }

    /// What they are called, and by what.
    pub fn names(&self) -> impl Iterator<Item = (Caller, &str)> {
        let batches = Caller::Batches(StoreName::Postgres);
        let scripts = self.scripts.keys().map(|name| (Caller::Script, name.as_str()));
        scripts.chain(self.batches.keys().map(move |name| (batches, name.as_str())))
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

/// So many statements of a batch are kept prepared.
const STATEMENTS_MAX: usize = 100;

/// A batch of a backfill in Postgres, for a function that is called for it.
///
/// All that it does here is in the transaction of the batch, which moves the cursor of
/// the backfill too: each row is in one batch that is committed, whatever dies. When the
/// function fails, panics or is cut off, or another session was in the way, nothing of
/// the batch is there, and the function is called again for it, or for a part of it. So
/// what it does elsewhere should be harmless to repeat.
///
/// `{batch}` in a statement stands for the rows of the batch: the range of their keys,
/// and the `where` of the backfill, if it has one. It names columns without their table,
/// so write other tables into subqueries.
///
/// ```
/// # use lockstep::Migrator;
/// let builder = Migrator::builder().postgres_batch("fill_names", async |batch| {
///     let rows = batch.query("SELECT id, mail FROM people WHERE {batch} FOR UPDATE", &[]).await?;
///     for row in &rows {
///         let (id, mail): (i64, String) = (row.get(0), row.get(1));
///         let name = mail.split('@').next();
///         batch.execute("UPDATE people SET name = $1 WHERE id = $2", &[&name, &id]).await?;
///     }
///     Ok(rows.len() as u64)
/// });
/// ```
pub struct PostgresBatch<'a> {
    client: &'a Client,
    key: &'a TableKey,
    condition: Option<&'a str>,
    after: Option<&'a [String]>,
    upto: &'a [String],
    /// By their texts, and how many parameters they are given: a function says the same
    /// for each row.
    statements: RefCell<BTreeMap<(String, usize), Statement>>,
    /// What this server said last: a function may talk to others too.
    failed: RefCell<Option<String>>,
}

impl fmt::Debug for PostgresBatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresBatch")
            .field("after", &self.after)
            .field("upto", &self.upto)
            .finish_non_exhaustive()
    }
}

impl<'a> PostgresBatch<'a> {
    /// The rows after one key, up to another.
    pub(super) fn new(
        client: &'a Client,
        key: &'a TableKey,
        condition: Option<&'a str>,
        after: Option<&'a [String]>,
        upto: &'a [String],
    ) -> PostgresBatch<'a> {
        let (statements, failed) = (RefCell::default(), RefCell::default());
        PostgresBatch { client, key, condition, after, upto, statements, failed }
    }

    /// The last key of the batch before, which is not in this one: a text for each of its
    /// columns. `None` is the beginning.
    pub fn after(&self) -> Option<&[String]> {
        self.after
    }

    /// The last key of this batch.
    pub fn upto(&self) -> &[String] {
        self.upto
    }

    /// Runs one statement; the number of rows that it changed.
    ///
    /// # Errors
    /// The server's, or that the statement would end the transaction.
    pub async fn execute(
        &self,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, Because> {
        let (statement, range) = self.prepare(statement, parameters.len()).await?;
        self.own(self.client.execute(&statement, &both(parameters, &range)).await)
    }

    /// Asks for rows.
    ///
    /// # Errors
    /// As [`execute`](PostgresBatch::execute).
    pub async fn query(
        &self,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Because> {
        let (statement, range) = self.prepare(statement, parameters.len()).await?;
        self.own(self.client.query(&statement, &both(parameters, &range)).await)
    }

    /// Asks for one row.
    ///
    /// # Errors
    /// As [`execute`](PostgresBatch::execute), and that there is none, or more than one.
    pub async fn query_one(
        &self,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, Because> {
        let (statement, range) = self.prepare(statement, parameters.len()).await?;
        self.own(self.client.query_one(&statement, &both(parameters, &range)).await)
    }

    /// Asks for one row, if there is one.
    ///
    /// # Errors
    /// As [`execute`](PostgresBatch::execute), and that there is more than one.
    pub async fn query_opt(
        &self,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, Because> {
        let (statement, range) = self.prepare(statement, parameters.len()).await?;
        self.own(self.client.query_opt(&statement, &both(parameters, &range)).await)
    }

    fn own<T>(&self, answer: Result<T, tokio_postgres::Error>) -> Result<T, Because> {
        answer.map_err(|error| {
            self.failed.replace(Some(chain(&error)));
            error.into()
        })
    }

    /// The statement with the range of the batch in it, and the parameters of that, which
    /// come behind its own.
    async fn prepare(
        &self,
        text: &str,
        parameters: usize,
    ) -> Result<(Statement, Vec<String>), Because> {
        let range = self.key.range_behind(parameters, "", self.after, Some(self.upto));
        let has_range = text.contains(RANGE);
        let params = if has_range { range.params } else { Vec::new() };
        let place = (text.to_owned(), parameters);
        if let Some(statement) = self.statements.borrow().get(&place).cloned() {
            return Ok((statement, params));
        }
        let rows = match self.condition {
            // It may end with a comment.
            Some(condition) => format!("({} AND (\n{condition}\n))", range.sql),
            None => format!("({})", range.sql),
        };
        let whole = if has_range { text.replace(RANGE, &rows) } else { text.to_owned() };
        check(&whole)?;
        let statement = self.own(self.client.prepare(&whole).await)?;
        let mut statements = self.statements.borrow_mut();
        if statements.len() < STATEMENTS_MAX {
            statements.insert(place, statement.clone());
        }
        Ok((statement, params))
    }
}

/// Somebody's parameters, and those of the range behind them.
fn both<'a>(
    parameters: &[&'a (dyn ToSql + Sync)],
    range: &'a [String],
) -> Vec<&'a (dyn ToSql + Sync)> {
    let range = range.iter().map(|value| value as &(dyn ToSql + Sync));
    parameters.iter().copied().chain(range).collect()
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

/// What sessions of others may have left behind a pooler has names that the driver is
/// about to give.
const FIRST: &str = "DEALLOCATE ALL; \
     SELECT pg_catalog.txid_current(), pg_catalog.pg_backend_pid()";

const WHICH: &str = "SELECT pg_catalog.txid_current(), pg_catalog.pg_backend_pid()";

/// Calls a function of a script in the transaction that is open.
pub(super) async fn call(store: &mut Postgres, name: &str) -> Result<(), StoreError> {
    let Some(function) = store.functions.scripts.get(name).cloned() else {
        return Err(refused(RUN, name, "is a function of another program"));
    };
    // A second one in the same step may use what the driver keeps of the first.
    let is_first = !std::mem::replace(&mut store.stale, true);
    let before = ask(&store.client, if is_first { FIRST } else { WHICH }, RUN).await?;
    let transaction = Transaction { client: &store.client };
    let called = AssertUnwindSafe(function.call(&transaction)).catch_unwind().await;
    settled(&store.client, name, called, |_| true, &before, RUN).await
}

/// Where a batch function is about to be called, in the transaction that is open. `None`:
/// what the driver remembers of the last one is remembered in another process of the
/// server.
pub(super) async fn enter(
    store: &mut Postgres,
    doing: &'static str,
) -> Result<Option<Place>, StoreError> {
    let is_first = !std::mem::replace(&mut store.stale, true);
    let before = ask(&store.client, if is_first { FIRST } else { WHICH }, doing).await?;
    if is_first {
        store.backend.clone_from(&before.backend);
    }
    Ok((store.backend.is_some() && store.backend == before.backend).then_some(before))
}

/// Calls the function of a backfill for a batch, in the transaction that is open: how
/// many rows it says that it wrote.
pub(super) async fn call_batch(
    functions: &Functions,
    call: &Call,
    batch: PostgresBatch<'_>,
    before: &Place,
    doing: &'static str,
) -> Result<u64, StoreError> {
    let name = call.name.as_str();
    let Some(function) = functions.batches.get(name).cloned() else {
        return Err(refused(doing, name, "is a function of another program"));
    };
    let called = AssertUnwindSafe(function.call(&batch)).catch_unwind().await;
    let said = batch.failed.take();
    let is_own = |error: &tokio_postgres::Error| said.as_ref() == Some(&chain(error));
    let settled = settled(batch.client, name, called, is_own, before, doing).await;
    settled.map_err(|mut error| {
        // prepared statements that are not there, or that are there already: another
        // session behind the same pooler was in the way, and a new one is not.
        let is_another = ["SQLSTATE 26000", "SQLSTATE 42P05"]
            .iter()
            .any(|code| error.said.code.as_deref() == Some(code));
        if is_another {
            error.fate = Fate::Unreachable;
        }
        error
    })
}

fn refused(doing: &'static str, name: &str, what: &str) -> StoreError {
    StoreError::new(StoreName::Postgres, doing, Fate::Refused, format!("`{name}` {what}"))
}

/// What became of a call, as far as its transaction is concerned.
async fn settled<T>(
    client: &Client,
    name: &str,
    called: std::thread::Result<Result<T, Because>>,
    is_own: impl Fn(&tokio_postgres::Error) -> bool,
    before: &Place,
    doing: &'static str,
) -> Result<T, StoreError> {
    let done = match called {
        Ok(Ok(done)) => done,
        Ok(Err(because)) => {
            return Err(match find::<tokio_postgres::Error>(&*because) {
                Some(error)
                    if is_own(error) && (error.as_db_error().is_some() || error.is_closed()) =>
                {
                    let mut failure = failed(doing, error);
                    failure.said.message = format!("`{name}`: {}", failure.said.message);
                    // It is about a statement of the function, not of the script.
                    failure.said.position = None;
                    failure
                }
                _ => refused(doing, name, &format!("failed: {}", chain(&*because))),
            });
        }
        Err(panic) => {
            return Err(refused(doing, name, &format!("panicked: {}", said_in(&*panic))));
        }
    };
    // One that passed over an error of the server is told here that nothing of it can
    // be committed.
    let after = ask(client, WHICH, doing).await?;
    if after.transaction == before.transaction {
        return Ok(done);
    }
    Err(refused(doing, name, "ended the transaction that it was called in"))
}

/// Where a session is.
pub(super) struct Place {
    transaction: Option<String>,
    backend: Option<String>,
}

async fn ask(client: &Client, sql: &str, doing: &'static str) -> Result<Place, StoreError> {
    let answer = client.simple_query(sql).await.map_err(|error| failed(doing, &error))?;
    let row = answer.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let column = |at: usize| row.and_then(|row| row.get(at)).map(str::to_owned);
    Ok(Place { transaction: column(0), backend: column(1) })
}
