//! What a front-end is told of a device: features and configuration space.

use std::time::Duration;

use block::{Limits, Op};
use virtio::{
    blk::{Config, ID_LEN, SECTOR, feature},
    ring::{F_EVENT_IDX, F_INDIRECT_DESC, F_RING_PACKED, F_VERSION_1},
    vhost_user::{
        Offer,
        proto::{self, protocol},
    },
};

use super::Sharing;

/// How a device is exported.
#[derive(Clone, Debug)]
pub struct Options {
    /// Rings, 1 to 256.
    pub queues: u16,
    /// Bytes of a logical block, a power of two from 512 on.
    pub block_size: u32,
    /// Nobody may write.
    pub read_only: bool,
    /// The serial number; the first 20 bytes of it.
    pub serial: String,
    /// How many may attach, if the disk can be written.
    pub sharing: Sharing,
    /// Front-ends at most, whatever they may do.
    pub max_front_ends: usize,
    /// How long a ring that is empty is looked at again and again before its reactor sleeps until the
    /// guest kicks it. 0: not at all. [`Duration::MAX`]: for ever, so that a CPU per reactor is always
    /// busy, and guests hardly ever kick.
    pub busy_poll: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            queues: 1,
            block_size: 512,
            read_only: false,
            serial: String::new(),
            sharing: Sharing::default(),
            max_front_ends: 1024,
            busy_poll: Duration::ZERO,
        }
    }
}

/// Most descriptors of a ring.
pub(super) const QUEUE_SIZE: u16 = 1024;

/// Data segments of a request at most, where the guest has indirect descriptors.
const SEGMENTS: u32 = 254;

/// Ranges of one discard or write zeroes.
const RANGES: u32 = 64;

/// Sectors of one such range: 4 GiB.
const RANGE_SECTORS: u32 = 1 << 23;

impl Options {
    /// The serial number as a guest gets it.
    pub(super) fn id(&self) -> [u8; ID_LEN] {
        let mut id = [0; ID_LEN];
        for (to, from) in id.iter_mut().zip(self.serial.bytes()) {
            *to = from;
        }
        id
    }

    pub(super) fn is_read_only(&self, limits: &Limits) -> bool {
        self.read_only || !limits.support(Op::Write).is_offered()
    }

    pub(super) fn offer(&self, limits: &Limits, read_only: bool) -> Offer {
        let writes = !read_only;
        let offers = |op| writes && limits.support(op).is_offered();
        let bits = [
            (F_VERSION_1, true),
            (F_INDIRECT_DESC, true),
            (F_EVENT_IDX, true),
            (F_RING_PACKED, true),
            (feature::SEG_MAX, true),
            (feature::BLK_SIZE, true),
            (feature::TOPOLOGY, true),
            (feature::MQ, true),
            (feature::RO, !writes),
            (feature::FLUSH, offers(Op::Flush)),
            (feature::CONFIG_WCE, offers(Op::Flush)),
            (feature::DISCARD, offers(Op::Discard)),
            (feature::WRITE_ZEROES, offers(Op::WriteZeroes)),
        ];
        let set = bits.iter().filter(|(_, on)| *on);
        Offer {
            features: set.fold(proto::feature::LOG_ALL, |set, (bit, _)| set | 1 << bit),
            required: proto::feature::VERSION_1,
            protocol: protocol::MQ
                | protocol::LOG_SHMFD
                | protocol::BACKEND_REQ
                | protocol::REPLY_ACK
                | protocol::CONFIG
                | protocol::INFLIGHT_SHMFD
                | protocol::RESET_DEVICE
                | protocol::CONFIGURE_MEM_SLOTS
                | protocol::STATUS
                | protocol::GET_VRING_BASE_INFLIGHT
                | protocol::GPA_ADDRESSES,
            queues: self.queues,
            max_queue_size: QUEUE_SIZE,
            memory_slots: 509,
        }
    }

    /// The configuration space at the beginning of a connection.
    pub(super) fn config(&self, limits: &Limits) -> Config {
        let block = self.block_size.max(SECTOR as u32);
        let preferred = limits.preferred_block.max(block);
        Config {
            capacity: limits.size / SECTOR,
            seg_max: SEGMENTS,
            blk_size: block,
            physical_block_exp: (preferred / block).ilog2() as u8,
            min_io_size: u16::try_from(preferred / block).unwrap_or(u16::MAX),
            writeback: limits.support(Op::Flush).is_offered().into(),
            num_queues: self.queues,
            max_discard_sectors: RANGE_SECTORS,
            max_discard_seg: RANGES,
            discard_sector_alignment: preferred / SECTOR as u32,
            max_write_zeroes_sectors: RANGE_SECTORS,
            max_write_zeroes_seg: RANGES,
            write_zeroes_may_unmap: 1,
            ..Config::default()
        }
    }
}
