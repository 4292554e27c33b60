//! Which blocks of what was read are zero, and where two reads differ.

use block::{Piece, Segments, SharedMem};

/// So many bytes, all of them zero or to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Length in bytes.
    pub len: u64,
    /// Nothing but zeroes.
    pub zero: bool,
}

/// Sorts what was read at `offset` into runs. Zeroes count from `block` bytes on, aligned by their
/// place on the disk; a power of two.
pub fn runs(segments: &Segments, offset: u64, block: u64) -> Vec<Run> {
    let mut scanner = Scanner {
        block,
        left: block - offset % block,
        here: Run { len: 0, zero: true },
        runs: Vec::new(),
    };
    for piece in segments.pieces() {
        let mut at = 0;
        while at < piece.len() {
            let len = scanner.left.min(piece.len() - at);
            scanner.add(len, || match piece {
                Piece::Zero(_) => true,
                Piece::Mem(mem) => is_zero(mem, at as usize, len as usize),
            });
            at += len;
        }
    }
    scanner.end_block();
    scanner.runs
}

struct Scanner {
    block: u64,
    /// Bytes to the end of the block.
    left: u64,
    /// The block so far.
    here: Run,
    runs: Vec<Run>,
}

impl Scanner {
    fn add(&mut self, len: u64, zero: impl FnOnce() -> bool) {
        // What is known to be written need not be looked at.
        self.here.zero = self.here.zero && zero();
        self.here.len += len;
        self.left -= len;
        if self.left == 0 {
            self.end_block();
        }
    }

    fn end_block(&mut self) {
        let here = std::mem::replace(&mut self.here, Run { len: 0, zero: true });
        self.left = self.block;
        match self.runs.last_mut() {
            _ if here.len == 0 => {}
            Some(last) if last.zero == here.zero => last.len += here.len,
            _ => self.runs.push(here),
        }
    }
}

/// Bytes that are looked at first: nearly all data has something there.
const FIRST: usize = 64;

/// Bytes that are looked at in one go.
const STEP: usize = 4096;

/// Nothing but zero bytes there. Copied to look at: others may share the memory.
fn is_zero(mem: &SharedMem, at: usize, len: usize) -> bool {
    let first = len.min(FIRST);
    is_zero_by::<FIRST>(mem, at, first) && is_zero_by::<STEP>(mem, at + first, len - first)
}

/// The same, in steps.
fn is_zero_by<const STEP: usize>(mem: &SharedMem, at: usize, len: usize) -> bool {
    let mut buffer = [0u8; STEP];
    (0..len).step_by(STEP).all(|step| {
        let bytes = &mut buffer[..STEP.min(len - step)];
        mem.read(at + step, bytes);
        bytes.iter().fold(0, |all, byte| all | byte) == 0
    })
}

/// The first byte in which two of the same length differ.
pub fn difference(one: &Segments, other: &Segments) -> Option<u64> {
    let (mut left, mut right) = ([0u8; STEP], [0u8; STEP]);
    let mut at = 0;
    while at < one.len() {
        let len = (one.len() - at).min(STEP as u64) as usize;
        let (left, right) = (&mut left[..len], &mut right[..len]);
        one.read(at, left);
        other.read(at, right);
        if left != right {
            let same = left.iter().zip(right.iter()).take_while(|(a, b)| a == b);
            return Some(at + same.count() as u64);
        }
        at += len as u64;
    }
    None
}

#[cfg(test)]
mod tests {
    use block::{SharedBuf, SharedMem};

    use super::*;

    fn mem(bytes: &[u8]) -> Piece {
        let len = bytes.len();
        Piece::Mem(SharedMem::of_shared(
            SharedBuf::from_vec(bytes.to_vec()),
            0,
            len,
        ))
    }

    fn found(pieces: Vec<Piece>, offset: u64, block: u64) -> Vec<(u64, bool)> {
        let mut segments = Segments::new();
        pieces.into_iter().for_each(|piece| segments.push(piece));
        let runs = runs(&segments, offset, block);
        assert_eq!(runs.iter().map(|run| run.len).sum::<u64>(), segments.len());
        runs.iter().map(|run| (run.len, run.zero)).collect()
    }

    #[test]
    fn blocks_are_zero_as_a_whole() {
        let mut bytes = vec![0; 4096];
        assert_eq!(found(vec![mem(&bytes)], 0, 512), [(4096, true)]);
        bytes[4095] = 1;
        let last = [(3584, true), (512, false)];
        assert_eq!(found(vec![mem(&bytes)], 0, 512), last);
        // The same in pieces of an odd size.
        let pieces = bytes.chunks(1000).map(mem).collect();
        assert_eq!(found(pieces, 0, 512), last);
        assert_eq!(found(vec![mem(&bytes)], 0, 1 << 20), [(4096, false)]);
    }

    #[test]
    fn blocks_are_aligned_on_the_disk() {
        let mut bytes = vec![0; 1024];
        bytes[300] = 7;
        // Blocks end at 512 and 1024 of the disk, that is 212 and 724 of the bytes.
        let expected = [(212, true), (512, false), (300, true)];
        assert_eq!(found(vec![mem(&bytes)], 300, 512), expected);
    }

    #[test]
    fn holes_are_known_without_looking() {
        let pieces = vec![Piece::Zero(1024), mem(&[1; 100]), Piece::Zero(924)];
        let expected = [(1024, true), (512, false), (512, true)];
        assert_eq!(found(pieces, 0, 512), expected);
        assert_eq!(found(vec![], 0, 512), []);
    }

    #[test]
    fn the_first_difference_is_found() {
        let mut bytes = vec![3; 10_000];
        let was: Segments = [mem(&bytes)]
            .into_iter()
            .fold(Segments::new(), |mut all, piece| {
                all.push(piece);
                all
            });
        let is = |bytes: &[u8]| {
            let mut all = Segments::new();
            bytes.chunks(3000).for_each(|part| all.push(mem(part)));
            all
        };
        assert_eq!(difference(&was, &is(&bytes)), None);
        bytes[9999] = 4;
        assert_eq!(difference(&was, &is(&bytes)), Some(9999));
        bytes[4095] = 4;
        assert_eq!(difference(&was, &is(&bytes)), Some(4095));
    }
}
