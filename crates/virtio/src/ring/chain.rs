//! A chain of descriptors, as a device takes it: copied, translated, bounded.

use super::{DESC, DESC_INDIRECT, DESC_NEXT, DESC_WRITE};
use crate::memory::{Memory, Segment};

/// What is wrong inside a chain. The queue goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A buffer is not in guest memory.
    #[error("a buffer is outside of guest memory")]
    Address,
    /// A readable buffer stands behind a writable one.
    #[error("a readable buffer stands behind a writable one")]
    Order,
    /// More than 4 GiB, or more pieces than allowed.
    #[error("a chain is too long")]
    TooLong,
    /// Indirect descriptors were not agreed upon.
    #[error("an indirect descriptor without the feature")]
    NotAgreed,
    /// An indirect table in an indirect table, or one that is not the last of its chain.
    #[error("an indirect table in a wrong place")]
    Nested,
    /// The length of an indirect table is no multiple of 16, 0, or too large.
    #[error("an indirect table of a wrong length")]
    TableLength,
    /// A table's descriptor leads out of it, or round and round.
    #[error("an indirect table with a broken chain")]
    TableChain,
}

/// How descriptors in an indirect table follow each other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TableKind {
    /// By their `next`, as long as they have the flag.
    Split,
    /// One after the other, to the end.
    Packed,
}

/// A chain. Made once and used again for every pop.
#[derive(Debug, Default)]
pub struct Chain {
    segments: Vec<Segment>,
    /// The readable segments are those from here ...
    first: usize,
    /// ... to here; then the writable ones follow.
    readable: usize,
    readable_len: u32,
    writable_len: u32,
    fault: Option<Fault>,
    /// Whether the last descriptor was good: the place for a status, even with a fault elsewhere.
    last_good: bool,
    most: usize,
}

impl Chain {
    /// A chain without anything.
    pub fn new() -> Chain {
        Chain::default()
    }

    /// What is wrong, if anything is.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// The pieces the device reads.
    #[inline]
    pub fn readable(&self) -> &[Segment] {
        &self.segments[self.first..self.readable]
    }

    /// The pieces the device writes.
    #[inline]
    pub fn writable(&self) -> &[Segment] {
        &self.segments[self.readable..]
    }

    /// Bytes the device reads.
    #[inline]
    pub fn readable_len(&self) -> u32 {
        self.readable_len
    }

    /// Bytes the device may write.
    #[inline]
    pub fn writable_len(&self) -> u32 {
        self.writable_len
    }

    /// Begins anew; a chain may have so many pieces.
    #[inline]
    pub(super) fn begin(&mut self, most: usize) {
        self.segments.clear();
        (self.first, self.readable) = (0, 0);
        (self.readable_len, self.writable_len) = (0, 0);
        (self.fault, self.last_good) = (None, false);
        self.most = most;
    }

    /// Notes a fault; the first one counts.
    #[cold]
    pub(super) fn fail(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
        self.last_good = false;
    }

    /// Adds a direct descriptor's buffer.
    #[inline]
    pub(super) fn add(&mut self, memory: &Memory, address: u64, len: u32, writable: bool) {
        // Nothing can be done with nothing; some drivers make such descriptors.
        if len == 0 {
            return;
        }
        if !writable && self.writable_len != 0 {
            return self.fail(Fault::Order);
        }
        let total = u64::from(self.readable_len) + u64::from(self.writable_len) + u64::from(len);
        if total > u64::from(u32::MAX) || self.segments.len() >= self.most {
            return self.fail(Fault::TooLong);
        }
        match memory.segment(address, len) {
            Some(segment) => self.segments.push(segment),
            // A chain that failed is not worth a long search a second time.
            None if self.fault.is_some() => return self.fail(Fault::Address),
            None => {
                if !self.add_pieces(memory, address, len) {
                    return;
                }
            }
        }
        self.last_good = true;
        if writable {
            self.writable_len += len;
        } else {
            self.readable_len += len;
            self.readable = self.segments.len();
        }
    }

    /// Adds a buffer that crosses regions, or faults and adds nothing.
    #[cold]
    fn add_pieces(&mut self, memory: &Memory, address: u64, len: u32) -> bool {
        let (before, most) = (self.segments.len(), self.most);
        let segments = &mut self.segments;
        let mut fits = true;
        let whole = memory.segments(address, len, |piece| {
            fits = segments.len() < most;
            if fits {
                segments.push(piece);
            }
            fits
        });
        if !whole {
            self.segments.truncate(before);
            let fault = if fits { Fault::Address } else { Fault::TooLong };
            self.fail(fault);
        }
        whole
    }

    /// Adds the buffers of an indirect table of `len` bytes, each of whose descriptors is read once.
    pub(super) fn add_table(
        &mut self,
        memory: &Memory,
        address: u64,
        len: u32,
        table_max: u16,
        kind: TableKind,
    ) {
        let count = len / DESC as u32;
        if !len.is_multiple_of(DESC as u32) || count == 0 || count > u32::from(table_max) {
            return self.fail(Fault::TableLength);
        }
        let mut index = 0;
        // No chain in the table is longer than the table.
        for _ in 0..count {
            let mut bytes = [0; DESC];
            // Inside the table, whose end may still be beyond the last address.
            let at = address.checked_add(u64::from(index) * DESC as u64);
            if !at.is_some_and(|at| memory.read(at, &mut bytes)) {
                return self.fail(Fault::Address);
            }
            let word = u128::from_le_bytes(bytes);
            let (address, len) = (word as u64, (word >> 64) as u32);
            // Split: flags, next. Packed: id, flags.
            let (low, high) = ((word >> 96) as u16, (word >> 112) as u16);
            let flags = if kind == TableKind::Split { low } else { high };
            if flags & DESC_INDIRECT != 0 {
                return self.fail(Fault::Nested);
            }
            self.add(memory, address, len, flags & DESC_WRITE != 0);
            match kind {
                TableKind::Packed => index += 1,
                TableKind::Split if flags & DESC_NEXT == 0 => return,
                TableKind::Split => index = u32::from(high),
            }
            if index >= count {
                if kind == TableKind::Split {
                    self.fail(Fault::TableChain);
                }
                return;
            }
        }
        self.fail(Fault::TableChain);
    }

    /// Copies the first readable bytes out and takes them off. False, and nothing, if there are fewer.
    #[inline]
    pub(crate) fn take_front(&mut self, memory: &Memory, into: &mut [u8]) -> bool {
        let len = into.len();
        if (self.readable_len as usize) < len {
            return false;
        }
        let mut at = 0;
        while at < len {
            let piece = self.segments[self.first];
            let now = (piece.len() as usize).min(len - at);
            if !memory.read(piece.guest(), &mut into[at..at + now]) {
                return false;
            }
            at += now;
            if now == piece.len() as usize {
                self.first += 1;
            } else {
                self.segments[self.first] = piece.skip(now as u32);
            }
        }
        self.readable_len -= len as u32;
        true
    }

    /// Takes the last writable byte off: the place of a status.
    #[inline]
    pub(crate) fn take_last(&mut self) -> Option<u64> {
        if self.writable_len == 0 || !self.last_good {
            return None;
        }
        let last = self.segments.last_mut()?;
        let rest = last.len() - 1;
        let address = last.guest() + u64::from(rest);
        match rest {
            0 => drop(self.segments.pop()),
            _ => *last = last.first(rest),
        }
        self.writable_len -= 1;
        Some(address)
    }
}
