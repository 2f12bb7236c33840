//! One statement to its effects.

use super::change::alter_table;
use super::{Along, Built, Effect, Effects, Lock, On, Toil};
use crate::core::parse::sql::tree::{name, name_of};
use squawk_syntax::{SyntaxKind, SyntaxNode};

/// `an index is built`, where one is.
pub(super) const BUILDS: &str = "an index is built";

pub(super) fn read(root: &SyntaxNode) -> Effects {
    let mut found = Effects::default();
    match root.kind() {
        SyntaxKind::SELECT
        | SyntaxKind::COMPOUND_SELECT
        | SyntaxKind::PAREN_SELECT
        | SyntaxKind::VALUES
        | SyntaxKind::TABLE => {}
        SyntaxKind::SELECT_INTO | SyntaxKind::CREATE_TABLE_AS => made(root, &mut found),
        // Their tables are those of the parts below.
        SyntaxKind::INSERT | SyntaxKind::UPDATE | SyntaxKind::DELETE | SyntaxKind::MERGE => {}
        SyntaxKind::COPY => copy(root, &mut found),
        SyntaxKind::TRUNCATE => {
            for table in below(root, SyntaxKind::TABLE_NAME_REF) {
                let effect = effect(&table, Lock::AccessExclusive);
                // It refuses unless the tables of foreign keys are named too.
                found.add(Effect { along: Along::Any, ..effect });
            }
        }
        SyntaxKind::LOCK => {
            let lock = lock_mode(root);
            named(root, SyntaxKind::RELATION_NAME_REF, lock, &mut found);
        }
        SyntaxKind::CREATE_TABLE => create_table(root, &mut found),
        SyntaxKind::ALTER_TABLE => alter_table(root, &mut found),
        SyntaxKind::DROP_TABLE => {
            for table in below(root, SyntaxKind::TABLE_NAME_REF) {
                let effect = effect(&table, Lock::AccessExclusive);
                found.add(Effect { along: Along::Any, ..effect });
            }
            cascades(root, &mut found);
        }
        SyntaxKind::CREATE_INDEX => create_index(root, &mut found),
        SyntaxKind::DROP_INDEX => {
            let lock = match has(root, SyntaxKind::CONCURRENTLY_KW) {
                true => Lock::ShareUpdateExclusive,
                false => Lock::AccessExclusive,
            };
            of_indexes(root, lock, Toil::Nothing, None, &mut found);
            cascades(root, &mut found);
        }
        // Locks the index, and nothing that a query waits for.
        SyntaxKind::ALTER_INDEX => {}
        SyntaxKind::REINDEX => reindex(root, &mut found),
        SyntaxKind::CLUSTER => whole(root, Lock::AccessExclusive, Toil::Rewrite, &mut found),
        SyntaxKind::VACUUM => match is_full(root) {
            true => whole(root, Lock::AccessExclusive, Toil::Rewrite, &mut found),
            false => whole(root, Lock::ShareUpdateExclusive, Toil::Scan, &mut found),
        },
        // It reads a sample.
        SyntaxKind::ANALYZE => whole(root, Lock::ShareUpdateExclusive, Toil::Nothing, &mut found),
        SyntaxKind::REFRESH => {
            let (lock, toil) = match has(root, SyntaxKind::CONCURRENTLY_KW) {
                true => (Lock::Exclusive, Toil::Scan),
                false => (Lock::AccessExclusive, Toil::Rewrite),
            };
            for view in below(root, SyntaxKind::VIEW_REF) {
                found.add(Effect { toil, ..effect(&view, lock) });
            }
        }
        SyntaxKind::CREATE_VIEW | SyntaxKind::CREATE_MATERIALIZED_VIEW => {
            match has(root, SyntaxKind::REPLACE_KW)
                || below(root, SyntaxKind::OR_REPLACE).next().is_some()
            {
                true => named(root, SyntaxKind::VIEW, Lock::AccessExclusive, &mut found),
                false => {
                    found.made.extend(below(root, SyntaxKind::VIEW).filter_map(|it| name(&it)));
                }
            }
        }
        SyntaxKind::ALTER_VIEW
        | SyntaxKind::DROP_VIEW
        | SyntaxKind::ALTER_MATERIALIZED_VIEW
        | SyntaxKind::DROP_MATERIALIZED_VIEW => {
            named(root, SyntaxKind::VIEW_REF, Lock::AccessExclusive, &mut found);
            cascades(root, &mut found);
        }
        SyntaxKind::CREATE_TRIGGER => on(root, Lock::ShareRowExclusive, &mut found),
        SyntaxKind::ALTER_TRIGGER
        | SyntaxKind::DROP_TRIGGER
        | SyntaxKind::CREATE_POLICY
        | SyntaxKind::ALTER_POLICY
        | SyntaxKind::DROP_POLICY
        | SyntaxKind::CREATE_RULE
        | SyntaxKind::ALTER_RULE
        | SyntaxKind::DROP_RULE => on(root, Lock::AccessExclusive, &mut found),
        SyntaxKind::CREATE_STATISTICS => {
            let from = below(root, SyntaxKind::FROM_TABLE).next();
            if let Some(from) = from {
                named(&from, SyntaxKind::TABLE_NAME_REF, Lock::ShareUpdateExclusive, &mut found);
            }
        }
        SyntaxKind::COMMENT_ON => comment(root, &mut found),
        SyntaxKind::CREATE_PUBLICATION | SyntaxKind::ALTER_PUBLICATION => {
            let lock = Lock::ShareUpdateExclusive;
            named(root, SyntaxKind::RELATION_NAME_REF, lock, &mut found);
            named(root, SyntaxKind::TABLE_NAME_REF, lock, &mut found);
        }
        // Nothing that a query waits for, and no table.
        SyntaxKind::CREATE_SEQUENCE
        | SyntaxKind::ALTER_SEQUENCE
        | SyntaxKind::DROP_SEQUENCE
        | SyntaxKind::CREATE_SCHEMA
        | SyntaxKind::CREATE_TYPE
        | SyntaxKind::CREATE_DOMAIN
        | SyntaxKind::ALTER_TYPE
        | SyntaxKind::CREATE_FUNCTION
        | SyntaxKind::CREATE_PROCEDURE
        | SyntaxKind::CREATE_AGGREGATE
        | SyntaxKind::CREATE_CAST
        | SyntaxKind::CREATE_COLLATION
        | SyntaxKind::CREATE_OPERATOR
        | SyntaxKind::CREATE_ROLE
        | SyntaxKind::ALTER_ROLE
        | SyntaxKind::DROP_ROLE
        | SyntaxKind::ALTER_DEFAULT_PRIVILEGES
        | SyntaxKind::DROP_FUNCTION
        | SyntaxKind::DROP_PROCEDURE
        | SyntaxKind::ALTER_FUNCTION
        | SyntaxKind::ALTER_PROCEDURE
        | SyntaxKind::GRANT
        | SyntaxKind::REVOKE
        | SyntaxKind::SET
        | SyntaxKind::RESET
        | SyntaxKind::SHOW
        | SyntaxKind::NOTIFY
        | SyntaxKind::CREATE_EXTENSION => cascades(root, &mut found),
        SyntaxKind::DO | SyntaxKind::CALL | SyntaxKind::EXECUTE => {
            found.hides("what it runs is not in its text");
        }
        _ => found.hides("it is a kind of statement that is not known"),
    }
    if !is_definition(root.kind()) {
        rows(root, &mut found);
    }
    // What is made here is nobody else's yet.
    let made = found.made.clone();
    found.tables.retain(|effect| !matches!(&effect.on, On::Table(name) if made.contains(name)));
    found
}

/// Statements that keep a query for later, whose tables they do not touch now.
fn is_definition(kind: SyntaxKind) -> bool {
    matches!(
        kind,
        SyntaxKind::CREATE_FUNCTION
            | SyntaxKind::CREATE_PROCEDURE
            | SyntaxKind::CREATE_TRIGGER
            | SyntaxKind::LOCK
            | SyntaxKind::COMMENT_ON
            | SyntaxKind::CREATE_PUBLICATION
            | SyntaxKind::ALTER_PUBLICATION
    )
}

/// What the queries in a statement read and write.
fn rows(root: &SyntaxNode, found: &mut Effects) {
    for node in root.descendants() {
        match node.kind() {
            SyntaxKind::INSERT | SyntaxKind::UPDATE | SyntaxKind::DELETE | SyntaxKind::MERGE => {
                let target = node.descendants().find(|it| {
                    let kind = it.kind();
                    let is_name =
                        kind == SyntaxKind::RELATION_NAME_REF || kind == SyntaxKind::TABLE_NAME_REF;
                    is_name
                        && !it.ancestors().any(|it| {
                            it.kind() == SyntaxKind::WITH_CLAUSE
                                && it.ancestors().any(|it| it == node)
                        })
                });
                let Some(target) = target else { continue };
                let is_bounded = node.children().any(|it| {
                    matches!(it.kind(), SyntaxKind::WHERE_CLAUSE | SyntaxKind::WHERE_CURRENT_OF)
                });
                let all = matches!(node.kind(), SyntaxKind::UPDATE | SyntaxKind::DELETE);
                let effect = effect(&target, Lock::RowExclusive);
                found.add(Effect { all_rows: all && !is_bounded, ..effect });
            }
            SyntaxKind::RELATION_FROM_ITEM => {
                let locks = node.ancestors().find(|it| is_query(it.kind())).is_some_and(|query| {
                    query.children().any(|it| it.kind() == SyntaxKind::LOCKING_CLAUSE)
                });
                let lock = if locks { Lock::RowShare } else { Lock::AccessShare };
                let table = node.children().find(|it| it.kind() == SyntaxKind::RELATION_NAME_REF);
                if let Some(table) = table.filter(|it| !is_of_with(it)) {
                    found.add(effect(&table, lock));
                }
            }
            SyntaxKind::TABLE => {
                named(&node, SyntaxKind::RELATION_NAME_REF, Lock::AccessShare, found);
            }
            _ => {}
        }
    }
}

fn is_query(kind: SyntaxKind) -> bool {
    matches!(
        kind,
        SyntaxKind::SELECT
            | SyntaxKind::SELECT_INTO
            | SyntaxKind::UPDATE
            | SyntaxKind::DELETE
            | SyntaxKind::MERGE
    )
}

/// The name of a query in front of the statement.
fn is_of_with(table: &SyntaxNode) -> bool {
    let Some(its) = name(table).filter(|name| name.schema.is_none()) else { return false };
    let clauses = table
        .ancestors()
        .flat_map(|around| around.children().filter(|it| it.kind() == SyntaxKind::WITH_CLAUSE));
    clauses.into_iter().any(|clause| {
        let names = clause.children().filter(|it| it.kind() == SyntaxKind::WITH_TABLE);
        let mut names = names.filter_map(|it| below(&it, SyntaxKind::CTE_NAME).next());
        names.any(|it| name(&it).as_ref() == Some(&its))
    })
}

fn copy(root: &SyntaxNode, found: &mut Effects) {
    let lock = match below(root, SyntaxKind::COPY_FROM).next() {
        Some(_) => Lock::RowExclusive,
        None => Lock::AccessShare,
    };
    if let Some(table) = below(root, SyntaxKind::COPY_TABLE).next() {
        named(&table, SyntaxKind::TABLE_NAME_REF, lock, found);
    }
}

fn lock_mode(root: &SyntaxNode) -> Lock {
    let mode = below(root, SyntaxKind::LOCK_MODE_CLAUSE).next();
    let words = mode.map(|mode| mode.text().to_string().to_ascii_uppercase());
    let words = words.unwrap_or_default();
    let words: Vec<&str> =
        words.split_whitespace().filter(|it| !["IN", "MODE"].contains(it)).collect();
    match words.join(" ").as_str() {
        "ACCESS SHARE" => Lock::AccessShare,
        "ROW SHARE" => Lock::RowShare,
        "ROW EXCLUSIVE" => Lock::RowExclusive,
        "SHARE UPDATE EXCLUSIVE" => Lock::ShareUpdateExclusive,
        "SHARE" => Lock::Share,
        "SHARE ROW EXCLUSIVE" => Lock::ShareRowExclusive,
        "EXCLUSIVE" => Lock::Exclusive,
        _ => Lock::AccessExclusive,
    }
}

/// The table that a statement makes.
fn made(root: &SyntaxNode, found: &mut Effects) {
    found.made.extend(below(root, SyntaxKind::TABLE_NAME).filter_map(|it| name(&it)));
}

fn create_table(root: &SyntaxNode, found: &mut Effects) {
    made(root, found);
    for node in root.descendants() {
        match node.kind() {
            SyntaxKind::FOREIGN_KEY_CONSTRAINT | SyntaxKind::REFERENCES_CONSTRAINT => {
                named(&node, SyntaxKind::TABLE_NAME_REF, Lock::ShareRowExclusive, found);
            }
            SyntaxKind::LIKE_CLAUSE => {
                named(&node, SyntaxKind::RELATION_NAME_REF, Lock::AccessShare, found);
            }
            SyntaxKind::INHERITS => {
                named(&node, SyntaxKind::TABLE_NAME_REF, Lock::ShareUpdateExclusive, found);
            }
            SyntaxKind::PARTITION_OF => {
                named(&node, SyntaxKind::TABLE_NAME_REF, Lock::AccessExclusive, found);
            }
            _ => {}
        }
    }
}

fn create_index(root: &SyntaxNode, found: &mut Effects) {
    let lock = match has(root, SyntaxKind::CONCURRENTLY_KW) {
        true => Lock::ShareUpdateExclusive,
        false => Lock::Share,
    };
    let relation = root.children().find(|it| it.kind() == SyntaxKind::TABLE_RELATION_NAME);
    let table = relation.as_ref().and_then(|it| below(it, SyntaxKind::TABLE_NAME_REF).next());
    let Some(table) = table else { return };
    let method = root.children().find(|it| it.kind() == SyntaxKind::USING_METHOD);
    let is_btree =
        method.is_none_or(|it| it.text().to_string().to_ascii_lowercase().ends_with("btree"));
    let items = below(root, SyntaxKind::PARTITION_ITEM_LIST).next();
    let items = items.iter().flat_map(SyntaxNode::children);
    let columns = items
        .filter(|it| it.kind() == SyntaxKind::PARTITION_ITEM)
        .map(|it| {
            let first = it.first_child()?;
            (first.kind() == SyntaxKind::NAME_REF).then(|| name(&first))?.map(|name| name.name)
        })
        .collect();
    let partial = root.children().any(|it| it.kind() == SyntaxKind::WHERE_CLAUSE);
    found.add(Effect {
        toil: Toil::Scan,
        why: Some(BUILDS),
        built: vec![Built { columns, partial, is_btree }],
        ..effect(&table, lock)
    });
}

fn reindex(root: &SyntaxNode, found: &mut Effects) {
    let concurrently = root
        .descendants_with_tokens()
        .any(|it| it.as_token().is_some_and(|it| it.text().eq_ignore_ascii_case("concurrently")));
    let lock = if concurrently { Lock::ShareUpdateExclusive } else { Lock::Share };
    let why = Some("indexes are built");
    let tables: Vec<_> = below(root, SyntaxKind::TABLE_NAME_REF).collect();
    for table in &tables {
        found.add(Effect { toil: Toil::Scan, why, ..effect(table, lock) });
    }
    of_indexes(root, lock, Toil::Scan, why, found);
    if found.tables.is_empty() {
        found.hides("it is about every table");
    }
}

/// `CLUSTER`, `VACUUM`, `ANALYZE`: of these tables, or of all.
fn whole(root: &SyntaxNode, lock: Lock, toil: Toil, found: &mut Effects) {
    for table in below(root, SyntaxKind::TABLE_NAME_REF) {
        found.add(Effect { toil, ..effect(&table, lock) });
    }
    if found.tables.is_empty() {
        found.hides("it is about every table");
    }
}

/// `VACUUM FULL t`, `VACUUM (FULL) t`.
fn is_full(root: &SyntaxNode) -> bool {
    let options = below(root, SyntaxKind::VACUUM_OPTION).map(|it| it.text().to_string());
    let is_on = |text: &String| {
        let text = text.to_ascii_lowercase();
        let off = ["off", "false", "0"].iter().any(|off| text.ends_with(off));
        text.starts_with("full") && !off
    };
    has(root, SyntaxKind::FULL_KW) || options.into_iter().any(|text| is_on(&text))
}

fn comment(root: &SyntaxNode, found: &mut Effects) {
    let lock = Lock::ShareUpdateExclusive;
    for node in root.descendants() {
        match node.kind() {
            SyntaxKind::TABLE_NAME_REF | SyntaxKind::RELATION_NAME_REF | SyntaxKind::VIEW_REF => {
                found.add(effect(&node, lock));
            }
            SyntaxKind::QUALIFIED_COLUMN_NAME_REF => {
                let text = node.text().to_string();
                if let Some((table, _)) = text.rsplit_once('.')
                    && let Some(table) = name_of(table)
                {
                    found.add(Effect::new(On::Table(table), lock));
                }
            }
            _ => {}
        }
    }
}

/// What stands on a table: `… ON t`.
fn on(root: &SyntaxNode, lock: Lock, found: &mut Effects) {
    let clause = root.children().find(|it| {
        matches!(it.kind(), SyntaxKind::ON_RELATION | SyntaxKind::ON_TABLE | SyntaxKind::RULE_ON)
    });
    let Some(clause) = clause else { return };
    let table = clause
        .descendants()
        .find(|it| matches!(it.kind(), SyntaxKind::RELATION_NAME_REF | SyntaxKind::TABLE_NAME_REF));
    if let Some(table) = table {
        found.add(effect(&table, lock));
    }
}

fn of_indexes(
    root: &SyntaxNode,
    lock: Lock,
    toil: Toil,
    why: Option<&'static str>,
    found: &mut Effects,
) {
    for index in below(root, SyntaxKind::INDEX_REF).filter_map(|it| name(&it)) {
        found.add(Effect { toil, why, ..Effect::new(On::TableOf(index), lock) });
    }
}

/// `DROP … CASCADE`.
fn cascades(root: &SyntaxNode, found: &mut Effects) {
    if root.children().any(|it| it.kind() == SyntaxKind::CASCADE) {
        found.hides("CASCADE reaches whatever depends on it");
    }
}

/// Everything of one kind below, in order.
pub(super) fn below(
    node: &SyntaxNode,
    kind: SyntaxKind,
) -> impl Iterator<Item = SyntaxNode> + use<> {
    node.descendants().filter(move |it| it.kind() == kind)
}

/// Whether a word stands in a node itself.
pub(super) fn has(node: &SyntaxNode, word: SyntaxKind) -> bool {
    node.children_with_tokens().any(|it| it.kind() == word)
}

/// A lock on each of some tables.
pub(super) fn named(node: &SyntaxNode, kind: SyntaxKind, lock: Lock, found: &mut Effects) {
    for table in below(node, kind) {
        found.add(effect(&table, lock));
    }
}

/// A lock on a table, by its name in the tree.
pub(super) fn effect(table: &SyntaxNode, lock: Lock) -> Effect {
    let name = name(table).unwrap_or_else(|| crate::core::step::QualifiedName {
        schema: None,
        name: table.text().to_string(),
    });
    Effect::new(On::Table(name), lock)
}
