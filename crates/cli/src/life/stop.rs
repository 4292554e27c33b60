//! The wish to stop: from a signal, a source, or another thread; waited for on a reactor.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

/// How often the process was asked to stop.
#[derive(Clone, Default)]
pub struct Stop(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    requests: u32,
    waiting: Vec<Waker>,
}

impl Stop {
    /// Asks to stop; asked again, at once.
    pub fn request(&self) {
        let mut state = self.lock();
        state.requests = state.requests.saturating_add(1);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Waits until it was asked `times` times.
    pub fn requested(&self, times: u32) -> impl Future<Output = ()> + use<> {
        let stop = self.clone();
        std::future::poll_fn(move |cx| {
            let mut state = stop.lock();
            if state.requests >= times {
                return Poll::Ready(());
            }
            if !state
                .waiting
                .iter()
                .any(|known| known.will_wake(cx.waker()))
            {
                state.waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{pin::pin, task::Context};

    #[test]
    fn requests_are_counted() {
        let stop = Stop::default();
        let mut context = Context::from_waker(Waker::noop());
        let (mut once, mut twice) = (pin!(stop.requested(1)), pin!(stop.requested(2)));
        assert!(once.as_mut().poll(&mut context).is_pending());
        stop.request();
        assert!(once.as_mut().poll(&mut context).is_ready());
        assert!(twice.as_mut().poll(&mut context).is_pending());
        stop.request();
        assert!(twice.as_mut().poll(&mut context).is_ready());
    }
}
