//! Requests as a driver makes them.

use super::{
    HEADER_LEN, ID_LEN, LIFETIME_LEN, Lifetime, RANGE_LEN, RANGE_UNMAP, Range, SECTOR, Status,
    ZoneAction, kind,
};
use crate::{memory::Area, ring::Buffer};

/// A request to make. Data buffers come beside it; offsets are bytes, in whole sectors.
#[derive(Clone, Copy, Debug)]
pub enum Operation<'r> {
    /// Read into the data buffers.
    Read(u64),
    /// Write the data buffers.
    Write(u64),
    /// Make all completed writes durable.
    Flush,
    /// Ask for the serial number.
    GetId,
    /// Ask for the wear.
    GetLifetime,
    /// The ranges are not needed any more.
    Discard(&'r [Range]),
    /// The ranges become zeroes.
    WriteZeroes(&'r [Range]),
    /// The ranges become unreadable for ever.
    SecureErase(&'r [Range]),
    /// Write the data buffers at the write pointer of the zone at this offset.
    ZoneAppend(u64),
    /// Report the zones from this offset on into the data buffers.
    ZoneReport(u64),
    /// Change the state of the zone at this offset.
    ZoneManage(ZoneAction, u64),
}

/// Why a request cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// An offset or a length is not in whole sectors.
    #[error("a request is not in whole sectors of 512 bytes")]
    Unaligned,
    /// A range has 4 Gi sectors or more.
    #[error("a range of {0} bytes does not fit a request")]
    RangeLength(u64),
    /// More ranges than there is room for, or none.
    #[error("{0} ranges do not fit a request")]
    Ranges(usize),
    /// No data where there must be some, some where there must be none, or in the wrong direction.
    #[error("the data buffers do not fit the request")]
    Data,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status. A byte that is none, or that the device did not write, is an I/O error.
    pub status: Status,
    /// For an append: the sector it got.
    pub append_sector: u64,
}

// A slot: header, append sector and status behind each other, payload.
const AT_APPEND: usize = 24;
const AT_STATUS: usize = 32;
const AT_PAYLOAD: usize = 64;

/// The device has not written here.
const NO_STATUS: u8 = 0xff;

/// Slots for headers, statuses and payloads, in memory the device sees. A slot belongs to one request
/// from [`Requests::make`] to its end; who gets which is the caller's business.
#[derive(Debug)]
pub struct Requests {
    area: Area,
    guest: u64,
    ranges: u16,
}

impl Requests {
    /// Bytes of a slot with room for so many ranges.
    pub fn slot_len(ranges: u16) -> usize {
        let payload = (usize::from(ranges) * RANGE_LEN).max(ID_LEN.next_multiple_of(16));
        (AT_PAYLOAD + payload).next_multiple_of(64)
    }

    /// As many slots as fit the area, which begins at this guest address.
    pub fn new(area: Area, guest: u64, ranges: u16) -> Requests {
        Requests {
            area,
            guest,
            ranges,
        }
    }

    /// How many slots there are.
    pub fn slots(&self) -> usize {
        self.area.len() / Requests::slot_len(self.ranges)
    }

    fn start(&self, slot: u16) -> usize {
        usize::from(slot) * Requests::slot_len(self.ranges)
    }

    /// Writes a request into a slot and puts its buffers into `out`, which is cleared first.
    ///
    /// # Errors
    ///
    /// A request that no device could understand.
    ///
    /// # Panics
    ///
    /// If there is no such slot.
    pub fn make(
        &self,
        slot: u16,
        operation: &Operation<'_>,
        data: &[Buffer],
        out: &mut Vec<Buffer>,
    ) -> Result<(), RequestError> {
        let start = self.start(slot);
        let (kind, offset) = code(operation);
        if offset % SECTOR != 0 {
            return Err(RequestError::Unaligned);
        }
        check_data(operation, data)?;
        let payload = self.payload(start, operation)?;
        let header = u128::from(kind) | u128::from(offset / SECTOR) << 64;
        self.area.write(start, &header.to_le_bytes());
        self.area.store8(start + AT_STATUS, NO_STATUS);
        let buffer = |at: usize, len: usize, writable| Buffer {
            address: self.guest + (start + at) as u64,
            len: len as u32,
            writable,
        };
        out.clear();
        out.push(buffer(0, HEADER_LEN, false));
        out.extend_from_slice(data);
        if let Some((len, writable)) = payload {
            out.push(buffer(AT_PAYLOAD, len, writable));
        }
        out.push(match operation {
            Operation::ZoneAppend(_) => buffer(AT_APPEND, AT_STATUS + 1 - AT_APPEND, true),
            _ => buffer(AT_STATUS, 1, true),
        });
        Ok(())
    }

    /// Writes a payload of our own. Its length, and whether the device writes it.
    fn payload(
        &self,
        start: usize,
        operation: &Operation<'_>,
    ) -> Result<Option<(usize, bool)>, RequestError> {
        let (ranges, flag) = match operation {
            Operation::GetId => return Ok(Some((ID_LEN, true))),
            Operation::GetLifetime => return Ok(Some((LIFETIME_LEN, true))),
            Operation::WriteZeroes(ranges) => (*ranges, RANGE_UNMAP),
            Operation::Discard(ranges) | Operation::SecureErase(ranges) => (*ranges, 0),
            _ => return Ok(None),
        };
        if ranges.is_empty() || ranges.len() > usize::from(self.ranges) {
            return Err(RequestError::Ranges(ranges.len()));
        }
        for (n, range) in ranges.iter().enumerate() {
            if (range.offset | range.len) % SECTOR != 0 {
                return Err(RequestError::Unaligned);
            }
            let sectors = u32::try_from(range.len / SECTOR);
            let sectors = sectors.map_err(|_| RequestError::RangeLength(range.len))?;
            let flags = if range.unmap { flag } else { 0 };
            let word = u128::from(range.offset / SECTOR)
                | u128::from(sectors) << 64
                | u128::from(flags) << 96;
            let at = start + AT_PAYLOAD + n * RANGE_LEN;
            self.area.write(at, &word.to_le_bytes());
        }
        Ok(Some((ranges.len() * RANGE_LEN, false)))
    }

    /// How the request in a slot ended.
    pub fn reply(&self, slot: u16) -> Reply {
        let start = self.start(slot);
        let status = Status::of(self.area.load8(start + AT_STATUS));
        Reply {
            status: status.unwrap_or(Status::IoError),
            append_sector: self.area.load64(start + AT_APPEND),
        }
    }

    /// The serial number that the request in a slot got.
    pub fn id(&self, slot: u16) -> [u8; ID_LEN] {
        let mut id = [0; ID_LEN];
        self.area.read(self.start(slot) + AT_PAYLOAD, &mut id);
        id
    }

    /// The wear that the request in a slot got.
    pub fn lifetime(&self, slot: u16) -> Lifetime {
        let mut bytes = [0; LIFETIME_LEN];
        self.area.read(self.start(slot) + AT_PAYLOAD, &mut bytes);
        Lifetime::decode(&bytes)
    }
}

/// The type of a request, and the offset in its header.
fn code(operation: &Operation<'_>) -> (u32, u64) {
    match *operation {
        Operation::Read(offset) => (kind::IN, offset),
        Operation::Write(offset) => (kind::OUT, offset),
        Operation::Flush => (kind::FLUSH, 0),
        Operation::GetId => (kind::GET_ID, 0),
        Operation::GetLifetime => (kind::GET_LIFETIME, 0),
        Operation::Discard(_) => (kind::DISCARD, 0),
        Operation::WriteZeroes(_) => (kind::WRITE_ZEROES, 0),
        Operation::SecureErase(_) => (kind::SECURE_ERASE, 0),
        Operation::ZoneAppend(offset) => (kind::ZONE_APPEND, offset),
        Operation::ZoneReport(offset) => (kind::ZONE_REPORT, offset),
        Operation::ZoneManage(action, offset) => (
            match action {
                ZoneAction::Open => kind::ZONE_OPEN,
                ZoneAction::Close => kind::ZONE_CLOSE,
                ZoneAction::Finish => kind::ZONE_FINISH,
                ZoneAction::Reset => kind::ZONE_RESET,
                ZoneAction::ResetAll => kind::ZONE_RESET_ALL,
            },
            offset,
        ),
    }
}

/// Data goes with the requests that move data, in their direction.
fn check_data(operation: &Operation<'_>, data: &[Buffer]) -> Result<(), RequestError> {
    let (writable, sectors) = match operation {
        Operation::Read(_) => (true, true),
        Operation::ZoneReport(_) => (true, false),
        Operation::Write(_) | Operation::ZoneAppend(_) => (false, true),
        _ if data.is_empty() => return Ok(()),
        _ => return Err(RequestError::Data),
    };
    let total: u64 = data.iter().map(|buffer| u64::from(buffer.len)).sum();
    if total == 0 || data.iter().any(|buffer| buffer.writable != writable) {
        return Err(RequestError::Data);
    }
    if sectors && !total.is_multiple_of(SECTOR) {
        return Err(RequestError::Unaligned);
    }
    Ok(())
}
