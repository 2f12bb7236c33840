//! A `down` that died, at every point: `down` again finishes it, and so does `up`,
//! which then applies the migration again.

use crate::text::{check, check_each};
use expect_test::expect;

/// The same history, down and up.
#[track_caller]
fn both_ways(files: &str, history: &str, down: &expect_test::Expect, up: &expect_test::Expect) {
    check(files, history, "down", down);
    check(files, history, "up", up);
}

const FILES: &str = "001 p m";

#[test]
fn it_died_before_it_was_announced_anywhere() {
    both_ways(
        FILES,
        "001 done",
        &expect![
            "001 down: intend mongo, intend postgres, run down/mongo/1, close mongo, run down/postgres/1, close postgres, unseal"
        ],
        &expect!["nothing"],
    );
}

#[test]
fn it_died_between_the_announcements() {
    both_ways(
        FILES,
        "001 up/postgres/1 applied\n001 up/mongo/1 applied reverting\nrow 001 completed postgres\nrow 001 running mongo",
        &expect![
            "001 down: intend postgres, run down/mongo/1, close mongo, run down/postgres/1, close postgres, unseal"
        ],
        &expect![[r#"
            001 down: intend postgres, run down/mongo/1, close mongo, run down/postgres/1, close postgres, unseal
            001 up: run up/postgres/1#2, run up/mongo/1#2, seal"#]],
    );
}

#[test]
fn it_died_after_the_announcements() {
    both_ways(
        FILES,
        "001 up/postgres/1 applied reverting\n001 up/mongo/1 applied reverting\nrow 001 running both",
        &expect![
            "001 down: run down/mongo/1, close mongo, run down/postgres/1, close postgres, unseal"
        ],
        &expect![[r#"
            001 down: run down/mongo/1, close mongo, run down/postgres/1, close postgres, unseal
            001 up: run up/postgres/1#2, run up/mongo/1#2, seal"#]],
    );
}

#[test]
fn it_died_in_a_journaled_down_step() {
    both_ways(
        FILES,
        "001 up/postgres/1 applied reverting\n001 up/mongo/1 applied reverting\n001 down/mongo/1 started",
        &expect![
            "001 down: settle down/mongo/1, close mongo, run down/postgres/1, close postgres, unseal"
        ],
        &expect![[r#"
            001 down: settle down/mongo/1, close mongo, run down/postgres/1, close postgres, unseal
            001 up: run up/postgres/1#2, run up/mongo/1#2, seal"#]],
    );
}

#[test]
fn it_died_between_the_down_steps() {
    both_ways(
        FILES,
        "001 up/postgres/1 applied reverting\n001 up/mongo/1 applied reverting\n001 down/mongo/1 started applied",
        &expect!["001 down: close mongo, run down/postgres/1, close postgres, unseal"],
        &expect![[r#"
            001 down: close mongo, run down/postgres/1, close postgres, unseal
            001 up: run up/postgres/1#2, run up/mongo/1#2, seal"#]],
    );
}

#[test]
fn it_died_between_the_down_steps_of_one_script() {
    both_ways(
        "001 p | down p p* p",
        "001 up/postgres/1 applied reverting\n001 down/postgres/1 applied\nrow 001 running both",
        &expect!["001 down: run down/postgres/2, run down/postgres/3, close postgres, unseal"],
        &expect![[r#"
            001 down: run down/postgres/2, run down/postgres/3, close postgres, unseal
            001 up: run up/postgres/1#2, seal"#]],
    );
}

#[test]
fn it_died_when_one_store_was_reverted() {
    both_ways(
        FILES,
        "001 up/postgres/1 applied reverting\n001 up/mongo/1 applied reverting reverted\n001 down/mongo/1 started applied",
        &expect!["001 down: run down/postgres/1, close postgres, unseal"],
        &expect![[r#"
            001 down: run down/postgres/1, close postgres, unseal
            001 up: run up/postgres/1#2, run up/mongo/1#2, seal"#]],
    );
}

#[test]
fn it_died_after_the_last_down_step() {
    both_ways(
        FILES,
        "001 up/postgres/1 applied reverting\n001 up/mongo/1 applied reverting reverted\n001 down/mongo/1 started applied\n001 down/postgres/1 applied\nrow 001 running both",
        &expect!["001 down: close postgres, unseal"],
        &expect![[r#"
            001 down: close postgres, unseal
            001 up: run up/postgres/1#2, run up/mongo/1#2, seal"#]],
    );
}

#[test]
fn it_died_when_postgres_had_closed_and_mongo_had_not() {
    both_ways(
        FILES,
        "001 up/postgres/1 applied reverting reverted\n001 up/mongo/1 applied reverting\n001 down/mongo/1 started applied\n001 down/postgres/1 applied\nrow 001 running mongo",
        &expect!["001 down: close mongo, unseal"],
        &expect![[r#"
            001 down: close mongo, unseal
            001 up: run up/postgres/1#2, run up/mongo/1#2, seal"#]],
    );
}

#[test]
fn it_died_when_only_a_row_was_left() {
    // The store without a part of it still has the row as it was.
    for row in ["completed", "running"] {
        both_ways(
            "001 p",
            &format!(
                "001 up/postgres/1 applied reverting reverted\n001 down/postgres/1 applied\nrow 001 {row} mongo"
            ),
            &expect!["001 down: unseal"],
            &expect!["001 up: run up/postgres/1#2, seal"],
        );
    }
}

#[test]
fn a_row_that_was_left_is_all_that_the_same_command_removes() {
    check_each(
        "001 p\n002 p",
        &[
            "001 done\n002 up/postgres/1 applied reverting reverted\nrow 002 completed mongo",
            "001 done\n002 up/postgres/1 applied reverting reverted\nrow 002 running mongo",
            "001 done\n002 up/postgres/1 applied reverting reverted\nrow 002 running both",
        ],
        "down",
        &expect!["002 down: unseal"],
    );
}

#[test]
fn a_row_that_was_left_is_no_seal_of_the_next_life() {
    // The second life of 002 died at its second step.
    check(
        "001 p\n002 p p*",
        "001 done\n002 up/postgres/1 applied reverting reverted\n002 up/postgres/2 applied reverting reverted\nrow 002 completed mongo\n002 up/postgres/1#2 applied rank=3\nrow 002 running postgres rank=3",
        "up",
        &expect!["002 up: run up/postgres/2#2, seal"],
    );
    // It died before its seal had reached both stores.
    for status in ["running", "completed"] {
        check(
            "001 p\n002 p",
            &format!(
                "001 done\n002 up/postgres/1 applied reverting reverted\nrow 002 completed mongo\n002 up/postgres/1#2 applied rank=3\nrow 002 {status} postgres rank=3"
            ),
            "up",
            &expect!["002 up: seal"],
        );
    }
}

#[test]
fn a_row_that_was_left_does_not_hide_a_late_file() {
    check(
        "001 p\n002 p",
        "001 up/postgres/1 applied reverting reverted\nrow 001 completed mongo\n002 done rank=3",
        "up",
        &expect![[r#"
            error: 001 is not applied, but newer 002 is
            hint: give it a number above the newest applied one, or apply it now with `--allow-out-of-order`"#]],
    );
}

#[test]
fn a_row_that_was_left_of_a_version_without_a_file_is_no_matter_to_up() {
    check(
        "001 p",
        "001 done\n002 up/postgres/1 applied reverting reverted\nrow 002 completed mongo",
        "up",
        &expect!["nothing"],
    );
}

#[test]
fn several_migrations_were_on_the_way_back() {
    check(
        "001 p\n002 p\n003 p",
        "001 done\n002 done\n003 up/postgres/1 applied reverting\nrow 003 running postgres",
        "down --to 1",
        &expect![[r#"
            003 down: run down/postgres/1, close postgres, unseal
            002 down: intend postgres, run down/postgres/1, close postgres, unseal"#]],
    );
}

#[test]
fn up_finishes_the_revert_with_the_stored_scripts() {
    check(
        "001 p~new | down p p* | folder~new",
        "001 up/postgres/1 applied reverting ~old\nrow 001 running both\nstored 001 p",
        "up",
        &expect![[r#"
            001 down: run down/postgres/1, close postgres, unseal
            001 up: run up/postgres/1#2, seal"#]],
    );
}

#[test]
fn an_edit_does_not_matter_while_the_migration_is_on_its_way_back() {
    check(
        "001 m~new | folder~new",
        "001 up/postgres/1 applied reverting ~old\nrow 001 running both\nstored 001 p",
        "up",
        &expect![[r#"
            001 down: run down/postgres/1, close postgres, unseal
            001 up: run up/mongo/1#2, seal"#]],
    );
}

#[test]
fn an_irreversible_migration_cannot_have_begun_to_revert_but_up_finishes_it() {
    check(
        "001 p | irreversible because",
        "001 up/postgres/1 applied reverting\nrow 001 running both\nstored 001 p",
        "up",
        &expect![[r#"
            001 down: run down/postgres/1, close postgres, unseal
            001 up: run up/postgres/1#2, seal"#]],
    );
}

#[test]
fn a_revert_and_what_follows_is_one_step() {
    check(
        "001 p\n002 p",
        "001 up/postgres/1 applied reverting\nrow 001 running both",
        "up --steps 1",
        &expect![[r#"
            001 down: run down/postgres/1, close postgres, unseal
            001 up: run up/postgres/1#2, seal"#]],
    );
}

#[test]
fn up_to_below_what_is_on_its_way_back_leaves_it_alone() {
    check(
        "001 p\n002 p",
        "001 done\n002 up/postgres/1 applied reverting\nrow 002 running both",
        "up --to 1",
        &expect!["nothing"],
    );
}

#[test]
fn the_new_life_comes_after_everything_that_was() {
    check(
        "001 p\n002 p\n003 p",
        "001 done\n002 up/postgres/1 applied reverting\nrow 002 running both",
        "up",
        &expect![[r#"
            002 down: run down/postgres/1, close postgres, unseal
            002 up: run up/postgres/1#2, seal
            003 up: run up/postgres/1, seal"#]],
    );
}

#[test]
fn a_down_statement_that_the_server_refused_is_tried_again_as_the_next_attempt() {
    check(
        "001 m | down m m* m",
        "001 up/mongo/1 applied reverting\n001 down/mongo/1 applied\n001 down/mongo/2 started reverted\nrow 001 running both",
        "down",
        &expect!["001 down: run down/mongo/2#2, run down/mongo/3, close mongo, unseal"],
    );
}

#[test]
fn what_was_undone_before_the_refused_statement_is_not_undone_again() {
    check(
        "001 m | down m m* m",
        "001 up/mongo/1 applied reverting\n001 down/mongo/1 applied\n001 down/mongo/2 started reverted\n001 down/mongo/2#2 started\nrow 001 running both",
        "down",
        &expect!["001 down: settle down/mongo/2#2, run down/mongo/3, close mongo, unseal"],
    );
    check(
        "001 m | down m m* m",
        "001 up/mongo/1 applied reverting\n001 down/mongo/1 applied\n001 down/mongo/2 started reverted\n001 down/mongo/2#2 started applied\nrow 001 running both",
        "down",
        &expect!["001 down: run down/mongo/3, close mongo, unseal"],
    );
}

#[test]
fn the_new_life_is_an_attempt_above_those_of_the_down_steps() {
    check(
        "001 m | down m m*",
        "001 up/mongo/1 applied reverting\n001 down/mongo/1 applied\n001 down/mongo/2 started reverted\nrow 001 running both",
        "up",
        &expect![[r#"
            001 down: run down/mongo/2#2, close mongo, unseal
            001 up: run up/mongo/1#3, seal"#]],
    );
}

#[test]
fn an_older_revert_is_not_mistaken_for_this_one() {
    check(
        "001 p",
        "001 up/postgres/1 applied reverting reverted\n001 down/postgres/1 applied\n001 up/postgres/1#2 applied reverting rank=2\nrow 001 running both rank=2",
        "down",
        &expect!["001 down: run down/postgres/1#2, close postgres, unseal"],
    );
}

#[test]
fn mongo_was_restored_while_postgres_was_reverted() {
    both_ways(
        FILES,
        "001 up/postgres/1 applied reverting reverted\n001 down/postgres/1 applied\n001 up/mongo/1 applied\nrow 001 completed mongo",
        &expect![[r#"
            error: MongoDB lacks step 001/down/mongo/1, although up/postgres/1 of the same migration was reverted: no run of migrate leaves that behind, a restored backup does
            hint: if MongoDB was restored from an older backup, `migrate repair --replay mongo` reverts there what the other store has reverted"#]],
        &expect![[r#"
            error: MongoDB lacks step 001/down/mongo/1, although up/postgres/1 of the same migration was reverted: no run of migrate leaves that behind, a restored backup does
            hint: if MongoDB was restored from an older backup, `migrate repair --replay mongo` reverts there what the other store has reverted"#]],
    );
}

#[test]
fn postgres_was_restored_while_mongo_was_reverted() {
    both_ways(
        FILES,
        "001 up/postgres/1 applied\nrow 001 completed postgres\n001 up/mongo/1 applied reverting reverted\n001 down/mongo/1 started applied",
        &expect![[r#"
            error: Postgres lacks step 001/down/postgres/1, although up/mongo/1 of the same migration was reverted: no run of migrate leaves that behind, a restored backup does
            hint: if Postgres was restored from an older backup, `migrate repair --replay postgres` reverts there what the other store has reverted"#]],
        &expect![[r#"
            error: Postgres lacks step 001/down/postgres/1, although up/mongo/1 of the same migration was reverted: no run of migrate leaves that behind, a restored backup does
            hint: if Postgres was restored from an older backup, `migrate repair --replay postgres` reverts there what the other store has reverted"#]],
    );
}

#[test]
fn a_restored_store_is_found_although_the_files_are_gone() {
    check(
        "",
        "001 up/postgres/1 applied\nrow 001 completed postgres\n001 up/mongo/1 applied reverting reverted\nstored 001 p m",
        "down",
        &expect![[r#"
            error: Postgres lacks step 001/down/postgres/1, although up/mongo/1 of the same migration was reverted: no run of migrate leaves that behind, a restored backup does
            hint: if Postgres was restored from an older backup, `migrate repair --replay postgres` reverts there what the other store has reverted"#]],
    );
}

#[test]
fn a_store_that_was_restored_to_before_the_migration_has_nothing_to_revert() {
    check(
        FILES,
        "001 up/mongo/1 applied reverting\nrow 001 running mongo",
        "down",
        &expect!["001 down: run down/mongo/1, close mongo, unseal"],
    );
}

#[test]
fn a_second_life_that_was_begun_is_no_torn_revert() {
    both_ways(
        "001 p m",
        "001 up/postgres/1 applied reverting reverted\n001 up/mongo/1 applied reverting reverted\n001 up/postgres/1#2 applied rank=2\nrow 001 running postgres rank=2",
        &expect!["001 down: intend postgres, run down/postgres/1#2, close postgres, unseal"],
        &expect!["001 up: run up/mongo/1#2, seal"],
    );
}

#[test]
fn what_is_applied_above_a_migration_on_its_way_back_is_a_gap() {
    check(
        "001 p\n002 p",
        "001 up/postgres/1 applied reverting\n002 done",
        "up",
        &expect![[r#"
            error: Postgres lacks step 001/up/postgres/1, although the later step 002/up/postgres/1 is recorded in Postgres: neither a run of migrate nor a backup leaves that behind, somebody changed the history by hand
            hint: if its effect is there, `migrate repair --mark-applied 001/up/postgres/1 --store postgres` records it; if it is not, `migrate repair --replay postgres` runs there what is lacking"#]],
    );
}

#[test]
fn an_atomic_down_step_that_was_only_started_was_torn_by_hand() {
    both_ways(
        "001 p",
        "001 up/postgres/1 applied reverting\n001 down/postgres/1 started\nrow 001 running both",
        &expect![[r#"
            error: step 001/down/postgres/1 is recorded as started, although it can only be recorded together with its effect
            hint: somebody changed the history by hand; if its effect is there, `migrate repair --mark-applied 001/down/postgres/1`; if it is not, `migrate repair --mark-reverted 001/down/postgres/1`, and `migrate up` runs it"#]],
        &expect![[r#"
            error: step 001/down/postgres/1 is recorded as started, although it can only be recorded together with its effect
            hint: somebody changed the history by hand; if its effect is there, `migrate repair --mark-applied 001/down/postgres/1`; if it is not, `migrate repair --mark-reverted 001/down/postgres/1`, and `migrate up` runs it"#]],
    );
}

#[test]
fn on_a_standalone_server_a_down_write_can_be_in_doubt() {
    check(
        "with standalone\n001 m | down m",
        "001 up/mongo/1 applied reverting\n001 down/mongo/1 started\nrow 001 running both",
        "down",
        &expect!["001 down: settle down/mongo/1, close mongo, unseal"],
    );
}

#[test]
fn a_down_write_in_doubt_is_settled_after_the_server_became_a_replica_set() {
    check(
        "001 m | down m",
        "001 up/mongo/1 applied reverting\n001 down/mongo/1 started\nrow 001 running both",
        "down",
        &expect!["001 down: settle down/mongo/1, close mongo, unseal"],
    );
}

/// Postgres had closed 001, and MongoDB had not closed 002.
const TWO_CLOSING: &str = "001 up/postgres/1 applied reverting reverted\n001 down/postgres/1 applied\n002 up/mongo/1 applied reverting\n002 down/mongo/1 started applied\nrow 002 running mongo";

#[test]
fn what_is_on_its_way_back_does_not_make_what_is_below_it_late() {
    check(
        "001 p\n002 m",
        TWO_CLOSING,
        "up",
        &expect![[r#"
            002 down: close mongo, unseal
            001 up: run up/postgres/1#2, seal
            002 up: run up/mongo/1#2, seal"#]],
    );
}

#[test]
fn what_is_on_its_way_back_is_reverted_before_anything_is_applied() {
    check(
        "001 p\n002 m",
        TWO_CLOSING,
        "up --to 1",
        &expect![[r#"
            002 down: close mongo, unseal
            001 up: run up/postgres/1#2, seal"#]],
    );
    check(
        "001 p\n002 m",
        TWO_CLOSING,
        "up --steps 1",
        &expect![[r#"
            002 down: close mongo, unseal
            001 up: run up/postgres/1#2, seal"#]],
    );
}

#[test]
fn what_a_newer_release_began_to_revert_is_finished_before_anything_is_applied() {
    check(
        "001 p",
        &format!("{TWO_CLOSING}\nstored 002 m*"),
        "up",
        &expect![[r#"
            ahead: 002
            002 down: close mongo, unseal
            001 up: run up/postgres/1#2, seal"#]],
    );
}

#[test]
fn several_migrations_on_their_way_back_are_reverted_newest_first() {
    check(
        "001 p\n002 m",
        "001 up/postgres/1 applied reverting\n002 up/mongo/1 applied reverting\n002 down/mongo/1 started applied\nrow 001 running postgres\nrow 002 running mongo",
        "up",
        &expect![[r#"
            002 down: close mongo, unseal
            001 down: run down/postgres/1, close postgres, unseal
            001 up: run up/postgres/1#2, seal
            002 up: run up/mongo/1#2, seal"#]],
    );
}

#[test]
fn a_version_on_its_way_back_without_a_file_is_missing() {
    check(
        "001 p\n003 p",
        "001 done\n002 up/postgres/1 applied reverting\nrow 002 running both",
        "up",
        &expect![[r#"
            error: 002 is applied, but no longer in the migrations folder
            hint: restore the folder from version control; if it is meant to be gone, `--allow-out-of-order`; if nothing of it was ever there, `migrate repair --mark-reverted 002`"#]],
    );
}
