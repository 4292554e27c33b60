//! A small random number generator: reproducible if seeded, good enough to pick requests.

use std::{
    cell::Cell,
    hash::{BuildHasher, RandomState},
};

/// SplitMix64 (Steele, Lea, Flood 2014): one multiplication chain, any seed is a good one.
pub(crate) struct Rng(Cell<u64>);

impl Rng {
    /// The stream number `stream` of a seed.
    pub fn new(seed: u64, stream: u64) -> Rng {
        Rng(Cell::new(mix(seed ^ mix(stream))))
    }

    /// A seed that nobody can foresee.
    pub fn any_seed() -> u64 {
        // The standard library seeds its hash tables from the system's random numbers.
        RandomState::new().hash_one(0_u64)
    }

    /// True with this probability; always if it is 1 or more, never if it is 0.
    pub fn chance(&self, probability: f64) -> bool {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        // 53 bits, which a double holds exactly: 0 <= x < 1.
        ((mix(state) >> 11) as f64) < probability * (1_u64 << 53) as f64
    }
}

fn mix(state: u64) -> u64 {
    let x = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_come_true_as_often_as_they_say() {
        let rng = Rng::new(7, 0);
        let hits = |p: f64| (0..100_000).filter(|_| rng.chance(p)).count();
        assert_eq!((hits(0.0), hits(1.0), hits(2.5)), (0, 100_000, 100_000));
        assert!((9_000..11_000).contains(&hits(0.1)));
    }

    #[test]
    fn streams_differ_and_seeds_repeat() {
        let bits = |seed, stream| {
            let rng = Rng::new(seed, stream);
            (0..64).fold(0_u64, |bits, _| (bits << 1) | u64::from(rng.chance(0.5)))
        };
        assert_eq!(bits(1, 2), bits(1, 2));
        assert_ne!(bits(1, 2), bits(1, 3));
        assert_ne!(bits(1, 2), bits(2, 2));
        assert_ne!(Rng::any_seed(), Rng::any_seed());
    }
}
