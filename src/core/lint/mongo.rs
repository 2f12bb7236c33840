//! Hazards of MongoDB scripts. One file per rule.

mod convert_to_capped;
mod drop_collection;
mod filter_without_index;
mod out_overwrites;
mod rename_collection;
mod ttl_index;
mod unbounded_write;
mod unique_index_unchecked;
mod validator_without_warning;
mod weak_write_concern;
mod write_without_filter;

use super::Rule;

/// In the order of their documentation.
pub(super) const RULES: &[&Rule] = &[
    &write_without_filter::RULE,
    &unbounded_write::RULE,
    &unique_index_unchecked::RULE,
    &ttl_index::RULE,
    &rename_collection::RULE,
    &drop_collection::RULE,
    &out_overwrites::RULE,
    &validator_without_warning::RULE,
    &weak_write_concern::RULE,
    &filter_without_index::RULE,
    &convert_to_capped::RULE,
];
