//! The test kit's suites through an NBD server: every framing, both drivers, over sockets.

use std::{cell::RefCell, io, os::unix::net::UnixStream, rc::Rc, sync::Arc};

use crate::common::{Connect, open, options};
use blkit_exports::nbd::{Options as NbdOptions, Server};
use block::{Reactor, Source};
use nbd::{Mode, proto::CONTEXT_BASE_ALLOCATION};
use reactor::{DriverKind, Io, Loop, Options, Reactors};
use sources::nbd::Settings;
use testkit::{DeviceSource, Drive, MemoryDisk, Model, TestHost, Workload, conformance};

/// A loop that both the suite and whoever opens disks for it can turn.
#[derive(Clone)]
struct Driven(Rc<RefCell<Loop>>, Reactor);

impl Driven {
    fn new(made: Loop) -> Driven {
        let reactor = made.reactor().clone();
        Driven(Rc::new(RefCell::new(made)), reactor)
    }
}

impl Drive for Driven {
    fn reactor(&self) -> &Reactor {
        &self.1
    }

    fn block_on<T>(&mut self, future: impl Future<Output = T>) -> T {
        self.0.borrow_mut().block_on(future)
    }
}

const SIZE: u64 = 4 << 20;

/// A server on a thread of its own, and how to reach it.
struct World {
    served: Reactors,
    server: Arc<Server>,
    connect: Connect,
}

fn loops(driver: DriverKind) -> Option<(Driven, Reactors)> {
    let options = Options {
        driver,
        ..Options::default()
    };
    match Loop::new(options.clone()) {
        Ok(client) => Some((
            Driven::new(client),
            Reactors::start(1, options).expect("a second loop"),
        )),
        Err(error) => {
            println!("SKIP: {driver:?} refused: {}", error.chain());
            None
        }
    }
}

fn world(served: Reactors, source: Arc<dyn Source>) -> World {
    let server = Server::new(source, TestHost::new(), NbdOptions::default());
    let (inbox, serving) = (served.inbox(0).clone(), server.clone());
    let connect: Connect = Arc::new(move |reactor| {
        let (ours, theirs) = UnixStream::pair()?;
        let serving = serving.clone();
        let sent =
            inbox.run(move |reactor| serving.serve_socket(reactor, theirs.into(), "pair".into()));
        if !sent {
            return Err(io::ErrorKind::NotConnected.into());
        }
        Io::of(reactor).stream(ours.into())
    });
    World {
        served,
        server,
        connect,
    }
}

impl World {
    fn end(self) {
        self.server.stop();
        let stats = self.served.stop(std::time::Duration::from_secs(5));
        assert_eq!(self.server.connections(), 0);
        assert_eq!(self.server.stats().violations, 0);
        assert!(
            stats.iter().all(|s| s.leaked == 0),
            "the server's loop leaked"
        );
    }
}

fn conformance(driver: DriverKind, mode: Mode) {
    let Some((client, served)) = loops(driver) else {
        return;
    };
    let world = world(served, DeviceSource::new(MemoryDisk::new(SIZE)));
    let contexts: &[&str] = if mode == Mode::Simple {
        &[]
    } else {
        &[CONTEXT_BASE_ALLOCATION]
    };
    let opener = client.clone();
    let make = |reactor: &Reactor| {
        let wanted = options(mode, contexts);
        let opened = open(reactor, &world.connect, wanted, Settings::default());
        opener.clone().block_on(opened)
    };
    let ran = conformance::run(make, &mut client.clone());
    assert!(ran.len() > 10, "only {ran:?}");
    world.end();
}

#[test]
fn conformance_uring_extended() {
    conformance(DriverKind::Uring, Mode::Extended);
}

#[test]
fn conformance_uring_structured() {
    conformance(DriverKind::Uring, Mode::Structured);
}

#[test]
fn conformance_uring_simple() {
    conformance(DriverKind::Uring, Mode::Simple);
}

#[test]
fn conformance_poll_extended() {
    conformance(DriverKind::Poll, Mode::Extended);
}

#[test]
fn conformance_poll_simple() {
    conformance(DriverKind::Poll, Mode::Simple);
}

/// Random traffic over four connections at once, checked byte by byte.
fn traffic(driver: DriverKind, seed: u64) {
    let Some((mut client, served)) = loops(driver) else {
        return;
    };
    let world = world(served, DeviceSource::new(MemoryDisk::new(SIZE)));
    let reactor = client.reactor().clone();
    let wanted = options(Mode::Extended, &[CONTEXT_BASE_ALLOCATION]);
    let settings = Settings {
        connections: 4,
        ..Settings::default()
    };
    let disk = client.block_on(open(&reactor, &world.connect, wanted, settings));
    let queues = (0..4)
        .map(|_| (reactor.clone(), disk.open_queue(&reactor).unwrap()))
        .collect();
    let model = Rc::new(RefCell::new(Model::zeroed(SIZE)));
    let workload = Workload {
        requests: 1000,
        max_len: 300 << 10,
        ..Workload::new(seed)
    };
    let checked = client.block_on(workload.run(queues, &disk.limits(), &model));
    checked.expect("the model agrees");
    assert_eq!(world.server.connections(), 4);
    client.block_on(disk.close(&reactor)).unwrap();
    testkit::workload::assert_quiet(&reactor);
    world.end();
}

#[test]
fn traffic_uring() {
    (1..4).for_each(|seed| traffic(DriverKind::Uring, seed));
}

#[test]
fn traffic_poll() {
    (1..4).for_each(|seed| traffic(DriverKind::Poll, seed));
}
