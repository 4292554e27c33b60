//! The event loops of blkit: io_uring, epoll, and a simulated one.
//!
//! [`Loop`] drives a [`block::Reactor`]: tasks, timers, pools of threads, and through [`Io`] the
//! kernel. This crate is the island of system calls and their `unsafe`; what it offers is safe, so
//! that the sources, exports and commands above it need none of their own.
//!
//! | module | what |
//! | --- | --- |
//! | `event_loop` | [`Loop`]: the turn |
//! | `reactors` | [`Reactors`]: loops on threads |
//! | `executor`, `timer`, `pools`, `wake` | tasks, timers, threads, waking |
//! | `io`, `table` | operations in flight and who owns their memory |
//! | `uring`, `poll` | the two drivers |
//! | `stream`, `batch`, `listener` | [`Stream`], [`SendBatch`], [`Listener`] |
//! | `descriptors`, `peer_event` | [`FdStream`]: Unix sockets that descriptors come through; [`PeerEvent`] |
//! | `packets` | [`Packets`]: descriptors of whole packets |
//! | `file`, `mapping` | [`IoFile`], [`Mapping`] |
//! | [`fuse`] | mounting FUSE file systems |
//! | [`blkdev`], [`process`] | block devices' ioctls; processes, signals, privileges |
//! | [`sim`] | virtual time, seeded order |
//!
//! Linux only, for now; the poll driver is where another system would begin.

mod batch;
pub mod blkdev;
#[cfg(feature = "tokio")]
pub mod bridge;
pub mod daemon;
mod descriptors;
mod event_loop;
mod executor;
mod file;
pub mod fuse;
mod io;
mod listener;
mod mapping;
mod packets;
mod peer_event;
mod poll;
mod pools;
pub mod process;
mod reactors;
pub mod sim;
mod stream;
mod sys;
mod table;
mod timer;
mod uring;
mod wake;

pub use batch::SendBatch;
pub use descriptors::{FdRemote, FdStream};
pub use event_loop::{DriverKind, Island, Loop, Options, Progress, RingMode, Stats, Wait};
pub use file::{FileOptions, FileVerb, IoFile};
pub use io::Io;
pub use listener::{Accepted, ListenAddress, Listener};
pub use mapping::{Mapping, lock_in_memory, sealed_memory};
pub use packets::Packets;
pub use peer_event::PeerEvent;
pub use pools::Pools;
pub use reactors::Reactors;
pub use stream::Stream;
