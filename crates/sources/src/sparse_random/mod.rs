//! Runs of random data between holes, in the shape of a virtual machine's disk: for testing and
//! measuring programs that copy disks.
//!
//! Everything follows from the seed: where the data is (see `runs`) and what it is. So the disk takes no
//! memory, any place is computed without the places before it, and a disk of another size starts
//! with the same bytes. As in nbdkit, writes are verified, so one server is both ends of a copy.
//!
//! A seed gives another disk than it gives in nbdkit, whose generator is documented nowhere. The disk of
//! a seed never changes between versions of blkit.

mod runs;

use std::sync::Arc;

use block::{
    Error, ErrorKind, ExtentFlags, ExtentList, Limits, Op, OpSet, Result, Source, Support,
};
use config::{Arg, Config, Size, Value, grammar};
use runs::Runs;

use crate::{
    generated::{self, Content, fill_words},
    random::{fresh_seed, splitmix},
    registry,
};

/// Runs of random data between holes, like the disk of a virtual machine.
///
/// For testing programs that copy disks: a write must carry the bytes that are there already, any
/// other fails with EIO, so the same disk can be copied to itself. The same seed always gives
/// the same disk.
#[derive(Config, Debug, Clone, PartialEq)]
pub struct SparseRandomConfig {
    /// Size of the disk.
    #[config(magic)]
    pub size: Size,
    /// Which data and which holes: another seed gives others. Picked at random if not given.
    pub seed: Option<u64>,
    /// How much of the disk is data, in percent, about.
    #[config(default = "10")]
    pub percent: Percent,
    /// How long the runs of data are on average, in bytes.
    #[config(default = "16M")]
    pub runlength: Size,
    /// Length of the blocks that are all data or all hole: a power of two from 512 to 32M.
    #[config(default = "4K")]
    pub blocksize: Size,
    /// Make every byte random. Otherwise each block repeats one byte, which is never zero.
    #[config(default = "false")]
    pub random_content: bool,
}

/// A number from 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percent(pub f64);

impl Value for Percent {
    const TYPE: &'static str = "PERCENT";

    fn parse(text: &str) -> Result<Self, String> {
        let number = grammar::number(text.strip_suffix('%').unwrap_or(text))?;
        match (0.0..=100.0).contains(&number) {
            true => Ok(Percent(number)),
            false => Err("out of range (0 to 100)".into()),
        }
    }
}

/// The source.
///
/// # Errors
/// `Config`: a block size or run length that cannot be.
pub fn new(config: SparseRandomConfig) -> Result<Arc<dyn Source>> {
    let refused =
        |what: String| Err(Error::new(ErrorKind::Config, what).in_node(&"sparse-random".into()));
    let (block, length) = (config.blocksize.0, config.runlength.0);
    if !block.is_power_of_two() || !(512..=32 << 20).contains(&block) {
        return refused(format!(
            "blocksize={block}: must be a power of two from 512 to 32M"
        ));
    }
    if length == 0 {
        return refused("runlength=0: must be more than 0".into());
    }
    let ops = [
        Op::Read,
        Op::Write,
        Op::Flush,
        Op::WriteZeroes,
        Op::Discard,
        Op::Cache,
        Op::Extents,
    ];
    let mut limits = Limits::new(config.size.0, OpSet::of(&ops));
    limits.fua = Support::Native;
    limits.preferred_block = block as u32;
    let seed = config.seed.unwrap_or_else(fresh_seed);
    let shift = block.trailing_zeros();
    // Enough blocks for the largest disk there can be.
    let level = (i64::BITS - shift) as usize;
    let (part, mean) = (config.percent.0 / 100.0, length as f64 / block as f64);
    let sparse = Sparse {
        runs: Runs::new(splitmix(seed, 0), level, part, mean),
        shift,
        bytes: splitmix(seed, 1),
        random_content: config.random_content,
    };
    Ok(generated::source("sparse-random", limits, sparse))
}

pub(crate) fn make(args: &[Arg]) -> Result<Arc<dyn Source>> {
    new(registry::parse(args)?)
}

/// The most extents in one answer: finding one costs a good part of a microsecond, and a reactor has
/// other clients. A client asks again for what follows.
const MOST_EXTENTS: usize = 2048;

struct Sparse {
    runs: Runs,
    /// Log2 of the block size.
    shift: u32,
    /// The seed of what is in the blocks.
    bytes: u64,
    random_content: bool,
}

impl Sparse {
    /// Shows the runs in a range of bytes, by their lengths, until `visit` returns false.
    fn each(&self, offset: u64, len: u64, mut visit: impl FnMut(u64, bool) -> bool) {
        if len == 0 {
            return;
        }
        let end = offset + len;
        let blocks = offset >> self.shift..((end - 1) >> self.shift) + 1;
        self.runs.each(blocks, |run, data| {
            let first = (run.start << self.shift).max(offset);
            // The last block may end behind the largest offset.
            let last = run.end.checked_mul(1 << self.shift).unwrap_or(end).min(end);
            visit(last - first, data)
        });
    }

    fn fill_data(&self, offset: u64, bytes: &mut [u8]) {
        if self.random_content {
            return fill_words(offset, bytes, |index| {
                splitmix(self.bytes, index).to_le_bytes()
            });
        }
        let block = 1 << self.shift;
        let mut at = 0;
        while at < bytes.len() {
            let place = offset + at as u64;
            let rest = block - (place & (block - 1));
            let n = rest.min((bytes.len() - at) as u64) as usize;
            let byte = splitmix(self.bytes, place >> self.shift) % 255 + 1;
            bytes[at..at + n].fill(byte as u8);
            at += n;
        }
    }
}

impl Content for Sparse {
    fn fill(&self, offset: u64, bytes: &mut [u8]) {
        let mut at = 0;
        self.each(offset, bytes.len() as u64, |len, data| {
            let next = at + len as usize;
            match data {
                true => self.fill_data(offset + at as u64, &mut bytes[at..next]),
                false => bytes[at..next].fill(0),
            }
            at = next;
            true
        });
    }

    fn zeroes(&self, offset: u64, len: u64) -> u64 {
        let mut zeroes = 0;
        self.each(offset, len, |len, data| {
            zeroes = if data { 0 } else { len };
            false
        });
        zeroes
    }

    fn extents(&self, offset: u64, len: u64, one: bool) -> ExtentList {
        let most = if one { 1 } else { MOST_EXTENTS };
        let mut list = ExtentList::new();
        self.each(offset, len, |len, data| {
            let flags = match data {
                true => ExtentFlags::DATA,
                false => ExtentFlags::HOLE_ZERO,
            };
            list.push(len, flags) && list.allocation().len() < most
        });
        list
    }
}

#[cfg(test)]
mod tests;
