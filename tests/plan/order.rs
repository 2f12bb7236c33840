//! The order of application, and files that do not come in their order.

use crate::text::check;
use expect_test::expect;

#[test]
fn a_new_file_below_the_newest_applied_is_refused() {
    check(
        "001 p\n002 p\n003 p",
        "001 done\n003 done",
        "up",
        &expect![[r#"
        error: 002 is not applied, but newer 003 is
        hint: give it a number above the newest applied one, or apply it now with `--allow-out-of-order`"#]],
    );
}

#[test]
fn all_late_files_are_named() {
    check(
        "001 p\n002 p\n003 p\n004 p\n005 p",
        "004 done",
        "up",
        &expect![[r#"
        error: 001, 002 and 003 are not applied, but newer 004 is
        hint: give it a number above the newest applied one, or apply it now with `--allow-out-of-order`"#]],
    );
}

#[test]
fn many_late_files_are_counted() {
    let files: Vec<String> = (1..=14).map(|version| format!("{version} p")).collect();
    check(
        &files.join("\n"),
        "014 done",
        "up",
        &expect![[r#"
        error: 001, 002, 003, 004, 005, 006, 007, 008, 009, 010 and 3 more are not applied, but newer 014 is
        hint: give it a number above the newest applied one, or apply it now with `--allow-out-of-order`"#]],
    );
}

#[test]
fn allowed_late_files_are_applied_after_what_is_there() {
    check(
        "001 p\n002 p\n003 p\n004 p",
        "001 done\n003 done",
        "up --allow-out-of-order",
        &expect![[r#"
            002 up: run up/postgres/1, seal
            004 up: run up/postgres/1, seal"#]],
    );
}

#[test]
fn late_files_that_were_applied_are_no_longer_late() {
    check(
        "001 p\n002 p\n003 p",
        "001 done\n003 done rank=2\n002 done rank=3",
        "up",
        &expect!["nothing"],
    );
}

#[test]
fn a_late_migration_that_was_begun_is_finished_without_the_flag() {
    check(
        "001 p\n002 p m\n003 p",
        "001 done\n003 done rank=2\n002 up/postgres/1 applied rank=3",
        "up",
        &expect!["002 up: run up/mongo/1, seal"],
    );
}

#[test]
fn the_order_of_application_decides_what_is_a_gap() {
    // 002 came last, so that it is open is no gap below 003.
    check(
        "001 p\n002 p m\n003 p m",
        "001 done\n003 done rank=2\n002 up/postgres/1 applied rank=3\nrow 002 running both rank=3",
        "up",
        &expect!["002 up: run up/mongo/1, seal"],
    );
}

#[test]
fn a_file_is_late_behind_a_newer_release_too() {
    check(
        "001 p\n002 p",
        "001 done\n003 up/postgres/1 applied",
        "up",
        &expect![[r#"
        error: 002 is not applied, but newer 003 is
        hint: give it a number above the newest applied one, or apply it now with `--allow-out-of-order`"#]],
    );
}

#[test]
fn a_file_is_late_behind_an_open_migration_too() {
    check(
        "001 p\n002 p m",
        "002 up/postgres/1 applied",
        "up",
        &expect![[r#"
        error: 001 is not applied, but newer 002 is
        hint: give it a number above the newest applied one, or apply it now with `--allow-out-of-order`"#]],
    );
}

#[test]
fn an_applied_version_without_a_file_is_missing() {
    check(
        "001 p\n003 p",
        "001 done\n002 up/postgres/1 applied\n003 done",
        "up",
        &expect![[r#"
            error: 002 is applied, but no longer in the migrations folder
            hint: restore the folder from version control; if it is meant to be gone, `--allow-out-of-order`; if nothing of it was ever there, `migrate repair --mark-reverted 002`"#]],
    );
}

#[test]
fn a_missing_version_is_missing_below_pending_ones() {
    check(
        "001 p\n003 p",
        "001 done\n002 up/postgres/1 applied",
        "up",
        &expect![[r#"
            error: 002 is applied, but no longer in the migrations folder
            hint: restore the folder from version control; if it is meant to be gone, `--allow-out-of-order`; if nothing of it was ever there, `migrate repair --mark-reverted 002`"#]],
    );
}

#[test]
fn a_missing_version_is_allowed_with_the_flag() {
    check(
        "001 p\n003 p",
        "001 done\n002 up/postgres/1 applied\nrow 002 completed both",
        "up --allow-out-of-order",
        &expect!["003 up: run up/postgres/1, seal"],
    );
}

#[test]
fn missing_is_told_before_late() {
    check(
        "001 p\n003 p",
        "002 up/postgres/1 applied\n003 done",
        "up",
        &expect![[r#"
            error: 002 is applied, but no longer in the migrations folder
            hint: restore the folder from version control; if it is meant to be gone, `--allow-out-of-order`; if nothing of it was ever there, `migrate repair --mark-reverted 002`"#]],
    );
}

#[test]
fn a_reverted_version_without_a_file_is_not_missing() {
    check(
        "001 p\n003 p",
        "001 done\n002 up/postgres/1 applied reverting reverted",
        "up",
        &expect!["003 up: run up/postgres/1, seal"],
    );
}

#[test]
fn down_reverts_what_was_applied_last() {
    check(
        "001 p\n002 p\n003 p",
        "001 done\n003 done rank=2\n002 done rank=3",
        "down",
        &expect!["002 down: intend postgres, run down/postgres/1, close postgres, unseal"],
    );
}

#[test]
fn down_to_goes_by_the_order_of_application() {
    check(
        "001 p\n002 p\n003 p",
        "001 done\n003 done rank=2\n002 done rank=3",
        "down --to 3",
        &expect!["002 down: intend postgres, run down/postgres/1, close postgres, unseal"],
    );
    check(
        "001 p\n002 p\n003 p",
        "001 done\n003 done rank=2\n002 done rank=3",
        "down --to 2",
        &expect!["nothing"],
    );
    check(
        "001 p\n002 p\n003 p",
        "001 done\n003 done rank=2\n002 done rank=3",
        "down --to 1",
        &expect![[r#"
            002 down: intend postgres, run down/postgres/1, close postgres, unseal
            003 down: intend postgres, run down/postgres/1, close postgres, unseal"#]],
    );
}

#[test]
fn down_needs_no_files() {
    check(
        "",
        "001 up/postgres/1 applied\nrow 001 completed both\nstored 001 p",
        "down",
        &expect![[r#"
            ahead: 001
            001 down: intend postgres, run down/postgres/1, close postgres, unseal"#]],
    );
}

#[test]
fn down_does_not_care_about_late_and_missing_files() {
    check(
        "001 p\n003 p\n004 p",
        "002 up/postgres/1 applied\nrow 002 completed both\nstored 002 p\n004 done",
        "down --to 2",
        &expect!["004 down: intend postgres, run down/postgres/1, close postgres, unseal"],
    );
}
