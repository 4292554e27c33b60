//! `allocator=zstd`: pages kept compressed, a RAM disk that holds more than the RAM.
//!
//! A page is 32 KiB: larger ones compress better, smaller ones make less work of a small request.
//! Reading a page costs some tens of microseconds and writing one about a hundred, so a request that
//! touches more than one goes to the pool for computing; only short ones are served in place.
//!
//! *Contract.* Reads take a reference and decompress without a lock. A write that covers a page
//! compresses first and locks for the exchange; one that covers a part holds the page's lock while it
//! is rewritten, so no update is lost. Zeroing whole pages gives them back.

use std::{
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
};

use block::{
    Counters, Data, Errno, ExtentList, Flags, IoError, Iov, Op, Pool, Queue, Reactor, Request,
    Segments, SharedMem,
};
use zstd::bulk::{Compressor, Decompressor};

use super::{
    Fill,
    tree::{Part, Tree, reading, writing},
};

/// Bytes per page.
pub(super) const PAGE: usize = 32 << 10;

/// How hard to try: at level 1 the compressor keeps up with a network, and the higher ones gain
/// little on pages of this size.
const LEVEL: i32 = 1;

/// Ranges longer than this, in bytes, are zeroed on the pool.
const ZERO_INLINE: u64 = 128 * PAGE as u64;

/// A page in memory. `PAGE` bytes of it are as they are: they did not get smaller.
type Packed = Arc<[u8]>;

/// The pages of one disk.
pub(super) struct Zstd {
    tree: Tree<Packed, PAGE>,
    /// At rest. There are as many as threads were busy at once.
    tools: Mutex<Vec<Tools>>,
}

/// What one thread needs to read or write a page.
struct Tools {
    compressor: Compressor<'static>,
    decompressor: Decompressor<'static>,
    page: Box<[u8]>,
    packed: Box<[u8]>,
}

impl Zstd {
    /// An empty disk of `size` bytes. `None` when memory is exhausted.
    pub fn new(size: u64) -> Option<Zstd> {
        let tree = Tree::new(size)?;
        let tools = Mutex::default();
        Some(Zstd { tree, tools })
    }

    /// Bytes that the pages take.
    #[cfg(test)]
    pub fn allocated(&self) -> u64 {
        self.tree.sum(|packed| packed.len() as u64)
    }

    /// The bytes of a range.
    #[cfg(test)]
    pub fn to_vec(&self, offset: u64, len: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let read = self.read(offset, len, |piece| match piece {
            Ok(piece) => bytes.extend_from_slice(piece),
            Err(hole) => bytes.resize(bytes.len() + hole as usize, 0),
        });
        read.expect("the pages are good");
        bytes
    }

    /// Hands `f` the range's bytes piece by piece, `Err` with the length for a hole.
    fn read(
        &self,
        offset: u64,
        len: u64,
        mut f: impl FnMut(Result<&[u8], u64>),
    ) -> Result<(), Errno> {
        for part in self.tree.parts(offset, len) {
            match part.slot.and_then(|slot| reading(slot).clone()) {
                None => f(Err(part.len)),
                Some(packed) => self.with_tools(|tools| {
                    tools.unpack(&packed)?;
                    f(Ok(&tools.page[part.skip..][..part.len as usize]));
                    Ok(())
                })?,
            }
        }
        Ok(())
    }

    /// Has `copy` (done, bytes to fill) give the bytes of a range.
    ///
    /// Fails with `ENOMEM`; the bytes before the page that could not be had are written.
    fn write(&self, offset: u64, len: u64, copy: impl Fn(usize, &mut [u8])) -> Result<(), Errno> {
        self.tree.check(offset, len);
        let mut done = 0;
        while done < len {
            let at = offset + done;
            let (index, skip) = (at / PAGE as u64, (at % PAGE as u64) as usize);
            let n = (len - done).min((PAGE - skip) as u64);
            let slot = self.tree.slot(index).ok_or(Errno::ENOMEM)?;
            let part = Part {
                at,
                skip,
                len: n,
                slot: Some(slot),
            };
            self.update(&part, true, |bytes| copy(done as usize, bytes))?;
            done += n;
        }
        Ok(())
    }

    /// Makes a range read as zeroes. Whole pages are given back, unless `keep`.
    fn zero(&self, offset: u64, len: u64, keep: bool) -> Result<(), Errno> {
        for part in self.tree.parts(offset, len) {
            let Some(slot) = part.slot else { continue };
            if !keep && self.tree.is_whole(&part) {
                let given_back = writing(slot).take();
                // Freed when the lock is free again.
                drop(given_back);
            } else {
                self.update(&part, false, |bytes| bytes.fill(0))?;
            }
        }
        Ok(())
    }

    /// Rewrites a part of a page; one that is not there is made only if `make`.
    fn update(
        &self,
        part: &Part<'_, Packed>,
        make: bool,
        change: impl FnOnce(&mut [u8]),
    ) -> Result<(), Errno> {
        let Some(slot) = part.slot else {
            return Ok(());
        };
        let range = part.skip..part.skip + part.len as usize;
        self.with_tools(|tools| {
            if make && self.tree.is_whole(part) {
                tools.page[range.end..].fill(0);
                change(&mut tools.page[range]);
                let packed = tools.pack()?;
                *writing(slot) = Some(packed);
                return Ok(());
            }
            let mut place = writing(slot);
            match &*place {
                Some(packed) => tools.unpack(packed)?,
                None if !make => return Ok(()),
                None => tools.page.fill(0),
            }
            change(&mut tools.page[range]);
            *place = Some(tools.pack()?);
            Ok(())
        })
    }

    fn with_tools<R>(&self, f: impl FnOnce(&mut Tools) -> Result<R, Errno>) -> Result<R, Errno> {
        let rest = || self.tools.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tools = match rest().pop() {
            Some(tools) => tools,
            None => Tools::new()?,
        };
        let result = f(&mut tools);
        rest().push(tools);
        result
    }

    /// Pages of the range that are there, counted up to 2.
    fn touched(&self, offset: u64, len: u64) -> usize {
        let parts = self.tree.parts(offset, len);
        let there = parts.filter(|part| part.slot.is_some_and(|slot| reading(slot).is_some()));
        there.take(2).count()
    }
}

impl Fill for Zstd {
    fn write_bytes(&self, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.write(offset, bytes.len() as u64, |done, target| {
            target.copy_from_slice(&bytes[done..done + target.len()]);
        })
    }

    fn zero_bytes(&self, offset: u64, len: u64) -> Result<(), Errno> {
        self.zero(offset, len, false)
    }
}

impl Tools {
    fn new() -> Result<Tools, Errno> {
        let packed = zstd::zstd_safe::compress_bound(PAGE);
        Ok(Tools {
            compressor: Compressor::new(LEVEL).map_err(|_| Errno::ENOMEM)?,
            decompressor: Decompressor::new().map_err(|_| Errno::ENOMEM)?,
            page: vec![0; PAGE].into(),
            packed: vec![0; packed].into(),
        })
    }

    /// The page, small.
    fn pack(&mut self) -> Result<Packed, Errno> {
        let packed = self
            .compressor
            .compress_to_buffer(&self.page[..], &mut self.packed[..])
            .map_err(|_| Errno::ENOMEM)?;
        Ok(match packed < PAGE {
            true => Arc::from(&self.packed[..packed]),
            false => Arc::from(&self.page[..]),
        })
    }

    /// The page, as it was.
    fn unpack(&mut self, packed: &[u8]) -> Result<(), Errno> {
        if packed.len() == PAGE {
            self.page.copy_from_slice(packed);
            return Ok(());
        }
        match self
            .decompressor
            .decompress_to_buffer(packed, &mut self.page[..])
        {
            Ok(PAGE) => Ok(()),
            _ => Err(Errno::EIO),
        }
    }
}

/// One reactor's way to the pages.
pub(super) struct ZstdQueue {
    pub pages: Arc<Zstd>,
    pub reactor: Reactor,
}

impl Queue for ZstdQueue {
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

impl ZstdQueue {
    fn read(&self, mut req: Request) {
        let (offset, len) = (req.offset(), req.len());
        let touched = self.pages.touched(offset, len);
        if touched > 1 {
            return self.read_away(req);
        }
        if let Data::Iov(iov) = req.data() {
            Counters::add(&req.counters().bytes_copied, len);
            let outcome = self.read_into(iov, offset);
            return req.complete(outcome.map_err(IoError::from));
        }
        if touched == 0 {
            return req.give(Segments::zero(len));
        }
        let chunk = self.reactor.chunk(len as usize);
        let iov = Iov::of_chunk(chunk.clone(), len as usize);
        match self.read_into(&iov, offset) {
            Ok(()) => {
                *req.data_mut() =
                    Data::Given(Segments::from(SharedMem::of_chunk(chunk, len as usize)));
                req.done();
            }
            Err(errno) => req.fail(errno),
        }
    }

    fn read_into(&self, iov: &Iov, offset: u64) -> Result<(), Errno> {
        let mut done = 0;
        self.pages
            .read(offset, iov.len() as u64, |piece| match piece {
                Ok(bytes) => {
                    iov.write(done, bytes);
                    done += bytes.len();
                }
                Err(hole) => {
                    iov.zero(done, hole as usize);
                    done += hole as usize;
                }
            })
    }

    fn read_away(&self, req: Request) {
        let (offset, len) = (req.offset(), req.len());
        let (pages, mut remote) = (self.pages.clone(), req.into_remote(self.reactor.inbox()));
        self.reactor.offload(Pool::Cpu, move || {
            let mut bytes = Vec::new();
            if bytes.try_reserve_exact(len as usize).is_err() {
                return remote.complete(Err(Errno::ENOMEM.into()));
            }
            let outcome = pages.read(offset, len, |piece| match piece {
                Ok(piece) => bytes.extend_from_slice(piece),
                Err(hole) => bytes.resize(bytes.len() + hole as usize, 0),
            });
            if outcome.is_ok() {
                remote.give(bytes);
            }
            remote.complete(outcome.map_err(IoError::from));
        });
    }

    fn write(&self, req: Request) {
        let (offset, len) = (req.offset(), req.len());
        let Data::Iov(iov) = req.data() else {
            return req.fail(Errno::ENOTSUP);
        };
        if offset % PAGE as u64 + len <= PAGE as u64 {
            let outcome = self
                .pages
                .write(offset, len, |done, bytes| iov.read(done, bytes));
            return req.complete(outcome.map_err(IoError::from));
        }
        let (pages, remote) = (self.pages.clone(), req.into_remote(self.reactor.inbox()));
        self.reactor.offload(Pool::Cpu, move || {
            let outcome = pages.write(offset, len, |done, bytes| remote.read_data(done, bytes));
            remote.complete(outcome.map_err(IoError::from));
        });
    }

    fn zero(&self, req: Request) {
        let (offset, len) = (req.offset(), req.len());
        let keep = req.flags().contains(Flags::NO_HOLE);
        let pages = self.pages.clone();
        let within = offset % PAGE as u64 + len <= PAGE as u64;
        if within || !keep && len <= ZERO_INLINE {
            let outcome = pages.zero(offset, len, keep);
            return req.complete(outcome.map_err(IoError::from));
        }
        let remote = req.into_remote(self.reactor.inbox());
        self.reactor.offload(Pool::Cpu, move || {
            let outcome = pages.zero(offset, len, keep);
            remote.complete(outcome.map_err(IoError::from));
        });
    }

    fn extents(&self, mut req: Request) {
        let one = req.flags().contains(Flags::REQ_ONE);
        let list: ExtentList = self.pages.tree.extents(req.offset(), req.len(), one);
        *req.data_mut() = Data::Extents(list);
        req.done();
    }
}

/// The queue of a reactor.
pub(super) fn queue(pages: &Arc<Zstd>, reactor: &Reactor) -> Rc<dyn Queue> {
    Rc::new(ZstdQueue {
        pages: pages.clone(),
        reactor: reactor.clone(),
    })
}
