//! Steps: what a migration asks for, as data.
//!
//! A step is the smallest thing that is applied and recorded. It lives in one
//! store. It holds no connection and no closure, so it can be compared,
//! printed, hashed and confirmed.

use crate::core::backfill::Backfill;
use crate::core::checksum::Checksum;
use crate::core::id::{Direction, Phase, StepName, StoreName};
use crate::core::one_line::one_line;
use crate::core::parse::manifest::{Expect, Invariant};
use std::fmt;
use std::time::Duration;

/// One step of one migration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Step {
    /// Its name, stable and unique in its migration.
    pub name: StepName,
    /// The checksum of the step's own text, not of the file around it.
    pub checksum: Checksum,
    /// How effect and record reach the store.
    pub commit: Commit,
    /// What to do, and in which store.
    pub body: Body,
    /// The file it stands in, relative to the migrations folder, and the line of
    /// its first statement.
    pub file: String,
    /// From 1.
    pub line: u32,
}

impl Step {
    /// The store that the step writes.
    pub fn store(&self) -> StoreName {
        match &self.body {
            Body::Postgres(_) => StoreName::Postgres,
            Body::Mongo(_) => StoreName::Mongo,
            Body::Backfill(backfill) => backfill.work.store(),
            Body::Check(invariant) => invariant.check.store(),
            Body::Program(program) => program.store,
        }
    }

    /// Lets MongoDB remember a program: in a project that has no Postgres.
    pub fn remember_in_mongo(&mut self) {
        if let Body::Program(program) = &mut self.body {
            program.store = StoreName::Mongo;
        }
    }

    /// Whether it is a script of nothing but comments.
    pub fn is_nothing(&self) -> bool {
        match &self.body {
            Body::Postgres(body) => body.statements.is_empty(),
            Body::Mongo(body) => body.kind == MongoKind::Nothing,
            Body::Backfill(_) | Body::Check(_) | Body::Program(_) => false,
        }
    }

    /// The phase it belongs to.
    pub fn phase(&self) -> Phase {
        self.name.phase()
    }

    /// What it does, on one line.
    pub fn summary(&self) -> String {
        let (first, more) = match &self.body {
            Body::Postgres(body) => {
                let first = body.statements.first().map(|statement| statement.text.as_str());
                (first.unwrap_or("(no statement)"), body.statements.len().saturating_sub(1))
            }
            Body::Mongo(body) if body.kind == MongoKind::Nothing => ("(no statement)", 0),
            Body::Mongo(body) => (body.text.as_str(), 0),
            Body::Backfill(backfill) => (backfill.title.as_str(), 0),
            Body::Check(invariant) => (invariant.name.text.as_str(), 0),
            Body::Program(program) => (program.title.as_str(), 0),
        };
        let line = one_line(first);
        match more {
            0 => line,
            more => format!("{line}; and {more} more"),
        }
    }

    /// The functions of the program around this library that it calls.
    pub fn functions(&self) -> impl Iterator<Item = (Caller, &str)> {
        let (statements, batches) = match &self.body {
            Body::Postgres(body) => (body.statements.as_slice(), None),
            Body::Backfill(backfill) => (&[][..], backfill.work.call()),
            Body::Mongo(_) | Body::Check(_) | Body::Program(_) => (&[][..], None),
        };
        let statements = statements.iter().filter_map(|statement| match &statement.kind {
            SqlKind::Function { name } => Some((Caller::Script, name.as_str())),
            _ => None,
        });
        let store = self.store();
        statements.chain(batches.map(|call| (Caller::Batches(store), call.name.as_str())))
    }

    /// Which way it goes.
    pub fn direction(&self) -> Direction {
        self.name.direction()
    }
}

/// What calls a function of the program around this library. A function is made for
/// one of these: it is given something else by each.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Caller {
    /// A script for Postgres, once.
    Script,
    /// A backfill in this store, for each of its batches.
    Batches(StoreName),
}

/// A call of a function of the program around this library, as it was written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Call {
    /// What the function is called.
    pub name: String,
    /// All of it: `lockstep.fill_names('1')`.
    pub text: String,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// How the effect of a step and its record reach the store.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Commit {
    /// Effect and record in one transaction: both or neither.
    Atomic,
    /// `started`, effect, `applied`: for what no transaction can hold. In
    /// between the step is in doubt, and is settled by asking the server.
    Journaled,
}

/// What a step does, and where.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// In Postgres.
    Postgres(PgStep),
    /// In MongoDB.
    Mongo(MongoStep),
    /// Many rows of one store, in batches.
    Backfill(Box<Backfill>),
    /// What must be true. It changes nothing, so it is recorded in one store.
    Check(Box<Invariant>),
    /// A program of the migration's own.
    Program(Program),
}

/// There are floats in documents. One that is not a number makes a step differ
/// from itself, so that a plan with it is confirmed anew: that is the safe side.
impl Eq for Body {}

/// A program that a migration brings along or names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Program {
    /// What people call it.
    pub title: String,
    /// The program and its arguments; no shell in between.
    pub command: Vec<String>,
    /// The folder of the migration, in which it runs.
    pub folder: String,
    /// The store that remembers it.
    pub store: StoreName,
}

/// A run of statements for Postgres. An atomic step may have none: a script
/// of comments is applied and recorded like any other.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PgStep {
    /// In order. A journaled step has exactly one.
    pub statements: Vec<SqlStatement>,
    /// From `[timeouts]`; `None` is the engine's own for this class of statement.
    pub timeouts: Timeouts,
    /// What must be true in the step's own transaction, behind its locks, before
    /// its first statement. Only an atomic step has guards.
    pub guards: Vec<Guard>,
    /// Tables that are locked against everybody before the guards are asked; what
    /// is not there is left out.
    pub locks: Vec<QualifiedName>,
}

/// An invariant with `locked = true`: nothing can slip in between its answer and
/// the statements that rely on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Guard {
    /// What the invariant is called.
    pub name: String,
    /// A query of one value.
    pub query: String,
    /// What the value must be.
    pub expect: Expect,
    /// What shows rows that offend against it.
    pub sample: Option<String>,
}

/// A float that is not a number makes a guard differ from itself, which only
/// means that a plan with it is confirmed anew.
impl Eq for Guard {}

/// One SQL statement as it stands in its file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SqlStatement {
    /// Its text, without the semicolon.
    pub text: String,
    /// The line on which it begins, from 1.
    pub line: u32,
    /// What matters about it for running it safely.
    pub kind: SqlKind,
}

/// What matters about a statement for running it safely.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SqlKind {
    /// May run inside a transaction block.
    Transactional,
    /// `CREATE INDEX CONCURRENTLY`. A name is required: without one nobody could
    /// say afterwards whether it is there.
    CreateIndexConcurrently {
        /// The index, as written (its schema is that of the table).
        index: String,
        /// The table.
        table: QualifiedName,
    },
    /// `DROP INDEX CONCURRENTLY`.
    DropIndexConcurrently {
        /// Postgres allows just one.
        index: QualifiedName,
    },
    /// `REINDEX … CONCURRENTLY`.
    ReindexConcurrently {
        /// What is rebuilt.
        target: ReindexTarget,
    },
    /// `ALTER TABLE … DETACH PARTITION … CONCURRENTLY`.
    DetachConcurrently {
        /// The partitioned table.
        parent: QualifiedName,
        /// The partition.
        partition: QualifiedName,
    },
    /// May not run inside a transaction block; running it twice is running it
    /// once (`VACUUM`, `REINDEX SCHEMA`, `ALTER SYSTEM`, `CLUSTER`).
    AloneRepeatable,
    /// May not run inside a transaction block, and nobody but a person can say
    /// whether it happened (`CREATE DATABASE`, `CREATE SUBSCRIPTION`, …).
    AloneOnce,
    /// `CALL lockstep.name(…)`: a function of the program that embeds this library. It
    /// runs in the transaction of its step, in the place of the statement.
    Function {
        /// What it is called.
        name: String,
    },
}

impl SqlKind {
    /// Whether Postgres accepts the statement inside a transaction block.
    pub fn in_transaction(&self) -> bool {
        matches!(self, SqlKind::Transactional | SqlKind::Function { .. })
    }
}

/// A possibly qualified name, unquoted, folded to lower case where it was not
/// quoted.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct QualifiedName {
    /// The schema, if it was written.
    pub schema: Option<String>,
    /// The name.
    pub name: String,
}

impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// What `REINDEX … CONCURRENTLY` rebuilds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ReindexTarget {
    /// One index.
    Index(QualifiedName),
    /// Every index of a table.
    Table(QualifiedName),
    /// Every index of a schema.
    Schema(String),
    /// Every index of the database.
    Database,
}

/// One statement for MongoDB. A statement of no command (a script of comments)
/// is applied and recorded like any other.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MongoStep {
    /// The statement as it stands in its file.
    pub text: String,
    /// Usually one; a `bulkWrite` and a large `insertMany` become several, which
    /// run in one transaction.
    pub commands: Vec<Command>,
    /// What matters about it for running it safely.
    pub kind: MongoKind,
}

/// A database command.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Command {
    /// The database it is sent to.
    pub on: CommandTarget,
    /// The command document in BSON: bytes, because they compare, and because
    /// they are what is sent.
    pub body: Vec<u8>,
}

/// The database a command is sent to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CommandTarget {
    /// The database of the connection.
    Database,
    /// `admin`.
    Admin,
}

/// What matters about a MongoDB statement for running it safely.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MongoKind {
    /// A write of documents: in a transaction with its record, on a replica set.
    Write(Repeat),
    /// `create` of a collection.
    CreateCollection,
    /// `create` of a view.
    CreateView,
    /// `collMod`.
    CollMod,
    /// `createIndexes`.
    CreateIndexes,
    /// `dropIndexes`.
    DropIndexes,
    /// `drop`.
    Drop,
    /// `renameCollection`; both names are without the database, which is put in
    /// front when the command is sent.
    Rename,
    /// `aggregate` that ends with `$out` or `$merge`.
    Output(Repeat),
    /// `dropDatabase`: read, so that it can be refused by name; it would take
    /// the history with it.
    DropDatabase,
    /// Any other command. Nobody but a person can say whether it happened.
    Other,
    /// No command at all.
    Nothing,
}

impl MongoKind {
    /// How it is committed where the server has transactions.
    pub fn commit(self) -> Commit {
        match self {
            MongoKind::Write(_) | MongoKind::Nothing => Commit::Atomic,
            MongoKind::CreateCollection
            | MongoKind::CreateView
            | MongoKind::CollMod
            | MongoKind::CreateIndexes
            | MongoKind::DropIndexes
            | MongoKind::Drop
            | MongoKind::Rename
            | MongoKind::Output(_)
            | MongoKind::DropDatabase
            | MongoKind::Other => Commit::Journaled,
        }
    }
}

/// Whether doing it twice is the same as doing it once, by its shape alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Repeat {
    /// `$set` to literals, deletes, inserts with an `_id` of their own, …
    Harmless,
    /// `$inc`, `$push`, inserts without `_id`, updates by pipeline, …
    Harmful,
}

/// Limits that a migration sets for itself.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Timeouts {
    /// `lock_timeout`.
    pub lock: Option<Duration>,
    /// `statement_timeout`.
    pub statement: Option<Duration>,
}
