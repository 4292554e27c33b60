//! What is known about a disk, and how requests are modified.

use std::fmt;

use block::{Op, Support};

/// Limits and abilities of a disk. All sizes are in bytes.
///
/// Requests of any offset and length are taken, and done by several where they have to be; the sizes
/// say what is done best.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Size of the disk.
    pub size: u64,
    /// Offsets and lengths that are multiples of this are served best; a power of two.
    pub preferred_block: u32,
    /// The longest single read or write; longer ones are done in parts.
    pub max_transfer: u32,
    /// It cannot be changed.
    pub read_only: bool,
    /// [`Disk::flush`](crate::Disk::flush) works.
    pub can_flush: bool,
    /// [`Disk::write_zeroes`](crate::Disk::write_zeroes) works.
    pub can_write_zeroes: bool,
    /// [`Disk::discard`](crate::Disk::discard) works.
    pub can_discard: bool,
    /// [`Disk::extents`](crate::Disk::extents) works.
    pub can_extents: bool,
    /// [`Flags::FUA`] works.
    pub can_fua: bool,
    /// [`Flags::FAST_ZERO`] works.
    pub can_fast_zero: bool,
    /// A flush here covers what was written to the same disk by others (NBD_FLAG_CAN_MULTI_CONN).
    pub multi_conn: bool,
    /// The medium rotates: seeks are dear.
    pub rotational: bool,
}

impl Limits {
    pub(crate) fn of(limits: &block::Limits) -> Limits {
        let offered = limits.offered();
        Limits {
            size: limits.size,
            preferred_block: limits.preferred_block,
            max_transfer: limits.max_transfer,
            read_only: limits.read_only(),
            can_flush: offered.contains(Op::Flush),
            can_write_zeroes: offered.contains(Op::WriteZeroes),
            can_discard: offered.contains(Op::Discard),
            can_extents: offered.contains(Op::Extents),
            can_fua: limits.fua != Support::None,
            can_fast_zero: limits.fast_zero,
            multi_conn: limits.multi_conn,
            rotational: limits.rotational,
        }
    }
}

/// A range of a disk in one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Length in bytes, never 0.
    pub len: u64,
    /// Nothing is allocated for it.
    pub hole: bool,
    /// It reads as zeroes.
    pub zero: bool,
}

/// Modifiers of writes and of writing zeroes.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub(crate) block::Flags);

impl Flags {
    /// None.
    pub const NONE: Flags = Flags(block::Flags::NONE);
    /// Force unit access: complete only when this request's own data is on the medium.
    pub const FUA: Flags = Flags(block::Flags::FUA);
    /// Zeroes: keep the range allocated.
    pub const NO_HOLE: Flags = Flags(block::Flags::NO_HOLE);
    /// Zeroes: only if that is faster than writing them, else fail at once
    /// ([`Unsupported`](crate::ErrorKind::Unsupported)).
    pub const FAST_ZERO: Flags = Flags(block::Flags::FAST_ZERO);
}

impl std::ops::BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
