//! Hazards of SQL. One file per rule.

mod change_column_type;
mod constraint_without_not_valid;
mod create_trigger;
mod delete_without_where;
mod detach_without_concurrently;
mod domain_constraint;
mod drop_column;
mod drop_database;
mod drop_index_without_concurrently;
mod drop_table;
mod dynamic_sql;
mod enum_value_used;
mod foreign_key_without_not_valid;
mod identifier_too_long;
mod index_without_concurrently;
mod lock_table;
mod prefer_bigint_over_int;
mod prefer_bigint_over_smallint;
mod prefer_identity;
mod prefer_robust_stmts;
mod prefer_text_field;
mod prefer_text_over_char;
mod prefer_timestamptz;
mod primary_key_without_index;
mod refresh_without_concurrently;
mod reindex_without_concurrently;
mod rename_column;
mod rename_table;
mod required_column;
mod rewrite_table;
mod set_not_null;
mod truncate;
mod unique_constraint_without_index;
mod unreadable_sql;
mod update_without_where;
mod volatile_default;
mod work_under_lock;

use super::Rule;

/// In the order of their documentation.
pub(super) const RULES: &[&Rule] = &[
    &index_without_concurrently::RULE,
    &drop_index_without_concurrently::RULE,
    &reindex_without_concurrently::RULE,
    &detach_without_concurrently::RULE,
    &constraint_without_not_valid::RULE,
    &foreign_key_without_not_valid::RULE,
    &unique_constraint_without_index::RULE,
    &primary_key_without_index::RULE,
    &volatile_default::RULE,
    &required_column::RULE,
    &set_not_null::RULE,
    &change_column_type::RULE,
    &rename_column::RULE,
    &rename_table::RULE,
    &drop_column::RULE,
    &drop_table::RULE,
    &truncate::RULE,
    &domain_constraint::RULE,
    &identifier_too_long::RULE,
    &drop_database::RULE,
    &rewrite_table::RULE,
    &lock_table::RULE,
    &update_without_where::RULE,
    &delete_without_where::RULE,
    &refresh_without_concurrently::RULE,
    &create_trigger::RULE,
    &work_under_lock::RULE,
    &enum_value_used::RULE,
    &dynamic_sql::RULE,
    &unreadable_sql::RULE,
    &prefer_bigint_over_int::RULE,
    &prefer_bigint_over_smallint::RULE,
    &prefer_identity::RULE,
    &prefer_text_field::RULE,
    &prefer_text_over_char::RULE,
    &prefer_timestamptz::RULE,
    &prefer_robust_stmts::RULE,
];
