//! Command lines as GNU getopt_long reads them, with its words for what is wrong.
//!
//! Options may stand before and after the other words, up to `--`; long ones may be shortened as
//! long as they mean one thing; `-fv` is `-f -v`, and `-p10`, `-p 10`, `--port=10`, `--port 10` and
//! `--po 10` are the same. Scripts rely on all of this, and on the messages.
//!
//! *Why not a library.* Those for Rust permute, shorten or report differently, and here the
//! difference would be a broken script.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
};

/// One spelling of an option.
#[derive(Clone, Copy, Debug)]
pub struct Spelling<T> {
    /// `--name` without the dashes, or one letter.
    pub name: &'static str,
    /// What it means.
    pub means: T,
    /// What may stand behind it.
    pub value: Value,
}

/// What may stand behind an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    None,
    /// A value must.
    Required,
    /// A value may, behind an equals sign (only long options are like this).
    Optional,
}

impl<T> Spelling<T> {
    /// An option without a value.
    pub const fn flag(name: &'static str, means: T) -> Spelling<T> {
        Spelling {
            name,
            means,
            value: Value::None,
        }
    }

    /// An option with a value.
    pub const fn with(name: &'static str, means: T) -> Spelling<T> {
        Spelling {
            name,
            means,
            value: Value::Required,
        }
    }

    /// A long option that may have a value.
    pub const fn maybe(name: &'static str, means: T) -> Spelling<T> {
        Spelling {
            name,
            means,
            value: Value::Optional,
        }
    }
}

/// An option that was given, or another word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item<T> {
    /// An option, and its value if it has one.
    Option(T, OsString),
    /// A word that is no option.
    Word(OsString),
}

/// Reads the words behind the program's name.
///
/// # Errors
/// The message of the first word that is wrong, without the program's name.
pub fn parse<T: Copy + PartialEq>(
    words: impl IntoIterator<Item = OsString>,
    spellings: &[Spelling<T>],
) -> Result<Vec<Item<T>>, String> {
    let mut words = words.into_iter();
    let mut items = Vec::new();
    while let Some(word) = words.next() {
        match option(word, &mut words, spellings, &mut items)? {
            Other::None => {}
            Other::Guard => break,
            Other::Word(word) => items.push(Item::Word(word)),
        }
    }
    items.extend(words.map(Item::Word));
    Ok(items)
}

/// Reads options up to the first other word, as getopt_long does when its list of options begins
/// with a plus sign. Returns the options, and the words from that one on.
///
/// # Errors
/// As [`parse`].
pub fn parse_before_words<T: Copy + PartialEq>(
    words: impl IntoIterator<Item = OsString>,
    spellings: &[Spelling<T>],
) -> Result<(Vec<Item<T>>, Vec<OsString>), String> {
    let mut words = words.into_iter();
    let mut items = Vec::new();
    let mut rest = Vec::new();
    while let Some(word) = words.next() {
        match option(word, &mut words, spellings, &mut items)? {
            Other::None => continue,
            Other::Guard => {}
            Other::Word(word) => rest.push(word),
        }
        break;
    }
    rest.extend(words);
    Ok((items, rest))
}

/// What a word is if it is no option.
enum Other {
    None,
    /// Two dashes: all behind are words.
    Guard,
    Word(OsString),
}

/// Reads one word, and its value if it is an option that has one.
fn option<T: Copy + PartialEq>(
    word: OsString,
    words: &mut impl Iterator<Item = OsString>,
    spellings: &[Spelling<T>],
    items: &mut Vec<Item<T>>,
) -> Result<Other, String> {
    let bytes = word.as_bytes();
    if bytes == b"--" {
        return Ok(Other::Guard);
    } else if let Some(long) = bytes.strip_prefix(b"--") {
        items.push(long_option(long, words, spellings)?);
    } else if bytes.len() > 1 && bytes[0] == b'-' {
        short_options(&bytes[1..], words, spellings, items)?;
    } else {
        return Ok(Other::Word(word));
    }
    Ok(Other::None)
}

fn long_option<T: Copy + PartialEq>(
    text: &[u8],
    words: &mut impl Iterator<Item = OsString>,
    spellings: &[Spelling<T>],
) -> Result<Item<T>, String> {
    let (name, value) = match text.iter().position(|&byte| byte == b'=') {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let found = find_long(name, spellings)?;
    let value = match (found.value, value) {
        (Value::None, Some(_)) => {
            return Err(format!(
                "option '--{}' doesn't allow an argument",
                found.name
            ));
        }
        (_, Some(value)) => OsString::from_vec(value.to_vec()),
        (Value::Required, None) => words
            .next()
            .ok_or_else(|| format!("option '--{}' requires an argument", found.name))?,
        (Value::None | Value::Optional, None) => OsString::new(),
    };
    Ok(Item::Option(found.means, value))
}

/// The spelling that `name` is, or is the beginning of.
fn find_long<'a, T: Copy + PartialEq>(
    name: &[u8],
    spellings: &'a [Spelling<T>],
) -> Result<&'a Spelling<T>, String> {
    let long = || spellings.iter().filter(|known| known.name.len() > 1);
    if let Some(exact) = long().find(|known| known.name.as_bytes() == name) {
        return Ok(exact);
    }
    let mut near = long().filter(|known| known.name.as_bytes().starts_with(name));
    let shown = OsStr::from_bytes(name).to_string_lossy();
    let Some(first) = near.next() else {
        return Err(format!("unrecognized option '--{shown}'"));
    };
    // Several spellings of one option are not ambiguous.
    if near.all(|other| other.means == first.means) {
        return Ok(first);
    }
    let possible = long()
        .filter(|known| known.name.as_bytes().starts_with(name))
        .map(|known| format!(" '--{}'", known.name));
    Err(format!(
        "option '--{shown}' is ambiguous; possibilities:{}",
        possible.collect::<String>()
    ))
}

/// A cluster: options without values, then perhaps one with.
fn short_options<T: Copy>(
    cluster: &[u8],
    words: &mut impl Iterator<Item = OsString>,
    spellings: &[Spelling<T>],
    items: &mut Vec<Item<T>>,
) -> Result<(), String> {
    for (at, &letter) in cluster.iter().enumerate() {
        let known = spellings
            .iter()
            .find(|known| known.name.as_bytes() == [letter]);
        let Some(known) = known else {
            return Err(format!("invalid option -- '{}'", letter.escape_ascii()));
        };
        if known.value != Value::Required {
            items.push(Item::Option(known.means, OsString::new()));
            continue;
        }
        let rest = &cluster[at + 1..];
        let value = match rest.is_empty() {
            false => OsString::from_vec(rest.to_vec()),
            true => words.next().ok_or_else(|| {
                format!("option requires an argument -- '{}'", char::from(letter))
            })?,
        };
        items.push(Item::Option(known.means, value));
        break;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Opt {
        Port,
        Pid,
        Verbose,
        Fore,
        Map,
    }

    const KNOWN: &[Spelling<Opt>] = &[
        Spelling::with("p", Opt::Port),
        Spelling::with("port", Opt::Port),
        Spelling::with("pid-file", Opt::Pid),
        Spelling::with("pidfile", Opt::Pid),
        Spelling::flag("v", Opt::Verbose),
        Spelling::flag("verbose", Opt::Verbose),
        Spelling::flag("f", Opt::Fore),
        Spelling::maybe("map", Opt::Map),
    ];

    fn read(words: &[&str]) -> Result<Vec<Item<Opt>>, String> {
        parse(words.iter().map(OsString::from), KNOWN)
    }

    fn opt(means: Opt, value: &str) -> Item<Opt> {
        Item::Option(means, value.into())
    }

    #[test]
    fn all_ways_to_write_a_value_are_one() {
        for words in [
            &["-p10"][..],
            &["-p", "10"],
            &["--port=10"],
            &["--port", "10"],
            &["--po", "10"],
            &["--po=10"],
        ] {
            assert_eq!(read(words).unwrap(), [opt(Opt::Port, "10")], "{words:?}");
        }
        let both = [
            opt(Opt::Fore, ""),
            opt(Opt::Verbose, ""),
            opt(Opt::Port, "v"),
        ];
        assert_eq!(read(&["-fvpv"]).unwrap(), both);
        assert_eq!(read(&["--port="]).unwrap(), [opt(Opt::Port, "")]);
        assert_eq!(read(&["-p", "-v"]).unwrap(), [opt(Opt::Port, "-v")]);
    }

    #[test]
    fn a_value_that_may_be_missing_stands_behind_an_equals_sign() {
        let word = Item::Word("x".into());
        assert_eq!(read(&["--map", "x"]).unwrap(), [opt(Opt::Map, ""), word]);
        assert_eq!(read(&["--ma=x"]).unwrap(), [opt(Opt::Map, "x")]);
    }

    #[test]
    fn other_words_may_stand_anywhere_and_behind_two_dashes_all_are() {
        let words = ["memory", "-f", "1M", "-", "--", "-v", "--"];
        let word = |text: &str| Item::Word(text.into());
        let expected = [
            word("memory"),
            opt(Opt::Fore, ""),
            word("1M"),
            word("-"),
            word("-v"),
            word("--"),
        ];
        assert_eq!(read(&words).unwrap(), expected);
    }

    #[test]
    fn options_may_have_to_come_first() {
        let read = |words: &[&str]| {
            let words = words.iter().map(OsString::from);
            parse_before_words(words, KNOWN).unwrap()
        };
        let port = || vec![opt(Opt::Port, "1")];
        assert_eq!(
            read(&["-p1", "x", "-f", "--"]),
            (port(), vec!["x".into(), "-f".into(), "--".into()])
        );
        assert_eq!(read(&["-p1", "--", "-f"]), (port(), vec!["-f".into()]));
        assert_eq!(read(&["-p1"]), (port(), Vec::new()));
    }

    #[test]
    fn what_is_wrong_is_told_as_getopt_does() {
        for (words, message) in [
            (&["--foo"][..], "unrecognized option '--foo'"),
            (&["--foo=1"], "unrecognized option '--foo'"),
            (
                &["--p=1"],
                "option '--p' is ambiguous; possibilities: '--port' '--pid-file' '--pidfile'",
            ),
            (&["-x"], "invalid option -- 'x'"),
            (&["-p"], "option requires an argument -- 'p'"),
            (&["--port"], "option '--port' requires an argument"),
            (
                &["--verbose=1"],
                "option '--verbose' doesn't allow an argument",
            ),
        ] {
            assert_eq!(read(words).unwrap_err(), message);
        }
        assert_eq!(read(&["--pid=f"]).unwrap(), [opt(Opt::Pid, "f")]);
    }
}
