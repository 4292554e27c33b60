//! Tickets: how whoever submitted a request asks for it to be given up.
//!
//! A request is never abandoned: cancelling reaches it where a layer has parked it, and is a hint
//! everywhere else. Tickets cost nothing until one is asked for. Who submits very many requests that
//! it gives up all together, as a virtqueue does, has them join a [`CancelGroup`], which costs a store.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
};

use smallvec::SmallVec;

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
    parked: Cell<u64>,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    cancelled: bool,
    /// Of many requests: it does not end with one of them.
    group: bool,
    /// One for each part of the request that is parked, by number.
    hooks: SmallVec<[(u64, CancelHook); 1]>,
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
        if let (Some(hold), Some(id)) = (&self.0.parent, self.0.ticket)
            && hold.has_ticket(id)
        {
            // Its parent's: giving up a part must not give up the whole.
            self.0.ticket = None;
        }
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
        for (_, hook) in core.tickets.cancel(self.id) {
            hook();
        }
    }
}

/// The right to cancel all requests that joined it. Keeps nothing alive; what is in flight when it is
/// dropped cannot be cancelled any more.
pub struct CancelGroup {
    core: Weak<Core>,
    id: TicketId,
}

impl CancelGroup {
    pub(crate) fn new(core: &Rc<Core>) -> CancelGroup {
        let id = core.tickets.open();
        core.tickets.slots.borrow_mut()[id.slot as usize].group = true;
        CancelGroup {
            core: Rc::downgrade(core),
            id,
        }
    }

    /// As [`Ticket::cancel`], for all that joined and are in flight, and for all that join from now on.
    pub fn cancel(&self) {
        let Some(core) = self.core.upgrade() else {
            return;
        };
        for (_, hook) in core.tickets.cancel(self.id) {
            hook();
        }
    }
}

impl Drop for CancelGroup {
    fn drop(&mut self) {
        if let Some(core) = self.core.upgrade() {
            core.tickets.slots.borrow_mut()[self.id.slot as usize].group = false;
            core.tickets.close(self.id);
        }
    }
}

impl Request {
    /// Joins a group of the same reactor: before it is submitted, and by whoever made it, who then
    /// asks for no ticket.
    #[inline]
    pub fn join(&mut self, group: &CancelGroup) {
        debug_assert!(self.0.ticket.is_none(), "one ticket for a request");
        self.0.ticket = Some(group.id);
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

    /// The request has ended; the ticket of a group lives on.
    pub(super) fn close(&self, id: TicketId) {
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots[id.slot as usize];
        if slot.group || slot.generation != id.generation {
            return;
        }
        let fresh = Slot {
            generation: slot.generation.wrapping_add(1),
            ..Slot::default()
        };
        let old = std::mem::replace(slot, fresh);
        drop(slots);
        drop(old);
        self.free.borrow_mut().push(id.slot);
    }

    /// Adds a hook, or runs it at once if the request was cancelled before. Returns its number.
    pub(super) fn park(&self, id: TicketId, hook: CancelHook) -> u64 {
        let number = self.parked.get();
        self.parked.set(number + 1);
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots[id.slot as usize];
        if slot.generation != id.generation {
            // Its group has gone: nobody will cancel it.
        } else if slot.cancelled {
            drop(slots);
            hook();
        } else {
            slot.hooks.push((number, hook));
        }
        number
    }

    /// Takes a hook away: its request is parked no more.
    pub(super) fn unpark(&self, id: TicketId, number: u64) {
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots[id.slot as usize];
        if slot.generation != id.generation {
            return;
        }
        let at = slot.hooks.iter().position(|(n, _)| *n == number);
        let hook = at.map(|at| slot.hooks.swap_remove(at));
        drop(slots);
        drop(hook);
    }

    fn is_cancelled(&self, id: TicketId) -> bool {
        let slot = &self.slots.borrow()[id.slot as usize];
        slot.generation == id.generation && slot.cancelled
    }

    fn cancel(&self, id: TicketId) -> SmallVec<[(u64, CancelHook); 1]> {
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots[id.slot as usize];
        if slot.generation != id.generation {
            return SmallVec::new();
        }
        slot.cancelled = true;
        std::mem::take(&mut slot.hooks)
    }
}
