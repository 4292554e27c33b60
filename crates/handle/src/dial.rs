//! Connecting sockets.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::Arc,
};

use dns_lookup::{AddrInfoHints, SockType, getaddrinfo};
use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::{Errno, FdFlags, fcntl_setfd},
    net::{self, AddressFamily, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, sockopt},
};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::{error::Fault, inner::Inner, state::State, wire::Wire};

/// Send buffer of Unix sockets in bytes: the default stalls large requests at every 208 KiB.
const UNIX_BUFFER: usize = 2 << 20;

/// Addresses that are tried one after the other.
pub(crate) struct Dialing {
    socket: Option<Arc<OwnedFd>>,
    left: VecDeque<Target>,
    /// What the last failure is told as.
    what: String,
    /// If none can be reached, the handle can be used again.
    forgiving: bool,
}

/// One address.
pub(crate) enum Target {
    Any(SocketAddrAny),
    Vsock(SockAddr),
}

impl Dialing {
    pub fn one(target: Target) -> Dialing {
        Dialing {
            socket: None,
            left: [target].into(),
            what: "connect".into(),
            forgiving: false,
        }
    }

    pub fn vsock(cid: u32, port: u32) -> Dialing {
        Dialing::one(Target::Vsock(SockAddr::vsock(cid, port)))
    }

    pub fn unix(path: &Path) -> Result<Dialing, Fault> {
        let address = SocketAddrUnix::new(path).map_err(|_| {
            let text = format!("socket name too long: {}", path.display());
            Fault::of(text, Errno::NAMETOOLONG)
        })?;
        Ok(Dialing::one(Target::Any(address.into())))
    }

    /// Looks the name up, which may take its time.
    pub fn tcp(host: &str, port: &str) -> Result<Dialing, Fault> {
        let hints = AddrInfoHints {
            socktype: SockType::Stream.into(),
            ..AddrInfoHints::default()
        };
        let found = getaddrinfo(Some(host), Some(port), Some(hints)).map_err(|error| {
            let error = std::io::Error::from(error).to_string();
            // The first half says only that looking up has failed.
            let words = error.rsplit_once(": ").map_or(&*error, |(_, words)| words);
            let text = format!("getaddrinfo: hostname \"{host}\" port \"{port}\": {words}");
            Fault::plain(text)
        })?;
        let found = found.filter_map(Result::ok);
        Ok(Dialing {
            socket: None,
            left: found
                .map(|info| Target::Any(info.sockaddr.into()))
                .collect(),
            what: format!("connect: {host}:{port}: could not connect to remote host"),
            forgiving: true,
        })
    }

    /// Tries one address after the other. `None` if one of them needs time.
    fn next(&mut self) -> Result<Option<Arc<OwnedFd>>, Fault> {
        let mut last = Errno::ADDRNOTAVAIL;
        while let Some(target) = self.left.pop_front() {
            match target.connect() {
                Ok((socket, true)) => return Ok(Some(Arc::new(socket))),
                Ok((socket, false)) => {
                    self.socket = Some(Arc::new(socket));
                    return Ok(None);
                }
                Err(error) => last = error,
            }
        }
        Err(Fault::of(&*self.what, last))
    }

    /// The socket is connected, or not: then the next address is tried.
    fn go_on(&mut self) -> Result<Option<Arc<OwnedFd>>, Fault> {
        let Some(socket) = self.socket.take() else {
            return self.next();
        };
        match sockopt::socket_error(&*socket) {
            Ok(Ok(())) => Ok(Some(socket)),
            Ok(Err(error)) | Err(error) => self.next().map_err(|fault| {
                match self.left.is_empty() && fault.errno == Errno::ADDRNOTAVAIL.raw_os_error() {
                    true => Fault::of(&*self.what, error),
                    false => fault,
                }
            }),
        }
    }

    pub fn socket(&self) -> Option<&Arc<OwnedFd>> {
        self.socket.as_ref()
    }
}

impl Target {
    /// Connects; false while it is under way.
    fn connect(&self) -> Result<(OwnedFd, bool), Errno> {
        match self {
            Target::Any(address) => connect(address),
            Target::Vsock(address) => {
                let errno =
                    |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
                let kind = Type::STREAM.cloexec().nonblocking();
                let socket = Socket::new(Domain::VSOCK, kind, None).map_err(errno)?;
                let connected = socket.connect(address).map_err(errno);
                under_way(socket.into(), connected)
            }
        }
    }
}

fn connect(address: &SocketAddrAny) -> Result<(OwnedFd, bool), Errno> {
    let family = address.address_family();
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
    prepare(&socket, family);
    let mut connected = net::connect(&socket, address);
    if connected == Err(Errno::AGAIN) && family == AddressFamily::UNIX {
        // Too many wait to be let in. There is nothing to poll for: wait in line.
        set_blocking(&socket, true)?;
        connected = net::connect(&socket, address);
        set_blocking(&socket, false)?;
    }
    under_way(socket, connected)
}

fn under_way(socket: OwnedFd, connected: Result<(), Errno>) -> Result<(OwnedFd, bool), Errno> {
    match connected {
        Ok(()) => Ok((socket, true)),
        Err(Errno::INPROGRESS | Errno::INTR) => Ok((socket, false)),
        Err(error) => Err(error),
    }
}

fn set_blocking(socket: &OwnedFd, blocking: bool) -> Result<(), Errno> {
    let mut flags = fcntl_getfl(socket)?;
    flags.set(OFlags::NONBLOCK, !blocking);
    fcntl_setfl(socket, flags)
}

/// Options without which it works too, so that errors do not matter.
fn prepare(socket: &OwnedFd, family: AddressFamily) {
    match family {
        AddressFamily::UNIX => {
            let _ = sockopt::set_socket_send_buffer_size(socket, UNIX_BUFFER);
        }
        AddressFamily::INET | AddressFamily::INET6 => {
            let _ = sockopt::set_tcp_nodelay(socket, true);
            let _ = sockopt::set_socket_keepalive(socket, true);
        }
        _ => {}
    }
}

/// Makes a socket that came from elsewhere one of ours.
pub(crate) fn adopt(socket: &OwnedFd) -> Result<(), Fault> {
    let of = |what: &'static str| move |error| Fault::of(what, error);
    set_blocking(socket, false).map_err(of("fcntl: set O_NONBLOCK"))?;
    fcntl_setfd(socket.as_fd(), FdFlags::CLOEXEC).map_err(of("fcntl: set FD_CLOEXEC"))?;
    if let Ok(family) = sockopt::socket_domain(socket) {
        prepare(socket, family);
    }
    Ok(())
}

impl Inner {
    /// Begins to connect.
    pub fn dial(&mut self, mut dialing: Dialing) -> Result<(), Fault> {
        let first = dialing.next();
        self.dialed(dialing, first)
    }

    /// Goes on when the socket can be written.
    pub fn dial_on(&mut self) -> Result<(), Fault> {
        let Some(mut dialing) = self.dialing.take() else {
            return Err(Fault::invalid("there is no connection under way"));
        };
        let next = dialing.go_on();
        self.dialed(dialing, next)
    }

    fn dialed(
        &mut self,
        dialing: Dialing,
        result: Result<Option<Arc<OwnedFd>>, Fault>,
    ) -> Result<(), Fault> {
        match result {
            Ok(Some(socket)) => {
                self.talk(socket);
                Ok(())
            }
            Ok(None) => {
                self.state = State::Connecting;
                self.dialing = Some(dialing);
                Ok(())
            }
            Err(fault) => {
                self.state = match dialing.forgiving {
                    true => State::Created,
                    false => State::Dead,
                };
                Err(fault)
            }
        }
    }

    /// The socket is connected: now the server speaks.
    pub fn talk(&mut self, socket: Arc<OwnedFd>) {
        self.wire = Some(Wire::new(socket));
        self.state = State::Magic;
    }
}
