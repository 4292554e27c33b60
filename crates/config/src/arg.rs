//! Words of a command line, and who takes them.
//!
//! A chain of nodes shares one list of `key=value` words. The outermost filter looks first and
//! takes what it knows ([`take`]), then the next, down to the source; what is left then belongs
//! to nobody and is refused with the nearest key of them all ([`refuse_leftover`]).

use crate::schema::same_key;
use crate::{ConfigError, ErrorKind, Nearest, Schema};
use std::fmt;

/// One word of configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arg {
    /// `key=value`.
    KeyValue(String, String),
    /// A value without a key, for the magic parameter.
    Bare(String),
}

impl Arg {
    /// Splits a word at its first `=` if what stands before is a key, that is
    /// `[A-Za-z][A-Za-z0-9._-]*`; otherwise the whole word is a bare value.
    pub fn parse(word: &str) -> Self {
        match word.split_once('=') {
            Some((key, value)) if is_key(key) => Arg::KeyValue(key.into(), value.into()),
            _ => Arg::Bare(word.into()),
        }
    }
}

impl fmt::Display for Arg {
    /// The word as it was written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Arg::KeyValue(key, value) => write!(f, "{key}={value}"),
            Arg::Bare(value) => f.write_str(value),
        }
    }
}

/// Removes from `args` and returns, in order, what `schema` knows: its keys, bare values if it
/// has a magic parameter, and every key if it takes unknown ones.
pub fn take(schema: &Schema, args: &mut Vec<Arg>) -> Vec<Arg> {
    let known = |arg: &mut Arg| match arg {
        Arg::KeyValue(key, _) => schema.rest.is_some() || schema.find(key).is_some(),
        Arg::Bare(_) => schema.magic().is_some(),
    };
    args.extract_if(.., known).collect()
}

/// Refuses the first argument that no schema of a chain took. Give the schemas in the order in
/// which they looked; the error is the last one's, as users mean the source.
///
/// # Errors
/// `Unknown` or `NoMagic`, if `args` is not empty.
pub fn refuse_leftover(args: &[Arg], schemas: &[&Schema]) -> Result<(), ConfigError> {
    let kind = match args.first() {
        None => return Ok(()),
        Some(Arg::KeyValue(key, _)) => unknown(key, schemas),
        Some(Arg::Bare(value)) => ErrorKind::NoMagic {
            value: value.clone(),
        },
    };
    Err(ConfigError::new(
        schemas.last().map_or("", |schema| schema.name),
        kind,
    ))
}

impl Schema {
    /// Removes all but the last of the words for each parameter that does not repeat: for tools
    /// in which a later word replaces an earlier one, where [`crate::Config::from_args`] would
    /// refuse the second.
    pub fn keep_last(&self, args: &mut Vec<Arg>) {
        let mut seen = vec![false; self.params.len()];
        let mut kept = Vec::with_capacity(args.len());
        for arg in args.drain(..).rev() {
            let place = match &arg {
                Arg::KeyValue(key, _) => self.position(key),
                Arg::Bare(_) => self.params.iter().position(|param| param.magic),
            };
            let replaced = place.is_some_and(|place| {
                std::mem::replace(&mut seen[place], true) && !self.params[place].repeated
            });
            if !replaced {
                kept.push(arg);
            }
        }
        kept.reverse();
        *args = kept;
    }
}

/// The error for a key that none of the schemas knows.
pub(crate) fn unknown(key: &str, schemas: &[&Schema]) -> ErrorKind {
    ErrorKind::Unknown {
        key: key.to_owned(),
        nearest: nearest(key, schemas),
        of: schemas.iter().map(|schema| schema.name).collect(),
    }
}

/// Whether `text` can be a key.
pub(crate) fn is_key(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// The known key nearest to `key`, if it is near enough: one edit, and one more for every five
/// letters.
fn nearest(key: &str, schemas: &[&Schema]) -> Option<Nearest> {
    // The distance costs the product of the lengths, and no key of ours is this long.
    const LONGEST: usize = 64;
    if key.len() > LONGEST {
        return None;
    }
    let wanted = key.replace('_', "-").to_ascii_lowercase();
    let limit = 1 + wanted.len() / 5;
    let mut best: Option<(usize, Nearest)> = None;
    for schema in schemas {
        for param in schema.params {
            for known in param.keys() {
                let plain = known.replace('_', "-").to_ascii_lowercase();
                let distance = strsim::damerau_levenshtein(&wanted, &plain);
                // Of words this short every letter may differ: not alike.
                let near = distance <= limit && distance < plain.len().min(wanted.len());
                if (near || same_key(&wanted, &plain))
                    && best.as_ref().is_none_or(|(least, _)| distance < *least)
                {
                    best = Some((
                        distance,
                        Nearest {
                            key: known,
                            node: schema.name,
                        },
                    ));
                }
            }
        }
    }
    best.map(|(_, nearest)| nearest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Param, Size};

    const FILTER: Schema = Schema {
        name: "delay",
        doc: "Delay.",
        params: const { &[Param::of::<Size>("rdelay", "Delay of reads.").aliases(&["delay-read"])] },
        rest: None,
    };
    const SOURCE: Schema = Schema {
        name: "file",
        doc: "File.",
        params: const {
            &[
                Param::of::<String>("file", "The file.").magic(),
                Param::of::<Vec<u8>>("many", "N."),
            ]
        },
        rest: None,
    };

    fn args(words: &[&str]) -> Vec<Arg> {
        words.iter().map(|word| Arg::parse(word)).collect()
    }

    #[test]
    fn words_are_split_at_the_first_equals_sign() {
        let pairs = [
            ("a=b", "a", "b"),
            ("a=", "a", ""),
            ("a=b=c", "a", "b=c"),
            ("A.b_c-9=x", "A.b_c-9", "x"),
            ("a==", "a", "="),
            ("a= b\n", "a", " b\n"),
        ];
        for (word, key, value) in pairs {
            assert_eq!(
                Arg::parse(word),
                Arg::KeyValue(key.into(), value.into()),
                "{word:?}"
            );
            assert_eq!(Arg::parse(word).to_string(), word);
        }
        for word in [
            "", "a", "=", "=a", "9a=b", ".a=b", "./a=b", "_a=b", "a b=c", "\u{e4}=b", "a/b=c",
        ] {
            assert_eq!(Arg::parse(word), Arg::Bare(word.into()), "{word:?}");
            assert_eq!(Arg::parse(word).to_string(), word);
        }
    }

    #[test]
    fn filters_take_their_keys_before_the_source() {
        let mut all = args(&["disk.img", "delay_read=5", "file=x", "rdelay=6", "fil=y"]);
        assert_eq!(take(&FILTER, &mut all), args(&["delay_read=5", "rdelay=6"]));
        assert_eq!(take(&SOURCE, &mut all), args(&["disk.img", "file=x"]));
        let error = refuse_leftover(&all, &[&FILTER, &SOURCE]).unwrap_err();
        assert_eq!(error.to_string(), "file: unknown parameter 'fil'");
        assert_eq!(
            error.hint().as_deref(),
            Some("did you mean 'file' of file?")
        );
        assert_eq!(refuse_leftover(&[], &[&FILTER]), Ok(()));
    }

    #[test]
    fn a_bare_leftover_is_refused() {
        let mut all = args(&["disk.img"]);
        assert!(take(&FILTER, &mut all).is_empty());
        let error = refuse_leftover(&all, &[&FILTER]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "delay: 'disk.img' is not of the form key=value"
        );
    }

    #[test]
    fn only_near_keys_are_suggested() {
        let of = |key: &str| nearest(key, &[&FILTER, &SOURCE]).map(|nearest| nearest.key);
        assert_eq!(of("rdelya"), Some("rdelay"));
        assert_eq!(of("RDELAY"), Some("rdelay"));
        assert_eq!(of("delayread"), Some("delay-read"));
        assert_eq!(of("fille"), Some("file"));
        for far in ["x", "size", "offset", &"file".repeat(1000)] {
            assert_eq!(of(far), None, "{far}");
        }
    }

    #[test]
    fn the_last_word_can_replace_earlier_ones() {
        let mut all = args(&["a", "many=1", "file=b", "many=2", "c", "other=1", "other=2"]);
        SOURCE.keep_last(&mut all);
        assert_eq!(all, args(&["many=1", "many=2", "c", "other=1", "other=2"]));
    }
}
