//! The copy-on-write filter: what goes where, when, and what overlapping requests may see.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{Arc, Mutex},
};

use crate::common::{Bench, Lag, Nothing, filter, nothing_left, stack};
use block::{
    Access, Device, Errno, ErrorKind, Exports, ExtentFlags, Flags, Limits, Local, Op, OpSet,
    OpenContext, QueueExt, Result, Source, Support,
};
use testkit::{DeviceSource, MemoryDisk, Rng, Seeds, SimLoop, SimWorld, StepDevice, TestHost};

const BLOCK: u64 = 4096;
/// Ten blocks and a short one.
const SIZE: u64 = 10 * BLOCK + 100;

fn numbered(size: u64) -> Arc<MemoryDisk> {
    let disk = MemoryDisk::new(size);
    let bytes: Vec<u8> = (0..size).map(|i| (i / 16 % 251) as u8 + 1).collect();
    disk.fill(0, &bytes);
    disk
}

/// A copy-on-write disk over `base`, in blocks of 4 KiB.
fn over(base: &Arc<MemoryDisk>, more: &str) -> Bench {
    Bench::new(&[&format!("cow cow-block-size=4k {more}")], base.clone())
}

/// One whose base and overlay are completed by hand.
fn by_hand(more: &str) -> (Bench, Arc<StepDevice>, Arc<StepDevice>) {
    let (base, scratch) = (StepDevice::new(SIZE), StepDevice::new(SIZE));
    let made = scratch.clone();
    let host = TestHost::with_scratch(move |_| made.clone());
    let words = format!("cow cow-block-size=4k {more}");
    let bench = Bench::with(host, &[&words], base.clone());
    (bench, base, scratch)
}

/// A request under way: its outcome appears when it has completed.
type Outcome = Rc<RefCell<Option<std::result::Result<(), Errno>>>>;

fn begin(bench: &Bench, op: Op, at: u64, len: u64) -> Outcome {
    let mut req = bench.sim.reactor().request(op, at, len);
    if matches!(op, Op::Write | Op::Read) {
        let len = len as usize;
        *req.data_mut() = block::Iov::of_chunk(bench.sim.reactor().chunk(len), len).into();
    }
    let outcome = Outcome::default();
    let seen = outcome.clone();
    req.on_complete(move |done| {
        let end = done.outcome().clone().map_err(|error| error.errno());
        *seen.borrow_mut() = Some(end);
    });
    bench.queue.submit(req);
    bench.sim.run_until_idle();
    outcome
}

#[test]
fn changes_go_to_the_overlay_and_the_disk_stays_as_it_is() {
    let base = numbered(SIZE);
    let before = base.to_vec();
    let mut model = before.clone();
    let bench = over(&base, "");
    let limits = bench.device.limits();
    assert_eq!(
        (limits.size, limits.preferred_block, limits.min_block),
        (SIZE, 4096, 1)
    );
    assert!(limits.multi_conn && limits.fast_zero && limits.fua == Support::Native);
    for (at, len) in [
        (0, 1),
        (4095, 2),
        (100, 9000),
        (2 * BLOCK, BLOCK),
        (SIZE - 1, 1),
        (SIZE - 5000, 4000),
    ] {
        let bytes: Vec<u8> = (0..len).map(|i| (at + i * 7) as u8).collect();
        bench.write(at, &bytes).unwrap();
        model[at as usize..(at + len) as usize].copy_from_slice(&bytes);
        assert_eq!(bench.read(0, SIZE).unwrap(), model, "after a write at {at}");
    }
    assert_eq!(base.to_vec(), before);
}

#[test]
fn a_first_write_is_one_read_below_and_one_write_above() {
    let (bench, base, scratch) = by_hand("");
    // Inside one block: all of the block is read, all of it is written.
    let outcome = begin(&bench, Op::Write, BLOCK + 10, 20);
    base.expect(Op::Read, BLOCK, BLOCK).done(7);
    bench.sim.run_until_idle();
    scratch.expect(Op::Write, BLOCK, BLOCK).done(0);
    bench.sim.run_until_idle();
    assert_eq!(*outcome.borrow(), Some(Ok(())));
    // Over several blocks: what is left of the first and of the last, and one write.
    let outcome = begin(&bench, Op::Write, 3 * BLOCK + 1, 3 * BLOCK);
    base.expect(Op::Read, 3 * BLOCK, 1).done(7);
    base.expect(Op::Read, 6 * BLOCK + 1, BLOCK - 1).done(7);
    bench.sim.run_until_idle();
    scratch.expect(Op::Write, 3 * BLOCK, 4 * BLOCK).done(0);
    bench.sim.run_until_idle();
    assert_eq!(*outcome.borrow(), Some(Ok(())));
    // Whole blocks, also to the end of the disk: nothing is read.
    let outcome = begin(&bench, Op::Write, 8 * BLOCK, SIZE - 8 * BLOCK);
    scratch
        .expect(Op::Write, 8 * BLOCK, SIZE - 8 * BLOCK)
        .done(0);
    bench.sim.run_until_idle();
    assert_eq!(*outcome.borrow(), Some(Ok(())));
    // Now all of them are there, and later writes go straight down.
    begin(&bench, Op::Write, 3 * BLOCK + 1, 3 * BLOCK);
    scratch.expect(Op::Write, 3 * BLOCK + 1, 3 * BLOCK).done(0);
    // Half there: only the other half is fetched.
    begin(&bench, Op::Write, BLOCK + 5, BLOCK);
    base.expect(Op::Read, 2 * BLOCK + 5, BLOCK - 5).done(7);
    bench.sim.run_until_idle();
    scratch.expect(Op::Write, BLOCK + 5, 2 * BLOCK - 5).done(0);
    bench.sim.run_until_idle();
    assert_eq!((base.waiting(), scratch.waiting()), (0, 0));
}

#[test]
fn reads_are_cut_only_where_the_state_changes() {
    let (bench, base, scratch) = by_hand("");
    begin(&bench, Op::Write, 2 * BLOCK, 3 * BLOCK);
    scratch.expect(Op::Write, 2 * BLOCK, 3 * BLOCK).done(0);
    begin(&bench, Op::Discard, 6 * BLOCK, 2 * BLOCK);
    let outcome = begin(&bench, Op::Read, 100, SIZE - 200);
    base.expect(Op::Read, 100, 2 * BLOCK - 100).done(1);
    scratch.expect(Op::Read, 2 * BLOCK, 3 * BLOCK).done(2);
    base.expect(Op::Read, 5 * BLOCK, BLOCK).done(3);
    assert_eq!(*outcome.borrow(), None);
    base.expect(Op::Read, 8 * BLOCK, SIZE - 100 - 8 * BLOCK)
        .done(4);
    bench.sim.run_until_idle();
    assert_eq!(*outcome.borrow(), Some(Ok(())));
    for (device, at, len) in [(&base, 0, 2 * BLOCK), (&scratch, 2 * BLOCK + 9, 2 * BLOCK)] {
        begin(&bench, Op::Read, at, len);
        device.expect(Op::Read, at, len).done(0);
    }
    let zeroes = begin(&bench, Op::Read, 6 * BLOCK + 1, BLOCK);
    assert_eq!(*zeroes.borrow(), Some(Ok(())));
    assert_eq!((base.waiting(), scratch.waiting()), (0, 0));
}

#[test]
fn a_block_counts_as_written_only_once_it_is() {
    let (bench, base, scratch) = by_hand("");
    let write = begin(&bench, Op::Write, 0, BLOCK);
    let in_flight = scratch.expect(Op::Write, 0, BLOCK);
    begin(&bench, Op::Read, 0, BLOCK);
    base.expect(Op::Read, 0, BLOCK).done(1);
    in_flight.done(0);
    bench.sim.run_until_idle();
    assert_eq!(*write.borrow(), Some(Ok(())));
    begin(&bench, Op::Read, 0, BLOCK);
    scratch.expect(Op::Read, 0, BLOCK).done(2);
}

#[test]
fn a_failed_write_leaves_the_block_where_it_was() {
    let (bench, base, scratch) = by_hand("");
    let whole = begin(&bench, Op::Write, 0, BLOCK);
    scratch.expect(Op::Write, 0, BLOCK).fail(Errno::ENOSPC);
    let part = begin(&bench, Op::Write, BLOCK, 1);
    base.expect(Op::Read, BLOCK + 1, BLOCK - 1).fail(Errno::EIO);
    bench.sim.run_until_idle();
    assert_eq!(*whole.borrow(), Some(Err(Errno::ENOSPC)));
    assert_eq!(*part.borrow(), Some(Err(Errno::EIO)));
    begin(&bench, Op::Read, 0, 2 * BLOCK);
    base.expect(Op::Read, 0, 2 * BLOCK).done(1);
    assert_eq!(scratch.waiting(), 0, "nothing was written of the second");
    // The lock was given back: the next write gets through.
    begin(&bench, Op::Write, 0, BLOCK);
    scratch.expect(Op::Write, 0, BLOCK).done(0);
}

#[test]
fn only_first_writes_of_one_block_wait_for_one_another() {
    let (bench, base, scratch) = by_hand("");
    begin(&bench, Op::Write, 0, 10);
    let first = base.expect(Op::Read, 10, BLOCK - 10);
    begin(&bench, Op::Write, 20, 10);
    begin(&bench, Op::Write, BLOCK, BLOCK);
    scratch.expect(Op::Write, BLOCK, BLOCK).done(0);
    assert_eq!(
        (base.waiting(), scratch.waiting()),
        (0, 0),
        "the second waits"
    );
    first.done(1);
    bench.sim.run_until_idle();
    scratch.expect(Op::Write, 0, BLOCK).done(0);
    bench.sim.run_until_idle();
    // It finds the block in the overlay: its own bytes are all there is to write.
    scratch.expect(Op::Write, 20, 10).done(0);
    // And two writes to a block that is there do not wait.
    begin(&bench, Op::Write, 0, 10);
    begin(&bench, Op::Write, 5, 10);
    assert_eq!(scratch.waiting(), 2);
    scratch.next().unwrap().done(0);
    scratch.next().unwrap().done(0);
}

#[test]
fn flush_and_fua_cost_nothing() {
    let (bench, base, scratch) = by_hand("");
    let mut req = bench.sim.reactor().request(Op::Write, 0, BLOCK);
    req.set_flags(Flags::FUA);
    *req.data_mut() = block::Iov::of_chunk(bench.sim.reactor().chunk(4096), 4096).into();
    let call = bench.queue.call(req);
    let step = scratch.expect(Op::Write, 0, BLOCK);
    assert_eq!(step.remote.flags(), Flags::NONE);
    step.done(0);
    assert!(bench.sim.block_on(call).error().is_none());
    assert_eq!(*begin(&bench, Op::Flush, 0, 0).borrow(), Some(Ok(())));
    assert_eq!((base.waiting(), scratch.waiting()), (0, 0));
}

#[test]
fn zeroes_take_no_space_and_keep_their_neighbours() {
    let base = numbered(SIZE);
    let mut model = base.to_vec();
    let bench = over(&base, "");
    bench.write(4 * BLOCK, &[9; 4096]).unwrap();
    model[4 * 4096..5 * 4096].fill(9);
    for (at, len) in [
        (10, 20),
        (BLOCK - 1, 2),
        (2 * BLOCK - 5, 3 * BLOCK),
        (SIZE - 5000, 5000),
    ] {
        bench.plain(Op::WriteZeroes, at, len).unwrap();
        model[at as usize..(at + len) as usize].fill(0);
        assert_eq!(bench.read(0, SIZE).unwrap(), model, "after zeroes at {at}");
    }
    let (data, hole) = (ExtentFlags::DATA, ExtentFlags::HOLE_ZERO);
    let expected = [
        (2 * BLOCK, data),
        (2 * BLOCK, hole),
        (5 * BLOCK, data),
        (SIZE - 9 * BLOCK, hole),
    ];
    assert_eq!(bench.extents(0, SIZE, Flags::NONE), expected);
    assert_eq!(bench.extents(2 * BLOCK + 5, 10, Flags::NONE), [(10, hole)]);
    assert_eq!(
        bench.extents(BLOCK, 3 * BLOCK, Flags::REQ_ONE)[0],
        (BLOCK, data)
    );
}

#[test]
fn what_was_trimmed_comes_back_as_zeroes() {
    let base = numbered(SIZE);
    // An overlay that cannot punch holes keeps the old bytes where the map no longer shows them.
    let host = TestHost::with_scratch(|size| {
        let mut limits = Limits::new(size, OpSet::of(&[Op::Read, Op::Write]));
        limits.min_block = 512;
        limits.size = size.next_multiple_of(512);
        MemoryDisk::with(limits)
    });
    let bench = Bench::with(host, &["cow cow-block-size=4k"], base.clone());
    bench.write(0, &[1; 3 * 4096]).unwrap();
    bench.plain(Op::Discard, 0, 3 * BLOCK).unwrap();
    bench.write(BLOCK + 100, &[2; 50]).unwrap();
    let mut model = vec![0; 3 * 4096];
    model[4196..4246].fill(2);
    assert_eq!(bench.read(0, 3 * BLOCK).unwrap(), model);
    bench.plain(Op::WriteZeroes, BLOCK + 120, 10).unwrap();
    model[4216..4226].fill(0);
    assert_eq!(bench.read(0, 3 * BLOCK).unwrap(), model);
    // Ragged ends of a trim stay: it is a hint, and what it does not cover is in use.
    bench.plain(Op::Discard, BLOCK + 1, 2 * BLOCK - 2).unwrap();
    assert_eq!(bench.read(0, 3 * BLOCK).unwrap(), model);
}

#[test]
fn space_is_given_back_by_zeroing_what_was_written() {
    let (bench, _, scratch) = {
        let (base, mut limits) = (StepDevice::new(SIZE), Limits::new(SIZE, OpSet::DISK));
        limits.fast_zero = true;
        let scratch = StepDevice::with(limits);
        let made = scratch.clone();
        let host = TestHost::with_scratch(move |_| made.clone());
        (
            Bench::with(host, &["cow cow-block-size=4k"], base.clone()),
            base,
            scratch,
        )
    };
    begin(&bench, Op::Write, BLOCK, 2 * BLOCK);
    scratch.expect(Op::Write, BLOCK, 2 * BLOCK).done(0);
    let trim = begin(&bench, Op::Discard, 0, 5 * BLOCK);
    // That it fails harms nobody.
    scratch
        .expect(Op::WriteZeroes, BLOCK, 2 * BLOCK)
        .fail(Errno::EIO);
    bench.sim.run_until_idle();
    assert_eq!(*trim.borrow(), Some(Ok(())));
    assert_eq!(
        bench.extents(0, 5 * BLOCK, Flags::NONE),
        [(5 * BLOCK, ExtentFlags::HOLE_ZERO)]
    );
}

#[test]
fn zeroes_without_a_hole_take_their_space() {
    let base = numbered(SIZE);
    let bench = over(&base, "");
    bench
        .flagged(Op::WriteZeroes, 100, 3 * BLOCK, Flags::NO_HOLE)
        .unwrap();
    bench.plain(Op::Discard, 8 * BLOCK, BLOCK).unwrap();
    bench
        .flagged(Op::WriteZeroes, 8 * BLOCK + 5, 5, Flags::NO_HOLE)
        .unwrap();
    let mut model = base.to_vec();
    model[100..100 + 3 * 4096].fill(0);
    model[8 * 4096..9 * 4096].fill(0);
    assert_eq!(bench.read(0, SIZE).unwrap(), model);
    assert_eq!(
        bench.extents(0, SIZE, Flags::NONE),
        [(SIZE, ExtentFlags::DATA)]
    );
}

#[test]
fn fast_zero_is_refused_where_it_would_copy() {
    let base = numbered(SIZE);
    let bench = over(&base, "");
    let fast = |at, len| bench.flagged(Op::WriteZeroes, at, len, Flags::FAST_ZERO);
    assert_eq!(fast(0, 10), Err(Errno::ENOTSUP));
    assert_eq!(fast(BLOCK, BLOCK + 1), Err(Errno::ENOTSUP));
    assert_eq!(
        bench.read(0, SIZE).unwrap(),
        base.to_vec(),
        "and nothing has changed"
    );
    fast(BLOCK, 2 * BLOCK).unwrap();
    bench.write(3 * BLOCK, &[5; 4096]).unwrap();
    fast(BLOCK + 5, 2 * BLOCK).unwrap();
    let mut expected = vec![0; 2 * 4096 + 6];
    expected[2 * 4096 + 5] = 5;
    assert_eq!(bench.read(BLOCK, 2 * BLOCK + 6).unwrap(), expected);
}

#[test]
fn extents_are_those_of_the_disk_where_nothing_was_written() {
    /// Half data, half hole, in every block of 8 KiB.
    struct Striped(Arc<MemoryDisk>);
    impl Device for Striped {
        fn limits(&self) -> Arc<Limits> {
            self.0.limits()
        }
        fn open_queue(&self, reactor: &block::Reactor) -> Result<Rc<dyn block::Queue>> {
            struct Stripes(Rc<dyn block::Queue>);
            impl block::Queue for Stripes {
                fn submit(&self, mut req: block::Request) {
                    if req.op() != Op::Extents {
                        return self.0.submit(req);
                    }
                    let mut list = block::ExtentList::new();
                    let mut at = req.offset();
                    while at < req.end() {
                        let stop = (at / 8192 + 1) * 8192;
                        let (middle, data) = (stop - 4096, ExtentFlags::DATA);
                        list.push(middle.saturating_sub(at), data);
                        list.push(stop - at.max(middle), ExtentFlags::HOLE_ZERO);
                        at = stop;
                    }
                    list.truncate(req.len());
                    *req.data_mut() = block::Data::Extents(list);
                    req.done();
                }
            }
            Ok(Rc::new(Stripes(self.0.open_queue(reactor)?)))
        }
    }
    let bench = Bench::new(
        &["cow cow-block-size=4k"],
        Arc::new(Striped(numbered(SIZE))),
    );
    let (data, hole) = (ExtentFlags::DATA, ExtentFlags::HOLE_ZERO);
    bench.write(3 * BLOCK, &[1; 4096]).unwrap();
    bench.plain(Op::Discard, 4 * BLOCK, BLOCK).unwrap();
    let expected = [
        (BLOCK, data),
        (BLOCK, hole),
        (2 * BLOCK, data),
        (2 * BLOCK, hole),
        (BLOCK, data),
    ];
    assert_eq!(bench.extents(0, 7 * BLOCK, Flags::NONE), expected);
    assert_eq!(
        bench.extents(3 * BLOCK + 1, 100, Flags::NONE),
        [(100, data)]
    );
}

#[test]
fn reading_and_caching_can_copy() {
    let base = numbered(SIZE);
    let bench = over(&base, "cow-on-read=true cow-on-cache=true");
    bench.plain(Op::Discard, BLOCK, BLOCK).unwrap();
    bench.read(10, BLOCK).unwrap();
    bench.plain(Op::Cache, SIZE - 10, 10).unwrap();
    let copied = base.to_vec();
    // From here on the base is not looked at: whatever it says, the copies are there.
    base.fill(0, &vec![0xee; SIZE as usize]);
    assert_eq!(bench.read(0, BLOCK).unwrap(), copied[..4096]);
    assert_eq!(bench.read(BLOCK, BLOCK).unwrap(), [0; 4096]);
    assert_eq!(
        bench.read(SIZE - 100, 100).unwrap(),
        copied[SIZE as usize - 100..]
    );
    assert_eq!(bench.read(2 * BLOCK, 1).unwrap(), [0xee]);
}

#[test]
fn a_file_says_whether_reading_copies() {
    let base = numbered(SIZE);
    let bench = over(&base, "cow-on-read=/copy");
    let old = bench.read(0, 1).unwrap();
    bench.host.set_file("/copy", true);
    bench.sim.run_until_idle();
    let kept = bench.read(BLOCK, 1).unwrap();
    bench.host.set_file("/copy", false);
    bench.sim.run_until_idle();
    base.fill(0, &vec![0xee; SIZE as usize]);
    assert_ne!(bench.read(0, 1).unwrap(), old);
    assert_eq!(bench.read(BLOCK, 1).unwrap(), kept);
}

#[test]
fn a_copy_and_a_write_of_one_block_wait_for_one_another() {
    let (bench, base, scratch) = by_hand("cow-on-cache=1");
    begin(&bench, Op::Cache, 0, BLOCK);
    let fetched = base.expect(Op::Read, 0, BLOCK);
    let write = begin(&bench, Op::Write, 0, BLOCK);
    let trim = begin(&bench, Op::Discard, 0, BLOCK);
    assert_eq!(scratch.waiting(), 0, "the write waits");
    fetched.done(1);
    bench.sim.run_until_idle();
    scratch.expect(Op::Write, 0, BLOCK).done(0);
    bench.sim.run_until_idle();
    scratch.expect(Op::Write, 0, BLOCK).done(0);
    assert_eq!(*trim.borrow(), None, "the trim waits for both");
    bench.sim.run_until_idle();
    assert_eq!(
        (*write.borrow(), *trim.borrow()),
        (Some(Ok(())), Some(Ok(())))
    );
}

#[test]
fn a_read_succeeds_though_its_copy_fails() {
    let (bench, base, scratch) = by_hand("cow-on-read=1");
    let read = begin(&bench, Op::Read, 0, 10);
    base.expect(Op::Read, 0, BLOCK).done(1);
    bench.sim.run_until_idle();
    scratch.expect(Op::Write, 0, BLOCK).fail(Errno::ENOSPC);
    bench.sim.run_until_idle();
    base.expect(Op::Read, 0, 10).done(1);
    bench.sim.run_until_idle();
    assert_eq!(*read.borrow(), Some(Ok(())));
}

#[test]
fn caching_goes_to_the_base_for_its_own_blocks_only() {
    let (bench, base, scratch) = by_hand("");
    begin(&bench, Op::Write, BLOCK, BLOCK);
    scratch.expect(Op::Write, BLOCK, BLOCK).done(0);
    let cache = begin(&bench, Op::Cache, 0, 3 * BLOCK);
    base.expect(Op::Cache, 0, BLOCK).done(0);
    bench.sim.run_until_idle();
    base.expect(Op::Cache, 2 * BLOCK, BLOCK).done(0);
    bench.sim.run_until_idle();
    assert_eq!(*cache.borrow(), Some(Ok(())));
    assert_eq!(scratch.waiting(), 0);
}

/// A source of several exports that notes how each was opened.
struct Exporting {
    name: Arc<str>,
    disk: Mutex<Arc<MemoryDisk>>,
    opened: Mutex<Vec<(String, Access)>>,
}

impl Source for Exporting {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn exports<'a>(&'a self, _: &'a OpenContext) -> Local<'a, Result<Exports>> {
        let default = Some("a".to_string());
        Box::pin(async {
            Ok(Exports {
                default,
                ..Exports::default()
            })
        })
    }

    fn open<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<Arc<dyn Device>>> {
        self.opened
            .lock()
            .unwrap()
            .push((cx.export.to_string(), cx.access));
        let disk = self.disk.lock().unwrap().clone();
        Box::pin(async { Ok(disk as Arc<dyn Device>) })
    }
}

#[test]
fn clients_of_one_export_share_an_overlay_until_the_end() {
    let below = Arc::new(Exporting {
        name: "exporting".into(),
        disk: Mutex::new(numbered(SIZE)),
        opened: Mutex::default(),
    });
    let source = filter("cow", below.clone()).unwrap();
    let (sim, host) = (SimLoop::new(1), TestHost::new());
    let open = |export: &str| {
        let mut cx = host.context(sim.reactor());
        cx.export = export.into();
        let device = sim.block_on(source.open(&cx))?;
        let queue = device.open_queue(sim.reactor())?;
        Ok::<_, block::Error>((device, queue))
    };
    let (first, queue) = open("a").unwrap();
    sim.block_on(crate::common::write(&queue, sim.reactor(), 5, b"shared"))
        .unwrap();
    drop(queue);
    sim.block_on(first.close(sim.reactor())).unwrap();
    drop(first);
    for (export, sees) in [("a", true), ("", true), ("b", false)] {
        let (_, queue) = open(export).unwrap();
        let bytes = sim
            .block_on(crate::common::read(&queue, sim.reactor(), 5, 6))
            .unwrap();
        assert_eq!(bytes == b"shared", sees, "export '{export}'");
    }
    assert!(
        below
            .opened
            .lock()
            .unwrap()
            .iter()
            .all(|(_, access)| *access == Access::ReadOnly)
    );

    *below.disk.lock().unwrap() = numbered(SIZE + 1);
    let error = open("a").err().expect("the size changed");
    assert_eq!(
        (error.kind(), error.node()),
        (ErrorKind::Unsupported, Some("cow"))
    );
    sim.block_on(source.stop(sim.reactor()));
    open("a").expect("after the end it begins anew");
    nothing_left(sim.reactor());
}

#[test]
fn names_without_end_are_refused() {
    let source = stack(&["cow"], Nothing::new(SIZE));
    let (sim, host) = (
        SimLoop::new(1),
        TestHost::with_scratch(|size| Nothing::new(size)),
    );
    let mut cx = host.context(sim.reactor());
    let mut opened = 0;
    let error = loop {
        cx.export = opened.to_string().into();
        match sim.block_on(source.open(&cx)) {
            Ok(_) => opened += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((opened, error.kind()), (1024, ErrorKind::Exhausted));
}

#[test]
fn a_client_that_may_not_write_cannot() {
    let bench = Bench::new(&["cow"], numbered(SIZE));
    let cx = OpenContext {
        access: Access::ReadOnly,
        ..bench.context()
    };
    let device = bench.sim.block_on(bench.source.open(&cx)).unwrap();
    assert!(device.limits().read_only());
    let queue = device.open_queue(bench.sim.reactor()).unwrap();
    let write = crate::common::write(&queue, bench.sim.reactor(), 0, b"x");
    assert_eq!(bench.sim.block_on(write), Err(Errno::ENOTSUP));
    assert!(!bench.device.limits().read_only());
}

#[test]
fn a_disk_that_cannot_be_written_can_be_written() {
    let mut limits = Limits::new(SIZE, OpSet::of(&[Op::Read]));
    limits.min_block = 1;
    let bench = Bench::new(&["cow"], MemoryDisk::with(limits));
    bench.write(5, b"x").unwrap();
    assert_eq!(bench.read(4, 3).unwrap(), b"\0x\0");
    assert_eq!(
        bench.extents(0, SIZE, Flags::NONE),
        [(SIZE, ExtentFlags::DATA)]
    );
    assert!(!bench.device.limits().support(Op::Cache).is_offered());
}

#[test]
fn parameters_are_checked() {
    let refused = |words: &str| {
        let disk = DeviceSource::new(Nothing::new(SIZE));
        filter(words, disk).err().expect("must be refused").chain()
    };
    for size in ["2k", "5000", "16M", "0"] {
        let line = refused(&format!("cow cow-block-size={size}"));
        assert_eq!(
            line, "cow: cow-block-size must be a power of two from 4K to 8M",
            "{size}"
        );
    }
    let line = refused("cow cow-on-read=maybe");
    assert_eq!(
        line,
        "cow: cow-on-read=maybe: neither true nor false, and not an absolute path"
    );

    let sim = SimLoop::new(1);
    let host = TestHost::with_scratch(|size| Nothing::new(size));
    let open = |words: &str| {
        let source = stack(&[words], Nothing::new(1 << 50));
        sim.block_on(source.open(&host.context(sim.reactor())))
            .map(|_| ())
    };
    let error = open("cow").expect_err("too many blocks");
    assert_eq!(
        (error.kind(), error.hint_text()),
        (ErrorKind::Unsupported, Some("raise cow-block-size"))
    );
    open("cow cow-block-size=1M").unwrap();
}

#[test]
fn a_huge_disk_is_trimmed_in_steps() {
    const TIB: u64 = 1 << 40;
    let host = TestHost::with_scratch(|size| Nothing::new(size));
    let bench = Bench::with(host, &["cow"], Nothing::new(2 * TIB));
    bench.plain(Op::Discard, TIB, TIB).unwrap();
    bench
        .flagged(Op::WriteZeroes, TIB, 1 << 33, Flags::NO_HOLE)
        .unwrap();
    // One answer looks at 2^20 blocks at most; clients ask again.
    let first = bench.extents(TIB, TIB, Flags::NONE);
    let (data, hole) = (ExtentFlags::DATA, ExtentFlags::HOLE_ZERO);
    assert_eq!(first, [(1 << 33, data), ((1 << 36) - (1 << 33), hole)]);
    assert_eq!(bench.read(2 * TIB - 512, 512).unwrap(), [0; 512]);
}

#[test]
fn the_longest_write_fits_with_the_rest_of_its_blocks() {
    let host = TestHost::with_scratch(|size| Nothing::new(size));
    let bench = Bench::with(host, &["cow cow-block-size=8M"], Nothing::new(1 << 30));
    bench.write(5, &vec![1; 32 << 20]).unwrap();
    assert_eq!(
        bench.extents(0, 1 << 30, Flags::NONE)[0],
        (5 << 23, ExtentFlags::DATA)
    );
}

#[test]
fn it_equals_a_plain_array_whatever_is_done() {
    Seeds::of("it_equals_a_plain_array_whatever_is_done", 8).run(|seed| {
        let mut rng = Rng::new(seed);
        let base = numbered(SIZE);
        let mut model = base.to_vec();
        let more = ["", "cow-on-read=1", "cow-on-cache=1"][rng.index(3)];
        let bench = over(&base, more);
        for _ in 0..300 {
            let at = rng.below(SIZE);
            let most = [10, 5000, SIZE][rng.index(3)];
            let len = 1 + rng.below(most.min(SIZE - at));
            let range = at as usize..(at + len) as usize;
            let flags = [Flags::NONE, Flags::NO_HOLE, Flags::FUA][rng.index(3)];
            match rng.below(6) {
                0 | 1 => {
                    let bytes: Vec<u8> = range.clone().map(|_| rng.next_u64() as u8).collect();
                    bench.write(at, &bytes).unwrap();
                    model[range].copy_from_slice(&bytes);
                }
                2 => {
                    bench.flagged(Op::WriteZeroes, at, len, flags).unwrap();
                    model[range].fill(0);
                }
                3 => {
                    bench.plain(Op::Discard, at, len).unwrap();
                    // Whole blocks, and nothing else, become zeroes.
                    let first = at.next_multiple_of(BLOCK);
                    let last = if at + len == SIZE {
                        SIZE
                    } else {
                        (at + len) / BLOCK * BLOCK
                    };
                    if first < last {
                        model[first as usize..last as usize].fill(0);
                    }
                }
                4 => bench.plain(Op::Cache, at, len).unwrap(),
                _ => assert_eq!(bench.read(at, len).unwrap(), model[range], "at {at}"),
            }
            let mut at = 0;
            for (len, flags) in bench.extents(0, SIZE, Flags::NONE) {
                let range = at as usize..(at + len) as usize;
                assert!(!flags.is_zero() || model[range].iter().all(|byte| *byte == 0));
                at += len;
            }
            assert_eq!(at, SIZE, "extents cover the disk");
        }
        assert_eq!(bench.read(0, SIZE).unwrap(), model);
    });
}

/// Many writers on several reactors, each with sectors of its own, all in the same few blocks:
/// whatever the order, no write may be lost to another's copy of the block.
#[test]
fn no_update_is_lost_between_reactors() {
    const WRITERS: u64 = 16;
    const REACTORS: usize = 3;
    let name = "no_update_is_lost_between_reactors";
    Seeds::of(name, 30).run(|seed| {
        let world = SimWorld::new(seed, REACTORS);
        let base = numbered(SIZE);
        let host = TestHost::with_scratch(move |size| Lag::new(MemoryDisk::new(size), seed ^ 1));
        let source = stack(&["cow cow-block-size=4k"], Lag::new(base.clone(), seed));
        let model = Arc::new(Mutex::new(base.to_vec()));
        for writer in 0..WRITERS {
            let index = writer as usize % REACTORS;
            let reactor = world.reactor(index);
            let cx = host.context(reactor);
            let device = world.block_on(index, source.open(&cx)).unwrap();
            let queue = device.open_queue(reactor).unwrap();
            let (model, reactor) = (model.clone(), reactor.clone());
            let mut rng = Rng::new(seed ^ (writer << 32));
            let task_reactor = reactor.clone();
            reactor.spawn(async move {
                let reactor = task_reactor;
                for _ in 0..12 {
                    // Sectors of 64 bytes; this writer's are every sixteenth.
                    let sector = rng.below(SIZE / 64 / WRITERS) * WRITERS + writer;
                    let (at, fill) = (sector * 64, rng.next_u64() as u8);
                    let zero = rng.chance(1, 4);
                    if zero {
                        let op = Op::WriteZeroes;
                        let flags = [Flags::NONE, Flags::NO_HOLE][rng.index(2)];
                        crate::common::plain(&queue, &reactor, op, at, 64, flags)
                            .await
                            .unwrap();
                    } else {
                        crate::common::write(&queue, &reactor, at, &[fill; 64])
                            .await
                            .unwrap();
                    }
                    let fill = if zero { 0 } else { fill };
                    model.lock().unwrap()[at as usize..at as usize + 64].fill(fill);
                    // Its own sector is what it wrote, also while others move the block.
                    let seen = crate::common::read(&queue, &reactor, at, 64).await.unwrap();
                    assert_eq!(seen, [fill; 64], "sector {sector}");
                }
            });
        }
        world.run_until_idle();
        let reactor = world.reactor(0);
        let device = world
            .block_on(0, source.open(&host.context(reactor)))
            .unwrap();
        let queue = device.open_queue(reactor).unwrap();
        let seen = world
            .block_on(0, crate::common::read(&queue, reactor, 0, SIZE))
            .unwrap();
        assert_eq!(seen, *model.lock().unwrap());
        world.reactors().for_each(nothing_left);
    });
}

/// Writers of parts of blocks beside one who trims whole blocks: a byte that nobody writes is the
/// base's until it is trimmed, then zero, and never the base's again.
#[test]
fn a_trim_is_not_undone_by_a_copy() {
    Seeds::of("a_trim_is_not_undone_by_a_copy", 30).run(|seed| {
        let world = SimWorld::new(seed, 2);
        let base = numbered(SIZE);
        let host = TestHost::with_scratch(move |size| Lag::new(MemoryDisk::new(size), seed ^ 1));
        let source = stack(&["cow cow-block-size=4k"], Lag::new(base.clone(), seed));
        for index in 0..2 {
            let reactor = world.reactor(index).clone();
            let device = world
                .block_on(index, source.open(&host.context(&reactor)))
                .unwrap();
            let queue = device.open_queue(&reactor).unwrap();
            let mut rng = Rng::new(seed ^ ((index as u64) << 32));
            world.reactor(index).spawn(async move {
                for block in 0..10 {
                    let at = block * BLOCK;
                    reactor
                        .sleep(std::time::Duration::from_micros(rng.below(100)))
                        .await;
                    if index == 0 {
                        let op = [Op::Discard, Op::WriteZeroes][rng.index(2)];
                        crate::common::plain(&queue, &reactor, op, at, BLOCK, Flags::NONE)
                            .await
                            .unwrap();
                        let seen = crate::common::read(&queue, &reactor, at + 100, 100)
                            .await
                            .unwrap();
                        assert_eq!(seen, [0; 100], "block {block} after its trim");
                    } else {
                        crate::common::write(&queue, &reactor, at, &[9; 50])
                            .await
                            .unwrap();
                    }
                }
            });
        }
        world.run_until_idle();
        let reactor = world.reactor(0);
        let device = world
            .block_on(0, source.open(&host.context(reactor)))
            .unwrap();
        let queue = device.open_queue(reactor).unwrap();
        let seen = world
            .block_on(0, crate::common::read(&queue, reactor, 0, 10 * BLOCK))
            .unwrap();
        for (block, bytes) in seen.chunks(BLOCK as usize).enumerate() {
            assert_eq!(bytes[50..], [0; 4096 - 50], "block {block} at the end");
        }
        world.reactors().for_each(nothing_left);
    });
}
