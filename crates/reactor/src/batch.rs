//! What is to be sent in one go: small heads, shared memory, zeroes, in order.
//!
//! Heads are copied into one arena and coalesce; memory is pinned, not copied; zeroes come from one
//! page that all of them share. A batch keeps its allocations from use to use: two batches per
//! connection go round and round.

use std::sync::OnceLock;

use block::{Piece, Segments, SharedMem};

use crate::sys::{IOV_MAX, MAX_RW};

/// Bytes to send, in order. See the [module](self).
#[derive(Default)]
pub struct SendBatch {
    heads: Vec<u8>,
    parts: Vec<Part>,
    len: u64,
    /// Where sending stands: so many bytes of `parts[next]` are gone.
    next: usize,
    gone: u64,
}

enum Part {
    Head { at: usize, len: usize },
    Mem(SharedMem),
    Zeroes(u64),
}

impl Part {
    fn len(&self) -> u64 {
        match self {
            Part::Head { len, .. } => *len as u64,
            Part::Mem(mem) => mem.len() as u64,
            Part::Zeroes(len) => *len,
        }
    }
}

/// Arena room a cleared batch keeps, in bytes.
const KEEP_HEADS: usize = 256 << 10;

impl SendBatch {
    /// Nothing to send.
    pub fn new() -> SendBatch {
        SendBatch::default()
    }

    /// Adds a copy of some bytes: for headers.
    #[inline]
    pub fn push_head(&mut self, bytes: &[u8]) {
        let at = self.heads.len();
        self.heads.extend_from_slice(bytes);
        self.len += bytes.len() as u64;
        match self.parts.last_mut() {
            Some(Part::Head { len, .. }) => *len += bytes.len(),
            _ if bytes.is_empty() => {}
            _ => self.parts.push(Part::Head {
                at,
                len: bytes.len(),
            }),
        }
    }

    /// Adds memory, pinned until it is sent.
    #[inline]
    pub fn push_mem(&mut self, mem: SharedMem) {
        if !mem.is_empty() {
            self.len += mem.len() as u64;
            self.parts.push(Part::Mem(mem));
        }
    }

    /// Adds zero bytes.
    pub fn push_zeroes(&mut self, len: u64) {
        if len > 0 {
            self.len += len;
            self.parts.push(Part::Zeroes(len));
        }
    }

    /// Adds one piece of what a read found.
    #[inline]
    pub fn push_piece(&mut self, piece: Piece) {
        match piece {
            Piece::Mem(mem) => self.push_mem(mem),
            Piece::Zero(len) => self.push_zeroes(len),
        }
    }

    /// Adds what a read found.
    #[inline]
    pub fn push_segments(&mut self, segments: Segments) {
        segments
            .into_pieces()
            .for_each(|piece| self.push_piece(piece));
    }

    /// Length in bytes.
    #[inline]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Nothing in it?
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Parts it is made of: about as many address ranges go to the kernel.
    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Forgets everything, and keeps the room for the next use.
    pub fn clear(&mut self) {
        self.parts.clear();
        self.heads.clear();
        self.heads.shrink_to(KEEP_HEADS);
        (self.len, self.next, self.gone) = (0, 0, 0);
    }

    /// Moves up to `most` bytes to the end of `out`, for who has to change them before they are
    /// sent. Returns how many; 0 when nothing is left. What is moved is gone from the front, and
    /// the batch still has to be cleared in the end.
    pub fn drain_to(&mut self, out: &mut Vec<u8>, most: usize) -> usize {
        let mut left = most;
        while left > 0
            && let Some(part) = self.parts.get(self.next)
        {
            let n = (part.len() - self.gone).min(left as u64) as usize;
            match part {
                Part::Head { at, .. } => {
                    let at = *at + self.gone as usize;
                    out.extend_from_slice(&self.heads[at..at + n]);
                }
                Part::Mem(mem) => append(out, mem, self.gone as usize, n),
                Part::Zeroes(_) => out.resize(out.len() + n, 0),
            }
            left -= n;
            self.advance(n);
        }
        most - left
    }

    /// The bytes as a new vector: for tests and simulated connections.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len as usize);
        for part in &self.parts {
            match part {
                Part::Head { at, len } => bytes.extend_from_slice(&self.heads[*at..*at + *len]),
                Part::Mem(mem) => bytes.extend_from_slice(&mem.to_vec()),
                Part::Zeroes(len) => bytes.resize(bytes.len() + *len as usize, 0),
            }
        }
        bytes
    }
}

/// For the drivers.
impl SendBatch {
    /// Replaces `iov` by the address ranges of what is left: as much as one call takes. Returns
    /// how many bytes that is. The ranges are valid until the batch is changed.
    pub(crate) fn window(&self, iov: &mut Vec<libc::iovec>) -> usize {
        iov.clear();
        let (mut bytes, mut skip) = (0, self.gone);
        for part in self.parts.iter().skip(self.next) {
            if iov.len() == IOV_MAX || bytes == MAX_RW {
                break;
            }
            let most = MAX_RW - bytes;
            bytes += match part {
                Part::Head { at, len } => {
                    let bytes = &self.heads[*at + skip as usize..*at + *len];
                    push(iov, bytes.as_ptr(), bytes.len(), most)
                }
                Part::Mem(mem) => {
                    // SAFETY: `skip` bytes of this part are gone, which is less than it has.
                    let ptr = unsafe { mem.as_ptr().add(skip as usize) };
                    push(iov, ptr, mem.len() - skip as usize, most)
                }
                Part::Zeroes(len) => push_zeroes(iov, len - skip, most),
            };
            skip = 0;
        }
        bytes
    }

    /// So many bytes of the window are sent.
    pub(crate) fn advance(&mut self, bytes: usize) {
        let mut bytes = bytes as u64;
        while let Some(part) = self.parts.get(self.next) {
            let left = part.len() - self.gone;
            if bytes < left {
                self.gone += bytes;
                return;
            }
            bytes -= left;
            (self.next, self.gone) = (self.next + 1, 0);
        }
        assert_eq!(bytes, 0, "more was sent than there was");
    }

    /// Everything is sent.
    pub(crate) fn is_sent(&self) -> bool {
        self.next == self.parts.len()
    }
}

/// Copies a range of memory behind what `out` holds.
fn append(out: &mut Vec<u8>, mem: &SharedMem, at: usize, len: usize) {
    let range = mem.slice(at, len);
    out.reserve(len);
    // SAFETY: `range` is alive and `len` bytes long; the vector has room for as many behind its
    // end, and is nobody else's.
    unsafe {
        let end = out.as_mut_ptr().add(out.len());
        std::ptr::copy_nonoverlapping(range.as_ptr(), end, len);
        out.set_len(out.len() + len);
    }
}

fn push(iov: &mut Vec<libc::iovec>, ptr: *const u8, len: usize, most: usize) -> usize {
    let len = len.min(most);
    iov.push(libc::iovec {
        iov_base: ptr.cast_mut().cast(),
        iov_len: len,
    });
    len
}

fn push_zeroes(iov: &mut Vec<libc::iovec>, len: u64, most: usize) -> usize {
    let zeroes = zeroes();
    let mut left = usize::try_from(len).unwrap_or(usize::MAX).min(most);
    let all = left;
    while left > 0 && iov.len() < IOV_MAX {
        left -= push(iov, zeroes.as_ptr(), left.min(zeroes.len()), left);
    }
    all - left
}

/// Zeroes to send from: address space that is never written, so the kernel backs all of it with its
/// one page of zeroes, which stays in the nearest cache.
fn zeroes() -> &'static [u8] {
    const LEN: usize = 1 << 20;
    static ZEROES: OnceLock<usize> = OnceLock::new();
    let address = *ZEROES.get_or_init(|| {
        use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
        // SAFETY: a fresh private mapping touches nobody's memory.
        let map = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                LEN,
                ProtFlags::READ,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        };
        map.expect("a megabyte of address space") as usize
    });
    // SAFETY: mapped above, readable, zero, and never unmapped or written.
    unsafe { std::slice::from_raw_parts(address as *const u8, LEN) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(batch: &SendBatch, iov: &mut Vec<libc::iovec>) -> Vec<u8> {
        let n = batch.window(iov);
        let mut bytes = Vec::new();
        for range in iov.iter() {
            // SAFETY: the ranges are valid while the batch is untouched.
            let part =
                unsafe { std::slice::from_raw_parts(range.iov_base as *const u8, range.iov_len) };
            bytes.extend_from_slice(part);
        }
        assert_eq!(bytes.len(), n);
        bytes
    }

    #[test]
    fn windows_cover_all_from_any_point() {
        let mut batch = SendBatch::new();
        batch.push_head(b"ab");
        batch.push_head(b"");
        batch.push_head(b"cd");
        batch.push_mem(SharedMem::of_static(b"efg"));
        batch.push_zeroes(3);
        batch.push_head(b"h");
        assert_eq!((batch.len(), batch.parts()), (11, 4));
        let all = batch.to_vec();
        assert_eq!(all, b"abcdefg\0\0\0h");
        let mut iov = Vec::new();
        for step in 1..=11 {
            let mut copy = SendBatch::new();
            copy.push_head(b"abcd");
            copy.push_mem(SharedMem::of_static(b"efg"));
            copy.push_zeroes(3);
            copy.push_head(b"h");
            let mut at = 0;
            while !copy.is_sent() {
                assert_eq!(gather(&copy, &mut iov), all[at..]);
                let n = step.min(all.len() - at);
                copy.advance(n);
                at += n;
            }
            assert_eq!(at, all.len());
        }
        batch.clear();
        assert!(batch.is_empty() && batch.is_sent());
    }

    #[test]
    fn draining_gives_the_same_bytes_in_any_steps() {
        for step in 1..=12 {
            let mut batch = SendBatch::new();
            batch.push_head(b"abcd");
            batch.push_mem(SharedMem::of_static(b"efg"));
            batch.push_zeroes(3);
            batch.push_head(b"h");
            let mut out = b">".to_vec();
            while batch.drain_to(&mut out, step) > 0 {}
            assert_eq!(out, b">abcdefg\0\0\0h");
            assert!(batch.is_sent());
            batch.clear();
            assert!(batch.is_empty());
        }
    }

    #[test]
    fn one_window_is_what_one_call_takes() {
        let mut batch = SendBatch::new();
        for _ in 0..IOV_MAX + 5 {
            batch.push_mem(SharedMem::of_static(b"x"));
        }
        let mut iov = Vec::new();
        assert_eq!(batch.window(&mut iov), IOV_MAX);
        batch.advance(IOV_MAX);
        assert_eq!(batch.window(&mut iov), 5);
        batch.clear();
        batch.push_zeroes(u64::MAX / 2);
        assert_eq!(batch.window(&mut iov), IOV_MAX << 20);
    }
}
