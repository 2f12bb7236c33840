//! What a plan would mean for the databases as they are: whom its statements hold
//! up, how much they go through, and what somebody should think about before.
//!
//! What the texts say comes from [`locks`](crate::core::locks) and from the commands;
//! what the servers say is asked in few questions, and is an estimate. Where a server
//! says nothing, the worst is assumed and the reason is told.

mod mongo;
mod postgres;

pub use mongo::{Asks, CollectionFacts, Filter, Key, Matches, MongoFacts, asks};
pub use postgres::{
    ColumnFacts, ForeignKey, Pair, PostgresFacts, TableFacts, Wanted, of_statement, wanted,
};

use crate::core::grouped::grouped;
use crate::core::id::StepId;
use crate::core::locks::{Lock, Toil};
use crate::core::plan::{Action, Attempt, Plan, Work};
use crate::core::step::{Body, QualifiedName};
use std::collections::{BTreeMap, BTreeSet};

/// Nobody notices what is done to fewer rows.
const ROWS_MANY: u64 = 10_000;

/// Nor to fewer bytes.
const BYTES_MANY: u64 = 16 << 20;

/// What is known of each statement of each step, in their order.
pub type Outlooks = BTreeMap<StepId, Vec<Outlook>>;

/// What is known of one statement.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Outlook {
    /// The tables or collections that it touches.
    pub touches: Vec<Touch>,
    /// What is worth knowing.
    pub notes: Vec<String>,
    /// What somebody should think about before.
    pub warnings: Vec<String>,
    /// What could not be found out, and why.
    pub unknown: Option<String>,
}

/// A table or a collection that a statement touches.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Touch {
    /// What it is called.
    pub name: String,
    /// The strongest lock that is taken on it; MongoDB has none that anybody
    /// waits for long.
    pub lock: Option<Lock>,
    /// How much of it is gone through.
    pub toil: Toil,
    /// Why.
    pub why: Option<String>,
    /// About how many rows or documents it has.
    pub rows: Option<u64>,
    /// About how many bytes.
    pub bytes: Option<u64>,
    /// About how large the index will be that is built.
    pub index_bytes: Option<u64>,
    /// About how many documents the statement is about.
    pub matches: Option<u64>,
    /// It is there; `None`: nobody knows.
    pub exists: Option<bool>,
    /// A statement before it makes it: nobody waits for it, and it is as good as empty.
    pub is_new: bool,
}

impl Touch {
    fn new(name: impl Into<String>) -> Touch {
        Touch {
            name: name.into(),
            lock: None,
            toil: Toil::Nothing,
            why: None,
            rows: None,
            bytes: None,
            index_bytes: None,
            matches: None,
            exists: None,
            is_new: false,
        }
    }

    /// Whether going through all of it takes a while, as far as anybody knows.
    fn is_large(&self) -> bool {
        let is_many = match (self.rows, self.bytes) {
            (None, None) => true,
            (rows, bytes) => {
                rows.is_some_and(|rows| rows >= ROWS_MANY)
                    || bytes.is_some_and(|bytes| bytes >= BYTES_MANY)
            }
        };
        !self.is_new && self.exists != Some(false) && is_many
    }

    /// `users (≈1.2 M rows, 340 MB)`.
    fn sized(&self, unit: &str) -> String {
        let size = size(self.rows, self.bytes, unit);
        match size.is_empty() {
            true => format!("{} (of unknown size)", self.name),
            false => format!("{} ({size})", self.name),
        }
    }
}

/// `≈1.2 M rows, 340 MB`, as far as it is known.
pub fn size(rows: Option<u64>, bytes: Option<u64>, unit: &str) -> String {
    let rows = rows.map(|rows| match rows {
        1 => format!("{} {}", about(1), unit.trim_end_matches('s')),
        rows => format!("{} {unit}", about(rows)),
    });
    let bytes = bytes.filter(|bytes| *bytes > 0).map(self::bytes);
    rows.into_iter().chain(bytes).collect::<Vec<_>>().join(", ")
}

/// `≈812`, `≈34 k`, `≈1.2 M`.
pub fn about(number: u64) -> String {
    match number {
        0..10_000 => format!("≈{}", grouped(number)),
        10_000..1_000_000 => format!("≈{} k", number / 1_000),
        1_000_000..100_000_000 => {
            format!("≈{}.{} M", number / 1_000_000, number / 100_000 % 10)
        }
        _ => format!("≈{} M", grouped(number / 1_000_000)),
    }
}

/// `812 kB`, `34 MB`, `1.2 GB`.
pub fn bytes(number: u64) -> String {
    const KB: u64 = 1 << 10;
    const MB: u64 = 1 << 20;
    const GB: u64 = 1 << 30;
    match number {
        0..KB => format!("{number} bytes"),
        KB..MB => format!("{} kB", number / KB),
        MB..GB => format!("{} MB", number / MB),
        _ => format!("{}.{} GB", number / GB, number % GB * 10 / GB),
    }
}

/// Puts together what the texts and the servers say of a plan.
pub fn outlooks(plan: &Plan, postgres: &PostgresFacts, mongo: &MongoFacts) -> Outlooks {
    let mut found = Outlooks::new();
    let mut before = Before::default();
    for (id, attempt) in steps(plan) {
        let outlooks = match &attempt.step.body {
            Body::Postgres(body) => {
                let texts = body.statements.iter().map(|statement| statement.text.as_str());
                texts.map(|text| postgres::outlook(text, postgres, &mut before)).collect()
            }
            Body::Mongo(body) => vec![mongo::outlook(&id, body, mongo, &mut before)],
            Body::Backfill(_) | Body::Check(_) | Body::Program(_) => Vec::new(),
        };
        found.insert(id, outlooks);
    }
    found
}

/// What statements before this one have made of the databases.
#[derive(Default)]
struct Before {
    tables: BTreeSet<QualifiedName>,
    not_null: BTreeSet<(QualifiedName, String)>,
    collections: BTreeSet<String>,
}

/// Every step of a plan that runs something.
pub fn steps(plan: &Plan) -> impl Iterator<Item = (StepId, &Attempt)> {
    plan.work.iter().flat_map(steps_of)
}

/// Every step of one migration in a plan that runs something.
pub fn steps_of(work: &Work) -> impl Iterator<Item = (StepId, &Attempt)> {
    let attempts = work.actions.iter().filter_map(Action::attempt);
    attempts.map(|it| (StepId { version: work.version, name: it.step.name.clone() }, it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(about(812), "≈812");
        assert_eq!(about(9_999), "≈9,999");
        assert_eq!(about(34_999), "≈34 k");
        assert_eq!(about(1_250_000), "≈1.2 M");
        assert_eq!(about(1_250_000_000), "≈1,250 M");
        assert_eq!(bytes(340 << 20), "340 MB");
        assert_eq!(bytes((3 << 30) / 2), "1.5 GB");
        assert_eq!(size(Some(5), None, "rows"), "≈5 rows");
        assert_eq!(size(None, None, "rows"), "");
    }
}
