//! Seeded random numbers: one seed is one world.
//!
//! xoshiro256** (Blackman and Vigna, 2018), seeded by splitmix64. Our own, because a dependency's
//! next release could give the same seed another sequence, and kept seeds would mean nothing.

use std::{ops::Range, time::Duration};

/// A small generator of pseudo-random numbers. Not for secrets.
#[derive(Clone, Debug)]
pub struct Rng([u64; 4]);

/// One step of splitmix64: also a good hash of a word.
pub fn mix(word: u64) -> u64 {
    let mut z = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Rng {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Rng {
        let mut state = [0; 4];
        let mut word = seed;
        for part in &mut state {
            *part = mix(word);
            word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
        }
        Rng(state)
    }

    /// A generator of its own, seeded by this one.
    pub fn fork(&mut self) -> Rng {
        Rng::new(self.next_u64())
    }

    /// Sixty-four random bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.0;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= t;
        *d = d.rotate_left(45);
        result
    }

    /// A number below `n`, or 0 if `n` is 0.
    #[inline]
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }

    /// An index below `n`, or 0 if `n` is 0.
    #[inline]
    pub fn index(&mut self, n: usize) -> usize {
        self.below(n as u64) as usize
    }

    /// A number of the range, or its start if it is empty.
    pub fn range(&mut self, range: Range<u64>) -> u64 {
        range.start + self.below(range.end.saturating_sub(range.start))
    }

    /// True `n` times in `of`.
    #[inline]
    pub fn chance(&mut self, n: u64, of: u64) -> bool {
        self.below(of) < n
    }

    /// One of the items. Panics if there is none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.index(items.len())]
    }

    /// A time below `most`, in nanoseconds.
    pub fn delay(&mut self, most: Duration) -> Duration {
        Duration::from_nanos(self.below(u64::try_from(most.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Random bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            let word = self.next_u64().to_le_bytes();
            part.copy_from_slice(&word[..part.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_sequence() {
        let (mut a, mut b) = (Rng::new(7), Rng::new(7));
        let first: Vec<_> = (0..9).map(|_| a.next_u64()).collect();
        assert_eq!(first, (0..9).map(|_| b.next_u64()).collect::<Vec<_>>());
        assert_ne!(first[0], Rng::new(8).next_u64());
        // Kept seeds must mean the same tomorrow.
        assert_eq!(Rng::new(0).next_u64(), 0x99ec_5f36_cb75_f2b4);
    }

    #[test]
    fn numbers_stay_in_their_bounds() {
        let mut rng = Rng::new(1);
        let mut seen = [0u32; 6];
        for _ in 0..600 {
            seen[rng.index(6)] += 1;
            assert!((3..9).contains(&rng.range(3..9)));
        }
        assert!(seen.iter().all(|&n| n > 50), "{seen:?}");
        assert_eq!((rng.below(0), rng.range(4..4)), (0, 4));
        assert!(!rng.chance(0, 5) && rng.chance(5, 5));
        let mut bytes = [0; 13];
        rng.fill(&mut bytes);
        assert_ne!(bytes, [0; 13]);
    }
}
