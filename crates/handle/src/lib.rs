//! One connection to an NBD server, with the calls of libnbd.
//!
//! **What.** A [`Handle`] has libnbd 1.24's calls, each with the semantics of its manual page and the
//! name without `nbd_`: `nbd_pread` is [`Handle::pread`]. The C library, the Python module and the
//! Rust API are thin layers over it.
//!
//! **Why so.** The protocol is the machine of [`nbd::client`]; this crate drives it with poll(2) on the
//! caller's thread. There is no thread of ours, no event loop, and no descriptor but the socket and an
//! eventfd(2) that threads wake each other by. So a handle may be used from any thread, from any foreign
//! loop, and in the child after a fork(2) by whoever has it to himself.
//!
//! **Contract.**
//! * Every call is atomic. The lock is never held while the thread sleeps: others may submit commands meanwhile.
//! * A call in a state in which it is not permitted fails, and changes nothing.
//! * A command whose submission succeeded is completed exactly once: by the server's reply, or with
//!   `ENOTCONN` when the connection ends or the handle is dropped. Its completion callback is called then, once.
//! * The caller's memory is filled in place, and belongs to the handle from the call until the completion.
//! * A server that breaks the protocol ends this connection with an error that says how, and
//!   nothing more. It cannot make the handle read or write outside of the caller's memory, hold more
//!   than one chunk of block status (16 MiB), or panic.
//! * A child process that was started for a handle does not outlive it.
//! * Errors carry libnbd's whole message, with the name of the C function ([`Error`]).
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod aio;
mod buffer;
mod callback;
mod child;
mod commands;
mod connect;
mod constants;
mod dial;
mod error;
mod export;
mod flight;
mod handle;
mod inner;
mod negotiate;
mod negotiation;
mod options;
mod settings;
mod state;
mod submit;
mod transmit;
mod uri;
mod wire;

pub use buffer::{ReadBuffer, WriteBuffer};
pub use callback::{
    ChunkCallback, CompletionCallback, ContextCallback, DebugCallback, Extent, Extent64Callback,
    ExtentCallback, ListCallback,
};
pub use connect::SocketError;
pub use constants::*;
pub use error::{Error, Result};
pub use handle::Handle;
