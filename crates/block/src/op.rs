//! What a request asks for: operations, sets of operations, flags.

use std::fmt;

/// One operation on a device.
///
/// Offsets and lengths are bytes. The names are those of the NBD, virtio-blk and NVMe
/// specifications.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Op {
    /// Read `len` bytes.
    Read,
    /// Write `len` bytes.
    Write,
    /// Make every write that has completed on this device durable.
    Flush,
    /// Make the range read as zeroes (NBD_CMD_WRITE_ZEROES, VIRTIO_BLK_T_WRITE_ZEROES).
    WriteZeroes,
    /// The range's contents are no longer needed (trim, unmap); it may read as anything after.
    Discard,
    /// Bring the range nearer (NBD_CMD_CACHE): a hint, no data moves to the caller.
    Cache,
    /// Report the allocation state of the range (NBD_CMD_BLOCK_STATUS).
    Extents,
    /// Discard so that the old contents cannot be had back (VIRTIO_BLK_T_SECURE_ERASE).
    SecureErase,
    /// Report zones of a zoned device.
    ZoneReport,
    /// Append to a zone; the device picks the offset.
    ZoneAppend,
    /// Open, close, finish or reset a zone.
    ZoneManage,
    /// The device's 20-byte identity string (VIRTIO_BLK_T_GET_ID).
    GetId,
    /// Wear information (VIRTIO_BLK_T_GET_LIFETIME).
    GetLifetime,
}

impl Op {
    /// Every operation, in declaration order.
    pub const ALL: [Op; 13] = [
        Op::Read,
        Op::Write,
        Op::Flush,
        Op::WriteZeroes,
        Op::Discard,
        Op::Cache,
        Op::Extents,
        Op::SecureErase,
        Op::ZoneReport,
        Op::ZoneAppend,
        Op::ZoneManage,
        Op::GetId,
        Op::GetLifetime,
    ];

    /// How many operations there are: the length of per-operation tables.
    pub const COUNT: usize = Self::ALL.len();

    /// The operation changes the device's contents, so a read-only device refuses it.
    pub const fn modifies(self) -> bool {
        matches!(
            self,
            Op::Write
                | Op::WriteZeroes
                | Op::Discard
                | Op::SecureErase
                | Op::ZoneAppend
                | Op::ZoneManage
        )
    }

    /// The operation names a byte range that must lie inside the device.
    pub const fn has_range(self) -> bool {
        !matches!(self, Op::Flush | Op::GetId | Op::GetLifetime)
    }

    /// The field's short name of the operation, as logs and options write it.
    pub const fn name(self) -> &'static str {
        match self {
            Op::Read => "read",
            Op::Write => "write",
            Op::Flush => "flush",
            Op::WriteZeroes => "zero",
            Op::Discard => "discard",
            Op::Cache => "cache",
            Op::Extents => "extents",
            Op::SecureErase => "secure-erase",
            Op::ZoneReport => "zone-report",
            Op::ZoneAppend => "zone-append",
            Op::ZoneManage => "zone-manage",
            Op::GetId => "get-id",
            Op::GetLifetime => "get-lifetime",
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of operations.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct OpSet(u16);

impl OpSet {
    /// No operation.
    pub const NONE: OpSet = OpSet(0);
    /// Every operation that exists.
    pub const ALL: OpSet = OpSet((1 << Op::COUNT) - 1);
    /// Reading: read, cache, extents, and what only asks about the device.
    pub const READ_ONLY: OpSet = OpSet::of(&[Op::Read, Op::Cache, Op::Extents, Op::GetId]);
    /// What an ordinary disk does: everything but zones, secure erase and lifetime.
    pub const DISK: OpSet = OpSet::of(&[
        Op::Read,
        Op::Write,
        Op::Flush,
        Op::WriteZeroes,
        Op::Discard,
        Op::Cache,
        Op::Extents,
        Op::GetId,
    ]);

    /// The set of these operations.
    pub const fn of(ops: &[Op]) -> OpSet {
        let mut bits = 0;
        let mut i = 0;
        while i < ops.len() {
            bits |= 1 << ops[i] as u16;
            i += 1;
        }
        OpSet(bits)
    }

    /// Is the operation in the set?
    #[inline]
    pub const fn contains(self, op: Op) -> bool {
        self.0 & (1 << op as u16) != 0
    }

    /// The set with the operation added.
    pub const fn with(self, op: Op) -> OpSet {
        OpSet(self.0 | 1 << op as u16)
    }

    /// The set with the operation removed.
    pub const fn without(self, op: Op) -> OpSet {
        OpSet(self.0 & !(1 << op as u16))
    }

    /// The operations that are in both sets.
    pub const fn and(self, other: OpSet) -> OpSet {
        OpSet(self.0 & other.0)
    }

    /// The operations of the set, in declaration order.
    pub fn iter(self) -> impl Iterator<Item = Op> {
        Op::ALL.into_iter().filter(move |&op| self.contains(op))
    }
}

impl fmt::Debug for OpSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Modifiers of a request.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(u8);

impl Flags {
    /// No modifier.
    pub const NONE: Flags = Flags(0);
    /// Force unit access: complete only when this request's own data is durable.
    pub const FUA: Flags = Flags(1);
    /// Write zeroes, but keep the range allocated (NBD_CMD_FLAG_NO_HOLE).
    pub const NO_HOLE: Flags = Flags(2);
    /// Write zeroes only if it is faster than writing them: else fail with `ENOTSUP`, quickly.
    pub const FAST_ZERO: Flags = Flags(4);
    /// Extents: one extent is enough (NBD_CMD_FLAG_REQ_ONE).
    pub const REQ_ONE: Flags = Flags(8);

    /// All flags of `other` are set.
    #[inline]
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both together.
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// These without those of `other`.
    pub const fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }
}

impl std::ops::BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        self.with(other)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Flags::FUA, "FUA"),
            (Flags::NO_HOLE, "NO_HOLE"),
            (Flags::FAST_ZERO, "FAST_ZERO"),
            (Flags::REQ_ONE, "REQ_ONE"),
        ];
        f.debug_set()
            .entries(
                names
                    .iter()
                    .filter(|(flag, _)| self.contains(*flag))
                    .map(|n| n.1),
            )
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_what_was_put_in() {
        let set = OpSet::of(&[Op::Read, Op::Flush]);
        assert!(set.contains(Op::Read) && set.contains(Op::Flush) && !set.contains(Op::Write));
        assert_eq!(set.iter().collect::<Vec<_>>(), [Op::Read, Op::Flush]);
        assert_eq!(set.with(Op::Write).without(Op::Write), set);
        assert_eq!(OpSet::ALL.iter().count(), Op::COUNT);
        assert!(!OpSet::READ_ONLY.iter().any(Op::modifies));
    }

    #[test]
    fn flags_combine() {
        let flags = Flags::FUA | Flags::NO_HOLE;
        assert!(flags.contains(Flags::FUA) && !flags.contains(Flags::FAST_ZERO));
        assert_eq!(flags.without(Flags::FUA), Flags::NO_HOLE);
        assert_eq!(format!("{flags:?}"), r#"{"FUA", "NO_HOLE"}"#);
    }
}
