//! To be written.
use crate::core::id::Version;
use crate::core::migration::Rollback;
use crate::core::problem::Problem;
use crate::core::step::Step;
pub fn down_steps(_: Version, _: &str, _: &Rollback) -> Result<Vec<Step>, Vec<Problem>> {
    Ok(vec![])
}
