//! Documents that are written into a table.
//!
//! A page is one transaction with its cursor. Its rows go by COPY in binary straight
//! into the table, as long as none of their keys is there; from the first that is,
//! they go into a temporary table, and from there what is missing is inserted, what
//! differs is updated, and what is equal is left alone.

use super::backfill::{LOCK_TIMEOUT, STATEMENT_TIMEOUT, begin_writing, hold_cursor, move_cursor};
use super::history::settle_transaction;
use super::key::{Table, find_table};
use super::rejects::put_aside;
use super::step::{clean, quoted, settings};
use super::{Postgres, failed, quote};
use crate::core::backfill::{Batch, Shard};
use crate::core::checksum::Checksum;
use crate::core::id::{StepId, StoreName};
use crate::core::mapping::{Form, Kind, PgType};
use crate::core::parse::manifest::Work;
use crate::core::step::{QualifiedName, Timeouts};
use crate::failpoint::{around, reach};
use crate::store::backfill::Job;
use crate::store::copy::{BadRow, Page, Target, WORKERS};
use crate::store::rejects::{RefusedRow, is_about_a_row};
use crate::store::{Fate, StoreError};
use bson::raw::RawBsonRef;
use bson::{Bson, Document, RawDocument, RawDocumentBuf};
use futures_util::future::join;
use futures_util::{SinkExt, pin_mut};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Cursor;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{CopyInSink, Row};

/// What COPY in binary begins with: its signature, no flags, no extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// And ends with.
const TRAILER: &[u8] = &[0xff, 0xff];

/// While Postgres takes the rows of so many documents, those of the next are made.
const SLICE: usize = 500;

/// So much of a row is shown.
const SHOWN: usize = 1000;

const COPY: &str = "write a page of the copy";
const LOOK: &str = "look at the table that is copied into";

/// The tables that are copied into, by step: asked once.
pub(super) type Destinations = BTreeMap<StepId, Arc<Destination>>;

/// A table that is copied into.
#[derive(Debug)]
pub(super) struct Destination {
    /// As statements name it.
    quoted: String,
    /// As people know it.
    shown: String,
    /// All that can be written, and what cannot, by name.
    columns: Vec<Column>,
    by_name: HashMap<String, usize>,
    /// Columns that Postgres fills itself, and why nobody else may.
    closed: BTreeMap<String, &'static str>,
    /// The columns of the key.
    key: Vec<usize>,
    /// The temporary table: called after what it is made of, so that one of this name
    /// is never another.
    stage: String,
    /// A row may refer to one that was written before it.
    has_order: bool,
    /// None of the keys was there so far.
    is_fresh: AtomicBool,
}

/// A column that can be written.
#[derive(Debug)]
struct Column {
    name: String,
    /// Its type for people.
    shown: String,
    /// `None`: only NULL can be written.
    kind: Option<Kind>,
    /// What a row gets that does not say anything.
    has_default: bool,
    /// By what two values are told apart, where `IS DISTINCT FROM` alone does not.
    told_by: &'static str,
}

/// Rows that have the same columns, encoded.
struct Group {
    columns: Vec<usize>,
    rows: Vec<u8>,
    /// Where each of them ends, and which document it is.
    ends: Vec<(usize, usize)>,
}

/// Makes rows of documents: those that have the same columns together.
struct Encoder<'a> {
    to: &'a Destination,
    groups: Vec<Group>,
    /// Documents so far.
    count: usize,
    /// Where the fields of the last document are among the columns: documents of a
    /// collection mostly have theirs in one order.
    usual: Vec<usize>,
    /// The group of the last document.
    last: usize,
}

impl<'a> Encoder<'a> {
    fn new(to: &'a Destination) -> Encoder<'a> {
        Encoder { to, groups: Vec::new(), count: 0, usual: Vec::new(), last: 0 }
    }

    fn add(&mut self, documents: &[RawDocumentBuf]) -> Result<(), RefusedRow> {
        let Destination { columns, .. } = self.to;
        let mut values: Vec<Option<RawBsonRef<'_>>> = vec![None; columns.len()];
        for document in documents {
            let at = self.count;
            let bad = |why| RefusedRow { at, row: self.to.bad(document, why) };
            values.fill(None);
            self.to.read(document, &mut values, &mut self.usual).map_err(bad)?;
            let is_written = |at: &usize| values[*at].is_some() || !columns[*at].has_default;
            let written = || (0..columns.len()).filter(is_written);
            let fits = |group: &Group| written().eq(group.columns.iter().copied());
            if !self.groups.get(self.last).is_some_and(fits) {
                self.last = self.groups.iter().position(fits).unwrap_or_else(|| {
                    let columns = written().collect();
                    self.groups.push(Group { columns, rows: Vec::new(), ends: Vec::new() });
                    self.groups.len() - 1
                });
            }
            let Group { columns: written, rows, ends } = &mut self.groups[self.last];
            rows.extend(i16::try_from(written.len()).unwrap_or(i16::MAX).to_be_bytes());
            for at in written {
                columns[*at].encode(values[*at], rows).map_err(bad)?;
            }
            ends.push((rows.len(), self.count));
            self.count += 1;
        }
        Ok(())
    }
}

/// How rows get into the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    Straight,
    Staged,
}

impl Target for Postgres {
    async fn ready(&mut self, job: Job<'_>) -> Result<(), StoreError> {
        // The table may have changed since it was looked at for the plan.
        self.destinations.remove(&job.record.step);
        destination(self, job).await.map(drop)
    }

    async fn workers(&mut self, job: Job<'_>) -> Result<u64, StoreError> {
        match destination(self, job).await {
            Ok(to) if !to.has_order => Ok(WORKERS),
            Ok(_) => Ok(1),
            // It is said when there is something to write.
            Err(error) if error.fate == Fate::Refused => Ok(1),
            Err(error) => Err(error),
        }
    }

    async fn put(
        &mut self,
        job: Job<'_>,
        shard: &Shard,
        page: &Page,
    ) -> Result<Option<Batch>, StoreError> {
        around(put(self, job, shard, page), "copy in Postgres").await
    }
}

fn refused(doing: &'static str, message: String, hint: &str) -> StoreError {
    let mut error = StoreError::new(StoreName::Postgres, doing, Fate::Refused, message);
    error.said.hint = Some(hint.to_owned());
    error
}

async fn destination(store: &mut Postgres, job: Job<'_>) -> Result<Arc<Destination>, StoreError> {
    if let Some(known) = store.destinations.get(&job.record.step) {
        return Ok(known.clone());
    }
    let Work::CopyToPostgres { to, key, .. } = job.work else {
        return Err(refused(
            LOOK,
            "this backfill does not copy into Postgres".to_owned(),
            "report this: it is a defect of this program",
        ));
    };
    clean(store).await?;
    store.open = true;
    let begun = store.client.batch_execute(&begin(store, job)).await;
    begun.map_err(|error| failed(LOOK, &error))?;
    let found = look(store, to, key).await;
    let ended = store.client.batch_execute("ROLLBACK").await;
    store.open = false;
    let found = Arc::new(found?);
    ended.map_err(|error| failed(LOOK, &error))?;
    store.destinations.insert(job.record.step.clone(), found.clone());
    Ok(found)
}

/// Begins a transaction as a script would see it, but for the limits of a batch and
/// the mark by which triggers know one.
fn begin(store: &Postgres, job: Job<'_>) -> String {
    let timeouts = Timeouts {
        lock: Some(job.timeouts.lock.unwrap_or(LOCK_TIMEOUT)),
        statement: Some(job.timeouts.statement.unwrap_or(STATEMENT_TIMEOUT)),
    };
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {}; SET LOCAL client_min_messages = \
         warning; {}",
        settings(store, timeouts, "SET LOCAL"),
        begin_writing(None)
    )
}

/// The columns of a table, with what their types are made of: a domain is as far as
/// values go what it is a domain over.
const COLUMNS: &str = "WITH RECURSIVE down AS ( \
     SELECT a.attnum, a.atttypid AS oid, a.atttypmod AS modifier, false AS has_default \
     FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = $1 \
     UNION ALL SELECT d.attnum, t.typbasetype, t.typtypmod, \
     d.has_default OR t.typdefault IS NOT NULL \
     FROM down AS d JOIN pg_catalog.pg_type AS t ON t.oid = d.oid AND t.typtype = 'd') \
     SELECT a.attname::text, \
     CASE WHEN a.attgenerated <> '' THEN 'generated' WHEN a.attidentity = 'a' THEN 'identity' END, \
     a.atthasdef OR a.attidentity = 'd' OR d.has_default, \
     pg_catalog.concat_ws(' ', a.attname, a.atttypid, a.atttypmod, a.attcollation), \
     pg_catalog.format_type(a.atttypid, a.atttypmod), \
     coalesce(NOT l.collisdeterministic, false), \
     t.oid, t.typname::text, d.modifier, t.typtype::text, \
     e.oid, e.typname::text, e.typtype::text, \
     (SELECT pg_catalog.array_agg(n.enumlabel::text ORDER BY n.enumsortorder) \
     FROM pg_catalog.pg_enum AS n WHERE n.enumtypid = coalesce(e.oid, t.oid)) \
     FROM pg_catalog.pg_attribute AS a \
     JOIN down AS d ON d.attnum = a.attnum \
     JOIN pg_catalog.pg_type AS t ON t.oid = d.oid AND t.typtype <> 'd' \
     LEFT JOIN pg_catalog.pg_type AS e ON t.typcategory = 'A' AND e.oid = t.typelem \
     LEFT JOIN pg_catalog.pg_collation AS l ON l.oid = a.attcollation \
     WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";

/// What values of a column are; `None` where the type table has no line for it.
fn kind(row: &Row) -> Option<Kind> {
    let labels: Vec<String> = row.get::<_, Option<_>>(13).unwrap_or_default();
    let form = |kind: &str| match kind {
        "b" => Form::Plain,
        "e" => Form::Enum(&labels),
        _ => Form::Other,
    };
    let modifier = row.get(8);
    let element = row.get::<_, Option<u32>>(10).map(|oid| PgType {
        oid,
        name: row.get(11),
        modifier,
        form: form(row.get(12)),
    });
    let form = match &element {
        Some(element) => Form::Array(element),
        None => form(row.get(9)),
    };
    Kind::of(&PgType { oid: row.get(6), name: row.get(7), modifier, form })
}

async fn look(
    store: &Postgres,
    name: &QualifiedName,
    key: &[String],
) -> Result<Destination, StoreError> {
    let Some(table) = find_table(store, &quoted(name)).await? else {
        return Err(refused(
            LOOK,
            format!("there is no table {name}"),
            "create it in `prepare`, or name its schema too",
        ));
    };
    let shown = table.shown();
    if !matches!(table.kind, 'r' | 'p') {
        return Err(refused(
            LOOK,
            format!("{shown} is no table: documents cannot be copied into it"),
            "name the table that has the rows",
        ));
    }
    let rows = store.client.query_typed(COLUMNS, &[(&table.oid, Type::OID)]).await;
    let rows = rows.map_err(|error| failed(LOOK, &error))?;
    let (mut columns, mut closed) = (Vec::new(), BTreeMap::new());
    let mut definition = table.oid.to_string();
    for row in &rows {
        let name: String = row.get(0);
        match row.get::<_, Option<&str>>(1) {
            Some("generated") => {
                closed.insert(name, "Postgres computes it from other columns (GENERATED ALWAYS)");
                continue;
            }
            Some(_) => {
                closed.insert(name, "Postgres counts it (GENERATED ALWAYS AS IDENTITY)");
                continue;
            }
            None => {}
        }
        definition.push_str(row.get(3));
        definition.push('\n');
        let kind = kind(row);
        let names = [row.get::<_, Option<&str>>(7), row.get(11)];
        let told_by = told_by(kind.as_ref(), names.contains(&Some("citext")), row.get(5));
        let shown = row.get(4);
        columns.push(Column { name, shown, kind, has_default: row.get(2), told_by });
    }
    let by_name: HashMap<String, usize> =
        columns.iter().enumerate().map(|(at, column)| (column.name.clone(), at)).collect();
    let mut places = Vec::new();
    for name in key {
        match by_name.get(name) {
            Some(at) => places.push(*at),
            None if closed.contains_key(name) => {
                return Err(refused(
                    LOOK,
                    format!("`{name}` is the key of {shown}, and {}", closed[name]),
                    "make it GENERATED BY DEFAULT AS IDENTITY in `prepare`, or choose another `key`",
                ));
            }
            None => {
                let all: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
                return Err(refused(
                    LOOK,
                    format!("{shown} has no column `{name}`, which `key` names"),
                    &format!("its columns are {}", all.join(", ")),
                ));
            }
        }
    }
    refuse_without_index(store, &table, key).await?;
    let checksum = Checksum::of(definition.as_bytes()).to_string();
    let digits = checksum.rsplit(':').next().unwrap_or_default();
    Ok(Destination {
        quoted: table.quoted(),
        shown,
        columns,
        by_name,
        closed,
        key: places,
        has_order: refers_to_itself(store, &table).await?,
        stage: format!("pg_temp.lockstep_copy_{}", digits.get(..16).unwrap_or(digits)),
        is_fresh: AtomicBool::new(true),
    })
}

/// By what two values of a column are told apart: what its type finds equal may differ
/// (`Ada` and `ADA` of citext, 30 days and a month), and `json` has no equality at all.
fn told_by(kind: Option<&Kind>, is_citext: bool, is_lax: bool) -> &'static str {
    let element = match kind {
        Some(Kind::Array(element)) => Some(&element.kind),
        kind => kind,
    };
    match element {
        None | Some(Kind::Json | Kind::Interval(_)) => "::text",
        Some(_) if is_citext => "::text",
        Some(_) if is_lax => " COLLATE pg_catalog.\"C\"",
        Some(_) => "",
    }
}

/// Whether rows refer to others of the same table, which have to be there first.
async fn refers_to_itself(store: &Postgres, table: &Table) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM pg_catalog.pg_constraint AS c WHERE c.conrelid = $1 \
         AND c.contype = 'f' AND c.confrelid = c.conrelid LIMIT 1";
    let rows = store.client.query_typed(sql, &[(&table.oid, Type::OID)]).await;
    rows.map(|rows| !rows.is_empty()).map_err(|error| failed(LOOK, &error))
}

/// `ON CONFLICT` wants a unique index on just these columns, one that is looked at
/// with each row.
async fn refuse_without_index(
    store: &Postgres,
    table: &Table,
    key: &[String],
) -> Result<(), StoreError> {
    let sql = "SELECT 1 FROM pg_catalog.pg_index AS i WHERE i.indrelid = $1 AND i.indisunique \
         AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL \
         AND (SELECT pg_catalog.array_agg(a.attname::text ORDER BY a.attname::text COLLATE \"C\") \
         FROM pg_catalog.generate_series(0, i.indnkeyatts - 1) AS k (n) \
         JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k.n]) \
         = $2 LIMIT 1";
    let mut sorted = key.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let params: [(&(dyn ToSql + Sync), Type); 2] =
        [(&table.oid, Type::OID), (&sorted, Type::TEXT_ARRAY)];
    let rows = store.client.query_typed(sql, &params).await;
    if !rows.map_err(|error| failed(LOOK, &error))?.is_empty() {
        return Ok(());
    }
    let list = key.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ");
    Err(refused(
        LOOK,
        format!(
            "no unique index of {} is on ({list}), by which a document finds its row",
            table.shown()
        ),
        &format!(
            "create one in `prepare`: CREATE UNIQUE INDEX … ON {} ({list}); a partial index and a \
             deferrable constraint do not count",
            table.shown()
        ),
    ))
}

/// The length of a field that is NULL.
const NULL: i32 = -1;

impl Column {
    /// Appends a field of COPY in binary.
    fn encode(&self, value: Option<RawBsonRef<'_>>, row: &mut Vec<u8>) -> Result<(), String> {
        let Column { name, shown, kind, .. } = self;
        match (kind, value) {
            (Some(kind), value) => kind
                .field(value, row)
                .map_err(|bad| format!("its field `{name}` does not fit into {shown}: {bad}")),
            (None, None | Some(RawBsonRef::Null | RawBsonRef::Undefined)) => {
                row.extend(NULL.to_be_bytes());
                Ok(())
            }
            (None, Some(_)) => Err(format!(
                "it has a field `{name}`, and documents have nothing that a column of type \
                 {shown} could hold"
            )),
        }
    }
}

impl Destination {
    /// The documents as rows: those that have the same columns together.
    fn encode(&self, documents: &[RawDocumentBuf]) -> Result<Vec<Group>, RefusedRow> {
        let mut encoder = Encoder::new(self);
        encoder.add(documents)?;
        Ok(encoder.groups)
    }

    /// What one statement writes twice, Postgres refuses; of two it would not.
    fn refuse_twice(&self, documents: &[RawDocumentBuf]) -> Result<(), RefusedRow> {
        let mut keys: HashSet<Vec<u8>> = HashSet::new();
        for (at, document) in documents.iter().enumerate() {
            let bad = |why| RefusedRow { at, row: self.bad(document, why) };
            let mut key = Vec::new();
            for at in &self.key {
                let column = &self.columns[*at];
                let value = document.get(&column.name).ok().flatten();
                column.encode(value, &mut key).map_err(bad)?;
            }
            if !keys.insert(key) {
                return Err(bad(TWICE.to_owned()));
            }
        }
        Ok(())
    }

    /// The values of a document, each at its column.
    fn read<'a>(
        &self,
        document: &'a RawDocument,
        values: &mut [Option<RawBsonRef<'a>>],
        usual: &mut Vec<usize>,
    ) -> Result<(), String> {
        for (number, field) in document.iter().enumerate() {
            let (name, value) = field.map_err(|error| format!("it is no BSON: {error}"))?;
            let name = name.as_str();
            let guess = usual.get(number).copied();
            let guess = guess.filter(|at| self.columns[*at].name == name);
            let Some(at) = guess.or_else(|| self.by_name.get(name).copied()) else {
                return Err(match self.closed.get(name) {
                    Some(why) => format!("it has a field `{name}`, and {why}"),
                    None => {
                        format!("it has a field `{name}`, and {} has no such column", self.shown)
                    }
                });
            };
            if let Some(place) = usual.get_mut(number) {
                *place = at;
            } else {
                usual.push(at);
            }
            if values[at].replace(value).is_some() {
                return Err(format!("it has the field `{name}` twice"));
            }
        }
        for at in &self.key {
            if matches!(values[*at], None | Some(RawBsonRef::Null | RawBsonRef::Undefined)) {
                return Err(format!("its key `{}` is missing or null", self.columns[*at].name));
            }
        }
        Ok(())
    }

    fn bad(&self, document: &RawDocument, reason: String) -> BadRow {
        let document = Document::try_from(document).unwrap_or_default();
        let shown = |value: &Bson| value.clone().into_relaxed_extjson().to_string();
        let key = self.key.iter().map(|at| {
            let name = &self.columns[*at].name;
            document.get(name).map_or_else(|| "null".to_owned(), shown)
        });
        let key = match key.collect::<Vec<_>>().as_slice() {
            [only] => only.clone(),
            several => format!("({})", several.join(", ")),
        };
        let row = shown(&Bson::Document(document));
        BadRow { key, row: row.chars().take(SHOWN).collect(), reason }
    }

    fn names(&self, columns: &[usize]) -> String {
        columns.iter().map(|at| quote(&self.columns[*at].name)).collect::<Vec<_>>().join(", ")
    }

    /// Makes the temporary table, if this session has none yet. It is of the columns
    /// that are written and has none of their constraints: whoever pools sessions may
    /// give us one that has it already.
    fn make_stage(&self) -> String {
        let all: Vec<usize> = (0..self.columns.len()).collect();
        format!(
            "CREATE TEMPORARY TABLE IF NOT EXISTS {} ON COMMIT DELETE ROWS AS \
             SELECT {} FROM {} WITH NO DATA",
            self.stage,
            self.names(&all),
            self.quoted
        )
    }

    /// Inserts what is missing, updates what differs.
    fn merge(&self, columns: &[usize]) -> String {
        let names = self.names(columns);
        let others: Vec<&Column> = columns
            .iter()
            .filter(|at| !self.key.contains(at))
            .map(|at| &self.columns[*at])
            .collect();
        let name = |column: &Column| quote(&column.name);
        let set: Vec<String> =
            others.iter().map(|column| format!("{0} = excluded.{0}", name(column))).collect();
        let differs: Vec<String> = others
            .iter()
            .map(|column| {
                let (name, told_by) = (name(column), column.told_by);
                format!("t.{name}{told_by} IS DISTINCT FROM excluded.{name}{told_by}")
            })
            .collect();
        let action = match set.is_empty() {
            true => "NOTHING".to_owned(),
            false => format!("UPDATE SET {} WHERE {}", set.join(", "), differs.join(" OR ")),
        };
        format!(
            "INSERT INTO {} AS t ({names}) SELECT {names} FROM {} ON CONFLICT ({}) DO {action}",
            self.quoted,
            self.stage,
            self.names(&self.key)
        )
    }
}

const TWICE: &str = "another document of the same page has its key";

async fn put(
    store: &mut Postgres,
    job: Job<'_>,
    shard: &Shard,
    page: &Page,
) -> Result<Option<Batch>, StoreError> {
    let to = destination(store, job).await?;
    clean(store).await?;
    let mut way = match to.is_fresh.load(Ordering::Relaxed) {
        true => Way::Straight,
        false => Way::Staged,
    };
    loop {
        store.open = true;
        let moved = write(store, (job, shard, page), &to, way).await;
        let error = match moved {
            Ok(Some(mut batch)) => {
                let began = Instant::now();
                match settle_transaction(store, Ok(()), COPY).await {
                    Ok(()) => {
                        batch.commit = began.elapsed();
                        return Ok(Some(batch));
                    }
                    Err(error) => error,
                }
            }
            other => {
                // If the connection is gone, so is the transaction.
                let _ = store.client.batch_execute("ROLLBACK").await;
                store.open = false;
                match other {
                    Err(error) => error,
                    Ok(_) => return Ok(None),
                }
            }
        };
        if way == Way::Straight && is_taken(&error) {
            to.is_fresh.store(false, Ordering::Relaxed);
            way = Way::Staged;
            continue;
        }
        if is_about_a_row(&error) {
            return Err(blame(store, job, &to, page, error).await);
        }
        return Err(advise(error));
    }
}

fn code(error: &StoreError) -> Option<&str> {
    error.said.code.as_deref()?.strip_prefix("SQLSTATE ")
}

/// Keys are there already; or rows must not be copied straight into this table, as
/// policies say which rows may be.
fn is_taken(error: &StoreError) -> bool {
    matches!(code(error), Some("23505" | "0A000"))
}

fn advise(mut error: StoreError) -> StoreError {
    if code(&error) == Some("42501") && error.said.message.contains("temporary") {
        error.said.hint = Some(
            "grant the user of the connection TEMPORARY on the database: rows that are there \
             already are compared with a temporary table"
                .to_owned(),
        );
    }
    error
}

/// Round trips of a page before its commit: it begins, prepares, sends, merges, and moves
/// its cursor.
const TRIPS: u32 = 6;

/// All of a page but its end.
async fn write(
    store: &Postgres,
    (job, shard, page): (Job<'_>, &Shard, &Page),
    to: &Destination,
    way: Way,
) -> Result<Option<Batch>, StoreError> {
    let mut opening = begin(store, job);
    if way == Way::Staged {
        opening.push_str("; ");
        opening.push_str(&to.make_stage());
    }
    let (begun, held) =
        join(store.client.batch_execute(&opening), hold_cursor(store, job, shard)).await;
    begun.map_err(|error| failed(COPY, &error))?;
    if !held? {
        return Ok(None);
    }
    let mut rows = 0;
    let mut encoder = Encoder::new(to);
    let mut slices = page.documents.chunks(SLICE);
    if let Some(first) = slices.next() {
        let bad = |bad| bad_row(to, bad, None);
        encoder.add(first).map_err(bad)?;
        rows += send(store, &mut encoder, slices, way).await?;
        if encoder.groups.len() > 1 {
            to.refuse_twice(&page.documents).map_err(bad)?;
        }
    }
    for group in encoder.groups.iter().skip(1) {
        empty(store, to, way).await?;
        rows += fill(store, to, group, group.ends.len(), way).await?;
    }
    reach("rows that are copied into Postgres without their cursor");
    let mut moved = shard.clone();
    moved.done = page.is_last;
    moved.claimed = !moved.done;
    moved.after = match (&page.upto, page.is_last) {
        (Some(upto), false) => Some(upto.clone()),
        (None, false) => shard.after.clone(),
        (_, true) => Some(shard.upto.clone()),
    };
    moved.passed += page.passed;
    moved.rows += rows;
    let began = Instant::now();
    let moved = move_cursor(store, job, moved, rows).await?;
    let trips = began.elapsed() * TRIPS;
    if moved.is_some() {
        put_aside(store, job, shard.index, &page.bad).await?;
    }
    let batch = |shard| Batch { shard, passed: page.passed, rows, trips, commit: Duration::ZERO };
    Ok(moved.map(batch))
}

type Rows = CopyInSink<Cursor<Vec<u8>>>;

/// Begins to send rows with these columns.
async fn open(
    store: &Postgres,
    to: &Destination,
    columns: &[usize],
    way: Way,
) -> Result<Rows, StoreError> {
    let into = match way {
        Way::Straight => &to.quoted,
        Way::Staged => &to.stage,
    };
    let copy = format!("COPY {into} ({}) FROM STDIN (FORMAT binary)", to.names(columns));
    store.client.copy_in(&copy).await.map_err(|error| failed(COPY, &error))
}

/// Ends it. How many rows were written.
async fn close(
    store: &Postgres,
    to: &Destination,
    columns: &[usize],
    mut sink: Pin<&mut Rows>,
    way: Way,
) -> Result<u64, StoreError> {
    // If it does not go, the end says why.
    let _ = sink.send(Cursor::new(TRAILER.to_vec())).await;
    let copied = sink.finish().await.map_err(|error| failed(COPY, &error))?;
    match way {
        Way::Straight => Ok(copied),
        Way::Staged => {
            let merged = store.client.execute_typed(&to.merge(columns), &[]).await;
            merged.map_err(|error| failed(COPY, &error))
        }
    }
}

/// Writes the rows of the first group, while they are made. Other groups are made, and
/// stay.
async fn send(
    store: &Postgres,
    encoder: &mut Encoder<'_>,
    slices: impl Iterator<Item = &[RawDocumentBuf]>,
    way: Way,
) -> Result<u64, StoreError> {
    let to = encoder.to;
    let columns = encoder.groups[0].columns.clone();
    let sink = open(store, to, &columns, way).await?;
    pin_mut!(sink);
    let mut is_taken = sink.send(Cursor::new(HEADER.to_vec())).await.is_ok();
    let mut send = async |encoder: &mut Encoder<'_>| {
        let rows = std::mem::take(&mut encoder.groups[0].rows);
        // What Postgres says against it is said at the end.
        is_taken = is_taken && sink.send(Cursor::new(rows)).await.is_ok();
    };
    send(encoder).await;
    for slice in slices {
        encoder.add(slice).map_err(|bad| bad_row(to, bad, None))?;
        send(encoder).await;
    }
    close(store, to, &columns, sink, way).await
}

/// The temporary table has no rows any more.
async fn empty(store: &Postgres, to: &Destination, way: Way) -> Result<(), StoreError> {
    if way == Way::Straight {
        return Ok(());
    }
    let emptied = store.client.batch_execute(&format!("DELETE FROM {}", to.stage)).await;
    emptied.map_err(|error| failed(COPY, &error))
}

/// Writes the first rows of a group. How many were written.
async fn fill(
    store: &Postgres,
    to: &Destination,
    group: &Group,
    count: usize,
    way: Way,
) -> Result<u64, StoreError> {
    let Some((end, _)) = count.checked_sub(1).and_then(|last| group.ends.get(last)) else {
        return Ok(0);
    };
    let sink = open(store, to, &group.columns, way).await?;
    pin_mut!(sink);
    let rows = [HEADER, &group.rows[..*end]].concat();
    let _ = sink.send(Cursor::new(rows)).await;
    close(store, to, &group.columns, sink, way).await
}

/// Says which row it is that Postgres refuses: the first without which the ones
/// before are not refused.
async fn blame(
    store: &mut Postgres,
    job: Job<'_>,
    to: &Destination,
    page: &Page,
    mut error: StoreError,
) -> StoreError {
    let Ok(groups) = to.encode(&page.documents) else { return error };
    let (mut good, mut bad) = (0, groups.iter().map(|group| group.ends.len()).sum::<usize>());
    let mut tried = bad;
    while bad > good {
        match try_out(store, job, to, &groups, tried).await {
            Ok(()) if tried == bad => return error,
            Ok(()) => good = tried,
            Err(again) if is_about_a_row(&again) => (bad, error) = (tried, again),
            Err(_) => return error,
        }
        if bad == good + 1 {
            break;
        }
        tried = good + (bad - good) / 2;
    }
    let mut rows = groups.iter().flat_map(|group| &group.ends);
    let at = rows.nth(good).map(|(_, number)| *number);
    match at.and_then(|at| Some((at, page.documents.get(at)?))) {
        Some((at, document)) => {
            let twice = code(&error) == Some("21000");
            let why = if twice { TWICE.to_owned() } else { error.said.message.clone() };
            let row = to.bad(document, why);
            bad_row(to, RefusedRow { at, row }, Some(error))
        }
        None => error,
    }
}

/// Writes the first rows of a page, and takes them back.
async fn try_out(
    store: &mut Postgres,
    job: Job<'_>,
    to: &Destination,
    groups: &[Group],
    mut count: usize,
) -> Result<(), StoreError> {
    store.open = true;
    let opening = format!("{}; {}", begin(store, job), to.make_stage());
    let tried = async {
        let begun = store.client.batch_execute(&opening).await;
        begun.map_err(|error| failed(COPY, &error))?;
        for group in groups {
            let some = count.min(group.ends.len());
            fill(store, to, group, some, Way::Staged).await?;
            empty(store, to, Way::Staged).await?;
            count -= some;
        }
        // What is put off until the end would be refused there.
        let checked = store.client.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await;
        checked.map_err(|error| failed(COPY, &error))
    }
    .await;
    let _ = store.client.batch_execute("ROLLBACK").await;
    store.open = false;
    tried
}

/// A row that cannot be written; what Postgres said of it, if it was asked.
fn bad_row(to: &Destination, bad: RefusedRow, said: Option<StoreError>) -> StoreError {
    let BadRow { key, row, reason } = &bad.row;
    let hint = match reason.as_str() {
        TWICE => {
            "`key` must tell all rows apart: add the column that does, or make one document of \
             them in `pipeline`"
        }
        why if why.starts_with("it has a field") => {
            "leave the field out in `pipeline`, with `$unset` or `$project`; or add the column in \
             `prepare`"
        }
        _ => {
            "change the document, or what `pipeline` makes of it; then run this again: it goes on \
             where it stopped"
        }
    };
    let message =
        format!("the row with the key {key} cannot be copied into {}: {reason}", to.shown);
    let mut error = refused(COPY, message, hint);
    error.said.detail = Some(format!("the row is {row}"));
    if let Some(said) = said {
        error.said.code = said.said.code;
        if let Some(detail) = said.said.detail {
            error.said.detail = Some(format!("{detail}; the row is {row}"));
        }
    }
    error.said.row = Some(Box::new(bad));
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::mapping::{Element, Finest};

    #[test]
    fn values_that_a_type_finds_equal_are_told_apart_by_their_texts() {
        let array = |kind| Kind::Array(Box::new(Element { kind, oid: 0 }));
        let interval = || Kind::Interval(Finest::Micros(1));
        for kind in [Kind::Json, interval(), array(Kind::Json), array(interval())] {
            assert_eq!(told_by(Some(&kind), false, false), "::text", "{kind}");
        }
        for kind in [Kind::Text(None), array(Kind::Text(None))] {
            assert_eq!(told_by(Some(&kind), true, false), "::text", "citext as {kind}");
            assert_eq!(told_by(Some(&kind), false, true), " COLLATE pg_catalog.\"C\"", "{kind}");
            assert_eq!(told_by(Some(&kind), false, false), "", "{kind}");
        }
        assert_eq!(told_by(None, false, false), "::text");
        assert_eq!(told_by(Some(&Kind::Jsonb), false, false), "");
    }
}
