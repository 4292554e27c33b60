//! The configuration space (specification, 5.2.4).

use super::{feature, has};

/// Bytes of the configuration space, with all fields.
pub const CONFIG_LEN: usize = 96;

/// Where the only field is that a driver may write: `writeback`, a byte.
pub const WRITEBACK_OFFSET: u32 = 32;

/// Zones, if there are any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Zoned {
    /// Sectors of a zone.
    pub zone_sectors: u32,
    /// Open zones at most; 0: no limit.
    pub max_open_zones: u32,
    /// Active zones at most; 0: no limit.
    pub max_active_zones: u32,
    /// Sectors of an append at most.
    pub max_append_sectors: u32,
    /// Bytes that writes are multiples of.
    pub write_granularity: u32,
    /// 0 none, 1 host-managed, 2 host-aware.
    pub model: u8,
}

/// The configuration space. Sectors have 512 bytes everywhere; fields without their feature are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Sectors of the disk.
    pub capacity: u64,
    /// Bytes of a segment at most.
    pub size_max: u32,
    /// Data segments of a request at most.
    pub seg_max: u32,
    /// Geometry.
    pub cylinders: u16,
    /// Geometry.
    pub heads: u8,
    /// Geometry.
    pub sectors: u8,
    /// Bytes of a logical block.
    pub blk_size: u32,
    /// Logical blocks of a physical one, as a power of two.
    pub physical_block_exp: u8,
    /// The first aligned logical block.
    pub alignment_offset: u8,
    /// Good smallest request, in logical blocks.
    pub min_io_size: u16,
    /// Good large request, in logical blocks.
    pub opt_io_size: u32,
    /// 1: writes may stay in a cache until a flush.
    pub writeback: u8,
    /// Request queues.
    pub num_queues: u16,
    /// Sectors of a discard range at most.
    pub max_discard_sectors: u32,
    /// Ranges of a discard at most.
    pub max_discard_seg: u32,
    /// Sectors that discards should be aligned to.
    pub discard_sector_alignment: u32,
    /// Sectors of a write-zeroes range at most.
    pub max_write_zeroes_sectors: u32,
    /// Ranges of a write-zeroes at most.
    pub max_write_zeroes_seg: u32,
    /// 1: write zeroes with the unmap flag may unmap.
    pub write_zeroes_may_unmap: u8,
    /// Sectors of a secure-erase range at most.
    pub max_secure_erase_sectors: u32,
    /// Ranges of a secure erase at most.
    pub max_secure_erase_seg: u32,
    /// Sectors that secure erases should be aligned to.
    pub secure_erase_sector_alignment: u32,
    /// Zones.
    pub zoned: Zoned,
}

/// Calls a visitor with each field, at its place: the one list that both directions use.
macro_rules! fields {
    ($config:expr, $visit:ident) => {
        $visit!($config.capacity, 0);
        $visit!($config.size_max, 8);
        $visit!($config.seg_max, 12);
        $visit!($config.cylinders, 16);
        $visit!($config.heads, 18);
        $visit!($config.sectors, 19);
        $visit!($config.blk_size, 20);
        $visit!($config.physical_block_exp, 24);
        $visit!($config.alignment_offset, 25);
        $visit!($config.min_io_size, 26);
        $visit!($config.opt_io_size, 28);
        $visit!($config.writeback, 32);
        $visit!($config.num_queues, 34);
        $visit!($config.max_discard_sectors, 36);
        $visit!($config.max_discard_seg, 40);
        $visit!($config.discard_sector_alignment, 44);
        $visit!($config.max_write_zeroes_sectors, 48);
        $visit!($config.max_write_zeroes_seg, 52);
        $visit!($config.write_zeroes_may_unmap, 56);
        $visit!($config.max_secure_erase_sectors, 60);
        $visit!($config.max_secure_erase_seg, 64);
        $visit!($config.secure_erase_sector_alignment, 68);
        $visit!($config.zoned.zone_sectors, 72);
        $visit!($config.zoned.max_open_zones, 76);
        $visit!($config.zoned.max_active_zones, 80);
        $visit!($config.zoned.max_append_sectors, 84);
        $visit!($config.zoned.write_granularity, 88);
        $visit!($config.zoned.model, 92);
    };
}

impl Config {
    /// As it stands in the configuration space.
    pub fn encode(&self) -> [u8; CONFIG_LEN] {
        let mut bytes = [0; CONFIG_LEN];
        macro_rules! put {
            ($field:expr, $at:expr) => {
                let field = $field.to_le_bytes();
                bytes[$at..$at + field.len()].copy_from_slice(&field);
            };
        }
        fields!(self, put);
        bytes
    }

    /// From a device's answer, which may be shorter than all: fields that are missing, wholly or in
    /// part, are 0.
    pub fn decode(bytes: &[u8]) -> Config {
        let mut all = [0; CONFIG_LEN];
        let len = bytes.len().min(CONFIG_LEN);
        all[..len].copy_from_slice(&bytes[..len]);
        let mut config = Config::default();
        macro_rules! get {
            ($field:expr, $at:expr) => {
                let mut field = $field.to_le_bytes();
                let end = $at + field.len();
                if end <= len {
                    field.copy_from_slice(&all[$at..end]);
                }
                // The field's own type, which the literal above has.
                Config::put_le(&mut $field, &field);
            };
        }
        fields!(config, get);
        config
    }

    /// Reads a part, as GET_CONFIG asks for it: what is beyond the fields is 0. None beyond what a
    /// device may have.
    pub fn read(&self, offset: u32, into: &mut [u8]) -> Option<()> {
        /// vhost-user's limit.
        const MOST: usize = 256;
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(into.len()).filter(|end| *end <= MOST)?;
        let mut all = [0; MOST];
        all[..CONFIG_LEN].copy_from_slice(&self.encode());
        into.copy_from_slice(&all[start..end]);
        Some(())
    }

    /// Writes a part, as SET_CONFIG asks for it: [`WRITEBACK_OFFSET`] is all that can be written, to 0
    /// or 1, with [`feature::CONFIG_WCE`]. Whether it was done.
    pub fn write(&mut self, features: u64, offset: u32, bytes: &[u8]) -> bool {
        match bytes {
            [mode @ (0 | 1)]
                if offset == WRITEBACK_OFFSET && has(features, feature::CONFIG_WCE) =>
            {
                self.writeback = *mode;
                true
            }
            _ => false,
        }
    }

    /// Bytes that addresses and lengths of reads and writes are multiples of.
    pub fn block(&self, features: u64) -> u64 {
        match u64::from(self.blk_size) {
            size if has(features, feature::BLK_SIZE) && size > super::SECTOR => size,
            _ => super::SECTOR,
        }
    }

    fn put_le<T: Le>(field: &mut T, bytes: &[u8]) {
        *field = T::of(bytes);
    }
}

/// Little-endian numbers of any width.
trait Le {
    fn of(bytes: &[u8]) -> Self;
}

macro_rules! le {
    ($($int:ty),*) => {$(
        impl Le for $int {
            fn of(bytes: &[u8]) -> $int {
                bytes.iter().rev().fold(0u64, |n, byte| n << 8 | u64::from(*byte)) as $int
            }
        }
    )*};
}
le!(u8, u16, u32, u64);
