//! Backfills: many rows of one store, rewritten a batch at a time while the
//! application keeps working.
//!
//! What is to be rewritten is cut into shards, each a range of keys whose ends
//! are fixed when it is cut. A batch rewrites the next rows of one shard and
//! moves that shard's cursor, in one transaction: each row is rewritten once,
//! whatever is killed and whenever.

use crate::core::parse::manifest::{Change, MongoSource, Pace, Update, Work};
use crate::core::step::Timeouts;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// A backfill, as its step has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Backfill {
    /// What people call it: `roles as an array`.
    pub title: String,
    /// What it does.
    pub work: Work,
    /// How fast; what is not there is the project's.
    pub pace: Pace,
    /// So many rows that cannot be mapped are put aside; one more stops it.
    pub max_bad: u64,
    /// From `[timeouts]`; `None` is the engine's own for a batch.
    pub timeouts: Timeouts,
}

impl Backfill {
    /// What it does, as one statement over all rows.
    pub fn statement(&self) -> String {
        match &self.work {
            Work::Update { table, set, condition, .. } => match condition {
                Some(condition) => format!("UPDATE {table} SET {set} WHERE {condition}"),
                None => format!("UPDATE {table} SET {set}"),
            },
            Work::Sql { sql, .. } => sql.clone(),
            Work::Call { call, table, condition, .. } => match condition {
                Some(condition) => format!("{call} for each batch of {table} WHERE {condition}"),
                None => format!("{call} for each batch of {table}"),
            },
            Work::Documents { collection, filter, change } => match change {
                Change::Update(Update::Operators(update)) => {
                    format!("db.{collection}.updateMany({filter}, {update})")
                }
                Change::Update(Update::Pipeline(stages)) => {
                    let stages: Vec<String> = stages.iter().map(ToString::to_string).collect();
                    format!("db.{collection}.updateMany({filter}, [{}])", stages.join(", "))
                }
                Change::Delete => format!("db.{collection}.deleteMany({filter})"),
                Change::Call(call) => {
                    format!("{call} for each batch of db.{collection}.find({filter})")
                }
            },
            Work::CopyToMongo { query, to, .. } => format!("{query} → db.{to}"),
            Work::CopyToPostgres { from, to, .. } => {
                let MongoSource { collection, find, pipeline } = from;
                let stages: Vec<String> = pipeline.iter().map(ToString::to_string).collect();
                let then = match stages.is_empty() {
                    true => String::new(),
                    false => format!(" | [{}]", stages.join(", ")),
                };
                format!("db.{collection}.find({find}){then} → {to}")
            }
        }
    }

    /// The table or collection whose keys it goes along, as people know it.
    pub fn source(&self) -> String {
        match &self.work {
            Work::Update { table, .. } | Work::Sql { table, .. } | Work::Call { table, .. } => {
                table.to_string()
            }
            Work::Documents { collection, .. } => collection.clone(),
            Work::CopyToMongo { query, .. } => query.clone(),
            Work::CopyToPostgres { from, .. } => from.collection.clone(),
        }
    }
}

/// One key, in the form in which its own store reads and writes it, exactly: an
/// array of texts, a column each, in Postgres; Extended JSON in MongoDB.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Key(pub serde_json::Value);

/// As people read it: `42`, `(7, "b")`.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            serde_json::Value::Array(columns) => match columns.as_slice() {
                [serde_json::Value::String(only)] => f.write_str(only),
                columns => {
                    let columns: Vec<String> = columns.iter().map(ToString::to_string).collect();
                    write!(f, "({})", columns.join(", "))
                }
            },
            other => write!(f, "{other}"),
        }
    }
}

/// A range of keys, and how far it is done.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Shard {
    /// From 1; counts on through the rounds.
    #[serde(skip)]
    pub index: u32,
    /// 0 is what was there when the backfill began; each later round is a sweep
    /// over what appeared behind the round before.
    pub round: u32,
    /// The table (a partition, where there are any) or collection, as its store
    /// names it in a statement.
    pub table: String,
    /// The last key that is done; at first, that before the range, if there is one.
    pub after: Option<Key>,
    /// The last key of the range.
    pub upto: Key,
    /// About how many rows it had when it was cut.
    pub estimate: u64,
    /// Keys that were passed, rewritten or not.
    pub passed: u64,
    /// Rows that were rewritten.
    #[serde(skip)]
    pub rows: u64,
    /// Nothing is left of it.
    pub done: bool,
    /// Somebody works at it.
    pub claimed: bool,
}

/// What a backfill would go through.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Survey {
    /// The columns of the key that it goes along, with their types; `_id` in MongoDB.
    pub key: String,
    /// About how many rows there are.
    pub estimate: u64,
    /// The ranges, in order; none when there is nothing.
    pub shards: Vec<Shard>,
}

/// What one batch did.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Batch {
    /// The shard as it is recorded now.
    pub shard: Shard,
    /// Keys that were passed.
    pub passed: u64,
    /// Rows that were rewritten.
    pub rows: u64,
    /// How long its round trips take, but for the commit's: as many as it has, and each as
    /// long as one that does little.
    pub trips: Duration,
    /// How long the server took to make it durable.
    pub commit: Duration,
}
