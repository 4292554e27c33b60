//! nbdkit's first example: a disk that looks a little like one of 100 MB with a single, empty
//! partition. Nothing can be written to it.
//!
//! It also is our example of the smallest source there can be: bytes, limits, and a queue.

use std::sync::Arc;

use block::{Result, SharedBuf, Source};
use config::{Arg, Config};

use crate::{
    blob,
    partition_table::{
        mbr::{self, Entry},
        sectors,
    },
    registry, single,
};

/// A read-only disk of 100 MB with one empty partition: an example.
#[derive(Config, Debug, Clone, PartialEq, Eq)]
pub struct Example1Config {}

/// The source.
///
/// # Errors
/// None: the signature is that of every source.
pub fn new(_: Example1Config) -> Result<Arc<dyn Source>> {
    let bytes = SharedBuf::from_vec(boot_sector());
    Ok(single::source("example1", blob::limits(SIZE), move |_| {
        blob::queue(bytes.clone())
    }))
}

pub(crate) fn make(args: &[Arg]) -> Result<Arc<dyn Source>> {
    new(registry::parse(args)?)
}

const SIZE: u64 = 100 << 20;

/// A master boot record with one Linux partition up to the end of the disk.
fn boot_sector() -> Vec<u8> {
    const LINUX: u8 = 0x83;
    /// Where the partition starts, in sectors: at 1 MiB, as partitioning programs have it.
    const START: u64 = 2048;
    mbr::record(&[Entry {
        bootable: false,
        system: LINUX,
        start: START,
        sectors: sectors(SIZE) - START,
    }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;
    use block::{Errno, ExtentFlags};

    #[test]
    fn there_is_one_partition() {
        let bench = Bench::open(make(&[]).unwrap());
        let limits = bench.limits();
        assert_eq!((limits.size, limits.read_only()), (SIZE, true));
        let sector = bench.read(0, 512).unwrap();
        assert_eq!(sector[510..], [0x55, 0xaa]);
        let word = |at: usize| u32::from_le_bytes(sector[at..at + 4].try_into().unwrap());
        let (start, sectors) = (word(446 + 8), word(446 + 12));
        assert_eq!(u64::from(start + sectors) * 512, SIZE);
        assert_eq!(bench.read(500, 5000).unwrap()[..12], sector[500..]);
        let rest = bench.read(512, 1 << 20).unwrap();
        assert!(rest.iter().all(|byte| *byte == 0));
        assert_eq!(bench.write(0, &[1]).unwrap_err(), Errno::ENOTSUP);
        let list = bench.extents(0, SIZE).unwrap();
        let flags: Vec<u64> = list.allocation().iter().map(|e| e.flags).collect();
        assert_eq!(flags, [ExtentFlags::DATA.0, ExtentFlags::HOLE_ZERO.0]);
        assert_eq!((list.covered(), list.allocation()[0].len), (SIZE, 512));
        assert!(bench.extents(512, 512).unwrap().all_zero());
        let error = make(&[Arg::parse("size=1M")]).err().expect("no parameters");
        assert_eq!(error.chain(), "example1: unknown parameter 'size'");
    }
}
