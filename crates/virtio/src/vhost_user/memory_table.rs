//! The guest's memory as the front-end has told it: regions without overlap, and the way from the
//! front-end's addresses to the guest's.

use super::{backend::Refused, payload::MemoryRegion};

/// The regions, in the order of the guest's addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct MemoryTable(Vec<MemoryRegion>);

impl MemoryTable {
    /// A table of these.
    pub(super) fn of(regions: impl Iterator<Item = MemoryRegion>) -> Result<MemoryTable, Refused> {
        let mut table = MemoryTable::default();
        for region in regions {
            table.check(&region)?;
            table.insert(region);
        }
        Ok(table)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn regions(&self) -> &[MemoryRegion] {
        &self.0
    }

    /// Whether this may be added: it has a length, ends before the end of all addresses, and
    /// overlaps nothing.
    pub(super) fn check(&self, region: &MemoryRegion) -> Result<(), Refused> {
        let ends = |start: u64| start.checked_add(region.size);
        let all = [region.guest_addr, region.user_addr, region.mmap_offset];
        if region.size == 0 || all.into_iter().any(|start| ends(start).is_none()) {
            return Err(Refused::BadRegion);
        }
        let apart = |a: u64, b: u64, len: u64| a + region.size <= b || b + len <= a;
        let fits = |known: &MemoryRegion| {
            apart(region.guest_addr, known.guest_addr, known.size)
                && apart(region.user_addr, known.user_addr, known.size)
        };
        match self.0.iter().all(fits) {
            true => Ok(()),
            false => Err(Refused::Overlap),
        }
    }

    /// Adds a region that was [checked](MemoryTable::check).
    pub(super) fn insert(&mut self, region: MemoryRegion) {
        let place = self.0.partition_point(|r| r.guest_addr < region.guest_addr);
        self.0.insert(place, region);
    }

    /// The region that REM_MEM_REG means: the offset is not compared (spec).
    pub(super) fn find(&self, asked: &MemoryRegion) -> Option<MemoryRegion> {
        let same = |known: &&MemoryRegion| {
            (known.guest_addr, known.user_addr, known.size)
                == (asked.guest_addr, asked.user_addr, asked.size)
        };
        self.0.iter().find(same).copied()
    }

    pub(super) fn remove(&mut self, region: &MemoryRegion) {
        self.0.retain(|known| known != region);
    }

    /// The guest's address of `len` bytes that the front-end sees at `address`, if they lie in one
    /// region.
    pub(super) fn of_user(&self, address: u64, len: u64) -> Option<u64> {
        self.0.iter().find_map(|region| {
            let inside = within(address, len, region.user_addr, region.size)?;
            Some(region.guest_addr + inside)
        })
    }

    /// The same address, if `len` bytes there lie in one region.
    pub(super) fn of_guest(&self, address: u64, len: u64) -> Option<u64> {
        let inside = |region: &MemoryRegion| {
            within(address, len, region.guest_addr, region.size).map(|_| address)
        };
        self.0.iter().find_map(inside)
    }
}

/// How far behind `start` the range lies, if it is inside of `size` bytes there.
fn within(address: u64, len: u64, start: u64, size: u64) -> Option<u64> {
    let inside = address.checked_sub(start)?;
    (inside.checked_add(len)? <= size).then_some(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(guest_addr: u64, size: u64, user_addr: u64) -> MemoryRegion {
        MemoryRegion {
            guest_addr,
            size,
            user_addr,
            mmap_offset: 0,
        }
    }

    #[test]
    fn regions_do_not_overlap_in_either_view() {
        let first = region(0x1000, 0x1000, 0x7000);
        let judge = |second| MemoryTable::of([first, second].into_iter()).map(|t| t.len());
        assert_eq!(judge(region(0x2000, 1, 0x8000)), Ok(2));
        assert_eq!(judge(region(0, 0x1000, 0x6000)), Ok(2));
        assert_eq!(judge(region(0x1fff, 1, 0x9000)), Err(Refused::Overlap));
        assert_eq!(judge(region(0, 0x1001, 0x9000)), Err(Refused::Overlap));
        assert_eq!(judge(region(0x9000, 8, 0x6ff9)), Err(Refused::Overlap));
        assert_eq!(judge(region(0x9000, 0, 0x9000)), Err(Refused::BadRegion));
        let high = u64::MAX - 3;
        assert_eq!(judge(region(high, 4, 0)), Err(Refused::BadRegion));
        assert_eq!(judge(region(0x9000, 4, high)), Err(Refused::BadRegion));
        let mut offset = region(0x9000, 4, 0x9000);
        offset.mmap_offset = high;
        assert_eq!(judge(offset), Err(Refused::BadRegion));
    }

    #[test]
    fn addresses_are_translated_inside_of_one_region() {
        let regions = [region(0x9000, 0x100, 0x100), region(0, 0x100, 0x200)];
        let table = MemoryTable::of(regions.into_iter()).unwrap();
        assert_eq!(table.of_user(0x110, 0xf0), Some(0x9010));
        assert_eq!(table.of_user(0x110, 0xf1), None);
        assert_eq!(table.of_user(0x2ff, 1), Some(0xff));
        assert_eq!(table.of_user(0x300, 0), None.or(Some(0x100)));
        assert_eq!(table.of_user(u64::MAX, u64::MAX), None);
        assert_eq!(table.of_guest(0x9000, 0x100), Some(0x9000));
        assert_eq!(table.of_guest(0x8fff, 2), None);
        let mut asked = regions[1];
        asked.mmap_offset = 77;
        assert_eq!(table.find(&asked), Some(regions[1]));
        asked.size = 1;
        assert_eq!(table.find(&asked), None);
    }
}
