//! What newcomers may take from those who are served.
//!
//! To accept a connection and to haggle costs much more than a request, and anybody may make us do
//! it. So while a loop serves the requests of others, all its handshakes together get a tenth of its
//! time, in turn, and connections that are not accepted yet wait in the kernel. A loop whose clients
//! ask for nothing, or that has none, gives newcomers all it has.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::Future,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use block::{Reactor, Tick};

/// One part of so many of a busy loop's time is for newcomers.
const PARTS: u64 = 10;

/// Newcomers may be ahead of their share by so much: about one handshake, in nanoseconds.
const BURST: u64 = 100_000;

/// For the time of a step, so much is reckoned: twice as long again is spent on it outside of the
/// step, by the kernel and the loop (measured: 200 us of the 590 us that a client costs who sends
/// garbage were spent in its steps).
const WHOLE: u64 = 3;

/// The least that a step is reckoned as, in nanoseconds.
const LEAST: u64 = 10_000;

/// A loop whose clients have asked for nothing for so long is not busy.
const BUSY: Duration = Duration::from_millis(100);

/// How often a busy loop looks whether newcomers may go on.
const LOOK: Duration = Duration::from_millis(1);

/// One loop's newcomers.
#[derive(Default)]
pub(super) struct Admission {
    /// Time that newcomers took and that their share has not made up for yet, in nanoseconds.
    ahead: Cell<u64>,
    /// When that was last reckoned.
    at: Cell<Tick>,
    /// Requests of the loop at the time, and when there was last another one.
    requests: Cell<u64>,
    /// Connections behind their handshake.
    served: Cell<usize>,
    busy_at: Cell<Option<Tick>>,
    queue: RefCell<VecDeque<(Rc<Ticket>, Waker)>>,
    /// Somebody looks after the queue.
    tended: Cell<bool>,
}

/// A client that is served. See [`Admission::serve`].
pub(super) struct Served(Rc<Admission>);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.served.set(self.0.served.get() - 1);
    }
}

/// A newcomer's place.
#[derive(Default)]
struct Ticket {
    stage: Cell<Stage>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Free,
    Queued,
    Called,
}

/// The key under which a reactor keeps its newcomers.
static KEY: u8 = 0;

impl Admission {
    /// The newcomers of this loop.
    pub fn of(reactor: &Reactor) -> Rc<Admission> {
        let key = (&raw const KEY).addr();
        reactor.kept(key).unwrap_or_else(|| {
            let new = Rc::<Admission>::default();
            reactor.keep(key, new.clone());
            new
        })
    }

    /// A client is no newcomer any more, until this is dropped.
    pub fn serve(self: &Rc<Self>) -> Served {
        self.served.set(self.served.get() + 1);
        Served(self.clone())
    }

    /// Does what a newcomer wants, in steps that take no more than their share.
    pub async fn admit<T>(
        self: &Rc<Self>,
        reactor: &Reactor,
        newcomer: impl Future<Output = T>,
    ) -> T {
        let ticket = Rc::<Ticket>::default();
        let mut newcomer = pin!(newcomer);
        std::future::poll_fn(|cx| {
            if !self.may_go_on(reactor, &ticket, cx) {
                return Poll::Pending;
            }
            let began = reactor.ops().clock();
            let polled = newcomer.as_mut().poll(cx);
            let took = reactor.ops().clock().0.saturating_sub(began.0);
            self.ahead.set(self.ahead.get() + took * WHOLE + LEAST);
            if self.ahead.get() < BURST {
                self.call_next();
            }
            polled
        })
        .await
    }

    fn may_go_on(
        self: &Rc<Self>,
        reactor: &Reactor,
        ticket: &Rc<Ticket>,
        cx: &Context<'_>,
    ) -> bool {
        self.reckon(reactor);
        let first = ticket.stage.get() == Stage::Called || self.queue.borrow().is_empty();
        if self.ahead.get() < BURST && (first || self.busy_at.get().is_none()) {
            ticket.stage.set(Stage::Free);
            return true;
        }
        let place = (ticket.clone(), cx.waker().clone());
        match ticket.stage.replace(Stage::Queued) {
            Stage::Queued => return false,
            Stage::Free => self.queue.borrow_mut().push_back(place),
            // Was called, and keeps its place.
            Stage::Called => self.queue.borrow_mut().push_front(place),
        }
        self.tend(reactor);
        false
    }

    /// Takes from what newcomers are ahead what is theirs by now.
    fn reckon(&self, reactor: &Reactor) {
        let now = reactor.ops().clock();
        let requests = reactor.counters().requests.get();
        if self.requests.replace(requests) != requests {
            self.busy_at.set(Some(now));
        }
        let theirs = now.since(self.at.replace(now)).as_nanos() as u64 / PARTS;
        self.ahead.set(self.ahead.get().saturating_sub(theirs));
        let quiet = self.busy_at.get().is_none_or(|at| now.since(at) > BUSY);
        if quiet || self.served.get() == 0 {
            self.busy_at.set(None);
            self.ahead.set(0);
        }
    }

    fn call_next(&self) {
        while let Some((ticket, waker)) = self.queue.borrow_mut().pop_front() {
            // Some have left meanwhile.
            if Rc::strong_count(&ticket) > 1 {
                ticket.stage.set(Stage::Called);
                return waker.wake();
            }
        }
    }

    /// Calls those who wait, now and then, until there are none.
    fn tend(self: &Rc<Self>, reactor: &Reactor) {
        if self.tended.replace(true) {
            return;
        }
        let (this, own) = (self.clone(), reactor.clone());
        reactor.spawn(async move {
            while !this.queue.borrow().is_empty() {
                own.sleep(LOOK).await;
                this.reckon(&own);
                if this.ahead.get() < BURST {
                    this.call_next();
                }
            }
            this.tended.set(false);
        });
    }
}

#[cfg(test)]
mod tests {
    use block::Op;
    use testkit::SimLoop;

    use super::*;

    /// Numbers of newcomers in the order in which they came, and were let in.
    #[derive(Default)]
    struct Book {
        came: RefCell<Vec<usize>>,
        done: RefCell<Vec<usize>>,
    }

    /// Starts newcomers of one step each, who write down their numbers.
    fn newcomers(reactor: &Reactor, count: usize) -> Rc<Book> {
        let admission = Admission::of(reactor);
        let book = Rc::<Book>::default();
        for n in 0..count {
            let (admission, own, book) = (admission.clone(), reactor.clone(), book.clone());
            reactor.spawn(async move {
                book.came.borrow_mut().push(n);
                let newcomer = async { book.done.borrow_mut().push(n) };
                admission.admit(&own, newcomer).await;
            });
        }
        book
    }

    #[test]
    fn an_idle_loop_lets_them_all_in_at_once() {
        let made = SimLoop::new(1);
        let reactor = made.reactor().clone();
        let book = newcomers(&reactor, 10_000);
        let began = made.now();
        made.block_on(reactor.sleep(LOOK));
        assert_eq!(book.done.borrow().len(), 10_000);
        assert_eq!(made.now().since(began), LOOK);
    }

    #[test]
    fn a_busy_loop_keeps_nine_tenths() {
        let made = SimLoop::new(1);
        let reactor = made.reactor().clone();
        let own = reactor.clone();
        let served = Admission::of(&reactor).serve();
        reactor.spawn(async move {
            let _served = served;
            for _ in 0..20_000 {
                drop(own.request(Op::Flush, 0, 0));
                own.sleep(Duration::from_micros(50)).await;
            }
        });
        made.block_on(reactor.sleep(LOOK));
        let book = newcomers(&reactor, 7_000);
        // Some leave before it is their turn, and hold up nobody.
        let polled = made.block_on(async {
            let admission = Admission::of(&reactor);
            let mut leaving = pin!(admission.admit(&reactor, std::future::pending::<()>()));
            std::future::poll_fn(|cx| Poll::Ready(leaving.as_mut().poll(cx))).await
        });
        assert!(polled.is_pending());
        // Half a second: 50 ms are theirs, and a step is reckoned as 10 us.
        made.block_on(reactor.sleep(Duration::from_millis(500)));
        let in_time = book.done.borrow().len();
        assert!((4000..=5100).contains(&in_time), "{in_time}");
        made.block_on(reactor.sleep(Duration::from_millis(400)));
        assert_eq!(book.done.borrow().len(), 7_000);
        assert_eq!(*book.done.borrow(), *book.came.borrow(), "in turn");
    }

    #[test]
    fn a_loop_that_is_busy_no_more_lets_in_all_who_wait() {
        let made = SimLoop::new(1);
        let reactor = made.reactor().clone();
        let served = Admission::of(&reactor).serve();
        drop(reactor.request(Op::Flush, 0, 0));
        let book = newcomers(&reactor, 5_000);
        made.block_on(reactor.sleep(BUSY / 2));
        assert!(book.done.borrow().len() < 1000);
        made.block_on(reactor.sleep(BUSY));
        assert_eq!(book.done.borrow().len(), 5_000);
        // The same when the only one who asked has left.
        drop(reactor.request(Op::Flush, 0, 0));
        let book = newcomers(&reactor, 5_000);
        made.block_on(reactor.sleep(LOOK));
        assert!(book.done.borrow().len() < 1000);
        drop(served);
        made.block_on(reactor.sleep(LOOK * 2));
        assert_eq!(book.done.borrow().len(), 5_000);
    }
}
