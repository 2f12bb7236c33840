//! Asking Postgres for one value, and for rows that offend.
//!
//! Every answer comes as JSON that the server makes: it has all that is needed of
//! any type, under the columns' names, and no type has to be looked up.

use super::step::{clean, is_passing, quoted, settings};
use super::{Postgres, failed};
use crate::core::expectation::{Broken, clip, holds, show};
use crate::core::id::StoreName;
use crate::core::step::{Guard, PgStep, Timeouts};
use crate::store::invariant::{Invariants, SAMPLE_MAX, shown};
use crate::store::{Fate, Said, StoreError};
use bson::{Bson, Decimal128};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::time::Duration;
use tokio_postgres::types::Type;

const ASK: &str = "check the invariant";

/// So often is a lock tried for that somebody else has.
const TRIES: u32 = 10;

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// One row beside the only one is enough to know that there are several.
const ONE_AND_MORE: u16 = 2;

impl Invariants for Postgres {
    type Question = str;
    type Rows = str;

    async fn value(&mut self, question: &str, timeouts: Timeouts) -> Result<Bson, StoreError> {
        only(&patiently(self, question, ONE_AND_MORE, timeouts).await?)
    }

    async fn rows(
        &mut self,
        question: &str,
        timeouts: Timeouts,
    ) -> Result<Vec<String>, StoreError> {
        let rows = patiently(self, question, SAMPLE_MAX, timeouts).await?;
        rows.iter().map(|row| line(row)).collect()
    }
}

/// Asks in a transaction of its own, and again when a lock is not to be had.
async fn patiently(
    store: &mut Postgres,
    question: &str,
    rows: u16,
    timeouts: Timeouts,
) -> Result<Vec<String>, StoreError> {
    let mut tries = 1;
    loop {
        let error = match alone(store, question, rows, timeouts).await {
            Ok(rows) => return Ok(rows),
            Err(error) => error,
        };
        if error.fate != Fate::Refused || !is_passing(&error) || tries >= TRIES {
            return Err(error);
        }
        tokio::time::sleep(PAUSE).await;
        tries += 1;
    }
}

async fn alone(
    store: &mut Postgres,
    question: &str,
    rows: u16,
    timeouts: Timeouts,
) -> Result<Vec<String>, StoreError> {
    clean(store).await?;
    let begin = format!("BEGIN READ ONLY; {}", settings(store, timeouts, "SET LOCAL"));
    store.open = true;
    store.client.batch_execute(&begin).await.map_err(|error| failed(ASK, &error))?;
    // A function that the query calls may leave settings of the session behind.
    store.used = true;
    let answer = ask(store, question, rows).await;
    let _ = store.client.batch_execute("ROLLBACK").await;
    store.open = false;
    answer
}

/// The first rows of an answer, in the transaction that is open: each a JSON
/// object of its columns, in their order.
async fn ask(store: &Postgres, question: &str, rows: u16) -> Result<Vec<String>, StoreError> {
    // No column of anybody's is called like this, or it would be taken for the row.
    const BEFORE: &str = "SELECT pg_catalog.row_to_json(lockstep_row)::pg_catalog.text FROM (\n";
    let sql = format!("{BEFORE}{question}\n) AS lockstep_row LIMIT {rows}");
    let no_parameters: &[(&(dyn tokio_postgres::types::ToSql + Sync), Type)] = &[];
    let answer = store.client.query_typed(&sql, no_parameters).await.map_err(|error| {
        let mut failure = failed(ASK, &error);
        let within = |at: usize| at.checked_sub(BEFORE.len());
        failure.said.position = failure.said.position.and_then(within);
        failure
    })?;
    let text = |row: &tokio_postgres::Row| {
        row.try_get::<_, String>(0).map_err(|error| failed(ASK, &error))
    };
    answer.iter().map(text).collect()
}

/// The only value of an answer.
fn only(rows: &[String]) -> Result<Bson, StoreError> {
    let row = match rows {
        [row] => row,
        [] => {
            return Err(refused(
                "the query has no row for an answer",
                "ask for one value that is always there, as `SELECT count(*) …` does",
            ));
        }
        _ => {
            return Err(refused(
                "the query has more than one row for an answer",
                "ask for one value: `SELECT count(*) …`; rows belong into `sample`",
            ));
        }
    };
    match columns(row)?.as_slice() {
        [(_, value)] => Ok(bson(value.get())),
        columns => Err(refused(
            &format!("the query has {} columns for an answer", columns.len()),
            "ask for one value: `SELECT count(*) …`; rows belong into `sample`",
        )),
    }
}

fn refused(message: &str, hint: &str) -> StoreError {
    let said = Said { hint: Some(hint.to_owned()), ..Said::default() };
    let error = StoreError::new(StoreName::Postgres, ASK, Fate::Refused, message);
    StoreError { said: Said { message: error.said.message, ..said }, ..error }
}

/// A row on one line: `id = 7, role = NULL`.
fn line(row: &str) -> Result<String, StoreError> {
    let columns = columns(row)?;
    let parts =
        columns.iter().map(|(name, value)| format!("{name} = {}", show(&bson(value.get()))));
    Ok(clip(&parts.collect::<Vec<_>>().join(", ")))
}

/// What the server's JSON means. A number keeps every digit; one with more than a
/// Decimal128 has stays the text that it is.
fn bson(json: &str) -> Bson {
    match json.as_bytes().first() {
        Some(b'"') => serde_json::from_str(json).map_or(Bson::Null, Bson::String),
        Some(b't') => Bson::Boolean(true),
        Some(b'f') => Bson::Boolean(false),
        Some(b'-' | b'0'..=b'9') => number(json),
        Some(b'[' | b'{') => serde_json::from_str::<serde_json::Value>(json)
            .ok()
            .and_then(|value| Bson::try_from(value).ok())
            .unwrap_or_else(|| Bson::String(json.to_owned())),
        _ => Bson::Null,
    }
}

fn number(text: &str) -> Bson {
    if let Ok(number) = text.parse::<i64>() {
        return i32::try_from(number).map_or(Bson::Int64(number), Bson::Int32);
    }
    text.parse::<Decimal128>().map_or_else(|_| Bson::String(text.to_owned()), Bson::Decimal128)
}

/// The members of a JSON object as they stand there, two of the same name too.
fn columns(row: &str) -> Result<Vec<(String, Box<RawValue>)>, StoreError> {
    struct Columns;
    impl<'de> Visitor<'de> for Columns {
        type Value = Vec<(String, Box<RawValue>)>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a row")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut columns = Vec::new();
            while let Some(column) = map.next_entry()? {
                columns.push(column);
            }
            Ok(columns)
        }
    }
    let mut json = serde_json::Deserializer::from_str(row);
    json.deserialize_map(Columns).map_err(|error| {
        let message = format!("the answer cannot be read: {error}");
        StoreError::new(StoreName::Postgres, ASK, Fate::Refused, message)
    })
}

/// Of the tables that a step locks, those that are there, as a statement names
/// them. A view or an index cannot be locked, and has no rows of its own.
pub(super) async fn lockable(
    store: &mut Postgres,
    step: &PgStep,
) -> Result<Option<String>, StoreError> {
    if step.locks.is_empty() {
        return Ok(None);
    }
    let names: Vec<String> = step.locks.iter().map(quoted).collect();
    // In one order for everybody, so that two who lock the same wait for each
    // other in a row.
    let sql = "SELECT c.oid::pg_catalog.regclass::text FROM pg_catalog.pg_class AS c \
         WHERE c.relkind IN ('r', 'p') AND c.oid IN \
         (SELECT pg_catalog.to_regclass(n) FROM pg_catalog.unnest($1) AS n) ORDER BY c.oid";
    let rows = super::step::ask(store, sql, &[(&names, Type::TEXT_ARRAY)]).await?;
    let tables: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let lock = format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", tables.join(", "));
    Ok((!tables.is_empty()).then_some(lock))
}

/// Asks the guards of a step in the transaction that is open. One that does not
/// hold is an error that carries it.
pub(super) async fn guard(store: &Postgres, guards: &[Guard]) -> Result<(), StoreError> {
    for guard in guards {
        let value = only(&ask(store, &guard.query, ONE_AND_MORE).await?)?;
        if holds(&guard.expect, &value) {
            continue;
        }
        let sample = match &guard.sample {
            Some(query) => {
                let rows = ask(store, query, SAMPLE_MAX).await;
                shown(rows.and_then(|rows| rows.iter().map(|row| line(row)).collect()))
            }
            None => Vec::new(),
        };
        let broken = Broken {
            name: guard.name.clone(),
            questions: vec![guard.query.clone()],
            expected: guard.expect.to_string(),
            found: show(&value),
            sample,
            next: None,
        };
        return Err(StoreError::broken(StoreName::Postgres, ASK, broken));
    }
    Ok(())
}
