//! `allocator=sparse`: pages of plain bytes, made by the first write.
//!
//! A slot's lock is held for one reference count, about 10 ns, and is shared by readers. Whoever has a
//! page's reference copies without any lock. If the page is given back meanwhile, a late write lands
//! in memory that nobody will see: the same as if the discard came after it.

use std::sync::Arc;

use block::{Errno, ExtentList, Iov, SharedBuf};

use super::{
    Fill, Store,
    tree::{Found, Tree, reading, writing},
};

/// Bytes per page.
///
/// Chosen by measurement. A first write clears its whole page, mostly in page faults: 14
/// us for 32 KiB, 27 us for 64, 88 us for 128 in a small virtual machine; filling a disk from front to
/// back costs the same with all of them. A read takes 11-13 ns per page it spans, and up to two pieces
/// fit into a request without an allocation, which speaks for larger pages.
pub(super) const PAGE: usize = 64 << 10;

/// The pages of one disk.
pub(super) struct Pages(Tree<Arc<SharedBuf>, PAGE>);

impl Store for Pages {
    /// Giving a page back costs about a microsecond.
    const ZERO_INLINE: u64 = 128 * PAGE as u64;

    #[inline]
    fn read(&self, offset: u64, len: u64, mut f: impl FnMut(Option<Arc<SharedBuf>>, usize, u64)) {
        for part in self.0.parts(offset, len) {
            let page = part.slot.and_then(|slot| reading(slot).clone());
            f(page, part.skip, part.len);
        }
    }

    #[inline]
    fn write(&self, offset: u64, iov: &Iov) -> Result<(), Errno> {
        self.put(offset, iov.len(), |done, page, skip, n| {
            iov.read_shared(done, page, skip, n);
        })
    }

    fn zero(&self, offset: u64, len: u64, keep: bool) {
        for part in self.0.parts(offset, len) {
            let Some(slot) = part.slot else { continue };
            // The last page of the disk is whole when everything up to the end is zeroed.
            if !keep && self.0.is_whole(&part) {
                let given_back = writing(slot).take();
                // Freed when the lock is free again.
                drop(given_back);
            } else if let Some(page) = reading(slot).clone() {
                page.zero(part.skip, part.len as usize);
            }
        }
    }

    fn extents(&self, offset: u64, len: u64, one: bool) -> ExtentList {
        self.0.extents(offset, len, one)
    }
}

impl Fill for Pages {
    fn write_bytes(&self, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.put(offset, bytes.len(), |done, page, skip, n| {
            page.write(skip, &bytes[done..done + n]);
        })
    }

    fn zero_bytes(&self, offset: u64, len: u64) -> Result<(), Errno> {
        self.zero(offset, len, false);
        Ok(())
    }
}

impl Pages {
    /// An empty disk of `size` bytes. `None` when memory is exhausted.
    pub fn new(size: u64) -> Option<Pages> {
        Tree::new(size).map(Pages)
    }

    /// Bytes of the pages that are there.
    #[cfg(test)]
    pub fn allocated(&self) -> u64 {
        self.0.sum(|_| PAGE as u64)
    }

    /// Has `copy` (done, page, place in the page, length) fill the pages of a range.
    #[inline]
    fn put(
        &self,
        offset: u64,
        len: usize,
        copy: impl Fn(usize, &SharedBuf, usize, usize),
    ) -> Result<(), Errno> {
        self.0.check(offset, len as u64);
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let (index, skip) = (at / PAGE as u64, (at % PAGE as u64) as usize);
            let n = (len - done).min(PAGE - skip);
            let page = self.page(index).ok_or(Errno::ENOMEM)?;
            copy(done, &page, skip, n);
            done += n;
        }
        Ok(())
    }

    /// A page to write to. `None` when memory is exhausted.
    #[inline]
    fn page(&self, index: u64) -> Option<Arc<SharedBuf>> {
        if let Found::Slot(slot) = self.0.find(index)
            && let Some(page) = &*reading(slot)
        {
            return Some(page.clone());
        }
        self.make(index)
    }

    #[cold]
    fn make(&self, index: u64) -> Option<Arc<SharedBuf>> {
        let slot = self.0.slot(index)?;
        // Allocated before the lock is taken: clearing a page takes microseconds.
        let fresh = SharedBuf::zeroed(PAGE)?;
        Some(writing(slot).get_or_insert(fresh).clone())
    }
}
