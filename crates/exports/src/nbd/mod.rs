//! The NBD server: serves a source to NBD clients over stream sockets.
//!
//! The way of a request, as a story: `server` accepts a connection and sends it to a reactor;
//! `session` greets the client, haggles (`haggle`) and opens the device; `reader` receives in bulk,
//! parses, checks and submits; the layers below complete; `reply` writes the answer behind those of
//! the same turn; `connection` sends them all at the end of the turn with one system call. The
//! crate `transport` below is the stream, or TLS over it, for which `haggle` exchanges it.
//!
//! *Contract.* A violation of the protocol closes that connection only. A request is answered once,
//! or its connection is gone. A clean stop answers what is in flight. The bytes of a file or a RAM
//! disk go to the socket from where they lie; a write's payload goes down from where it was
//! received.

mod admission;
mod connection;
mod haggle;
mod info;
mod options;
mod reader;
mod reply;
mod server;
mod session;

pub use options::{Options, Tls};
pub use server::{Server, Stats};
