//! Requests that are done at once, without the ring: memory and what the page cache has.
//!
//! The ring gives reads of a file system without asynchronous reads (tmpfs) to threads of the
//! kernel: four times slower than reading.

use std::os::fd::AsRawFd;

use super::file::{File, Inline};
use crate::request::{Data, Op, Request, flags};

/// Bytes at most: more would keep the caller from its other requests for long.
const MOST: u64 = 1 << 20;

/// Misses in a row after which there are no attempts for a while.
const MISSES: u32 = 8;

/// Requests without an attempt after those.
const PAUSE: u32 = 64;

/// When to try.
#[derive(Debug)]
pub(super) struct Policy {
    inline: Inline,
    misses: u32,
    pause: u32,
}

impl Policy {
    pub fn new(inline: Inline) -> Policy {
        Policy {
            inline,
            misses: 0,
            pause: 0,
        }
    }

    /// Tries to do a read or a write at once. How many bytes are done, if it was tried: all that it is
    /// about, or fewer, and then the ring goes on.
    #[inline]
    pub fn attempt(&mut self, file: &File, request: &Request) -> Option<u64> {
        let mode = match (self.inline, request.op) {
            (Inline::Memory, _) => 0,
            (Inline::Cached, Op::Read) => libc::RWF_NOWAIT,
            _ => return None,
        };
        if request.len > MOST || request.has(flags::FUA) {
            return None;
        }
        if self.pause > 0 {
            self.pause -= 1;
            return None;
        }
        match transfer(file, request, mode) {
            Ok(moved) if moved > 0 => {
                self.misses = 0;
                Some(moved)
            }
            Err(libc::EOPNOTSUPP) => {
                self.inline = Inline::Never;
                None
            }
            // The end of the file, an error, nothing cached: the ring's business.
            _ => {
                self.misses += 1;
                if self.misses == MISSES {
                    (self.misses, self.pause) = (0, PAUSE);
                }
                None
            }
        }
    }
}

/// One call; the bytes it has moved, or its error.
fn transfer(file: &File, request: &Request, mode: i32) -> Result<u64, i32> {
    let single;
    let (vector, count) = match request.data {
        Data::Vector(vector, count) => (vector, count.min(super::queue::MAX_SEGMENTS)),
        Data::Buffer(buffer) => {
            single = libc::iovec {
                iov_base: buffer.cast(),
                iov_len: request.len as usize,
            };
            (std::ptr::from_ref(&single), 1)
        }
        _ => return Err(libc::EINVAL),
    };
    let (fd, offset) = (file.fd.as_raw_fd(), request.start as libc::off_t);
    // SAFETY: array and buffers are the caller's, who keeps them until the request completes.
    let moved = unsafe {
        match request.op {
            Op::Write => libc::pwritev2(fd, vector, count as i32, offset, mode),
            _ => libc::preadv2(fd, vector, count as i32, offset, mode),
        }
    };
    u64::try_from(moved).map_err(|_| {
        let error = std::io::Error::last_os_error();
        error.raw_os_error().unwrap_or(libc::EIO)
    })
}
