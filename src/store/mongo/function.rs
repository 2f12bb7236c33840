//! Functions of the program around us that backfills call for their batches.
//!
//! They run in the transaction of their batch, which moves the cursor too: what they
//! write and that it is done are committed together.

use super::history::Tried;
use super::{Mongo, check_reply, ids};
use crate::core::causes::chain;
use crate::core::id::StoreName;
use crate::core::mapping;
use crate::core::step::{Call, Caller};
use crate::store::function::{Because, said_in};
use crate::store::{Fate, StoreError};
use bson::{Bson, Document, RawDocumentBuf, doc};
use futures_util::{FutureExt as _, TryStreamExt as _};
use mongodb::ClientSession;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// A command has so many updates or documents at most.
const WRITES_MAX: usize = 1_000;

/// And so many bytes of them: the server takes sixteen million.
const BYTES_MAX: usize = 8 << 20;

/// Commands that are bounded in time and show whose they are.
const BOUNDED: [&str; 7] =
    ["aggregate", "delete", "distinct", "find", "findAndModify", "insert", "update"];

/// What belongs to the transaction and not to a command in it.
const OF_TRANSACTION: [&str; 8] = [
    "abortTransaction",
    "autocommit",
    "commitTransaction",
    "endSessions",
    "killSessions",
    "lsid",
    "startTransaction",
    "txnNumber",
];

/// What a function comes to, as it is kept.
type Coming<'a> = Pin<Box<dyn Future<Output = Result<u64, Because>> + 'a>>;

/// A function, as it is kept.
trait BatchFunction: Send + Sync {
    fn call<'a>(&'a self, batch: &'a mut MongoBatch<'_>) -> Coming<'a>;
}

impl<F> BatchFunction for F
where
    F: AsyncFn(&mut MongoBatch<'_>) -> Result<u64, Because> + Send + Sync,
{
    fn call<'a>(&'a self, batch: &'a mut MongoBatch<'_>) -> Coming<'a> {
        Box::pin(self(batch))
    }
}

/// Functions by their names.
#[derive(Clone, Default)]
pub struct MongoFunctions(BTreeMap<String, Arc<dyn BatchFunction>>);

impl MongoFunctions {
    /// Adds one, in the place of one that is called the same.
    pub fn add_batch<F>(&mut self, name: &str, function: F)
    where
        F: AsyncFn(&mut MongoBatch<'_>) -> Result<u64, Because> + Send + Sync + 'static,
    {
        self.0.insert(name.to_owned(), Arc::new(function));
    }

    /// What they are called, and by what.
    pub fn names(&self) -> impl Iterator<Item = (Caller, &str)> {
        self.0.keys().map(|name| (Caller::Batches(StoreName::Mongo), name.as_str()))
    }
}

impl fmt::Debug for MongoFunctions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// A batch of a backfill in MongoDB, for a function that is called for it.
///
/// All that it does here is in the transaction of the batch, which moves the cursor of
/// the backfill too: each document is in one batch that is committed, whatever dies. When
/// the function fails, panics or is cut off, or another transaction was in the way,
/// nothing of the batch is there, and the function is called again for it, or for a part
/// of it. So what it does elsewhere should be harmless to repeat.
///
/// ```
/// # use lockstep::Migrator;
/// use lockstep::mongodb::bson::doc;
///
/// let builder = Migrator::builder().mongo_batch("fill_names", async |batch| {
///     let mut updates = Vec::new();
///     for person in batch.documents().await? {
///         let name = person.get_str("mail")?.split('@').next().unwrap_or_default();
///         let update = doc! { "$set": { "name": name } };
///         updates.push((doc! { "_id": person.get("_id") }, update));
///     }
///     batch.update_each("people", updates).await
/// });
/// ```
pub struct MongoBatch<'a> {
    store: &'a Mongo,
    session: &'a mut ClientSession,
    ids: Ids<'a>,
    /// The server has ended the transaction: that is what there is to say, whatever the
    /// function made of it.
    failed: Option<Tried>,
    doing: &'static str,
}

/// Which documents a batch has.
#[derive(Clone, Copy)]
pub(super) struct Ids<'a> {
    pub(super) collection: &'a str,
    /// The range of their ids.
    pub(super) within: &'a Document,
    /// The filter of the backfill.
    pub(super) filter: &'a Document,
    pub(super) after: Option<&'a Bson>,
    pub(super) upto: &'a Bson,
    /// For one command.
    pub(super) limit: Duration,
}

impl fmt::Debug for MongoBatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MongoBatch")
            .field("collection", &self.ids.collection)
            .field("after", &self.ids.after)
            .field("upto", &self.ids.upto)
            .finish_non_exhaustive()
    }
}

impl MongoBatch<'_> {
    /// The collection whose documents these are.
    pub fn collection(&self) -> &str {
        self.ids.collection
    }

    /// The last `_id` of the batch before, which is not in this one. `None` is the
    /// beginning.
    pub fn after(&self) -> Option<&Bson> {
        self.ids.after
    }

    /// The last `_id` of this batch.
    pub fn upto(&self) -> &Bson {
        self.ids.upto
    }

    /// What finds the documents of the batch: the range of their ids, and the `filter` of
    /// the backfill, if it has one.
    pub fn filter(&self) -> Document {
        match self.ids.filter.is_empty() {
            true => self.ids.within.clone(),
            false => doc! { "$and": [self.ids.within.clone(), self.ids.filter.clone()] },
        }
    }

    /// The documents of the batch, in the order of their ids.
    ///
    /// # Errors
    /// The server's. Nothing of the batch can be committed then.
    pub async fn documents(&mut self) -> Result<Vec<Document>, Because> {
        let (collection, filter) = (self.ids.collection.to_owned(), self.filter());
        self.look(&collection, filter, true).await
    }

    /// Documents of any collection of the database, as the transaction sees them.
    ///
    /// # Errors
    /// As [`documents`](MongoBatch::documents).
    pub async fn find(
        &mut self,
        collection: &str,
        filter: Document,
    ) -> Result<Vec<Document>, Because> {
        self.look(collection, filter, false).await
    }

    /// Changes one document by each of these filters and updates, in as few requests as
    /// can be; the number of documents that were changed.
    ///
    /// # Errors
    /// As [`documents`](MongoBatch::documents).
    pub async fn update_each(
        &mut self,
        collection: &str,
        updates: impl IntoIterator<Item = (Document, Document)>,
    ) -> Result<u64, Because> {
        let updates = updates.into_iter().map(|(q, u)| doc! { "q": q, "u": u });
        self.write("update", "updates", collection, updates).await
    }

    /// Adds documents, in as few requests as can be; how many they are.
    ///
    /// # Errors
    /// As [`documents`](MongoBatch::documents).
    pub async fn insert(
        &mut self,
        collection: &str,
        documents: impl IntoIterator<Item = Document>,
    ) -> Result<u64, Because> {
        self.write("insert", "documents", collection, documents.into_iter()).await
    }

    /// Runs any command that MongoDB has in transactions, and gives its reply.
    ///
    /// # Errors
    /// As [`documents`](MongoBatch::documents), and that the command would end the
    /// transaction.
    pub async fn run_command(&mut self, mut command: Document) -> Result<Document, Because> {
        self.check()?;
        if let Some(name) = command.keys().find(|name| OF_TRANSACTION.contains(&name.as_str())) {
            return Err(
                format!("`{name}` is for the transaction, which is not the function's").into()
            );
        }
        if command.keys().next().is_some_and(|name| BOUNDED.contains(&name.as_str())) {
            let limit = i64::try_from(self.ids.limit.as_millis()).unwrap_or(i64::MAX);
            for (name, value) in
                [("comment", Bson::String(self.store.comment())), ("maxTimeMS", Bson::Int64(limit))]
            {
                if !command.contains_key(name) {
                    command.insert(name, value);
                }
            }
        }
        let reply = self.store.database.run_command(command).session(&mut *self.session).await;
        let reply = reply.map_err(|error| self.fail(error))?;
        // `ok: 1` is not success.
        if let Err(error) = check_reply(self.doing, &reply) {
            self.failed = Some(Tried::Failed(error.clone()));
            return Err(error.into());
        }
        Ok(reply)
    }

    async fn look(
        &mut self,
        collection: &str,
        filter: Document,
        is_along_id: bool,
    ) -> Result<Vec<Document>, Because> {
        self.check()?;
        let all = self.store.database.collection::<Document>(collection);
        let find = all.find(filter).max_time(self.ids.limit).comment(self.store.comment());
        let find = match is_along_id {
            true => find.hint(ids::along_id()).sort(doc! { "_id": 1 }),
            false => find,
        };
        let found: Result<Vec<Document>, mongodb::error::Error> = async {
            let mut cursor = find.session(&mut *self.session).await?;
            cursor.stream(&mut *self.session).try_collect().await
        }
        .await;
        found.map_err(|error| self.fail(error))
    }

    /// Writes many, a command of them at a time: how many there were.
    async fn write(
        &mut self,
        command: &str,
        field: &str,
        collection: &str,
        writes: impl Iterator<Item = Document>,
    ) -> Result<u64, Because> {
        let mut done = 0;
        let mut next = None;
        let mut writes = writes;
        loop {
            let (mut part, mut bytes) = (Vec::new(), 0);
            while part.len() < WRITES_MAX
                && let Some(write) = next.take().or_else(|| writes.next())
            {
                bytes += write.to_vec()?.len();
                if bytes > BYTES_MAX && !part.is_empty() {
                    next = Some(write);
                    break;
                }
                part.push(write);
            }
            if part.is_empty() {
                break;
            }
            let reply = self.run_command(doc! { command: collection, field: part }).await?;
            let count = reply.get("nModified").or_else(|| reply.get("n"));
            let count = count.and_then(Bson::as_i32).and_then(|count| u64::try_from(count).ok());
            done += count.unwrap_or(0);
        }
        Ok(done)
    }

    /// The transaction is over after an error.
    fn check(&self) -> Result<(), Because> {
        match &self.failed {
            None => Ok(()),
            Some(Tried::Again(error) | Tried::Failed(error)) => {
                Err(format!("the transaction is over since this: {}", error.said.message).into())
            }
        }
    }

    fn fail(&mut self, error: mongodb::error::Error) -> Because {
        self.failed = Some(Tried::of(self.doing, &error));
        error.into()
    }
}

/// Calls the function of a backfill for a batch, in the transaction of the session: how
/// many documents it says that it wrote.
pub(super) async fn call_batch(
    store: &Mongo,
    session: &mut ClientSession,
    call: &Call,
    ids: Ids<'_>,
    doing: &'static str,
) -> Result<u64, Tried> {
    let name = call.name.as_str();
    let refused = |what: &str| {
        let message = format!("`{name}` {what}");
        let error = StoreError::new(StoreName::Mongo, doing, Fate::Refused, message);
        Tried::Failed(placed(error, &ids))
    };
    let Some(function) = store.functions.0.get(name).cloned() else {
        return Err(refused("is a function of another program"));
    };
    let mut batch = MongoBatch { store, session, ids, failed: None, doing };
    let called = AssertUnwindSafe(function.call(&mut batch)).catch_unwind().await;
    match (called, batch.failed) {
        (Err(panic), _) => Err(refused(&format!("panicked: {}", said_in(&*panic)))),
        (Ok(done), Some(failed)) => {
            let how = if done.is_ok() { " passed over an error" } else { "" };
            let named = |mut error: StoreError| {
                error.said.message = format!("`{name}`{how}: {}", error.said.message);
                placed(error, &ids)
            };
            Err(match failed {
                Tried::Again(error) => Tried::Again(named(error)),
                Tried::Failed(error) => Tried::Failed(named(error)),
            })
        }
        (Ok(Err(because)), None) => Err(refused(&format!("failed: {}", chain(&*because)))),
        (Ok(Ok(rows)), None) => Ok(rows),
    }
}

/// An `_id` for people.
fn shown(id: &Bson) -> String {
    let document = RawDocumentBuf::try_from(doc! { "_id": id });
    document.map_or_else(|_| id.to_string(), |document| mapping::key(&document, &["_id"]))
}

/// With which batch it was.
fn placed(mut error: StoreError, ids: &Ids<'_>) -> StoreError {
    let Ids { collection, after, upto, .. } = *ids;
    let upto = shown(upto);
    let range = match after {
        Some(after) => format!("ids after {} up to {upto} of {collection}", shown(after)),
        None => format!("ids up to {upto} of {collection}"),
    };
    error.said.detail = Some(match error.said.detail {
        Some(detail) => format!("{detail} ({range})"),
        None => range,
    });
    error
}
