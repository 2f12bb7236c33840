//! Databases that had a life before.

use crate::text::check;
use expect_test::expect;

const BASELINE: &str = "001 baseline both\nrow 001 baseline both";

#[test]
fn a_baseline_is_done_and_the_rest_comes_after_it() {
    check("001 p m\n002 p", BASELINE, "up", &expect!["002 up: run up/postgres/1, seal"]);
}

#[test]
fn a_baseline_is_never_edited() {
    check(
        "001 p~new | folder~new",
        "001 baseline both folder~old\nrow 001 baseline both folder~old",
        "up",
        &expect!["nothing"],
    );
}

#[test]
fn a_baseline_that_died_between_the_stores_counts() {
    check(
        "001 p",
        "001 baseline postgres\nrow 001 baseline postgres",
        "up",
        &expect!["001 up: seal"],
    );
    check("001 p", "001 baseline mongo", "up", &expect!["001 up: seal"]);
}

#[test]
fn a_file_below_a_baseline_that_is_none_is_late() {
    check(
        "001 p\n002 p",
        "002 baseline both\nrow 002 baseline both",
        "up",
        &expect![[r#"
        error: 001 is not applied, but newer 002 is
        hint: give it a number above the newest applied one, or apply it now with `--allow-out-of-order`"#]],
    );
}

#[test]
fn a_baseline_without_a_file_is_missing_like_any_other() {
    check(
        "002 p",
        "001 baseline both\nrow 001 baseline both",
        "up",
        &expect![[r#"
            error: 001 is applied, but no longer in the migrations folder
            hint: restore the folder from version control; if it is meant to be gone, `--allow-out-of-order`; if nothing of it was ever there, `migrate repair --mark-reverted 001`"#]],
    );
}

#[test]
fn a_baseline_ahead_of_the_files_is_ahead() {
    check(
        "001 p",
        "001 done\n002 baseline both\nrow 002 baseline both",
        "up",
        &expect!["ahead: 002"],
    );
}

#[test]
fn a_baseline_cannot_be_reverted() {
    check(
        "001 p",
        BASELINE,
        "down",
        &expect![[r#"
        error: 001 was there before migrate was (baseline), so nothing is known about how to revert it
        hint: nothing was changed; `--to 001` stops above it"#]],
    );
}

#[test]
fn down_through_a_baseline_is_refused_before_anything() {
    check(
        "001 p\n002 p",
        "001 baseline both\nrow 001 baseline both\n002 done",
        "down --steps 2",
        &expect![[r#"
            error: 001 was there before migrate was (baseline), so nothing is known about how to revert it
            hint: nothing was changed; `--to 001` stops above it"#]],
    );
    check(
        "001 p\n002 p",
        "001 baseline both\nrow 001 baseline both\n002 done",
        "down --to 0",
        &expect![[r#"
            error: 001 was there before migrate was (baseline), so nothing is known about how to revert it
            hint: nothing was changed; `--to 001` stops above it"#]],
    );
}

#[test]
fn down_to_a_baseline_stops_above_it() {
    check(
        "001 p\n002 p",
        "001 baseline both\nrow 001 baseline both\n002 done",
        "down --to 1",
        &expect!["002 down: intend postgres, run down/postgres/1, close postgres, unseal"],
    );
}

#[test]
fn a_baseline_of_another_store_needs_that_store() {
    check(
        "with postgres 15.1\n001 p m",
        "001 baseline postgres\nrow 001 baseline postgres",
        "up",
        &expect![[r#"
            error: 001-name has a part for MongoDB, but no MongoDB is configured
            hint: set MONGODB_URI or `--mongo`, or take the .mongodb.js files out"#]],
    );
}
