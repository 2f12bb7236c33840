//! Invariants: the questions that the engine asks about rows.

use crate::core::step::Timeouts;
use crate::store::{Store, StoreError};
use bson::Bson;

/// So many rows that offend are shown.
pub const SAMPLE_MAX: u16 = 10;

/// A store that can be asked for one value. Nothing here changes anything, and
/// nothing here needs the lease.
#[expect(async_fn_in_trait, reason = "the engine is the only caller, on one task")]
pub trait Invariants: Store {
    /// A question whose answer is one value.
    type Question: ?Sized;

    /// A question for rows.
    type Rows: ?Sized;

    /// The answer: numbers, truths, texts and nothing as they are; what the store
    /// has besides, as the text that it makes of it. A question that has more or
    /// less than one value for an answer is
    /// [`Fate::Refused`](crate::store::Fate::Refused), and the message says so.
    async fn value(
        &mut self,
        question: &Self::Question,
        timeouts: Timeouts,
    ) -> Result<Bson, StoreError>;

    /// The first [`SAMPLE_MAX`] rows, each on one line: `id = 7, role = NULL`.
    async fn rows(
        &mut self,
        question: &Self::Rows,
        timeouts: Timeouts,
    ) -> Result<Vec<String>, StoreError>;
}

/// The rows that offend; why there are none to be seen, if they cannot be read:
/// that the invariant does not hold is what matters.
pub fn shown(rows: Result<Vec<String>, StoreError>) -> Vec<String> {
    rows.unwrap_or_else(|error| vec![format!("(no sample: {})", error.said)])
}
