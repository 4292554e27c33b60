//! virtio-blk: configuration, requests, both ends (specification, 5.2).
//!
//! **What.** [`Parser`] makes a typed [`Command`] of a chain, for a device; [`Requests`] makes the
//! buffers of a request, for a driver. [`Config`] is the configuration space of both.
//!
//! **Contract.** A header is copied once and checked once. A [`Command`] lies inside the disk, obeys
//! the limits of the configuration and the features agreed upon; what does not is refused with the
//! status the specification names, and never reaches a disk.

mod command;
mod config;
mod request;
mod zoned;

pub use command::{Command, Parser, Pending, Range, ZoneAction};
pub use config::{CONFIG_LEN, Config, WRITEBACK_OFFSET, Zoned};
pub use request::{Operation, Reply, RequestError, Requests};
pub use zoned::{ZONE_DESCRIPTOR_LEN, Zone, ZoneState, ZoneType, zone_count, zone_header};

/// Bytes of a sector, the unit of all addresses here, whatever the disk's block size.
pub const SECTOR: u64 = 512;

/// Device id of a block device.
pub const DEVICE_ID: u32 = 2;

/// Bytes of a serial number.
pub const ID_LEN: usize = 20;

/// Bytes of a request's header.
pub const HEADER_LEN: usize = 16;

/// Feature bits (specification, 5.2.3).
pub mod feature {
    /// `size_max` is there.
    pub const SIZE_MAX: u32 = 1;
    /// `seg_max` is there.
    pub const SEG_MAX: u32 = 2;
    /// Geometry is there.
    pub const GEOMETRY: u32 = 4;
    /// The disk cannot be written.
    pub const RO: u32 = 5;
    /// `blk_size` is there.
    pub const BLK_SIZE: u32 = 6;
    /// Flush requests.
    pub const FLUSH: u32 = 9;
    /// Topology is there.
    pub const TOPOLOGY: u32 = 10;
    /// The cache's mode can be read and set.
    pub const CONFIG_WCE: u32 = 11;
    /// More than one queue.
    pub const MQ: u32 = 12;
    /// Discard requests.
    pub const DISCARD: u32 = 13;
    /// Write-zeroes requests.
    pub const WRITE_ZEROES: u32 = 14;
    /// Lifetime requests.
    pub const LIFETIME: u32 = 15;
    /// Secure-erase requests.
    pub const SECURE_ERASE: u32 = 16;
    /// Zones.
    pub const ZONED: u32 = 17;
}

/// Whether a feature is among those agreed upon.
pub fn has(features: u64, bit: u32) -> bool {
    features >> bit & 1 == 1
}

/// Request types (specification, 5.2.6).
pub(crate) mod kind {
    pub const IN: u32 = 0;
    pub const OUT: u32 = 1;
    pub const FLUSH: u32 = 4;
    pub const GET_ID: u32 = 8;
    pub const GET_LIFETIME: u32 = 10;
    pub const DISCARD: u32 = 11;
    pub const WRITE_ZEROES: u32 = 13;
    pub const SECURE_ERASE: u32 = 14;
    pub const ZONE_APPEND: u32 = 15;
    pub const ZONE_REPORT: u32 = 16;
    pub const ZONE_OPEN: u32 = 18;
    pub const ZONE_CLOSE: u32 = 20;
    pub const ZONE_FINISH: u32 = 22;
    pub const ZONE_RESET: u32 = 24;
    pub const ZONE_RESET_ALL: u32 = 26;
}

/// Flag of a write-zeroes range: the sectors may be unmapped.
pub(crate) const RANGE_UNMAP: u32 = 1;

/// Bytes of a range of discard, write zeroes and secure erase.
pub(crate) const RANGE_LEN: usize = 16;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// Failed.
    IoError = 1,
    /// The device does not do that.
    Unsupported = 2,
    /// Not possible for this zone, or in its state.
    ZoneInvalidCommand = 3,
    /// A write not at the zone's write pointer.
    ZoneUnalignedWritePointer = 4,
    /// Too many open zones.
    ZoneOpenResource = 5,
    /// Too many active zones.
    ZoneActiveResource = 6,
}

impl Status {
    /// The status of a byte, if there is one.
    pub fn of(byte: u8) -> Option<Status> {
        Some(match byte {
            0 => Status::Ok,
            1 => Status::IoError,
            2 => Status::Unsupported,
            3 => Status::ZoneInvalidCommand,
            4 => Status::ZoneUnalignedWritePointer,
            5 => Status::ZoneOpenResource,
            6 => Status::ZoneActiveResource,
            _ => return None,
        })
    }
}

/// How far a medium is worn (specification, 5.2.6, GET_LIFETIME; as in eMMC).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// Reserved blocks: 1 normal, 2 warning (80 % used), 3 urgent (90 % used); 0 unknown.
    pub pre_eol_info: u16,
    /// Wear of the SLC part: 1 to 10 in steps of 10 %, 11 beyond; 0 unknown.
    pub estimate_a: u16,
    /// Wear of the MLC part.
    pub estimate_b: u16,
}

/// Bytes of a [`Lifetime`].
pub const LIFETIME_LEN: usize = 6;

impl Lifetime {
    /// As it stands in a request.
    pub fn encode(&self) -> [u8; LIFETIME_LEN] {
        let mut bytes = [0; LIFETIME_LEN];
        let fields = [self.pre_eol_info, self.estimate_a, self.estimate_b];
        for (part, field) in bytes.chunks_exact_mut(2).zip(fields) {
            part.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    /// From a request.
    pub fn decode(bytes: &[u8; LIFETIME_LEN]) -> Lifetime {
        let field = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Lifetime {
            pre_eol_info: field(0),
            estimate_a: field(2),
            estimate_b: field(4),
        }
    }
}

#[cfg(test)]
mod tests;
