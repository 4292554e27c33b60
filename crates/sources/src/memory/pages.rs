//! The pages of a memory disk: a tree of tables, as a CPU's page table is.
//!
//! *Why this shape.* Tables are made when first needed and never taken away, so the way down is plain
//! atomic loads ([`OnceLock`]) without a lock. Only the last step, the slot of one page, has a lock of
//! its own: a page may be given back (discard) while another thread reads it. That lock is held for
//! one reference count, about 10 ns, and is shared by readers; two threads meet on it only when they
//! touch the same 64 KiB at the same instant.
//!
//! Whoever has a page's reference copies without any lock. If the page is given back meanwhile, a
//! late write lands in memory that nobody will see: the same as if the discard came after it.
//!
//! *Cost.* A table is 24 KiB (1024 slots) for 64 MiB of disk. A disk of 10 GiB has two levels, one of
//! 2^63 - 1 bytes has five.

use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use block::{Errno, ExtentFlags, ExtentList, Iov, SharedBuf};

/// Bytes per page.
///
/// Chosen by measurement. A first write clears its whole page, mostly in page faults: 14
/// us for 32 KiB, 27 us for 64, 88 us for 128 in a small virtual machine; filling a disk from front to
/// back costs the same with all of them. A read takes 11-13 ns per page it spans, and up to two pieces
/// fit into a request without an allocation, which speaks for larger pages.
pub(super) const PAGE: usize = 64 << 10;

/// Entries per table: 2^10.
const BITS: u32 = 10;
const FAN_OUT: usize = 1 << BITS;

/// Slots looked at for one extents query: about 200 us. The rest is left to the next query.
const LOOK: usize = 16_384;

/// A place for a page.
type Slot = RwLock<Option<Arc<SharedBuf>>>;

/// The pages of one disk.
pub(super) struct Pages {
    root: Table,
    /// Levels of tables above the last.
    levels: u32,
    size: u64,
}

/// One table: of tables below, or of pages. The other list is empty.
struct Table {
    below: Box<[OnceLock<Box<Table>>]>,
    slots: Box<[Slot]>,
}

/// What is known about a page.
enum Found<'a> {
    Slot(&'a Slot),
    /// No page before this number is there.
    NothingBefore(u64),
}

impl Pages {
    /// An empty disk of `size` bytes. `None` when memory is exhausted.
    pub fn new(size: u64) -> Option<Pages> {
        let pages = size.div_ceil(PAGE as u64);
        let mut levels = 0;
        while pages > (FAN_OUT as u64) << (levels * BITS) {
            levels += 1;
        }
        let entries = pages.div_ceil(1 << (levels * BITS)) as usize;
        Some(Pages {
            root: Table::new(levels, entries)?,
            levels,
            size,
        })
    }

    /// Calls `f` with each page of the range (`None` for a hole), where in it the part begins, and
    /// how many bytes the part has.
    #[inline]
    pub fn read(
        &self,
        offset: u64,
        len: u64,
        mut f: impl FnMut(Option<Arc<SharedBuf>>, usize, u64),
    ) {
        self.check(offset, len);
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let (index, skip) = (at / PAGE as u64, (at % PAGE as u64) as usize);
            let (page, n) = match self.find(index) {
                Found::Slot(slot) => (reading(slot).clone(), (end - at).min((PAGE - skip) as u64)),
                Found::NothingBefore(next) => (None, end.min(start_of(next)) - at),
            };
            f(page, skip, n);
            at += n;
        }
    }

    /// Copies a write's bytes in.
    ///
    /// # Errors
    /// `ENOMEM`; the bytes before the page that could not be had are written.
    #[inline]
    pub fn write(&self, offset: u64, iov: &Iov) -> Result<(), Errno> {
        self.check(offset, iov.len() as u64);
        let mut done = 0;
        while done < iov.len() {
            let at = offset + done as u64;
            let (index, skip) = (at / PAGE as u64, (at % PAGE as u64) as usize);
            let n = (iov.len() - done).min(PAGE - skip);
            let page = self.page(index).ok_or(Errno::ENOMEM)?;
            iov.read_shared(done, &page, skip, n);
            done += n;
        }
        Ok(())
    }

    /// Makes a range read as zeroes. Whole pages are given back, unless `keep`.
    pub fn zero(&self, offset: u64, len: u64, keep: bool) {
        self.check(offset, len);
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let (index, skip) = (at / PAGE as u64, (at % PAGE as u64) as usize);
            let slot = match self.find(index) {
                Found::Slot(slot) => slot,
                Found::NothingBefore(next) => {
                    at = end.min(start_of(next));
                    continue;
                }
            };
            // The last page of the disk is whole when everything up to the end is zeroed.
            let stop = self.size.min(start_of(index + 1));
            let n = end.min(stop) - at;
            if skip == 0 && at + n == stop && !keep {
                let given_back = writing(slot).take();
                // Freed when the lock is free again.
                drop(given_back);
            } else if let Some(page) = reading(slot).clone() {
                page.zero(skip, n as usize);
            }
            at += n;
        }
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
            let n = end.min(start_of(next)) - at;
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

    /// Bytes of the pages that are there.
    #[cfg(test)]
    pub fn allocated(&self) -> u64 {
        let (mut index, mut count) = (0, 0);
        while index < self.size.div_ceil(PAGE as u64) {
            index = match self.find(index) {
                Found::Slot(slot) => {
                    count += u64::from(reading(slot).is_some());
                    index + 1
                }
                Found::NothingBefore(next) => next,
            };
        }
        count * PAGE as u64
    }

    fn check(&self, offset: u64, len: u64) {
        assert!(
            offset <= self.size && len <= self.size - offset,
            "the export has checked the range"
        );
    }

    /// The slot of a page, if the tables on the way are there.
    #[inline]
    fn find(&self, index: u64) -> Found<'_> {
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
    fn slot(&self, index: u64) -> Option<&Slot> {
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

    /// A page to write to. `None` when memory is exhausted.
    #[inline]
    fn page(&self, index: u64) -> Option<Arc<SharedBuf>> {
        if let Found::Slot(slot) = self.find(index)
            && let Some(page) = &*reading(slot)
        {
            return Some(page.clone());
        }
        self.make(index)
    }

    #[cold]
    fn make(&self, index: u64) -> Option<Arc<SharedBuf>> {
        let slot = self.slot(index)?;
        // Allocated before the lock is taken: clearing a page takes microseconds.
        let fresh = SharedBuf::zeroed(PAGE)?;
        Some(writing(slot).get_or_insert(fresh).clone())
    }
}

impl Table {
    /// A table with `level` levels below it. `None` when memory is exhausted.
    fn new(level: u32, entries: usize) -> Option<Table> {
        let (below, slots) = match level {
            0 => (Box::default(), list(entries)?),
            _ => (list(entries)?, Box::default()),
        };
        Some(Table { below, slots })
    }
}

/// `n` empty entries.
fn list<T: Default>(n: usize) -> Option<Box<[T]>> {
    let mut list = Vec::new();
    list.try_reserve_exact(n).ok()?;
    list.resize_with(n, T::default);
    Some(list.into_boxed_slice())
}

/// Offset of a page's first byte; behind the last possible byte for a page that cannot be.
fn start_of(index: u64) -> u64 {
    index.saturating_mul(PAGE as u64)
}

// Nothing that can panic runs under these locks, so a poisoned one is as good as any.

#[inline]
fn reading(slot: &Slot) -> RwLockReadGuard<'_, Option<Arc<SharedBuf>>> {
    slot.read().unwrap_or_else(PoisonError::into_inner)
}

#[inline]
fn writing(slot: &Slot) -> RwLockWriteGuard<'_, Option<Arc<SharedBuf>>> {
    slot.write().unwrap_or_else(PoisonError::into_inner)
}
