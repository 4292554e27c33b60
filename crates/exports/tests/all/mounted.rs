//! The FUSE export without a kernel's side of it: the test kit's suites through packets, in simulated
//! worlds; and scripted requests through a socket of packets, on both drivers.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    os::fd::OwnedFd,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use blkit_exports::fuse::{
    Answers, Bounds, End, Fuse, Opcode, Session, Shape, View,
    fuzzing::{fallocate, init, lseek, packet, transfer, write},
};
use block::{
    Data, Device, Errno, ExtentFlags, ExtentList, Flags, Limits, Local, Op, OpSet, Queue, Reactor,
    RecvBuf, Request, Result, SharedBuf, SharedMem,
};
use reactor::{DriverKind, Io, Loop, Options, Packets, SendBatch, sim::SimLoop};
use testkit::{
    FlushFault, MemoryDisk, Model, Rng, Seeds, SimDisk, SimDiskOptions, StepDevice, Workload,
    conformance, workload::assert_quiet,
};

const SIZE: u64 = 1 << 20;

/// The file in the directory.
const FILE: u64 = 2;

fn view() -> View {
    View {
        shape: Shape::Directory {
            name: "disk".into(),
        },
        ..View::default()
    }
}

/// A disk behind the export, as a device again: every request becomes packets.
struct Mounted {
    disk: Arc<dyn Device>,
    fuse: Arc<Fuse>,
}

impl Mounted {
    fn new(disk: Arc<dyn Device>) -> Arc<Mounted> {
        let fuse = Fuse::new(disk.clone(), view(), Bounds::default());
        Arc::new(Mounted { disk, fuse })
    }
}

impl Device for Mounted {
    fn limits(&self) -> Arc<Limits> {
        let ops = [Op::Read, Op::Write, Op::Flush, Op::WriteZeroes, Op::Extents];
        let mut limits = Limits::new(self.disk.limits().size, OpSet::of(&ops));
        limits.max_transfer = 1 << 20;
        limits.multi_conn = true;
        Arc::new(limits)
    }

    fn open_queue(&self, reactor: &Reactor) -> Result<Rc<dyn Queue>> {
        let pending = Rc::new(Pending::default());
        let session = Session::new(&self.fuse, reactor, pending.clone(), None)?;
        let kernel = Kernel {
            reactor: reactor.clone(),
            session,
            pending,
        };
        kernel.send(&init(7, 39, u64::MAX));
        Ok(Rc::new(kernel))
    }

    fn close<'a>(&'a self, reactor: &'a Reactor) -> Local<'a, Result<()>> {
        self.disk.close(reactor)
    }
}

/// What the kernel's side would do.
struct Kernel {
    reactor: Reactor,
    session: Rc<Session>,
    pending: Rc<Pending>,
}

/// What is done with an answer: an error, or its body.
type Then = Box<dyn FnOnce(std::result::Result<Vec<u8>, Errno>)>;

#[derive(Default)]
struct Pending {
    last: RefCell<u64>,
    waiting: RefCell<HashMap<u64, Then>>,
}

impl Answers for Pending {
    fn answer(&self, batch: &SendBatch) {
        let bytes = batch.to_vec();
        let (unique, answer) = understood(&bytes);
        // INIT's is nobody's.
        let then = self.waiting.borrow_mut().remove(&unique);
        if let Some(then) = then {
            then(answer);
        }
    }
}

/// Whose answer it is, and what it says.
fn understood(bytes: &[u8]) -> (u64, std::result::Result<Vec<u8>, Errno>) {
    let len = u32::from_ne_bytes(bytes[..4].try_into().unwrap());
    assert_eq!(len as usize, bytes.len(), "one packet");
    let error = i32::from_ne_bytes(bytes[4..8].try_into().unwrap());
    let unique = u64::from_ne_bytes(bytes[8..16].try_into().unwrap());
    let answer = match error {
        0 => Ok(bytes[16..].to_vec()),
        error => Err(Errno::new(error)),
    };
    (unique, answer)
}

impl Kernel {
    fn send(&self, packet: &[u8]) {
        let mut buf = RecvBuf::new(self.reactor.chunk(packet.len()));
        assert_eq!(buf.write(packet), packet.len());
        self.session.packet(&mut buf).expect("it is understood");
        assert!(buf.data().is_empty(), "all of it was taken");
    }

    fn ask(&self, make: impl FnOnce(u64) -> Vec<u8>, then: Then) {
        let unique = {
            let mut last = self.pending.last.borrow_mut();
            *last += 2;
            *last
        };
        self.pending.waiting.borrow_mut().insert(unique, then);
        self.send(&make(unique));
    }

    fn again(&self) -> Kernel {
        Kernel {
            reactor: self.reactor.clone(),
            session: self.session.clone(),
            pending: self.pending.clone(),
        }
    }

    /// One extent, from two questions at most.
    fn extent(&self, req: Request) {
        let at = req.offset();
        let this = self.again();
        let seek = move |whence| move |unique| lseek(unique, FILE, at, whence);
        self.ask(
            seek(3),
            Box::new(move |answer| match answer.map(number) {
                Err(Errno::ENXIO) => tell(req, u64::MAX, ExtentFlags::HOLE_ZERO),
                Err(error) => req.fail(error),
                Ok(data) if data > at => tell(req, data, ExtentFlags::HOLE_ZERO),
                Ok(_) => this.ask(
                    seek(4),
                    Box::new(move |answer| match answer.map(number) {
                        // Somebody may have written meanwhile.
                        Ok(hole) => tell(req, hole.max(at + 1), ExtentFlags::DATA),
                        Err(error) => req.fail(error),
                    }),
                ),
            }),
        );
    }
}

fn number(bytes: Vec<u8>) -> u64 {
    u64::from_ne_bytes(bytes.try_into().expect("8 bytes"))
}

/// Completes a request for extents with one that ends at `to`, or where the request does.
fn tell(mut req: Request, to: u64, flags: ExtentFlags) {
    let len = to.min(req.end()) - req.offset();
    *req.data_mut() = Data::Extents(ExtentList::one(len, flags));
    req.done();
}

impl Queue for Kernel {
    fn submit(&self, req: Request) {
        let (offset, len) = (req.offset(), req.len());
        match req.op() {
            Op::Read => self.ask(
                |unique| transfer(Opcode::Read, unique, FILE, offset, len as u32),
                Box::new(move |answer| match answer {
                    Err(error) => req.fail(error),
                    Ok(bytes) => {
                        let len = bytes.len();
                        let shared = SharedBuf::from_vec(bytes);
                        req.give(SharedMem::of_shared(shared, 0, len).into());
                    }
                }),
            ),
            Op::Write => {
                let bytes = req.data().as_iov().expect("bytes").to_vec();
                self.ask(|unique| write(unique, FILE, offset, &bytes), done(req));
            }
            Op::Flush => {
                let make = |unique| packet(Opcode::Fsync.number(), unique, FILE, &[0; 16]);
                self.ask(make, done(req));
            }
            Op::WriteZeroes => {
                let keep = req.flags().contains(Flags::NO_HOLE);
                let mode = if keep { 16 } else { 3 };
                let make = |unique| fallocate(unique, FILE, offset, len, mode);
                self.ask(make, done(req));
            }
            Op::Extents => self.extent(req),
            _ => req.fail(Errno::ENOTSUP),
        }
    }
}

/// Ends the request as the answer says; a write tells how much it wrote.
fn done(req: Request) -> Then {
    Box::new(move |answer| match answer {
        Err(error) => req.fail(error),
        Ok(body) => {
            if req.op() == Op::Write && req.len() > 0 {
                let wrote = u32::from_ne_bytes(body[..4].try_into().expect("a size"));
                assert_eq!(u64::from(wrote), req.len());
            }
            req.done();
        }
    })
}

#[test]
fn any_disk_is_the_same_disk_as_a_file() {
    let mut world = SimLoop::new(5);
    let ran = conformance::run(|_| Mounted::new(MemoryDisk::new(SIZE)), &mut world);
    assert!(ran.len() > 10, "only {ran:?}");
    for driver in [DriverKind::Auto, DriverKind::Poll] {
        let options = Options {
            driver,
            ..Options::default()
        };
        let mut turns = Loop::new(options).expect("a loop");
        conformance::run(|_| Mounted::new(MemoryDisk::new(SIZE)), &mut turns);
    }
}

/// Runs traffic in the world of `seed`; gives its digest and how many requests were checked.
fn run(seed: u64, faults: bool) -> (u64, u64) {
    let world = SimLoop::new(seed);
    let reactor = world.reactor().clone();
    let mut rng = Rng::new(seed ^ 0xf05e);
    let mut options = SimDiskOptions::new(SIZE, seed);
    options.limits.min_block = *rng.pick(&[1, 512]);
    options.delay = Duration::from_micros(rng.below(200));
    if faults {
        options.faults.errors = 40;
        options.faults.flush = FlushFault::OneIn(10);
    }
    let disk = SimDisk::new(options);
    let mounted = Mounted::new(disk.clone());
    let queues = (0..3).map(|_| {
        let queue = mounted.open_queue(&reactor).expect("a queue");
        (reactor.clone(), queue)
    });
    let model = Model::zeroed(SIZE);
    let model = Rc::new(RefCell::new(if faults { model.tolerant() } else { model }));
    let workload = Workload {
        requests: 200,
        max_len: 300 << 10,
        ..Workload::new(seed)
    };
    let checked = world.block_on(workload.run(queues.collect(), &mounted.limits(), &model));
    checked.unwrap_or_else(|v| panic!("seed {seed}: {}", v.0));
    // The simulated disk forgets no failed flush, and neither does the mount.
    let flushed = world.block_on(mounted.fuse.flush(&reactor));
    assert!(faults || flushed.is_ok());
    let closed = world.block_on(mounted.close(&reactor));
    assert!(faults || closed.is_ok());
    drop(mounted);
    world.run_until_idle();
    assert_quiet(&reactor);
    assert_eq!(disk.violations(), 0);
    (world.digest(), model.borrow().checked())
}

#[test]
fn any_world_as_a_file() {
    let mut checked = 0;
    Seeds::of("any_world_as_a_file", 12).run(|seed| checked += run(seed, false).1);
    println!("{checked} requests checked");
}

#[test]
fn a_failing_disk_fails_requests_and_nothing_else_as_a_file() {
    Seeds::of(
        "a_failing_disk_fails_requests_and_nothing_else_as_a_file",
        6,
    )
    .run(|seed| assert_ne!(run(seed, true).1, 0));
}

#[test]
fn one_seed_is_one_world_as_a_file() {
    assert_eq!(run(3, true), run(3, true));
    assert_ne!(run(1, false).0, run(2, false).0);
}

/// A mount over a socket of packets, and the other end of it.
struct Wire {
    turns: Loop,
    /// Keeps the socket, as the kernel keeps its side, when nothing is served any more.
    _ours: OwnedFd,
    theirs: Packets,
    fuse: Arc<Fuse>,
    ended: Rc<RefCell<Option<Result<End>>>>,
}

fn pair() -> (OwnedFd, OwnedFd) {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let flags = SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("a pair")
}

impl Wire {
    fn new(driver: DriverKind, device: Arc<dyn Device>, bounds: Bounds) -> Wire {
        let options = Options {
            driver,
            ..Options::default()
        };
        let turns = Loop::new(options).expect("a loop");
        let (ours, theirs) = pair();
        let io = Io::of(turns.reactor());
        let kept = ours.try_clone().expect("a descriptor");
        let (ours, theirs) = (io.packets(ours).unwrap(), io.packets(theirs).unwrap());
        let fuse = Fuse::new(device, view(), bounds);
        let ended = Rc::new(RefCell::default());
        let (seat, end, reactor) = (fuse.join(), Rc::clone(&ended), turns.reactor().clone());
        turns.reactor().spawn(async move {
            let served = seat.serve(&reactor, ours).await;
            *end.borrow_mut() = Some(served);
        });
        let mut wire = Wire {
            turns,
            _ours: kept,
            theirs,
            fuse,
            ended,
        };
        wire.send(&init(7, 39, u64::MAX));
        assert_eq!(wire.answer().1.expect("agreed").len(), 64);
        let fuse = wire.fuse.clone();
        wire.turns.block_on(fuse.ready());
        wire
    }

    fn send(&self, packet: &[u8]) {
        let mut batch = SendBatch::new();
        batch.push_head(packet);
        self.theirs.send(&batch).expect("it is taken");
    }

    fn answer(&mut self) -> (u64, std::result::Result<Vec<u8>, Errno>) {
        let mut buf = RecvBuf::new(self.turns.reactor().chunk(2 << 20));
        let received = self.turns.block_on(self.theirs.recv(&mut buf));
        assert_ne!(received.expect("an answer"), 0, "the end");
        understood(buf.data())
    }

    fn turn(&mut self) {
        for _ in 0..20 {
            self.turns.turn(reactor::Wait::Poll);
        }
    }

    fn fsync(&self, unique: u64) {
        self.send(&packet(Opcode::Fsync.number(), unique, FILE, &[0; 16]));
    }

    fn close(&self, unique: u64) {
        // The handle of a writer.
        self.send(&packet(Opcode::Flush.number(), unique, FILE, &[1; 24]));
    }

    /// Waits for the end of what serves.
    fn end(mut self) -> Result<End> {
        let fuse = self.fuse.clone();
        self.turns.block_on(fuse.drained());
        assert_quiet(self.turns.reactor());
        self.ended.take().expect("it has ended")
    }
}

const DRIVERS: [DriverKind; 2] = [DriverKind::Auto, DriverKind::Poll];

#[test]
fn what_is_written_goes_down_from_where_it_was_received() {
    for driver in DRIVERS {
        // A disk for O_DIRECT: what is not aligned would be copied on its way.
        let mut limits = Limits::new(SIZE, OpSet::DISK);
        limits.memory_align = 4096;
        let device = StepDevice::with(limits);
        let mut wire = Wire::new(driver, device.clone(), Bounds::default());
        for unique in 1..=3 {
            wire.send(&write(unique, FILE, unique * 4096, &[unique as u8; 4096]));
        }
        wire.turn();
        assert_eq!(device.waiting(), 3, "in parallel");
        let copied = wire.turns.reactor().counters().bytes_copied.get();
        assert_eq!(copied, 0, "{driver:?}");
        let mut steps: Vec<_> = (0..3).map(|_| device.next().expect("a write")).collect();
        for step in &steps {
            let mut bytes = [0; 4096];
            step.remote.read_data(0, &mut bytes);
            assert_eq!(bytes, [(step.remote.offset() >> 12) as u8; 4096]);
        }
        // In any order.
        steps.reverse();
        steps.into_iter().for_each(|step| step.done(0));
        let answers: HashSet<u64> = (0..3).map(|_| wire.answer().0).collect();
        assert_eq!(answers, HashSet::from([1, 2, 3]));
        wire.send(&packet(Opcode::Destroy.number(), 4, 0, &[]));
        assert_eq!(wire.answer(), (4, Ok(Vec::new())));
        assert_eq!(wire.end().expect("a clean end"), End::Unmounted);
    }
}

#[test]
fn a_failed_flush_is_never_forgotten() {
    for driver in DRIVERS {
        let device = StepDevice::new(SIZE);
        let mut wire = Wire::new(driver, device.clone(), Bounds::default());
        wire.send(&write(1, FILE, 0, b"bytes"));
        wire.turn();
        device.expect(Op::Write, 0, 5).done(0);
        assert_eq!(wire.answer().0, 1);
        wire.fsync(2);
        wire.turn();
        device.expect(Op::Flush, 0, 0).fail(Errno::ENOSPC);
        assert_eq!(wire.answer(), (2, Err(Errno::ENOSPC)));
        // Neither of them asks the disk, which might have forgotten.
        wire.fsync(3);
        assert_eq!(wire.answer(), (3, Err(Errno::ENOSPC)));
        wire.close(4);
        assert_eq!(wire.answer(), (4, Err(Errno::ENOSPC)));
        assert_eq!(device.waiting(), 0);
        let (fuse, reactor) = (wire.fuse.clone(), wire.turns.reactor().clone());
        let told = wire.turns.block_on(fuse.flush(&reactor)).expect_err("lost");
        assert!(told.chain().contains("may be lost"), "{told:?}");
        fuse.stop();
        assert_eq!(wire.end().expect("a clean end"), End::Stopped);
    }
}

#[test]
fn closing_flushes_what_was_written() {
    let device = StepDevice::new(SIZE);
    let mut wire = Wire::new(DriverKind::Auto, device.clone(), Bounds::default());
    wire.close(1);
    assert_eq!(wire.answer(), (1, Ok(Vec::new())));
    wire.send(&fallocate(2, FILE, 0, 4096, 3));
    wire.turn();
    device.expect(Op::WriteZeroes, 0, 4096).done(0);
    assert_eq!(wire.answer().0, 2);
    wire.close(3);
    wire.turn();
    let flush = device.expect(Op::Flush, 0, 0);
    // Not covered: it is not done when the flush begins.
    wire.send(&write(4, FILE, 0, b"late"));
    wire.turn();
    flush.done(0);
    assert_eq!(wire.answer().0, 3);
    device.expect(Op::Write, 0, 4).done(0);
    assert_eq!(wire.answer().0, 4);
    wire.close(5);
    wire.turn();
    device.expect(Op::Flush, 0, 0).done(0);
    assert_eq!(wire.answer(), (5, Ok(Vec::new())));
    wire.close(6);
    assert_eq!(wire.answer(), (6, Ok(Vec::new())));
    assert_eq!(device.waiting(), 0);
    wire.fuse.stop();
    wire.end().expect("a clean end");
}

#[test]
fn errors_are_told_as_they_are_but_for_the_one_that_ends_all() {
    let device = StepDevice::new(SIZE);
    let mut wire = Wire::new(DriverKind::Auto, device.clone(), Bounds::default());
    for (unique, error, told) in [(1, 28, 28), (2, 38, 5), (3, 600, 5)] {
        wire.fsync(unique);
        wire.send(&transfer(Opcode::Read, unique + 10, FILE, 0, 512));
        wire.turn();
        if unique == 1 {
            device.expect(Op::Flush, 0, 0).done(0);
        } else {
            device.next().expect("a flush").done(0);
        }
        assert_eq!(wire.answer().0, unique);
        device.expect(Op::Read, 0, 512).fail(Errno::new(error));
        assert_eq!(wire.answer(), (unique + 10, Err(Errno::new(told))));
    }
    wire.fuse.stop();
    wire.end().expect("a clean end");
}

#[test]
fn who_is_interrupted_is_told_so() {
    let device = StepDevice::new(SIZE);
    let mut wire = Wire::new(DriverKind::Auto, device.clone(), Bounds::default());
    let interrupt = |unique: u64| packet(Opcode::Interrupt.number(), 99, 0, &unique.to_ne_bytes());
    for unique in [1, 2, 3] {
        wire.send(&transfer(Opcode::Read, unique, FILE, 0, 512));
    }
    // One of them is not known, or not any more.
    for unique in [2, 3, 7] {
        wire.send(&interrupt(unique));
    }
    wire.turn();
    let next = || device.next().expect("a read");
    next().fail(Errno::ECANCELED);
    next().fail(Errno::ECANCELED);
    // It was on its way already.
    next().done(5);
    assert_eq!(wire.answer(), (1, Err(Errno::ECANCELED)));
    assert_eq!(wire.answer(), (2, Err(Errno::EINTR)));
    assert_eq!(wire.answer(), (3, Ok(vec![5; 512])));
    wire.fuse.stop();
    wire.end().expect("a clean end");
}

#[test]
fn what_is_in_flight_is_bounded_and_answered_in_the_end() {
    let device = StepDevice::new(SIZE);
    let bounds = Bounds {
        requests: 2,
        bytes: 8 << 20,
    };
    let mut wire = Wire::new(DriverKind::Auto, device.clone(), bounds);
    for unique in 1..=5 {
        wire.send(&transfer(Opcode::Read, unique, FILE, 0, 512));
    }
    wire.turn();
    assert_eq!(device.waiting(), 2);
    device.next().expect("a read").done(7);
    assert_eq!(wire.answer(), (1, Ok(vec![7; 512])));
    wire.turn();
    assert_eq!(device.waiting(), 2);
    wire.fuse.stop();
    wire.turn();
    assert!(wire.ended.borrow().is_none(), "two are not answered");
    for unique in [2, 3] {
        device.next().expect("a read").done(9);
        assert_eq!(wire.answer(), (unique, Ok(vec![9; 512])));
    }
    assert_eq!(wire.end().expect("a clean end"), End::Stopped);
    assert_eq!(device.waiting(), 0, "nothing more was read");
}

#[test]
fn the_end_of_the_packets_is_an_unmount_and_nonsense_is_an_error() {
    for driver in DRIVERS {
        let mut wire = Wire::new(driver, MemoryDisk::new(SIZE), Bounds::default());
        let (other, _) = pair();
        wire.theirs = Io::of(wire.turns.reactor())
            .packets(other)
            .expect("packets");
        assert_eq!(wire.end().expect("a clean end"), End::Unmounted);
        let wire = Wire::new(driver, MemoryDisk::new(SIZE), Bounds::default());
        wire.send(b"nonsense");
        let error = wire.end().expect_err("no packet");
        assert!(error.chain().contains("8 bytes"), "{error:?}");
    }
}
