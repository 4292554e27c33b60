//! File I/O for requests.
//!
//! [`IoFile::submit`] takes a whole request: the operation table owns it, and so its buffer, its
//! pin and the file, until the kernel is done. Short transfers go on, the end of the file reads as
//! zeroes, and the request completes with success or the kernel's error number.
//!
//! *Three ways.* Right away on the loop (a page-cache hit costs 600 ns that way and no trip through
//! a ring); on the ring; on the blocking pool, for the poll driver. Reads try the first with
//! RWF_NOWAIT, which cannot stall. Buffered writes have no such mode on most filesystems, and a
//! ring hands them to slow kernel workers, so they are done right away for as long as that is fast:
//! after one that stalled, the file's writes go the long way for a while. A patient loop (see
//! [`crate::Options::patient`]) has nobody else to serve, and waits.

use std::{
    cell::Cell,
    fs::File,
    os::fd::{AsFd, AsRawFd, RawFd},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use block::{Data, Errno, Iov, Piece, Pin, Request, Segments, SharedMem};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::{
    io::{Driver, Io, IoInner, Step},
    sys::{self, IOV_MAX, MAX_RW},
    table::Op,
};

/// How a file is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileOptions {
    /// Register the descriptor with the ring: a little cheaper per operation.
    pub registered: bool,
    /// Try reads, and do writes, right away on the loop.
    pub inline: bool,
    /// It was opened with O_DIRECT: never right away, and a short read is the end of the file.
    pub direct: bool,
}

/// What to do with the file, for one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileVerb {
    /// Read the request's bytes.
    Read,
    /// Write the request's bytes.
    Write {
        /// Make them durable before completing (RWF_DSYNC).
        dsync: bool,
    },
    /// Make all written data durable (fdatasync(2)).
    DataSync,
    /// Allocate, punch or zero the request's range (fallocate(2)).
    Fallocate {
        /// FALLOC_FL_ bits.
        mode: i32,
    },
}

/// An open file on one loop. See the [module](self).
pub struct IoFile {
    file: Arc<File>,
    io: Rc<IoInner>,
    options: FileOptions,
    /// Offsets mean something: not a pipe, whose reads would wait for ever.
    seekable: bool,
    registered: Option<u32>,
    /// Reads right away: with RWF_NOWAIT, without (memory), or not at all.
    nowait: Cell<Nowait>,
    /// A write right away stalled lately: not before this moment again.
    stalled_until: Cell<Option<Instant>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Nowait {
    Try,
    InMemory,
    Never,
}

/// A write right away that took longer has stalled.
const STALL: Duration = Duration::from_millis(2);

/// For how long a stalled file's writes go the long way.
const STALL_PAUSE: Duration = Duration::from_millis(100);

/// Interrupted attempts before an operation fails.
const TRIES: u16 = 1000;

/// One request on its way to the file.
pub(crate) struct FileOp {
    file: Rc<IoFile>,
    req: Request,
    verb: FileVerb,
    at: u64,
    len: u64,
    done: u64,
    /// The callee picked the memory: it is handed over.
    wanted: bool,
    tries: u16,
}

impl Io {
    /// Takes a share of an open file. O_NONBLOCK is cleared on it: it would make a ring give up.
    pub fn file(&self, file: Arc<File>, options: FileOptions) -> Rc<IoFile> {
        if let Ok(flags) = fcntl_getfl(file.as_fd())
            && flags.contains(OFlags::NONBLOCK)
        {
            let _ = fcntl_setfl(file.as_fd(), flags - OFlags::NONBLOCK);
        }
        let registered = match &self.0.driver {
            Driver::Uring(uring) if options.registered => uring.register_file(file.as_raw_fd()),
            _ => None,
        };
        let seekable = rustix::fs::tell(&file).is_ok();
        Rc::new(IoFile {
            seekable,
            file,
            io: self.0.clone(),
            options,
            registered,
            nowait: Cell::new(Nowait::Try),
            stalled_until: Cell::new(None),
        })
    }
}

impl IoFile {
    /// Does `verb` at offset `at` of the file with the request's bytes or length, and completes
    /// the request.
    pub fn submit(self: &Rc<Self>, verb: FileVerb, at: u64, mut req: Request) {
        let len = req.len();
        if at
            .checked_add(len)
            .is_none_or(|end| i64::try_from(end).is_err())
        {
            return req.fail(Errno::EFBIG);
        }
        if !self.seekable {
            return req.fail(Errno::new(libc::ESPIPE));
        }
        let wanted = verb == FileVerb::Read && matches!(req.data(), Data::Wanted);
        if wanted {
            let Ok(bytes) = usize::try_from(len) else {
                return req.fail(Errno::EINVAL);
            };
            *req.data_mut() = Iov::of_chunk(self.io.chunks().take(bytes), bytes).into();
        }
        let moves = matches!(verb, FileVerb::Read | FileVerb::Write { .. });
        let fits = match req.data() {
            Data::Iov(iov) => iov.len() as u64 == len,
            Data::Kernel(buf) => u64::from(buf.len) >= len,
            _ => false,
        };
        if moves && !fits {
            return req.fail(Errno::EINVAL);
        }
        let mut op = FileOp {
            file: self.clone(),
            req,
            verb,
            at,
            len,
            done: 0,
            wanted,
            tries: 0,
        };
        if moves && len == 0 {
            return op.finish(0);
        }
        match op.right_away() {
            Some(Step::Done(result)) => op.finish(result),
            _ => drop(self.io.begin(Op::File(op))),
        }
    }

    /// The file.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    fn read_now(&self, iov: &[libc::iovec], at: u64) -> Option<i32> {
        let flags = match self.nowait.get() {
            Nowait::Never => return None,
            Nowait::InMemory => 0,
            Nowait::Try => libc::RWF_NOWAIT,
        };
        // SAFETY: the ranges belong to a request's buffer, which the caller owns.
        let result = unsafe { sys::readv(self.file.as_raw_fd(), iov, Some(at), flags) };
        if result == -libc::EOPNOTSUPP {
            let memory = rustix::fs::fstatfs(&self.file).is_ok_and(|fs| fs.f_type == TMPFS_MAGIC);
            self.nowait.set(if memory {
                Nowait::InMemory
            } else {
                Nowait::Never
            });
            return memory.then(|| self.read_now(iov, at)).flatten();
        }
        (result != -libc::EAGAIN).then_some(result)
    }

    fn write_now(&self, iov: &[libc::iovec], at: u64) -> Option<i32> {
        let begin = Instant::now();
        if self.stalled_until.get().is_some_and(|until| begin < until) {
            return None;
        }
        // SAFETY: the ranges belong to a request's buffer, which the caller owns.
        let result = unsafe { sys::writev(self.file.as_raw_fd(), iov, Some(at), 0) };
        let end = Instant::now();
        let stalled = end - begin > STALL && !self.io.patient;
        self.stalled_until.set(stalled.then(|| end + STALL_PAUSE));
        Some(result)
    }
}

/// tmpfs (statfs(2)): always in memory.
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

impl Drop for IoFile {
    fn drop(&mut self) {
        if let (Driver::Uring(uring), Some(index)) = (&self.io.driver, self.registered) {
            uring.unregister_file(index);
        }
    }
}

/// For the drivers.
impl FileOp {
    pub(crate) fn fd(&self) -> RawFd {
        self.file.file.as_raw_fd()
    }

    pub(crate) fn registered(&self) -> Option<u32> {
        self.file.registered
    }

    pub(crate) fn verb(&self) -> FileVerb {
        self.verb
    }

    /// Where in the file the rest begins, and how long it is.
    pub(crate) fn rest(&self) -> (u64, u64) {
        (self.at + self.done, self.len - self.done)
    }

    /// The rest's only address range and the registered buffer it is in, if there is only one.
    pub(crate) fn single(&self) -> Option<(*mut u8, usize, Option<u16>)> {
        let (done, left) = (self.done as usize, (self.len - self.done) as usize);
        match self.req.data() {
            Data::Iov(iov) => match iov.segments() {
                [one] => {
                    // SAFETY: `done` is less than the buffer's length.
                    let ptr = unsafe { one.ptr.add(done) };
                    Some((ptr, left.min(MAX_RW), iov.index().map(|index| index.0)))
                }
                _ => None,
            },
            // The ring counts from 0 in a buffer that has no address.
            Data::Kernel(buf) => Some((done as *mut u8, left.min(MAX_RW), Some(buf.index.0))),
            _ => None,
        }
    }

    /// The rest's address ranges, as many as one call takes.
    pub(crate) fn ranges(&self, into: &mut Vec<libc::iovec>) {
        into.clear();
        if let Data::Iov(iov) = self.req.data() {
            ranges(iov, self.done as usize, into);
        }
    }

    /// It has an address.
    pub(crate) fn addressable(&self) -> bool {
        !matches!(self.req.data(), Data::Kernel(_))
    }

    /// Tries to do all or some of it here and now.
    fn right_away(&mut self) -> Option<Step> {
        let options = self.file.options;
        if !options.inline || options.direct || !self.addressable() {
            return None;
        }
        let Data::Iov(iov) = self.req.data() else {
            return None;
        };
        let mut local = [const { EMPTY }; 16];
        let mut many = Vec::new();
        let iov = match iov.segments() {
            segments if segments.len() <= local.len() => {
                for (to, from) in local.iter_mut().zip(segments) {
                    (to.iov_base, to.iov_len) = (from.ptr.cast(), from.len);
                }
                &local[..segments.len()]
            }
            _ => {
                ranges(iov, 0, &mut many);
                &many[..]
            }
        };
        let result = match self.verb {
            FileVerb::Read => self.file.read_now(iov, self.at),
            FileVerb::Write { dsync: false } => self.file.write_now(iov, self.at),
            _ => None,
        };
        result.map(|result| self.advance(result))
    }

    /// A call has returned.
    pub(crate) fn advance(&mut self, result: i32) -> Step {
        if result == -libc::EINTR || result == -libc::EAGAIN {
            self.tries += 1;
            return if self.tries < TRIES {
                Step::Again
            } else {
                Step::Done(result)
            };
        }
        let Ok(n) = u64::try_from(result) else {
            return Step::Done(result);
        };
        match self.verb {
            FileVerb::DataSync | FileVerb::Fallocate { .. } => return Step::Done(0),
            FileVerb::Write { .. } if n == 0 => return Step::Done(-libc::ENOSPC),
            _ => {}
        }
        self.done += n;
        assert!(
            self.done <= self.len,
            "the kernel moved more than it was asked to"
        );
        let short = self.done < self.len;
        let end = n == 0 || self.file.options.direct && n % SECTOR != 0;
        match self.verb {
            FileVerb::Read if short && end => {
                self.zero_rest();
                Step::Done(0)
            }
            _ if short => Step::Again,
            _ => Step::Done(0),
        }
    }

    /// Behind the end of the file there are zeroes.
    fn zero_rest(&mut self) {
        match self.req.data() {
            // A chunk that is handed over says so itself (see `finish`).
            Data::Iov(iov) if !self.wanted => {
                iov.zero(self.done as usize, (self.len - self.done) as usize);
            }
            _ => {}
        }
    }

    /// Completes the request.
    pub(crate) fn finish(mut self, result: i32) {
        let outcome = if result < 0 {
            Err(Errno::new(result).into())
        } else {
            Ok(())
        };
        if self.wanted {
            let data = std::mem::take(self.req.data_mut());
            *self.req.data_mut() = match data {
                Data::Iov(iov) if result >= 0 => given(&iov, self.done, self.len).into(),
                _ => Data::Wanted,
            };
        }
        // The kernel's buffer has no end of file: the rest of it cannot be zeroed from here.
        let unfilled = self.verb == FileVerb::Read && !self.addressable() && self.done < self.len;
        match outcome {
            Ok(()) if unfilled => self.req.fail(Errno::EIO),
            outcome => self.req.complete(outcome),
        }
    }
}

/// Smallest unit of O_DIRECT, in bytes.
const SECTOR: u64 = 512;

const EMPTY: libc::iovec = libc::iovec {
    iov_base: std::ptr::null_mut(),
    iov_len: 0,
};

/// The chunk's first `done` bytes, then a hole.
fn given(iov: &Iov, done: u64, len: u64) -> Segments {
    let mut segments = match iov.pin() {
        Pin::Chunk(chunk) if done > 0 => SharedMem::of_chunk(chunk.clone(), done as usize).into(),
        _ => Segments::new(),
    };
    segments.push(Piece::Zero(len - done));
    segments
}

/// The address ranges of `iov` from byte `skip` on, as many as one call takes.
pub(crate) fn ranges(iov: &Iov, mut skip: usize, into: &mut Vec<libc::iovec>) {
    into.clear();
    let mut bytes = 0;
    for segment in iov.segments() {
        let here = skip.min(segment.len);
        skip -= here;
        let len = (segment.len - here).min(MAX_RW - bytes);
        if len > 0 {
            into.push(libc::iovec {
                // SAFETY: `here` is less than the segment's length.
                iov_base: unsafe { segment.ptr.add(here) }.cast(),
                iov_len: len,
            });
            bytes += len;
        }
        if into.len() == IOV_MAX || bytes == MAX_RW {
            break;
        }
    }
}
