//! What a statement does to tables while it runs: which lock it takes on each, and
//! whether it reads or rewrites all of it.
//!
//! This is a table of our own, from Postgres' sources, on the tree of the
//! statement. Some of it depends on what is in the database: what a column's type
//! is, whether a constraint says already that it is not null. Such an effect says
//! what is so at worst, and what to ask. `tests/locks` runs a statement of
//! each kind and compares.

mod change;
mod read;
mod retype;

pub use retype::{ColumnType, changes_type};

use crate::core::parse::sql::tree::tree;
use crate::core::step::QualifiedName;
use std::fmt;

/// The locks of Postgres, weakest first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Lock {
    /// `SELECT`.
    AccessShare,
    /// `SELECT … FOR UPDATE`.
    RowShare,
    /// `INSERT`, `UPDATE`, `DELETE`.
    RowExclusive,
    /// `VACUUM`, `CREATE INDEX CONCURRENTLY`, `VALIDATE CONSTRAINT`.
    ShareUpdateExclusive,
    /// `CREATE INDEX`.
    Share,
    /// `CREATE TRIGGER`, a foreign key.
    ShareRowExclusive,
    /// `REFRESH MATERIALIZED VIEW CONCURRENTLY`.
    Exclusive,
    /// Most of `ALTER TABLE`, `DROP TABLE`, `TRUNCATE`.
    AccessExclusive,
}

impl Lock {
    /// As Postgres' documentation has it: `ACCESS EXCLUSIVE`.
    pub fn words(self) -> &'static str {
        match self {
            Lock::AccessShare => "ACCESS SHARE",
            Lock::RowShare => "ROW SHARE",
            Lock::RowExclusive => "ROW EXCLUSIVE",
            Lock::ShareUpdateExclusive => "SHARE UPDATE EXCLUSIVE",
            Lock::Share => "SHARE",
            Lock::ShareRowExclusive => "SHARE ROW EXCLUSIVE",
            Lock::Exclusive => "EXCLUSIVE",
            Lock::AccessExclusive => "ACCESS EXCLUSIVE",
        }
    }

    /// Who waits for whoever has it.
    pub fn waiting(self) -> Option<&'static str> {
        match self {
            Lock::AccessShare
            | Lock::RowShare
            | Lock::RowExclusive
            | Lock::ShareUpdateExclusive => None,
            Lock::Share | Lock::ShareRowExclusive | Lock::Exclusive => Some("writers wait"),
            Lock::AccessExclusive => Some("readers and writers wait"),
        }
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// How much of a table a statement goes through.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Toil {
    /// None of it, or as many rows as it is about.
    Nothing,
    /// All of it is read.
    Scan,
    /// All of it is written anew.
    Rewrite,
}

impl Toil {
    /// The word in `plan --output json`.
    pub fn word(self) -> &'static str {
        match self {
            Toil::Nothing => "nothing",
            Toil::Scan => "scan",
            Toil::Rewrite => "rewrite",
        }
    }
}

/// What is locked.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum On {
    /// This table, view or sequence.
    Table(QualifiedName),
    /// The table of this index, which the text does not tell.
    TableOf(QualifiedName),
}

/// What decides whether it is as bad as that.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ask {
    /// `ALTER COLUMN … TYPE`: nothing is rewritten where a value of the old type is
    /// one of the new type as it is.
    Type {
        /// The column.
        column: String,
        /// The new type as it is written.
        to: String,
    },
    /// `SET NOT NULL`: nothing is read where it is so already, or where a constraint
    /// says it.
    NotNull {
        /// The column.
        column: String,
    },
    /// `ADD COLUMN … DEFAULT f()`: nothing is rewritten where the function is not
    /// volatile.
    Volatile {
        /// The functions.
        functions: Vec<QualifiedName>,
    },
}

/// An index that is built.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Built {
    /// Its columns; `None` for an expression.
    pub columns: Vec<Option<String>>,
    /// Only some rows are in it.
    pub partial: bool,
    /// It is a B-tree, whose size can be guessed.
    pub is_btree: bool,
}

/// Which other tables are locked like this one, because foreign keys go there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Along {
    /// None.
    No,
    /// By any foreign key: `DROP TABLE`.
    Any,
    /// By the constraint of this name: `DROP CONSTRAINT`.
    Constraint(String),
}

/// What a statement does to one table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Effect {
    /// The table.
    pub on: On,
    /// The strongest lock on it.
    pub lock: Lock,
    /// How much of it is gone through, at worst.
    pub toil: Toil,
    /// Why, where that is no matter of course.
    pub why: Option<&'static str>,
    /// What decides it, where the text does not.
    pub ask: Option<Ask>,
    /// Indexes that are built.
    pub built: Vec<Built>,
    /// What else is locked.
    pub along: Along,
    /// A query is run that nobody can tell the length of, or all rows are written:
    /// `UPDATE` without `WHERE`.
    pub all_rows: bool,
}

/// All that a statement does to tables.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Effects {
    /// Each table once, in the order in which it is named.
    pub tables: Vec<Effect>,
    /// Tables that are made.
    pub made: Vec<QualifiedName>,
    /// Columns that a constraint made here says are not null: `(table, column)`.
    pub not_null: Vec<(QualifiedName, String)>,
    /// Why there may be more.
    pub unknown: Option<String>,
    /// Nothing of it is known: it could not be read.
    pub unread: bool,
}

impl Effect {
    fn new(on: On, lock: Lock) -> Effect {
        Effect {
            on,
            lock,
            toil: Toil::Nothing,
            why: None,
            ask: None,
            built: Vec::new(),
            along: Along::No,
            all_rows: false,
        }
    }

    /// Two things that one statement does to a table.
    fn and(mut self, other: Effect) -> Effect {
        self.lock = self.lock.max(other.lock);
        // Of two that are the same the certain one counts.
        let heavier = other.toil > self.toil
            || other.toil == self.toil && self.ask.is_some() && other.ask.is_none();
        if heavier {
            (self.toil, self.why, self.ask) = (other.toil, other.why, other.ask);
        }
        self.built.extend(other.built);
        if self.along == Along::No {
            self.along = other.along;
        }
        self.all_rows |= other.all_rows;
        self
    }
}

impl Effects {
    fn add(&mut self, effect: Effect) {
        match self.tables.iter_mut().find(|known| known.on == effect.on) {
            Some(known) => *known = known.clone().and(effect),
            None => self.tables.push(effect),
        }
    }

    fn hides(&mut self, why: impl Into<String>) {
        self.unknown.get_or_insert(why.into());
    }
}

/// What one statement does to tables.
pub fn effects(statement: &str) -> Effects {
    tree(statement, read::read).unwrap_or_else(|why| Effects {
        unknown: Some(why),
        unread: true,
        ..Effects::default()
    })
}

/// `users: ACCESS EXCLUSIVE, rewrite (…)`, for tests and for who reads them.
impl fmt::Display for Effects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = self.tables.iter().map(Effect::to_string).collect();
        parts.extend(self.unknown.iter().map(|why| format!("? {why}")));
        f.write_str(&parts.join("; "))
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.on {
            On::Table(name) => write!(f, "{name}: {}", self.lock),
            On::TableOf(index) => write!(f, "table of {index}: {}", self.lock),
        }?;
        if self.toil > Toil::Nothing {
            write!(f, ", {}", self.toil.word())?;
        }
        if let Some(why) = self.why {
            write!(f, " ({why})")?;
        }
        match &self.ask {
            Some(Ask::Type { column, to }) => write!(f, " unless {column} fits {to}"),
            Some(Ask::NotNull { column }) => write!(f, " unless {column} is never null"),
            Some(Ask::Volatile { functions }) => {
                let names: Vec<String> = functions.iter().map(ToString::to_string).collect();
                write!(f, " unless {} is not volatile", names.join(", "))
            }
            None => Ok(()),
        }?;
        match &self.along {
            Along::No => Ok(()),
            Along::Any => f.write_str(", along foreign keys"),
            Along::Constraint(name) => write!(f, ", along {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(statement: &str, expected: &str) {
        assert_eq!(effects(statement).to_string(), expected, "{statement}");
    }

    #[test]
    fn reading_and_writing_rows() {
        check("select * from t join u using (id)", "t: ACCESS SHARE; u: ACCESS SHARE");
        check("select * from t for update", "t: ROW SHARE");
        check("insert into t select * from u", "t: ROW EXCLUSIVE; u: ACCESS SHARE");
        check("update t set a = 1", "t: ROW EXCLUSIVE");
        assert!(effects("update t set a = 1").tables[0].all_rows);
        assert!(!effects("update t set a = 1 where a = 2").tables[0].all_rows);
        check("delete from t using u where t.id = u.id", "t: ROW EXCLUSIVE; u: ACCESS SHARE");
        check("truncate t", "t: ACCESS EXCLUSIVE, along foreign keys");
        check("lock table t in share mode", "t: SHARE");
        check("lock t", "t: ACCESS EXCLUSIVE");
    }

    #[test]
    fn columns() {
        check("alter table t add column a int", "t: ACCESS EXCLUSIVE");
        check("alter table t add a timestamptz not null default now()", "t: ACCESS EXCLUSIVE");
        check(
            "alter table t add a uuid default gen_random_uuid()",
            "t: ACCESS EXCLUSIVE, rewrite (the default is another one in each row)",
        );
        check(
            "alter table t add a int default shop.f(1)",
            "t: ACCESS EXCLUSIVE, rewrite (the default is another one in each row) unless shop.f is not volatile",
        );
        check(
            "alter table t add a bigserial",
            "t: ACCESS EXCLUSIVE, rewrite (each row gets a number)",
        );
        check(
            "alter table t alter a type text",
            "t: ACCESS EXCLUSIVE, rewrite (the type changes) unless a fits text",
        );
        check(
            "alter table t alter a type int using length(a)",
            "t: ACCESS EXCLUSIVE, rewrite (USING computes each value)",
        );
        check(
            "alter table t alter a type varchar(20) using a::varchar(20)",
            "t: ACCESS EXCLUSIVE, rewrite (the type changes) unless a fits varchar(20)",
        );
        check(
            "alter table t alter a set not null",
            "t: ACCESS EXCLUSIVE, scan (no row may be null) unless a is never null",
        );
        check("alter table t alter a set statistics 100", "t: SHARE UPDATE EXCLUSIVE");
        check("alter table t drop a, drop column b", "t: ACCESS EXCLUSIVE");
    }

    #[test]
    fn constraints() {
        check(
            "alter table t add constraint c check (a > 0)",
            "t: ACCESS EXCLUSIVE, scan (each row is checked)",
        );
        check("alter table t add check (a > 0) not valid", "t: ACCESS EXCLUSIVE");
        check(
            "alter table t validate constraint c",
            "t: SHARE UPDATE EXCLUSIVE, scan (each row is checked)",
        );
        check(
            "alter table t add foreign key (a) references u",
            "t: SHARE ROW EXCLUSIVE, scan (each row is checked); u: SHARE ROW EXCLUSIVE",
        );
        check(
            "alter table t add foreign key (a) references u not valid",
            "t: SHARE ROW EXCLUSIVE; u: SHARE ROW EXCLUSIVE",
        );
        check("alter table t add primary key (a)", "t: ACCESS EXCLUSIVE, scan (an index is built)");
        let built = &effects("alter table t add constraint u unique (a, b)").tables[0].built[0];
        assert_eq!(built.columns, [Some("a".to_owned()), Some("b".to_owned())]);
        check("alter table t add unique using index i", "t: ACCESS EXCLUSIVE");
        check("alter table t drop constraint c", "t: ACCESS EXCLUSIVE, along c");
        assert_eq!(
            effects("alter table t add constraint c check (a is not null) not valid").not_null,
            [(QualifiedName { schema: None, name: "t".to_owned() }, "a".to_owned())]
        );
    }

    #[test]
    fn indexes() {
        check("create index on t (a)", "t: SHARE, scan (an index is built)");
        check(
            "create unique index concurrently i on t (a)",
            "t: SHARE UPDATE EXCLUSIVE, scan (an index is built)",
        );
        check("drop index i", "table of i: ACCESS EXCLUSIVE");
        check("drop index concurrently i", "table of i: SHARE UPDATE EXCLUSIVE");
        check("reindex table t", "t: SHARE, scan (indexes are built)");
        check(
            "reindex (concurrently) index i",
            "table of i: SHARE UPDATE EXCLUSIVE, scan (indexes are built)",
        );
    }

    #[test]
    fn what_nobody_can_tell() {
        check("do $$ begin end $$", "? what it runs is not in its text");
        check("call f()", "? what it runs is not in its text");
        check("selec 1", "? it cannot be parsed");
        check("create function f() returns int language sql return 1", "");
        check("set lock_timeout = '1s'", "");
        check("vacuum", "? it is about every table");
    }
}
