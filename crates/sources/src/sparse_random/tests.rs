//! What a client sees: bytes, extents, verified writes, and mistakes.

use super::*;
use crate::testing::Bench;
use block::{Errno, Flags};
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

fn sparse(words: &[&str]) -> Bench {
    let args: Vec<Arg> = words.iter().map(|word| Arg::parse(word)).collect();
    Bench::open(make(&args).unwrap())
}

/// All extents, as (length, is data).
fn map(bench: &Bench, size: u64) -> Vec<(u64, bool)> {
    let (mut at, mut found) = (0, Vec::<(u64, bool)>::new());
    while at < size {
        let list = bench.extents(at, size - at).unwrap();
        assert!(list.covered() > 0 && list.covered() <= size - at);
        for extent in list.allocation() {
            let data = extent.flags == ExtentFlags::DATA.0;
            assert!(data || extent.flags == ExtentFlags::HOLE_ZERO.0);
            match found.last_mut() {
                Some(last) if last.1 == data => last.0 += extent.len,
                _ => found.push((extent.len, data)),
            }
        }
        at += list.covered();
    }
    found
}

/// Every block is what the extents say of it: a hole is zero, a block of data is not.
fn assert_map_agrees(bench: &Bench, size: u64, block: u64) {
    let mut at = 0;
    for (len, data) in map(bench, size) {
        assert!(at % block == 0, "a run starts within a block");
        let bytes = bench.read(at, len as usize).unwrap();
        for block in bytes.chunks(block as usize) {
            assert_eq!(block.iter().any(|byte| *byte != 0), data, "at {at}+{len}");
        }
        at += len;
    }
    assert_eq!(at, size);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn extents_agree_with_contents(
        seed: u64,
        size in 1..3 * MIB,
        percent in 0..=100u32,
        length in 1..200_000u64,
        block in 9..14u32,
        random: bool,
    ) {
        let config = SparseRandomConfig {
            size: Size(size),
            seed: Some(seed),
            percent: Percent(percent.into()),
            runlength: Size(length),
            blocksize: Size(1 << block),
            random_content: random,
        };
        let bench = Bench::open(new(config.clone()).unwrap());
        assert_map_agrees(&bench, size, 1 << block);
        // Asked in pieces it is the same disk.
        let whole = bench.read(0, size as usize).unwrap();
        let other = Bench::open(new(config).unwrap());
        let at = size / 3;
        let len = (size - at).min(70_001);
        prop_assert!(other.read(at, len as usize).unwrap()[..] == whole[at as usize..][..len as usize]);
        other.write(at, &whole[at as usize..][..len as usize]).unwrap();
    }
}

#[test]
fn fraction_and_run_length_are_as_asked() {
    const SIZE: u64 = 64 << 30;
    let bench = sparse(&["64G", "seed=1", "percent=20", "runlength=1M"]);
    let runs = map(&bench, SIZE);
    let data: Vec<u64> = runs.iter().filter(|run| run.1).map(|run| run.0).collect();
    let part = data.iter().sum::<u64>() as f64 / SIZE as f64;
    let mean = data.iter().sum::<u64>() as f64 / data.len() as f64 / MIB as f64;
    // About 13,000 runs, so both are within a few percent.
    assert!((0.19..0.21).contains(&part), "{part}");
    assert!((0.95..1.05).contains(&mean), "{mean}");
}

#[test]
fn the_seed_is_the_disk() {
    let words = ["percent=50", "runlength=64k"];
    let of = |size: &str, seed: &str| sparse(&[&[size, seed][..], &words].concat());
    let (one, larger, other) = (of("8M", "seed=1"), of("1E", "seed=1"), of("8M", "seed=2"));
    let bytes = one.read(0, 4 << 20).unwrap();
    assert!(larger.read(0, 4 << 20).unwrap() == bytes);
    assert!(other.read(0, 4 << 20).unwrap() != bytes);
    let ends = larger.extents((1 << 60) - 5 * MIB, 5 * MIB).unwrap();
    assert_eq!(ends.covered(), 5 * MIB);
    larger.read((1 << 60) - MIB, 1 << 20).unwrap();
    let fresh = || sparse(&["1G", "percent=100"]).read(0, 1 << 20).unwrap();
    assert!(fresh() != fresh(), "no seed is another one each time");
}

#[test]
fn all_data_and_all_hole() {
    for (percent, data) in [("percent=0", false), ("percent=100%", true)] {
        let bench = sparse(&["9223372036854775807", percent, "seed=3"]);
        let size = bench.limits().size;
        assert_eq!(map(&bench, size), [(size, data)]);
        let last = bench.read(size - 100, 100).unwrap();
        assert_eq!(last.iter().all(|byte| *byte == 0), !data);
    }
}

#[test]
fn blocks_repeat_one_byte_unless_told_otherwise() {
    let words = ["1M", "percent=100", "seed=1"];
    let plain = sparse(&words).read(0, 1 << 20).unwrap();
    for block in plain.chunks(4096) {
        assert!(block[0] != 0 && block.iter().all(|byte| *byte == block[0]));
    }
    let random = sparse(&[&words[..], &["random-content=true"]].concat());
    let random = random.read(0, 1 << 20).unwrap();
    let zeroes = random.iter().filter(|byte| **byte == 0).count();
    // 4096 expected; eight standard deviations either way.
    assert!((3584..4608).contains(&zeroes), "{zeroes}");
}

#[test]
fn writes_are_verified() {
    let bench = sparse(&["64M", "percent=50", "runlength=256k", "seed=5"]);
    let limits = bench.limits();
    assert_eq!(
        (limits.preferred_block, limits.fua),
        (4096, Support::Native)
    );
    // Long ones too, which are compared on another thread.
    for len in [5000, 4 << 20] {
        let bytes = bench.read(1001, len).unwrap();
        bench.write_flagged(1001, &bytes, Flags::FUA).unwrap();
        for wrong in [0, len / 2, len - 1] {
            let mut bytes = bytes.clone();
            bytes[wrong] ^= 1;
            let error = bench.write(1001, &bytes).unwrap_err();
            assert_eq!(error, Errno::EIO);
            let place = format!("offset {}", 1001 + wrong);
            assert!(error.to_string().contains(&place), "{error}");
        }
    }
    let (mut at, mut seen) = (0, [0; 2]);
    for (len, data) in map(&bench, 64 * MIB) {
        for op in [Op::WriteZeroes, Op::Discard] {
            let outcome = bench.plain(op, at, len);
            assert_eq!(outcome.is_err(), data, "{op} {at}+{len}");
        }
        seen[usize::from(data)] += 1;
        at += len;
    }
    assert!(seen[0] > 10 && seen[1] > 10, "{seen:?}");
    bench.plain(Op::Flush, 0, 0).unwrap();
}

#[test]
fn answers_about_extents_are_bounded() {
    let bench = sparse(&["1G", "percent=50", "runlength=4k", "seed=1"]);
    let list = bench.extents(0, 1 << 30).unwrap();
    assert_eq!(list.allocation().len(), MOST_EXTENTS);
    let one = bench.extents_flagged(5, 1 << 29, Flags::REQ_ONE).unwrap();
    assert_eq!(one.allocation().len(), 1);
    assert_eq!(one.allocation()[0].len, list.allocation()[0].len - 5);
}

#[test]
fn wrong_words_are_refused() {
    for (word, start) in [
        ("percent=101", "percent=101: out of range (0 to 100)"),
        ("percent=-1", "percent=-1: out of range (0 to 100)"),
        ("percent=x", "percent=x: not a number"),
        ("percent=nan", "percent=nan: not a finite number"),
        ("runlength=0", "runlength=0: must be more than 0"),
        ("blocksize=4000", "blocksize=4000: must be a power of two"),
        ("blocksize=256", "blocksize=256: must be a power of two"),
        ("blocksize=64M", "blocksize=67108864: must be a power of"),
        (
            "random-content=2",
            "random-content=2: neither true nor false",
        ),
    ] {
        let error = make(&[Arg::parse("1M"), Arg::parse(word)])
            .err()
            .expect("must be refused")
            .chain();
        assert!(
            error.starts_with(&format!("sparse-random: {start}")),
            "{error}"
        );
    }
}
