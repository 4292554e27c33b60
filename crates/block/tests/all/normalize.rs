//! Normalisation against the model: every combination of limits, and the races it must win.

use blkit_block as block;
use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use block::{
    Data, Device, Errno, Flags, Iov, MAX_TRANSFER, Normalize, Op, Queue, QueueExt, Reactor,
    Request, Support,
};
use testkit::{
    Model, Seeds, SimDisk, SimDiskOptions, SimLoop, SimWorld, StepDevice, Workload,
    workload::{assert_quiet, read_all},
};

const SIZE: u64 = 192 << 10;

fn write(r: &Reactor, at: u64, bytes: &[u8]) -> Request {
    let mut req = r.request(Op::Write, at, bytes.len() as u64);
    let iov = Iov::of_chunk(r.chunk(bytes.len()), bytes.len());
    iov.write(0, bytes);
    *req.data_mut() = iov.into();
    req
}

fn read(r: &Reactor, at: u64, len: u64) -> Request {
    let mut req = r.request(Op::Read, at, len);
    *req.data_mut() = Data::Wanted;
    req
}

/// The whole disk through `device`, with traffic from two reactors, equals the model.
fn check(seed: u64, options: SimDiskOptions) {
    let text = format!("{:?}", options.limits);
    let world = SimWorld::new(seed, 2);
    let disk = SimDisk::new(options);
    let device = Normalize::wrap(disk.clone());
    let limits = device.limits();
    assert!(limits.is_plain(), "{text}");
    let queues: Vec<_> = world
        .reactors()
        .map(|r| (r.clone(), device.open_queue(r).unwrap()))
        .collect();
    let model = Rc::new(RefCell::new(Model::zeroed(SIZE)));
    let mut workload = Workload::new(seed);
    workload.requests = 150;
    let verdict = world.block_on(0, workload.run(queues, &limits, &model));
    assert_eq!(verdict, Ok(()), "seed {seed}, {text}");
    let r = world.reactor(0).clone();
    let queue = device.open_queue(&r).unwrap();
    let image = world.block_on(0, read_all(&r, &queue, &limits)).unwrap();
    assert_eq!(image, disk.image());
    drop(queue);
    world.run_until_idle();
    world.reactors().for_each(assert_quiet);
    assert_eq!(disk.violations(), 0);
}

#[test]
fn any_limits_give_an_array_of_bytes() {
    let supports = [Support::None, Support::Emulated, Support::Native];
    Seeds::of("-p blkit-block --test all normalize::any_limits", 1).run(|seed| {
        let mut combination = seed << 16;
        for min_block in [1, 512, 4096] {
            for memory_align in [1, 512, 4096] {
                for max_transfer in [4096, 3 * 4096, MAX_TRANSFER] {
                    for fua in supports {
                        for zeroes in supports {
                            combination += 1;
                            let mut options = SimDiskOptions::new(SIZE, combination);
                            options.limits.min_block = min_block;
                            options.limits.memory_align = memory_align;
                            options.limits.max_transfer = max_transfer;
                            options.limits.fua = fua;
                            options.limits.set(Op::WriteZeroes, zeroes);
                            // The rest of the abilities go round.
                            let turn = |n: u64| supports[(combination / n % 3) as usize];
                            options.limits.set(Op::Cache, turn(1));
                            options.limits.set(Op::Extents, turn(3));
                            options.limits.set(Op::Discard, turn(9));
                            options.limits.fast_zero = combination % 2 == 0;
                            if combination % 4 == 0 {
                                options.limits.max_range = 8192;
                            }
                            options.delay = Duration::from_micros(combination % 3 * 40);
                            check(combination, options);
                        }
                    }
                }
            }
        }
    });
}

#[test]
fn a_plain_device_is_left_alone() {
    let disk: Arc<dyn Device> = SimDisk::plain(4096);
    assert!(Arc::ptr_eq(&disk, &Normalize::wrap(disk.clone())));
}

#[test]
fn a_ragged_end_is_cut_off() {
    let mut options = SimDiskOptions::new(1000, 1);
    options.limits.min_block = 512;
    assert_eq!(Normalize::wrap(SimDisk::new(options)).limits().size, 512);
}

/// Two requests that change different bytes of one block both survive, in any order, from two
/// reactors and through two devices of one disk.
#[test]
fn no_update_of_a_shared_block_is_lost() {
    for seed in 0..60 {
        let world = SimWorld::new(seed, 2);
        let mut options = SimDiskOptions::new(8192, seed);
        options.limits.min_block = 4096;
        let disk = SimDisk::new(options);
        disk.preset(0, &[1; 8192]);
        // As two clients would open it.
        let devices = [Normalize::wrap(disk.clone()), Normalize::wrap(disk.clone())];
        for i in 0..32u64 {
            let (which, at) = (i as usize % 2, i * 100);
            let r = world.reactor(which);
            let queue = devices[which].open_queue(r).unwrap();
            let call = match i % 8 {
                // A whole block of zeroes beside them, later.
                7 => queue.call(r.request(Op::WriteZeroes, 4096, 4096)),
                6 => queue.call(write(r, 4096 + at, &[i as u8; 50])),
                _ => queue.call(write(r, at, &[i as u8; 100])),
            };
            r.spawn(async move { assert!(call.await.error().is_none()) });
        }
        world.run_until_idle();
        let image = disk.image();
        for i in (0..32usize).filter(|i| i % 8 < 6) {
            let part = &image[i * 100..i * 100 + 100];
            assert!(
                part.iter().all(|&b| b == i as u8),
                "seed {seed}: update {i} is lost"
            );
        }
        // Bytes that only the zeroing touched may not come back.
        for at in (4096..8192).filter(|at| (at - 4096) % 100 >= 50) {
            assert_eq!(image[at], 0, "seed {seed}: byte {at} came back");
        }
        world.reactors().for_each(assert_quiet);
    }
}

fn step_device(change: impl FnOnce(&mut block::Limits)) -> (Arc<StepDevice>, Arc<dyn Device>) {
    let mut limits = block::Limits::new(1 << 20, block::OpSet::DISK);
    change(&mut limits);
    let below = StepDevice::with(limits);
    (below.clone(), Normalize::wrap(below))
}

#[test]
fn emulated_fua_is_a_write_and_then_a_flush() {
    let sim = SimLoop::new(1);
    let r = sim.reactor().clone();
    let (below, device) = step_device(|l| l.fua = Support::Emulated);
    let queue = device.open_queue(&r).unwrap();
    let submit = |flags| {
        let mut req = write(&r, 0, &[1; 512]);
        req.set_flags(flags);
        queue.call(req)
    };
    let call = submit(Flags::FUA);
    let step = below.expect(Op::Write, 0, 512);
    assert_eq!((step.remote.flags(), below.waiting()), (Flags::NONE, 0));
    step.done(0);
    sim.run_until_idle();
    below.expect(Op::Flush, 0, 0).done(0);
    assert!(sim.block_on(call).error().is_none());
    // A flush that fails fails the write; a write that fails is not flushed.
    let call = submit(Flags::FUA);
    below.next().unwrap().done(0);
    sim.run_until_idle();
    below.next().unwrap().fail(Errno::EIO);
    assert!(*sim.block_on(call).error().unwrap() == Errno::EIO);
    let call = submit(Flags::FUA);
    below.next().unwrap().fail(Errno::ENOSPC);
    assert!(*sim.block_on(call).error().unwrap() == Errno::ENOSPC);
    assert_eq!(below.waiting(), 0);
    let call = submit(Flags::NONE);
    below.next().unwrap().done(0);
    sim.block_on(call).finish();
    assert_eq!(below.waiting(), 0);
    assert_quiet(&r);
}

#[test]
fn a_long_request_is_cut_at_blocks() {
    let sim = SimLoop::new(1);
    let r = sim.reactor().clone();
    let (below, device) = step_device(|l| {
        l.max_transfer = 4096;
        l.min_block = 512;
    });
    let queue = device.open_queue(&r).unwrap();
    let call = queue.call(read(&r, 100, 9000));
    let mut covered = 0;
    while let Some(step) = below.next() {
        assert!(step.remote.len() <= 4096 && step.remote.offset() % 512 == 0);
        assert!(step.remote.len() % 512 == 0);
        covered += step.remote.len();
        step.done(3);
    }
    assert_eq!(covered, 9216, "no block is read twice");
    let done = sim.block_on(call);
    assert_eq!(done.data().as_given().unwrap().to_vec(), [3; 9000]);
    drop(done);
    assert_quiet(&r);
}

#[test]
fn a_discard_keeps_to_whole_blocks_and_a_secure_erase_insists_on_them() {
    let sim = SimLoop::new(1);
    let r = sim.reactor().clone();
    let (below, device) = step_device(|l| {
        l.min_block = 4096;
        l.set(Op::SecureErase, Support::Native);
    });
    let queue = device.open_queue(&r).unwrap();
    let call = queue.call(r.request(Op::Discard, 1, 3 * 4096));
    below.expect(Op::Discard, 4096, 2 * 4096).done(0);
    assert!(sim.block_on(call).error().is_none());
    let call = queue.call(r.request(Op::Discard, 1, 4096));
    assert!(
        sim.block_on(call).error().is_none(),
        "too small to do anything"
    );
    let call = queue.call(r.request(Op::SecureErase, 1, 4096));
    assert!(*sim.block_on(call).error().unwrap() == Errno::EINVAL);
    assert_eq!(below.waiting(), 0);
    assert_quiet(&r);
}

#[test]
fn an_error_reaches_the_caller_whichever_way_the_request_went() {
    let sim = SimLoop::new(1);
    let r = sim.reactor().clone();
    let (below, device) = step_device(|l| {
        l.min_block = 512;
        l.max_transfer = 4096;
        l.memory_align = 512;
    });
    let queue: Rc<dyn Queue> = device.open_queue(&r).unwrap();
    let requests: [fn(&Reactor) -> Request; 5] = [
        |r| read(r, 1, 10),
        |r| read(r, 0, 20000),
        |r| write(r, 1, &[1; 10]),
        |r| write(r, 100, &[1; 5000]),
        |r| r.request(Op::Extents, 3, 1000),
    ];
    for make in requests {
        let call = queue.call(make(&r));
        loop {
            sim.run_until_idle();
            let Some(step) = below.next() else { break };
            step.fail(Errno::ENOSPC);
        }
        assert!(*sim.block_on(call).error().unwrap() == Errno::ENOSPC);
    }
    assert_quiet(&r);
}

#[test]
fn copies_are_counted_and_avoided() {
    let sim = SimLoop::new(1);
    let r = sim.reactor().clone();
    let mut options = SimDiskOptions::new(1 << 16, 1);
    options.limits.min_block = 512;
    options.limits.memory_align = 512;
    let device = Normalize::wrap(SimDisk::new(options));
    let queue = device.open_queue(&r).unwrap();
    let copied = || r.counters().bytes_copied.get();
    // Whole blocks in aligned memory, and a caller that lets the disk pick, cost nothing.
    sim.block_on(queue.call(write(&r, 512, &[1; 1024])))
        .finish();
    sim.block_on(queue.call(read(&r, 3, 1000))).finish();
    assert_eq!(copied(), 0);
    // Misaligned memory is copied, and a part of a block.
    let whole = Iov::of_chunk(r.chunk(2048), 2048);
    whole.zero(0, 2048);
    let mut req = r.request(Op::Write, 0, 1024);
    *req.data_mut() = whole.slice(8, 1024).into();
    sim.block_on(queue.call(req)).finish();
    assert_eq!(copied(), 1024);
    sim.block_on(queue.call(write(&r, 5, &[1; 7]))).finish();
    assert_eq!(copied(), 1536);
}
