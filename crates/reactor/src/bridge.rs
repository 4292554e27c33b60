//! The bridge to tokio, for sources whose libraries need it: one shared multi-thread runtime, made
//! when it is first asked for.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    task::{Context, Poll, Waker},
};

use tokio::runtime::{Builder, Handle, Runtime};

use crate::sys;

/// The shared runtime.
pub struct Shared(Runtime);

impl Shared {
    /// The runtime; made now if nobody asked before. Fails if threads cannot be started.
    pub fn get() -> io::Result<&'static Shared> {
        static SHARED: OnceLock<Shared> = OnceLock::new();
        static MAKING: Mutex<()> = Mutex::new(());
        let _one = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = SHARED.get() {
            return Ok(shared);
        }
        let mut builder = Builder::new_multi_thread();
        builder.enable_all().thread_name("blkit-tokio");
        let runtime = sys::without_signals(|| builder.build())?;
        Ok(SHARED.get_or_init(|| Shared(runtime)))
    }

    /// For starting work on it.
    pub fn handle(&self) -> &Handle {
        self.0.handle()
    }
}

/// The result of a future that runs on the shared runtime, awaited on a loop. Dropped, it cancels
/// the future.
pub struct Call<T> {
    slot: Arc<Mutex<Slot<T>>>,
    task: tokio::task::AbortHandle,
}

/// The future panicked, or the runtime is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallLost;

impl std::fmt::Display for CallLost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a background call failed unexpectedly")
    }
}

impl std::error::Error for CallLost {}

enum Slot<T> {
    Running(Option<Waker>),
    Done(Result<T, CallLost>),
    Taken,
}

/// Runs `future` on the shared runtime; its result arrives on the loop whose task awaits it.
///
/// # Errors
/// The runtime's threads cannot be started.
pub fn call<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> io::Result<Call<T>> {
    let slot = Arc::new(Mutex::new(Slot::Running(None)));
    let reply = Reply(slot.clone());
    let task = Shared::get()?.handle().spawn(async move {
        let value = future.await;
        reply.set(Ok(value));
    });
    Ok(Call {
        slot,
        task: task.abort_handle(),
    })
}

struct Reply<T>(Arc<Mutex<Slot<T>>>);

impl<T> Reply<T> {
    fn set(&self, result: Result<T, CallLost>) {
        let waker = {
            let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let Slot::Running(waker) = &mut *slot else {
                return;
            };
            let waker = waker.take();
            *slot = Slot::Done(result);
            waker
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        self.set(Err(CallLost));
    }
}

impl<T> Future for Call<T> {
    type Output = Result<T, CallLost>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *slot, Slot::Taken) {
            Slot::Running(_) => {
                *slot = Slot::Running(Some(cx.waker().clone()));
                Poll::Pending
            }
            Slot::Done(result) => Poll::Ready(result),
            Slot::Taken => panic!("a call was polled after it was ready"),
        }
    }
}

impl<T> Drop for Call<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}
