//! nbdcopy's options.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
    time::Duration,
};

use graph::{BlkHash, Digest};

use crate::{
    getopt::{self, Item, Spelling},
    tools::{Asked, Mistake, Place, listed, take_places, version},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opt {
    Allocated,
    BlkHash,
    BlkHashFile,
    Connections,
    DestinationIsZero,
    Flush,
    Help,
    LongOptions,
    NoExtents,
    Progress,
    QueueSize,
    RateLimit,
    Reconnect,
    RequestSize,
    Requests,
    Resume,
    Retries,
    ShortOptions,
    Sparse,
    Synchronous,
    Threads,
    Verbose,
    Verify,
    Version,
}

const SPELLINGS: &[Spelling<Opt>] = &[
    Spelling::flag("help", Opt::Help),
    Spelling::flag("allocated", Opt::Allocated),
    Spelling::maybe("blkhash", Opt::BlkHash),
    Spelling::with("blkhash-file", Opt::BlkHashFile),
    Spelling::with("connections", Opt::Connections),
    Spelling::flag("destination-is-zero", Opt::DestinationIsZero),
    Spelling::flag("flush", Opt::Flush),
    Spelling::flag("no-extents", Opt::NoExtents),
    Spelling::maybe("progress", Opt::Progress),
    Spelling::with("queue-size", Opt::QueueSize),
    Spelling::with("rate-limit", Opt::RateLimit),
    Spelling::with("reconnect", Opt::Reconnect),
    Spelling::with("request-size", Opt::RequestSize),
    Spelling::with("requests", Opt::Requests),
    Spelling::maybe("resume", Opt::Resume),
    Spelling::with("retries", Opt::Retries),
    Spelling::with("sparse", Opt::Sparse),
    Spelling::flag("synchronous", Opt::Synchronous),
    Spelling::flag("target-is-zero", Opt::DestinationIsZero),
    Spelling::with("threads", Opt::Threads),
    Spelling::flag("verbose", Opt::Verbose),
    Spelling::flag("verify", Opt::Verify),
    Spelling::flag("version", Opt::Version),
    Spelling::with("C", Opt::Connections),
    Spelling::flag("p", Opt::Progress),
    Spelling::with("R", Opt::Requests),
    Spelling::with("S", Opt::Sparse),
    Spelling::with("T", Opt::Threads),
    Spelling::flag("v", Opt::Verbose),
    Spelling::flag("V", Opt::Version),
    Spelling::flag("long-options", Opt::LongOptions),
    Spelling::flag("short-options", Opt::ShortOptions),
];

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Not at all.
    Off,
    /// A bar on standard error.
    Bar,
    /// Lines for a program, to this descriptor.
    Lines(u32),
}

/// Whether an interrupted copy is gone on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// It begins anew.
    Off,
    /// What was done is in a file beside the destination.
    Beside,
    /// It is in this file.
    File(PathBuf),
}

/// A command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub allocated: bool,
    pub blkhash: Option<BlkHash>,
    pub blkhash_file: Option<PathBuf>,
    pub connections: u32,
    pub destination_is_zero: bool,
    pub extents: bool,
    pub flush: bool,
    pub progress: Progress,
    /// Bytes on their way at a time; as many as are good, unless told.
    pub queue_size: Option<u64>,
    pub rate_limit: Option<u64>,
    /// How long lost connections are made again.
    pub reconnect: Duration,
    /// Bytes of a request; as many as are good, unless told.
    pub request_size: Option<u64>,
    pub resume: Resume,
    pub retries: u32,
    /// For each connection, if that was said.
    pub requests: Option<u32>,
    /// `None`: zeroes are not looked for; `Some(None)`: as the destination prefers.
    pub sparse: Option<Option<u64>>,
    pub synchronous: bool,
    pub verbose: bool,
    pub verify: bool,
    pub source: Place,
    pub destination: Place,
}

/// Understands the words behind the program's name.
///
/// # Errors
/// What nbdcopy says.
pub fn parse(name: &str, words: Vec<OsString>) -> Result<Asked<Options>, Mistake> {
    let mut given = Given::default();
    for item in getopt::parse(words, SPELLINGS).map_err(|text| Mistake::Usage(Some(text)))? {
        match item {
            Item::Word(word) => given.words.push(word),
            Item::Option(Opt::Help, _) => return Ok(Asked::Text(usage(name))),
            Item::Option(Opt::Version, _) => return Ok(Asked::Text(version(name))),
            Item::Option(Opt::LongOptions, _) => {
                return Ok(Asked::Text(listed(SPELLINGS, is_hidden, true)));
            }
            Item::Option(Opt::ShortOptions, _) => {
                return Ok(Asked::Text(listed(SPELLINGS, is_hidden, false)));
            }
            Item::Option(opt, value) => given.take(opt, &value).map_err(Mistake::Plain)?,
        }
    }
    given.finish().map(Asked::Options)
}

struct Given {
    options: Options,
    words: Vec<OsString>,
}

impl Default for Given {
    fn default() -> Given {
        let nothing = || Place::Word(OsString::new());
        Given {
            options: Options {
                allocated: false,
                blkhash: None,
                blkhash_file: None,
                connections: 4,
                destination_is_zero: false,
                extents: true,
                flush: false,
                progress: Progress::Off,
                queue_size: None,
                rate_limit: None,
                reconnect: Duration::ZERO,
                request_size: None,
                requests: None,
                resume: Resume::Off,
                retries: 0,
                sparse: Some(None),
                synchronous: false,
                verbose: false,
                verify: false,
                source: nothing(),
                destination: nothing(),
            },
            words: Vec::new(),
        }
    }
}

impl Given {
    fn take(&mut self, opt: Opt, value: &OsStr) -> Result<(), String> {
        let options = &mut self.options;
        match opt {
            Opt::Allocated => options.allocated = true,
            Opt::BlkHash => options.blkhash = Some(blkhash(value)?),
            Opt::BlkHashFile => options.blkhash_file = Some(value.into()),
            Opt::Connections => options.connections = number("connections", value, 1, 64)?,
            Opt::DestinationIsZero => options.destination_is_zero = true,
            Opt::Flush => options.flush = true,
            Opt::NoExtents => options.extents = false,
            Opt::Progress if value.is_empty() => options.progress = Progress::Bar,
            Opt::Progress => {
                options.progress = Progress::Lines(number("progress", value, 0, 1 << 30)?);
            }
            Opt::QueueSize => options.queue_size = Some(size("queue-size", value)?),
            Opt::RateLimit => options.rate_limit = Some(rate(value)?),
            Opt::Reconnect => {
                let seconds = number("reconnect", value, 0, 1 << 30)?;
                options.reconnect = Duration::from_secs(seconds.into());
            }
            Opt::RequestSize => {
                let most = u64::from(block::MAX_TRANSFER);
                let bounds = "within 4096-33554432";
                let size = power("request-size", value, 4096, most, bounds)?;
                options.request_size = Some(size);
            }
            Opt::Requests => options.requests = Some(number("requests", value, 1, 1 << 16)?),
            Opt::Resume if value.is_empty() => options.resume = Resume::Beside,
            Opt::Resume => options.resume = Resume::File(value.into()),
            Opt::Retries => options.retries = number("retries", value, 0, 1 << 16)?,
            Opt::Sparse if value == "0" => options.sparse = None,
            Opt::Sparse => {
                let most = u64::from(u32::MAX);
                let block = power("sparse", value, 512, most, "between 512-4294967295")?;
                options.sparse = Some(Some(block));
            }
            Opt::Synchronous => options.synchronous = true,
            // One event loop serves all connections; what is dear is done on other threads anyhow.
            Opt::Threads => drop(number("threads", value, 0, 1 << 16)?),
            Opt::Verbose => options.verbose = true,
            Opt::Verify => options.verify = true,
            Opt::Help | Opt::Version | Opt::LongOptions | Opt::ShortOptions => {}
        }
        Ok(())
    }

    fn finish(self) -> Result<Options, Mistake> {
        let places = take_places(self.words).map_err(|error| Mistake::Plain(error.to_string()))?;
        let Ok([source, destination]) = <[Place; 2]>::try_from(places) else {
            return Err(Mistake::Usage(None));
        };
        let mut options = self.options;
        if options.synchronous {
            options.connections = 1;
        }
        if options.allocated {
            // Zeroes are data then.
            options.sparse = None;
        }
        if options.blkhash.is_some() && options.resume != Resume::Off {
            let what = "--blkhash and --resume cannot be given together: \
                what was copied before is not read again";
            return Err(Mistake::Plain(what.into()));
        }
        Ok(Options {
            source,
            destination,
            ..options
        })
    }
}

fn number(name: &str, value: &OsStr, least: u32, most: u32) -> Result<u32, String> {
    let shown = value.to_string_lossy();
    let number = shown.parse().ok();
    number
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("--{name}: could not parse: {shown}"))
}

fn size(name: &str, value: &OsStr) -> Result<u64, String> {
    let shown = value.to_string_lossy();
    config::grammar::size(&shown)
        .map_err(|_| format!("--{name}: could not parse size string: {shown}"))
}

fn rate(value: &OsStr) -> Result<u64, String> {
    match size("rate-limit", value)? {
        0 => Err("--rate-limit: must be at least 1 byte per second".into()),
        rate => Ok(rate),
    }
}

/// A digest, and perhaps the size of its blocks.
fn blkhash(value: &OsStr) -> Result<BlkHash, String> {
    let shown = value.to_string_lossy();
    let (name, block) = match shown.split_once('/') {
        Some((name, block)) => (name, Some(block)),
        None => (&*shown, None),
    };
    let digest = match name.to_ascii_lowercase().as_str() {
        "md5" => Digest::Md5,
        "sha1" => Digest::Sha1,
        "" if shown.is_empty() => Digest::Sha256,
        "sha256" => Digest::Sha256,
        "sha512" => Digest::Sha512,
        _ => return Err(format!("--blkhash: unknown digest algorithm '{shown}'")),
    };
    let block = match block {
        None => 65536,
        Some(text) => match size("blkhash", OsStr::new(text))? {
            block if block > u64::from(u32::MAX) => {
                return Err(format!("--blkhash is too large: {text}"));
            }
            block if !block.is_power_of_two() => {
                return Err(format!("--blkhash is not a power of two: {text}"));
            }
            block => block,
        },
    };
    Ok(BlkHash { digest, block })
}

fn power(name: &str, value: &OsStr, least: u64, most: u64, bounds: &str) -> Result<u64, String> {
    let size = size(name, value)?;
    match size.is_power_of_two() && (least..=most).contains(&size) {
        true => Ok(size),
        false => {
            let comma = if bounds.starts_with("between") {
                ","
            } else {
                ""
            };
            let shown = value.to_string_lossy();
            Err(format!(
                "--{name}: must be a power of 2{comma} {bounds}: {shown}"
            ))
        }
    }
}

fn is_hidden(opt: Opt) -> bool {
    matches!(opt, Opt::ShortOptions | Opt::LongOptions)
}

/// How the program is used.
pub fn usage(name: &str) -> String {
    format!(
        "\nCopies to and from NBD servers and files:\n\n    \
         {name} [--allocated] [--blkhash[=ALGORITHM[/SIZE]]] [--blkhash-file=FILE]\n            \
         [-C N|--connections=N]\n            \
         [--destination-is-zero|--target-is-zero] [--flush] [--no-extents]\n            \
         [-p|--progress|--progress=FD] [--queue-size=N] [--rate-limit=N]\n            \
         [--reconnect=SECONDS] [--request-size=N] [-R N|--requests=N]\n            \
         [--resume|--resume=FILE] [--retries=N] [-S N|--sparse=N]\n            \
         [--synchronous] [-T N|--threads=N] [-v|--verbose] [--verify]\n            \
         SOURCE DESTINATION\n\n    \
         SOURCE, DESTINATION := - | FILE | DEVICE | URI | [ CMD ARGS ... ]\n    \
         DESTINATION += null:\n\n\
         CMD is started, and ends, with {name}; put -- before [ if it has options.\n\n\
         Other options: --help, -V (--version).\n\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(words: &[&str]) -> Result<Options, String> {
        match parse("nbdcopy", words.iter().map(OsString::from).collect()) {
            Ok(Asked::Options(options)) => Ok(options),
            Ok(Asked::Text(text)) => Err(text),
            Err(Mistake::Usage(text)) => Err(format!("usage: {}", text.unwrap_or_default())),
            Err(Mistake::Plain(text)) => Err(text),
        }
    }

    #[test]
    fn options_are_nbdcopys() {
        let plain = asked(&["a", "null:"]).unwrap();
        assert_eq!((plain.connections, plain.requests), (4, None));
        assert_eq!((plain.request_size, plain.queue_size), (None, None));
        assert_eq!(plain.destination, Place::Word("null:".into()));
        let words = [
            "-C2",
            "--requests=8",
            "--request-size=1M",
            "-S",
            "0",
            "-p",
            "a",
            "b",
        ];
        let some = asked(&words).unwrap();
        assert_eq!((some.connections, some.requests), (2, Some(8)));
        assert_eq!(some.request_size, Some(1 << 20));
        assert_eq!((some.sparse, some.progress), (None, Progress::Bar));
        let lines = asked(&["--progress=3", "a", "b", "--target-is-zero"]).unwrap();
        assert_eq!(lines.progress, Progress::Lines(3));
        assert!(lines.destination_is_zero);
        assert_eq!(asked(&["--allocated", "a", "b"]).unwrap().sparse, None);
        let both = asked(&["--", "[", "x", "-y", "]", "[", "z", "]"]).unwrap();
        assert_eq!(both.destination, Place::Command(vec!["z".into()]));
    }

    #[test]
    fn hashes_and_what_nbdcopy_has_not() {
        let hash = |digest, block| Some(BlkHash { digest, block });
        let table = [
            ("--blkhash", hash(Digest::Sha256, 65536)),
            ("--blkhash=MD5", hash(Digest::Md5, 65536)),
            ("--blkhash=sha512/1M", hash(Digest::Sha512, 1 << 20)),
            ("--blkhash=sha1/1", hash(Digest::Sha1, 1)),
        ];
        for (word, blkhash) in table {
            assert_eq!(asked(&[word, "a", "b"]).unwrap().blkhash, blkhash, "{word}");
        }
        let words = [
            "--rate-limit=10M",
            "--retries=3",
            "--reconnect=60",
            "--verify",
            "a",
            "b",
        ];
        let some = asked(&words).unwrap();
        assert_eq!((some.rate_limit, some.retries), (Some(10 << 20), 3));
        assert!(some.verify && some.reconnect == Duration::from_secs(60));
        assert_eq!(
            asked(&["--resume", "a", "b"]).unwrap().resume,
            Resume::Beside
        );
        let named = asked(&["--resume=x", "a", "b"]).unwrap().resume;
        assert_eq!(named, Resume::File("x".into()));
    }

    #[test]
    fn mistakes_are_told_in_nbdcopys_words() {
        let table = [
            (&["a"][..], "usage: "),
            (&["a", "b", "c"], "usage: "),
            (&["--foo"], "usage: unrecognized option '--foo'"),
            (
                &["--request-size=100", "a", "b"],
                "--request-size: must be a power of 2 within 4096-33554432: 100",
            ),
            (
                &["--sparse=100", "a", "b"],
                "--sparse: must be a power of 2, between 512-4294967295: 100",
            ),
            (
                &["--queue-size=x", "a", "b"],
                "--queue-size: could not parse size string: x",
            ),
            (
                &["--blkhash=foo", "a", "b"],
                "--blkhash: unknown digest algorithm 'foo'",
            ),
            (
                &["--blkhash=sha256/", "a", "b"],
                "--blkhash: could not parse size string: ",
            ),
            (
                &["--blkhash=sha256/3", "a", "b"],
                "--blkhash is not a power of two: 3",
            ),
            (
                &["--blkhash=sha256/4G", "a", "b"],
                "--blkhash is too large: 4G",
            ),
            (
                &["--rate-limit=0", "a", "b"],
                "--rate-limit: must be at least 1 byte per second",
            ),
            (&["-C", "0", "a", "b"], "--connections: could not parse: 0"),
            (&["-T", "x", "a", "b"], "--threads: could not parse: x"),
        ];
        for (words, text) in table {
            assert_eq!(asked(words).unwrap_err(), text, "{words:?}");
        }
        assert!(
            asked(&["--long-options"])
                .unwrap_err()
                .contains("--target-is-zero\n")
        );
        assert!(asked(&["--short-options"]).unwrap_err().contains("-R\n"));
    }
}
