//! Normalisation: whatever is asked above, the layer below sees only what its limits allow.
//!
//! One [`Normalize`] is put under every layer whose limits say *emulated*, or are stricter than what
//! lies above: it aligns (read-modify-write under a range lock), splits, bounces misaligned memory,
//! and emulates FUA by a flush, write zeroes by writes, cache by reads, extents by "all data". A
//! device that needs none of it is left alone, so a plain stack pays nothing.
//!
//! *Lost updates.* Two requests that touch different bytes of one block must both survive. So on a
//! device with blocks, a read-modify-write holds its block exclusively, and every other write holds
//! its range shared.

mod emulate;

use std::{rc::Rc, sync::Arc};

use crate::{
    data::{Data, Iov, Segment},
    device::Device,
    error::{Errno, Result},
    events::{Event, Subscription},
    limits::{Limits, MAX_TRANSFER, Support},
    op::{Flags, Op},
    queue::{Queue, QueueExt},
    range_lock::RangeLock,
    reactor::{Local, Reactor},
    request::{Counters, Request},
};

/// A device that takes any request its size allows.
pub struct Normalize {
    device: Arc<dyn Device>,
    lock: RangeLock,
}

impl Normalize {
    /// Wraps `device` if its limits ask for it.
    pub fn wrap(device: Arc<dyn Device>) -> Arc<dyn Device> {
        let limits = device.limits();
        limits.assert_valid();
        if limits.is_plain() {
            return device;
        }
        let lock = device.block_lock().unwrap_or_default();
        Arc::new(Normalize { device, lock })
    }
}

impl Device for Normalize {
    fn limits(&self) -> Arc<Limits> {
        let mut limits = self.device.limits();
        let above = Arc::make_mut(&mut limits);
        if above.support(Op::WriteZeroes) == Support::Emulated {
            above.fast_zero = false;
        }
        for support in above.ops.iter_mut().chain([&mut above.fua]) {
            if *support == Support::Emulated {
                *support = Support::Native;
            }
        }
        // What lies behind the last whole block cannot be reached.
        above.size &= !(u64::from(above.min_block) - 1);
        above.min_block = 1;
        above.memory_align = 1;
        above.max_transfer = MAX_TRANSFER;
        above.max_range = u64::MAX;
        limits
    }

    fn subscribe(&self, reactor: &Reactor, f: Box<dyn Fn(Event)>) -> Subscription {
        self.device.subscribe(reactor, f)
    }

    fn open_queue(&self, reactor: &Reactor) -> Result<Rc<dyn Queue>> {
        let next = self.device.open_queue(reactor)?;
        let limits = self.device.limits();
        let inner = Inner {
            next,
            reactor: reactor.clone(),
            limits,
            lock: self.lock.clone(),
        };
        Ok(Rc::new(NormalizeQueue(Rc::new(inner))))
    }

    fn close<'a>(&'a self, reactor: &'a Reactor) -> Local<'a, Result<()>> {
        self.device.close(reactor)
    }
}

struct NormalizeQueue(Rc<Inner>);

struct Inner {
    next: Rc<dyn Queue>,
    reactor: Reactor,
    limits: Arc<Limits>,
    lock: RangeLock,
}

impl Queue for NormalizeQueue {
    fn submit(&self, req: Request) {
        self.0.submit(req);
    }
}

impl Inner {
    fn submit(self: &Rc<Self>, req: Request) {
        let fua = req.flags().contains(Flags::FUA) && req.op().modifies();
        if fua && self.limits.fua == Support::Emulated {
            return self.write_then_flush(req);
        }
        match (req.op(), self.limits.support(req.op())) {
            (_, Support::None) => req.fail(Errno::ENOTSUP),
            (Op::Read, _) => self.read(req),
            (Op::Write, _) => self.write(req),
            (Op::Flush, Support::Emulated) | (Op::Discard, Support::Emulated) => req.done(),
            (Op::WriteZeroes, _) => self.write_zeroes(req),
            (Op::Discard | Op::SecureErase, _) => self.discard(req),
            (Op::Cache, _) => self.cache(req),
            (Op::Extents, _) => self.extents(req),
            _ => self.next.submit(req),
        }
    }

    fn block(&self) -> u64 {
        u64::from(self.limits.min_block)
    }

    fn is_aligned(&self, req: &Request) -> bool {
        (req.offset() | req.len()) & (self.block() - 1) == 0
    }

    /// The device takes this memory: its pieces begin at aligned addresses and are whole blocks.
    fn memory_fits(&self, req: &Request) -> bool {
        let (align, block) = (self.limits.memory_align, self.limits.min_block);
        let fits = |s: &Segment| {
            s.ptr as usize & (align as usize - 1) == 0 && s.len & (block as usize - 1) == 0
        };
        align == 1
            || req
                .data()
                .as_iov()
                .is_none_or(|iov| iov.segments().iter().all(fits))
    }

    /// FUA by a flush after the write.
    fn write_then_flush(self: &Rc<Self>, mut req: Request) {
        req.set_flags(req.flags().without(Flags::FUA));
        let this = self.clone();
        req.intercept(move |mut done| {
            if done.error().is_some() {
                return done.finish();
            }
            let mut flush = this.reactor.request(Op::Flush, 0, 0);
            flush.on_complete(move |flushed| {
                done.set_outcome(flushed.take_outcome());
                done.finish();
            });
            this.submit(flush);
        });
        self.submit(req);
    }

    /// Cuts a request that is too long at aligned places and submits the parts.
    fn split(self: &Rc<Self>, req: Request, most: u64) {
        let (start, len) = (req.offset(), req.len());
        let split = req.split();
        let mut at = 0;
        while at < len {
            let stop = (start + at).saturating_add(most) & !(self.block() - 1);
            let n = (stop - (start + at)).min(len - at);
            self.submit(split.part(at, n));
            at += n;
        }
    }

    fn read(self: &Rc<Self>, req: Request) {
        let block = self.block();
        let (first, last) = (
            req.offset() & !(block - 1),
            req.end().next_multiple_of(block),
        );
        if last - first > u64::from(self.limits.max_transfer) {
            return self.split(req, u64::from(self.limits.max_transfer));
        }
        if self.is_aligned(&req) && self.memory_fits(&req) {
            return self.next.submit(req);
        }
        let mut wide = self.reactor.request(Op::Read, first, last - first);
        *wide.data_mut() = Data::Wanted;
        wide.on_complete(move |done| match done.take_outcome() {
            Err(error) => req.complete(Err(error)),
            Ok(()) => {
                let given = done.data().as_given().expect("a wanted read is given");
                let part = given.slice(req.offset() - first, req.len());
                req.give(part);
            }
        });
        self.next.submit(wide);
    }

    fn write(self: &Rc<Self>, req: Request) {
        if !self.is_aligned(&req) {
            return self.write_unaligned(req);
        }
        if req.len() > u64::from(self.limits.max_transfer) {
            return self.split(req, u64::from(self.limits.max_transfer));
        }
        if !self.memory_fits(&req) {
            return self.write_bounced(req);
        }
        self.write_aligned(req);
    }

    /// An aligned change: beside others, but not beside a read-modify-write of the same block, which
    /// would put back what it read before.
    fn write_aligned(self: &Rc<Self>, mut req: Request) {
        if self.block() == 1 {
            return self.next.submit(req);
        }
        let range = req.offset()..req.end();
        if let Some(guard) = self.lock.try_shared(range.clone()) {
            req.on_complete(move |_| drop(guard));
            return self.next.submit(req);
        }
        let (this, turn) = (self.clone(), self.lock.shared(range));
        self.reactor.spawn(async move {
            let guard = turn.await;
            req.on_complete(move |_| drop(guard));
            this.next.submit(req);
        });
    }

    /// Head, middle and tail: each on its own, the ragged ones by read-modify-write.
    fn write_unaligned(self: &Rc<Self>, req: Request) {
        let (block, start, end) = (self.block(), req.offset(), req.end());
        if start / block == (end - 1) / block {
            return self.read_modify_write(req);
        }
        let split = req.split();
        let head = (start.next_multiple_of(block) - start).min(end - start);
        let tail = end & (block - 1);
        for (at, n) in [
            (0, head),
            (head, end - start - head - tail),
            (end - start - tail, tail),
        ] {
            if n > 0 {
                self.submit(split.part(at, n));
            }
        }
    }

    fn read_modify_write(self: &Rc<Self>, req: Request) {
        let block = self.block();
        let first = req.offset() & !(block - 1);
        let (this, turn) = (self.clone(), self.lock.exclusive(first..first + block));
        self.reactor.spawn(async move {
            let _guard = turn.await;
            let mut old = this.reactor.request(Op::Read, first, block);
            *old.data_mut() = Data::Wanted;
            let mut old = this.next.call(old).await;
            if let Err(error) = old.take_outcome() {
                return req.complete(Err(error));
            }
            let merged = Iov::of_chunk(this.reactor.chunk(block as usize), block as usize);
            old.data()
                .as_given()
                .expect("a wanted read is given")
                .copy_to(&merged);
            let new = req.data().as_iov().expect("a write carries bytes");
            merged
                .slice((req.offset() - first) as usize, new.len())
                .copy_iov(new);
            Counters::add(&req.counters().bytes_copied, block);
            let mut write = this.reactor.request(Op::Write, first, block);
            write.set_flags(req.flags());
            *write.data_mut() = merged.into();
            let outcome = this.next.call(write).await.take_outcome();
            req.complete(outcome);
        });
    }

    /// A write whose memory the device cannot take: from a copy.
    fn write_bounced(self: &Rc<Self>, req: Request) {
        let len = req.len() as usize;
        let copy = Iov::of_chunk(self.reactor.chunk(len), len);
        let data = req.data().as_iov().expect("a write carries bytes");
        copy.copy_iov(data);
        Counters::add(&req.counters().bytes_copied, req.len());
        let mut write = self.reactor.request(Op::Write, req.offset(), req.len());
        write.set_flags(req.flags());
        *write.data_mut() = copy.into();
        write.on_complete(move |done| req.complete(done.take_outcome()));
        self.write_aligned(write);
    }
}
