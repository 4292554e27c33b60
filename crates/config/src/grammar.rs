//! The text forms of sizes, integers, booleans, delays and probabilities.
//!
//! They are nbdkit's, so that its users' command lines mean the same here: numbers follow
//! `strtoimax` with base 0 (leading white space, a sign, `0x` hexadecimal, `0` octal), sizes
//! count in powers of 1024. Hexadecimal floating point, infinities and NaN are refused.
//!
//! Contract: every function looks at each byte a bounded number of times, never panics, and
//! returns as error the reason only; the caller knows the key and the value.

use std::time::Duration;

/// The largest size, in bytes: the largest file offset.
pub const SIZE_MAX: u64 = i64::MAX as u64;

/// The longest delay, in seconds. It keeps deadline arithmetic free of overflow.
pub const DELAY_MAX_SECONDS: u64 = u32::MAX as u64;

/// Parses a size in bytes: an integer, then optionally `_`, then a suffix of
/// `b` (1), `s` (512), `k`, `M`, `G`, `T`, `P` or `E` (powers of 1024), in either case.
///
/// # Errors
/// No number, a fraction, an unknown suffix, a negative size, or more than [`SIZE_MAX`].
pub fn size(text: &str) -> Result<u64, String> {
    let (negative, magnitude, rest) = integer_prefix(text)?;
    let suffix = match rest.strip_prefix('_') {
        Some("") => return Err("a suffix is missing after '_'".into()),
        Some(suffix) => suffix,
        None => rest,
    };
    let scale: u64 = match suffix {
        "" | "b" | "B" => 1,
        "s" | "S" => 512,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        "t" | "T" => 1 << 40,
        "p" | "P" => 1 << 50,
        "e" | "E" => 1 << 60,
        _ if suffix.starts_with('.') => return Err("a size has no fraction".into()),
        _ => return Err(format!("unknown suffix '{}'", crate::error::shown(suffix))),
    };
    let bytes = magnitude
        .and_then(|count| count.checked_mul(scale))
        .filter(|&bytes| bytes <= SIZE_MAX)
        .ok_or("the size is larger than 2^63-1 bytes")?;
    if negative && bytes != 0 {
        return Err("a size cannot be negative".into());
    }
    Ok(bytes)
}

/// Parses an integer between `min` and `max`, both included.
///
/// # Errors
/// No number, anything after it, or a value out of the range.
pub fn integer(text: &str, min: i128, max: i128) -> Result<i128, String> {
    let (negative, magnitude, rest) = integer_prefix(text)?;
    if negative && min >= 0 {
        return Err("a negative number is not allowed".into());
    }
    if !rest.is_empty() {
        return Err(format!("'{}' after the number", crate::error::shown(rest)));
    }
    magnitude
        .map(|magnitude| {
            if negative {
                -i128::from(magnitude)
            } else {
                i128::from(magnitude)
            }
        })
        .filter(|number| (min..=max).contains(number))
        .ok_or_else(|| format!("out of range ({min} to {max})"))
}

/// Parses a boolean: `1 true t yes y on` or `0 false f no n off`, in any case.
///
/// # Errors
/// Any other text.
pub fn boolean(text: &str) -> Result<bool, String> {
    let is = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is(&["1", "true", "t", "yes", "y", "on"]) {
        Ok(true)
    } else if is(&["0", "false", "f", "no", "n", "off"]) {
        Ok(false)
    } else {
        Err("neither true nor false".into())
    }
}

/// Parses a delay: a decimal number, then `s` (seconds, also without suffix), `ms`, `us`
/// (or `μs`) or `ns`. Rounded to the nearest nanosecond.
///
/// # Errors
/// No number, an unknown suffix, a negative delay, or more than [`DELAY_MAX_SECONDS`].
pub fn delay(text: &str) -> Result<Duration, String> {
    let (number, suffix) = text.split_at(float_length(text));
    let number = number_of(number)?;
    let unit = match suffix {
        "" | "s" => 1.0,
        "ms" => 1e3,
        // The Greek letter, and the micro sign of older keyboards.
        "us" | "\u{3bc}s" | "\u{b5}s" => 1e6,
        "ns" => 1e9,
        _ => return Err(format!("unknown unit '{}'", crate::error::shown(suffix))),
    };
    if number < 0.0 {
        return Err("a delay cannot be negative".into());
    }
    // Dividing is exact where it can be: 1/1000 rounds once, times 0.001 twice.
    let seconds = number / unit;
    if seconds > DELAY_MAX_SECONDS as f64 {
        return Err(format!("longer than {DELAY_MAX_SECONDS} seconds"));
    }
    Duration::try_from_secs_f64(seconds.abs()).map_err(|error| error.to_string())
}

/// Parses a probability: `0.1`, `1e-1`, `10%`, `1:10` or `1/10`. It may exceed 1.
///
/// # Errors
/// Not of one of these forms, a division by zero, or a negative result.
pub fn probability(text: &str) -> Result<f64, String> {
    let result = if let Some(percent) = text.strip_suffix('%') {
        number_of(percent)? / 100.0
    } else if let Some((part, whole)) = text.split_once([':', '/']) {
        number_of(part)? / number_of(whole)?
    } else {
        number_of(text)?
    };
    if !result.is_finite() {
        return Err("the ratio is not finite".into());
    }
    if result < 0.0 {
        return Err("a probability cannot be negative".into());
    }
    Ok(result.abs()) // of -0
}

/// Parses a finite number.
///
/// # Errors
/// Not a number, or infinite.
pub fn number(text: &str) -> Result<f64, String> {
    number_of(text)
}

/// The sign, the magnitude (`None`: more than 64 bits hold) and what follows, as `strtoimax`
/// with base 0 splits them: the longest prefix that is a number.
fn integer_prefix(text: &str) -> Result<(bool, Option<u64>, &str), String> {
    let text = skip_space(text);
    let (negative, text) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let hexadecimal = text
        .strip_prefix("0x")
        .or_else(|| text.strip_prefix("0X"))
        .filter(|digits| digits.starts_with(|c: char| c.is_ascii_hexdigit()));
    // "0x" without a digit is the number 0 and the text "x", as in C.
    let (digits, radix) = match hexadecimal {
        Some(digits) => (digits, 16),
        None if text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    let end = digits
        .find(|c: char| !c.is_digit(radix))
        .unwrap_or(digits.len());
    if end == 0 {
        return Err("not a number".into());
    }
    let magnitude = u64::from_str_radix(&digits[..end], radix).ok();
    Ok((negative, magnitude, &digits[end..]))
}

/// A finite number that is the whole text but for leading white space.
fn number_of(text: &str) -> Result<f64, String> {
    let number: f64 = skip_space(text)
        .parse()
        .map_err(|_| String::from("not a number"))?;
    // Also the words "inf" and "nan", which Rust reads, and 1e400, which becomes infinite.
    if number.is_finite() {
        Ok(number)
    } else {
        Err("not a finite number".into())
    }
}

/// The length of the decimal floating-point number that `text` starts with.
fn float_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let digits = |from: usize| {
        bytes[from..]
            .iter()
            .take_while(|b| b.is_ascii_digit())
            .count()
    };
    let mut end = text.len() - skip_space(text).len();
    end += usize::from(matches!(bytes.get(end), Some(b'+' | b'-')));
    end += digits(end);
    if bytes.get(end) == Some(&b'.') {
        end += 1 + digits(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let count = digits((end + 1 + sign).min(bytes.len()));
        if count > 0 {
            end += 1 + sign + count;
        }
    }
    end
}

/// What `isspace` of the C locale skips.
fn skip_space(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\n', '\r', '\u{b}', '\u{c}'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes() {
        let good: &[(&str, u64)] = &[
            ("0", 0),
            ("1", 1),
            ("010", 8),
            ("0x10", 16),
            ("0X10", 16),
            ("0x1b", 27),
            ("0x1E", 30),
            ("0x1_E", 1 << 60),
            ("0x1_b", 1),
            ("010k", 8192),
            ("1b", 1),
            ("1B", 1),
            ("1s", 512),
            ("1S", 512),
            ("1k", 1024),
            ("1K", 1024),
            ("1M", 1 << 20),
            ("1m", 1 << 20),
            ("1G", 1 << 30),
            ("1T", 1 << 40),
            ("1P", 1 << 50),
            ("1E", 1 << 60),
            ("1e", 1 << 60),
            ("1_M", 1 << 20),
            ("7E", 7 << 60),
            ("0k", 0),
            ("-0", 0),
            ("+1", 1),
            (" 1", 1),
            ("\t1", 1),
            ("9223372036854775807", SIZE_MAX),
            ("18014398509481983s", 9_223_372_036_854_775_296),
            ("0x7fffffffffffffff", SIZE_MAX),
        ];
        for &(text, bytes) in good {
            assert_eq!(size(text), Ok(bytes), "{text:?}");
        }
        let bad = [
            "",
            " ",
            "k",
            "_1",
            "1_",
            "1__M",
            "1 ",
            "1 M",
            "08",
            "0x",
            "0xg",
            "0b1",
            "1.5k",
            "1.0",
            "1MB",
            "1KiB",
            "1kk",
            "-1",
            "-1k",
            "8E",
            "9223372036854775808",
            "18446744073709551616",
            "18014398509481984s",
            "99999999999999999999999",
            "0x8000000000000000",
            "--1",
            "+-1",
            "1\u{3bc}",
            "\u{661}",
            "- 1",
            "1_-",
            "max",
            "1\0",
        ];
        for text in bad {
            assert!(size(text).is_err(), "{text:?} gave {:?}", size(text));
        }
    }

    #[test]
    fn integers() {
        let u32_max = i128::from(u32::MAX);
        let good = [
            ("10", 10),
            ("0x10", 16),
            ("010", 8),
            ("+1", 1),
            (" 1", 1),
            ("0X1f", 31),
            ("4294967295", 4_294_967_295),
        ];
        for (text, number) in good {
            assert_eq!(integer(text, 0, u32_max), Ok(number), "{text:?}");
        }
        let bad = [
            "",
            "08",
            "-1",
            "-0",
            "1 ",
            "4294967296",
            "99999999999999999999999",
            "0x",
            "0b1",
            "1k",
            "1_000",
            "1.0",
            "--1",
            "- 1",
            "one",
        ];
        for text in bad {
            assert!(integer(text, 0, u32_max).is_err(), "{text:?}");
        }
        let (min, max) = (i128::from(i64::MIN), i128::from(i64::MAX));
        assert_eq!(integer("-9223372036854775808", min, max), Ok(min));
        assert_eq!(integer("-0x8000000000000000", min, max), Ok(min));
        assert!(integer("-9223372036854775809", min, max).is_err());
        assert!(integer("9223372036854775808", min, max).is_err());
        assert_eq!(
            integer("18446744073709551615", 0, u64::MAX.into()),
            Ok(u64::MAX.into())
        );
        assert!(integer("18446744073709551616", 0, u64::MAX.into()).is_err());
    }

    #[test]
    fn booleans() {
        for text in ["1", "true", "t", "yes", "y", "on", "TRUE", "Yes", "oN"] {
            assert_eq!(boolean(text), Ok(true), "{text:?}");
        }
        for text in ["0", "false", "f", "no", "n", "off", "FALSE", "No", "oFf"] {
            assert_eq!(boolean(text), Ok(false), "{text:?}");
        }
        for text in ["", " 1", "2", "tr", "01", "true ", "enable"] {
            assert!(boolean(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn delays() {
        let good = [
            ("0", 0),
            ("1", 1_000_000_000),
            ("1s", 1_000_000_000),
            ("1ms", 1_000_000),
            ("1us", 1_000),
            ("1\u{3bc}s", 1_000),
            ("1\u{b5}s", 1_000),
            ("1ns", 1),
            ("1.5s", 1_500_000_000),
            (".5", 500_000_000),
            ("5.", 5_000_000_000),
            ("1e3ms", 1_000_000_000),
            ("1e-3", 1_000_000),
            ("1E+1ms", 10_000_000),
            ("+1", 1_000_000_000),
            (" 1", 1_000_000_000),
            ("-0", 0),
            ("0.1", 100_000_000),
            ("100ms", 100_000_000),
            ("1e-400", 0),
            ("4294967295", 4_294_967_295_000_000_000),
        ];
        for (text, nanoseconds) in good {
            assert_eq!(
                delay(text),
                Ok(Duration::from_nanos(nanoseconds)),
                "{text:?}"
            );
        }
        let bad = [
            "",
            "s",
            "ms",
            ".",
            ".s",
            "e3",
            "1e",
            "1es",
            "-1",
            "-1ms",
            "0x10",
            "inf",
            "nan",
            "1 ms",
            "1S",
            "1MS",
            "1m",
            "1h",
            "4294967296",
            "1e400",
            "1e10",
            "1.2.3",
            "1s ",
            "1,5",
        ];
        for text in bad {
            assert!(delay(text).is_err(), "{text:?} gave {:?}", delay(text));
        }
    }

    #[test]
    fn probabilities() {
        let good = [
            ("0", 0.0),
            ("1", 1.0),
            ("0.1", 0.1),
            ("1e-1", 0.1),
            ("10%", 0.1),
            ("1:10", 0.1),
            ("1/10", 0.1),
            ("2", 2.0),
            ("250%", 2.5),
            ("3/2", 1.5),
            ("+1", 1.0),
            (" 1", 1.0),
            ("-0.0", 0.0),
            ("1e-400", 0.0),
            ("0/7", 0.0),
            ("0.5:2", 0.25),
        ];
        for (text, number) in good {
            assert_eq!(probability(text), Ok(number), "{text:?}");
            assert!(
                probability(text).is_ok_and(f64::is_sign_positive),
                "{text:?}"
            );
        }
        let bad = [
            "",
            "%",
            ":",
            "1:",
            "/2",
            "1:0",
            "0/0",
            "-1",
            "-5%",
            "1:-2",
            "inf",
            "nan",
            "1e400",
            "1 %",
            "1%%",
            "1:2:3",
            "1/2%",
            "0x1p-1",
            "1e308/1e-308",
            "ten",
        ];
        for text in bad {
            assert!(
                probability(text).is_err(),
                "{text:?} gave {:?}",
                probability(text)
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = (size(&text), integer(&text, -7, 7), boolean(&text));
            let _ = (delay(&text), probability(&text), number(&text));
        }

        #[test]
        fn near_misses_do_not_panic(text in "[ +-]{0,2}[0-9.xXe_]{0,12}[bskMGTPEm%:/usn]{0,3}") {
            let _ = (size(&text), integer(&text, -7, 7), delay(&text), probability(&text));
        }

        #[test]
        fn decimal_sizes_come_back(bytes in 1..=SIZE_MAX) {
            prop_assert_eq!(size(&bytes.to_string()), Ok(bytes));
            prop_assert_eq!(size(&format!("{bytes:#x}")), Ok(bytes));
        }
    }
}
