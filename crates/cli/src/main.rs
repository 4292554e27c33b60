//! The `blkit` program.
//!
//! Thin on purpose: the command line is read here, the graph is built by `graph`, clients are
//! served by `exports`. What is this program's own is the life of the process (`serve`), the help
//! made from the nodes' schemas (`topics`), and the way errors are told (`report`).
//!
//! Exit status: 0 after a clean stop, 1 for any error, that of the command with `serve --run`.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod args;
mod log;
mod report;
mod serve;
mod topics;

use std::process::ExitCode;

use args::{Cli, Command};

fn main() -> ExitCode {
    let done = match args::parse(std::env::args_os()) {
        Ok(cli) => run(cli),
        Err(early) => early.finish(),
    };
    done.unwrap_or_else(|error| {
        report::error(&error);
        ExitCode::FAILURE
    })
}

fn run(cli: Cli) -> block::Result<ExitCode> {
    log::init(cli.verbose);
    let registry = graph::Registry::standard();
    match cli.command {
        Command::Serve(options) => serve::serve(&registry, &options),
        Command::Sources => topics::print(&topics::sources(&registry)),
        Command::Filters => topics::print(&topics::filters(&registry)),
        Command::Help { topic } => topics::print(&topics::help(&registry, topic.as_deref())?),
    }
}
