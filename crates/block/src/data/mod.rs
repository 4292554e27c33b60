//! The bytes of a request, and who owns them.
//!
//! A request owns its memory until it completes; nobody can drop it under the kernel or a peer.
//! [`Data`] says in which form the bytes are there. Two ends whose forms do not match are joined by
//! a copy, and every such copy is counted ([`crate::Counters::bytes_copied`]): the number to drive
//! to zero.

mod chunk;
mod mem;
mod owned;
mod segments;

pub use chunk::{Arena, BufIndex, CHUNK_ALIGN, Chunk, ChunkPool};
pub use mem::{Iov, Pin, RecvBuf, Segment, SharedBuf, SharedMem};
pub use owned::OwnedBuf;
pub use segments::{Piece, Segments};

use crate::extents::ExtentList;

/// A buffer the kernel holds and user space has no address for (ublk's registered buffers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelBuf {
    /// The ring's index of the buffer.
    pub index: BufIndex,
    /// Length in bytes.
    pub len: u32,
}

/// One zone of a zoned device, in bytes (virtio-blk 5.2.6, `struct virtio_blk_zone_descriptor`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone {
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
    /// Usable length in bytes.
    pub capacity: u64,
    /// Next byte to append at.
    pub write_pointer: u64,
    /// Zone type and state as the specification numbers them.
    pub kind: u8,
    /// Zone state as the specification numbers it.
    pub state: u8,
}

/// A request's bytes.
#[derive(Default)]
pub enum Data {
    /// There are none: flush, discard, write zeroes.
    #[default]
    None,
    /// A read whose callee picks the memory; it becomes [`Data::Given`].
    Wanted,
    /// Addresses and a pin: a write's bytes, or where a read's bytes shall go.
    Iov(Iov),
    /// What a read found: pieces of shared memory, and holes.
    Given(Segments),
    /// A buffer without an address.
    Kernel(KernelBuf),
    /// What [`crate::Op::Extents`] found.
    Extents(ExtentList),
    /// What [`crate::Op::ZoneReport`] found.
    Zones(Vec<Zone>),
    /// What [`crate::Op::GetId`] found: ASCII, padded with NUL.
    Id([u8; 20]),
}

impl Data {
    /// The addresses, if it has any.
    pub fn as_iov(&self) -> Option<&Iov> {
        match self {
            Data::Iov(iov) => Some(iov),
            _ => None,
        }
    }

    /// The pieces a read found.
    pub fn as_given(&self) -> Option<&Segments> {
        match self {
            Data::Given(segments) => Some(segments),
            _ => None,
        }
    }

    /// The extents that were found.
    pub fn as_extents(&self) -> Option<&ExtentList> {
        match self {
            Data::Extents(list) => Some(list),
            _ => None,
        }
    }

    /// Copies out what a read found, whichever form it is in. Panics unless `bytes` is as long as
    /// the read was.
    pub fn read(&self, bytes: &mut [u8]) {
        match self {
            Data::Iov(iov) => {
                assert_eq!(iov.len(), bytes.len(), "the whole read at once");
                iov.read(0, bytes);
            }
            Data::Given(segments) => segments.read(0, bytes),
            _ => panic!("this request carries no bytes"),
        }
    }
}

impl From<Iov> for Data {
    fn from(iov: Iov) -> Data {
        Data::Iov(iov)
    }
}

impl From<Segments> for Data {
    fn from(segments: Segments) -> Data {
        Data::Given(segments)
    }
}

impl std::fmt::Debug for Data {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Data::None => f.write_str("None"),
            Data::Wanted => f.write_str("Wanted"),
            Data::Iov(iov) => write!(f, "Iov({} bytes)", iov.len()),
            Data::Given(segments) => write!(f, "Given({} bytes)", segments.len()),
            Data::Kernel(buf) => buf.fmt(f),
            Data::Extents(list) => list.fmt(f),
            Data::Zones(zones) => write!(f, "Zones({})", zones.len()),
            Data::Id(id) => write!(f, "Id({})", id.escape_ascii()),
        }
    }
}
