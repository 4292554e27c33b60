//! Where the data is: runs of blocks that can be asked about at any place, from a seed alone.
//!
//! Going from block to block, the disk is a Markov chain of two states: a run of data ends at each
//! block with one probability, a hole with another, so the lengths of both are spread
//! geometrically around their means. Walking the chain from block 0 would make a question about the
//! end of a large disk take for ever, and a table of all blocks takes memory. So the chain is drawn
//! like a Brownian bridge: first the states at both ends of the largest disk there can be, then
//! the state in the middle, given those at the ends, and so on in each half. The probabilities for
//! a range of `2^k` blocks follow from those for `2^(k-1)`, and each draw is a hash of the seed and
//! the place: a tree that is nowhere stored, in which a block is some fifty steps from the root.
//!
//! To leave out what is all alike, a range is also drawn to be *constant* (one state all over), to
//! go *back* (the same state at both ends, the other somewhere between), or to *change*.
//!
//! *Contract.* What a block is depends on seed, shape and number alone, not on the size of the disk or
//! on what was asked before. Only additions and multiplications of `f64` are used, which
//! give the same on every machine.

use std::ops::Range;

use crate::random::splitmix;

/// The runs of a disk.
#[derive(Debug)]
pub(super) struct Runs {
    seed: u64,
    /// For ranges of `2^k` blocks. Empty if all blocks are alike.
    levels: Vec<Level>,
    /// The state at block 0.
    first: bool,
    /// The root's kind.
    kind: Kind,
}

/// Probabilities of what happens over a range, given the state at its start, by that state (0: hole,
/// 1: data).
#[derive(Clone, Copy, Debug)]
struct Level {
    /// The state stays the same.
    constant: [f64; 2],
    /// It does not; kept beside `constant` because 1 minus a tiny number forgets the number.
    leaves: [f64; 2],
    /// It leaves and is the same in the end.
    back: [f64; 2],
    /// It is the other in the end.
    change: [f64; 2],
}

/// What is known of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Constant,
    Back,
    Change,
}

/// The blocks from `start` on, `2^level` of them.
#[derive(Clone, Copy)]
struct Node {
    start: u64,
    level: usize,
    /// The state of the first block. That of the block behind the range follows from the kind.
    data: bool,
    kind: Kind,
}

impl Runs {
    /// Runs over `2^level` blocks: this part of them data (0 to 1), in runs of `length` blocks on
    /// average.
    ///
    /// No run is shorter than a block. If holes would have to be to reach the part, the runs of data
    /// get longer instead.
    pub fn new(seed: u64, level: usize, part: f64, length: f64) -> Runs {
        if part <= 0.0 || part >= 1.0 {
            return Runs {
                seed,
                levels: Vec::new(),
                first: part > 0.0,
                kind: Kind::Constant,
            };
        }
        let mut data = length.max(1.0);
        let mut hole = data * (1.0 - part) / part;
        if hole < 1.0 {
            (data, hole) = (part / (1.0 - part), 1.0);
        }
        let leaves = [1.0 / hole, 1.0 / data];
        let mut levels = vec![Level {
            constant: leaves.map(|leaves| 1.0 - leaves),
            leaves,
            back: [0.0; 2],
            change: leaves,
        }];
        for below in 0..level {
            levels.push(levels[below].twice());
        }
        let first = unit(splitmix(seed, u64::MAX)) < part;
        let (top, state) = (&levels[level], usize::from(first));
        let weights = [top.constant[state], top.back[state], top.change[state], 0.0];
        let kinds = [Kind::Constant, Kind::Back, Kind::Change];
        let kind = kinds[pick(splitmix(seed, u64::MAX - 1), weights)];
        Runs {
            seed,
            levels,
            first,
            kind,
        }
    }

    /// Shows the runs of these blocks in order, each as long as it is within them, and whether it is
    /// data, until `visit` returns false.
    pub fn each(&self, blocks: Range<u64>, mut visit: impl FnMut(Range<u64>, bool) -> bool) {
        if blocks.is_empty() {
            return;
        }
        let root = Node {
            start: 0,
            level: self.levels.len().saturating_sub(1),
            data: self.first,
            kind: self.kind,
        };
        if self.levels.is_empty() {
            visit(blocks, self.first);
            return;
        }
        let mut last: Option<(Range<u64>, bool)> = None;
        let more = self.walk(root, &blocks, &mut |range, data| match &mut last {
            Some((run, same)) if *same == data => {
                run.end = range.end;
                true
            }
            _ => last
                .replace((range, data))
                .is_none_or(|(run, data)| visit(run, data)),
        });
        if let (true, Some((run, data))) = (more, last) {
            visit(run, data);
        }
    }

    /// Shows the parts of a node that lie in `blocks`. Returns false if it was stopped. The depth of
    /// the recursion is the number of levels.
    fn walk<F>(&self, node: Node, blocks: &Range<u64>, visit: &mut F) -> bool
    where
        F: FnMut(Range<u64>, bool) -> bool,
    {
        let end = node.start + (1 << node.level);
        if end <= blocks.start || node.start >= blocks.end {
            return true;
        }
        if node.level == 0 || node.kind == Kind::Constant {
            let range = node.start.max(blocks.start)..end.min(blocks.end);
            return visit(range, node.data);
        }
        let (front, rear) = self.halves(node);
        self.walk(front, blocks, visit) && self.walk(rear, blocks, visit)
    }

    fn halves(&self, node: Node) -> (Node, Node) {
        use Kind::{Back, Change, Constant};
        let level = node.level - 1;
        let middle = node.start + (1 << level);
        let half = &self.levels[level];
        let (same, other) = (usize::from(node.data), usize::from(!node.data));
        // The ways to go on, each with the kinds of both halves. The state in the middle is the other
        // one if the front half changes.
        let (weights, ways) = match node.kind {
            Back => (
                [
                    half.constant[same] * half.back[same],
                    half.back[same] * half.constant[same],
                    half.back[same] * half.back[same],
                    half.change[same] * half.change[other],
                ],
                [
                    (Constant, Back),
                    (Back, Constant),
                    (Back, Back),
                    (Change, Change),
                ],
            ),
            _ => (
                // All of them times the probability of one change in the other half.
                [
                    half.constant[same],
                    half.back[same],
                    half.constant[other],
                    half.back[other],
                ],
                [
                    (Constant, Change),
                    (Back, Change),
                    (Change, Constant),
                    (Change, Back),
                ],
            ),
        };
        // Each middle belongs to one node.
        let (front, rear) = ways[pick(splitmix(self.seed, middle), weights)];
        let node_of = |start, data, kind| Node {
            start,
            level,
            data,
            kind,
        };
        (
            node_of(node.start, node.data, front),
            node_of(middle, node.data != (front == Change), rear),
        )
    }
}

impl Level {
    /// The probabilities over twice the range. All sums are of positive numbers, so that nothing is
    /// lost, however small they are; and what rounding adds or takes would double with each level, so
    /// the ways to leave are made to add up to leaving.
    fn twice(&self) -> Level {
        let both = |f: &dyn Fn(usize, usize) -> f64| [f(0, 1), f(1, 0)];
        let leaves = self.leaves.map(|leaves| 2.0 * leaves - leaves * leaves);
        let back = both(&|same, other| {
            self.back[same] * (self.back[same] + 2.0 * self.constant[same])
                + self.change[same] * self.change[other]
        });
        let change = both(&|same, other| {
            let stays = |state: usize| self.constant[state] + self.back[state];
            self.change[same] * (stays(same) + stays(other))
        });
        let scale = both(&|state, _| match back[state] + change[state] {
            0.0 => 1.0,
            sum => leaves[state] / sum,
        });
        Level {
            constant: leaves.map(|leaves| 1.0 - leaves),
            leaves,
            back: both(&|state, _| back[state] * scale[state]),
            change: both(&|state, _| change[state] * scale[state]),
        }
    }
}

/// A number from 0 to below 1.
fn unit(random: u64) -> f64 {
    (random >> 11) as f64 / (1u64 << 53) as f64
}

/// Picks one of four with probabilities in proportion to the weights; never one without any, unless
/// none has.
fn pick(random: u64, weights: [f64; 4]) -> usize {
    let mut left = unit(random) * weights.iter().sum::<f64>();
    let mut picked = 0;
    for (index, &weight) in weights.iter().enumerate() {
        if weight > 0.0 {
            picked = index;
            if left < weight {
                break;
            }
            left -= weight;
        }
    }
    picked
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The runs of the first blocks.
    fn runs(seed: u64, part: f64, length: f64, blocks: u64) -> Vec<(u64, bool)> {
        let mut found = Vec::new();
        Runs::new(seed, 40, part, length).each(0..blocks, |run, data| {
            found.push((run.end - run.start, data));
            true
        });
        found
    }

    fn mean(runs: &[(u64, bool)], data: bool) -> f64 {
        let lengths: Vec<u64> =
            (runs.iter().filter(|run| run.1 == data).map(|run| run.0)).collect();
        lengths.iter().sum::<u64>() as f64 / lengths.len() as f64
    }

    #[test]
    fn part_and_lengths_are_as_asked() {
        // Part, length, and what the lengths of data and holes must be on average.
        let table = [
            (0.10, 16.0, 16.0, 144.0),
            (0.50, 16.0, 16.0, 16.0),
            (0.90, 16.0, 16.0, 16.0 / 9.0),
            (0.05, 1.0, 1.0, 19.0),
            (0.10, 400.0, 400.0, 3600.0),
            (0.50, 1.0, 1.0, 1.0),
            // Holes of less than a block cannot be.
            (0.95, 4.0, 19.0, 1.0),
            (0.75, 0.1, 3.0, 1.0),
        ];
        for (part, length, data, hole) in table {
            let blocks = (50_000.0 * (data + hole)) as u64;
            let (mut whole, mut sums) = (0.0, [0.0; 2]);
            for seed in 0..4 {
                let runs = runs(seed, part, length, blocks);
                let full: u64 = runs.iter().filter(|run| run.1).map(|run| run.0).sum();
                whole += full as f64 / blocks as f64 / 4.0;
                sums[0] += mean(&runs, false) / 4.0;
                sums[1] += mean(&runs, true) / 4.0;
            }
            // 200,000 runs: the means are within 5 deviations of 0.22 %.
            for (is, wanted) in [(whole, part), (sums[1], data), (sums[0], hole)] {
                let off = (is / wanted - 1.0).abs();
                assert!(off < 0.012, "{part} {length}: {is} and not {wanted}");
            }
        }
    }

    #[test]
    fn lengths_are_spread_geometrically() {
        let runs = runs(1, 0.5, 8.0, 2_000_000);
        let lengths: Vec<u64> = runs.iter().filter(|run| run.1).map(|run| run.0).collect();
        for least in [2u64, 5, 9, 20, 40] {
            let wanted = (7.0f64 / 8.0).powi(least as i32 - 1);
            let longer = lengths.iter().filter(|len| **len >= least).count();
            let is = longer as f64 / lengths.len() as f64;
            assert!(
                (is - wanted).abs() < 0.008,
                "{least}: {is} and not {wanted}"
            );
        }
    }

    #[test]
    fn any_question_gets_the_same_answer() {
        let runs = Runs::new(9, 40, 0.3, 3.0);
        let mut all = Vec::new();
        runs.each(0..5000, |run, data| {
            assert_ne!(all.last(), Some(&data), "two runs in a row are alike");
            all.extend(run.map(|_| data));
            true
        });
        assert_eq!(all.len(), 5000);
        for (from, to) in [(0, 1), (17, 18), (3, 900), (4095, 4097), (4999, 5000)] {
            let mut part = Vec::new();
            runs.each(from..to, |run, data| {
                assert_eq!(run.start, from + part.len() as u64);
                part.extend(run.map(|_| data));
                true
            });
            assert_eq!(part, all[from as usize..to as usize], "{from}..{to}");
        }
        runs.each(7..7, |_, _| panic!("nothing was asked"));
    }

    #[test]
    fn a_visit_can_stop() {
        let mut seen = 0;
        Runs::new(1, 54, 0.5, 4.0).each(1 << 50..1 << 54, |_, _| {
            seen += 1;
            seen < 10
        });
        assert_eq!(seen, 10);
    }

    #[test]
    fn extreme_shapes_hold() {
        for part in [0.0, 1e-300, 1e-9, 0.5, 1.0 - 1e-15, 1.0] {
            for length in [1e-300, 1.0, 1e9, 1e18, 1e300] {
                let mut blocks = 0;
                Runs::new(3, 54, part, length).each(0..10_000, |run, _| {
                    blocks += run.end - run.start;
                    true
                });
                assert_eq!(blocks, 10_000, "{part} {length}");
            }
        }
    }

    /// The probabilities are those of the chain itself, drawn block by block.
    #[test]
    fn levels_add_up() {
        const CLOSE: f64 = 1e-9;
        let runs = Runs::new(0, 54, 0.1, 4096.0);
        for level in &runs.levels {
            for state in 0..2 {
                let sum = level.constant[state] + level.back[state] + level.change[state];
                assert!((sum - 1.0).abs() < CLOSE, "{level:?}");
            }
        }
        let top = runs.levels.last().unwrap();
        assert!((top.change[0] - 0.1).abs() < CLOSE && (top.change[1] - 0.9).abs() < CLOSE);
    }
}
