//! Numbers as JavaScript has them.

use bson::Bson;

/// As mongosh stores a number: an int32 if it is integral and fits, else a
/// double. Minus zero is a double, which alone can hold it.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
pub(super) fn bson_number(number: f64) -> Bson {
    let fits = number.fract() == 0.0
        && (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number)
        && !(number == 0.0 && number.is_sign_negative());
    if fits {
        Bson::Int32(number as i32)
    } else if number.is_nan() {
        // JavaScript has one NaN.
        Bson::Double(f64::NAN)
    } else {
        Bson::Double(number)
    }
}

/// The number as an integer, if it is one that a double holds exactly.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
pub(super) fn exact_integer(number: f64) -> Option<i64> {
    /// 2⁵³ - 1, `Number.MAX_SAFE_INTEGER`.
    const SAFE: f64 = 9_007_199_254_740_991.0;
    (number.fract() == 0.0 && number.abs() <= SAFE).then_some(number as i64)
}

/// `String(number)` of JavaScript: the shortest digits that read back as the
/// same number, with an exponent from 10²¹ on and below 10⁻⁶.
pub(super) fn js_number_text(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    if number == 0.0 {
        return "0".to_owned();
    }
    // Rust's `e` format has the same shortest digits: `1.25e-7`.
    let scientific = format!("{:e}", number.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if number < 0.0 { "-" } else { "" };
    if (-6..21).contains(&exponent) {
        // Rust's plain format never uses an exponent.
        return format!("{sign}{}", number.abs());
    }
    let plus = if exponent > 0 { "+" } else { "" };
    format!("{sign}{mantissa}e{plus}{exponent}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_javascript_writes_them() {
        for (number, text) in [
            (1.0, "1"),
            (-1.0, "-1"),
            (-0.0, "0"),
            (1.5, "1.5"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (-1.5e300, "-1.5e+300"),
            (0.000_001, "0.000001"),
            (0.000_000_1, "1e-7"),
            (1.25e-7, "1.25e-7"),
            (5e-324, "5e-324"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(js_number_text(number), text);
        }
    }

    #[test]
    fn only_an_integral_number_that_fits_is_an_int32() {
        assert_eq!(bson_number(2_147_483_647.0), Bson::Int32(i32::MAX));
        assert_eq!(bson_number(-2_147_483_648.0), Bson::Int32(i32::MIN));
        assert_eq!(bson_number(2_147_483_648.0), Bson::Double(2_147_483_648.0));
        assert_eq!(bson_number(1.5), Bson::Double(1.5));
        let Bson::Double(zero) = bson_number(-0.0) else { panic!("minus zero is a double") };
        assert!(zero.is_sign_negative());
    }
}
