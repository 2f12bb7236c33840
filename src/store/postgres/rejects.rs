//! Rows that are put aside, in Postgres.

use super::compare::place;
use super::history::unless_undefined;
use super::{Postgres, failed};
use crate::failpoint::reach;
use crate::store::StoreError;
use crate::store::backfill::Job;
use crate::store::copy::BadRow;
use crate::store::rejects::{check, shown};
use serde_json::{Value, json};
use tokio_postgres::types::{ToSql, Type};

const REJECT: &str = "put rows aside";

/// The rows of a job: `$1` is the version, `$2` the step, `$3` the attempt.
const OF_JOB: &str = "version = $1 AND step = $2 AND attempt = $3";

/// Records rows that are not written, in the transaction that is open. Those of one
/// backfill are counted one transaction after the other, whichever process writes.
pub(super) async fn put_aside(
    store: &Postgres,
    job: Job<'_>,
    shard: u32,
    bad: &[BadRow],
) -> Result<(), StoreError> {
    if bad.is_empty() {
        return Ok(());
    }
    let (version, step, attempt) = place(job.record);
    let lost = |error: tokio_postgres::Error| failed(REJECT, &error);
    let alone = "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended($1, $2))";
    let turn: [(&(dyn ToSql + Sync), Type); 2] = [(&step, Type::TEXT), (&version, Type::INT8)];
    store.client.query_typed(alone, &turn).await.map_err(lost)?;
    let table = store.table("migration_rejects");
    let params: [(&(dyn ToSql + Sync), Type); 3] =
        [(&version, Type::INT8), (&step, Type::TEXT), (&attempt, Type::INT4)];
    let count = format!(
        "SELECT pg_catalog.count(*), coalesce(pg_catalog.max(number), 0) FROM {table} WHERE {OF_JOB}"
    );
    let counted = store.client.query_typed(&count, &params).await.map_err(lost)?;
    let (aside, last): (i64, i64) = counted.first().map_or((0, 0), |row| (row.get(0), row.get(1)));
    check(job, REJECT, u64::try_from(aside).unwrap_or(0), bad)?;
    // Postgres has no text with U+0000.
    let text = |text: &str| text.replace('\0', "\u{fffd}");
    let rows: Vec<Value> = bad
        .iter()
        .zip(last + 1..)
        .map(|(BadRow { key, row, reason }, number)| {
            json!({
                "number": number, "key": text(key), "row": text(&shown(row)),
                "reason": text(reason),
            })
        })
        .collect();
    let rows = Value::from(rows).to_string();
    let insert = format!(
        "INSERT INTO {table} (version, step, attempt, number, shard, key, \"row\", reason, run_id) \
         SELECT $1, $2, $3, number, $5, key, \"row\", reason, $6 \
         FROM pg_catalog.json_to_recordset($4::text::json) \
         AS r (number bigint, key text, \"row\" text, reason text)"
    );
    let shard = i32::try_from(shard).unwrap_or(i32::MAX);
    let params: [(&(dyn ToSql + Sync), Type); 6] = [
        (&version, Type::INT8),
        (&step, Type::TEXT),
        (&attempt, Type::INT4),
        (&rows, Type::TEXT),
        (&shard, Type::INT4),
        (&store.run_id, Type::TEXT),
    ];
    store.client.execute_typed(&insert, &params).await.map_err(lost)?;
    reach("rows that are put aside in Postgres");
    Ok(())
}

/// How many were put aside.
pub(super) async fn count(store: &mut Postgres, job: Job<'_>) -> Result<u64, StoreError> {
    let sql = format!(
        "SELECT pg_catalog.count(*) FROM {} WHERE {OF_JOB}",
        store.table("migration_rejects")
    );
    let (version, step, attempt) = place(job.record);
    let params: [(&(dyn ToSql + Sync), Type); 3] =
        [(&version, Type::INT8), (&step, Type::TEXT), (&attempt, Type::INT4)];
    let client = store.session().await?;
    let rows = unless_undefined(client.query_typed(&sql, &params).await)?.unwrap_or_default();
    let count: i64 = rows.first().map_or(0, |row| row.get(0));
    Ok(u64::try_from(count).unwrap_or(0))
}
