//! Which tables and collections a step touches.

use crate::core::step::Step;

/// Whether two parts of migrations touch the same.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Overlap {
    /// They do not.
    Disjoint,
    /// They do: these.
    Shared(Vec<String>),
    /// Nobody can say: why.
    Unknown(String),
}

/// Whether what comes later may begin before a cleanup is done.
pub fn overlap(_cleanup: &[&Step], _later: &[&Step]) -> Overlap {
    Overlap::Unknown("nobody knows yet what they touch".to_owned())
}
