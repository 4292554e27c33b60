//! Operations that change the disk: write, write zeroes, discard.
//!
//! A write to blocks that are in the overlay goes down as it is. Any other takes the range lock of
//! its blocks and becomes one write to the overlay: its own bytes, with whatever it leaves of its
//! first and last block before and behind them.
//!
//! *Why no lock for the first kind.* Such a write can meet a trim of the same block, but then the
//! two overlap, and either may win. It cannot meet a copy from the base that would undo it: a block
//! never goes back to the base, and one that was trimmed comes back with zeroes written anew.

use std::{future::poll_fn, ops::Range, rc::Rc, task::Poll};

use block::{
    Data, Errno, Flags, IoError, Iov, MAX_TRANSFER, Op, Outcome, QueueExt, Request,
    range_lock::RangeGuard,
};

use super::{
    lower::{Lower, range},
    map::State,
};

/// Blocks that a trim changes under one lock and in one turn.
const STEP_BLOCKS: u64 = 1 << 17;

impl Lower {
    pub fn write(self: &Rc<Self>, mut req: Request) {
        // Nothing to make durable: see the module `cow`.
        req.set_flags(req.flags().without(Flags::FUA));
        let range = range(&req);
        if self.overlay.one_state(&range) == Some(State::Overlay) {
            return self.over.submit(req);
        }
        let blocks = self.overlay.blocks(&range);
        let bytes = self.overlay.bytes(&blocks);
        if bytes == range {
            if let Some(guard) = self.overlay.lock.try_exclusive(blocks.clone()) {
                return self.write_whole(req, blocks, guard);
            }
        } else if bytes.end - bytes.start > u64::from(MAX_TRANSFER) {
            // With the rest of its blocks it would be too long for one write.
            let middle = self
                .overlay
                .bytes(&(blocks.start..blocks.start + (blocks.end - blocks.start) / 2))
                .end;
            let (front, back) = req.split_at(middle - range.start);
            self.write(front);
            return self.write(back);
        }
        let (this, turn) = (self.clone(), self.overlay.lock.exclusive(blocks.clone()));
        self.reactor.spawn(async move {
            let guard = turn.await;
            if bytes == range {
                return this.write_whole(req, blocks, guard);
            }
            let mut req = req;
            let outcome = this.write_ragged(&mut req, blocks).await;
            drop(guard);
            req.complete(outcome);
        });
    }

    /// A write of whole blocks, which are locked.
    fn write_whole(self: &Rc<Self>, mut req: Request, blocks: Range<u64>, guard: RangeGuard) {
        let this = self.clone();
        req.on_complete(move |done| {
            if done.outcome().is_ok() {
                this.overlay.map.set(blocks, State::Overlay);
            }
            drop(guard);
        });
        self.over.submit(req);
    }

    /// A write that leaves something of its first or last block, all of which are locked.
    async fn write_ragged(&self, req: &mut Request, blocks: Range<u64>) -> Outcome {
        let (head, tail) = self.around(range(req), &blocks).await?;
        let len = |part: &Option<Iov>| part.as_ref().map_or(0, |iov| iov.len() as u64);
        let (start, end) = (req.offset() - len(&head), req.end() + len(&tail));
        // A child, so that the caller's memory stays in place whatever happens to this task.
        let mut write = req.child(Op::Write, 0, req.len());
        let Data::Iov(own) = std::mem::take(write.data_mut()) else {
            unreachable!("a write carries bytes");
        };
        let parts: Vec<Iov> = [head, Some(own), tail].into_iter().flatten().collect();
        write.set_offset(start);
        write.set_len(end - start);
        *write.data_mut() = Iov::gather(&parts).into();
        self.over.call(write).await.take_outcome()?;
        self.overlay.map.set(blocks, State::Overlay);
        Ok(())
    }

    /// What is before and behind a range in its first and last block, unless it is in the overlay
    /// already.
    async fn around(
        &self,
        range: Range<u64>,
        blocks: &Range<u64>,
    ) -> Result<(Option<Iov>, Option<Iov>), IoError> {
        let bytes = self.overlay.bytes(blocks);
        let (first, last) = (
            self.overlay.map.state(blocks.start),
            self.overlay.map.state(blocks.end - 1),
        );
        let has_head = bytes.start < range.start && first != State::Overlay;
        let has_tail = range.end < bytes.end && last != State::Overlay;
        if has_head && has_tail && blocks.start + 1 == blocks.end {
            // One block: one read of all of it costs less than two of its parts.
            let all = self.fill(first, bytes.clone()).bytes().await?;
            let (at, behind) = (range.start - bytes.start, range.end - bytes.start);
            let head = all.slice(0, at as usize);
            let tail = all.slice(behind as usize, (bytes.end - range.end) as usize);
            return Ok((Some(head), Some(tail)));
        }
        // Both are under way before the first is waited for.
        let head = has_head.then(|| self.fill(first, bytes.start..range.start));
        let tail = has_tail.then(|| self.fill(last, range.end..bytes.end));
        let head = match head {
            Some(head) => Some(head.bytes().await?),
            None => None,
        };
        let tail = match tail {
            Some(tail) => Some(tail.bytes().await?),
            None => None,
        };
        Ok((head, tail))
    }

    pub fn write_zeroes(self: &Rc<Self>, req: Request) {
        let this = self.clone();
        self.reactor.spawn(async move {
            let outcome = this.zero(range(&req), req.flags()).await;
            req.complete(outcome);
        });
    }

    /// Only whole blocks are trimmed: a trim is a hint, and the rest of a block may be in use.
    pub fn discard(self: &Rc<Self>, req: Request) {
        let blocks = self.overlay.whole_blocks(&range(&req));
        let Some(blocks) = blocks.filter(|blocks| !blocks.is_empty()) else {
            return req.done();
        };
        let this = self.clone();
        self.reactor.spawn(async move {
            this.trim(blocks).await;
            req.done();
        });
    }

    async fn zero(&self, range: Range<u64>, flags: Flags) -> Outcome {
        let keep = flags.contains(Flags::NO_HOLE);
        let (edges, blocks) = match self.overlay.whole_blocks(&range) {
            None => ([range.clone(), range.end..range.end], 0..0),
            Some(blocks) => {
                let bytes = self.overlay.bytes(&blocks);
                // Without a whole block in between, both edges meet at the boundary.
                let behind = bytes.end.max(bytes.start);
                (
                    [range.start..bytes.start.min(range.end), behind..range.end],
                    blocks,
                )
            }
        };
        if flags.contains(Flags::FAST_ZERO) && !self.is_fast(&edges, keep) {
            return Err(Errno::ENOTSUP.into());
        }
        for edge in edges.into_iter().filter(|edge| !edge.is_empty()) {
            self.zero_in_block(edge, keep).await?;
        }
        if keep {
            self.provide(blocks, flags.without(Flags::FUA)).await
        } else {
            self.trim(blocks).await;
            Ok(())
        }
    }

    /// Zeroing takes no copying and no writing of zeroes.
    fn is_fast(&self, edges: &[Range<u64>], keep: bool) -> bool {
        let mut edges = edges.iter().filter(|edge| !edge.is_empty());
        let copies =
            |edge: &Range<u64>| match self.overlay.map.state(self.overlay.block_at(edge.start)) {
                State::Base => true,
                State::Zero => keep,
                State::Overlay => false,
            };
        !edges.any(copies) && (!keep || self.overlay.punches)
    }

    /// Zeroes a range that lies inside one block.
    async fn zero_in_block(&self, range: Range<u64>, keep: bool) -> Outcome {
        let block = self.overlay.block_at(range.start);
        let blocks = block..block + 1;
        let _guard = self.overlay.lock.exclusive(blocks.clone()).await;
        match self.overlay.map.state(block) {
            State::Overlay => self.zero_over(range, Flags::NONE).await,
            State::Zero if !keep => Ok(()),
            state => {
                let bytes = self.overlay.bytes(&blocks);
                let data = self.fill(state, bytes.clone()).bytes().await?;
                let (at, len) = (range.start - bytes.start, range.end - range.start);
                data.zero(at as usize, len as usize);
                self.write_over(bytes.start, data).await?;
                self.overlay.map.set(blocks, State::Overlay);
                Ok(())
            }
        }
    }

    /// Forgets what blocks hold: they read as zeroes and take no space.
    async fn trim(&self, blocks: Range<u64>) {
        let mut at = blocks.start;
        while at < blocks.end {
            let stop = (at + STEP_BLOCKS).min(blocks.end);
            let _guard = self.overlay.lock.exclusive(at..stop).await;
            for (state, run) in self.overlay.runs(at..stop) {
                let bytes = self.overlay.bytes(&run);
                self.overlay.map.set(run, State::Zero);
                if state == State::Overlay && self.overlay.punches {
                    // To give the space back: if it fails, space is all that is lost. By zeroing,
                    // not by a discard: a read that is under way may still look there, and must
                    // see the old bytes or zeroes.
                    let _ = self.zero_over(bytes, Flags::NONE).await;
                }
            }
            at = stop;
            yield_now().await;
        }
    }

    /// Zeroes whole blocks, with space set aside for them (NBD_CMD_FLAG_NO_HOLE).
    async fn provide(&self, blocks: Range<u64>, flags: Flags) -> Outcome {
        let mut at = blocks.start;
        while at < blocks.end {
            let stop = (at + STEP_BLOCKS).min(blocks.end);
            let _guard = self.overlay.lock.exclusive(at..stop).await;
            self.zero_over(self.overlay.bytes(&(at..stop)), flags)
                .await?;
            self.overlay.map.set(at..stop, State::Overlay);
            at = stop;
        }
        Ok(())
    }
}

/// Lets the reactor do something else before the next step.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}
