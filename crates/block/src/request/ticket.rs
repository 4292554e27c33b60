//! Tickets: how whoever submitted a request asks for it to be given up.
//!
//! A request is never abandoned: cancelling reaches it where a layer has parked it, and is a hint
//! everywhere else. Tickets cost nothing until one is asked for.

use std::{
    cell::RefCell,
    rc::{Rc, Weak},
};

use super::{Core, Request};

pub(super) type CancelHook = Box<dyn FnOnce()>;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct TicketId {
    slot: u32,
    generation: u32,
}

#[derive(Default)]
pub(super) struct Tickets {
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<u32>>,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    cancelled: bool,
    hook: Option<CancelHook>,
}

/// The right to cancel one request. Keeps nothing alive.
pub struct Ticket {
    core: Weak<Core>,
    id: TicketId,
}

impl Request {
    /// A ticket for this request: ask before submitting it.
    pub fn ticket(&mut self) -> Ticket {
        let core = self.core().clone();
        let id = *self.0.ticket.get_or_insert_with(|| core.tickets.open());
        Ticket {
            core: Rc::downgrade(&core),
            id,
        }
    }

    /// Somebody asked for this request to be given up: a long-running layer may stop early.
    pub fn is_cancelled(&self) -> bool {
        self.0
            .ticket
            .is_some_and(|id| self.core().tickets.is_cancelled(id))
    }
}

impl Ticket {
    /// Asks for the request to be given up. If a layer has parked it, that layer's hook runs now;
    /// otherwise it is a hint. After the request has completed, nothing happens.
    pub fn cancel(&self) {
        let Some(core) = self.core.upgrade() else {
            return;
        };
        if let Some(hook) = core.tickets.cancel(self.id) {
            hook();
        }
    }
}

impl Tickets {
    fn open(&self) -> TicketId {
        let mut slots = self.slots.borrow_mut();
        let slot = self.free.borrow_mut().pop().unwrap_or_else(|| {
            slots.push(Slot::default());
            (slots.len() - 1) as u32
        });
        TicketId {
            slot,
            generation: slots[slot as usize].generation,
        }
    }

    pub(super) fn close(&self, id: TicketId) {
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots[id.slot as usize];
        let hook = slot.hook.take();
        *slot = Slot {
            generation: slot.generation.wrapping_add(1),
            ..Slot::default()
        };
        drop(slots);
        drop(hook);
        self.free.borrow_mut().push(id.slot);
    }

    pub(super) fn park(&self, id: TicketId, hook: CancelHook) {
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots[id.slot as usize];
        if slot.cancelled {
            drop(slots);
            hook();
        } else {
            let old = slot.hook.replace(hook);
            drop(slots);
            drop(old);
        }
    }

    fn is_cancelled(&self, id: TicketId) -> bool {
        self.slots.borrow()[id.slot as usize].cancelled
    }

    fn cancel(&self, id: TicketId) -> Option<CancelHook> {
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots[id.slot as usize];
        if slot.generation != id.generation {
            return None;
        }
        slot.cancelled = true;
        slot.hook.take()
    }
}
