//! A null device, and layers of the three sizes that do as little as a layer can.

use std::{cell::Cell, rc::Rc, sync::Arc};

use block::{
    Device, Limits, OpSet, Queue, QueueExt, Reactor, Request, Result, WrapDevice, filter::map,
};

/// Answers every read with zeroes and everything else with success.
pub struct Null;

impl Device for Null {
    fn limits(&self) -> Arc<Limits> {
        Arc::new(Limits::new(1 << 40, OpSet::DISK))
    }

    fn open_queue(&self, _: &Reactor) -> Result<Rc<dyn Queue>> {
        Ok(Rc::new(NullQueue))
    }
}

struct NullQueue;

impl Queue for NullQueue {
    fn submit(&self, req: Request) {
        match req.op() {
            block::Op::Read => req.give_zeroes(),
            _ => req.done(),
        }
    }
}

/// A layer over a device.
pub type Layer = fn(Arc<dyn Device>) -> Arc<dyn Device>;

/// A map: shifts every request.
pub fn shift(device: Arc<dyn Device>) -> Arc<dyn Device> {
    map(
        device,
        |limits| limits.size -= 4096,
        |req| {
            req.set_offset(req.offset() + 4096);
            Ok(())
        },
    )
}

/// A hook: counts completions.
pub fn count(device: Arc<dyn Device>) -> Arc<dyn Device> {
    WrapDevice::new(
        device,
        |_| {},
        |_, next| {
            Ok(Rc::new(Counting {
                next,
                good: Rc::default(),
            }))
        },
    )
}

struct Counting {
    next: Rc<dyn Queue>,
    good: Rc<Cell<u64>>,
}

impl Queue for Counting {
    fn submit(&self, mut req: Request) {
        let good = self.good.clone();
        req.on_complete(move |done| good.set(good.get() + u64::from(done.error().is_none())));
        self.next.submit(req);
    }
}

/// An async layer: a task per request.
pub fn wait(device: Arc<dyn Device>) -> Arc<dyn Device> {
    WrapDevice::new(
        device,
        |_| {},
        |reactor, next| {
            Ok(Rc::new(Waiting {
                next,
                reactor: reactor.clone(),
            }))
        },
    )
}

struct Waiting {
    next: Rc<dyn Queue>,
    reactor: Reactor,
}

impl Queue for Waiting {
    fn submit(&self, req: Request) {
        let next = self.next.clone();
        self.reactor
            .spawn(async move { next.call(req).await.finish() });
    }
}
