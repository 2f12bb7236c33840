//! The history of another tool, read as it is. Nothing of it is ever written.

use super::{Mongo, failed};
use crate::store::StoreError;
use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use serde_json::Value;

const READ: &str = "read the history of another tool";

impl Mongo {
    /// The documents of a collection of another tool, as Extended JSON; `None` if there
    /// is no such collection.
    ///
    /// # Errors
    /// The collection cannot be read.
    pub async fn foreign_rows(&mut self, name: &str) -> Result<Option<Vec<Value>>, StoreError> {
        let names = self.database.list_collection_names().filter(doc! { "name": name }).await;
        if names.map_err(|error| failed(READ, &error))?.is_empty() {
            return Ok(None);
        }
        let collection = self.database.collection::<Document>(name);
        let documents: Result<Vec<Document>, _> =
            async { collection.find(doc! {}).await?.try_collect().await }.await;
        let documents = documents.map_err(|error| failed(READ, &error))?;
        let json = |document| Bson::Document(document).into_relaxed_extjson();
        Ok(Some(documents.into_iter().map(json).collect()))
    }
}
