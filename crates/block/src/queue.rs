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
        let slot = Rc::new(RefCell::new(Slot::Waiting(None)));
        let filled = slot.clone();
        req.intercept(move |done| {
            let old = std::mem::replace(&mut *filled.borrow_mut(), Slot::Done(done));
            if let Slot::Waiting(Some(waker)) = old {
                waker.wake();
            }
        });
        self.submit(req);
        Call { slot }
    }
}

impl<Q: Queue + ?Sized> QueueExt for Q {}

/// A request on its way. See [`QueueExt::call`].
#[must_use = "a call does nothing more unless it is awaited"]
pub struct Call {
    slot: Rc<RefCell<Slot>>,
}

enum Slot {
    Waiting(Option<Waker>),
    Done(Completed),
    Taken,
}

impl Future for Call {
    type Output = Completed;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Completed> {
        let mut slot = self.slot.borrow_mut();
        match std::mem::replace(&mut *slot, Slot::Taken) {
            Slot::Done(done) => Poll::Ready(done),
            Slot::Waiting(_) => {
                *slot = Slot::Waiting(Some(cx.waker().clone()));
                Poll::Pending
            }
            Slot::Taken => panic!("a call was polled after it was ready"),
        }
    }
}
