//! The history of another tool, read as it is. Nothing of it is ever written.

use super::{Postgres, failed, quote};
use crate::store::StoreError;
use serde_json::Value;
use tokio_postgres::types::Type;

const READ: &str = "read the history of another tool";

impl Postgres {
    /// The rows of a table of another tool; `None` if there is no such table. `table`
    /// may have a schema in front; else it is looked for where scripts look.
    ///
    /// # Errors
    /// The table cannot be read.
    pub async fn foreign_rows(&mut self, table: &str) -> Result<Option<Vec<Value>>, StoreError> {
        let name = match (table.split_once('.'), &self.config.schema) {
            (Some((schema, table)), _) => format!("{}.{}", quote(schema), quote(table)),
            (None, Some(schema)) => format!("{}.{}", quote(schema), quote(table)),
            (None, None) => quote(table),
        };
        let client = self.session().await?;
        let exists = "SELECT pg_catalog.to_regclass($1) IS NOT NULL";
        let exists = client.query_typed(exists, &[(&name, Type::TEXT)]).await;
        let exists = exists.map_err(|error| failed(READ, &error))?;
        if !exists.first().is_some_and(|row| row.get(0)) {
            return Ok(None);
        }
        let rows = format!("SELECT pg_catalog.row_to_json(t)::text FROM {name} AS t");
        let rows = client.query_typed(&rows, &[]).await.map_err(|error| failed(READ, &error))?;
        let rows = rows.iter().map(|row| serde_json::from_str(row.get(0)).unwrap_or(Value::Null));
        Ok(Some(rows.collect()))
    }
}
