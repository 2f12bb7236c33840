//! Dates as `ISODate` and `new Date` of mongosh read them, without what
//! depends on the machine's time zone or on leniency: the 30th of February.

use bson::DateTime;
use chrono::{NaiveDate, TimeDelta};

/// Who reads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    /// `new Date("…")`: JavaScript's own format.
    Date,
    /// `ISODate("…")`: also without `-` and `:`, with a space for the `T`, and
    /// UTC where no zone is given.
    IsoDate,
}

/// Why a text is not a date.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum NotADate {
    /// Not in that form.
    Form,
    /// No such day or time.
    Value,
    /// JavaScript takes it for the local time of whoever runs it.
    Local,
}

/// What the date's form allows is read, all else refused.
pub(super) fn parse(text: &str, form: Form) -> Result<DateTime, NotADate> {
    let mut rest = Rest { bytes: text.as_bytes(), form };
    let year = rest.digits(4).ok_or(NotADate::Form)?;
    rest.separator(b'-')?;
    let month = rest.digits(2).ok_or(NotADate::Form)?;
    rest.separator(b'-')?;
    let day = rest.digits(2).ok_or(NotADate::Form)?;
    let (mut hour, mut minute, mut second, mut millis) = (0, 0, 0, 0);
    let mut offset_minutes = 0;
    if !rest.bytes.is_empty() {
        if !(rest.eat(b'T') || (form == Form::IsoDate && rest.eat(b' '))) {
            return Err(NotADate::Form);
        }
        hour = rest.digits(2).ok_or(NotADate::Form)?;
        if form == Form::Date || rest.more_time() {
            rest.separator(b':')?;
            minute = rest.digits(2).ok_or(NotADate::Form)?;
            if rest.more_time() {
                rest.separator(b':')?;
                second = rest.digits(2).ok_or(NotADate::Form)?;
                if rest.eat(b'.') {
                    millis = rest.fraction().ok_or(NotADate::Form)?;
                }
            }
        }
        offset_minutes = match rest.bytes {
            [] if form == Form::Date => return Err(NotADate::Local),
            [] | b"Z" => 0,
            [sign @ (b'+' | b'-'), ..] => {
                let sign = if *sign == b'+' { 1 } else { -1 };
                rest.bytes = &rest.bytes[1..];
                let hours = rest.digits(2).ok_or(NotADate::Form)?;
                rest.separator(b':')?;
                let minutes = rest.digits(2).ok_or(NotADate::Form)?;
                if !rest.bytes.is_empty() {
                    return Err(NotADate::Form);
                }
                if hours > 23 || minutes > 59 {
                    return Err(NotADate::Value);
                }
                sign * (i64::from(hours) * 60 + i64::from(minutes))
            }
            _ => return Err(NotADate::Form),
        };
    }
    let year = i32::try_from(year).map_err(|_| NotADate::Value)?;
    let moment = NaiveDate::from_ymd_opt(year, month, day)
        .and_then(|day| day.and_hms_milli_opt(hour, minute, second, millis))
        .and_then(|local| local.checked_sub_signed(TimeDelta::minutes(offset_minutes)))
        .ok_or(NotADate::Value)?
        .and_utc()
        .timestamp_millis();
    // The years 0 to 9999 of UTC, which is what ISODate takes.
    if !(-62_167_219_200_000..=253_402_300_799_999).contains(&moment) {
        return Err(NotADate::Value);
    }
    Ok(DateTime::from_millis(moment))
}

struct Rest<'a> {
    bytes: &'a [u8],
    form: Form,
}

impl Rest<'_> {
    fn eat(&mut self, byte: u8) -> bool {
        let there = self.bytes.first() == Some(&byte);
        if there {
            self.bytes = &self.bytes[1..];
        }
        there
    }

    /// A separator, which `ISODate` does not need.
    fn separator(&mut self, byte: u8) -> Result<(), NotADate> {
        match (self.eat(byte), self.form) {
            (true, _) | (false, Form::IsoDate) => Ok(()),
            (false, Form::Date) => Err(NotADate::Form),
        }
    }

    /// Whether minutes or seconds follow rather than a zone or the end.
    fn more_time(&self) -> bool {
        matches!(self.bytes.first(), Some(b':' | b'0'..=b'9'))
    }

    fn digits(&mut self, count: usize) -> Option<u32> {
        let digits = self.bytes.get(..count)?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        self.bytes = &self.bytes[count..];
        Some(digits.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0')))
    }

    /// Milliseconds; what is finer is cut, as JavaScript does.
    fn fraction(&mut self) -> Option<u32> {
        let count = self.bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 {
            return None;
        }
        let (digits, rest) = self.bytes.split_at(count);
        self.bytes = rest;
        let padded = digits.iter().copied().chain([b'0', b'0']).take(3);
        Some(padded.fold(0, |number, digit| number * 10 + u32::from(digit - b'0')))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use NotADate::{Form as NoForm, Local, Value};

    fn date(text: &str) -> Result<i64, NotADate> {
        parse(text, Form::Date).map(DateTime::timestamp_millis)
    }

    fn iso_date(text: &str) -> Result<i64, NotADate> {
        parse(text, Form::IsoDate).map(DateTime::timestamp_millis)
    }

    const DAY: i64 = 1_704_067_200_000;

    #[test]
    fn both_read_javascripts_own_format() {
        for read in [date, iso_date] {
            assert_eq!(read("2024-01-01"), Ok(DAY));
            assert_eq!(read("2024-01-01T00:00Z"), Ok(DAY));
            assert_eq!(read("2024-01-01T00:00:01Z"), Ok(DAY + 1_000));
            assert_eq!(read("2024-01-01T00:00:01.5Z"), Ok(DAY + 1_500));
            assert_eq!(read("2024-01-01T00:00:00.123987Z"), Ok(DAY + 123));
            assert_eq!(read("2024-01-01T02:30:00+02:30"), Ok(DAY));
            assert_eq!(read("2023-12-31T22:00:00-02:00"), Ok(DAY));
            assert_eq!(read("1969-12-31T23:59:59.999Z"), Ok(-1));
            assert_eq!(read("0000-01-01"), Ok(-62_167_219_200_000));
        }
    }

    #[test]
    fn a_time_without_a_zone_is_utc_for_isodate_only() {
        assert_eq!(iso_date("2024-01-01T00:00:00"), Ok(DAY));
        assert_eq!(date("2024-01-01T00:00:00"), Err(Local));
        assert_eq!(date("2024-01-01T00:00"), Err(Local));
    }

    #[test]
    fn isodate_reads_the_shorter_forms() {
        for text in [
            "20240101",
            "20240101T00",
            "20240101 0000",
            "20240101T000000Z",
            "2024-01-01 00:00:00",
            "20240101T000000.000+0000",
            "2024-01-01T00",
        ] {
            assert_eq!(iso_date(text), Ok(DAY), "{text}");
            assert_eq!(date(text), Err(NoForm), "{text}");
        }
    }

    #[test]
    fn days_that_no_calendar_has_are_refused() {
        for text in [
            "2024-02-30",
            "2023-02-29",
            "2024-13-01",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:60:00Z",
            "2024-01-01T00:00:60Z",
            "2024-01-01T00:00:00+24:00",
            "0000-01-01T00:00:00+01:00",
        ] {
            assert_eq!(date(text), Err(Value), "{text}");
            assert_eq!(iso_date(text), Err(Value), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "now",
            "2024",
            "2024-1-1",
            "2024-01-01Z",
            "2024-01-01T",
            "01/02/2024",
            "2024-01-01T00:00:00+02",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00ZZ",
            "2024-01-01T00:00:00+01:00x",
            "2024-01-01é",
            "+2024-01-01",
        ] {
            assert_eq!(date(text), Err(NoForm), "{text}");
            assert_eq!(iso_date(text), Err(NoForm), "{text}");
        }
    }
}
