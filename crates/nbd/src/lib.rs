//! The NBD protocol as state machines over bytes, for servers and for clients.
//!
//! **What.** [`proto`] has the numbers of the protocol; [`server`] and [`client`] each have a
//! [`Handshake`](server::Handshake) machine for the haggling of options and plain functions for the
//! transmission phase; [`errno`] translates error values both ways. The text followed is the NBD
//! protocol document (`doc/proto.md` of the NetworkBlockDevice project), fixed newstyle, with
//! structured replies, extended headers and block status with a payload. "Spec" in these pages means
//! that document, with the section's title.
//!
//! **Why so.** The same machines are driven by an io_uring loop, by `poll(2)` on a caller's thread,
//! by a simulator and by fuzzers. So nothing here reads a socket, sleeps, spawns or looks at a
//! clock: bytes go in, bytes and events come out.
//!
//! **Contract.**
//! * No input from a peer panics, overflows or allocates without bound. The bounds are the
//!   constants of [`proto::limits`].
//! * What a peer may not do is a [`Violation`]; it ends that one connection and nothing else.
//!   What it may ask but not have is an error reply, and the connection goes on.
//! * Nothing is allocated per request or per reply in the transmission phase, save for error
//!   texts and block status, which are written to a buffer of the caller.
//! * Whoever debugs a handshake is told what passes, by `tracing`; nothing else is logged.
//! * All integers on the wire are big-endian; all sizes are in bytes.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod client;
pub mod errno;
#[doc(hidden)]
pub mod fuzzing;
pub mod names;
pub mod proto;
pub mod server;
pub mod uri;
mod violation;
mod wire;

pub use proto::Mode;
pub use violation::Violation;
pub use wire::Head;
