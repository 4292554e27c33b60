//! Sockets: connecting, buffers, and the NBD handshake on a blocking socket.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nbd::client::{ClientOptions, Connected, Event, Handshake};
use rustix::net::sockopt;

use crate::args::Args;

/// A server's address.
#[derive(Clone, Debug)]
pub enum Address {
    /// Path of a Unix socket.
    Unix(PathBuf),
    /// `HOST:PORT`.
    Tcp(String),
}

impl Address {
    /// Takes `--unix` or `--tcp`.
    pub fn take(args: &mut Args) -> Result<Address> {
        match (args.take::<PathBuf>("unix")?, args.take::<String>("tcp")?) {
            (Some(path), None) => Ok(Address::Unix(path)),
            (None, Some(place)) => Ok(Address::Tcp(place)),
            _ => bail!("one of --unix PATH and --tcp HOST:PORT is needed"),
        }
    }

    /// Connects a blocking socket. `send_buffer` is in bytes; 0 leaves the system's default.
    pub fn connect(&self, send_buffer: usize) -> Result<Socket> {
        let socket = match self {
            Address::Unix(path) => UnixStream::connect(path).map(OwnedFd::from),
            Address::Tcp(place) => TcpStream::connect(place).and_then(|stream| {
                stream.set_nodelay(true)?;
                Ok(OwnedFd::from(stream))
            }),
        };
        let socket = Socket(socket.with_context(|| format!("cannot connect to {self}"))?);
        socket.set_send_buffer(send_buffer)?;
        Ok(socket)
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Unix(path) => path.display().fmt(f),
            Address::Tcp(place) => place.fmt(f),
        }
    }
}

/// A connected stream socket, blocking unless a call says otherwise.
pub struct Socket(OwnedFd);

impl Socket {
    /// Sets the kernel's send buffer, in bytes; 0 leaves it.
    pub fn set_send_buffer(&self, bytes: usize) -> Result<()> {
        if bytes != 0 {
            sockopt::set_socket_send_buffer_size(&self.0, bytes).context("SO_SNDBUF")?;
        }
        Ok(())
    }

    /// Makes blocking calls give up after this time, with `EAGAIN`.
    pub fn set_timeout(&self, limit: Duration) -> Result<()> {
        for direction in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
            sockopt::set_socket_timeout(&self.0, direction, Some(limit)).context("SO_RCVTIMEO")?;
        }
        Ok(())
    }
}

impl From<OwnedFd> for Socket {
    fn from(fd: OwnedFd) -> Socket {
        Socket(fd)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Read for &Socket {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| {
            rustix::io::read(&self.0, &mut *buf)
        })?)
    }
}

impl Write for &Socket {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let flags = rustix::net::SendFlags::NOSIGNAL;
        Ok(rustix::io::retry_on_intr(|| {
            rustix::net::send(&self.0, buf, flags)
        })?)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs the handshake to its end.
pub fn handshake(socket: &Socket, options: ClientOptions) -> Result<Connected> {
    let mut machine = Handshake::new(options)?;
    let (mut buf, mut out, mut stream) = ([0; 4096], Vec::new(), socket);
    loop {
        let n = stream.read(&mut buf).context("handshake")?;
        if n == 0 {
            bail!("the server closed the connection during the handshake");
        }
        let result = machine.input(&buf[..n], &mut out);
        stream.write_all(&out).context("handshake")?;
        out.clear();
        match result? {
            (used, Some(Event::Connected(connected))) => {
                if used != n {
                    bail!("the server sent replies before any request");
                }
                return Ok(connected);
            }
            (_, Some(event)) => bail!("unexpected in a handshake: {event:?}"),
            (_, None) => {}
        }
    }
}
