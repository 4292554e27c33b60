//! A disk on its home thread: takes requests from its port, checks them, and answers them.
//!
//! *The edge.* What a caller asks is checked here, once: the range, the operation, the memory's length.
//! Below, the block layer's own rules hold.
//!
//! *Order.* A flush waits for every change that was asked for before it on this disk, also those whose
//! futures were dropped. If one of those nobody waits for has failed, the next flush says so, once, as
//! fsync(2) does for writes in the page cache.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
};

use block::{
    Access, Completed, Data, Errno, Event, ExtentFlags, Flags, Iov, MAX_TRANSFER, Op, Queue,
    QueueExt, Reactor, Source, Subscription, Support,
};

use crate::{
    error::{Error, Result},
    port::{Answer, Asked, Found, LentPayload, Payload, Port, Reply},
    types::{Extent, Limits},
    wait::Debt,
};

/// What is opened, and how.
pub(crate) struct Opening {
    pub source: Arc<dyn Source>,
    pub export: String,
    pub access: Access,
}

/// Opens a disk on its home thread, and serves it until it is closed.
pub(crate) async fn serve(reactor: Reactor, opening: Opening, told: Debt<Result<Arc<Port>>>) {
    let Opening {
        source,
        export,
        access,
    } = opening;
    let opened = graph::Disk::open(&reactor, source, &export, access).await;
    let home = match opened.and_then(|disk| Home::new(&reactor, disk)) {
        Ok(home) => home,
        Err(error) => {
            // Whoever wanted it may have left.
            let _ = told.pay(Err(error.into()));
            return;
        }
    };
    let guard = Guard(home);
    if let Err(Ok(port)) = told.pay(Ok(guard.0.port.clone())) {
        port.close(None);
    }
    guard.0.requests().await;
    let result = guard.0.close().await;
    if let Err(error) = &result {
        tracing::warn!("closing a disk: {error}");
    }
    guard.0.port.ended(result);
}

/// A disk on its reactor.
struct Home {
    reactor: Reactor,
    port: Arc<Port>,
    disk: RefCell<Option<graph::Disk>>,
    queue: RefCell<Option<Rc<dyn Queue>>>,
    limits: RefCell<Arc<block::Limits>>,
    events: RefCell<Option<Subscription>>,
    table: RefCell<Table>,
    /// Flushes that wait for changes before them.
    held: RefCell<Vec<Held>>,
    /// Number of the next change.
    next_change: Cell<u64>,
    /// Changes before this one are covered by a flush.
    flushed: Cell<u64>,
    /// Whoever waits until nothing is under way.
    idle: RefCell<Option<Waker>>,
}

/// Answers all that is under way when the home is going.
struct Guard(Rc<Home>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.port.abandon();
        let left = std::mem::take(&mut *self.0.table.borrow_mut());
        let held = std::mem::take(&mut *self.0.held.borrow_mut());
        drop((left, held));
        drop(self.0.events.take());
    }
}

/// What is under way.
#[derive(Default)]
struct Table {
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
    /// Entries that change the disk.
    changes: usize,
}

struct Entry {
    op: Op,
    offset: u64,
    len: u64,
    lent: LentPayload,
    reply: Reply,
    /// The number of a change; for a flush, of the first that it does not cover.
    change: u64,
}

struct Held {
    asked: Asked,
    /// Changes from this one on do not matter.
    before: u64,
    /// Changes that are still under way.
    left: usize,
}

impl Home {
    fn new(reactor: &Reactor, disk: graph::Disk) -> block::Result<Rc<Home>> {
        let device = disk.device().clone();
        let queue = device.open_queue(reactor)?;
        let limits = device.limits();
        let home = Rc::new(Home {
            reactor: reactor.clone(),
            port: Port::new(Limits::of(&limits)),
            disk: RefCell::new(Some(disk)),
            queue: RefCell::new(Some(queue)),
            limits: RefCell::new(limits),
            events: RefCell::default(),
            table: RefCell::default(),
            held: RefCell::default(),
            next_change: Cell::new(0),
            flushed: Cell::new(0),
            idle: RefCell::default(),
        });
        let weak = Rc::downgrade(&home);
        let changed = move |event| {
            if let Some(home) = weak.upgrade().filter(|_| event != Event::Gone) {
                home.limits_changed();
            }
        };
        *home.events.borrow_mut() = Some(device.subscribe(reactor, Box::new(changed)));
        Ok(home)
    }

    fn limits_changed(&self) {
        if let Some(disk) = &*self.disk.borrow() {
            let limits = disk.device().limits();
            self.port.set_limits(Limits::of(&limits));
            *self.limits.borrow_mut() = limits;
        }
    }

    /// Takes requests until there will be none.
    async fn requests(self: &Rc<Self>) {
        let mut batch = Vec::new();
        loop {
            match poll_fn(|cx| self.port.poll(&mut batch, cx)).await {
                Found::Requests => batch.drain(..).for_each(|asked| self.take(asked)),
                Found::End => return,
            }
        }
    }

    fn take(self: &Rc<Self>, asked: Asked) {
        let op = asked.op;
        if let Err(error) = self.check(&asked) {
            if asked.refuse(error.clone()).is_err() && op.modifies() {
                self.port.note(error);
            }
            return;
        }
        if asked.op != Op::Flush {
            return self.submit(asked);
        }
        let (before, left) = (self.next_change.get(), self.table.borrow().changes);
        match left {
            0 => self.submit(asked),
            left => self.held.borrow_mut().push(Held {
                asked,
                before,
                left,
            }),
        }
    }

    fn check(&self, asked: &Asked) -> Result<()> {
        let limits = self.limits.borrow();
        let (op, offset, len) = (asked.op, asked.offset, asked.len);
        let refused = |errno, why: &str| Err(Error::new(errno, format!("{op}: {why}")));
        if op.has_range() && !limits.contains(offset, len) {
            let size = limits.size;
            let why = format!("{offset}+{len} is outside the disk of {size} bytes");
            return refused(Errno::EINVAL, &why);
        }
        if op.modifies() && limits.read_only() {
            return refused(Errno::EROFS, "the disk is read-only");
        }
        if !limits.offered().contains(op) {
            return refused(Errno::ENOTSUP, "the disk cannot do this");
        }
        if asked.flags.contains(Flags::FUA) && limits.fua == Support::None {
            return refused(Errno::ENOTSUP, "the disk cannot force data to the medium");
        }
        if asked.flags.contains(Flags::FAST_ZERO) && !limits.fast_zero {
            return refused(Errno::ENOTSUP, "the disk is not fast at zeroes");
        }
        Ok(())
    }

    fn submit(self: &Rc<Self>, asked: Asked) {
        let Asked {
            op,
            flags,
            offset,
            len,
            payload,
            reply,
        } = asked;
        let lent = payload.lend();
        let memory = memory(&lent);
        let change = self.next_change.get();
        let entry = Entry {
            op,
            offset,
            len,
            lent,
            reply,
            change,
        };
        let index = self.table.borrow_mut().add(entry);
        if op.modifies() {
            self.next_change.set(change + 1);
        }
        match memory {
            _ if len == 0 && op.has_range() => self.answer(index, Ok(()), Payload::None),
            Some(memory) if len > u64::from(MAX_TRANSFER) => {
                self.reactor
                    .spawn(self.clone().parts(index, op, flags, offset, memory));
            }
            memory => {
                let mut request = self.reactor.request(op, offset, len);
                request.set_flags(flags);
                if let Some(memory) = memory {
                    *request.data_mut() = Data::Iov(memory);
                }
                let home = self.clone();
                request.on_complete(move |done| home.completed(index, done));
                match &*self.queue.borrow() {
                    Some(queue) => queue.submit(request),
                    None => request.fail(Errno::ESHUTDOWN),
                }
            }
        }
    }

    /// A transfer that is longer than any disk takes.
    async fn parts(self: Rc<Self>, index: usize, op: Op, flags: Flags, offset: u64, memory: Iov) {
        let step = MAX_TRANSFER as usize;
        let mut result = Ok(());
        for at in (0..memory.len()).step_by(step) {
            let len = step.min(memory.len() - at);
            let mut request = self.reactor.request(op, offset + at as u64, len as u64);
            request.set_flags(flags);
            *request.data_mut() = Data::Iov(memory.slice(at, len));
            let Some(queue) = self.queue.borrow().clone() else {
                request.fail(Errno::ESHUTDOWN);
                break;
            };
            result = queue.call(request).await.take_outcome();
            if result.is_err() {
                break;
            }
        }
        drop(memory);
        self.answer(index, result, Payload::None);
    }

    fn completed(self: &Rc<Self>, index: usize, done: &mut Completed) {
        let outcome = done.take_outcome();
        let found = match std::mem::take(done.data_mut()) {
            Data::Extents(list) if outcome.is_ok() => {
                let at = self.table.borrow().offset(index);
                Payload::Extents(extents(at, &list))
            }
            // Goes before the buffer is handed back: it holds it.
            _ => Payload::None,
        };
        self.answer(index, outcome, found);
    }

    fn answer(self: &Rc<Self>, index: usize, outcome: block::Outcome, found: Payload) {
        let Some(entry) = self.table.borrow_mut().remove(index) else {
            return;
        };
        let Entry {
            op,
            offset,
            len,
            lent,
            reply,
            change,
        } = entry;
        let mut result = outcome.map_err(|error| match op.has_range() {
            true => Error::of_request(&error, format_args!("{op} at {offset}+{len}")),
            false => Error::of_request(&error, format_args!("{op}")),
        });
        if op == Op::Flush && result.is_ok() {
            self.flushed.set(self.flushed.get().max(change));
            if let Some(error) = self.port.take_unheard() {
                result = Err(error);
            }
        }
        let payload = match lent.reclaim() {
            Payload::None => found,
            payload => payload,
        };
        let returned = reply.send(Answer { result, payload });
        if let Err(Answer {
            result: Err(error), ..
        }) = returned
            && (op.modifies() || op == Op::Flush)
        {
            self.port.note(error);
        }
        if op.modifies() {
            self.release(change);
        }
        if self.is_idle()
            && let Some(waker) = self.idle.take()
        {
            waker.wake();
        }
    }

    /// A change is over: flushes that waited for it last go on.
    fn release(self: &Rc<Self>, change: u64) {
        if self.held.borrow().is_empty() {
            return;
        }
        let mut ready = Vec::new();
        {
            let mut held = self.held.borrow_mut();
            for flush in held.iter_mut().filter(|flush| change < flush.before) {
                flush.left -= 1;
            }
            ready.extend(held.extract_if(.., |flush| flush.left == 0));
        }
        for flush in ready {
            self.submit(flush.asked);
        }
    }

    fn is_idle(&self) -> bool {
        self.table.borrow().is_empty() && self.held.borrow().is_empty()
    }

    /// Waits for what is under way, makes it durable, and closes the disk.
    async fn close(self: &Rc<Self>) -> Result<()> {
        poll_fn(|cx| {
            if self.is_idle() {
                return Poll::Ready(());
            }
            *self.idle.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        let queue = self.queue.take();
        let can_flush = self.limits.borrow().offered().contains(Op::Flush);
        let changed = self.flushed.get() < self.next_change.get();
        let mut result = self.port.take_unheard().map_or(Ok(()), Err);
        if let Some(queue) = queue.filter(|_| changed && can_flush) {
            let done = queue.call(self.reactor.request(Op::Flush, 0, 0)).await;
            if let Some(error) = done.error() {
                result = Err(Error::of_request(error, format_args!("flush")));
            }
        }
        drop(self.events.take());
        let disk = self.disk.take();
        if let Some(disk) = disk
            && let Err(error) = disk.close(&self.reactor).await
        {
            result = result.and(Err(error.into()));
        }
        result
    }
}

/// The memory of a request, as the block layer knows it.
fn memory(lent: &LentPayload) -> Option<Iov> {
    match lent {
        LentPayload::None => None,
        LentPayload::One(lent) => Some(lent.memory().into()),
        LentPayload::Many(lent) => {
            let parts: Vec<Iov> = lent.iter().map(|lent| lent.memory().into()).collect();
            Some(Iov::gather(&parts))
        }
    }
}

fn extents(offset: u64, list: &block::ExtentList) -> Vec<Extent> {
    let mut at = offset;
    let found = list.allocation().iter().map(|extent| {
        let (offset, len) = (at, extent.len);
        at = at.saturating_add(len);
        let flags = ExtentFlags(extent.flags);
        Extent {
            offset,
            len,
            hole: flags.is_hole(),
            zero: flags.is_zero(),
        }
    });
    found.collect()
}

impl Table {
    fn add(&mut self, entry: Entry) -> usize {
        self.changes += usize::from(entry.op.modifies());
        match self.free.pop() {
            Some(index) => {
                self.entries[index] = Some(entry);
                index
            }
            None => {
                self.entries.push(Some(entry));
                self.entries.len() - 1
            }
        }
    }

    fn remove(&mut self, index: usize) -> Option<Entry> {
        // Nothing is there any more once the home has gone.
        let entry = self.entries.get_mut(index)?.take()?;
        self.changes -= usize::from(entry.op.modifies());
        self.free.push(index);
        Some(entry)
    }

    fn offset(&self, index: usize) -> u64 {
        let entry = self.entries.get(index).and_then(Option::as_ref);
        entry.map_or(0, |entry| entry.offset)
    }

    fn is_empty(&self) -> bool {
        self.entries.len() == self.free.len()
    }
}
