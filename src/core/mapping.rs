//! Rows as documents, and documents as rows: the type table between Postgres and
//! MongoDB.
//!
//! Raw bytes go in and raw bytes come out: what Postgres sends in binary, and what
//! COPY reads in binary; BSON, as it is sent to MongoDB. There is no tree in
//! between.

pub mod canonical;
pub mod decimal;
mod element;
mod iso;
mod json;
pub mod kind;
mod read;
mod row;
mod write;

pub use kind::{Element, Finest, Form, Kind, PgType, Precision, cast_hint};
pub use row::{Column, document, kept, key, row, show};
pub use write::Written;

use crate::core::expectation;
use bson::{Bson, RawBsonRef};
use std::fmt;

/// A value that the other store cannot hold as it is, and with it a row that is
/// not copied.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bad {
    /// What it is, what it does not fit, and what to do.
    pub reason: String,
}

impl Bad {
    fn new(reason: impl Into<String>) -> Bad {
        Bad { reason: reason.into() }
    }

    /// Bytes that are no BSON.
    fn malformed(error: &dyn fmt::Display) -> Bad {
        Bad::new(format!("the document is damaged: {error}; look at it in MongoDB, and mend it"))
    }

    /// The same, with the column that it is about.
    fn of(self, column: &str) -> Bad {
        Bad::new(format!("`{column}`: {}", self.reason))
    }
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Bad {}

/// A value with its type, for people: `the double 1.5`.
fn describe(value: RawBsonRef<'_>) -> String {
    let shown = || match Bson::try_from(value) {
        Ok(value) => expectation::show(&value),
        Err(error) => format!("({error})"),
    };
    let name = match value {
        RawBsonRef::Double(_) => "the double",
        RawBsonRef::String(_) => "the string",
        RawBsonRef::Array(_) => "the array",
        RawBsonRef::Document(_) => "the document",
        RawBsonRef::Boolean(value) => return format!("the bool {value}"),
        RawBsonRef::Null | RawBsonRef::Undefined => return "null".to_owned(),
        RawBsonRef::RegularExpression(_) => "the regular expression",
        RawBsonRef::JavaScriptCode(_) | RawBsonRef::JavaScriptCodeWithScope(_) => "the code",
        RawBsonRef::Int32(_) => "the int32",
        RawBsonRef::Int64(_) => "the int64",
        RawBsonRef::Timestamp(_) => "the timestamp",
        RawBsonRef::Binary(binary) => {
            let subtype = u8::from(binary.subtype);
            return format!("the binary of subtype {subtype} with {} bytes", binary.bytes.len());
        }
        RawBsonRef::ObjectId(_) => "the ObjectId",
        RawBsonRef::DateTime(_) => "the date",
        RawBsonRef::Symbol(_) => "the symbol",
        RawBsonRef::Decimal128(_) => "the Decimal128",
        RawBsonRef::MaxKey => return "the MaxKey".to_owned(),
        RawBsonRef::MinKey => return "the MinKey".to_owned(),
        RawBsonRef::DbPointer(_) => "the DBPointer",
    };
    format!("{name} {}", shown())
}
