//! Durations as people write them: `250ms`, `30s`, `10m`, `1h`.

use std::time::Duration;

/// The units, longest name first so that `ms` is not read as `m`.
const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// A text that is not a duration.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{text}` is not a duration")]
pub struct ParseDurationError {
    /// What was there.
    pub text: String,
    /// What to write instead.
    pub hint: &'static str,
}

/// Reads a whole number and its unit. No fractions, no sums, no bare numbers:
/// each of them has been read as the wrong unit by somebody.
///
/// # Errors
/// Anything else, and what 64 bits of milliseconds cannot hold; the hint says
/// what to write.
pub fn parse(text: &str) -> Result<Duration, ParseDurationError> {
    let error = |hint| ParseDurationError { text: text.to_owned(), hint };
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = UNITS.iter().find(|(word, _)| *word == unit);
    match (number, unit) {
        ("", _) | (_, None) => {
            Err(error("write a whole number and a unit: `250ms`, `30s`, `10m` or `1h`"))
        }
        (number, Some((_, milliseconds))) => number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(*milliseconds))
            .map(Duration::from_millis)
            .ok_or_else(|| error("nobody waits that long")),
    }
}

/// The shortest text that reads back as this duration: `90s`, not `1m30s`.
/// Less than a millisecond is cut off.
pub fn show(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    if milliseconds == 0 {
        return "0s".to_owned();
    }
    UNITS
        .iter()
        .rev()
        .find(|(_, unit)| milliseconds.is_multiple_of(u128::from(*unit)))
        .map_or_else(String::new, |(word, unit)| {
            format!("{}{word}", milliseconds / u128::from(*unit))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_whole_number_and_a_unit() {
        let milliseconds = |text: &str| parse(text).map(|duration| duration.as_millis());
        assert_eq!(milliseconds("250ms"), Ok(250));
        assert_eq!(milliseconds("30s"), Ok(30_000));
        assert_eq!(milliseconds("10m"), Ok(600_000));
        assert_eq!(milliseconds("1h"), Ok(3_600_000));
        assert_eq!(milliseconds("0ms"), Ok(0));
    }

    #[test]
    fn what_is_no_duration_says_how_to_write_one() {
        for text in ["", "10", "s", "1.5s", "1h30m", "-1s", " 1s", "1 s", "1S", "1d", "٣s"] {
            let error = parse(text).expect_err(text);
            assert_eq!(error.to_string(), format!("`{text}` is not a duration"));
            assert_eq!(
                error.hint,
                "write a whole number and a unit: `250ms`, `30s`, `10m` or `1h`"
            );
        }
        let error = parse("99999999999999999999h").expect_err("does not fit");
        assert_eq!(error.hint, "nobody waits that long");
    }

    #[test]
    fn a_duration_reads_back_as_it_was_shown() {
        for text in ["250ms", "1500ms", "30s", "90s", "10m", "90m", "1h", "24h", "0s"] {
            assert_eq!(parse(text).map(show), Ok(text.to_owned()));
        }
    }
}
