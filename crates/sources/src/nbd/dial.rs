//! Getting a connection.

use std::{
    ffi::OsString,
    fmt, io,
    net::{TcpStream, ToSocketAddrs},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use block::{Error, Local, Pool, Reactor, Result};
use nbd::uri::{Transport, ssh_command};
use reactor::{Io, Stream, daemon, process};

/// One attempt at one address.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a server gets to take our goodbye, and one that we have started to end by itself.
pub(super) const FAREWELL: Duration = Duration::from_secs(5);

/// Makes connections to one server.
pub trait Dial: Send + Sync + 'static {
    /// A fresh connection, before any handshake.
    fn dial<'a>(&'a self, reactor: &'a Reactor) -> Local<'a, Result<Dialed>>;
}

/// A connection, and what has to live as long.
pub struct Dialed {
    /// The connection.
    pub stream: Stream,
    /// Dropped when the connection is over: a server that was started for it.
    pub server: Option<Server>,
}

impl From<Stream> for Dialed {
    fn from(stream: Stream) -> Dialed {
        Dialed {
            stream,
            server: None,
        }
    }
}

/// Where a server is.
pub(super) enum Place {
    Tcp {
        host: String,
        port: u16,
    },
    Unix(PathBuf),
    Vsock {
        cid: u32,
        port: u32,
    },
    /// A program that serves one client on its standard input and output.
    Command(Vec<OsString>),
    /// A connected socket; there is only one.
    Socket(Mutex<Option<OwnedFd>>),
}

impl Place {
    pub fn of_uri(transport: Transport) -> Place {
        match transport {
            Transport::Tcp { host, port } => Place::Tcp { host, port },
            Transport::Unix { path } => Place::Unix(path),
            Transport::Vsock { cid, port } => Place::Vsock { cid, port },
            Transport::Ssh {
                user,
                host,
                port,
                to,
                compress,
            } => Place::Command(ssh_command(user, host, port, &to, compress)),
        }
    }

    /// Connects. Waits, so not for a reactor's thread.
    fn connect(&self) -> io::Result<(OwnedFd, Option<Child>)> {
        let socket = match self {
            Place::Tcp { host, port } => tcp(host, *port)?,
            Place::Unix(path) => UnixStream::connect(path)?.into(),
            Place::Vsock { cid, port } => daemon::connect_vsock(*cid, *port)?,
            Place::Command(words) => {
                let (socket, child) = start(words)?;
                return Ok((socket, Some(child)));
            }
            Place::Socket(socket) => {
                let mut socket = socket.lock().unwrap_or_else(PoisonError::into_inner);
                socket.take().ok_or_else(|| {
                    io::Error::other("the socket that was handed over has been used already")
                })?
            }
        };
        Ok((socket, None))
    }
}

/// For people.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Place::Tcp { host, port } => write!(f, "{host}:{port}"),
            Place::Unix(path) => path.display().fmt(f),
            Place::Vsock { cid, port } => write!(f, "vsock {cid}:{port}"),
            Place::Command(words) => {
                let program = words.first().map(|word| word.to_string_lossy());
                write!(f, "command '{}'", program.unwrap_or_default())
            }
            Place::Socket(_) => f.write_str("the socket that was handed over"),
        }
    }
}

/// A place that can be shared with the threads that wait for it.
pub(super) struct Dialer(pub Arc<Place>);

impl Dial for Dialer {
    fn dial<'a>(&'a self, reactor: &'a Reactor) -> Local<'a, Result<Dialed>> {
        Box::pin(async move {
            let place = self.0.clone();
            let cannot = |error| Error::io(format!("cannot connect to {}", self.0), error);
            let connected = reactor.blocking(move || place.connect()).await;
            let connected = connected.unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
            let (socket, child) = connected.map_err(cannot)?;
            let server = child.map(|child| Server(Some(child)));
            let stream = Io::of(reactor).stream(socket).map_err(cannot)?;
            stream.set_nodelay(true);
            stream.set_keepalive(true);
            if stream.is_unix() {
                // Twice what one large request needs: the default stalls at every 208 KiB.
                stream.set_buffers(2 << 20, 0);
            }
            Ok(Dialed { stream, server })
        })
    }
}

/// Tries every address of a host.
fn tcp(host: &str, port: u16) -> io::Result<OwnedFd> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return Ok(stream.into()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Starts a server that talks on its standard input and output.
fn start(words: &[OsString]) -> io::Result<(OwnedFd, Child)> {
    let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let (ours, theirs) = UnixStream::pair()?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::from(OwnedFd::from(theirs.try_clone()?)))
        .stdout(Stdio::from(OwnedFd::from(theirs)));
    let child = process::with_clean_signals(&mut command).spawn()?;
    Ok((ours.into(), child))
}

/// A server that was started for one connection, and that never outlives it: dropped, it is killed.
pub struct Server(Option<Child>);

impl Server {
    /// Lets it end by itself, which it does when its input ends, and waits for that on another thread.
    pub(super) fn end(mut self, reactor: &Reactor) {
        let Some(child) = self.0.take() else { return };
        reactor.offload(Pool::Blocking, move || {
            let mut server = Server(Some(child));
            let step = Duration::from_millis(10);
            let mut waited = Duration::ZERO;
            while waited < FAREWELL && server.runs() {
                std::thread::sleep(step);
                waited += step;
            }
        });
    }

    fn runs(&mut self) -> bool {
        let child = self.0.as_mut();
        child.is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // It may have ended long ago; then there is nothing to kill, and only to be told of.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_is_told_word_by_word() {
        let uri: nbd::uri::Uri = "nbd+ssh://me@h:22/?socket=/tmp/a%20b%3Bls&compress"
            .parse()
            .unwrap();
        let Place::Command(words) = Place::of_uri(uri.transport) else {
            panic!("a command")
        };
        let expected = [
            "ssh",
            "-C",
            "-p",
            "22",
            "-l",
            "me",
            "-W",
            "/tmp/a b;ls",
            "--",
            "h",
        ];
        assert_eq!(words, expected);
    }
}
