//! A disk whose every 8 bytes hold their own offset: for finding out which bytes went astray.

use std::sync::Arc;

use block::{Limits, Op, OpSet, Result, Source};
use config::{Arg, Config, Size};

use crate::{
    generated::{self, Content},
    registry,
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
}

/// The source.
///
/// # Errors
/// None: the signature is that of every source.
pub fn new(config: PatternConfig) -> Result<Arc<dyn Source>> {
    let ops = OpSet::of(&[Op::Read, Op::Write, Op::WriteZeroes, Op::Cache, Op::Extents]);
    let limits = Limits::new(config.size.0, ops);
    Ok(generated::source("pattern", limits, Pattern))
}

pub(crate) fn make(args: &[Arg]) -> Result<Arc<dyn Source>> {
    new(registry::parse(args)?)
}

struct Pattern;

impl Content for Pattern {
    #[inline]
    fn word(&self, index: u64) -> [u8; 8] {
        (index * 8).to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;
    use block::Errno;

    #[test]
    fn bytes_tell_their_place() {
        let bench = Bench::open(
            new(PatternConfig {
                size: Size(1 << 60),
            })
            .unwrap(),
        );
        assert_eq!(
            bench.read(8, 16).unwrap(),
            [0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 16]
        );
        assert_eq!(bench.read(0x1234_5678_9abf, 1).unwrap(), [0xb8]);
        assert_eq!(bench.read(0x1234_5678_9abd, 2).unwrap(), [0x78, 0x9a]);
    }

    #[test]
    fn only_the_right_bytes_can_be_written() {
        let bench = Bench::open(
            new(PatternConfig {
                size: Size(1 << 30),
            })
            .unwrap(),
        );
        let mut bytes = bench.read(12345, 70_000).unwrap();
        bench.write(12345, &bytes).unwrap();
        bytes[65_000] ^= 1;
        let error = bench.write(12345, &bytes).unwrap_err();
        assert_eq!(error, Errno::EIO);
        assert!(error.to_string().contains("offset 77345"), "{error}");
        bench.plain(Op::WriteZeroes, 0, 15).unwrap();
        assert_eq!(bench.plain(Op::WriteZeroes, 0, 16).unwrap_err(), Errno::EIO);
        assert_eq!(bench.plain(Op::Discard, 0, 16).unwrap_err(), Errno::ENOTSUP);
    }
}
