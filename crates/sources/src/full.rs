//! A full disk: for testing what a program does when no space is left.
//!
//! Reads give zeroes and the whole disk is a hole, so everything that changes the disk fails with
//! `ENOSPC`: writes, write zeroes, and as in nbdkit discard too, for testing what a program does
//! when even that fails. A fast write zeroes is refused with `ENOTSUP` instead, because this disk
//! cannot zero faster than by writing.

use std::{rc::Rc, sync::Arc};

use block::{Errno, ExtentFlags, Flags, Limits, Op, OpSet, Queue, Request, Result, Source};
use config::{Arg, Config, Size};

use crate::{null::give_extents, registry, single};

/// A disk on which no space is left: it reads as zeroes, and every write fails with ENOSPC.
#[derive(Config, Debug, Clone, PartialEq, Eq)]
pub struct FullConfig {
    /// Size of the disk.
    #[config(magic)]
    pub size: Size,
}

/// The source.
///
/// # Errors
/// None: the signature is that of every source.
pub fn new(config: FullConfig) -> Result<Arc<dyn Source>> {
    let ops = [
        Op::Read,
        Op::Write,
        Op::WriteZeroes,
        Op::Discard,
        Op::Cache,
        Op::Extents,
    ];
    let mut limits = Limits::new(config.size.0, OpSet::of(&ops));
    limits.multi_conn = true;
    // Answered at once, if only with no, as nbdkit does.
    limits.fast_zero = true;
    Ok(single::source("full", limits, |_| Rc::new(FullQueue)))
}

pub(crate) fn make(args: &[Arg]) -> Result<Arc<dyn Source>> {
    new(registry::parse(args)?)
}

struct FullQueue;

impl Queue for FullQueue {
    fn submit(&self, req: Request) {
        match req.op() {
            Op::Read => req.give_zeroes(),
            Op::WriteZeroes if req.flags().contains(Flags::FAST_ZERO) => req.fail(Errno::ENOTSUP),
            Op::Write | Op::WriteZeroes | Op::Discard => req.fail(Errno::ENOSPC),
            Op::Cache => req.done(),
            Op::Extents => give_extents(req, ExtentFlags::HOLE_ZERO),
            _ => req.fail(Errno::ENOTSUP),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;

    #[test]
    fn no_space_is_left() {
        let bench = Bench::open(
            new(FullConfig {
                size: Size(1 << 20),
            })
            .unwrap(),
        );
        assert_eq!(bench.write(0, &[0]).unwrap_err(), Errno::ENOSPC);
        for op in [Op::WriteZeroes, Op::Discard] {
            assert_eq!(bench.plain(op, 0, 9).unwrap_err(), Errno::ENOSPC);
        }
        assert_eq!(
            bench
                .flagged(Op::WriteZeroes, 0, 9, Flags::FAST_ZERO)
                .unwrap_err(),
            Errno::ENOTSUP
        );
        assert_eq!(bench.plain(Op::Flush, 0, 0).unwrap_err(), Errno::ENOTSUP);
        bench.plain(Op::Cache, 0, 1 << 20).unwrap();
        assert_eq!(bench.read(1, 3).unwrap(), [0; 3]);
        assert!(bench.extents(0, 1 << 20).unwrap().all_zero());
    }
}
