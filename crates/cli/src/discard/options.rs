//! nbddiscard's and nbdzero's options.

use std::ffi::OsString;

use crate::{
    getopt::{self, Item, Spelling},
    tools::{Asked, LIBNBD, Place, listed, take_places},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opt {
    Check,
    FastZero,
    Filter,
    Help,
    Length,
    LongOptions,
    Offset,
    Quiet,
    ShortOptions,
    Verbose,
    Version,
    Yes,
    Zero,
}

const SPELLINGS: &[Spelling<Opt>] = &[
    Spelling::flag("check", Opt::Check),
    Spelling::flag("fast-zero", Opt::FastZero),
    Spelling::with("filter", Opt::Filter),
    Spelling::flag("help", Opt::Help),
    Spelling::with("length", Opt::Length),
    Spelling::with("offset", Opt::Offset),
    Spelling::flag("quiet", Opt::Quiet),
    Spelling::flag("verbose", Opt::Verbose),
    Spelling::flag("version", Opt::Version),
    Spelling::flag("yes", Opt::Yes),
    Spelling::flag("zero", Opt::Zero),
    Spelling::flag("V", Opt::Version),
    Spelling::flag("c", Opt::Check),
    Spelling::flag("h", Opt::Help),
    Spelling::with("l", Opt::Length),
    Spelling::with("o", Opt::Offset),
    Spelling::flag("q", Opt::Quiet),
    Spelling::flag("v", Opt::Verbose),
    Spelling::flag("y", Opt::Yes),
    Spelling::flag("z", Opt::Zero),
    Spelling::flag("long-options", Opt::LongOptions),
    Spelling::flag("short-options", Opt::ShortOptions),
];

/// A command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Look, and change nothing.
    pub check: bool,
    pub fast_zero: bool,
    pub filters: Vec<String>,
    pub length: Option<u64>,
    pub offset: u64,
    pub quiet: bool,
    pub verbose: bool,
    /// Do not ask.
    pub yes: bool,
    pub zero: bool,
    /// A source and its parameters, or a command.
    pub places: Vec<Place>,
}

/// What is wrong with a command line, and the exit status for it.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    pub status: u8,
    pub text: String,
}

impl Wrong {
    /// The words are no command line of this tool.
    fn usage(name: &str, text: &str) -> Wrong {
        let text = format!("{}{name}: error: {text}", usage_line(name));
        Wrong { status: 2, text }
    }

    fn plain(text: impl Into<String>) -> Wrong {
        let text = text.into();
        Wrong { status: 1, text }
    }
}

/// Understands the words behind the program's name.
///
/// # Errors
/// What nbddiscard says, but for its words about unknown options.
pub fn parse(name: &str, words: Vec<OsString>) -> Result<Asked<Options>, Wrong> {
    let mut options = Options::default();
    let (mut length, mut offset) = (None, None);
    let mut others = Vec::new();
    for item in getopt::parse(words, SPELLINGS).map_err(|text| Wrong::usage(name, &text))? {
        match item {
            Item::Word(word) => others.push(word),
            Item::Option(Opt::Help, _) => return Ok(Asked::Text(help(name))),
            Item::Option(Opt::Version, _) => return Ok(Asked::Text(format!("{name} {LIBNBD}\n"))),
            Item::Option(Opt::LongOptions, _) => {
                return Ok(Asked::Text(listed(SPELLINGS, is_hidden, true)));
            }
            Item::Option(Opt::ShortOptions, _) => {
                return Ok(Asked::Text(listed(SPELLINGS, is_hidden, false)));
            }
            Item::Option(Opt::Check, _) => options.check = true,
            Item::Option(Opt::FastZero, _) => options.fast_zero = true,
            Item::Option(Opt::Filter, value) => {
                options.filters.push(value.to_string_lossy().into_owned());
            }
            Item::Option(Opt::Length, value) => length = Some(value),
            Item::Option(Opt::Offset, value) => offset = Some(value),
            Item::Option(Opt::Quiet, _) => options.quiet = true,
            Item::Option(Opt::Verbose, _) => options.verbose = true,
            Item::Option(Opt::Yes, _) => options.yes = true,
            Item::Option(Opt::Zero, _) => options.zero = true,
        }
    }
    if others.is_empty() {
        return Err(Wrong::plain(format!(
            "NBD-URI is required.  See --help or {name}(1) man page."
        )));
    }
    options.length = length.map(|value| size(&value)).transpose()?;
    options.offset = offset.map_or(Ok(0), |value| size(&value))?;
    options.places = take_places(others).map_err(|error| Wrong::usage(name, &error.to_string()))?;
    Ok(Asked::Options(options))
}

fn size(value: &OsString) -> Result<u64, Wrong> {
    let shown = value.to_string_lossy();
    config::grammar::size(&shown)
        .map_err(|_| Wrong::plain(format!("cannot parse offset/length parameter: {shown}")))
}

fn is_hidden(opt: Opt) -> bool {
    matches!(opt, Opt::ShortOptions | Opt::LongOptions)
}

fn usage_line(name: &str) -> String {
    format!(
        "usage: {name} [-h] [-l LENGTH] [-o OFFSET] [-v] [-q] [-V] [-y] [-z]\n\
         {:pad$}[--fast-zero] [-c] [--filter NAME]\n\
         {:pad$}URI | [ CMD ARGS ... ] | SOURCE [KEY=VALUE ...]\n",
        "",
        "",
        pad = "usage:  ".len() + name.len()
    )
}

fn help(name: &str) -> String {
    format!(
        "{}\n\
         Discards or zeroes a disk, or a part of it.\n\n\
         URI is that of an NBD server's export; CMD is a server that is started, and ends, with\n\
         {name} (put -- before [ if it has options); SOURCE is a file, or what 'blkit sources'\n\
         lists.\n\n\
         options:\n  \
         -c, --check          change nothing: tell by the exit status whether all of it is\n                       \
         discarded (or, with -z, zero) already\n  \
         --fast-zero          zero, if that is faster than writing; implies -z\n  \
         --filter NAME        put a filter of blkit in front of the source\n  \
         -h, --help           this text\n  \
         -l, --length LENGTH  so many bytes, and not to the end of the disk (64k, 1M, 1G)\n  \
         -o, --offset OFFSET  from this byte on\n  \
         -q, --quiet          no warnings\n  \
         -v, --verbose        tell more\n  \
         -V, --version        the version\n  \
         -y, --yes            do not ask\n  \
         -z, --zero           zero, and do not discard (what nbdzero and 'blkit zero' do)\n",
        usage_line(name)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(words: &[&str]) -> Result<Options, Wrong> {
        match parse("nbdzero", words.iter().map(OsString::from).collect())? {
            Asked::Options(options) => Ok(options),
            Asked::Text(text) => Err(Wrong { status: 0, text }),
        }
    }

    #[test]
    fn options_are_nbddiscards() {
        let some = asked(&["-qy", "-l", "1M", "--offset=4k", "nbd://x"]).unwrap();
        assert_eq!((some.length, some.offset), (Some(1 << 20), 4096));
        assert!(some.quiet && some.yes && !some.zero && !some.check);
        assert!(asked(&["--fast", "x"]).unwrap().fast_zero);
        assert_eq!(asked(&["memory", "1M"]).unwrap().places.len(), 2);
        let text = |words: &[&str]| asked(words).unwrap_err().text;
        assert_eq!(text(&["-V", "x"]), "nbdzero 1.24.4\n");
        assert_eq!(
            text(&["--short-options"]),
            "-V\n-c\n-h\n-l\n-o\n-q\n-v\n-y\n-z\n"
        );
        assert!(text(&["-h"]).starts_with("usage: nbdzero [-h] [-l LENGTH]"));
    }

    #[test]
    fn mistakes_have_two_statuses() {
        for (words, status, text) in [
            (
                &[][..],
                1,
                "NBD-URI is required.  See --help or nbdzero(1) man page.",
            ),
            (
                &["-l", "x", "y"],
                1,
                "cannot parse offset/length parameter: x",
            ),
            (
                &["--foo"],
                2,
                "\nnbdzero: error: unrecognized option '--foo'",
            ),
            (
                &["x", "-l"],
                2,
                "\nnbdzero: error: option requires an argument -- 'l'",
            ),
        ] {
            let wrong = asked(words).unwrap_err();
            assert_eq!(wrong.status, status, "{words:?}");
            assert!(wrong.text.ends_with(text), "{words:?}: {wrong:?}");
        }
    }
}
