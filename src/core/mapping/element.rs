//! Writing BSON where it belongs: at the end of a document that is being made.
//!
//! An element is its type, its name and its value; the type of a value is often
//! known only when the value was written, so it gets its place first.

use bson::spec::ElementType;

/// An element whose type is not known yet.
#[must_use]
pub struct Open {
    at: usize,
}

/// Begins an element.
pub fn open(name: &[u8], out: &mut Vec<u8>) -> Open {
    let at = out.len();
    out.push(0);
    out.extend_from_slice(name);
    out.push(0);
    Open { at }
}

/// Begins the element of an array.
pub fn open_index(index: usize, out: &mut Vec<u8>) -> Open {
    let at = out.len();
    out.push(0);
    let mut digits = [0u8; 20];
    let mut first = digits.len();
    let mut rest = index;
    loop {
        first -= 1;
        digits[first] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[first..]);
    out.push(0);
    Open { at }
}

impl Open {
    /// Begins one where the name follows.
    pub fn here(out: &mut Vec<u8>) -> Open {
        let at = out.len();
        out.push(0);
        Open { at }
    }

    /// The value was written, and this is what it is.
    pub fn close(self, tag: ElementType, out: &mut [u8]) {
        out[self.at] = tag as u8;
    }

    /// There is none: nothing of it stays.
    pub fn undo(self, out: &mut Vec<u8>) {
        out.truncate(self.at);
    }
}

/// Something that begins with its length, which is written when it is over.
#[must_use]
pub struct Sized {
    at: usize,
}

/// Begins a document, an array or a string.
pub fn sized(out: &mut Vec<u8>) -> Sized {
    let at = out.len();
    out.extend([0; 4]);
    Sized { at }
}

impl Sized {
    /// Where its content begins.
    pub fn content(&self) -> usize {
        self.at + 4
    }

    /// Ends a document or an array.
    pub fn end_document(self, out: &mut Vec<u8>) {
        out.push(0);
        let length = out.len() - self.at;
        self.put(length, out);
    }

    /// Ends a string.
    pub fn end_string(self, out: &mut Vec<u8>) {
        out.push(0);
        let length = out.len() - self.content();
        self.put(length, out);
    }

    fn put(self, length: usize, out: &mut [u8]) {
        // Whatever is longer than that is refused by its reader: no row has 2 GiB.
        let length = i32::try_from(length).unwrap_or(i32::MAX);
        out[self.at..self.at + 4].copy_from_slice(&length.to_le_bytes());
    }
}

/// A string.
pub fn string(text: &str, out: &mut Vec<u8>) -> ElementType {
    let string = sized(out);
    out.extend_from_slice(text.as_bytes());
    string.end_string(out);
    ElementType::String
}

/// Bytes, with what they are.
pub fn binary(subtype: u8, bytes: &[u8], out: &mut Vec<u8>) -> ElementType {
    out.extend(i32::try_from(bytes.len()).unwrap_or(i32::MAX).to_le_bytes());
    out.push(subtype);
    out.extend_from_slice(bytes);
    ElementType::Binary
}

/// An int32.
pub fn int32(int: i32, out: &mut Vec<u8>) -> ElementType {
    out.extend(int.to_le_bytes());
    ElementType::Int32
}

/// An int64.
pub fn int64(int: i64, out: &mut Vec<u8>) -> ElementType {
    out.extend(int.to_le_bytes());
    ElementType::Int64
}

/// A double.
pub fn double(double: f64, out: &mut Vec<u8>) -> ElementType {
    out.extend(double.to_le_bytes());
    ElementType::Double
}

/// A date, in milliseconds since 1970.
pub fn date(millis: i64, out: &mut Vec<u8>) -> ElementType {
    out.extend(millis.to_le_bytes());
    ElementType::DateTime
}

/// A truth.
pub fn boolean(value: bool, out: &mut Vec<u8>) -> ElementType {
    out.push(u8::from(value));
    ElementType::Boolean
}
