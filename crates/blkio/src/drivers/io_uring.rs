//! Files and block devices, by io_uring.
//!
//! **Why so.** Rings have plain flags: any thread may use them, one after the other, because queues
//! are handed between threads. What the page cache or memory has is read at once, without the ring.
//!
//! **Contract.** A failed flush is not forgotten: every later one of this disk fails too, because the
//! kernel tells of lost data once only.

mod file;
mod inline;
mod queue;
mod steps;

use std::{
    ffi::OsStr,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    sync::Arc,
};

use rustix::{
    fs::{Mode, OFlags, fcntl_getfl},
    io::Errno,
};

pub(crate) use queue::Queue;

use self::file::File;
use crate::{
    Error, Kind, MemoryRegion, Property, Result, State, Value,
    drivers::{Driver, DriverQueue, Queues},
    error::invalid,
    property::must_be_connected,
};

use Kind::{Bool, Int, Str, U64};
use State::{Connected, Created};

const PROPERTIES: &[Property] = &[
    Property::write("path", Str, Created),
    Property::write("fd", Int, Created),
    Property::write("direct", Bool, Created),
    Property::write("read-only", Bool, Created),
    Property::read("can-add-queues", Bool, Created),
    Property::read("capacity", U64, Connected),
    Property::read("max-queues", Int, Created),
    Property::write("num-queues", Int, Connected),
    Property::write("num-poll-queues", Int, Connected),
    Property::read("supports-poll-queues", Bool, Created),
    Property::write("num-entries", Int, Connected),
    Property::read("max-mem-regions", U64, Created),
    Property::read("may-pin-mem-regions", Bool, Created),
    Property::read("mem-region-alignment", U64, Connected),
    Property::read("needs-mem-regions", Bool, Created),
    Property::read("needs-mem-region-fd", Bool, Created),
    Property::read("request-alignment", Int, Connected),
    Property::read("optimal-io-alignment", Int, Connected),
    Property::read("optimal-io-size", Int, Connected),
    Property::read("buf-alignment", Int, Connected),
    Property::read("optimal-buf-alignment", Int, Connected),
    Property::read("max-segments", Int, Connected),
    Property::read("max-segment-len", Int, Connected),
    Property::read("max-transfer", Int, Connected),
    Property::read("max-write-zeroes-len", U64, Connected),
    Property::read("max-discard-len", U64, Connected),
    Property::read("discard-alignment", Int, Connected),
    Property::read("discard-alignment-offset", Int, Connected),
    Property::read("supports-fua-natively", Bool, Created),
    Property::read("can-grow", Bool, Created),
    Property::read("flush-needed", Bool, Created),
];

/// The driver.
pub(super) struct IoUring {
    path: String,
    fd: i32,
    direct: bool,
    read_only: bool,
    num_queues: i32,
    num_poll_queues: i32,
    num_entries: i32,
    file: Option<Arc<File>>,
}

impl IoUring {
    pub fn new() -> Result<IoUring> {
        // Containers often forbid it: better said now than with a request.
        if let Err(error) = ::io_uring::IoUring::new(1) {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::NOSYS);
            return Err(Error::system("io_uring cannot be used here", errno));
        }
        Ok(IoUring {
            path: String::new(),
            fd: -1,
            direct: false,
            read_only: false,
            num_queues: 1,
            num_poll_queues: 0,
            num_entries: 128,
            file: None,
        })
    }

    fn file(&self) -> Result<&Arc<File>> {
        self.file.as_ref().ok_or_else(must_be_connected)
    }

    fn open(&self) -> Result<OwnedFd> {
        let mut flags = OFlags::CLOEXEC;
        flags |= if self.read_only {
            OFlags::RDONLY
        } else {
            OFlags::RDWR
        };
        if self.direct {
            flags |= OFlags::DIRECT;
        }
        let path = OsStr::from_bytes(self.path.as_bytes());
        Ok(rustix::fs::open(path, flags, Mode::empty())?)
    }

    fn queue(&self, poll: bool) -> Result<crate::Queue> {
        let file = self.file()?;
        if poll && !file.can_poll {
            return Err(invalid("Poll queues not supported"));
        }
        let queue = Queue::new(file.clone(), self.num_entries as u32, poll)?;
        let queue = DriverQueue::IoUring(queue);
        Ok(crate::Queue::new(queue, self.read_only, poll))
    }
}

impl Driver for IoUring {
    fn name(&self) -> &'static str {
        "io_uring"
    }

    fn properties(&self) -> [&'static [Property]; 2] {
        [PROPERTIES, &[]]
    }

    fn get(&mut self, name: &str, _state: State) -> Result<Value> {
        let file = self.file.as_ref();
        let connected = || self.file();
        let alignment = |bytes: u32| Value::Int(i32::try_from(bytes).unwrap_or(i32::MAX));
        Ok(match name {
            "path" => Value::Str(self.path.clone()),
            "fd" => Value::Int(self.fd),
            "direct" => Value::Bool(self.direct),
            "read-only" => Value::Bool(self.read_only),
            "can-add-queues" => Value::Bool(true),
            "capacity" => Value::U64(connected()?.capacity()?),
            "max-queues" => Value::Int(i32::MAX),
            "num-queues" => Value::Int(self.num_queues),
            "num-poll-queues" => Value::Int(self.num_poll_queues),
            "supports-poll-queues" => Value::Bool(file.is_some_and(|file| file.can_poll)),
            "num-entries" => Value::Int(self.num_entries),
            "max-mem-regions" => Value::U64(u64::MAX),
            "may-pin-mem-regions" | "needs-mem-regions" | "needs-mem-region-fd" => {
                Value::Bool(false)
            }
            "mem-region-alignment" => Value::U64(connected()?.memory_alignment.into()),
            "buf-alignment" => alignment(connected()?.memory_alignment),
            "request-alignment" => alignment(connected()?.alignment),
            "optimal-io-alignment" => alignment(connected()?.optimal_alignment),
            "optimal-io-size" => alignment(connected()?.optimal_size),
            "optimal-buf-alignment" => alignment(crate::region::page_size() as u32),
            "max-segments" => Value::Int(queue::MAX_SEGMENTS as i32),
            "max-segment-len" | "max-transfer" => Value::Int(0),
            "max-write-zeroes-len" | "max-discard-len" => Value::U64(0),
            "discard-alignment" => alignment(connected()?.discard_alignment),
            "discard-alignment-offset" => Value::Int(0),
            "supports-fua-natively" => Value::Bool(file.is_some_and(|file| file.fua)),
            "can-grow" => Value::Bool(file.is_some_and(|file| file.is_regular)),
            _ => Value::Bool(true), // flush-needed
        })
    }

    fn set(&mut self, name: &str, value: Value) -> Result<()> {
        match (name, value) {
            ("path", Value::Str(path)) => self.path = path,
            ("fd", Value::Int(fd)) => self.fd = fd,
            ("direct", Value::Bool(direct)) => self.direct = direct,
            ("read-only", Value::Bool(read_only)) => self.read_only = read_only,
            ("num-queues", Value::Int(count)) => {
                self.num_queues = super::queue_count("num_queues", count)?;
            }
            ("num-poll-queues", Value::Int(count)) => {
                self.num_poll_queues = super::queue_count("num_poll_queues", count)?;
            }
            ("num-entries", Value::Int(count)) => {
                if count <= 0 {
                    return Err(invalid("num-entries must be greater than 0"));
                }
                self.num_entries = count;
            }
            _ => unreachable!("all writable properties are here"),
        }
        Ok(())
    }

    fn connect(&mut self) -> Result<()> {
        let fd = match (self.path.is_empty(), self.fd) {
            (true, ..0) => return Err(invalid("One of path and fd must be set")),
            (false, 0..) => {
                return Err(invalid("path and fd cannot be set at the same time"));
            }
            (false, ..0) => self.open()?,
            (true, fd) => {
                // A look first: what is no descriptor must not be owned.
                // SAFETY: only used for the call, which fails if it is none.
                let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
                fcntl_getfl(borrowed)?;
                // SAFETY: open, and handed over: who sets the property gives it away.
                unsafe { OwnedFd::from_raw_fd(fd) }
            }
        };
        let given = self.fd >= 0;
        let flags = fcntl_getfl(&fd)?;
        match File::new(fd, flags) {
            Ok(file) => {
                self.fd = file.fd.as_fd().as_raw_fd();
                self.direct = flags.contains(OFlags::DIRECT);
                self.read_only = flags & OFlags::ACCMODE == OFlags::RDONLY;
                self.file = Some(Arc::new(file));
                Ok(())
            }
            Err((error, fd)) => {
                if given {
                    // Handed over only if this succeeds.
                    std::mem::forget(fd);
                }
                Err(error)
            }
        }
    }

    fn start(&mut self) -> Result<Queues> {
        let file = self.file()?;
        if self.num_poll_queues > 0 && !file.can_poll {
            return Err(invalid("Poll queues not supported"));
        }
        let make =
            |count: i32, poll| -> Result<Vec<_>> { (0..count).map(|_| self.queue(poll)).collect() };
        Ok(Queues {
            queues: make(self.num_queues, false)?,
            poll_queues: make(self.num_poll_queues, true)?,
        })
    }

    fn add_queue(&mut self, poll: bool) -> Result<crate::Queue> {
        self.queue(poll)
    }

    /// Any memory will do.
    fn map(&mut self, _: &MemoryRegion) -> Result<()> {
        Ok(())
    }

    fn unmap(&mut self, _: &MemoryRegion) {}
}
