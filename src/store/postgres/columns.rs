//! The columns of somebody's query: their names, their types, and how their values
//! are read.
//!
//! A type that the server numbers for itself, such as an enum, is cast to the one
//! below it or to text: so nothing has to be asked about types while rows are read,
//! and nothing is prepared under a name.

use super::{Postgres, failed, quote};
use crate::core::id::StoreName;
use crate::core::mapping::{Column, Form, Kind, PgType, cast_hint};
use crate::store::{Fate, StoreError};
use std::collections::BTreeMap;
use std::error::Error;
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Row, SimpleQueryMessage};

pub(super) const SURVEY: &str = "look at the rows to copy";

/// One column of a query.
pub(super) struct Found {
    pub(super) column: Column,
    /// Behind its name, where the type is the server's own.
    pub(super) cast: Option<String>,
    /// Its type as a cast to it names it.
    pub(super) qualified: String,
    /// Its type for people.
    pub(super) shown: String,
}

pub(super) fn refused(message: String, hint: &str) -> StoreError {
    let mut error = StoreError::new(StoreName::Postgres, SURVEY, Fate::Refused, message);
    error.said.hint = Some(hint.to_owned());
    error
}

/// A failure of a statement around the query: where it stands in that is nothing that
/// anybody has seen.
pub(super) fn inside(doing: &'static str, error: &tokio_postgres::Error) -> StoreError {
    let mut failure = failed(doing, error);
    failure.said.position = None;
    failure
}

/// The query as a table.
pub(super) fn from(query: &str) -> String {
    // It may end with a comment.
    format!("FROM (\n{query}\n) AS q")
}

/// The columns of a query, and the kinds of them all.
pub(super) async fn describe(store: &Postgres, query: &str) -> Result<Vec<Found>, StoreError> {
    let names = format!("SELECT * {} LIMIT 0", from(query));
    let described = store.client.simple_query(&names).await;
    let described = described.map_err(|error| inside(SURVEY, &error))?;
    let names = described.iter().find_map(|message| match message {
        SimpleQueryMessage::RowDescription(columns) => Some(columns),
        _ => None,
    });
    let names: Vec<String> =
        names.iter().flat_map(|columns| columns.iter().map(|it| it.name().to_owned())).collect();
    for (at, name) in names.iter().enumerate() {
        if names[..at].contains(name) {
            return Err(refused(
                format!("the query has two columns called `{name}`"),
                "give one of them another name: SELECT … AS …",
            ));
        }
    }
    // One row of nothing, which has the types of all columns.
    let types: Vec<String> = names
        .iter()
        .map(|name| format!("pg_catalog.pg_typeof(q.{})::pg_catalog.oid", quote(name)))
        .collect();
    let types = format!(
        "SELECT ARRAY[{}]::pg_catalog.oid[] FROM (SELECT 1) AS one \
         LEFT JOIN (SELECT * {} LIMIT 0) AS q ON true",
        types.join(", "),
        from(query)
    );
    let rows = store.client.query_typed(&types, &[]).await;
    let rows = rows.map_err(|error| inside(SURVEY, &error))?;
    let oids: Vec<u32> = rows.first().map(|row| row.get(0)).unwrap_or_default();
    let types = types_of(store, &oids).await?;
    names.into_iter().zip(&oids).map(|(name, oid)| column(name, *oid, &types)).collect()
}

/// A type, as the catalog has it.
struct PlainType {
    name: String,
    /// `typtype`
    kind: char,
    /// What an array is made of.
    element: Option<u32>,
    /// What a domain is over.
    base: Option<u32>,
    qualified: String,
    shown: String,
}

/// Types by their numbers, and those that they are made of.
async fn types_of(store: &Postgres, oids: &[u32]) -> Result<BTreeMap<u32, PlainType>, StoreError> {
    let sql = "WITH RECURSIVE types AS (\
         SELECT t.* FROM pg_catalog.pg_type AS t WHERE t.oid = ANY ($1) \
         UNION ALL SELECT t.* FROM types AS of JOIN pg_catalog.pg_type AS t \
         ON t.oid = CASE WHEN of.typtype = 'd' THEN of.typbasetype \
         WHEN of.typcategory = 'A' THEN of.typelem END) \
         SELECT DISTINCT t.oid, t.typname::text, t.typtype::text, \
         CASE WHEN t.typcategory = 'A' AND t.typtype <> 'd' THEN t.typelem END, \
         CASE WHEN t.typtype = 'd' THEN t.typbasetype END, \
         pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(t.typname), \
         pg_catalog.format_type(t.oid, NULL) \
         FROM types AS t JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace";
    let rows = store.client.query_typed(sql, &[(&oids, Type::OID_ARRAY)]).await;
    let rows = rows.map_err(|error| failed(SURVEY, &error))?;
    let type_of = |row: &Row| {
        let found = PlainType {
            name: row.get(1),
            kind: row.get::<_, &str>(2).chars().next().unwrap_or('b'),
            element: row.get(3),
            base: row.get(4),
            qualified: row.get(5),
            shown: row.get(6),
        };
        (row.get::<_, u32>(0), found)
    };
    Ok(rows.iter().map(type_of).collect())
}

/// Types below this number are the same on every server.
const FIRST_NORMAL_OID: u32 = 16_384;

/// A column whose kind is in the type table.
fn column(name: String, oid: u32, types: &BTreeMap<u32, PlainType>) -> Result<Found, StoreError> {
    let (shown, own) = match types.get(&oid) {
        Some(found) => (found.shown.clone(), found.name.clone()),
        None => (format!("number {oid}"), String::new()),
    };
    let refusal = || {
        refused(
            format!("column `{name}` is of type {shown}, which has no counterpart in MongoDB"),
            &format!("cast it in the query, for example `{}{}`", quote(&name), cast_hint(&own)),
        )
    };
    let (below, qualified) = below(oid, types).ok_or_else(refusal)?;
    let as_read = PgType { oid: below.oid, name: "", modifier: -1, form: Form::Plain };
    let kind = Kind::of(&as_read).ok_or_else(refusal)?;
    let cast = (below.oid != oid).then(|| format!("::{}", below.cast));
    Ok(Found { column: Column { name, kind }, cast, qualified, shown })
}

/// A type that every server has.
struct Below {
    oid: u32,
    cast: String,
}

/// The type as which values of another are read, and the type to which a key of it is
/// cast.
fn below(oid: u32, types: &BTreeMap<u32, PlainType>) -> Option<(Below, String)> {
    let found = types.get(&oid)?;
    if let Some(base) = found.base {
        return below(base, types);
    }
    let text = Below { oid: Type::TEXT.oid(), cast: "pg_catalog.text".to_owned() };
    if oid < FIRST_NORMAL_OID {
        return Some((Below { oid, cast: found.qualified.clone() }, found.qualified.clone()));
    }
    if found.kind == 'e' || found.name == "citext" {
        return Some((text, found.qualified.clone()));
    }
    let (element, _) = below(found.element?, types)?;
    let (_, array) = ARRAYS.iter().find(|(of, _)| of.oid() == element.oid)?;
    let cast = format!("{}[]", element.cast);
    Some((Below { oid: array.oid(), cast }, found.qualified.clone()))
}

/// The arrays of the types that a type of somebody's own may be read as.
const ARRAYS: [(Type, Type); 19] = [
    (Type::TEXT, Type::TEXT_ARRAY),
    (Type::VARCHAR, Type::VARCHAR_ARRAY),
    (Type::BPCHAR, Type::BPCHAR_ARRAY),
    (Type::INT2, Type::INT2_ARRAY),
    (Type::INT4, Type::INT4_ARRAY),
    (Type::INT8, Type::INT8_ARRAY),
    (Type::NUMERIC, Type::NUMERIC_ARRAY),
    (Type::FLOAT4, Type::FLOAT4_ARRAY),
    (Type::FLOAT8, Type::FLOAT8_ARRAY),
    (Type::BOOL, Type::BOOL_ARRAY),
    (Type::TIMESTAMPTZ, Type::TIMESTAMPTZ_ARRAY),
    (Type::TIMESTAMP, Type::TIMESTAMP_ARRAY),
    (Type::DATE, Type::DATE_ARRAY),
    (Type::TIME, Type::TIME_ARRAY),
    (Type::INTERVAL, Type::INTERVAL_ARRAY),
    (Type::UUID, Type::UUID_ARRAY),
    (Type::BYTEA, Type::BYTEA_ARRAY),
    (Type::JSON, Type::JSON_ARRAY),
    (Type::JSONB, Type::JSONB_ARRAY),
];

/// Whether a type finds texts equal that are not the same.
pub(super) fn is_case_blind(shown: &str) -> bool {
    shown.rsplit('.').next() == Some("citext")
}

/// A value as it came, of whatever type.
pub(super) struct Raw<'a>(pub(super) Option<&'a [u8]>);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Raw<'a>, Box<dyn Error + Sync + Send>> {
        Ok(Raw(Some(raw)))
    }

    fn from_sql_null(_: &Type) -> Result<Raw<'a>, Box<dyn Error + Sync + Send>> {
        Ok(Raw(None))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}
