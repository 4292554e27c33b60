//! The vhost-user-blk export, and our own driver's half of it as a device: the test kit's suites go
//! through rings and back.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io::Read,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use blkit_exports::vhost_user_blk::{Export, Options, Sharing};
use block::{
    Data, Device, Errno, Flags, Limits, Op, OpSet, Queue, Reactor, Request, Result, SharedBuf,
    SharedMem,
};
use reactor::{DriverKind, Io, Loop, PeerEvent, Reactors, sealed_memory};
use rustix::{
    event::{EventfdFlags, eventfd},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
};
use testkit::{Drive, MemoryDisk, Model, Workload, conformance};
use virtio::{
    blk::{Config, Operation, Range, Requests, Status, feature},
    memory::{Region, RegionMap},
    ring::{
        Buffer, DriverRing, F_EVENT_IDX, F_RING_PACKED, F_VERSION_1, RingAreas, RingConfig, packed,
        split,
    },
    vhost_user::{
        ConfigRange, FrontEvent, Frontend, MemoryRegion, Message, Outgoing, VringAddress, VringFd,
        VringState, Wants,
        proto::{self, protocol},
    },
};

const SIZE: u64 = 4 << 20;
/// Descriptors of a ring.
const DESCRIPTORS: u16 = 64;
/// Requests at a time.
const SLOTS: u16 = 16;
/// Bytes of a transfer at most.
const TRANSFER: usize = 64 << 10;
/// Guest memory of one queue: its ring, its requests, its data.
const QUEUE_MEMORY: usize = 2 << 20;
const AT_REQUESTS: usize = 64 << 10;
const AT_DATA: usize = 256 << 10;
const QUEUES: u16 = 8;
/// Where guest memory begins, for the guest.
const GUEST: u64 = 0x1_0000_0000;

/// Reads, and again if a signal came meanwhile: the process may be stopped for a while.
pub fn received(mut socket: &UnixStream, bytes: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match socket.read(bytes) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// The control side of a guest: blocking, as a small program would have it.
pub struct Control {
    pub socket: UnixStream,
    front: Frontend<OwnedFd>,
    out: Vec<Outgoing<OwnedFd>>,
}

impl Control {
    pub fn connect(socket: UnixStream, protocol: u64) -> Control {
        let mut out = Vec::new();
        let wants = Wants {
            protocol,
            required: protocol::CONFIG,
        };
        let front = Frontend::new(wants, &mut out);
        let wait = Some(Duration::from_secs(20));
        socket.set_read_timeout(wait).unwrap();
        let mut control = Control { socket, front, out };
        let first = control.next();
        assert!(matches!(first, FrontEvent::Connected(_)), "{first:?}");
        control
    }

    fn flush(&mut self) {
        for message in self.out.drain(..) {
            let fds: Vec<BorrowedFd<'_>> = message.fds.iter().map(AsFd::as_fd).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() {
                assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
            }
            let bytes = [std::io::IoSlice::new(&message.bytes)];
            let flags = SendFlags::NOSIGNAL;
            let sent = sendmsg(&self.socket, &bytes, &mut ancillary, flags).unwrap();
            assert_eq!(sent, message.bytes.len());
        }
    }

    /// The next event. None of those that matter here comes with descriptors.
    fn next(&mut self) -> FrontEvent<OwnedFd> {
        loop {
            self.flush();
            let mut bytes = vec![0; self.front.wanted()];
            let n = received(&self.socket, &mut bytes).expect("an answer");
            assert!(n > 0, "the server has closed the connection");
            let got = self.front.input(&bytes[..n], [], &mut self.out);
            if let Some(event) = got.expect("no violation").1 {
                return event;
            }
        }
    }

    pub fn call(&mut self, message: Message<OwnedFd>) -> FrontEvent<OwnedFd> {
        self.front.call(message, &mut self.out);
        self.next()
    }

    pub fn does(&mut self, message: Message<OwnedFd>) {
        let request = message.request();
        let event = self.call(message);
        assert!(
            matches!(event, FrontEvent::Done(_, Ok(()))),
            "{request:?}: {event:?}"
        );
    }

    /// Features that the back-end offers.
    pub fn offered(&self) -> u64 {
        self.front.limits().expect("it is connected").features
    }

    pub fn config(&mut self) -> Config {
        let range = ConfigRange {
            offset: 0,
            size: 60,
            flags: 0,
        };
        match self.call(Message::GetConfig(range)) {
            FrontEvent::Config(_, Some(bytes)) => Config::decode(&bytes),
            other => panic!("{other:?}"),
        }
    }
}

/// A disk behind the export, as a device again.
struct GuestDisk {
    control: Mutex<Control>,
    map: Arc<RegionMap>,
    features: u64,
    limits: Arc<Limits>,
    next: AtomicU16,
}

impl GuestDisk {
    fn new(socket: UnixStream, protocol: u64, ring: u64) -> Arc<GuestDisk> {
        let mut control = Control::connect(socket, protocol);
        let offered = control.front.limits().unwrap().features;
        let blk = (1 << feature::FLUSH)
            | 1 << feature::DISCARD
            | 1 << feature::WRITE_ZEROES
            | 1 << feature::BLK_SIZE;
        let wanted = ring | 1 << F_VERSION_1 | proto::feature::PROTOCOL_FEATURES | blk;
        let features = offered & wanted;
        assert_eq!(features & ring, ring);
        control.does(Message::SetFeatures(features));
        let len = QUEUE_MEMORY as u64 * u64::from(QUEUES);
        let fd = sealed_memory("guest", len).unwrap();
        let region = Region::map(GUEST, GUEST, &fd, 0, len).unwrap();
        let told = MemoryRegion {
            guest_addr: GUEST,
            size: len,
            user_addr: 0x7000_0000_0000,
            mmap_offset: 0,
        };
        for message in control.front.memory(vec![(told, fd)]).unwrap() {
            control.does(message);
        }
        let config = control.config();
        let ops = [Op::Read, Op::Write, Op::Flush, Op::WriteZeroes, Op::Discard];
        let mut limits = Limits::new(config.capacity * 512, OpSet::of(&ops));
        limits.min_block = 512;
        limits.max_transfer = TRANSFER as u32;
        limits.max_range = 1 << 30;
        limits.multi_conn = true;
        Arc::new(GuestDisk {
            control: Mutex::new(control),
            map: Arc::new(RegionMap::new(vec![region]).unwrap()),
            features,
            limits: Arc::new(limits),
            next: AtomicU16::new(0),
        })
    }

    /// A ring of the front-end's, known to the back-end and running.
    fn start(&self, index: u16, kick: OwnedFd, call: OwnedFd) -> Box<dyn DriverRing> {
        let base = GUEST + u64::from(index) * QUEUE_MEMORY as u64;
        let packed_ring = self.features >> F_RING_PACKED & 1 == 1;
        let lengths = match packed_ring {
            true => packed::lengths(DESCRIPTORS),
            false => split::lengths(DESCRIPTORS),
        };
        let places = [base, base + 0x4000, base + 0x8000];
        let kind = virtio::ring::AddressKind::Guest;
        let areas = RingAreas::find(&self.map, kind, places, lengths).unwrap();
        let config = RingConfig {
            event_index: self.features >> F_EVENT_IDX & 1 == 1,
            ..RingConfig::new(DESCRIPTORS)
        };
        let ring: Box<dyn DriverRing> = match packed_ring {
            true => Box::new(packed::Driver::new(areas, config, None).unwrap()),
            false => Box::new(split::Driver::new(areas, config, None).unwrap()),
        };
        let (number, user) = (u32::from(index), |at: u64| at - GUEST + 0x7000_0000_0000);
        let state = |num| VringState { index: number, num };
        let fd = |fd| VringFd {
            index: index as u8,
            fd: Some(fd),
        };
        // A packed ring begins with both wrap counters at 1.
        let first = if packed_ring { 0x8000_8000 } else { 0 };
        let mut control = self.control.lock().unwrap();
        for message in [
            Message::SetVringNum(state(DESCRIPTORS.into())),
            Message::SetVringBase(state(first)),
            Message::SetVringAddr(VringAddress {
                index: number,
                flags: 0,
                descriptors: user(places[0]),
                available: user(places[1]),
                used: user(places[2]),
                log: 0,
            }),
            Message::SetVringCall(fd(call)),
            Message::SetVringKick(fd(kick)),
            Message::SetVringEnable(state(1)),
        ] {
            control.does(message);
        }
        ring
    }
}

impl Device for GuestDisk {
    fn limits(&self) -> Arc<Limits> {
        self.limits.clone()
    }

    fn open_queue(&self, reactor: &Reactor) -> Result<Rc<dyn Queue>> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        assert!(index < QUEUES, "more queues than the test has");
        let event = || eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let (kick, call) = (event(), event());
        let theirs = (kick.try_clone().unwrap(), call.try_clone().unwrap());
        let ring = self.start(index, theirs.0, theirs.1);
        let at = usize::from(index) * QUEUE_MEMORY;
        let region = &self.map.regions()[0];
        let area = |offset: usize, len| region.area((at + offset) as u64, len).unwrap();
        let guest = |offset: usize| GUEST + (at + offset) as u64;
        let requests = area(AT_REQUESTS, Requests::slot_len(4) * usize::from(SLOTS));
        let io = Io::of(reactor);
        let queue = Rc::new(GuestQueue {
            limits: self.limits.clone(),
            kick: io.peer_event(kick).unwrap(),
            data: area(AT_DATA, TRANSFER * usize::from(SLOTS)),
            data_guest: guest(AT_DATA),
            requests: Requests::new(requests, guest(AT_REQUESTS), 4),
            state: RefCell::new(State {
                ring,
                free: (0..SLOTS).collect(),
                flying: (0..SLOTS).map(|_| None).collect(),
                waiting: VecDeque::new(),
            }),
        });
        let (weak, call) = (Rc::downgrade(&queue), io.peer_event(call).unwrap());
        reactor.spawn(async move {
            loop {
                call.wait().await.unwrap();
                let Some(queue) = weak.upgrade() else { return };
                queue.reap();
            }
        });
        Ok(queue)
    }
}

struct GuestQueue {
    limits: Arc<Limits>,
    kick: PeerEvent,
    data: virtio::memory::Area,
    data_guest: u64,
    requests: Requests,
    state: RefCell<State>,
}

struct State {
    ring: Box<dyn DriverRing>,
    free: Vec<u16>,
    flying: Vec<Option<Request>>,
    waiting: VecDeque<Request>,
}

impl Queue for GuestQueue {
    fn submit(&self, req: Request) {
        if !self.limits.support(req.op()).is_offered() {
            return req.fail(Errno::ENOTSUP);
        }
        if req.op().has_range() && req.len() == 0 {
            // virtio has no such request.
            return match req.op() {
                Op::Read => req.give_zeroes(),
                _ => req.done(),
            };
        }
        self.state.borrow_mut().waiting.push_back(req);
        self.push();
    }
}

impl GuestQueue {
    /// Puts what waits into the ring.
    fn push(&self) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let mut buffers = Vec::new();
        while !state.waiting.is_empty()
            && let Some(slot) = state.free.pop()
        {
            let req = state.waiting.pop_front().expect("one waits");
            let range = [Range {
                offset: req.offset(),
                len: req.len(),
                unmap: !req.flags().contains(Flags::NO_HOLE),
            }];
            let operation = match req.op() {
                Op::Read => Operation::Read(req.offset()),
                Op::Write => Operation::Write(req.offset()),
                Op::Flush => Operation::Flush,
                Op::Discard => Operation::Discard(&range),
                _ => Operation::WriteZeroes(&range),
            };
            let data = self.buffers(slot, &req);
            let made = self.requests.make(slot, &operation, &data, &mut buffers);
            made.expect("a request of a disk");
            state
                .ring
                .add(&buffers, slot.into())
                .expect("room for all slots");
            state.flying[usize::from(slot)] = Some(req);
        }
        if state.ring.publish() {
            self.kick.signal();
        }
    }

    /// The data of a request in guest memory, in two pieces if it is long.
    fn buffers(&self, slot: u16, req: &Request) -> Vec<Buffer> {
        if !matches!(req.op(), Op::Read | Op::Write) {
            return Vec::new();
        }
        let (at, len) = (usize::from(slot) * TRANSFER, req.len() as usize);
        if req.op() == Op::Write {
            let mut bytes = vec![0; len];
            req.data().read(&mut bytes);
            self.data.write(at, &bytes);
        }
        let cut = if len > 1000 { 1000 } else { len };
        let piece = |from: usize, len: usize| Buffer {
            address: self.data_guest + (at + from) as u64,
            len: len as u32,
            writable: req.op() == Op::Read,
        };
        let mut pieces = vec![piece(0, cut)];
        if len > cut {
            pieces.push(piece(cut, len - cut));
        }
        pieces
    }

    /// Takes what the device has done.
    fn reap(&self) {
        loop {
            let used = self.state.borrow_mut().ring.pop().expect("a sane device");
            let Some(used) = used else {
                if self.state.borrow_mut().ring.enable_calls().unwrap() {
                    continue;
                }
                break;
            };
            let slot = used.cookie as u16;
            let req = self.state.borrow_mut().flying[usize::from(slot)].take();
            let mut req = req.expect("in flight");
            let status = self.requests.reply(slot).status;
            if status == Status::Ok && req.op() == Op::Read {
                assert_eq!(u64::from(used.written), req.len() + 1, "data and status");
                let mut bytes = vec![0; req.len() as usize];
                self.data.read(usize::from(slot) * TRANSFER, &mut bytes);
                match req.data_mut() {
                    Data::Iov(iov) => iov.write(0, &bytes),
                    other => {
                        let buf = SharedBuf::from_vec(bytes);
                        let len = buf.len();
                        let mut given = block::Segments::new();
                        given.push(block::Piece::Mem(SharedMem::of_shared(buf, 0, len)));
                        *other = Data::Given(given);
                    }
                }
            }
            self.state.borrow_mut().free.push(slot);
            match status {
                Status::Ok => req.done(),
                Status::Unsupported => req.fail(Errno::ENOTSUP),
                _ => req.fail(Errno::EIO),
            }
        }
        self.push();
    }
}

#[derive(Clone)]
pub struct Driven(Rc<RefCell<Loop>>, Reactor);

impl Drive for Driven {
    fn reactor(&self) -> &Reactor {
        &self.1
    }

    fn block_on<T>(&mut self, future: impl Future<Output = T>) -> T {
        self.0.borrow_mut().block_on(future)
    }
}

pub fn export(disk: Arc<dyn Device>) -> Arc<Export> {
    let options = Options {
        queues: QUEUES,
        serial: "serial-number".into(),
        sharing: Sharing::Shared,
        ..Options::default()
    };
    Export::new(disk, options)
}

/// Loops of their own for exports.
pub struct Served(Reactors);

impl Served {
    pub fn new(driver: DriverKind) -> Option<(Driven, Served)> {
        Served::many(driver, 1)
    }

    /// So many loops: rings go round.
    pub fn many(driver: DriverKind, loops: usize) -> Option<(Driven, Served)> {
        let options = reactor::Options {
            driver,
            ..reactor::Options::default()
        };
        let Ok(made) = Loop::new(options.clone()) else {
            println!("SKIP: io_uring refused");
            return None;
        };
        let reactor = made.reactor().clone();
        let served = Reactors::start(loops, options).expect("more loops");
        let driven = Driven(Rc::new(RefCell::new(made)), reactor);
        Some((driven, Served(served)))
    }

    pub fn connect(&self, export: &Arc<Export>) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let homes: Vec<_> = (0..self.0.len()).map(|n| self.0.inbox(n).clone()).collect();
        export.serve_socket(theirs.into(), &homes);
        ours
    }
}

impl Served {
    pub fn end(self) {
        let stats = self.0.stop(Duration::from_secs(5));
        assert!(
            stats.iter().all(|s| s.leaked == 0),
            "the server's loop leaked"
        );
    }
}

pub const ALL: u64 = protocol::MQ
    | protocol::REPLY_ACK
    | protocol::CONFIGURE_MEM_SLOTS
    | protocol::STATUS
    | protocol::INFLIGHT_SHMFD
    | protocol::RESET_DEVICE;

const SPLIT: u64 = 0;
const EVENTS: u64 = 1 << F_EVENT_IDX;
const PACKED: u64 = 1 << F_RING_PACKED;

fn conforms(driver: DriverKind, protocol: u64, ring: u64) {
    let Some((mut driven, served)) = Served::new(driver) else {
        return;
    };
    let make = |_: &Reactor| -> Arc<dyn Device> {
        let socket = served.connect(&export(MemoryDisk::new(SIZE)));
        GuestDisk::new(socket, protocol, ring)
    };
    let ran = conformance::run(make, &mut driven);
    assert!(ran.len() > 10, "only {ran:?}");
    served.end();
}

#[test]
fn conformance_uring_split() {
    conforms(DriverKind::Uring, ALL, SPLIT);
}

#[test]
fn conformance_uring_split_with_events() {
    conforms(DriverKind::Uring, ALL, EVENTS);
}

#[test]
fn conformance_poll_split_with_events_and_no_acknowledgements() {
    conforms(DriverKind::Poll, protocol::MQ, EVENTS);
}

#[test]
fn conformance_poll_packed() {
    conforms(DriverKind::Poll, ALL, PACKED);
}

#[test]
fn conformance_uring_packed_with_events() {
    conforms(DriverKind::Uring, ALL, PACKED | EVENTS);
}

/// Random traffic over four rings at once, checked byte by byte.
fn traffic(driver: DriverKind, ring: u64, seed: u64) {
    let Some((mut driven, served)) = Served::many(driver, 3) else {
        return;
    };
    let socket = served.connect(&export(MemoryDisk::new(SIZE)));
    let disk = block::Normalize::wrap(GuestDisk::new(socket, ALL, ring));
    let reactor = driven.reactor().clone();
    let queues = (0..4)
        .map(|_| (reactor.clone(), disk.open_queue(&reactor).unwrap()))
        .collect();
    let model = Rc::new(RefCell::new(Model::zeroed(SIZE)));
    let workload = Workload {
        requests: 1000,
        max_len: 200 << 10,
        ..Workload::new(seed)
    };
    let checked = driven.block_on(workload.run(queues, &disk.limits(), &model));
    checked.expect("the model agrees");
    testkit::workload::assert_quiet(&reactor);
    drop(disk);
    served.end();
}

#[test]
fn traffic_uring() {
    (1..4).for_each(|seed| traffic(DriverKind::Uring, EVENTS, seed));
    traffic(DriverKind::Uring, PACKED | EVENTS, 4);
}

#[test]
fn traffic_poll() {
    (1..3).for_each(|seed| traffic(DriverKind::Poll, SPLIT, seed));
    traffic(DriverKind::Poll, PACKED, 4);
}
