//! nbddump's options.

use std::{ffi::OsString, io::IsTerminal};

use crate::{
    getopt::{self, Item, Spelling},
    tools::{Asked, Mistake, Place, listed, take_places, version},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opt {
    Help,
    Version,
    Color,
    NoColor,
    Filter,
    Length,
    Offset,
    LongOptions,
    ShortOptions,
}

const SPELLINGS: &[Spelling<Opt>] = &[
    Spelling::flag("help", Opt::Help),
    Spelling::flag("version", Opt::Version),
    Spelling::flag("color", Opt::Color),
    Spelling::flag("colors", Opt::Color),
    Spelling::flag("colour", Opt::Color),
    Spelling::flag("colours", Opt::Color),
    Spelling::flag("no-color", Opt::NoColor),
    Spelling::flag("no-colors", Opt::NoColor),
    Spelling::flag("no-colour", Opt::NoColor),
    Spelling::flag("no-colours", Opt::NoColor),
    Spelling::with("filter", Opt::Filter),
    Spelling::with("length", Opt::Length),
    Spelling::with("limit", Opt::Length),
    Spelling::with("offset", Opt::Offset),
    Spelling::with("skip", Opt::Offset),
    Spelling::with("n", Opt::Length),
    Spelling::with("o", Opt::Offset),
    Spelling::flag("V", Opt::Version),
    Spelling::flag("long-options", Opt::LongOptions),
    Spelling::flag("short-options", Opt::ShortOptions),
];

/// A command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub color: bool,
    pub filters: Vec<String>,
    pub length: Option<u64>,
    pub offset: u64,
    /// A source and its parameters, or a command.
    pub places: Vec<Place>,
}

/// Understands the words behind the program's name.
///
/// # Errors
/// What nbddump says.
pub fn parse(name: &str, words: Vec<OsString>) -> Result<Asked<Options>, Mistake> {
    let mut options = Options {
        color: std::io::stdout().is_terminal(),
        ..Options::default()
    };
    let mut others = Vec::new();
    for item in getopt::parse(words, SPELLINGS).map_err(|text| Mistake::Usage(Some(text)))? {
        match item {
            Item::Word(word) => others.push(word),
            Item::Option(Opt::Help, _) => return Ok(Asked::Text(usage(name))),
            Item::Option(Opt::Version, _) => return Ok(Asked::Text(version(name))),
            Item::Option(Opt::LongOptions, _) => {
                return Ok(Asked::Text(listed(SPELLINGS, is_hidden, true)));
            }
            Item::Option(Opt::ShortOptions, _) => {
                return Ok(Asked::Text(listed(SPELLINGS, is_hidden, false)));
            }
            Item::Option(Opt::Color, _) => options.color = true,
            Item::Option(Opt::NoColor, _) => options.color = false,
            Item::Option(Opt::Filter, value) => {
                options.filters.push(value.to_string_lossy().into_owned());
            }
            Item::Option(Opt::Length, value) => options.length = Some(size("length", &value)?),
            Item::Option(Opt::Offset, value) => options.offset = size("offset", &value)?,
        }
    }
    options.places = take_places(others).map_err(|_| Mistake::Usage(None))?;
    match options.places[..] {
        [] => Err(Mistake::Usage(None)),
        _ => Ok(Asked::Options(options)),
    }
}

fn size(name: &str, value: &OsString) -> Result<u64, Mistake> {
    let shown = value.to_string_lossy();
    config::grammar::size(&shown)
        .map_err(|_| Mistake::Plain(format!("could not parse --{name} option: {shown}")))
}

fn is_hidden(opt: Opt) -> bool {
    matches!(opt, Opt::ShortOptions | Opt::LongOptions)
}

/// How the program is used.
pub fn usage(name: &str) -> String {
    format!(
        "\nPrints what is on a disk, in hexadecimal:\n\n    \
         {name} [-n N|--length=N|--limit=N] [-o N|--offset=N|--skip=N]\n            \
         [--color|--no-color] URI | [ CMD ARGS ... ]\n    \
         {name} ... [--filter=NAME] SOURCE [KEY=VALUE|VALUE ...]\n\n\
         N bytes, or with a unit: 64k, 1M, 1G.\n\
         CMD is started, and ends, with {name}; put -- before [ if it has options.\n\
         SOURCE is a file, or what 'blkit sources' lists.\n\n\
         Other options: --help, -V (--version).\n\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(words: &[&str]) -> Result<Options, String> {
        match parse("nbddump", words.iter().map(OsString::from).collect()) {
            Ok(Asked::Options(options)) => Ok(options),
            Ok(Asked::Text(text)) => Err(text),
            Err(Mistake::Usage(text)) => Err(format!("usage: {}", text.unwrap_or_default())),
            Err(Mistake::Plain(text)) => Err(text),
        }
    }

    #[test]
    fn options_are_nbddumps() {
        let some = asked(&["-n", "1k", "--skip=0x10", "--colour", "nbd://x"]).unwrap();
        assert_eq!(
            (some.length, some.offset, some.color),
            (Some(1024), 16, true)
        );
        assert_eq!(some.places, [Place::Word("nbd://x".into())]);
        let some = asked(&["--limit", "7", "--no-c", "--", "[", "x", "-y", "]"]).unwrap();
        assert_eq!((some.length, some.color), (Some(7), false));
        assert_eq!(some.places, [Place::Command(vec!["x".into(), "-y".into()])]);
        let long = asked(&["--long-options"]).unwrap_err();
        assert!(long.starts_with("--help\n--version\n--color\n") && long.ends_with("--skip\n"));
        assert_eq!(asked(&["--short-options"]).unwrap_err(), "-n\n-o\n-V\n");
    }

    #[test]
    fn mistakes_are_told_in_nbddumps_words() {
        for (words, text) in [
            (&[][..], "usage: "),
            (&["[", "]"], "usage: "),
            (&["[", "x"], "usage: "),
            (&["--foo", "x"], "usage: unrecognized option '--foo'"),
            (&["-o", "x", "y"], "could not parse --offset option: x"),
            (&["-n", "-1", "y"], "could not parse --length option: -1"),
        ] {
            assert_eq!(asked(words).unwrap_err(), text, "{words:?}");
        }
    }
}
