//! A disk whose every 8 bytes hold their own offset: for finding out which bytes went astray.
//!
//! nbdkit's parameters of 1.48. Its manual page says of `upper` that the number is XORed into the
//! upper 16 bits of each word, and of `stride` that each block of that length has a number of its
//! own; ours is the offset of the block, which for blocks of 8 bytes is nbdkit's pattern.

use std::sync::Arc;

use block::{Error, ErrorKind, Limits, Op, OpSet, Result, Source};
use config::{Arg, Config, Size, Value, grammar};

use crate::{
    generated::{self, Content, fill_words},
    random, registry,
};

/// A disk on which every 8 bytes hold their own offset.
///
/// The offset is written as a 64-bit big-endian number. A write must carry the bytes that are there
/// already; any other fails with EIO, so a copy to this disk proves that every byte arrived in its
/// place.
#[derive(Config, Debug, Clone, PartialEq, Eq)]
pub struct PatternConfig {
    /// Size of the disk.
    #[config(magic)]
    pub size: Size,
    /// Length of the blocks that hold one number all over: the offset of the block.
    ///
    /// A power of two, at least 8. For finding out which blocks of a larger size went astray.
    #[config(default = "8")]
    pub stride: Size,
    /// A number from 0 to 65535 that is XORed into the upper 16 bits of each 8 bytes, or `random`.
    ///
    /// For telling several such disks from one another.
    #[config(default = "0")]
    pub upper: Upper,
}

/// What the upper 16 bits of a pattern are XORed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upper {
    /// This number.
    Fixed(u16),
    /// A number picked when the source is made.
    Random,
}

impl Value for Upper {
    const TYPE: &'static str = "N|random";

    fn parse(text: &str) -> Result<Self, String> {
        if text == "random" {
            return Ok(Upper::Random);
        }
        let number = grammar::integer(text, 0, u16::MAX.into())
            .map_err(|why| format!("neither 'random' nor a number: {why}"))?;
        Ok(Upper::Fixed(number as u16))
    }
}

/// The source.
///
/// # Errors
/// `Config`: a stride that is no power of two, or less than 8.
pub fn new(config: PatternConfig) -> Result<Arc<dyn Source>> {
    let stride = config.stride.0;
    if stride < 8 || !stride.is_power_of_two() {
        let what = format!("stride={stride}: must be a power of two and at least 8");
        return Err(Error::new(ErrorKind::Config, what).in_node(&"pattern".into()));
    }
    let upper = match config.upper {
        Upper::Fixed(number) => number,
        Upper::Random => random::fresh_seed() as u16,
    };
    let ops = OpSet::of(&[Op::Read, Op::Write, Op::WriteZeroes, Op::Cache, Op::Extents]);
    let mut limits = Limits::new(config.size.0, ops);
    // Answered at once, if only with no, as nbdkit does.
    limits.fast_zero = true;
    let pattern = Pattern {
        mask: !(stride - 1),
        upper: u64::from(upper) << 48,
    };
    Ok(generated::source("pattern", limits, pattern))
}

pub(crate) fn make(args: &[Arg]) -> Result<Arc<dyn Source>> {
    new(registry::parse(args)?)
}

struct Pattern {
    /// The bits of an offset that tell its block.
    mask: u64,
    upper: u64,
}

impl Content for Pattern {
    fn fill(&self, offset: u64, bytes: &mut [u8]) {
        fill_words(offset, bytes, |index| {
            (((index * 8) & self.mask) ^ self.upper).to_be_bytes()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;
    use block::{Errno, Flags};

    fn bench(words: &[(&str, &str)]) -> Bench {
        let config = PatternConfig::from_pairs(words.iter().copied()).unwrap();
        Bench::open(new(config).unwrap())
    }

    fn refusal(word: &str) -> String {
        let args = [Arg::parse("1M"), Arg::parse(word)];
        make(&args).err().expect("must be refused").chain()
    }

    #[test]
    fn bytes_tell_their_place() {
        let bench = bench(&[("size", "1E")]);
        assert_eq!(
            bench.read(8, 16).unwrap(),
            [0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 16]
        );
        assert_eq!(bench.read(0x1234_5678_9abf, 1).unwrap(), [0xb8]);
        assert_eq!(bench.read(0x1234_5678_9abd, 2).unwrap(), [0x78, 0x9a]);
    }

    #[test]
    fn blocks_hold_one_number() {
        let bench = bench(&[("size", "1M"), ("stride", "4k")]);
        let bytes = bench.read(0, 1 << 20).unwrap();
        for (index, word) in bytes.chunks(8).enumerate() {
            let block = index as u64 * 8 / 4096 * 4096;
            assert_eq!(word, block.to_be_bytes(), "word {index}");
        }
        bench.write(4000, &bytes[4000..9000]).unwrap();
        assert_eq!(bench.write(4096, &[0; 8]).unwrap_err(), Errno::EIO);
    }

    #[test]
    fn upper_bits_are_xored() {
        let upper = bench(&[("size", "1M"), ("upper", "0x1234")]);
        assert_eq!(
            upper.read(8, 8).unwrap(),
            [0x12, 0x34, 0, 0, 0, 0, 0, 8],
            "the example of nbdkit's manual page"
        );
        let large = bench(&[("size", "7E"), ("upper", "0xffff")]);
        let offset = 0x5678_0000_0000_0010u64;
        let inverted = offset ^ 0xffff_0000_0000_0000;
        assert_eq!(large.read(offset, 8).unwrap(), inverted.to_be_bytes());
        let random = bench(&[("size", "1M"), ("upper", "random")]);
        let (first, second) = (random.read(0, 8).unwrap(), random.read(8, 8).unwrap());
        assert_eq!(first[..2], second[..2]);
        assert_eq!((&first[2..], second[7]), (&[0; 6][..], 8));
    }

    #[test]
    fn only_the_right_bytes_can_be_written() {
        let bench = bench(&[("size", "1G")]);
        let mut bytes = bench.read(12345, 70_000).unwrap();
        bench.write(12345, &bytes).unwrap();
        bytes[65_000] ^= 1;
        let error = bench.write(12345, &bytes).unwrap_err();
        assert_eq!(error, Errno::EIO);
        assert!(error.to_string().contains("offset 77345"), "{error}");
        bench.plain(Op::WriteZeroes, 0, 15).unwrap();
        assert_eq!(bench.plain(Op::WriteZeroes, 0, 16).unwrap_err(), Errno::EIO);
        let fast = bench.flagged(Op::WriteZeroes, 0, 8, Flags::FAST_ZERO);
        assert_eq!(fast.unwrap_err(), Errno::ENOTSUP);
        assert_eq!(bench.plain(Op::Discard, 0, 16).unwrap_err(), Errno::ENOTSUP);
    }

    #[test]
    fn wrong_words_are_refused() {
        for stride in ["stride=4", "stride=0", "stride=12", "stride=4097"] {
            let error = refusal(stride);
            assert!(error.starts_with(&format!("pattern: {stride}: must be a power of two")));
        }
        assert!(refusal("upper=65536").starts_with("pattern: upper=65536: neither 'random' nor"));
        assert!(refusal("upper=-1").contains("a negative number is not allowed"));
        let error = make(&[]).err().expect("a size is needed").chain();
        assert!(
            error.starts_with("pattern: size=<SIZE> is required"),
            "{error}"
        );
    }
}
