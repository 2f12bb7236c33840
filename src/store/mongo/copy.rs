//! Rows of Postgres become documents.
//!
//! A page is one transaction: what is there already is read, what is missing is
//! inserted, what differs is updated, what is equal is left alone, and the cursor is
//! moved if the fence still stands. While nothing is there, nothing is read: an
//! insert finds out by itself, and costs a fourth of what an upsert does.
//!
//! A standalone server has no transactions: the documents come first, the cursor
//! second. A page that is written twice is equal the second time.

use super::backfill::{Next, advise, is_there, ours, statement_limit};
use super::history::{Tried, alone, check_fence, in_transaction_for};
use super::rejects::put_aside;
use super::{Mongo, check_reply, failed, failed_as};
use crate::core::backfill::{Batch, Shard};
use crate::core::id::StoreName;
use crate::core::mapping::{self, canonical};
use crate::core::parse::manifest::{By, Work};
use crate::failpoint::{around, reach};
use crate::store::backfill::Job;
use crate::store::copy::{BadRow, Page, Target};
use crate::store::rejects::{RefusedRow, reason};
use crate::store::{Fate, StoreError};
use bson::raw::RawArrayBuf;
use bson::{Bson, Document, RawDocument, RawDocumentBuf, doc, rawdoc};
use futures_util::TryStreamExt;
use mongodb::ClientSession;
use std::borrow::Cow;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A transaction of MongoDB is best kept to so many documents.
const TRANSACTION_ROWS: u64 = 1_000;

/// Sessions that copy at once. A transaction is four questions one after the other, and
/// so short that two sessions leave the server idle now and then.
const WORKERS: u64 = 3;

/// One statement inserts no more bytes than this, unless one document has more.
const PIECE_BYTES: usize = 2 << 20;

/// A page that other writers are in the way of is tried again for so long.
const LOCK_LIMIT: Duration = Duration::from_secs(3);

/// Without transactions, documents that change while a page is written are read
/// again, so often.
const TRIES_MAX: u32 = 10;

const READY: &str = "look at the collection that is written";
const PUT: &str = "write copied rows";

impl Target for Mongo {
    const ROWS_MAX: u64 = TRANSACTION_ROWS;

    async fn ready(&mut self, job: Job<'_>) -> Result<(), StoreError> {
        ready(self, job).await
    }

    async fn workers(&mut self, _job: Job<'_>) -> Result<u64, StoreError> {
        Ok(WORKERS)
    }

    async fn put(
        &mut self,
        job: Job<'_>,
        shard: &Shard,
        page: &Page,
    ) -> Result<Option<Batch>, StoreError> {
        around(put(self, job, shard, page), "copy in MongoDB").await
    }
}

fn refused(doing: &'static str, message: impl Into<String>, hint: &str) -> StoreError {
    let mut error = StoreError::new(StoreName::Mongo, doing, Fate::Refused, message);
    error.said.hint = Some(hint.to_owned());
    error
}

/// The collection, and how a row finds its document.
fn place<'a>(job: Job<'a>, doing: &'static str) -> Result<(&'a str, &'a By), StoreError> {
    match job.work {
        Work::CopyToMongo { to, by, .. } => Ok((to, by)),
        Work::Update { .. }
        | Work::Sql { .. }
        | Work::Call { .. }
        | Work::Documents { .. }
        | Work::CopyToPostgres { .. } => {
            Err(StoreError::new(StoreName::Mongo, doing, Fate::Refused, "it is no copy into it"))
        }
    }
}

async fn ready(store: &Mongo, job: Job<'_>) -> Result<(), StoreError> {
    let (to, by) = place(job, READY)?;
    let is_there = is_there(store, to).await?;
    let By::Fields(fields) = by else { return Ok(()) };
    let indexes: Vec<Document> = match is_there {
        false => Vec::new(),
        true => {
            let list = store.database.run_cursor_command(doc! { "listIndexes": to }).await;
            let list = list.map_err(|error| failed(READY, &error))?;
            list.try_collect().await.map_err(|error| failed(READY, &error))?
        }
    };
    let finds = |index: &Document| {
        let Ok(key) = index.get_document("key") else { return false };
        let first: Vec<&String> = key.keys().take(fields.len()).collect();
        let is_plain = key.values().take(fields.len()).all(|way| way.as_str().is_none());
        let is_whole =
            ["partialFilterExpression", "collation"].iter().all(|limit| !index.contains_key(limit));
        is_plain && is_whole && fields.iter().all(|field| first.contains(&field))
    };
    if indexes.iter().any(finds) {
        return Ok(());
    }
    let keys: Vec<String> = fields.iter().map(|field| format!("{field:?}: 1")).collect();
    let list = fields.join(", ");
    Err(refused(
        READY,
        format!(
            "no index of {to} begins with ({list}), by which rows find their documents: each page \
             would read all of it"
        ),
        &format!(
            "create one in `prepare.mongodb.js`: db.getCollection({to:?}).createIndex({{ {} }}, \
             {{ unique: true }}); one that is partial or has a collation does not count",
            keys.join(", ")
        ),
    ))
}

/// Documents on their way to their collection.
struct Load<'a> {
    to: &'a str,
    by: &'a By,
    documents: Vec<Cow<'a, RawDocument>>,
    /// What is put aside instead.
    bad: &'a [BadRow],
    limit: Duration,
    comment: String,
}

async fn put(
    store: &mut Mongo,
    job: Job<'_>,
    shard: &Shard,
    page: &Page,
) -> Result<Option<Batch>, StoreError> {
    let (to, by) = place(job, PUT)?;
    let documents = page.documents.iter().map(|document| by_id(document, by));
    let documents = documents.collect::<Result<Vec<_>, StoreError>>()?;
    let limit = statement_limit(job);
    let load = Load { to, by, documents, bad: &page.bad, limit, comment: store.comment() };
    let upto = page.upto.as_ref().filter(|upto| !page.is_last && **upto != shard.upto);
    let moved = Shard {
        after: Some(upto.unwrap_or(&shard.upto).clone()),
        passed: shard.passed + page.passed,
        done: upto.is_none(),
        claimed: upto.is_some(),
        ..shard.clone()
    };
    let next = Next::new(job, shard, &moved, PUT)?;
    let written = match store.has_transactions() {
        true => together(store, &next, &load).await,
        false => one_by_one(store, &next, &load).await,
    };
    let Some((rows, commit)) = written.map_err(advise)? else { return Ok(None) };
    let shard = Shard { rows: shard.rows + rows, ..moved };
    Ok(Some(Batch { shard, passed: page.passed, rows, trips: Duration::ZERO, commit }))
}

/// The document with the column of the key as its `_id`, in front.
fn by_id<'a>(document: &'a RawDocument, by: &By) -> Result<Cow<'a, RawDocument>, StoreError> {
    let By::Id(column) = by else { return Ok(Cow::Borrowed(document)) };
    let damaged = |error: bson::error::Error| {
        StoreError::new(StoreName::Mongo, PUT, Fate::Refused, format!("a damaged row: {error}"))
    };
    let mut fields = document.iter();
    let first = fields.next().transpose().map_err(damaged)?;
    if column == "_id" && first.is_some_and(|(name, _)| name.as_str() == "_id") {
        return Ok(Cow::Borrowed(document));
    }
    let id = document.get(column).map_err(damaged)?.unwrap_or(bson::RawBsonRef::Null);
    let mut whole = RawDocumentBuf::new();
    whole.append(bson::cstr!("_id"), id);
    for field in document {
        let (name, value) = field.map_err(damaged)?;
        match name.as_str() {
            name if name == column => {}
            "_id" => {
                return Err(refused(
                    PUT,
                    format!("the query has a column `_id`, and `{column}` is to become the `_id`"),
                    "leave one of them out, or name `_id` as the key",
                ));
            }
            _ => whole.append(name, value),
        }
    }
    Ok(Cow::Owned(whole))
}

/// What became of writing documents.
enum Wrote {
    /// So many were inserted or updated.
    Rows(u64),
    /// Some are there, which nobody has looked at.
    Taken,
    /// Some changed while they were looked at.
    Moved,
}

/// Documents and cursor in one transaction.
async fn together(
    store: &mut Mongo,
    next: &Next<'_>,
    load: &Load<'_>,
) -> Result<Option<(u64, Duration)>, StoreError> {
    let limit = next.job.timeouts.lock.unwrap_or(LOCK_LIMIT);
    let mut is_blank = store.is_blank && matches!(load.by, By::Id(_));
    loop {
        let (mut rows, mut taken, mut found) = (0, false, false);
        let committed = in_transaction_for(store, PUT, limit, async |store, session| {
            let wrote = match is_blank {
                true => load.insert_all(store, Some(&mut *session)).await?,
                false => load.compare(store, Some(&mut *session), &mut found).await?,
            };
            let Wrote::Rows(written) = wrote else {
                // The transaction is over: the server ended it.
                found = true;
                return Err(Tried::Failed(refused(PUT, "it is there already", "read it")));
            };
            rows = written;
            let moved = next.step(store, Some(&mut *session), rows).await?;
            check_fence(store, &mut *session).await?;
            taken = !moved;
            match taken {
                false => {
                    put_aside(store, Some(session), next.job, next.shard.index, load.bad).await
                }
                true => Err(Tried::Failed(StoreError::new(
                    StoreName::Mongo,
                    PUT,
                    Fate::Fenced,
                    "another run has taken the shard",
                ))),
            }
        })
        .await;
        match committed {
            Ok(commit) => {
                store.is_blank = !found;
                return Ok(Some((rows, commit)));
            }
            Err(_) if taken => return Ok(None),
            Err(_) if is_blank && found => is_blank = false,
            Err(error) => return Err(error),
        }
    }
}

/// Without transactions: the documents, which are equal the second time, and then the
/// cursor.
async fn one_by_one(
    store: &mut Mongo,
    next: &Next<'_>,
    load: &Load<'_>,
) -> Result<Option<(u64, Duration)>, StoreError> {
    store.check_lease().await?;
    let steps = store.database.collection::<Document>("migration_steps");
    let still = steps.find_one(ours(store, next.job, next.shard)).await;
    if still.map_err(|error| failed(PUT, &error))?.is_none() {
        return Ok(None);
    }
    let began = Instant::now();
    let (mut rows, mut tries) = (0, 0);
    loop {
        tries += 1;
        let mut found = false;
        match load.compare(store, None, &mut found).await.map_err(alone)? {
            Wrote::Rows(written) => {
                rows += written;
                break;
            }
            Wrote::Taken | Wrote::Moved if tries < TRIES_MAX => {}
            Wrote::Taken | Wrote::Moved => {
                return Err(refused(
                    PUT,
                    format!("documents of {} changed each time they were compared", load.to),
                    "run this again when fewer others write to it",
                ));
            }
        }
    }
    put_aside(store, None, next.job, next.shard.index, load.bad).await.map_err(alone)?;
    let commit = began.elapsed();
    reach("copied rows without their cursor in MongoDB");
    let moved = next.step(store, None, rows).await.map_err(alone)?;
    Ok(moved.then_some((rows, commit)))
}

/// What is there in place of a row.
struct There {
    id: Bson,
    document: RawDocumentBuf,
}

impl Load<'_> {
    /// Inserts documents, of which none is there, as far as anybody knows.
    async fn insert_all(
        &self,
        store: &Mongo,
        session: Option<&mut ClientSession>,
    ) -> Result<Wrote, Tried> {
        let all: Vec<usize> = (0..self.documents.len()).collect();
        self.insert(store, session, &all).await
    }

    /// Reads what is there in place of the rows, inserts what is missing, updates
    /// what differs. `found`: something was there.
    async fn compare(
        &self,
        store: &Mongo,
        mut session: Option<&mut ClientSession>,
        found: &mut bool,
    ) -> Result<Wrote, Tried> {
        if self.documents.is_empty() {
            return Ok(Wrote::Rows(0));
        }
        let there = self.read(store, session.as_deref_mut()).await?;
        *found = !there.is_empty();
        let (mut missing, mut changed) = (Vec::new(), Vec::new());
        for (at, document) in self.documents.iter().enumerate() {
            match there.get(&self.identity(document).map_err(Tried::Failed)?) {
                None => missing.push(at),
                Some(there) if !self.is_equal(document, there).map_err(Tried::Failed)? => {
                    changed.push((at, there));
                }
                Some(_) => {}
            }
        }
        let inserted = match missing.is_empty() {
            true => Wrote::Rows(0),
            false => self.insert(store, session.as_deref_mut(), &missing).await?,
        };
        let Wrote::Rows(inserted) = inserted else { return Ok(inserted) };
        let updated = match changed.is_empty() {
            true => Wrote::Rows(0),
            false => self.update(store, session, &changed).await?,
        };
        let Wrote::Rows(updated) = updated else { return Ok(updated) };
        Ok(Wrote::Rows(inserted + updated))
    }

    /// The documents that have the keys of ours, by these keys.
    async fn read(
        &self,
        store: &Mongo,
        session: Option<&mut ClientSession>,
    ) -> Result<HashMap<Vec<u8>, There>, Tried> {
        let lost = |error: mongodb::error::Error| Tried::of(PUT, &error);
        let collection = store.database.collection::<RawDocumentBuf>(self.to);
        let mut find = collection
            .find(self.filter().map_err(Tried::Failed)?)
            .max_time(self.limit)
            .comment(self.comment.clone());
        if matches!(self.by, By::Id(_)) {
            find = find.hint(mongodb::options::Hint::Keys(doc! { "_id": 1 }));
        }
        let documents: Vec<RawDocumentBuf> = match session {
            Some(session) => {
                let mut cursor = find.session(&mut *session).await.map_err(lost)?;
                cursor.stream(session).try_collect().await.map_err(lost)?
            }
            None => find.await.map_err(lost)?.try_collect().await.map_err(lost)?,
        };
        let mut there = HashMap::with_capacity(documents.len());
        for document in documents {
            let id = document.get("_id").ok().flatten();
            let id = id.and_then(|id| Bson::try_from(id).ok()).unwrap_or(Bson::Null);
            let key = self.identity(&document).map_err(Tried::Failed)?;
            let shown = self.key(&document);
            if there.insert(key, There { id, document }).is_some()
                && let By::Fields(fields) = self.by
            {
                return Err(Tried::Failed(refused(
                    PUT,
                    format!(
                        "{} has several documents whose ({}) is {shown}: which of them is the row's?",
                        self.to,
                        fields.join(", ")
                    ),
                    "make them one, and give the index on these fields `unique: true`",
                )));
            }
        }
        Ok(there)
    }

    /// The fields of a document's key.
    fn fields(&self) -> Vec<&str> {
        match self.by {
            By::Id(_) => vec!["_id"],
            By::Fields(fields) => fields.iter().map(String::as_str).collect(),
        }
    }

    /// A document's key for people.
    fn key(&self, document: &RawDocument) -> String {
        mapping::key(document, &self.fields())
    }

    /// What two keys have in common that MongoDB finds equal.
    fn identity(&self, document: &RawDocument) -> Result<Vec<u8>, StoreError> {
        let mut out = Vec::new();
        for field in self.fields() {
            let value = document.get(field).ok().flatten().unwrap_or(bson::RawBsonRef::Null);
            canonical::append_value(value, &mut out).map_err(|bad| self.odd(document, &bad))?;
        }
        Ok(out)
    }

    fn odd(&self, document: &RawDocument, bad: &mapping::Bad) -> StoreError {
        let message = format!("{} with the key {}: {bad}", self.to, self.key(document));
        StoreError::new(StoreName::Mongo, PUT, Fate::Refused, message)
    }

    /// Whether what is there says what ours says, whatever else it says.
    fn is_equal(&self, ours: &RawDocument, there: &There) -> Result<bool, StoreError> {
        let theirs = &there.document;
        if ours.as_bytes() == theirs.as_bytes() {
            return Ok(true);
        }
        // The `_id` that is there stays, and so do fields that are not the row's.
        let mut leave_out = vec!["_id"];
        let others = theirs.into_iter().flatten().map(|(name, _)| name.as_str());
        leave_out.extend(others.filter(|name| !matches!(ours.get(name), Ok(Some(_)))));
        let (mut left, mut right) = (Vec::new(), Vec::new());
        canonical::append(ours, &leave_out, &mut left).map_err(|bad| self.odd(ours, &bad))?;
        canonical::append(theirs, &leave_out, &mut right).map_err(|bad| self.odd(theirs, &bad))?;
        Ok(left == right)
    }

    /// The documents that have the keys of ours, and if there are several fields, few
    /// others: rows come in the order of their key, so most of them share the first.
    fn filter(&self) -> Result<Document, StoreError> {
        let mut filter = Document::new();
        for field in self.fields() {
            let mut values: Vec<Bson> = Vec::with_capacity(self.documents.len());
            for document in &self.documents {
                let value = document.get(field).ok().flatten();
                let value = value.map_or(Ok(Bson::Null), Bson::try_from);
                let value = value.map_err(|error| {
                    refused(PUT, format!("a damaged row: {error}"), "run this again")
                })?;
                if values.last() != Some(&value) {
                    values.push(value);
                }
            }
            filter.insert(field, doc! { "$in": values });
        }
        Ok(filter)
    }

    /// Inserts some of the documents, so many bytes at a time: the driver makes copies of
    /// what it sends.
    async fn insert(
        &self,
        store: &Mongo,
        mut session: Option<&mut ClientSession>,
        which: &[usize],
    ) -> Result<Wrote, Tried> {
        let mut rest = which;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |at: &&usize| {
                bytes += self.documents[**at].as_bytes().len();
                bytes <= PIECE_BYTES
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (piece, others) = rest.split_at(count);
            match self.insert_piece(store, session.as_deref_mut(), piece).await? {
                Wrote::Rows(_) => rest = others,
                other => return Ok(other),
            }
        }
        Ok(Wrote::Rows(u64::try_from(which.len()).unwrap_or(0)))
    }

    async fn insert_piece(
        &self,
        store: &Mongo,
        session: Option<&mut ClientSession>,
        which: &[usize],
    ) -> Result<Wrote, Tried> {
        let mut documents = RawArrayBuf::new();
        for at in which {
            let document = &*self.documents[*at];
            match document.get("_id") {
                Ok(Some(_)) => documents.push(document),
                Ok(None) | Err(_) => {
                    let mut whole = rawdoc! { "_id": bson::oid::ObjectId::new() };
                    for (name, value) in document.into_iter().flatten() {
                        whole.append(name, value);
                    }
                    documents.push(whole);
                }
            }
        }
        let insert = rawdoc! { "insert": self.to, "documents": documents };
        let reply = self.send(store, session, insert).await?;
        match self.refusal(&reply, |at| which.get(at).copied()) {
            Some(error) if self.is_there_already(&reply, &error) => Ok(Wrote::Taken),
            Some(error) => Err(Tried::Failed(error)),
            None => Ok(Wrote::Rows(u64::try_from(which.len()).unwrap_or(0))),
        }
    }

    /// Gives documents the fields of ours, if they are still what was read.
    async fn update(
        &self,
        store: &Mongo,
        session: Option<&mut ClientSession>,
        which: &[(usize, &There)],
    ) -> Result<Wrote, Tried> {
        let mut updates = RawArrayBuf::new();
        for (at, there) in which {
            let mut q = rawdoc! {};
            let id = bson::raw::RawBson::try_from(there.id.clone());
            let id = id.map_err(|error| {
                Tried::Failed(refused(PUT, format!("a damaged document: {error}"), "mend it"))
            })?;
            q.append(bson::cstr!("_id"), id);
            if session.is_none() {
                // In a transaction the server sees to it.
                let read = rawdoc! { "$literal": there.document.clone() };
                q.append(bson::cstr!("$expr"), rawdoc! { "$eq": ["$$ROOT", read] });
            }
            // Names of columns may have dots and dollars in them: a `$set` would take
            // them for something else.
            let mut ours = rawdoc! {};
            for (name, value) in self.documents[*at].into_iter().flatten() {
                if name.as_str() != "_id" {
                    ours.append(name, value);
                }
            }
            let whole = rawdoc! { "$mergeObjects": ["$$ROOT", { "$literal": ours }] };
            updates.push(rawdoc! { "q": q, "u": [{ "$replaceWith": whole }] });
        }
        let update = rawdoc! { "update": self.to, "updates": updates };
        let reply = self.send(store, session, update).await?;
        if let Some(error) = self.refusal(&reply, |at| which.get(at).map(|(at, _)| *at)) {
            return Err(Tried::Failed(error));
        }
        let matched = reply.get("n").and_then(Bson::as_i32).and_then(|n| usize::try_from(n).ok());
        match matched == Some(which.len()) {
            true => Ok(Wrote::Rows(u64::try_from(which.len()).unwrap_or(0))),
            false => Ok(Wrote::Moved),
        }
    }

    async fn send(
        &self,
        store: &Mongo,
        session: Option<&mut ClientSession>,
        mut command: RawDocumentBuf,
    ) -> Result<Document, Tried> {
        let millis = i64::try_from(self.limit.as_millis()).unwrap_or(i64::MAX);
        command.append(bson::cstr!("comment"), self.comment.as_str());
        command.append(bson::cstr!("maxTimeMS"), millis);
        let reply = match session {
            Some(session) => {
                let sent = store.database.run_raw_command(command).session(session).await;
                sent.map_err(|error| Tried::of(PUT, &error))
            }
            None => {
                let concern = rawdoc! { "w": "majority", "j": true };
                command.append(bson::cstr!("writeConcern"), concern);
                let sent = store.database.run_raw_command(command).await;
                sent.map_err(|error| Tried::Failed(failed_as(PUT, &error, Fate::Unknown)))
            }
        };
        reply.map_err(|tried| match tried {
            Tried::Again(error) => Tried::Again(error),
            Tried::Failed(error) => Tried::Failed(self.about_the_only(error)),
        })
    }

    /// An error about a command as a whole: with one document, it is about that one.
    fn about_the_only(&self, mut error: StoreError) -> StoreError {
        if let ([document], Fate::Refused) = (self.documents.as_slice(), error.fate) {
            let key = self.key(document);
            error.said.message = format!("the row with the key {key}: {}", error.said.message);
        }
        error
    }

    /// What the server has against one of the documents, with its key and its row.
    fn refusal(
        &self,
        reply: &Document,
        place: impl Fn(usize) -> Option<usize>,
    ) -> Option<StoreError> {
        let mut error = check_reply(PUT, reply).err()?;
        let first = first_error(reply);
        let at = first.and_then(|first| first.get("index")?.as_i32());
        let at = at.and_then(|at| place(usize::try_from(at).ok()?));
        if let Some((at, document)) = at.and_then(|at| Some((at, self.documents.get(at)?))) {
            let key = self.key(document);
            let row = mapping::show(document);
            let reason = reason(&error);
            let row = BadRow { key: key.clone(), row, reason };
            error.said.row = Some(Box::new(RefusedRow { at, row }));
            error.said.message =
                format!("{} refuses the row with the key {key}: {}", self.to, error.said.message);
            let row = format!("the row is {}", mapping::show(document));
            error.said.detail = Some(match error.said.detail.take() {
                Some(detail) => format!("{detail}; {row}"),
                None => row,
            });
        }
        let hint = match first.and_then(|first| first.get("code")?.as_i32()) {
            Some(11000) => Some(
                "another document has the same value in a field of a unique index: change one of \
                 the two rows, or drop the index; then run this again: it goes on where it stopped",
            ),
            Some(121) => Some(
                "the collection's validator does not let it in: change the row or the query, or \
                 the validator; then run this again: it goes on where it stopped",
            ),
            _ => None,
        };
        error.said.hint = hint.map(str::to_owned);
        Some(error)
    }

    /// A document has the key of one of ours.
    fn is_there_already(&self, reply: &Document, error: &StoreError) -> bool {
        let Some(first) = first_error(reply) else { return false };
        let is_duplicate = first.get("code").and_then(Bson::as_i32) == Some(11000);
        let ours = match self.by {
            By::Id(_) => error.said.message.contains(" index: _id_ "),
            // It appeared after it was looked for; then the next look finds it.
            By::Fields(fields) => first.get_document("keyPattern").is_ok_and(|pattern| {
                pattern.len() == fields.len() && fields.iter().all(|it| pattern.contains_key(it))
            }),
        };
        is_duplicate && ours
    }
}

fn first_error(reply: &Document) -> Option<&Document> {
    reply.get_array("writeErrors").ok()?.first()?.as_document()
}
