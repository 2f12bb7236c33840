//! What an invariant expects, and whether a value is that.
//!
//! A number is its value: `5`, `5.0` and `NumberDecimal('5.00')` are one, whatever
//! their type. A double counts as the shortest decimal that stands for it, so that
//! 0.1 is 0.1 in both stores. A date is compared with a text that is one.

use crate::core::id::Version;
use crate::core::parse::manifest::{Expect, Relation};
use bson::Bson;
use std::cmp::Ordering;
use std::fmt;

/// Longer values are cut when they are shown.
const SHOWN_MAX: usize = 200;

/// Whether a value is what is expected. What has no order is neither less nor
/// more than anything.
pub fn holds(expect: &Expect, value: &Bson) -> bool {
    let order = || order(value, &expect.value);
    match expect.relation {
        Relation::Equal => equal(value, &expect.value),
        Relation::NotEqual => !equal(value, &expect.value),
        Relation::Less => order() == Some(Ordering::Less),
        Relation::AtMost => matches!(order(), Some(Ordering::Less | Ordering::Equal)),
        Relation::More => order() == Some(Ordering::Greater),
        Relation::AtLeast => matches!(order(), Some(Ordering::Greater | Ordering::Equal)),
    }
}

/// Whether two answers are the same, of whatever types they are.
pub fn equal(a: &Bson, b: &Bson) -> bool {
    match (a, b) {
        (Bson::Null | Bson::Undefined, Bson::Null | Bson::Undefined) => true,
        (Bson::Array(a), Bson::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        (Bson::Document(a), Bson::Document(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| equal(a, b)))
        }
        _ => order(a, b).map_or_else(|| a == b, Ordering::is_eq),
    }
}

/// The order of two values that have one.
fn order(a: &Bson, b: &Bson) -> Option<Ordering> {
    match (a, b) {
        (Bson::String(a), Bson::String(b)) => Some(a.cmp(b)),
        (Bson::DateTime(_), _) | (_, Bson::DateTime(_)) => Some(moment(a)?.cmp(&moment(b)?)),
        _ => Some(Worth::of(a)?.cmp(&Worth::of(b)?)),
    }
}

/// A date, or a text that is one: `2026-11-20`, `2026-11-20T10:00:00.5+02:00`.
/// Without a zone it is UTC.
fn moment(value: &Bson) -> Option<bson::DateTime> {
    let text = match value {
        Bson::DateTime(at) => return Some(*at),
        Bson::String(text) => text.replacen(' ', "T", 1),
        _ => return None,
    };
    let variants = [text.clone(), format!("{text}Z"), format!("{text}T00:00:00Z")];
    variants.iter().find_map(|text| bson::DateTime::parse_rfc3339_str(text).ok())
}

/// A number as what it is worth.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Worth {
    /// `-Infinity`.
    Least,
    /// 0.`digits` · 10^`scale`, with neither leading nor trailing zeros.
    Finite { negative: bool, scale: i64, digits: String },
    /// `Infinity`.
    Greatest,
    /// Equal to itself, and more than any other, as Postgres has it.
    NotANumber,
}

impl Worth {
    fn of(value: &Bson) -> Option<Worth> {
        match value {
            Bson::Int32(number) => Worth::read(&number.to_string()),
            Bson::Int64(number) => Worth::read(&number.to_string()),
            Bson::Double(number) => Worth::read(&format!("{number:e}")),
            Bson::Decimal128(number) => Worth::read(&number.to_string()),
            _ => None,
        }
    }

    /// `-12.50`, `1.5E+3`, `NaN`, `-Infinity`.
    fn read(text: &str) -> Option<Worth> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        match text.to_ascii_lowercase().as_str() {
            "nan" => return Some(Worth::NotANumber),
            "inf" | "infinity" if negative => return Some(Worth::Least),
            "inf" | "infinity" => return Some(Worth::Greatest),
            _ => {}
        }
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}");
        let significant = digits.trim_start_matches('0');
        let zeros = digits.len() - significant.len();
        let point = i64::try_from(whole.len()).ok()? - i64::try_from(zeros).ok()?;
        let digits = significant.trim_end_matches('0').to_owned();
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let exponent: i64 = exponent.trim_start_matches('+').parse().ok()?;
        // There is one zero.
        let nothing = digits.is_empty();
        Some(Worth::Finite {
            negative: negative && !nothing,
            scale: if nothing { 0 } else { point + exponent },
            digits,
        })
    }
}

impl Ord for Worth {
    fn cmp(&self, other: &Worth) -> Ordering {
        let class = |number: &Worth| match number {
            Worth::Least => 0,
            Worth::Finite { negative: true, .. } => 1,
            Worth::Finite { digits, .. } if digits.is_empty() => 2,
            Worth::Finite { .. } => 3,
            Worth::Greatest => 4,
            Worth::NotANumber => 5,
        };
        let by_class = class(self).cmp(&class(other));
        match (self, other) {
            (
                Worth::Finite { negative, scale, digits },
                Worth::Finite { scale: other_scale, digits: other_digits, .. },
            ) if by_class.is_eq() => {
                let size = scale.cmp(other_scale).then_with(|| digits.cmp(other_digits));
                if *negative { size.reverse() } else { size }
            }
            _ => by_class,
        }
    }
}

impl PartialOrd for Worth {
    fn partial_cmp(&self, other: &Worth) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A value for people, cut if it is long: `7`, `"paid"`, `NULL`.
pub fn show(value: &Bson) -> String {
    match value {
        Bson::Null | Bson::Undefined => "NULL".to_owned(),
        Bson::DateTime(at) => at.try_to_rfc3339_string().unwrap_or_else(|_| at.to_string()),
        Bson::String(text) => clip(&format!("{text:?}")),
        other => clip(&other.to_string()),
    }
}

/// A text that is cut if it is long; how long it was is said.
pub fn clip(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((at, _)) => format!("{}… ({} characters)", &text[..at], text.chars().count()),
        None => text.to_owned(),
    }
}

/// An invariant that does not hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Broken {
    /// What it is called.
    pub name: String,
    /// What was asked, a line for each store.
    pub questions: Vec<String>,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
    /// Up to ten rows that offend against it, each on one line.
    pub sample: Vec<String>,
    /// What to do about it, if it is not to mend the data.
    pub next: Option<&'static str>,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Broken { name, expected, found, .. } = self;
        write!(f, "the invariant `{name}` does not hold: expected {expected}, found {found}")
    }
}

/// What was found when an invariant did not hold, by what the audit log kept of a run
/// that failed: the step's id, and what [`Broken`] says.
pub fn broken_in(error: &str, version: Version, name: &str) -> Option<String> {
    let mark = format!("the invariant `{name}` does not hold: expected ");
    let (before, after) = error.split_once(&mark)?;
    let of_it = before.split_whitespace().any(|word| word.starts_with(&format!("{version}/")));
    let (_, found) = after.rsplit_once(", found ")?;
    // What became of the rest of the migration.
    let end = ["; rolled back", "; not rolled back"].iter().filter_map(|it| found.find(it)).min();
    of_it.then(|| found[..end.unwrap_or(found.len())].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::parse::mongosh::literal;

    #[test]
    fn what_was_found_can_be_read_from_what_is_kept() {
        let broken = Broken {
            name: "no row, found twice".to_owned(),
            questions: Vec::new(),
            expected: "0".to_owned(),
            found: "7".to_owned(),
            sample: Vec::new(),
            next: None,
        };
        let kept = format!("002/validate/no row, found twice: {broken}");
        let found = |kept: &str, version| broken_in(kept, Version(version), &broken.name);
        assert_eq!(found(&kept, 2).as_deref(), Some("7"));
        assert_eq!(found(&format!("{kept}; rolled back"), 2).as_deref(), Some("7"));
        assert_eq!(found(&kept, 3), None);
        assert_eq!(broken_in(&kept, Version(2), "another"), None);
        assert_eq!(found("002/up/postgres/1: no relation", 2), None);
    }

    fn value(text: &str) -> Bson {
        literal(text).unwrap_or_else(|problem| panic!("{text}: {problem:?}"))
    }

    fn check(relation: Relation, expected: &str, found: &str, held: bool) {
        let expect = Expect { relation, value: value(expected) };
        assert_eq!(holds(&expect, &value(found)), held, "{found} {relation:?} {expected}");
    }

    #[test]
    fn a_number_is_its_value() {
        let equals = [
            ("5", "5"),
            ("5", "NumberLong('5')"),
            ("5", "NumberDecimal('5.000')"),
            ("5000", "NumberDecimal('5E+3')"),
            ("0.1", "NumberDecimal('0.10')"),
            ("0", "NumberDecimal('-0.00')"),
            ("1e300", "NumberDecimal('1E+300')"),
            ("0.001", "NumberDecimal('1E-3')"),
            ("NumberLong('9007199254740993')", "NumberDecimal('9007199254740993')"),
            ("NumberDecimal('NaN')", "NumberDecimal('NaN')"),
            ("NumberDecimal('Infinity')", "NumberDecimal('Infinity')"),
        ];
        for (a, b) in equals {
            check(Relation::Equal, a, b, true);
            check(Relation::Equal, b, a, true);
            check(Relation::NotEqual, a, b, false);
            check(Relation::AtLeast, a, b, true);
            check(Relation::AtMost, a, b, true);
            check(Relation::More, a, b, false);
        }
    }

    #[test]
    fn numbers_are_in_order() {
        let rising = [
            "NumberDecimal('-Infinity')",
            "-1e300",
            "-10",
            "-9.5",
            "NumberDecimal('-0.001')",
            "0",
            "NumberDecimal('1E-30')",
            "0.1",
            "0.11",
            "1",
            "NumberLong('9007199254740992')",
            "NumberLong('9007199254740993')",
            "NumberDecimal('9007199254740993.5')",
            "1e300",
            "NumberDecimal('Infinity')",
            "NumberDecimal('NaN')",
        ];
        for (i, a) in rising.iter().enumerate() {
            for (j, b) in rising.iter().enumerate() {
                check(Relation::Less, b, a, i < j);
                check(Relation::AtMost, b, a, i <= j);
                check(Relation::Equal, b, a, i == j);
                check(Relation::More, b, a, i > j);
            }
        }
    }

    #[test]
    fn what_has_no_order_is_neither_less_nor_more() {
        for (expected, found) in [("0", "null"), ("'a'", "1"), ("0", "'0'"), ("0", "true")] {
            for relation in [
                Relation::Less,
                Relation::AtMost,
                Relation::More,
                Relation::AtLeast,
                Relation::Equal,
            ] {
                check(relation, expected, found, false);
            }
            check(Relation::NotEqual, expected, found, true);
        }
    }

    #[test]
    fn texts_truths_and_nothing() {
        check(Relation::Equal, "'paid'", "'paid'", true);
        check(Relation::Equal, "''", "null", false);
        check(Relation::Less, "'b'", "'a'", true);
        check(Relation::Equal, "true", "true", true);
        check(Relation::Equal, "true", "1", false);
        check(Relation::Equal, "null", "null", true);
        check(Relation::Equal, "null", "0", false);
        check(Relation::Equal, "[1, { a: 2, b: 3 }]", "[1.0, { b: 3, a: NumberLong('2') }]", true);
        check(Relation::Equal, "[1]", "[1, 2]", false);
        check(Relation::Equal, "{ a: 1 }", "{ b: 1 }", false);
    }

    #[test]
    fn a_date_is_compared_with_a_text_that_is_one() {
        let date = "ISODate('2026-11-20T00:00:00Z')";
        check(Relation::Equal, date, "'2026-11-20'", true);
        check(Relation::Equal, date, "'2026-11-20T02:00:00+02:00'", true);
        check(Relation::Equal, date, "'2026-11-20 00:00:00.000'", true);
        check(Relation::AtLeast, date, "'2026-11-21T00:00:00'", true);
        check(Relation::Less, "'2026-11-21'", date, true);
        check(Relation::Equal, date, "'yesterday'", false);
        check(Relation::Less, date, "'yesterday'", false);
        check(Relation::Equal, date, "0", false);
    }

    #[test]
    fn a_long_value_is_cut_when_it_is_shown() {
        assert_eq!(show(&Bson::Null), "NULL");
        assert_eq!(show(&Bson::String(String::new())), "\"\"");
        assert_eq!(show(&Bson::String("a\nb".to_owned())), "\"a\\nb\"");
        assert_eq!(show(&value("ISODate('2026-11-20T00:00:00Z')")), "2026-11-20T00:00:00Z");
        let long = show(&Bson::String("ä".repeat(5_000)));
        assert_eq!(long, format!("\"{}… (5002 characters)", "ä".repeat(199)));
    }
}
