//! Seeded random traffic against a device, many requests in flight, checked by the model.
//!
//! Offsets cluster so that requests overlap; lengths range from one byte to the longest; memory
//! comes in every form a request may carry, with guards around it. Requests respect the limits they
//! are given: what lies behind [`block::Normalize`] is asked for anything.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
};

use block::{Completed, Data, Errno, Flags, Iov, Limits, Op, Queue, Reactor, Request, Support};
use reactor::sim::Rng;

use crate::model::{Found, Model, Token, Violation};

/// Bytes before and behind a buffer that nobody may touch.
const GUARD: usize = 64;
/// What they hold.
const GUARD_BYTE: u8 = 0xa5;

/// What to do to a device.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Seed of its choices.
    pub seed: u64,
    /// Requests on each queue.
    pub requests: u64,
    /// Requests in flight on each queue.
    pub depth: usize,
    /// The longest read or write.
    pub max_len: u64,
    /// One request in so many is a flush; 0 for none.
    pub flush_every: u64,
}

/// Traffic that was started.
pub struct Running(Rc<RefCell<State>>);

struct State {
    model: Rc<RefCell<Model>>,
    violation: Option<Violation>,
    stopped: bool,
    /// Queues that are not done.
    drivers: usize,
    wakers: VecDeque<Waker>,
}

/// One queue's traffic.
struct Driver {
    reactor: Reactor,
    queue: Rc<dyn Queue>,
    limits: Arc<Limits>,
    ops: Vec<Op>,
    workload: Workload,
    rng: Rng,
    in_flight: usize,
    left: u64,
    waker: Option<Waker>,
    state: Rc<RefCell<State>>,
}

/// What was asked for: layers below may rewrite the request.
#[derive(Clone, Copy)]
struct Asked {
    op: Op,
    offset: u64,
    len: u64,
    token: Token,
}

/// A request's memory as the test sees it: the whole buffer with its guards, and the part in use.
#[derive(Clone)]
struct Memory {
    whole: Iov,
    used: Iov,
}

impl Workload {
    /// A thousand requests, sixteen in flight, up to 16 KiB each.
    pub fn new(seed: u64) -> Workload {
        Workload {
            seed,
            requests: 1000,
            depth: 16,
            max_len: 16 << 10,
            flush_every: 24,
        }
    }

    /// Begins on these queues, one task on each one's reactor.
    pub fn start(
        &self,
        queues: Vec<(Reactor, Rc<dyn Queue>)>,
        limits: &Arc<Limits>,
        model: &Rc<RefCell<Model>>,
    ) -> Running {
        let state = Rc::new(RefCell::new(State {
            model: model.clone(),
            violation: None,
            stopped: false,
            drivers: queues.len(),
            wakers: VecDeque::new(),
        }));
        let mut rng = Rng::new(self.seed);
        for (reactor, queue) in queues {
            let driver = Rc::new(RefCell::new(Driver {
                reactor: reactor.clone(),
                queue,
                limits: limits.clone(),
                ops: limits.offered().iter().collect(),
                workload: self.clone(),
                rng: rng.fork(),
                in_flight: 0,
                left: self.requests,
                waker: None,
                state: state.clone(),
            }));
            reactor.spawn(drive(driver));
        }
        Running(state)
    }

    /// Runs on these queues to the end.
    pub async fn run(
        &self,
        queues: Vec<(Reactor, Rc<dyn Queue>)>,
        limits: &Arc<Limits>,
        model: &Rc<RefCell<Model>>,
    ) -> Result<(), Violation> {
        self.start(queues, limits, model).finish().await
    }
}

impl Running {
    /// Begins no more requests.
    pub fn stop(&self) {
        self.0.borrow_mut().stopped = true;
    }

    /// Waits until the last request has completed; the first violation, if there was one.
    pub async fn finish(self) -> Result<(), Violation> {
        poll_fn(|cx| {
            let mut state = self.0.borrow_mut();
            if state.drivers == 0 {
                return Poll::Ready(());
            }
            state.wakers.push_back(cx.waker().clone());
            Poll::Pending
        })
        .await;
        let violation = self.0.borrow_mut().violation.take();
        violation.map_or(Ok(()), Err)
    }
}

async fn drive(driver: Rc<RefCell<Driver>>) {
    poll_fn(|cx| {
        while issue(&driver) {}
        let mut this = driver.borrow_mut();
        if this.in_flight == 0 {
            return Poll::Ready(());
        }
        this.waker = Some(cx.waker().clone());
        Poll::Pending
    })
    .await;
    let state = driver.borrow().state.clone();
    let mut state = state.borrow_mut();
    state.drivers -= 1;
    state.wakers.drain(..).for_each(Waker::wake);
}

/// Submits one more request, if there is room and reason.
fn issue(driver: &Rc<RefCell<Driver>>) -> bool {
    let mut this = driver.borrow_mut();
    let stop = {
        let state = this.state.borrow();
        state.stopped || state.violation.is_some()
    };
    if stop || this.left == 0 || this.in_flight >= this.workload.depth {
        return false;
    }
    this.left -= 1;
    this.in_flight += 1;
    let (mut req, asked, memory) = this.make();
    let (queue, back) = (this.queue.clone(), driver.clone());
    drop(this);
    req.intercept(move |done| completed(&back, asked, memory, done));
    queue.submit(req);
    true
}

fn completed(driver: &Rc<RefCell<Driver>>, asked: Asked, memory: Option<Memory>, done: Completed) {
    let mut this = driver.borrow_mut();
    this.in_flight -= 1;
    let mut state = this.state.borrow_mut();
    let verdict = check(&mut state.model.borrow_mut(), asked, memory.as_ref(), &done);
    if let Err(violation) = verdict {
        state.violation.get_or_insert(violation);
    }
    drop(state);
    drop(memory);
    done.finish();
    if let Some(waker) = this.waker.take() {
        waker.wake();
    }
}

fn check(
    model: &mut Model,
    asked: Asked,
    memory: Option<&Memory>,
    done: &Completed,
) -> Result<(), Violation> {
    let Asked {
        op,
        offset,
        len,
        token,
    } = asked;
    let name = |why: &str| Violation(format!("{op} {offset}+{len}: {why}"));
    if let Some(memory) = memory {
        memory.check_guards().map_err(|why| name(&why))?;
    }
    let outcome = done.outcome().as_ref().map(|&()| ()).map_err(|e| e.errno());
    let mut bytes = Vec::new();
    let found = match (op, done.data(), memory) {
        _ if outcome.is_err() => Found::Nothing,
        (Op::Write, _, Some(memory)) => {
            let mut expected = vec![0; memory.used.len()];
            model.fill(token, offset, &mut expected);
            if memory.used.to_vec() != expected {
                return Err(name("the bytes to write were changed below"));
            }
            Found::Nothing
        }
        (Op::Read, Data::Iov(_), Some(memory)) => {
            bytes = memory.used.to_vec();
            Found::Bytes(&bytes)
        }
        (Op::Read, Data::Given(given), None) => {
            bytes = given.to_vec();
            Found::Bytes(&bytes)
        }
        (Op::Read, data, _) => return Err(name(&format!("the bytes came back as {data:?}"))),
        (Op::Extents, Data::Extents(list), _) => Found::Extents(list),
        _ => Found::Nothing,
    };
    let result = model.end(token, outcome, found);
    drop(bytes);
    result
}

impl Driver {
    fn make(&mut self) -> (Request, Asked, Option<Memory>) {
        let op = self.pick_op();
        let (offset, len) = if op.has_range() {
            self.pick_range(op)
        } else {
            (0, 0)
        };
        let flags = self.pick_flags(op);
        let token = self
            .state
            .borrow()
            .model
            .borrow_mut()
            .begin(op, offset, len, flags);
        let mut req = self.reactor.request(op, offset, len);
        req.set_flags(flags);
        let memory = match op {
            Op::Write => Some(self.memory(len as usize)),
            Op::Read if self.rng.chance(1, 2) => Some(self.memory(len as usize)),
            Op::Read => {
                *req.data_mut() = Data::Wanted;
                None
            }
            _ => None,
        };
        if let Some(memory) = &memory {
            if op == Op::Write {
                let mut bytes = vec![0; len as usize];
                self.state
                    .borrow()
                    .model
                    .borrow()
                    .fill(token, offset, &mut bytes);
                memory.used.write(0, &bytes);
            }
            *req.data_mut() = memory.used.clone().into();
        }
        let asked = Asked {
            op,
            offset,
            len,
            token,
        };
        (req, asked, memory)
    }

    fn pick_op(&mut self) -> Op {
        let flushes = self.ops.contains(&Op::Flush);
        let every = self.workload.flush_every;
        if flushes && every > 0 && self.rng.chance(1, every) {
            return Op::Flush;
        }
        let wanted = match self.rng.below(100) {
            0..40 => Op::Read,
            40..72 => Op::Write,
            72..80 => Op::WriteZeroes,
            80..85 => Op::Discard,
            85..95 => Op::Extents,
            95..98 => Op::Cache,
            _ => Op::GetId,
        };
        if self.ops.contains(&wanted) {
            wanted
        } else {
            Op::Read
        }
    }

    fn pick_range(&mut self, op: Op) -> (u64, u64) {
        let limits = &self.limits;
        let (size, block) = (limits.size, u64::from(limits.min_block));
        let most = match op {
            Op::Read | Op::Write => self.workload.max_len.min(u64::from(limits.max_transfer)),
            _ => (self.workload.max_len * 4).min(limits.max_range),
        };
        // The alignment a caller would use: any byte, sectors, pages.
        let align = (*self.rng.pick(&[1, 1, 512, 512, 4096])).max(block);
        let scale = self.rng.below(most.max(1)).max(align) >> self.rng.below(8);
        let len = (scale / align * align).clamp(block, most.max(block));
        let len = (len & !(block - 1)).min(size);
        let hot = if self.rng.chance(2, 3) {
            size / 8
        } else {
            size
        };
        let offset = self.rng.below(hot.saturating_sub(len) + 1) / align * align;
        (offset.min(size - len), len)
    }

    fn pick_flags(&mut self, op: Op) -> Flags {
        let mut flags = Flags::NONE;
        let fua = self.limits.fua == Support::Native;
        if fua && op.modifies() && self.rng.chance(1, 8) {
            flags = flags | Flags::FUA;
        }
        if op == Op::WriteZeroes && self.rng.chance(1, 4) {
            flags = flags | Flags::NO_HOLE;
        }
        if op == Op::WriteZeroes && self.limits.fast_zero && self.rng.chance(1, 4) {
            flags = flags | Flags::FAST_ZERO;
        }
        if op == Op::Extents && self.rng.chance(1, 4) {
            flags = flags | Flags::REQ_ONE;
        }
        flags
    }

    /// `len` bytes: aligned or not, in one piece or several, as the limits allow.
    fn memory(&mut self, len: usize) -> Memory {
        let align = self.limits.memory_align as usize;
        let shift = if align == 1 { self.rng.index(16) } else { 0 };
        let guard = GUARD.next_multiple_of(align) + shift;
        let total = guard + len + GUARD;
        let whole = Iov::of_chunk(self.reactor.chunk(total), total);
        whole.write(0, &vec![GUARD_BYTE; total]);
        let room = whole.slice(guard, len);
        let block = self.limits.min_block as usize;
        let used = match align == 1 && len > block && self.rng.chance(1, 3) {
            true => {
                // The back half first, then the front in two pieces.
                let cut = (1 + self.rng.index(len - 1)) / block * block;
                let mid = self.rng.index(cut + 1) / block * block;
                room.pieces([(cut, len - cut), (0, mid), (mid, cut - mid)])
            }
            false => room,
        };
        Memory { whole, used }
    }
}

impl Memory {
    fn check_guards(&self) -> Result<(), String> {
        let bytes = self.whole.to_vec();
        let (base, len) = (self.whole.segments()[0].ptr as usize, self.used.len());
        let first = self.used.segments().iter().map(|s| s.ptr as usize).min();
        let start = first.map_or(0, |p| p - base);
        let clean = |part: &[u8]| part.iter().all(|&b| b == GUARD_BYTE);
        match clean(&bytes[..start]) && clean(&bytes[start + len..]) {
            true => Ok(()),
            false => Err("memory around the buffer was changed".into()),
        }
    }
}

/// Reads a whole device, piece by piece.
pub async fn read_all(
    reactor: &Reactor,
    queue: &Rc<dyn Queue>,
    limits: &Limits,
) -> Result<Vec<u8>, Errno> {
    use block::QueueExt;
    let step = u64::from(limits.max_transfer).min(1 << 20);
    let mut image = vec![0; limits.size as usize];
    let mut at = 0;
    while at < limits.size {
        let len = step.min(limits.size - at);
        let mut req = reactor.request(Op::Read, at, len);
        *req.data_mut() = Data::Wanted;
        let done = queue.call(req).await;
        if let Some(error) = done.error() {
            return Err(error.errno());
        }
        done.data()
            .read(&mut image[at as usize..(at + len) as usize]);
        at += len;
    }
    Ok(image)
}

/// Asserts that a reactor is left clean: no request or buffer is out, nothing was dropped, nothing
/// panicked.
pub fn assert_quiet(reactor: &Reactor) {
    let counters = reactor.counters();
    assert_eq!(reactor.requests_live(), 0, "requests are out");
    assert_eq!(counters.dropped.get(), 0, "requests were dropped");
    assert_eq!(counters.panics.get(), 0, "something panicked");
    assert_eq!(reactor.chunks().live(), 0, "buffers are out");
}
