//! A queue: requests in, chains to the device, completions out.
//!
//! **Contract.** A request that the ring has no room for waits, in order; one that cannot be done fails
//! and blocks nothing. A device that is gone fails all; one that is back gets again what it had not
//! answered, in the order in which it was sent first.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::{
    event::{EventfdFlags, eventfd},
    io::Errno,
};
use virtio::{
    blk::{Operation, Range, Requests, Status},
    ring::{AddError, Buffer, RingError},
};

use super::{
    device::Limits,
    link::{GONE, Link, Reason},
    memory::{QueueMemory, Ring},
    regions::{Lookup, Regions},
    request::{Entry, Failure, Part, Phase, SHARE, gather},
    transport::{Kick, QueueSetup, Transport},
};
use crate::{
    Completion, Result,
    queue::Done,
    request::{Op, Request, flags},
    wait::Wait,
};

/// The transport, which queues and the control path share.
pub(super) fn lock<'t>(
    transport: &'t Arc<Mutex<dyn Transport>>,
) -> MutexGuard<'t, dyn Transport + 'static> {
    // A transport in whatever state answers with errors.
    transport.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What all queues of a device share.
#[derive(Clone)]
pub(super) struct Shared {
    pub transport: Arc<Mutex<dyn Transport>>,
    pub link: Arc<Link>,
    pub regions: Arc<Regions>,
    pub limits: Limits,
    /// Where the device sees zeroes.
    pub zeroes: u64,
}

/// A queue of a virtio-blk device.
pub(crate) struct Queue<R: Ring> {
    shared: Shared,
    index: u16,
    poll: bool,
    /// The state of the link that was seen.
    epoch: u64,
    ring: R,
    memory: QueueMemory,
    requests: Requests,
    kick: Option<Box<dyn Kick>>,
    lookup: Lookup,
    event: OwnedFd,
    enabled: bool,
    entries: Vec<Entry>,
    free: Vec<u32>,
    parts: Box<[Part]>,
    slots: Vec<u16>,
    backlog: VecDeque<u32>,
    sequence: u64,
    data: Vec<Buffer>,
    chain: Vec<Buffer>,
}

impl<R: Ring> Queue<R> {
    /// A queue that is announced, but for [`Transport::start`].
    pub(super) fn new(
        shared: Shared,
        index: u16,
        poll: bool,
        memory: QueueMemory,
    ) -> Result<Queue<R>> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        shared
            .link
            .wake(rustix::io::fcntl_dupfd_cloexec(&event, 0)?);
        let size = memory.size();
        let mut queue = Queue {
            epoch: shared.link.epoch(),
            index,
            poll,
            ring: memory.ring(&shared.limits)?,
            requests: memory.requests(),
            memory,
            kick: None,
            lookup: Lookup::new(shared.regions.clone()),
            event,
            enabled: false,
            entries: Vec::with_capacity(size.into()),
            free: Vec::with_capacity(size.into()),
            parts: vec![Part::default(); size.into()].into(),
            slots: (0..size).rev().collect(),
            backlog: VecDeque::new(),
            sequence: 0,
            data: Vec::with_capacity(shared.limits.segments),
            chain: Vec::with_capacity(shared.limits.segments + 2),
            shared,
        };
        queue.announce()?;
        Ok(queue)
    }

    fn announce(&mut self) -> Result<()> {
        let [descriptors, driver, device] = self.memory.ring_addresses();
        let setup = QueueSetup {
            size: self.memory.size(),
            descriptors,
            driver,
            device,
            base: R::BASE,
            call: self.event.as_fd(),
        };
        self.ring.disable_calls();
        let kick = lock(&self.shared.transport).setup_queue(self.index, &setup)?;
        self.kick = Some(kick);
        Ok(())
    }

    pub fn submit(&mut self, mut request: Request, done: &mut Done) {
        if let Some((ret, text)) = self.refusal(&mut request) {
            return done.push_back(Completion::new(request.user_data, ret, text));
        }
        let mut entry = Entry::new(request);
        if request.op == Op::WriteZeroes && self.shared.limits.write_zeroes.is_none() {
            entry.phase = Phase::Zeroes;
        }
        let index = match self.free.pop() {
            Some(index) => {
                self.entries[index as usize] = entry;
                index
            }
            None => {
                self.entries.push(entry);
                self.entries.len() as u32 - 1
            }
        };
        match self.backlog.is_empty() {
            true => self.advance(index, done),
            false => self.queue_up(index),
        }
    }

    pub fn kick(&mut self, done: &mut Done) {
        self.look(done);
        if self.is_up() && self.ring.publish() {
            self.ring_bell();
        }
    }

    pub fn reap(&mut self, done: &mut Done) {
        self.look(done);
        if !self.is_up() {
            return;
        }
        if let Err(error) = self.take_used(done) {
            return self.broken(error, done);
        }
        while let Some(index) = self.backlog.pop_front() {
            self.entries[index as usize].waiting = false;
            self.advance(index, done);
            if self.entries[index as usize].waiting {
                // It has gone to the end, but it was first.
                self.backlog.rotate_right(1);
                break;
            }
        }
        if self.ring.publish() {
            self.ring_bell();
        }
    }

    pub fn wait(&mut self, _more: usize, wait: &Wait<'_>, done: &mut Done) -> Result<()> {
        let before = done.len();
        self.reap(done);
        if done.len() > before {
            return Ok(());
        }
        if self.poll {
            return self.spin(wait, done);
        }
        if self.is_up() {
            match self.ring.enable_calls() {
                Ok(false) => {}
                Ok(true) => return Ok(()),
                Err(error) => {
                    self.broken(error, done);
                    return Ok(());
                }
            }
        }
        let waited = wait.readable(&self.event);
        let mut bytes = [0; 8];
        let _ = rustix::io::read(&self.event, &mut bytes);
        if !self.enabled {
            self.ring.disable_calls();
        }
        self.reap(done);
        waited
    }

    pub fn rest(&mut self, left: bool) {
        if !self.enabled {
            return;
        }
        // What breaks here shows with the next look.
        if left || (self.is_up() && self.ring.enable_calls().unwrap_or(true)) {
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }

    pub fn completion_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    pub fn set_completion_fd_enabled(&mut self, enabled: bool) {
        self.enabled = enabled;
        if !enabled {
            self.ring.disable_calls();
        }
    }

    /// A look every now and then at the clock, and room for others: the server may want this CPU.
    fn spin(&mut self, wait: &Wait<'_>, done: &mut Done) -> Result<()> {
        const SPINS: u32 = 2000;
        let before = done.len();
        for n in 1.. {
            self.reap(done);
            if done.len() > before {
                break;
            }
            if n % 64 == 0 {
                wait.left()?;
            }
            match n < SPINS {
                true => std::hint::spin_loop(),
                false => std::thread::yield_now(),
            }
        }
        Ok(())
    }

    #[inline]
    fn is_up(&self) -> bool {
        self.epoch & 1 == 0
    }

    fn ring_bell(&self) {
        if let Some(kick) = &self.kick {
            kick.kick();
        }
    }

    /// Looks whether the device is there.
    #[inline]
    fn look(&mut self, done: &mut Done) {
        let epoch = self.shared.link.epoch();
        if epoch != self.epoch {
            self.changed(epoch, done);
        }
    }

    #[cold]
    fn changed(&mut self, epoch: u64, done: &mut Done) {
        if self.is_up() && self.take_used(done).is_err() {
            // Whatever else it said is lost with it.
            lock(&self.shared.transport).distrust();
        }
        self.epoch = epoch;
        if epoch == GONE {
            return self.fail_all(done);
        }
        if self.is_up() {
            self.resend(done);
        }
    }

    /// Gives a device that is back what it had not answered.
    fn resend(&mut self, done: &mut Done) {
        let mut slots: Vec<u16> = (0..self.parts.len() as u16).collect();
        slots.retain(|slot| self.parts[usize::from(*slot)].live);
        slots.sort_unstable_by_key(|slot| self.parts[usize::from(*slot)].sequence);
        let Ok(ring) = self.memory.ring(&self.shared.limits) else {
            return lock(&self.shared.transport).distrust();
        };
        self.ring = ring;
        for slot in slots {
            let part = self.parts[usize::from(slot)];
            if let Err(failure) = self.send(slot, part) {
                self.release(slot);
                self.ended(part.entry, Some(failure), done);
            }
        }
        let _ = self.ring.publish();
        // An error means that it is away again, which the link tells.
        if self.announce().is_ok() {
            self.ring_bell();
        }
    }

    fn broken(&mut self, error: RingError, done: &mut Done) {
        let text = match error {
            RingError::Length { .. } => c"the device wrote more than there is room for",
            _ => c"the device broke the ring",
        };
        let errno = Errno::PROTO;
        lock(&self.shared.transport).distrust();
        self.shared.link.gone(Reason { errno, text });
        self.look(done);
    }

    fn fail_all(&mut self, done: &mut Done) {
        let Reason { errno, text } = self.shared.link.reason();
        let ret = -errno.raw_os_error();
        self.backlog.clear();
        for (index, entry) in self.entries.iter_mut().enumerate() {
            if std::mem::take(&mut entry.live) {
                let user_data = entry.request.user_data;
                done.push_back(Completion::new(user_data, ret, Some(text)));
                self.free.push(index as u32);
            }
        }
        for part in &mut self.parts {
            part.live = false;
        }
    }

    fn take_used(&mut self, done: &mut Done) -> std::result::Result<(), RingError> {
        while let Some(used) = self.ring.pop()? {
            // Cookies are ours: a slot that was added.
            let slot = used.cookie as u16;
            let part = self.parts[usize::from(slot)];
            let status = self.requests.reply(slot).status;
            self.release(slot);
            let failure = match status {
                Status::Ok => None,
                Status::Unsupported => Some((Errno::NOTSUP, None)),
                _ => Some((Errno::IO, None)),
            };
            self.ended(part.entry, failure, done);
        }
        Ok(())
    }

    fn release(&mut self, slot: u16) {
        self.parts[usize::from(slot)].live = false;
        self.slots.push(slot);
    }

    /// A chain of a request has ended.
    fn ended(&mut self, index: u32, failure: Option<Failure>, done: &mut Done) {
        let entry = &mut self.entries[index as usize];
        entry.parts -= 1;
        entry.failure = entry.failure.or(failure);
        if !entry.waiting {
            self.advance(index, done);
        }
    }

    /// Sends what there is room for, and completes the request if nothing is left to do.
    fn advance(&mut self, index: u32, done: &mut Done) {
        loop {
            let entry = &self.entries[index as usize];
            if entry.has_more() {
                if entry.parts >= SHARE {
                    return;
                }
                match self.next_part(index) {
                    Ok(true) => continue,
                    Ok(false) => return self.queue_up(index),
                    Err(failure) => self.entries[index as usize].failure = Some(failure),
                }
            }
            let entry = &mut self.entries[index as usize];
            if entry.parts > 0 {
                return;
            }
            if entry.begin_flush(&self.shared.limits) {
                continue;
            }
            entry.live = false;
            let (ret, text) = match entry.failure {
                None => (0, None),
                Some((errno, text)) => (-errno.raw_os_error(), text),
            };
            done.push_back(Completion::new(entry.request.user_data, ret, text));
            return self.free.push(index);
        }
    }

    fn queue_up(&mut self, index: u32) {
        self.entries[index as usize].waiting = true;
        self.backlog.push_back(index);
    }

    /// Sends the next chain of a request. False if there is no room.
    fn next_part(&mut self, index: u32) -> std::result::Result<bool, Failure> {
        let Some(slot) = self.slots.pop() else {
            return Ok(false);
        };
        let entry = &self.entries[index as usize];
        self.sequence += 1;
        let part = Part {
            entry: index,
            live: true,
            sequence: self.sequence,
            offset: entry.issued,
            len: 0,
            cursor: entry.cursor.known(&entry.request, entry.issued),
        };
        match self.send(slot, part) {
            Ok(true) => {
                self.entries[index as usize].parts += 1;
                Ok(true)
            }
            other => {
                self.slots.push(slot);
                other
            }
        }
    }

    /// Makes a chain and adds it to the ring. False if there is no room.
    fn send(&mut self, slot: u16, mut part: Part) -> std::result::Result<bool, Failure> {
        let Shared { limits, zeroes, .. } = &self.shared;
        let entry = &self.entries[part.entry as usize];
        let Request { op, start, len, .. } = entry.request;
        let (offset, from) = (part.offset, start + part.offset);
        let mut next = part.cursor;
        self.data.clear();
        let unmap = limits.unmap && !entry.request.has(flags::NO_UNMAP);
        let range = |most: u64, unmap| Range {
            offset: from,
            len: (len - offset).min(most),
            unmap,
        };
        let ranges;
        let operation = match (op, entry.phase) {
            (_, Phase::Flush) | (Op::Flush, _) => {
                part.len = 1;
                Operation::Flush
            }
            (Op::Discard, _) => {
                ranges = [range(limits.discard.unwrap_or(0), false)];
                part.len = ranges[0].len;
                Operation::Discard(&ranges)
            }
            (Op::WriteZeroes, Phase::Work) => {
                ranges = [range(limits.write_zeroes.unwrap_or(0), unmap)];
                part.len = ranges[0].len;
                Operation::WriteZeroes(&ranges)
            }
            _ => {
                let place = (offset, part.cursor);
                let (lookup, data) = (&mut self.lookup, &mut self.data);
                (part.len, next) = gather(entry, place, limits, lookup, *zeroes, data)?;
                match op {
                    Op::Read => Operation::Read(from),
                    _ => Operation::Write(from),
                }
            }
        };
        let made = self
            .requests
            .make(slot, &operation, &self.data, &mut self.chain);
        made.map_err(|_| (Errno::INVAL, None))?;
        match self.ring.add(&self.chain, slot.into()) {
            Ok(()) => {}
            Err(AddError::Full) => return Ok(false),
            Err(_) => return Err((Errno::INVAL, Some(c"the request does not fit the queue"))),
        }
        self.parts[usize::from(slot)] = part;
        let entry = &mut self.entries[part.entry as usize];
        let end = offset + part.len;
        if end > entry.issued {
            (entry.issued, entry.cursor) = (end, next);
        }
        Ok(true)
    }

    /// Why a request cannot be, or need not be, given to the device.
    fn refusal(&self, request: &mut Request) -> Option<(i32, Option<&'static std::ffi::CStr>)> {
        let Request { op, start, len, .. } = *request;
        let limits = &self.shared.limits;
        let error = |errno: Errno, text| Some((-errno.raw_os_error(), Some(text)));
        if self.epoch == GONE {
            let reason = self.shared.link.reason();
            return error(reason.errno, reason.text);
        }
        let unaligned = !(start | len).is_multiple_of(limits.block);
        match op {
            Op::Flush if !limits.flush => Some((0, None)),
            Op::Flush => None,
            Op::Read | Op::Write if unaligned => error(Errno::INVAL, c"invalid start offset"),
            Op::WriteZeroes | Op::Discard if unaligned => {
                error(Errno::INVAL, c"invalid len or start offset")
            }
            Op::ReportZones | Op::Zone(_) | Op::AllZones(_) => {
                error(Errno::NOTSUP, c"request not supported for this driver")
            }
            Op::Discard if limits.discard.is_none() => {
                error(Errno::NOTSUP, c"the device does not discard")
            }
            Op::WriteZeroes if limits.write_zeroes.is_none() && request.has(flags::NO_FALLBACK) => {
                error(Errno::NOTSUP, c"the device does not write zeroes")
            }
            _ if start.checked_add(len).is_none() => {
                error(Errno::IO, c"the request is out of range")
            }
            _ if len == 0 => Some((0, None)),
            _ => None,
        }
    }
}

/// The device may write to the memory of requests until its ring is stopped.
impl<R: Ring> Drop for Queue<R> {
    fn drop(&mut self) {
        if self.epoch != GONE {
            lock(&self.shared.transport).stop_queue(self.index);
        }
    }
}
