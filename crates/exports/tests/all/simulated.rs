//! The whole NBD server in simulated worlds: connections that fragment, delay, stall and break, over
//! a disk that reorders and fails, checked byte by byte. One seed is one world.

use std::{cell::RefCell, io, rc::Rc, sync::Arc, time::Duration};

use crate::common::{Connect, NbdDisk, options};
use blkit_exports::nbd::{Options, Server};
use block::{Device, Normalize, Reactor};
use nbd::{Mode, proto::CONTEXT_BASE_ALLOCATION};
use reactor::sim::SimNet;
use testkit::{
    DeviceSource, Model, Rng, Seeds, SimDisk, SimDiskOptions, SimWorld, TestHost, Workload,
    workload::assert_quiet,
};

const SIZE: u64 = 256 << 10;

thread_local! {
    /// The world that connections are made in: a connector may be sent anywhere, a world may not.
    static WORLD: RefCell<Option<Served>> = const { RefCell::new(None) };
}

struct Served {
    server: Arc<Server>,
    reactor: Reactor,
    net: SimNet,
    connections: u64,
}

fn connect(client: &Reactor) -> io::Result<reactor::Stream> {
    WORLD.with_borrow_mut(|world| {
        let world = world.as_mut().expect("a world");
        world.connections += 1;
        let net = SimNet {
            seed: world.net.seed + world.connections,
            ..world.net.clone()
        };
        let (ours, theirs) = net.pair(client, &world.reactor);
        let (server, reactor) = (world.server.clone(), world.reactor.clone());
        world
            .reactor
            .spawn(async move { server.serve_stream(&reactor, theirs).await });
        Ok(ours)
    })
}

/// Runs traffic in the world of `seed`; gives its digest and how many requests were checked.
fn run(seed: u64, mode: Mode, faults: bool) -> (u64, u64) {
    let world = SimWorld::new(seed, 2);
    let mut rng = Rng::new(seed ^ 0x5eed);
    let mut disk = SimDiskOptions::new(SIZE, seed);
    disk.limits.min_block = *rng.pick(&[1, 512]);
    disk.delay = Duration::from_micros(rng.below(200));
    disk.faults.errors = if faults { 40 } else { 0 };
    let disk = SimDisk::new(disk);
    let mut net = SimNet::new(seed);
    net.fragment = *rng.pick(&[0, 1 << 10, 64 << 10]);
    net.stall_one_in = *rng.pick(&[0, 50]);
    let server_options = Options {
        max_requests: *rng.pick(&[2, 1024]),
        ..Options::default()
    };
    let source = DeviceSource::new(Normalize::wrap(disk.clone()));
    let server = Server::new(source, TestHost::new(), server_options);
    let reactor = world.reactor(1).clone();
    WORLD.set(Some(Served {
        server: server.clone(),
        reactor,
        net,
        connections: 0,
    }));

    let client = world.reactor(0).clone();
    let contexts: &[&str] = if mode == Mode::Simple {
        &[]
    } else {
        &[CONTEXT_BASE_ALLOCATION]
    };
    let connector: Connect = Arc::new(connect);
    let probe = NbdDisk::probe(&client, connector, options(mode, contexts));
    let nbd = world.block_on(0, probe);
    let queues = (0..3)
        .map(|_| (client.clone(), nbd.open_queue(&client).unwrap()))
        .collect();
    let model = Model::zeroed(SIZE);
    let model = Rc::new(RefCell::new(if faults { model.tolerant() } else { model }));
    let workload = Workload {
        requests: 150,
        ..Workload::new(seed)
    };
    let checked = world.block_on(0, workload.run(queues, &nbd.limits(), &model));
    checked.unwrap_or_else(|v| panic!("seed {seed}: {}", v.0));
    world.block_on(0, nbd.close(&client)).expect("it closes");
    world.block_on(1, server.drained());
    WORLD.set(None);
    world.run_until_idle();
    world.reactors().for_each(assert_quiet);
    assert_eq!((disk.violations(), server.stats().violations), (0, 0));
    world.note(model.borrow().digest());
    (world.digest(), model.borrow().checked())
}

#[test]
fn any_world_any_framing() {
    let mut checked = 0;
    Seeds::of("any_world_any_framing", 12).run(|seed| {
        let mode = [Mode::Extended, Mode::Structured, Mode::Simple][seed as usize % 3];
        checked += run(seed, mode, false).1;
    });
    println!("{checked} requests checked");
}

#[test]
fn failing_disks_fail_requests_and_nothing_else() {
    Seeds::of("failing_disks_fail_requests_and_nothing_else", 6).run(|seed| {
        run(seed, Mode::Extended, true);
    });
}

#[test]
fn same_seed_same_digest() {
    for seed in [1, 7] {
        assert_eq!(
            run(seed, Mode::Extended, false),
            run(seed, Mode::Extended, false)
        );
    }
    assert_ne!(
        run(1, Mode::Extended, false).0,
        run(2, Mode::Extended, false).0
    );
}
