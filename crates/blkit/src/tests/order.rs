//! Flushes, futures that are dropped, closing.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context as TaskContext, Wake, Waker},
    thread,
    time::Duration,
};

use block::Op;
use testkit::StepDevice;

use super::{PATIENCE, context, eio, expect, open, settle, steps};
use crate::{Buffer, Disk, ErrorKind, wait::block_on};

#[test]
fn a_flush_waits_for_what_came_before_it() {
    let (device, disk) = steps();
    let first = disk.write_at(vec![1; 512], 0);
    let flush = disk.flush();
    let second = disk.write_at(vec![2; 512], 512);
    let one = expect(&device, Op::Write);
    let other = expect(&device, Op::Write);
    assert_eq!((one.remote.offset(), other.remote.offset()), (0, 512));
    assert_eq!(device.waiting(), 0, "the flush waits");
    one.remote.complete(Ok(()));
    // The one that came behind it does not matter.
    expect(&device, Op::Flush).remote.complete(Ok(()));
    block_on(flush).expect("flushes");
    block_on(first).0.expect("writes");
    other.remote.complete(Ok(()));
    block_on(second).0.expect("writes");
}

#[test]
fn a_dropped_write_is_not_forgotten() {
    let (device, disk) = steps();
    drop(disk.write_at(vec![1; 512], 0));
    let step = expect(&device, Op::Write);
    let flush = disk.flush();
    // The memory is still there.
    let mut bytes = [0; 512];
    step.remote.read_data(0, &mut bytes);
    assert_eq!(bytes, [1; 512]);
    step.remote.complete(eio());
    expect(&device, Op::Flush).remote.complete(Ok(()));
    let error = block_on(flush).expect_err("the write has failed");
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(
        error.to_string().starts_with("write at 0+512 failed: "),
        "{error}"
    );
    // Said once.
    let flush = disk.flush();
    expect(&device, Op::Flush).remote.complete(Ok(()));
    block_on(flush).expect("flushes");
}

#[test]
fn an_answer_that_nobody_takes_is_not_forgotten_either() {
    let (device, disk) = steps();
    let write = disk.write_at(vec![1; 512], 0);
    let mut queue = disk.queue(4);
    queue
        .write(1, Buffer::new(512), 512, crate::Flags::NONE)
        .expect("room");
    queue.submit();
    expect(&device, Op::Write).remote.complete(eio());
    expect(&device, Op::Write).remote.complete(Ok(()));
    // It has arrived, unseen.
    while block_on(async { queue.poll(&mut Vec::new()) }) == 0 {
        thread::yield_now();
    }
    drop(write);
    let flush = disk.flush();
    expect(&device, Op::Flush).remote.complete(Ok(()));
    block_on(flush).expect_err("the first write has failed");
}

#[test]
fn a_failed_flush_is_told_to_whoever_waits() {
    let (device, disk) = steps();
    let flush = disk.flush();
    expect(&device, Op::Flush).remote.complete(eio());
    block_on(flush).expect_err("it has failed");
}

#[test]
fn closing_waits_and_flushes() {
    let (device, disk) = steps();
    let write = disk.write_at(vec![1; 512], 0);
    let other = disk.clone();
    let mut close = pin!(disk.close());
    let mut cx = TaskContext::from_waker(Waker::noop());
    assert!(close.as_mut().poll(&mut cx).is_pending());
    let (result, buffer) = block_on(other.write_at(vec![3; 8], 0));
    assert_eq!(result.expect_err("it is closing").kind(), ErrorKind::Gone);
    assert_eq!(&buffer[..], [3; 8], "the buffer is given back");
    expect(&device, Op::Write).remote.complete(Ok(()));
    expect(&device, Op::Flush).remote.complete(eio());
    block_on(write).0.expect("writes");
    block_on(close).expect_err("what was written may be lost");
    // Told to whoever closes it, not to the flush after it.
    block_on(other.clone().close()).expect_err("it is still so");
    assert_eq!(
        block_on(other.flush()).expect_err("closed").kind(),
        ErrorKind::Gone
    );
}

#[test]
fn a_disk_that_was_not_changed_is_not_flushed() {
    let (device, disk) = steps();
    let write = disk.write_zeroes(0, 512, crate::Flags::NONE);
    expect(&device, Op::WriteZeroes).remote.complete(Ok(()));
    block_on(write).expect("zeroes");
    let flush = disk.flush();
    expect(&device, Op::Flush).remote.complete(Ok(()));
    block_on(flush).expect("flushes");
    block_on(disk.close()).expect("closes");
    assert_eq!(device.waiting(), 0);
}

#[test]
fn dropping_the_last_clone_flushes() {
    let (device, disk) = steps();
    let write = disk.write_at(vec![1; 512], 0);
    drop(disk.clone());
    expect(&device, Op::Write).remote.complete(Ok(()));
    block_on(write).0.expect("writes");
    // The context goes along, which waits for it.
    let gone = thread::spawn(move || drop(disk));
    expect(&device, Op::Flush).remote.complete(Ok(()));
    gone.join().expect("no panic");
}

#[test]
fn a_context_that_is_closed_leaves_nobody_waiting() {
    let context = context();
    let device = StepDevice::new(1 << 20);
    let disk = open(&context, device.clone());
    let read = disk.to_async().read(0, 512);
    let waiting = disk.clone();
    let reader = thread::spawn(move || waiting.read_at(&mut [0; 512], 512));
    let held = [expect(&device, Op::Read), expect(&device, Op::Read)];
    let error = context
        .close(Duration::from_millis(50))
        .expect_err("requests hang");
    assert_eq!(error.kind(), ErrorKind::Io, "{error:?}");
    assert_eq!(block_on(read).expect_err("cut off").kind(), ErrorKind::Gone);
    let error = reader.join().expect("no panic").expect_err("cut off");
    assert_eq!(error.kind(), ErrorKind::Gone);
    assert_eq!(disk.flush().expect_err("closed").kind(), ErrorKind::Gone);
    assert!(disk.close().is_err());
    context.close(PATIENCE).expect("closed twice is closed");
    drop(held);
    let again = Disk::builder("null").arg("1M").context(&context).open();
    assert_eq!(again.expect_err("closed").kind(), ErrorKind::Gone);
}

/// Holds a disk, and lets go of it where it is woken.
struct Last(std::sync::Mutex<Option<Disk>>);

impl Wake for Last {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        drop(crate::wait::lock(&self.0).take());
    }
}

#[test]
fn the_last_disk_may_go_on_its_own_thread() {
    let context = context();
    let device = StepDevice::new(1 << 20);
    let disk = open(&context, device.clone());
    let mut read = pin!(disk.to_async().read(0, 512));
    drop(context);
    let waker = Arc::new(Last(Some(disk).into())).into();
    assert!(
        read.as_mut()
            .poll(&mut TaskContext::from_waker(&waker))
            .is_pending()
    );
    let mut step = expect(&device, Op::Read);
    step.remote.give(vec![5; 512]);
    step.remote.complete(Ok(()));
    assert_eq!(&block_on(read).expect("reads")[..], [5; 512]);
}

#[test]
fn many_requests_go_down_in_order_and_come_back_in_any() {
    let context = context();
    let device = StepDevice::new(1 << 20);
    let disk = open(&context, device.clone()).to_async();
    let reads: Vec<_> = (0..8).map(|i| disk.read(i * 512, 512)).collect();
    settle(&context);
    let mut taken: Vec<_> = (0..8).map(|_| expect(&device, Op::Read)).collect();
    let offsets: Vec<_> = taken.iter().map(|step| step.remote.offset()).collect();
    assert_eq!(offsets, (0..8).map(|i| i * 512).collect::<Vec<_>>());
    while let Some(mut step) = taken.pop() {
        step.remote
            .give(vec![(step.remote.offset() / 512) as u8; 512]);
        step.remote.complete(Ok(()));
    }
    for (i, read) in reads.into_iter().enumerate() {
        assert_eq!(&block_on(read).expect("reads")[..], [i as u8; 512]);
    }
}

/// A waker that panics, on the disk's thread.
struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a waker panics on purpose");
    }
}

#[test]
fn a_panic_of_a_waker_harms_nobody() {
    let (device, disk) = steps();
    let mut read = pin!(disk.read(0, 512));
    let waker = Waker::from(Arc::new(Panics));
    assert!(
        read.as_mut()
            .poll(&mut TaskContext::from_waker(&waker))
            .is_pending()
    );
    let answer = |bytes: u8| {
        let mut step = expect(&device, Op::Read);
        step.remote.give(vec![bytes; 512]);
        step.remote.complete(Ok(()));
    };
    answer(1);
    let other = disk.read(512, 512);
    answer(2);
    assert_eq!(&block_on(other).expect("reads")[..], [2; 512]);
    assert_eq!(&block_on(read).expect("it had arrived")[..], [1; 512]);
    block_on(disk.close()).expect("closes");
}
