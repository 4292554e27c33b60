//! The smallest loop there can be: tasks, completions and doorbells in order, no kernel, no chance.
//!
//! The real loops cost system calls and the simulated one draws lots; here only the block layer and
//! what stands on it is left to count.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::Future,
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use block::{Inbox, Local, Pool, Reactor, ReactorOps, Tick, Unpark};

/// The loop. See the [module](self).
pub struct Turn {
    reactor: Reactor,
    ops: Rc<Ops>,
}

/// What a turn adds to the clock, in nanoseconds.
const STEP: u64 = 1000;

impl Turn {
    /// A loop with nothing to do.
    pub fn new() -> Turn {
        let ops = Rc::new(Ops::default());
        let inbox = Arc::new(Inbox::new(Awake));
        Turn {
            reactor: Reactor::new(0, inbox, ops.clone()),
            ops,
        }
    }

    /// The handle for what runs on it.
    pub fn reactor(&self) -> &Reactor {
        &self.reactor
    }

    /// Turns until nothing is left to do but to wait for timers.
    pub fn run(&self) {
        loop {
            self.ops.now.set(self.ops.now.get() + STEP);
            self.reactor.begin_turn();
            let mut done = self.ops.fire();
            done += usize::from(self.reactor.run_inbox());
            loop {
                let now = self.reactor.run_completions() + self.ops.run_ready();
                if now == 0 {
                    break;
                }
                done += now;
            }
            if done + self.reactor.ring_doorbells() == 0 {
                return;
            }
        }
    }

    /// Turns until the future is done; time passes while it waits.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
                return value;
            }
            self.run();
        }
    }
}

struct Awake;

impl Unpark for Awake {
    /// This loop never sleeps.
    fn unpark(&self) {}
}

#[derive(Default)]
struct Ops {
    now: Cell<u64>,
    /// Slots are used again, with their wakers.
    tasks: RefCell<Vec<Slot>>,
    free: RefCell<Vec<usize>>,
    timers: RefCell<VecDeque<(Tick, Waker)>>,
}

struct Slot {
    task: Option<Local<'static, ()>>,
    ready: Arc<Ready>,
    waker: Waker,
}

struct Ready(AtomicBool);

impl Wake for Ready {
    fn wake(self: Arc<Ready>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Ready>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl ReactorOps for Ops {
    fn spawn(&self, task: Local<'static, ()>) {
        let mut tasks = self.tasks.borrow_mut();
        match self.free.borrow_mut().pop() {
            Some(index) => {
                tasks[index].task = Some(task);
                tasks[index].ready.0.store(true, Ordering::Relaxed);
            }
            None => {
                let ready = Arc::new(Ready(AtomicBool::new(true)));
                let waker = Waker::from(ready.clone());
                tasks.push(Slot {
                    task: Some(task),
                    ready,
                    waker,
                });
            }
        }
    }

    fn timer(&self, at: Tick, waker: Waker) -> u64 {
        self.timers.borrow_mut().push_back((at, waker));
        0
    }

    fn pool(&self, _: Pool, job: Box<dyn FnOnce() + Send>) {
        job();
    }

    fn clock(&self) -> Tick {
        Tick(self.now.get())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Ops {
    fn fire(&self) -> usize {
        let now = self.clock();
        let mut timers = self.timers.borrow_mut();
        let before = timers.len();
        timers.retain(|(at, waker)| {
            if *at <= now {
                waker.wake_by_ref();
            }
            *at > now
        });
        before - timers.len()
    }

    fn run_ready(&self) -> usize {
        let (mut ran, mut index) = (0, 0);
        while let Some((mut task, waker)) = self.take(&mut index) {
            ran += 1;
            let done = task
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_ready();
            if done {
                drop(task);
                self.free.borrow_mut().push(index);
            } else {
                self.tasks.borrow_mut()[index].task = Some(task);
            }
            index += 1;
        }
        ran
    }

    /// The next ready task from `index` on, out of its slot; `index` becomes its number.
    fn take(&self, index: &mut usize) -> Option<(Local<'static, ()>, Waker)> {
        let mut tasks = self.tasks.borrow_mut();
        while *index < tasks.len() {
            let slot = &mut tasks[*index];
            if slot.task.is_some() && slot.ready.0.swap(false, Ordering::Relaxed) {
                return slot.task.take().map(|task| (task, slot.waker.clone()));
            }
            *index += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn tasks_timers_and_jobs_end() {
        let turn = Turn::new();
        let sum = Rc::new(Cell::new(0));
        for n in 1..=3 {
            let (reactor, sum) = (turn.reactor().clone(), sum.clone());
            turn.reactor().spawn(async move {
                reactor.sleep(Duration::from_micros(10 * n)).await;
                let got = reactor.cpu(move || n).await.unwrap();
                sum.set(sum.get() + got);
            });
        }
        let reactor = turn.reactor().clone();
        turn.block_on(async move { reactor.sleep(Duration::from_millis(1)).await });
        assert_eq!(sum.get(), 6);
        assert!(
            turn.ops
                .tasks
                .borrow()
                .iter()
                .all(|slot| slot.task.is_none())
        );
    }
}
