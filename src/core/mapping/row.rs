//! Whole rows: every column of one, by name.

use super::kind::Kind;
use super::{Bad, element};
use crate::core::expectation;
use bson::{Bson, RawBsonRef, RawDocument, RawDocumentBuf};

/// No document that MongoDB stores has more bytes.
pub const DOCUMENT_MAX: usize = 16 * 1024 * 1024;

/// A column of a row, which is a field of the document.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Column {
    /// Its name, in both.
    pub name: String,
    /// What it holds.
    pub kind: Kind,
}

/// The document that a row is: a field for each column, in their order. `values`
/// are as Postgres sends them in binary, and as many as there are columns.
pub fn document<'a>(
    columns: &[Column],
    values: impl IntoIterator<Item = Option<&'a [u8]>>,
) -> Result<RawDocumentBuf, Bad> {
    /// What most rows need.
    const USUAL: usize = 256;
    let mut out = Vec::with_capacity(USUAL);
    let whole = element::sized(&mut out);
    for (column, value) in columns.iter().zip(values) {
        column.kind.append(value, &column.name, &mut out).map_err(|bad| bad.of(&column.name))?;
    }
    whole.end_document(&mut out);
    if out.len() > DOCUMENT_MAX {
        return Err(Bad::new(format!(
            "the document of the row has {} bytes, and MongoDB stores {DOCUMENT_MAX} at most; leave a \
             column out in the query, or keep it elsewhere",
            out.len()
        )));
    }
    RawDocumentBuf::from_bytes(out).map_err(|error| Bad::malformed(&error))
}

/// Appends the row that a document is, as COPY reads it in binary: the number of
/// fields, and each with its length. A field that no column has the name of is
/// refused, for it would be lost. What was written before stays, whatever happens.
pub fn row(columns: &[Column], document: &RawDocument, out: &mut Vec<u8>) -> Result<(), Bad> {
    let begin = out.len();
    let appended = append_row(columns, document, out);
    if appended.is_err() {
        out.truncate(begin);
    }
    appended
}

fn append_row(columns: &[Column], document: &RawDocument, out: &mut Vec<u8>) -> Result<(), Bad> {
    out.extend(u16::try_from(columns.len()).unwrap_or(u16::MAX).to_be_bytes());
    for (column, value) in columns.iter().zip(by_column(columns, document)?) {
        column.kind.field(value, out).map_err(|bad| bad.of(&column.name))?;
    }
    Ok(())
}

/// The document as it comes back when it was a row of these columns: what a copy
/// from MongoDB is compared with. An ObjectId is the string or the bytes that its
/// column has, and so on.
pub fn kept(columns: &[Column], document: &RawDocument) -> Result<RawDocumentBuf, Bad> {
    let mut out = Vec::with_capacity(document.as_bytes().len());
    let mut raw = Vec::new();
    let whole = element::sized(&mut out);
    for (column, value) in columns.iter().zip(by_column(columns, document)?) {
        raw.clear();
        let append =
            |value: Option<&[u8]>, out: &mut Vec<u8>| column.kind.append(value, &column.name, out);
        match column.kind.encode(value, &mut raw) {
            Ok(super::Written::Null) => append(None, &mut out),
            Ok(super::Written::Value) => append(Some(&raw), &mut out),
            Err(bad) => Err(bad),
        }
        .map_err(|bad| bad.of(&column.name))?;
    }
    whole.end_document(&mut out);
    RawDocumentBuf::from_bytes(out).map_err(|error| Bad::malformed(&error))
}

/// The value for each column.
fn by_column<'a>(
    columns: &[Column],
    document: &'a RawDocument,
) -> Result<Vec<Option<RawBsonRef<'a>>>, Bad> {
    let mut values = vec![None; columns.len()];
    // Fields mostly come in the order of the columns.
    let mut next = 0;
    for field in document.iter_elements() {
        let field = field.map_err(|error| Bad::malformed(&error))?;
        let name = field.key().as_str();
        let is_it = |column: &Column| column.name == name;
        let at = match columns.get(next) {
            Some(column) if is_it(column) => next,
            _ => columns.iter().position(is_it).ok_or_else(|| {
                Bad::new(format!(
                    "`{name}`: the table has no column of this name; add one, or leave the field \
                     out in the pipeline with {{ $unset: {name:?} }}"
                ))
            })?,
        };
        values[at] = Some(field.value().map_err(|error| Bad::malformed(&error))?);
        next = at + 1;
    }
    Ok(values)
}

/// A row on one line, cut if it is long: `_id = 7, role = NULL`.
pub fn show(document: &RawDocument) -> String {
    let parts = document.into_iter().map(|field| match field {
        Ok((name, value)) => format!("{name} = {}", shown(value)),
        Err(error) => format!("({error})"),
    });
    expectation::clip(&parts.collect::<Vec<_>>().join(", "))
}

/// The fields of a key, cut if they are long: `7`, `(7, "b")`.
pub fn key(document: &RawDocument, fields: &[&str]) -> String {
    let value = |name: &&str| match document.get(name) {
        Ok(value) => value.map_or("NULL".to_owned(), shown),
        Err(error) => format!("({error})"),
    };
    match fields {
        [only] => value(only),
        several => {
            let values: Vec<String> = several.iter().map(value).collect();
            format!("({})", values.join(", "))
        }
    }
}

fn shown(value: RawBsonRef<'_>) -> String {
    match Bson::try_from(value) {
        Ok(value) => expectation::show(&value),
        Err(error) => format!("({error})"),
    }
}
