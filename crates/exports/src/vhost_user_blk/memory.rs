//! What a front-end shares with us: the guest's memory, and the logs of requests in flight and of
//! pages written.

use std::{os::fd::OwnedFd, sync::Arc};

use reactor::sealed_memory;
use virtio::{
    blk::has,
    inflight,
    memory::{Area, DirtyLog, Memory, Region, RegionMap},
    ring::{
        AddressKind, F_EVENT_IDX, F_INDIRECT_DESC, F_RING_PACKED, RingAreas, RingConfig, packed,
        split,
    },
    vhost_user::{InflightArea, LogArea, MemoryRegion, Refused, VringSetup, proto},
};

use super::{requests::Ring, vring::LogParts};

/// The memory of one connection.
#[derive(Default)]
pub(super) struct GuestSpace {
    map: Arc<RegionMap>,
    inflight: Option<Inflight>,
    dirty: Option<DirtyLog>,
    told: Option<OwnedFd>,
    /// VHOST_F_LOG_ALL was agreed on.
    logs: bool,
}

/// A log of requests in flight, with room for each ring.
struct Inflight {
    region: Region,
    /// Bytes for each ring.
    each: usize,
    queues: u16,
    packed: bool,
    size: u16,
}

impl GuestSpace {
    /// A ring's way into it.
    pub(super) fn memory(&self) -> Memory {
        Memory::new(self.map.clone())
    }

    /// Other memory instead of all there is.
    pub(super) fn replace(&mut self, regions: &[(MemoryRegion, OwnedFd)]) -> Result<(), Refused> {
        let mapped: Result<Vec<Region>, Refused> =
            regions.iter().map(|(region, fd)| map(region, fd)).collect();
        self.set(mapped?)
    }

    /// One more region.
    pub(super) fn add(&mut self, region: &MemoryRegion, fd: &OwnedFd) -> Result<(), Refused> {
        let mut regions = self.map.regions().to_vec();
        regions.push(map(region, fd)?);
        self.set(regions)
    }

    /// One region less.
    pub(super) fn remove(&mut self, gone: &MemoryRegion) -> Result<(), Refused> {
        let mut regions = self.map.regions().to_vec();
        regions.retain(|region| region.guest() != gone.guest_addr);
        self.set(regions)
    }

    fn set(&mut self, regions: Vec<Region>) -> Result<(), Refused> {
        let map = RegionMap::new(regions).map_err(|_| Refused::Failed)?;
        self.map = Arc::new(map);
        Ok(())
    }

    /// Where a ring lies now.
    pub(super) fn areas(&self, setup: &VringSetup) -> Option<RingAreas> {
        let addresses = [setup.descriptors, setup.available, setup.used];
        RingAreas::find(&self.map, AddressKind::Guest, addresses, lengths(setup)).ok()
    }

    /// A ring that starts. `None` if it cannot be one.
    pub(super) fn ring(&self, setup: &VringSetup) -> Option<Ring> {
        let config = RingConfig {
            event_index: has(setup.features, F_EVENT_IDX),
            indirect: has(setup.features, F_INDIRECT_DESC),
            ..RingConfig::new(setup.size)
        };
        let (areas, base) = (self.areas(setup)?, setup.base);
        let log = match &self.inflight {
            Some(log) => Some(log.of(setup)?),
            None => None,
        };
        let ring = match (setup.packed(), log) {
            (false, None) => split::Device::new(areas, config, base).map(Ring::Split),
            (false, Some(log)) => {
                split::Device::with_log(areas, config, base, log).map(Ring::Split)
            }
            (true, None) => packed::Device::new(areas, config, base).map(Ring::Packed),
            (true, Some(log)) => {
                packed::Device::with_log(areas, config, base, log).map(Ring::Packed)
            }
        };
        ring.inspect_err(|error| tracing::debug!("a ring of a guest cannot run: {error}"))
            .ok()
    }

    /// A new log of requests in flight.
    pub(super) fn make_inflight(
        features: u64,
        asked: &InflightArea,
    ) -> Option<(InflightArea, OwnedFd)> {
        let each = inflight::length(has(features, F_RING_PACKED), asked.queue_size);
        let mmap_size = u64::from(asked.queues) * each as u64;
        let fd = sealed_memory("blkit-inflight", mmap_size).ok()?;
        let area = InflightArea {
            mmap_size,
            mmap_offset: 0,
            ..*asked
        };
        Some((area, fd))
    }

    /// The log of requests in flight for rings that start from now on.
    pub(super) fn set_inflight(
        &mut self,
        features: u64,
        area: &InflightArea,
        fd: &OwnedFd,
    ) -> Result<(), Refused> {
        let packed = has(features, F_RING_PACKED);
        let each = inflight::length(packed, area.queue_size);
        if area.mmap_size < u64::from(area.queues) * each as u64 {
            return Err(Refused::Malformed);
        }
        let region = Region::map(0, 0, fd, area.mmap_offset, area.mmap_size);
        self.inflight = Some(Inflight {
            region: region.map_err(|_| Refused::Failed)?,
            each,
            queues: area.queues,
            packed,
            size: area.queue_size,
        });
        Ok(())
    }

    /// Whether there is a log of requests in flight.
    pub(super) fn has_inflight(&self) -> bool {
        self.inflight.is_some()
    }

    /// The device was reset.
    pub(super) fn forget_inflight(&mut self) {
        self.inflight = None;
    }

    /// Where pages are logged that were written.
    pub(super) fn set_log(&mut self, area: &LogArea, fd: &OwnedFd) -> Result<(), Refused> {
        let region = Region::map(0, 0, fd, area.offset, area.size);
        let region = region.map_err(|_| Refused::Failed)?;
        let len = usize::try_from(area.size).map_err(|_| Refused::Failed)?;
        self.dirty = region.area(0, len).map(DirtyLog::new);
        Ok(())
    }

    /// What is signalled when something was logged.
    pub(super) fn set_log_event(&mut self, fd: OwnedFd) {
        self.told = Some(fd);
    }

    pub(super) fn set_features(&mut self, features: u64) {
        self.logs = features & proto::feature::LOG_ALL != 0;
    }

    /// What this ring needs in order to log, if it is to.
    pub(super) fn log_parts(&self, setup: &VringSetup) -> Option<LogParts> {
        let log = self.dirty.as_ref().filter(|_| self.logs)?.clone();
        let [descriptors, _, used] = lengths(setup).map(|len| len as u64);
        let written = match setup.log {
            None => Vec::new(),
            // A packed ring's descriptors are written too.
            Some(_) if setup.packed() => vec![(setup.descriptors, descriptors), (setup.used, used)],
            Some(at) => vec![(at, used)],
        };
        Some(LogParts {
            log,
            written,
            told: self.told.as_ref().and_then(|fd| fd.try_clone().ok()),
        })
    }
}

impl Inflight {
    /// The part of one ring; `None` if it has none, or is another kind of ring.
    fn of(&self, setup: &VringSetup) -> Option<Area> {
        let fits =
            setup.index < self.queues && setup.packed() == self.packed && setup.size <= self.size;
        let offset = usize::from(setup.index) * self.each;
        fits.then(|| self.region.area(offset as u64, self.each))
            .flatten()
    }
}

fn lengths(setup: &VringSetup) -> [usize; 3] {
    match setup.packed() {
        true => packed::lengths(setup.size),
        false => split::lengths(setup.size),
    }
}

fn map(region: &MemoryRegion, fd: &OwnedFd) -> Result<Region, Refused> {
    let MemoryRegion {
        guest_addr,
        size,
        user_addr,
        mmap_offset,
    } = *region;
    let mapped = Region::map(guest_addr, user_addr, fd, mmap_offset, size);
    mapped.map_err(|error| {
        tracing::debug!("memory of a guest cannot be mapped: {error}");
        Refused::Failed
    })
}
