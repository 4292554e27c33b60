//! The whole NBD server in simulated worlds: connections that fragment, delay, stall and break, over
//! a disk that reorders and fails, checked byte by byte. One seed is one world.

use std::{cell::RefCell, io, rc::Rc, sync::Arc, time::Duration};

use crate::common::{Connect, open, options};
use blkit_exports::nbd::{Options, Server};
use block::{Device, Normalize, Reactor};
use nbd::{Mode, proto::CONTEXT_BASE_ALLOCATION};
use reactor::sim::SimNet;
use sources::nbd::Settings;
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

/// What goes wrong in a world.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    /// Requests fail.
    Errors,
    /// Connections are cut, and clients come again.
    Cuts,
}

/// Cuts connections, now and then, until there has been enough of it.
async fn cut(server: Arc<Server>, reactor: Reactor, mut rng: Rng) {
    for _ in 0..20 {
        reactor.sleep(rng.delay(Duration::from_millis(20))).await;
        let last = WORLD.with_borrow(|world| world.as_ref().map_or(0, |world| world.connections));
        // After what it is working on: see `sources::nbd` on servers that go on without their client.
        server.disconnect(1 + rng.below(last), false);
    }
}

/// Runs traffic in the world of `seed`; gives its digest and how many requests were checked.
fn run(seed: u64, mode: Mode, trouble: Trouble) -> (u64, u64) {
    let world = SimWorld::new(seed, 2);
    let mut rng = Rng::new(seed ^ 0x5eed);
    let mut disk = SimDiskOptions::new(SIZE, seed);
    disk.limits.min_block = *rng.pick(&[1, 512]);
    disk.delay = Duration::from_micros(rng.below(200));
    let faults = trouble == Trouble::Errors;
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
    let settings = Settings {
        reconnect_delay: match trouble {
            Trouble::Cuts => Duration::from_secs(3600),
            _ => Duration::ZERO,
        },
        ..Settings::default()
    };
    let disks: Vec<_> = (0..3)
        .map(|_| {
            world.block_on(
                0,
                open(&client, &connector, options(mode, contexts), settings),
            )
        })
        .collect();
    let queue = |disk: &Arc<dyn Device>| (client.clone(), disk.open_queue(&client).unwrap());
    let queues = disks.iter().map(queue).collect();
    if trouble == Trouble::Cuts {
        let reactor = world.reactor(1);
        reactor.spawn(cut(server.clone(), reactor.clone(), rng.fork()));
    }
    let model = Model::zeroed(SIZE);
    let model = Rc::new(RefCell::new(if faults { model.tolerant() } else { model }));
    let workload = Workload {
        requests: 150,
        ..Workload::new(seed)
    };
    let checked = world.block_on(0, workload.run(queues, &disks[0].limits(), &model));
    checked.unwrap_or_else(|v| panic!("seed {seed}: {}", v.0));
    for disk in &disks {
        world.block_on(0, disk.close(&client)).expect("it closes");
    }
    drop(disks);
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
        checked += run(seed, mode, Trouble::None).1;
    });
    println!("{checked} requests checked");
}

#[test]
fn failing_disks_fail_requests_and_nothing_else() {
    Seeds::of("failing_disks_fail_requests_and_nothing_else", 6).run(|seed| {
        run(seed, Mode::Extended, Trouble::Errors);
    });
}

#[test]
fn cut_connections_lose_nothing() {
    Seeds::of("cut_connections_lose_nothing", 6).run(|seed| {
        let mode = [Mode::Extended, Mode::Structured, Mode::Simple][seed as usize % 3];
        run(seed, mode, Trouble::Cuts);
    });
}

#[test]
fn same_seed_same_digest() {
    for seed in [1, 7] {
        assert_eq!(
            run(seed, Mode::Extended, Trouble::None),
            run(seed, Mode::Extended, Trouble::None)
        );
    }
    assert_ne!(
        run(1, Mode::Extended, Trouble::None).0,
        run(2, Mode::Extended, Trouble::None).0
    );
}
