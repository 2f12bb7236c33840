//! Rows of a query on their way into the other store.
//!
//! A query is gone through along a key as a table is: a page is `SELECT … FROM
//! (query) AS q WHERE key > … AND key <= … ORDER BY key LIMIT n`, whose condition
//! Postgres carries down to the index of the table below. That it does is looked at
//! before anything is copied.
//!
//! Values travel in binary.

use super::backfill::EXACT_TEXTS;
use super::columns::{Found, Raw, SURVEY, describe, from, inside, is_case_blind, refused};
use super::explain::{is_bounded, nodes, spine};
use super::key::{KeyColumn, Range, TableKey};
use super::step::{clean, settings};
use super::{Postgres, failed, quote};
use crate::core::backfill::{Key, Shard, Survey};
use crate::core::mapping::{self, Column, Kind};
use crate::core::step::Timeouts;
use crate::store::StoreError;
use crate::store::backfill::is_passing;
use crate::store::copy::{BadRow, Page, PageLimit, Query, Source};
use futures_util::TryStreamExt;
use futures_util::future::join3;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

const LOCK_TIMEOUT: Duration = Duration::from_secs(3);
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);

const ESTIMATE: &str = "estimate how many rows are to be copied";
const PAGE: &str = "read the rows to copy";

/// Pages are read along an index, however dear that seems to a planner that does not
/// know how few rows are wanted. What is switched off is made to look very dear, and
/// what looks dear must not be compiled or given to several processes.
pub(super) const ALONG_THE_INDEX: [(&str, &str); 6] = [
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_sort", "off"),
    // It begins at the first row of what is joined, for each page.
    ("enable_mergejoin", "off"),
    ("max_parallel_workers_per_gather", "0"),
    ("jit", "off"),
];

/// Tables that are not larger than this may be read as a whole for a page: 2.3 MB.
const SMALL_PAGES: i64 = 300;

/// What is sorted for each page may have so many rows.
const SMALL_ROWS: u64 = 20_000;

/// The page with which the statement is tried.
const TRIED_ROWS: u64 = 1_000;

/// What appeared since is counted, but no further than this; less is one range.
const COUNT_LIMIT: u64 = 10_000;

/// While nobody knows how large rows are, no more of them are asked for.
const UNKNOWN_ROWS: u64 = 200;

/// So many of the rows of a page that cannot be copied are shown.
const SHOWN_MAX: usize = 20;

/// So much of such a row, in characters.
const SHOWN_CHARS: usize = 2_000;

/// What stands in a shard in place of a table.
const TABLE: &str = "(query)";

/// The queries that this session has looked at, by their text and key.
pub(super) type Queries = BTreeMap<(String, Vec<String>), Arc<Road>>;

/// How a query is gone through.
#[derive(Debug)]
pub(super) struct Road {
    key: TableKey,
    columns: Vec<Column>,
    /// What is selected: the columns, and the texts of the key where they cannot be
    /// told from its values.
    select: String,
    /// Of the key, the places of its columns among all.
    places: Vec<usize>,
}

impl Source for Postgres {
    type Rows<'a> = Query<'a>;

    async fn estimate_rows(
        &mut self,
        rows: Self::Rows<'_>,
        timeouts: Timeouts,
    ) -> Result<Option<u64>, StoreError> {
        begin(self, timeouts, ESTIMATE).await?;
        let found = expected(self, rows.sql).await;
        end(self, found, ESTIMATE).await
    }

    async fn survey_rows(
        &mut self,
        rows: Self::Rows<'_>,
        timeouts: Timeouts,
        shards: usize,
        past: &[Shard],
    ) -> Result<Survey, StoreError> {
        // The schema may have changed since it was looked at.
        self.queries.clear();
        begin(self, timeouts, SURVEY).await?;
        let found = look(self, rows, shards, past).await;
        end(self, found, SURVEY).await
    }

    async fn page(
        &mut self,
        rows: Self::Rows<'_>,
        timeouts: Timeouts,
        after: Option<&Key>,
        upto: Option<&Key>,
        limit: PageLimit,
    ) -> Result<Page, StoreError> {
        page(self, rows, timeouts, after, upto, limit).await
    }
}

/// Begins a transaction in which rows are read. Keys leave the server as texts that
/// it reads back as the same values.
fn beginning(store: &Postgres, timeouts: Timeouts) -> String {
    let timeouts = Timeouts {
        lock: Some(timeouts.lock.unwrap_or(LOCK_TIMEOUT)),
        statement: Some(timeouts.statement.unwrap_or(STATEMENT_TIMEOUT)),
    };
    let mut begin = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; {}",
        settings(store, timeouts, "SET LOCAL")
    );
    for (name, value) in EXACT_TEXTS.iter().chain(&ALONG_THE_INDEX) {
        begin.push_str(&format!("; SET LOCAL {name} = {value}"));
    }
    begin
}

async fn begin(
    store: &mut Postgres,
    timeouts: Timeouts,
    doing: &'static str,
) -> Result<(), StoreError> {
    clean(store).await?;
    let begin = beginning(store, timeouts);
    store.open = true;
    store.client.batch_execute(&begin).await.map_err(|error| failed(doing, &error))
}

async fn end<T>(
    store: &mut Postgres,
    done: Result<T, StoreError>,
    doing: &'static str,
) -> Result<T, StoreError> {
    let ended = store.client.batch_execute("ROLLBACK").await;
    store.open = false;
    let done = done?;
    ended.map_err(|error| failed(doing, &error))?;
    Ok(done)
}

/// What the planner makes of the query as a whole.
async fn expected(store: &Postgres, query: &str) -> Result<Option<u64>, StoreError> {
    let explain = format!("EXPLAIN (FORMAT JSON) SELECT * {}", from(query));
    let rows = store.client.query_typed(&explain, &[]).await;
    let rows = rows.map_err(|error| inside(ESTIMATE, &error))?;
    let plan = rows.first().and_then(|row| row.try_get::<_, Value>(0).ok());
    Ok(plan.and_then(|plan| plan[0]["Plan"]["Plan Rows"].as_u64()))
}

/// What this session knows of a query; asked once.
async fn road(store: &mut Postgres, rows: Query<'_>) -> Result<Arc<Road>, StoreError> {
    let id = (rows.sql.to_owned(), rows.key.to_vec());
    if let Some(road) = store.queries.get(&id) {
        return Ok(road.clone());
    }
    let found = describe(store, rows.sql).await?;
    let mut places = Vec::new();
    for name in rows.key {
        let Some(at) = found.iter().position(|it| it.column.name == *name) else {
            let all: Vec<&str> = found.iter().map(|it| it.column.name.as_str()).collect();
            return Err(refused(
                format!("the query has no column `{name}`, which is to be the key"),
                &format!("its columns are {}", all.join(", ")),
            ));
        };
        let Found { column, shown, .. } = &found[at];
        // Of texts that differ and are equal, a page would end between two.
        if !is_ordered(&column.kind) || is_case_blind(shown) {
            return Err(refused(
                format!("the key `{name}` is of type {shown}, along which no copy can go"),
                "choose a key of integers, numeric, text, uuid, bytea, dates or timestamps, or \
                 cast it in the query; an index has to be on what the query says",
            ));
        }
        places.push(at);
    }
    let keys = places.iter().map(|at| &found[*at]);
    let key = keys.clone().map(|it| KeyColumn::of(&it.column.name, &it.qualified, &it.shown));
    let key = TableKey::of(key.collect());
    let value = |it: &Found| {
        format!("q.{}{}", quote(&it.column.name), it.cast.as_deref().unwrap_or_default())
    };
    let untold = keys.filter(|it| !is_told(&it.column.kind));
    let text = |it: &Found| format!("q.{}::pg_catalog.text", quote(&it.column.name));
    let select: Vec<String> = found.iter().map(value).chain(untold.map(text)).collect();
    let columns = found.into_iter().map(|it| it.column).collect();
    let road = Arc::new(Road { key, columns, select: select.join(", "), places });
    store.queries.insert(id, road.clone());
    Ok(road)
}

/// Whether values of a kind have one order, and are equal where their bytes are, as
/// far as [`identity`] goes.
fn is_ordered(kind: &Kind) -> bool {
    match kind {
        Kind::Int2
        | Kind::Int4
        | Kind::Int8
        | Kind::Numeric(_)
        | Kind::Bool
        | Kind::Text(_)
        | Kind::Enum(_)
        | Kind::Char(_)
        | Kind::Timestamptz(_)
        | Kind::Timestamp(_)
        | Kind::Date
        | Kind::Time(_)
        | Kind::Uuid
        | Kind::Bytea => true,
        Kind::Float4
        | Kind::Float8
        | Kind::Interval(_)
        | Kind::Json
        | Kind::Jsonb
        | Kind::Array(_) => false,
    }
}

async fn look(
    store: &mut Postgres,
    rows: Query<'_>,
    shards: usize,
    past: &[Shard],
) -> Result<Survey, StoreError> {
    let road = road(store, rows).await?;
    let ground = Ground { store, query: rows.sql, road: &road };
    let newest = past.iter().max_by_key(|shard| shard.index);
    let after = newest.map(|shard| road.key.parse(&shard.upto)).transpose()?;
    let after = after.as_deref();
    ground.refuse_nulls().await?;
    let all = expected(ground.store, rows.sql).await?.unwrap_or(0);
    let mut survey = Survey { key: road.key.shown(), estimate: all, shards: Vec::new() };
    let Some(upto) = ground.last(after).await? else {
        survey.estimate = 0;
        return Ok(survey);
    };
    if after.is_some() {
        survey.estimate = ground.count(after, COUNT_LIMIT).await?;
    }
    let several = after.is_none() || survey.estimate >= COUNT_LIMIT;
    let mut ends = match shards {
        2.. if several => ground.cut(after, &upto, shards).await?,
        _ => Vec::new(),
    };
    ends.push(upto);
    ground.try_out(after, ends.first().map_or(&[], Vec::as_slice), all).await?;
    let share = survey.estimate / u64::try_from(ends.len()).unwrap_or(1);
    let (mut index, round) = newest.map_or((0, 0), |shard| (shard.index, shard.round + 1));
    let mut after = newest.map(|shard| shard.upto.clone());
    for end in ends {
        index += 1;
        let upto = Key(json!(end));
        survey.shards.push(Shard {
            index,
            round,
            table: TABLE.to_owned(),
            after: after.replace(upto.clone()),
            upto,
            estimate: share,
            passed: 0,
            rows: 0,
            done: false,
            claimed: false,
        });
    }
    Ok(survey)
}

/// A query and the key along which it is gone through.
struct Ground<'a> {
    store: &'a Postgres,
    query: &'a str,
    road: &'a Road,
}

impl Ground<'_> {
    async fn rows(&self, sql: &str, range: &Range) -> Result<Vec<Row>, StoreError> {
        let rows = self.store.client.query_typed(sql, &range.typed()).await;
        rows.map_err(|error| inside(SURVEY, &error))
    }

    /// A row whose key is NULL would be passed over.
    async fn refuse_nulls(&self) -> Result<(), StoreError> {
        for name in self.road.key.names() {
            let null =
                format!("SELECT 1 {} WHERE q.{} IS NULL LIMIT 1", from(self.query), quote(&name));
            let found = self.store.client.query_typed(&null, &[]).await;
            let found = found.map_err(|error| {
                let mut failure = inside(SURVEY, &error);
                if error.code() == Some(&SqlState::QUERY_CANCELED) {
                    failure.said.detail = Some(format!(
                        "it was looked whether `{name}`, of the key, is NULL in some row"
                    ));
                    failure.said.hint = Some(
                        "create an index that begins with it, make its column NOT NULL, or give \
                         `[timeouts]` a longer `statement`"
                            .to_owned(),
                    );
                }
                failure
            })?;
            if !found.is_empty() {
                return Err(refused(
                    format!("the query has rows whose `{name}` is NULL, and it is their key"),
                    "leave them out with WHERE … IS NOT NULL, or choose another key",
                ));
            }
        }
        Ok(())
    }

    /// The highest key above one.
    async fn last(&self, after: Option<&[String]>) -> Result<Option<Vec<String>>, StoreError> {
        let key = &self.road.key;
        let range = key.range("q.", after, None);
        let sql = format!(
            "SELECT {} {} WHERE {} ORDER BY {} LIMIT 1",
            key.texts("q."),
            from(self.query),
            range.sql,
            key.order("q.", "DESC")
        );
        Ok(self.rows(&sql, &range).await?.first().map(|row| key.read(row)))
    }

    /// How many rows there are above a key, if they are not more than so many.
    async fn count(&self, after: Option<&[String]>, most: u64) -> Result<u64, StoreError> {
        let range = self.road.key.range("q.", after, None);
        let sql = format!(
            "SELECT pg_catalog.count(*) FROM (SELECT 1 {} WHERE {} LIMIT {most}) AS few",
            from(self.query),
            range.sql
        );
        let rows = self.rows(&sql, &range).await?;
        let count: i64 = rows.first().map_or(0, |row| row.get(0));
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// The ends of all pieces but the last, of equal size, found by counting along the
    /// key. Where that takes too long there is one piece.
    async fn cut(
        &self,
        after: Option<&[String]>,
        upto: &[String],
        pieces: usize,
    ) -> Result<Vec<Vec<String>>, StoreError> {
        let savepoint = self.store.client.batch_execute("SAVEPOINT cut").await;
        savepoint.map_err(|error| failed(SURVEY, &error))?;
        match self.counted(after, upto, pieces).await {
            Err(error) if is_passing(&error) => {
                let back = self.store.client.batch_execute("ROLLBACK TO SAVEPOINT cut").await;
                back.map_err(|error| failed(SURVEY, &error))?;
                Ok(Vec::new())
            }
            ends => ends,
        }
    }

    async fn counted(
        &self,
        after: Option<&[String]>,
        upto: &[String],
        pieces: usize,
    ) -> Result<Vec<Vec<String>>, StoreError> {
        // What is there, and not what the statistics say: the last piece is what is
        // left, and a worker for itself.
        let rows = self.count(after, i64::MAX.unsigned_abs()).await?;
        let each = rows.div_ceil(u64::try_from(pieces).unwrap_or(1)).max(1);
        let key = &self.road.key;
        let range = key.range("q.", after, Some(upto));
        let sql = format!(
            "SELECT {texts} FROM (SELECT {columns}, \
             pg_catalog.row_number() OVER (ORDER BY {order}) AS \"#row\" {from} WHERE {within}) \
             AS q WHERE \"#row\" % {each} = 0 ORDER BY \"#row\" LIMIT {most}",
            texts = key.texts("q."),
            columns = key.columns("q."),
            order = key.order("q.", ""),
            from = from(self.query),
            within = range.sql,
            most = pieces - 1,
        );
        let mut ends: Vec<Vec<String>> =
            self.rows(&sql, &range).await?.iter().map(|row| key.read(row)).collect();
        ends.retain(|end| end != upto);
        Ok(ends)
    }

    /// Asks how a page would be read, and refuses what would read or sort everything
    /// for each.
    async fn try_out(
        &self,
        after: Option<&[String]>,
        upto: &[String],
        total: u64,
    ) -> Result<(), StoreError> {
        let key = &self.road.key;
        // A page from the middle: the first one has no lower end to begin at.
        let ahead = key.range("q.", after, Some(upto));
        let second = format!(
            "SELECT {} {} WHERE {} ORDER BY {} OFFSET {} LIMIT 1",
            key.texts("q."),
            from(self.query),
            ahead.sql,
            key.order("q.", ""),
            TRIED_ROWS - 1
        );
        let second = self.rows(&second, &ahead).await?;
        let Some(second) = second.first().map(|row| key.read(row)) else { return Ok(()) };
        let (sql, range) = statement(self.query, self.road, Some(&second), Some(upto), TRIED_ROWS);
        let rows = self.rows(&format!("EXPLAIN (VERBOSE, FORMAT JSON) {sql}"), &range).await?;
        let plan: Value = rows.first().map_or(Value::Null, |row| row.get(0));
        let all = nodes(&plan);
        let large = self.large(&all).await?;
        let is_large = |node: &Value| {
            large.iter().any(|(schema, name)| {
                node["Schema"].as_str() == Some(schema)
                    && node["Relation Name"].as_str() == Some(name)
            })
        };
        let refusal = |why: String| {
            let key = self.road.key.names().join(", ");
            let mut error = refused(
                format!("each page of the copy would {why}"),
                &format!(
                    "go along a key whose table has an index that begins with it: ({key}) stands \
                     in the query as it stands in the table, without a cast or a function, and \
                     what is joined has an index on what it is joined by; create the indexes in \
                     `prepare`"
                ),
            );
            error.said.detail = Some(format!("the statement of a page is {sql}"));
            error
        };
        if let Some(node) = all.iter().find(|node| is_large(node) && !is_bounded(node)) {
            let how = node["Node Type"].as_str().unwrap_or("scan");
            let table = node["Relation Name"].as_str().unwrap_or_default();
            return Err(refusal(format!(
                "read all of {table}: its plan has a {how} of it without a bound"
            )));
        }
        let sorts = |node: &&Value| {
            let kind = node["Node Type"].as_str().unwrap_or_default();
            matches!(kind, "Sort" | "Incremental Sort")
                && (total > SMALL_ROWS || nodes(node).into_iter().any(is_large))
        };
        match spine(&plan).iter().find(|node| sorts(node)) {
            Some(_) => Err(refusal("sort what is left of all rows by their key".to_owned())),
            None => Ok(()),
        }
    }

    /// Those of the tables in a plan that are too large to be read for each page.
    async fn large(&self, nodes: &[&Value]) -> Result<Vec<(String, String)>, StoreError> {
        let named = |field: &str| -> Vec<&str> {
            let with = nodes.iter().filter(|node| node.get("Relation Name").is_some());
            with.map(|node| node[field].as_str().unwrap_or_default()).collect()
        };
        let (schemas, names) = (named("Schema"), named("Relation Name"));
        let sql = format!(
            "SELECT n.nspname::text, c.relname::text \
             FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) \
             AS it (schema, name) \
             JOIN pg_catalog.pg_namespace AS n ON n.nspname = it.schema \
             JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = it.name \
             WHERE c.relkind IN ('r', 'm') AND pg_catalog.pg_relation_size(c.oid) > {SMALL_PAGES} \
             * pg_catalog.current_setting('block_size')::bigint"
        );
        let params: [(&(dyn ToSql + Sync), Type); 2] =
            [(&schemas, Type::TEXT_ARRAY), (&names, Type::TEXT_ARRAY)];
        let rows = self.store.client.query_typed(&sql, &params).await;
        let rows = rows.map_err(|error| failed(SURVEY, &error))?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }
}

/// The statement of a page.
fn statement(
    query: &str,
    road: &Road,
    after: Option<&[String]>,
    upto: Option<&[String]>,
    rows: u64,
) -> (String, Range) {
    let range = road.key.range("q.", after, upto);
    let sql = format!(
        "SELECT {} {} WHERE {} ORDER BY {} LIMIT {rows}",
        road.select,
        from(query),
        range.sql,
        road.key.order("q.", "")
    );
    (sql, range)
}

/// Whether the text of a value can be told from its bytes.
fn is_told(kind: &Kind) -> bool {
    matches!(kind, Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Text(_) | Kind::Uuid)
}

/// The text of such a value.
fn told(kind: &Kind, raw: &[u8]) -> Option<String> {
    match kind {
        Kind::Int2 => Some(i16::from_be_bytes(raw.try_into().ok()?).to_string()),
        Kind::Int4 => Some(i32::from_be_bytes(raw.try_into().ok()?).to_string()),
        Kind::Int8 => Some(i64::from_be_bytes(raw.try_into().ok()?).to_string()),
        Kind::Uuid => Some(uuid::Uuid::from_bytes(raw.try_into().ok()?).to_string()),
        _ => str::from_utf8(raw).ok().map(str::to_owned),
    }
}

/// What two values have in common when they are one key in either store: 1.0 is
/// 1.00, and MongoDB's dates end at milliseconds.
fn identity<'a>(kind: &Kind, raw: &'a [u8]) -> Cow<'a, [u8]> {
    match (kind, raw) {
        (Kind::Numeric(_), [head @ .., _, _]) if raw.len() == 8 => Cow::Borrowed(head),
        (Kind::Numeric(_), raw) if raw.len() > 8 => {
            let mut scaled = raw.to_vec();
            scaled[6..8].fill(0);
            Cow::Owned(scaled)
        }
        (Kind::Char(_), raw) => Cow::Borrowed(raw.trim_ascii_end()),
        (Kind::Timestamp(_) | Kind::Timestamptz(_), raw) => match raw.try_into() {
            Ok(micros) => {
                let millis = i64::from_be_bytes(micros).div_euclid(1_000);
                Cow::Owned(millis.to_be_bytes().to_vec())
            }
            Err(_) => Cow::Borrowed(raw),
        },
        (_, raw) => Cow::Borrowed(raw),
    }
}

async fn page(
    store: &mut Postgres,
    rows: Query<'_>,
    timeouts: Timeouts,
    after: Option<&Key>,
    upto: Option<&Key>,
    limit: PageLimit,
) -> Result<Page, StoreError> {
    let id = (rows.sql, rows.key);
    let known = store.queries.iter().find(|((sql, key), _)| (sql.as_str(), key.as_slice()) == id);
    let road = match known {
        Some((_, road)) => road.clone(),
        None => {
            begin(store, timeouts, PAGE).await?;
            let found = road(store, rows).await;
            end(store, found, PAGE).await?
        }
    };
    clean(store).await?;
    let after = after.map(|after| road.key.parse(after)).transpose()?;
    let upto = upto.map(|upto| road.key.parse(upto)).transpose()?;
    let most = match store.row_bytes {
        0 => UNKNOWN_ROWS,
        // Rows differ: half as much again is asked for, and what is too much is read
        // again.
        each => u64::try_from(limit.bytes / each * 3 / 2).unwrap_or(u64::MAX),
    };
    let asked = limit.rows.min(most).max(1);
    // One more tells whether its key is that of the last one, and whether it is all.
    let (sql, range) =
        statement(rows.sql, &road, after.as_deref(), upto.as_deref(), asked.saturating_add(1));
    let begin = beginning(store, timeouts);
    store.open = true;
    let params = range.typed();
    let client = &store.client;
    let read = async {
        let rows = client.query_typed_raw(&sql, params).await?;
        let mut reading = Reading::new(&road, after.as_deref(), asked, limit.bytes);
        let mut rows = pin!(rows);
        while let Some(row) = rows.try_next().await? {
            reading.take(row);
        }
        Ok(reading)
    };
    // All in one message: the transaction ends with its only statement.
    let (begun, read, _ended) =
        join3(client.batch_execute(&begin), read, client.batch_execute("COMMIT")).await;
    let failure = |error: &tokio_postgres::Error| {
        let mut failure = inside(PAGE, error);
        let from = after.as_deref().map(|after| format!("after the key {}", Key(json!(after))));
        let from = from.unwrap_or_else(|| "from the first row on".to_owned());
        failure.said.detail = Some(match failure.said.detail.take() {
            Some(detail) => format!("{detail} ({from})"),
            None => from,
        });
        failure
    };
    begun.map_err(|error| failure(&error))?;
    let reading: Reading<'_> = read.map_err(|error: tokio_postgres::Error| failure(&error))?;
    store.open = false;
    let (mut page, each) = reading.finish()?;
    if each > 0 {
        store.row_bytes = each;
    }
    if !page.bad.is_empty() {
        show(store, rows, &road, timeouts, &mut page.bad).await?;
    }
    Ok(page)
}

/// A page in the making.
struct Reading<'a> {
    road: &'a Road,
    /// The key before the first row's, if there is one.
    after: Option<&'a [String]>,
    rows: u64,
    bytes: usize,
    page: Page,
    /// Of all documents.
    size: usize,
    /// The last row, and its key as it is compared.
    last: Option<Row>,
    identity: Vec<u8>,
    /// That of the row at hand.
    next: Vec<u8>,
    /// The page is full, or what came is wrong.
    is_over: bool,
    /// A row came that the page has no place for.
    is_more: bool,
    wrong: Option<StoreError>,
}

impl<'a> Reading<'a> {
    fn new(road: &'a Road, after: Option<&'a [String]>, rows: u64, bytes: usize) -> Reading<'a> {
        Reading {
            road,
            after,
            rows,
            bytes,
            page: Page::default(),
            size: 0,
            last: None,
            identity: Vec::new(),
            next: Vec::new(),
            is_over: false,
            is_more: false,
            wrong: None,
        }
    }

    fn take(&mut self, row: Row) {
        if self.is_over {
            return;
        }
        if let Err(wrong) = self.compare(&row) {
            self.is_over = true;
            self.wrong = Some(wrong);
            return;
        }
        if self.page.passed >= self.rows {
            self.is_over = true;
            self.is_more = true;
            return;
        }
        let columns = &self.road.columns;
        match mapping::document(columns, (0..columns.len()).map(|at| value(&row, at))) {
            Ok(document) => {
                let size = self.size + document.as_bytes().len();
                if size > self.bytes && self.page.passed > 0 {
                    self.is_over = true;
                    self.is_more = true;
                    return;
                }
                self.size = size;
                self.page.documents.push(document);
            }
            Err(bad) => {
                let key = texts(self.road, &row);
                self.page.bad.push(BadRow {
                    key: Key(json!(key)).to_string(),
                    row: json!(key).to_string(),
                    reason: bad.reason,
                });
            }
        }
        std::mem::swap(&mut self.identity, &mut self.next);
        self.page.passed += 1;
        self.last = Some(row);
    }

    /// Refuses a key that is NULL, or that of the row before.
    fn compare(&mut self, row: &Row) -> Result<(), StoreError> {
        self.next.clear();
        for at in &self.road.places {
            let Column { name, kind, .. } = &self.road.columns[*at];
            let Some(raw) = value(row, *at) else {
                return Err(refused(
                    format!("the query has a row whose `{name}` is NULL, and it is its key"),
                    "leave such rows out with WHERE … IS NOT NULL, or choose another key",
                ));
            };
            let value = identity(kind, raw);
            self.next.extend(value.len().to_le_bytes());
            self.next.extend_from_slice(&value);
        }
        let is_again = match self.page.passed {
            0 => self.after.is_some_and(|after| is_one_moment(self.road, after, row)),
            _ => self.next == self.identity,
        };
        if is_again {
            let key = Key(json!(texts(self.road, row)));
            return Err(refused(
                format!(
                    "the query has two rows with the key {key} ({}): both would be one document",
                    self.road.key.names().join(", ")
                ),
                "group the rows, choose one of them with DISTINCT ON, or choose another key; \
                 timestamps are one in MongoDB if their milliseconds are",
            ));
        }
        Ok(())
    }

    /// The page, and how large a document of it is on average.
    fn finish(mut self) -> Result<(Page, usize), StoreError> {
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        self.page.is_last = !self.is_more;
        self.page.upto = self.last.map(|row| Key(json!(texts(self.road, &row))));
        let each = self.size.checked_div(self.page.documents.len()).unwrap_or(0);
        Ok((self.page, each))
    }
}

/// Whether a row has the key of the row before as far as MongoDB tells them apart.
/// That is the end of another page, which is kept as text; the only keys that Postgres
/// tells apart and MongoDB does not are times between two milliseconds.
fn is_one_moment(road: &Road, after: &[String], row: &Row) -> bool {
    let is_time = |kind: &Kind| matches!(kind, Kind::Timestamp(_) | Kind::Timestamptz(_));
    if !road.places.iter().any(|at| is_time(&road.columns[*at].kind)) {
        return false;
    }
    let kinds = road.places.iter().map(|at| &road.columns[*at].kind);
    let same = |(kind, (one, other)): (&Kind, (&String, &String))| match is_time(kind) {
        true => to_millis(one) == to_millis(other),
        false => one == other,
    };
    after.len() == road.places.len() && kinds.zip(after.iter().zip(&texts(road, row))).all(same)
}

/// `2000-01-01 00:00:00.123456+00` without what is below a millisecond.
fn to_millis(time: &str) -> (&str, u32, &str) {
    let Some((seconds, rest)) = time.split_once('.') else {
        let end = time.len() - time.bytes().rev().take_while(|byte| *byte != b':').count();
        let digits = time[end..].bytes().take_while(u8::is_ascii_digit).count();
        let (seconds, zone) = time.split_at(end + digits);
        return (seconds, 0, zone);
    };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (fraction, zone) = rest.split_at(digits);
    let millis = fraction.bytes().chain(std::iter::repeat(b'0')).take(3);
    (seconds, millis.fold(0, |millis, digit| millis * 10 + u32::from(digit - b'0')), zone)
}

fn value(row: &Row, at: usize) -> Option<&[u8]> {
    row.try_get::<_, Raw<'_>>(at).ok()?.0
}

/// The key of a row, as it is kept.
fn texts(road: &Road, row: &Row) -> Vec<String> {
    let mut more = road.columns.len();
    let mut texts = Vec::with_capacity(road.places.len());
    for at in &road.places {
        let kind = &road.columns[*at].kind;
        let text = match is_told(kind) {
            true => value(row, *at).and_then(|raw| told(kind, raw)),
            false => {
                more += 1;
                value(row, more - 1).and_then(|raw| str::from_utf8(raw).ok().map(str::to_owned))
            }
        };
        texts.push(text.unwrap_or_default());
    }
    texts
}

/// Reads rows that cannot be copied once more, as people read them.
async fn show(
    store: &mut Postgres,
    rows: Query<'_>,
    road: &Road,
    timeouts: Timeouts,
    bad: &mut [BadRow],
) -> Result<(), StoreError> {
    begin(store, timeouts, PAGE).await?;
    for it in bad.iter_mut().take(SHOWN_MAX) {
        let Ok(key) = serde_json::from_str::<Vec<String>>(&it.row) else { continue };
        let range = road.key.only("q.", &key);
        let sql = format!(
            "SELECT pg_catalog.left(pg_catalog.row_to_json(q)::text, {SHOWN_CHARS}) {} WHERE {}",
            from(rows.sql),
            range.sql
        );
        // What cannot be shown is still named by its key.
        let Ok(found) = store.client.query_typed(&sql, &range.typed()).await else { break };
        if let Some(row) = found.first() {
            it.row = row.get(0);
        }
    }
    end(store, Ok(()), PAGE).await
}
