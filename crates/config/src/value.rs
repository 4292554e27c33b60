//! Types of values: how each is read from text, and what the schema says of it.
//!
//! [`Value`] is one value; [`Field`] is a field of a struct, which may hold none (`Option`), one,
//! or many (`Vec`). A type of a node's own implements `Value`, or derives [`Choice`].

use crate::grammar;
use crate::{ChoiceInfo, Kind};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// A type of values that can be read from text.
pub trait Value: Sized {
    /// The placeholder in help, such as `SIZE`.
    const TYPE: &'static str;
    /// The type, for schemas. `Text` if only this crate's user knows its form.
    const KIND: Kind = Kind::Text;
    /// The values, if they can be listed.
    const CHOICES: &'static [ChoiceInfo] = &[];

    /// Reads a value.
    ///
    /// # Errors
    /// Why the text is not one; without the key and the text, which the caller adds.
    fn parse(text: &str) -> Result<Self, String>;
}

/// An enum whose variants are the texts a parameter may have. Derive it.
pub trait Choice: Sized + Copy + 'static {
    /// The variants with their descriptions, in the order of the declaration.
    const VARIANTS: &'static [(ChoiceInfo, Self)];

    /// The variant's text.
    fn name(self) -> &'static str;
}

/// The type of a field: how many values it holds.
pub trait Field: Sized {
    /// The type of each value.
    type Item: Value;
    /// Whether a value must be given (or have a default).
    const REQUIRED: bool;
    /// Whether every value counts, not just the last.
    const REPEATED: bool;

    /// The field from the values given, in order; `None` if one is needed and there is none.
    fn collect(values: Vec<Self::Item>) -> Option<Self>;
}

impl<T: Value> Field for T {
    type Item = T;
    const REQUIRED: bool = true;
    const REPEATED: bool = false;

    fn collect(mut values: Vec<T>) -> Option<T> {
        values.pop()
    }
}

impl<T: Value> Field for Option<T> {
    type Item = T;
    const REQUIRED: bool = false;
    const REPEATED: bool = false;

    fn collect(mut values: Vec<T>) -> Option<Option<T>> {
        Some(values.pop())
    }
}

impl<T: Value> Field for Vec<T> {
    type Item = T;
    const REQUIRED: bool = false;
    const REPEATED: bool = true;

    fn collect(values: Vec<T>) -> Option<Vec<T>> {
        Some(values)
    }
}

/// A number of bytes, written as [`grammar::size`] reads it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

/// How often something happens: 0 never, 1 always. Finite, not negative, may exceed 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, PartialOrd)]
pub struct Probability(pub f64);

impl Value for Size {
    const TYPE: &'static str = "SIZE";
    const KIND: Kind = Kind::Size;

    fn parse(text: &str) -> Result<Self, String> {
        grammar::size(text).map(Size)
    }
}

impl Value for Probability {
    const TYPE: &'static str = "PROBABILITY";
    const KIND: Kind = Kind::Probability;

    fn parse(text: &str) -> Result<Self, String> {
        grammar::probability(text).map(Probability)
    }
}

impl Value for Duration {
    const TYPE: &'static str = "DELAY";
    const KIND: Kind = Kind::Duration;

    fn parse(text: &str) -> Result<Self, String> {
        grammar::delay(text)
    }
}

impl Value for bool {
    const TYPE: &'static str = "BOOL";
    const KIND: Kind = Kind::Boolean;

    fn parse(text: &str) -> Result<Self, String> {
        grammar::boolean(text)
    }
}

impl Value for f64 {
    const TYPE: &'static str = "NUMBER";
    const KIND: Kind = Kind::Number;

    fn parse(text: &str) -> Result<Self, String> {
        grammar::number(text)
    }
}

impl Value for String {
    const TYPE: &'static str = "TEXT";

    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

impl Value for PathBuf {
    const TYPE: &'static str = "FILE";
    const KIND: Kind = Kind::Path;

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("an empty file name".into()),
            // No system call can take it, so it is refused where the key is known.
            _ if text.contains('\0') => Err("a NUL in a file name".into()),
            _ => Ok(PathBuf::from(text)),
        }
    }
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Value for $type {
            const TYPE: &'static str = "N";
            const KIND: Kind =
                Kind::Integer { min: <$type>::MIN as i128, max: <$type>::MAX as i128 };

            fn parse(text: &str) -> Result<Self, String> {
                let number = grammar::integer(text, <$type>::MIN as i128, <$type>::MAX as i128)?;
                <$type>::try_from(number).map_err(|error| error.to_string())
            }
        }
    )*};
}

integers!(u8, u16, u32, u64, usize, i8, i16, i32, i64);

/// Reads a choice by its name or an alias; `-` and `_` are the same. What the derived [`Value`]
/// calls.
///
/// # Errors
/// A text that names no variant; the error lists the names.
pub fn choice_from<T: Choice>(text: &str) -> Result<T, String> {
    let same = |name: &str| crate::schema::same_key(name, text);
    T::VARIANTS
        .iter()
        .find(|(info, _)| same(info.name) || info.aliases.iter().any(|alias| same(alias)))
        .map(|&(_, variant)| variant)
        .ok_or_else(|| {
            let names: Vec<&str> = T::VARIANTS.iter().map(|(info, _)| info.name).collect();
            format!("must be one of {}", names.join(", "))
        })
}

impl fmt::Display for Size {
    /// The shortest exact form that [`grammar::size`] reads back: `64K`, `10G`, `1000`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffixes = ["", "K", "M", "G", "T", "P", "E"];
        let step = (self.0.trailing_zeros() / 10).min(6) * u32::from(self.0 != 0);
        write!(f, "{}{}", self.0 >> (10 * step), suffixes[step as usize])
    }
}

impl fmt::Display for Probability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_print_as_they_are_read() {
        let table = [
            (0, "0"),
            (1, "1"),
            (1000, "1000"),
            (1024, "1K"),
            (1536, "1536"),
            (10 << 30, "10G"),
        ];
        for (bytes, text) in table {
            assert_eq!(Size(bytes).to_string(), text);
        }
        for shift in 0..63 {
            for odd in [1, 3, 1023] {
                let bytes = (odd << shift) & grammar::SIZE_MAX;
                assert_eq!(Size::parse(&Size(bytes).to_string()), Ok(Size(bytes)));
            }
        }
    }

    #[test]
    fn integers_have_exact_ranges() {
        assert_eq!(u8::parse("255"), Ok(255));
        assert!(u8::parse("256").is_err());
        assert_eq!(u16::parse("0xffff"), Ok(u16::MAX));
        assert!(u16::parse("0x10000").is_err());
        assert_eq!(u64::parse("18446744073709551615"), Ok(u64::MAX));
        assert!(u64::parse("18446744073709551616").is_err());
        assert_eq!(i64::parse("-9223372036854775808"), Ok(i64::MIN));
        assert!(i64::parse("9223372036854775808").is_err());
        assert_eq!(u8::KIND, Kind::Integer { min: 0, max: 255 });
    }

    #[test]
    fn file_names_are_checked() {
        assert_eq!(PathBuf::parse("a b"), Ok(PathBuf::from("a b")));
        assert!(PathBuf::parse("").is_err());
        assert!(PathBuf::parse("a\0b").is_err());
    }
}
