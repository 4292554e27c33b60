//! Tasks that end when somebody lets go of them.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::pin,
    rc::Rc,
    task::{Poll, Waker},
};

use block::{Reactor, host::Watch};

#[derive(Default)]
struct Shared {
    cancelled: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// Cancels when dropped.
struct Guard(Rc<Shared>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.cancelled.set(true);
        if let Some(waker) = self.0.waker.take() {
            waker.wake();
        }
    }
}

/// Runs `task` on the reactor until it is done or the watch is dropped.
pub(super) fn spawn(reactor: &Reactor, task: impl Future<Output = ()> + 'static) -> Watch {
    let shared = Rc::new(Shared::default());
    let guard = Guard(shared.clone());
    reactor.spawn(async move {
        let mut task = pin!(task);
        std::future::poll_fn(|cx| {
            if shared.cancelled.get() {
                return Poll::Ready(());
            }
            *shared.waker.borrow_mut() = Some(cx.waker().clone());
            task.as_mut().poll(cx)
        })
        .await;
    });
    Watch(Some(Box::new(guard)))
}
