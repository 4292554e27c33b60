//! A load that knows what it wrote: each block carries what it is, so that a wrong byte tells where it
//! came from.

use anyhow::{Result, bail, ensure};

use crate::disk::Disk;

/// Bytes that carry one stamp.
pub const BLOCK: usize = 4096;

/// Fills `data`, which lies at `at` on the disk, with what generation `generation` has there.
pub fn fill(data: &mut [u8], at: u64, generation: u64) {
    for (number, word) in data.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&stamp(at + number as u64 * 8, generation).to_le_bytes());
    }
}

/// Whether `data` is what [`fill`] made.
pub fn check(data: &[u8], at: u64, generation: u64) -> Result<()> {
    for (number, word) in data.chunks_exact(8).enumerate() {
        let offset = at + number as u64 * 8;
        let wanted = stamp(offset, generation).to_le_bytes();
        ensure!(
            word == wanted,
            "at {offset}: {word:02x?} and not {wanted:02x?}, generation {generation}"
        );
    }
    Ok(())
}

/// A number that depends on every bit (splitmix64).
fn stamp(offset: u64, generation: u64) -> u64 {
    mix(offset ^ mix(generation.wrapping_add(0x9e37_79b9_7f4a_7c15)))
}

fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Random numbers, the same in each run.
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0) % end
    }
}

/// What a disk holds as far as it was written here: a generation for each block.
pub struct Model {
    start: u64,
    generations: Vec<u64>,
    random: Random,
    last: u64,
}

impl Model {
    /// Watches `len` bytes from `start`; multiples of [`BLOCK`].
    pub fn new(start: u64, len: u64, seed: u64) -> Model {
        Model {
            start,
            generations: vec![0; (len / BLOCK as u64) as usize],
            random: Random::new(seed),
            last: 0,
        }
    }

    /// Writes random pieces of up to `most` bytes, reads others and checks them.
    pub fn run(&mut self, disk: &mut dyn Disk, turns: u32, most: usize) -> Result<()> {
        let mut data = vec![0; most];
        for turn in 0..turns {
            let blocks = 1 + self.random.below((most / BLOCK) as u64);
            let first = self
                .random
                .below(self.generations.len() as u64 + 1 - blocks);
            let at = self.start + first * BLOCK as u64;
            let range = first as usize..(first + blocks) as usize;
            let piece = &mut data[..blocks as usize * BLOCK];
            if self.random.below(3) == 0 {
                disk.read(at, piece)?;
                self.check(piece, range)?;
            } else {
                self.last += 1;
                fill(piece, at, self.last);
                disk.write(at, piece)?;
                self.generations[range].fill(self.last);
            }
            if turn % 64 == 63 {
                disk.flush()?;
            }
        }
        Ok(())
    }

    /// Reads and checks all that was written.
    pub fn check_all(&self, disk: &mut dyn Disk) -> Result<()> {
        let mut piece = vec![0; 64 * BLOCK];
        for first in (0..self.generations.len()).step_by(64) {
            let end = self.generations.len().min(first + 64);
            let piece = &mut piece[..(end - first) * BLOCK];
            disk.read(self.start + (first * BLOCK) as u64, piece)?;
            self.check(piece, first..end)?;
        }
        Ok(())
    }

    /// The range was zeroed by other means.
    pub fn zeroed(&mut self, at: u64, len: u64) {
        let first = ((at - self.start) / BLOCK as u64) as usize;
        self.generations[first..first + (len / BLOCK as u64) as usize].fill(0);
    }

    /// Generation 0 is zeroes.
    fn check(&self, data: &[u8], range: std::ops::Range<usize>) -> Result<()> {
        for (number, block) in range.zip(data.chunks_exact(BLOCK)) {
            let at = self.start + (number * BLOCK) as u64;
            match self.generations[number] {
                0 if block.iter().any(|byte| *byte != 0) => bail!("at {at}: not zero"),
                0 => {}
                generation => check(block, at, generation)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Memory(Vec<u8>, bool);

    impl Disk for Memory {
        fn size(&mut self) -> Result<u64> {
            Ok(self.0.len() as u64)
        }
        fn read(&mut self, at: u64, into: &mut [u8]) -> Result<()> {
            into.copy_from_slice(&self.0[at as usize..at as usize + into.len()]);
            Ok(())
        }
        fn write(&mut self, at: u64, from: &[u8]) -> Result<()> {
            // A disk that loses a write now and then.
            if !self.1 || !at.is_multiple_of(7 * BLOCK as u64) {
                self.0[at as usize..at as usize + from.len()].copy_from_slice(from);
            }
            Ok(())
        }
        fn flush(&mut self) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_good_disk_passes_and_a_bad_one_is_found() {
        for bad in [false, true] {
            let mut disk = Memory(vec![0; 1 << 20], bad);
            let mut model = Model::new(0, 1 << 20, 1);
            let went = model.run(&mut disk, 500, 16 * BLOCK);
            let went = went.and_then(|()| model.check_all(&mut disk));
            assert_eq!(went.is_err(), bad);
        }
    }
}
