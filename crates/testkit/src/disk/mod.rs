//! A simulated disk: what a device may do to those above it, it does.
//!
//! *Why.* Real disks are kind in tests: they answer in order, never tear a write, and keep what was
//! never flushed. This one delays, reorders, lets other requests see half a write, reports errors
//! after doing part of the work, loses at a crash whatever was not made durable (sector by sector,
//! any version since the last flush), and leaves garbage behind a discard; all by a seed. It also
//! asserts that whatever reaches it respects its [`Limits`], so a layer above that forgets
//! alignment, length or an emulation is found by the first request.
//!
//! *Contract.* A flush covers exactly the writes that had completed when it was submitted, and
//! nothing more. FUA covers exactly its own request. Once a flush has failed, none succeeds until
//! [`SimDisk::clear_poison`] or a crash. Extents are true at the moment they are looked up.

mod queue;
mod state;

use std::{
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use block::{
    Device, Event, EventHub, Limits, OpSet, Queue, RangeLock, Reactor, Result, Subscription,
};
use reactor::sim::Rng;

use queue::DiskQueue;
use state::State;

/// Bytes of a sector: what is never torn by a crash.
pub const SECTOR: u64 = 512;

/// How flushes fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlushFault {
    /// They do not.
    #[default]
    None,
    /// One in so many, and then all of them.
    OneIn(u64),
    /// All but the first so many.
    After(u64),
}

/// What goes wrong, each one time in so many requests; 0 is never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// `EIO`, nothing done.
    pub errors: u64,
    /// `ENOSPC` on writes and write zeroes, nothing done.
    pub no_space: u64,
    /// A read or write that ends part way, reported as `EIO`.
    pub short: u64,
    /// Flushes.
    pub flush: FlushFault,
}

/// How a simulated disk behaves.
#[derive(Clone, Debug)]
pub struct SimDiskOptions {
    /// Size, limits and abilities.
    pub limits: Limits,
    /// A request takes up to this long; zero serves everything at once and in order.
    pub delay: Duration,
    /// What goes wrong.
    pub faults: Faults,
    /// Seed of its choices.
    pub seed: u64,
}

impl SimDiskOptions {
    /// A disk of `size` bytes with every ability of a disk, up to 100 us per request, no faults.
    pub fn new(size: u64, seed: u64) -> SimDiskOptions {
        let mut limits = Limits::new(size, OpSet::DISK);
        limits.fua = block::Support::Native;
        limits.fast_zero = true;
        limits.multi_conn = true;
        SimDiskOptions {
            limits,
            delay: Duration::from_micros(100),
            faults: Faults::default(),
            seed,
        }
    }
}

/// A simulated disk. Shared by any number of queues and reactors.
pub struct SimDisk(Arc<Shared>);

struct Shared {
    limits: Arc<Limits>,
    delay: Duration,
    faults: Faults,
    hub: EventHub,
    lock: RangeLock,
    state: Mutex<State>,
}

impl SimDisk {
    /// A disk that reads as zeroes, all of it a hole.
    pub fn new(options: SimDiskOptions) -> Arc<SimDisk> {
        options.limits.assert_valid();
        let state = State::new(options.limits.size, Rng::new(options.seed));
        Arc::new(SimDisk(Arc::new(Shared {
            limits: Arc::new(options.limits),
            delay: options.delay,
            faults: options.faults,
            hub: EventHub::default(),
            lock: RangeLock::new(),
            state: Mutex::new(state),
        })))
    }

    /// A disk without delays or faults that does everything.
    pub fn plain(size: u64) -> Arc<SimDisk> {
        let mut options = SimDiskOptions::new(size, 0);
        options.delay = Duration::ZERO;
        SimDisk::new(options)
    }

    /// The power fails: what is not durable is kept or lost, sector by sector, by the seed. Requests
    /// in flight fail, and queues opened before stay dead.
    pub fn crash(&self) {
        self.0.lock().crash();
    }

    /// What a read would find now.
    pub fn image(&self) -> Vec<u8> {
        self.0.lock().image().to_vec()
    }

    /// What is durable now.
    pub fn durable_image(&self) -> Vec<u8> {
        self.0.lock().durable_image().to_vec()
    }

    /// Puts bytes there, durable, as data: how a test begins. Panics if the range is outside.
    pub fn preset(&self, offset: u64, bytes: &[u8]) {
        self.0.lock().preset(offset, bytes);
    }

    /// An operator has replaced the bad part: flushes work again.
    pub fn clear_poison(&self) {
        self.0.lock().poisoned = false;
    }

    /// Requests that reached it.
    pub fn requests(&self) -> u64 {
        self.0.lock().requests
    }

    /// Requests of this kind that reached it.
    pub fn count(&self, op: block::Op) -> u64 {
        self.0.lock().by_op[op as usize]
    }

    /// The most requests that were in flight at once.
    pub fn most_in_flight(&self) -> usize {
        self.0.lock().most_in_flight
    }

    /// How many times a request broke its limits; each also panicked where it was submitted.
    pub fn violations(&self) -> u64 {
        self.0.lock().violations
    }

    /// Tells the subscribers.
    pub fn emit(&self, event: Event) {
        self.0.hub.emit(event);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Device for SimDisk {
    fn limits(&self) -> Arc<Limits> {
        self.0.limits.clone()
    }

    fn subscribe(&self, reactor: &Reactor, f: Box<dyn Fn(Event)>) -> Subscription {
        self.0.hub.subscribe(reactor, f)
    }

    fn block_lock(&self) -> Option<RangeLock> {
        Some(self.0.lock.clone())
    }

    fn open_queue(&self, reactor: &Reactor) -> Result<Rc<dyn Queue>> {
        let life = self.0.lock().life;
        Ok(Rc::new(DiskQueue::new(
            self.0.clone(),
            reactor.clone(),
            life,
        )))
    }
}

#[cfg(test)]
mod tests;
