//! Memory of the driver's own that devices see: rings, tables, requests.

use std::{os::fd::OwnedFd, ptr::NonNull, sync::Arc};

use rustix::mm::munmap;
use virtio::{
    blk::Requests,
    memory::Area,
    ring::{DriverRing, RingAreas, RingConfig, SetupError, Tables, packed, split},
};

use super::device::Limits;
use crate::{MemoryRegion, Result, error::invalid, region::shared_memory};

/// Zeroes to be written where the device has no write zeroes.
pub(super) const ZEROES: usize = 64 << 10;

/// A format of rings.
pub(crate) trait Ring: DriverRing + Send + Sized {
    /// The base of a new ring.
    const BASE: u32;
    /// Bytes of its three parts.
    fn lengths(size: u16) -> [usize; 3];
    /// A ring from its beginning.
    fn create(
        areas: RingAreas,
        config: RingConfig,
        tables: Option<Tables>,
    ) -> std::result::Result<Self, SetupError>;
}

macro_rules! ring {
    ($module:ident, $base:expr) => {
        impl Ring for $module::Driver {
            const BASE: u32 = $base;
            fn lengths(size: u16) -> [usize; 3] {
                $module::lengths(size)
            }
            fn create(
                areas: RingAreas,
                config: RingConfig,
                tables: Option<Tables>,
            ) -> std::result::Result<Self, SetupError> {
                $module::Driver::new(areas, config, tables)
            }
        }
    };
}
ring!(split, 0);
ring!(packed, packed::START);

/// A mapped memfd.
#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    len: usize,
    _file: OwnedFd,
}

// SAFETY: it only holds the mapping until it is unmapped.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped with this length; every area holds this owner.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Where the parts of a queue are in its memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    size: u16,
    /// Of an indirect table; 0 without.
    entries: u16,
    /// Where each part begins: ring's parts, tables, requests, end.
    starts: [usize; 6],
}

impl Layout {
    pub fn new<R: Ring>(size: u16, limits: &Limits) -> Layout {
        let entries = match limits.indirect {
            true => limits.segments as u16 + 2,
            false => 0,
        };
        let [a, b, c] = R::lengths(size);
        let parts = [
            a,
            b,
            c,
            Tables::length(size, entries),
            Requests::slot_len(1) * usize::from(size),
        ];
        let mut starts = [0; 6];
        for (n, len) in parts.iter().enumerate() {
            // The device and we write different parts: no shared cache lines.
            starts[n + 1] = (starts[n] + len).next_multiple_of(128);
        }
        starts[5] = starts[5].next_multiple_of(4096);
        Layout {
            size,
            entries,
            starts,
        }
    }

    fn len(&self) -> usize {
        self.starts[5]
    }
}

/// The memory of all queues, and zeroes.
#[derive(Debug)]
pub(super) struct Arena {
    area: Area,
    region: MemoryRegion,
}

impl Arena {
    /// Memory for so many queues.
    pub fn new(queues: usize, layout: &Layout) -> Result<Arena> {
        let queues = layout.len().checked_mul(queues);
        let len = queues.and_then(|len| len.checked_add(ZEROES));
        let len = len.ok_or_else(|| invalid("too many queues"))?;
        let (file, addr) = shared_memory(c"blkio-queues", len)?;
        let region = MemoryRegion {
            addr,
            len,
            iova: 0,
            fd_offset: 0,
            fd: std::os::fd::AsRawFd::as_raw_fd(&file),
            flags: 0,
        };
        let base = NonNull::new(addr).ok_or_else(|| invalid("a mapping at 0"))?;
        let owner = Arc::new(Mapping {
            base,
            len,
            _file: file,
        });
        // SAFETY: mapped just now, zeroed and writable; the owner unmaps it, and there are no
        // references to it.
        let area = unsafe { Area::new(base, len, owner) };
        Ok(Arena { area, region })
    }

    /// To be mapped for the device. Its file is open as long as the arena lives.
    pub fn region(&self) -> &MemoryRegion {
        &self.region
    }

    /// Where the device sees the zeroes, if it sees the arena at `iova`.
    pub fn zeroes(&self, iova: u64) -> u64 {
        iova + (self.region.len - ZEROES) as u64
    }

    /// The memory of a queue.
    pub fn queue(&self, index: usize, layout: &Layout, iova: u64) -> QueueMemory {
        let start = index * layout.len();
        let area = self.area.part(start, layout.len());
        QueueMemory {
            area: area.expect("there is room for each queue"),
            iova: iova + start as u64,
            layout: *layout,
        }
    }
}

/// The memory of a queue.
#[derive(Debug)]
pub(super) struct QueueMemory {
    area: Area,
    /// Where the device sees it.
    iova: u64,
    layout: Layout,
}

impl QueueMemory {
    fn part(&self, part: usize) -> Area {
        let (start, end) = (self.layout.starts[part], self.layout.starts[part + 1]);
        let area = self.area.part(start, end - start);
        area.expect("the layout is that of this memory")
    }

    /// Where the device sees a part.
    fn address(&self, part: usize) -> u64 {
        self.iova + self.layout.starts[part] as u64
    }

    /// Where the device sees the parts of the ring.
    pub fn ring_addresses(&self) -> [u64; 3] {
        [0, 1, 2].map(|part| self.address(part))
    }

    /// A new ring.
    pub fn ring<R: Ring>(&self, limits: &Limits) -> Result<R> {
        let areas = RingAreas {
            descriptors: self.part(0),
            driver: self.part(1),
            device: self.part(2),
        };
        let config = RingConfig {
            event_index: limits.event_index,
            indirect: limits.indirect,
            table_max: self.layout.entries,
            ..RingConfig::new(self.layout.size)
        };
        let tables = limits.indirect.then(|| Tables {
            area: self.part(3),
            guest: self.address(3),
            entries: self.layout.entries,
        });
        R::create(areas, config, tables).map_err(|error| invalid(error.to_string()))
    }

    /// Slots for requests, one for each descriptor.
    pub fn requests(&self) -> Requests {
        Requests::new(self.part(4), self.address(4), 1)
    }

    /// Descriptors of the ring.
    pub fn size(&self) -> u16 {
        self.layout.size
    }
}
