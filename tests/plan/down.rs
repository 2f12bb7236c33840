//! Reverting: what, in which order, and what is refused before anything is changed.

use crate::text::{check, check_each};
use expect_test::expect;

const THREE: &str = "001 p m\n002 m\n003 p";
const THREE_DONE: &str = "001 done\n002 done\n003 done";

#[test]
fn with_nothing_applied_there_is_nothing_to_revert() {
    check("001 p", "", "down", &expect!["nothing"]);
    check("001 p", "", "down --to 0", &expect!["nothing"]);
    check("001 p", "", "down --last-run", &expect!["nothing"]);
    check("001 p", "", "down --release r1", &expect!["nothing"]);
}

#[test]
fn down_reverts_one_migration_in_reverse() {
    check(
        "001 p m",
        "001 done",
        "down",
        &expect![
            "001 down: intend mongo, intend postgres, run down/mongo/1, close mongo, run down/postgres/1, close postgres, unseal"
        ],
    );
}

#[test]
fn with_mongo_first_postgres_is_reverted_first() {
    check(
        "001 m p | order mongo",
        "001 done",
        "down",
        &expect![
            "001 down: intend postgres, intend mongo, run down/postgres/1, close postgres, run down/mongo/1, close mongo, unseal"
        ],
    );
}

#[test]
fn down_scripts_are_cut_into_steps_like_up_scripts() {
    check(
        "001 p | down p p* p",
        "001 done",
        "down",
        &expect![
            "001 down: intend postgres, run down/postgres/1, run down/postgres/2, run down/postgres/3, close postgres, unseal"
        ],
    );
    check(
        "001 m | down m m* m",
        "001 done",
        "down",
        &expect![
            "001 down: intend mongo, run down/mongo/1, run down/mongo/2, run down/mongo/3, close mongo, unseal"
        ],
    );
}

#[test]
fn only_the_store_that_has_a_part_is_reverted() {
    check(
        "001 m",
        "001 done",
        "down",
        &expect!["001 down: intend mongo, run down/mongo/1, close mongo, unseal"],
    );
}

#[test]
fn down_steps_counts_migrations() {
    check(
        THREE,
        THREE_DONE,
        "down --steps 2",
        &expect![[r#"
            003 down: intend postgres, run down/postgres/1, close postgres, unseal
            002 down: intend mongo, run down/mongo/1, close mongo, unseal"#]],
    );
    check(THREE, THREE_DONE, "down --steps 0", &expect!["nothing"]);
}

#[test]
fn more_steps_than_there_are_is_all_of_them() {
    check(
        "001 p\n002 m",
        "001 done\n002 done",
        "down --steps 9",
        &expect![[r#"
            002 down: intend mongo, run down/mongo/1, close mongo, unseal
            001 down: intend postgres, run down/postgres/1, close postgres, unseal"#]],
    );
}

#[test]
fn down_to_leaves_the_version_itself() {
    check(
        THREE,
        THREE_DONE,
        "down --to 1",
        &expect![[r#"
            003 down: intend postgres, run down/postgres/1, close postgres, unseal
            002 down: intend mongo, run down/mongo/1, close mongo, unseal"#]],
    );
    check(THREE, THREE_DONE, "down --to 3", &expect!["nothing"]);
}

#[test]
fn down_to_zero_is_the_beginning() {
    check(
        "001 p\n002 m",
        "001 done\n002 done",
        "down --to 0",
        &expect![[r#"
            002 down: intend mongo, run down/mongo/1, close mongo, unseal
            001 down: intend postgres, run down/postgres/1, close postgres, unseal"#]],
    );
}

#[test]
fn down_to_zero_leaves_a_migration_of_that_number() {
    check(
        "0 p\n001 p",
        "0 done\n001 done",
        "down --to 0",
        &expect!["001 down: intend postgres, run down/postgres/1, close postgres, unseal"],
    );
}

#[test]
fn down_to_what_is_not_applied_is_refused() {
    check(
        "001 p\n002 p\n003 p",
        "001 done\n002 done",
        "down --to 3",
        &expect![[r#"
        error: 003 is not applied, so there is no way down to it
        hint: `migrate status` lists what there is"#]],
    );
    check(
        "001 p",
        "001 done",
        "down --to 9",
        &expect![[r#"
        error: 009 is not applied, so there is no way down to it
        hint: `migrate status` lists what there is"#]],
    );
    check(
        "001 p",
        "",
        "down --to 1",
        &expect![[r#"
        error: 001 is not applied, so there is no way down to it
        hint: `migrate status` lists what there is"#]],
    );
}

#[test]
fn down_to_what_was_reverted_is_refused() {
    check(
        "001 p\n002 p",
        "001 done\n002 up/postgres/1 applied reverting reverted",
        "down --to 2",
        &expect![[r#"
            error: 002 is not applied, so there is no way down to it
            hint: `migrate status` lists what there is"#]],
    );
}

#[test]
fn the_last_run_is_what_one_run_applied() {
    check(
        "001 p\n002 p\n003 p",
        "001 done run=a\n002 done run=b\n003 done run=b",
        "down --last-run",
        &expect![[r#"
            003 down: intend postgres, run down/postgres/1, close postgres, unseal
            002 down: intend postgres, run down/postgres/1, close postgres, unseal"#]],
    );
}

#[test]
fn the_last_run_ends_where_another_run_was_between() {
    check(
        "001 p\n002 p\n003 p",
        "001 done run=b\n002 done run=a\n003 done run=b",
        "down --last-run",
        &expect!["003 down: intend postgres, run down/postgres/1, close postgres, unseal"],
    );
}

#[test]
fn the_last_run_goes_by_the_order_of_application() {
    check(
        "001 p\n002 p",
        "002 done run=a rank=1\n001 done run=b rank=2",
        "down --last-run",
        &expect!["001 down: intend postgres, run down/postgres/1, close postgres, unseal"],
    );
}

#[test]
fn the_last_run_may_be_known_to_one_store_only() {
    check(
        "001 p\n002 p",
        "001 done run=a\n002 up/postgres/1 applied\nrow 002 running postgres run=b",
        "down --last-run",
        &expect!["002 down: intend postgres, run down/postgres/1, close postgres, unseal"],
    );
}

#[test]
fn the_last_run_of_a_migration_without_a_row_is_not_known() {
    check(
        "001 p\n002 p",
        "001 done run=a\n002 up/postgres/1 applied",
        "down --last-run",
        &expect!["nothing"],
    );
}

#[test]
fn a_release_is_all_that_it_applied() {
    check(
        "001 p\n002 p\n003 p",
        "001 done release=r1 run=a\n002 done release=r2 run=b\n003 done release=r2 run=c",
        "down --release r2",
        &expect![[r#"
            003 down: intend postgres, run down/postgres/1, close postgres, unseal
            002 down: intend postgres, run down/postgres/1, close postgres, unseal"#]],
    );
}

#[test]
fn a_release_that_is_not_the_newest_is_refused() {
    check(
        "001 p\n002 p",
        "001 done release=r1\n002 done release=r2",
        "down --release r1",
        &expect![[r#"
            error: what was applied last does not belong to release `r1`
            hint: `migrate status` lists what there is"#]],
    );
}

#[test]
fn a_release_that_nobody_knows_is_refused() {
    check(
        "001 p",
        "001 done",
        "down --release r9",
        &expect![[r#"
        error: what was applied last does not belong to release `r9`
        hint: `migrate status` lists what there is"#]],
    );
}

#[test]
fn stored_scripts_are_used_and_not_those_of_the_file() {
    check(
        "001 p | down p",
        "001 done\nstored 001 p p* p",
        "down",
        &expect![
            "001 down: intend postgres, run down/postgres/1, run down/postgres/2, run down/postgres/3, close postgres, unseal"
        ],
    );
}

#[test]
fn the_scripts_of_the_file_are_used_when_the_row_is_lost() {
    check(
        "001 p | down p p*",
        "001 up/postgres/1 applied\nstored 001 p",
        "down",
        &expect![
            "001 down: intend postgres, run down/postgres/1, run down/postgres/2, close postgres, unseal"
        ],
    );
}

#[test]
fn without_scripts_and_without_a_file_there_is_no_way_back() {
    check(
        "001 p",
        "001 done\n002 up/postgres/1 applied",
        "down",
        &expect![[r#"
        error: the history has no down scripts for 002, and there is no file of that version either
        hint: restore the migration's folder and run the command again"#]],
    );
}

#[test]
fn stored_scripts_that_cannot_be_read_are_refused() {
    check(
        "001 p",
        "001 done\nstored 001 p?",
        "down",
        &expect![[r#"
        error: the down scripts that the history keeps for 001 cannot be read: 001-name/down.sql:1:1: `BEGIN` is transaction control; remove it: the engine runs the script in one transaction together with its record; `transaction = false` in migration.toml runs each statement alone
        hint: was it written by a newer release of migrate, or changed by hand? Restore the row from the other store or a backup"#]],
    );
}

#[test]
fn what_says_that_it_is_irreversible_is() {
    check(
        "001 p | irreversible the data is gone",
        "001 done",
        "down",
        &expect![[r#"
        error: 001-name cannot be reverted: the data is gone
        hint: nothing was changed; write a new migration that leads away from it"#]],
    );
}

#[test]
fn what_has_no_down_script_is_irreversible() {
    check(
        "001 p | down",
        "001 done",
        "down",
        &expect![[r#"
        error: 001-name cannot be reverted: it has no down.sql
        hint: nothing was changed; write a new migration that leads away from it"#]],
    );
    check(
        "001 p m | down p",
        "001 done",
        "down",
        &expect![[r#"
        error: 001-name cannot be reverted: it has no down.mongodb.js
        hint: nothing was changed; write a new migration that leads away from it"#]],
    );
    check(
        "001 p m | down m",
        "001 done",
        "down",
        &expect![[r#"
        error: 001-name cannot be reverted: it has no down.sql
        hint: nothing was changed; write a new migration that leads away from it"#]],
    );
}

#[test]
fn an_irreversible_migration_further_down_is_refused_before_anything() {
    check(
        "001 p | down\n002 p\n003 p",
        "001 done\n002 done\n003 done",
        "down --to 0",
        &expect![[r#"
            error: 001-name cannot be reverted: it has no down.sql
            hint: nothing was changed; write a new migration that leads away from it"#]],
    );
    check(
        "001 p | down\n002 p\n003 p",
        "001 done\n002 done\n003 done",
        "down --to 1",
        &expect![[r#"
            003 down: intend postgres, run down/postgres/1, close postgres, unseal
            002 down: intend postgres, run down/postgres/1, close postgres, unseal"#]],
    );
}

#[test]
fn an_irreversible_migration_further_down_is_refused_before_doubt_is_cleared() {
    check(
        "001 p | down\n002 p m*",
        "001 done\n002 up/postgres/1 applied\n002 up/mongo/1 started",
        "down --steps 2",
        &expect![[r#"
            error: 001-name cannot be reverted: it has no down.sql
            hint: nothing was changed; write a new migration that leads away from it"#]],
    );
}

#[test]
fn a_partly_applied_migration_is_reverted_where_it_was_applied() {
    check(
        "001 p m",
        "001 up/postgres/1 applied\nrow 001 running postgres",
        "down",
        &expect!["001 down: intend postgres, run down/postgres/1, close postgres, unseal"],
    );
    check(
        "001 p p* m",
        "001 up/postgres/1 applied",
        "down",
        &expect!["001 down: intend postgres, run down/postgres/1, close postgres, unseal"],
    );
}

#[test]
fn the_half_that_never_ran_needs_no_down_script() {
    check(
        "001 p m | down p",
        "001 up/postgres/1 applied\nrow 001 running postgres",
        "down",
        &expect!["001 down: intend postgres, run down/postgres/1, close postgres, unseal"],
    );
}

#[test]
fn a_partly_applied_migration_counts_as_one() {
    check(
        "001 p\n002 p m",
        "001 done\n002 up/postgres/1 applied",
        "down --steps 2",
        &expect![[r#"
            002 down: intend postgres, run down/postgres/1, close postgres, unseal
            001 down: intend postgres, run down/postgres/1, close postgres, unseal"#]],
    );
}

#[test]
fn what_is_in_doubt_is_cleared_before_anything_is_reverted() {
    check(
        "001 p m*",
        "001 up/postgres/1 applied\n001 up/mongo/1 started",
        "down",
        &expect!["001 down: abandon up/mongo/1, plan again"],
    );
    check(
        "001 p*",
        "001 up/postgres/1 started",
        "down",
        &expect!["001 down: abandon up/postgres/1, plan again"],
    );
}

#[test]
fn what_is_in_doubt_stays_so_for_who_could_not_go_on() {
    let no_function = expect![[r#"
        error: 001-name calls `empty`, which is a function of a service and not of this program
        hint: nothing was changed; it is reverted by the service (`Migrator::down`), in a release that has the function"#]];
    let doubt = "001 up/postgres/1 applied\n001 up/mongo/1 started";
    check("001 p m* | down p& m*", doubt, "down", &no_function);
    // What comes after it too.
    let files = "001 p | down p&\n002 p m*";
    let doubt = "001 done\n002 up/postgres/1 applied\n002 up/mongo/1 started";
    check(files, doubt, "down --to 0", &no_function);
    check(files, doubt, "down", &expect!["002 down: abandon up/mongo/1, plan again"]);
}

#[test]
fn a_function_that_was_called_is_not_called_again() {
    check(
        "001 p p | down m* p&",
        "001 up/postgres/1 applied reverting\n001 up/postgres/2 applied reverting\n001 down/postgres/1 applied",
        "down",
        &expect!["001 down: close postgres, unseal"],
    );
}

#[test]
fn nothing_below_is_planned_before_doubt_is_cleared() {
    check(
        "001 p\n002 p m*",
        "001 done\n002 up/postgres/1 applied\n002 up/mongo/1 started",
        "down --to 0",
        &expect!["002 down: abandon up/mongo/1, plan again"],
    );
}

#[test]
fn what_turned_out_to_be_absent_is_not_reverted() {
    check(
        "001 p m*",
        "001 up/postgres/1 applied\n001 up/mongo/1 started reverted\nrow 001 running both",
        "down",
        &expect!["001 down: intend postgres, run down/postgres/1, close postgres, unseal"],
    );
}

#[test]
fn what_turned_out_to_be_there_is_reverted() {
    check(
        "001 p m*",
        "001 up/postgres/1 applied\n001 up/mongo/1 started applied\nrow 001 running both",
        "down",
        &expect![
            "001 down: intend mongo, intend postgres, run down/mongo/1, close mongo, run down/postgres/1, close postgres, unseal"
        ],
    );
}

#[test]
fn when_nothing_of_it_turned_out_to_be_there_only_its_row_goes() {
    // `down` was for 002. That 001 goes as well is not what was asked for.
    check(
        "001 p\n002 m*",
        "001 done\n002 up/mongo/1 started reverted\nrow 002 running both",
        "down",
        &expect!["002 down: unseal"],
    );
    check(
        "001 p\n002 m*",
        "001 done run=a\n002 up/mongo/1 started reverted\nrow 002 running both run=b",
        "down --last-run",
        &expect!["002 down: unseal"],
    );
    check(
        "001 p\n002 m*",
        "001 done release=a\n002 up/mongo/1 started reverted\nrow 002 running both release=b",
        "down --release b",
        &expect!["002 down: unseal"],
    );
    check(
        "001 p\n002 m*",
        "001 done\n002 up/mongo/1 started reverted\nrow 002 running both",
        "down --to 1",
        &expect!["002 down: unseal"],
    );
}

#[test]
fn a_row_without_a_migration_counts_as_one() {
    check(
        "001 p\n002 m*",
        "001 done\n002 up/mongo/1 started reverted\nrow 002 running both",
        "down --steps 2",
        &expect![[r#"
            002 down: unseal
            001 down: intend postgres, run down/postgres/1, close postgres, unseal"#]],
    );
}

#[test]
fn an_irreversible_migration_of_which_nothing_is_there_loses_its_row() {
    check(
        "001 m* | down",
        "001 up/mongo/1 started reverted\nrow 001 running both",
        "down",
        &expect!["001 down: unseal"],
    );
}

#[test]
fn rows_of_older_migrations_that_are_gone_go_as_well() {
    check(
        "001 p\n002 p",
        "001 up/postgres/1 applied reverting reverted\nrow 001 running mongo\n002 done",
        "down",
        &expect![[r#"
            002 down: intend postgres, run down/postgres/1, close postgres, unseal
            001 down: unseal"#]],
    );
}

#[test]
fn a_torn_step_is_refused_on_the_way_down_too() {
    check(
        "001 p p* p",
        "001 up/postgres/1 applied\n001 up/postgres/2 applied\n001 up/postgres/3 started",
        "down",
        &expect![[r#"
            error: step 001/up/postgres/3 is recorded as started, although it can only be recorded together with its effect
            hint: somebody changed the history by hand; if its effect is there, `migrate repair --mark-applied 001/up/postgres/3`; if it is not, `migrate repair --mark-reverted 001/up/postgres/3`, and `migrate up` runs it"#]],
    );
}

#[test]
fn the_second_life_is_reverted_as_the_second_attempt() {
    check(
        "001 p m",
        "001 up/postgres/1#2 applied\n001 up/mongo/1#2 applied\n001 down/postgres/1 applied\n001 down/mongo/1 applied\nrow 001 completed both",
        "down",
        &expect![
            "001 down: intend mongo, intend postgres, run down/mongo/1#2, close mongo, run down/postgres/1#2, close postgres, unseal"
        ],
    );
}

#[test]
fn a_part_in_a_store_that_is_not_configured_is_refused() {
    check(
        "with postgres 15.1\n001 p m",
        "001 up/postgres/1 applied\nrow 001 completed postgres",
        "down",
        &expect![[r#"
            error: 001-name has a part for MongoDB, but no MongoDB is configured
            hint: set MONGODB_URI or `--mongo`, or take the .mongodb.js files out"#]],
    );
    check(
        "with postgres 15.1",
        "001 up/postgres/1 applied\nrow 001 completed postgres\nstored 001 p m*",
        "down",
        &expect![[r#"
            error: 001-name has a part for MongoDB, but no MongoDB is configured
            hint: set MONGODB_URI or `--mongo`, or take the .mongodb.js files out"#]],
    );
}

#[test]
fn one_store_alone_is_reverted() {
    check(
        "with mongo 7.0\n001 m",
        "001 up/mongo/1 applied\nrow 001 completed mongo",
        "down",
        &expect!["001 down: intend mongo, run down/mongo/1, close mongo, unseal"],
    );
}

#[test]
fn down_of_what_is_ahead_uses_what_is_stored() {
    check(
        "001 p",
        "001 done\n002 up/postgres/1 applied\n002 up/mongo/1 applied\nrow 002 completed both\nstored 002 p m",
        "down",
        &expect![[r#"
            ahead: 002
            002 down: intend mongo, intend postgres, run down/mongo/1, close mongo, run down/postgres/1, close postgres, unseal"#]],
    );
}

#[test]
fn what_is_in_doubt_without_its_text_is_left_to_the_down_script() {
    check_each(
        "001 p\n003 p m*~new",
        &["001 done\n002 up/mongo/1 started\nrow 002 running both\nstored 002 m*"],
        "down",
        &expect!["002 down: intend mongo, run down/mongo/1, close mongo, unseal"],
    );
    check(
        "001 m*~new | folder~new",
        "001 up/mongo/1 started ~old",
        "down",
        &expect!["001 down: intend mongo, run down/mongo/1, close mongo, unseal"],
    );
}

#[test]
fn requirements_do_not_stand_in_the_way_back() {
    check(
        "001 p | requires postgres 16.0",
        "001 done",
        "down",
        &expect!["001 down: intend postgres, run down/postgres/1, close postgres, unseal"],
    );
}
