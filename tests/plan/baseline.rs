//! Databases that had a life before.

use crate::text::{check, check_baseline};
use expect_test::expect;

const BASELINE: &str = "001 baseline both\nrow 001 baseline both";

#[test]
fn a_baseline_is_done_and_the_rest_comes_after_it() {
    check("001 p m\n002 p", BASELINE, "up", &expect!["002 up: run up/postgres/1, seal"]);
}

#[test]
fn an_edited_baseline_keeps_nothing_from_going_on() {
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
            hint: nothing was changed; `--to 001` stops above it; if nothing of it is there any more, `migrate repair --mark-reverted 001` says so"#]],
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
            hint: nothing was changed; `--to 001` stops above it; if nothing of it is there any more, `migrate repair --mark-reverted 001` says so"#]],
    );
    check(
        "001 p\n002 p",
        "001 baseline both\nrow 001 baseline both\n002 done",
        "down --to 0",
        &expect![[r#"
            error: 001 was there before migrate was (baseline), so nothing is known about how to revert it
            hint: nothing was changed; `--to 001` stops above it; if nothing of it is there any more, `migrate repair --mark-reverted 001` says so"#]],
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

const FILES: &str = "001 p\n002 m\n003 p m\n004 p";

fn nothing() -> expect_test::Expect {
    expect!["nothing"]
}

#[test]
fn a_baseline_is_announced_before_and_closed_after_all_others() {
    check_baseline(
        FILES,
        "",
        "3",
        &expect![[r#"
        postgres: 003 started rank=3, 001 applied rank=1, 002 applied rank=2, 003 applied rank=3
        mongo: 003 started rank=3, 001 applied rank=1, 002 applied rank=2, 003 applied rank=3
        postgres: row 001 baseline rank=1
        postgres: row 002 baseline rank=2
        postgres: row 003 baseline rank=3
        mongo: row 001 baseline rank=1
        mongo: row 002 baseline rank=2
        mongo: row 003 baseline rank=3"#]],
    );
}

#[test]
fn a_baseline_of_one_store_is_recorded_there() {
    check_baseline(
        "with standalone\n001 m\n002 m",
        "",
        "2",
        &expect![[r#"
        postgres: 002 started rank=2, 001 applied rank=1, 002 applied rank=2
        mongo: 002 started rank=2, 001 applied rank=1, 002 applied rank=2
        postgres: row 001 baseline rank=1
        postgres: row 002 baseline rank=2
        mongo: row 001 baseline rank=1
        mongo: row 002 baseline rank=2"#]],
    );
}

#[test]
fn a_baseline_twice_is_once() {
    let history = "001 baseline:started both\n001 baseline both\nrow 001 baseline both";
    check_baseline(FILES, history, "1", &nothing());
}

#[test]
fn a_baseline_can_be_moved_up() {
    check_baseline(
        FILES,
        "001 baseline both\nrow 001 baseline both",
        "2",
        &expect![[r#"
        postgres: 002 started rank=2, 002 applied rank=2
        mongo: 002 started rank=2, 002 applied rank=2
        postgres: row 002 baseline rank=2
        mongo: row 002 baseline rank=2"#]],
    );
}

#[test]
fn a_file_that_came_late_is_recorded_with_the_rest() {
    let history = "001 baseline both\n003 baseline both rank=2\n\
                   row 001 baseline both\nrow 003 baseline both rank=2";
    check_baseline(
        FILES,
        history,
        "3",
        &expect![[r#"
        postgres: 002 applied rank=3
        mongo: 002 applied rank=3
        postgres: row 002 baseline rank=3
        mongo: row 002 baseline rank=3"#]],
    );
}

#[test]
fn a_baseline_that_died_between_the_stores_is_finished_as_it_was_begun() {
    let history = "001 baseline postgres\n002 baseline:started postgres\n002 baseline postgres";
    check_baseline(
        FILES,
        history,
        "2",
        &expect![[r#"
        mongo: 002 started rank=2, 001 applied rank=1, 002 applied rank=2
        postgres: row 001 baseline rank=1
        postgres: row 002 baseline rank=2
        mongo: row 001 baseline rank=1
        mongo: row 002 baseline rank=2"#]],
    );
    check(
        FILES,
        history,
        "up",
        &expect![[r#"
        001 up: seal
        002 up: seal
        003 up: run up/postgres/1, run up/mongo/1, seal
        004 up: run up/postgres/1, seal"#]],
    );
}

#[test]
fn a_baseline_that_died_in_the_middle_of_its_only_store_is_finished_by_nothing_else() {
    let files = "with standalone\n001 m\n002 m\n003 m\n004 m";
    let history = "003 baseline:started mongo\n001 baseline mongo";
    check_baseline(
        files,
        history,
        "3",
        &expect![[r#"
        postgres: 003 started rank=3, 001 applied rank=1, 002 applied rank=2, 003 applied rank=3
        mongo: 002 applied rank=2, 003 applied rank=3
        postgres: row 001 baseline rank=1
        postgres: row 002 baseline rank=2
        postgres: row 003 baseline rank=3
        mongo: row 001 baseline rank=1
        mongo: row 002 baseline rank=2
        mongo: row 003 baseline rank=3"#]],
    );
    for goal in ["up", "up --to 1", "cleanup"] {
        check(
            files,
            history,
            goal,
            &expect![[r#"
            error: `migrate baseline 003` was begun and did not come to its end
            hint: nothing was changed; `migrate baseline 003` (or the `migrate import` that began it) records the rest, which would be run otherwise"#]],
        );
    }
    check(
        files,
        history,
        "down --to 0",
        &expect![[r#"
        error: 003 was there before migrate was (baseline), so nothing is known about how to revert it
        hint: nothing was changed; `--to 003` stops above it; if nothing of it is there any more, `migrate repair --mark-reverted 003` says so"#]],
    );
}

#[test]
fn a_baseline_below_what_was_run_is_refused() {
    check_baseline(
        FILES,
        "001 done",
        "3",
        &expect![[r#"
        error: 001-name is applied, so this history has begun already: nothing that it does not have was there before it
        hint: nothing was changed; if somebody has done by hand what a later migration does, `migrate repair --mark-applied` records its steps; if nothing of 001 is there, `migrate repair --mark-reverted 001` first"#]],
    );
    check_baseline(
        FILES,
        "001 done",
        "1",
        &expect![[r#"
        error: 001-name is applied, so this history has begun already: nothing that it does not have was there before it
        hint: nothing was changed; if somebody has done by hand what a later migration does, `migrate repair --mark-applied` records its steps; if nothing of 001 is there, `migrate repair --mark-reverted 001` first"#]],
    );
    check_baseline(
        FILES,
        "004 done",
        "3",
        &expect![[r#"
        error: 004-name is applied, so this history has begun already: nothing that it does not have was there before it
        hint: nothing was changed; if somebody has done by hand what a later migration does, `migrate repair --mark-applied` records its steps; if nothing of 004 is there, `migrate repair --mark-reverted 004` first"#]],
    );
    check_baseline(
        FILES,
        "001 baseline both\nrow 001 baseline both\n002 done",
        "3",
        &expect![[r#"
            error: 002-name is applied, so this history has begun already: nothing that it does not have was there before it
            hint: nothing was changed; if somebody has done by hand what a later migration does, `migrate repair --mark-applied` records its steps; if nothing of 002 is there, `migrate repair --mark-reverted 002` first"#]],
    );
}

#[test]
fn a_baseline_stays_one_when_more_was_run_since() {
    check_baseline(FILES, "001 baseline both\nrow 001 baseline both\n002 done", "1", &nothing());
}

#[test]
fn a_baseline_over_something_half_done_is_refused() {
    check_baseline(
        "001 p p",
        "001 up/postgres/1 applied",
        "1",
        &expect![[r#"
        error: 001-name is partly applied, so this history has begun already: nothing that it does not have was there before it
        hint: nothing was changed; `migrate up --to 001` finishes it, `migrate down` takes it back"#]],
    );
    check_baseline(
        "001 p",
        "001 up/postgres/1 applied reverting",
        "1",
        &expect![[r#"
            error: 001-name is being reverted, so this history has begun already: nothing that it does not have was there before it
            hint: nothing was changed; `migrate down` finishes that"#]],
    );
}

#[test]
fn what_was_reverted_can_be_a_baseline_and_again() {
    let history = "001 up/postgres/1 applied reverting reverted";
    check_baseline(
        "001 p",
        history,
        "1",
        &expect![[r#"
        postgres: 001#2 started rank=2, 001#2 applied rank=2
        mongo: 001#2 started rank=2, 001#2 applied rank=2
        postgres: row 001 baseline rank=2
        mongo: row 001 baseline rank=2"#]],
    );
    let history = "001 baseline both\n001 baseline:reverted both";
    check_baseline(
        "001 p",
        history,
        "1",
        &expect![[r#"
        postgres: 001#2 started rank=2, 001#2 applied rank=2
        mongo: 001#2 started rank=2, 001#2 applied rank=2
        postgres: row 001 baseline rank=2
        mongo: row 001 baseline rank=2"#]],
    );
}

#[test]
fn a_baseline_up_to_no_file_names_the_nearest() {
    check_baseline(
        FILES,
        "",
        "7",
        &expect![[r#"
        error: there is no migration 007; the nearest is 004-name
        hint: write the number of the last migration whose effect is there; `migrate status` lists them"#]],
    );
    check_baseline(
        "",
        "",
        "7",
        &expect![[r#"
        error: there is no migration 007
        hint: write the number of the last migration whose effect is there; `migrate status` lists them"#]],
    );
}
