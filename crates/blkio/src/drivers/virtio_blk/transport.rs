//! What a driver of virtio-blk devices needs of the way to its device.

use std::{
    ops::RangeInclusive,
    os::fd::{BorrowedFd, OwnedFd},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use super::link::Link;
use crate::{MemoryRegion, Property, Result, Value};

/// A kind of transport, before it is connected: what its driver adds to those of virtio-blk.
pub(crate) trait Connector: Send {
    /// The driver's name.
    fn name(&self) -> &'static str;

    /// Properties of its own.
    fn properties(&self) -> &'static [Property];

    /// The value of a property of its own.
    fn get(&self, name: &str) -> Value;

    /// Sets a property of its own that is writable now, to a value of its kind.
    fn set(&mut self, name: &str, value: Value) -> Result<()>;

    /// Whether the property `fd` can be set.
    fn takes_fd(&self) -> bool;

    /// What memory regions must be, as far as that is known before there is a device.
    fn regions(&self) -> RegionRules;

    /// Reaches the device, by a path or by a descriptor. A transport that loses its device says so to
    /// `link`; a device that is back has the features it was asked for, the memory that was mapped,
    /// and is started, but no queue: each is announced again by who has it.
    fn connect(&mut self, to: To, link: &Arc<Link>) -> Result<Arc<Mutex<dyn Transport>>>;
}

/// Where a device is.
pub(crate) enum To {
    /// The property `path`.
    Path(String),
    /// The property `fd`, handed over. It is closed if the device cannot be reached.
    #[expect(
        dead_code,
        reason = "vhost-user has no use for it; other transports have"
    )]
    Fd(OwnedFd),
}

/// The way to a device: its control path. All of it may take a while, but has an end: who does not
/// answer in time is an error.
///
/// The order of calls: `features`, `read_config`, then `accept`; `map` for the driver's own memory,
/// which has the rings; `setup_queue` for each queue, `start`. Memory is mapped and unmapped, and
/// configuration read, until `close`.
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

    /// Announces a ring. After [`Transport::start`] again for a device that is back.
    fn setup_queue(&mut self, index: u16, setup: &QueueSetup<'_>) -> Result<Box<dyn Kick>>;

    /// The device begins.
    fn start(&mut self) -> Result<()>;

    /// Stops a ring, if one can be stopped alone: when this is over, the device does not touch its
    /// memory any more, nor that of its requests.
    fn stop_queue(&mut self, index: u16);

    /// Stops the device: when this is over, it does not touch memory any more. A thread that watched
    /// it is to be joined when nobody holds the transport: it may want that once more.
    fn close(&mut self) -> Option<JoinHandle<()>>;

    /// The device does what no device may do: it is not used any more.
    fn distrust(&mut self);
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
