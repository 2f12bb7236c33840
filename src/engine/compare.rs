//! Compares the rows of Postgres with the documents of MongoDB, key by key, while an
//! application writes both. What a difference means is decided by
//! [`core::compare`](crate::core::compare).
//!
//! Rows are read along the key in Postgres, a range at a time. Where MongoDB has the
//! keys in the same order, it is asked for the same range; else for the documents
//! that have these keys, and at the end all its keys are read once more to find
//! those that Postgres does not have. While one store reads a range, the other reads
//! the next one. Where both answer with the same bytes, nobody looks at what they say.
//! Memory holds two ranges, of rows that are not too large, else their hashes; and what
//! differs.

use crate::core::compare::{
    Hash, Look, RANGE_ROWS, RowKey, Rows, Seen, Verdict, WATCHED_MAX, Watch, differences, hash,
};
use crate::core::hex;
use crate::core::history::Record;
use crate::core::id::Version;
use crate::core::mapping::canonical::differing_fields;
use crate::core::notice::{ComparisonProgress, Notice, Notices};
use crate::core::parse::manifest::MongoSource;
use crate::core::step::Timeouts;
use crate::engine::{Stop, StopReason};
use crate::store::StoreError;
use crate::store::compare::{ComparedDocuments, ComparedRows, Found, Kept, Order, Range};
use bson::RawDocumentBuf;
use futures_util::future::join;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// Of a range that has far more documents than rows, so many are enough to say that
/// they are not the same.
const SURPLUS_MAX: usize = 8_000;

/// So many keys are looked at again at once: their documents are in memory.
const LOOK_KEYS: usize = 256;

/// How often is told how far it is.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// How often is recorded how far it is.
pub const KEPT_EVERY: Duration = Duration::from_secs(5);

/// What is compared.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    /// Its migration.
    pub version: Version,
    /// What the invariant is called.
    pub name: &'a str,
    /// Where its progress is recorded, for who has the lease.
    pub record: Option<&'a Record>,
    /// The rows.
    pub postgres: &'a str,
    /// The documents.
    pub mongo: &'a MongoSource,
    /// What says which belong together.
    pub key: &'a [String],
    /// What is kept of an earlier run counts no longer than this.
    pub max_age: Duration,
    /// From `[timeouts]`.
    pub timeouts: Timeouts,
    /// When a difference is looked at again.
    pub again: Duration,
    /// How often is recorded how far it is.
    pub keep: Duration,
}

/// What came out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Compared {
    /// What it says.
    pub verdict: Verdict,
    /// So many rows of Postgres were compared.
    pub rows: u64,
    /// How long ago it began, in this run or in one before.
    pub age: Duration,
    /// It ended early: there were too many differences to go on.
    pub is_partial: bool,
}

/// Why there is no answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Unanswered {
    /// A store said no, or said nothing.
    Store(StoreError),
    /// Somebody asked to stop.
    Stopped(StopReason),
}

impl From<StoreError> for Unanswered {
    fn from(error: StoreError) -> Unanswered {
        Unanswered::Store(error)
    }
}

/// Compares.
///
/// # Errors
/// A store that cannot be read, or somebody asked to stop. What was compared until
/// then is recorded, if there is a record to keep it in.
pub async fn compare<P: ComparedRows, M: ComparedDocuments>(
    postgres: &mut P,
    mongo: &mut M,
    task: Task<'_>,
    stop: &Stop,
    notices: &mut dyn Notices,
) -> Result<Compared, Unanswered> {
    let Task { key, timeouts, .. } = task;
    let rows = postgres.ground(task.postgres, key, timeouts).await?;
    let documents = mongo.ground(task.mongo, key, P::columns(&rows), timeouts).await?;
    let has_ranges = P::order(&rows).is_some_and(|order| M::has_order(&documents, order));
    let way = way(P::order(&rows), has_ranges);
    let begun = Begun::now(postgres, task, &way).await?;
    let mut comparison = Comparison {
        watch: Watch::new(task.again),
        estimate: P::estimate(&rows).max(begun.place.rows),
        passed: begun.place.rows,
        seq: 0,
        open: VecDeque::new(),
        told: None,
        kept: Instant::now(),
        is_read: false,
        postgres,
        mongo,
        rows: &rows,
        documents: &documents,
        has_ranges,
        way,
        begun,
        task,
        stop,
        notices,
    };
    let is_partial = comparison.run().await?;
    let age = comparison.begun.age();
    let rows = comparison.passed;
    let verdict = std::mem::replace(&mut comparison.watch, Watch::new(Duration::ZERO)).verdict();
    if let Some(record) = task.record {
        comparison.postgres.keep(record, None).await?;
    }
    Ok(Compared { verdict, rows, age, is_partial })
}

/// In which order and how it goes through the keys: a place says what is done only to
/// who goes on in the same way. By lists, nothing below it was looked at that only
/// MongoDB has; in another order, other keys lie below it.
fn way(order: Option<Order>, has_ranges: bool) -> String {
    let order = order.map_or_else(|| "own".to_owned(), |order| format!("{order:?}"));
    format!("{order} by {}", if has_ranges { "ranges" } else { "lists" }).to_lowercase()
}

/// Where a comparison is.
#[derive(Clone, Debug, Default, PartialEq)]
struct Place {
    /// Up to this key it is done.
    after: Option<RowKey>,
    /// Rows that were compared.
    rows: u64,
}

impl Place {
    fn json(&self) -> Value {
        let after = self.after.as_ref().map(|key| hex::write(key.0.as_bytes()));
        json!({ "after": after, "rows": self.rows })
    }

    /// Of a record that says something else, nothing is taken: it begins anew.
    fn read(cursor: &Value) -> Option<Place> {
        let after = match &cursor["after"] {
            Value::Null => None,
            Value::String(hex) => Some(RowKey(RawDocumentBuf::from_bytes(hex::read(hex)?).ok()?)),
            _ => return None,
        };
        Some(Place { after, rows: cursor["rows"].as_u64()? })
    }
}

/// When the comparison began, and where.
struct Begun {
    at: Instant,
    before: Duration,
    place: Place,
}

impl Begun {
    async fn now<P: ComparedRows>(
        postgres: &mut P,
        task: Task<'_>,
        way: &str,
    ) -> Result<Begun, StoreError> {
        let new = Begun { at: Instant::now(), before: Duration::ZERO, place: Place::default() };
        let Some(record) = task.record else { return Ok(new) };
        let kept = postgres.kept(record).await?;
        let kept = kept.filter(|kept| kept.age < task.max_age && kept.cursor["way"] == way);
        Ok(match kept.and_then(|kept| Some((kept.age, Place::read(&kept.cursor)?))) {
            Some((before, place)) => Begun { before, place, ..new },
            None => new,
        })
    }

    fn age(&self) -> Duration {
        self.before + self.at.elapsed()
    }
}

struct Comparison<'a, P: ComparedRows, M: ComparedDocuments> {
    postgres: &'a mut P,
    mongo: &'a mut M,
    rows: &'a P::Ground,
    documents: &'a M::Ground,
    has_ranges: bool,
    /// See [`way`].
    way: String,
    task: Task<'a>,
    stop: &'a Stop,
    notices: &'a mut dyn Notices,
    watch: Watch,
    begun: Begun,
    estimate: u64,
    passed: u64,
    /// Ranges are numbered.
    seq: u64,
    /// Where each range ended of which something may still be undecided.
    open: VecDeque<(u64, Place)>,
    told: Option<Instant>,
    kept: Instant,
    is_read: bool,
}

impl<P: ComparedRows, M: ComparedDocuments> Comparison<'_, P, M> {
    /// Whether it was ended because too much differs.
    async fn run(&mut self) -> Result<bool, Unanswered> {
        self.tell(true);
        if self.along_the_rows().await? || (!self.has_ranges && self.what_only_mongo_has().await?) {
            return Ok(true);
        }
        self.is_read = true;
        while let Some(due) = self.watch.next() {
            if self.watch.is_full() {
                return Ok(true);
            }
            let now = self.begun.at.elapsed();
            self.rest(due.saturating_sub(now)).await?;
            self.look_again().await?;
        }
        self.tell(true);
        Ok(false)
    }

    async fn along_the_rows(&mut self) -> Result<bool, Unanswered> {
        let mut after = self.begun.place.after.clone();
        let mut ahead = Some(self.postgres.range(self.rows, after.as_ref(), RANGE_ROWS).await?);
        while let Some(Range { mut rows, upto }) = ahead.take() {
            self.check_stop()?;
            let (ground, documents) = (self.rows, self.documents);
            let next = async {
                match &upto {
                    Some(upto) => {
                        Some(self.postgres.range(ground, Some(upto), RANGE_ROWS).await).transpose()
                    }
                    None => Ok(None),
                }
            };
            let found = async {
                if self.has_ranges {
                    let most = rows.len() + SURPLUS_MAX;
                    return self.mongo.range(documents, after.as_ref(), upto.as_ref(), most).await;
                }
                let keys: Vec<RowKey> = rows.keys().collect();
                Ok(Range { rows: self.mongo.rows_at(documents, &keys).await?, upto: None })
            };
            let (next, found) = join(next, found).await;
            let (next, mut found) = (next?, found?);
            (rows, found.rows) = looked_at(rows, found.rows).await;
            self.seq += 1;
            let now = self.begun.at.elapsed();
            for (key, look) in differences(&mut rows, &mut found.rows) {
                // What lies behind the surplus was not read.
                if key.values().count() < self.task.key.len() {
                    self.watch.certain(&key, &look);
                } else if found.upto.is_none() || look.mongo != Seen::Nothing {
                    self.watch.suspect(now, self.seq, key, look);
                }
            }
            if found.upto.is_some() {
                if self.settle(true).await? {
                    return Ok(true);
                }
                // All of that is gone again: the range is read once more.
                ahead = Some(self.postgres.range(ground, after.as_ref(), RANGE_ROWS).await?);
                continue;
            }
            self.passed += rows.len() as u64;
            after = upto;
            self.open.push_back((self.seq, Place { after: after.clone(), rows: self.passed }));
            if self.settle(false).await? {
                return Ok(true);
            }
            self.keep().await?;
            ahead = next;
        }
        Ok(false)
    }

    /// Where the stores have their keys in different orders, nothing was asked that a
    /// document of another key could answer.
    async fn what_only_mongo_has(&mut self) -> Result<bool, Unanswered> {
        let mut keys = self.mongo.keys(self.documents).await?;
        let most = usize::try_from(RANGE_ROWS).unwrap_or(usize::MAX);
        let mut next = self.mongo.next(self.documents, &mut keys, most).await?;
        while !next.is_empty() {
            self.check_stop()?;
            let (there, ahead) = join(
                self.postgres.have(self.rows, &next),
                self.mongo.next(self.documents, &mut keys, most),
            )
            .await;
            let there: HashSet<Hash> = there?.iter().map(RowKey::id).collect();
            let all = std::mem::replace(&mut next, ahead?).into_iter();
            let only: Vec<RowKey> = all.filter(|key| !there.contains(&key.id())).collect();
            self.seq += 1;
            for some in only.chunks(LOOK_KEYS) {
                for (key, seen) in self.look_at(some).await? {
                    if seen.look.differs() {
                        self.watch.suspect(self.begun.at.elapsed(), self.seq, key, seen.look);
                    }
                }
                if self.settle(false).await? {
                    return Ok(true);
                }
            }
            self.tell(false);
        }
        Ok(false)
    }

    /// Looks at what is due; with `all`, waits until everything is decided. Whether so
    /// much differs that it is no use to go on.
    async fn settle(&mut self, all: bool) -> Result<bool, Unanswered> {
        self.look_again().await?;
        self.tell(false);
        while !self.watch.is_full()
            && (self.watch.len() >= WATCHED_MAX || all)
            && let Some(due) = self.watch.next()
        {
            self.rest(due.saturating_sub(self.begun.at.elapsed())).await?;
            self.look_again().await?;
            self.tell(false);
        }
        Ok(self.watch.is_full())
    }

    /// Looks once more at everything whose time has come.
    async fn look_again(&mut self) -> Result<(), Unanswered> {
        loop {
            let due = self.watch.due(self.begun.at.elapsed(), LOOK_KEYS);
            if due.is_empty() || self.watch.is_full() {
                return Ok(());
            }
            self.check_stop()?;
            for (key, seen) in self.look_at(&due).await? {
                let now = self.begun.at.elapsed();
                self.watch.look(now, &key, &seen.look, &seen.fields);
            }
        }
    }

    /// Reads some keys in both stores at once.
    async fn look_at(&mut self, keys: &[RowKey]) -> Result<Vec<(RowKey, Both)>, StoreError> {
        let (rows, documents) =
            join(self.postgres.at(self.rows, keys), self.mongo.at(self.documents, keys)).await;
        let (rows, documents) =
            (Side::of(rows?, self.task.key), Side::of(documents?, self.task.key));
        Ok(keys
            .iter()
            .map(|key| {
                let id = key.id();
                let look = Look { postgres: rows.seen(id), mongo: documents.seen(id) };
                let fields = match (rows.documents.get(&id), documents.documents.get(&id)) {
                    (Some(row), Some(document)) if look.differs() => {
                        differing_fields(row, document).unwrap_or_default()
                    }
                    _ => Vec::new(),
                };
                (key.clone(), Both { look, fields })
            })
            .collect())
    }

    /// Records up to where everything is decided. Nothing is recorded any more once
    /// something has diverged: it must be found again.
    async fn keep(&mut self) -> Result<(), StoreError> {
        let Some(record) = self.task.record else { return Ok(()) };
        let first = self.watch.first_range().unwrap_or(u64::MAX);
        let mut place = None;
        if self.kept.elapsed() < self.task.keep || !self.watch.is_clean() {
            return Ok(());
        }
        while self.open.front().is_some_and(|(seq, _)| *seq < first) {
            place = self.open.pop_front().map(|(_, place)| place);
        }
        // The end is no place to go on from.
        if let Some(place) = place.filter(|place| place.after.is_some()) {
            self.kept = Instant::now();
            let mut cursor = place.json();
            cursor["way"] = json!(self.way);
            let kept = Kept { cursor, age: self.begun.age() };
            self.postgres.keep(record, Some(&kept)).await?;
        }
        Ok(())
    }

    /// Waits, unless somebody asks to stop.
    async fn rest(&mut self, time: Duration) -> Result<(), Unanswered> {
        let until = Instant::now() + time;
        let mut stop = self.stop.clone();
        loop {
            let tick = until.min(Instant::now() + TOLD_EVERY);
            tokio::select! {
                reason = stop.wait() => return Err(Unanswered::Stopped(reason)),
                () = tokio::time::sleep_until(tick) => {}
            }
            if Instant::now() >= until {
                return Ok(());
            }
            self.tell(false);
        }
    }

    fn check_stop(&self) -> Result<(), Unanswered> {
        match self.stop.requested() {
            Some(reason) => Err(Unanswered::Stopped(reason)),
            None => Ok(()),
        }
    }

    fn tell(&mut self, now: bool) {
        if !now && self.told.is_some_and(|told| told.elapsed() < TOLD_EVERY) {
            return;
        }
        self.told = Some(Instant::now());
        let seconds = self.begun.at.elapsed().as_secs_f64();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate, for people"
        )]
        let rate = ((self.passed - self.begun.place.rows) as f64 / seconds.max(0.001)) as u64;
        self.notices.notice(Notice::ComparisonProgress(ComparisonProgress {
            version: self.task.version,
            name: self.task.name.to_owned(),
            rows: self.passed,
            estimate: self.estimate.max(self.passed),
            rate,
            undecided: self.watch.len(),
            is_read: self.is_read,
        }));
    }
}

/// Rows of both stores, at which it was looked if they are not the very same: at both
/// at once, on threads that are there for work.
async fn looked_at(rows: Rows, documents: Rows) -> (Rows, Rows) {
    if rows.are_those(&documents) {
        return (rows, documents);
    }
    let look = async |mut rows: Rows| {
        let looked_at = tokio::task::spawn_blocking(move || {
            rows.look();
            rows
        });
        match looked_at.await {
            Ok(rows) => rows,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    };
    join(look(rows), look(documents)).await
}

/// What both stores have under a key now.
struct Both {
    look: Look,
    /// Where both have a row: in which fields they differ.
    fields: Vec<String>,
}

/// What one store has of some keys.
#[derive(Default)]
struct Side {
    seen: BTreeMap<Hash, Seen>,
    documents: BTreeMap<Hash, RawDocumentBuf>,
}

impl Side {
    fn of(found: Found, key: &[String]) -> Side {
        let mut side = Side::default();
        let mut add = |id: Hash, one: Seen| {
            let seen = side.seen.remove(&id).unwrap_or(Seen::Nothing).and(one);
            side.seen.insert(id, seen);
        };
        for document in found.documents {
            let id = RowKey::of(&document, key).id();
            add(id, hash(&document).map_or_else(|bad| Seen::Unreadable(bad.reason), Seen::One));
            side.documents.insert(id, document);
        }
        for (key, why) in found.unreadable {
            add(key.id(), Seen::Unreadable(why));
        }
        side
    }

    fn seen(&self, id: Hash) -> Seen {
        self.seen.get(&id).cloned().unwrap_or(Seen::Nothing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_of_one_way() {
        let ways = [
            way(Some(Order::Text), true),
            way(Some(Order::Text), false),
            way(Some(Order::Number), true),
            way(None, false),
        ];
        assert_eq!(ways, ["text by ranges", "text by lists", "number by ranges", "own by lists"]);
    }
}
