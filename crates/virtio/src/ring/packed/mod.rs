//! Packed virtqueues (specification, 2.8).

mod device;
mod driver;

pub use device::Device;
pub use driver::Driver;

use super::{DESC, QUEUE_SIZE_MAX, SetupError};
use crate::memory::Area;

/// Descriptor flag: the driver's wrap counter when it was made available.
const AVAIL: u16 = 1 << 7;
/// Descriptor flag: the device's wrap counter when it was used.
const USED: u16 = 1 << 15;

/// Event suppression: events are wanted, are not, or for one descriptor.
const ENABLE: u16 = 0;
const DISABLE: u16 = 1;
const DESCRIPTOR: u16 = 2;

/// Alignments of descriptor ring, driver and device event suppression, in bytes.
pub const ALIGNMENTS: [usize; 3] = [16, 4, 4];

/// Bytes of descriptor ring, driver and device event suppression.
pub fn lengths(size: u16) -> [usize; 3] {
    [16 * usize::from(size), 4, 4]
}

/// The base of a new ring: the first descriptor, with both wrap counters 1.
pub const START: u32 = 0x8000_8000;

fn check_size(size: u16) -> Result<(), SetupError> {
    if size == 0 || size > QUEUE_SIZE_MAX {
        return Err(SetupError::Size(size));
    }
    Ok(())
}

/// A place in the ring, with the wrap counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    index: u16,
    wrap: bool,
}

impl Place {
    const START: Place = Place {
        index: 0,
        wrap: true,
    };

    /// From 16 bits of a ring's base.
    fn parse(bits: u16, size: u16) -> Result<Place, SetupError> {
        let (index, wrap) = (bits & 0x7fff, bits >> 15 == 1);
        if index >= size {
            return Err(SetupError::Base);
        }
        Ok(Place { index, wrap })
    }

    /// As 16 bits: of a ring's base, and of an event.
    fn bits(self) -> u16 {
        self.index | u16::from(self.wrap) << 15
    }

    /// So many descriptors on; at most `size`.
    #[inline]
    fn advance(self, n: u16, size: u16) -> Place {
        let index = u32::from(self.index) + u32::from(n);
        if index >= u32::from(size) {
            Place {
                index: (index - u32::from(size)) as u16,
                wrap: !self.wrap,
            }
        } else {
            Place {
                index: index as u16,
                wrap: self.wrap,
            }
        }
    }

    /// The flags of a descriptor that is available here.
    #[inline]
    fn available(self) -> u16 {
        if self.wrap { AVAIL } else { USED }
    }

    /// The flags of a descriptor that is used here.
    #[inline]
    fn used(self) -> u16 {
        if self.wrap { AVAIL | USED } else { 0 }
    }

    /// Where the descriptor is, in bytes.
    #[inline]
    fn offset(self) -> usize {
        usize::from(self.index) * DESC
    }
}

/// The second word of a descriptor: it is read and written whole, so that flags never come without
/// length and id.
#[inline]
fn word(len: u32, id: u16, flags: u16) -> u64 {
    u64::from(len) | u64::from(id) << 32 | u64::from(flags) << 48
}

/// The flags of a second word.
#[inline]
fn flags(word: u64) -> u16 {
    (word >> 48) as u16
}

/// Whether the other side wants an event, now that we went `count` descriptors on, to `place`.
fn wants_event(suppression: &Area, event_index: bool, place: Place, count: u16, size: u16) -> bool {
    let word = suppression.load32(0);
    let (event, flags) = (word as u16, (word >> 16) as u16);
    match flags & 3 {
        DISABLE => false,
        DESCRIPTOR if event_index => {
            // All as if the ring went on without end.
            let mut at = event & 0x7fff;
            if (event >> 15 == 1) != place.wrap {
                at = at.wrapping_sub(size);
            }
            super::passed(at, place.index, place.index.wrapping_sub(count))
        }
        _ => true,
    }
}

/// Says from when on we want events.
fn want_events(suppression: &Area, event_index: bool, place: Place) {
    let word = if event_index {
        u32::from(place.bits()) | u32::from(DESCRIPTOR) << 16
    } else {
        u32::from(ENABLE) << 16
    };
    suppression.store32(0, word);
}

/// Says that we want no events.
fn want_no_events(suppression: &Area) {
    suppression.store32(0, u32::from(DISABLE) << 16);
}
