//! Operations without a caller's bytes: shaped to the device's blocks, or done by reads and writes.

use std::rc::Rc;

use super::Inner;
use crate::{
    data::{Data, Iov},
    error::{Errno, Outcome},
    extents::{ExtentFlags, ExtentList},
    limits::Support,
    op::{Flags, Op},
    queue::QueueExt,
    request::Request,
};

/// Zeroes written, or bytes read into nowhere, per step of an emulation.
const STEP: u64 = 1 << 20;

impl Inner {
    pub(super) fn write_zeroes(self: &Rc<Self>, req: Request) {
        if self.limits.support(Op::WriteZeroes) == Support::Emulated {
            if req.flags().contains(Flags::FAST_ZERO) {
                return req.fail(Errno::ENOTSUP);
            }
            return self.zero_by_writes(req);
        }
        let block = self.block();
        let (start, end) = (req.offset(), req.end());
        let (first, last) = (start.next_multiple_of(block), end & !(block - 1));
        if first >= last && !self.is_aligned(&req) {
            return self.zero_by_writes(req);
        }
        if !self.is_aligned(&req) {
            let split = req.split();
            for (from, to) in [(start, first), (first, last), (last, end)] {
                if from < to {
                    self.submit(split.part(from - start, to - from));
                }
            }
            return;
        }
        if req.len() > self.limits.max_range {
            return self.split(req, self.limits.max_range & !(block - 1));
        }
        self.write_aligned(req);
    }

    /// Zeroes a range by writing zeroes, one step after the other.
    fn zero_by_writes(self: &Rc<Self>, req: Request) {
        let this = self.clone();
        self.reactor.spawn(async move {
            let outcome = this.write_steps(&req).await;
            req.complete(outcome);
        });
    }

    async fn write_steps(self: &Rc<Self>, req: &Request) -> Outcome {
        let step = STEP.min(u64::from(self.limits.max_transfer));
        let most = step.min(req.len()) as usize;
        let zeroes = Iov::of_chunk(self.reactor.chunk(most), most);
        zeroes.zero(0, most);
        let mut at = req.offset();
        while at < req.end() {
            // Whole steps of the device from here on: only the first and last are ragged.
            let n = (step - at % step).min(req.end() - at);
            let mut write = self.reactor.request(Op::Write, at, n);
            write.set_flags(
                req.flags()
                    .without(Flags::NO_HOLE)
                    .without(Flags::FAST_ZERO),
            );
            *write.data_mut() = zeroes.slice(0, n as usize).into();
            self.as_queue().call(write).await.take_outcome()?;
            at += n;
        }
        Ok(())
    }

    /// A discard is a hint: ragged ends stay as they are.
    pub(super) fn discard(self: &Rc<Self>, mut req: Request) {
        let block = self.block();
        let (first, last) = (
            req.offset().next_multiple_of(block),
            req.end() & !(block - 1),
        );
        if req.op() == Op::SecureErase && !self.is_aligned(&req) {
            return req.fail(Errno::EINVAL);
        }
        if first >= last {
            return req.done();
        }
        req.set_offset(first);
        req.set_len(last - first);
        if req.len() > self.limits.max_range {
            return self.split(req, self.limits.max_range & !(block - 1));
        }
        self.write_aligned(req);
    }

    pub(super) fn cache(self: &Rc<Self>, mut req: Request) {
        if self.limits.support(Op::Cache) == Support::Emulated {
            let this = self.clone();
            return self.reactor.spawn(async move {
                let outcome = this.read_steps(&req).await;
                req.complete(outcome);
            });
        }
        let block = self.block();
        let (first, last) = (
            req.offset() & !(block - 1),
            req.end().next_multiple_of(block),
        );
        req.set_offset(first);
        req.set_len((last - first).min(self.limits.max_range & !(block - 1)));
        self.next.submit(req);
    }

    /// Brings a range nearer by reading it.
    async fn read_steps(self: &Rc<Self>, req: &Request) -> Outcome {
        let mut at = req.offset();
        while at < req.end() {
            let n = STEP.min(req.end() - at);
            let mut read = self.reactor.request(Op::Read, at, n);
            *read.data_mut() = Data::Wanted;
            self.as_queue().call(read).await.take_outcome()?;
            at += n;
        }
        Ok(())
    }

    pub(super) fn extents(self: &Rc<Self>, mut req: Request) {
        if self.limits.support(Op::Extents) == Support::Emulated {
            *req.data_mut() = Data::Extents(ExtentList::one(req.len(), ExtentFlags::DATA));
            return req.done();
        }
        let block = self.block();
        let (start, len) = (req.offset(), req.len());
        let (first, last) = (start & !(block - 1), req.end().next_multiple_of(block));
        // An answer may cover less than was asked for, so a long question is simply cut.
        let most = self.limits.max_range & !(block - 1);
        if self.is_aligned(&req) && len <= most {
            return self.next.submit(req);
        }
        req.set_offset(first);
        req.set_len((last - first).min(most));
        req.on_complete(move |done| {
            if let Data::Extents(list) = done.data_mut() {
                list.advance(start - first);
                list.truncate(len);
            }
        });
        self.next.submit(req);
    }

    fn as_queue(self: &Rc<Self>) -> super::NormalizeQueue {
        super::NormalizeQueue(self.clone())
    }
}
