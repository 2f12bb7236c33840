//! Numbers as decimal digits, which is what both stores' exact types are.
//!
//! Everything a BSON number can be fits in here: a Decimal128 has 34 digits, and a
//! double counts as the shortest decimal that stands for it.

use std::fmt::{self, Write};
use std::io::Write as _;

/// More digits has no Decimal128.
pub const DIGITS_MAX: u32 = 34;

/// The largest coefficient of a Decimal128.
const COEFFICIENT_MAX: u128 = 10u128.pow(DIGITS_MAX) - 1;

/// The exponents of a Decimal128.
const EXPONENT_MIN: i32 = -6176;
const EXPONENT_MAX: i32 = 6111;

/// Signs in a numeric's head, as Postgres sends it.
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITE: u16 = 0xD000;
const LEAST: u16 = 0xF000;

/// A number of any type.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Number {
    /// Digits and a place for the point.
    Finite(Decimal),
    /// Infinity, of either sign.
    Infinite {
        /// It is the least of all.
        negative: bool,
    },
    /// NaN.
    NotANumber,
}

/// `coefficient` · 10^`exponent`. 1.50 is not 1.5, until it is [`Decimal::stripped`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Decimal {
    /// Below zero; a zero may have it too.
    pub negative: bool,
    /// All digits.
    pub coefficient: u128,
    /// Where the point is: so many places to the right of the last digit.
    pub exponent: i32,
}

/// Why a number has no Decimal128.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Beyond {
    /// It has more than 34 digits.
    Digits,
    /// It is too great, or too close to zero.
    Exponent,
}

impl fmt::Display for Beyond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Beyond::Digits => {
                write!(
                    f,
                    "it has more than the {DIGITS_MAX} digits of a Decimal128; round it in the query, or copy it as text"
                )
            }
            Beyond::Exponent => {
                f.write_str("its exponent is beyond that of a Decimal128; copy it as text")
            }
        }
    }
}

impl Number {
    /// A numeric as Postgres sends it; `None` when it is not one.
    pub fn of_numeric(raw: &[u8]) -> Option<Result<Number, Beyond>> {
        let (head, digits) = raw.split_first_chunk::<8>()?;
        let [count, weight, sign, scale] = [0, 2, 4, 6].map(|at| [head[at], head[at + 1]]);
        let count = usize::from(u16::from_be_bytes(count));
        let weight = i32::from(i16::from_be_bytes(weight));
        let scale = i32::from(u16::from_be_bytes(scale));
        let negative = match u16::from_be_bytes(sign) {
            0 => false,
            NEGATIVE => true,
            NAN => return Some(Ok(Number::NotANumber)),
            INFINITE => return Some(Ok(Number::Infinite { negative: false })),
            LEAST => return Some(Ok(Number::Infinite { negative: true })),
            _ => return None,
        };
        if digits.len() != count * 2 {
            return None;
        }
        // Four digits each; neither the first nor the last of them is 0.
        let mut coefficient = 0u128;
        for pair in digits.chunks_exact(2) {
            let four = u128::from(u16::from_be_bytes([pair[0], pair[1]]));
            let next = coefficient.checked_mul(10_000).and_then(|all| all.checked_add(four));
            let Some(next) = next else { return Some(Err(Beyond::Digits)) };
            coefficient = next;
        }
        let exponent =
            if count == 0 { -scale } else { (weight + 1 - i32::try_from(count).ok()?) * 4 };
        let number = Decimal { negative, coefficient, exponent };
        Some(number.with_scale(scale).map(Number::Finite))
    }

    /// What a double stands for: the whole number that it is, where that is an
    /// int64; else the shortest decimal that reads back as it.
    pub fn of_double(double: f64) -> Number {
        if double.is_nan() {
            return Number::NotANumber;
        }
        if double.is_infinite() {
            return Number::Infinite { negative: double < 0.0 };
        }
        if let Some(whole) = whole(double) {
            return Number::Finite(Decimal::of_int(whole));
        }
        let mut text = Text::default();
        let written = write!(text, "{double:e}");
        debug_assert!(written.is_ok(), "a double has 17 digits at most");
        let (number, _) = Decimal::read(text.bytes()).unwrap_or((Ok(Decimal::of_int(0)), 0));
        Number::Finite(number.unwrap_or(Decimal::of_int(0)))
    }

    /// What the bits of a Decimal128 say.
    pub fn of_decimal128(decimal: bson::Decimal128) -> Number {
        let bits = u128::from_le_bytes(decimal.bytes());
        let negative = bits >> 127 == 1;
        match bits >> 122 & 0b1_1111 {
            0b1_1111 => Number::NotANumber,
            0b1_1110 => Number::Infinite { negative },
            high => {
                let (shift, mask) = if high >> 3 == 0b11 { (111, 0) } else { (113, u128::MAX) };
                let exponent = i32::try_from(bits >> shift & 0x3fff).unwrap_or(0) + EXPONENT_MIN;
                let coefficient = bits & ((1 << 113) - 1) & mask;
                // What is too large means 0, says the standard.
                let coefficient = if coefficient > COEFFICIENT_MAX { 0 } else { coefficient };
                Number::Finite(Decimal { negative, coefficient, exponent })
            }
        }
    }

    /// The 16 bytes that BSON has for it.
    pub fn decimal128(self) -> Result<[u8; 16], Beyond> {
        let bits = match self {
            Number::NotANumber => 0b1_1111 << 122,
            Number::Infinite { negative } => u128::from(negative) << 127 | 0b1_1110 << 122,
            Number::Finite(decimal) => {
                let Decimal { negative, coefficient, exponent } = decimal.in_range()?;
                let biased = u128::try_from(exponent - EXPONENT_MIN).unwrap_or(0);
                u128::from(negative) << 127 | biased << 113 | coefficient
            }
        };
        Ok(bits.to_le_bytes())
    }

    /// As Postgres reads a numeric.
    pub fn numeric(self, out: &mut Vec<u8>) {
        let mut head = |count: u16, weight: i16, sign: u16, scale: u16| {
            out.extend(count.to_be_bytes());
            out.extend(weight.to_be_bytes());
            out.extend(sign.to_be_bytes());
            out.extend(scale.to_be_bytes());
        };
        let Decimal { negative, coefficient, exponent } = match self {
            Number::NotANumber => return head(0, 0, NAN, 0),
            Number::Infinite { negative: false } => return head(0, 0, INFINITE, 0),
            Number::Infinite { negative: true } => return head(0, 0, LEAST, 0),
            Number::Finite(decimal) => decimal,
        };
        let scale = u16::try_from(-exponent).unwrap_or(0);
        // 34 digits and three more are less than a u128 has.
        let mut rest = coefficient * POWERS[usize::try_from(exponent.rem_euclid(4)).unwrap_or(0)];
        let mut weight = exponent.div_euclid(4) - 1;
        let mut groups = [0u16; 10];
        let mut first = groups.len();
        let mut last = groups.len();
        while rest > 0 {
            let four = u16::try_from(rest % 10_000).unwrap_or(0);
            rest /= 10_000;
            weight += 1;
            if four == 0 && first == last {
                // Postgres has no zeros at the end.
                continue;
            }
            first -= 1;
            groups[first] = four;
        }
        if first == last {
            last = first;
            weight = 0;
        }
        let count = u16::try_from(last - first).unwrap_or(0);
        let sign = if negative && count > 0 { NEGATIVE } else { 0 };
        head(count, i16::try_from(weight).unwrap_or(0), sign, scale);
        out.extend(groups[first..last].iter().flat_map(|four| four.to_be_bytes()));
    }

    /// The same number as a double, if there is one.
    pub fn double(self) -> Option<f64> {
        match self {
            Number::NotANumber => Some(f64::NAN),
            Number::Infinite { negative } => {
                Some(if negative { f64::NEG_INFINITY } else { f64::INFINITY })
            }
            Number::Finite(decimal) => decimal.double(),
        }
    }

    /// The same number as an integer, if there is one.
    pub fn int(self) -> Option<i64> {
        match self {
            Number::Finite(decimal) => decimal.int(),
            Number::Infinite { .. } | Number::NotANumber => None,
        }
    }
}

/// The powers of ten that a u64 has.
const POWERS: [u128; 20] = {
    let mut powers = [1u128; 20];
    let mut at = 1;
    while at < powers.len() {
        powers[at] = powers[at - 1] * 10;
        at += 1;
    }
    powers
};

/// 10^0 to 10^22 are doubles, exactly.
const EXACT_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

/// Up to so many digits any decimal is the shortest of its double.
const EXACT_DIGITS_MAX: u128 = 999_999_999_999_999;

impl Decimal {
    /// A whole number.
    pub fn of_int(int: i64) -> Decimal {
        let coefficient = u128::from(int.unsigned_abs());
        Decimal { negative: int < 0, coefficient, exponent: 0 }
    }

    /// A number at the beginning of a text, as JSON has them, and how long it is.
    /// `None`: there is none.
    pub fn read(text: &[u8]) -> Option<(Result<Decimal, Beyond>, usize)> {
        let mut at = 0;
        let negative = text.first() == Some(&b'-');
        at += usize::from(negative);
        let mut coefficient = 0u128;
        // Zeros that count only when another digit follows.
        let mut zeros = 0u32;
        let mut exponent = 0i64;
        let mut digits = 0usize;
        let mut fraction = false;
        let mut beyond = None;
        loop {
            match text.get(at) {
                Some(b'.') if !fraction && digits > 0 => {
                    fraction = true;
                    digits = 0;
                }
                Some(b'0') => {
                    digits += 1;
                    zeros = zeros.saturating_add(1);
                    exponent -= i64::from(fraction);
                }
                Some(digit @ b'1'..=b'9') => {
                    digits += 1;
                    exponent -= i64::from(fraction);
                    let power =
                        if coefficient == 0 { Some(1) } else { 10u128.checked_pow(zeros + 1) };
                    let next = power
                        .and_then(|power| coefficient.checked_mul(power))
                        .and_then(|all| all.checked_add(u128::from(digit - b'0')));
                    match next.filter(|next| *next <= COEFFICIENT_MAX) {
                        Some(next) => coefficient = next,
                        None => beyond = Some(Beyond::Digits),
                    }
                    zeros = 0;
                }
                _ => break,
            }
            at += 1;
        }
        if digits == 0 {
            return None;
        }
        if let Some(b'e' | b'E') = text.get(at) {
            at += 1;
            let less = text.get(at) == Some(&b'-');
            at += usize::from(matches!(text.get(at), Some(b'-' | b'+')));
            let begin = at;
            let mut power = 0i64;
            while let Some(digit @ b'0'..=b'9') = text.get(at) {
                power = power.saturating_mul(10).saturating_add(i64::from(digit - b'0'));
                at += 1;
            }
            if at == begin {
                return None;
            }
            exponent = exponent.saturating_add(if less { -power } else { power });
        }
        // The zeros at the end are kept while there is room, as 1.50 has them.
        while zeros > 0 && coefficient * 10 <= COEFFICIENT_MAX && coefficient > 0 {
            coefficient *= 10;
            zeros -= 1;
        }
        if coefficient > 0 {
            exponent = exponent.saturating_add(i64::from(zeros));
        }
        let exponent = match i32::try_from(exponent) {
            Ok(exponent) => exponent,
            Err(_) if coefficient == 0 => 0,
            Err(_) => {
                beyond = beyond.or(Some(Beyond::Exponent));
                0
            }
        };
        let decimal = Decimal { negative, coefficient, exponent };
        Some((beyond.map_or(Ok(decimal), Err), at))
    }

    /// Without zeros at the end, so that equal numbers are the same.
    #[must_use]
    pub fn stripped(mut self) -> Decimal {
        if self.coefficient == 0 {
            return Decimal { negative: false, coefficient: 0, exponent: 0 };
        }
        // Dividing 64 bits is much faster than dividing 128.
        while self.coefficient > u128::from(u64::MAX) && self.coefficient.is_multiple_of(10) {
            self.coefficient /= 10;
            self.exponent += 1;
        }
        if let Ok(mut short) = u64::try_from(self.coefficient) {
            while short.is_multiple_of(10) {
                short /= 10;
                self.exponent += 1;
            }
            self.coefficient = u128::from(short);
        }
        self
    }

    /// With so many digits after the point, as far as there is room for zeros.
    fn with_scale(mut self, scale: i32) -> Result<Decimal, Beyond> {
        if self.coefficient == 0 {
            return Ok(Decimal { exponent: -scale, ..self });
        }
        while self.exponent < -scale && self.coefficient.is_multiple_of(10)
            || self.coefficient > COEFFICIENT_MAX && self.coefficient.is_multiple_of(10)
        {
            self.coefficient /= 10;
            self.exponent += 1;
        }
        if self.coefficient > COEFFICIENT_MAX {
            return Err(Beyond::Digits);
        }
        let missing = usize::try_from(self.exponent + scale).unwrap_or(0);
        let room = usize::try_from(DIGITS_MAX - self.digits()).unwrap_or(0);
        // 1.5 gets what zeros it can get; 10^40 is 1E+40.
        if missing > room && scale == 0 {
            return Ok(Decimal { negative: self.negative, ..self.stripped() });
        }
        for _ in 0..missing.min(room) {
            self.coefficient *= 10;
            self.exponent -= 1;
        }
        Ok(self)
    }

    /// With an exponent that a Decimal128 has.
    fn in_range(mut self) -> Result<Decimal, Beyond> {
        if self.coefficient == 0 {
            let exponent = self.exponent.clamp(EXPONENT_MIN, EXPONENT_MAX);
            return Ok(Decimal { exponent, ..self });
        }
        if self.coefficient > COEFFICIENT_MAX {
            let mut shorter = self.stripped();
            if shorter.coefficient > COEFFICIENT_MAX {
                return Err(Beyond::Digits);
            }
            shorter.negative = self.negative;
            self = shorter;
        }
        while self.exponent < EXPONENT_MIN && self.coefficient.is_multiple_of(10) {
            self.coefficient /= 10;
            self.exponent += 1;
        }
        while self.exponent > EXPONENT_MAX && self.coefficient * 10 <= COEFFICIENT_MAX {
            self.coefficient *= 10;
            self.exponent -= 1;
        }
        if (EXPONENT_MIN..=EXPONENT_MAX).contains(&self.exponent) {
            Ok(self)
        } else {
            Err(Beyond::Exponent)
        }
    }

    /// How many digits there are; 0 has none.
    pub fn digits(self) -> u32 {
        self.coefficient.checked_ilog10().map_or(0, |log| log + 1)
    }

    /// The same number as an integer, if there is one.
    pub fn int(self) -> Option<i64> {
        let Decimal { negative, coefficient, exponent } =
            if self.exponent < 0 { self.stripped() } else { self };
        if coefficient == 0 {
            return Some(0);
        }
        let power = POWERS.get(usize::try_from(exponent).ok()?)?;
        let whole = i128::try_from(coefficient.checked_mul(*power)?).ok()?;
        i64::try_from(if negative { -whole } else { whole }).ok()
    }

    /// The same number as a double, if there is one: the double that stands for it.
    pub fn double(self) -> Option<f64> {
        if let Some(int) = self.int() {
            return double_of(int);
        }
        let Decimal { negative, coefficient, exponent } = self.stripped();
        let power = usize::try_from(exponent.unsigned_abs()).ok()?;
        let size = match EXACT_POWERS.get(power) {
            // One rounding, of two numbers that are exact: the closest double.
            Some(power) if coefficient <= EXACT_DIGITS_MAX => {
                let digits = u64::try_from(coefficient).ok()?;
                let digits = double_of(i64::try_from(digits).ok()?)?;
                if exponent < 0 { digits / power } else { digits * power }
            }
            _ => {
                let mut text = Text::default();
                write!(text, "{coefficient}e{exponent}").ok()?;
                let double: f64 = std::str::from_utf8(text.bytes()).ok()?.parse().ok()?;
                let Number::Finite(found) = Number::of_double(double) else { return None };
                let found = found.stripped();
                if (found.coefficient, found.exponent) != (coefficient, exponent) {
                    return None;
                }
                double
            }
        };
        Some(if negative { -size } else { size })
    }
}

/// As JSON and people have it: `1.50`, `1.5E+40`.
impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Decimal { negative, coefficient, exponent } = *self;
        if negative && coefficient > 0 {
            f.write_char('-')?;
        }
        if exponent == 0 {
            return write!(f, "{coefficient}");
        }
        let places = usize::try_from(-exponent).unwrap_or(0);
        // Close to the point without an exponent, as people write it.
        if exponent > 0 || places > 40 {
            return write!(f, "{coefficient}E{exponent:+}");
        }
        let digits = format!("{coefficient:0width$}", width = places + 1);
        let (whole, fraction) = digits.split_at(digits.len() - places);
        write!(f, "{whole}.{fraction}")
    }
}

/// The whole number that a double is, if an int64 has it.
pub fn whole(double: f64) -> Option<i64> {
    /// 2^63, exactly.
    const END: f64 = 9_223_372_036_854_775_808.0;
    #[expect(clippy::cast_possible_truncation, reason = "it is whole, and in the range")]
    let int = || double as i64;
    (double.trunc().to_bits() == double.to_bits() && (-END..END).contains(&double)).then(int)
}

/// An integer as the double that it is, if it is one.
pub fn double_of(int: i64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "it is looked at whether there was a loss")]
    let double = int as f64;
    (whole(double) == Some(int)).then_some(double)
}

/// A number's text, without asking for memory.
struct Text {
    bytes: [u8; 64],
    length: usize,
}

impl Default for Text {
    fn default() -> Text {
        Text { bytes: [0; 64], length: 0 }
    }
}

impl Text {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut room = &mut self.bytes[self.length..];
        room.write_all(text.as_bytes()).map_err(|_| fmt::Error)?;
        self.length += text.len();
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A number as Postgres sends it, made from its text: four digits each, from
    /// the point on in both directions.
    pub fn wire(text: &str) -> Vec<u8> {
        let special =
            |sign: u16| [0, 0, sign, 0].iter().flat_map(|part| part.to_be_bytes()).collect();
        match text {
            "NaN" => return special(0xC000),
            "Infinity" => return special(0xD000),
            "-Infinity" => return special(0xF000),
            _ => {}
        }
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let scale = u16::try_from(fraction.len()).unwrap();
        let whole = format!("{}{whole}", "0".repeat((4 - whole.len() % 4) % 4));
        let fraction = format!("{fraction}{}", "0".repeat((4 - fraction.len() % 4) % 4));
        let mut weight = i16::try_from(whole.len() / 4).unwrap() - 1;
        let digits = format!("{whole}{fraction}");
        let mut groups: Vec<u16> = digits
            .as_bytes()
            .chunks(4)
            .map(|four| std::str::from_utf8(four).unwrap().parse().unwrap())
            .collect();
        while groups.last() == Some(&0) {
            groups.pop();
        }
        while groups.first() == Some(&0) {
            groups.remove(0);
            weight -= 1;
        }
        if groups.is_empty() {
            weight = 0;
        }
        let sign = if negative && !groups.is_empty() { 0x4000u16 } else { 0 };
        let mut out = Vec::new();
        out.extend(u16::try_from(groups.len()).unwrap().to_be_bytes());
        out.extend(weight.to_be_bytes());
        out.extend(sign.to_be_bytes());
        out.extend(scale.to_be_bytes());
        out.extend(groups.iter().flat_map(|group| group.to_be_bytes()));
        out
    }

    fn decimal128(text: &str) -> Result<String, Beyond> {
        let number = Number::of_numeric(&wire(text)).expect("it is a numeric")?;
        Ok(bson::Decimal128::from_bytes(number.decimal128()?).to_string())
    }

    #[test]
    fn a_numeric_is_a_decimal128_with_its_zeros() {
        for text in [
            "0",
            "0.00",
            "1",
            "-1",
            "1.50",
            "10000",
            "1000000.000001",
            "-0.0001",
            "9999",
            "12345678901234567890.12345678901234",
            "9999999999999999999999999999999999",
            "NaN",
            "Infinity",
            "-Infinity",
        ] {
            assert_eq!(decimal128(text).as_deref(), Ok(text));
        }
        for (text, expected) in [
            ("0.0000000001", "1E-10"),
            // No room for its zeros.
            ("1.50000000000000000000000000000000000000", "1.500000000000000000000000000000000"),
            ("100000000000000000000000000000000000000000", "1E+41"),
            ("99999999999999999999999999999999990", "9.999999999999999999999999999999999E+34"),
        ] {
            assert_eq!(decimal128(text).as_deref(), Ok(expected), "{text}");
        }
        let tiny = |zeros: usize| format!("0.{}1", "0".repeat(zeros));
        assert_eq!(decimal128(&tiny(6175)).as_deref(), Ok("1E-6176"));
        assert_eq!(decimal128(&tiny(6176)), Err(Beyond::Exponent));
        assert_eq!(decimal128(&format!("0.{}", "0".repeat(7000))).as_deref(), Ok("0E-6176"));
        let huge = |zeros: usize| format!("1{}", "0".repeat(zeros));
        assert_eq!(
            decimal128(&huge(6144)).as_deref(),
            Ok("1.000000000000000000000000000000000E+6144")
        );
        assert_eq!(decimal128(&huge(6145)), Err(Beyond::Exponent));
    }

    #[test]
    fn the_35th_digit_is_refused_and_never_rounded() {
        for text in [
            "99999999999999999999999999999999999",
            "0.12345678901234567890123456789012345",
            "1000000000000000000000000000000000.5",
            "1.0000000000000000000000000000000000000000000000000000001",
        ] {
            assert_eq!(decimal128(text), Err(Beyond::Digits), "{text}");
        }
    }

    #[test]
    fn what_is_no_numeric_is_none() {
        let whole = wire("12.5");
        assert_eq!(Number::of_numeric(&whole[..whole.len() - 1]), None);
        assert_eq!(Number::of_numeric(&[0; 7]), None);
        assert_eq!(Number::of_numeric(&[0, 0, 0, 0, 0x12, 0, 0, 0]), None);
    }

    #[test]
    fn a_decimal128_with_too_large_a_coefficient_is_0() {
        let bits: u128 = ((1 << 113) - 1) | (6176 << 113);
        let zero = Number::of_decimal128(bson::Decimal128::from_bytes(bits.to_le_bytes()));
        assert_eq!(zero, Number::Finite(Decimal { negative: false, coefficient: 0, exponent: 0 }));
        let bits: u128 = 0b11 << 125 | 6175 << 111 | 7;
        let zero = Number::of_decimal128(bson::Decimal128::from_bytes(bits.to_le_bytes()));
        assert_eq!(zero, Number::Finite(Decimal { negative: false, coefficient: 0, exponent: -1 }));
    }

    #[test]
    fn a_text_is_read_as_the_number_it_begins_with() {
        let check = |text: &str, expected: &str, length: usize| {
            let (number, found) = Decimal::read(text.as_bytes()).expect(text);
            let number =
                number.map_or_else(|beyond| format!("{beyond:?}"), |number| number.to_string());
            assert_eq!((number.as_str(), found), (expected, length), "{text}");
        };
        check("0", "0", 1);
        check("-0.00,", "0.00", 5);
        check("12.50]", "12.50", 5);
        check("1e3", "1E+3", 3);
        check("1.5E-2 ", "0.015", 6);
        check("00012", "12", 5);
        check(&format!("1{}", "0".repeat(40)), "1000000000000000000000000000000000E+7", 41);
        check(&format!("1{}5", "0".repeat(33)), "Digits", 35);
        check(&format!("1{}5", "0".repeat(60)), "Digits", 62);
        check("1e99999999999999999999", "Exponent", 22);
        check("0e99999999999999999999", "0", 22);
        for text in ["", "-", ".5", "1.", "x", "1e", "1e+", "-.5"] {
            assert_eq!(Decimal::read(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_double_is_the_integer_that_it_is_or_its_shortest_decimal() {
        let check = |double: f64, expected: &str| {
            let Number::Finite(number) = Number::of_double(double) else { panic!("{double}") };
            assert_eq!(number.to_string(), expected);
            assert_eq!(Number::Finite(number).double().map(f64::abs), Some(double.abs()));
        };
        check(0.1, "0.1");
        check(-1.5, "-1.5");
        check(5.0, "5");
        check(-0.0, "0");
        check(1_152_921_504_606_846_976.0, "1152921504606846976");
        check(1e300, "1E+300");
        check(5e-324, "5E-324");
        check(f64::MAX, "17976931348623157E+292");
        check(-9_223_372_036_854_775_808.0, "-9223372036854775808");
        check(9_223_372_036_854_775_808.0, "9223372036854775808".replace("5808", "6E+3").as_str());
    }

    #[test]
    fn only_a_double_of_the_same_value_is_its_double() {
        let double = |text: &str| Decimal::read(text.as_bytes()).unwrap().0.unwrap().double();
        assert_eq!(double("0.1"), Some(0.1));
        assert_eq!(double("0.10000000000000001"), None);
        assert_eq!(double("9007199254740993"), None);
        assert_eq!(double("9007199254740992"), Some(9_007_199_254_740_992.0));
        assert_eq!(double("123456789012345000"), None);
        assert_eq!(double("1e400"), None);
        assert_eq!(double("1e-400"), None);
        assert_eq!(double("1e22"), Some(1e22));
        assert_eq!(double("1e23"), Some(1e23));
        assert_eq!(double("-2.5e-10"), Some(-2.5e-10));
    }

    fn any_decimal() -> impl Strategy<Value = Decimal> {
        let coefficient = prop_oneof![
            0u128..=COEFFICIENT_MAX,
            (0u128..100_000, 0u32..29).prop_map(|(digits, zeros)| digits * 10u128.pow(zeros)),
            any::<u64>().prop_map(u128::from),
        ];
        let exponent = prop_oneof![-40i32..40, EXPONENT_MIN..=EXPONENT_MAX];
        (any::<bool>(), coefficient, exponent).prop_map(|(negative, coefficient, exponent)| {
            Decimal { negative, coefficient, exponent }
        })
    }

    /// Equal values, made of texts: nothing here that the code has.
    fn same(a: Decimal, b: Decimal) -> bool {
        let plain = |number: Decimal| {
            let digits = number.coefficient.to_string();
            let stripped = digits.trim_end_matches('0');
            let zeros = i32::try_from(digits.len() - stripped.len()).unwrap();
            let nothing = stripped.is_empty();
            (
                number.negative && !nothing,
                stripped.to_owned(),
                if nothing { 0 } else { number.exponent + zeros },
            )
        };
        plain(a) == plain(b)
    }

    proptest! {
        #[test]
        fn a_decimal128_comes_back_as_it_was(decimal in any_decimal()) {
            let number = Number::Finite(decimal);
            let bytes = bson::Decimal128::from_bytes(number.decimal128().unwrap());
            prop_assert_eq!(Number::of_decimal128(bytes), number);
            let text: bson::Decimal128 = bytes.to_string().parse().unwrap();
            prop_assert_eq!(text, bytes);
        }

        #[test]
        fn a_decimal128_goes_through_a_numeric(decimal in any_decimal()) {
            let mut raw = Vec::new();
            Number::Finite(decimal).numeric(&mut raw);
            let Some(Ok(Number::Finite(back))) = Number::of_numeric(&raw) else { panic!("{raw:?}") };
            prop_assert!(same(back, decimal), "{back:?}");
            // 1.50 has its zero, 1E+3 is 1000.
            if decimal.exponent <= 0 && decimal.coefficient > 0 {
                prop_assert_eq!(back, decimal);
            }
        }

        #[test]
        fn a_numeric_is_written_as_it_was_read(whole in "0|[1-9][0-9]{0,18}", fraction in "(\\.[0-9]{1,15})?", negative: bool) {
            let text = format!("{}{whole}{fraction}", if negative { "-" } else { "" });
            let raw = wire(&text);
            let mut back = Vec::new();
            Number::of_numeric(&raw).unwrap().unwrap().numeric(&mut back);
            prop_assert_eq!(back, raw);
        }

        #[test]
        fn a_printed_decimal_is_read_again(decimal in any_decimal()) {
            let text = decimal.to_string();
            let (back, length) = Decimal::read(text.as_bytes()).unwrap();
            prop_assert_eq!(length, text.len());
            prop_assert!(same(back.unwrap(), decimal), "{text}");
        }

        #[test]
        fn a_double_and_its_decimal_are_one(bits: u64) {
            let double = f64::from_bits(bits);
            prop_assume!(double.is_finite());
            let Number::Finite(decimal) = Number::of_double(double) else { panic!() };
            prop_assert_eq!(decimal.double(), Some(double));
            prop_assert_eq!(decimal.to_string().parse(), Ok(double));
        }
    }
}
