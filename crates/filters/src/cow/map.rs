//! Which blocks live where: two bits per block, shared by all reactors without a lock.
//!
//! A flat table that nobody has touched would still cost its full size, so it is cut into leaves
//! that appear with the first block set in them; a missing leaf is all [`State::Base`].
//!
//! Contract: only the holder of a block's range lock changes its state; anybody reads it, at any
//! time. Setting is a release and reading an acquire, so who sees that a block is in the overlay
//! also sees the data that was written there before.

use std::{
    ops::Range,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// Where a block's contents are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// In the disk below: never written.
    Base = 0,
    /// In the overlay.
    Overlay = 1,
    /// Nowhere: it was trimmed, and reads as zeroes.
    Zero = 2,
}

/// The most blocks a map can hold: its table is then 1 GiB.
pub(super) const MAX_BLOCKS: u64 = 1 << 32;

const PER_WORD: u64 = 32;
const LEAF_WORDS: u64 = 4096; // 32 KiB
const PER_LEAF: u64 = PER_WORD * LEAF_WORDS;
/// The low bit of every block of a word.
const LOW_BITS: u64 = u64::MAX / 3;

type Leaf = Box<[AtomicU64]>;

/// The states of the blocks `0..blocks`.
pub(super) struct BlockMap {
    leaves: Box<[OnceLock<Leaf>]>,
}

impl BlockMap {
    /// All blocks are in the base. Panics if there are more than [`MAX_BLOCKS`].
    pub fn new(blocks: u64) -> BlockMap {
        assert!(blocks <= MAX_BLOCKS, "checked when the disk was opened");
        BlockMap {
            leaves: (0..blocks.div_ceil(PER_LEAF))
                .map(|_| OnceLock::new())
                .collect(),
        }
    }

    /// The state of one block.
    pub fn state(&self, block: u64) -> State {
        self.run(block..block + 1).0
    }

    /// The state of the first block of a range that is not empty, and where the run of blocks with
    /// that state ends, at most at the end of the range.
    pub fn run(&self, blocks: Range<u64>) -> (State, u64) {
        let (mut at, mut state) = (blocks.start, None);
        while at < blocks.end {
            let (word, reach) = match self.leaves[(at / PER_LEAF) as usize].get() {
                Some(leaf) => (leaf[word_of(at)].load(Ordering::Acquire), PER_WORD),
                None => (0, PER_LEAF),
            };
            let here = at % PER_WORD;
            // The state comes from the same word that is compared: it may change at any time.
            let state = *state.get_or_insert_with(|| State::of(word >> (2 * here)));
            let differs = (word ^ (LOW_BITS * state as u64)) >> (2 * here);
            if differs != 0 {
                at += u64::from(differs.trailing_zeros() / 2);
                break;
            }
            at = (at / reach + 1) * reach;
        }
        (state.unwrap_or(State::Base), at.min(blocks.end))
    }

    /// Sets the state of blocks that the caller has locked.
    pub fn set(&self, blocks: Range<u64>, state: State) {
        let mut at = blocks.start;
        while at < blocks.end {
            let leaf = self.leaves[(at / PER_LEAF) as usize].get_or_init(empty_leaf);
            let here = at % PER_WORD;
            let count = (PER_WORD - here).min(blocks.end - at);
            let mask = (u64::MAX >> (64 - 2 * count)) << (2 * here);
            let bits = (LOW_BITS * state as u64) & mask;
            // Other blocks of the word may belong to others, so the word changes in one step.
            let change = |word: u64| Some((word & !mask) | bits);
            let _ = leaf[word_of(at)].fetch_update(Ordering::AcqRel, Ordering::Acquire, change);
            at += count;
        }
    }
}

impl State {
    fn of(bits: u64) -> State {
        match bits & 3 {
            0 => State::Base,
            1 => State::Overlay,
            _ => State::Zero,
        }
    }
}

fn word_of(block: u64) -> usize {
    (block % PER_LEAF / PER_WORD) as usize
}

fn empty_leaf() -> Leaf {
    (0..LEAF_WORDS).map(|_| AtomicU64::new(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_across_words_and_leaves() {
        let blocks = 3 * PER_LEAF + 17;
        let map = BlockMap::new(blocks);
        assert_eq!(map.run(5..blocks), (State::Base, blocks));
        map.set(31..33, State::Overlay);
        map.set(PER_LEAF - 1..2 * PER_LEAF + 1, State::Zero);
        let mut runs = Vec::new();
        let mut at = 0;
        while at < blocks {
            let (state, end) = map.run(at..blocks);
            runs.push((state, at..end));
            at = end;
        }
        let expected = [
            (State::Base, 0..31),
            (State::Overlay, 31..33),
            (State::Base, 33..PER_LEAF - 1),
            (State::Zero, PER_LEAF - 1..2 * PER_LEAF + 1),
            (State::Base, 2 * PER_LEAF + 1..blocks),
        ];
        assert_eq!(runs, expected);
        assert_eq!(map.run(PER_LEAF..PER_LEAF + 3), (State::Zero, PER_LEAF + 3));
    }

    #[test]
    fn the_map_equals_a_plain_vector() {
        let blocks = 2 * PER_LEAF;
        let map = BlockMap::new(blocks);
        let mut model = vec![State::Base; blocks as usize];
        let mut x = 1_u64;
        for _ in 0..400 {
            x = x
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let start = (x >> 33) % blocks;
            let end = (start + (x >> 11) % 200 + 1).min(blocks);
            let state = [State::Overlay, State::Zero][(x >> 60) as usize & 1];
            map.set(start..end, state);
            model[start as usize..end as usize].fill(state);
        }
        for block in 0..blocks {
            assert_eq!(map.state(block), model[block as usize], "block {block}");
        }
        let mut at = 0;
        while at < blocks {
            let (state, end) = map.run(at..blocks);
            assert!(end > at && model[at as usize..end as usize].iter().all(|s| *s == state));
            at = end;
        }
    }

    #[test]
    fn an_untouched_map_of_the_largest_disk_is_small() {
        let map = BlockMap::new(MAX_BLOCKS);
        assert_eq!(map.leaves.len(), 32768);
        assert_eq!(map.run(0..MAX_BLOCKS), (State::Base, MAX_BLOCKS));
    }
}
