//! The tasks of one loop.
//!
//! A task is a future that stays on its loop's thread. Its waker may be used anywhere: it puts the
//! task's slot on the ready list, and wakes the loop if that said that it sleeps. Slots and wakers
//! are reused, so a task that goes on and on costs no allocation after it was spawned; a waker that
//! outlived its task wakes whoever has the slot now, which a future must stand anyway.
//!
//! *Why a lock.* A wake costs one uncontended lock (about 10 ns). Whether the loop sleeps is read
//! and written under it, so a wake can neither be lost nor cost a system call while the loop runs.
//!
//! *Contract.* A task that panics is dropped and counted ([`Counters::panics`]); the others go on.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use block::{Counters, Inbox, Local, Reactor};

/// The tasks of one loop, and which of them are ready.
pub(crate) struct Executor {
    shared: Arc<Shared>,
    slots: RefCell<Slots>,
    batch: RefCell<VecDeque<u32>>,
    /// The root waker was used since the last look.
    root: Cell<bool>,
    /// Our own copy of `Ready::asleep`.
    asleep: Cell<bool>,
}

struct Slots {
    list: Vec<Slot>,
    free: Vec<u32>,
    tasks: usize,
}

struct Slot {
    task: Option<Local<'static, ()>>,
    waker: Waker,
    handle: Arc<TaskWaker>,
}

struct Shared {
    ready: Mutex<Ready>,
    /// `ready.list` is not empty: read without the lock.
    any: AtomicBool,
    inbox: Arc<Inbox>,
}

struct Ready {
    list: VecDeque<u32>,
    /// The loop is about to wait, or waits: wakers must wake it.
    asleep: bool,
}

struct TaskWaker {
    shared: Arc<Shared>,
    slot: u32,
    /// On the ready list already.
    queued: AtomicBool,
}

/// The slot of the future that [`Executor::root_waker`] belongs to: it never holds a task.
const ROOT: u32 = 0;

impl Executor {
    /// No tasks yet; `inbox` wakes the loop when it sleeps.
    pub(crate) fn new(inbox: Arc<Inbox>) -> Executor {
        let shared = Arc::new(Shared {
            ready: Mutex::new(Ready {
                list: VecDeque::with_capacity(64),
                asleep: false,
            }),
            any: AtomicBool::new(false),
            inbox,
        });
        let root = Slot::new(&shared, ROOT);
        Executor {
            shared,
            slots: RefCell::new(Slots {
                list: vec![root],
                free: Vec::new(),
                tasks: 0,
            }),
            batch: RefCell::default(),
            root: Cell::new(false),
            asleep: Cell::new(false),
        }
    }

    /// Takes a task; it is ready at once.
    pub(crate) fn spawn(&self, task: Local<'static, ()>) {
        let mut slots = self.slots.borrow_mut();
        let slot = match slots.free.pop() {
            Some(slot) => slot,
            None => {
                let slot = u32::try_from(slots.list.len()).expect("fewer than 2^32 tasks");
                slots.list.push(Slot::new(&self.shared, slot));
                slot
            }
        };
        slots.tasks += 1;
        let entry = &mut slots.list[slot as usize];
        entry.task = Some(task);
        entry.handle.wake_by_ref();
    }

    /// Tasks that are not done.
    pub(crate) fn len(&self) -> usize {
        self.slots.borrow().tasks
    }

    /// Is a task ready to run?
    #[inline]
    pub(crate) fn has_ready(&self) -> bool {
        self.shared.any.load(Ordering::Acquire)
    }

    /// Polls the tasks that are ready now; those that become ready meanwhile wait for the next
    /// call. `order` is told how many are left and says which goes next (0 is first in, first out).
    /// Returns how many were polled.
    pub(crate) fn run_ready(
        &self,
        reactor: &Reactor,
        order: &mut dyn FnMut(usize) -> usize,
    ) -> usize {
        if !self.has_ready() {
            return 0;
        }
        let mut batch = std::mem::take(&mut *self.batch.borrow_mut());
        {
            let mut ready = self.shared.lock();
            std::mem::swap(&mut batch, &mut ready.list);
            self.shared.any.store(false, Ordering::Release);
        }
        let mut polled = 0;
        while !batch.is_empty() {
            let next = match order(batch.len()) {
                0 => batch.pop_front(),
                at => batch.remove(at),
            };
            let slot = next.expect("the order names one of those that are left");
            polled += usize::from(self.poll(slot, reactor));
        }
        *self.batch.borrow_mut() = batch;
        polled
    }

    /// Wakes nothing but the loop itself: for the one future that drives it from outside.
    pub(crate) fn root_waker(&self) -> Waker {
        self.slots.borrow().list[ROOT as usize].waker.clone()
    }

    /// Was the root waker used, and not looked at since?
    pub(crate) fn root_woken(&self) -> bool {
        self.root.get()
    }

    /// Looks whether the root waker was used.
    pub(crate) fn take_root_woken(&self) -> bool {
        self.root.take()
    }

    /// The loop is about to wait: from now on wakers wake it. Says false, and changes nothing, if
    /// a task is ready.
    pub(crate) fn fall_asleep(&self) -> bool {
        let mut ready = self.shared.lock();
        ready.asleep = ready.list.is_empty();
        self.asleep.set(ready.asleep);
        ready.asleep
    }

    /// The loop runs again: wakers need not wake it.
    pub(crate) fn awake(&self) {
        if self.asleep.take() {
            self.shared.lock().asleep = false;
        }
    }

    /// Drops all tasks, and what their dropping spawns.
    pub(crate) fn clear(&self, reactor: &Reactor) {
        let mut at = 0;
        loop {
            let task = match self.slots.borrow_mut().list.get_mut(at) {
                Some(slot) => slot.task.take(),
                None => break,
            };
            at += 1;
            if let Some(task) = task {
                self.end(at as u32 - 1);
                reactor.guarded(|| drop(task));
                at = 0;
            }
        }
    }

    /// Polls one slot's task. False if there is none.
    fn poll(&self, slot: u32, reactor: &Reactor) -> bool {
        let (mut task, waker) = {
            let mut slots = self.slots.borrow_mut();
            let entry = &mut slots.list[slot as usize];
            // Cleared before the poll, so that a wake during it counts.
            entry.handle.queued.store(false, Ordering::Release);
            match entry.task.take() {
                Some(task) => (task, entry.waker.clone()),
                None if slot == ROOT => {
                    self.root.set(true);
                    return true;
                }
                None => return false,
            }
        };
        let mut context = Context::from_waker(&waker);
        match catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(&mut context))) {
            Ok(Poll::Pending) => {
                self.slots.borrow_mut().list[slot as usize].task = Some(task);
                return true;
            }
            Ok(Poll::Ready(())) => {}
            Err(_) => Counters::add(&reactor.counters().panics, 1),
        }
        reactor.guarded(|| drop(task));
        self.end(slot);
        true
    }

    fn end(&self, slot: u32) {
        let mut slots = self.slots.borrow_mut();
        slots.tasks -= 1;
        slots.free.push(slot);
    }
}

impl Slot {
    fn new(shared: &Arc<Shared>, slot: u32) -> Slot {
        let handle = Arc::new(TaskWaker {
            shared: shared.clone(),
            slot,
            queued: AtomicBool::new(false),
        });
        Slot {
            task: None,
            waker: Waker::from(handle.clone()),
            handle,
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Ready> {
        // Nothing that can panic runs under the lock.
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let asleep = {
            let mut ready = self.shared.lock();
            ready.list.push_back(self.slot);
            self.shared.any.store(true, Ordering::Release);
            ready.asleep
        };
        if asleep {
            self.shared.inbox.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{any::Any, cell::Cell, rc::Rc, sync::atomic::AtomicUsize, task::Poll};

    use block::{Pool, ReactorOps, Tick, Unpark};

    use super::*;

    struct Nothing;
    impl ReactorOps for Nothing {
        fn spawn(&self, _: Local<'static, ()>) {}
        fn timer(&self, _: Tick, _: Waker) -> u64 {
            0
        }
        fn pool(&self, _: Pool, job: Box<dyn FnOnce() + Send>) {
            job();
        }
        fn clock(&self) -> Tick {
            Tick(0)
        }
        fn as_any(&self) -> &dyn Any {
            self
        }
    }

    struct Count(Arc<AtomicUsize>);
    impl Unpark for Count {
        fn unpark(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn world() -> (Executor, Reactor, Arc<AtomicUsize>) {
        let unparked = Arc::new(AtomicUsize::new(0));
        let inbox = Arc::new(Inbox::new(Count(unparked.clone())));
        let reactor = Reactor::new(0, inbox.clone(), Rc::new(Nothing));
        (Executor::new(inbox), reactor, unparked)
    }

    #[test]
    fn runs_in_the_order_asked_for() {
        let (executor, reactor, _) = world();
        let seen = Rc::new(RefCell::new(Vec::new()));
        for i in 0..4 {
            let seen = seen.clone();
            executor.spawn(Box::pin(async move { seen.borrow_mut().push(i) }));
        }
        assert_eq!(executor.len(), 4);
        assert_eq!(executor.run_ready(&reactor, &mut |n| n - 1), 4);
        assert_eq!(*seen.borrow(), [3, 2, 1, 0]);
        assert_eq!((executor.len(), executor.has_ready()), (0, false));
    }

    #[test]
    fn a_panic_ends_one_task_only() {
        let (executor, reactor, _) = world();
        executor.spawn(Box::pin(async { panic!("a task panics on purpose") }));
        let ran = Rc::new(Cell::new(false));
        let flag = ran.clone();
        executor.spawn(Box::pin(async move { flag.set(true) }));
        executor.run_ready(&reactor, &mut |_| 0);
        assert!(ran.get());
        assert_eq!((reactor.counters().panics.get(), executor.len()), (1, 0));
    }

    #[test]
    fn a_wake_from_another_thread_wakes_a_sleeping_loop_once() {
        let (executor, reactor, unparked) = world();
        let kept = Rc::new(RefCell::new(None));
        let keep = kept.clone();
        let done = Rc::new(Cell::new(0));
        let polls = done.clone();
        executor.spawn(Box::pin(std::future::poll_fn(move |cx| {
            *keep.borrow_mut() = Some(cx.waker().clone());
            polls.set(polls.get() + 1);
            if polls.get() == 3 {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })));
        executor.run_ready(&reactor, &mut |_| 0);
        assert!(executor.fall_asleep());
        let waker: Waker = kept.borrow().clone().unwrap();
        let (a, b) = (waker.clone(), waker.clone());
        std::thread::spawn(move || a.wake()).join().unwrap();
        std::thread::spawn(move || b.wake()).join().unwrap();
        assert_eq!(unparked.load(Ordering::Relaxed), 1);
        assert!(!executor.fall_asleep(), "a task is ready");
        assert_eq!(executor.run_ready(&reactor, &mut |_| 0), 1);
        executor.awake();
        waker.wake_by_ref();
        assert_eq!(
            unparked.load(Ordering::Relaxed),
            1,
            "an awake loop is not unparked"
        );
        executor.run_ready(&reactor, &mut |_| 0);
        waker.wake_by_ref();
        assert_eq!(
            executor.run_ready(&reactor, &mut |_| 0),
            0,
            "the task is gone"
        );
        assert_eq!((done.get(), executor.len()), (3, 0));
    }

    #[test]
    fn clearing_drops_what_is_left() {
        let (executor, reactor, _) = world();
        let held = Rc::new(());
        for _ in 0..3 {
            let hold = held.clone();
            executor.spawn(Box::pin(async move {
                std::future::pending::<()>().await;
                drop(hold);
            }));
        }
        executor.run_ready(&reactor, &mut |_| 0);
        executor.clear(&reactor);
        assert_eq!((Rc::strong_count(&held), executor.len()), (1, 0));
    }
}
