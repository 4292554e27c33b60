//! `blkit serve`: the order of a serving process's life.
//!
//! The order is what makes it safe, and every step relies on it: the words are parsed (nothing is
//! opened); sources get ready, with the privileges and the one thread the process began with;
//! sockets are bound; termination signals are blocked, so that every thread to come inherits
//! that; the process forks for `--run`; only then come threads and rings, and the clients. On the
//! way out: stop accepting, answer what is in flight, close, stop the source, and remove what was
//! made: socket file, private directory, pid file.

use std::{
    any::Any,
    ffi::OsString,
    io::{self, Write},
    os::unix::process::parent_id,
    path::Path,
    process::ExitCode,
};

use block::{Error, ErrorKind, Result};
use exports::nbd::Tls;
use graph::{Built, Registry};
use reactor::process::{self, Forked};

use crate::{
    args::{ServeArgs, TlsArgs},
    life::{
        captive::{self, Captive},
        listen::{self, Endpoints, LOOPBACK},
        pid_file::PidFile,
        server::{self, Clients, Service},
        tls,
    },
    parameters,
};

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
    let tls = encryption(&options.tls)?;
    let words = parameters::expand(&options.words).map_err(graph::config_error)?;
    let spec = registry.resolve(&options.source, &options.filters, &words)?;
    let built = registry.build(&spec)?;
    built.source.ready()?;
    let mut endpoints = bind(options)?;
    if let Tls::Require(_) = tls {
        endpoints.require_tls(&tls::queries(&options.tls.config()));
    }
    process::block_signals(process::TERMINATION)
        .map_err(|error| Error::io("cannot block signals", error))?;
    if options.exit_with_parent {
        process::exit_with_parent(parent)
            .map_err(|error| Error::io("cannot watch the parent process", error))?;
    }
    match &options.run {
        None => {
            let uri = endpoints.uri().to_owned();
            let service = service(options, tls, false, move || {
                let mut out = io::stdout().lock();
                writeln!(out, "{uri}").and_then(|()| out.flush())
            });
            server::run(service, built.source, endpoints)
        }
        Some(command) => split(options, tls, command, built, endpoints),
    }
}

/// Reads the certificates or keys.
fn encryption(options: &TlsArgs) -> Result<Tls> {
    let loaded = tls::load(options.mode(), &options.config());
    loaded.map_err(|error| Error::new(ErrorKind::Config, error.to_string()))
}

/// Binds what the options ask for.
fn bind(options: &ServeArgs) -> Result<Endpoints> {
    let private = || listen::bind_private(std::env::temp_dir(), "blkit-");
    let tcp = options.port.is_some() || !options.ip_addr.is_empty();
    match &options.unix {
        Some(path) if path.as_os_str() == "-" => private(),
        Some(path) => listen::bind_unix(path),
        None if options.run.is_some() && !tcp => private(),
        None => {
            let by_default = options.ip_addr.is_empty();
            let addresses = if by_default {
                &LOOPBACK[..]
            } else {
                &options.ip_addr
            };
            listen::bind_tcp(
                addresses,
                options.port.unwrap_or(nbd::uri::PORT),
                by_default,
            )
        }
    }
}

/// Forks: the command runs here, the server in the child.
fn split(
    options: &ServeArgs,
    tls: Tls,
    command: &str,
    built: Built,
    endpoints: Endpoints,
) -> Result<ExitCode> {
    let (ready, mut announce) =
        io::pipe().map_err(|error| Error::io("cannot make a pipe", error))?;
    let original = std::process::id();
    let forked = process::fork().map_err(|error| Error::io("cannot fork", error))?;
    match forked {
        Forked::Parent(server) => {
            drop((announce, built));
            let captive = Captive {
                command: command.into(),
                variables: variables(&endpoints),
                tell: |text| eprintln!("blkit: {text}"),
            };
            captive::run(&captive, endpoints, server, ready)
        }
        Forked::Child => {
            drop(ready);
            process::exit_with_parent(original)
                .map_err(|error| Error::io("cannot watch the parent process", error))?;
            process::detach_standard_streams()
                .map_err(|error| Error::io("cannot open /dev/null", error))?;
            let service = service(options, tls, true, move || announce.write_all(b"."));
            server::run(service, built.source, endpoints)
        }
    }
}

/// What the command is told.
fn variables(endpoints: &Endpoints) -> Vec<(&'static str, OsString)> {
    let port = endpoints.port().map(|port| port.to_string());
    let socket = endpoints.unix_socket().map(Path::as_os_str);
    vec![
        ("uri", endpoints.uri().into()),
        ("nbd", endpoints.uri().into()),
        ("port", port.unwrap_or_default().into()),
        ("unixsocket", socket.unwrap_or_default().into()),
    ]
}

/// How the options want it served; `announce` tells whoever waits for the server.
fn service(
    options: &ServeArgs,
    tls: Tls,
    captive: bool,
    announce: impl FnOnce() -> io::Result<()> + 'static,
) -> Service {
    let pid_file = options.pid_file.clone();
    Service {
        export: exports::nbd::Options {
            read_only: options.read_only,
            handshake_timeout: options.handshake_timeout,
            max_connections: usize::try_from(options.max_connections).unwrap_or(usize::MAX),
            tls,
            ..exports::nbd::Options::default()
        },
        threads: options.threads.map(usize::from),
        io: options.io,
        sandbox: options.sandbox,
        captive,
        clients: Clients::Many,
        ready: Box::new(move || {
            let pid_file = pid_file.as_deref().map(PidFile::write).transpose()?;
            // A reader that is gone is no reason not to serve.
            let _ = announce();
            Ok(Box::new(pid_file) as Box<dyn Any>)
        }),
    }
}
