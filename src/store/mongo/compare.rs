//! Comparison: reading documents in ranges of `_id`, and by lists of keys.
//!
//! Every read says that texts are compared byte by byte: under the collation that a
//! collection may have, `A` and `a` would be one key.

use super::ids::{along_id, range};
use super::{Mongo, failed};
use crate::core::compare::{RowKey, Rows, as_row};
use crate::core::id::StoreName;
use crate::core::mapping::Column;
use crate::core::parse::manifest::MongoSource;
use crate::core::step::Timeouts;
use crate::store::compare::{ComparedDocuments, Found, Order, Range};
use crate::store::{Fate, Said, StoreError};
use bson::{Bson, Document, RawDocument, RawDocumentBuf, doc};
use mongodb::Cursor;
use mongodb::options::Collation;
use std::borrow::Cow;
use std::time::Duration;

const COMPARE: &str = "compare the documents";

/// A command has no more than so many bytes of keys; it may have 16 MB.
const LIST_BYTES: usize = 4 << 20;

/// Branches of one query: each is planned for itself.
const BRANCHES_MAX: usize = 200;

/// A batch of the server's answer.
const BATCH: u32 = 4_000;

/// Documents of one collection.
#[derive(Debug)]
pub struct Ground {
    source: MongoSource,
    key: Vec<String>,
    timeouts: Timeouts,
    columns: Vec<Column>,
    /// The key is `_id`, and the pipeline leaves it as it is.
    is_id: bool,
    /// The collection compares texts in an order of its own, or has keys that are a
    /// text only when they are a row's.
    has_other_texts: bool,
}

impl ComparedDocuments for Mongo {
    type Ground = Ground;
    type Keys = Cursor<RawDocumentBuf>;

    async fn ground(
        &mut self,
        source: &MongoSource,
        key: &[String],
        columns: &[Column],
        timeouts: Timeouts,
    ) -> Result<Ground, StoreError> {
        let all = self.database.collection::<Document>(&source.collection);
        let list = self.database.list_collections().filter(doc! { "name": &source.collection });
        let found = futures_util::TryStreamExt::try_collect::<Vec<_>>(
            list.await.map_err(|error| failed(COMPARE, &error))?,
        );
        let found = found.await.map_err(|error| failed(COMPARE, &error))?;
        let writes = source.pipeline.iter().flat_map(Document::keys);
        if let Some(stage) = writes.into_iter().find(|key| *key == "$out" || *key == "$merge") {
            return Err(refused(
                format!("the pipeline has a `{stage}`, which writes"),
                "a comparison only reads: leave that stage out",
            ));
        }
        let is_id = key == ["_id"] && source.pipeline.iter().all(keeps_id);
        // Among texts they have no place, and a text may be one.
        let has_object_ids = is_id && {
            let one = all.find_one(doc! { "_id": { "$type": "objectId" } }).hint(along_id());
            one.projection(doc! { "_id": 1 })
                .await
                .map_err(|error| failed(COMPARE, &error))?
                .is_some()
        };
        let options = found.first().map(|it| &it.options);
        let is_simple = |collation: &Collation| collation.locale == "simple";
        Ok(Ground {
            source: source.clone(),
            key: key.to_vec(),
            timeouts,
            columns: columns.to_vec(),
            is_id,
            has_other_texts: has_object_ids
                || options
                    .and_then(|options| options.collation.as_ref())
                    .is_some_and(|collation| !is_simple(collation)),
        })
    }

    fn has_order(ground: &Ground, order: Order) -> bool {
        ground.is_id && (order != Order::Text || !ground.has_other_texts)
    }

    async fn range(
        &mut self,
        ground: &Ground,
        after: Option<&RowKey>,
        upto: Option<&RowKey>,
        most: usize,
    ) -> Result<Range, StoreError> {
        let (after, upto) = (value(after), value(upto));
        let within = range(after.as_ref(), upto.as_ref());
        let mut cursor = self.read(ground, Some(within), Vec::new(), true).await?;
        let mut rows = Rows::new(&ground.key);
        let mut last = None;
        while cursor.advance().await.map_err(|error| failed(COMPARE, &error))? {
            let row = as_row(cursor.current(), &ground.columns, &ground.key);
            rows.push(&row);
            if rows.len() >= most {
                last = Some(RowKey::of(&row, &ground.key));
                break;
            }
        }
        Ok(Range { rows, upto: last })
    }

    async fn rows_at(&mut self, ground: &Ground, keys: &[RowKey]) -> Result<Rows, StoreError> {
        let mut rows = Rows::new(&ground.key);
        self.each_at(ground, keys, |row| rows.push(&row)).await?;
        Ok(rows)
    }

    async fn at(&mut self, ground: &Ground, keys: &[RowKey]) -> Result<Found, StoreError> {
        let mut found = Found::default();
        self.each_at(ground, keys, |row| found.documents.push(row.into_owned())).await?;
        Ok(found)
    }

    async fn keys(&mut self, ground: &Ground) -> Result<Self::Keys, StoreError> {
        let mut only = doc! { "_id": 0 };
        only.extend(ground.key.iter().map(|field| (field.clone(), Bson::Int32(1))));
        self.read(ground, None, vec![doc! { "$project": only }], false).await
    }

    async fn next(
        &mut self,
        ground: &Ground,
        keys: &mut Self::Keys,
        most: usize,
    ) -> Result<Vec<RowKey>, StoreError> {
        let mut next = Vec::new();
        while next.len() < most && keys.advance().await.map_err(|error| failed(COMPARE, &error))? {
            let row = as_row(keys.current(), &ground.columns, &ground.key);
            next.push(RowKey::of(&row, &ground.key));
        }
        Ok(next)
    }
}

impl Mongo {
    async fn each_at(
        &self,
        ground: &Ground,
        keys: &[RowKey],
        mut each: impl FnMut(Cow<'_, RawDocument>),
    ) -> Result<(), StoreError> {
        for list in lists(&ground.key, keys) {
            // In front of what keeps the key, the list can use its index.
            let (before, behind) = match ground.is_id || ground.source.pipeline.is_empty() {
                true => (Some(list), Vec::new()),
                false => (None, vec![doc! { "$match": list }]),
            };
            let mut cursor = self.read(ground, before, behind, false).await?;
            while cursor.advance().await.map_err(|error| failed(COMPARE, &error))? {
                each(as_row(cursor.current(), &ground.columns, &ground.key));
            }
        }
        Ok(())
    }

    /// The documents of a source, of which `before` and the stages `behind` leave some.
    async fn read(
        &self,
        ground: &Ground,
        before: Option<Document>,
        behind: Vec<Document>,
        along: bool,
    ) -> Result<Cursor<RawDocumentBuf>, StoreError> {
        let Ground { source, timeouts, .. } = ground;
        let parts = [source.find.clone(), before.unwrap_or_default()];
        let mut parts: Vec<Document> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let filter = match parts.len() {
            0 | 1 => parts.pop().unwrap_or_default(),
            _ => doc! { "$and": parts },
        };
        // An index of the collection's own collation serves keys that are no texts.
        let simple = || Collation::builder().locale("simple").build();
        let limit = timeouts.statement.unwrap_or(Duration::ZERO);
        let collection = self.database.collection::<RawDocumentBuf>(&source.collection);
        let opened = if source.pipeline.is_empty() && behind.is_empty() {
            let mut find = collection.find(filter).batch_size(BATCH).comment(self.comment());
            find = if along { find.hint(along_id()) } else { find.collation(simple()) };
            if !limit.is_zero() {
                find = find.max_time(limit);
            }
            find.await
        } else {
            let mut stages = vec![doc! { "$match": filter }];
            stages.extend(source.pipeline.iter().cloned());
            stages.extend(behind);
            let mut aggregate = collection
                .aggregate(stages)
                .with_type::<RawDocumentBuf>()
                .batch_size(BATCH)
                .allow_disk_use(true)
                .comment(Bson::String(self.comment()));
            aggregate =
                if along { aggregate.hint(along_id()) } else { aggregate.collation(simple()) };
            if !limit.is_zero() {
                aggregate = aggregate.max_time(limit);
            }
            aggregate.await
        };
        opened.map_err(|error| failed(COMPARE, &error))
    }
}

fn refused(message: String, hint: &str) -> StoreError {
    let error = StoreError::new(StoreName::Mongo, COMPARE, Fate::Refused, message);
    StoreError { said: Said { hint: Some(hint.to_owned()), ..error.said }, ..error }
}

/// The value of a key of one field.
fn value(key: Option<&RowKey>) -> Option<Bson> {
    key.and_then(|key| key.values().next()?.try_into().ok())
}

/// Whether a stage leaves each document the `_id` that it has, and looks at no other
/// document of the collection: then a part of the documents may be taken in front of it.
fn keeps_id(stage: &Document) -> bool {
    let Some((name, body)) = stage.iter().next() else { return false };
    let is_id = |path: &str| path == "_id" || path.starts_with("_id.");
    let names =
        |body: &Bson| body.as_document().is_some_and(|body| body.keys().any(|path| is_id(path)));
    match name.as_str() {
        "$match" => !body.to_string().contains("$text"),
        "$project" => body.as_document().is_some_and(|body| {
            body.iter().filter(|(path, _)| is_id(path)).all(|(path, value)| {
                path == "_id" && matches!(value, Bson::Int32(1) | Bson::Boolean(true))
            })
        }),
        "$addFields" | "$set" => body.as_document().is_some() && !names(body),
        "$unset" => match body {
            Bson::String(path) => !is_id(path),
            Bson::Array(paths) => {
                paths.iter().all(|path| path.as_str().is_some_and(|path| !is_id(path)))
            }
            _ => false,
        },
        "$lookup" => body
            .as_document()
            .and_then(|body| body.get_str("as").ok())
            .is_some_and(|path| !is_id(path)),
        _ => false,
    }
}

/// Queries for lists of keys, each of a size that a command can have.
fn lists(fields: &[String], keys: &[RowKey]) -> Vec<Document> {
    let Some((last, first)) = fields.split_last() else { return Vec::new() };
    // Keys that agree in all fields but the last are one branch.
    let mut branches: Vec<(Vec<Bson>, Vec<Bson>, usize)> = Vec::new();
    let mut at: std::collections::HashMap<Vec<u8>, usize> = std::collections::HashMap::new();
    for key in keys {
        let mut values: Vec<Bson> = key.values().filter_map(|it| it.try_into().ok()).collect();
        let Some(value) = values.pop() else { continue };
        let prefix = match values.is_empty() {
            true => Vec::new(),
            false => doc! { "": &values }.to_vec().unwrap_or_default(),
        };
        let size = key.0.as_bytes().len();
        let full = |branch: &(Vec<Bson>, Vec<Bson>, usize)| branch.2 + size > LIST_BYTES;
        match at.get(&prefix).and_then(|at| branches.get_mut(*at)).filter(|it| !full(it)) {
            Some(branch) => {
                branch.1.extend(variants(value));
                branch.2 += size;
            }
            None => {
                at.insert(prefix, branches.len());
                branches.push((values, variants(value).collect(), size));
            }
        }
    }
    let mut lists = Vec::new();
    let mut list: Vec<Document> = Vec::new();
    let mut size = 0;
    for (values, last_values, bytes) in branches {
        if !list.is_empty() && (size + bytes > LIST_BYTES || list.len() >= BRANCHES_MAX) {
            lists.push(any_of(std::mem::take(&mut list)));
            size = 0;
        }
        let mut branch = Document::new();
        for (field, value) in first.iter().zip(values) {
            branch.insert(field, doc! { "$in": variants(value).collect::<Vec<_>>() });
        }
        branch.insert(last, doc! { "$in": last_values });
        list.push(branch);
        size += bytes;
    }
    if !list.is_empty() {
        lists.push(any_of(list));
    }
    lists
}

fn any_of(mut list: Vec<Document>) -> Document {
    match list.len() {
        1 => list.remove(0),
        _ => doc! { "$or": list },
    }
}

/// The values that count as the same key.
fn variants(value: Bson) -> impl Iterator<Item = Bson> {
    let other = match &value {
        Bson::String(text) if text.len() == 24 => {
            bson::oid::ObjectId::parse_str(text).ok().map(Bson::ObjectId)
        }
        Bson::Binary(binary) => {
            let bytes: Option<[u8; 12]> = binary.bytes.as_slice().try_into().ok();
            bytes.map(|bytes| Bson::ObjectId(bytes.into()))
        }
        _ => None,
    };
    [Some(value), other].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(document: Document) -> RowKey {
        RowKey(RawDocumentBuf::try_from(document).unwrap())
    }

    #[test]
    fn a_stage_that_may_move_a_document_to_another_key_keeps_no_id() {
        for stage in [
            doc! { "$match": { "a": 1 } },
            doc! { "$project": { "a": 1 } },
            doc! { "$project": { "_id": 1, "a": 1 } },
            doc! { "$set": { "a": "$_id" } },
            doc! { "$unset": "a" },
            doc! { "$lookup": { "from": "x", "as": "y" } },
        ] {
            assert!(keeps_id(&stage), "{stage}");
        }
        for stage in [
            doc! { "$project": { "_id": 0, "a": 1 } },
            doc! { "$project": { "_id": "$a" } },
            doc! { "$set": { "_id": "$a" } },
            doc! { "$set": { "_id.b": 1 } },
            doc! { "$unset": ["a", "_id"] },
            doc! { "$group": { "_id": "$_id" } },
            doc! { "$sort": { "a": 1 } },
            doc! { "$limit": 5 },
            doc! { "$replaceRoot": { "newRoot": "$a" } },
            doc! { "$lookup": { "from": "x", "as": "_id" } },
        ] {
            assert!(!keeps_id(&stage), "{stage}");
        }
    }

    #[test]
    fn a_list_of_keys_is_one_query_and_keys_of_two_fields_share_the_first() {
        let fields = ["a".to_owned()];
        let keys = [key(doc! { "a": 1 }), key(doc! { "a": "x" })];
        assert_eq!(lists(&fields, &keys), [doc! { "a": { "$in": [1, "x"] } }]);
        let fields = ["a".to_owned(), "b".to_owned()];
        let keys = [
            key(doc! { "a": 1, "b": 1 }),
            key(doc! { "a": 2, "b": 1 }),
            key(doc! { "a": 1, "b": 2 }),
        ];
        let expected = doc! { "$or": [
            { "a": { "$in": [1] }, "b": { "$in": [1, 2] } },
            { "a": { "$in": [2] }, "b": { "$in": [1] } },
        ] };
        assert_eq!(lists(&fields, &keys), [expected]);
    }
}
