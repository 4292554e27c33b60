//! Waiting for another thread: as a future, or by sleeping.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

/// Locks what no panic can leave half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a value from another thread arrives, once. May be used again when it was taken.
pub(crate) struct Slot<T>(Mutex<State<T>>);

enum State<T> {
    Waiting(Option<Waker>),
    Done(T),
    /// Nobody waits any more.
    Left,
}

impl<T> Default for Slot<T> {
    fn default() -> Slot<T> {
        Slot(Mutex::new(State::Waiting(None)))
    }
}

impl<T> Slot<T> {
    /// Puts the value there.
    ///
    /// # Errors
    /// Nobody waits for it: it is given back.
    pub fn fill(self: Arc<Self>, value: T) -> Result<(), T> {
        let waker = {
            let mut state = lock(&self.0);
            let State::Waiting(waker) = &mut *state else {
                return Err(value);
            };
            let waker = waker.take();
            *state = State::Done(value);
            waker
        };
        // Whoever is woken may use the slot again: nobody else must hold it then.
        drop(self);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// The value, once it is there.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<T> {
        let mut state = lock(&self.0);
        match &mut *state {
            State::Waiting(Some(waker)) if waker.will_wake(cx.waker()) => Poll::Pending,
            State::Waiting(waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            State::Done(_) => match std::mem::replace(&mut *state, State::Waiting(None)) {
                State::Done(value) => Poll::Ready(value),
                State::Waiting(_) | State::Left => unreachable!("it was done"),
            },
            State::Left => panic!("a future was polled after it was ready"),
        }
    }

    /// Nobody waits any more. What has arrived meanwhile is given back.
    pub fn leave(&self) -> Option<T> {
        match std::mem::replace(&mut *lock(&self.0), State::Left) {
            State::Done(value) => Some(value),
            State::Waiting(_) | State::Left => None,
        }
    }
}

/// A value that another thread owes.
pub(crate) struct Promise<T>(Arc<Slot<T>>);

/// The other side of a [`Promise`]: dropped without a value, it breaks it.
pub(crate) struct Debt<T>(Option<Arc<Slot<Option<T>>>>);

/// A promise, and who has to keep it.
pub(crate) fn promise<T>() -> (Promise<Option<T>>, Debt<T>) {
    let slot = Arc::<Slot<Option<T>>>::default();
    (Promise(slot.clone()), Debt(Some(slot)))
}

impl<T> Debt<T> {
    /// Keeps the promise.
    ///
    /// # Errors
    /// Nobody waits for it: the value is given back.
    pub fn pay(mut self, value: T) -> Result<(), T> {
        match self.0.take().map(|slot| slot.fill(Some(value))) {
            Some(Err(Some(value))) => Err(value),
            _ => Ok(()),
        }
    }
}

impl<T> Drop for Debt<T> {
    fn drop(&mut self) {
        if let Some(slot) = self.0.take() {
            // Nobody may be waiting.
            let _ = slot.fill(None);
        }
    }
}

impl<T> Future for Promise<T> {
    type Output = T;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        self.0.poll(cx)
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Wakes a thread that sleeps in [`block_on`].
struct Sleeper(Thread);

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

fn sleeper() -> Waker {
    Arc::new(Sleeper(thread::current())).into()
}

thread_local! {
    /// Made once for each thread, so that waiting costs no allocation.
    static SLEEPER: Waker = sleeper();
}

/// Sleeps until the future is ready.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    match sleep_on(future, None) {
        Some(value) => value,
        None => unreachable!("there is no deadline"),
    }
}

/// Sleeps until the future is ready; `None` if that takes longer.
pub(crate) fn block_on_for<T>(future: impl Future<Output = T>, patience: Duration) -> Option<T> {
    sleep_on(future, Some(Instant::now() + patience))
}

fn sleep_on<T>(future: impl Future<Output = T>, until: Option<Instant>) -> Option<T> {
    // A thread that is ending has no thread-locals any more.
    let waker = SLEEPER.try_with(Waker::clone).unwrap_or_else(|_| sleeper());
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return Some(value);
        }
        // Woken too early, by somebody else's token, it looks once more.
        match until.map(|until| until.saturating_duration_since(Instant::now())) {
            None => thread::park(),
            Some(Duration::ZERO) => return None,
            Some(left) => thread::park_timeout(left),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_arrives_from_another_thread() {
        let (promise, debt) = promise();
        let thread = thread::spawn(move || debt.pay(7).is_ok());
        assert_eq!(block_on(promise), Some(7));
        assert!(thread.join().unwrap());
    }

    #[test]
    fn a_promise_can_be_broken_and_given_up() {
        let (promised, debt) = promise::<u8>();
        drop(debt);
        assert_eq!(block_on(promised), None);
        let (promised, debt) = promise();
        drop(promised);
        assert_eq!(debt.pay(7), Err(7));
    }
}
