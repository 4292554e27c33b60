//! Copies between simulated disks.

use std::{sync::Arc, time::Duration};

use block::{Device, Normalize, Op};
use testkit::{Faults, FlushFault, Rng, SimDisk, SimDiskOptions, SimLoop};

use super::*;

/// Data, zeroes that are data, and holes, in random places.
fn fill(disk: &SimDisk, size: u64, rng: &mut Rng) {
    let mut at = 0;
    while at < size {
        let len = (1 + rng.below(200_000)).min(size - at);
        let mut bytes = vec![0; len as usize];
        match rng.below(3) {
            0 => {}
            1 => disk.preset(at, &bytes),
            _ => {
                rng.fill(&mut bytes);
                let hole = rng.index(bytes.len());
                let end = bytes.len().min(hole + 10_000);
                bytes[hole..end].fill(0);
                disk.preset(at, &bytes);
            }
        }
        at += len;
    }
}

fn disk(size: u64, rng: &mut Rng, faults: Faults) -> Arc<SimDisk> {
    let mut options = SimDiskOptions::new(size, rng.next_u64());
    options.faults = faults;
    let blocks = [1, 512, 4096];
    options.limits.min_block = *rng.pick(&blocks);
    options.limits.preferred_block = 4096;
    SimDisk::new(options)
}

fn options(rng: &mut Rng) -> CopyOptions {
    CopyOptions {
        request_size: 4096 << rng.below(7),
        requests: 1 + rng.index(20),
        sparse: [None, Some(512), Some(4096), Some(65536)][rng.index(4)],
        allocated: rng.chance(1, 3),
        destination_is_zero: false,
        extents: rng.chance(2, 3),
        flush: rng.chance(1, 2),
    }
}

fn run(
    made: &SimLoop,
    from: &Arc<SimDisk>,
    to: &Arc<SimDisk>,
    options: CopyOptions,
) -> (Result<Copied>, u64) {
    let [from, to] = [from, to].map(|disk| Normalize::wrap(disk.clone() as Arc<dyn Device>));
    let copy = Copy::start(made.reactor(), &from, Some(&to), options).expect("starts");
    let copied = made.block_on(copy.finish());
    (copied, copy.complete_up_to())
}

#[test]
fn all_of_it_arrives() {
    for seed in 0..60 {
        let made = SimLoop::new(seed);
        let mut rng = Rng::new(seed);
        let size = (1 + rng.below(500)) * 4096;
        let from = disk(size, &mut rng, Faults::default());
        let to = disk(size + 8192, &mut rng, Faults::default());
        fill(&from, size, &mut rng);
        // Old bytes everywhere.
        to.preset(0, &vec![0xee; size as usize + 8192]);
        let options = options(&mut rng);
        let (copied, complete) = run(&made, &from, &to, options.clone());
        let copied = copied.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(complete, size);
        assert_eq!(
            copied.written + copied.zeroed,
            size,
            "seed {seed}: {options:?}"
        );
        let image = to.image();
        assert!(
            image[..size as usize] == from.image(),
            "seed {seed}: {options:?}"
        );
        assert!(
            image[size as usize..].iter().all(|byte| *byte == 0xee),
            "seed {seed}"
        );
        if options.flush {
            assert!(
                to.durable_image()[..size as usize] == from.image(),
                "seed {seed}"
            );
        }
        assert_eq!(made.reactor().requests_live(), 0);
    }
}

#[test]
fn what_is_known_to_be_zero_is_neither_read_nor_written() {
    let made = SimLoop::new(1);
    let (from, to) = (SimDisk::plain(1 << 30), SimDisk::plain(1 << 30));
    from.preset(512 << 20, &[7; 1 << 20]);
    let options = CopyOptions {
        destination_is_zero: true,
        ..CopyOptions::default()
    };
    let copied = run(&made, &from, &to, options).0.expect("copies");
    let expected = Copied {
        read: 1 << 20,
        written: 1 << 20,
        zeroed: 0,
        skipped: (1 << 30) - (1 << 20),
    };
    assert_eq!(copied, expected);
    assert_eq!((to.count(Op::WriteZeroes), to.count(Op::Write)), (0, 4));
    let copied = run(&made, &from, &to, CopyOptions::default())
        .0
        .expect("copies");
    assert_eq!(copied.zeroed, (1 << 30) - (1 << 20));
    // In steps of 128 MiB, on both sides of the data.
    assert_eq!(to.count(Op::WriteZeroes), 8);
}

#[test]
fn failures_are_told_and_what_is_complete_is() {
    let mut failed = 0;
    for seed in 0..60 {
        let made = SimLoop::new(seed);
        let mut rng = Rng::new(seed);
        let size = 100 * 4096;
        let faults = Faults {
            errors: 30,
            flush: FlushFault::After(0),
            ..Faults::default()
        };
        let (bad, good) = (faults, Faults::default());
        let (f, t) = if seed % 2 == 0 {
            (bad, good)
        } else {
            (good, bad)
        };
        let (from, to) = (disk(size, &mut rng, f), disk(size, &mut rng, t));
        fill(&from, size, &mut rng);
        to.preset(0, &vec![0xee; size as usize]);
        let options = options(&mut rng);
        let flushed = options.flush && seed % 2 == 1;
        let (copied, complete) = run(&made, &from, &to, options);
        let complete = complete as usize;
        assert!(
            to.image()[..complete] == from.image()[..complete],
            "seed {seed}"
        );
        match copied {
            Ok(_) => assert!(complete as u64 == size && !flushed, "seed {seed}"),
            Err(error) => {
                failed += 1;
                assert!(error.to_string().contains("failed: "), "{error}");
            }
        }
        assert_eq!(made.reactor().requests_live(), 0);
    }
    assert!(failed > 20, "{failed}");
}

#[test]
fn a_copy_can_be_stopped() {
    let made = SimLoop::new(3);
    let (from, to) = (SimDisk::plain(1 << 20), SimDisk::plain(1 << 20));
    from.preset(0, &[7; 1 << 20]);
    let [from, to] = [from, to].map(|disk| disk as Arc<dyn Device>);
    let options = CopyOptions {
        request_size: 4096,
        requests: 2,
        ..CopyOptions::default()
    };
    let copy = Copy::start(made.reactor(), &from, Some(&to), options).expect("starts");
    copy.stop();
    let error = made.block_on(copy.finish()).expect_err("was stopped");
    assert_eq!(error.kind(), ErrorKind::Gone);
    let (done, size) = copy.progress();
    assert!(done < size);
    made.block_on(made.reactor().sleep(Duration::from_secs(1)));
    assert_eq!(copy.progress(), (done, size), "nothing goes on");
}

#[test]
fn a_destination_that_is_too_small_is_refused() {
    let made = SimLoop::new(4);
    let [from, to] = [4096, 512].map(|size| SimDisk::plain(size) as Arc<dyn Device>);
    let refused = Copy::start(made.reactor(), &from, Some(&to), CopyOptions::default());
    let Err(error) = refused else {
        panic!("it does not fit")
    };
    let text = "destination size (512) is smaller than source size (4096)";
    assert_eq!(error.to_string(), text);
}
