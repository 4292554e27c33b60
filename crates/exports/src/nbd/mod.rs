//! The NBD server: serves a source to NBD clients over stream sockets.
//!
//! The way of a request, as a story: `server` accepts a connection and sends it to a reactor;
//! `session` greets the client, haggles (`haggle`) and opens the device; `reader` receives in bulk,
//! parses, checks and submits; the layers below complete; `reply` writes the answer behind those of
//! the same turn; `connection` sends them all at the end of the turn with one system call.
//!
//! *Contract.* A violation of the protocol closes that connection only. A request is answered once,
//! or its connection is gone. A clean stop answers what is in flight. The bytes of a file or a RAM
//! disk go to the socket from where they lie; a write's payload goes down from where it was
//! received.

mod connection;
mod haggle;
mod info;
mod reader;
mod reply;
mod server;
mod session;

use std::time::Duration;

pub use server::{Server, Stats};

/// Settings of a [`Server`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Clients may only read.
    pub read_only: bool,
    /// From accept to the end of negotiation; a client that takes longer is dropped.
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
    /// What clients may use of the protocol.
    pub protocol: ::nbd::server::ServerOptions,
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
            protocol: ::nbd::server::ServerOptions::default(),
        }
    }
}
