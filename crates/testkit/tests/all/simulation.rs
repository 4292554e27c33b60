//! Simulated worlds: whole stacks under faults, crashes and seeds; and broken layers that the
//! checker must catch.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use blkit_testkit::{
    FlushFault, Model, Rng, Seeds, SimDisk, SimDiskOptions, SimWorld, Violation, Workload,
    workload::assert_quiet,
};
use block::{
    Completed, Data, Device, ExtentFlags, ExtentList, Flags, Gate, Iov, Normalize, Op, Queue,
    QueueExt, RangeLock, Reactor, Request, Support, WrapDevice,
};

const SIZE: u64 = 128 << 10;

/// Limits and faults by the seed.
fn options(seed: u64) -> SimDiskOptions {
    let mut rng = Rng::new(seed);
    let mut options = SimDiskOptions::new(SIZE, seed);
    let limits = &mut options.limits;
    limits.min_block = *rng.pick(&[1, 512, 4096]);
    limits.memory_align = *rng.pick(&[1, 512]);
    limits.max_transfer = *rng.pick(&[4096, 16384, block::MAX_TRANSFER]);
    limits.fua = *rng.pick(&[Support::None, Support::Emulated, Support::Native]);
    let any = [Support::None, Support::Emulated, Support::Native];
    limits.set(Op::WriteZeroes, *rng.pick(&any));
    limits.set(Op::Extents, *rng.pick(&any));
    limits.set(Op::Discard, *rng.pick(&any));
    options.delay = Duration::from_micros(rng.below(200));
    options
}

struct Ran {
    verdict: Result<(), Violation>,
    checked: u64,
    digest: u64,
}

/// Traffic from every reactor of a world against what `stack` builds over a disk.
fn run(
    seed: u64,
    reactors: usize,
    requests: u64,
    options: SimDiskOptions,
    model: Model,
    stack: impl Fn(Arc<dyn Device>) -> Arc<dyn Device>,
) -> Ran {
    let world = SimWorld::new(seed, reactors);
    let disk = SimDisk::new(options);
    let device = Normalize::wrap(stack(Normalize::wrap(disk.clone())));
    let limits = device.limits();
    let queues: Vec<_> = world
        .reactors()
        .map(|r| (r.clone(), device.open_queue(r).unwrap()))
        .collect();
    let model = Rc::new(RefCell::new(model));
    let mut workload = Workload::new(seed);
    workload.requests = requests;
    let verdict = world.block_on(0, workload.run(queues, &limits, &model));
    world.run_until_idle();
    if verdict.is_ok() {
        world.reactors().for_each(assert_quiet);
    }
    assert_eq!(disk.violations(), 0);
    let model = model.borrow();
    world.note(model.digest());
    Ran {
        verdict,
        checked: model.checked(),
        digest: world.digest(),
    }
}

#[test]
fn stacks_equal_bytes() {
    let checked = Cell::new(0);
    Seeds::of(
        "-p blkit-testkit --test all simulation::stacks_equal_bytes",
        60,
    )
    .run(|seed| {
        let ran = run(
            seed,
            1 + seed as usize % 3,
            900,
            options(seed),
            Model::zeroed(SIZE),
            |d| d,
        );
        assert_eq!(ran.verdict, Ok(()), "seed {seed}");
        checked.set(checked.get() + ran.checked);
    });
    println!("{} requests were checked", checked.get());
    if std::env::var_os("BLKIT_SEED").is_none() && std::env::var_os("BLKIT_SEEDS").is_none() {
        assert!(checked.get() >= 100_000, "{} requests", checked.get());
    }
}

#[test]
fn stacks_stand_faults() {
    Seeds::of(
        "-p blkit-testkit --test all simulation::stacks_stand_faults",
        24,
    )
    .run(|seed| {
        let mut options = options(seed);
        options.faults.errors = 15;
        options.faults.no_space = 20;
        options.faults.short = 15;
        if seed % 2 == 0 {
            options.faults.flush = FlushFault::OneIn(10);
        }
        let model = Model::zeroed(SIZE).tolerant();
        let ran = run(seed, 2, 400, options, model, |d| d);
        assert_eq!(ran.verdict, Ok(()), "seed {seed}");
    });
}

#[test]
fn a_gated_stack_equals_bytes() {
    Seeds::of("-p blkit-testkit --test all simulation::a_gated_stack", 6).run(|seed| {
        let gate = |device| Gate::wrap(device, RangeLock::new());
        let ran = run(seed, 2, 300, options(seed), Model::zeroed(SIZE), gate);
        assert_eq!(ran.verdict, Ok(()), "seed {seed}");
    });
}

#[test]
fn same_seed_same_digest() {
    let story = |seed| {
        let ran = run(seed, 3, 300, options(seed), Model::zeroed(SIZE), |d| d);
        (ran.checked, ran.digest)
    };
    for seed in 0..4 {
        assert_eq!(story(seed), story(seed), "seed {seed}");
    }
    assert_ne!(story(1).1, story(2).1);
}

/// Traffic, a crash in the middle of it, and what is found afterwards; several times over.
fn crashes(
    seed: u64,
    options: SimDiskOptions,
    stack: impl Fn(Arc<dyn Device>) -> Arc<dyn Device>,
) -> Result<(), Violation> {
    let world = SimWorld::new(seed, 2);
    let disk = SimDisk::new(options);
    let model = Rc::new(RefCell::new(Model::zeroed(SIZE)));
    // What was promised is at stake for a short while only, from a promise to the next flush.
    for round in 0..10 {
        // A fresh stack each time: what it kept in memory is lost as well.
        let device = Normalize::wrap(stack(Normalize::wrap(disk.clone())));
        let limits = device.limits();
        let queues = world
            .reactors()
            .map(|r| (r.clone(), device.open_queue(r).unwrap()))
            .collect();
        let mut workload = Workload::new(seed << 8 | round);
        workload.requests = u64::MAX;
        workload.flush_every = 12;
        let running = workload.start(queues, &limits, &model);
        world.advance(world.fork_rng().delay(Duration::from_micros(300)));
        disk.crash();
        model.borrow_mut().crash();
        running.stop();
        world.block_on(0, running.finish())?;
        world.run_until_idle();
        world.reactors().for_each(assert_quiet);
        model.borrow_mut().recovered(&disk.image())?;
    }
    assert!(
        model.borrow().checked() > 50,
        "seed {seed}: something happened"
    );
    Ok(())
}

#[test]
fn flushed_and_forced_writes_survive_crashes() {
    Seeds::of(
        "-p blkit-testkit --test all simulation::survive_crashes",
        40,
    )
    .run(|seed| {
        let mut options = options(seed);
        options.delay = Duration::from_micros(20);
        assert_eq!(crashes(seed, options, |d| d), Ok(()), "seed {seed}");
    });
}

// Broken layers. Each has a working twin that passes, so that the checker is known to fail them
// for what is broken.

/// How many of the seeds the checker fails.
fn caught(seeds: u64, test: impl Fn(u64) -> Result<(), Violation>) -> u64 {
    (0..seeds).filter(|&seed| test(seed).is_err()).count() as u64
}

/// A plain disk with every ability, and some delay.
fn able(seed: u64) -> SimDiskOptions {
    let mut options = SimDiskOptions::new(SIZE, seed);
    options.delay = Duration::from_micros(50);
    options
}

/// A queue made of a function.
struct FnQueue<F>(F);

impl<F: Fn(Request)> Queue for FnQueue<F> {
    fn submit(&self, req: Request) {
        (self.0)(req);
    }
}

fn layer(
    device: Arc<dyn Device>,
    limits: impl Fn(&mut block::Limits) + Send + Sync + 'static,
    make: impl Fn(&Reactor, Rc<dyn Queue>, Request) + Clone + Send + Sync + 'static,
) -> Arc<dyn Device> {
    WrapDevice::new(device, limits, move |r, next| {
        let (r, make) = (r.clone(), make.clone());
        Ok(Rc::new(FnQueue(move |req| make(&r, next.clone(), req))) as Rc<dyn Queue>)
    })
}

const BLOCK: u64 = 4096;

/// A copy-on-write layer over an empty base: blocks that were written come from the disk below,
/// all others read as zeroes. The broken one now and then forgets to note the last block of a write.
fn cow(device: Arc<dyn Device>, forgets: bool) -> Arc<dyn Device> {
    let written = Arc::new(Mutex::new(vec![false; (SIZE / BLOCK) as usize]));
    let writes = Arc::new(AtomicU64::new(0));
    let limits = |limits: &mut block::Limits| {
        limits.min_block = BLOCK as u32;
        limits.mask(block::OpSet::of(&[Op::Read, Op::Write, Op::Flush]));
    };
    layer(device, limits, move |_, next, mut req| match req.op() {
        Op::Write => {
            let (first, mut last) = (req.offset() / BLOCK, req.end() / BLOCK);
            let n = writes.fetch_add(1, Ordering::Relaxed);
            if forgets && n % 2 == 1 {
                last -= 1;
            }
            let written = written.clone();
            req.on_complete(move |done| {
                if done.error().is_none() {
                    let mut written = written.lock().unwrap();
                    (first..last).for_each(|block| written[block as usize] = true);
                }
            });
            next.submit(req);
        }
        Op::Read => {
            let (start, len) = (req.offset(), req.len());
            let split = req.split();
            for at in (0..len).step_by(BLOCK as usize) {
                let part = split.part(at, BLOCK);
                let there = written.lock().unwrap()[((start + at) / BLOCK) as usize];
                if there {
                    next.submit(part)
                } else {
                    part.give_zeroes()
                }
            }
        }
        _ => next.submit(req),
    })
}

#[test]
fn a_cow_that_forgets_a_block_is_caught() {
    let test = |forgets| {
        move |seed| {
            run(seed, 1, 300, able(seed), Model::zeroed(SIZE), |d| {
                cow(d, forgets)
            })
            .verdict
        }
    };
    assert_eq!(caught(6, test(false)), 0);
    assert_eq!(caught(6, test(true)), 6);
}

/// Tries again when the disk fails. The broken ones stop after one more try, and say so, or say
/// that all is well.
fn retry(device: Arc<dyn Device>, tries: u32, lies: bool) -> Arc<dyn Device> {
    fn attempt(next: Rc<dyn Queue>, mut req: Request, left: u32, lies: bool) {
        let again = next.clone();
        req.intercept(move |mut done: Completed| match (done.error(), left) {
            (None, _) => done.finish(),
            (Some(_), 0) => {
                if lies && done.op() == Op::Write {
                    done.set_outcome(Ok(()));
                }
                done.finish();
            }
            (Some(_), _) => attempt(again, done.again(), left - 1, lies),
        });
        next.submit(req);
    }
    layer(
        device,
        |_| {},
        move |_, next, req| attempt(next, req, tries, lies),
    )
}

#[test]
fn a_retry_that_gives_up_is_caught() {
    let test = |tries, lies: bool| {
        move |seed| {
            let mut options = able(seed);
            options.faults.errors = 4;
            options.faults.short = 8;
            let mut model = Model::zeroed(SIZE);
            if lies {
                model = model.tolerant();
            }
            run(seed, 1, 300, options, model, |d| retry(d, tries, lies)).verdict
        }
    };
    assert_eq!(caught(6, test(60, false)), 0);
    assert_eq!(caught(6, test(1, false)), 6);
    assert_eq!(caught(6, test(60, true)), 0);
    assert_eq!(caught(6, test(1, true)), 6);
}

/// Read-modify-write of blocks, with the lock that keeps two of them apart, or without.
fn blocks(device: Arc<dyn Device>, locks: bool) -> Arc<dyn Device> {
    let lock = RangeLock::new();
    let limits = |limits: &mut block::Limits| {
        limits.mask(block::OpSet::of(&[Op::Read, Op::Write, Op::Flush]));
    };
    layer(device, limits, move |r, next, req| {
        if req.op() != Op::Write {
            return next.submit(req);
        }
        let first = req.offset() & !(BLOCK - 1);
        let end = req.end().next_multiple_of(BLOCK);
        let turn = locks.then(|| lock.exclusive(first..end));
        let reactor = r.clone();
        r.spawn(async move {
            let _guard = match turn {
                Some(turn) => Some(turn.await),
                None => None,
            };
            let len = (end - first) as usize;
            let buffer = Iov::of_chunk(reactor.chunk(len), len);
            let mut old = reactor.request(Op::Read, first, end - first);
            *old.data_mut() = Data::Iov(buffer.clone());
            next.call(old).await.finish();
            let new = req.data().as_iov().expect("a write carries bytes");
            buffer
                .slice((req.offset() - first) as usize, new.len())
                .copy_iov(new);
            let mut write = reactor.request(Op::Write, first, end - first);
            write.set_flags(req.flags());
            *write.data_mut() = buffer.into();
            let outcome = next.call(write).await.take_outcome();
            req.complete(outcome);
        });
    })
}

#[test]
fn an_alignment_layer_without_its_lock_is_caught() {
    let test = |locks| {
        move |seed| {
            run(seed, 2, 300, able(seed), Model::zeroed(SIZE), |d| {
                blocks(d, locks)
            })
            .verdict
        }
    };
    assert_eq!(caught(6, test(true)), 0);
    assert_eq!(caught(6, test(false)), 6);
}

#[test]
fn a_layer_that_swallows_flushes_or_fua_is_caught_by_crashes() {
    let test = |broken: Option<Op>| {
        move |seed| {
            crashes(seed, able(seed), |device| {
                layer(
                    device,
                    |_| {},
                    move |_, next, mut req| match broken {
                        Some(Op::Flush) if req.op() == Op::Flush => req.done(),
                        Some(Op::Write) => {
                            req.set_flags(req.flags().without(Flags::FUA));
                            next.submit(req);
                        }
                        _ => next.submit(req),
                    },
                )
            })
        }
    };
    assert_eq!(caught(10, test(None)), 0);
    let flushes = caught(10, test(Some(Op::Flush)));
    assert!(flushes >= 8, "{flushes} of 10 seeds");
    let fua = caught(10, test(Some(Op::Write)));
    assert!(fua >= 8, "{fua} of 10 seeds");
}

#[test]
fn lies_about_extents_and_changed_buffers_are_caught() {
    let liar = |device| {
        layer(
            device,
            |_| {},
            |_, next, mut req| {
                if req.op() == Op::Extents {
                    let len = req.len();
                    *req.data_mut() = Data::Extents(ExtentList::one(len, ExtentFlags::HOLE_ZERO));
                    return req.done();
                }
                next.submit(req);
            },
        )
    };
    // Inverts a write's bytes where they lie, and a read's again: right on disk, wrong to callers.
    let inverter = |device| {
        let flip = |iov: &Iov| {
            let bytes: Vec<u8> = iov.to_vec().iter().map(|b| !b).collect();
            iov.write(0, &bytes);
        };
        layer(
            device,
            |_| {},
            move |_, next, req| {
                if let (Op::Write, Some(iov)) = (req.op(), req.data().as_iov()) {
                    flip(iov);
                }
                next.submit(req);
            },
        )
    };
    let test = |stack: fn(Arc<dyn Device>) -> Arc<dyn Device>| {
        move |seed| run(seed, 1, 200, able(seed), Model::zeroed(SIZE), stack).verdict
    };
    assert_eq!(caught(4, test(liar)), 4);
    assert_eq!(caught(4, test(inverter)), 4);
}
