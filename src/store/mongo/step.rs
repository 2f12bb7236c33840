//! Running steps in MongoDB.

use super::history::{Tried, in_transaction, write};
use super::{Mongo, check_reply, code_of, failed, failed_as};
use crate::core::history::Entry;
use crate::core::id::StoreName;
use crate::core::step::{Command, CommandTarget, MongoKind, MongoStep, Repeat};
use crate::store::{Fate, Holds, StoreError};
use bson::raw::{RawDocument, RawDocumentBuf};
use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use mongodb::Database;

const RUN: &str = "run the step";
const ASK: &str = "look at the collections";

pub(super) async fn commit(
    store: &mut Mongo,
    step: &MongoStep,
    entries: &[Entry],
) -> Result<(), StoreError> {
    let result = in_transaction(store, RUN, async |store, session| {
        for (at, command) in step.commands.iter().enumerate() {
            let body = body(store, command, Concern::Transaction).map_err(Tried::Failed)?;
            let reply = database(store, command).run_raw_command(body).session(&mut *session).await;
            let reply = reply.map_err(|error| Tried::of(RUN, &error))?;
            check_reply(RUN, &reply).map_err(|error| Tried::Failed(at_command(error, at)))?;
        }
        write(store, Some(session), entries).await
    })
    .await;
    result.map_err(advise)
}

/// A transaction that outgrew what the server allows is no accident: say what
/// to do.
fn advise(mut error: StoreError) -> StoreError {
    // NoSuchTransaction, TransactionExceededLifetimeLimitSeconds, TransactionTooLargeForCache
    let outgrown = ["code 251", "code 290", "code 388"];
    if error.said.code.as_ref().is_some_and(|code| outgrown.iter().any(|end| code.ends_with(end))) {
        error.said.hint = Some(
            "the server ends a transaction after 60 s (transactionLifetimeLimitSeconds); \
             make it a [[backfill]], which writes in batches"
                .to_owned(),
        );
    }
    error
}

fn at_command(mut error: StoreError, _at: usize) -> StoreError {
    error.said.statement = Some(0);
    error
}

fn database(store: &Mongo, command: &Command) -> Database {
    match command.on {
        CommandTarget::Database => store.database.clone(),
        CommandTarget::Admin => store.client.database("admin"),
    }
}

/// Who answers for the write concern.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Concern {
    /// The transaction; a command in it must not have one.
    Transaction,
    /// The command itself: majority, whatever the script says.
    Majority,
    /// The command does not take one.
    None,
}

/// The command as it is sent: with the run's name as a comment, by which an
/// orphan is found, and the write concern that the history needs.
fn body(store: &Mongo, command: &Command, concern: Concern) -> Result<RawDocumentBuf, StoreError> {
    let corrupt = |error: &dyn std::fmt::Display| {
        StoreError::new(StoreName::Mongo, RUN, Fate::Corrupt, error.to_string())
    };
    let raw = RawDocument::from_bytes(&command.body).map_err(|error| corrupt(&error))?;
    let mut out = RawDocumentBuf::new();
    for (at, element) in raw.iter().enumerate() {
        let (key, value) = element.map_err(|error| corrupt(&error))?;
        let key_text = key.as_str();
        if key_text == "writeConcern" && concern != Concern::None {
            continue;
        }
        // The reader leaves the database out of names that need it.
        let first = if at == 0 { key_text } else { "" };
        match value.as_str() {
            Some(name) if first == "renameCollection" || key_text == "to" && is_rename(raw) => {
                let name = format!("{}.{name}", store.database.name());
                out.append(key, name);
            }
            _ => out.append(key, value),
        }
    }
    if concern == Concern::Majority {
        let majority = bson::rawdoc! { "w": "majority", "j": true };
        out.append(bson::cstr!("writeConcern"), majority);
    }
    if raw.get("comment").ok().flatten().is_none() {
        out.append(bson::cstr!("comment"), format!("lockstep/{}", store.run_id));
    }
    Ok(out)
}

fn is_rename(raw: &RawDocument) -> bool {
    raw.iter()
        .next()
        .and_then(Result::ok)
        .is_some_and(|(key, _)| key.as_str() == "renameCollection")
}

pub(super) async fn perform(store: &mut Mongo, step: &MongoStep) -> Result<(), StoreError> {
    store.check_lease().await?;
    let concern = match step.kind {
        MongoKind::Other | MongoKind::DropDatabase => Concern::None,
        _ => Concern::Majority,
    };
    for (at, command) in step.commands.iter().enumerate() {
        let body = body(store, command, concern)?;
        let error = match database(store, command).run_raw_command(body).await {
            Ok(reply) => match check_reply(RUN, &reply) {
                Ok(()) => continue,
                Err(error) => error,
            },
            Err(error) if is_done_already(store, step, &error).await? => continue,
            Err(error) => failed_as(RUN, &error, Fate::Unknown),
        };
        return Err(at_command(without_transaction(error, step.kind), at));
    }
    Ok(())
}

/// Outside a transaction a refusal may come after a part of the work was done.
/// Where nobody can tell which part, it is in doubt.
fn without_transaction(mut error: StoreError, kind: MongoKind) -> StoreError {
    let partial =
        matches!(kind, MongoKind::Write(Repeat::Harmful) | MongoKind::Output(Repeat::Harmful));
    if partial && error.fate == Fate::Refused {
        error.fate = Fate::Unknown;
    }
    error
}

/// The documents of a step that only inserts documents with an `_id` of their
/// own, with their collections.
fn own_documents(step: &MongoStep) -> Option<Vec<(String, RawDocumentBuf)>> {
    if step.kind != MongoKind::Write(Repeat::Harmless) {
        return None;
    }
    let mut documents = Vec::new();
    for command in &step.commands {
        let raw = RawDocument::from_bytes(&command.body).ok()?;
        let collection = raw.get_str("insert").ok()?.to_owned();
        for document in raw.get_array("documents").ok()? {
            documents.push((collection.clone(), document.ok()?.as_document()?.to_owned()));
        }
    }
    Some(documents)
}

/// The document of that `_id`, as it is now.
async fn present(
    store: &Mongo,
    collection: &str,
    document: &RawDocument,
) -> Result<Option<RawDocumentBuf>, StoreError> {
    let id = document.get("_id").ok().flatten().and_then(|id| Bson::try_from(id).ok());
    let collection = store.database.collection::<RawDocumentBuf>(collection);
    let found = collection.find_one(doc! { "_id": id.unwrap_or(Bson::Null) }).await;
    found.map_err(|error| failed(ASK, &error))
}

/// mongosh's `drop()` is content when there is nothing to drop, and so is this;
/// a collection that is there with the very same options is what was asked for.
async fn is_done_already(
    store: &mut Mongo,
    step: &MongoStep,
    error: &mongodb::error::Error,
) -> Result<bool, StoreError> {
    Ok(match (step.kind, code_of(error)) {
        (MongoKind::Drop, Some(26)) => true, // NamespaceNotFound
        (MongoKind::CreateCollection | MongoKind::CreateView, Some(48)) => {
            holds(store, step).await? == Holds::Yes // NamespaceExists
        }
        _ => false,
    })
}

/// The only command of a step whose kind has just one.
fn only(step: &MongoStep) -> Result<Document, StoreError> {
    let [command] = step.commands.as_slice() else {
        unreachable!("the reader gives a step of this kind exactly one command");
    };
    RawDocument::from_bytes(&command.body)
        .and_then(Document::try_from)
        .map_err(|error| StoreError::new(StoreName::Mongo, ASK, Fate::Corrupt, error.to_string()))
}

/// The name in the command's first field.
fn subject(command: &Document) -> String {
    command.values().next().and_then(Bson::as_str).unwrap_or_default().to_owned()
}

/// What `listCollections` says of a name.
async fn collection(store: &Mongo, name: &str) -> Result<Option<Document>, StoreError> {
    let list = doc! { "listCollections": 1, "filter": { "name": name } };
    let reply =
        store.database.run_cursor_command(list).await.map_err(|error| failed(ASK, &error))?;
    let found: Vec<Document> = reply.try_collect().await.map_err(|error| failed(ASK, &error))?;
    Ok(found.into_iter().next())
}

/// What `listIndexes` says; nothing when there is no such collection.
async fn indexes(store: &Mongo, collection: &str) -> Result<Vec<Document>, StoreError> {
    let list = doc! { "listIndexes": collection };
    match store.database.run_cursor_command(list).await {
        Ok(cursor) => cursor.try_collect().await.map_err(|error| failed(ASK, &error)),
        Err(error) if code_of(&error) == Some(26) => Ok(Vec::new()), // NamespaceNotFound
        Err(error) => Err(failed(ASK, &error)),
    }
}

pub(super) async fn holds(store: &mut Mongo, step: &MongoStep) -> Result<Holds, StoreError> {
    let yes = |there: bool| if there { Holds::Yes } else { Holds::No };
    match step.kind {
        MongoKind::Nothing => Ok(Holds::Yes),
        MongoKind::CreateCollection | MongoKind::CreateView => {
            let command = only(step)?;
            let found = collection(store, &subject(&command)).await?;
            Ok(yes(found.is_some_and(|found| is_made_by(&found, &command))))
        }
        MongoKind::CollMod => {
            let command = only(step)?;
            let found = collection(store, &subject(&command)).await?;
            // Options of an index are not among those of its collection. Setting
            // them again sets them to the same.
            let plain = !command.contains_key("index");
            Ok(yes(plain && found.is_some_and(|found| has_options(&found, &command))))
        }
        // An index that is being built is listed too. Asking for it again waits
        // for the build, and does nothing when it is there.
        MongoKind::CreateIndexes => {
            let command = only(step)?;
            let there = indexes(store, &subject(&command)).await?;
            let name = |index: &Document| index.get_str("name").map(str::to_owned).ok();
            let mut wanted = command.get_array("indexes").ok().into_iter().flatten();
            let is_listed = wanted.any(|wanted| {
                let wanted = wanted.as_document().and_then(name);
                there.iter().any(|index| name(index) == wanted)
            });
            Ok(if is_listed { Holds::Listed } else { Holds::No })
        }
        MongoKind::DropIndexes => {
            let command = only(step)?;
            let there = indexes(store, &subject(&command)).await?;
            Ok(yes(there.iter().all(|index| !is_dropped_by(index, command.get("index")))))
        }
        MongoKind::Drop => Ok(yes(collection(store, &subject(&only(step)?)).await?.is_none())),
        MongoKind::Rename => {
            let command = only(step)?;
            let to = command.get_str("to").unwrap_or_default().to_owned();
            let source = collection(store, &subject(&command)).await?;
            Ok(yes(source.is_none() && collection(store, &to).await?.is_some()))
        }
        MongoKind::Write(Repeat::Harmless) => {
            let Some(documents) = own_documents(step) else { return Ok(Holds::No) };
            for (collection, document) in documents {
                if present(store, &collection, &document).await?.as_ref() != Some(&document) {
                    return Ok(Holds::No);
                }
            }
            Ok(Holds::Yes)
        }
        MongoKind::Output(Repeat::Harmless) => Ok(Holds::No),
        MongoKind::Write(Repeat::Harmful)
        | MongoKind::Output(Repeat::Harmful)
        | MongoKind::DropDatabase
        | MongoKind::Other => Ok(Holds::Ask),
    }
}

/// Whether an index is one of those that `dropIndexes` names.
fn is_dropped_by(index: &Document, named: Option<&Bson>) -> bool {
    let name = index.get_str("name").unwrap_or_default();
    match named {
        Some(Bson::String(all)) if all == "*" => name != "_id_",
        Some(Bson::String(one)) => name == one,
        Some(Bson::Array(many)) => many.iter().any(|one| one.as_str() == Some(name)),
        Some(Bson::Document(key)) => index
            .get_document("key")
            .is_ok_and(|its| same(&its.clone().into(), &key.clone().into())),
        _ => false,
    }
}

/// Whether an index is the one that is asked for.
fn is_this_index(found: &Document, wanted: &Document) -> bool {
    const OPTIONS: [&str; 4] =
        ["unique", "sparse", "partialFilterExpression", "expireAfterSeconds"];
    let given = |index: &Document, option: &str| {
        index.get(option).filter(|value| **value != Bson::Boolean(false)).cloned()
    };
    let same_options =
        OPTIONS.iter().all(|option| match (given(found, option), given(wanted, option)) {
            (None, None) => true,
            (Some(is), Some(wanted)) => same(&is, &wanted),
            (None, Some(_)) | (Some(_), None) => false,
        });
    same_options && has_key(found, wanted)
}

/// Whether an index is on these keys. A text index is listed with its fields as
/// weights.
fn has_key(found: &Document, wanted: &Document) -> bool {
    let (Some(is), Some(key)) = (found.get("key"), wanted.get("key")) else { return false };
    let (Some(its), Some(fields)) = (is.as_document(), key.as_document()) else { return false };
    if !its.contains_key("_fts") {
        return same(is, key);
    }
    let text = fields.iter().filter(|(_, kind)| kind.as_str() == Some("text"));
    let mut text: Vec<&str> = text.map(|(field, _)| field.as_str()).collect();
    let weights = found.get_document("weights").into_iter().flat_map(Document::keys);
    let mut weights: Vec<&str> = weights.map(String::as_str).collect();
    text.sort_unstable();
    weights.sort_unstable();
    text == weights
}

/// Whether a collection or a view is what `create` would make: it has every option
/// that is asked for, and no other.
fn is_made_by(found: &Document, command: &Document) -> bool {
    let is_view = found.get_str("type").is_ok_and(|kind| kind == "view");
    let is_plain = |key: &str, value: &Bson| match (key, value) {
        // What the server writes down by itself.
        ("validationLevel", level) => level.as_str() == Some("strict"),
        ("validationAction", action) => action.as_str() == Some("error"),
        (_, Bson::Null | Bson::Boolean(false)) => true,
        (_, Bson::Document(options)) => {
            options.is_empty() || options.get_bool("enabled").is_ok_and(|enabled| !enabled)
        }
        _ => false,
    };
    let others = found.get_document("options").into_iter().flatten();
    is_view == command.contains_key("viewOn")
        && has_options(found, command)
        && others
            .filter(|(key, _)| !command.contains_key(key.as_str()))
            .all(|(key, value)| is_plain(key, value))
}

/// Whether a collection has every option that a command asks for. The server
/// adds defaults of its own, and `size` is rounded up.
fn has_options(found: &Document, command: &Document) -> bool {
    const NOT_OPTIONS: [&str; 4] = ["comment", "writeConcern", "$db", "lsid"];
    let empty = Document::new();
    let options = found.get_document("options").unwrap_or(&empty);
    command.iter().skip(1).filter(|(key, _)| !NOT_OPTIONS.contains(&key.as_str())).all(
        |(key, wanted)| match (key.as_str(), options.get(key)) {
            ("size", Some(is)) => {
                number(is).zip(number(wanted)).is_some_and(|(is, wanted)| is >= wanted)
            }
            ("validator", None) => wanted.as_document().is_some_and(Document::is_empty),
            ("validationLevel", None) => wanted.as_str() == Some("strict"),
            ("validationAction", None) => wanted.as_str() == Some("error"),
            ("capped", None) => wanted.as_bool() == Some(false),
            // Whole: a validator with a rule more is another one.
            ("validator" | "pipeline", Some(is)) => same(is, wanted),
            (_, Some(is)) => covers(is, wanted),
            (_, None) => false,
        },
    )
}

/// Whether `is` has all that `wanted` has, in documents of any depth.
fn covers(is: &Bson, wanted: &Bson) -> bool {
    match (is, wanted) {
        (Bson::Document(is), Bson::Document(wanted)) => {
            wanted.iter().all(|(key, wanted)| is.get(key).is_some_and(|is| covers(is, wanted)))
        }
        (is, wanted) => same(is, wanted),
    }
}

/// Equal, whatever type a number was stored in.
fn same(a: &Bson, b: &Bson) -> bool {
    match (a, b) {
        (Bson::Document(a), Bson::Document(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((k, a), (l, b))| k == l && same(a, b))
        }
        (Bson::Array(a), Bson::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (a, b) => match (number(a), number(b)) {
            (Some(a), Some(b)) => a.total_cmp(&b).is_eq(),
            _ => a == b,
        },
    }
}

fn number(value: &Bson) -> Option<f64> {
    match value {
        Bson::Int32(number) => Some(f64::from(*number)),
        #[expect(clippy::cast_precision_loss, reason = "sizes and orders are small")]
        Bson::Int64(number) => Some(*number as f64),
        Bson::Double(number) => Some(*number),
        _ => None,
    }
}

pub(super) async fn obstacle(
    store: &mut Mongo,
    step: &MongoStep,
) -> Result<Option<String>, StoreError> {
    match step.kind {
        MongoKind::CreateCollection | MongoKind::CreateView => {
            let command = only(step)?;
            let name = subject(&command);
            let found = collection(store, &name).await?;
            let other = found.filter(|found| !is_made_by(found, &command));
            Ok(other.map(|found| {
                let what = found.get_str("type").unwrap_or("collection");
                format!("a {what} `{name}` is already there, and is not what this step would make")
            }))
        }
        MongoKind::CreateIndexes => {
            let command = only(step)?;
            let there = indexes(store, &subject(&command)).await?;
            let wanted = command.get_array("indexes").ok().into_iter().flatten();
            let taken = wanted.filter_map(Bson::as_document).find_map(|wanted| {
                let name = wanted.get_str("name").ok()?;
                let found = there.iter().find(|index| index.get_str("name").ok() == Some(name))?;
                (!is_this_index(found, wanted)).then(|| name.to_owned())
            });
            Ok(taken.map(|name| {
                format!("an index `{name}` is already there, on other keys or with other options")
            }))
        }
        MongoKind::Rename => {
            let command = only(step)?;
            let to = command.get_str("to").unwrap_or_default().to_owned();
            if command.get_bool("dropTarget").unwrap_or(false) {
                return Ok(None);
            }
            let taken = collection(store, &to).await?.is_some();
            Ok(taken.then(|| format!("a collection `{to}` is already there")))
        }
        // Where the server has transactions, the documents are inserted with
        // their record, and a taken `_id` fails the insert.
        MongoKind::Write(_) if !store.has_transactions() => {
            for (collection, document) in own_documents(step).unwrap_or_default() {
                if present(store, &collection, &document).await?.is_some() {
                    let id =
                        document.get("_id").ok().flatten().and_then(|id| Bson::try_from(id).ok());
                    let id = id.unwrap_or(Bson::Null).into_relaxed_extjson();
                    return Ok(Some(format!(
                        "a document with _id {id} is already in `{collection}`"
                    )));
                }
            }
            Ok(None)
        }
        MongoKind::Write(_)
        | MongoKind::CollMod
        | MongoKind::DropIndexes
        | MongoKind::Drop
        | MongoKind::Output(_)
        | MongoKind::DropDatabase
        | MongoKind::Other
        | MongoKind::Nothing => Ok(None),
    }
}

/// Nothing that MongoDB does to collections and indexes is left half done under
/// its final name: a build that died is joined or begun again by the next
/// `createIndexes`. Of documents that were inserted without a transaction, those
/// that are still as this step inserted them go; their `_id`s were free before.
pub(super) async fn clear(store: &mut Mongo, step: &MongoStep) -> Result<(), StoreError> {
    const CLEAR: &str = "clear what the interrupted step left";
    if store.has_transactions() {
        return Ok(());
    }
    store.check_lease().await?;
    for (collection, document) in own_documents(step).unwrap_or_default() {
        if present(store, &collection, &document).await?.as_ref() == Some(&document) {
            let id = document.get("_id").ok().flatten().and_then(|id| Bson::try_from(id).ok());
            let collection = store.database.collection::<Document>(&collection);
            let removed = collection.delete_one(doc! { "_id": id.unwrap_or(Bson::Null) }).await;
            removed.map_err(|error| failed(CLEAR, &error))?;
        }
    }
    Ok(())
}
