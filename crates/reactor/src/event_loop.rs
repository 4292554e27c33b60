//! The loop: one thread's turns.
//!
//! A turn makes one call into the kernel, which submits what the last turn left and waits only when
//! there is nothing to do; then it takes completions and mail, runs requests' completions and ready
//! tasks until none is left, and rings doorbells. Idle means blocked in the kernel.
//!
//! *Contract.* A loop stays on its thread; [`Island`] is the way for those that may move. What the
//! kernel may still write to is never freed: [`Loop::close`] waits for it, and leaks it in the end.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    future::Future,
    io,
    os::fd::{BorrowedFd, RawFd},
    pin::pin,
    rc::Rc,
    str::FromStr,
    sync::{Arc, OnceLock},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use block::{Error, ErrorKind, Inbox, Local, Pool, Reactor, ReactorOps, Result, Tick};

use crate::{
    executor::Executor,
    io::{Driver, Io, IoInner},
    poll::Poller,
    pools::Pools,
    sys,
    timer::Timers,
    uring::{Limit, Uring},
    wake::{Parker, Unparker},
};

/// How a loop talks to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriverKind {
    /// io_uring, and epoll where io_uring is refused.
    #[default]
    Auto,
    /// io_uring(7), or an error.
    Uring,
    /// epoll(7) and a pool of threads.
    Poll,
}

impl FromStr for DriverKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<DriverKind> {
        match text {
            "auto" => Ok(DriverKind::Auto),
            "uring" => Ok(DriverKind::Uring),
            "poll" => Ok(DriverKind::Poll),
            _ => Err(
                Error::new(ErrorKind::Config, format!("'{text}' is not an I/O driver"))
                    .hint("one of auto, uring, poll"),
            ),
        }
    }
}

/// Who may use a loop's ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RingMode {
    /// The thread that made it, and no other: the fastest.
    #[default]
    Owned,
    /// Any thread, one at a time: for loops inside other programs ([`Island`]).
    Foreign,
}

/// How to make a loop.
#[derive(Clone)]
pub struct Options {
    /// Number of the reactor in its process.
    pub index: usize,
    /// The driver.
    pub driver: DriverKind,
    /// Who may use the ring.
    pub mode: RingMode,
    /// Entries of the submission queue; the completion queue has four times as many.
    pub entries: u32,
    /// Threads for what would hold the loop up.
    pub pools: Pools,
    /// All that the loop does is one job, so a write to a file that makes it wait harms nobody: all
    /// of them are done right away.
    pub patient: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            index: 0,
            driver: DriverKind::Auto,
            mode: RingMode::Owned,
            entries: 256,
            pools: Pools::default(),
            patient: false,
        }
    }
}

/// How long a turn may wait when there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    Poll,
    /// Until this moment on the reactor's clock.
    Until(Tick),
    /// Until something happens.
    Forever,
}

/// What a turn did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Completions, tasks, timers, doorbells: what was handled.
    pub handled: usize,
    /// More is waiting: the next turn would not wait.
    pub more: bool,
}

/// A loop's numbers since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Turns.
    pub turns: u64,
    /// Calls into the kernel that submit or wait.
    pub enters: u64,
    /// Operations begun.
    pub ops: u64,
    /// Turns that kept the thread for more than 100 ms.
    pub slow_turns: u64,
    /// Operations whose memory was given up because the kernel did not end them in time.
    pub leaked: u64,
}

/// One thread's event loop. See the [module](self).
pub struct Loop {
    reactor: Reactor,
    ops: Rc<LoopOps>,
    closed: bool,
}

/// What the loop offers to its reactor.
pub(crate) struct LoopOps {
    executor: Executor,
    timers: RefCell<Timers>,
    pools: Pools,
    parker: Arc<Parker>,
    io: Io,
    mode: RingMode,
    /// Somebody looks at the loop's descriptor: it has to show what a turn would find.
    watched: Cell<bool>,
    turns: Cell<u64>,
    slow_turns: Cell<u64>,
    leaked: Cell<u64>,
}

/// Rounds of completions and tasks in one turn.
const ROUNDS: usize = 64;

/// A turn that takes longer is reported, in nanoseconds.
const SLOW: u64 = 100_000_000;

/// How long dropping a loop that was not closed waits for the kernel.
const DROP_DEADLINE: Duration = Duration::from_secs(1);

impl Loop {
    /// Makes a loop for this thread.
    pub fn new(options: Options) -> Result<Loop> {
        let parker = |nonblocking| {
            Parker::new(nonblocking).map_err(|error| Error::io("cannot make an eventfd", error))
        };
        let (driver, parker, inbox) = match ring(&options) {
            Some(Ok((uring, parker))) => {
                let inbox = Arc::new(Inbox::new(Unparker(parker.clone())));
                (Driver::Uring(uring), parker, inbox)
            }
            Some(Err(error)) if options.driver == DriverKind::Uring || !is_refusal(&error) => {
                return Err(
                    Error::io("cannot set up io_uring", error).hint("--io=poll works without it")
                );
            }
            _ => {
                let parker = parker(true)?;
                let inbox = Arc::new(Inbox::new(Unparker(parker.clone())));
                let poller = Poller::new(options.pools.clone(), inbox.clone(), parker.clone())
                    .map_err(|error| Error::io("cannot set up epoll", error))?;
                (Driver::Poll(poller), parker, inbox)
            }
        };
        let io = Io(Rc::new(IoInner::new(driver, options.patient)));
        let ops = Rc::new(LoopOps {
            executor: Executor::new(inbox.clone()),
            timers: RefCell::default(),
            pools: options.pools,
            parker,
            io: io.clone(),
            mode: options.mode,
            watched: Cell::new(false),
            turns: Cell::new(0),
            slow_turns: Cell::new(0),
            leaked: Cell::new(0),
        });
        let reactor = Reactor::new(options.index, inbox, ops.clone());
        let set = io.0.chunks.set(reactor.chunks().clone());
        assert!(set.is_ok(), "set once, here");
        Ok(Loop {
            reactor,
            ops,
            closed: false,
        })
    }

    /// The handle to it.
    pub fn reactor(&self) -> &Reactor {
        &self.reactor
    }

    /// The driver's name: `uring` or `poll`.
    pub fn driver(&self) -> &'static str {
        match self.ops.driver() {
            Driver::Uring(_) => "uring",
            Driver::Poll(_) => "poll",
        }
    }

    /// One turn: waits if there is nothing to do, handles what there is, and hands what came of it
    /// to the kernel.
    ///
    /// [`Loop::block_on`] is cheaper where it fits: it submits and waits in one call.
    pub fn turn(&mut self, wait: Wait) -> Progress {
        let handled = self.step(wait);
        self.ops.submit();
        if self.ops.watched.get() {
            self.show();
        }
        let more = self.is_busy();
        Progress { handled, more }
    }

    /// A descriptor that is readable when a turn is worthwhile: for programs with a loop of their
    /// own, which call [`Loop::turn`] with [`Wait::Poll`] then, and once before the first wait.
    /// Panics on a ring of [`RingMode::Owned`]: such a ring defers its work until it is entered,
    /// and its descriptor says nothing before.
    pub fn fd(&self) -> BorrowedFd<'_> {
        let speaks = self.ops.mode == RingMode::Foreign || self.driver() == "poll";
        assert!(
            speaks,
            "only a ring of RingMode::Foreign tells others when it has work"
        );
        self.ops.watched.set(true);
        self.show();
        let raw = self.raw();
        // SAFETY: the ring or the epoll instance lives as long as `self`.
        unsafe { BorrowedFd::borrow_raw(raw) }
    }

    /// Turns until `future` is done.
    pub fn block_on<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let waker = self.ops.executor.root_waker();
        let mut context = Context::from_waker(&waker);
        self.reactor.begin_turn();
        loop {
            self.ops.executor.take_root_woken();
            if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
                // What it sent last goes now: there may be no other turn.
                self.ops.submit();
                if self.ops.watched.get() {
                    self.show();
                }
                return value;
            }
            // What it asked for goes out with the call that waits.
            self.watch_time(|| self.run());
            // Once in any case: a future that always has something to do is not alone here.
            loop {
                self.step(Wait::Forever);
                if self.ops.executor.root_woken() {
                    break;
                }
            }
        }
    }

    /// Ends the loop: waits up to `deadline` for requests and file I/O in flight, drops the tasks,
    /// sends what was taken to be sent, cancels what waits for a peer. What the kernel has not
    /// given back by then is leaked and counted. Mail is refused afterwards.
    pub fn close(mut self, deadline: Duration) -> Stats {
        self.end(deadline)
    }

    /// The loop's numbers.
    pub fn stats(&self) -> Stats {
        let ops = &*self.ops;
        Stats {
            turns: ops.turns.get(),
            enters: match ops.driver() {
                Driver::Uring(uring) => uring.enters.get(),
                Driver::Poll(poller) => poller.enters.get(),
            },
            ops: ops.io.0.ops.get(),
            slow_turns: ops.slow_turns.get(),
            leaked: ops.leaked.get(),
        }
    }

    /// Tasks that are not done.
    pub fn tasks(&self) -> usize {
        self.ops.executor.len()
    }

    fn raw(&self) -> RawFd {
        match self.ops.driver() {
            Driver::Uring(uring) => uring.raw(),
            Driver::Poll(poller) => poller.raw(),
        }
    }

    /// Submits what the last step left and waits, if there is nothing to do; then handles what has
    /// come. What comes of that is submitted by the next step.
    fn step(&mut self, wait: Wait) -> usize {
        let ops = &*self.ops;
        ops.turns.set(ops.turns.get() + 1);
        match self.limit(wait) {
            Limit::Nothing => ops.enter(Limit::Nothing),
            limit => {
                ops.parker.sleep();
                // Whatever came before that announcement is seen now; what comes after it wakes.
                ops.enter(if self.may_sleep() {
                    limit
                } else {
                    Limit::Nothing
                });
            }
        }
        ops.parker.awake();
        ops.executor.awake();
        self.reactor.begin_turn();
        self.watch_time(|| {
            let handled = ops.fire_timers(self.reactor.now()) + ops.io.0.reap();
            self.reactor.run_inbox();
            handled + self.run()
        })
    }

    /// Does a turn's work, and counts the turn if that takes long.
    fn watch_time<T>(&self, work: impl FnOnce() -> T) -> T {
        let began = sys::coarse_clock();
        let done = work();
        if sys::coarse_clock().saturating_sub(began) > SLOW {
            let slow = &self.ops.slow_turns;
            slow.set(slow.get() + 1);
        }
        done
    }

    /// Runs completions, tasks and doorbells until none is left, or for long enough.
    fn run(&self) -> usize {
        let (reactor, executor) = (&self.reactor, &self.ops.executor);
        let mut handled = 0;
        for _ in 0..ROUNDS {
            let n = reactor.run_completions() + executor.run_ready(reactor, &mut |_| 0);
            handled += n;
            if n == 0 {
                if !reactor.has_doorbells() {
                    return handled;
                }
                handled += reactor.ring_doorbells();
            }
        }
        handled + reactor.ring_doorbells()
    }

    /// How long this turn may wait.
    fn limit(&self, wait: Wait) -> Limit {
        if wait == Wait::Poll || self.is_busy() {
            return Limit::Nothing;
        }
        let timer = self.ops.timers.borrow().next();
        let until = match wait {
            Wait::Until(at) => Some(timer.map_or(at, |timer| timer.min(at))),
            _ => timer,
        };
        match until {
            None => Limit::Forever,
            Some(at) => match at.since(self.ops.clock()) {
                Duration::ZERO => Limit::Nothing,
                time => Limit::For(time),
            },
        }
    }

    fn is_busy(&self) -> bool {
        let io = &self.ops.io.0;
        self.reactor.has_completions()
            || self.reactor.has_doorbells()
            || self.reactor.inbox().has_mail()
            || self.ops.executor.has_ready()
            || self.ops.executor.root_woken()
            || match &io.driver {
                Driver::Uring(uring) => uring.has_completions(io.hurry.get()),
                Driver::Poll(poller) => poller.has_completions(),
            }
    }

    fn may_sleep(&self) -> bool {
        self.ops.executor.fall_asleep() && !self.is_busy()
    }

    /// Makes the descriptor say what the loop knows.
    fn show(&self) {
        let ops = &*self.ops;
        let due = ops.timers.borrow().next();
        let now = ops.clock();
        match (ops.driver(), due) {
            (Driver::Uring(uring), Some(at)) => uring.arm(now.0, at.0),
            (Driver::Poll(poller), Some(at)) => poller.arm(now.0, at.0),
            _ => {}
        }
        ops.submit();
        ops.parker.sleep();
        let idle = self.may_sleep();
        let told = matches!(ops.driver(), Driver::Uring(uring) if uring.is_readable());
        // Told twice, the second time would be one turn too many, and that for ever.
        if !idle && !told {
            ops.parker.ring();
        }
    }

    fn end(&mut self, deadline: Duration) -> Stats {
        if self.closed {
            return self.stats();
        }
        self.closed = true;
        let until = Tick(self.ops.clock().0).after(deadline);
        let step = |this: &mut Loop, until: Tick| {
            let soon = this.ops.clock().after(Duration::from_millis(5)).min(until);
            this.step(Wait::Until(soon));
            this.ops.submit();
        };
        // What is in flight ends, with its tasks still there to take it.
        while self.ops.clock() < until && self.in_flight() {
            step(self, until);
        }
        self.ops.executor.clear(&self.reactor);
        while self.ops.clock() < until && self.in_flight() {
            step(self, until);
        }
        let io = self.ops.io.0.clone();
        io.cancel_all();
        let until = until.max(self.ops.clock().after(CANCEL_DEADLINE));
        while self.ops.clock() < until && io.pending().0 > 0 {
            step(self, until);
        }
        self.reactor.inbox().close();
        self.ops.executor.clear(&self.reactor);
        let timers = self.ops.timers.borrow_mut().clear();
        drop(timers);
        while self.reactor.run_inbox() {}
        self.run();
        let lost = io.table.borrow_mut().leak() as u64;
        self.ops.leaked.set(self.ops.leaked.get() + lost);
        self.stats()
    }

    /// Requests, file I/O and sends that are not done.
    fn in_flight(&self) -> bool {
        self.reactor.requests_live() > 0 || self.ops.io.0.pending().1 > 0
    }
}

/// How long closing waits for the kernel to give up what it was told to.
const CANCEL_DEADLINE: Duration = Duration::from_millis(200);

impl Drop for Loop {
    fn drop(&mut self) {
        self.end(DROP_DEADLINE);
    }
}

impl LoopOps {
    /// Wakes those whose time has come. Returns how many.
    fn fire_timers(&self, now: Tick) -> usize {
        let mut fired = 0;
        while let Some(waker) = { self.timers.borrow_mut().due(now) } {
            waker.wake();
            fired += 1;
        }
        fired
    }

    pub(crate) fn io(&self) -> &Io {
        &self.io
    }

    fn driver(&self) -> &Driver {
        &self.io.0.driver
    }

    fn enter(&self, limit: Limit) {
        match self.driver() {
            Driver::Uring(uring) => uring.enter(limit),
            Driver::Poll(poller) => poller.enter(limit),
        }
    }

    fn submit(&self) {
        if let Driver::Uring(uring) = self.driver() {
            uring.submit();
        }
    }
}

impl ReactorOps for LoopOps {
    fn spawn(&self, task: Local<'static, ()>) {
        self.executor.spawn(task);
    }

    fn timer(&self, at: Tick, waker: Waker) -> u64 {
        self.timers.borrow_mut().insert(at, waker)
    }

    fn cancel_timer(&self, at: Tick, timer: u64) {
        let waker = self.timers.borrow_mut().remove(at, timer);
        drop(waker);
    }

    fn pool(&self, pool: Pool, job: Box<dyn FnOnce() + Send>) {
        self.pools.run_boxed(pool, job);
    }

    fn clock(&self) -> Tick {
        static START: OnceLock<Instant> = OnceLock::new();
        // One start for all loops, so that their moments compare. Never 0: that is "never".
        let elapsed = START.get_or_init(Instant::now).elapsed();
        Tick(1 + u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX - 1))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A loop that may move to another thread between turns, with everything that lives on it.
pub struct Island<T> {
    inner: Loop,
    value: T,
}

// SAFETY: by the promise of `Island::new`.
unsafe impl<T> Send for Island<T> {}

impl<T> Island<T> {
    /// Joins a loop and what lives on it. Panics unless the loop is [`RingMode::Foreign`].
    ///
    /// # Safety
    /// From now on everything that belongs to the loop's thread (its reactor handles, chunks,
    /// requests, queues, streams) is reachable from the loop and `value` only, and `value` holds
    /// nothing else that is bound to a thread.
    pub unsafe fn new(inner: Loop, value: T) -> Island<T> {
        assert!(
            inner.ops.mode == RingMode::Foreign,
            "a ring that belongs to one thread cannot move"
        );
        Island { inner, value }
    }

    /// On the thread that turns it from now on.
    pub fn into_parts(self) -> (Loop, T) {
        (self.inner, self.value)
    }
}

/// A ring, unless epoll was asked for. Less locked memory is tried before giving up.
fn ring(options: &Options) -> Option<io::Result<(Uring, Arc<Parker>)>> {
    if options.driver == DriverKind::Poll {
        return None;
    }
    let owned = options.mode == RingMode::Owned;
    let mut entries = options.entries.max(8);
    loop {
        let made = Parker::new(false)
            .and_then(|parker| Ok((Uring::new(entries, owned, parker.clone())?, parker)));
        match made {
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && entries > 8 => {
                entries /= 4;
            }
            made => return Some(made),
        }
    }
}

/// The host forbids io_uring, or lacks it.
fn is_refusal(error: &io::Error) -> bool {
    let refusals = [
        libc::ENOSYS,
        libc::EPERM,
        libc::EACCES,
        libc::ENOMEM,
        libc::EINVAL,
    ];
    error
        .raw_os_error()
        .is_some_and(|errno| refusals.contains(&errno))
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin, task::Poll};

    use super::*;

    #[test]
    fn a_sleep_that_is_given_up_leaves_no_timer() {
        let mut run = Loop::new(Options {
            driver: DriverKind::Poll,
            ..Options::default()
        })
        .expect("epoll is always there");
        let reactor = run.reactor().clone();
        run.block_on(poll_fn(|cx| {
            let mut sleep = pin!(reactor.sleep(Duration::from_secs(3600)));
            assert!(sleep.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        }));
        assert_eq!(run.ops.timers.borrow().next(), None);
        run.close(Duration::ZERO);
    }
}
