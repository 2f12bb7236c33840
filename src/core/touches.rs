//! Which tables and collections a step touches, as far as its text tells.
//!
//! By this a later migration may start behind one whose cleanup is held: the
//! order that was tested is the order that runs, unless the two have nothing to
//! do with each other. A doubt is a no. What is behind a name, such as the tables
//! of a view or what a trigger does, is in the database and not in the text.

use crate::core::backfill::Backfill;
use crate::core::id::StoreName;
use crate::core::parse::manifest::{BATCH, Change, Check, MongoAnswer, MongoSource, Work};
use crate::core::parse::sql::relations::{Relations, relations};
use crate::core::step::{Body, Command, CommandTarget, MongoKind, PgStep, QualifiedName, Step};
use bson::raw::RawDocument;
use bson::{Bson, Document};
use std::collections::{BTreeMap, BTreeSet};

/// Why a command of MongoDB tells nothing.
const COMMAND: &str = "it is a command that is not looked into";

/// What a step touches.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Touches {
    /// Tables and collections. A table of the schema `public` is called as if it
    /// had none.
    pub known: BTreeSet<(StoreName, String)>,
    /// Why there may be more, for each store of which there may be.
    pub unknown: BTreeMap<StoreName, String>,
}

/// Whether two lists of steps touch the same things.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Overlap {
    /// They do not.
    Disjoint,
    /// Both touch these: `users in Postgres`.
    Shared(Vec<String>),
    /// Their texts do not tell: which step, and why.
    Unknown(String),
}

/// What one step touches. The table of an index that it drops is known only if
/// the step itself tells it.
pub fn touches(step: &Step) -> Touches {
    touched(&[step])
}

/// Whether steps of a later migration touch what a held cleanup touches. The
/// table of an index is looked for in all steps of the same side, so each side is
/// best given whole.
pub fn overlap(cleanup: &[&Step], later: &[&Step]) -> Overlap {
    let (held, next) = (touched(cleanup), touched(later));
    let shared = next
        .known
        .iter()
        .filter(|name| held.known.iter().any(|other| may_be_same(name, other)))
        .map(|(store, name)| format!("{name} in {}", store.title()));
    let shared: Vec<String> = shared.collect();
    // What is not known of one store is nothing to who stays out of it.
    let mut doubts = StoreName::BOTH.into_iter().filter_map(|store| {
        let why = held.unknown.get(&store).or(next.unknown.get(&store))?;
        (held.is_in(store) && next.is_in(store)).then(|| why.clone())
    });
    match (shared.is_empty(), doubts.next()) {
        (false, _) => Overlap::Shared(shared),
        (true, Some(why)) => Overlap::Unknown(why),
        (true, None) => Overlap::Disjoint,
    }
}

impl Touches {
    /// Whether anything of this store is touched, known or not.
    fn is_in(&self, store: StoreName) -> bool {
        self.unknown.contains_key(&store) || self.known.iter().any(|(place, _)| *place == store)
    }
}

/// A table without a schema is looked up by the search path, which the text does
/// not tell: it may be that of any schema.
pub(crate) fn may_be_same(a: &(StoreName, String), b: &(StoreName, String)) -> bool {
    if a.0 != b.0 || a.0 == StoreName::Mongo {
        return a == b;
    }
    match (a.1.rsplit_once('.'), b.1.rsplit_once('.')) {
        (None, Some((_, b))) => a.1 == b,
        (Some((_, a)), None) => a == b.1,
        (None, None) | (Some(_), Some(_)) => a.1 == b.1,
    }
}

/// What these steps of one migration touch together.
fn touched(steps: &[&Step]) -> Touches {
    let mut seen = Seen::default();
    for step in steps {
        let name = step.name.to_string();
        match &step.body {
            Body::Postgres(body) => seen.postgres(&name, body),
            Body::Mongo(body) => {
                if matches!(body.kind, MongoKind::Other | MongoKind::DropDatabase) {
                    seen.hidden(StoreName::Mongo, &name, COMMAND);
                }
                for command in &body.commands {
                    seen.command(&name, command);
                }
            }
            Body::Backfill(backfill) => seen.backfill(&name, backfill),
            Body::Check(invariant) => seen.check(&name, &invariant.check),
            Body::Program(_) => {
                for store in StoreName::BOTH {
                    seen.hidden(store, &name, "it runs a program");
                }
            }
        }
    }
    seen.finish()
}

/// What was seen so far.
#[derive(Default)]
struct Seen {
    touches: Touches,
    /// The tables of indexes, where a statement told.
    tables: BTreeMap<QualifiedName, QualifiedName>,
    /// Indexes that were named without their table, and by whom.
    indexes: Vec<(String, QualifiedName)>,
}

impl Seen {
    fn postgres(&mut self, step: &str, body: &PgStep) {
        for statement in &body.statements {
            self.sql(step, &statement.text);
        }
        for guard in &body.guards {
            self.sql(step, &guard.query);
        }
        for table in &body.locks {
            self.table(table);
        }
    }

    fn sql(&mut self, step: &str, text: &str) {
        let Relations { named, indexes, made, hides } = relations(text);
        for name in &named {
            self.table(name);
        }
        self.indexes.extend(indexes.into_iter().map(|index| (step.to_owned(), index)));
        self.tables.extend(made.into_iter().map(|(index, table)| (plain(index), table)));
        if let Some(why) = hides {
            self.hidden(StoreName::Postgres, step, &why);
        }
    }

    fn table(&mut self, name: &QualifiedName) {
        let name = plain(name.clone()).to_string();
        self.touches.known.insert((StoreName::Postgres, name));
    }

    fn collection(&mut self, name: &str) {
        self.touches.known.insert((StoreName::Mongo, name.to_owned()));
    }

    /// The first reason is told: it is enough to wait.
    fn hidden(&mut self, store: StoreName, step: &str, why: &str) {
        let why = || format!("{step} may touch anything: {why}");
        self.touches.unknown.entry(store).or_insert_with(why);
    }

    fn backfill(&mut self, step: &str, backfill: &Backfill) {
        match &backfill.work {
            Work::Update { .. } => self.sql(step, &backfill.statement()),
            Work::Sql { sql, table, .. } => {
                self.table(table);
                self.sql(step, &sql.replace(BATCH, "true"));
            }
            Work::Call { call, table, .. } => {
                self.table(table);
                self.hidden(StoreName::Postgres, step, &format!("it calls {call}"));
            }
            Work::Documents { collection, change, .. } => {
                self.collection(collection);
                if let Change::Call(call) = change {
                    self.hidden(StoreName::Mongo, step, &format!("it calls {call}"));
                }
            }
            Work::CopyToMongo { query, to, .. } => {
                self.sql(step, query);
                self.collection(to);
            }
            Work::CopyToPostgres { from, to, .. } => {
                self.source(from);
                self.table(to);
            }
        }
    }

    fn check(&mut self, step: &str, check: &Check) {
        match check {
            Check::Postgres { query, .. } => self.sql(step, query),
            Check::Mongo { answer, .. } => self.answer(answer),
            Check::Equal { postgres, mongo } => {
                self.sql(step, postgres);
                self.answer(mongo);
            }
            Check::Compare { postgres, mongo, .. } => {
                self.sql(step, postgres);
                self.source(mongo);
            }
        }
    }

    fn answer(&mut self, answer: &MongoAnswer) {
        match answer {
            MongoAnswer::Count { collection, .. } => self.collection(collection),
            MongoAnswer::Pipeline { collection, pipeline } => {
                self.collection(collection);
                for stage in pipeline {
                    self.stages(stage);
                }
            }
        }
    }

    fn source(&mut self, source: &MongoSource) {
        self.collection(&source.collection);
        for stage in &source.pipeline {
            self.stages(stage);
        }
    }

    fn command(&mut self, step: &str, command: &Command) {
        let document =
            RawDocument::from_bytes(&command.body).and_then(Document::try_from).unwrap_or_default();
        let first = document.iter().next();
        let Some((word, Bson::String(subject))) = first.filter(|_| is_open(command, &document))
        else {
            return self.hidden(StoreName::Mongo, step, COMMAND);
        };
        self.collection(subject);
        let more: &[&str] = match word.as_str() {
            "renameCollection" => &["to"],
            "create" => &["viewOn"],
            "collMod" => &["viewOn"],
            _ => &[],
        };
        for key in more {
            if let Ok(name) = document.get_str(key) {
                self.collection(name);
            }
        }
        if let Some(Bson::Array(stages)) = document.get("pipeline") {
            for stage in stages.iter().filter_map(Bson::as_document) {
                self.stages(stage);
            }
        }
    }

    /// The collections that the stages of an aggregation name, however deep they
    /// stand.
    fn stages(&mut self, stage: &Document) {
        for (key, value) in stage {
            let inner = match (key.as_str(), value) {
                ("$out" | "$merge" | "$unionWith", Bson::String(name)) => Some(name.as_str()),
                ("$out" | "$unionWith", Bson::Document(to)) => to.get_str("coll").ok(),
                ("$merge", Bson::Document(to)) => match to.get("into") {
                    Some(Bson::Document(into)) => into.get_str("coll").ok(),
                    into => into.and_then(Bson::as_str),
                },
                ("$lookup" | "$graphLookup", Bson::Document(from)) => from.get_str("from").ok(),
                _ => None,
            };
            if let Some(name) = inner {
                self.collection(name);
            }
            self.value(value);
        }
    }

    fn value(&mut self, value: &Bson) {
        match value {
            Bson::Document(document) => self.stages(document),
            Bson::Array(values) => {
                for value in values {
                    self.value(value);
                }
            }
            _ => {}
        }
    }

    fn finish(mut self) -> Touches {
        for (step, index) in std::mem::take(&mut self.indexes) {
            match self.tables.get(&plain(index.clone())).cloned() {
                Some(table) => self.table(&table),
                None => {
                    let why = format!("it does not tell the table of index {index}");
                    self.hidden(StoreName::Postgres, &step, &why);
                }
            }
        }
        self.touches
    }
}

/// `public.users` is `users`.
fn plain(name: QualifiedName) -> QualifiedName {
    QualifiedName { schema: name.schema.filter(|schema| schema != "public"), ..name }
}

/// Commands whose document names every collection that they touch.
fn is_open(command: &Command, document: &Document) -> bool {
    const OPEN: [&str; 12] = [
        "insert",
        "update",
        "delete",
        "findAndModify",
        "create",
        "createIndexes",
        "dropIndexes",
        "drop",
        "collMod",
        "convertToCapped",
        "aggregate",
        "renameCollection",
    ];
    let word = document.keys().next().map(String::as_str).unwrap_or_default();
    // The reader sends it to `admin`, with both names in the database of the connection.
    let rename = word == "renameCollection";
    OPEN.contains(&word) && (command.on == CommandTarget::Database || rename)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::checksum::Checksum;
    use crate::core::id::{Direction, Phase, StepName};
    use crate::core::parse::manifest;
    use crate::core::parse::{mongosh, sql};
    use crate::core::step::{Commit, Guard, Program};

    fn of(body: Body, index: u32) -> Step {
        let store = StoreName::Postgres;
        Step {
            name: StepName::Script {
                phase: Phase::Cleanup,
                direction: Direction::Up,
                store,
                index,
            },
            checksum: Checksum::of(b""),
            commit: Commit::Atomic,
            body,
            file: String::new(),
            line: 1,
        }
    }

    /// A step of each part between `---`; what has `db.` in it is for MongoDB.
    fn steps(script: &str) -> Vec<Step> {
        let parts = script.split("---").zip(1..);
        let of_part = |(part, index): (&str, u32)| {
            if part.contains("db.") {
                let read = mongosh::read(part).expect("it is right");
                read.into_iter().map(|read| of(Body::Mongo(read.step), index)).collect::<Vec<_>>()
            } else {
                let statements = sql::read(part).expect("it is right");
                vec![of(Body::Postgres(PgStep { statements, ..PgStep::default() }), index)]
            }
        };
        parts.flat_map(of_part).collect()
    }

    fn text(touches: Touches) -> String {
        let known = touches.known.iter().map(|(store, name)| format!("{store}:{name}"));
        let mut parts: Vec<String> = known.collect();
        let mut unknown: Vec<String> =
            touches.unknown.into_values().map(|why| format!("? {why}")).collect();
        unknown.dedup();
        parts.extend(unknown);
        parts.join(", ")
    }

    fn check(script: &str, expected: &str) {
        let steps = steps(script);
        let steps: Vec<&Step> = steps.iter().collect();
        assert_eq!(text(touched(&steps)), expected, "{script}");
    }

    fn check_body(body: Body, expected: &str) {
        assert_eq!(text(touches(&of(body, 1))), expected);
    }

    /// The first backfill or invariant of a `migration.toml`.
    fn check_manifest(toml: &str, expected: &str) {
        let mut manifest = manifest::read(toml).expect("it is right");
        let body = match manifest.backfills.pop() {
            Some(backfill) => Body::Backfill(Box::new(Backfill {
                title: String::new(),
                work: backfill.work,
                pace: backfill.pace,
                max_bad: 0,
                timeouts: crate::core::step::Timeouts::default(),
            })),
            None => Body::Check(Box::new(manifest.invariants.remove(0))),
        };
        check_body(body, expected);
    }

    #[test]
    fn one_table_has_one_name() {
        check(
            "drop table public.users; select 1 from users, \"users\", shop.users",
            "postgres:shop.users, postgres:users",
        );
        check("-- nothing", "");
    }

    #[test]
    fn an_index_is_on_a_table_that_the_migration_tells() {
        check(
            "drop index i",
            "? cleanup/postgres/1 may touch anything: it does not tell the table of index i",
        );
        check("create index i on t (a) --- drop index public.i", "postgres:t");
        check("drop index public.i --- create index i on t (a)", "postgres:t");
        check(
            "create index i on shop.t (a) --- drop index i",
            "postgres:shop.t, ? cleanup/postgres/2 may touch anything: it does not tell the table of index i",
        );
    }

    #[test]
    fn commands_name_collections() {
        check(
            "db.users.insertOne({ a: 1 }); db.orders.updateMany({}, { $set: { a: 1 } })",
            "mongo:orders, mongo:users",
        );
        check(
            "db.createCollection('a'); db.b.createIndex({ a: 1 }); db.c.drop(); db.d.dropIndex('x')",
            "mongo:a, mongo:b, mongo:c, mongo:d",
        );
        check("db.a.renameCollection('b')", "mongo:a, mongo:b");
        check(
            "db.createView('v', 'a', [{ $lookup: { from: 'b', localField: 'x', foreignField: 'y', as: 'z' } }])",
            "mongo:a, mongo:b, mongo:v",
        );
        check("db.a.aggregate([{ $match: {} }, { $merge: { into: 'b' } }])", "mongo:a, mongo:b");
        check(
            "db.a.aggregate([{ $facet: { x: [{ $unionWith: 'c' }] } }, { $out: 'b' }])",
            "mongo:a, mongo:b, mongo:c",
        );
        check(
            "db.a.aggregate([{ $lookup: { from: 'b', pipeline: [{ $unionWith: { coll: 'c' } }], as: 'x' } }, { $merge: 'd' }])",
            "mongo:a, mongo:b, mongo:c, mongo:d",
        );
        check(
            "db.runCommand({ validate: 'a' })",
            "? cleanup/postgres/1 may touch anything: it is a command that is not looked into",
        );
        check(
            "db.adminCommand({ setParameter: 1, x: 1 })",
            "? cleanup/postgres/1 may touch anything: it is a command that is not looked into",
        );
    }

    #[test]
    fn what_the_manifest_names_is_looked_into() {
        let backfill = |work: &str| format!("[[backfill]]\nname = 'x'\n{work}");
        check_manifest(
            &backfill("postgres = { table = 'users', set = 'a = (SELECT max(b) FROM log)' }"),
            "postgres:log, postgres:users",
        );
        check_manifest(
            &backfill(
                "postgres = { table = 'users', sql = 'DELETE FROM old USING users WHERE old.id = users.id AND {batch}' }",
            ),
            "postgres:old, postgres:users",
        );
        check_manifest(
            &backfill("mongo = { collection = 'c', filter = '{}', update = '{ $set: { a: 1 } }' }"),
            "mongo:c",
        );
        check_manifest(
            &backfill(
                "copy = { from = 'postgres', query = 'SELECT id AS _id FROM users', key = '_id', to = 'profiles' }",
            ),
            "postgres:users, mongo:profiles",
        );
        let invariant = |asks: &str| format!("[[invariant]]\nname = 'x'\n{asks}");
        check_manifest(
            &invariant(
                "postgres = 'SELECT count(*) FROM users'\nmongo = { collection = 'c', count = '{}' }",
            ),
            "postgres:users, mongo:c",
        );
        check_manifest(
            &invariant("postgres = 'SELECT bad() FROM users'"),
            "postgres:users, ? cleanup/postgres/1 may touch anything: it calls bad()",
        );
    }

    #[test]
    fn a_program_may_touch_anything() {
        let program = Program {
            title: String::new(),
            command: vec!["true".to_owned()],
            folder: String::new(),
            store: StoreName::Mongo,
        };
        check_body(
            Body::Program(program),
            "? cleanup/postgres/1 may touch anything: it runs a program",
        );
    }

    #[test]
    fn a_guard_and_its_locks_are_touched_too() {
        let guard = Guard {
            name: "x".to_owned(),
            query: "SELECT count(*) FROM roles".to_owned(),
            expect: manifest::Expect::default(),
            sample: None,
        };
        let locks = vec![QualifiedName { schema: None, name: "users".to_owned() }];
        let step = PgStep { guards: vec![guard], locks, ..PgStep::default() };
        check_body(Body::Postgres(step), "postgres:roles, postgres:users");
    }

    fn check_overlap(cleanup: &str, later: &str, expected: &str) {
        let (cleanup, later) = (steps(cleanup), steps(later));
        let seen = overlap(&cleanup.iter().collect::<Vec<_>>(), &later.iter().collect::<Vec<_>>());
        let text = match seen {
            Overlap::Disjoint => "disjoint".to_owned(),
            Overlap::Shared(names) => names.join(", "),
            Overlap::Unknown(why) => format!("? {why}"),
        };
        assert_eq!(text, expected);
    }

    #[test]
    fn what_is_not_known_of_a_store_concerns_only_who_touches_it() {
        let hidden =
            "? cleanup/postgres/1 may touch anything: DROP FUNCTION does not tell what it touches";
        check_overlap("drop function f()", "db.users.drop()", "disjoint");
        check_overlap("drop function f()", "alter table a add b int", hidden);
        check_overlap("db.runCommand({ validate: 'a' })", "do $$ begin end $$", "disjoint");
        check_overlap(
            "db.users.drop()",
            "db.runCommand({ validate: 'a' })",
            "? cleanup/postgres/1 may touch anything: it is a command that is not looked into",
        );
        check_overlap("-- nothing", "do $$ begin end $$", "disjoint");
    }

    #[test]
    fn a_later_migration_passes_only_what_it_does_not_touch() {
        let apart = "disjoint";
        check_overlap("alter table users drop column role", "alter table orders add a int", apart);
        check_overlap("alter table users drop column role", "db.users.drop()", apart);
        check_overlap("-- nothing", "drop table a", apart);
        check_overlap(
            "alter table public.a add b int",
            "alter table shop.a add b int",
            "shop.a in Postgres",
        );
        check_overlap("alter table eu.a add b int", "alter table us.a add b int", apart);
        check_overlap("drop table a, b; drop function f()", "select 1 from b, c", "b in Postgres");
        check_overlap(
            "db.a.drop() --- drop table t",
            "db.b.renameCollection('a') --- drop table t",
            "t in Postgres, a in MongoDB",
        );
        check_overlap(
            "drop table a",
            "do $$ begin end $$",
            "? cleanup/postgres/1 may touch anything: DO does not tell what it touches",
        );
        check_overlap(
            "drop index i",
            "drop table a",
            "? cleanup/postgres/1 may touch anything: it does not tell the table of index i",
        );
    }
}
