//! Comparison: reading the rows of a query along its key, and by lists of keys.
//!
//! A key travels as a document's fields. Where a statement needs it, it is a text that
//! is cast to the column's own type; a value of MongoDB that has no such text is a key
//! that no row can have.

use super::backfill::{EXACT_TEXTS, check_fence};
use super::columns::{Found as Described, Raw, describe, inside, is_case_blind};
use super::explain::nodes;
use super::history::{OWN_TIMEOUTS, number, settle_transaction, unless_undefined};
use super::source::ALONG_THE_INDEX;
use super::step::{clean, settings};
use super::{Postgres, failed, quote};
use crate::core::compare::{RowKey, Rows};
use crate::core::hex;
use crate::core::history::Record;
use crate::core::id::StoreName;
use crate::core::mapping::decimal::{Decimal, Number};
use crate::core::mapping::{self, Kind, canonical};
use crate::core::step::Timeouts;
use crate::store::compare::{ComparedRows, Found, Kept, Order, Range};
use crate::store::{Fate, Said, StoreError};
use bson::raw::{CString, RawBsonRef};
use bson::spec::BinarySubtype;
use bson::{RawDocument, RawDocumentBuf};
use futures_util::{TryStreamExt as _, pin_mut};
use serde_json::Value;
use std::time::Duration;
use tokio_postgres::types::{ToSql, Type};

const COMPARE: &str = "compare the rows";
const KEEP: &str = "record how far the comparison is";

/// A query of no more rows may be sorted anew for each range.
const SORTED_MAX: u64 = 50_000;

/// What is known of a query.
#[derive(Debug)]
pub struct Ground {
    query: String,
    columns: Vec<Column>,
    names: Vec<String>,
    /// All columns.
    rows: Vec<mapping::Column>,
    /// Those of the key.
    of_key: Vec<mapping::Column>,
    /// All of them as they are selected, and those of the key.
    select: String,
    select_key: String,
    timeouts: Timeouts,
    estimate: u64,
    order: Option<Order>,
}

/// A column of the key.
#[derive(Debug)]
struct Column {
    name: String,
    kind: Kind,
    /// As a cast names it.
    cast: String,
    /// It has a type of somebody's own, which not every text is a value of.
    is_own: bool,
    /// Its texts are in the order of their bytes.
    is_bytewise: bool,
    /// That is not the column's own order, but that of another index.
    is_collated: bool,
}

/// A value as a text that its column's type reads. `None`: it has none, so no row
/// has it.
fn text_of(kind: &Kind, value: RawBsonRef<'_>) -> Option<String> {
    match kind {
        Kind::Int2 => Some(i16::try_from(number_of(value)?.int()?).ok()?.to_string()),
        Kind::Int4 => Some(i32::try_from(number_of(value)?.int()?).ok()?.to_string()),
        Kind::Int8 => Some(number_of(value)?.int()?.to_string()),
        Kind::Numeric(_) => match value {
            RawBsonRef::Int32(number) => Some(number.to_string()),
            RawBsonRef::Int64(number) => Some(number.to_string()),
            RawBsonRef::Double(number) if number.is_nan() => Some("NaN".to_owned()),
            RawBsonRef::Double(number) if number.is_finite() => Some(format!("{number:e}")),
            RawBsonRef::Decimal128(number) => {
                Some(number.to_string()).filter(|text| !text.contains("Inf"))
            }
            _ => None,
        },
        Kind::Float4 | Kind::Float8 => match number_of(value)?.double()? {
            number if number.is_nan() => Some("NaN".to_owned()),
            number if number.is_infinite() && number > 0.0 => Some("Infinity".to_owned()),
            number if number.is_infinite() => Some("-Infinity".to_owned()),
            number => Some(format!("{number:e}")),
        },
        Kind::Text(_) | Kind::Char(_) | Kind::Enum(_) => match value {
            RawBsonRef::String(text) => Some(text.to_owned()).filter(|it| !it.contains('\0')),
            RawBsonRef::ObjectId(id) => Some(id.to_hex()),
            _ => None,
        },
        Kind::Uuid => match value {
            RawBsonRef::Binary(binary) if binary.subtype == BinarySubtype::Uuid => {
                uuid::Uuid::from_slice(binary.bytes).ok().map(|uuid| uuid.to_string())
            }
            _ => None,
        },
        Kind::Bytea => match value {
            RawBsonRef::Binary(binary) => Some(bytea(binary.bytes)),
            RawBsonRef::ObjectId(id) => Some(bytea(&id.bytes())),
            _ => None,
        },
        Kind::Bool => value.as_bool().map(|flag| flag.to_string()),
        Kind::Date | Kind::Timestamp(_) | Kind::Timestamptz(_) => {
            let at = value.as_datetime()?.try_to_rfc3339_string().ok()?;
            if is_timestamp(kind) {
                return Some(at);
            }
            let (day, time) = at.split_once('T')?;
            (time == "00:00:00Z").then(|| day.to_owned())
        }
        // None of these is a key.
        Kind::Time(_) | Kind::Interval(_) | Kind::Json | Kind::Jsonb | Kind::Array(_) => None,
    }
}

/// The order that both stores have of it; texts have one where they are compared byte
/// by byte.
fn order_of(kind: &Kind) -> Option<Order> {
    match kind {
        Kind::Int2 | Kind::Int4 | Kind::Int8 => Some(Order::Number),
        Kind::Uuid => Some(Order::Uuid),
        Kind::Date | Kind::Timestamp(_) | Kind::Timestamptz(_) => Some(Order::Date),
        _ => None,
    }
}

/// Whether a key can be of this kind: a text of it that a document has leads to the row.
fn is_key(kind: &Kind) -> bool {
    match kind {
        Kind::Int2
        | Kind::Int4
        | Kind::Int8
        | Kind::Numeric(_)
        | Kind::Float4
        | Kind::Float8
        | Kind::Bool
        | Kind::Text(_)
        | Kind::Char(_)
        | Kind::Enum(_)
        | Kind::Timestamptz(_)
        | Kind::Timestamp(_)
        | Kind::Date
        | Kind::Uuid
        | Kind::Bytea => true,
        Kind::Time(_) | Kind::Interval(_) | Kind::Json | Kind::Jsonb | Kind::Array(_) => false,
    }
}

fn is_text(kind: &Kind) -> bool {
    matches!(kind, Kind::Text(_) | Kind::Char(_))
}

fn is_timestamp(kind: &Kind) -> bool {
    matches!(kind, Kind::Timestamp(_) | Kind::Timestamptz(_))
}

fn number_of(value: RawBsonRef<'_>) -> Option<Number> {
    match value {
        RawBsonRef::Int32(number) => Some(Number::Finite(Decimal::of_int(number.into()))),
        RawBsonRef::Int64(number) => Some(Number::Finite(Decimal::of_int(number))),
        RawBsonRef::Double(number) => Some(Number::of_double(number)),
        RawBsonRef::Decimal128(number) => Some(Number::of_decimal128(number)),
        _ => None,
    }
}

/// As Postgres reads it.
fn bytea(bytes: &[u8]) -> String {
    format!("\\x{}", hex::write(bytes))
}

impl ComparedRows for Postgres {
    type Ground = Ground;

    async fn ground(
        &mut self,
        query: &str,
        key: &[String],
        timeouts: Timeouts,
    ) -> Result<Ground, StoreError> {
        begin(self, timeouts).await?;
        let found = look(self, query, key, timeouts).await;
        end(self).await;
        found
    }

    fn estimate(ground: &Ground) -> u64 {
        ground.estimate
    }

    fn columns(ground: &Ground) -> &[mapping::Column] {
        &ground.rows
    }

    fn order(ground: &Ground) -> Option<Order> {
        ground.order
    }

    async fn range(
        &mut self,
        ground: &Ground,
        after: Option<&RowKey>,
        rows: u64,
    ) -> Result<Range, StoreError> {
        let mut most = rows;
        loop {
            begin(self, ground.timeouts).await?;
            let range = page(self, ground, after, most).await;
            end(self).await;
            match range? {
                Some(range) => return Ok(range),
                // One key has more rows than that.
                None => most = most.saturating_mul(2),
            }
        }
    }

    async fn at(&mut self, ground: &Ground, keys: &[RowKey]) -> Result<Found, StoreError> {
        let mut found = Found::default();
        begin(self, ground.timeouts).await?;
        let read =
            each_at(self, ground, (&ground.select, &ground.rows), keys, &mut |row| match row {
                Ok(document) => found.documents.push(document),
                Err(unreadable) => found.unreadable.push(unreadable),
            })
            .await;
        end(self).await;
        read.map(|()| found)
    }

    async fn have(&mut self, ground: &Ground, keys: &[RowKey]) -> Result<Vec<RowKey>, StoreError> {
        let mut there = Vec::new();
        begin(self, ground.timeouts).await?;
        let read = each_at(self, ground, (&ground.select_key, &ground.of_key), keys, &mut |row| {
            there.push(match row {
                Ok(document) => RowKey::of(&document, &ground.names),
                Err((key, _)) => key,
            });
        })
        .await;
        end(self).await;
        read.map(|()| there)
    }

    async fn kept(&mut self, record: &Record) -> Result<Option<Kept>, StoreError> {
        let sql = format!(
            "SELECT cursor::text, pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1000 \
             - (cursor ->> 'began')::float8 FROM {} WHERE {OF_RECORD} AND checksum = $4",
            self.table("migration_steps")
        );
        let (version, step, attempt) = place(record);
        let checksum = record.checksum.to_string();
        let params: [(&(dyn ToSql + Sync), Type); 4] = [
            (&version, Type::INT8),
            (&step, Type::TEXT),
            (&attempt, Type::INT4),
            (&checksum, Type::TEXT),
        ];
        let client = self.session().await?;
        let rows = unless_undefined(client.query_typed(&sql, &params).await)?.unwrap_or_default();
        Ok(rows.first().and_then(|row| {
            let cursor = serde_json::from_str(row.get::<_, Option<&str>>(0)?).ok()?;
            let age = row.get::<_, Option<f64>>(1)?.max(0.0) / 1000.0;
            Some(Kept { cursor, age: Duration::try_from_secs_f64(age).ok()? })
        }))
    }

    async fn keep(&mut self, record: &Record, kept: Option<&Kept>) -> Result<(), StoreError> {
        clean(self).await?;
        self.open = true;
        let begin = format!("BEGIN; {OWN_TIMEOUTS}");
        self.client.batch_execute(&begin).await.map_err(|error| failed(KEEP, &error))?;
        let written = match kept {
            Some(kept) => write(self, record, kept).await,
            None => forget(self, record).await,
        };
        let written = match written {
            Ok(()) => check_fence(self, KEEP).await,
            Err(error) => Err(error),
        };
        settle_transaction(self, written, KEEP).await
    }
}

const OF_RECORD: &str = "version = $1 AND step = $2 AND attempt = $3 AND event = 'progress'";

/// The row in which is kept how far it is: version, step, attempt.
pub(super) fn place(record: &Record) -> (i64, String, i32) {
    let attempt = i32::try_from(record.attempt).unwrap_or(i32::MAX);
    (number(record.step.version), record.step.name.to_string(), attempt)
}

async fn write(store: &Postgres, record: &Record, kept: &Kept) -> Result<(), StoreError> {
    let sql = format!(
        "INSERT INTO {} (version, step, attempt, event, rank, checksum, migration_checksum, \
         cursor, rows, fence, run_id) \
         SELECT $1, $2, $3, 'progress', $4, $5, $6, $7::text::jsonb || \
         pg_catalog.jsonb_build_object('began', pg_catalog.round((pg_catalog.date_part('epoch', \
         pg_catalog.clock_timestamp()) * 1000 - $8)::numeric)), 0, $9, $10 \
         ON CONFLICT (version, step, attempt, event) DO UPDATE SET cursor = excluded.cursor, \
         checksum = excluded.checksum, migration_checksum = excluded.migration_checksum, \
         fence = excluded.fence, run_id = excluded.run_id, \
         recorded_at = pg_catalog.clock_timestamp()",
        store.table("migration_steps")
    );
    let (version, step, attempt) = place(record);
    let rank = i32::try_from(record.rank).unwrap_or(i32::MAX);
    let (checksum, folder) = (record.checksum.to_string(), record.migration_checksum.to_string());
    let (cursor, age) = (kept.cursor.to_string(), kept.age.as_secs_f64() * 1000.0);
    let params: [(&(dyn ToSql + Sync), Type); 10] = [
        (&version, Type::INT8),
        (&step, Type::TEXT),
        (&attempt, Type::INT4),
        (&rank, Type::INT4),
        (&checksum, Type::TEXT),
        (&folder, Type::TEXT),
        (&cursor, Type::TEXT),
        (&age, Type::FLOAT8),
        (&store.fence, Type::INT8),
        (&store.run_id, Type::TEXT),
    ];
    let written = store.client.execute_typed(&sql, &params).await;
    written.map(drop).map_err(|error| failed(KEEP, &error))
}

async fn forget(store: &Postgres, record: &Record) -> Result<(), StoreError> {
    let sql = format!("DELETE FROM {} WHERE {OF_RECORD}", store.table("migration_steps"));
    let (version, step, attempt) = place(record);
    let params: [(&(dyn ToSql + Sync), Type); 3] =
        [(&version, Type::INT8), (&step, Type::TEXT), (&attempt, Type::INT4)];
    let deleted = store.client.execute_typed(&sql, &params).await;
    deleted.map(drop).map_err(|error| failed(KEEP, &error))
}

/// Begins a transaction in which rows are read.
async fn begin(store: &mut Postgres, timeouts: Timeouts) -> Result<(), StoreError> {
    clean(store).await?;
    let mut begin = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; {}",
        settings(store, timeouts, "SET LOCAL")
    );
    for (name, value) in EXACT_TEXTS.iter().chain(&ALONG_THE_INDEX) {
        begin.push_str(&format!("; SET LOCAL {name} = {value}"));
    }
    store.open = true;
    store.client.batch_execute(&begin).await.map_err(|error| failed(COMPARE, &error))?;
    // A function that the query calls may leave settings of the session behind.
    store.used = true;
    Ok(())
}

async fn end(store: &mut Postgres) {
    let _ = store.client.batch_execute("ROLLBACK").await;
    store.open = false;
}

/// The query as what rows are taken of. No table of anybody's is called like this.
fn from(query: &str) -> String {
    format!("FROM (\n{query}\n) AS lockstep_row")
}

impl Column {
    /// The column, as it is compared and put in order.
    fn expression(&self) -> String {
        let collate = if self.is_collated { " COLLATE \"C\"" } else { "" };
        format!("lockstep_row.{}{collate}", quote(&self.name))
    }
}

async fn look(
    store: &mut Postgres,
    query: &str,
    key: &[String],
    timeouts: Timeouts,
) -> Result<Ground, StoreError> {
    let mut ground = Ground {
        query: query.to_owned(),
        columns: Vec::new(),
        names: key.to_vec(),
        rows: Vec::new(),
        of_key: Vec::new(),
        select: String::new(),
        select_key: String::new(),
        timeouts,
        estimate: 0,
        order: None,
    };
    let found = describe(store, query).await?;
    for name in key {
        let Some(it) = found.iter().find(|it| it.column.name == *name) else {
            let all: Vec<&str> = found.iter().map(|it| it.column.name.as_str()).collect();
            let hint = format!(
                "call one of its columns so, with AS {}: they are {}",
                quote(name),
                all.join(", ")
            );
            return Err(refused(
                format!("the query has no column `{name}`, which is the key"),
                &hint,
            ));
        };
        let column = column(store, query, it).await?;
        ground.columns.push(column);
        ground.of_key.push(it.column.clone());
    }
    let value = |it: &Described| {
        format!("lockstep_row.{}{}", quote(&it.column.name), it.cast.as_deref().unwrap_or_default())
    };
    let of_key = key.iter().filter_map(|name| found.iter().find(|it| it.column.name == *name));
    ground.select_key = of_key.map(value).collect::<Vec<_>>().join(", ");
    ground.select = found.iter().map(value).collect::<Vec<_>>().join(", ");
    ground.rows = found.into_iter().map(|it| it.column).collect();
    if let Some(plan) = explain(store, &format!("SELECT * {}", from(query))).await? {
        ground.estimate = plan[0]["Plan"]["Plan Rows"].as_u64().unwrap_or(0);
    }
    let nulls: Vec<String> =
        ground.columns.iter().map(|column| format!("{} IS NULL", column.expression())).collect();
    let nulls = format!("SELECT 1 {} WHERE {} LIMIT 1", from(query), nulls.join(" OR "));
    if !ask(store, &nulls).await?.is_empty() {
        return Err(refused(
            format!("rows of the query have no key: ({}) is NULL", key.join(", ")),
            "compare by a key that every row has, or leave these rows out with WHERE",
        ));
    }
    if let [column] = ground.columns.as_slice()
        && is_text(&column.kind)
        && !column.is_own
        && !column.is_bytewise
    {
        // An index in that order, beside the column's own, lets ranges be compared.
        ground.columns[0].is_collated = true;
        let has_none = reads_all(store, &ground).await?.is_some();
        ground.columns[0].is_collated = !has_none;
        ground.columns[0].is_bytewise = !has_none;
    }
    if let Some(how) = reads_all(store, &ground).await?
        && ground.estimate > SORTED_MAX
    {
        let list = key.join(", ");
        return Err(refused(
            format!(
                "no index gives the rows in the order of ({list}): each range would read all of \
                 them (the plan has a {how})"
            ),
            &format!(
                "compare by the table's key, or create an index in `prepare`: \
                 CREATE INDEX CONCURRENTLY … ({list})"
            ),
        ));
    }
    ground.order = match ground.columns.as_slice() {
        [column] if column.is_bytewise => Some(Order::Text),
        [column] => order_of(&column.kind),
        _ => None,
    };
    Ok(ground)
}

/// A column of the key: its type, and the order in which it has its texts.
async fn column(store: &Postgres, query: &str, of: &Described) -> Result<Column, StoreError> {
    const TEXTS: [&str; 3] = ["pg_catalog.text", "pg_catalog.varchar", "pg_catalog.bpchar"];
    let (name, kind) = (&of.column.name, of.column.kind.clone());
    let quoted = quote(name);
    if !is_key(&kind) || is_case_blind(&of.shown) {
        return Err(refused(
            format!("`{name}` is of type {}, which cannot be a key of a comparison", of.shown),
            &format!("cast it in the query: {quoted}::text AS {quoted}"),
        ));
    }
    let is_plain = TEXTS.contains(&of.qualified.as_str());
    let mut is_bytewise = false;
    if is_plain {
        let sql = format!(
            "SELECT pg_catalog.pg_collation_for((SELECT lockstep_row.{quoted} {} LIMIT 1)), \
             (SELECT datcollate IN ('C', 'POSIX') FROM pg_catalog.pg_database \
             WHERE datname = pg_catalog.current_database())",
            from(query)
        );
        let rows = ask(store, &sql).await?;
        is_bytewise = rows.first().is_some_and(|row| match row.get::<_, Option<&str>>(0) {
            Some("\"C\"" | "\"POSIX\"") => true,
            Some("\"default\"") => row.get(1),
            _ => false,
        });
    }
    let is_own = is_text(&kind) && !is_plain;
    let (name, cast) = (name.clone(), of.qualified.clone());
    Ok(Column { name, kind, cast, is_own, is_bytewise, is_collated: false })
}

/// How a range would be read, if it would read all rows.
async fn reads_all(store: &Postgres, ground: &Ground) -> Result<Option<String>, StoreError> {
    let sql = format!(
        "SELECT {} {} ORDER BY {} LIMIT 1000",
        ground.select,
        from(&ground.query),
        order_by(ground)
    );
    let Some(plan) = explain(store, &sql).await? else { return Ok(None) };
    Ok(nodes(&plan)
        .iter()
        .filter_map(|node| node["Node Type"].as_str())
        .find(|node| matches!(*node, "Sort" | "Seq Scan"))
        .map(str::to_owned))
}

fn order_by(ground: &Ground) -> String {
    let columns: Vec<String> = ground.columns.iter().map(Column::expression).collect();
    columns.join(", ")
}

async fn explain(store: &Postgres, sql: &str) -> Result<Option<Value>, StoreError> {
    let rows = ask(store, &format!("EXPLAIN (FORMAT JSON) {sql}")).await?;
    Ok(rows.first().and_then(|row| row.try_get(0).ok()))
}

async fn ask(store: &Postgres, sql: &str) -> Result<Vec<tokio_postgres::Row>, StoreError> {
    store.client.query_typed(sql, &[]).await.map_err(|error| inside(COMPARE, &error))
}

fn refused(message: String, hint: &str) -> StoreError {
    let error = StoreError::new(StoreName::Postgres, COMPARE, Fate::Refused, message);
    StoreError { said: Said { hint: Some(hint.to_owned()), ..error.said }, ..error }
}

/// The rows after a key. `None`: all that were read have one key, and there are more.
async fn page(
    store: &Postgres,
    ground: &Ground,
    after: Option<&RowKey>,
    most: u64,
) -> Result<Option<Range>, StoreError> {
    let mut params = Vec::new();
    let condition = match after {
        Some(after) => above(ground, after, &mut params)?,
        None => "true".to_owned(),
    };
    let sql = format!(
        "SELECT {} {} WHERE {condition} ORDER BY {} LIMIT {}",
        ground.select,
        from(&ground.query),
        order_by(ground),
        most.saturating_add(1)
    );
    let mut reading = Reading::new(ground);
    each(store, ground, &ground.rows, &sql, &params, &mut |row| reading.take(row)).await?;
    Ok(reading.finish(most))
}

/// A range in the making. Rows of one key are in one range, so those of the last key
/// wait for the next.
struct Reading<'a> {
    names: &'a [String],
    rows: Rows,
    count: u64,
    /// The rows of the last key, and what makes them one key; that of the row at hand.
    group: Vec<Result<RawDocumentBuf, (RowKey, String)>>,
    id: Vec<u8>,
    next: Vec<u8>,
    /// The last row of the group before.
    last: Option<Result<RawDocumentBuf, RowKey>>,
}

impl<'a> Reading<'a> {
    fn new(ground: &'a Ground) -> Reading<'a> {
        Reading {
            names: &ground.names,
            rows: Rows::new(&ground.names),
            count: 0,
            group: Vec::new(),
            id: Vec::new(),
            next: Vec::new(),
            last: None,
        }
    }

    fn take(&mut self, row: Row) {
        self.count += 1;
        if let Err((key, why)) = &row
            && key.values().count() < self.names.len()
        {
            // No range can end at a key of which a part is what cannot be read.
            return self.rows.push_unreadable(key.clone(), why.clone());
        }
        let has_key: &RawDocument = match &row {
            Ok(document) => document,
            Err((key, _)) => &key.0,
        };
        identity(has_key, self.names, &mut self.next);
        if self.next != self.id {
            self.flush();
            std::mem::swap(&mut self.id, &mut self.next);
        }
        self.group.push(row);
    }

    fn flush(&mut self) {
        for row in self.group.drain(..) {
            self.last = Some(match row {
                Ok(document) => {
                    self.rows.push(&document);
                    Ok(document)
                }
                Err((key, why)) => {
                    self.rows.push_unreadable(key.clone(), why);
                    Err(key)
                }
            });
        }
    }

    /// The range, if not more than so many rows were asked for, or up to the key before
    /// the last. `None`: there is none before.
    fn finish(mut self, most: u64) -> Option<Range> {
        if self.count <= most {
            self.flush();
            return Some(Range { rows: self.rows, upto: None });
        }
        let upto = match self.last? {
            Ok(document) => RowKey::of(&document, self.names),
            Err(key) => key,
        };
        Some(Range { rows: self.rows, upto: Some(upto) })
    }
}

/// What keys that are equal have in common.
fn identity(row: &RawDocument, names: &[String], out: &mut Vec<u8>) {
    out.clear();
    for name in names {
        let value = row.get(name).ok().flatten().unwrap_or(RawBsonRef::Null);
        // What the server sent is no damaged document.
        let _ = canonical::append_value(value, out);
    }
}

/// The condition for what lies above a key.
fn above(ground: &Ground, after: &RowKey, params: &mut Vec<String>) -> Result<String, StoreError> {
    let mut values = Vec::new();
    for (column, value) in ground.columns.iter().zip(after.values()) {
        let Some(text) = text_of(&column.kind, value) else {
            let message = format!("migration_steps: {after} is no key of this query");
            return Err(StoreError::new(StoreName::Postgres, COMPARE, Fate::Corrupt, message));
        };
        params.push(text);
        values.push(format!("${}::text::{}", params.len(), column.cast));
    }
    Ok(match (ground.columns.as_slice(), values.as_slice()) {
        // A document has milliseconds, a row may have microseconds.
        ([column], [value]) if is_timestamp(&column.kind) => {
            format!("{} >= {value} + interval '1 millisecond'", column.expression())
        }
        ([column], [value]) => format!("{} > {value}", column.expression()),
        ([first, ..], [least, ..]) => format!(
            "({}) > ({}) AND {} >= {least}",
            order_by(ground),
            values.join(", "),
            first.expression()
        ),
        _ => "true".to_owned(),
    })
}

/// Rows by their keys.
async fn each_at(
    store: &Postgres,
    ground: &Ground,
    (select, columns): (&str, &[mapping::Column]),
    keys: &[RowKey],
    take: &mut impl FnMut(Row),
) -> Result<(), StoreError> {
    let mut lists: Vec<Vec<String>> = vec![Vec::new(); ground.columns.len()];
    for key in keys {
        let values = ground.columns.iter().zip(key.values());
        let texts: Option<Vec<String>> =
            values.map(|(column, value)| text_of(&column.kind, value)).collect();
        // A key that no row can have is not asked for.
        let Some(texts) = texts.filter(|texts| texts.len() == lists.len()) else { continue };
        lists.iter_mut().zip(texts).for_each(|(list, text)| list.push(text));
    }
    if lists.first().is_none_or(Vec::is_empty) {
        return Ok(());
    }
    let array = |at: usize, column: &Column| format!("${}::text[]::{}[]", at + 1, column.cast);
    let sql = match ground.columns.as_slice() {
        [column] if column.is_own => format!(
            "SELECT {select} {} WHERE {}::text = ANY ($1::text[])",
            from(&ground.query),
            column.expression()
        ),
        [column] if !is_timestamp(&column.kind) => format!(
            "SELECT {select} {} WHERE {} = ANY ({})",
            from(&ground.query),
            column.expression(),
            array(0, column)
        ),
        columns => {
            let unnest = |(at, column)| format!("pg_catalog.unnest({})", array(at, column));
            let arrays: Vec<String> = columns.iter().enumerate().map(unnest).collect();
            let names: Vec<String> = (0..columns.len()).map(|at| format!("k{at}")).collect();
            let equal: Vec<String> = columns
                .iter()
                .zip(&names)
                .map(|(column, name)| match is_timestamp(&column.kind) {
                    true => format!(
                        "{0} >= lockstep_key.{name} \
                         AND {0} < lockstep_key.{name} + interval '1 millisecond'",
                        column.expression()
                    ),
                    false => format!("{} = lockstep_key.{name}", column.expression()),
                })
                .collect();
            format!(
                "SELECT {select} FROM ROWS FROM ({}) AS lockstep_key ({}) \
                 JOIN (\n{}\n) AS lockstep_row ON {}",
                arrays.join(", "),
                names.join(", "),
                ground.query,
                equal.join(" AND ")
            )
        }
    };
    each(store, ground, columns, &sql, &lists, take).await
}

/// A row as a document; or its key, and why it is none.
type Row = Result<RawDocumentBuf, (RowKey, String)>;

/// Reads rows one after the other.
async fn each<T: ToSql + Sync + AsType>(
    store: &Postgres,
    ground: &Ground,
    columns: &[mapping::Column],
    sql: &str,
    params: &[T],
    take: &mut impl FnMut(Row),
) -> Result<(), StoreError> {
    let params = params.iter().map(|it| (it as &(dyn ToSql + Sync), T::TYPE));
    let failed_here = |error: tokio_postgres::Error| inside(COMPARE, &error);
    let rows = store.client.query_typed_raw(sql, params).await.map_err(failed_here)?;
    pin_mut!(rows);
    while let Some(row) = rows.try_next().await.map_err(failed_here)? {
        take(document(&row, ground, columns));
    }
    Ok(())
}

/// What a parameter is sent as.
trait AsType {
    const TYPE: Type;
}

impl AsType for String {
    const TYPE: Type = Type::TEXT;
}

impl AsType for Vec<String> {
    const TYPE: Type = Type::TEXT_ARRAY;
}

/// A row as a document; where one column has no counterpart, the key and why.
fn document(row: &tokio_postgres::Row, ground: &Ground, columns: &[mapping::Column]) -> Row {
    let values = (0..row.len()).map(|at| row.get::<_, Raw<'_>>(at).0);
    match mapping::document(columns, values.clone()) {
        Ok(document) => Ok(document),
        Err(bad) => {
            // In the order of the key, as that of any row: it is asked for again by it.
            let mut key = RawDocumentBuf::new();
            for name in &ground.names {
                let found =
                    columns.iter().zip(values.clone()).find(|(column, _)| column.name == *name);
                if let Some((column, value)) = found
                    && let Ok(one) = mapping::document(std::slice::from_ref(column), [value])
                    && let Ok(Some(value)) = one.get(name)
                    && let Ok(name) = CString::try_from(name.as_str())
                {
                    key.append(name, value);
                }
            }
            Err((RowKey(key), bad.reason))
        }
    }
}
