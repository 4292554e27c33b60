//! The map and hook filters: offset, readonly, stats, delay, error.

use std::{sync::Arc, time::Duration};

use crate::common::{Bench, filter, stack};
use block::{Device, Errno, ErrorKind, Filtered, Flags, Next, Op, QueueExt, Source, Support, Tick};
use config::Config;
use testkit::{DeviceSource, MemoryDisk, SimWorld, StepDevice, TestHost};

const SIZE: u64 = 1 << 20;

fn numbered() -> Arc<MemoryDisk> {
    let disk = MemoryDisk::new(SIZE);
    let bytes: Vec<u8> = (0..SIZE).map(|i| (i / 512 % 251) as u8).collect();
    disk.fill(0, &bytes);
    disk
}

fn refused(words: &str) -> block::Error {
    filter(words, DeviceSource::new(MemoryDisk::new(SIZE)))
        .err()
        .expect("must be refused")
}

#[test]
fn the_registry_is_complete_and_documented() {
    let entries = blkit_filters::registry();
    let names: Vec<_> = entries.iter().map(|entry| entry.name).collect();
    assert_eq!(
        names,
        ["cow", "delay", "error", "offset", "readonly", "stats"]
    );
    for entry in entries {
        assert_eq!(entry.schema.problems(), [""; 0]);
        assert_eq!(
            entry.summary,
            entry.schema.summary(),
            "a summary is one line"
        );
    }
    let error = refused("offset ofset=5");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(error.chain(), "offset: unknown parameter 'ofset'");
    assert_eq!(error.hint_text(), Some("did you mean 'offset'?"));
}

#[test]
fn offset_serves_a_part() {
    let disk = numbered();
    let bench = Bench::new(&["offset offset=1536 range=4096"], disk.clone());
    assert_eq!(bench.device.limits().size, 4096);
    assert_eq!(bench.read(0, 4096).unwrap(), disk.to_vec()[1536..5632]);
    bench.write(1, b"here").unwrap();
    bench.plain(Op::WriteZeroes, 4000, 96).unwrap();
    bench.plain(Op::Flush, 0, 0).unwrap();
    assert_eq!(disk.to_vec()[1537..1541], *b"here");
    assert_eq!(disk.to_vec()[5536..5632], [0; 96]);
    assert_eq!(bench.extents(5, 100, Flags::NONE).len(), 1);
}

#[test]
fn offset_without_range_goes_to_the_end() {
    let bench = Bench::new(&["offset offset=1M"], MemoryDisk::new(SIZE));
    assert_eq!(bench.device.limits().size, 0);
    let bench = Bench::new(&["offset"], MemoryDisk::new(SIZE));
    assert_eq!(bench.device.limits().size, SIZE);
}

#[test]
fn offset_refuses_what_the_disk_does_not_hold() {
    for words in [
        "offset offset=1M range=1",
        "offset offset=1048577",
        "offset range=2M",
    ] {
        let sim = testkit::SimLoop::new(1);
        let source = stack(&[words], MemoryDisk::new(SIZE));
        let cx = TestHost::new().context(sim.reactor());
        let error = sim.block_on(source.open(&cx)).err().expect("must not open");
        assert_eq!(
            (error.kind(), error.node()),
            (ErrorKind::Config, Some("offset")),
            "{words}"
        );
    }
}

#[test]
fn offset_is_not_bound_to_the_blocks_below() {
    let mut limits = (*numbered().limits()).clone();
    limits.min_block = 4096;
    let below = MemoryDisk::with(limits);
    let bench = Bench::new(&["offset offset=100"], below.clone());
    bench.write(0, &[7; 5000]).unwrap();
    assert_eq!(
        below.to_vec()[99..5101],
        [&[0][..], &[7; 5000], &[0]].concat()
    );
}

#[test]
fn readonly_refuses_changes() {
    let bench = Bench::new(&["readonly"], numbered());
    let limits = bench.device.limits();
    assert!(limits.read_only() && limits.fua == Support::None && !limits.fast_zero);
    assert!(limits.support(Op::Flush).is_offered() && limits.support(Op::Cache).is_offered());
    assert_eq!(bench.write(0, b"x"), Err(Errno::ENOTSUP));
    assert_eq!(bench.plain(Op::Discard, 0, 512), Err(Errno::ENOTSUP));
    assert_eq!(bench.plain(Op::WriteZeroes, 0, 512), Err(Errno::ENOTSUP));
    assert_eq!(bench.read(512, 1).unwrap(), [1]);
    bench.plain(Op::Flush, 0, 0).unwrap();
}

#[test]
fn readonly_can_come_and_go() {
    let host = TestHost::new();
    host.set_file("/freeze", true);
    let bench = Bench::with(host, &["readonly readonly-file=/freeze"], numbered());
    assert!(!bench.device.limits().read_only(), "it may thaw");
    assert_eq!(bench.write(0, b"x"), Err(Errno::EROFS));
    bench.host.set_file("/freeze", false);
    bench.sim.run_until_idle();
    bench.write(0, b"x").unwrap();
    bench.host.set_file("/freeze", true);
    bench.sim.run_until_idle();
    assert_eq!(bench.write(0, b"x"), Err(Errno::EROFS));
}

#[test]
fn an_operation_no_filter_knows_is_refused() {
    for words in ["offset", "readonly", "delay", "error", "cow"] {
        let mut limits = (*MemoryDisk::new(SIZE).limits()).clone();
        limits.set(Op::SecureErase, Support::Native);
        let bench = Bench::new(&[words], MemoryDisk::with(limits));
        assert!(
            !bench.device.limits().support(Op::SecureErase).is_offered(),
            "{words}"
        );
        assert_eq!(
            bench.plain(Op::SecureErase, 0, 512),
            Err(Errno::ENOTSUP),
            "{words}"
        );
    }
}

#[test]
fn stats_count_requests_bytes_errors_and_latencies() {
    use blkit_filters::stats::{Stats, StatsConfig};
    let stats = Stats::from(StatsConfig::from_args(&[]).unwrap());
    let handle = stats.handle();
    let below = stack(
        &["delay rdelay=1ms", "error error-pwrite-rate=1"],
        numbered(),
    );
    let source = Filtered(stats, Next::new(below));

    // Two reactors, and two queues on one of them: the tables are added up.
    let world = SimWorld::new(3, 2);
    let host = TestHost::new();
    for (index, reads) in [(0, 2), (1, 3), (0, 4)] {
        let reactor = world.reactor(index);
        let cx = host.context(reactor);
        world.block_on(index, async {
            let device = source.open(&cx).await.expect("it opens");
            let queue = device.open_queue(reactor).expect("a queue");
            for _ in 0..reads {
                crate::common::read(&queue, reactor, 0, 512).await.unwrap();
            }
            crate::common::write(&queue, reactor, 0, &[1; 99])
                .await
                .unwrap_err();
            crate::common::plain(&queue, reactor, Op::Flush, 0, 0, Flags::NONE)
                .await
                .unwrap();
        });
    }
    let seen = handle.snapshot();
    let reads = seen.of(Op::Read);
    assert_eq!(
        (reads.requests(), reads.bytes, reads.errors),
        (9, 9 * 512, 0)
    );
    // 1 ms is in the bucket that ends at 2^20 ns.
    assert_eq!(
        reads.quantile(0.5),
        Some(Duration::from_nanos((1 << 20) - 1))
    );
    let writes = seen.of(Op::Write);
    assert_eq!((writes.requests(), writes.bytes, writes.errors), (3, 0, 3));
    assert_eq!(seen.of(Op::Flush).bytes, 0);
    assert_eq!(seen.seen().count(), 3);
    let report = seen.to_string();
    assert!(
        report.starts_with("read: 9 requests, 4608 bytes, 0 errors, "),
        "{report}"
    );
    assert!(!report.contains('\n'));
    world.block_on(0, source.stop(world.reactor(0)));
}

/// How long something takes in virtual time, in whole milliseconds: turns take less.
fn time_of<T>(bench: &Bench, what: impl FnOnce() -> T) -> Duration {
    let began = bench.sim.now();
    what();
    let took = bench.sim.now().since(began);
    Duration::from_millis(took.as_millis() as u64)
}

#[test]
fn delay_waits_before_each_operation() {
    let words = "delay rdelay=10ms wdelay=20ms delay-trim=30ms delay-cache=5ms delay-extents=1s";
    let bench = Bench::new(&[words], numbered());
    let took = |op| time_of(&bench, || bench.plain(op, 0, 512).unwrap()).as_millis();
    assert_eq!(time_of(&bench, || bench.read(0, 512)).as_millis(), 10);
    assert_eq!(time_of(&bench, || bench.write(0, b"x")).as_millis(), 20);
    assert_eq!(
        (took(Op::WriteZeroes), took(Op::Discard), took(Op::Cache)),
        (20, 30, 5)
    );
    assert_eq!((took(Op::Extents), took(Op::Flush)), (1000, 0));
    assert_eq!(
        refused("delay rdelay=1 delay-read=2").kind(),
        ErrorKind::Config
    );
}

#[test]
fn delays_run_side_by_side() {
    let bench = Bench::new(&["delay rdelay=10ms"], numbered());
    let took = time_of(&bench, || {
        let calls: Vec<_> = (0..50)
            .map(|_| {
                let mut req = bench.sim.reactor().request(Op::Read, 0, 512);
                *req.data_mut() = block::Data::Wanted;
                bench.queue.call(req)
            })
            .collect();
        bench.sim.block_on(async {
            for call in calls {
                assert!(call.await.error().is_none());
            }
        });
    });
    assert_eq!(took.as_millis(), 10);
}

#[test]
fn a_delayed_request_that_is_cancelled_leaves_at_once() {
    let below = StepDevice::new(SIZE);
    let bench = Bench::new(&["delay wdelay=3600"], below.clone());
    let took = time_of(&bench, || {
        let mut req = bench.sim.reactor().request(Op::Discard, 0, 512);
        let ticket = req.ticket();
        let call = bench.queue.call(req);
        ticket.cancel();
        let done = bench.sim.block_on(call);
        assert_eq!(
            done.error().map(|error| error.errno()),
            Some(Errno::ECANCELED)
        );
    });
    assert_eq!(took.as_secs(), 0);
    bench.sim.run_until_idle();
    assert_eq!(below.waiting(), 0, "it did not go down later either");
}

#[test]
fn fast_zero_may_fail_at_once() {
    let bench = Bench::new(&["delay delay-zero=1 delay-fast-zero=false"], numbered());
    let fast = || bench.flagged(Op::WriteZeroes, 0, 512, Flags::FAST_ZERO);
    assert_eq!(
        time_of(&bench, || assert_eq!(fast(), Err(Errno::ENOTSUP))),
        Duration::ZERO
    );
    let bench = Bench::new(&["delay delay-zero=1"], numbered());
    let fast = || bench.flagged(Op::WriteZeroes, 0, 512, Flags::FAST_ZERO);
    assert_eq!(time_of(&bench, || assert_eq!(fast(), Ok(()))).as_secs(), 1);
}

#[test]
fn open_and_close_are_delayed_and_a_trigger_file_starts_delays() {
    let words = "delay delay-open=1 delay-close=2 rdelay=3 delay-trigger=/slow";
    let bench = Bench::new(&[words], numbered());
    assert_eq!(bench.sim.now().since(Tick::default()).as_secs(), 1);
    assert_eq!(time_of(&bench, || bench.read(0, 512)), Duration::ZERO);
    bench.host.set_file("/slow", true);
    bench.sim.run_until_idle();
    assert_eq!(time_of(&bench, || bench.read(0, 512)).as_secs(), 3);
    let took = time_of(&bench, || {
        bench
            .sim
            .block_on(bench.device.close(bench.sim.reactor()))
            .unwrap();
    });
    assert_eq!(took.as_secs(), 2);
}

#[test]
fn errors_are_those_that_were_asked_for() {
    let words = "error error=ENOSPC error-rate=1 error-pread=EPERM error-trim-rate=0 \
                 error-cache=ESHUTDOWN error-zero=EINVAL error-extents=ENOMEM";
    let bench = Bench::new(&[words], numbered());
    assert_eq!(bench.read(0, 512), Err(Errno::EPERM));
    assert_eq!(bench.write(0, b"x"), Err(Errno::ENOSPC));
    assert_eq!(bench.plain(Op::WriteZeroes, 0, 512), Err(Errno::EINVAL));
    assert_eq!(bench.plain(Op::Cache, 0, 512), Err(Errno::ESHUTDOWN));
    assert_eq!(bench.plain(Op::Extents, 0, 512), Err(Errno::ENOMEM));
    bench.plain(Op::Discard, 0, 512).unwrap();
    bench.plain(Op::Flush, 0, 0).unwrap();
    assert_eq!(refused("error error=EFOO").kind(), ErrorKind::Config);
}

#[test]
fn failed_requests_never_reach_the_disk_and_say_who_failed_them() {
    let disk = numbered();
    let bench = Bench::new(&["error error-pwrite-rate=100%"], disk.clone());
    let before = disk.to_vec();
    let mut req = bench.sim.reactor().request(Op::Write, 0, 512);
    *req.data_mut() = block::Iov::of_chunk(bench.sim.reactor().chunk(512), 512).into();
    let done = bench.sim.block_on(bench.queue.call(req));
    let error = done.error().expect("it fails").to_string();
    assert_eq!(error, "error: injected error: Input/output error (EIO)");
    assert_eq!(disk.to_vec(), before);
}

#[test]
fn seeded_errors_repeat_and_have_the_rate_asked_for() {
    let run = |seed: &str| -> Vec<bool> {
        let bench = Bench::new(&[&format!("error error-rate=10% {seed}")], numbered());
        (0..2000).map(|_| bench.read(0, 512).is_err()).collect()
    };
    let first = run("error-seed=5");
    assert_eq!(first, run("error-seed=5"));
    assert_ne!(first, run("error-seed=6"));
    assert_ne!(run(""), run(""));
    let failed = first.iter().filter(|failed| **failed).count();
    assert!((140..260).contains(&failed), "{failed} of 2000 failed");
}

#[test]
fn a_file_starts_and_stops_errors() {
    let words = "error error-rate=1 error-file=/inject error-pwrite-file=/other";
    let bench = Bench::new(&[words], numbered());
    let set = |file, exists| {
        bench.host.set_file(file, exists);
        bench.sim.run_until_idle();
    };
    assert!(bench.read(0, 1).is_ok() && bench.write(0, b"x").is_ok());
    set("/inject", true);
    assert!(bench.read(0, 1).is_err() && bench.write(0, b"x").is_ok());
    set("/other", true);
    assert!(bench.read(0, 1).is_err() && bench.write(0, b"x").is_err());
    set("/inject", false);
    assert!(bench.read(0, 1).is_ok() && bench.write(0, b"x").is_err());
}
