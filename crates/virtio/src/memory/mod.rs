//! Guest memory: regions, addresses, and pieces of them.
//!
//! **What.** A [`RegionMap`] is the table a front-end sends: which guest addresses (and which addresses
//! of the front-end's own) lie where in this process. A [`Memory`] is one queue's handle to it, with a
//! cache of the regions that were hit last. A [`Segment`] is a piece of guest memory that was checked and
//! translated once. An [`Area`] is a piece that is used for long, as a ring is.
//!
//! **Why so.** Whoever shares the memory may write to it at any moment, so no reference to it ever
//! exists: bytes are copied in and out by relaxed atomic loads and stores, and what was read once is
//! not read again. All `unsafe` of this crate stands in `access` and `region`.
//!
//! **Contract.** Every access is checked against the map, with arithmetic that cannot overflow. A map
//! never changes; a new table of memory is a new map.

mod access;
mod log;
mod region;
use access::Hit;
#[cfg(any(test, feature = "fuzzing"))]
pub use access::hook;
pub use access::{Area, Segment};
pub use log::{DIRTY_PAGE, DirtyLog};
pub use region::{MapError, Region};

use std::{cell::Cell, ptr::NonNull, sync::Arc};

/// Why regions make no map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapRefused {
    /// A region ends beyond the last address.
    #[error("a memory region ends beyond the last 64-bit address")]
    Overflow,
    /// A region has no bytes.
    #[error("a memory region is empty")]
    Empty,
    /// Two regions share guest addresses.
    #[error("two memory regions overlap")]
    Overlap,
    /// More regions than [`RegionMap::MOST`].
    #[error("too many memory regions")]
    TooMany,
}

/// The regions of a guest's memory, sorted. Shared by all queues.
#[derive(Debug, Default)]
pub struct RegionMap {
    regions: Vec<Region>,
}

impl RegionMap {
    /// Regions of a map at most; vhost-user back-ends offer 509 slots.
    pub const MOST: usize = 4096;

    /// A map of these regions.
    ///
    /// # Errors
    ///
    /// Regions that overlap in guest addresses, are empty or wrap around.
    pub fn new(mut regions: Vec<Region>) -> Result<RegionMap, MapRefused> {
        if regions.len() > RegionMap::MOST {
            return Err(MapRefused::TooMany);
        }
        regions.sort_by_key(Region::guest);
        for region in &regions {
            if region.is_empty() {
                return Err(MapRefused::Empty);
            }
            let last = region.len() - 1;
            if region.guest().checked_add(last).is_none()
                || region.user().checked_add(last).is_none()
            {
                return Err(MapRefused::Overflow);
            }
        }
        for pair in regions.windows(2) {
            // The first does not wrap, so the difference says it all.
            if pair[1].guest() - pair[0].guest() < pair[0].len() {
                return Err(MapRefused::Overlap);
            }
        }
        Ok(RegionMap { regions })
    }

    /// The regions, by guest address.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Whether a region [was cut](Region::was_cut).
    pub fn was_cut(&self) -> bool {
        self.regions.iter().any(Region::was_cut)
    }

    /// Index of the region that has this guest address.
    fn index(&self, guest: u64) -> Option<usize> {
        let after = self.regions.partition_point(|r| r.guest() <= guest);
        let index = after.checked_sub(1)?;
        (guest - self.regions[index].guest() < self.regions[index].len()).then_some(index)
    }

    /// `len` bytes from a guest address on, if they lie in one region.
    pub fn by_guest(&self, guest: u64, len: usize) -> Option<Area> {
        let region = &self.regions[self.index(guest)?];
        region.area(guest - region.guest(), len)
    }

    /// The guest address of `len` bytes that lie here, if they are in one region.
    pub fn guest_of(&self, host: *const u8, len: u64) -> Option<u64> {
        self.regions.iter().find_map(|region| {
            let offset = (host.addr() as u64).checked_sub(region.host().addr().get() as u64)?;
            let inside = offset < region.len() && len <= region.len() - offset;
            inside.then(|| region.guest() + offset)
        })
    }

    /// `len` bytes from an address of the front-end's on, if they lie in one region. Rings of
    /// vhost-user have such addresses.
    pub fn by_user(&self, user: u64, len: usize) -> Option<Area> {
        self.regions.iter().find_map(|region| {
            let offset = user.checked_sub(region.user())?;
            region.area(offset, len)
        })
    }
}

/// One queue's way into a [`RegionMap`].
#[derive(Clone, Debug)]
pub struct Memory {
    map: Arc<RegionMap>,
    /// The region that was searched last, and the one before it: headers and data often lie in two.
    hits: [Cell<Hit>; 2],
    log: Option<DirtyLog>,
}

impl Memory {
    /// A way into a map.
    pub fn new(map: Arc<RegionMap>) -> Memory {
        Memory {
            map,
            hits: [Cell::new(Hit::NONE), Cell::new(Hit::NONE)],
            log: None,
        }
    }

    /// Notes from now on, in this log, which pages are written.
    pub fn set_log(&mut self, log: Option<DirtyLog>) {
        self.log = log;
    }

    /// Notes that `len` bytes from `guest` on were written by others than [`Memory::write`]: the data
    /// of a read, a ring. Only after they were: a page whose mark is taken away is copied at once.
    pub fn mark(&self, guest: u64, len: u64) {
        if let Some(log) = &self.log {
            log.mark(guest, len);
        }
    }

    /// The map.
    pub fn map(&self) -> &Arc<RegionMap> {
        &self.map
    }

    /// Where `len` bytes from `guest` on are, if they lie in one region.
    #[inline]
    fn find(&self, guest: u64, len: u64) -> Option<NonNull<u8>> {
        for hit in &self.hits {
            if let Some(host) = hit.get().find(guest, len) {
                return Some(host);
            }
        }
        self.search(guest, len)
    }

    #[cold]
    fn search(&self, guest: u64, len: u64) -> Option<NonNull<u8>> {
        let region = &self.map.regions[self.map.index(guest)?];
        let hit = Hit {
            guest: region.guest(),
            len: region.len(),
            host: region.host(),
        };
        self.hits[1].set(self.hits[0].replace(hit));
        hit.find(guest, len)
    }

    /// The piece of `len` bytes from `guest` on, if it lies in one region.
    #[inline]
    pub fn segment(&self, guest: u64, len: u32) -> Option<Segment> {
        Some(Segment::new(guest, self.find(guest, u64::from(len))?, len))
    }

    /// Calls `each` with the pieces of `len` bytes from `guest` on, however many regions they cross.
    /// False if an address is in no region, or `each` says false; then the pieces before it were seen.
    pub fn segments(
        &self,
        mut guest: u64,
        mut len: u32,
        mut each: impl FnMut(Segment) -> bool,
    ) -> bool {
        while len != 0 {
            let Some(index) = self.map.index(guest) else {
                return false;
            };
            let region = &self.map.regions[index];
            let offset = guest - region.guest();
            // At most `len`, which has 32 bits.
            let now = (region.len() - offset).min(u64::from(len)) as u32;
            if !each(Segment::new(
                guest,
                access::offset(region.host(), offset),
                now,
            )) {
                return false;
            }
            len -= now;
            let Some(next) = guest.checked_add(u64::from(now)) else {
                return len == 0;
            };
            guest = next;
        }
        true
    }

    /// Copies bytes out of guest memory. False if some are in no region; then the bytes say nothing.
    #[inline]
    #[must_use]
    pub fn read(&self, guest: u64, into: &mut [u8]) -> bool {
        match self.find(guest, into.len() as u64) {
            Some(host) => {
                access::read(host, into);
                true
            }
            None => self.read_pieces(guest, into),
        }
    }

    fn read_pieces(&self, guest: u64, into: &mut [u8]) -> bool {
        let Ok(len) = u32::try_from(into.len()) else {
            return false;
        };
        let mut at = 0;
        self.segments(guest, len, |piece| {
            let end = at + piece.len() as usize;
            access::read(piece.start(), &mut into[at..end]);
            at = end;
            true
        })
    }

    /// Copies bytes into guest memory. False if some are in no region; then those before are written.
    #[inline]
    #[must_use]
    pub fn write(&self, guest: u64, from: &[u8]) -> bool {
        let done = match self.find(guest, from.len() as u64) {
            Some(host) => {
                access::write(host, from);
                true
            }
            None => self.write_pieces(guest, from),
        };
        self.mark(guest, from.len() as u64);
        done
    }

    fn write_pieces(&self, guest: u64, from: &[u8]) -> bool {
        let Ok(len) = u32::try_from(from.len()) else {
            return false;
        };
        let mut at = 0;
        self.segments(guest, len, |piece| {
            let end = at + piece.len() as usize;
            access::write(piece.start(), &from[at..end]);
            at = end;
            true
        })
    }
}

#[cfg(test)]
mod tests;
