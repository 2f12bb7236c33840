//! What is wrong with a file, where, and what to do instead.

use std::fmt;
use std::ops::Range;

/// One thing that is wrong with one file of a migration. It carries the line
/// it stands in, so that it can be shown without the file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// The file, relative to the migrations folder: `007-product-stock/up.sql`.
    pub file: String,
    /// Where in it; `None` when the whole file or folder is meant.
    pub at: Option<Place>,
    /// What is wrong, as a fragment without a full stop.
    pub message: String,
    /// What to do instead.
    pub hint: Option<String>,
}

/// A place in a text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// In characters, on this line, at least 1.
    pub width: u32,
    /// The line itself.
    pub text: String,
}

impl Place {
    /// The place of a range of bytes of `text`. A range that ends on a later
    /// line is cut at the end of its first.
    pub fn of(text: &str, range: Range<usize>) -> Place {
        let mut start = range.start.min(text.len());
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        let mut end = range.end.clamp(start, text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let count = |text: &str| u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let lines = text[..start].bytes().filter(|byte| *byte == b'\n').count();
        Place {
            line: u32::try_from(lines).unwrap_or(u32::MAX).saturating_add(1),
            column: count(&text[line_start..start]).saturating_add(1),
            width: count(&text[start..end.min(line_end)]).max(1),
            text: text[line_start..line_end].trim_end_matches('\r').to_owned(),
        }
    }
}

impl Problem {
    /// A problem with a whole file or folder.
    pub fn whole(file: impl Into<String>, message: impl Into<String>) -> Problem {
        Problem { file: file.into(), at: None, message: message.into(), hint: None }
    }

    /// A problem at a range of bytes of a text. The file's name is filled in
    /// by whoever knows it.
    pub fn at(text: &str, range: Range<usize>, message: impl Into<String>) -> Problem {
        Problem {
            file: String::new(),
            at: Some(Place::of(text, range)),
            message: message.into(),
            hint: None,
        }
    }

    /// With what to do instead.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Problem {
        self.hint = Some(hint.into());
        self
    }

    /// With the file's name.
    #[must_use]
    pub fn file(mut self, file: impl Into<String>) -> Problem {
        self.file = file.into();
        self
    }
}

/// `007-x/up.sql:3:5: message; hint`, on one line.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(place) = &self.at {
            write!(f, ":{}:{}", place.line, place.column)?;
        }
        write!(f, ": {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

/// The known word nearest to `word`, if one is near enough to be what was
/// meant: at most a third of its letters differ. Swapped neighbours count once.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = word.chars().count().div_ceil(3).max(1);
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edit distance with swaps of neighbours (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let fold = |text: &str| text.to_lowercase().chars().collect::<Vec<char>>();
    let (a, b) = (fold(a), fold(b));
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_characters_not_bytes() {
        let text = "eins\nzwölf drei\nvier";
        let start = text.find("drei").expect("is there");
        let place = Place::of(text, start..start + 4);
        assert_eq!((place.line, place.column, place.width), (2, 7, 4));
        assert_eq!(place.text, "zwölf drei");
    }

    #[test]
    fn a_place_survives_ranges_that_no_text_has() {
        let place = Place::of("aé", 2..99);
        assert_eq!((place.line, place.column), (1, 2));
        assert_eq!(Place::of("", 5..9).line, 1);
    }

    #[test]
    fn the_nearest_word_is_the_one_that_was_meant() {
        let files = ["up.sql", "down.sql", "prepare.sql"];
        assert_eq!(nearest("donw.sql", files), Some("down.sql"));
        assert_eq!(nearest("Up.sql", files), Some("up.sql"));
        assert_eq!(nearest("zebra.txt", files), None);
    }
}
