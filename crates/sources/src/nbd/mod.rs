//! The export of another NBD server.
//!
//! | module | what |
//! | --- | --- |
//! | `upstream` | a server as configured, before anything was asked of it |
//! | `dial` | getting a connection: addresses, programs, sockets |
//! | `secrecy` | whether and how connections are encrypted |
//! | `hello` | the handshake, and what it says about the disk |
//! | `device` | the disk; who reaches it from which reactor |
//! | `lane` | one connection: requests out; waiting and repeating when it is lost |
//! | `flight` | one request of it, and what it has found |
//! | `receive` | replies in |
//!
//! A client of ours gets connections of its own, unless `shared` says otherwise, so what the server
//! says about flushes and connections (multi-conn) goes through as it is. Nothing that a server
//! sends is trusted: replies are checked against requests by the `nbd` crate, sizes here.

mod device;
mod dial;
mod flight;
mod hello;
mod lane;
mod receive;
mod secrecy;
mod upstream;

use std::{
    path::PathBuf,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, atomic::AtomicBool},
    task::Poll,
    time::Duration,
};

use block::{
    Access, Device, Error, ErrorKind, Export, Exports, Limits, Local, OpenContext, RangeLock,
    Reactor, Result, Source,
};
use config::{Arg, Choice, Config};
use nbd::{
    Mode,
    client::{ClientOptions, Connected, Event, Goal},
    uri::Uri,
};

use tls::Connector;
use transport::Transport;

use crate::{registry, single::read_only};
use device::{Lent, NbdDevice};
pub use dial::{Dial, Dialed, Server};
pub use upstream::Upstream;

/// How long a server gets for the whole handshake.
const HANDSHAKE: Duration = Duration::from_secs(60);

/// The export of another NBD server.
///
/// One of uri, socket, hostname, vsock, command and socket-fd says where the server is.
#[derive(Config, Debug, Clone, PartialEq, Eq)]
#[config(check = NbdConfig::consistent)]
pub struct NbdConfig {
    /// The server and its export as a URI: nbd://HOST/EXPORT, nbd+unix:///EXPORT?socket=PATH, or
    /// with the schemes nbd+vsock and nbd+ssh.
    #[config(magic)]
    pub uri: Option<String>,
    /// The server's Unix socket.
    pub socket: Option<PathBuf>,
    /// The server's host, for TCP.
    #[config(value = "HOST")]
    pub hostname: Option<String>,
    /// The server's port, for hostname and vsock [default: 10809].
    #[config(value = "PORT")]
    pub port: Option<u32>,
    /// The context identifier of a virtual machine, or 2 for the host.
    #[config(value = "CID")]
    pub vsock: Option<u32>,
    /// A program to start, which serves one client on its standard input and output.
    #[config(value = "PROGRAM")]
    pub command: Option<String>,
    /// The next argument for command.
    pub arg: Vec<String>,
    /// A connected socket that this process got from its parent.
    #[config(value = "FD")]
    pub socket_fd: Option<u32>,
    /// A metadata context to pass on besides base:allocation, such as qemu:dirty-bitmap:NAME.
    #[config(value = "NAME")]
    pub context: Vec<String>,
    /// The export to ask for, unless the URI says so [default: the server's default].
    pub export: Option<String>,
    /// Ask for the export that our client asks for.
    #[config(default = "false")]
    pub dynamic_export: bool,
    /// Try to connect so many times more, a second apart, before a client is turned away.
    #[config(default = "0")]
    pub retry: u32,
    /// All clients share the same connections.
    #[config(default = "false")]
    pub shared: bool,
    /// Connections for each client, if the server allows more than one (multi-conn).
    #[config(default = "1")]
    pub connections: u32,
    /// When the connection is lost, hold requests back for so long and send them again on a new one;
    /// 0 lets them fail at once.
    ///
    /// For servers that lose nothing they have answered when they start again.
    #[config(default = "0")]
    pub reconnect_delay: Duration,
    /// Give a connection up when an answer is due and nothing has come for so long; 0: never.
    #[config(default = "0")]
    pub timeout: Duration,
    /// Whether connections are encrypted [default: require with the schemes nbds and nbds+unix, on
    /// with another tls parameter, else off].
    pub tls: Option<UseTls>,
    /// Directory with ca-cert.pem, and, if the server wants to know who we are, client-cert.pem and
    /// client-key.pem [default: /etc/pki/libnbd for root, ~/.pki/libnbd or ~/.config/pki/libnbd for
    /// others, then whom the system trusts].
    #[config(value = "DIRECTORY")]
    pub tls_certificates: Option<PathBuf>,
    /// Whether the server's certificate is checked.
    pub tls_verify: Option<bool>,
    /// The name that the server's certificate must bear [default: the server's host].
    pub tls_hostname: Option<String>,
    /// File of pre-shared keys, in lines USER:KEY, in place of certificates.
    #[config(value = "FILE")]
    pub tls_psk: Option<PathBuf>,
    /// Who we are in that file [default: the user that runs this program].
    #[config(value = "USER")]
    pub tls_username: Option<String>,
    /// Versions and ciphers, as a GnuTLS priority string.
    pub tls_priority: Option<String>,
}

/// Whether a connection is encrypted.
#[derive(Choice, Debug, Clone, Copy, PartialEq, Eq)]
pub enum UseTls {
    /// No.
    Off,
    /// If the server can. Somebody in between can talk both sides out of it.
    On,
    /// Yes, or fail.
    Require,
}

impl NbdConfig {
    /// With nothing but a URI.
    ///
    /// # Errors
    /// None that a URI could cause: it is looked at by [`new`].
    pub fn of_uri(uri: String) -> Result<NbdConfig> {
        registry::parse(&[Arg::KeyValue("uri".into(), uri)])
    }

    fn consistent(&self) -> Result<(), String> {
        let given = [
            ("uri", self.uri.is_some()),
            ("socket", self.socket.is_some()),
            ("hostname", self.hostname.is_some()),
            ("vsock", self.vsock.is_some()),
            ("command", self.command.is_some()),
            ("socket-fd", self.socket_fd.is_some()),
        ];
        let given: Vec<_> = given.iter().filter(|g| g.1).map(|g| g.0).collect();
        match given[..] {
            [] => {
                return Err(
                    "uri=, socket=, hostname=, vsock=, command= or socket-fd= is required".into(),
                );
            }
            [_] => {}
            [one, other, ..] => return Err(format!("{one} and {other} cannot both be given")),
        }
        if self.port.is_some() && self.hostname.is_none() && self.vsock.is_none() {
            return Err("port needs hostname or vsock".into());
        }
        if self.hostname.is_some() && self.port.is_some_and(|port| port > u16::MAX.into()) {
            return Err("port is at most 65535".into());
        }
        if !self.arg.is_empty() && self.command.is_none() {
            return Err("arg needs command".into());
        }
        if self.dynamic_export && (self.shared || self.export.is_some()) {
            return Err("dynamic-export cannot be given with shared or export".into());
        }
        if !(1..=64).contains(&self.connections) {
            return Err("connections is a number from 1 to 64".into());
        }
        if self.command.is_some() || self.socket_fd.is_some() {
            if self.connections > 1 {
                return Err("command and socket-fd have a single connection".into());
            }
            if self.socket_fd.is_some() && !self.reconnect_delay.is_zero() {
                return Err("socket-fd cannot be connected again".into());
            }
        }
        Ok(())
    }
}

/// Whether a word is meant as the URI of an NBD server's export.
pub fn is_uri(word: &str) -> bool {
    Uri::is_meant(word)
}

/// How a device treats its connections.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How many to make, if the server allows more than one.
    pub connections: usize,
    /// How long requests wait for a new connection when theirs is lost; zero: they fail at once.
    pub reconnect_delay: Duration,
    /// How long a server may owe an answer without a word; zero: for ever.
    pub timeout: Duration,
}

impl Default for Settings {
    /// One connection, without any patience or deadline.
    fn default() -> Settings {
        Settings {
            connections: 1,
            reconnect_delay: Duration::ZERO,
            timeout: Duration::ZERO,
        }
    }
}

/// What is asked of a server, and what TLS is done with if it comes to that.
#[derive(Clone, Debug)]
pub struct Terms {
    /// What is asked.
    pub options: ClientOptions,
    /// Our credentials.
    pub connector: Option<Arc<Connector>>,
}

/// In the clear.
impl From<ClientOptions> for Terms {
    fn from(options: ClientOptions) -> Terms {
        Terms {
            options,
            connector: None,
        }
    }
}

/// A connection in the transmission phase.
pub(crate) struct Joined {
    transport: Transport,
    server: Option<Server>,
    connected: Connected,
}

/// A server's export, and what is known about it.
pub(crate) struct Target {
    name: Arc<str>,
    dial: Arc<dyn Dial>,
    terms: Terms,
    /// What the first connection was told, and how it talks.
    first: OnceLock<(Limits, Mode)>,
    /// A connection was lost for good.
    gone: AtomicBool,
}

impl Target {
    /// A connection in the transmission phase, to the same disk as the first one.
    async fn connect(&self, reactor: &Reactor) -> Result<Joined, Refused> {
        let mut terms = self.terms.clone();
        if let Some((_, mode)) = self.first.get() {
            // What was refused once is not asked for again: a round trip less.
            terms.options.mode = *mode;
        }
        let haggled = within(reactor, HANDSHAKE, async {
            let Dialed { stream, server } = self.dial.dial(reactor).await?;
            let (transport, connected) = hello::shake(reactor, &stream, &terms, |_| {}).await?;
            let what = || Error::new(ErrorKind::Format, "the server did not open the export");
            Ok(Joined {
                transport,
                server,
                connected: connected.ok_or_else(what)?,
            })
        });
        let haggled = haggled.await.unwrap_or_else(|| Err(too_slow()));
        let named = |error: Error| error.in_node(&self.name);
        let joined = haggled.map_err(|error| Refused::Now(named(error)))?;
        let limits =
            hello::limits(&joined.connected).map_err(|error| Refused::Now(named(error)))?;
        let mode = joined.connected.mode;
        let (first, _) = self.first.get_or_init(|| (limits.clone(), mode));
        if let Some(why) = difference(first, &limits) {
            let error = named(Error::new(ErrorKind::Format, why));
            return Err(Refused::ForEver(error));
        }
        Ok(joined)
    }
}

/// Why there is no connection.
enum Refused {
    /// Another attempt may do better.
    Now(Error),
    /// The disk is another one.
    ForEver(Error),
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Error {
        match refused {
            Refused::Now(error) | Refused::ForEver(error) => error,
        }
    }
}

/// What makes a disk another than it was.
fn difference(was: &Limits, is: &Limits) -> Option<String> {
    if was.size != is.size {
        let (was, is) = (was.size, is.size);
        return Some(format!("the export had {was} bytes, and now has {is}"));
    }
    let what = "the export has other abilities or block sizes than before";
    (was != is).then(|| what.to_owned())
}

fn too_slow() -> Error {
    let what = "the server has not finished the handshake in time";
    Error::new(ErrorKind::Io, what)
}

/// Waits for this, but not longer.
async fn within<T>(reactor: &Reactor, limit: Duration, this: impl Future<Output = T>) -> Option<T> {
    let mut this = pin!(this);
    let mut deadline = pin!(reactor.sleep(limit));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(done) = this.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        deadline.as_mut().poll(cx).map(|()| None)
    })
    .await
}

/// Opens an export of the server that `dial` reaches. Call it, and close the device, on the same
/// reactor.
///
/// # Errors
/// The server cannot be reached, does not grant the export, or breaks the protocol.
pub async fn open(
    reactor: &Reactor,
    name: &Arc<str>,
    dial: Arc<dyn Dial>,
    terms: Terms,
    settings: Settings,
) -> Result<Arc<dyn Device>> {
    Ok(attach(reactor, name, dial, terms, settings).await?)
}

async fn attach(
    reactor: &Reactor,
    name: &Arc<str>,
    dial: Arc<dyn Dial>,
    terms: Terms,
    settings: Settings,
) -> Result<Arc<NbdDevice>> {
    let target = Arc::new(Target {
        name: name.clone(),
        dial,
        terms,
        first: OnceLock::new(),
        gone: AtomicBool::new(false),
    });
    let joined = target.connect(reactor).await?;
    let (limits, _) = target.first.get().expect("connected").clone();
    limits.assert_valid();
    let device = NbdDevice::new(reactor, limits, target, settings, joined);
    Ok(Arc::new(device))
}

/// The source. Connects to nothing yet.
///
/// # Errors
/// `Config`, if the URI or what is said about TLS is wrong; `Io`, if the descriptor is not open.
pub fn new(config: NbdConfig) -> Result<Arc<dyn Source>> {
    Ok(Arc::new(Nbd {
        upstream: Upstream::new(&config)?,
        config,
        shared: Mutex::new(None),
        connecting: RangeLock::default(),
    }))
}

pub(crate) fn make(args: &[Arg]) -> Result<Arc<dyn Source>> {
    new(registry::parse(args)?)
}

struct Nbd {
    upstream: Upstream,
    config: NbdConfig,
    /// The device that all clients share.
    shared: Mutex<Option<Arc<NbdDevice>>>,
    /// Held by the client that connects for all.
    connecting: RangeLock,
}

impl Nbd {
    /// Connects, as often as the user wants it tried.
    async fn connect(&self, cx: &OpenContext) -> Result<Arc<NbdDevice>> {
        let export = match self.config.dynamic_export {
            true => &*cx.export,
            false => self.upstream.export(),
        };
        let mut tries = 0;
        loop {
            match self.upstream.open(&cx.reactor, export).await {
                Ok(device) => return Ok(device),
                Err(error) if tries == self.config.retry => return Err(error),
                Err(error) => tracing::debug!("{}", error.chain()),
            }
            tries += 1;
            cx.reactor.sleep(Duration::from_secs(1)).await;
        }
    }

    /// The device of all clients; a new one if the server has left the last.
    async fn common(&self, cx: &OpenContext) -> Result<Arc<NbdDevice>> {
        // One at a time: two clients that come together must not get two connections.
        let _turn = self.connecting.exclusive(0..1).await;
        let known = self.shared().clone();
        if let Some(device) = known.filter(|device| !device.is_gone()) {
            return Ok(device);
        }
        let device = self.connect(cx).await?;
        *self.shared() = Some(device.clone());
        Ok(device)
    }

    fn shared(&self) -> MutexGuard<'_, Option<Arc<NbdDevice>>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Nbd {
    fn name(&self) -> &Arc<str> {
        self.upstream.name()
    }

    fn exports<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<Exports>> {
        Box::pin(async move {
            if !self.config.dynamic_export {
                return Ok(Exports::single());
            }
            let mut list = Vec::new();
            let told = |event| {
                if let Event::Export { name, description } = event {
                    let description = Some(description).filter(|text| !text.is_empty());
                    list.push(Export { name, description });
                }
            };
            let options = ClientOptions {
                goal: Goal::List,
                ..ClientOptions::default()
            };
            self.upstream.ask(&cx.reactor, options, told).await?;
            Ok(Exports {
                list,
                default: None,
            })
        })
    }

    fn open<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<Arc<dyn Device>>> {
        Box::pin(async move {
            let device: Arc<dyn Device> = match self.config.shared {
                false => self.connect(cx).await?,
                true => Arc::new(Lent::new(self.common(cx).await?)),
            };
            Ok(match cx.access {
                Access::ReadOnly => read_only(device),
                Access::ReadWrite => device,
            })
        })
    }

    fn stop<'a>(&'a self, reactor: &'a Reactor) -> Local<'a, ()> {
        Box::pin(async move {
            let shared = self.shared().take();
            if let Some(device) = shared {
                // What was not said to this reactor's connections is said when the device is dropped.
                let _ = device.close(reactor).await;
            }
        })
    }
}
