//! A disk of no bytes: the smallest export there can be, for testing clients.

use std::{rc::Rc, sync::Arc};

use block::{Errno, ExtentFlags, Limits, Op, OpSet, Queue, Request, Result, Source};
use config::{Arg, Config};

use crate::{null::give_extents, registry, single};

/// A disk of no bytes at all.
#[derive(Config, Debug, Clone, PartialEq, Eq)]
pub struct ZeroConfig {}

/// The source.
///
/// # Errors
/// None: the signature is that of every source.
pub fn new(_: ZeroConfig) -> Result<Arc<dyn Source>> {
    let ops = OpSet::of(&[Op::Read, Op::Cache, Op::Extents]);
    let mut limits = Limits::new(0, ops);
    limits.multi_conn = true;
    Ok(single::source("zero", limits, |_| Rc::new(ZeroQueue)))
}

pub(crate) fn make(args: &[Arg]) -> Result<Arc<dyn Source>> {
    new(registry::parse(args)?)
}

struct ZeroQueue;

impl Queue for ZeroQueue {
    fn submit(&self, req: Request) {
        match req.op() {
            Op::Read => req.give_zeroes(),
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
    fn there_is_nothing_to_read() {
        let bench = Bench::open(new(ZeroConfig {}).unwrap());
        assert_eq!((bench.limits().size, bench.limits().read_only()), (0, true));
        for op in [Op::Write, Op::Flush] {
            assert_eq!(bench.plain(op, 0, 0).unwrap_err(), Errno::ENOTSUP);
        }
    }
}
