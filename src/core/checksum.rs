//! SHA-256, and the text form in which both histories keep it.

use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

/// `sha256:` and 64 hexadecimal digits, so that the algorithm can change
/// without breaking anybody.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Checksum([u8; 32]);

impl Checksum {
    /// The checksum of some bytes.
    pub fn of(bytes: &[u8]) -> Checksum {
        Checksum(Sha256::digest(bytes).into())
    }

    /// The checksum of a migration folder: each file's name, a NUL, its
    /// content and a NUL, in name order. `files` are sorted by name already,
    /// their contents are [`normalize`]d.
    pub fn of_files<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Checksum {
        let mut hash = Sha256::new();
        for (name, content) in files {
            hash.update(name.as_bytes());
            hash.update([0]);
            hash.update(content.as_bytes());
            hash.update([0]);
        }
        Checksum(hash.finalize().into())
    }

    /// The checksum of some parts, each with its length in front: what is moved
    /// from one part to the next is another text.
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Checksum {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Checksum(hash.finalize().into())
    }

    /// The first byte: one of 256 equally likely ones.
    pub fn first_byte(&self) -> u8 {
        self.0[0]
    }

    /// The first twelve digits: enough to tell two texts apart by eye.
    pub fn short(&self) -> String {
        self.to_string()[..19].to_owned()
    }
}

/// A file's text without what editors and Git change behind a person's back:
/// a leading byte order mark is dropped, CRLF becomes LF. Nothing else.
pub fn normalize(text: &str) -> String {
    text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n")
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

/// A text that is not a checksum of ours.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is not a checksum (expected sha256: and 64 hexadecimal digits)")]
pub struct ParseChecksumError(pub String);

impl FromStr for Checksum {
    type Err = ParseChecksumError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseChecksumError(text.to_owned());
        let hex = text.strip_prefix("sha256:").ok_or_else(bad)?;
        if hex.len() != 64 || !hex.is_ascii() {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(pair).map_err(|_| bad())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| bad())?;
        }
        Ok(Checksum(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_reads_back_as_it_was_written() {
        let sum = Checksum::of(b"abc");
        assert_eq!(
            sum.to_string(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(sum.to_string().parse(), Ok(sum));
        assert!("md5:00".parse::<Checksum>().is_err());
        assert!(format!("sha256:{}", "g".repeat(64)).parse::<Checksum>().is_err());
    }

    #[test]
    fn the_same_sql_with_lf_crlf_or_a_bom_is_one_checksum() {
        let sum = |text: &str| Checksum::of_files([("up.sql", normalize(text).as_str())]);
        let lf = sum("select 1;\nselect 2;\n");
        assert_eq!(sum("select 1;\r\nselect 2;\r\n"), lf);
        assert_eq!(sum("\u{feff}select 1;\nselect 2;\n"), lf);
        assert_ne!(sum("select 1; \nselect 2;\n"), lf);
        assert_ne!(sum("select 1;\rselect 2;\n"), lf);
    }

    #[test]
    fn moving_a_byte_from_one_file_to_the_next_changes_the_checksum() {
        assert_ne!(
            Checksum::of_files([("a", "bc"), ("d", "")]),
            Checksum::of_files([("a", "b"), ("cd", "")])
        );
    }
}
