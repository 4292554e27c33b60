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
    os::unix::{ffi::OsStrExt, process::parent_id},
    path::Path,
    process::ExitCode,
};

use block::{Error, ErrorKind, Result};
use config::Config as _;
use exports::nbd::Tls;
use graph::{Built, Registry};
use reactor::process::{self, Forked};

use crate::{
    args::{ServeArgs, TlsArgs},
    life::{
        activation::{self, Activation, Named},
        captive::{self, Captive},
        disks::Plan,
        listen::{self, Endpoints, LOOPBACK},
        pid_file::PidFile,
        server::{self, Clients, Service},
        tls,
    },
    parameters,
    vhost_user::{self, DiskConfig},
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
    let mut places = Places::bind(options)?;
    if let (Tls::Require(_), Some(endpoints)) = (&tls, &mut places.nbd) {
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
            let text = match options.quiet {
                true => Vec::new(),
                false => places.announcement(),
            };
            let announce = move || {
                let mut out = io::stdout().lock();
                out.write_all(&text).and_then(|()| out.flush())
            };
            let service = service(options, tls, false, places.disks, announce);
            server::run(service, built.source, places.nbd.unwrap_or_default())
        }
        Some(command) => split(options, tls, command, built, places),
    }
}

/// Reads the certificates or keys.
fn encryption(options: &TlsArgs) -> Result<Tls> {
    let loaded = tls::load(options.mode(), &options.config());
    loaded.map_err(|error| Error::new(ErrorKind::Config, error.to_string()))
}

/// Where clients connect.
struct Places {
    /// `None` if NBD is not served.
    nbd: Option<Endpoints>,
    disks: Vec<Plan>,
}

impl Places {
    /// Takes over what is handed over, and binds what the options ask for.
    fn bind(options: &ServeArgs) -> Result<Places> {
        let mut sockets = inherited()?;
        let activated = !sockets.is_empty();
        let read_only = options.read_only;
        let mut disks = Vec::with_capacity(options.vhost_user.len());
        for disk in &options.vhost_user {
            disks.push(vhost_user::bind(disk, read_only, &mut sockets)?);
        }
        let name = DiskConfig::schema().name;
        for (_, socket) in sockets.extract_if(.., |(known, _)| known == name) {
            let plan = vhost_user::adopt(&DiskConfig::default(), read_only, socket);
            disks.push(plan.map_err(|error| Error::io("LISTEN_FDS", error))?);
        }
        let tcp = options.port.is_some() || !options.ip_addr.is_empty();
        let asked = tcp || options.unix.is_some();
        let nbd = match (sockets.is_empty(), asked) {
            (true, _) if asked || (disks.is_empty() && !activated) => Some(bind(options)?),
            (true, _) => None,
            (false, false) => {
                let sockets = sockets.into_iter().map(|(_, socket)| socket);
                Some(Endpoints::of_sockets(sockets.collect()))
            }
            (false, true) => {
                let what = "-U, -p and -i cannot be used with socket activation (LISTEN_FDS)";
                return Err(Error::new(ErrorKind::Config, what));
            }
        };
        Ok(Places { nbd, disks })
    }

    /// What is told on standard output: a line for each.
    fn announcement(&self) -> Vec<u8> {
        let mut text = Vec::new();
        // Nobody here knows how clients come to inherited sockets.
        let known = |endpoints: &&Endpoints| !endpoints.uri().is_empty();
        if let Some(endpoints) = self.nbd.as_ref().filter(known) {
            text.extend_from_slice(endpoints.uri().as_bytes());
            text.push(b'\n');
        }
        for path in self
            .disks
            .iter()
            .filter_map(|disk| disk.endpoints.unix_socket())
        {
            text.extend_from_slice(path.as_os_str().as_bytes());
            text.push(b'\n');
        }
        text
    }

    /// What the command of `--run` is told.
    fn variables(&self) -> Vec<(&'static str, OsString)> {
        let nbd = self.nbd.as_ref();
        let uri = || nbd.map(Endpoints::uri).unwrap_or_default().into();
        let port = nbd.and_then(Endpoints::port).map(|port| port.to_string());
        let socket = nbd.and_then(Endpoints::unix_socket).map(Path::as_os_str);
        let disk = self
            .disks
            .iter()
            .find_map(|disk| disk.endpoints.unix_socket());
        vec![
            ("uri", uri()),
            ("nbd", uri()),
            ("port", port.unwrap_or_default().into()),
            ("unixsocket", socket.unwrap_or_default().into()),
            (
                "vhostuser",
                disk.map(Path::as_os_str).unwrap_or_default().into(),
            ),
        ]
    }
}

/// The sockets of socket activation.
fn inherited() -> Result<Vec<Named>> {
    match activation::look() {
        Activation::None => Ok(Vec::new()),
        Activation::NotOurs(why) => {
            tracing::warn!("{why}");
            Ok(Vec::new())
        }
        Activation::Sockets(names) => {
            activation::take(names).map_err(|error| Error::io("LISTEN_FDS", error))
        }
        Activation::TooMany(count) => {
            let what = format!("LISTEN_FDS: {count} sockets are too many");
            Err(Error::new(ErrorKind::Config, what))
        }
    }
}

/// Binds what the options ask for, for NBD.
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
    places: Places,
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
                variables: places.variables(),
                tell: |text| eprintln!("blkit: {text}"),
            };
            let disks = places.disks.into_iter().map(|disk| disk.endpoints);
            let endpoints = places.nbd.into_iter().chain(disks).collect();
            captive::run(&captive, endpoints, server, ready)
        }
        Forked::Child => {
            drop(ready);
            process::exit_with_parent(original)
                .map_err(|error| Error::io("cannot watch the parent process", error))?;
            process::detach_standard_streams()
                .map_err(|error| Error::io("cannot open /dev/null", error))?;
            let announce = move || announce.write_all(b".");
            let service = service(options, tls, true, places.disks, announce);
            server::run(service, built.source, places.nbd.unwrap_or_default())
        }
    }
}

/// How the options want it served; `announce` tells whoever waits for the server.
fn service(
    options: &ServeArgs,
    tls: Tls,
    captive: bool,
    disks: Vec<Plan>,
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
        disks,
        clients: Clients::Many,
        ready: Box::new(move || {
            let pid_file = pid_file.as_deref().map(PidFile::write).transpose()?;
            // A reader that is gone is no reason not to serve.
            let _ = announce();
            Ok(Box::new(pid_file) as Box<dyn Any>)
        }),
    }
}
