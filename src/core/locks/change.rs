//! What each part of `ALTER TABLE` does.

use super::read::{BUILDS, below, effect, named};
use super::{Along, Ask, Built, Effect, Effects, Lock, On, Toil};
use crate::core::parse::sql::tree::{name, name_of};
use crate::core::step::QualifiedName;
use squawk_syntax::{SyntaxKind, SyntaxNode};

/// `each row is checked`, where it is.
const CHECKED: &str = "each row is checked";

/// Functions of Postgres that answer the same in a whole statement.
const STEADY: &[&str] = &[
    "abs",
    "array_fill",
    "coalesce",
    "concat",
    "current_setting",
    "date",
    "date_trunc",
    "decode",
    "encode",
    "format",
    "greatest",
    "jsonb_build_array",
    "jsonb_build_object",
    "json_build_array",
    "json_build_object",
    "least",
    "length",
    "lower",
    "make_date",
    "make_interval",
    "make_timestamptz",
    "md5",
    "now",
    "nullif",
    "round",
    "statement_timestamp",
    "to_char",
    "to_jsonb",
    "to_timestamp",
    "transaction_timestamp",
    "upper",
];

/// Those that do not.
const VOLATILE: &[&str] = &[
    "clock_timestamp",
    "gen_random_bytes",
    "gen_random_uuid",
    "nextval",
    "random",
    "random_normal",
    "timeofday",
    "uuidv4",
    "uuidv7",
    "uuid_generate_v1",
    "uuid_generate_v4",
];

pub(super) fn alter_table(root: &SyntaxNode, found: &mut Effects) {
    let relation = root.children().find(|it| it.kind() == SyntaxKind::TABLE_RELATION_NAME);
    let table = relation.as_ref().and_then(|it| below(it, SyntaxKind::TABLE_NAME_REF).next());
    let Some(table) = table.and_then(|it| name(&it)) else {
        return found.hides("it is about every table of a tablespace");
    };
    let mut relation_seen = false;
    for action in root.children() {
        if action.kind() == SyntaxKind::TABLE_RELATION_NAME {
            relation_seen = true;
        } else if relation_seen {
            let change = change(&action, &table, found);
            found.add(change);
        }
        if action.children().any(|it| it.kind() == SyntaxKind::CASCADE) {
            found.hides("CASCADE reaches whatever depends on it");
        }
    }
    // The table itself comes first, whatever its constraints name.
    let own = On::Table(table);
    found.tables.sort_by_key(|effect| effect.on != own);
}

/// One action, on the table itself. Others are added.
fn change(action: &SyntaxNode, table: &QualifiedName, found: &mut Effects) -> Effect {
    let with = |lock| Effect::new(On::Table(table.clone()), lock);
    let strongest = || with(Lock::AccessExclusive);
    match action.kind() {
        SyntaxKind::ADD_COLUMN => add_column(action, table, found),
        SyntaxKind::ADD_CONSTRAINT => {
            let constraint = action.first_child();
            constraint.map_or_else(strongest, |it| constraint_of(&it, table, false, found))
        }
        SyntaxKind::ALTER_COLUMN => alter_column(action, table),
        SyntaxKind::VALIDATE_CONSTRAINT => {
            Effect { toil: Toil::Scan, why: Some(CHECKED), ..with(Lock::ShareUpdateExclusive) }
        }
        SyntaxKind::DROP_CONSTRAINT => {
            let constraint = below(action, SyntaxKind::CONSTRAINT_NAME_REF).next();
            let along = constraint
                .and_then(|it| name(&it))
                .map_or(Along::No, |it| Along::Constraint(it.name));
            Effect { along, ..strongest() }
        }
        SyntaxKind::ENABLE_TRIGGER
        | SyntaxKind::DISABLE_TRIGGER
        | SyntaxKind::ENABLE_ALWAYS_TRIGGER
        | SyntaxKind::ENABLE_REPLICA_TRIGGER => with(Lock::ShareRowExclusive),
        SyntaxKind::CLUSTER_ON | SyntaxKind::SET_WITHOUT_CLUSTER => {
            with(Lock::ShareUpdateExclusive)
        }
        SyntaxKind::SET_OPTIONS | SyntaxKind::RESET_OPTIONS => with(options_lock(action)),
        SyntaxKind::ATTACH_PARTITION => {
            for partition in below(action, SyntaxKind::TABLE_NAME_REF) {
                found.add(Effect {
                    toil: Toil::Scan,
                    why: Some("each row must belong there"),
                    ..effect(&partition, Lock::AccessExclusive)
                });
            }
            with(Lock::ShareUpdateExclusive)
        }
        SyntaxKind::DETACH_PARTITION => {
            let word = action.text().to_string().to_ascii_lowercase();
            let word = word.split_whitespace().last().unwrap_or_default().to_owned();
            let (own, partition) = match word.as_str() {
                "concurrently" | "finalize" => (Lock::ShareUpdateExclusive, Lock::AccessExclusive),
                _ => (Lock::AccessExclusive, Lock::AccessExclusive),
            };
            named(action, SyntaxKind::TABLE_NAME_REF, partition, found);
            with(own)
        }
        SyntaxKind::INHERIT_TABLE | SyntaxKind::NO_INHERIT_TABLE => {
            named(action, SyntaxKind::TABLE_NAME_REF, Lock::ShareUpdateExclusive, found);
            strongest()
        }
        SyntaxKind::SET_LOGGED | SyntaxKind::SET_UNLOGGED => Effect {
            toil: Toil::Rewrite,
            why: Some("all of it is written or forgotten by the log"),
            ..strongest()
        },
        SyntaxKind::SET_TABLESPACE => {
            Effect { toil: Toil::Rewrite, why: Some("its files are copied"), ..strongest() }
        }
        SyntaxKind::SET_ACCESS_METHOD => Effect { toil: Toil::Rewrite, ..strongest() },
        _ => strongest(),
    }
}

/// Some options of a table matter to nobody who reads or writes it.
fn options_lock(action: &SyntaxNode) -> Lock {
    const WEAK: [&str; 4] = ["fillfactor", "parallel_workers", "toast_tuple_target", "autovacuum_"];
    const WEAK_TOO: [&str; 4] = ["toast.", "vacuum_", "log_autovacuum_", "vacuum"];
    let weak = |text: &str| {
        let text = text.trim().to_ascii_lowercase();
        WEAK.iter().chain(&WEAK_TOO).any(|option| text.starts_with(option))
    };
    let mut options = below(action, SyntaxKind::ATTRIBUTE_OPTION).map(|it| it.text().to_string());
    match options.all(|it| weak(&it)) {
        true => Lock::ShareUpdateExclusive,
        false => Lock::AccessExclusive,
    }
}

fn add_column(action: &SyntaxNode, table: &QualifiedName, found: &mut Effects) -> Effect {
    let mut sum = Effect::new(On::Table(table.clone()), Lock::AccessExclusive);
    let rewrite = |why| Effect {
        toil: Toil::Rewrite,
        why: Some(why),
        ..Effect::new(On::Table(table.clone()), Lock::AccessExclusive)
    };
    let of_type = action.children().find(|it| is_type(it.kind()));
    let of_type = of_type.map(|it| it.text().to_string().to_ascii_lowercase());
    const SERIAL: [&str; 6] =
        ["serial", "bigserial", "smallserial", "serial4", "serial8", "serial2"];
    if of_type.is_some_and(|it| SERIAL.contains(&it.trim())) {
        sum = sum.and(rewrite("each row gets a number"));
    }
    let constraints: Vec<SyntaxNode> = action.children().collect();
    let has_default = constraints.iter().any(|it| it.kind() == SyntaxKind::DEFAULT_CONSTRAINT);
    for constraint in &constraints {
        match constraint.kind() {
            SyntaxKind::DEFAULT_CONSTRAINT => {
                let mut effect = rewrite("the default is another one in each row");
                match volatility(constraint) {
                    Volatility::Steady => continue,
                    Volatility::Volatile => {}
                    Volatility::Unknown(functions) => {
                        effect.ask = Some(Ask::Volatile { functions });
                    }
                }
                sum = sum.and(effect);
            }
            SyntaxKind::GENERATED_CONSTRAINT => {
                let text = constraint.text().to_string().to_ascii_lowercase();
                if text.contains("identity") {
                    sum = sum.and(rewrite("each row gets a number"));
                } else if !text.trim_end().ends_with("virtual") {
                    sum = sum.and(rewrite("each row gets its value"));
                }
            }
            // Without a default no row can have it.
            SyntaxKind::NOT_NULL_CONSTRAINT if has_default => {}
            SyntaxKind::NOT_NULL_CONSTRAINT => {
                let scan = Effect { toil: Toil::Scan, why: Some(CHECKED), ..sum.clone() };
                sum = sum.and(scan);
            }
            // In a new column without a default there is nothing to look for.
            SyntaxKind::REFERENCES_CONSTRAINT if !has_default => {
                let lock = Lock::ShareRowExclusive;
                named(constraint, SyntaxKind::TABLE_NAME_REF, lock, found);
            }
            SyntaxKind::CHECK_CONSTRAINT
            | SyntaxKind::REFERENCES_CONSTRAINT
            | SyntaxKind::UNIQUE_CONSTRAINT
            | SyntaxKind::PRIMARY_KEY_CONSTRAINT
            | SyntaxKind::EXCLUDE_CONSTRAINT => {
                sum = sum.and(constraint_of(constraint, table, true, found));
            }
            _ => {}
        }
    }
    sum
}

/// What a constraint does to the table that gets it.
fn constraint_of(
    constraint: &SyntaxNode,
    table: &QualifiedName,
    in_column: bool,
    found: &mut Effects,
) -> Effect {
    let with = |lock| Effect::new(On::Table(table.clone()), lock);
    let not_valid = constraint
        .children()
        .any(|it| matches!(it.kind(), SyntaxKind::NOT_VALID | SyntaxKind::NOT_ENFORCED));
    let (toil, why) = if not_valid { (Toil::Nothing, None) } else { (Toil::Scan, Some(CHECKED)) };
    match constraint.kind() {
        SyntaxKind::FOREIGN_KEY_CONSTRAINT | SyntaxKind::REFERENCES_CONSTRAINT => {
            for other in below(constraint, SyntaxKind::TABLE_NAME_REF) {
                found.add(effect(&other, Lock::ShareRowExclusive));
            }
            Effect { toil, why, ..with(Lock::ShareRowExclusive) }
        }
        SyntaxKind::UNIQUE_CONSTRAINT
        | SyntaxKind::PRIMARY_KEY_CONSTRAINT
        | SyntaxKind::EXCLUDE_CONSTRAINT => {
            if below(constraint, SyntaxKind::USING_INDEX_NAME).next().is_some() {
                return with(Lock::AccessExclusive);
            }
            let columns = below(constraint, SyntaxKind::COLUMN_NAME_REF);
            let columns: Vec<_> = columns.map(|it| name(&it).map(|it| it.name)).collect();
            let is_btree = !in_column && constraint.kind() != SyntaxKind::EXCLUDE_CONSTRAINT;
            let built = vec![Built { columns, partial: false, is_btree }];
            let toil = Toil::Scan;
            Effect { toil, why: Some(BUILDS), built, ..with(Lock::AccessExclusive) }
        }
        SyntaxKind::CHECK_CONSTRAINT => {
            if let Some(column) = never_null(constraint) {
                found.not_null.push((table.clone(), column));
            }
            Effect { toil, why, ..with(Lock::AccessExclusive) }
        }
        _ => Effect { toil, why, ..with(Lock::AccessExclusive) },
    }
}

/// The column of `CHECK (column IS NOT NULL)`.
fn never_null(check: &SyntaxNode) -> Option<String> {
    let text = check.text().to_string();
    let inside = text.split_once('(')?.1.rsplit_once(')')?.0.trim();
    let lower = inside.to_ascii_lowercase();
    let column = lower.strip_suffix("null")?.trim_end().strip_suffix("not")?.trim_end();
    let column = column.strip_suffix("is")?;
    let name = name_of(inside.get(..column.len())?.trim())?;
    name.schema.is_none().then_some(name.name)
}

fn alter_column(action: &SyntaxNode, table: &QualifiedName) -> Effect {
    let with = |lock| Effect::new(On::Table(table.clone()), lock);
    let column = below(action, SyntaxKind::COLUMN_NAME_REF).next();
    let column = column.and_then(|it| name(&it)).map(|it| it.name).unwrap_or_default();
    let Some(option) = action.children().last() else { return with(Lock::AccessExclusive) };
    match option.kind() {
        SyntaxKind::SET_STATISTICS
        | SyntaxKind::SET_OPTIONS
        | SyntaxKind::RESET_OPTIONS
        | SyntaxKind::SET_OPTIONS_LIST => with(Lock::ShareUpdateExclusive),
        SyntaxKind::SET_NOT_NULL => Effect {
            toil: Toil::Scan,
            why: Some("no row may be null"),
            ask: Some(Ask::NotNull { column }),
            ..with(Lock::AccessExclusive)
        },
        SyntaxKind::SET_EXPRESSION => Effect {
            toil: Toil::Rewrite,
            why: Some("each row gets its value"),
            ..with(Lock::AccessExclusive)
        },
        SyntaxKind::SET_TYPE => {
            let to = option.children().find(|it| is_type(it.kind()));
            let to = to.map(|it| it.text().to_string()).unwrap_or_default();
            let using = option.children().find(|it| it.kind() == SyntaxKind::USING_EXPR);
            let computes = using.is_some_and(|using| !is_cast(&using, &column, &to));
            Effect {
                toil: Toil::Rewrite,
                why: Some(match computes {
                    true => "USING computes each value",
                    false => "the type changes",
                }),
                ask: (!computes).then_some(Ask::Type { column, to }),
                ..with(Lock::AccessExclusive)
            }
        }
        _ => with(Lock::AccessExclusive),
    }
}

/// `USING a`, `USING a::text`, which say nothing new.
fn is_cast(using: &SyntaxNode, column: &str, to: &str) -> bool {
    let plain = |text: &str| -> String {
        let text = text.chars().filter(|c| !c.is_whitespace() && *c != '"');
        text.collect::<String>().to_ascii_lowercase()
    };
    let text = plain(&using.text().to_string());
    let (column, to) = (plain(column), plain(to));
    text == format!("using{column}") || text == format!("using{column}::{to}")
}

fn is_type(kind: SyntaxKind) -> bool {
    matches!(
        kind,
        SyntaxKind::ARRAY_TYPE
            | SyntaxKind::PATH_TYPE
            | SyntaxKind::VARCHAR_TYPE
            | SyntaxKind::CHARACTER_TYPE
            | SyntaxKind::BIT_TYPE
            | SyntaxKind::BIT_VARYING_TYPE
            | SyntaxKind::DOUBLE_TYPE
            | SyntaxKind::TIME_TYPE
            | SyntaxKind::TIMESTAMP_TYPE
            | SyntaxKind::INTERVAL_TYPE
    )
}

enum Volatility {
    Steady,
    Volatile,
    Unknown(Vec<QualifiedName>),
}

/// Whether a default is the same in each row.
fn volatility(default: &SyntaxNode) -> Volatility {
    let mut unknown = Vec::new();
    for call in below(default, SyntaxKind::CALL_EXPR) {
        let function = call
            .children()
            .find(|it| matches!(it.kind(), SyntaxKind::NAME_REF | SyntaxKind::FIELD_EXPR));
        let Some(function) = function.and_then(|it| name(&it)) else { continue };
        let own = function.schema.as_deref().is_none_or(|schema| schema == "pg_catalog");
        match function.name.as_str() {
            known if own && VOLATILE.contains(&known) => return Volatility::Volatile,
            known if own && STEADY.contains(&known) => {}
            _ => unknown.push(function),
        }
    }
    match unknown.is_empty() {
        true => Volatility::Steady,
        false => Volatility::Unknown(unknown),
    }
}
