//! Bytes that look random and are the same every time: for benchmarks and copies that compression or
//! sparse detection must not make easy.
//!
//! Word `n` of the disk is the `n`-th output of a SplitMix64 generator that starts at the seed, so
//! any place can be computed without the places before it. With `fast`, 512 such bytes repeat all
//! over the disk, each time XORed with a number of their own.
//!
//! A seed gives other bytes than it gives in nbdkit, whose generator is documented nowhere. Repeatable
//! is what matters: the bytes of a seed never change between versions of blkit.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use block::{Limits, Op, OpSet, Result, Source};
use config::{Arg, Config, Size};

use crate::{
    generated::{self, Content, fill_words},
    registry,
};

/// A disk of repeatable random bytes.
///
/// The same seed and size always give the same bytes. A write must carry the bytes that are there
/// already; any other fails with EIO, so a copy to this disk is checked while it is made. The bytes
/// are no good for cryptography.
#[derive(Config, Debug, Clone, PartialEq, Eq)]
pub struct RandomConfig {
    /// Size of the disk.
    #[config(magic)]
    pub size: Size,
    /// Which bytes: another seed gives other bytes. Picked at random if not given.
    pub seed: Option<u64>,
    /// Repeat one random sector all over the disk, with small variations.
    ///
    /// Takes less computing, and is random enough for most tests.
    #[config(default = "false")]
    pub fast: bool,
}

/// The source.
///
/// # Errors
/// None: the signature is that of every source.
pub fn new(config: RandomConfig) -> Result<Arc<dyn Source>> {
    let ops = [
        Op::Read,
        Op::Write,
        Op::WriteZeroes,
        Op::Discard,
        Op::Cache,
        Op::Extents,
    ];
    let limits = Limits::new(config.size.0, OpSet::of(&ops));
    let seed = config.seed.unwrap_or_else(fresh_seed);
    Ok(match config.fast {
        false => generated::source("random", limits, Random { seed }),
        true => {
            let sector = std::array::from_fn(|index| splitmix(seed, index as u64));
            generated::source("random", limits, Repeated { sector })
        }
    })
}

pub(crate) fn make(args: &[Arg]) -> Result<Arc<dyn Source>> {
    new(registry::parse(args)?)
}

/// A seed that is another one every time.
pub(crate) fn fresh_seed() -> u64 {
    // The hasher's keys come from the system's random numbers.
    RandomState::new().hash_one(0)
}

/// The increment of SplitMix64: odd, so that its multiples are all different.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output of number `index`, from 0, of a SplitMix64 generator that starts at `seed`.
#[inline]
pub(crate) fn splitmix(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(GOLDEN));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

struct Random {
    seed: u64,
}

impl Content for Random {
    fn fill(&self, offset: u64, bytes: &mut [u8]) {
        fill_words(offset, bytes, |index| {
            splitmix(self.seed, index).to_le_bytes()
        });
    }
}

/// Words of a sector.
const WORDS: usize = 64;

struct Repeated {
    sector: [u64; WORDS],
}

impl Content for Repeated {
    fn fill(&self, offset: u64, bytes: &mut [u8]) {
        fill_words(offset, bytes, |index| {
            let variation = (index / WORDS as u64).wrapping_mul(GOLDEN);
            (self.sector[index as usize % WORDS] ^ variation).to_le_bytes()
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::testing::Bench;
    use block::Errno;

    fn make_bench(seed: Option<u64>, fast: bool) -> Bench {
        let size = Size(1 << 40);
        Bench::open(new(RandomConfig { size, seed, fast }).unwrap())
    }

    fn bench(seed: Option<u64>) -> Bench {
        make_bench(seed, false)
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let (one, two, other) = (bench(Some(7)), bench(Some(7)), bench(Some(8)));
        let bytes = one.read(1001, 5000).unwrap();
        assert_eq!(two.read(1001, 5000).unwrap(), bytes);
        assert_eq!(two.read(2000, 10).unwrap(), bytes[999..1009]);
        assert_ne!(other.read(1001, 5000).unwrap(), bytes);
        assert_ne!(
            bench(None).read(0, 64).unwrap(),
            bench(None).read(0, 64).unwrap()
        );
        // The published first output of SplitMix64 for seed 1234567.
        assert_eq!(
            bench(Some(1_234_567)).read(0, 8).unwrap(),
            6_457_827_717_110_365_317_u64.to_le_bytes()
        );
    }

    #[test]
    fn bytes_are_spread_evenly() {
        for fast in [false, true] {
            let mut counts = [0u32; 256];
            for byte in make_bench(Some(1), fast).read(0, 1 << 20).unwrap() {
                counts[usize::from(byte)] += 1;
            }
            // 4096 expected each; eight standard deviations either way.
            assert!(
                counts.iter().all(|n| (3584..4608).contains(n)),
                "fast={fast}: {counts:?}"
            );
        }
    }

    #[test]
    fn fast_sectors_are_alike_and_all_different() {
        let (one, two) = (make_bench(Some(5), true), make_bench(Some(5), true));
        let bytes = one.read(0, 1 << 20).unwrap();
        assert_eq!(two.read(1001, 5000).unwrap(), bytes[1001..6001]);
        assert_eq!(bytes[..512], bench(Some(5)).read(0, 512).unwrap());
        let sectors: HashSet<&[u8]> = bytes.chunks(512).collect();
        assert_eq!(sectors.len(), 2048);
        for sector in bytes.chunks(512) {
            let varied: HashSet<Vec<u8>> = (sector.chunks(8).zip(bytes.chunks(8)))
                .map(|(word, first)| word.iter().zip(first).map(|(a, b)| a ^ b).collect())
                .collect();
            assert_eq!(varied.len(), 1, "one variation per sector");
        }
    }

    #[test]
    fn writes_are_verified() {
        for fast in [false, true] {
            let bench = make_bench(Some(3), fast);
            let mut bytes = bench.read(77, 3 << 20).unwrap();
            bench.write(77, &bytes).unwrap();
            bytes[(3 << 20) - 1] ^= 0x80;
            assert_eq!(bench.write(77, &bytes).unwrap_err(), Errno::EIO);
            for op in [Op::WriteZeroes, Op::Discard] {
                assert_eq!(bench.plain(op, 0, 4096).unwrap_err(), Errno::EIO);
            }
        }
    }

    #[test]
    fn wrong_words_are_refused() {
        for (word, start) in [
            ("seed=x", "random: seed=x: not a number"),
            ("seed=-1", "random: seed=-1: a negative number"),
            ("fast=quick", "random: fast=quick: neither true nor false"),
        ] {
            let error = make(&[Arg::parse("1M"), Arg::parse(word)])
                .err()
                .expect("refused")
                .chain();
            assert!(error.starts_with(start), "{error}");
        }
    }
}
