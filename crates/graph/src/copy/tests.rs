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
    let request_size = 4096 << rng.below(7);
    CopyOptions {
        request_size,
        largest_request: request_size << rng.below(3),
        requests: 1 + rng.index(20),
        ahead: 4096 << rng.below(10),
        queue_size: 16 << 20,
        sparse: [None, Some(512), Some(4096), Some(65536)][rng.index(4)],
        allocated: rng.chance(1, 3),
        destination_is_zero: false,
        extents: rng.chance(2, 3),
        flush: rng.chance(1, 2),
        ..CopyOptions::default()
    }
}

fn ends<'a>(source: &'a Arc<dyn Device>, destination: &'a Arc<dyn Device>) -> Ends<'a> {
    Ends {
        source,
        destination: Some(destination),
        check: None,
    }
}

fn run(
    made: &SimLoop,
    from: &Arc<SimDisk>,
    to: &Arc<SimDisk>,
    options: CopyOptions,
) -> (Result<Copied>, u64) {
    let [from, to] = [from, to].map(|disk| Normalize::wrap(disk.clone() as Arc<dyn Device>));
    let copy = Copy::start(made.reactor(), ends(&from, &to), options).expect("starts");
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
    let copy = Copy::start(made.reactor(), ends(&from, &to), options).expect("starts");
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
    let refused = Copy::start(made.reactor(), ends(&from, &to), CopyOptions::default());
    let Err(error) = refused else {
        panic!("it does not fit")
    };
    let text = "destination size (512) is smaller than source size (4096)";
    assert_eq!(error.to_string(), text);
}

#[test]
fn a_cut_short_copy_goes_on_where_it_was() {
    for seed in 0..40 {
        let made = SimLoop::new(seed);
        let mut rng = Rng::new(seed);
        let size = (100 + rng.below(200)) * 4096;
        let [from, to] = [(); 2].map(|()| disk(size, &mut rng, Faults::default()));
        fill(&from, size, &mut rng);
        to.preset(0, &vec![0xee; size as usize]);
        let mut done = Vec::new();
        let mut read = 0;
        for round in 0.. {
            let (source, target) = (from.clone() as Arc<dyn Device>, to.clone());
            let [source, target] = [source, target].map(Normalize::wrap);
            let options = CopyOptions {
                requests: 1 + rng.index(8),
                request_size: 4096 << rng.below(3),
                done: done.clone(),
                ..options(&mut rng)
            };
            let copy =
                Copy::start(made.reactor(), ends(&source, &target), options).expect("starts");
            // The power fails some time later, unless it has been tried often enough.
            let cut = Duration::from_micros(if round < 5 {
                rng.below(3000)
            } else {
                10_000_000
            });
            let copied = made.block_on(async {
                let mut finish = std::pin::pin!(copy.finish());
                let mut pause = std::pin::pin!(made.reactor().sleep(cut));
                std::future::poll_fn(|cx| {
                    if let Poll::Ready(copied) = finish.as_mut().poll(cx) {
                        return Poll::Ready(Some(copied));
                    }
                    pause.as_mut().poll(cx).map(|()| None)
                })
                .await
            });
            if let Some(copied) = copied {
                read += copied
                    .unwrap_or_else(|error| panic!("seed {seed}: {error}"))
                    .read;
                break;
            }
            done = made.block_on(copy.settle()).expect("settles");
            read += copy.0.copied.get().read;
            // What comes behind is lost, or not.
            copy.stop();
            to.crash();
            let _ = made.block_on(copy.finish());
        }
        assert!(to.image() == from.image(), "seed {seed}");
        assert!(read <= 2 * size, "seed {seed}: {read} of {size}");
    }
}

#[test]
fn a_destination_that_lies_is_found_out() {
    for seed in 0..40 {
        let made = SimLoop::new(seed);
        let mut rng = Rng::new(seed);
        let size = 200 * 4096;
        let [from, to, other] = [(); 3].map(|()| disk(size, &mut rng, Faults::default()));
        fill(&from, size, &mut rng);
        let mut bytes = from.image();
        let wrong = rng.index(bytes.len());
        bytes[wrong] ^= 1 << rng.below(8);
        // Reads show something else than what was written.
        other.preset(0, &bytes);
        let [from, to, other] =
            [from, to, other].map(|disk| Normalize::wrap(disk as Arc<dyn Device>));
        let start = |check| {
            let ends = Ends {
                check: Some(check),
                ..ends(&from, &to)
            };
            Copy::start(made.reactor(), ends, options(&mut Rng::new(seed))).expect("starts")
        };
        let honest = start(&to);
        made.block_on(honest.finish()).expect("it is all there");
        let lying = start(&other);
        let error = made.block_on(lying.finish()).expect_err("a byte is wrong");
        let text = format!("verification failed: the destination differs at offset {wrong}");
        assert_eq!(error.to_string(), text, "seed {seed}");
        assert!(lying.complete_up_to() <= wrong as u64);
    }
}

#[test]
fn the_rate_is_kept() {
    let made = SimLoop::new(5);
    let (from, to) = (SimDisk::plain(8 << 20), SimDisk::plain(8 << 20));
    from.preset(0, &vec![7; 4 << 20]);
    let options = CopyOptions {
        rate: Some(1 << 20),
        ..CopyOptions::default()
    };
    let before = made.reactor().now();
    run(&made, &from, &to, options).0.expect("copies");
    let took = made.reactor().now().since(before);
    // Four seconds for the data, and none for the hole behind it.
    let expected = Duration::from_millis(3800)..Duration::from_millis(4300);
    assert!(expected.contains(&took), "{took:?}");
    assert!(to.image() == from.image());
}

#[test]
fn what_fails_is_tried_again() {
    let mut asked_again = 0;
    for seed in 0..30 {
        let made = SimLoop::new(seed);
        let mut rng = Rng::new(seed);
        let size = 100 * 4096;
        let faults = Faults {
            errors: 5,
            ..Faults::default()
        };
        let [from, to] = [(); 2].map(|()| disk(size, &mut rng, faults));
        fill(&from, size, &mut rng);
        let options = CopyOptions {
            retries: 50,
            flush: false,
            ..options(&mut rng)
        };
        let before = made.reactor().now();
        run(&made, &from, &to, options)
            .0
            .expect("copies in the end");
        assert!(to.image() == from.image(), "seed {seed}");
        asked_again += u32::from(made.reactor().now().since(before) >= Duration::from_secs(1));
    }
    assert!(asked_again > 20, "{asked_again}");
}

#[test]
fn the_hash_is_that_of_the_source_however_it_comes() {
    for seed in 0..30 {
        let made = SimLoop::new(seed);
        let mut rng = Rng::new(seed);
        let size = (1 + rng.below(300)) * 4096;
        let [from, to] = [(); 2].map(|()| disk(size, &mut rng, Faults::default()));
        fill(&from, size, &mut rng);
        let hash = BlkHash {
            digest: Digest::Sha256,
            block: *rng.pick(&[1 << 10, 1 << 16, 1 << 20, 1 << 26]),
        };
        let options = CopyOptions {
            blkhash: Some(hash),
            ..options(&mut rng)
        };
        let wrapped = [&from, &to].map(|disk| Normalize::wrap(disk.clone() as Arc<dyn Device>));
        let copy = Copy::start(made.reactor(), ends(&wrapped[0], &wrapped[1]), options);
        let copy = copy.expect("starts");
        made.block_on(copy.finish()).expect("copies");
        assert!(to.image() == from.image(), "seed {seed}");
        let sum = copy.blkhash().expect("is complete").expect("was asked for");
        assert_eq!(
            sum,
            plainly(hash.block, &from.image()),
            "seed {seed}: {hash:?}"
        );
    }
}

/// The same, written down as it is defined.
fn plainly(block: u64, bytes: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};
    let mut outer = Sha256::new();
    bytes
        .chunks(block as usize)
        .for_each(|block| outer.update(Sha256::digest(block)));
    outer.update((bytes.len() as u64).to_le_bytes());
    let sum = outer.finalize();
    sum.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_far_source_is_not_waited_for() {
    let made = SimLoop::new(6);
    let mut far = SimDiskOptions::new(64 << 20, 6);
    far.delay = Duration::from_millis(40);
    let (from, to) = (SimDisk::new(far), SimDisk::plain(64 << 20));
    from.preset(0, &vec![7; 32 << 20]);
    let options = CopyOptions {
        ahead: 4 << 20,
        queue_size: 64 << 20,
        largest_request: 2 << 20,
        ..CopyOptions::default()
    };
    let before = made.reactor().now();
    run(&made, &from, &to, options).0.expect("copies");
    let took = made.reactor().now().since(before);
    assert!(to.image() == from.image());
    // Eight rounds of 4 MiB, one after the other, and the question before them, would be 360 ms.
    assert!(took < Duration::from_millis(260), "{took:?}");
}
