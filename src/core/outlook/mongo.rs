//! What a statement would mean for MongoDB, which is asked: no text tells whether an
//! index is there, or how many documents a filter matches.

use super::{Before, Outlook, ROWS_MANY, Touch, about, bytes, steps};
use crate::core::id::StepId;
use crate::core::locks::Toil;
use crate::core::plan::Plan;
use crate::core::step::{Body, Command, CommandTarget, MongoStep};
use bson::raw::RawDocument;
use bson::{Bson, Document};
use std::collections::{BTreeMap, BTreeSet};

/// So many filters are counted; a plan with more of them says so.
const FILTERS_MAX: usize = 64;

/// What is to be found out, of all statements of a plan together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asks {
    /// Whether these are there, how large they are, and which indexes they have.
    pub collections: BTreeSet<String>,
    /// How many documents match.
    pub filters: BTreeMap<Key, Vec<Filter>>,
}

/// A step, and the place of a command in it.
pub type Key = (StepId, usize);

/// Documents of one collection.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    /// The collection.
    pub collection: String,
    /// The filter.
    pub query: Document,
    /// `updateOne`, `deleteOne`: no more than one of them.
    pub one: bool,
    /// How texts compare.
    pub collation: Option<Document>,
}

/// What the server says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MongoFacts {
    /// Those that are there.
    pub collections: BTreeMap<String, CollectionFacts>,
    /// How many documents match.
    pub matches: BTreeMap<Key, Matches>,
    /// Bytes that are free on the disk of the server.
    pub free: Option<u64>,
    /// Why nothing is known.
    pub unknown: Option<String>,
}

/// What the server says of one collection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CollectionFacts {
    /// It is a view.
    pub is_view: bool,
    /// About how many documents.
    pub documents: Option<u64>,
    /// Bytes of its documents.
    pub bytes: Option<u64>,
    /// Bytes of the index of `_id`, beside which others are guessed.
    pub id_index: Option<u64>,
    /// Its indexes, as `listIndexes` has them.
    pub indexes: Vec<Document>,
}

/// How many documents a command is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Matches {
    /// So many.
    Documents(u64),
    /// Nobody knows, and why.
    Unknown(String),
}

/// What is to be found out about a plan.
pub fn asks(plan: &Plan) -> Asks {
    let mut asks = Asks::default();
    for (id, attempt) in steps(plan) {
        let Body::Mongo(body) = &attempt.step.body else { continue };
        for (at, command) in body.commands.iter().enumerate() {
            let Some((word, subject, document)) = parts(command) else { continue };
            asks.collections.insert(subject.clone());
            if let Ok(to) = document.get_str("to") {
                asks.collections.insert(to.to_owned());
            }
            let filters = filters(&word, &subject, &document);
            if !filters.is_empty() && asks.filters.len() < FILTERS_MAX {
                asks.filters.insert((id.clone(), at), filters);
            }
        }
    }
    asks
}

/// `createIndexes`, its collection, and the whole command.
fn parts(command: &Command) -> Option<(String, String, Document)> {
    let document =
        RawDocument::from_bytes(&command.body).and_then(Document::try_from).unwrap_or_default();
    let (word, subject) = document.iter().next()?;
    let subject = subject.as_str()?.to_owned();
    let word = word.clone();
    let is_ours = command.on == CommandTarget::Database || word == "renameCollection";
    is_ours.then_some((word, subject, document))
}

fn filters(word: &str, collection: &str, command: &Document) -> Vec<Filter> {
    let (list, limit) = match word {
        "update" => ("updates", "multi"),
        "delete" => ("deletes", "limit"),
        _ => return Vec::new(),
    };
    let statements = command.get_array(list).map(Vec::as_slice).unwrap_or_default();
    let of = |statement: &Document| {
        let one = match (limit, statement.get(limit)) {
            ("multi", many) => many.and_then(Bson::as_bool) != Some(true),
            (_, limit) => !matches!(limit, Some(Bson::Int32(0) | Bson::Int64(0)) | None),
        };
        Some(Filter {
            collection: collection.to_owned(),
            query: statement.get_document("q").ok()?.clone(),
            one,
            collation: statement.get_document("collation").ok().cloned(),
        })
    };
    statements.iter().filter_map(Bson::as_document).filter_map(of).collect()
}

/// What one statement would mean.
pub(super) fn outlook(
    id: &StepId,
    step: &MongoStep,
    facts: &MongoFacts,
    before: &mut Before,
) -> Outlook {
    let mut outlook = Outlook::default();
    for (at, command) in step.commands.iter().enumerate() {
        let Some((word, subject, document)) = parts(command) else {
            let why = "what it does: it is a command that is not looked into";
            outlook.unknown.get_or_insert(why.to_owned());
            continue;
        };
        let mut touch = touch(&subject, facts, before);
        let known = facts.collections.get(&subject);
        match word.as_str() {
            "createIndexes" => indexes(&document, &mut touch, known, facts, &mut outlook),
            "update" | "delete" => {
                let matches = facts.matches.get(&(id.clone(), at));
                counted(&word, matches, &mut touch, facts, &mut outlook);
            }
            "insert" => {
                let documents = document.get_array("documents").map_or(0, Vec::len);
                touch.matches = u64::try_from(documents).ok();
                // What is inserted is of no others.
                touch.rows = None;
                before.collections.insert(subject.clone());
            }
            "create" => {
                if known.is_some() {
                    outlook.notes.push(format!("{subject} is there already"));
                }
                before.collections.insert(subject.clone());
            }
            "dropIndexes" => dropped(&document, &subject, known, &mut outlook),
            "renameCollection" => {
                let to = document.get_str("to").unwrap_or_default();
                if facts.collections.contains_key(to) {
                    outlook.warnings.push(format!("{to} is there already"));
                }
                before.collections.insert(to.to_owned());
            }
            "aggregate" => touch.toil = Toil::Scan,
            _ => {}
        }
        if touch.exists == Some(false) && !matches!(word.as_str(), "create" | "insert") {
            outlook.notes.push(format!("there is no {subject} yet"));
        }
        let is_known = outlook.touches.iter().any(|other| other.name == touch.name);
        match is_known {
            true => {
                let other = outlook.touches.iter_mut().find(|other| other.name == touch.name);
                if let (Some(other), Some(matches)) = (other, touch.matches) {
                    other.matches = Some(other.matches.unwrap_or(0) + matches);
                }
            }
            false => outlook.touches.push(touch),
        }
    }
    if let Some(why) = facts.unknown.as_ref().filter(|_| !outlook.touches.is_empty()) {
        outlook.unknown.get_or_insert(format!("what it meets: {why}"));
    }
    outlook
}

fn touch(collection: &str, facts: &MongoFacts, before: &Before) -> Touch {
    let known = facts.collections.get(collection);
    let is_new = known.is_none() && before.collections.contains(collection);
    Touch {
        rows: known.and_then(|it| it.documents),
        bytes: known.and_then(|it| it.bytes),
        exists: facts.unknown.is_none().then_some(known.is_some() || is_new),
        is_new,
        ..Touch::new(collection)
    }
}

fn indexes(
    command: &Document,
    touch: &mut Touch,
    known: Option<&CollectionFacts>,
    facts: &MongoFacts,
    outlook: &mut Outlook,
) {
    let wanted = command.get_array("indexes").map(Vec::as_slice).unwrap_or_default();
    let there = known.map(|it| it.indexes.as_slice()).unwrap_or_default();
    let mut fields = 0;
    for index in wanted.iter().filter_map(Bson::as_document) {
        let name = index.get_str("name").unwrap_or_default();
        let key = index.get_document("key").cloned().unwrap_or_default();
        let same_name = there.iter().find(|it| it.get_str("name").ok() == Some(name));
        let same_key = there.iter().find(|it| is_same_key(it, &key));
        match (same_name, same_key) {
            (Some(it), _) if is_same_key(it, &key) => {
                outlook.notes.push(format!("the index {name} is there already"));
            }
            (Some(_), _) => {
                outlook.warnings.push(format!("another index of {} is called {name}", touch.name));
            }
            (None, Some(it)) => {
                let other = it.get_str("name").unwrap_or_default();
                outlook.notes.push(format!("the index {other} has the same fields"));
                fields += key.len();
            }
            (None, None) => fields += key.len(),
        }
    }
    if fields == 0 {
        return;
    }
    touch.toil = Toil::Scan;
    touch.why = Some("an index is built".to_owned());
    let size = known.and_then(|it| it.id_index);
    touch.index_bytes = size.map(|size| size.saturating_mul(fields as u64));
    if !touch.is_large() {
        return;
    }
    let place = touch.sized("documents");
    let takes = touch.index_bytes.map(bytes);
    let takes = takes.map_or_else(|| "its size".to_owned(), |size| format!("about {size}"));
    let free = facts.free.map(bytes);
    let free = free.unwrap_or_else(|| "it is unknown how much".to_owned());
    let text = format!("an index over {place}: it takes {takes}, {free} is free");
    let scarce = matches!((touch.index_bytes, facts.free), (Some(size), Some(free)) if size > free);
    match scarce {
        true => outlook.warnings.push(text),
        false => outlook.notes.push(text),
    }
}

/// Types of numbers do not matter: `1` and `1.0` are the same direction.
fn is_same_key(index: &Document, key: &Document) -> bool {
    let Ok(its) = index.get_document("key") else { return false };
    let number = |value: &Bson| match value {
        Bson::Int32(number) => Some(f64::from(*number)),
        #[expect(clippy::cast_precision_loss, reason = "it is 1 or -1")]
        Bson::Int64(number) => Some(*number as f64),
        Bson::Double(number) => Some(*number),
        _ => None,
    };
    its.len() == key.len()
        && its.iter().zip(key).all(|((a, x), (b, y))| {
            a == b && (x == y || number(x).is_some() && number(x) == number(y))
        })
}

fn counted(
    word: &str,
    matches: Option<&Matches>,
    touch: &mut Touch,
    facts: &MongoFacts,
    outlook: &mut Outlook,
) {
    match matches {
        Some(Matches::Documents(documents)) => {
            touch.matches = Some(*documents);
            if *documents >= ROWS_MANY {
                let does = if word == "delete" { "deletes" } else { "writes" };
                outlook.warnings.push(format!(
                    "{does} {} documents of {} in one transaction; a backfill does it in batches",
                    about(*documents),
                    touch.name
                ));
            }
        }
        Some(Matches::Unknown(why)) => {
            outlook.unknown.get_or_insert(format!("how many documents match: {why}"));
        }
        None if facts.unknown.is_none() && touch.exists == Some(true) && !touch.is_new => {
            let why = "how many documents match: there are too many filters to ask";
            outlook.unknown.get_or_insert(why.to_owned());
        }
        None => {}
    }
}

fn dropped(
    command: &Document,
    collection: &str,
    known: Option<&CollectionFacts>,
    outlook: &mut Outlook,
) {
    let Some(known) = known else { return };
    let names: Vec<&str> = match command.get("index") {
        Some(Bson::String(name)) if name != "*" => vec![name],
        Some(Bson::Array(names)) => names.iter().filter_map(Bson::as_str).collect(),
        _ => Vec::new(),
    };
    for name in names {
        if !known.indexes.iter().any(|it| it.get_str("name").ok() == Some(name)) {
            outlook.notes.push(format!("{collection} has no index {name} yet"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::id::Version;
    use crate::core::parse::mongosh;
    use bson::doc;

    fn check(script: &str, expected: &str) {
        let read = mongosh::read(script).expect("it is right");
        let name = "up/mongo/1".parse().expect("a step");
        let id = StepId { version: Version(1), name };
        let people = CollectionFacts {
            documents: Some(2_000_000),
            bytes: Some(1 << 30),
            id_index: Some(20 << 20),
            indexes: vec![doc! { "name": "email_1", "key": { "email": 1.0 } }],
            ..CollectionFacts::default()
        };
        let facts = MongoFacts {
            collections: [("people".to_owned(), people)].into(),
            matches: [((id.clone(), 0), Matches::Documents(40_000))].into(),
            free: Some(1 << 30),
            unknown: None,
        };
        let mut before = Before::default();
        let mut lines = Vec::new();
        for read in read {
            let found = outlook(&id, &read.step, &facts, &mut before);
            for touch in &found.touches {
                let matches = touch.matches.map(|it| format!(" matches {it}")).unwrap_or_default();
                lines.push(format!("{} {}{matches}", touch.name, touch.toil.word()));
            }
            lines.extend(found.notes.iter().map(|note| format!("note: {note}")));
            lines.extend(found.warnings.iter().map(|it| format!("warning: {it}")));
            lines.extend(found.unknown.iter().map(|it| format!("unknown: {it}")));
        }
        assert_eq!(lines.join("\n"), expected, "{script}");
    }

    #[test]
    fn the_server_tells_what_a_statement_meets() {
        check(
            "db.people.createIndex({ email: 1 })",
            "people nothing\nnote: the index email_1 is there already",
        );
        check(
            "db.people.createIndex({ age: 1 })",
            "people scan\n\
             note: an index over people (≈2.0 M documents, 1.0 GB): it takes about 20 MB, 1.0 GB is free",
        );
        check(
            "db.people.createIndex({ age: 1 }, { name: 'email_1' })",
            "people nothing\nwarning: another index of people is called email_1",
        );
        check(
            "db.people.updateMany({ a: 1 }, { $set: { b: 1 } })",
            "people nothing matches 40000\n\
             warning: writes ≈40 k documents of people in one transaction; a backfill does it in batches",
        );
        check("db.gone.drop()", "gone nothing\nnote: there is no gone yet");
        check("db.createCollection('x'); db.x.createIndex({ a: 1 })", "x nothing\nx scan");
        check("db.people.dropIndex('nope')", "people nothing\nnote: people has no index nope yet");
    }
}
