//! Comparison: whether the rows of one store are the documents of the other, while
//! an application writes both.
//!
//! The two are never read at the same moment, so that two rows differ is no verdict:
//! one store may be about to get what the other has already. A difference is looked
//! at again after a while. It is fine if one store now has what the other has, or had
//! then; it is *hot* if either moved; if both stood still it is looked at once more,
//! and only then the rows have *diverged*. What keeps moving and never agrees is
//! unresolved, which is no proof of anything.
//!
//! Time comes in as a value: how long it is since the comparison began.

use crate::core::mapping::canonical::{self, RangeHash};
use crate::core::mapping::{self, Bad, Column, Kind as Holds};
use bson::raw::{RawBsonRef, RawDocument, RawDocumentBuf, RawElement};
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// So many keys are compared at a time: few enough that both stores are read at
/// about the same moment, enough that a range costs more than asking for it.
pub const RANGE_ROWS: u64 = 8_000;

/// So many differences are told one by one; whoever has more has one problem, not
/// many.
pub const TOLD_MAX: usize = 1_000;

/// So many differences wait for their next look at most; then they come before the
/// next range.
pub const WATCHED_MAX: usize = 16_384;

/// A comparison is as old as this at most when `cleanup` begins, unless the
/// invariant says otherwise.
pub const MAX_AGE: Duration = Duration::from_hours(1);

/// A difference is looked at again after this at the earliest.
const SECOND_LOOK: Duration = Duration::from_secs(5);

/// So often in a row a difference must stand still: the second time proves it.
const STILL: u32 = 2;

/// So often a difference may move before nobody can say what it is.
const HOT_MAX: u32 = 40;

/// What moved is looked at this much sooner than what stands still: of a row that is
/// written all the time, one store has at any moment what the other had just before.
const SOONER: u32 = 20;

/// When a difference is looked at again: when whatever one store is about to get
/// must have come, though standbys lag.
pub fn second_look(lag: Option<Duration>) -> Duration {
    lag.map_or(SECOND_LOOK, |lag| (lag * 2).max(SECOND_LOOK))
}

/// The hash of what a row says, or of its key.
pub type Hash = u128;

/// What says which rows belong together: the fields of the key, as one store has
/// them.
#[derive(Clone, Debug, PartialEq)]
pub struct RowKey(pub RawDocumentBuf);

impl RowKey {
    /// The key of a row; a field that is not there is null.
    pub fn of(row: &RawDocument, fields: &[String]) -> RowKey {
        let mut key = RawDocumentBuf::new();
        for field in fields {
            let value = row.get(field).ok().flatten().unwrap_or(RawBsonRef::Null);
            if let Ok(name) = bson::raw::CString::try_from(field.as_str()) {
                key.append(name, value);
            }
        }
        RowKey(key)
    }

    /// What is equal of keys that are: of numbers their value.
    pub fn id(&self) -> Hash {
        hash(&self.0).unwrap_or_else(|_| canonical::digest(self.0.as_bytes()))
    }

    /// Its values, in the order of the key.
    pub fn values(&self) -> impl Iterator<Item = RawBsonRef<'_>> {
        self.0.iter().filter_map(|field| field.ok().map(|(_, value)| value))
    }

    /// For machines: the value of a key of one field, else an object.
    pub fn json(&self) -> serde_json::Value {
        let json = |value: RawBsonRef<'_>| {
            bson::Bson::try_from(value).map_or(serde_json::Value::Null, |value| match value {
                bson::Bson::ObjectId(id) => serde_json::Value::String(id.to_hex()),
                bson::Bson::Binary(binary) => match binary.to_uuid() {
                    Ok(uuid) => serde_json::Value::String(uuid.to_string()),
                    Err(_) => bson::Bson::Binary(binary).into_relaxed_extjson(),
                },
                value => value.into_relaxed_extjson(),
            })
        };
        let fields: Vec<_> = self.0.iter().filter_map(Result::ok).collect();
        match fields.as_slice() {
            [(_, value)] => json(*value),
            fields => fields
                .iter()
                .map(|(name, value)| (name.to_string(), json(*value)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }
}

/// `_id = 7`, `tenant = 2, id = "b"`.
impl fmt::Display for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = self.json();
        let mut comma = "";
        let is_one = self.0.iter().count() == 1;
        for (name, _) in self.0.iter().filter_map(Result::ok) {
            let value = if is_one { &json } else { &json[name.as_str()] };
            write!(f, "{comma}{name} = {value}")?;
            comma = ", ";
        }
        Ok(())
    }
}

/// So many bytes of rows are kept as they came. What is more is reduced to hashes.
const HELD_MAX: usize = 4 << 20;

/// Rows of one store. They are kept as they came as long as they are not too many
/// bytes: where the other store has the very same bytes, nobody has to look at what
/// they say. Else they are [looked at](Rows::look), and nothing but their hashes and
/// their keys stays.
#[derive(Debug, Default)]
pub struct Rows {
    /// The fields of the key.
    key: Vec<String>,
    /// One behind the other, as they came, and where each ends.
    held: Vec<u8>,
    ends: Vec<usize>,
    /// All that were looked at in one: rows of two stores with an equal fingerprint
    /// are the same.
    fingerprint: RangeHash,
    /// One behind the other: a row has no memory of its own.
    keys: Vec<u8>,
    /// Where each key begins, and the hash of its row.
    hashes: Vec<(usize, Hash)>,
    /// Rows that cannot be compared, and why.
    unreadable: Vec<(RowKey, String)>,
}

/// The hash of what a row says.
pub fn hash(row: &RawDocument) -> Result<Hash, Bad> {
    canonical::hash(row, &[])
}

/// A document as what it is when it is a row: an ObjectId is the text or the bytes that
/// its column has, a `char(n)` has no blanks at its end, and JSON has texts for dates and
/// ids. What no column could hold stays what it is, and differs. In a key only ObjectIds
/// and blanks turn: a document is asked for by its key.
pub fn as_row<'a>(
    document: &'a RawDocument,
    columns: &[Column],
    key: &[String],
) -> Cow<'a, RawDocument> {
    let of = |name: &str| columns.iter().find(|column| column.name == name);
    let turns = |name: &str, value: RawBsonRef<'_>| {
        let holds = || of(name).map(|column| &column.kind);
        let is_of_key = || key.iter().any(|field| field == name);
        match value {
            RawBsonRef::ObjectId(_) | RawBsonRef::Array(_) => true,
            RawBsonRef::String(text) => match holds() {
                Some(Holds::Char(_)) => text.ends_with(' '),
                Some(Holds::Uuid | Holds::Time(_) | Holds::Interval(_)) => !is_of_key(),
                _ => false,
            },
            RawBsonRef::DateTime(_) | RawBsonRef::Binary(_) | RawBsonRef::Document(_) => {
                matches!(holds(), Some(Holds::Json | Holds::Jsonb)) && is_other_in_json(value)
            }
            _ => false,
        }
    };
    let fields = || document.iter_elements().filter_map(Result::ok);
    let value = |field: &RawElement<'a>| field.value().unwrap_or(RawBsonRef::Null);
    if !fields().any(|field| turns(field.key().as_str(), value(&field))) {
        return Cow::Borrowed(document);
    }
    let mut row = RawDocumentBuf::new();
    for field in fields() {
        let (name, value) = (field.key(), value(&field));
        let mut one = RawDocumentBuf::new();
        one.append(name, value);
        let kept = of(name.as_str())
            .filter(|_| turns(name.as_str(), value))
            .and_then(|column| mapping::kept(std::slice::from_ref(column), &one).ok());
        let kept = kept.unwrap_or(one);
        if let Ok(Some(value)) = kept.get(name.as_str()) {
            row.append(name, value);
        }
    }
    Cow::Owned(row)
}

/// Whether a value, or one in it, comes back from JSON as another: as a text.
fn is_other_in_json(value: RawBsonRef<'_>) -> bool {
    match value {
        RawBsonRef::Document(fields) => {
            fields.iter().filter_map(Result::ok).any(|(_, value)| is_other_in_json(value))
        }
        RawBsonRef::Array(items) => items.into_iter().filter_map(Result::ok).any(is_other_in_json),
        RawBsonRef::ObjectId(_)
        | RawBsonRef::DateTime(_)
        | RawBsonRef::Binary(_)
        | RawBsonRef::Symbol(_) => true,
        _ => false,
    }
}

impl Rows {
    /// None yet, with the fields of their key.
    pub fn new(key: &[String]) -> Rows {
        Rows { key: key.to_vec(), ..Rows::default() }
    }

    /// One more row.
    pub fn push(&mut self, row: &RawDocument) {
        let bytes = row.as_bytes();
        if self.held.len() + bytes.len() > HELD_MAX {
            self.look();
        }
        self.held.extend_from_slice(bytes);
        self.ends.push(self.held.len());
    }

    /// One more row, that cannot be compared.
    pub fn push_unreadable(&mut self, key: RowKey, why: String) {
        self.unreadable.push((key, why));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len() + self.hashes.len() + self.unreadable.len()
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The keys of those that can be compared.
    pub fn keys(&self) -> impl Iterator<Item = RowKey> {
        let ends = self.hashes.iter().skip(1).map(|(at, _)| *at).chain([self.keys.len()]);
        let bytes = self.hashes.iter().zip(ends).map(|((at, _), end)| &self.keys[*at..end]);
        let looked = bytes.filter_map(|key| RawDocumentBuf::from_bytes(key.to_vec()).ok());
        let held = self.held().filter_map(|row| RawDocument::from_bytes(row).ok());
        looked.map(RowKey).chain(held.map(|row| RowKey::of(row, &self.key)))
    }

    /// Those that are kept as they came.
    fn held(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, end)| &self.held[begin..*end])
    }

    /// Looks at what is kept as it came: what it says becomes its hash.
    pub fn look(&mut self) {
        let held = std::mem::take(&mut self.held);
        let mut said = Vec::new();
        let mut begin = 0;
        for end in std::mem::take(&mut self.ends) {
            let bytes = &held[std::mem::replace(&mut begin, end)..end];
            let Ok(row) = RawDocument::from_bytes(bytes) else { continue };
            let key = RowKey::of(row, &self.key);
            said.clear();
            match canonical::append(row, &[], &mut said) {
                Ok(()) => {
                    let hash = canonical::digest(&said);
                    self.fingerprint.add(hash);
                    self.hashes.push((self.keys.len(), hash));
                    self.keys.extend_from_slice(key.0.as_bytes());
                }
                Err(Bad { reason }) => self.push_unreadable(key, reason),
            }
        }
    }

    /// Whether they are the very same as others, byte by byte, in whatever order.
    pub fn are_those(&self, others: &Rows) -> bool {
        let were_looked_at = |rows: &Rows| !(rows.hashes.is_empty() && rows.unreadable.is_empty());
        if were_looked_at(self) || were_looked_at(others) || self.held.len() != others.held.len() {
            return false;
        }
        if self.held == others.held && self.ends == others.ends {
            return true;
        }
        let sorted = |rows: &Rows| {
            let mut sorted: Vec<(usize, usize)> = rows
                .ends
                .iter()
                .scan(0, |begin, end| Some((std::mem::replace(begin, *end), *end)))
                .collect();
            sorted.sort_unstable_by_key(|(begin, end)| &rows.held[*begin..*end]);
            sorted
        };
        let (ours, theirs) = (sorted(self), sorted(others));
        let pairs = ours.iter().zip(&theirs);
        ours.len() == theirs.len()
            && pairs
                .into_iter()
                .all(|(one, other)| self.held[one.0..one.1] == others.held[other.0..other.1])
    }

    /// What there is of each key.
    fn seen(&self) -> BTreeMap<Hash, (RowKey, Seen)> {
        let mut seen: BTreeMap<Hash, (RowKey, Seen)> = BTreeMap::new();
        let mut add = |key: RowKey, one: Seen| {
            let entry = seen.entry(key.id()).or_insert((key, Seen::Nothing));
            entry.1 = std::mem::replace(&mut entry.1, Seen::Nothing).and(one);
        };
        for (key, (_, hash)) in self.keys().zip(&self.hashes) {
            add(key, Seen::One(*hash));
        }
        for (key, why) in &self.unreadable {
            add(key.clone(), Seen::Unreadable(why.clone()));
        }
        seen
    }
}

/// The keys under which the two do not have the same. Looks at both, where they are
/// not the very same.
pub fn differences(postgres: &mut Rows, mongo: &mut Rows) -> Vec<(RowKey, Look)> {
    if postgres.are_those(mongo) {
        return Vec::new();
    }
    postgres.look();
    mongo.look();
    let are_readable = postgres.unreadable.is_empty() && mongo.unreadable.is_empty();
    if are_readable && postgres.fingerprint == mongo.fingerprint {
        return Vec::new();
    }
    let mut in_mongo = mongo.seen();
    let mut found = Vec::new();
    for (id, (key, postgres)) in postgres.seen() {
        let mongo = in_mongo.remove(&id).map_or(Seen::Nothing, |(_, seen)| seen);
        found.push((key, Look { postgres, mongo }));
    }
    let rest = in_mongo.into_values();
    found.extend(rest.map(|(key, mongo)| (key, Look { postgres: Seen::Nothing, mongo })));
    found.retain(|(_, look)| look.differs());
    found
}

/// What one store has under a key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Seen {
    /// No row.
    Nothing,
    /// A row, by its hash.
    One(Hash),
    /// So many rows, which a key does not have; and all their hashes in one.
    Several(u64, RangeHash),
    /// A row that cannot be compared, and why.
    Unreadable(String),
}

impl Seen {
    /// With one more of the same key.
    #[must_use]
    pub fn and(self, other: Seen) -> Seen {
        let both = |one: Hash, other: Hash| {
            let mut all = RangeHash::default();
            all.add(one);
            all.add(other);
            Seen::Several(2, all)
        };
        match (self, other) {
            (Seen::Nothing, it) | (it, Seen::Nothing) => it,
            (Seen::One(one), Seen::One(other)) => both(one, other),
            (Seen::Several(count, mut all), Seen::One(one))
            | (Seen::One(one), Seen::Several(count, mut all)) => {
                all.add(one);
                Seen::Several(count + 1, all)
            }
            (it @ (Seen::Unreadable(_) | Seen::Several(..)), _) | (_, it) => it,
        }
    }
}

/// What both stores have under one key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Look {
    /// In Postgres.
    pub postgres: Seen,
    /// In MongoDB.
    pub mongo: Seen,
}

impl Look {
    /// They do not have the same.
    pub fn differs(&self) -> bool {
        self.postgres != self.mongo || matches!(self.postgres, Seen::Unreadable(_))
    }

    /// What differs, as long as something does.
    fn kind(&self) -> Kind {
        match (&self.postgres, &self.mongo) {
            (Seen::Unreadable(_), _) | (_, Seen::Unreadable(_)) => Kind::NotComparable,
            (Seen::Several(..), _) | (_, Seen::Several(..)) => Kind::Duplicate,
            (Seen::Nothing, _) => Kind::MissingInPostgres,
            (_, Seen::Nothing) => Kind::MissingInMongo,
            (Seen::One(_), Seen::One(_)) => Kind::Different,
        }
    }

    fn why(&self) -> Option<String> {
        match (&self.postgres, &self.mongo) {
            (Seen::Unreadable(why), _) | (_, Seen::Unreadable(why)) => Some(why.clone()),
            (Seen::Several(count, _), _) => Some(format!("{count} rows in Postgres have this key")),
            (_, Seen::Several(count, _)) => {
                Some(format!("{count} documents in MongoDB have this key"))
            }
            _ => None,
        }
    }
}

/// What is not the same.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// MongoDB has it, Postgres does not.
    MissingInPostgres,
    /// Postgres has it, MongoDB does not.
    MissingInMongo,
    /// Both have it, and not the same of it.
    Different,
    /// More than one row has this key.
    Duplicate,
    /// It has no document, so nobody can say.
    NotComparable,
    /// It changed each time it was looked at, and was never the same.
    Unresolved,
}

/// One key under which the two do not have the same.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Difference {
    /// Which.
    pub key: serde_json::Value,
    /// What is not the same.
    pub kind: Kind,
    /// Where both have it: the fields in which they differ.
    pub fields: Vec<String>,
    /// Why it cannot be compared; how many have the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The key for people.
    #[serde(skip)]
    pub shown: String,
}

/// `_id = 7 differs in email, name`.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { kind, fields, shown, .. } = self;
        let reason = self.reason.as_deref().unwrap_or_default();
        match kind {
            Kind::MissingInPostgres => write!(f, "{shown} is missing in Postgres"),
            Kind::MissingInMongo => write!(f, "{shown} is missing in MongoDB"),
            Kind::Different => write!(f, "{shown} differs in {}", fields.join(", ")),
            Kind::Duplicate => write!(f, "{shown}: {reason}"),
            Kind::NotComparable => write!(f, "{shown} cannot be compared: {reason}"),
            Kind::Unresolved => write!(f, "{shown} changes all the time, and was never the same"),
        }
    }
}

/// A difference that is looked at again.
#[derive(Clone, Debug)]
struct Suspect {
    key: RowKey,
    look: Look,
    /// The range in which it was found.
    range: u64,
    due: Duration,
    still: u32,
    hot: u32,
    /// What the stores had when it moved.
    was: Vec<Look>,
}

/// The differences that are no verdict yet, and the verdicts.
#[derive(Debug)]
pub struct Watch {
    again: Duration,
    suspects: BTreeMap<Hash, Suspect>,
    differences: Vec<Difference>,
    diverged: u64,
    unresolved: u64,
}

impl Watch {
    /// Nothing differs. What does is looked at `again` after so long.
    pub fn new(again: Duration) -> Watch {
        Watch {
            again,
            suspects: BTreeMap::new(),
            differences: Vec::new(),
            diverged: 0,
            unresolved: 0,
        }
    }

    /// What was found in a range. One that is watched already stays what it is.
    pub fn suspect(&mut self, now: Duration, range: u64, key: RowKey, look: Look) {
        let due = now + self.again;
        let suspect = Suspect { key, look, range, due, still: 0, hot: 0, was: Vec::new() };
        self.suspects.entry(suspect.key.id()).or_insert(suspect);
    }

    /// What is to be looked at now, not more than so many.
    pub fn due(&self, now: Duration, most: usize) -> Vec<RowKey> {
        let mut due: Vec<&Suspect> =
            self.suspects.values().filter(|suspect| suspect.due <= now).collect();
        due.sort_by_key(|suspect| suspect.due);
        due.iter().take(most).map(|suspect| suspect.key.clone()).collect()
    }

    /// When the next one is to be looked at.
    pub fn next(&self) -> Option<Duration> {
        self.suspects.values().map(|suspect| suspect.due).min()
    }

    /// It was looked at again. `fields` are those in which the rows of that look
    /// differ.
    pub fn look(&mut self, now: Duration, key: &RowKey, look: &Look, fields: &[String]) {
        let id = key.id();
        let Some(suspect) = self.suspects.get_mut(&id) else { return };
        let before = std::mem::replace(&mut suspect.look, look.clone());
        let was = || suspect.was.iter().chain([&before]);
        // One has come to where the other was. One that stands still may be there by
        // chance, or because what came later was lost.
        let has_followed = look.mongo != before.mongo
            && was().any(|was| was.postgres == look.mongo)
            || look.postgres != before.postgres && was().any(|was| was.mongo == look.postgres);
        if !look.differs() || has_followed {
            self.suspects.remove(&id);
            return;
        }
        let kind = if *look == before {
            suspect.still += 1;
            (suspect.still >= STILL).then(|| look.kind())
        } else {
            suspect.still = 0;
            suspect.hot += 1;
            suspect.was.push(before.clone());
            (suspect.hot >= HOT_MAX).then_some(Kind::Unresolved)
        };
        let Some(kind) = kind else {
            suspect.due = now + if *look == before { self.again } else { self.again / SOONER };
            return;
        };
        self.suspects.remove(&id);
        self.decide(kind, key, look, fields);
    }

    /// What was found in a range under a key that cannot be asked for again, as a part
    /// of it is what cannot be compared.
    pub fn certain(&mut self, key: &RowKey, look: &Look) {
        self.decide(look.kind(), key, look, &[]);
    }

    fn decide(&mut self, kind: Kind, key: &RowKey, look: &Look, fields: &[String]) {
        match kind {
            Kind::Unresolved => self.unresolved += 1,
            _ => self.diverged += 1,
        }
        if self.differences.len() < TOLD_MAX {
            let fields = if kind == Kind::Different { fields.to_vec() } else { Vec::new() };
            let (reason, shown) = (look.why(), key.to_string());
            self.differences.push(Difference { key: key.json(), kind, fields, reason, shown });
        }
    }

    /// So many are not decided.
    pub fn len(&self) -> usize {
        self.suspects.len()
    }

    /// All that was found is decided.
    pub fn is_empty(&self) -> bool {
        self.suspects.is_empty()
    }

    /// The first range of which something is not decided.
    pub fn first_range(&self) -> Option<u64> {
        self.suspects.values().map(|suspect| suspect.range).min()
    }

    /// More is not told: going on would prove nothing that is not proven.
    pub fn is_full(&self) -> bool {
        self.differences.len() >= TOLD_MAX
    }

    /// Nothing was found that counts.
    pub fn is_clean(&self) -> bool {
        self.diverged == 0 && self.unresolved == 0
    }

    /// What was found.
    pub fn verdict(mut self) -> Verdict {
        self.differences.sort_by(|a, b| order(a).cmp(&order(b)));
        match (self.diverged, self.unresolved) {
            (0, 0) => Verdict::Clean,
            (0, count) => Verdict::Unresolved { count, differences: self.differences },
            (diverged, unresolved) => {
                Verdict::Diverged { count: diverged + unresolved, differences: self.differences }
            }
        }
    }
}

/// Numbers as numbers, the rest as texts: for people who read a list.
fn order(of: &Difference) -> (Option<i64>, &str) {
    (of.key.as_i64(), &of.shown)
}

/// What a comparison says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The rows are the documents.
    Clean,
    /// They are not.
    Diverged {
        /// So many are not.
        count: u64,
        /// The first [`TOLD_MAX`] of them.
        differences: Vec<Difference>,
    },
    /// Nothing stood still long enough to tell.
    Unresolved {
        /// So many.
        count: u64,
        /// The first [`TOLD_MAX`] of them.
        differences: Vec<Difference>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Bson, Document, doc};
    use proptest::prelude::*;

    const AGAIN: Duration = Duration::from_secs(5);

    fn row(document: &Document) -> RawDocumentBuf {
        RawDocumentBuf::try_from(document).unwrap()
    }

    fn fields() -> Vec<String> {
        vec!["_id".to_owned()]
    }

    fn rows(documents: &[Document]) -> Rows {
        let mut rows = Rows::new(&fields());
        for document in documents {
            rows.push(&row(document));
        }
        rows
    }

    fn kinds(postgres: &[Document], mongo: &[Document]) -> Vec<(String, Kind)> {
        let found = differences(&mut rows(postgres), &mut rows(mongo));
        let mut kinds: Vec<(String, Kind)> =
            found.iter().map(|(key, look)| (key.to_string(), look.kind())).collect();
        kinds.sort_by(|a, b| a.0.cmp(&b.0));
        kinds
    }

    #[test]
    fn rows_are_the_same_whatever_their_order_and_types() {
        let postgres = [doc! { "_id": 1, "a": 1.5, "b": Bson::Null }, doc! { "_id": 2_i64 }];
        let mongo = [doc! { "_id": 2.0 }, doc! { "a": 1.5, "_id": 1 }];
        assert_eq!(kinds(&postgres, &mongo), []);
    }

    #[test]
    fn what_is_missing_different_or_there_twice_is_told_apart() {
        let postgres = [
            doc! { "_id": 1 },
            doc! { "_id": 2, "a": 1 },
            doc! { "_id": 3 },
            doc! { "_id": 3, "a": 1 },
        ];
        let mongo = [doc! { "_id": 2, "a": 2 }, doc! { "_id": 3 }, doc! { "_id": 4 }];
        let expected = [
            ("_id = 1", Kind::MissingInMongo),
            ("_id = 2", Kind::Different),
            ("_id = 3", Kind::Duplicate),
            ("_id = 4", Kind::MissingInPostgres),
        ];
        assert_eq!(kinds(&postgres, &mongo), expected.map(|(key, kind)| (key.to_owned(), kind)));
    }

    #[test]
    fn a_row_that_cannot_be_compared_is_never_the_same() {
        let key = RowKey::of(&row(&doc! { "_id": 1 }), &fields());
        let (mut one, mut other) = (Rows::default(), Rows::default());
        one.push_unreadable(key.clone(), "why".to_owned());
        other.push_unreadable(key, "why".to_owned());
        assert_eq!(differences(&mut one, &mut other).len(), 1);
    }

    #[test]
    fn rows_are_the_very_same_in_whatever_order_as_long_as_nobody_looked_at_them() {
        let documents: Vec<Document> = (0..50).map(|id| doc! { "_id": id, "a": id % 3 }).collect();
        let shuffled: Vec<Document> = documents.iter().rev().cloned().collect();
        let mut other = shuffled.clone();
        other[7].insert("a", 7);
        let all = rows(&documents);
        assert!(all.are_those(&rows(&documents)));
        assert!(all.are_those(&rows(&shuffled)));
        assert!(!all.are_those(&rows(&other)));
        assert!(!all.are_those(&rows(&documents[1..])));
        // The same bytes, cut elsewhere, would be no documents.
        assert_eq!(kinds(&documents, &other), [("_id = 42".to_owned(), Kind::Different)]);
        let mut looked_at = rows(&documents);
        looked_at.look();
        assert!(!looked_at.are_those(&all) && !all.are_those(&looked_at));
        assert_eq!(differences(&mut looked_at, &mut rows(&shuffled)), []);
        let keys: Vec<RowKey> = looked_at.keys().collect();
        assert_eq!(keys, all.keys().collect::<Vec<_>>());
        assert_eq!((keys.len(), looked_at.len(), all.len()), (50, 50, 50));
    }

    #[test]
    fn rows_of_many_bytes_are_the_same_wherever_they_were_cut() {
        let text = "x".repeat(HELD_MAX / 8);
        let wide = |id: i32| doc! { "_id": id, "text": &text };
        let documents: Vec<Document> = (0..30).map(wide).collect();
        let mut one_differs: Vec<Document> = documents.iter().rev().cloned().collect();
        assert_eq!(kinds(&documents, &documents), []);
        assert_eq!(kinds(&documents, &one_differs), []);
        let held = rows(&documents).held.len();
        assert!(held <= HELD_MAX, "{held} bytes");
        one_differs[20].insert("text", "y");
        assert_eq!(kinds(&documents, &one_differs), [("_id = 9".to_owned(), Kind::Different)]);
    }

    #[test]
    fn an_object_id_is_what_its_column_has() {
        let id = bson::oid::ObjectId::parse_str("507f1f77bcf86cd799439011").unwrap();
        let column = |kind| [Column { name: "_id".to_owned(), kind }];
        let document = row(&doc! { "_id": id, "a": 1 });
        let text = as_row(&document, &column(Holds::Char(Some(24))), &fields());
        assert_eq!(*text, *row(&doc! { "_id": "507f1f77bcf86cd799439011", "a": 1 }));
        let bytes = as_row(&document, &column(Holds::Bytea), &fields());
        assert_eq!(bytes.get_binary("_id").unwrap().bytes, id.bytes());
        assert_eq!(*as_row(&document, &column(Holds::Int4), &fields()), *document);
        let padded = row(&doc! { "_id": "ab  " });
        let trimmed = as_row(&padded, &column(Holds::Char(Some(4))), &fields());
        assert_eq!(*trimmed, *row(&doc! { "_id": "ab" }));
        assert_eq!(*as_row(&padded, &column(Holds::Text(None)), &fields()), *padded);
    }

    #[test]
    fn a_value_is_what_comes_back_from_the_column_that_a_copy_wrote_it_to() {
        let id = bson::oid::ObjectId::parse_str("507f1f77bcf86cd799439011").unwrap();
        let at = bson::DateTime::parse_rfc3339_str("2026-11-20T10:00:00.123Z").unwrap();
        let uuid = bson::Uuid::parse_str("01234567-89ab-cdef-0123-456789abcdef").unwrap();
        let check = |kind, value: Bson, expected: Bson| {
            let columns = [Column { name: "a".to_owned(), kind }];
            let document = row(&doc! { "_id": 1, "a": value });
            let expected = row(&doc! { "_id": 1, "a": expected });
            assert_eq!(*as_row(&document, &columns, &fields()), *expected);
        };
        let text = "2026-11-20T10:00:00.123Z";
        for kind in [Holds::Json, Holds::Jsonb] {
            let nested = Bson::from(doc! { "b": [{ "at": at }], "by": id });
            let expected = doc! { "b": [{ "at": text }], "by": "507f1f77bcf86cd799439011" };
            check(kind.clone(), nested, expected.into());
            check(kind.clone(), at.into(), text.into());
            let regex =
                bson::Regex { pattern: bson::cstr!("b").into(), options: bson::cstr!("").into() };
            let refused = Bson::from(doc! { "at": at, "b": regex });
            check(kind, refused.clone(), refused);
        }
        check(Holds::Uuid, "01234567-89AB-CDEF-0123-456789ABCDEF".into(), uuid.into());
        check(Holds::Uuid, "x".into(), "x".into());
        check(Holds::Time(6), "13:05".into(), "13:05:00".into());
        check(Holds::Interval(mapping::Finest::Micros(1)), "P14M".into(), "P1Y2M".into());
        check(Holds::Timestamp(6), at.into(), at.into());
        // Who has the text and who has the UUID of it are two documents.
        let columns = [Column { name: "_id".to_owned(), kind: Holds::Uuid }];
        let document = row(&doc! { "_id": uuid.to_string() });
        assert_eq!(*as_row(&document, &columns, &fields()), *document);
    }

    #[test]
    fn a_key_that_cannot_be_asked_for_again_is_decided_at_once() {
        let mut watch = Watch::new(AGAIN);
        let postgres = Seen::Unreadable("`_id`: a timestamptz is infinite".to_owned());
        let look = Look { postgres, mongo: Seen::Nothing };
        watch.certain(&RowKey(RawDocumentBuf::new()), &look);
        assert!(watch.is_empty() && !watch.is_clean());
        let Verdict::Diverged { count: 1, differences } = watch.verdict() else { panic!() };
        assert_eq!(differences[0].kind, Kind::NotComparable);
    }

    fn key() -> RowKey {
        RowKey::of(&row(&doc! { "_id": 1 }), &fields())
    }

    fn look(postgres: u128, mongo: u128) -> Look {
        let seen = |hash| if hash == 0 { Seen::Nothing } else { Seen::One(hash) };
        Look { postgres: seen(postgres), mongo: seen(mongo) }
    }

    /// What comes of looks at one key, each when it is due.
    fn verdict(looks: &[(u128, u128)]) -> Option<Verdict> {
        let mut watch = Watch::new(AGAIN);
        let mut now = Duration::ZERO;
        watch.suspect(now, 1, key(), look(looks[0].0, looks[0].1));
        for (postgres, mongo) in &looks[1..] {
            assert_eq!(watch.due(now, 9), [], "it is not due yet");
            now = watch.next()?;
            assert_eq!(watch.due(now, 9), [key()]);
            watch.look(now, &key(), &look(*postgres, *mongo), &["a".to_owned()]);
        }
        watch.is_empty().then(|| watch.verdict())
    }

    #[test]
    fn a_difference_that_stands_still_twice_has_diverged() {
        assert_eq!(verdict(&[(1, 2), (1, 2)]), None);
        for (looks, kind) in [((1, 2), Kind::Different), ((1, 0), Kind::MissingInMongo)] {
            let Some(Verdict::Diverged { count: 1, differences }) = verdict(&[looks; 3]) else {
                panic!("{looks:?}");
            };
            assert_eq!(differences[0].kind, kind);
        }
        // What moved has to stand still twice again.
        assert_eq!(verdict(&[(1, 2), (1, 2), (3, 2), (3, 2)]), None);
    }

    #[test]
    fn what_follows_is_fine_though_it_is_late() {
        for looks in [
            [(1, 2), (1, 1)],
            [(1, 2), (2, 2)],
            // The other has come to where this one was, which has gone on.
            [(1, 2), (3, 1)],
            [(1, 2), (2, 3)],
            [(1, 0), (2, 1)],
            [(0, 1), (0, 0)],
        ] {
            assert_eq!(verdict(&looks), Some(Verdict::Clean), "{looks:?}");
        }
        // Or where it was before that.
        assert_eq!(verdict(&[(3, 1), (5, 2), (8, 3)]), Some(Verdict::Clean));
        // What stays where the other was has not followed.
        assert_eq!(verdict(&[(2, 1), (3, 1), (4, 1)]), None);
    }

    #[test]
    fn what_moves_at_each_look_is_unresolved() {
        let looks: Vec<(u128, u128)> = (1..=41).map(|n| (n * 10, 5)).collect();
        assert!(matches!(verdict(&looks), Some(Verdict::Unresolved { count: 1, .. })));
    }

    #[test]
    fn a_range_is_open_until_all_of_it_is_decided() {
        let mut watch = Watch::new(AGAIN);
        assert_eq!(watch.first_range(), None);
        let other = RowKey::of(&row(&doc! { "_id": 2 }), &fields());
        watch.suspect(Duration::ZERO, 7, key(), look(1, 2));
        watch.suspect(Duration::ZERO, 3, other.clone(), look(1, 2));
        assert_eq!(watch.first_range(), Some(3));
        watch.look(AGAIN, &other, &look(1, 1), &[]);
        assert_eq!(watch.first_range(), Some(7));
    }

    /// One key, and who writes it: at times, in one store, and in the other later.
    #[derive(Clone, Debug)]
    struct Application {
        /// Milliseconds; the values are 1, 2, 3 …
        writes: Vec<u64>,
        late: Vec<u64>,
        postgres_first: bool,
    }

    /// What the second store has at a time, when writes come to it in their order.
    fn at(writes: &[u64], late: Option<&[u64]>, now: u64) -> u128 {
        let mut there = 0;
        let mut value = 0;
        for (n, write) in writes.iter().enumerate() {
            there = there.max(write + late.map_or(0, |late| late[n]));
            if there <= now {
                value = n as u128 + 1;
            }
        }
        value
    }

    impl Application {
        fn look(&self, first: u64, second: u64) -> Look {
            let early = at(&self.writes, None, if self.postgres_first { first } else { second });
            let late = at(
                &self.writes,
                Some(&self.late),
                if self.postgres_first { second } else { first },
            );
            if self.postgres_first { look(early, late) } else { look(late, early) }
        }
    }

    fn application() -> impl Strategy<Value = Application> {
        // Up to a second late, as often as ten times a second, and long pauses.
        proptest::collection::vec((prop_oneof![0..200u64, 0..8_000u64], 0..1_000u64), 1..80)
            .prop_flat_map(|writes| (Just(writes), any::<bool>()))
            .prop_map(|(writes, postgres_first)| {
                let mut now = 0;
                let (mut at, mut late) = (Vec::new(), Vec::new());
                for (gap, delay) in writes {
                    now += gap;
                    at.push(now);
                    late.push(delay);
                }
                Application { writes: at, late, postgres_first }
            })
    }

    fn compare(read: impl Fn(u64, u64) -> Look, begin: u64, skew: u64) -> Verdict {
        let mut watch = Watch::new(AGAIN);
        let first = read(begin, begin + skew);
        if first.differs() {
            watch.suspect(Duration::from_millis(begin), 1, key(), first);
        }
        while let Some(due) = watch.next() {
            let now = u64::try_from(due.as_millis()).unwrap();
            watch.look(due, &key(), &read(now, now + skew), &[]);
        }
        watch.verdict()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn an_application_that_is_late_is_never_taken_for_a_fault(
            application in application(), begin in 0..20_000u64, skew in 0..100u64,
        ) {
            let verdict = compare(|one, other| application.look(one, other), begin, skew);
            prop_assert_eq!(verdict, Verdict::Clean);
        }

        /// A write that never came to the second store, after the last that did.
        #[test]
        fn a_fault_that_stays_is_found(
            application in application(), begin in 0..20_000u64, skew in 0..100u64,
            other in prop_oneof![Just(0u128), Just(1_000u128)],
        ) {
            let wrong = |one: u64, two: u64| {
                let seen = application.look(one, two);
                let planted = look(other, other);
                match application.postgres_first {
                    true => Look { mongo: planted.mongo, ..seen },
                    false => Look { postgres: planted.postgres, ..seen },
                }
            };
            let last = application.writes.last().copied().unwrap_or(0);
            let verdict = compare(wrong, begin.max(last + 1), skew);
            let is_found = matches!(verdict, Verdict::Diverged { count: 1, .. });
            prop_assert!(is_found, "{:?}", verdict);
        }
    }
}
