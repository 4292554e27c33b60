//! Mapped memory: which address of the device each address of ours is.
//!
//! The table changes seldom and is read with each request, by all queues: each has a copy of it and
//! looks at a version.

use std::{
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::{fs::fstat, io::Errno};

use super::transport::RegionRules;
use crate::{Error, MemoryRegion, Result, error::invalid};

/// Large pages: regions have the same place in them at both addresses, so that an IOMMU can use them.
const LARGE: u64 = 2 << 20;

/// A region that the device can use.
#[derive(Clone, Copy, Debug)]
struct Mapped {
    /// As the user gave it.
    user: MemoryRegion,
    /// As it is mapped: whole pages.
    whole: MemoryRegion,
    /// Where the device sees the whole.
    iova: u64,
}

impl Mapped {
    fn piece(&self) -> Piece {
        let skip = (self.user.addr.addr() - self.whole.addr.addr()) as u64;
        Piece {
            start: self.user.addr.addr() as u64,
            len: self.user.len as u64,
            iova: self.iova + skip,
        }
    }
}

/// What a queue needs of a region.
#[derive(Clone, Copy, Debug, Default)]
struct Piece {
    start: u64,
    len: u64,
    iova: u64,
}

impl Piece {
    #[inline]
    fn find(&self, address: u64, len: u64) -> Option<u64> {
        let offset = address.wrapping_sub(self.start);
        (offset < self.len && len <= self.len - offset).then(|| self.iova + offset)
    }
}

/// All mapped regions.
#[derive(Debug, Default)]
pub(super) struct Regions {
    version: AtomicU64,
    table: Mutex<Vec<Mapped>>,
}

impl Regions {
    fn table(&self) -> std::sync::MutexGuard<'_, Vec<Mapped>> {
        // Each change is one assignment.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a region: the region in whole pages, and the device's address of it.
    pub fn place(
        &self,
        region: &MemoryRegion,
        rules: &RegionRules,
        addresses: RangeInclusive<u64>,
    ) -> Result<(MemoryRegion, u64)> {
        check(region, rules)?;
        let whole = whole_pages(region, rules)?;
        let mut taken = Vec::new();
        for other in self.table().iter() {
            if (region.addr.addr() as u64) < other.user.end()?
                && (other.user.addr.addr() as u64) < region.end()?
            {
                return Err(invalid("memory regions must not overlap"));
            }
            taken.push((other.iova, other.whole.len as u64));
        }
        if taken.len() as u64 + 1 > rules.most {
            let text = "the device takes no more memory regions";
            return Err(Error::new(Errno::NOSPC, text));
        }
        taken.sort_unstable();
        let iova = first_gap(&taken, &whole, addresses)?;
        Ok((whole, iova))
    }

    /// From now on requests may use it.
    pub fn add(&self, user: MemoryRegion, whole: MemoryRegion, iova: u64) {
        self.table().push(Mapped { user, whole, iova });
        self.version.fetch_add(1, Ordering::Release);
    }

    /// And not any more. The region as it was mapped, and where.
    pub fn remove(&self, user: &MemoryRegion) -> Option<(MemoryRegion, u64)> {
        let mut table = self.table();
        let index = table.iter().position(|mapped| mapped.user == *user)?;
        let mapped = table.swap_remove(index);
        self.version.fetch_add(1, Ordering::Release);
        Some((mapped.whole, mapped.iova))
    }
}

fn check(region: &MemoryRegion, rules: &RegionRules) -> Result<()> {
    let RegionRules {
        alignment,
        needs_file,
        ..
    } = *rules;
    region.end()?;
    if region.len == 0 {
        return Err(invalid("a memory region must have bytes"));
    }
    if region.addr.is_null() {
        return Err(invalid("a memory region must have an address"));
    }
    if !(region.addr.addr() as u64).is_multiple_of(alignment)
        || !(region.len as u64).is_multiple_of(alignment)
    {
        let text =
            format!("address and length of a memory region must be multiples of {alignment}");
        return Err(invalid(text));
    }
    if needs_file {
        let Some(file) = region.file() else {
            return Err(invalid("the memory region must have a file descriptor"));
        };
        let size = fstat(file)?.st_size;
        let end = i64::try_from(region.len)
            .ok()
            .and_then(|len| region.fd_offset.checked_add(len));
        if region.fd_offset < 0 || end.is_none_or(|end| end > size) {
            return Err(invalid("the memory region is not within its file"));
        }
    }
    Ok(())
}

/// The region and what of its first and last page is before and behind it.
fn whole_pages(region: &MemoryRegion, rules: &RegionRules) -> Result<MemoryRegion> {
    let page = rules.granularity;
    let before = (region.addr.addr() as u64 % page) as usize;
    let mut whole = *region;
    whole.addr = region.addr.wrapping_sub(before);
    whole.len += before;
    let mut end = (whole.len as u64).next_multiple_of(page);
    if rules.needs_file {
        whole.fd_offset -= before as i64;
        if whole.fd_offset < 0 || !(whole.fd_offset as u64).is_multiple_of(page) {
            let text = "a memory region must be mapped from its file in whole pages";
            return Err(invalid(text));
        }
        // Peers refuse what is behind the end of the file.
        if let Some(file) = region.file() {
            let size = fstat(file)?.st_size as u64;
            end = end.min(size - whole.fd_offset as u64);
        }
    }
    whole.len = end as usize;
    Ok(whole)
}

/// The lowest address at which nothing is, `taken` being sorted.
fn first_gap(
    taken: &[(u64, u64)],
    whole: &MemoryRegion,
    addresses: RangeInclusive<u64>,
) -> Result<u64> {
    /// Below are interrupts and what else machines have.
    const LOWEST: u64 = 4 << 30;
    let full = || Error::new(Errno::NOSPC, "no room among the addresses of the device");
    let place = whole.addr.addr() as u64 % LARGE;
    let fit = |from: u64| {
        let base = from.saturating_sub(place).next_multiple_of(LARGE);
        base.checked_add(place).ok_or_else(full)
    };
    let mut at = fit((*addresses.start()).max(LOWEST))?;
    for (start, len) in taken {
        if at < *start && whole.len as u64 <= *start - at {
            break;
        }
        at = fit(at.max(start + len))?;
    }
    let last = at.checked_add(whole.len as u64 - 1).ok_or_else(full)?;
    match last <= *addresses.end() {
        true => Ok(at),
        false => Err(full()),
    }
}

/// A queue's copy of the table.
#[derive(Debug)]
pub(super) struct Lookup {
    regions: Arc<Regions>,
    version: u64,
    /// By address.
    pieces: Vec<Piece>,
    /// What was found last.
    last: Piece,
}

impl Lookup {
    pub fn new(regions: Arc<Regions>) -> Lookup {
        Lookup {
            regions,
            version: u64::MAX,
            pieces: Vec::new(),
            last: Piece::default(),
        }
    }

    /// Looks whether the table has changed. Once before the lookups of a request.
    #[inline]
    pub fn refresh(&mut self) {
        let version = self.regions.version.load(Ordering::Acquire);
        if version != self.version {
            self.copy(version);
        }
    }

    #[cold]
    fn copy(&mut self, version: u64) {
        self.version = version;
        let table = self.regions.table();
        self.pieces = table.iter().map(Mapped::piece).collect();
        self.pieces.sort_unstable_by_key(|piece| piece.start);
        self.last = Piece::default();
    }

    /// The device's address of `len` bytes of ours, if they are in one region.
    #[inline]
    pub fn find(&mut self, address: u64, len: u64) -> Option<u64> {
        if let Some(found) = self.last.find(address, len) {
            return Some(found);
        }
        let after = self.pieces.partition_point(|piece| piece.start <= address);
        let piece = self.pieces[after.checked_sub(1)?];
        let found = piece.find(address, len)?;
        self.last = piece;
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: RegionRules = RegionRules {
        most: 4,
        alignment: 1,
        granularity: 4096,
        needs_file: false,
    };

    fn region(addr: usize, len: usize) -> MemoryRegion {
        MemoryRegion {
            addr: std::ptr::without_provenance_mut(addr),
            len,
            iova: 0,
            fd_offset: 0,
            fd: -1,
            flags: 0,
        }
    }

    fn map(regions: &Regions, region: &MemoryRegion) -> Result<u64> {
        let (whole, iova) = regions.place(region, &RULES, 0..=(1 << 39) - 1)?;
        regions.add(*region, whole, iova);
        Ok(iova)
    }

    #[test]
    fn addresses_are_found_in_whole_regions_only() {
        let regions = Arc::new(Regions::default());
        let mut lookup = Lookup::new(regions.clone());
        let first = map(&regions, &region(0x7000_0010_0100, 0x300)).unwrap();
        let second = map(&regions, &region(0x7000_0020_0000, 0x1000)).unwrap();
        assert_eq!(first % LARGE, 0x10_0000);
        assert!(first >= 4 << 30 && first.abs_diff(second) >= 0x1000);
        lookup.refresh();
        assert_eq!(lookup.find(0x7000_0010_0100, 0x300), Some(first + 0x100));
        assert_eq!(lookup.find(0x7000_0010_03ff, 1), Some(first + 0x3ff));
        for (address, len) in [
            (0x7000_0010_00ff, 1),
            (0x7000_0010_0100, 0x301),
            (0x7000_0010_0400, 1),
            (0, 1),
            (u64::MAX, 1),
            (0x7000_0020_0fff, 2),
            (0x7000_0020_0000, u64::MAX),
        ] {
            assert_eq!(lookup.find(address, len), None, "{address:#x}");
        }
        regions.remove(&region(0x7000_0010_0100, 0x300)).unwrap();
        lookup.refresh();
        assert_eq!(lookup.find(0x7000_0010_0100, 1), None);
        assert_eq!(lookup.find(0x7000_0020_0000, 0x1000), Some(second));
    }

    #[test]
    fn gaps_are_used_again_and_have_an_end() {
        let regions = Regions::default();
        let parts: Vec<_> = (0..4)
            .map(|n| region(0x10_0000_0000 + (n << 30), 1 << 30))
            .collect();
        let places: Vec<_> = parts
            .iter()
            .map(|part| map(&regions, part).unwrap())
            .collect();
        let error = map(&regions, &region(0x7000_0000, 1)).unwrap_err();
        assert_eq!(error.errno(), libc::ENOSPC, "four are the most");
        regions.remove(&parts[1]).unwrap();
        assert_eq!(map(&regions, &parts[1]).unwrap(), places[1]);
        regions.remove(&parts[1]).unwrap();
        let error = map(&regions, &region(0x20_0000_0000, 1 << 39)).unwrap_err();
        assert_eq!(error.message(), "no room among the addresses of the device");
    }

    #[test]
    fn what_makes_no_region_is_refused() {
        let regions = Regions::default();
        map(&regions, &region(0x10_0000, 0x1000)).unwrap();
        for (bad, text) in [
            (region(0x10_0fff, 1), "overlap"),
            (region(0xf_ffff, 2), "overlap"),
            (region(0x20_0000, 0), "bytes"),
            (region(usize::MAX, 2), "wraps"),
        ] {
            let error = map(&regions, &bad).unwrap_err();
            assert!(error.message().contains(text), "{error}");
            assert_eq!(error.errno(), libc::EINVAL);
        }
        let strict = RegionRules {
            alignment: 4096,
            needs_file: true,
            ..RULES
        };
        for bad in [region(0x20_0001, 0x1000), region(0x20_0000, 0x1000)] {
            assert!(regions.place(&bad, &strict, 0..=u64::MAX).is_err());
        }
    }
}
