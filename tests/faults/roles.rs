//! The roles of the sample project. Its first backfill paged with OFFSET over a filter
//! that its own updates shrink, and passed over every second batch; its validation
//! failed for users without a role.

use crate::project::Project;
use crate::support::Database;
use crate::support::sql::{number, sql};

const USERS: &str = include_str!("../../fixtures/000-base.sql");

macro_rules! file {
    ($name:literal) => {
        (
            concat!("002-refactor-user-roles/", $name),
            include_str!(concat!("../../migrations/002-refactor-user-roles/", $name)),
        )
    };
}

const FILES: &[(&str, &str)] = &[
    file!("migration.toml"),
    file!("prepare.sql"),
    file!("prepare.down.sql"),
    file!("cleanup.sql"),
    file!("cleanup.down.sql"),
];

/// The users of the sample, and beside them what each one's role was.
fn users(name: &str, more: &str) -> Database {
    let database = Database::new(name);
    sql(&database.postgres_url, USERS);
    sql(&database.postgres_url, more);
    let kept = "CREATE SCHEMA kept; CREATE TABLE kept.users AS SELECT * FROM users";
    sql(&database.postgres_url, kept);
    database
}

fn count(database: &Database, condition: &str) -> i64 {
    let question = format!(
        "SELECT count(*) FROM users AS u FULL JOIN kept.users AS k USING (id) WHERE {condition}"
    );
    number(&database.postgres_url, &question)
}

/// There and back, with a look at every user.
fn there_and_back(database: &Database) {
    let project = Project::of(FILES);
    let up = project.migrate(database, &["up"]).succeeds();
    let other =
        "u.roles IS DISTINCT FROM CASE WHEN k.role IS NULL THEN '{}' ELSE ARRAY[k.role] END";
    assert_eq!(count(database, other), 0, "{}", up.text);
    let down = project.migrate(database, &["down", "--to", "0", "--yes"]).succeeds();
    let other = "u.role IS DISTINCT FROM k.role OR u.email IS DISTINCT FROM k.email";
    assert_eq!(count(database, other), 0, "{}", down.text);
    let roles = "SELECT count(*) FROM information_schema.columns \
                 WHERE table_name = 'users' AND column_name LIKE 'roles%'";
    assert_eq!(number(&database.postgres_url, roles), 0, "{}", down.text);
}

#[test]
fn no_batch_of_a_shrinking_filter_is_passed_over() {
    let database = users("roles", "");
    let with_role = count(&database, "k.role IS NOT NULL");
    assert!(with_role > 2_000, "{with_role} users with a role are three batches");
    there_and_back(&database);
}

#[test]
fn users_without_a_role_or_with_an_odd_one_do_not_fail_the_validation() {
    let odd = "DELETE FROM enrolments; UPDATE courses SET teacher_id = NULL; \
               DELETE FROM users WHERE role <> '' AND length(role) < 100 AND role NOT IN (' teacher ', 'student,teacher')";
    let database = users("odd_roles", odd);
    for kind in ["k.role IS NULL", "k.role = ''", "length(k.role) > 1000", "k.role = ' teacher '"] {
        assert!(count(&database, kind) > 0, "{kind}");
    }
    there_and_back(&database);
}
