//! The disk that a server serves.
//!
//! Its connections live on the reactor on which it was opened: there a queue hands requests straight
//! to a lane. A queue of another reactor sends them over, and their bytes are copied.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    task::{Poll, Waker},
    time::Duration,
};

use block::{Device, Errno, Inbox, Limits, Local, OpSet, Queue, Reactor, Request, Result};

use super::{Joined, Settings, Target, lane::Lane, within};
use crate::relay;

/// See the [module](self).
pub(super) struct NbdDevice {
    limits: Arc<Limits>,
    home: Arc<Inbox>,
    /// Its address is the key under which the home reactor keeps the lanes.
    target: Arc<Target>,
}

/// All connections of a device.
struct Lanes {
    /// The first one is there from the beginning, the others come as they are agreed on.
    all: RefCell<Vec<Rc<Lane>>>,
    offered: OpSet,
    /// Connections that are being agreed on, and who waits for there to be none.
    joining: Cell<usize>,
    waiting: RefCell<Option<Waker>>,
    /// Nobody joins any more.
    closed: Cell<bool>,
}

/// How long what is being agreed on is waited for at the end. A server that is left in the middle of
/// it says so in its log.
const GRACE: Duration = Duration::from_millis(50);

impl Lanes {
    fn submit(&self, request: Request) {
        if !self.offered.contains(request.op()) {
            return request.fail(Errno::ENOTSUP);
        }
        let all = self.all.borrow();
        let lane = match &all[..] {
            [only] => only,
            many => many
                .iter()
                .min_by_key(|lane| lane.in_flight())
                .expect("a device has a lane"),
        };
        lane.submit(request);
    }

    /// Waits until nobody joins, or not any longer.
    async fn joined(&self, reactor: &Reactor) {
        let none = poll_fn(|cx| {
            if self.joining.get() == 0 {
                return Poll::Ready(());
            }
            *self.waiting.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        });
        within(reactor, GRACE, none).await;
    }

    /// All of them say goodbye at once. What is still being agreed on does when it comes.
    fn leave(&self, reactor: &Reactor) -> Vec<Rc<Lane>> {
        self.closed.set(true);
        let all = self.all.borrow().clone();
        for lane in &all {
            reactor.spawn(lane.clone().leave());
        }
        all
    }
}

/// One more connection, as soon as it is agreed on: requests do not wait for it. Without it the
/// others do all the work.
async fn join(reactor: Reactor, target: Arc<Target>, settings: Settings, lanes: Rc<Lanes>) {
    match target.connect(&reactor).await {
        Ok(joined) => {
            let lane = Lane::start(&reactor, target, settings, joined);
            match lanes.closed.get() {
                true => lane.leave().await,
                false => lanes.all.borrow_mut().push(lane),
            }
        }
        Err(refused) => {
            let why = block::Error::from(refused);
            tracing::debug!("one connection less: {}", why.chain());
        }
    }
    lanes.joining.set(lanes.joining.get() - 1);
    if let Some(waiting) = lanes.waiting.take() {
        waiting.wake();
    }
}

impl NbdDevice {
    /// The disk at the other end of a connection. If the server allows more of them, they are made
    /// meanwhile, all at once.
    pub fn new(
        reactor: &Reactor,
        limits: Limits,
        target: Arc<Target>,
        settings: Settings,
        first: Joined,
    ) -> NbdDevice {
        let first = Lane::start(reactor, target.clone(), settings, first);
        let more = match limits.multi_conn {
            true => settings.connections.saturating_sub(1),
            false => 0,
        };
        let lanes = Rc::new(Lanes {
            all: RefCell::new(vec![first]),
            offered: limits.offered(),
            joining: Cell::new(more),
            waiting: RefCell::default(),
            closed: Cell::new(false),
        });
        for _ in 0..more {
            let (target, lanes) = (target.clone(), lanes.clone());
            reactor.spawn(join(reactor.clone(), target, settings, lanes));
        }
        reactor.keep(address(&target), lanes);
        NbdDevice {
            limits: Arc::new(limits),
            home: reactor.inbox().clone(),
            target,
        }
    }

    fn is_home(&self, reactor: &Reactor) -> bool {
        Arc::ptr_eq(reactor.inbox(), &self.home)
    }

    fn lanes(&self, reactor: &Reactor) -> Option<Rc<Lanes>> {
        reactor.kept(address(&self.target))
    }

    /// Every request will fail from now on.
    pub fn is_gone(&self) -> bool {
        self.target.gone.load(Ordering::Relaxed)
    }
}

impl Device for NbdDevice {
    fn limits(&self) -> Arc<Limits> {
        self.limits.clone()
    }

    fn open_queue(&self, reactor: &Reactor) -> Result<Rc<dyn Queue>> {
        match self.lanes(reactor).filter(|_| self.is_home(reactor)) {
            Some(lanes) => Ok(Rc::new(Near(lanes))),
            None => Ok(Rc::new(Far {
                reactor: reactor.clone(),
                home: self.home.clone(),
                target: self.target.clone(),
            })),
        }
    }

    fn close<'a>(&'a self, reactor: &'a Reactor) -> Local<'a, Result<()>> {
        Box::pin(async move {
            if let Some(lanes) = self.lanes(reactor).filter(|_| self.is_home(reactor)) {
                let all = lanes.leave(reactor);
                lanes.joined(reactor).await;
                for lane in all {
                    lane.leave().await;
                }
            }
            Ok(())
        })
    }
}

impl Drop for NbdDevice {
    fn drop(&mut self) {
        // The key goes along: its address must not be another device's before this has run.
        let target = self.target.clone();
        self.home.run(move |home| {
            if let Some(lanes) = home.kept::<Lanes>(address(&target)) {
                let _leaving = lanes.leave(home);
            }
            home.forget(address(&target));
        });
    }
}

fn address(target: &Arc<Target>) -> usize {
    Arc::as_ptr(target).addr()
}

/// A queue of the reactor that has the connections.
struct Near(Rc<Lanes>);

impl Queue for Near {
    fn submit(&self, req: Request) {
        self.0.submit(req);
    }
}

/// A queue of another reactor.
struct Far {
    reactor: Reactor,
    home: Arc<Inbox>,
    target: Arc<Target>,
}

impl Queue for Far {
    fn submit(&self, req: Request) {
        let remote = req.into_remote(self.reactor.inbox());
        let target = self.target.clone();
        // A reactor that is gone drops the request, which then fails.
        self.home.run(move |home| {
            if let Some(lanes) = home.kept::<Lanes>(address(&target)) {
                relay::submit(home, remote, |request| lanes.submit(request));
            }
        });
    }
}

/// A device that several clients use: it stays open when one of them closes it.
pub(super) struct Lent(Arc<NbdDevice>, Arc<Limits>);

impl Lent {
    pub fn new(device: Arc<NbdDevice>) -> Lent {
        let limits = Limits {
            // All of them have the same connections.
            multi_conn: true,
            ..Limits::clone(&device.limits)
        };
        Lent(device, Arc::new(limits))
    }
}

impl Device for Lent {
    fn limits(&self) -> Arc<Limits> {
        self.1.clone()
    }

    fn open_queue(&self, reactor: &Reactor) -> Result<Rc<dyn Queue>> {
        self.0.open_queue(reactor)
    }
}
