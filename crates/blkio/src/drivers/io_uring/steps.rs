//! What a request does, step by step: each step is one operation of the ring, and its result says
//! what comes next.

use std::ptr;

use io_uring::{opcode, squeue, types};
use rustix::io::Errno;

use super::{
    file::{File, negative},
    queue::MAX_SEGMENTS,
};
use crate::request::{Data, Op, Request, flags};

/// Bytes that one operation moves at most (the kernel's MAX_RW_COUNT).
const MAX_TRANSFER: u64 = 0x7fff_f000;

/// Bytes of zeroes that one operation writes at most.
const ZEROES: usize = 256 << 10;

/// The file in the ring's table.
const FILE: types::Fixed = types::Fixed(0);

/// Why a request of these could not be done.
pub(super) type Text = Option<&'static std::ffi::CStr>;

/// An operation of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Data from or to the caller's memory.
    Move,
    /// fdatasync(2).
    Sync,
    /// fallocate(2), FALLOC_FL_PUNCH_HOLE.
    Punch,
    /// fallocate(2), FALLOC_FL_ZERO_RANGE.
    Zero,
    /// Zeroes as data.
    WriteZeroes,
    /// A discard of a block device.
    Discard,
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Slot {
    pub request: Request,
    /// Bytes that are done.
    pub moved: u64,
    step: Step,
    /// The rest of a vector, once the caller's array does not fit any more.
    scratch: Vec<libc::iovec>,
}

// SAFETY: as `Request`, whose addresses these are.
unsafe impl Send for Slot {}

/// What comes after a step.
pub(super) enum Next {
    /// One more operation: [`Slot::entry`].
    Step,
    /// The end.
    Done(i32, Text),
}

impl Slot {
    pub fn new(request: Request) -> Slot {
        let mut slot = Slot {
            request,
            moved: 0,
            step: Step::Move,
            scratch: Vec::new(),
        };
        slot.begin(request);
        slot
    }

    /// Takes a new request.
    pub fn begin(&mut self, request: Request) {
        self.request = request;
        self.moved = 0;
    }

    /// The first step.
    pub fn first(&mut self, file: &File) {
        self.step = match self.request.op {
            Op::Read | Op::Write => Step::Move,
            Op::Flush => Step::Sync,
            Op::WriteZeroes if self.request.has(flags::NO_UNMAP) => Step::Zero,
            Op::Discard if !file.is_regular => Step::Discard,
            _ => Step::Punch,
        };
    }

    /// The operation of this step. What it points to lives as long as the slot's request does.
    pub fn entry(&mut self) -> squeue::Entry {
        let Request { start, len, .. } = self.request;
        match self.step {
            Step::Move => self.transfer(),
            Step::Sync => opcode::Fsync::new(FILE)
                .flags(types::FsyncFlags::DATASYNC)
                .build(),
            Step::Punch => allocate(
                start,
                len,
                libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
            ),
            Step::Zero => allocate(
                start,
                len,
                libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE,
            ),
            Step::WriteZeroes => {
                static ZERO: [u8; ZEROES] = [0; ZEROES];
                let now = (len - self.moved).min(ZEROES as u64) as u32;
                opcode::Write::new(FILE, ZERO.as_ptr(), now)
                    .offset(start + self.moved)
                    .build()
            }
            Step::Discard => {
                // BLOCK_URING_CMD_DISCARD: the start in `addr`, the length in `addr3`, which is where
                // the command's own bytes are.
                let mut command = [0; 16];
                command[..8].copy_from_slice(&len.to_ne_bytes());
                opcode::UringCmd16::new(FILE, 0x1200)
                    .cmd(command)
                    .addr(Some(start))
                    .build()
            }
        }
    }

    fn transfer(&mut self) -> squeue::Entry {
        let offset = self.request.start + self.moved;
        let rest = (self.request.len - self.moved).min(MAX_TRANSFER) as u32;
        let durable = match self.request.has(flags::FUA) {
            true => libc::RWF_DSYNC,
            false => 0,
        };
        let writes = self.request.op == Op::Write;
        match self.request.data {
            Data::Vector(vector, count) => {
                let (vector, count) = match self.moved {
                    0 => (vector, count.min(MAX_SEGMENTS)),
                    _ => self.rest_of(vector, count),
                };
                match writes {
                    true => opcode::Writev::new(FILE, vector, count)
                        .offset(offset)
                        .rw_flags(durable)
                        .build(),
                    false => opcode::Readv::new(FILE, vector, count)
                        .offset(offset)
                        .build(),
                }
            }
            data => {
                let buffer = match data {
                    Data::Buffer(buffer) => buffer.wrapping_add(self.moved as usize),
                    _ => ptr::null_mut(),
                };
                match writes {
                    true => opcode::Write::new(FILE, buffer, rest)
                        .offset(offset)
                        .rw_flags(durable)
                        .build(),
                    false => opcode::Read::new(FILE, buffer, rest).offset(offset).build(),
                }
            }
        }
    }

    /// What of a vector is not moved yet, as far as one operation takes it.
    fn rest_of(&mut self, vector: *const libc::iovec, count: u32) -> (*const libc::iovec, u32) {
        // SAFETY: the caller's array has `count` elements and lives until the request completes.
        let parts = unsafe { std::slice::from_raw_parts(vector, count as usize) };
        let mut skip = self.moved;
        self.scratch.clear();
        for part in parts {
            let len = part.iov_len as u64;
            if skip >= len {
                skip -= len;
                continue;
            }
            self.scratch.push(libc::iovec {
                iov_base: part.iov_base.wrapping_byte_add(skip as usize),
                iov_len: (len - skip) as usize,
            });
            skip = 0;
            if self.scratch.len() == MAX_SEGMENTS as usize {
                break;
            }
        }
        (self.scratch.as_ptr(), self.scratch.len() as u32)
    }

    /// Takes the result of an operation, as the ring gives it.
    pub fn advance(&mut self, result: i32, file: &File) -> Next {
        match result {
            0.. => self.succeeded(result as u32, file),
            _ if [Errno::AGAIN, Errno::INTR]
                .iter()
                .any(|e| negative(*e) == result) =>
            {
                Next::Step
            }
            _ => self.failed(result, file),
        }
    }

    fn succeeded(&mut self, count: u32, file: &File) -> Next {
        let Request { op, len, .. } = self.request;
        match self.step {
            Step::Move | Step::WriteZeroes => {
                self.moved += u64::from(count);
                if self.moved < len {
                    return match op {
                        Op::Read => self.short_read(count, file),
                        _ if count == 0 => Next::Done(negative(Errno::NOSPC), None),
                        _ => Next::Step,
                    };
                }
            }
            _ => {}
        }
        let sync = op == Op::WriteZeroes && self.request.has(flags::FUA);
        if sync && self.step != Step::Sync {
            self.step = Step::Sync;
            return Next::Step;
        }
        Next::Done(0, None)
    }

    /// Fewer bytes than asked for: the end of the file, or a reason to go on.
    fn short_read(&mut self, count: u32, file: &File) -> Next {
        let at = self.request.start + self.moved;
        let ended = count == 0 || file.capacity().is_ok_and(|size| at >= size);
        if !ended {
            return Next::Step;
        }
        if !file.is_regular {
            let text = c"the request is beyond the end of the device";
            return Next::Done(negative(Errno::INVAL), Some(text));
        }
        self.zero_rest();
        Next::Done(0, None)
    }

    /// What is behind the end of a file reads as zeroes.
    fn zero_rest(&self) {
        let mut skip = self.moved;
        let mut clear = |base: *mut u8, len: u64| {
            let from = skip.min(len);
            skip -= from;
            // SAFETY: the caller's buffer has `len` bytes, which are ours until the request completes.
            unsafe { ptr::write_bytes(base.add(from as usize), 0, (len - from) as usize) };
        };
        match self.request.data {
            Data::Buffer(buffer) => clear(buffer, self.request.len),
            Data::Vector(vector, count) => {
                for n in 0..count as usize {
                    // SAFETY: the caller's array has `count` elements.
                    let part = unsafe { *vector.add(n) };
                    clear(part.iov_base.cast(), part.iov_len as u64);
                }
            }
            _ => {}
        }
    }

    fn failed(&mut self, result: i32, file: &File) -> Next {
        let unsupported = result == negative(Errno::OPNOTSUPP);
        let zeroes = self.request.op == Op::WriteZeroes;
        match self.step {
            Step::Sync => file.poison(-result),
            // The kernel has told of lost data, and will not again.
            Step::Move if self.request.has(flags::FUA) && result == negative(Errno::IO) => {
                file.poison(-result);
            }
            // On a block device, zeroing without unmapping may write zeroes: a fallback.
            Step::Punch
                if unsupported
                    && zeroes
                    && (file.is_regular || !self.request.has(flags::NO_FALLBACK)) =>
            {
                self.step = Step::Zero;
                return Next::Step;
            }
            Step::Zero if unsupported && !self.request.has(flags::NO_FALLBACK) => {
                self.step = Step::WriteZeroes;
                return Next::Step;
            }
            Step::Discard => return self.discard_by_ioctl(file),
            _ => {}
        }
        Next::Done(result, None)
    }

    /// Kernels before 6.12 have no discard for the ring.
    fn discard_by_ioctl(&self, file: &File) -> Next {
        use std::os::fd::AsRawFd;
        const BLKDISCARD: libc::Ioctl = 0x1277;
        let range = [self.request.start, self.request.len];
        // SAFETY: the call reads two numbers.
        match unsafe { libc::ioctl(file.fd.as_raw_fd(), BLKDISCARD, &range) } {
            0 => Next::Done(0, None),
            _ => {
                let errno = std::io::Error::last_os_error().raw_os_error();
                Next::Done(-errno.unwrap_or(libc::EIO), None)
            }
        }
    }
}

fn allocate(start: u64, len: u64, mode: i32) -> squeue::Entry {
    opcode::Fallocate::new(FILE, len)
        .offset(start)
        .mode(mode)
        .build()
}
