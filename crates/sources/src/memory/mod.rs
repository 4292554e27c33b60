//! A sparse disk in memory, shared by all clients.
//!
//! Only what is written takes memory: the disk is a tree of pages (see `pages`), and a page that is
//! not there reads as a hole. A read hands out the page itself, so no byte is copied between the disk
//! and the export; a write is one copy into the page. Nothing is volatile in the sense of a disk
//! cache, so FUA costs nothing and a flush has nothing to do: the contents live as long as the source.
//!
//! *Contract.* A read that overlaps a write in flight sees a mix of old and new bytes, as on any disk.
//! Memory that cannot be had fails the one write that wanted it, with `ENOMEM`. Write zeroes and
//! discard give whole pages back; with NO_HOLE they stay.

mod pages;

use std::{rc::Rc, sync::Arc};

use block::{
    Counters, Data, Errno, Error, ErrorKind, Flags, IoError, Iov, Limits, Op, OpSet, Piece, Pool,
    Queue, Reactor, Request, Result, Segments, SharedMem, Source, Support,
};
use config::{Arg, Config, Size};
use pages::{PAGE, Pages};

use crate::{registry, single};

/// A sparse disk in memory, shared by all clients.
///
/// Only what is written takes memory, so the disk may be far larger than the memory of this machine.
/// The contents are gone when the server stops.
#[derive(Config, Debug, Clone, PartialEq, Eq)]
pub struct MemoryConfig {
    /// Size of the disk.
    #[config(magic)]
    pub size: Size,
}

/// The source. Its disk is empty.
///
/// # Errors
/// `Exhausted`, if not even an empty disk fits in memory.
pub fn new(config: MemoryConfig) -> Result<Arc<dyn Source>> {
    disk("memory", config.size.0, true)
}

/// A source called `name` whose one disk is empty; `shared` if more than one client gets at it.
pub(crate) fn disk(name: &str, size: u64, shared: bool) -> Result<Arc<dyn Source>> {
    let Some(pages) = Pages::new(size) else {
        let what = format!("not enough memory for the tables of a disk of {size} bytes");
        return Err(Error::new(ErrorKind::Exhausted, what).in_node(&name.into()));
    };
    let pages = Arc::new(pages);
    let mut limits = Limits::new(size, OpSet::DISK.without(Op::GetId));
    limits.fua = Support::Native;
    limits.fast_zero = true;
    limits.multi_conn = shared;
    Ok(single::source(name, limits, move |reactor| {
        Rc::new(MemoryQueue {
            pages: pages.clone(),
            reactor: reactor.clone(),
        })
    }))
}

pub(crate) fn make(args: &[Arg]) -> Result<Arc<dyn Source>> {
    new(registry::parse(args)?)
}

/// Ranges longer than this, in bytes, are zeroed on the pool: giving a page back costs about a
/// microsecond, and a reactor has other clients.
const INLINE: u64 = 128 * PAGE as u64;

struct MemoryQueue {
    pages: Arc<Pages>,
    reactor: Reactor,
}

impl Queue for MemoryQueue {
    #[inline]
    fn submit(&self, req: Request) {
        match req.op() {
            Op::Read => self.read(req),
            Op::Write => self.write(req),
            Op::Flush | Op::Cache => req.done(),
            Op::WriteZeroes | Op::Discard => self.zero(req),
            Op::Extents => self.extents(req),
            _ => req.fail(Errno::ENOTSUP),
        }
    }
}

impl MemoryQueue {
    fn read(&self, req: Request) {
        if let Data::Iov(iov) = req.data() {
            Counters::add(&req.counters().bytes_copied, req.len());
            self.read_into(iov, req.offset());
            return req.done();
        }
        let mut found = Segments::new();
        self.pages.read(req.offset(), req.len(), |page, at, len| {
            found.push(match page {
                Some(page) => Piece::Mem(SharedMem::of_shared(page, at, len as usize)),
                None => Piece::Zero(len),
            });
        });
        req.give(found);
    }

    fn read_into(&self, iov: &Iov, offset: u64) {
        let mut done = 0;
        self.pages.read(offset, iov.len() as u64, |page, at, len| {
            let len = len as usize;
            match page {
                Some(page) => iov.write_mem(done, &SharedMem::of_shared(page, at, len), 0, len),
                None => iov.zero(done, len),
            }
            done += len;
        });
    }

    fn write(&self, req: Request) {
        let outcome = match req.data() {
            Data::Iov(iov) => self.pages.write(req.offset(), iov),
            _ => Err(Errno::ENOTSUP),
        };
        req.complete(outcome.map_err(IoError::from));
    }

    fn zero(&self, req: Request) {
        let (offset, len) = (req.offset(), req.len());
        let keep = req.flags().contains(Flags::NO_HOLE);
        if len <= INLINE {
            self.pages.zero(offset, len, keep);
            return req.done();
        }
        let (pages, remote) = (self.pages.clone(), req.into_remote(self.reactor.inbox()));
        self.reactor.offload(Pool::Cpu, move || {
            pages.zero(offset, len, keep);
            remote.complete(Ok(()));
        });
    }

    fn extents(&self, mut req: Request) {
        let one = req.flags().contains(Flags::REQ_ONE);
        let list = self.pages.extents(req.offset(), req.len(), one);
        *req.data_mut() = Data::Extents(list);
        req.done();
    }
}

#[cfg(test)]
mod tests;
