//! The gate: requests of a source whose thread model forbids more than one at a time.
//!
//! This is one of the two places where a [`crate::ThreadModel`] is enforced (the other is the
//! export, which gates connections). Everything above and below runs as if all were parallel.

use std::{rc::Rc, sync::Arc};

use crate::{
    device::Device,
    error::Result,
    events::{Event, Subscription},
    limits::Limits,
    queue::{Queue, QueueExt},
    range_lock::RangeLock,
    reactor::{Local, Reactor},
    request::Request,
};

/// A device that gets one request at a time, on whichever reactor.
pub struct Gate {
    device: Arc<dyn Device>,
    lock: RangeLock,
}

/// The one "range" a gate locks.
const ALL: std::ops::Range<u64> = 0..1;

impl Gate {
    /// Gates `device`. Devices that share `lock` take turns (serialize_all_requests); a lock of its
    /// own gives serialize_requests.
    pub fn wrap(device: Arc<dyn Device>, lock: RangeLock) -> Arc<dyn Device> {
        Arc::new(Gate { device, lock })
    }
}

impl Device for Gate {
    fn limits(&self) -> Arc<Limits> {
        self.device.limits()
    }

    fn subscribe(&self, reactor: &Reactor, f: Box<dyn Fn(Event)>) -> Subscription {
        self.device.subscribe(reactor, f)
    }

    fn block_lock(&self) -> Option<RangeLock> {
        self.device.block_lock()
    }

    fn open_queue(&self, reactor: &Reactor) -> Result<Rc<dyn Queue>> {
        let next = self.device.open_queue(reactor)?;
        Ok(Rc::new(GateQueue {
            next,
            lock: self.lock.clone(),
            reactor: reactor.clone(),
        }))
    }

    fn close<'a>(&'a self, reactor: &'a Reactor) -> Local<'a, Result<()>> {
        self.device.close(reactor)
    }
}

struct GateQueue {
    next: Rc<dyn Queue>,
    lock: RangeLock,
    reactor: Reactor,
}

impl Queue for GateQueue {
    fn submit(&self, req: Request) {
        let (next, turn) = (self.next.clone(), self.lock.exclusive(ALL));
        let parked = req.park(|req| req.fail(crate::Errno::ECANCELED));
        self.reactor.spawn(async move {
            let turn = turn.await;
            if let Some(req) = parked.take() {
                next.call(req).await.finish();
            }
            drop(turn);
        });
    }
}
