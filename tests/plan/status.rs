//! What `migrate status` says about the same histories.

use crate::text::check_status;
use expect_test::expect;

#[test]
fn without_a_history_everything_is_pending() {
    check_status(
        "001 p\n002 p m",
        "",
        &expect![[r#"
            001 pending: postgres pending, mongo pending, file none
            002 pending: postgres pending, mongo pending, file none"#]],
    );
}

#[test]
fn what_is_done_is_completed_in_both_stores() {
    check_status(
        "001 p\n002 m",
        "001 done",
        &expect![[r#"
            001 completed: postgres completed, mongo completed, file ok
            002 pending: postgres pending, mongo pending, file none"#]],
    );
}

#[test]
fn one_seal_is_enough() {
    check_status(
        "001 p",
        "001 up/postgres/1 applied\nrow 001 completed mongo",
        &expect!["001 completed: postgres completed, mongo completed, file ok"],
    );
}

#[test]
fn a_migration_whose_steps_are_all_done_is_completed_although_its_seal_is_still_to_come() {
    check_status(
        "001 p m",
        "001 up/postgres/1 applied\n001 up/mongo/1 applied\nrow 001 running both",
        &expect!["001 completed: postgres completed, mongo completed, file ok"],
    );
}

#[test]
fn an_open_migration_is_partial_where_it_has_begun() {
    check_status(
        "001 p m",
        "001 up/postgres/1 applied\nrow 001 running postgres",
        &expect!["001 partial: postgres completed, mongo pending, file ok"],
    );
    check_status(
        "001 p p* m",
        "001 up/postgres/1 applied\nrow 001 running postgres",
        &expect!["001 partial: postgres partial, mongo pending, file ok"],
    );
}

#[test]
fn a_step_in_doubt_is_partial() {
    check_status(
        "001 p m*",
        "001 up/postgres/1 applied\n001 up/mongo/1 started\nrow 001 running both",
        &expect!["001 partial: postgres completed, mongo partial, file ok"],
    );
}

#[test]
fn a_refused_first_step_is_pending() {
    check_status(
        "001 p*",
        "001 up/postgres/1 started reverted\nrow 001 running both",
        &expect!["001 pending: postgres pending, mongo pending, file none"],
    );
}

#[test]
fn a_store_without_a_part_is_as_far_as_the_whole() {
    check_status(
        "001 m m",
        "001 up/mongo/1 applied\nrow 001 running both",
        &expect!["001 partial: postgres partial, mongo partial, file ok"],
    );
}

#[test]
fn a_held_migration_is_held() {
    check_status(
        "001 p",
        "001 up/postgres/1 applied\nrow 001 held both",
        &expect!["001 held: postgres held, mongo held, file ok"],
    );
}

#[test]
fn a_baseline_is_a_baseline() {
    check_status(
        "001 p~new | folder~new",
        "001 baseline both folder~old\nrow 001 baseline both folder~old",
        &expect!["001 baseline: postgres baseline, mongo baseline, file edited"],
    );
}

#[test]
fn a_baseline_that_died_is_partial() {
    check_status(
        "with standalone\n001 m\n002 m",
        "002 baseline:started mongo\n001 baseline mongo",
        &expect![[r#"
            001 baseline: postgres pending, mongo baseline, file ok
            002 partial: postgres pending, mongo partial, file ok"#]],
    );
}

#[test]
fn an_edited_file_is_edited() {
    check_status(
        "001 p~new | folder~new\n002 p | folder~new",
        "001 done ~old\n002 done folder~old",
        &expect![[r#"
            001 completed: postgres completed, mongo completed, file edited
            002 completed: postgres completed, mongo completed, file edited"#]],
    );
}

#[test]
fn a_step_that_came_later_does_not_make_a_finished_migration_partial() {
    check_status(
        "001 p m | folder~new",
        "001 up/postgres/1 applied folder~old\nrow 001 completed both folder~old",
        &expect!["001 completed: postgres completed, mongo completed, file edited"],
    );
}

#[test]
fn mending_an_open_migration_is_no_edit() {
    check_status(
        "001 p m~new | folder~new",
        "001 up/postgres/1 applied folder~old\nrow 001 running postgres",
        &expect!["001 partial: postgres completed, mongo pending, file ok"],
    );
}

#[test]
fn an_accepted_edit_is_no_edit() {
    check_status(
        "001 p~new | folder~new",
        "001 up/postgres/1 applied ~old\n001 accepted both folder~new\nrow 001 completed both",
        &expect!["001 completed: postgres completed, mongo completed, file ok"],
    );
}

#[test]
fn versions_without_files_are_missing_or_ahead() {
    check_status(
        "002 p",
        "001 up/postgres/1 applied\nrow 001 completed both\n002 done\n003 up/postgres/1 applied\nrow 003 completed both",
        &expect![[r#"
            001 missing: postgres completed, mongo completed, file none
            002 completed: postgres completed, mongo completed, file ok
            003 ahead: postgres completed, mongo completed, file none"#]],
    );
}

#[test]
fn without_files_everything_is_ahead() {
    check_status(
        "",
        "001 up/postgres/1 applied\nrow 001 completed both",
        &expect!["001 ahead: postgres completed, mongo completed, file none"],
    );
}

#[test]
fn a_newer_release_that_died_is_ahead_and_partial_where_it_is() {
    check_status(
        "001 p",
        "001 done\n002 up/postgres/1 applied\n002 up/mongo/1 started\nrow 002 running both",
        &expect![[r#"
            001 completed: postgres completed, mongo completed, file ok
            002 ahead: postgres completed, mongo partial, file none, open"#]],
    );
}

#[test]
fn a_reverted_migration_is_pending() {
    check_status(
        "001 p m",
        "001 up/postgres/1 applied reverting reverted\n001 up/mongo/1 applied reverting reverted",
        &expect!["001 pending: postgres pending, mongo pending, file none"],
    );
}

#[test]
fn a_reverted_migration_without_a_file_is_not_listed() {
    check_status("", "001 up/postgres/1 applied reverting reverted", &expect![""]);
}

#[test]
fn a_row_that_was_left_behind_says_nothing() {
    check_status(
        "001 p",
        "001 up/postgres/1 applied reverting reverted\nrow 001 completed mongo",
        &expect!["001 pending: postgres pending, mongo pending, file none"],
    );
    check_status(
        "001 p p*",
        "001 up/postgres/1 applied reverting reverted\n001 up/postgres/1#2 applied rank=2\nrow 001 running postgres rank=2\nrow 001 completed mongo",
        &expect!["001 partial: postgres partial, mongo partial, file ok"],
    );
}

#[test]
fn a_migration_on_its_way_back_is_partial() {
    check_status(
        "001 p m",
        "001 up/postgres/1 applied reverting\n001 up/mongo/1 applied reverting\nrow 001 running both",
        &expect!["001 partial: postgres partial, mongo partial, file none"],
    );
    // Announced in one store so far; the other still has the seal.
    check_status(
        "001 p m",
        "001 up/postgres/1 applied\n001 up/mongo/1 applied reverting\nrow 001 completed postgres\nrow 001 running mongo",
        &expect!["001 partial: postgres completed, mongo partial, file none"],
    );
    check_status(
        "001 p m",
        "001 up/postgres/1 applied reverting\n001 up/mongo/1 applied reverting reverted\nrow 001 running both",
        &expect!["001 partial: postgres partial, mongo pending, file none"],
    );
}

#[test]
fn what_a_restored_store_lacks_shows() {
    check_status(
        "001 p m\n002 p m m",
        "001 done\n002 up/postgres/1 applied\nrow 002 completed postgres",
        &expect![[r#"
            001 completed: postgres completed, mongo completed, file ok
            002 completed: postgres completed, mongo pending, file ok"#]],
    );
    check_status(
        "001 p m m",
        "001 up/postgres/1 applied\n001 up/mongo/1 applied\nrow 001 completed postgres",
        &expect!["001 completed: postgres completed, mongo partial, file ok"],
    );
}

#[test]
fn lines_come_by_version_whatever_the_order_of_application() {
    check_status(
        "001 p\n002 p",
        "002 done rank=1\n001 done rank=2",
        &expect![[r#"
            001 completed: postgres completed, mongo completed, file ok
            002 completed: postgres completed, mongo completed, file ok"#]],
    );
}

#[test]
fn nothing_is_completed_in_a_store_that_has_no_record_of_it() {
    // The URL names another database, which is empty.
    check_status(
        "001 p\n002 p~new | folder~new\n003 p",
        "001 up/postgres/1 applied\nrow 001 completed postgres\n002 up/postgres/1 applied ~old\nrow 002 completed postgres folder~old\n003 baseline postgres\nrow 003 baseline postgres",
        &expect![[r#"
            001 completed: postgres completed, mongo pending, file ok
            002 completed: postgres completed, mongo pending, file edited
            003 baseline: postgres baseline, mongo pending, file ok"#]],
    );
    // Applied, reverted, applied again.
    check_status(
        "001 p",
        "001 up/postgres/1 applied reverted\n001 up/postgres/1#2 applied rank=2\nrow 001 completed postgres rank=2",
        &expect!["001 completed: postgres completed, mongo pending, file ok"],
    );
}
