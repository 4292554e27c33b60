//! What a device can do, from its features and its configuration.

use rustix::io::Errno;
use virtio::{
    blk::{CONFIG_LEN, Config, SECTOR, feature, has},
    ring,
};

use super::transport::Transport;
use crate::{Error, Result};

/// Features that are used where a device has them. CONFIG_WCE is not among them: a device for which
/// it is not agreed on has a cache that a flush writes back, whatever mode it would claim.
pub(super) const WANTED: u64 = 1 << feature::SIZE_MAX
    | 1 << feature::SEG_MAX
    | 1 << feature::RO
    | 1 << feature::BLK_SIZE
    | 1 << feature::FLUSH
    | 1 << feature::TOPOLOGY
    | 1 << feature::MQ
    | 1 << feature::DISCARD
    | 1 << feature::WRITE_ZEROES
    | 1 << ring::F_INDIRECT_DESC
    | 1 << ring::F_EVENT_IDX
    | 1 << ring::F_VERSION_1
    | 1 << ring::F_ACCESS_PLATFORM
    | 1 << ring::F_RING_PACKED
    | 1 << F_ORDER_PLATFORM;

/// Feature bit: memory is ordered as the platform wants it for devices (VIRTIO_F_ORDER_PLATFORM).
const F_ORDER_PLATFORM: u32 = 36;

/// Data segments of a chain at most, whatever the device takes: what a table costs.
const MAX_SEGMENTS: u32 = 254;

/// Bytes of a chain's data at most: what a device has to have under way for one request.
const MAX_TRANSFER: u64 = 64 << 20;

/// A device's configuration, checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Device {
    pub features: u64,
    pub config: Config,
}

impl Device {
    /// Asks a device.
    pub fn read(transport: &mut dyn Transport) -> Result<Device> {
        let features = transport.features() & WANTED;
        if !has(features, ring::F_VERSION_1) {
            let text = "the device does not offer VIRTIO_F_VERSION_1";
            return Err(Error::new(Errno::NOTSUP, text));
        }
        let mut bytes = [0; CONFIG_LEN];
        transport.read_config(0, &mut bytes)?;
        let config = Config::decode(&bytes);
        let device = Device { features, config };
        let block = device.block();
        if !block.is_power_of_two() || block > 1 << 20 {
            let text = format!("the device has blocks of {block} bytes");
            return Err(Error::new(Errno::PROTO, text));
        }
        Ok(device)
    }

    pub fn has(&self, bit: u32) -> bool {
        has(self.features, bit)
    }

    /// Bytes that requests are multiples of.
    pub fn block(&self) -> u64 {
        self.config.block(self.features)
    }

    /// Size in bytes.
    pub fn capacity(&self) -> u64 {
        self.config.capacity.saturating_mul(SECTOR)
    }

    pub fn queues(&self) -> u16 {
        match self.has(feature::MQ) {
            true => self.config.num_queues.max(1),
            false => 1,
        }
    }

    /// Segments of a request, as the device says; 1 if it does not.
    pub fn segments(&self) -> u32 {
        match self.has(feature::SEG_MAX) {
            true => self.config.seg_max.max(1),
            false => 1,
        }
    }

    /// Bytes of a segment; 0 if there is no limit.
    pub fn segment_len(&self) -> u32 {
        match self.has(feature::SIZE_MAX) {
            true => self.config.size_max,
            false => 0,
        }
    }

    /// Bytes of a block that is written as one, or good to write.
    pub fn optimal_alignment(&self) -> u64 {
        match self.has(feature::TOPOLOGY) {
            // More than 2^20 blocks is nonsense.
            true => self.block() << self.config.physical_block_exp.min(20),
            false => self.block(),
        }
    }

    /// Bytes of a good large request; 0 if the device does not say.
    pub fn optimal_size(&self) -> u64 {
        match self.has(feature::TOPOLOGY) {
            true => self.block() * u64::from(self.config.opt_io_size),
            false => 0,
        }
    }

    pub fn max_discard(&self) -> u64 {
        match self.has(feature::DISCARD) {
            true => u64::from(self.config.max_discard_sectors) * SECTOR,
            false => 0,
        }
    }

    pub fn max_write_zeroes(&self) -> u64 {
        match self.has(feature::WRITE_ZEROES) {
            true => u64::from(self.config.max_write_zeroes_sectors) * SECTOR,
            false => 0,
        }
    }

    pub fn discard_alignment(&self) -> u64 {
        match self.has(feature::DISCARD) {
            true => (u64::from(self.config.discard_sector_alignment) * SECTOR).max(self.block()),
            false => self.block(),
        }
    }

    /// What one chain takes, on a ring of this size.
    pub fn limits(&self, size: u16) -> Result<Limits> {
        let indirect = self.has(ring::F_INDIRECT_DESC);
        let segments = self.segments().min(MAX_SEGMENTS);
        // A chain has a header and a status, too.
        let segments = match indirect {
            true => segments,
            false => segments.min(u32::from(size).saturating_sub(2)),
        };
        if segments == 0 {
            let text = "queue-size is too small for a device without indirect descriptors";
            return Err(Error::new(Errno::INVAL, text));
        }
        let block = self.block();
        let range = |supported: bool, most: u64| {
            // No limit, and what fits a range.
            let most = if most == 0 { u64::MAX } else { most };
            let most = most.min(u64::from(u32::MAX) * SECTOR);
            supported.then_some((most - most % block).max(block))
        };
        Ok(Limits {
            block,
            segments: segments as usize,
            segment_len: match self.segment_len() {
                0 => 1 << 30,
                len => len.min(1 << 30),
            },
            transfer: MAX_TRANSFER,
            flush: self.has(feature::FLUSH),
            discard: range(self.has(feature::DISCARD), self.max_discard()),
            write_zeroes: range(self.has(feature::WRITE_ZEROES), self.max_write_zeroes()),
            unmap: self.config.write_zeroes_may_unmap != 0,
            indirect,
            event_index: self.has(ring::F_EVENT_IDX),
        })
    }
}

/// What one chain takes, and what the device does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes that requests are multiples of.
    pub block: u64,
    /// Data segments of a chain, 1 at least.
    pub segments: usize,
    /// Bytes of a segment.
    pub segment_len: u32,
    /// Bytes of a chain.
    pub transfer: u64,
    pub flush: bool,
    /// Bytes of a discard, if there are discards; a multiple of the block.
    pub discard: Option<u64>,
    /// Bytes of a write zeroes, if there are such; a multiple of the block.
    pub write_zeroes: Option<u64>,
    /// Write zeroes may unmap.
    pub unmap: bool,
    pub indirect: bool,
    pub event_index: bool,
}
