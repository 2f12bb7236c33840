//! Times as ISO 8601 writes them.
//!
//! An interval has months, days and microseconds, each with a sign of its own, and
//! comes back with the same three: `P1Y2M-3DT4H5M-0.5S`. What ISO 8601 has beside
//! that and Postgres has not, a fraction of a day for one, is not read.

use std::io::Write;

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
/// In microseconds.
pub const DAY: i64 = 24 * HOUR;
const DAY_MS: i64 = DAY / 1_000;

/// An interval as Postgres keeps it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Interval {
    /// Of any length.
    pub months: i32,
    /// Of 23 to 25 hours.
    pub days: i32,
    /// Hours, minutes and seconds.
    pub micros: i64,
}

/// `13:05:00`, `13:05:00.25`; 24:00:00 is a time, too.
pub fn print_time(micros: i64, out: &mut Vec<u8>) {
    let (hours, rest) = (micros / HOUR, micros % HOUR);
    print(out, format_args!("{hours:02}:{:02}:{:02}", rest / MINUTE, rest % MINUTE / SECOND));
    print_fraction(micros % SECOND, out);
}

/// Microseconds since midnight, of `13:05`, `13:05:00` or `13:05:00.25`.
pub fn read_time(text: &str) -> Option<i64> {
    let (clock, micros) = match text.split_once('.') {
        Some((clock, fraction)) => (clock, read_fraction(fraction)?),
        None => (text, 0),
    };
    let mut parts = clock.split(':').map(two_digits);
    let (hours, minutes) = (parts.next()??, parts.next()??);
    let seconds = match parts.next() {
        Some(seconds) => seconds?,
        None if clock.len() == text.len() => 0,
        None => return None,
    };
    let time = hours * HOUR + minutes * MINUTE + seconds * SECOND + micros;
    let valid = parts.next().is_none() && minutes < 60 && seconds < 60 && time <= DAY;
    valid.then_some(time)
}

fn two_digits(text: &str) -> Option<i64> {
    let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// `P1Y2M3DT4H5M6.5S`, `PT0S`.
pub fn print_interval(interval: Interval, out: &mut Vec<u8>) {
    let Interval { months, days, micros } = interval;
    out.push(b'P');
    let years_and_days = [(months / 12, 'Y'), (months % 12, 'M'), (days, 'D')];
    for (value, unit) in years_and_days.into_iter().filter(|(value, _)| *value != 0) {
        print(out, format_args!("{value}{unit}"));
    }
    if micros == 0 {
        if months == 0 && days == 0 {
            out.extend(b"T0S");
        }
        return;
    }
    out.push(b'T');
    let hours_and_minutes = [(micros / HOUR, 'H'), (micros % HOUR / MINUTE, 'M')];
    for (value, unit) in hours_and_minutes.into_iter().filter(|(value, _)| *value != 0) {
        print(out, format_args!("{value}{unit}"));
    }
    let rest = micros % MINUTE;
    if rest != 0 {
        let sign = if rest < 0 { "-" } else { "" };
        print(out, format_args!("{sign}{}", (rest / SECOND).abs()));
        print_fraction((rest % SECOND).abs(), out);
        out.push(b'S');
    }
}

/// What [`print_interval`] wrote, and what else is whole years, months, weeks,
/// days, hours, minutes, and seconds of six places at most, in this order.
pub fn read_interval(text: &str) -> Option<Interval> {
    let (date, time) = match text.strip_prefix('P')?.split_once('T') {
        Some((_, "")) => return None,
        Some((date, time)) => (date, time),
        None => (text.strip_prefix('P').filter(|date| !date.is_empty())?, ""),
    };
    let int = |value: i64| i32::try_from(value).ok();
    let mut found = Interval::default();
    parts(date, "YMWD", |value, micros, unit| {
        if micros != 0 {
            return None;
        }
        match unit {
            'Y' => found.months = int(value.checked_mul(12)?)?,
            'M' => found.months = found.months.checked_add(int(value)?)?,
            'W' => found.days = int(value.checked_mul(7)?)?,
            _ => found.days = found.days.checked_add(int(value)?)?,
        }
        Some(())
    })?;
    parts(time, "HMS", |value, micros, unit| {
        let length = match unit {
            'H' => HOUR,
            'M' => MINUTE,
            _ => SECOND,
        };
        if micros != 0 && unit != 'S' {
            return None;
        }
        let part = value.checked_mul(length)?.checked_add(micros)?;
        found.micros = found.micros.checked_add(part)?;
        Some(())
    })?;
    Some(found)
}

/// Gives each number with its unit, which come in this order.
fn parts(
    mut text: &str,
    mut units: &str,
    mut give: impl FnMut(i64, i64, char) -> Option<()>,
) -> Option<()> {
    while !text.is_empty() {
        let (number, rest) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
        let unit = rest.chars().next()?;
        units = units.split_once(unit)?.1;
        text = &rest[1..];
        let (whole, micros) = match number.split_once('.') {
            Some((whole, fraction)) => (whole, read_fraction(fraction)?),
            None => (number, 0),
        };
        give(whole.parse().ok()?, if number.starts_with('-') { -micros } else { micros }, unit)?;
    }
    Some(())
}

/// A date of BSON: `2026-11-20T10:00:00.123Z`, `-0043-03-15T00:00:00Z`; beyond the
/// year 9999 with a sign, as ISO 8601 has it.
pub fn print_date(millis: i64, out: &mut Vec<u8>) {
    let (year, month, day) = civil(millis.div_euclid(DAY_MS));
    let sign = match year {
        ..0 => "-",
        0..=9999 => "",
        _ => "+",
    };
    print(out, format_args!("{sign}{:04}-{month:02}-{day:02}T", year.unsigned_abs()));
    print_time(millis.rem_euclid(DAY_MS) * 1_000, out);
    out.push(b'Z');
}

/// The date of a day since 1970-01-01, in the calendar that Postgres uses for all
/// times. The year 0 is 1 BC.
pub fn civil(days: i64) -> (i64, i64, i64) {
    // Years begin in March here, so that a leap day is the last of its year.
    const TO_MARCH_OF_0: i64 = 719_468;
    const DAYS_OF_400_YEARS: i64 = 146_097;
    let days = days + TO_MARCH_OF_0;
    let era = days.div_euclid(DAYS_OF_400_YEARS);
    let day_of_era = days.rem_euclid(DAYS_OF_400_YEARS);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// `.25`, or nothing.
fn print_fraction(micros: i64, out: &mut Vec<u8>) {
    if micros != 0 {
        print(out, format_args!(".{micros:06}"));
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

/// Microseconds, of one to six digits.
fn read_fraction(text: &str) -> Option<i64> {
    let digits = (1..=6).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { format!("{text:0<6}").parse().ok() } else { None }
}

fn print(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    let written = out.write_fmt(text);
    debug_assert!(written.is_ok(), "memory takes all that is written");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn printed(print: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        print(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_time_of_day_is_printed_and_read() {
        for (micros, text) in [
            (0, "00:00:00"),
            (1, "00:00:00.000001"),
            (13 * HOUR + 5 * MINUTE + 250_000, "13:05:00.25"),
            (DAY - 1, "23:59:59.999999"),
            (DAY, "24:00:00"),
        ] {
            assert_eq!(printed(|out| print_time(micros, out)), text);
            assert_eq!(read_time(text), Some(micros), "{text}");
        }
        assert_eq!(read_time("13:05"), Some(13 * HOUR + 5 * MINUTE));
        for text in [
            "",
            "13",
            "1:05",
            "13:5:00",
            "13:05:60",
            "13:60:00",
            "24:00:00.1",
            "25:00:00",
            "13:05:00.",
            "13:05:00.1234567",
            "13:05.5",
            "13:05:00Z",
            "13:05:00+02",
            " 13:05:00",
            "13:05:00:00",
            "-1:00:00",
            "+1:00:00",
            "13:05:00.+1",
        ] {
            assert_eq!(read_time(text), None, "{text}");
        }
    }

    #[test]
    fn an_interval_is_printed_and_read() {
        for (months, days, micros, text) in [
            (0, 0, 0, "PT0S"),
            (14, 3, 0, "P1Y2M3D"),
            (-14, 3, -HOUR, "P-1Y-2M3DT-1H"),
            (0, 0, -500_000, "PT-0.5S"),
            (0, 0, -90 * SECOND, "PT-1M-30S"),
            (0, -1, DAY + 1, "P-1DT24H0.000001S"),
            (12, 0, 0, "P1Y"),
            (0, 0, MINUTE, "PT1M"),
        ] {
            let interval = Interval { months, days, micros };
            assert_eq!(printed(|out| print_interval(interval, out)), text);
            assert_eq!(read_interval(text), Some(interval), "{text}");
        }
        for (text, months, days, micros) in
            [("P2W", 0, 14, 0), ("P1W1D", 0, 8, 0), ("PT36H", 0, 0, 36 * HOUR), ("P+1M", 1, 0, 0)]
        {
            assert_eq!(read_interval(text), Some(Interval { months, days, micros }), "{text}");
        }
        for text in [
            "",
            "P",
            "PT",
            "P1",
            "1D",
            "P1DT",
            "PT1D",
            "P1H",
            "P1D1Y",
            "P1Y1Y",
            "P1.5D",
            "PT1.5H",
            "PT0.1234567S",
            "PT1.S",
            "PT.5S",
            "P--1D",
            "P1D ",
            "P99999999999Y",
            "P2147483647Y",
            "PT9999999999999999999S",
            "PT9223372036854775807H",
            "-P1D",
            "p1d",
            "PT1ä",
            "P1 D",
            "P-D",
        ] {
            assert_eq!(read_interval(text), None, "{text}");
        }
    }

    #[test]
    fn a_date_of_any_year_is_printed() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (253_402_300_800_000, "+10000-01-01T00:00:00Z"),
            (-62_167_219_200_000, "0000-01-01T00:00:00Z"),
            (-62_167_219_200_001, "-0001-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(printed(|out| print_date(millis, out)), text);
        }
        // Whatever a date can be, it does not panic.
        printed(|out| print_date(i64::MIN, out));
        printed(|out| print_date(i64::MAX, out));
    }

    proptest! {
        #[test]
        fn every_time_comes_back(micros in 0..=DAY) {
            prop_assert_eq!(read_time(&printed(|out| print_time(micros, out))), Some(micros));
        }

        #[test]
        fn every_interval_comes_back(months: i32, days: i32, micros: i64) {
            let interval = Interval { months, days, micros };
            prop_assert_eq!(read_interval(&printed(|out| print_interval(interval, out))), Some(interval));
        }

        #[test]
        fn a_date_is_as_bson_prints_it(millis in -62_167_219_200_000i64..253_402_300_800_000) {
            let text = printed(|out| print_date(millis, out));
            prop_assert_eq!(bson::DateTime::parse_rfc3339_str(&text).unwrap().timestamp_millis(), millis);
        }

        #[test]
        fn what_is_no_time_does_not_panic(text in "[PT0-9YMDHS:.+-]{0,12}|\\PC{0,8}") {
            let _ = (read_time(&text), read_interval(&text));
        }
    }
}
