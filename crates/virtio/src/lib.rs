//! virtio: rings, virtio-blk and vhost-user, both ends.
//!
//! **What.** The queues of the virtio specification (version 1.3), split and packed, as a device sees
//! them and as a driver sees them; the memory they lie in; the requests of a block device.
//!
//! **Why so.** These are state machines over shared memory: no thread, no event loop, no block layer.
//! Whoever waits for kicks and does the I/O calls them. The other side of the memory is hostile.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod blk;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod inflight;
pub mod memory;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod rig;
pub mod ring;
pub mod sigbus;
pub mod vhost_user;
