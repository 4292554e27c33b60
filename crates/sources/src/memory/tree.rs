//! A sparse array of pages: a tree of tables, as a CPU's page table is.
//!
//! *Why this shape.* Tables are made when first needed and never taken away, so the way down is plain
//! atomic loads ([`OnceLock`]) without a lock. Only the last step, the slot of one page, has a lock of
//! its own: a page may be given back (discard) while another thread reads it. Two threads meet on it
//! only when they touch the same page at the same instant.
//!
//! *Contract.* What a page is, its user says (`T`): bytes, or bytes in a smaller form. The tree knows
//! which pages are there, and that is what extents are made of.
//!
//! *Cost.* A table of plain pages is 24 KiB (1024 slots) for 64 MiB of disk. A disk of 10 GiB has two
//! levels, one of 2^63 - 1 bytes has five.

use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use block::{ExtentFlags, ExtentList};

/// Entries per table: 2^10.
const BITS: u32 = 10;
const FAN_OUT: usize = 1 << BITS;

/// Slots looked at for one extents query: about 200 us. The rest is left to the next query.
const LOOK: usize = 16_384;

/// A place for a page.
pub(super) type Slot<T> = RwLock<Option<T>>;

/// The pages, of `PAGE` bytes each, of one disk.
pub(super) struct Tree<T, const PAGE: usize> {
    root: Table<T>,
    /// Levels of tables above the last.
    levels: u32,
    size: u64,
}

/// One table: of tables below, or of pages. The other list is empty.
struct Table<T> {
    below: Box<[OnceLock<Box<Table<T>>>]>,
    slots: Box<[Slot<T>]>,
}

/// What is known about a page.
pub(super) enum Found<'a, T> {
    Slot(&'a Slot<T>),
    /// No page before this number is there.
    NothingBefore(u64),
}

/// The part of a range that lies in one page, or in pages that are not there.
pub(super) struct Part<'a, T> {
    /// Its first byte on the disk.
    pub at: u64,
    /// Where in the page it begins.
    pub skip: usize,
    /// How many bytes it has.
    pub len: u64,
    /// The place of its page; `None`: nothing is there.
    pub slot: Option<&'a Slot<T>>,
}

impl<T, const PAGE: usize> Tree<T, PAGE> {
    /// An empty disk of `size` bytes. `None` when memory is exhausted.
    pub fn new(size: u64) -> Option<Self> {
        let pages = size.div_ceil(PAGE as u64);
        let mut levels = 0;
        while pages > (FAN_OUT as u64) << (levels * BITS) {
            levels += 1;
        }
        let entries = pages.div_ceil(1 << (levels * BITS)) as usize;
        Some(Self {
            root: Table::new(levels, entries)?,
            levels,
            size,
        })
    }

    /// The range page by page; what is not there comes in long parts.
    #[inline]
    pub fn parts(&self, offset: u64, len: u64) -> impl Iterator<Item = Part<'_, T>> {
        self.check(offset, len);
        let (mut at, end) = (offset, offset + len);
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let (index, skip) = (at / PAGE as u64, (at % PAGE as u64) as usize);
            let (slot, len) = match self.find(index) {
                Found::Slot(slot) => (Some(slot), (end - at).min((PAGE - skip) as u64)),
                Found::NothingBefore(next) => (None, end.min(Self::start_of(next)) - at),
            };
            let part = Part {
                at,
                skip,
                len,
                slot,
            };
            at += len;
            Some(part)
        })
    }

    /// A part covers its page as far as the disk goes: the last page may be short.
    pub fn is_whole(&self, part: &Part<'_, T>) -> bool {
        part.skip == 0 && (part.len == PAGE as u64 || part.at + part.len == self.size)
    }

    /// Which pages of the range are there. The answer may end early, never before the first byte;
    /// with `one` it ends where the state first changes.
    pub fn extents(&self, offset: u64, len: u64, one: bool) -> ExtentList {
        self.check(offset, len);
        let (mut at, end) = (offset, offset + len);
        let mut list = ExtentList::new();
        for _ in 0..LOOK {
            if at >= end {
                break;
            }
            let index = at / PAGE as u64;
            let (there, next) = match self.find(index) {
                Found::Slot(slot) => (reading(slot).is_some(), index + 1),
                Found::NothingBefore(next) => (false, next),
            };
            let flags = if there {
                ExtentFlags::DATA
            } else {
                ExtentFlags::HOLE_ZERO
            };
            let n = end.min(Self::start_of(next)) - at;
            if !list.push(n, flags) {
                break;
            }
            if one && list.allocation().len() > 1 {
                let first = list.allocation()[0].len;
                list.truncate(first);
                break;
            }
            at += n;
        }
        list
    }

    /// Sums `f` over the pages that are there.
    #[cfg(test)]
    pub fn sum(&self, f: impl Fn(&T) -> u64) -> u64 {
        let parts = self.parts(0, self.size);
        let there = parts.filter_map(|part| reading(part.slot?).as_ref().map(&f));
        there.sum()
    }

    /// Panics if the range is not on the disk.
    pub fn check(&self, offset: u64, len: u64) {
        assert!(
            offset <= self.size && len <= self.size - offset,
            "the export has checked the range"
        );
    }

    /// The slot of a page, if the tables on the way are there.
    #[inline]
    pub fn find(&self, index: u64) -> Found<'_, T> {
        let mut table = &self.root;
        for level in (1..=self.levels).rev() {
            let entry = index >> (level * BITS);
            match table.below[entry as usize % FAN_OUT].get() {
                Some(below) => table = below,
                None => return Found::NothingBefore((entry + 1) << (level * BITS)),
            }
        }
        Found::Slot(&table.slots[index as usize % FAN_OUT])
    }

    /// The slot of a page; tables are made as needed. `None` when memory is exhausted.
    pub fn slot(&self, index: u64) -> Option<&Slot<T>> {
        let mut table = &self.root;
        for level in (1..=self.levels).rev() {
            let entry = &table.below[(index >> (level * BITS)) as usize % FAN_OUT];
            table = match entry.get() {
                Some(below) => below,
                None => {
                    let fresh = Box::new(Table::new(level - 1, FAN_OUT)?);
                    // Another thread may have been quicker: then its table is the one.
                    entry.get_or_init(|| fresh)
                }
            };
        }
        Some(&table.slots[index as usize % FAN_OUT])
    }

    /// Offset of a page's first byte; behind the last possible byte for a page that cannot be.
    fn start_of(index: u64) -> u64 {
        index.saturating_mul(PAGE as u64)
    }
}

impl<T> Table<T> {
    /// A table with `level` levels below it. `None` when memory is exhausted.
    fn new(level: u32, entries: usize) -> Option<Table<T>> {
        let (below, slots) = match level {
            0 => (Box::default(), list(entries)?),
            _ => (list(entries)?, Box::default()),
        };
        Some(Table { below, slots })
    }
}

/// `n` empty entries.
fn list<E: Default>(n: usize) -> Option<Box<[E]>> {
    let mut list = Vec::new();
    list.try_reserve_exact(n).ok()?;
    list.resize_with(n, E::default);
    Some(list.into_boxed_slice())
}

// What runs under these locks leaves a page whole whenever it could panic, so a poisoned lock is as
// good as any.

#[inline]
pub(super) fn reading<T>(slot: &Slot<T>) -> RwLockReadGuard<'_, Option<T>> {
    slot.read().unwrap_or_else(PoisonError::into_inner)
}

#[inline]
pub(super) fn writing<T>(slot: &Slot<T>) -> RwLockWriteGuard<'_, Option<T>> {
    slot.write().unwrap_or_else(PoisonError::into_inner)
}
