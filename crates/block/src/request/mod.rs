//! The request: one pointer to a pooled body, on its way down and back up.
//!
//! A [`Request`] is passed by value from layer to layer by [`crate::Queue::submit`]. A layer may
//! rewrite it, push a completion frame, hold it back, split it, send it to another thread, or
//! complete it. Completing queues it; its frames run later, on the same reactor, from the
//! reactor's turn and never inside `submit`: no recursion, no re-entrancy, natural batches.
//!
//! *Contract.* A request completes exactly once. Dropping one completes it with `EIO` and counts it
//! as a bug of the layer that did it. It never leaves its thread, except as a [`Remote`]. A child
//! that shares its parent's data keeps the parent from completing, however the parent ends.
//!
//! *Why a pooled pointer and frames.* Five layers cost about 30 ns and no allocation this way;
//! boxed futures cost 200 ns and seven allocations, a fat request moved by value as much.

mod body;
mod child;
mod parked;
mod pool;
mod remote;
mod split;
mod ticket;

use std::rc::Rc;

use body::{Body, Owned};
pub use parked::Parked;
pub(crate) use pool::Core;
pub use pool::Counters;
pub use remote::Remote;
pub(crate) use remote::SentBody;
pub use split::Split;
pub use ticket::{CancelGroup, Ticket};

use crate::{
    data::{Data, Segments},
    error::{Errno, IoError, Outcome},
    op::{Flags, Op},
};

/// One operation on its way down. See the [module](self) for its contract.
#[must_use = "a request that is dropped completes with EIO"]
pub struct Request(Owned);

/// One operation on its way back up.
pub struct Completed(Owned);

impl Request {
    #[inline]
    fn from_body(body: Owned) -> Request {
        Request(body)
    }

    #[inline]
    fn into_body(self) -> Owned {
        let ptr = self.0.as_ptr();
        std::mem::forget(self);
        // SAFETY: the old owner is forgotten.
        unsafe { Owned::from_ptr(ptr) }
    }

    /// The operation.
    #[inline]
    pub fn op(&self) -> Op {
        self.0.op
    }

    /// First byte of the range.
    #[inline]
    pub fn offset(&self) -> u64 {
        self.0.offset
    }

    /// Length of the range in bytes.
    #[inline]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.0.len
    }

    /// First byte behind the range. Ranges are checked at the export's edge, so it cannot overflow.
    #[inline]
    pub fn end(&self) -> u64 {
        self.0.offset + self.0.len
    }

    /// The modifiers.
    #[inline]
    pub fn flags(&self) -> Flags {
        self.0.flags
    }

    /// Replaces the modifiers.
    #[inline]
    pub fn set_flags(&mut self, flags: Flags) {
        self.0.flags = flags;
    }

    /// Moves the range.
    #[inline]
    pub fn set_offset(&mut self, offset: u64) {
        self.0.offset = offset;
    }

    /// Turns it into another operation on the same range, without data (write zeroes into discard).
    pub fn set_op(&mut self, op: Op) {
        self.0.op = op;
        self.0.data = Data::None;
    }

    /// Shortens the range: for operations without bytes.
    pub fn set_len(&mut self, len: u64) {
        debug_assert!(
            !matches!(self.0.data, Data::Iov(_)),
            "the buffer has the range's length"
        );
        self.0.len = len;
    }

    /// The bytes.
    #[inline]
    pub fn data(&self) -> &Data {
        &self.0.data
    }

    /// The bytes, to fill or replace.
    #[inline]
    pub fn data_mut(&mut self) -> &mut Data {
        &mut self.0.data
    }

    /// The numbers of the request's reactor.
    pub fn counters(&self) -> &Counters {
        &self.core().counters
    }

    #[inline]
    pub(crate) fn core(&self) -> &Rc<Core> {
        self.0
            .core
            .as_ref()
            .expect("a request outside the pool knows its core")
    }

    /// Calls `f` on the way up; the completion goes on by itself.
    #[inline]
    pub fn on_complete(&mut self, f: impl FnOnce(&mut Completed) + 'static) {
        self.intercept(move |mut done| {
            f(&mut done);
            done.finish();
        });
    }

    /// Hands the completion over to `f`, which finishes it, changes it, or submits it again.
    #[inline]
    pub fn intercept(&mut self, f: impl FnOnce(Completed) + 'static) {
        self.0.push(f);
    }

    /// Ends the request. Never runs callbacks here: the reactor does, in order.
    #[inline]
    pub fn complete(self, outcome: Outcome) {
        let mut body = self.into_body();
        body.outcome = outcome;
        settle(body);
    }

    /// Ends it well.
    #[inline]
    pub fn done(self) {
        self.complete(Ok(()));
    }

    /// Ends it with an error number.
    #[inline]
    pub fn fail(self, errno: Errno) {
        self.complete(Err(errno.into()));
    }

    /// Ends a read with what was found, in whichever form the request wants its bytes: handed over
    /// if the callee may pick the memory, else copied (and counted). Panics if the length differs.
    pub fn give(mut self, found: Segments) {
        assert_eq!(
            found.len(),
            self.len(),
            "a read gives as many bytes as it was asked for"
        );
        match &self.0.data {
            Data::Iov(iov) => {
                found.copy_to(iov);
                Counters::add(&self.counters().bytes_copied, found.len());
            }
            _ => self.0.data = Data::Given(found),
        }
        self.done();
    }

    /// Ends a read with zeroes.
    pub fn give_zeroes(self) {
        let len = self.len();
        self.give(Segments::zero(len));
    }

    /// Changes the outcome that [`Drop`] or a completed child would leave: used by layers that
    /// gather errors from several steps and keep the first.
    pub fn note(&mut self, outcome: Outcome) {
        if self.0.outcome.is_ok() {
            self.0.outcome = outcome;
        }
    }
}

impl Drop for Request {
    #[cold]
    fn drop(&mut self) {
        // SAFETY: `self` is going, and `Owned` does nothing when dropped.
        let body = unsafe { Owned::from_ptr(self.0.as_ptr()) };
        let core = body
            .core
            .clone()
            .expect("a request outside the pool knows its core");
        core.dropped(body);
    }
}

/// Queues a finished body, or leaves it to its last child.
#[inline]
fn settle(mut body: Owned) {
    if body.children > 0 {
        body.deferred = true;
        // The children own it now; the last of them queues it (see `child`).
        return;
    }
    queue(body);
}

#[inline]
fn queue(body: Owned) {
    // Borrowing the core out of the body, which moves into the core's queue.
    let core: *const Core = Rc::as_ptr(body.core.as_ref().expect("it is out of the pool"));
    // SAFETY: the body, now in the queue, keeps the core alive.
    unsafe { (*core).queue(body) }
}

impl Completed {
    #[inline]
    fn from_body(body: Owned) -> Completed {
        Completed(body)
    }

    #[inline]
    fn into_body(self) -> Owned {
        let ptr = self.0.as_ptr();
        std::mem::forget(self);
        // SAFETY: the old owner is forgotten.
        unsafe { Owned::from_ptr(ptr) }
    }

    /// The operation.
    #[inline]
    pub fn op(&self) -> Op {
        self.0.op
    }

    /// First byte of the range, as the layer below left it.
    #[inline]
    pub fn offset(&self) -> u64 {
        self.0.offset
    }

    /// Length of the range in bytes.
    #[inline]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.0.len
    }

    /// The modifiers.
    #[inline]
    pub fn flags(&self) -> Flags {
        self.0.flags
    }

    /// How it ended.
    #[inline]
    pub fn outcome(&self) -> &Outcome {
        &self.0.outcome
    }

    /// Takes the outcome out, leaving success.
    pub fn take_outcome(&mut self) -> Outcome {
        std::mem::replace(&mut self.0.outcome, Ok(()))
    }

    /// The error, if it failed.
    #[inline]
    pub fn error(&self) -> Option<&IoError> {
        self.0.outcome.as_ref().err()
    }

    /// Changes how it ended.
    pub fn set_outcome(&mut self, outcome: Outcome) {
        self.0.outcome = outcome;
    }

    /// The bytes.
    #[inline]
    pub fn data(&self) -> &Data {
        &self.0.data
    }

    /// The bytes, to change or to take.
    #[inline]
    pub fn data_mut(&mut self) -> &mut Data {
        &mut self.0.data
    }

    /// The numbers of the request's reactor.
    pub fn counters(&self) -> &Counters {
        &self.core().counters
    }

    #[inline]
    pub(crate) fn core(&self) -> &Rc<Core> {
        self.0.core.as_ref().expect("it is out of the pool")
    }

    /// Goes on upwards: runs the next frame, or returns the body to its pool.
    #[inline]
    pub fn finish(self) {
        let mut body = self.into_body();
        match body.pop() {
            // SAFETY: the body moves into `Completed` as an address; its stack stays as it is until
            // the frame's closure has been moved out.
            Some(frame) => unsafe { frame.run(Completed::from_body(body)) },
            None => {
                let core = body.core.take().expect("it is out of the pool");
                core.recycle(body);
            }
        }
    }

    /// Turns it into a request again, to retry or redirect it. The frames above stay.
    #[inline]
    pub fn again(self) -> Request {
        let mut body = self.into_body();
        body.outcome = Ok(());
        Request::from_body(body)
    }
}

impl Drop for Completed {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: `self` is going, and `Owned` does nothing when dropped.
        let mut body = unsafe { Owned::from_ptr(self.0.as_ptr()) };
        if body.has_frames() {
            // Somebody above still waits for it: that layer's loss must not become theirs.
            let core = body.core.clone().expect("it is out of the pool");
            return core.dropped(body);
        }
        let core = body.core.take().expect("it is out of the pool");
        core.recycle(body);
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Body {
            op,
            offset,
            len,
            flags,
            ..
        } = &*self.0;
        write!(f, "{op} {offset}+{len} {flags:?} {:?}", self.0.data)
    }
}
