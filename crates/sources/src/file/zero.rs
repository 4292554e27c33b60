//! Write zeroes and discard: by the cheapest call that the file has.
//!
//! | asked for | regular file | block device |
//! | --- | --- | --- |
//! | zeroes, may become a hole | punch a hole, else zero the range | zero by unmapping, else zero the range |
//! | zeroes, NO_HOLE | zero the range | zero the range |
//! | discard | punch a hole | BLKDISCARD |
//!
//! All but the last are fallocate(2), which the ring knows. On a block device its punch means "zero,
//! by unmapping if that gives zeroes, and fail if only writing would", and its zero range means "zero,
//! if need be by writing" (the same as BLKZEROOUT).
//!
//! The last resort for zeroes is writing them; for a discard, which is a hint, doing nothing. A call
//! that the file has not is tried once and remembered. A fast zero never gets as far as writing: it
//! fails with `ENOTSUP` at once. With FUA, a flush follows before the request completes.

use std::rc::Rc;

use block::{Data, Errno, Flags, IoError, Iov, Op, Outcome, Queue, QueueExt, Request};
use reactor::{FileVerb, IoFile, blkdev};

use super::{inode::Ability, queue::Shared};

// linux/falloc.h
const KEEP_SIZE: i32 = 0x01;
const PUNCH_HOLE: i32 = 0x02;
const ZERO_RANGE: i32 = 0x10;

/// Zeroes written per step, in bytes.
const STEP: u64 = 1 << 20;

impl Shared {
    pub(super) fn zero_or_discard(self: &Rc<Self>, req: Request) {
        let this = self.clone();
        self.reactor.spawn(async move {
            let outcome = this.serve(&req).await;
            req.complete(outcome);
        });
    }

    async fn serve(self: &Rc<Self>, req: &Request) -> Outcome {
        let fua = req.flags().contains(Flags::FUA);
        if fua {
            self.file.inode.poison(&self.file.node)?;
        }
        // A direct file's last block may end behind the file: those bytes are zero, and not there.
        let (start, end) = (req.offset(), req.end().min(self.file.size()));
        if start < end {
            match req.op() {
                Op::WriteZeroes => self.write_zeroes(start, end, req.flags()).await?,
                _ => self.discard(start, end).await?,
            }
        }
        match fua {
            true => self.settle().await,
            false => Ok(()),
        }
    }

    async fn write_zeroes(self: &Rc<Self>, start: u64, end: u64, flags: Flags) -> Outcome {
        let (first, last) = self.whole_blocks(start, end);
        if first >= last {
            return match flags.contains(Flags::FAST_ZERO) {
                true => Err(Errno::ENOTSUP.into()),
                false => self.write_out(start, end).await,
            };
        }
        // First what may be refused, so that a refusal comes before any work.
        self.zero_blocks(first, last, flags).await?;
        self.write_out(start, first).await?;
        self.write_out(last, end).await
    }

    async fn zero_blocks(self: &Rc<Self>, first: u64, last: u64, flags: Flags) -> Outcome {
        let inode = &self.file.inode;
        if !flags.contains(Flags::NO_HOLE) {
            let mode = PUNCH_HOLE | KEEP_SIZE;
            if self.allocate(&inode.punch_hole, mode, first, last).await? {
                return Ok(());
            }
        }
        let fast = flags.contains(Flags::FAST_ZERO);
        // On a block device the kernel may write the zeroes itself.
        if !(fast && self.file.block_device) {
            let mode = ZERO_RANGE | KEEP_SIZE;
            if self.allocate(&inode.zero_range, mode, first, last).await? {
                return Ok(());
            }
        }
        match fast {
            true => Err(Errno::ENOTSUP.into()),
            false => self.write_out(first, last).await,
        }
    }

    async fn discard(self: &Rc<Self>, start: u64, end: u64) -> Outcome {
        let (first, last) = self.whole_blocks(start, end);
        let inode = &self.file.inode;
        if first >= last {
            return Ok(());
        }
        if !self.file.block_device {
            let mode = PUNCH_HOLE | KEEP_SIZE;
            self.allocate(&inode.punch_hole, mode, first, last).await?;
            return Ok(());
        }
        if !inode.discard.may() {
            return Ok(());
        }
        let file = self.file.clone();
        let job = move || blkdev::discard(&*file.data, first, last - first);
        let tried = match self.reactor.blocking(job).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(IoError::from(error)),
            Err(_) => Err(Errno::EIO.into()),
        };
        known(&inode.discard, tried).map(drop)
    }

    /// Calls fallocate on a range. False, if the file has no such call.
    async fn allocate(
        &self,
        ability: &Ability,
        mode: i32,
        first: u64,
        last: u64,
    ) -> Result<bool, IoError> {
        if !ability.may() {
            return Ok(false);
        }
        let call = Call(&self.data, FileVerb::Fallocate { mode });
        let req = self.reactor.request(Op::WriteZeroes, first, last - first);
        known(ability, call.call(req).await.take_outcome())
    }

    /// Writes zeroes over a range, one step after the other.
    async fn write_out(self: &Rc<Self>, start: u64, end: u64) -> Outcome {
        if start >= end {
            return Ok(());
        }
        let step = STEP.min((end - start).next_multiple_of(u64::from(self.file.block)));
        let zeroes = Iov::of_chunk(self.reactor.chunk(step as usize), step as usize);
        zeroes.zero(0, step as usize);
        let mut at = start;
        while at < end {
            let n = (step - at % step).min(end - at);
            let mut write = self.reactor.request(Op::Write, at, n);
            *write.data_mut() = Data::from(zeroes.slice(0, n as usize));
            self.queue().call(write).await.take_outcome()?;
            at += n;
        }
        Ok(())
    }

    /// A flush, for what was just zeroed.
    async fn settle(self: &Rc<Self>) -> Outcome {
        let flush = self.reactor.request(Op::Flush, 0, 0);
        self.queue().call(flush).await.take_outcome()
    }

    /// The whole blocks in a range: all of it, on a regular file.
    fn whole_blocks(&self, start: u64, end: u64) -> (u64, u64) {
        match self.file.block_device {
            true => {
                let block = u64::from(self.file.block);
                (start.next_multiple_of(block), end & !(block - 1))
            }
            false => (start, end),
        }
    }
}

/// One operation on a file, as a queue to call.
struct Call<'a>(&'a Rc<IoFile>, FileVerb);

impl Queue for Call<'_> {
    fn submit(&self, req: Request) {
        self.0.submit(self.1, req.offset(), req);
    }
}

/// It worked (true), or the file has no such call (false, and that is remembered), or it failed.
fn known(ability: &Ability, outcome: Outcome) -> Result<bool, IoError> {
    match outcome {
        Ok(()) => Ok(true),
        Err(error) => match error.errno() {
            Errno::ENOTSUP | Errno::ENOSYS | Errno::ENODEV | Errno::EPERM => {
                ability.cannot();
                Ok(false)
            }
            // Not for this range; perhaps for another.
            Errno::EINVAL => Ok(false),
            _ => Err(error),
        },
    }
}
