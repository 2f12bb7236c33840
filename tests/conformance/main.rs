//! What every store promises (the doc comments of `Store`), on real servers.
//!
//! `promises` holds of every store: it is written against `Subject`, so that
//! the simulated store can be held to the same. `postgres`, `mongo` and
//! `standalone` hold what only one kind of server can do wrong.

#[path = "../support/mod.rs"]
mod support;

mod subject;

mod promises;

mod postgres;

mod postgres_backfill;

mod mongo;

mod mongo_backfill;

mod copy_to_postgres;

mod copy_to_mongo;

mod rejects;

mod standalone;

mod invariants;

mod proxy;

/// Runs each promise on each store.
macro_rules! on_every_store {
    ($($promise:ident),* $(,)?) => {
        mod postgres_keeps_its_promises {
            $(#[tokio::test]
            async fn $promise() {
                crate::promises::$promise::<crate::postgres::Server>().await;
            })*
        }
        mod mongo_keeps_its_promises {
            $(#[tokio::test]
            async fn $promise() {
                crate::promises::$promise::<crate::mongo::Server>().await;
            })*
        }
    };
}

on_every_store! {
    reading_a_virgin_database_answers_empty_and_creates_nothing,
    founding_creates_the_documented_tables_and_nothing_else,
    founding_again_changes_nothing_and_keeps_the_first_pair,
    twenty_founders_at_once_agree_on_one_pair,
    a_free_lease_is_ours_and_its_fence_grows,
    a_lease_that_is_held_names_its_holder_and_how_long_it_lasts,
    a_lease_that_ran_out_is_ours_and_names_who_died,
    of_twenty_at_once_exactly_one_gets_the_lease,
    a_run_begins_and_ends_its_row,
    a_run_that_comes_back_begins_its_row_anew,
    a_run_that_lost_its_lease_can_write_nothing,
    giving_back_a_lost_lease_is_harmless,
    a_heartbeat_makes_the_lease_last_and_says_when_it_is_lost,
    what_is_written_reads_back_equal,
    every_event_and_attempt_reads_back,
    entries_of_one_call_are_written_together_or_not_at_all,
    of_a_row_only_what_becomes_of_it_in_the_end_is_there,
    a_row_is_replaced_whole,
    nothing_to_write_is_written_without_a_lease,
    a_rollback_script_of_five_megabytes_reads_back,
    what_nobody_of_us_wrote_is_named,
    what_cannot_be_read_is_not_discarded_without_a_lease,
    effect_and_entries_are_there_together,
    a_failing_step_leaves_neither_effect_nor_entries,
    entries_that_are_refused_take_the_effect_with_them,
    a_journaled_step_is_performed_and_held,
}
