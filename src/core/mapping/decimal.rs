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
        let head = |count: u16, weight: i16, sign: u16, scale: u16| {
            let [a, b] = count.to_be_bytes();
            let [c, d] = weight.to_be_bytes();
            let [e, f] = sign.to_be_bytes();
            let [g, h] = scale.to_be_bytes();
            [a, b, c, d, e, f, g, h]
        };
        let Decimal { negative, coefficient, exponent } = match self {
            Number::NotANumber => return out.extend(head(0, 0, NAN, 0)),
            Number::Infinite { negative: false } => return out.extend(head(0, 0, INFINITE, 0)),
            Number::Infinite { negative: true } => return out.extend(head(0, 0, LEAST, 0)),
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
        out.extend(head(count, i16::try_from(weight).unwrap_or(0), sign, scale));
        groups[first..last].iter().for_each(|four| out.extend(four.to_be_bytes()));
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
        while self.coefficient.is_multiple_of(10) {
            self.coefficient /= 10;
            self.exponent += 1;
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
        // 1E+40 stays that, 1.5 gets what zeros it can get.
        if missing <= room || scale > 0 {
            for _ in 0..missing.min(room) {
                self.coefficient *= 10;
                self.exponent -= 1;
            }
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
