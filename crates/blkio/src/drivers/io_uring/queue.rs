//! A ring and its requests.

use std::{
    collections::VecDeque,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use io_uring::{IoUring, cqueue, types};
use rustix::{
    event::{EventfdFlags, eventfd},
    io::Errno,
};

use super::{
    file::{File, Inline, negative},
    inline,
    steps::{Next, Slot, Text},
};
use crate::{
    Completion, Result,
    queue::Done,
    request::{Op, Request, flags},
    wait::Wait,
};

/// Elements of a vector that one operation takes (IOV_MAX).
pub(crate) const MAX_SEGMENTS: u32 = 1024;

/// Completions taken from the ring at once.
const BATCH: usize = 64;

/// The queue of a file.
pub(crate) struct Queue {
    ring: IoUring,
    file: Arc<File>,
    poll: bool,
    inline: inline::Policy,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Operations that the ring has; no more than it can answer.
    in_flight: u32,
    limit: u32,
    /// Slots whose operation the ring has no room for.
    backlog: VecDeque<u32>,
    event: OwnedFd,
    /// The ring knows it.
    registered: bool,
    enabled: bool,
}

impl Queue {
    pub(super) fn new(file: Arc<File>, entries: u32, poll: bool) -> Result<Queue> {
        let ring = build(entries, poll)?;
        ring.submitter().register_files(&[file.fd.as_raw_fd()])?;
        let limit = ring.params().cq_entries();
        let inline = match poll {
            true => Inline::Never,
            false => file.inline,
        };
        Ok(Queue {
            ring,
            poll,
            inline: inline::Policy::new(inline),
            slots: Vec::with_capacity(limit as usize),
            free: Vec::with_capacity(limit as usize),
            in_flight: 0,
            limit,
            backlog: VecDeque::new(),
            event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            registered: false,
            enabled: false,
            file,
        })
    }

    pub fn submit(&mut self, request: Request, done: &mut Done) {
        if let Some((ret, text)) = self.refusal(&request) {
            return done.push_back(Completion::new(request.user_data, ret, text));
        }
        let moved = match request.op {
            Op::Read | Op::Write => match self.inline.attempt(&self.file, &request) {
                Some(moved) if moved == request.len => {
                    return done.push_back(Completion::new(request.user_data, 0, None));
                }
                moved => moved.unwrap_or(0),
            },
            _ => 0,
        };
        let index = self.slot(request);
        let slot = &mut self.slots[index as usize];
        slot.moved = moved;
        slot.first(&self.file);
        self.push(index);
    }

    pub fn kick(&mut self, _: &mut Done) {
        self.flush();
    }

    pub fn reap(&mut self, done: &mut Done) {
        loop {
            let mut batch = [const { MaybeUninit::<cqueue::Entry>::uninit() }; BATCH];
            let batch = self.ring.completion().fill(&mut batch);
            for entry in batch.iter() {
                self.completed(entry.user_data() as u32, entry.result(), done);
            }
            if batch.len() < BATCH {
                break;
            }
        }
        while self.in_flight < self.limit
            && let Some(index) = self.backlog.pop_front()
        {
            self.push(index);
        }
        // What goes on after a step must not wait for the next call.
        self.flush();
    }

    pub fn wait(&mut self, more: usize, wait: &Wait<'_>, done: &mut Done) -> Result<()> {
        if wait.signals.is_some() {
            // ppoll(2) says that it was interrupted; a call that submits something does not.
            self.flush();
            if self.ring.completion().is_empty() {
                wait.readable(&self.ring)?;
            }
            self.reap(done);
            return Ok(());
        }
        let want = more.min(self.in_flight as usize);
        let result = match (wait.left()?, self.poll) {
            (None, _) => self.ring.submit_and_wait(want),
            // Polling rings know no timeouts: a look, and the clock again.
            (Some(_), true) => self.ring.submit(),
            (Some(left), false) => {
                let time = types::Timespec::from(left);
                let args = types::SubmitArgs::new().timespec(&time);
                self.ring.submitter().submit_with_args(want, &args)
            }
        };
        let errno = result.err().and_then(|error| Errno::from_io_error(&error));
        self.reap(done);
        match errno {
            // The deadline shows when the time is asked for again.
            None | Some(Errno::TIME | Errno::BUSY | Errno::AGAIN) => Ok(()),
            errno => wait.interrupted(errno),
        }
    }

    pub fn rest(&mut self, left: bool) {
        if left && self.enabled {
            self.signal();
        }
    }

    pub fn completion_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    pub fn set_completion_fd_enabled(&mut self, enabled: bool) {
        self.enabled = enabled;
        if enabled && !self.registered {
            let event = self.event.as_raw_fd();
            self.registered = self.ring.submitter().register_eventfd(event).is_ok();
        }
        let completion = self.ring.completion();
        match enabled {
            true => completion.enable_eventfd(),
            false => completion.disable_eventfd(),
        }
        // What has come before makes no event any more.
        if enabled && !completion.is_empty() {
            drop(completion);
            self.signal();
        }
    }

    fn signal(&self) {
        // It can only fail if it is as readable as can be.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    /// Why a request cannot be, or need not be, done.
    fn refusal(&self, request: &Request) -> Option<(i32, Text)> {
        let Request { op, start, len, .. } = *request;
        let end = start.checked_add(len).filter(|end| *end <= i64::MAX as u64);
        if end.is_none() {
            return Some((negative(Errno::INVAL), Some(c"the request is out of range")));
        }
        let durable = op == Op::Flush || request.has(flags::FUA);
        match op {
            Op::Read | Op::Write if len == 0 => Some((0, None)),
            Op::ReportZones | Op::Zone(_) | Op::AllZones(_) => {
                let text = c"request not supported for this driver";
                Some((negative(Errno::NOTSUP), Some(text)))
            }
            Op::Flush | Op::WriteZeroes | Op::Discard if self.poll => {
                let text = c"request not supported for poll queues";
                Some((negative(Errno::NOTSUP), Some(text)))
            }
            Op::WriteZeroes | Op::Discard if len == 0 => Some((negative(Errno::INVAL), None)),
            _ => match self.file.poisoned() {
                0 => None,
                errno if durable => Some((-errno, Some(c"an earlier flush has failed"))),
                _ => None,
            },
        }
    }

    fn slot(&mut self, request: Request) -> u32 {
        match self.free.pop() {
            Some(index) => {
                self.slots[index as usize].begin(request);
                index
            }
            None => {
                self.slots.push(Slot::new(request));
                (self.slots.len() - 1) as u32
            }
        }
    }

    /// Gives a slot's operation to the ring, or to the backlog.
    fn push(&mut self, index: u32) {
        if self.in_flight >= self.limit {
            return self.backlog.push_back(index);
        }
        let entry = self.slots[index as usize].entry();
        let entry = entry.user_data(u64::from(index));
        // SAFETY: what the entry points to is in the slot or the caller's, and lives until the
        // operation completes: slots are not freed before, and dropping the queue waits.
        let full = unsafe { self.ring.submission().push(&entry) }.is_err();
        if full {
            self.flush();
            // SAFETY: as above.
            if unsafe { self.ring.submission().push(&entry) }.is_err() {
                return self.backlog.push_front(index);
            }
        }
        self.in_flight += 1;
    }

    fn completed(&mut self, index: u32, result: i32, done: &mut Done) {
        self.in_flight -= 1;
        let slot = &mut self.slots[index as usize];
        match slot.advance(result, &self.file) {
            Next::Step => self.push(index),
            Next::Done(ret, text) => {
                let user_data = slot.request.user_data;
                done.push_back(Completion::new(user_data, ret, text));
                self.free.push(index);
            }
        }
    }

    /// Submits what the ring's submission queue has. What the kernel does not take now stays.
    fn flush(&mut self) {
        if !self.ring.submission().is_empty() {
            let _ = self.ring.submit();
        }
    }
}

/// The kernel writes to the caller's memory until an operation is done.
impl Drop for Queue {
    fn drop(&mut self) {
        self.backlog.clear();
        let mut seen = Done::new();
        while self.in_flight > 0 {
            let waited = self.ring.submit_and_wait(1);
            let errno = waited.err().and_then(|error| Errno::from_io_error(&error));
            if !matches!(errno, None | Some(Errno::INTR | Errno::BUSY | Errno::AGAIN)) {
                return;
            }
            self.reap(&mut seen);
        }
    }
}

fn build(entries: u32, poll: bool) -> std::io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.dontfork();
    if poll {
        builder.setup_iopoll();
    }
    builder.build(entries)
}

/// Whether a ring can poll this file: a read of nothing says.
pub(super) fn can_poll(fd: &OwnedFd) -> bool {
    let Ok(mut ring) = build(1, true) else {
        return false;
    };
    let read = io_uring::opcode::Readv::new(types::Fd(fd.as_raw_fd()), std::ptr::null(), 0);
    // SAFETY: it reads nothing into nowhere.
    let pushed = unsafe { ring.submission().push(&read.build()) };
    pushed.is_ok()
        && ring.submit_and_wait(1).is_ok()
        && ring
            .completion()
            .next()
            .is_some_and(|entry| entry.result() == 0)
}
