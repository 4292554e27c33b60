//! Children: requests on part of another request's data.
//!
//! A child shares its parent's memory, so while a child is out the parent may not complete, not
//! even by being dropped with the task that owned it. Otherwise a guest would be told that its
//! read failed while the kernel is still writing into that guest's memory.

use std::{ptr::NonNull, rc::Rc};

use super::{Body, Core, Owned, Request, ticket::TicketId};
use crate::{data::Data, op::Op};

/// Held by a child for as long as it is out of the pool.
pub(super) struct ParentHold {
    parent: NonNull<Body>,
    /// Keeps the parent's pool alive.
    _core: Rc<Core>,
}

impl Request {
    /// A request on part of this one: `len` bytes from `at` (relative to this request's start),
    /// sharing its buffer if it has one. For a read whose callee picks the memory, the child's
    /// callee picks too, and the caller gathers what it gave. Panics if the range is outside.
    pub fn child(&mut self, op: Op, at: u64, len: u64) -> Request {
        assert!(
            at <= self.len() && len <= self.len() - at,
            "a child lies inside its parent"
        );
        let core = self.core().clone();
        let mut child = core.request(op, self.offset() + at, len);
        child.0.flags = self.0.flags;
        // Cancelling the parent reaches the child where it is parked.
        child.0.ticket = self.0.ticket;
        child.0.data = match &self.0.data {
            Data::Iov(iov) => Data::Iov(iov.slice(at as usize, len as usize)),
            Data::Wanted => Data::Wanted,
            _ => Data::None,
        };
        self.0.children += 1;
        child.0.parent = Some(ParentHold {
            parent: self.0.as_ptr(),
            _core: core,
        });
        child
    }
}

impl ParentHold {
    /// Is this the parent's ticket?
    pub fn has_ticket(&self, id: TicketId) -> bool {
        // SAFETY: the parent is out of the pool while it has children, and nobody on this thread
        // holds a reference to it across this call.
        unsafe { self.parent.as_ref() }.ticket == Some(id)
    }
}

impl Drop for ParentHold {
    fn drop(&mut self) {
        // SAFETY: the parent cannot be recycled or freed while `children > 0`: completing it then
        // makes the children its owners (`settle`), and a body never changes its address. All of
        // it happens on one thread, and no reference to the body is held across this drop.
        let parent = unsafe { self.parent.as_mut() };
        parent.children -= 1;
        if parent.children == 0 && parent.deferred {
            parent.deferred = false;
            // SAFETY: `settle` made the children its owners; the last of them is going.
            super::queue(unsafe { Owned::from_ptr(self.parent) });
        }
    }
}
