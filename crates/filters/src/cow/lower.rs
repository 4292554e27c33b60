//! One reactor's way to both devices, and what all operations need: blocks copied up.

use std::{ops::Range, rc::Rc, sync::Arc};

use block::{Call, Flags, IoError, Iov, Op, OpSet, Outcome, Queue, QueueExt, Reactor, Request};

use super::{map::State, overlay::Overlay};
use crate::trigger::Trigger;

/// Bytes copied from the base to the overlay in one step.
const COPY_STEP: u64 = 1 << 20;

pub(super) struct Lower {
    pub base: Rc<dyn Queue>,
    /// What the base offers.
    pub base_ops: OpSet,
    /// The queue of the overlay's device.
    pub over: Rc<dyn Queue>,
    pub overlay: Arc<Overlay>,
    pub reactor: Reactor,
    pub on_read: Trigger,
    pub on_cache: bool,
}

/// The bytes a request is about.
pub(super) fn range(req: &Request) -> Range<u64> {
    req.offset()..req.end()
}

impl Lower {
    /// Moves those of the blocks that are in the base to the overlay. Stops early, and well, when
    /// `given_up` says so.
    pub async fn copy_up(&self, blocks: Range<u64>, given_up: impl Fn() -> bool) -> Outcome {
        let step = (COPY_STEP / self.overlay.block()).max(1);
        let mut at = blocks.start;
        while at < blocks.end && !given_up() {
            let stop = (at + step).min(blocks.end);
            let _guard = self.overlay.lock.exclusive(at..stop).await;
            for (state, run) in self.overlay.runs(at..stop) {
                if state == State::Base {
                    let bytes = self.overlay.bytes(&run);
                    let data = self.fill(state, bytes.clone()).bytes().await?;
                    self.write_over(bytes.start, data).await?;
                    self.overlay.map.set(run, State::Overlay);
                }
            }
            at = stop;
        }
        Ok(())
    }

    /// Begins to fetch what a range has in blocks that are not in the overlay.
    pub fn fill(&self, state: State, range: Range<u64>) -> Fill {
        let len = range.end - range.start;
        let bytes = Iov::of_chunk(self.reactor.chunk(len as usize), len as usize);
        let read = match state {
            State::Base => {
                let mut read = self.reactor.request(Op::Read, range.start, len);
                *read.data_mut() = bytes.clone().into();
                Some(self.base.call(read))
            }
            State::Zero => {
                bytes.zero(0, len as usize);
                None
            }
            State::Overlay => unreachable!("what is in the overlay stays there"),
        };
        Fill { bytes, read }
    }

    /// Writes to the overlay.
    pub async fn write_over(&self, offset: u64, bytes: Iov) -> Outcome {
        let mut write = self.reactor.request(Op::Write, offset, bytes.len() as u64);
        *write.data_mut() = bytes.into();
        self.over.call(write).await.take_outcome()
    }

    /// Zeroes a range of the overlay.
    pub async fn zero_over(&self, range: Range<u64>, flags: Flags) -> Outcome {
        let len = range.end - range.start;
        let mut zero = self.reactor.request(Op::WriteZeroes, range.start, len);
        zero.set_flags(flags);
        self.over.call(zero).await.take_outcome()
    }
}

/// Bytes on their way from the base.
pub(super) struct Fill {
    bytes: Iov,
    read: Option<Call>,
}

impl Fill {
    /// Waits for them.
    pub async fn bytes(self) -> Result<Iov, IoError> {
        if let Some(read) = self.read {
            read.await.take_outcome()?;
        }
        Ok(self.bytes)
    }
}
