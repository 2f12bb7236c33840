//! Bytes as hexadecimal digits.

use std::fmt::Write as _;

/// `[1, 255]` as `01ff`.
pub fn write(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The opposite of [`write()`]; `None` for what it does not write.
pub fn read(hex: &str) -> Option<Vec<u8>> {
    let pairs = hex.as_bytes().chunks_exact(2);
    let is_even = pairs.remainder().is_empty();
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    pairs.map(byte).collect::<Option<_>>().filter(|_| is_even)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for bytes in [&[][..], &[0], &[1, 255], &[16; 40]] {
            assert_eq!(read(&write(bytes)).as_deref(), Some(bytes));
        }
        assert_eq!(write(&[1, 255]), "01ff");
    }

    #[test]
    fn what_is_not_is_not() {
        for bad in ["0", "0g", "01f", "é0"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
