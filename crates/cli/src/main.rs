//! The `blkit` program.
//!
//! Thin on purpose: the command line is read here, the graph is built by `graph`, clients are
//! served by `exports`. What is this program's own is the life of the process (`life`, for the
//! commands `serve` and `nbdkit`), the tools that are clients (`info`, `copy`, `mount`, `dump`, `discard`),
//! a back-end program for virtual machines (`vhost_user`), the way to the Python shell (`shell`), the
//! help made from the nodes' schemas (`topics`), and the way errors are told (`report`).
//!
//! Exit status: 0 after a clean stop, 1 for any error, that of the command with `serve --run`.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod args;
mod copy;
mod discard;
mod dump;
mod getopt;
mod info;
mod life;
mod link;
mod log;
mod mount;
mod nbdkit;
mod parameters;
mod report;
mod serve;
mod shell;
mod tools;
mod topics;
mod vhost_user;

use std::{ffi::OsString, path::Path, process::ExitCode};

use args::{Cli, Command};

/// A tool that this program is too: told its name and the words behind it.
type Tool = fn(&str, Vec<OsString>) -> ExitCode;

/// By the names that users know them by, and those they have here.
const TOOLS: [(&str, &str, Tool); 9] = [
    ("nbdkit", "nbdkit", |_, words| nbdkit::main(words)),
    ("nbdinfo", "info", info::main),
    ("nbdcopy", "copy", copy::main),
    ("nbdfuse", "mount", mount::main),
    ("nbddump", "dump", dump::main),
    ("nbddiscard", "discard", discard::discard),
    ("nbdzero", "zero", discard::zero),
    ("nbdsh", "shell", shell::main),
    (
        "vhost-user-blk",
        "vhost-user-blk",
        vhost_user::program::main,
    ),
];

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    for (known, ours, main) in TOOLS {
        if let Some((name, words)) = personality(&words, known, ours) {
            return main(&name, words);
        }
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

/// What the program is called, and the words behind it, if that is by one of these names: by a link
/// with the known one (see `blkit link`), or as `blkit NAME ...` with either.
fn personality(words: &[OsString], known: &str, ours: &str) -> Option<(String, Vec<OsString>)> {
    let called = Path::new(words.first()?).file_name()?;
    if called == known {
        return Some((known.to_owned(), words[1..].to_vec()));
    }
    let name = words.get(1)?;
    let named = name == known || name == ours;
    named.then(|| (format!("blkit {}", name.display()), words[2..].to_vec()))
}

fn run(cli: Cli) -> block::Result<ExitCode> {
    if !cli.command.is_tool() {
        log::init(cli.verbose);
    }
    let registry = graph::Registry::standard();
    match cli.command {
        Command::Serve(options) => serve::serve(&registry, &options),
        Command::Nbdkit(tool) => Ok(nbdkit::main(tool.words)),
        Command::Info(tool) => Ok(info::main("blkit info", tool.words)),
        Command::Copy(tool) => Ok(copy::main("blkit copy", tool.words)),
        Command::Mount(tool) => Ok(mount::main("blkit mount", tool.words)),
        Command::Dump(tool) => Ok(dump::main("blkit dump", tool.words)),
        Command::Discard(tool) => Ok(discard::discard("blkit discard", tool.words)),
        Command::Zero(tool) => Ok(discard::zero("blkit zero", tool.words)),
        Command::Shell(tool) => Ok(shell::main("blkit shell", tool.words)),
        Command::VhostUserBlk(tool) => Ok(vhost_user::program::main(
            "blkit vhost-user-blk",
            tool.words,
        )),
        Command::Link { directory } => link::link(&directory),
        Command::Sources => topics::print(&topics::sources(&registry)),
        Command::Filters => topics::print(&topics::filters(&registry)),
        Command::Help { topic } => topics::print(&topics::help(&registry, topic.as_deref())?),
    }
}
