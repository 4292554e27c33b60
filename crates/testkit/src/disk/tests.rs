use block::{Op, QueueExt, Request, Support};
use reactor::sim::SimLoop;

use super::*;

fn write(r: &Reactor, at: u64, byte: u8, len: usize) -> Request {
    let mut req = r.request(Op::Write, at, len as u64);
    let iov = block::Iov::of_chunk(r.chunk(len), len);
    iov.write(0, &vec![byte; len]);
    *req.data_mut() = iov.into();
    req
}

#[test]
fn a_crash_keeps_what_was_flushed_and_some_of_the_rest() {
    let mut kept = 0;
    for seed in 0..40 {
        let sim = SimLoop::new(seed);
        let disk = SimDisk::new(SimDiskOptions::new(8192, seed));
        let r = sim.reactor().clone();
        let queue = disk.open_queue(&r).unwrap();
        sim.block_on(async {
            queue.call(write(&r, 0, 1, 4096)).await.finish();
            queue.call(r.request(Op::Flush, 0, 0)).await.finish();
            queue.call(write(&r, 512, 2, 512)).await.finish();
        });
        disk.crash();
        let image = disk.image();
        assert!(image[..512].iter().all(|&b| b == 1));
        assert!([1, 2].contains(&image[512]));
        kept += u32::from(image[512] == 2);
        let dead = sim.block_on(queue.call(r.request(Op::Flush, 0, 0)));
        assert!(*dead.error().unwrap() == block::Errno::ENXIO);
    }
    assert!((5..35).contains(&kept), "{kept} of 40 kept");
}

#[test]
fn fua_is_durable_at_once_and_covers_itself_only() {
    let sim = SimLoop::new(3);
    let disk = SimDisk::new(SimDiskOptions::new(4096, 3));
    let r = sim.reactor().clone();
    let queue = disk.open_queue(&r).unwrap();
    sim.block_on(async {
        queue.call(write(&r, 0, 1, 512)).await.finish();
        let mut req = write(&r, 1024, 2, 512);
        req.set_flags(block::Flags::FUA);
        queue.call(req).await.finish();
    });
    let durable = disk.durable_image();
    assert_eq!((durable[0], durable[1024]), (0, 2));
}

#[test]
#[should_panic(expected = "not made of blocks")]
fn limits_are_asserted() {
    let sim = SimLoop::new(1);
    let mut options = SimDiskOptions::new(8192, 1);
    options.limits.min_block = 4096;
    let disk = SimDisk::new(options);
    let queue = disk.open_queue(sim.reactor()).unwrap();
    queue.submit(write(sim.reactor(), 512, 1, 4096));
}

#[test]
fn a_failed_flush_stays_failed() {
    let sim = SimLoop::new(1);
    let mut options = SimDiskOptions::new(8192, 1);
    options.faults.flush = FlushFault::After(1);
    let disk = SimDisk::new(options);
    let r = sim.reactor().clone();
    let queue = disk.open_queue(&r).unwrap();
    let flush = || {
        sim.block_on(queue.call(r.request(Op::Flush, 0, 0)))
            .outcome()
            .is_ok()
    };
    assert_eq!([flush(), flush(), flush()], [true, false, false]);
}

#[test]
fn what_is_not_offered_is_refused() {
    let sim = SimLoop::new(1);
    let mut options = SimDiskOptions::new(8192, 1);
    options.limits.set(Op::Discard, Support::None);
    let disk = SimDisk::new(options);
    let queue = disk.open_queue(sim.reactor()).unwrap();
    let done = sim.block_on(queue.call(sim.reactor().request(Op::Discard, 0, 512)));
    assert!(*done.error().unwrap() == block::Errno::ENOTSUP);
}
