//! The simulated loop: virtual time, seeded order, no threads, no kernel.
//!
//! One seed is one world. Whatever a real machine leaves open (which reactor runs next, which ready
//! task, which of the things that are due, how long a pool's job takes, when mail is looked at) is
//! chosen by a seeded generator, and every choice goes into a digest: the same seed gives the same
//! digest, or something outside the simulation has leaked in. When nothing is left to do, time
//! jumps to the next thing that is due, so hours of timeouts pass in no time.
//!
//! A [`SimLoop`] is a world of one reactor; a [`SimWorld`] has several, all on the caller's thread,
//! so that remotes, range locks and events across reactors are simulated too.
//!
//! *Contract.* Nothing here reads a clock, an address or a hash map's order. A future that can
//! never finish is reported by a panic that names the seed.

mod alloc;
mod arena;
mod net;
mod rng;
mod world;

pub use alloc::{CountingAlloc, allocations};
pub use net::SimNet;
pub use rng::{Rng, mix};
pub use world::SimWorld;

use std::{future::Future, time::Duration};

use block::{Reactor, Tick};

/// A world of one reactor.
pub struct SimLoop(SimWorld);

impl SimLoop {
    /// The world of `seed`.
    pub fn new(seed: u64) -> SimLoop {
        SimLoop(SimWorld::new(seed, 1))
    }

    /// Its reactor.
    pub fn reactor(&self) -> &Reactor {
        self.0.reactor(0)
    }

    /// Runs the world until `future` is done. Panics if it never can be.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.0.block_on(0, future)
    }

    /// Runs until nothing is left to do, neither now nor later.
    pub fn run_until_idle(&self) {
        self.0.run_until_idle();
    }

    /// Lets a time pass, and everything happen that falls into it.
    pub fn advance(&self, time: Duration) {
        self.0.advance(time);
    }

    /// The time.
    pub fn now(&self) -> Tick {
        self.0.now()
    }

    /// All choices so far, as one number.
    pub fn digest(&self) -> u64 {
        self.0.digest()
    }

    /// Tasks that are not done.
    pub fn tasks(&self) -> usize {
        self.0.tasks(0)
    }

    /// The world it is.
    pub fn world(&self) -> &SimWorld {
        &self.0
    }
}
