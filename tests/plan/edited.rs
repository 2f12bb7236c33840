//! Files that are no longer what was applied, and those that may be.

use crate::text::{check, check_each};
use expect_test::expect;

#[test]
fn an_applied_step_of_a_finished_migration_may_not_change() {
    check(
        "001 p~new m | folder~new",
        "001 up/postgres/1 applied ~old\n001 up/mongo/1 applied folder~old\nrow 001 completed both folder~old",
        "up",
        &expect![[r#"
            error: step up/postgres/1 of 001-name was edited after it was applied (recorded <old>, file <new>)
            hint: restore the file as it was, and put the change into a new migration; if the edit does not matter, `migrate repair --accept-checksum 001`"#]],
    );
}

#[test]
fn the_second_store_is_compared_too() {
    check(
        "001 p m~new | folder~new",
        "001 done folder~old\n001 up/mongo/1 applied ~old",
        "up",
        &expect![[r#"
            error: step up/mongo/1 of 001-name was edited after it was applied (recorded <old>, file <new>)
            hint: restore the file as it was, and put the change into a new migration; if the edit does not matter, `migrate repair --accept-checksum 001`"#]],
    );
}

#[test]
fn other_text_of_a_finished_migration_may_not_change() {
    check(
        "001 p m | folder~new",
        "001 done folder~old",
        "up",
        &expect![[r#"
        error: a file of 001-name was edited after it was applied (recorded <old>, file <new>)
        hint: restore the file as it was, and put the change into a new migration; if the edit does not matter, `migrate repair --accept-checksum 001`"#]],
    );
}

#[test]
fn an_edit_is_found_although_one_seal_is_missing() {
    check_each(
        "001 p m | folder~new",
        &[
            "001 up/postgres/1 applied folder~old\n001 up/mongo/1 applied folder~old\nrow 001 completed postgres folder~old",
            "001 up/postgres/1 applied folder~old\n001 up/mongo/1 applied folder~old\nrow 001 completed mongo folder~old",
        ],
        "up",
        &expect![[r#"
            error: a file of 001-name was edited after it was applied (recorded <old>, file <new>)
            hint: restore the file as it was, and put the change into a new migration; if the edit does not matter, `migrate repair --accept-checksum 001`"#]],
    );
}

#[test]
fn an_edit_is_found_below_newer_migrations() {
    check(
        "001 p~new | folder~new\n002 p\n003 p",
        "001 done ~old\n002 done",
        "up",
        &expect![[r#"
            error: step up/postgres/1 of 001-name was edited after it was applied (recorded <old>, file <new>)
            hint: restore the file as it was, and put the change into a new migration; if the edit does not matter, `migrate repair --accept-checksum 001`"#]],
    );
}

#[test]
fn an_edit_is_found_whatever_the_limit() {
    check(
        "001 p\n002 p~new | folder~new\n003 p",
        "001 done\n002 done ~old",
        "up --to 1",
        &expect![[r#"
            error: step up/postgres/1 of 002-name was edited after it was applied (recorded <old>, file <new>)
            hint: restore the file as it was, and put the change into a new migration; if the edit does not matter, `migrate repair --accept-checksum 002`"#]],
    );
}

#[test]
fn allowing_out_of_order_does_not_allow_edits() {
    check(
        "001 p~new | folder~new",
        "001 done ~old",
        "up --allow-out-of-order",
        &expect![[r#"
        error: step up/postgres/1 of 001-name was edited after it was applied (recorded <old>, file <new>)
        hint: restore the file as it was, and put the change into a new migration; if the edit does not matter, `migrate repair --accept-checksum 001`"#]],
    );
}

#[test]
fn a_step_may_not_go_after_it_was_applied() {
    check(
        "001 p | folder~new",
        "001 up/postgres/1 applied folder~old\n001 up/mongo/1 applied folder~old\nrow 001 completed both folder~old",
        "up",
        &expect![[r#"
            error: step up/mongo/1 of 001-name was edited after it was applied (recorded <the text>, file none)
            hint: restore the file as it was, and put the change into a new migration; if the edit does not matter, `migrate repair --accept-checksum 001`"#]],
    );
}

#[test]
fn a_step_may_not_come_after_the_migration_was_finished() {
    check(
        "001 p m | folder~new",
        "001 up/postgres/1 applied folder~old\nrow 001 completed both folder~old",
        "up",
        &expect![[r#"
            error: a file of 001-name was edited after it was applied (recorded <old>, file <new>)
            hint: restore the file as it was, and put the change into a new migration; if the edit does not matter, `migrate repair --accept-checksum 001`"#]],
    );
}

#[test]
fn an_edit_is_told_before_the_gap_that_it_looks_like() {
    check(
        "001 p m | folder~new\n002 p",
        "001 up/postgres/1 applied folder~old\nrow 001 completed both folder~old\n002 done",
        "up",
        &expect![[r#"
            error: a file of 001-name was edited after it was applied (recorded <old>, file <new>)
            hint: restore the file as it was, and put the change into a new migration; if the edit does not matter, `migrate repair --accept-checksum 001`"#]],
    );
}

#[test]
fn what_follows_the_applied_steps_of_an_open_migration_may_change() {
    check(
        "001 p m~new m | folder~new",
        "001 up/postgres/1 applied folder~old\nrow 001 running postgres folder~old",
        "up",
        &expect!["001 up: run up/mongo/1, run up/mongo/2, seal"],
    );
}

#[test]
fn an_applied_step_of_an_open_migration_may_not_change() {
    check(
        "001 p~new m | folder~new",
        "001 up/postgres/1 applied ~old\nrow 001 running postgres",
        "up",
        &expect![[r#"
            error: step up/postgres/1 of 001-name was edited after it was applied (recorded <old>, file <new>)
            hint: restore the file as it was, and put the change into a new migration; if the edit does not matter, `migrate repair --accept-checksum 001`"#]],
    );
}

#[test]
fn an_applied_step_of_an_open_migration_may_not_go() {
    check(
        "001 m | folder~new",
        "001 up/postgres/1 applied folder~old",
        "up",
        &expect![[r#"
        error: step up/postgres/1 of 001-name was edited after it was applied (recorded <the text>, file none)
        hint: restore the file as it was, and put the change into a new migration; if the edit does not matter, `migrate repair --accept-checksum 001`"#]],
    );
}

#[test]
fn a_refused_statement_may_be_mended() {
    check(
        "001 p m*~new | folder~new",
        "001 up/postgres/1 applied folder~old\n001 up/mongo/1 started reverted ~old\nrow 001 running both folder~old",
        "up",
        &expect!["001 up: run up/mongo/1#2, seal"],
    );
}

#[test]
fn a_refused_statement_may_become_one_of_another_kind() {
    check(
        "001 p m~new | folder~new",
        "001 up/postgres/1 applied folder~old\n001 up/mongo/1 started reverted ~old",
        "up",
        &expect!["001 up: run up/mongo/1#2, seal"],
    );
}

#[test]
fn a_refused_statement_may_go() {
    check(
        "001 p | folder~new",
        "001 up/postgres/1 applied folder~old\n001 up/mongo/1 started reverted ~old\nrow 001 running both folder~old",
        "up",
        &expect!["001 up: accept, seal"],
    );
}

#[test]
fn a_step_in_doubt_may_not_be_mended_before_it_is_settled() {
    check(
        "001 p m*~new m | folder~new",
        "001 up/postgres/1 applied folder~old\n001 up/mongo/1 started ~old\nrow 001 running both folder~old",
        "up",
        &expect![[r#"
            error: step up/mongo/1 of 001-name was edited while it is in doubt (started <old>, file <new>)
            hint: only its old text tells what is left of it: restore the text and run `migrate up` again, which settles the step, and edit it then; or look at MongoDB, and when nothing of the step is there, `migrate repair --mark-reverted 001/up/mongo/1 --store mongo`"#]],
    );
}

#[test]
fn a_step_in_doubt_may_not_become_one_that_cannot_be_settled() {
    check(
        "001 p~new m | folder~new",
        "001 up/postgres/1 started ~old",
        "up",
        &expect![[r#"
            error: step up/postgres/1 of 001-name was edited while it is in doubt (started <old>, file <new>)
            hint: only its old text tells what is left of it: restore the text and run `migrate up` again, which settles the step, and edit it then; or look at Postgres, and when nothing of the step is there, `migrate repair --mark-reverted 001/up/postgres/1 --store postgres`"#]],
    );
}

#[test]
fn a_step_in_doubt_may_not_become_a_document_write() {
    check(
        "001 p m~new | folder~new",
        "001 up/postgres/1 applied folder~old\n001 up/mongo/1 started ~old",
        "up",
        &expect![[r#"
            error: step up/mongo/1 of 001-name was edited while it is in doubt (started <old>, file <new>)
            hint: only its old text tells what is left of it: restore the text and run `migrate up` again, which settles the step, and edit it then; or look at MongoDB, and when nothing of the step is there, `migrate repair --mark-reverted 001/up/mongo/1 --store mongo`"#]],
    );
}

#[test]
fn a_step_in_doubt_may_not_go() {
    check(
        "001 p | folder~new",
        "001 up/postgres/1 applied folder~old\n001 up/mongo/1 started ~old",
        "up",
        &expect![[r#"
            error: step up/mongo/1 of 001-name was edited while it is in doubt (started <old>, file none)
            hint: only its old text tells what is left of it: restore the text and run `migrate up` again, which settles the step, and edit it then; or look at MongoDB, and when nothing of the step is there, `migrate repair --mark-reverted 001/up/mongo/1 --store mongo`"#]],
    );
}

#[test]
fn what_counts_is_the_text_that_was_applied_not_the_one_that_was_started() {
    check(
        "001 m*~new | folder~new",
        "001 up/mongo/1 started ~old\n001 up/mongo/1 applied ~new\nrow 001 completed both folder~new",
        "up",
        &expect!["nothing"],
    );
}

#[test]
fn a_migration_that_was_mended_halfway_is_finished_and_not_edited() {
    check(
        "001 p m~new | folder~new",
        "001 up/postgres/1 applied folder~old\n001 up/mongo/1 applied ~new\nrow 001 completed both folder~new",
        "up",
        &expect!["nothing"],
    );
}

#[test]
fn a_migration_that_was_mended_halfway_lacks_only_its_seal() {
    check(
        "001 p m~new | folder~new",
        "001 up/postgres/1 applied folder~old\n001 up/mongo/1 applied ~new\nrow 001 running both folder~new",
        "up",
        &expect!["001 up: seal"],
    );
}

#[test]
fn what_had_not_run_yet_may_go_and_that_is_written_down() {
    check(
        "001 p | folder~new",
        "001 up/postgres/1 applied folder~old\nrow 001 running postgres folder~old",
        "up",
        &expect!["001 up: accept, seal"],
    );
}

#[test]
fn other_text_may_change_between_the_last_step_and_the_seal() {
    check(
        "001 p | folder~new",
        "001 up/postgres/1 applied folder~old\nrow 001 running both folder~old",
        "up",
        &expect!["001 up: accept, seal"],
    );
}

#[test]
fn a_step_may_come_between_the_last_step_and_the_seal() {
    check(
        "001 p m | folder~new",
        "001 up/postgres/1 applied folder~old\nrow 001 running both folder~old",
        "up",
        &expect!["001 up: run up/mongo/1, seal"],
    );
}

#[test]
fn an_accepted_migration_is_what_its_file_says() {
    check_each(
        "001 p | folder~new",
        &[
            "001 up/postgres/1 applied folder~old\n001 accepted both folder~new\nrow 001 completed both folder~new",
            "001 up/postgres/1 applied folder~old\n001 accepted postgres folder~new\nrow 001 completed both folder~new",
            "001 up/postgres/1 applied ~old\n001 accepted mongo folder~new\nrow 001 completed both folder~new",
        ],
        "up",
        &expect!["nothing"],
    );
}

#[test]
fn accepting_died_between_the_stores() {
    check(
        "001 p | folder~new",
        "001 up/postgres/1 applied folder~old\n001 accepted postgres folder~new\nrow 001 completed postgres folder~new\nrow 001 running mongo",
        "up",
        &expect!["001 up: seal"],
    );
}

#[test]
fn an_accepted_migration_without_a_seal_gets_it() {
    check(
        "001 p | folder~new",
        "001 up/postgres/1 applied folder~old\n001 accepted both folder~new\nrow 001 running both",
        "up",
        &expect!["001 up: seal"],
    );
}

#[test]
fn the_newest_acceptance_counts() {
    check(
        "001 p | folder~3",
        "001 up/postgres/1 applied folder~1\n001 accepted#1 both folder~2\n001 accepted#2 both folder~3\nrow 001 completed both folder~3",
        "up",
        &expect!["nothing"],
    );
    check(
        "001 p | folder~2",
        "001 up/postgres/1 applied folder~1\n001 accepted#1 both folder~2\n001 accepted#2 both folder~3\nrow 001 completed both folder~3",
        "up",
        &expect![[r#"
            error: a file of 001-name was edited after it was applied (recorded <3>, file <2>)
            hint: restore the file as it was, and put the change into a new migration; if the edit does not matter, `migrate repair --accept-checksum 001`"#]],
    );
}

#[test]
fn an_acceptance_ends_with_the_life_that_it_was_for() {
    // Applied as 1, accepted as 2, reverted, applied as 3.
    let history = "001 up/postgres/1 applied reverting reverted ~1\n001 accepted both folder~2\n001 up/postgres/1#2 applied ~3 rank=2\nrow 001 completed both folder~3 rank=2";
    check("001 p~3 | folder~3", history, "up", &expect!["nothing"]);
    check(
        "001 p~2 | folder~2",
        history,
        "up",
        &expect![[r#"
        error: step up/postgres/1 of 001-name was edited after it was applied (recorded <3>, file <2>)
        hint: restore the file as it was, and put the change into a new migration; if the edit does not matter, `migrate repair --accept-checksum 001`"#]],
    );
}

#[test]
fn an_acceptance_does_not_apply_what_was_reverted_since() {
    check(
        "001 p~2 | folder~2",
        "001 up/postgres/1 applied reverting reverted ~1\n001 accepted both folder~2",
        "up",
        &expect!["001 up: run up/postgres/1#2, seal"],
    );
}

#[test]
fn a_reverted_migration_has_no_edits() {
    check(
        "001 p~new | folder~new",
        "001 up/postgres/1 applied reverting reverted ~old",
        "up",
        &expect!["001 up: run up/postgres/1#2, seal"],
    );
}

#[test]
fn down_does_not_care_about_edits() {
    check(
        "001 p~new | folder~new",
        "001 done ~old",
        "down",
        &expect!["001 down: intend postgres, run down/postgres/1, close postgres, unseal"],
    );
}

#[test]
fn another_migration_under_the_number_of_an_applied_one_is_told_as_that() {
    let history =
        "001 done\n002 up/postgres/1 applied ~old\nrow 002 completed both folder~old name=regions";
    check(
        "001 p\n002 p~new | folder~new\n003 p",
        history,
        "up",
        &expect![[r#"
            error: 002 was applied as `regions`, and the file here is another migration: 002-name
            hint: give the new migration the next number (004), and restore the folder of 002 `regions` from version control"#]],
    );
    // With a step in common it is the same one, renamed and edited.
    check(
        "001 p\n002 p p~new | folder~new",
        "001 done\n002 up/postgres/1 applied\n002 up/postgres/2 applied ~old\nrow 002 completed both folder~old name=regions",
        "up",
        &expect![[r#"
            error: step up/postgres/2 of 002-name was edited after it was applied (recorded <old>, file <new>)
            hint: restore the file as it was, and put the change into a new migration; if the edit does not matter, `migrate repair --accept-checksum 002`"#]],
    );
    // Renamed, and nothing else.
    check(
        "001 p",
        "001 up/postgres/1 applied\nrow 001 completed both name=regions",
        "up",
        &expect!["nothing"],
    );
}
