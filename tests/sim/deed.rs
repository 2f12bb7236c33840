//! What statements do: as little of both databases as migrations need to show
//! what was lost, done twice, or half done.

use lockstep::core::step::{Body, MongoKind, MongoStep, PgStep, Repeat, SqlKind, SqlStatement};
use std::collections::BTreeMap;

/// What is in one store, besides the history.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Schema {
    /// Tables and collections: how often each row is in them.
    pub tables: BTreeMap<String, BTreeMap<String, u32>>,
    /// Indexes.
    pub indexes: BTreeMap<String, Index>,
}

/// An index.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Index {
    pub table: String,
    /// Half built and half dropped ones are not.
    pub valid: bool,
}

/// How much of it happens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Extent {
    Whole,
    Half,
}

/// What one statement does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Deed {
    CreateTable {
        table: String,
        exists: IfExists,
    },
    DropTable {
        table: String,
    },
    Add {
        table: String,
        row: String,
        missing: IfMissing,
    },
    Remove {
        table: String,
        row: String,
    },
    CreateIndex {
        index: String,
        table: String,
        exists: IfExists,
        rows: Rows,
    },
    DropIndex {
        index: String,
    },
    Nothing,
    /// The server refuses it.
    Impossible,
}

/// Which rows an index can be built over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rows {
    Any,
    /// It is unique.
    Different,
}

/// What happens when the name is taken by what the statement would make.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IfExists {
    Fail,
    Fine,
}

/// What happens when there is no such table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IfMissing {
    Fail,
    Create,
}

/// What a server answers about the effect of a statement.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum There {
    Yes,
    No,
    /// It, or the beginning of it.
    Listed,
    /// The store has no question that tells.
    NobodyKnows,
}

impl Deed {
    /// Of each statement of a step.
    pub fn of(body: &Body) -> Vec<Deed> {
        match body {
            Body::Postgres(step) => Deed::of_postgres(step),
            Body::Mongo(step) => vec![Deed::of_mongo(step)],
            Body::Backfill(_) | Body::Check(_) | Body::Program(_) => {
                unreachable!("no scenario has them")
            }
        }
    }

    pub fn of_postgres(step: &PgStep) -> Vec<Deed> {
        step.statements.iter().map(Deed::of_sql).collect()
    }

    fn of_sql(statement: &SqlStatement) -> Deed {
        match &statement.kind {
            SqlKind::CreateIndexConcurrently { index, table } => {
                let unique = statement.text.starts_with("CREATE UNIQUE");
                return Deed::CreateIndex {
                    index: index.clone(),
                    table: table.name.clone(),
                    exists: IfExists::Fail,
                    rows: if unique { Rows::Different } else { Rows::Any },
                };
            }
            SqlKind::DropIndexConcurrently { index } => {
                return Deed::DropIndex { index: index.name.clone() };
            }
            SqlKind::Transactional => {}
            other => unimplemented!("{other:?}"),
        }
        let words: Vec<&str> = statement.text.split_whitespace().collect();
        let row = number(&statement.text);
        match words[..] {
            ["CREATE", "TABLE", table, ..] => {
                Deed::CreateTable { table: table.to_owned(), exists: IfExists::Fail }
            }
            ["DROP", "TABLE", "IF", "EXISTS", table] => Deed::DropTable { table: table.to_owned() },
            ["INSERT", "INTO", table, ..] => {
                Deed::Add { table: table.to_owned(), row, missing: IfMissing::Fail }
            }
            ["DELETE", "FROM", table, ..] => Deed::Remove { table: table.to_owned(), row },
            ["SELECT", "nonsense"] => Deed::Impossible,
            _ => unimplemented!("{}", statement.text),
        }
    }

    pub fn of_mongo(step: &MongoStep) -> Deed {
        let text = &step.text;
        let quoted = |at: usize| text.split('"').nth(at).unwrap_or_default().to_owned();
        let table = text.split('.').nth(1).unwrap_or_default().to_owned();
        let row = number(text);
        match step.kind {
            MongoKind::Nothing => Deed::Nothing,
            MongoKind::CreateCollection => {
                Deed::CreateTable { table: quoted(1), exists: IfExists::Fine }
            }
            MongoKind::CreateIndexes => {
                let (index, exists) = (quoted(1), IfExists::Fine);
                let rows = if text.contains("unique: true") { Rows::Different } else { Rows::Any };
                Deed::CreateIndex { index, table, exists, rows }
            }
            MongoKind::DropIndexes => Deed::DropIndex { index: quoted(1) },
            MongoKind::Drop => Deed::DropTable { table },
            MongoKind::Write(_) if text.contains("nonsense") => Deed::Impossible,
            MongoKind::Write(_) if text.contains("insertOne") => {
                Deed::Add { table, row, missing: IfMissing::Create }
            }
            MongoKind::Write(_) => Deed::Remove { table, row },
            other => unimplemented!("{other:?}: {text}"),
        }
    }
}

/// The number that a text ends with.
fn number(text: &str) -> String {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    digits[digits.trim_end_matches(|c: char| c.is_ascii_digit()).len()..].to_owned()
}

impl Schema {
    /// Does it, or says what the server says.
    pub fn perform(&mut self, deed: &Deed, extent: Extent) -> Result<(), String> {
        let half = extent == Extent::Half;
        match deed {
            Deed::Nothing => {}
            Deed::Impossible => return Err("nonsense".to_owned()),
            Deed::CreateTable { table, exists } => {
                if self.tables.contains_key(table) && *exists == IfExists::Fail {
                    return Err(format!("{table} already exists"));
                }
                if !half {
                    self.tables.entry(table.clone()).or_default();
                }
            }
            Deed::DropTable { table } => {
                if !half {
                    self.tables.remove(table);
                    self.indexes.retain(|_, index| index.table != *table);
                }
            }
            Deed::Add { table, row, missing } => {
                if *missing == IfMissing::Fail && !self.tables.contains_key(table) {
                    return Err(format!("{table} does not exist"));
                }
                *self.tables.entry(table.clone()).or_default().entry(row.clone()).or_default() += 1;
            }
            Deed::Remove { table, row } => {
                if let Some(rows) = self.tables.get_mut(table) {
                    rows.remove(row);
                }
            }
            Deed::CreateIndex { index, table, exists, rows } => {
                if self.indexes.contains_key(index) && *exists == IfExists::Fail {
                    return Err(format!("{index} already exists"));
                }
                let in_table = self.tables.get(table);
                let twice = in_table.is_some_and(|rows| rows.values().any(|times| *times > 1));
                let fails = twice && *rows == Rows::Different;
                if fails && *exists == IfExists::Fine {
                    // MongoDB takes away what it had built.
                    self.indexes.remove(index);
                    return Err(format!("{table} has a row twice"));
                }
                let was = self.indexes.get(index).is_some_and(|index| index.valid);
                let valid = was || !half && !fails;
                self.indexes.insert(index.clone(), Index { table: table.clone(), valid });
                if fails {
                    return Err(format!("{table} has a row twice"));
                }
            }
            Deed::DropIndex { index } => {
                let Some(there) = self.indexes.get_mut(index) else {
                    return Err(format!("{index} does not exist"));
                };
                there.valid = false;
                if !half {
                    self.indexes.remove(index);
                }
            }
        }
        Ok(())
    }

    /// Whether the effect is there, as far as the store can tell.
    pub fn there(&self, deed: &Deed) -> There {
        let yes = |there: bool| if there { There::Yes } else { There::No };
        match deed {
            Deed::Nothing => There::Yes,
            Deed::CreateTable { table, .. } => yes(self.tables.contains_key(table)),
            Deed::DropTable { table } => yes(!self.tables.contains_key(table)),
            Deed::CreateIndex { index, table, exists: IfExists::Fail, .. } => {
                let is = |it: &Index| it.valid && it.table == *table;
                yes(self.indexes.get(index).is_some_and(is))
            }
            // MongoDB lists an index that is still being built.
            Deed::CreateIndex { index, exists: IfExists::Fine, .. } => {
                if self.indexes.contains_key(index) { There::Listed } else { There::No }
            }
            Deed::DropIndex { index } => yes(!self.indexes.contains_key(index)),
            Deed::Add { .. } | Deed::Remove { .. } | Deed::Impossible => There::NobodyKnows,
        }
    }

    /// What stands in the way of a journaled statement that never ran.
    pub fn obstacle(&self, deed: &Deed) -> Option<String> {
        match deed {
            Deed::CreateIndex { index, exists: IfExists::Fail, .. } => {
                self.indexes.contains_key(index).then(|| format!("{index} already exists"))
            }
            _ => None,
        }
    }

    /// Removes what an interrupted statement left: an invalid index.
    pub fn clear(&mut self, deed: &Deed) {
        match deed {
            Deed::CreateIndex { index, exists: IfExists::Fail, .. } | Deed::DropIndex { index }
                if self.indexes.get(index).is_some_and(|index| !index.valid) =>
            {
                self.indexes.remove(index);
            }
            _ => {}
        }
    }

    /// Whether something is neither there nor not there.
    pub fn has_debris(&self) -> bool {
        self.indexes.values().any(|index| !index.valid)
    }
}

/// Whether doing it again does nothing more.
pub fn is_harmless(kind: MongoKind) -> bool {
    matches!(kind, MongoKind::Write(Repeat::Harmless))
}
