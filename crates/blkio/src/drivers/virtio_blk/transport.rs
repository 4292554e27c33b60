//! What a driver of virtio-blk devices needs of the way to its device.
#![expect(dead_code, reason = "the drivers come next")]

use std::{ops::RangeInclusive, os::fd::BorrowedFd};

use crate::{MemoryRegion, Result};

/// The way to a device: its control path. All of it may take a while, but has an end: who does not
/// answer in time is an error.
///
/// The order of calls: `features`, `read_config`, then `accept`; `map` for the driver's own memory,
/// which has the rings; `setup_queue` for each queue, `start`. Memory is mapped and unmapped, and
/// configuration read, until the transport is dropped, which stops the device: when that is over, it
/// does not touch memory any more.
///
/// The device sees memory at addresses that the driver chooses (`iova`), within
/// [`Transport::addresses`]; rings and data alike.
pub(crate) trait Transport: Send {
    /// The features that the device offers, bits of the virtio specification.
    fn features(&self) -> u64;

    /// How many queues the transport can drive; what the device has, its configuration says.
    fn max_queues(&self) -> u16;

    /// Descriptors of a queue at most.
    fn max_queue_size(&self) -> u16;

    /// Reads configuration space. What is beyond its end is 0.
    fn read_config(&mut self, offset: u32, into: &mut [u8]) -> Result<()>;

    /// Says which features are used: a subset of those offered.
    fn accept(&mut self, features: u64) -> Result<()>;

    /// What memory regions must be.
    fn regions(&self) -> RegionRules;

    /// Addresses that the device can reach.
    fn addresses(&self) -> RangeInclusive<u64>;

    /// Lets the device use a region, at this address. Both are multiples of
    /// [`RegionRules::granularity`], and nothing else is there.
    fn map(&mut self, iova: u64, region: &MemoryRegion) -> Result<()>;

    /// And not any more.
    fn unmap(&mut self, iova: u64, region: &MemoryRegion);

    /// Announces a ring.
    fn setup_queue(&mut self, index: u16, setup: &QueueSetup<'_>) -> Result<Box<dyn Kick>>;

    /// The device begins.
    fn start(&mut self) -> Result<()>;
}

/// Tells a device of new requests. One call for a batch.
pub(crate) trait Kick: Send {
    /// Never blocks; a device that is gone is told of otherwise.
    fn kick(&self);
}

/// A ring, at the device's addresses.
pub(crate) struct QueueSetup<'s> {
    /// Descriptors.
    pub size: u16,
    /// Descriptor table; packed: descriptor ring.
    pub descriptors: u64,
    /// Available ring; packed: the driver's event suppression.
    pub driver: u64,
    /// Used ring; packed: the device's event suppression.
    pub device: u64,
    /// Where the ring begins: 0; packed: [`virtio::ring::packed::START`].
    pub base: u32,
    /// An eventfd that the device signals when requests are done. It does not block.
    pub call: BorrowedFd<'s>,
}

/// What memory regions must be for a transport.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RegionRules {
    /// How many there can be, the driver's own one among them.
    pub most: u64,
    /// What addresses and lengths are multiples of, for the user.
    pub alignment: u64,
    /// What mappings are multiples of: the driver makes regions larger to fit.
    pub granularity: u64,
    /// Whether a region needs a file.
    pub needs_file: bool,
}
