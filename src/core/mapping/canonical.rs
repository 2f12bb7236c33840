//! When two documents say the same.
//!
//! A document is reduced to bytes that are equal when it says the same, and only
//! then: a tag before each value, and a length before what has one.
//! - A number is its value, whatever its type or scale: 1, 1.0 and 1.00 are one, -0
//!   is 0, and NaN is NaN. A double counts as the whole number that it is where
//!   that is an int64, else as the shortest decimal that stands for it: 0.1 is 0.1.
//! - The fields of a document are in the order of their names, at every level.
//! - A field of the row that is null is as one that is missing, for a column that
//!   is NULL is one or the other. Deeper down it is not: `jsonb` tells `{"a": null}`
//!   from `{}`, and so does this.
//!
//! No two different values have equal bytes, so that bytes that differ are a
//! difference, and their hashes stand for them: 128 bits of BLAKE3.

use super::Bad;
use super::decimal::{Decimal, Number, whole};
use bson::spec::ElementType;
use bson::{RawBsonRef, RawDocument};

/// The hash of what a document says, without some of its fields (names of the top level).
pub fn hash(document: &RawDocument, leave_out: &[&str]) -> Result<u128, Bad> {
    let mut bytes = Vec::with_capacity(document.as_bytes().len() * 2);
    append(document, leave_out, &mut bytes)?;
    Ok(digest(&bytes))
}

/// The hash of canonical bytes.
pub fn digest(bytes: &[u8]) -> u128 {
    let hash = blake3::hash(bytes);
    let half = hash.as_bytes().first_chunk().copied().unwrap_or_default();
    u128::from_le_bytes(half)
}

/// Appends what a document says, without some of its fields. For many documents
/// one buffer, which is emptied in between, does.
pub fn append(document: &RawDocument, leave_out: &[&str], out: &mut Vec<u8>) -> Result<(), Bad> {
    let said = |(name, value): &(&str, RawBsonRef<'_>)| {
        !matches!(value, RawBsonRef::Null | RawBsonRef::Undefined) && !leave_out.contains(name)
    };
    let mut fields = fields(document)?;
    fields.retain(said);
    put_fields(&mut fields, out)
}

/// Appends what one value says.
pub fn append_value(value: RawBsonRef<'_>, out: &mut Vec<u8>) -> Result<(), Bad> {
    put(value, out)
}

/// Whether two documents say the same.
pub fn equal(a: &RawDocument, b: &RawDocument) -> Result<bool, Bad> {
    if a.as_bytes() == b.as_bytes() {
        return Ok(true);
    }
    let (mut left, mut right) = (Vec::new(), Vec::new());
    append(a, &[], &mut left)?;
    append(b, &[], &mut right)?;
    Ok(left == right)
}

/// The fields of the top level in which two documents differ, in the order of
/// their names.
pub fn differing_fields(a: &RawDocument, b: &RawDocument) -> Result<Vec<String>, Bad> {
    let said = |document| -> Result<Vec<(String, Vec<u8>)>, Bad> {
        let mut said = Vec::new();
        for (name, value) in fields(document)? {
            let mut bytes = Vec::new();
            if !matches!(value, RawBsonRef::Null | RawBsonRef::Undefined) {
                put(value, &mut bytes)?;
                said.push((name.to_owned(), bytes));
            }
        }
        Ok(said)
    };
    let (left, right) = (said(a)?, said(b)?);
    let of = |said: &[(String, Vec<u8>)], name: &str| -> Vec<Vec<u8>> {
        said.iter().filter(|(known, _)| known == name).map(|(_, bytes)| bytes.clone()).collect()
    };
    let mut names: Vec<String> = left.iter().chain(&right).map(|(name, _)| name.clone()).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| of(&left, name) != of(&right, name));
    Ok(names)
}

/// What the rows of a range add up to, in whatever order they come.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RangeHash {
    /// How many there are.
    pub count: u64,
    /// The sum of their hashes, modulo 2^128.
    pub sum: u128,
    /// Their exclusive or: what cancels out in the sum does not in this.
    pub xor: u128,
}

impl RangeHash {
    /// One row more.
    pub fn add(&mut self, hash: u128) {
        self.merge(RangeHash { count: 1, sum: hash, xor: hash });
    }

    /// The rows of another range more.
    pub fn merge(&mut self, other: RangeHash) {
        self.count += other.count;
        self.sum = self.sum.wrapping_add(other.sum);
        self.xor ^= other.xor;
    }
}

/// What comes before a value. A number has the tag of what it is, not of its type.
mod tag {
    pub const NULL: u8 = 0;
    pub const INT: u8 = 1;
    pub const DOUBLE: u8 = 2;
    pub const DECIMAL: u8 = 3;
    pub const INFINITY: u8 = 4;
    pub const LEAST: u8 = 5;
    pub const NAN: u8 = 6;
    pub const FALSE: u8 = 7;
    pub const TRUE: u8 = 8;
    pub const MIN_KEY: u8 = 9;
    pub const MAX_KEY: u8 = 10;
    /// Of all else, with BSON's own.
    pub const OTHER: u8 = 0x80;
}

fn fields(document: &RawDocument) -> Result<Vec<(&str, RawBsonRef<'_>)>, Bad> {
    /// What most documents have.
    const USUAL: usize = 12;
    let mut fields = Vec::with_capacity(USUAL);
    for field in document.iter_elements() {
        let field = field.map_err(|error| Bad::malformed(&error))?;
        let value = field.value().map_err(|error| Bad::malformed(&error))?;
        fields.push((field.key().as_str(), value));
    }
    Ok(fields)
}

fn put_fields(fields: &mut [(&str, RawBsonRef<'_>)], out: &mut Vec<u8>) -> Result<(), Bad> {
    // Of equal names the first stays the first.
    fields.sort_by_key(|(name, _)| *name);
    put_tag(ElementType::EmbeddedDocument, out);
    put_length(fields.len(), out);
    for (name, value) in fields {
        put_bytes(name.as_bytes(), out);
        put(*value, out)?;
    }
    Ok(())
}

fn put(value: RawBsonRef<'_>, out: &mut Vec<u8>) -> Result<(), Bad> {
    match value {
        RawBsonRef::Null | RawBsonRef::Undefined => out.push(tag::NULL),
        RawBsonRef::Boolean(value) => out.push(if value { tag::TRUE } else { tag::FALSE }),
        RawBsonRef::Int32(int) => put_int(i64::from(int), out),
        RawBsonRef::Int64(int) => put_int(int, out),
        RawBsonRef::Double(double) => put_double(double, out),
        RawBsonRef::Decimal128(decimal) => match Number::of_decimal128(decimal) {
            Number::Finite(decimal) => put_decimal(decimal, out),
            Number::Infinite { negative: false } => out.push(tag::INFINITY),
            Number::Infinite { negative: true } => out.push(tag::LEAST),
            Number::NotANumber => out.push(tag::NAN),
        },
        RawBsonRef::Document(document) => put_fields(&mut fields(document)?, out)?,
        RawBsonRef::Array(array) => {
            put_tag(ElementType::Array, out);
            let at = out.len();
            put_length(0, out);
            let mut length = 0u32;
            for element in array {
                put(element.map_err(|error| Bad::malformed(&error))?, out)?;
                length += 1;
            }
            out[at..at + 4].copy_from_slice(&length.to_le_bytes());
        }
        RawBsonRef::String(text) | RawBsonRef::Symbol(text) | RawBsonRef::JavaScriptCode(text) => {
            put_tag(value.element_type(), out);
            put_bytes(text.as_bytes(), out);
        }
        RawBsonRef::Binary(binary) => {
            put_tag(ElementType::Binary, out);
            out.push(u8::from(binary.subtype));
            put_bytes(binary.bytes, out);
        }
        RawBsonRef::ObjectId(id) => {
            put_tag(ElementType::ObjectId, out);
            out.extend_from_slice(&id.bytes());
        }
        RawBsonRef::DateTime(date) => {
            put_tag(ElementType::DateTime, out);
            out.extend(date.timestamp_millis().to_le_bytes());
        }
        RawBsonRef::RegularExpression(regex) => {
            put_tag(ElementType::RegularExpression, out);
            put_bytes(regex.pattern.as_str().as_bytes(), out);
            put_bytes(regex.options.as_str().as_bytes(), out);
        }
        RawBsonRef::JavaScriptCodeWithScope(code) => {
            put_tag(ElementType::JavaScriptCodeWithScope, out);
            put_bytes(code.code.as_bytes(), out);
            put_fields(&mut fields(code.scope)?, out)?;
        }
        RawBsonRef::Timestamp(timestamp) => {
            put_tag(ElementType::Timestamp, out);
            out.extend(timestamp.time.to_le_bytes());
            out.extend(timestamp.increment.to_le_bytes());
        }
        // Nobody writes one since 2009: what it is, as a text.
        RawBsonRef::DbPointer(pointer) => {
            put_tag(ElementType::DbPointer, out);
            put_bytes(format!("{pointer:?}").as_bytes(), out);
        }
        RawBsonRef::MinKey => out.push(tag::MIN_KEY),
        RawBsonRef::MaxKey => out.push(tag::MAX_KEY),
    }
    Ok(())
}

fn put_int(int: i64, out: &mut Vec<u8>) {
    out.push(tag::INT);
    out.extend(int.to_le_bytes());
}

fn put_double(double: f64, out: &mut Vec<u8>) {
    match whole(double) {
        Some(int) => put_int(int, out),
        None if double.is_nan() => out.push(tag::NAN),
        None if double.is_infinite() => {
            out.push(if double > 0.0 { tag::INFINITY } else { tag::LEAST });
        }
        None => {
            out.push(tag::DOUBLE);
            out.extend(double.to_bits().to_le_bytes());
        }
    }
}

/// As the integer or the double that it is, if it is one.
fn put_decimal(decimal: Decimal, out: &mut Vec<u8>) {
    if let Some(int) = decimal.int() {
        return put_int(int, out);
    }
    if let Some(double) = decimal.double() {
        return put_double(double, out);
    }
    let Decimal { negative, coefficient, exponent } = decimal.stripped();
    out.push(tag::DECIMAL);
    out.push(u8::from(negative));
    out.extend(coefficient.to_le_bytes());
    out.extend(exponent.to_le_bytes());
}

fn put_tag(element: ElementType, out: &mut Vec<u8>) {
    out.push(tag::OTHER | element as u8);
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_length(bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// No document has more than 2 GiB.
fn put_length(length: usize, out: &mut Vec<u8>) {
    out.extend(u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::parse::mongosh::literal;
    use bson::{Bson, Document, RawDocumentBuf};
    use proptest::prelude::*;

    fn raw(text: &str) -> RawDocumentBuf {
        let value = literal(text).unwrap_or_else(|problem| panic!("{text}: {problem:?}"));
        let Bson::Document(document) = value else { panic!("{text}") };
        RawDocumentBuf::try_from(&document).unwrap()
    }

    fn said(document: &RawDocument) -> Vec<u8> {
        let mut bytes = Vec::new();
        append(document, &[], &mut bytes).unwrap();
        bytes
    }

    fn check(a: &str, b: &str, same: bool) {
        let (left, right) = (raw(a), raw(b));
        assert_eq!(said(&left) == said(&right), same, "{a} {b}");
        assert_eq!(hash(&left, &[]) == hash(&right, &[]), same, "{a} {b}");
        assert_eq!(equal(&left, &right), Ok(same), "{a} {b}");
        assert_eq!(differing_fields(&left, &right).unwrap().is_empty(), same, "{a} {b}");
    }

    #[test]
    fn a_number_is_its_value() {
        let groups: [&[&str]; 12] = [
            &["1", "NumberLong('1')", "1.0", "NumberDecimal('1')", "NumberDecimal('1.00')"],
            &["0", "-0.0", "NumberDecimal('-0.00')", "NumberDecimal('0E+10')", "NumberLong('0')"],
            &["0.1", "NumberDecimal('0.1')", "NumberDecimal('0.1000')"],
            &["1000", "NumberDecimal('1E+3')", "1e3"],
            &["NumberLong('9007199254740993')", "NumberDecimal('9007199254740993.0')"],
            &["9007199254740992.0", "NumberLong('9007199254740992')"],
            &["1152921504606846976.0", "NumberLong('1152921504606846976')"],
            &["1e300", "NumberDecimal('1E+300')"],
            &["NumberDecimal('NaN')", "NumberDecimal('-NaN')"],
            &["NumberDecimal('Infinity')"],
            &["NumberDecimal('-Infinity')"],
            &["NumberDecimal('0.1000000000000000055511151231257827')"],
        ];
        for (i, group) in groups.iter().enumerate() {
            for (j, other) in groups.iter().enumerate() {
                for a in *group {
                    for b in *other {
                        check(&format!("{{ a: {a} }}"), &format!("{{ a: {b} }}"), i == j);
                    }
                }
            }
        }
        let not_a_number = |number: Bson| {
            let document = RawDocumentBuf::try_from(&bson::doc! { "a": number }).unwrap();
            said(&document)
        };
        let decimal: bson::Decimal128 = "NaN".parse().unwrap();
        assert_eq!(not_a_number(Bson::Double(f64::NAN)), not_a_number(Bson::Double(-f64::NAN)));
        assert_eq!(not_a_number(Bson::Double(f64::NAN)), not_a_number(Bson::Decimal128(decimal)));
        let infinite: bson::Decimal128 = "Infinity".parse().unwrap();
        assert_eq!(
            not_a_number(Bson::Double(f64::INFINITY)),
            not_a_number(Bson::Decimal128(infinite))
        );
    }

    #[test]
    fn fields_have_no_order_and_elements_have_one() {
        check("{ a: 1, b: { c: 2, d: 3 } }", "{ b: { d: 3, c: 2 }, a: 1 }", true);
        check("{ a: [{ b: 1, c: 2 }] }", "{ a: [{ c: 2, b: 1 }] }", true);
        check("{ a: [1, 2] }", "{ a: [2, 1] }", false);
    }

    #[test]
    fn a_null_field_of_the_row_is_a_missing_one_and_a_deeper_one_is_not() {
        check("{ a: 1, b: null }", "{ a: 1 }", true);
        check("{ a: { b: null } }", "{ a: {} }", false);
        check("{ a: [null] }", "{ a: [] }", false);
        check("{ a: null }", "{ a: 0 }", false);
    }

    #[test]
    fn values_that_look_alike_differ() {
        let values = [
            "0",
            "false",
            "''",
            "[]",
            "{}",
            "'0'",
            "[0]",
            "{ a: 0 }",
            "ObjectId('000000000000000000000000')",
            "UUID('00000000-0000-0000-0000-000000000000')",
            "BinData(0, '')",
            "BinData(0, 'AA==')",
            "ISODate('1970-01-01T00:00:00Z')",
            "'1970-01-01T00:00:00Z'",
            "/a/",
            "/a/i",
            "'a'",
            "true",
            "1",
            "Timestamp(0, 0)",
            "Timestamp(0, 1)",
            "Timestamp(1, 0)",
            "MinKey",
            "MaxKey",
            "[[]]",
            "['', '']",
            "['']",
            "{ '': '' }",
            "{ a: {} }",
            "['ab', 'c']",
            "['a', 'bc']",
        ];
        for (i, a) in values.iter().enumerate() {
            for (j, b) in values.iter().enumerate() {
                check(&format!("{{ v: {a} }}"), &format!("{{ v: {b} }}"), i == j);
            }
        }
        check("{ ab: 'c' }", "{ a: 'bc' }", false);
    }

    #[test]
    fn what_differs_is_named() {
        let (a, b) = (
            raw("{ _id: 1, b: 2, c: null, d: 4, e: { f: 1, g: 2 } }"),
            raw("{ d: 5, _id: 1.0, e: { g: 2, f: 1 }, b: '2', z: 0 }"),
        );
        assert_eq!(differing_fields(&a, &b).unwrap(), ["b", "d", "z"]);
        assert_eq!(differing_fields(&b, &a).unwrap(), ["b", "d", "z"]);
    }

    #[test]
    fn what_is_left_out_does_not_count() {
        let (a, b) = (raw("{ _id: 1, a: 1, at: 1 }"), raw("{ _id: 2, a: 1, at: 2 }"));
        assert_ne!(hash(&a, &["at"]), hash(&b, &["at"]));
        assert_eq!(hash(&a, &["_id", "at"]), hash(&b, &["at", "_id"]));
    }

    #[test]
    fn a_hash_stays_what_it_is() {
        // What was recorded by one version is compared by the next.
        assert_eq!(hash(&raw("{ _id: 7, name: 'Ada', tags: ['a', 1.5] }"), &[]), Ok(HASH));
    }

    const HASH: u128 = 237_245_301_051_897_940_007_506_051_156_350_312_549;

    #[test]
    fn a_range_is_its_rows_in_any_order() {
        let mut hashes: Vec<u128> =
            (0..100).map(|id: i32| hash(&raw(&format!("{{ _id: {id} }}")), &[]).unwrap()).collect();
        let of = |hashes: &[u128]| {
            let mut range = RangeHash::default();
            for hash in hashes {
                range.add(*hash);
            }
            range
        };
        let whole = of(&hashes);
        let mut merged = of(&hashes[..30]);
        merged.merge(of(&hashes[30..]));
        assert_eq!(merged, whole);
        hashes.reverse();
        assert_eq!(of(&hashes), whole);
        assert_ne!(of(&hashes[1..]), whole);
        // Two rows that are there twice cancel out in the exclusive or alone.
        let twice = [hashes[0], hashes[0], hashes[1], hashes[1]];
        let other = [hashes[2], hashes[2], hashes[3], hashes[3]];
        assert_eq!(of(&twice).xor, of(&other).xor);
        assert_ne!(of(&twice), of(&other));
    }

    /// Any document, to some depth.
    fn any_document() -> impl Strategy<Value = Document> {
        let leaf = prop_oneof![
            Just(Bson::Null),
            any::<bool>().prop_map(Bson::Boolean),
            any::<i32>().prop_map(Bson::Int32),
            any::<i64>().prop_map(Bson::Int64),
            any::<f64>().prop_map(Bson::Double),
            "[a-c]{0,2}".prop_map(Bson::String),
        ];
        let value = leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Bson::Array),
                document_of(inner).prop_map(Bson::Document),
            ]
        });
        document_of(value)
    }

    fn document_of(value: impl Strategy<Value = Bson>) -> impl Strategy<Value = Document> {
        proptest::collection::btree_map("[a-e]{1,2}", value, 0..5)
            .prop_map(|fields| fields.into_iter().collect())
    }

    fn reversed(value: &Bson) -> Bson {
        match value {
            Bson::Document(document) => {
                let fields: Vec<(String, Bson)> =
                    document.iter().map(|(name, value)| (name.clone(), reversed(value))).collect();
                Bson::Document(fields.into_iter().rev().collect())
            }
            Bson::Array(elements) => Bson::Array(elements.iter().map(reversed).collect()),
            Bson::Int32(int) => Bson::Decimal128(format!("{int}.00").parse().unwrap()),
            other => other.clone(),
        }
    }

    proptest! {
        #[test]
        fn the_order_of_fields_does_not_count(document in any_document()) {
            let a = RawDocumentBuf::try_from(&document).unwrap();
            let Bson::Document(other) = reversed(&Bson::Document(document)) else { panic!() };
            let b = RawDocumentBuf::try_from(&other).unwrap();
            prop_assert_eq!(said(&a), said(&b));
            prop_assert_eq!(hash(&a, &[]), hash(&b, &[]));
        }

        #[test]
        fn documents_are_the_same_when_their_values_are(a in any_document(), b in any_document()) {
            use crate::core::expectation;
            let (left, right) = (RawDocumentBuf::try_from(&a).unwrap(), RawDocumentBuf::try_from(&b).unwrap());
            let strip = |document: Document| -> Document {
                document.into_iter().filter(|(_, value)| *value != Bson::Null).collect()
            };
            let same = expectation::equal(&Bson::Document(strip(a)), &Bson::Document(strip(b)));
            prop_assert_eq!(said(&left) == said(&right), same);
        }
    }
}
