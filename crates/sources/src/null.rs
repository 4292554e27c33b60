//! A disk that is nothing: reads give zeroes, writes are forgotten.
//!
//! It is the floor under every measurement: whatever it costs to serve it is the cost of the layers
//! above. So it makes nothing, copies nothing and shares nothing; a read is one hole.

use std::{rc::Rc, sync::Arc};

use block::{
    Data, Errno, ExtentFlags, ExtentList, Limits, Op, OpSet, Queue, Request, Result, Source,
    Support,
};
use config::{Arg, Config, Size};

use crate::{registry, single};

/// A disk that reads as zeroes and forgets what is written to it.
#[derive(Config, Debug, Clone, PartialEq, Eq)]
pub struct NullConfig {
    /// Size of the disk.
    #[config(magic, default = "0")]
    pub size: Size,
}

/// The source.
///
/// # Errors
/// None: the signature is that of every source.
pub fn new(config: NullConfig) -> Result<Arc<dyn Source>> {
    let ops = OpSet::DISK.without(Op::GetId);
    let mut limits = Limits::new(config.size.0, ops);
    limits.fua = Support::Native;
    limits.fast_zero = true;
    limits.multi_conn = true;
    Ok(single::source("null", limits, |_| Rc::new(NullQueue)))
}

pub(crate) fn make(args: &[Arg]) -> Result<Arc<dyn Source>> {
    new(registry::parse(args)?)
}

struct NullQueue;

impl Queue for NullQueue {
    #[inline]
    fn submit(&self, req: Request) {
        match req.op() {
            Op::Read => req.give_zeroes(),
            Op::Write | Op::Flush | Op::WriteZeroes | Op::Discard | Op::Cache => req.done(),
            Op::Extents => give_extents(req, ExtentFlags::HOLE_ZERO),
            _ => req.fail(Errno::ENOTSUP),
        }
    }
}

/// Answers an extents query: all of it is alike.
pub(crate) fn give_extents(mut req: Request, flags: ExtentFlags) {
    *req.data_mut() = Data::Extents(ExtentList::one(req.len(), flags));
    req.done();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;
    use block::Access;

    #[test]
    fn everything_succeeds_and_nothing_stays() {
        let bench = Bench::open(
            new(NullConfig {
                size: Size(1 << 40),
            })
            .unwrap(),
        );
        bench.write(5, b"hello").unwrap();
        assert_eq!(bench.read(0, 10).unwrap(), [0; 10]);
        for op in [Op::Flush, Op::WriteZeroes, Op::Discard, Op::Cache] {
            bench.plain(op, 0, 1 << 39).unwrap();
        }
        let list = bench.extents(1 << 20, 1 << 39).unwrap();
        assert_eq!((list.covered(), list.all_zero()), (1 << 39, true));
        assert_eq!(bench.plain(Op::GetId, 0, 0).unwrap_err(), Errno::ENOTSUP);
    }

    #[test]
    fn a_reader_cannot_write() {
        let source = new(NullConfig { size: Size(512) }).unwrap();
        let bench = Bench::open_as(source, Access::ReadOnly);
        assert!(bench.limits().read_only());
        assert_eq!(bench.write(0, &[1]).unwrap_err(), Errno::ENOTSUP);
        bench.plain(Op::Flush, 0, 0).unwrap();
    }
}
