//! Finding out what a backfill would go through, and cutting it into ranges.

use super::backfill::{begin_reading, begin_writing, not_here, route, statement};
use super::explain::{is_bounded, nodes};
use super::key::{Table, TableKey, find_table, leaves, refused};
use super::step::{clean, quoted};
use super::{Postgres, failed};
use crate::core::backfill::{Key, Shard, Survey};
use crate::core::id::StoreName;
use crate::core::parse::manifest::Work;
use crate::core::parse::sql::assigned;
use crate::store::backfill::Job;
use crate::store::{Fate, StoreError};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokio_postgres::error::SqlState;

const SURVEY: &str = "look at what is to be rewritten";
const ESTIMATE: &str = "estimate how many rows are to be rewritten";

/// A table that is not larger than this may be read as a whole: 2.3 MB.
const SMALL_PAGES: i64 = 300;

/// So many pages of a larger table are looked at to cut it into ranges.
const SAMPLE_PAGES: i64 = 400;

/// What appeared since is counted, but no further than this; less is one range.
const COUNT_LIMIT: i64 = 10_000;

/// The batch with which the statement is tried.
const TRIED_ROWS: u64 = 1_000;

pub(super) async fn survey(
    store: &mut Postgres,
    job: Job<'_>,
    shards: usize,
    past: &[Shard],
) -> Result<Survey, StoreError> {
    let name = match job.work {
        Work::Update { table, .. } | Work::Sql { table, .. } | Work::Call { table, .. } => table,
        Work::Documents { .. } | Work::CopyToMongo { .. } | Work::CopyToPostgres { .. } => {
            return Err(not_here(SURVEY));
        }
    };
    clean(store).await?;
    // The schema may have changed since it was looked at for the plan.
    store.routes.retain(|(step, _), _| *step != job.record.step);
    store.open = true;
    let begun = store.client.batch_execute(&begin_reading(store, job, None)).await;
    begun.map_err(|error| failed(SURVEY, &error))?;
    let found = look(store, job, &quoted(name), &name.to_string(), shards, past).await;
    // Statistics that were made are worth keeping.
    let end = if found.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = store.client.batch_execute(end).await;
    store.open = false;
    let survey = found?;
    ended.map_err(|error| failed(SURVEY, &error))?;
    Ok(survey)
}

/// What the statistics say; where there are none, what the server's own planner
/// makes of the table's size.
pub(super) async fn estimate(
    store: &mut Postgres,
    job: Job<'_>,
) -> Result<Option<u64>, StoreError> {
    let (Work::Update { table: name, .. }
    | Work::Sql { table: name, .. }
    | Work::Call { table: name, .. }) = job.work
    else {
        return Ok(None);
    };
    clean(store).await?;
    store.open = true;
    let begun = store.client.batch_execute(&begin_reading(store, job, None)).await;
    begun.map_err(|error| failed(ESTIMATE, &error))?;
    let found = expected(store, &quoted(name)).await;
    let ended = store.client.batch_execute("ROLLBACK").await;
    store.open = false;
    let rows = found?;
    ended.map_err(|error| failed(ESTIMATE, &error))?;
    Ok(rows)
}

async fn expected(store: &Postgres, name: &str) -> Result<Option<u64>, StoreError> {
    let Some(table) = find_table(store, name).await? else { return Ok(None) };
    if table.kind == 'r' && table.rows > 0.0 {
        return Ok(Some(whole(table.rows)));
    }
    let explain = format!("EXPLAIN (FORMAT JSON) SELECT FROM {}", table.quoted());
    let rows = store.client.query_typed(&explain, &[]).await;
    let rows = rows.map_err(|error| failed(ESTIMATE, &error))?;
    let plan = rows.first().and_then(|row| row.try_get::<_, Value>(0).ok());
    Ok(plan.and_then(|plan| plan[0]["Plan"]["Plan Rows"].as_u64()))
}

async fn look(
    store: &mut Postgres,
    job: Job<'_>,
    quoted: &str,
    name: &str,
    shards: usize,
    past: &[Shard],
) -> Result<Survey, StoreError> {
    let Some(root) = find_table(store, quoted).await? else {
        return Err(refused(
            format!("there is no table {name}"),
            "create it before the backfill, or name its schema too",
        ));
    };
    let mut parts = vec![root.clone()];
    if root.kind == 'p' {
        parts = leaves(store, &root).await?;
    }
    for table in parts.iter().chain([&root]) {
        refuse_what_is_no_table(table)?;
    }
    measure(store, &mut parts).await?;
    let estimate: f64 = parts.iter().map(|table| table.rows.max(0.0)).sum();
    let ranges = match job.work {
        // Statements that somebody wrote name the table as a whole.
        Work::Sql { .. } | Work::Call { .. } => vec![Table {
            pages: parts.iter().map(|table| table.pages).sum(),
            rows: estimate,
            ..root.clone()
        }],
        _ => parts.clone(),
    };

    let mut survey = Survey { key: String::new(), estimate: whole(estimate), shards: Vec::new() };
    let round = past.iter().map(|shard| shard.round + 1).max().unwrap_or(0);
    let last = past.iter().map(|shard| shard.index).max().unwrap_or(0);
    // Of each table, the end of the range that was cut last.
    let ends: BTreeMap<&str, &Shard> =
        past.iter().map(|shard| (shard.table.as_str(), shard)).collect();
    if !past.is_empty() {
        survey.estimate = 0;
    }
    for table in &ranges {
        let quoted = table.quoted();
        let last_of_it = ends.get(quoted.as_str()).copied();
        let route = route(store, job, &quoted, last_of_it).await?;
        let key = &route.key;
        refuse_what_moves_keys(job.work, table, key)?;
        if survey.key.is_empty() {
            survey.key = key.shown();
        }
        let ground = Ground { store, table, key };
        let after = last_of_it.map(|shard| key.parse(&shard.upto)).transpose()?;
        let Some(upto) = ground.last(after.as_deref()).await? else { continue };
        let rows = match after.is_some() {
            true => ground.count(after.as_deref()).await?,
            false => whole(table.rows),
        };
        if !past.is_empty() {
            survey.estimate += rows;
        }
        let pieces = if after.is_some() && rows < COUNT_LIMIT.unsigned_abs() {
            1
        } else {
            share(shards, table.rows, estimate)
        };
        let mut ends = match pieces {
            1 => Vec::new(),
            pieces => ground.cut(after.as_deref(), &upto, pieces).await?,
        };
        ends.push(upto);
        if table.pages > SMALL_PAGES || survey.shards.is_empty() {
            ground.try_out(job, after.as_deref(), ends.first().map_or(&[], Vec::as_slice)).await?;
        }
        let share = rows / u64::try_from(ends.len()).unwrap_or(1);
        let mut after = after;
        for end in ends {
            let index = last + u32::try_from(survey.shards.len()).unwrap_or(u32::MAX) + 1;
            survey.shards.push(Shard {
                index,
                round,
                table: table.quoted(),
                after: after.map(|after| Key(json!(after))),
                upto: Key(json!(end)),
                estimate: share,
                passed: 0,
                rows: 0,
                done: false,
                claimed: false,
            });
            after = Some(end);
        }
    }
    Ok(survey)
}

/// A row whose key is changed may land above the cursor, or above the end of the
/// range, and be rewritten again: for ever, if each time moves it.
fn refuse_what_moves_keys(work: &Work, table: &Table, key: &TableKey) -> Result<(), StoreError> {
    let assigned = match work {
        Work::Update { set, .. } => assigned::of_set(set),
        Work::Sql { sql, table, .. } => assigned::of_statement(sql, table),
        // What a function assigns, nobody can see.
        Work::Call { .. }
        | Work::Documents { .. }
        | Work::CopyToMongo { .. }
        | Work::CopyToPostgres { .. } => Vec::new(),
    };
    match key.names().into_iter().find(|column| assigned.contains(column)) {
        None => Ok(()),
        Some(column) => Err(refused(
            format!(
                "the backfill changes {column}, and goes through {} by the key {}: a row that \
                 moves may be rewritten twice",
                table.shown(),
                key.shown()
            ),
            "go along a unique index on other columns that are NOT NULL, and name them with \
             `key = \"…\"`; or fill a new column, and make it the key in `cleanup`",
        )),
    }
}

fn refuse_what_is_no_table(table: &Table) -> Result<(), StoreError> {
    let shown = table.shown();
    let what = match table.kind {
        'r' if table.has_children => {
            return Err(refused(
                format!("other tables inherit from {shown}, and they are no partitions of it"),
                "write a backfill for each of these tables, by its own name, after \
                 `ALTER TABLE … NO INHERIT`, or turn them into partitions",
            ));
        }
        'r' | 'p' => return Ok(()),
        'f' => "a foreign table",
        'v' => "a view",
        'm' => "a materialized view",
        _ => "no table",
    };
    Err(refused(
        format!("{shown} is {what}: its rows cannot be rewritten batch by batch"),
        "name the table that has the rows",
    ))
}

/// Makes statistics where there are none: a plan without them is a guess.
async fn measure(store: &Postgres, tables: &mut [Table]) -> Result<(), StoreError> {
    for table in tables {
        let unknown = table.rows < 0.0 || table.rows == 0.0 && table.pages > 0;
        if !unknown {
            continue;
        }
        // Who may not, or does not get the lock, goes on without.
        let analyze = format!("SAVEPOINT statistics; ANALYZE {}", table.quoted());
        let end = match store.client.batch_execute(&analyze).await {
            Ok(()) => "RELEASE SAVEPOINT statistics",
            Err(_) => "ROLLBACK TO SAVEPOINT statistics",
        };
        let ended = store.client.batch_execute(end).await;
        ended.map_err(|error| failed(SURVEY, &error))?;
        if let Some(measured) = find_table(store, &table.quoted()).await? {
            *table = measured;
        }
    }
    Ok(())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a guess")]
fn whole(rows: f64) -> u64 {
    rows.max(0.0).round() as u64
}

/// How many of the ranges are of a table that has so many of all rows.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share, rounded"
)]
fn share(shards: usize, rows: f64, all: f64) -> usize {
    let share = if all > 0.0 { rows.max(0.0) / all } else { 1.0 };
    ((shards as f64 * share).round() as usize).clamp(1, shards.max(1))
}

/// A table and the key along which it is gone through.
struct Ground<'a> {
    store: &'a Postgres,
    table: &'a Table,
    key: &'a TableKey,
}

impl Ground<'_> {
    fn from(&self, sample: &str) -> String {
        let only = if self.table.kind == 'p' { "" } else { "ONLY " };
        format!("FROM {only}{} AS k{sample}", self.table.quoted())
    }

    async fn keys(
        &self,
        sql: &str,
        range: &super::key::Range,
    ) -> Result<Vec<Vec<String>>, StoreError> {
        let rows = self.store.client.query_typed(sql, &range.typed()).await;
        let rows = rows.map_err(|error| failed(SURVEY, &error))?;
        Ok(rows.iter().map(|row| self.key.read(row)).collect())
    }

    /// The highest key above one.
    async fn last(&self, after: Option<&[String]>) -> Result<Option<Vec<String>>, StoreError> {
        let range = self.key.range("k.", after, None);
        let sql = format!(
            "SELECT {} {} WHERE {} ORDER BY {} LIMIT 1",
            self.key.texts("k."),
            self.from(""),
            range.sql,
            self.key.order("k.", "DESC")
        );
        Ok(self.keys(&sql, &range).await?.pop())
    }

    /// How many rows there are above a key, if they are not many.
    async fn count(&self, after: Option<&[String]>) -> Result<u64, StoreError> {
        let range = self.key.range("k.", after, None);
        let sql = format!(
            "SELECT pg_catalog.count(*) FROM (SELECT 1 {} WHERE {} LIMIT {COUNT_LIMIT}) AS few",
            self.from(""),
            range.sql
        );
        let rows = self.store.client.query_typed(&sql, &range.typed()).await;
        let rows = rows.map_err(|error| failed(SURVEY, &error))?;
        let count: i64 = rows.first().map_or(0, |row| row.get(0));
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// The ends of all pieces but the last, of about equal size: of a large table
    /// by a sample of its pages.
    async fn cut(
        &self,
        after: Option<&[String]>,
        upto: &[String],
        pieces: usize,
    ) -> Result<Vec<Vec<String>>, StoreError> {
        let sample = match self.table.pages {
            pages if pages <= SAMPLE_PAGES * 2 => String::new(),
            pages => format!(" TABLESAMPLE SYSTEM ({SAMPLE_PAGES} * 100.0 / {pages})"),
        };
        let range = self.key.range("k.", after, Some(upto));
        let sql = format!(
            "SELECT {texts} FROM (SELECT {columns}, \"#piece\", pg_catalog.row_number() \
             OVER (PARTITION BY \"#piece\" ORDER BY {backwards}) AS \"#from end\" \
             FROM (SELECT {columns}, pg_catalog.ntile({pieces}) OVER (ORDER BY {order}) \
             AS \"#piece\" {from} WHERE {within}) AS k) AS k \
             WHERE \"#from end\" = 1 AND \"#piece\" < {pieces} ORDER BY \"#piece\"",
            texts = self.key.texts("k."),
            columns = self.key.columns("k."),
            backwards = self.key.order("k.", "DESC"),
            order = self.key.order("k.", ""),
            from = self.from(&sample),
            within = range.sql,
        );
        let mut ends = self.keys(&sql, &range).await?;
        ends.retain(|end| end != upto);
        Ok(ends)
    }

    /// Asks how the statement of a batch would be carried out, and refuses one that
    /// would read the whole table each time.
    async fn try_out(
        &self,
        job: Job<'_>,
        after: Option<&[String]>,
        upto: &[String],
    ) -> Result<(), StoreError> {
        let ahead = self.key.range("k.", after, Some(upto));
        let bound = format!(
            "SELECT {} {} WHERE {} ORDER BY {} OFFSET {} LIMIT 1",
            self.key.texts("k."),
            self.from(""),
            ahead.sql,
            self.key.order("k.", ""),
            TRIED_ROWS - 1
        );
        let bound = self.keys(&bound, &ahead).await?.pop();
        let upto = bound.as_deref().unwrap_or(upto);
        let (table, name) = (self.table.quoted(), &self.table.name);
        let (sql, range) = statement(job.work, &table, name, self.key, after, upto)?;
        // The session as it is in a batch; but where there is a way along an index,
        // however dear it seems, it is not the statement that reads all of the table.
        let writing =
            format!("SAVEPOINT tried; {}; SET LOCAL enable_seqscan = off", begin_writing(None));
        let explain = format!("EXPLAIN (VERBOSE, FORMAT JSON) {sql}");
        let typed = range.typed();
        let (set, plan) = futures_util::future::join(
            self.store.client.batch_execute(&writing),
            self.store.client.query_typed(&explain, &typed),
        )
        .await;
        set.map_err(|error| failed(SURVEY, &error))?;
        let plan = plan.map_err(|error| {
            let mut failure = failed(SURVEY, &error);
            failure.said.position = None;
            if error.code() == Some(&SqlState::AMBIGUOUS_COLUMN) {
                failure.said.hint = Some(
                    "`{batch}` names the columns of the key without the table: put the other \
                     tables of the statement into subqueries"
                        .to_owned(),
                );
            }
            failure
        })?;
        let ended = self.store.client.batch_execute("ROLLBACK TO SAVEPOINT tried").await;
        ended.map_err(|error| failed(SURVEY, &error))?;
        if self.table.pages <= SMALL_PAGES {
            return Ok(());
        }
        let parts = match self.table.kind {
            'p' => leaves(self.store, self.table).await?,
            _ => vec![self.table.clone()],
        };
        let plan: Value = plan.first().map_or(Value::Null, |row| row.get(0));
        let found = nodes(&plan);
        let touched = |node: &&&Value| {
            parts.iter().any(|part| {
                node["Relation Name"].as_str() == Some(&part.name)
                    && node["Schema"].as_str() == Some(&part.schema)
                    && node["Node Type"].as_str() != Some("ModifyTable")
            })
        };
        match found.iter().filter(touched).find(|node| !is_bounded(node)) {
            None => Ok(()),
            Some(node) => {
                let how = node["Node Type"].as_str().unwrap_or("scan");
                let mut error = StoreError::new(
                    StoreName::Postgres,
                    SURVEY,
                    Fate::Refused,
                    format!(
                        "each batch would read all of {}: its plan has a {how} without a bound",
                        self.table.shown()
                    ),
                );
                error.said.detail = Some(format!("the statement of a batch is {sql}"));
                error.said.hint = Some(
                    "let `{batch}` stand beside the other conditions with AND, on the table \
                     itself; or choose another `key`"
                        .to_owned(),
                );
                Err(error)
            }
        }
    }
}
