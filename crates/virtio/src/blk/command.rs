//! Requests as a device reads them.

use super::{Config, HEADER_LEN, RANGE_LEN, RANGE_UNMAP, SECTOR, Status, feature, has, kind};
use crate::{
    memory::{Memory, Segment},
    ring::Chain,
};

/// A range of discard, write zeroes or secure erase, in bytes. Never empty, always inside the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// Write zeroes: the blocks may be unmapped.
    pub unmap: bool,
}

/// What to do with a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneAction {
    /// Open it.
    Open,
    /// Close it.
    Close,
    /// Make it full.
    Finish,
    /// Make it empty.
    Reset,
    /// Make all zones empty.
    ResetAll,
}

/// A request that was checked. Offsets are in bytes and data lies inside the disk; all segments
/// together have the length that belongs to the request, in the direction of the request.
#[derive(Clone, Copy, Debug)]
pub enum Command<'c> {
    /// Fill the segments.
    Read {
        /// Where on the disk.
        offset: u64,
        /// Bytes; not 0.
        len: u32,
        /// Where to.
        data: &'c [Segment],
    },
    /// Write the segments' bytes.
    Write {
        /// Where on the disk.
        offset: u64,
        /// Bytes; not 0.
        len: u32,
        /// Where from.
        data: &'c [Segment],
    },
    /// Make all completed writes durable.
    Flush,
    /// Write the serial number, with zeroes up to 20 bytes.
    GetId {
        /// Where to; 20 bytes or more.
        data: &'c [Segment],
    },
    /// Write a [`super::Lifetime`].
    GetLifetime {
        /// Where to; 6 bytes or more.
        data: &'c [Segment],
    },
    /// The ranges are not needed any more. There may be none.
    Discard(&'c [Range]),
    /// The ranges become zeroes. There may be none.
    WriteZeroes(&'c [Range]),
    /// The ranges become unreadable for ever. There may be none.
    SecureErase(&'c [Range]),
    /// Write at the zone's write pointer; [`Pending::finish_append`] tells where that was.
    ZoneAppend {
        /// The zone's first byte.
        offset: u64,
        /// Bytes; not 0.
        len: u32,
        /// Where from.
        data: &'c [Segment],
    },
    /// Write a [`super::zone_header`] and as many zones as there is room for.
    ZoneReport {
        /// The first zone is the one of this byte.
        offset: u64,
        /// Room in bytes, 64 or more.
        len: u32,
        /// Where to.
        data: &'c [Segment],
    },
    /// Change a zone's state.
    ZoneManage {
        /// What to do.
        action: ZoneAction,
        /// The zone's first byte; 0 for all.
        offset: u64,
    },
}

/// Where an append says which sector it got.
#[derive(Debug, Default)]
enum Append {
    #[default]
    None,
    At(u64),
    /// The eight bytes lie apart: allowed, and no driver does it.
    Apart(Box<[u64; 8]>),
}

/// What is needed to answer a request. There is one for each; finishing uses it up.
#[derive(Debug)]
#[must_use = "a request that is not finished has no status"]
pub struct Pending {
    status: Option<u64>,
    /// Writable bytes before the status.
    room: u32,
    append: Append,
}

impl Pending {
    /// Writes the status. `written` bytes of data were written before, from the first one on.
    ///
    /// Gives what to tell [`crate::ring::DeviceRing::push`]: the status counts as written only if all
    /// before it was, because the length names bytes from the first one on, and may be too small but
    /// never too large (specification, 2.7.8.2). A driver of a failed read looks at the status, not
    /// at the length.
    #[inline]
    pub fn finish(self, memory: &Memory, status: Status, written: u32) -> u32 {
        let written = written.min(self.room);
        let Some(address) = self.status else {
            return written;
        };
        // The memory may have gone since: then there is nobody to tell.
        let told = memory.write(address, &[status as u8]);
        written + u32::from(told && written == self.room)
    }

    /// As [`Pending::finish`], for an append that was written at `sector`.
    pub fn finish_append(self, memory: &Memory, sector: u64) -> u32 {
        let bytes = sector.to_le_bytes();
        let told = match &self.append {
            Append::None => false,
            Append::At(address) => memory.write(*address, &bytes),
            Append::Apart(addresses) => {
                let mut pairs = addresses.iter().zip(bytes);
                pairs.all(|(address, byte)| memory.write(*address, &[byte]))
            }
        };
        let room = self.room;
        match told {
            true => self.finish(memory, Status::Ok, room),
            false => self.finish(memory, Status::IoError, 0),
        }
    }
}

/// Reads requests. One per queue.
#[derive(Debug)]
pub struct Parser {
    /// What the device says of itself. It may change between requests, as when a disk is resized.
    pub config: Config,
    /// Features agreed upon.
    pub features: u64,
    /// The device cannot be written, whatever was agreed upon.
    pub read_only: bool,
    ranges: Vec<Range>,
}

impl Parser {
    /// For a device.
    pub fn new(config: Config, features: u64, read_only: bool) -> Parser {
        Parser {
            config,
            features,
            read_only: read_only || has(features, feature::RO),
            ranges: Vec::new(),
        }
    }

    /// What the chain asks for; or the status with which it is to be answered at once. A chain without
    /// room for a status is refused too, and told to nobody.
    #[inline]
    pub fn parse<'c>(
        &'c mut self,
        memory: &Memory,
        chain: &'c mut Chain,
    ) -> (Pending, Result<Command<'c>, Status>) {
        let status = chain.take_last();
        let mut pending = Pending {
            status,
            room: chain.writable_len(),
            append: Append::None,
        };
        let mut header = [0; HEADER_LEN];
        if chain.fault().is_some() || status.is_none() || !chain.take_front(memory, &mut header) {
            return (pending, Err(Status::IoError));
        }
        let word = u128::from_le_bytes(header);
        let (kind, sector) = (word as u32, (word >> 64) as u64);
        let command = match kind {
            kind::IN => self.read(sector, chain),
            kind::OUT => self.write(sector, chain),
            kind::FLUSH => Ok(Command::Flush),
            _ => self.others(kind, sector, memory, chain, &mut pending),
        };
        (pending, command)
    }

    #[inline]
    fn read<'c>(&self, sector: u64, chain: &'c Chain) -> Result<Command<'c>, Status> {
        let len = chain.writable_len();
        Ok(Command::Read {
            offset: self.place(sector, u64::from(len))?,
            len,
            data: chain.writable(),
        })
    }

    #[inline]
    fn write<'c>(&self, sector: u64, chain: &'c Chain) -> Result<Command<'c>, Status> {
        let len = chain.readable_len();
        self.writable()?;
        Ok(Command::Write {
            offset: self.place(sector, u64::from(len))?,
            len,
            data: chain.readable(),
        })
    }

    /// Everything that is not read, write or flush.
    #[inline(never)]
    fn others<'c>(
        &'c mut self,
        kind: u32,
        sector: u64,
        memory: &Memory,
        chain: &'c mut Chain,
        pending: &mut Pending,
    ) -> Result<Command<'c>, Status> {
        let room = |least: usize| {
            let fits = chain.writable_len() as usize >= least;
            fits.then_some(()).ok_or(Status::IoError)
        };
        match kind {
            kind::GET_ID => {
                room(super::ID_LEN)?;
                Ok(Command::GetId {
                    data: chain.writable(),
                })
            }
            kind::GET_LIFETIME => {
                self.agreed(feature::LIFETIME)?;
                room(super::LIFETIME_LEN)?;
                Ok(Command::GetLifetime {
                    data: chain.writable(),
                })
            }
            kind::DISCARD | kind::WRITE_ZEROES | kind::SECURE_ERASE => {
                self.read_ranges(kind, memory, chain)?;
                Ok(match kind {
                    kind::DISCARD => Command::Discard(&self.ranges),
                    kind::WRITE_ZEROES => Command::WriteZeroes(&self.ranges),
                    _ => Command::SecureErase(&self.ranges),
                })
            }
            _ => self.zoned(kind, sector, chain, pending),
        }
    }

    fn zoned<'c>(
        &self,
        kind: u32,
        sector: u64,
        chain: &'c mut Chain,
        pending: &mut Pending,
    ) -> Result<Command<'c>, Status> {
        let action = match kind {
            kind::ZONE_APPEND => return self.append(sector, chain, pending),
            kind::ZONE_REPORT => {
                self.agreed(feature::ZONED)?;
                let len = chain.writable_len();
                if (len as usize) < super::ZONE_DESCRIPTOR_LEN {
                    return Err(Status::ZoneInvalidCommand);
                }
                return Ok(Command::ZoneReport {
                    offset: self.inside(sector, 1).ok_or(Status::ZoneInvalidCommand)?,
                    len,
                    data: chain.writable(),
                });
            }
            kind::ZONE_OPEN => ZoneAction::Open,
            kind::ZONE_CLOSE => ZoneAction::Close,
            kind::ZONE_FINISH => ZoneAction::Finish,
            kind::ZONE_RESET => ZoneAction::Reset,
            kind::ZONE_RESET_ALL => ZoneAction::ResetAll,
            _ => return Err(Status::Unsupported),
        };
        self.agreed(feature::ZONED)?;
        self.writable()?;
        let sector = if action == ZoneAction::ResetAll {
            0
        } else {
            sector
        };
        let offset = self.zone(sector)?;
        Ok(Command::ZoneManage { action, offset })
    }

    fn append<'c>(
        &self,
        sector: u64,
        chain: &'c mut Chain,
        pending: &mut Pending,
    ) -> Result<Command<'c>, Status> {
        self.agreed(feature::ZONED)?;
        self.writable()?;
        let mut addresses = [0; 8];
        for address in addresses.iter_mut().rev() {
            *address = chain.take_last().ok_or(Status::IoError)?;
        }
        let [first, ..] = addresses;
        let together = (1u64..)
            .zip(&addresses[1..])
            .all(|(n, address)| first.checked_add(n) == Some(*address));
        pending.append = match together {
            true => Append::At(first),
            false => Append::Apart(Box::new(addresses)),
        };
        let len = chain.readable_len();
        let offset = self.zone(sector)?;
        self.place(sector, u64::from(len))?;
        if u64::from(len) / SECTOR > u64::from(self.config.zoned.max_append_sectors) {
            return Err(Status::ZoneInvalidCommand);
        }
        let granularity = self.config.zoned.write_granularity;
        if granularity != 0 && !len.is_multiple_of(granularity) {
            return Err(Status::ZoneUnalignedWritePointer);
        }
        Ok(Command::ZoneAppend {
            offset,
            len,
            data: chain.readable(),
        })
    }

    /// The offset of a zone, if the sector is the first of one.
    fn zone(&self, sector: u64) -> Result<u64, Status> {
        let size = u64::from(self.config.zoned.zone_sectors);
        if size == 0 || !sector.is_multiple_of(size) {
            return Err(Status::ZoneInvalidCommand);
        }
        self.inside(sector, 1).ok_or(Status::ZoneInvalidCommand)
    }

    fn agreed(&self, bit: u32) -> Result<(), Status> {
        has(self.features, bit)
            .then_some(())
            .ok_or(Status::Unsupported)
    }

    #[inline]
    fn writable(&self) -> Result<(), Status> {
        if self.read_only {
            return Err(Status::IoError);
        }
        Ok(())
    }

    /// The offset in bytes of sectors that are on the disk.
    #[inline]
    fn inside(&self, sector: u64, sectors: u64) -> Option<u64> {
        let end = sector.checked_add(sectors)?;
        if end > self.config.capacity || end > u64::MAX / SECTOR {
            return None;
        }
        Some(sector * SECTOR)
    }

    /// The offset in bytes of data that is on the disk, in whole blocks, and not empty.
    #[inline]
    fn place(&self, sector: u64, len: u64) -> Result<u64, Status> {
        let offset = self.inside(sector, len.div_ceil(SECTOR));
        let block = self.config.block(self.features);
        // A block is a power of two, or else nothing is aligned to it.
        match offset {
            Some(offset) if len != 0 && (offset | len) & (block - 1) == 0 => Ok(offset),
            _ => Err(Status::IoError),
        }
    }

    /// Copies the ranges, each once, and checks them all.
    fn read_ranges(&mut self, kind: u32, memory: &Memory, chain: &mut Chain) -> Result<(), Status> {
        let config = &self.config;
        let (bit, most, most_sectors) = match kind {
            kind::DISCARD => (
                feature::DISCARD,
                config.max_discard_seg,
                config.max_discard_sectors,
            ),
            kind::WRITE_ZEROES => (
                feature::WRITE_ZEROES,
                config.max_write_zeroes_seg,
                config.max_write_zeroes_sectors,
            ),
            _ => (
                feature::SECURE_ERASE,
                config.max_secure_erase_seg,
                config.max_secure_erase_sectors,
            ),
        };
        self.agreed(bit)?;
        self.writable()?;
        let len = chain.readable_len() as usize;
        let count = len / RANGE_LEN;
        if !len.is_multiple_of(RANGE_LEN) || count == 0 || count > most as usize {
            return Err(Status::IoError);
        }
        let block = self.config.block(self.features);
        self.ranges.clear();
        for _ in 0..count {
            let mut bytes = [0; RANGE_LEN];
            if !chain.take_front(memory, &mut bytes) {
                return Err(Status::IoError);
            }
            let word = u128::from_le_bytes(bytes);
            let (sector, sectors) = (word as u64, (word >> 64) as u32);
            let flags = (word >> 96) as u32;
            let known = if kind == kind::WRITE_ZEROES {
                RANGE_UNMAP
            } else {
                0
            };
            if flags & !known != 0 {
                return Err(Status::Unsupported);
            }
            let offset = self.inside(sector, u64::from(sectors));
            let offset = offset.ok_or(Status::IoError)?;
            let len = u64::from(sectors) * SECTOR;
            if sectors > most_sectors || (offset | len) & (block - 1) != 0 {
                return Err(Status::IoError);
            }
            if len != 0 {
                self.ranges.push(Range {
                    offset,
                    len,
                    unmap: flags & RANGE_UNMAP != 0,
                });
            }
        }
        Ok(())
    }
}
