//! Bytes that look random and are the same every time: for benchmarks and copies that compression or
//! sparse detection must not make easy.
//!
//! Word `n` of the disk is the `n`-th output of a SplitMix64 generator that starts at the seed, so
//! any place can be computed without the places before it.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use block::{Limits, Op, OpSet, Result, Source};
use config::{Arg, Config, Size};

use crate::{
    generated::{self, Content},
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
    // The hasher's keys come from the system's random numbers.
    let seed = config
        .seed
        .unwrap_or_else(|| RandomState::new().hash_one(config.size.0));
    Ok(generated::source("random", limits, Random { seed }))
}

pub(crate) fn make(args: &[Arg]) -> Result<Arc<dyn Source>> {
    new(registry::parse(args)?)
}

struct Random {
    seed: u64,
}

impl Content for Random {
    #[inline]
    fn word(&self, index: u64) -> [u8; 8] {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.seed.wrapping_add((index + 1).wrapping_mul(GOLDEN));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;
    use block::Errno;

    fn bench(seed: Option<u64>) -> Bench {
        let size = Size(1 << 40);
        Bench::open(new(RandomConfig { size, seed }).unwrap())
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
        let mut counts = [0u32; 256];
        for byte in bench(Some(1)).read(0, 1 << 20).unwrap() {
            counts[usize::from(byte)] += 1;
        }
        // 4096 expected each; eight standard deviations either way.
        assert!(
            counts.iter().all(|n| (3584..4608).contains(n)),
            "{counts:?}"
        );
    }

    #[test]
    fn writes_are_verified() {
        let bench = bench(Some(3));
        let mut bytes = bench.read(77, 3 << 20).unwrap();
        bench.write(77, &bytes).unwrap();
        bytes[(3 << 20) - 1] ^= 0x80;
        assert_eq!(bench.write(77, &bytes).unwrap_err(), Errno::EIO);
        assert_eq!(
            bench.plain(Op::WriteZeroes, 0, 4096).unwrap_err(),
            Errno::EIO
        );
        bench.plain(Op::Discard, 0, 4096).unwrap();
    }
}
