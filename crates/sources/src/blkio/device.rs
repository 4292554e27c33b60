//! The disk as the block layer knows it, and who has which of its queues.

use std::{
    collections::HashMap,
    rc::Rc,
    sync::{Arc, Mutex},
};

use block::{Device, Error, ErrorKind, Inbox, Limits, Local, Op, Queue, Reactor, Request, Result};

use super::{
    instance::{Instance, lock},
    lane::Lane,
};
use crate::relay;

/// See the [module](self).
pub(super) struct BlkioDevice {
    instance: Arc<Instance>,
    limits: Arc<Limits>,
    /// The reactors that have a queue, by number.
    homes: Mutex<HashMap<usize, Arc<Inbox>>>,
}

impl BlkioDevice {
    pub fn new(instance: Instance) -> BlkioDevice {
        BlkioDevice {
            limits: Arc::new(instance.limits.clone()),
            instance: Arc::new(instance),
            homes: Mutex::default(),
        }
    }

    /// Every request fails from now on.
    pub fn is_gone(&self) -> bool {
        self.instance.is_gone()
    }

    /// It was connected for reading only.
    pub fn is_for_reading(&self) -> bool {
        !self.limits.support(Op::Write).is_offered()
    }

    /// The queue of this reactor: the one it has, or another one.
    fn lane(&self, reactor: &Reactor) -> Result<Option<Rc<Lane>>> {
        let key = address(&self.instance);
        if let Some(lane) = reactor.kept(key) {
            return Ok(Some(lane));
        }
        let Some((index, queue)) = self.instance.take_queue() else {
            return Ok(None);
        };
        let lane = Lane::start(reactor, self.instance.clone(), index, queue)?;
        reactor.keep(key, lane.clone());
        lock(&self.homes).insert(reactor.index(), reactor.inbox().clone());
        Ok(Some(lane))
    }
}

impl Device for BlkioDevice {
    fn limits(&self) -> Arc<Limits> {
        self.limits.clone()
    }

    fn open_queue(&self, reactor: &Reactor) -> Result<Rc<dyn Queue>> {
        if let Some(lane) = self.lane(reactor)? {
            return Ok(Rc::new(Near(lane)));
        }
        let homes = lock(&self.homes);
        let none = || Error::new(ErrorKind::Exhausted, "the disk has no queue left");
        let mut all: Vec<usize> = homes.keys().copied().collect();
        all.sort_unstable();
        let at = all
            .get(reactor.index() % all.len().max(1))
            .ok_or_else(none)?;
        Ok(Rc::new(Far {
            reactor: reactor.clone(),
            home: homes[at].clone(),
            instance: self.instance.clone(),
        }))
    }

    fn close<'a>(&'a self, _: &'a Reactor) -> Local<'a, Result<()>> {
        // Others may have it open, too: it ends with the last of them, by being dropped.
        Box::pin(async { Ok(()) })
    }
}

impl Drop for BlkioDevice {
    fn drop(&mut self) {
        for home in lock(&self.homes).values() {
            // The key goes along: its address must not be another's before this has run.
            let instance = self.instance.clone();
            home.run(move |home| home.forget(address(&instance)));
        }
    }
}

fn address(instance: &Arc<Instance>) -> usize {
    Arc::as_ptr(instance).addr()
}

/// A queue of the reactor's own.
struct Near(Rc<Lane>);

impl Queue for Near {
    #[inline]
    fn submit(&self, req: Request) {
        Lane::submit(&self.0, req);
    }
}

/// A queue of another reactor.
struct Far {
    reactor: Reactor,
    home: Arc<Inbox>,
    instance: Arc<Instance>,
}

impl Queue for Far {
    fn submit(&self, req: Request) {
        let remote = req.into_remote(self.reactor.inbox());
        let key = self.instance.clone();
        // A reactor that is gone drops the request, which then fails.
        self.home.run(move |home| {
            if let Some(lane) = home.kept::<Lane>(address(&key)) {
                relay::submit(home, remote, |request| Lane::submit(&lane, request));
            }
        });
    }
}
