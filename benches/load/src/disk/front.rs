//! A front-end of vhost-user on `virtio`'s own driver half: packed rings, and the in-flight log,
//! which libblkio has not.

use std::{
    io::{IoSlice, Read},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::Arc,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    event::{EventfdFlags, eventfd},
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
};
use serde_json::json;
use virtio::{
    blk::{Config, Operation, Requests, SECTOR, Status, feature},
    inflight,
    memory::{Area, Region, RegionMap},
    ring::{
        AddressKind, Buffer, DriverRing, F_EVENT_IDX, F_RING_PACKED, F_VERSION_1, RingAreas,
        RingConfig, packed, split,
    },
    vhost_user::{
        ConfigRange, FrontEvent, Frontend, InflightArea, MemoryRegion, Message, Outgoing,
        VringAddress, VringFd, VringState, Wants,
        proto::{feature::PROTOCOL_FEATURES, protocol},
    },
};

use super::{Disk, Lane, PATIENCE, Shape, readable};
use crate::args::Args;

/// Where our memory begins, for the server; its user address is another.
const GUEST: u64 = 0x1_0000_0000;
const USER: u64 = 0x7000_0000_0000;

/// What the command line says of the rings.
struct Rings {
    size: u16,
    packed: bool,
    log: bool,
}

/// Where the parts of a queue lie in its share of the memory, in bytes.
struct Layout {
    ring: [u64; 3],
    requests: u64,
    data: u64,
    len: u64,
}

impl Layout {
    fn new(shape: &Shape, lengths: [usize; 3]) -> Layout {
        let mut at = 0;
        let mut place = |len: u64| {
            let here = at;
            at += len.next_multiple_of(4096);
            here
        };
        let ring = lengths.map(|len| place(len as u64));
        let slots = Requests::slot_len(1) as u64 * u64::from(shape.depth);
        let requests = place(slots);
        let data = place(u64::from(shape.depth) * u64::from(shape.block));
        Layout {
            ring,
            requests,
            data,
            len: at,
        }
    }
}

/// Connects, and starts the rings.
pub(super) fn open(args: &mut Args, shape: &Shape) -> Result<Disk> {
    let path: Option<String> = args.take("path")?;
    let path = path.context("--path SOCKET")?;
    let rings = Rings {
        size: args.or("queue-size", 256)?,
        packed: args.switch("packed")?,
        log: args.switch("inflight")?,
    };
    ensure!(
        u64::from(rings.size) >= 3 * u64::from(shape.depth),
        "--queue-size is 3 descriptors for each request in flight, or more"
    );
    let mut control = Control::connect(&path, rings.log)?;
    let features = control.agree(&rings)?;
    let lengths = match rings.packed {
        true => packed::lengths(rings.size),
        false => split::lengths(rings.size),
    };
    let layout = Layout::new(shape, lengths);
    let map = control.give_memory(layout.len * u64::from(shape.queues))?;
    if rings.log {
        control.give_log(&rings, shape.queues)?;
    }
    let config = control.config()?;
    let lanes = (0..shape.queues)
        .map(|index| control.start(&map, &layout, &rings, features, shape, index))
        .collect::<Result<Vec<_>>>()?;
    let client = json!({ "way": "ring", "packed": rings.packed, "inflight": rings.log });
    Ok(Disk {
        size: config.capacity * SECTOR,
        lanes,
        client,
        session: Some(control.socket),
    })
}

/// The control side: blocking, one message at a time.
struct Control {
    socket: UnixStream,
    front: Frontend<OwnedFd>,
    out: Vec<Outgoing<OwnedFd>>,
}

impl Control {
    fn connect(path: &str, log: bool) -> Result<Control> {
        let socket = UnixStream::connect(path).with_context(|| path.to_owned())?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let log = if log { protocol::INFLIGHT_SHMFD } else { 0 };
        let wants = Wants {
            protocol: protocol::MQ | protocol::REPLY_ACK | protocol::CONFIGURE_MEM_SLOTS,
            required: protocol::CONFIG | log,
        };
        let mut out = Vec::new();
        let front = Frontend::new(wants, &mut out);
        let mut control = Control { socket, front, out };
        match control.next()? {
            FrontEvent::Connected(_) => Ok(control),
            other => bail!("the server begins with {other:?}"),
        }
    }

    fn send(&mut self) -> Result<()> {
        for message in self.out.drain(..) {
            let fds: Vec<BorrowedFd<'_>> = message.fds.iter().map(AsFd::as_fd).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            ensure!(
                fds.is_empty() || ancillary.push(SendAncillaryMessage::ScmRights(&fds)),
                "too many descriptors"
            );
            let bytes = [IoSlice::new(&message.bytes)];
            let sent = sendmsg(&self.socket, &bytes, &mut ancillary, SendFlags::NOSIGNAL)?;
            ensure!(sent == message.bytes.len(), "a message was cut");
        }
        Ok(())
    }

    /// The next event. None of those that are asked for comes with descriptors.
    fn next(&mut self) -> Result<FrontEvent<OwnedFd>> {
        loop {
            self.send()?;
            let mut bytes = vec![0; self.front.wanted()];
            let count = self.socket.read(&mut bytes).context("no answer")?;
            ensure!(count > 0, "the server has closed the connection");
            if let Some(event) = self.front.input(&bytes[..count], [], &mut self.out)?.1 {
                return Ok(event);
            }
        }
    }

    fn call(&mut self, message: Message<OwnedFd>) -> Result<FrontEvent<OwnedFd>> {
        self.front.call(message, &mut self.out);
        self.next()
    }

    fn does(&mut self, message: Message<OwnedFd>) -> Result<()> {
        let request = message.request();
        match self.call(message)? {
            FrontEvent::Done(_, Ok(())) => Ok(()),
            other => bail!("{request:?}: {other:?}"),
        }
    }

    fn agree(&mut self, rings: &Rings) -> Result<u64> {
        let offered = self.front.limits().context("not connected")?.features;
        let packed = u64::from(rings.packed) << F_RING_PACKED;
        let must = 1 << F_VERSION_1 | PROTOCOL_FEATURES | packed;
        ensure!(offered & must == must, "the server has no such rings");
        let may = 1 << F_EVENT_IDX | 1 << feature::FLUSH | 1 << feature::BLK_SIZE;
        let features = offered & (must | may | 1 << feature::MQ | 1 << feature::RO);
        self.does(Message::SetFeatures(features))?;
        Ok(features)
    }

    fn give_memory(&mut self, len: u64) -> Result<Arc<RegionMap>> {
        let fd = memory("blkit-load", len)?;
        let region = Region::map(GUEST, GUEST, &fd, 0, len)?;
        let told = MemoryRegion {
            guest_addr: GUEST,
            size: len,
            user_addr: USER,
            mmap_offset: 0,
        };
        let messages = self.front.memory(vec![(told, fd)]);
        for message in messages.context("the server takes no memory")? {
            self.does(message)?;
        }
        // Page faults are not what is to be measured.
        let whole = region.area(0, len as usize).context("all of it")?;
        for page in (0..len as usize).step_by(4096) {
            whole.store8(page, 0x5a);
        }
        Ok(Arc::new(RegionMap::new(vec![region])?))
    }

    /// An in-flight log of our own making.
    fn give_log(&mut self, rings: &Rings, queues: u16) -> Result<()> {
        let each = inflight::length(rings.packed, rings.size) as u64;
        let area = InflightArea {
            mmap_size: each * u64::from(queues),
            mmap_offset: 0,
            queues,
            queue_size: rings.size,
        };
        let fd = memory("blkit-load-log", area.mmap_size)?;
        self.does(Message::SetInflightFd(area, fd))
    }

    fn config(&mut self) -> Result<Config> {
        let range = ConfigRange {
            offset: 0,
            size: 60,
            flags: 0,
        };
        match self.call(Message::GetConfig(range))? {
            FrontEvent::Config(_, Some(bytes)) => Ok(Config::decode(&bytes)),
            other => bail!("configuration: {other:?}"),
        }
    }

    /// Starts the ring of one queue.
    fn start(
        &mut self,
        map: &RegionMap,
        layout: &Layout,
        rings: &Rings,
        features: u64,
        shape: &Shape,
        index: u16,
    ) -> Result<Box<dyn Lane>> {
        let share = u64::from(index) * layout.len;
        let places = layout.ring.map(|at| share + at);
        let lengths = match rings.packed {
            true => packed::lengths(rings.size),
            false => split::lengths(rings.size),
        };
        let areas = RingAreas::find(
            map,
            AddressKind::Guest,
            places.map(|at| GUEST + at),
            lengths,
        )?;
        let config = RingConfig {
            event_index: features >> F_EVENT_IDX & 1 == 1,
            ..RingConfig::new(rings.size)
        };
        let area = |at: u64, len: u64| {
            let found = map.by_guest(GUEST + share + at, len as usize);
            found.context("outside of the memory")
        };
        let parts = Parts {
            requests: Requests::new(
                area(layout.requests, layout.data - layout.requests)?,
                GUEST + share + layout.requests,
                1,
            ),
            data: area(layout.data, layout.len - layout.data)?,
            data_at: GUEST + share + layout.data,
            block: shape.block,
            kick: event()?,
            call: event()?,
        };
        let (kick, call) = (parts.kick.try_clone()?, parts.call.try_clone()?);
        let lane: Box<dyn Lane> = match rings.packed {
            true => Box::new(Ring::new(packed::Driver::new(areas, config, None)?, parts)),
            false => Box::new(Ring::new(split::Driver::new(areas, config, None)?, parts)),
        };
        self.tell(rings, index, places, kick, call)?;
        Ok(lane)
    }

    fn tell(
        &mut self,
        rings: &Rings,
        index: u16,
        places: [u64; 3],
        kick: OwnedFd,
        call: OwnedFd,
    ) -> Result<()> {
        let number = u32::from(index);
        let state = |num| VringState { index: number, num };
        let fd = |fd| VringFd {
            index: index as u8,
            fd: Some(fd),
        };
        // A packed ring begins with both wrap counters at 1.
        let base = if rings.packed { 0x8000_8000 } else { 0 };
        for message in [
            Message::SetVringNum(state(rings.size.into())),
            Message::SetVringBase(state(base)),
            Message::SetVringAddr(VringAddress {
                index: number,
                flags: 0,
                descriptors: USER + places[0],
                available: USER + places[1],
                used: USER + places[2],
                log: 0,
            }),
            Message::SetVringCall(fd(call)),
            Message::SetVringKick(fd(kick)),
            Message::SetVringEnable(state(1)),
        ] {
            self.does(message)?;
        }
        Ok(())
    }
}

/// Memory that a server can map and nobody can cut off.
fn memory(name: &str, len: u64) -> Result<OwnedFd> {
    let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&fd, len)?;
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(fd)
}

fn event() -> Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// What a queue has beside its ring.
struct Parts {
    requests: Requests,
    data: Area,
    data_at: u64,
    block: u32,
    kick: OwnedFd,
    call: OwnedFd,
}

/// A queue.
struct Ring<R> {
    ring: R,
    parts: Parts,
    buffers: Vec<Buffer>,
}

impl<R: DriverRing> Ring<R> {
    fn new(ring: R, parts: Parts) -> Ring<R> {
        Ring {
            ring,
            parts,
            buffers: Vec::with_capacity(4),
        }
    }

    fn at(&self, slot: u32) -> u64 {
        u64::from(slot) * u64::from(self.parts.block)
    }
}

impl<R: DriverRing + Send> Lane for Ring<R> {
    fn submit(&mut self, slot: u32, write: bool, offset: u64) -> Result<()> {
        let data = Buffer {
            address: self.parts.data_at + self.at(slot),
            len: self.parts.block,
            writable: !write,
        };
        let operation = match write {
            true => Operation::Write(offset),
            false => Operation::Read(offset),
        };
        let requests = &self.parts.requests;
        requests.make(slot as u16, &operation, &[data], &mut self.buffers)?;
        self.ring.add(&self.buffers, slot.into())?;
        Ok(())
    }

    fn wait(&mut self, done: &mut Vec<(u32, bool)>) -> Result<()> {
        if self.ring.publish() {
            rustix::io::write(&self.parts.kick, &1u64.to_ne_bytes()).context("kick")?;
        }
        loop {
            while let Some(used) = self.ring.pop()? {
                let slot = used.cookie as u32;
                let reply = self.parts.requests.reply(slot as u16);
                done.push((slot, reply.status == Status::Ok));
            }
            if !done.is_empty() {
                return Ok(());
            }
            if !self.ring.enable_calls()? {
                readable(&self.parts.call)?;
                let mut count = [0; 8];
                match rustix::io::read(&self.parts.call, &mut count) {
                    Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
                    Err(error) => return Err(error).context("the call descriptor"),
                }
            }
            self.ring.disable_calls();
        }
    }

    fn fill(&mut self, slot: u32, bytes: &[u8]) {
        assert_eq!(bytes.len(), self.parts.block as usize);
        self.parts.data.write(self.at(slot) as usize, bytes);
    }

    fn copy(&mut self, slot: u32, bytes: &mut [u8]) {
        assert_eq!(bytes.len(), self.parts.block as usize);
        self.parts.data.read(self.at(slot) as usize, bytes);
    }
}
