//! Migrations with phases: in which order they run, what is held, what waits
//! behind it, and what goes back.

use crate::text::{check, check_each, check_status};
use expect_test::expect;

/// Every phase, in both stores.
const WHOLE: &str = "002 prepare:p prepare:m* execute:p execute:m validate:p validate:m cleanup:p cleanup:m* \
     | down prepare:p prepare:m* execute:p cleanup:p cleanup:m*";

/// All of it but the cleanup, in the words of a history.
const UP_TO_CLEANUP: &str = "002 prepare/postgres/1 applied\n002 prepare/mongo/1 started applied\n\
     002 execute/p1 progress applied\n002 execute/m2 progress applied\n\
     002 validate/p1 applied\n002 validate/m2 applied\n";

fn hold(files: &str) -> String {
    files.replace(" | down", " | cleanup hold | down")
}

fn held() -> String {
    format!("{UP_TO_CLEANUP}row 002 held both release=r1")
}

#[test]
fn phases_run_in_their_order_and_the_invariants_are_asked_again_before_the_cleanup() {
    check(
        WHOLE,
        "",
        "up",
        &expect![
            "002 up: run prepare/postgres/1, run prepare/mongo/1, run execute/p1, run execute/m2, run validate/p1, run validate/m2, check validate/p1 validate/m2, run cleanup/postgres/1, run cleanup/mongo/1, seal"
        ],
    );
}

#[test]
fn a_pause_stands_between_two_phases() {
    check(
        "002 prepare:p execute:p validate:p cleanup:p | pause 5s",
        "",
        "up",
        &expect![
            "002 up: run prepare/postgres/1, pause 5s, run execute/p1, pause 5s, run validate/p1, pause 5s, check validate/p1, run cleanup/postgres/1, seal"
        ],
    );
}

#[test]
fn a_backfill_that_was_begun_goes_on() {
    check(
        WHOLE,
        "002 prepare/postgres/1 applied\n002 prepare/mongo/1 started applied\n002 execute/p1 progress",
        "up",
        &expect![
            "002 up: settle execute/p1, run execute/m2, run validate/p1, run validate/m2, check validate/p1 validate/m2, run cleanup/postgres/1, run cleanup/mongo/1, seal"
        ],
    );
}

#[test]
fn hold_stops_before_the_cleanup() {
    check(
        &hold(WHOLE),
        "",
        "up",
        &expect![[r#"
            002 up: run prepare/postgres/1, run prepare/mongo/1, run execute/p1, run execute/m2, run validate/p1, run validate/m2, hold
            held: 002"#]],
    );
    check(
        WHOLE,
        "",
        "up policy=hold",
        &expect![[r#"
            002 up: run prepare/postgres/1, run prepare/mongo/1, run execute/p1, run execute/m2, run validate/p1, run validate/m2, hold
            held: 002"#]],
    );
    check(
        WHOLE,
        "",
        "up --through validate",
        &expect![[r#"
            002 up: run prepare/postgres/1, run prepare/mongo/1, run execute/p1, run execute/m2, run validate/p1, run validate/m2, hold
            held: 002"#]],
    );
    // A migration without a cleanup has nothing to hold.
    check(
        "002 prepare:p | cleanup hold | down prepare:p",
        "",
        "up",
        &expect!["002 up: run prepare/postgres/1, seal"],
    );
    // Nor has a plain one.
    check(
        "002 p validate:p",
        "",
        "up policy=hold --through prepare",
        &expect!["002 up: run up/postgres/1, run validate/p1, seal"],
    );
}

#[test]
fn what_is_held_stays_held() {
    check(&hold(WHOLE), &held(), "up", &expect!["held: 002"]);
    check_status(
        &hold(WHOLE),
        &held(),
        &expect!["002 held: postgres held, mongo held, file ok, next cleanup"],
    );
}

#[test]
fn status_says_which_phase_comes_next() {
    let prepared = "002 prepare/postgres/1 applied\n002 prepare/mongo/1 started applied\n";
    check_status(
        WHOLE,
        prepared,
        &expect!["002 partial: postgres partial, mongo partial, file ok, next execute"],
    );
    check_status(
        WHOLE,
        &format!("{prepared}002 execute/p1 progress"),
        &expect!["002 partial: postgres partial, mongo partial, file ok, next execute"],
    );
    check_status(
        WHOLE,
        UP_TO_CLEANUP,
        &expect!["002 partial: postgres partial, mongo partial, file ok, next cleanup"],
    );
    check_status(
        WHOLE,
        "002 done",
        &expect!["002 completed: postgres completed, mongo completed, file ok"],
    );
}

#[test]
fn a_run_that_died_before_it_wrote_held_writes_it() {
    check_each(
        &hold(WHOLE),
        &[
            &format!("{UP_TO_CLEANUP}row 002 running both"),
            UP_TO_CLEANUP,
            &format!("{UP_TO_CLEANUP}row 002 held postgres\nrow 002 running mongo"),
        ],
        "up",
        &expect![[r#"
            002 up: hold
            held: 002"#]],
    );
}

#[test]
fn cleanup_finishes_what_is_held() {
    check(
        &hold(WHOLE),
        &held(),
        "cleanup",
        &expect![
            "002 up: check validate/p1 validate/m2, run cleanup/postgres/1, run cleanup/mongo/1, seal"
        ],
    );
    check(
        &hold(WHOLE),
        &held(),
        "cleanup 002",
        &expect![
            "002 up: check validate/p1 validate/m2, run cleanup/postgres/1, run cleanup/mongo/1, seal"
        ],
    );
    check(&hold(WHOLE), "", "cleanup", &expect!["nothing"]);
    check(
        &hold(WHOLE),
        "",
        "cleanup 002",
        &expect![[r#"
        error: 002-name is not held: it is pending
        hint: `migrate status` lists what there is"#]],
    );
    check(
        &hold(WHOLE),
        &held(),
        "cleanup 003",
        &expect![[r#"
        error: there is no migration 003
        hint: `migrate status` lists what there is"#]],
    );
    check(
        "001 p",
        "001 done",
        "cleanup 001",
        &expect![[r#"
        error: 001-name is not held: it is completed
        hint: `migrate status` lists what there is"#]],
    );
}

#[test]
fn a_cleanup_that_was_begun_is_finished_by_anybody() {
    let begun = format!("{}\n002 cleanup/postgres/1 applied", held());
    check_each(&hold(WHOLE), &[&begun], "up", &expect!["002 up: run cleanup/mongo/1, seal"]);
    check_each(
        &hold(WHOLE),
        &[&begun],
        "up --through prepare",
        &expect!["002 up: run cleanup/mongo/1, seal"],
    );
    check_each(&hold(WHOLE), &[&begun], "cleanup", &expect!["002 up: run cleanup/mongo/1, seal"]);
}

#[test]
fn the_next_release_finishes_what_an_earlier_one_held() {
    let files = WHOLE.replace(" | down", " | cleanup next-release | down");
    check(
        &files,
        "",
        "up --release r1",
        &expect![[r#"
            002 up: run prepare/postgres/1, run prepare/mongo/1, run execute/p1, run execute/m2, run validate/p1, run validate/m2, hold
            held: 002"#]],
    );
    check(&files, &held(), "up --release r1", &expect!["held: 002"]);
    check(&files, &held(), "up", &expect!["held: 002"]);
    check(
        &files,
        &held(),
        "up --release r2",
        &expect![
            "002 up: check validate/p1 validate/m2, run cleanup/postgres/1, run cleanup/mongo/1, seal"
        ],
    );
    check(
        &format!("{files}\n003 p"),
        &held(),
        "up --release r2",
        &expect![[r#"
        002 up: check validate/p1 validate/m2, run cleanup/postgres/1, run cleanup/mongo/1, seal
        003 up: run up/postgres/1, seal"#]],
    );
}

#[test]
fn what_comes_later_waits_behind_what_is_held() {
    let files = format!("{}\n003 p\n004 m", hold(WHOLE));
    check(
        &files,
        "",
        "up",
        &expect![[r#"
            002 up: run prepare/postgres/1, run prepare/mongo/1, run execute/p1, run execute/m2, run validate/p1, run validate/m2, hold
            003 waits behind 002: both touch things in Postgres
            004 waits behind 002: both touch things in Postgres
            held: 002"#]],
    );
    check(
        &files,
        &held(),
        "up",
        &expect![[r#"
            003 waits behind 002: both touch things in Postgres
            004 waits behind 002: both touch things in Postgres
            held: 002"#]],
    );
    let files = format!("{}\n003 p | independent\n004 m", hold(WHOLE));
    check(
        &files,
        &held(),
        "up",
        &expect![[r#"
            003 up: run up/postgres/1, seal
            004 up: run up/mongo/1, seal
            held: 002"#]],
    );
}

#[test]
fn through_a_phase_before_validate_leaves_it_open() {
    let files = format!("{WHOLE}\n003 p");
    check(
        &files,
        "",
        "up --through prepare",
        &expect![[r#"
            002 up: run prepare/postgres/1, run prepare/mongo/1
            003 waits behind 002: it is left open by --through
            open: 002"#]],
    );
    check(
        &files,
        "",
        "up --through execute",
        &expect![[r#"
            002 up: run prepare/postgres/1, run prepare/mongo/1, run execute/p1, run execute/m2
            003 waits behind 002: it is left open by --through
            open: 002"#]],
    );
    check(
        &files,
        "002 prepare/postgres/1 applied\n002 prepare/mongo/1 started applied\nrow 002 running both",
        "up --through prepare",
        &expect![[r#"
            003 waits behind 002: it is left open by --through
            open: 002"#]],
    );
}

#[test]
fn a_deferred_cleanup_is_not_a_gap() {
    let files = format!("{}\n003 p\n004 m", hold(WHOLE));
    let later = format!("{}\n003 done", held());
    check(
        &files,
        &later,
        "up",
        &expect![[r#"
        004 up: run up/mongo/1, seal
        held: 002"#]],
    );
    check(
        &files,
        &later,
        "cleanup",
        &expect![
            "002 up: check validate/p1 validate/m2, run cleanup/postgres/1, run cleanup/mongo/1, seal"
        ],
    );
    // Half of it is not a gap either.
    check(
        &files,
        &format!("{later}\n002 cleanup/postgres/1 applied"),
        "up",
        &expect![[r#"
            002 up: run cleanup/mongo/1, seal
            004 up: run up/mongo/1, seal"#]],
    );
    // But a cleanup in front of what it cleans up after is.
    check(
        &files,
        "002 prepare/postgres/1 applied\n002 prepare/mongo/1 started applied\n002 cleanup/postgres/1 applied",
        "up",
        &expect![[r#"
            error: Postgres lacks step 002/execute/p1, although the later step 002/cleanup/postgres/1 is recorded in Postgres: neither a run of migrate nor a backup leaves that behind, somebody changed the history by hand
            hint: if its effect is there, `migrate repair --mark-applied all --store postgres` records it; if it is not, `migrate repair --replay postgres` runs there what is lacking"#]],
    );
    // And so is a part of a migration that is done.
    check(
        WHOLE,
        &format!("{UP_TO_CLEANUP}row 002 completed both"),
        "up",
        &expect![[r#"
            error: Postgres lacks step 002/cleanup/postgres/1, although its migration is sealed as done: neither a run of migrate nor a backup leaves that behind, somebody changed the history by hand
            hint: if its effect is there, `migrate repair --mark-applied all` records it; if it is not, `migrate repair --replay postgres` runs there what is lacking"#]],
    );
}

#[test]
fn the_script_of_a_held_cleanup_may_be_mended() {
    let files = hold(WHOLE)
        .replacen("cleanup:p cleanup", "cleanup:p~new cleanup", 1)
        .replace(" | down", " | folder~new | down");
    let history = held().replace(" applied", " applied folder~old");
    check(&files, &history, "up", &expect!["held: 002"]);
    check(
        &files,
        &history,
        "cleanup",
        &expect![
            "002 up: check validate/p1 validate/m2, run cleanup/postgres/1, run cleanup/mongo/1, seal"
        ],
    );
    // What is applied of it may not.
    let history = held().replacen("postgres/1 applied", "postgres/1 applied ~old", 1);
    check(
        &hold(WHOLE),
        &history,
        "up",
        &expect![[r#"
        error: step prepare/postgres/1 of 002-name was edited after it was applied (recorded <old>, file <the text>)
        hint: restore the file as it was, and put the change into a new migration; if the edit does not matter, `migrate repair --accept-checksum 002`"#]],
    );
    check(
        &hold(WHOLE),
        &history,
        "cleanup",
        &expect![[r#"
        error: step prepare/postgres/1 of 002-name was edited after it was applied (recorded <old>, file <the text>)
        hint: restore the file as it was, and put the change into a new migration; if the edit does not matter, `migrate repair --accept-checksum 002`"#]],
    );
}

#[test]
fn before_the_cleanup_only_prepare_goes_back() {
    check(
        &hold(WHOLE),
        &held(),
        "down",
        &expect![
            "002 down: intend mongo, intend postgres, run prepare.down/mongo/1, close mongo, run prepare.down/postgres/1, close postgres, unseal"
        ],
    );
    // Without a down script for the cleanup, too: it did not run.
    let files = hold(WHOLE).replace(" cleanup:p cleanup:m*\n", "\n");
    check(
        &files,
        &held(),
        "down",
        &expect![
            "002 down: intend mongo, intend postgres, run prepare.down/mongo/1, close mongo, run prepare.down/postgres/1, close postgres, unseal"
        ],
    );
    // In the middle of a backfill.
    check(
        WHOLE,
        "002 prepare/postgres/1 applied\n002 prepare/mongo/1 started applied\n002 execute/p1 progress",
        "down",
        &expect![
            "002 down: intend mongo, intend postgres, run prepare.down/mongo/1, close mongo, run prepare.down/postgres/1, close postgres, unseal"
        ],
    );
    // Of the first script.
    check(
        WHOLE,
        "002 prepare/postgres/1 applied",
        "down",
        &expect!["002 down: intend postgres, run prepare.down/postgres/1, close postgres, unseal"],
    );
}

#[test]
fn after_the_cleanup_everything_goes_back_in_reverse() {
    check(
        WHOLE,
        "002 done",
        "down",
        &expect![
            "002 down: intend mongo, intend postgres, run cleanup.down/mongo/1, run cleanup.down/postgres/1, run execute.down/back, run prepare.down/mongo/1, close mongo, run prepare.down/postgres/1, close postgres, unseal"
        ],
    );
    let begun = format!("{}\n002 cleanup/postgres/1 applied", held());
    check(
        WHOLE,
        &begun,
        "down",
        &expect![
            "002 down: intend mongo, intend postgres, run cleanup.down/postgres/1, run execute.down/back, run prepare.down/mongo/1, close mongo, run prepare.down/postgres/1, close postgres, unseal"
        ],
    );
}

#[test]
fn a_down_of_phases_goes_on_where_it_died() {
    let begun = "002 prepare/postgres/1 applied reverting\n002 prepare/mongo/1 started applied reverting\n\
         002 execute/p1 progress applied reverting\n002 execute/m2 progress applied reverting\n\
         002 validate/p1 applied reverting\n002 validate/m2 applied reverting\n\
         002 cleanup/postgres/1 applied reverting\n002 cleanup/mongo/1 started applied reverting\n\
         row 002 running both\n002 cleanup.down/mongo/1 started applied\n002 cleanup.down/postgres/1 applied\n";
    check(
        WHOLE,
        begun,
        "down",
        &expect![
            "002 down: run execute.down/back, run prepare.down/mongo/1, close mongo, run prepare.down/postgres/1, close postgres, unseal"
        ],
    );
    check(
        WHOLE,
        &format!("{begun}002 execute.down/back progress"),
        "down",
        &expect![
            "002 down: settle execute.down/back, run prepare.down/mongo/1, close mongo, run prepare.down/postgres/1, close postgres, unseal"
        ],
    );
    check(
        WHOLE,
        &format!("{begun}002 execute.down/back progress applied\n002 prepare.down/mongo/1 applied"),
        "down",
        &expect!["002 down: close mongo, run prepare.down/postgres/1, close postgres, unseal"],
    );
    check(
        WHOLE,
        begun,
        "up",
        &expect![[r#"
        002 down: run execute.down/back, run prepare.down/mongo/1, close mongo, run prepare.down/postgres/1, close postgres, unseal
        002 up: run prepare/postgres/1#2, run prepare/mongo/1#2, run execute/p1#2, run execute/m2#2, run validate/p1#2, run validate/m2#2, check validate/p1 validate/m2, run cleanup/postgres/1#2, run cleanup/mongo/1#2, seal"#]],
    );
}

#[test]
fn what_cannot_go_back_is_refused_before_anything_is_changed() {
    let files = WHOLE.replace("execute:p cleanup:p cleanup:m*", "execute:p");
    check(
        &files,
        "002 done",
        "down",
        &expect![[r#"
        error: 002-name cannot be reverted: it has no cleanup.down.sql
        hint: nothing was changed; write a new migration that leads away from it"#]],
    );
    check(
        "002 execute:p",
        "002 done",
        "down",
        &expect![[r#"
        error: 002-name cannot be reverted: what it did in its phase `execute` has no way back: it has no `[[backfill]]` or `[[run]]` with `direction = "down"`
        hint: nothing was changed; write a new migration that leads away from it"#]],
    );
    check(
        "002 execute:p | down execute:p",
        "002 done",
        "down",
        &expect!["002 down: intend postgres, run execute.down/back, close postgres, unseal"],
    );
    check(
        "002 validate:p",
        "002 done",
        "down",
        &expect!["002 down: intend postgres, close postgres, unseal"],
    );
}

#[test]
fn a_migration_of_invariants_alone_is_applied_once() {
    check(
        "002 validate:p validate:m",
        "",
        "up",
        &expect!["002 up: run validate/p1, run validate/m2, seal"],
    );
    check("002 validate:p validate:m", "002 done", "up", &expect!["nothing"]);
}
