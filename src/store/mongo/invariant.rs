//! Asking MongoDB for one value, and for documents that offend. It is read with
//! majority read concern from the primary, as everything here is.

use super::{Mongo, failed};
use crate::core::expectation::{clip, show};
use crate::core::id::StoreName;
use crate::core::parse::manifest::{MongoAnswer, MongoSource};
use crate::core::step::Timeouts;
use crate::store::invariant::{Invariants, SAMPLE_MAX};
use crate::store::{Fate, Said, StoreError};
use bson::{Bson, Document, doc};
use futures_util::TryStreamExt as _;

const ASK: &str = "check the invariant";

impl Invariants for Mongo {
    type Question = MongoAnswer;
    type Rows = MongoSource;

    async fn value(
        &mut self,
        question: &MongoAnswer,
        timeouts: Timeouts,
    ) -> Result<Bson, StoreError> {
        let (collection, mut stages) = match question {
            MongoAnswer::Count { collection, filter } => {
                (collection, vec![doc! { "$match": filter.clone() }, doc! { "$count": "n" }])
            }
            MongoAnswer::Pipeline { collection, pipeline } => (collection, pipeline.clone()),
        };
        let of_nothing = of_nothing(&stages);
        // One document beside the only one is enough to know that there are several.
        stages.push(doc! { "$limit": 2 });
        let found = ask(self, collection, stages, timeouts).await?;
        match found.as_slice() {
            [] => Ok(of_nothing),
            [document] => only(document),
            _ => Err(refused(
                "the pipeline gives more than one document",
                "end it in one value: `{ $count: 'n' }`",
            )),
        }
    }

    async fn rows(
        &mut self,
        question: &MongoSource,
        timeouts: Timeouts,
    ) -> Result<Vec<String>, StoreError> {
        let mut stages = vec![doc! { "$match": question.find.clone() }];
        stages.extend(question.pipeline.iter().cloned());
        stages.push(doc! { "$limit": i32::from(SAMPLE_MAX) });
        let found = ask(self, &question.collection, stages, timeouts).await?;
        Ok(found.iter().map(line).collect())
    }
}

async fn ask(
    store: &Mongo,
    collection: &str,
    stages: Vec<Document>,
    timeouts: Timeouts,
) -> Result<Vec<Document>, StoreError> {
    let writes =
        stages.iter().flat_map(Document::keys).find(|key| *key == "$out" || *key == "$merge");
    if let Some(stage) = writes {
        let message = format!("the pipeline has a `{stage}`, which writes");
        return Err(refused(&message, "an invariant only reads: leave that stage out"));
    }
    let collection = store.database.collection::<Document>(collection);
    let comment = Bson::String(format!("lockstep/{}", store.run_id));
    let mut aggregate = collection.aggregate(stages).allow_disk_use(true).comment(comment);
    if let Some(limit) = timeouts.statement {
        aggregate = aggregate.max_time(limit);
    }
    let cursor = aggregate.await.map_err(|error| failed(ASK, &error))?;
    cursor.try_collect().await.map_err(|error| failed(ASK, &error))
}

/// What an aggregation means that has no document for an answer: counting or
/// adding up nothing gives nothing, where SQL gives 0.
fn of_nothing(stages: &[Document]) -> Bson {
    let last = stages.last().and_then(|stage| stage.iter().next());
    let counts = match last {
        Some((stage, _)) if stage == "$count" => true,
        Some((stage, Bson::Document(group))) if stage == "$group" => {
            group.iter().filter(|(key, _)| *key != "_id").all(|(_, value)| {
                let operator = value.as_document().and_then(|value| value.keys().next());
                operator.is_some_and(|operator| operator == "$sum" || operator == "$count")
            })
        }
        _ => false,
    };
    if counts { Bson::Int32(0) } else { Bson::Null }
}

/// The only value of the only document; the `_id` that `$group` gives it is none,
/// unless there is no other.
fn only(document: &Document) -> Result<Bson, StoreError> {
    let others: Vec<&Bson> =
        document.iter().filter(|(key, _)| *key != "_id").map(|(_, value)| value).collect();
    match (others.as_slice(), document.get("_id")) {
        ([value], _) => Ok((*value).clone()),
        ([], Some(id)) => Ok(id.clone()),
        ([], None) => Ok(Bson::Null),
        (several, _) => Err(refused(
            &format!("the pipeline gives a document of {} values", several.len()),
            "end it in one value: `{ $count: 'n' }`, or `$project` all others away",
        )),
    }
}

fn refused(message: &str, hint: &str) -> StoreError {
    let error = StoreError::new(StoreName::Mongo, ASK, Fate::Refused, message);
    let said = Said { hint: Some(hint.to_owned()), ..error.said };
    StoreError { said, ..error }
}

/// A document on one line: `_id = 7, role = NULL`.
fn line(document: &Document) -> String {
    let parts = document.iter().map(|(name, value)| format!("{name} = {}", show(value)));
    clip(&parts.collect::<Vec<_>>().join(", "))
}
