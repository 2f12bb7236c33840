//! The hours of a day in which backfills may work.

use std::fmt;

/// Hours of a day, `22:00-06:00`: the first minute is in it, the last is not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Window {
    /// In minutes since midnight.
    pub from: u16,
    /// In minutes since midnight; 1440 is midnight at the end.
    pub to: u16,
}

impl Window {
    /// Reads `22:00-06:00`. A window that is empty is none.
    pub fn parse(text: &str) -> Option<Window> {
        let (from, to) = text.split_once('-')?;
        let window = Window { from: minute(from)?, to: minute(to)? };
        (window.from != window.to && window.from < DAY).then_some(window)
    }

    /// Whether a minute of the day, counted from midnight, is in it.
    pub fn contains(&self, minute: u16) -> bool {
        if self.from < self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.from, self.to);
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

/// Minutes.
const DAY: u16 = 24 * 60;

/// Reads `06:30` into minutes since midnight; `24:00` is midnight at the end.
pub fn minute(text: &str) -> Option<u16> {
    let two = |text: &str| {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (hour, minute) = text.trim().split_once(':')?;
    let (hour, minute) = (two(hour)?, two(minute)?);
    let at = hour * 60 + minute;
    (minute < 60 && at <= DAY).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_may_span_midnight() {
        let night = Window::parse("22:00-06:00").expect("is one");
        assert!(night.contains(22 * 60) && night.contains(0) && night.contains(359));
        assert!(!night.contains(360) && !night.contains(1319));
        let day = Window::parse("08:00 - 24:00").expect("is one");
        assert!(day.contains(480) && day.contains(1439) && !day.contains(479));
        assert_eq!(night.to_string(), "22:00-06:00");
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for text in [
            "",
            "22",
            "22:00",
            "22:00-22:00",
            "24:00-06:00",
            "22:60-06:00",
            "25:00-06:00",
            "2:00-6:00",
            "+2:00-06:00",
        ] {
            assert_eq!(Window::parse(text), None, "{text}");
        }
    }
}
