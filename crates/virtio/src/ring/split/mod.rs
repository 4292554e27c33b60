//! Split virtqueues (specification, 2.7).

mod device;
mod driver;

pub use device::Device;
pub use driver::Driver;

use super::{QUEUE_SIZE_MAX, SetupError};

/// In the available ring: the device need not call.
const NO_INTERRUPT: u16 = 1;
/// In the used ring: the driver need not kick.
const NO_NOTIFY: u16 = 1;

/// Where flags, index and entries of the available and the used ring are.
const FLAGS: usize = 0;
const INDEX: usize = 2;
const ENTRIES: usize = 4;

/// Alignments of descriptor table, available and used ring, in bytes.
pub const ALIGNMENTS: [usize; 3] = [16, 2, 4];

/// Bytes of descriptor table, available and used ring.
pub fn lengths(size: u16) -> [usize; 3] {
    let size = usize::from(size);
    [16 * size, 6 + 2 * size, 6 + 8 * size]
}

/// Where the available ring's event index is; the used ring's is [`avail_event`].
const fn used_event(size: u16) -> usize {
    ENTRIES + 2 * size as usize
}

const fn avail_event(size: u16) -> usize {
    ENTRIES + 8 * size as usize
}

fn check_size(size: u16) -> Result<(), SetupError> {
    if size > QUEUE_SIZE_MAX || !size.is_power_of_two() {
        return Err(SetupError::Size(size));
    }
    Ok(())
}
