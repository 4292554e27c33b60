//! The data path's one trait, and its async face.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use crate::request::{Completed, Request};

/// One reactor's way into a device. Never blocks, never crosses threads.
///
/// *Order.* There is none between requests in flight. A flush covers every write that **completed**
/// on the device before the flush was **submitted**, on any of its queues. FUA covers its own
/// request. *Failed flush:* the failure belongs to the underlying object; no later flush of it
/// reports success until an operator clears it or the object is gone.
pub trait Queue {
    /// Takes the request. It completes exactly once, later, on this reactor.
    ///
    /// The request is aligned, in range and of an offered operation: the export's edge and
    /// [`crate::Normalize`] have seen to it, so a layer asserts and does not check.
    fn submit(&self, req: Request);
}

/// The async face of a queue.
pub trait QueueExt: Queue {
    /// Submits the request and waits for it.
    ///
    /// The future may be dropped: the request goes on, and its completion is discarded.
    fn call(&self, mut req: Request) -> Call {
        let slot = req.core().call_slot();
        let filled = slot.clone();
        req.intercept(move |done| {
            let old = std::mem::replace(&mut *filled.borrow_mut(), Slot::Done(done));
            if let Slot::Waiting(Some(waker)) = old {
                waker.wake();
            }
        });
        self.submit(req);
        Call { slot: Some(slot) }
    }
}

impl<Q: Queue + ?Sized> QueueExt for Q {}

/// A request on its way. See [`QueueExt::call`].
#[must_use = "a call does nothing more unless it is awaited"]
pub struct Call {
    /// Until it was ready; then the pool has it again.
    slot: Option<CallSlot>,
}

/// Where a call and its request meet. Pooled: most of a call's cost would be its allocation.
pub(crate) type CallSlot = Rc<RefCell<Slot>>;

pub(crate) enum Slot {
    Waiting(Option<Waker>),
    Done(Completed),
}

impl Future for Call {
    type Output = Completed;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Completed> {
        let slot = self
            .slot
            .take()
            .expect("a call is not polled again once it was ready");
        let state = std::mem::replace(&mut *slot.borrow_mut(), Slot::Waiting(None));
        match state {
            Slot::Done(done) => {
                done.core().recycle_call_slot(slot);
                Poll::Ready(done)
            }
            Slot::Waiting(_) => {
                *slot.borrow_mut() = Slot::Waiting(Some(cx.waker().clone()));
                self.slot = Some(slot);
                Poll::Pending
            }
        }
    }
}
