//! A ring's requests: out of it and down to the disk, and their answers into it.
//!
//! Nothing is allocated for a request: what its answer needs lies in a slot, and its completion knows
//! the ring and that slot.

use std::rc::Rc;

use block::{Completed, Data, Errno, Flags, IoError, Op, Request};
use virtio::{
    blk::{Command, ID_LEN, Parser, Pending, Range, Status},
    memory::{Memory, Segment},
    ring::{Chain, DeviceRing, RingError, Token, packed, split},
};

use super::{dirty::Logging, guest::GuestMemory, remote::Durability, vring::Vring};

/// Requests that are taken before others have their turn.
const BATCH: u32 = 32;

/// The device's half, in either format.
pub(super) enum Ring {
    Split(split::Device),
    Packed(packed::Device),
}

/// Calls a method of whichever format it is.
macro_rules! either {
    ($ring:expr, $name:ident => $call:expr) => {
        match $ring {
            Ring::Split($name) => $call,
            Ring::Packed($name) => $call,
        }
    };
}
pub(super) use either;

/// The ring, and all that its requests need.
pub(super) struct Core {
    pub(super) ring: Ring,
    pub(super) rest: Rest,
}

/// All but the ring.
pub(super) struct Rest {
    pub(super) memory: GuestMemory,
    pub(super) parser: Parser,
    chain: Chain,
    /// Chains of the in-flight log are still to be taken.
    resuming: bool,
    pub(super) slots: Slots,
    /// Given up while the ring was ending.
    pub(super) kept: Vec<Answer>,
    pub(super) logging: Option<Logging>,
}

impl Rest {
    pub(super) fn new(memory: GuestMemory, parser: Parser, size: u16) -> Rest {
        Rest {
            memory,
            parser,
            chain: Chain::new(),
            resuming: true,
            slots: Slots::new(size),
            kept: Vec::new(),
            logging: None,
        }
    }

    pub(super) fn set_memory(&mut self, memory: GuestMemory) {
        self.memory = memory;
        self.memory.log_to(self.logging.as_ref());
    }

    pub(super) fn set_log(&mut self, logging: Option<Logging>) {
        self.memory.log_to(logging.as_ref());
        self.logging = logging;
    }
}

/// What is needed to answer one request.
pub(super) struct Answer {
    pub(super) token: Token,
    pending: Pending,
    /// Bytes written to the guest's memory, if it goes well.
    written: u32,
    /// Requests of the disk that are still out: one for each range.
    left: u32,
    /// A flush belongs to it, behind all of that.
    flush: bool,
    pub(super) error: Option<Errno>,
}

/// The requests in flight, by number.
pub(super) struct Slots {
    slots: Vec<Option<Answer>>,
    free: Vec<u32>,
}

impl Slots {
    fn new(size: u16) -> Slots {
        Slots {
            slots: (0..size).map(|_| None).collect(),
            free: (0..size.into()).rev().collect(),
        }
    }

    /// How many are in flight.
    pub(super) fn used(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    #[inline]
    fn add(&mut self, answer: Answer) -> u32 {
        let slot = self.free.pop().expect("no more chains than the ring has");
        self.slots[slot as usize] = Some(answer);
        slot
    }

    /// A request of the disk is done. The answer, if it was the last of its chain's.
    #[inline]
    fn done(&mut self, slot: u32, error: Option<Errno>) -> Option<Answer> {
        let place = &mut self.slots[slot as usize];
        let answer = place.as_mut().expect("in flight");
        answer.error = answer.error.or(error);
        answer.left -= 1;
        if answer.left > 0 {
            return None;
        }
        self.free.push(slot);
        place.take()
    }
}

/// What a visit of the ring has found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// More than others have patience for.
    More,
    /// So many, and now nothing.
    Nothing(u32),
}

impl Vring {
    /// Takes what there is, up to a bound. Asks for kicks when there is nothing more, unless it is
    /// looked at again anyway.
    pub(super) fn visit(self: &Rc<Vring>, spinning: bool) -> Result<Found, RingError> {
        let Core { ring, rest } = &mut *self.core.borrow_mut();
        rest.parser.config.capacity = self.shared.capacity();
        let found = either!(ring, ring => self.take(ring, rest, spinning));
        if let Some(logging) = &rest.logging {
            logging.ring_written();
        }
        found
    }

    #[inline]
    fn take(
        self: &Rc<Vring>,
        ring: &mut impl DeviceRing,
        rest: &mut Rest,
        spinning: bool,
    ) -> Result<Found, RingError> {
        ring.disable_kicks();
        let mut taken = 0;
        while taken < BATCH {
            let token = match rest.resuming {
                false => ring.pop(&rest.memory, &mut rest.chain)?,
                true => {
                    let token = ring.resume(&rest.memory, &mut rest.chain)?;
                    rest.resuming = token.is_some();
                    match token {
                        None => continue,
                        token => token,
                    }
                }
            };
            if let Some(token) = token {
                taken += 1;
                self.serve(ring, rest, token);
                continue;
            }
            // If one came meanwhile there may be no kick for it.
            if spinning || !ring.enable_kicks()? {
                return Ok(Found::Nothing(taken));
            }
            ring.disable_kicks();
        }
        Ok(Found::More)
    }

    #[inline]
    fn serve(self: &Rc<Vring>, ring: &mut impl DeviceRing, rest: &mut Rest, token: Token) {
        let Rest {
            memory,
            parser,
            chain,
            slots,
            ..
        } = rest;
        let (pending, command) = parser.parse(memory, chain);
        let mut answer = Answer {
            token,
            pending,
            written: 0,
            left: 1,
            flush: false,
            error: None,
        };
        let status = match command {
            Ok(Command::Read { offset, len, data }) => match memory.iov(data) {
                Some(iov) => {
                    answer.written = len;
                    let mut req = self.reactor.request(Op::Read, offset, len.into());
                    *req.data_mut() = Data::Iov(iov);
                    return self.submit(slots.add(answer), req);
                }
                None => Status::IoError,
            },
            Ok(Command::Write { offset, len, data }) => match memory.iov(data) {
                Some(iov) => {
                    let mut req = self.reactor.request(Op::Write, offset, len.into());
                    *req.data_mut() = Data::Iov(iov);
                    req.set_flags(self.make_durable(&mut answer));
                    return self.submit(slots.add(answer), req);
                }
                None => Status::IoError,
            },
            Ok(Command::Flush) => {
                let req = self.reactor.request(Op::Flush, 0, 0);
                return self.submit(slots.add(answer), req);
            }
            Ok(Command::Discard(ranges)) if !ranges.is_empty() => {
                return self.ranges(slots, answer, Op::Discard, ranges);
            }
            Ok(Command::WriteZeroes(ranges)) if !ranges.is_empty() => {
                return self.ranges(slots, answer, Op::WriteZeroes, ranges);
            }
            Ok(Command::Discard(_) | Command::WriteZeroes(_)) => Status::Ok,
            Ok(Command::GetId { data }) => {
                answer.written = ID_LEN as u32;
                tell_id(&self.shared.id, memory, data)
            }
            Ok(
                Command::GetLifetime { .. }
                | Command::SecureErase(_)
                | Command::ZoneAppend { .. }
                | Command::ZoneReport { .. }
                | Command::ZoneManage { .. },
            ) => Status::Unsupported,
            Err(status) => status,
        };
        self.tell(ring, memory, answer, status);
    }

    /// Sees to it that a write is durable before it is answered, if it has to be.
    #[inline]
    fn make_durable(&self, answer: &mut Answer) -> Flags {
        if !self.shared.write_through() {
            return Flags::NONE;
        }
        match self.shared.durability {
            Durability::Fua => return Flags::FUA,
            Durability::Flush => answer.flush = true,
            Durability::Always => {}
        }
        Flags::NONE
    }

    #[inline]
    fn submit(self: &Rc<Vring>, slot: u32, mut req: Request) {
        req.join(&self.group);
        let vring = self.clone();
        req.on_complete(move |done| vring.done(slot, done));
        self.queue.submit(req);
    }

    /// One request for each range; the first error is the answer.
    fn ranges(self: &Rc<Vring>, slots: &mut Slots, mut answer: Answer, op: Op, ranges: &[Range]) {
        answer.left = ranges.len() as u32;
        // A discard need not be durable.
        let durable = match op {
            Op::WriteZeroes => self.make_durable(&mut answer),
            _ => Flags::NONE,
        };
        let slot = slots.add(answer);
        for range in ranges {
            let mut req = self.reactor.request(op, range.offset, range.len);
            if op == Op::WriteZeroes {
                let keep = match range.unmap {
                    true => Flags::NONE,
                    false => Flags::NO_HOLE,
                };
                req.set_flags(keep | durable);
            }
            self.submit(slot, req);
        }
    }

    /// A request of the disk has ended.
    #[inline]
    fn done(self: &Rc<Vring>, slot: u32, done: &mut Completed) {
        let Core { ring, rest } = &mut *self.core.borrow_mut();
        let error = done.error().map(IoError::errno);
        let Some(mut answer) = rest.slots.done(slot, error) else {
            return;
        };
        if std::mem::take(&mut answer.flush) && answer.error.is_none() {
            answer.left = 1;
            let flush = self.reactor.request(Op::Flush, 0, 0);
            return self.submit(rest.slots.add(answer), flush);
        }
        if answer.written > 0
            && let Some(logging) = &rest.logging
        {
            logging.data_written(done.data(), rest.memory.map());
        }
        if self.ending.get() && answer.error.is_some() {
            // It was cancelled, or would have failed anyway.
            rest.kept.push(answer);
        } else if !self.abandoned.get() {
            let status = status(answer.error);
            either!(ring, ring => self.tell(ring, &rest.memory, answer, status));
        }
        if rest.slots.used() == 0
            && let Some(waker) = self.idle.take()
        {
            waker.wake();
        }
    }

    /// Puts an answer into the ring; the guest sees it at the turn's end.
    #[inline]
    pub(super) fn tell(
        self: &Rc<Vring>,
        ring: &mut impl DeviceRing,
        memory: &Memory,
        answer: Answer,
        status: Status,
    ) {
        let written = match status {
            Status::Ok => answer.written,
            _ => 0,
        };
        let written = answer.pending.finish(memory, status, written);
        ring.push(answer.token, written);
        if !self.rung.replace(true) {
            self.reactor.at_end_of_turn(self.clone());
        }
    }
}

fn tell_id(id: &[u8; ID_LEN], memory: &Memory, data: &[Segment]) -> Status {
    let mut rest = &id[..];
    for piece in data {
        let (now, later) = rest.split_at(rest.len().min(piece.len() as usize));
        if !memory.write(piece.guest(), now) {
            return Status::IoError;
        }
        rest = later;
    }
    Status::Ok
}

pub(super) fn status(error: Option<Errno>) -> Status {
    match error {
        None => Status::Ok,
        Some(Errno::ENOTSUP) => Status::Unsupported,
        Some(_) => Status::IoError,
    }
}
