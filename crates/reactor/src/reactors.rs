//! Several loops on several threads.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, PoisonError, mpsc},
    task::{Context, Poll, Waker},
    thread::{self, JoinHandle},
    time::Duration,
};

use block::{Error, ErrorKind, Inbox, Reactor, Result};

use crate::{
    event_loop::{Loop, Options, Stats},
    sys,
};

/// Loops on threads of their own, `blkit-r-N`, and optionally the caller's loop as number 0.
///
/// Each thread turns until [`Reactors::stop`] and then closes its loop. Signals are blocked there.
pub struct Reactors {
    inboxes: Vec<Arc<Inbox>>,
    threads: Vec<JoinHandle<Stats>>,
    stop: Arc<Stop>,
}

/// Tells the threads to stop.
#[derive(Default)]
struct Stop {
    state: Mutex<StopState>,
}

#[derive(Default)]
struct StopState {
    /// Set when they are to stop: how long each has for it.
    deadline: Option<Duration>,
    waiting: Vec<Waker>,
}

impl Stop {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(deadline) = state.deadline {
            return Poll::Ready(deadline);
        }
        if !state
            .waiting
            .iter()
            .any(|waker| waker.will_wake(cx.waker()))
        {
            state.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn set(&self, deadline: Duration) {
        let waiting = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.deadline = Some(deadline);
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// How long dropping waits, unless [`Reactors::stop`] was called.
const DROP_DEADLINE: Duration = Duration::from_secs(5);

impl Reactors {
    /// Starts `n` loops. `options.index` is the first one's number.
    pub fn start(n: usize, options: Options) -> Result<Reactors> {
        Reactors::start_beside(None, n, options)
    }

    /// Starts `n` loops beside the caller's own, which is the first, and which the caller turns.
    pub fn start_beside(main: Option<&Loop>, n: usize, options: Options) -> Result<Reactors> {
        let mut reactors = Reactors {
            inboxes: main
                .map(|main| main.reactor().inbox().clone())
                .into_iter()
                .collect(),
            threads: Vec::new(),
            stop: Arc::default(),
        };
        let first = main.map_or(options.index, |main| main.reactor().index() + 1);
        for index in first..first + n {
            let mut options = options.clone();
            options.index = index;
            // If one fails, the drop stops those that run.
            let inbox = reactors.launch(options)?;
            reactors.inboxes.push(inbox);
        }
        Ok(reactors)
    }

    /// How many there are, the caller's own included.
    pub fn len(&self) -> usize {
        self.inboxes.len()
    }

    /// None at all?
    pub fn is_empty(&self) -> bool {
        self.inboxes.is_empty()
    }

    /// Where a loop is reached. Panics if there is none of that number.
    pub fn inbox(&self, i: usize) -> &Arc<Inbox> {
        &self.inboxes[i]
    }

    /// Runs `f` on a loop, soon. False if it is gone.
    pub fn run_on(&self, i: usize, f: impl FnOnce(&Reactor) + Send + 'static) -> bool {
        self.inboxes[i].run(f)
    }

    /// Stops the threads, each with up to `deadline` for what is in flight. Returns their loops'
    /// numbers.
    pub fn stop(mut self, deadline: Duration) -> Vec<Stats> {
        self.end(deadline)
    }

    fn launch(&mut self, options: Options) -> Result<Arc<Inbox>> {
        let (tell, told) = mpsc::channel();
        let stop = self.stop.clone();
        let builder = thread::Builder::new().name(format!("blkit-r-{}", options.index));
        let body = move || match Loop::new(options) {
            Ok(mut this) => {
                // Nobody listens if the caller has given up.
                let _ = tell.send(Ok(this.reactor().inbox().clone()));
                drop(tell);
                let deadline = this.block_on(poll_fn(|cx| stop.poll(cx)));
                this.close(deadline)
            }
            Err(error) => {
                let _ = tell.send(Err(error));
                Stats::default()
            }
        };
        let thread = sys::without_signals(|| builder.spawn(body))
            .map_err(|error| Error::io("cannot start a thread", error))?;
        self.threads.push(thread);
        told.recv().unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Internal,
                "a reactor's thread ended while it started",
            ))
        })
    }

    fn end(&mut self, deadline: Duration) -> Vec<Stats> {
        self.stop.set(deadline);
        let threads = self.threads.drain(..);
        threads
            .map(|thread| thread.join().unwrap_or_default())
            .collect()
    }
}

impl Drop for Reactors {
    fn drop(&mut self) {
        self.end(DROP_DEADLINE);
    }
}
