//! Operations in flight: the owner of everything the kernel may touch.
//!
//! An operation owns its memory, its pin and its descriptor from the moment it is begun until the
//! kernel is done with it, whatever becomes of the future or the request behind it. Slots are boxed,
//! so what lies in one keeps its address, and reused, so nothing is allocated once warm.

use std::{os::fd::OwnedFd, rc::Rc, sync::Arc, task::Waker};

use block::{Iov, RecvBuf};

use crate::{batch::SendBatch, file::FileOp, stream::Sock};

/// Names one operation: slot and generation. Fits `user_data` and leaves its top two bits clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(pub(crate) u64);

const GENERATION_BITS: u32 = 30;

impl Key {
    fn new(slot: u32, generation: u32) -> Key {
        Key(u64::from(generation) << 32 | u64::from(slot))
    }

    fn slot(self) -> usize {
        self.0 as u32 as usize
    }

    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// What is being done.
pub(crate) enum Op {
    /// Receive some bytes.
    Recv(Rc<Sock>, RecvBuf),
    /// Fill the buffer from a position.
    Fill(Rc<Sock>, Iov, usize),
    /// Send the batch.
    Send(Rc<Sock>, SendBatch),
    /// Wait until the descriptor is readable.
    Readable(Arc<OwnedFd>),
    /// Wait until the descriptor is writable.
    Writable(Arc<OwnedFd>),
    /// Tell each time the descriptor becomes readable, until it is cancelled.
    Watch(Arc<OwnedFd>),
    /// File I/O.
    File(FileOp),
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Free,
    /// The kernel, or a pool's thread, has it.
    Pending,
    /// Done, and its future has not looked yet.
    Done,
    /// In the kernel's hands, and nobody waits for it any more.
    Orphan,
}

pub(crate) struct Slot {
    pub(crate) state: State,
    pub(crate) op: Option<Op>,
    pub(crate) result: i32,
    pub(crate) waker: Option<Waker>,
    /// The send reports failure only (see `uring`).
    pub(crate) silent: bool,
    /// A watch has something to tell.
    pub(crate) fired: bool,
    /// Address ranges and message header of the call in flight.
    pub(crate) iov: Vec<libc::iovec>,
    pub(crate) msg: libc::msghdr,
    generation: u32,
}

/// The operations of one loop.
#[derive(Default)]
pub(crate) struct Table {
    // Boxed: the kernel holds addresses of `msg`.
    #[allow(clippy::vec_box)]
    slots: Vec<Box<Slot>>,
    free: Vec<u32>,
}

impl Table {
    pub(crate) fn insert(&mut self, op: Op) -> (Key, &mut Slot) {
        let at = match self.free.pop() {
            Some(at) => at,
            None => {
                let at = u32::try_from(self.slots.len()).expect("fewer than 2^32 operations");
                self.slots.push(Box::new(Slot {
                    state: State::Free,
                    op: None,
                    result: 0,
                    waker: None,
                    silent: false,
                    fired: false,
                    iov: Vec::new(),
                    msg: crate::sys::header(&mut []),
                    generation: 0,
                }));
                at
            }
        };
        let slot = &mut *self.slots[at as usize];
        slot.generation = (slot.generation + 1) & ((1 << GENERATION_BITS) - 1);
        slot.state = State::Pending;
        slot.op = Some(op);
        slot.silent = false;
        slot.fired = false;
        (Key::new(at, slot.generation), slot)
    }

    /// The operation, unless it has ended.
    pub(crate) fn get(&mut self, key: Key) -> Option<&mut Slot> {
        self.slots
            .get_mut(key.slot())
            .filter(|slot| slot.generation == key.generation() && slot.state != State::Free)
            .map(|slot| &mut **slot)
    }

    /// Ends an operation: what it owned is the caller's to drop, outside any borrow of the table.
    pub(crate) fn remove(&mut self, key: Key) -> Option<Op> {
        let slot = self.get(key)?;
        slot.state = State::Free;
        slot.waker = None;
        let op = slot.op.take();
        self.free.push(key.slot() as u32);
        op
    }

    /// Operations in somebody else's hands.
    pub(crate) fn pending(&self) -> impl Iterator<Item = (Key, &Slot)> {
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| matches!(slot.state, State::Pending | State::Orphan))
            .map(|(at, slot)| (Key::new(at as u32, slot.generation), &**slot))
    }

    /// Gives up everything without freeing what somebody may still write to. Returns how many
    /// operations were lost that way.
    pub(crate) fn leak(&mut self) -> usize {
        let lost = self.pending().count();
        for slot in self.slots.drain(..) {
            if matches!(slot.state, State::Pending | State::Orphan) {
                std::mem::forget(slot);
            }
        }
        self.free.clear();
        lost
    }
}
