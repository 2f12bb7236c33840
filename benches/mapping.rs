//! What the type table costs: rows per second from Postgres' binary form to a
//! document, from a document to a row of COPY BINARY, and from a document to the
//! hash by which it is compared.
//!
//! `cargo bench --bench mapping [rows …]`

use bson::{RawBsonRef, RawDocumentBuf, doc};
use lockstep::core::mapping::{
    Column, Element, Finest, Kind, Written, canonical, document, kept, row,
};
use std::hint::black_box;
use std::time::Instant;

/// So many different rows are gone through in turns.
const DIFFERENT: usize = 1_000;

fn main() {
    let asked: Vec<usize> = std::env::args().filter_map(|size| size.parse().ok()).collect();
    let sizes = if asked.is_empty() { vec![1_000_000] } else { asked };
    println!(
        "{:>9} {:>9} {:>7} {:>12} {:>9} {:>9} {:>9}",
        "of", "rows", "bytes", "to document", "to row", "kept", "hash"
    );
    for rows in sizes {
        measure("scalars", rows, &scalars());
        measure("jsonb", rows, &json());
    }
}

type Rows = (Vec<Column>, Vec<RawDocumentBuf>);

fn columns<const N: usize>(columns: [(&str, Kind); N]) -> Vec<Column> {
    columns.map(|(name, kind)| Column { name: name.to_owned(), kind }).into()
}

fn decimal(text: &str) -> bson::Decimal128 {
    text.parse().expect("a number")
}

/// An order, as shops have them.
fn scalars() -> Rows {
    let texts = Kind::Array(Box::new(Element { kind: Kind::Text(None), oid: 25 }));
    let columns = columns([
        ("_id", Kind::Int8),
        ("customer", Kind::Uuid),
        ("email", Kind::Text(None)),
        ("total", Kind::Numeric(None)),
        ("weight", Kind::Float8),
        ("paid", Kind::Bool),
        ("lines", Kind::Int4),
        ("created_at", Kind::Timestamptz(6)),
        ("shipped_at", Kind::Timestamptz(6)),
        ("takes", Kind::Interval(Finest::Micros(1))),
        ("tags", texts),
    ]);
    let documents = (0..DIFFERENT).map(|at| {
        let int = i64::try_from(at).expect("it is small");
        let uuid = bson::Uuid::from_bytes([u8::try_from(at % 256).expect("it is small"); 16]);
        let document = doc! {
            "_id": int,
            "customer": uuid,
            "email": format!("somebody.{at}@example.com"),
            "total": decimal(&format!("{at}.99")),
            "weight": f64::from(u16::try_from(at).expect("it is small")) / 7.0,
            "paid": at % 2 == 0,
            "lines": i32::try_from(at).expect("it is small"),
            "created_at": bson::DateTime::from_millis(1_763_632_800_123 + int),
            "shipped_at": null,
            "takes": "P1DT2H",
            "tags": ["new", "gift"],
        };
        RawDocumentBuf::try_from(&document).expect("it is BSON")
    });
    (columns, documents.collect())
}

/// About 250 bytes of jsonb.
fn json() -> Rows {
    let columns = columns([("_id", Kind::Int8), ("doc", Kind::Jsonb)]);
    let documents = (0..DIFFERENT).map(|at| {
        let int = i64::try_from(at).expect("it is small");
        let document = doc! { "_id": int, "doc": {
            "name": format!("Somebody {at}"),
            "email": format!("somebody.{at}@example.com"),
            "address": { "street": "Kirchstraße 7", "city": "Köln", "zip": "50667", "geo": [50.9375, 6.9603] },
            "score": int * 37,
            "active": at % 3 == 0,
            "tags": ["alpha", "beta", "gamma"],
            "note": "a text that is a little longer than the others are",
        } };
        RawDocumentBuf::try_from(&document).expect("it is BSON")
    });
    (columns, documents.collect())
}

fn measure(name: &str, rows: usize, (columns, documents): &Rows) {
    let raw: Vec<Vec<Option<Vec<u8>>>> =
        documents.iter().map(|document| sent(columns, document)).collect();
    let bytes: usize = documents.iter().map(|document| document.as_bytes().len()).sum();
    let to_document = per_second(rows, |at| {
        let values = raw[at % DIFFERENT].iter().map(|value| value.as_deref());
        black_box(document(columns, values).expect("it fits"));
    });
    let mut out = Vec::new();
    let to_row = per_second(rows, |at| {
        out.clear();
        row(columns, &documents[at % DIFFERENT], &mut out).expect("it fits");
        black_box(&out);
    });
    let to_kept = per_second(rows, |at| {
        black_box(kept(columns, &documents[at % DIFFERENT]).expect("it fits"));
    });
    let to_hash = per_second(rows, |at| {
        black_box(canonical::hash(&documents[at % DIFFERENT], &[]).expect("it is BSON"));
    });
    let each = bytes / documents.len();
    println!(
        "{name:>9} {rows:>9} {each:>7} {to_document:>12.0} {to_row:>9.0} {to_kept:>9.0} {to_hash:>9.0}"
    );
}

/// What Postgres would send of a row.
fn sent(columns: &[Column], document: &RawDocumentBuf) -> Vec<Option<Vec<u8>>> {
    let value = |column: &Column| {
        let value: Option<RawBsonRef<'_>> = document.get(&column.name).expect("it is BSON");
        let mut out = Vec::new();
        let written = column.kind.encode(value, &mut out).expect("it fits");
        (written == Written::Value).then_some(out)
    };
    columns.iter().map(value).collect()
}

fn per_second(rows: usize, mut of: impl FnMut(usize)) -> f64 {
    let began = Instant::now();
    (0..rows).for_each(&mut of);
    let rows = u32::try_from(rows).expect("it is a bench");
    f64::from(rows) / began.elapsed().as_secs_f64()
}
