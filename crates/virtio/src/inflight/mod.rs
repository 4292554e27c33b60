//! The in-flight log: what a device had taken and not given back, in memory that outlives it.
//!
//! **What.** The layouts of vhost-user's "Inflight I/O tracking", for split and packed rings. A device
//! notes each chain as it takes it and clears it once the guest can see it used; the device that comes
//! after a crash does again what was noted, in the order in which it was taken.
//!
//! **Why so.** The log is memory the front-end holds and may write to. It is read once, when it is
//! opened, every number checked; from then on it is only written, from private state.
//!
//! **Contract.** At any instant a crash leaves each chain either used or in the log. A chain that was
//! in the log may have been carried out already: doing it again must be harmless.

mod packed;
mod split;

pub(crate) use packed::{Logged, Packed, Place};
pub(crate) use split::Split;

/// The layout's version.
const VERSION: u16 = 1;

/// Regions of several queues lie behind one another at multiples of this, in bytes.
pub const ALIGNMENT: usize = 64;

// Both layouts: features u64, version u16, descriptors u16.
const AT_VERSION: usize = 8;
const AT_COUNT: usize = 10;

/// Bytes of one queue's log, rounded up to [`ALIGNMENT`].
pub fn length(packed: bool, size: u16) -> usize {
    let bytes = if packed {
        packed::length(size)
    } else {
        split::length(size)
    };
    bytes.next_multiple_of(ALIGNMENT)
}

use crate::{memory::Area, ring::SetupError};

/// Checks a log's head. False if it was never used.
fn check_head(area: &Area, size: u16, length: usize) -> Result<bool, SetupError> {
    if area.len() < length {
        return Err(SetupError::Inflight("it is too short"));
    }
    if !area.is_aligned(8) {
        return Err(SetupError::Inflight("it is not aligned"));
    }
    let count = area.load16(AT_COUNT);
    match area.load16(AT_VERSION) {
        0 if count == 0 || count == size => Ok(false),
        VERSION if count == size => Ok(true),
        0 | VERSION => Err(SetupError::Inflight("it is for a queue of another size")),
        _ => Err(SetupError::Inflight("its version is unknown")),
    }
}

#[cfg(test)]
mod tests;
