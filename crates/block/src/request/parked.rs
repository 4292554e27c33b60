//! Parking: a layer holds a request back (delay, rate, reconnect) and may be told to let go of it.

use std::{
    cell::RefCell,
    rc::{Rc, Weak},
};

use super::{
    Core, Request,
    ticket::{CancelHook, TicketId},
};

/// A request that is held back. Take it when its time has come; if it was cancelled meanwhile it is
/// gone. Dropping a parked request drops the request in it.
#[must_use = "a parked request that is dropped completes with EIO"]
pub struct Parked {
    slot: Rc<RefCell<Option<Request>>>,
    #[allow(dead_code, reason = "held for its Drop")]
    hook: Option<Hook>,
}

/// The hook that waits for a cancellation, to be taken away with the request.
struct Hook {
    core: Weak<Core>,
    ticket: TicketId,
    number: u64,
}

impl Request {
    /// Holds the request back. If its [`super::Ticket`], or that of the request it is a part of, is
    /// cancelled before it is taken, `on_cancel` gets it, and usually fails it with `ECANCELED`; if
    /// it was cancelled already, at once.
    pub fn park(self, on_cancel: impl FnOnce(Request) + 'static) -> Parked {
        let (core, ticket) = (self.core().clone(), self.0.ticket);
        let slot = Rc::new(RefCell::new(Some(self)));
        let hook = ticket.map(|ticket| {
            let weak = Rc::downgrade(&slot);
            let hook: CancelHook = Box::new(move || {
                let request = weak.upgrade().and_then(|slot| slot.borrow_mut().take());
                if let Some(request) = request {
                    on_cancel(request);
                }
            });
            Hook {
                number: core.tickets.park(ticket, hook),
                core: Rc::downgrade(&core),
                ticket,
            }
        });
        Parked { slot, hook }
    }
}

impl Parked {
    /// The request, unless it was cancelled.
    pub fn take(self) -> Option<Request> {
        self.slot.borrow_mut().take()
    }

    /// Was it cancelled?
    pub fn is_cancelled(&self) -> bool {
        self.slot.borrow().is_none()
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        if let Some(core) = self.core.upgrade() {
            core.tickets.unpark(self.ticket, self.number);
        }
    }
}
