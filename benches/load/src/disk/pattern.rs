//! Which blocks are asked for, and what is in them when that is checked.

/// Reads, writes, or both in turns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mix {
    Read,
    Write,
    Mixed,
}

/// The requests of one lane, one after the other.
pub(super) struct Pattern {
    pub(super) mix: Mix,
    pub(super) random: bool,
    /// Bytes of a block.
    pub(super) block: u64,
    pub(super) blocks: u64,
    /// The next block, in sequence.
    pub(super) next: u64,
    /// Not 0.
    pub(super) state: u64,
}

impl Pattern {
    /// Whether the next request writes, and its offset.
    pub(super) fn next(&mut self) -> (bool, u64) {
        // xorshift64*: Marsaglia's shifts and Vigna's multiplier.
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let random = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d);
        let block = if self.random {
            ((u128::from(random) * u128::from(self.blocks)) >> 64) as u64
        } else {
            let next = self.next;
            self.next = (next + 1) % self.blocks;
            next
        };
        let write = match self.mix {
            Mix::Read => false,
            Mix::Write => true,
            Mix::Mixed => random & 1 == 1,
        };
        (write, block * self.block)
    }
}

/// Bytes that tell the place they belong to: every 16 of them say seed and offset.
pub(super) struct Stamp {
    seed: u64,
    wanted: Vec<u8>,
    got: Vec<u8>,
}

impl Stamp {
    pub(super) fn new(seed: u64, block: usize) -> Stamp {
        Stamp {
            seed,
            wanted: vec![0; block],
            got: vec![0; block],
        }
    }

    /// The bytes of the block at an offset.
    pub(super) fn of(&mut self, offset: u64) -> &[u8] {
        for (n, piece) in self.wanted.chunks_exact_mut(16).enumerate() {
            let at = offset + 16 * n as u64;
            let word = u128::from(at) | u128::from(self.seed ^ at.rotate_left(32)) << 64;
            piece.copy_from_slice(&word.to_le_bytes());
        }
        &self.wanted
    }

    /// Whether what `copy` gives is the block at an offset.
    pub(super) fn is_in(&mut self, offset: u64, copy: impl FnOnce(&mut [u8])) -> bool {
        copy(&mut self.got);
        self.of(offset);
        self.got == self.wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(random: bool, mix: Mix) -> Pattern {
        Pattern {
            mix,
            random,
            block: 4096,
            blocks: 10,
            next: 8,
            state: 77,
        }
    }

    #[test]
    fn sequences_go_round() {
        let mut pattern = pattern(false, Mix::Write);
        let places: Vec<u64> = (0..4).map(|_| pattern.next().1 / 4096).collect();
        assert_eq!(places, [8, 9, 0, 1]);
    }

    #[test]
    fn random_places_are_all_over_the_disk() {
        let mut pattern = pattern(true, Mix::Mixed);
        let (mut seen, mut writes) = ([0; 10], 0);
        for _ in 0..1000 {
            let (write, offset) = pattern.next();
            seen[(offset / 4096) as usize] += 1;
            writes += u32::from(write);
        }
        assert!(seen.iter().all(|count| *count > 50), "{seen:?}");
        assert!((400..600).contains(&writes), "{writes}");
    }

    #[test]
    fn a_block_of_another_place_is_noticed() {
        let mut stamp = Stamp::new(5, 64);
        let right = stamp.of(128).to_vec();
        assert!(stamp.is_in(128, |bytes| bytes.copy_from_slice(&right)));
        assert!(!stamp.is_in(192, |bytes| bytes.copy_from_slice(&right)));
        let mut torn = right;
        torn[63] ^= 1;
        assert!(!stamp.is_in(128, |bytes| bytes.copy_from_slice(&torn)));
    }
}
