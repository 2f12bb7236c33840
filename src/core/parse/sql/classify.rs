//! What matters about a statement for running it safely: whether Postgres
//! accepts it inside a transaction block, and if not, what it makes.
//!
//! Decided by tokens alone. What is not recognised is transactional: either
//! Postgres agrees, or it refuses the statement and nothing has happened.

use super::cursor::{Cursor, NotSql, Options};
use super::refuse::Refusal;
use crate::core::step::{ReindexTarget, SqlKind};

/// The kind of one statement, or why nobody could run it safely.
pub(super) fn classify(statement: &str) -> Result<SqlKind, Refusal> {
    match kind(Cursor::new(statement)) {
        Ok(kind) => Ok(kind),
        Err(Unclear::NotSql) => Ok(SqlKind::Transactional),
        Err(Unclear::Refused(refusal)) => Err(refusal),
    }
}

/// Why there is no kind.
enum Unclear {
    /// Postgres will tell.
    NotSql,
    /// We do.
    Refused(Refusal),
}

impl From<NotSql> for Unclear {
    fn from(_: NotSql) -> Unclear {
        Unclear::NotSql
    }
}

fn kind(mut cursor: Cursor) -> Result<SqlKind, Unclear> {
    match cursor.keyword().unwrap_or_default().as_str() {
        "create" => create(cursor),
        "drop" => drop(cursor),
        "alter" => alter(cursor),
        "reindex" => Ok(reindex(cursor)?),
        "cluster" => Ok(cluster(cursor)?),
        "repack" => Ok(repack(cursor)?),
        "vacuum" => Ok(SqlKind::AloneRepeatable),
        "discard" if cursor.word("all") => Ok(SqlKind::AloneRepeatable),
        "call" => Ok(call(cursor)?),
        _ => Ok(SqlKind::Transactional),
    }
}

fn create(mut cursor: Cursor) -> Result<SqlKind, Unclear> {
    if cursor.word("database") || cursor.word("tablespace") {
        return Ok(SqlKind::AloneOnce);
    }
    if cursor.word("subscription") {
        let options = definition(cursor)?;
        let makes_slot = options.get("create_slot").or(options.get("connect")).unwrap_or(true);
        return Ok(if makes_slot { SqlKind::AloneOnce } else { SqlKind::Transactional });
    }
    cursor.word("unique");
    if !cursor.words(&["index", "concurrently"]) {
        return Ok(SqlKind::Transactional);
    }
    let words = 0..cursor.end();
    cursor.words(&["if", "not", "exists"]);
    if cursor.word("on") {
        return Err(Unclear::Refused(Refusal::new(
            words,
            "an index that is built concurrently needs a name",
            "write `CREATE INDEX CONCURRENTLY <name> ON …`: without a name nobody can say after a \
             crash whether it is there",
        )));
    }
    let index = cursor.name()?;
    if !cursor.word("on") {
        return Err(Unclear::NotSql);
    }
    Ok(SqlKind::CreateIndexConcurrently { index, table: cursor.relation()? })
}

fn drop(mut cursor: Cursor) -> Result<SqlKind, Unclear> {
    if cursor.word("database") || cursor.word("tablespace") || cursor.word("subscription") {
        return Ok(SqlKind::AloneOnce);
    }
    if !cursor.words(&["index", "concurrently"]) {
        return Ok(SqlKind::Transactional);
    }
    cursor.words(&["if", "exists"]);
    let index = cursor.qualified_name()?;
    if cursor.symbol(b',') {
        return Err(Unclear::Refused(Refusal::new(
            cursor.place(),
            "`DROP INDEX CONCURRENTLY` drops one index at a time",
            "write a statement of its own for each index",
        )));
    }
    Ok(SqlKind::DropIndexConcurrently { index })
}

fn alter(mut cursor: Cursor) -> Result<SqlKind, Unclear> {
    match cursor.keyword().unwrap_or_default().as_str() {
        "system" => Ok(SqlKind::AloneRepeatable),
        "database" => {
            cursor.name()?;
            let moves = cursor.words(&["set", "tablespace"]);
            Ok(if moves { SqlKind::AloneOnce } else { SqlKind::Transactional })
        }
        "subscription" => alter_subscription(cursor),
        "table" => {
            cursor.words(&["if", "exists"]);
            let parent = cursor.relation()?;
            if !cursor.words(&["detach", "partition"]) {
                return Ok(SqlKind::Transactional);
            }
            let partition = cursor.qualified_name()?;
            Ok(if cursor.word("concurrently") {
                SqlKind::DetachConcurrently { parent, partition }
            } else {
                SqlKind::Transactional
            })
        }
        _ => Ok(SqlKind::Transactional),
    }
}

/// Whatever talks to the publisher cannot be undone there.
fn alter_subscription(mut cursor: Cursor) -> Result<SqlKind, Unclear> {
    cursor.name()?;
    let action = cursor.keyword().unwrap_or_default();
    let publications = cursor.word("publication");
    if action == "set" && !publications {
        let options = cursor.options()?;
        let slot = options.get("failover").or(options.get("two_phase")).is_some();
        return Ok(if slot { SqlKind::AloneRepeatable } else { SqlKind::Transactional });
    }
    if !publications {
        return Ok(SqlKind::Transactional);
    }
    let refreshes = action == "refresh" || definition(cursor)?.get("refresh").unwrap_or(true);
    Ok(match action.as_str() {
        "refresh" | "set" if refreshes => SqlKind::AloneRepeatable,
        // Adding what was added, or dropping what was dropped, is an error.
        "add" | "drop" if refreshes => SqlKind::AloneOnce,
        _ => SqlKind::Transactional,
    })
}

fn reindex(mut cursor: Cursor) -> Result<SqlKind, NotSql> {
    let option = cursor.options()?.get("concurrently").unwrap_or(false);
    let what = cursor.keyword().unwrap_or_default();
    let concurrently = cursor.word("concurrently") || option;
    let target = match what.as_str() {
        "index" if concurrently => ReindexTarget::Index(cursor.qualified_name()?),
        "table" if concurrently => ReindexTarget::Table(cursor.qualified_name()?),
        "schema" if concurrently => ReindexTarget::Schema(cursor.name()?),
        "database" if concurrently => ReindexTarget::Database,
        "schema" | "database" | "system" => return Ok(SqlKind::AloneRepeatable),
        _ => return Ok(SqlKind::Transactional),
    };
    Ok(SqlKind::ReindexConcurrently { target })
}

/// Of one table it is like any rewrite; of all tables it commits after each.
fn cluster(mut cursor: Cursor) -> Result<SqlKind, NotSql> {
    cursor.options()?;
    cursor.word("verbose");
    let every_table = cursor.peek().is_none();
    Ok(if every_table { SqlKind::AloneRepeatable } else { SqlKind::Transactional })
}

/// Postgres 19's name for `CLUSTER` and `VACUUM FULL`.
fn repack(mut cursor: Cursor) -> Result<SqlKind, NotSql> {
    let options = cursor.options()?;
    let commits = ["concurrently", "analyze"].iter().any(|name| options.get(name) == Some(true));
    let every_table = cursor.peek().is_none() || cursor.word("using");
    let alone = commits || every_table;
    Ok(if alone { SqlKind::AloneRepeatable } else { SqlKind::Transactional })
}

/// The schema of the procedures that are no procedures of the server.
const OURS: &str = "lockstep";

fn call(mut cursor: Cursor) -> Result<SqlKind, NotSql> {
    let procedure = cursor.qualified_name()?;
    Ok(match procedure.schema.as_deref() {
        Some(OURS) => SqlKind::Function { name: procedure.name },
        Some(_) | None => SqlKind::Transactional,
    })
}

/// The options after `WITH`, which no name can be without quotes.
fn definition(mut cursor: Cursor) -> Result<Options, NotSql> {
    while cursor.peek().is_some() && !cursor.word("with") {
        cursor.take();
    }
    cursor.options()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[expect(clippy::needless_pass_by_value, reason = "`expect![…]` reads better without `&`")]
    fn check(statement: &str, expected: Expect) {
        let seen = match classify(statement) {
            Ok(kind) => format!("{kind:?}"),
            Err(refusal) => format!(
                "refused at `{}`: {}; {}",
                &statement[refusal.range], refusal.message, refusal.hint
            ),
        };
        expected.assert_eq(&seen);
    }

    /// All of these are of one kind.
    fn check_all(kind: &SqlKind, statements: &[&str]) {
        for statement in statements {
            assert_eq!(classify(statement).as_ref(), Ok(kind), "{statement}");
        }
    }

    #[test]
    fn an_index_built_concurrently_has_a_name_and_a_table() {
        check(
            "CREATE INDEX CONCURRENTLY Users_Email ON Users (email)",
            expect![[
                r#"CreateIndexConcurrently { index: "users_email", table: QualifiedName { schema: None, name: "users" } }"#
            ]],
        );
        check(
            "create unique index concurrently if not exists \"A\"\"b\" on only (Shop.\"T\") using gin (c)",
            expect![[
                r#"CreateIndexConcurrently { index: "A\"b", table: QualifiedName { schema: Some("shop"), name: "T" } }"#
            ]],
        );
        check(
            "create /* now */ index -- so\n concurrently if on t (a)",
            expect![[
                r#"CreateIndexConcurrently { index: "if", table: QualifiedName { schema: None, name: "t" } }"#
            ]],
        );
        check(
            "create index concurrently U&\"\\0061b\" on db.s.t * (a)",
            expect![[
                r#"CreateIndexConcurrently { index: "ab", table: QualifiedName { schema: Some("s"), name: "t" } }"#
            ]],
        );
    }

    #[test]
    fn an_index_built_concurrently_needs_a_name() {
        check(
            "create index concurrently on users (email)",
            expect![
                "refused at `create index concurrently`: an index that is built concurrently needs a name; write `CREATE INDEX CONCURRENTLY <name> ON …`: without a name nobody can say after a crash whether it is there"
            ],
        );
        check(
            "create unique index concurrently if not exists on users (email)",
            expect![
                "refused at `create unique index concurrently`: an index that is built concurrently needs a name; write `CREATE INDEX CONCURRENTLY <name> ON …`: without a name nobody can say after a crash whether it is there"
            ],
        );
    }

    #[test]
    fn indexes_are_dropped_concurrently_one_by_one() {
        check(
            "drop index concurrently if exists shop.\"A\" cascade",
            expect![[
                r#"DropIndexConcurrently { index: QualifiedName { schema: Some("shop"), name: "A" } }"#
            ]],
        );
        check(
            "drop index concurrently a, b",
            expect![
                "refused at `b`: `DROP INDEX CONCURRENTLY` drops one index at a time; write a statement of its own for each index"
            ],
        );
    }

    #[test]
    fn both_spellings_of_reindex_concurrently_are_one() {
        check(
            "reindex index concurrently a",
            expect![[
                r#"ReindexConcurrently { target: Index(QualifiedName { schema: None, name: "a" }) }"#
            ]],
        );
        check(
            "reindex (concurrently) index a",
            expect![[
                r#"ReindexConcurrently { target: Index(QualifiedName { schema: None, name: "a" }) }"#
            ]],
        );
        check(
            "reindex (verbose, concurrently true, tablespace x) table s.t",
            expect![[
                r#"ReindexConcurrently { target: Table(QualifiedName { schema: Some("s"), name: "t" }) }"#
            ]],
        );
        check(
            "reindex (concurrently off) table concurrently t",
            expect![[
                r#"ReindexConcurrently { target: Table(QualifiedName { schema: None, name: "t" }) }"#
            ]],
        );
        check(
            "reindex schema concurrently \"S\"",
            expect![[r#"ReindexConcurrently { target: Schema("S") }"#]],
        );
        check(
            "reindex database concurrently shop",
            expect!["ReindexConcurrently { target: Database }"],
        );
        check(
            "reindex (concurrently) database",
            expect!["ReindexConcurrently { target: Database }"],
        );
        check("reindex (concurrently false) schema s", expect!["AloneRepeatable"]);
        check("reindex system concurrently shop", expect!["AloneRepeatable"]);
    }

    #[test]
    fn a_partition_may_be_detached_concurrently() {
        check(
            "alter table Shop.Orders detach partition orders_2024 concurrently",
            expect![[
                r#"DetachConcurrently { parent: QualifiedName { schema: Some("shop"), name: "orders" }, partition: QualifiedName { schema: None, name: "orders_2024" } }"#
            ]],
        );
        check(
            "alter table if exists only a detach partition s.b concurrently",
            expect![[
                r#"DetachConcurrently { parent: QualifiedName { schema: None, name: "a" }, partition: QualifiedName { schema: Some("s"), name: "b" } }"#
            ]],
        );
    }

    #[test]
    fn a_procedure_of_our_schema_is_a_function_of_the_program() {
        check("call Lockstep.Fill_Names('2')", expect![[r#"Function { name: "fill_names" }"#]]);
        check_all(
            &SqlKind::Transactional,
            &["call fill_names('2')", "call shop.fill_names()", "select lockstep.fill_names()"],
        );
    }

    #[test]
    fn what_stands_alone_and_may_be_repeated() {
        check_all(
            &SqlKind::AloneRepeatable,
            &[
                "vacuum",
                "VACUUM (analyze, verbose) users",
                "vacuum full users",
                "cluster",
                "cluster verbose",
                "cluster (verbose)",
                "reindex schema s",
                "reindex database shop",
                "reindex system shop",
                "reindex (verbose) database",
                "alter system set work_mem = '1GB'",
                "alter system reset all",
                "discard all",
                "alter subscription s refresh publication",
                "alter subscription s set publication a, b",
                "alter subscription s set (failover = true)",
                "repack",
                "repack using index",
                "repack (concurrently) users",
                "repack (analyze) users",
            ],
        );
    }

    #[test]
    fn what_stands_alone_and_happens_once() {
        check_all(
            &SqlKind::AloneOnce,
            &[
                "create database shop",
                "drop database if exists shop with (force)",
                "create tablespace fast location '/ssd'",
                "drop tablespace fast",
                "alter database shop set tablespace fast",
                "create subscription s connection 'host=a' publication p",
                "create subscription s connection '' publication p with (slot_name = x, copy_data = off)",
                "create subscription s connection '' publication p with (connect)",
                "drop subscription s",
                "alter subscription s add publication p",
                "alter subscription s drop publication p with (copy_data = false)",
            ],
        );
    }

    #[test]
    fn everything_else_is_transactional() {
        check_all(
            &SqlKind::Transactional,
            &[
                "",
                "select 'create index concurrently a on b'",
                "create index on users (email)",
                "create index if not exists a on b (c)",
                "create table concurrently_built (id int)",
                "drop index a, b",
                "drop table vacuum",
                "refresh materialized view concurrently m",
                "reindex table t",
                "reindex index i",
                "reindex (concurrently off) table t",
                "cluster users",
                "cluster verbose users using i",
                "analyze",
                "checkpoint",
                "discard plans",
                "listen a",
                "alter type mood add value 'fine'",
                "alter table a detach partition b",
                "alter table a detach partition b finalize",
                "alter table a set tablespace fast",
                "alter table U&\"zz\\\" add column a int",
                "alter database shop set work_mem = '1GB'",
                "alter database shop rename to shop2",
                "create subscription s connection '' publication p with (connect = false)",
                "create subscription s connection '' publication p with (create_slot = 'Off', enabled)",
                "alter subscription s set publication p with (refresh = false)",
                "alter subscription s disable",
                "alter subscription s set (slot_name = none)",
                "repack users",
                "call tidy()",
                "(select 1)",
            ],
        );
    }

    #[test]
    fn a_syntax_error_is_for_postgres_to_tell() {
        check_all(
            &SqlKind::Transactional,
            &[
                "create index concurrently",
                "create index concurrently a b",
                "create index concurrently 'a' on b",
                "create index concurrently a on only (b",
                "drop index concurrently",
                "reindex (concurrently index a",
                "alter table a detach partition",
                "create subscription s with (",
                "create",
            ],
        );
    }
}
