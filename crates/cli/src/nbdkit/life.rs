//! From a command line to a serving process, in nbdkit's order, which scripts see in `-v`: configure,
//! get ready, bind, leave the terminal or start the command, give privileges up, serve.

use std::{
    any::Any,
    ffi::OsString,
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::parent_id,
    },
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use block::{Error, Source};
use config::Config as _;
use graph::{GraphSpec, Registry};
use reactor::{
    DriverKind, daemon,
    process::{self, Forked},
};

use super::{
    info, messages,
    options::{Mistake, Options},
    places::{self, Places},
    tls,
    trace::Tracing,
    words,
};
use crate::life::{
    activation,
    captive::{self, Captive},
    pid_file::PidFile,
    server::{self, Clients, Service},
    tls::TlsMode,
};

/// Without `--timeout` a client may take as long as it likes.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// Serves until told to stop, or while the command of `--run` runs.
///
/// # Errors
/// Anything that keeps it from serving.
pub fn serve(
    registry: &Registry,
    options: &Options,
    plugin: &str,
    filters: &[&str],
) -> Result<ExitCode, Mistake> {
    // Asked at once: when it is another one later, the first has ended.
    let parent = parent_id();
    process::ignore_broken_pipes();
    if let Err(error) = process::raise_descriptor_limit() {
        messages::debug(&format!("the limit of open files stays as it is: {error}"));
    }
    messages::debug(&format!(
        "nbdkit {} (blkit {})",
        info::VERSION,
        env!("CARGO_PKG_VERSION")
    ));
    let activation = places::activation()?;
    if activation.is_some() {
        refuse_with_activation(options)?;
    }
    let export = export_options(options)?;
    // Before the configuration, so that nothing in it can write between the client's bytes.
    let streams = options.single.then(standard_streams).transpose()?;
    let source = configure(registry, options, plugin, filters)?;
    source
        .ready()
        .map_err(|error| Mistake::Error(words::told(&error)))?;

    let inherited = activation.is_some();
    let places = places(activation, options)?;
    let identity = Identity::find(options)?;
    process::block_signals(process::TERMINATION).map_err(cannot("cannot block signals"))?;
    let service = Service {
        export,
        threads: options.single.then_some(1),
        io: DriverKind::Auto,
        sandbox: false,
        captive: options.run.is_some(),
        disks: Vec::new(),
        clients: match streams {
            Some((input, output)) => Clients::One { input, output },
            None => Clients::Many,
        },
        ready: Box::new(|| Ok(Box::new(()) as Box<dyn Any>)),
    };
    let mut start = Start {
        options,
        parent,
        source,
        places,
        identity,
        service,
    };
    start.announce(inherited)?;
    if options.run.is_some() {
        return start.captive();
    }
    let stays = options.foreground || options.single || options.exit_with_parent || inherited;
    if stays {
        start.foreground()
    } else {
        start.background()
    }
}

/// Where clients connect: sockets of the parent's, or our own.
fn places(inherited: Option<Vec<String>>, options: &Options) -> Result<Places, Mistake> {
    match inherited {
        Some(names) => {
            let sockets = activation::take(names).map_err(cannot("LISTEN_FDS"))?;
            let sockets = sockets.into_iter().map(|(_, socket)| socket);
            Ok(Places::inherited(sockets.collect()))
        }
        None if options.single => Ok(Places::standard_streams()),
        None => labelled(options, || Places::bind(options)),
    }
}

/// Everything that is there when the process takes its final shape.
struct Start<'a> {
    options: &'a Options,
    parent: u32,
    source: Arc<dyn Source>,
    places: Places,
    identity: Identity,
    service: Service,
}

impl Start<'_> {
    /// Prints the URI if asked to, and says what happens once clients may connect.
    fn announce(&mut self, inherited: bool) -> Result<(), Mistake> {
        if self.options.print_uri {
            if inherited || self.options.single {
                let text = "--print-uri cannot be used with -s or socket activation";
                return Err(Mistake::Plain(text.into()));
            }
            let uri = self.places.uri.as_deref().unwrap_or_default();
            let quoted = places::shell_quoted(uri);
            let text = format!(
                "{uri}\nShell-quoted URI: {quoted}\nCommand to query the NBD endpoint:\n  \
                 nbdinfo {quoted}\n"
            );
            let mut out = io::stdout().lock();
            // A reader that is gone is no reason not to serve.
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        }
        // The process may leave this directory before it writes.
        let path = self.options.pid_file.as_deref().map(std::path::absolute);
        let path = path.transpose().map_err(cannot("--pidfile"))?;
        self.service.ready = Box::new(move || write_pid_file(path));
        Ok(())
    }

    fn foreground(self) -> Result<ExitCode, Mistake> {
        if self.options.exit_with_parent {
            process::exit_with_parent(self.parent).map_err(cannot("--exit-with-parent"))?;
        }
        self.run()
    }

    fn background(self) -> Result<ExitCode, Mistake> {
        match process::fork().map_err(cannot("fork"))? {
            Forked::Parent(child) => {
                messages::debug(&format!("forked into background (new pid = {child})"));
                // What was made belongs to the child now.
                std::mem::forget(self.places);
                Ok(ExitCode::SUCCESS)
            }
            Forked::Child => {
                daemon::into_background(!self.options.verbose)
                    .map_err(cannot("cannot go into the background"))?;
                messages::in_background();
                self.run()
            }
        }
    }

    /// Forks: the command runs here, the server in the child.
    fn captive(mut self) -> Result<ExitCode, Mistake> {
        let (ready, mut announce) = io::pipe().map_err(cannot("pipe"))?;
        let original = std::process::id();
        match process::fork().map_err(cannot("fork"))? {
            Forked::Parent(server) => {
                messages::debug(&format!("forked into background (new pid = {server})"));
                drop(announce);
                let captive = Captive {
                    command: self.options.run.clone().unwrap_or_default(),
                    variables: variables(self.options, &self.places),
                    tell: messages::plain,
                };
                drop((self.source, self.service));
                let ended = captive::run(&captive, vec![self.places.endpoints], server, ready);
                ended.map_err(|error| Mistake::Error(words::told(&error)))
            }
            Forked::Child => {
                drop(ready);
                process::exit_with_parent(original).map_err(cannot("--run"))?;
                process::detach_standard_streams().map_err(cannot("/dev/null"))?;
                let first = self.service.ready;
                self.service.ready = Box::new(move || {
                    let kept = first()?;
                    // A command that cannot be started is the other process's to tell.
                    let _ = announce.write_all(b".");
                    Ok(kept)
                });
                self.run()
            }
        }
    }

    /// The last steps before threads exist, then everything else.
    fn run(self) -> Result<ExitCode, Mistake> {
        if self.options.swap {
            daemon::lock_memory().map_err(cannot("--swap: mlockall"))?;
        }
        self.identity.take_on()?;
        let served = server::run(self.service, self.source, self.places.endpoints);
        served.map_err(|error| Mistake::Error(words::told(&error)))
    }
}

/// The graph, with a line for every step.
fn configure(
    registry: &Registry,
    options: &Options,
    plugin: &str,
    filters: &[&str],
) -> Result<Arc<dyn Source>, Mistake> {
    let parameters = words::parameters(&options.words[1..])?;
    let spec = words::graph(registry, plugin, filters, &parameters)?;
    tell_configuration(&spec);
    let tracing = Tracing {
        plugin: plugin.into(),
        layers: filters
            .iter()
            .copied()
            .chain([plugin])
            .map(str::to_owned)
            .collect(),
        control: options.debug_value("nbdkit", "backend.controlpath", 1) != 0,
        data: options.debug_value("nbdkit", "backend.datapath", 1) != 0,
    };
    let built = registry.build_around(&spec, &|name, node| match options.verbose {
        true => tracing.around(name, node),
        false => node,
    });
    let built = built.map_err(|error| Mistake::Error(words::told(&error)))?;
    if plugin == "data" && options.debug_value("data", "AST", 0) != 0 {
        tell_tree(&spec.source.args)?;
    }
    for flag in &options.debug {
        let of_server = flag.name == "nbdkit" && flag.flag.starts_with("backend.");
        let of_data = plugin == "data" && flag.name == "data" && flag.flag == "AST";
        if !of_server && !of_data {
            messages::warning(&format!(
                "debug flag -D {}.{} was not used",
                flag.name, flag.flag
            ));
        }
    }
    let model = info::model_name(built.thread_model);
    messages::debug(&format!("using thread model: {model}"));
    Ok(built.source)
}

fn tell_configuration(spec: &GraphSpec) {
    if !messages::verbose() {
        return;
    }
    let nodes = || spec.filters.iter().chain([&spec.source]);
    for node in nodes() {
        for arg in &node.args {
            let (key, value) = match arg {
                config::Arg::KeyValue(key, value) => (key.as_str(), value),
                config::Arg::Bare(value) => ("", value),
            };
            messages::debug(&format!("{}: config key={key}, value={value}", node.name));
        }
    }
    for node in nodes() {
        messages::debug(&format!("{}: config_complete", node.name));
    }
}

/// The tree of the data plugin's program: `-D data.AST=1`.
fn tell_tree(args: &[config::Arg]) -> Result<(), Mistake> {
    let told = |error: &block::Error| Mistake::Error(words::told(error));
    let config = sources::data::DataConfig::from_args(args)
        .map_err(|error| told(&graph::config_error(error)))?;
    let lines = sources::data::ast(&config).map_err(|error| told(&error))?;
    messages::debug("BEGIN AST (-D data.AST=1)");
    lines.iter().for_each(|line| messages::debug(line));
    messages::debug("END AST");
    Ok(())
}

fn export_options(options: &Options) -> Result<exports::nbd::Options, Mistake> {
    let mut export = exports::nbd::Options {
        read_only: options.read_only,
        handshake_timeout: options.timeout.unwrap_or(FOREVER),
        keep_alive: options.keep_alive,
        oldstyle: options.oldstyle,
        tls: tls::mode(options)?,
        ..exports::nbd::Options::default()
    };
    if options.threads > 0 {
        export.max_requests = options.threads;
    }
    let protocol = &mut export.protocol;
    // NBD_FLAG_FIXED_NEWSTYLE and NBD_FLAG_NO_ZEROES.
    protocol.fixed_newstyle &= options.mask_handshake & 1 != 0;
    protocol.no_zeroes &= options.mask_handshake & 2 != 0;
    protocol.structured_replies &= options.structured_replies;
    protocol.extended_headers &= options.structured_replies;
    protocol.meta_contexts &= options.meta_contexts;
    Ok(export)
}

/// Who the server is to be.
struct Identity {
    user: Option<u32>,
    group: Option<u32>,
}

impl Identity {
    /// Looks names up while their database can still be read.
    fn find(options: &Options) -> Result<Identity, Mistake> {
        let found =
            |option: &str, what: &str, name: &Option<OsString>, id: io::Result<Option<u32>>| {
                let shown = name.as_deref().unwrap_or_default().display();
                match id.map_err(cannot(option))? {
                    None if name.is_some() => Err(Mistake::Plain(format!(
                        "{option} option: {shown} is not a valid {what}"
                    ))),
                    id => Ok(id),
                }
            };
        let ask = |name: &Option<OsString>,
                   find: fn(&std::ffi::OsStr) -> io::Result<Option<u32>>| {
            name.as_deref().map_or(Ok(None), find)
        };
        let user = ask(&options.user, daemon::find_user);
        let group = ask(&options.group, daemon::find_group);
        Ok(Identity {
            user: found("-u", "user name or uid", &options.user, user)?,
            group: found("-g", "group name or gid", &options.group, group)?,
        })
    }

    fn take_on(&self) -> Result<(), Mistake> {
        if self.user.is_none() && self.group.is_none() {
            return Ok(());
        }
        daemon::drop_privileges(self.user, self.group)
            .map_err(cannot("cannot change user or group"))?;
        messages::debug("changed user and group");
        Ok(())
    }
}

/// Runs `bind` so that its sockets get the label of `--selinux-label`.
fn labelled<T>(options: &Options, bind: impl FnOnce() -> Result<T, Mistake>) -> Result<T, Mistake> {
    const ATTRIBUTE: &str = "/proc/thread-self/attr/sockcreate";
    let Some(label) = &options.selinux_label else {
        return bind();
    };
    let set = |label: &[u8]| std::fs::write(ATTRIBUTE, label);
    set(label.as_encoded_bytes()).map_err(cannot(
        "--selinux-label: this kernel does not take the label",
    ))?;
    let bound = bind();
    set(b"\0").map_err(cannot("--selinux-label"))?;
    bound
}

/// Standard input and output for the client; whatever else reads or writes them gets nothing.
fn standard_streams() -> Result<(OwnedFd, OwnedFd), Mistake> {
    let own = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned();
    let input = own(io::stdin().as_fd()).map_err(cannot("standard input"))?;
    let output = own(io::stdout().as_fd()).map_err(cannot("standard output"))?;
    process::detach_standard_streams().map_err(cannot("/dev/null"))?;
    Ok((input, output))
}

fn refuse_with_activation(options: &Options) -> Result<(), Mistake> {
    let asked = options.ip_addr.is_some()
        || options.port.is_some()
        || options.single
        || options.unix.is_some()
        || options.run.is_some()
        || options.vsock;
    match asked {
        true => Err(Mistake::Plain(
            "cannot use socket activation with -i, -p, --run, -s, -U or --vsock options".into(),
        )),
        false => Ok(()),
    }
}

/// What the command of `--run` is told.
fn variables(options: &Options, places: &Places) -> Vec<(&'static str, OsString)> {
    let uri = OsString::from(places.uri.clone().unwrap_or_default());
    let port = places.port.map(|port| port.to_string());
    let socket = places.endpoints.unix_socket().map(Path::as_os_str);
    let path = |path: &Option<PathBuf>| path.clone().unwrap_or_default().into_os_string();
    let mut variables = vec![
        ("uri", uri.clone()),
        ("nbd", uri),
        ("port", port.unwrap_or_default().into()),
        ("unixsocket", socket.unwrap_or_default().into()),
        ("exportname", options.export_name.clone()),
        ("tls_certificates", path(&options.tls_certificates)),
        ("tls_psk", path(&options.tls_psk)),
    ];
    match options.tls {
        Some(TlsMode::On) => variables.push(("tls", "1".into())),
        Some(TlsMode::Require) => variables.push(("tls", "2".into())),
        Some(TlsMode::Off) | None => {}
    }
    variables
}

fn write_pid_file(path: Option<PathBuf>) -> block::Result<Box<dyn Any>> {
    if let Some(path) = path {
        // It stays, as nbdkit's does.
        PidFile::write(&path)?.keep();
    }
    Ok(Box::new(()))
}

/// Makes a mistake of a system error: what failed, and why.
fn cannot(what: &str) -> impl Fn(io::Error) -> Mistake {
    let what = what.to_owned();
    move |error| Mistake::Plain(Error::io(what.clone(), error).chain())
}
