//! The overlay of one export: where changed blocks are, and what is known about each.

use std::{ops::Range, sync::Arc};

use block::{
    Device, Error, ErrorKind, Limits, Normalize, Op, OpenContext, RangeLock, Result, Support,
    WrapDevice,
};

use super::map::{BlockMap, MAX_BLOCKS, State};

/// Shared by all clients of an export, on all reactors.
pub(super) struct Overlay {
    /// The changed blocks, each at its own offset.
    pub device: Arc<dyn Device>,
    pub map: BlockMap,
    /// Held, by block number, for every change of the map.
    pub lock: RangeLock,
    /// Size of the disk in bytes.
    pub size: u64,
    /// Zeroing a range of `device` gives its space back, and is quick.
    pub punches: bool,
    /// Log2 of the block size.
    shift: u32,
}

impl Overlay {
    /// An empty one, for a disk of `size` bytes in blocks of `block` bytes (a power of two).
    pub async fn new(cx: &OpenContext, size: u64, block: u64) -> Result<Overlay> {
        let blocks = size.div_ceil(block);
        if blocks > MAX_BLOCKS {
            let why = format!("a disk of {size} bytes has too many blocks of {block} bytes");
            return Err(Error::new(ErrorKind::Unsupported, why).hint("raise cow-block-size"));
        }
        let scratch = cx.host.scratch(&cx.reactor, size).await?;
        // Zeroes are needed: by writing them, if there is no other way.
        let zeroing = |limits: &mut Limits| {
            if !limits.support(Op::WriteZeroes).is_offered() {
                limits.set(Op::WriteZeroes, Support::Emulated);
            }
        };
        let device = Normalize::wrap(WrapDevice::new(scratch, zeroing, |_, queue| Ok(queue)));
        Ok(Overlay {
            punches: device.limits().fast_zero,
            device,
            map: BlockMap::new(blocks),
            lock: RangeLock::new(),
            size,
            shift: block.trailing_zeros(),
        })
    }

    /// Size of a block in bytes.
    pub fn block(&self) -> u64 {
        1 << self.shift
    }

    /// The block that holds a byte.
    pub fn block_at(&self, offset: u64) -> u64 {
        offset >> self.shift
    }

    /// All blocks that hold a byte of the range.
    pub fn blocks(&self, range: &Range<u64>) -> Range<u64> {
        self.block_at(range.start)..self.block_at(range.end + (self.block() - 1))
    }

    /// The blocks of which every byte is in the range: empty, at the place where they would be, if
    /// it reaches over a boundary only; `None` if it lies inside one block.
    pub fn whole_blocks(&self, range: &Range<u64>) -> Option<Range<u64>> {
        let first = self.block_at(range.start + (self.block() - 1));
        // The last block of the disk may be a short one.
        let last = match range.end == self.size {
            true => self.blocks(range).end,
            false => self.block_at(range.end),
        };
        (first <= last).then_some(first..last)
    }

    /// The bytes of a range of blocks.
    pub fn bytes(&self, blocks: &Range<u64>) -> Range<u64> {
        (blocks.start << self.shift)..self.size.min(blocks.end << self.shift)
    }

    /// The runs of blocks of one state in a range of blocks.
    pub fn runs(&self, blocks: Range<u64>) -> impl Iterator<Item = (State, Range<u64>)> {
        let mut at = blocks.start;
        std::iter::from_fn(move || {
            (at < blocks.end).then(|| {
                let (state, end) = self.map.run(at..blocks.end);
                (state, std::mem::replace(&mut at, end)..end)
            })
        })
    }

    /// The runs of one state in a range of bytes.
    pub fn byte_runs(&self, range: Range<u64>) -> impl Iterator<Item = (State, Range<u64>)> {
        self.runs(self.blocks(&range)).map(move |(state, run)| {
            let bytes = self.bytes(&run);
            (
                state,
                bytes.start.max(range.start)..bytes.end.min(range.end),
            )
        })
    }

    /// The state of a whole range of bytes, if it is one.
    pub fn one_state(&self, range: &Range<u64>) -> Option<State> {
        let blocks = self.blocks(range);
        let (state, end) = self.map.run(blocks.clone());
        (end == blocks.end).then_some(state)
    }
}
