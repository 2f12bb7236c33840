//! One store was restored from an older backup: no run leaves that behind.

use crate::text::{check, check_each};
use expect_test::expect;

#[test]
fn postgres_was_restored_to_before_a_migration_that_both_have() {
    check(
        "001 p\n002 p m",
        "001 done\n002 up/mongo/1 applied\nrow 002 completed mongo",
        "up",
        &expect![[r#"
            error: Postgres lacks step 002/up/postgres/1, although its migration is sealed as done: no run of migrate leaves that behind, a restored backup does
            hint: if Postgres was restored from an older backup, `migrate repair --replay postgres` runs there what it lacks; if all of it is there and only its records are gone, `migrate repair --mark-applied 002/up/postgres/1 --store postgres`"#]],
    );
}

#[test]
fn mongo_was_restored_to_before_a_migration_that_both_have() {
    check(
        "001 p\n002 p m",
        "001 done\n002 up/postgres/1 applied\nrow 002 completed postgres",
        "up",
        &expect![[r#"
            error: MongoDB lacks step 002/up/mongo/1, although its migration is sealed as done: no run of migrate leaves that behind, a restored backup does
            hint: if MongoDB was restored from an older backup, `migrate repair --replay mongo` runs there what it lacks; if all of it is there and only its records are gone, `migrate repair --mark-applied 002/up/mongo/1 --store mongo`"#]],
    );
}

#[test]
fn mongo_was_restored_while_the_migration_was_open() {
    // Nothing tells that from a run that died there: it is run again.
    check(
        "001 p m m",
        "001 up/postgres/1 applied\nrow 001 running postgres",
        "up",
        &expect!["001 up: run up/mongo/1, run up/mongo/2, seal"],
    );
}

#[test]
fn postgres_was_restored_while_the_migration_was_open() {
    check(
        "001 p m m",
        "001 up/mongo/1 applied\nrow 001 running mongo",
        "up",
        &expect![[r#"
            error: Postgres lacks step 001/up/postgres/1, although the later step 001/up/mongo/1 is recorded in MongoDB: no run of migrate leaves that behind, a restored backup does
            hint: if Postgres was restored from an older backup, `migrate repair --replay postgres` runs there what it lacks; if all of it is there and only its records are gone, `migrate repair --mark-applied 001/up/postgres/1 --store postgres`"#]],
    );
}

#[test]
fn a_later_step_in_doubt_shows_a_gap_as_well() {
    check(
        "001 p m*",
        "001 up/mongo/1 started",
        "up",
        &expect![[r#"
            error: Postgres lacks step 001/up/postgres/1, although the later step 001/up/mongo/1 is recorded in MongoDB: no run of migrate leaves that behind, a restored backup does
            hint: if Postgres was restored from an older backup, `migrate repair --replay postgres` runs there what it lacks; if all of it is there and only its records are gone, `migrate repair --mark-applied 001/up/postgres/1 --store postgres`"#]],
    );
}

#[test]
fn a_step_in_doubt_is_a_gap_when_a_later_one_is_applied() {
    check(
        "001 p* m",
        "001 up/postgres/1 started\n001 up/mongo/1 applied",
        "up",
        &expect![[r#"
            error: Postgres lacks step 001/up/postgres/1, although the later step 001/up/mongo/1 is recorded in MongoDB: no run of migrate leaves that behind, a restored backup does
            hint: if Postgres was restored from an older backup, `migrate repair --replay postgres` runs there what it lacks; if all of it is there and only its records are gone, `migrate repair --mark-applied 001/up/postgres/1 --store postgres`"#]],
    );
}

#[test]
fn two_steps_in_doubt_are_a_gap() {
    check(
        "001 p* m*",
        "001 up/postgres/1 started\n001 up/mongo/1 started",
        "up",
        &expect![[r#"
            error: Postgres lacks step 001/up/postgres/1, although the later step 001/up/mongo/1 is recorded in MongoDB: no run of migrate leaves that behind, a restored backup does
            hint: if Postgres was restored from an older backup, `migrate repair --replay postgres` runs there what it lacks; if all of it is there and only its records are gone, `migrate repair --mark-applied 001/up/postgres/1 --store postgres`"#]],
    );
}

#[test]
fn a_step_in_doubt_of_a_sealed_migration_is_a_gap() {
    check(
        "001 p m*",
        "001 up/postgres/1 applied\nrow 001 completed postgres\n001 up/mongo/1 started\nrow 001 running mongo",
        "up",
        &expect![[r#"
            error: MongoDB lacks step 001/up/mongo/1, although its migration is sealed as done: no run of migrate leaves that behind, a restored backup does
            hint: if MongoDB was restored from an older backup, `migrate repair --replay mongo` runs there what it lacks; if all of it is there and only its records are gone, `migrate repair --mark-applied 001/up/mongo/1 --store mongo`"#]],
    );
}

#[test]
fn the_first_missing_step_of_several_migrations_is_named() {
    check(
        "001 p m\n002 p m\n003 p m",
        "001 done\n002 up/postgres/1 applied\n003 up/postgres/1 applied\nrow 002 completed postgres\nrow 003 completed postgres",
        "up",
        &expect![[r#"
            error: MongoDB lacks step 002/up/mongo/1, although its migration is sealed as done: no run of migrate leaves that behind, a restored backup does
            hint: if MongoDB was restored from an older backup, `migrate repair --replay mongo` runs there what it lacks; if all of it is there and only its records are gone, `migrate repair --mark-applied all --store mongo`"#]],
    );
    check(
        "001 p m\n002 p m\n003 p m",
        "001 done\n002 up/mongo/1 applied\n003 up/mongo/1 applied\nrow 002 completed mongo\nrow 003 completed mongo",
        "up",
        &expect![[r#"
            error: Postgres lacks step 002/up/postgres/1, although its migration is sealed as done: no run of migrate leaves that behind, a restored backup does
            hint: if Postgres was restored from an older backup, `migrate repair --replay postgres` runs there what it lacks; if all of it is there and only its records are gone, `migrate repair --mark-applied all --store postgres`"#]],
    );
}

#[test]
fn an_open_migration_below_an_applied_one_is_a_gap() {
    check(
        "001 p m\n002 p",
        "001 up/postgres/1 applied\nrow 001 running postgres\n002 up/postgres/1 applied",
        "up",
        &expect![[r#"
            error: MongoDB lacks step 001/up/mongo/1, although the later step 002/up/postgres/1 is recorded in Postgres: no run of migrate leaves that behind, a restored backup does
            hint: if MongoDB was restored from an older backup, `migrate repair --replay mongo` runs there what it lacks; if all of it is there and only its records are gone, `migrate repair --mark-applied 001/up/mongo/1 --store mongo`"#]],
    );
}

#[test]
fn an_open_migration_below_a_newer_release_is_a_gap() {
    check(
        "001 p m",
        "001 up/postgres/1 applied\nrow 001 running postgres\n002 up/postgres/1 applied",
        "up",
        &expect![[r#"
            error: MongoDB lacks step 001/up/mongo/1, although the later step 002/up/postgres/1 is recorded in Postgres: no run of migrate leaves that behind, a restored backup does
            hint: if MongoDB was restored from an older backup, `migrate repair --replay mongo` runs there what it lacks; if all of it is there and only its records are gone, `migrate repair --mark-applied 001/up/mongo/1 --store mongo`"#]],
    );
}

#[test]
fn a_whole_migration_is_gone_that_the_other_store_has_sealed() {
    check(
        "001 p\n002 p",
        "001 done\nrow 002 completed mongo",
        "up",
        &expect![[r#"
            error: Postgres lacks step 002/up/postgres/1, although its row in migration_history says `completed`: no run of migrate leaves that behind, a restored backup does
            hint: if Postgres was restored from an older backup, `migrate repair --replay postgres` runs there what it lacks; if all of it is there and only its records are gone, `migrate repair --mark-applied 002/up/postgres/1 --store postgres`"#]],
    );
    check(
        "001 p\n002 m",
        "001 done\nrow 002 completed postgres",
        "up",
        &expect![[r#"
            error: MongoDB lacks step 002/up/mongo/1, although its row in migration_history says `completed`: no run of migrate leaves that behind, a restored backup does
            hint: if MongoDB was restored from an older backup, `migrate repair --replay mongo` runs there what it lacks; if all of it is there and only its records are gone, `migrate repair --mark-applied 002/up/mongo/1 --store mongo`"#]],
    );
    check(
        "001 p",
        "row 001 completed mongo",
        "up",
        &expect![[r#"
            error: Postgres lacks step 001/up/postgres/1, although its row in migration_history says `completed`: no run of migrate leaves that behind, a restored backup does
            hint: if Postgres was restored from an older backup, `migrate repair --replay postgres` runs there what it lacks; if all of it is there and only its records are gone, `migrate repair --mark-applied 001/up/postgres/1 --store postgres`"#]],
    );
}

#[test]
fn a_whole_migration_is_gone_below_newer_ones() {
    check(
        "001 p\n002 m",
        "row 001 completed mongo\n002 up/mongo/1 applied\nrow 002 completed mongo",
        "up",
        &expect![[r#"
            error: Postgres lacks step 001/up/postgres/1, although its row in migration_history says `completed`: no run of migrate leaves that behind, a restored backup does
            hint: if Postgres was restored from an older backup, `migrate repair --replay postgres` runs there what it lacks; if all of it is there and only its records are gone, `migrate repair --mark-applied 001/up/postgres/1 --store postgres`"#]],
    );
}

#[test]
fn a_migration_that_is_gone_is_not_allowed_as_out_of_order() {
    check(
        "001 p\n002 m",
        "row 001 completed mongo\n002 up/mongo/1 applied\nrow 002 completed mongo",
        "up --allow-out-of-order",
        &expect![[r#"
            error: Postgres lacks step 001/up/postgres/1, although its row in migration_history says `completed`: no run of migrate leaves that behind, a restored backup does
            hint: if Postgres was restored from an older backup, `migrate repair --replay postgres` runs there what it lacks; if all of it is there and only its records are gone, `migrate repair --mark-applied 001/up/postgres/1 --store postgres`"#]],
    );
}

#[test]
fn a_migration_that_was_only_begun_and_is_gone_runs_again() {
    // Its store has lost record and effect together.
    check_each(
        "001 p\n002 p m",
        &["001 done\nrow 002 running mongo", "001 done\nrow 002 running both"],
        "up",
        &expect!["002 up: run up/postgres/1, run up/mongo/1, seal"],
    );
}

#[test]
fn a_gap_inside_one_store_is_a_gap() {
    check(
        "001 p p* p",
        "001 up/postgres/1 applied\n001 up/postgres/3 applied",
        "up",
        &expect![[r#"
            error: Postgres lacks step 001/up/postgres/2, although the later step 001/up/postgres/3 is recorded in Postgres: neither a run of migrate nor a backup leaves that behind, somebody changed the history by hand
            hint: if its effect is there, `migrate repair --mark-applied 001/up/postgres/2 --store postgres` records it; if it is not, `migrate repair --replay postgres` runs there what is lacking"#]],
    );
}

#[test]
fn a_gap_is_a_gap_whatever_the_limit() {
    check(
        "001 p\n002 p m",
        "001 done\n002 up/mongo/1 applied",
        "up --to 1",
        &expect![[r#"
            error: Postgres lacks step 002/up/postgres/1, although the later step 002/up/mongo/1 is recorded in MongoDB: no run of migrate leaves that behind, a restored backup does
            hint: if Postgres was restored from an older backup, `migrate repair --replay postgres` runs there what it lacks; if all of it is there and only its records are gone, `migrate repair --mark-applied 002/up/postgres/1 --store postgres`"#]],
    );
    check(
        "001 p\n002 p m",
        "001 done\n002 up/mongo/1 applied",
        "up --allow-out-of-order",
        &expect![[r#"
            error: Postgres lacks step 002/up/postgres/1, although the later step 002/up/mongo/1 is recorded in MongoDB: no run of migrate leaves that behind, a restored backup does
            hint: if Postgres was restored from an older backup, `migrate repair --replay postgres` runs there what it lacks; if all of it is there and only its records are gone, `migrate repair --mark-applied 002/up/postgres/1 --store postgres`"#]],
    );
}

#[test]
fn with_mongo_first_the_gap_is_the_other_way_round() {
    check(
        "001 m p | order mongo",
        "001 up/postgres/1 applied",
        "up",
        &expect![[r#"
            error: MongoDB lacks step 001/up/mongo/1, although the later step 001/up/postgres/1 is recorded in Postgres: no run of migrate leaves that behind, a restored backup does
            hint: if MongoDB was restored from an older backup, `migrate repair --replay mongo` runs there what it lacks; if all of it is there and only its records are gone, `migrate repair --mark-applied 001/up/mongo/1 --store mongo`"#]],
    );
    check(
        "001 m p | order mongo",
        "001 up/mongo/1 applied",
        "up",
        &expect!["001 up: run up/postgres/1, seal"],
    );
}

#[test]
fn a_reverted_migration_whose_second_life_is_gone_is_a_gap() {
    check(
        "001 p",
        "001 up/postgres/1 applied reverting reverted\nrow 001 completed mongo rank=2",
        "up",
        &expect![[r#"
            error: Postgres lacks step 001/up/postgres/1, although its row in migration_history says `completed`: no run of migrate leaves that behind, a restored backup does
            hint: if Postgres was restored from an older backup, `migrate repair --replay postgres` runs there what it lacks; if all of it is there and only its records are gone, `migrate repair --mark-applied 001/up/postgres/1 --store postgres`"#]],
    );
}

#[test]
fn both_stores_may_be_restored_together() {
    check("001 p m\n002 p", "001 done", "up", &expect!["002 up: run up/postgres/1, seal"]);
}

#[test]
fn down_of_a_migration_that_one_store_lost_reverts_the_rest_of_it() {
    check(
        "001 p\n002 p m",
        "001 done\n002 up/mongo/1 applied\nrow 002 completed mongo",
        "down",
        &expect!["002 down: intend mongo, run down/mongo/1, close mongo, unseal"],
    );
}

#[test]
fn down_does_not_reach_through_a_migration_that_is_gone() {
    // `down` means 002 here: that 001 is reverted in its place is not what was asked for.
    check(
        "001 p\n002 p",
        "001 done\nrow 002 completed mongo",
        "down",
        &expect![[r#"
            error: Postgres lacks step 002/up/postgres/1, although its row in migration_history says `completed`: no run of migrate leaves that behind, a restored backup does
            hint: if Postgres was restored from an older backup, `migrate repair --replay postgres` runs there what it lacks; if all of it is there and only its records are gone, `migrate repair --mark-applied 002/up/postgres/1 --store postgres`"#]],
    );
}

#[test]
fn down_stops_above_a_migration_that_is_gone() {
    check(
        "001 p\n002 m",
        "row 001 completed mongo\n002 up/mongo/1 applied\nrow 002 completed mongo",
        "down",
        &expect!["002 down: intend mongo, run down/mongo/1, close mongo, unseal"],
    );
}
