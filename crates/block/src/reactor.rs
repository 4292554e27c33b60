//! The handle to the loop that a piece of code runs on.
//!
//! A [`Reactor`] belongs to one thread. It makes requests and buffers, tells the time of the turn,
//! runs tasks and timers, rings doorbells at the end of the turn, and sends work to pools. The loop
//! itself (io_uring, epoll or simulated) is behind [`ReactorOps`] and lives in `crates/reactor`.
//!
//! *One turn*: exports and inbox -> new requests -> completions until none is left -> ready tasks ->
//! doorbells -> one call into the kernel, which waits only when there is nothing to do.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    collections::HashMap,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::{
    data::{Chunk, ChunkPool},
    events::Event,
    inbox::{Inbox, Mail},
    op::Op,
    request::{CancelGroup, Core, Counters, Request},
};

/// A future on the control path: may allocate, may wait, stays on its thread.
pub type Local<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A moment on the reactor's clock, in nanoseconds since an arbitrary start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tick(pub u64);

impl Tick {
    /// The moment `d` later.
    pub fn after(self, d: Duration) -> Tick {
        Tick(
            self.0
                .saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    /// How much later than `earlier` this is.
    pub fn since(self, earlier: Tick) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Which pool of threads a job goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// Jobs that wait in the kernel: many threads, mostly asleep.
    Blocking,
    /// Jobs that compute: as many threads as there are CPUs.
    Cpu,
}

/// What a loop offers to its [`Reactor`]. Called on the loop's thread only.
pub trait ReactorOps: 'static {
    /// Runs a task until it is done. First polled in the turn's task phase.
    fn spawn(&self, task: Local<'static, ()>);
    /// Wakes `waker` at `at`, once. Returns a number to cancel it by.
    fn timer(&self, at: Tick, waker: Waker) -> u64;
    /// Nobody waits for this timer any more; it may have gone off. A loop that ignores this wakes
    /// in vain.
    fn cancel_timer(&self, _at: Tick, _timer: u64) {}
    /// Runs a job on a pool's thread.
    fn pool(&self, pool: Pool, job: Box<dyn FnOnce() + Send>);
    /// Reads the clock.
    fn clock(&self) -> Tick;
    /// For `reactor::Io::of`: the driver behind it.
    fn as_any(&self) -> &dyn Any;
}

/// Rung once at the end of a turn in which it was asked for: one reply write per connection, one
/// call per virtqueue.
pub trait Doorbell {
    /// Pushes out what the turn gathered.
    fn ring(&self);
}

/// The handle to one thread's loop. Cheap to clone, never leaves its thread.
#[derive(Clone)]
pub struct Reactor(Rc<Inner>);

struct Inner {
    index: usize,
    core: Rc<Core>,
    chunks: ChunkPool,
    inbox: Arc<Inbox>,
    now: Cell<Tick>,
    doorbells: RefCell<Vec<Rc<dyn Doorbell>>>,
    ringing: RefCell<Vec<Rc<dyn Doorbell>>>,
    mail: RefCell<Vec<Mail>>,
    listeners: RefCell<Listeners>,
    kept: RefCell<HashMap<usize, Rc<dyn Any>>>,
    ops: Rc<dyn ReactorOps>,
}

/// Callbacks for device events, by hub and number (see [`crate::EventHub`]).
type Listeners = HashMap<(usize, u64), Rc<dyn Fn(Event)>>;

/// Mail handled per turn.
const MAIL_PER_TURN: usize = 1024;

impl Reactor {
    /// A handle for the loop `ops`, number `index` of its process, reached through `inbox`.
    pub fn new(index: usize, inbox: Arc<Inbox>, ops: Rc<dyn ReactorOps>) -> Reactor {
        Reactor(Rc::new(Inner {
            index,
            core: Rc::default(),
            chunks: ChunkPool::default(),
            inbox,
            now: Cell::new(ops.clock()),
            doorbells: RefCell::default(),
            ringing: RefCell::default(),
            mail: RefCell::default(),
            listeners: RefCell::default(),
            kept: RefCell::default(),
            ops,
        }))
    }

    /// Number of this reactor in its process, from 0.
    pub fn index(&self) -> usize {
        self.0.index
    }

    /// A request from the pool. Ranges are the caller's to check.
    #[inline]
    pub fn request(&self, op: Op, offset: u64, len: u64) -> Request {
        self.0.core.request(op, offset, len)
    }

    /// A group of requests that are cancelled together.
    pub fn cancel_group(&self) -> CancelGroup {
        CancelGroup::new(&self.0.core)
    }

    /// A buffer of at least `len` bytes, contents arbitrary.
    #[inline]
    pub fn chunk(&self, len: usize) -> Chunk {
        self.0.chunks.take(len)
    }

    /// The pool behind [`Reactor::chunk`].
    pub fn chunks(&self) -> &ChunkPool {
        &self.0.chunks
    }

    /// The turn's time: one clock reading per turn.
    #[inline]
    pub fn now(&self) -> Tick {
        self.0.now.get()
    }

    /// Waits.
    pub fn sleep(&self, d: Duration) -> Sleep {
        Sleep {
            reactor: self.clone(),
            at: self.now().after(d),
            armed: None,
        }
    }

    /// Runs a task on this reactor.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.0.ops.spawn(Box::pin(task));
    }

    /// Rings `bell` when this turn ends.
    #[inline]
    pub fn at_end_of_turn(&self, bell: Rc<dyn Doorbell>) {
        self.0.doorbells.borrow_mut().push(bell);
    }

    /// Where other threads reach this reactor.
    pub fn inbox(&self) -> &Arc<Inbox> {
        &self.0.inbox
    }

    /// Runs a job that may wait in the kernel on another thread.
    pub fn blocking<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Job<T> {
        self.job(Pool::Blocking, job)
    }

    /// Runs a job that computes on another thread.
    pub fn cpu<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Job<T> {
        self.job(Pool::Cpu, job)
    }

    /// Runs a job on a pool without waiting for it.
    pub fn offload(&self, pool: Pool, job: impl FnOnce() + Send + 'static) {
        self.0.ops.pool(pool, Box::new(job));
    }

    /// Keeps a value for whoever asks for `key` on this reactor: what belongs to a thread and has to
    /// be found by way of something that may cross threads, such as a device's connection. The key is
    /// the address of something that both hold an `Arc` of, so that no other has the same.
    pub fn keep<T: 'static>(&self, key: usize, value: Rc<T>) {
        self.0.kept.borrow_mut().insert(key, value);
    }

    /// The value that was kept under `key`.
    pub fn kept<T: 'static>(&self, key: usize) -> Option<Rc<T>> {
        let value = self.0.kept.borrow().get(&key)?.clone();
        value.downcast().ok()
    }

    /// Forgets what was kept under `key`.
    pub fn forget(&self, key: usize) {
        // Dropped after the borrow has ended: it may forget others.
        let old = self.0.kept.borrow_mut().remove(&key);
        drop(old);
    }

    /// This reactor's numbers.
    pub fn counters(&self) -> &Counters {
        &self.0.core.counters
    }

    /// Requests that are not back in the pool; tests assert 0 at the end.
    pub fn requests_live(&self) -> usize {
        self.0.core.live()
    }

    pub(crate) fn listeners(&self) -> &RefCell<Listeners> {
        &self.0.listeners
    }

    /// The loop behind it, for `reactor::Io::of`.
    pub fn ops(&self) -> &dyn ReactorOps {
        &*self.0.ops
    }

    fn job<T: Send + 'static>(
        &self,
        pool: Pool,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Job<T> {
        let (reply, result) = Job::new();
        self.0.ops.pool(pool, Box::new(move || reply.set(job())));
        result
    }
}

/// For the loop that drives a reactor.
impl Reactor {
    /// A turn begins: reads the clock.
    pub fn begin_turn(&self) {
        self.0.now.set(self.0.ops.clock());
    }

    /// Handles a bounded batch of mail. Returns true if more is waiting.
    pub fn run_inbox(&self) -> bool {
        let inbox = &self.0.inbox;
        if !inbox.has_mail() {
            return false;
        }
        inbox.acknowledge();
        let mut batch = std::mem::take(&mut *self.0.mail.borrow_mut());
        let more = inbox.take(MAIL_PER_TURN, &mut batch);
        for mail in batch.drain(..) {
            match mail {
                Mail::Completed(body) => body.arrive(),
                Mail::Run(f) => self.guarded(|| f(self)),
            }
        }
        *self.0.mail.borrow_mut() = batch;
        if more {
            inbox.wake();
        }
        more
    }

    /// Runs completions until none is left. Returns how many.
    pub fn run_completions(&self) -> usize {
        self.0.core.run_completions()
    }

    /// Completions are waiting?
    pub fn has_completions(&self) -> bool {
        self.0.core.has_completions()
    }

    /// Rings the doorbells that were asked for. Returns how many.
    pub fn ring_doorbells(&self) -> usize {
        let mut bells = std::mem::take(&mut *self.0.ringing.borrow_mut());
        std::mem::swap(&mut bells, &mut *self.0.doorbells.borrow_mut());
        let n = bells.len();
        for bell in bells.drain(..) {
            self.guarded(|| bell.ring());
        }
        *self.0.ringing.borrow_mut() = bells;
        n
    }

    /// Doorbells are waiting to be rung?
    pub fn has_doorbells(&self) -> bool {
        !self.0.doorbells.borrow().is_empty()
    }

    /// Runs `f`; a panic in it is counted, not passed on.
    pub fn guarded(&self, f: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(f)).is_err() {
            Counters::add(&self.0.core.counters.panics, 1);
        }
    }
}

/// Waits until a moment. See [`Reactor::sleep`].
pub struct Sleep {
    reactor: Reactor,
    at: Tick,
    /// Who the timer wakes (a sleep may move from one task to another), and its number.
    armed: Option<(Waker, u64)>,
}

impl Future for Sleep {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.reactor.now() >= self.at {
            return Poll::Ready(());
        }
        let armed = self.armed.as_ref();
        if !armed.is_some_and(|(waker, _)| waker.will_wake(cx.waker())) {
            self.disarm();
            let timer = self.reactor.0.ops.timer(self.at, cx.waker().clone());
            self.armed = Some((cx.waker().clone(), timer));
        }
        Poll::Pending
    }
}

impl Sleep {
    fn disarm(&mut self) {
        if let Some((_, timer)) = self.armed.take() {
            self.reactor.0.ops.cancel_timer(self.at, timer);
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.disarm();
    }
}

/// The result of a job on another thread: `Err` if the job panicked.
#[must_use = "a job's result is awaited"]
pub struct Job<T> {
    slot: Arc<Mutex<JobState<T>>>,
}

impl<T> Job<T> {
    /// A job that is done when its reply is set, from whatever thread; lost if that is dropped unset.
    pub fn new() -> (JobReply<T>, Job<T>) {
        let slot = Arc::new(Mutex::new(JobState::Running(None)));
        (JobReply { slot: slot.clone() }, Job { slot })
    }
}

/// The job panicked on its thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a background job failed unexpectedly")]
pub struct JobPanicked;

enum JobState<T> {
    Running(Option<Waker>),
    Done(T),
    Lost,
}

/// Where a job's result goes. See [`Job::new`].
pub struct JobReply<T> {
    slot: Arc<Mutex<JobState<T>>>,
}

impl<T> JobReply<T> {
    /// The job is done.
    pub fn set(self, value: T) {
        self.swap(JobState::Done(value));
    }

    fn swap(&self, state: JobState<T>) {
        let old = {
            let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
            match &*slot {
                JobState::Running(_) => std::mem::replace(&mut *slot, state),
                _ => return,
            }
        };
        if let JobState::Running(Some(waker)) = old {
            waker.wake();
        }
    }
}

impl<T> Drop for JobReply<T> {
    fn drop(&mut self) {
        self.swap(JobState::Lost);
    }
}

impl<T> Future for Job<T> {
    type Output = Result<T, JobPanicked>;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *slot, JobState::Lost) {
            JobState::Running(_) => {
                *slot = JobState::Running(Some(cx.waker().clone()));
                Poll::Pending
            }
            JobState::Done(value) => Poll::Ready(Ok(value)),
            JobState::Lost => Poll::Ready(Err(JobPanicked)),
        }
    }
}
