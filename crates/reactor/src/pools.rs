//! Threads for what would hold up a loop: calls that wait in the kernel, and long computations.
//!
//! Two pools, shared by all loops of the process. Threads start when a job finds none idle, and end
//! after ten idle seconds, so a program that needs none has none. All signals are blocked in them.
//!
//! *Contract.* Every accepted job runs, unless the pools are dropped first and the job does not
//! begin before their deadline. A job that panics harms nobody but itself.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use block::Pool;

use crate::sys;

/// How long a thread waits for a job before it ends.
const IDLE: Duration = Duration::from_secs(10);

/// How long the last clone's drop waits for running jobs.
const JOIN: Duration = Duration::from_secs(5);

/// Threads of a blocking pool by default.
const BLOCKING_THREADS: usize = 64;

type Task = Box<dyn FnOnce() + Send>;

/// Handle to the two pools; cheap to clone. Dropping the last one joins the threads.
#[derive(Clone)]
pub struct Pools(Arc<Both>);

struct Both {
    blocking: Arc<One>,
    cpu: Arc<One>,
}

struct One {
    name: &'static str,
    most: usize,
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Task>,
    threads: Vec<JoinHandle<()>>,
    alive: usize,
    idle: usize,
    started: usize,
    closing: bool,
}

impl Pools {
    /// Pools of at most so many threads each (at least 1). None is started yet.
    pub fn new(blocking: usize, cpu: usize) -> Pools {
        let one = |name, most: usize| {
            Arc::new(One {
                name,
                most: most.max(1),
                state: Mutex::default(),
                work: Condvar::new(),
            })
        };
        Pools(Arc::new(Both {
            blocking: one("blkit-block", blocking),
            cpu: one("blkit-cpu", cpu),
        }))
    }

    /// Runs a job on a thread of `pool`.
    pub fn run(&self, pool: Pool, job: impl FnOnce() + Send + 'static) {
        self.run_boxed(pool, Box::new(job));
    }

    pub(crate) fn run_boxed(&self, pool: Pool, job: Task) {
        let one = match pool {
            Pool::Blocking => &self.0.blocking,
            Pool::Cpu => &self.0.cpu,
        };
        one.run(job);
    }

    /// Threads that exist now, in both pools.
    pub fn threads(&self) -> usize {
        self.0.blocking.lock().alive + self.0.cpu.lock().alive
    }
}

impl Default for Pools {
    /// 64 blocking threads, and as many for computing as there are CPUs.
    fn default() -> Pools {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        Pools::new(BLOCKING_THREADS, cpus)
    }
}

impl One {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Jobs run outside the lock, and nothing under it panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(self: &Arc<One>, job: Task) {
        let mut state = self.lock();
        state.jobs.push_back(job);
        if state.idle >= state.jobs.len() {
            drop(state);
            self.work.notify_one();
            return;
        }
        if state.alive < self.most {
            self.start(&mut state);
        }
    }

    fn start(self: &Arc<One>, state: &mut State) {
        let one = self.clone();
        let name = format!("{}-{}", self.name, state.started);
        let builder = thread::Builder::new().name(name);
        match sys::without_signals(|| builder.spawn(move || one.work())) {
            Ok(handle) => {
                state.threads.retain(|thread| !thread.is_finished());
                state.threads.push(handle);
                state.alive += 1;
                state.started += 1;
            }
            // The others will get to the job. Without any, nobody would: that is worth a panic.
            Err(error) => assert!(state.alive > 0, "cannot start a thread: {error}"),
        }
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                // The panic hook has printed it; whoever waits for the job is told by its drop.
                let _ = catch_unwind(AssertUnwindSafe(job));
                state = self.lock();
                continue;
            }
            if state.closing {
                break;
            }
            state.idle += 1;
            let (guard, timeout) = self
                .work
                .wait_timeout(state, IDLE)
                .unwrap_or_else(PoisonError::into_inner);
            state = guard;
            state.idle -= 1;
            if timeout.timed_out() && state.jobs.is_empty() {
                break;
            }
        }
        state.alive -= 1;
    }

    fn close(&self, until: Instant) {
        let threads = {
            let mut state = self.lock();
            state.closing = true;
            std::mem::take(&mut state.threads)
        };
        self.work.notify_all();
        for thread in threads {
            // A job may hold the last clone of the pools: it must not wait for itself.
            if thread.thread().id() == thread::current().id() {
                continue;
            }
            while !thread.is_finished() && Instant::now() < until {
                thread::sleep(Duration::from_millis(1));
            }
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
        self.lock().jobs.clear();
    }
}

impl Drop for Both {
    fn drop(&mut self) {
        let until = Instant::now() + JOIN;
        self.blocking.close(until);
        self.cpu.close(until);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    };

    use super::*;

    #[test]
    fn threads_start_when_needed_and_no_more() {
        let pools = Pools::new(2, 1);
        assert_eq!(pools.threads(), 0);
        let (tell, told) = mpsc::channel();
        let gate = Arc::new(std::sync::Barrier::new(3));
        for _ in 0..2 {
            let gate = gate.clone();
            pools.run(Pool::Blocking, move || {
                gate.wait();
            });
        }
        let more = tell.clone();
        pools.run(Pool::Blocking, move || more.send(3).unwrap());
        assert_eq!(pools.threads(), 2);
        gate.wait();
        assert_eq!(told.recv().unwrap(), 3);
        pools.run(Pool::Cpu, move || {
            tell.send(thread::current().name().map_or(0, str::len))
                .unwrap();
        });
        assert_eq!(told.recv().unwrap(), "blkit-cpu-0".len());
    }

    #[test]
    fn dropping_runs_what_was_accepted() {
        let ran = Arc::new(AtomicUsize::new(0));
        let pools = Pools::new(1, 1);
        for i in 0..100 {
            let ran = ran.clone();
            pools.run(Pool::Blocking, move || {
                ran.fetch_add(1, Ordering::Relaxed);
                assert!(i != 50, "one job panics on purpose");
            });
        }
        drop(pools);
        assert_eq!(ran.load(Ordering::Relaxed), 100);
    }

    #[test]
    fn a_job_may_hold_the_last_handle() {
        let pools = Pools::new(1, 1);
        let (tell, told) = mpsc::channel();
        let (go, gone) = mpsc::channel::<()>();
        let held = pools.clone();
        pools.run(Pool::Blocking, move || {
            gone.recv().unwrap();
            drop(held);
            tell.send(()).unwrap();
        });
        drop(pools);
        go.send(()).unwrap();
        told.recv_timeout(Duration::from_secs(4)).unwrap();
    }
}
