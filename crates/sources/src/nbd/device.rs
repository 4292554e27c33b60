//! The disk that a server serves.
//!
//! Its connections live on the reactor on which it was opened: there a queue hands requests straight
//! to a lane. A queue of another reactor sends them over, and their bytes are copied.

use std::{
    rc::Rc,
    sync::{Arc, atomic::Ordering},
};

use block::{
    Data, Device, Errno, Inbox, Iov, Limits, Local, Op, OpSet, Queue, Reactor, Remote, Request,
    Result,
};

use super::{Target, lane::Lane};

/// See the [module](self).
pub(super) struct NbdDevice {
    limits: Arc<Limits>,
    home: Arc<Inbox>,
    /// Its address is the key under which the home reactor keeps the lanes.
    target: Arc<Target>,
}

/// All connections of a device.
struct Lanes {
    all: Vec<Rc<Lane>>,
    offered: OpSet,
}

impl Lanes {
    fn submit(&self, request: Request) {
        if !self.offered.contains(request.op()) {
            return request.fail(Errno::ENOTSUP);
        }
        let lane = match &self.all[..] {
            [only] => only,
            many => many
                .iter()
                .min_by_key(|lane| lane.in_flight())
                .expect("a device has a lane"),
        };
        lane.submit(request);
    }

    fn leave(&self, reactor: &Reactor) {
        for lane in &self.all {
            reactor.spawn(lane.clone().leave());
        }
    }
}

impl NbdDevice {
    pub fn new(
        reactor: &Reactor,
        limits: Limits,
        target: Arc<Target>,
        lanes: Vec<Rc<Lane>>,
    ) -> NbdDevice {
        let lanes = Lanes {
            all: lanes,
            offered: limits.offered(),
        };
        reactor.keep(address(&target), Rc::new(lanes));
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
                for lane in &lanes.all {
                    lane.clone().leave().await;
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
                lanes.leave(home);
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
                relay(home, &lanes, remote);
            }
        });
    }
}

/// Submits a copy of a request that belongs to another reactor.
fn relay(home: &Reactor, lanes: &Lanes, mut remote: Remote) {
    let (op, len) = (remote.op(), remote.len());
    let mut request = home.request(op, remote.offset(), len);
    request.set_flags(remote.flags());
    *request.data_mut() = match op {
        Op::Read => Data::Wanted,
        Op::Write => {
            let mut bytes = vec![0; len as usize];
            remote.read_data(0, &mut bytes);
            let iov = Iov::of_chunk(home.chunk(bytes.len()), bytes.len());
            iov.write(0, &bytes);
            iov.into()
        }
        _ => Data::None,
    };
    request.intercept(move |mut done| {
        let outcome = done.take_outcome();
        if outcome.is_ok() {
            match std::mem::take(done.data_mut()) {
                Data::Given(found) => remote.give(found.to_vec()),
                Data::Extents(extents) => remote.give_extents(extents),
                _ => {}
            }
        }
        remote.complete(outcome);
        done.finish();
    });
    lanes.submit(request);
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
