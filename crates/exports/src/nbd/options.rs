//! What a server can be told.

use std::{sync::Arc, time::Duration};

use ::nbd::server::{ServerOptions, TlsMode};
use block::{Error, ErrorKind, Result};

/// Settings of a [`Server`](super::Server).
#[derive(Clone, Debug)]
pub struct Options {
    /// Clients may only read.
    pub read_only: bool,
    /// From accept to the end of negotiation, TLS included; a client that takes longer is dropped.
    pub handshake_timeout: Duration,
    /// Connections beyond this number are closed at once.
    pub max_connections: usize,
    /// Requests of one connection that may be in flight or unsent.
    pub max_requests: u32,
    /// Bytes of one connection's reads and writes that may be in flight or unsent. One request is
    /// always allowed, however long.
    pub max_bytes: u64,
    /// Size of the kernel's send buffer of a connection, in bytes; 0 leaves the system's default.
    pub send_buffer: usize,
    /// Find out when a TCP client is gone without a word (SO_KEEPALIVE).
    pub keep_alive: bool,
    /// Serve the default export by the oldstyle handshake: no names, no options, no TLS, no
    /// structured replies.
    pub oldstyle: bool,
    /// Whether clients may or must use TLS.
    pub tls: Tls,
    /// What else clients may use of the protocol; its `tls` follows from the setting above.
    pub protocol: ServerOptions,
}

/// Whether clients may or must use TLS, and what it is done with.
#[derive(Clone, Debug, Default)]
pub enum Tls {
    /// `OPT_STARTTLS` is refused by policy.
    #[default]
    Off,
    /// A client may start TLS, and is served without too. Somebody in between can talk it out of
    /// TLS.
    On(Arc<tls::Acceptor>),
    /// Nobody gets anything without TLS.
    Require(Arc<tls::Acceptor>),
}

impl Tls {
    pub(super) fn acceptor(&self) -> Option<&Arc<tls::Acceptor>> {
        match self {
            Tls::Off => None,
            Tls::On(acceptor) | Tls::Require(acceptor) => Some(acceptor),
        }
    }
}

impl Options {
    /// Finds settings that contradict each other. A server that is made of such settings turns
    /// every client away.
    ///
    /// # Errors
    ///
    /// What is wrong.
    pub fn check(&self) -> Result<()> {
        match self.tls {
            Tls::Require(_) if self.oldstyle => Err(Error::new(
                ErrorKind::Config,
                "cannot use oldstyle protocol (-o) and require TLS",
            )),
            _ => Ok(()),
        }
    }

    /// The same for the handshake machine.
    pub(super) fn negotiation(&self) -> ServerOptions {
        ServerOptions {
            tls: match self.tls {
                Tls::Off => TlsMode::Off,
                Tls::On(_) => TlsMode::Offered,
                Tls::Require(_) => TlsMode::Required,
            },
            ..self.protocol.clone()
        }
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            read_only: false,
            handshake_timeout: Duration::from_secs(30),
            max_connections: 65_536,
            max_requests: 1024,
            max_bytes: 16 << 20,
            send_buffer: 2 << 20,
            keep_alive: false,
            oldstyle: false,
            tls: Tls::Off,
            protocol: ServerOptions::default(),
        }
    }
}
