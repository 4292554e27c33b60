//! A disk of ones: every bit is set, or every byte is another one; writes are forgotten.
//!
//! The counterpart of `null` for programs that look for zeroes and holes: here is only data. A read
//! hands out pieces of one buffer that all clients share, so it costs next to nothing.

use std::{rc::Rc, sync::Arc};

use block::{
    Errno, ExtentFlags, Limits, Op, OpSet, Piece, Queue, Request, Result, Segments, SharedBuf,
    SharedMem, Source, Support,
};
use config::{Arg, Config, Size};

use crate::{null::give_extents, registry, single};

/// A disk on which every byte is 0xff, or another one, and which forgets what is written to it.
#[derive(Config, Debug, Clone, PartialEq, Eq)]
pub struct OnesConfig {
    /// Size of the disk.
    #[config(magic, default = "0")]
    pub size: Size,
    /// The byte, from 0 to 255.
    ///
    /// It is data even if it is 0; for holes use `null`.
    #[config(default = "0xff")]
    pub byte: u8,
}

/// The source.
///
/// # Errors
/// None: the signature is that of every source.
pub fn new(config: OnesConfig) -> Result<Arc<dyn Source>> {
    let mut limits = Limits::new(config.size.0, OpSet::DISK.without(Op::GetId));
    limits.fua = Support::Native;
    limits.fast_zero = true;
    limits.multi_conn = true;
    let piece = SharedBuf::from_vec(vec![config.byte; PIECE]);
    Ok(single::source("ones", limits, move |_| {
        Rc::new(OnesQueue(piece.clone()))
    }))
}

pub(crate) fn make(args: &[Arg]) -> Result<Arc<dyn Source>> {
    new(registry::parse(args)?)
}

/// Length of the shared buffer: long enough that most reads are one piece.
const PIECE: usize = 1 << 20;

struct OnesQueue(Arc<SharedBuf>);

impl Queue for OnesQueue {
    fn submit(&self, req: Request) {
        match req.op() {
            Op::Read => self.read(req),
            Op::Write | Op::Flush | Op::WriteZeroes | Op::Discard | Op::Cache => req.done(),
            Op::Extents => give_extents(req, ExtentFlags::DATA),
            _ => req.fail(Errno::ENOTSUP),
        }
    }
}

impl OnesQueue {
    fn read(&self, req: Request) {
        let mut found = Segments::new();
        let mut left = req.len();
        while left > 0 {
            let n = left.min(PIECE as u64);
            let piece = SharedMem::of_shared(self.0.clone(), 0, n as usize);
            found.push(Piece::Mem(piece));
            left -= n;
        }
        req.give(found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;

    fn bench(words: &[&str]) -> Bench {
        let args: Vec<Arg> = words.iter().map(|word| Arg::parse(word)).collect();
        Bench::open(make(&args).unwrap())
    }

    #[test]
    fn every_byte_is_the_same() {
        for (words, byte) in [
            (&["1E"][..], 0xff),
            (&["1E", "byte=0x5a"], 0x5a),
            (&["1E", "byte=0"], 0),
        ] {
            let bench = bench(words);
            assert_eq!(bench.read(3, 100).unwrap(), [byte; 100]);
            let long = bench.read((1 << 60) - (3 << 20), 3 << 20).unwrap();
            assert!(long.len() == 3 << 20 && long.iter().all(|is| *is == byte));
        }
        assert_eq!(bench(&[]).limits().size, 0);
    }

    #[test]
    fn writes_are_forgotten_and_all_is_data() {
        let bench = bench(&["1M"]);
        bench.write(5, b"hello").unwrap();
        for op in [Op::Flush, Op::WriteZeroes, Op::Discard, Op::Cache] {
            bench.plain(op, 0, 1 << 20).unwrap();
        }
        assert_eq!(bench.read(0, 64).unwrap(), [0xff; 64]);
        let list = bench.extents(0, 1 << 20).unwrap();
        assert_eq!(list.allocation().len(), 1);
        assert_eq!(list.allocation()[0].flags, ExtentFlags::DATA.0);
    }

    #[test]
    fn only_a_byte_is_a_byte() {
        for (word, start) in [
            ("byte=256", "ones: byte=256: out of range (0 to 255)"),
            ("byte=-1", "ones: byte=-1: a negative number"),
            ("byte=x", "ones: byte=x: not a number"),
        ] {
            let error = make(&[Arg::parse(word)]).err().expect("refused").chain();
            assert!(error.starts_with(start), "{error}");
        }
    }
}
