//! `blkit vhost-user-blk`, or the program called by that name: one disk for virtual machines, by the
//! conventions of back-end programs that QEMU's vhost-user specification lays down ("Backend program
//! conventions", and `vhost-user.json` for `--print-capabilities`), so that management software finds
//! it, starts it and ends it as any other.
//!
//! It stays in the foreground, prints nothing, and ends by SIGTERM; with `--fd`, also when that
//! front-end goes. What it serves is `blkit serve`'s: a file by `--blk-file`, or any source.

use std::{ffi::OsString, process::ExitCode};

use block::{Error, ErrorKind, Result};
use clap::{CommandFactory, FromArgMatches, Parser};
use config::{Arg, Config as _};

use super::DiskConfig;
use crate::{
    args::{self, Command, Early, ServeArgs},
    log, report, serve,
};

/// What management software may rely on. The descriptor in `share/vhost-user` says the same type.
const CAPABILITIES: &str = r#"{
  "type": "block",
  "features": [
    "read-only",
    "blk-file"
  ]
}
"#;

/// Serve a disk to virtual machines by vhost-user.
#[derive(Parser, Debug)]
#[command(
    name = "vhost-user-blk",
    version,
    after_help = "SOURCE and its parameters are those of 'blkit serve'; with --blk-file, the words \
                  are parameters of the file.\n\n\
                  Examples:\n  \
                  vhost-user-blk --socket-path=/run/disk.sock --blk-file=disk.img\n  \
                  vhost-user-blk --fd=3 --read-only nbd://host/disk\n\n\
                  Exit status: 0 after a clean stop, 1 for any error."
)]
struct Program {
    /// Listen on this Unix socket
    #[arg(short, long, value_name = "PATH", conflicts_with = "fd")]
    socket_path: Option<String>,
    /// A socket that was handed over: connected, or listening
    #[arg(short, long, value_name = "FDNUM")]
    fd: Option<u32>,
    /// The block device or file to serve
    #[arg(short, long, value_name = "PATH", allow_hyphen_values = true)]
    blk_file: Option<String>,
    /// Guests may only read
    #[arg(short, long)]
    read_only: bool,
    /// Tell in JSON what management software may rely on, and do nothing else
    #[arg(short = 'c', long)]
    print_capabilities: bool,
    /// Further keys of the disk: num-queues, serial, ...; 'blkit help vhost-user' lists them
    #[arg(short = 'o', value_name = "KEY=VALUE")]
    options: Vec<String>,
    /// Put a filter in front; the first one given is closest to the guest
    #[arg(long = "filter", value_name = "NAME")]
    filters: Vec<String>,
    /// Give up what no server needs, as 'blkit serve --sandbox'
    #[arg(long)]
    sandbox: bool,
    /// Event loops, each on a thread of its own [default: CPUs this process may use]
    #[arg(short, long, value_name = "N")]
    threads: Option<String>,
    /// How to talk to the kernel [default: auto]
    #[arg(long, value_name = "auto|uring|poll")]
    io: Option<String>,
    /// Log more to standard error: once for debug, twice for trace
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// A source and its parameters, or parameters of --blk-file
    #[arg(value_name = "SOURCE|KEY=VALUE")]
    words: Vec<String>,
}

/// Serves, or tells what it can; `name` is what the program is called.
pub fn main(name: &str, words: Vec<OsString>) -> ExitCode {
    let done = match parse(name, words) {
        Ok(None) => crate::topics::print(CAPABILITIES),
        Ok(Some((options, verbose))) => {
            log::init(verbose);
            serve::serve(&graph::Registry::standard(), &options)
        }
        Err(early) => early.finish(),
    };
    done.unwrap_or_else(|error| {
        report::error(&error);
        ExitCode::FAILURE
    })
}

/// What `blkit serve` would be told, and how much to log. `None`: tell the capabilities.
fn parse(name: &str, words: Vec<OsString>) -> std::result::Result<Option<(ServeArgs, u8)>, Early> {
    // Whatever else there is, right or wrong, counts for nothing then.
    if words.iter().any(|word| word == "--print-capabilities") {
        return Ok(None);
    }
    let command = Program::command().bin_name(name);
    let all = [OsString::from(name)].into_iter().chain(words);
    let program = command
        .try_get_matches_from(all)
        .and_then(|found| Program::from_arg_matches(&found))
        .map_err(|error| args::early(&error, &format!("'{name} --help' lists the options")))?;
    if program.print_capabilities {
        return Ok(None);
    }
    let verbose = program.verbose;
    let disk = program.disk().map_err(Early::Mistake)?;
    let mut options = program.options()?;
    options.vhost_user = vec![disk];
    options.quiet = true;
    Ok(Some((options, verbose)))
}

impl Program {
    fn disk(&self) -> Result<DiskConfig> {
        let mut keys: Vec<Arg> = self.options.iter().map(|word| Arg::parse(word)).collect();
        let place = match (&self.socket_path, self.fd) {
            (Some(path), _) => Arg::KeyValue("path".to_owned(), path.clone()),
            (None, Some(fd)) => Arg::KeyValue("fd".to_owned(), fd.to_string()),
            (None, None) => {
                return Err(Error::new(
                    ErrorKind::Config,
                    "one of --socket-path=PATH and --fd=FDNUM is needed",
                ));
            }
        };
        keys.push(place);
        DiskConfig::from_args(&keys).map_err(graph::config_error)
    }

    /// The rest, as `blkit serve` reads it.
    fn options(self) -> std::result::Result<ServeArgs, Early> {
        let mut words = vec!["blkit".to_owned(), "serve".to_owned()];
        words.extend(self.read_only.then(|| "--read-only".to_owned()));
        words.extend(self.sandbox.then(|| "--sandbox".to_owned()));
        words.extend(self.filters.iter().map(|name| format!("--filter={name}")));
        words.extend(self.threads.map(|threads| format!("--threads={threads}")));
        words.extend(self.io.map(|io| format!("--io={io}")));
        words.push("--".to_owned());
        match (self.blk_file, self.words.is_empty()) {
            (Some(path), _) => words.extend(["file".to_owned(), format!("file={path}")]),
            (None, false) => {}
            (None, true) => {
                let what = "nothing to serve: --blk-file=PATH or a source is needed";
                return Err(Early::Mistake(Error::new(ErrorKind::Config, what)));
            }
        }
        words.extend(self.words);
        match args::parse(words.into_iter().map(OsString::from))?.command {
            Command::Serve(options) => Ok(*options),
            other => unreachable!("serve was asked for, not {other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> ServeArgs {
        let words = words.iter().map(OsString::from).collect();
        match parse("vhost-user-blk", words) {
            Ok(Some((options, _))) => options,
            Ok(None) => panic!("capabilities"),
            Err(Early::Text(text)) => panic!("{text}"),
            Err(Early::Mistake(error)) => panic!("{error:?}"),
        }
    }

    fn wrong(words: &[&str]) -> String {
        let words = words.iter().map(OsString::from).collect();
        match parse("vhost-user-blk", words) {
            Err(Early::Mistake(error)) => error.chain(),
            _ => panic!("accepted"),
        }
    }

    #[test]
    fn the_conventions_are_kept() {
        let options = read(&["--socket-path=/s", "--blk-file=/d,x", "--read-only"]);
        assert_eq!(options.vhost_user[0].path, Some("/s".into()));
        assert_eq!(options.source, "file");
        assert_eq!(options.words, ["file=/d,x"]);
        assert!(options.read_only && options.quiet);
        let options = read(&["--fd=7", "-b", "-odd", "direct=true", "-o", "num-queues=2"]);
        assert_eq!(options.vhost_user[0].fd.as_deref(), Some("7"));
        assert_eq!(options.vhost_user[0].num_queues, 2);
        assert_eq!(options.words, ["file=-odd", "direct=true"]);
        let options = read(&["-s", "/s", "--filter", "delay", "memory", "1M", "rdelay=1"]);
        assert_eq!((&*options.source, options.words.len()), ("memory", 2));
        assert_eq!(options.filters, ["delay"]);
    }

    #[test]
    fn mistakes_are_told() {
        for (words, why) in [
            (&["--blk-file=x"][..], "one of --socket-path"),
            (&["--fd=3"], "nothing to serve"),
            (&["--fd=3", "--socket-path=/s", "null"], "--fd"),
            (&["--fd=x", "null"], "--fd"),
            (&["--fd=3", "-o", "num-queues=0", "null"], "1 to 256"),
            (&["--fd=3", "--threads=0", "null"], "--threads"),
            (&["--nosuch"], "--nosuch"),
        ] {
            let told = wrong(words);
            assert!(told.contains(why), "{words:?}: {told}");
        }
    }

    #[test]
    fn capabilities_are_told_whatever_else_is_said() {
        for words in [
            &["--print-capabilities"][..],
            &["--nosuch", "--print-capabilities"],
        ] {
            let words = words.iter().map(OsString::from).collect();
            assert!(matches!(parse("vhost-user-blk", words), Ok(None)));
        }
    }
}
