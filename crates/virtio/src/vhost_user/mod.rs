//! The vhost-user protocol, both ends, as state machines over bytes and descriptors.
//!
//! **What.** [`proto`] has the numbers; [`Message`], [`Reply`] and [`BackMessage`] are what may be
//! said, typed; [`Backend`] is the end that has the device, [`Frontend`] the end that has the guest,
//! and [`BackChannel`] and [`BackRequests`] are the two ends of the channel on which the back-end
//! asks. The text followed is QEMU's `docs/interop/vhost-user` ("spec" in these pages, with the
//! section's title).
//!
//! **Why so.** Nothing here reads a socket or maps memory: an event loop, a blocking program, a test
//! with scripted splits and a fuzzer drive the same code. The type of a descriptor is a parameter
//! (`F`): `OwnedFd` where there is a kernel, a number where there is none.
//!
//! **Contract.**
//! * No input of a peer panics, overflows or allocates more than it has sent; the bounds are
//!   [`proto::MAX_PAYLOAD`] and [`proto::MAX_FDS`].
//! * Descriptors belong to the message whose bytes they came with. Which message that is can only be
//!   told if no more bytes are received at once than `wanted` says, because the kernel does not tell
//!   at which byte of a receive descriptors came. Descriptors that nobody takes are dropped, which
//!   closes them.
//! * What a peer may not do is refused with an error in a reply, where there is one. Where there is
//!   none, the peer would go on as if it had been done; so it is a [`Violation`], and the connection
//!   ends.
//! * A back-end handles one message at a time, in order: while an answer is due nothing is consumed.

mod assembler;
mod back_channel;
mod backend;
#[cfg(test)]
mod backend_tests;
mod frontend;
#[cfg(test)]
mod frontend_tests;
#[doc(hidden)]
pub mod fuzzing;
mod memory_table;
mod message;
mod payload;
pub mod proto;
mod reply;
mod violation;
mod vring;
mod wire;

pub use assembler::{Frame, Outgoing};
pub use back_channel::{BackChannel, BackEvent, BackMessage, BackRequests};
pub use backend::{Backend, Event, Offer, Refused, VringSetup};
pub use frontend::{FrontEvent, Frontend, Limits, Ticket, Wants};
pub use message::Message;
pub use payload::{
    ConfigRange, DeviceState, InflightArea, Iotlb, LogArea, MemoryRegion, ShmemMap, VringAddress,
    VringArea, VringFd, VringState,
};
pub use reply::{Reply, ReplyKind};
pub use violation::Violation;
