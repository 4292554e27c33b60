//! Listening sockets. Made before any loop or thread exists; accepting needs a loop.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use block::{Error, ErrorKind, Reactor, Result};
use rustix::{
    io::Errno,
    net::{SocketAddrAny, SocketAddrUnix, SocketFlags, accept_with, sockopt},
};

use crate::{io::Io, stream::peer_of};

/// Longest path of a Unix socket, in bytes (unix(7)).
const UNIX_PATH_MAX: usize = 107;

/// Connections that wait for being accepted.
const BACKLOG: i32 = 1024;

/// How long accepting pauses when descriptors or memory have run out.
const PAUSE: Duration = Duration::from_millis(100);

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// A Unix socket's path; empty if it has none.
    Unix(PathBuf),
    /// TCP.
    Tcp(SocketAddr),
    /// Something else: vsock.
    Other,
}

/// A listening socket. May be shared: every loop that accepts gets a part of the connections.
pub struct Listener {
    fd: Arc<OwnedFd>,
    made: Made,
}

/// The socket file we made, and the process that did.
struct Made(std::sync::Mutex<Option<(PathBuf, u32)>>);

/// A new connection.
pub struct Accepted {
    /// The socket; it may travel to another reactor, and becomes a stream by [`Io::stream`].
    pub fd: OwnedFd,
    /// Who is at the other end.
    pub peer: String,
}

impl Listener {
    /// Makes a Unix socket and listens on it. Its file is removed when the listener is dropped.
    pub fn bind_unix(path: impl AsRef<Path>) -> Result<Listener> {
        let path = path.as_ref();
        let shown = path.display();
        if path.as_os_str().len() > UNIX_PATH_MAX {
            let text = format!("the socket's path is longer than {UNIX_PATH_MAX} bytes: '{shown}'");
            return Err(Error::new(ErrorKind::Config, text)
                .hint("use a path near the root, or a relative one"));
        }
        let socket = UnixListener::bind(path).map_err(|error| {
            let in_use = error.kind() == io::ErrorKind::AddrInUse;
            let error = Error::io(format!("cannot listen on the Unix socket '{shown}'"), error);
            if in_use {
                error.hint("if no server uses it any more, remove the file")
            } else {
                error
            }
        })?;
        let listener = Listener::from_fd(socket.into())?;
        listener
            .made
            .set(Some((path.to_path_buf(), std::process::id())));
        Ok(listener)
    }

    /// Listens on a TCP address. Port 0 lets the kernel choose one.
    pub fn bind_tcp(address: SocketAddr) -> Result<Listener> {
        // The standard library sets SO_REUSEADDR and close-on-exec.
        let socket = TcpListener::bind(address)
            .map_err(|error| Error::io(format!("cannot listen on {address}"), error))?;
        Listener::from_fd(socket.into())
    }

    /// Takes over a socket that somebody else made (socket activation).
    pub fn from_fd(fd: OwnedFd) -> Result<Listener> {
        let cannot =
            |error: Errno| Error::io("this descriptor is not a listening socket", error.into());
        sockopt::socket_type(&fd).map_err(cannot)?;
        rustix::net::listen(&fd, BACKLOG).map_err(cannot)?;
        // Several loops may be told of one connection, and only one of them gets it.
        rustix::io::ioctl_fionbio(&fd, true).map_err(cannot)?;
        Ok(Listener {
            fd: Arc::new(fd),
            made: Made::none(),
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> ListenAddress {
        let Ok(address) = rustix::net::getsockname(&self.fd) else {
            return ListenAddress::Other;
        };
        ListenAddress::of(&address)
    }

    /// Waits for a connection. Errors of a connection that is gone already are skipped; when
    /// descriptors or memory have run out it waits and tries again.
    pub async fn accept(&self, reactor: &Reactor) -> io::Result<Accepted> {
        let io = Io::of(reactor);
        loop {
            match accept_with(&self.fd, SocketFlags::CLOEXEC) {
                Ok(fd) => {
                    let peer = peer_of(fd.as_fd());
                    return Ok(Accepted { fd, peer });
                }
                Err(Errno::AGAIN) => io.readable(&self.fd).await?,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    reactor.sleep(PAUSE).await;
                }
                Err(
                    Errno::CONNABORTED
                    | Errno::INTR
                    | Errno::PROTO
                    | Errno::PERM
                    | Errno::NETDOWN
                    | Errno::NETUNREACH
                    | Errno::HOSTDOWN
                    | Errno::HOSTUNREACH
                    | Errno::TIMEDOUT,
                ) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Leaves the socket's file where it is: another process goes on listening.
    pub fn keep_path(&self) {
        self.made.set(None);
    }

    /// The socket's file is this process's to remove: for the server's process after a fork.
    pub fn own_path(&self) {
        self.made.adopt();
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl ListenAddress {
    fn of(address: &SocketAddrAny) -> ListenAddress {
        if let Ok(tcp) = SocketAddr::try_from(address.clone()) {
            return ListenAddress::Tcp(tcp);
        }
        match SocketAddrUnix::try_from(address.clone()) {
            Ok(unix) => {
                let path = unix
                    .path()
                    .map(|path| PathBuf::from(&*path.to_string_lossy()));
                ListenAddress::Unix(path.unwrap_or_default())
            }
            Err(_) => ListenAddress::Other,
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Unix(path) => path.display().fmt(f),
            ListenAddress::Tcp(address) => address.fmt(f),
            ListenAddress::Other => f.write_str("socket"),
        }
    }
}

impl Made {
    fn none() -> Made {
        Made(std::sync::Mutex::new(None))
    }

    fn set(&self, made: Option<(PathBuf, u32)>) {
        *self.lock() = made;
    }

    fn adopt(&self) {
        if let Some((_, process)) = &mut *self.lock() {
            *process = std::process::id();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(PathBuf, u32)>> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if let Some((path, process)) = self.lock().take()
            && process == std::process::id()
        {
            // Somebody may have removed it already.
            let _ = std::fs::remove_file(path);
        }
    }
}
