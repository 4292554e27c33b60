//! Guests of the vhost-user-blk export: a real one under QEMU, and hostile ones.

use std::{
    cell::RefCell,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    process::{Command, Stdio},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use block::{
    Data, Device, Errno, Limits, Op, OpSet, Queue, QueueExt, Reactor, Request, Result, SharedBuf,
    SharedMem,
};
use reactor::{DriverKind, Io, Listener, Loop, Options, sealed_memory};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    fs::{MemfdFlags, ftruncate, memfd_create},
};
use testkit::MemoryDisk;
use virtio::{
    blk::{Operation, Reply, Requests, Status, feature},
    inflight,
    memory::{Region, RegionMap},
    ring::{AddressKind, Buffer, DriverRing, RingAreas, RingConfig, split},
    vhost_user::{
        FrontEvent, InflightArea, MemoryRegion, Message, VringAddress, VringFd, VringState,
        proto::feature::{PROTOCOL_FEATURES, VERSION_1},
    },
};

use crate::vhost_user_blk::{ALL, Control, Served, export, received};

const SIZE: u64 = 1 << 20;

/// A guest with one split ring at the beginning of its memory.
pub struct Guest {
    pub control: Control,
    memory: OwnedFd,
    pub region: Region,
    ring: split::Driver,
    requests: Requests,
    kick: OwnedFd,
    call: OwnedFd,
    err: OwnedFd,
    log: OwnedFd,
}

const LEN: u64 = 1 << 20;
const AT_REQUESTS: usize = 0x1_0000;

impl Guest {
    pub fn new(socket: UnixStream) -> Guest {
        Guest::with_protocol(socket, ALL)
    }

    pub fn with_protocol(socket: UnixStream, protocol: u64) -> Guest {
        let control = Control::connect(socket, protocol);
        let memory = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&memory, LEN).unwrap();
        let region = Region::map(0, 0, &memory, 0, LEN).unwrap();
        let map = RegionMap::new(vec![region.clone()]).unwrap();
        let places = [0, 0x4000, 0x8000];
        let lengths = split::lengths(16);
        let areas = RingAreas::find(&map, AddressKind::Guest, places, lengths).unwrap();
        let ring = split::Driver::new(areas, RingConfig::new(16), None).unwrap();
        let area = region.area(AT_REQUESTS as u64, 4096).unwrap();
        let event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        let mut guest = Guest {
            control,
            memory,
            region,
            ring,
            requests: Requests::new(area, AT_REQUESTS as u64, 1),
            kick: event(),
            call: event(),
            err: event(),
            log: sealed_memory("log", inflight::length(false, 16) as u64).unwrap(),
        };
        guest.introduce();
        guest.start(0);
        guest
    }

    /// Tells the back-end of features, memory and log.
    fn introduce(&mut self) {
        let features = self.features();
        self.control.does(Message::SetFeatures(features));
        let told = MemoryRegion {
            guest_addr: 0,
            size: LEN,
            user_addr: 0,
            mmap_offset: 0,
        };
        let memory = self.memory.try_clone().unwrap();
        self.control.does(Message::AddMemReg(told, memory));
        let area = InflightArea {
            mmap_size: inflight::length(false, 16) as u64,
            mmap_offset: 0,
            queues: 1,
            queue_size: 16,
        };
        let log = self.log.try_clone().unwrap();
        self.control.does(Message::SetInflightFd(area, log));
    }

    /// What it uses. A read-only disk has nothing to flush.
    pub fn features(&self) -> u64 {
        let wanted = VERSION_1 | PROTOCOL_FEATURES | 1 << feature::FLUSH;
        wanted & self.control.offered()
    }

    /// The same guest, with another back-end.
    fn reconnect(&mut self, socket: UnixStream) {
        self.control = Control::connect(socket, ALL);
        self.introduce();
        // Where it goes on is for the log to say.
        self.start(0);
    }

    /// Waits until the device has looked at so many requests.
    pub fn taken(&self, count: usize, parking: &Parking) {
        let end = Instant::now() + Duration::from_secs(20);
        while parking.taken.load(Ordering::SeqCst) < count {
            assert!(Instant::now() < end, "nothing comes");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn stop(&mut self) -> u32 {
        let index = VringState { index: 0, num: 0 };
        match self.control.call(Message::GetVringBase(index)) {
            FrontEvent::VringBase(_, state) => state.num,
            other => panic!("{other:?}"),
        }
    }

    pub fn start(&mut self, base: u32) {
        let state = |num| VringState { index: 0, num };
        let fd = |fd: &OwnedFd| VringFd {
            index: 0,
            fd: Some(fd.try_clone().unwrap()),
        };
        for message in [
            Message::SetVringNum(state(16)),
            Message::SetVringBase(state(base)),
            Message::SetVringAddr(VringAddress {
                index: 0,
                flags: 0,
                descriptors: 0,
                available: 0x4000,
                used: 0x8000,
                log: 0,
            }),
            Message::SetVringCall(fd(&self.call)),
            Message::SetVringErr(fd(&self.err)),
            Message::SetVringKick(fd(&self.kick)),
            Message::SetVringEnable(state(1)),
        ] {
            self.control.does(message);
        }
    }

    pub fn submit(&mut self, slot: u16, operation: Operation<'_>) {
        self.submit_with(slot, operation, &[]);
    }

    pub fn reply(&self, slot: u16) -> Reply {
        self.requests.reply(slot)
    }

    pub fn submit_with(&mut self, slot: u16, operation: Operation<'_>, data: &[Buffer]) {
        let mut buffers = Vec::new();
        self.requests
            .make(slot, &operation, data, &mut buffers)
            .unwrap();
        self.ring.add(&buffers, slot.into()).unwrap();
        if self.ring.publish() {
            rustix::io::write(&self.kick, &1u64.to_ne_bytes()).unwrap();
        }
    }

    /// Waits until the next request is done.
    pub fn wait(&mut self) -> u16 {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(used) = self.ring.pop().unwrap() {
                return used.cookie as u16;
            }
            assert!(Instant::now() < end, "no answer");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn id(&mut self) -> [u8; 20] {
        self.submit(0, Operation::GetId);
        assert_eq!(self.wait(), 0);
        assert_eq!(self.requests.reply(0).status, Status::Ok);
        self.requests.id(0)
    }
}

fn is_signalled(fd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    let wait = rustix::event::Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&wait)).unwrap() == 1
}

/// Runs a test with both drivers, with rings on their session's thread, and on several.
pub fn with_server(test: impl Fn(&Served)) {
    for driver in [DriverKind::Uring, DriverKind::Poll] {
        for loops in [1, 3] {
            if let Some((_, served)) = Served::many(driver, loops) {
                test(&served);
                served.end();
            }
        }
    }
}

#[test]
fn a_guest_asks_and_stops_and_goes_on() {
    with_server(|served| {
        let disk = export(MemoryDisk::new(SIZE));
        let mut guest = Guest::new(served.connect(&disk));
        assert_eq!(&guest.id(), b"serial-number\0\0\0\0\0\0\0");
        assert_eq!(guest.control.config().capacity, SIZE / 512);
        assert_eq!(guest.stop(), 1);
        // What comes while it is stopped is taken when it runs again.
        guest.submit(1, Operation::Flush);
        guest.start(1);
        assert_eq!(
            (guest.wait(), guest.requests.reply(1).status),
            (1, Status::Ok)
        );
        assert_eq!(guest.stop(), 2);
        // No zones here.
        guest.start(2);
        guest.submit(2, Operation::GetLifetime);
        guest.wait();
        assert_eq!(guest.requests.reply(2).status, Status::Unsupported);
    });
}

/// A disk that holds every request back until it is cancelled, or let go.
#[derive(Default)]
pub struct Parking {
    taken: AtomicUsize,
    /// They cannot be cancelled.
    holds: bool,
    released: AtomicBool,
}

impl Parking {
    /// One whose requests cannot be cancelled.
    pub fn holding() -> Parking {
        Parking {
            holds: true,
            ..Parking::default()
        }
    }

    /// All are done, from now on.
    pub fn release(&self) {
        self.released.store(true, Ordering::SeqCst);
    }
}

struct ParkingQueue {
    parking: Arc<Parking>,
    reactor: Reactor,
    parked: RefCell<Vec<block::Parked>>,
}

impl Queue for ParkingQueue {
    fn submit(&self, req: Request) {
        self.parking.taken.fetch_add(1, Ordering::SeqCst);
        if !self.parking.holds {
            let parked = req.park(|req| req.fail(Errno::ECANCELED));
            return self.parked.borrow_mut().push(parked);
        }
        let (parking, reactor) = (self.parking.clone(), self.reactor.clone());
        self.reactor.spawn(async move {
            while !parking.released.load(Ordering::SeqCst) {
                reactor.sleep(Duration::from_millis(1)).await;
            }
            req.done();
        });
    }
}

pub struct ParkingDisk(pub Arc<Parking>);

impl Device for ParkingDisk {
    fn limits(&self) -> Arc<Limits> {
        Arc::new(Limits::new(SIZE, OpSet::DISK))
    }

    fn open_queue(&self, reactor: &Reactor) -> Result<Rc<dyn Queue>> {
        Ok(Rc::new(ParkingQueue {
            parking: self.0.clone(),
            reactor: reactor.clone(),
            parked: RefCell::default(),
        }))
    }
}

#[test]
fn a_ring_with_parked_requests_stops() {
    with_server(|served| {
        let parking = Arc::new(Parking::default());
        let disk = export(Arc::new(ParkingDisk(parking.clone())));
        let mut guest = Guest::new(served.connect(&disk));
        guest.submit(0, Operation::Flush);
        guest.submit(1, Operation::Flush);
        guest.taken(2, &parking);
        assert_eq!(guest.stop(), 0, "they were given back");
    });
}

#[test]
fn what_was_in_flight_is_done_by_the_next_back_end() {
    with_server(|served| {
        let parking = Arc::new(Parking::default());
        let stuck = export(Arc::new(ParkingDisk(parking.clone())));
        let mut guest = Guest::new(served.connect(&stuck));
        guest.id();
        (1..4).for_each(|slot| guest.submit(slot, Operation::Flush));
        guest.taken(3, &parking);
        guest.reconnect(served.connect(&export(MemoryDisk::new(SIZE))));
        let mut done: Vec<u16> = (0..3).map(|_| guest.wait()).collect();
        done.sort_unstable();
        assert_eq!(done, [1, 2, 3], "each once");
        for slot in done {
            assert_eq!(guest.requests.reply(slot).status, Status::Ok);
        }
        guest.id();
        assert_eq!(guest.stop(), 5);
    });
}

#[test]
fn a_broken_ring_stops_alone() {
    with_server(|served| {
        let mut guest = Guest::new(served.connect(&export(MemoryDisk::new(SIZE))));
        guest.id();
        // The available index jumps.
        guest
            .region
            .area(0x4002, 2)
            .unwrap()
            .write(0, &999u16.to_le_bytes());
        rustix::io::write(&guest.kick, &1u64.to_ne_bytes()).unwrap();
        assert!(is_signalled(&guest.err), "the error descriptor");
        // The connection is alive.
        assert_eq!(guest.control.config().capacity, SIZE / 512);
    });
}

#[test]
fn memory_that_is_cut_off_ends_one_connection() {
    with_server(|served| {
        let disk = export(MemoryDisk::new(SIZE));
        let mut other = Guest::new(served.connect(&disk));
        let mut guest = Guest::new(served.connect(&disk));
        guest.id();
        other.id();
        ftruncate(&guest.memory, 0).unwrap();
        rustix::io::write(&guest.kick, &1u64.to_ne_bytes()).unwrap();
        let end = received(&guest.control.socket, &mut [0]);
        assert_eq!(end.unwrap(), 0, "the server closes the connection");
        assert_eq!(&other.id()[..6], b"serial");
    });
}

/// A boot sector: the BIOS reads it from the disk and runs it. It reads the next sector, adds 1 to
/// its first byte, writes it back, and ends the machine with that byte.
const BOOT: &[u8] = &[
    0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0,
    0xfb, // cli; xor ax,ax; mov ds,ax; mov es,ax; sti
    0xb8, 0x01, 0x02, 0xb9, 0x02, 0x00, 0xb6, 0x00, // mov ax,0x0201; mov cx,2; mov dh,0
    0xbb, 0x00, 0x80, 0xcd, 0x13, // mov bx,0x8000; int 0x13
    0xfe, 0x06, 0x00, 0x80, // inc byte [0x8000]
    0xb8, 0x01, 0x03, 0xb9, 0x02, 0x00, 0xb6, 0x00, // mov ax,0x0301; mov cx,2; mov dh,0
    0xbb, 0x00, 0x80, 0xcd, 0x13, // mov bx,0x8000; int 0x13
    0xa0, 0x00, 0x80, 0xba, 0xf4, 0x00, 0xee, // mov al,[0x8000]; mov dx,0xf4; out dx,al
    0xf4, // hlt
];

fn write(turns: &mut Loop, disk: &Arc<dyn Device>, bytes: Vec<u8>) {
    let reactor: Reactor = turns.reactor().clone();
    let queue = disk.open_queue(&reactor).unwrap();
    let mut req = reactor.request(Op::Write, 0, bytes.len() as u64);
    let len = bytes.len();
    let mem = SharedMem::of_shared(SharedBuf::from_vec(bytes), 0, len);
    *req.data_mut() = Data::Iov(mem.into());
    assert!(turns.block_on(queue.call(req)).error().is_none());
}

fn read(turns: &mut Loop, disk: &Arc<dyn Device>, offset: u64) -> u8 {
    let reactor: Reactor = turns.reactor().clone();
    let queue = disk.open_queue(&reactor).unwrap();
    let mut byte = [0; 512];
    let mut req = reactor.request(Op::Read, offset, 512);
    *req.data_mut() = Data::Wanted;
    let done = turns.block_on(queue.call(req));
    done.data().read(&mut byte);
    byte[0]
}

#[test]
fn qemu_boots_from_it() {
    if Command::new("qemu-system-x86_64")
        .arg("--version")
        .output()
        .is_err()
    {
        println!("SKIP: qemu-system-x86_64 is not installed");
        return;
    }
    for driver in [DriverKind::Uring, DriverKind::Poll] {
        let options = Options {
            driver,
            ..Options::default()
        };
        let Ok(mut turns) = Loop::new(options) else {
            println!("SKIP: io_uring refused");
            continue;
        };
        let mut image = vec![0; 1024];
        image[..BOOT.len()].copy_from_slice(BOOT);
        image[510..512].copy_from_slice(&[0x55, 0xaa]);
        image[512] = 20;
        let disk: Arc<dyn Device> = MemoryDisk::new(SIZE);
        write(&mut turns, &disk, image);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.sock");
        let listener = Listener::bind_unix(&path).unwrap();
        let mut qemu = boot(&path);
        let reactor = turns.reactor().clone();
        let exported = export(disk.clone());
        turns.block_on(async {
            let accepted = listener.accept(&reactor).await.unwrap();
            let stream = Io::of(&reactor).fd_stream(accepted.fd).unwrap();
            let homes = [reactor.inbox().clone()];
            exported
                .serve(&reactor, stream, &homes)
                .await
                .expect("a careful front-end");
        });
        let status = qemu.wait().unwrap();
        // isa-debug-exit: 2 * byte + 1.
        assert_eq!(status.code(), Some(43), "the guest has read 20 and added 1");
        assert_eq!(read(&mut turns, &disk, 512), 21, "and has written that");
    }
}

fn boot(socket: &Path) -> std::process::Child {
    let chardev = format!("socket,id=c,path={}", socket.display());
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-machine", "pc,accel=tcg,memory-backend=m", "-m", "64"]);
    command.args(["-object", "memory-backend-memfd,id=m,size=64M,share=on"]);
    command.args(["-chardev", &chardev]);
    command.args([
        "-device",
        "vhost-user-blk-pci,chardev=c,bootindex=1,disable-legacy=on",
    ]);
    command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=1"]);
    command.args([
        "-nodefaults",
        "-display",
        "none",
        "-no-reboot",
        "-net",
        "none",
    ]);
    command.stdin(Stdio::null()).spawn().unwrap()
}
