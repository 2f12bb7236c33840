//! Documents of MongoDB, to be written into the other store.
//!
//! A page is a range of `_id`, whatever a filter or a pipeline makes of its
//! documents: where the next page begins never depends on them. So stages see the
//! documents of one page only, and those that look at several documents together are
//! refused when the folder is read.

use super::ids::{
    Is, SURVEY, along_id, between, cut, id, is_same, key_of, nothing, refused, statement_limit,
    what_is,
};
use super::{Mongo, failed};
use crate::core::backfill::{Key, Shard, Survey};
use crate::core::parse::manifest::MongoSource;
use crate::core::step::Timeouts;
use crate::store::backfill::is_passing;
use crate::store::copy::{BadRow, Page, PageLimit, Source};
use crate::store::{Fate, StoreError};
use bson::raw::{CString, RawElement};
use bson::{Bson, Document, RawDocument, RawDocumentBuf, doc};
use futures_util::StreamExt;
use mongodb::error::Error;
use std::time::Duration;

/// What is made of one document is held at once: 64 MiB at most.
const ONE_MAX: usize = 64 << 20;

/// So much of a document is shown.
const SHOWN: usize = 1000;

const READ: &str = "read the documents to copy";

impl Source for Mongo {
    type Rows<'a> = &'a MongoSource;

    async fn estimate_rows(
        &mut self,
        rows: Self::Rows<'_>,
        _timeouts: Timeouts,
    ) -> Result<Option<u64>, StoreError> {
        if !is_there(self, &rows.collection).await? {
            return Ok(None);
        }
        let all = self.database.collection::<Document>(&rows.collection);
        let count = all.estimated_document_count().await;
        count.map(Some).map_err(|error| failed(SURVEY, &error))
    }

    async fn survey_rows(
        &mut self,
        rows: Self::Rows<'_>,
        timeouts: Timeouts,
        shards: usize,
        past: &[Shard],
    ) -> Result<Survey, StoreError> {
        if !is_there(self, &rows.collection).await? {
            return Ok(nothing());
        }
        let limit = statement_limit(timeouts);
        // The server reads the filter and the stages, whatever they are about: from
        // here on, what it refuses is a document.
        let none = doc! { "_id": { "$in": [] } };
        let tried = read(self, rows, none, u64::MAX, 0, limit).await;
        tried.map_err(|error| {
            let mut failure = failed(SURVEY, &error);
            failure.said.hint =
                Some(format!("change `find` or `pipeline` of the copy of {}", rows.collection));
            failure
        })?;
        cut(self, &rows.collection, limit, shards, past).await
    }

    async fn page(
        &mut self,
        rows: Self::Rows<'_>,
        timeouts: Timeouts,
        after: Option<&Key>,
        upto: Option<&Key>,
        limit: PageLimit,
    ) -> Result<Page, StoreError> {
        let after = after.map(|after| id(after, READ)).transpose()?;
        let upto = upto.map(|upto| id(upto, READ)).transpose()?;
        let time = statement_limit(timeouts);
        // From the very first `_id` on, where there is no end below: one that can be
        // compared plainly is compared faster.
        let first = match &after {
            Some(_) => None,
            None => {
                let all = Document::new();
                self.id_at(&rows.collection, all, (1, 0), time, READ).await?
            }
        };
        let from = match (&after, &first) {
            (Some(after), _) => ("$gt", after),
            (None, Some(first)) => ("$gte", first),
            (None, None) => return Ok(Page { is_last: true, ..Page::default() }),
        };
        let range = Range { store: self, rows, time, from, upto: upto.as_ref() };
        match Made::of(&rows.pipeline) {
            Made::Nothing => range.found(limit).await,
            Made::Renamed(name) => {
                let mut page = range.found(limit).await?;
                let documents = std::mem::take(&mut page.documents).into_iter();
                page.documents = documents.map(|document| renamed(document, name)).collect();
                Ok(page)
            }
            Made::Anything => range.made(limit).await,
        }
    }
}

/// What a pipeline makes of a document.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Made<'a> {
    Nothing,
    /// Only that its `_id` is called otherwise. Most pipelines are that, as hardly any
    /// column is called `_id`, and then the server need not run them.
    Renamed(&'a str),
    Anything,
}

impl Made<'_> {
    fn of(pipeline: &[Document]) -> Made<'_> {
        let [set, unset] = pipeline else {
            return if pipeline.is_empty() { Made::Nothing } else { Made::Anything };
        };
        let only = |stage: &Document, names: &[&str]| {
            let mut fields = stage.iter();
            let first = fields.next().filter(|(name, _)| names.contains(&name.as_str()));
            first.map(|(_, body)| body).filter(|_| fields.next().is_none()).cloned()
        };
        let is_unset = match only(unset, &["$unset"]) {
            Some(Bson::String(path)) => path == "_id",
            Some(Bson::Array(paths)) => paths == [Bson::String("_id".to_owned())],
            _ => false,
        };
        let body = set.get_document("$set").or_else(|_| set.get_document("$addFields"));
        let named = body.ok().filter(|body| set.len() == 1 && body.len() == 1);
        let name = named.and_then(|body| body.iter().next()).filter(|(name, value)| {
            let is_plain = !name.is_empty() && !name.contains(['.', '$', '\0']) && *name != ID;
            is_plain && value.as_str() == Some("$_id")
        });
        match name {
            Some((name, _)) if is_unset => Made::Renamed(name),
            _ => Made::Anything,
        }
    }
}

/// As `$set` and `$unset` do it: in the place of a field of that name, else at the end.
fn renamed(document: RawDocumentBuf, name: &str) -> RawDocumentBuf {
    match length_of_id(&document, name) {
        Some(length) => moved(document.into_bytes(), length, name),
        None => rebuilt(document, name),
    }
}

/// How long the field `_id` is where it is the first one, as it is in what is stored,
/// and no field has the name.
fn length_of_id(document: &RawDocument, name: &str) -> Option<usize> {
    let mut fields = document.iter_elements();
    let id = fields.next()?.ok().filter(|first| first.key().as_str() == ID)?;
    let is_other = |field: RawElement<'_>| field.key().as_str() != name;
    let are_others = fields.all(|field| field.is_ok_and(is_other));
    // A field is a type, its name, a zero and its value.
    are_others.then(|| 1 + ID.len() + 1 + id.size())
}

const ID: &str = "_id";

/// The `_id`, so many bytes long, moves from the front of a document to its end, and is
/// called otherwise there.
fn moved(mut bytes: Vec<u8>, length: usize, name: &str) -> RawDocumentBuf {
    /// Before the fields stands how long the document is; behind them, a zero.
    const HEAD: usize = 4;
    let end = bytes.len() - 1;
    bytes[HEAD..end].rotate_left(length);
    let called = end - length + 1;
    bytes.splice(called..called + ID.len(), name.bytes());
    let whole = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
    bytes[..HEAD].copy_from_slice(&whole.to_le_bytes());
    RawDocumentBuf::from_bytes(bytes).expect("as long as it says, and a zero at its end")
}

/// The same field by field.
fn rebuilt(document: RawDocumentBuf, name: &str) -> RawDocumentBuf {
    let (Ok(Some(id)), Ok(name)) = (document.get(ID), CString::try_from(name)) else {
        return document;
    };
    let mut renamed = RawDocumentBuf::new();
    let mut is_there = false;
    for (field, value) in document.into_iter().flatten() {
        match field.as_str() {
            ID => {}
            field if field == name.as_str() => {
                renamed.append(&name, id);
                is_there = true;
            }
            _ => renamed.append(field, value),
        }
    }
    if !is_there {
        renamed.append(&name, id);
    }
    renamed
}

/// Whether there is such a collection. What has no `_id`s to go along is refused.
async fn is_there(store: &Mongo, name: &str) -> Result<bool, StoreError> {
    match what_is(store, name).await? {
        Is::Nothing => Ok(false),
        Is::Plain | Is::Capped => Ok(true),
        Is::View => Err(refused(
            SURVEY,
            format!("{name} is a view: it has no index of `_id` along which to copy it"),
            "name the collection that the view reads, and write its stages into `pipeline`",
        )),
        Is::TimeSeries => Err(refused(
            SURVEY,
            format!("{name} is a time series: it has no index of `_id` along which to copy it"),
            "write what it holds into a plain collection first, with `$out` or `$merge`",
        )),
    }
}

/// What was read, in order.
struct Read {
    documents: Vec<RawDocumentBuf>,
    /// There was more than the limit allows.
    is_cut: bool,
}

/// Reads what is made of the documents of a range, as far as `most` documents or
/// `bytes` bytes: one document at least.
async fn read(
    store: &Mongo,
    rows: &MongoSource,
    within: Document,
    most: u64,
    bytes: usize,
    time: Duration,
) -> Result<Read, Error> {
    let all = store.database.collection::<Document>(&rows.collection);
    let batch = u32::try_from(most).unwrap_or(u32::MAX).min(i32::MAX.unsigned_abs());
    let within = match rows.find.is_empty() {
        true => within,
        false => doc! { "$and": [within, &rows.find] },
    };
    let mut batches = match Made::of(&rows.pipeline) != Made::Anything {
        true => {
            let limit = i64::try_from(most).unwrap_or(0);
            let find = all.find(within).sort(doc! { "_id": 1 }).hint(along_id()).limit(limit);
            find.batch_size(batch).max_time(time).comment(store.comment()).batch().await?
        }
        false => {
            let mut stages = vec![doc! { "$match": within }, doc! { "$sort": { "_id": 1 } }];
            stages.extend(rows.pipeline.iter().cloned());
            let made = all.aggregate(stages).hint(along_id()).batch_size(batch);
            made.max_time(time).comment(Bson::from(store.comment())).batch().await?
        }
    };
    let mut read = Read { documents: Vec::new(), is_cut: false };
    let mut size = 0;
    while let Some(batch) = batches.next().await {
        for document in batch?.doc_slices()? {
            let Some(document) = document?.as_document() else { continue };
            size += document.as_bytes().len();
            if size > bytes && !read.documents.is_empty() {
                return Ok(Read { is_cut: true, ..read });
            }
            read.documents.push(document.to_owned());
        }
    }
    Ok(read)
}

/// What is left of a range, and what is read of its documents.
struct Range<'a> {
    store: &'a Mongo,
    rows: &'a MongoSource,
    time: Duration,
    from: (&'a str, &'a Bson),
    upto: Option<&'a Bson>,
}

impl Range<'_> {
    fn up_to(&self, bound: Option<&Bson>) -> Document {
        between(Some(self.from), bound)
    }

    /// The end of the next keys, and how many they are. `None`: there are none.
    async fn bound(&self, keys: u64) -> Result<Option<(Bson, u64)>, StoreError> {
        let (store, name, time) = (self.store, &self.rows.collection, self.time);
        let rest = self.up_to(self.upto);
        let bound = store.id_at(name, rest.clone(), (1, keys - 1), time, READ).await?;
        if let Some(bound) = bound {
            return Ok(Some((bound, keys)));
        }
        let passed = store.count(name, rest.clone(), time, READ).await?;
        let last = match self.upto {
            Some(upto) => Some(upto.clone()),
            None => store.id_at(name, rest, (-1, 0), time, READ).await?,
        };
        Ok(last.map(|last| (last, passed)))
    }

    /// The page that ends there.
    fn page(&self, documents: Vec<RawDocumentBuf>, bound: &Bson, passed: u64, keys: u64) -> Page {
        Page {
            documents,
            bad: Vec::new(),
            upto: Some(key_of(bound)),
            passed,
            is_last: passed < keys || self.upto.is_some_and(|upto| is_same(upto, bound)),
        }
    }

    /// Documents as they are: where a page is full, it ends with its last document.
    async fn found(&self, limit: PageLimit) -> Result<Page, StoreError> {
        let Range { store, rows, time, .. } = self;
        let said = |error: Error| failed(READ, &error);
        let keys = limit.rows.max(1);
        if rows.find.is_empty() {
            let within = self.up_to(self.upto);
            let read = read(store, rows, within, keys, limit.bytes, *time).await.map_err(said)?;
            let passed = u64::try_from(read.documents.len()).unwrap_or(u64::MAX);
            return match read.documents.last().map(id_in).transpose()? {
                None => Ok(Page { is_last: true, ..Page::default() }),
                Some(last) => {
                    let keys = if read.is_cut { passed } else { keys };
                    Ok(self.page(read.documents, &last, passed, keys))
                }
            };
        }
        let Some((bound, passed)) = self.bound(keys).await? else {
            return Ok(Page { is_last: true, ..Page::default() });
        };
        let within = self.up_to(Some(&bound));
        let read = read(store, rows, within, keys, limit.bytes, *time).await.map_err(said)?;
        if !read.is_cut {
            return Ok(self.page(read.documents, &bound, passed, keys));
        }
        let Some(last) = read.documents.last().map(id_in).transpose()? else {
            return Ok(Page { is_last: true, ..Page::default() });
        };
        let within = self.up_to(Some(&last));
        let passed = store.count(&rows.collection, within, *time, READ).await?;
        Ok(self.page(read.documents, &last, passed, passed))
    }

    /// What a pipeline makes of the documents. Nothing in it tells which document it is
    /// made of, so a page that is too large, or that the server refuses, is made of
    /// half as many: down to one, which is then the one that is refused.
    async fn made(&self, limit: PageLimit) -> Result<Page, StoreError> {
        let Range { store, rows, time, .. } = self;
        let mut keys = limit.rows.max(1);
        loop {
            let Some((bound, passed)) = self.bound(keys).await? else {
                return Ok(Page { is_last: true, ..Page::default() });
            };
            let within = self.up_to(Some(&bound));
            let bytes = if passed > 1 { limit.bytes } else { ONE_MAX };
            let half = passed.min(keys) / 2;
            match read(store, rows, within.clone(), u64::MAX, bytes, *time).await {
                Ok(read) if !read.is_cut => {
                    return Ok(self.page(read.documents, &bound, passed, keys));
                }
                Ok(_) if half > 0 => keys = half,
                Ok(_) => {
                    let why = format!("`pipeline` makes more than {} MiB of it", ONE_MAX >> 20);
                    return self.bad(within, &bound, (passed, keys), why).await;
                }
                Err(error) => {
                    let error = failed(READ, &error);
                    if error.fate != Fate::Refused || is_passing(&error) {
                        return Err(error);
                    }
                    if half == 0 {
                        let why = error.said.to_string();
                        return self.bad(within, &bound, (passed, keys), why).await;
                    }
                    keys = half;
                }
            }
        }
    }

    /// A page of one document, of which there is nothing to write.
    async fn bad(
        &self,
        within: Document,
        bound: &Bson,
        (passed, keys): (u64, u64),
        reason: String,
    ) -> Result<Page, StoreError> {
        let all = self.store.database.collection::<Document>(&self.rows.collection);
        let found = all.find_one(within).max_time(self.time).await;
        let found = found.map_err(|error| failed(READ, &error))?.unwrap_or_default();
        let key = found.get("_id").map_or_else(|| key_of(bound), key_of).to_string();
        let row = Bson::Document(found).into_relaxed_extjson().to_string();
        let row = row.chars().take(SHOWN).collect();
        let page = self.page(Vec::new(), bound, passed, keys);
        Ok(Page { bad: vec![BadRow { key, row, reason }], ..page })
    }
}

/// The `_id` of a document as it was read.
fn id_in(document: &RawDocumentBuf) -> Result<Bson, StoreError> {
    let found = document.get("_id").ok().flatten().and_then(|id| Bson::try_from(id).ok());
    found.ok_or_else(|| refused(READ, "a document has no `_id`", "look at it with `$validate`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(pipeline: &[Document]) -> String {
        format!("{:?}", Made::of(pipeline))
    }

    #[test]
    fn only_a_pipeline_that_does_nothing_else_renames_the_id() {
        let unset = doc! { "$unset": "_id" };
        assert_eq!(made(&[]), "Nothing");
        assert_eq!(made(&[doc! { "$set": { "id": "$_id" } }, unset.clone()]), "Renamed(\"id\")");
        let (add, unset_all) = (doc! { "$addFields": { "k": "$_id" } }, doc! { "$unset": ["_id"] });
        assert_eq!(made(&[add, unset_all.clone()]), "Renamed(\"k\")");
        for set in [
            doc! { "$set": { "id": "$_id", "n": 1 } },
            doc! { "$set": { "id": "$id" } },
            doc! { "$set": { "id": "$_id.a" } },
            doc! { "$set": { "id": { "$toString": "$_id" } } },
            doc! { "$set": { "a.b": "$_id" } },
            doc! { "$set": { "_id": "$_id" } },
            doc! { "$match": { "id": "$_id" } },
        ] {
            assert_eq!(made(&[set.clone(), unset.clone()]), "Anything", "{set}");
        }
        let set = doc! { "$set": { "id": "$_id" } };
        for then in [doc! { "$unset": "n" }, doc! { "$unset": ["_id", "n"] }, doc! { "$limit": 1 }]
        {
            assert_eq!(made(&[set.clone(), then.clone()]), "Anything", "{then}");
        }
        assert_eq!(made(std::slice::from_ref(&set)), "Anything");
        assert_eq!(made(&[set, unset.clone(), unset]), "Anything");
    }

    #[test]
    fn a_renamed_id_takes_the_place_of_a_field_of_that_name() {
        for (before, after) in [
            (doc! { "_id": 1 }, doc! { "id": 1 }),
            (doc! { "_id": 1, "a": 2 }, doc! { "a": 2, "id": 1 }),
            (doc! { "_id": "x", "a": { "b": 2 } }, doc! { "a": { "b": 2 }, "id": "x" }),
            (doc! { "_id": { "id": [1] }, "a": 2 }, doc! { "a": 2, "id": { "id": [1] } }),
            (doc! { "_id": Bson::Null, "a": 2 }, doc! { "a": 2, "id": Bson::Null }),
            (doc! { "_id": 1, "id": 3, "a": 2 }, doc! { "id": 1, "a": 2 }),
            (doc! { "a": { "_id": 4 }, "_id": 1 }, doc! { "a": { "_id": 4 }, "id": 1 }),
        ] {
            let before = RawDocumentBuf::try_from(&before).unwrap();
            let found = renamed(before.clone(), "id");
            assert_eq!(found, RawDocumentBuf::try_from(&after).unwrap());
            assert_eq!(found, rebuilt(before, "id"));
        }
        let long = renamed(bson::rawdoc! { "_id": 1, "a": 2 }, "identity");
        assert_eq!(long, bson::rawdoc! { "a": 2, "identity": 1 });
    }
}
