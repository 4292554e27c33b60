//! The conformance suite, on disks of many kinds; and that it fails what it should.

use std::{rc::Rc, sync::Arc, time::Duration};

use blkit_testkit::{SimDisk, SimDiskOptions, SimLoop, conformance};
use block::{Device, Gate, Op, OpSet, Queue, RangeLock, Request, Support, WrapDevice};

fn suite(change: impl Fn(&mut SimDiskOptions)) -> Vec<&'static str> {
    let mut sim = SimLoop::new(7);
    let make = |_: &block::Reactor| {
        let mut options = SimDiskOptions::new(1 << 20, 7);
        change(&mut options);
        SimDisk::new(options) as Arc<dyn Device>
    };
    let ran = conformance::run(make, &mut sim);
    sim.run_until_idle();
    assert_eq!(sim.tasks(), 0);
    ran
}

#[test]
fn a_full_disk_passes_every_check() {
    assert_eq!(suite(|_| {}).len(), 26, "each check, plain and normalised");
    suite(|o| o.delay = Duration::ZERO);
}

#[test]
fn disks_with_limits_pass() {
    for block in [512, 4096] {
        let ran = suite(|o| {
            o.limits.min_block = block;
            o.limits.memory_align = 512;
            o.limits.max_transfer = 64 << 10;
            o.limits.max_range = 256 << 10;
        });
        assert_eq!(ran.len(), 26);
    }
}

#[test]
fn disks_that_do_less_pass() {
    let ran = suite(|o| {
        o.limits.fua = Support::Emulated;
        o.limits.set(Op::WriteZeroes, Support::Emulated);
        o.limits.set(Op::Cache, Support::Emulated);
        o.limits.fast_zero = false;
    });
    let count = |name| ran.iter().filter(|&&n| n == name).count();
    assert_eq!(
        (count("fua"), count("write zeroes"), count("discard")),
        (1, 1, 2)
    );
    let ran = suite(|o| {
        o.limits.mask(OpSet::READ_ONLY);
    });
    assert!(!ran.contains(&"write edges") && ran.contains(&"many in flight"));
}

#[test]
fn registered_memory_passes() {
    let mut sim = SimLoop::new(8);
    sim.world().register_memory(0, 4 << 20);
    let make =
        |_: &block::Reactor| SimDisk::new(SimDiskOptions::new(1 << 20, 8)) as Arc<dyn Device>;
    conformance::run(make, &mut sim);
}

#[test]
fn a_gated_disk_passes() {
    let mut sim = SimLoop::new(9);
    let make = |_: &block::Reactor| {
        Gate::wrap(
            SimDisk::new(SimDiskOptions::new(1 << 20, 9)),
            RangeLock::new(),
        )
    };
    conformance::run(make, &mut sim);
}

/// Refuses the wrong way, or not at all.
struct Wrong(Rc<dyn Queue>);

impl Queue for Wrong {
    fn submit(&self, req: Request) {
        match req.op() {
            Op::SecureErase => req.done(),
            _ => self.0.submit(req),
        }
    }
}

#[test]
#[should_panic(expected = "is not offered")]
fn a_device_that_does_what_it_does_not_offer_fails() {
    let mut sim = SimLoop::new(1);
    let make = |_: &block::Reactor| {
        WrapDevice::new(
            SimDisk::plain(1 << 20),
            |_| {},
            |_, next| Ok(Rc::new(Wrong(next)) as Rc<dyn Queue>),
        )
    };
    conformance::run(make, &mut sim);
}

/// Loses a request in a hundred.
struct Loser(Rc<dyn Queue>, std::cell::Cell<u32>);

impl Queue for Loser {
    fn submit(&self, req: Request) {
        self.1.set(self.1.get() + 1);
        if self.1.get().is_multiple_of(100) {
            return drop(req);
        }
        self.0.submit(req);
    }
}

#[test]
#[should_panic]
fn a_device_that_loses_requests_fails() {
    let mut sim = SimLoop::new(1);
    let make = |_: &block::Reactor| {
        WrapDevice::new(
            SimDisk::plain(1 << 20),
            |_| {},
            |_, next| Ok(Rc::new(Loser(next, std::cell::Cell::new(0))) as Rc<dyn Queue>),
        )
    };
    conformance::run(make, &mut sim);
}

/// The same suite on the loops that real programs run on.
#[test]
fn real_loops_pass() {
    for driver in [reactor::DriverKind::Uring, reactor::DriverKind::Poll] {
        let options = reactor::Options {
            driver,
            ..reactor::Options::default()
        };
        let mut real = match reactor::Loop::new(options) {
            Ok(real) => real,
            Err(error) if driver == reactor::DriverKind::Uring => {
                eprintln!("SKIP: io_uring refused: {}", error.chain());
                continue;
            }
            Err(error) => panic!("{}", error.chain()),
        };
        let make = |_: &block::Reactor| {
            let mut options = SimDiskOptions::new(1 << 20, 10);
            options.limits.min_block = 512;
            options.delay = Duration::from_micros(20);
            SimDisk::new(options) as Arc<dyn Device>
        };
        assert_eq!(conformance::run(make, &mut real).len(), 26);
        real.close(Duration::from_secs(5));
    }
}
