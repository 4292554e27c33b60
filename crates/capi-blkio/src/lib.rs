//! `libblkio.so.1`: the C interface of libblkio 1.5 over [`blkio::Blkio`].
//!
//! Why a layer of its own: C's rules (pointers, memory from malloc, an error message for each thread,
//! arrays without values) and the disks are different matters. What a disk does, in which state and
//! with which error, is the business of the crate `blkio`; what the compiler cannot check is here.
//!
//! Contract: what `include/blkio.h` says. A NULL where there must be something is an error with EINVAL
//! where a call can return one, and ignored where it cannot. No panic gets out: it is an error of the
//! call, or ends the program where there is no error to return. The symbols are those of
//! `libblkio.map`; they have no versions.

#![allow(clippy::missing_safety_doc)] // what C must keep to stands in blkio.h

mod error;
mod life;
mod memory;
mod param;
mod property;
mod queues;
mod requests;
mod waiting;

use ::blkio::Blkio;
pub use error::{blkio_get_error_msg, blkio_get_error_msg_, blkio_set_error_msg_};
pub use life::*;
pub use memory::*;
pub use property::*;
pub use queues::*;
pub use requests::*;
pub use waiting::*;

/// What C sees of an instance: nothing.
#[allow(non_camel_case_types)]
pub struct blkio {
    // Before the disk: they are its.
    queues: queues::Handed,
    poll_queues: queues::Handed,
    disk: Blkio,
}

/// What C sees of a queue: nothing.
#[allow(non_camel_case_types)]
pub struct blkioq {
    queue: ::blkio::Queue,
}
