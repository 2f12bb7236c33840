//! Rows that a backfill puts aside in `migration_rejects`: those that have no form in
//! the other store, and those that the database refuses. Up to `max_bad` of them; one
//! more stops it.

use super::backfill::Job;
use super::copy::BadRow;
use super::{Fate, Said, StoreError};
use crate::core::id::StoreName;
use crate::core::parse::manifest::Work;

/// So many rows are told of when there is one too many.
const TOLD: usize = 3;

/// So much of a row is kept for people.
const SHOWN: usize = 1_000;

/// Which of several rows a store refuses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RefusedRow {
    /// Its place in the page, from 0.
    pub at: usize,
    /// The row.
    pub row: BadRow,
}

/// Whether one row alone can be the cause, so that the rows beside it may be written:
/// values and constraints, not a column that is missing or a lock that is not to be
/// had.
pub fn is_about_a_row(error: &StoreError) -> bool {
    // BadValue, TypeMismatch, PathNotViable, DocumentValidationFailure,
    // ConversionFailure, BSONObjectTooLarge, DuplicateKey
    const CODES: [u32; 7] = [2, 14, 28, 121, 241, 10334, 11000];
    // From here on each place that says no has a code of its own: what cannot be
    // computed, mostly. Below are those of servers that come and go.
    const PLACES: u32 = 14_000;
    // Several rows for one, data exceptions, violated constraints, WITH CHECK OPTION,
    // and what a trigger raises.
    const CLASSES: [&str; 5] = ["21", "22", "23", "44", "P0"];
    let code = error.said.code.as_deref().unwrap_or_default();
    let number = code.rsplit(' ').next().unwrap_or_default();
    let is_listed = match error.store {
        StoreName::Postgres => CLASSES.iter().any(|class| number.starts_with(class)),
        StoreName::Mongo => {
            number.parse().is_ok_and(|number| CODES.contains(&number) || number >= PLACES)
        }
    };
    error.fate == Fate::Refused && is_listed
}

/// What a store has against a row, as it is kept for people.
pub fn reason(error: &StoreError) -> String {
    let Said { message, detail, .. } = &error.said;
    match detail {
        // The row itself is kept beside it.
        Some(detail) if !detail.starts_with("Failing row contains") => {
            format!("{message}; {detail}")
        }
        Some(_) | None => message.clone(),
    }
}

/// A row of a store as it is kept for people.
pub fn shown(row: &str) -> String {
    match row.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &row[..end]),
        None => row.to_owned(),
    }
}

/// The question that shows people what is put aside.
pub fn look(job: Job<'_>) -> String {
    let version = job.record.step.version.0;
    match job.work.store() {
        StoreName::Postgres => {
            format!("SELECT key, reason FROM migration_rejects WHERE version = {version}")
        }
        StoreName::Mongo => format!("db.migration_rejects.find({{ version: {version} }})"),
    }
}

/// Fails when, beside so many that are put aside, these are too many.
///
/// # Errors
/// Which row it is, what is against it, and what to do.
pub fn check(
    job: Job<'_>,
    doing: &'static str,
    aside: u64,
    bad: &[BadRow],
) -> Result<(), StoreError> {
    let more = u64::try_from(bad.len()).unwrap_or(u64::MAX);
    let Some(BadRow { key, row, reason }) = bad.first() else { return Ok(()) };
    if aside.saturating_add(more) <= job.max_bad {
        return Ok(());
    }
    let store = job.work.store();
    let (verb, whose) = match job.work {
        Work::CopyToMongo { .. } => {
            ("copied", "change the row, or convert or leave out its value in the query")
        }
        Work::CopyToPostgres { .. } => {
            ("copied", "change the document, or what `pipeline` makes of it")
        }
        Work::Update { .. } | Work::Sql { .. } | Work::Call { .. } => {
            ("rewritten", "change the row")
        }
        Work::Documents { .. } => ("rewritten", "change the document"),
    };
    let look = look(job);
    let go_on = "then run this again: it goes on where it stopped";
    let (message, hint) = match job.max_bad {
        0 => (
            format!("the row with the key {key} cannot be {verb}: {reason}"),
            format!("{whose}, or have up to N such rows put aside with `max_bad = N`; {go_on}"),
        ),
        max => (
            format!(
                "more rows than `max_bad` ({max}) cannot be {verb}: {aside} are put aside in \
                 migration_rejects, and the one with the key {key} would be the next: {reason}"
            ),
            format!("look at those put aside with {look}; {whose}, or raise `max_bad`; {go_on}"),
        ),
    };
    let mut error = StoreError::new(store, doing, Fate::Refused, message);
    let mut detail = format!("the row is {row}");
    for BadRow { key, reason, .. } in bad.iter().take(TOLD).skip(1) {
        detail.push_str(&format!("; {key}: {reason}"));
    }
    if bad.len() > TOLD {
        detail.push_str(&format!("; and {} more", bad.len() - TOLD));
    }
    error.said.detail = Some(detail);
    error.said.hint = Some(hint);
    Err(error)
}
