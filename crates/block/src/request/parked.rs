//! Parking: a layer holds a request back (delay, rate, reconnect) and may be told to let go of it.

use std::{cell::RefCell, rc::Rc};

use super::{Request, ticket::CancelHook};

/// A request that is held back. Take it when its time has come; if it was cancelled meanwhile it is
/// gone. Dropping a parked request drops the request in it.
#[must_use = "a parked request that is dropped completes with EIO"]
pub struct Parked(Rc<RefCell<Option<Request>>>);

impl Request {
    /// Holds the request back. If its [`super::Ticket`] is cancelled before it is taken, `on_cancel`
    /// gets it, and usually fails it with `ECANCELED`; if it was cancelled already, at once.
    pub fn park(self, on_cancel: impl FnOnce(Request) + 'static) -> Parked {
        let (core, ticket) = (self.core().clone(), self.0.ticket);
        let slot = Rc::new(RefCell::new(Some(self)));
        if let Some(ticket) = ticket {
            let weak = Rc::downgrade(&slot);
            let hook: CancelHook = Box::new(move || {
                let request = weak.upgrade().and_then(|slot| slot.borrow_mut().take());
                if let Some(request) = request {
                    on_cancel(request);
                }
            });
            core.tickets.park(ticket, hook);
        }
        Parked(slot)
    }
}

impl Parked {
    /// The request, unless it was cancelled.
    pub fn take(self) -> Option<Request> {
        self.0.borrow_mut().take()
    }

    /// Was it cancelled?
    pub fn is_cancelled(&self) -> bool {
        self.0.borrow().is_none()
    }
}
