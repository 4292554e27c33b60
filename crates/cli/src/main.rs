//! The `blkit` program.
//!
//! Thin on purpose: the command line is read here, the graph is built by `graph`, clients are
//! served by `exports`. What is this program's own is the life of the process (`life`, for the
//! commands `serve` and `nbdkit`), the help made from the nodes' schemas (`topics`), and the way
//! errors are told (`report`).
//!
//! Exit status: 0 after a clean stop, 1 for any error, that of the command with `serve --run`.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod args;
mod copy;
mod getopt;
mod info;
mod life;
mod link;
mod log;
mod nbdkit;
mod parameters;
mod report;
mod serve;
mod tools;
mod topics;

use std::{ffi::OsString, path::Path, process::ExitCode};

use args::{Cli, Command};

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    if let Some(words) = personality(&words, "nbdkit") {
        return nbdkit::main(words);
    }
    if let Some((name, words)) = tool(&words, "nbdinfo", "info") {
        log::init(0);
        return info::main(name, words);
    }
    if let Some((name, words)) = tool(&words, "nbdcopy", "copy") {
        log::init(0);
        return copy::main(name, words);
    }
    let done = match args::parse(words) {
        Ok(cli) => run(cli),
        Err(early) => early.finish(),
    };
    done.unwrap_or_else(|error| {
        report::error(&error);
        ExitCode::FAILURE
    })
}

/// The words behind the name, if the program is called by `name`: by a link (see `blkit link`), or as
/// `blkit NAME ...`.
fn personality(words: &[OsString], name: &str) -> Option<Vec<OsString>> {
    let called = Path::new(words.first()?).file_name()?;
    if called == name {
        return Some(words[1..].to_vec());
    }
    (words.get(1)? == name).then(|| words[2..].to_vec())
}

/// The same of a tool that has a name here too: also says what it is called.
fn tool(
    words: &[OsString],
    known: &'static str,
    ours: &str,
) -> Option<(&'static str, Vec<OsString>)> {
    let words = personality(words, known).or_else(|| match words.get(1)? == ours {
        true => Some(words[2..].to_vec()),
        false => None,
    });
    words.map(|words| (known, words))
}

fn run(cli: Cli) -> block::Result<ExitCode> {
    if !matches!(cli.command, Command::Nbdkit { .. }) {
        log::init(cli.verbose);
    }
    let registry = graph::Registry::standard();
    match cli.command {
        Command::Serve(options) => serve::serve(&registry, &options),
        Command::Nbdkit { words } => Ok(nbdkit::main(words)),
        Command::Link { directory } => link::link(&directory),
        Command::Sources => topics::print(&topics::sources(&registry)),
        Command::Filters => topics::print(&topics::filters(&registry)),
        Command::Help { topic } => topics::print(&topics::help(&registry, topic.as_deref())?),
    }
}
