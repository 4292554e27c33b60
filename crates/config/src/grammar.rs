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
mod tests;
