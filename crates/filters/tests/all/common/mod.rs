//! What the tests of the filters share: stacks made as users make them, and requests in one line.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use block::{
    Data, Device, Errno, Error, ExtentFlags, ExtentList, Flags, Iov, Limits, Next, Op, OpSet,
    OpenContext, Queue, QueueExt, Reactor, Request, Sleep, Source, Support,
};
use config::Arg;
use testkit::{DeviceSource, Rng, SimLoop, TestHost};

/// A filter and its arguments, in front of a source.
pub fn filter(words: &str, below: Arc<dyn Source>) -> Result<Arc<dyn Source>, Error> {
    let mut words = words.split_whitespace();
    let name = words.next().expect("a filter's name");
    let entry = blkit_filters::registry()
        .iter()
        .find(|entry| entry.name == name)
        .expect("a filter that exists");
    let args: Vec<Arg> = words.map(Arg::parse).collect();
    (entry.make)(&args, Next::new(below))
}

/// Filters in front of a device, the outermost first.
pub fn stack(filters: &[&str], device: Arc<dyn Device>) -> Arc<dyn Source> {
    let source: Arc<dyn Source> = DeviceSource::new(device);
    filters.iter().rev().fold(source, |below, words| {
        filter(words, below).expect("good arguments")
    })
}

/// One reactor, a host, an opened stack of filters and a queue into it.
pub struct Bench {
    pub sim: SimLoop,
    pub host: Arc<TestHost>,
    pub source: Arc<dyn Source>,
    pub device: Arc<dyn Device>,
    pub queue: Rc<dyn Queue>,
}

impl Bench {
    pub fn new(filters: &[&str], device: Arc<dyn Device>) -> Bench {
        Bench::with(TestHost::new(), filters, device)
    }

    pub fn with(host: Arc<TestHost>, filters: &[&str], device: Arc<dyn Device>) -> Bench {
        let sim = SimLoop::new(1);
        let source = stack(filters, device);
        let cx = host.context(sim.reactor());
        let device = sim.block_on(source.open(&cx)).expect("it opens");
        let queue = device.open_queue(sim.reactor()).expect("a queue");
        Bench {
            sim,
            host,
            source,
            device,
            queue,
        }
    }

    pub fn context(&self) -> OpenContext {
        self.host.context(self.sim.reactor())
    }

    pub fn read(&self, at: u64, len: u64) -> Result<Vec<u8>, Errno> {
        self.sim
            .block_on(read(&self.queue, self.sim.reactor(), at, len))
    }

    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.sim
            .block_on(write(&self.queue, self.sim.reactor(), at, bytes))
    }

    pub fn plain(&self, op: Op, at: u64, len: u64) -> Result<(), Errno> {
        self.flagged(op, at, len, Flags::NONE)
    }

    pub fn flagged(&self, op: Op, at: u64, len: u64, flags: Flags) -> Result<(), Errno> {
        self.sim
            .block_on(plain(&self.queue, self.sim.reactor(), op, at, len, flags))
    }

    pub fn extents(&self, at: u64, len: u64, flags: Flags) -> Vec<(u64, ExtentFlags)> {
        let mut req = self.sim.reactor().request(Op::Extents, at, len);
        req.set_flags(flags);
        let done = self.sim.block_on(self.queue.call(req));
        assert!(done.error().is_none(), "{:?}", done.error());
        let list = done.data().as_extents().expect("extents");
        let pairs = list.allocation().iter();
        pairs
            .map(|extent| (extent.len, ExtentFlags(extent.flags)))
            .collect()
    }
}

impl Drop for Bench {
    /// Every test ends with nothing lost and nothing left.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.sim.run_until_idle();
        nothing_left(self.sim.reactor());
    }
}

/// A device that is slow, by another random time for each request and for each way.
pub struct Lag {
    device: Arc<dyn Device>,
    seed: AtomicU64,
}

impl Lag {
    pub fn new(device: Arc<dyn Device>, seed: u64) -> Arc<Lag> {
        Arc::new(Lag {
            device,
            seed: AtomicU64::new(seed),
        })
    }
}

impl Device for Lag {
    fn limits(&self) -> Arc<Limits> {
        self.device.limits()
    }

    fn open_queue(&self, reactor: &Reactor) -> block::Result<Rc<dyn Queue>> {
        Ok(Rc::new(LagQueue {
            next: self.device.open_queue(reactor)?,
            rng: Rc::new(RefCell::new(Rng::new(
                self.seed.fetch_add(1, Ordering::Relaxed),
            ))),
            reactor: reactor.clone(),
        }))
    }
}

struct LagQueue {
    next: Rc<dyn Queue>,
    rng: Rc<RefCell<Rng>>,
    reactor: Reactor,
}

impl LagQueue {
    fn wait(rng: &RefCell<Rng>, reactor: &Reactor) -> Sleep {
        reactor.sleep(Duration::from_micros(rng.borrow_mut().below(50)))
    }
}

impl Queue for LagQueue {
    fn submit(&self, mut req: Request) {
        let (rng, reactor) = (self.rng.clone(), self.reactor.clone());
        req.intercept(move |done| {
            let wait = LagQueue::wait(&rng, &reactor);
            reactor.spawn(async move {
                wait.await;
                done.finish();
            });
        });
        let (next, wait) = (self.next.clone(), LagQueue::wait(&self.rng, &self.reactor));
        self.reactor.spawn(async move {
            wait.await;
            next.submit(req);
        });
    }
}

/// A disk of any size that holds nothing and reads as zeroes.
pub struct Nothing(Arc<Limits>);

impl Nothing {
    pub fn new(size: u64) -> Arc<Nothing> {
        let mut limits = Limits::new(size, OpSet::DISK);
        limits.fua = Support::Native;
        limits.fast_zero = true;
        Arc::new(Nothing(Arc::new(limits)))
    }
}

impl Device for Nothing {
    fn limits(&self) -> Arc<Limits> {
        self.0.clone()
    }

    fn open_queue(&self, _: &Reactor) -> block::Result<Rc<dyn Queue>> {
        struct NothingQueue;
        impl Queue for NothingQueue {
            fn submit(&self, mut req: Request) {
                match req.op() {
                    Op::Read => req.give_zeroes(),
                    Op::Extents => {
                        let all = ExtentList::one(req.len(), ExtentFlags::HOLE_ZERO);
                        *req.data_mut() = Data::Extents(all);
                        req.done();
                    }
                    _ => req.done(),
                }
            }
        }
        Ok(Rc::new(NothingQueue))
    }
}

/// No request was dropped, none is out, and no memory is.
pub fn nothing_left(reactor: &Reactor) {
    assert_eq!(reactor.counters().dropped.get(), 0, "requests were dropped");
    assert_eq!(reactor.counters().panics.get(), 0, "callbacks panicked");
    assert_eq!(reactor.requests_live(), 0, "requests are out");
    assert_eq!(reactor.chunks().live(), 0, "memory is out");
}

pub async fn read(
    queue: &Rc<dyn Queue>,
    reactor: &Reactor,
    at: u64,
    len: u64,
) -> Result<Vec<u8>, Errno> {
    let mut req = reactor.request(Op::Read, at, len);
    *req.data_mut() = Data::Wanted;
    let mut done = queue.call(req).await;
    done.take_outcome().map_err(|error| error.errno())?;
    Ok(done
        .data()
        .as_given()
        .expect("a wanted read is given")
        .to_vec())
}

pub async fn write(
    queue: &Rc<dyn Queue>,
    reactor: &Reactor,
    at: u64,
    bytes: &[u8],
) -> Result<(), Errno> {
    let iov = Iov::of_chunk(reactor.chunk(bytes.len()), bytes.len());
    iov.write(0, bytes);
    let mut req = reactor.request(Op::Write, at, bytes.len() as u64);
    *req.data_mut() = iov.into();
    let mut done = queue.call(req).await;
    done.take_outcome().map_err(|error| error.errno())
}

pub async fn plain(
    queue: &Rc<dyn Queue>,
    reactor: &Reactor,
    op: Op,
    at: u64,
    len: u64,
    flags: Flags,
) -> Result<(), Errno> {
    let mut req = reactor.request(op, at, len);
    req.set_flags(flags);
    let mut done = queue.call(req).await;
    done.take_outcome().map_err(|error| error.errno())
}
