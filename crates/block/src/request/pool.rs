//! The pool of bodies and the queue of completions: what all requests of one reactor share.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
};

use super::{
    Completed, Request,
    body::{Body, Owned},
    ticket::Tickets,
};
use crate::{
    data::Data,
    error::Errno,
    op::{Flags, Op},
    queue::{CallSlot, Slot},
};

/// Bodies a pool keeps for reuse (about 1 KiB each).
const KEEP_BODIES: usize = 8192;

/// Numbers one reactor counts; cheap to read, never reset.
#[derive(Default)]
pub struct Counters {
    /// Requests that were made.
    pub requests: Cell<u64>,
    /// Requests that a layer dropped instead of completing: a bug in that layer.
    pub dropped: Cell<u64>,
    /// Completion callbacks that panicked.
    pub panics: Cell<u64>,
    /// Bytes copied because two ends' forms of data did not match.
    pub bytes_copied: Cell<u64>,
}

impl Counters {
    /// Adds to a counter.
    #[inline]
    pub fn add(counter: &Cell<u64>, n: u64) {
        counter.set(counter.get() + n);
    }
}

#[derive(Default)]
pub(crate) struct Core {
    pool: RefCell<Vec<Owned>>,
    done: RefCell<VecDeque<Owned>>,
    live: Cell<usize>,
    pub(crate) counters: Counters,
    pub(super) tickets: Tickets,
    /// Slots of calls that are over (see [`crate::QueueExt::call`]); each waits without a waker.
    calls: RefCell<Vec<CallSlot>>,
}

impl Core {
    #[inline]
    pub(crate) fn request(self: &Rc<Core>, op: Op, offset: u64, len: u64) -> Request {
        let mut body = self
            .pool
            .borrow_mut()
            .pop()
            .unwrap_or_else(|| Owned::new(Body::new()));
        body.op = op;
        body.flags = Flags::NONE;
        body.offset = offset;
        body.len = len;
        body.core = Some(self.clone());
        Counters::add(&self.counters.requests, 1);
        self.live.set(self.live.get() + 1);
        Request::from_body(body)
    }

    /// A slot that waits, for a new call.
    #[inline]
    pub(crate) fn call_slot(&self) -> CallSlot {
        let kept = self.calls.borrow_mut().pop();
        kept.unwrap_or_else(|| Rc::new(RefCell::new(Slot::Waiting(None))))
    }

    /// Takes a slot back whose request has come and gone.
    #[inline]
    pub(crate) fn recycle_call_slot(&self, slot: CallSlot) {
        debug_assert!(matches!(*slot.borrow(), Slot::Waiting(None)));
        let mut calls = self.calls.borrow_mut();
        // The closure that filled it may still be on its way out of a panic.
        if calls.len() < KEEP_BODIES && Rc::strong_count(&slot) == 1 {
            calls.push(slot);
        }
    }

    /// Bodies that are out of the pool.
    pub(crate) fn live(&self) -> usize {
        self.live.get()
    }

    /// Queues a finished body; its frames run in the next round of completions.
    #[inline]
    pub(super) fn queue(&self, body: Owned) {
        self.done.borrow_mut().push_back(body);
    }

    /// Takes a body back once no frame is left.
    #[inline]
    pub(super) fn recycle(&self, mut body: Owned) {
        debug_assert!(!body.has_frames() && body.children == 0);
        body.data = Data::None;
        // Nearly always: spares dropping a result.
        if body.outcome.is_err() {
            body.outcome = Ok(());
        }
        body.deferred = false;
        if let Some(ticket) = body.ticket.take() {
            // A child's ticket is its parent's, which outlives it.
            match &body.parent {
                Some(hold) if hold.has_ticket(ticket) => {}
                _ => self.tickets.close(ticket),
            }
        }
        drop(body.parent.take());
        self.live.set(self.live.get() - 1);
        let mut pool = self.pool.borrow_mut();
        if pool.len() < KEEP_BODIES {
            pool.push(body);
        } else {
            drop(pool);
            body.free();
        }
    }

    /// Completions are waiting?
    pub(crate) fn has_completions(&self) -> bool {
        !self.done.borrow().is_empty()
    }

    /// Runs completions, first in first out, until none is left. Returns how many ran. A callback
    /// that panics is counted; whatever it held completes with `EIO`.
    pub(crate) fn run_completions(&self) -> usize {
        let mut ran = 0;
        // One guard per batch, not per completion: after a panic the loop simply goes on.
        while catch_unwind(AssertUnwindSafe(|| {
            while let Some(body) = self.next() {
                ran += 1;
                Completed::from_body(body).finish();
            }
        }))
        .is_err()
        {
            Counters::add(&self.counters.panics, 1);
        }
        ran
    }

    #[inline]
    fn next(&self) -> Option<Owned> {
        self.done.borrow_mut().pop_front()
    }

    #[cold]
    pub(super) fn dropped(&self, mut body: Owned) {
        Counters::add(&self.counters.dropped, 1);
        if body.outcome.is_ok() {
            body.outcome = Err(Errno::EIO.into());
        }
        super::settle(body);
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // Bodies in `done` hold the core, so that queue is empty when the core goes.
        self.pool.get_mut().drain(..).for_each(Owned::free);
    }
}
