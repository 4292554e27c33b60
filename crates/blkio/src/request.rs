//! Requests on their way to a driver.

use std::ffi::CStr;

use crate::zone::Zone;

/// Flags of requests, as bits of a set.
pub mod flags {
    /// The data is durable when the request completes. Writes and write zeroes.
    pub const FUA: u32 = 1;
    /// Keep space allocated. Write zeroes.
    pub const NO_UNMAP: u32 = 2;
    /// Fail with ENOTSUP rather than write zeroes as data. Write zeroes.
    pub const NO_FALLBACK: u32 = 4;

    pub(crate) const ALL: u32 = FUA | NO_UNMAP | NO_FALLBACK;
}

/// What zones are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ZoneAction {
    Close,
    Finish,
    Open,
    Reset,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Read,
    Write,
    WriteZeroes,
    Discard,
    Flush,
    ReportZones,
    /// One zone, at the request's start.
    Zone(ZoneAction),
    /// All zones.
    AllZones(ZoneAction),
}

/// Where a request's data is: the caller's memory, which lives until it completes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Data {
    None,
    /// One buffer of the request's length.
    Buffer(*mut u8),
    /// So many buffers; the array lives as long as they do.
    Vector(*const libc::iovec, u32),
    /// Room for so many zones.
    #[expect(dead_code, reason = "no driver of zoned disks yet")]
    Zones(*mut Zone, u32),
}

/// A request whose flags were checked. Any other field is as the caller gave it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub op: Op,
    pub flags: u32,
    /// Bytes.
    pub start: u64,
    /// Bytes; the sum of a vector.
    pub len: u64,
    pub data: Data,
    pub user_data: usize,
}

// SAFETY: the addresses in it are only used as its submitter promised: by whichever thread has the
// queue, until the request completes.
unsafe impl Send for Request {}

impl Request {
    pub fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Checks flags against the kind of request.
    pub fn check_flags(op: Op, flags: u32) -> Option<&'static CStr> {
        if flags == 0 {
            return None;
        }
        let allowed = match op {
            Op::Write => flags::FUA,
            Op::WriteZeroes => flags::ALL,
            _ => 0,
        };
        if flags & !flags::ALL != 0 {
            return Some(c"unsupported bits in request flags");
        }
        let wrong = flags & !allowed;
        if wrong & flags::FUA != 0 {
            Some(c"BLKIO_REQ_FUA is invalid for this request type")
        } else if wrong & flags::NO_UNMAP != 0 {
            Some(c"BLKIO_REQ_NO_UNMAP is invalid for this request type")
        } else if wrong != 0 {
            Some(c"BLKIO_REQ_NO_FALLBACK is invalid for this request type")
        } else {
            None
        }
    }
}
