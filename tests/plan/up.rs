//! Nothing went wrong: fresh databases, nothing to do, limits, servers.

use crate::text::{check, check_each};
use expect_test::expect;

#[test]
fn without_files_there_is_nothing_to_do() {
    check("", "", "up", &expect!["nothing"]);
}

#[test]
fn a_fresh_pair_of_databases_gets_everything_in_order() {
    check(
        "001 p m\n002 m* p\n003 p*",
        "",
        "up",
        &expect![[r#"
            001 up: run up/postgres/1, run up/mongo/1, seal
            002 up: run up/mongo/1, run up/postgres/1, seal
            003 up: run up/postgres/1, seal"#]],
    );
}

#[test]
fn files_come_by_number_not_by_place() {
    check(
        "010 p\n9 m\n0100 p",
        "",
        "up",
        &expect![[r#"
            009 up: run up/mongo/1, seal
            010 up: run up/postgres/1, seal
            100 up: run up/postgres/1, seal"#]],
    );
}

#[test]
fn version_zero_and_the_longest_version_are_versions() {
    check(
        "0 p\n999999999999999999 p",
        "",
        "up",
        &expect![[r#"
            000 up: run up/postgres/1, seal
            999999999999999999 up: run up/postgres/1, seal"#]],
    );
}

#[test]
fn what_is_done_is_not_done_again() {
    check("001 p m\n002 p", "001 done\n002 done", "up", &expect!["nothing"]);
}

#[test]
fn only_what_is_new_runs() {
    check("001 p m\n002 p", "001 done", "up", &expect!["002 up: run up/postgres/1, seal"]);
}

#[test]
fn a_migration_without_a_part_for_one_store_is_sealed_in_both() {
    check("001 m", "", "up", &expect!["001 up: run up/mongo/1, seal"]);
    check(
        "001 m",
        "001 up/mongo/1 applied\nrow 001 completed mongo",
        "up",
        &expect!["001 up: seal"],
    );
}

#[test]
fn up_to_stops_after_the_version() {
    check(
        "001 p\n002 p\n003 p",
        "",
        "up --to 2",
        &expect![[r#"
            001 up: run up/postgres/1, seal
            002 up: run up/postgres/1, seal"#]],
    );
}

#[test]
fn up_to_what_is_applied_has_nothing_to_do() {
    check_each(
        "001 p\n002 p\n003 p",
        &["001 done\n002 done", "001 done"],
        "up --to 1",
        &expect!["nothing"],
    );
}

#[test]
fn up_to_takes_the_number_in_any_spelling() {
    check("001 p\n002 p", "", "up --to 0001", &expect!["001 up: run up/postgres/1, seal"]);
}

#[test]
fn up_to_a_version_that_has_no_file_is_refused() {
    check(
        "001 p\n003 p",
        "",
        "up --to 2",
        &expect![[r#"
        error: there is no migration 002
        hint: `migrate status` lists what there is"#]],
    );
}

#[test]
fn up_to_a_version_that_only_a_newer_release_knows_is_refused() {
    check(
        "001 p",
        "001 done\n002 up/postgres/1 applied",
        "up --to 2",
        &expect![[r#"
        error: there is no migration 002
        hint: `migrate status` lists what there is"#]],
    );
}

#[test]
fn up_steps_counts_migrations() {
    check(
        "001 p m\n002 p\n003 p",
        "",
        "up --steps 2",
        &expect![[r#"
            001 up: run up/postgres/1, run up/mongo/1, seal
            002 up: run up/postgres/1, seal"#]],
    );
    check(
        "001 p\n002 p\n003 p",
        "001 done",
        "up --steps 1",
        &expect!["002 up: run up/postgres/1, seal"],
    );
}

#[test]
fn more_steps_than_there_are_is_all_of_them() {
    check("001 p", "", "up --steps 9", &expect!["001 up: run up/postgres/1, seal"]);
}

#[test]
fn zero_steps_are_nothing() {
    check("001 p", "", "up --steps 0", &expect!["nothing"]);
}

#[test]
fn both_limits_hold() {
    check(
        "001 p\n002 p\n003 p",
        "",
        "up --to 2 --steps 1",
        &expect!["001 up: run up/postgres/1, seal"],
    );
    check(
        "001 p\n002 p\n003 p",
        "",
        "up --to 1 --steps 2",
        &expect!["001 up: run up/postgres/1, seal"],
    );
}

#[test]
fn a_migration_that_was_begun_counts_as_a_step() {
    check(
        "001 p m\n002 p",
        "001 up/postgres/1 applied\nrow 001 running postgres",
        "up --steps 1",
        &expect!["001 up: run up/mongo/1, seal"],
    );
}

#[test]
fn a_seal_does_not_count_as_a_step() {
    check(
        "001 p\n002 p\n003 p",
        "001 up/postgres/1 applied\nrow 001 running postgres",
        "up --steps 1",
        &expect![[r#"
            001 up: seal
            002 up: run up/postgres/1, seal"#]],
    );
}

#[test]
fn a_newer_release_was_here_and_there_is_nothing_to_do() {
    check(
        "001 p",
        "001 done\n002 up/postgres/1 applied\nrow 002 completed both",
        "up",
        &expect!["ahead: 002"],
    );
}

#[test]
fn a_newer_release_that_died_is_left_to_itself() {
    check_each(
        "001 p",
        &[
            "001 done\n002 up/mongo/1 started\nrow 002 running mongo",
            "001 done\n002 up/mongo/1 applied reverting\nrow 002 running both",
        ],
        "up",
        &expect!["ahead: 002"],
    );
}

#[test]
fn an_image_without_any_files_finds_everything_ahead() {
    check(
        "",
        "001 up/postgres/1 applied\nrow 001 completed both\n002 up/mongo/1 applied\nrow 002 completed both",
        "up",
        &expect![[r#"
            ahead: 001
            ahead: 002"#]],
    );
}

#[test]
fn seals_are_written_although_a_newer_release_was_here() {
    check(
        "001 p",
        "001 up/postgres/1 applied\n002 up/postgres/1 applied\nrow 002 completed both",
        "up",
        &expect![[r#"
            ahead: 002
            001 up: seal"#]],
    );
}

#[test]
fn what_was_reverted_is_applied_again_as_the_next_attempt() {
    check(
        "001 p m",
        "001 up/postgres/1 applied reverting reverted\n001 up/mongo/1 applied reverting reverted\n001 down/postgres/1 applied\n001 down/mongo/1 applied",
        "up",
        &expect!["001 up: run up/postgres/1#2, run up/mongo/1#2, seal"],
    );
}

#[test]
fn every_life_of_a_migration_is_an_attempt() {
    check(
        "001 p m",
        "001 up/postgres/1 applied reverting reverted\n001 up/postgres/1#2 applied reverting reverted\n001 up/mongo/1 applied reverting reverted",
        "up",
        &expect!["001 up: run up/postgres/1#3, run up/mongo/1#3, seal"],
    );
}

#[test]
fn what_was_reverted_may_be_another_text_now() {
    check(
        "001 p~new m* | folder~new",
        "001 up/postgres/1 applied reverting reverted ~old\n001 up/postgres/2 applied reverting reverted ~old",
        "up",
        &expect!["001 up: run up/postgres/1#2, run up/mongo/1#2, seal"],
    );
}

#[test]
fn a_standalone_server_changes_nothing_about_a_plain_run() {
    check(
        "with standalone\n001 p m m*",
        "",
        "up",
        &expect!["001 up: run up/postgres/1, run up/mongo/1, run up/mongo/2, seal"],
    );
}

#[test]
fn postgres_alone_is_a_project() {
    check(
        "with postgres 15.1\n001 p\n002 p",
        "",
        "up --steps 1",
        &expect!["001 up: run up/postgres/1, seal"],
    );
    check(
        "with postgres 15.1\n001 p\n002 p",
        "001 up/postgres/1 applied\nrow 001 completed postgres\n002 up/postgres/1 applied\nrow 002 completed postgres",
        "up",
        &expect!["nothing"],
    );
}

#[test]
fn mongo_alone_is_a_project() {
    check("with mongo 7.0\n001 m", "", "up", &expect!["001 up: run up/mongo/1, seal"]);
    check(
        "with mongo 7.0\n001 m",
        "001 up/mongo/1 applied\nrow 001 completed mongo",
        "up",
        &expect!["nothing"],
    );
}

#[test]
fn a_part_for_a_store_that_is_not_configured_is_refused() {
    check(
        "with postgres 15.1\n001 p\n002 p m",
        "",
        "up",
        &expect![[r#"
        error: 002-name has a part for MongoDB, but no MongoDB is configured
        hint: set MONGODB_URI or `--mongo`, or take the .mongodb.js files out"#]],
    );
    check(
        "with mongo 7.0\n001 p",
        "",
        "up",
        &expect![[r#"
        error: 001-name has a part for Postgres, but no Postgres is configured
        hint: set DATABASE_URL or `--postgres`, or take the .sql files out"#]],
    );
}

#[test]
fn a_part_for_a_store_that_is_not_configured_is_refused_beyond_the_limit_too() {
    check(
        "with postgres 15.1\n001 p\n002 m",
        "",
        "up --to 1",
        &expect![[r#"
        error: 002-name has a part for MongoDB, but no MongoDB is configured
        hint: set MONGODB_URI or `--mongo`, or take the .mongodb.js files out"#]],
    );
}

#[test]
fn a_forgotten_url_is_not_mistaken_for_a_restored_backup() {
    check(
        "with postgres 15.1\n001 p m\n002 p",
        "001 up/postgres/1 applied\nrow 001 completed postgres",
        "up",
        &expect![[r#"
            error: 001-name has a part for MongoDB, but no MongoDB is configured
            hint: set MONGODB_URI or `--mongo`, or take the .mongodb.js files out"#]],
    );
    check(
        "with mongo 7.0\n001 p\n002 m",
        "row 001 completed mongo\n002 up/mongo/1 applied\nrow 002 completed mongo",
        "up",
        &expect![[r#"
            error: 001-name has a part for Postgres, but no Postgres is configured
            hint: set DATABASE_URL or `--postgres`, or take the .sql files out"#]],
    );
}

#[test]
fn an_old_server_is_refused_before_anything() {
    check(
        "001 p\n002 p | requires postgres 16.0",
        "",
        "up",
        &expect![[r#"
            error: 002-name requires Postgres >= 16, but this is Postgres 15.4
            hint: nothing was changed; upgrade the server first"#]],
    );
    check(
        "001 p | requires mongo 8.0",
        "",
        "up",
        &expect![[r#"
            error: 001-name requires MongoDB >= 8, but this is MongoDB 7.0.2
            hint: nothing was changed; upgrade the server first"#]],
    );
}

#[test]
fn a_standalone_server_is_refused_where_a_replica_set_is_required() {
    check(
        "with standalone\n001 p m | requires replica-set",
        "",
        "up",
        &expect![[r#"
        error: 001-name requires a MongoDB replica set, but this is a standalone server, which has no transactions
        hint: nothing was changed; upgrade the server first"#]],
    );
}

#[test]
fn servers_that_are_good_enough_pass() {
    check(
        "001 p | requires postgres 15.4\n002 m | requires mongo 7.0\n003 m | requires replica-set",
        "",
        "up",
        &expect![[r#"
            001 up: run up/postgres/1, seal
            002 up: run up/mongo/1, seal
            003 up: run up/mongo/1, seal"#]],
    );
}

#[test]
fn a_requirement_matters_only_while_there_is_something_to_do() {
    check("001 p | requires postgres 16.0", "001 done", "up", &expect!["nothing"]);
    check(
        "001 p\n002 p | requires postgres 16.0",
        "",
        "up --to 1",
        &expect!["001 up: run up/postgres/1, seal"],
    );
    check(
        "001 p | requires postgres 16.0",
        "001 up/postgres/1 applied\nrow 001 running both",
        "up",
        &expect!["001 up: seal"],
    );
}

#[test]
fn a_requirement_holds_for_the_rest_of_a_migration_too() {
    check(
        "001 p m | requires mongo 8.0",
        "001 up/postgres/1 applied\nrow 001 running postgres",
        "up",
        &expect![[r#"
            error: 001-name requires MongoDB >= 8, but this is MongoDB 7.0.2
            hint: nothing was changed; upgrade the server first"#]],
    );
}

#[test]
fn drop_database_is_refused_by_file_and_line() {
    check(
        "001 p\n002 m m!",
        "",
        "up",
        &expect![[r#"
        error: 002-name/up.mongodb.js:1: dropDatabase would drop the migration history with everything else
        hint: drop the collections by name"#]],
    );
}

#[test]
fn what_has_no_statement_is_not_applied() {
    check(
        "001 p\n002 p- m-\n003 p",
        "001 done",
        "up",
        &expect![[r#"
            error: 002-name has nothing to apply: there is no statement in its files, only comments
            hint: write into its files what it does, `SELECT 1;` if that is nothing; delete the folder if no database has applied it"#]],
    );
    check("001 p\n002 p- m-\n003 p", "", "up --to 1", &expect!["001 up: run up/postgres/1, seal"]);
}

#[test]
fn what_is_reverted_first_stays_in_doubt_for_who_could_not_go_on() {
    let doubt = "001 up/postgres/1 applied reverting\n001 up/mongo/1 started";
    check(
        "001 p m*\n002 p-",
        doubt,
        "up",
        &expect![[r#"
            error: 002-name has nothing to apply: there is no statement in its files, only comments
            hint: write into its files what it does, `SELECT 1;` if that is nothing; delete the folder if no database has applied it"#]],
    );
    check(
        "001 p m*\n002 p&",
        doubt,
        "up",
        &expect![[r#"
            error: 002-name calls `fill`, which is a function of a service and not of this program
            hint: nothing was changed; the service applies it when it starts, and all before it; `--to` stops below it"#]],
    );
    check(
        "001 p m*\n002 p&",
        doubt,
        "up --to 1",
        &expect!["001 down: abandon up/mongo/1, plan again"],
    );
}

#[test]
fn a_half_without_a_statement_is_applied_with_the_other() {
    check("001 p- m", "", "up", &expect!["001 up: run up/postgres/1, run up/mongo/1, seal"]);
}

#[test]
fn what_was_applied_without_a_statement_stays_applied() {
    check("001 p- m-\n002 p", "001 done", "up", &expect!["002 up: run up/postgres/1, seal"]);
}
