//! Hazards of a migration as a whole. One file per rule.

mod backfill_without_invariant;
mod cleanup_without_invariant;
mod down_forgets;
mod empty_script;
mod irreversible_without_reason;
mod prepare_not_additive;

use super::Rule;

/// In the order of their documentation.
pub(super) const RULES: &[&Rule] = &[
    &cleanup_without_invariant::RULE,
    &prepare_not_additive::RULE,
    &down_forgets::RULE,
    &empty_script::RULE,
    &irreversible_without_reason::RULE,
    &backfill_without_invariant::RULE,
];
