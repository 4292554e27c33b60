//! Words of a command line, and who takes them.
//!
//! A word `@PATH` stands for the words in a file ([`expand`]).
//!
//! A chain of nodes shares one list of `key=value` words. The outermost filter looks first and
//! takes what it knows ([`take`]), then the next, down to the source; what is left then belongs
//! to nobody and is refused with the nearest key of them all ([`refuse_leftover`]).

use crate::schema::same_key;
use crate::{ConfigError, ErrorKind, Nearest, Schema};
use std::{
    fmt,
    path::{Path, PathBuf},
};

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

/// Puts the words of a file in the place of each word `@PATH`. The path must contain a `/`; other
/// words that start with `@` stay as they are.
///
/// A file has a word on each line, spaces and all but those before it. Empty lines and those that
/// start with `#` count for nothing. A file may name others, by paths relative to its own directory.
///
/// `read` gives the text of a file, or says why it cannot; it bounds how long that may be.
///
/// # Errors
/// `File`: a file cannot be read, files name each other more than 16 deep, or they hold more than
/// 65536 words in all.
pub fn expand(
    words: &[String],
    read: &mut dyn FnMut(&Path) -> Result<String, String>,
) -> Result<Vec<String>, ConfigError> {
    let mut expansion = Expansion {
        words: Vec::with_capacity(words.len()),
        lines: 0,
        read,
    };
    for word in words {
        match file_of(word) {
            Some(path) => expansion.insert(Path::new(path), 1)?,
            None => expansion.words.push(word.clone()),
        }
    }
    Ok(expansion.words)
}

struct Expansion<'a> {
    words: Vec<String>,
    /// Parameters and names of files seen in files.
    lines: usize,
    read: &'a mut dyn FnMut(&Path) -> Result<String, String>,
}

/// The file that a word stands for.
fn file_of(word: &str) -> Option<&str> {
    word.strip_prefix('@').filter(|path| path.contains('/'))
}

impl Expansion<'_> {
    /// Adds the words of a file, which another named in a chain of `depth` files.
    fn insert(&mut self, path: &Path, depth: usize) -> Result<(), ConfigError> {
        const DEEPEST: usize = 16;
        const MOST: usize = 1 << 16;
        let refused = |why: String| {
            let path = PathBuf::from(path);
            ConfigError::new("", ErrorKind::File { path, why })
        };
        if depth > DEEPEST {
            let why = format!("files of parameters name each other more than {DEEPEST} deep");
            return Err(refused(why));
        }
        for line in (self.read)(path).map_err(refused)?.lines() {
            let word = line.trim_start();
            if word.is_empty() || word.starts_with('#') {
                continue;
            }
            self.lines += 1;
            if self.lines > MOST {
                return Err(refused(format!("more than {MOST} parameters")));
            }
            match file_of(word) {
                Some(other) => {
                    let directory = path.parent().unwrap_or(Path::new(""));
                    self.insert(&directory.join(other), depth + 1)?;
                }
                None => self.words.push(word.to_owned()),
            }
        }
        Ok(())
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

    /// Expands words with these files.
    fn expanded(words: &[&str], files: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).into()).collect();
        let mut read = |path: &Path| {
            let file = files.iter().find(|(name, _)| Path::new(name) == path);
            file.map(|(_, text)| (*text).to_owned())
                .ok_or_else(|| "no such file".into())
        };
        expand(&words, &mut read).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_stands_for_its_words() {
        let files = [
            (
                "./a",
                "size=1M\n\n# a comment\n  seed=7\r\nname=two words \n@../b\n@b/c",
            ),
            ("./../b", "fast=true"),
            ("./b/c", "#\n@/d/e\nlast"),
            ("/d/e", "@bare"),
        ];
        assert_eq!(
            expanded(&["first=1", "@./a", "@none", "key=@./a"], &files).unwrap(),
            [
                "first=1",
                "size=1M",
                "seed=7",
                "name=two words ",
                "fast=true",
                "@bare",
                "last",
                "@none",
                "key=@./a"
            ]
        );
        assert_eq!(expanded(&[], &[]).unwrap(), [""; 0]);
    }

    #[test]
    fn files_of_words_are_bounded() {
        let error = expanded(&["@/a\x07/none"], &[]).unwrap_err();
        assert_eq!(error, "@/a\\u{7}/none: no such file");
        let error = expanded(&["@/a"], &[("/a", "x=1\n@./a")]).unwrap_err();
        assert!(
            error.contains("/a: files of parameters name each other"),
            "{error}"
        );
        // Files that name many and hold nothing count too.
        let many = "@./e\n".repeat(300);
        let wide = "@./d\n".repeat(300);
        let files = [("/b", wide.as_str()), ("/d", &many), ("/e", "")];
        let error = expanded(&["@/b"], &files).unwrap_err();
        assert_eq!(error, "@/./d: more than 65536 parameters");
        let long = "x=1\n".repeat(65_537);
        let error = expanded(&["@/c"], &[("/c", &long)]).unwrap_err();
        assert_eq!(error, "@/c: more than 65536 parameters");
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
