//! `blkit serve`: the life of a serving process.
//!
//! The order is what makes it safe, and every step relies on it: the words are parsed (nothing is
//! opened); sources get ready, with the privileges and the one thread the process began with;
//! sockets are bound; termination signals are blocked, so that every thread to come inherits
//! that; the process forks for `--run`; only then come threads and rings, and the clients. On the
//! way out: stop accepting, answer what is in flight, close, stop the source, and remove what was
//! made: socket file, private directory, pid file.

mod captive;
mod listen;
mod server;
mod stop;

use std::{io, os::unix::process::parent_id, process::ExitCode};

use block::{Error, Result};
use graph::{Built, Registry};
use reactor::process::{self, Forked};

use crate::args::ServeArgs;
use listen::Endpoints;
use server::Announce;

/// Serves until told to stop, or while the command of `--run` runs.
///
/// # Errors
/// Anything that keeps it from serving, told in one line.
pub fn serve(registry: &Registry, options: &ServeArgs) -> Result<ExitCode> {
    // Asked at once: when it is another one later, the first has ended.
    let parent = parent_id();
    process::ignore_broken_pipes();
    if let Err(error) = process::raise_descriptor_limit() {
        tracing::debug!("the limit of open files stays as it is: {error}");
    }
    let spec = registry.resolve(&options.source, &options.filters, &options.words)?;
    let built = registry.build(&spec)?;
    built.source.ready()?;
    let endpoints = Endpoints::bind(options)?;
    process::block_signals(process::TERMINATION)
        .map_err(|error| Error::io("cannot block signals", error))?;
    if options.exit_with_parent {
        process::exit_with_parent(parent)
            .map_err(|error| Error::io("cannot watch the parent process", error))?;
    }
    match &options.run {
        None => server::run(options, built, endpoints, Announce::Uri),
        Some(command) => split(options, command, built, endpoints),
    }
}

/// Forks: the command runs here, the server in the child.
fn split(
    options: &ServeArgs,
    command: &str,
    built: Built,
    endpoints: Endpoints,
) -> Result<ExitCode> {
    let (ready, announce) = io::pipe().map_err(|error| Error::io("cannot make a pipe", error))?;
    let original = std::process::id();
    let forked = process::fork().map_err(|error| Error::io("cannot fork", error))?;
    match forked {
        Forked::Parent(server) => {
            drop((announce, built));
            captive::run(command, endpoints, server, ready)
        }
        Forked::Child => {
            drop(ready);
            process::exit_with_parent(original)
                .map_err(|error| Error::io("cannot watch the parent process", error))?;
            process::detach_standard_streams()
                .map_err(|error| Error::io("cannot open /dev/null", error))?;
            server::run(options, built, endpoints, Announce::Pipe(announce))
        }
    }
}
