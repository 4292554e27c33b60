//! A disk in memory, shared by all clients.
//!
//! Three ways to keep the bytes, by `allocator=`: `sparse`, where only what is written takes memory
//! (see `pages`); `malloc`, where all of it is taken at the start (see `flat`); and `zstd`, where what
//! is written is kept compressed (see `zstd`). The first two hand out the memory itself, so no byte
//! of a read is copied between the disk and the export; a write is one copy. Nothing is volatile in
//! the sense of a disk cache, so FUA costs nothing and a flush has nothing to do: the contents live as
//! long as the source.
//!
//! *Contract.* A read that overlaps a write in flight sees a mix of old and new bytes, as on any disk.
//! Memory that cannot be had fails the one write that wanted it, with `ENOMEM`. Write zeroes and
//! discard give whole pages back; with NO_HOLE they stay.

mod flat;
mod pages;
mod tree;
mod zstd;

use std::{rc::Rc, sync::Arc};

use block::{
    Counters, Data, Errno, Error, ErrorKind, ExtentList, Flags, IoError, Iov, Limits, Op, OpSet,
    Piece, Pool, Queue, Reactor, Request, Result, Segments, SharedBuf, SharedMem, Source, Support,
};
use config::{Arg, Config, Size, Value, grammar};

use crate::{prepared, registry, single};

/// A disk in memory, shared by all clients.
///
/// Unless another allocator is chosen only what is written takes memory, so the disk may be far
/// larger than the memory of this machine. The contents are gone when the server stops.
#[derive(Config, Debug, Clone, PartialEq, Eq)]
pub struct MemoryConfig {
    /// Size of the disk.
    #[config(magic)]
    pub size: Size,
    /// How the bytes are kept: `sparse` (what is written takes memory), `malloc` (all of it is taken
    /// at the start; with `,mlock=true` it is never swapped out), or `zstd` (compressed).
    #[config(default = "sparse")]
    pub allocator: Allocator,
}

/// How a disk in memory keeps its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Allocator {
    /// Pages, made by the first write to them.
    #[default]
    Sparse,
    /// Everything at the start.
    Malloc {
        /// Locked: never swapped out.
        mlock: bool,
    },
    /// Compressed pages.
    Zstd,
}

impl Value for Allocator {
    const TYPE: &'static str = "ALLOCATOR";

    fn parse(text: &str) -> Result<Self, String> {
        let (name, options) = match text.split_once(',') {
            Some((name, options)) => (name, Some(options)),
            None => (text, None),
        };
        let mut allocator = match name {
            "sparse" => Allocator::Sparse,
            "malloc" => Allocator::Malloc { mlock: false },
            "zstd" => Allocator::Zstd,
            _ => return Err("must be one of sparse, malloc, zstd".into()),
        };
        for option in options.into_iter().flat_map(|options| options.split(',')) {
            match (&mut allocator, option.split_once('=')) {
                (Allocator::Malloc { mlock }, Some(("mlock", value))) => {
                    *mlock = grammar::boolean(value).map_err(|why| format!("mlock: {why}"))?;
                }
                (Allocator::Malloc { .. }, _) => {
                    return Err("malloc has one option: mlock=true|false".into());
                }
                _ => return Err(format!("{name} has no options")),
            }
        }
        Ok(allocator)
    }
}

impl MemoryConfig {
    /// A sparse disk of this size.
    pub fn sparse(size: Size) -> MemoryConfig {
        let allocator = Allocator::Sparse;
        MemoryConfig { size, allocator }
    }
}

/// The source. Its disk is empty.
///
/// # Errors
/// `Exhausted`, if not even an empty disk fits in memory. `allocator=malloc` takes its memory in
/// [`Source::ready`].
pub fn new(config: MemoryConfig) -> Result<Arc<dyn Source>> {
    let (size, allocator) = (config.size.0, config.allocator);
    match allocator {
        Allocator::Malloc { .. } => Ok(prepared::source("memory", move || {
            disk("memory", size, allocator, true)
        })),
        _ => disk("memory", size, allocator, true).map(|disk| disk.source),
    }
}

pub(crate) fn make(args: &[Arg]) -> Result<Arc<dyn Source>> {
    new(registry::parse(args)?)
}

/// A disk in memory, and the way to put bytes on it before it is served.
pub(crate) struct Disk {
    /// What clients open.
    pub source: Arc<dyn Source>,
    /// What is behind it.
    pub store: Arc<dyn Fill>,
}

/// What keeps a disk's bytes, as seen by who prepares the disk. Ranges lie on the disk.
pub(crate) trait Fill: Send + Sync + 'static {
    /// Writes.
    fn write_bytes(&self, offset: u64, bytes: &[u8]) -> Result<(), Errno>;

    /// Makes a range read as zeroes; takes no memory for it.
    fn zero_bytes(&self, offset: u64, len: u64) -> Result<(), Errno>;

    /// The process that serves has started. It may not be the one that made this.
    fn started(&self) -> Result<()> {
        Ok(())
    }
}

/// An empty disk of this size: the source `name`; `shared` if more than one client gets at it.
pub(crate) fn disk(name: &str, size: u64, allocator: Allocator, shared: bool) -> Result<Disk> {
    let exhausted = || {
        let what = format!("not enough memory for the tables of a disk of {size} bytes");
        Error::new(ErrorKind::Exhausted, what).in_node(&name.into())
    };
    let limits = limits(size, shared);
    match allocator {
        Allocator::Sparse => {
            let pages = pages::Pages::new(size).ok_or_else(exhausted)?;
            Ok(plain(name, limits, pages))
        }
        Allocator::Malloc { mlock } => {
            let flat = flat::Flat::new(size, mlock).map_err(|e| e.in_node(&name.into()))?;
            Ok(plain(name, limits, flat))
        }
        Allocator::Zstd => {
            let pages = Arc::new(zstd::Zstd::new(size).ok_or_else(exhausted)?);
            let store = pages.clone();
            let source = single::source(name, limits, move |reactor| zstd::queue(&pages, reactor));
            Ok(Disk { source, store })
        }
    }
}

/// The memory that is free, in bytes, as far as the system tells.
pub(crate) fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    };
    of("MemAvailable:")?.checked_add(of("SwapFree:").unwrap_or(0))
}

fn limits(size: u64, shared: bool) -> Limits {
    let mut limits = Limits::new(size, OpSet::DISK.without(Op::GetId));
    limits.fua = Support::Native;
    limits.fast_zero = true;
    limits.multi_conn = shared;
    limits
}

/// A disk whose bytes lie in memory as they are.
fn plain(name: &str, limits: Limits, store: impl Store + Fill) -> Disk {
    let store = Arc::new(store);
    let queues = store.clone();
    let source = single::source(name, limits, move |reactor| {
        Rc::new(MemoryQueue {
            store: queues.clone(),
            reactor: reactor.clone(),
        })
    });
    Disk { source, store }
}

/// Bytes that lie in memory as they are. Ranges lie on the disk.
trait Store: Send + Sync + 'static {
    /// Ranges longer than this, in bytes, are zeroed on the pool: a reactor has other clients.
    const ZERO_INLINE: u64;

    /// Calls `f` with each piece of memory of the range (`None` for a hole), where in it the part
    /// begins, and how many bytes the part has.
    fn read(&self, offset: u64, len: u64, f: impl FnMut(Option<Arc<SharedBuf>>, usize, u64));

    /// Copies a write's bytes in.
    ///
    /// Fails with `ENOMEM`; the bytes before the page that could not be had are written.
    fn write(&self, offset: u64, iov: &Iov) -> Result<(), Errno>;

    /// Makes a range read as zeroes. Whole pages are given back, unless `keep`.
    fn zero(&self, offset: u64, len: u64, keep: bool);

    /// Which bytes of the range are there. The answer may end early, never before the first byte;
    /// with `one` it ends where the state first changes.
    fn extents(&self, offset: u64, len: u64, one: bool) -> ExtentList;
}

struct MemoryQueue<S> {
    store: Arc<S>,
    reactor: Reactor,
}

impl<S: Store> Queue for MemoryQueue<S> {
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

impl<S: Store> MemoryQueue<S> {
    fn read(&self, req: Request) {
        if let Data::Iov(iov) = req.data() {
            Counters::add(&req.counters().bytes_copied, req.len());
            self.read_into(iov, req.offset());
            return req.done();
        }
        let mut found = Segments::new();
        self.store.read(req.offset(), req.len(), |page, at, len| {
            found.push(match page {
                Some(page) => Piece::Mem(SharedMem::of_shared(page, at, len as usize)),
                None => Piece::Zero(len),
            });
        });
        req.give(found);
    }

    fn read_into(&self, iov: &Iov, offset: u64) {
        let mut done = 0;
        self.store.read(offset, iov.len() as u64, |page, at, len| {
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
            Data::Iov(iov) => self.store.write(req.offset(), iov),
            _ => Err(Errno::ENOTSUP),
        };
        req.complete(outcome.map_err(IoError::from));
    }

    fn zero(&self, req: Request) {
        let (offset, len) = (req.offset(), req.len());
        let keep = req.flags().contains(Flags::NO_HOLE);
        if len <= S::ZERO_INLINE {
            self.store.zero(offset, len, keep);
            return req.done();
        }
        let (store, remote) = (self.store.clone(), req.into_remote(self.reactor.inbox()));
        self.reactor.offload(Pool::Cpu, move || {
            store.zero(offset, len, keep);
            remote.complete(Ok(()));
        });
    }

    fn extents(&self, mut req: Request) {
        let one = req.flags().contains(Flags::REQ_ONE);
        let list = self.store.extents(req.offset(), req.len(), one);
        *req.data_mut() = Data::Extents(list);
        req.done();
    }
}

#[cfg(test)]
mod tests;
