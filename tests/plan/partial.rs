//! A run died: every point at which a migration can stop, and what goes on there.

use crate::text::{check, check_each};
use expect_test::expect;

#[test]
fn an_atomic_step_that_left_no_record_runs() {
    check("001 p m", "", "up", &expect!["001 up: run up/postgres/1, run up/mongo/1, seal"]);
}

#[test]
fn it_goes_on_behind_the_last_applied_step() {
    check(
        "001 p m",
        "001 up/postgres/1 applied\nrow 001 running postgres",
        "up",
        &expect!["001 up: run up/mongo/1, seal"],
    );
    check(
        "001 p p* p m m*",
        "001 up/postgres/1 applied\n001 up/postgres/2 started applied\nrow 001 running postgres",
        "up",
        &expect!["001 up: run up/postgres/3, run up/mongo/1, run up/mongo/2, seal"],
    );
}

#[test]
fn it_goes_on_whichever_store_comes_first() {
    check(
        "001 m p | order mongo",
        "001 up/mongo/1 applied\nrow 001 running mongo",
        "up",
        &expect!["001 up: run up/postgres/1, seal"],
    );
}

#[test]
fn a_row_is_not_needed_to_go_on() {
    check_each(
        "001 p m",
        &[
            "001 up/postgres/1 applied",
            "001 up/postgres/1 applied\nrow 001 running mongo",
            "001 up/postgres/1 applied\nrow 001 running both",
        ],
        "up",
        &expect!["001 up: run up/mongo/1, seal"],
    );
}

#[test]
fn the_next_migration_comes_after_the_open_one() {
    check(
        "001 p m\n002 p",
        "001 up/postgres/1 applied\nrow 001 running postgres",
        "up",
        &expect![[r#"
            001 up: run up/mongo/1, seal
            002 up: run up/postgres/1, seal"#]],
    );
}

#[test]
fn an_index_build_in_doubt_is_settled_first() {
    check(
        "001 p m* m",
        "001 up/postgres/1 applied\n001 up/mongo/1 started",
        "up",
        &expect!["001 up: settle up/mongo/1, run up/mongo/2, seal"],
    );
    check(
        "001 p p* m",
        "001 up/postgres/1 applied\n001 up/postgres/2 started",
        "up",
        &expect!["001 up: settle up/postgres/2, run up/mongo/1, seal"],
    );
}

#[test]
fn the_very_first_step_may_be_in_doubt() {
    check(
        "001 p* m",
        "001 up/postgres/1 started\nrow 001 running postgres",
        "up",
        &expect!["001 up: settle up/postgres/1, run up/mongo/1, seal"],
    );
    check(
        "001 p\n002 m*",
        "001 done\n002 up/mongo/1 started",
        "up",
        &expect!["002 up: settle up/mongo/1, seal"],
    );
}

#[test]
fn the_very_last_step_may_be_in_doubt() {
    check(
        "001 p m*",
        "001 up/postgres/1 applied\n001 up/mongo/1 started",
        "up",
        &expect!["001 up: settle up/mongo/1, seal"],
    );
}

#[test]
fn progress_alone_is_in_doubt() {
    check(
        "001 m* p",
        "001 up/mongo/1 started progress",
        "up",
        &expect!["001 up: settle up/mongo/1, run up/postgres/1, seal"],
    );
}

#[test]
fn events_add_up_in_any_order() {
    check_each(
        "001 p* m",
        &[
            "001 up/postgres/1 started applied",
            "001 up/postgres/1 applied started",
            "001 up/postgres/1 applied",
        ],
        "up",
        &expect!["001 up: run up/mongo/1, seal"],
    );
}

#[test]
fn a_statement_that_the_server_refused_is_tried_again_as_the_next_attempt() {
    check(
        "001 p* m",
        "001 up/postgres/1 started reverted",
        "up",
        &expect!["001 up: run up/postgres/1#2, run up/mongo/1#2, seal"],
    );
    check(
        "001 p m* m",
        "001 up/postgres/1 applied\n001 up/mongo/1 started reverted\nrow 001 running both",
        "up",
        &expect!["001 up: run up/mongo/1#2, run up/mongo/2, seal"],
    );
}

#[test]
fn attempts_of_a_refused_statement_grow() {
    check(
        "001 p m*",
        "001 up/postgres/1 applied\n001 up/mongo/1 started reverted\n001 up/mongo/1#2 started reverted",
        "up",
        &expect!["001 up: run up/mongo/1#3, seal"],
    );
    check(
        "001 p m*",
        "001 up/postgres/1 applied\n001 up/mongo/1 started reverted\n001 up/mongo/1#2 started",
        "up",
        &expect!["001 up: settle up/mongo/1#2, seal"],
    );
}

#[test]
fn a_settled_step_keeps_its_attempt_beside_older_lives() {
    check(
        "001 p m*",
        "001 up/postgres/1 applied reverting reverted\n001 up/mongo/1 started applied reverting reverted\n001 up/postgres/1#2 applied\n001 up/mongo/1#2 started",
        "up",
        &expect!["001 up: settle up/mongo/1#2, seal"],
    );
}

#[test]
fn the_rest_of_a_second_life_belongs_to_it() {
    check(
        "001 p m",
        "001 up/postgres/1 applied reverting reverted\n001 up/mongo/1 applied reverting reverted\n001 up/postgres/1#2 applied rank=2",
        "up",
        &expect!["001 up: run up/mongo/1#2, seal"],
    );
}

#[test]
fn a_seal_that_is_missing_is_written_and_nothing_else() {
    check_each(
        "001 p m",
        &[
            "001 up/postgres/1 applied\n001 up/mongo/1 applied",
            "001 up/postgres/1 applied\n001 up/mongo/1 applied\nrow 001 running both",
            "001 up/postgres/1 applied\n001 up/mongo/1 applied\nrow 001 completed postgres",
            "001 up/postgres/1 applied\n001 up/mongo/1 applied\nrow 001 completed mongo",
            "001 up/postgres/1 applied\n001 up/mongo/1 applied\nrow 001 completed postgres\nrow 001 running mongo",
            "001 up/postgres/1 applied\n001 up/mongo/1 applied\nrow 001 running postgres\nrow 001 completed mongo",
        ],
        "up",
        &expect!["001 up: seal"],
    );
}

#[test]
fn seals_of_several_migrations_may_be_behind() {
    check(
        "001 p\n002 p\n003 p m",
        "001 up/postgres/1 applied\nrow 001 completed postgres\n002 up/postgres/1 applied\nrow 002 completed postgres\n003 up/postgres/1 applied\nrow 003 running postgres",
        "up",
        &expect![[r#"
            001 up: seal
            002 up: seal
            003 up: run up/mongo/1, seal"#]],
    );
}

#[test]
fn a_missing_seal_below_newer_migrations_is_no_gap() {
    check("001 p\n002 p", "001 up/postgres/1 applied\n002 done", "up", &expect!["001 up: seal"]);
}

#[test]
fn a_missing_seal_is_written_whatever_the_limit() {
    check(
        "001 p\n002 p",
        "001 done\n002 up/postgres/1 applied\nrow 002 running postgres",
        "up --to 1",
        &expect!["002 up: seal"],
    );
    check(
        "001 p\n002 p",
        "001 up/postgres/1 applied\nrow 001 running postgres",
        "up --steps 0",
        &expect!["001 up: seal"],
    );
}

#[test]
fn a_held_row_of_what_has_nothing_to_hold_is_sealed() {
    check("001 p", "001 up/postgres/1 applied\nrow 001 held both", "up", &expect!["001 up: seal"]);
}

#[test]
fn up_to_below_the_open_migration_leaves_it_alone() {
    check(
        "001 p\n002 p m",
        "001 done\n002 up/postgres/1 applied\nrow 002 running postgres",
        "up --to 1",
        &expect!["nothing"],
    );
}

#[test]
fn an_open_migration_is_finished_before_another_begins() {
    check(
        "001 p\n002 p m",
        "002 up/postgres/1 applied\nrow 002 running postgres",
        "up --to 1 --allow-out-of-order",
        &expect![[r#"
            002 up: run up/mongo/1, seal
            001 up: run up/postgres/1, seal"#]],
    );
    check(
        "001 p\n002 p m",
        "002 up/postgres/1 applied\nrow 002 running postgres",
        "up --to 1 --steps 1 --allow-out-of-order",
        &expect!["002 up: run up/mongo/1, seal"],
    );
}

#[test]
fn on_a_standalone_server_a_document_write_can_be_in_doubt() {
    check(
        "with standalone\n001 p m m",
        "001 up/postgres/1 applied\n001 up/mongo/1 started",
        "up",
        &expect!["001 up: settle up/mongo/1, run up/mongo/2, seal"],
    );
}

#[test]
fn a_write_in_doubt_is_settled_after_the_server_became_a_replica_set() {
    check(
        "001 p m m",
        "001 up/postgres/1 applied\n001 up/mongo/1 started",
        "up",
        &expect!["001 up: settle up/mongo/1, run up/mongo/2, seal"],
    );
}

#[test]
fn an_atomic_step_that_was_only_started_was_torn_by_hand() {
    check(
        "001 p m",
        "001 up/postgres/1 started",
        "up",
        &expect![[r#"
            error: step 001/up/postgres/1 is recorded as started, although it can only be recorded together with its effect
            hint: somebody changed the history by hand; if its effect is there, `migrate repair --mark-applied 001/up/postgres/1`; if it is not, `migrate repair --mark-reverted 001/up/postgres/1`, and `migrate up` runs it"#]],
    );
    check(
        "001 p\n002 p p* p",
        "001 done\n002 up/postgres/1 applied\n002 up/postgres/2 started applied\n002 up/postgres/3 started",
        "up",
        &expect![[r#"
            error: step 002/up/postgres/3 is recorded as started, although it can only be recorded together with its effect
            hint: somebody changed the history by hand; if its effect is there, `migrate repair --mark-applied 002/up/postgres/3`; if it is not, `migrate repair --mark-reverted 002/up/postgres/3`, and `migrate up` runs it"#]],
    );
}

#[test]
fn a_torn_step_beyond_the_limit_stops_nobody() {
    check("001 p\n002 p", "001 done\n002 up/postgres/1 started", "up --to 1", &expect!["nothing"]);
}
