//! Every filter, and stacks of them, under the conformance suite and under random traffic that the
//! model checks: over disks that delay and reorder, on several reactors at once.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use crate::common::stack;
use block::{Device, Limits};
use testkit::{
    Model, Rng, Seeds, SimDisk, SimDiskOptions, SimLoop, SimWorld, TestHost, Workload, conformance,
    workload::assert_quiet,
};

const SIZE: u64 = 300 * 512;

/// What is run: each filter alone, and stacks in which one stands on another.
const STACKS: &[&[&str]] = &[
    &["offset offset=1000 range=100000"],
    &["offset offset=8192"],
    &["readonly"],
    &["readonly readonly-file=/never"],
    &["stats"],
    &["delay rdelay=100us wdelay=70us delay-extents=10us delay-cache=1us"],
    &["error"],
    &["cow"],
    &["cow cow-block-size=4k"],
    &["cow cow-block-size=4k cow-on-read=1 cow-on-cache=1"],
    &["cow cow-block-size=4k", "delay rdelay=50us wdelay=50us"],
    &[
        "offset offset=777",
        "cow cow-block-size=8k",
        "stats",
        "offset offset=4097",
    ],
    &["cow cow-block-size=4k", "cow cow-block-size=16k"],
    &[
        "stats",
        "readonly",
        "cow cow-block-size=4k",
        "delay rdelay=30us",
    ],
];

/// Disks with different demands on those above.
fn disk(kind: u64, size: u64, seed: u64) -> Arc<SimDisk> {
    let mut options = SimDiskOptions::new(size, seed);
    let limits = &mut options.limits;
    match kind % 3 {
        0 => {}
        1 => {
            limits.min_block = 512;
            limits.max_transfer = 64 << 10;
            limits.fua = block::Support::Emulated;
            limits.fast_zero = false;
        }
        _ => {
            limits.min_block = 512;
            limits.memory_align = 512;
            limits.max_range = 32 << 10;
            limits.set(block::Op::WriteZeroes, block::Support::Emulated);
            limits.set(block::Op::Cache, block::Support::None);
            limits.fast_zero = false;
        }
    }
    SimDisk::new(options)
}

/// A host whose scratch devices are such disks too.
fn host(seed: u64) -> Arc<TestHost> {
    TestHost::with_scratch(move |size| {
        let kind = if size.is_multiple_of(512) {
            seed / 3
        } else {
            0
        };
        disk(kind, size, seed ^ 0x5c)
    })
}

fn random_bytes(seed: u64, len: u64) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    (0..len).map(|_| rng.next_u64() as u8).collect()
}

#[test]
fn every_stack_conforms() {
    for (number, filters) in STACKS.iter().enumerate() {
        let kind = number as u64 % 3;
        eprintln!("stack {filters:?} over disk {kind}");
        let make = |reactor: &block::Reactor| {
            let source = stack(filters, disk(kind, SIZE, kind));
            open_now(source, host(kind).context(reactor))
        };
        let ran = conformance::run(make, &mut SimLoop::new(kind));
        assert!(ran.len() >= 10, "only {ran:?} applied");
    }
}

/// Opens what opens at once: the suite has the loop, so nothing could be waited for.
fn open_now(source: Arc<dyn block::Source>, cx: block::OpenContext) -> Arc<dyn Device> {
    let mut open = source.open(&cx);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match open.as_mut().poll(&mut context) {
        std::task::Poll::Ready(device) => device.expect("it opens"),
        std::task::Poll::Pending => panic!("opening waits for something"),
    }
}

/// Random traffic by one client on each of some reactors.
fn traffic(seed: u64, filters: &[&str], reactors: usize, tolerant: bool) {
    let world = SimWorld::new(seed, reactors);
    let base = disk(seed, SIZE, seed);
    base.preset(0, &random_bytes(seed, SIZE));
    let before = base.image();
    let source = stack(filters, base.clone());
    let host = host(seed);
    let mut queues = Vec::new();
    let mut devices = Vec::new();
    for index in 0..reactors {
        let reactor = world.reactor(index);
        let device = world
            .block_on(index, source.open(&host.context(reactor)))
            .expect("it opens");
        queues.push((
            reactor.clone(),
            device.open_queue(reactor).expect("a queue"),
        ));
        devices.push(device);
    }
    let limits: Arc<Limits> = devices[0].limits();
    let image = {
        let read = testkit::workload::read_all(&queues[0].0, &queues[0].1, &limits);
        // The first look is the truth; the traffic is checked against it.
        world.block_on(0, read)
    };
    let image = image.unwrap_or_else(|_| before[..limits.size as usize].to_vec());
    let model = Rc::new(RefCell::new(match tolerant {
        true => Model::of(&image).tolerant(),
        false => Model::of(&image),
    }));
    let workload = Workload {
        requests: 120,
        depth: 12,
        ..Workload::new(seed)
    };
    let outcome = world.block_on(0, workload.run(queues, &limits, &model));
    outcome.unwrap_or_else(|violation| panic!("{filters:?}: {violation}"));
    assert_eq!(model.borrow().checked(), 120 * reactors as u64);
    assert_eq!(base.violations(), 0);
    if filters.iter().any(|words| words.starts_with("cow")) {
        assert_eq!(base.image(), before, "{filters:?} wrote to its base");
    }
    world.run_until_idle();
    world.reactors().for_each(assert_quiet);
}

#[test]
fn random_traffic_finds_nothing_wrong() {
    Seeds::of("random_traffic_finds_nothing_wrong", 6).run(|seed| {
        for filters in STACKS {
            traffic(seed, filters, 1 + seed as usize % 3, false);
        }
    });
}

#[test]
fn nor_does_it_when_requests_fail() {
    let stacks: &[&[&str]] = &[
        &["error error-rate=5% error-seed=1"],
        &[
            "cow cow-block-size=4k",
            "error error-rate=5% error-seed=2",
            "delay rdelay=40us",
        ],
        &[
            "error error-pwrite-rate=10% error-seed=3",
            "cow cow-block-size=4k cow-on-read=1",
        ],
    ];
    Seeds::of("nor_does_it_when_requests_fail", 6).run(|seed| {
        for filters in stacks {
            traffic(seed, filters, 1 + seed as usize % 3, true);
        }
    });
}

#[test]
fn the_same_seed_is_the_same_world() {
    let digest = |seed| {
        let sim = SimLoop::new(seed);
        let words = [
            "error error-rate=10% error-seed=1",
            "cow cow-block-size=4k",
            "delay rdelay=1ms",
        ];
        let source = stack(&words, disk(seed, SIZE, seed));
        let host = host(seed);
        let device = sim
            .block_on(source.open(&host.context(sim.reactor())))
            .expect("it opens");
        let queue = device.open_queue(sim.reactor()).expect("a queue");
        let model = Rc::new(RefCell::new(Model::zeroed(SIZE).tolerant()));
        let workload = Workload {
            requests: 100,
            ..Workload::new(seed)
        };
        let (queues, limits) = (vec![(sim.reactor().clone(), queue)], device.limits());
        let run = workload.run(queues, &limits, &model);
        sim.block_on(run).expect("no violation");
        sim.world().advance(Duration::from_secs(1));
        (sim.digest(), model.borrow().digest())
    };
    assert_eq!(digest(5), digest(5));
    assert_ne!(digest(5), digest(6));
}
