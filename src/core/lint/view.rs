//! What the rules look at: a migration's statements with their places, and what is
//! so new that nobody uses it.

use super::effects::{Index, indexes};
use super::known::{self, Known};
use super::{Input, Settings};
use crate::core::id::{Direction, Phase, StepName, StoreName};
use crate::core::migration::Migration;
use crate::core::parse::folder::down_steps;
use crate::core::parse::sql::outline::{self, Act, Inner};
use crate::core::problem::Place;
use crate::core::step::{Body, Commit, MongoKind, QualifiedName, Step};
use crate::core::touches::{may_be_same, touches};
use bson::Document;
use bson::raw::RawDocument;
use std::collections::BTreeMap;
use std::ops::Range;

/// A place that a finding is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Anchor {
    /// From the migrations folder.
    pub file: String,
    /// The whole statement: a comment at it suppresses what is found in it.
    pub statement: Range<usize>,
    /// What is meant.
    pub range: Range<usize>,
}

/// What a rule found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Hit {
    /// Where.
    pub anchor: Anchor,
    /// In one line, without a full stop.
    pub message: String,
    /// What to do instead, where it is not what the rule always says.
    pub help: Option<String>,
}

impl Hit {
    pub fn new(anchor: &Anchor, message: impl Into<String>) -> Hit {
        Hit { anchor: anchor.clone(), message: message.into(), help: None }
    }

    pub fn help(self, help: impl Into<String>) -> Hit {
        Hit { help: Some(help.into()), ..self }
    }
}

/// A SQL statement.
#[derive(Clone, Debug)]
pub(super) struct Sql {
    pub anchor: Anchor,
    pub text: String,
    pub phase: Phase,
    pub direction: Direction,
    /// Which step it belongs to: an atomic one is a transaction.
    pub step: usize,
    pub commit: Commit,
    pub act: Act,
    /// Hazards that were found in it.
    pub known: Vec<(Known, Anchor)>,
    /// `EXECUTE` of a text that is put together when it runs.
    pub dynamic: Vec<Anchor>,
}

impl Sql {
    /// The table that it works on, if it is one.
    pub fn table(&self) -> Option<&QualifiedName> {
        match &self.act {
            Act::CreateTable { table, .. }
            | Act::CreateIndex { table, .. }
            | Act::CreateTrigger { table, .. }
            | Act::AlterTable { table, .. } => Some(table),
            Act::Rewrite { table, .. } => table.as_ref(),
            Act::Refresh { view, .. } => Some(view),
            _ => None,
        }
    }

    pub fn hit(&self, message: impl Into<String>) -> Hit {
        Hit::new(&self.anchor, message)
    }
}

/// A statement of a MongoDB script.
#[derive(Clone, Debug)]
pub(super) struct Mongo {
    pub anchor: Anchor,
    pub phase: Phase,
    pub direction: Direction,
    pub kind: MongoKind,
    pub commands: Vec<Document>,
}

impl Mongo {
    pub fn hit(&self, message: impl Into<String>) -> Hit {
        Hit::new(&self.anchor, message)
    }

    /// Its commands of this name, each with the collection that it names.
    pub fn commands<'a>(
        &'a self,
        name: &'static str,
    ) -> impl Iterator<Item = (&'a str, &'a Document)> + 'a {
        self.commands.iter().filter_map(move |command| {
            let (word, subject) = command.iter().next()?;
            (word == name).then_some((subject.as_str()?, command))
        })
    }
}

/// A migration, cut into what rules look at.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub migration: &'a Migration,
    /// Its files.
    texts: &'a BTreeMap<String, String>,
    /// What reverts it.
    pub down: Vec<Step>,
    /// Up, then down, each in order.
    pub sql: Vec<Sql>,
    pub mongo: Vec<Mongo>,
    /// Steps of `migration.toml`, up and down, with their places.
    pub named: Vec<(Step, Anchor)>,
    /// Tables that it makes.
    tables: Vec<QualifiedName>,
    /// Tables that its way back makes.
    tables_back: Vec<QualifiedName>,
    /// Collections that it makes.
    collections: Vec<String>,
}

impl<'a> View<'a> {
    pub fn of(input: &'a Input) -> View<'a> {
        let Migration { version, folder, rollback, .. } = &input.migration;
        // A down that cannot be read was told when the migration was.
        let down = down_steps(*version, folder, rollback).unwrap_or_default();
        let mut view = View {
            migration: &input.migration,
            texts: &input.texts,
            down: Vec::new(),
            sql: Vec::new(),
            mongo: Vec::new(),
            named: Vec::new(),
            tables: Vec::new(),
            tables_back: Vec::new(),
            collections: Vec::new(),
        };
        let mut places = Places { texts: &input.texts, reached: BTreeMap::new() };
        for (at, step) in input.migration.steps.iter().chain(&down).enumerate() {
            match &step.body {
                Body::Postgres(body) => {
                    for statement in &body.statements {
                        let anchor = places.of(&step.file, statement.line, &statement.text);
                        view.sql.extend(sql(step, at, &statement.text, &anchor));
                    }
                }
                Body::Mongo(body) => {
                    let read = |bytes| RawDocument::from_bytes(bytes).and_then(Document::try_from);
                    let commands = body.commands.iter();
                    let commands = commands.filter_map(|command| read(&command.body).ok());
                    view.mongo.push(Mongo {
                        anchor: places.of(&step.file, step.line, &body.text),
                        phase: step.phase(),
                        direction: step.direction(),
                        kind: body.kind,
                        commands: commands.collect(),
                    });
                }
                Body::Backfill(_) | Body::Check(_) | Body::Program(_) => {
                    view.named.push((step.clone(), places.table(&step.file, step.line)));
                }
            }
        }
        view.down = down;
        known_hazards(&mut view.sql, &input.texts);
        for statement in &view.sql {
            if let Act::CreateTable { table, .. } = &statement.act {
                match statement.direction {
                    Direction::Up => view.tables.push(table.clone()),
                    Direction::Down => view.tables_back.push(table.clone()),
                }
            }
        }
        let up = view.mongo.iter().filter(|statement| statement.direction == Direction::Up);
        for statement in up {
            let made = statement.commands("create").map(|(name, _)| name.to_owned());
            view.collections.extend(made);
        }
        view
    }

    /// The places of all statements, by file and in order.
    pub fn statements(&self) -> BTreeMap<&str, Vec<Range<usize>>> {
        let sql = self.sql.iter().map(|statement| &statement.anchor);
        let mongo = self.mongo.iter().map(|statement| &statement.anchor);
        let named = self.named.iter().map(|(_, anchor)| anchor);
        let mut places: BTreeMap<&str, Vec<Range<usize>>> = BTreeMap::new();
        for anchor in sql.chain(mongo).chain(named) {
            places.entry(&anchor.file).or_default().push(anchor.statement.clone());
        }
        // What is said of a file without a statement is said of its first line.
        for (file, text) in self.texts {
            let line = 0..text.find('\n').unwrap_or(text.len());
            places.entry(file).or_insert_with(|| vec![line]);
        }
        for ranges in places.values_mut() {
            ranges.sort_by_key(|range| (range.start, range.end));
            ranges.dedup();
        }
        places
    }
}

/// One statement, and those that a `DO` block runs.
fn sql(step: &Step, at: usize, text: &str, anchor: &Anchor) -> Vec<Sql> {
    let one = |text: &str, anchor: Anchor| Sql {
        act: outline::act(text),
        text: text.to_owned(),
        anchor,
        phase: step.phase(),
        direction: step.direction(),
        step: at,
        commit: step.commit,
        known: Vec::new(),
        dynamic: Vec::new(),
    };
    let within = |range: &Range<usize>| Anchor {
        range: anchor.statement.start + range.start..anchor.statement.start + range.end,
        ..anchor.clone()
    };
    let mut block = one(text, anchor.clone());
    let mut found = Vec::new();
    for inner in outline::inside_do(text).unwrap_or_default() {
        match inner {
            Inner::Statement(range) => found.push(one(&text[range.clone()], within(&range))),
            Inner::Dynamic(range) => block.dynamic.push(within(&range)),
        }
    }
    found.insert(0, block);
    found
}

/// Asks for the hazards of each file, of all its statements together: what one
/// makes, the next may use.
fn known_hazards(statements: &mut [Sql], texts: &BTreeMap<String, String>) {
    let mut of_file: BTreeMap<String, Vec<Range<usize>>> = BTreeMap::new();
    for statement in statements.iter() {
        let Anchor { file, range, .. } = &statement.anchor;
        // The place of one that is not found in its file is not its text's.
        let text = texts.get(file).and_then(|text| text.get(range.clone()));
        if text == Some(statement.text.as_str()) {
            of_file.entry(file.clone()).or_default().push(range.clone());
        }
    }
    for (file, ranges) in of_file {
        for (hazard, range) in known::hazards(&texts[&file], &ranges) {
            let holds = |statement: &&mut Sql| {
                let Anchor { file: its, range: around, .. } = &statement.anchor;
                *its == file && around.start <= range.start && range.end <= around.end
            };
            // The innermost: a block holds its statements.
            let inner = statements.iter_mut().filter(holds);
            let inner = inner.min_by_key(|statement| statement.anchor.range.len());
            if let Some(statement) = inner {
                let anchor = Anchor { range, ..statement.anchor.clone() };
                statement.known.push((hazard, anchor));
            }
        }
    }
}

/// Where statements stand in their files.
struct Places<'a> {
    texts: &'a BTreeMap<String, String>,
    /// How far each file was read: the line, its first byte, and the byte behind the
    /// last statement.
    reached: BTreeMap<String, (u32, usize, usize)>,
}

impl Places<'_> {
    fn of(&mut self, file: &str, line: u32, statement: &str) -> Anchor {
        let text = self.texts.get(file).map_or("", String::as_str);
        // Each line is counted once, or a long file would take for ever.
        let (at_line, at, behind) = self.reached.entry(file.to_owned()).or_insert((1, 0, 0));
        *at += line_start(&text[*at..], line.saturating_sub(*at_line) + 1);
        *at_line = line.max(*at_line);
        let start = (*at).max(*behind).min(text.len());
        let range = match text[start..].find(statement) {
            Some(at) => start + at..start + at + statement.len(),
            // A template: its text is not that of the file.
            None => start..text[start..].find('\n').map_or(text.len(), |at| start + at),
        };
        *behind = range.end;
        Anchor { file: file.to_owned(), statement: range.clone(), range }
    }

    /// A table of `migration.toml`, up to the next.
    fn table(&self, file: &str, line: u32) -> Anchor {
        let text = self.texts.get(file).map_or("", String::as_str);
        let start = line_start(text, line);
        let first = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let next = text[first..].find("\n[[").map_or(text.len(), |at| first + at);
        // The comments in front of the next belong to it.
        let mut end = first;
        let mut at = first;
        for line in text[first..next].split_inclusive('\n') {
            at += line.len();
            let kept = line.trim();
            if !kept.is_empty() && !kept.starts_with('#') {
                end = at;
            }
        }
        Anchor { file: file.to_owned(), statement: start..end, range: start..first }
    }
}

/// The first byte of a line, which counts from 1.
fn line_start(text: &str, line: u32) -> usize {
    let before = usize::try_from(line).unwrap_or(1).saturating_sub(1);
    text.split_inclusive('\n').take(before).map(str::len).sum()
}

/// One migration among all.
pub(super) struct Subject<'a> {
    pub view: &'a View<'a>,
    /// All that come before it, and itself.
    pub before: &'a [View<'a>],
    /// Those whose tables and collections nobody uses yet.
    fresh: Vec<&'a View<'a>>,
}

impl<'a> Subject<'a> {
    pub fn new(views: &'a [View<'a>], at: usize, settings: &Settings) -> Subject<'a> {
        let is_new = |view: &View| settings.new.contains(&view.migration.version);
        let among_new = is_new(&views[at]);
        let fresh = views
            .iter()
            .enumerate()
            .filter(|(other, view)| *other == at || among_new && is_new(view));
        let fresh = fresh.map(|(_, view)| view).collect();
        Subject { view: &views[at], before: &views[..=at], fresh }
    }

    /// Whether nobody uses this table yet.
    pub fn is_new_table(&self, table: &QualifiedName) -> bool {
        self.fresh.iter().flat_map(|view| &view.tables).any(|made| is_same(made, table))
    }

    /// Whether nobody uses this collection yet.
    pub fn is_new_collection(&self, name: &str) -> bool {
        self.fresh.iter().any(|view| view.collections.iter().any(|made| made == name))
    }

    /// Statements that work on something in use, or on nothing that has a name.
    fn in_use(&self) -> impl Iterator<Item = &'a Sql> {
        self.view.sql.iter().filter(|statement| {
            let Some(table) = statement.table() else { return true };
            let is_back = self.view.tables_back.iter().any(|made| is_same(made, table));
            let is_new = statement.direction == Direction::Down && is_back;
            !is_new && !self.is_new_table(table)
        })
    }

    /// SQL that goes up.
    pub fn sql_up(&self) -> impl Iterator<Item = &'a Sql> {
        self.in_use().filter(|statement| statement.direction == Direction::Up)
    }

    /// SQL both ways.
    pub fn sql(&self) -> impl Iterator<Item = &'a Sql> {
        self.in_use()
    }

    /// MongoDB's statements that go up.
    pub fn mongo_up(&self) -> impl Iterator<Item = &'a Mongo> {
        self.view.mongo.iter().filter(|statement| statement.direction == Direction::Up)
    }

    /// What was found of one hazard, in statements on something in use.
    pub fn known(&self, hazard: Known) -> impl Iterator<Item = (&'a Sql, &'a Anchor)> {
        self.in_use().flat_map(move |statement| {
            let found = statement.known.iter().filter(move |(found, _)| *found == hazard);
            found.map(move |(_, anchor)| (statement, anchor))
        })
    }

    /// Hits of one hazard: what is said of each, with the table's name.
    pub fn hits(&self, hazard: Known, say: impl Fn(&str) -> String) -> Vec<Hit> {
        let found = self.known(hazard);
        found.map(|(statement, anchor)| Hit::new(anchor, say(&named(statement)))).collect()
    }

    /// Whether an invariant asks about it, or may.
    pub fn is_asked(&self, store: StoreName, name: &str) -> bool {
        let wanted = (store, name.strip_prefix("public.").unwrap_or(name).to_owned());
        let steps = self.view.named.iter().map(|(step, _)| step);
        steps.filter(|step| matches!(step.body, Body::Check(_))).any(|step| {
            let touched = touches(step);
            touched.unknown.contains_key(&store)
                || touched.known.iter().any(|known| may_be_same(known, &wanted))
        })
    }

    /// What is found of an opinion, in tables old and new.
    pub fn opinions(&self, opinion: Known, message: &str) -> Vec<Hit> {
        let up = self.view.sql.iter().filter(|statement| statement.direction == Direction::Up);
        let found = up.flat_map(|statement| &statement.known);
        let found = found.filter(|(known, _)| *known == opinion);
        found.map(|(_, anchor)| Hit::new(anchor, message)).collect()
    }

    /// The indexes of tables that the migration makes.
    pub fn indexes(&self) -> impl Iterator<Item = (&'a String, &'a QualifiedName)> {
        self.view.sql.iter().filter_map(|statement| match &statement.act {
            Act::CreateIndex { index: Some(index), table } => Some((index, table)),
            _ => None,
        })
    }

    /// The indexes of collections that earlier migrations make.
    pub fn earlier_indexes(&self) -> Vec<Index<'a>> {
        let earlier = self.before.split_last().map_or(&[][..], |(_, earlier)| earlier);
        let up = earlier.iter().flat_map(|view| &view.mongo);
        up.filter(|statement| statement.direction == Direction::Up).flat_map(indexes).collect()
    }

    /// Whether an earlier migration makes this collection, so that its indexes are
    /// known.
    pub fn is_made_before(&self, collection: &str) -> bool {
        let earlier = self.before.split_last().map_or(&[][..], |(_, earlier)| earlier);
        earlier.iter().any(|view| view.collections.iter().any(|made| made == collection))
    }

    /// The line on which a place begins.
    pub fn line(&self, anchor: &Anchor) -> u32 {
        let text = self.view.texts.get(&anchor.file).map_or("", String::as_str);
        Place::of(text, anchor.range.clone()).line
    }

    /// Whether a script of this phase goes up in this store.
    pub fn has_script(&self, phase: Phase, store: StoreName) -> bool {
        self.script(phase, store).is_some()
    }

    /// The first statement of that script.
    pub fn script(&self, phase: Phase, store: StoreName) -> Option<Anchor> {
        let is_it = |step: &&Step| {
            step.store() == store
                && step.phase() == phase
                && matches!(step.name, StepName::Script { .. })
        };
        let step = self.view.migration.steps.iter().find(is_it)?;
        let sql = self.view.sql.iter().map(|statement| &statement.anchor);
        let mut anchors = sql.chain(self.view.mongo.iter().map(|statement| &statement.anchor));
        anchors.find(|anchor| anchor.file == step.file).cloned().or_else(|| {
            // It has nothing but comments.
            Some(self.opening(&step.file))
        })
    }

    /// The first line of a file.
    pub fn opening(&self, file: &str) -> Anchor {
        let text = self.view.texts.get(file).map_or("", String::as_str);
        let range = 0..text.find('\n').unwrap_or(text.len());
        Anchor { file: file.to_owned(), statement: range.clone(), range }
    }

    /// Whether a script of this phase goes down in this store.
    pub fn has_down(&self, phase: Phase, store: StoreName) -> bool {
        let stem = match phase {
            Phase::Up => "down".to_owned(),
            phase => format!("{}.down", phase.word()),
        };
        let kinds: &[&str] = match store {
            StoreName::Postgres => &["sql"],
            StoreName::Mongo => &["mongodb.js", "mongodb.json"],
        };
        let scripts = &self.view.migration.rollback.scripts;
        kinds.iter().any(|kind| scripts.contains_key(&format!("{stem}.{kind}")))
    }
}

/// The table of a statement, for people.
pub(super) fn named(statement: &Sql) -> String {
    statement.table().map_or_else(|| "its table".to_owned(), |table| format!("`{table}`"))
}

fn is_same(a: &QualifiedName, b: &QualifiedName) -> bool {
    let name = |name: &QualifiedName| {
        let schema = name.schema.clone().filter(|schema| schema != "public");
        let name = QualifiedName { schema, name: name.name.clone() };
        (StoreName::Postgres, name.to_string())
    };
    may_be_same(&name(a), &name(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_found_where_it_stands_and_not_in_a_comment() {
        let text = "-- DROP TABLE a;\nDROP TABLE a;DROP TABLE a;\n/* b */ DROP\nTABLE b;";
        let texts = BTreeMap::from([("x".to_owned(), text.to_owned())]);
        let mut places = Places { texts: &texts, reached: BTreeMap::new() };
        let mut at = |line, statement: &str| {
            let anchor = places.of("x", line, statement);
            assert_eq!(&text[anchor.range.clone()], statement);
            anchor.range.start
        };
        assert_eq!(at(2, "DROP TABLE a"), 17);
        assert_eq!(at(2, "DROP TABLE a"), 30);
        assert_eq!(at(3, "DROP\nTABLE b"), 52);
        // Of a text that is put together, only the line is known.
        let mut places = Places { texts: &texts, reached: BTreeMap::new() };
        assert_eq!(places.of("x", 2, "DROP TABLE c").range, 17..43);
        assert_eq!(places.of("lost", 7, "DROP TABLE c").range, 0..0);
    }

    #[test]
    fn a_table_of_a_manifest_ends_before_the_comments_of_the_next() {
        let text = "[[backfill]]\nname = 'a'\n\n# b\n[[backfill]]\nname = 'b'\n";
        let texts = BTreeMap::from([("x".to_owned(), text.to_owned())]);
        let places = Places { texts: &texts, reached: BTreeMap::new() };
        let table = |line| text[places.table("x", line).statement].to_owned();
        assert_eq!(table(1), "[[backfill]]\nname = 'a'\n");
        assert_eq!(table(5), "[[backfill]]\nname = 'b'\n");
    }
}
