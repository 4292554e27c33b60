//! Requests and their parts: the private shadow of everything that is under way.
//!
//! A request that the device cannot take at once goes in several chains. What must be known to send a
//! chain once more is kept until it is used: nothing about it is read from shared memory.

use std::ffi::CStr;

use rustix::io::Errno;
use virtio::ring::Buffer;

use super::{device::Limits, regions::Lookup};
use crate::request::{Data, Op, Request, flags};

/// Chains of one request at once, at most: others want the queue, too.
pub(super) const SHARE: u32 = 16;

/// Why a request fails.
pub(super) type Failure = (Errno, Option<&'static CStr>);

/// How far a vector is gone through: an element, and bytes of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    index: u32,
    skip: u64,
}

/// What a request does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its own work.
    Work,
    /// Zeroes are written as data.
    Zeroes,
    /// The flush that makes it durable.
    Flush,
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Entry {
    pub request: Request,
    pub phase: Phase,
    /// Whether this place is in use.
    pub live: bool,
    /// Whether it waits for room in the ring.
    pub waiting: bool,
    /// Bytes for which there were chains.
    pub issued: u64,
    pub cursor: Cursor,
    /// Chains under way.
    pub parts: u32,
    pub failure: Option<Failure>,
}

impl Entry {
    pub fn new(request: Request) -> Entry {
        Entry {
            request,
            phase: Phase::Work,
            live: true,
            waiting: false,
            issued: 0,
            cursor: Cursor::default(),
            parts: 0,
            failure: None,
        }
    }

    /// Whether there are chains to come.
    pub fn has_more(&self) -> bool {
        self.failure.is_none() && self.issued < self.total()
    }

    /// What `issued` comes to in this phase.
    fn total(&self) -> u64 {
        match (self.request.op, self.phase) {
            // One chain, whatever that is.
            (Op::Flush, _) | (_, Phase::Flush) => 1,
            _ => self.request.len,
        }
    }

    /// All is done but to make it durable: begins with that.
    pub fn begin_flush(&mut self, limits: &Limits) -> bool {
        let durable = self.request.has(flags::FUA) && limits.flush;
        let begins = durable && self.failure.is_none() && self.phase != Phase::Flush;
        if begins {
            self.phase = Phase::Flush;
            self.issued = 0;
        }
        begins
    }
}

/// A chain under way, by its slot.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Part {
    pub entry: u32,
    pub live: bool,
    /// Which came first.
    pub sequence: u64,
    /// Where it begins in the request, and how long it is, in bytes.
    pub offset: u64,
    pub len: u64,
    pub cursor: Cursor,
}

/// Collects the data buffers of the chain that begins at `offset` and `cursor`, as much as one chain
/// takes. Bytes that it has, and where the next one begins.
pub(super) fn gather(
    entry: &Entry,
    (offset, mut cursor): (u64, Cursor),
    limits: &Limits,
    lookup: &mut Lookup,
    zeroes: u64,
    into: &mut Vec<Buffer>,
) -> Result<(u64, Cursor), Failure> {
    into.clear();
    let rest = entry.request.len - offset;
    if entry.phase == Phase::Zeroes {
        let len = rest.min(super::memory::ZEROES as u64);
        let mut at = 0;
        while at < len && into.len() < limits.segments {
            let now = (len - at).min(limits.segment_len.into());
            into.push(buffer(zeroes + at, now, false));
            at += now;
        }
        return whole_blocks(at, at == rest, cursor, limits, into);
    }
    let writable = entry.request.op == Op::Read;
    lookup.refresh();
    let most = rest.min(limits.transfer);
    let mut gathered = 0;
    while gathered < most && into.len() < limits.segments {
        let (address, left) = next_piece(&entry.request, offset + gathered, &mut cursor);
        let len = left.min(most - gathered).min(limits.segment_len.into());
        let Some(iova) = lookup.find(address, left) else {
            let text = c"the buffer is not in a mapped memory region";
            return Err((Errno::FAULT, Some(text)));
        };
        into.push(buffer(iova, len, writable));
        cursor.skip += len;
        gathered += len;
    }
    whole_blocks(gathered, gathered == rest, cursor, limits, into)
}

fn buffer(address: u64, len: u64, writable: bool) -> Buffer {
    Buffer {
        address,
        len: len as u32,
        writable,
    }
}

/// The next bytes of a request that lie behind each other: where, and how many.
#[inline]
fn next_piece(request: &Request, offset: u64, cursor: &mut Cursor) -> (u64, u64) {
    match request.data {
        Data::Buffer(base) => (
            (base.addr() as u64).wrapping_add(offset),
            request.len - offset,
        ),
        Data::Vector(vector, count) => loop {
            if cursor.index >= count {
                // The caller has changed its array: nothing that could be mapped.
                return (u64::MAX, u64::MAX);
            }
            // SAFETY: the caller's array has `count` elements and lives until the request completes.
            let part = unsafe { *vector.add(cursor.index as usize) };
            let left = (part.iov_len as u64).saturating_sub(cursor.skip);
            if left != 0 {
                let address = (part.iov_base.addr() as u64).wrapping_add(cursor.skip);
                return (address, left);
            }
            *cursor = Cursor {
                index: cursor.index + 1,
                skip: 0,
            };
        },
        _ => (u64::MAX, u64::MAX),
    }
}

/// Takes away what is behind the last whole block, unless it is the end.
fn whole_blocks(
    gathered: u64,
    end: bool,
    mut cursor: Cursor,
    limits: &Limits,
    into: &mut Vec<Buffer>,
) -> Result<(u64, Cursor), Failure> {
    let mut over = gathered % limits.block;
    let total = gathered - over;
    if end || over == 0 {
        return Ok((gathered, cursor));
    }
    if total == 0 {
        let text = c"the buffers are too small for the number of segments that the device takes";
        return Err((Errno::INVAL, Some(text)));
    }
    while over > 0 {
        let Some(last) = into.last_mut() else { break };
        let cut = over.min(last.len.into());
        last.len -= cut as u32;
        over -= cut;
        if last.len == 0 {
            into.pop();
        }
    }
    cursor.back(gathered - total);
    Ok((total, cursor))
}

impl Cursor {
    /// Goes back by bytes that it went forward. Where that leads into elements before, it is told from
    /// the request's beginning: see [`Cursor::at`].
    fn back(&mut self, bytes: u64) {
        match self.skip.checked_sub(bytes) {
            Some(skip) => self.skip = skip,
            None => *self = Cursor::UNKNOWN,
        }
    }

    /// Not known: to be found from the beginning.
    const UNKNOWN: Cursor = Cursor {
        index: u32::MAX,
        skip: 0,
    };

    /// The place of this byte of a request, if `self` is not known to be it.
    #[inline]
    pub fn known(self, request: &Request, offset: u64) -> Cursor {
        match self.index {
            u32::MAX => Cursor::at(request, offset),
            _ => self,
        }
    }

    #[cold]
    fn at(request: &Request, offset: u64) -> Cursor {
        let mut skip = offset;
        if let Data::Vector(vector, count) = request.data {
            for index in 0..count {
                // SAFETY: the caller's array has `count` elements and lives until the request completes.
                let len = unsafe { (*vector.add(index as usize)).iov_len } as u64;
                if skip < len {
                    return Cursor { index, skip };
                }
                skip -= len;
            }
        }
        Cursor { index: 0, skip: 0 }
    }
}
