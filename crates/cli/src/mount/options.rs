//! What nbdfuse can be told, and `blkit mount` besides.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use reactor::DriverKind;

use super::{fuse::FuseOptions, place::MountPoint};
use crate::{
    getopt::{self, Item, Spelling},
    tools::{Asked, Mistake, Place, listed, take_places, version},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opt {
    FuseHelp,
    Help,
    Version,
    ShortOptions,
    LongOptions,
    Connections,
    Fuse,
    PidFile,
    ReadOnly,
    Single,
    Verbose,
    Filter,
    Threads,
    Io,
}

/// All spellings. Those that `--long-options` lists are in its order.
const SPELLINGS: &[Spelling<Opt>] = &[
    Spelling::flag("fuse-help", Opt::FuseHelp),
    Spelling::flag("help", Opt::Help),
    Spelling::with("connections", Opt::Connections),
    Spelling::with("pidfile", Opt::PidFile),
    Spelling::with("pid-file", Opt::PidFile),
    Spelling::flag("readonly", Opt::ReadOnly),
    Spelling::flag("read-only", Opt::ReadOnly),
    Spelling::flag("verbose", Opt::Verbose),
    Spelling::flag("version", Opt::Version),
    Spelling::with("C", Opt::Connections),
    Spelling::flag("d", Opt::Verbose),
    Spelling::with("o", Opt::Fuse),
    Spelling::with("P", Opt::PidFile),
    Spelling::flag("r", Opt::ReadOnly),
    Spelling::flag("s", Opt::Single),
    Spelling::flag("v", Opt::Verbose),
    Spelling::flag("V", Opt::Version),
    Spelling::flag("short-options", Opt::ShortOptions),
    Spelling::flag("long-options", Opt::LongOptions),
    // Ours.
    Spelling::with("filter", Opt::Filter),
    Spelling::with("threads", Opt::Threads),
    Spelling::with("io", Opt::Io),
];

/// What the file's bytes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// A source of blkit and its parameters.
    Source {
        /// Its name, a path or a URI.
        name: String,
        /// The parameters.
        words: Vec<String>,
    },
    /// An NBD server, to be started by socket activation.
    Command(Vec<OsString>),
}

/// A command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where.
    pub point: MountPoint,
    /// What.
    pub from: From,
    /// Filters in front of it, outermost first.
    pub filters: Vec<String>,
    /// Connections to an NBD server that allows several.
    pub connections: u32,
    /// Event loops.
    pub threads: usize,
    /// How they talk to the kernel.
    pub io: DriverKind,
    /// `-o`.
    pub fuse: FuseOptions,
    /// Where to write the process's number.
    pub pid_file: Option<PathBuf>,
    /// Nobody writes.
    pub read_only: bool,
    /// Tell more.
    pub verbose: bool,
}

/// Understands the words behind the program's name.
///
/// # Errors
/// What nbdfuse says.
pub fn parse(name: &str, words: Vec<OsString>) -> Result<Asked<Options>, Mistake> {
    let usage = |text: String| Mistake::Usage(Some(text));
    let (items, rest) = getopt::parse_before_words(words, SPELLINGS).map_err(usage)?;
    let mut given = Given {
        connections: 4,
        threads: 1,
        io: DriverKind::Auto,
        ..Given::default()
    };
    for item in items {
        if let Item::Option(opt, value) = item
            && let Some(text) = given.take(name, opt, value)?
        {
            return Ok(Asked::Text(text));
        }
    }
    given.finish(name, rest).map(Asked::Options)
}

#[derive(Default)]
struct Given {
    filters: Vec<String>,
    connections: u32,
    threads: usize,
    io: DriverKind,
    fuse: FuseOptions,
    pid_file: Option<PathBuf>,
    read_only: bool,
    verbose: bool,
}

impl Given {
    fn take(&mut self, name: &str, opt: Opt, value: OsString) -> Result<Option<String>, Mistake> {
        match opt {
            Opt::FuseHelp => return Ok(Some(FuseOptions::usage(name))),
            Opt::Help => return Ok(Some(usage(name))),
            Opt::Version => return Ok(Some(version(name))),
            Opt::ShortOptions => return Ok(Some(listed(SPELLINGS, is_hidden, false))),
            Opt::LongOptions => return Ok(Some(listed(SPELLINGS, is_hidden, true))),
            Opt::Connections => {
                self.connections = number(&value, 1..=64).ok_or_else(|| {
                    let what = "--connections parameter must be an unsigned integer >= 1";
                    Mistake::Plain(format!("{what} (and <= 64)"))
                })?;
            }
            Opt::Fuse => {
                let options = value.to_string_lossy();
                self.fuse.add(&options).map_err(Mistake::Plain)?;
            }
            Opt::PidFile => self.pid_file = Some(value.into()),
            Opt::ReadOnly => self.read_only = true,
            Opt::Verbose => self.verbose = true,
            // One loop is the default here.
            Opt::Single => self.threads = 1,
            Opt::Filter => self.filters.push(text(value)?),
            Opt::Io => {
                let known = value.to_str().and_then(|kind| kind.parse().ok());
                self.io = known
                    .ok_or_else(|| Mistake::Plain("--io is auto, uring or poll".to_owned()))?;
            }
            Opt::Threads => {
                let threads = number(&value, 1..=256).ok_or_else(|| {
                    Mistake::Plain("--threads is a number from 1 to 256".to_owned())
                })?;
                self.threads = threads as usize;
            }
        }
        Ok(None)
    }

    fn finish(mut self, name: &str, words: Vec<OsString>) -> Result<Options, Mistake> {
        let mut words = words.into_iter();
        let (Some(point), Some(mode)) = (words.next(), words.next()) else {
            return Err(Mistake::Usage(None));
        };
        let point = MountPoint::new(&point).ok_or_else(|| {
            let what = "mountpoint must be \"directory\" or \"directory/filename\"";
            Mistake::Plain(format!("{}: {what}", point.display()))
        })?;
        let from = from(name, mode, words.collect(), self.connections)?;
        self.read_only |= self.fuse.read_only();
        Ok(Options {
            point,
            from,
            filters: self.filters,
            connections: self.connections,
            threads: self.threads,
            io: self.io,
            fuse: self.fuse,
            pid_file: self.pid_file,
            read_only: self.read_only,
            verbose: self.verbose,
        })
    }
}

/// The source that the words behind the mount point mean.
fn from(
    name: &str,
    mode: OsString,
    rest: Vec<OsString>,
    connections: u32,
) -> Result<From, Mistake> {
    let several = || format!("connections={connections}");
    let nbd = |words: Vec<String>| {
        Ok(From::Source {
            name: "nbd".into(),
            words,
        })
    };
    match (mode.as_encoded_bytes(), &rest[..]) {
        (b"[", _) => {
            let words = [vec![mode], rest].concat();
            match take_places(words).ok().as_deref() {
                Some([Place::Command(command)]) => Ok(From::Command(command.clone())),
                _ => Err(Mistake::Usage(None)),
            }
        }
        (b"--socket-activation", [_, ..]) => Ok(From::Command(rest)),
        (b"--command", [_, ..]) => {
            let mut words = rest.into_iter().map(text);
            let mut all = vec![format!(
                "command={}",
                words.next().unwrap_or(Ok(String::new()))?
            )];
            for word in words {
                all.push(format!("arg={}", word?));
            }
            nbd(all)
        }
        (b"--fd", [value]) => match number(value, 0..=i32::MAX as u32) {
            Some(number) => nbd(vec![format!("socket-fd={number}")]),
            None => {
                let what = format!("could not parse file descriptor: {}", value.display());
                Err(Mistake::Plain(what))
            }
        },
        (b"--tcp", [host, port]) => nbd(vec![
            format!("hostname={}", text(host.clone())?),
            format!("port={}", text(port.clone())?),
            several(),
        ]),
        (b"--unix", [path]) => nbd(vec![format!("socket={}", text(path.clone())?), several()]),
        (b"--vsock", [cid, port]) => nbd(vec![
            format!("vsock={}", text(cid.clone())?),
            format!("port={}", text(port.clone())?),
            several(),
        ]),
        (
            b"--command" | b"--socket-activation" | b"--fd" | b"--tcp" | b"--unix" | b"--vsock",
            _,
        ) => Err(Mistake::Usage(None)),
        ([b'-', ..], _) => {
            let what = format!("unknown mode: {}\n", mode.display());
            Err(Mistake::Usage(Some(what)))
        }
        _ => source(is_strict(name), mode, rest, connections),
    }
}

/// A URI; for `blkit mount` any source.
fn source(
    strict: bool,
    mode: OsString,
    rest: Vec<OsString>,
    connections: u32,
) -> Result<From, Mistake> {
    let name = text(mode)?;
    let uri = sources::nbd::is_uri(&name);
    if strict && !rest.is_empty() {
        return Err(Mistake::Usage(None));
    }
    if strict && !uri {
        let what = "NBD URI does not have a scheme: valid NBD URIs should start with a scheme like \
                    nbd://, nbds:// or nbd+unix://";
        return Err(Mistake::Plain(format!("{name}: {what}")));
    }
    let mut words = rest.into_iter().map(text).collect::<Result<Vec<_>, _>>()?;
    if uri && !words.iter().any(|word| word.starts_with("connections=")) {
        words.push(format!("connections={connections}"));
    }
    Ok(From::Source { name, words })
}

/// Called by nbdfuse's own name, it takes what nbdfuse takes.
fn is_strict(name: &str) -> bool {
    name.ends_with("nbdfuse")
}

fn number(value: &OsStr, range: std::ops::RangeInclusive<u32>) -> Option<u32> {
    let number = value.to_str()?.parse().ok()?;
    range.contains(&number).then_some(number)
}

fn text(word: OsString) -> Result<String, Mistake> {
    word.into_string()
        .map_err(|word| Mistake::Plain(format!("{}: not valid UTF-8", word.display())))
}

fn is_hidden(opt: Opt) -> bool {
    matches!(
        opt,
        Opt::ShortOptions | Opt::LongOptions | Opt::Filter | Opt::Threads | Opt::Io
    )
}

/// How the program is used.
pub fn usage(name: &str) -> String {
    let mut text = String::from(match is_strict(name) {
        true => "\nMount NBD server as a virtual file:\n\n",
        false => "\nMount a disk as a virtual file:\n\n",
    });
    let blank = " ".repeat(name.len());
    text.push_str(&format!(
        "    {name} [-C N|--connections N] [-d] [-o FUSE-OPTION] [-P PIDFILE]\n    \
             {blank} [-r] [-s] [-v]"
    ));
    match is_strict(name) {
        true => text.push_str(&format!("\n    {blank} MOUNTPOINT[/FILENAME] URI\n")),
        false => text.push_str(&format!(
            " [--filter NAME]... [--threads N] [--io auto|uring|poll]\n    \
             {blank} MOUNTPOINT[/FILENAME] SOURCE [KEY=VALUE|VALUE]...\n\n\
             SOURCE is what 'blkit serve' takes: a source ('blkit sources'), a file, or a URI.\n"
        )),
    }
    text.push_str("\nOther modes:\n\n");
    for mode in [
        "[ CMD [ARGS ...] ]",
        "--command CMD [ARGS ...]",
        "--socket-activation CMD [ARGS ...]",
        "--fd N",
        "--tcp HOST PORT",
        "--unix SOCKET",
        "--vsock CID PORT",
    ] {
        text.push_str(&format!("    {name} MOUNTPOINT[/FILENAME] {mode}\n"));
    }
    text.push_str(&format!(
        "\nTo unmount:\n\n    fusermount3 -u MOUNTPOINT\n\nOther options:\n\n    \
         {name} --help\n    {name} --fuse-help\n    {name} -V|--version\n\n\
         Options come before the mount point. A file as the mount point becomes the disk itself.\n\
         It runs in the foreground until it is unmounted, or told to end by a signal.\n\n"
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: &str, words: &[&str]) -> Result<Options, String> {
        let words = words.iter().map(OsString::from).collect();
        match parse(name, words) {
            Ok(Asked::Options(options)) => Ok(options),
            Ok(Asked::Text(text)) => Err(text),
            Err(Mistake::Usage(text)) => Err(format!("usage: {}", text.unwrap_or_default())),
            Err(Mistake::Plain(text)) => Err(text),
        }
    }

    fn source_of(name: &str, words: &[&str]) -> Result<From, String> {
        asked(name, words).map(|options| options.from)
    }

    fn nbd(words: &[&str]) -> From {
        From::Source {
            name: "nbd".into(),
            words: words.iter().map(|word| (*word).to_owned()).collect(),
        }
    }

    #[test]
    fn servers_are_named_in_all_of_nbdfuses_ways() {
        let command = |words: &[&str]| From::Command(words.iter().map(OsString::from).collect());
        for (words, from) in [
            (
                &["/", "--tcp", "h", "1"][..],
                nbd(&["hostname=h", "port=1", "connections=4"]),
            ),
            (&["/", "--unix", "s"], nbd(&["socket=s", "connections=4"])),
            (
                &["-C2", "/", "--vsock", "2", "3"],
                nbd(&["vsock=2", "port=3", "connections=2"]),
            ),
            (&["/", "--fd", "3"], nbd(&["socket-fd=3"])),
            (
                &["/", "--command", "a", "-b", "c=d"],
                nbd(&["command=a", "arg=-b", "arg=c=d"]),
            ),
            (&["/", "[", "a", "-b", "]"], command(&["a", "-b"])),
            (
                &["/", "--socket-activation", "a", "-b"],
                command(&["a", "-b"]),
            ),
        ] {
            assert_eq!(source_of("nbdfuse", words), Ok(from), "{words:?}");
        }
        let uri = From::Source {
            name: "nbd://h".into(),
            words: vec!["connections=4".into()],
        };
        assert_eq!(source_of("nbdfuse", &["/", "nbd://h"]), Ok(uri));
        let memory = From::Source {
            name: "memory".into(),
            words: vec!["1M".into(), "rdelay=1".into()],
        };
        let words = ["--filter", "delay", "-r", "/", "memory", "1M", "rdelay=1"];
        let options = asked("blkit mount", &words).unwrap();
        assert_eq!((options.from, options.read_only), (memory, true));
        assert_eq!(options.filters, ["delay"]);
    }

    #[test]
    fn mistakes_are_told_in_nbdfuses_words() {
        let point = "mountpoint must be \"directory\" or \"directory/filename\"";
        for (words, text) in [
            (&[][..], "usage: "),
            (&["/"], "usage: "),
            (&["--foo"], "usage: unrecognized option '--foo'"),
            (&["/", "-C", "2"], "usage: unknown mode: -C\n"),
            (&["/", "--tcp", "h"], "usage: "),
            (&["/", "--command"], "usage: "),
            (&["/", "--unix"], "usage: "),
            (&["/", "[", "]"], "usage: "),
            (&["/", "[", "x"], "usage: "),
            (&["/", "[", "x", "]", "y"], "usage: "),
            (&["/", "nbd://h", "y"], "usage: "),
            (&["/", "--fd", "x"], "could not parse file descriptor: x"),
            (
                &["-o", "fly", "/", "nbd://h"],
                "unknown option(s): `-o fly'",
            ),
        ] {
            assert_eq!(asked("nbdfuse", words).unwrap_err(), text, "{words:?}");
        }
        for nowhere in ["nosuch", "/nosuch/file"] {
            let error = asked("nbdfuse", &[nowhere, "nbd://h"]).unwrap_err();
            assert_eq!(error, format!("{nowhere}: {point}"));
        }
        let error = asked("nbdfuse", &["-C", "0", "/", "nbd://h"]).unwrap_err();
        assert!(error.starts_with("--connections parameter"), "{error}");
        let error = asked("nbdfuse", &["/", "memory"]).unwrap_err();
        assert!(error.contains("does not have a scheme"), "{error}");
    }

    #[test]
    fn completions_find_nbdfuses_options() {
        let all = "--fuse-help --help --connections --pidfile --pid-file --readonly --read-only \
                   --verbose --version -C -d -o -P -r -s -v -V";
        let list = |option: &str| asked("nbdfuse", &[option]).unwrap_err();
        let listed = list("--long-options") + &list("--short-options");
        assert_eq!(listed.split_whitespace().collect::<Vec<_>>().join(" "), all);
        assert!(list("--help").contains("nbdfuse MOUNTPOINT[/FILENAME] --vsock CID PORT\n"));
        assert!(list("--fuse-help").contains("-o kernel_cache"));
        assert!(list("-V").starts_with("nbdfuse 1.24"));
        let ours = asked("blkit mount", &["--help"]).unwrap_err();
        assert!(ours.contains("--filter") && !list("--help").contains("--filter"));
    }
}
