//! What a device can do, as plain data.

use crate::op::{Op, OpSet};

/// Whether, and how, something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Support {
    /// Not at all: the operation fails with `ENOTSUP`.
    #[default]
    None,
    /// By other operations: [`crate::Normalize`] sees to it.
    Emulated,
    /// By the device itself.
    Native,
}

impl Support {
    /// It works, one way or the other.
    pub const fn is_offered(self) -> bool {
        !matches!(self, Support::None)
    }
}

/// Limits and abilities of a device. All sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Size of the device.
    pub size: u64,
    /// Every offset and length is a multiple of this power of two (1: any).
    pub min_block: u32,
    /// Offsets and lengths that are multiples of this are served best. A power of two.
    pub preferred_block: u32,
    /// Memory addresses of reads and writes are multiples of this power of two (O_DIRECT).
    pub memory_align: u32,
    /// The longest read or write.
    pub max_transfer: u32,
    /// The longest write zeroes, discard, cache or extents request.
    pub max_range: u64,
    /// How each operation is supported, by [`Op`] number.
    pub ops: [Support; Op::COUNT],
    /// Writes and write zeroes with [`crate::Flags::FUA`].
    pub fua: Support,
    /// Write zeroes with [`crate::Flags::FAST_ZERO`] is worth asking for.
    pub fast_zero: bool,
    /// A flush on one connection covers writes completed on any other (NBD_FLAG_CAN_MULTI_CONN).
    pub multi_conn: bool,
    /// The medium rotates: seeks are dear.
    pub rotational: bool,
    /// Extents of other contexts than `base:allocation` that the device reports.
    pub contexts: Vec<std::sync::Arc<str>>,
}

/// The longest read or write any device may be asked for, in bytes.
pub const MAX_TRANSFER: u32 = 32 << 20;

impl Limits {
    /// A device of `size` bytes that does `ops` natively, with no other restriction or ability.
    pub fn new(size: u64, ops: OpSet) -> Limits {
        let mut table = [Support::None; Op::COUNT];
        ops.iter()
            .for_each(|op| table[op as usize] = Support::Native);
        Limits {
            size,
            min_block: 1,
            preferred_block: 4096,
            memory_align: 1,
            max_transfer: MAX_TRANSFER,
            max_range: u64::MAX,
            ops: table,
            fua: Support::None,
            fast_zero: false,
            multi_conn: false,
            rotational: false,
            contexts: Vec::new(),
        }
    }

    /// How an operation is supported.
    #[inline]
    pub fn support(&self, op: Op) -> Support {
        self.ops[op as usize]
    }

    /// Sets how an operation is supported.
    pub fn set(&mut self, op: Op, support: Support) -> &mut Limits {
        self.ops[op as usize] = support;
        self
    }

    /// The operations that work, one way or the other.
    pub fn offered(&self) -> OpSet {
        Op::ALL
            .into_iter()
            .fold(OpSet::NONE, |set, op| match self.support(op).is_offered() {
                true => set.with(op),
                false => set,
            })
    }

    /// No operation that modifies the device is offered.
    pub fn read_only(&self) -> bool {
        !self.offered().iter().any(Op::modifies)
    }

    /// Takes away everything that is not in `ops`; FUA goes with the writes.
    pub fn mask(&mut self, ops: OpSet) {
        for op in Op::ALL {
            if !ops.contains(op) {
                self.set(op, Support::None);
            }
        }
        if !self.support(Op::Write).is_offered() && !self.support(Op::WriteZeroes).is_offered() {
            self.fua = Support::None;
        }
        if self.fua == Support::Emulated && !self.support(Op::Flush).is_offered() {
            self.fua = Support::None;
        }
        if !self.support(Op::WriteZeroes).is_offered() {
            self.fast_zero = false;
        }
    }

    /// The range lies inside the device.
    #[inline]
    pub fn contains(&self, offset: u64, len: u64) -> bool {
        offset <= self.size && len <= self.size - offset
    }

    /// Nothing here needs [`crate::Normalize`] above it.
    pub fn is_plain(&self) -> bool {
        self.min_block == 1
            && self.memory_align == 1
            && self.max_transfer >= MAX_TRANSFER
            && self.max_range == u64::MAX
            && self.fua != Support::Emulated
            && !self.ops.contains(&Support::Emulated)
    }

    /// Panics if the numbers contradict one another: called once per opened device.
    pub fn assert_valid(&self) {
        assert!(
            self.size <= i64::MAX as u64,
            "a device is smaller than 2^63 bytes"
        );
        for (name, block) in [
            ("minimum block", self.min_block),
            ("preferred block", self.preferred_block),
            ("memory alignment", self.memory_align),
        ] {
            assert!(
                block.is_power_of_two(),
                "the {name} size is a power of two, not {block}"
            );
        }
        assert!(
            self.min_block <= self.preferred_block,
            "minimum block <= preferred block"
        );
        assert!(
            self.max_transfer >= self.min_block,
            "a transfer holds a block"
        );
        assert!(
            self.max_transfer.is_multiple_of(self.min_block),
            "transfers are whole blocks"
        );
        assert!(
            self.max_range >= u64::from(self.min_block),
            "a range holds a block"
        );
        assert!(
            self.support(Op::Read).is_offered(),
            "every device can be read"
        );
        assert!(
            self.fua != Support::Emulated || self.support(Op::Flush).is_offered(),
            "FUA is emulated by a flush"
        );
        assert!(
            self.support(Op::WriteZeroes) != Support::Emulated
                || self.support(Op::Write).is_offered(),
            "write zeroes is emulated by writes"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masking_takes_fua_and_fast_zero_along() {
        let mut limits = Limits::new(1 << 20, OpSet::DISK);
        limits.fua = Support::Native;
        limits.fast_zero = true;
        assert!(limits.is_plain() && !limits.read_only());
        limits.mask(OpSet::READ_ONLY);
        assert!(limits.read_only() && !limits.fast_zero);
        assert_eq!(limits.fua, Support::None);
        limits.assert_valid();
    }

    #[test]
    fn ranges_do_not_overflow() {
        let limits = Limits::new(100, OpSet::DISK);
        assert!(limits.contains(100, 0) && limits.contains(0, 100));
        assert!(!limits.contains(u64::MAX, 2) && !limits.contains(1, u64::MAX));
    }
}
