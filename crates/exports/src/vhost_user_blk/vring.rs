//! One ring that runs: requests out of it, completions into it.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::pin,
    rc::{Rc, Weak},
    task::{Poll, Waker},
    time::Duration,
};

use block::{Data, Doorbell, Errno, Flags, Op, Queue, Reactor, Request, Ticket};
use reactor::{FdStream, PeerEvent};
use virtio::{
    blk::{Command, Config, ID_LEN, Parser, Pending, Range, Status},
    memory::{Memory, Segment},
    ring::{Chain, DeviceRing, RingError, Token, packed, split},
    sigbus,
};

use super::guest;

/// Requests that are taken before others have their turn.
const BATCH: u32 = 32;

/// How often a ring is looked at that has no kick descriptor.
const POLL: Duration = Duration::from_micros(200);

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

/// What a ring works with.
pub(super) struct Parts {
    pub(super) reactor: Reactor,
    pub(super) queue: Rc<dyn Queue>,
    pub(super) ring: Ring,
    pub(super) memory: Memory,
    pub(super) parser: Parser,
    /// What the device says of itself now.
    pub(super) config: Rc<RefCell<Config>>,
    pub(super) id: [u8; ID_LEN],
    /// Writes must be durable before they are answered.
    pub(super) write_through: bool,
    pub(super) kick: Option<Rc<PeerEvent>>,
    pub(super) call: Option<Rc<PeerEvent>>,
    pub(super) err: Option<Rc<PeerEvent>>,
    pub(super) enabled: bool,
    /// To be shut down when the guest's memory is cut off.
    pub(super) stream: FdStream,
}

/// A ring that runs. See the [module](self).
pub(super) struct Vring {
    /// Of itself, for the completions.
    own: Weak<Vring>,
    reactor: Reactor,
    queue: Rc<dyn Queue>,
    ring: RefCell<Ring>,
    memory: RefCell<Memory>,
    reader: RefCell<(Parser, Chain)>,
    config: Rc<RefCell<Config>>,
    id: [u8; ID_LEN],
    write_through: Cell<bool>,
    kick: RefCell<Option<Rc<PeerEvent>>>,
    call: RefCell<Option<Rc<PeerEvent>>>,
    err: RefCell<Option<Rc<PeerEvent>>>,
    stream: FdStream,
    enabled: Cell<bool>,
    stopped: Cell<bool>,
    /// The front-end has gone: nothing is told any more.
    abandoned: Cell<bool>,
    /// Chains of the in-flight log are still to be taken.
    resuming: Cell<bool>,
    /// Completions wait for the turn's end.
    rung: Cell<bool>,
    /// There may be something new, whatever the kick says.
    nudged: Cell<bool>,
    cuts: Cell<usize>,
    tickets: RefCell<Tickets>,
    task: RefCell<Option<Waker>>,
    idle: RefCell<Option<Waker>>,
}

/// What can be cancelled: the requests in flight.
#[derive(Default)]
struct Tickets {
    slots: Vec<Option<Ticket>>,
    free: Vec<usize>,
    used: usize,
}

impl Tickets {
    fn add(&mut self, ticket: Option<Ticket>) -> usize {
        self.used += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = ticket;
        slot
    }

    fn remove(&mut self, slot: usize) {
        self.slots[slot] = None;
        self.free.push(slot);
        self.used -= 1;
    }
}

/// What is needed to answer one request.
struct Answer {
    token: Token,
    pending: Pending,
    slot: usize,
    /// Bytes written to the guest's memory, if it goes well.
    written: u32,
}

/// What a visit of the ring has found.
enum Found {
    /// More than others have patience for.
    More,
    Nothing,
}

impl Vring {
    /// Runs a ring, from now on.
    pub(super) fn start(parts: Parts) -> Rc<Vring> {
        let vring = Rc::new_cyclic(|own| Vring {
            own: own.clone(),
            reactor: parts.reactor,
            queue: parts.queue,
            ring: RefCell::new(parts.ring),
            memory: RefCell::new(parts.memory),
            reader: RefCell::new((parts.parser, Chain::new())),
            config: parts.config,
            id: parts.id,
            write_through: Cell::new(parts.write_through),
            kick: RefCell::new(parts.kick),
            call: RefCell::new(parts.call),
            err: RefCell::new(parts.err),
            stream: parts.stream,
            enabled: Cell::new(parts.enabled),
            stopped: Cell::new(false),
            abandoned: Cell::new(false),
            resuming: Cell::new(true),
            rung: Cell::new(false),
            nudged: Cell::new(true),
            cuts: Cell::new(sigbus::cuts()),
            tickets: RefCell::default(),
            task: RefCell::default(),
            idle: RefCell::default(),
        });
        let running = vring.clone();
        vring.reactor.spawn(async move { running.run().await });
        vring
    }

    async fn run(&self) {
        loop {
            self.nudged.set(false);
            let found = self.visit();
            self.look_for_cuts();
            match found {
                _ if self.stopped.get() => return,
                Err(error) => return self.break_off(&error),
                Ok(Found::More) => self.step_back().await,
                Ok(Found::Nothing) => {
                    if self.wait().await.is_err() {
                        return self.break_off(&"its kick descriptor cannot be waited for");
                    }
                }
            }
        }
    }

    /// Lets completions and other tasks run.
    async fn step_back(&self) {
        let mut given = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut given, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// Waits for a kick, or for [`Vring::nudge`].
    async fn wait(&self) -> std::io::Result<()> {
        let kick = self.kick.borrow().clone();
        let mut kicked = pin!(async {
            match &kick {
                Some(kick) => kick.wait().await,
                None => {
                    self.reactor.sleep(POLL).await;
                    Ok(())
                }
            }
        });
        poll_fn(|cx| {
            if self.nudged.get() {
                return Poll::Ready(Ok(()));
            }
            *self.task.borrow_mut() = Some(cx.waker().clone());
            kicked.as_mut().poll(cx)
        })
        .await
    }

    /// There is something new: a kick in-band, another kick descriptor, the ring is enabled.
    pub(super) fn nudge(&self) {
        self.nudged.set(true);
        let task = self.task.borrow_mut().take();
        if let Some(task) = task {
            task.wake();
        }
    }

    /// The ring is broken: nothing more is taken, and the front-end is told.
    fn break_off(&self, why: &dyn std::fmt::Display) {
        tracing::debug!("a ring of a guest is stopped: {why}");
        self.stopped.set(true);
        if let Some(err) = &*self.err.borrow() {
            err.signal();
        }
    }

    /// Takes what there is, up to a bound.
    fn visit(&self) -> Result<Found, RingError> {
        if !self.enabled.get() || self.stopped.get() {
            return Ok(Found::Nothing);
        }
        self.reader.borrow_mut().0.config = *self.config.borrow();
        either!(&mut *self.ring.borrow_mut(), ring => ring.disable_kicks());
        for _ in 0..BATCH {
            if self.take_one()? {
                continue;
            }
            // If one came meanwhile there may be no kick for it.
            if !either!(&mut *self.ring.borrow_mut(), ring => ring.enable_kicks())? {
                return Ok(Found::Nothing);
            }
            either!(&mut *self.ring.borrow_mut(), ring => ring.disable_kicks());
        }
        Ok(Found::More)
    }

    /// Memory that was cut off ends the connection.
    fn look_for_cuts(&self) {
        let cuts = sigbus::cuts();
        if self.cuts.replace(cuts) != cuts && self.memory.borrow().map().was_cut() {
            self.break_off(&"the file of its memory was made shorter");
            self.stream.shutdown();
        }
    }

    fn take_one(&self) -> Result<bool, RingError> {
        let memory = self.memory.borrow();
        let mut reader = self.reader.borrow_mut();
        let (parser, chain) = &mut *reader;
        let mut ring = self.ring.borrow_mut();
        let mut token = None;
        if self.resuming.get() {
            token = either!(&mut *ring, ring => ring.resume(&memory, chain))?;
            self.resuming.set(token.is_some());
        }
        if token.is_none() {
            token = either!(&mut *ring, ring => ring.pop(&memory, chain))?;
        }
        let Some(token) = token else {
            return Ok(false);
        };
        drop(ring);
        let (pending, command) = parser.parse(&memory, chain);
        let slot = self.tickets.borrow_mut().add(None);
        let answer = Answer {
            token,
            pending,
            slot,
            written: 0,
        };
        match command {
            Ok(command) => self.serve(answer, command, &memory),
            Err(status) => self.finish(answer, status),
        }
        Ok(true)
    }

    fn serve(&self, mut answer: Answer, command: Command<'_>, memory: &Memory) {
        match command {
            Command::Read { offset, len, data } => {
                answer.written = len;
                self.transfer(answer, Op::Read, offset, len, (memory, data));
            }
            Command::Write { offset, len, data } => {
                self.transfer(answer, Op::Write, offset, len, (memory, data));
            }
            Command::Flush => self.submit(answer, self.reactor.request(Op::Flush, 0, 0)),
            Command::GetId { data } => self.tell_id(answer, memory, data),
            Command::Discard(ranges) => self.ranges(answer, Op::Discard, ranges),
            Command::WriteZeroes(ranges) => self.ranges(answer, Op::WriteZeroes, ranges),
            Command::GetLifetime { .. }
            | Command::SecureErase(_)
            | Command::ZoneAppend { .. }
            | Command::ZoneReport { .. }
            | Command::ZoneManage { .. } => self.finish(answer, Status::Unsupported),
        }
    }

    fn transfer(
        &self,
        answer: Answer,
        op: Op,
        offset: u64,
        len: u32,
        (memory, data): (&Memory, &[Segment]),
    ) {
        let Some(iov) = guest::iov(memory, data) else {
            return self.finish(answer, Status::IoError);
        };
        let mut req = self.reactor.request(op, offset, len.into());
        *req.data_mut() = Data::Iov(iov);
        if op == Op::Write {
            req.set_flags(self.durability());
        }
        self.submit(answer, req);
    }

    fn durability(&self) -> Flags {
        match self.write_through.get() {
            true => Flags::FUA,
            false => Flags::NONE,
        }
    }

    fn submit(&self, answer: Answer, mut req: Request) {
        let ticket = req.ticket();
        self.tickets.borrow_mut().slots[answer.slot] = Some(ticket);
        let vring = self.own.upgrade().expect("it runs");
        req.on_complete(move |done| {
            let error = done.error().map(block::IoError::errno);
            vring.finish(answer, status(error));
        });
        self.queue.submit(req);
    }

    fn tell_id(&self, mut answer: Answer, memory: &Memory, data: &[Segment]) {
        let mut rest = &self.id[..];
        for piece in data {
            let (now, later) = rest.split_at(rest.len().min(piece.len() as usize));
            if !memory.write(piece.guest(), now) {
                return self.finish(answer, Status::IoError);
            }
            rest = later;
        }
        answer.written = ID_LEN as u32;
        self.finish(answer, Status::Ok);
    }

    /// One request for each range; the first error is the answer.
    fn ranges(&self, answer: Answer, op: Op, ranges: &[Range]) {
        if ranges.is_empty() {
            return self.finish(answer, Status::Ok);
        }
        let vring = self.own.upgrade().expect("it runs");
        let left = Rc::new(Cell::new(ranges.len()));
        let error = Rc::new(Cell::new(None));
        let answer = Rc::new(Cell::new(Some(answer)));
        for range in ranges {
            let mut req = self.reactor.request(op, range.offset, range.len);
            if op == Op::WriteZeroes {
                let keep = if range.unmap {
                    Flags::NONE
                } else {
                    Flags::NO_HOLE
                };
                req.set_flags(keep | self.durability());
            }
            let (vring, left) = (vring.clone(), left.clone());
            let (error, answer) = (error.clone(), answer.clone());
            req.on_complete(move |done| {
                let failed = done.error().map(block::IoError::errno);
                error.set(error.get().or(failed));
                left.set(left.get() - 1);
                if left.get() == 0
                    && let Some(answer) = answer.take()
                {
                    vring.finish(answer, status(error.get()));
                }
            });
            self.queue.submit(req);
        }
    }

    /// Puts an answer into the ring; the guest sees it at the turn's end.
    fn finish(&self, answer: Answer, status: Status) {
        let idle = {
            let mut tickets = self.tickets.borrow_mut();
            tickets.remove(answer.slot);
            tickets.used == 0
        };
        if !self.abandoned.get() {
            self.tell(answer, status);
        }
        if idle && let Some(waker) = self.idle.take() {
            waker.wake();
        }
    }

    fn tell(&self, answer: Answer, status: Status) {
        let written = match status {
            Status::Ok => answer.written,
            _ => 0,
        };
        let memory = self.memory.borrow();
        let written = answer.pending.finish(&memory, status, written);
        either!(&mut *self.ring.borrow_mut(), ring => ring.push(answer.token, written));
        if !self.rung.replace(true) {
            let own = self.own.upgrade().expect("it runs");
            self.reactor.at_end_of_turn(own);
        }
    }

    fn publish(&self) {
        let wanted = either!(&mut *self.ring.borrow_mut(), ring => ring.publish());
        if wanted && let Some(call) = &*self.call.borrow() {
            call.signal();
        }
    }

    /// Takes nothing more, and waits for what is in flight; what a layer holds back is cancelled.
    /// Returns where the ring would go on.
    pub(super) async fn stop(&self) -> u32 {
        self.stopped.set(true);
        self.nudge();
        self.cancel();
        self.quiet().await;
        self.publish();
        either!(&mut *self.ring.borrow_mut(), ring => ring.stop())
    }

    /// The front-end has gone: as [`Vring::stop`], but what ends from now on is not told to the guest,
    /// whose next back-end does it again: it is in the log, or behind the used index.
    pub(super) async fn abandon(&self) {
        self.stopped.set(true);
        self.abandoned.set(true);
        either!(&mut *self.ring.borrow_mut(), ring => ring.stop());
        self.nudge();
        self.cancel();
        self.quiet().await;
    }

    fn cancel(&self) {
        // Cancelling completes requests, later: never from in here.
        let parked: Vec<Ticket> = {
            let mut tickets = self.tickets.borrow_mut();
            tickets.slots.iter_mut().filter_map(Option::take).collect()
        };
        parked.iter().for_each(Ticket::cancel);
    }

    /// Waits until nothing is in flight.
    async fn quiet(&self) {
        poll_fn(|cx| {
            if self.tickets.borrow().used == 0 {
                return Poll::Ready(());
            }
            *self.idle.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Goes on with another ring, and other memory: where it lies has changed. What is in flight ends
    /// first, and nothing is taken meanwhile. False if there is no such ring; then it has stopped.
    pub(super) async fn rebuild(
        &self,
        memory: Memory,
        make: impl FnOnce(u32) -> Option<Ring>,
    ) -> bool {
        let enabled = self.enabled.replace(false);
        self.quiet().await;
        self.publish();
        let base = either!(&mut *self.ring.borrow_mut(), ring => ring.stop());
        let Some(ring) = make(base) else {
            self.break_off(&"its memory is gone");
            return false;
        };
        *self.ring.borrow_mut() = ring;
        *self.memory.borrow_mut() = memory;
        self.set_enabled(enabled);
        true
    }

    /// Whether it takes requests.
    pub(super) fn set_enabled(&self, enabled: bool) {
        self.enabled.set(enabled);
        self.nudge();
    }

    pub(super) fn set_kick(&self, kick: Option<Rc<PeerEvent>>) {
        *self.kick.borrow_mut() = kick;
        self.nudge();
    }

    pub(super) fn set_call(&self, call: Option<Rc<PeerEvent>>) {
        // What was done before it came may have called nobody.
        if let Some(call) = &call {
            call.signal();
        }
        *self.call.borrow_mut() = call;
    }

    pub(super) fn set_err(&self, err: Option<Rc<PeerEvent>>) {
        *self.err.borrow_mut() = err;
    }

    pub(super) fn set_write_through(&self, on: bool) {
        self.write_through.set(on);
    }

    /// The guest has other memory from now on; requests in flight keep theirs.
    pub(super) fn set_memory(&self, memory: Memory) {
        *self.memory.borrow_mut() = memory;
    }
}

impl Doorbell for Vring {
    fn ring(&self) {
        self.rung.set(false);
        if !self.stopped.get() {
            self.publish();
        }
    }
}

fn status(error: Option<Errno>) -> Status {
    match error {
        None => Status::Ok,
        Some(Errno::ENOTSUP) => Status::Unsupported,
        Some(_) => Status::IoError,
    }
}
