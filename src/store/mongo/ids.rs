//! The `_id`s of a collection: as keys, in ranges, and cut into ranges.
//!
//! An `_id` can be of any type but an array and a regular expression, and one
//! collection can have several. `{ _id: { $gt: 5 } }` is about numbers only: what
//! comes after the numbers is never reached with it. So the ends of a range are
//! compared so only where both are of one type, and by `$expr` where they are not,
//! which compares in the index's order and reads no more of the index. Nothing is
//! compared here: order is the server's business, collations included.

use super::{Mongo, failed};
use crate::core::backfill::{Key, Shard, Survey};
use crate::core::hex;
use crate::core::id::StoreName;
use crate::core::step::Timeouts;
use crate::store::{Fate, StoreError};
use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use mongodb::options::Hint;
use std::time::Duration;

/// What the server may take for one statement of a batch.
const STATEMENT_LIMIT: Duration = Duration::from_secs(30);

/// So many documents are sampled for each boundary between two shards.
const SAMPLES: u64 = 64;

/// From so many documents on, boundaries are sampled: counting along the index takes
/// a second for each few millions. Of fewer, `$sample` is no fair sample: it walks
/// down a tree of few branches, and of 20,000 documents takes most from one end.
const SAMPLED_FROM: u64 = 1_000_000;

pub(super) const SURVEY: &str = "look at the documents to backfill";

pub(super) fn statement_limit(timeouts: Timeouts) -> Duration {
    timeouts.statement.unwrap_or(STATEMENT_LIMIT)
}

pub(super) fn refused(doing: &'static str, message: impl Into<String>, hint: &str) -> StoreError {
    let mut error = StoreError::new(StoreName::Mongo, doing, Fate::Refused, message);
    error.said.hint = Some(hint.to_owned());
    error
}

/// An `_id` as a key: Extended JSON, or the bytes where that, or a store that keeps it,
/// would lose something.
pub(super) fn key_of(id: &Bson) -> Key {
    let readable = match id {
        Bson::Int64(number) if i32::try_from(*number).is_ok() => {
            id.clone().into_canonical_extjson()
        }
        Bson::Double(_) => id.clone().into_canonical_extjson(),
        _ => id.clone().into_relaxed_extjson(),
    };
    let readable = Key(readable);
    // Where the other store keeps it, null is no key, fields have no order, and U+0000 is
    // no character.
    let is_plain =
        *id != Bson::Null && !is_ordered(id) && !readable.0.to_string().contains("\\u0000");
    match id_of(&readable) {
        Some(read) if is_plain && bytes(&read) == bytes(id) => readable,
        _ => Key(serde_json::json!({ "$bson": hex::write(&bytes(id)) })),
    }
}

/// Whether it is made of fields whose order matters.
fn is_ordered(id: &Bson) -> bool {
    match id {
        Bson::Document(fields) => fields.len() > 1 || fields.values().any(is_ordered),
        Bson::Array(items) => items.iter().any(is_ordered),
        _ => false,
    }
}

fn bytes(id: &Bson) -> Vec<u8> {
    doc! { "": id }.to_vec().unwrap_or_default()
}

/// Bit for bit: NaN is not equal to itself.
pub(super) fn is_same(one: &Bson, other: &Bson) -> bool {
    bytes(one) == bytes(other)
}

/// The opposite of [`key_of`].
pub(super) fn id_of(key: &Key) -> Option<Bson> {
    let hex = key.0.as_object().filter(|object| object.len() == 1);
    let Some(hex) = hex.and_then(|object| object.get("$bson")?.as_str()) else {
        return Bson::try_from(key.0.clone()).ok();
    };
    Document::from_reader(hex::read(hex)?.as_slice()).ok()?.remove("")
}

pub(super) fn id(key: &Key, doing: &'static str) -> Result<Bson, StoreError> {
    id_of(key).ok_or_else(|| {
        let message = format!("migration_steps: {key} is not an _id");
        StoreError::new(StoreName::Mongo, doing, Fate::Corrupt, message)
    })
}

/// Types whose values a plain `$gt` compares with each other, completely.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Bracket {
    Number,
    Text,
    ObjectId,
    Binary,
    Date,
}

/// None where `$gt` is not the index's order: NaN is less than every number in the
/// index, and neither less nor greater for `$gt`.
fn bracket(id: &Bson) -> Option<Bracket> {
    match id {
        Bson::Int32(_) | Bson::Int64(_) => Some(Bracket::Number),
        Bson::Double(number) => (!number.is_nan()).then_some(Bracket::Number),
        Bson::Decimal128(number) => {
            (!number.to_string().contains("NaN")).then_some(Bracket::Number)
        }
        Bson::String(_) => Some(Bracket::Text),
        Bson::ObjectId(_) => Some(Bracket::ObjectId),
        Bson::Binary(_) => Some(Bracket::Binary),
        Bson::DateTime(_) => Some(Bracket::Date),
        _ => None,
    }
}

/// The documents whose `_id` is above `after` and not above `upto`.
pub(super) fn range(after: Option<&Bson>, upto: Option<&Bson>) -> Document {
    between(after.map(|after| ("$gt", after)), upto)
}

/// The same, with the operator for its lower end.
pub(super) fn between(from: Option<(&str, &Bson)>, upto: Option<&Bson>) -> Document {
    if let (Some((operator, from)), Some(upto)) = (from, upto)
        && bracket(from).is_some()
        && bracket(from) == bracket(upto)
    {
        return doc! { "_id": { operator: from, "$lte": upto } };
    }
    let bound = |operator: &str, id: &Bson| doc! { operator: ["$_id", { "$literal": id }] };
    let bounds: Vec<Document> = from
        .map(|(operator, from)| bound(operator, from))
        .into_iter()
        .chain(upto.map(|upto| bound("$lte", upto)))
        .collect();
    match bounds.is_empty() {
        true => Document::new(),
        false => doc! { "$expr": { "$and": bounds } },
    }
}

pub(super) fn along_id() -> Hint {
    Hint::Keys(doc! { "_id": 1 })
}

impl Mongo {
    pub(super) fn comment(&self) -> String {
        format!("lockstep/{}", self.run_id)
    }

    /// The `_id` that is so many after the first of a range, or before its last.
    pub(super) async fn id_at(
        &self,
        collection: &str,
        within: Document,
        (from, skip): (i32, u64),
        limit: Duration,
        doing: &'static str,
    ) -> Result<Option<Bson>, StoreError> {
        let found = self
            .database
            .collection::<Document>(collection)
            .find_one(within)
            .projection(doc! { "_id": 1 })
            .sort(doc! { "_id": from })
            .hint(along_id())
            .skip(skip)
            .max_time(limit)
            .comment(self.comment())
            .await;
        let found = found.map_err(|error| failed(doing, &error))?;
        Ok(found.and_then(|mut document| document.remove("_id")))
    }

    pub(super) async fn count(
        &self,
        collection: &str,
        within: Document,
        limit: Duration,
        doing: &'static str,
    ) -> Result<u64, StoreError> {
        let count = self
            .database
            .collection::<Document>(collection)
            .count_documents(within)
            .hint(along_id())
            .max_time(limit)
            .comment(self.comment())
            .await;
        count.map_err(|error| failed(doing, &error))
    }
}

/// What stands behind the name of a collection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Is {
    Nothing,
    Plain,
    View,
    TimeSeries,
    Capped,
}

pub(super) async fn what_is(store: &Mongo, name: &str) -> Result<Is, StoreError> {
    let list = doc! { "listCollections": 1, "filter": { "name": name } };
    let found = async { store.database.run_cursor_command(list).await?.try_collect().await };
    let found: Vec<Document> =
        found.await.map_err(|error: mongodb::error::Error| failed(SURVEY, &error))?;
    let Some(found) = found.first() else { return Ok(Is::Nothing) };
    let capped = found.get_document("options").and_then(|options| options.get_bool("capped"));
    Ok(match found.get_str("type") {
        Ok("view") => Is::View,
        Ok("timeseries") => Is::TimeSeries,
        _ if capped.unwrap_or(false) => Is::Capped,
        _ => Is::Plain,
    })
}

/// The survey of what has no documents.
pub(super) fn nothing() -> Survey {
    Survey { key: "_id".to_owned(), ..Survey::default() }
}

/// Cuts a collection into ranges, as [`Backfills::survey`] promises.
///
/// [`Backfills::survey`]: crate::store::backfill::Backfills::survey
pub(super) async fn cut(
    store: &Mongo,
    collection: &str,
    limit: Duration,
    shards: usize,
    past: &[Shard],
) -> Result<Survey, StoreError> {
    // Each round lies above the ones before.
    let newest = past.iter().max_by_key(|shard| shard.index);
    let floor = newest.map(|shard| id(&shard.upto, SURVEY)).transpose()?;
    let above = range(floor.as_ref(), None);
    let Some(top) = store.id_at(collection, above, (-1, 0), limit, SURVEY).await? else {
        return Ok(nothing());
    };
    let estimate = match &floor {
        None => {
            let all = store.database.collection::<Document>(collection);
            let count = all.estimated_document_count().await;
            count.map_err(|error| failed(SURVEY, &error))?
        }
        Some(floor) => {
            store.count(collection, range(Some(floor), Some(&top)), limit, SURVEY).await?
        }
    };
    let wanted = u64::try_from(shards).unwrap_or(u64::MAX).clamp(1, estimate.max(1));
    let mut ends = match wanted {
        1 => Vec::new(),
        wanted if floor.is_none() && estimate >= SAMPLED_FROM => {
            sampled(store, collection, &top, wanted).await?
        }
        wanted => {
            counted(store, collection, limit, floor.as_ref(), &top, (wanted, estimate)).await?
        }
    };
    ends.retain(|end| !is_same(end, &top));
    ends.dedup_by(|one, other| is_same(one, other));
    ends.push(top);
    let pieces = u64::try_from(ends.len()).unwrap_or(u64::MAX);
    let (mut index, round) =
        newest.map_or((0, 0), |shard| (shard.index, shard.round.saturating_add(1)));
    let mut after = floor.as_ref().map(key_of);
    let shards = ends.iter().map(|end| {
        index += 1;
        let upto = key_of(end);
        Shard {
            index,
            round,
            table: collection.to_owned(),
            after: after.replace(upto.clone()),
            upto,
            estimate: estimate / pieces,
            passed: 0,
            rows: 0,
            done: false,
            claimed: false,
        }
    });
    let shards = shards.collect();
    Ok(Survey { estimate, shards, ..nothing() })
}

/// Ends of all shards but the last: some documents at random, in order.
async fn sampled(
    store: &Mongo,
    collection: &str,
    top: &Bson,
    shards: u64,
) -> Result<Vec<Bson>, StoreError> {
    let size = i64::try_from(shards * SAMPLES).unwrap_or(i64::MAX);
    let pipeline = vec![
        doc! { "$sample": { "size": size } },
        doc! { "$match": range(None, Some(top)) },
        doc! { "$project": { "_id": 1 } },
        doc! { "$sort": { "_id": 1 } },
    ];
    let found: Result<Vec<Document>, _> = async {
        store
            .database
            .collection::<Document>(collection)
            .aggregate(pipeline)
            .comment(store.comment())
            .await?
            .try_collect()
            .await
    }
    .await;
    let found = found.map_err(|error: mongodb::error::Error| failed(SURVEY, &error))?;
    let every = usize::try_from(SAMPLES).unwrap_or(1);
    let most = usize::try_from(shards - 1).unwrap_or(usize::MAX);
    let ends = found.into_iter().skip(every - 1).step_by(every).take(most);
    Ok(ends.filter_map(|mut document| document.remove("_id")).collect())
}

/// The same for a few documents, or a part of them: by counting along the index.
async fn counted(
    store: &Mongo,
    collection: &str,
    limit: Duration,
    floor: Option<&Bson>,
    top: &Bson,
    (shards, estimate): (u64, u64),
) -> Result<Vec<Bson>, StoreError> {
    let skip = (estimate / shards).saturating_sub(1);
    let mut ends: Vec<Bson> = Vec::new();
    for _ in 1..shards {
        let rest = range(ends.last().or(floor), Some(top));
        let end = store.id_at(collection, rest, (1, skip), limit, SURVEY).await?;
        let Some(end) = end else { break };
        ends.push(end);
    }
    Ok(ends)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::oid::ObjectId;
    use bson::{Binary, DateTime, Timestamp};

    #[test]
    fn a_key_reads_back_bit_for_bit() {
        let binary = |subtype: u8, bytes: &[u8]| {
            Bson::Binary(Binary { subtype: subtype.into(), bytes: bytes.to_vec() })
        };
        for id in [
            Bson::Null,
            Bson::MinKey,
            Bson::MaxKey,
            Bson::Int32(5),
            Bson::Int64(5),
            Bson::Int64(1 << 60),
            Bson::Int64(i64::MIN),
            Bson::Double(5.0),
            Bson::Double(-0.0),
            Bson::Double(0.1),
            Bson::Double(f64::NAN),
            Bson::Double(f64::NEG_INFINITY),
            Bson::Double(1e300),
            Bson::Decimal128("1.50".parse().expect("a decimal")),
            Bson::Decimal128("NaN".parse().expect("a decimal")),
            Bson::String("a \"b\" ü".to_owned()),
            Bson::String(String::new()),
            Bson::String("a\0b".to_owned()),
            Bson::ObjectId(ObjectId::new()),
            Bson::Boolean(false),
            Bson::DateTime(DateTime::from_millis(1_700_000_000_123)),
            Bson::DateTime(DateTime::from_millis(i64::MIN)),
            Bson::Timestamp(Timestamp { time: 7, increment: 8 }),
            binary(0, b"ab"),
            binary(4, &[7; 16]),
            binary(4, b"short"),
            binary(128, b""),
            Bson::Document(doc! { "b": 1, "a": 2_i64 }),
            Bson::Document(doc! { "a": 1, "b": { "d": 1.0, "c": 1 } }),
            Bson::Document(doc! { "$oid": "5" }),
            Bson::Document(Document::new()),
            Bson::JavaScriptCode("a".to_owned()),
        ] {
            let key = key_of(&id);
            let text = serde_json::to_string(&key).expect("JSON");
            let read: Key = serde_json::from_str(&text).expect("a key");
            let back = id_of(&read).expect("an _id");
            assert_eq!(bytes(&back), bytes(&id), "{id:?}: {key}");
        }
    }

    #[test]
    fn a_common_key_is_readable() {
        let shown = |id: Bson| key_of(&id).to_string();
        assert_eq!(shown(Bson::Int32(5)), "5");
        assert_eq!(shown(Bson::Int64(1 << 40)), "1099511627776");
        assert_eq!(shown(Bson::String("a".to_owned())), "\"a\"");
        assert_eq!(
            shown(Bson::ObjectId(ObjectId::from_bytes([1; 12]))),
            "{\"$oid\":\"010101010101010101010101\"}"
        );
    }

    #[test]
    fn only_ends_of_one_type_are_compared_plainly() {
        let plain = |after: Bson, upto: Bson| range(Some(&after), Some(&upto)).contains_key("_id");
        assert!(plain(Bson::Int32(1), Bson::Double(2.5)));
        assert!(plain(Bson::String("a".to_owned()), Bson::String("b".to_owned())));
        assert!(!plain(Bson::Int32(1), Bson::String("b".to_owned())));
        assert!(!plain(Bson::Double(f64::NAN), Bson::Int32(1)));
        assert!(!plain(Bson::Boolean(false), Bson::Boolean(true)));
        assert!(!range(None, Some(&Bson::Int32(1))).contains_key("_id"));
    }
}
