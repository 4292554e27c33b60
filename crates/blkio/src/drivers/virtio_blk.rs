//! virtio-blk devices, whatever the way to them.
//!
//! **What.** A [`Transport`] is that way: vhost-user, vhost-vdpa, VFIO. Everything else stands here
//! once: features, properties, memory regions and addresses, rings, requests.
//!
//! **Why so.** The three differ in how bytes of configuration are read and a ring is announced, and
//! in nothing that happens for each request.

mod device;
mod link;
mod memory;
mod queue;
mod regions;
mod request;
mod transport;

use std::{
    os::fd::{FromRawFd, OwnedFd},
    sync::{Arc, Mutex},
};

use rustix::io::Errno;
use virtio::{
    blk::feature,
    ring::{F_RING_PACKED, packed, split},
};

pub(crate) use link::{Link, Reason};
pub(crate) use memory::Ring;
pub(crate) use queue::Queue;
pub(crate) use transport::{Connector, Kick, QueueSetup, RegionRules, To, Transport};

use self::{
    device::Device,
    memory::{Arena, Layout},
    queue::{Shared, lock},
    regions::Regions,
};
use crate::{
    Error, Kind, MemoryRegion, Property, Result, State, Value,
    drivers::{Driver, DriverQueue, Queues, queue_count},
    error::invalid,
    property::must_be_connected,
};

use Kind::{Bool, Int, Str, U64};
use State::{Connected, Created};

const PROPERTIES: &[Property] = &[
    Property::write("path", Str, Created),
    Property::write("fd", Int, Created),
    Property::write("read-only", Bool, Created),
    Property::read("can-add-queues", Bool, Created),
    Property::read("capacity", U64, Connected),
    Property::read("max-queues", Int, Connected),
    Property::write("num-queues", Int, Connected),
    Property::write("num-poll-queues", Int, Connected),
    Property::read("supports-poll-queues", Bool, Created),
    Property::write("queue-size", Int, Connected),
    Property::read("max-queue-size", Int, Created),
    Property::write("packed", Bool, Connected),
    Property::read("max-mem-regions", U64, Connected),
    Property::read("may-pin-mem-regions", Bool, Created),
    Property::read("mem-region-alignment", U64, Created),
    Property::read("needs-mem-regions", Bool, Created),
    Property::read("needs-mem-region-fd", Bool, Created),
    Property::read("request-alignment", Int, Created),
    Property::read("optimal-io-alignment", Int, Created),
    Property::read("optimal-io-size", Int, Created),
    Property::read("buf-alignment", Int, Created),
    Property::read("optimal-buf-alignment", Int, Created),
    Property::read("max-segments", Int, Created),
    Property::read("max-segment-len", Int, Created),
    Property::read("max-transfer", Int, Created),
    Property::read("max-write-zeroes-len", U64, Created),
    Property::read("max-discard-len", U64, Created),
    Property::read("discard-alignment", Int, Created),
    Property::read("discard-alignment-offset", Int, Created),
    Property::read("supports-fua-natively", Bool, Created),
    Property::read("can-grow", Bool, Created),
    Property::read("flush-needed", Bool, Created),
];

/// Descriptors of a queue at most, in either format.
const MAX_QUEUE_SIZE: i32 = 32768;

/// A connected device.
struct Connection {
    device: Device,
    transport: Arc<Mutex<dyn Transport>>,
    link: Arc<Link>,
    regions: Arc<Regions>,
    /// The memory of queues: their device sees it as long as this is there.
    arena: Option<Arena>,
}

/// The driver of one kind of transport.
pub(super) struct VirtioBlk<C> {
    connector: C,
    path: String,
    fd: i32,
    read_only: bool,
    num_queues: i32,
    num_poll_queues: i32,
    queue_size: i32,
    packed: bool,
    connection: Option<Connection>,
}

impl<C: Connector> VirtioBlk<C> {
    pub fn new(connector: C) -> VirtioBlk<C> {
        VirtioBlk {
            connector,
            path: String::new(),
            fd: -1,
            read_only: false,
            num_queues: 1,
            num_poll_queues: 0,
            queue_size: 256,
            packed: true,
            connection: None,
        }
    }

    fn connection(&self) -> Result<&Connection> {
        self.connection.as_ref().ok_or_else(must_be_connected)
    }

    /// What the device has; before it is connected, what it has if it says nothing.
    fn device(&self) -> Device {
        let none = Device {
            features: 1 << feature::FLUSH,
            config: Default::default(),
        };
        self.connection.as_ref().map_or(none, |there| there.device)
    }

    /// The size now; what it was last, while the device is away.
    fn capacity(&mut self) -> Result<u64> {
        let there = self.connection.as_mut().ok_or_else(must_be_connected)?;
        let mut bytes = [0; 8];
        if lock(&there.transport).read_config(0, &mut bytes).is_ok() {
            there.device.config.capacity = u64::from_le_bytes(bytes);
        }
        Ok(there.device.capacity())
    }

    fn max_queues(&self) -> Result<i32> {
        let there = self.connection()?;
        let most = lock(&there.transport).max_queues();
        Ok(there.device.queues().min(most).into())
    }

    fn rules(&self) -> RegionRules {
        match &self.connection {
            Some(there) => lock(&there.transport).regions(),
            None => self.connector.regions(),
        }
    }

    fn check_start(&self) -> Result<u16> {
        let (most, count) = (
            self.max_queues()?,
            self.num_queues.saturating_add(self.num_poll_queues),
        );
        if count == 0 {
            let text = "At least one of num_queues and num_poll_queues must be greater than 0";
            return Err(invalid(text));
        }
        if count > most {
            let text = format!("num_queues + num_poll_queues must not be greater than {most}");
            return Err(invalid(text));
        }
        if self.device().has(feature::RO) && !self.read_only {
            return Err(Error::new(Errno::ROFS, "Device is read-only"));
        }
        let largest = lock(&self.connection()?.transport).max_queue_size();
        if self.queue_size > i32::from(largest) {
            let text = format!("the device has queues of {largest} descriptors at most");
            return Err(invalid(text));
        }
        Ok(count as u16)
    }

    fn start_with<R: Ring>(&mut self, wrap: fn(Queue<R>) -> DriverQueue) -> Result<Queues> {
        let count = self.check_start()?;
        let size = self.queue_size as u16;
        let (read_only, regular) = (self.read_only, self.num_queues as u16);
        let packed = u64::from(!self.packed) << F_RING_PACKED;
        let there = self.connection.as_mut().ok_or_else(must_be_connected)?;
        let limits = there.device.limits(size)?;
        let layout = Layout::new::<R>(size, &limits);
        let arena = Arena::new(count.into(), &layout)?;
        let iova = {
            let mut transport = lock(&there.transport);
            transport.accept(there.device.features & !packed)?;
            let (rules, addresses) = (transport.regions(), transport.addresses());
            let (whole, iova) = there.regions.place(arena.region(), &rules, addresses)?;
            transport.map(iova, &whole)?;
            there.regions.add(*arena.region(), whole, iova);
            iova
        };
        let shared = Shared {
            transport: there.transport.clone(),
            link: there.link.clone(),
            regions: there.regions.clone(),
            zeroes: arena.zeroes(iova),
            limits,
        };
        let mut queues = Queues {
            queues: Vec::new(),
            poll_queues: Vec::new(),
        };
        for index in 0..count {
            let memory = arena.queue(index.into(), &layout, iova);
            let poll = index >= regular;
            let queue = wrap(Queue::new(shared.clone(), index, poll, memory)?);
            let queue = crate::Queue::new(queue, read_only, poll);
            match poll {
                true => queues.poll_queues.push(queue),
                false => queues.queues.push(queue),
            }
        }
        lock(&there.transport).start()?;
        there.arena = Some(arena);
        Ok(queues)
    }
}

fn int(number: u64) -> Value {
    Value::Int(i32::try_from(number).unwrap_or(i32::MAX))
}

impl<C: Connector> Driver for VirtioBlk<C> {
    fn name(&self) -> &'static str {
        self.connector.name()
    }

    fn properties(&self) -> [&'static [Property]; 2] {
        [PROPERTIES, self.connector.properties()]
    }

    fn get(&mut self, name: &str, _: State) -> Result<Value> {
        let device = self.device();
        Ok(match name {
            "path" => Value::Str(self.path.clone()),
            "fd" => Value::Int(self.fd),
            "read-only" => Value::Bool(self.read_only),
            "capacity" => Value::U64(self.capacity()?),
            "max-queues" => Value::Int(self.max_queues()?),
            "num-queues" => Value::Int(self.num_queues),
            "num-poll-queues" => Value::Int(self.num_poll_queues),
            "queue-size" => Value::Int(self.queue_size),
            "max-queue-size" => Value::Int(MAX_QUEUE_SIZE),
            "packed" => Value::Bool(self.packed),
            // One is ours.
            "max-mem-regions" => Value::U64(self.rules().most.saturating_sub(1)),
            "mem-region-alignment" => Value::U64(self.rules().alignment),
            "needs-mem-region-fd" => Value::Bool(self.rules().needs_file),
            "supports-poll-queues" | "may-pin-mem-regions" | "needs-mem-regions" => {
                Value::Bool(true)
            }
            "can-add-queues" | "supports-fua-natively" | "can-grow" => Value::Bool(false),
            "request-alignment" => int(device.block()),
            "optimal-io-alignment" => int(device.optimal_alignment()),
            "optimal-io-size" => int(device.optimal_size()),
            "buf-alignment" | "optimal-buf-alignment" => Value::Int(1),
            "max-segments" => int(device.segments().into()),
            "max-segment-len" => int(device.segment_len().into()),
            "max-transfer" => {
                int(u64::from(device.segment_len()).saturating_mul(device.segments().into()))
            }
            "max-write-zeroes-len" => Value::U64(device.max_write_zeroes()),
            "max-discard-len" => Value::U64(device.max_discard()),
            "discard-alignment" => int(device.discard_alignment()),
            "discard-alignment-offset" => Value::Int(0),
            // Whatever mode its cache claims: a flush is always safe, and may be needed.
            "flush-needed" => Value::Bool(device.has(feature::FLUSH)),
            _ => self.connector.get(name),
        })
    }

    fn set(&mut self, name: &str, value: Value) -> Result<()> {
        match (name, value) {
            ("path", Value::Str(path)) => self.path = path,
            ("fd", Value::Int(_)) if !self.connector.takes_fd() => {
                return Err(Error::new(Errno::NOENT, "fd property not supported"));
            }
            ("fd", Value::Int(fd)) => self.fd = fd,
            ("read-only", Value::Bool(read_only)) => self.read_only = read_only,
            ("packed", Value::Bool(packed)) => self.packed = packed,
            ("num-queues", Value::Int(count)) => {
                self.num_queues = queue_count("num_queues", count)?;
            }
            ("num-poll-queues", Value::Int(count)) => {
                self.num_poll_queues = queue_count("num_poll_queues", count)?;
            }
            ("queue-size", Value::Int(size)) => {
                let wrong = match size {
                    ..=0 => "queue_size must be greater than 0",
                    _ if size > MAX_QUEUE_SIZE => "queue_size must be smaller than 32768",
                    _ if size.count_ones() != 1 => "queue_size must be a power of two",
                    _ => {
                        self.queue_size = size;
                        return Ok(());
                    }
                };
                return Err(invalid(wrong));
            }
            (name, value) => self.connector.set(name, value)?,
        }
        Ok(())
    }

    fn connect(&mut self) -> Result<()> {
        let to = match (self.path.is_empty(), self.fd) {
            (true, ..0) => return Err(invalid("One of path and fd must be set")),
            (false, 0..) => return Err(invalid("path and fd cannot be set at the same time")),
            (false, _) => To::Path(self.path.clone()),
            // SAFETY: handed over: who sets the property gives it away.
            (true, fd) => To::Fd(unsafe { OwnedFd::from_raw_fd(fd) }),
        };
        let link = Arc::new(Link::default());
        let transport = self.connector.connect(to, &link)?;
        let device = Device::read(&mut *lock(&transport))?;
        self.packed = device.has(F_RING_PACKED);
        self.connection = Some(Connection {
            device,
            transport,
            link,
            regions: Arc::default(),
            arena: None,
        });
        Ok(())
    }

    fn start(&mut self) -> Result<Queues> {
        match self.packed && self.device().has(F_RING_PACKED) {
            true => self.start_with::<packed::Driver>(DriverQueue::VirtioPacked),
            false => {
                self.packed = false;
                self.start_with::<split::Driver>(DriverQueue::VirtioSplit)
            }
        }
    }

    fn add_queue(&mut self, _: bool) -> Result<crate::Queue> {
        let text = "Driver does not support dynamically adding queues";
        Err(Error::new(Errno::NOTSUP, text))
    }

    fn map(&mut self, region: &MemoryRegion) -> Result<()> {
        let there = self.connection()?;
        let mut transport = lock(&there.transport);
        let (rules, addresses) = (transport.regions(), transport.addresses());
        let (whole, iova) = there.regions.place(region, &rules, addresses)?;
        transport.map(iova, &whole)?;
        there.regions.add(*region, whole, iova);
        Ok(())
    }

    fn unmap(&mut self, region: &MemoryRegion) {
        if let Some(there) = &self.connection
            && let Some((whole, iova)) = there.regions.remove(region)
        {
            lock(&there.transport).unmap(iova, &whole);
        }
    }
}

/// Queues that were taken learn that their disk is gone.
impl<C> Drop for VirtioBlk<C> {
    fn drop(&mut self) {
        if let Some(there) = &self.connection {
            let (errno, text) = (Errno::NODEV, c"the disk was closed");
            there.link.gone(Reason { errno, text });
            let watcher = lock(&there.transport).close();
            if let Some(watcher) = watcher {
                // It has said whatever there was to say.
                let _ = watcher.join();
            }
        }
    }
}
